"""sample(): from a trained model to loss traces, with the cost measured at w* before it starts."""

import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import Subset

from losskernel.data.base import Data, held, size, stack
from losskernel.data.global_state import with_own_state
from losskernel.data.images.image_files import thumbnails
from losskernel.data.loading import BlockLoader
from losskernel.errors import DivergenceError, Interrupted, TraceError, require_integer, require_number
from losskernel.figures.shared.presentation import TIMES, in_unit
from losskernel.models.evaluation_copy import evaluation_copy
from losskernel.sampling.chains import STEP_CHECKS, Chains, RecordLosses, StepChecksInterrupted, Stride, strides
from losskernel.sampling.engine.plain_model import FAST, PLAIN, PlainModel, Route, choose_route
from losskernel.sampling.engine.stacked_model import (
    LARGEST,
    StackedModel,
    check_losses,
    choose_block,
    stackable,
    start_losses,
)
from losskernel.sampling.loss_checks import SAMPLES, check_function
from losskernel.sampling.samplers import Sampler
from losskernel.sampling.setup import Schedule, Setup, identity, provenance, setup_of
from losskernel.sampling.trainer import chain_trainer
from losskernel.signals import signal_name, stop_on_signal
from losskernel.storage.settings_diff import differences
from losskernel.traces.loss_traces import LossTraces, coordinates_of, open_traces
from losskernel.traces.records import PRECISION_CHECKS, MemoryStore, layout
from losskernel.traces.zarr_store import TraceStore
from losskernel.training.lightning import fit_once
from losskernel.training.progress import rate

_SHORT = 20.0  # seconds below which a run's cost is not shown
_FEW = 2  # samples on which a large network is tried
_REPEATS = 2  # timed calls after a first one, which records the operations
# (size, name, the number from which it is used)
_SIZES = ((10**9, "GB", 10**9), (10**6, "MB", 10**6), (10**3, "kB", 10**3), (1, "B", 0))


class Cost(NamedTuple):
    """The cost of a run."""

    forward: float  # probes evaluated per second, all chains together
    gradients: float  # training samples per second, likewise
    seconds: float
    bytes: int  # of the losses, before compression


def announced(chains: Chains, schedule: Schedule) -> dict[str, Any]:
    """Write the cost of a run to standard error, unless it is short; return it for the provenance.

    Args:
        chains: of the first stack, on the device where they will run.
        schedule: lengths.
    """
    try:
        cost = estimate(schedule, chains, *measure(chains))
    except DivergenceError:  # sampling diverges at the same step, and reports it with a remedy
        return {}
    if cost.seconds > _SHORT:
        sys.stderr.write(words(cost, schedule, chains.probes) + "\n")
    return {"cost": cost._asdict()}


def measure(chains: Chains) -> tuple[float, float]:
    """Return seconds of a step and of an evaluation of all probes; the chains return to where they were."""
    chains.configure_optimizers()
    before = chains.state()
    chains.on_fit_start()
    device = chains.weights.device
    try:
        step = _seconds(lambda: chains.training_step(Stride(1, False), 0), device)
        evaluate, block = chains.one_block()
        share = _seconds(evaluate, device) / block
    finally:
        chains.teardown("fit")
        chains.restore(before)
    return step, share * chains.probes


