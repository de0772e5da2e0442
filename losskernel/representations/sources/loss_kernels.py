"""Kernels of the probes' losses as points: in closed form, and further sampled ones.

Closed forms are those of loss gradients and of the Laplace approximation; sampled kernels are of other localisations,
temperatures and checkpoints than the run's own.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from losskernel.data.base import Data, size
from losskernel.data.loading import BlockLoader
from losskernel.errors import DivergenceError, InputError, require, require_integer, require_number
from losskernel.geometry import Point
from losskernel.kernel.diagnosis.diagnose import diagnose
from losskernel.representations.evaluation import (
    Checkpoints,
    History,
    device_of,
    float_weights,
    gradients_one_by_one,
    gradients_side_by_side,
    require_checkpoints,
)
from losskernel.representations.laplace import gram_by_blocks, laplace_kernel
from losskernel.representations.points.point_set import LOSS_KERNEL, TRAINED, NamedPoint, sampled_point
from losskernel.sampling.engine.stacked_model import stackable
from losskernel.sampling.samplers import resolve_nbeta, select
from losskernel.sampling.step_checks import largest_curvature
from losskernel.traces.loss_traces import LossTraces

# Numbers in one block of gradients, of which two are held at once: 1 GB of single precision.
_NUMBERS = 2**27
# Weights up to which gradients are taken in double precision, on the CPU.
_SMALL = 1_000_000
_TOGETHER = 64  # samples that are differentiated side by side
KERNELS = "kernels"  # in the run's folder
# In that: kernels whose chains diverged, name -> why.
_LEFT_OUT = "left_out.json"
# Bound on step size times curvature of the potential; chains are unstable from 4 on.
_STEEPEST = 1.0
# Step sizes of a kernel whose chains diverge, as shares of what the rule gives: tried in this order.
_SHARES = (1.0, 0.25, 0.0625)
_RUN_KEYS = ("step_size", "nbeta", "localization")
Sample = Callable[[nn.Module, str, Mapping[str, float]], LossTraces]


@dataclass(frozen=True)
class Gradients:
    """The Gram matrix <∇l_i, ∇l_j> of each probe's own loss gradient, at the trained weights and at checkpoints.

    As the localisation γ grows the loss kernel tends to it, times 1 / γ. Gradients are exact, without a sketch; those
    that do not fit into memory together are recomputed for every pair of blocks of probes. Networks up to a million
    weights are differentiated in double precision.

    Attributes:
        weights: globs over the names of the weights, as of those that the sampler moves; None takes all.
        checkpoints: all, none or steps: weights kept along training that have a point too.
    """

    weights: Sequence[str] | None = None
    checkpoints: Checkpoints = "none"

    gives: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def __post_init__(self) -> None:
        listed = self.weights is None or (not isinstance(self.weights, str) and len(self.weights) > 0)
        require(listed, f"points.gradients.weights must be a list of globs or null, got {self.weights!r}")
        require_checkpoints("points.gradients.checkpoints", self.checkpoints)

    def __call__(self, model: nn.Module, data: Data, history: History) -> Iterator[NamedPoint]:
        """Yield "gradients", and "gradients @ step" of each checkpoint.

        Raises:
            InputError: a glob matches no weight, no weights were kept of a step, or a gradient is not finite.
        """
        yield NamedPoint("gradients", self._point(model, data), "gradient", TRAINED, history.step)
        for step, network in history.selected(self.checkpoints, "points.gradients.checkpoints"):
            point = self._point(network.to(device_of(model)), data)
            yield NamedPoint(f"gradients @ {step}", point, "gradient", f"step {step}", step)

    def _point(self, model: nn.Module, data: Data) -> Point:
        names = list(float_weights(model, "drop the source points.gradients"))
        return gradient_point(model, data, select(names, self.weights, "points.gradients.weights"))


@dataclass(frozen=True)
class Laplace:
    """The Laplace kernel at the trained weights, of one or several strengths of localisation.

    Attributes:
        localization: γ, one per kernel.
        nbeta: nβ, or "train" for n/ln n.
        hessian: of the training loss: "ggn", its Gauss-Newton part, or "exact".
        order: of the losses' expansion, 1 or 2.
        weights: globs over the names of the weights that move; None takes all.
        rank: leading eigenpairs of the Hessian; None: all up to 3,000 moving weights, 100 beyond.
        seed: of the iteration that finds them.
    """

    localization: Sequence[float]
    nbeta: float | str
    hessian: str = "ggn"
    order: int = 2
    weights: Sequence[str] | None = None
    rank: int | None = None
    seed: int = 0

    gives: ClassVar[frozenset[str]] = frozenset({"laplace"})

    def __post_init__(self) -> None:
        require_distinct("points.laplace.localization", self.localization, above=0)
        require(len(self.localization) > 0, "points.laplace.localization must be a list of numbers, got []; e.g. [100]")
        if self.nbeta != "train":
            number = not isinstance(self.nbeta, str)
            remedy = "there are no minibatches here; set points.laplace.nbeta=100"
            require(number, f"points.laplace.nbeta must be a number or train (n/ln n), got {self.nbeta!r}; {remedy}")
            require_number("points.laplace.nbeta", self.nbeta, at_least=0)
        kinds = ("ggn", "exact")
        require(self.hessian in kinds, f"points.laplace.hessian must be one of {kinds}, got {self.hessian!r}")
        require(self.order in (1, 2), f"points.laplace.order must be 1 or 2, got {self.order!r}; take order=2")
        if self.rank is not None:
            require_integer("points.laplace.rank", self.rank, at_least=1)

    def __call__(self, model: nn.Module, data: Data, history: History) -> Iterator[NamedPoint]:
        """Yield "Laplace kernel", or "Laplace kernel, localization γ" for each of several.

        Raises:
            InputError: nβ H + γ I is not positive definite, or the loss is not convex in the outputs.
        """
        # There are no minibatches: any batch size resolves a number or "train" alike.
        nbeta = float(resolve_nbeta(self.nbeta, batch_size=1, train_size=size(data.train)))
        fixed: dict[str, Any] = {name: getattr(self, name) for name in ("hessian", "order", "rank", "seed")}
        fixed |= {"nbeta": nbeta, "parameters": self.weights}
        for localization in map(float, self.localization):
            kernel = laplace_kernel(model, data, localization=localization, **fixed)
            suffix = "" if len(self.localization) == 1 else f", localization {localization:g}"
            settings = {"localization": localization, "nbeta": nbeta}
            point = Point.from_gram(kernel.covariance(), data.ids)  # [N, N]
            yield NamedPoint(f"Laplace kernel{suffix}", point, "laplace", TRAINED, history.step, settings=settings)


def require_distinct(key: str, values: Any, above: float | None = None, at_least: float | None = None) -> None:
    """Raise InputError unless values are a list of numbers within a bound, without repetitions."""
    listed = not isinstance(values, (str, int, float))
    require(listed, f"{key} must be a list of numbers, got {values!r}; e.g. [100]")
    for value in values:
        require_number(key, value, above=above, at_least=at_least)
    require(len(set(values)) == len(values), f"{key} holds a number twice: {list(values)}; drop one")


def gradient_point(model: nn.Module, data: Data, moving: Sequence[str], numbers: int = _NUMBERS) -> Point:
    """Return the Gram matrix of the probes' loss gradients in some weights, in evaluation mode; nothing is centred.

    Args:
        model: never changed.
        data: whose probes and loss.
        moving: names of the weights.
        numbers: in one block of gradients; two blocks are held at once.

    Raises:
        InputError: a gradient is not finite.
    """
    network = _ProbeGradients(model, data, moving)
    block = max(1, numbers // network.size)
    gram = gram_by_blocks(size(data.probes), block, network.gradients, lambda left, right: left @ right.T)
    return Point.from_gram(gram, data.ids)


class _ProbeGradients:
    """Gradients of the probes' losses in `size` moving weights, in a copy of the network in evaluation mode."""

    def __init__(self, model: nn.Module, data: Data, moving: Sequence[str]) -> None:
        self._data, self._model = data, copy.deepcopy(model).eval().requires_grad_(False)
        # Gradients of a converged network nearly cancel: double precision where it costs little.
        if sum(weight.numel() for weight in model.parameters()) <= _SMALL:
            self._model = self._model.cpu().double()
        named = dict(self._model.named_parameters())
        self._weights = {name: named[name] for name in moving}
        self._dtype, self._device = named[moving[0]].dtype, named[moving[0]].device
        self.size = sum(weight.numel() for weight in self._weights.values())
        self._stackable = stackable(model)

    def gradients(self, block: slice) -> Tensor:
        """Return the gradients [n, size] of a block of probes."""
        probes = range(size(self._data.probes))[block]
        rows, done = torch.empty(len(probes), self.size, dtype=self._dtype, device=self._device), 0
        subset = Subset(self._data.probes, list(probes))
        for inputs, targets in BlockLoader(subset, _TOGETHER, self._data.workers, self._device):
            self._fill(rows[done : done + len(inputs)], self._typed(inputs), self._typed(targets))
            done += len(inputs)
        finite = rows.isfinite().all(dim=1)  # [n]
        first = probes[int((~finite).int().argmax())]
        require(bool(finite.all()), f"the loss gradient of probe {first} is not finite; check the weights and the loss")
        return rows

    def _fill(self, rows: Tensor, inputs: Tensor, targets: Tensor) -> None:
        """Write the gradients of a block of samples into rows [b, size], without a second copy of the block."""
        model, loss = self._model, self._data.loss
        if self._stackable:  # else convolutions, which are slower side by side
            parts = gradients_side_by_side(model, loss, self._weights, inputs, targets)
            torch.cat([part.flatten(1) for part in parts], dim=1, out=rows)
            return
        gradients = gradients_one_by_one(model, loss, self._weights.values(), inputs, targets)
        for row, parts in zip(rows, gradients, strict=True):
            torch.cat([part.flatten() for part in parts], out=row)

    def _typed(self, values: Tensor) -> Tensor:
        return values.to(self._dtype) if values.is_floating_point() else values


