"""losskernel-prefetch: what it fetches from stand-ins for the servers of others, and a run afterwards without any."""

import hashlib
import http.server
import re
import shlex
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nltk
import numpy as np
import pytest
import torch
from command import call, losskernel_command
from nltk.corpus.reader.api import CorpusReader
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader
from pictures import cifar_like, draw, googlenet_file, imagenet_like
from taxonomy_oracles import write_wordnet

import losskernel as lk
from losskernel.data import digits
from losskernel.data.base import Data
from losskernel.storage.downloads import (
    Download,
    network_timeout,
    recorded_connections,
    recorded_downloads,
    report_download,
)

QUIET = ("analysis=[separation]", "logger=none", "threads=1")
SMALL_BATCHES = ("training.batch_size=4", "schedule.batch_size=4")
OWN_PICTURES = ("model=small_cnn", "model.channels=3", "model.outputs=3", "dataset=image_folder", "dataset.size=16")


class Server(http.server.ThreadingHTTPServer):
    """Serves the files of a folder on this machine, and those of Hugging Face's hub by the last part of their path."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.server.folder / self.path.rsplit("/", 1)[-1]
        body = path.read_bytes() if path.is_file() else b""
        self.server.asked.append(f"{self.command} {path.name}")
        self.send_response(200 if body else 404)
        about = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": "a" * 40} if body else {}
        for name, value in {**about, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    with Server(tmp_path / "served") as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches of this test alone, and a folder of its own to be in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "my torch"))
    monkeypatch.setenv("LOSSKERNEL_CACHE", str(tmp_path / "decoded"))
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "NLTK_DATA", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid every connection that might leave this machine."""

    class Inside(socket.socket):
        def __init__(self, family: int = -1, *arguments: Any, **options: Any) -> None:
            assert family == socket.AF_UNIX, "a socket is opened"
            super().__init__(family, *arguments, **options)

    def nobody(host: str, *_: Any, **__: Any) -> None:
        pytest.fail(f"{host} is looked up")

    monkeypatch.setattr(socket, "socket", Inside)
    monkeypatch.setattr(socket, "getaddrinfo", nobody)


def prefetch(*words: str) -> int:
    return call(*words, command="prefetch")


def rows(said: str) -> dict[str, tuple[str, str, Path]]:
    """What -> (state, size, path) of the table."""
    parts = [[part.strip() for part in line.split("  ") if part.strip()] for line in said.splitlines()]
    return {what: (state, size, Path(path)) for what, state, size, path in (item for item in parts if len(item) == 4)}


def pictures(root: Path) -> Path:
    """Three pictures of each of three classes."""
    for item, name in enumerate(("ant", "bee", "cat")):
        for number in range(3):
            draw(root / name / f"{number}.jpg", 10 * item + number)
    return root


# --- what is fetched


