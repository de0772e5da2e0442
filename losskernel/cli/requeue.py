"""What a job does after a scheduler's signal, once all is saved: ask to be started again, where it was told to."""

import os
import signal
import subprocess
import sys

# Sent on purpose, before a time limit or by hand; after SIGTERM it is the scheduler that knows what comes next.
_ASKED = ("SIGUSR1", "SIGUSR2")


def hand_on(number: int) -> None:
    """Have SLURM put this job back into its queue if the signal was one that asks for it; nothing elsewhere.

    Where submitit runs the job, its own handler does so and ends the process: it counts how often.
    """
    if signal.Signals(number).name not in _ASKED:
        return
    handler = signal.getsignal(signal.SIGUSR2)
    if callable(handler) and "SUBMITIT_FOLDER" in os.environ:
        handler(signal.SIGUSR2, None)
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    said = "requeued" if done.returncode == 0 else f"cannot be requeued: {done.stderr.strip()}"
    print(f"losskernel: SLURM job {job} is {said}" if done.returncode == 0 else f"losskernel: SLURM job {job} {said}")
    sys.stdout.flush()
