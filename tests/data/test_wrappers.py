"""Wrappers of datasets: training samples as probes, and planted truth."""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import config
from pictures import cifar_like, draw, shared_data
from torch.utils.data import TensorDataset

from losskernel import Data
from losskernel.cli.build import build
from losskernel.data import (
    Backdoor,
    ClassDependentNoise,
    Duplicates,
    HumanLabels,
    InstanceDependentNoise,
    JointProbes,
    NearDuplicates,
    SymmetricNoise,
    TrainingProbes,
    arithmetic,
    cifar10,
    digits,
    image_folder,
    stack,
    taxonomy_images,
)
from losskernel.data.base import ReadOnce, held
from losskernel.data.recombined import Assembled, targets_of
from losskernel.errors import InputError
from losskernel.losses import cross_entropy

NOISES: list[Callable[[Data], Data]] = [
    SymmetricNoise(0.2),
    ClassDependentNoise(0.2),
    InstanceDependentNoise(0.2),
]
OTHERS: list[Callable[[Data], Data]] = [
    TrainingProbes(100),
    JointProbes(100, 50),
    Duplicates(20),
    NearDuplicates(20),
    Backdoor(20, "3"),
]
NAMES = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def whole() -> Data:
    """All training images of the digits, each a probe."""
    return digits(probes=None)


@pytest.fixture(scope="module")
def half() -> Data:
    """Digits whose probes are 100 training images and, at the end, 60 held-out ones."""
    inside, outside = digits(probes=100), digits(probes=60, probe_split="held_out")
    both = [torch.cat(pair) for pair in zip(stack(inside.probes), stack(outside.probes), strict=True)]
    return replace(
        inside,
        probes=torch.utils.data.TensorDataset(*both),
        labels={"class": np.concatenate([inside.labels["class"], outside.labels["class"]])},
        ids=[*inside.ids.tolist(), *outside.ids.tolist()],
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("ant", "bee", "cat")):
        for item in range(6):
            draw(tmp_path / "pictures" / name / f"{item}.png", 10 * number + item)
    return tmp_path / "pictures"


def _pictures(folder: Path, **given: Any) -> Data:
    return image_folder(str(folder), size=16, workers=0, cache=str(folder.parent / "cache"), **given)


def _same(first: Data, second: Data) -> bool:
    parts = [(stack(getattr(first, name)), stack(getattr(second, name))) for name in ("train", "probes")]
    return all(
        len(one[0]) == len(other[0]) and all(torch.equal(*pair) for pair in zip(one, other, strict=True))
        for one, other in parts
    )


def _agree(data: Data) -> None:
    """Probes that are training samples have these samples' inputs and labels."""
    members = data.members()
    inside = np.flatnonzero(members >= 0)
    assert len(inside) > 0
    for part, labels in zip(stack(data.train), stack(data.probes), strict=True):
        assert torch.equal(part[members[inside]], labels[inside])


# --- what holds of all


@pytest.mark.parametrize("wrapper", [*NOISES, *OTHERS], ids=lambda item: type(item).__name__)
def test_members_agree_and_nothing_given_is_changed(wrapper: Callable[[Data], Data], half: Data) -> None:
    before = [tensor.clone() for part in (half.train, half.probes) for tensor in stack(part)]
    labels = {name: values.copy() for name, values in half.labels.items()}
    _agree(wrapper(half))
    for tensor, now in zip(before, [*stack(half.train), *stack(half.probes)], strict=True):
        assert torch.equal(tensor, now)
    assert list(half.labels) == list(labels)
    np.testing.assert_array_equal(half.labels["class"], labels["class"])


@pytest.mark.parametrize("wrapper", [*NOISES, *OTHERS], ids=lambda item: type(item).__name__)
def test_the_seed_fixes_what_is_done(wrapper: Any, half: Data) -> None:
    made, again, other = wrapper(half), replace(wrapper, seed=0)(half), replace(wrapper, seed=1)(half)
    assert _same(made, again)
    assert made.ids.tolist() == again.ids.tolist()
    assert not _same(made, other)


def test_wrappers_of_one_seed_choose_each_for_itself(whole: Data) -> None:
    probed = TrainingProbes(500)(whole)
    chosen = np.isin(np.arange(1500), probed.members())
    wrong = stack(SymmetricNoise(0.2)(whole).train)[1] != stack(whole.train)[1]
    assert abs(chosen[wrong.numpy()].mean() - 1 / 3) < 4 * np.sqrt(2 / 9 / 300)


# --- label noise


