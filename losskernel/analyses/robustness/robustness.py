"""Do memorised or isolated probes flip first under input noise or a small adversarial step?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.kernel_scores import kernel_scores
from losskernel.analyses.probe_sheets import probe_table
from losskernel.analyses.result import Result
from losskernel.analyses.robustness.rank_association import STATISTICS, relations
from losskernel.errors import require, require_integer, require_number
from losskernel.kernel.error_bars import replicate_mean
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.traces.loss_traces import LossTraces


class Flips(NamedTuple):
    """What one kind of perturbation does to the probes.

    Attributes:
        levels: sizes of the perturbation, increasing, [L].
        shares: of the draws of each size that change the prediction, [N, L].
        radii: the size at which the wanted share of draws flips, [N].
        censored: probes of which no size flips so many, [N]; their radius is the largest size.
    """

    levels: np.ndarray
    shares: np.ndarray
    radii: np.ndarray
    censored: np.ndarray

    @classmethod
    def of(cls, levels: np.ndarray, shares: np.ndarray, share: float = 0.5) -> "Flips":
        """Read radii off the shares [N, L], which are 0 at size 0 and linear between sizes.

        Where the shares cross `share` more than once, the first crossing counts. Of flips that are all or nothing the
        radius is the middle between the last size that does not flip and the first that does.
        """
        sizes = np.concatenate([[0.0], levels])  # [L + 1]
        heights = np.column_stack([np.zeros(len(shares)), shares])  # [N, L + 1]
        reached = heights[:, 1:] >= share  # [N, L]
        censored = np.asarray(shares.max(axis=1) < share)
        # The first size that reaches the share, counted with size 0 in front.
        after = np.where(censored, len(levels), reached.argmax(axis=1) + 1)
        rows = np.arange(len(shares))
        low, high = heights[rows, after - 1], heights[rows, after]
        rise = np.where(censored, 1.0, high - low)  # above 0: the share is crossed here
        part = np.where(censored, 1.0, (share - low) / rise)
        radii = sizes[after - 1] + part * (sizes[after] - sizes[after - 1])
        return cls(levels, shares, radii, censored)

    def ordered(self) -> np.ndarray:
        """Return the radii [N] with infinity for censored probes: they flip after all others, in no known order."""
        return np.where(self.censored, np.inf, self.radii)


def read_flips(baselines: Mapping[str, np.ndarray], kinds: tuple[str, ...], share: float) -> dict[str, Flips]:
    """Return kind -> flips, of the kinds of perturbation that a run has measured.

    Raises:
        InputError: none was measured.
    """
    flips = {kind: Flips.of(*_rows(baselines, kind), share) for kind in kinds if f"{kind}_flips" in baselines}
    require(len(flips) > 0, "analysis.robustness: no flips were measured; run again with baselines=[perturbations]")
    return flips


def _rows(baselines: Mapping[str, np.ndarray], kind: str) -> tuple[np.ndarray, np.ndarray]:
    return baselines[f"{kind}_levels"][0].astype(float), baselines[f"{kind}_flips"].astype(float)


KINDS = ("noise", "adversarial")
_DRAWN = ("self_coupling", "isolation")
_STRETCHES = 10  # of one chain's draws, each left out in turn


@dataclass(frozen=True)
class Robustness:
    """Relate scores of the probes to the size of perturbation at which their predictions flip.

    A probe's flip radius is the size at which `share` of the draws change the network's prediction, linear between
    the measured sizes. A probe that no size flips is censored: it counts as flipping after all others, tied with its
    like, and its radius is printed as the largest size. Correlations are positive, and concordance is above one half,
    where probes with high scores flip FIRST. Partial correlations hold the ranks of plain scores fixed, so that they
    say what a score of the kernel adds. Errors are over probes and chains.

    Attributes:
        label: names each probe's given class; None leaves out the score that needs one.
        k: neighbours behind the isolation of a probe.
        share: of the draws that must flip.
        held: scores that the partial correlations hold fixed, where they are present: the loss at the trained weights,
            and baselines of one column.
        permutations: of the probes, for p-values.
        seed: fixes permutations and resamples.
    """

    label: str | None = "class"
    k: int = 10
    share: float = 0.5
    held: Sequence[str] = ("loss", "margin", "uncertainty")
    permutations: int = 999
    seed: int = 0

    headline: ClassVar[dict[str, str]] = {
        "adversarial_spearman_self_coupling": "self-coupling and flips (Spearman)",
        "adversarial_partial_self_coupling": "  loss and margins held fixed",
    }
    meanings: ClassVar[dict[str, str]] = {
        "probes": "probes; a count",
        "{kind}_censored": "share of the probes that no size of {kind} flips; 0 to 1",
        "{kind}_radius": "mean size of {kind} at which predictions flip, at most the largest size; its own unit",
        "{kind}_spearman_{score}_p": "two-sided p of {kind}_spearman_{score}, probes permuted; 0 to 1",
        "{kind}_partial_{score}_p": "two-sided p of {kind}_partial_{score}, probes permuted; 0 to 1",
        "{kind}_spearman_{score}": "rank correlation of {score} and flipping first under {kind}; -1 to 1",
        "{kind}_partial_{score}": (
            "rank correlation of {score} and flipping first under {kind}, plain scores held fixed; -1 to 1"
        ),
        "{kind}_concordance_{score}": "share of pairs where higher {score} flips first under {kind}; 0.5 by chance",
    }

    def __post_init__(self) -> None:
        named = self.label is None or isinstance(self.label, str)
        require(named, f"analysis.robustness.label must be a label's name or null, got {self.label!r}")
        require_number("analysis.robustness.share", self.share, above=0)
        require(
            self.share <= 1, f"analysis.robustness.share must be <= 1, got {self.share}; it is a share of the draws"
        )
        listed = not isinstance(self.held, str) and all(isinstance(name, str) for name in self.held)
        require(listed, f"analysis.robustness.held must be a list of scores' names, got {self.held!r}; e.g. [loss]")
        for key, least in (("k", 1), ("permutations", 1), ("seed", 0)):
            require_integer(f"analysis.robustness.{key}", getattr(self, key), at_least=least)

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return correlations, a table of them and one of the probes, and the curves of flips.

        Raises:
            InputError: no flips were measured, or there are fewer than ten probes.
        """
        flips = read_flips(traces.baselines, KINDS, self.share)
        require(kernel.probes >= 10, f"analysis.robustness needs >= 10 probes, got {kernel.probes}; drop the analysis")
        of_kernel = self._kernel_scores(kernel, traces)
        scores = of_kernel | _plain_scores(traces)
        left_out = [self._kernel_scores(LossKernel.from_traces(part), part) for part in _without_pieces(traces)]
        held = [name for name in self.held if name in scores]
        shown = {name: of_kernel[name] for name in _DRAWN}
        tables: dict[str, pd.DataFrame] = {}
        metrics: dict[str, float] = {"probes": float(kernel.probes)}
        for kind, measured in flips.items():
            tables[kind] = relations(scores, left_out, measured.ordered(), held, self.permutations, self.seed)
            metrics |= {f"{kind}_censored": float(measured.censored.mean())}
            metrics |= replicate_mean(f"{kind}_radius", measured.radii)
            metrics |= _metrics(kind, tables[kind], [*shown, *held])
        notes = {(name, kind): _note(tables[kind], name) for name in shown for kind in flips}
        wrong = kernel.labels.get("mislabelled")
        marked = None if wrong is None else np.asarray(wrong).astype(bool)
        curves = figures.flip_curves({kind: (f.levels, f.shares) for kind, f in flips.items()}, shown, notes, marked)
        together = pd.concat([table.assign(perturbation=kind) for kind, table in tables.items()], ignore_index=True)
        radii = {f"{kind}_radius": measured.radii for kind, measured in flips.items()}
        censored = {f"{kind}_censored": measured.censored for kind, measured in flips.items()}
        unlabelled = {name: values for name, values in scores.items() if name not in kernel.labels}
        probes = probe_table(kernel, **radii, **censored, **unlabelled)
        return Result(metrics, {"robustness": together, "robustness_probes": probes}, {"flips": curves})

    def _kernel_scores(self, kernel: LossKernel, traces: LossTraces) -> dict[str, np.ndarray]:
        given = None if self.label is None else kernel.label(self.label)
        return kernel_scores(kernel, traces, given, self.k)


