"""Scores of the first part of training, when a network has not yet learned its errors by heart."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from losskernel.data.base import Data
from losskernel.representations.baselines.classifiers import predictions, probabilities
from losskernel.representations.baselines.collect import History
from losskernel.representations.scores.gradient_norms import gradient_norms
from losskernel.representations.scores.kept_checkpoints import kept, require_kept, require_share


@dataclass(frozen=True)
class EL2N:
    """Length of softmax − onehot of the given class, its mean over the networks kept early in training, [N, 1].

    Attributes:
        until: share of training's steps that counts as early; the untrained network does not count.

    Source: Paul et al. 2021, arXiv 2107.07075, where it is the mean over networks trained apart.
    """

    until: float = 0.2

    needs_history: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_share("baselines.el2n.until", self.until)

    def __call__(self, model: nn.Module, data: Data, history: History) -> np.ndarray:
        """Return the scores.

        Raises:
            InputError: the network is no classifier, or training kept no weights in time.
        """
        lengths = [_lengths(network, data) for network in kept(history, model, self.until)]
        require_kept(len(lengths), self.until)
        return np.mean(lengths, axis=0)[:, None]


@dataclass(frozen=True)
class GraNd:
    """Norm of the gradient of a probe's loss in all weights, its mean over the networks kept early, [N, 1].

    Attributes:
        until: share of training's steps that counts as early; the untrained network does not count.

    Source: Paul et al. 2021, arXiv 2107.07075.
    """

    until: float = 0.2

    needs_history: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_share("baselines.grand.until", self.until)

    def __call__(self, model: nn.Module, data: Data, history: History) -> np.ndarray:
        """Return the scores.

        Raises:
            InputError: the network has no weights, or training kept none in time.
        """
        norms = [gradient_norms(network, data).numpy() for network in kept(history, model, self.until)]
        require_kept(len(norms), self.until)
        return np.mean(norms, axis=0)[:, None]


def _lengths(model: nn.Module, data: Data) -> np.ndarray:
    logits, given = predictions(model, data)
    errors = probabilities(logits)
    errors[np.arange(len(given)), given] -= 1
    return np.linalg.norm(errors, axis=1)
