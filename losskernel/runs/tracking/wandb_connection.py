"""One W&B run for one run folder, however often it is interrupted; nothing that W&B does ends what is recorded."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import wandb
from wandb.sdk.lib.runid import generate_id
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

from losskernel.errors import InputError, TraceError
from losskernel.runs.folder import RunFolder

# Seconds. What is stopped by a scheduler has less time for its uploads than what has all of it.
_REACH, _UPLOAD, _MAKE_ROOM, _LET_GO = 30, 300, 20, 5
_OLDER_WORDS = {"dryrun": "offline", "run": "online"}  # that W&B still takes for a mode
# W&B's own process is gone, killed with the job's others by a scheduler's SIGTERM, say.
_GONE = (ConnectionError, HandleAbandonedError, MailboxClosedError)


class Connection:
    """The W&B run of a folder while it is open.

    Args:
        folder: of the run; W&B keeps its files there, and wandb.json the run's id.
        about: name, group, job_type, project, entity and tags of the run.
        mode: "online", "offline", or "auto": online where somebody is logged in and W&B can be reached.
        prepare: what to do with the run whenever it was opened.
        repeat: logs the rows again, where W&B's process had to be replaced; what else was told it knows itself.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        mode: str,
        prepare: Callable[[Any], None],
        repeat: Callable[[], None],
    ) -> None:
        self._folder, self._about, self._prepare, self._repeat = folder, dict(about), prepare, repeat
        # W&B's own variable wins, for it may say "disabled" as well.
        asked = os.environ.get("WANDB_MODE") or mode
        self._auto = asked == "auto"
        self.mode = ("online" if logged_in() else "offline") if self._auto else _OLDER_WORDS.get(asked, asked)
        self.run: Any = None
        self._told: list[Callable[[Any], Any]] = []
        self._next = 0  # step of the run's history
        self._began, self._replaced, self._complained = 0.0, False, False

    def open(self) -> None:
        """Open the run that the folder has had, or its first.

        Raises:
            InputError: W&B cannot.
        """
        self._began = time.monotonic()
        sends = f"`wandb sync {self._folder}/wandb` sends"
        if self._auto and self.mode == "online" and unsent(self._folder, self._kept().get("id")):
            _say(f"recorded offline, for W&B has not got what was recorded offline before; {sends} both")
            self.mode = "offline"
        try:
            self._open()
        except Exception as error:  # its own errors, those of its settings' library, those of its process
            reason = " ".join(str(error).split())
            if not (self._auto and self.mode == "online"):
                remedy = f"use logger.mode=offline or logger=csv, or remove {self._folder}/wandb*.json for another run"
                raise InputError(f"W&B cannot open a run: {reason}; {remedy}") from error
            _say(f"W&B cannot be reached, recorded offline; {sends} it ({reason})")
            self.mode = "offline"
            self.open()

    def tell(self, work: Callable[[Any], Any]) -> None:
        """Have W&B do something, if a run is open; what it does not manage is said once."""
        self._told.append(work)
        self._try(work)

    def log(self, row: Mapping[str, Any], step: int) -> None:
        """Log a row of the history, unless W&B has it from before: it takes no step twice."""

        def send(run: Any) -> None:
            if step >= self._next:
                self._next = step
                self.append(run, row)

        self._try(send)

    def append(self, run: Any, row: Mapping[str, Any]) -> None:
        """Log a row that follows all others; for what is told."""
        run.log(dict(row), step=self._next, commit=True)
        self._next += 1

    def close(self, state: str) -> None:
        """End the run: an interrupted one as preempted, which has W&B's agents put it back into their queue."""
        if self.run is None:
            return
        if state == "interrupted":
            self.tell(lambda run: run.mark_preempting())
        code = 0 if state == "finished" else 1
        if self.mode != "disabled":
            self._note(seconds=self.seconds)

        def end(run: Any) -> None:
            run.finish(exit_code=code)
            self._closed(run)

        # In a thread of its own, for a scheduler does not wait for a network.
        closing = threading.Thread(target=self.tell, args=(end,), daemon=True)
        closing.start()
        try:
            closing.join(_MAKE_ROOM if state == "interrupted" else None)
        finally:
            if closing.is_alive() or wandb.run is not None:
                self._replaced = True  # by no other, now
                _let_go()
                closing.join(_LET_GO)  # a thread that waits for W&B while the interpreter ends aborts the process
            self.run, self._told = None, []

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken, with those before it was interrupted."""
        return self._kept().get("seconds", 0.0) + time.monotonic() - self._began

    def _open(self) -> None:
        agent = "WANDB_SWEEP_ID" in os.environ  # has chosen the run and all that says where it lies
        # An id of the user's is that of one run, not of every job of a sweep.
        given = agent or ("WANDB_RUN_ID" in os.environ and self._about["group"] is None)
        settings = wandb.Settings(console="off", x_disable_stats=True, silent=True)
        settings.finish_timeout, settings.finish_timeout_raises = _UPLOAD, True
        if self._auto:
            settings.init_timeout = _REACH
        kept = self._kept()
        about = self._about | ({"project": None, "entity": None} if agent else {})
        if "id" in kept and not given:  # a run keeps its name; tags of the user's own would be replaced
            about |= {"name": kept.get("name")} | ({"tags": None} if self.mode == "online" else {})
        self.run = wandb.init(
            **about,
            id=None if given else kept.get("id") or generate_id(),
            resume="allow",
            dir=self._folder,
            mode=self.mode,  # pyright: ignore[reportArgumentType]
            settings=settings,
            reinit="finish_previous",  # a one-process multirun would otherwise go on writing into the run before
        )
        offline = self.mode == "offline" and self.run.id == kept.get("id")
        self._next = kept.get("next", 0) if offline else self.run.starting_step
        if self.mode != "disabled":
            known = ("id", "project", "entity", *["url"] * (self.mode == "online"))  # W&B warns that there is no other
            facts = {name: getattr(self.run, name) for name in known}
            self._note(**facts, name=about["name"])
        self._prepare(self.run)

    def _try(self, work: Callable[[Any], Any]) -> None:
        if self.run is None:
            return
        try:
            work(self.run)
        except _GONE as error:
            self._complain(error) if self._replaced else self._replace()
        except Exception as error:  # what is recorded has cost more than the record
            self._complain(error)

    def _replace(self) -> None:
        """Open the run in another process of W&B's, and tell it everything again."""
        self._replaced = True
        _let_go()
        try:
            self._open()
            self._repeat()
            for work in list(self._told):
                work(self.run)
        except Exception as error:
            self._complain(error)

    def _closed(self, run: Any) -> None:
        """Note how far this process has told W&B, and put aside what others did not send, which was told again."""
        if self.mode == "disabled":
            return
        closed = []
        if self.mode == "offline":
            closed = [*self._kept().get("closed", []), Path(run.dir).parent.name]
        self._note(next=self._next, closed=closed)
        put_aside(self._folder, run.id, closed)

    def _kept(self) -> dict[str, Any]:
        return recall(self._folder, self._about["job_type"])

    def _note(self, **facts: Any) -> None:
        note(self._folder, self._about["job_type"], **facts)

    def _complain(self, error: BaseException) -> None:
        if not self._complained:
            self._complained = True
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            _say(f"W&B has not recorded everything ({reason}); it is all in {self._folder}")


