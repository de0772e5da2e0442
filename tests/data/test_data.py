import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from losskernel import Data
from losskernel.data import arithmetic, digits, modular_arithmetic, stack
from losskernel.data.base import size, tensors
from losskernel.data.images.image_files import encode, thumbnails
from losskernel.data.loading import BlockLoader, MinibatchIndices, MinibatchLoader
from losskernel.data.synthetic import TASKS
from losskernel.errors import InputError
from losskernel.losses import cross_entropy, squared_error

CPU = torch.device("cpu")


class OnDisk(Dataset):
    """A map-style dataset that hands out one sample at a time, as files would."""

    def __init__(self, held: TensorDataset) -> None:
        self._held = held

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._held[index]


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(2), torch.zeros(1)


def _set(samples: int) -> TensorDataset:
    numbers = torch.arange(samples)
    return TensorDataset(numbers[:, None] * torch.tensor([1.0, 10.0]), numbers)


def _data(**given) -> Data:
    return Data(**({"train": _set(20), "probes": _set(6), "loss": squared_error} | given))


# --- Data


def test_labels_become_arrays_and_ids_default_to_numbers() -> None:
    data = _data(labels={"task": ["a", "b"] * 3})
    assert data.labels["task"].tolist() == ["a", "b"] * 3
    assert data.ids.tolist() == list(range(6))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": "cross_entropy"}, r"data.loss must be a function \(outputs, targets\) -> \[B\], got 'cross_entropy'"),
        ({"train": _set(0)}, "data.train is empty; give at least one training sample"),
        ({"probes": _set(0)}, "data.probes is empty"),
        ({"train": Endless()}, r"data.train is a stream \(Endless\)"),
        ({"labels": {"task": [1, 2]}}, r"data.labels\['task'\] has shape \(2,\), but there are 6 probes"),
        ({"labels": {"task": np.zeros((6, 2))}}, r"data.labels\['task'\] has shape \(6, 2\)"),
        ({"labels": {"draw": np.zeros(6)}}, "data.labels: the name 'draw' is taken; rename it"),
        ({"ids": [1, 2]}, "data.ids has 2 entries, but there are 6 probes; give one each"),
        ({"ids": [1, 2, 3, 4, 5, 5]}, "data.ids are not unique; give every probe its own id"),
        ({"train_ids": [1, 2]}, "data.train_ids has 2 entries for 20 training samples"),
        ({"train_ids": [0, *range(19)]}, "data.train_ids are not unique; give every training sample its own id"),
        ({"train_ids": np.array(["a"] * 20)}, "data.train_ids are not unique"),
    ],
)
def test_data_that_do_not_fit_are_refused(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _data(**given)


@pytest.mark.parametrize(
    ("ids", "train_ids", "members"),
    [
        ([5, 0, 19, 20, -1, 7], range(20), [5, 0, 19, -1, -1, 7]),
        (["5", "x", "0", "19", "20", "7"], [str(row) for row in range(20)], [5, -1, 0, 19, -1, 7]),
        (["5", "x", "0", "19", "20", "7"], np.arange(20).astype(str), [5, -1, 0, 19, -1, 7]),
        (np.arange(6), np.arange(20)[::-1], [19, 18, 17, 16, 15, 14]),
        ([1, "x", 2, 3, 4, 5], [*range(19), "x"], [1, 19, 2, 3, 4, 5]),  # names of two kinds are text
        (range(6), None, [-1] * 6),
        (range(6), [f"train/{row}" for row in range(20)], [-1] * 6),
    ],
)
def test_probes_that_are_training_samples_are_known_by_name(ids, train_ids, members: list[int]) -> None:
    assert _data(ids=ids, train_ids=train_ids).members().tolist() == members


def _same_samples(data: Data, every: bool) -> None:
    """Probes that are said to be training samples have the same input and target, and none is missed."""
    train, probes, members = stack(data.train), stack(data.probes), data.members()
    assert (members >= 0).all() == every
    for position, row in enumerate(members):
        if row >= 0:
            assert torch.equal(train[0][row], probes[0][position])
            assert torch.equal(train[1][row], probes[1][position])
        else:
            same = (train[0] == probes[0][position]).flatten(1).all(1)
            assert not same.any()


@pytest.mark.parametrize("build", [arithmetic, modular_arithmetic])
def test_arithmetic_names_its_training_samples(build) -> None:
    data = build(["add", "max", "min"], probes_per_task=30)
    _same_samples(data, True)
    assert data.ids.tolist() == list(range(90))
    assert sorted(data.train_ids) == list(range(len(data.train_ids)))
    assert data.classes == (None if build is arithmetic else [str(number) for number in range(23)])


def test_digits_names_its_training_samples() -> None:
    _same_samples(digits(probes=50, seed=2), True)
    inside = digits(probes=None, held_out=1000, seed=2)
    assert inside.members().tolist() == list(range(797))
    _same_samples(inside, True)
    outside = digits(probes=None, held_out=1000, seed=2, probe_split="held_out")
    assert sorted(inside.ids.tolist() + outside.ids.tolist()) == list(range(1797))
    _same_samples(outside, False)
    some = digits(probes=50, held_out=1000, seed=2, probe_split="held_out")
    assert np.bincount(some.labels["class"]).tolist() == [5] * 10
    assert set(some.ids.tolist()) <= set(outside.ids.tolist())
    assert some.classes == list("0123456789")


def test_tensors_sees_through_subsets() -> None:
    inputs, targets = tensors(Subset(Subset(_set(20), [3, 5, 7, 9]), [2, 0]))
    assert targets.tolist() == [7, 3]
    assert inputs[:, 1].tolist() == [70.0, 30.0]
    assert tensors(OnDisk(_set(3))) is None
    assert tensors(Subset(OnDisk(_set(3)), [0])) is None


@pytest.mark.parametrize("limit", [None, 2, 100])
def test_stack_loads_the_same_from_memory_and_sample_by_sample(limit: int | None) -> None:
    held, streamed = stack(_set(70), limit), stack(OnDisk(_set(70)), limit)
    assert len(held[0]) == (70 if limit is None else min(limit, 70))
    assert torch.equal(held[0], streamed[0])
    assert torch.equal(held[1], streamed[1])


def test_size_needs_a_length() -> None:
    assert size(_set(4)) == 4
    with pytest.raises(InputError, match="Endless has no length"):
        size(Endless())


# --- loading


@pytest.mark.parametrize("dataset", [_set(23), OnDisk(_set(23))], ids=["memory", "disk"])
def test_minibatches_hold_the_samples_that_the_stream_names(dataset: Dataset) -> None:
    def indices() -> MinibatchIndices:
        return MinibatchIndices(3, [0, 4], train_size=23, batch_size=5, first_step=2)

    load, numbers = MinibatchLoader(_data(train=dataset), indices(), CPU), indices()
    for _ in range(9):  # past the end of an epoch of four
        inputs, targets = load()
        expected = numbers()
        assert torch.equal(targets, expected)
        assert torch.equal(inputs, expected[..., None] * torch.tensor([1.0, 10.0]))


@pytest.mark.parametrize("dataset", [_set(23), OnDisk(_set(23))], ids=["memory", "disk"])
def test_blocks_cover_a_dataset_in_order_and_can_be_read_again(dataset: Dataset) -> None:
    blocks = BlockLoader(dataset, 10, 0, CPU)
    for _ in range(2):
        parts = list(blocks)
        assert [len(inputs) for inputs, _ in parts] == [10, 10, 3]
        assert torch.cat([targets for _, targets in parts]).tolist() == list(range(23))


# --- arithmetic


def test_arithmetic_answers_its_tasks() -> None:
    tasks = list(TASKS)
    data = arithmetic(tasks, samples_per_task=40, probes_per_task=10)
    inputs, targets = stack(data.train)
    assert inputs.shape == (40 * len(tasks), 2 + len(tasks))
    assert data.loss is squared_error
    a, b = inputs[:, 0].double().numpy(), inputs[:, 1].double().numpy()
    assert np.abs([a, b]).max() <= 1
    answers = {
        "add": a + b,
        "multiply": a * b,
        "subtract": a - b,
        "max": np.maximum(a, b),
        "min": np.minimum(a, b),
        "average_square": (a * a + b * b) / 2,
        "difference_square": (a - b) ** 2 / 2,
        "first": a,
    }
    chosen = inputs[:, 2:].argmax(1).numpy()
    assert torch.equal(inputs[:, 2:].sum(1), torch.ones(len(inputs)))
    expected = np.choose(chosen, [answers[task] for task in tasks])
    np.testing.assert_allclose(targets.numpy(), expected, atol=1e-6)


def test_the_probes_of_arithmetic_are_labelled_training_samples() -> None:
    data = arithmetic(["add", "multiply"], samples_per_task=40, probes_per_task=10)
    inputs, targets = stack(data.probes)
    train = stack(data.train)[0]
    assert torch.equal(inputs, torch.cat([train[:10], train[40:50]]))
    assert data.labels["task"].tolist() == ["add"] * 10 + ["multiply"] * 10
    np.testing.assert_array_equal(data.labels["a"], inputs[:, 0])
    np.testing.assert_array_equal(data.labels["b"], inputs[:, 1])
    np.testing.assert_array_equal(data.labels["target"], targets)


def test_modular_arithmetic_is_a_table_of_all_pairs() -> None:
    data = modular_arithmetic(["add", "multiply"], modulus=7, probes_per_task=20)
    inputs, targets = stack(data.train)
    assert inputs.shape == (2 * 49, 7 + 7 + 2)
    assert data.loss is cross_entropy
    a, b, task = inputs[:, :7].argmax(1), inputs[:, 7:14].argmax(1), inputs[:, 14:].argmax(1)
    assert torch.equal(targets, torch.where(task == 0, (a + b) % 7, (a * b) % 7))
    assert len(set(zip(a.tolist(), b.tolist(), task.tolist(), strict=True))) == 98
    np.testing.assert_array_equal(data.labels["a"][:20], a[:20])
    np.testing.assert_array_equal(data.labels["target"][20:], targets[49:69])


@pytest.mark.parametrize("build", [arithmetic, modular_arithmetic])
def test_the_seed_fixes_arithmetic(build) -> None:
    first, same, other = (stack(build(seed=seed).train)[0] for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("build", [arithmetic, modular_arithmetic])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tasks": "add"}, r"dataset.tasks must be a list of tasks, got 'add'; e.g. dataset.tasks=\[add,multiply\]"),
        ({"tasks": []}, "dataset.tasks must be a list of tasks"),
        ({"tasks": ["add", "divide"]}, "unknown task 'divide'; choose from add, multiply"),
        ({"tasks": ["add", "add"]}, "dataset.tasks names a task twice"),
        ({"probes_per_task": 0}, "dataset.probes_per_task must be >= 1"),
        ({"probes_per_task": 10_000}, "dataset.probes_per_task must be <= the 5[0-9]+ samples of a task, got 10000"),
    ],
)
def test_arithmetic_refuses_what_does_not_fit(build, given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**given)


