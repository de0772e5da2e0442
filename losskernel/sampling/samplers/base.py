"""The base of all samplers: target distribution, settings, start weights, behaviour in a quadratic well."""

import math
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from losskernel.errors import require, require_number

Noise = Callable[[Tensor], Tensor]


class Phase(NamedTuple):
    """Stacked chains before or after a step, for its acceptance; U = nbeta · L_B + localization/2 · |w - w*|²."""

    weight: Tensor  # [C, P]
    gradient: Tensor  # [C, P], of U
    potential: Tensor  # [C], U
    state: dict[str, Any]  # copy of the sampler's state of the weight


class Sampler(Optimizer):
    """A transition kernel for p(w) ∝ exp(-nbeta · L(w) - localization/2 · |w - w*|²).

    L is the mean training loss, whose minibatch gradient the caller leaves in `.grad`; w* are the weights
    at construction. The update is elementwise, so weights of many chains may be stacked in one tensor.

    Attributes:
        order: q: stationary means of the weights are off by O(ε^q) with exact gradients, other settings fixed.

    Args:
        params: tensors, or (name, tensor) pairs as `model.named_parameters()` gives them.
        step_size: ε > 0.
        nbeta: nβ >= 0, inverse temperature times sample size; multiplies the MEAN loss. 0 switches the
            loss off (the null control).
        localization: γ >= 0, strength of the pull towards w*.
        parameters: globs over parameter names; only matching weights move. Needs (name, tensor) pairs. A run's setup
            chooses its moving weights by them (losskernel/sampling/setup.py) and gives samplers those alone.
        noise: maps a tensor to standard normal numbers of its shape; the caller passes one that draws
            from its own generators.

    Raises:
        InputError: a setting is out of range, or no parameter name matches.

    Source: arXiv 2308.12108 (localised, tempered posterior); arXiv 2509.26537, section 3.2.
    """

    order: ClassVar[int] = 1

    def __init__(
        self,
        params: Iterable[Any],
        *,
        step_size: float,
        nbeta: float,
        localization: float,
        parameters: Sequence[str] | None = None,
        noise: Noise = torch.randn_like,
    ) -> None:
        require_number("sampler.step_size", step_size, above=0)
        require_number("sampler.nbeta", nbeta, at_least=0)
        require_number("sampler.localization", localization, at_least=0)
        self.step_size, self.nbeta, self.localization = float(step_size), float(nbeta), float(localization)
        self.noise = noise
        self.check_stability()
        params = list(params)
        if parameters is not None:
            named = all(isinstance(item, tuple) for item in params)
            require(named, "sampler.parameters needs named weights; pass model.named_parameters()")
            chosen = set(select([name for name, _ in params], parameters))
            params = [item for item in params if item[0] in chosen]
        super().__init__(params, {})
        for weight in self._weights():
            self.state[weight]["start"] = weight.detach().clone()

    def _weights(self) -> list[Tensor]:
        return [weight for group in self.param_groups for weight in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every weight that has a gradient by one step of the chain."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for weight in self._weights():
            if weight.grad is not None:
                self.update(weight, weight.grad, self.state[weight])
        return loss

    def check_stability(self) -> None:
        """Raise InputError where the settings alone make the chain diverge."""

    def preconditioner(self, weight: Tensor, state: dict[str, Any]) -> Tensor:
        """Return G, the factor of each weight's step size, from the state; `transition` holds for w / √G."""
        return torch.ones_like(weight)

    @property
    def is_preconditioned(self) -> bool:
        """Whether steps differ from weight to weight."""
        return type(self).preconditioner is not Sampler.preconditioner

    def transition(self, curvature: float, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Return (M, Q) of the chain x' = M x + N(0, Q) that one coordinate follows in a quadratic well.

        Its stationary moments and relaxation time follow. The first entry of x is the weight. This is the
        transition of overdamped Langevin steps; samplers with momenta override it.

        Args:
            curvature: a, second derivative of U = nbeta · L + localization/2 · |w - w*|².
            noise: variance of the minibatch noise in the derivative of U.
        """
        step = self.step_size
        return np.array([[1 - step * curvature / 2]]), np.array([[step + step**2 * noise / 4]])

    def stationary_variance(self, curvature: float, noise: float = 0.0) -> float:
        """Variance of one coordinate of a quadratic well, with discretisation and minibatch noise; inf: unstable."""
        transition, noises = self.transition(curvature, noise)
        if np.abs(np.linalg.eigvals(transition)).max() >= 1:
            return math.inf
        # S = M S Mᵀ + Q
        from scipy.linalg import solve_discrete_lyapunov

        return float(solve_discrete_lyapunov(transition, noises)[0, 0])

    def relaxation_steps(self, curvature: float) -> float:
        """Steps in which a direction of that curvature forgets its start by a factor e; inf: never."""
        radius = float(np.abs(np.linalg.eigvals(self.transition(curvature)[0])).max())
        return math.inf if radius >= 1 else -1 / math.log(radius) if radius > 0 else 0.0

    def log_acceptance(self, before: Phase, after: Phase) -> Tensor:
        """Log ratio [C] of the Metropolis acceptance of one step: 0 where the step leaves the target invariant.

        Source: the Metropolis-adjusted Langevin algorithm, Roberts and Tweedie 1996.
        """
        # log p(w') q(w | w') - log p(w) q(w' | w), with q the normal proposal of mean w - ε/2 G ∇U and variance ε G.
        scale = self.preconditioner(after.weight, after.state)
        moved = after.weight - before.weight
        forth = moved + self.step_size / 2 * scale * before.gradient
        back = -moved + self.step_size / 2 * scale * after.gradient
        proposals = ((forth.square() - back.square()) / (2 * self.step_size * scale)).sum(1, dtype=wide(after.weight))
        return before.potential - after.potential + proposals

    def update(self, weight: Tensor, gradient: Tensor, state: dict[str, Any]) -> None:
        """Move one tensor in place, given the gradient of the mean loss."""
        raise TypeError(f"{type(self).__name__} must define update(weight, gradient, state)")


def wide(tensor: Tensor) -> torch.dtype:
    """Return the type in which long sums are kept: float64, where the device has it."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def check_pull(step_size: float, localization: float) -> None:
    """Raise InputError unless ε · localization < 4, beyond which the pull towards w* alone diverges."""
    require(
        step_size * localization < 4,
        "sampler.step_size * sampler.localization must be < 4, got "
        f"{step_size:g} * {localization:g}; lower sampler.step_size or sampler.localization",
    )


def select(names: Sequence[str], globs: Sequence[str] | str | None, key: str = "sampler.parameters") -> list[str]:
    """Return the names that match any of the globs, in the order of `names`; all of them for None.

    key: name of the globs in messages.

    Raises:
        InputError: a glob matches no name.
    """
    if globs is None:
        return list(names)
    globs = [globs] if isinstance(globs, str) else list(globs)
    for glob in globs:
        matches = any(fnmatchcase(name, glob) for name in names)
        require(matches, f"{key}: {glob!r} matches no weight; the names are {', '.join(names)}")
    require(len(globs) > 0, f"{key} is an empty list; leave it null to move every weight")
    return [name for name in names if any(fnmatchcase(name, glob) for glob in globs)]


def resolve_nbeta(nbeta: float | str, *, batch_size: int, train_size: int) -> float:
    """Return nβ as a number: itself, or a convention by name.

    "batch" is B / ln B with B the minibatch (devinterp's convention); "train" is n / ln n with n the
    training set (arXiv 2308.12108).

    Raises:
        InputError: the name is unknown, or the size is 1, where ln is 0.
    """
    if not isinstance(nbeta, str):
        return nbeta
    sizes = {"batch": batch_size, "train": train_size}
    require(
        nbeta in sizes,
        f"sampler.nbeta must be a number, 'batch' (B/ln B) or 'train' (n/ln n), got {nbeta!r}; e.g. sampler.nbeta=100",
    )
    size = sizes[nbeta]
    require(size >= 2, f"sampler.nbeta={nbeta} needs at least 2 samples, got {size}; give a number")
    return size / math.log(size)
