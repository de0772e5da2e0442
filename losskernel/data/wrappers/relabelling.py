"""Training samples with other labels, and probes that know the label they were given and the true one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from losskernel.data.base import Data, size
from losskernel.data.recombined import as_probes, assemble, targets_of
from losskernel.errors import require


def class_targets(data: Data, wrapper: str) -> Tensor:
    """Return the class numbers of the training samples, [n].

    Raises:
        InputError: targets are no class numbers, or all the same.
    """
    targets = targets_of(data.train, data.workers)
    classes = is_classes(targets)
    require(
        classes, f"wrapper.{wrapper} needs class numbers as targets, got {_form(targets)}; choose a dataset of classes"
    )
    several = len(targets.unique()) > 1
    require(several, f"wrapper.{wrapper} needs >= 2 classes among the training samples, got 1; choose other samples")
    return targets


def is_classes(targets: Tensor) -> bool:
    """Whether targets are class numbers, one for each sample."""
    return targets.ndim == 1 and not (
        targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool
    )


def class_names(data: Data, targets: Tensor) -> np.ndarray:
    """Return the names of class numbers, [n]; the numbers themselves where the data have no names.

    Raises:
        InputError: there are more classes than names.
    """
    numbers = targets.numpy()
    if data.classes is None:
        return numbers
    most = int(numbers.max()) + 1 if len(numbers) else 0
    require(
        most <= len(data.classes),
        f"data.classes has {len(data.classes)} names, but targets count {most} classes; name all",
    )
    return np.asarray(data.classes)[numbers]


def class_number(data: Data, given: Any, count: int, key: str) -> int:
    """Return the number of a class that is given by its name or number, of `count`.

    Raises:
        InputError: there is no such class, or several of that name.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        require(0 <= given < count, f"{key}: there is no class {given}; classes are 0 ... {count - 1}")
        return given
    names: list[Any] = [] if data.classes is None else list(data.classes)
    choices = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else f"0 ... {count - 1}"
    named = names.count(given)
    found = "no class is" if named == 0 else f"{named} classes are"
    require(named == 1, f"{key}: {found} named {given!r}; classes are {choices}")
    return names.index(given)


def class_count(data: Data, targets: Tensor) -> int:
    """Return how many classes there are: as many as have names, else as the training samples' targets count."""
    return int(targets.max()) + 1 if data.classes is None else len(data.classes)


def relabelled(data: Data, targets: Tensor) -> Data:
    """Return the data with other targets [n] of the training samples, and of the probes that are training samples."""
    members, before = data.members(), targets_of(data.probes, data.workers)
    after, known = before.clone(), np.flatnonzero(members >= 0)
    after[torch.as_tensor(known)] = targets[torch.as_tensor(members[known])].to(before.dtype)
    return replace(
        data,
        train=assemble([(data.train, range(size(data.train)))], targets),
        probes=as_probes(assemble([(data.probes, range(size(data.probes)))], after), data.workers),
        labels={**data.labels, **truth_labels(data, before, after)},
    )


def truth_labels(data: Data, before: Tensor, after: Tensor) -> Mapping[str, np.ndarray]:
    """Return the probes' labels as given (class), as they truly are (true_class), and whether these differ.

    Args:
        data: a truth that it already knows stays.
        before: class numbers of the probes, [N].
        after: as given from now on, [N].
    """
    given = class_names(data, after)
    truth = np.asarray(data.labels.get("true_class", class_names(data, before)))
    return {"class": given, "true_class": truth, "mislabelled": given.astype(str) != truth.astype(str)}


def _form(targets: Tensor) -> str:
    return f"{str(targets.dtype).removeprefix('torch.')} of shape {tuple(targets.shape)}"


def chance(wrapper: str, seed: int, *more: int) -> np.random.Generator:
    """Return random numbers of a wrapper's own.

    All wrappers have the run's seed by default; with the same numbers, what one chooses would say what another does.
    """
    return np.random.default_rng([seed, *wrapper.encode(), *more])


def planted_probes(data: Data, targets: Tensor, open_to: np.ndarray, count: int, seed: int, wrapper: str) -> np.ndarray:
    """Return `count` probes [count] that are training samples, by chance, as many of each class as can be; in order.

    Args:
        data: whose probes.
        targets: of the probes, [N, ...].
        open_to: which probes may be chosen, [N] bool.
        count: how many.
        seed: of the choice.
        wrapper: that asks, for the message.

    Raises:
        InputError: there are fewer.
    """
    rows = np.flatnonzero(open_to & (data.members() >= 0))
    require(
        len(rows) >= count,
        f"wrapper.{wrapper}.count must be <= the {len(rows)} probes that are training samples and fit, got {count}; "
        f"lower it, or take training samples as probes first: wrapper=[training_probes,{wrapper}]",
    )
    rows = chance(wrapper, seed).permutation(rows)
    groups = targets.numpy()[rows] if is_classes(targets) else np.zeros(len(rows), dtype=int)
    order = np.argsort(groups, kind="stable")
    _, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    turn = np.empty(len(rows), dtype=int)  # its place among those of its class
    turn[order] = np.arange(len(rows)) - np.repeat(first, sizes)
    return np.sort(rows[np.argsort(turn, kind="stable")[:count]])
