"""ImageNet's 1,000 classes (ILSVRC 2012), from folders by wnid."""

import json
from collections.abc import Sequence
from functools import cache as once
from importlib.resources import files
from pathlib import Path

from losskernel.data.base import Data
from losskernel.data.images.folders import Folders, class_folders
from losskernel.data.images.preprocessing import Preprocessing
from losskernel.data.taxonomy import wordnet
from losskernel.errors import InputError, require

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
