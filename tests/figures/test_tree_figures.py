"""Maps coloured by a hierarchy: hues follow the tree, its key reads as one, regions are marked, nothing collides."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from drawn import balanced, collisions, outside, rendered, smallest, thumbnails, words
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from losskernel.data.taxonomy import wordnet
from losskernel.data.taxonomy.readers import shipped
from losskernel.figures import Region, stamp, taxonomy_map, taxonomy_orbit, tree_colours, turning
from losskernel.figures.trees.map_regions import mark_regions, typical
from losskernel.figures.trees.taxonomy_map import shortened
from losskernel.figures.trees.trees import leaves_below, main_branches, node_midpoints, position_colours

TREE = balanced(2, 2, 3, 5)
# What a deuteranope sees, linear RGB: Machado, Oliveira & Fernandes 2009.
DEUTERANOPE = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def clustered(dimensions: int, copies: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points of the leaves of TREE, a random step for every branching on the way down, and their leaves."""
    rng = np.random.default_rng(seed)
    spots = np.zeros((len(TREE.ids), dimensions))
    depths = TREE.depths()
    for node in range(TREE.root - 1, -1, -1):
        spots[node] = spots[TREE.parents[node]] + rng.normal(size=dimensions) * 8 * 0.55 ** depths[node]
    leaf = rng.permutation(np.repeat(np.arange(TREE.leaves), copies))
    return spots[leaf] + 0.3 * rng.normal(size=(len(leaf), dimensions)), leaf


def branch(name: str, leaf: np.ndarray, xy: np.ndarray, number: int, under: int) -> Region:
    members = np.flatnonzero(np.isin(leaf, leaves_below(TREE)[under]))
    return Region(number, name, members, np.median(xy[members], axis=0))


def linear(rgba: np.ndarray) -> np.ndarray:
    values = rgba[:, :3]
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


# --- colours


def test_near_leaves_look_more_alike_than_far_ones() -> None:
    colours = linear(tree_colours(TREE)[: TREE.leaves])
    apart = np.linalg.norm(colours[:, None] - colours, axis=2)
    depth = TREE.lca_depth()
    means = [apart[depth == level].mean() for level in range(depth.max())]
    assert means == sorted(means, reverse=True)
    assert means[-1] < means[0] / 4


@pytest.mark.parametrize("sight", [np.eye(3), DEUTERANOPE])
def test_no_two_places_apart_share_a_colour_in_either_sight(sight: np.ndarray) -> None:
    spots = np.linspace(0, 1, 30)
    seen = np.clip(linear(position_colours(spots)) @ sight.T, 0, 1) ** (1 / 2.2)
    apart = np.linalg.norm(seen[:, None] - seen, axis=2)
    assert apart[np.abs(spots[:, None] - spots) > 0.15].min() > 0.08


def test_lightness_differs_a_little_and_never_is_too_pale_for_paper() -> None:
    luminance = linear(position_colours(np.linspace(0, 1, 200))) @ LUMINANCE
    assert luminance.max() < 0.65
    assert luminance.min() > 0.08


def test_an_inner_node_has_the_colour_of_the_middle_of_its_leaves() -> None:
    colours, positions = tree_colours(TREE), TREE.positions()
    node = int(TREE.parents[7])
    expected = position_colours(positions[leaves_below(TREE)[node]].mean(keepdims=True))
    np.testing.assert_allclose(colours[node], expected[0])
    assert colours.shape == (len(TREE.ids), 4)
    assert colours.min() >= 0
    assert colours.max() <= 1


# --- trees


def test_leaves_below_a_node_are_those_that_have_it_above_them() -> None:
    below = leaves_below(TREE)
    for node, clade in TREE.clades().items():
        assert set(below[node]) == clade
    assert [list(member) for member in below[:3]] == [[0], [1], [2]]
    assert len(below[TREE.root]) == 60


def test_a_node_stands_midway_between_its_outermost_children() -> None:
    rows = np.arange(60.0)
    spots = node_midpoints(TREE, rows)
    assert spots[TREE.parents[0]] == 2.0  # of leaves 0 to 4
    assert spots[TREE.root] == pytest.approx(29.5)


def test_main_branches_split_the_largest_first_and_stay_within_the_limit() -> None:
    assert len(main_branches(TREE, 4)) == 4
    assert len(main_branches(TREE, 12)) == 12
    assert main_branches(TREE, 1) == [TREE.root]
    chosen = main_branches(TREE, 11)
    assert len(chosen) <= 11
    covered = np.concatenate([leaves_below(TREE)[node] for node in chosen])
    assert len(covered) == len(set(covered)) == 60
    with pytest.raises(ValueError, match="most must be >= 1, got 0"):
        main_branches(TREE, 0)


