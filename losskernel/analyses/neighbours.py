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


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours under the kernel distance, with thumbnails where the probes are images.

    Attributes:
        probes: ids of chosen probes.
        random: how many further probes to pick at random.
        k: neighbours of each, at most 12.
        group: label that colours text cells; None for the first label.
        seed: fixes the random picks.
    """

    probes: Sequence[Any] = ()
    random: int = 6
    k: int = 8
    group: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self, "neighbours", least={"random": 0, "k": 1})
        require(self.k <= 12, f"analysis.neighbours.k must be <= 12 to be drawn, got {self.k}; lower it")
        count = self.random + len(self.probes)
        require(count > 0, "analysis.neighbours has no probes; raise analysis.neighbours.random")

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return the table of neighbours and their sheet."""
        rows_of = {identity: row for row, identity in enumerate(kernel.ids.tolist())}
        for identity in self.probes:
            require(identity in rows_of, f"analysis.neighbours.probes: no probe has the id {identity!r}")
        rng = np.random.default_rng(self.seed)
        picked = rng.permutation(kernel.probes)[: self.random]
        queries = np.array([*(rows_of[identity] for identity in self.probes), *np.sort(picked)], dtype=int)
        k = min(self.k, kernel.probes - 1)
        rows = kernel.correlation(queries)  # [Q, N]
        others = rows.copy()
        others[np.arange(len(queries)), queries] = -np.inf  # no probe is its own neighbour
        nearest = np.argsort(-others, axis=1, kind="stable")[:, :k]  # [Q, k]
        similarity = np.take_along_axis(rows, nearest, axis=1)  # [Q, k]
        groups = kernel.label(self.group) if self.group else next(iter(kernel.labels.values()), None)
        images = thumbnails(traces, squeeze=True)
        captions = short_captions(kernel, images is not None)
        sheet = figures.neighbour_sheet(queries, nearest, similarity, images, captions, groups)
        return Result({}, {"neighbours": _table(kernel, queries, nearest, similarity)}, {"neighbours": sheet})


def _table(kernel: LossKernel, queries: np.ndarray, nearest: np.ndarray, similarity: np.ndarray) -> pd.DataFrame:
    """Return a row per query and neighbour, with the labels of both."""
    k = nearest.shape[1]
    probes, others = np.repeat(queries, k), nearest.ravel()  # [Q k] each
    columns: dict[str, Any] = {"id": kernel.ids[probes], "rank": np.tile(np.arange(1, k + 1), len(queries))}
    columns |= {"neighbour": kernel.ids[others], "R": similarity.ravel()}
    for name, labels in kernel.labels.items():
        columns |= {name: labels[probes], f"neighbour_{name}": labels[others]}
    return pd.DataFrame(columns)
