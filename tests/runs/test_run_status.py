"""A run's status file, its progress and time left, and the diagnosis of its draws so far."""

import functools
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import TINY, call

import losskernel as lk
from losskernel.data import arithmetic
from losskernel.errors import Interrupted
from losskernel.kernel.diagnosis.diagnose import ENOUGH, diagnose, interim
from losskernel.models import MLP
from losskernel.runs.status.progress_callback import (
    InterimDiagnosis,
    SamplingCallback,
    SamplingProgress,
    TrainingCallback,
)
from losskernel.runs.status.status_file import (
    ENDS,
    STATES,
    RunStatus,
    process_began,
    read_status,
    seconds_of,
    timestamp,
)
from losskernel.storage.locations import locate
from losskernel.training import lightning as trainers
from losskernel.training.progress import Pace, in_a_log, lasting, rate

# --- the file


def status(folder: Path) -> dict[str, Any]:
    found = read_status(folder)
    assert found is not None
    return found


def test_a_status_holds_process_machine_and_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"JOB_ID": "17", "ARRAY_JOB_ID": "15", "ARRAY_TASK_ID": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    RunStatus(tmp_path).enter("sampling", draws=3, of=math.nan, where=tmp_path, kinds=(1, math.inf))
    found = status(tmp_path)
    assert (found["state"], found["draws"], found["of"], found["kinds"]) == ("sampling", 3, None, [1, None])
    assert found["where"] == str(tmp_path)
    assert (found["slurm_job"], found["slurm_array"]) == ("17", "15_2")
    assert found["process_began"] == process_began(found["process"])
    assert found["started"].endswith("Z")
    assert abs((seconds_of(found["time"]) or 0) - time.time()) < 60
    json.loads((tmp_path / "status.json").read_text(), parse_constant=pytest.fail)  # no NaN, which JSON has not


def test_updates_are_written_at_intervals_until_the_end(tmp_path: Path) -> None:
    with RunStatus(tmp_path, every=0.01) as running:
        running.enter("sampling")
        running.update(draws=7)  # written by nobody here
        began = time.monotonic()
        while status(tmp_path).get("draws") != 7 and time.monotonic() - began < 20:
            time.sleep(0.01)
        assert status(tmp_path)["draws"] == 7
    running.update(draws=8)
    time.sleep(0.05)
    assert status(tmp_path)["draws"] == 7  # nothing is written after the end
    assert not list(tmp_path.glob("*.partial"))


def test_a_slow_store_does_not_delay_the_status(tmp_path: Path) -> None:
    asked: list[float] = []

    def look() -> float:
        asked.append(time.monotonic())
        if len(asked) < 3:
            raise ConnectionError("no network")
        if len(asked) > 3:
            time.sleep(30)  # nobody answers
        return 1_700_000_000.0

    with RunStatus(tmp_path, every=0.05) as running:
        running.follow_checkpoint(look)
        running.enter("sampling", draws=1)
        _until(lambda: len(asked) == 4 and "saved" in status(tmp_path))
        assert status(tmp_path)["saved"] == timestamp(1_700_000_000)
        assert all(later - earlier >= 0.05 for earlier, later in pairwise(asked))
        running.update(draws=2)
        _until(lambda: status(tmp_path)["draws"] == 2)  # written while the other thread waits
        running.enter("analysing")
    assert status(tmp_path)["saved"] == timestamp(1_700_000_000)


def _until(holds: Any) -> None:
    began = time.monotonic()
    while not holds() and time.monotonic() - began < 20:
        time.sleep(0.01)
    assert holds()


def test_modification_times_of_files_and_urls(tmp_path: Path) -> None:
    for state in (tmp_path / "resume.pt", f"memory://{tmp_path.name}/traces.zarr/resume.pt"):
        with pytest.raises(FileNotFoundError):
            locate(state).modified()
        locate(state).write(b"state")
        assert abs(locate(state).modified() - time.time()) < 60


