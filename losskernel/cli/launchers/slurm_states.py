"""What SLURM says of jobs, asked so that its silence, for a moment or for good, is not taken for their end."""

import subprocess
from collections.abc import Callable, Sequence

# What squeue answers once SLURM has forgotten all the jobs that it is asked for, minutes after their end.
_FORGOTTEN = "Invalid job id"
_PATIENCE = 60.0  # seconds for one answer
# States of jobs that have not ended.
_WAITING = ("PENDING", "HELD", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "SUSPENDED", "STOPPED")
_BUSY = ("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING")
ACTIVE = frozenset((*_WAITING, *_BUSY))


class Slurm:
    """States of the jobs of one array, or of a single job.

    squeue decides, for it answers with accounting and without. sacct, where there is one, only says how those ended
    that squeue has forgotten: jobs can stay at work for ever in its records.

    Args:
        array: SLURM's number of the array or job.
        call: (command and arguments) -> (exit code, output, errors).
    """

    def __init__(self, array: str, call: Callable[[Sequence[str]], tuple[int, str, str]] | None = None) -> None:
        self._array, self._call = array, call or _called

    def __call__(self, ids: Sequence[str]) -> dict[str, str] | None:
        """Return job -> state, such as {"12_0": "RUNNING"}, of those jobs that SLURM remembers; None: no answer.

        HELD, none of SLURM's own, is what waits for somebody to release it.
        """
        asked = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r", f"--jobs={self._array}"]
        code, output, errors = self._call(asked)
        if code != 0 and _FORGOTTEN not in errors:
            return None
        known = _read(output if code == 0 else "")
        forgotten = [job for job in ids if job not in known]
        return known | (self._recorded(forgotten) if forgotten else {})

    def _recorded(self, ids: Sequence[str]) -> dict[str, str]:
        """Return how jobs ended, by the accounting; nothing where SLURM keeps none."""
        asked = ["sacct", "--noheader", "--allocations", "--parsable2", "--format=JobID,State", f"--jobs={self._array}"]
        code, output, _ = self._call(asked)
        recorded = _read(output) if code == 0 else {}
        return {job: recorded[job] for job in ids if job in recorded and recorded[job] not in ACTIVE}


def _read(output: str) -> dict[str, str]:
    """Return job -> state of lines `job|state` or `job|state|reason`."""
    known: dict[str, str] = {}
    for line in output.splitlines():
        job, _, rest = line.strip().partition("|")
        state, _, reason = rest.partition("|")
        if state:
            held = state in ("REQUEUE_HOLD", "SPECIAL_EXIT") or (state == "PENDING" and "held" in reason.lower())
            known[job] = "HELD" if held else state.split()[0]  # sacct says "CANCELLED by 0"
    return known


def _called(command: Sequence[str]) -> tuple[int, str, str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, "", str(error)
    return done.returncode, done.stdout, done.stderr
