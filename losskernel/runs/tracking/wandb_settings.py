"""What a run's W&B record says of its settings: all of them as they are nested, and what people sweep by one word."""

from collections.abc import Mapping
from typing import Any

from losskernel.config_keys import Use, flat, with_use
from losskernel.figures.shared.presentation import is_number

# A longer list is told by its length: W&B shows a column for every setting.
_LONGEST = 50


def recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved configuration for the record: nested as it is, without long lists, and the short names.

    nbeta is among these where it is a number; "batch" and "train" become one when sampling starts.
    """
    return {key: _short(value) for key, value in config.items()} | short_names(config)


def short_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that people sweep, without the part of the configuration in which they stand."""
    every = flat(config)
    numbers = {key.rsplit(".", 1)[-1]: every.get(key) for key in with_use(Use.SHORT_NAME)}
    found = {name: value for name, value in numbers.items() if is_number(value)}
    found |= {f"{key}_name": name for key in with_use(Use.CLASS_NAME) if (name := part_name(config, key))}
    if "wrapper" in config:
        found["wrapper_name"] = "+".join(map(str, _mapping(config, "wrapper"))) or "none"
    return found


def part_name(config: Mapping[str, Any], key: str) -> str:
    """Return the class or function that a part of a configuration names; "" where it names none."""
    return str(_mapping(config, key).get("_target_", "")).rsplit(".", 1)[-1]


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _short(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return f"{len(value)} values" if len(value) > _LONGEST else [_short(item) for item in value]
    return value
