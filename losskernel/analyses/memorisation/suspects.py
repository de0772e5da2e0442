"""The probes in order of suspicion, with the label that the kernel supports for each; as a table and as a page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from losskernel.analyses.kernel_scores import Surroundings, trusted
from losskernel.figures.shared.presentation import minus, number
from losskernel.kernel import LossKernel

_HERE = Path(__file__).parent


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
        probes: which, [n, w], -1 for none.
        correlations: [n, w]; below 0 where they speak against the label as given.
    """

    probes: np.ndarray
    correlations: np.ndarray


def opinion(given: np.ndarray, around: Surroundings) -> Opinion:
    """Return the likely label of each probe, from its strongest opponents and its nearest trusted probes.

    A vote of nearest neighbours by R never names the true class of a mislabelled probe, for its neighbours are
    mislabelled like it, and its true class is at the other end: R < 0. So the opponents name the rival, and the
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
    opinions: Opinion,
    scores: Mapping[str, np.ndarray],
    rank_by: str,
    known: Mapping[str, np.ndarray],
) -> pd.DataFrame:
    """Return a row per probe, the most suspicious first.

    Args:
        kernel: whose probes they are.
        given: labels as given, [N].
        opinions: what the kernel makes of them.
        scores: name -> [N].
        rank_by: one of them.
        known: what is known beside, such as the truth, name -> [N].
    """
    columns: dict[str, Any] = {"id": kernel.ids, "given": given, "likely": opinions.likely, **known}
    columns |= {"score": scores[rank_by], "disputed": opinions.disputed}
    columns |= {"rival": opinions.rival, "support": opinions.support}
    # A score may be named as a column is, such as a baseline called "support".
    taken = {*columns, "rank", "probe"}
    columns |= {f"{name}_score" if name in taken else name: values for name, values in scores.items()}
    order = np.argsort(-scores[rank_by], kind="stable")  # [N]
    table = pd.DataFrame(columns).iloc[order].reset_index(drop=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table.assign(probe=order)


def witnesses(
    kernel: LossKernel, given: np.ndarray, likely: np.ndarray, probes: np.ndarray, count: int = 3
) -> Witnesses:
    """Return trusted probes of each suspect's likely class with the largest |R|.

    Args:
        kernel: of all probes.
        given: labels as given, [N].
        likely: likely labels, [N].
        probes: the suspects, [n].
        count: witnesses of each.
    """
    groups = np.unique(given, return_inverse=True)[1]  # [N]
    rows = kernel.correlation(probes)  # [n, N]
    allowed = trusted(kernel.variance(), groups) & (given == likely[probes][:, None])
    allowed[np.arange(len(probes)), probes] = False  # no suspect is its own witness
    strength = np.where(allowed, np.abs(rows), -1.0)  # below every |R|: chosen last, and told apart below
    best = np.argsort(-strength, axis=1, kind="stable")[:, : min(count, kernel.probes)]
    present = np.take_along_axis(strength, best, axis=1) >= 0
    return Witnesses(np.where(present, best, -1), np.where(present, np.take_along_axis(rows, best, axis=1), 0.0))


def suspects_page(
    table: pd.DataFrame,
    beside: Witnesses,
    ids: Sequence[object],
    pictures: Mapping[int, str],
    rank_by: str,
    truth: str | None = None,
) -> str:
    """Return the sheet of suspects for the screen: one file that loads nothing from a network.

    Args:
        table: the first rows of the table of suspects.
        beside: their witnesses.
        ids: names of all probes.
        pictures: probe -> data URI, of as many probes as have one.
        rank_by: the score that ranks.
        truth: column that holds the true labels, or None.
    """
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(_read("html"))
    rows = zip(table.to_dict(orient="records"), beside.probes, beside.correlations, strict=True)
    return template.render(
        cards=[_card(row, probes, correlations, ids, truth) for row, probes, correlations in rows],
        classes=sorted({str(name) for column in ("given", "likely") for name in table[column]}, key=_natural),
        pictures=pictures,
        rank_by=rank_by.replace("_", " "),
        style=_read("css"),
        script=_read("js"),
    )


def _read(kind: str) -> str:
    return (_HERE / f"suspects_page.{kind}").read_text(encoding="utf-8")


def _card(
    row: Mapping[Any, Any], probes: np.ndarray, correlations: np.ndarray, ids: Sequence[object], truth: str | None
) -> dict[str, Any]:
    """Return what the page shows of one suspect, as text."""
    given, likely, true = str(row["given"]), str(row["likely"]), None if truth is None else str(row[truth])
    return {
        "rank": row["rank"],
        "name": str(row["id"]),
        "probe": int(row["probe"]),
        "given": given,
        "likely": likely,
        "disputed": given != likely,
        "classes": json.dumps([given, likely]),
        "rival": str(row["rival"]),
        "true": true,
        "verdict": "right" if true == given else "wrong",
        "score": number(float(row["score"])),
        "witnesses": [
            (int(probe), str(ids[probe]), minus(f"{value:.2f}"))
            for probe, value in zip(probes, correlations, strict=True)
            if probe >= 0
        ],
    }


def _natural(name: str) -> tuple[int, float, str]:
    """Return a key by which numbers come first, in the order of their values."""
    return (0, float(name), name) if name.lstrip("-").isdecimal() else (1, 0.0, name)
