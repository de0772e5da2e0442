"""over_blocks(): the kernels of single blocks of a network's weights, side by side."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.result import Result
from losskernel.errors import InputError, require
from losskernel.kernel.error_bars import replicate_mean
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.runs.tracking.tracker import Tracker
from losskernel.sampling.samplers.base import select
from losskernel.sweeps.compare import ALIKE, Comparison, JobKernels, compare_jobs
from losskernel.sweeps.design import Finding
from losskernel.sweeps.read_runs import JOBS, Run, find_runs

BLOCK = "block"  # what the jobs differ in
WHOLE = "whole"  # name of the block of all weights
MOST_GROUPS = 100
_NEIGHBOURS = 10


def over_blocks(
    folder: str | Path,
    *,
    metrics: Sequence[str] | str | None = None,
    alike: float = ALIKE,
    tracker: Tracker | None = None,
) -> Comparison:
    """Compare the kernels of blocks of a network's weights; write report.html, figures and tables into their folder.

    Args:
        folder: of one run per block, each in a folder of the block's name; its `jobs.json` gives their order, all
            weights first. Without it the block of all weights is the folder `whole`.
        metrics: what to draw for each block; None for the usual ones that the runs have.
        alike: CKA from which two kernels count as alike.
        tracker: where else to record.

    Raises:
        InputError: fewer than two blocks have a kernel, or a metric is not there.
        TraceError: a run's files are damaged, or the folder cannot be written.
    """
    folder = Path(folder)
    require(folder.is_dir(), f"{folder} is not a folder; give one of runs of blocks, as losskernel-layers leaves")
    order = known_order(folder)
    jobs = {path: path.name for path in sorted(find_runs(folder), key=lambda path: _sort_key(order, path.name))}
    questions = [coupled_groups, partial(shares, whole=order[0])]
    return compare_jobs("layers", folder, BLOCK, jobs, questions, metrics=metrics, alike=alike, tracker=tracker)


def known_order(folder: Path) -> list[str]:
    """Return the blocks' names in the order of the network, all weights first; only these if the order is unknown."""
    path = folder / JOBS
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else [WHOLE]