def test_main_branches_of_imagenet_are_what_a_person_would_name() -> None:
    links = shipped()
    above = {parent for _, parents in links.values() for parent in parents}
    classes = sorted(wnid for wnid in links if wnid not in above)
    tree = wordnet(classes).tree(classes)
    names = {tree.names[node] for node in main_branches(tree, 18)}
    assert {"bird", "dog", "fish", "structure", "device", "container"} <= names


# --- the map


def test_the_map_shows_regions_key_and_thumbnails_without_collisions() -> None:
    xy, leaf = clustered(2)
    images = np.random.default_rng(0).integers(0, 256, (len(xy), 12, 12, 3), dtype=np.uint8)
    inner = [node for node in range(60, TREE.root) if TREE.heights[node] == 1][:8]
    names = ["vertebrate", "keyboard instrument with pipes", *"cdefgh"]
    regions = [
        branch(name, leaf, xy, number, node) for number, (name, node) in enumerate(zip(names, inner, strict=True), 1)
    ]
    figure = taxonomy_map(xy, TREE, leaf, images, regions)
    assert collisions(figure) == []
    assert outside(figure) == []
    assert smallest(figure) >= 6
    assert len(thumbnails(figure)) == 8 * 4
    said = words(figure).split("\n")
    assert "vertebrate" in said
    assert all(str(number) in said for number in range(1, 9))
    assert "level 3 number 0" in said  # a main branch, in the key
    assert figure.get_size_inches()[0] == 7.0


def test_numbers_stand_on_bare_spots_beside_their_regions() -> None:
    xy, leaf = clustered(2)
    inner = [node for node in range(60, TREE.root) if TREE.heights[node] == 1][:6]
    regions = [branch("x", leaf, xy, number, node) for number, node in enumerate(inner, 1)]
    axes = rendered(taxonomy_map(xy, TREE, leaf, None, regions)).figure.axes[0]
    points = axes.transData.transform(axes.collections[0].get_offsets())
    discs = np.array([axes.transData.transform(text.get_position()) for text in axes.texts])
    assert len(discs) >= 6
    radius = 0.075 * 72
    assert np.linalg.norm(discs[:, None] - points, axis=2).min() > 0.9 * radius
    between = np.linalg.norm(discs[:, None] - discs, axis=2) + 1e9 * np.eye(len(discs))
    assert between.min() > 2 * radius


def test_every_part_of_a_scattered_region_bears_its_number() -> None:
    rng = np.random.default_rng(0)
    centres = np.repeat([[0, 0], [30, 30], [30, 0]], [50, 50, 3], axis=0)
    axes = Figure().subplots()
    axes.set(xlim=(-5, 35), ylim=(-5, 35))
    mark_regions(axes, centres + rng.normal(size=(103, 2)), [Region(7, "islands", np.arange(103), np.zeros(2))], 4.0)
    assert [text.get_text() for text in axes.texts] == ["7", "7"]  # three strays are no part


def test_without_pictures_or_regions_the_map_still_has_its_key() -> None:
    xy, leaf = clustered(2, copies=3)
    bare = taxonomy_map(xy, TREE, leaf, None, [])
    assert len(bare.axes) == 2
    named = taxonomy_map(xy, TREE, leaf, None, [branch("a long-tailed family", leaf, xy, 1, 60)])
    assert "a long-tailed family" in words(named)
    assert thumbnails(named) == []
    assert named.get_size_inches()[1] > bare.get_size_inches()[1]


def test_a_strip_shows_different_classes_nearest_to_the_centre() -> None:
    xy = np.array([[0.0, 0], [0.1, 0], [0.2, 0], [0.3, 0], [5, 0], [9, 9]])
    leaf = np.array([0, 0, 0, 1, 2, 3])
    region = Region(1, "x", np.arange(5), np.zeros(2))
    assert typical(region, xy, leaf).tolist() == [0, 3, 4, 1]


