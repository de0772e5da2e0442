"""Sweeps as jobs elsewhere: what is composed, how they are waited for, and what becomes of those that fail."""

import json
import os
import pickle
import signal
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from command import TINY, call
from hydra import compose, initialize_config_dir
from hydra.core.utils import JobStatus
from hydra.types import RunMode
from joblib.externals.loky import get_reusable_executor
from omegaconf import OmegaConf
from test_around_command import trained

import losskernel as lk
import losskernel.cli
from losskernel.cli import at_work, jobs, launching, processes
from losskernel.cluster import GONE, Slurm, Watch
from losskernel.errors import InputError

SMALL = (*TINY, "logger=none", "analysis=[complexity]", "control=false")
LAUNCHERS = ("slurm", "local", "joblib")


def launcher(*overrides: str) -> Any:
    with initialize_config_dir(losskernel.cli.CONF, version_base="1.3"):
        composed = compose("config", overrides=list(overrides), return_hydra_config=True)
    return composed.hydra.launcher


# --- what is composed


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_is_one_commented_file_of_a_class_of_ours(name: str) -> None:
    node = launcher(f"hydra/launcher={name}")
    assert node._target_ == f"hydra_plugins.losskernel_launchers.{name.title()}Launcher"
    path = Path(losskernel.cli.CONF) / "hydra" / "launcher" / f"{name}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert set(yaml.safe_load(path.read_text(encoding="utf-8"))) == set(node)
    settings = [line for line in lines if line and not line.startswith(("#", "_target_", "account", "qos"))]
    assert all("#" in line for line in settings)


def test_a_cluster_of_ones_own_changes_what_it_names(tmp_path: Path) -> None:
    own = tmp_path / "hydra" / "launcher" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("defaults: [slurm]\npartition: gpu\ngpus_per_node: 1\n")
    node = launcher("hydra/launcher=mine", f"hydra.searchpath=[file://{tmp_path}]", "+hydra.launcher.comment=ours")
    assert (node.partition, node.gpus_per_node, node.comment, node.max_num_timeout) == ("gpu", 1, "ours", 100)
    assert node._target_.endswith("SlurmLauncher")


def test_a_launcher_wants_a_sweep() -> None:
    def now(mode: RunMode, name: str | None) -> Any:
        return SimpleNamespace(mode=mode, runtime=SimpleNamespace(choices={"hydra/launcher": name}))

    with pytest.raises(InputError, match=r"hydra/launcher=slurm starts the jobs of a sweep.*add -m"):
        jobs.refuse_alone(now(RunMode.RUN, "slurm"))
    for mode, name in ((RunMode.MULTIRUN, "slurm"), (RunMode.RUN, "basic"), (RunMode.RUN, None)):
        jobs.refuse_alone(now(mode, name))


# --- waiting


class Cluster:
    """A scheduler that plays a part: at each look the next line of states; the last stays."""

    def __init__(self, *looks: Mapping[str, str] | None, results: Mapping[str, int] = {}, grace: float = 30) -> None:
        self._looks, self._results, self._now, self._look = looks, results, 0.0, -1
        self.said: list[str] = []
        self.asked: list[Sequence[str]] = []
        ids = sorted({job for look in looks for job in look or ()} | set(results))
        self.watch = Watch(ids, self.ask, self.has_result, grace=grace, say=self.said.append, clock=lambda: self._now)

    def ask(self, ids: Sequence[str]) -> Mapping[str, str] | None:
        self.asked.append(ids)
        return self._looks[min(self._look, len(self._looks) - 1)]

    def has_result(self, job: str) -> bool:
        return self._look >= self._results.get(job, 10**6)

    def wait(self, seconds: float = 10) -> dict[str, str]:
        self._look = 0

        def sleep(_: float) -> None:
            assert self._look < 100, "it waits for ever"
            self._now += seconds
            self._look += 1

        return self.watch.wait(15, sleep)

    @property
    def looks(self) -> int:
        return self._look + 1


def test_all_are_waited_for_though_one_died_at_once() -> None:
    at_first = {"7_0": "FAILED", "7_1": "RUNNING"}
    cluster = Cluster(*[at_first] * 8, at_first | {"7_1": "COMPLETED"}, results={"7_1": 8})
    assert cluster.wait() == {"7_0": "FAILED"}
    assert cluster.looks == 9  # its own grace time is long over when the other ends
    assert cluster.said == [
        "job 7_0 is FAILED, without result; for 30 s it may be requeued",
        "1 of 2 jobs have ended",
    ]


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", GONE])
def test_the_last_one_to_die_has_its_grace_time(state: str) -> None:
    look: dict[str, str] = {"7": "RUNNING"}
    after: dict[str, str] = {} if state == GONE else {"7": state}
    cluster = Cluster(look, after)
    assert cluster.wait() == {"7": state}
    assert cluster.looks == 5  # seen dead at the second look, and given up 30 s later


