"""SGLD's kernel beside the Laplace kernel: the arithmetic toy over localization, and digits at its recipe."""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from figure import draw
from torch import nn

import losskernel as lk
from losskernel.data import arithmetic, digits
from losskernel.models import MLP, MultitaskMLP
from losskernel.representations.laplace import Curvature, Gaussian, Network, curvature_of
from losskernel.training import Training

HERE = Path(__file__).parent
NBETA = 100.0
TOY_LOCALIZATIONS = np.geomspace(1, 1e7, 15)
NARROW, SINGULAR = 1e5, 1.0  # the two that the figure shows pair by pair
DIGITS_LOCALIZATIONS = (300.0, 3e4)
DIGITS_RANK = 100
GROUPS = 8  # of chains, each left out in turn for the error bars
SPLITS = 20  # of the chains into halves
SHOWN_PAIRS = 3000
GAUSSIAN_DRAWS = 4000


def trained(model: Callable[[], nn.Module], data: lk.Data, steps: int, rate: float) -> nn.Module:
    """Train as the recipes experiment=multitask and experiment=digits do, with seed 0."""
    torch.manual_seed(0)
    adam = functools.partial(torch.optim.Adam, lr=rate)
    return lk.fit(model(), data, Training(steps=steps, optimizer=adam), seed=0, progress=False)


def curvature(model: nn.Module, data: lk.Data, rank: int | None = None) -> tuple[Network, Curvature]:
    """The network at w* and the eigenpairs of its GGN."""
    network = Network(model, data, [name for name, _ in model.named_parameters()])
    return network, curvature_of(network, rank=rank)


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    """The entries above the diagonal, [N (N - 1) / 2]."""
    return matrix[np.triu_indices(len(matrix), 1)]


# --- sampling ---------------------------------------------------------------------------------------------


def toy_schedule(localization: float, sharpest: float) -> tuple[float, lk.Schedule]:
    """Step size and lengths: ε (nβ λ_max + γ) = 0.1, and draws lie half a relaxation time apart.

    Below a localization of 30 relaxation takes so many steps that fewer draws must do.
    """
    step_size = 0.1 / (sharpest + localization)
    relaxation = 2 / (step_size * localization)
    lengths = {"burn_in": round(3 * relaxation), "thinning": max(1, round(relaxation / 2))}
    return step_size, lk.Schedule(chains=64, draws=240 if localization >= 30 else 30, batch_size=64, **lengths)


def digits_schedule(localization: float, sharpest: float) -> tuple[float, lk.Schedule]:
    """The recipe's own step size and lengths, with shorter steps where localization would make them unstable."""
    step_size = min(3e-4, 0.1 / (sharpest + localization))
    return step_size, lk.Schedule(chains=8, burn_in=500, draws=500, thinning=10, batch_size=64)


def sampled(
    model: nn.Module, data: lk.Data, localization: float, plan: tuple[float, lk.Schedule]
) -> tuple[lk.LossTraces, float]:
    """Traces of plain SGLD, and the processor seconds they took."""
    step_size, schedule = plan
    sampler = functools.partial(lk.SGLD, step_size=step_size, nbeta=NBETA, localization=localization)
    start = time.process_time()
    traces = lk.sample(model, data, sampler, schedule, progress=False)
    return traces, time.process_time() - start


def gaussian_draws(network: Network, gaussian: Gaussian, data: lk.Data, draws: int) -> lk.LossKernel:
    """The kernel of the true losses at independent draws from the Gaussian: its shape, without expanding losses."""
    torch.manual_seed(0)
    inputs, targets = (tensor.double() for tensor in data.probes.tensors)  # pyright: ignore[reportAttributeAccessIssue]
    noise = gaussian.whiten(torch.randn(draws, len(network.weights), dtype=torch.float64))
    losses = torch.func.vmap(lambda w: data.loss(network.outputs(w, inputs), targets))(network.weights + noise)
    return lk.LossKernel.from_traces(lk.LossTraces.from_arrays(losses[None].numpy()))


# --- comparison -------------------------------------------------------------------------------------------


def agreement(sampled: lk.LossKernel, reference: lk.LossKernel) -> dict[str, float]:
    """How alike two kernels are: in R, in the size of K, and in the direction of K as a matrix."""
    ours, theirs = sampled.covariance(), reference.covariance()
    pairs = np.corrcoef(off_diagonal(sampled.correlation()), off_diagonal(reference.correlation()))
    return {
        "correlation": float(pairs[0, 1]),
        "trace_ratio": float(np.trace(ours) / np.trace(theirs)),
        "cosine": float((ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs)),
    }


def with_errors(kernel: lk.LossKernel, reference: lk.LossKernel) -> dict[str, float]:
    """The agreement with its standard errors, by leaving out one group of chains at a time."""
    whole = agreement(kernel, reference)
    groups = np.array_split(np.arange(kernel.chains), GROUPS)
    left = [agreement(kernel.only(np.setdiff1d(range(kernel.chains), each).tolist()), reference) for each in groups]
    result: dict[str, float] = {}
    for name, value in whole.items():
        spread = np.array([each[name] for each in left])
        result |= {name: value, f"{name}_se": float(np.sqrt((GROUPS - 1) * spread.var()))}
    return result


