"""Traces in folders and below URLs: an S3 server of this machine, and memory; what a bucket refuses is one line."""

import functools
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
import yaml
from command import config, tiny

import losskernel as lk
from losskernel.cli.build import analyse_from, run_from
from losskernel.data import arithmetic
from losskernel.errors import InputError, Interrupted, TraceError
from losskernel.models import MultitaskMLP
from losskernel.sampling import sample as sampling
from losskernel.storage import locks
from losskernel.storage.locations import (
    LocalLocation,
    RemoteLocation,
    locate,
    require_writable,
    run_location,
    write_pointer,
)
from losskernel.storage.lock_owner import LockOwner
from losskernel.sweeps.read_runs import find_runs, read_run
from losskernel.traces import zarr_store as store
from losskernel.traces.zarr_store import TraceStore

s3fs = pytest.importorskip("s3fs", reason="losskernel[s3] is not installed")
moto_server = pytest.importorskip("moto.server", reason="moto[server] is not installed")

SGLD = functools.partial(lk.SGLD, step_size=1e-3, nbeta=100.0, localization=100.0)
SCHEDULE = lk.Schedule(chains=2, burn_in=4, draws=12, thinning=1, batch_size=32)


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """The address of an S3 server."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty bucket of the server."""
    _reach(monkeypatch, endpoint)
    name = f"b{abs(hash(request.node.name)):x}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["s3", "memory"])
def anywhere(request: pytest.FixtureRequest) -> str:
    """The URL of an empty folder, of one kind and of the other."""
    return request.getfixturevalue("memory" if request.param == "memory" else "bucket") + "/some/folder"


@pytest.fixture
def memory() -> Iterator[str]:
    """The URL of an empty folder in this process."""
    yield "memory://folder"
    fsspec.filesystem("memory").store.clear()


def _reach(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    access = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "secret"}
    quick = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in (access | quick).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()


@functools.cache
def whole() -> lk.LossTraces:
    """The trace that `draw` makes, in memory."""
    return draw(None)


def draw(out: Any, **options: Any) -> lk.LossTraces:
    """Sample the trace that the tests here repeat."""
    torch.manual_seed(0)
    model, data = MultitaskMLP(2), arithmetic(probes_per_task=5)
    return lk.sample(model, data, SGLD, SCHEDULE, **{"out": out, "chains_per_fit": 1, "progress": False, **options})


def objects(url: str) -> set[str]:
    return locate(url).names()


def test_a_trace_below_a_url_is_the_one_in_memory(memory: str) -> None:
    sampled = draw(f"{memory}/x.zarr")
    for traces in (sampled, lk.open_traces(f"{memory}/x.zarr/")):
        assert traces.dataset.equals(whole().dataset)
        assert traces.labels.keys() == whole().labels.keys()
    assert TraceStore(f"{memory}/x.zarr").complete
    kept = objects(f"{memory}/x.zarr")
    assert {"zarr.json", "losses/c/0/0/0", "losses/c/1/0/0"} <= kept
    assert not {"resume.pt", ".lock"} & kept
    assert draw(f"{memory}/x.zarr").losses.equals(whole().losses)  # it is only opened
    with pytest.raises(TraceError, match=r"/x\.zarr exists; pass resume=True"):
        draw(f"{memory}/x.zarr", resume=False)


def test_parts_of_a_kernel_below_urls_are_joined(bucket: str) -> None:
    losses = np.random.default_rng(0).normal(size=(2, 2, 12, 10))
    parts = [lk.LossTraces.from_arrays(part) for part in losses]
    urls = [part.save(f"{bucket}/{number}.zarr") for number, part in enumerate(parts)]
    np.testing.assert_array_equal(lk.open_traces(urls).losses, np.concatenate(losses))


