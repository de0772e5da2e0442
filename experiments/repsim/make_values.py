"""Writes tests/repsim_values.json: what repsim 0.8 gives for the representations of tests/repsim_inputs.py."""

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from repsim_inputs import INPUTS, representations, sphere_distances  # noqa: E402

try:
    import repsim
    from repsim import kernels
    from repsim.geometry.curvature import alexandrov
    from repsim.geometry.optimize import project_by_binary_search
    from repsim.geometry.stats import optimize_frechet_mean
    from repsim.geometry.trig import angle
    from repsim.stats import ManifoldPCA, SphericalMDS
except ImportError as missing:
    raise SystemExit(
        f"{missing}: pip install git+https://github.com/wrongu/repsim (0.8.3; PyPI's repsim is another)"
    ) from None

FRACTIONS = (0.1, 0.5, 0.9)
# Start, end and a third point. In the third triple all kernels have full rank, where tangents of shapes are unique.
TRIPLES = (
    ("inputs", "deep", "hidden"),
    ("inputs", "labels", "deep"),
    ("deep", "unrelated", "last"),
    ("hidden", "unrelated", "labels"),
)


def spaces() -> dict[str, repsim.RepresentationMetricSpace]:
    """Every space that both libraries have, by the name that the test knows it by."""
    count = INPUTS
    return {
        "double": repsim.AngularCKA(count, use_unbiased_hsic=False),
        "masked": repsim.AngularCKA(count),
        "stress": repsim.Stress(count),
        "stress_rescaled": repsim.Stress(count, rescale=True),
        # As many columns as inputs: padding and principal axes lose nothing.
        "shape": repsim.EuclideanShapeMetric(count, count),
        "bures": repsim.AngularShapeMetric(count, count),
        "affine_invariant_0.1": repsim.AffineInvariantRiemannian(count, eps=0.1),
        "affine_invariant_0.01": repsim.AffineInvariantRiemannian(count, eps=0.01),
    }


def kinds() -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Kernels with the length scales that both libraries have."""
    return {
        "squared_exponential median": kernels.SquaredExponential("auto"),
        "squared_exponential median/2": kernels.SquaredExponential("median/2"),
        "squared_exponential 3.0": kernels.SquaredExponential(3.0),
        "laplacian median": kernels.Laplace("auto"),
        "laplacian median*2": kernels.Laplace("median*2"),
        "laplacian 3.0": kernels.Laplace(3.0),
    }


def of_triple(space: repsim.RepresentationMetricSpace, points: dict[str, torch.Tensor], names: tuple) -> dict:
    """What a space says of a start, an end and a third point: only numbers that do not depend on coordinates."""
    start, end, third = (points[name] for name in names)
    whole = space.length(start, end)
    bisected, _ = project_by_binary_search(space, start, end, third)
    to_end, to_third = space.log_map(start, end), space.log_map(start, third)
    carried = space.levi_civita(start, end, to_third)
    back, onward = space.log_map(end, start), space.log_map(end, third)
    shot = space.exp_map(start, 0.6 * to_end + 0.3 * to_third)
    return {
        "points": names,
        "geodesic to third": [float(space.length(space.geodesic(start, end, frac=t), third)) for t in FRACTIONS],
        "angle at third": float(angle(space, start, third, end)),
        "bisected": [float(space.length(start, bisected) / whole), float(space.length(bisected, third))],
        "inner of logs": float(space.inner_product(start, to_end, to_third)),
        "transported on way back": float(space.inner_product(end, carried, back)),
        "transported on way to third": float(space.inner_product(end, carried, onward)),
        "shot to start, end, third": [float(space.length(shot, other)) for other in (start, end, third)],
        "curvature": float(alexandrov(space, start, third, end)),
    }


def of_space(space: repsim.RepresentationMetricSpace, features: dict[str, torch.Tensor]) -> dict:
    """Lengths of every pair and what `of_triple` says of each triple."""
    points = {name: space.neural_data_to_point(values) for name, values in features.items()}
    lengths = {f"{a} {b}": float(space.length(points[a], points[b])) for a, b in combinations(points, 2)}
    return {"lengths": lengths, "triples": [of_triple(space, points, names) for names in TRIPLES]}


def of_kernel(kernel: Callable[[torch.Tensor], torch.Tensor], features: dict[str, torch.Tensor]) -> dict:
    """One row of a kernel, its sum, and the distances that it leads to."""
    space = repsim.AngularCKA(INPUTS, kernel=kernel, use_unbiased_hsic=False)
    narrow = ("inputs", "hidden")  # repsim refuses adaptive lengths with fewer inputs than features
    kernel_of = kernel(features["inputs"])
    points = [space.neural_data_to_point(features[name]) for name in narrow]
    return {
        "first row": kernel_of[0].tolist(),
        "sum": float(kernel_of.sum()),
        "length of inputs, hidden": float(space.length(*points)),
    }


def of_sphere(space: repsim.AngularCKA, features: dict[str, torch.Tensor]) -> dict:
    """The Fréchet mean of four layers, by distances to it, and the spread of their logarithms there."""
    points = [space.neural_data_to_point(features[name]) for name in ("inputs", "hidden", "deep", "labels")]
    mean = optimize_frechet_mean(space, points, init_method="iterative")
    spread = ManifoldPCA(space).fit(torch.stack(points)).singular_values_
    return {"lengths to mean": [float(space.length(mean, p)) for p in points], "singular values": spread[:3].tolist()}


def of_map(distances: torch.Tensor) -> dict:
    """The stress of repsim's spherical map in two dimensions, the best of four starts."""
    torch.manual_seed(0)
    fitted = SphericalMDS(dim=2, dissimilarity="precomputed", n_init=4, random_state=0).fit(distances)
    return {"squared stress": float(fitted.stress_**2)}


def main() -> None:
    """Ask repsim, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "repsim_values.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    features = {name: torch.from_numpy(values) for name, values in representations().items()}
    every = spaces()
    values = {
        "repsim": "0.8.3, commit 869292c",
        "features": {name: float(torch.linalg.norm(each)) for name, each in features.items()},
        "spaces": {name: of_space(space, features) for name, space in every.items()},
        "kernels": {name: of_kernel(kernel, features) for name, kernel in kinds().items()},
        "means": {name: of_sphere(every[name], features) for name in ("double", "masked")},
        "map": of_map(torch.from_numpy(sphere_distances())),
    }
    assert all(np.isfinite(number) for number in numbers(values)), "repsim gave a number that is not finite"
    arguments.out.write_text(json.dumps(values, indent=1) + "\n")
    print(f"{arguments.out}: {len(list(numbers(values)))} numbers")


def numbers(part: object) -> list[float]:
    """All numbers in nested dicts and lists."""
    if isinstance(part, dict):
        return [number for each in part.values() for number in numbers(each)]
    if isinstance(part, list | tuple):
        return [number for each in part for number in numbers(each)]
    return [part] if isinstance(part, float) else []


if __name__ == "__main__":
    main()
