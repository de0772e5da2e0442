"""What a job does after a scheduler's signal, once all is saved: ask to be started again, where it was told to."""

import os
import signal
import subprocess

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
    # SLURM ends this process as soon as it has agreed.
    print(f"losskernel: asking SLURM to start job {job} again", flush=True)
    try:
        subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = str(getattr(error, "stderr", "") or error).strip()
        print(f"losskernel: SLURM does not start job {job} again: {reason}; submit it once more to continue")
