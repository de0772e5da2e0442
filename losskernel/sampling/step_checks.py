"""Checks of the step size, once per chain at its last draw: curvature, minibatch noise, Metropolis acceptance.

They are measured here, and held against bounds in `losskernel/kernel/diagnosis/screens.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from losskernel.data.base import Data, size
from losskernel.data.global_state import with_own_state
from losskernel.data.loading import MinibatchIndices, MinibatchLoader, generator
from losskernel.models.evaluation_copy import unwrapped
from losskernel.sampling.engine.plain_model import choose_route
from losskernel.sampling.engine.stacked_model import StackedModel
from losskernel.sampling.samplers.base import Phase, Sampler, wide
from losskernel.sampling.setup import Schedule

Minibatch = tuple[Tensor, Tensor]
_Item = TypeVar("_Item")
_BATCH = 256  # samples of one Hessian product at w*
_LENGTH = 1e-3  # of the steps between gradients whose difference is a Hessian product; 1e-2 is off by a tenth


class Effort(NamedTuple):
    """What a chain's step checks measure."""

    batches: int  # over which the noise of the gradient is measured
    samples: int  # over which the curvature is measured
    iterations: int  # of power iteration
    steps: int  # whose acceptance is averaged
    product: int  # gradients that a Hessian product costs

    def minibatches(self, batch_size: int) -> int:
        """Return over how many minibatches the curvature is measured."""
        return min(self.batches, max(1, self.samples // batch_size))

    def gradients(self, batch_size: int) -> int:
        """Return the approximate cost, in gradients of a minibatch."""
        return self.batches + self.product * self.iterations * self.minibatches(batch_size) + 2 * self.steps


STACKED = Effort(batches=16, samples=512, iterations=15, steps=20, product=4)
# Started from a gradient, which lies mostly along steep directions, fewer iterations are enough: a trained
# Inception-v1's eigenvalue is accurate to 0.1 % after three.
LONE = Effort(batches=16, samples=256, iterations=5, steps=10, product=2)
# However short the chains: with less, numbers of power iteration would mean nothing.
_LEAST_STACKED = Effort(batches=8, samples=128, iterations=8, steps=8, product=4)
_LEAST_LONE = Effort(batches=4, samples=1, iterations=3, steps=4, product=2)
_PARTS = 64  # between the least and the whole effort


def effort_for(stack: StackedModel, schedule: Schedule, probes: int) -> Effort:
    """Return the effort of the step checks of a stack's chains: what `schedule.step_check_share` leaves room for.

    Counted in gradients, not in seconds, so that the same settings measure the same.
    """
    whole, least = (LONE, _LEAST_LONE) if stack.lone else (STACKED, _LEAST_STACKED)
    # A sample's gradient costs about as much as three forward passes; of large networks up to five (EfficientNet-Lite0;
    # SqueezeNet 3.4).
    passes = 5 if stack.lone else 3
    sampling = schedule.steps + schedule.draws * probes / (passes * schedule.batch_size)
    for part in range(_PARTS, -1, -1):
        effort = Effort(*(low + (high - low) * part // _PARTS for low, high in zip(least, whole, strict=True)))
        if effort.gradients(schedule.batch_size) <= schedule.step_check_share * sampling:
            return effort
    return least


@dataclass(frozen=True)
class StepChecks:
    """Measures at the weights [C, P] whether the steps are small enough: curvature, minibatch noise, acceptance.

    U = nbeta · L + localization/2 · |w - w*|², in the coordinates w / √G in which the sampler is plain Langevin.
    Takes long: `check_interrupt` is called before each evaluation and may raise. The weights move on.
    """

    stack: StackedModel
    weights: Tensor
    start: Tensor
    sampler: Sampler
    effort: Effort
    minibatches: Callable[[], Minibatch]
    noise: Callable[[Tensor], Tensor]
    check_interrupt: Callable[[], None] = lambda: None

    @torch.no_grad()
    def measured(self) -> dict[str, Tensor]:
        """Return the checks, each [C], float64, finite.

        Returns:
            curvature: largest eigenvalue of U's Hessian (power iteration on a few hundred training samples).
            minibatch_variance: of U's minibatch gradient along that direction.
            step_inflation: factor by which both make that direction's variance larger than the target's.
            acceptance: mean Metropolis acceptance of further steps, each on one minibatch: discretisation alone.
            relaxation_rate: e-folds a step by which a direction without curvature of its own forgets, 0 for γ = 0.
        """
        stack, weights, sampler = self.stack, self.weights, self.sampler
        scale = sampler.preconditioner(weights, sampler.state[weights]).sqrt()  # √G, [C, P]
        batches = [self.minibatches() for _ in self._interruptible(range(self.effort.batches))]
        direction, curvature = self._steepest(scale, batches)
        views = stack.views(weights)
        slopes = [
            (scale * sampler.nbeta * stack.gradient(views, *batch)[0] * direction).sum(1)
            for batch in self._interruptible(batches)
        ]
        variance = torch.stack(slopes).var(0)
        # Each chain's stationary variance over the target's, 1 / a; 1 without a well, a <= 0.
        pairs = zip(curvature.tolist(), variance.tolist(), strict=True)
        inflation = [a * sampler.stationary_variance(a, noise) if a > 0 else 1.0 for a, noise in pairs]
        # Of each chain's direction of median G whose only curvature is the localization.
        flattest = (scale.square().median(dim=1).values * sampler.localization).tolist()
        rates = [1 / steps if (steps := sampler.relaxation_steps(a)) > 0 else 1.0 for a in flattest]
        checks = {
            "curvature": curvature,
            "minibatch_variance": variance,
            "step_inflation": torch.tensor(inflation),
            "acceptance": self._acceptance(),
            "relaxation_rate": torch.tensor(rates),
        }
        largest = torch.finfo(torch.float32).max  # a trace holds finite numbers only
        finite = {name: values.cpu().double().nan_to_num(nan=largest) for name, values in checks.items()}
        return {name: values.clamp(max=largest) for name, values in finite.items()}

    def _steepest(self, scale: Tensor, batches: list[Minibatch]) -> tuple[Tensor, Tensor]:
        """Return the direction [C, P] of U's largest curvature and that curvature [C], by power iteration."""
        stack, weights, sampler, vector = self.stack, self.weights, self.sampler, self.noise(self.weights)
        effort = self.effort
        if stack.lone:
            vector = _beside_gradient(scale * stack.gradient(stack.views(weights), *batches[0])[0], vector)
        batches = batches[: effort.minibatches(batches[0][0].shape[1])]
        self.check_interrupt()
        hessian = _hessian(stack, weights, batches[0])

        def product(vector: Tensor) -> Tensor:
            moved = scale * vector
            narrow, checked = moved.to(weights.dtype), self._interruptible(batches)
            loss = sum(hessian(batch, narrow).to(wide(weights)) for batch in checked) / len(batches)
            return scale * (sampler.nbeta * loss + sampler.localization * moved)

        # In a wide type, so that rounding of a chain's sums does not depend on how many chains are stacked.
        return power_iteration(product, vector.to(wide(weights)), effort.iterations)

    def _acceptance(self) -> Tensor:
        """Return the mean acceptance [C] of further steps, which move the chains: no draw follows."""
        weights, sampler, views = self.weights, self.sampler, self.stack.views(self.weights)

        def phase(batch: Minibatch) -> tuple[Phase, Tensor]:
            gradient, loss = self.stack.gradient(views, *batch)
            away = weights - self.start
            pull = sampler.localization / 2 * away.square().sum(1, dtype=wide(weights))
            drift = sampler.nbeta * gradient + sampler.localization * away
            kept = sampler.state[weights]
            state = {key: value.clone() if isinstance(value, Tensor) else value for key, value in kept.items()}
            return Phase(weights.clone(), drift, sampler.nbeta * loss.to(pull.dtype) + pull, state), gradient

        accepted = []
        for _ in self._interruptible(range(self.effort.steps)):
            batch = self.minibatches()
            before, weights.grad = phase(batch)
            sampler.step()
            self.check_interrupt()
            after, _ = phase(batch)
            accepted.append(sampler.log_acceptance(before, after).clamp(max=0).exp().nan_to_num(nan=0.0))
        return torch.stack(accepted).mean(0)

    def _interruptible(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Yield the items, with a look for signals before each."""
        for item in items:
            self.check_interrupt()
            yield item


def _beside_gradient(gradient: Tensor, noise: Tensor) -> Tensor:
    """Return directions [C, P] from which a few power iterations reach a large network's steepest direction.

    Not the gradient exactly, which may be orthogonal to it.
    """
    return gradient + 0.1 * gradient.norm().clamp_min(1e-20) / noise.norm() * noise


def _hessian(stack: StackedModel, weights: Tensor, batch: Minibatch) -> Callable[[Minibatch, Tensor], Tensor]:
    """Return a function that applies the loss's Hessian to directions [C, P].

    By central differences of one large network, two gradients a product where double backward takes three to five, and
    where an operation has no second derivative; else exactly.
    """
    views = stack.views(weights)

    def exact(batch: Minibatch, direction: Tensor) -> Tensor:
        return stack.hessian_product(views, *batch, direction)

    def differences(batch: Minibatch, direction: Tensor) -> Tensor:
        # The weights move by _LENGTH, however the preconditioner scales the direction.
        step = _LENGTH / direction.norm(dim=1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
        ahead = stack.gradient(stack.views(weights + step * direction), *batch)[0].clone()
        return (ahead - stack.gradient(stack.views(weights - step * direction), *batch)[0]) / (2 * step)

    if stack.lone:
        return differences
    try:
        exact(batch, torch.zeros_like(weights))
    except (RuntimeError, NotImplementedError):  # fused operations, attention among them, have no second derivative
        return differences
    return exact


def power_iteration(product: Callable[[Tensor], Tensor], vector: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Return (directions [C, P], eigenvalues [C]) of largest size of C symmetric matrices, from their products."""
    value = vector[:, 0]
    for _ in range(iterations):
        vector = vector / vector.norm(dim=1, keepdim=True).clamp_min(torch.finfo(vector.dtype).tiny)
        image = product(vector)
        value, vector = (vector * image).sum(1), image
    return vector / vector.norm(dim=1, keepdim=True).clamp_min(torch.finfo(vector.dtype).tiny), value


@with_own_state
@torch.no_grad()
def largest_curvature(
    model: nn.Module,
    data: Data,
    moving: Sequence[str],
    *,
    samples: int = 2048,
    iterations: int = 30,
    device: torch.device | str = "cpu",
) -> float:
    """Return λ_max of the Hessian of the mean training loss at the model's weights.

    Args:
        model: the trained network; evaluated in eval mode and never changed.
        data: training set and loss.
        moving: names of the weights.
        samples: training samples at most, drawn once without replacement.
        iterations: of power iteration, from a fixed random start.
        device: where to compute.
    """
    device = torch.device(device)
    batch = min(_BATCH, samples, size(data.train))
    count = max(1, min(samples, size(data.train)) // batch)
    load = MinibatchLoader(data, MinibatchIndices(0, [0], size(data.train), batch), device)
    batches = [load() for _ in range(count)]
    network = unwrapped(model)

    def build(kind: type[StackedModel]) -> StackedModel:
        return kind(network, data.loss, 1, moving).to(device)

    inputs, targets = batches[0]
    stack = build(choose_route(build, batches[0], (inputs[0], targets[0])).model)
    start = stack.start[None].to(device)
    hessian = _hessian(stack, start, batches[0])

    def product(vector: Tensor) -> Tensor:
        return torch.stack([hessian(batch, vector) for batch in batches]).mean(0)

    first = torch.randn(start.shape, generator=generator(0, 0, 0), dtype=start.dtype).to(device)
    if stack.lone:
        first = _beside_gradient(stack.gradient(stack.views(start), *batches[0])[0], first)
    return float(power_iteration(product, first, iterations)[1])
