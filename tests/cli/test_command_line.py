"""The command line refuses bad input before compute, in one clear line per fault, and is quick to help."""

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from command import MAIN, TINY, call, config, run_python

import losskernel as lk
import losskernel.cli
from losskernel.cli.build import build, run_from
from losskernel.errors import InputError, TraceError
from losskernel.traces import zarr_store as store

OWN = ("model=mlp", "model.inputs=4", "model.outputs=1", "analysis=[separation]")
ARROW = re.compile(r"Traceback|Error executing job|\^\^\^")


def own_data(function: str) -> list[str]:
    """Overrides that take the data from a function of tests/faulty_parts.py."""
    return ["~dataset", "+label=task", *OWN, f"+dataset._target_=faulty_parts.{function}"]


# Overrides, and what the message must say: the key, the value, the remedy.
FAULTS = {
    "launcher without a sweep": (["hydra/launcher=slurm"], r"hydra/launcher=slurm starts the jobs of a sweep.*add -m"),
    "chains": (["chain_offset=3.5"], r"chain_offset must be a whole number, got 3.5"),
    "states": (["state_every=-1"], r"state_every must be >= 0, got -1"),
    "unknown key": (["sampler.foo=1"], r"Could not override 'sampler.foo'; `losskernel --cfg job` lists every key\n$"),
    "mistyped key": (["sampler.localisation=10"], r"'sampler.localisation'; did you mean sampler\.localization\?"),
    "mistyped part": (["analysis.separatoin.group=x"], r"did you mean analysis\.separation\.group\?"),
    "mistyped group": (["sampelr=sgld"], r"'sampelr'; did you mean sampler\?"),
    "key of a part": (["localization=10"], r"'localization'; did you mean sampler\.localization\?"),
    "mistyped choice": (
        ["experiment=digitz"],
        r"'experiment/digitz'; did you mean digits\? choose from attribution, .*",
    ),
    "mistyped in a list": (
        ["analysis=[embeding]"],
        r"^losskernel: Could not find 'analysis/embeding'; did you mean embedding\? choose from atlas, .*, spectrum\n$",
    ),
    "no truth value": (["model.towers=fasle"], r"^losskernel: model\.towers must be true or false, got 'fasle'\n$"),
    "a sweep's folder": (["paths.sweep=x"], r"paths\.sweep=x names .* of a sweep.*; write paths\.run=x, or add -m\n$"),
    "unknown choice": (["sampler=nope"], r"Could not find 'sampler/nope'.*rmsprop_sgld"),
    "unknown argument": (["+sampler.foo=1"], r"sampler\.foo=1: .*no such argument; choose from .*step_size"),
    "unknown nested argument": (["+training.optimizer.rate=1"], r"training\.optimizer\.rate=1: .*no such argument"),
    "wrong type": (["sampler.step_size=abc"], r"sampler\.step_size must be a number, got 'abc'; give a value such as"),
    "negative step": (["sampler.step_size=-1"], r"sampler\.step_size must be > 0, got -1; raise sampler\.step_size"),
    "zero step": (["sampler.step_size=0"], r"sampler\.step_size must be > 0, got 0; raise sampler\.step_size"),
    "unstable": (["sampler.localization=1e9"], r"sampler\.step_size \* sampler\.localization must be < 4"),
    "missing argument": (["~sampler.nbeta"], r"sampler cannot be built: .*missing.*'nbeta'"),
    "one draw": (["schedule.draws=1"], r"schedule\.draws must be >= 2 .*got 1; raise schedule\.draws"),
    "half a chain": (["schedule.chains=1.5"], r"schedule\.chains must be a whole number, got 1\.5"),
    "large batch": (["schedule.batch_size=5000"], r"schedule\.batch_size must be <= the 1000 .*got 5000; lower it"),
    "large training batch": (["training.batch_size=5000"], r"training\.batch_size must be <= the 1000 .*got 5000"),
    "optimizer": (["training.optimizer.lr=abc"], r"training\.optimizer cannot be built: TypeError"),
    "no probes wanted": (["dataset.probes_per_task=0"], r"dataset\.probes_per_task must be >= 1, got 0; raise"),
    "no probes": (own_data("empty_probes"), r"data\.probes is empty; give at least two probes"),
    "short labels": (own_data("short_labels"), r"data\.labels\['task'\] has shape \(2,\), but there are 20 probes"),
    "scalar loss": (
        own_data("scalar_loss"),
        r"one loss per sample, shape \(2,\), but returned \(\); .*reduction='none'",
    ),
    "NaN loss": (own_data("nan_loss"), r"data\.loss is \[nan, nan\] on two probes; check"),
    "broken loss": (own_data("broken_loss"), r"fails on two probes: KeyError: 'weight' \(faulty_parts\.py, line \d+\)"),
    "no data": (own_data("not_data"), r"dataset must be a losskernel\.Data, got \[1, 2\]"),
    "shapes": (["model.operands=3"], r"fail on a batch of inputs \(2, 4\).*check model, dataset and loss"),
    "no checkpoint": (["checkpoint=nowhere.pt"], r"checkpoint nowhere\.pt does not exist; give the path"),
    "unknown label": (["analysis.separation.group=clas"], r"separation\.group=clas: .*choose from task, a, b, target"),
    "label of colours": (["analysis=[embedding]", "analysis.embedding.colour_by=[x]"], r"embedding\.colour_by=x: "),
    "no module": (["model._target_=nope.Model"], r"model\._target_=nope\.Model cannot be imported .*PYTHONPATH"),
    "no class": (["model._target_=losskernel.models.Nope"], r"_target_=losskernel\.models\.Nope cannot be imported"),
    "not callable": (["model._target_=losskernel.models.networks"], r"is a module; give a class or a function"),
    "law": (["+trainer.gradient_clip_val=1"], r"gradient_clip_val=1 \(clipping changes the drift\)"),
    "early end": (["+trainer.max_steps=5"], r"max_steps=5 \(ends training and chains early\)"),
    "devices": (["+trainer.devices=2"], r"trainer\.devices cannot be chosen.*remove it"),
    "on_fail": (["on_fail=ignore"], r"on_fail must be one of \('warn', 'stop'\), got 'ignore'"),
    "seed": (["seed=-1"], r"seed must be >= 0, got -1"),
    "stacking": (["chains_per_fit=0"], r"chains_per_fit must be >= 1, got 0"),
    "progress": (["progress=maybe"], r"progress must be true or false, got 'maybe'"),
    "threads": (["threads=many"], r"threads must be a whole number, got 'many'"),
    "W&B mode": (["logger=wandb", "logger.mode=x"], r"logger\.mode must be one of .*got 'x'"),
    "logger key": (["+logger.foo=1"], r"logger\.foo=1: .*no such argument"),
    "missing value": (["sampler.nbeta=???"], r"sampler\.nbeta: Missing mandatory value: nbeta; set sampler\.nbeta="),
    "interpolation": (["name=${nothing}"], r"Interpolation key 'nothing' not found"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_is_one_clear_line_before_any_compute(fault: str, tmp_path: Path, capsys: Any) -> None:
    overrides, message = FAULTS[fault]
    code = call("analysis=[separation]", "logger=none", f"paths.outputs={tmp_path}", *overrides)
    said = capsys.readouterr()
    assert code == 1
    assert re.search(message, said.err.replace("\nlosskernel: ", " ")), said.err
    assert all(line.startswith(("losskernel: ", "\t")) or not line for line in said.err.splitlines()), said.err
    assert len(said.err.splitlines()) <= 8
    assert not ARROW.search(said.err + said.out)
    assert "nope" not in said.out  # nothing is logged beside the message
    made = {path.name for path in tmp_path.rglob("*") if ".hydra" not in path.parts and not path.is_dir()}
    assert made <= {"losskernel.log"}


def test_a_sweep_is_not_given_the_folder_of_one_run(tmp_path: Path, capsys: Any) -> None:
    assert call("-m", "paths.run=x", "seed=1,2", "logger=none", f"paths.outputs={tmp_path}") == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"losskernel: paths\.run=x names the folder of one run.* write paths\.sweep=x, .*\n", said), (
        said
    )
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"multirun.yaml"}


