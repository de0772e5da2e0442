"""A run leaves a complete folder, is never sampled twice, and keeps what it has when something breaks."""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command import TINY, call, config, losskernel_command, stamps, tiny
from PIL import Image

import losskernel as lk
import losskernel.runs.run
from losskernel.cli.build import analyse_from, build, run_from
from losskernel.errors import InputError, TraceError
from losskernel.runs.folder import RunFolder
from losskernel.runs.run import claim, run, set_threads
from losskernel.runs.tracking.tracker import CSVTracker, LogDraws
from losskernel.sampling.setup import Schedule

ANALYSES = "analysis=[convergence,separation,spectrum,complexity,neighbours]"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of one run through a real process, and what it printed."""
    home = tmp_path_factory.mktemp("home")
    done = losskernel_command("experiment=multitask", ANALYSES, "logger=csv", *TINY, "paths.outputs=outputs", cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (folder,) = (home / "outputs" / "multitask").iterdir()
    return folder, done.stdout


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def test_a_run_leaves_a_complete_folder(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}", folder.name)
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    assert stored["model"]["tasks"] == 2  # resolved
    assert (stored["sampler"]["localization"], stored["schedule"]["draws"], stored["name"]) == (50.0, 20, "multitask")
    assert "${" not in (folder / "config.yaml").read_text()
    traces = lk.open_traces(folder)
    assert traces.losses.shape == (2, 20, 40)
    assert set(traces.labels["task"]) == {"add", "multiply"}
    assert (folder / "checkpoints" / "trained.pt").is_file()
    assert "<html" in (folder / "report.html").read_text()
    assert not list(folder.rglob("*.partial"))


def test_metrics_are_flat_and_json_holds_only_numbers(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    numbers = metrics(folder)
    assert {"separation/ari", "separation/ari_se", "spectrum/effective_rank", "complexity/llc"} <= set(numbers)
    assert all(re.fullmatch(r"\w+/\w+", name) for name in numbers)
    assert all(value is None or (isinstance(value, float) and math.isfinite(value)) for value in numbers.values())
    diagnosis = json.loads((folder / "diagnosis.json").read_text())
    assert diagnosis["verdict"] == "fail"
    assert diagnosis["reasons"]
    assert set(diagnosis) == {"verdict", "reasons", "metrics", "remedy", "screens"}
    assert diagnosis["reasons"][0].endswith(diagnosis["remedy"])
    assert {row["verdict"] for row in diagnosis["screens"]} <= {"pass", "warn", "fail"}


def test_figures_are_there_in_print_and_vector_form_and_tables_can_be_read(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    pictures = sorted((folder / "figures").glob("*.png"))
    assert {"kernel_matrix", "within_across", "spectrum", "neighbours"} <= {path.stem for path in pictures}
    for path in pictures:
        with Image.open(path) as image:
            assert image.convert("L").getextrema()[0] < 250, "an empty picture"
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    tables = {path.stem: list(csv.DictReader(path.open())) for path in (folder / "tables").glob("*.csv")}
    assert {"groups", "eigenvalues", "modes", "probes", "neighbours", "chains"} <= set(tables)
    assert all(tables.values())
    assert len(tables["probes"]) == 40


def test_the_terminal_ends_with_verdict_numbers_and_paths(finished: tuple[Path, str]) -> None:
    folder, said = finished
    assert "diagnosis: fail" in said
    assert re.search(r"cluster recovery \(ARI\) +-?[\d.]+ ± [\d.]+", said)
    assert "mean |R| within task" in said
    for name in ("report.html", "metrics.json", "traces.zarr", "figures", "tables"):
        assert re.search(rf"{name} +\S*{folder.name}/{name}\n", said)


def test_curves_along_the_draws_are_kept_as_csv(finished: tuple[Path, str]) -> None:
    rows = list(csv.DictReader((finished[0] / "curves" / "metrics.csv").open()))
    assert [int(float(row["draw"])) for row in rows] == list(range(1, 21))
    assert {"probe_loss/chain_0", "distance/chain_1", "train_loss/chain_1"} <= set(rows[0])
    losses = lk.open_traces(finished[0]).losses
    np.testing.assert_allclose([float(row["probe_loss/chain_1"]) for row in rows], losses[1].mean("probe"), rtol=1e-5)


def test_a_second_run_in_the_same_folder_does_not_sample_again(finished: tuple[Path, str], capsys: Any) -> None:
    folder, _ = finished
    before, traces = stamps(folder / "traces.zarr") | stamps(folder / "checkpoints"), lk.open_traces(folder)
    again = ["experiment=multitask", ANALYSES, "logger=none", *TINY, f"paths.run={folder}"]
    assert call(*again) == 0
    assert stamps(folder / "traces.zarr") | stamps(folder / "checkpoints") == before
    assert lk.open_traces(folder).dataset.equals(traces.dataset)
    for changed, said in {
        "schedule.draws=25": "schedule.draws: stored 20, asked 25",
        "training.steps=60": "training.steps: stored 50, asked 60",
        "seed=1": "seed: stored 0, asked 1",
        "sampler=rmsprop_sgld": "sampler._target_: stored 'losskernel.SGHMC', asked 'losskernel.RMSpropSGLD'",
    }.items():
        capsys.readouterr()
        assert call(*again, changed) == 1
        message = capsys.readouterr().err
        assert said in message
        assert "choose another folder" in message
        assert len(message.splitlines()) == 1
    assert stamps(folder / "traces.zarr") == {key: time for key, time in before.items() if "traces.zarr" in key}
    assert yaml.safe_load((folder / "config.yaml").read_text())["schedule"]["draws"] == 20


def test_who_reads_a_dataset_and_from_where_may_change(tmp_path: Path) -> None:
    study = build(tiny(tmp_path, "analysis=[]"))
    first = {"dataset": {"size": 64, "workers": 4, "cache": "here"}}
    run(study, tmp_path, config=first)
    before = stamps(tmp_path / "traces.zarr")
    run(study, tmp_path, config={"dataset": {"size": 64, "workers": 0, "cache": None}})
    assert stamps(tmp_path / "traces.zarr") == before
    with pytest.raises(TraceError, match=r"holds another run: dataset\.size: stored 64, asked 32; choose another"):
        run(study, tmp_path, config={"dataset": {"size": 32, "workers": 4, "cache": "here"}})


def test_asking_more_of_a_run_leaves_its_traces_alone(
    finished: tuple[Path, str], monkeypatch: Any, tmp_path: Path, capsys: Any
) -> None:
    folder, _ = finished
    monkeypatch.chdir(tmp_path)
    before, numbers = stamps(folder / "traces.zarr"), metrics(folder)
    asked = ["analysis=[spectrum]", "analysis.spectrum.modes=2", f"run={folder}"]
    assert call(*asked, command="analyse") == 0
    assert stamps(folder / "traces.zarr") == before
    assert metrics(folder) == numbers
    with (folder / "tables" / "modes.csv").open() as table:
        assert next(csv.reader(table))[-2:] == ["mode_1", "mode_2"]
    assert list(tmp_path.iterdir()) == []  # nothing is left where the command was called
    assert "effective rank of R" in capsys.readouterr().out
    assert call(*asked, "label=clas", command="analyse") == 1
    assert "analysis.spectrum.group=clas: there is no such probe label" in capsys.readouterr().err


def test_an_unfinished_run_cannot_be_analysed(tmp_path: Path, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("losskernel.traces.zarr_store.TraceStore.finish", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_from(tiny(tmp_path / "run"), tmp_path / "run", None)
    with pytest.raises(TraceError, match="is unfinished"):
        analyse_from(config(f"run={tmp_path / 'run'}", "analysis=[separation]", name="analyse"))
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_traces_from_python_can_be_analysed_from_the_command_line(tmp_path: Path, capsys: Any) -> None:
    losses = np.random.default_rng(0).random((2, 30, 24))
    labels = {"kind": np.repeat(["a", "b"], 12)}
    lk.LossTraces.from_arrays(losses, labels=labels).save(tmp_path / "traces.zarr")
    assert call(f"run={tmp_path}", "analysis=[separation,complexity]", command="analyse") == 0
    assert "mean |R| within kind" in capsys.readouterr().out
    assert metrics(tmp_path)["separation/groups"] == 2


def test_a_checkpoint_is_loaded_in_place_of_training(finished: tuple[Path, str], tmp_path: Path) -> None:
    trained = finished[0] / "checkpoints" / "trained.pt"
    loaded = tiny(tmp_path / "run", f"checkpoint={trained}", "schedule.draws=10", "analysis=[]")
    run_from(loaded, tmp_path / "run", None)
    first, second = (lk.open_traces(folder).record("start_losses") for folder in (finished[0], tmp_path / "run"))
    assert first is not None
    np.testing.assert_array_equal(first, second)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_sweep_makes_a_folder_per_job_and_one_bad_job_does_not_stop_it(tmp_path: Path, capsys: Any) -> None:
    sweep = ["-m", "sampler.localization=10,-1,100", f"paths.outputs={tmp_path}"]
    assert call(*sweep, "analysis=[complexity]", "logger=none", *TINY) == 1
    said = capsys.readouterr().err
    assert "losskernel: job 1 (sampler.localization=-1) failed: sampler.localization must be >= 0" in said
    assert said.count("sampler.localization must be >= 0, got -1; raise sampler.localization") == 1
    assert said.endswith("losskernel: 1 of the sweep's jobs did not finish, as said above\n")
    assert "Error executing" not in said
    assert "Traceback" not in said
    (folder,) = (tmp_path / "multitask").iterdir()
    for job, value in ((0, 10), (2, 100)):
        assert yaml.safe_load((folder / str(job) / "config.yaml").read_text())["sampler"]["localization"] == value
        assert metrics(folder / str(job))["complexity/llc"] is not None
    assert not (folder / "1" / "config.yaml").exists()
    assert not (folder / "1" / "traces.zarr").exists()


def test_a_kernel_that_fails_stops_where_asked_with_all_results_written(tmp_path: Path, capsys: Any) -> None:
    common = ["analysis=[separation]", "logger=none", *TINY]
    assert call(*common, f"paths.run={tmp_path / 'stop'}", "on_fail=stop") == 1
    said = capsys.readouterr().err
    assert re.search(r"the kernel fails its diagnosis: .+ \(on_fail=stop; all is written to .*stop\)", said)
    assert len(said.splitlines()) == 1
    for name in ("metrics.json", "diagnosis.json", "report.html", "figures/kernel_matrix.png", "tables/groups.csv"):
        assert (tmp_path / "stop" / name).is_file(), name
    assert call(*common, "analysis=[]", f"paths.run={tmp_path / 'warn'}") == 0


def test_figures_and_pages_of_a_failed_kernel_carry_the_warning(tmp_path: Path, monkeypatch: Any) -> None:
    stamped: list[str] = []
    monkeypatch.setattr("losskernel.runs.analyse.stamp", lambda figure, text: stamped.append(text))
    asked = tiny(tmp_path / "run", "+analysis.pages._target_=faulty_parts.Pages")
    run_from(asked, tmp_path / "run", None)
    assert len(stamped) == 2
    assert all(re.match(r"FAILED diagnosis: .+", text) for text in stamped)
    page = (tmp_path / "run" / "figures" / "plain.html").read_text()
    assert re.search(r"<body class='x'><p role='alert'[^>]*>FAILED diagnosis: [^<]+</p>hello</body>", page)


@pytest.mark.slow
def test_the_control_run_has_the_same_analyses(tmp_path: Path) -> None:
    run_from(
        tiny(tmp_path / "run", "control=true", "analysis=[convergence,separation,spectrum,complexity]"),
        tmp_path / "run",
        None,
    )
    numbers, folder = metrics(tmp_path / "run"), tmp_path / "run"
    control = lk.open_traces(folder / "control.zarr")
    assert control.meta["identity"]["sampler"]["nbeta"] == 0.0
    assert control.meta["identity"]["schedule"] == lk.open_traces(folder).meta["identity"]["schedule"]
    assert {"control/separation/within", "control/separation/within_se", "control/spectrum/effective_rank"} <= set(
        numbers
    )
    assert not any(name.startswith(("control/complexity", "control/convergence")) for name in numbers)
    assert numbers["control/separation/within"] != numbers["separation/within"]
    assert json.loads((folder / "diagnosis.json").read_text())["control"]["verdict"] in ("pass", "warn", "fail")
    # A repeated analysis is repeated for the control too, without sampling, and other numbers stay.
    kept = numbers["control/spectrum/effective_rank"]
    analyse_from(config(f"run={folder}", "analysis=[separation]", "analysis.separation.neighbours=3", name="analyse"))
    again = metrics(folder)
    assert again["control/spectrum/effective_rank"] == kept
    assert again["control/separation/purity"] != numbers["control/separation/purity"]


def test_jobs_of_a_sweep_sample_a_control_and_single_runs_do_not(tmp_path: Path) -> None:
    run_from(tiny(tmp_path / "sweep" / "0", "analysis=[]"), tmp_path / "sweep" / "0", str(tmp_path / "sweep"))
    run_from(tiny(tmp_path / "alone", "analysis=[]"), tmp_path / "alone", None)
    assert (tmp_path / "sweep" / "0" / "control.zarr").is_dir()
    assert not (tmp_path / "alone" / "control.zarr").exists()


def test_a_control_that_diverges_is_reported_and_the_run_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    real = losskernel.runs.run.sample

    def diverging(*arguments: Any, **options: Any) -> Any:
        if arguments[2].keywords["nbeta"] == 0:
            raise lk.errors.DivergenceError("chain 0 left the finite numbers at step 3")
        return real(*arguments, **options)

    monkeypatch.setattr("losskernel.runs.run.sample", diverging)
    run_from(tiny(tmp_path / "run", "control=true"), tmp_path / "run", None)
    found = json.loads((tmp_path / "run" / "diagnosis.json").read_text())["control"]
    assert found == {"verdict": "none", "reasons": ["chain 0 left the finite numbers at step 3"]}
    assert not any(name.startswith("control/") for name in metrics(tmp_path / "run"))


def test_an_analysis_that_raises_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    broken = tiny(tmp_path / "run", "+analysis.broken._target_=faulty_parts.Breaks", "analysis.separation.neighbours=3")
    message = r"all others are written: broken \(ZeroDivisionError: no probes left\)"
    with pytest.raises(InputError, match=message) as raised:
        run_from(broken, tmp_path / "run", None)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert "separation/ari" in metrics(tmp_path / "run")
    assert (tmp_path / "run" / "report.html").is_file()
    assert lk.open_traces(tmp_path / "run").losses.shape == (2, 20, 40)


def test_training_is_not_repeated_where_sampling_was_interrupted(tmp_path: Path, monkeypatch: Any) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise lk.errors.Interrupted("stopped")

    with monkeypatch.context() as patch:
        patch.setattr("losskernel.runs.run.sample", stop)
        with pytest.raises(lk.errors.Interrupted):
            run_from(tiny(tmp_path / "run"), tmp_path / "run", None)
    before = stamps(tmp_path / "run" / "checkpoints")
    assert before
    assert not (tmp_path / "run" / "metrics.json").exists()
    run_from(tiny(tmp_path / "run", "analysis=[]"), tmp_path / "run", None)
    assert stamps(tmp_path / "run" / "checkpoints") == before
    run_from(tiny(tmp_path / "whole", "analysis=[]"), tmp_path / "whole", None)
    continued, whole = (lk.open_traces(tmp_path / name).losses for name in ("run", "whole"))
    assert continued.equals(whole)


def test_a_run_needs_no_configuration_files(tmp_path: Path) -> None:
    from losskernel.cli.build import build

    outcome = run(build(tiny(tmp_path)), tmp_path / "run")
    assert outcome.folder == tmp_path / "run"
    assert outcome.metrics["separation/groups"] == 2
    assert outcome.diagnosis.verdict == "fail"


def test_draws_of_a_continued_run_keep_their_numbers(tmp_path: Path) -> None:
    schedule = Schedule(chains=1, burn_in=10, draws=400, thinning=5)
    tracker = CSVTracker(tmp_path)
    callback = LogDraws(tracker.loggers(), schedule)

    class Module:
        chain_numbers = (3,)
        step = 10 + 5 * 399

    seen = {"losses": torch.ones(1, 4), "train_loss": torch.ones(1), "distance": torch.ones(1)}
    callback.on_train_batch_end(None, Module(), {"train_loss": torch.ones(1)}, None, 0)  # pyright: ignore[reportArgumentType]
    callback.on_train_batch_end(None, Module(), seen, None, 0)  # pyright: ignore[reportArgumentType]
    Module.step += 5
    callback.on_train_batch_end(None, Module(), seen, None, 0)  # pyright: ignore[reportArgumentType]
    tracker.finish(False)
    (row,) = csv.DictReader((tmp_path / "curves" / "metrics.csv").open())  # one draw in two of so many
    assert float(row["draw"]) == 400
    assert row["probe_loss/chain_3"] == "1.0"


def test_the_number_of_threads_is_that_of_every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    def counts() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info()}

    before = torch.get_num_threads()
    with threadpool_limits(2):
        set_threads(1)
        assert counts() == {1}
        assert torch.get_num_threads() == 1
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
        set_threads(None)
        assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


# --- what a loss of power leaves of small files


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"- 1"])
def test_a_damaged_configuration_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    message = r"config\.yaml is damaged: it holds no configuration; restore it from a copy, or remove it if this is the"
    with pytest.raises(TraceError, match=message):
        claim(RunFolder(tmp_path), {"seed": 0})
    (tmp_path / "config.yaml").unlink()
    claim(RunFolder(tmp_path), {"seed": 0})
    with pytest.raises(TraceError, match="seed: stored 0, asked 1"):
        claim(RunFolder(tmp_path), {"seed": 1})


def test_damaged_numbers_of_a_finished_run_are_named_and_computed_again(tmp_path: Path) -> None:
    asked = tiny(tmp_path / "run", "analysis=[complexity]", "training.steps=5")
    run_from(asked, tmp_path / "run", None)
    whole, drawn = metrics(tmp_path / "run")["complexity/llc"], stamps(tmp_path / "run" / "traces.zarr")
    for name in ("metrics.json", "diagnosis.json"):
        (tmp_path / "run" / name).write_text("{")
        with pytest.raises(TraceError, match=rf"{name} is damaged: it is no JSON; remove it and run again, which samp"):
            run_from(asked, tmp_path / "run", None)
        (tmp_path / "run" / name).unlink()
        run_from(asked, tmp_path / "run", None)
        assert (tmp_path / "run" / name).is_file()
    assert metrics(tmp_path / "run")["complexity/llc"] == whole
    (tmp_path / "run" / "analyses.json").write_text("{")
    with pytest.raises(TraceError, match=r"analyses\.json is damaged: it is no JSON; remove it and run again"):
        run_from(tiny(tmp_path / "run", "analysis=[convergence]", "training.steps=5"), tmp_path / "run", None)
    assert stamps(tmp_path / "run" / "traces.zarr") == drawn