def ceilings(kernel: lk.LossKernel) -> dict[str, float]:
    """What a noiseless reference that is exactly right would score against this kernel, from split halves.

    Halves that agree to h mean a whole that agrees with the truth to sqrt(2h / (1 + h)) (Spearman and Brown).
    """
    rng = np.random.default_rng(0)
    halves = [np.array_split(rng.permutation(kernel.chains), 2) for _ in range(SPLITS)]
    found = [agreement(kernel.only(a.tolist()), kernel.only(b.tolist())) for a, b in halves]
    means = {name: np.mean([each[name] for each in found]) for name in ("correlation", "cosine")}
    return {f"{name}_ceiling": float(np.sqrt(2 * h / (1 + h))) for name, h in means.items()}


def rows_of(
    study: str, localization: float, run: tuple[lk.LossTraces, float], references: Mapping[str, lk.LossKernel]
) -> list[dict[str, Any]]:
    """One row per reference: its agreement with the sampled kernel, and what is known of the chains."""
    traces, seconds = run
    kernel = lk.LossKernel.from_traces(traces)
    diagnosis = lk.diagnose(traces)
    train = traces.record("train_loss")
    gains = NBETA * (train.mean(1) - traces.meta["start_train_loss"]["value"])  # [C]
    about = {
        "chain_gain": gains.mean(),
        "chain_gain_se": gains.std(ddof=1) / np.sqrt(len(gains)),
        "rhat": diagnosis.metrics["rhat"],
        "verdict": diagnosis.verdict,
        "steps": traces.meta["steps_per_chain"],
        "seconds": round(seconds, 1),
    }
    shared = {"study": study, "localization": localization}
    limits = ceilings(kernel)
    return [
        shared | {"reference": name} | with_errors(kernel, reference) | limits | about
        for name, reference in references.items()
    ]


def some_pairs(kernel: lk.LossKernel, reference: lk.LossKernel) -> np.ndarray:
    """R of some pairs of probes, [2, SHOWN_PAIRS]: the reference's, and the sampled."""
    both = np.stack([off_diagonal(reference.correlation()), off_diagonal(kernel.correlation())])
    chosen = np.random.default_rng(0).choice(both.shape[1], SHOWN_PAIRS, replace=False)
    return both[:, chosen].astype(np.float32)


# --- the two studies --------------------------------------------------------------------------------------


def toy_study() -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """One network, two arithmetic tasks (experiment=multitask), over seven decades of localization."""
    data = arithmetic()
    model = trained(lambda: MultitaskMLP(2), data, steps=3000, rate=1e-2)
    network, spectrum = curvature(model, data)
    scaled = NBETA * spectrum.values.numpy()
    rows, pairs = [], {}
    for localization in TOY_LOCALIZATIONS.tolist():
        kernel_at = functools.partial(lk.laplace_kernel, model, data, nbeta=NBETA, localization=localization)
        references = {
            "order 1": kernel_at(order=1),
            "order 2": kernel_at(),
            "order 2, exact": kernel_at(hessian="exact"),
            "Gaussian draws": gaussian_draws(network, Gaussian(spectrum, NBETA, localization), data, GAUSSIAN_DRAWS),
        }
        run = sampled(model, data, localization, toy_schedule(localization, scaled.max()))
        found = rows_of("toy", localization, run, references)
        rows += [
            row | {"sharpest": scaled.max(), "gain": (scaled / (scaled + localization)).sum() / 2} for row in found
        ]
        for name, chosen in (("narrow", NARROW), ("singular", SINGULAR)):
            if np.isclose(localization, chosen):
                pairs[name] = some_pairs(lk.LossKernel.from_traces(run[0]), references["order 2"])
        print(pd.DataFrame(found).round(4).to_string(header=len(rows) == len(found)), flush=True)
    return rows, pairs


def digits_study() -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """An MLP of 8,970 weights (experiment=digits), where only leading eigenpairs of H are found."""
    data = digits()
    model = trained(lambda: MLP(64, 10), data, steps=1000, rate=3e-3)
    _, spectrum = curvature(model, data, DIGITS_RANK)
    scaled = NBETA * spectrum.values.numpy()
    print(f"digits: nbeta times eigenvalues {scaled.max():.0f} to {scaled.min():.2f}")
    rows, pairs = [], {}
    for localization in DIGITS_LOCALIZATIONS:
        kernel_at = functools.partial(
            lk.laplace_kernel, model, data, nbeta=NBETA, localization=localization, rank=DIGITS_RANK
        )
        references = {"order 1": kernel_at(order=1), "order 2": kernel_at(), "order 2, rank 10": kernel_at(rank=10)}
        run = sampled(model, data, localization, digits_schedule(localization, scaled.max()))
        found = rows_of("digits", localization, run, references)
        rows += [row | {"sharpest": scaled.max()} for row in found]
        if localization == DIGITS_LOCALIZATIONS[0]:
            pairs["digits"] = some_pairs(lk.LossKernel.from_traces(run[0]), references["order 2"])
        print(pd.DataFrame(found).round(4).to_string(), flush=True)
    return rows, pairs


def main() -> None:
    """Run both studies; leave results.csv, pairs.npz and the figure beside this file."""
    start = time.process_time()
    toy_rows, toy_pairs = toy_study()
    digits_rows, digits_pairs = digits_study()
    pd.DataFrame(toy_rows + digits_rows).to_csv(HERE / "results.csv", index=False, float_format="%.6g")
    np.savez_compressed(HERE / "pairs.npz", **toy_pairs, **digits_pairs)  # pyright: ignore[reportArgumentType]
    draw(HERE)
    print(f"{time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()
