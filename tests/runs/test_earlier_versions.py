"""Run folders of version 0.1.0 before its modules moved: they open, resume, compare and join.

`earlier_version.zip` holds, without figures and pages: `finished`, a run of the toy; `part_a` and `part_b`, chains 0-1
and 2-3 of one kernel about its weights; `interrupted`, stopped by SIGTERM while it sampled. The words below made them.
"""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command import call

import losskernel as lk
from losskernel.sweeps import find_runs
from losskernel.sweeps.design import panels_for
from losskernel.sweeps.read_runs import read_run

WORDS = (
    *("training.steps=20", "training.batch_size=16", "schedule.chains=2", "schedule.burn_in=4", "schedule.thinning=1"),
    *("schedule.batch_size=16", "dataset.probes_per_task=10", "dataset.samples_per_task=40"),
    *("progress=false", "logger=none", "analysis=[separation,complexity]"),
)


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with zipfile.ZipFile(Path(__file__).with_name("earlier_version.zip")) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_its_traces_open_and_join(earlier: Path) -> None:
    traces = lk.open_traces(earlier / "finished")
    assert traces.losses.shape == (2, 12, 20)
    joined = lk.open_traces([earlier / "part_a", earlier / "part_b"])
    parts = [lk.open_traces(earlier / name).losses.values for name in ("part_a", "part_b")]
    assert np.array_equal(joined.losses.values, np.concatenate(parts))
    assert joined.losses.chain.values.tolist() == [0, 1, 2, 3]


def test_a_finished_run_is_left_as_it_is(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*WORDS, "schedule.draws=12", "paths.run=finished") == 0
    assert "has finished before; nothing was done" in capsys.readouterr().out


def test_more_can_be_asked_of_it(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((earlier / "finished" / "metrics.json").read_text())
    assert call("run=finished", "analysis=[separation,spectrum]", command="analyse") == 0
    after = json.loads((earlier / "finished" / "metrics.json").read_text())
    assert {name: after[name] for name in before} == before  # to the last digit
    assert after["spectrum/effective_rank"] > 0
    assert "learning coefficient (LLC)" in capsys.readouterr().out  # of the analysis that was not asked again


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_trace_of_one_that_was_not(earlier: Path) -> None:
    state = json.loads((earlier / "interrupted" / "status.json").read_text())
    assert re.fullmatch(r"stopped after [1-9]\d* of 12000 draws \(SIGTERM\)", state["error"])
    assert call(*WORDS, "schedule.draws=6000", "analysis=[]", "paths.run=interrupted") == 0
    assert call(*WORDS, "schedule.draws=6000", "analysis=[]", "paths.run=undisturbed") == 0
    resumed, undisturbed = (lk.open_traces(earlier / name) for name in ("interrupted", "undisturbed"))
    assert np.array_equal(resumed.losses.values, undisturbed.losses.values)
    assert np.array_equal(resumed.record("distance"), undisturbed.record("distance"))


def test_other_settings_are_refused(earlier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*WORDS, "schedule.draws=12", "paths.run=finished", "sampler.localization=60") == 1
    assert "sampler.localization: stored 50.0, asked 60" in capsys.readouterr().err


def test_runs_compare_by_the_metrics_of_their_analyses(earlier: Path) -> None:
    runs = [read_run(folder) for folder in find_runs([earlier / "part_a", earlier / "part_b"])]
    titles = [panel.title for panel in panels_for(runs, None)]
    assert titles[:2] == ["mean |R|", "cluster recovery (ARI)"]
    assert "learning coefficient (LLC)" in titles
    words = "runs=[part_a,part_b]"
    assert call(words, "logger=none", f"paths.run={earlier / 'compared'}", command="compare") == 0
    assert (earlier / "compared" / "report.html").is_file()