def test_choices_of_ones_own_are_among_those_to_choose_from(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "inbedding.yaml").touch()
    assert call("--config-dir", str(tmp_path), "analysis=[inbeding]") == 1
    assert "did you mean inbedding? choose from atlas, " in capsys.readouterr().err
    assert call("--config-dir", str(tmp_path), "analysis=[nowhere/at_all]") == 1
    assert "Could not load 'analysis/nowhere/at_all'" in capsys.readouterr().err


def test_truth_values_of_parts_of_ones_own() -> None:
    with pytest.raises(InputError) as raised:
        build(config(*own_data("with_truths"), "+dataset.plain=on", "+dataset.late=yes", "+dataset.free=yes"))
    lines = str(raised.value).splitlines()
    assert lines == [
        f"dataset.{name} must be true or false, got '{value}'" for name, value in (("plain", "on"), ("late", "yes"))
    ]
    for plain, late in (("true", "null"), ("False", "false")):
        given = (f"+dataset.plain={plain}", f"+dataset.late={late}", "+dataset.free=yes", "training.batch_size=50")
        build(config(*own_data("with_truths"), *given, "schedule.batch_size=50"))


def test_all_faults_are_reported_at_once(tmp_path: Path, capsys: Any) -> None:
    faults = [
        "+model.foo=1",
        "sampler.step_size=-1",
        "schedule.draws=1",
        "training.batch_size=5000",
        "analysis.separation.group=clas",
        "on_fail=ignore",
        "threads=0",
    ]
    assert call("logger=wandb", "logger.mode=x", f"paths.outputs={tmp_path}", *faults) == 1
    lines = capsys.readouterr().err.splitlines()
    for key in (
        "model.foo",
        "step_size",
        "draws",
        "training.batch_size",
        "group=clas",
        "on_fail",
        "threads",
        "logger.mode",
    ):
        assert sum(key in line for line in lines) == 1, (key, lines)
    assert len(lines) == 8