@pytest.mark.parametrize("noise", NOISES, ids=lambda item: type(item).__name__)
def test_noise_knows_the_truth_of_its_probes(noise: Callable[[Data], Data], half: Data) -> None:
    data = noise(half)
    before, after = stack(half.probes)[1], stack(data.probes)[1]
    names = np.array(NAMES)
    assert data.labels["class"].tolist() == names[after].tolist()
    assert data.labels["true_class"].tolist() == names[before].tolist()
    assert data.labels["mislabelled"].dtype == bool
    assert data.labels["mislabelled"].tolist() == (before != after).tolist()
    assert data.labels["mislabelled"][:100].any()
    assert not data.labels["mislabelled"][100:].any()  # of held-out probes
    assert torch.equal(stack(data.train)[0], stack(half.train)[0])
    assert data.ids.tolist() == half.ids.tolist()


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.123, 0.9])
def test_symmetric_noise_is_exact_and_goes_everywhere_alike(rate: float, whole: Data) -> None:
    before, after = stack(whole.train)[1], stack(SymmetricNoise(rate, seed=3)(whole).train)[1]
    wrong = before != after
    assert int(wrong.sum()) == round(rate * 1500)
    if rate == 0.9:
        steps = np.bincount(((after - before) % 10)[wrong], minlength=10)
        assert steps[0] == 0
        assert np.abs(steps[1:] - 150).max() < 4 * np.sqrt(150 * 8 / 9)
        counts = np.bincount(before[wrong], minlength=10) / np.bincount(before, minlength=10)
        assert np.abs(counts - 0.9).max() < 4 * np.sqrt(0.09 / 140)


def test_a_class_is_mistaken_for_the_next(whole: Data) -> None:
    before, after = (stack(data.train)[1].numpy() for data in (whole, ClassDependentNoise(0.3)(whole)))
    for digit in range(10):
        labels = after[before == digit]
        wrong = labels != digit
        assert wrong.sum() == round(0.3 * len(labels))
        assert set(labels[wrong]) == {(digit + 1) % 10}


@pytest.mark.parametrize("pairs", [{"4": "9", "7": 1}, {4: 9, 7: "1"}])
def test_named_classes_are_mistaken_for_others(pairs: dict, whole: Data) -> None:
    before, after = (stack(data.train)[1].numpy() for data in (whole, ClassDependentNoise(0.25, pairs)(whole)))
    wrong = before != after
    assert {(int(a), int(b)) for a, b in zip(before[wrong], after[wrong], strict=True)} == {(4, 9), (7, 1)}
    for digit in (4, 7):
        assert wrong[before == digit].sum() == round(0.25 * (before == digit).sum())


def test_no_pairs_are_no_noise(whole: Data) -> None:
    assert not ClassDependentNoise(0.5, {})(whole).labels["mislabelled"].any()


def test_a_transition_matrix_is_followed(whole: Data) -> None:
    rng = np.random.default_rng(0)
    matrix = 0.6 * np.eye(10) + 0.4 * rng.dirichlet(np.ones(10), 10)
    before, after = (
        stack(data.train)[1].numpy() for data in (whole, ClassDependentNoise(None, matrix.tolist(), seed=1)(whole))
    )
    counts = np.zeros((10, 10))
    np.add.at(counts, (before, after), 1)
    totals = counts.sum(1, keepdims=True)
    assert np.abs(counts - totals * matrix).max() < 1  # exact but for whole samples, far within the binomial's spread
    again = stack(ClassDependentNoise(None, matrix.tolist(), seed=2)(whole).train)[1].numpy()
    assert (again != after).any()


def test_noise_has_no_use_for_classes_without_training_samples() -> None:
    data = digits(probes=50)
    chosen = [row for row, target in enumerate(stack(data.train)[1].tolist()) if target in (2, 5, 9)]
    some = replace(
        data, train=torch.utils.data.Subset(data.train, chosen), train_ids=[data.train_ids[r] for r in chosen]
    )
    for noise in (SymmetricNoise(0.5), ClassDependentNoise(0.5), InstanceDependentNoise(0.5)):
        assert set(stack(noise(some).train)[1].tolist()) == {2, 5, 9}
    follows = {(2, 5), (5, 9), (9, 2)}
    before, after = stack(some.train)[1], stack(ClassDependentNoise(0.5)(some).train)[1]
    assert {pair for pair in zip(before.tolist(), after.tolist(), strict=True) if pair[0] != pair[1]} == follows


@pytest.mark.parametrize(("rate", "scatter"), [(0.02, 0.1), (0.1, 0.1), (0.45, 0.3), (0.4, 0.0)])
def test_rates_of_instances_have_the_mean_that_is_asked_for(rate: float, scatter: float) -> None:
    rates = InstanceDependentNoise(rate, scatter).rates(20_000, np.random.default_rng(0))
    assert (rates.min() >= 0) & (rates.max() <= 1)
    assert abs(rates.mean() - rate) <= 3 * rates.std() / np.sqrt(20_000) + 1e-12
    assert rates.std() <= scatter + 1e-12
    assert (rates.std() > 0.1 * scatter) or scatter == 0


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_instance_noise_has_its_mean_rate(rate: float, whole: Data) -> None:
    before = stack(whole.train)[1]
    wrong = [(stack(InstanceDependentNoise(rate, seed=s)(whole).train)[1] != before).sum() for s in range(3)]
    assert abs(sum(wrong) / 4500 - rate) < 3 * np.sqrt(rate * (1 - rate) / 4500)
    assert len(set(wrong)) > 1
    assert torch.equal(stack(InstanceDependentNoise(0.0)(whole).train)[1], before)


