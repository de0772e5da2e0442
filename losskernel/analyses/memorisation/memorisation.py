"""Which probes are memorised rather than understood? Scores of suspicion, what they detect, and a sheet of suspects."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses import kernel_scores
from losskernel.analyses.memorisation import detection
from losskernel.analyses.probe_sheets import thumbnails
from losskernel.analyses.result import MetricPanel, Result, check_settings
from losskernel.analyses.umap_layout import nearest_probes, umap_layout
from losskernel.data.images.image_files import encode
from losskernel.errors import require
from losskernel.figures.shared.presentation import minus, number
from losskernel.figures.shared.style import INK, OKABE_ITO
from losskernel.kernel import LossKernel, Neighbours, replicate_mean
from losskernel.traces.loss_traces import LossTraces

Columns = Mapping[str, np.ndarray]  # name -> [N]


class Opinion(NamedTuple):
    """What the kernel makes of each label, each [N].

    Attributes:
        likely: the label that fits: the rival where the label as given is disputed, opposition > 0, else as given.
        rival: the label that fits best if the one given is wrong.
        support: share of the opponents' -R that speaks for the rival.
        disputed: whether the label as given is.
    """

    likely: np.ndarray
    rival: np.ndarray
    support: np.ndarray
    disputed: np.ndarray


class Witnesses(NamedTuple):
    """Trusted probes of the likely class of each suspect, the most coupled first, and R with it.

    Attributes:
        probes: which, [n, w], -1 for none.
        correlations: [n, w]; below 0 where they speak against the label as given.
    """

    probes: np.ndarray
    correlations: np.ndarray


def opinion(given: np.ndarray, around: kernel_scores.Surroundings) -> Opinion:
    """Return the likely label of each probe, from its strongest opponents and its nearest trusted probes.

    A vote of nearest neighbours by R never names the true class of a mislabelled probe, for its neighbours are
    mislabelled like it, and its true class is at the other end: R < 0. So the opponents name the rival, and the
    label is disputed where they are more strongly against the probe than trusted probes are with it.
    """
    names, groups = np.unique(given, return_inverse=True)
    rival = groups if around.rival is None else around.rival
    support = np.zeros(len(given)) if around.support is None else around.support
    disputed = (around.opposition > 0) & (rival != groups)
    return Opinion(names[np.where(disputed, rival, groups)], names[rival], support, disputed)


def suspects(
    kernel: LossKernel, given: np.ndarray, opinions: Opinion, scores: Columns, rank_by: str, known: Columns
) -> pd.DataFrame:
    """Return a row per probe, the most suspicious first.

    Args:
        kernel: whose probes they are.
        given: labels as given, [N].
        opinions: what the kernel makes of them.
        scores: name -> [N].
        rank_by: one of them.
        known: what is known beside, such as the truth, name -> [N].
    """
    columns: dict[str, Any] = {"id": kernel.ids, "given": given, "likely": opinions.likely, **known}
    columns |= {"score": scores[rank_by], "disputed": opinions.disputed}
    columns |= {"rival": opinions.rival, "support": opinions.support}
    # A score may be named as a column is, such as a baseline called "support".
    taken = {*columns, "rank", "probe"}
    columns |= {f"{name}_score" if name in taken else name: values for name, values in scores.items()}
    order = np.argsort(-scores[rank_by], kind="stable")  # [N]
    table = pd.DataFrame(columns).iloc[order].reset_index(drop=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table.assign(probe=order)


def witnesses(
    kernel: LossKernel, given: np.ndarray, likely: np.ndarray, probes: np.ndarray, count: int = 3
) -> Witnesses:
    """Return trusted probes of each suspect's likely class with the largest |R|.

    Args:
        kernel: of all probes.
        given: labels as given, [N].
        likely: likely labels, [N].
        probes: the suspects, [n].
        count: witnesses of each.
    """
    groups = np.unique(given, return_inverse=True)[1]  # [N]
    rows = kernel.correlation(probes)  # [n, N]
    allowed = kernel_scores.trusted(kernel.variance(), groups) & (given == likely[probes][:, None])
    allowed[np.arange(len(probes)), probes] = False  # no suspect is its own witness
    strength = np.where(allowed, np.abs(rows), -1.0)  # below every |R|: chosen last, and told apart below
    best = np.argsort(-strength, axis=1, kind="stable")[:, : min(count, kernel.probes)]
    present = np.take_along_axis(strength, best, axis=1) >= 0
    return Witnesses(np.where(present, best, -1), np.where(present, np.take_along_axis(rows, best, axis=1), 0.0))


def suspects_page(
    table: pd.DataFrame,
    beside: Witnesses,
    ids: Sequence[object],
    pictures: Mapping[int, str],
    rank_by: str,
    truth: str | None = None,
) -> str:
    """Return the sheet of suspects for the screen: one file that loads nothing from a network.

    Args:
        table: the first rows of the table of suspects.
        beside: their witnesses.
        ids: names of all probes.
        pictures: probe -> data URI, of as many probes as have one.
        rank_by: the score that ranks.
        truth: column that holds the true labels, or None.
    """
    from jinja2 import Environment

    template = Environment(autoescape=True).from_string(_read("html"))
    rows = zip(table.to_dict(orient="records"), beside.probes, beside.correlations, strict=True)
    return template.render(
        cards=[_card(row, probes, correlations, ids, truth) for row, probes, correlations in rows],
        classes=sorted({str(name) for column in ("given", "likely") for name in table[column]}, key=_natural),
        pictures=pictures,
        rank_by=rank_by.replace("_", " "),
        style=_read("css"),
        script=_read("js"),
    )


def _read(kind: str) -> str:
    return (Path(__file__).parent / f"suspects_page.{kind}").read_text(encoding="utf-8")


def _card(
    row: Mapping[Any, Any], probes: np.ndarray, correlations: np.ndarray, ids: Sequence[object], truth: str | None
) -> dict[str, Any]:
    """Return what the page shows of one suspect, as text."""
    given, likely, true = str(row["given"]), str(row["likely"]), None if truth is None else str(row[truth])
    return {
        "rank": row["rank"],
        "name": str(row["id"]),
        "probe": int(row["probe"]),
        "given": given,
        "likely": likely,
        "disputed": given != likely,
        "classes": json.dumps([given, likely]),
        "rival": str(row["rival"]),
        "true": true,
        "verdict": "right" if true == given else "wrong",
        "score": number(float(row["score"])),
        "witnesses": [
            (int(probe), str(ids[probe]), minus(f"{value:.2f}"))
            for probe, value in zip(probes, correlations, strict=True)
            if probe >= 0
        ],
    }


def _natural(name: str) -> tuple[int, float, str]:
    """Return a key by which numbers come first, in the order of their values."""
    return (0, float(name), name) if name.lstrip("-").isdecimal() else (1, 0.0, name)


# Labels that wrappers of datasets plant.
_TRUE, _BACKDOORED, _TWIN = "true_class", "backdoored", "twin"
_ENDS = ("", "_se", "_low", "_high")
_MAP_NEIGHBOURS = 15
_ON_PAGE = 200
_ON_SHEET = 80


@dataclass(frozen=True)
class Memorisation:
    """Score every probe's suspicion, and hold the scores against the truth where it is known.

    Scores of the loss kernel (`kernel_scores`) are shown beside plain loss at the trained weights and
    every baseline of one column; all are higher for more suspicious probes. The likely label comes from the probe's
    strongest opponents: see `opinion`. Errors of a kernel score's AUROC, average
    precision and recall are over probes and draws, in quadrature.

    Attributes:
        label: names each probe's class as given.
        truth: label that says which probes are mislabelled; where there is none, nothing is held against it.
        rank_by: score by which suspects are ranked.
        shown: suspects on the printed sheet.
        neighbours: k: how many neighbours, opponents and friends of each probe count.
        replicates: bootstrap resamples of the probes, and permutations.
        limit: probes at most behind errors over draws; the matrices are N x N.
        seed: fixes resamples, permutations and the map.
    """

    label: str = "class"
    truth: str = "mislabelled"
    rank_by: str = "self_coupling"
    shown: int = 40
    neighbours: int = 10
    replicates: int = 200
    limit: int = 1000
    seed: int = 0

    controlled: ClassVar[bool] = True
    headline: ClassVar[dict[str, str]] = {
        "auroc_self_coupling": "mislabelled: AUROC, self-coupling",
        "auroc_opposition": "  of opposition",
        "auroc_loss": "  of plain loss",
        "clustering": "  mislabelled among their nearest",
        "clustering_chance": "  by chance",
        "likely_accuracy_mislabelled": "likely label right if mislabelled",
        "likely_accuracy_clean": "  if not",
        "twin_nearest": "twins nearest to their twin",
        "disputed": "labels disputed",
    }
    panel: ClassVar[tuple[MetricPanel, ...]] = (
        MetricPanel(
            "AUROC",
            (
                ("auroc_self_coupling", "K(z, z)", INK),
                ("auroc_opposition", "opposition", OKABE_ITO[0]),
                ("auroc_loss", "loss", OKABE_ITO[3]),
            ),
            bounds=(0.0, 1.0),
            one_network=True,
        ),
    )
    meanings: ClassVar[dict[str, str]] = {
        "probes": "probes; a count",
        "disputed": "probes whose label the kernel disputes (opposition above 0); a count",
        "backdoored_auroc_minus_loss_{score}": "AUROC of {score} for backdoored probes, less plain loss's; -1 to 1",
        "backdoored_auroc_minus_rival_{score}": "AUROC of {score} for backdoored probes, less the best rival's",
        "backdoored_auroc_{score}": "chance that {score} ranks a backdoored probe above a clean one; 0.5 by chance",
        "auroc_minus_loss_{score}": "AUROC of {score} for mislabelled probes, less plain loss's; -1 to 1",
        "auroc_minus_rival_{score}": "AUROC of {score} for mislabelled probes, less the best rival's; -1 to 1",
        "auroc_{score}": "chance that {score} ranks a mislabelled probe above another; 0 to 1, 0.5 by chance",
        "ap_{score}": "average precision of {score} for mislabelled probes; 0 to 1, by chance their share",
        "recall_{score}": "share of the m mislabelled probes among the m highest by {score}; by chance their share",
        "backdoored_clustering": "mean share of backdoored probes among a backdoored probe's nearest; 0 to 1",
        "clustering": "mean share of mislabelled probes among a mislabelled probe's nearest; 0 to 1",
        "{number}_chance": "{number} by chance: the share among all other probes; 0 to 1",
        "{number}_p": "one-sided p of {number}, marks permuted; 0 to 1",
        "likely_accuracy": "share of probes whose likely label is the true one; 0 to 1",
        "likely_accuracy_mislabelled": "share of mislabelled probes whose likely label is the true one; 0 to 1",
        "likely_accuracy_clean": "share of rightly labelled probes whose likely label is the true one; 0 to 1",
        "rival_accuracy_mislabelled": "share of mislabelled probes whose rival label is the true one; 0 to 1",
        "twin_nearest": "share of twins whose nearest probe is their twin; 0 to 1",
        "twin_rank": "mean rank of the twin among all other probes by R; 1 is nearest",
        "twin_pairs": "pairs of twins; a count",
    }

    def __post_init__(self) -> None:
        least = {"shown": 1, "neighbours": 1, "replicates": 2, "limit": 10, "seed": 0}
        check_settings(self, "memorisation", ("label", "truth", "rank_by"), least)
        require(
            self.shown <= _ON_SHEET,
            f"analysis.memorisation.shown must be <= {_ON_SHEET} to be drawn, got {self.shown}; the table holds all",
        )

    def check(self, labels: Mapping[str, np.ndarray]) -> None:
        """Raise InputError where the truth, or whether a probe is backdoored, is not true or false."""
        for name in (self.truth, _BACKDOORED):
            if name in labels:
                _truth(name, labels[name])

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return what the scores detect, tables of them and of all suspects, the figures, and the sheet as a page."""
        count = kernel.probes
        require(count >= 10, f"analysis.memorisation needs >= 10 probes, got {count}; drop the analysis")
        given = kernel.label(self.label)  # [N]
        around = kernel_scores.surroundings_of(kernel, kernel_scores.groups_of(kernel, given), self.neighbours)
        plain = {name: values.astype(float) for name, values in kernel_scores.plain_scores(traces).items()}
        scores = kernel_scores.scores_of(kernel_scores.losses_of(kernel, traces), around) | plain
        known = ", ".join(scores)
        require(self.rank_by in scores, f"analysis.memorisation.rank_by={self.rank_by}: choose one of {known}")
        opinions = opinion(given, around)
        near = nearest_probes(kernel, min(max(self.neighbours, _MAP_NEIGHBOURS), count - 1))  # for map and clustering
        marks = self._marks(kernel)  # empty where no truth is known: suspects are ranked all the same
        metrics = {"probes": float(count), "disputed": float(opinions.disputed.sum())}
        tables: dict[str, pd.DataFrame] = {}
        for name, marked in marks.items():
            prefix = "" if name == self.truth else f"{name}_"
            draws = detection.resampled_draws(traces, given, marked, self.neighbours, self.limit, self.seed)
            rows = detection.detection_rows(scores, marked, draws or detection.NO_DRAWS, self.replicates, self.seed)
            tables[f"memorisation_{prefix}detection"] = table = pd.DataFrame(rows)
            metrics |= _numbers(table, prefix, detection.NUMBERS if name == self.truth else ("auroc",))
            nearest = near.indices[:, : self.neighbours]  # [N, k]
            metrics |= detection.clustering(f"{prefix}clustering", nearest, marked, self.replicates, self.seed)
        metrics |= _likely_accuracy(opinions, kernel, marks.get(self.truth))
        if _TWIN in kernel.labels and (twins := detection.find_twins(kernel, kernel.labels[_TWIN])) is not None:
            metrics |= detection.twin_numbers(twins)
            tables["memorisation_twins"] = twins
        beside = {name: kernel.labels[name] for name in (_TRUE, self.truth, _BACKDOORED) if name in kernel.labels}
        ranked = suspects(kernel, given, opinions, scores, self.rank_by, beside)
        tables["memorisation_suspects"] = ranked
        marked, words = marks.get(self.truth), self.truth.replace("_", " ")
        notes = None
        if marked is not None:
            detected = tables["memorisation_detection"].to_dict(orient="records")
            notes = {row["score"]: f"{row['auroc']:.4f} ± {row['auroc_se']:.4f}" for row in detected}
        layout = umap_layout(kernel, Neighbours(*(part[:, :_MAP_NEIGHBOURS] for part in near)), 0.1, 2, self.seed)
        drawn = {
            "score_distributions": figures.score_distributions(scores, marked, notes, marked_name=words),
            "memorisation_map": figures.marked_map(layout, given, marked, f"{self.label} as given", words),
            "suspects_sheet": self._sheet(traces, ranked.head(self.shown)),
        }
        return Result(metrics, tables, drawn, {"suspects": self._page(kernel, traces, opinions, ranked)})

    def _marks(self, kernel: LossKernel) -> dict[str, np.ndarray]:
        """Return which probes are known to be wrong, name -> [N] bool, of marks that some probes have and some not."""
        names = (name for name in (self.truth, _BACKDOORED) if name in kernel.labels)
        marks = {name: _truth(name, kernel.labels[name]) for name in names}
        return {name: marked for name, marked in marks.items() if 0 < marked.sum() < kernel.probes}

    def _sheet(self, traces: LossTraces, first: pd.DataFrame) -> Any:
        images = thumbnails(traces)  # [N, h, w, channels]
        shown = [name for name in ("given", "likely", "id", "rival", _TRUE) if name in first]
        texts = {name: [str(value) for value in first[name]] for name in shown}
        return figures.suspects_sheet(
            texts["given"],
            texts["likely"],
            first["score"].to_numpy(),
            None if images is None else images[first["probe"].to_numpy()],
            texts["id"],
            texts["rival"],
            texts.get(_TRUE),
            self.rank_by,
        )

    def _page(self, kernel: LossKernel, traces: LossTraces, opinions: Opinion, table: pd.DataFrame) -> str:
        first = table.head(_ON_PAGE)  # a page of all probes' pictures would be too large
        beside = witnesses(kernel, kernel.label(self.label), opinions.likely, first["probe"].to_numpy())
        images, pictures = thumbnails(traces), {}
        if images is not None:
            used = np.unique(np.concatenate([first["probe"], beside.probes[beside.probes >= 0]]))
            pictures = dict(zip(used.tolist(), encode(images[used]), strict=True))
        truth = _TRUE if _TRUE in table else None
        return suspects_page(first, beside, kernel.ids.tolist(), pictures, self.rank_by, truth)


