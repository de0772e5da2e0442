"""Where the chains of one kernel stand, and how long the rest of it takes."""

from collections.abc import Sequence
from dataclasses import dataclass

from losskernel.sampling.schedule import Schedule


@dataclass(frozen=True)
class Standing:
    """A stack of chains at work; the chains before it have all their draws.

    Attributes:
        schedule: lengths.
        first: number of the kernel's first chain.
        chains: numbers of this stack's.
        step: steps that these have taken.
    """

    schedule: Schedule
    first: int
    chains: Sequence[int]
    step: int

    @property
    def own_draws(self) -> int:
        """Draws of each chain of this stack."""
        return max(0, self.step - self.schedule.burn_in) // self.schedule.thinning

    @property
    def draws(self) -> int:
        """Draws of all chains, stacks that are done among them."""
        return (self.chains[0] - self.first) * self.schedule.draws + len(self.chains) * self.own_draws

    @property
    def of(self) -> int:
        """Draws of all chains in the end."""
        return self.schedule.chains * self.schedule.draws

    @property
    def burning_in(self) -> bool:
        """Whether draws have not begun."""
        return self.step < self.schedule.burn_in

    def left(self, step: float, draw: float, judging: float, after: int) -> float:
        """Return the seconds that are left, stacks to come counted by their chains.

        Args:
            step: seconds a step of burn-in.
            draw: seconds from a draw to the next.
            judging: seconds of judging this stack.
            after: further kernels that cost the same.
        """
        schedule, count = self.schedule, len(self.chains)
        own = max(0, schedule.burn_in - self.step) * step + (schedule.draws - self.own_draws) * draw + judging
        stack = schedule.burn_in * step + schedule.draws * draw + judging
        later = self.first + schedule.chains - 1 - self.chains[-1]
        return own + stack * (later + after * schedule.chains) / count

    def __str__(self) -> str:
        last = self.first + self.schedule.chains - 1
        own = f"chains {self.chains[0]}-{self.chains[-1]}" if len(self.chains) > 1 else f"chain {self.chains[0]}"
        if self.first == 0:
            return f"{own} of {self.schedule.chains}"
        return own if len(self.chains) == self.schedule.chains else f"{own} of {self.first}-{last}"
