"""Does the map of the probes mirror a hierarchy of their classes? UMAP coloured by place in the hierarchy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.atlas.regions import find_regions
from losskernel.analyses.hierarchy.classes import Classes
from losskernel.analyses.result import Result
from losskernel.analyses.umap_layout import ALIKE, kept_neighbours, nearest_in, nearest_probes, umap_layout
from losskernel.data.images.thumbnails import encode
from losskernel.data.taxonomy import Tree
from losskernel.errors import require, require_integer, require_number
from losskernel.figures.trees.trees import leaves_below, main_branches
from losskernel.kernel.error_bars import replicate_mean
from losskernel.kernel.estimators import Neighbours
from losskernel.kernel.loss_kernel import LossKernel
from losskernel.traces.loss_traces import LossTraces

_MOST_BRANCHES = 18  # that an interactive page's legend lists


@dataclass(frozen=True)
class Atlas:
    """Maps in two and three dimensions on which near synsets have near hues; coherent regions, shown by thumbnails.

    Attributes:
        label: names each probe's class as the taxonomy does.
        taxonomy: "wordnet", or the path of a file that holds a tree.
        neighbours: UMAP's n_neighbors, and k of the metrics.
        min_distance: UMAP's min_dist.
        of: what makes probes neighbours: "correlation" R, under which classes that compete are far apart, or
            "coupling" R², under which they are near.
        animate: draw the map in space turning, as a GIF.
        seed: fixes the layout.

    Source: Adam, Furman & Hoogland 2025, arXiv 2509.26537 (the map of ImageNet).
    """

    label: str = "wnid"
    taxonomy: str = "wordnet"
    neighbours: int = 15
    min_distance: float = 0.1
    of: str = "correlation"
    animate: bool = True
    seed: int = 0

    meanings: ClassVar[dict[str, str]] = {
        "neighbours_kept": (
            "mean share of a probe's nearest under the kernel that are its nearest on the map too; 0 to 1"
        ),
        "label_purity": "mean share of a probe's nearest on the map that are of its class; 0 to 1",
        "label_purity_chance": "label_purity by chance, of random other probes; 0 to 1",
        "regions": "clusters on the map that hold one branch of the taxonomy; a count",
    }

    def __post_init__(self) -> None:
        for key in ("label", "taxonomy"):
            value = getattr(self, key)
            require(isinstance(value, str), f"analysis.atlas.{key} must be a name, got {value!r}")
        require_integer("analysis.atlas.neighbours", self.neighbours, at_least=2)
        require_number("analysis.atlas.min_distance", self.min_distance, at_least=0)
        require(self.min_distance <= 1, f"analysis.atlas.min_distance must be <= 1, got {self.min_distance}; lower it")
        require(self.of in ALIKE, f"analysis.atlas.of must be one of {', '.join(ALIKE)}, got {self.of!r}")
        require(isinstance(self.animate, bool), f"analysis.atlas.animate must be true or false, got {self.animate!r}")

    def check(self, labels: Mapping[str, np.ndarray]) -> None:
        """Raise InputError where the taxonomy does not know the probes' classes."""
        Classes.of(labels[self.label], self.taxonomy)

    def __call__(self, kernel: LossKernel, traces: LossTraces) -> Result:
        """Return coordinates as a table, the maps as figures, an interactive page and, if asked, an animation."""
        require(kernel.probes >= 10, f"analysis.atlas needs >= 10 probes, got {kernel.probes}; drop the analysis")
        classes = Classes.of(kernel.label(self.label), self.taxonomy)
        tree, leaf = classes.tree, classes.leaf
        k = min(self.neighbours, kernel.probes - 1)
        near = nearest_probes(kernel, k, self.of)
        plane, space = (umap_layout(kernel, near, self.min_distance, d, self.seed) for d in (2, 3))
        images = traces.dataset["thumbnails"].values if "thumbnails" in traces.dataset else None
        regions = find_regions(plane, tree, leaf)
        drawn = {
            "atlas": figures.taxonomy_map(plane, tree, leaf, images, regions),
            "atlas_3d": figures.taxonomy_orbit(space, tree, leaf),
        }
        names = {"branch": _branches(tree)[leaf], "class": np.array(tree.names[: tree.leaves])[leaf]}
        labels = names | {name: values for name, values in kernel.labels.items() if name != "class"}
        page = figures.interactive_map(plane, space, labels, None if images is None else encode(images))
        table = pd.DataFrame({"id": kernel.ids, **kernel.labels, "branch": names["branch"]})
        table["region"] = _region_numbers(regions, kernel.probes)
        table[["x", "y"]] = plane
        table[["x3", "y3", "z3"]] = space
        return Result(
            self._metrics(plane, near, leaf) | {"regions": float(len(regions))},
            {"atlas": table},
            drawn,
            {"atlas": figures.interactive_page(page)},
            {"orbit": figures.turning(space, tree, leaf)} if self.animate else {},
        )

    def _metrics(self, plane: np.ndarray, near: Neighbours, leaf: np.ndarray) -> dict[str, float]:
        """Return the share of nearest neighbours that the map keeps, and of neighbours on it of the same class.

        Errors are over probes. The chance of the latter is that of a random other probe.
        """
        purity = (leaf[nearest_in(plane, near.indices.shape[1])] == leaf[:, None]).mean(axis=1)
        sizes = np.bincount(leaf)
        chance = float((sizes[leaf] - 1).mean() / (len(leaf) - 1))
        kept = replicate_mean("neighbours_kept", kept_neighbours(plane, near))
        return kept | replicate_mean("label_purity", purity) | {"label_purity_chance": chance}


def _branches(tree: Tree) -> np.ndarray:
    """Return the name of each leaf's main branch, [G]; "other" for leaves below none of those."""
    names, below = np.full(tree.leaves, "other", dtype=object), leaves_below(tree)
    for node in main_branches(tree, _MOST_BRANCHES):
        names[below[node]] = tree.names[node]
    return names.astype(str)


def _region_numbers(regions: list[figures.Region], count: int) -> np.ndarray:
    """Return each probe's region number, [N], 0 for none."""
    numbers = np.zeros(count, dtype=int)
    for region in regions:
        numbers[region.members] = region.number
    return numbers
