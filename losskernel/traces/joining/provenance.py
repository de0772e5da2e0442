"""The provenance of joined chains: that of one job which had sampled them all, and which jobs did."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Of a joined trace: what it was joined from.
JOINED = "joined"


def as_one_job(config: Mapping[str, Any], chains: Sequence[int]) -> dict[str, Any]:
    """Return the configuration of one job that samples all of some chains."""
    result = dict(config) | {"chain_offset": min(chains)}
    if isinstance(config.get("schedule"), Mapping):
        result["schedule"] = dict(config["schedule"]) | {"chains": len(chains)}
    return result


class Source(NamedTuple):
    """A trace that is joined with others: its provenance, where it lies, and the numbers of its chains."""

    about: Mapping[str, Any]
    name: str
    chains: Sequence[int]


def joined_provenance(sources: Sequence[Source], chains: Sequence[int]) -> dict[str, Any]:
    """Return the provenance of traces that are joined; of what may differ between jobs, the first's.

    Args:
        sources: the traces.
        chains: numbers of all chains where they are joined.
    """
    first = sources[0].about
    result: dict[str, Any] = dict(first)
    if first.get("identity"):
        result["identity"] = _identity([each.about.get("identity") or {} for each in sources], chains)
    if first.get("config"):
        result["config"] = as_one_job(first["config"], chains)
    if "chains_per_fit" in first:
        stacked = [int(each.about.get("chains_per_fit", 1)) for each in sources]
        whole = all(count >= len(each.chains) > 1 for count, each in zip(stacked, sources, strict=True))
        result["chains_per_fit"] = len(chains) if whole else max(stacked)
    result[JOINED] = [
        {"trace": each.name, "chains": list(each.chains), "provenance": digest(each.about)} for each in sources
    ]
    return result


def _identity(own: Sequence[Mapping[str, Any]], chains: Sequence[int]) -> dict[str, Any]:
    result = {key: value for key, value in own[0].items() if key not in ("chain_offset", "chains")}
    if "schedule" in result:
        result["schedule"] = dict(result["schedule"]) | {"chains": len(chains)}
    seeds = list(dict.fromkeys(json.dumps(each.get("seed")) for each in own))
    if len(seeds) > 1:
        result["seed"] = [json.loads(seed) for seed in seeds]
    result |= {"chain_offset": min(chains)} if min(chains) else {}
    # Of chains with a gap between them no one job has these settings.
    return result | ({"chains": list(chains)} if np.ptp(chains) >= len(chains) else {})


def digest(about: Mapping[str, Any]) -> str:
    """Return a short hash of a provenance, which a trace that is sampled anew with other settings does not share."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def span(chains: Sequence[int]) -> str:
    """Return numbers of chains in words: `chains 0 to 3 and 8 to 15`."""
    parts = np.split(ordered := np.sort(np.asarray(chains)), np.flatnonzero(np.diff(ordered) > 1) + 1)
    told = [f"{own[0]} to {own[-1]}" if len(own) > 1 else str(own[0]) for own in parts]
    return f"chain {told[0]}" if len(ordered) == 1 else f"chains {' and '.join(told)}"
