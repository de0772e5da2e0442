"""The probes in order of suspicion: what each is called, what it seems to be, and who says so."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from losskernel.analyses.memorisation.neighbours_and_opponents import Surroundings, trusted
from losskernel.kernel.loss_kernel import LossKernel


class Opinion(NamedTuple):
    """What the kernel makes of each label, each [N].

    Attributes:
        likely: the label that fits: the rival where the label as given is disputed, opposition > 0, else as given.
        rival: the label that fits best if the one given is wrong.
        support: share of the opponents' -R that speaks for the rival.
        disputed: whether the label as given is.
    """

    likely: np.ndarray
    rival: np.ndarray
    support: np.ndarray
    disputed: np.ndarray


class Witnesses(NamedTuple):
    """Trusted probes of the likely class of each suspect, the most coupled first, and R with it.

    Attributes:
        places: which probes, [n, w], -1 for none.
        correlations: [n, w]; below 0 where they stand against the label as given.
    """

    places: np.ndarray
    correlations: np.ndarray


def opinion(given: np.ndarray, around: Surroundings) -> Opinion:
    """Return the likely label of each probe, from its strongest opponents and its nearest trusted probes.

    A vote of nearest neighbours by R never names the true class of a mislabelled probe, for its neighbours are
    mislabelled like it, and its true class stands at the other end: R < 0. So the opponents name the rival, and the
    label is disputed where they are more strongly against the probe than trusted probes are with it.
    """
    names, groups = np.unique(given, return_inverse=True)
    rival = groups if around.rival is None else around.rival
    support = np.zeros(len(given)) if around.support is None else around.support
    disputed = (around.opposition > 0) & (rival != groups)
    return Opinion(names[np.where(disputed, rival, groups)], names[rival], support, disputed)


def suspects(
    kernel: LossKernel,
    given: np.ndarray,
    found: Opinion,
    scores: Mapping[str, np.ndarray],
    rank_by: str,
    known: Mapping[str, np.ndarray],
) -> pd.DataFrame:
    """Return a row per probe, the most suspicious first.

    Args:
        kernel: whose probes they are.
        given: labels as given, [N].
        found: what the kernel makes of them.
        scores: name -> [N].
        rank_by: one of them.
        known: what is known beside, such as the truth, name -> [N].
    """
    columns: dict[str, Any] = {"id": kernel.ids, "given": given, "likely": found.likely, **known}
    columns |= {"score": scores[rank_by], "disputed": found.disputed, "rival": found.rival, "support": found.support}
    taken = {*columns, "rank", "probe"}
    columns |= {f"{name}_score" if name in taken else name: values for name, values in scores.items()}
    table = pd.DataFrame(columns)
    order = np.argsort(-scores[rank_by], kind="stable")
    table = table.iloc[order].reset_index(drop=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table.assign(probe=order)


def witnesses(
    kernel: LossKernel, given: np.ndarray, likely: np.ndarray, places: np.ndarray, count: int = 3
) -> Witnesses:
    """Return trusted probes of each suspect's likely class with the largest |R|.

    Args:
        kernel: of all probes.
        given: labels as given, [N].
        likely: likely labels, [N].
        places: the suspects, [n].
        count: witnesses of each.
    """
    groups = np.unique(given, return_inverse=True)[1]
    rows = kernel.correlation(places)
    allowed = trusted(kernel.variance(), groups) & (given == likely[places][:, None])
    allowed[np.arange(len(places)), places] = False
    strength = np.where(allowed, np.abs(rows), -1.0)
    count = min(count, kernel.probes)
    best = np.argsort(-strength, axis=1, kind="stable")[:, :count]
    present = np.take_along_axis(strength, best, axis=1) >= 0
    return Witnesses(np.where(present, best, -1), np.where(present, np.take_along_axis(rows, best, axis=1), 0.0))
