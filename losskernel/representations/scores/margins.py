"""Scores from margins: by how much the logit of one class leads the others."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from losskernel.data.base import Data
from losskernel.errors import require
from losskernel.representations.evaluation import predictions, probabilities
from losskernel.representations.history import History, require_kept

_SCALES = ("logit", "probability")


@dataclass(frozen=True)
class Margin:
    """Minus the margin of the given class over the best other at the trained weights, [N, 1].

    Attributes:
        of: "logit", in nats, or "probability".

    Source: Pickler et al. 2025 (the logit margin).
    """

    of: str = "logit"

    def __post_init__(self) -> None:
        require(self.of in _SCALES, f"baselines.margin.of must be one of {', '.join(_SCALES)}, got {self.of!r}")

    def __call__(self, model: nn.Module, data: Data) -> np.ndarray:
        """Return the scores.

        Raises:
            InputError: the network is no classifier.
        """
        logits, given = predictions(model, data)
        return -_margins(logits if self.of == "logit" else probabilities(logits), given)[:, None]


@dataclass(frozen=True)
class Uncertainty:
    """Minus the logit margin of the predicted class over the runner-up, [N, 1], whatever class was given.

    Where the given class is not the predicted one, a confident network has a large negative margin and no uncertainty.
    """

    def __call__(self, model: nn.Module, data: Data) -> np.ndarray:
        """Return the scores.

        Raises:
            InputError: the network is no classifier.
        """
        logits, _ = predictions(model, data)
        return -_margins(logits, logits.argmax(axis=1))[:, None]


@dataclass(frozen=True)
class AreaUnderMargin:
    """Minus the logit margin of the given class over the best other, its mean over the networks kept, [N, 1].

    Source: Pleiss et al. 2020, arXiv 2001.10528, where it is the mean over epochs.
    """

    needs_history: ClassVar[bool] = True

    def __call__(self, model: nn.Module, data: Data, history: History) -> np.ndarray:
        """Return the scores.

        Raises:
            InputError: the network is no classifier, or training kept no weights.
        """
        margins = [_margins(*predictions(network, data)) for network in history.trained_part(model)]
        require_kept(len(margins))
        return -np.mean(margins, axis=0)[:, None]


def _margins(scores: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return by how much the given class leads, [N], from the scores of all classes [N, K]."""
    leading = np.take_along_axis(scores, given[:, None], axis=1)[:, 0]  # [N]
    others = scores.copy()
    np.put_along_axis(others, given[:, None], -np.inf, axis=1)
    return leading - others.max(axis=1)
