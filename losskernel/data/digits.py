"""scikit-learn's handwritten digits: 1,797 real images of 8 × 8 pixels, ten classes, no download."""

import numpy as np
import torch
from torch.utils.data import TensorDataset

from losskernel.data.base import Data
from losskernel.errors import require, require_integer
from losskernel.losses import cross_entropy


def digits(probes: int = 500, held_out: int = 297, seed: int = 0) -> Data:
    """Digit images [1, 8, 8] in [0, 1] with cross-entropy; the probes are training samples, equal per class.

    Args:
        probes: probes in all; a tenth per class.
        held_out: images that are neither trained on nor probed.
        seed: shuffles the images.

    Raises:
        InputError: sizes that do not fit the 1,797 images.
    """
    from sklearn.datasets import load_digits

    require_integer("dataset.probes", probes, at_least=10)
    require_integer("dataset.held_out", held_out, at_least=0)
    bunch = load_digits()
    images, classes = np.asarray(bunch.images), np.asarray(bunch.target)  # pyright: ignore[reportAttributeAccessIssue]
    order = np.random.default_rng(seed).permutation(len(images))[held_out:]
    require(len(order) >= 100, f"dataset.held_out leaves {len(order)} images to train on, got {held_out}; lower it")
    per_class = probes // 10
    chosen = np.concatenate([order[classes[order] == digit][:per_class] for digit in range(10)])
    require(
        len(chosen) == 10 * per_class,
        f"dataset.probes needs {per_class} training images of every class, got {probes}; lower it",
    )
    inputs = torch.as_tensor(images / 16.0, dtype=torch.float32)[:, None]
    targets = torch.as_tensor(classes)
    return Data(
        train=TensorDataset(inputs[order], targets[order]),
        probes=TensorDataset(inputs[chosen], targets[chosen]),
        loss=cross_entropy,
        labels={"class": classes[chosen]},
        ids=chosen.tolist(),
    )
