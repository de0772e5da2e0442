"""One W&B run for one run folder, whatever becomes of the process, online and offline."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from command import TINY, Forked, tiny
from wandb_reader import read_runs
from wandb_runs import alone, attempt, draws, one, said, stop_at
from wandb_server import KEY, Service, standing_for_wandb

import losskernel as lk
from losskernel.cli.build import run_from
from losskernel.errors import Interrupted
from losskernel.runs.tracking.tracker import CLOCK


@pytest.fixture(autouse=True)
def nobody_logged_in(tmp_path: Path, monkeypatch: Any) -> None:
    alone(tmp_path / "home", monkeypatch)


def test_nbeta_is_a_number_once_sampling_has_begun(tmp_path: Path) -> None:
    run_from(
        tiny(tmp_path, "logger=wandb", "logger.artifact_mb=0", "analysis=[]", "sampler.nbeta=batch"), tmp_path, None
    )
    run = one(tmp_path)
    assert run.config["sampler"]["nbeta"] == "batch"
    assert run.config["nbeta"] == lk.open_traces(tmp_path).meta["identity"]["sampler"]["nbeta"]


def test_a_continued_run_is_the_same_one_with_all_of_its_curves(tmp_path: Path) -> None:
    asked = ("logger=wandb", "logger.artifact_mb=0", "analysis=[complexity]", "state_every=0.01")
    folder, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(22, patch)
        with pytest.raises(Interrupted):
            run_from(tiny(folder, *asked), folder, None)
    first = one(folder)
    assert (first.preempted, first.exit_code) == (True, 1)  # so W&B's agents put it back into their queue
    assert draws(first)[-1]["draw"] == 12
    assert first.summary["seconds"] > 0
    known = json.loads((folder / "wandb.json").read_text())
    assert {"id", "project", "entity", "name"} <= set(known)
    run_from(tiny(folder, *asked), folder, None)
    first, second = read_runs(folder)
    assert second.about.run_id == first.about.run_id == known["id"]
    assert (second.preempted, second.exit_code) == (False, 0)
    assert second.summary["seconds"] > first.summary["seconds"]
    run_from(tiny(undisturbed, *asked), undisturbed, None)
    wanted = one(undisturbed)
    for name in ("draw", "train_loss/chain_0", "probe_loss/chain_1"):  # `wandb sync` puts the two files end to end
        assert first.curve(name) + second.curve(name) == wanted.curve(name)
    for name in ("_step", CLOCK):
        both = first.curve(name) + second.curve(name)
        assert both == sorted(both)
    assert len({*first.curve("_step")} & {*second.curve("_step")}) == 0
    assert second.summary["sampling_seconds"] > first.summary["sampling_seconds"]
    run_from(tiny(folder, *asked), folder, None)  # there is nothing to do
    assert len(list(folder.glob("wandb/offline-run-*"))) == 2


def test_asking_more_of_a_finished_run_adds_to_its_record(tmp_path: Path) -> None:
    asked = ("logger=wandb", "logger.artifact_mb=0")
    run_from(tiny(tmp_path, *asked, "analysis=[complexity]"), tmp_path, None)
    run_from(tiny(tmp_path, *asked, "analysis=[spectrum]"), tmp_path, None)
    first, second = read_runs(tmp_path)
    assert first.about.run_id == second.about.run_id
    assert (len(first.curve("draw")), len(second.curve("draw"))) == (30, 0)  # what is recorded is not told again
    assert min(second.curve("_step")) > max(first.curve("_step"))
    assert {"complexity/llc", "spectrum/effective_rank"} <= set(second.summary)
    assert not list(tmp_path.glob("wandb/*/*.unended"))


KILLED = """
import os, signal, sys
from losskernel.runs.tracking.tracker import LogDraws
log = LogDraws.on_train_batch_end
def killed(self, trainer, module, *rest):
    log(self, trainer, module, *rest)
    if module.step == 25:
        os.kill(os.getpid(), signal.SIGKILL)
LogDraws.on_train_batch_end = killed
from losskernel.cli import main
main()
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that was killed while it sampled, and then continued."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    asked = ["logger=wandb", "logger.artifact_mb=0", "analysis=[complexity]", "state_every=0.01"]
    with pytest.MonkeyPatch.context() as patch:
        alone(folder.parent / "home", patch)
        env = {name: value for name, value in os.environ.items() if name.startswith(("WANDB", "HOME"))}
        done = Forked(KILLED, *asked, *TINY, f"paths.run={folder}", cwd=folder.parent, env=env).wait()
        assert done.returncode == -signal.SIGKILL
        run_from(tiny(folder, *asked), folder, None)
        yield folder


def test_a_killed_run_loses_nothing(killed: Path) -> None:
    run = one(killed)  # what the killed process left is out of the way of `wandb sync`
    assert len(list(killed.glob("wandb/offline-run-*/*.unended"))) == 1
    assert [row["draw"] for row in draws(run)] == list(range(1, 21))
    losses = lk.open_traces(killed).losses.mean("probe")
    np.testing.assert_allclose(run.curve("probe_loss/chain_1"), losses[1], rtol=1e-5)


