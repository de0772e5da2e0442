"""Stochastic gradient Hamiltonian Monte Carlo: Langevin dynamics with momenta, plain and with thermostats."""

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
        return self._transition(curvature, noise)

    def _transition(self, curvature: float, noise: float, shrink: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Return (M, Q) of (w, p) where a further friction takes momenta times `shrink` in every step."""
        half = math.sqrt(self.step_size) / 2
        injected = math.sqrt(shrink * (1 - self.momentum**2))
        # Kick, half drift, p ← kept · p + injected · ξ, half drift.
        drift, refresh = np.array([[1.0, half], [0.0, 1.0]]), np.diag([1.0, shrink * self.momentum])
        after_kick = drift @ refresh @ drift
        transition = after_kick @ np.array([[1.0, 0.0], [-2 * half * curvature, 1.0]])
        kicked, refreshed = after_kick @ [0.0, 2 * half], drift @ [0.0, injected]
        return transition, noise * np.outer(kicked, kicked) + np.outer(refreshed, refreshed)

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


class SGNHT(SGHMC):
    """The stochastic gradient Nosé-Hoover thermostat: SGHMC whose friction grows with the noise it meets; h = √ε.

    A thermostat χ per weight is a further friction that settles where E[p²] = 1.

    p ← p - h (nbeta · ∇L_B(w) + localization · (w - w*));  w ← w + h/2 · p;
    χ ← χ + h (p² - 1) / (2 μ);  p ← e^(-h χ / 2) p;
    p ← m p + √(1 - m²) · ξ, with ξ ~ N(0, 1);
    p ← e^(-h χ / 2) p;  χ ← χ + h (p² - 1) / (2 μ);        w ← w + h/2 · p.

    The continuous dynamics keep p(w) · N(p; 0, 1) · N(χ; h s²/2, 1/μ) exactly where the minibatch noise has a
    constant variance s² in each weight and is independent between weights; steps overcool by a share of order
    ε s² (1 - m), which `stationary_variance` states. Noise of other shape stays hot where it is strong while the
    rest is overcooled: along a direction that many weights share, each thermostat sees only its weight's part.
    χ starts at 0; thermostats of infinite mass give SGHMC. A thermostat on one weight of a harmonic well is not
    ergodic by itself; the friction and noise of `momentum` < 1 make it so.

    Args:
        momentum: m, the share of momentum that a step keeps while χ = 0, in [0, 1).
        thermostat_mass: μ > 0; χ varies by 1/√μ about its mean, and follows the noise the slower the larger μ.

    Raises:
        InputError: a setting is out of range, or ε · localization >= 4.

    Source: Ding et al. 2014, "Bayesian sampling using stochastic gradient thermostats"; a thermostat per
        weight: Gan et al. 2015; splitting with injected friction: Leimkuhler and Shang 2016,
        arXiv 1505.06889.
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
        thermostat_mass: float = 1.0,
        parameters: Sequence[str] | None = None,
        noise: Noise = torch.randn_like,
    ) -> None:
        require_number("sampler.thermostat_mass", thermostat_mass, above=0)
        self.thermostat_mass = float(thermostat_mass)
        super().__init__(
            params,
            step_size=step_size,
            nbeta=nbeta,
            localization=localization,
            momentum=momentum,
            parameters=parameters,
            noise=noise,
        )
        for weight in self._weights():
            self.state[weight]["thermostat"] = torch.zeros_like(weight.detach())

    def update(self, weight: Tensor, gradient: Tensor, state: dict[str, Any]) -> None:
        """One step of the splitting, in place."""
        noise = self.noise(weight)
        momentum, thermostat, half = state["momentum"], state["thermostat"], math.sqrt(self.step_size) / 2
        rate = half / self.thermostat_mass
        self._kick(weight, gradient, state)
        weight.add_(momentum, alpha=half)
        thermostat.addcmul_(momentum, momentum, value=rate).sub_(rate)
        shrink = thermostat.mul(-half).exp_()
        momentum.mul_(shrink).mul_(self.momentum).add_(noise, alpha=math.sqrt(1 - self.momentum**2)).mul_(shrink)
        thermostat.addcmul_(momentum, momentum, value=rate).sub_(rate)
        weight.add_(momentum, alpha=half)

    def transition(self, curvature: float, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Return (M, Q), both [2, 2], of weight and momentum with χ at rest; arguments as in Sampler.

        χ rests where the mean of p² before and after it acts is 1: at 0 without minibatch noise. It varies
        about that value, so this is exact for heavy thermostats and approximate for light ones. Where no
        friction cools the minibatch noise, about ε s² > 2, it is that of infinite friction.
        """
        if noise == 0 or self.step_size * curvature >= 4:
            return self._transition(curvature, noise)
        if self._excess(curvature, noise, 0.0) >= 0:
            return self._transition(curvature, noise, 0.0)
        # Thermostats held at e^(-h χ) = shrink. The excess of E[p²] rises with it: below 0 at 0, and above 0 at 1,
        # where nothing cools the noise.
        from scipy.optimize import brentq

        shrink = brentq(lambda shrink: self._excess(curvature, noise, shrink), 0.0, 1.0, xtol=1e-12)
        return self._transition(curvature, noise, float(shrink))  # pyright: ignore[reportArgumentType]

    def _excess(self, curvature: float, noise: float, shrink: float) -> float:
        """Return by how much E[p²] before and after the friction together exceed 2, thermostats held as above."""
        from scipy.linalg import solve_discrete_lyapunov

        stationary = solve_discrete_lyapunov(*self._transition(curvature, noise, shrink))
        kick = np.array([-math.sqrt(self.step_size) * curvature, 1.0])
        return float(kick @ stationary @ kick + self.step_size * noise + stationary[1, 1] - 2)

    def log_acceptance(self, before: Phase, after: Phase) -> Tensor:
        """Log ratio [C] of a Metropolis test of one step, as for SGHMC with the thermostats' own energy.

        The momentum before and after it is refreshed follows from the states at the step's ends. Scaling by
        e^(-h χ) changes volume, for which the ratio is corrected.
        """
        time = math.sqrt(self.step_size)
        arriving = before.state["momentum"] - time * before.gradient
        departing = after.state["momentum"]
        rate = time / (2 * self.thermostat_mass)
        friction = before.state["thermostat"] + rate * (arriving.square() - 1)
        scale = (-time / 2 * friction).exp()
        refreshing = ((departing / scale).square() - (arriving * scale).square()) / 2
        heat = (departing.square() - arriving.square()) / 2
        stored = self.thermostat_mass / 2 * (after.state["thermostat"].square() - before.state["thermostat"].square())
        cooling = (refreshing - heat - stored - time * friction).sum(1, dtype=wide(after.weight))
        return super().log_acceptance(before, after) + cooling
