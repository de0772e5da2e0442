"""Scores from the lengths of per-sample gradients: EL2N in the logits, GraNd and self-influence in the weights."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from losskernel.data.base import Data
from losskernel.errors import require
from losskernel.representations.evaluation import (
    Evaluator,
    float_weights,
    gradients_one_by_one,
    gradients_side_by_side,
    predictions,
    probabilities,
)
from losskernel.representations.history import History, require_kept, require_share
from losskernel.sampling.engine.stacked_model import stackable

_SAMPLES = 64  # whose gradients are held at once, at most
# Beyond as many numbers at once, gradients side by side leave the caches and take longer than one after another.
_NUMBERS = 2**20


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
            InputError: the network is no classifier, or training kept no early weights.
        """
        lengths = [_error_lengths(network, data) for network in history.trained_part(model, self.until)]
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
            InputError: the network has no weights, or training kept no early ones.
        """
        norms = [gradient_norms(network, data).numpy() for network in history.trained_part(model, self.until)]
        require_kept(len(norms), self.until)
        return np.mean(norms, axis=0)[:, None]


@dataclass(frozen=True)
class SelfInfluence:
    """TracIn's influence of a sample on itself: its squared gradient norm, summed over the networks kept, [N, 1].

    By how much a step on the sample alone would lower its own loss. All networks have the same weight, since learning
    rates are not stored; the untrained one does not count. Where training kept none, as for a loaded network, it is
    the squared gradient norm at the trained weights alone.

    Source: Pruthi et al. 2020, arXiv 2002.08484.
    """

    needs_history: ClassVar[bool] = True

    def __call__(self, model: nn.Module, data: Data, history: History) -> np.ndarray:
        """Return the scores.

        Raises:
            InputError: the network has no weights.
        """
        squares = [gradient_norms(network, data).square().numpy() for network in history.trained_part(model)]
        return np.sum(squares or [gradient_norms(model, data).square().numpy()], axis=0)[:, None]


def gradient_norms(model: nn.Module, data: Data) -> Tensor:
    """Return the norm of each probe's gradient of its own loss in all weights, [N], float64, in evaluation mode.

    Small networks without convolutions are differentiated many samples at a time, others sample by sample.

    Raises:
        InputError: the network has no weights.
    """
    network = Evaluator(model)
    weights = float_weights(network.model)
    require(len(weights) > 0, f"{type(model).__name__} has no weights; drop this baseline")
    together = _NUMBERS // sum(weight.numel() for weight in weights.values()) if stackable(model) else 0
    parts: list[Tensor] = []
    for inputs, targets in network.blocks(data):
        if together < 2:
            gradients = gradients_one_by_one(network.model, data.loss, weights.values(), inputs, targets)
            norms = [torch.stack([part.norm() for part in gradient]).norm() for gradient in gradients]
            parts.append(torch.stack(norms))
            continue
        count = min(together, _SAMPLES)
        for pair in zip(inputs.split(count), targets.split(count), strict=True):
            rows = gradients_side_by_side(network.model, data.loss, weights, *pair)  # of each weight: [b, ...]
            parts.append(torch.stack([row.reshape(len(row), -1).norm(dim=1) for row in rows]).norm(dim=0))
    return torch.cat(parts).double().cpu()


def _error_lengths(model: nn.Module, data: Data) -> np.ndarray:
    logits, given = predictions(model, data)
    errors = probabilities(logits)
    errors[np.arange(len(given)), given] -= 1
    return np.linalg.norm(errors, axis=1)
