"""A user's own analysis is one file and one yaml: everything that shows metrics shows its, too."""

import sys
from pathlib import Path

import pytest
from command import TINY, call
from wandb_reader import read_runs

from losskernel.sweeps.design import panels_for
from losskernel.sweeps.read_runs import read_run

SOURCE = '''
"""How rough are the traces?"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from losskernel.analyses.result import MetricPanel, Result


@dataclass(frozen=True)
class Roughness:
    """Mean absolute difference between consecutive draws, in units of the losses' standard deviation."""

    lag: int = 1

    meanings: ClassVar[dict[str, str]] = {"mean": "mean absolute difference of consecutive losses; 0 or more, in sd"}
    headline: ClassVar[dict[str, str]] = {"mean": "roughness of the traces"}
    panel: ClassVar[tuple[MetricPanel, ...]] = (MetricPanel("roughness, sd", (("mean", "", "#332288"),)),)
    objective: ClassVar[str] = "mean"

    def __call__(self, kernel, traces):
        losses = traces.losses.values
        steps = np.abs(losses[:, self.lag :] - losses[:, : -self.lag])
        return Result({"mean": float(steps.mean() / losses.std())})
'''


def test_one_file_and_one_yaml_are_shown_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "their_package").mkdir()
    (tmp_path / "their_package" / "roughness.py").write_text(SOURCE)
    choice = tmp_path / "their_conf" / "analysis" / "jaggedness.yaml"
    choice.parent.mkdir(parents=True)
    choice.write_text("# @package analysis.jaggedness\n_target_: their_package.roughness.Roughness\nlag: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    sweep = tmp_path / "sweep"
    words = ("--config-dir", "their_conf", "analysis=[jaggedness]", "logger.mode=offline", f"paths.sweep={sweep}")
    assert call("-m", *words, *TINY, "sampler.localization=100,300", "control=false") == 0
    sys.modules.pop("their_package.roughness", None)

    printed = capsys.readouterr().out
    assert printed.count("roughness of the traces") == 2
    for job in (sweep / "0", sweep / "1"):
        page = (job / "report.html").read_text()
        assert "jaggedness/mean" in page
        assert "mean absolute difference of consecutive losses" in page
    runs = [read_run(sweep / "0"), read_run(sweep / "1")]
    assert "roughness, sd" in [panel.title for panel in panels_for(runs, None)]
    comparison = (sweep / "report.html").read_text()
    assert "jaggedness/mean" in comparison
    recorded = [run for run in read_runs(sweep) if "jaggedness/mean" in run.summary]
    assert len(recorded) == 2
    for run in recorded:
        assert run.summary["jaggedness/mean"] > 0
        assert run.summary["compared_metrics"] == ["jaggedness/mean"]
