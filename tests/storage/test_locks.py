"""Two processes never write in one place: on one machine, on several, and where the file system knows no locks."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import losskernel_command

import losskernel as lk
from losskernel.errors import TraceError
from losskernel.storage.locks import LOCK, lease, only_one, only_writer
from losskernel.storage.locks import lock_files as cells
from losskernel.storage.locks import owner as holder
from losskernel.storage.locks.lease import Lease
from losskernel.storage.locks.owner import Holder
from losskernel.storage.places import Folder
from losskernel.traces.loss_traces import coordinates_of
from losskernel.traces.zarr_store import TraceStore

pytest.importorskip("fcntl", reason="this system has no locks on files")

# A process that works in a folder, for as long as it lives: on which machine, and what flock says there.
AT_WORK = """
import os, socket, sys, time
from pathlib import Path
from losskernel.storage.locks import cells, holder, lease, only_one, only_writer
from losskernel.storage.places import Folder

folder, host, refusal, job, what = sys.argv[1:]
lease.EVERY = 0.1
if host:
    socket.gethostname, holder._boot = lambda: host, lambda: host
    os.environ.update(SLURM_JOB_ID=job, SLURM_RESTART_COUNT="0")

def flock(*_):  # holds within a machine only, or nowhere
    if int(refusal):
        raise OSError(int(refusal), os.strerror(int(refusal)))

if host or int(refusal):
    cells.fcntl.flock = flock
with only_writer(Folder(Path(folder))) if what == "store" else only_one(Path(folder)):
    print("held", flush=True)
    if what == "parent" and os.fork() == 0:
        print("child", flush=True)
    time.sleep(600)
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[Start]:
    """Starts processes that work in a folder."""
    started: list[subprocess.Popen[str]] = []

    def start(
        folder: Path = tmp_path, host: str = "", refusal: int = 0, job: str = "", what: str = "run"
    ) -> "subprocess.Popen[str]":
        words = [sys.executable, "-c", AT_WORK, str(folder), host, str(refusal), job, what]
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
    for name, seconds in {"EVERY": 0.1, "LIFE": 0.6, "_LOOK": 0.02, "_SETTLE": 0.02}.items():
        monkeypatch.setattr(lease, name, seconds)


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


def elsewhere(**facts: Any) -> Holder:
    """A process of another machine."""
    own = {"host": "node7", "process": 12, "slurm_job": "4711", "slurm_restart": 0, "boot": "b", "began": "1"}
    return Holder(**{**own, "token": "theirs", **facts})


def flock_says(monkeypatch: pytest.MonkeyPatch, number: int = 0) -> None:
    """Let the kernel's lock hold for nobody else, or be refused as such."""

    def flock(*_: Any) -> None:
        if number:
            raise OSError(number, "refused")

    monkeypatch.setattr(cells.fcntl, "flock", flock)


def test_a_second_process_is_refused_by_name_until_the_first_is_dead(tmp_path: Path, at_work: Start) -> None:
    first = at_work()
    message = (
        rf"{tmp_path} is being written by process {first.pid} on \S+, last sign of life \d s ago; wait for it, or ch"
    )
    with pytest.raises(TraceError, match=message), only_one(tmp_path):
        pass
    kill(first)
    with only_one(tmp_path):
        assert Holder.of((tmp_path / LOCK).read_bytes()) is not None
    assert not (tmp_path / LOCK).exists()


def test_the_command_line_says_it_in_one_line(tmp_path: Path, at_work: Start) -> None:
    first = at_work()
    words = ("training.steps=5", "schedule=none", "analysis=[]", "points=none", "logger=none", "progress=false")
    done = losskernel_command(*words, f"paths.run={tmp_path}", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"losskernel: {tmp_path} is being written by process {first.pid}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "config.yaml").exists()


def test_a_child_of_a_dead_process_keeps_nobody_out(tmp_path: Path, at_work: Start) -> None:
    first = at_work(what="parent")
    assert first.stdout is not None
    assert first.stdout.readline() == "child\n"  # it inherits what its parent had open
    kill(first)
    with only_one(tmp_path):
        pass


def test_a_file_of_before_there_were_leases_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("process 12 on node7")
    with only_one(tmp_path) as mine:
        assert mine is not None


def test_an_empty_lock_file_is_nobodys_unless_it_is_being_made(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).touch()
    with only_one(tmp_path):
        pass
    (tmp_path / LOCK).touch()
    beats = iter(range(1000))
    monkeypatch.setattr(lease.time, "sleep", lambda _: (tmp_path / LOCK).write_bytes(elsewhere().lease(next(beats))))
    with pytest.raises(TraceError, match="is being written by process 12 on node7"), only_one(tmp_path):
        pass


def test_a_lock_in_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match=r"cannot write .*; free space"), only_one(tmp_path / "file"):
        pass


