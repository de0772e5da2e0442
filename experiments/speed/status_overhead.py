"""What progress reports cost while the toy is trained and sampled: their share of the process' CPU time.

python experiments/speed/status_overhead.py [repetitions]

Two cores, 2026-11: 0.8 % of training and sampling (3 s), all writing among it: 0.15 % of the run with its analyses.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import arviz_stats.base  # noqa: F401 (the diagnosis loads it in any case)
import torch
from hydra import compose, initialize_config_dir

import losskernel.cli
from losskernel.cli.build import build
from losskernel.runs.run import Study
from losskernel.runs.status.progress_callback import SamplingCallback, TrainingCallback
from losskernel.runs.status.status_file import RunStatus
from losskernel.sampling.sample import sample
from losskernel.training import fit

spent = {"progress reports": 0.0}


def timed(method: Callable[..., Any]) -> Callable[..., Any]:
    """Count the CPU time of a method."""

    @wraps(method)
    def counted(*arguments: Any) -> Any:
        began = time.thread_time()
        try:
            return method(*arguments)
        finally:
            spent["progress reports"] += time.thread_time() - began

    return counted


def share(study: Study) -> float:
    """Train and sample in a folder of its own; return the share of progress reports."""
    spent["progress reports"] = 0.0
    assert study.schedule is not None
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        with RunStatus(Path(folder)) as status:
            callbacks = [TrainingCallback(status, study.training.steps)]
            model = fit(study.model, study.data, study.training, progress=False, callbacks=callbacks)
            status.enter("sampling")
            out = Path(folder) / "traces.zarr"
            callbacks = [SamplingCallback(status, study.schedule, state=out / "resume.pt")]
            sample(model, study.data, study.sampler, study.schedule, out=out, progress=False, callbacks=callbacks)
        return spent["progress reports"] / (time.process_time() - began)


def main(repetitions: int) -> None:
    """Print the median."""
    torch.set_num_threads(1)
    for owner in (SamplingCallback, TrainingCallback):
        for name in ("on_train_start", "on_train_batch_start", "on_train_batch_end", "on_train_end"):
            if name in vars(owner):
                setattr(owner, name, timed(getattr(owner, name)))
    RunStatus._write = timed(RunStatus._write)  # of the thread too
    with initialize_config_dir(losskernel.cli.CONF, version_base="1.3"):
        study = build(compose("config", ["experiment=multitask", "logger=none", "progress=false"]))
    share(study)  # the first loads and compiles
    shares = [share(study) for _ in range(repetitions)]
    print(f"progress reports: {statistics.median(shares):.2%} of training and sampling (up to {max(shares):.2%})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
