"""Images in labelled folders: any folders, and ImageNet."""

import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from losskernel.data.base import Data
from losskernel.data.images.image_files import CachedImages, ImageFiles, Preprocessing
from losskernel.data.taxonomy.readers import shipped, wordnet
from losskernel.errors import InputError, require, require_integer
from losskernel.losses import cross_entropy

# A training set up to this size is decoded once as well; a larger one is read from its files, minibatch by minibatch.
_TRAIN_CACHED_BYTES = 2 * 2**30
_LAYOUT = "expected a folder of images for each class, root/CLASS/*, or split: root/train/CLASS/* and root/val/CLASS/*"
_HOW = (
    "expected ROOT/train/n01440764/*.JPEG and ROOT/val/n01440764/*.JPEG, a folder for every wnid. To get it, register "
    "at image-net.org, put ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz into ROOT "
    "and run torchvision.datasets.ImageNet(ROOT, 'train') and (ROOT, 'val'), which unpack them; "
    "experiment=taxonomy needs no data"
)


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
    """Images in labelled folders, root/CLASS/* or root/train/CLASS/* and root/val/CLASS/*, with cross-entropy.

    Classes are numbered in the order of their folders' names. Labels: class, and wnid where all folders are wnids;
    ids: paths below the root.

    Args:
        root: folder.
        size: pixels a side of the network's input; None: as the network's pretrained weights want it.
        preprocessing: how else images are prepared.
        probes_per_class: probes of each class; None: all.
        probe_split: folder below the root that probes come from; None: val, else train.
        classes: whose images are probes: a list of folders, or a random number of them; None: all.
        seed: of the probes' choice.
        workers: processes that decode images.
        cache: folder of decoded images; None: LOSSKERNEL_CACHE, else ~/.cache/losskernel.

    Raises:
        InputError: no images where they should be, or a setting that does not fit them.
    """
    folders = _any_folders(root, probe_split)
    return folders.data(size, preprocessing, probes_per_class, classes, seed, workers, cache)


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

    Classes are numbered as pretrained heads number them: by the order of all 1,000 wnids, also where some of their
    folders are missing. Labels: class (WordNet's name), wnid; ids: paths below the root. The training loss is over
    all classes. Other arguments as of `image_folder`.

    Args:
        probes_per_class: probes of each class; 10 make 10,000; None: all.
        probe_split: where probes come from: val or train.
        classes: whose images are probes: a list of wnids, or a random number of them; None: all.

    Raises:
        InputError: no ImageNet where it should be, or a setting that does not fit it.

    Source: Russakovsky et al. 2015, "ImageNet Large Scale Visual Recognition Challenge".
    """
    folders = _imagenet_folders(root, probe_split)
    return folders.data(size, preprocessing, probes_per_class, classes, seed, workers, cache)


@functools.cache
def class_names() -> dict[str, str]:
    """Return wnid -> WordNet's name of ImageNet's 1,000 classes, in the order of pretrained heads' outputs."""
    links = shipped()
    wnids = sorted(links.keys() - {parent for _, parents in links.values() for parent in parents})
    known = wordnet(wnids)
    return {wnid: known.name(wnid) for wnid in wnids}


@dataclass(frozen=True)
class _Folders:
    """A folder of images for each class, below one folder for training and one that probes come from.

    Attributes:
        root: of all.
        train: folder below the root that holds the training classes' folders; "" is the root itself.
        probes: the probes' likewise.
        names: a class's folder -> its name, in the order of the classes' numbers.
        are_wnids: whether folders are called by WordNet's identifiers.
    """

    root: Path
    train: str
    probes: str
    names: Mapping[str, str]
    are_wnids: bool

    def data(
        self,
        size: int | None,
        preprocessing: Preprocessing | None,
        probes_per_class: int | None,
        classes: int | Sequence[str] | None,
        seed: int,
        workers: int,
        cache: str | None,
    ) -> Data:
        """Return the training images and some of each class as probes; arguments as of `image_folder`."""
        crop = (preprocessing or Preprocessing()).at(size)
        if probes_per_class is not None:
            require_integer("dataset.probes_per_class", probes_per_class, at_least=1)
        require_integer("dataset.workers", workers, at_least=0)
        require_integer("dataset.seed", seed, at_least=0)
        names, numbers = train_ids, _ = self._images(self.train)
        require(len(names) > 0, f"dataset.root: there are no images in {self.root / self.train}; fill its folders")
        train = ImageFiles(self.root, names, numbers, crop)
        if self.probes != self.train:
            names, numbers = self._images(self.probes)
        folders = list(self.names)
        wanted = _chosen_classes(classes, _subfolders(self.root / self.probes), seed)
        rows = stratified(numbers, [folders.index(name) for name in wanted], wanted, probes_per_class, seed)
        ids = [names[row] for row in rows]
        probe_folders = [folders[number] for number in numbers[rows]]
        labels = {"class": [self.names[folder] for folder in probe_folders]}
        cached = int(np.prod(train.shape)) <= _TRAIN_CACHED_BYTES
        return Data(
            train=CachedImages(train, cache, workers) if cached else train,
            probes=CachedImages(ImageFiles(self.root, ids, numbers[rows], crop), cache, workers),
            loss=cross_entropy,
            labels=labels | ({"wnid": probe_folders} if self.are_wnids else {}),
            ids=ids,
            workers=workers,
            train_ids=train_ids,  # a list: a million paths are 120 MB, and four times that as an array of text
            classes=list(self.names.values()),
        )

    def _images(self, below: str) -> tuple[list[str], np.ndarray]:
        """Return (paths below the root, class numbers [n]) of all images in a folder's classes, in a fixed order."""
        from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension, make_dataset

        folder = str(self.root / below)

        @functools.cache
        def is_endless(directory: str) -> bool:
            """Whether a directory is reached through a link to one above it."""
            if directory == folder:
                return False
            above = [os.path.realpath(parent) for parent in Path(directory).parents]
            return os.path.realpath(directory) in above or is_endless(os.path.dirname(directory))

        def is_image(path: str) -> bool:
            directory, name = os.path.split(path)
            # Archives made on a Mac hold a hidden twin of every file, with the same extension.
            named = has_file_allowed_extension(name, IMG_EXTENSIONS) and not name.startswith(".")
            return named and not is_endless(directory)

        targets = {name: number for number, name in enumerate(self.names)}
        samples = make_dataset(folder, targets, is_valid_file=is_image, allow_empty=True)
        names = [f"{below}{path[len(folder) :]}".lstrip("/") for path, _ in samples]
        return names, np.array([target for _, target in samples], dtype=np.int64)


def _any_folders(root: str | None, probe_split: str | None) -> _Folders:
    """Return which of the two layouts a folder has."""
    require(root is not None, f"dataset.root is not set; {_LAYOUT}")
    path = Path(str(root)).expanduser()
    require(path.is_dir(), f"dataset.root={root} is not a folder; {_LAYOUT}")
    split = bool(_subfolders(path / "train"))
    train = "train" if split else ""
    names = _subfolders(path / train)
    require(len(names) > 0, f"dataset.root={root} holds no folders; {_LAYOUT}")
    require(split or probe_split is None, f"dataset.probe_split={probe_split}: there is no {path}/train; {_LAYOUT}")
    probes = train
    if split:
        probes = probe_split or ("val" if _subfolders(path / "val") else train)
    probe_names = _subfolders(path / probes)
    require(len(probe_names) > 0, f"dataset.probe_split={probe_split}: {path / probes} holds no folders; {_LAYOUT}")
    unknown = sorted(set(probe_names) - set(names))
    if unknown:
        raise InputError(
            f"dataset.root={root}: {probes}/{unknown[0]} is no class of {train}; train on it, or move it away"
        )
    are_wnids = all(re.fullmatch(r"n\d{8}", name) for name in names)  # such as n01440764
    return _Folders(path, train, probes, {name: name for name in names}, are_wnids)


def _imagenet_folders(root: str | None, probe_split: str) -> _Folders:
    """Return ImageNet's layout, once it is known that the folder has it."""
    require(root is not None, f"dataset.root is not set; {_HOW}")
    require(probe_split in ("val", "train"), f"dataset.probe_split must be val or train, got {probe_split!r}")
    path = Path(str(root)).expanduser()
    names = class_names()
    for split in dict.fromkeys(("train", probe_split)):
        wnids = _subfolders(path / split)
        # Validation images that lie in one folder, as their archive holds them.
        flat = split == "val" and not wnids and (path / split).is_dir() and any((path / split).glob("ILSVRC2012_val_*"))
        require(
            not flat,
            f"dataset.root: {path / split} holds images that are not sorted by wnid; move it away, put "
            "ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz beside train, and run "
            "torchvision.datasets.ImageNet(ROOT, 'val'), which sorts them; or take the probes from the training images "
            "with dataset.probe_split=train",
        )
        require(len(wnids) > 0, f"dataset.root={root} is not ImageNet: {path / split} holds no folders; {_HOW}")
        unknown = [wnid for wnid in wnids if wnid not in names]
        if unknown:
            raise InputError(
                f"dataset.root={root}: {split}/{unknown[0]} is none of ImageNet's 1,000 classes; "
                "dataset=image_folder takes any folders"
            )
    return _Folders(path, "train", probe_split, names, True)


def _subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; hidden ones left out, none where there is no folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _chosen_classes(classes: int | Sequence[str] | None, folders: Sequence[str], seed: int) -> list[str]:
    """Return the folders of the classes that probes come from: all, those named, or a random number of them.

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
    # Hydra reads 0, 1e3 and true as numbers and truth: folders that are written so are meant.
    read_as = {_as_yaml(folder): folder for folder in folders}
    classes = [name if name in set(folders) else read_as.get((type(name), name), name) for name in classes]
    unknown = [name for name in classes if name not in set(folders)]
    require(not unknown, f"dataset.classes: there is no folder {unknown[:1]}; folders are such as {folders[0]}")
    require(len(set(classes)) == len(classes), f"dataset.classes names a class twice: {list(classes)}; name each once")
    return sorted(classes)


def _as_yaml(name: str) -> tuple[type, object]:
    """Return (type, value) of a word as Hydra reads it on the command line."""
    words: dict[str, object] = {"true": True, "false": False, "null": None}
    value: object = name
    if name.lower() in words:
        value = words[name.lower()]
    elif re.fullmatch(r"[+-]?(0|[1-9]\d*)", name):
        value = int(name)
    elif re.fullmatch(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?", name):
        value = float(name)
    return type(value), value


def stratified(
    numbers: np.ndarray, wanted: Sequence[int], names: Sequence[str], per_class: int | None, seed: int
) -> np.ndarray:
    """Return rows of `per_class` random samples of every wanted class, class after class.

    A class's choice depends on the seed and its own number alone, and more samples contain fewer, so that runs on
    fewer classes or probes have probes in common.

    Args:
        numbers: class of every sample, [n].
        wanted: classes, by number.
        names: and by name, for the message.
        per_class: samples; None: all, in order.
        seed: of the choice.

    Raises:
        InputError: a class has too few samples.
    """
    order = np.argsort(numbers, kind="stable")  # rows, class after class
    if per_class is None:
        return order[np.isin(numbers[order], wanted)]
    first, end = (np.searchsorted(numbers[order], wanted, side) for side in ("left", "right"))
    rows = []
    for number, name, start, stop in zip(wanted, names, first, end, strict=True):
        require(
            stop - start >= per_class,
            f"dataset.probes_per_class needs {per_class} samples of every class, but {name} has {stop - start}; "
            "lower it, or name the classes in dataset.classes",
        )
        rows.append(order[start:stop][np.random.default_rng([seed, number]).permutation(stop - start)[:per_class]])
    return np.concatenate(rows)