def logged_in() -> bool:
    """Whether W&B has a key to use for its server, wherever it looks for one: as it says itself, but asking nobody."""
    try:
        # Inside, for W&B has no public way to ask; a version without these is one more that says itself what is wrong.
        from wandb.sdk import wandb_setup
        from wandb.sdk.lib.wbauth import authenticate_session

        host = wandb_setup.singleton().settings.base_url
        return authenticate_session(host=host, source="losskernel", prompt=False, update_session=False) is not None
    except Exception:  # a key or an address that is none: what opens the run says what is wrong with it
        return True


def _say(text: str) -> None:
    logging.getLogger(__name__).warning(text)


def _let_go() -> None:
    """Let go of W&B's process, so that the next run starts another, and the interpreter ends in silence."""
    with suppress(Exception):
        wandb.teardown()


def recall(folder: Path, job_type: str) -> dict[str, Any]:
    """Return what was noted of the folder's W&B run (id, name, seconds, ...); nothing where it has none."""
    try:
        found = json.loads((folder / _file(job_type)).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def note(folder: Path, job_type: str, **facts: Any) -> None:
    """Note facts of the folder's W&B run; that they cannot be written harms nobody."""
    with suppress(TraceError):
        RunFolder(folder).write_json(_file(job_type), recall(folder, job_type) | facts)


def put_aside(folder: Path, run_id: str, closed: Collection[str]) -> None:
    """Take what killed processes left of an offline run out of the way of `wandb sync`.

    A file that a kill has cut short stops `wandb sync` before those that follow it, and an empty one stops it
    altogether; what they held was logged again.

    Args:
        folder: of the run.
        run_id: of the W&B run.
        closed: names of the folders of W&B files that ended in order.
    """
    for file in unsent(folder, run_id):
        if file.parent.name not in closed:
            with suppress(OSError):
                file.rename(file.with_name(f"{file.name}.unended"))


def unsent(folder: Path, run_id: str | None) -> list[Path]:
    """Return the files of an offline run that `wandb sync` has not sent."""
    found = folder.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb")
    return [file for file in found if not file.with_name(f"{file.name}.synced").exists()]


def _file(job_type: str) -> str:
    return "wandb.json" if job_type == "run" else f"wandb-{job_type}.json"