def test_a_run_names_its_tasks_and_follows_its_remote_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    class Named(RunStatus):
        def update(self, **facts: Any) -> None:
            super().update(**facts)
            told.append(f"{self._facts['state']} {facts.get('doing')}")

    monkeypatch.setattr("losskernel.runs.run.RunStatus", functools.partial(Named, every=0.02))
    words = ("analysis=[separation,complexity]", "points=[targets,layers]", "logger=none", "state_every=0")
    place = ("paths.traces=memory://bucket/place", f"paths.outputs={tmp_path}", f"paths.run={tmp_path / 'toy'}")
    assert call(*TINY, *words, *place) == 0
    named = [each for each in dict.fromkeys(told) if "chain" not in each and "None" not in each]
    assert named == ["preparing targets", "preparing layers", "analysing separation", "analysing complexity"]
    assert abs((seconds_of(status(tmp_path / "toy")["saved"]) or 0) - time.time()) < 60


def test_a_new_state_drops_the_progress_of_the_last(tmp_path: Path) -> None:
    running = RunStatus(tmp_path)
    running.enter("sampling", draws=3, of=9, seconds_left=60.0, doing="chains 0-1 of 2")
    running.enter("analysing")
    found = status(tmp_path)
    assert (found["draws"], found["of"]) == (3, 9)
    assert "seconds_left" not in found
    assert "doing" not in found
    assert set(ENDS) < set(STATES)


def test_restarts_are_counted_until_a_run_has_finished(tmp_path: Path) -> None:
    first = RunStatus(tmp_path)
    first.enter("sampling")
    for restart in (1, 2):
        again = RunStatus(tmp_path)
        again.enter("interrupted" if restart == 1 else "finished")
        assert (again.restarts, status(tmp_path)["restarts"]) == (restart, restart)
    RunStatus(tmp_path).enter("analysing")
    assert status(tmp_path)["restarts"] == 0


def test_a_status_that_cannot_be_written_or_read_is_ignored(tmp_path: Path) -> None:
    with RunStatus(tmp_path / "nowhere", every=0.01) as running:
        running.enter("sampling")
    assert read_status(tmp_path / "nowhere") is None
    for content in ("{", "[1]", ""):
        (tmp_path / "status.json").write_text(content)
        assert read_status(tmp_path) is None
    assert RunStatus(tmp_path).restarts == 0


def test_times_are_written_and_read() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00Z"
    assert seconds_of(timestamp(1_700_000_000)) == 1_700_000_000
    assert [seconds_of(each) for each in (None, 3, "yesterday")] == [None, None, None]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="nobody else tells")
def test_dead_processes_have_no_start_time() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert process_began(child.pid) is not None
        child.kill()
        began = time.monotonic()
        while process_began(child.pid) is not None and time.monotonic() - began < 20:  # dead, and not yet buried
            time.sleep(0.01)
        assert process_began(child.pid) is None
    assert process_began(child.pid) is None


# --- how long


def test_a_pace_is_that_of_late() -> None:
    pace = Pace(memory=10.0)
    assert pace.seconds_per_unit is None
    for _ in range(100):
        pace.note(2.0, 4)
    assert pace.seconds_per_unit == pytest.approx(0.5)
    for _ in range(100):
        pace.note(1.0, 1)
    assert pace.seconds_per_unit == pytest.approx(1.0, rel=1e-3)


def test_times_and_rates_in_words() -> None:
    assert [lasting(each) for each in (0, 89, 91, 5399, 5400, 172_800, -3)] == [
        *("0 s", "89 s", "2 min", "90 min", "2 h", "2 d", "0 s"),
    ]
    assert [rate(each) for each in (0.834, 9.96, 12.4, 8123)] == ["0.83", "10", "12", "8,100"]


SCHEDULE = lk.Schedule(chains=5, burn_in=10, draws=20, thinning=2)


def test_draws_are_counted_over_all_stacks() -> None:
    assert [SamplingProgress(SCHEDULE, 0, [2, 3], step).draws for step in (0, 9, 10, 12, 50)] == [40, 40, 40, 42, 80]
    here = SamplingProgress(SCHEDULE, 7, [9], 13)
    assert (here.draws, here.total, here.stack_draws, str(here)) == (2 * 20 + 1, 100, 1, "chain 9 of 7-11")
    assert str(SamplingProgress(SCHEDULE, 0, [0, 1], 0)) == "chains 0-1 of 5"
    assert str(SamplingProgress(SCHEDULE, 8, [8, 9], 0)) == "chains 8-9 of 8-12"
    assert str(SamplingProgress(SCHEDULE, 8, range(8, 13), 0)) == "chains 8-12"
    assert [SamplingProgress(SCHEDULE, 0, [0], step).burning_in for step in (9, 10)] == [True, False]