def test_long_empty_stretches_are_shortened_and_said_to_be() -> None:
    rng = np.random.default_rng(0)
    near = rng.uniform(0, 1, (300, 2))
    far = np.concatenate([near, near + np.array([200.0, 0.0])])
    drawn, cut = shortened(far)
    assert cut
    assert np.ptp(drawn, axis=0)[0] < 3
    for axis in (0, 1):  # the order stays, and the shape of an island
        assert (np.argsort(drawn[:, axis], kind="stable") == np.argsort(far[:, axis], kind="stable")).all()
    np.testing.assert_allclose(np.diff(drawn[:300], axis=0), np.diff(near, axis=0), atol=1e-9)
    same, cut = shortened(near)
    assert not cut
    np.testing.assert_array_equal(same, near)
    leaf = np.arange(600) % 60
    assert taxonomy_map(far, TREE, leaf, None, []).axes[0].get_xlabel() == "map axis 1 (empty stretches shortened)"
    assert taxonomy_map(near, TREE, leaf[:300], None, []).axes[0].get_xlabel() == "map axis 1"


def test_a_stamp_above_the_map_covers_nothing() -> None:
    xy, leaf = clustered(2, copies=3)
    figure = stamp(taxonomy_map(xy, TREE, leaf, None, [branch("x", leaf, xy, 1, 60)]), "FAILED diagnosis")
    assert collisions(figure) == []
    assert "FAILED diagnosis" in words(figure)


# --- trees of other shapes


@pytest.mark.parametrize("widths", [(3,), (30,), (2, 40)])
def test_flat_and_tiny_trees_have_maps_too(widths: tuple[int, ...]) -> None:
    tree = balanced(*widths)
    leaf = np.arange(2 * tree.leaves) % tree.leaves
    points = np.random.default_rng(0).normal(size=(len(leaf), 3))
    for figure in (taxonomy_map(points[:, :2], tree, leaf, None, []), taxonomy_orbit(points, tree, leaf)):
        assert collisions(figure) == []
        assert outside(figure) == []


# --- in space


def test_the_orbit_shows_three_views_and_the_key() -> None:
    xyz, leaf = clustered(3, copies=2)
    figure = taxonomy_orbit(xyz, TREE, leaf)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["azimuth −60°", "azimuth 0°", "azimuth 60°"]
    assert collisions(figure) == []
    assert outside(figure) == []
    assert smallest(figure) >= 6


def test_the_animation_turns_once_and_loops() -> None:
    xyz, leaf = clustered(3, copies=2)
    content = turning(xyz, TREE, leaf, frames=8)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "GIF"
        assert picture.size[0] == 480
        assert picture.info["loop"] == 0
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
    assert len(frames) == 8
    for frame, later in zip(frames, [*frames[1:], frames[0]], strict=True):
        assert (frame != later).any()
    below = frames[0].shape[0] - 30  # the names stand still
    assert all((frame[below:] == frames[0][below:]).all() for frame in frames)


def test_half_a_turn_mirrors_a_flat_picture() -> None:
    # Points on the axis' plane z = 0 seen from the other side: left and right change places.
    xyz = np.array([[0.0, -1, 0], [0, 0.4, 0], [0, 1, 0]])
    content = turning(xyz, balanced(3), np.array([0, 1, 2]), frames=2)
    with Image.open(io.BytesIO(content)) as picture:
        first, second = (np.asarray(frame.convert("L")) < 250 for frame in ImageSequence.Iterator(picture))
    columns = [np.flatnonzero(frame[:200].any(0)) for frame in (first, second)]
    np.testing.assert_allclose(columns[0], 480 - columns[1][::-1], atol=1)


# --- refusals

_XY, _LEAF = np.zeros((4, 2)), np.arange(4)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: taxonomy_map(np.zeros((4, 3)), TREE, _LEAF, None, []), r"xy must be \[N, 2\].*got \(4, 3\)"),
        (lambda: taxonomy_map(np.full((4, 2), np.nan), TREE, _LEAF, None, []), "xy must be finite"),
        (lambda: taxonomy_map(_XY, TREE, np.arange(3), None, []), r"leaf must be 4 integers, got int64 \(3,\)"),
        (lambda: taxonomy_map(_XY, TREE, _LEAF + 60, None, []), "leaf must lie in 0 to 59, got 60 to 63"),
        (lambda: taxonomy_map(_XY, TREE, _LEAF, np.zeros((4, 5, 5)), []), r"images must be \[4, h, w, 1 or 3\]"),
        (
            lambda: taxonomy_map(_XY, TREE, _LEAF, None, [Region(3, "x", np.array([4]), np.zeros(2))]),
            "region 3 must hold some of the 4 probes",
        ),
        (lambda: taxonomy_orbit(_XY, TREE, _LEAF), r"xyz must be \[N, 3\].*got \(4, 2\)"),
        (lambda: turning(np.zeros((4, 3)), TREE, _LEAF, frames=1), "frames must be >= 2, got 1"),
    ],
)
def test_wrong_arguments_are_refused_with_the_remedy(draw: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()
