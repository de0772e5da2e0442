"""Figures of a kernel held against a hierarchy show the numbers they are given, in order, and readably."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from drawn import balanced, collisions, legend, outside, smallest, words
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from losskernel.data.taxonomy import Tree
from losskernel.figures import depth_profile, kernel_comparison, matrix_pair, neighbour_sheet, relatedness, tanglegram
from losskernel.figures.shared.lettering import fit, spread, width
from losskernel.figures.trees.tanglegram import crossed, untangled

TREE = balanced(2, 3, 4)
COUNT = TREE.leaves
RNG = np.random.default_rng(0)


def similarity(noise: float = 0.01) -> np.ndarray:
    """More alike the deeper the common ancestor; 0.9 on the diagonal."""
    extra = noise * np.random.default_rng(0).normal(size=(COUNT, COUNT))
    matrix = 0.1 * TREE.lca_depth() + (extra + extra.T) / 2
    np.fill_diagonal(matrix, 0.9)
    return matrix


def distance() -> np.ndarray:
    return 6.0 - 2 * TREE.lca_depth()


def read_off(matrix: np.ndarray, support: float = np.nan) -> Tree:
    gaps = 1 - matrix
    np.fill_diagonal(gaps, 0.0)
    merges = linkage(squareform(gaps, checks=False), "average")
    tree = Tree.from_linkage(merges, TREE.ids[:COUNT], TREE.names[:COUNT])
    return replace(tree, support=np.full(len(tree.ids), support))


def readable(figure: Figure) -> None:
    assert collisions(figure) == []
    assert outside(figure) == []
    assert smallest(figure) >= 6


# --- matrix_pair


def test_both_matrices_follow_the_tree_and_leave_the_diagonal_out() -> None:
    shuffled = RNG.permutation(COUNT)  # the same tree, its leaves numbered otherwise
    inverse = np.argsort(shuffled)
    parents = TREE.parents.copy()
    parents[:COUNT] = TREE.parents[:COUNT][shuffled]
    ids = (*(TREE.ids[leaf] for leaf in shuffled), *TREE.ids[COUNT:])
    tree = Tree(ids, ids, parents)
    figure = matrix_pair(similarity()[np.ix_(shuffled, shuffled)], distance()[np.ix_(shuffled, shuffled)], tree)
    left, right = (np.ma.masked_array(axes.images[0].get_array()) for axes in figure.axes[:2])
    order = shuffled[tree.order()]
    assert inverse[order].tolist() == tree.order().tolist()
    for drawn, matrix in ((left, similarity()), (right, distance())):
        assert np.diagonal(drawn.mask).all()
        assert drawn.mask.sum() == COUNT
        np.testing.assert_allclose(drawn.compressed(), matrix[np.ix_(order, order)][~np.eye(COUNT, dtype=bool)])
    blocks = np.abs(np.diff(right.filled(0)[0])) > 0
    assert blocks.sum() <= 4  # siblings are neighbours: few steps along a row
    readable(figure)


def test_limits_leave_the_diagonal_out_and_are_stated() -> None:
    values = similarity()
    figure = matrix_pair(values, distance(), TREE)
    off = values[~np.eye(COUNT, dtype=bool)]
    assert figure.axes[0].images[0].get_clim() == pytest.approx(tuple(np.percentile(off, [2, 98])))
    assert "2nd to 98th percentile" in words(figure)
    assert "left out (median 0.9)" in words(figure)
    signed = matrix_pair(values - values.mean(), distance(), TREE, "R")
    low, high = signed.axes[0].images[0].get_clim()
    assert low == -high
    assert f"±{high:.2g}" in words(signed)


def test_a_class_of_one_probe_has_no_diagonal() -> None:
    values = similarity()
    values[3, 3] = np.nan
    assert "left out (median 0.9)" in words(matrix_pair(values, distance(), TREE))
    np.fill_diagonal(values, np.nan)
    assert "within a class, left out" in words(matrix_pair(values, distance(), TREE))


# --- relatedness


def by_relation(count: int = 4) -> tuple[list[str], list[np.ndarray], np.ndarray]:
    names = ["same class", *(f"depth {depth}" for depth in range(count - 2, -1, -1))]
    centres = np.r_[0.5, -0.2, np.zeros(count - 2)]
    return names, [RNG.normal(centre, 0.1, 500) for centre in centres], 0.2 * 0.3 ** np.arange(count)


def test_relations_show_distributions_shares_below_zero_and_couplings() -> None:
    names, values, coupling = by_relation()
    figure = relatedness(names, values, coupling, 0.8 * coupling, 1.2 * coupling, 0.03)
    upper, lower = figure.axes
    assert f"{100 * np.mean(values[1] < 0):.0f}%" in words(figure).split("\n")
    points = [line for line in lower.lines if line.get_marker() == "o"]
    np.testing.assert_allclose([float(np.asarray(line.get_ydata())[0]) for line in points], coupling)
    assert lower.get_yscale() == "log"
    assert legend(figure)[-1] == "noise: mean |R| = 0.03"
    low, high = upper.get_ylim()
    assert low < -0.3
    assert high > 0.6
    readable(figure)


def test_couplings_around_zero_stand_on_an_axis_that_has_a_zero() -> None:
    names, values, coupling = by_relation()
    low, high = coupling - 0.006, coupling + 0.006
    assert relatedness(names, values, coupling, low, high, None).axes[1].get_yscale() == "symlog"
    small = 0.001 * coupling
    assert relatedness(names, values, small, small - 0.006, small + 0.006, None).axes[1].get_yscale() == "linear"


def test_many_relations_take_the_width_of_the_page() -> None:
    names, values, coupling = by_relation(13)
    figure = relatedness(names, values, coupling, 0.8 * coupling, 1.2 * coupling, 0.03)
    assert figure.get_size_inches()[0] == 7.0
    readable(figure)


def test_equal_values_are_a_line_of_their_own() -> None:
    names, values, coupling = by_relation()
    values[2] = np.full(50, 0.25)
    readable(relatedness(names, values, coupling, coupling, coupling, None))


# --- tanglegram


def test_the_order_of_a_binary_tree_crosses_fewest_lines() -> None:
    matrix = np.random.default_rng(4).uniform(size=(6, 6))
    tree = Tree.from_linkage(linkage(squareform((matrix + matrix.T) / 2, checks=False), "average"), "abcdef", "abcdef")
    target = np.random.default_rng(1).permutation(6).astype(float)

    def orders(node: int) -> list[list[int]]:
        if node < 6:
            return [[node]]
        first, second = tree.children(node)
        pairs = list(product(orders(first), orders(second)))
        return [[*a, *b] for a, b in pairs] + [[*b, *a] for a, b in pairs]

    least = min(crossed(np.argsort(order), target) for order in orders(tree.root))
    result = untangled(tree, target)
    assert result.tolist() in orders(tree.root)
    assert crossed(np.argsort(result), target) == least


def test_crossings_are_counted_by_pairs() -> None:
    assert crossed(np.array([0, 1, 2]), np.array([0, 1, 2])) == 0
    assert crossed(np.array([0, 1, 2]), np.array([2, 1, 0])) == 3
    assert crossed(np.array([1, 0, 2]), np.array([0, 1, 2])) == 1


def test_a_faithful_tree_is_drawn_without_crossings_in_the_known_colours() -> None:
    figure = tanglegram(read_off(similarity(0.0), 0.97), TREE)
    said = words(figure)
    assert f"0 of {COUNT * (COUNT - 1) // 2} pairs of lines cross" in said
    assert "support ≥ 0.95" in legend(figure)
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len(marks) == COUNT - 2  # every branch but the root
    (lines,) = [part for part in figure.axes[1].collections if isinstance(part, LineCollection)]
    paths = [path.vertices for path in lines.get_paths()]
    assert len(paths) == COUNT
    assert all(np.asarray(path)[0, 1] == np.asarray(path)[-1, 1] for path in paths)
    readable(figure)


def test_branches_without_support_bear_no_mark() -> None:
    figure = tanglegram(read_off(similarity(), 0.3), TREE)
    assert not [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    unknown = tanglegram(read_off(similarity()), TREE)
    assert not any("support" in entry for entry in legend(unknown))


def test_long_names_never_reach_the_lines() -> None:
    longest = tuple(f"greater long-tailed mountain dog number {leaf}" for leaf in range(COUNT))
    known = Tree(TREE.ids, (*longest, *TREE.names[COUNT:]), TREE.parents)
    figure = tanglegram(read_off(similarity(0.3)), known)
    assert words(figure).count("…") == 2 * COUNT
    readable(figure)


def test_many_leaves_are_drawn_without_names_and_it_is_said() -> None:
    known = balanced(2, 5, 9)
    gaps = 4.0 - known.lca_depth() + np.random.default_rng(0).uniform(0, 0.1, (90, 90))
    gaps = (gaps + gaps.T) / 2
    np.fill_diagonal(gaps, 0)
    result = Tree.from_linkage(linkage(squareform(gaps, checks=False), "average"), known.ids[:90], known.names[:90])
    figure = tanglegram(replace(result, support=np.full(179, 0.9)), known)
    assert "90 leaves, too many to name" in words(figure)
    assert known.names[0] not in words(figure)
    assert not [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    readable(figure)


# --- kernel_comparison


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "kernel": ["random", "coupling", "penultimate", "abs_r"],
            "level": "depth 1",
            "spearman_classes": [0.01, 0.5, 0.4, 0.45],
            "spearman_classes_low": [np.nan, 0.45, np.nan, 0.4],
            "spearman_classes_high": [np.nan, 0.55, np.nan, 0.5],
            "spearman_classes_p": [0.4, 0.001, 0.001, 0.001],
            "spearman_classes_null_low": -0.05,
            "spearman_classes_null_high": 0.06,
            "knn": [0.1, 0.6, np.nan, 0.5],
        }
    )


def test_the_loss_kernels_rows_come_first_and_uncertain_dots_are_hollow() -> None:
    figure = kernel_comparison(table(), ["spearman_classes", "knn"])
    first, second = figure.axes
    names = [label.get_text() for label in first.get_yticklabels()]
    assert names == ["loss kernel, coupling R²", "loss kernel, |R|", "random", "penultimate features"]
    dots = [line for line in first.lines if line.get_marker() == "o"]
    assert [float(np.asarray(dot.get_xdata())[0]) for dot in dots] == [0.5, 0.45, 0.01, 0.4]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, False, True, False]
    assert len([line for line in second.lines if line.get_marker() == "o"]) == 3  # one is unknown
    assert second.get_title() == "k-NN precision\ndepth 1"
    assert legend(figure) == ["90 % interval", "90 % of permutations", "p > 0.05", "the loss kernel"]
    readable(figure)


def test_one_column_is_a_column_wide_and_many_take_several_rows() -> None:
    assert kernel_comparison(table(), ["knn"]).get_size_inches()[0] == 3.4
    assert legend(kernel_comparison(table(), ["knn"])) == ["the loss kernel"]
    several = kernel_comparison(table(), ["knn"] * 7)
    assert len([axes for axes in several.axes if axes.get_visible()]) == 7
    readable(several)


# --- depth_profile


def test_a_profile_shows_every_kernel_and_chance() -> None:
    levels = ["class\n(24)", "depth 2\n(6)", "depth 1\n(2)"]
    curves = {"coupling": np.array([0.2, 0.5, 0.8]), "penultimate": np.array([0.3, 0.4, 0.7])}
    figure = depth_profile(levels, curves, {"coupling": np.full(3, 0.05)}, np.array([0.04, 0.2, 0.5]), "precision")
    assert legend(figure) == ["chance", "loss kernel, coupling R²", "penultimate features"]
    assert "bars: standard errors" in words(figure)
    drawn = [np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines]
    assert [0.2, 0.5, 0.8] in drawn
    assert [0.04, 0.2, 0.5] in drawn
    readable(figure)
    bare = depth_profile(levels, curves, {}, None, "precision")
    assert "standard errors" not in words(bare)
    assert legend(bare)[0] == "loss kernel, coupling R²"


# --- words that fit


def test_neighbours_with_long_names_do_not_touch() -> None:
    names = ["greater Swiss Mountain dog", "yellow lady's slipper", "wire-haired fox terrier", "jay"] * 4
    images = RNG.integers(0, 256, (16, 8, 8, 3))
    for k in (4, 8, 12):
        neighbours = np.tile(np.arange(1, k + 1), (2, 1))
        figure = neighbour_sheet(np.array([0, 5]), neighbours, np.full((2, k), 0.25), images, names)
        readable(figure)
        labels = [axes.get_xlabel() for axes in figure.axes]
        assert all(label.endswith(("query", "R = 0.25")) for label in labels)
        assert len({label.count("\n") for label in labels}) == 1  # similarities of a row are level
    readable(neighbour_sheet(np.array([0]), np.arange(1, 9)[None], np.full((1, 8), 0.25), None, names))


def test_words_are_cut_to_measure() -> None:
    assert fit("bald eagle", 5.0, 7) == "bald eagle"
    wrapped = fit("sulphur-crested cockatoo", 0.8, 7, lines=2)
    assert wrapped == "sulphur-crested\ncockatoo"
    assert fit("an extraordinarily long name of a class", 0.7, 7, lines=2).endswith("…")
    for inches in (0.2, 0.5, 1.0):
        for line in fit("Petit Basset Griffon Vendéen of the Vendée", inches, 6.5, lines=3).split("\n"):
            assert width(line, 6.5) <= inches
    assert fit("", 1.0, 7) == ""


def test_labels_are_moved_apart_no_farther_than_need_be() -> None:
    free = np.array([1.0, 3.0, 5.0])
    np.testing.assert_allclose(spread(free, np.ones(3), 0, 10), free)
    moved = spread(np.array([5.0, 5.0, 1.0]), np.ones(3), 0, 10)
    np.testing.assert_allclose(moved, [4.5, 5.5, 1.0])
    edge = spread(np.array([0.0, 0.1]), np.ones(2), 0, 10)
    np.testing.assert_allclose(edge, [0.5, 1.5])
    squeezed = spread(np.zeros(4), np.ones(4), 0, 2)
    np.testing.assert_allclose(squeezed, [0.25, 0.75, 1.25, 1.75])
    assert spread(np.zeros(0), np.zeros(0), 0, 1).size == 0


# --- refusals

_ONE = [np.ones(3)]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: matrix_pair(np.eye(3), distance(), TREE), r"similarity must be \[24, 24\].*got \(3, 3\)"),
        (lambda: matrix_pair(similarity(), np.full((24, 24), np.nan), TREE), "distance must be finite off"),
        (lambda: matrix_pair(np.eye(2), np.eye(2), balanced(2)), "tree must have >= 3 leaves, got 2"),
        (lambda: relatedness(["a", "b"], _ONE, np.ones(2), np.ones(2), np.ones(2), None), r"per relation \(2\), got 1"),
        (lambda: relatedness(["a"], [np.ones(0)], np.ones(1), np.ones(1), np.ones(1), None), "correlations of 'a'"),
        (lambda: relatedness(["a"], _ONE, np.ones(2), np.ones(1), np.ones(1), None), "coupling must be 1 finite"),
        (lambda: tanglegram(TREE, balanced(2, 3)), "derived must have the 6 leaves of known in the same order, got 24"),
        (lambda: tanglegram(balanced(2), balanced(2)), "known must have >= 3 leaves, got 2"),
        (lambda: kernel_comparison(table(), ["ari"]), "table has no column 'ari'; it has kernel, level"),
        (lambda: kernel_comparison(table(), []), "table and columns must not be empty"),
        (lambda: depth_profile([], {}, {}, None, "y"), "levels and curves must not be empty"),
        (lambda: depth_profile(["a"], {"x": np.ones(2)}, {}, None, "y"), r"'x' must have one number per level \(1\)"),
        (lambda: depth_profile(["a"], {"x": np.ones(1)}, {}, np.ones(2), "y"), "'chance' must have one number"),
    ],
)
def test_wrong_arguments_are_refused_with_the_remedy(draw: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()
