"""Overdamped Langevin dynamics, localised at the trained weights: SGLD, plain and preconditioned."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from losskernel.errors import require, require_number
from losskernel.sampling.samplers.base import Noise, Sampler, check_pull


class SGLD(Sampler):
    """w ← w - ε/2 · (nbeta · ∇L_B(w) + localization · (w - w*)) + √ε · ξ, with ξ ~ N(0, 1).

    On a quadratic well of curvature a = nbeta · h + localization with exact gradients, the stationary
    variance is 1 / (a (1 - ε a / 4)), and the chain is stable for ε a < 4.

    Raises:
        InputError: ε · localization >= 4, where the pull towards w* alone diverges.

    Source: Welling and Teh 2011.
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


class RMSpropSGLD(Sampler):
    """SGLD preconditioned by a running mean of squared gradients.

    w ← w - ε/2 · G (nbeta · g + localization (w - w*)) + √(ε G) · ξ, with G = 1 / (√v̂ + δ).

    v ← α v + (1 - α) g² with g the raw minibatch gradient of the mean loss: neither nbeta nor the
    localisation enters it. The divergence term of G is omitted, as in the papers and in peers.

    Args:
        smoothing: α, the memory of v, in [0, 1).
        damping: δ > 0, the largest G is 1/δ.
        variant: "published" starts v at 1 and corrects the bias, v̂ = v / (1 - α^t); "devinterp" starts v
            at 0 without correction. They differ for about the first thousand steps.

    Raises:
        InputError: a setting is out of range.

    Source: Li et al. 2016; arXiv 2507.21449.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        step_size: float,
        nbeta: float,
        localization: float,
        smoothing: float = 0.99,
        damping: float = 0.1,
        variant: str = "published",
        parameters: Sequence[str] | None = None,
        noise: Noise = torch.randn_like,
    ) -> None:
        require_number("sampler.smoothing", smoothing, at_least=0)
        require(smoothing < 1, f"sampler.smoothing must be < 1, got {smoothing}; the papers use 0.99")
        require_number("sampler.damping", damping, above=0)
        known = ("published", "devinterp")
        require(variant in known, f"sampler.variant must be one of {known}, got {variant!r}")
        self.smoothing, self.damping, self.variant = float(smoothing), float(damping), variant
        super().__init__(
            params, step_size=step_size, nbeta=nbeta, localization=localization, parameters=parameters, noise=noise
        )
        for weight in self._weights():
            initial = torch.ones_like if variant == "published" else torch.zeros_like
            self.state[weight]["square"] = initial(weight.detach())
            self.state[weight]["step"] = 0

    def update(self, weight: Tensor, gradient: Tensor, state: dict[str, Any]) -> None:
        """One preconditioned step, in place."""
        noise = self.noise(weight)
        state["square"].mul_(self.smoothing).addcmul_(gradient, gradient, value=1 - self.smoothing)
        state["step"] += 1
        scale = self.preconditioner(weight, state)
        drift = (weight - state["start"]).mul_(self.localization).add_(gradient, alpha=self.nbeta)
        weight.addcmul_(scale, drift, value=-self.step_size / 2)
        weight.addcmul_(scale.sqrt_(), noise, value=math.sqrt(self.step_size))

    def preconditioner(self, weight: Tensor, state: dict[str, Any]) -> Tensor:
        """Return G = 1 / (√v̂ + δ)."""
        unbiased = self.variant == "published" and state["step"] > 0
        correction = 1 - self.smoothing ** state["step"] if unbiased else 1.0
        return (state["square"] / correction).sqrt_().add_(self.damping).reciprocal_()
