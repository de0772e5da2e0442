import numpy as np
import pytest
from command import config

from losskernel.analyses import Levels
from losskernel.cli.build import build
from losskernel.data import taxonomy_vectors
from losskernel.errors import InputError
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.traces.loss_traces import LossTraces

COARSE, FINE = np.repeat([0, 1], 8), np.repeat([0, 1, 2, 3], 4)
CLASS = np.repeat(np.arange(8), 2)
LABELS = {"class": CLASS, "level_1": COARSE, "level_2": FINE}


def planted(weights: tuple[float, float, float], seed: int = 0, chains: int = 4) -> tuple[LossKernel, LossTraces]:
    """Losses that share a factor with all, with the coarse group and with the fine one, by these weights."""
    rng = np.random.default_rng(seed)
    factors = [rng.standard_normal((chains, 2000, count)) for count in (1, 2, 4, 16)]
    groups = (np.zeros(16, dtype=int), COARSE, FINE, np.arange(16))
    losses = sum(w * f[:, :, g] for w, f, g in zip((*weights, 1.0), factors, groups, strict=True))
    traces = LossTraces.from_arrays(losses, LABELS)
    return LossKernel.from_traces(traces), traces


def test_contrasts_are_those_of_the_planted_factors() -> None:
    a, b, c = 0.6, 0.7, 0.8
    metrics = Levels()(*planted((a, b, c))).metrics
    whole = a**2 + b**2 + c**2 + 1
    coupling = np.array([a**2, a**2 + b**2, a**2 + b**2 + c**2]) ** 2 / whole**2
    assert [metrics[f"coupling_{depth}"] for depth in range(3)] == pytest.approx(coupling.tolist(), rel=0.1)
    # Of the pairs below a coarse node, with other class: 4 x 4 across its two fine groups, 2 x 4 within them.
    within = (16 * coupling[1] + 8 * coupling[2]) / 24
    assert metrics["contrast_level_1"] == pytest.approx((within - coupling[0]) / (within + coupling[0]), abs=0.05)
    fine = (coupling[2] - coupling[1]) / (coupling[2] + coupling[1])
    assert metrics["contrast_level_2"] == pytest.approx(fine, abs=0.05)
    assert 0 < metrics["contrast_level_1_se"] < 0.1


def test_a_level_that_is_not_there_has_no_contrast() -> None:
    metrics = Levels()(*planted((0.9, 0.0, 0.9))).metrics
    assert abs(metrics["contrast_level_2"]) > 0.3
    flat = Levels()(*planted((0.9, 0.0, 0.0))).metrics
    assert abs(flat["contrast_level_1"]) < 0.1
    assert abs(flat["contrast_level_2"]) < 0.1


def test_the_table_counts_every_pair_of_different_classes_once() -> None:
    table = Levels()(*planted((0.5, 0.5, 0.5))).tables["levels"]
    assert table["pairs"].tolist() == [64, 32, 16]  # and 8 pairs of one class, left out
    assert table["shared"].tolist() == ["none", "level_1", "level_2"]


def test_levels_may_be_named() -> None:
    metrics = Levels(levels=["level_2"])(*planted((0.5, 0.5, 0.5))).metrics
    assert "contrast_level_2" in metrics
    assert "contrast_level_1" not in metrics


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": "level_1"}, "analysis.levels.levels must be a list of labels or null, got 'level_1'"),
        ({"levels": []}, "analysis.levels.levels must be a list"),
        ({"label": 3}, "analysis.levels.label must be a label's name, got 3"),
        ({"limit": 2}, "analysis.levels.limit must be >= 10, got 2"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        Levels(**settings)


def test_labels_that_are_no_hierarchy_are_refused() -> None:
    with pytest.raises(InputError, match="a group of level_1 lies in two groups of the level above; order them"):
        Levels(levels=["level_2", "level_1"]).check(LABELS)
    with pytest.raises(InputError, match="no label is called level_1; name the levels, of class"):
        Levels().check({"class": CLASS})
    with pytest.raises(InputError, match=r"there is no probe label \['depth'\]; choose from class, level_1, level_2"):
        Levels(levels=["depth"]).check(LABELS)


def test_one_chain_and_one_probe_a_group_are_refused() -> None:
    with pytest.raises(InputError, match=r"analysis\.levels needs >= 2 chains, got 1"):
        Levels()(*planted((0.5, 0.5, 0.5), chains=1))
    kernel, traces = planted((0.5, 0.5, 0.5))
    kernel.labels["class"] = FINE
    with pytest.raises(InputError, match="no two probes have level_2 in common and nothing below it"):
        Levels()(kernel, traces)


def test_vectors_follow_the_tree() -> None:
    data = taxonomy_vectors(branching=(2, 3), width=4000, per_class=2, probes_per_class=1, decay=0.5, noise=0.0)
    inputs = data.train.tensors[0][::2].numpy()  # of each class
    products = inputs @ inputs.T
    level = data.labels["level_1"]
    same = level[:, None] == level
    expected = np.where(np.eye(6, dtype=bool), 1.25, np.where(same, 1.0, 0.0))
    np.testing.assert_allclose(products, expected, atol=0.1)
    assert data.labels["class"].tolist() == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]
    assert data.members().tolist() == [-1] * 6
    assert data.classes == data.labels["class"].tolist()


def test_noise_has_its_length_and_seeds_their_effect() -> None:
    noisy, other = (taxonomy_vectors(branching=(2,), width=1000, decay=0.0, noise=2.0, seed=s) for s in (0, 1))
    spread = noisy.train.tensors[0][:40].var(0).sum().sqrt()
    assert float(spread) == pytest.approx(2.0, rel=0.05)
    again = taxonomy_vectors(branching=(2,), width=1000, decay=0.0, noise=2.0, seed=0)
    assert noisy.probes.tensors[0].equal(again.probes.tensors[0])
    assert not noisy.probes.tensors[0].equal(other.probes.tensors[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"branching": 3}, r"dataset\.branching must be a list of numbers of children, got 3"),
        ({"branching": [1]}, r"dataset\.branching must be >= 2, got 1"),
        ({"width": 0}, r"dataset\.width must be >= 1, got 0"),
        ({"noise": -1}, r"dataset\.noise must be >= 0, got -1"),
    ],
)
def test_bad_trees_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        taxonomy_vectors(**settings)


def test_the_recipe_asks_for_levels() -> None:
    study = build(config("experiment=taxonomy_toy"))
    assert isinstance(study.analyses["levels"], Levels)
    study.analyses["levels"].check(study.data.labels)