def test_alike_inputs_are_mistaken_alike(whole: Data) -> None:
    """Of many copies of a few images, each image's copies go where its own projection says."""
    inputs, targets = (part[:12].repeat_interleave(1000, 0) for part in stack(whole.train))
    noise = InstanceDependentNoise(0.5, seed=2)
    made = noise(Data(torch.utils.data.TensorDataset(inputs, targets), whole.probes, cross_entropy))
    after, present = stack(made.train)[1].view(12, 1000).numpy(), np.unique(targets).tolist()
    for row, labels in enumerate(targets[::1000].tolist()):
        image = inputs[1000 * row].flatten().double().numpy()[None]
        likely = noise.mistaken([image], present.index(labels), len(present))[0]
        assert likely[present.index(labels)] == 0
        np.testing.assert_allclose(likely.sum(), 1)
        wrong = after[row][after[row] != labels]
        result = np.array([(wrong == item).mean() for item in present])
        assert np.abs(result - likely).max() < 4 * np.sqrt(0.25 / len(wrong))
        assert len(wrong) == pytest.approx(500, abs=4 * np.sqrt(250))
    images = inputs[::1000].flatten(1).double().numpy()
    likely = noise.mistaken([images[:5], images[5:]], 3, 10)
    assert len(set(likely.argmax(1).tolist())) > 1  # other images, other mistakes
    np.testing.assert_allclose(noise.mistaken([images[4:5]], 3, 10), likely[4:5], rtol=1e-9)
    assert not np.allclose(replace(noise, seed=3).mistaken([images], 3, 10), likely)


def labels_of_people(folder: Path, clean: np.ndarray, given: np.ndarray) -> str:
    torch.save({"clean_label": clean, "aggre_label": given, "other": [0.5]}, folder / "labels.pt")
    return str(folder / "labels.pt")


def test_people_s_labels_follow_the_samples_of_each_class(tmp_path: Path) -> None:
    true, given = np.array([2, 0, 1, 0, 2, 2, 1, 0]), np.array([2, 1, 1, 0, 0, 1, 2, 2])
    file = labels_of_people(tmp_path, true, given)
    rows = np.argsort(true, kind="stable")
    for order in (np.arange(8), rows):  # as in the file, and sorted into folders
        inputs = torch.as_tensor(order, dtype=torch.float32)[:, None]
        dataset = TensorDataset(inputs, torch.as_tensor(true[order]))
        data = Data(train=dataset, probes=dataset, loss=cross_entropy, train_ids=range(8), classes=["a", "b", "c"])
        noisy = HumanLabels(file)(data)
        assert targets_of(noisy.train, 0).tolist() == given[order].tolist()
        assert targets_of(noisy.probes, 0).tolist() == given[order].tolist()
        assert noisy.labels["class"].tolist() == ["abc"[number] for number in given[order]]
        assert noisy.labels["true_class"].tolist() == ["abc"[number] for number in true[order]]
        assert noisy.labels["mislabelled"].tolist() == (given != true)[order].tolist()
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        archive.writestr("README.md", "two")
        torch.save({"clean_label": np.arange(8) % 2, "aggre_label": np.zeros(8, int)}, tmp_path / "a.pt")
        archive.write(tmp_path / "a.pt", "data/a.pt")
        archive.write(file, "data/b.pt")
    assert targets_of(HumanLabels(str(tmp_path / "both.zip"))(data).train, 0).tolist() == given[rows].tolist()


def test_people_s_labels_that_do_not_fit_are_refused(whole: Data, tmp_path: Path) -> None:
    targets = targets_of(whole.train, 0).numpy()
    file = labels_of_people(tmp_path, targets[:-1], targets[:-1])
    with pytest.raises(InputError, match=r"is about another training set: its clean_label has not the 1500 samples in"):
        HumanLabels(file)(whole)
    file = labels_of_people(tmp_path, targets, targets + 5)
    with pytest.raises(InputError, match=r"wrapper.human_labels.given=aggre_label is no label of each sample"):
        HumanLabels(file)(whole)
    with pytest.raises(InputError, match=r"there is no 'worse_label' in .*; it has clean_label, aggre_label, other"):
        HumanLabels(file, "worse_label")(whole)
    Path(file).write_bytes(b"no labels")
    with pytest.raises(InputError, match=r"wrapper.human_labels.file=.*labels.pt cannot be read: .*; get it again"):
        HumanLabels(file)(whole)
    with pytest.raises(InputError, match=r"wrapper.human_labels.file=nowhere does not exist"):
        HumanLabels("nowhere")


