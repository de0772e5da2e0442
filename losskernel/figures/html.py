"""Pieces of a page that is one file, opens anywhere and needs no network."""

import base64
import struct
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from losskernel.figures.shared.presentation import VERDICTS
from losskernel.storage.atomic import write_whole

_WIDE = 1.7  # width over height from which a figure takes a full row
_LARGE = 1300  # pixels of width from which it does too: figures as wide as a page in print

_CSS = (Path(__file__).parent / "report.css").read_text(encoding="utf-8") + "".join(
    f".{verdict} {{ color: {look.ink}; background: {look.tint}; }}\n" for verdict, look in VERDICTS.items()
)


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


def banner(verdict: str, words: str, below: str = "") -> str:
    """Return what must be read first: the verdict's icon and colour, words that say it again, and HTML below them."""
    return (
        f"<div class='verdict {verdict}' role='status'><div class='icon'><span>{VERDICTS[verdict].icon}</span></div>"
        f"<div><strong>{words}</strong>{below}</div></div>"
    )


def chip(verdict: str) -> str:
    """Return a verdict in a line of text or a cell of a table."""
    look = VERDICTS[verdict]
    return f"<span class='chip {verdict}'>{look.icon} {look.word}</span>"


def picture(path: Path, text: str = "", shown: float = 0.5) -> str:
    """Return a figure of a PNG or GIF file, embedded, with its name or a text below, and a link to its PDF if any.

    shown: its size on the page, as a share of its pixels.
    """
    content = path.read_bytes()
    kind = path.suffix[1:]
    # Where the two formats keep width and height: GIF at byte 6 as little-endian shorts, PNG at byte 16 in its IHDR.
    layout, offset = ("<HH", 6) if kind == "gif" else (">II", 16)
    width, height = struct.unpack_from(layout, content, offset) if len(content) >= 24 else (1, 1)
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
