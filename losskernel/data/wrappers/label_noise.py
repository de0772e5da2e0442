"""Wrong labels with known truth: at random, by class, by what a sample looks like, or as people gave them."""

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from losskernel.data.base import Data, class_count, class_names, class_number, is_classes, named_generator, size
from losskernel.data.loading import BlockLoader
from losskernel.data.recombined import as_probes, assemble, targets_of
from losskernel.errors import InputError, require, require_integer, require_number
from losskernel.models.state_dicts import read_weights

_BLOCK = 256  # inputs that are read at once


@dataclass(frozen=True)
class SymmetricNoise:
    """Gives a share of the training samples another class, any of the others with equal probability.

    Probes that are training samples have the same label and know the truth: labels class (as given), true_class,
    mislabelled. Other probes stay clean; labels of what a probe shows, such as its wnid, stay true.

    Attributes:
        rate: share of the training samples that get a wrong label, exactly, to the nearest sample; in [0, 1).
        seed: of the choice.

    Raises:
        InputError: a number out of range; when called: targets that are no classes.
    """

    rate: float
    seed: int = 0

    def __post_init__(self) -> None:
        _check("symmetric_noise", self.rate, self.seed)

    def __call__(self, data: Data) -> Data:
        """Return the data with wrong labels."""
        targets = class_targets(data, "symmetric_noise")
        present, numbers = np.unique(targets.numpy(), return_inverse=True)
        rng = named_generator("symmetric_noise", self.seed)
        wrong = rng.choice(len(targets), round(self.rate * len(targets)), replace=False)
        numbers[wrong] += rng.integers(1, len(present), len(wrong))  # 1 ... classes - 1 further, modulo classes
        return _relabelled(data, torch.as_tensor(present[numbers % len(present)]))


@dataclass(frozen=True)
class ClassDependentNoise:
    """Gives a share of each class's training samples one and the same other class, or classes by a matrix.

    Probes and labels as with symmetric noise.

    Attributes:
        rate: share of each class that gets a wrong label, exactly, to the nearest sample; in [0, 1). None with a
            matrix, which states it.
        pairs: class -> the class that its samples are mistaken for, by names or numbers; others stay. Or a transition
            matrix as a list of rows: [true, given], each row of sum 1. None: each class -> the next, the last -> the
            first.
        seed: of the choice.

    Raises:
        InputError: a number out of range; when called: targets that are no classes, or classes that there are not.
    """

    rate: float | None
    pairs: Mapping[Any, Any] | Sequence[Sequence[float]] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        key = "wrapper.class_dependent_noise"
        if isinstance(self.pairs, (Mapping, type(None))):
            _check("class_dependent_noise", self.rate, self.seed)
            return
        stated = f"{key}.rate must be null beside a matrix, which states it, got {self.rate}; set null"
        require(self.rate is None, stated)
        require_integer(f"{key}.seed", self.seed, at_least=0)
        _matrix(self.pairs, f"{key}.pairs")

    def __call__(self, data: Data) -> Data:
        """Return the data with wrong labels."""
        targets = class_targets(data, "class_dependent_noise")
        transitions = self._transitions(data, targets)
        rng = named_generator("class_dependent_noise", self.seed)
        after = targets.numpy().copy()
        for true in np.unique(after).tolist():
            rows = rng.permutation(np.flatnonzero(targets.numpy() == true))
            after[rows] = np.repeat(np.arange(len(transitions)), _rounded(transitions[true] * len(rows), true))
        return _relabelled(data, torch.as_tensor(after))

    def _transitions(self, data: Data, targets: Tensor) -> np.ndarray:
        """Return the transition matrix [true, given]."""
        key, count = "wrapper.class_dependent_noise.pairs", class_count(data, targets)
        if not isinstance(self.pairs, (Mapping, type(None))):
            matrix = _matrix(self.pairs, key)
            require(len(matrix) == count, f"{key} must have a row for each of the {count} classes, got {len(matrix)}")
            return matrix
        present = np.unique(targets.numpy()).tolist()
        following = dict(zip(present, present[1:] + present[:1], strict=True))
        pairs: Mapping[Any, Any] = following if self.pairs is None else self.pairs
        matrix, rate = np.eye(count), float(self.rate or 0.0)
        for source, goal in pairs.items():
            true, given = (class_number(data, label, count, key) for label in (source, goal))
            require(true != given, f"{key} sends {source!r} to itself; name another class")
            require(matrix[true, true] == 1, f"{key} names {source!r} twice; once by name, once by number")
            matrix[true, [true, given]] = 1 - rate, rate
        return matrix


