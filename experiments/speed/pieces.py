"""Where losskernel's time goes: its own parts, each timed alone at the toy's shapes."""

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from baselines import BATCH, LOCALIZATION, NBETA, STEP_SIZE, THINNING, Toy

import losskernel as lk
from losskernel.sampling.chains import Chains
from losskernel.sampling.setup import setup_of

PARTS = ("noise", "minibatches", "gradient", "update", "probes / thinning")
COLUMNS = (*PARTS, "sum of parts", "whole, in memory", "whole, on disk", "Lightning and checks", "Zarr")


def pieces(toy: Toy, chain_counts: list[int], repeats: int, draws: int = 200) -> str:
    """Microseconds per chain-step of every part, as a Markdown table."""
    lines = ["| chains | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for chains in chain_counts:
        rounds = [one_round(toy, chains, max(20, draws // max(1, chains // 8))) for _ in range(repeats)]
        *parts, memory, disk = (median(values) for values in zip(*rounds, strict=True))
        numbers = [*parts, sum(parts), memory, disk, memory - sum(parts), disk - memory]
        lines.append(f"| {chains} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |")
    return "\n".join(lines)


def one_round(toy: Toy, chains: int, draws: int) -> list[float]:
    """Microseconds per chain-step of each of PARTS, and of whole runs in memory and on disk."""
    data = lk.Data(train=toy.train, probes=toy.probes, loss=lk.losses.squared_error)
    sampler = functools.partial(lk.SGLD, step_size=STEP_SIZE, nbeta=NBETA, localization=LOCALIZATION)

    def whole(count: int, folder: str | None) -> float:
        schedule = lk.Schedule(chains=chains, draws=count, burn_in=0, thinning=THINNING, batch_size=BATCH)
        out = None if folder is None else Path(folder) / f"{count}.zarr"
        start = time.perf_counter()
        lk.sample(toy.model, data, sampler, schedule, out=out, progress=False)
        return time.perf_counter() - start

    scale = 1e6 / (draws * THINNING * chains)
    memory = (whole(2 + draws, None) - whole(2, None)) * scale
    with tempfile.TemporaryDirectory() as folder:
        disk = (whole(2 + draws, folder) - whole(2, folder)) * scale
    return [*(spent * scale for spent in part_seconds(toy, data, sampler, chains, draws)), memory, disk]


def part_seconds(toy: Toy, data: lk.Data, sampler: Callable, chains: int, draws: int) -> list[float]:
    """Seconds that `draws` draws spend in each of PARTS, timed one call at a time in sampling's order."""
    schedule = lk.Schedule(chains=chains, draws=draws, burn_in=0, thinning=THINNING, batch_size=BATCH)
    module = Chains(setup_of(toy.model, data, sampler, schedule), range(chains))
    optimizer = module.configure_optimizers()
    module.on_fit_start()
    stack, views, noise = module._stack[0], module._views, module._noise
    drawn = torch.zeros_like(module.weights)
    optimizer.noise = lambda _: drawn  # so that the update is timed without its random numbers
    spent = [0.0] * len(PARTS)

    def timed(part: int, call: Callable):
        start = time.perf_counter()
        result = call()
        spent[part] += time.perf_counter() - start
        return result

    for step in range((draws + 2) * THINNING):
        if step == 2 * THINNING:
            spent = [0.0] * len(PARTS)  # the graphs are recorded by now
        noise.step = step
        drawn = timed(0, lambda: noise(module.weights))
        batch = timed(1, module._minibatches)
        gradient, _ = timed(2, lambda: stack.gradient(views, *batch))  # noqa: B023
        module.weights.grad = gradient
        timed(3, optimizer.step)
        if (step + 1) % THINNING == 0:
            timed(4, lambda: [stack.evaluator(views)(*block) for block in module._probes])
    return spent
