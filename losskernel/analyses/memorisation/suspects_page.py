"""The sheet of suspects for the screen: one file, no network, to go through with the pictures beside it."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from losskernel.analyses.memorisation.suspects import Witnesses
from losskernel.figures.shared.presentation import number

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
