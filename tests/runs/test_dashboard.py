"""The workspace on W&B: what it shows, and how it is saved on a server that stands for W&B's."""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from command import call
from wandb_server import KEY, Service, standing_for_wandb

from losskernel.errors import InputError
from losskernel.runs.tracking.wandb_workspace import Recorded, save_dashboard, workspace

IMAGE, PAGE = {"_type": "image-file"}, {"_type": "html-file"}


def sweep(*localizations: float) -> list[Recorded]:
    """Runs over localization, as they record themselves, and their comparison."""
    media = {"figures/kernel_matrix": IMAGE, "figures/embedding_map": IMAGE, "interactive/map": PAGE}
    numbers = {"separation/ari": 0.5, "separation/ari_se": 0.1, "diagnosis/rhat": 1.01, "diagnosis/ess_kernel": 300.0}
    summary = media | numbers | {"trust/verdict": PAGE, "verdict": "pass", "control/x": 1.0, "control/x_se": 0.1}
    config = {"nbeta": 100.0, "step_size": 1e-3, "chains": 4}
    runs = [Recorded(config | {"localization": each}, summary) for each in localizations]
    table = {"_type": "table-file"}
    return [*runs, Recorded({}, {"figures/comparison": IMAGE, "tables/runs": table}, "compare")]


def spec(runs: list[Recorded], group: str | None = "friday") -> dict[str, Any]:
    made = workspace(runs, "losskernel", "me", group)
    return json.loads(made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))["section"]


def panels(found: dict[str, Any], section: str) -> list[dict[str, Any]]:
    (one,) = [each for each in found["panelBankConfig"]["sections"] if each["name"].startswith(section)]
    return one["panels"]


def test_the_workspace_shows_what_the_runs_have_recorded() -> None:
    found = spec(sweep(10.0, 100.0, 1000.0))
    names = [each["name"] for each in found["panelBankConfig"]["sections"]]
    assert names == [
        "Trust",
        "Results",
        "Curves against the draw (up to 0: burn-in)",
        "Curves against seconds of sampling",
        "Kernels and figures",
        "Maps",
    ]
    shown = [panel["config"].get("mediaKeys") for panel in panels(found, "Trust")]
    assert shown[0] == ["trust/verdict"]
    assert [panel["config"].get("yAxis") for panel in panels(found, "Trust")][1:] == [
        "summary:diagnosis/rhat",
        "summary:diagnosis/ess_kernel",
    ]
    results = panels(found, "Results")
    assert results[0]["config"]["mediaKeys"] == ["figures/comparison"]  # where the intervals are
    columns = [(each["accessor"], each.get("log")) for each in results[1]["config"]["columns"]]
    assert columns == [("config:localization.value", True), ("summary:separation/ari", None)]
    scatter = results[2]["config"]
    assert (scatter["xAxis"], scatter["yAxis"]) == ("config:localization.value", "summary:separation/ari")
    assert scatter["xAxisLogScale"] is True
    assert "tables/runs" in json.dumps(results[3])
    for section, axis in (("Curves against the draw", "draw"), ("Curves against seconds", "sampling_seconds")):
        curves = [panel["config"] for panel in panels(found, section)]
        assert [each["xAxis"] for each in curves] == [axis] * 3
        assert curves[0]["metricRegex"] == r"probe_loss/chain_\d+"
    kernels = [panel["config"]["mediaKeys"] for panel in panels(found, "Kernels")]
    assert kernels == [["figures/kernel_matrix"], ["figures/embedding_map"]]
    assert [panel["config"]["mediaKeys"] for panel in panels(found, "Maps")] == [["interactive/map"]]


def test_the_workspace_is_of_one_sweep_or_of_all_runs() -> None:
    (runs,) = spec(sweep(10.0, 100.0))["runSets"]
    (chosen,) = runs["filters"]["filters"]
    assert (chosen["key"], chosen["op"], chosen["value"]) == ({"section": "run", "name": "group"}, "=", "friday")
    pinned = list(runs["runFeed"]["columnPinned"])
    assert pinned[:3] == ["run:displayName", "summary:verdict", "config:localization.value"]
    assert {"summary:separation/ari", "summary:separation/ari_se"} <= set(pinned)
    (runs,) = spec(sweep(10.0, 100.0), group=None)["runSets"]
    assert runs["filters"]["filters"] == []


