"""Real file systems that fill up, turn read-only or vanish while something is written to them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# In a mount namespace of its own, so that nothing outside sees the file systems.
SCRIPT = """
import functools, os, subprocess, sys, torch
from pathlib import Path
import pytorch_lightning as pl
import losskernel as lk
from losskernel.data import arithmetic
from losskernel.errors import TraceError
from losskernel.models import MultitaskMLP
from losskernel.traces import zarr_store as store

home = Path(sys.argv[1])
disk, mount_point = home / "disk", home / "mounted"
for folder in (disk, mount_point):
    folder.mkdir()

def mount(*words):
    subprocess.run(["mount", *map(str, words)], check=True)

mount("-t", "tmpfs", "-o", "size=4m", "none", disk)
mount("--bind", disk, mount_point)
store._CHUNK_BYTES = 2 * 10 * 4 * 7
torch.set_num_threads(1)

def fill():
    with open(mount_point / "filler", "wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return

FAULTS = {
    "full": (fill, lambda: (mount_point / "filler").unlink()),
    "read-only": (lambda: (gone(), back(), mount("-o", "remount,bind,ro", mount_point)), lambda: (gone(), back())),
    "vanished": (lambda: gone(), lambda: back()),
}

def gone():
    subprocess.run(["umount", "-l", mount_point], check=True)

def back():
    mount("--bind", disk, mount_point)

def draw(out, *callbacks):
    torch.manual_seed(0)
    schedule = lk.Schedule(chains=4, burn_in=5, draws=40, thinning=1, batch_size=32)
    sampler = functools.partial(lk.SGLD, step_size=1e-3, nbeta=100.0, localization=100.0)
    model, data = MultitaskMLP(2), arithmetic(probes_per_task=5)
    options = {"chains_per_fit": 2, "progress": False, "state_every": 0.0, "callbacks": callbacks}
    return lk.sample(model, data, sampler, schedule, out=out, **options)

class At(pl.Callback):
    def __init__(self, batch, action):
        self.left, self.action = batch, action

    def on_train_batch_end(self, *_):
        self.left -= 1
        if self.left == 0:
            self.action()

whole = draw(None)
for name, (harm, mend) in FAULTS.items():
    out = mount_point / "runs" / f"{name}.zarr"
    for batch in (12, 50):  # within a chunk, and in the second stack
        try:
            draw(out, At(batch, harm))
        except TraceError as error:
            print(f"{name}: {error}")
        mend()
        if out.exists() and not store.TraceStore(out).complete:
            kept = store.TraceStore(out).load_state()
            assert kept is None or kept["summary"]
    assert draw(out).dataset.equals(whole.dataset), name
    left = sorted(path.name for path in out.parent.rglob("*partial*"))
    assert not left, left
"""


def _can_mount() -> bool:
    try:
        return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not _can_mount(), reason="mounting file systems is not permitted here")
def test_a_disk_that_fails_is_one_line_and_the_trace_goes_on_to_the_bit(tmp_path: Path) -> None:
    words = ["unshare", "-m", sys.executable, "-c", SCRIPT, str(tmp_path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    reasons = {
        "full": "No space left on device",
        "read-only": "Read-only file system",
        "vanished": "No such file or directory",
    }
    for name, reason in reasons.items():
        reports = [line for line in lines if line.startswith(f"{name}: ")]
        assert len(reports) == 2, lines
        for line in reports:
            assert line.startswith(
                f"{name}: cannot write {tmp_path}/mounted/runs/{name}.zarr: {reason}; free space or "
            )
            assert line.endswith("what was written before stays readable and the run can be continued")
