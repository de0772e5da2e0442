"""Six jobs of a γ sweep on a real SLURM of one node, three of them shot at: equal to an undisturbed sweep, bit for bit?

uv run experiments/slurm/sweep.py            # starts the SLURM itself, and stops it; minutes, see README.md
"""

import hashlib
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

sys.path.insert(0, str(Path(__file__).parent))

from one_node import PATIENCE, Unavailable, asked, one_node, requeue, send, until

from losskernel.runs.status.status_file import read_status
from losskernel.traces.zarr_store import TraceStore

GAMMAS = (10, 20, 50, 100, 200, 500)
CHAINS = 4
TOY = (
    "analysis=[complexity]",
    "logger=none",
    "progress=false",
    "control=false",
    "training.steps=200",
    "dataset.probes_per_task=50",
    f"schedule.chains={CHAINS}",
    "schedule.burn_in=100",
    "schedule.draws=400",
    "schedule.thinning=20",
)
SLURM = (
    "hydra/launcher=slurm",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=2",
    "hydra.launcher.poll_s=2",
    "state_every=0.3",
)
# What the first three jobs suffer while they sample, and whether somebody must put them back into the queue.
FAULTS = {0: ("TERM", True), 1: ("USR1", False), 2: ("KILL", True)}
AT_LEAST = 50  # draws before a job is hit
# A job of the same kernel as the last, by the user's own sbatch.
OWN = GAMMAS[-1]


def start(*words: str, env: dict[str, str], folder: Path, out: Path) -> subprocess.Popen[str]:
    """Start the command line; what it says goes to a file."""
    with out.open("w", encoding="utf-8") as file:
        return subprocess.Popen(_command(*words), env=env, cwd=folder, stdout=file, stderr=subprocess.STDOUT, text=True)


def sweep(folder: Path, gammas: Sequence[int]) -> list[str]:
    """Return the words of a sweep."""
    return ["-m", *TOY, f"paths.sweep={folder}", f"sampler.localization={','.join(map(str, gammas))}"]


def disturbed(folder: Path, env: dict[str, str]) -> tuple[list[dict[str, Any]], str]:
    """Sweep on SLURM with faults; return a row of the table for each job, and the number of their array."""
    out = folder / "slurm.txt"
    waiting = start(*sweep(folder / "slurm", GAMMAS), *SLURM, env=env, folder=folder, out=out)

    def alive() -> bool:
        return waiting.poll() is None

    try:
        array = until(lambda: _array(out.read_text()), out.read_text, alive)
        with ThreadPoolExecutor() as hunters:  # two jobs sample at the same time
            shots = {
                number: hunters.submit(
                    _shoot, f"{array}_{number}", folder / "slurm" / str(number), *fault, env, out, alive
                )
                for number, fault in FAULTS.items()
            }
        rows: list[dict[str, Any]] = [{"job": number, "γ": gamma} for number, gamma in enumerate(GAMMAS)]
        for number, shot in shots.items():
            rows[number] |= shot.result()
        if waiting.wait(timeout=PATIENCE):
            raise RuntimeError(f"the sweep ended with {waiting.returncode}:\n{out.read_text()}")
    finally:
        waiting.kill()
    for row in rows:
        about = asked(f"{array}_{row['job']}", env)
        status = read_status(folder / "slurm" / str(row["job"])) or {}
        row |= {"starts": int(about.get("Restarts", 0)) + 1, "SLURM says": about["JobState"], "run": status["state"]}
    return rows, array


def finished_again(job: str, folder: Path, env: dict[str, str], log: Path) -> bool:
    """Requeue a finished job; return whether it says so and leaves its trace as it was."""
    before, starts = contents(folder / "traces.zarr"), int(asked(job, env)["Restarts"])
    requeue(job, env)

    def over() -> bool:
        about = asked(job, env)
        return int(about["Restarts"]) > starts and about["JobState"] == "COMPLETED"

    until(over, log.read_text)
    return "has finished before; nothing was done" in log.read_text() and contents(folder / "traces.zarr") == before


def by_sbatch(folder: Path, env: dict[str, str]) -> str:
    """Run one job by the user's own sbatch, interrupted by SIGUSR1; return its log."""
    run, log = folder / "own", folder / "own.txt"
    words = [*TOY, f"paths.run={run}", f"sampler.localization={OWN}", "state_every=0.3"]
    line = subprocess.list2cmdline(["srun", *_command(*words)])
    options = ["--parsable", "--requeue", "--open-mode=append", f"--output={log}", f"--chdir={folder}"]
    done = subprocess.run(["sbatch", *options, f"--wrap={line}"], env=env, capture_output=True, text=True, check=True)
    job = done.stdout.strip()
    until(lambda: drawn(run) >= AT_LEAST, log.read_text)
    send("USR1", job, env)
    until(lambda: asked(job, env)["JobState"] in ("COMPLETED", "FAILED"), log.read_text)
    return log.read_text()