def test_an_interrupted_trace_is_continued_to_the_bit(anywhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_CHUNK_BYTES", 10 * 4 * 5)  # five draws
    batches = 0

    class Stop:
        def __enter__(self) -> Any:
            return self._signal

        def __exit__(self, *_: Any) -> None: ...

        def _signal(self) -> int:
            nonlocal batches
            batches += 1
            return 15 * (batches >= 9)

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "stop_on_signal", Stop)
        for _ in range(2 if "memory" in anywhere else 1):  # in the first stack of chains, and in the second
            batches = 0
            with pytest.raises(Interrupted, match=r"continue with the same call and out=.*://"):
                draw(f"{anywhere}/x.zarr")
            assert {"resume.pt", "zarr.json"} <= objects(f"{anywhere}/x.zarr")
            assert ".lock" not in objects(f"{anywhere}/x.zarr")
            with pytest.raises(TraceError, match=r"/x\.zarr is unfinished \(chains \d to \d: \d+ draws done\)"):
                lk.open_traces(f"{anywhere}/x.zarr")
    assert draw(f"{anywhere}/x.zarr").dataset.equals(whole().dataset)
    assert "resume.pt" not in objects(f"{anywhere}/x.zarr")


def test_names_that_look_like_patterns_are_names(anywhere: str) -> None:
    url, traces = f"{anywhere}/layer=[a,b] x?y*z ü/x.zarr", whole()
    (locate(anywhere) / "layer=a x0y0z ü/x.zarr/zarr.json").write(b"another's")
    traces.save(url)
    assert lk.open_traces(url).dataset.identical(traces.dataset)


