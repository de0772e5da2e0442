"""Signals: a stop where it is asked for, an end in order elsewhere, and a run that goes on where it was."""

import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from command import MAIN, TINY, Forked, config, losskernel_command, tiny

import losskernel as lk
from losskernel.cli.build import run_from
from losskernel.errors import Interrupted, TraceError
from losskernel.runs.status.status_file import read_status
from losskernel.signals import STOP_SIGNALS, Stopped, raise_on_signal, reinstall_handler, stop_on_signal

ALL = (signal.SIGINT, *STOP_SIGNALS)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in ALL]


# --- between two steps


@pytest.mark.parametrize("number", ALL)
def test_a_signal_is_a_stop_where_somebody_asks(number: int) -> None:
    before, seen = handlers(), []

    def polled() -> None:
        with stop_on_signal() as stop:
            seen.append(stop())
            send(number)
            seen.append(stop())
            raise Interrupted("stopped", stop())

    with pytest.raises(Interrupted) as raised:
        polled()
    assert seen == [0, number]
    assert raised.value.number == number
    assert handlers() == before


def test_a_scheduler_may_say_it_twice_but_a_second_ctrl_c_means_now() -> None:
    seen: list[int] = []

    def message(*numbers: int) -> None:
        with stop_on_signal() as stop:
            for number in numbers:
                send(number)
                seen.append(stop())

    with pytest.raises(Stopped, match=r"stopped \(SIGTERM\)"):
        message(signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1)
    assert seen == [signal.SIGTERM] * 3  # the first one counts
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        message(signal.SIGINT, signal.SIGINT)
    assert seen == [signal.SIGINT]


@pytest.mark.parametrize("number", ALL)
def test_a_signal_after_the_last_question_is_not_lost(number: int) -> None:
    with pytest.raises(KeyboardInterrupt) as raised, stop_on_signal():
        send(number)
    assert getattr(raised.value, "number", signal.SIGINT) == number


# --- elsewhere


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_elsewhere_a_schedulers_signal_passes_by_those_who_catch_faults(number: int) -> None:
    before = handlers()

    def careless() -> None:
        with raise_on_signal():
            try:
                send(number)
            except Exception:
                pytest.fail("an analysis took the signal for its own fault")

    with pytest.raises(Stopped) as raised:
        careless()
    assert raised.value.number == number
    assert handlers() == before


def test_sampling_within_a_run_asks_and_the_run_goes_on_heeding() -> None:
    with raise_on_signal():
        outer = handlers()
        with stop_on_signal() as stop:
            assert handlers() != outer
            assert stop() == 0
        assert handlers() == outer
        with pytest.raises(Stopped):
            send(signal.SIGTERM)


def test_handlers_that_a_library_put_before_ours_are_taken_back() -> None:
    theirs: list[int] = []

    def with_a_library() -> None:
        with stop_on_signal() as stop:
            signal.signal(signal.SIGTERM, lambda number, _: theirs.append(number))
            reinstall_handler()
            send(signal.SIGTERM)
            raise Interrupted("stopped", stop())

    with pytest.raises(Interrupted) as raised:
        with_a_library()
    assert raised.value.number == signal.SIGTERM
    assert theirs == []
    kept = handlers()
    reinstall_handler()  # nothing of ours is left to install
    assert handlers() == kept