def _sort_key(order: Sequence[str], name: str) -> tuple[int, list[tuple[int, str]]]:
    parts = re.split(r"(\d+)", name)  # by number, so that layers.10 comes after layers.9
    natural = [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
    return (order.index(name) if name in order else len(order)), natural


def blocks_of(
    names: Sequence[str], choice: Any = "auto", whole: Sequence[str] | str | None = None
) -> dict[str, Sequence[str] | str | None]:
    """Return the blocks of weights to sample: name -> globs over the names of weights, the whole first.

    The first block, the whole, is called `whole` if it has all weights, else after its globs.

    Args:
        names: of the weights that move in the whole, such as layers.0.weight.
        choice: "auto" for the network's parts, which are its children with weights, or those of its only child; else a
            list of blocks, each a glob or a list of globs.
        whole: globs of the whole; None for all weights.

    Raises:
        InputError: a block is no list of globs, matches no weight, or has the name of another; or auto finds only one.
    """
    if choice == "auto":
        blocks: list[Any] = [[f"{part}.*" if part not in names else part] for part in parts(names)]
        remedy = "name the blocks by globs of weights"
        require(len(blocks) > 1, f"blocks=auto finds one part only, {parts(names)[0]}; {remedy}")
    else:
        example, listed = "e.g. blocks=[[layers.0.*],[layers.2.*]]", isinstance(choice, (list, tuple))
        require(listed, f"blocks must be auto or a list of blocks, got {choice!r}; {example}")
        blocks = [[block] if isinstance(block, str) else block for block in choice]
        require(len(blocks) > 0, "blocks=[] names none; give auto, or globs such as blocks=[[layers.0.*]]")
    named: dict[str, Sequence[str] | str | None] = {block_name(whole): whole}
    for globs in blocks:
        texts = isinstance(globs, (list, tuple)) and all(isinstance(glob, str) for glob in globs)
        require(texts, f"blocks: {globs!r} is not a list of globs over names of weights; e.g. [layers.0.*]")
        select(names, list(globs), key="blocks")
        name = block_name(globs)
        require(name not in named, f"blocks: two are called {name}; name their weights apart")
        named[name] = list(globs)
    return named


def block_name(globs: Any) -> str:
    """Return a block's name, which is also that of its folder: its globs without their endings; `whole` for None."""
    if globs is None:
        return WHOLE
    names = [globs] if isinstance(globs, str) else [str(glob) for glob in globs]
    return "+".join(re.sub(r"[^\w.\-]", "_", name.removesuffix("*").removesuffix(".") or "all") for name in names)


def parts(names: Sequence[str]) -> list[str]:
    """Return the outermost parts of a network that differ: its children, or those of its only child, and so on."""
    above = ""
    while True:
        children = list(dict.fromkeys(above + name[len(above) :].split(".")[0] for name in names))
        if len(children) > 1 or children[0] in names:
            return children
        above = f"{children[0]}."


@dataclass(frozen=True)
class GroupCoupling:
    """Means of a kernel's entries between groups of probes, without the diagonal.

    Attributes:
        groups: G names.
        means: [G, G] of the coupling R², or of |R| where there is one chain; NaN for a group of one probe with itself.
        within: mean over pairs of one group.
        across: mean over pairs of different groups.
        of: "coupling" or "abs_r".
    """

    groups: list[str]
    means: np.ndarray
    within: float
    across: float
    of: str


def group_coupling(kernel: LossKernel, label: str) -> GroupCoupling:
    """Return how strongly a kernel couples the groups of a label.

    Raises:
        InputError: there is no such label, or it has fewer than 2 or more than 100 values.
    """
    names, codes = np.unique(kernel.label(label), return_inverse=True)
    remedy = f"choose one of 2 to {MOST_GROUPS}, as in label=class"
    require(2 <= len(names) <= MOST_GROUPS, f"label={label} has {len(names)} distinct values; {remedy}")
    several = kernel.chains >= 2
    values = kernel.coupling() if several else np.abs(kernel.correlation())
    np.fill_diagonal(values, 0.0)
    members = np.eye(len(names))[codes]  # [N, G]
    sums, sizes = members.T @ values @ members, members.sum(axis=0)
    pairs = np.outer(sizes, sizes) - np.diag(sizes)
    means = np.divide(sums, pairs, out=np.full_like(sums, np.nan), where=pairs > 0)
    same = np.eye(len(names), dtype=bool)
    within = float(sums[same].sum() / pairs[same].sum()) if pairs[same].any() else float("nan")
    across = float(sums[~same].sum() / pairs[~same].sum())
    return GroupCoupling([str(name) for name in names], means, within, across, "coupling" if several else "abs_r")


def shared_neighbours(kernel: LossKernel, other: LossKernel, k: int) -> np.ndarray:
    """Return the share of each probe's k nearest probes, [N], that are among its k nearest under another kernel.

    Raises:
        InputError: the kernels have different probes, or k is not between 1 and N - 1.
    """
    require(np.array_equal(kernel.ids, other.ids), "the kernels have different probes; keep the data fixed")
    near, there = kernel.neighbors(k).indices, other.neighbors(k).indices
    return np.array([len(np.intersect1d(*pair)) / k for pair in zip(near, there, strict=True)])


def coupled_groups(comparison: Comparison, kernels: JobKernels) -> Finding:
    """Return the mean coupling of every two groups of the run's label, block by block."""
    if comparison.similarity is None:  # the kernels have different probes, or there is only one
        return Finding(Result())
    runs = [comparison.runs[number] for number in kernels]
    labels = [_label(run, kernel) for run, kernel in zip(runs, kernels.values(), strict=True)]
    try:
        coupled = [group_coupling(kernel, label) for kernel, label in zip(kernels.values(), labels, strict=True)]
    except InputError as error:
        return Finding(Result(), notes=(f"no coupling of groups: {error}",))
    means = np.stack([coupling.means for coupling in coupled])
    label, value = labels[0], "coupling R²" if coupled[0].of == "coupling" else "|R|"
    titles, verdicts = [_name(run) for run in runs], [run.verdict or "none" for run in runs]
    drawn = figures.group_couplings(means, coupled[0].groups, titles, verdicts, value, label)
    rows = [
        {"block": name, "group": group, "other": other, f"mean_{coupled[0].of}": matrix[i, j]}
        for name, matrix in zip(titles, means, strict=True)
        for (i, group), (j, other) in combinations_with_replacement(enumerate(coupled[0].groups), 2)
    ]
    caption = (
        f"Mean {value} between the probes of every two groups of {label}, with one block of weights moving and all "
        f"others held at w*; first with all of them moving. Rows and columns: {', '.join(coupled[0].groups[:12])}"
        f"{' ...' if len(coupled[0].groups) > 12 else ''}. One scale of colours, of a square root."
    )
    result = Result({}, {"coupled_groups": pd.DataFrame(rows)}, {"coupled_groups": drawn})
    return Finding(result, {"coupled_groups": caption})


def shares(comparison: Comparison, kernels: JobKernels, whole: str) -> Finding:
    """Return each block's share of the self-coupling, and its similarity to the kernel of the whole.

    Of a block called b: `share/b` is its mean self-coupling over the whole's, `cka/b` its CKA with the whole,
    `neighbours/b` the share of 10 nearest probes that it has in common with the whole. `share/sum` adds up the shares,
    which is 1 where blocks that partition the weights act on the losses one by one.
    """
    if comparison.similarity is None:
        return Finding(Result())
    base = next((number for number in kernels if _name(comparison.runs[number]) == whole), None)
    if base is None:
        return Finding(Result(), notes=(f"no shares: the kernel of the {whole} is not there",))
    k = min(_NEIGHBOURS, kernels[base].probes - 1)
    rows = [_block_row(comparison, kernels, number, base, k) for number in kernels]
    table = pd.DataFrame(rows)
    others = [row for row in rows if row["block"] != whole]
    metrics = {f"{key}/{row['block']}": float(row[key]) for row in others for key in ("share", "cka", "neighbours")}
    metrics["share/sum"] = float(sum(float(row["share"]) for row in others))
    chance = k / (kernels[base].probes - 1)
    drawn = figures.block_shares(_drawn(table, chance), "R²" if kernels[base].chains > 1 else "|R|")
    caption = (
        "One block of weights moving, all others held at w*. a: mean self-coupling K(z, z) over the whole's, and the "
        f"block's share of the weights; all shares add up to {metrics['share/sum']:.2f}. b: CKA between the kernels, "
        f"and the most that the noise of both allows. c: share of a probe's {k} nearest probes that are its nearest "
        "under the whole's kernel. d: mean coupling of probes of one group and of different groups. Bars: standard "
        "errors. Curvature within a block is never larger than in the whole, so that the whole's step size is safe."
    )
    return Finding(Result(metrics, {"blocks": table}, {"block_shares": drawn}), {"block_shares": caption})


def _block_row(comparison: Comparison, kernels: JobKernels, block: int, base: int, k: int) -> dict[str, float | str]:
    """Return a block's numbers beside those of the whole."""
    run, whole, similarity = comparison.runs[block], comparison.runs[base], comparison.similarity
    row: dict[str, float | str] = {"block": _name(run), "verdict": run.verdict or "none"}
    row["weights"] = run.metrics.get("trace/moving", np.nan)
    row |= _ratio(run, whole) if block != base else {"share": 1.0, "share_se": 0.0}
    row |= {"cka": np.nan, "cka_ceiling": np.nan}
    if similarity is not None and {block, base} <= set(similarity.members):
        pair = similarity.members.index(block), similarity.members.index(base)
        row["cka"] = float(np.cos(similarity.distances[pair]))
        row["cka_ceiling"] = float(np.cos(similarity.floor()[pair])) if block != base else np.nan
    shared = replicate_mean("neighbours", shared_neighbours(kernels[block], kernels[base], k))
    row |= {key: shared[key] for key in ("neighbours", "neighbours_se")}
    try:
        coupled = group_coupling(kernels[block], _label(run, kernels[block]))
    except InputError:  # no label that makes groups
        return row | {"within": np.nan, "across": np.nan}
    return row | {"within": coupled.within, "across": coupled.across}


def _drawn(table: pd.DataFrame, chance: float) -> figures.BlockShares:
    numbers = table.drop(columns=["block", "verdict"]).astype(float)
    numbers["weights"] /= numbers["weights"].max(skipna=False)
    fields = {"share": "self_coupling", "share_se": "self_coupling_se", "cka_ceiling": "ceiling"}
    columns: dict[str, Any] = {fields.get(str(name), str(name)): numbers[name].to_numpy() for name in numbers}
    return figures.BlockShares(table["block"].tolist(), table["verdict"].tolist(), chance=chance, **columns)


def _ratio(run: Run, whole: Run) -> dict[str, float | str]:
    """Return a block's mean self-coupling over the whole's, its error by the delta method."""
    block, base = (job.metrics["trace/self_coupling"] for job in (run, whole))
    errors = [job.metrics.get("trace/self_coupling_se", np.nan) for job in (run, whole)]
    share = block / base if base > 0 else np.nan
    relative = np.hypot(errors[0] / block, errors[1] / base) if block > 0 and base > 0 else np.nan
    return {"share": float(share), "share_se": float(share * relative)}


def _label(run: Run, kernel: LossKernel) -> str:
    name = run.config.get("label")
    return str(name) if name is not None else next(iter(kernel.labels), "")


def _name(run: Run) -> str:
    return str(run.config[BLOCK])
