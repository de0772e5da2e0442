"""The connection to W&B: one W&B run per run folder across interruptions, and no failure of W&B ends a run."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import wandb
from wandb.sdk.lib.runid import generate_id
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

from losskernel.errors import InputError, TraceError
from losskernel.runs.folder import RunFolder
from losskernel.runs.status.status_file import read_object

# Timeouts in seconds: of reaching the server, of the last uploads of a finished run, of those of an interrupted run
# (a scheduler kills it soon), and of W&B's threads after its process was torn down.
_REACH, _UPLOAD, _UPLOAD_INTERRUPTED, _TEAR_DOWN = 30, 300, 20, 5
_OLD_MODES = {"dryrun": "offline", "run": "online"}  # that W&B still accepts
# Raised where W&B's service process is gone, for instance by a scheduler's SIGTERM to all processes of a job.
_SERVICE_LOST = (ConnectionError, HandleAbandonedError, MailboxClosedError)


class Connection:
    """The open W&B run of a folder.

    Args:
        folder: of the run; it holds W&B's files, and the run's id in wandb.json.
        identity: name, group, job_type, project, entity and tags of the run.
        mode: "online", "offline", or "auto": online where somebody is logged in and W&B can be reached.
        prepare: called with the run whenever it was opened.
        replay: logs the rows of the history again, after W&B's service process was replaced; all other calls are
            repeated by the connection itself.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        mode: str,
        prepare: Callable[[Any], None],
        replay: Callable[[], None],
    ) -> None:
        self._folder, self._identity, self._prepare, self._replay = folder, dict(identity), prepare, replay
        job_type = self._identity["job_type"]
        self._file = "wandb.json" if job_type == "run" else f"wandb-{job_type}.json"
        # W&B's own variable takes precedence; it may also say "disabled".
        wanted = os.environ.get("WANDB_MODE") or mode
        self._auto = wanted == "auto"
        self.mode = ("online" if logged_in() else "offline") if self._auto else _OLD_MODES.get(wanted, wanted)
        self.run: Any = None
        self._calls: list[Callable[[Any], Any]] = []  # all so far, for a replaced service process
        self._next = 0  # step of the run's history
        self._began, self._replaced, self._warned = 0.0, False, False

    def open(self) -> None:
        """Open the folder's W&B run, a new one if it has none yet.

        Raises:
            InputError: W&B cannot open a run.
        """
        self._began = time.monotonic()
        sends = f"`wandb sync {self._folder}/wandb` sends"
        if self._auto and self.mode == "online" and unsent(self._folder, self._kept().get("id")):
            # Online now, the rows would continue a run of which W&B's server lacks the beginning.
            _log_warning(f"recorded offline, because earlier offline records are not uploaded yet; {sends} both")
            self.mode = "offline"
        try:
            self._open()
        except Exception as error:  # W&B's own, its settings library's, its service's
            reason = " ".join(str(error).split())
            if not (self._auto and self.mode == "online"):
                remedy = f"use logger.mode=offline or logger=csv, or remove {self._folder}/wandb*.json for another run"
                raise InputError(f"W&B cannot open a run: {reason}; {remedy}") from error
            _log_warning(f"W&B cannot be reached, recorded offline; {sends} it ({reason})")
            self.mode = "offline"
            self.open()

    def call(self, work: Callable[[Any], Any]) -> None:
        """Call a function with the open run, if any; the first failure is logged as a warning."""
        self._calls.append(work)
        self._try(work)

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """Log a row of the history, unless W&B already has that step, which it accepts only once."""

        def send(run: Any) -> None:
            if step >= self._next:
                self._next = step
                self.append(run, row)

        self._try(send)

    def append(self, run: Any, row: Mapping[str, Any]) -> None:
        """Log a row after all others; for use within `call`."""
        run.log(dict(row), step=self._next, commit=True)
        self._next += 1

    def close(self, state: str) -> None:
        """Close the run; an interrupted one counts as preempted, which makes W&B's agents queue it again."""
        if self.run is None:
            return
        if state == "interrupted":
            self.call(lambda run: run.mark_preempting())
        code = 0 if state == "finished" else 1
        if self.mode != "disabled":
            self._note(seconds=self.seconds)

        def end(run: Any) -> None:
            run.finish(exit_code=code)
            self._closed(run)

        # In a thread, so that a slow network does not use up the time that a scheduler grants.
        closing = threading.Thread(target=self.call, args=(end,), name="wandb-close", daemon=True)
        closing.start()
        try:
            closing.join(_UPLOAD_INTERRUPTED if state == "interrupted" else None)
        finally:
            if closing.is_alive() or wandb.run is not None:
                self._replaced = True  # no second service process now
                _tear_down()
                closing.join(_TEAR_DOWN)  # a thread still waiting for W&B at exit would abort the process
            self.run, self._calls = None, []

    @property
    def seconds(self) -> float:
        """Seconds of the run, earlier processes included."""
        return self._kept().get("seconds", 0.0) + time.monotonic() - self._began

    def _open(self) -> None:
        agent = "WANDB_SWEEP_ID" in os.environ  # a W&B agent has chosen the run, project and entity
        # An id given by the user names one run, so that the jobs of a sweep must not all use it.
        given = agent or ("WANDB_RUN_ID" in os.environ and self._identity["group"] is None)
        settings = wandb.Settings(console="off", x_disable_stats=True, silent=True)
        settings.finish_timeout, settings.finish_timeout_raises = _UPLOAD, True
        if self._auto:
            settings.init_timeout = _REACH
        kept = self._kept()
        identity = self._identity | ({"project": None, "entity": None} if agent else {})
        if "id" in kept and not given:  # keep the run's name; tags set on the website stay
            identity |= {"name": kept.get("name")} | ({"tags": None} if self.mode == "online" else {})
        self.run = wandb.init(
            **identity,
            id=None if given else kept.get("id") or generate_id(),
            resume="allow",
            dir=self._folder,
            mode=self.mode,  # pyright: ignore[reportArgumentType]
            settings=settings,
            reinit="finish_previous",  # otherwise the jobs of a one-process multirun write into the first run
        )
        offline = self.mode == "offline" and self.run.id == kept.get("id")
        self._next = kept.get("next", 0) if offline else self.run.starting_step
        if self.mode != "disabled":
            # Offline there is no URL, and W&B warns.
            known = ["id", "project", "entity", *["url"] * (self.mode == "online")]
            facts = {name: getattr(self.run, name) for name in known}
            self._note(**facts, name=identity["name"])
        self._prepare(self.run)

    def _try(self, work: Callable[[Any], Any]) -> None:
        if self.run is None:
            return
        try:
            work(self.run)
        except _SERVICE_LOST as error:
            self._warn(error) if self._replaced else self._replace()
        except Exception as error:  # the run is worth more than its record
            self._warn(error)

    def _replace(self) -> None:
        """Open the run in a new service process, and repeat all calls."""
        self._replaced = True
        _tear_down()
        try:
            self._open()
            self._replay()
            for work in list(self._calls):
                work(self.run)
        except Exception as error:
            self._warn(error)

    def _closed(self, run: Any) -> None:
        """Store the next step, and rename the unfinished files of killed processes, so that `wandb sync` skips them.

        A truncated file stops `wandb sync` before the files after it, and an empty one stops it altogether. Their
        content was logged again by the process that resumed.
        """
        if self.mode == "disabled":
            return
        closed = []
        if self.mode == "offline":
            closed = [*self._kept().get("closed", []), Path(run.dir).parent.name]
        self._note(next=self._next, closed=closed)
        for file in unsent(self._folder, run.id):
            if file.parent.name not in closed:
                with suppress(OSError):
                    file.rename(file.with_name(f"{file.name}.unended"))

    def _kept(self) -> dict[str, Any]:
        """Return the stored facts of the folder's W&B run (id, name, seconds, ...); {} where it has none."""
        return read_object(self._folder / self._file)

    def _note(self, **facts: Any) -> None:
        """Store facts of the folder's W&B run; failure to write them is ignored."""
        with suppress(TraceError):
            RunFolder(self._folder).write_json(self._file, self._kept() | facts)

    def _warn(self, error: BaseException) -> None:
        if not self._warned:
            self._warned = True
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            _log_warning(f"W&B did not record everything ({reason}); all of it is in {self._folder}")


def logged_in() -> bool:
    """Return whether W&B finds an API key for its server, without a network request or a prompt."""
    try:
        # Private modules, because there is no public function; a version without them counts as logged in.
        from wandb.sdk import wandb_setup
        from wandb.sdk.lib.wbauth import authenticate_session

        host = wandb_setup.singleton().settings.base_url
        return authenticate_session(host=host, source="losskernel", prompt=False, update_session=False) is not None
    except Exception:  # an invalid key or address: opening the run will report it
        return True


def _log_warning(text: str) -> None:
    logging.getLogger(__name__).warning(text)


def _tear_down() -> None:
    """End W&B's service process, so that the next run starts a new one and the interpreter exits quietly."""
    with suppress(Exception):
        wandb.teardown()


def unsent(folder: Path, run_id: str | None) -> list[Path]:
    """Return the files of an offline run that `wandb sync` has not uploaded."""
    files = folder.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb")
    return [file for file in files if not file.with_name(f"{file.name}.synced").exists()]
