from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel.errors import InputError, TraceError
from losskernel.representations.baselines.collect import BASELINES, read_representations, represent, stored_settings
from losskernel.representations.baselines.features import Gradients
from losskernel.representations.evaluation import History
from losskernel.runs.run import Study, run
from losskernel.traces.loss_traces import LossTraces
from losskernel.training import retrain, save_weights

MODEL = nn.Linear(3, 1)


def _data(probes: int = 6) -> lk.Data:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(probes, 3, generator=generator)
    both = TensorDataset(inputs, inputs.sum(1, keepdim=True))
    return lk.Data(train=both, probes=both, loss=lk.losses.squared_error)


def _inputs(model: nn.Module, data: lk.Data) -> np.ndarray:
    return np.stack([np.asarray(data.probes[number][0]) for number in range(len(data.probes))])  # pyright: ignore


def test_rows_are_computed_once_and_read_again(tmp_path: Path) -> None:
    calls = []

    def counted(model: nn.Module, data: lk.Data) -> np.ndarray:
        calls.append(model)
        return _inputs(model, data)

    path, baselines = tmp_path / BASELINES, {"second": counted, "first": lambda *parts: 2 * _inputs(*parts)}
    result = represent(baselines, MODEL, _data(), path)
    again = represent(baselines, MODEL, _data(), path)
    assert len(calls) == 1
    assert list(result) == list(again) == list(read_representations(path)) == ["second", "first"]
    for name, rows in result.items():
        np.testing.assert_array_equal(rows, again[name])
    np.testing.assert_array_equal(result["first"], 2 * result["second"])


def test_no_baselines_leave_no_folder(tmp_path: Path) -> None:
    assert represent({}, MODEL, _data(), tmp_path / BASELINES) == {}
    assert not (tmp_path / BASELINES).exists()
    assert read_representations(tmp_path / BASELINES) == {}


def test_other_baselines_than_the_folders_are_refused(tmp_path: Path) -> None:
    represent({"inputs": _inputs}, MODEL, _data(), tmp_path / BASELINES)
    with pytest.raises(TraceError, match="holds the baselines inputs, but the run has logits; remove it"):
        represent({"logits": _inputs}, MODEL, _data(), tmp_path / BASELINES)


def _broken(model: nn.Module, data: lk.Data) -> np.ndarray:
    raise InputError("there is no linear layer; choose another")


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (
            lambda model, data: np.zeros((2, 3)),
            r"baselines.odd must give rows \[6, d\], one per probe, got shape \(2, 3\)",
        ),
        (lambda model, data: np.full((6, 3), np.nan), "baselines.odd gives numbers that are not finite"),
        (_broken, "baselines.odd: there is no linear layer; choose another"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, baseline, message: str) -> None:
    with pytest.raises(InputError, match=message):
        represent({"odd": baseline}, MODEL, _data(), tmp_path / BASELINES)
    assert not (tmp_path / BASELINES).exists()


def test_traces_carry_them_under_their_names() -> None:
    traces = LossTraces.from_arrays(np.random.default_rng(0).normal(size=(2, 5, 4)))
    rows = {"features": np.eye(4), "logits": np.ones((4, 2))}
    carried = traces.with_baselines(rows)
    assert traces.baselines == {}
    assert list(carried.baselines) == ["features", "logits"]
    np.testing.assert_array_equal(carried.baselines["features"], np.eye(4))


class Looking:
    """A baseline that looks back at training: which steps were kept, and how far retrained weights are."""

    needs_history: ClassVar[bool] = True

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model: nn.Module, data: lk.Data, history: History) -> dict[str, np.ndarray]:
        self.calls += 1
        steps = [step for step, _ in history.checkpoints()]
        again = history.retrain(data, 3)
        (history.folder / "dear").write_text("kept")
        return {"steps": np.tile(steps, (len(data.probes), 1)), "outputs": _outputs(again, data)}  # pyright: ignore


def _outputs(model: nn.Module, data: lk.Data) -> np.ndarray:
    with torch.no_grad():
        return model(torch.as_tensor(_inputs(model, data))).numpy()


