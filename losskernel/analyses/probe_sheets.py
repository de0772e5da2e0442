"""What sheets, maps and pages show of the probes: pictures, captions, and a table of their labels."""

from typing import Any

import numpy as np
import pandas as pd

from losskernel.figures.shared.presentation import minus
from losskernel.kernel import LossKernel
from losskernel.traces.loss_traces import LossTraces

_LABELS = 3  # that a caption names at most


def thumbnails(traces: LossTraces, squeeze: bool = False) -> np.ndarray | None:
    """Return small pictures [N, h, w, 3 or 1] of the probes; None where they are no images.

    squeeze: grey pictures as [N, h, w], as matplotlib wants them.
    """
    if "thumbnails" not in traces.dataset:
        return None
    images = traces.dataset["thumbnails"].values
    return images[..., 0] if squeeze and images.shape[-1] == 1 else images


def probe_table(kernel: LossKernel, **columns: Any) -> pd.DataFrame:
    """Return a row per probe: its id, its labels, and more columns [N]."""
    return pd.DataFrame({"id": kernel.ids, **kernel.labels, **columns})


def map_table(table: pd.DataFrame, plane: np.ndarray, space: np.ndarray) -> pd.DataFrame:
    """Return a table of probes with their coordinates on a map [N, 2] and in space [N, 3]."""
    coordinates = np.hstack([plane, space])  # [N, 5]
    return table.assign(**dict(zip(("x", "y", "x3", "y3", "z3"), coordinates.T, strict=True)))


def short_captions(kernel: LossKernel, pictured: bool) -> list[str]:
    """Return one line per probe: its first label, and where no picture shows what it is, two more with their names."""
    if not kernel.labels:
        return [str(identity) for identity in kernel.ids]
    (_, first), *others = list(kernel.labels.items())[: 1 if pictured else _LABELS]
    rows = range(kernel.probes)
    return [" ".join([str(first[row]), *(f"{name}={_value(values[row])}" for name, values in others)]) for row in rows]


def captions(kernel: LossKernel) -> list[str]:
    """Return a few words per probe: its class and its id, or else up to three of its labels."""
    ids = [str(identity) for identity in kernel.ids]
    if "class" in kernel.labels:
        return [f"{name} (#{identity})" for name, identity in zip(kernel.label("class"), ids, strict=True)]
    known = [(name, values) for name, values in kernel.labels.items() if name != "role"][:_LABELS]
    words = (" ".join(_named(name, values[row]) for name, values in known).strip() for row in range(len(ids)))
    return [text or identity for text, identity in zip(words, ids, strict=True)]


def _value(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, (float, np.floating)) else str(value)


def _named(name: str, value: Any) -> str:
    """Return a label of text as it is, a number with its name, and nothing where it is unknown."""
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else minus(f"{name}={value:.2f}")
    return f"{name}={value}" if isinstance(value, (int, np.integer)) else str(value)