def estimate(schedule: Schedule, chains: Chains, step: float, evaluation: float) -> Cost:
    """Return the cost of a schedule, whose stacks run one after another.

    Args:
        schedule: lengths.
        chains: of the first stack.
        step: seconds of a sampler step.
        evaluation: seconds of an evaluation of all probes.
    """
    count = len(chains.weights)
    stacks = -(-schedule.chains // count)
    steps = schedule.steps + chains.effort.gradients(schedule.batch_size)
    evaluations = schedule.draws
    if schedule.probe_precision != "float32":
        steps += PRECISION_CHECKS * schedule.thinning
        evaluations += 2 * PRECISION_CHECKS
    return Cost(
        forward=count * chains.probes / evaluation,
        gradients=count * schedule.batch_size / step,
        seconds=stacks * (steps * step + evaluations * evaluation),
        bytes=chains.weights.element_size() * schedule.chains * schedule.draws * chains.probes,
    )


def words(cost: Cost, schedule: Schedule, probes: int) -> str:
    """Return the cost as one line for the user."""
    return (
        f"sampling {schedule.chains} chains x {schedule.draws} draws of {probes:,} probes: "
        f"{rate(cost.forward, 3)} samples/s forward, {rate(cost.gradients, 3)} samples/s gradients; "
        f"about {_scaled(cost.seconds, TIMES)}; traces {_scaled(cost.bytes, _SIZES)}"
    )


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Return the shortest of a few runs, after one that does not count."""
    times = []
    for _ in range(1 + _REPEATS):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def _scaled(number: float, units: tuple[tuple[int, str, int], ...]) -> str:
    """Return a number to two digits, in the largest unit that suits it."""
    count, unit = in_unit(number, units)
    return f"{float(f'{count:.2g}'):g} {unit}"


@with_own_state
def sample(
    model: nn.Module,
    data: Data,
    sampler: Callable[..., Sampler],
    schedule: Schedule,
    *,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = True,
    chains_per_fit: int | None = None,
    trainer: pl.Trainer | Callable[..., pl.Trainer] | None = None,
    progress: bool = True,
    callbacks: Sequence[pl.Callback] = (),
    config: Mapping[str, Any] | None = None,
    state_every: float = 20.0,
    chain_offset: int = 0,
) -> LossTraces:
    """Sample the localised posterior around a trained model; record every probe's loss at each draw.

    Args:
        model: the trained network; evaluated in eval mode and never changed. Weights with requires_grad=False stay
            where they are. What torch.func does not take is evaluated by plain PyTorch, chain after chain.
        data: training set, probes, loss; the loss of a sample must depend on the weights and that sample alone.
        sampler: a partial of a Sampler class, e.g. functools.partial(SGLD, step_size=1e-3, nbeta=100.0,
            localization=100.0). `nbeta` may be "batch" or "train"; `parameters` restricts what moves.
        schedule: chains, burn-in, draws, thinning, batch size.
        seed: with a chain's number it fixes that chain's minibatches and noise.
        out: folder or URL (s3://...) of the Zarr store; None keeps the traces in memory.
        resume: continue an interrupted store, or return a finished one; False refuses an existing store.
        chains_per_fit: chains stacked in one Trainer.fit. None: all of them for models without convolutions
            and up to a million weights, else 1.
        trainer: a Lightning Trainer, or a function that builds one; one device.
        progress: show a progress bar.
        callbacks: further Lightning callbacks, such as loggers of the draws.
        config: stored with the provenance.
        state_every: seconds between resume states, the most that a kill can cost.
        chain_offset: number of the first chain. Runs that differ in it alone sample parts of one kernel:
            `open_traces` joins them to what one run of all their chains would have given.

    Returns:
        Traces with `losses` [chain, draw, probe] in the model's floating type.

    Raises:
        InputError: settings, data and model do not fit together; known before any step.
        DivergenceError: a loss or weight became non-finite.
        TraceError: the store belongs to other settings, is damaged, in use elsewhere, or cannot be written.
        Interrupted: Ctrl-C, SIGTERM, SIGUSR1 or SIGUSR2; what was drawn is on disk if `out` is given.

    Source: arXiv 2509.26537, section 3.2.
    """
    setup = setup_of(model, data, sampler, schedule, seed=seed, chain_offset=chain_offset)
    require_number("state_every", state_every, at_least=0)
    stacked = chains_per_fit if chains_per_fit is not None else schedule.chains if stackable(model) else 1
    require_integer("chains_per_fit", stacked, at_least=1)
    store = MemoryStore() if out is None else TraceStore(out)
    settings = identity(setup)  # before anything is read
    with store.locked():
        state = None
        if isinstance(store, TraceStore) and store.exists:
            _require_same(store, settings, resume)
            if store.complete:
                return open_traces(store.path)
            state, stacked = store.verified_state(), int(store.provenance()["chains_per_fit"])
        stacks = _Stacks(setup, stacked, trainer, progress)
        current = stacks.begin(store, state, config or {})
        with stop_on_signal() as stop:
            for rows in stacks.slices(state):
                trainer_now, chains = current or stacks.build(rows, int(store.provenance()["probe_batch_size"]))
                current = None  # one stack's weights in memory at a time
                recorder = RecordLosses(store, rows, state_every=state_every, stop=stop, state=state)
                state = None
                with suppress(StepChecksInterrupted):
                    fit_once(trainer_now, chains, strides(schedule)[recorder.batches_done :], [recorder, *callbacks])
                _require_done(recorder, schedule, stop, store)
                recorder.finish(chains)
        store.finish()
        return open_traces(store.path) if isinstance(store, TraceStore) else LossTraces(store.dataset)


@dataclass
class _Stacks:
    """Builds the stacks of chains that are sampled one after another, each in one fit of a Trainer.

    Args:
        setup: the run.
        size: chains per stack; the last may have fewer.
        trainer: a Lightning Trainer, or a function that builds one.
        progress: show a progress bar and the cost.
    """

    setup: Setup
    size: int
    trainer: pl.Trainer | Callable[..., pl.Trainer] | None
    progress: bool
    _route: Route = FAST

    def slices(self, state: dict[str, Any] | None) -> list[slice]:
        """Return the chains of each stack that is not finished, as rows of the store."""
        chains = self.setup.schedule.chains
        slices = [slice(first, min(first + self.size, chains)) for first in range(0, chains, self.size)]
        return [rows for rows in slices if state is None or rows.start >= state["rows"]]

    def begin(
        self, store: TraceStore | MemoryStore, state: dict[str, Any] | None, config: Mapping[str, Any]
    ) -> tuple[pl.Trainer, Chains]:
        """Return the first stack, after laying out the store if it does not exist."""
        rows = self.slices(state)[0]
        if store.exists:
            about = store.provenance()
            if about.get("evaluation") == PlainModel.__name__:
                self._route = PLAIN
            return self.build(rows, int(about["probe_batch_size"]), state)
        trainer = self._trainer(rows)
        device = trainer.strategy.root_device
        preconditioned = self.setup.try_sampler().is_preconditioned  # and its settings are checked before all else
        check_function(self.setup.model, self.setup.data.loss, *_some(self.setup.data.probes, SAMPLES, device))
        block = _block(self.setup, device)
        self._choose_route(rows, block, device)
        chains = self._chains(rows, block, device)
        about = provenance(self.setup, config, device, block)
        if self.progress:
            about |= announced(chains, self.setup.schedule)
        about |= {"chains_per_fit": self.size, "evaluation": self._route.model.__name__}
        about |= {"step_checks": chains.effort._asdict(), "preconditioned": preconditioned}
        _create(store, self.setup, about, device)
        return trainer, chains

    def build(self, rows: slice, block: int, state: dict[str, Any] | None = None) -> tuple[pl.Trainer, Chains]:
        """Return the Trainer and the chains of one stack, continued from a state if there is one."""
        trainer = self._trainer(rows)
        return trainer, self._chains(rows, block, trainer.strategy.root_device, state and state["chains"])

    def _choose_route(self, rows: slice, block: int, device: torch.device) -> None:
        """Choose how chains are evaluated, and say so where it is not the fast way."""
        setup, chains = self.setup, rows.stop - rows.start

        def build(kind: type[StackedModel]) -> StackedModel:
            if kind is StackedModel:  # kept with what it records; the other would take as much memory for nothing
                return self._model(chains, kind).to(device)
            return kind(setup.model, setup.data.loss, chains, setup.moving).to(device)

        # Whole blocks, whose recordings sampling uses; but a minibatch of a large network can take a minute.
        whole = stackable(setup.model)
        inputs, targets = _some(setup.data.train, setup.schedule.batch_size if whole else _FEW, device)
        minibatch = inputs.expand(chains, *inputs.shape), targets.expand(chains, *targets.shape)
        probes = _some(setup.data.probes, block if whole else _FEW, device)
        self._route = choose_route(build, minibatch, probes)
        if self._route.model is PlainModel:
            self._model.cache_clear()
        if self._route.reason:  # without progress too: it decides how long all takes
            name = type(setup.model).__name__
            sys.stderr.write(f"{name} is evaluated by plain PyTorch, chain after chain ({self._route.reason})\n")

    def _trainer(self, rows: slice) -> pl.Trainer:
        return chain_trainer(self.trainer, self.progress, rows, self.setup.schedule.chains, self.setup.chain_offset)

    def _chains(self, rows: slice, block: int, device: torch.device, resumed: dict[str, Any] | None = None) -> Chains:
        """Return chains on their device, their sampler built."""
        offset = self.setup.chain_offset
        numbers = range(offset + rows.start, offset + rows.stop)
        chains = Chains(self.setup, numbers, block, resumed, self._model(len(numbers), self._route.model))
        chains.to(device).configure_optimizers()
        return chains

    @functools.cached_property
    def _model(self) -> Any:
        # Stacks of equal size share one copy of the model, and with it the recorded operations.
        setup = self.setup
        return functools.cache(lambda chains, kind: kind(setup.model, setup.data.loss, chains, setup.moving))


def rehearse(setup: Setup) -> None:
    """Check on a few samples what sampling requires of network and loss, before time is spent on training.

    Raises:
        InputError: a sample's loss depends on chance or on other samples, or cannot be differentiated.
    """
    data, device = setup.data, torch.device("cpu")
    check_function(setup.model, data.loss, *_some(data.probes, SAMPLES, device))
    chains = min(2, setup.schedule.chains) if stackable(setup.model) else 1
    inputs, targets = _some(data.train, _FEW, device)
    minibatch = inputs.expand(chains, *inputs.shape), targets.expand(chains, *targets.shape)
    with torch.no_grad():
        choose_route(
            lambda kind: kind(setup.model, data.loss, chains, setup.moving).to(device), minibatch, (inputs, targets)
        )


def _require_same(store: TraceStore, settings: dict[str, Any], resume: bool) -> None:
    """Raise TraceError unless the store may be continued and was sampled with the same settings."""
    if not resume:
        raise TraceError(f"{store.path} exists; pass resume=True to continue it, or choose another folder")
    lines = differences(store.provenance()["identity"], settings)
    if lines:
        raise TraceError(f"{store.path} was sampled with other settings: {'; '.join(lines)}; choose another folder")


def _block(setup: Setup, device: torch.device) -> int:
    """Return how many probes are evaluated at once."""
    given = setup.schedule.probe_batch_size
    if given is not None or stackable(setup.model):
        return given or LARGEST
    inputs, targets = stack(Subset(setup.data.probes, [0]), workers=0)
    with torch.no_grad():
        check_losses(evaluation_copy(setup.model).to(inputs.device), setup.data.loss, inputs, targets)
    return choose_block(setup.model, inputs, device)


def _create(store: TraceStore | MemoryStore, setup: Setup, about: dict[str, Any], device: torch.device) -> None:
    """Lay out the store: coordinates, losses at w*, thumbnails of image probes, and arrays for every draw."""
    data, schedule, block = setup.data, setup.schedule, about["probe_batch_size"]
    start = start_losses(setup.model, data.loss, BlockLoader(data.probes, block, data.workers, device)).cpu().numpy()
    shape = (schedule.chains, schedule.draws, len(start))
    chains = range(setup.chain_offset, setup.chain_offset + shape[0])
    coordinates = coordinates_of(shape[2], chains, shape[1], data.labels, data.ids)
    coordinates = coordinates.assign(start_losses=("probe", start))
    pictures = [part for inputs in _pictures(data, block) if (part := thumbnails(inputs)) is not None]
    if pictures:
        coordinates = coordinates.assign(thumbnails=(("probe", "height", "width", "colour"), np.concatenate(pictures)))
    burn_in = sum(not stride.record and stride != STEP_CHECKS for stride in strides(schedule))
    checks = 0 if schedule.probe_precision == "float32" else PRECISION_CHECKS
    store.create(coordinates, about, layout(shape, burn_in, checks), str(start.dtype))


def _some(dataset: Any, count: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (inputs, targets) of `count` samples spread over all, or of all."""
    rows = np.unique(np.linspace(0, size(dataset) - 1, min(count, size(dataset))).astype(int)).tolist()
    inputs, targets = next(iter(BlockLoader(Subset(dataset, rows), len(rows), 0, device)))
    return inputs, targets


def _pictures(data: Data, block: int) -> Iterator[torch.Tensor]:
    """Yield the probes' inputs in blocks; the stored bytes where pixels are kept in bytes."""
    whole = held(data.probes)
    if whole is not None and whole[0].dtype == torch.uint8:
        yield from whole[0].split(block)
    else:
        yield from (inputs for inputs, _ in BlockLoader(data.probes, block, data.workers, torch.device("cpu")))


def _require_done(recorder: RecordLosses, schedule: Schedule, stop: Callable[[], int], store: Any) -> None:
    """Raise Interrupted or DivergenceError if the fit ended before its last batch."""
    if recorder.batches_done == len(strides(schedule)):
        return
    kept = isinstance(store, TraceStore)
    where = f"continue with the same call and out={store.path}" if kept else "pass out= to keep draws"
    checking = ", checking the steps" if recorder.draws_done == schedule.draws else ""
    rows, draws = recorder.rows, schedule.draws  # chains of earlier stacks have all their draws
    drawn = rows.start * draws + (rows.stop - rows.start) * recorder.draws_done
    done = f"{drawn} of {schedule.chains * draws} draws{checking}"
    if number := stop():
        raise Interrupted(f"stopped after {done} ({signal_name(number)})", number, where)
    cause = "remove what stops it early (limit_train_batches, callbacks)"
    raise DivergenceError(f"the trainer ended after {done}; {cause}, then {where}")