def test_the_real_labels_of_people_have_their_published_rates() -> None:
    file = str(shared_data("cifarN_labels.zip"))
    targets = torch.arange(50_000) // 5000  # sorted into folders
    dataset = TensorDataset(torch.zeros(50_000, 1), targets)
    data = Data(train=dataset, probes=dataset, loss=cross_entropy, train_ids=range(50_000))
    # Wei et al. 2022, table 1: aggregate 9.03 %, random 17.23, 18.12 and 17.64 %, worst 40.21 %.
    wrong = {"aggre_label": 9.03, "random_label1": 17.23, "random_label2": 18.12, "random_label3": 17.64}
    for given, rate in (wrong | {"worse_label": 40.21}).items():
        after = targets_of(HumanLabels(file, given)(data).train, 0)
        assert 100 * float((after != targets).double().mean()) == pytest.approx(rate, abs=0.05)


def test_the_first_truth_stays(whole: Data) -> None:
    once = ClassDependentNoise(0.3)(whole)
    twice = SymmetricNoise(0.3)(once)
    np.testing.assert_array_equal(twice.labels["true_class"], once.labels["true_class"])
    given = np.array(NAMES)[stack(twice.train)[1]]
    np.testing.assert_array_equal(twice.labels["class"], given)
    np.testing.assert_array_equal(twice.labels["mislabelled"], given != once.labels["true_class"])
    back = ClassDependentNoise(None, np.eye(10).tolist())(once)
    np.testing.assert_array_equal(back.labels["mislabelled"], once.labels["mislabelled"])


def test_classes_without_names_are_numbers() -> None:
    numbers = torch.arange(40) % 4
    samples = torch.utils.data.TensorDataset(torch.randn(40, 2), numbers)
    data = SymmetricNoise(0.5)(Data(samples, samples, cross_entropy, train_ids=list(range(40))))
    assert data.labels["true_class"].tolist() == numbers.tolist()
    assert data.labels["class"].tolist() == stack(data.train)[1].tolist()
    assert data.labels["mislabelled"].sum() == 20
    unknown = SymmetricNoise(0.5)(Data(samples, samples, cross_entropy))  # no probe is known to be a training sample
    assert not unknown.labels["mislabelled"].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SymmetricNoise(1.0), r"wrapper.symmetric_noise.rate must be < 1, got 1.0; 0.1 makes a tenth"),
        (lambda: SymmetricNoise(-0.1), "wrapper.symmetric_noise.rate must be >= 0"),
        (lambda: SymmetricNoise("x"), "wrapper.symmetric_noise.rate must be a number"),
        (lambda: SymmetricNoise(0.1, -1), "wrapper.symmetric_noise.seed must be >= 0"),
        (lambda: ClassDependentNoise(None), "wrapper.class_dependent_noise.rate must be a number"),
        (
            lambda: ClassDependentNoise(0.1, [[1, 0], [0, 1]]),
            "rate must be null beside a matrix, which states it, got 0.1; set",
        ),
        (lambda: ClassDependentNoise(None, [[1, 0]]), "pairs must be class: class, or a square matrix .* got"),
        (lambda: ClassDependentNoise(None, "cat"), "pairs must be class: class, or a square matrix .* got 'cat'"),
        (lambda: ClassDependentNoise(None, [[1, 1], [0, 1]]), r"rows are probabilities, got row sums \[2.0, 1.0\]"),
        (lambda: ClassDependentNoise(None, [[2, -1], [0, 1]]), "rows are probabilities, got row sums"),
        (lambda: ClassDependentNoise(None, [[1, 0], [0, 1]], -1), "wrapper.class_dependent_noise.seed must be >= 0"),
        (lambda: InstanceDependentNoise(2.0), "wrapper.instance_dependent_noise.rate must be < 1"),
        (lambda: InstanceDependentNoise(0.1, -1.0), "wrapper.instance_dependent_noise.scatter must be >= 0"),
        (lambda: TrainingProbes(0), "wrapper.training_probes.limit must be >= 1"),
        (lambda: TrainingProbes(seed=-1), "wrapper.training_probes.seed must be >= 0"),
        (lambda: JointProbes(train_limit=0), "wrapper.joint_probes.train_limit must be >= 1"),
        (lambda: JointProbes(query_limit=1.5), "wrapper.joint_probes.query_limit must be a whole number"),
        (lambda: Duplicates(0), "wrapper.duplicates.count must be >= 1"),
        (lambda: Duplicates(1, -1), "wrapper.duplicates.seed must be >= 0"),
        (lambda: NearDuplicates(0), "wrapper.near_duplicates.count must be >= 1"),
        (lambda: NearDuplicates(1, 0.0), "wrapper.near_duplicates.noise must be > 0"),
        (lambda: NearDuplicates(1, seed=-1), "wrapper.near_duplicates.seed must be >= 0"),
        (lambda: Backdoor(0, 1), "wrapper.backdoor.count must be >= 1"),
        (lambda: Backdoor(1, 1, size=0), "wrapper.backdoor.size must be >= 1"),
        (lambda: Backdoor(1, 1, value="white"), "wrapper.backdoor.value must be a number"),
        (lambda: Backdoor(1, 1, seed=-1), "wrapper.backdoor.seed must be >= 0"),
    ],
)
def test_numbers_out_of_range_are_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        make()
    assert len(str(raised.value).splitlines()) == 1


