"""What the experiments on repsim share: a row of the table, and random representations."""

from typing import NamedTuple

import numpy as np
import torch

try:
    import repsim
except ImportError as missing:
    raise SystemExit(f"{missing}: see experiments/repsim/README.md for how to get repsim 0.8.3") from None

RNG = np.random.default_rng(0)


class Row(NamedTuple):
    """One finding."""

    what: str
    given: str
    right: str
    because: str


def normal(*shape: int) -> torch.Tensor:
    """Independent standard normal numbers."""
    return torch.from_numpy(RNG.normal(size=shape))


def rotation(width: int) -> torch.Tensor:
    """A random orthogonal matrix."""
    return torch.linalg.qr(normal(width, width))[0]


def distance(space: repsim.RepresentationMetricSpace, x: torch.Tensor, y: torch.Tensor) -> float:
    """Distance of two representations."""
    return float(space.length(space.neural_data_to_point(x), space.neural_data_to_point(y)))