def test_a_real_process_exits_with_one_line(tmp_path: Path) -> None:
    done = run_python("-c", MAIN, "sampler.step_size=-1", "logger=none", f"paths.outputs={tmp_path}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "losskernel: sampler.step_size must be > 0, got -1; raise sampler.step_size\n"


def test_the_traceback_comes_on_request(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(losskernel.cli.failures, "WANTS_TRACEBACK", True)
    with pytest.raises(InputError, match=r"sampler\.step_size must be > 0"):
        call("sampler.step_size=-1", "logger=none", f"paths.outputs={tmp_path}")
    assert "Error executing job with overrides" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").touch()
    assert call(f"paths.outputs={tmp_path}/file/below", "logger=none") == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"losskernel: .*/file/below/.*: Not a directory; check the path \(paths.outputs.*\n", said)
    with pytest.raises(TraceError, match="Not a directory; free space or choose another folder"):
        run_from(config("logger=none"), tmp_path / "file" / "below", None)


@pytest.mark.parametrize("full_at", ["config.yaml", "trained.pt", "zarr", "metrics.json", "report.html"])
def test_a_full_disk_is_one_clear_error_and_the_run_can_be_continued(
    full_at: str, tmp_path: Path, monkeypatch: Any
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    written = Path.write_text

    def write_text(path: Path, *arguments: Any, **options: Any) -> int:
        full() if full_at in path.name else None
        return written(path, *arguments, **options)

    tiny = config("analysis=[complexity]", "logger=none", *TINY)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_text)
        if full_at == "trained.pt":
            patch.setattr("losskernel.training.checkpoint_files.atomic_save", full)
        if full_at == "report.html":
            patch.setattr("losskernel.figures.html.write_whole", full)
        if full_at == "zarr":
            patch.setattr(store.TraceStore, "write", lambda self, *_: store.guard(self.path, full))
        with pytest.raises(TraceError, match=r"cannot write .*No space left on device; free space or choose another"):
            run_from(tiny, tmp_path, None)
    assert not (tmp_path / "report.html").exists()
    if full_at != "report.html":
        assert not (tmp_path / "metrics.json").exists()
    if full_at == "zarr":
        with pytest.raises(TraceError, match="is unfinished"):
            lk.open_traces(tmp_path)
    run_from(tiny, tmp_path, None)
    assert json.loads((tmp_path / "metrics.json").read_text())["complexity/llc"] is not None
    assert not list(tmp_path.rglob("*.partial"))


def test_an_unexpected_error_keeps_its_traceback(monkeypatch: Any, tmp_path: Path) -> None:
    def bug(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("losskernel.cli.build.build", bug)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        call(f"paths.outputs={tmp_path}", "logger=none")


def test_ctrl_c_ends_a_command_with_its_own_exit_code(monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    def as_lightning_does(*_: Any) -> None:
        try:
            interrupt()
        except KeyboardInterrupt:
            sys.exit(1)

    for end in (interrupt, as_lightning_does):
        monkeypatch.setattr("losskernel.cli.build.build", end)
        assert call(f"paths.outputs={tmp_path}", "logger=none") == 130
        assert capsys.readouterr().err == "losskernel: interrupted\n"


def test_ctrl_c_ends_a_whole_sweep(monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    def stopped(*_: Any) -> None:
        raise lk.errors.Interrupted("stopped after 3 of 20 draws")

    monkeypatch.setattr("losskernel.cli.build.build", stopped)
    assert call("-m", "seed=1,2", f"paths.sweep={tmp_path}", "logger=none") == 130
    said = "stopped after 3 of 20 draws; the same command goes on from there"
    assert capsys.readouterr().err == f"losskernel: job 0 (seed=1) {said}\n"


@pytest.mark.parametrize("given", [True, False])
def test_a_job_of_a_sweep_is_continued_with_the_sweep(
    given: bool, monkeypatch: Any, tmp_path: Path, capsys: Any
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise lk.errors.Interrupted("stopped after 3 of 20 draws", signal.SIGTERM, "the same call goes on")

    monkeypatch.setattr("losskernel.runs.run.sample", stopped)
    sweep = tmp_path / "swept"
    target = f"paths.sweep={sweep}" if given else f"hydra.sweep.dir={sweep}"
    assert call("-m", "seed=1,2", target, "logger=none", *TINY) == 128 + signal.SIGTERM
    remedy = "the same command" if given else f"the same command with paths.sweep={sweep}"
    said = f"stopped after 3 of 20 draws; {remedy} goes on from there"
    assert capsys.readouterr().err == f"losskernel: job 0 (seed=1) {said}\n"
    assert json.loads((sweep / "0" / "failure.json").read_text())["error"] == said


def test_help_and_cfg_load_neither_torch_nor_lightning(tmp_path: Path) -> None:
    heavy = ("torch", "pytorch_lightning", "matplotlib", "sklearn", "umap", "nltk", "wandb", "xarray")
    code = f"""
        import sys, losskernel.cli
        for argument in (["--help"], ["--cfg", "job"]):
            sys.argv = ["losskernel", *argument]
            try:
                losskernel.cli.main()
            except SystemExit as end:
                assert not end.code
        print("loaded", [name for name in {heavy!r} if name in sys.modules])
    """
    done = run_python("-c", "\n".join(line[8:] for line in code.splitlines()), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded []"
    assert "losskernel is powered by Hydra" in done.stdout
    assert "experiment: attribution, attribution_toy, audit, cifar10n, digits" in done.stdout
    assert "step_size: 0.001" in done.stdout
    assert "_target_: losskernel.SGHMC" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_of_ones_own_from_config_dir(tmp_path: Path, capsys: Any) -> None:
    recipe = "# @package _global_\nname: mine\nsampler:\n  localization: 77.0\ndataset:\n  tasks: [add, max, min]\n"
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(recipe)
    assert call("--config-dir", str(tmp_path), "experiment=mine", "--cfg", "job", "--resolve") == 0
    said = capsys.readouterr().out
    assert "localization: 77.0" in said
    assert "name: mine" in said
    assert re.search(r"model:\n(  .*\n)*  tasks: 3\n", said)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("missing", "is not a folder; give the folder of a finished run"),
        ("empty", "holds no loss trace; give the folder of a run"),
        ("file", "is not a folder; give the folder of a finished run"),
    ],
)
def test_analysing_what_is_no_run_is_one_line(content: str, message: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert call(f"run={tmp_path / content}", command="analyse") == 1
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_building_from_python_reports_the_same(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sampler\.foo=1") as raised:
        build(config("+sampler.foo=1", "schedule.chains=0"))
    assert "schedule.chains must be >= 1, got 0" in str(raised.value)