class _Job(NamedTuple):
    """A kernel to sample."""

    name: str
    file: str  # of its traces, without the suffix
    settings: dict[str, float]  # localization and nbeta
    model: nn.Module
    network: str  # as `NamedPoint.network`
    step: int | None


@dataclass(frozen=True)
class LossKernels:
    """Loss kernels sampled as the run's own, but for one setting: a localisation γ, an nβ, or the weights.

    The step size is ε min(1, (γ + nβ λ) / (γ' + nβ' λ')), with λ the largest curvature of the training loss at w* and
    λ' at the weights sampled: steps are no larger than the run's own, and no larger beside the steepest direction; and
    at most 1 / (γ' + nβ' λ'), a quarter of what is stable.
    Burn-in, draws and thinning stay, so that a kernel of much weaker localisation, which forgets in 2 / (ε γ') steps,
    may not mix; each has its own diagnosis, whose verdict its settings hold as `failed`. Where chains diverge, a
    quarter and a sixteenth of the step size are tried; then the kernel is left out and listed in `left_out`, and the
    others are sampled all the same. Every trace is stored, and an interrupted one resumed.

    Attributes:
        own: step_size, nbeta and localization of the run's own sampler; nbeta may be "batch" or "train".
        localization: γ' of each kernel, at the run's nβ; the run's own is not sampled again. None has none.
        nbeta: nβ' of each kernel, at the run's γ; as before.
        checkpoints: all, none or steps: weights kept along training, at the run's settings.
        batch_size: of the run's minibatches, where nbeta is "batch".
        weights: globs over the names of the weights that the run's sampler moves; None means all.
    """

    own: Mapping[str, Any]
    localization: Sequence[float] | None = None
    nbeta: Sequence[float] | None = None
    checkpoints: Checkpoints = "none"
    batch_size: int | None = None
    weights: Sequence[str] | None = None

    gives: ClassVar[frozenset[str]] = frozenset({"loss_kernel"})
    samples: ClassVar[bool] = True

    def __post_init__(self) -> None:
        whole = isinstance(self.own, Mapping) and set(self.own) == set(_RUN_KEYS)
        keys = ", ".join(_RUN_KEYS)
        require(whole, f"points.loss_kernels.own must hold {keys} of the run's sampler, got {self.own!r}")
        require_number("points.loss_kernels.own.step_size", self.own["step_size"], above=0)
        require_number("points.loss_kernels.own.localization", self.own["localization"], at_least=0)
        for key in ("localization", "nbeta"):
            if (values := getattr(self, key)) is not None:
                require_distinct(f"points.loss_kernels.{key}", values, at_least=0)
        require_checkpoints("points.loss_kernels.checkpoints", self.checkpoints)

    def check(self, data: Data) -> None:
        """Raise InputError if the run's nbeta is no number, and none by convention."""
        self._nbeta(data)

    def __call__(self, model: nn.Module, data: Data, history: History) -> Iterator[NamedPoint]:
        """Yield "loss kernel, localization γ", "loss kernel, nbeta β" and "loss kernel @ step".

        Raises:
            InputError: the run samples nothing, or no weights were kept of a step.
        """
        sample = history.sample
        if sample is None:
            raise InputError("it samples loss kernels, but schedule=none; choose a schedule, or drop it")
        # Curvature is that of the weights that move; frozen ones have no part in the chains' stability.
        moving = select(list(float_weights(model)), self.weights, "points.loss_kernels.weights")
        potential_curvature = _PotentialCurvature(data, moving, device_of(model))
        settings = {"localization": float(self.own["localization"]), "nbeta": self._nbeta(data)}
        trained = copy.deepcopy(model).cpu()
        diverged: dict[str, str] = {}
        for job in self._jobs(trained, history, settings):
            # At the run's settings and at the kernel's: steps shrink where the potential is steeper.
            before, after = potential_curvature(trained, settings), potential_curvature(job.model, job.settings)
            step_size = float(self.own["step_size"]) * (before / after if 0 < before < after else 1.0)
            if after > 0:
                step_size = min(step_size, _STEEPEST / after)
            try:
                yield _sampled(job, step_size, sample)
            except DivergenceError as error:
                diverged[job.name] = str(error)
        path = history.folder / KERNELS / _LEFT_OUT
        path.unlink(missing_ok=True)  # of an earlier job, whose kernels may have succeeded by now
        if diverged:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(diverged, indent=1), encoding="utf-8")

    def _jobs(self, model: nn.Module, history: History, settings: dict[str, float]) -> Iterator[_Job]:
        for key in ("localization", "nbeta"):
            for value in map(float, getattr(self, key) or ()):
                if value != settings[key]:  # else it would be the run's kernel again
                    name, file = f"{LOSS_KERNEL}, {key} {value:g}", f"{key}={value:g}"
                    yield _Job(name, file, settings | {key: value}, model, TRAINED, history.step)
        for step, network in history.selected(self.checkpoints, "points.loss_kernels.checkpoints"):
            yield _Job(f"{LOSS_KERNEL} @ {step}", f"step={step}", settings, network, f"step {step}", step)

    def _nbeta(self, data: Data) -> float:
        nbeta = self.own["nbeta"]
        if nbeta == "batch":
            why = "(the run's nbeta is batch, B / ln B)"
            require_integer("points.loss_kernels.batch_size", self.batch_size, at_least=2, why=why)
        number = resolve_nbeta(nbeta, batch_size=self.batch_size or 0, train_size=size(data.train))
        require_number("points.loss_kernels.own.nbeta", number, at_least=0)
        return float(number)


