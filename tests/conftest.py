"""Settings that every test shares."""

import multiprocessing
import os
from collections.abc import Iterator

# Before torch is imported: two test processes on two cores must not fight for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_SILENT", "true")

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def _no_process_left() -> Iterator[None]:
    """Name the file that leaves a process behind; others, that count theirs, would fail in its place."""
    yield
    assert multiprocessing.active_children() == []
