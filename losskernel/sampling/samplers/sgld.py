"""Stochastic gradient Langevin dynamics (Welling and Teh 2011), localised at the trained weights."""

import math
from typing import Any

from torch import Tensor

from losskernel.sampling.samplers.base import Sampler, check_pull


class SGLD(Sampler):
    """w ← w - ε/2 · (nbeta · ∇L_B(w) + localization · (w - w*)) + √ε · ξ, with ξ ~ N(0, 1).

    On a quadratic well of curvature a = nbeta · h + localization with exact gradients, the stationary
    variance is 1 / (a (1 - ε a / 4)), and the chain is stable for ε a < 4.

    Raises:
        InputError: ε · localization >= 4, where the pull towards w* alone diverges.
    """

    def check_stability(self) -> None:
        """Raise InputError where the pull towards w* alone diverges."""
        check_pull(self.step_size, self.localization)

    def update(self, weight: Tensor, gradient: Tensor, state: dict[str, Any]) -> None:
        """One step of Langevin dynamics, in place."""
        noise = self.noise(weight)
        weight.lerp_(state["start"], self.step_size * self.localization / 2)
        weight.add_(gradient, alpha=-self.step_size * self.nbeta / 2)
        weight.add_(noise, alpha=math.sqrt(self.step_size))