def test_an_axis_is_logarithmic_where_it_must_be() -> None:
    def log(*localizations: float) -> list[Any]:
        found = panels(spec(sweep(*localizations)), "Results")
        return [found[1]["config"]["columns"][0].get("log"), found[2]["config"].get("xAxisLogScale")]

    assert log(10.0, 100.0) == [True, True]
    assert log(10.0, 20.0) == [None, None]
    assert log(0.0, 1000.0) == [None, None]  # zero has no place on one


def test_single_runs_are_shown_by_the_settings_looked_at_first() -> None:
    columns = panels(spec(sweep(10.0)), "Results")[1]["config"]["columns"]
    keys = ["config:localization.value", "config:nbeta.value", "config:step_size.value", "summary:separation/ari"]
    assert [each["accessor"] for each in columns] == keys


def test_numbers_that_come_with_an_error_are_headlines_too() -> None:
    found = panels(spec([Recorded({}, {"memorisation/auroc": 0.9, "memorisation/auroc_se": 0.01})]), "Results")
    assert found[0]["config"]["columns"][-1]["accessor"] == "summary:memorisation/auroc"


def test_runs_without_numbers_leave_no_empty_section() -> None:
    names = [each["name"] for each in spec([Recorded()])["panelBankConfig"]["sections"]]
    assert names == ["Curves against the draw (up to 0: burn-in)", "Curves against seconds of sampling"]


# --- saving it


@pytest.fixture
def service(tmp_path: Path, monkeypatch: Any) -> Iterator[Service]:
    """W&B on this machine, with the runs of a sweep."""
    with standing_for_wandb() as found:
        found.runs = [(dict(run.config), dict(run.summary), run.job_type) for run in sweep(10.0, 100.0)]
        os.environ.pop("WANDB_SERVICE", None)  # put back, it would name a process that has ended
        for name in [each for each in os.environ if each.startswith("WANDB_")]:
            monkeypatch.delenv(name)
        settings = {"BASE_URL": found.url, "API_KEY": KEY, "SILENT": "true"}
        settings |= {f"{name}_DIR": str(tmp_path / name) for name in ("DATA", "CACHE", "CONFIG")}
        for name, value in settings.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        monkeypatch.setenv("HOME", str(tmp_path))
        wandb.teardown()  # W&B reads its variables once
        yield found
        wandb.teardown()


def test_the_command_saves_it_and_prints_its_url(service: Service, capsys: Any) -> None:
    assert call("project=study", "group=friday", command="dashboard") == 0
    (view,) = service.of("UpsertView2")
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "study", "losskernel: friday")
    assert "trust/verdict" in view["spec"]
    (asked, *_) = service.of("Runs")
    assert (asked["filters"], asked["order"]) == ('{"group": "friday"}', "-created_at")  # what runs record changes
    said = capsys.readouterr()
    assert said.out == f"{service.url}/me/study?nw={view['name'].removeprefix('nw-').removesuffix('-v')}\n"
    assert said.err == ""


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ("Runs", "W&B did not save the workspace: .*permission denied.*; check the network, project= and entity="),
        ("UpsertView2", "W&B did not save the workspace: .*permission denied"),
    ],
)
def test_what_wandb_refuses_is_one_line(refused: str, message: str, service: Service) -> None:
    service.refuses = refused
    with pytest.raises(InputError, match=message) as raised:
        save_dashboard("study", "me")
    assert "\n" not in str(raised.value)


def test_a_project_without_runs_is_not_saved(service: Service) -> None:
    service.runs = []
    with pytest.raises(InputError, match="W&B has no runs in me/study in the group friday; check project="):
        save_dashboard("study", group="friday")
    assert service.of("UpsertView2") == []


def test_a_key_without_an_entity_is_asked_for_one(service: Service) -> None:
    service.entity = None
    with pytest.raises(InputError, match="W&B knows no default entity for this key; give entity="):
        save_dashboard("study")


def test_nobody_logged_in_is_one_line(service: Service, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    assert call("project=study", command="dashboard") == 1
    said, remedy = capsys.readouterr(), "run wandb login (or set WANDB_API_KEY), then the same command"
    assert (said.out, said.err) == ("", f"losskernel: nobody is logged in to W&B; {remedy}\n")
    assert service.asked == []


def test_the_extra_is_named_where_it_is_not_installed(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.delitem(sys.modules, "losskernel.runs.tracking.wandb_workspace")
    with pytest.raises(InputError, match="wandb-workspaces is not installed; uv sync --extra dashboard"):
        importlib.import_module("losskernel.runs.tracking.wandb_workspace")
