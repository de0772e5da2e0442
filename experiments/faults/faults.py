"""Do to a run what machines do to runs, and print what its user sees, what was lost, and how it ends.

Needs root for file systems that fill up, turn read-only and vanish; without it these rows say so.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import losskernel as lk
from losskernel.errors import TraceError

WORDS = (
    "training.steps=200",
    "schedule.chains=2",
    "schedule.burn_in=50",
    "schedule.draws=3000",
    "schedule.thinning=1",
    "dataset.probes_per_task=100",
    "analysis=[separation]",
    "logger=none",
    "progress=false",
    "state_every=0.5",
)


@dataclass(frozen=True)
class Row:
    """What became of one fault."""

    fault: str
    seen: str
    ending: str

    def __str__(self) -> str:
        return f"| {self.fault} | {self.seen} | {self.ending} |"


class Place:
    """A run in a folder of its own, as its user commands it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "run"
        self.trace = self.folder / "traces.zarr"

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start the command."""
        code = "from losskernel.cli import main; main()"
        command = [sys.executable, "-c", code, *WORDS, f"paths.run={self.folder}", *words]
        return subprocess.Popen(command, cwd=tempfile.gettempdir(), stderr=subprocess.PIPE, text=True)

    def sampling(self, *words: str) -> "subprocess.Popen[str]":
        """Start the command and wait until it has saved a state while sampling."""
        process = self.start(*words)
        while process.poll() is None and not (self.trace / "resume.pt").exists():
            time.sleep(0.01)
        return process

    def finished(self) -> None:
        """Run it to its end."""
        _, said = ended(self.start())
        if not (self.folder / "metrics.json").is_file():
            raise SystemExit(f"the undisturbed run failed: {said}")

    def trace_fault(self) -> str:
        """Return what reading the trace says."""
        try:
            lk.open_traces(self.folder)
        except TraceError as error:
            return str(error)
        return "nothing: it is read"


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a command; return its exit code and what it said."""
    _, said = process.communicate()
    return process.returncode, said.strip()


class Faults:
    """All of them, each in a place of its own, against one run that nobody disturbed."""

    def __init__(self, root: Path) -> None:
        self._root, self._number, self._mounts = root, 0, []
        whole = Place(root / "whole")
        whole.finished()
        self._whole = lk.open_traces(whole.folder).dataset
        self._finished = whole.folder

    def place(self, megabytes: int | None = None) -> Place:
        """Return a new place, on a small file system of its own where asked for."""
        self._number += 1
        root = self._root / str(self._number)
        root.mkdir()
        if megabytes is not None:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(root)], check=True)
            self._mounts.append(root)
        return Place(root)

    def copy(self) -> Place:
        """Return a place that holds the finished run."""
        place = self.place()
        shutil.copytree(self._finished, place.folder)
        return place

    def close(self) -> None:
        """Give the file systems back."""
        for root in self._mounts:
            subprocess.run(["umount", "-l", str(root)], check=False, capture_output=True)

    def continued(self, place: Place) -> str:
        """Run the same command again, and say how the trace ends."""
        code, said = ended(place.start())
        if code:
            return f"exit {code}: {said}"
        return self.compared(place)

    def compared(self, place: Place) -> str:
        """Say whether a trace equals the undisturbed one."""
        found = lk.open_traces(place.folder).dataset
        same = all(found[name].equals(self._whole[name]) for name in self._whole.data_vars)
        return "bit-identical" if same else "DIFFERENT"

    # --- what a scheduler or a machine does

    def stopped(self, number: signal.Signals) -> Row:
        """Send a signal while it samples."""
        place = self.place()
        process = place.sampling()
        process.send_signal(number)
        code, said = ended(process)
        seen = f"exit {code}: {said}" if said else f"exit {code}, no word"
        lost = "nothing lost" if number != signal.SIGKILL else "lost: the draws since the last state (state_every)"
        return Row(f"{number.name} while sampling", seen, f"{lost}; the same command ends {self.continued(place)}")

    def killed_in_training(self) -> Row:
        """Kill it while it trains."""
        place, long = self.place(), "training.steps=3000"
        process = place.start(long)
        while process.poll() is None and not (place.folder / "checkpoints" / "training.pt").exists():
            time.sleep(0.01)
        process.kill()
        ended(process)
        code, said = ended(place.start(long))
        kept = (place.folder / "checkpoints" / "trained.pt").is_file()
        again = (
            "the same command trains on from the last state and ends" if kept and code == 0 else f"exit {code}: {said}"
        )
        return Row("SIGKILL while training", "no word", again)

    def twice(self) -> Row:
        """Start a second process on the folder."""
        place = self.place()
        first = place.sampling()
        code, said = ended(place.start())
        first.wait()
        return Row("a second process on the folder", f"exit {code}: {said}", f"the first ends {self.compared(place)}")

    # --- what disks do

    def full(self) -> Row:
        """Fill the disk while it samples; then make room."""
        place = self.place(megabytes=64)
        process = place.sampling()
        with suppress(OSError), open(place.root / "others.bin", "wb") as others:
            while True:
                others.write(b"0" * 2**16)
                others.flush()
        code, said = ended(process)
        before = place.trace_fault()
        (place.root / "others.bin").unlink()
        return Row(
            "disk full while sampling",
            f"exit {code}: {said}; the trace: {before}",
            f"with room again, the same command ends {self.continued(place)}",
        )

    def read_only(self) -> Row:
        """Turn the file system read-only while it samples."""
        place = self.place(megabytes=64)
        process = place.sampling()
        subprocess.run(["mount", "-o", "remount,ro", str(place.root)], check=False)
        code, said = ended(process)
        subprocess.run(["mount", "-o", "remount,rw", str(place.root)], check=True)
        if code == 0:
            return Row("file system turns read-only", "it could not be turned while files are open", "")
        return Row(
            "file system turns read-only while sampling",
            f"exit {code}: {said}",
            f"writable again, the same command ends {self.continued(place)}",
        )

    def vanished(self) -> Row:
        """Take the folder away while it samples, and bring it back."""
        place = self.place()
        process = place.sampling()
        hidden = place.root / "elsewhere"
        place.folder.rename(hidden)
        code, said = ended(process)
        shutil.rmtree(place.folder, ignore_errors=True)
        hidden.rename(place.folder)
        return Row(
            "the run's folder vanishes while sampling",
            f"exit {code}: {said}",
            f"once it is back, the same command ends {self.continued(place)}",
        )

    # --- what bits do

    def damaged(self, name: str, file: Callable[[Place], Path], damage: Callable[[Path], None]) -> Row:
        """Damage a file of a finished trace."""
        place = self.copy()
        damage(file(place))
        return Row(name, place.trace_fault(), "refused; nothing of it is used")

    def damaged_state(self) -> Row:
        """Damage the resume state of an interrupted run."""
        place = self.place()
        process = place.sampling()
        process.kill()
        process.wait()
        truncate(place.trace / "resume.pt")
        return Row("resume state truncated", self.continued(place), "refused; nothing of it is used")


