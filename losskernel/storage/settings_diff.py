"""The differences between stored settings and those of a new call."""

import json
from typing import Any

# Parts of an identity that stores of earlier versions do not hold, and what it means that one differs.
RECENT = {
    "model.code": "model: code or state of the network changed",
    "data.loss_code": "data.loss: code or state of the loss changed",
    "data.train_content": "data.train: the training samples changed",
    "data.probe_content": "data.probes: the probes changed",
    "schedule.step_check_share": "schedule.step_check_share: what the step checks may cost changed",
}
UNKNOWN = "unknown ("  # begins the value of a part that nothing can tell (see `stored_digest`)


def differences(stored: dict[str, Any], given: dict[str, Any], prefix: str = "") -> list[str]:
    """Return one line per setting that differs between two nested mappings.

    Values of which nothing can be told ("unknown (reason)", see `stored_digest`) differ from every other.
    """
    lines: list[str] = []
    for key in sorted(stored.keys() | given.keys()):
        old, new = stored.get(key), given.get(key)
        if old is None and f"{prefix}{key}" in RECENT:
            continue
        if f"{prefix}{key}" == "model.code" and stored.get("weights") != given.get("weights"):
            continue  # the weights are a part of the network's state, and have a line of their own
        unknown = [str(value) for value in (old, new) if str(value).startswith(UNKNOWN)]
        if unknown:
            lines.append(f"cannot tell whether {prefix}{key} is the same: {unknown[0].removeprefix('unknown ')}")
        elif isinstance(old, dict) and isinstance(new, dict):
            lines += differences(old, new, f"{prefix}{key}.")
        elif f"{prefix}{key}" in RECENT and old != new:
            lines.append(f"{RECENT[f'{prefix}{key}']} (was {old}, now {new})")
        # Stored values went through JSON, which turns tuples into lists.
        elif _plain(old) != _plain(new):
            lines.append(f"{prefix}{key}: stored {old!r}, asked {new!r}")
    return lines


def _plain(value: Any) -> Any:
    """Return a value as JSON would bring it back, so that tuples equal lists and 1 equals 1.0."""
    return json.loads(json.dumps(value, default=str))
