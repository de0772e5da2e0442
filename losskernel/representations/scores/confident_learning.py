"""Label quality from out-of-sample predictions (confident learning)."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import ClassVar

import numpy as np
from torch import nn
from torch.utils.data import Subset

from losskernel.data.base import Data, size
from losskernel.data.recombined import targets_of
from losskernel.errors import require, require_integer
from losskernel.representations.evaluation import device_of, predictions, probabilities
from losskernel.representations.history import History
from losskernel.storage.locations import guard
from losskernel.storage.npz import read_arrays, write_arrays

# In the run's folder.
FOLDS = "folds"
_METHODS = ("normalized_margin", "self_confidence", "confidence_weighted_entropy")


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
        quality = get_label_quality_scores(given, unseen, method=self.method)
        return 1 - np.asarray(quality)[:, None]

    def _out_of_sample(self, model: nn.Module, data: Data, history: History) -> np.ndarray:
        """Return each probe's probabilities [N, K] from the networks that were trained without it."""
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
