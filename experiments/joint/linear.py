"""Linear regression, where all is known: does the sampled loss kernel go to the loss gradients as it should?

python experiments/joint/linear.py · one core, two to three minutes · writes linear.csv and linear.png beside this file.

With losses l_i = (x_i · w - y_i)² / 2 and the posterior N(w*, S), S = (nβ H + γ I)⁻¹, the loss kernel is
K_ij = r_i r_j s_ij + s_ij² / 2, with r the residuals at w* and s_ij = x_iᵀ S x_j. As γ grows γ K tends to the Gram
matrix of loss gradients r_i r_j x_i · x_j, and the angle between the two falls as 1 / γ.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel import figures
from losskernel.analyses.joint.sweep_and_training import log_slope
from losskernel.geometry import AngularCKA, Point, reliability
from losskernel.representations.points import sampled_point
from losskernel.representations.sources.loss_kernels import gradient_point

HERE = Path(__file__).parent
PROBES, WIDTH, NOISE, NBETA, SEED = 200, 3, 0.3, 10.0, 0
GAMMAS = [1e1, 3e1, 1e2, 3e2, 1e3, 3e3, 1e4, 3e4, 1e5, 1e6]
SPACE = AngularCKA("u")


def problem() -> tuple[lk.Data, nn.Module, np.ndarray, np.ndarray]:
    """Return the data, the model at its least squares solution, inputs [N, d] and residuals [N]."""
    rng = np.random.default_rng(SEED)
    inputs, truth = rng.normal(size=(PROBES, WIDTH)), rng.normal(size=WIDTH)
    targets = inputs @ truth + NOISE * rng.normal(size=PROBES)
    best = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    model = nn.Linear(WIDTH, 1, bias=False, dtype=torch.float64)
    model.weight.data = torch.tensor(best[None])
    samples = TensorDataset(torch.tensor(inputs), torch.tensor(targets[:, None]))
    return lk.Data(samples, samples, lk.losses.squared_error), model, inputs, inputs @ best - targets


def exact(gamma: float, inputs: np.ndarray, residuals: np.ndarray) -> Point:
    """Return the kernel in closed form."""
    curvature = inputs.T @ inputs / len(inputs)
    shared = inputs @ np.linalg.inv(NBETA * curvature + gamma * np.eye(WIDTH)) @ inputs.T
    return Point.from_gram(np.outer(residuals, residuals) * shared + shared**2 / 2)


def main() -> None:
    """Sample a kernel of every localization, print how far each is from its end, and draw it."""
    torch.set_num_threads(1)
    data, model, inputs, residuals = problem()
    end = gradient_point(model, data, ["weight"])
    steepest = NBETA * float(np.linalg.eigvalsh(inputs.T @ inputs / PROBES)[-1])
    schedule = lk.Schedule(chains=32, burn_in=50, draws=4000, thinning=4, batch_size=PROBES)
    rows = []
    for seed, gamma in enumerate(GAMMAS):  # noise of its own for every kernel
        sampler = partial(lk.SGHMC, step_size=1 / (gamma + steepest), nbeta=NBETA, localization=gamma, momentum=0.3)
        point = sampled_point(lk.sample(model, data, sampler, schedule, seed=seed, progress=False))
        truth, rho = exact(gamma, inputs, residuals), reliability(point, SPACE)
        cosine = float(SPACE.gram([point, end])[0, 1]) / np.sqrt(rho)
        rows.append(
            {
                "localization": gamma,
                "exact": SPACE.length(truth, end),
                "sampled": SPACE.length(point, end),
                "corrected_cosine": cosine,
                "corrected": float(np.arccos(min(cosine, 1.0))),
                "floor": float(np.arccos(np.sqrt(rho))),
                "sampled_to_exact": SPACE.length(point, truth),
            }
        )
        print(
            pd.DataFrame(rows[-1:]).to_string(header=gamma == GAMMAS[0], index=False, float_format="%.3g"), flush=True
        )
    table = pd.DataFrame(rows)
    table.to_csv(HERE / "linear.csv", index=False, float_format="%.6g")
    gammas, angles = (table[name].to_numpy(float) for name in ("localization", "exact"))
    print(f"slope from γ = 1000 on, exact: {log_slope(gammas[gammas >= 1e3], angles[gammas >= 1e3]):.4f}")
    above = (gammas >= 100) & (angles > 2 * table["floor"].median())  # small, out of the noise
    slopes = [
        log_slope(gammas[above], table[name].to_numpy(float)[above]) for name in ("sampled", "corrected", "exact")
    ]
    print("slope from γ = 100 to two noise floors: sampled {:.3f}, corrected {:.3f}, exact {:.3f}".format(*slopes))
    drawn = figures.localization_sweep(
        gammas,
        table["sampled"].to_numpy(float),
        table["corrected"].to_numpy(float),
        table["floor"].to_numpy(float),
        {"exact": (gammas, angles)},
        note=f"linear regression, {PROBES} probes, {WIDTH} weights",
    )
    with figures.paper():
        drawn.savefig(HERE / "linear.png", dpi=200)


if __name__ == "__main__":
    main()
