"""What every layer of a path adds: profiles along it, with the angles that noise makes meaningless left out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from losskernel.errors import require
from losskernel.geometry.arrangement import Arrangement
from losskernel.geometry.paths.path import Path
from losskernel.geometry.paths.triangles import project, turning, vertex_angle

# Sides shorter than this give no angle: in radians, or elsewhere as a share of the greatest distance at hand.
LEAST_SIDE = 0.05
# How many noise floors a side must be long to give an angle.
FLOORS = 3.0


class Profile(NamedTuple):
    """One path on its way to a target. Distances in the space's units, angles in radians."""

    to_target: np.ndarray  # [P]
    reached: np.ndarray  # [P], length of the path up to each point
    step: np.ndarray  # [P - 1], to the next point
    progress: np.ndarray  # [P - 1], by how much the step comes nearer to the target; |progress| <= step
    efficiency: np.ndarray  # [P - 1], progress / step, -1 to 1; NaN for a step within the noise
    heading: np.ndarray  # [P - 1], between the step and the geodesic to the target: 0 straight at it, π away from it
    turning: np.ndarray  # [P - 2], at the inner points: 0 straight on, π back
    fraction: np.ndarray  # [P], of the geodesic from start to target, at the place nearest to each point
    off: np.ndarray  # [P], distance to that place
    behind: np.ndarray  # [P] bool, no farther from the target than the start is
    length: float
    straightness: float


def profile(
    arrangement: Arrangement,
    path: Sequence[int] | np.ndarray,
    target: int,
    start: int | None = None,
    floor: np.ndarray | None = None,
    least: float = LEAST_SIDE,
) -> Profile:
    """Return what every step of a path does, and where it passes the geodesic from a start to a target.

    An angle is NaN where one of the two sides at its vertex is shorter than `least` or than three noise floors, and so
    are fraction and off where start and target are that near; efficiency where the step is shorter than three
    floors. Labels need not lie ahead: speak of progress only where `behind` says that the start is farther off.

    Args:
        arrangement: how all points stand to each other.
        path: numbers of the P points, in order.
        target: number of the point to approach, such as the labels.
        start: number of the point where the geodesic to the target begins; the path's first by default.
        floor: distances [all, all] that noise alone gives (`noise_floor`), NaN where unknown; None for no noise.
        least: in radians on spheres, elsewhere a share of the greatest distance between the points in use.

    Raises:
        InputError: fewer than two points, or `floor` does not match.
    """
    numbers = np.asarray(path)
    require(len(numbers) >= 2, f"a path needs >= 2 points, got {len(numbers)}; name more layers")
    start = int(numbers[0]) if start is None else start
    noise = np.zeros_like(arrangement.distances) if floor is None else np.nan_to_num(floor)
    shape = arrangement.distances.shape
    require(noise.shape == shape, f"floor must be of all pairs, {list(shape)}, got shape {noise.shape}")
    here, there = numbers[:-1], numbers[1:]
    distances = arrangement.distances
    if arrangement.cosines is None:
        used = [*numbers, target, start]
        least = least * float(distances[np.ix_(used, used)].max())

    def clear(a: np.ndarray | int, b: np.ndarray | int) -> np.ndarray:
        return distances[a, b] >= np.maximum(least, FLOORS * noise[a, b])

    own = Path.from_arrangement(arrangement, numbers)
    step, to_target = own.steps, distances[numbers, target]
    progress = to_target[:-1] - to_target[1:]
    told = (step > 0) & (step >= FLOORS * noise[here, there])
    efficiency = np.divide(progress, step, out=np.full_like(step, np.nan), where=told)
    heading = vertex_angle(arrangement, there, here, target)
    corner = turning(arrangement, here[:-1], here[1:], there[1:])
    straight = clear(here, there)
    beside = project(arrangement, numbers, start, target)
    aimed = bool(clear(start, target))
    return Profile(
        to_target=to_target,
        reached=np.concatenate([[0.0], np.cumsum(step)]),
        step=step,
        progress=progress,
        efficiency=efficiency,
        heading=np.where(straight & clear(here, target), heading, np.nan),
        turning=np.where(straight[:-1] & straight[1:], corner, np.nan),
        fraction=beside.fraction if aimed else np.full(len(numbers), np.nan),
        off=beside.distance if aimed else np.full(len(numbers), np.nan),
        behind=to_target <= distances[start, target],
        length=own.length,
        straightness=own.straightness,
    )
