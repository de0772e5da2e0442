"""Sweeps as jobs elsewhere: what is composed, how they are waited for, and what becomes of those that fail."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from command import TINY, call, scripted
from hydra import compose, initialize_config_dir
from hydra.core.utils import JobStatus
from hydra.types import RunMode
from joblib.externals.loky import get_reusable_executor
from omegaconf import OmegaConf
from test_dynamics_and_layers import trained

import losskernel as lk
import losskernel.cli
from losskernel.cli.launchers import submit, sweep_jobs
from losskernel.cli.launchers.queue import Watch
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
    choice = tmp_path / "hydra" / "launcher" / "mine.yaml"
    choice.parent.mkdir(parents=True)
    choice.write_text("defaults: [slurm]\npartition: gpu\ngpus_per_node: 1\n")
    node = launcher("hydra/launcher=mine", f"hydra.searchpath=[file://{tmp_path}]", "+hydra.launcher.comment=ours")
    assert (node.partition, node.gpus_per_node, node.comment, node.max_num_timeout) == ("gpu", 1, "ours", 100)
    assert node._target_.endswith("SlurmLauncher")


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_that_leaves_settings_out_is_told_which(played: Path, capsys: Any, name: str) -> None:
    choice = played / "conf" / "hydra" / "launcher" / "mine.yaml"
    choice.parent.mkdir(parents=True)
    choice.write_text(f"_target_: hydra_plugins.losskernel_launchers.{name.title()}Launcher\n")
    assert call("-m", f"--config-dir={played / 'conf'}", "hydra/launcher=mine", *SMALL) == 1
    err = capsys.readouterr().err
    assert "hydra.launcher.n_jobs" in err or "hydra.launcher.submitit_folder, hydra.launcher.timeout_min" in err
    assert f"missing; begin the launcher's yaml with `defaults: [{name}]`" in err


def test_a_launcher_wants_a_sweep() -> None:
    def now(mode: RunMode, name: str | None) -> Any:
        given, words = SimpleNamespace(choices={"hydra/launcher": name}), SimpleNamespace(task=["seed=1"])
        return SimpleNamespace(mode=mode, runtime=given, overrides=words)

    with pytest.raises(InputError, match=r"hydra/launcher=slurm starts the jobs of a sweep.*add -m"):
        sweep_jobs.refuse_sweep_words_of_single_run(now(RunMode.RUN, "slurm"))
    for mode, name in ((RunMode.MULTIRUN, "slurm"), (RunMode.RUN, "basic"), (RunMode.RUN, None)):
        sweep_jobs.refuse_sweep_words_of_single_run(now(mode, name))


# --- sbatch, played by a script


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
        "compute nodes see this folder?; the same command continues it"
    )
    assert "2 of the sweep's jobs did not finish, as said above" in err
    for number, gamma in enumerate((10, 20)):
        noted = json.loads((played / "swept" / str(number) / "failure.json").read_text())
        assert noted["error"].startswith(f"was killed, SLURM job 12_{number} is GONE")
        assert noted["config"]["sampler"]["localization"] == gamma
    request = (played / "submitted.sh").read_text()
    for flag in ("--array=0-1%2", "--partition=gpu", "--cpus-per-task=2", "--requeue", "--open-mode=append"):
        assert f"#SBATCH {flag}\n" in request
    assert "#SBATCH --signal=USR2@120\n" in request
    assert "#SBATCH --mem" not in request
    assert "--cpus-per-task=2 " in request.splitlines()[-1]  # srun's own: it does not ask sbatch's


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


def test_a_slurm_that_does_not_answer_is_told_from_one_that_refuses(played: Path, capsys: Any) -> None:
    said = """%s: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host
