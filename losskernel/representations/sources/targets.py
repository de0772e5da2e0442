"""What a network is to learn, as kernels over the probes: one label, or several, each alike or not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from losskernel.data.base import Data
from losskernel.errors import require
from losskernel.geometry import Point
from losskernel.representations.baselines.collect import History
from losskernel.representations.points import Placed


@dataclass(frozen=True)
class Targets:
    """The kernel of one-hot labels: 1 for two probes with the same value, 0 for others.

    Attributes:
        labels: names of probe labels; the first is the target that paths are measured against.
    """

    labels: Sequence[str]

    gives: ClassVar[frozenset[str]] = frozenset({"target"})

    def __post_init__(self) -> None:
        listed = not isinstance(self.labels, str) and len(self.labels) > 0
        require(listed, f"points.targets.labels must be a list of probe labels, got {self.labels!r}; write [class]")

    def check(self, data: Data) -> None:
        """Raise InputError if a label does not exist, or does not tell the probes apart."""
        for name in self.labels:
            choices = ", ".join(data.labels) or "none"
            require(name in data.labels, f"labels={name}: there is no such probe label; choose from {choices}")
            values = np.unique(np.asarray(data.labels[name]))
            require(
                1 < len(values) < len(data.labels[name]),
                f"labels={name}: it has {len(values)} values on {len(data.labels[name])} probes and makes no kernel; "
                "name one that some probes share and others do not",
            )

    def __call__(self, model: nn.Module, data: Data, history: History) -> Iterator[Placed]:
        """Yield a point per label, named after it."""
        self.check(data)
        for name in self.labels:
            _, number = np.unique(np.asarray(data.labels[name]), return_inverse=True)
            yield Placed(name, Point.from_features(np.eye(number.max() + 1)[number], data.ids), "target")
