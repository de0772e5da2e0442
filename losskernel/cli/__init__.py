"""The command line: the only importer of Hydra, and quick to answer --help."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import losskernel.cli.commands.calibrate  # noqa: F401 (it registers where choices are looked for)
from losskernel.cli.commands.around import around
from losskernel.cli.commands.compare import compared, group_of, joining, note_failure
from losskernel.cli.commands.dynamics_and_layers import DYNAMICS, LAYERS
from losskernel.cli.config.unknown_keys import unknown_choice, unknown_key
from losskernel.cli.launchers.jobs import at_work_on, refuse_alone, within_a_sweep
from losskernel.cli.launchers.requeue import hand_on
from losskernel.signals import Stopped, raise_on_signal

# In a checkout the registry stands beside the package; a wheel carries it inside.
_PACKAGE = Path(__file__).parents[1]
_INSIDE, _BESIDE = _PACKAGE / "conf", _PACKAGE.parent / "conf"
CONF = str(_INSIDE if _INSIDE.is_dir() else _BESIDE)

OmegaConf.register_new_resolver("count", len, replace=True)
OmegaConf.register_new_resolver("double", lambda number: 2 * number, replace=True)


_WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
_reported: list[Exception] = []  # failures of this process' sweep, already printed


@hydra.main(config_path=CONF, config_name="config", version_base="1.3")
def _run(config: DictConfig) -> float | None:
    from losskernel.cli.build import run_from

    overrides = list(HydraConfig.get().overrides.task)
    return _job(lambda: run_from(config, **_place(), overrides=overrides), config)


@hydra.main(config_path=CONF, config_name="analyse", version_base="1.3")
def _analyse(config: DictConfig) -> None:
    from losskernel.cli.build import analyse_from

    _job(lambda: analyse_from(config), config)


@hydra.main(config_path=CONF, config_name="compare", version_base="1.3")
def _compare(config: DictConfig) -> None:
    from losskernel.cli.commands.compare import compare_from

    _job(lambda: compare_from(config), config)


@hydra.main(config_path=CONF, config_name="calibrate", version_base="1.3")
def _calibrate(config: DictConfig) -> None:
    from losskernel.cli.commands.calibrate import calibrate_from

    _job(lambda: calibrate_from(config, _place()["folder"]), config)


def _place() -> dict[str, Any]:
    """Return the run's folder, and the name of the sweep that it belongs to."""
    now = HydraConfig.get()
    refuse_alone(now)
    sweep = group_of(Path(now.sweep.dir)) if now.mode == RunMode.MULTIRUN else None
    return {"folder": Path(now.runtime.output_dir), "sweep": sweep}


def main() -> None:
    """losskernel: train or load, sample, analyse; a sweep ends with a comparison of its runs."""
    with compared():
        _guarded(_run)


def analyse() -> None:
    """losskernel-analyse: ask more of a finished run."""
    _guarded(_analyse)


def calibrate() -> None:
    """losskernel-calibrate: find step size, localization, burn-in and thinning."""
    _guarded(_calibrate)


def compare() -> None:
    """losskernel-compare: put finished runs side by side, those of one kernel's chains joined on request."""
    sys.argv = joining(sys.argv)
    _guarded(_compare)


def dynamics() -> None:
    """losskernel-dynamics: kernels along a finished run's training."""
    _guarded(lambda: around(DYNAMICS, CONF, _run))


def layers() -> None:
    """losskernel-layers: kernels of single blocks of a finished run's weights."""
    _guarded(lambda: around(LAYERS, CONF, _run))


def prefetch() -> None:
    """losskernel-prefetch: fetch what a run needs where there is no internet, and try it without."""
    from losskernel.cli.commands.prefetch import prefetch_for

    _guarded(lambda: prefetch_for(CONF, sys.argv[1:]))


def dashboard() -> None:
    """losskernel-dashboard: save a workspace of a project's runs on W&B."""
    from losskernel.cli.dashboards import dashboard_in

    _guarded(lambda: dashboard_in(CONF))


