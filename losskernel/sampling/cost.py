"""The cost of sampling, measured at w* before it starts."""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from losskernel.errors import DivergenceError
from losskernel.figures.shared.presentation import TIMES, in_unit
from losskernel.sampling.chains import Chains, Stride
from losskernel.sampling.schedule import Schedule
from losskernel.sampling.step_checks import Effort, step_check_gradients
from losskernel.traces.records import PRECISION_CHECKS

_SHORT = 20.0  # seconds below which a run's cost is not shown
_REPEATS = 2  # timed calls after a first one, which records the operations
# (size, name, the number from which it is used)
_SIZES = ((10**9, "GB", 10**9), (10**6, "MB", 10**6), (10**3, "kB", 10**3), (1, "B", 0))


class Measured(NamedTuple):
    """Times and sizes of a stack of chains on this machine."""

    step: float  # seconds a sampler step
    evaluation: float  # seconds an evaluation of all probes
    chains: int  # in the stack
    probes: int
    effort: Effort  # of its step checks
    number_bytes: int  # of a loss


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
        cost = estimate(schedule, measure(chains))
    except DivergenceError:  # sampling diverges at the same step, and reports it with a remedy
        return {}
    if cost.seconds > _SHORT:
        sys.stderr.write(words(cost, schedule, chains.probes) + "\n")
    return {"cost": cost._asdict()}


def measure(chains: Chains) -> Measured:
    """Time a few steps and a few blocks of probes, and return the chains to where they were."""
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
    count, probes = len(chains.weights), chains.probes
    return Measured(step, share * probes, count, probes, chains.effort, chains.weights.element_size())


def estimate(schedule: Schedule, measured: Measured) -> Cost:
    """Return the cost of a schedule, whose stacks run one after another."""
    stacks = -(-schedule.chains // measured.chains)
    steps = schedule.steps + step_check_gradients(measured.effort, schedule.batch_size)
    evaluations = schedule.draws
    if schedule.probe_precision != "float32":
        steps += PRECISION_CHECKS * schedule.thinning
        evaluations += 2 * PRECISION_CHECKS
    return Cost(
        forward=measured.chains * measured.probes / measured.evaluation,
        gradients=measured.chains * schedule.batch_size / measured.step,
        seconds=stacks * (steps * measured.step + evaluations * measured.evaluation),
        bytes=measured.number_bytes * schedule.chains * schedule.draws * measured.probes,
    )


def words(cost: Cost, schedule: Schedule, probes: int) -> str:
    """Return the cost as one line for the user."""
    return (
        f"sampling {schedule.chains} chains x {schedule.draws} draws of {probes:,} probes: "
        f"{_rate(cost.forward)} samples/s forward, {_rate(cost.gradients)} samples/s gradients; "
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


def _rate(number: float) -> str:
    """Return a rate to three digits, with commas between thousands."""
    rounded = float(f"{number:.3g}")
    return f"{rounded:g}" if rounded < 100 else f"{rounded:,.0f}"


def _scaled(number: float, units: tuple[tuple[int, str, int], ...]) -> str:
    """Return a number to two digits, in the largest unit that suits it."""
    count, unit = in_unit(number, units)
    return f"{float(f'{count:.2g}'):g} {unit}"
