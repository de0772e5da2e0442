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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import losskernel as lk
from losskernel.errors import TraceError

WORDS = (
    "training.steps=200",
    "schedule.chains=2",
    "schedule.burn_in=50",
    "schedule.draws=2000",
    "schedule.thinning=1",
    "dataset.probes_per_task=50",
    "analysis=[separation]",
    "logger=none",
    "progress=false",
    "state_every=0.5",
)
# Descriptions in a trace: of an array, and of the whole.
LOSSES, ROOT = "losses/zarr.json", "zarr.json"
READ = "nothing: it is read"


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
        return subprocess.Popen(
            command, cwd=tempfile.gettempdir(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

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
        return READ


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
        if megabytes is None:
            return Place(root)
        disk, mounted = root / "disk", root / "mounted"
        disk.mkdir()
        mounted.mkdir()
        mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", disk)
        self._mounts.append(disk)
        mount("--bind", disk, mounted)
        self._mounts.append(mounted)
        return Place(mounted)

    def copy(self) -> Place:
        """Return a place that holds the finished run."""
        place = self.place()
        shutil.copytree(self._finished, place.folder)
        return place

    def close(self) -> None:
        """Give the file systems back."""
        for root in reversed(self._mounts):
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
        return Row(f"{number.name} while sampling", seen, f"the same command ends {self.continued(place)}")

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
        first.send_signal(signal.SIGSTOP)  # it would be done too soon
        code, said = ended(place.start())
        first.send_signal(signal.SIGCONT)
        ended(first)
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
        anew(place.root)
        mount("-o", "remount,bind,ro", place.root)
        code, said = ended(process)
        anew(place.root)
        return Row(
            "file system turns read-only while sampling",
            f"exit {code}: {said}",
            f"writable again, the same command ends {self.continued(place)}",
        )

    def vanished(self) -> Row:
        """Take the file system away while it samples, and bring it back."""
        place = self.place(megabytes=64)
        process = place.sampling()
        subprocess.run(["umount", "-l", str(place.root)], check=True)
        code, said = ended(process)
        mount("--bind", place.root.parent / "disk", place.root)
        return Row(
            "file system vanishes while sampling",
            f"exit {code}: {said}",
            f"once it is back, the same command ends {self.continued(place)}",
        )

    # --- what bits do

    def damaged(self, name: str, file: Callable[[Place], Path], damage: Callable[[Path], None]) -> Row:
        """Damage a file of a finished trace."""
        place = self.copy()
        damage(file(place))
        said = place.trace_fault()
        return Row(name, said, "READ ALL THE SAME" if said == READ else "refused")

    def damaged_meanwhile(self, name: str, file: Callable[[Place], Path], damage: Callable[[Path], None]) -> Row:
        """Damage a file of an interrupted run, and go on."""
        place = self.place()
        process = place.sampling()
        process.kill()
        ended(process)
        damage(file(place))
        code, said = ended(place.start())
        return Row(name, f"exit {code}: {said}", "refused" if code else "USED ALL THE SAME")


def mount(*words: str | Path) -> None:
    """Mount a file system."""
    subprocess.run(["mount", *map(str, words)], check=True)


def anew(place: Path) -> None:
    """Mount a place again, for those who open files from now on."""
    subprocess.run(["umount", "-l", str(place)], check=True)
    mount("--bind", place.parent / "disk", place)


def truncate(path: Path) -> None:
    """Cut a file in half."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 << random.Random(0).randrange(8)
    path.write_bytes(bytes(content))


def exchange(path: Path) -> None:
    """Exchange a chunk of distances with that of the training losses: both are whole."""
    other = Path(str(path).replace("/distance/", "/train_loss/"))
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)


def chunk(place: Place, array: str = "losses") -> Path:
    """Return a chunk of an array."""
    return sorted(path for path in (place.trace / array / "c").rglob("*") if path.is_file())[0]


def distances(place: Place) -> Path:
    """Return a chunk of the distances."""
    return chunk(place, "distance")


def label(place: Place) -> Path:
    """Return a chunk of a label."""
    return chunk(place, "task")


def state(place: Place) -> Path:
    """Return the resume state."""
    return place.trace / "resume.pt"


def weights(place: Place) -> Path:
    """Return the trained weights."""
    return place.folder / "checkpoints" / "trained.pt"


def rows_of(faults: Faults) -> Iterator[Row]:
    """Try every fault, one after another; one that is not permitted here has a row that says so."""
    trials: list[tuple[str, Callable[[], Row]]] = [
        ("SIGTERM", lambda: faults.stopped(signal.SIGTERM)),
        ("SIGUSR1", lambda: faults.stopped(signal.SIGUSR1)),
        ("SIGKILL", lambda: faults.stopped(signal.SIGKILL)),
        ("SIGKILL while training", faults.killed_in_training),
        ("a second process", faults.twice),
        ("disk full", faults.full),
        ("read-only file system", faults.read_only),
        ("vanished file system", faults.vanished),
        ("truncated chunk", lambda: faults.damaged("a chunk of losses truncated", chunk, truncate)),
        ("flipped bit", lambda: faults.damaged("a bit of a chunk of losses flipped", chunk, flip)),
        ("missing chunk", lambda: faults.damaged("a chunk of losses missing", chunk, Path.unlink)),
        ("exchanged chunks", lambda: faults.damaged("two whole chunks exchanged", distances, exchange)),
        ("labels", lambda: faults.damaged("a bit of the labels flipped", label, flip)),
        ("array", lambda: faults.damaged("an array's description truncated", lambda at: at.trace / LOSSES, truncate)),
        ("root", lambda: faults.damaged("a bit of the trace's description flipped", lambda at: at.trace / ROOT, flip)),
        ("state", lambda: faults.damaged_meanwhile("resume state truncated", state, truncate)),
        ("weights", lambda: faults.damaged_meanwhile("a bit of checkpoints/trained.pt flipped", weights, flip)),
    ]
    for name, trial in trials:
        try:
            yield trial()
        except subprocess.CalledProcessError as error:
            yield Row(name, f"not tried: {' '.join(error.cmd)} is not permitted here", "")


def main() -> None:
    """Print the table, row by row."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as root:
        faults = Faults(Path(root))
        print("| fault | what the user sees | how it ends |\n|---|---|---|", flush=True)
        try:
            for row in rows_of(faults):
                shown = re.sub(rf"{re.escape(root)}/(whole|\d+)/(mounted/)?", "", str(row))
                print(shown.replace("\n", " "), flush=True)
        finally:
            faults.close()


if __name__ == "__main__":
    main()
