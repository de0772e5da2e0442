"""The training samples that help and harm each query most, with the errors of their influence."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from losskernel.analyses.attribution.datamodelling_score import unit_ranks
from losskernel.analyses.attribution.methods import Joint, Method, bayesian_influence
from losskernel.kernel.loss_kernel import LossKernel


class Influences(NamedTuple):
    """Bayesian influence of every training sample on every query, and the extreme ones."""

    values: np.ndarray  # [T, Q]
    errors: np.ndarray  # [T, Q], standard errors
    helpful: np.ndarray  # [Q, k] into the training samples, most helpful first; -1 where none is left
    harmful: np.ndarray  # [Q, k], most harmful first

    @classmethod
    def of(cls, kernel: LossKernel, joint: Joint, top: int) -> "Influences":
        """Read them off a kernel.

        Raises:
            InputError: there are too few draws for errors.
        """
        values = bayesian_influence(kernel, joint)
        errors = kernel.standard_error(joint.queries)[:, joint.train].T
        top = min(top, len(joint.train))
        return cls(values, errors, _extreme(-values, top), _extreme(values, top))


def _extreme(values: np.ndarray, top: int) -> np.ndarray:
    """Return the places of the lowest values below 0 of each column, [Q, top]; -1 where there are no more."""
    order = np.argsort(values, axis=0, kind="stable")[:top].T
    return np.where(np.take_along_axis(values.T, order, axis=1) < 0, order, -1)


def agreement(methods: Iterable[Method]) -> pd.DataFrame:
    """Return a table of every two methods: the rank correlation of their influences on a query, mean over queries."""
    ranks = {method.name: unit_ranks(method.scores().T) for method in methods}  # [Q, T] each
    rows = [{name: float((own * other).sum(-1).mean()) for name, other in ranks.items()} for own in ranks.values()]
    return pd.DataFrame([{"method": name} | row for name, row in zip(ranks, rows, strict=True)])
