"""The jobs of a sweep before the first begins: their configurations, their names, and checks over all of them."""

import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import filter_overrides
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from losskernel.cli.config import apply_calibration, parsed, resolved
from losskernel.config_keys import COMPARED, Use, row, symbol_of, with_use
from losskernel.errors import InputError, require

_MOST = 6  # values that a message lists
_MOST_SETTINGS, _LONGEST = 4, 24  # settings in a run's name, and characters of a value


@dataclass(frozen=True)
class SweepJob:
    """One job of a sweep.

    Attributes:
        number: of the job in the sweep.
        overrides: Hydra's overrides for it.
        words: those overrides that differ between the jobs.
        folder: of its run.
        config: composed, with the interpolations that can only be resolved within the job.
    """

    number: int
    overrides: list[str]
    words: str
    folder: Path
    config: DictConfig

    @property
    def name(self) -> str:
        """What messages call it."""
        return _name(self.number, self.words)


def compose_jobs(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[SweepJob]:
    """Return the jobs that Hydra hands to a launcher or a sweeper.

    Args:
        launcher: with config and hydra_context.
        job_overrides: overrides of each job.
        first: number of the first job.
    """
    shared = set.intersection(*map(set, job_overrides)) if len(job_overrides) > 1 else set()
    before, jobs = HydraConfig.instance().cfg, []
    try:
        for number, overrides in enumerate(map(list, job_overrides), first):
            config = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, overrides)
            with open_dict(config):
                config.hydra.job.num = number
            HydraConfig.instance().set_config(config)  # folder names may interpolate it
            folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
            # Hydra's own part would be resolved and compared with the run's.
            with read_write(config), open_dict(config):
                del config["hydra"]
            words = filter_overrides([word for word in overrides if word not in shared])
            jobs.append(SweepJob(number, overrides, " ".join(words), folder, config))
    finally:
        HydraConfig.instance().cfg = before
    return jobs


def job_name(hydra_config: Any) -> str:
    """Return what messages call the job of this process, which knows the other jobs only by its sweep's folder.

    Args:
        hydra_config: HydraConfig.get().
    """
    keys = swept_keys(Path(hydra_config.sweep.dir))
    words = [word for word in hydra_config.overrides.task if word.partition("=")[0].lstrip("+~") in keys]
    return _name(hydra_config.job.num, " ".join(words))


def swept_keys(folder: Path) -> list[str]:
    """Return the keys that a sweep varies, from the multirun.yaml that Hydra writes before the first job."""
    try:
        words = OmegaConf.load(folder / "multirun.yaml").hydra.overrides.task
        return [str(override.key_or_group) for override in parsed(words) if override.is_sweep_override()]
    except (OSError, HydraException):
        return []


def resume_command(hydra_config: Any) -> str:
    """Return, in words, the command that continues a sweep.

    Args:
        hydra_config: of one of its jobs, or the sweep's own.
    """
    given = _given_value(hydra_config, "paths.sweep") is not None
    return "the same command" if given else f"the same command with paths.sweep={hydra_config.sweep.dir}"


def refuse_sweep_words_of_single_run(hydra_config: Any) -> None:
    """Raise InputError if a single run is given words that only a sweep takes: Hydra would ignore them.

    Args:
        hydra_config: HydraConfig.get().
    """
    if hydra_config.mode == RunMode.MULTIRUN:
        return
    # Hydra composes the launcher for a single run too, and does not use it.
    name = hydra_config.runtime.choices.get("hydra/launcher")
    basic = name in (None, "basic")
    require(basic, f"hydra/launcher={name} starts the jobs of a sweep, of one job too: losskernel -m ...; add -m")
    folder = _given_value(hydra_config, "paths.sweep")
    remedy = f"write paths.run={folder}, or add -m"
    require(folder is None, f"paths.sweep={folder} names the folder of a sweep, and this is one run; {remedy}")


def refuse_run_folder_of_sweep(sweeper: Any) -> None:
    """Raise InputError if a sweep is given the folder of one run: Hydra would ignore it.

    Args:
        sweeper: with config.
    """
    folder = _given_value(sweeper.config.hydra, "paths.run")
    remedy = f"write paths.sweep={folder}, in which every job has a folder, or leave -m out"
    require(folder is None, f"paths.run={folder} names the folder of one run, and -m makes a sweep; {remedy}")


def _given_value(hydra_config: Any, key: str) -> str | None:
    """Return the value that the command line gives to a key."""
    words = [str(word).lstrip("+").partition("=") for word in hydra_config.overrides.task]
    return next((value for name, _, value in words if name == key), None)


def _name(number: int, words: str) -> str:
    return f"job {number} ({words})" if words else f"job {number}"


# Chains of one kernel, sampled by several jobs that differ in chain_offset.


def refuse_overlapping_chains(jobs: Sequence[SweepJob]) -> None:
    """Raise InputError if jobs that sample parts of one kernel, by chain_offset, would sample some chains twice."""
    from losskernel.traces.compatibility import chain_settings

    kernels: dict[str, list[tuple[range, SweepJob]]] = {}
    for job in jobs:
        config = _resolved(job)
        first, chains = config.get("chain_offset"), (config.get("schedule") or {}).get("chains")
        if isinstance(first, int) and isinstance(chains, int):  # the job itself refuses anything else
            # All settings that decide a chain's numbers but which chains they are.
            kernel = json.dumps([chain_settings(config), config.get("checkpoint")], sort_keys=True)
            kernels.setdefault(kernel, []).append((range(first, first + chains), job))
    for parts in kernels.values():
        if len({chains.start for chains, _ in parts}) > 1:  # else they repeat one kernel, and nothing is to be joined
            _require_disjoint(sorted(parts, key=lambda part: part[0].start))


