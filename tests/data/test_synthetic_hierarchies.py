import numpy as np
import pytest
import torch

from losskernel.data import taxonomy_images
from losskernel.data.synthetic import LEAVES, components
from losskernel.data.taxonomy import wordnet
from losskernel.errors import InputError

SMALL = {"size": 16, "per_class": 3, "probes_per_class": 2}


def _templates(strengths: list[float], size: int = 24) -> tuple[np.ndarray, np.ndarray]:
    tree = wordnet(LEAVES).tree(LEAVES)
    return components(tree, size, strengths, seed=0).sum(1).flatten(1).double().numpy(), tree.lca_depth()


def test_the_default_classes_make_an_even_tree() -> None:
    tree = wordnet(LEAVES).tree(LEAVES)
    assert set(tree.depths()[: tree.leaves]) == {4}
    assert [len(set(tree.groups(level))) for level in range(5)] == [1, 2, 6, 12, 60]


def test_templates_agree_by_the_strengths_of_the_levels_that_they_share() -> None:
    strengths = [0.5, 1.0, 1.5, 2.0]
    templates, depth = _templates(strengths)
    shared = np.concatenate([[0], np.cumsum(np.square(strengths))])
    # patterns are kept in single precision
    np.testing.assert_allclose(templates @ templates.T / templates.shape[1], shared[depth], atol=1e-5)


def test_deeper_patterns_are_finer() -> None:
    tree = wordnet(LEAVES).tree(LEAVES)
    parts = components(tree, 64, [1.0] * 4, seed=0)
    changes = (parts[..., 1:] - parts[..., :-1]).square().mean((0, 2, 3, 4))
    assert (changes.diff() > 0).all()


def test_samples_of_a_class_are_nearer_the_more_they_share() -> None:
    data = taxonomy_images(size=32, per_class=1, probes_per_class=6, noise=0.3)
    inputs = data.probes[:][0].flatten(1).numpy()  # pyright: ignore[reportIndexIssue]
    product = inputs @ inputs.T / inputs.shape[1]
    depth = np.kron(wordnet(LEAVES).tree(LEAVES).lca_depth(), np.ones((6, 6), dtype=int))
    other = ~np.eye(len(depth), dtype=bool)
    means = [product[(depth == level) & other].mean() for level in range(5)]
    assert np.all(np.diff(means) > 0.2)  # shifts and changes of size cost part of each level's 1
    assert abs(means[0]) < 0.2


def test_pixel_noise_has_the_given_size() -> None:
    still = {"shift": 0.0, "scale": 0.0, "strength_scatter": 0.0}
    quiet, noisy = (
        taxonomy_images(**SMALL, **still, noise=noise, leaves=LEAVES[:2]).train[:][0]  # pyright: ignore
        for noise in (0.0, 0.7)
    )
    assert torch.equal(quiet[0], quiet[1])
    assert (noisy - quiet).std() == pytest.approx(0.7, rel=0.05)


def test_the_seed_fixes_patterns_and_samples() -> None:
    first, again, other = (taxonomy_images(**SMALL, seed=seed).train[:][0] for seed in (0, 0, 1))  # pyright: ignore
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_probes_are_new_images_or_the_training_images() -> None:
    new, old = (taxonomy_images(**SMALL, probe_split=split) for split in ("new", "train"))
    train, targets = old.train[:]  # pyright: ignore[reportIndexIssue]
    train, targets = train.view(60, 3, -1), targets.view(60, 3)
    inputs, classes = old.probes[:]  # pyright: ignore[reportIndexIssue]
    assert torch.equal(inputs.view(60, 2, -1), train[:, :2])
    assert torch.equal(classes.view(60, 2), targets[:, :2])
    assert not torch.isclose(new.probes[:][0].view(60, 2, 1, -1), train[:, None]).all(-1).any()  # pyright: ignore


@pytest.mark.parametrize("split", ["new", "train"])
def test_training_images_have_names(split: str) -> None:
    data = taxonomy_images(**SMALL, probe_split=split)
    members = data.members()
    if split == "new":
        assert (members == -1).all()
    else:
        assert torch.equal(data.train[:][0][members], data.probes[:][0])  # pyright: ignore[reportIndexIssue]
    assert np.array(data.classes)[data.probes[:][1]].tolist() == data.labels["class"].tolist()  # pyright: ignore
    assert np.asarray(data.ids)[0] == f"{LEAVES[0]}/0"


def test_all_training_images_as_probes() -> None:
    data = taxonomy_images(size=16, per_class=3, probes_per_class=None, probe_split="train")
    assert data.members().tolist() == list(range(180))
    assert torch.equal(data.train[:][0], data.probes[:][0])  # pyright: ignore[reportIndexIssue]


def test_labels_name_the_class_and_its_branches() -> None:
    data = taxonomy_images(**SMALL)
    assert list(data.labels) == ["class", "wnid", "level_1", "level_2", "level_3"]
    assert [values[0] for values in data.labels.values()] == ["dalmatian", LEAVES[0], "vertebrate", "placental", "dog"]
    assert np.asarray(data.ids)[:3].tolist() == [f"{LEAVES[0]}/0", f"{LEAVES[0]}/1", f"{LEAVES[1]}/0"]


def test_any_tree_from_a_file_serves(tmp_path) -> None:
    (tmp_path / "tree.json").write_text('{"thing": {"animal": ["dog", "cat"], "tool": ["saw", "axe"]}}')
    leaves = ["dog", "cat", "saw", "axe"]
    data = taxonomy_images(**SMALL, leaves=leaves, taxonomy=str(tmp_path / "tree.json"))
    assert len(data.probes) == 8  # pyright: ignore[reportArgumentType]
    assert list(data.labels["level_1"]) == ["animal"] * 4 + ["tool"] * 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 8}, r"dataset.size must be >= 16"),
        ({"per_class": 0}, "dataset.per_class must be >= 1"),
        ({"noise": -1.0}, "dataset.noise must be >= 0"),
        ({"probes_per_class": None}, "dataset.probes_per_class must be a whole number, got None"),
        ({"scale": 1.0}, "dataset.scale must be < 1, got 1.0; 0.1 varies"),
        ({"probe_split": "val"}, "dataset.probe_split must be 'new' or 'train', got 'val'"),
        ({"probe_split": "train", "probes_per_class": 9}, "dataset.probes_per_class must be <= per_class=3"),
        ({"leaves": ["n02110341"]}, "dataset.leaves must name >= 2 classes"),
        ({"strengths": [1.0, 1.0]}, "dataset.strengths has 2 numbers for the tree's 4 levels"),
        ({"strengths": -1.0}, "dataset.strengths must be >= 0"),
    ],
)
def test_bad_values_are_named(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        taxonomy_images(**(SMALL | wrong))
