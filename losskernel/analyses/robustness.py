"""Do memorised or isolated probes flip first under input noise or a small adversarial step?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from losskernel import figures
from losskernel.analyses.kernel_scores import kernel_scores, plain_scores
from losskernel.analyses.probe_sheets import probe_table
from losskernel.analyses.result import Result, check_settings
from losskernel.errors import require, require_number
from losskernel.kernel import LossKernel, interval, replicate_mean
from losskernel.traces.loss_traces import LossTraces

Scores = Mapping[str, np.ndarray]  # name -> [N]
STATISTICS = ("spearman", "partial", "concordance")
_REPLICATES = 100  # of the probes, for errors of rank correlations


def spearman(scores: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the rank correlation of each score with minus the radii, [S]; NaN for a score that is constant.

    Probes that never flipped share a rank.
    """
    return _unit(rankdata(scores, axis=0)).T @ _unit(-rankdata(radii)[:, None])[:, 0]


def partial_spearman(scores: np.ndarray, radii: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return the same with the ranks of other scores `held` [N, H] taken out of both, [S]; NaN if nothing is left."""
    basis = _basis(held)
    return _residuals(scores, basis).T @ _residuals(-radii[:, None], basis)[:, 0]


def concordance(scores: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of pairs with different radii in which the higher score flips first, and its error, [S] each.

    Equal scores count one half; two probes that never flipped are no pair. The error is over probes, by the
    infinitesimal jackknife. Without such pairs the share is one half and its error 0.

    Source: Harrell et al. 1982 (C index).
    """
    count, columns = scores.shape
    won, met = np.zeros((count, columns)), np.zeros(count)  # of each probe's pairs: won by the score, and all
    # In blocks of rows: all pairs at once would be an N x N matrix per score.
    for block in np.array_split(np.arange(count), max(1, count // 256)):
        first = radii[block, None] < radii  # [n, N]: the row's probe flips first
        met[block] += first.sum(axis=1)
        met += first.sum(axis=0)
        for column, score in enumerate(scores.T):
            difference = np.sign(score[block, None] - score)  # [n, N]
            wins = np.where(first, (1 + difference) / 2, 0.0)
            won[block, column] += wins.sum(axis=1)
            won[:, column] += wins.sum(axis=0)
    total = met.sum()  # every pair counts with both of its probes
    if total == 0:
        return np.full(columns, 0.5), np.zeros(columns)
    values = won.sum(axis=0) / total  # [S]
    # A probe's weight moves every pair that it has a part in.
    influence = 2 * (won - values * met[:, None]) / total
    return values, np.sqrt(np.square(influence).sum(axis=0))


def over_probes(
    scores: np.ndarray, radii: np.ndarray, held: np.ndarray, replicates: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the standard errors [S] of `spearman` and `partial_spearman`, by resampling probes."""
    rng = np.random.default_rng(seed)
    plain, partial = [], []
    for _ in range(replicates):
        drawn = rng.integers(len(radii), size=len(radii))  # probes, with replacement
        plain.append(spearman(scores[drawn], radii[drawn]))
        partial.append(partial_spearman(scores[drawn], radii[drawn], held[drawn]))
    return _spread(plain), _spread(partial)


def over_draws(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the jackknife error [S] of a statistic from its values with each piece of the chains left out."""
    pieces = len(values)
    return np.sqrt((pieces - 1) * np.var(values, axis=0))


def permutation_p(scores: np.ndarray, radii: np.ndarray, held: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Return two-sided p-values [S] of `partial_spearman` (with no held column: of `spearman`).

    What the held ranks leave of the radii is permuted over the probes; p = (1 + count) / (1 + permutations).

    Source: Kennedy 1995.
    """
    basis = _basis(held)
    score_rests, rest = _residuals(scores, basis), _residuals(-radii[:, None], basis)[:, 0]
    rng = np.random.default_rng(seed)
    observed = np.abs(score_rests.T @ rest) - 1e-12  # permutations that change nothing differ by rounding
    count = np.zeros(len(observed))
    for _ in range(permutations):
        count += np.abs(score_rests.T @ rng.permutation(rest)) >= observed
    return np.where(np.isnan(observed), np.nan, (1 + count) / (1 + permutations))


def _spread(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the standard deviation [S] over resamples, without those in which a score is constant."""
    known = np.ma.masked_invalid(np.stack(values))
    return np.ma.filled(known.std(axis=0, ddof=1), np.nan)


def _basis(held: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis [N, r] of the constant and the ranks of some scores [N, H]."""
    columns = np.column_stack([np.ones(len(held)), rankdata(held, axis=0)]) if held.size else np.ones((len(held), 1))
    left, values, _ = np.linalg.svd(columns / np.linalg.norm(columns, axis=0), full_matrices=False)
    return left[:, values > 1e-10 * values[0]]


def _residuals(values: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return what the basis leaves of the ranks of each column [N, S], of length one; NaN where it leaves nothing."""
    ranks = rankdata(values, axis=0)
    rest = ranks - basis @ (basis.T @ ranks)  # [N, S]
    rest[:, np.linalg.norm(rest, axis=0) < 1e-9 * np.linalg.norm(ranks, axis=0)] = 0.0
    return _unit(rest)


def _unit(values: np.ndarray) -> np.ndarray:
    """Return columns [N, S] without their means and of length one; constant ones are NaN."""
    centred = values - values.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    return centred / np.where(length > 0, length, np.nan)


def relations(
    scores: Scores, left_out: Sequence[Scores], radii: np.ndarray, held: Sequence[str], permutations: int, seed: int
) -> pd.DataFrame:
    """Return one row per score: Spearman, partial Spearman and concordance with errors, intervals and p-values.

    Errors join the scatter over probes and, for scores of the kernel, over its chains; intervals are of 90 %.

    Args:
        scores: name -> [N].
        left_out: the kernel's scores again, with each piece of its chains left out in turn.
        radii: sizes at which the probes flip, infinite for those that never did, [N].
        held: scores that the partial correlations hold fixed; of such a score itself, the others.
        permutations, seed: of the probes, for p-values; of these and of resamples.
    """
    rows: dict[str, dict[str, object]] = {}
    free = [name for name in scores if name not in held]
    # Scores of which the same others are held fixed are computed together.
    for group in filter(None, [free, *([name] for name in held)]):
        fixed = [name for name in held if name not in group]
        columns, others = _columns(group, scores), _columns(fixed, scores)  # [N, S], [N, H]
        without = [_statistics(_columns(group, {**scores, **part}), radii, others) for part in left_out]
        tests = {"spearman": others[:, :0], "partial": others}  # and what they hold fixed
        p_values = {name: permutation_p(columns, radii, part, permutations, seed) for name, part in tests.items()}
        values, resampled = _statistics(columns, radii, others), over_probes(columns, radii, others, _REPLICATES, seed)
        errors = dict(zip(STATISTICS, (*resampled, concordance(columns, radii)[1]), strict=True))
        for index, name in enumerate(group):
            rows[name] = {"score": name, "held": ", ".join(fixed)}
            for statistic in STATISTICS:
                drawn = over_draws([part[statistic] for part in without])[index] if len(without) > 1 else 0.0
                both = _joined(errors[statistic][index], len(radii) - 1, drawn, len(without) - 1)
                rows[name] |= interval(statistic, float(values[statistic][index]), *both)
                if statistic in p_values:
                    rows[name][f"{statistic}_p"] = float(p_values[statistic][index])
    return pd.DataFrame([rows[name] for name in scores])


def _statistics(scores: np.ndarray, radii: np.ndarray, held: np.ndarray) -> dict[str, np.ndarray]:
    values = spearman(scores, radii), partial_spearman(scores, radii, held), concordance(scores, radii)[0]
    return dict(zip(STATISTICS, values, strict=True))


def _columns(names: Sequence[str], scores: Scores) -> np.ndarray:
    """Return some scores as columns [N, S]."""
    columns = [scores[name] for name in names]
    return np.stack(columns, axis=1) if columns else np.empty((len(next(iter(scores.values()))), 0))


def _joined(first: float, freedom: float, second: float, other: float) -> tuple[float, float]:
    """Return the error of two independent sources together, and its degrees of freedom (Welch 1947)."""
    total = first**2 + second**2
    if total == 0:
        return 0.0, freedom
    share = second**2 / total
    return float(np.sqrt(total)), 1 / ((1 - share) ** 2 / freedom + (share**2 / other if share > 0 else 0.0))


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
    flips: dict[str, Flips] = {}
    for kind in kinds:
        if f"{kind}_flips" in baselines:
            levels, shares = baselines[f"{kind}_levels"][0], baselines[f"{kind}_flips"]
            flips[kind] = Flips.of(levels.astype(float), shares.astype(float), share)
    require(len(flips) > 0, "analysis.robustness: no flips were measured; run again with baselines=[perturbations]")
    return flips


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
        check_settings(self, "robustness", least={"k": 1, "permutations": 1, "seed": 0})

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return correlations, a table of them and one of the probes, and the curves of flips.

        Raises:
            InputError: no flips were measured, or there are fewer than ten probes.
        """
        flips = read_flips(traces.baselines, KINDS, self.share)
        require(kernel.probes >= 10, f"analysis.robustness needs >= 10 probes, got {kernel.probes}; drop the analysis")
        of_kernel = self._kernel_scores(kernel, traces)
        scores = of_kernel | plain_scores(traces)
        wrong = kernel.labels.get("mislabelled")  # whether the label is known to be
        if wrong is not None:
            scores["mislabelled"] = np.asarray(wrong).astype(float)
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
