"""The process of a sweep's job, where a launcher started it: signals, errors that travel, and asking to be requeued."""

import os
import pickle
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import scripted

from losskernel.cli.launchers import job_process
from losskernel.cli.launchers.queue import request_requeue


def test_an_error_that_nobody_printed_leaves_its_traceback_in_the_log(capsys: Any) -> None:
    class Odd(Exception):
        def __init__(self, one: str, two: str) -> None:
            super().__init__(f"{one} and {two}")

    def task(_: Any) -> None:
        raise Odd("this", "that")

    with pytest.raises(RuntimeError, match="Odd: this and that") as raised:  # its class cannot be read elsewhere
        job_process.run_alone(task, None)
    pickle.loads(pickle.dumps(raised.value))
    assert "in task" in capsys.readouterr().err


def test_a_fault_of_the_code_is_one_line_where_jobs_share_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def task(_: Any) -> None:
        raise ZeroDivisionError("nothing to\ndivide by")

    (tmp_path / "multirun.yaml").write_text("hydra: {overrides: {task: ['+seed=0,1', width=8]}}")
    now = SimpleNamespace(
        job=SimpleNamespace(num=1, name="losskernel"),
        overrides=SimpleNamespace(task=["+seed=1", "width=8"]),
        runtime=SimpleNamespace(output_dir=str(tmp_path)),
        sweep=SimpleNamespace(dir=str(tmp_path)),
    )
    monkeypatch.setattr("hydra.core.hydra_config.HydraConfig.get", lambda: now)
    monkeypatch.chdir(tmp_path)
    line = "losskernel: job 1 (+seed=1) failed: ZeroDivisionError: nothing to divide by; log losskernel.log\n"
    with pytest.raises(ZeroDivisionError):
        job_process.run_in_shared_process(task, None)
    assert capsys.readouterr().err == line
    assert "in task" in (tmp_path / "losskernel.log").read_text()
    monkeypatch.setattr("losskernel.cli.failures.WANTS_TRACEBACK", True)
    with pytest.raises(ZeroDivisionError):
        job_process.run_in_shared_process(task, None)
    assert "in task" in capsys.readouterr().err


def test_what_ends_a_job_leaves_the_process_that_others_share() -> None:
    def task(_: Any) -> None:
        raise SystemExit(143)

    with pytest.raises(RuntimeError, match=r"the job was ended \(exit code 143\)"):
        job_process.run_in_shared_process(task, None)
    with pytest.raises(SystemExit):
        job_process.run_alone(task, None)


@pytest.fixture
def handlers() -> Any:
    numbers = (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_job_that_starts_again_forgets_what_an_earlier_start_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: None
) -> None:
    old = tmp_path / "7_0_result.pkl"
    left = [old, tmp_path / "7_0_result.pkl.save_tmp", tmp_path / "7_submitted.pkl.save_tmp"]
    for path in left:
        path.touch()
    paths = SimpleNamespace(result_pickle=old, submitted_pickle=tmp_path / "7_submitted.pkl")
    monkeypatch.setattr("submitit.JobEnvironment", lambda: SimpleNamespace(paths=paths))

    def requeues(*_: Any) -> None: ...

    signal.signal(signal.SIGUSR2, requeues)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    seen = job_process.run_submitted(lambda *given: (given, [path.exists() for path in left]), (1, 2))
    assert seen == ((1, 2), [False] * 3)
    assert signal.getsignal(signal.SIGUSR1) is requeues  # before the run heeds it
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# --- asking SLURM to start a job again


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: None) -> Path:
    """A scontrol that notes what it is asked; no job of submitit's."""
    scripted(tmp_path, "scontrol", f'echo "$@" >> {tmp_path}/asked')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("SUBMITIT_FOLDER", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "asked"


def test_a_job_of_sbatch_asks_for_itself(scontrol: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    request_requeue(signal.SIGUSR1)
    assert not scontrol.exists()  # no SLURM, no question
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    request_requeue(signal.SIGTERM)
    assert not scontrol.exists()  # who sends this knows what comes next
    request_requeue(signal.SIGUSR1)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "11")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    request_requeue(signal.SIGUSR2)
    assert scontrol.read_text().splitlines() == ["requeue 12", "requeue 11_3"]
    assert capsys.readouterr().out.splitlines()[-1] == "losskernel: asking SLURM to start job 11_3 again"
    scripted(scontrol.parent, "scontrol", 'echo "Requested operation is presently disabled" >&2; exit 1')
    request_requeue(signal.SIGUSR1)
    words = "SLURM does not start job 11_3 again: Requested operation is presently disabled; submit it once more"
    assert words in capsys.readouterr().out


def test_a_job_of_submitit_leaves_it_to_its_handler(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(number: int, _: Any) -> None:
        raise SystemExit(number)

    signal.signal(signal.SIGUSR2, ends)
    monkeypatch.setenv("SUBMITIT_FOLDER", "somewhere")
    with pytest.raises(SystemExit) as end:
        request_requeue(signal.SIGUSR1)
    assert end.value.code == signal.SIGUSR2
    assert not scontrol.exists()
