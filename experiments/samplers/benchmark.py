"""Effective draws per second of every sampler, at a bias no larger than that of the recipe's SGLD."""

import argparse
import contextlib
import csv
import logging
import os
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is loaded
import numpy as np
import pytorch_lightning as pl
import torch
from problems import PROBLEMS, RECIPE_THINNING, Problem, Setting
from torch import nn

import losskernel as lk
from losskernel.errors import DivergenceError

HERE = Path(__file__).parent
CHAINS, SCAN_THINNING, THINNINGS = 8, 2, (1, 2, 3, 5, 10)
REFERENCE_BATCH, REFERENCE_DRAWS = 500, 1600
# What must not be worse than for the recipe's SGLD.
BIASES = ("mean_loss", "trace", "typical_variance")


class Clock(pl.Callback):
    """Processor seconds from the end of burn-in to the last draw, which other processes on the machine leave alone."""

    def __init__(self, skip: int) -> None:
        self._left, self._start, self._end = skip, 0.0, 0.0

    def on_train_batch_end(self, *_: Any) -> None:
        """Note the time of a draw."""
        self._left -= 1
        self._end = time.process_time()
        if self._left == 0:
            self._start = self._end

    @property
    def seconds(self) -> float:
        """Seconds of all draws."""
        return self._end - self._start


class Reference(NamedTuple):
    """A kernel that is close to the target's, from chains of many small steps on large batches."""

    halves: tuple[np.ndarray, np.ndarray]  # R [N, N] of either half of the chains
    mean_loss: float
    variances: np.ndarray  # [N]
    modes: np.ndarray  # [3, N], leading eigenvectors of K
    mode_variances: np.ndarray  # [3]


