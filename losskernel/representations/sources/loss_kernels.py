"""Further sampled loss kernels: of other localisations, temperatures and checkpoints than the run's own."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn

from losskernel.data.base import Data, size
from losskernel.errors import DivergenceError, InputError, require, require_integer, require_number
from losskernel.kernel.diagnosis.diagnose import diagnose
from losskernel.representations.evaluation import device_of, float_weights
from losskernel.representations.history import Checkpoints, History, require_checkpoints
from losskernel.representations.points.point_set import LOSS_KERNEL, TRAINED, NamedPoint, sampled_point
from losskernel.representations.sources.analytic_kernels import require_distinct
from losskernel.sampling.samplers import resolve_nbeta, select
from losskernel.sampling.step_checks import largest_curvature
from losskernel.traces.loss_traces import LossTraces

KERNELS = "kernels"  # in the run's folder
# In that: kernels whose chains diverged, name -> why.
_LEFT_OUT = "left_out.json"
# Bound on step size times curvature of the potential; chains are unstable from 4 on.
_STEEPEST = 1.0
# Step sizes of a kernel whose chains diverge, as shares of what the rule gives: tried in this order.
_SHARES = (1.0, 0.25, 0.0625)
_RUN_KEYS = ("step_size", "nbeta", "localization")
Sample = Callable[[nn.Module, str, Mapping[str, float]], LossTraces]


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
        settings, trained = self._settings(data), copy.deepcopy(model).cpu()
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
        _write_left_out(history.folder, diverged)

    def _jobs(self, model: nn.Module, history: History, settings: dict[str, float]) -> Iterator[_Job]:
        for key in ("localization", "nbeta"):
            for value in map(float, getattr(self, key) or ()):
                if value != settings[key]:  # else it would be the run's kernel again
                    name, file = f"{LOSS_KERNEL}, {key} {value:g}", f"{key}={value:g}"
                    yield _Job(name, file, settings | {key: value}, model, TRAINED, history.step)
        for step, network in history.selected(self.checkpoints, "points.loss_kernels.checkpoints"):
            yield _Job(f"{LOSS_KERNEL} @ {step}", f"step={step}", settings, network, f"step {step}", step)

    def _settings(self, data: Data) -> dict[str, float]:
        return {"localization": float(self.own["localization"]), "nbeta": self._nbeta(data)}

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


def _write_left_out(folder: Path, diverged: dict[str, str]) -> None:
    path = folder / KERNELS / _LEFT_OUT
    path.unlink(missing_ok=True)  # of an earlier job, whose kernels may have succeeded by now
    if diverged:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(diverged, indent=1), encoding="utf-8")
