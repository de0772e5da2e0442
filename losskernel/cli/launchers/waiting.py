"""Waiting for all jobs of a sweep, whatever becomes of each: the killed, the requeued, and a silent scheduler."""

import time
from collections.abc import Callable, Mapping, Sequence

from losskernel.cli.launchers.slurm_states import ACTIVE

GONE = "GONE"  # what a job is that the scheduler does not remember
_SILENCES = 3  # unanswered questions in a row before the user hears of them


class Watch:
    """Looks after jobs until every one has ended.

    A job without result is given up only if it stays dead for the grace time, and only once no other job is left to
    wait for: until then it may come back to the queue, by SLURM or by hand. One that has left a result and is at work
    again is waited for again. While the scheduler does not answer, nobody is given up.

    Args:
        ids: of the jobs.
        ask: ids -> states of those that the scheduler remembers; None where it does not answer.
        has_result: whether a job has left what it returned.
        grace: seconds.
        say: tells the user.
        clock: seconds.
    """

    def __init__(
        self,
        ids: Sequence[str],
        ask: Callable[[Sequence[str]], Mapping[str, str] | None],
        has_result: Callable[[str], bool],
        *,
        grace: float,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ids, self._ask, self._has_result = list(ids), ask, has_result
        self._grace, self._say, self._clock = grace, say, clock
        self.dead: dict[str, str] = {}  # those without result that are not at work, each with its last state
        self._since: dict[str, float] = {}  # when each of them was first seen so
        self._held: set[str] = set()
        self._ended = self._silences = 0

    def wait(self, every: float, sleep: Callable[[float], None] = time.sleep) -> dict[str, str]:
        """Return those that left no result, each with its last state, once nobody is left to wait for.

        Args:
            every: seconds between two looks; fewer at first.
            sleep: waits some seconds.
        """
        began = self._clock()
        while not self.over():
            sleep(min(every, 1 + (self._clock() - began) / 20))
        return {each: state for each, state in self.dead.items() if not self._has_result(each)}

    def over(self) -> bool:
        """Look once; return whether all have ended."""
        left = [each for each in self._ids if self._has_result(each)]
        without = [each for each in self._ids if each not in left]
        states = self._heard(self._ask(without))
        lasting: list[str] = []
        if states is not None:
            left = [each for each in left if states.get(each) not in ACTIVE - {"COMPLETING"}]
            self._look(without, states)
            lasting = [each for each in self.dead if self._clock() - self._since[each] >= self._grace]
        if len(left) != self._ended:
            self._say(f"{len(left)} of {len(self._ids)} jobs have ended")
            self._ended = len(left)
        return len(left) + len(lasting) == len(self._ids)

    def _look(self, without: Sequence[str], states: Mapping[str, str]) -> None:
        """Note who of those without result is dead, came back, or is held."""
        before = self.dead
        self.dead = {each: states.get(each, GONE) for each in without if states.get(each, GONE) not in ACTIVE}
        self._since = {each: self._since.get(each, self._clock()) for each in self.dead}
        for each, state in self.dead.items():
            if each not in before and self._grace and state != "COMPLETED":  # then the result is on its way
                self._say(f"job {each} is {state}, without result; for {self._grace:g} s it may be requeued")
        for each in before:
            if states.get(each) in ACTIVE:
                self._say(f"job {each} is in the queue again")
        held = {each for each in without if states.get(each) == "HELD"}
        for each in sorted(held - self._held):
            self._say(f"job {each} is held; `scontrol release {each}` lets it go on")
        self._held = held

    def _heard(self, states: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """Return the answer; say where there has been none for some time."""
        if states is not None and self._silences >= _SILENCES:
            self._say("the scheduler answers again")
        self._silences = 0 if states is not None else self._silences + 1
        if self._silences == _SILENCES:
            self._say("the scheduler does not answer; waiting goes on")
        return states
