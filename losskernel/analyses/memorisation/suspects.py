"""The probes in order of suspicion: what each is called, what it seems to be, and who says so."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from losskernel.analyses.kernel_scores import Surroundings, trusted
from losskernel.figures.shared.presentation import number
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


_HERE = Path(__file__).parent


def suspects_page(
    table: pd.DataFrame,
    found: Witnesses,
    ids: Sequence[object],
    pictures: dict[int, str],
    rank_by: str,
    truth: str | None = None,
) -> str:
    """Return the page of some suspects.

    Args:
        table: the first rows of the table of suspects.
        found: their witnesses.
        ids: names of all probes.
        pictures: probe -> data URI, of as many probes as have one.
        rank_by: the score that ranks.
        truth: column that holds the true labels, or None.
    """
    cards = [
        _card(row, found.places[place], found.correlations[place], ids, pictures, truth)
        for place, row in enumerate(table.to_dict(orient="records"))
    ]
    names = sorted({str(name) for column in ("given", "likely") for name in table[column]}, key=_natural)
    options = "".join(f"<option value='{escape(name, quote=True)}'>{escape(name)}</option>" for name in names)
    style, script = ((_HERE / f"suspects_page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Suspects</title><style>{style}</style></head>\n<body>\n"
        f"<header><h1>The {len(cards)} most suspicious inputs</h1>"
        f"<p>Ranked by {escape(rank_by.replace('_', ' '))}. A likely label other than the given one stands in red. "
        "Below each suspect: trusted inputs of the likely class that are most coupled with it, with their R; "
        "below 0, they stand against the label as given.</p>"
        "<form><label>Class <select id='class'><option value=''>all</option>"
        f"{options}</select></label>"
        "<label><input type='checkbox' id='disputed'> only disputed labels</label>"
        "<label>Find <input type='search' id='find' placeholder='part of a name'></label>"
        f"<output id='shown' aria-live='polite'>{len(cards)} shown</output></form></header>\n"
        f"<main>\n{''.join(cards)}</main>\n<script>{script}</script>\n</body></html>\n"
    )


def _card(
    row: dict[str, object],
    places: np.ndarray,
    correlations: np.ndarray,
    ids: Sequence[object],
    pictures: dict[int, str],
    truth: str | None,
) -> str:
    given, likely, name = (str(row[key]) for key in ("given", "likely", "id"))
    disputed = given != likely
    probe = int(str(row["probe"]))
    known, rival = "", str(row["rival"])
    other = "" if disputed or rival == given else f"<dt>if wrong</dt><dd class='muted'>{escape(rival)}</dd>"
    if truth is not None:
        true = str(row[truth])
        verdict = "right" if true == given else "wrong"
        known = f"<dt>true</dt><dd>{escape(true)}</dd><dt>label</dt><dd class='{verdict}'>{verdict}</dd>"
    beside = "".join(
        f"<li>{_picture(pictures.get(int(other)), ids[other])}<span>{_signed(float(value))}</span></li>"
        for other, value in zip(places, correlations, strict=True)
        if other >= 0
    )
    witnesses = f"<ol class='witnesses' aria-label='trusted inputs of class {escape(likely, quote=True)}'>{beside}</ol>"
    data = {"classes": json.dumps([given, likely]), "name": name.lower(), "disputed": str(int(disputed))}
    marks = "".join(f" data-{key}='{escape(value, quote=True)}'" for key, value in data.items())
    return (
        f"<article{marks}><h2><span>{row['rank']}</span> {escape(name)}</h2>"
        f"<div class='look'>{_picture(pictures.get(probe), name, 'suspect')}"
        f"<dl><dt>given</dt><dd>{escape(given)}</dd>"
        f"<dt>likely</dt><dd{' class=other' if disputed else ''}>{escape(likely)}</dd>{known}{other}"
        f"<dt>score</dt><dd>{number(float(str(row['score'])))}</dd></dl></div>"
        f"{witnesses if beside else ''}</article>\n"
    )


def _picture(uri: str | None, name: object, kind: str = "") -> str:
    text = escape(str(name), quote=True)
    if uri is None:
        return "" if kind else f"<code title='{text}'>{text}</code>"
    return f"<img{f' class={kind}' if kind else ''} src='{uri}' alt='{text}' title='{text}'>"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _natural(name: str) -> tuple[int, float, str]:
    return (0, float(name), name) if name.lstrip("-").isdecimal() else (1, 0.0, name)
