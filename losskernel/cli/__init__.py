"""The command line: the only importer of Hydra. torch is loaded once a command does its work, so --help is quick."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from losskernel.cli.config import CONF, shown_help
from losskernel.cli.failures import guarded_command, guarded_job
from losskernel.cli.launchers.sweep_jobs import refuse_sweep_words_of_single_run

# Sweeps that this process has started, to be compared when its command has ended: folder, configuration, options.
_pending: list[tuple[Path, Any, dict[str, Any]]] = []


class CompareRuns(Callback):
    """Hydra's callback that ends a sweep with a page comparing its runs.

    It only notes the sweep when that starts. Hydra skips its own hook for the end of a sweep where a job has failed,
    and the page of the jobs that finished is wanted then most.

    Args:
        metrics: what to draw; None for the usual ones.
        alike: CKA from which two kernels count as alike.
    """

    def __init__(self, metrics: Any = None, alike: float = 0.8) -> None:
        self._options = {"metrics": metrics, "alike": alike}

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note the sweep's folder and logger."""
        copy = OmegaConf.create(OmegaConf.to_container(config, resolve=False))  # Hydra goes on changing its own
        _pending.append((Path(str(config.hydra.sweep.dir)), copy, self._options))


@contextmanager
def _compare_ended_sweeps() -> Iterator[None]:
    """Around a command: if it was a sweep, compare its runs, whether or not all jobs finished.

    An error of the comparison is printed as one line; it changes neither the sweep's errors nor its exit code. After a
    signal nothing is compared.
    """
    _pending.clear()
    by_signal = False
    try:
        yield
    except SystemExit as end:
        # Shells report a signal as 128 + its number; see failures.py.
        by_signal = isinstance(end.code, int) and end.code > 128
        raise
    finally:
        for sweep in [] if by_signal else _pending:
            quiet_root_logger()
            try:
                from losskernel.cli.commands.compare_runs import compare_sweep

                compare_sweep(*sweep)
            except Exception as error:
                line = " ".join(str(error).split()) or type(error).__name__
                print(f"losskernel: the sweep's runs are not compared: {line}", file=sys.stderr)


def group_of(sweep: Path) -> str:
    """Return the name that the records of a sweep's jobs share: its folder's, with the run's where it lies in one."""
    return f"{sweep.parent.name}_{sweep.name}" if (sweep.parent / "config.yaml").is_file() else sweep.name


def quiet_root_logger() -> None:
    """Set the root logger to WARNING: Hydra resets it after a job, and fonts and statistics libraries log at INFO."""
    logging.root.setLevel(logging.WARNING)


# Jobs: Hydra calls each with a composed configuration, in a sweep once for every combination. Launchers pickle these
# functions by value, since their names stand for what hydra.main made of them: they stay small and import late.


@hydra.main(config_path=CONF, config_name="config", version_base="1.3")
def _run(config: DictConfig) -> float | None:
    with guarded_job(config, resumable=True):
        from losskernel.cli.build import run_from

        overrides = list(HydraConfig.get().overrides.task)
        return run_from(config, folder=_output_folder(), sweep=_group(), overrides=overrides)


@hydra.main(config_path=CONF, config_name="analyse", version_base="1.3")
def _analyse(config: DictConfig) -> None:
    with guarded_job(config):
        from losskernel.cli.build import analyse_from

        analyse_from(config)


@hydra.main(config_path=CONF, config_name="compare", version_base="1.3")
def _compare(config: DictConfig) -> None:
    with guarded_job(config):
        from losskernel.cli.commands.compare_runs import compare_from

        compare_from(config)


@hydra.main(config_path=CONF, config_name="calibrate", version_base="1.3")
def _calibrate(config: DictConfig) -> None:
    with guarded_job(config):
        from losskernel.cli.build import calibrate_from

        calibrate_from(config, _output_folder())


@hydra.main(config_path=CONF, config_name="dashboard", version_base="1.3")
def _dashboard(config: DictConfig) -> None:
    from losskernel.runs.tracking.wandb_workspace import save_dashboard

    # W&B takes strings alone, and a group may look like a number.
    options = {key: None if config[key] is None else str(config[key]) for key in ("entity", "group", "name")}
    print(save_dashboard(str(config.project), **options))


def _output_folder() -> Path:
    """Return the job's folder.

    Raises:
        InputError: a single run was given words that only a sweep takes.
    """
    hydra_config = HydraConfig.get()
    refuse_sweep_words_of_single_run(hydra_config)
    return Path(hydra_config.runtime.output_dir)


def _group() -> str | None:
    """Return the name that the records of a sweep's jobs share; None for a single run."""
    hydra_config = HydraConfig.get()
    return group_of(Path(hydra_config.sweep.dir)) if hydra_config.mode == RunMode.MULTIRUN else None


# Commands: the entry points that pyproject.toml names.


def main() -> None:
    """losskernel: train or load, sample, analyse; a sweep ends with a comparison of its runs."""
    with _compare_ended_sweeps(), guarded_command():
        _run()


def analyse() -> None:
    """losskernel-analyse: run further analyses on a finished run."""
    with guarded_command():
        _analyse()


def calibrate() -> None:
    """losskernel-calibrate: find step size, localization, burn-in and thinning."""
    with guarded_command():
        _calibrate()


def compare() -> None:
    """losskernel-compare: put finished runs side by side, those of one kernel's chains joined on request."""
    # Hydra knows no flags but its own.
    sys.argv = ["join=true" if word == "--join" else word for word in sys.argv]
    with guarded_command():
        _compare()


def dynamics() -> None:
    """losskernel-dynamics: kernels along a finished run's training."""
    _around_run("dynamics")


def layers() -> None:
    """losskernel-layers: kernels of single blocks of a finished run's weights."""
    _around_run("layers")


def _around_run(command: str) -> None:
    with guarded_command():
        if shown_help(command):
            return
        from losskernel.cli.commands.dynamics_and_layers import COMMANDS, around

        around(COMMANDS[command], _run)


def prefetch() -> None:
    """losskernel-prefetch: download what a run needs on a machine without internet, and prove that it is enough."""
    with guarded_command():
        if shown_help("prefetch"):
            return
        from losskernel.cli.commands.prefetch import prefetch_for

        prefetch_for(sys.argv[1:])


def dashboard() -> None:
    """losskernel-dashboard: save a workspace of a project's runs on W&B."""
    with guarded_command():
        _dashboard()


def status() -> None:
    """losskernel-status: the state of a sweep's jobs while they run."""
    from losskernel.cli.commands.status import status_from

    sys.exit(status_from(sys.argv[1:]))
