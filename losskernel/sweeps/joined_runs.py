"""Runs that sampled chains of one kernel: which they are, and the one run that they become when joined."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from losskernel.analyses.result import Analysis, PointAnalysis
from losskernel.errors import InputError, TraceError
from losskernel.representations.baselines.collect import BASELINES, read_representations
from losskernel.representations.points import POINTS, open_points
from losskernel.representations.sources.loss_kernels import KERNELS
from losskernel.runs.analyse import CONTROL, TRACES, Outcome, analyse
from losskernel.runs.folder import RunFolder
from losskernel.runs.run import finished
from losskernel.runs.status.status_file import RunStatus
from losskernel.runs.tracking.tracker import Tracker
from losskernel.storage.locations import guard
from losskernel.storage.locks import locked_folder
from losskernel.sweeps.design import first_chain, swept_keys, value_of
from losskernel.sweeps.read_runs import UNSAMPLED, Run, short_names
from losskernel.traces.compatibility import chain_settings, shortened
from losskernel.traces.join import SOURCES, chain_ranges, merged_config, provenance_hash
from losskernel.traces.loss_traces import LossTraces, open_traces
from losskernel.traces.zarr_store import TraceStore

_LONGEST = 80  # characters of a folder's name
# In the folder of joined kernels: where one is made, and within it the older one that it replaces.
_PARTIAL, _REPLACED = ".partial", ".before"
# Parts of a run's folder that all jobs of one kernel have in common, besides what they sampled.
_SHARED = (".hydra", "checkpoints", BASELINES, POINTS, KERNELS)

# (configuration, labels of the probes by name) -> analyses by name.
Questions = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Analysis | PointAnalysis]]


@dataclass(frozen=True)
class JoinedRuns:
    """Runs that sampled chains of one kernel, in the order of their first chains.

    Attributes:
        settings: the settings on which their configurations agree, flat.
        runs: those whose chains are complete.
        waiting: the others.
    """

    settings: dict[str, Any]
    runs: list[Run] = field(default_factory=list)
    waiting: list[Run] = field(default_factory=list)

    @property
    def all(self) -> list[Run]:
        """All runs, complete ones first."""
        return [*self.runs, *self.waiting]

    @property
    def config(self) -> dict[str, Any]:
        """The flat configuration of one job that samples all their chains."""
        chains = sum(int(run.config.get("schedule.chains") or 0) for run in self.all)
        return self.all[0].config | {"schedule.chains": chains, "chain_offset": min(map(first_chain, self.all))}

    def has_kernel_of(self, run: Run) -> bool:
        """Whether the configuration of a run, as of an earlier join, is that of this kernel."""
        checkpoint = self.all[0].config.get("checkpoint")
        return chain_settings(run.config) == self.settings and run.config.get("checkpoint") == checkpoint


@dataclass(frozen=True)
class JoinedKernel:
    """The run that joined runs became.

    Attributes:
        folder: of the run.
        chains: their numbers.
        parts: number of runs that sampled them.
        outcome: of its analyses; `outcome.before` says that it was joined before.
    """

    folder: Path
    chains: list[int]
    parts: int
    outcome: Outcome

    def words(self) -> str:
        """Return a line on what was joined, and which chains are missing between the first and the last."""
        missing = sorted(set(range(min(self.chains), max(self.chains))) - set(self.chains))
        gap = f"; {chain_ranges(missing)} between them are missing" if missing else ""
        done = "joined before, nothing new" if self.outcome.before else "joined"
        return f"{done}: {chain_ranges(self.chains)}, sampled by {self.parts} runs, in {self.folder}{gap}"


def group_by_kernel(runs: Sequence[Run]) -> list[JoinedRuns]:
    """Return the runs by kernel, in the order of the first run of each.

    Runs are of one kernel if all settings agree that decide a chain, and the trained weights are the same or come from
    the same file. A run whose chains are incomplete counts to the first kernel with which everything known of it
    agrees. A run without a configuration, or that samples nothing, stays alone.
    """
    kernels: list[JoinedRuns] = []
    # Complete runs first: they define the kernels to which incomplete ones, of which less is known, are assigned.
    for run, done in sorted(((run, is_complete(run)) for run in runs), key=lambda pair: not pair[1]):
        settings = chain_settings(run.config)
        alone = not settings or run.verdict == UNSAMPLED
        kernel = None if alone else next((known for known in kernels if _belongs(run, settings, done, known)), None)
        if kernel is None:
            kernels.append(kernel := JoinedRuns({} if alone else settings))
        (kernel.runs if done else kernel.waiting).append(run)
    order = {id(run): number for number, run in enumerate(runs)}
    for kernel in kernels:
        kernel.runs.sort(key=first_chain)
        kernel.waiting.sort(key=first_chain)
    return sorted(kernels, key=lambda kernel: min(order[id(run)] for run in kernel.all))


def parts_of_kernels(runs: Sequence[Run]) -> bool:
    """Whether some of the runs differ in the number of their first chain alone."""
    return any(len({first_chain(run) for run in kernel.all}) > 1 for kernel in group_by_kernel(runs))


def folder_names(kernels: Sequence[JoinedRuns]) -> list[str]:
    """Return a name for each kernel's folder: what was swept, as `localization_10-seed_1`, or the runs' own name."""
    firsts = [kernel.all[0] for kernel in kernels]
    keys = [*swept_keys(firsts), *(["seed"] if len({value_of(run, "seed") for run in firsts}) > 1 else [])]
    last_words = [key.removesuffix("._target_").rsplit(".", 1)[-1] for key in keys]
    names = [
        "-".join(f"{word}_{_file_name(value_of(run, key))}" for word, key in zip(last_words, keys, strict=True))
        or _file_name(str(run.config.get("name") or "kernel"))
        for run in firsts
    ]
    fit = len(set(names)) == len(names) and max(map(len, names)) <= _LONGEST
    return names if fit else [name.replace("/", "-") for name in short_names(firsts)]


def is_complete(run: Run) -> bool:
    """Whether all chains of a run are on disk, and those of its control if it has one."""
    if not _has_trace(run.folder, TRACES):
        return False
    # A run with results is done with its control, whose chains may have diverged.
    return not run.missing or run.config.get("control") is not True or _has_trace(run.folder, CONTROL)


def why_waiting(run: Run) -> str:
    """Return why the chains of a run are not complete."""
    if run.missing:
        return run.missing
    try:
        store = TraceStore(run.folder / TRACES)
        return "it is unfinished" if store.exists and not store.complete else "its trace is gone"
    except (TraceError, InputError) as error:
        return f"its trace cannot be read: {error}"


def join_runs(
    runs: Sequence[Run], folder: Path, questions: Questions, tracker: Callable[[Path], Tracker] | None = None
) -> JoinedKernel:
    """Join the chains of runs of one kernel into a finished run, with the analyses of the first of them.

    A folder that holds the same chains and analyses is left as it is; an older one is replaced when the new one is
    complete.

    Args:
        runs: with all their chains; the first gives configuration, weights, baselines and points.
        folder: of the run to make.
        questions: builds the analyses of a configuration.
        tracker: folder -> where else to record.

    Raises:
        TraceError: they are not of one kernel, hold a chain twice, lack one that the folder holds, or have not all
            sampled the same loss kernels; the folder cannot be written.
        InputError: analyses failed; all others, and the traces, are written.
    """
    config = yaml.safe_load((runs[0].folder / "config.yaml").read_text(encoding="utf-8"))
    config["paths"] = (config.get("paths") or {}) | {"run": str(folder), "traces": None}  # the traces lie in the folder
    RunFolder(folder.parent).prepare()
    with locked_folder(folder.parent):
        _clean_up(folder.parent / _PARTIAL)
        known = _joined_before(runs, folder, config)
        if known is not None:
            return known
        traces = open_traces([run.folder for run in runs])
        chains: list[int] = traces.losses["chain"].values.tolist()
        _require_no_loss(folder, chains)
        kernels = _kernels_of_points(runs)
        config = merged_config(config, chains)
        with _replacing_folder(folder) as made:
            record = tracker(made) if tracker is not None else Tracker()
            record.start(config)
            outcome = _fill(made, runs, kernels, traces, config, questions, record)
        if isinstance(outcome, InputError):
            raise InputError(f"{folder}: {outcome}") from outcome
        return JoinedKernel(folder, chains, len(runs), replace(outcome, folder=folder))


def _belongs(run: Run, settings: dict[str, Any], done: bool, kernel: JoinedRuns) -> bool:
    """Whether the chains of a run are those of a kernel."""
    file, files = str(run.config.get("checkpoint")), {str(other.config.get("checkpoint")) for other in kernel.all}
    same = settings == kernel.settings
    if not done and not (run.folder / "config.yaml").is_file():
        # Known only from Hydra's composed configuration, in which interpolated values are missing.
        same = all(kernel.settings.get(key) == value for key, value in settings.items())
    if done and files != {file}:
        return same and _weights(run) == _weights(kernel.runs[0])
    return same and file in files


def _weights(run: Run) -> str:
    """Return the fingerprint of a run's trained weights."""
    return str(TraceStore(run.folder / TRACES).provenance().get("identity", {}).get("model", {}).get("weights"))


