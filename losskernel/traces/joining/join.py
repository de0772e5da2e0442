"""join(): traces of some of a kernel's chains, put together along `chain`."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from losskernel.errors import TraceError
from losskernel.traces.joining.compatibility import disagreements
from losskernel.traces.joining.provenance import Source, joined_provenance


def join(parts: Sequence[xr.Dataset], names: Sequence[str]) -> xr.Dataset:
    """Return traces of one kernel's chains as one: on a CPU, what one job of all chains would have written.

    Chains keep their numbers and stand in their order; where traces of several seeds use the same numbers, all are
    numbered anew in the order given.

    Args:
        parts: datasets of traces: `losses` [chain, draw, probe] and what else was recorded.
        names: where each lies.

    Raises:
        TraceError: they are not of one kernel, or a chain stands in more than one of them.
    """
    abouts = [json.loads(part.attrs.get("provenance", "{}")) for part in parts]
    lines = disagreements(abouts, names) or _shapes(parts, names)
    if lines:
        which = " and ".join(names) if len(names) == 2 else f"these {len(names)} traces"
        raise TraceError(f"{which} are not chains of one kernel: {'; '.join(lines)}")
    drawn: list[list[int]] = [part["chain"].values.tolist() for part in parts]
    _require_once(abouts, drawn, names)
    every = [chain for own in drawn for chain in own]
    kept = len(set(every)) == len(every)
    order = sorted(range(len(parts)), key=lambda place: min(drawn[place])) if kept else range(len(parts))
    joined = _concatenated([parts[place] for place in order])
    if kept:
        joined = joined if joined.indexes["chain"].is_monotonic_increasing else joined.sortby("chain")
    else:
        joined = joined.assign_coords(chain=np.arange(len(every)))
    sources = [Source(abouts[place], names[place], drawn[place]) for place in order]
    about = joined_provenance(sources, joined["chain"].values.tolist())
    return joined.assign_attrs(parts[order[0]].attrs | {"provenance": json.dumps(about)})


def _concatenated(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Return what all parts recorded, along `chain`; what is the same for all chains as the first has it."""
    first = parts[0]
    common = [name for name in first.data_vars if all(name in part for part in parts)]
    chained = [name for name in common if "chain" in first[name].dims]
    joined = xr.concat([part[chained] for part in parts], "chain", coords="minimal", compat="override", join="override")
    joined = joined.assign({name: first[name] for name in common if name not in chained})
    return joined[common]


def _shapes(parts: Sequence[xr.Dataset], names: Sequence[str]) -> list[str]:
    """Return how the probes and draws of traces differ from those of the first."""
    first = parts[0]
    lines: list[str] = []
    for part, name in zip(parts[1:], names[1:], strict=True):
        labels = [key for key in first["losses"].coords if first[key].dims == ("probe",) and key != "probe"]
        if not np.array_equal(part["probe"], first["probe"]):
            lines.append(f"probes: the ids in {names[0]} are not those in {name}")
        elif unlike := [str(key) for key in labels if key in part and not part[key].equals(first[key])]:
            lines.append(f"probes: the label {unlike[0]!r} in {names[0]} is not that in {name}")
        if part.sizes["draw"] != first.sizes["draw"]:
            lines.append(f"draws: {first.sizes['draw']} in {names[0]}, {part.sizes['draw']} in {name}")
    return lines


def _require_once(abouts: Sequence[dict[str, Any]], drawn: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    """Raise TraceError that names the first chain that stands in more than one trace."""
    holders: dict[tuple[str, int], str] = {}
    for about, own, name in zip(abouts, drawn, names, strict=True):
        seed = (about.get("identity") or {}).get("seed")
        for chain in own if seed is not None else ():
            if (str(seed), chain) in holders:
                raise TraceError(
                    f"chain {chain} of seed {seed} stands in {holders[str(seed), chain]} and in {name}; join each "
                    "chain once, or sample others with chain_offset"
                )
            holders[str(seed), chain] = name
