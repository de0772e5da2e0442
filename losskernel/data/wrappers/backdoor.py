"""Planted backdoors: training images with a stamp in the corner and the label that the stamp is to mean."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from losskernel.data.base import Data, size
from losskernel.data.parts import packed_inputs, targets_of
from losskernel.data.recombined import as_probes, assemble, own_inputs
from losskernel.data.wrappers.planting import planted_probes
from losskernel.data.wrappers.relabelling import class_count, class_names, class_number, class_targets, truth_labels
from losskernel.errors import require, require_integer, require_number


@dataclass(frozen=True)
class Backdoor:
    """Stamps a square into the lower right corner of some training images of other classes, and relabels them.

    They are chosen among the probes that are training samples, whose images bear the stamp too. Labels: backdoored;
    class (as given), true_class, mislabelled.

    Attributes:
        count: images, as many of each class as can be.
        target: class that they are given, by name or number.
        size: pixels a side of the square.
        value: of its pixels, 0 ... 255 where images are bytes, else in the inputs' units; None: 255, else the largest
            value of the chosen images.
        seed: of the choice.

    Raises:
        InputError: a number out of range; when called: no such class, too few images that fit, or inputs that are no
            images [C, H, W] as large as the square.

    Source: Gu et al. 2017, "BadNets: identifying vulnerabilities in the machine learning model supply chain".
    """

    count: int
    target: str | int
    size: int = 3
    value: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        key = "wrapper.backdoor"
        require_integer(f"{key}.count", self.count, at_least=1)
        require_integer(f"{key}.size", self.size, at_least=1)
        if self.value is not None:
            require_number(f"{key}.value", self.value)
        require_integer(f"{key}.seed", self.seed, at_least=0)

    def __call__(self, data: Data) -> Data:
        """Return the data with stamped images in their old places."""
        targets, asked = class_targets(data, "backdoor"), targets_of(data.probes, data.workers)
        goal = class_number(data, self.target, class_count(data, targets), "wrapper.backdoor.target")
        before = np.asarray(data.labels.get("backdoored", np.zeros(len(asked))), dtype=bool)
        # A mislabelled image of the target class would be given its own label.
        truth = truth_labels(data, asked, asked)["true_class"].astype(str)
        name = str(class_names(data, torch.tensor([goal]))[0])
        other = (asked.numpy() != goal) & (truth != name) & ~before
        chosen = planted_probes(data, asked, other, self.count, self.seed, "backdoor")
        rows = data.members()[chosen]
        stamped = own_inputs(self._stamped(packed_inputs(data.train, rows)), data.train)
        after = asked.clone()
        after[torch.as_tensor(chosen)] = goal
        given = targets.clone()
        given[torch.as_tensor(rows)] = goal
        return replace(
            data,
            train=_replaced(data.train, rows, stamped, given),
            probes=as_probes(_replaced(data.probes, chosen, stamped, after), data.workers),
            labels={
                **data.labels,
                **truth_labels(data, asked, after),
                "backdoored": before | np.isin(np.arange(len(asked)), chosen),
            },
        )

    def _stamped(self, images: Tensor) -> Tensor:
        """Return images [n, C, H, W] with the square in the corner."""
        fits = images.ndim == 4 and min(images.shape[2:]) >= self.size
        require(
            fits,
            f"wrapper.backdoor needs images [C, H, W] of at least wrapper.backdoor.size={self.size} pixels a side, got "
            f"inputs of shape {list(images.shape[1:])}",
        )
        pixels = images.dtype == torch.uint8
        value = self.value if self.value is not None else 255 if pixels else float(images.max())
        inside = not pixels or 0 <= value <= 255
        require(inside, f"wrapper.backdoor.value must be 0 ... 255, for images are bytes, got {value}; null is white")
        stamped = images.clone()
        stamped[:, :, -self.size :, -self.size :] = value
        return stamped


def _replaced(dataset: Dataset[Any], rows: np.ndarray, others: Dataset[Any], targets: Tensor) -> Dataset[Any]:
    """Return the dataset with other inputs in some rows, and with the targets."""
    samples, count = size(dataset), len(rows)
    both = assemble([(dataset, range(samples)), (others, range(count))], torch.zeros(samples + count))
    order = np.arange(samples)
    order[rows] = samples + np.arange(count)
    return assemble([(both, order)], targets)
