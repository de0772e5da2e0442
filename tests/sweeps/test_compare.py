"""A comparison of planted runs: its panels, its tables, its page; nothing is dropped silently."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted_runs import SHOWN, configuration, losses, plant, plant_turning, swept

from losskernel.errors import InputError
from losskernel.sweeps import Comparison, compare, find_runs
from losskernel.sweeps.comparison_page import caption_of_metrics, write_comparison
from losskernel.sweeps.design import curves_of, interval, lay_out, panels_for
from losskernel.sweeps.read_runs import Run


def test_a_calibrated_interval_goes_before_the_standard_error() -> None:
    run = Run(Path("x"), metrics={"a": 1.0, "a_se": 0.1, "b": 1.0, "b_se": 0.1, "b_low": 0.5, "b_high": 3.0, "c": 2.0})
    assert interval(run, "a") == pytest.approx((1 - 0.1645, 1 + 0.1645))
    assert interval(run, "b") == (0.5, 3.0)
    assert np.isnan(interval(run, "c")).all()


def test_the_usual_panels_are_those_that_exist_and_others_can_be_asked_for() -> None:
    found = swept("sampler.nbeta", [1.0, 2.0])
    assert [spec.title for spec in panels_for(found, None)] == ["cluster recovery (ARI)"]
    assert [spec.title for spec in panels_for(found, ["separation/ari"])] == ["cluster recovery (ARI)"]
    own = [Run(run.folder, run.config, {"mine/own_score": 1.0, "mine/own_score_se": 1.0}, "pass") for run in found]
    assert [spec.title for spec in panels_for(own, "mine/own_score")] == ["mine/own score"]
    with pytest.raises(InputError, match=r"metrics: no run has 'separation/ari'; choose from mine/own_score$"):
        panels_for(own, ["separation/ari"])
    with pytest.raises(InputError, match=r"none of the usual metrics; name some"):
        panels_for(own, None)


def planted_panel(found: list[Run], metric: str = "separation/ari") -> Any:
    (panel,) = curves_of(panels_for(found, [metric]), found, lay_out(found))
    (curve,) = panel.curves
    return curve


def test_replicates_are_a_mean_with_their_range() -> None:
    found = [
        Run(
            Path(f"{seed}/{value}"),
            {"seed": seed, "sampler.nbeta": value},
            {"separation/ari": 0.1 * seed},
            verdict,
            shown=SHOWN,
        )
        for seed, verdict in ((1, "pass"), (2, "fail"), (6, "pass"))
        for value in (1.0, 2.0)
    ]
    curve = planted_panel(found)
    np.testing.assert_allclose(curve.values, 0.3)
    np.testing.assert_allclose((curve.low, curve.high), [[0.1] * 2, [0.6] * 2])
    assert curve.verdicts == ["fail", "fail"]  # the worst of them
    assert len(curve.single[0]) == 3


def test_the_metrics_are_named_on_the_last_curve_that_has_them() -> None:
    keys = [{"sampler.localization": g, "schedule.chains": c} for g, c in ((1.0, 4), (2.0, 4), (2.0, 2), (3.0, 2))]
    numbers = {"separation/within": 0.3, "separation/across": 0.1}
    found = [Run(Path(f"x/{n}"), key, numbers, "pass", shown=SHOWN) for n, key in enumerate(keys[:3])]
    failed = [Run(Path(f"x/{n}"), key, missing="lost") for n, key in enumerate(keys[2:], 2)]
    for runs, noted in ((found, [2, 3]), ([*found[:2], *failed], [0, 1])):
        panel = curves_of(panels_for(runs, None), runs, lay_out(runs))[0]
        assert [number for number, each in enumerate(panel.curves) if each.note] == noted
        assert {each.note for each in panel.curves} == {"within", "across", ""}


def test_values_that_are_paths_are_drawn_by_what_differs() -> None:
    runs = swept("checkpoint", ["/a/b/run/step-1.pt", "/a/b/run/step-2.pt", "/a/b/other/step-1.pt"])
    design = lay_out(runs)
    assert design.axis.names == design.names == ["run/step-1.pt", "run/step-2.pt", "other/step-1.pt"]
    assert lay_out(swept("model.name", ["a/x", "b/x"])).axis.names == ["a/x", "b/x"]


def test_controls_come_from_the_run_or_from_runs_at_nbeta_zero() -> None:
    found = swept("sampler.localization", [1.0, 2.0])
    own = [
        Run(run.folder, run.config, run.metrics | {"control/separation/ari": 0.2}, "pass", control="fail", shown=SHOWN)
        for run in found
    ]
    np.testing.assert_allclose(planted_panel(own).control, 0.2)
    assert np.isnan(planted_panel(found).control).all()
    among = swept("sampler.nbeta", [0, 1.0, 2.0])
    np.testing.assert_allclose(planted_panel(among).control, 1.0)

    def said(runs: list[Run]) -> str:
        return caption_of_metrics(runs, lay_out(runs), panels_for(runs, None), "")

    assert "each run's control, sampled again at nβ = 0" in said(own)
    assert "weights. All fail their own diagnosis" in said(own)
    more = swept("sampler.nbeta", [1.0, 2.0, 3.0])[2:]
    assert "Those at nβ = 100, γ = 1; nβ = 100, γ = 2 fail their own diagnosis" in said([*own, *more])
    assert "the runs of this sweep at nβ = 0" in said(among)
    assert "No control at nβ = 0 was sampled (control=true" in said(found)


def test_rhat_is_drawn_as_its_excess_over_one() -> None:
    found = [Run(run.folder, run.config, {"diagnosis/rhat": rhat}, "pass", shown=SHOWN) for run, rhat in
             zip(swept("sampler.localization", [1.0, 2.0]), (1.03, 0.9999), strict=True)]  # fmt: skip
    np.testing.assert_allclose(planted_panel(found, "diagnosis/rhat").values, [0.03, 1e-4])


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """The turning kernels and a failed job, compared once for all that follows."""
    failed = plant_turning(tmp_path_factory.mktemp("planted") / "sweep") / "6"
    failed.mkdir()
    own = configuration(localization=1e5)
    (failed / "failure.json").write_text(json.dumps({"error": "too large <a step>", "config": own}))
    return compare(find_runs(failed.parent), failed.parent, title="A <title>")


def test_a_comparison_leaves_figures_and_tables(compared: Comparison) -> None:
    folder = compared.folder
    for name in ("comparison", "kernel_similarity"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 3_000
        assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    table = pd.read_csv(folder / "tables" / "runs.csv")
    assert list(table["sampler.localization"]) == [0.1, 1, 10, 100, 1000, 10000, 100000]
    assert list(table["verdict"]) == ["fail", "warn", *["pass"] * 4, "none"]
    assert list(table["stable"]) == [False, True, True, True, False, False, False]
    assert table["no_result"].iloc[-1] == "too large <a step>"
    assert table["separation/within"].iloc[2] == pytest.approx(0.32)
    assert table["diagnosis/rhat"].iloc[0] == pytest.approx(1.004)
    steps = pd.read_csv(folder / "tables" / "steps.csv")
    assert compared.similarity is not None
    np.testing.assert_allclose(steps["distance"], np.diag(compared.similarity.distances, 1))
    assert len(pd.read_csv(folder / "tables" / "distances.csv")) == 21
    summary = json.loads((folder / "comparison.json").read_text())
    counted = {key: summary[key] for key in summary if key.startswith("runs")}
    assert counted == {"runs": 7, "runs_pass": 4, "runs_warn": 1, "runs_fail": 1, "runs_none": 1}
    assert (summary["stable/from"], summary["stable/to"]) == (1, 100)
    assert summary["path/length"] == pytest.approx(steps["distance"].sum())


def test_runs_of_two_seeds_are_told_apart_on_the_page(tmp_path: Path) -> None:
    runs = [*swept("sampler.localization", [1.0, 2.0]), *swept("sampler.localization", [1.0, 2.0], seed=1)]
    page = write_comparison(tmp_path, "x", runs, lay_out(runs), [], {}, []).read_text()
    assert "<th>localization γ</th><th>seed</th><th>verdict</th>" in page
    assert re.findall(r"<td>([12])</td><td>([01])</td>", page) == [("1", "0"), ("2", "0"), ("1", "1"), ("2", "1")]


def test_the_page_stands_alone_and_leads_to_every_run(compared: Comparison) -> None:
    page = (compared.folder / "report.html").read_text()
    assert "A &lt;title&gt;" in page
    assert "4 of 7 kernels pass the diagnosis, 1 warn, 1 FAIL, 1 without result" in page
    assert "no result: too large &lt;a step&gt;" in page
    for job in range(6):
        assert f"href='{job}/report.html'" in page
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)='?https?:", page)
    assert "the chains disagree: R-hat is 1.200" in page
    for words in ("Stable region: the longest run", "CKA of at least 0.8", "90 % intervals", "stable region in", "π/2"):
        assert words in page


def test_links_lead_back_from_another_folder(tmp_path: Path) -> None:
    found = [
        Run(plant(tmp_path / "sweep" / name, configuration()), {}, {"separation/ari": 1.0}, "pass", shown=SHOWN)
        for name in "01"
    ]
    page = tmp_path / "elsewhere" / "page"
    page.mkdir(parents=True)
    text = write_comparison(page, "x", found, lay_out(found), panels_for(found, None), {}, []).read_text()
    assert "href='../../sweep/1/report.html'" in text


def test_the_terminal_shows_a_row_a_run(compared: Comparison) -> None:
    lines = compared.overview().splitlines()
    assert lines[0] == "comparison: 4 of 7 kernels pass the diagnosis, 1 warn, 1 FAIL, 1 without result"
    assert re.match(r"  run +localization γ +verdict +within +across +ari +llc", lines[1])
    assert re.match(r"  3 +100 +pass +0\.33 ± 0\.02 +0\.02 +1 +5", lines[5])
    assert lines[9] == "  - run 6 has no result: too large <a step>"
    assert lines[-1] == f"  report.html   {compared.folder / 'report.html'}"


def test_too_few_finished_runs_are_refused_with_the_reasons(tmp_path: Path) -> None:
    plant(tmp_path / "0", configuration(), losses(0, 0))
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "config.yaml").write_text("seed: 0")
    with pytest.raises(InputError, match=r"1 finished run: a comparison needs 2 \(run 1: it stopped before"):
        compare(find_runs(tmp_path), tmp_path)
    with pytest.raises(InputError, match=r"alike must be <= 1, got 2; it is a CKA"):
        compare(find_runs(tmp_path), tmp_path, alike=2)
    assert not (tmp_path / "report.html").exists()


def grid(folder: Path) -> Path:
    job = 0
    for nbeta in (10.0, 100.0):
        for value in (1.0, 10.0, 100.0):
            verdict = "fail" if value == 100 and nbeta == 100 else "pass"
            plant(
                folder / str(job),
                configuration(localization=value, nbeta=nbeta),
                losses(0.1 * value**0.3, job),
                verdict,
            )
            job += 1
    return folder


def test_a_grid_has_a_stable_region_for_every_curve(tmp_path: Path) -> None:
    found = compare(find_runs(grid(tmp_path / "grid")), tmp_path / "page")
    first, second = found.stable
    assert first is not None
    assert second is not None
    assert (first.last, second.last) == (2, 1)
    summary = found.summary()
    assert (summary["stable/nβ = 10/to"], summary["stable/nβ = 100/to"]) == (100, 10)
    assert {"path/nβ = 10/length", "path/nβ = 100/length"} <= summary.keys()
