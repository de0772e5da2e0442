from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel.errors import InputError, TraceError
from losskernel.representations import BASELINES, read_representations, represent
from losskernel.run import Study, run
from losskernel.traces import LossTraces

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
    found = represent(baselines, MODEL, _data(), path)
    again = represent(baselines, MODEL, _data(), path)
    assert len(calls) == 1
    assert list(found) == list(again) == list(read_representations(path)) == ["second", "first"]
    for name, rows in found.items():
        np.testing.assert_array_equal(rows, again[name])
    np.testing.assert_array_equal(found["first"], 2 * found["second"])


def test_no_baselines_leave_no_folder(tmp_path: Path) -> None:
    assert represent({}, MODEL, _data(), tmp_path / BASELINES) == {}
    assert not (tmp_path / BASELINES).exists()
    assert read_representations(tmp_path / BASELINES) == {}


def test_other_baselines_than_the_folders_are_refused(tmp_path: Path) -> None:
    represent({"inputs": _inputs}, MODEL, _data(), tmp_path / BASELINES)
    with pytest.raises(TraceError, match="holds the baselines inputs, but logits are asked for; remove it"):
        represent({"logits": _inputs}, MODEL, _data(), tmp_path / BASELINES)


def _broken(model: nn.Module, data: lk.Data) -> np.ndarray:
    raise InputError("there is no linear layer; choose another")


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (
            lambda model, data: np.zeros((2, 3)),
            r"baselines.odd must give rows \[6, d\], one a probe, got shape \(2, 3\)",
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


def test_a_run_gives_them_to_its_analyses(tmp_path: Path) -> None:
    seen = []

    def analysis(kernel: lk.LossKernel, traces: LossTraces) -> lk.analyses.Result:
        seen.append(traces.baselines)
        return lk.analyses.Result(metrics={"units": float(traces.baselines["inputs"].shape[1])})

    def sampler(weights: list[torch.Tensor], **options: object) -> lk.SGLD:
        return lk.SGLD(weights, step_size=1e-3, nbeta=1.0, localization=10.0, **options)

    study = Study(
        model=MODEL,
        data=_data(),
        sampler=sampler,
        schedule=lk.Schedule(chains=2, burn_in=0, draws=4, thinning=1, batch_size=2),
        training=lk.Training(steps=0),
        analyses={"asked": analysis},
        baselines={"inputs": _inputs},
        progress=False,
    )
    assert run(study, tmp_path).metrics["asked/units"] == 3
    np.testing.assert_array_equal(seen[0]["inputs"], _inputs(MODEL, _data()))
    assert (tmp_path / BASELINES).is_dir()
