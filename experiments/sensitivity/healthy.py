"""False alarms: the twelve healthy runs of tests/kernel/test_planted.py, each with twelve other seeds.

usage: python experiments/sensitivity/healthy.py    # 144 runs; half an hour on one core
"""

import functools
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

TESTS = Path(__file__).parents[2] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "kernel")]

import test_planted as planted  # noqa: E402

import losskernel as lk  # noqa: E402

SEEDS = 12


def shifted(make: Any, shift: int) -> Any:
    """Return a function with another seed: of the chains where it samples, of the problem where it draws losses."""

    @functools.wraps(make)
    def other(*arguments: Any, **options: Any) -> Any:
        return make(*arguments, **options | {"seed": options.get("seed", 0) + 100 * shift})

    return other


if __name__ == "__main__":
    torch.set_num_threads(1)
    makers = {name: getattr(planted, name) for name in ("sampled", "gaussian", "_quadratic")}
    for run, make in planted.HEALTHY.items():
        verdicts: Counter[str] = Counter()
        for shift in range(1, SEEDS + 1):
            for name, maker in makers.items():
                setattr(planted, name, shifted(maker, shift))
            planted.toy_traces.cache_clear()
            verdicts[lk.diagnose(make()).verdict] += 1
        print(f"{run:34} {dict(verdicts)}", flush=True)
