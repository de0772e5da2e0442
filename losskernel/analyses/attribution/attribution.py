"""Which training samples made a query's loss what it is, and does retraining without them agree?"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.attribution import datamodelling_score as scoring
from losskernel.analyses.attribution.methods import Method, Roles, bayesian_influence, method_names, method_of
from losskernel.analyses.probe_sheets import captions, thumbnails
from losskernel.analyses.result import Result, check_settings
from losskernel.errors import require
from losskernel.figures.shared.presentation import minus
from losskernel.kernel import LossKernel
from losskernel.traces.loss_traces import LossTraces

_LARGEST_SHEET = 5  # helpful, and as many harmful
_ENDS = ("", "_se", "_low", "_high")
_OUTPUTS = {"loss": "minus the loss, retrained", "margin": "margin log p/(1 − p), retrained"}


class Influences(NamedTuple):
    """Bayesian influence of every training sample on every query, and the extreme ones."""

    values: np.ndarray  # [T, Q]
    errors: np.ndarray  # [T, Q], standard errors
    helpful: np.ndarray  # [Q, k] into the training samples, most helpful first; -1 where none is left
    harmful: np.ndarray  # [Q, k], most harmful first

    @classmethod
    def of(cls, kernel: LossKernel, roles: Roles, top: int) -> "Influences":
        """Read them off a kernel.

        Raises:
            InputError: there are too few draws for errors.
        """
        values = bayesian_influence(kernel, roles)  # [T, Q]
        errors = kernel.standard_error(roles.queries)[:, roles.train].T  # [T, Q]
        top = min(top, len(roles.train))
        return cls(values, errors, _lowest(-values, top), _lowest(values, top))

    def table(self, kernel: LossKernel, roles: Roles, label: str | None) -> pd.DataFrame:
        """Return a row per query and extreme training sample: ids, rank, direction, influence, its standard error."""
        groups = None if label is None else kernel.label(label)
        records: list[dict[str, Any]] = []
        for query, probe in enumerate(roles.queries):
            for direction, extreme in (("helpful", self.helpful[query]), ("harmful", self.harmful[query])):
                for rank, sample in enumerate(extreme[extreme >= 0], 1):
                    other = roles.train[sample]
                    record = {"query": kernel.ids[probe], "direction": direction, "rank": rank}
                    record["training_sample"] = kernel.ids[other]
                    if groups is not None:
                        record |= {f"query_{label}": groups[probe], str(label): groups[other]}
                    record |= {"influence": self.values[sample, query], "influence_se": self.errors[sample, query]}
                    records.append(record)
        return pd.DataFrame(records)


@dataclass(frozen=True)
class Attribution:
    """Bayesian influence of training samples on queries, from one joint trace, beside other ways to attribute.

    The trace's probes are queries and training samples (wrapper joint_probes). Influence is their covariance, positive
    where more of the training sample lowers the query's loss. Where the run was retrained on subsets (the baseline
    `retrained`), all methods get a linear datamodelling score, else only the tables and sheets are made.

    Attributes:
        methods: covariance, correlation, a baseline's name (dot products), that with _cosine, same_<label>, random;
            the first is the one that others are compared with; null: all that the run has rows for.
        truth: name of the baseline that retrained.
        label: of the probes, for same_<label> and captions; null has none.
        replicates: resamples for errors, and permutations for p-values.
        shown: queries on the sheet, those with the highest loss at the trained weights.
        top: helpful training samples of each query in tables and sheet, and as many harmful ones.
        seed: of resamples, permutations and the method random.
    """

    methods: Sequence[str] | None = None
    truth: str = "retrained"
    label: str | None = "class"
    replicates: int = 500
    shown: int = 6
    top: int = 4
    seed: int = 0

    headline: ClassVar[dict[str, str]] = {
        "lds_covariance": "retraining foretold (LDS), kernel",
        "lds_influence": "  by the influence function",
        "ceiling": "  at most",
    }
    meanings: ClassVar[dict[str, str]] = {
        "queries": "probes whose loss is attributed; a count",
        "training_samples": "probes that it is attributed to; a count",
        "subsets": "subsets of the training set that were retrained on; a count",
        "margin_lds_{method}": "linear datamodelling score of {method}, of the margin; -1 to 1",
        "lds_{method}": "linear datamodelling score of {method}: rank correlation with retrained losses; -1 to 1",
        "lead_over_{method}": "LDS of the first method less that of {method}; above 0 the first foretells better",
        "p_{method}": "one-sided p of {method}'s LDS, subsets permuted; 0 to 1",
        "repeatability_{method}": "how {method}'s predictions agree with those of another run of as many draws; 0 to 1",
        "reliability": "mean rank correlation of two retrainings on the same subsets; -1 to 1",
        "ceiling": "LDS of a method that knew the mean over endless retrainings; 0 to 1",
    }

    def __post_init__(self) -> None:
        listed = self.methods is None or (not isinstance(self.methods, str) and len(self.methods) > 0)
        require(listed, f"analysis.attribution.methods must be a list of names or null, got {self.methods!r}")
        check_settings(self, "attribution", ("truth",), {"replicates": 2, "shown": 1, "top": 1, "seed": 0})
        most = _LARGEST_SHEET
        require(self.top <= most, f"analysis.attribution.top must be <= {most} to be drawn, got {self.top}; lower it")

    def check(self, labels: Mapping[str, np.ndarray]) -> None:
        """Raise InputError where the probes are not queries and training samples."""
        Roles.of(labels.get("role", np.array([])))

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return scores, tables and figures."""
        roles = Roles.of(kernel.labels.get("role", np.array([])))
        retrained = tuple(f"{self.truth}_{key}" for key in ("losses", "margins", "members"))
        rows = {name: values for name, values in traces.baselines.items() if name not in retrained}
        names = list(self.methods or method_names(rows, self.label))

        def methods() -> Iterator[Method]:  # one at a time: a kernel's holds as many numbers as its trace
            return (method_of(name, kernel, rows, roles, self.label, self.seed) for name in names)

        influences = Influences.of(kernel, roles, self.top)
        words = captions(kernel)
        tables = {"influential": influences.table(kernel, roles, self.label)}
        tables["attribution_agreement"] = agreement(methods())
        sheet = _sheet(influences, roles, self._hardest(traces, roles), thumbnails(traces, squeeze=True), words)
        drawn: dict[str, Any] = {"influential": sheet}
        metrics = {"queries": float(len(roles.queries)), "training_samples": float(len(roles.train))}
        # Without retraining there is nothing to score the methods by: only tables and the sheet are made.
        truth = scoring.Retrainings.of(traces.baselines, self.truth, roles)
        if truth is None:
            return Result(metrics, tables, drawn)
        scores = scoring.score_methods(methods(), truth, replicates=self.replicates, seed=self.seed)
        tables["lds"] = score_table(scores, names)
        bounds = [scores.numbers[f"ceiling{end}"] for end in ("", "_low", "_high") if "ceiling" in scores.numbers]
        drawn["datamodelling"] = figures.datamodelling_scores(tables["lds"], bounds or None)
        drawn["predicted_retrained"] = _predicted_retrained(scores, names[0], [words[query] for query in roles.queries])
        # The margin's leads are in the table alone: they say nearly what those of the loss do.
        numbers = {name: value for name, value in scores.numbers.items() if not name.startswith("margin_lead")}
        numbers |= {f"p_{name}": scores.chance[f"lds_{name}"][2] for name in names}
        return Result(metrics | {"subsets": float(truth.members.shape[1])} | numbers, tables, drawn)

    def _hardest(self, traces: LossTraces, roles: Roles) -> np.ndarray:
        """Return which queries are shown, [S], hardest first: among the others influences hardly differ from 0."""
        start = traces.record("start_losses")
        losses = traces.losses.mean(("chain", "draw")).values if start is None else start
        return np.argsort(-losses[roles.queries], kind="stable")[: self.shown]


