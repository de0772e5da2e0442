"""Named points over one set of probes, and the distances between them, cached on disk."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from losskernel.errors import InputError, TraceError, require
from losskernel.geometry import Arrangement, Point
from losskernel.geometry.point import SINGLE_PRECISION_INPUTS, evenly
from losskernel.storage.locations import guard
from losskernel.storage.npz import read_arrays, write_arrays
from losskernel.traces.loss_traces import LossTraces

# input: what the network is given; layer: one of its activations; output: logits and what follows; target: what it is
# to learn; gradient and laplace: kernels in closed form; loss_kernel: a sampled one.
KINDS = ("input", "layer", "output", "target", "gradient", "laplace", "loss_kernel")
# Name of the network that was sampled, at w*.
TRAINED = "trained"
# Name of the run's own sampled kernel; names of others begin with it.
LOSS_KERNEL = "loss kernel"


@dataclass(frozen=True, eq=False)
class NamedPoint:
    """A point with its name and origin.

    Attributes:
        name: unique among the points; that of a layer of other weights ends with " @ step".
        point: its kernel.
        kind: one of KINDS.
        network: which weights made it: "trained", "step 120" of a checkpoint, "" for inputs and targets.
        step: of training, of those weights; None where it is unknown or has no meaning.
        position: of layers and outputs in the order of evaluation, from 1; inputs have 0.
        after: names of the points that the operation takes its inputs from: edges of the network's graph.
        settings: of a loss kernel: localization, nbeta, ...
        traces: of a loss kernel: path of its draws below the run's folder; they are not stored again.
    """

    name: str
    point: Point
    kind: str
    network: str = ""
    step: int | None = None
    position: int = 0
    after: tuple[str, ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)
    traces: str | None = None

    def __post_init__(self) -> None:
        require(self.kind in KINDS, f"the kind of point {self.name!r} must be one of {KINDS}, got {self.kind!r}")

    @property
    def label(self) -> str:
        """The name without its network: the same layer has the same label at every step."""
        return self.name.split(" @ ")[0]  # "relu @ 120" -> "relu"


@dataclass(frozen=True, eq=False)
class PointSet:
    """Points over the same probes.

    Attributes:
        points: in order.
        labels: name -> [N], known facts about each probe.
        folder: where arrangements are cached, so that one more point costs one more row; None for no cache.
    """

    points: tuple[NamedPoint, ...]
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    folder: Path | None = None

    def __post_init__(self) -> None:
        names = self.names
        # Names identify points in tables, figures and configs.
        twice = sorted({name for name in names if names.count(name) > 1})
        require(not twice, f"points: the name {twice[:1]} occurs twice; let no two sources give the same point")

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, number: int) -> NamedPoint:
        return self.points[number]

    @property
    def names(self) -> list[str]:
        """The points' names, in order."""
        return [named.name for named in self.points]

    @property
    def ids(self) -> np.ndarray:
        """[N] names of the probes."""
        return self[0].point.ids

    def number(self, name: str) -> int:
        """Return the index of the point with a name.

        Raises:
            InputError: there is none.
        """
        if name not in self.names:
            raise InputError(f"there is no point {name!r}; choose from {', '.join(self.names)}")
        return self.names.index(name)

    def of(self, *kinds: str, network: str | None = None) -> list[int]:
        """Return the indices of the points of some kinds, of one network if it is named."""
        wanted = [named.kind in kinds and network in (None, named.network) for named in self.points]
        return np.flatnonzero(wanted).tolist()

    def networks(self) -> list[str]:
        """Return the networks that have layers, in the order of their training steps; the trained one last."""
        # Networks without layers, such as those of further loss kernels, have no path.
        steps = {named.network: named.step for named in self.points if named.kind == "layer"}
        return sorted(steps, key=lambda name: (name == TRAINED, steps[name] or 0))

    def step(self, network: str) -> int | None:
        """Return the training step of a network."""
        return next((named.step for named in self.points if named.network == network), None)

    def path(self, network: str = TRAINED) -> list[int]:
        """Return the indices of a network's path: inputs, layers, outputs, in the order of evaluation."""
        layers = self.of("layer", "output", network=network)
        return [*self.of("input"), *sorted(layers, key=lambda number: self[number].position)]

    def only(self, numbers: Sequence[int]) -> "PointSet":
        """Return some of the points."""
        return replace(self, points=tuple(self[number] for number in numbers))

    def evenly(self, limit: int) -> "PointSet":
        """Return the points over at most `limit` of the probes, evenly spaced; itself where there are no more."""
        if len(self.ids) <= limit:
            return self
        chosen = evenly(len(self.ids), limit)
        labels = {name: np.asarray(values)[chosen] for name, values in self.labels.items()}
        return replace(self, folder=None, labels=labels).mapped(lambda named: named.point.over(chosen))

    def extended(self, more: Sequence[NamedPoint]) -> "PointSet":
        """Return the points with others after them."""
        return replace(self, points=(*self.points, *more))

    def mapped(self, change: Callable[[NamedPoint], Point]) -> "PointSet":
        """Return the set with every point changed."""
        return replace(self, points=tuple(replace(named, point=change(named)) for named in self.points))

    def arrangement(self, space: Any) -> Arrangement:
        """Return the distances between the points in a space; cached pairs are not computed again.

        Raises:
            InputError: the points are over different probes, or one is not in the space's domain.
        """
        points = [named.point for named in self.points]
        try:
            return self._arranged(space, points)
        except InputError:
            # The space knows points by number only: find the faulty one, and name it.
            for name, point in zip(self.names, points, strict=True):
                try:
                    space.arrangement([point])
                except InputError as error:
                    raise InputError(f"{name}: {error}") from error
            raise

    def _arranged(self, space: Any, points: list[Point]) -> Arrangement:
        if self.folder is None:
            return space.arrangement(points, device=_device(points))
        # A file for each space, named after its settings.
        words = "".join(letter if letter.isalnum() or letter == "." else "-" for letter in repr(space))
        path, digests = self.folder / f"arrangement-{words.strip('-')}.npz", [digest(point) for point in points]
        # Cached points come first, as `Space.arrangement` wants them; the result is put back into the set's order.
        order, known = _cached(path, digests)
        arrangement = space.arrangement([points[number] for number in order], known, _device(points))
        if known is None or len(known) < len(points):
            cosines = {} if arrangement.cosines is None else {"cosines": arrangement.cosines}
            arrays = {"digests": np.array(digests)[order], "distances": arrangement.distances, **cosines}
            guard(path, write_arrays, path, arrays)
        return arrangement.of(np.argsort(order))

    def table(self) -> Any:
        """Return a table of the points: name, kind, network, step, place, after, settings."""
        import pandas as pd

        columns = {"point": "name", "kind": "kind", "network": "network", "step": "step", "place": "position"}
        rows = [
            {column: getattr(named, name) for column, name in columns.items()}
            | {"after": ", ".join(named.after), **named.settings}
            for named in self.points
        ]
        return pd.DataFrame(rows)