def _truth(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    binary = values.dtype.kind in "biuf" and set(np.unique(values).tolist()) <= {0, 1}
    got = values[:3].tolist()
    require(binary, f"the label {name!r} must be true or false of each probe, got {got}; choose another")
    return values.astype(bool)


def _numbers(table: pd.DataFrame, prefix: str, wanted: Sequence[str]) -> dict[str, float]:
    """Return some of the table's numbers as metrics, `auroc_score` and so on, and the differences of AUROC."""
    names = {number: number for number in wanted}
    names |= {f"minus_{other}": f"auroc_minus_{other}" for other in ("loss", "rival")}
    numbers: dict[str, float] = {}
    for row in table.to_dict(orient="records"):
        for column, name in names.items():
            values = {end: row.get(f"{column}{end}", np.nan) for end in _ENDS}
            numbers |= {f"{prefix}{name}_{row['score']}{end}": float(v) for end, v in values.items() if np.isfinite(v)}
    return numbers


def _likely_accuracy(opinions: Opinion, kernel: LossKernel, wrong: np.ndarray | None) -> dict[str, float]:
    """Return how often the likely label is the true one, and the rival of mislabelled probes."""
    if _TRUE not in kernel.labels:
        return {}
    true = kernel.labels[_TRUE]
    right = (opinions.likely == true).astype(float)  # [N]
    if wrong is None:
        return replicate_mean("likely_accuracy", right)
    numbers = replicate_mean("likely_accuracy_mislabelled", right[wrong])
    numbers |= replicate_mean("likely_accuracy_clean", right[~wrong])
    return numbers | replicate_mean("rival_accuracy_mislabelled", (opinions.rival == true)[wrong].astype(float))
