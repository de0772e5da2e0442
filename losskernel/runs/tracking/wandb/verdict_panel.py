"""The verdict as a small page of its own, for a panel between others: may this kernel be trusted, and why not?"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from losskernel.figures.shared.presentation import VERDICTS, number

_WORDS = {"pass": "Passed", "warn": "Warning", "fail": "FAILED"}
_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:10px;color:#222;background:#fff}
h1{font-size:18px;margin:0 0 6px} ul{margin:6px 0;padding-left:20px} p{margin:6px 0}
table{border-collapse:collapse;margin-top:8px} th,td{padding:2px 10px 2px 0;text-align:left;font-size:12.5px}
td.number{text-align:right;font-variant-numeric:tabular-nums} th{font-weight:600;border-bottom:1px solid #ccc}
"""


def verdict_panel(diagnosis: Mapping[str, Any]) -> str:
    """Return a page of HTML from a run's diagnosis.json: verdict, reasons, remedy, every screen with its bound."""
    verdict = str(diagnosis.get("verdict"))
    if verdict in _WORDS:
        sign, word, colour = VERDICTS[verdict].icon, _WORDS[verdict], VERDICTS[verdict].ink
    else:
        sign, word, colour = "?", "Not diagnosed", "#555"
    reasons = "".join(f"<li>{escape(str(reason))}</li>" for reason in diagnosis.get("reasons") or ())
    remedy = diagnosis.get("remedy")
    first = f"<p>First: <b>{escape(str(remedy))}</b></p>" if remedy else ""
    control = (diagnosis.get("control") or {}).get("verdict")
    beside = f"<p>Its control at nbeta = 0: {escape(str(control))}</p>" if control else ""
    return (
        f"<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>Verdict</title><style>{_STYLE}</style>"
        f"</head><body><h1 style='color:{colour}'>{sign} {word}</h1>{f'<ul>{reasons}</ul>' if reasons else ''}{first}"
        f"{beside}{_screens(diagnosis.get('screens') or ())}</body></html>"
    )


def _screens(screens: Sequence[Mapping[str, Any]]) -> str:
    worst = ("fail", "warn")
    screens = sorted(screens, key=lambda each: worst.index(each["verdict"]) if each["verdict"] in worst else len(worst))
    rows = "".join(
        f"<tr><td>{escape(str(each['screen']).replace('_', ' '))}</td><td class='number'>{number(each['value'])}</td>"
        f"<td>{escape(str(each['good']))}</td>{_judged(str(each['verdict']))}</tr>"
        for each in screens
    )
    head = "<tr><th>screen</th><th>value</th><th>good</th><th>verdict</th></tr>"
    return f"<table>{head}{rows}</table>" if rows else ""


def _judged(verdict: str) -> str:
    look = VERDICTS.get(verdict)
    return f"<td style='color:{look.ink if look else '#555'}'>{look.icon if look else ''} {escape(verdict)}</td>"
