"""A joined kernel as a run of its own: a folder as one job of all its chains would have left it."""

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
from losskernel.runs.resume import finished
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

# In the folder of joined kernels, while one is made; in that, the one whose place it takes.
_BESIDE, _BEFORE = ".partial", ".before"
# Beside what was sampled, in a run's folder: the same for all jobs of one kernel.
_SHARED = (".hydra", "checkpoints", BASELINES, POINTS, KERNELS)

# (configuration, name -> labels of the probes) -> name -> analysis.
Questions = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Analysis | PointAnalysis]]


@dataclass(frozen=True)
class Joined:
    """A joined kernel.

    Attributes:
        folder: of the run that it is.
        chains: their numbers.
        parts: how many runs sampled them.
        outcome: what it ends with; `before` in it says that all of it was there.
    """

    folder: Path
    chains: list[int]
    parts: int
    outcome: Outcome

    def words(self) -> str:
        """Return what was joined, and which chains between them are missing."""
        lost = sorted(set(range(min(self.chains), max(self.chains))) - set(self.chains))
        gap = f"; {chain_ranges(lost)} between them are missing" if lost else ""
        done = "joined before, nothing new" if self.outcome.before else "joined"
        return f"{done}: {chain_ranges(self.chains)}, sampled by {self.parts} runs, in {self.folder}{gap}"


def join_runs(
    runs: Sequence[Run], folder: Path, questions: Questions, tracker: Callable[[Path], Tracker] | None = None
) -> Joined:
    """Join the chains of runs, ask of them what the first was asked, and leave a finished run in a folder.

    A folder that holds the same chains, asked the same, is left as it is; another one is replaced once all is there.

    Args:
        runs: of one kernel, with all their chains; the first gives configuration, weights, baselines and points.
        folder: of the run to make.
        questions: builds the analyses of a configuration.
        tracker: folder -> where else to record.

    Raises:
        TraceError: they are not of one kernel, hold a chain twice, lack one that the folder holds, or have not all
            sampled the same loss kernels; the folder cannot be written.
        InputError: analyses failed; all others, and the traces, are written.
    """
    config = yaml.safe_load((runs[0].folder / "config.yaml").read_text(encoding="utf-8"))
    config["paths"] = (config.get("paths") or {}) | {"run": str(folder), "traces": None}  # they lie in it
    RunFolder(folder.parent).prepare()
    with locked_folder(folder.parent):
        _clear(folder.parent / _BESIDE)
        known = _known(runs, folder, config)
        if known is not None:
            return known
        traces = open_traces([run.folder for run in runs])
        chains: list[int] = traces.losses["chain"].values.tolist()
        _require_no_loss(folder, chains)
        further = _further(runs)
        config = merged_config(config, chains)
        with _beside(folder) as made:
            record = (tracker or _nowhere)(made)
            record.start(config)
            outcome = _filled(made, runs, further, traces, config, questions, record)
        if isinstance(outcome, InputError):
            raise InputError(f"{folder}: {outcome}") from outcome
        return Joined(folder, chains, len(runs), replace(outcome, folder=folder))


def _known(runs: Sequence[Run], folder: Path, config: Mapping[str, Any]) -> Joined | None:
    """Return what a folder holds where it is what would be made now."""
    if not is_complete(folder, TRACES):
        return None
    stored = TraceStore(folder / TRACES).provenance().get(SOURCES, [])
    now = {provenance_hash(TraceStore(run.folder / TRACES).provenance()) for run in runs}
    if {each["provenance"] for each in stored} != now or _controlled(runs) != is_complete(folder, CONTROL):
        return None
    chains = [chain for each in stored for chain in each["chains"]]
    done = finished(folder, merged_config(config, chains))
    return None if done is None else Joined(folder, sorted(chains), len(runs), done)


