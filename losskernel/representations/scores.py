"""Scores of mislabelled samples by established methods: one number per probe, [N, 1], higher = more suspicious.

Each score is called with the network and the data, those that look back at training with its history as well. The class
of a probe is its target, the label as given.
"""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from losskernel.data.base import Data, size
from losskernel.data.recombined import targets_of
from losskernel.errors import require, require_integer
from losskernel.representations.evaluation import (
    Evaluator,
    History,
    device_of,
    float_weights,
    gradients_one_by_one,
    gradients_side_by_side,
    predictions,
    probabilities,
    require_kept,
    require_share,
)
from losskernel.sampling.engine.stacked_model import stackable
from losskernel.storage.locations import guard
from losskernel.storage.npz import read_arrays, write_arrays

FOLDS = "folds"  # in the run's folder: of ConfidentLearning
_SCALES = ("logit", "probability")
_METHODS = ("normalized_margin", "self_confidence", "confidence_weighted_entropy")
_SAMPLES = 64  # whose gradients are held at once, at most
# Beyond as many numbers at once, gradients side by side leave the caches and take longer than one after another.
_NUMBERS = 2**20


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
        # [checkpoints, N]
        margins = [_margins(*predictions(network, data)) for network in history.trained_part(model)]
        require_kept(len(margins))
        return -np.mean(margins, axis=0)[:, None]


def _margins(scores: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return by how much the given class leads, [N], from the scores of all classes [N, K]."""
    leading = np.take_along_axis(scores, given[:, None], axis=1)[:, 0]  # [N]
    # The given class is masked, so that the maximum is over the others.
    others = scores.copy()
    np.put_along_axis(others, given[:, None], -np.inf, axis=1)
    return leading - others.max(axis=1)


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
        # [checkpoints, N]
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
        # [checkpoints, N]
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
        # [checkpoints, N]; without any, one row of the trained network.
        squares = [gradient_norms(network, data).square().numpy() for network in history.trained_part(model)]
        return np.sum(squares or [gradient_norms(model, data).square().numpy()], axis=0)[:, None]


def gradient_norms(model: nn.Module, data: Data) -> Tensor:
    """Return the norm of each probe's gradient of its own loss in all weights, [N], float64, in evaluation mode.

    Small networks without convolutions are differentiated many samples at a time, others sample by sample.

    Raises:
        InputError: the network has no weights.
    """
    network = Evaluator(model)
    weights = float_weights(network.model, "drop this baseline")
    together = _NUMBERS // sum(weight.numel() for weight in weights.values()) if stackable(model) else 0
    parts: list[Tensor] = []
    for inputs, targets in network.blocks(data):
        if together < 2:  # large networks, and convolutions, which vmap slows down
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
    errors = probabilities(logits)  # softmax − onehot, [N, K]
    errors[np.arange(len(given)), given] -= 1
    return np.linalg.norm(errors, axis=1)


@dataclass(frozen=True)
class ConfidentLearning:
    """One minus cleanlab's label quality from out-of-sample probabilities, [N, 1]; between 0 and 1.

    Cross-validation: the training set is split into folds with equal shares of every class, and for each fold a network
    is trained on the rest. A probe that is a training sample is scored by the network that was trained without it, any
    other by the mean over all of them. Every network's probabilities are stored in the run's folder, so that an
    interrupted run resumes after the last finished fold.

    Attributes:
        folds: networks to train.
        method: cleanlab's score: normalized_margin, self_confidence or confidence_weighted_entropy.
        seed: fixes the folds, and the networks' initial weights and minibatches.

    Raises:
        InputError: a setting is out of range, or cleanlab is not installed.

    Source: Northcutt et al. 2021, arXiv 1911.00068; Kuan & Mueller 2022 (the scores).
    """

    folds: int = 5
    method: str = "normalized_margin"
    seed: int = 0

    needs_history: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_integer("baselines.confident_learning.folds", self.folds, at_least=2)
        require_integer("baselines.confident_learning.seed", self.seed, at_least=0)
        known = ", ".join(_METHODS)
        require(
            self.method in _METHODS,
            f"baselines.confident_learning.method must be one of {known}, got {self.method!r}",
        )
        require(
            find_spec("cleanlab") is not None,
            "baselines.confident_learning needs cleanlab, which is not installed; pip install losskernel[cleanlab]",
        )

    def __call__(self, model: nn.Module, data: Data, history: History) -> np.ndarray:
        """Return the scores.

        Raises:
            InputError: the network is no classifier, or there are more folds than training samples.
            TraceError: the run's folder cannot be written, or a stored file is damaged.
        """
        from cleanlab.rank import get_label_quality_scores

        _, given = predictions(model, data)
        unseen = self._out_of_sample(model, data, history)
        # cleanlab's quality is high for good labels, and between 0 and 1.
        quality = get_label_quality_scores(given, unseen, method=self.method)
        return 1 - np.asarray(quality)[:, None]

    def _out_of_sample(self, model: nn.Module, data: Data, history: History) -> np.ndarray:
        """Return each probe's probabilities [N, K] from the networks that were trained without it."""
        data.require_single("baselines.confident_learning")
        samples = size(data.train)
        require(self.folds <= samples, f"folds must be <= the {samples} training samples, got {self.folds}; lower it")
        fold = stratified(targets_of(data.train, data.workers).numpy(), self.folds, self.seed)
        members = data.members()
        # Which network was trained without the probe; -1 for a probe that is no training sample.
        unseen = np.where(members >= 0, fold[members], -1)
        outputs = []
        for number in range(self.folds):
            path = history.folder / FOLDS / f"{self.folds}-seed-{self.seed}" / f"fold-{number}.npz"
            if not path.is_file():
                rest = Subset(data.train, np.flatnonzero(fold != number).tolist())
                # The training ids no longer fit the smaller set, and are not needed here.
                network = history.retrain(replace(data, train=rest, train_ids=None), self.seed + number)
                held_out = probabilities(predictions(network.to(device_of(model)), data)[0])
                guard(path, write_arrays, path, {"probabilities": held_out})
            outputs.append(read_arrays(path)["probabilities"])
        stacked = np.stack(outputs)  # [folds, N, K]
        return np.where(unseen[:, None] < 0, stacked.mean(axis=0), stacked[unseen, np.arange(len(unseen))])


def stratified(classes: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold [n] of every sample, such that folds are equal in size and in each class, up to one sample."""
    shuffled = np.random.default_rng(seed).permutation(len(classes))
    # Dealt out like cards, class after class: the next class continues where the last one ended, so that neither
    # the folds nor the classes within them differ by more than one sample.
    order = shuffled[np.argsort(classes[shuffled], kind="stable")]
    fold = np.empty(len(classes), dtype=int)
    fold[order] = np.arange(len(classes)) % folds
    return fold
