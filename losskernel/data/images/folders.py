"""Pictures in labelled folders: finding them, and choosing probes of every class."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from losskernel.data.base import Data
from losskernel.data.images.files import CachedImages, ImageFiles
from losskernel.data.images.preprocessing import Crop
from losskernel.errors import require, require_integer
from losskernel.losses import cross_entropy

# A training set up to this size is decoded once as well; a larger one is read from its files, minibatch by minibatch.
_TRAIN_CACHED_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Folders:
    """A folder of pictures for each class, below one folder for training and one that probes come from.

    Attributes:
        root: of all.
        train: folder below the root that holds the training classes' folders; "" is the root itself.
        probes: the probes' likewise.
        targets: name of a class's folder -> its number.
    """

    root: Path
    train: str
    probes: str
    targets: Mapping[str, int]

    def data(
        self,
        crop: Crop,
        probes_per_class: int | None,
        classes: int | Sequence[str] | None,
        seed: int,
        workers: int,
        cache: str | None,
        labels: Callable[[Sequence[str]], dict[str, Any]],
    ) -> Data:
        """Return the training pictures and some of each class as probes, with cross-entropy.

        labels: from the names of folders, one each; `class` among them. probes_per_class: None takes all.

        Raises:
            InputError: no pictures, an unknown class, or too few pictures of one.
        """
        if probes_per_class is not None:
            require_integer("dataset.probes_per_class", probes_per_class, at_least=1)
        require_integer("dataset.workers", workers, at_least=0)
        require_integer("dataset.seed", seed, at_least=0)
        names, numbers = train_ids, _ = pictures(self.root, self.train, self.targets)
        require(len(names) > 0, f"dataset.root: there are no pictures in {self.root / self.train}; fill its folders")
        train = ImageFiles(self.root, names, numbers, crop)
        if self.probes != self.train:
            names, numbers = pictures(self.root, self.probes, self.targets)
        wanted = chosen_classes(classes, class_folders(self.root / self.probes), seed)
        rows = stratified(numbers, [self.targets[name] for name in wanted], wanted, probes_per_class, seed)
        ids = [names[row] for row in rows]
        probes = CachedImages(ImageFiles(self.root, ids, numbers[rows], crop), cache, workers)
        folders = {number: name for name, number in self.targets.items()}
        small = int(np.prod(train.shape)) <= _TRAIN_CACHED_BYTES
        return Data(
            train=CachedImages(train, cache, workers) if small else train,
            probes=probes,
            loss=cross_entropy,
            labels=labels([folders[number] for number in numbers[rows].tolist()]),
            ids=ids,
            workers=workers,
            train_ids=train_ids,  # as found: a million paths are 120 MB, and four times that as an array of text
            classes=list(labels(list(self.targets))["class"]),
        )


def class_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; hidden ones left out, none where there is no folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def pictures(root: Path, below: str, targets: Mapping[str, int]) -> tuple[list[str], np.ndarray]:
    """Return (paths below the root, class numbers [n]) of all pictures in the classes' folders, in a fixed order."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension, make_dataset

    def is_picture(path: str) -> bool:
        # Archives made on a Mac hold a hidden twin of every file, by the same extension.
        return has_file_allowed_extension(path, IMG_EXTENSIONS) and not os.path.basename(path).startswith(".")

    folder = str(root / below)
    found = make_dataset(folder, dict(targets), is_valid_file=is_picture, allow_empty=True)
    names = [f"{below}{path[len(folder) :]}".lstrip("/") for path, _ in found]
    return names, np.array([target for _, target in found], dtype=np.int64)


def chosen_classes(classes: int | Sequence[str] | None, folders: Sequence[str], seed: int) -> list[str]:
    """Return the folders of the classes that probes come from: all, those named, or a number of them by chance.

    Raises:
        InputError: an unknown or repeated class, or more than there are.
    """
    if classes is None:
        return list(folders)
    if isinstance(classes, int):
        require_integer("dataset.classes", classes, at_least=1)
        count = len(folders)
        require(classes <= count, f"dataset.classes must be <= the {count} classes there are, got {classes}; lower it")
        return sorted(np.random.default_rng(seed).choice(folders, classes, replace=False).tolist())
    listed = not isinstance(classes, str) and len(classes) > 0
    require(listed, f"dataset.classes must be a number, or a list of classes, got {classes!r}; e.g. [{folders[0]}]")
    unknown = [name for name in classes if name not in set(folders)]
    require(not unknown, f"dataset.classes: there is no folder {unknown[:1]}; folders are such as {folders[0]}")
    require(len(set(classes)) == len(classes), f"dataset.classes names a class twice: {list(classes)}; name each once")
    return sorted(classes)


def stratified(
    numbers: np.ndarray, wanted: Sequence[int], names: Sequence[str], each: int | None, seed: int
) -> np.ndarray:
    """Return rows of `each` samples of every wanted class, class after class, chosen by chance.

    A class's choice depends on the seed and its own number alone, and more samples contain fewer, so that runs on
    fewer classes or probes share what they have in common.

    Args:
        numbers: class of every sample, [n].
        wanted: classes, by number.
        names: and by name, for the message.
        each: samples per class; None: all, in order.
        seed: of the choice.

    Raises:
        InputError: a class has too few samples.
    """
    order = np.argsort(numbers, kind="stable")
    if each is None:
        return order[np.isin(numbers[order], wanted)]
    first, end = (np.searchsorted(numbers[order], wanted, side) for side in ("left", "right"))
    rows = []
    for number, name, start, stop in zip(wanted, names, first, end, strict=True):
        require(
            stop - start >= each,
            f"dataset.probes_per_class needs {each} samples of every class, but {name} has {stop - start}; "
            "lower it, or name the classes in dataset.classes",
        )
        rows.append(order[start:stop][np.random.default_rng([seed, number]).permutation(stop - start)[:each]])
    return np.concatenate(rows)


def are_wnids(names: Sequence[str]) -> bool:
    """Whether all names are WordNet's noun identifiers, such as n01440764."""
    return all(re.fullmatch(r"n\d{8}", name) for name in names)
