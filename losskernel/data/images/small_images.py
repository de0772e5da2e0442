"""Small labelled images in memory: handwritten digits, CIFAR-10 and CIFAR-100."""

import functools
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from losskernel.data.base import Data, PackedTensors
from losskernel.data.images.image_files import CachedImages, Crop, ImageFiles
from losskernel.data.images.image_folders import stratified
from losskernel.data.images.image_source import ImageSource, image_source
from losskernel.errors import InputError, require, require_integer
from losskernel.losses import cross_entropy
from losskernel.storage.downloads import PREFETCH, report_download

_SIDE = 32  # pixels, of CIFAR's images
_PICTURES = "expected a picture file for each image, train/CLASS/* and test/CLASS/*, in a folder or zip archive"
_WORKERS = 2  # processes that decode them, once


def digits(probes: int | None = 500, held_out: int = 297, seed: int = 0, probe_split: str = "train") -> Data:
    """scikit-learn's 1,797 handwritten digits, [1, 8, 8] in [0, 1], with cross-entropy; label: class; ids: numbers.

    Args:
        probes: probes in all, a tenth per class; None: all images of the split, in shuffled order.
        held_out: images that are not trained on.
        seed: shuffles the images.
        probe_split: where probes come from: train (training images) or held_out.

    Raises:
        InputError: sizes that do not fit the 1,797 images.
    """
    from sklearn.datasets import load_digits

    if probes is not None:
        require_integer("dataset.probes", probes, at_least=10)
    require_integer("dataset.held_out", held_out, at_least=0)
    require(probe_split in ("train", "held_out"), f"dataset.probe_split must be train or held_out, got {probe_split!r}")
    bunch = load_digits()
    images, classes = np.asarray(bunch.images), np.asarray(bunch.target)  # pyright: ignore[reportAttributeAccessIssue]
    shuffled = np.random.default_rng(seed).permutation(len(images))
    order = shuffled[held_out:]
    require(len(order) >= 100, f"dataset.held_out leaves {len(order)} images to train on, got {held_out}; lower it")
    chosen = order if probe_split == "train" else shuffled[:held_out]
    require(len(chosen) > 0, "dataset.held_out must be > 0 for probes from held-out images, got 0; raise it")
    if probes is not None:
        chosen = _balanced(chosen, classes, probes, probe_split)
    inputs = torch.as_tensor(images / 16.0, dtype=torch.float32)[:, None]
    targets = torch.as_tensor(classes)
    return Data(
        train=TensorDataset(inputs[order], targets[order]),
        probes=TensorDataset(inputs[chosen], targets[chosen]),
        loss=cross_entropy,
        labels={"class": classes[chosen]},
        ids=chosen.tolist(),
        train_ids=order.tolist(),
        classes=[str(digit) for digit in range(10)],
    )


def cifar10(
    root: str = "data",
    download: bool = False,
    mean: Sequence[float] = (0.4914, 0.4822, 0.4465),
    std: Sequence[float] = (0.2470, 0.2435, 0.2616),
    probes_per_class: int | None = 100,
    probe_split: str = "val",
    seed: int = 0,
) -> Data:
    """CIFAR-10 with cross-entropy, in memory; label: class; ids: split/row, or paths of pictures.

    Args:
        root: folder that holds cifar-10-batches-py; or a folder or zip archive with a picture file for each image,
            train/CLASS/* and test/CLASS/*, which is decoded once into the cache (see `CachedImages`).
        download: let torchvision download it if it is not there.
        mean: of red, green and blue in [0, 1]; subtracted.
        std: of red, green and blue in [0, 1]; divided by.
        probes_per_class: probes of each class; None: all.
        probe_split: where probes come from: val (the test set) or train.
        seed: of the probes' choice.

    Raises:
        InputError: the data are not there or damaged, or a setting does not fit them.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """
    from torchvision.datasets import CIFAR10

    return _cifar(CIFAR10, root, download, (mean, std), probes_per_class, probe_split, seed)


def cifar100(
    root: str = "data",
    download: bool = False,
    mean: Sequence[float] = (0.5071, 0.4865, 0.4409),
    std: Sequence[float] = (0.2673, 0.2564, 0.2762),
    probes_per_class: int | None = 20,
    probe_split: str = "val",
    seed: int = 0,
) -> Data:
    """CIFAR-100 with cross-entropy, in memory; labels: class, superclass. Arguments and errors as of `cifar10`."""
    from torchvision.datasets import CIFAR100

    return _cifar(CIFAR100, root, download, (mean, std), probes_per_class, probe_split, seed)


