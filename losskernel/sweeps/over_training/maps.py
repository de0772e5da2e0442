"""The probes' maps along training: small multiples, an animation, and how well they are aligned."""

from itertools import pairwise

import numpy as np
import pandas as pd

from losskernel import figures
from losskernel.analyses.result import Result
from losskernel.sweeps.around import Finding, Look
from losskernel.sweeps.compare import Comparison
from losskernel.sweeps.over_training.kernel_path import STEP
from losskernel.sweeps.over_training.moving_maps import displacement, moving_maps

_FEWEST = 10


def maps_of(found: Comparison, looks: list[Look]) -> Finding:
    """Return the aligned maps of the kernels, coloured by the run's label.

    `maps/displacement` is the mean over probes and successive maps of how far a probe moves, in radii of the map, and
    `maps/neighbours_kept` the share of its 15 nearest probes under the kernel that are its nearest on the map;
    `..._apart` are the same of maps that are made one by one.
    """
    if found.similarity is None or looks[0].kernel.probes < _FEWEST:  # what cannot be compared shares no map
        return Finding(Result())
    kernels, runs = [each.kernel for each in looks], [found.runs[each.number] for each in looks]
    maps = moving_maps(kernels)
    moved, moved_apart = (
        float(np.mean([displacement(*pair) for pair in pairwise(layouts)])) for layouts in (maps.layouts, maps.apart)
    )
    metrics = {
        "maps/displacement": moved,
        "maps/displacement_apart": moved_apart,
        "maps/neighbours_kept": float(maps.kept.mean()),
        "maps/neighbours_kept_apart": float(maps.kept_apart.mean()),
    }
    name, labels = _colours(found, looks[0])
    steps = [int(run.config[STEP]) for run in runs]
    titles = [f"step {step:,}" for step in steps]
    losses = [
        f"loss {run.metrics['trace/start_loss']:.3g}" if "trace/start_loss" in run.metrics else "" for run in runs
    ]
    drawn = figures.aligned_maps(maps.layouts, labels, name, titles, [run.verdict or "none" for run in runs])
    moving = figures.moving_map(maps.layouts, labels, titles, losses, np.log1p(steps).tolist())
    table = pd.concat(
        [
            pd.DataFrame({"step": step, "id": kernels[0].ids, name: labels, "x": layout[:, 0], "y": layout[:, 1]})
            for step, layout in zip(steps, maps.layouts, strict=True)
        ]
    )
    how = (
        "UMAP of each kernel's distance sqrt(2 (1 - R)), started from the map of the mean kernel and turned onto the "
        f"map before: a probe moves by {moved:.2f} of the map's radius from one to the next, against {moved_apart:.2f} "
        f"on maps made one by one, and {metrics['maps/neighbours_kept']:.0%} of its 15 nearest probes are its nearest "
        f"on the map, against {metrics['maps/neighbours_kept_apart']:.0%}. Colours: {name}."
    )
    captions = {"aligned_maps": how, "moving_map": "The same maps, moving. Loss: the probes' mean at the checkpoint."}
    return Finding(Result(metrics, {"maps": table}, {"aligned_maps": drawn}, {}, {"moving_map": moving}), captions)


def _colours(found: Comparison, first: Look) -> tuple[str, np.ndarray]:
    """Return the label that colours the probes: the run's own, else the first, else their number."""
    labels = first.kernel.labels
    name = str(found.runs[first.number].config.get("label"))
    name = name if name in labels else next(iter(labels), "probe")
    return name, np.asarray(labels.get(name, np.arange(first.kernel.probes)))