def draw(
    problem: Problem, model: nn.Module, data: lk.Data, setting: Setting, thinning: int, steps: int, seed: int
) -> tuple[lk.LossTraces, float]:
    """Return traces and the processor seconds of the recorded draws."""
    burn_in = -(-problem.burn_in // thinning) * thinning
    schedule = lk.Schedule(
        chains=CHAINS, burn_in=burn_in, draws=steps // thinning, thinning=thinning, batch_size=setting.batch_size
    )
    clock = Clock(burn_in // thinning)
    sampler = setting.build(problem.localization)
    traces = lk.sample(model, data, sampler, schedule, seed=seed, progress=False, callbacks=[clock])
    return traces, clock.seconds


def correlation(losses: np.ndarray) -> np.ndarray:
    """R [N, N] of losses [C, D, N], centred within chains."""
    return lk.LossKernel.from_traces(lk.LossTraces.from_arrays(losses)).correlation()


def covariance(losses: np.ndarray) -> np.ndarray:
    """K [N, N] of losses [C, D, N], centred within chains."""
    return lk.LossKernel.from_traces(lk.LossTraces.from_arrays(losses)).covariance()


def refer(losses: np.ndarray) -> Reference:
    """Keep of a long trace what others are compared with."""
    kernel = covariance(losses)
    values, vectors = np.linalg.eigh(kernel)
    halves = correlation(losses[::2]), correlation(losses[1::2])
    return Reference(halves, losses.mean(dtype=np.float64), np.diag(kernel), vectors.T[::-1][:3], values[::-1][:3])


def biases(losses: np.ndarray, reference: Reference) -> dict[str, float]:
    """Relative errors against the reference, and the root mean square error of R beyond what finite draws explain.

    The product of the errors of two independent halves, each against its own half of the reference, has the
    squared bias as its mean; noise can make it negative, which the sign of the root keeps.
    """
    kernel = covariance(losses)
    above = np.triu_indices(len(kernel), 1)
    first, second = correlation(losses[::2]), correlation(losses[1::2])
    one, other = reference.halves
    products = [
        ((first - one) * (second - other))[above].mean(),
        ((first - other) * (second - one))[above].mean(),
    ]
    square = float(np.mean(products))
    along = np.einsum("mi,ij,mj->m", reference.modes, kernel, reference.modes)
    return {
        "mean_loss": losses.mean(dtype=np.float64) / reference.mean_loss - 1,
        "trace": np.trace(kernel) / reference.variances.sum() - 1,
        "typical_variance": float(np.median(np.diag(kernel) / reference.variances)) - 1,
        "leading_variance": float((along / reference.mode_variances).mean()) - 1,
        "R_rms": float(np.sign(square) * np.sqrt(abs(square))),
    }


def effective(losses: np.ndarray) -> dict[str, float]:
    """ESS of the mean loss, and the least over it, leading directions and entries of the kernel."""
    metrics = lk.diagnose(lk.LossTraces.from_arrays(losses)).metrics
    return {"ess_mean_loss": metrics["ess"], "ess": min(metrics["ess"], metrics["ess_kernel"])}


def probe_seconds(problem: Problem, model: nn.Module, data: lk.Data) -> float:
    """Seconds to record the probes once, from runs that differ only in thinning."""
    found = []
    for seed in range(3):
        spent = [draw(problem, model, data, problem.settings[0], thinning, 400, seed)[1] for thinning in (2, 20)]
        found.append((spent[0] - spent[1]) / (200 - 20))
    return max(median(found), 0.0)


def scan(problem: Problem, model: nn.Module, data: lk.Data, reference: Reference) -> list[dict[str, Any]]:
    """Try every setting once, at every thinning; one row each, none where a chain diverges."""
    probes, rows, runs = probe_seconds(problem, model, data), [], {}
    for setting in problem.settings:
        with contextlib.suppress(DivergenceError):
            traces, seconds = draw(problem, model, data, setting, SCAN_THINNING, problem.steps, seed=3)
            runs[setting] = traces.losses.values, seconds
    for setting, (losses, _) in runs.items():
        # What else is set does not change what a step costs: the median of several runs is less disturbed.
        alike = [spent for other, (_, spent) in runs.items() if _kind(other) == _kind(setting)]
        seconds, bias = median(alike), biases(losses, reference)
        for every in THINNINGS:
            thinned = losses[:, every - 1 :: every]
            spent = seconds - probes * (losses.shape[1] - thinned.shape[1])
            found = effective(thinned)
            row = setting._asdict() | {"thinning": every * SCAN_THINNING, "steps": problem.steps, "seconds": spent}
            rows.append(row | found | {"ess_per_second": found["ess"] / spent} | bias)
    return rows


def _kind(setting: Setting) -> tuple[str, int]:
    return setting.sampler, setting.batch_size


def contenders(rows: list[dict[str, Any]], recipe: Setting) -> dict[str, tuple[Setting, int]]:
    """Choose what is measured again: the recipe, and the fastest of each sampler whose bias is no larger."""
    own = next(row for row in rows if _setting(row) == recipe)
    sound = [row for row in rows if all(abs(row[name]) <= abs(own[name]) for name in BIASES)]
    chosen = {"SGLD, recipe": (recipe, RECIPE_THINNING)}

    def add(name: str, among: list[dict[str, Any]]) -> None:
        if among:
            best = max(among, key=lambda row: row["ess_per_second"])
            pair = _setting(best), best["thinning"]
            if pair not in chosen.values():
                chosen[name] = pair

    add("SGLD, recipe, best thinning", [row for row in rows if _setting(row) == recipe])
    for sampler in ("SGLD", "SGHMC", "SGNHT"):
        own_rows = [row for row in sound if row["sampler"] == sampler]
        add(f"{sampler}, recipe's batch", [row for row in own_rows if row["batch_size"] == recipe.batch_size])
        add(f"{sampler}, any batch", own_rows)
    return chosen


def _setting(row: dict[str, Any]) -> Setting:
    return Setting(**{name: row[name] for name in Setting._fields})


def compare(
    problem: Problem,
    model: nn.Module,
    data: lk.Data,
    reference: Reference,
    chosen: dict[str, tuple[Setting, int]],
    repeats: int,
) -> list[dict[str, Any]]:
    """Run the chosen settings in turn, with a new seed each round; medians, and ratios within a round."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for repeat in range(repeats):
        for name, (setting, thinning) in chosen.items():
            traces, seconds = draw(problem, model, data, setting, thinning, problem.steps, seed=100 + repeat)
            losses = traces.losses.values
            found = effective(losses)
            rates = {"ess_per_second": found["ess"] / seconds, "seconds": seconds}
            rounds[name].append(found | rates | biases(losses, reference))
    rows = []
    baseline = [each["ess_per_second"] for each in rounds["SGLD, recipe"]]
    for name, (setting, thinning) in chosen.items():
        row: dict[str, Any] = {"name": name} | setting._asdict() | {"thinning": thinning, "steps": problem.steps}
        row |= {key: median(each[key] for each in rounds[name]) for key in rounds[name][0]}
        ratios = [each["ess_per_second"] / base for each, base in zip(rounds[name], baseline, strict=True)]
        rows.append(row | {"ratio": median(ratios), "least_ratio": min(ratios), "largest_ratio": max(ratios)})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV, numbers to four digits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _number(value) for name, value in row.items()})


def _number(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def table(rows: list[dict[str, Any]]) -> str:
    """Lay out the comparison as a Markdown table."""
    head = ["what", "step_size", "momentum", "batch", "thinning", "ESS", "CPU s", "ESS/s", "ratio (range)"]
    head += ["mean loss", "trace K", "typical var", "leading var", "R rms"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        momentum = "" if row["momentum"] is None else f"{row['momentum']:g}"
        cells = [row["name"], f"{row['step_size']:g}", momentum, str(row["batch_size"]), str(row["thinning"])]
        cells += [f"{row['ess']:.0f}", f"{row['seconds']:.2f}", f"{row['ess_per_second']:.0f}"]
        cells += [f"{row['ratio']:.1f} ({row['least_ratio']:.1f}–{row['largest_ratio']:.1f})"]
        cells += [f"{row[name]:+.1%}" for name in (*BIASES, "leading_variance")] + [f"{row['R_rms']:+.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def study(name: str, repeats: int) -> str:
    """Run the whole study of one problem; write its CSV files and return its table."""
    problem = PROBLEMS[name]
    torch.manual_seed(0)
    model, data = problem.make()
    small = Setting("SGHMC", problem.reference_step_size, REFERENCE_BATCH, 0.0)
    thinning = problem.reference_steps // REFERENCE_DRAWS
    long = draw(problem, model, data, small, thinning, problem.reference_steps, seed=11)[0].losses.values
    reference = refer(long)
    checking = Setting("SGLD", problem.reference_step_size / 2, REFERENCE_BATCH)
    check = draw(problem, model, data, checking, thinning, problem.reference_steps, seed=12)[0].losses.values
    shown = ", ".join(f"{key} {value:+.3f}" for key, value in biases(check, reference).items())
    print(f"reference: ESS {effective(long)['ess']:.0f}; SGLD at half its step against it: {shown}", flush=True)
    rows = scan(problem, model, data, reference)
    write(HERE / f"{name}_scan.csv", rows)
    compared = compare(problem, model, data, reference, contenders(rows, problem.settings[0]), repeats)
    write(HERE / f"{name}.csv", compared)
    return table(compared)


def main() -> int:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", default=",".join(PROBLEMS), help="comma-separated")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved rounds; medians are shown")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # Lightning's advice on loaders and workers
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in arguments.problems.split(","):
        start = time.perf_counter()
        print(f"\n## {name}\n", flush=True)
        shown = study(name, arguments.repeats)
        print(f"\n{shown}\n\n{time.perf_counter() - start:.0f} s in all", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