def _one_class(data: Data) -> Data:
    return replace(
        data, train=torch.utils.data.TensorDataset(torch.zeros(5, 1, 8, 8), torch.ones(5).long()), train_ids=None
    )


@pytest.mark.parametrize(
    ("wrapper", "change", "message"),
    [
        (
            SymmetricNoise(0.1),
            lambda _: arithmetic(),
            "wrapper.symmetric_noise needs class numbers as targets, got float32",
        ),
        (ClassDependentNoise(0.1), lambda _: arithmetic(), "wrapper.class_dependent_noise needs class numbers"),
        (
            InstanceDependentNoise(0.1),
            lambda _: arithmetic(),
            "instance_dependent_noise needs class numbers as targets",
        ),
        (Backdoor(1, 0), lambda _: arithmetic(), "wrapper.backdoor needs class numbers as targets, got float32"),
        (
            SymmetricNoise(0.1),
            _one_class,
            "wrapper.symmetric_noise needs >= 2 classes among the training samples, got 1",
        ),
        (
            ClassDependentNoise(0.1, {"ten": 1}),
            None,
            "pairs: no class is named 'ten'; classes are 0, 1, 2, 3, 4, ...",
        ),
        (ClassDependentNoise(0.1, {10: 1}), None, r"pairs: there is no class 10; classes are 0 ... 9"),
        (ClassDependentNoise(0.1, {1: "1"}), None, "pairs sends 1 to itself; name another class"),
        (ClassDependentNoise(0.1, {1: 2, "1": 3}), None, "pairs names '1' twice; once by name, once by number"),
        (ClassDependentNoise(None, [[1, 0], [0, 1]]), None, "must have a row for each of the 10 classes, got 2"),
        (
            SymmetricNoise(0.1),
            lambda data: replace(data, classes=["a"]),
            "data.classes has 1 names, but targets count 10",
        ),
        (TrainingProbes(2000), None, "wrapper.training_probes.limit must be <= the 1500 training samples, got 2000"),
        (JointProbes(2000), None, "wrapper.joint_probes.train_limit must be <= the 1500 training samples, got 2000"),
        (JointProbes(5, 200), None, "wrapper.joint_probes.query_limit must be <= the 160 present probes, got 200"),
        (
            Duplicates(101),
            None,
            r"duplicates.count must be <= the 100 probes that are .* wrapper=\[training_probes,dupl",
        ),
        (
            NearDuplicates(101),
            None,
            "wrapper.near_duplicates.count must be <= the 100 probes that are training samples",
        ),
        (Backdoor(91, 3), None, "wrapper.backdoor.count must be <= the 90 probes that are training samples and fit"),
        (Backdoor(1, 3, size=9), None, r"needs images \[C, H, W\] of at least wrapper.backdoor.size=9 .*\[1, 8, 8\]"),
        (Backdoor(1, "x"), None, "wrapper.backdoor.target: no class is named 'x'"),
        (
            Backdoor(1, 3),
            lambda data: replace(data, train_ids=None),
            "must be <= the 0 probes that are training samples",
        ),
    ],
)
def test_what_a_wrapper_cannot_take_is_one_clear_line(
    wrapper: Callable[[Data], Data], change: Callable[[Data], Data] | None, message: str, half: Data
) -> None:
    with pytest.raises(InputError, match=message) as raised:
        wrapper(half if change is None else change(half))
    assert len(str(raised.value).splitlines()) == 1


# --- training samples as probes


def test_training_probes_are_the_training_set(half: Data) -> None:
    data = TrainingProbes()(half)
    for part in (data.train, data.probes):
        assert all(torch.equal(*pair) for pair in zip(stack(part), stack(half.train), strict=True))
    assert data.ids.tolist() == half.train_ids
    assert data.members().tolist() == list(range(1500))
    assert data.labels["class"].tolist() == np.array(NAMES)[stack(half.train)[1]].tolist()
    some = TrainingProbes(40)(half).members()
    assert len(some) == 40
    assert (np.diff(some) > 0).all()
    assert data.labels.keys() == {"class"}


