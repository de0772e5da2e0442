"""Runs of one network over localization and nbeta, one after another; grid.csv in their folder has a line of each.

usage: python experiments/imagenet/grid.py NETWORK PICTURES OUTPUT [dataset.classes=300 threads=1 ...]
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

# Largest curvature of the training loss where the chains are, as losskernel-calibrate finds it, and localizations.
NETWORKS = {
    "squeezenet1_1": (1.0e3, (2.8e2, 2.8e3, 2.8e4)),
    "efficientnet_lite0": (3.8e3, (2.9e3, 2.9e4, 2.9e5)),
}
NBETAS = (0.0, 5.8, 58.0)
STIFFNESS = 0.6  # step size times largest curvature; stable below 4
SCHEDULE = ("schedule.chains=4", "schedule.burn_in=80", "schedule.draws=50", "schedule.thinning=8")
# What is kept of each run: the screens that tell settings apart, and what the kernel says of WordNet.
KEPT = (
    *(f"convergence/{name}" for name in ("rhat", "rhat_distance", "ess", "ess_tail", "ess_kernel", "step_inflation")),
    *("convergence/split_agreement", "convergence/shared_mode_share", "hierarchy/spearman_classes_penultimate"),
    *(f"hierarchy/spearman_classes_{name}" for name in ("coupling", "coupling_se", "coupling_p", "logits")),
    *(f"hierarchy/{name}" for name in ("partial_coupling", "partial_coupling_p", "reliability_coupling")),
    *(f"hierarchy/coupling_depth_{depth}" for depth in (1, 4, 7, 10, 12, 13, 14)),
)


def settings(network: str) -> list[tuple[float, float, str]]:
    """Return (localization, nbeta, sampler) of every run."""
    _, localizations = NETWORKS[network]
    middle = localizations[1]
    plain = [(localization, nbeta, "sghmc") for localization in localizations for nbeta in NBETAS]
    # Likeliest first, should the time be short.
    plain.sort(key=lambda run: (run[0] != middle, run[1] > 6))
    return [*plain, (middle, NBETAS[1], "sgld"), (middle, NBETAS[1], "rmsprop_sgld")]


def run(
    network: str, pictures: str, folder: Path, localization: float, nbeta: float, sampler: str, more: list[str]
) -> None:
    """Make one run, unless it is there."""
    curvature, _ = NETWORKS[network]
    step_size = STIFFNESS / (nbeta * curvature + localization)
    command = [
        *("losskernel", "experiment=imagenet_small", f"model={network}", f"dataset.root={pictures}"),
        *("analysis=[convergence,hierarchy]", "control=false", "logger=none", "progress=false", f"paths.run={folder}"),
        *(f"sampler={sampler}", f"sampler.step_size={step_size:.2g}", f"sampler.localization={localization:g}"),
        *(f"sampler.nbeta={nbeta:g}", *SCHEDULE, *more),
    ]
    with open(f"{folder}.log", "w") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    network, pictures, output, *more = sys.argv[1:]
    root = Path(output)
    root.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    for localization, nbeta, sampler in settings(network):
        folder = root / f"{sampler}_{localization:g}_{nbeta:g}"
        if not (folder / "metrics.json").exists():
            run(network, pictures, folder, localization, nbeta, sampler, more)
        if not (folder / "metrics.json").exists():
            print(f"{folder.name} failed; see {folder}.log", flush=True)
            continue
        metrics = json.loads((folder / "metrics.json").read_text())
        verdict = json.loads((folder / "diagnosis.json").read_text())["verdict"]
        rows.append({"sampler": sampler, "localization": localization, "nbeta": nbeta, "verdict": verdict})
        rows[-1] |= {name.split("/")[1]: round(metrics[name], 5) for name in KEPT if name in metrics}
        pd.DataFrame(rows).to_csv(root / "grid.csv", index=False)
        print(f"{folder.name}: {verdict}", flush=True)