@dataclass(frozen=True)
class InstanceDependentNoise:
    """Gives training samples wrong labels that depend on what they look like.

    Sample i is mislabelled with probability q_i ~ N(m, scatter²) cut to [0, 1], m such that the mean is `rate` (the
    paper sets m = rate, whose mean is larger for small rates). It then becomes class k != y with probability
    softmax_k(x_i · W_y), W_y standard normal [inputs, classes]: similar samples of a class are mistaken for the same
    class. Inputs are read as the network sees them. Probes and labels as with symmetric noise.

    Attributes:
        rate: mean share of the training samples that get a wrong label, in [0, 1).
        scatter: standard deviation of the samples' own rates, before they are cut.
        seed: of rates, projections and draws.

    Raises:
        InputError: a number out of range; when called: targets that are no classes.

    Source: Xia et al. 2020, "Part-dependent label noise: towards instance-dependent label noise", Algorithm 2.
    """

    rate: float
    scatter: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        _check("instance_dependent_noise", self.rate, self.seed)
        require_number("wrapper.instance_dependent_noise.scatter", self.scatter, at_least=0)

    def __call__(self, data: Data) -> Data:
        """Return the data with wrong labels."""
        targets = class_targets(data, "instance_dependent_noise")
        present, numbers = np.unique(targets.numpy(), return_inverse=True)
        rng = named_generator("instance_dependent_noise", self.seed)
        rates, draws = self.rates(len(numbers), rng), rng.random(len(numbers))
        after = numbers.copy()
        for true in range(len(present)):
            rows = np.flatnonzero(numbers == true)
            loader = BlockLoader(Subset(data.train, rows.tolist()), _BLOCK, data.workers, torch.device("cpu"))
            inputs = (block.flatten(1).double().numpy() for block, _ in loader)
            sums = self.mistaken(inputs, true, len(present)).cumsum(1)  # [n, classes]
            wrong = draws[rows] < rates[rows]
            # Given that it is below the rate, draw / rate is uniform again: it chooses the class by inversion.
            uniform = draws[rows] / np.maximum(rates[rows], np.finfo(float).tiny)
            after[rows[wrong]] = (sums <= uniform[:, None] * sums[:, -1:]).sum(1)[wrong]
        return _relabelled(data, torch.as_tensor(present[after]))

    def rates(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return the probabilities q [n] of a wrong label."""
        if self.rate == 0 or self.scatter == 0:
            return np.full(count, float(self.rate))
        from scipy.optimize import brentq
        from scipy.stats import truncnorm

        def cut(centre: float) -> dict[str, float]:
            return {"a": -centre / self.scatter, "b": (1 - centre) / self.scatter, "loc": centre, "scale": self.scatter}

        def excess(centre: float) -> float:
            mean: Any = truncnorm.stats(**cut(centre), moments="m")
            return float(mean) - self.rate

        # A normal far outside is cut to an exponential of mean scatter² / distance: the centre lies within these.
        low, high = (self.scatter + 2 * self.scatter**2 / share for share in (self.rate, 1 - self.rate))
        centre: Any = brentq(excess, -low, 1 + high)
        return truncnorm.ppf(rng.random(count), **cut(centre))

    def mistaken(self, blocks: Iterable[np.ndarray], true: int, classes: int) -> np.ndarray:
        """Return the probabilities [n, classes] of what a class's samples, in blocks [b, d], become if mislabelled."""
        projection, probabilities = None, []
        for inputs in blocks:
            if projection is None:
                rng = named_generator("instance_dependent_noise", self.seed, true)
                projection = rng.standard_normal((inputs.shape[1], classes))
            scores = inputs @ projection
            scores[:, true] = -np.inf
            weights = np.exp(scores - scores.max(1, keepdims=True))  # the shift keeps exp() finite
            probabilities.append(weights / weights.sum(1, keepdims=True))
        return np.concatenate(probabilities)


@dataclass(frozen=True)
class HumanLabels:
    """Gives training samples the labels that people gave: CIFAR-10N and CIFAR-100N (arXiv 2110.12088).

    Their order is that of CIFAR's archives; the k-th entry whose true class is c belongs to the k-th training sample of
    class c, so that pictures sorted into folders get the same labels. Probes and labels as with symmetric noise.

    Attributes:
        file: of torch.save: name -> class numbers [n]; or a zip archive with such files, of which the one that fits the
            training set is taken.
        given: name of the labels: aggre_label, random_label1 to 3, worse_label; of CIFAR-100N noisy_label.
        clean: name of the true classes.

    Raises:
        InputError: a name that is not in the file; when called: the labels are another training set's.
    """

    file: str
    given: str = "aggre_label"
    clean: str = "clean_label"

    def __post_init__(self) -> None:
        require(isinstance(self.file, str), f"wrapper.human_labels.file must be a path, got {self.file!r}; set one")
        require(
            Path(self.file).expanduser().is_file(), f"wrapper.human_labels.file={self.file} does not exist; set one"
        )

    def __call__(self, data: Data) -> Data:
        """Return the data with the labels that people gave."""
        targets = class_targets(data, "human_labels").numpy()
        counts = np.bincount(targets)
        tables = self._tables()
        fitting = [table for table in tables if np.array_equal(np.bincount(self._column(table, self.clean)), counts)]
        require(
            len(fitting) > 0,
            f"wrapper.human_labels.file={self.file} is about another training set: its {self.clean} has not the "
            f"{len(targets)} samples in {len(counts)} classes of this dataset; take the whole of CIFAR's training set",
        )
        true, given = (self._column(fitting[0], name) for name in (self.clean, self.given))
        known = given.shape == true.shape and given.min() >= 0 and given.max() < len(counts)
        require(known, f"wrapper.human_labels.given={self.given} is no label of each sample; choose another")
        after = np.empty_like(targets)
        after[np.argsort(targets, kind="stable")] = given[np.argsort(true, kind="stable")]
        return _relabelled(data, torch.as_tensor(after))

    def _tables(self) -> list[Mapping[str, Any]]:
        """Return the content of the file, or of each file in the archive."""
        path, key = Path(self.file).expanduser(), f"wrapper.human_labels.file={self.file}"
        contents = {key: path.read_bytes()}
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inside = [name for name in archive.namelist() if name.endswith(".pt")]
                # torch.save writes such archives too, without files of its own kind in them.
                contents = {f"{key}/{name}": archive.read(name) for name in inside} or contents
        try:
            tables = [read_weights(content, name) for name, content in contents.items()]
        except ValueError as error:
            raise InputError(f"{key} cannot be read: {error}; get it again") from error
        for table in tables:
            require(
                isinstance(table, Mapping), f"{key} holds no names with labels; give the file as its authors wrote it"
            )
        return tables

    def _column(self, table: Mapping[str, Any], name: str) -> np.ndarray:
        names = ", ".join(map(str, table))
        require(name in table, f"wrapper.human_labels: there is no {name!r} in {self.file}; it has {names}")
        return np.asarray(table[name], dtype=np.int64)


def class_targets(data: Data, wrapper: str) -> Tensor:
    """Return the class numbers of the training samples, [n].

    Raises:
        InputError: targets are no class numbers, or all the same; or there are versions of each sample.
    """
    targets, key = targets_of(data.train, data.workers), f"wrapper.{wrapper}"
    data.require_single(key)
    form = f"{str(targets.dtype).removeprefix('torch.')} of shape {tuple(targets.shape)}"
    require(is_classes(targets), f"{key} needs class numbers as targets, got {form}; choose a dataset of classes")
    several = len(targets.unique()) > 1
    require(several, f"{key} needs >= 2 classes among the training samples, got 1; choose other samples")
    return targets


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


def _relabelled(data: Data, targets: Tensor) -> Data:
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


def _check(wrapper: str, rate: Any, seed: Any) -> None:
    """Raise InputError unless the rate is in [0, 1) and the seed a whole number."""
    require_number(f"wrapper.{wrapper}.rate", rate, at_least=0)
    require(rate < 1, f"wrapper.{wrapper}.rate must be < 1, got {rate}; 0.1 makes a tenth of the labels wrong")
    require_integer(f"wrapper.{wrapper}.seed", seed, at_least=0)


def _matrix(rows: Any, key: str) -> np.ndarray:
    """Return a transition matrix.

    Raises:
        InputError: it is not square, or its rows are no probabilities.
    """
    form = f"{key} must be class: class, or a square matrix whose rows are probabilities"
    try:
        matrix = np.asarray(rows, dtype=float)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    require(matrix.ndim == 2 and len(set(matrix.shape)) == 1, f"{form}, got {rows!r}")
    proper = (matrix >= 0).all() and np.allclose(matrix.sum(1), 1)
    require(bool(proper), f"{form}, got row sums {matrix.sum(1).round(4).tolist()}")
    return matrix


def _rounded(shares: np.ndarray, true: int) -> np.ndarray:
    """Return whole numbers of the same sum, each within 1 of its share; the largest remainders are rounded up."""
    counts = np.floor(shares + 1e-9).astype(int)  # 2.9999999 is 3
    remainder = shares - counts
    remainder[true] -= 1e-9  # of ties the wrong label gets the sample
    counts[np.argsort(-remainder, kind="stable")[: round(shares.sum()) - counts.sum()]] += 1
    return counts
