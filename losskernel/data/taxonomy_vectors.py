"""Vectors drawn along a regular tree, the simplest data with a hierarchy: every node on the way adds a pattern."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from losskernel.data.base import Data
from losskernel.errors import require, require_integer, require_number
from losskernel.losses import cross_entropy


def taxonomy_vectors(
    branching: Sequence[int] = (2, 2, 2, 2),
    width: int = 64,
    per_class: int = 40,
    probes_per_class: int = 8,
    decay: float = 0.8,
    noise: float = 1.0,
    seed: int = 0,
) -> Data:
    """Vectors [width] whose likeness follows a tree, with cross-entropy; labels: class, level_1, level_2, ...

    A class is the sum over the nodes on the way from the root (left out) to its leaf of decay^(level - 1) times the
    node's own random pattern, of mean length 1. More samples share a coarse pattern, and it is stronger: what sets
    apart coarse groups is the larger singular value of the data, which is learnt first. The probes are new samples.

    Args:
        branching: children of each node, level by level from the root; the last level's are the classes.
        width: numbers in a sample.
        per_class: training samples of each class.
        probes_per_class: probes of each class.
        decay: strength of a level's patterns, over that of the level above.
        noise: mean length of each sample's own part.
        seed: fixes patterns and samples.

    Raises:
        InputError: a number out of range.

    Source: Saxe, McClelland & Ganguli 2019, "A mathematical theory of semantic development in deep neural networks".
    """
    listed = not isinstance(branching, (str, int)) and len(branching) > 0
    require(listed, f"dataset.branching must be a list of numbers of children, got {branching!r}; e.g. [2,2,2,2]")
    for children in branching:
        require_integer("dataset.branching", children, at_least=2)
    for key, value in (("width", width), ("per_class", per_class), ("probes_per_class", probes_per_class)):
        require_integer(f"dataset.{key}", value, at_least=1)
    for key, value in (("decay", decay), ("noise", noise)):
        require_number(f"dataset.{key}", value, at_least=0)
    generator = torch.Generator().manual_seed(seed)
    paths = list(itertools.product(*map(range, branching)))
    means = torch.zeros(len(paths), width)
    for level in range(1, len(branching) + 1):
        nodes = _branches(paths, level)
        names = list(dict.fromkeys(nodes))
        patterns = torch.randn(len(names), width, generator=generator) * decay ** (level - 1) / np.sqrt(width)
        means += patterns[[names.index(node) for node in nodes]]
    levels = {f"level_{level}": np.array(_branches(paths, level)) for level in range(1, len(branching))}
    classes = np.array(_branches(paths, len(branching)))
    return Data(
        train=_draw(means, per_class, noise, generator),
        probes=_draw(means, probes_per_class, noise, generator),
        loss=cross_entropy,
        labels={name: values.repeat(probes_per_class) for name, values in {"class": classes, **levels}.items()},
        ids=_ids(classes, probes_per_class, ""),
        train_ids=_ids(classes, per_class, "train/"),
        classes=classes.tolist(),
    )


def _branches(paths: Sequence[tuple[int, ...]], level: int) -> list[str]:
    """Return the name of the node that each path passes at a level, such as 0.1 at the second."""
    return [".".join(map(str, path[:level])) for path in paths]


def _draw(means: Tensor, each: int, noise: float, generator: torch.Generator) -> TensorDataset:
    """Return `each` samples of every class, class after class."""
    clean = means.repeat_interleave(each, dim=0)
    own = torch.randn(clean.shape, generator=generator) * noise / np.sqrt(clean.shape[1])
    return TensorDataset(clean + own, torch.arange(len(means)).repeat_interleave(each))


def _ids(classes: np.ndarray, each: int, prefix: str) -> list[str]:
    return [f"{prefix}{name}/{number}" for name in classes for number in range(each)]
