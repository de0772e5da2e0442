"""What each block of weights adds to the whole network's kernel, and which groups of probes it couples."""

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.result import Result
from losskernel.errors import InputError
from losskernel.kernel.error_bars import replicate_mean
from losskernel.sweeps.around import Finding, Look
from losskernel.sweeps.compare import Comparison
from losskernel.sweeps.over_blocks.group_coupling import GroupCoupling, group_coupling, shared_neighbours
from losskernel.sweeps.read_runs import Run

BLOCK = "block"
_NEIGHBOURS = 10


def coupled_groups(found: Comparison, looks: list[Look]) -> Finding:
    """Return the mean coupling of every two groups of the run's label, block by block."""
    if found.similarity is None:  # kernels over other probes, or of nothing
        return Finding(Result())
    try:
        coupled = [group_coupling(each.kernel, _label(found, each)) for each in looks]
    except InputError as error:
        return Finding(Result(), notes=(f"no coupling of groups: {error}",))
    runs = [found.runs[each.number] for each in looks]
    means = np.stack([each.means for each in coupled])
    label, value = _label(found, looks[0]), value_of(coupled)
    titles, verdicts = [_name(run) for run in runs], [run.verdict or "none" for run in runs]
    drawn = figures.group_couplings(means, coupled[0].groups, titles, verdicts, value, label)
    rows = [
        {"block": name, "group": own, "other": other, f"mean_{coupled[0].of}": matrix[i, j]}
        for name, matrix in zip(titles, means, strict=True)
        for i, own in enumerate(coupled[0].groups)
        for j, other in enumerate(coupled[0].groups[i:], i)
    ]
    caption = (
        f"Mean {value} between the probes of every two groups of {label}, with one block of weights moving and all "
        f"others held at w*; first with all of them moving. Rows and columns: {', '.join(coupled[0].groups[:12])}"
        f"{' ...' if len(coupled[0].groups) > 12 else ''}. One scale of colours, of a square root."
    )
    return Finding(
        Result({}, {"coupled_groups": pd.DataFrame(rows)}, {"coupled_groups": drawn}), {"coupled_groups": caption}
    )


def shares(found: Comparison, looks: list[Look], whole: str) -> Finding:
    """Return each block's share of the self-coupling and its likeness to the whole's kernel; none without the whole.

    Of a block called b: `share/b` is its mean self-coupling over the whole's, `cka/b` its CKA with the whole,
    `neighbours/b` the share of 10 nearest probes that it shares with the whole. `share/sum` adds up the shares, which
    is 1 where blocks that partition the weights act on the losses one by one.
    """
    runs = [found.runs[each.number] for each in looks]
    names = [_name(run) for run in runs]
    if found.similarity is None:
        return Finding(Result())
    if whole not in names:
        return Finding(Result(), notes=(f"no shares: the kernel of the {whole} is not there",))
    base, near = names.index(whole), found.similarity
    k = min(_NEIGHBOURS, looks[0].kernel.probes - 1)
    rows = []
    for each, run, name in zip(looks, runs, names, strict=True):
        row: dict[str, float | str] = {"block": name, "verdict": run.verdict or "none"}
        row["weights"] = run.metrics.get("trace/moving", np.nan)
        row |= _ratio(run, runs[base]) if name != whole else {"share": 1.0, "share_se": 0.0}
        row |= {"cka": np.nan, "cka_ceiling": np.nan}
        if each.number in near.members and looks[base].number in near.members:
            pair = near.members.index(each.number), near.members.index(looks[base].number)
            row["cka"] = float(np.cos(near.distances[pair]))
            row["cka_ceiling"] = float(np.cos(near.floor()[pair])) if name != whole else np.nan
        shared = replicate_mean("neighbours", shared_neighbours(each.kernel, looks[base].kernel, k))
        rows.append(row | {key: shared[key] for key in ("neighbours", "neighbours_se")} | _sides(found, each, run))
    table = pd.DataFrame(rows)
    others = [row for row in rows if row["block"] != whole]
    metrics = {f"{key}/{row['block']}": float(row[key]) for row in others for key in ("share", "cka", "neighbours")}
    metrics["share/sum"] = float(sum(float(row["share"]) for row in others))
    chance = k / (looks[0].kernel.probes - 1)
    drawn = figures.block_shares(_drawn(table, chance), "R²" if looks[0].kernel.chains > 1 else "|R|")
    caption = (
        "One block of weights moving, all others held at w*. a: mean self-coupling K(z, z) over the whole's, and the "
        f"block's share of the weights; all shares add up to {metrics['share/sum']:.2f}. b: CKA between the kernels, "
        f"and the most that the noise of both allows. c: share of a probe's {k} nearest probes that are its nearest "
        "under the whole's kernel. d: mean coupling of probes of one group and of different groups. Bars: standard "
        "errors. Curvature within a block is never larger than in the whole, so that the whole's step size is safe."
    )
    return Finding(Result(metrics, {"blocks": table}, {"block_shares": drawn}), {"block_shares": caption})


def value_of(coupled: list[GroupCoupling]) -> str:
    """Return what the means are of."""
    return "coupling R²" if coupled[0].of == "coupling" else "|R|"


def _drawn(table: pd.DataFrame, chance: float) -> figures.BlockShares:
    columns = {name: table[name].to_numpy(dtype=float) for name in table if name not in ("block", "verdict")}
    return figures.BlockShares(
        table["block"].tolist(),
        table["verdict"].tolist(),
        columns["weights"] / columns["weights"].max(),
        columns["share"],
        columns["share_se"],
        columns["cka"],
        columns["cka_ceiling"],
        columns["neighbours"],
        columns["neighbours_se"],
        chance,
        columns["within"],
        columns["across"],
    )


def _ratio(run: Run, whole: Run) -> dict[str, float | str]:
    """Return a block's mean self-coupling over the whole's, its error by the delta method."""
    own, base = (each.metrics["trace/self_coupling"] for each in (run, whole))
    errors = [each.metrics.get("trace/self_coupling_se", np.nan) for each in (run, whole)]
    share = own / base if base > 0 else np.nan
    relative = np.hypot(errors[0] / own, errors[1] / base) if own > 0 and base > 0 else np.nan
    return {"share": float(share), "share_se": float(share * relative)}


def _sides(found: Comparison, each: Look, run: Run) -> dict[str, float | str]:
    try:
        coupled = group_coupling(each.kernel, _label(found, each))
    except InputError:
        return {"within": np.nan, "across": np.nan}
    return {"within": coupled.within, "across": coupled.across}


def _label(found: Comparison, each: Look) -> str:
    name = found.runs[each.number].config.get("label")
    return str(name) if name is not None else next(iter(each.kernel.labels), "")


def _name(run: Run) -> str:
    return str(run.config[BLOCK])
