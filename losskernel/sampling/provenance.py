"""Where a trace comes from: what makes two runs the same chains, and what else a reader should know."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

import losskernel
from losskernel.data.base import Data, size
from losskernel.data.fingerprint import digest, fingerprint
from losskernel.data.loading import BlockLoader
from losskernel.sampling.engine.stacked_model import start_losses
from losskernel.sampling.schedule import Schedule

TRAIN_LOSS_SAMPLES = 10_000


def identity(
    model: nn.Module,
    data: Data,
    settings: Mapping[str, Any],
    schedule: Schedule,
    seed: int,
    chain_offset: int = 0,
) -> dict[str, Any]:
    """Return what must agree for two runs to be the same chains, JSON-ready."""
    about = {
        "model": {"class": type(model).__name__, "weights": digest(model.state_dict().values())},
        "data": {
            "loss": getattr(data.loss, "__name__", str(data.loss)),
            "train": fingerprint(data.train),
            "probes": fingerprint(data.probes),
        },
        "sampler": {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()},
        "schedule": {name: getattr(schedule, name) for name in schedule.__dataclass_fields__},
        "seed": seed,
    }
    return about | {"chain_offset": chain_offset} if chain_offset else about


def provenance(
    model: nn.Module,
    data: Data,
    settings: Mapping[str, Any],
    schedule: Schedule,
    seed: int,
    chain_offset: int,
    moving: list[str],
    config: Mapping[str, Any],
    device: torch.device,
    block: int,
) -> dict[str, Any]:
    """Return the identity with configuration, counts, versions and the training loss at w*, in blocks of samples."""
    weights = dict(model.named_parameters())
    train_loss, samples = train_loss_at_start(model, data, block, seed, device)
    packages = ("torch", "pytorch-lightning", "numpy", "xarray", "zarr")
    return {
        "identity": identity(model, data, settings, schedule, seed, chain_offset),
        "config": dict(config),
        "parameters": {
            "moving": sum(weights[name].numel() for name in moving),
            "all": sum(weight.numel() for weight in weights.values()),
        },
        "steps_per_chain": schedule.steps,
        "train_size": size(data.train),
        "start_train_loss": {"value": train_loss, "samples": samples},
        "probe_batch_size": block,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "versions": {"losskernel": losskernel.__version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
    }


def train_loss_at_start(model: nn.Module, data: Data, block: int, seed: int, device: torch.device) -> tuple[float, int]:
    """Return (mean training loss at w*, samples it is over): all, or a fixed random part of a large set."""
    total = size(data.train)
    chosen = data.train
    if total > TRAIN_LOSS_SAMPLES:
        order = np.random.default_rng(seed).permutation(total)[:TRAIN_LOSS_SAMPLES]
        chosen = Subset(data.train, sorted(order.tolist()))
    losses = start_losses(model, data.loss, BlockLoader(chosen, block, data.workers, device))
    return float(losses.double().mean()), len(losses)
