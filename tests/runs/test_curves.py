"""Curves along the draws, kept beside what a logger may lose."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from command import tiny

from losskernel.cli.build import run_from
from losskernel.errors import Interrupted
from losskernel.runs.tracking.tracker import CLOCK, CURVES, CSVTracker, Curves, LogDraws
from losskernel.sampling.setup import Schedule


def logged(folder: Path) -> tuple[Curves, list[tuple[int, dict[str, float]]]]:
    seen: list[tuple[int, dict[str, float]]] = []
    return Curves(folder, lambda row, step: seen.append((step, row))), seen


def test_rows_are_logged_and_kept(tmp_path: Path) -> None:
    curves, seen = logged(tmp_path)
    curves.log_metrics({"draw": 1, CLOCK: 0.5, "a": 2.0}, step=10)
    assert seen == [(10, {"draw": 1, CLOCK: 0.5, "a": 2.0})]
    assert curves.rows() == [{"step": 10, "draw": 1, CLOCK: 0.5, "a": 2.0}]
    curves.replay()
    assert seen[1] == seen[0]
    assert (curves.name, curves.version) == ("curves", "")


def test_a_second_process_logs_the_firsts_rows_again_but_none_that_come_anew(tmp_path: Path) -> None:
    first, _ = logged(tmp_path)
    for step in (1, 2, 3, 4):
        first.log_metrics({"draw": step, CLOCK: step / 2}, step=step)
    with (tmp_path / CURVES).open("a") as file:
        file.write('{"step": 5, "dr')  # as a kill leaves it
    second, seen = logged(tmp_path)
    second.log_metrics({"draw": 3, CLOCK: 0.25}, step=3)
    second.log_metrics({"draw": 4, CLOCK: 0.75}, step=4)
    assert [step for step, _ in seen] == [1, 2, 3, 4]
    # The clock goes on from the last row that still holds, not from what was lost.
    assert [row[CLOCK] for _, row in seen] == [0.5, 1.0, 1.25, 1.75]
    assert [json.loads(line)["step"] for line in (tmp_path / CURVES).read_text().splitlines()] == [1, 2, 3, 4]
    third, again = logged(tmp_path)
    third.catch_up()  # nothing was left to sample
    third.catch_up()
    assert again == seen


def test_a_folder_that_cannot_be_written_costs_the_file_alone(tmp_path: Path) -> None:
    curves, seen = logged(tmp_path / "absent")
    curves.log_metrics({"draw": 1}, step=1)
    assert seen == [(1, {"draw": 1, CLOCK: 0.0})]
    assert curves.rows() == []
    assert curves.speed() == {}


def test_speed_counts_every_chain_and_no_burn_in(tmp_path: Path) -> None:
    curves, _ = logged(tmp_path)
    curves.log_metrics({"draw": 0, CLOCK: 1.0, "train_loss/chain_0": 1.0}, step=1)
    assert curves.speed() == {}
    for stack, seconds in ((0, 3.0), (1, 5.0)):  # one chain after the other
        for draw in (1, 2):
            row = {"draw": draw, CLOCK: seconds, f"probe_loss/chain_{stack}": 1.0}
            curves.log_metrics(row, step=10 * stack + draw)
    assert curves.speed() == {CLOCK: 5.0, "draws_per_second": 4 / 5.0}


def test_long_runs_are_thinned_out() -> None:
    schedule = Schedule(burn_in=10_000, thinning=10, draws=1000)
    seen: list[float] = []

    class Log(Curves):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            seen.append(metrics["draw"])

    class Module:
        chain_numbers = (0,)
        step = 0

    log = LogDraws([Log(Path(), lambda *_: None)], schedule)
    one: Any = [1.0]
    for step in range(10, schedule.steps + 1, 10):
        Module.step = step
        burning = step <= schedule.burn_in
        outputs = {"train_loss": one, "distance": one} | ({} if burning else {"losses": _Ones()})
        log.on_train_batch_end(None, Module, outputs, None, 0)  # pyright: ignore[reportArgumentType]
    log.on_train_batch_end(None, Module, {"curvature": one}, None, 0)  # pyright: ignore[reportArgumentType]
    assert [draw for draw in seen if draw <= 0] == list(range(-980, 1, 20))
    assert [draw for draw in seen if draw > 0] == list(range(5, 1001, 5))


class _Ones:
    def __getitem__(self, _: int) -> "_Ones":
        return self

    def mean(self) -> float:
        return 1.0


def test_a_continued_run_has_all_its_curves_as_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, log = tmp_path / "run", LogDraws.on_train_batch_end

    def interrupted(self: LogDraws, trainer: Any, module: Any, *rest: Any) -> None:
        log(self, trainer, module, *rest)
        if module.step == 22:
            raise Interrupted("stopped", 15)

    asked = ("logger=csv", "analysis=[complexity]", "schedule.chains=3", "chains_per_fit=2", "state_every=0.01")
    with monkeypatch.context() as patch:
        patch.setattr(LogDraws, "on_train_batch_end", interrupted)
        with pytest.raises(Interrupted):
            run_from(tiny(folder, *asked), folder, None)
    run_from(tiny(folder, *asked), folder, None)
    undisturbed = tmp_path / "undisturbed"
    run_from(tiny(undisturbed, *asked), undisturbed, None)
    found, wanted = ([*csv.DictReader((each / "curves" / "metrics.csv").open())] for each in (folder, undisturbed))
    clocks = [float(row.pop(CLOCK)) for row in found]
    assert len({*clocks}) > 20
    assert clocks == sorted(clocks)
    assert found == [{name: value for name, value in row.items() if name != CLOCK} for row in wanted]
    assert [int(float(row["draw"])) for row in found] == [*range(1, 21), *range(1, 21)]  # of chains 0 and 1, then of 2


def test_asking_more_of_a_run_keeps_its_curves(tmp_path: Path) -> None:
    folder, path = tmp_path, tmp_path / "curves" / "metrics.csv"
    CSVTracker(folder).finish("finished")
    assert not path.exists()
    first = CSVTracker(folder)
    first.loggers()[0].log_metrics({"draw": 1.0}, step=1)
    first.finish("finished")
    written = path.read_text()
    assert written.count("\n") == 2
    CSVTracker(folder).finish("finished")
    assert path.read_text() == written
