"""What must agree between jobs that sample chains of one kernel, and how a difference is told."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from losskernel.config_keys import CHECKPOINT, JOINED, Role, current_classes, deciding, flat, row

WEIGHTS = "model.weights"
_WORDS = {WEIGHTS: "the trained weights", "data.train": "the training data", "data.probes": "the probes"}
_REASONS = {
    "model": "training gave others, as on another machine or with other versions; train once, and give every job "
    "checkpoint=<run>/checkpoints/trained.pt",
    "data": "the files are others, or have changed; give every job the same files",
}
_LONGEST = 60  # characters of a value
_MOST = 3  # of many runs, those that are named
_CHANGED = "although checkpoint agrees: the file has changed; give every job the same file"


def inward(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a configuration, nested or flat, that must agree; null says no more than an absent key.

    Where trained weights lie does not matter: the weights themselves are compared.
    """
    every = flat(current_classes(config))
    found = {key: value for key, value in every.items() if value is not None and row(key).role in JOINED}
    found.pop(CHECKPOINT, None)
    wrappers = [key.split(".")[1] for key in found if re.fullmatch(r"wrapper\.[^.]+\._target_", key)]
    found |= {"wrapper": wrappers} if wrappers[1:] else {}  # they work one after another
    return {key: json.loads(json.dumps(value, default=str)) for key, value in found.items()}  # a tuple equals a list


def unlike(configs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return a line for every key that must agree and does not, as `sampler.localization: 100.0 in a, 10.0 in b`."""
    return _lines([inward(config) for config in configs], names)


def disagreements(abouts: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return a line for everything in which traces' provenances must agree and do not; configuration keys first.

    What a differing key explains, such as the weights of a wider network, has no line of its own. Traces without a
    configuration, which were sampled from Python, may be of several seeds.
    """
    configs = [about.get("config") or {} for about in abouts]
    told = all(configs)
    found = [_identity(about, any(configs)) for about in abouts]
    lines = unlike(configs, names) if told else []
    if told and _differ([each.get(WEIGHTS) for each in found]):
        lines += _lines([{CHECKPOINT: config.get(CHECKPOINT)} for config in configs], names)
    keys = [line.split(":")[0] for line in lines]
    for line in _lines(found, names):
        key, _, values = line.partition(":")
        part = key.split(".")[0]
        makers = deciding(part) or [part]
        if any(_within(known, makers) for known in keys):
            continue
        decided = [maker for maker in makers if any(_within(known, [maker]) for known in inward(configs[0]))]
        reason = f"although {', '.join(decided)} agree: {_REASONS[part]}" if part in _REASONS else ""
        if key == WEIGHTS and configs[0].get(CHECKPOINT):
            reason = _CHANGED
        lines.append(", ".join([f"{_WORDS.get(key, key)}:{values}", *([reason] if told and reason else [])]))
    return lines


def _identity(about: Mapping[str, Any], seeded: bool) -> dict[str, Any]:
    """Return what makes the chains of a trace what they are, flat, but for which chains they are."""
    found = flat(about.get("identity") or {})
    left_out = {"chains"} if seeded else {"chains", "seed"}
    return {key: value for key, value in found.items() if key not in left_out and row(key).role is not Role.SELECTION}


def _lines(found: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    every = dict.fromkeys(key for each in found for key in each)
    values = {key: [each.get(key) for each in found] for key in every}
    return [f"{key}: {_told(own, names)}" for key, own in values.items() if _differ(own)]


def _told(values: Sequence[Any], names: Sequence[str]) -> str:
    """Return `100.0 in a and b, 10.0 in c`."""
    holders: dict[str, list[str]] = {}
    for value, name in zip(values, names, strict=True):
        text = value if isinstance(value, str) else json.dumps(value)
        holders.setdefault(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…", []).append(name)
    return ", ".join(f"{text} in {' and '.join(few(each))}" for text, each in holders.items())


def few(names: Sequence[str]) -> list[str]:
    """Return what to say of many: the first three, and how many others there are."""
    rest = len(names) - _MOST
    return [*names[:_MOST], f"{rest} others"] if rest > 1 else list(names)


def _differ(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


def _within(key: str, above: Sequence[str]) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in above)
