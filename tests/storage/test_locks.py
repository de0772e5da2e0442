"""Two processes never write one folder or store: on one machine, on several, and on file systems without locks."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import tiny

import losskernel as lk
from losskernel.cli.build import run_from
from losskernel.errors import TraceError
from losskernel.storage import locks
from losskernel.storage.locations import LocalLocation
from losskernel.storage.lock_owner import LockOwner, process_start
from losskernel.storage.locks import LOCK, Lease, LeaseFile, locked_folder, locked_store
from losskernel.traces.loss_traces import coordinates_of
from losskernel.traces.records import layout
from losskernel.traces.zarr_store import TraceStore

pytest.importorskip("fcntl", reason="this system has no locks on files")

# A process that holds a lock until it is killed; of another machine where `host` is given, whose flock does not hold
# here; `refusal` is the error that flock raises.
HOLDER = """
import os, socket, sys, time
from pathlib import Path
from losskernel.storage import lock_owner, locks
from losskernel.storage.locations import LocalLocation

folder, host, refusal, job, what = sys.argv[1:]
locks.RENEWAL = 0.1
if host:
    socket.gethostname, lock_owner._boot = lambda: host, lambda: host
    os.environ.update(SLURM_JOB_ID=job, SLURM_RESTART_COUNT="0")

def flock(*_):
    if int(refusal):
        raise OSError(int(refusal), os.strerror(int(refusal)))

if host or int(refusal):
    locks.fcntl.flock = flock
