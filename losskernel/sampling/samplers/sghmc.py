"""Stochastic gradient Hamiltonian Monte Carlo: Langevin dynamics with momenta, split symmetrically."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from losskernel.errors import require, require_number
from losskernel.sampling.samplers.base import Noise, Phase, Sampler, check_pull, wide


class SGHMC(Sampler):
    """Underdamped Langevin dynamics by the BAOAB splitting, with one gradient a step and h = √ε.

    p ← p - h (nbeta · ∇L_B(w) + localization · (w - w*));  w ← w + h/2 · p;
    p ← m p + √(1 - m²) · ξ, with ξ ~ N(0, 1);              w ← w + h/2 · p.

    Momenta have unit mass and start at 0. Without momentum, m = 0, this is the scheme of Leimkuhler and
    Matthews, w ← w - ε/2 ∇U + √ε (ξ + ξ') / 2, where ξ' is the step before's ξ: an SGLD of the same
    `step_size` whose noise is averaged. With momentum, directions that relax slowly do so as if the step were
    ε (1 + m) / (1 - m).

    On a quadratic well of curvature a = nbeta · h + localization, with minibatch noise of variance s² in the
    gradient of U, the stationary variance is 1/a · (1 + (1 + m) / (1 - m) · ε s² / (4 - ε a)): exact without
    minibatch noise for every stable step, ε a < 4. The noise is amplified as much as the relaxation, so
    momentum helps where steps are limited by curvature, not where they are limited by minibatch noise.

    Args:
        momentum: m, the share of momentum that a step keeps, in [0, 1); friction is -ln(m) / √ε.

    Raises:
        InputError: a setting is out of range, or ε · localization >= 4, where the pull towards w* alone
            diverges.

    Source: Chen, Fox and Guestrin 2014, arXiv 1402.4102; splitting: Leimkuhler and Matthews 2013,
        arXiv 1203.5428.
    """

    order = 2

    def __init__(
        self,
        params: Iterable[Any],
        *,
        step_size: float,
        nbeta: float,
        localization: float,
        momentum: float = 0.5,
        parameters: Sequence[str] | None = None,
        noise: Noise = torch.randn_like,
    ) -> None:
        require_number("sampler.momentum", momentum, at_least=0)
        require(momentum < 1, f"sampler.momentum must be < 1, got {momentum}; lower sampler.momentum")
        self.momentum = float(momentum)
        super().__init__(
            params, step_size=step_size, nbeta=nbeta, localization=localization, parameters=parameters, noise=noise
        )
        for weight in self._weights():
            self.state[weight]["momentum"] = torch.zeros_like(weight.detach())

    def check_stability(self) -> None:
        """Raise InputError where the pull towards w* alone diverges."""
        check_pull(self.step_size, self.localization)

    def update(self, weight: Tensor, gradient: Tensor, state: dict[str, Any]) -> None:
        """One step of the splitting, in place."""
        noise = self.noise(weight)
        momentum, half = state["momentum"], math.sqrt(self.step_size) / 2
        self._kick(weight, gradient, state)
        weight.add_(momentum, alpha=half)
        momentum.mul_(self.momentum).add_(noise, alpha=math.sqrt(1 - self.momentum**2))
        weight.add_(momentum, alpha=half)

    def _kick(self, weight: Tensor, gradient: Tensor, state: dict[str, Any]) -> None:
        """Change the momentum by the force of a whole step."""
        time = math.sqrt(self.step_size)
        momentum = state["momentum"].add_(gradient, alpha=-time * self.nbeta)
        if self.localization > 0:
            momentum.add_(weight - state["start"], alpha=-time * self.localization)

    def transition(self, curvature: float, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Return (M, Q), both [2, 2], of weight and momentum in a quadratic well; arguments as in Sampler."""
        return splitting_transition(
            self.step_size, curvature, noise, kept=self.momentum, injected=math.sqrt(1 - self.momentum**2)
        )

    def log_acceptance(self, before: Phase, after: Phase) -> Tensor:
        """Log ratio [C] of a Metropolis test of one step: minus the energy that refreshing momenta does not explain.

        Energies are compared in the middle of the kicks, where the splitting begins and ends.

        Source: shadow work, Sivak, Chodera and Crooks 2014, arXiv 1301.3800.
        """
        time = math.sqrt(self.step_size)
        arriving = before.state["momentum"] - time * before.gradient  # what was refreshed
        departing = after.state["momentum"]  # what it was refreshed to
        path = (departing * after.gradient + arriving * before.gradient).sum(1, dtype=wide(after.weight))
        ends = (after.gradient.square() - before.gradient.square()).sum(1, dtype=wide(after.weight))
        return before.potential - after.potential + time / 2 * path - self.step_size / 8 * ends


def splitting_transition(
    step_size: float, curvature: float, noise: float, *, kept: float, injected: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return (M, Q), both [2, 2], of (w, p) after kick, half drift, p ← kept · p + injected · ξ, half drift.

    Args:
        step_size: ε; drifts last √ε in all.
        curvature: a, second derivative of U.
        noise: variance of the minibatch noise in the derivative of U.
        kept: factor of the momentum.
        injected: factor of the standard normal ξ.
    """
    half = math.sqrt(step_size) / 2
    drift, refresh = np.array([[1.0, half], [0.0, 1.0]]), np.diag([1.0, kept])
    after_kick = drift @ refresh @ drift
    transition = after_kick @ np.array([[1.0, 0.0], [-2 * half * curvature, 1.0]])
    kicked, refreshed = after_kick @ [0.0, 2 * half], drift @ [0.0, injected]
    return transition, noise * np.outer(kicked, kicked) + np.outer(refreshed, refreshed)
