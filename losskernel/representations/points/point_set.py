"""Named points over one set of probes, and what each of them is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from losskernel.errors import InputError, require
from losskernel.geometry import Arrangement, Point
from losskernel.geometry.point import evenly
from losskernel.representations.activations import MANY
from losskernel.representations.points.arrangement_cache import digest, known_of, write_kept

# input: what the network is given; layer: one of its activations; output: logits and what follows; target: what it is
# to learn; gradient and laplace: kernels in closed form; loss_kernel: a sampled one.
KINDS = ("input", "layer", "output", "target", "gradient", "laplace", "loss_kernel")
# The network that was sampled, at w*.
TRAINED = "trained"
# The run's own sampled kernel; names of others begin with it.
LOSS_KERNEL = "loss kernel"


@dataclass(frozen=True, eq=False)
class Placed:
    """A point and what it is.

    Attributes:
        name: unique among the points; that of a layer of other weights ends with " @ step".
        point: its kernel.
        kind: one of KINDS.
        network: which weights made it: "trained", "step 120" of a kept checkpoint, "" for inputs and targets.
        step: of training, of those weights; None where it is not known, or means nothing.
        place: of layers and outputs, in the order of evaluation; inputs have 0.
        after: names of the points that the operation takes its inputs from: edges of the network's graph.
        settings: of a loss kernel: localization, nbeta, ...
        traces: of a loss kernel, where below the run's folder its draws lie; they are not stored again.
    """

    name: str
    point: Point
    kind: str
    network: str = ""
    step: int | None = None
    place: int = 0
    after: tuple[str, ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)
    traces: str | None = None

    def __post_init__(self) -> None:
        require(self.kind in KINDS, f"the kind of point {self.name!r} must be one of {KINDS}, got {self.kind!r}")

    @property
    def label(self) -> str:
        """The name without its network: the same layer has the same label at every step."""
        return self.name.split(" @ ")[0]


@dataclass(frozen=True, eq=False)
class PointSet:
    """Points over the same probes.

    Attributes:
        placed: the points, in order.
        labels: name -> [N], what is known of each probe.
        folder: where arrangements are kept, so that one more point costs one more row; None keeps none.
    """

    placed: tuple[Placed, ...]
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    folder: Path | None = None

    def __post_init__(self) -> None:
        names = self.names
        twice = sorted({name for name in names if names.count(name) > 1})
        require(not twice, f"points: the name {twice[:1]} stands twice; give every source its own points")

    def __len__(self) -> int:
        return len(self.placed)

    @property
    def names(self) -> list[str]:
        """The points' names, in order."""
        return [each.name for each in self.placed]

    @property
    def ids(self) -> np.ndarray:
        """[N] names of the probes."""
        return self.placed[0].point.ids

    def number(self, name: str) -> int:
        """Return which point has a name.

        Raises:
            InputError: none has.
        """
        if name not in self.names:
            raise InputError(f"there is no point {name!r}; choose from {', '.join(self.names)}")
        return self.names.index(name)

    def of(self, *kinds: str, network: str | None = None) -> list[int]:
        """Return the numbers of the points of some kinds, of one network if it is named."""
        return [
            number
            for number, each in enumerate(self.placed)
            if each.kind in kinds and (network is None or each.network == network)
        ]

    def networks(self) -> list[str]:
        """Return the networks that have layers, in the order of their training steps; the trained one last."""
        steps = {each.network: each.step for each in self.placed if each.kind == "layer"}
        return sorted(steps, key=lambda name: (name == TRAINED, steps[name] or 0))

    def step(self, network: str) -> int | None:
        """Return the training step of a network."""
        return next((each.step for each in self.placed if each.network == network), None)

    def path(self, network: str = TRAINED) -> list[int]:
        """Return the numbers of the points that a network goes through: inputs, layers, outputs, as evaluated."""
        own = sorted(self.of("layer", "output", network=network), key=lambda number: self.placed[number].place)
        return [*self.of("input"), *own]

    def only(self, numbers: Sequence[int]) -> "PointSet":
        """Return some of the points."""
        return replace(self, placed=tuple(self.placed[number] for number in numbers))

    def evenly(self, limit: int) -> "PointSet":
        """Return the points over at most `limit` of the probes, evenly spaced; itself where there are no more."""
        if len(self.ids) <= limit:
            return self
        chosen = evenly(len(self.ids), limit)
        few = replace(self, folder=None, labels={name: np.asarray(own)[chosen] for name, own in self.labels.items()})
        return few.mapped(lambda each: each.point.over(chosen))

    def extended(self, more: Sequence[Placed]) -> "PointSet":
        """Return the points with others after them."""
        return replace(self, placed=(*self.placed, *more))

    def mapped(self, change: Callable[[Placed], Point]) -> "PointSet":
        """Return the set with every point changed."""
        return replace(self, placed=tuple(replace(each, point=change(each)) for each in self.placed))

    def arrangement(self, space: Any) -> Arrangement:
        """Return how the points stand to each other in a space; what the folder knows already is not computed again.

        Raises:
            InputError: the points stand over different probes, or one has no place in the space.
        """
        points = [each.point for each in self.placed]
        try:
            return self._arranged(space, points)
        except InputError:
            for name, point in zip(self.names, points, strict=True):
                _require_place(space, name, point)
            raise

    def _arranged(self, space: Any, points: list[Point]) -> Arrangement:
        if self.folder is None:
            return space.arrangement(points, device=_device(points))
        digests = [digest(point) for point in points]
        order, known = known_of(self.folder, space, digests)
        found = space.arrangement([points[number] for number in order], known, _device(points))
        if known is None or len(known) < len(points):
            write_kept(self.folder, space, [digests[number] for number in order], found)
        return found.of(np.argsort(order))

    def table(self) -> Any:
        """Return a table of the points: name, kind, network, step, place, after, settings."""
        import pandas as pd

        rows = [
            {
                "point": each.name,
                "kind": each.kind,
                "network": each.network,
                "step": each.step,
                "place": each.place,
                "after": ", ".join(each.after),
                **each.settings,
            }
            for each in self.placed
        ]
        return pd.DataFrame(rows)


def _require_place(space: Any, name: str, point: Point) -> None:
    """Say which point has no place in a space."""
    try:
        space.arrangement([point])
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _device(points: Sequence[Point]) -> Any:
    """Return the accelerator for kernels so large that their products are work; None for the CPU."""
    if points[0].inputs < MANY:
        return None
    import torch

    return torch.device("cuda") if torch.cuda.is_available() else None
