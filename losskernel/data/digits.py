"""scikit-learn's handwritten digits: 1,797 real images of 8 × 8 pixels, ten classes, no download."""

import numpy as np
import torch
from torch.utils.data import TensorDataset

from losskernel.data.base import Data
from losskernel.errors import require, require_integer
from losskernel.losses import cross_entropy


def digits(probes: int | None = 500, held_out: int = 297, seed: int = 0, probe_split: str = "train") -> Data:
    """Digit images [1, 8, 8] in [0, 1] with cross-entropy; label: class; ids: the images' numbers.

    Args:
        probes: probes in all, a tenth per class; None: all images of the split, in its own order.
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
    choices = ("train", "held_out")
    require(probe_split in choices, f"dataset.probe_split must be train or held_out, got {probe_split!r}")
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
