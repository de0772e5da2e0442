"""Training samples as probes: to audit a training set, or to ask what it does to queries."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from losskernel.data.base import Data, class_names, is_classes, named_generator, size
from losskernel.data.recombined import as_probes, assemble, targets_of
from losskernel.errors import require, require_integer

# Planted truth, which the class as given does not determine.
_TRUTH = ("true_class", "mislabelled")
# Planted labels of a sample that is no probe are known for certain, for twins and backdoors are planted in probes.
_UNPLANTED = {"twin": -1, "backdoored": False}


@dataclass(frozen=True)
class TrainingProbes:
    """Takes training samples as the probes, in training order.

    Label: class, by name. Other labels are kept where the present probes determine them (see `JointProbes`).

    Attributes:
        limit: how many, chosen at random; None: all.
        seed: of the choice.

    Raises:
        InputError: a number out of range; when called: fewer training samples, or a truth that is not known of all.
    """

    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check("training_probes", {"limit": self.limit}, self.seed)

    def __call__(self, data: Data) -> Data:
        """Return the data with other probes."""
        rows = _random_rows(size(data.train), self.limit, self.seed, "training_probes.limit")
        targets = _targets(data, rows)
        names, labels = training_names(data), _training_labels(data, rows, targets, "training_probes")
        probes = assemble([(data.train, rows)], targets)
        return replace(
            data,
            probes=as_probes(probes, data.workers),
            labels=labels | _class(data, targets),
            ids=[names[row] for row in rows],
            train_ids=names,
        )


@dataclass(frozen=True)
class JointProbes:
    """Takes the present probes (role: query) followed by training samples (role: train) as the probes.

    Queries keep their labels; class, by name, is known of all. Another label of a training sample is known where the
    sample is a present probe, or is text that all probes of its class share (two at least); else it is "", nan or -1.
    A query that is one of the training samples taken is named query/ID, and counts as no training sample.

    Attributes:
        train_limit: training samples, chosen at random, in training order; None: all.
        query_limit: queries, a random one from each of as many equal stretches of the present probes; None: all.
        seed: of both choices.

    Raises:
        InputError: a number out of range; when called: fewer samples, or a truth that is not known of all.
    """

    train_limit: int | None = None
    query_limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check("joint_probes", {"train_limit": self.train_limit, "query_limit": self.query_limit}, self.seed)

    def __call__(self, data: Data) -> Data:
        """Return the data with other probes."""
        queries = _spread(size(data.probes), self.query_limit, self.seed, "joint_probes.query_limit")
        rows = _random_rows(size(data.train), self.train_limit, self.seed, "joint_probes.train_limit")
        query_targets, train_targets = targets_of(data.probes, data.workers)[queries], _targets(data, rows)
        targets = torch.cat([query_targets, train_targets.to(query_targets.dtype)])
        trained = _training_labels(data, rows, train_targets, "joint_probes")
        labels = {
            name: np.concatenate([values[queries], trained.get(name, _missing(values, len(rows)))])
            for name, values in data.labels.items()
        }
        names = training_names(data)
        chosen = [names[row] for row in rows]
        train_ids, ids = _distinct(names, np.asarray(data.ids)[queries].tolist(), chosen)
        probes = assemble([(data.probes, queries), (data.train, rows)], targets)
        return replace(
            data,
            probes=as_probes(probes, data.workers),
            labels=labels | _class(data, targets) | {"role": np.repeat(["query", "train"], [len(queries), len(rows)])},
            ids=ids,
            train_ids=train_ids,
        )


def training_names(data: Data) -> list:
    """Return the names of the training samples; train/ROW where they have none."""
    data.require_single("a wrapper of training probes")
    if data.train_ids is None:
        return [f"train/{row}" for row in range(size(data.train))]
    return np.asarray(data.train_ids, dtype=object).tolist()


def _distinct(names: list, queries: list, chosen: list) -> tuple[list, list]:
    """Return (names of all training samples, ids of queries and the chosen ones), none twice.

    They are left as they are, or become text where some must.
    """
    if not set(chosen) & set(queries) and len({type(name) for name in queries + chosen}) == 1:
        return names, queries + chosen
    # As text, for ids of two kinds would make an array of text anyway.
    taken = {str(name) for name in chosen}
    ids = [f"query/{name}" if str(name) in taken else str(name) for name in queries]
    return [str(name) for name in names], ids + [str(name) for name in chosen]


def _targets(data: Data, rows: np.ndarray) -> Tensor:
    """Return the targets of some training samples; where they are unknown, only these are read."""
    return targets_of(Subset(data.train, rows.tolist()), data.workers)


def _class(data: Data, targets: Tensor) -> dict[str, np.ndarray]:
    return {"class": class_names(data, targets)} if is_classes(targets) else {}


def _random_rows(count: int, limit: int | None, seed: int, key: str) -> np.ndarray:
    """Return `limit` random numbers below `count`, in order; all where there is no limit."""
    if limit is None:
        return np.arange(count)
    require(limit <= count, f"wrapper.{key} must be <= the {count} training samples, got {limit}; null takes all")
    return np.sort(named_generator(key, seed).choice(count, limit, replace=False))


def _spread(count: int, limit: int | None, seed: int, key: str) -> np.ndarray:
    """Return a random number from each of `limit` equal stretches below `count`; all where there is no limit."""
    if limit is None:
        return np.arange(count)
    require(limit <= count, f"wrapper.{key} must be <= the {count} present probes, got {limit}; null takes all")
    edges = np.linspace(0, count, limit + 1).astype(int)
    return named_generator(key, seed).integers(edges[:-1], edges[1:])


def _check(wrapper: str, limits: Mapping[str, int | None], seed: int) -> None:
    for name, limit in limits.items():
        if limit is not None:
            require_integer(f"wrapper.{wrapper}.{name}", limit, at_least=1)
    require_integer(f"wrapper.{wrapper}.seed", seed, at_least=0)


def _training_labels(data: Data, rows: np.ndarray, targets: Tensor, wrapper: str) -> dict[str, np.ndarray]:
    """Return what is known of some training samples, name -> [n]; labels of which nothing is known are left out.

    A label is known of a sample that is a probe, and where it is text that all probes of the sample's class share, of
    which there must be two: with one, anything would seem to belong to the class. Elsewhere it is `_missing`.

    Args:
        data: its probes' labels, without class and role.
        rows: numbers of the training samples, [n].
        targets: their targets, [n, ...].
        wrapper: name, for the message.

    Raises:
        InputError: the planted truth of a sample is not known.
    """
    members = data.members()
    probe = np.full(size(data.train), -1)
    probe[members[members >= 0]] = np.flatnonzero(members >= 0)
    probe = probe[rows]  # that each sample is, [n]; -1 of none
    classes = targets_of(data.probes, data.workers).numpy() if is_classes(targets) else None
    labels: dict[str, np.ndarray] = {}
    for name, values in data.labels.items():
        if name in ("class", "role"):
            continue
        known, label = probe >= 0, values[np.maximum(probe, 0)]
        if name in _TRUTH:
            require(
                bool(known.all()),
                f"wrapper.{wrapper} does not know {name} of training samples that were no probes when it was planted; "
                f"put {wrapper} before the wrapper that plants it",
            )
        elif name in _UNPLANTED:
            label[~known] = _UNPLANTED[name]
        else:
            if classes is not None and values.dtype.kind in "UO":
                label, known = _filled(values, classes, label, known, targets.numpy())
            label = np.where(known, label, _missing(values, len(rows)))
        if name in (*_TRUTH, *_UNPLANTED) or known.any():
            labels[name] = label
    return labels


def _missing(values: np.ndarray, count: int) -> np.ndarray:
    """Return the value of an unknown label, [count]: "" of text, nan of numbers, -1 of whole ones."""
    return np.full(count, {"f": np.nan, "i": -1, "u": -1, "b": -1}.get(values.dtype.kind, ""))


def _filled(
    values: np.ndarray, classes: np.ndarray, label: np.ndarray, known: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return label [n] and known [n] of samples, filled in where all probes of a sample's class share the value."""
    label, known = label.copy(), known.copy()
    for number in np.unique(classes):
        shared = values[classes == number]
        if len(shared) >= 2 and (shared == shared[0]).all():
            label[~known & (targets == number)] = shared[0]
            known |= targets == number
    return label, known
