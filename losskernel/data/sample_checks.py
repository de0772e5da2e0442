"""What a data set must give: a sample is a pair (input, target) of numbers. Everything else is refused by its kind."""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from losskernel.data.global_state import kept_random_state
from losskernel.errors import InputError, require

_NUMBERS = (Tensor, np.ndarray, np.generic, Number)


def check_container(dataset: Any, key: str) -> None:
    """Raise InputError unless an object can be asked for its length and for any of its samples.

    Args:
        dataset: as a user gives it.
        key: names it in the message.
    """
    require(
        not isinstance(dataset, DataLoader),
        f"{key} is a DataLoader; give its data set ({key}=loader.dataset): minibatches are drawn by the run's own seed",
    )
    stream = isinstance(dataset, (IterableDataset, Iterator))
    require(
        not stream,
        f"{key} is a stream ({type(dataset).__name__}); samples are read again and in other orders: give a data set "
        f"with __len__ and __getitem__, such as a list of its samples",
    )
    inner = dataset
    while isinstance(inner, Subset):
        mask = len(inner.indices) > 0 and np.asarray(inner.indices).dtype == bool
        require(not mask, f"{key} is a Subset by a mask, which torch takes for rows 0 and 1; give row numbers instead")
        inner = inner.dataset
    # A list of two samples begins with a pair, not with an array.
    arrays = isinstance(dataset, (tuple, list)) and bool(dataset) and isinstance(dataset[0], (Tensor, np.ndarray))
    require(
        not arrays, f"{key} is a pair of arrays, not of samples; give torch.utils.data.TensorDataset(inputs, targets)"
    )


def check_sample(dataset: Any, key: str) -> None:
    """Raise InputError unless the first sample is a pair of numbers; the caller's random state is kept.

    Args:
        dataset: not empty.
        key: names it in the message.
    """
    with kept_random_state():
        try:
            sample = dataset[0]
        except InputError:
            raise
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(f"{key}[0] cannot be read: {type(error).__name__}: {reason}") from error
    wrap = f"wrap {key} so that a sample is (input, target)"
    if isinstance(sample, Mapping):
        raise InputError(f"{key} gives a dict a sample, with the keys {', '.join(map(str, sample))}; {wrap}")
    pair = isinstance(sample, Sequence) and not isinstance(sample, str)
    require(pair, f"{key} gives {_kind(sample)} a sample; {wrap}")
    require(len(sample) == 2, f"{key} gives {len(sample)} values a sample; {wrap}")
    given, target = sample
    if type(given).__module__.startswith("PIL."):
        raise InputError(f"the inputs of {key} are PIL pictures; add a transform such as torchvision's ToTensor")
    require(isinstance(given, _NUMBERS), f"the inputs of {key} are {_kind(given)}; {wrap}, with a tensor as input")
    require(
        isinstance(target, _NUMBERS),
        f"the targets of {key} are {_kind(target)}; {wrap}, with a number or a tensor as target",
    )


def checked_label(name: Any, values: Any, count: int) -> np.ndarray:
    """Return a label of the probes as an array of numbers, truth values, dates or text.

    Args:
        name: of the label.
        values: one for each probe.
        count: of the probes.

    Raises:
        InputError: the name is no text, or the values are not one for each probe.
    """
    require(isinstance(name, str) and name != "", f"data.labels: a label's name must be text, got {name!r}; rename it")
    require(name not in ("chain", "draw", "probe"), f"data.labels: the name {name!r} is taken; rename it")
    try:
        array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"data.labels[{name!r}] cannot be an array of numpy: {error}; cast it, e.g. .float()"
        ) from error
    require(
        array.shape == (count,),
        f"data.labels[{name!r}] has shape {array.shape}, but there are {count} probes; give one value each",
    )
    # Objects and dates keep their text: None and NaN among names become 'None' and 'nan'.
    return np.array([str(value) for value in array]) if array.dtype.kind in "OMm" else array


def names_of(given: Any, key: str) -> np.ndarray:
    """Return names as an array of numbers or text; paths and the like by their text.

    Raises:
        InputError: a name is no single value.
    """
    several = any(isinstance(name, (tuple, list, Mapping, np.ndarray)) for name in given)
    require(not several, f"{key} must be single names, got such as {next(iter(given))!r}; join their parts to one text")
    array = np.asarray(given)
    return np.array([str(name) for name in array]) if array.dtype == object else array


def collated_error(dataset: Any) -> InputError:
    """Return the message for samples that torch cannot stack."""
    first = [torch.as_tensor(dataset[row][0]).shape for row in range(min(16, len(dataset)))]
    shapes = ", ".join(str(tuple(shape)) for shape in dict.fromkeys(first))
    return InputError(
        f"samples of {type(dataset).__name__} cannot be stacked: inputs have shapes {shapes}"
        f"{' ...' if len(dataset) > 16 else ''}; pad, crop or resize them to one shape, of one type"
    )


def _kind(value: Any) -> str:
    """Return what a value is, in words."""
    known = {str: "text", tuple: "several values", list: "a list", type(None): "None", dict: "a dict"}
    return known.get(type(value), f"of type {type(value).__name__}")
