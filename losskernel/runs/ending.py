"""How a run ends: finished, failed or interrupted, recorded as such wherever it is recorded."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from losskernel.errors import Interrupted
from losskernel.runs.folder import Tracker
from losskernel.runs.status.status_file import Heartbeat
from losskernel.signals import Stopped, heeding


@contextmanager
def reported(heart: Heartbeat, tracker: Tracker, config: Mapping[str, Any], folder: Path) -> Iterator[None]:
    """Record how a run ends, and end it in order where a scheduler asks for that."""
    state = "failed"
    heart.says("starting", error=None)
    try:
        with heeding():
            tracker.start(config)
            yield
        state = "finished"
    except (Stopped, Interrupted) as stop:
        state = "interrupted"
        # The remedies of sample() and fit() are for callers of these; a run is continued by its folder.
        reason = stop.reason if isinstance(stop, Interrupted) else str(stop)
        heart.says(state, error=reason)
        remedy = f"the same command with paths.run={folder} goes on from there"
        raise Interrupted(reason, stop.number, remedy) from stop
    except KeyboardInterrupt:
        state = "interrupted"
        heart.says(state, error="Ctrl-C")
        raise
    except BaseException as error:
        heart.says(state, error=" ".join(str(error).split()) or type(error).__name__)
        raise
    finally:
        # A record that cannot be closed (a full disk) must not hide why the run ends.
        with nullcontext() if state == "finished" else suppress(Exception):
            tracker.finish(state)
