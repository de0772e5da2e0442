"""Words of the command line that Hydra's grammar does not take as they stand: paths, mostly."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

_ASSIGNMENT = re.compile(r"(?P<key>[+]{0,2}[\w./@-]+)=(?P<value>.*)", re.DOTALL)
_OF_HYDRA = re.compile(r"[,(\[{]")  # sweeps, functions, lists, mappings: whoever writes them may mean them


def as_hydra_reads(words: Sequence[str]) -> list[str]:
    """Return the words of a command line with paths quoted that the grammar would refuse or take for a sweep.

    `~/` at the beginning of a value is the home folder: in a job script or behind `key=` no shell expands it.
    """
    return [_quoted(word) if _ASSIGNMENT.fullmatch(word) else word for word in words]


def _quoted(word: str) -> str:
    match = _ASSIGNMENT.fullmatch(word)
    assert match is not None
    key, value = match["key"], _expanded(match["value"])
    word = f"{key}={value}"
    if not value or value[0] in "'\"":
        return word
    # A file of that very name is meant as it is; otherwise the grammar has the first say.
    if _OF_HYDRA.search(value) or "#" in value:
        return _in_quotes(key, value) if _exists(value) else word
    return word if _parses(word) or not _parses(_in_quotes(key, value)) else _in_quotes(key, value)


def _expanded(value: str) -> str:
    quote = value[:1] if value[:1] in ("'", '"') else ""
    if not value.startswith(f"{quote}~/"):
        return value
    return quote + os.path.expanduser("~") + value[len(quote) + 1 :]


def _in_quotes(key: str, value: str) -> str:
    return f"{key}='" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _exists(value: str) -> bool:
    try:
        return Path(value).exists()
    except (OSError, ValueError):  # too long for a path, or with a zero byte
        return False


def _parses(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True