def warn_of_different_probes(jobs: Sequence[SweepJob]) -> None:
    """Print a warning if jobs have different probes only because the dataset's seed follows the run's seed."""
    # Whoever sets dataset.seed, even to the run's, knows.
    chosen = any(word.lstrip("+~").startswith("dataset.seed=") for job in jobs for word in job.overrides)
    seeds = {(_resolved(job).get("dataset") or {}).get("seed") for job in jobs} - {None}
    if len(seeds) > 1 and not chosen:
        why = "the dataset's seed follows the run's, so runs of different seeds have other probes"
        print(f"losskernel: {why}, and their kernels cannot be compared; dataset.seed=0 gives all the same", flush=True)


def _require_disjoint(parts: Sequence[tuple[range, SweepJob]]) -> None:
    """Raise InputError that names the first two jobs, sorted by their first chains, that share chains of a kernel."""
    from losskernel.traces.join import chain_ranges

    offsets = list(dict.fromkeys(chains.start for chains, _ in parts))
    for (chains, job), (others, other) in pairwise(parts):
        if others.start < chains.stop:
            listed = ",".join(map(str, offsets[:_MOST])) + ",..." * (len(offsets) > _MOST)
            shared = chain_ranges(range(others.start, min(chains.stop, others.stop)))
            disjoint = f"range({offsets[0]},{offsets[0] + len(parts) * len(chains)},{len(chains)})"
            raise InputError(
                f"chain_offset={listed}, schedule.chains={len(chains)}: {job.name} and {other.name} would both sample "
                f"{shared} of one kernel; {_remedy(job, other, disjoint)}"
            )


def _remedy(one: SweepJob, other: SweepJob, disjoint: str) -> str:
    """Return what keeps two jobs apart: other offsets, or no sweep over what does not change a chain."""
    words = [word for word in one.overrides if word not in other.overrides]
    keys = [key for key in (word.partition("=")[0].lstrip("+~") for word in words) if key != "chain_offset"]
    if keys:
        return f"{' and '.join(keys)} makes no other kernel: give it one value beside chain_offset"
    return f"chain_offset={disjoint} gives every job chains of its own"


def _resolved(job: SweepJob) -> Mapping[str, Any]:
    """Return the configuration as the job will have it; empty where the job itself will say what is wrong."""
    config = deepcopy(job.config)
    try:
        apply_calibration(config, job.overrides)
        return resolved(config)
    except (InputError, OmegaConfBaseException):
        return {}


# Names of runs for their records: name, group, kind and tags, from what was set on the command line.


def described(config: DictConfig, folder: Path, sweep: str | None) -> dict[str, Any]:
    """Return name, group, job type and tags of a run, by which a record shows it among others.

    Args:
        config: of the run.
        folder: of the run.
        sweep: name of its sweep; None for a single run.
    """
    from losskernel.sweeps.read_runs import JOBS

    about: dict[str, Any] = {"tags": [*config.logger.tags, *_tags(config, sweep)]}
    if config.logger.name == config.name:  # a name of the user's own is used as it is
        about["name"] = " ".join([str(config.name), *_settings()]) + _number()
    if sweep is not None:
        about["group"] = Path(sweep).name
    if sweep is not None and (folder.parent / JOBS).is_file():  # a sweep around a run: dynamics, layers
        about["job_type"] = folder.parent.name
    return about


def _tags(config: DictConfig, sweep: str | None) -> list[str]:
    plain = resolved(config)
    names = [str((plain.get(key) or {}).get("_target_", "")).rpartition(".")[2] for key in with_use(Use.CLASS_NAME)]
    return [*filter(None, names), *(["sweep"] if sweep is not None else [])]


def _settings() -> list[str]:
    """Return `key=value` for what tells a run from others: in a sweep what is swept, else what was set by hand."""
    if not HydraConfig.initialized():
        return []
    hydra_config = HydraConfig.get()
    words = [word.partition("=") for word in hydra_config.overrides.task]
    given = {name.lstrip("+~"): value for name, _, value in words}
    given = {name: value for name, value in given.items() if row(name.replace("/", ".")).role in COMPARED}
    if hydra_config.mode == RunMode.MULTIRUN:
        given = {name: value for name, value in given.items() if name in swept_keys(Path(hydra_config.sweep.dir))}
    settings = [f"{symbol_of(name, name.rsplit('.', 1)[-1])}={_short(value)}" for name, value in given.items()]
    return [*settings[:_MOST_SETTINGS], *(["..."] if len(settings) > _MOST_SETTINGS else [])]


def _number() -> str:
    """Return the number of a sweep's job, which tells replicates apart and names its folder."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return ""
    return f" · {HydraConfig.get().job.num}"


def _short(value: str) -> str:
    """Return a value in few characters: a number to four digits, a file by its stem."""
    try:
        return f"{float(value):.4g}"
    except ValueError:
        # A path, but neither a list nor a mapping that holds one.
        text = Path(value).stem if re.search(r"[\w-]/", value) and value[0] not in "[{" else value
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
