"""What becomes of the probes' losses when the network is trained again on parts of the training set."""

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
from losskernel.data.fingerprint import digest, fingerprint
from losskernel.data.loading import BlockLoader
from losskernel.errors import InputError, TraceError, require, require_integer, require_number
from losskernel.representations.baselines.collect import History
from losskernel.representations.baselines.influence import classifies, log_odds
from losskernel.signals import STOP_SIGNALS
from losskernel.storage.atomic import write_whole
from losskernel.storage.locations import guard
from losskernel.storage.npz import read_arrays, write_arrays
from losskernel.storage.settings_diff import differences

# In the run's folder.
FOLDER = "retrained"
_BLOCK = 1024


@dataclass(frozen=True)
class Retrained:
    """Retrains the network on random subsets of the training set: the ground truth of attribution.

    Rows: `losses` [N, subsets · repeats] of all probes, the repeats of a subset side by side; `margins` likewise,
    log p / (1 - p) of the target's probability, where targets are classes; `members` [N, subsets], 1 where the probe is
    a training sample of the subset, 0 for samples left out and for probes that are none.

    Every retraining is kept in the run's folder once it is done. So a killed run goes on where it was, more subsets or
    repeats add to those that are there, and several jobs may share a folder.

    Attributes:
        subsets: random subsets of the training set, drawn independently.
        fraction: of the training samples that a subset holds.
        repeats: retrainings of each subset, from other initial weights with other minibatches.
        workers: processes that retrain, one thread each; 1 retrains in this one.
        seed: of subsets, initial weights and minibatches.

    Raises:
        InputError: a number out of range; when called: no subset can be trained on, or workers cannot be sent the job.
        TraceError: the folder holds retrainings of other settings or damaged ones, cannot be written, or a worker died.

    Source: Ilyas et al. 2022 (datamodels), arXiv 2202.00622; Park et al. 2023, arXiv 2303.14186.
    """

    subsets: int = 50
    fraction: float = 0.5
    repeats: int = 2
    workers: int = field(default=1, repr=False)  # changes no number
    seed: int = 0

    needs_history: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for key, least in (("subsets", 3), ("repeats", 1), ("workers", 1), ("seed", 0)):
            require_integer(f"baselines.retrained.{key}", getattr(self, key), at_least=least)
        require_number("baselines.retrained.fraction", self.fraction, above=0)
        require(self.fraction < 1, f"baselines.retrained.fraction must be < 1, got {self.fraction}; take 0.5")

    def __call__(self, model: nn.Module, data: Data, history: History) -> dict[str, np.ndarray]:
        """Retrain what is not there yet and return the rows."""
        samples = size(data.train)
        taken = round(self.fraction * samples)
        require(0 < taken < samples, f"a subset would hold {taken} of {samples} training samples; change the fraction")
        job = Job(data, history.retrain, taken, self.seed, history.folder / FOLDER)
        guard(job.folder, _claim, job.folder, self._settings(job))
        pieces = [(subset, repeat) for subset in range(self.subsets) for repeat in range(self.repeats)]
        missing = [piece for piece in pieces if not job.path(*piece).is_file()]
        # Each job goes its own way through them, so that two that share a folder seldom do the same twice.
        order = np.random.default_rng().permutation(len(missing))
        _work(job, [missing[place] for place in order], self.workers)
        found = [read_arrays(job.path(*piece)) for piece in pieces]
        rows = {f"{name}": np.stack([each[name] for each in found], axis=1) for name in found[0]}
        chosen = np.zeros((samples, self.subsets), dtype=np.float32)
        for subset in range(self.subsets):
            chosen[job.chosen(subset), subset] = 1
        members = data.members()
        return rows | {"members": np.where(members[:, None] >= 0, chosen[members], 0)}

    def _settings(self, job: "Job") -> dict[str, Any]:
        """Return what decides the numbers of one retraining, JSON-ready."""
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
    """One retraining after another, each kept in a file of its own.

    Attributes:
        data: training set and probes.
        retrain: (data, seed) -> a network trained on it.
        taken: training samples of a subset.
        seed: of everything.
        folder: of the files.
    """

    data: Data
    retrain: Callable[[Data, int], nn.Module]
    taken: int
    seed: int
    folder: Path

    def path(self, subset: int, repeat: int) -> Path:
        """Return where a retraining is kept."""
        return self.folder / f"subset-{subset:04d}-repeat-{repeat}.npz"

    def chosen(self, subset: int) -> np.ndarray:
        """Return the numbers of a subset's training samples, in order."""
        order = np.random.default_rng([self.seed, subset]).permutation(size(self.data.train))
        return np.sort(order[: self.taken])

    def __call__(self, subset: int, repeat: int) -> None:
        """Retrain and keep what becomes of the probes, unless another job did."""
        path = self.path(subset, repeat)
        if path.is_file():
            return
        part = replace(self.data, train=Subset(self.data.train, self.chosen(subset).tolist()), train_ids=None)
        seed = int(np.random.SeedSequence([self.seed, subset, repeat]).generate_state(1)[0])
        try:
            network = self.retrain(part, seed)
        except InputError as error:
            raise InputError(f"on a subset, {self.taken} of {size(self.data.train)} samples: {error}") from error
        guard(path, write_arrays, path, _outcome(network, self.data))


