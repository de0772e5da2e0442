"""Images in labelled folders: any folders, and ImageNet."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache as once
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from losskernel.data.base import Data
from losskernel.data.images.image_files import CachedImages, ImageFiles
from losskernel.data.images.preprocessing import Crop, Preprocessing
from losskernel.data.taxonomy import wordnet
from losskernel.errors import InputError, require, require_integer
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


LAYOUT = "expected a folder of pictures for each class, root/CLASS/*, or split: root/train/CLASS/* and root/val/CLASS/*"


def image_folder(
    root: str | None = None,
    size: int | None = None,
    preprocessing: Preprocessing | None = None,
    probes_per_class: int | None = 10,
    probe_split: str | None = None,
    classes: int | Sequence[str] | None = None,
    seed: int = 0,
    workers: int = 4,
    cache: str | None = None,
) -> Data:
    """Pictures in labelled folders, root/CLASS/* or root/train/CLASS/* and root/val/CLASS/*, with cross-entropy.

    Classes are numbered in the order of their folders' names. Labels: class, and wnid where all folders are wnids;
    ids: paths below the root.

    Args:
        root: folder.
        size: pixels a side of the network's input; None: as the network's pretrained weights want it.
        preprocessing: what else is done to pictures.
        probes_per_class: probes of each class; None: all.
        probe_split: folder below the root that probes come from; None: val, else train.
        classes: whose pictures are probes: a list of folders, or a number of them by chance; None: all.
        seed: of the probes' choice.
        workers: processes that decode pictures.
        cache: folder of decoded pictures; None: LOSSKERNEL_CACHE, else ~/.cache/losskernel.

    Raises:
        InputError: no pictures where they should be, or a setting that does not fit them.
    """
    folders = _layout(root, probe_split)
    crop = (preprocessing or Preprocessing()).at(size)

    def labels(names: Sequence[str]) -> dict[str, Sequence[str]]:
        return {"class": names} | ({"wnid": names} if are_wnids(list(folders.targets)) else {})

    return folders.data(crop, probes_per_class, classes, seed, workers, cache, labels)


def _layout(root: str | None, probe_split: str | None) -> Folders:
    """Find out which of the two layouts a folder has."""
    require(root is not None, f"dataset.root is not set; {LAYOUT}")
    place = Path(str(root)).expanduser()
    require(place.is_dir(), f"dataset.root={root} is not a folder; {LAYOUT}")
    split = bool(class_folders(place / "train"))
    train = "train" if split else ""
    names = class_folders(place / train)
    require(len(names) > 0, f"dataset.root={root} holds no folders; {LAYOUT}")
    require(split or probe_split is None, f"dataset.probe_split={probe_split}: there is no {place}/train; {LAYOUT}")
    probes = train
    if split:
        probes = probe_split or ("val" if class_folders(place / "val") else train)
    found = class_folders(place / probes)
    require(len(found) > 0, f"dataset.probe_split={probe_split}: {place / probes} holds no folders; {LAYOUT}")
    new = sorted(set(found) - set(names))
    if new:
        raise InputError(f"dataset.root={root}: {probes}/{new[0]} is no class of {train}; train on it, or move it away")
    return Folders(place, train, probes, {name: number for number, name in enumerate(names)})


HOW = (
    "expected ROOT/train/n01440764/*.JPEG and ROOT/val/n01440764/*.JPEG, a folder for every wnid. To get it, register "
    "at image-net.org, put ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz into ROOT "
    "and run torchvision.datasets.ImageNet(ROOT, 'train') and (ROOT, 'val'), which unpack them; "
    "experiment=taxonomy needs no data"
)


def imagenet(
    root: str | None = None,
    size: int | None = None,
    preprocessing: Preprocessing | None = None,
    probes_per_class: int | None = 10,
    probe_split: str = "val",
    classes: int | Sequence[str] | None = None,
    seed: int = 0,
    workers: int = 4,
    cache: str | None = None,
) -> Data:
    """ImageNet as torchvision unpacks it, root/train/WNID/* and root/val/WNID/*, with cross-entropy.

    Classes are numbered as pretrained heads number them: by their place among all 1,000 wnids, sorted, whichever of
    their folders are there. Labels: class (WordNet's name), wnid; ids: paths below the root.

    Args:
        root: folder.
        size: pixels a side of the network's input; None: as the network's pretrained weights want it.
        preprocessing: what else is done to pictures.
        probes_per_class: probes of each class; 10 make 10,000; None: all.
        probe_split: where probes come from: val or train.
        classes: whose pictures are probes: a list of wnids, or a number of them by chance; None: all. The training
            loss is over all classes.
        seed: of the probes' choice.
        workers: processes that decode pictures.
        cache: folder of decoded pictures; None: LOSSKERNEL_CACHE, else ~/.cache/losskernel.

    Raises:
        InputError: no ImageNet where it should be, or a setting that does not fit it.

    Source: Russakovsky et al. 2015, "ImageNet Large Scale Visual Recognition Challenge".
    """
    require(root is not None, f"dataset.root is not set; {HOW}")
    choices = ("val", "train")
    require(probe_split in choices, f"dataset.probe_split must be val or train, got {probe_split!r}")
    place = Path(str(root)).expanduser()
    names = class_names()
    for split in dict.fromkeys(("train", probe_split)):
        found = class_folders(place / split)
        if split == "val" and not found:
            _refuse_flat(place / split)
        require(len(found) > 0, f"dataset.root={root} is not ImageNet: {place / split} holds no folders; {HOW}")
        strange = [name for name in found if name not in names]
        if strange:
            raise InputError(
                f"dataset.root={root}: {split}/{strange[0]} is none of ImageNet's 1,000 classes; "
                "dataset=image_folder takes any folders"
            )
    targets = {wnid: number for number, wnid in enumerate(names)}

    def labels(wnids: Sequence[str]) -> dict[str, Sequence[str]]:
        return {"class": [names[wnid] for wnid in wnids], "wnid": wnids}

    crop = (preprocessing or Preprocessing()).at(size)
    return Folders(place, "train", probe_split, targets).data(
        crop, probes_per_class, classes, seed, workers, cache, labels
    )


@once
def class_names() -> dict[str, str]:
    """Return wnid -> WordNet's name of the 1,000 classes, in the order of pretrained heads' outputs."""
    text = files("losskernel.data.taxonomy").joinpath("imagenet_wordnet.json").read_text(encoding="utf-8")
    closure: dict[str, tuple[str, list[str]]] = json.loads(text)
    wnids = sorted(closure.keys() - {parent for _, parents in closure.values() for parent in parents})
    known = wordnet(wnids)
    return {wnid: known.name(wnid) for wnid in wnids}


def _refuse_flat(folder: Path) -> None:
    """Say how to sort validation pictures that lie in one folder, as their archive holds them."""
    flat = folder.is_dir() and any(folder.glob("ILSVRC2012_val_*"))
    require(
        not flat,
        f"dataset.root: {folder} holds pictures that are not sorted by wnid; move it away, put ILSVRC2012_img_val.tar "
        "and ILSVRC2012_devkit_t12.tar.gz beside train, and run torchvision.datasets.ImageNet(ROOT, 'val'), which "
        "sorts them; or take the probes from the training pictures with dataset.probe_split=train",
    )
