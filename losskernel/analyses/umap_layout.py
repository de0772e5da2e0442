"""Layouts of the probes in two or three dimensions: UMAP from exact nearest neighbours of the kernel."""

import functools
import warnings
from contextlib import suppress

import numpy as np

from losskernel.data.global_state import with_own_state
from losskernel.errors import require
from losskernel.kernel import LossKernel, Neighbours, nearest

ALIKE = ("correlation", "coupling")


def nearest_probes(kernel: LossKernel, k: int, of: str = "correlation") -> Neighbours:
    """Return the k nearest probes of each, exact, under d = sqrt(2 (1 - s)), with s the correlation or the coupling.

    Probes that compete have R < 0: far apart by the correlation, near by the coupling, which is R² without floor.

    Raises:
        InputError: `of` is neither, k is not between 1 and N - 1, or the coupling of one chain is asked for.
    """
    require(of in ALIKE, f"of must be one of {', '.join(ALIKE)}, got {of!r}")
    if of == "correlation":
        return kernel.neighbors(k)
    require(1 <= k < kernel.probes, f"k must lie between 1 and the {kernel.probes} probes less one, got {k}")
    rows = ((block, np.sqrt(np.maximum(2 * (1 - kernel.coupling(block)), 0.0))) for block in kernel.blocks())
    parts = [nearest(distance, np.arange(kernel.probes)[block], k) for block, distance in rows]
    return Neighbours(*(np.concatenate(part) for part in zip(*parts, strict=True)))


@with_own_state
def umap_layout(
    kernel: LossKernel, neighbours: Neighbours, min_distance: float, dimensions: int, seed: int
) -> np.ndarray:
    """Return coordinates [N, dimensions] in which near neighbours stay near; the same seed gives the same ones.

    neighbours: the n_neighbors nearest of every probe. min_distance: UMAP's min_dist.

    Source: McInnes, Healy & Melville 2018 (UMAP).
    """
    from umap import UMAP  # costs seconds to import

    _keep_compiled()

    # UMAP counts a point as its own first neighbour.
    itself = np.arange(kernel.probes)[:, None]  # [N, 1]
    indices = np.hstack([itself, neighbours.indices[:, :-1]])
    distances = np.hstack([np.zeros_like(itself, float), neighbours.distances[:, :-1]]).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of UMAP and numba: a fixed seed forbids threads, and the like
        model = UMAP(
            n_components=dimensions,
            n_neighbors=indices.shape[1],
            min_dist=min_distance,
            metric="euclidean",
            precomputed_knn=(indices, distances),
            random_state=seed,
        )
        return np.asarray(model.fit_transform(kernel.standardised().astype(np.float32)))


@functools.cache
def _keep_compiled() -> None:
    """Let numba keep what it compiles of UMAP: 7 s in every process otherwise."""
    from numba.core.dispatcher import Dispatcher
    from umap import layouts, umap_

    for function in (*vars(umap_).values(), *vars(layouts).values()):
        if isinstance(function, Dispatcher):
            with suppress(RuntimeError):  # no folder for it can be written
                function.enable_caching()


def kept_neighbours(layout: np.ndarray, neighbours: Neighbours) -> np.ndarray:
    """Return the share of each probe's nearest neighbours, [N], that are among as many nearest in the layout."""
    on_map = nearest_in(layout, neighbours.indices.shape[1])  # [N, k]
    pairs = zip(on_map, neighbours.indices, strict=True)
    return np.array([len(np.intersect1d(a, b)) / len(b) for a, b in pairs])


def nearest_in(layout: np.ndarray, k: int) -> np.ndarray:
    """Return the k nearest other points of each in a layout [N, d], as indices [N, k]."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k).fit(layout).kneighbors(return_distance=False)
