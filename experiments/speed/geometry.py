"""Distances, projections and spherical maps: losskernel beside repsim 0.8, in one run."""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial.distance import squareform

from losskernel.geometry import AngularCKA, Point, spherical_mds
from losskernel.geometry.maps.linear import angles
from losskernel.geometry.paths.triangles import project

try:
    import repsim
    from repsim.geometry.optimize import project_by_binary_search
    from repsim.stats import SphericalMDS
except ImportError:
    repsim = None

POINTS, INPUTS, PLACES = 20, 1000, 40
Clock = Callable[[], float]
# A middle point, projected onto the geodesic from the first to the last.
MIDDLE = POINTS // 2


class Comparison(NamedTuple):
    """Distances [P, P], and where the middle point falls between the first and the last."""

    distances: np.ndarray
    fraction: float
    off: float


def layers(width: int) -> list[np.ndarray]:
    """Features [1000, width] of 20 layers of a random network with skip connections: each near the one before."""
    rng = np.random.default_rng(0)
    current, found = rng.normal(size=(INPUTS, width)), []
    for _ in range(POINTS):
        found.append(current)
        current = current + 0.5 * np.maximum(current, 0.0) @ rng.normal(size=(width, width)) / np.sqrt(width / 2)
    return found


def ours(points: list[Point], centring: str) -> Comparison:
    """All distances and the projections of all 18 points between: these cost next to nothing more than one."""
    arrangement = AngularCKA(centring).arrangement(points)
    found = project(arrangement, range(POINTS), 0, POINTS - 1)
    return Comparison(arrangement.distances, float(found.fraction[MIDDLE]), float(found.distance[MIDDLE]))


def theirs(space: Any, points: list[torch.Tensor]) -> Comparison:
    """All distances and the projection of one point."""
    distances = np.zeros((POINTS, POINTS))
    for i in range(POINTS):
        for j in range(i):
            distances[i, j] = distances[j, i] = space.length(points[i], points[j])
    foot, _ = project_by_binary_search(space, points[0], points[-1], points[MIDDLE])
    fraction = float(space.length(points[0], foot)) / distances[0, -1]
    return Comparison(distances, fraction, float(space.length(foot, points[MIDDLE])))


def timed(work: Callable[[], Any], repeats: int, clock: Clock) -> tuple[float, Any]:
    """Median of seconds, and what the work gave."""
    times = []
    for _ in range(repeats):
        began = clock()
        found = work()
        times.append(clock() - began)
    return statistics.median(times), found


def of_distances(width: int, centring: str, repeats: tuple[int, int], clock: Clock) -> None:
    """Print two rows, from features and from points that exist: seconds of both, how far their answers lie apart."""
    features = layers(width)
    grams = [Point.from_gram(each @ each.T) for each in features]
    starts = {
        f"{width:,} features": lambda: ours([Point.from_features(each) for each in features], centring),
        f"points, of {width:,} features": lambda: ours(grams, centring),
    }
    own = {name: timed(work, repeats[0], clock) for name, work in starts.items()}
    if repsim is None:
        for name, (seconds, _) in own.items():
            print(f"| {centring} | {name} | {seconds:.3f} | — | — | — | — |")
        return
    space = repsim.AngularCKA(INPUTS, use_unbiased_hsic=centring == "masked")
    inputs = [torch.from_numpy(each) for each in features]
    building, points = timed(lambda: [space.neural_data_to_point(each) for each in inputs], repeats[1], clock)
    compared, found = timed(lambda: theirs(space, points), repeats[1], clock)
    for (name, (seconds, mine)), other in zip(own.items(), (building + compared, compared), strict=True):
        apart, fraction = np.abs(mine.distances - found.distances).max(), abs(mine.fraction - found.fraction)
        ratio = other / seconds
        print(f"| {centring} | {name} | {seconds:.3f} | {other:.1f} | {ratio:.0f} | {apart:.0e} | {fraction:.0e} |")


def problems() -> dict[str, np.ndarray]:
    """Distances [40, 40] that no map in two dimensions keeps: of random directions, of layers of four networks."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(PLACES, 10))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    inputs, points = rng.normal(size=(200, 30)), []
    for _ in range(4):
        current = inputs
        for _ in range(PLACES // 4):  # not the inputs, which all share: of equal points repsim's map is NaN
            current = np.maximum(current @ rng.normal(size=(30, 30)) / np.sqrt(15), 0.0)
            points.append(Point.from_features(current))
    apart = squareform(angles(directions))
    return {"directions in ten dimensions": apart, "four networks": AngularCKA().distances(points)}


def of_map(name: str, distances: np.ndarray, repeats: int, starts: int, clock: Clock) -> None:
    """Print a row: seconds and Σ (d - angle)² over pairs of both."""
    own, layout = timed(lambda: spherical_mds(distances), repeats, clock)
    row = f"| {name} | {own:.3f} | {layout.raw:.4f} |"
    if repsim is None:
        print(row + " — | — | — |")
        return
    torch.manual_seed(0)
    fitted = SphericalMDS(dim=2, dissimilarity="precomputed", n_init=starts, random_state=0)
    other, found = timed(lambda: fitted.fit(torch.from_numpy(distances)), 1, clock)
    shown = squareform(angles(found.embedding_.numpy()))
    raw = float(((distances - shown) ** 2).sum() / 2)
    print(f"{row} {other:.1f} | {raw:.4f} | {other / own:.0f} |", flush=True)


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (of torch)")
    parser.add_argument("--no-maps", action="store_true", help="distances alone")
    parser.add_argument("--widths", type=int, nargs="*", default=[100, 2000], help="features of every point")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of losskernel; medians are shown")
    parser.add_argument("--their-repeats", type=int, default=1, help="rounds of repsim's distances")
    parser.add_argument("--starts", type=int, default=1, help="starts of repsim's map (its default is 4)")
    parser.add_argument("--processor-time", action="store_true", help="for a shared machine, with OMP_NUM_THREADS=1")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)
    if repsim is None:
        print("repsim is not importable: losskernel alone (experiments/repsim/README.md says how to get it)")
    print(f"\n{POINTS} points, {INPUTS:,} inputs: {POINTS * (POINTS - 1) // 2} distances and a projection\n")
    print("| centring | from | losskernel, s | repsim, s | times as fast | distances apart | fractions apart |")
    print("|---|---|---|---|---|---|---|")
    for width in arguments.widths:
        for centring in ("double", "masked"):
            of_distances(width, centring, (arguments.repeats, arguments.their_repeats), clock)
    if arguments.no_maps:
        return
    print(f"\nSpherical map of {PLACES} points in two dimensions\n")
    print("| distances | losskernel, s | stress | repsim, s | stress | times as fast |\n|---|---|---|---|---|---|")
    for name, distances in problems().items():
        of_map(name, distances, arguments.repeats, arguments.starts, clock)


if __name__ == "__main__":
    main()