def test_training_probes_keep_what_is_known_of_them() -> None:
    data = taxonomy_images(size=16, per_class=3, probes_per_class=2)
    probed = TrainingProbes()(data)
    assert list(probed.labels) == ["wnid", "level_1", "level_2", "level_3", "class"]
    for name in data.labels:
        np.testing.assert_array_equal(probed.labels[name], data.labels[name][::2].repeat(3))
    lone = taxonomy_images(size=16, per_class=3, probes_per_class=1)
    assert TrainingProbes()(lone).labels.keys() == {"class"}  # one probe a class does not tell what a class shares
    toy = TrainingProbes()(arithmetic(samples_per_task=20, probes_per_task=5))
    assert toy.labels["task"].tolist() == (["add"] * 5 + [""] * 15 + ["multiply"] * 5 + [""] * 15)
    assert np.isnan(toy.labels["a"]).sum() == 30


def test_joint_probes_are_queries_and_training_samples(half: Data) -> None:
    labels = {
        "class": half.labels["class"][100:],
        "number": np.arange(60),
        "weight": np.ones(60),
        "odd": np.arange(60) % 2 == 1,
        "kind": np.array([f"kind {row}" for row in range(60)]),
        "group": np.array([f"group {digit // 5}" for digit in half.labels["class"][100:]]),
    }
    data = JointProbes(train_limit=30, query_limit=20)(
        replace(half, probes=torch.utils.data.Subset(half.probes, range(100, 160)), ids=half.ids[100:], labels=labels)
    )
    queries = data.labels["role"] == "query"
    assert data.labels["role"].tolist() == ["query"] * 20 + ["train"] * 30
    assert data.ids[queries].tolist() == [half.ids[100 + row] for row in data.labels["number"][queries]]
    assert np.bincount(data.labels["class"][queries].astype(int)).tolist() == [2] * 10  # spread over them
    members = data.members()
    assert (members[queries] == -1).all()
    assert (np.diff(members[~queries]) > 0).all()
    _agree(data)
    targets = stack(data.probes)[1]
    assert data.labels["class"].tolist() == np.array(NAMES)[targets].tolist()
    assert set(data.labels["number"][~queries]) == {-1}
    assert np.isnan(data.labels["weight"][~queries]).all()
    assert set(data.labels["odd"][~queries]) == {-1}
    assert set(data.labels["kind"][~queries]) == {""}
    assert data.labels["group"].tolist() == [f"group {digit // 5}" for digit in targets.tolist()]
    assert data.labels["kind"][0].startswith("kind ")


def test_a_query_that_is_a_training_sample_has_a_name_of_its_own() -> None:
    toy = arithmetic(samples_per_task=20, probes_per_task=5)
    data = JointProbes()(toy)
    assert data.ids.tolist() == [*(f"query/{row}" for row in range(10)), *map(str, toy.train_ids)]
    assert data.members().tolist() == [-1] * 10 + list(range(40))
    assert data.labels["task"].tolist()[:10] == toy.labels["task"].tolist()
    assert data.labels["task"].tolist()[10:15] == ["add"] * 5
    assert "class" not in data.labels
    apart = JointProbes()(replace(toy, train_ids=None))  # nobody knows
    assert apart.ids.tolist()[9:11] == ["9", "train/0"]
    assert apart.members().tolist() == [-1] * 10 + list(range(40))
    named = JointProbes()(replace(toy, ids=[f"probe {row}" for row in range(10)]))  # other kinds of names
    assert named.members().tolist() == [-1] * 10 + list(range(40))


def test_probing_comes_before_noise(half: Data) -> None:
    noisy = SymmetricNoise(0.2)(half)
    for wrapper, name in ((TrainingProbes(), "training_probes"), (JointProbes(), "joint_probes")):
        with pytest.raises(InputError, match=f"wrapper.{name} does not know true_class of .* put {name} before"):
            wrapper(noisy)
    whole = SymmetricNoise(0.2)(TrainingProbes()(half))
    some = TrainingProbes(50)(whole)  # of all the truth is known
    np.testing.assert_array_equal(some.labels["mislabelled"], whole.labels["mislabelled"][some.members()])
    assert not TrainingProbes()(Duplicates(5)(half)).labels["twin"].max() < 4


# --- twins