%s: error: fetch_config: DNS SRV lookup failed
%s: fatal: Could not establish a configuration source"""
    for name in ("sbatch", "squeue"):
        scripted(played, name, f'echo "{said.replace("%s", name)}" >&2; exit 1')
    assert call("-m", *SMALL, *QUICK, "seed=0,1", "paths.sweep=swept") == 1
    assert capsys.readouterr().err == (
        "losskernel: SLURM does not answer: sbatch: fatal: Could not establish a configuration source; `sinfo` must "
        "list partitions here, as on the cluster's login node; hydra/launcher=local needs no SLURM\n"
    )


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
    assert call("-m", *SMALL, *[item for item in QUICK if item.split("=")[0] != word.split("=")[0]], word) == 1
    assert message in capsys.readouterr().err
    assert not (played / "submitted.sh").exists()


def test_n_jobs_is_a_number_of_processes() -> None:
    assert submit.processes(4, 2) == 2
    assert submit.processes(1, 2) == 1
    assert 1 <= submit.processes(-1, 100) <= (os.cpu_count() or 1)
    with pytest.raises(InputError, match=r"hydra\.launcher\.n_jobs must be >= 1, or -1 for one per core, got 0"):
        submit.processes(0, 2)


# --- what became of a job


def test_a_result_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: Any) -> None:
    trace = 'Traceback (most recent call last):\n  File "x.py"\nOSError: No space left'
    text = f"Job failed during processing with trace:\n-----\n{trace}\n-----\nYou can check full logs"

    def results() -> Any:
        raise RuntimeError(text)

    handle = SimpleNamespace(results=results, paths=SimpleNamespace(stdout=tmp_path / "log.out"))
    job = sweep_jobs.SweepJob(3, ["seed=3"], "seed=3", tmp_path / "3", OmegaConf.create({"seed": 3}))
    made = submit.read_result(job, handle)
    assert made.status == JobStatus.FAILED
    said = capsys.readouterr().err
    assert said == f"losskernel: job 3 (seed=3) failed: OSError: No space left; log {tmp_path / 'log.out'}\n"
    assert json.loads((tmp_path / "3" / "failure.json").read_text())["config"] == {"seed": 3}


def test_a_job_that_could_say_why_it_stopped_has_the_word(tmp_path: Path, capsys: Any) -> None:
    job = sweep_jobs.SweepJob(3, ["seed=3"], "seed=3", tmp_path / "3", OmegaConf.create({"seed": 3}))
    pickled, log = tmp_path / "submitted.pkl", tmp_path / "log.out"
    pickled.touch()
    log.touch()
    handle = SimpleNamespace(paths=SimpleNamespace(submitted_pickle=pickled, stdout=log))
    status = tmp_path / "3" / "status.json"

    def printed() -> str:
        submit.without_result(job, handle, ", SLURM job 7_3 is FAILED", "the same command continues it")
        return capsys.readouterr().err

    where = f"SLURM job 7_3 is FAILED; folder {tmp_path / '3'}, log {log}; the same command continues it\n"
    assert printed() == f"losskernel: job 3 (seed=3) was killed, {where}"
    (tmp_path / "3" / "failure.json").unlink()
    status.write_text(json.dumps({"state": "interrupted", "error": "stopped after 7 draws (SIGTERM)"}))
    assert printed() == f"losskernel: job 3 (seed=3) stopped after 7 draws (SIGTERM), {where}"
    assert not (tmp_path / "3" / "failure.json").exists()  # the job has written its own
    status.write_text(json.dumps({"state": "sampling", "error": None}))
    assert "was killed" in printed()
    status.write_text(json.dumps({"state": "interrupted", "error": "stopped"}))
    os.utime(status, (0, 0))  # of an earlier start: nothing to do with this end
    assert "was killed" in printed()


# --- on this machine


class Started:
    """A job that submitit's local executor started."""

    def __init__(self, folder: Path) -> None:
        self.paths = SimpleNamespace(result_pickle=folder / "result.pkl")
        self.over, self.signals = False, []
        self._process = SimpleNamespace(send_signal=self.signals.append, wait=lambda: None)

    def done(self) -> bool:
        return self.over


def test_no_more_jobs_run_at_a_time_than_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    started: list[Started] = []
    threads: set[str | None] = set()
    before = signal.getsignal(signal.SIGINT)

    def start(*_: Any) -> Started:
        threads.add(os.environ.get("OMP_NUM_THREADS"))
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # Ctrl-C is for the process that waits
        started.append(Started(tmp_path / str(len(started))))
        return started[-1]

    planned = [sweep_jobs.SweepJob(number, [], "", tmp_path, OmegaConf.create()) for number in range(5)]
    queue = submit.LocalQueue(SimpleNamespace(submit=start), None, planned, at_once=2)
    assert list(queue([]).values()) == ["RUNNING", "RUNNING", "PENDING", "PENDING", "PENDING"]
    queue([])
    assert len(started) == 2
    started[0].over = True
    assert list(queue([]).values()) == ["ENDED", "RUNNING", "RUNNING", "PENDING", "PENDING"]
    assert signal.getsignal(signal.SIGINT) == before
    queue.stop()
    assert [item.signals for item in started] == [[], [signal.SIGTERM], [signal.SIGTERM]]
    assert threads == {str(max(1, submit._cores() // 2))}
    assert "OMP_NUM_THREADS" not in os.environ
    assert not queue.has_result("1")
    started[1].paths.result_pickle.parent.mkdir()
    started[1].paths.result_pickle.touch()
    assert queue.has_result("1")


@pytest.mark.slow
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
    assert lines[0].startswith("losskernel: job 1 (sampler.localization=-1) failed: sampler.localization must be")
    assert out.startswith("losskernel: 2 jobs on this machine, ")
    assert "HYDRA" not in out + err
    assert "1 finished run: a comparison needs 2 (run 1: sampler" in lines[1]  # the comparison hears of it, too
    assert "losskernel: 1 of the sweep's jobs did not finish, as said above" in err
    assert "Traceback" not in out + err
    swept = tmp_path / "swept"
    assert lk.open_traces(swept / "0").losses.shape == (2, 20, 40)
    logs = sorted((swept / ".submitit").glob("*/*_log.out"))
    assert len(logs) == (2 if name == "local" else 0)
    assert not (swept / ".submitit" / "%j").exists()
    assert sum("learning coefficient" in log.read_text() for log in logs) == (1 if name == "local" else 0)


@pytest.mark.slow
def test_sweeps_around_a_run_take_a_launcher(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "training.checkpoints=1")
    words = (f"run={run}", "hydra/launcher=local", "hydra.launcher.n_jobs=2")
    assert call(*words, command="dynamics") == 0
    steps = sorted(path.parent.name for path in (run / "dynamics").glob("*/report.html"))
    assert steps[0] == "step-0000000"
    assert len(list((run / "dynamics" / ".submitit").glob("*/*_log.out"))) == len(steps) > 1


def test_other_programs_keep_their_joblib(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text("seed: 0\n")
    (tmp_path / "theirs.py").write_text(
        "import hydra\n"
        "from hydra.core.hydra_config import HydraConfig\n"
        "hydra.main(config_path='.', config_name='theirs', version_base='1.3')(\n"
        "    lambda config: print(HydraConfig.get().launcher._target_)\n"
        ")()\n"
    )
    words = [sys.executable, "theirs.py", "hydra/launcher=joblib", "hydra.run.dir=out"]
    said = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