def test_the_time_left_counts_stacks_and_kernels_to_come() -> None:
    whole = 10 * 1 + 20 * 3 + 7  # burn-in, draws, judgement
    last = SamplingProgress(SCHEDULE, 0, [4], 14)
    assert last.seconds_left(1, 3, 7, further_kernels=0) == 18 * 3 + 7
    assert last.seconds_left(1, 3, 7, further_kernels=1) == 18 * 3 + 7 + 5 * whole
    first = SamplingProgress(SCHEDULE, 0, [0], 4)
    assert first.seconds_left(1, 3, 7, further_kernels=0) == 6 * 1 + 20 * 3 + 7 + 4 * whole
    pairs = SamplingProgress(SCHEDULE, 3, [3, 4], 4)
    assert (
        pairs.seconds_left(1, 3, 7, further_kernels=0) == 6 * 1 + 20 * 3 + 7 + 3 / 2 * whole
    )  # the last stack is half as large


# --- what the draws look like


def independent(chains: int, draws: int, memory: float = 0.0) -> np.ndarray:
    """Return autoregressive draws [C, D, 3] of unit variance."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(chains, draws, 3))
    for draw in range(1, draws):
        noise[:, draw] = memory * noise[:, draw - 1] + math.sqrt(1 - memory**2) * noise[:, draw]
    return noise


def test_good_chains_pass_and_few_draws_say_nothing() -> None:
    found = interim(independent(4, 200), 400, range(4))
    assert (found.verdict, found.reasons) == ("pass", ())
    assert found.ess == pytest.approx(800, rel=0.3)
    assert found.words == f"R-hat {found.rhat:.2f}, ESS {found.ess:,.0f}"
    few = interim(independent(4, ENOUGH - 1), 400, range(4))
    assert (few.verdict, few.words) == ("too early", "too early")


def test_chains_that_mix_slowly_are_not_blamed_before_half_of_their_draws() -> None:
    slow = independent(4, 100, memory=0.98)
    early, late = interim(slow, 400, range(4)), interim(slow, 200, range(4))
    assert early.verdict == "too early"
    assert early.words.startswith("too early: R-hat ")
    assert late.verdict == "fail"
    assert late.reasons


def test_a_dead_chain_one_twice_and_a_runaway_are_seen_at_once() -> None:
    dead = independent(4, ENOUGH)
    dead[2] *= 1e-3
    found = interim(dead, 10_000, [8, 9, 10, 11])
    assert found.verdict == "fail"
    assert found.reasons[0].startswith("chain 10 hardly moves")
    assert found.words.endswith("a dead chain")
    twice = independent(4, ENOUGH)
    twice[3] = twice[1]
    assert interim(twice, 10_000, [8, 9, 10, 11]).reasons[0] == "chains 9 and 11 are one and the same"
    gone = interim(independent(4, ENOUGH), 10_000, range(4), excess_loss=3.0)
    assert "the chains have left it" in gone.reasons[0]


def test_one_chain_is_judged_by_its_halves_and_what_is_constant_has_no_numbers() -> None:
    drifting = independent(1, 200) * 0.1 + np.linspace(0, 1, 200)[:, None]
    assert interim(drifting, 200, [0]).words.endswith(("drift", "disagree"))
    still = interim(np.ones((2, 50, 3)), 50, range(2))
    assert math.isnan(still.rhat)
    assert "R-hat" not in still.words


@pytest.mark.parametrize("fault", ["drift", "disagreement", "none"])
def test_the_words_are_those_of_the_diagnosis(fault: str) -> None:
    observed = independent(4, 400)
    observed[:, :, 0] += np.linspace(0, 3, 400) if fault == "drift" else 0
    observed[:2, :, 0] += 1.0 if fault == "disagreement" else 0
    judged = diagnose(lk.LossTraces.from_arrays(observed[:, :, :1]))
    held = {row["screen"] for row in judged.screens if row["verdict"] != "pass"}
    final = {reason.rsplit("; ", 1)[0] for reason in judged.reasons}
    found = interim(observed, 400, range(4))
    assert set(found.reasons) <= final
    assert bool(found.reasons) == bool(held & {"trend_share", "rhat", "transient"}) == (fault != "none")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(chains: int, seed: int = 0) -> Iterator[dict[str, torch.Tensor]]:
    """Yield what strides show, for ever."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        losses = torch.rand(chains, 5, generator=generator)
        yield {"losses": losses, "train_loss": losses[:, 0], "distance": losses[:, 1]}