@pytest.fixture
def googlenet(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Torchvision's weights of GoogLeNet at the stand-in; the name of their file, which holds its hash."""
    from torchvision.models import get_model_weights

    body = googlenet_file(tmp_path).read_bytes()
    name = f"googlenet-{hashlib.sha256(body).hexdigest()[:8]}.pth"
    (server.folder / name).write_bytes(body)
    entry = get_model_weights("googlenet")["DEFAULT"]
    monkeypatch.setattr(entry, "_value_", replace(entry.value, url=f"{server.url}/{name}"))
    return name


@pytest.mark.slow
def test_the_paper_s_experiment_is_fetched_and_then_runs_without_any_network(
    googlenet: str, server: Server, tmp_path: Path, capsys: Any, request: pytest.FixtureRequest
) -> None:
    imagenet_like(tmp_path / "imagenet", classes=5, train=2, val=2)
    words = ("experiment=inception", f"dataset.root={tmp_path / 'imagenet'}", "dataset.size=32", "threads=1")
    words = (*words, "dataset.probes_per_class=2", "dataset.workers=0", "baselines=none", "analysis=[convergence]")
    words = (*words, "schedule.batch_size=2", "sampler.parameters=[fc.*]", "schedule.chains=1", "schedule.burn_in=0")
    words = (*words, "schedule.draws=2", "schedule.thinning=1")
    weights = tmp_path / "my torch" / "hub" / "checkpoints" / googlenet
    for state in ("new", "was there"):
        assert prefetch(*words) == 0
        said = capsys.readouterr().out
        result = rows(said)
        size = f"{weights.stat().st_size / 1e6:.1f} MB"
        assert result["weights of googlenet, torchvision"] == (state, size, weights)
        assert result["decoded pictures"][0] == state
        assert result["decoded pictures"][2].parent == tmp_path / "decoded"
        assert "tried without the network: the study builds, and two probes pass through the model" in said
    assert server.asked == [f"GET {googlenet}"]
    assert f"  export TORCH_HOME={shlex.quote(str(tmp_path / 'my torch'))}\n" in said  # with a blank in it
    assert f"  export LOSSKERNEL_CACHE={tmp_path}/decoded\n  export WANDB_MODE=offline\n" in said
    assert "wandb sync $(find outputs/inception -type d -name 'offline-run-*')" in said
    assert list(Path.cwd().iterdir()) == []  # no output folder

    request.getfixturevalue("no_sockets")
    assert call(*words, "logger=none", "progress=false", f"paths.run={tmp_path / 'run'}") == 0
    assert lk.open_traces(tmp_path / "run").losses.shape == (1, 2, 10)


def test_cifar_is_fetched_for_a_run_that_does_not_ask_for_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from torchvision.datasets import CIFAR10

    cifar_like(tmp_path / "source", monkeypatch, classes=10)
    archive = Path(shutil.make_archive(str(server.folder / "cifar"), "gztar", tmp_path / "source"))
    monkeypatch.setattr(CIFAR10, "url", f"{server.url}/{archive.name}")
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    words = (*QUIET, "model=small_cnn", "model.channels=3", "dataset=cifar10", f"dataset.root={tmp_path / 'data'}")
    words = (*words, "dataset.probes_per_class=2")
    for state in ("new", "was there"):
        assert prefetch(*words) == 0
        assert rows(capsys.readouterr().out)["CIFAR10"][::2] == (state, tmp_path / "data" / "cifar-10-batches-py")
    shutil.rmtree(tmp_path / "data")
    server.shutdown()
    server.server_close()
    assert prefetch(*words) == 1
    said = capsys.readouterr().err
    assert f"dataset.root={tmp_path}/data: CIFAR10 is not there or damaged: expected {tmp_path}/data/cifar-10" in said
    assert "run this command, which needs internet, on a machine that has it (or set dataset.download=true th" in said
    assert f"or unpack {server.url}/cifar.tar.gz in {tmp_path}/data" in said
    assert len(said.splitlines()) == 1


def test_timms_weights_come_from_the_hub(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import timm
    from huggingface_hub import constants
    from safetensors.torch import save_file

    torch.manual_seed(5)
    published = timm.create_model("test_resnet").state_dict()
    save_file(published, server.folder / "model.safetensors")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    root = pictures(tmp_path / "own")
    words = (*QUIET, "model=timm", "model.name=test_resnet", "model.weights=timm", "dataset=image_folder")
    words = (*words, f"dataset.root={root}", "dataset.size=32", "dataset.probes_per_class=2", "training.steps=0")
    words = (*words, "schedule.batch_size=4")
    for state in ("new", "was there"):
        assert prefetch(*words) == 0
        said = capsys.readouterr().out
        name, size, path = rows(said)["weights of test_resnet, timm"]
        assert (name, path.parent) == (state, tmp_path / "hub")
        assert float(size.removesuffix(" MB")) == pytest.approx(
            sum(v.nbytes for v in published.values()) / 1e6, rel=0.1
        )
        assert "  export HF_HUB_OFFLINE=1\n" in said
    with recorded_connections(refused=True):
        model = lk.models.timm_model("test_resnet", weights="timm")
    assert all(torch.equal(value, published[name]) for name, value in model.state_dict().items())


def test_wordnet_is_fetched_for_synsets_beyond_those_of_imagenet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    languages = LazyCorpusLoader("omw-1.4", CorpusReader, ".*")
    monkeypatch.setattr(nltk.corpus, "wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, languages))
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk_data")])
    monkeypatch.setattr(nltk, "download", lambda *_, **__: socket.create_connection(("127.0.0.1", 9)))
    words = (*QUIET, "dataset=taxonomy_images", "dataset.leaves=[widget.n.01,gadget.n.01]", "dataset.size=16")
    words = (*words, "dataset.per_class=4", "dataset.probes_per_class=2", "model=small_cnn", "model.channels=3")
    words = (*words, "model.outputs=2", *SMALL_BATCHES)
    assert prefetch(*words) == 1
    said = capsys.readouterr().err
    assert "'widget.n.01' is not above or among the ImageNet classes, and WordNet" in said
    assert "run this command, which needs internet, on a machine that has it, or run python -m nltk.download" in said
    assert len(said.splitlines()) == 1

    def download(*_: Any, **__: Any) -> None:
        socket.getaddrinfo("localhost", None)
        (tmp_path / "nltk_data").mkdir()
        write_wordnet(tmp_path / "nltk_data", {"entity": [], "gadget": [("@", "entity")], "widget": [("@", "entity")]})

    monkeypatch.setattr(nltk, "download", download)
    for state in ("new", "was there"):
        assert prefetch(*words) == 0
        assert rows(capsys.readouterr().out)["WordNet"][::2] == (state, tmp_path / "nltk_data" / "corpora" / "wordnet")


@pytest.mark.parametrize("wrapper", ["none", "[training_probes,symmetric_noise]"])
def test_pictures_are_decoded_below_wrappers_too(wrapper: str, tmp_path: Path, capsys: Any) -> None:
    words = (*QUIET, *OWN_PICTURES, f"dataset.root={pictures(tmp_path / 'own')}", f"wrapper={wrapper}")
    words = (
        *words,
        "dataset.probes_per_class=2",
        "dataset.workers=0",
        "training.batch_size=4",
        "schedule.batch_size=4",
    )
    for state in ("new", "was there"):
        assert prefetch(*words) == 0
        said = capsys.readouterr().out
        assert f"  decoded pictures  {state} " in said
    assert sorted(np.load(item).shape for item in (tmp_path / "decoded").iterdir()) == (
        [(6, 3, 16, 16), (9, 3, 16, 16)] if wrapper == "none" else [(9, 3, 16, 16)]
    )


# --- what is not there


def test_without_internet_every_missing_thing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    words = ("-m", *QUIET, "model=resnet18,vgg16", "model.weights=torchvision", "dataset=cifar10,cifar100")
    assert prefetch(*words, "dataset.root=data", "schedule.chains=0") == 1
    said = capsys.readouterr()
    lines = said.err.splitlines()
    for name in ("resnet18", "vgg16"):
        (line,) = (item for item in lines if f"checkpoints/{name}" in item)
        assert "no route to host" in line
        assert f"copy https://download.pytorch.org/models/{name}-" in line
        assert "model.weights=<file>" in line
        assert "run this command, which needs internet, on a machine that has it, or copy https" in line
    assert "losskernel-prefetch" not in said.err
    for name in ("CIFAR10 ", "CIFAR100 "):
        assert sum(name in line for line in lines) == 1
    assert len(lines) == 5, lines
    assert "schedule.chains must be >= 1" in said.err
    assert "tried without the network" not in said.out
    shutil.rmtree("data", ignore_errors=True)
    assert list(Path.cwd().iterdir()) == []


def reaching(port: int) -> Data:
    """A dataset that asks a server whenever it is built, and does not say so."""
    socket.create_connection(("127.0.0.1", port)).close()
    return digits(probes=20)


def test_what_reaches_for_the_network_at_every_start_is_found_out(server: Server, capsys: Any) -> None:
    own = ("~dataset", "+label=class", "model=mlp", "+dataset._target_=test_prefetch.reaching")
    assert prefetch(*QUIET, *own, f"+dataset.port={server.server_port}") == 1
    said = capsys.readouterr().err
    assert said.startswith("losskernel: with the network cut off, dataset: OSError: ")
    assert "127.0.0.1: the network is cut off for this trial" in said
    assert len(said.splitlines()) == 1


# --- words


def test_jobs_that_want_the_same_are_tried_once(capsys: Any) -> None:
    words = ("experiment=digits", *QUIET[1:], "sampler.localization=10,20,30", "seed=0,1", "schedule.draws=200")
    assert prefetch(*words) == 0
    said = capsys.readouterr().out
    # the probes are of the seed, the localization is nobody's affair
    assert said.startswith("nothing is wanted from outside; tried without the network: 2 studies build, and two probes")
    assert "WANDB" not in said
    assert prefetch("-m", "experiment=digits,multitask", "logger.mode=offline") == 0
    said = capsys.readouterr().out
    assert said.count("wandb sync $(find outputs/") == 2


def test_recipes_of_ones_own_are_found(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    recipe = "# @package _global_\ndefaults:\n  - override /model: mlp\n  - override /dataset: digits\nname: mine\n"
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text(recipe)
    for flag in ([f"--config-dir={tmp_path / 'mine'}"], ["-cd", "../mine"], ["--config-dir", "../mine"]):
        assert prefetch(*flag, "experiment=own") == 0
        assert "find outputs/mine -type d" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cfg", "job"], "losskernel-prefetch takes key=value, -m, --config-dir and --help, got --cfg"),
        (
            ["sampler.localization=interval(1,10)"],
            r"sampler.localization=interval\(1,10\): its values cannot be listed",
        ),
        (["experiment=nowhere"], "Could not find 'experiment/nowhere'"),
        (["+model.foo=1"], r"model\.foo=1: .*no such argument"),
    ],
)
def test_words_that_no_job_takes_are_one_line(words: list[str], message: str, capsys: Any) -> None:
    assert prefetch(*words) == 1
    said = capsys.readouterr().err
    assert [line for line in said.splitlines() if line.startswith("losskernel: ")] == said.splitlines()
    assert re.search(message, said), said


def test_a_real_process_helps_and_leaves_nothing(tmp_path: Path) -> None:
    done = losskernel_command("--help", cwd=Path.cwd(), command="prefetch")
    assert (done.returncode, done.stderr) == (0, "")
    assert "losskernel-prefetch is powered by Hydra" in done.stdout
    assert list(Path.cwd().iterdir()) == []


# --- hearing and watching


def test_what_is_taken_is_heard_by_who_listens() -> None:
    report_download("nothing that anybody hears", Path("/"), new=True)
    with recorded_downloads() as heard:
        report_download("weights", Path("w.pt"), new=True)
        with recorded_downloads() as inner:
            report_download("data", Path("d"), new=False)
    assert heard == [Download("weights", Path("w.pt"), True)]
    assert inner == [Download("data", Path("d"), False)]


def test_connections_are_counted_and_refused_but_for_those_inside_of_the_machine(server: Server) -> None:
    address = ("127.0.0.1", server.server_port)
    with recorded_connections() as tried:
        socket.create_connection(address).close()
        with socket.socket() as plain:
            assert plain.connect_ex(address) == 0
    assert tried == ["127.0.0.1"] * 3  # looked up, connected, connected
    first, second = socket.socketpair()
    with recorded_connections(refused=True) as tried, first, second:
        with pytest.raises(OSError, match=r"127.0.0.1: the network is cut off for this trial"):
            socket.create_connection(address)
        with socket.socket() as plain, pytest.raises(OSError, match="cut off"):
            plain.connect(address)
        first.send(b"inside")
        assert second.recv(6) == b"inside"
    assert len(tried) == 2
    socket.create_connection(address).close()  # as before


def test_patience_is_bounded_for_a_while() -> None:
    before = socket.getdefaulttimeout()
    with network_timeout():
        assert socket.getdefaulttimeout() == 20
    assert socket.getdefaulttimeout() == before