def _balanced(order: np.ndarray, classes: np.ndarray, probes: int, split: str) -> np.ndarray:
    """Return the first images of every class, class after class."""
    per_class = probes // 10
    chosen = np.concatenate([order[classes[order] == digit][:per_class] for digit in range(10)])
    kind = "training" if split == "train" else "held-out"
    require(
        len(chosen) == 10 * per_class,
        f"dataset.probes needs {per_class} {kind} images of every class, got {probes}; lower it",
    )
    return chosen


def _cifar(
    kind: Any,
    root: str,
    download: bool,
    statistics: tuple[Sequence[float], Sequence[float]],
    probes_per_class: int | None,
    probe_split: str,
    seed: int,
) -> Data:
    if probes_per_class is not None:
        require_integer("dataset.probes_per_class", probes_per_class, at_least=1)
    require_integer("dataset.seed", seed, at_least=0)
    require(probe_split in ("val", "train"), f"dataset.probe_split must be val or train, got {probe_split!r}")
    crop = Crop(_SIDE, _SIDE, *statistics, "bilinear")
    read = functools.partial(_read, kind, root, download=download)
    path = Path(root).expanduser()
    archives = download or (path / kind.base_folder).is_dir()  # which come first: other data may lie beside them
    if path.is_file() or ((path / "train").is_dir() and not archives):
        read = functools.partial(_read_pictures, image_source(root, "dataset.root", _PICTURES), crop)
    train = read(train=True)
    source = train if probe_split == "train" else read(train=False)
    numbers, names = source.targets, source.classes
    rows = stratified(numbers, range(len(names)), names, probes_per_class, seed)
    return Data(
        train=PackedTensors(train.pixels, torch.from_numpy(train.targets), crop),
        probes=PackedTensors(source.pixels[torch.from_numpy(rows)], torch.from_numpy(numbers[rows]), crop),
        loss=cross_entropy,
        labels={"class": np.array(names)[numbers[rows]]} | {name: label[rows] for name, label in source.labels.items()},
        ids=[source.ids[row] for row in rows],
        train_ids=train.ids,
        classes=names,
    )


class _Split(NamedTuple):
    """The training or the test images of a CIFAR."""

    pixels: Tensor  # uint8 [n, 3, 32, 32]
    targets: np.ndarray  # [n]
    classes: list[str]
    ids: list[str]  # [n]
    labels: dict[str, np.ndarray]  # [n] each, besides the class


def _read_pictures(source: ImageSource, crop: Crop, train: bool) -> _Split:
    """Read images from a picture file each."""
    below = "train" if train else "test"
    classes = source.subfolders("train")
    wanted = len(classes) > 1 and source.subfolders(below) == classes
    require(wanted, f"dataset.root: {source / below} does not hold the folders of all classes; {_PICTURES}")
    ids, targets = source.images(below, {name: number for number, name in enumerate(classes)})
    pixels, _ = CachedImages(ImageFiles(source, ids, targets, crop), None, _WORKERS).held()
    return _Split(pixels, targets, classes, ids, {})


def _read(kind: Any, root: str, train: bool, download: bool) -> _Split:
    """Read one of torchvision's data sets, or say what is missing."""
    folder = Path(root).expanduser() / kind.base_folder
    there = folder.is_dir()
    try:
        source = kind(folder.parent, train=train, download=download)
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"dataset.root={root}: {kind.__name__} is not there or damaged: expected {folder} "
            f"({str(error).splitlines()[0]}); {PREFETCH} (or set dataset.download=true there), give the folder that "
            f"holds it, or unpack {kind.url} in {root}"
        ) from error
    report_download(kind.__name__, folder, new=not there)
    pixels = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()  # [n, 3, 32, 32]
    targets = np.array(source.targets)
    ids = [f"{'train' if train else 'val'}/{row}" for row in range(len(targets))]
    return _Split(pixels, targets, list(source.classes), ids, _superclasses(source))


def _superclasses(source: Any) -> dict[str, np.ndarray]:
    """Return CIFAR-100's coarse classes [n], which are in the files but not in torchvision; CIFAR-10 has none."""
    (samples, _), *_ = source.train_list if source.train else source.test_list
    files = [Path(source.root) / source.base_folder / name for name in (samples, source.meta["filename"])]
    content, meta = (pickle.loads(file.read_bytes(), encoding="latin1") for file in files)
    if "coarse_labels" not in content:
        return {}
    return {"superclass": np.array(meta["coarse_label_names"])[np.array(content["coarse_labels"])]}