def status() -> None:
    """losskernel-status: where the jobs of a sweep stand, while they run."""
    from losskernel.cli.status.status import status_from

    sys.exit(status_from(sys.argv[1:]))


def _job(work: Callable[[], Any], config: DictConfig) -> Any:
    """Do one job; in a sweep, report its failure or its stop at once and by name, for the other jobs go on."""
    try:
        return work()
    except Exception as error:
        now = HydraConfig.get()
        if now.mode == RunMode.MULTIRUN:
            within_a_sweep(error, now)
            note_failure(Path(now.runtime.output_dir), config, error)
            stopped = type(error).__name__ == "Interrupted"
            error.add_note(f"{at_work_on(now)}{'' if stopped else ' failed:'}")
            # Hydra would take Ctrl-C for the failure of one job and start the next.
            if stopped or (_expected(error) and not _WANTS_TRACEBACK):
                _report(error)
                _reported.append(error)
            _leave(error)
        raise


def _guarded(command: Callable[[], Any]) -> None:
    """Run a command; a fault that the user can mend is one line, and a traceback only on request."""
    # Hydra would otherwise catch every error itself and print it in its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _reported.clear()
    stream: Any = sys.stderr if _WANTS_TRACEBACK else _WithoutOverrides(sys.stderr)
    try:
        # From here on: a job that is told to make room while it still imports has to ask for its requeue, too.
        with contextlib.redirect_stderr(stream), raise_on_signal():
            command()
    except (KeyboardInterrupt, SystemExit) as end:
        # Lightning turns Ctrl-C during training into a silent exit.
        if not isinstance(end, KeyboardInterrupt) and not isinstance(end.__context__, KeyboardInterrupt):
            raise
        number = getattr(end, "number", signal.SIGINT)
        print(f"losskernel: {end if isinstance(end, Stopped) else 'interrupted'}", file=sys.stderr)
        hand_on(number)
        sys.exit(128 + number)
    except Exception as error:
        if error in _reported:
            print(f"losskernel: {len(_reported)} of the sweep's jobs did not finish, as said above", file=sys.stderr)
        elif _expected(error) and not _WANTS_TRACEBACK:
            _report(error)
        else:
            raise
        _leave(error)
        sys.exit(1)


def _leave(error: Exception) -> None:
    """End the process as the shell expects of one that a signal stopped, if one did."""
    number = getattr(error, "number", None)
    if type(error).__name__ == "Interrupted" and number is not None:
        hand_on(number)
        sys.exit(128 + number)


class _WithoutOverrides:
    """The standard error stream without the line that Hydra puts before every error, naming all overrides."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if text.startswith("Error executing job with overrides") else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _report(error: Exception) -> None:
    """Print what went wrong, and in which job of a sweep."""
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        place = f"{error.filename}: " if error.filename else ""
        text = f"{place}{error.strerror or error}; check the path (paths.outputs, paths.run) and the free space"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        text = f"{error.full_key}: {text.splitlines()[0]}; set {error.full_key}=..."
    if isinstance(error, MissingConfigException):
        text = unknown_choice(error) or text
    if isinstance(error, HydraException) and "Could not override '" in text:
        text = unknown_key(error)
    lines, job = [*filter(str.strip, text.splitlines())], " ".join(getattr(error, "__notes__", []))
    if job:
        lines = [f"{job} {lines[0]}"] if len(lines) == 1 else [job, *lines]
    sys.stderr.write("".join(f"losskernel: {line}\n" for line in lines))  # whole: jobs share the terminal


def _expected(error: Exception) -> bool:
    """Whether the user can mend it: then its message says how, and a traceback would only hide that."""
    if isinstance(error, (HydraException, OmegaConfBaseException, OSError)):
        return True
    from losskernel.errors import DivergenceError, InputError, Interrupted, TraceError

    return isinstance(error, (InputError, DivergenceError, TraceError, Interrupted))
