"""Microseconds per chain-step of losskernel and of other ways to sample the same toy, from one process."""

import argparse
import functools
import importlib.util
import json
import logging
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from agreement import check
from baselines import (
    BATCH,
    LOCALIZATION,
    NBETA,
    STEP_SIZE,
    THINNING,
    Toy,
    devinterp,
    devinterp_rows,
    fused,
    loop,
    make_toy,
)
from torch import Tensor

DEVINTERP_COMMAND = "uv run --with devinterp==1.3.2 experiments/speed/benchmark.py"
SHORT = 2 * THINNING  # steps of the short run; two draws are the fewest that make a trace


def losskernel(toy: Toy, chains: int, steps: int) -> Tensor:
    """Sample through the public call, Lightning and the Zarr store included; probe losses [C, D, N]."""
    import losskernel as lk

    task = toy.probes.tensors[0][:, 3].int().numpy()
    data = lk.Data(train=toy.train, probes=toy.probes, loss=lk.losses.squared_error, labels={"task": task})
    sampler = functools.partial(lk.SGLD, step_size=STEP_SIZE, nbeta=NBETA, localization=LOCALIZATION)
    draws = steps // THINNING
    schedule = lk.Schedule(chains=chains, burn_in=0, draws=draws, thinning=THINNING, batch_size=BATCH)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on loaders and workers
        out = Path(folder) / "traces.zarr"
        traces = lk.sample(toy.model, data, sampler, schedule, seed=0, out=out, progress=False)
        return torch.from_numpy(traces.losses.values)


IMPLEMENTATIONS: dict[str, Callable[[Toy, int, int], Tensor]] = {
    "loop": loop,
    "devinterp": devinterp,
    "devinterp-rows": devinterp_rows,
    "fused": fused,
    "losskernel": losskernel,
}
# devinterp runs one chain after another, so more chains cost the same each.
SEQUENTIAL_UP_TO = {"devinterp": 8, "devinterp-rows": 8}


def available(names: list[str]) -> list[str]:
    """Drop what cannot run here, and say so in a line each."""
    kept = []
    for name in names:
        if name.startswith("devinterp") and importlib.util.find_spec("devinterp") is None:
            print(f"row {name!r} is missing: devinterp is not installed; run `{DEVINTERP_COMMAND}`")
        elif name == "losskernel" and importlib.util.find_spec("losskernel.sampling.sample") is None:
            print("row 'losskernel' is missing: losskernel.sampling.sample does not exist")
        else:
            kept.append(name)
    return kept


def seconds(run: Callable[[Toy, int, int], Tensor], toy: Toy, chains: int, steps: int) -> float:
    """Wall seconds of one run."""
    start = time.perf_counter()
    run(toy, chains, steps)
    return time.perf_counter() - start


def extra_steps(run: Callable[[Toy, int, int], Tensor], toy: Toy, chains: int, budget: float) -> int:
    """By how many steps a long run must exceed a short one to last `budget` seconds, or twice as long."""
    short = min(seconds(run, toy, chains, SHORT) for _ in range(3))  # the first one warms up
    goal, extra = max(budget, short), SHORT
    while (gain := seconds(run, toy, chains, SHORT + extra) - short) < goal / 2:
        extra *= 2
    return THINNING * max(1, round(extra * min(1, goal / gain) / THINNING))


