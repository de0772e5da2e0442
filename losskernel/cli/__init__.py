"""The command line: the only importer of Hydra. torch is loaded once a command does its work, so --help is quick."""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import losskernel.cli.config.calibrated_choice  # noqa: F401 (registers a search path of Hydra's)
from losskernel.cli.commands.compare_runs import CompareRuns as CompareRuns
from losskernel.cli.commands.compare_runs import compare_ended_sweeps, group_of
from losskernel.cli.commands.dynamics_and_layers import DYNAMICS, LAYERS, around
from losskernel.cli.config import CONF
from losskernel.cli.failures import guarded_command, guarded_job
from losskernel.cli.launchers.sweep_jobs import refuse_sweep_words_of_single_run

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
        from losskernel.cli.commands.calibrate_sampler import calibrate_from

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
    with compare_ended_sweeps(), guarded_command():
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
    with guarded_command():
        around(DYNAMICS, _run)


def layers() -> None:
    """losskernel-layers: kernels of single blocks of a finished run's weights."""
    with guarded_command():
        around(LAYERS, _run)


def prefetch() -> None:
    """losskernel-prefetch: download what a run needs on a machine without internet, and prove that it is enough."""
    with guarded_command():
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
