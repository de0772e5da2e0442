"""Run folders with known kernels, as a sweep would leave them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import losskernel as lk
from losskernel.analyses import Complexity, Separation
from losskernel.runs.report import presentations
from losskernel.sweeps.read_runs import Run

PROBES, CHAINS, MODES = 40, 4, 6
ANALYSES = {"separation": "losskernel.analyses.Separation", "complexity": "losskernel.analyses.Complexity"}
# How a run with these analyses shows its metrics.
SHOWN = presentations({"separation": Separation, "complexity": Complexity})
TASK = ["add"] * 20 + ["mul"] * 20


def losses(angle: float, seed: int, noise: float = 0.2, draws: int = 60, chains: int = CHAINS) -> np.ndarray:
    """Losses [C, D, N] whose kernel turns with `angle` from one Gram matrix towards another."""
    first, second = (np.random.default_rng(each).normal(size=(MODES, PROBES)) for each in (101, 102))
    rng = np.random.default_rng(seed)
    mix = np.cos(angle) * first + np.sin(angle) * second
    clean = rng.normal(size=(chains, draws, MODES)) @ mix
    return clean + noise * rng.normal(size=(chains, draws, PROBES))


def configuration(seed: int = 0, **sampler: Any) -> dict[str, Any]:
    """A resolved configuration as a run stores it."""
    own = {"_target_": "losskernel.SGLD", "step_size": 1e-3, "nbeta": 100.0, "localization": 50.0} | sampler
    paths = {"run": f"outputs/planted/{np.random.default_rng().integers(10**9)}"}
    data = {"tasks": ["add", "mul"], "seed": seed}
    analyses = {name: {"_target_": target} for name, target in ANALYSES.items()}
    run = {"name": "planted", "label": "task", "seed": seed, "dataset": data, "sampler": own, "paths": paths}
    return run | {"analysis": analyses}


def plant(
    folder: Path,
    config: dict[str, Any],
    traces: np.ndarray | None = None,
    verdict: str = "pass",
    control: np.ndarray | None = None,
    labels: dict[str, Any] | None = None,
    **metrics: float,
) -> Path:
    """Leave what a finished run leaves; `a__b` stands for the metric a/b."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"separation/within": 0.3, "separation/across": 0.02, "separation/noise_floor": 0.01, "separation/ari": 1.0}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "metrics.json").write_text(
        json.dumps(usual | {name.replace("__", "/"): value for name, value in metrics.items()})
    )
    reasons = [] if verdict == "pass" else ["the chains disagree: R-hat is 1.200; raise schedule.draws"]
    diagnosis = {"verdict": verdict, "reasons": reasons, "metrics": {"rhat": 1.004, "ess_kernel": 900.0}}
    (folder / "diagnosis.json").write_text(json.dumps(diagnosis))
    (folder / "report.html").write_text("<p>of the run")
    named = {"task": TASK} if labels is None else labels
    if traces is not None:
        lk.LossTraces.from_arrays(traces, labels=named).save(folder / "traces.zarr")
    if control is not None:
        lk.LossTraces.from_arrays(control, labels=named).save(folder / "control.zarr")
    return folder


def plant_sweep(folder: Path, values: list[float], angles: list[float], verdicts: list[str] | None = None) -> Path:
    """A sweep of the localization, each run with its own noise."""
    for job, (value, angle) in enumerate(zip(values, angles, strict=True)):
        verdict = verdicts[job] if verdicts else "pass"
        own = {"separation__within": 0.3 + 0.01 * job, "separation__within_se": 0.02, "complexity__llc": 2.0 + job}
        plant(folder / str(job), configuration(localization=value), losses(angle, 7 + job), verdict, **own)
    return folder


def plant_turning(folder: Path) -> Path:
    """Kernels that stay the same from the second to the fourth, then turn away; the first verdict fails."""
    verdicts = ["fail", "warn", "pass", "pass", "pass", "pass"]
    return plant_sweep(folder, [0.1, 1, 10, 100, 1000, 10000], [0.0, 0.0, 0.1, 0.2, 1.2, 1.5], verdicts)


def runs_of(*configs: dict[str, Any]) -> list[Run]:
    """Finished runs in memory, by flat configurations."""
    return [
        Run(Path(f"sweep/{job}"), config, {"separation/ari": 1.0}, "pass", shown=SHOWN)
        for job, config in enumerate(configs)
    ]


def swept(key: str, values: list[Any], **others: Any) -> list[Run]:
    """Finished runs in memory that differ in one key."""
    return runs_of(*({"seed": 0, "sampler.nbeta": 100.0, "name": "x"} | others | {key: value} for value in values))
