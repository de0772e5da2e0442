"""Which training samples made a query's loss what it is, and does retraining without them agree?"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.attribution.datamodelling_score import Judged, Retrainings, judge, named, unit_ranks
from losskernel.analyses.attribution.methods import Joint, Method, bayesian_influence, method_names, method_of
from losskernel.analyses.result import Result
from losskernel.errors import require, require_integer
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.traces.loss_traces import LossTraces


class Influences(NamedTuple):
    """Bayesian influence of every training sample on every query, and the extreme ones."""

    values: np.ndarray  # [T, Q]
    errors: np.ndarray  # [T, Q], standard errors
    helpful: np.ndarray  # [Q, k] into the training samples, most helpful first; -1 where none is left
    harmful: np.ndarray  # [Q, k], most harmful first

    @classmethod
    def of(cls, kernel: LossKernel, joint: Joint, top: int) -> "Influences":
        """Read them off a kernel.

        Raises:
            InputError: there are too few draws for errors.
        """
        values = bayesian_influence(kernel, joint)
        errors = kernel.standard_error(joint.queries)[:, joint.train].T
        top = min(top, len(joint.train))
        return cls(values, errors, _extreme(-values, top), _extreme(values, top))


def _extreme(values: np.ndarray, top: int) -> np.ndarray:
    """Return the places of the lowest values below 0 of each column, [Q, top]; -1 where there are no more."""
    order = np.argsort(values, axis=0, kind="stable")[:top].T
    return np.where(np.take_along_axis(values.T, order, axis=1) < 0, order, -1)


def agreement(methods: Iterable[Method]) -> pd.DataFrame:
    """Return a table of every two methods: the rank correlation of their influences on a query, mean over queries."""
    ranks = {method.name: unit_ranks(method.scores().T) for method in methods}  # [Q, T] each
    rows = [{name: float((own * other).sum(-1).mean()) for name, other in ranks.items()} for own in ranks.values()]
    return pd.DataFrame([{"method": name} | row for name, row in zip(ranks, rows, strict=True)])


_LARGEST_SHEET = 5  # helpful, and as many harmful


@dataclass(frozen=True)
class Attribution:
    """Bayesian influence of training samples on queries, from one joint trace, beside other ways to attribute.

    The trace's probes are queries and training samples (wrapper joint_probes). Influence is their covariance, positive
    where more of the training sample lowers the query's loss. Where the run was retrained on subsets (the baseline
    `retrained`), all methods are judged by the linear datamodelling score, else only the tables and sheets are made.

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
        "margin_lds_{method}": (
            "the linear datamodelling score of {method}, of the margin in place of the loss; -1 to 1"
        ),
        "lds_{method}": (
            "linear datamodelling score of {method}: mean over queries of the rank correlation over subsets "
            "of summed influences and minus the loss; -1 to 1"
        ),
        "lead_over_{method}": "LDS of the first method less that of {method}; above 0 the first foretells better",
        "p_{method}": "one-sided p of {method}'s LDS, subsets permuted; 0 to 1",
        "repeatability_{method}": "how {method}'s predictions agree with those of another run of as many draws; 0 to 1",
        "reliability": "mean rank correlation of two retrainings on the same subsets; -1 to 1",
        "ceiling": "LDS of a method that knew the mean over endless retrainings; 0 to 1",
    }

    def __post_init__(self) -> None:
        listed = self.methods is None or (not isinstance(self.methods, str) and len(self.methods) > 0)
        require(listed, f"analysis.attribution.methods must be a list of names or null, got {self.methods!r}")
        require(isinstance(self.truth, str), f"analysis.attribution.truth must be a name, got {self.truth!r}")
        for key, least in (("replicates", 2), ("shown", 1), ("top", 1), ("seed", 0)):
            require_integer(f"analysis.attribution.{key}", getattr(self, key), at_least=least)
        most = _LARGEST_SHEET
        require(self.top <= most, f"analysis.attribution.top must be <= {most} to be drawn, got {self.top}; lower it")

    def check(self, labels: Mapping[str, np.ndarray]) -> None:
        """Raise InputError where the probes are not queries and training samples."""
        Joint.of(labels.get("role", np.array([])))

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return scores, tables and figures."""
        joint = Joint.of(kernel.labels.get("role", np.array([])))
        own = tuple(f"{self.truth}_{key}" for key in ("losses", "margins", "members"))
        rows = {name: each for name, each in traces.baselines.items() if name not in own}
        names = list(self.methods or method_names(rows, self.label))

        def methods() -> Iterator[Method]:  # one at a time: a kernel's holds as many numbers as its trace
            return (method_of(name, kernel, rows, joint, self.label, self.seed) for name in names)

        influences = Influences.of(kernel, joint, self.top)
        hardest = self._hardest(traces, joint)
        captions, images = _captions(kernel), _images(traces)
        found = {
            "influential": influential_table(influences, kernel, joint, self.label),
            "attribution_agreement": agreement(methods()),
        }
        pictures: dict[str, Any] = {"influential": _sheet(influences, joint, hardest, images, captions)}
        metrics = {"queries": float(len(joint.queries)), "training_samples": float(len(joint.train))}
        truth = Retrainings.of(traces.baselines, self.truth, joint)
        if truth is None:
            return Result(metrics, found, pictures)
        judged = judge(methods(), truth, replicates=self.replicates, seed=self.seed)
        found["lds"] = score_table(judged, names)
        bounds = [judged.numbers[f"ceiling{end}"] for end in ("", "_low", "_high") if "ceiling" in judged.numbers]
        pictures["datamodelling"] = figures.datamodelling_scores(found["lds"], bounds or None)
        pictures["predicted_retrained"] = _against(judged, names[0], [captions[query] for query in joint.queries])
        numbers = {name: value for name, value in judged.numbers.items() if not name.startswith("margin_lead")}
        numbers |= {f"p_{name}": judged.chance[f"lds_{name}"][2] for name in names}
        return Result(metrics | {"subsets": float(truth.members.shape[1])} | numbers, found, pictures)

    def _hardest(self, traces: LossTraces, joint: Joint) -> np.ndarray:
        """Return which queries are shown, [S], hardest first: among the others influences hardly differ from 0."""
        start = traces.record("start_losses")
        losses = traces.losses.mean(("chain", "draw")).values if start is None else start
        return np.argsort(-losses[joint.queries], kind="stable")[: self.shown]


def _sheet(
    influences: Influences, joint: Joint, hardest: np.ndarray, images: np.ndarray | None, captions: list[str]
) -> Any:
    places = np.concatenate([influences.helpful, influences.harmful], axis=1)[hardest]  # [S, 2 k]
    probes = np.where(places >= 0, joint.train[places], -1)
    k = influences.helpful.shape[1]
    values, errors = (
        np.where(places >= 0, np.take_along_axis(each[:, hardest].T, np.maximum(places, 0), axis=1), np.nan)
        for each in (influences.values, influences.errors)
    )
    queries = joint.queries[hardest]
    return figures.influential_sheet(queries, probes[:, :k], probes[:, k:], values, errors, images, captions)


def _against(judged: Judged, method: str, captions: list[str]) -> Any:
    """Draw one of the queries foretold best, a middle one, and one foretold worst."""
    output = list(judged.actual)[-1]
    values = judged.of_queries(method, output)
    order = np.argsort(-values, kind="stable")
    picked = list(dict.fromkeys(int(order[round(share * (len(order) - 1))]) for share in (0.1, 0.5, 0.9)))
    titles = [f"query {captions[query]}\nrank correlation {values[query]:.2f}".replace("-", "−") for query in picked]
    predicted = [judged.predicted[method][query] for query in picked]
    name = {"loss": "minus the loss, retrained", "margin": "margin log p/(1 − p), retrained"}
    return figures.predicted_outcomes(predicted, [judged.actual[output][each] for each in picked], titles, name[output])


def _images(traces: LossTraces) -> np.ndarray | None:
    images = traces.dataset["thumbnails"].values if "thumbnails" in traces.dataset else None
    return images[..., 0] if images is not None and images.shape[-1] == 1 else images


def _captions(kernel: LossKernel) -> list[str]:
    """Return a few words per probe: its class and its id, or what else is known of it."""
    ids = [str(identity) for identity in kernel.ids]
    if "class" in kernel.labels:
        return [f"{name} (#{identity})" for name, identity in zip(kernel.label("class"), ids, strict=True)]
    known = {name: values for name, values in kernel.labels.items() if name != "role"}
    told = [
        " ".join(_short(name, values[probe]) for name, values in list(known.items())[:3]) for probe in range(len(ids))
    ]
    return [words.strip() or identity for words, identity in zip(told, ids, strict=True)]


def _short(name: str, value: Any) -> str:
    """Return a label of text as it is, a number with its name, and nothing where it is unknown."""
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{name}={value:.2f}".replace("-", "−")
    return f"{name}={value}" if isinstance(value, (int, np.integer)) else str(value)


def score_table(judged: Judged, methods: Sequence[str]) -> pd.DataFrame:
    """Return a row per output and method: score, error, 90 % interval, chance, p, and the first method's lead."""
    records = []
    for output in judged.actual:
        for method in methods:
            own, lead = named(output, f"lds_{method}"), named(output, f"lead_over_{method}")
            low, high, p = judged.chance[own]
            record: dict[str, Any] = {"method": method, "output": output}
            record |= {f"lds{end}": judged.numbers[own + end] for end in ("", "_se", "_low", "_high")}
            record |= {"p": p, "chance_low": low, "chance_high": high}
            record |= {f"lead{end}": judged.numbers.get(lead + end, np.nan) for end in ("", "_se", "_low", "_high")}
            records.append(record)
    return pd.DataFrame(records)


def influential_table(influences: Influences, kernel: LossKernel, joint: Joint, label: str | None) -> pd.DataFrame:
    """Return a row per query and extreme training sample: ids, rank, direction, influence and its standard error."""
    groups = None if label is None else kernel.label(label)
    records = []
    for direction, places in (("helpful", influences.helpful), ("harmful", influences.harmful)):
        for (query, rank), place in np.ndenumerate(places):
            if place < 0:
                continue
            probe, asked = joint.train[place], joint.queries[query]
            record: dict[str, Any] = {"query": kernel.ids[asked], "direction": direction, "rank": rank + 1}
            record["training_sample"] = kernel.ids[probe]
            if label is not None and groups is not None:
                record |= {f"query_{label}": groups[asked], label: groups[probe]}
            record |= {"influence": influences.values[place, query], "influence_se": influences.errors[place, query]}
            records.append((query, record))
    return pd.DataFrame([record for _, record in sorted(records, key=lambda each: each[0])])