def _plain_scores(traces: LossTraces) -> dict[str, np.ndarray]:
    """Return the loss at the trained weights, every baseline of one column, and whether the label is known wrong."""
    start = traces.record("start_losses")
    scores = {} if start is None else {"loss": start}
    scores |= {name: rows[:, 0] for name, rows in traces.baselines.items() if rows.shape[1] == 1}
    if "mislabelled" in traces.labels:
        scores["mislabelled"] = traces.labels["mislabelled"].astype(float)
    return scores


def _without_pieces(traces: LossTraces) -> list[LossTraces]:
    """Return the traces with each chain left out in turn, or of a single chain each of ten stretches of draws."""
    sizes = traces.losses.sizes
    if sizes["chain"] > 1:
        axis, pieces = "chain", np.arange(sizes["chain"])[:, None]  # independent of each other
    else:
        # Stretches longer than the correlation of draws are nearly so.
        axis, pieces = "draw", np.array_split(np.arange(sizes["draw"]), min(_STRETCHES, sizes["draw"] // 2))
    every = np.arange(sizes[axis])
    return [LossTraces(traces.dataset.isel({axis: np.setdiff1d(every, piece)})) for piece in pieces]


def _metrics(kind: str, table: pd.DataFrame, names: Sequence[str]) -> dict[str, float]:
    """Return the table's numbers for some scores, called `kind_statistic_score`."""
    numbers: dict[str, float] = {}
    for row in table.to_dict(orient="records"):
        for column, value in row.items():
            statistic, *ending = str(column).split("_")
            if row["score"] in names and statistic in STATISTICS and np.isfinite(value):
                numbers["_".join([kind, statistic, row["score"], *ending])] = float(value)
    return numbers


def _note(table: pd.DataFrame, name: str) -> str:
    """Return the text in a panel: correlations with standard errors."""
    row = table[table["score"] == name].iloc[0]
    lines = [f"ρ = {row['spearman']:.2f} ± {row['spearman_se']:.2f}"]
    if row["held"]:
        lines.append(f"{row['held']} fixed:\nρ = {row['partial']:.2f} ± {row['partial_se']:.2f}")
    return "\n".join(lines)