@torch.no_grad()
def _outcome(network: nn.Module, data: Data) -> dict[str, np.ndarray]:
    """Return what a retrained network makes of all probes: losses [N] and, of classes, margins [N]."""
    network = network.eval()
    device = next(network.parameters()).device
    losses, margins = [], []
    for inputs, targets in BlockLoader(data.probes, _BLOCK, data.workers, device):
        outputs = network(inputs)
        losses.append(data.loss(outputs, targets))
        if classifies(outputs, targets):
            margins.append(log_odds(outputs, targets))
    found = {"losses": losses} | ({"margins": margins} if margins else {})
    return {name: torch.cat(parts).cpu().numpy() for name, parts in found.items()}


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Note down the settings, or refuse a folder of other ones."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    if path.is_file():
        lines = differences(json.loads(path.read_text(encoding="utf-8")), settings)
        if lines:
            raise TraceError(f"{folder} holds other retrainings: {'; '.join(lines)}; remove it or take another run")
        return
    write_whole(path, json.dumps(settings, indent=2), concurrent=True)


def _described(value: Any) -> str:
    """Return what a function and what is bound to it are, the same in every process."""
    if isinstance(value, partial):
        bound = [*value.args, *(f"{name}={_described(each)}" for name, each in value.keywords.items())]
        return f"{_described(value.func)}({', '.join(map(_described, bound))})"
    if isinstance(value, nn.Module):
        return f"{type(value).__name__} {digest(value.state_dict().values())}"
    name = getattr(value, "__qualname__", None)
    return str(name) if name and callable(value) else re.sub(r" at 0x[0-9a-f]+", "", str(value))


def _work(job: Job, pieces: Sequence[tuple[int, int]], workers: int) -> None:
    """Do all pieces, in this process or in others."""
    if workers == 1 or len(pieces) <= 1:
        for piece in pieces:
            job(*piece)
        return
    try:
        sent = pickle.dumps(job)
    except Exception as error:  # what cannot be pickled says so in as many ways as there are types
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"workers cannot be sent model, data and loss ({reason}); set workers to 1") from error
    # Started afresh: a fork of a process that has used threads may hang.
    count = min(workers, len(pieces))
    with ProcessPoolExecutor(count, get_context("spawn"), initializer=_begin, initargs=(sent,)) as pool:
        try:
            for done in as_completed([pool.submit(_do, piece) for piece in pieces]):
                done.result()
        except BrokenProcessPool as error:
            raise TraceError(
                f"a process that retrained died (out of memory?); what is done lies in {job.folder}, and the same "
                "command goes on from there; lower baselines.retrained.workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_JOB: list[Job] = []  # of this worker process


def _begin(sent: bytes) -> None:
    """Set up a worker process."""
    for number in (signal.SIGINT, *STOP_SIGNALS):  # they reach every process, and what to do is for the main one to say
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _JOB.append(pickle.loads(sent))


def _end_with_parent() -> None:
    """End this process when its parent does: one that was killed could not, and an orphan waits for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(piece: tuple[int, int]) -> None:
    _JOB[0](*piece)
