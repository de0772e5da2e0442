"""A sweep on a real SLURM with real kills, as experiments/slurm does it; left out, with a word, where there is none."""

import shutil
import sys
from pathlib import Path

import pytest

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "slurm"
sys.path.insert(0, str(EXPERIMENT))

import one_node  # noqa: E402
import sweep  # noqa: E402

if shutil.which("slurmctld", path="/usr/sbin:/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin") is None:
    pytest.skip("this machine has no SLURM; `.ci/slurm install` tries to bring it", allow_module_level=True)


@pytest.mark.slow
def test_jobs_that_are_shot_at_end_as_if_nobody_had(tmp_path: Path) -> None:
    try:
        rows, failures = sweep.tried(tmp_path)
    except one_node.Unavailable as error:
        pytest.skip(f"the one-node SLURM does not start here: {' '.join(str(error).split())}")
    assert failures == [], sweep.table(rows)
