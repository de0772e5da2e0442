"""Data sets as people hand them over: pairs of numbers are taken, everything else is refused by its kind."""

import datetime
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset, random_split

from losskernel.data import Data
from losskernel.data.base import stack
from losskernel.errors import InputError
from losskernel.losses import cross_entropy
from losskernel.traces.records import check_label_names

X, Y = torch.randn(12, 5), torch.randint(0, 3, (12,))
PAIRS = TensorDataset(X, Y)


class Items(Dataset[Any]):
    def __init__(self, item: Callable[[int], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return 12

    def __getitem__(self, row: int) -> Any:
        if row >= 12:
            raise IndexError
        return self.item(row)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(PAIRS)


def broken(row: int) -> Any:
    raise OSError(f"no file {row}")


REFUSED: dict[str, tuple[Any, str]] = {
    "dict": (
        Items(lambda row: {"image": X[row], "label": Y[row]}),
        "gives a dict a sample, with the keys image, label",
    ),
    "triple": (Items(lambda row: (X[row], Y[row], row)), "gives 3 values a sample"),
    "three tensors": (TensorDataset(X, Y, Y), "gives 3 values a sample"),
    "single": (Items(lambda row: X[row]), "gives of type Tensor a sample"),
    "two inputs": (Items(lambda row: ((X[row], X[row]), Y[row])), "the inputs of data.train are several values"),
    "picture": (Items(lambda row: (Image.new("RGB", (4, 4)), 0)), "are PIL pictures; add a transform"),
    "text": (Items(lambda row: (f"text {row}", 0)), "the inputs of data.train are text"),
    "text as target": (Items(lambda row: (X[row], "cat")), "the targets of data.train are text"),
    "no target": (Items(lambda row: (X[row], None)), "the targets of data.train are None"),
    "unreadable": (Items(broken), r"data\.train\[0\] cannot be read: OSError: no file 0"),
    "stream": (Stream(), "is a stream"),
    "generator": (((x, y) for x, y in PAIRS), "is a stream"),
    "loader": (DataLoader(PAIRS), r"is a DataLoader; give its data set \(data\.train=loader\.dataset\)"),
    "pair of tensors": ((X, Y), r"give torch\.utils\.data\.TensorDataset\(inputs, targets\)"),
    "pair of arrays": ((X.numpy(), Y.numpy()), r"give torch\.utils\.data\.TensorDataset\(inputs, targets\)"),
    "mask": (Subset(PAIRS, (Y > 0).tolist()), "is a Subset by a mask"),
}
TAKEN: dict[str, Any] = {
    "list of pairs": list(zip(X, Y, strict=True)),
    "numbers": [(row / 2, row % 3) for row in range(12)],
    "numpy": Items(lambda row: (X[row].numpy(), np.int64(Y[row]))),
    "two of them": ConcatDataset([PAIRS, PAIRS]),
    "part": random_split(PAIRS, [6, 6])[0],
    "rows of numpy": Subset(PAIRS, np.arange(6)),  # type: ignore[arg-type]
}


def data(train: Any = PAIRS, **options: Any) -> Data:
    return Data(train=train, probes=PAIRS, loss=cross_entropy, **options)


@pytest.mark.parametrize("kind", REFUSED)
def test_other_kinds_are_refused_by_name(kind: str) -> None:
    dataset, message = REFUSED[kind]
    with pytest.raises(InputError, match=message) as raised:
        data(dataset)
    assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(InputError, match=r"data\.probes"):
        Data(train=PAIRS, probes=dataset, loss=cross_entropy)


@pytest.mark.parametrize("kind", TAKEN)
def test_pairs_of_numbers_are_taken(kind: str) -> None:
    inputs, targets = stack(data(TAKEN[kind]).train)
    assert len(inputs) == len(targets) == len(TAKEN[kind])


def test_samples_of_several_shapes_are_named() -> None:
    ragged = Items(lambda row: (torch.zeros(row % 3 + 2), 0))
    with pytest.raises(
        InputError, match=r"samples of Items cannot be stacked: inputs have shapes \(2,\), \(3,\), \(4,\)"
    ):
        stack(ragged)


LABELS: dict[str, tuple[Any, list[str]]] = {
    "objects": (np.array(["a", "b"] * 6, dtype=object), ["a", "b"]),
    "None among names": (np.array(["a", None] * 6, dtype=object), ["a", "None"]),
    "NaN among names": (np.array(["a", float("nan")] * 6, dtype=object), ["a", "nan"]),
    "numbers and names": (np.array([1, "a"] * 6, dtype=object), ["1", "a"]),
    "dates": (np.array(["2020-01-01", "2020-01-02"] * 6, dtype="datetime64[D]"), ["2020-01-01", "2020-01-02"]),
    "dates of Python": ([datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)] * 6, ["2020-01-01", "2020-01-02"]),
    "truth": ([True, False] * 6, ["True", "False"]),
    "signs": (["ä", "日本"] * 6, ["ä", "日本"]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind_keep_their_text(kind: str) -> None:
    values, wanted = LABELS[kind]
    kept = data(labels={"label": values}).labels["label"]
    assert kept.dtype != object
    assert [str(value) for value in kept[:2].tolist()] == wanted


@pytest.mark.parametrize(
    "name",
    [
        *("losses", "distance", "start_losses", "train_loss", "thumbnails", "curvature", "burn_in_loss", "chain"),
        *("draw", "probe", "site/day", "a\\b", "two\nlines", "__own", ".hidden", "zarr.json", "x" * 300),
    ],
)
def test_a_label_that_a_trace_cannot_name_so_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"cannot name a label of the probes: .*; rename it"):
        check_label_names([name])


@pytest.mark.parametrize("name", ["", 3, None])
def test_a_label_needs_a_name(name: Any) -> None:
    with pytest.raises(InputError, match="a label's name must be text"):
        data(labels={name: list(range(12))})


def test_ordinary_names_of_labels_are_kept() -> None:
    check_label_names(["class", "loss", "id", "класс", "a b", "50%", "x.y", "site-day"])


def test_names_of_probes_are_single_and_kept_as_text() -> None:
    paths = [pathlib.Path(f"/data/{row}.png") for row in range(12)]
    assert data(ids=paths).ids[0] == "/data/0.png"  # type: ignore[index]
    with pytest.raises(InputError, match=r"data\.ids must be single names, got such as \(0, 'x'\)"):
        data(ids=[(row, "x") for row in range(12)])
