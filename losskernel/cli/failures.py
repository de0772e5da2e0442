"""How commands and jobs fail: one clear line for what the user can mend, a traceback for the rest, exit codes."""

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from losskernel.cli.arguments import as_hydra_reads
from losskernel.cli.launchers.queue import request_requeue
from losskernel.cli.launchers.sweep_jobs import job_name, resume_command
from losskernel.errors import DivergenceError, InputError, Interrupted, TraceError
from losskernel.signals import Stopped, raise_on_signal

WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
# Failures of this process' sweep that are already printed: the command must not print them again.
reported: list[Exception] = []

_MIN_SIMILARITY = 0.8  # difflib's ratio from which two dotted keys count as one mistyped


@contextmanager
def guarded_command() -> Iterator[None]:
    """Around a command: an error that the user can mend is one line, and a traceback only on request."""
    # Hydra would otherwise catch every error itself and print it in its own way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    reported.clear()
    sys.argv[1:] = as_hydra_reads(sys.argv[1:])
    for output in (sys.stdout, sys.stderr):
        # A sign that the terminal's encoding lacks, or a file name that is no text, must not end a finished run.
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="backslashreplace")
    stream: Any = sys.stderr if WANTS_TRACEBACK else _WithoutOverrides(sys.stderr)
    try:
        # Signals are handled from here on: a job that is preempted while it imports must ask for its requeue, too.
        with contextlib.redirect_stderr(stream), raise_on_signal():
            yield
    except (KeyboardInterrupt, SystemExit) as end:
        # Lightning turns Ctrl-C during training into SystemExit.
        if not isinstance(end, KeyboardInterrupt) and not isinstance(end.__context__, KeyboardInterrupt):
            raise
        print(f"losskernel: {end if isinstance(end, Stopped) else 'interrupted'}", file=sys.stderr)
        _exit_by_signal(getattr(end, "number", signal.SIGINT))
    except Exception as error:
        # In one process Hydra raises the first failed job's error once all jobs are through.
        if error in reported:
            print(f"losskernel: {len(reported)} of the sweep's jobs did not finish, as said above", file=sys.stderr)
        elif _is_expected(error) and not WANTS_TRACEBACK:
            _print(error)
        else:
            raise
        if isinstance(error, Interrupted):
            _exit_by_signal(error.number)
        sys.exit(1)


@contextmanager
def guarded_job(config: Any, *, resumable: bool = False) -> Iterator[None]:
    """Around one job: in a sweep its failure is printed at once and by name, since the other jobs go on.

    Args:
        config: of the job.
        resumable: whether repeating the sweep continues a job that was interrupted.
    """
    try:
        yield
    except Exception as error:
        hydra_config = HydraConfig.get()
        if hydra_config.mode != RunMode.MULTIRUN:
            raise
        interrupted = isinstance(error, Interrupted)
        if isinstance(error, Interrupted) and resumable:  # a run knows only how it would be continued alone
            error.remedy = f"{resume_command(hydra_config)} goes on from there"
        write_failure(Path(hydra_config.runtime.output_dir), config, error)
        error.add_note(f"{job_name(hydra_config)}{'' if interrupted else ' failed:'}")
        if interrupted or (_is_expected(error) and not WANTS_TRACEBACK):
            _print(error)
            reported.append(error)
        if isinstance(error, Interrupted):  # Hydra would take it for the failure of one job and start the next
            _exit_by_signal(error.number)
        raise


def write_failure(folder: Path, config: Any, error: BaseException) -> None:
    """Write why a job failed into its folder, for comparisons and losskernel-status; do nothing if that fails too.

    Args:
        folder: of the job.
        config: of the job; left out if it cannot be resolved.
        error: what it raised.
    """
    text = str(error).strip() or type(error).__name__
    # Messages of other libraries make no sense without the name of the error.
    known = type(error).__module__.startswith(("losskernel", "omegaconf", "hydra"))
    # `config` lets a comparison place the failed job among the others.
    record: dict[str, Any] = {"error": text if known else f"{type(error).__name__}: {text}"}
    with suppress(Exception):
        record["config"] = OmegaConf.to_container(config, resolve=True)
    with suppress(Exception):
        from losskernel.runs.folder import RunFolder
        from losskernel.sweeps import FAILURE

        RunFolder(folder).write_json(FAILURE, record)


