"""How a run ends: finished, failed or interrupted, recorded as such wherever it is recorded."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from losskernel.errors import Interrupted
from losskernel.heartbeat import Heartbeat
from losskernel.interrupts import Stopped, heeding, name_of
from losskernel.tracking import Tracker


@contextmanager
def reported(heart: Heartbeat, tracker: Tracker, config: Mapping[str, Any]) -> Iterator[None]:
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
        heart.says(state, error=str(stop))
        if isinstance(stop, Interrupted):
            raise
        how = f"stopped by {name_of(stop.number)}; the same command with the same folder continues"
        raise Interrupted(how, stop.number) from stop
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