def left_out(folder: Path) -> dict[str, str]:
    """Return the kernels of a run that have no point, since their chains diverged: name -> why."""
    path = folder / KERNELS / _LEFT_OUT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


class _PotentialCurvature:
    """γ + nβ λ of networks, with λ the largest curvature of the training loss, computed once per network."""

    def __init__(self, data: Data, moving: Sequence[str], device: torch.device) -> None:
        self._data, self._moving, self._device = data, moving, device
        # By id of the network, which is held beside: an id may be reused once its object is gone.
        self._known: dict[int, tuple[nn.Module, float]] = {}

    def __call__(self, model: nn.Module, settings: Mapping[str, float]) -> float:
        if id(model) not in self._known:
            curvature = largest_curvature(model, self._data, self._moving, device=self._device)
            self._known[id(model)] = model, max(curvature, 0.0)
        return settings["localization"] + settings["nbeta"] * self._known[id(model)][1]


def _sampled(job: _Job, step_size: float, sample: Sample) -> NamedPoint:
    """Sample a kernel and return its point.

    Raises:
        DivergenceError: its chains diverge with the smallest step size too.
    """
    for number, share in enumerate(_SHARES):
        path = f"{KERNELS}/{job.file}{f', try {number + 1}' if number else ''}.zarr"
        settings = job.settings | {"step_size": share * step_size}
        # Each try has a file of its own, so that a resumed run finds the one that succeeded.
        try:
            traces = sample(job.model, path, settings)
        except DivergenceError:
            if number == len(_SHARES) - 1:
                raise
            continue
        settings |= {"failed": float(diagnose(traces).verdict == "fail")}
        point = sampled_point(traces)
        return NamedPoint(job.name, point, "loss_kernel", job.network, job.step, settings=settings, traces=path)
    raise TypeError("there must be a share of the step size to try")
