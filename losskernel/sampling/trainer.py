"""The Lightning Trainer of a stack of chains, without features that would change what the chains sample."""

from typing import Any

import pytorch_lightning as pl

from losskernel.errors import InputError
from losskernel.training.lightning import Progress, TrainerFactory, quiet, quiet_settings

# Callbacks that average weights, accumulate gradients or end a fit early: the chains would sample another distribution.
_CHANGES_STATIONARY_DISTRIBUTION = {
    "StochasticWeightAveraging",
    "WeightAveraging",
    "EMAWeightAveraging",
    "GradientAccumulationScheduler",
    "Timer",
}


def chain_trainer(
    trainer: pl.Trainer | TrainerFactory | None, progress: bool, rows: slice, chains: int, first: int = 0
) -> pl.Trainer:
    """Return the Trainer for one stack of chains: the given one, or a fresh one.

    Raises:
        InputError: the Trainer would change the chains' stationary distribution.
    """
    if not isinstance(trainer, pl.Trainer):
        name = f"Sampling chains {first + rows.start}-{first + rows.stop - 1} of {first}-{first + chains - 1}"
        name = name if first else f"Sampling chains {rows.start}-{rows.stop - 1} of {chains}"
        bar: list[pl.Callback] = [Progress(name)] if progress else []
        build = pl.Trainer if trainer is None else trainer
        with quiet():
            trainer = build(**quiet_settings(), max_epochs=1, enable_progress_bar=progress, callbacks=bar)
    refuse_changed_stationary_distribution(trainer)
    return trainer


def refuse_changed_stationary_distribution(trainer: pl.Trainer) -> None:
    """Raise InputError that names each Lightning feature with which chains would sample another distribution."""
    faults = []
    if trainer.gradient_clip_val:
        faults.append(f"gradient_clip_val={trainer.gradient_clip_val} (clipping changes the drift)")
    if trainer.accumulate_grad_batches != 1:
        faults.append(f"accumulate_grad_batches={trainer.accumulate_grad_batches} (set schedule.batch_size instead)")
    if trainer.precision != "32-true":
        faults.append(f"precision={trainer.precision} (cast the model instead, e.g. model.double())")
    if trainer.world_size != 1:
        faults.append(f"devices={trainer.world_size} (averaged gradients couple the chains; run more jobs instead)")
    limits: dict[str, Any] = {"max_steps": -1, "fast_dev_run": False, "overfit_batches": 0.0}
    faults += [
        f"{key}={getattr(trainer, key)} (ends training and chains early)"
        for key, unlimited in limits.items()
        if getattr(trainer, key) != unlimited
    ]
    faults += [
        f"callback {type(callback).__name__} (averages, accumulates, or ends early)"
        for callback in trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        if _CHANGES_STATIONARY_DISTRIBUTION & {parent.__name__ for parent in type(callback).__mro__}
    ]
    if faults:
        raise InputError(f"trainer: these settings change what the chains sample, remove them: {'; '.join(faults)}")
