"""sample(): from a trained model to loss traces."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import Subset

from losskernel.data.base import Data, size, stack
from losskernel.data.images.preprocessing import thumbnails
from losskernel.data.loading import BlockLoader
from losskernel.data.minibatch_order import TRAINING_STREAM
from losskernel.data.packed import held
from losskernel.errors import DivergenceError, Interrupted, TraceError, require, require_integer, require_number
from losskernel.sampling.chains import STEP_CHECKS, Chains, StepChecksInterrupted, strides
from losskernel.sampling.cost import announced
from losskernel.sampling.engine.probe_batch_size import LARGEST, choose_block
from losskernel.sampling.engine.stacked_model import StackedModel, check_losses, stackable, start_losses
from losskernel.sampling.provenance import identity, provenance
from losskernel.sampling.recorder import RecordLosses
from losskernel.sampling.samplers import Sampler, resolve_nbeta, select
from losskernel.sampling.schedule import Schedule
from losskernel.sampling.trainer import chain_trainer
from losskernel.signals import signal_name, stop_on_signal
from losskernel.storage.settings_diff import differences
from losskernel.traces.loss_traces import LossTraces, coordinates_of, open_traces
from losskernel.traces.memory_store import MemoryStore
from losskernel.traces.records import PRECISION_CHECKS
from losskernel.traces.zarr_store import TraceStore
from losskernel.training.lightning import fit_once


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
        model: the trained network; evaluated in eval mode and never changed.
        data: training set, probes, loss.
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
    factory, settings, moving = settle(model, data, sampler, schedule)
    require_integer("seed", seed, at_least=0)
    require_offset(chain_offset, schedule)
    require_number("state_every", state_every, at_least=0)
    stacked = chains_per_fit if chains_per_fit is not None else schedule.chains if stackable(model) else 1
    require_integer("chains_per_fit", stacked, at_least=1)
    store = MemoryStore() if out is None else TraceStore(out)
    with store.locked():
        state = None
        if isinstance(store, TraceStore) and store.exists:
            _require_same(store, identity(model, data, settings, schedule, seed, chain_offset), resume)
            if store.complete:
                return open_traces(store.path)
            state, stacked = store.verified_state(), int(store.provenance()["chains_per_fit"])
        stacks = [slice(first, min(first + stacked, schedule.chains)) for first in range(0, schedule.chains, stacked)]
        if state is not None:
            stacks = [rows for rows in stacks if rows.start >= state["rows"]]
        trainer_of = functools.partial(chain_trainer, trainer, progress, chains=schedule.chains, first=chain_offset)
        first_trainer = trainer_of(stacks[0])
        device = first_trainer.strategy.root_device
        copies = functools.cache(lambda chains: StackedModel(model, data.loss, chains, moving))  # recordings are shared

        def chains_of(rows: slice, block: int, resumed: dict[str, Any] | None) -> Chains:
            settled = replace(schedule, probe_batch_size=block)
            numbers = range(chain_offset + rows.start, chain_offset + rows.stop)
            return Chains(model, data, factory, settled, seed, numbers, moving, resumed, copies(len(numbers)))

        if not store.exists:
            block = _block(model, data, schedule, device)
            about = provenance(model, data, settings, schedule, seed, chain_offset, moving, config or {}, device, block)
            if progress:
                about |= announced(chains_of(stacks[0], block, None), schedule, device)
            _create(store, data, schedule, chain_offset, about | {"chains_per_fit": stacked}, model, device)
        block = int(store.provenance()["probe_batch_size"])
        with stop_on_signal() as stop:
            for rows in stacks:
                chains = chains_of(rows, block, state and state["chains"])
                recorder = RecordLosses(store, rows, state_every=state_every, stop=stop, state=state)
                state = None
                own = first_trainer if rows is stacks[0] else trainer_of(rows)
                with suppress(StepChecksInterrupted):
                    fit_once(own, chains, strides(schedule)[recorder.batches_done :], [recorder, *callbacks])
                _require_done(recorder, schedule, stop, store)
                recorder.finish(chains)
        store.finish()
        return open_traces(store.path) if isinstance(store, TraceStore) else LossTraces(store.dataset)


def _require_same(store: TraceStore, asked: dict[str, Any], resume: bool) -> None:
    """Raise TraceError where a store may not be continued by these settings."""
    if not resume:
        raise TraceError(f"{store.path} exists; pass resume=True to continue it, or choose another folder")
    lines = differences(store.provenance()["identity"], asked)
    if lines:
        raise TraceError(f"{store.path} was sampled with other settings: {'; '.join(lines)}; choose another folder")


def require_offset(chain_offset: int, schedule: Schedule) -> None:
    """Raise InputError unless chains from this number on have streams of their own."""
    require_integer("chain_offset", chain_offset, at_least=0)
    require(
        chain_offset + schedule.chains <= TRAINING_STREAM,
        f"chain_offset must be <= {TRAINING_STREAM - schedule.chains}, got {chain_offset}; lower it",
    )


def settle(
    model: nn.Module, data: Data, sampler: Callable[..., Sampler], schedule: Schedule
) -> tuple[Callable[..., Sampler], dict[str, Any], list[str]]:
    """Return (sampler factory, all its settings, names of the moving weights), each checked.

    Raises:
        InputError: a setting does not fit the model or the data.
    """
    train_size = size(data.train)
    require(
        schedule.batch_size <= train_size,
        f"schedule.batch_size must be <= the {train_size} training samples, got {schedule.batch_size}; lower it",
    )
    base, given = sampler, {}
    while isinstance(base, functools.partial):  # Hydra's own kind within another is not flattened
        base, given = base.func, {**base.keywords, **given}
    globs = given.pop("parameters", None)
    origin = given.get("nbeta")
    if "nbeta" in given:
        given["nbeta"] = resolve_nbeta(given["nbeta"], batch_size=schedule.batch_size, train_size=train_size)
    names = [name for name, weight in model.named_parameters() if weight.is_floating_point()]
    require(len(names) > 0, f"{type(model).__name__} has no weights to sample; give a model with parameters")
    moving = select(names, globs)
    kinds = {weight.dtype for name, weight in model.named_parameters() if name in set(moving)}
    got = ", ".join(sorted(map(str, kinds)))
    fine = kinds in ({torch.float32}, {torch.float64})  # small steps are lost in coarser ones
    require(fine, f"the moving weights must all be float32 or all float64, got {got}; cast the model, e.g. .float()")
    require(
        schedule.probe_precision == "float32" or kinds == {torch.float32},
        f"schedule.probe_precision={schedule.probe_precision} needs a float32 model, got {got}; leave it float32",
    )
    # A trial on one number finds every bad setting before any compute.
    base([torch.zeros(1, 1)], noise=torch.zeros_like, **given)
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(base).parameters.items()
        if parameter.default is not inspect.Parameter.empty and name not in ("noise", "parameters")
    }
    settings = {"sampler": getattr(base, "__name__", str(base)), **defaults, **given, "parameters": globs}
    settings["nbeta_origin"] = origin if isinstance(origin, str) else "number"
    return functools.partial(base, **given), settings, moving


def _block(model: nn.Module, data: Data, schedule: Schedule, device: torch.device) -> int:
    """Return how many probes are evaluated at once."""
    if schedule.probe_batch_size is not None or stackable(model):
        return schedule.probe_batch_size or LARGEST
    inputs, targets = stack(Subset(data.probes, [0]), workers=0)
    with torch.no_grad():
        check_losses(copy.deepcopy(model).eval(), data.loss, inputs, targets)
    return choose_block(model, inputs, device)


def _create(
    store: TraceStore | MemoryStore,
    data: Data,
    schedule: Schedule,
    chain_offset: int,
    about: dict[str, Any],
    model: nn.Module,
    device: torch.device,
) -> None:
    """Lay out the store: coordinates, losses at w*, and room for what each draw records."""
    block = about["probe_batch_size"]
    start = start_losses(model, data.loss, BlockLoader(data.probes, block, data.workers, device)).cpu().numpy()
    shape = (schedule.chains, schedule.draws, len(start))
    chains = range(chain_offset, chain_offset + shape[0])
    coordinates = coordinates_of(shape[2], chains, shape[1], data.labels, data.ids)
    coordinates = coordinates.assign(start_losses=("probe", start))
    pictures = [part for inputs in _pictures(data, block) if (part := thumbnails(inputs)) is not None]
    if pictures:
        coordinates = coordinates.assign(thumbnails=(("probe", "height", "width", "colour"), np.concatenate(pictures)))
    burn_in = sum(not stride.record and stride != STEP_CHECKS for stride in strides(schedule))
    checks = 0 if schedule.probe_precision == "float32" else PRECISION_CHECKS
    store.create(coordinates, about, shape, burn_in, str(start.dtype), checks)


def _pictures(data: Data, block: int) -> Iterator[torch.Tensor]:
    """Yield the probes' inputs in blocks; where pixels are kept in bytes, these."""
    whole = held(data.probes)
    if whole is not None and whole[0].dtype == torch.uint8:
        yield from whole[0].split(block)
    else:
        yield from (inputs for inputs, _ in BlockLoader(data.probes, block, data.workers, torch.device("cpu")))


def _require_done(recorder: RecordLosses, schedule: Schedule, stop: Callable[[], int], store: Any) -> None:
    if recorder.batches_done == len(strides(schedule)):
        return
    kept = isinstance(store, TraceStore)
    where = f"continue with the same call and out={store.path}" if kept else "pass out= to keep draws"
    judging = ", judging" if recorder.draws_done == schedule.draws else ""
    done = f"{recorder.drawn(schedule.draws)} of {schedule.chains * schedule.draws} draws{judging}"
    if number := stop():
        raise Interrupted(f"stopped after {done} ({signal_name(number)})", number, where)
    cause = "remove what stops it early (limit_train_batches, callbacks)"
    raise DivergenceError(f"the trainer ended after {done}; {cause}, then {where}")
