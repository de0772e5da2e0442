"""Which probes does the network treat most alike? Nearest neighbours of chosen and of random probes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.result import Result
from losskernel.errors import require, require_integer
from losskernel.kernel.loss_kernel import LossKernel
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
        require_integer("analysis.neighbours.random", self.random, at_least=0)
        require_integer("analysis.neighbours.k", self.k, at_least=1)
        require(self.k <= 12, f"analysis.neighbours.k must be <= 12 to be drawn, got {self.k}; lower it")
        asked = self.random + len(self.probes)
        require(asked > 0, "analysis.neighbours has no probes; raise analysis.neighbours.random")

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return the table of neighbours and their sheet."""
        places = {identity: place for place, identity in enumerate(kernel.ids.tolist())}
        for identity in self.probes:
            require(identity in places, f"analysis.neighbours.probes: no probe has the id {identity!r}")
        rng = np.random.default_rng(self.seed)
        picked = rng.permutation(kernel.probes)[: self.random]
        queries = np.array([*(places[identity] for identity in self.probes), *np.sort(picked)], dtype=int)
        k = min(self.k, kernel.probes - 1)
        rows = kernel.correlation(queries)
        hidden = rows.copy()
        hidden[np.arange(len(queries)), queries] = -np.inf
        nearest = np.argsort(-hidden, axis=1, kind="stable")[:, :k]
        similarity = np.take_along_axis(rows, nearest, axis=1)
        groups = kernel.label(self.group) if self.group else next(iter(kernel.labels.values()), None)
        images = traces.dataset["thumbnails"].values if "thumbnails" in traces.dataset else None
        if images is not None and images.shape[-1] == 1:
            images = images[..., 0]
        captions = _captions(kernel, images is not None)
        sheet = figures.neighbour_sheet(queries, nearest, similarity, images, captions, groups)
        return Result({}, {"neighbours": _table(kernel, queries, nearest, similarity)}, {"neighbours": sheet})


def _captions(kernel: LossKernel, pictured: bool) -> list[str]:
    """Return one line per probe: its first label, and where no picture shows what it is, two more with their names."""
    if not kernel.labels:
        return [str(identity) for identity in kernel.ids]
    first, *others = list(kernel.labels.items())[: 1 if pictured else 3]

    def caption(probe: int) -> str:
        parts = [str(first[1][probe]), *(f"{name}={_short(values[probe])}" for name, values in others)]
        return " ".join(parts)

    return [caption(probe) for probe in range(kernel.probes)]


def _short(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, (float, np.floating)) else str(value)


def _table(kernel: LossKernel, queries: np.ndarray, nearest: np.ndarray, similarity: np.ndarray) -> pd.DataFrame:
    records = []
    for query, row, values in zip(queries, nearest, similarity, strict=True):
        for rank, (other, value) in enumerate(zip(row, values, strict=True), 1):
            record: dict[str, Any] = {"id": kernel.ids[query], "rank": rank, "neighbour": kernel.ids[other], "R": value}
            for name, labels in kernel.labels.items():
                record[name], record[f"neighbour_{name}"] = labels[query], labels[other]
            records.append(record)
    return pd.DataFrame(records)