def test_interim_diagnoses_are_rare_and_sooner_where_draws_double() -> None:
    clock, draws = Clock(), shown(2)
    diagnosis = InterimDiagnosis(1000, clock)
    diagnosis.start_stack([0, 1], None, at_start=False)
    looks: list[tuple[float, int]] = []
    seen = None
    for draw in range(1, 901):
        clock.now += 0.5
        diagnosis.add(next(draws))
        diagnosis.refresh()
        if diagnosis.latest is not seen:
            seen = diagnosis.latest
            looks.append((clock.now, draw))
    times = [when for when, _ in looks]
    assert looks[0] == (10.0, ENOUGH)
    assert all(later - earlier >= 5 for earlier, later in pairwise(times))
    assert times[1:4] == [20.0, 40.0, 70.0]  # doubled, doubled, half a minute
    assert len(looks) < 20


def test_single_chains_are_compared_once_two_are_complete() -> None:
    diagnosis = InterimDiagnosis(60, Clock())
    for chain in range(3):
        diagnosis.start_stack([chain], None, at_start=True)
        for _, outputs in zip(range(60), shown(1, seed=chain), strict=False):
            # Each chain has a level of its own, which no half of it tells.
            diagnosis.add(outputs | {"losses": outputs["losses"] + 10 * chain})
        diagnosis.refresh(force=True)
        assert diagnosis.latest is not None
        assert (diagnosis.latest.rhat > 1.5) == (chain == 2)
        diagnosis.finish_stack()


def test_excess_loss_is_measured_from_the_start_of_the_chains() -> None:
    for fresh, verdict in ((True, "fail"), (False, "pass")):
        diagnosis = InterimDiagnosis(100, Clock())
        diagnosis.start_stack([0, 1], loss_scale=2.0, at_start=fresh)
        diagnosis.add({"train_loss": torch.zeros(2)})  # burn-in
        for _, outputs in zip(range(100), shown(2), strict=False):
            diagnosis.add(outputs | {"train_loss": outputs["train_loss"] + 4})
        diagnosis.refresh(force=True)
        assert diagnosis.latest is not None
        assert diagnosis.latest.verdict == verdict


# --- in a run