def _require_no_loss(folder: Path, chains: Sequence[int]) -> None:
    """Raise TraceError where chains would be lost that are in a folder and nowhere else."""
    if not is_complete(folder, TRACES):
        return
    lost = set(open_traces(folder).losses["chain"].values.tolist()) - set(chains)
    if lost:
        raise TraceError(
            f"{folder} holds {chain_ranges(list(lost))}, which none of these runs has; give those that "
            "sampled them too, or move the folder away"
        )


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Yield a folder of the same name that takes the other's place when all is there; nothing of it stays before."""
    beside = folder.parent / _BESIDE
    made, old = beside / folder.parent.name / folder.name, beside / _BEFORE / folder.name  # pages name a path's end
    try:
        guard(made, lambda: made.mkdir(parents=True))
        for record in folder.glob("wandb*"):  # one folder, one W&B run, however often it is joined
            copy = partial(shutil.copytree, copy_function=_linked) if record.is_dir() else _linked
            guard(made, copy, str(record), str(made / record.name))
        yield made

        def replaced() -> None:
            if folder.exists():
                old.parent.mkdir()
                os.replace(folder, old)
            os.replace(made, folder)

        guard(folder, replaced)
    finally:
        _clear(beside)


def _clear(beside: Path) -> None:
    """Remove what was made beside a folder; one that lost its place to nothing, as by a kill, gets it back."""
    for old in (beside / _BEFORE).glob("*"):
        if not (beside.parent / old.name).exists():
            os.replace(old, beside.parent / old.name)
    shutil.rmtree(beside, ignore_errors=True)


def _filled(
    made: Path,
    runs: Sequence[Run],
    further: Sequence[str],
    traces: LossTraces,
    config: Mapping[str, Any],
    questions: Questions,
    record: Tracker,
) -> Outcome | InputError:
    """Write a run into a folder; return what it ends with, or the fault of analyses beside which all else is there."""
    state, status = "failed", RunStatus(made)
    try:
        control = _lay_out(runs, further, made, config, traces)
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


def _lay_out(
    runs: Sequence[Run], further: Sequence[str], made: Path, config: Mapping[str, Any], traces: LossTraces
) -> LossTraces | str | None:
    """Write what was sampled and what all jobs share; return the companion at nbeta = 0, or why there is none."""
    first = runs[0].folder
    for name in _SHARED:
        if (first / name).is_dir():
            guard(made / name, lambda name=name: shutil.copytree(first / name, made / name, copy_function=_linked))
    RunFolder(made).write_text("config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
    traces.save(made / TRACES)
    told = pd.DataFrame(
        [{"run": each["trace"], "chains": chain_ranges(each["chains"])} for each in traces.meta[SOURCES]]
    )
    RunFolder(made).write("tables/joined_from.csv", lambda path: told.to_csv(path, index=False))
    for name in further:
        _remove(made / KERNELS / name)
        open_traces([run.folder / KERNELS / name for run in runs]).save(made / KERNELS / name)
    if _controlled(runs):
        control = open_traces([run.folder / CONTROL for run in runs])
        control.save(made / CONTROL)
        return control
    without = [str(run.folder) for run in runs if not is_complete(run.folder, CONTROL)]
    return f"no control was sampled in {', '.join(shortened(without))}" if len(without) < len(runs) else None


def _further(runs: Sequence[Run]) -> list[str]:
    """Return the loss kernels among the points, which every job samples too.

    Raises:
        TraceError: a job has none of one: its chains diverged there, alone or at first.
    """
    names = sorted({each.name for run in runs for each in (run.folder / KERNELS).glob("*.zarr")})
    lacking = {name: [str(run.folder) for run in runs if not is_complete(run.folder / KERNELS, name)] for name in names}
    for name, without in lacking.items():
        if 0 < len(without) < len(runs):
            remedy = "run all jobs at a smaller sampler.step_size, or leave it out of points"
            raise TraceError(
                f"{KERNELS}/{name} was sampled by some jobs, not in {', '.join(shortened(without))}; {remedy}"
            )
    return [name for name in names if not lacking[name]]


def _controlled(runs: Sequence[Run]) -> bool:
    return all(is_complete(run.folder, CONTROL) for run in runs)


def _linked(source: str, target: str) -> None:
    """Give a file a second name, for it is replaced as a whole or not at all; copy it where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _remove(path: Path) -> None:
    """Remove a trace, or what points to one that lies elsewhere."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _nowhere(folder: Path) -> Tracker:
    return Tracker()


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
        asked = chain_settings(run.config)
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
