"""The problems of the sampler study: the recipes' models, data and targets, and the settings that are tried."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

import losskernel as lk
from losskernel.data import arithmetic, digits
from losskernel.models import MLP, MultitaskMLP
from losskernel.sampling.samplers import Sampler

RECIPE_BATCH, RECIPE_THINNING, NBETA = 64, 10, 100.0


class Setting(NamedTuple):
    """A sampler and what may be chosen about it; the target is the problem's."""

    sampler: str
    step_size: float
    batch_size: int = RECIPE_BATCH
    momentum: float | None = None
    thermostat_mass: float | None = None

    def build(self, localization: float) -> Callable[..., Sampler]:
        """Return the sampler that lk.sample takes."""
        own = {"momentum": self.momentum, "thermostat_mass": self.thermostat_mass}
        given = {name: value for name, value in own.items() if value is not None}
        kind = getattr(lk, self.sampler)
        return functools.partial(kind, step_size=self.step_size, nbeta=NBETA, localization=localization, **given)


class Problem(NamedTuple):
    """A trained network and its target.

    Attributes:
        make: gives model and data.
        localization: γ of the recipe; nbeta is 100 in both.
        burn_in: steps before the first draw.
        steps: per run, after burn-in.
        reference_steps: of SGHMC without momentum on large batches, the reference kernel; as many of SGLD at half
            the step, its check. Both are recorded 1,600 times.
        reference_step_size: ε of it.
        settings: what is tried; the first is the recipe's SGLD.
    """

    make: Callable[[], tuple[nn.Module, lk.Data]]
    localization: float
    burn_in: int
    steps: int
    reference_steps: int
    reference_step_size: float
    settings: list[Setting]


def _digits() -> tuple[nn.Module, lk.Data]:
    return _fit(MLP(64, 10, [64, 64]), digits(seed=0), steps=1000, lr=3e-3)


def _multitask() -> tuple[nn.Module, lk.Data]:
    return _fit(MultitaskMLP(2), arithmetic(seed=0), steps=3000, lr=1e-2)


def _fit(model: nn.Module, data: lk.Data, steps: int, lr: float) -> tuple[nn.Module, lk.Data]:
    optimizer = functools.partial(torch.optim.Adam, lr=lr)
    training = lk.Training(steps=steps, batch_size=128, optimizer=optimizer, checkpoints=0)
    return lk.fit(model, data, training, seed=0, progress=False), data


def _grid(sampler: str, *rows: tuple[float, ...]) -> list[Setting]:
    """Settings from rows (batch_size, step_size, momentum, thermostat_mass), the last two where there are such."""
    return [Setting(sampler, step, int(batch), *own) for batch, step, *own in rows]


PROBLEMS = {
    "digits": Problem(
        _digits,
        localization=300.0,
        burn_in=300,
        steps=2000,
        reference_steps=8000,
        reference_step_size=2e-4,
        settings=[
            *_grid("SGLD", (64, 3e-4), (64, 6e-4), (256, 3e-4), (256, 4e-4)),
            *_grid("SGHMC", (64, 3e-4, 0.0), (64, 6e-4, 0.0), (64, 8e-4, 0.0), (64, 1.2e-3, 0.0)),
            *_grid("SGHMC", (64, 1e-4, 0.5), (64, 2e-4, 0.5), (64, 2.5e-4, 0.5), (64, 4e-4, 0.5), (64, 8e-5, 0.8)),
            *_grid("SGHMC", (128, 1.2e-3, 0.0), (128, 4e-4, 0.5), (128, 5e-4, 0.5)),
            *_grid("SGHMC", (256, 1e-3, 0.0), (256, 1.8e-3, 0.0), (256, 8e-4, 0.5), (256, 1e-3, 0.5), (256, 3e-4, 0.8)),
            *_grid(
                "SGNHT", (64, 2.5e-4, 0.5, 1.0), (64, 2.5e-4, 0.5, 0.02), (64, 4e-4, 0.5, 0.02), (64, 8e-5, 0.8, 0.02)
            ),
            *_grid("SGNHT", (256, 8e-4, 0.5, 0.05), (256, 1e-3, 0.5, 0.05)),
        ],
    ),
    "multitask": Problem(
        _multitask,
        localization=50.0,
        burn_in=2000,
        steps=8000,
        reference_steps=16_000,
        reference_step_size=2e-4,
        settings=[
            *_grid("SGLD", (64, 5e-4), (64, 1e-3), (256, 5e-4)),
            *_grid("SGHMC", (64, 5e-4, 0.0), (64, 1e-3, 0.0), (64, 2e-3, 0.0), (64, 5e-4, 0.5), (64, 1e-3, 0.5)),
            *_grid("SGHMC", (64, 2e-4, 0.8), (64, 5e-4, 0.8), (64, 2e-4, 0.9), (256, 2e-3, 0.0), (256, 1e-3, 0.5)),
            *_grid("SGHMC", (64, 1.5e-3, 0.5), (64, 2e-3, 0.5), (64, 1e-3, 0.8), (256, 1e-3, 0.8), (256, 5e-4, 0.9)),
            *_grid("SGNHT", (64, 5e-4, 0.5, 1.0), (64, 5e-4, 0.5, 0.05), (64, 1e-3, 0.5, 0.05), (64, 5e-4, 0.8, 0.05)),
            *_grid("SGNHT", (256, 1e-3, 0.8, 0.05)),
        ],
    ),
}
