"""Images in labelled folders or zip archives of them: any, ImageNet, and Tiny ImageNet."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from losskernel.data.base import Data
from losskernel.data.images.image_files import CachedImages, ImageFiles, Preprocessing
from losskernel.data.images.image_source import ImageSource, image_source
from losskernel.data.taxonomy.readers import shipped, wordnet
from losskernel.errors import InputError, require, require_integer
from losskernel.losses import cross_entropy

# A training set up to this size is decoded once as well; a larger one is read from its files, minibatch by minibatch.
_TRAIN_CACHED_BYTES = 2 * 2**30
_LAYOUT = "expected a folder of images for each class, root/CLASS/*, or split: root/train/CLASS/* and root/val/CLASS/*"
_TINY = (
    "expected tiny-imagenet-200 as it is unpacked: ROOT/train/WNID/images/*.JPEG, and ROOT/val/images/*.JPEG with "
    "ROOT/val/val_annotations.txt, or ROOT/val/WNID/*.JPEG"
)
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
        root: folder, or zip archive of it, which is read in place.
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
    train_root: str | None = None,
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
        train_root: folder or archive whose train/WNID/* are the training images, where those of the root are not at
            hand or too few: Tiny ImageNet, enlarged to `size`, stands for 200 of the classes. None: the root.
        probes_per_class: probes of each class; 10 make 10,000; None: all.
        probe_split: where probes come from: val or train.
        classes: whose images are probes: a list of wnids, or a random number of them; None: all.

    Raises:
        InputError: no ImageNet where it should be, or a setting that does not fit it.

    Source: Russakovsky et al. 2015, "ImageNet Large Scale Visual Recognition Challenge".
    """
    folders = _imagenet_folders(root, train_root, probe_split)
    return folders.data(size, preprocessing, probes_per_class, classes, seed, workers, cache)


def tiny_imagenet(
    root: str | None = None,
    size: int | None = 64,
    preprocessing: Preprocessing | None = None,
    probes_per_class: int | None = 50,
    probe_split: str = "val",
    classes: int | Sequence[str] | None = None,
    pretrained_head: bool = False,
    seed: int = 0,
    workers: int = 4,
    cache: str | None = None,
) -> Data:
    """Tiny ImageNet, 200 classes of ImageNet at 64 pixels, with cross-entropy; labels as of `imagenet`.

    Args:
        root: folder or zip archive, as it is unpacked or with a folder for each class of the validation set.
        size: pixels a side of the network's input; other than 64, images are resized.
        probes_per_class: probes of each class; 50 make 10,000; None: all.
        probe_split: where probes come from: val or train.
        pretrained_head: number the classes as heads of ImageNet's 1,000 outputs do; false: from 0 to 199.

    Raises:
        InputError: no Tiny ImageNet where it should be, or a setting that does not fit it.

    Source: Le & Yang 2015, "Tiny ImageNet visual recognition challenge".
    """
    folders = _tiny_folders(root, probe_split, pretrained_head)
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
        source: of the probes.
        train_source: of the training images.
        train: folder below it that holds the training classes' folders; "" is the root itself.
        probes: the probes' likewise.
        names: a class's folder -> its name, in the order of the classes' numbers.
        are_wnids: whether folders are called by WordNet's identifiers.
        listed: path -> class of the probes' images, where they do not lie in folders of their classes.
    """

    source: ImageSource
    train_source: ImageSource
    train: str
    probes: str
    names: Mapping[str, str]
    are_wnids: bool
    listed: Mapping[str, str] = field(default_factory=dict)

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
        preprocessing = preprocessing or Preprocessing()
        crop, crops = preprocessing.at(size), preprocessing.train_crops
        if probes_per_class is not None:
            require_integer("dataset.probes_per_class", probes_per_class, at_least=1)
        require_integer("dataset.workers", workers, at_least=0)
        require_integer("dataset.seed", seed, at_least=0)
        targets = {name: number for number, name in enumerate(self.names)}
        names, numbers = self.train_source.images(self.train, targets)
        require(
            len(names) > 0, f"dataset.root: there are no images in {self.train_source / self.train}; fill its folders"
        )
        train = ImageFiles(self.train_source, names, numbers, crop, crops)
        train_ids = [*names, *(f"{name} crop {version}" for version in range(1, crops) for name in names)]
        present = sorted(set(self.listed.values())) or self.source.subfolders(self.probes)
        if self.listed:
            names, numbers = list(self.listed), np.array([targets[name] for name in self.listed.values()])
        elif (self.source, self.probes) != (self.train_source, self.train):
            names, numbers = self.source.images(self.probes, targets)
        folders = list(self.names)
        wanted = _chosen_classes(classes, present, seed)
        rows = stratified(numbers, [targets[name] for name in wanted], wanted, probes_per_class, seed)
        ids = [names[row] for row in rows]
        probe_folders = [folders[number] for number in numbers[rows]]
        labels = {"class": [self.names[folder] for folder in probe_folders]}
        cached = int(np.prod(train.shape)) <= _TRAIN_CACHED_BYTES
        return Data(
            train=CachedImages(train, cache, workers) if cached else train,
            probes=CachedImages(ImageFiles(self.source, ids, numbers[rows], crop), cache, workers),
            loss=cross_entropy,
            labels=labels | ({"wnid": probe_folders} if self.are_wnids else {}),
            ids=ids,
            workers=workers,
            train_ids=train_ids,  # a list: a million paths are 120 MB, and four times that as an array of text
            classes=list(self.names.values()),
        )


def _any_folders(root: str | None, probe_split: str | None) -> _Folders:
    """Return which of the two layouts a folder has."""
    source = _source(root, _LAYOUT)
    split = bool(source.subfolders("train"))
    train = "train" if split else ""
    names = source.subfolders(train)
    require(len(names) > 0, f"dataset.root={root} holds no folders; {_LAYOUT}")
    require(
        split or probe_split is None, f"dataset.probe_split={probe_split}: there is no {source / 'train'}; {_LAYOUT}"
    )
    probes = train
    if split:
        probes = probe_split or ("val" if source.subfolders("val") else train)
    probe_names = source.subfolders(probes)
    require(len(probe_names) > 0, f"dataset.probe_split={probe_split}: {source / probes} holds no folders; {_LAYOUT}")
    unknown = sorted(set(probe_names) - set(names))
    if unknown:
        raise InputError(
            f"dataset.root={root}: {probes}/{unknown[0]} is no class of {train}; train on it, or move it away"
        )
    are_wnids = all(re.fullmatch(r"n\d{8}", name) for name in names)  # such as n01440764
    return _Folders(source, source, train, probes, {name: name for name in names}, are_wnids)


def _imagenet_folders(root: str | None, train_root: str | None, probe_split: str) -> _Folders:
    """Return ImageNet's layout, once it is known that the folder has it."""
    source = _source(root, _HOW)
    _check_split(probe_split)
    train = source if train_root is None else _source(train_root, _HOW, "dataset.train_root")
    names = class_names()
    train_key = "root" if train_root is None else "train_root"
    for key, place, split in dict.fromkeys([(train_key, train, "train"), ("root", source, probe_split)]):
        wnids = place.subfolders(split)
        # Validation images that lie in one folder, as their archive holds them.
        flat = split == "val" and not wnids and any(name.startswith("ILSVRC2012_val_") for name in place.files(split))
        require(
            not flat,
            f"dataset.root: {place / split} holds images that are not sorted by wnid; move it away, put "
            "ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz beside train, and run "
            "torchvision.datasets.ImageNet(ROOT, 'val'), which sorts them; or take the probes from the training images "
            "with dataset.probe_split=train",
        )
        where = f"dataset.{key}={train_root if key == 'train_root' else root}"
        require(len(wnids) > 0, f"{where} is not ImageNet: {place / split} holds no folders; {_HOW}")
        unknown = [wnid for wnid in wnids if wnid not in names]
        if unknown:
            raise InputError(
                f"{where}: {split}/{unknown[0]} is none of ImageNet's 1,000 classes; "
                "dataset=image_folder takes any folders"
            )
    return _Folders(source, train, "train", probe_split, names, True)