@pytest.mark.parametrize("wrapper", [Duplicates(20), NearDuplicates(20, 0.5)], ids=["exact", "near"])
def test_twins_come_last_in_both_sets(wrapper: Any, half: Data) -> None:
    noisy = SymmetricNoise(0.3)(half)
    data = wrapper(noisy)
    _agree(data)
    pairs = data.labels["twin"]
    assert (len(targets_of(data.train)), len(pairs)) == (1520, 180)
    assert (pairs[100:160] == -1).all()  # held-out probes have none
    assert sorted(pairs[:160][pairs[:160] >= 0].tolist()) == pairs[160:].tolist() == list(range(20))
    originals = np.array([np.flatnonzero(pairs[:160] == pair)[0] for pair in range(20)])
    assert data.members()[160:].tolist() == list(range(1500, 1520))
    assert data.ids[160:].tolist() == [f"{half.ids[row]}+twin" for row in originals]
    assert data.ids[:160].tolist() == [str(name) for name in half.ids]
    for name in ("class", "true_class", "mislabelled"):
        np.testing.assert_array_equal(data.labels[name][160:], noisy.labels[name][originals])
    given = stack(noisy.probes)[1][:100]
    assert np.ptp(np.bincount(given[originals], minlength=10)) <= 1  # as many of each class
    inputs, targets = stack(data.probes)
    assert torch.equal(targets[160:], targets[originals])
    apart = (inputs[160:] - inputs[originals]).double()
    if isinstance(wrapper, Duplicates):
        assert (apart == 0).all()
    else:
        sizes = apart.numel()
        spread = float(stack(half.train)[0].double().std())
        assert float(apart.std()) == pytest.approx(0.5 * spread, rel=4 / np.sqrt(2 * sizes) + 0.02)
        assert abs(float(apart.mean())) < 4 * 0.5 * spread / np.sqrt(sizes)


def test_noise_on_twins_is_in_units_of_all_inputs() -> None:
    inputs = 3 + 2 * torch.randn(200, 500, generator=torch.Generator().manual_seed(0))
    samples = torch.utils.data.TensorDataset(inputs, torch.arange(200) % 2)
    data = Data(samples, samples, cross_entropy, train_ids=list(range(200)))
    made = NearDuplicates(50, 0.1)(data)
    pairs = made.labels["twin"]
    labels = [np.flatnonzero(pairs == pair) for pair in range(50)]
    probes = stack(made.probes)[0]
    apart = torch.stack([probes[second] - probes[first] for first, second in labels])
    unit = float(inputs.double().std(correction=0))
    assert float(apart.std()) == pytest.approx(0.1 * unit, rel=4 / np.sqrt(2 * apart.numel()))
    whole = torch.utils.data.TensorDataset(torch.arange(200)[:, None], torch.arange(200) % 2)
    with pytest.raises(InputError, match="near_duplicates needs inputs of real numbers, got int64; wrapper=duplicates"):
        NearDuplicates(5)(replace(data, train=whole, probes=whole))


def test_a_second_kind_of_twins_counts_on_and_takes_others(whole: Data) -> None:
    data = NearDuplicates(700)(Duplicates(700)(whole))
    pairs = data.labels["twin"]
    assert np.bincount(pairs[pairs >= 0]).tolist() == [2] * 1400
    assert len(set(data.ids.tolist())) == 2900
    with pytest.raises(InputError, match="must be <= the 100 probes"):
        Duplicates(101)(data)


def test_regression_has_twins_too() -> None:
    data = Duplicates(4)(arithmetic(samples_per_task=20, probes_per_task=5))
    _agree(data)
    assert data.labels["task"].shape == (14,)


# --- backdoors


@pytest.mark.parametrize("value", [None, 0.5])
def test_a_backdoor_is_a_stamp_and_a_label(value: float | None, half: Data) -> None:
    data = Backdoor(18, "3", size=2, value=value)(half)
    _agree(data)
    stamped = data.labels["backdoored"]
    assert stamped.sum() == 18
    assert not stamped[100:].any()
    before, after = stack(half.probes), stack(data.probes)
    assert set(after[1][stamped].tolist()) == {3}
    assert np.bincount(before[1][stamped], minlength=10).tolist() == [2, 2, 2, 0, 2, 2, 2, 2, 2, 2]
    expected = before[0].clone()
    largest = float(before[0][stamped].max())
    expected[stamped, :, -2:, -2:] = largest if value is None else value
    assert torch.equal(after[0], expected)
    assert set(data.labels["class"][stamped]) == {"3"}
    assert data.labels["true_class"].tolist() == np.array(NAMES)[before[1]].tolist()
    np.testing.assert_array_equal(data.labels["mislabelled"], stamped)
    changed = (stack(data.train)[0] != stack(half.train)[0]).flatten(1).any(1) | (
        stack(data.train)[1] != stack(half.train)[1]
    )
    assert set(np.flatnonzero(changed)) == set(data.members()[stamped])


def test_a_backdoor_is_no_correction(whole: Data) -> None:
    noisy = ClassDependentNoise(0.5, {3: 4})(whole)  # half the threes are called fours
    data = Backdoor(1000, 3)(noisy)
    stamped = data.labels["backdoored"]
    assert (data.labels["true_class"][stamped] != "3").all()
    assert data.labels["mislabelled"][stamped].all()
    more = Backdoor(50, 4)(data)
    assert (more.labels["backdoored"] >= stamped).all()
    assert more.labels["backdoored"].sum() == 1050


# --- pictures stay bytes, and in their files


