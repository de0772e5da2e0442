"""By how much a step on a sample alone would lower its own loss."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from losskernel.data.base import Data
from losskernel.representations.baselines.collect import History
from losskernel.representations.scores.gradient_norms import gradient_norms
from losskernel.representations.scores.kept_checkpoints import kept


@dataclass(frozen=True)
class SelfInfluence:
    """TracIn's influence of a sample on itself: its squared gradient norm, summed over the networks kept, [N, 1].

    All networks count alike, for learning rates are not kept; the untrained one does not count. Where training kept
    none, as for a loaded network, it is the squared gradient norm at the trained weights alone.

    Source: Pruthi et al. 2020, arXiv 2002.08484.
    """

    needs_history: ClassVar[bool] = True

    def __call__(self, model: nn.Module, data: Data, history: History) -> np.ndarray:
        """Return the scores.

        Raises:
            InputError: the network has no weights.
        """
        squares = [gradient_norms(network, data).square().numpy() for network in kept(history, model)]
        return np.sum(squares or [gradient_norms(model, data).square().numpy()], axis=0)[:, None]
