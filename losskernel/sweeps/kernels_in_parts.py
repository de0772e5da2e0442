"""Which of some runs sampled chains of one kernel, and what their kernel is called."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from losskernel.errors import InputError, TraceError
from losskernel.runs.analyse import CONTROL, TRACES
from losskernel.sweeps.design import first_chain, swept_keys, value_of
from losskernel.sweeps.read_runs import UNSAMPLED, Run, short_names
from losskernel.traces.joining import inward
from losskernel.traces.zarr_store import TraceStore

_LONGEST = 80  # characters of a folder's name


@dataclass(frozen=True)
class Group:
    """Runs that sampled chains of one kernel, by the number of their first chain.

    Attributes:
        asked: what their configurations agree in, flat.
        runs: whose chains are all there.
        waiting: the others.
    """

    asked: dict[str, Any]
    runs: list[Run] = field(default_factory=list)
    waiting: list[Run] = field(default_factory=list)

    @property
    def all(self) -> list[Run]:
        """Return all of them, those that are complete first."""
        return [*self.runs, *self.waiting]


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Return the runs by kernel, in the order of the first of each.

    Runs are of one kernel where everything agrees in their configurations that must, and where the trained weights are
    the same if their files differ. A run whose chains are not complete is counted to the first kernel with which all
    agrees that is known of it. What has no chains to come, and what has no configuration, stands alone.
    """
    whole = [complete(run) for run in runs]
    found: list[Group] = []
    for run, done in sorted(zip(runs, whole, strict=True), key=lambda pair: not pair[1]):
        asked = inward(run.config)
        stands_alone = not asked or run.verdict == UNSAMPLED
        groups = [] if stands_alone else [group for group in found if _belongs(run, asked, done, group)]
        if not groups:
            found.append(Group({} if stands_alone else asked))
        own = groups[0] if groups else found[-1]
        (own.runs if done else own.waiting).append(run)
    places = {id(run): place for place, run in enumerate(runs)}
    for group in found:
        group.runs.sort(key=first_chain)
        group.waiting.sort(key=first_chain)
    return sorted(found, key=lambda group: min(places[id(run)] for run in group.all))


def parts_of_kernels(runs: Sequence[Run]) -> bool:
    """Whether some runs differ in the number of their first chain alone."""
    return any(len({first_chain(run) for run in group.all}) > 1 for group in grouped(runs))


def names_of(groups: Sequence[Group]) -> list[str]:
    """Return a name for each kernel's folder: what was swept, as `localization_10-seed_1`, or the runs' own name."""
    firsts = [group.all[0] for group in groups]
    keys = [*swept_keys(firsts), *(["seed"] if len({value_of(run, "seed") for run in firsts}) > 1 else [])]
    short = [key.removesuffix("._target_").rsplit(".", 1)[-1] for key in keys]
    named = list(zip(short, keys, strict=True))
    names = ["-".join(f"{word}_{_worded(value_of(run, key))}" for word, key in named) for run in firsts]
    if not keys:
        names = [_worded(str(run.config.get("name") or "kernel")) for run in firsts]
    fit = len(set(names)) == len(names) and max(map(len, names)) <= _LONGEST
    return names if fit else [name.replace("/", "-") for name in short_names(firsts)]


def _worded(value: str) -> str:
    """Return a value as part of a folder's name; Hydra would want quotes around other signs, as in run=."""
    signs = r"[^\w.+-]+"
    last = value.rsplit("/", 1)[-1]  # of a path
    return re.sub(signs, "-", last).strip("-." if re.search(signs, last) else "") or "-"


def complete(run: Run) -> bool:
    """Whether all chains of a run, and of its companion if it was to have one, are there."""
    if not is_complete(run.folder, TRACES):
        return False
    # Whoever has answers was done with the companion, though it may have had to do without.
    return not run.missing or run.config.get("control") is not True or is_complete(run.folder, CONTROL)


def is_complete(folder: Path, name: str) -> bool:
    """Whether a trace of a run is there, whole."""
    try:
        return TraceStore(folder / name).complete
    except (TraceError, InputError):
        return False


def why_waiting(run: Run) -> str:
    """Return why the chains of a run are not complete."""
    if run.missing:
        return run.missing
    try:
        store = TraceStore(run.folder / TRACES)
        return "it is unfinished" if store.exists and not store.complete else "its trace is gone"
    except (TraceError, InputError) as error:
        return f"its trace cannot be read: {error}"


def _belongs(run: Run, asked: dict[str, Any], done: bool, group: Group) -> bool:
    """Whether a run's chains are those of a kernel."""
    file, files = str(run.config.get("checkpoint")), {str(each.config.get("checkpoint")) for each in group.all}
    same = asked == group.asked
    if not done and not (run.folder / "config.yaml").is_file():
        # It did not come to a configuration of its own: of what Hydra composed, interpolations are left out.
        same = all(group.asked.get(key) == value for key, value in asked.items())
    if done and files != {file}:
        return same and _weights(run) == _weights(group.runs[0])
    return same and file in files


def _weights(run: Run) -> str:
    return str(TraceStore(run.folder / TRACES).provenance().get("identity", {}).get("model", {}).get("weights"))
