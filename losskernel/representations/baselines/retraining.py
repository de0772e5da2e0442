"""Losses of the probes after retraining on random subsets of the training set."""

import hashlib
import json
import os
import pickle
import re
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from losskernel.data.base import Data, size
from losskernel.data.loading import BlockLoader
from losskernel.data.recombined import digest, fingerprint
from losskernel.errors import InputError, TraceError, require, require_integer, require_number
from losskernel.representations.evaluation import History, classifies, log_odds
from losskernel.signals import STOP_SIGNALS
from losskernel.storage.atomic import write_whole
from losskernel.storage.locations import guard
from losskernel.storage.npz import read_arrays, write_arrays
from losskernel.storage.settings_diff import differences

FOLDER = "retrained"  # in the run's folder
_BLOCK = 1024  # probes per forward pass


@dataclass(frozen=True)
class Retrained:
    """Retrains the network on random subsets of the training set: the ground truth of attribution.

    Rows: `losses` [N, subsets · repeats] of all probes, the repeats of a subset side by side; `margins` likewise,
    log p / (1 - p) of the target's probability, where targets are classes; `members` [N, subsets], 1 where the probe is
    a training sample of the subset, 0 for samples left out and for probes that are none.

    Every finished retraining is stored in the run's folder, so that a killed run resumes, more subsets or repeats reuse
    the existing ones, and several jobs may share a folder.

    Attributes:
        subsets: random subsets of the training set, drawn independently.
        fraction: of the training samples that a subset holds.
        repeats: retrainings of each subset, from other initial weights with other minibatches.
        workers: processes that retrain, one thread each; 1 retrains in this one.
        seed: of subsets, initial weights and minibatches.

    Raises:
        InputError: a number out of range; when called: no subset can be trained on, or workers cannot receive the job.
        TraceError: the folder holds retrainings of other settings or damaged ones, cannot be written, or a worker died.

    Source: Ilyas et al. 2022 (datamodels), arXiv 2202.00622; Park et al. 2023, arXiv 2303.14186.
    """

    subsets: int = 50
    fraction: float = 0.5
    repeats: int = 2
    workers: int = field(default=1, repr=False)  # not in the stored settings: it changes no number
    seed: int = 0

    needs_history: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for key, least in (("subsets", 3), ("repeats", 1), ("workers", 1), ("seed", 0)):
            require_integer(f"baselines.retrained.{key}", getattr(self, key), at_least=least)
        require_number("baselines.retrained.fraction", self.fraction, above=0)
        require(self.fraction < 1, f"baselines.retrained.fraction must be < 1, got {self.fraction}; take 0.5")

    def __call__(self, model: nn.Module, data: Data, history: History) -> dict[str, np.ndarray]:
        """Retrain what is missing and return the rows."""
        data.require_single("baselines.retrained")
        samples = size(data.train)
        taken = round(self.fraction * samples)
        require(0 < taken < samples, f"a subset would hold {taken} of {samples} training samples; change the fraction")
        job = Job(data, history.retrain, taken, self.seed, history.folder / FOLDER)
        guard(job.folder, _claim, job.folder, self._settings(job))
        pieces = [(subset, repeat) for subset in range(self.subsets) for repeat in range(self.repeats)]
        missing = [piece for piece in pieces if not job.path(*piece).is_file()]
        # In random order, so that two jobs that share a folder seldom work on the same piece.
        order = np.random.default_rng().permutation(len(missing))
        _work(job, [missing[index] for index in order], self.workers)
        outcomes = [read_arrays(job.path(*piece)) for piece in pieces]
        rows = {name: np.stack([outcome[name] for outcome in outcomes], axis=1) for name in outcomes[0]}
        chosen = np.zeros((samples, self.subsets), dtype=np.float32)  # 1 where a sample is in a subset
        for subset in range(self.subsets):
            chosen[job.chosen(subset), subset] = 1
        members = data.members()  # [N], -1 for probes that are no training samples
        return rows | {"members": np.where(members[:, None] >= 0, chosen[members], 0)}

    def _settings(self, job: "Job") -> dict[str, Any]:
        """Return the settings that determine the numbers of one retraining, JSON-ready."""
        ids = hashlib.sha256(repr(np.asarray(job.data.ids).tolist()).encode()).hexdigest()[:16]
        return {
            "fraction": self.fraction,
            "seed": self.seed,
            "train": fingerprint(job.data.train),
            "probes": f"{fingerprint(job.data.probes)}, ids {ids}",
            "loss": _described(job.data.loss),
            "training": _described(job.retrain),
        }