def test_a_listing_that_lags_is_no_loss(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = RemoteLocation.names
    monkeypatch.setattr(
        RemoteLocation, "names", lambda location: {name for name in listed(location) if "losses/c/1" not in name}
    )
    assert draw(f"{memory}/x.zarr").losses.equals(whole().losses)
    (locate(f"{memory}/x.zarr") / "losses/c/1/0/0").remove()
    with pytest.raises(TraceError, match=r"losses/c/1/0/0 is missing"):
        lk.open_traces(f"{memory}/x.zarr")


def test_chunks_exchanged_below_a_url_are_named(memory: str) -> None:
    draw(f"{memory}/x.zarr")
    one, other = (locate(f"{memory}/x.zarr") / f"losses/c/{number}/0/0" for number in (0, 1))
    content = one.read()
    one.write(other.read())
    other.write(content)
    with pytest.raises(TraceError, match=r"losses/c/\d/0/0 is damaged: its content has changed"):
        lk.open_traces(f"{memory}/x.zarr")


def test_damage_below_a_url_is_named(bucket: str) -> None:
    url, traces = f"{bucket}/x.zarr", lk.LossTraces.from_arrays(np.random.default_rng(0).normal(size=(2, 12, 10)))
    traces.save(url)
    cases = {
        "losses/c/0/0/0": ("flipped", "cut", "gone"),
        "losses/zarr.json": ("flipped", "gone"),
        "zarr.json": ("cut",),
    }
    for name, kind in ((name, kind) for name, kinds in cases.items() for kind in kinds):
        there = locate(url) / name
        content = there.read()
        if kind == "gone":
            there.remove()
        else:
            there.write(content[:-9] if kind == "cut" else content[:40] + bytes([content[40] ^ 4]) + content[41:])
        with pytest.raises(
            TraceError, match=rf"{url}/{name} is (damaged: \S.*|missing); restore it from a copy, or remo"
        ):
            lk.open_traces(url)
        there.write(content)
    assert lk.open_traces(url).losses.equals(traces.losses)


def test_a_layout_that_was_interrupted_is_no_trace(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url, written = f"{memory}/x.zarr", RemoteLocation.write

    def killed(location: RemoteLocation, content: bytes) -> None:
        if str(location).endswith("x.zarr/zarr.json"):
            raise KeyboardInterrupt
        written(location, content)

    with monkeypatch.context() as patch:
        patch.setattr(RemoteLocation, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            draw(url)
    assert "losses/zarr.json" in objects(url)
    assert not TraceStore(url).exists
    assert draw(url).losses.equals(whole().losses)


def test_other_objects_are_left_alone(memory: str) -> None:
    (locate(memory) / "x.zarr/notes.txt").write(b"mine")
    with pytest.raises(TraceError, match=r"x\.zarr holds other things, such as notes\.txt; choose another location"):
        draw(f"{memory}/x.zarr")
    assert objects(f"{memory}/x.zarr") == {"notes.txt"}


def test_traces_are_saved_below_a_url(memory: str) -> None:
    traces = whole()
    assert traces.save(f"{memory}/copy.zarr") == f"{memory}/copy.zarr"
    assert lk.open_traces(f"{memory}/copy.zarr").dataset.identical(traces.dataset)
    with pytest.raises(TraceError, match=r"copy\.zarr exists; choose another path or remove it"):
        traces.save(f"{memory}/copy.zarr")


# --- runs


def test_a_whole_run_keeps_its_traces_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    folder, base = tmp_path / "outputs" / "sweep" / "3", f"{bucket}/shared/sweep/3"
    paths = (f"paths.outputs={tmp_path}/outputs", f"paths.traces={bucket}/shared")
    requested = tiny(folder, *paths, "control=true", "training.steps=5", "analysis=[complexity]")
    run_from(requested, folder, None)
    assert {item.split("/")[0] for item in objects(base)} == {"traces.zarr", "control.zarr"}
    assert (folder / "traces.zarr").read_text() == f"losskernel keeps this at {base}/traces.zarr\n"
    assert lk.open_traces(folder).dataset.identical(lk.open_traces(base).dataset)
    assert lk.open_traces(folder / "control.zarr").meta["identity"]["sampler"]["nbeta"] == 0
    (result,) = [read_run(item) for item in find_runs(folder.parent)]
    assert (result.missing, result.control != "") == ("", True)
    analyse_from(config(f"run={folder}", "analysis=[spectrum]", name="analyse"))
    measured = json.loads((folder / "metrics.json").read_text())
    assert {"spectrum/effective_rank", "complexity/llc"} <= measured.keys()


def test_a_run_goes_on_where_its_traces_lie(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = ("training.steps=5", "analysis=[complexity]")
    requested = tiny(tmp_path / "run", f"paths.traces={memory}/shared", *short)
    with monkeypatch.context() as patch:
        patch.setattr(TraceStore, "finish", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_from(requested, tmp_path / "run", None)
    assert read_run(tmp_path / "run").missing.startswith("unfinished")
    with pytest.raises(
        TraceError, match=r"traces\.zarr is there already, at memory://.*, but memory://.*/other/.* is asked for"
    ):
        run_from(tiny(tmp_path / "run", f"paths.traces={memory}/other", *short), tmp_path / "run", None)
    run_from(tiny(tmp_path / "run", *short), tmp_path / "run", None)  # the pointer in the folder is followed
    run_from(tiny(tmp_path / "alone", *short), tmp_path / "alone", None)
    there, here = (lk.open_traces(tmp_path / name).losses for name in ("run", "alone"))
    np.testing.assert_array_equal(there, here)
    assert (tmp_path / "run" / "traces.zarr").is_file()


def test_a_bucket_that_is_not_there_is_known_before_training(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = (
        r"cannot write {url}/\S*: .*{reason}.*; check the address, the credentials and the network, or choose another"
    )
    with pytest.raises(TraceError, match=line.format(url="s3://no-such-bucket", reason="bucket does not exist")):
        run_from(tiny(tmp_path / "a", "paths.traces=s3://no-such-bucket/x"), tmp_path / "a", None)
    with pytest.raises(TraceError, match=line.format(url="s3://no-such-bucket", reason="bucket does not exist")):
        draw("s3://no-such-bucket/x.zarr")
    with pytest.raises(TraceError, match=r"s3://no-such-bucket/x\.zarr holds no loss trace"):
        lk.open_traces("s3://no-such-bucket/x.zarr")
    _reach(monkeypatch, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with pytest.raises(TraceError, match=line.format(url=bucket, reason="Could not connect to the endpoint")) as caught:
        run_from(tiny(tmp_path / "b", f"paths.traces={bucket}/x"), tmp_path / "b", None)
    assert "\n" not in str(caught.value)
    with pytest.raises(TraceError, match=rf"cannot read {bucket}/x.zarr: Could not connect to the endpoint.*; check"):
        lk.open_traces(f"{bucket}/x.zarr")
    assert not list(tmp_path.rglob("*.pt"))


# --- pointers and names


def test_a_runs_location_is_named_like_its_folder(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    assert run_location("s3://b/x/", outputs, outputs / "toy" / "1") == "s3://b/x/toy/1"
    elsewhere = [run_location("s3://b/x", outputs, tmp_path / item / "run") for item in ("a", "b")]
    assert all(item.startswith("s3://b/x/run-") for item in elsewhere)
    assert len(set(elsewhere)) == 2
    assert run_location("traces", outputs, outputs / "toy") == str(Path.cwd() / "traces" / "toy")


def test_a_folder_given_for_traces_is_used_as_a_url_is(tmp_path: Path) -> None:
    elsewhere = tmp_path / "scratch" / "x.zarr"
    write_pointer(tmp_path / "run" / "traces.zarr", str(elsewhere))
    draw(tmp_path / "run" / "traces.zarr")
    assert (elsewhere / "zarr.json").is_file()
    assert lk.open_traces(tmp_path / "run").dataset.equals(whole().dataset)
    assert lk.open_traces(f"file://{elsewhere}").dataset.equals(whole().dataset)
    write_pointer(tmp_path / "run" / "traces.zarr", str(elsewhere))  # the same pointer again
    write_pointer(tmp_path / "run" / "traces.zarr", f"file://{elsewhere}")
    (tmp_path / "b").mkdir()
    with pytest.raises(TraceError, match=r"b is there already, but /y is asked for; set paths\.traces as it was"):
        write_pointer(tmp_path / "b", "/y")


def test_a_pointer_holds_in_every_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pointer(Path("run/traces.zarr"), "scratch/x.zarr")
    monkeypatch.chdir("/")
    assert locate(tmp_path / "run" / "traces.zarr").path == tmp_path / "scratch" / "x.zarr"


def test_traces_in_their_usual_folder_need_no_pointer(tmp_path: Path) -> None:
    default = tmp_path / "run" / "traces.zarr"
    write_pointer(default, str(default))
    assert locate(default).path == default
    assert not default.exists()


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (Path("s3://bucket/x"), r"s3:/bucket/x was a URL before pathlib shortened it; give it as text"),
        ("nowhere://bucket/x", r"nowhere://bucket/x is no URL that fsspec knows \(Protocol not known: nowhere\)"),
    ],
)
def test_paths_that_nothing_reaches_are_refused(path: Any, line: str) -> None:
    with pytest.raises(InputError, match=line):
        locate(path)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.registry import _registry

    monkeypatch.setitem(sys.modules, "s3fs", None)
    for name in ("s3", "s3a"):
        monkeypatch.delitem(_registry, name, raising=False)
    with pytest.raises(InputError, match=r"s3://b/x cannot be reached from here: .*install losskernel\[s3\]"):
        lk.open_traces("s3://b/x")


def test_locations_are_proven_writable(tmp_path: Path, anywhere: str) -> None:
    require_writable(locate(tmp_path / "new"))
    require_writable(locate(anywhere))
    assert not list((tmp_path / "new").iterdir())
    assert objects(anywhere) == set()
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match=r"cannot write .*file/below: .*; free space or choose another folder"):
        require_writable(LocalLocation(tmp_path / "file" / "below"))


# --- two processes


def test_a_lease_below_a_url_keeps_others_out(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{memory}/x.zarr"
    elsewhere = LockOwner("node7", 12, "4711", 0, "another boot", "1", "token")
    lock = locate(url) / ".lock"
    lock.write(elsewhere.record())

    def renew(_: float) -> None:
        nonlocal elsewhere
        elsewhere = elsewhere.renewed()
        lock.write(elsewhere.record())

    with monkeypatch.context() as patch:
        patch.setattr(locks.time, "sleep", renew)
        with pytest.raises(
            TraceError, match=r"x\.zarr is being written by process 12 on node7 \(SLURM job 4711\), last"
        ):
            draw(url)
    monkeypatch.setattr(locks, "LIFE", 0.3)
    monkeypatch.setattr(locks, "_POLL", 0.05)
    monkeypatch.setattr(locks, "_SETTLE", 0.05)
    assert draw(url).losses.equals(whole().losses)  # nobody renews it any more
    assert ".lock" not in objects(url)


def test_configuration_has_a_key_for_the_location_of_traces() -> None:
    path = Path(__file__).parents[2] / "conf" / "paths" / "default.yaml"
    assert yaml.safe_load(path.read_text())["traces"] is None