with locks.locked_store(LocalLocation(Path(folder))) if what == "store" else locks.locked_folder(Path(folder)):
    print("held", flush=True)
    if what == "parent" and os.fork() == 0:
        print("child", flush=True)
    time.sleep(600)
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Start]:
    """Starts processes that hold a lock."""
    started: list[subprocess.Popen[str]] = []

    def start(
        folder: Path = tmp_path, host: str = "", refusal: int = 0, job: str = "", what: str = "run"
    ) -> "subprocess.Popen[str]":
        words = [sys.executable, "-c", HOLDER, str(folder), host, str(refusal), job, what]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        kill(process, group=True)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that are renewed, and run out, within a second."""
    for name, seconds in {"RENEWAL": 0.1, "LIFE": 0.6, "_POLL": 0.02, "_SETTLE": 0.02}.items():
        monkeypatch.setattr(locks, name, seconds)


def kill(process: "subprocess.Popen[str]", group: bool = False) -> None:
    """End a process so that it cannot tidy up."""
    try:
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except ProcessLookupError:
        pass
    process.wait()


def elsewhere(**facts: Any) -> LockOwner:
    """A process of another machine."""
    plain = {"host": "node7", "process": 12, "slurm_job": "4711", "slurm_restart": 0, "boot": "b", "began": "1"}
    return LockOwner(**{**plain, "token": "theirs", **facts})


def flock_result(monkeypatch: pytest.MonkeyPatch, number: int = 0) -> None:
    """Make flock succeed for every process, or fail with an error."""

    def flock(*_: Any) -> None:
        if number:
            raise OSError(number, "refused")

    monkeypatch.setattr(locks.fcntl, "flock", flock)


def test_a_second_process_is_refused_by_name_until_the_first_is_dead(tmp_path: Path, holder: Start) -> None:
    first = holder()
    message = (
        rf"{tmp_path} is being written by process {first.pid} on \S+, last sign of life \d s ago; wait for it, or ch"
    )
    with pytest.raises(TraceError, match=message), locked_folder(tmp_path):
        pass
    kill(first)
    with locked_folder(tmp_path):
        assert LockOwner.parse((tmp_path / LOCK).read_bytes()) is not None
    assert not (tmp_path / LOCK).exists()


def test_a_run_in_a_locked_folder_is_refused_before_it_writes(tmp_path: Path, holder: Start) -> None:
    first = holder()
    with pytest.raises(TraceError, match=rf"^{tmp_path} is being written by process {first.pid} on .*paths\.run$"):
        run_from(tiny(tmp_path, "training.steps=5", "analysis=[]"), tmp_path, None)
    assert not (tmp_path / "config.yaml").exists()


def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(tmp_path: Path, holder: Start) -> None:
    first = holder(what="parent")
    assert first.stdout is not None
    assert first.stdout.readline() == "child\n"  # it inherits what its parent had open
    kill(first)
    with locked_folder(tmp_path):
        pass


def test_a_lock_file_of_a_version_without_leases_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("process 12 on node7")
    with locked_folder(tmp_path) as mine:
        assert mine is not None


def test_an_empty_lock_file_is_taken_over_unless_it_is_being_written(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).touch()
    with locked_folder(tmp_path):
        pass
    (tmp_path / LOCK).touch()
    beats = iter(range(1000))
    monkeypatch.setattr(
        locks.time, "sleep", lambda _: (tmp_path / LOCK).write_bytes(elsewhere(beat=next(beats)).record())
    )
    with pytest.raises(TraceError, match="is being written by process 12 on node7"), locked_folder(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match=r"cannot write .*; free space"), locked_folder(tmp_path / "file"):
        pass


def test_an_error_of_flock_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock_result(monkeypatch, errno.EIO)
    with pytest.raises(TraceError, match=r"cannot write .*\.lock: refused"), locked_folder(tmp_path):
        pass


def test_a_lock_file_removed_while_it_is_opened_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LOCK).write_text("")
    taken = LeaseFile._lock
    times = 0

    def late(cell: LeaseFile) -> None:
        nonlocal times
        times += 1
        if times == 1:
            (tmp_path / LOCK).unlink()
        taken(cell)

    monkeypatch.setattr(LeaseFile, "_lock", late)
    with locked_folder(tmp_path):
        assert LockOwner.parse((tmp_path / LOCK).read_bytes()) is not None
    assert times == 2


# --- no locks, or locks that hold within a machine only


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK])
def test_without_locks_a_process_of_this_machine_counts_while_it_lives(
    tmp_path: Path, holder: Start, quick: None, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    first = holder(refusal=number)
    flock_result(monkeypatch, number)
    with pytest.raises(TraceError, match=f"is being written by process {first.pid} on"), locked_folder(tmp_path):
        pass
    kill(first)
    monkeypatch.setattr(locks, "LIFE", float("inf"))  # nothing is waited for
    with locked_folder(tmp_path):
        pass


def test_without_locks_a_process_does_not_lock_twice(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock_result(monkeypatch, errno.ENOTSUP)
    with (
        locked_folder(tmp_path),
        pytest.raises(TraceError, match="is being written by process"),
        locked_folder(tmp_path),
    ):
        pass
    # What could not be removed when it was given back (the file system had gone) is nobody's.
    (tmp_path / LOCK).write_bytes(LockOwner.current().record())
    with locked_folder(tmp_path):
        pass


def test_another_machine_is_refused_while_the_first_lives_and_goes_on_when_it_is_dead(
    tmp_path: Path, holder: Start, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = holder(host="node7", job="4711")
    flock_result(monkeypatch)
    message = (
        rf"{tmp_path} is being written by process {first.pid} on node7 \(SLURM job 4711\), last sign of life 0 s ago; "
        r"wait for it, or choose another folder with paths\.run"
    )
    monkeypatch.setattr(locks, "LIFE", 60.0)
    with pytest.raises(TraceError, match=message), locked_folder(tmp_path):
        pass
    kill(first)
    monkeypatch.setattr(locks, "LIFE", 0.6)
    with locked_folder(tmp_path):
        result = LockOwner.parse((tmp_path / LOCK).read_bytes())
        assert result is not None
        assert result.is_local()


def test_a_flock_that_a_file_server_keeps_for_a_dead_machine_is_ignored(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).write_bytes(elsewhere().record())
    flock_result(monkeypatch, errno.EWOULDBLOCK)
    with locked_folder(tmp_path):
        pass


def test_a_requeued_job_takes_over_at_once(tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with monkeypatch.context() as patch:
        patch.setattr(locks, "LIFE", float("inf"))  # it would wait for ever
        (tmp_path / LOCK).write_bytes(elsewhere().record())
        with locked_folder(tmp_path):
            pass
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")  # another task of the job, on another node
    cell = tmp_path / LOCK
    cell.write_bytes(elsewhere().record())
    monkeypatch.setattr(locks.time, "sleep", lambda _: cell.write_bytes(elsewhere(beat=1).record()))
    with pytest.raises(TraceError, match=r"process 12 on node7 \(SLURM job 4711\)"), locked_folder(tmp_path):
        pass


def test_a_lease_released_while_it_is_watched_is_free(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).write_bytes(elsewhere().record())
    monkeypatch.setattr(locks, "LIFE", float("inf"))
    monkeypatch.setattr(locks.time, "sleep", lambda _: (tmp_path / LOCK).unlink())
    with locked_folder(tmp_path):
        pass


def test_only_one_of_two_processes_takes_over(tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LOCK).write_bytes(elsewhere().record())
    faster = elsewhere(host="node8", token="faster")
    monkeypatch.setattr(locks, "_is_dead", lambda *_: True)
    monkeypatch.setattr(locks.time, "sleep", lambda _: (tmp_path / LOCK).write_bytes(faster.record()))
    with pytest.raises(TraceError, match="is being written by process 12 on node8"), locked_folder(tmp_path):
        pass
    assert LockOwner.parse((tmp_path / LOCK).read_bytes()) == faster


def test_a_lease_is_renewed_while_it_is_held_and_only_by_its_owner(tmp_path: Path, quick: None) -> None:
    with locked_folder(tmp_path) as mine:
        assert isinstance(mine, Lease)
        first = (tmp_path / LOCK).read_bytes()
        while (tmp_path / LOCK).read_bytes() == first:
            pass
        mine.check()
        (tmp_path / LOCK).write_bytes(elsewhere().record())
        mine.renew()
        with pytest.raises(
            TraceError, match=r"is now being written by process 12 on node7 .*; nothing is lost, the run"
        ):
            mine.check()
        assert LockOwner.parse((tmp_path / LOCK).read_bytes()) == elsewhere()
    assert (tmp_path / LOCK).exists()  # it is theirs


def test_a_process_that_was_suspended_checks_its_lease_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = _store(tmp_path)
    with target.locked():
        (tmp_path / ".x.zarr.lock").write_bytes(elsewhere().record())
        losses = {"losses": np.zeros((2, 8, 5), np.float32)}
        target.write(slice(0, 2), losses, 0)  # a moment ago it was ours
        monkeypatch.setattr(locks, "LIFE", 0.0)
        for write in (
            lambda: target.write(slice(0, 2), losses, 0),
            lambda: target.save_state({"rows": 0}),
            target.finish,
        ):
            with pytest.raises(TraceError, match="is now being written by process 12 on node7"):
                write()
    assert target.load_state() is None


def test_a_lease_that_a_live_process_could_not_remove_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = os.getppid()
    lives = LockOwner(
        **{**vars(LockOwner.current()), "process": parent, "began": process_start(parent), "token": "another"}
    )
    (tmp_path / LOCK).write_bytes(lives.record())  # held without the kernel's lock, and renewed
    with pytest.raises(TraceError, match=f"is being written by process {parent} on"), locked_folder(tmp_path):
        pass
    monkeypatch.setattr(locks, "LIFE", 0.0)
    with locked_folder(tmp_path):
        pass


def test_an_owner_differs_from_earlier_processes_of_its_number() -> None:
    me = LockOwner.current()
    assert LockOwner.parse(me.record()) == me
    assert me.is_local()
    assert not elsewhere().is_local()
    assert not elsewhere(process=1, began="another time").is_alive()
    assert process_start(1) is not None
    assert process_start(2**22 + 1) is None
    owners = [replace(owner, beat=beat) for owner in (me, elsewhere()) for beat in (0, 10**6)]
    assert len({len(owner.record()) for owner in owners}) == 1  # each can be written over any other
    assert me.renewed().record() != me.record()


# --- stores


def _store(folder: Path, draws: int = 8) -> TraceStore:
    target = TraceStore(folder / "x.zarr")
    about = {"identity": {}, "chains_per_fit": 2}
    target.create(coordinates_of(5, range(2), draws, {}, None), about, layout((2, draws, 5), 0), "float32")
    return target


def test_a_store_has_one_writer_and_any_number_of_readers(tmp_path: Path, holder: Start) -> None:
    traces = lk.LossTraces.from_arrays(np.random.default_rng(0).normal(size=(2, 5, 3)))
    traces.save(tmp_path / "done.zarr")
    for name in ("x.zarr", "done.zarr"):
        holder(folder=tmp_path / name, what="store")
    target = _store(tmp_path)
    message = r"x\.zarr is being written by process .*; wait for it, or choose another folder with out="
    with pytest.raises(TraceError, match=message), target.locked():
        pass
    with pytest.raises(TraceError, match="is unfinished"):
        lk.open_traces(tmp_path / "x.zarr")
    with TraceStore(tmp_path / "done.zarr").locked():  # it is read only
        assert lk.open_traces(tmp_path / "done.zarr").losses.equals(traces.losses)


def test_all_links_to_a_store_lead_to_one_lock(tmp_path: Path) -> None:
    target, link = _store(tmp_path), TraceStore(tmp_path / "link.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "x.zarr")
    message = r"link\.zarr is being written by process"
    with target.locked(), pytest.raises(TraceError, match=message), link.locked():
        pass


def test_a_lock_beside_a_store_is_gone_after_it(tmp_path: Path) -> None:
    with locked_store(LocalLocation(tmp_path / "new" / "x.zarr")):
        assert [item.name for item in (tmp_path / "new").iterdir()] == [".x.zarr.lock"]
    assert not list((tmp_path / "new").iterdir())
