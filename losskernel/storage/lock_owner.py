"""The process that holds a lock, distinguished from other processes of this machine, of its past and of others."""

import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

# Every record has the same length, so that one can be written over another in place.
_RECORD_BYTES = 512
# Tokens of the leases that this process holds.
HELD_TOKENS: set[str] = set()


@dataclass(frozen=True)
class LockOwner:
    """A process that holds a lease, as the lease's record describes it.

    Attributes:
        host: name of its machine.
        process: its number; `boot` and `began` tell it from other processes of that number.
        slurm_job: its job, if it is one of SLURM's.
        slurm_restart: how often SLURM has requeued that job.
        boot: identity of the machine since its last boot.
        began: when the process started, as `process_start` returns it.
        token: different for each lease.
        beat: renewals of the lease.
        time: of the last renewal, by the owner's clock.
    """

    host: str
    process: int
    slurm_job: str | None
    slurm_restart: int
    boot: str
    began: str
    token: str
    beat: int = 0
    time: float = 0.0

    @classmethod
    def current(cls) -> "LockOwner":
        """Return this process with a new token."""
        job, restart = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_RESTART_COUNT", "")
        process, restarts = os.getpid(), int(restart) if restart.isdecimal() else 0
        # The token tells two leases of one process apart, and a lease from one that replaced it.
        token, began = uuid.uuid4().hex, process_start(process) or ""
        return cls(socket.gethostname(), process, job, restarts, _boot(), began, token, time=time.time())

    @classmethod
    def parse(cls, record: bytes | None) -> "LockOwner | None":
        """Return the owner that a record describes; None where it describes none."""
        try:
            fields = json.loads(record or b"")
            return cls(**{name: fields[name] for name in cls.__dataclass_fields__})
        except (ValueError, KeyError, TypeError):
            return None

    def record(self) -> bytes:
        """Return the content of a lease."""
        return json.dumps(asdict(self)).encode().ljust(_RECORD_BYTES)

    def renewed(self) -> "LockOwner":
        """Return the owner after a further renewal, whose record differs even where the clock has not moved."""
        return replace(self, beat=self.beat + 1, time=time.time())

    @property
    def age(self) -> float:
        """Seconds since the last renewal; meaningful where the owner's clock is this machine's."""
        return max(0.0, time.time() - self.time)

    def is_local(self) -> bool:
        """Whether it is, or was, a process of this machine since its last boot."""
        return (self.host, self.boot) == (socket.gethostname(), _boot())

    def is_alive(self) -> bool:
        """Whether this local process still exists, and still holds the lease if it is this one."""
        # A lease of this very process that it does not hold is one that it could not remove on release.
        if self.process == os.getpid():
            return self.token in HELD_TOKENS
        return process_start(self.process) == self.began

    def was_requeued_as(self, other: "LockOwner") -> bool:
        """Whether SLURM has ended it and started the other as the next attempt of the same job."""
        return self.slurm_job is not None and (
            self.slurm_job == other.slurm_job and self.slurm_restart < other.slurm_restart
        )

    def __str__(self) -> str:
        job = "" if self.slurm_job is None else f" (SLURM job {self.slurm_job})"
        return f"process {self.process} on {self.host}{job}"


def _boot() -> str:
    """Return an identity of this machine since its last boot, and of the container; "" where the system has none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def process_start(process: int) -> str | None:
    """Return when a local process started, in clock ticks since boot.

    Process numbers are reused; number and start together are not. The start is "" where the system does not tell it,
    None where there is no such process, or only its exit status is left.
    """
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        # The second field is the process's name in brackets, which may hold spaces and brackets.
        state, *fields = stat.rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except OSError:
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except OSError:  # the process is another user's
        pass
    return ""