def test_one_that_is_requeued_after_its_death_counts_as_what_it_ends_as() -> None:
    dead, alive = {"7": "FAILED"}, {"7": "RUNNING"}
    cluster = Cluster(
        alive, dead, dead, {"7": "PENDING"}, alive, alive, alive, alive, {"7": "COMPLETED"}, results={"7": 8}
    )
    assert cluster.wait() == {}
    assert cluster.said[1:] == ["job 7 is in the queue again", "1 of 1 jobs have ended"]


def test_a_second_death_has_a_grace_time_of_its_own() -> None:
    dead, alive = {"7": "FAILED"}, {"7": "RUNNING"}
    cluster = Cluster(dead, dead, alive, dead)
    assert cluster.wait() == {"7": "FAILED"}
    assert cluster.looks == 7


def test_one_that_left_a_result_and_is_at_work_again_is_waited_for() -> None:
    over = {"7_0": "COMPLETED", "7_1": "RUNNING"}
    again = {"7_0": "PENDING", "7_1": "COMPLETED"}
    both = {"7_0": "COMPLETED", "7_1": "COMPLETED"}
    cluster = Cluster(over, over, again, again, again, both, results={"7_0": 1, "7_1": 2})
    assert cluster.wait() == {}
    assert cluster.looks == 6
    assert Cluster({"7": "COMPLETING"}, results={"7": 0}).wait() == {}  # it is only tidied away


def test_a_silent_scheduler_ends_nobody() -> None:
    cluster = Cluster({"7": "RUNNING"}, *[None] * 20, {"7": "RUNNING"}, {"7": "COMPLETED"}, results={"7": 22})
    assert cluster.wait(seconds=100) == {}
    assert cluster.said == [
        "the scheduler does not answer; waiting goes on",
        "the scheduler answers again",
        "1 of 1 jobs have ended",
    ]
    assert Cluster(None, results={"7": 2}).wait() == {}  # results speak for themselves
    once = Cluster({"7": "RUNNING"}, None, {"7": "RUNNING"}, {"7": "COMPLETED"}, results={"7": 3})
    assert once.wait() == {}
    assert not any("answer" in line for line in once.said)


def test_a_dead_one_is_not_given_up_while_nobody_answers() -> None:
    cluster = Cluster({"7": "FAILED"}, *[None] * 9, {"7": "RUNNING"}, {}, results={"7": 11})
    assert cluster.wait() == {}


def test_a_held_one_is_named_once_and_waited_for() -> None:
    held = {"7": "HELD"}
    cluster = Cluster(held, held, held, {"7": "RUNNING"}, {"7": "COMPLETED"}, results={"7": 4})
    assert cluster.wait() == {}
    assert cluster.said[0] == "job 7 is held; `scontrol release 7` lets it go on"
    assert len(cluster.said) == 2


def test_only_those_without_result_are_asked_after() -> None:
    cluster = Cluster({"7_0": "RUNNING", "7_1": "RUNNING"}, {}, results={"7_0": 1, "7_1": 2})
    cluster.wait()
    assert cluster.asked == [["7_0", "7_1"], ["7_1"], []]


# --- what SLURM says


def slurm(
    squeue: tuple[int, str, str], sacct: tuple[int, str, str] = (1, "", "accounting storage is disabled")
) -> Slurm:
    return Slurm("12", lambda command: squeue if command[0] == "squeue" else sacct)


FORGOTTEN = (1, "", "slurm_load_jobs error: Invalid job id specified\n")


def test_squeue_is_read() -> None:
    said = (
        "12_0|RUNNING|None\n12_1|PENDING|Resources\n12_2|PENDING|launch failed requeued held\n"
        "12_3|PENDING|JobHeldUser\n12_4|REQUEUE_HOLD|None\n12_5|FAILED|NonZeroExitCode\n"
    )
    known = slurm((0, said, ""))([])
    assert known is not None
    assert list(known.values()) == ["RUNNING", "PENDING", "HELD", "HELD", "HELD", "FAILED"]
    assert slurm((0, "12|COMPLETED|None\n", ""))(["12"]) == {"12": "COMPLETED"}


