"""The process-wide state of torch, numpy and Python, which public calls neither depend on nor change."""

import functools
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Leave the global generators of torch, numpy and Python as they were."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    before = np.random.get_state(), random.getstate()  # noqa: NPY002 (users' code draws from it)
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            np.random.set_state(before[0])  # noqa: NPY002
            random.setstate(before[1])


def seed_everything(seed: int) -> None:
    """Seed the global generators of torch, numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def own_state() -> Iterator[None]:
    """Compute with gradients and in full precision, whatever surrounds the call.

    Notebooks switch gradients off, evaluate under inference mode or autocast, or build models in a device's context;
    these must neither reach the chains nor be changed by them.
    """
    threads, default = torch.get_num_threads(), torch.get_default_dtype()
    kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    with (
        kept_random_state(),
        warnings.catch_warnings(),
        torch.inference_mode(False),
        torch.enable_grad(),
        # Only there: it slows every operation, and a forward may count on the accelerator that is the default.
        torch.device("cpu") if torch.get_default_device().type == "meta" else nullcontext(),
        torch.autocast(kinds[0], enabled=False),
        torch.autocast(kinds[-1], enabled=False),
    ):
        try:
            yield
        finally:
            torch.set_default_dtype(default)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def with_own_state(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function so that it computes in its own state and leaves the caller's as it was."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with own_state():
            return function(*args, **kwargs)

    return wrapped


def ordinary(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that gradients may pass through: itself, or a copy of one that was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


class Seeded(NamedTuple):
    """Rows that are read one after another with the global random numbers of one seed."""

    seed: int
    rows: Sequence[int]


class SeededReading(Dataset[Any]):
    """A data set whose random transforms depend on nothing but the seed: not on workers, nor on other batches."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset
        several = getattr(dataset, "__getitems__", None)
        self._read: Callable[[Sequence[int]], Sequence[Any]] = several or self._one_by_one

    def _one_by_one(self, rows: Sequence[int]) -> list[Any]:
        return [self._dataset[row] for row in rows]

    def __getitem__(self, part: Seeded) -> Any:
        seed_everything(part.seed)
        return self._read(part.rows)

    def __getitems__(self, batch: Sequence[Seeded]) -> list[Any]:
        with kept_random_state():
            return [sample for part in batch for sample in self[part]]