def _history(folder: Path) -> History:
    def kept() -> Iterator[tuple[int, nn.Module]]:
        yield from [(0, MODEL), (4, MODEL)]

    def retrain(data: lk.Data, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Linear(3, 1)

    return History(retrain, kept, folder)


def test_a_baseline_that_looks_back_needs_a_history(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"baselines.past needs the run that trained the network; use run\(\)"):
        represent({"past": Looking()}, MODEL, _data(), tmp_path / BASELINES)
    assert not (tmp_path / BASELINES).exists()


def test_a_baseline_with_other_settings_is_refused(tmp_path: Path) -> None:
    path, model = tmp_path / BASELINES, nn.Linear(3, 1)
    rows = represent({"gradients": Gradients(size=4)}, model, _data(), path)["gradients"]
    again = represent({"gradients": Gradients(size=4)}, model, _data(), path)["gradients"]
    np.testing.assert_array_equal(again, rows)
    said = r"gradients was Gradients\(size=4, seed=0\), but the run has Gradients\(size=4, seed=1\); remove it"
    with pytest.raises(TraceError, match=said):
        represent({"gradients": Gradients(size=4, seed=1)}, model, _data(), path)


def test_a_mapping_gives_several_under_joint_names(tmp_path: Path) -> None:
    path, past = tmp_path / BASELINES, Looking()
    baselines: dict[str, Any] = {"past": past, "inputs": _inputs}
    result = represent(baselines, MODEL, _data(), path, _history(tmp_path))
    assert list(result) == ["past_steps", "past_outputs", "inputs"]
    np.testing.assert_array_equal(result["past_steps"], np.tile([0, 4], (6, 1)))
    torch.manual_seed(3)
    np.testing.assert_array_equal(result["past_outputs"], _outputs(nn.Linear(3, 1), _data()))
    assert (tmp_path / "dear").is_file()
    # what was asked for is one name each, whatever it gave, and is what a run that goes on compares
    assert list(stored_settings(path)) == ["past", "inputs"]
    again = represent(baselines, MODEL, _data(), path, _history(tmp_path))
    assert past.calls == 1
    assert list(again) == list(read_representations(path)) == list(result)
    for name, rows in result.items():
        np.testing.assert_array_equal(again[name], rows)
    with pytest.raises(TraceError, match="holds the baselines past, inputs, but the run has inputs, past; remove it"):
        represent({"inputs": _inputs, "past": past}, MODEL, _data(), path, _history(tmp_path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((2, 3)), r"baselines.odd_part must give rows \[6, d\], one per probe, got shape \(2, 3\)"),
        (np.full((6, 1), np.inf), "baselines.odd_part gives numbers that are not finite"),
    ],
)
def test_bad_rows_of_a_mapping_are_named(tmp_path: Path, rows: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        represent({"odd": lambda model, data: {"part": rows}}, MODEL, _data(), tmp_path / BASELINES)


def test_a_mapping_without_rows_leaves_no_folder(tmp_path: Path) -> None:
    assert represent({"none": lambda model, data: {}}, MODEL, _data(), tmp_path / BASELINES) == {}
    assert not (tmp_path / BASELINES).exists()


def test_a_run_gives_its_past(tmp_path: Path) -> None:
    past, seen = Looking(), []

    def analysis(kernel: lk.LossKernel, traces: LossTraces) -> lk.analyses.Result:
        seen.append(traces.baselines)
        return lk.analyses.Result()

    training = lk.Training(steps=6, batch_size=3, checkpoints=2)
    run(_study({"asked": analysis}, {"past": past}, training), tmp_path)
    np.testing.assert_array_equal(seen[0]["past_steps"][0], [0, 1, 6])
    expected = retrain(MODEL, training, _data(), 3)
    np.testing.assert_array_equal(seen[0]["past_outputs"], _outputs(expected, _data()))
    # a finished run that is asked again reads what it has
    run(_study({"asked": analysis}, {"past": past}, training), tmp_path)
    assert past.calls == 1
    np.testing.assert_array_equal(seen[1]["past_steps"], seen[0]["past_steps"])


def test_a_loaded_network_has_no_past(tmp_path: Path) -> None:
    save_weights(MODEL, tmp_path / "weights.pt", {})
    steps = []

    class Steps(Looking):
        def __call__(self, model: nn.Module, data: lk.Data, history: History) -> dict[str, np.ndarray]:
            steps.extend(history.checkpoints())
            return {}

    run(_study({}, {"past": Steps()}, lk.Training(), str(tmp_path / "weights.pt")), tmp_path / "run")
    assert steps == []


def _study(
    analyses: dict[str, Any], baselines: dict[str, Any], training: lk.Training, checkpoint: str | None = None
) -> Study:
    def sampler(weights: list[torch.Tensor], **options: object) -> lk.SGLD:
        return lk.SGLD(weights, step_size=1e-3, nbeta=1.0, localization=10.0, **options)

    return Study(
        model=MODEL,
        data=_data(),
        sampler=sampler,
        schedule=lk.Schedule(chains=2, burn_in=0, draws=4, thinning=1, batch_size=2),
        training=training,
        analyses=analyses,
        baselines=baselines,
        checkpoint=checkpoint,
        progress=False,
    )


def test_a_run_gives_them_to_its_analyses(tmp_path: Path) -> None:
    seen = []

    def analysis(kernel: lk.LossKernel, traces: LossTraces) -> lk.analyses.Result:
        seen.append(traces.baselines)
        return lk.analyses.Result(metrics={"units": float(traces.baselines["inputs"].shape[1])})

    study = _study({"asked": analysis}, {"inputs": _inputs}, lk.Training(steps=0))
    assert run(study, tmp_path).metrics["asked/units"] == 3
    np.testing.assert_array_equal(seen[0]["inputs"], _inputs(MODEL, _data()))
    assert (tmp_path / BASELINES).is_dir()
