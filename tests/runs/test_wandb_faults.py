"""A run goes on and keeps what it has, whatever becomes of W&B's own process, of the network and of the service."""

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import wandb
from command import tiny
from wandb_runs import alone, attempt, draws, one, said
from wandb_server import KEY, Service, standing_for_wandb

from losskernel.cli.build import run_from
from losskernel.runs.tracking import WandbTracker, wandb_connection
from losskernel.runs.tracking.tracker import LogDraws


@pytest.fixture(autouse=True)
def nobody_logged_in(tmp_path: Path, monkeypatch: Any) -> None:
    alone(tmp_path / "home", monkeypatch)


@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_a_service_that_hangs_is_said_and_left(state: str, tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    waiting = threading.Event()
    answer = Service.answer

    def hanging(self: Service, path: str, body: Any) -> Any:
        if "file_stream" in path:
            waiting.wait(60)
        return answer(self, path, body)

    monkeypatch.setattr(Service, "answer", hanging)
    monkeypatch.setattr(wandb_connection, "_UPLOAD" if state == "finished" else "_UPLOAD_INTERRUPTED", 1)
    with standing_for_wandb() as service:
        monkeypatch.setenv("WANDB_BASE_URL", service.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        try:
            attempt(tmp_path, 1, 5, state)
        finally:
            waiting.set()
    (line,) = said(caplog)
    assert "W&B did not record everything" in line
    assert "next" not in json.loads((tmp_path / "wandb.json").read_text())
    # A thread that is left waiting aborts the process where the interpreter ends.
    assert "wandb-close" not in [thread.name for thread in threading.enumerate()]


def core() -> list[int]:
    """Process numbers of W&B's own process."""
    own = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(each) for each in own if "wandb-core" in Path(f"/proc/{each}/comm").read_text()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds W&B's process in /proc")
def test_a_run_outlives_wandbs_own_process(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    # scancel ends every process of a job, and W&B's does not wait.
    log = LogDraws.on_train_batch_end

    def ending(self: LogDraws, trainer: Any, module: Any, *rest: Any) -> None:
        log(self, trainer, module, *rest)
        if module.step == 20:
            for number in core():
                os.kill(number, signal.SIGKILL)

    monkeypatch.setattr(LogDraws, "on_train_batch_end", ending)
    asked = ("logger=wandb", "logger.artifact_mb=0", "analysis=[complexity]")
    assert run_from(tiny(tmp_path, *asked), tmp_path, None) is None
    run = one(tmp_path)  # another process took over, and was told all of it
    assert run.exit_code == 0
    assert [row["draw"] for row in draws(run)] == list(range(1, 21))
    assert "complexity/llc" in run.summary
    assert run.config["localization"] == 50.0
    assert said(caplog) == []
    second = tmp_path / "second"  # and the next run of this process is none the wiser
    monkeypatch.undo()
    run_from(tiny(second, *asked), second, None)
    assert one(second).exit_code == 0


def test_what_wandb_does_not_manage_is_one_line(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wandb.sdk.wandb_run.Run, "log", full)
    run_from(tiny(tmp_path, "logger=wandb", "analysis=[complexity]"), tmp_path, None)
    (line,) = said(caplog)
    assert (
        line
        == f"W&B did not record everything (OSError: [Errno 28] No space left on device); all of it is in {tmp_path}"
    )
    run = one(tmp_path)
    assert (run.exit_code, run.summary["verdict"]) == (0, "fail")
    assert "complexity/llc" in run.summary


def test_wandbs_process_lost_twice_is_let_go(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    def lost(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("Connection lost")

    monkeypatch.setattr(wandb.sdk.wandb_run.Run, "log", lost)
    run_from(tiny(tmp_path, "logger=wandb", "analysis=[]", "logger.artifact_mb=0"), tmp_path, None)
    (line,) = said(caplog)
    assert "ConnectionResetError: Connection lost" in line
    assert (tmp_path / "metrics.json").is_file()
    assert wandb.run is None


def test_auto_is_offline_where_wandb_does_not_answer(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(wandb_connection, "_REACH", 1)
    wandb.teardown()  # W&B reads its variables once
    tracker = WandbTracker(tmp_path, name="x")
    assert tracker.mode == "online"
    tracker.start({})
    assert tracker.mode == "offline"
    tracker.finish("finished")
    wandb.teardown()
    (line,) = said(caplog)
    assert f"W&B cannot be reached, recorded offline; `wandb sync {tmp_path}/wandb` sends it" in line
    (path,) = tmp_path.glob("wandb/offline-run-*")
    assert path.is_dir()
