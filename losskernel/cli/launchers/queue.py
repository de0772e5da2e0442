"""SLURM's queue: the states of jobs in it, waiting until all have ended, and asking for a requeue.

A scheduler that does not answer, for a moment or for good, is never taken for the end of its jobs.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from losskernel.runs.status.status_file import array_task

GONE = "GONE"  # the state given to a job that the scheduler does not remember
# States of jobs that have not ended. HELD is none of SLURM's own: see SlurmQueue.
WAITING = ("PENDING", "HELD", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "SUSPENDED", "STOPPED")
_RUNNING = ("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "RESIZING")
ACTIVE = frozenset((*WAITING, *_RUNNING))
# squeue's error once SLURM has forgotten all the jobs that it is asked for, minutes after their end.
_FORGOTTEN = "Invalid job id"
_TIMEOUT = 60.0  # seconds for one answer of SLURM's commands
_MAX_UNANSWERED = 3  # unanswered questions in a row before the user is told
# Signals sent on purpose, before a time limit or by hand. After SIGTERM the scheduler itself decides what comes next.
_REQUEUE_SIGNALS = ("SIGUSR1", "SIGUSR2")


class SlurmQueue:
    """States of the jobs of one array, or of a single job.

    squeue decides, since it answers with and without accounting. sacct, where there is one, is only asked how those
    jobs ended that squeue has forgotten: in its records jobs can stay RUNNING for ever.

    Args:
        array: SLURM's number of the array or job; several with commas.
        call: (command and arguments) -> (exit code, stdout, stderr).
    """

    def __init__(self, array: str, call: Callable[[Sequence[str]], tuple[int, str, str]] | None = None) -> None:
        self._array, self._call = array, call or _called

    def __call__(self, ids: Sequence[str]) -> dict[str, str] | None:
        """Return job -> state, such as {"12_0": "RUNNING"}, of those jobs that SLURM remembers; None: no answer.

        HELD stands for every state in which a job waits for somebody to release it.
        """
        command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r", f"--jobs={self._array}"]
        code, output, errors = self._call(command)
        if code != 0 and _FORGOTTEN not in errors:
            return None
        states = _parsed(output if code == 0 else "")
        forgotten = [job for job in ids if job not in states]
        return states | (self._recorded(forgotten) if forgotten else {})

    def _recorded(self, ids: Sequence[str]) -> dict[str, str]:
        """Return how jobs ended, by the accounting; empty without one."""
        fields = ["--allocations", "--parsable2", "--format=JobID,State"]
        code, output, _ = self._call(["sacct", "--noheader", *fields, f"--jobs={self._array}"])
        recorded = _parsed(output) if code == 0 else {}
        return {job: recorded[job] for job in ids if job in recorded and recorded[job] not in ACTIVE}


def _parsed(output: str) -> dict[str, str]:
    """Return job -> state of lines `job|state` or `job|state|reason`."""
    states: dict[str, str] = {}
    for line in output.splitlines():
        job, _, rest = line.strip().partition("|")
        state, _, reason = rest.partition("|")
        if state:
            held = state in ("REQUEUE_HOLD", "SPECIAL_EXIT") or (state == "PENDING" and "held" in reason.lower())
            states[job] = "HELD" if held else state.split()[0]  # sacct says "CANCELLED by 0"
    return states


def _called(command: Sequence[str]) -> tuple[int, str, str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, "", str(error)
    return done.returncode, done.stdout, done.stderr


class Watch:
    """Waits for jobs until every one has ended.

    A job without result is given up only after it has been dead for the grace time, and only once no other job is
    left to wait for: until then it may come back to the queue, by SLURM or by hand. A job that has left a result and
    is running again is waited for again. While the scheduler does not answer, no job is given up.

    Args:
        ids: of the jobs.
        ask: ids -> states of those that the scheduler remembers; None if it does not answer.
        has_result: whether a job has left its result.
        grace: seconds.
        say: prints a line for the user.
        clock: seconds.
    """

    def __init__(
        self,
        ids: Sequence[str],
        ask: Callable[[Sequence[str]], Mapping[str, str] | None],
        has_result: Callable[[str], bool],
        *,
        grace: float,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ids, self._ask, self._has_result = list(ids), ask, has_result
        self._grace, self._say, self._clock = grace, say, clock
        self._dead: dict[str, str] = {}  # job without result that is not in the queue -> its last state
        self._dead_since: dict[str, float] = {}
        self._held: set[str] = set()
        self._ended = self._unanswered = 0

    def wait(self, interval: float, sleep: Callable[[float], None] = time.sleep) -> dict[str, str]:
        """Wait for all jobs; return those that left no result, each with its last state.

        Args:
            interval: seconds between two questions; fewer at first.
            sleep: waits some seconds.
        """
        start = self._clock()
        while not self._all_ended():
            sleep(min(interval, 1 + (self._clock() - start) / 20))
        return {job: state for job, state in self._dead.items() if not self._has_result(job)}

    def _all_ended(self) -> bool:
        """Ask once; return whether all jobs have ended."""
        with_result = [job for job in self._ids if self._has_result(job)]
        without = [job for job in self._ids if job not in with_result]
        states = self._answer(self._ask(without))
        given_up: list[str] = []
        if states is not None:
            # A job that is COMPLETING beside its result is only being cleaned up.
            with_result = [job for job in with_result if states.get(job) not in ACTIVE - {"COMPLETING"}]
            self._update_dead(without, states)
            given_up = [job for job in self._dead if self._clock() - self._dead_since[job] >= self._grace]
        if len(with_result) != self._ended:
            self._say(f"{len(with_result)} of {len(self._ids)} jobs have ended")
            self._ended = len(with_result)
        return len(with_result) + len(given_up) == len(self._ids)

    def _update_dead(self, without: Sequence[str], states: Mapping[str, str]) -> None:
        """Note which of the jobs without result are dead, came back, or are held; tell the user of changes."""
        before = self._dead
        self._dead = {job: states.get(job, GONE) for job in without if states.get(job, GONE) not in ACTIVE}
        self._dead_since = {job: self._dead_since.get(job, self._clock()) for job in self._dead}
        for job, state in self._dead.items():
            # After COMPLETED the result is on its way through the file system.
            if job not in before and self._grace and state != "COMPLETED":
                self._say(f"job {job} is {state}, without result; for {self._grace:g} s it may be requeued")
        for job in before:
            if states.get(job) in ACTIVE:
                self._say(f"job {job} is in the queue again")
        held = {job for job in without if states.get(job) == "HELD"}
        for job in sorted(held - self._held):
            self._say(f"job {job} is held; `scontrol release {job}` lets it go on")
        self._held = held

    def _answer(self, states: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """Return the scheduler's answer; tell the user once it has been missing for some time."""
        if states is not None and self._unanswered >= _MAX_UNANSWERED:
            self._say("the scheduler answers again")
        self._unanswered = 0 if states is not None else self._unanswered + 1
        if self._unanswered == _MAX_UNANSWERED:
            self._say("the scheduler does not answer; waiting goes on")
        return states


def request_requeue(number: int) -> None:
    """Have SLURM put this process' job back into its queue, if a signal asks for that; do nothing without SLURM.

    submitit's own handler does so where submitit runs the job, and ends the process: it counts the requeues.

    Args:
        number: of the signal that ended the job, once all is saved.
    """
    if signal.Signals(number).name not in _REQUEUE_SIGNALS:
        return
    handler = signal.getsignal(signal.SIGUSR2)
    if callable(handler) and "SUBMITIT_FOLDER" in os.environ:
        handler(signal.SIGUSR2, None)
    job = array_task() or os.environ.get("SLURM_JOB_ID")
    if job is None:
        return
    # SLURM may end this process before `scontrol` returns, so this is printed first.
    print(f"losskernel: asking SLURM to start job {job} again", flush=True)
    try:
        subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = str(getattr(error, "stderr", "") or error).strip()
        print(f"losskernel: SLURM does not start job {job} again: {reason}; submit it once more to continue")