def measure(toy: Toy, names: list[str], chain_counts: list[int], repeats: int, budget: float) -> dict:
    """Time every implementation at every chain count; a short and a long run tell set-up from steps.

    Repeats go round all implementations, so that a drift of the machine meets each of them alike.
    """
    extra = {
        (name, chains): extra_steps(IMPLEMENTATIONS[name], toy, chains, budget)
        for name in names
        for chains in chain_counts
        if chains <= SEQUENTIAL_UP_TO.get(name, chains)
    }
    short: dict = {cell: [] for cell in extra}
    long: dict = {cell: [] for cell in extra}
    for _ in range(repeats):
        for (name, chains), steps in extra.items():
            short[name, chains].append(seconds(IMPLEMENTATIONS[name], toy, chains, SHORT))
            long[name, chains].append(seconds(IMPLEMENTATIONS[name], toy, chains, SHORT + steps))
    table: dict = {name: {} for name in names}
    for cell, steps in extra.items():
        scale = 1e6 / (steps * cell[1])
        slopes = [(b - a) * scale for a, b in zip(short[cell], long[cell], strict=True)]
        table[cell[0]][cell[1]] = {
            "median": statistics.median(slopes),
            "least": (min(long[cell]) - min(short[cell])) * scale,
            "setup_s": statistics.median(short[cell]) - SHORT * statistics.median(slopes) / scale / steps,
            "steps": steps,
            "short_s": short[cell],
            "long_s": long[cell],
        }
    return table


def report(table: dict, chain_counts: list[int]) -> str:
    """Lay out times, ratios and set-up seconds as Markdown tables, every pair as median (least disturbed)."""
    head = "".join(f" {count} |" for count in chain_counts) + "\n|---|" + "---|" * len(chain_counts)
    lines: list[str] = []

    def add(title: str, cell: Callable[[dict, int], str]) -> None:
        lines.append(f"| {title} |{head}")
        for name, rows in table.items():
            lines.append(f"| {name} | " + " | ".join(cell(rows, count) for count in chain_counts) + " |")
        lines.append("")

    def of(rows: dict, count: int) -> dict:
        return rows[count if count in rows else max(rows)]

    def times(rows: dict, count: int) -> str:
        return f"{of(rows, count)['median']:.1f} ({of(rows, count)['least']:.1f}){'*' * (count not in rows)}"

    def ratios(reference: str, inverse: bool, rows: dict, count: int) -> str:
        pairs = [(of(table[reference], count)[kind], of(rows, count)[kind]) for kind in ("median", "least")]
        median, least = (own / other if inverse else other / own for other, own in pairs)
        return f"{median:.3g} ({least:.3g})"

    add("us per chain-step, by chains", times)
    lines.append("`*` reused from fewer chains: the sampler runs one chain after another.\n")
    if "devinterp" in table:
        add("times as fast as devinterp", functools.partial(ratios, "devinterp", False))
    if "fused" in table:
        add("times as long as fused", functools.partial(ratios, "fused", True))
    add("set-up seconds", lambda rows, count: f"{rows[count]['setup_s']:.2f}" if count in rows else "")
    return "\n".join(lines)


def main() -> int:
    """Parse the command line, measure, print; 0 unless a check fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", default="1,8,64,256", help="chain counts, comma-separated")
    parser.add_argument("--implementations", default=",".join(IMPLEMENTATIONS), help="rows, comma-separated")
    parser.add_argument("--threads", default="1,2", help="thread counts, comma-separated")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats; the median is shown")
    parser.add_argument("--budget", type=float, default=0.5, help="seconds from short to long run")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--check", action="store_true", help="only check that the implementations agree")
    parser.add_argument("--profile", action="store_true", help="only show where losskernel's time goes")
    arguments = parser.parse_args()
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    chain_counts = [int(count) for count in arguments.chains.split(",")]
    toy = make_toy()
    if arguments.check:
        return 0 if check(toy) else 1
    saved = {"torch": torch.__version__, "python": platform.python_version(), "threads": {}}
    names = available(arguments.implementations.split(","))
    for threads in (int(count) for count in arguments.threads.split(",")):
        torch.set_num_threads(threads)
        print(f"\n## {threads} thread{'s' * (threads > 1)}\n", flush=True)
        if arguments.profile:
            from pieces import pieces

            print(pieces(toy, chain_counts, arguments.repeats))
            continue
        table = measure(toy, names, chain_counts, arguments.repeats, arguments.budget)
        saved["threads"][threads] = table
        print(report(table, chain_counts), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(saved, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
