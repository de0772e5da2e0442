"""A real SLURM of one node for the length of a `with`, and what is asked of it."""

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

SCRIPT = Path(__file__).parents[2] / ".ci" / "slurm"
PATIENCE = 600.0  # seconds for anything that is to happen

Found = TypeVar("Found")


class Unavailable(RuntimeError):
    """There is no SLURM on this machine, or it does not start."""


@contextmanager
def one_node(root: Path, cpus: int = 2) -> Iterator[dict[str, str]]:
    """Run a SLURM, and yield the environment in which its commands find it; all of it ends with the context.

    Raises:
        Unavailable: there is none.
    """
    own = {"ONE_NODE_ROOT": str(root), "ONE_NODE_PORT": str(_two_ports()), "ONE_NODE_CPUS": str(cpus)}
    env = os.environ | own | {"SLURM_CONF": str(root / "slurm.conf"), "OMP_NUM_THREADS": "1"}
    try:
        started = subprocess.run([SCRIPT, "start"], env=env, capture_output=True, text=True, check=False)
        if started.returncode != 0:
            raise Unavailable(started.stderr.strip())
        yield env
    finally:
        subprocess.run([SCRIPT, "stop"], env=env, capture_output=True, check=False)


def asked(job: str, env: dict[str, str]) -> dict[str, str]:
    """Return what SLURM knows of a job: JobState, Restarts and so on."""
    done = subprocess.run(["scontrol", "-o", "show", "job", job], env=env, capture_output=True, text=True, check=True)
    return dict(re.findall(r"(\w+)=(\S*)", done.stdout))


def send(name: str, job: str, env: dict[str, str]) -> None:
    """Send a signal to a job that runs, once.

    scancel repeats itself, first after five seconds, where the job is just leaving: one that is requeued would get the
    signal again in its next start. What counts is what becomes of the job.
    """
    with suppress(subprocess.TimeoutExpired):
        command = ["scancel", f"--signal={name}", job]
        subprocess.run(command, env=env, check=False, capture_output=True, timeout=3)


def requeue(job: str, env: dict[str, str]) -> None:
    """Put a job back into the queue."""
    subprocess.run(["scontrol", "requeue", job], env=env, check=True, capture_output=True)


def until(true: Callable[[], Found], told: Callable[[], str], alive: Callable[[], bool] = lambda: True) -> Found:
    """Return what becomes true.

    Args:
        true: asked again and again.
        told: what to show where it does not.
        alive: whether it still can.

    Raises:
        RuntimeError: it does not.
    """
    begin = time.monotonic()
    while not (found := true()):
        seconds = time.monotonic() - begin
        if not alive() or seconds > PATIENCE:
            raise RuntimeError(f"in vain after {seconds:.0f} s:\n{told()}")
        time.sleep(0.1)
    return found


def _two_ports() -> int:
    """Return the first of two neighbouring ports that nobody uses."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
