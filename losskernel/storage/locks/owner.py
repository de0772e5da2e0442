"""The process that writes somewhere, told from all others: of this machine, of its past, of other machines."""

import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

_LENGTH = 512  # every lease is as long as any other, so that it can be written over
# Tokens of the leases that this process holds.
HELD: set[str] = set()


@dataclass(frozen=True)
class Holder:
    """A process that writes somewhere; `boot` and `began` tell it from others of the same number."""

    host: str
    process: int
    slurm_job: str | None
    slurm_restart: int
    boot: str
    began: str
    token: str

    @classmethod
    def this(cls) -> "Holder":
        """Return this process, with a token of its own for each lease."""
        job, restart = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_RESTART_COUNT", "")
        process = os.getpid()
        own = (_boot(), _began(process) or "", uuid.uuid4().hex)
        return cls(socket.gethostname(), process, job, int(restart) if restart.isdecimal() else 0, *own)

    @classmethod
    def of(cls, content: bytes | None) -> "Holder | None":
        """Return who holds a lease; None where it does not say."""
        try:
            found = json.loads(content or b"")
            return cls(**{name: found[name] for name in cls.__dataclass_fields__})
        except (ValueError, KeyError, TypeError):
            return None

    def lease(self, beat: int) -> bytes:
        """Return a lease's content, another one at every beat."""
        return json.dumps(asdict(self) | {"beat": beat, "time": time.time()}).encode().ljust(_LENGTH)

    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine since it was last started."""
        return (self.host, self.boot) == (socket.gethostname(), _boot())

    def lives(self) -> bool:
        """Whether this process of this machine is still there, and holds the lease if it is our own."""
        if self.process == os.getpid():
            return self.token in HELD
        return _began(self.process) == self.began

    def was_requeued_as(self, other: "Holder") -> bool:
        """Whether SLURM has ended it to start the other in its place."""
        return self.slurm_job is not None and (
            self.slurm_job == other.slurm_job and self.slurm_restart < other.slurm_restart
        )

    def __str__(self) -> str:
        job = "" if self.slurm_job is None else f" (SLURM job {self.slurm_job})"
        return f"process {self.process} on {self.host}{job}"


def written_at(content: bytes | None) -> float:
    """Return when a lease was renewed, by its holder's clock; now where it does not say."""
    try:
        return float(json.loads(content or b"")["time"])
    except (ValueError, KeyError, TypeError):
        return time.time()


def _boot() -> str:
    """Return what tells this machine, since it was last started, from others of its name, and a container from others.

    It is "" where the system does not say.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _began(process: int) -> str | None:
    """Return when a process of this machine began, in the kernel's own units; None where there is no such process."""
    try:
        # What the process calls itself, in brackets, may hold spaces.
        facts = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return facts.rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return ""
    return ""
