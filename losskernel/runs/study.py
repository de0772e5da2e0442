"""Everything that one run needs, and what can be known to be wrong with it before compute."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from losskernel.analyses.result import Analysis, PointAnalysis
from losskernel.data.base import Data
from losskernel.errors import InputError
from losskernel.representations.baselines.collect import Baselines
from losskernel.representations.points import Source
from losskernel.runs.preflight import faults_of
from losskernel.sampling.samplers import Sampler
from losskernel.sampling.schedule import Schedule
from losskernel.training.fit import Training


@dataclass(frozen=True)
class Study:
    """Everything that one run needs.

    Attributes:
        model: network with its initial weights.
        data: training set, probes, loss.
        sampler: builds the Sampler.
        schedule: lengths of sampling; None samples nothing, for analyses of points alone.
        training: how to train where no checkpoint is given.
        analyses: name -> analysis; its metrics are called `name/...`.
        baselines: name -> what represents the probes otherwise, for analyses that compare.
        points: name -> what gives layers, labels or further kernels as points of one space.
        checkpoint: trained weights to load in place of training.
        trainer: builds a Lightning Trainer.
        seed: of minibatches and noise.
        chains_per_fit: chains stacked in one fit; None decides by the model's size.
        on_fail: "warn" or "stop": what a kernel that fails its diagnosis does to the run.
        control: whether to sample a companion at nbeta = 0, localisation noise alone, and ask it the same.
        progress: show progress bars.
        chain_offset: number of the first chain; runs that differ in it alone are parts of one kernel.
        state_every: seconds between resume states, the most that a kill can cost.
    """

    model: nn.Module
    data: Data
    sampler: Callable[..., Sampler]
    schedule: Schedule | None
    training: Training = field(default_factory=Training)
    analyses: Mapping[str, Analysis | PointAnalysis] = field(default_factory=dict)
    baselines: Baselines = field(default_factory=dict)
    points: Mapping[str, Source] = field(default_factory=dict)
    checkpoint: str | None = None
    trainer: Callable[..., Any] | None = None
    seed: int = 0
    chains_per_fit: int | None = None
    on_fail: str = "warn"
    control: bool = False
    progress: bool = True
    chain_offset: int = 0
    state_every: float = 20.0


def preflight(study: Study) -> None:
    """Find what can be known before compute, and report all of it together.

    Raises:
        InputError: one line per fault.
    """
    faults = faults_of({each.name: getattr(study, each.name) for each in fields(study)})
    if faults:
        raise InputError("\n".join(faults))