def synced(paths: list[Path], url: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("wandb")), "sync", *map(str, paths)]
    env = dict(os.environ) | {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY, "WANDB_SILENT": "false"}
    return subprocess.run(command, env=env, cwd=os.environ["HOME"], capture_output=True, text=True, timeout=60)


def test_wandb_sync_sends_a_continued_run_as_one(killed: Path, tmp_path: Path) -> None:
    interrupted = tmp_path / "run"
    asked = ("logger=wandb", "logger.artifact_mb=0", "analysis=[]", "state_every=0.01")
    with standing_for_wandb() as service:
        with pytest.MonkeyPatch.context() as patch:
            stop_at(22, patch)
            with pytest.raises(Interrupted):
                run_from(tiny(interrupted, *asked), interrupted, None)
        synced([interrupted / "wandb"], service.url)
        run_id = json.loads((interrupted / "wandb.json").read_text())["id"]
        assert service.histories[run_id].preempted
        assert [line["draw"] for line in service.histories[run_id].lines if "draw" in line] == list(range(-9, 13))
        run_from(tiny(interrupted, *asked), interrupted, None)
        # What a killed process left would stop this: see `Connection._closed`.
        done = synced([interrupted / "wandb", killed / "wandb"], service.url)
        assert "ERROR" not in done.stderr
    assert set(service.histories) == {run_id, one(killed).about.run_id}
    for history in service.histories.values():
        assert history.exit_codes[-1] == 0
        assert [line["draw"] for line in history.lines if "draw" in line] == list(range(-9, 21))
        steps = [line["_step"] for line in history.lines]
        assert steps == sorted(set(steps))


def test_online_a_continued_run_resumes_where_the_service_stands(tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "run"
    asked = ("logger=wandb", "logger.artifact_mb=0", "analysis=[]", "state_every=0.01", "name=study")
    with standing_for_wandb() as service:
        monkeypatch.setenv("WANDB_BASE_URL", service.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        wandb.teardown()  # W&B reads its variables once
        with monkeypatch.context() as patch:
            stop_at(22, patch)
            with pytest.raises(Interrupted):
                run_from(tiny(folder, *asked), folder, None)
        (history,) = service.histories.values()
        assert (history.preempted, history.exit_codes) == (True, [1])
        history.tags.append("keep this")  # as a user does in the browser
        run_from(tiny(folder, *asked), folder, None)
        wandb.teardown()  # its process would look for this server in the next test
    (history,) = service.histories.values()
    assert (history.name, history.exit_codes) == ("study", [1, 0])
    known = json.loads((folder / "wandb.json").read_text())
    assert known["url"] == f"{service.url}/me/losskernel/runs/{known['id']}"
    assert history.tags == ["MultitaskMLP", "arithmetic", "SGHMC", "keep this", "fail"]
    # Every draw once: what the service has is not sent again.
    assert [line["draw"] for line in history.lines if "draw" in line] == list(range(-9, 21))
    assert [line["_step"] for line in history.lines if "draw" in line] == list(range(1, 31))


def drawn(service: Service) -> list[int]:
    (history,) = service.histories.values()
    return [line["draw"] for line in history.lines if "draw" in line]


def test_what_began_offline_stays_so_until_it_is_sent(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    attempt(tmp_path, 1, 5, "interrupted")
    with standing_for_wandb() as service:
        monkeypatch.setenv("WANDB_BASE_URL", service.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        assert attempt(tmp_path, 6, 10, "interrupted").mode == "offline"  # else `wandb sync` doubles draws 1 to 5
        (line,) = said(caplog)
        assert f"`wandb sync {tmp_path}/wandb` sends both" in line
        synced([tmp_path / "wandb"], service.url)
        assert attempt(tmp_path, 11, 15, "finished").mode == "online"
        synced([tmp_path / "wandb"], service.url)
        assert drawn(service) == list(range(1, 16))
        (history,) = service.histories.values()
        assert history.exit_codes[-1] == 0


def test_what_began_online_goes_on_offline(tmp_path: Path, monkeypatch: Any) -> None:
    with standing_for_wandb() as service:
        with monkeypatch.context() as patch:
            patch.setenv("WANDB_BASE_URL", service.url)
            patch.setenv("WANDB_API_KEY", KEY)
            assert attempt(tmp_path, 1, 5, "interrupted").mode == "online"
        monkeypatch.setenv("WANDB_MODE", "dryrun")  # W&B's older word
        assert attempt(tmp_path, 6, 10, "interrupted").mode == "offline"
        assert attempt(tmp_path, 11, 15, "finished").mode == "offline"
        synced([tmp_path / "wandb"], service.url)
        assert drawn(service) == list(range(1, 16))
