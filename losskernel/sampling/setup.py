"""What a call of sample() samples: settings checked and completed, the identity of its chains, their provenance."""

import functools
import inspect
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from losskernel.data.base import Data, loss_name, size
from losskernel.data.identity import dataset_digest
from losskernel.data.loading import TRAINING_STREAM, BlockLoader
from losskernel.data.recombined import digest, fingerprint
from losskernel.errors import require, require_integer, require_number
from losskernel.models.evaluation_copy import unwrapped
from losskernel.sampling.engine.stacked_model import start_losses
from losskernel.sampling.samplers import Sampler, resolve_nbeta, select
from losskernel.storage.object_digest import stored_digest
from losskernel.traces.records import check_label_names

PRECISIONS = ("float32", "bfloat16", "float16")
TRAIN_LOSS_SAMPLES = 10_000
_PACKAGES = ("torch", "pytorch-lightning", "numpy", "xarray", "zarr")


@dataclass(frozen=True)
class Schedule:
    """The lengths of a sampling run; every chain takes `burn_in + draws * thinning` steps.

    Attributes:
        chains: independent chains, each with its own minibatches and noise.
        burn_in: sampler steps before the first draw's thinning interval; not recorded as draws.
        draws: recorded draws per chain; at each, the losses of all probes are stored.
        thinning: sampler steps from one draw to the next; a draw is the weights after its last step.
        batch_size: training samples per minibatch and chain.
        probe_batch_size: probes per forward pass when losses are recorded; None decides by memory and caches.
            Changes speed and rounding only.
        step_check_share: share of a chain's sampling that its step checks may cost, both counted in gradients; more
            lets them measure on more minibatches, up to a bound. The least that they do, however short the chain, is
            about 20 gradients of a large network and 60 to 280 of one whose chains are stacked.
        probe_precision: type in which the forward pass of probes multiplies, "float32" (the model's own),
            "bfloat16" or "float16" (autocast); never that of gradients. What it does to R is measured.

    Raises:
        InputError: a length is not a whole number or is too small to estimate a covariance; the precision is
            unknown.
    """

    chains: int = 4
    burn_in: int = 500
    draws: int = 400
    thinning: int = 5
    batch_size: int = 64
    probe_batch_size: int | None = None
    probe_precision: str = "float32"
    step_check_share: float = 0.1

    def __post_init__(self) -> None:
        least = {"burn_in": 0, "draws": 2}
        for setting in fields(self):
            why = "to estimate a covariance" if setting.name == "draws" else ""
            value = getattr(self, setting.name)
            if setting.type in (str, float) or (value is None and setting.default is None):
                continue
            require_integer(f"schedule.{setting.name}", value, at_least=least.get(setting.name, 1), why=why)
        require(
            self.probe_precision in PRECISIONS,
            f"schedule.probe_precision must be one of {', '.join(PRECISIONS)}, got {self.probe_precision!r}; "
            "leave it float32 where losses must be exact",
        )
        require_number("schedule.step_check_share", self.step_check_share, at_least=0)

    @property
    def steps(self) -> int:
        """Sampler steps per chain."""
        return self.burn_in + self.draws * self.thinning


@dataclass(frozen=True)
class Setup:
    """All that fixes the numbers of a run's chains.

    Attributes:
        model: the trained network.
        data: training set, probes, loss.
        sampler: builds the Sampler from (params, noise).
        settings: all settings of the sampler, defaults included, JSON-ready.
        moving: names of the weights that move.
        schedule: lengths.
        seed: of the run.
        chain_offset: number of the first chain.
        known_identity: empty until `identity` fills it.
    """

    model: nn.Module
    data: Data
    sampler: Callable[..., Sampler]
    settings: dict[str, Any]
    moving: list[str]
    schedule: Schedule
    seed: int
    chain_offset: int
    known_identity: dict[str, Any] = field(default_factory=dict)

    def try_sampler(self) -> Sampler:
        """Return the sampler of a single number, whose settings are so checked before anything is computed."""
        return self.sampler([torch.zeros(1, 1)], noise=torch.zeros_like)


def setup_of(
    model: nn.Module,
    data: Data,
    sampler: Callable[..., Sampler],
    schedule: Schedule,
    *,
    seed: int = 0,
    chain_offset: int = 0,
) -> Setup:
    """Check that model, data, sampler and schedule fit together, and complete the sampler's settings.

    The sampler itself is not built: its constructor checks the values of its settings.

    Raises:
        InputError: they do not fit together.
    """
    require_integer("seed", seed, at_least=0)
    model = unwrapped(model)
    check_label_names(data.labels)
    require_offset(chain_offset, schedule)
    train_size = size(data.train)
    require(
        schedule.batch_size <= train_size,
        f"schedule.batch_size must be <= the {train_size} training samples, got {schedule.batch_size}; lower it",
    )
    base, given = sampler, {}
    while isinstance(base, functools.partial):  # Hydra's partials within another are not flattened by functools
        base, given = base.func, {**base.keywords, **given}
    globs, origin = given.pop("parameters", None), given.get("nbeta")
    if "nbeta" in given:
        given["nbeta"] = resolve_nbeta(given["nbeta"], batch_size=schedule.batch_size, train_size=train_size)
    parameters = inspect.signature(base).parameters.items()
    kept = {name: item.default for name, item in parameters if name not in ("noise", "parameters")}
    defaults = {name: value for name, value in kept.items() if value is not inspect.Parameter.empty}
    settings = {"sampler": getattr(base, "__name__", str(base)), **defaults, **given, "parameters": globs}
    if not str(getattr(base, "__module__", "")).startswith("losskernel."):
        settings["code"] = stored_digest(base)
    settings["nbeta_origin"] = origin if isinstance(origin, str) else "number"
    moving = _moving_weights(model, globs, schedule)
    return Setup(model, data, functools.partial(base, **given), settings, moving, schedule, seed, chain_offset)