def _has_trace(folder: Path, name: str) -> bool:
    """Whether a complete trace of a name is in a folder."""
    try:
        return TraceStore(folder / name).complete
    except (TraceError, InputError):
        return False


def _file_name(value: str) -> str:
    """Return a value as part of a folder's name, without characters that Hydra would want quoted in run=."""
    signs = r"[^\w.+-]+"
    last = value.rsplit("/", 1)[-1]
    return re.sub(signs, "-", last).strip("-." if re.search(signs, last) else "") or "-"


def _joined_before(runs: Sequence[Run], folder: Path, config: Mapping[str, Any]) -> JoinedKernel | None:
    """Return the content of a folder if it is what the runs would become now."""
    if not _has_trace(folder, TRACES):
        return None
    sources = TraceStore(folder / TRACES).provenance().get(SOURCES, [])
    now = {provenance_hash(TraceStore(run.folder / TRACES).provenance()) for run in runs}
    if {source["provenance"] for source in sources} != now or _controlled(runs) != _has_trace(folder, CONTROL):
        return None
    chains = [chain for source in sources for chain in source["chains"]]
    done = finished(folder, merged_config(config, chains))
    return None if done is None else JoinedKernel(folder, sorted(chains), len(runs), done)


def _require_no_loss(folder: Path, chains: Sequence[int]) -> None:
    """Raise TraceError if the folder to be replaced holds chains that are in none of the runs."""
    if not _has_trace(folder, TRACES):
        return
    lost = set(open_traces(folder).losses["chain"].values.tolist()) - set(chains)
    if lost:
        remedy = "give those that sampled them too, or move the folder away"
        raise TraceError(f"{folder} holds {chain_ranges(list(lost))}, which none of these runs has; {remedy}")


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that replaces another when the context ends, and is removed if it fails.

    A full folder cannot be replaced in one step. So the older one is moved into the partial folder first, from where
    `_clean_up` brings it back if a kill comes between the two moves.
    """
    partial_folder = folder.parent / _PARTIAL
    # The last two parts of the path stay the same, because pages show them.
    made, older = partial_folder / folder.parent.name / folder.name, partial_folder / _REPLACED / folder.name
    try:
        guard(made, lambda: made.mkdir(parents=True))
        for record in folder.glob("wandb*"):  # the same W&B run, however often the runs are joined
            copy = partial(shutil.copytree, copy_function=_link) if record.is_dir() else _link
            guard(made, copy, str(record), str(made / record.name))
        yield made

        def replace_folder() -> None:
            if folder.exists():
                older.parent.mkdir()
                os.replace(folder, older)
            os.replace(made, folder)

        guard(folder, replace_folder)
    finally:
        _clean_up(partial_folder)


def _clean_up(partial_folder: Path) -> None:
    """Remove a partial folder; an older folder in it goes back to its location if nothing has replaced it there."""
    for older in (partial_folder / _REPLACED).glob("*"):
        if not (partial_folder.parent / older.name).exists():
            os.replace(older, partial_folder.parent / older.name)
    shutil.rmtree(partial_folder, ignore_errors=True)


def _fill(
    made: Path,
    runs: Sequence[Run],
    kernels: Sequence[str],
    traces: LossTraces,
    config: Mapping[str, Any],
    questions: Questions,
    record: Tracker,
) -> Outcome | InputError:
    """Write the joined run into a folder; return its outcome, or the error of analyses, all else being written."""
    state, status = "failed", RunStatus(made)
    try:
        control = _write_samples(runs, kernels, made, config, traces)
        status.enter("analysing", kernel=TRACES, chains=traces.losses.sizes["chain"])
        record.keep("traces", "traces", made / TRACES)
        points, analyses = open_points(made), questions(config, traces.labels)
        whole = traces.with_baselines(read_representations(made / BASELINES))
        outcome = analyse(whole, analyses, RunFolder(made), record, control, points, status.begin)
        status.enter("finished", verdict=outcome.diagnosis and outcome.diagnosis.verdict)
        state = "finished"
        return outcome
    except InputError as error:
        status.enter(state, error=" ".join(str(error).split()))
        return error
    finally:
        record.finish(state)


def _write_samples(
    runs: Sequence[Run], kernels: Sequence[str], made: Path, config: Mapping[str, Any], traces: LossTraces
) -> LossTraces | str | None:
    """Write the traces and the parts that all jobs share; return the control, or why there is none."""
    first, files = runs[0].folder, RunFolder(made)
    for name in _SHARED:
        if (first / name).is_dir():
            guard(made / name, partial(shutil.copytree, copy_function=_link), first / name, made / name)
    files.write_text("config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
    traces.save(made / TRACES)
    sources = [{"run": part["trace"], "chains": chain_ranges(part["chains"])} for part in traces.meta[SOURCES]]
    files.write("tables/joined_from.csv", partial(pd.DataFrame(sources).to_csv, index=False))
    for name in kernels:
        _remove(made / KERNELS / name)  # the first job's part, copied with the shared folders
        open_traces([run.folder / KERNELS / name for run in runs]).save(made / KERNELS / name)
    if _controlled(runs):
        control = open_traces([run.folder / CONTROL for run in runs])
        control.save(made / CONTROL)
        return control
    without = [str(run.folder) for run in runs if not _has_trace(run.folder, CONTROL)]
    return f"no control was sampled in {', '.join(shortened(without))}" if len(without) < len(runs) else None


def _kernels_of_points(runs: Sequence[Run]) -> list[str]:
    """Return the loss kernels among the points; every job sampled its chains of each.

    Raises:
        TraceError: some jobs lack a kernel, because their chains diverged.
    """
    names = sorted({trace.name for run in runs for trace in (run.folder / KERNELS).glob("*.zarr")})
    lacking = {name: [str(run.folder) for run in runs if not _has_trace(run.folder / KERNELS, name)] for name in names}
    for name, without in lacking.items():
        if 0 < len(without) < len(runs):
            remedy = "run all jobs at a smaller sampler.step_size, or leave it out of points"
            some = f"{KERNELS}/{name} was sampled by some jobs, not in {', '.join(shortened(without))}"
            raise TraceError(f"{some}; {remedy}")
    return [name for name in names if not lacking[name]]


def _controlled(runs: Sequence[Run]) -> bool:
    return all(_has_trace(run.folder, CONTROL) for run in runs)


def _link(source: str, target: str) -> None:
    """Make a hard link, which is safe because files are only ever replaced whole; copy where links are impossible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _remove(path: Path) -> None:
    """Remove a trace, or the pointer to one that lies elsewhere."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