def test_arithmetic_needs_samples_and_a_modulus() -> None:
    with pytest.raises(InputError, match=r"dataset.samples_per_task must be a whole number"):
        arithmetic(samples_per_task=1.5)
    with pytest.raises(InputError, match=r"dataset.modulus must be >= 2"):
        modular_arithmetic(modulus=1)
    with pytest.raises(InputError, match="unknown task 'average_square'"):
        modular_arithmetic(["average_square"])


# --- digits


def test_digits_probes_are_training_images_equal_per_class() -> None:
    data = digits(probes=50, held_out=297)
    train, classes = stack(data.train)
    probes, targets = stack(data.probes)
    assert train.shape == (1500, 1, 8, 8)
    assert train.min() == 0
    assert train.max() == 1
    assert np.bincount(data.labels["class"]).tolist() == [5] * 10
    assert targets.tolist() == data.labels["class"].tolist()
    rows = {(*image.flatten().tolist(), int(target)) for image, target in zip(train, classes, strict=True)}
    assert all((*image.flatten().tolist(), int(target)) in rows for image, target in zip(probes, targets, strict=True))
    assert len(set(data.ids.tolist())) == 50


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"probes": 9}, "dataset.probes must be >= 10"),
        ({"held_out": -1}, "dataset.held_out must be >= 0"),
        ({"probe_split": "val"}, "dataset.probe_split must be train or held_out, got 'val'"),
        ({"probe_split": "held_out"}, "dataset.probes needs 50 held-out images of every class, got 500; lower it"),
        ({"probe_split": "held_out", "held_out": 0}, "dataset.held_out must be > 0 for probes from held-out images"),
        ({"held_out": 1750}, "dataset.held_out leaves 47 images to train on, got 1750; lower it"),
        ({"probes": 1790, "held_out": 0}, "dataset.probes needs 179 training images of every class, got 1790; lower"),
    ],
)
def test_digits_refuse_sizes_that_do_not_fit(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        digits(**given)


# --- thumbnails


def test_thumbnails_stretch_each_image_to_its_own_range() -> None:
    images = torch.linspace(-3, 5, 64).reshape(1, 1, 8, 8).repeat(2, 1, 1, 1)
    images[1] *= 100
    pictures = thumbnails(images)
    assert pictures.shape == (2, 8, 8, 1)
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures.min(), pictures.max()) == (0, 255)


def test_thumbnails_show_bytes_as_they_are() -> None:
    images = torch.arange(100, 148, dtype=torch.uint8).reshape(1, 3, 4, 4)
    np.testing.assert_array_equal(thumbnails(images)[0], images[0].permute(1, 2, 0))


def test_thumbnails_shrink_large_images_and_skip_what_is_none() -> None:
    assert thumbnails(torch.rand(1, 3, 96, 192)).shape == (1, 24, 48, 3)
    assert thumbnails(torch.rand(5, 7)) is None
    assert thumbnails(torch.rand(5, 2, 8, 8)) is None
    assert thumbnails(torch.rand(5, 1, 2, 8)) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_encoded_thumbnails_hold_their_pixels(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 6, channels), dtype=np.uint8)
    for uri, image in zip(encode(images), images, strict=True):
        head, body = uri.split(",")
        assert head == "data:image/png;base64"
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))
        np.testing.assert_array_equal(pixels.reshape(image.shape), image)
