"""Interrupted runs: killed at random moments and by Ctrl-C, continued to the bit-identical trace."""

import functools
import multiprocessing
import random
import signal
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from command import Forked

import losskernel as lk
from losskernel.data import arithmetic
from losskernel.errors import Interrupted, TraceError
from losskernel.models import MultitaskMLP
from losskernel.traces import zarr_store as store

SCHEDULE = lk.Schedule(chains=3, burn_in=40, draws=120, thinning=3, batch_size=32)
SAMPLERS = {
    "sgld": functools.partial(lk.SGLD, step_size=1e-3, nbeta=100.0, localization=100.0),
    "sghmc": functools.partial(lk.SGHMC, step_size=1e-3, nbeta=100.0, localization=100.0),
    "rmsprop": functools.partial(lk.RMSpropSGLD, step_size=1e-4, nbeta=100.0, localization=100.0),
}


def draw(sampler: str, out: Path | None, **options: Any) -> lk.LossTraces:
    """The run that every test here repeats."""
    torch.manual_seed(0)
    model, data = MultitaskMLP(2), arithmetic(probes_per_task=20)
    return lk.sample(model, data, SAMPLERS[sampler], SCHEDULE, out=out, chains_per_fit=2, progress=False, **options)


def child(sampler: str, out: Path) -> None:
    """Draw in a process of its own, saving a state after every batch and writing small chunks.

    Kills then also fall between chunks and inside the writing of one.
    """
    store._CHUNK_BYTES = 40 * 4 * 2 * 7
    torch.set_num_threads(1)
    draw(sampler, out, state_every=0.0)


def state_time(out: Path) -> int:
    """When the resume state was last written; 0 where there is none."""
    try:
        return (out / "resume.pt").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize(
    "sampler", [name if name == "sgld" else pytest.param(name, marks=pytest.mark.slow) for name in SAMPLERS]
)
def test_a_run_killed_at_random_moments_ends_bit_identical(sampler: str, tmp_path: Path) -> None:
    server = multiprocessing.get_context("forkserver")
    out, rng, kills = tmp_path / "traces.zarr", random.Random(0), 0
    while True:
        process = server.Process(target=child, args=(sampler, out))
        before = state_time(out)
        process.start()
        if kills < 3:
            process.join(rng.uniform(0.1, 0.8))  # any moment, laying out the store included
        elif kills == 12:
            process.join()
        else:
            while process.is_alive() and state_time(out) == before:
                process.join(0.005)
            process.join(rng.uniform(0.0, 0.15))  # any moment while draws are written
        if process.exitcode == 0:
            break
        assert process.exitcode is None, "the run failed by itself"
        process.kill()
        process.join()
        kills += 1
        if out.exists() and not store.TraceStore(out).complete:
            with pytest.raises(TraceError, match="is unfinished"):
                lk.open_traces(out)
    assert kills >= 6
    resumed, whole = lk.open_traces(out), draw(sampler, None)
    for name in whole.dataset.data_vars:
        assert resumed.dataset[name].equals(whole.dataset[name]), name
    assert not (out / "resume.pt").exists()


def test_ctrl_c_leaves_a_run_that_continues(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import functools, sys, torch
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_resume import draw
        from losskernel.errors import Interrupted
        import pytorch_lightning as pl

        class Say(pl.Callback):
            def on_train_batch_end(self, *_):
                print("batch", flush=True)

        try:
            draw("sgld", {str(tmp_path / "t")!r}, callbacks=[Say()])
        except Interrupted as error:
            print(error)
            sys.exit(130)
        """
    )
    process = Forked(script, cwd=tmp_path)
    while process.returncode is None and process.stdout().count("batch") < 20:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    done = process.wait()
    assert done.returncode == 130
    assert "stopped after" in done.stdout
    assert "continue with the same call and out=" in done.stdout
    with pytest.raises(TraceError, match=r"is unfinished \(chains 0 to 1: \d+ draws done\)"):
        lk.open_traces(tmp_path / "t")
    assert draw("sgld", tmp_path / "t").losses.equals(draw("sgld", None).losses)


def test_an_interrupt_at_the_last_draw_loses_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    batches = 0

    def after_all(*_: Any) -> int:
        nonlocal batches
        batches += 1
        return 2 * (batches >= 134)  # the last batch of the first stack: 14 of burn-in and 120 draws

    from losskernel.sampling import sample as sampling

    class Stop:
        def __enter__(self) -> Any:
            return after_all

        def __exit__(self, *_: Any) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "stop_on_signal", Stop)
        with pytest.raises(Interrupted):
            draw("sgld", tmp_path / "t")
    assert draw("sgld", tmp_path / "t").losses.equals(draw("sgld", None).losses)


def test_a_finished_trace_is_returned_without_sampling(tmp_path: Path) -> None:
    first = draw("sgld", tmp_path / "t")
    began = (tmp_path / "t" / "zarr.json").stat().st_mtime_ns
    time.sleep(0.01)
    assert draw("sgld", tmp_path / "t").losses.equals(first.losses)
    assert (tmp_path / "t" / "zarr.json").stat().st_mtime_ns == began


def test_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    draw("sgld", tmp_path / "t")
    with pytest.raises(TraceError, match=r"sampler\.sampler: stored 'SGLD', asked 'RMSpropSGLD'"):
        draw("rmsprop", tmp_path / "t")
    with pytest.raises(TraceError, match="seed: stored 0, asked 5"):
        draw("sgld", tmp_path / "t", seed=5)


def test_without_resume_an_existing_trace_is_refused(tmp_path: Path) -> None:
    draw("sgld", tmp_path / "t")
    with pytest.raises(TraceError, match="exists; pass resume=True"):
        draw("sgld", tmp_path / "t", resume=False)


def test_a_full_disk_is_one_clear_error_and_the_trace_so_far_stays(tmp_path: Path, monkeypatch: Any) -> None:
    saved = store.atomic_save
    calls = 0

    def full(state: dict[str, Any], path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls > 30:
            raise OSError(28, "No space left on device")
        saved(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(store, "atomic_save", full)
        with pytest.raises(TraceError, match="No space left on device; free space or choose another folder"):
            draw("sgld", tmp_path / "t", state_every=0.0)
    assert draw("sgld", tmp_path / "t").losses.equals(draw("sgld", None).losses)
