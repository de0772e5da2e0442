"""The configuration of a W&B run: all settings, nested, and the swept ones by short names."""

from collections.abc import Mapping
from typing import Any

from losskernel.config_keys import Use, flat, with_use
from losskernel.figures.shared.presentation import is_number

# Longer lists are recorded by their length: W&B shows a column for every setting.
_LONGEST = 50


def recorded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved configuration for the record: nested, without long lists, with short names added.

    nbeta is among these only where it is a number; the conventions "batch" and "train" become one when sampling starts.
    """
    return {key: _short(value) for key, value in config.items()} | short_names(config)


def short_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are usually swept, by the last word of their key."""
    every = flat(config)
    numbers = {key.rsplit(".", 1)[-1]: every.get(key) for key in with_use(Use.SHORT_NAME)}
    names: dict[str, Any] = {name: value for name, value in numbers.items() if is_number(value)}
    names |= {f"{key}_name": name for key in with_use(Use.CLASS_NAME) if (name := part_name(config, key))}
    if "wrapper" in config:
        names["wrapper_name"] = "+".join(map(str, _mapping(config, "wrapper"))) or "none"
    return names


def part_name(config: Mapping[str, Any], key: str) -> str:
    """Return the name of the class or function of a part of a configuration; "" where it has none."""
    return str(_mapping(config, key).get("_target_", "")).rsplit(".", 1)[-1]


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = config.get(key)
    return part if isinstance(part, Mapping) else {}


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _short(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return f"{len(value)} values" if len(value) > _LONGEST else [_short(item) for item in value]
    return value
