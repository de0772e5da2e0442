"""Which points a network's path goes through: all that it evaluates, or those that every route passes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from losskernel.errors import InputError, require
from losskernel.representations.points import TRAINED, PointSet

ALONG = ("spine", "all")


@dataclass(frozen=True)
class Walk:
    """One network's path through a set of points.

    Attributes:
        network: "trained", or "step 120" of a kept checkpoint.
        step: of training; None where it is not known.
        numbers: [P] of the points on the path, in the order of evaluation, inputs first.
        labels: [P] their names without the network.
        kinds: [P] what they are.
        edges: pairs of numbers that follow on each other in the network's graph, branches among them.
    """

    network: str
    step: int | None
    numbers: tuple[int, ...]
    labels: tuple[str, ...]
    kinds: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]

    @property
    def everything(self) -> list[int]:
        """The numbers of the points on the path and on the branches beside it."""
        return sorted({*self.numbers, *(number for edge in self.edges for number in edge)})

    def last(self, kind: str) -> int | None:
        """Return the place on the path of the last point of a kind; None where there is none."""
        return next((place for place in reversed(range(len(self.kinds))) if self.kinds[place] == kind), None)


def walks_of(points: PointSet, networks: Sequence[str] | None = None, along: str = "spine") -> list[Walk]:
    """Return the paths of some networks, by default of all: in the order of training, the trained one last.

    A kept checkpoint of the trained network's own step is left out.

    Raises:
        InputError: there are no layers, a network is unknown, or a path has fewer than two points.
    """
    known = points.networks()
    require(len(known) > 0, "no network has layers; choose points=[layers,targets]")
    for name in networks or ():
        if name not in known:
            raise InputError(f"networks: there is none called {name!r}; choose from {', '.join(known)}")
    end = points.step(TRAINED) if TRAINED in known else None
    wanted = list(networks or (each for each in known if each == TRAINED or end is None or points.step(each) != end))
    return [_walk(points, network, along) for network in known if network in wanted]


def spine(numbers: Sequence[int], edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return those of the points, in order of evaluation, that all routes from the first to the last pass through.

    Side by side branches fall out; the points where they part and meet stay.

    Raises:
        InputError: no route leads from the first point to the last.
    """
    ways = dict.fromkeys(numbers, 0) | {numbers[0]: 1}  # whole numbers of any size: a deep network has 2^40 routes
    back = dict.fromkeys(numbers, 0) | {numbers[-1]: 1}
    order = {number: place for place, number in enumerate(numbers)}
    for before, after in sorted(edges, key=lambda edge: order[edge[1]]):
        ways[after] += ways[before]
    for before, after in sorted(edges, key=lambda edge: -order[edge[0]]):
        back[before] += back[after]
    every = ways[numbers[-1]]
    require(every > 0, "no route leads from the inputs to the last output; use analysis.path.along=all")
    return [number for number in numbers if ways[number] * back[number] == every]


def edges_of(points: PointSet, numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the pairs of points that follow on each other: as the points say, else each after the one before."""
    named = {points.placed[number].name: number for number in numbers}
    found: list[tuple[int, int]] = []
    for before, number in pairwise(numbers):
        said = dict.fromkeys(named[name] for name in points.placed[number].after if name in named)
        found += [(each, number) for each in said or {before: None}]
    return found


def _walk(points: PointSet, network: str, along: str) -> Walk:
    every = points.path(network)
    require(len(every) >= 2, f"{network}: a path needs >= 2 points, got {len(every)}; name more layers")
    edges = edges_of(points, every)
    numbers = every if along == "all" else spine(every, edges)
    placed = [points.placed[number] for number in numbers]
    return Walk(
        network,
        points.step(network),
        tuple(numbers),
        tuple(each.label for each in placed),
        tuple(each.kind for each in placed),
        tuple(edges),
    )
