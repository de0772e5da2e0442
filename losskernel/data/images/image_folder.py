"""Pictures of one's own: a folder for each class."""

from collections.abc import Sequence
from pathlib import Path

from losskernel.data.base import Data
from losskernel.data.images.folders import Folders, are_wnids, class_folders
from losskernel.data.images.preprocessing import Preprocessing
from losskernel.errors import InputError, require

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