def _tiny_folders(root: str | None, probe_split: str, pretrained_head: bool) -> _Folders:
    """Return Tiny ImageNet's layout, once it is known that the folder has it."""
    require(
        isinstance(pretrained_head, bool), f"dataset.pretrained_head must be true or false, got {pretrained_head!r}"
    )
    source = _source(root, _TINY)
    _check_split(probe_split)
    wnids = source.subfolders("train")
    names = class_names()
    fit = len(wnids) > 0 and names.keys() >= set(wnids)
    require(
        fit, f"dataset.root={root} is not Tiny ImageNet: {source / 'train'} holds no folders called by wnids; {_TINY}"
    )
    listed: dict[str, str] = {}
    annotations = "val_annotations.txt"
    if probe_split == "val" and annotations in source.files("val"):
        rows = [line.split("\t") for line in source.text(f"val/{annotations}").splitlines() if line.strip()]
        listed = {f"val/images/{row[0]}": row[1] for row in rows if len(row) > 1}
        unknown = sorted(set(listed.values()) - set(wnids))
        require(
            len(listed) == len(rows) > 0 and not unknown,
            f"dataset.root={root}: val/{annotations} does not give each image a class of train; {_TINY}",
        )
    else:
        require(
            len(source.subfolders(probe_split)) > 0,
            f"dataset.root={root}: {source / probe_split} holds no folders; {_TINY}",
        )
        unknown = sorted(set(source.subfolders(probe_split)) - set(wnids))
        require(not unknown, f"dataset.root={root}: {probe_split}/{unknown[:1]} is no class of train; {_TINY}")
    chosen = names if pretrained_head else {wnid: names[wnid] for wnid in wnids}
    return _Folders(source, source, "train", probe_split, chosen, True, listed)


def _source(root: str | None, expected: str, key: str = "dataset.root") -> ImageSource:
    require(root is not None, f"{key} is not set; {expected}")
    return image_source(str(root), key, expected)


def _check_split(probe_split: str) -> None:
    require(probe_split in ("val", "train"), f"dataset.probe_split must be val or train, got {probe_split!r}")


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