def sampled_point(traces: LossTraces) -> Point:
    """Return the point of a sampled loss kernel; it keeps each chain's draws apart."""
    losses = traces.losses.transpose("chain", "probe", "draw").values  # [C, N, T]
    return Point.from_draws(list(losses), traces.losses["probe"].values)


def digest(point: Point) -> str:
    """Return a hash of a point's kernel and probe ids, to the last bit."""
    sha = hashlib.sha256()
    in_memory = point.triangle is not None or point.factor is not None
    # Reading a kernel from disk would cost as much as its distances: its diagonal and row sums stand for it.
    parts = (point.triangle, point.factor) if in_memory else (point.diagonal(), point.sums())
    for part in (point.ids, *parts):
        if part is not None:
            array = np.ascontiguousarray(part)
            sha.update(f"{array.shape}{array.dtype}{point.centring}".encode())
            sha.update(array.tobytes())
    return sha.hexdigest()


def _cached(path: Path, digests: Sequence[str]) -> tuple[list[int], Arrangement | None]:
    """Return the points' indices, those in the cache file first, and the arrangement of these."""
    everyone = list(range(len(digests)))
    if not path.is_file():
        return everyone, None
    try:
        stored = read_arrays(path)
        row_of = {str(key): row for row, key in enumerate(stored["digests"])}
        distances, cosines = stored["distances"], stored.get("cosines")
    except (TraceError, KeyError):  # a damaged cache is computed anew
        return everyone, None
    rows = {number: row_of[key] for number, key in enumerate(digests) if key in row_of}
    if not rows:
        return everyone, None
    order = [*rows, *(number for number in everyone if number not in rows)]
    return order, Arrangement(distances, cosines).of(list(rows.values()))


def _device(points: Sequence[Point]) -> Any:
    """Return the accelerator for kernels so large that their products take long; None for the CPU."""
    if points[0].inputs < SINGLE_PRECISION_INPUTS:
        return None
    import torch

    return torch.device("cuda") if torch.cuda.is_available() else None