def short_path(path: Path) -> Path:
    """Return a path relative to the working folder where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


class _WithoutOverrides:
    """The standard error stream without the line that Hydra writes before every error, naming all overrides."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if text.startswith("Error executing job with overrides") else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _exit_by_signal(number: int) -> None:
    """Ask for a requeue if the signal means that, and exit with the code that a shell expects after a signal."""
    request_requeue(number)
    sys.exit(128 + number)


def _is_expected(error: Exception) -> bool:
    """Whether the user can mend it: then its message says how, and a traceback would only hide that."""
    known = (InputError, DivergenceError, TraceError, Interrupted)
    return isinstance(error, (*known, HydraException, OmegaConfBaseException, OSError))


def _print(error: Exception) -> None:
    """Print what went wrong, a line per fault, with the name of the sweep's job if there is one."""
    lines, job = [*filter(str.strip, _message(error).splitlines())], " ".join(getattr(error, "__notes__", []))
    if job:
        lines = [f"{job} {lines[0]}"] if len(lines) == 1 else [job, *lines]
    # One write: the jobs of a sweep share the terminal, and their lines must not mix.
    sys.stderr.write("".join(f"losskernel: {line}\n" for line in lines))


def _message(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        path = f"{error.filename}: " if error.filename else ""
        return f"{path}{error.strerror or error}; check the path (paths.outputs, paths.run) and the free space"
    # The further lines of its message are the key and the type of its node.
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {text.splitlines()[0]}; set {error.full_key}=..."
    if isinstance(error, MissingConfigException):
        return _unknown_choice(error) or text
    if isinstance(error, HydraException) and "Could not override '" in text:
        return _unknown_key(error)
    return text


def _unknown_choice(error: MissingConfigException) -> str | None:
    """Return the message for a choice that does not exist; None where its group has no choices at all."""
    missing = PurePosixPath(str(error.missing_cfg_file))
    # For groups of which several may be chosen, Hydra says only which folders it searched.
    folders = [Path(path) / missing.parent for path in re.findall(r"path=file://(.*)", str(error))]
    choices = sorted(error.options or {path.stem for folder in folders for path in folder.glob("*.yaml")})
    if not choices:
        return None
    close = get_close_matches(missing.name, choices, 1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"Could not find '{missing}'; {meant}choose from {', '.join(choices)}"


def _unknown_key(error: HydraException) -> str:
    """Return the message for a key that the configuration does not have."""
    (key,) = re.findall(r"Could not override '([^']*)'", str(error).splitlines()[0])[:1] or [""]
    close = _close_key(key, getattr(error.__cause__, "parent_node", None))
    listing = "hydra --package hydra.launcher hydra/launcher=..." if key.startswith("hydra.launcher") else "job"
    meant = f"did you mean {close}? " if close else ""
    return f"Could not override '{key}'; {meant}`losskernel --cfg {listing}` lists every key"


def _close_key(key: str, node: Any) -> str | None:
    """Return the key that was probably meant: the closest, or the only one of the same last name; None if neither."""
    if node is None:
        return None
    config: Any = OmegaConf.to_container(node._get_root(), resolve=False)
    # Hydra's own keys are many, and rarely meant.
    if not key.startswith("hydra."):
        config.pop("hydra", None)
    known = list(_dotted_keys(config))
    same_name = [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]]
    close = get_close_matches(key, known, 1, _MIN_SIMILARITY)
    return close[0] if close else same_name[0] if len(same_name) == 1 else None


def _dotted_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield every key that a user may set."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        if not str(name).startswith("_"):
            yield f"{prefix}{name}"
            yield from _dotted_keys(value, f"{prefix}{name}.")