def agreement(methods: Iterable[Method]) -> pd.DataFrame:
    """Return a table of every two methods: the rank correlation of their influences on a query, mean over queries."""
    ranks = {method.name: scoring.unit_ranks(method.scores().T) for method in methods}  # [Q, T] each
    rows = [
        {"method": name} | {other: float((first * second).sum(-1).mean()) for other, second in ranks.items()}
        for name, first in ranks.items()
    ]
    return pd.DataFrame(rows)


def score_table(scores: scoring.MethodScores, methods: Sequence[str]) -> pd.DataFrame:
    """Return a row per output and method: score, error, 90 % interval, chance, p, and the first method's lead."""
    records = []
    for output in scores.actual:
        for method in methods:
            lds, lead = (scoring.score_name(output, f"{score}_{method}") for score in ("lds", "lead_over"))
            low, high, p = scores.chance[lds]
            record: dict[str, Any] = {"method": method, "output": output}
            record |= {f"lds{end}": scores.numbers[lds + end] for end in _ENDS}
            record |= {"p": p, "chance_low": low, "chance_high": high}
            record |= {f"lead{end}": scores.numbers.get(lead + end, np.nan) for end in _ENDS}
            records.append(record)
    return pd.DataFrame(records)


def _lowest(values: np.ndarray, top: int) -> np.ndarray:
    """Return the rows of the lowest values below 0 of each column, [Q, top]; -1 where there are no more."""
    order = np.argsort(values, axis=0, kind="stable")[:top].T  # [Q, top]
    return np.where(np.take_along_axis(values.T, order, axis=1) < 0, order, -1)


def _sheet(influences: Influences, roles: Roles, shown: np.ndarray, images: np.ndarray | None, words: list[str]) -> Any:
    samples = np.concatenate([influences.helpful, influences.harmful], axis=1)[shown]  # [S, 2 k]
    present, k = samples >= 0, influences.helpful.shape[1]
    probes = np.where(present, roles.train[samples], -1)  # [S, 2 k]
    values, errors = (
        np.where(present, np.take_along_axis(part[:, shown].T, np.maximum(samples, 0), axis=1), np.nan)
        for part in (influences.values, influences.errors)
    )
    queries = roles.queries[shown]  # [S]
    return figures.influential_sheet(queries, probes[:, :k], probes[:, k:], values, errors, images, words)


def _predicted_retrained(scores: scoring.MethodScores, method: str, words: list[str]) -> Any:
    """Draw one of the queries predicted best, a middle one, and one predicted worst."""
    output = list(scores.actual)[-1]
    values = scores.of_queries(method, output)  # [Q]
    order = np.argsort(-values, kind="stable")
    chosen = list(dict.fromkeys(int(order[round(share * (len(order) - 1))]) for share in (0.1, 0.5, 0.9)))
    titles = [minus(f"query {words[query]}\nrank correlation {values[query]:.2f}") for query in chosen]
    predicted, actual = ([part[row] for row in chosen] for part in (scores.predicted[method], scores.actual[output]))
    return figures.predicted_outcomes(predicted, actual, titles, _OUTPUTS[output])