def drawn(folder: Path) -> int:
    """Return the draws from which a run would continue now; 0 before it samples and once it has sampled."""
    store = TraceStore(folder / "traces.zarr")
    state = store.load_state() if store.exists else None
    return 0 if state is None else state["written"] + len(state["pending"])


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of every file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def unequal(ours: Path, other: Path) -> list[str]:
    """Return the variables of two traces that are not the same, bit for bit."""
    with xr.open_zarr(ours, consolidated=False) as left, xr.open_zarr(other, consolidated=False) as right:
        names = sorted({*map(str, left.variables), *map(str, right.variables)})
        return [name for name in names if not _same(left.variables.get(name), right.variables.get(name))]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as Markdown; the last has every column."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names), *([str(row.get(name, "")) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the table; exit 1 where anything differs, 0 with one line where there is no SLURM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the SLURM is stopped then, too
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        try:
            rows, failures = tried(folder)
        except Unavailable as error:
            print(f"nothing was tried: {error}")
            return
    print(table(rows))
    print("\n".join(failures) or "all is as it should be")
    sys.exit(bool(failures))


def tried(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Do everything in a folder; return the table's rows, and a line for each thing that is not as it should be.

    Raises:
        Unavailable: there is no SLURM.
    """
    local, out, last = folder / "local", folder / "local.txt", len(GAMMAS) - 1
    with one_node(folder / "node") as env:
        reference = start(*sweep(local, GAMMAS), "~hydra.callbacks.compare", env=env, folder=folder, out=out)
        try:
            with ThreadPoolExecutor() as hands:
                own = hands.submit(by_sbatch, folder, env)
                rows, array = disturbed(folder, env)
                job = f"{array}_{last}"
                log = folder / "slurm" / ".submitit" / job / f"{job}_0_log.out"
                left_alone = finished_again(job, folder / "slurm" / str(last), env, log)
            said = own.result()
            if reference.wait(timeout=PATIENCE):
                raise RuntimeError(out.read_text())
        finally:
            reference.kill()
    for row in rows:
        place = Path(str(row["job"])) / "traces.zarr"
        row["unlike the undisturbed"] = ", ".join(unequal(folder / "slurm" / place, local / place)) or "nothing"
    page = folder / "slurm" / "report.html"
    checks = {
        "not all jobs completed": all((row["SLURM says"], row["run"]) == ("COMPLETED", "finished") for row in rows),
        "traces differ": all(row["unlike the undisturbed"] == "nothing" for row in rows),
        "a job that was hit did not start twice": all(rows[number]["starts"] == 2 for number in FAULTS),
        "a job was hit before or after it sampled": all(rows[number]["draws kept"] for number in FAULTS),
        "no page compares the runs": page.is_file() and "6 kernels" in (folder / "slurm.txt").read_text(),
        "a finished job that was requeued was not left alone": left_alone,
        "a job by sbatch did not ask to be started again": "asking SLURM to start job" in said,
        "a job by sbatch left another trace": not unequal(
            folder / "own" / "traces.zarr", local / str(last) / "traces.zarr"
        ),
    }
    return rows, [line for line, fine in checks.items() if not fine]


def _array(said: str) -> str:
    """Return the number of the array that a sweep says it submitted; "" while it has not."""
    found = re.search(r"submitted to SLURM: (\d+)", said)
    return found[1] if found else ""


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "losskernel.cli", *words]


def _shoot(
    job: str, folder: Path, name: str, by_hand: bool, env: dict[str, str], out: Path, alive: Callable[[], bool]
) -> dict[str, object]:
    """Send a signal to a job that samples, and requeue it where that is to be done by hand."""
    until(lambda: drawn(folder) >= AT_LEAST, out.read_text, alive)
    send(name, job, env)
    at_once = until(lambda: _left(job, env), out.read_text, alive)
    kept = drawn(folder) if by_hand else _stopped_at(folder)  # one that requeues itself may draw again already
    if by_hand:
        requeue(job, env)
    how = "by hand" if by_hand else "by itself"
    return {"signal": f"SIG{name}", "made it": at_once, "requeued": how, "draws kept": kept}


def _left(job: str, env: dict[str, str]) -> str:
    """Return what a job has become that runs no longer, or runs anew; "" while it still does."""
    about = asked(job, env)
    if int(about["Restarts"]):
        return "started anew"  # what it was in between was not seen
    return "" if about["JobState"] in ("RUNNING", "COMPLETING") else about["JobState"]


def _stopped_at(folder: Path) -> int:
    """Return the draws of each chain that a run says it had when a signal stopped it; it counts those of all."""
    found = re.search(r"stopped after (\d+) of", (folder / "failure.json").read_text())
    return int(found[1]) // CHAINS if found else 0


def _same(left: xr.Variable | None, right: xr.Variable | None) -> bool:
    if left is None or right is None or left.dims != right.dims or left.dtype != right.dtype:
        return False
    ours, other = np.asarray(left.values), np.asarray(right.values)
    if ours.dtype.kind in "OT":
        return ours.tolist() == other.tolist()
    return ours.shape == other.shape and ours.tobytes() == other.tobytes()


if __name__ == "__main__":
    main()