def test_an_error_of_the_lock_itself_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock_says(monkeypatch, errno.EIO)
    with pytest.raises(TraceError, match=r"cannot write .*\.lock: refused"), only_one(tmp_path):
        pass


def test_a_lock_file_that_another_process_just_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LOCK).write_text("")
    taken = cells.FileCell._lock
    times = 0

    def late(cell: cells.FileCell) -> None:
        nonlocal times
        times += 1
        if times == 1:
            (tmp_path / LOCK).unlink()
        taken(cell)

    monkeypatch.setattr(cells.FileCell, "_lock", late)
    with only_one(tmp_path):
        assert Holder.of((tmp_path / LOCK).read_bytes()) is not None
    assert times == 2


# --- no locks, or locks that hold within a machine only


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK])
def test_without_locks_a_process_of_this_machine_counts_while_it_lives(
    tmp_path: Path, at_work: Start, quick: None, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    first = at_work(refusal=number)
    flock_says(monkeypatch, number)
    with pytest.raises(TraceError, match=f"is being written by process {first.pid} on"), only_one(tmp_path):
        pass
    kill(first)
    monkeypatch.setattr(lease, "LIFE", float("inf"))  # nothing is waited for
    with only_one(tmp_path):
        pass


def test_without_locks_a_process_keeps_itself_out(tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    flock_says(monkeypatch, errno.ENOTSUP)
    with only_one(tmp_path), pytest.raises(TraceError, match="is being written by process"), only_one(tmp_path):
        pass
    # What could not be removed when it was given back (the file system had gone) is nobody's.
    (tmp_path / LOCK).write_bytes(Holder.this().lease(3))
    with only_one(tmp_path):
        pass


def test_another_machine_is_refused_while_the_first_lives_and_goes_on_when_it_is_dead(
    tmp_path: Path, at_work: Start, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = at_work(host="node7", job="4711")
    flock_says(monkeypatch)
    message = (
        rf"{tmp_path} is being written by process {first.pid} on node7 \(SLURM job 4711\), last sign of life 0 s ago; "
        r"wait for it, or choose another folder with paths\.run"
    )
    monkeypatch.setattr(lease, "LIFE", 60.0)
    with pytest.raises(TraceError, match=message), only_one(tmp_path):
        pass
    kill(first)
    monkeypatch.setattr(lease, "LIFE", 0.6)
    with only_one(tmp_path):
        found = Holder.of((tmp_path / LOCK).read_bytes())
        assert found is not None
        assert found.is_here()


def test_a_lock_that_a_file_server_keeps_for_a_dead_machine_is_passed_over(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).write_bytes(elsewhere().lease(3))
    flock_says(monkeypatch, errno.EWOULDBLOCK)
    with only_one(tmp_path):
        pass


def test_a_requeued_job_goes_on_at_once(tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with monkeypatch.context() as patch:
        patch.setattr(lease, "LIFE", float("inf"))  # it would wait for ever
        (tmp_path / LOCK).write_bytes(elsewhere().lease(3))
        with only_one(tmp_path):
            pass
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")  # another task of the job, on another node
    cell = tmp_path / LOCK
    cell.write_bytes(elsewhere().lease(3))
    monkeypatch.setattr(lease.time, "sleep", lambda _: cell.write_bytes(elsewhere().lease(4)))
    with pytest.raises(TraceError, match=r"process 12 on node7 \(SLURM job 4711\)"), only_one(tmp_path):
        pass


def test_a_lease_given_back_while_it_is_watched_is_free(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).write_bytes(elsewhere().lease(3))
    monkeypatch.setattr(lease, "LIFE", float("inf"))
    monkeypatch.setattr(lease.time, "sleep", lambda _: (tmp_path / LOCK).unlink())
    with only_one(tmp_path):
        pass


def test_of_two_that_take_over_what_was_left_one_does(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).write_bytes(elsewhere().lease(3))
    faster = elsewhere(host="node8", token="faster")
    monkeypatch.setattr(lease, "_is_left", lambda *_: True)
    monkeypatch.setattr(lease.time, "sleep", lambda _: (tmp_path / LOCK).write_bytes(faster.lease(0)))
    with pytest.raises(TraceError, match="is being written by process 12 on node8"), only_one(tmp_path):
        pass
    assert Holder.of((tmp_path / LOCK).read_bytes()) == faster


def test_a_lease_is_renewed_while_it_is_held_and_by_its_holder_alone(tmp_path: Path, quick: None) -> None:
    with only_one(tmp_path) as mine:
        assert isinstance(mine, Lease)
        first = (tmp_path / LOCK).read_bytes()
        while (tmp_path / LOCK).read_bytes() == first:
            pass
        mine.require()
        (tmp_path / LOCK).write_bytes(elsewhere().lease(0))
        mine.beat()
        with pytest.raises(
            TraceError, match=r"is now being written by process 12 on node7 .*; nothing is lost, the run"
        ):
            mine.require()
        assert Holder.of((tmp_path / LOCK).read_bytes()) == elsewhere()
    assert (tmp_path / LOCK).exists()  # it is theirs


def test_a_process_that_was_halted_looks_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = _store(tmp_path)
    with target.alone():
        (tmp_path / ".x.zarr.lock").write_bytes(elsewhere().lease(0))
        losses = {"losses": np.zeros((2, 8, 5), np.float32)}
        target.write(slice(0, 2), losses, 0)  # a moment ago it was ours
        monkeypatch.setattr(lease, "LIFE", 0.0)
        for write in (
            lambda: target.write(slice(0, 2), losses, 0),
            lambda: target.save_state({"rows": 0}),
            target.finish,
        ):
            with pytest.raises(TraceError, match="is now being written by process 12 on node7"):
                write()
    assert target.load_state() is None


def test_what_a_living_process_could_not_remove_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getppid()
    lives = Holder(**{**vars(Holder.this()), "process": parent, "began": holder._began(parent), "token": "another"})
    (tmp_path / LOCK).write_bytes(lives.lease(0))  # held without the kernel's lock, and renewed
    with pytest.raises(TraceError, match=f"is being written by process {parent} on"), only_one(tmp_path):
        pass
    monkeypatch.setattr(lease, "LIFE", 0.0)
    with only_one(tmp_path):
        pass


def test_who_a_process_is_told_from_its_past_and_its_namesakes() -> None:
    me = Holder.this()
    assert Holder.of(me.lease(7)) == me
    assert me.is_here()
    assert not elsewhere().is_here()
    assert not elsewhere(process=1, began="another time").lives()
    assert holder._began(1) is not None
    assert holder._began(2**22 + 1) is None
    assert len({len(each.lease(beat)) for each in (me, elsewhere()) for beat in (0, 10**6)}) == 1


# --- stores


def _store(folder: Path, draws: int = 8) -> TraceStore:
    target = TraceStore(folder / "x.zarr")
    about = {"identity": {}, "chains_per_fit": 2}
    target.create(coordinates_of(5, range(2), draws, {}, None), about, (2, draws, 5), 0, "float32")
    return target


def test_a_store_has_one_writer_and_any_number_of_readers(tmp_path: Path, at_work: Start) -> None:
    traces = lk.LossTraces.from_arrays(np.random.default_rng(0).normal(size=(2, 5, 3)))
    traces.save(tmp_path / "done.zarr")
    for name in ("x.zarr", "done.zarr"):
        at_work(folder=tmp_path / name, what="store")
    target = _store(tmp_path)
    message = r"x\.zarr is being written by process .*; wait for it, or choose another folder with out="
    with pytest.raises(TraceError, match=message), target.alone():
        pass
    with pytest.raises(TraceError, match="is unfinished"):
        lk.open_traces(tmp_path / "x.zarr")
    with TraceStore(tmp_path / "done.zarr").alone():  # it is read only
        assert lk.open_traces(tmp_path / "done.zarr").losses.equals(traces.losses)


def test_all_links_to_a_store_lead_to_one_lock(tmp_path: Path) -> None:
    target, link = _store(tmp_path), TraceStore(tmp_path / "link.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "x.zarr")
    message = r"link\.zarr is being written by process"
    with target.alone(), pytest.raises(TraceError, match=message), link.alone():
        pass


def test_a_lock_beside_a_store_is_gone_after_it(tmp_path: Path) -> None:
    with only_writer(Folder(tmp_path / "new" / "x.zarr")):
        assert [each.name for each in (tmp_path / "new").iterdir()] == [".x.zarr.lock"]
    assert not list((tmp_path / "new").iterdir())
