"""Shapes: distances after the best rotation agree with Procrustes, and geodesics leave out what only turns."""

import numpy as np
import pytest
from scipy.linalg import expm, orthogonal_procrustes

from losskernel.errors import InputError
from losskernel.geometry import AngularCKA, Bures, Point, Shape, Space
from losskernel.geometry.spaces.bures import factor, vertical

RNG = np.random.default_rng(1)
START = RNG.bit_generator.state
of = Point.from_features


@pytest.fixture(autouse=True)
def same_numbers_in_any_order_of_tests() -> None:
    RNG.bit_generator.state = START


def features(width: int = 5, count: int = 12) -> np.ndarray:
    return RNG.normal(size=(count, width))


def test_the_angle_between_shapes_is_that_of_procrustes() -> None:
    x, y = features(3), features(5)
    padded, other = np.pad(x - x.mean(0), ((0, 0), (0, 2))), y - y.mean(0)
    rotation, overlap = orthogonal_procrustes(other, padded)
    angle = np.arccos(overlap / np.linalg.norm(padded) / np.linalg.norm(other))
    k, ell = padded @ padded.T, other @ other.T
    values, axes = np.linalg.eigh(k)
    root = (axes * np.sqrt(np.maximum(values, 0))) @ axes.T
    fidelity = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ ell @ root), 0)).sum()
    grams = Point.from_gram(x @ x.T), Point.from_gram(y @ y.T + 3)
    for pair in [(of(x), of(y)), grams, (of(x), grams[1])]:
        assert Bures().length(*pair) == pytest.approx(angle, abs=1e-7)
        assert np.cos(Bures().length(*pair)) == pytest.approx(fidelity / np.sqrt(k.trace() * ell.trace()), abs=1e-6)
        assert Shape().length(*pair) == pytest.approx(np.linalg.norm(padded - other @ rotation), abs=1e-7)
        assert Shape().length(*pair) ** 2 == pytest.approx(k.trace() + ell.trace() - 2 * fidelity, abs=1e-5)


@pytest.mark.parametrize("space", [Bures(), Shape()])
def test_tangents_that_only_turn_a_factor_leave_its_point_alone(space: Space) -> None:
    p, q = of(features(4)), of(features(4))
    (x,), skew = space._read_all([p]), features(4, 4)
    skew = 0.3 * (skew - skew.T)
    np.testing.assert_allclose(vertical(x, x @ skew), skew, atol=1e-12)
    turned = space.exp(p, x @ skew)
    assert space.length(turned, p) < 1e-7
    assert turned.factor is not None
    np.testing.assert_allclose(turned.factor, x @ expm(skew), atol=1e-12)
    v = space.log(p, q)
    np.testing.assert_allclose(x.T @ v, v.T @ x, atol=1e-12)  # horizontal
    assert space.length(space.exp(p, v + x @ skew), q) < 1e-7
    both, step = v + x @ skew, 1e-6
    moved = [space.exp(p, sign * step * both).factor for sign in (1, -1)]
    np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step), both, atol=1e-8)  # it leaves along the tangent


def test_alignment_is_the_best_of_all_rotations_of_the_plane() -> None:
    x, y = features(2), features(2)
    x, y = x - x.mean(0), y - y.mean(0)
    turns = np.linspace(0, 2 * np.pi, 20_001)
    flipped = [
        np.linalg.norm(x - y @ np.array([[np.cos(t), s * np.sin(t)], [-np.sin(t), s * np.cos(t)]]))
        for t in turns
        for s in (1, -1)
    ]
    assert Shape().length(of(x), of(y)) == pytest.approx(min(flipped), abs=1e-6)


def test_factors_of_fewer_columns_than_others_travel_with_zeros() -> None:
    for space in (Bures(), Shape()):
        p, q, r = of(features(2)), of(features(5)), of(features(3))
        v = space.log(p, r)
        back = space.transport(q, p, space.transport(p, q, v))
        np.testing.assert_allclose(back, np.pad(v, ((0, 0), (0, 2))), atol=1e-10)
        assert space.length(p, space.geodesic(p, q, 0.3)) == pytest.approx(0.3 * space.length(p, q), abs=1e-10)
        assert space.inner(p, v, space.log(p, q)) < np.sqrt(space.inner(p, v, v)) * space.length(p, q)


def test_a_constant_layer_is_the_origin_of_euclidean_shapes() -> None:
    x = features()
    assert Shape().length(of(np.ones((12, 3))), of(x)) == pytest.approx(np.linalg.norm(x - x.mean(0)), abs=1e-10)


def test_u_centred_geodesics_are_no_kernels_of_features() -> None:
    middle = AngularCKA("u").geodesic(of(features()), of(features()), 0.5)
    with pytest.raises(InputError, match="shapes need kernels"):
        Bures().length(middle, of(features()))
    double = AngularCKA("double").geodesic(of(features()), of(features()), 0.5)
    assert factor(double).shape[1] == 10  # positive semi-definite, of both features' rank together


@pytest.mark.parametrize("space", [Bures(), Shape()])
def test_the_angle_at_a_point_of_low_rank_is_that_of_small_triangles(space: Space) -> None:
    rng = np.random.default_rng(5)
    vertex = np.kron(np.eye(3), np.ones((8, 1)))  # labels: rank 2 once centred, its neighbours are of full rank
    for _ in range(3):
        sides = [rng.normal(size=(24, width)) for width in (6, 9)]
        first, second = (Point.from_features(member) for member in sides)
        centre = Point.from_features(vertex)
        near = [space.geodesic(centre, member, 1e-3 / space.length(centre, member)) for member in (first, second)]
        a, b, c = (space.length(p, q) for p, q in ((centre, near[0]), (centre, near[1]), (near[0], near[1])))
        angle = space.angle(first, centre, second)
        assert angle == pytest.approx(np.arccos((a**2 + b**2 - c**2) / (2 * a * b)), abs=2e-3)
        turned = Point.from_features(sides[1] @ np.linalg.qr(rng.normal(size=(9, 9)))[0])
        assert space.angle(first, centre, turned) == pytest.approx(angle, abs=1e-7)