@dataclass(frozen=True)
class Job:
    """Retrains on one subset at a time and stores each result in a separate file; sent to the workers.

    Attributes:
        data: training set and probes.
        retrain: (data, seed) -> a network trained on it.
        taken: training samples of a subset.
        seed: of subsets, initial weights and minibatches.
        folder: of the files.
    """

    data: Data
    retrain: Callable[[Data, int], nn.Module]
    taken: int
    seed: int
    folder: Path

    def path(self, subset: int, repeat: int) -> Path:
        """Return the file of a retraining."""
        return self.folder / f"subset-{subset:04d}-repeat-{repeat}.npz"

    def chosen(self, subset: int) -> np.ndarray:
        """Return the indices of a subset's training samples, ascending."""
        rng = np.random.default_rng([self.seed, subset])
        return np.sort(rng.permutation(size(self.data.train))[: self.taken])

    def __call__(self, subset: int, repeat: int) -> None:
        """Retrain and store the outcome on the probes, unless another job did."""
        path = self.path(subset, repeat)
        if path.is_file():  # another job was faster since the missing pieces were listed
            return
        part = replace(self.data, train=Subset(self.data.train, self.chosen(subset).tolist()), train_ids=None)
        # Independent of how many subsets and repeats there are, so that later ones extend the earlier.
        seed = int(np.random.SeedSequence([self.seed, subset, repeat]).generate_state(1)[0])
        try:
            network = self.retrain(part, seed)
        except InputError as error:
            raise InputError(f"on a subset, {self.taken} of {size(self.data.train)} samples: {error}") from error
        guard(path, write_arrays, path, _outcome(network, self.data))


@torch.no_grad()
def _outcome(network: nn.Module, data: Data) -> dict[str, np.ndarray]:
    """Return the losses [N] of a retrained network on the probes and, for classes, its margins [N]."""
    network = network.eval()
    device = next(network.parameters()).device
    losses, margins = [], []
    for inputs, targets in BlockLoader(data.probes, _BLOCK, data.workers, device):
        outputs = network(inputs)
        losses.append(data.loss(outputs, targets))
        if classifies(outputs, targets):
            margins.append(log_odds(outputs, targets))
    outcome = {"losses": losses} | ({"margins": margins} if margins else {})
    return {name: torch.cat(parts).cpu().numpy() for name, parts in outcome.items()}


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings into a new folder; raise TraceError for a folder that holds others."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    if path.is_file():
        lines = differences(json.loads(path.read_text(encoding="utf-8")), settings)
        if lines:
            raise TraceError(f"{folder} holds other retrainings: {'; '.join(lines)}; remove it or take another run")
        return
    write_whole(path, json.dumps(settings, indent=2), concurrent=True)


def _described(value: Any) -> str:
    """Return a description of a function and its bound arguments that is the same in every process."""
    if isinstance(value, partial):
        bound = [*value.args, *(f"{name}={_described(argument)}" for name, argument in value.keywords.items())]
        return f"{_described(value.func)}({', '.join(map(_described, bound))})"
    if isinstance(value, nn.Module):
        return f"{type(value).__name__} {digest(value.state_dict().values())}"
    # The address of an object differs between processes, and is left out.
    name = getattr(value, "__qualname__", None)
    return str(name) if name and callable(value) else re.sub(r" at 0x[0-9a-f]+", "", str(value))


def _work(job: Job, pieces: Sequence[tuple[int, int]], workers: int) -> None:
    """Retrain all pieces, in this process or in workers.

    Raises:
        InputError: the job cannot be pickled.
        TraceError: a worker died.
    """
    if workers == 1 or len(pieces) <= 1:
        for piece in pieces:
            job(*piece)
        return
    try:
        sent = pickle.dumps(job)
    except Exception as error:  # pickling fails with many types of exception
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"workers cannot be sent model, data and loss ({reason}); set workers to 1") from error
    # Spawned, since a fork of a process that has used threads may hang.
    count = min(workers, len(pieces))
    with ProcessPoolExecutor(count, get_context("spawn"), initializer=_start_worker, initargs=(sent,)) as pool:
        try:
            for future in as_completed([pool.submit(_run_piece, piece) for piece in pieces]):
                future.result()
        except BrokenProcessPool as error:
            raise TraceError(
                f"a worker process died (out of memory?); finished retrainings are in {job.folder}, and the same "
                "command resumes from there; lower baselines.retrained.workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


# The job of this worker process, sent once at its start rather than with every piece.
_JOB: list[Job] = []


def _start_worker(sent: bytes) -> None:
    """Initialise a worker process."""
    # Signals reach the whole process group; the main process handles them and shuts the workers down.
    for number in (signal.SIGINT, *STOP_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _JOB.append(pickle.loads(sent))


def _exit_with_parent() -> None:
    """Exit when the parent process does: a killed parent cannot stop its workers, which would wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_piece(piece: tuple[int, int]) -> None:
    _JOB[0](*piece)