def truncate(path: Path) -> None:
    """Cut a file in half."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 << random.Random(0).randrange(8)
    path.write_bytes(bytes(content))


def chunk(place: Place) -> Path:
    """Return a chunk of losses."""
    return sorted(path for path in (place.trace / "losses" / "c").rglob("*") if path.is_file())[0]


def label(place: Place) -> Path:
    """Return a chunk of a label."""
    return sorted(path for path in (place.trace / "task" / "c").rglob("*") if path.is_file())[0]


def tried(fault: Callable[[], Row]) -> Row:
    """Try one fault; one that is not permitted here has a row that says so."""
    try:
        return fault()
    except subprocess.CalledProcessError as error:
        return Row(getattr(fault, "__name__", "fault"), f"not tried: {' '.join(error.cmd)} is not permitted here", "")


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as root:
        faults = Faults(Path(root))
        try:
            rows = [tried(lambda number=each: faults.stopped(number)) for each in (signal.SIGTERM, signal.SIGUSR1)]
            rows += [
                tried(lambda: faults.stopped(signal.SIGKILL)),
                tried(faults.killed_in_training),
                tried(faults.twice),
            ]
            rows += [tried(faults.full), tried(faults.read_only), tried(faults.vanished)]
            rows += [
                faults.damaged("a chunk of losses truncated", chunk, truncate),
                faults.damaged("a bit of a chunk of losses flipped", chunk, flip),
                faults.damaged("a chunk of losses missing", chunk, Path.unlink),
                faults.damaged("a bit of the labels flipped", label, flip),
                faults.damaged(
                    "an array's description truncated", lambda place: place.trace / "losses/zarr.json", truncate
                ),
                faults.damaged(
                    "a bit of the trace's description flipped", lambda place: place.trace / "zarr.json", flip
                ),
                faults.damaged_state(),
            ]
        finally:
            faults.close()
    print("| fault | what the user sees | how it ends |\n|---|---|---|")
    for row in rows:
        print(re.sub(rf"{re.escape(root)}/(whole|\d+)/", "", str(row)).replace("\n", " "))


if __name__ == "__main__":
    main()
