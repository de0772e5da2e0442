"""Points whose places are known: arrangements of unit vectors, of flat places, and of kernels on geodesics."""

import numpy as np

from losskernel.geometry import AngularCKA, Arrangement, Point
from losskernel.geometry.point import upper_triangle


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def on_sphere(vectors: np.ndarray) -> Arrangement:
    """The arrangement of unit vectors [P, k]."""
    chord = np.linalg.norm(vectors[:, None] - vectors, axis=-1)
    reach = np.linalg.norm(vectors[:, None] + vectors, axis=-1)
    return Arrangement(2 * np.arctan2(chord, reach), vectors @ vectors.T)


def in_plane(places: np.ndarray) -> Arrangement:
    """The arrangement of places [P, k] in a flat space."""
    return Arrangement(np.linalg.norm(places[:, None] - places, axis=-1))


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    angle = float(np.arccos(np.clip((a * b).sum(), -1, 1)))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def kernels(seed: int, count: int, inputs: int = 20) -> list[Point]:
    """Random kernels over the same inputs, of 2 features and more."""
    rng = np.random.default_rng(seed)
    features = [rng.normal(size=(inputs, 2 + width)) for width in range(count)]
    return [Point.from_gram(x @ x.T) for x in features]


def geodesic(p: Point, q: Point, fractions: list[float]) -> list[Point]:
    """Kernels on the geodesic between two, made by slerp of the U-centred ones."""
    space = AngularCKA("u")
    a, b = (space.centred(each) / np.linalg.norm(space.centred(each)) for each in (p, q))
    return [Point(p.ids, triangle=upper_triangle(slerp(a, b, t)), centring="u") for t in fractions]
