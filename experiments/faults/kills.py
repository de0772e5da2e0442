"""Kill a run at random moments, many times, and see whether its trace ends as that of a run that nobody disturbed.

After every kill the trace is opened, which must be refused in words (unfinished) or be the whole one, and the draws
that the resume state counts as written are compared with the undisturbed run's, bit by bit.
"""

import argparse
import functools
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import zarr

import losskernel as lk
from losskernel.data import arithmetic
from losskernel.errors import TraceError
from losskernel.models import MultitaskMLP
from losskernel.traces import zarr_store as store
from losskernel.traces.zarr_store import TraceStore

CHAINS, STACKED, PROBES = 4, 2, 40
SAMPLER = functools.partial(lk.SGHMC, step_size=5e-4, nbeta=100.0, localization=50.0)


def draw(draws: int, out: Path | None, state_every: float) -> lk.LossTraces:
    """The run: two stacks of chains on the toy, small chunks so that kills fall into the writing of one too."""
    store._CHUNK_BYTES = 64 * PROBES * STACKED * 4  # 64 draws a chunk
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, data = MultitaskMLP(2), arithmetic(probes_per_task=PROBES // 2)
    schedule = lk.Schedule(chains=CHAINS, burn_in=50, draws=draws, thinning=1, batch_size=32)
    return lk.sample(
        model, data, SAMPLER, schedule, out=out, chains_per_fit=STACKED, progress=False, state_every=state_every
    )


def child(draws: int, out: Path, state_every: float) -> None:
    """Draw in a process of its own."""
    draw(draws, out, state_every)


def written(out: Path) -> tuple[int, int]:
    """Return (first chain, draws written) of the stack in progress, as the resume state says."""
    state = TraceStore(out).load_state()
    return (0, 0) if state is None else (state["rows"], state["written"])


def state_time(out: Path) -> int:
    """Return when the resume state was last written; 0 where there is none."""
    with suppress(FileNotFoundError):
        return (out / "resume.pt").stat().st_mtime_ns
    return 0


def prefix_is_right(out: Path, whole: np.ndarray) -> bool:
    """Whether what is counted as written equals the undisturbed run's, bit by bit."""
    first, draws = written(out)
    losses = np.asarray(zarr.open_array(out / "losses", mode="r")[:])
    stacks = [(slice(0, first), whole.shape[1]), (slice(first, first + STACKED), draws)]
    return all(np.array_equal(losses[rows, :count], whole[rows, :count]) for rows, count in stacks)


def killed(draws: int, kills: int, state_every: float, seed: int, folder: Path) -> Counter[str]:
    """Kill until so many kills are done, then let the run end; return what was seen after each kill."""
    whole = draw(draws, None, state_every)
    reference = whole.losses.values
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["losskernel.sampling.sample", "losskernel.data", "losskernel.models"])
    out, moments, seen = folder / "traces.zarr", random.Random(seed), Counter[str]()
    for _ in range(kills):
        process = server.Process(target=child, args=(draws, out, state_every))
        before = state_time(out)
        process.start()
        if moments.random() < 0.75:  # while it draws, writes chunks and saves states
            while process.is_alive() and state_time(out) == before:
                process.join(0.002)
            process.join(moments.uniform(0.0, 0.1))
        else:  # at any moment: starting, laying out, reading what is there
            process.join(moments.uniform(0.05, 1.0))
        if process.exitcode is not None:
            raise SystemExit(f"the run ended by itself (exit code {process.exitcode}); give it more draws")
        process.kill()
        process.join()
        seen["kills"] += 1
        seen["of them after it had saved a state of its own"] += state_time(out) != before
        if not TraceStore(out).exists:
            seen["nothing written yet"] += 1
            continue
        try:
            lk.open_traces(out)
            seen["corrupt opens"] += 1
        except TraceError as error:
            seen["refused as unfinished" if "is unfinished" in str(error) else "corrupt opens"] += 1
        seen["written draws right" if prefix_is_right(out, reference) else "written draws WRONG"] += 1
    process = server.Process(target=child, args=(draws, out, state_every))
    process.start()
    process.join()
    final = lk.open_traces(out)
    same = all(final.dataset[name].equals(whole.dataset[name]) for name in whole.dataset.data_vars)
    seen["final trace bit-identical" if same else "final trace DIFFERS"] += 1
    return seen


def main() -> None:
    """Print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--state-every", type=float, default=0.05, help="seconds between states")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seen = killed(asked.draws, asked.kills, asked.state_every, asked.seed, Path(folder))
    for name, count in seen.items():
        print(f"{count:6d}  {name}")
    print(f"{time.monotonic() - began:6.0f}  seconds")


if __name__ == "__main__":
    main()
