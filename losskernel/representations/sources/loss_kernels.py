"""Further loss kernels than the run's own: of other localisations, temperatures and checkpoints."""

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
from losskernel.representations.baselines.collect import History
from losskernel.representations.points import LOSS_KERNEL, TRAINED, Placed, sampled_point
from losskernel.representations.sources.checkpoints import Checkpoints, chosen_checkpoints, require_checkpoints
from losskernel.sampling.samplers import resolve_nbeta, select
from losskernel.sampling.step_checks import largest_curvature
from losskernel.traces.loss_traces import LossTraces

# In the run's folder.
KERNELS = "kernels"
# In that: kernels whose chains left the finite numbers, name -> why.
_LEFT_OUT = "left_out.json"
# Step size times steepness, at most; chains are unstable from 4 on.
_STEEPEST = 1.0
_OWN = ("step_size", "nbeta", "localization")
Sample = Callable[[nn.Module, str, Mapping[str, float]], LossTraces]


# Steps of a kernel whose chains left the finite numbers, as parts of what the rule gives: tried in this order.
_SHARES = (1.0, 0.25, 0.0625)


class _Asked(NamedTuple):
    """A kernel to sample."""

    name: str
    file: str
    settings: dict[str, float]  # localization and nbeta
    model: nn.Module
    step: int | None
    trained: bool


@dataclass(frozen=True)
class LossKernels:
    """Loss kernels sampled as the run's own, but for one setting: a localisation γ, an nβ, or the weights.

    The step size is ε min(1, (γ + nβ λ) / (γ' + nβ' λ')), with λ the largest curvature of the training loss at w* and
    λ' at the weights sampled: steps are no larger than the run's own, and no larger beside the steepest direction; and
    at most 1 / (γ' + nβ' λ'), a quarter of what is stable.
    Burn-in, draws and thinning stay, so that a kernel of much weaker localisation, which forgets in 2 / (ε γ') steps,
    may not mix; each has its own diagnosis, and `failed` stands with its settings. Where chains leave the finite
    numbers, steps of a quarter and of a sixteenth are tried; then the kernel is left out and named in `left_out`, and
    the others are placed all the same. Every trace is kept, and an interrupted one continued.

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
        whole = isinstance(self.own, Mapping) and set(self.own) == set(_OWN)
        require(whole, f"points.loss_kernels.own must hold {', '.join(_OWN)} of the run's sampler, got {self.own!r}")
        require_number("points.loss_kernels.own.step_size", self.own["step_size"], above=0)
        require_number("points.loss_kernels.own.localization", self.own["localization"], at_least=0)
        for key in ("localization", "nbeta"):
            _require_numbers(f"points.loss_kernels.{key}", getattr(self, key))
        require_checkpoints("points.loss_kernels.checkpoints", self.checkpoints)

    def check(self, data: Data) -> None:
        """Raise InputError if the run's nbeta is no number, and none by convention."""
        self._nbeta(data)

    def __call__(self, model: nn.Module, data: Data, history: History) -> Iterator[Placed]:
        """Yield "loss kernel, localization γ", "loss kernel, nbeta β" and "loss kernel @ step".

        Raises:
            InputError: the run samples nothing, or no weights were kept of a step.
        """
        sample = history.sample
        if sample is None:
            raise InputError("it samples loss kernels, but schedule=none; choose a schedule, or drop it")
        names = [name for name, weight in model.named_parameters() if weight.is_floating_point()]
        moving = select(names, self.weights, "points.loss_kernels.weights")
        device = next(model.parameters()).device
        steepness = _Steepness(data, moving, device)
        own, trained = self._settings(data), copy.deepcopy(model).cpu()
        lost: dict[str, str] = {}
        for asked in self._asked(trained, history, own):
            before, after = steepness(trained, own), steepness(asked.model, asked.settings)
            step_size = float(self.own["step_size"]) * (before / after if 0 < before < after else 1.0)
            if after > 0:
                step_size = min(step_size, _STEEPEST / after)
            try:
                yield _placed(asked, step_size, sample)
            except DivergenceError as error:
                lost[asked.name] = str(error)
        _write_left_out(history.folder, lost)

    def _asked(self, model: nn.Module, history: History, own: dict[str, float]) -> Iterator[_Asked]:
        for key in ("localization", "nbeta"):
            for value in map(float, getattr(self, key) or ()):
                if value != own[key]:
                    name, file = f"{LOSS_KERNEL}, {key} {value:g}", f"{key}={value:g}"
                    yield _Asked(name, file, own | {key: value}, model, history.step, True)
        for step, network in chosen_checkpoints(history, self.checkpoints, "points.loss_kernels.checkpoints"):
            yield _Asked(f"{LOSS_KERNEL} @ {step}", f"step={step}", own, network, step, False)

    def _settings(self, data: Data) -> dict[str, float]:
        return {"localization": float(self.own["localization"]), "nbeta": self._nbeta(data)}

    def _nbeta(self, data: Data) -> float:
        nbeta = self.own["nbeta"]
        if nbeta == "batch":
            why = "(the run's nbeta is batch, B / ln B)"
            require_integer("points.loss_kernels.batch_size", self.batch_size, at_least=2, why=why)
        found = resolve_nbeta(nbeta, batch_size=self.batch_size or 0, train_size=size(data.train))
        require_number("points.loss_kernels.own.nbeta", found, at_least=0)
        return float(found)


