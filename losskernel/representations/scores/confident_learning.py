"""What networks that have not seen a sample say of its label."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from losskernel.data.base import Data, size
from losskernel.data.recombined import targets_of
from losskernel.errors import require, require_integer
from losskernel.representations.baselines.classifiers import predictions, probabilities
from losskernel.representations.baselines.collect import History
from losskernel.storage.locations import guard
from losskernel.storage.npz import read_arrays, write_arrays

# In the run's folder.
FOLDS = "folds"
_METHODS = ("normalized_margin", "self_confidence", "confidence_weighted_entropy")


@dataclass(frozen=True)
class ConfidentLearning:
    """One minus cleanlab's label quality from out-of-sample probabilities, [N, 1]; between 0 and 1.

    The training set is cut into folds with equal shares of every class; for each fold the network is trained anew on
    the rest. A probe that is a training sample is scored by the network that has not seen it, any other by the mean
    over all of them. Every network's probabilities are kept in the run's folder, so that an interrupted run goes on.

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
            TraceError: the run's folder cannot be written, or what it keeps is damaged.
        """
        from cleanlab.rank import get_label_quality_scores

        _, given = predictions(model, data)
        outside = self._out_of_sample(model, data, history)
        quality = get_label_quality_scores(given, outside, method=self.method)
        return 1 - np.asarray(quality)[:, None]

    def _out_of_sample(self, model: nn.Module, data: Data, history: History) -> np.ndarray:
        """Return each probe's probabilities [N, K] from the networks that have not seen it."""
        samples = size(data.train)
        require(self.folds <= samples, f"folds must be <= the {samples} training samples, got {self.folds}; lower it")
        fold = stratified(targets_of(data.train, data.workers).numpy(), self.folds, self.seed)
        members = data.members()
        unseen = np.where(members >= 0, fold[members], -1)  # which network has not seen the probe; -1: none has
        device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
        every = []
        for number in range(self.folds):
            path = history.folder / FOLDS / f"{self.folds}-seed-{self.seed}" / f"fold-{number}.npz"
            if not path.is_file():
                rest = Subset(data.train, np.flatnonzero(fold != number).tolist())
                network = history.retrain(replace(data, train=rest, train_ids=None), self.seed + number)
                found = probabilities(predictions(network.to(device), data)[0])
                guard(path, write_arrays, path, {"probabilities": found})
            every.append(read_arrays(path)["probabilities"])
        stacked = np.stack(every)  # [folds, N, K]
        return np.where(unseen[:, None] < 0, stacked.mean(axis=0), stacked[unseen, np.arange(len(unseen))])


def stratified(classes: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold [n] of every sample, such that folds are equal in size and in each class, up to one sample."""
    shuffled = np.random.default_rng(seed).permutation(len(classes))
    # Dealt out like cards, class after class: the next class goes on where the last one ended.
    order = shuffled[np.argsort(classes[shuffled], kind="stable")]
    fold = np.empty(len(classes), dtype=int)
    fold[order] = np.arange(len(classes)) % folds
    return fold