def require_offset(chain_offset: int, schedule: Schedule) -> None:
    """Raise InputError unless chains from this number on have random streams that nothing else uses."""
    require_integer("chain_offset", chain_offset, at_least=0)
    require(
        chain_offset + schedule.chains <= TRAINING_STREAM,
        f"chain_offset must be <= {TRAINING_STREAM - schedule.chains}, got {chain_offset}; lower it",
    )


def _moving_weights(model: nn.Module, globs: Any, schedule: Schedule) -> list[str]:
    """Return the names of the weights that match the globs, all for None, after checking their types."""
    weights = dict(model.named_parameters())
    names = [name for name, weight in weights.items() if weight.is_floating_point() or weight.is_complex()]
    require(len(names) > 0, f"{type(model).__name__} has no weights to sample; give a model with parameters")
    free = [name for name in names if weights[name].requires_grad]
    if globs is None:
        require(
            len(free) > 0,
            f"all weights of {type(model).__name__} have requires_grad=False; name those that move: parameters=['*']",
        )
    moving = free if globs is None else select(names, globs)
    complex_weights = [name for name in moving if weights[name].is_complex()]
    require(
        not complex_weights,
        f"{', '.join(complex_weights[:3])} of {type(model).__name__} are complex, and only real weights are sampled; "
        "name the weights that move in parameters=[...], or keep real and imaginary parts as real weights",
    )
    dtypes = {weight.dtype for name, weight in model.named_parameters() if name in set(moving)}
    got = ", ".join(sorted(map(str, dtypes)))
    fine = dtypes in ({torch.float32}, {torch.float64})  # in coarser types small steps are rounded away
    require(fine, f"the moving weights must all be float32 or all float64, got {got}; cast the model, e.g. .float()")
    require(
        schedule.probe_precision == "float32" or dtypes == {torch.float32},
        f"schedule.probe_precision={schedule.probe_precision} needs a float32 model, got {got}; leave it float32",
    )
    return moving


def identity(setup: Setup) -> dict[str, Any]:
    """Return what must agree for two runs to have the same chains, JSON-ready.

    Computed once, at the first call: reading samples changes some data sets.
    """
    if setup.known_identity:
        return setup.known_identity
    model, data, schedule = setup.model, setup.data, setup.schedule
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in setup.settings.items()}
    about = {
        "model": {
            "class": type(model).__name__,
            "weights": digest(model.state_dict().values()),
            "code": stored_digest(model, setup.moving),
        },
        "data": {
            "loss": loss_name(data.loss),
            "loss_code": stored_digest(data.loss),
            "train": fingerprint(data.train),
            "train_content": dataset_digest(data.train),
            "probes": fingerprint(data.probes),
            "probe_content": dataset_digest(data.probes),
        },
        "sampler": settings,
        "schedule": {name: getattr(schedule, name) for name in schedule.__dataclass_fields__},
        "seed": setup.seed,
    }
    # Stores written before runs could be split have no such key: 0 is left out so that they still match.
    about |= {"chain_offset": setup.chain_offset} if setup.chain_offset else {}
    setup.known_identity.update(about)
    return about


def provenance(setup: Setup, config: Mapping[str, Any], device: torch.device, block: int) -> dict[str, Any]:
    """Return the identity with configuration, counts, versions and the training loss at w*, JSON-ready.

    Args:
        setup: the run.
        config: stored as it is.
        device: where the chains run.
        block: samples evaluated at once.
    """
    weights = {name: weight.numel() for name, weight in setup.model.named_parameters()}
    train_loss, samples = train_loss_at_start(setup, block, device)
    return {
        "identity": identity(setup),
        "config": dict(config),
        "parameters": {"moving": sum(weights[name] for name in setup.moving), "all": sum(weights.values())},
        "steps_per_chain": setup.schedule.steps,
        "train_size": size(setup.data.train),
        "start_train_loss": {"value": train_loss, "samples": samples},
        "probe_batch_size": block,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "versions": {"losskernel": _version("losskernel"), "python": platform.python_version()}
        | {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"


def train_loss_at_start(setup: Setup, block: int, device: torch.device) -> tuple[float, int]:
    """Return (mean training loss at w*, samples it is over): all, or a fixed random part of a large set."""
    data, total = setup.data, size(setup.data.train)
    chosen = data.train
    if total > TRAIN_LOSS_SAMPLES:
        order = np.random.default_rng(setup.seed).permutation(total)[:TRAIN_LOSS_SAMPLES]
        chosen = Subset(data.train, sorted(order.tolist()))
    losses = start_losses(setup.model, data.loss, BlockLoader(chosen, block, data.workers, device))
    return float(losses.double().mean()), len(losses)
