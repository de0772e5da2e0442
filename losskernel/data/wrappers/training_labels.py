"""What the labels of probes tell of training samples."""

import numpy as np
from torch import Tensor

from losskernel.data.base import Data, size
from losskernel.data.parts import targets_of
from losskernel.data.wrappers.relabelling import is_classes
from losskernel.errors import require

# Planted truth, which the class as given does not tell; and what a sample that is no probe has of it for certain, for
# twins and backdoors are planted in probes.
_TRUTH = ("true_class", "mislabelled")
_UNPLANTED = {"twin": -1, "backdoored": False}


def training_labels(data: Data, rows: np.ndarray, targets: Tensor, wrapper: str) -> dict[str, np.ndarray]:
    """Return what is known of some training samples, name -> [n]; labels of which nothing is known are left out.

    A label is known of a sample that is a probe, and where it is text that all probes of the sample's class share, of
    which there must be two: with one, anything would seem to belong to the class. Elsewhere it is `missing`.

    Args:
        data: its probes' labels; class and role left out.
        rows: numbers of the training samples, [n].
        targets: their targets, [n, ...].
        wrapper: that asks, for the message.

    Raises:
        InputError: the planted truth of a sample is not known.
    """
    members = data.members()
    probe = np.full(size(data.train), -1)  # that each training sample is
    probe[members[members >= 0]] = np.flatnonzero(members >= 0)
    probe = probe[rows]
    classes = targets_of(data.probes, data.workers).numpy() if is_classes(targets) else None
    found: dict[str, np.ndarray] = {}
    for name, values in data.labels.items():
        known, told = probe >= 0, values[np.maximum(probe, 0)]
        if name in ("class", "role"):
            continue
        if name in _TRUTH:
            require(
                bool(known.all()),
                f"wrapper.{wrapper} does not know {name} of training samples that were no probes when it was planted; "
                f"put {wrapper} before the wrapper that plants it",
            )
        elif name in _UNPLANTED:
            told[~known] = _UNPLANTED[name]
        else:
            if classes is not None and values.dtype.kind in "UO":
                told, known = _shared(values, classes, told, known, targets.numpy())
            told = np.where(known, told, missing(values, len(rows)))
        if name in (*_TRUTH, *_UNPLANTED) or known.any():
            found[name] = told
    return found


def missing(values: np.ndarray, count: int) -> np.ndarray:
    """Return what stands for an unknown label of some kind, [count]: "" of text, nan of numbers, -1 of whole ones."""
    unknown = {"f": np.nan, "i": -1, "u": -1, "b": -1}.get(values.dtype.kind, "")
    return np.full(count, unknown)


def _shared(
    values: np.ndarray, classes: np.ndarray, told: np.ndarray, known: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return told [n] and known [n] with what all probes of a class share."""
    told, known = told.copy(), known.copy()
    for number in np.unique(classes):
        own = values[classes == number]
        if len(own) >= 2 and (own == own[0]).all():
            told[~known & (wanted == number)] = own[0]
            known |= wanted == number
    return told, known
