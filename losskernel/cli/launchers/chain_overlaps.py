"""What a sweep's jobs will not be able to do together, found before the first begins: be joined, or be compared."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any, NamedTuple, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from losskernel.cli.commands.calibrate import apply_calibration
from losskernel.cli.launchers.jobs import SweepJob
from losskernel.errors import InputError
from losskernel.traces.compatibility import chain_settings
from losskernel.traces.join import chain_ranges

_MOST = 6  # values that a message lists


class _Part(NamedTuple):
    """Chains of a kernel that one job is to sample."""

    job: SweepJob
    first: int
    chains: int

    @property
    def end(self) -> int:
        return self.first + self.chains


def refuse_overlaps(jobs: Sequence[SweepJob]) -> None:
    """Raise InputError where jobs that sample parts of one kernel, by chain_offset, would sample some chains twice."""
    kernels: dict[str, list[_Part]] = {}
    for job in jobs:
        config = _resolved(job)
        first, chains = config.get("chain_offset"), (config.get("schedule") or {}).get("chains")
        if isinstance(first, int) and isinstance(chains, int):  # anything else the job itself refuses
            kernel = json.dumps([chain_settings(config), config.get("checkpoint")], sort_keys=True)
            kernels.setdefault(kernel, []).append(_Part(job, first, chains))
    for parts in kernels.values():
        if len({part.first for part in parts}) > 1:
            _require_apart(sorted(parts, key=lambda part: part.first))


def note_other_probes(jobs: Sequence[SweepJob]) -> None:
    """Say where jobs have other probes only since the dataset's seed follows the run's: kernels need the same."""
    chosen = any(word.lstrip("+~").startswith("dataset.seed=") for job in jobs for word in job.overrides)
    seeds = {(_resolved(job).get("dataset") or {}).get("seed") for job in jobs} - {None}
    if len(seeds) > 1 and not chosen:
        why = "the dataset's seed follows the run's, so runs of different seeds have other probes"
        print(f"losskernel: {why}, and their kernels cannot be compared; dataset.seed=0 gives all the same", flush=True)


def _require_apart(parts: Sequence[_Part]) -> None:
    """Raise InputError that names the first two of a kernel's parts, in their order, that share chains."""
    firsts = list(dict.fromkeys(part.first for part in parts))
    for one, other in pairwise(parts):
        if other.first < one.end:
            told = ",".join(map(str, firsts[:_MOST])) + ",..." * (len(firsts) > _MOST)
            shared = chain_ranges(range(other.first, min(one.end, other.end)))
            apart = f"range({firsts[0]},{firsts[0] + len(parts) * one.chains},{one.chains})"
            raise InputError(
                f"chain_offset={told}, schedule.chains={one.chains}: {one.job.name} and {other.job.name} would both "
                f"sample {shared} of one kernel; {_remedy(one.job, other.job, apart)}"
            )


def _resolved(job: SweepJob) -> Mapping[str, Any]:
    """Return the configuration as the job will have it; empty where the job itself will say what is wrong."""
    config = deepcopy(job.config)
    try:
        apply_calibration(config, job.overrides)
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except (InputError, OmegaConfBaseException):
        return {}


def _remedy(one: SweepJob, other: SweepJob, apart: str) -> str:
    """Return what keeps two jobs apart: other values, or no sweep over what does not change a chain."""
    words = [word for word in one.overrides if word not in other.overrides]
    keys = [key for key in (word.partition("=")[0].lstrip("+~") for word in words) if key != "chain_offset"]
    if keys:
        return f"{' and '.join(keys)} makes no other kernel: give it one value beside chain_offset"
    return f"chain_offset={apart} gives every job chains of its own"
