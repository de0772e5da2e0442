"""Pieces of a page that is one file, opens anywhere and needs no network."""

import base64
import math
import struct
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TypeGuard
from urllib.parse import quote

from losskernel.storage.atomic import write_whole

_WIDE = 1.7  # width over height from which a figure takes a full row
_LARGE = 1300  # pixels of width from which it does too: figures as wide as a page in print

_CSS = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")


def write_page(target: Path, title: str, sections: Sequence[str], head: str = "") -> Path:
    """Write a page of some sections of HTML; an older one is replaced in one step."""
    page = (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{_CSS}</style>{head}</head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body></html>\n"
    )
    write_whole(target, page)
    return target


def heading(name: str, folder: Path) -> str:
    """Return the page's title, and the end of the folder's path."""
    return f"<h1>{escape(name)}</h1><p class='folder'>{escape('/'.join(folder.resolve().parts[-2:]))}</p>"


def section(title: str, content: str) -> str:
    """Return a section, or nothing where it has no content."""
    return f"<section><h2>{title}</h2>\n{content}</section>" if content else ""


def banner(kind: str, icon: str, words: str, details: str = "") -> str:
    """Return what must be read first: kind is "pass", "warn", "fail" or "none"; icon and words say it again."""
    return (
        f"<div class='verdict {kind}' role='status'><div class='icon'><span>{icon}</span></div>"
        f"<div><strong>{words}</strong>{details}</div></div>"
    )


def picture(path: Path, text: str = "", shown: float = 0.5) -> str:
    """Return a figure of a PNG or GIF file, embedded, with its name or a text below, and a link to its PDF if any.

    shown: its size on the page, as a share of its pixels.
    """
    content = path.read_bytes()
    kind = path.suffix[1:]
    layout, place = ("<HH", 6) if kind == "gif" else (">II", 16)
    width, height = struct.unpack_from(layout, content, place) if len(content) >= 24 else (1, 1)
    link = f" · <a href='{quote(f'figures/{path.stem}.pdf')}'>PDF</a>" if path.with_suffix(".pdf").is_file() else ""
    return (
        f"<figure{' class=wide' if width > _WIDE * height or width > _LARGE else ''}>"
        f"<img alt='{caption(path)}' style='max-width:min(100%,{max(int(shown * width), 420)}px)' "
        f"src='data:image/{kind};base64,{base64.b64encode(content).decode()}'>"
        f"<figcaption{' class=long' if text else ''}>{text or caption(path)}{link}</figcaption></figure>"
    )


def caption(path: Path) -> str:
    """Return a file's name as words."""
    words = path.stem.replace("_", " ").replace("-", " ").strip()
    return escape(words[:1].upper() + words[1:])


def with_error(value: object, error: object) -> str:
    """Return a number with its standard error: two digits of the error, the value to the same place."""
    if not (is_finite(value) and is_finite(error) and error > 0):
        return number(value)
    decimals = 1 - math.floor(math.log10(error))
    if 0 <= decimals <= 6:
        return _minus(f"{value:.{decimals}f} ± {error:.{decimals}f}")
    return _minus(f"{number(value)} ± {error:.2g}")


def number(value: object) -> str:
    """Return a number in four digits, anything else as it is."""
    if not is_finite(value):
        return "–" if value is None else str(value)
    return _minus(f"{value:,}" if isinstance(value, int) else f"{value:.4g}")


def is_finite(value: object) -> TypeGuard[float]:
    """Whether something is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _minus(text: str) -> str:
    return text.replace("-", "−")