def test_what_slurm_has_forgotten_the_accounting_may_know() -> None:
    records = "12_0|OUT_OF_MEMORY\n12_1|CANCELLED by 1000\n12_2|RUNNING\n"
    ids = ["12_0", "12_1", "12_2", "12_3"]
    ends = {"12_0": "OUT_OF_MEMORY", "12_1": "CANCELLED"}
    assert slurm(FORGOTTEN, (0, records, ""))(ids) == ends  # what is at work for it alone is a record left behind
    assert slurm((0, "12_2|RUNNING|None\n", ""), (0, records, ""))(ids) == ends | {"12_2": "RUNNING"}
    assert slurm(FORGOTTEN)(ids) == {}


def test_silence_is_not_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm((1, "", "slurm_load_jobs error: Unable to contact slurm controller"))(["12"]) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Slurm("12")(["12"]) is None  # no squeue at all


# --- sbatch, played by a script


def scripted(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands of a SLURM that takes jobs and loses them: no result, no accounting, nothing in the queue."""
    scripted(tmp_path, "srun", "exit 0")
    scripted(tmp_path, "sbatch", f'cp "$1" {tmp_path}/submitted.sh; echo "Submitted batch job 12"')
    scripted(tmp_path, "squeue", 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1')
    scripted(tmp_path, "sacct", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


QUICK = ("hydra/launcher=slurm", "hydra.launcher.poll_s=0.01", "hydra.launcher.grace_s=0")


def test_jobs_that_vanish_are_named_with_what_to_do(played: Path, capsys: Any) -> None:
    words = (*SMALL, *QUICK, "sampler.localization=10,20", "paths.sweep=swept", "hydra.launcher.partition=gpu")
    assert call("-m", *words, "hydra.launcher.mem_gb=null") == 1
    out, err = capsys.readouterr()
    assert "2 jobs submitted to SLURM: 12_0 to 12_1, at most 2 at a time" in out
    assert "losskernel-status swept" in out
    assert "`scancel 12` ends them" in out
    lines = [line for line in err.splitlines() if line.startswith("losskernel: job ")]
    assert len(lines) == 2
    assert lines[1] == (
        "losskernel: job 1 (sampler.localization=20) was killed, SLURM job 12_1 is GONE; folder swept/1, no log: do "
        "compute nodes see this folder?; `scontrol requeue 12_1` continues it, or the same command"
    )
    assert "2 of the sweep's jobs failed, as said above" in err
    for number, gamma in enumerate((10, 20)):
        noted = json.loads((played / "swept" / str(number) / "failure.json").read_text())
        assert noted["error"].startswith(f"was killed, SLURM job 12_{number} is GONE")
        assert noted["config"]["sampler"]["localization"] == gamma
    asked = (played / "submitted.sh").read_text()
    for flag in ("--array=0-1%2", "--partition=gpu", "--cpus-per-task=2", "--requeue", "--open-mode=append"):
        assert f"#SBATCH {flag}\n" in asked
    assert "#SBATCH --signal=USR2@120\n" in asked
    assert "#SBATCH --mem" not in asked
    assert "--cpus-per-task=2 " in asked.splitlines()[-1]  # srun's own: it does not ask sbatch's


def test_ctrl_c_leaves_jobs_alone(played: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "wait", interrupted)
    assert call("-m", *SMALL, *QUICK, "seed=0,1", "paths.sweep=swept") == 130
    out = capsys.readouterr().out
    assert "the jobs go on; `scancel 12` ends them, `losskernel-compare runs=swept` compares what they leave" in out


def test_what_sbatch_says_is_passed_on(played: Path, capsys: Any) -> None:
    scripted(played, "sbatch", 'echo "sbatch: error: invalid partition specified: gpu" >&2; exit 1')
    assert call("-m", *SMALL, *QUICK, "seed=0,1", "paths.sweep=swept") == 1
    err = capsys.readouterr().err.strip()
    assert err.startswith("losskernel: SLURM takes no jobs: sbatch: error: invalid partition specified: gpu; check")
    assert len(err.splitlines()) == 1


def test_without_slurm_the_login_node_is_recommended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert call("-m", *SMALL, *QUICK, "seed=0,1", "paths.sweep=swept") == 1
    assert "hydra/launcher=slurm needs SLURM's commands (sbatch, srun, squeue)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("hydra.launcher.timeout_min=2", "timeout_min=2 leaves no time before the signal"),
        ("hydra.launcher.timeout_min=soon", "hydra.launcher.timeout_min must be a number"),
        ("hydra.launcher.signal_delay_s=0", "hydra.launcher.signal_delay_s must be >= 1"),
        ("hydra.launcher.grace_s=-1", "hydra.launcher.grace_s must be >= 0"),
        ("hydra.launcher.poll_s=0", "hydra.launcher.poll_s must be > 0"),
        ("hydra.launcher.max_num_timeout=-1", "hydra.launcher.max_num_timeout must be >= 0"),
        ("hydra.launcher.cpus_per_task=two", 'hydra.launcher: Parameter "cpus_per_task" expected type'),
        ("+hydra.launcher.colour=red", "hydra.launcher: Unknown argument 'colour'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_submitted(
    played: Path, capsys: Any, word: str, message: str
) -> None:
    assert call("-m", *SMALL, *[each for each in QUICK if each.split("=")[0] != word.split("=")[0]], word) == 1
    assert message in capsys.readouterr().err
    assert not (played / "submitted.sh").exists()


def test_n_jobs_is_a_number_of_processes() -> None:
    assert processes.processes(4, 2) == 2
    assert processes.processes(1, 2) == 1
    assert 1 <= processes.processes(-1, 100) <= (os.cpu_count() or 1)
    with pytest.raises(InputError, match=r"hydra\.launcher\.n_jobs must be >= 1, or -1 for one per core, got 0"):
        processes.processes(0, 2)


# --- the process of a job


def test_an_error_that_nobody_printed_leaves_its_traceback_in_the_log(capsys: Any) -> None:
    class Odd(Exception):
        def __init__(self, one: str, two: str) -> None:
            super().__init__(f"{one} and {two}")

    def task(_: Any) -> None:
        raise Odd("this", "that")

    with pytest.raises(RuntimeError, match="Odd: this and that") as raised:  # its class cannot be read elsewhere
        at_work.told(task, None)
    pickle.loads(pickle.dumps(raised.value))
    assert "in task" in capsys.readouterr().err


def test_what_ends_a_job_leaves_the_process_that_others_share() -> None:
    def task(_: Any) -> None:
        raise SystemExit(143)

    with pytest.raises(RuntimeError, match=r"the job was ended \(exit code 143\)"):
        at_work.contained(task, None)
    with pytest.raises(SystemExit):
        at_work.told(task, None)


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
    seen = at_work.at_work(lambda *given: (given, [path.exists() for path in left]), (1, 2))
    assert seen == ((1, 2), [False] * 3)
    assert signal.getsignal(signal.SIGUSR1) is requeues  # before the run heeds it
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_result_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: Any) -> None:
    trace = 'Traceback (most recent call last):\n  File "x.py"\nOSError: No space left'
    text = f"Job failed during processing with trace:\n-----\n{trace}\n-----\nYou can check full logs"

    def results() -> Any:
        raise RuntimeError(text)

    place = SimpleNamespace(results=results, paths=SimpleNamespace(stdout=tmp_path / "log.out"))
    job = jobs.SweepJob(3, ["seed=3"], "seed=3", tmp_path / "3", OmegaConf.create({"seed": 3}))
    made = launching.returned(job, place)
    assert made.status == JobStatus.FAILED
    said = capsys.readouterr().err
    assert said == f"losskernel: job 3 (seed=3) failed: OSError: No space left; log {tmp_path / 'log.out'}\n"
    assert json.loads((tmp_path / "3" / "failure.json").read_text())["config"] == {"seed": 3}


# --- on this machine


@pytest.mark.parametrize("name", ["local", "joblib"])
def test_a_sweep_on_this_machine_of_which_one_job_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (f"hydra/launcher={name}", "hydra.launcher.n_jobs=2", "paths.sweep=swept")
    assert call("-m", *SMALL, *words, "sampler.localization=10,-1") == 1
    if name == "joblib":
        get_reusable_executor().shutdown()
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if "sampler.localization must be >= 0, got -1" in line]
    assert len(lines) == 2
    assert "1 finished run: a comparison needs 2 (run 1: sampler" in lines[1]  # the comparison hears of it, too
    assert "losskernel: 1 of the sweep's jobs failed, as said above" in err
    assert "Traceback" not in out + err
    swept = tmp_path / "swept"
    assert lk.open_traces(swept / "0").losses.shape == (2, 20, 40)
    logs = sorted((swept / ".submitit").glob("*/*_log.out"))
    assert len(logs) == (2 if name == "local" else 0)
    assert sum("learning coefficient" in log.read_text() for log in logs) == (1 if name == "local" else 0)


def test_sweeps_around_a_run_take_a_launcher(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "training.checkpoints=1")
    words = (f"run={run}", "hydra/launcher=local", "hydra.launcher.n_jobs=2")
    assert call(*words, command="dynamics") == 0
    steps = sorted(path.parent.name for path in (run / "dynamics").glob("*/report.html"))
    assert steps[0] == "step-0000000"
    assert len(list((run / "dynamics" / ".submitit").glob("*/*_log.out"))) == len(steps) > 1