def test_other_threads_than_the_main_one_leave_signals_alone() -> None:
    before, seen = handlers(), []

    def work() -> None:
        with raise_on_signal(), stop_on_signal() as stop:
            seen.append((stop(), handlers() == before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(0, True)]


# --- whole runs


def words(folder: Path) -> list[str]:
    """What the command line is given; long enough to be hit."""
    short = [word for word in TINY if "draws" not in word]
    return [*short, "schedule.draws=1500", "analysis=[separation]", "logger=none", f"paths.run={folder}"]


def stopped(folder: Path, number: int) -> tuple[int, str]:
    """Send a run a signal once it has saved a state; return its exit code and what it said."""
    process = Forked(MAIN, *words(folder), "state_every=0.1", cwd=folder.parent)
    while process.returncode is None and not (folder / "traces.zarr" / "resume.pt").exists():
        time.sleep(0.01)
    process.send_signal(number)
    done = process.wait()
    return done.returncode, done.stderr


@pytest.mark.slow
def test_a_run_that_a_scheduler_stopped_continues_bit_identical_and_once_finished_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code, said = stopped(folder, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM, said
    assert re.match(r"losskernel: stopped after \d+ of 3000 draws \(SIGTERM\); the same command with ", said), said
    assert said.count("\n") == 1
    status = read_status(folder)
    assert status is not None
    assert status["state"] == "interrupted"
    assert "SIGTERM" in status["error"]
    with pytest.raises(TraceError, match=r"is unfinished \(chains 0 to 1: \d+ draws done\)"):
        lk.open_traces(folder)

    done = losskernel_command(*words(folder), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    whole = tmp_path / "whole"
    run_from(config(*words(whole)), whole, None)
    continued, undisturbed = lk.open_traces(folder).dataset, lk.open_traces(whole).dataset
    assert set(continued.data_vars) == set(undisturbed.data_vars)
    for variable in undisturbed.data_vars:
        assert continued[variable].equals(undisturbed[variable]), variable

    # Once more, as a requeued job would whose work had just been done.
    left = {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and ".hydra" not in path.parts
    }
    again = losskernel_command(*words(folder), "threads=2", cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.startswith(f"{folder} has finished before; nothing was done\ndiagnosis: ")
    assert {path: path.stat().st_mtime_ns for path in left} == left


def test_a_signal_that_asks_for_a_requeue_is_named_and_elsewhere_than_on_slurm_just_ends_the_run(
    tmp_path: Path,
) -> None:
    code, said = stopped(tmp_path / "run", signal.SIGUSR1)
    assert code == 128 + signal.SIGUSR1, said
    assert "(SIGUSR1)" in said
    assert "SLURM" not in said


# --- what has finished


def test_a_finished_run_is_left_alone_until_it_is_asked_something_else(tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "run"

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("something was done")

    first = run_from(tiny(folder), folder, None)
    with monkeypatch.context() as patch:
        patch.setattr("losskernel.cli.build.build", never)
        assert run_from(tiny(folder, "state_every=3", "logger=csv"), folder, None) == first
    metrics = (folder / "metrics.json").stat().st_mtime_ns
    run_from(tiny(folder, "analysis.separation.neighbours=3"), folder, None)
    assert (folder / "metrics.json").stat().st_mtime_ns > metrics
    shutil.rmtree(folder / "traces.zarr")  # as one does with a damaged one
    run_from(tiny(folder, "analysis.separation.neighbours=3"), folder, None)
    assert lk.open_traces(folder).losses.shape == (2, 20, 40)


def test_a_run_that_failed_is_not_taken_for_finished(tmp_path: Path, monkeypatch: Any) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise TraceError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("losskernel.runs.run.analyse", broken)
        with pytest.raises(TraceError):
            run_from(tiny(tmp_path / "run"), tmp_path / "run", None)
    status = read_status(tmp_path / "run")
    assert status is not None
    assert (status["state"], status["error"]) == ("failed", "the disk is full")
    run_from(tiny(tmp_path / "run"), tmp_path / "run", None)
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"


def test_a_signal_while_analysing_ends_the_run_in_order(tmp_path: Path, monkeypatch: Any) -> None:
    def long_analysis(*_: Any, **__: Any) -> None:
        send(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("losskernel.runs.run.analyse", long_analysis)
        with pytest.raises(
            Interrupted, match=r"stopped \(SIGTERM\); the same command with paths.run=.* goes on from there"
        ):
            run_from(tiny(tmp_path / "run"), tmp_path / "run", None)
    assert run_from(tiny(tmp_path / "run"), tmp_path / "run", None) is not None


# --- chains from another number on


def test_an_offset_that_leaves_the_numbers_of_chains_is_refused(tmp_path: Path) -> None:
    with pytest.raises(lk.errors.InputError, match=r"chain_offset must be <= 1073741822, got 1073741823; lower it"):
        run_from(tiny(tmp_path / "run", "chain_offset=1073741823"), tmp_path / "run", None)
