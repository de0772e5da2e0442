"""join(): traces of some of a kernel's chains as the one trace of all of them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from losskernel.errors import TraceError
from losskernel.traces.compatibility import disagreements

# Of a joined trace's provenance: the traces it was joined from.
SOURCES = "joined"


@dataclass(frozen=True)
class Source:
    """A trace to be joined with others: its provenance, where it lies, and the numbers of its chains."""

    provenance: Mapping[str, Any]
    name: str
    chains: list[int]

    @property
    def identity(self) -> Mapping[str, Any]:
        """What makes its chains what they are; empty where that is not known."""
        return self.provenance.get("identity") or {}


def join(parts: Sequence[xr.Dataset], names: Sequence[str]) -> xr.Dataset:
    """Return traces of one kernel's chains as one: on a CPU, what one job of all chains would have written.

    Chains keep their numbers and are sorted by them; where traces of several seeds use the same numbers, all are
    renumbered in the order given.

    Args:
        parts: datasets of traces: `losses` [chain, draw, probe] and what else was recorded.
        names: where each lies.

    Raises:
        TraceError: they are not of one kernel, or a chain occurs in more than one of them.
    """
    sources = [
        Source(json.loads(part.attrs.get("provenance", "{}")), name, part["chain"].values.tolist())
        for part, name in zip(parts, names, strict=True)
    ]
    lines = disagreements([source.provenance for source in sources], names) or _shape_differences(parts, names)
    if lines:
        which = " and ".join(names) if len(names) == 2 else f"these {len(names)} traces"
        raise TraceError(f"{which} are not chains of one kernel: {'; '.join(lines)}")
    _require_distinct(sources)
    # Traces of several seeds may use the same numbers for different chains; then no numbering can be kept.
    chains = [chain for source in sources for chain in source.chains]
    distinct = len(set(chains)) == len(chains)
    order = sorted(range(len(parts)), key=lambda index: min(sources[index].chains)) if distinct else range(len(parts))
    joined = _concatenated([parts[index] for index in order])
    if not distinct:
        joined = joined.assign_coords(chain=np.arange(len(chains)))
    elif not joined.indexes["chain"].is_monotonic_increasing:
        joined = joined.sortby("chain")
    provenance = _joined_provenance([sources[index] for index in order], joined["chain"].values.tolist())
    return joined.assign_attrs(parts[order[0]].attrs | {"provenance": json.dumps(provenance)})


def _concatenated(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Return the records that all parts have, along `chain`; those without that dimension are the first part's."""
    first = parts[0]
    common = [name for name in first.data_vars if all(name in part for part in parts)]
    chained = [name for name in common if "chain" in first[name].dims]
    # No comparison of coordinates: they were checked, and a chain's own metadata may differ between jobs.
    joined = xr.concat([part[chained] for part in parts], "chain", coords="minimal", compat="override", join="override")
    # What is measured once per run, such as the losses at w*, is the same in all jobs of a kernel.
    joined = joined.assign({name: first[name] for name in common if name not in chained})
    return joined[common]


def _shape_differences(parts: Sequence[xr.Dataset], names: Sequence[str]) -> list[str]:
    """Return a line for each difference of probes and draws from those of the first trace."""
    first = parts[0]
    lines: list[str] = []
    labels = [key for key in first["losses"].coords if first[key].dims == ("probe",) and key != "probe"]
    for part, name in zip(parts[1:], names[1:], strict=True):
        differing = [str(key) for key in labels if key in part and not part[key].equals(first[key])]
        if not np.array_equal(part["probe"], first["probe"]):
            lines.append(f"probes: the ids in {names[0]} are not those in {name}")
        elif differing:
            lines.append(f"probes: the label {differing[0]!r} in {names[0]} is not that in {name}")
        if part.sizes["draw"] != first.sizes["draw"]:
            lines.append(f"draws: {first.sizes['draw']} in {names[0]}, {part.sizes['draw']} in {name}")
    return lines


def _require_distinct(sources: Sequence[Source]) -> None:
    """Raise TraceError that names the first chain which occurs in more than one trace."""
    holders: dict[tuple[str, int], str] = {}
    for source in sources:
        # Chains of different seeds are different chains; without a seed nothing is known about them.
        seed = source.identity.get("seed")
        for chain in source.chains if seed is not None else ():
            if (str(seed), chain) in holders:
                raise TraceError(
                    f"chain {chain} of seed {seed} stands in {holders[str(seed), chain]} and in {source.name}; join "
                    "each chain once, or sample others with chain_offset"
                )
            holders[str(seed), chain] = source.name


def merged_config(config: Mapping[str, Any], chains: Sequence[int]) -> dict[str, Any]:
    """Return the configuration of one job that samples all of some chains."""
    merged = dict(config) | {"chain_offset": min(chains)}
    if isinstance(config.get("schedule"), Mapping):
        merged["schedule"] = dict(config["schedule"]) | {"chains": len(chains)}
    return merged


def _joined_provenance(sources: Sequence[Source], chains: Sequence[int]) -> dict[str, Any]:
    """Return the provenance of a job that had sampled all chains; what may differ between jobs is the first's."""
    first = sources[0].provenance
    joined: dict[str, Any] = dict(first)
    if first.get("identity"):
        joined["identity"] = _joined_identity([source.identity for source in sources], chains)
    if first.get("config"):
        joined["config"] = merged_config(first["config"], chains)
    if "chains_per_fit" in first:
        stacks = [int(source.provenance.get("chains_per_fit", 1)) for source in sources]
        # Jobs that each stacked all their chains are like one job that stacks all of all.
        whole = all(stack >= len(source.chains) > 1 for stack, source in zip(stacks, sources, strict=True))
        joined["chains_per_fit"] = len(chains) if whole else max(stacks)
    joined[SOURCES] = [
        {"trace": source.name, "chains": source.chains, "provenance": provenance_hash(source.provenance)}
        for source in sources
    ]
    return joined


def _joined_identity(identities: Sequence[Mapping[str, Any]], chains: Sequence[int]) -> dict[str, Any]:
    joined = {key: value for key, value in identities[0].items() if key not in ("chain_offset", "chains")}
    if "schedule" in joined:
        joined["schedule"] = dict(joined["schedule"]) | {"chains": len(chains)}
    # As JSON, since a seed may be a list, which no set takes.
    seeds = list(dict.fromkeys(json.dumps(identity.get("seed")) for identity in identities))
    if len(seeds) > 1:
        joined["seed"] = [json.loads(seed) for seed in seeds]
    if min(chains):
        joined["chain_offset"] = min(chains)
    # No single job samples chains with a gap, so its identity must list them.
    return joined | ({"chains": list(chains)} if np.ptp(chains) >= len(chains) else {})


def provenance_hash(provenance: Mapping[str, Any]) -> str:
    """Return a short hash, by which a trace that was sampled again with other settings is recognised."""
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:16]


def chain_ranges(chains: Sequence[int]) -> str:
    """Return numbers of chains in words: `chains 0 to 3 and 8 to 15`."""
    # Split where a number does not follow the one before it.
    ordered = np.sort(np.asarray(chains))
    runs = np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1)
    ranges = [f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return f"chain {ranges[0]}" if len(ordered) == 1 else f"chains {' and '.join(ranges)}"
