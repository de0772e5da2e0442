"""Which probes does the network treat most alike? Nearest neighbours of chosen and of random probes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.probe_sheets import short_captions, thumbnails
from losskernel.analyses.result import Result, check_settings
from losskernel.errors import require
from losskernel.kernel import LossKernel
from losskernel.traces.loss_traces import LossTraces

# A row of the sheet: what it shows, and the symbol of its similarity.
_NEAREST, _LOWEST = ("nearest by R", "R"), ("lowest R", "R")


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours under the kernel distance, with thumbnails where the probes are images.

    Attributes:
        probes: ids of chosen probes.
        random: how many further probes to pick at random.
        misclassified: and how many at random that the network takes for another class, as the baseline "margin" says.
        k: neighbours of each, at most 12.
        opponents: whether to show the probes of the lowest R as well: those that move most against each, where R < 0.
        beside: baselines, of two columns or more, whose nearest neighbours are shown beneath, by the cosine of rows.
        group: label that colours text cells; None for the first label.
        seed: fixes the random picks.
    """

    probes: Sequence[Any] = ()
    random: int = 6
    misclassified: int = 0
    k: int = 8
    opponents: bool = False
    beside: Sequence[str] = ()
    group: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self, "neighbours", least={"random": 0, "misclassified": 0, "k": 1})
        require(self.k <= 12, f"analysis.neighbours.k must be <= 12 to be drawn, got {self.k}; lower it")
        count = self.random + self.misclassified + len(self.probes)
        require(count > 0, "analysis.neighbours has no probes; raise analysis.neighbours.random")
        shown = self.opponents
        require(isinstance(shown, bool), f"analysis.neighbours.opponents must be true or false, got {shown!r}")
        for key, names in (("probes", self.probes), ("beside", self.beside)):
            listed = isinstance(names, Sequence) and not isinstance(names, str)
            require(listed, f"analysis.neighbours.{key} must be a list, got {names!r}; e.g. [{names}]")
            once = len(set(names)) == len(names)
            require(once, f"analysis.neighbours.{key} names one twice: {list(names)}; name each once")

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return the table of neighbours and their sheet."""
        queries = self._queries(kernel, traces)
        k = min(self.k, kernel.probes - 1)
        correlations = kernel.correlation(queries)  # [Q, N]
        kinds = {_NEAREST: correlations}
        if self.opponents:
            kinds[_LOWEST] = -correlations
        for name in self.beside:
            features = _rows(traces, name)
            require(features.shape[1] > 1, f"analysis.neighbours.beside={name} is a score, no features; take it out")
            kinds[(name, "cos")] = LossKernel.from_features(features).correlation(queries)
        ranked = [_ranked(queries, rows, k) for rows in kinds.values()]  # per kind (others [Q, k], similarity [Q, k])
        # Row after row of the sheet: all kinds of the first query, then those of the next.
        others, similarity = (np.stack(parts, axis=1).reshape(-1, k) for parts in zip(*ranked, strict=True))
        names = list(kinds) * len(queries)
        signs = np.array([-1 if kind == _LOWEST else 1 for kind in names])
        rows, similarity = np.repeat(queries, len(kinds)), similarity * signs[:, None]
        groups = kernel.label(self.group) if self.group else next(iter(kernel.labels.values()), None)
        images = thumbnails(traces, squeeze=True)
        captions = short_captions(kernel, images is not None)
        shown = names if len(kinds) > 1 else ()
        sheet = figures.neighbour_sheet(rows, others, similarity, images, captions, groups, shown)
        table = _table(kernel, rows, others, similarity, [name for name, _ in names])
        return Result({}, {"neighbours": table}, {"neighbours": sheet})

    def _queries(self, kernel: LossKernel, traces: LossTraces) -> np.ndarray:
        """Return the rows of the queries: chosen ones, then random ones, then misclassified ones, none twice."""
        rows_of = {identity: row for row, identity in enumerate(kernel.ids.tolist())}
        for identity in self.probes:
            require(identity in rows_of, f"analysis.neighbours.probes: no probe has the id {identity!r}")
        rng = np.random.default_rng(self.seed)
        chosen = [rows_of[identity] for identity in self.probes]
        picked = [row for row in rng.permutation(kernel.probes).tolist() if row not in chosen]
        queries = chosen + sorted(picked[: self.random])
        if self.misclassified:
            margin = _rows(traces, "margin")[:, 0]  # as suspicion: above 0 where another class leads
            wrong = np.setdiff1d(np.flatnonzero(margin > 0), queries)
            queries += sorted(rng.permutation(wrong)[: self.misclassified])
            require(
                len(queries) > 0,
                f"analysis.neighbours.misclassified={self.misclassified}, but the network takes no probe for another "
                "class; raise analysis.neighbours.random",
            )
        return np.array(queries, dtype=int)

    @property
    def needed_baselines(self) -> list[str]:
        """Names of the baselines without which there is no answer."""
        return [*self.beside, *(["margin"] if self.misclassified else [])]


def _rows(traces: LossTraces, name: str) -> np.ndarray:
    """Return a baseline's rows [N, d]."""
    known = traces.baselines
    require(name in known, f"analysis.neighbours needs the baseline {name}; there are: {', '.join(known) or 'none'}")
    return known[name]


def _ranked(queries: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k most similar others of each query and their similarities, [Q, k] each, from rows [Q, N]."""
    others = rows.copy()
    others[np.arange(len(queries)), queries] = -np.inf  # no probe is its own neighbour
    nearest = np.argsort(-others, axis=1, kind="stable")[:, :k]
    return nearest, np.take_along_axis(rows, nearest, axis=1)


def _table(
    kernel: LossKernel, queries: np.ndarray, nearest: np.ndarray, similarity: np.ndarray, kinds: list[str]
) -> pd.DataFrame:
    """Return a row per row of the sheet and neighbour, with the labels of both; similarities are R or cosines."""
    k = nearest.shape[1]
    probes, others = np.repeat(queries, k), nearest.ravel()  # [Q k] each
    columns: dict[str, Any] = {"id": kernel.ids[probes], "by": np.repeat(kinds, k)}
    columns |= {"rank": np.tile(np.arange(1, k + 1), len(queries))}
    columns |= {"neighbour": kernel.ids[others], "similarity": similarity.ravel()}
    for name, labels in kernel.labels.items():
        columns |= {name: labels[probes], f"neighbour_{name}": labels[others]}
    return pd.DataFrame(columns)