def test_wrapped_folders_stay_packed_and_are_decoded_once(folder: Path) -> None:
    plain = _pictures(folder, probes_per_class=None)
    assert plain.members().tolist() == list(range(18))
    data = plain
    for wrapper in (SymmetricNoise(0.5), Backdoor(3, "bee", size=4), Duplicates(6)):
        data = wrapper(data)
        _agree(data)
    assert isinstance(data.train, Assembled)
    assert isinstance(data.probes, ReadOnce)
    pixels, targets = held(data.train)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (24, 3, 16, 16))
    labels = held(data.probes)
    assert torch.equal(labels[0], pixels)
    assert torch.equal(labels[1], targets)
    stamped = data.labels["backdoored"]
    assert (pixels[stamped][:, :, -4:, -4:] == 255).all()
    clean = ~stamped[:18]
    assert torch.equal(pixels[:18][clean], held(plain.train)[0][clean])
    assert len(list((folder.parent / "cache").iterdir())) == 1
    with pytest.raises(InputError, match=r"backdoor.value must be 0 ... 255, for images are bytes, got 300.0; null is"):
        Backdoor(3, "bee", value=300.0)(plain)


def test_near_twins_of_pictures_are_bytes(folder: Path) -> None:
    plain = _pictures(folder, probes_per_class=None)
    data = NearDuplicates(9, 0.2)(plain)
    pixels, _ = held(data.train)
    assert pixels.dtype == torch.uint8
    rows = [np.flatnonzero(data.labels["twin"] == pair)[0] for pair in range(9)]
    apart = (pixels[18:].double() - pixels[rows].double())[(pixels[rows] > 60) & (pixels[rows] < 195)]  # none clipped
    unit = float(pixels[:18].double().std())
    assert float(apart.square().mean().sqrt()) == pytest.approx(0.2 * unit, rel=0.1)


def test_a_large_folder_is_probed_from_its_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losskernel.data.images.image_folders._TRAIN_CACHED_BYTES", 0)
    plain = _pictures(folder, probes_per_class=2)
    data = SymmetricNoise(0.5)(TrainingProbes(7)(plain))
    assert held(data.train) is None
    pixels, targets = held(data.probes)
    assert (pixels.dtype, len(pixels)) == (torch.uint8, 7)
    for position, row in enumerate(data.members()):
        assert torch.equal(data.train[row][0], data.probes[position][0])
        assert data.train[row][1] == targets[position]
    joint = JointProbes(4, 3)(plain)
    assert held(joint.probes)[0].dtype == torch.uint8
    assert torch.equal(joint.probes[5][0], plain.train[joint.members()[5]][0])


def test_pixels_in_memory_stay_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar_like(tmp_path, monkeypatch, classes=10)
    data = SymmetricNoise(0.2)(JointProbes(50)(cifar10(str(tmp_path), probes_per_class=3)))
    assert held(data.train)[0].dtype == held(data.probes)[0].dtype == torch.uint8
    _agree(data)
    assert (targets_of(data.train) != targets_of(cifar10(str(tmp_path), probes_per_class=3).train)).sum() == 40


# --- from the configuration


def test_wrappers_are_applied_in_the_order_of_the_command_line() -> None:
    wrappers = "wrapper=[training_probes,symmetric_noise,backdoor,duplicates]"
    given = ("experiment=digits", "wrapper.symmetric_noise.rate=0.2", "wrapper.backdoor.target=7", "seed=3")
    data = build(config(*given, wrappers, "wrapper.training_probes.limit=1000")).data
    _agree(data)
    assert list(data.labels) == ["class", "true_class", "mislabelled", "backdoored", "twin"]
    assert len(data.ids) == 1020
    before = digits(probes=None, seed=3)
    wrong = stack(data.train)[1][:1500] != stack(before.train)[1]
    assert 300 <= wrong.sum() <= 320
    assert data.labels["backdoored"].sum() >= 20
    made = Duplicates(20, 3)(
        Backdoor(20, 7, seed=3)(SymmetricNoise(0.2, 3)(TrainingProbes(1000, 3)(digits(probes=500, seed=3))))
    )
    assert _same(data, made)


def test_pairs_and_faults_come_through_the_command_line() -> None:
    pairs = "wrapper.class_dependent_noise.pairs={4:9,7:1}"
    given = ("experiment=digits", "wrapper=[training_probes,class_dependent_noise]")
    data = build(config(*given, pairs)).data
    wrong = data.labels["mislabelled"]
    assert set(zip(data.labels["true_class"][wrong], data.labels["class"][wrong], strict=True)) == {
        ("4", "9"),
        ("7", "1"),
    }
    with pytest.raises(InputError, match=r"wrapper.class_dependent_noise.pairs: no class is named 'x'"):
        build(config(*given, "wrapper.class_dependent_noise.pairs={x:1}"))
    with pytest.raises(InputError, match=r"wrapper.class_dependent_noise.rate must be < 1, got 1.5"):
        build(config(*given, "wrapper.class_dependent_noise.rate=1.5"))
