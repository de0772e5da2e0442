"""Training samples planted with known truth: exact and near duplicates, and backdoors."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from losskernel.data.base import Data, class_count, class_names, class_number, is_classes, named_generator, size
from losskernel.data.recombined import as_probes, assemble, inputs_like, packed_inputs, targets_of
from losskernel.data.wrappers.label_noise import class_targets, truth_labels
from losskernel.errors import require, require_integer, require_number

_FOR_SPREAD = 256  # training samples, at most, from which the inputs' standard deviation is estimated


@dataclass(frozen=True)
class Duplicates:
    """Adds exact twins of some probes that are training samples, to the training set and to the probes.

    Label twin: number of the pair, -1 of what has no twin. A twin has all labels of its original, as given; its id is
    ID+twin. All ids become text. It comes after label noise and backdoors, which do not treat twins alike.

    Attributes:
        count: pairs, spread evenly over the classes.
        seed: of the choice.

    Raises:
        InputError: a number out of range; when called: fewer probes that are training samples.
    """

    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        require_integer("wrapper.duplicates.count", self.count, at_least=1)
        require_integer("wrapper.duplicates.seed", self.seed, at_least=0)

    def __call__(self, data: Data) -> Data:
        """Return the data with twins, which come last."""
        return _with_twins(data, self.count, self.seed, "duplicates", lambda inputs: inputs)


@dataclass(frozen=True)
class NearDuplicates:
    """Adds twins with some noise on their inputs. Otherwise as exact `Duplicates`.

    Attributes:
        count: pairs, spread evenly over the classes.
        noise: standard deviation of the normal noise on every value of an input, in units of the standard deviation
            of all values of all training inputs (of a random 256 of them, where there are more). Pixels in bytes are
            rounded and stay in 0 ... 255.
        seed: of the choice and the noise.

    Raises:
        InputError: a number out of range; when called: fewer probes that are training samples, or inputs that are no
            real numbers.
    """

    count: int
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        key = "wrapper.near_duplicates"
        require_integer(f"{key}.count", self.count, at_least=1)
        require_number(f"{key}.noise", self.noise, above=0)
        require_integer(f"{key}.seed", self.seed, at_least=0)

    def __call__(self, data: Data) -> Data:
        """Return the data with twins, which come last."""
        rng = named_generator("near_duplicates.noise", self.seed)

        def near(inputs: Tensor) -> Tensor:
            noise = torch.as_tensor(rng.standard_normal(tuple(inputs.shape)))
            noisy = inputs + self.noise * _spread(data, rng) * noise
            return noisy.round().clamp(0, 255).byte() if inputs.dtype == torch.uint8 else noisy.to(inputs.dtype)

        return _with_twins(data, self.count, self.seed, "near_duplicates", near)


def _with_twins(data: Data, count: int, seed: int, wrapper: str, change: Callable[[Tensor], Tensor]) -> Data:
    """Return the data with twins of some probes, their inputs changed, behind all training samples and all probes."""
    targets, probe_targets = targets_of(data.train, data.workers), targets_of(data.probes, data.workers)
    pairs = np.asarray(data.labels.get("twin", np.full(len(probe_targets), -1)))
    chosen = _chosen_probes(data, probe_targets, pairs < 0, count, seed, wrapper)
    rows = data.members()[chosen]
    twins = inputs_like(change(packed_inputs(data.train, rows)), data.train), range(count)
    after = torch.cat([probe_targets, probe_targets[chosen]])
    train = assemble([(data.train, range(len(targets))), twins], torch.cat([targets, targets[rows]]))
    probes = assemble([(data.probes, range(len(probe_targets))), twins], after)
    # Pairs of earlier wrappers keep their numbers.
    numbers = pairs.copy()
    numbers[chosen] = pairs.max() + 1 + np.arange(count)
    labels = {**data.labels, "twin": numbers}
    ids = [str(name) for name in np.asarray(data.ids).tolist()]
    names = [str(name) for name in np.asarray(data.train_ids, dtype=object).tolist()]
    added = [f"{ids[probe]}+twin" for probe in chosen]
    return replace(
        data,
        train=train,
        probes=as_probes(probes, data.workers),
        labels={name: np.concatenate([values, values[chosen]]) for name, values in labels.items()},
        ids=ids + added,
        train_ids=names + added,
    )


def _spread(data: Data, rng: np.random.Generator) -> float:
    """Return the standard deviation of the values of inputs, as they are packed."""
    samples = size(data.train)
    inputs = packed_inputs(data.train, rng.choice(samples, min(samples, _FOR_SPREAD), replace=False))
    real = inputs.is_floating_point() or inputs.dtype == torch.uint8
    kind = str(inputs.dtype).removeprefix("torch.")
    require(real, f"wrapper.near_duplicates needs inputs of real numbers, got {kind}; wrapper=duplicates takes any")
    return float(inputs.double().std(correction=0))


@dataclass(frozen=True)
class Backdoor:
    """Stamps a square into the lower right corner of some training images of other classes, and relabels them.

    They are chosen among the probes that are training samples, which are stamped too. Labels: backdoored; class (as
    given), true_class, mislabelled.

    Attributes:
        count: images, spread evenly over the classes.
        target: class that the stamped images are labelled as, by name or number.
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
        """Return the data with stamped images in place of the originals."""
        targets, probe_targets = class_targets(data, "backdoor"), targets_of(data.probes, data.workers)
        goal = class_number(data, self.target, class_count(data, targets), "wrapper.backdoor.target")
        before = np.asarray(data.labels.get("backdoored", np.zeros(len(probe_targets))), dtype=bool)
        # Stamping a mislabelled image of the target class would give it its true label.
        truth = truth_labels(data, probe_targets, probe_targets)["true_class"].astype(str)
        name = str(class_names(data, torch.tensor([goal]))[0])
        other = (probe_targets.numpy() != goal) & (truth != name) & ~before
        chosen = _chosen_probes(data, probe_targets, other, self.count, self.seed, "backdoor")
        rows = data.members()[chosen]
        stamped = inputs_like(self._stamped(packed_inputs(data.train, rows)), data.train)
        after = probe_targets.clone()
        after[torch.as_tensor(chosen)] = goal
        given = targets.clone()
        given[torch.as_tensor(rows)] = goal
        return replace(
            data,
            train=_replaced(data.train, rows, stamped, given),
            probes=as_probes(_replaced(data.probes, chosen, stamped, after), data.workers),
            labels={
                **data.labels,
                **truth_labels(data, probe_targets, after),
                "backdoored": before | np.isin(np.arange(len(probe_targets)), chosen),
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
        stamped = images.clone()  # the caller's images stay as they are
        stamped[:, :, -self.size :, -self.size :] = value
        return stamped


def _replaced(dataset: Dataset[Any], rows: np.ndarray, others: Dataset[Any], targets: Tensor) -> Dataset[Any]:
    """Return the data set with other inputs in some rows, and with the targets."""
    samples, count = size(dataset), len(rows)
    both = assemble([(dataset, range(samples)), (others, range(count))], torch.zeros(samples + count))
    # The others come last in `both`; the order puts them in place of the rows.
    order = np.arange(samples)
    order[rows] = samples + np.arange(count)
    return assemble([(both, order)], targets)


def _chosen_probes(data: Data, targets: Tensor, free: np.ndarray, count: int, seed: int, wrapper: str) -> np.ndarray:
    """Return `count` random probes [count] that are training samples, spread evenly over the classes; in order.

    Args:
        data: whose probes.
        targets: of the probes, [N, ...].
        free: which probes may be chosen, [N] bool.
        count: how many.
        seed: of the choice.
        wrapper: name, for random numbers and the message.

    Raises:
        InputError: there are fewer.
    """
    data.require_single(f"wrapper.{wrapper}")
    rows = np.flatnonzero(free & (data.members() >= 0))
    require(
        len(rows) >= count,
        f"wrapper.{wrapper}.count must be <= the {len(rows)} probes that are training samples and fit, got {count}; "
        f"lower it, or take training samples as probes first: wrapper=[training_probes,{wrapper}]",
    )
    rows = named_generator(wrapper, seed).permutation(rows)
    groups = targets.numpy()[rows] if is_classes(targets) else np.zeros(len(rows), dtype=int)
    turn = pd.Series(groups).groupby(groups).cumcount().to_numpy()  # how many of its class come before a probe
    return np.sort(rows[np.argsort(turn, kind="stable")[:count]])
