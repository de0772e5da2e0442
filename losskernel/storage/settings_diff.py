"""The differences between stored settings and those of a new call."""

import json
from typing import Any


def differences(stored: dict[str, Any], given: dict[str, Any], prefix: str = "") -> list[str]:
    """Return one line per setting that differs between two nested mappings."""
    lines: list[str] = []
    for key in sorted(stored.keys() | given.keys()):
        old, new = stored.get(key), given.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{prefix}{key}.")
        # Stored values went through JSON, which turns tuples into lists.
        elif _plain(old) != _plain(new):
            lines.append(f"{prefix}{key}: stored {old!r}, asked {new!r}")
    return lines


def _plain(value: Any) -> Any:
    """Return a value as JSON would bring it back, so that tuples equal lists and 1 equals 1.0."""
    return json.loads(json.dumps(value, default=str))
