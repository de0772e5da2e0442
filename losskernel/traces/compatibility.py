"""What must agree between jobs that sample chains of one kernel, and how a difference is reported."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from losskernel.config_keys import CHECKPOINT, JOINED, Role, current_classes, deciding, flat, row, with_absent
from losskernel.storage.settings_diff import RECENT, UNKNOWN

WEIGHTS = "model.weights"
_NAMES = {WEIGHTS: "the trained weights", "data.train": "the training data", "data.probes": "the probes"}
# Part of a trace's identity -> why it differs although all settings that decide it agree, and what to do.
_REASONS = {
    "model": "training gave others, as on another machine or with other versions; train once, and give every job "
    "checkpoint=<run>/checkpoints/trained.pt",
    "data": "the files are others, or have changed; give every job the same files",
}
_CHANGED_CHECKPOINT = "although checkpoint agrees: the file has changed; give every job the same file"
_VALUE_LENGTH = 60  # characters
_NAMED = 3  # traces that are named, of many
# Setting -> its value in each trace.
Values = Mapping[str, Sequence[Any]]


def chain_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a configuration, nested or flat, that jobs of one kernel must share; null as absent.

    The path of a checkpoint is left out: the trained weights themselves are compared.
    """
    settings = flat(with_absent(current_classes(config)))
    settings = {key: value for key, value in settings.items() if value is not None and row(key).role in JOINED}
    settings.pop(CHECKPOINT, None)
    wrappers = [key.split(".")[1] for key in settings if re.fullmatch(r"wrapper\.[^.]+\._target_", key)]
    if len(wrappers) > 1:  # each wraps the result of the one before, so their order matters
        settings["wrapper"] = wrappers
    # Through JSON, as stored configurations went: a tuple equals a list.
    return {key: json.loads(json.dumps(value, default=str)) for key, value in settings.items()}


def differing_settings(configs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return a line per setting that must agree and does not, as `sampler.localization: 100.0 in a, 10.0 in b`."""
    differing = _differing([chain_settings(config) for config in configs])
    return [_line(key, values, names) for key, values in differing.items()]


def disagreements(provenances: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return a line for everything in which traces' provenances must agree and do not; settings first.

    What a differing setting explains, such as the weights of a wider network, has no line of its own. Traces without a
    configuration, which were sampled from Python, may be of several seeds.
    """
    configs = [provenance.get("config") or {} for provenance in provenances]
    configured = all(configs)
    # A run's seed is a setting; chains sampled from Python may be of several seeds.
    identities = _differing([_identity(provenance, with_seed=any(configs)) for provenance in provenances])
    settings = dict(_differing([chain_settings(config) for config in configs])) if configured else {}
    # The path of a checkpoint matters only where its weights do: the same file may lie in several places.
    if configured and WEIGHTS in identities:
        settings |= _differing([{CHECKPOINT: config.get(CHECKPOINT)} for config in configs])
    lines = [_line(key, values, names) for key, values in settings.items()]
    for key, values in identities.items():
        part = key.split(".")[0]
        if key == "model.code" and WEIGHTS in identities:
            continue  # the weights are a part of the network's state, and have a line of their own
        if not any(_lies_in(setting, deciding(part) or [part]) for setting in settings):
            reason = _reason(key, configs[0]) if configured else ""
            lines.append(_line(_NAMES.get(key, key), values, names) + reason)
    return lines


def _identity(provenance: Mapping[str, Any], with_seed: bool) -> dict[str, Any]:
    """Return the flat identity of a trace, without which of a kernel's chains it holds."""
    identity = flat(provenance.get("identity") or {})
    free = {"chains"} if with_seed else {"chains", "seed"}
    return {key: value for key, value in identity.items() if key not in free and row(key).role is not Role.SELECTION}


def _reason(key: str, config: Mapping[str, Any]) -> str:
    """Return how a part of the identity can differ although the settings agree; nothing where that is not known."""
    part = key.split(".")[0]
    if key == WEIGHTS and config.get(CHECKPOINT):
        return f", {_CHANGED_CHECKPOINT}"
    if part not in _REASONS:
        return ""
    known = chain_settings(config)
    agreeing = [name for name in deciding(part) if any(_lies_in(setting, [name]) for setting in known)]
    return f", although {', '.join(agreeing)} agree: {_REASONS[part]}"


def _differing(settings: Sequence[Mapping[str, Any]]) -> Values:
    """Return the settings whose values are not all equal, in the order in which they appear."""
    keys = dict.fromkeys(key for mapping in settings for key in mapping)
    values = {key: [mapping.get(key) for mapping in settings] for key in keys}
    # Traces of earlier versions lack what later ones record, which is then not compared.
    known = {key: row for key, row in values.items() if not (key in RECENT and None in row)}
    return {
        key: row
        for key, row in known.items()
        if any(value != row[0] or str(value).startswith(UNKNOWN) for value in row)
    }


def _line(key: str, values: Sequence[Any], names: Sequence[str]) -> str:
    """Return `key: 100.0 in a and b, 10.0 in c`."""
    holders: dict[str, list[str]] = {}
    for value, name in zip(values, names, strict=True):
        text = value if isinstance(value, str) else json.dumps(value)
        text = text if len(text) <= _VALUE_LENGTH else f"{text[:_VALUE_LENGTH]}…"
        holders.setdefault(text, []).append(name)
    return f"{key}: " + ", ".join(f"{text} in {' and '.join(shortened(held))}" for text, held in holders.items())


def shortened(names: Sequence[str]) -> list[str]:
    """Return the first three of many names, and how many others there are."""
    rest = len(names) - _NAMED
    return [*names[:_NAMED], f"{rest} others"] if rest > 1 else list(names)


def _lies_in(key: str, parts: Sequence[str]) -> bool:
    return any(key == part or key.startswith(f"{part}.") for part in parts)
