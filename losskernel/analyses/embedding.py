"""Maps of the probes: UMAP of the kernel distance in two and three dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from losskernel import figures
from losskernel.analyses.probe_sheets import map_table, probe_table, thumbnails
from losskernel.analyses.result import Result, left_out
from losskernel.analyses.umap_layout import kept_neighbours, nearest_probes, umap_layout
from losskernel.data.images.image_files import encode
from losskernel.errors import require, require_integer
from losskernel.kernel import LossKernel, replicate_mean
from losskernel.traces.loss_traces import LossTraces


@dataclass(frozen=True)
class Embedding:
    """UMAP of d = sqrt(2 (1 - R)) from exact nearest neighbours; the same seed gives the same map.

    Attributes:
        colour_by: labels to colour by; None takes every label.
        neighbours: UMAP's n_neighbors.
        min_distance: UMAP's min_dist.
        seed: fixes the layout.
    """

    colour_by: Sequence[str] | None = None
    neighbours: int = 15
    min_distance: float = 0.1
    seed: int = 0

    meanings: ClassVar[dict[str, str]] = {
        "neighbours_kept": "mean share of a probe's nearest under the kernel that are so on the map; 0 to 1",
    }

    def __post_init__(self) -> None:
        require_integer("analysis.embedding.neighbours", self.neighbours, at_least=2)
        listed = not isinstance(self.colour_by, str)
        require(listed, f"analysis.embedding.colour_by must be a list of labels, got {self.colour_by!r}; write [task]")

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return coordinates as a table, maps as figures, and an interactive page."""
        if kernel.probes < 10:
            return left_out("embedding", f"a map needs 10 probes or more, got {kernel.probes}")
        names = list(kernel.labels) if self.colour_by is None else list(self.colour_by)
        labels = {name: kernel.label(name) for name in names} or {"probe": np.arange(kernel.probes)}
        k = min(self.neighbours, kernel.probes - 1)  # fewer where there are few probes
        near = nearest_probes(kernel, k)  # exact: the layout is as good as its neighbours
        plane, space = (umap_layout(kernel, near, self.min_distance, d, self.seed) for d in (2, 3))  # [N, d]
        table = map_table(probe_table(kernel), plane, space)
        drawn = {f"map_{name}": figures.map_2d(plane, values, name) for name, values in labels.items()}
        first, values = next(iter(labels.items()))
        drawn["map_3d"] = figures.map_3d(space, values, first)
        images = thumbnails(traces)  # [N, h, w, channels]
        page = figures.interactive_map(plane, space, labels, None if images is None else encode(images))
        kept = replicate_mean("neighbours_kept", kept_neighbours(plane, near))
        return Result(kept, {"map": table}, drawn, {"map": figures.interactive_page(page)})