def left_out(folder: Path) -> dict[str, str]:
    """Return the kernels of a run that have no point, since their chains left the finite numbers: name -> why."""
    path = folder / KERNELS / _LEFT_OUT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


class _Steepness:
    """γ + nβ λ of networks, λ found once for each."""

    def __init__(self, data: Data, moving: Sequence[str], device: torch.device) -> None:
        self._data, self._moving, self._device = data, moving, device
        self._known: dict[int, tuple[nn.Module, float]] = {}  # with the network, so that its number stays its own

    def __call__(self, model: nn.Module, settings: Mapping[str, float]) -> float:
        if id(model) not in self._known:
            found = largest_curvature(model, self._data, self._moving, device=self._device)
            self._known[id(model)] = model, max(found, 0.0)
        return settings["localization"] + settings["nbeta"] * self._known[id(model)][1]


def _placed(asked: _Asked, step_size: float, sample: Sample) -> Placed:
    """Sample a kernel.

    Raises:
        DivergenceError: its chains left the finite numbers, with the smallest steps too.
    """
    for number, share in enumerate(_SHARES):
        path = f"{KERNELS}/{asked.file}{f', try {number + 1}' if number else ''}.zarr"
        settings = asked.settings | {"step_size": share * step_size}
        try:
            traces = sample(asked.model, path, settings)
        except DivergenceError:
            if number == len(_SHARES) - 1:
                raise
            continue
        told = settings | {"failed": float(diagnose(traces).verdict == "fail")}
        network = TRAINED if asked.trained else f"step {asked.step}"
        point = sampled_point(traces)
        return Placed(asked.name, point, "loss_kernel", network, asked.step, settings=told, traces=path)
    raise TypeError("there must be a share of the step size to try")


def _require_numbers(key: str, values: Any) -> None:
    if values is None:
        return
    listed = not isinstance(values, (str, int, float))
    require(listed, f"{key} must be a list of numbers or null, got {values!r}; e.g. [100]")
    for value in values:
        require_number(key, value, at_least=0)
    require(len(set(values)) == len(values), f"{key} holds a number twice: {list(values)}; drop one")


def _write_left_out(folder: Path, lost: dict[str, str]) -> None:
    path = folder / KERNELS / _LEFT_OUT
    path.unlink(missing_ok=True)
    if lost:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(lost, indent=1), encoding="utf-8")