class RecordedStatus(RunStatus):
    """Records updates and log lines; its clock advances by half a minute at each call."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, log=True, clock=seconds())
        self.updates: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.saved: list[float] = []

    def update(self, **facts: Any) -> None:
        self.updates.append(facts)
        with suppress(OSError):
            self.saved += [] if self._checkpoint_time is None else [self._checkpoint_time()]

    def log(self, words: str) -> None:
        self.lines.append(words)


def seconds() -> Any:
    """Return a clock that goes on by half a minute whenever it is asked."""
    return functools.partial(next, iter(np.arange(0, 1e7, 30.0).tolist()))


@pytest.fixture(scope="module")
def problem() -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    data = arithmetic(probes_per_task=5)
    operands, tasks = data.train[0][0].shape[-1], 1
    return MLP(operands, tasks), data, functools.partial(lk.SGLD, step_size=1e-4, nbeta=10.0, localization=100.0)


def sampled(problem: tuple[Any, Any, Any], schedule: lk.Schedule, callback: Any, **options: Any) -> Any:
    return lk.sample(*problem, schedule, progress=False, callbacks=[callback], **options)


def test_sampling_reports_progress_and_the_diagnosis_so_far(problem: tuple[Any, Any, Any], tmp_path: Path) -> None:
    running, schedule = RecordedStatus(tmp_path), lk.Schedule(chains=3, burn_in=4, draws=30, thinning=2, batch_size=8)
    callback = SamplingCallback(running, schedule, "control", first=2, further_kernels=1)
    sampled(problem, schedule, callback, chains_per_fit=2, chain_offset=2)
    draws = [facts["draws"] for facts in running.updates]
    assert draws == sorted(draws)
    assert (draws[0], draws[-1], {facts["of"] for facts in running.updates}) == (0, 90, {90})
    assert (running.updates[0]["chains"], running.updates[-1]["chains"]) == ([2, 3], [4, 4])
    doing = list(dict.fromkeys(facts["doing"] for facts in running.updates))
    assert doing == [
        f"control: {chains} of 2-4{what}"
        for chains in ("chains 2-3", "chain 4")
        for what in (", burn-in", "", ", checking steps")
    ]
    assert running.updates[0]["seconds_left"] is None
    assert running.updates[1]["at_least"]
    assert running.updates[1]["draws_per_second"] is None
    last = running.updates[-1]
    assert not last["at_least"]
    assert last["so_far_aside"]["of"] == "the probes' mean loss"
    assert last["so_far_aside"]["words"].startswith("R-hat ")
    assert "so_far" not in last  # that of the run's own kernel stays
    assert running.lines[0] == "control: chains 2-3 of 2-4: 4 steps of burn-in, then 30 draws each"
    assert any("draws/s, " in line and line.endswith(" left") for line in running.lines)
    assert "; mean loss so far: R-hat " in running.lines[-1]
    assert "drawn and checked in" in running.lines[-1]


def test_a_resumed_stack_reports_where_it_resumes(problem: tuple[Any, Any, Any], tmp_path: Path) -> None:
    schedule, out = lk.Schedule(chains=2, burn_in=4, draws=30, thinning=1, batch_size=8), tmp_path / "traces.zarr"

    class StopsAt(SamplingCallback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            if pl_module.step == 14:
                raise Interrupted("enough")

    with pytest.raises(Interrupted):
        sampled(problem, schedule, StopsAt(RecordedStatus(tmp_path), schedule), out=out, state_every=0)
    RunStatus(tmp_path).enter("interrupted")
    running = RecordedStatus(tmp_path)
    sampled(problem, schedule, SamplingCallback(running, schedule, state=out / "resume.pt"), out=out)
    assert running.lines[0] == "chains 0-1 of 2: continued at 20 of 60 draws, restart 1"
    assert running.updates[0]["draws"] == 20
    assert len(running.saved) >= 20
    assert all(abs(when - time.time()) < 60 for when in running.saved)


def test_training_reports_progress(problem: tuple[Any, Any, Any], tmp_path: Path) -> None:
    running, (model, data, _) = RecordedStatus(tmp_path), problem
    training = lk.Training(steps=7, batch_size=8)
    lk.fit(model, data, training, progress=False, callbacks=[TrainingCallback(running, 7)])
    assert [facts["step"] for facts in running.updates] == list(range(1, 8))
    assert [facts["seconds_left"] for facts in running.updates] == pytest.approx(
        [30.0 * left for left in range(6, -1, -1)]
    )
    assert running.lines[0] == "training: 7 steps"
    assert running.lines[1] == "training: 2 of 7 steps, 2 min left"
    assert running.lines[-1] == "trained in 4 min"


# --- lines for a log


def test_a_log_has_lines_and_a_terminal_a_bar(
    problem: tuple[Any, Any, Any], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = lk.Schedule(chains=1, burn_in=0, draws=4, thinning=1, batch_size=8)
    assert in_a_log()
    lk.sample(*problem, schedule)
    first, last = capsys.readouterr().err.splitlines()
    assert first.endswith(" losskernel: Sampling chains 0-0 of 1 begins")
    assert " losskernel: Sampling chains 0-0 of 1 ended after " in last
    monkeypatch.setattr(trainers, "MINUTE", 0.0)
    lk.fit(*problem[:2], lk.Training(steps=4, batch_size=8))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("Training: ")[1].split(",")[0] for line in lines[1:-1]] == ["25%", "50%", "75%", "100%"]
    assert all(" s left, loss " in line for line in lines[1:-1])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert not in_a_log()
    lk.sample(*problem, schedule)
    bar = capsys.readouterr().err
    assert "\r" in bar
    assert "losskernel:" not in bar


def test_each_line_is_logged_once(problem: tuple[Any, Any, Any], tmp_path: Path, capsys: Any) -> None:
    schedule = lk.Schedule(chains=1, burn_in=0, draws=4, thinning=1, batch_size=8)
    running = RunStatus(tmp_path / "12", log=True)
    lk.sample(*problem, schedule, callbacks=[SamplingCallback(running, schedule)])
    lines = capsys.readouterr().err.splitlines()
    told = [re.sub(r"\d+ s\b", "0 s", line.partition(" losskernel ")[2]) for line in lines]
    assert told == [
        "12: chain 0 of 1: 0 steps of burn-in, then 4 draws each",
        "12: chain 0 of 1: drawn and checked in 0 s, 0 s of it checking the steps",
    ]
    RunStatus(tmp_path, log=False).log("nothing")
    assert capsys.readouterr().err == ""
