"""Calibrated settings follow from closed forms on quadratics, and pass the diagnosis on a real network."""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command import call, config, losskernel_command
from torch import nn
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel.cli.config import apply_calibration
from losskernel.data import arithmetic, digits
from losskernel.errors import DivergenceError, InputError
from losskernel.losses import squared_error
from losskernel.models import MultitaskMLP, SmallCNN
from losskernel.sampling.calibration import INFLATION, MOST_SPEEDUP, RELAXATION, calibrate
from losskernel.sampling.engine.stacked_model import StackedModel
from losskernel.sampling.step_checks import largest_curvature, power_iteration

SGLD = functools.partial(lk.SGLD, step_size=1.0, nbeta=50.0, localization=1.0)


def _regression(noise: float = 0.0) -> tuple[nn.Module, lk.Data, np.ndarray]:
    """A linear model at its optimum, data, and the Hessian of its mean squared error."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(512, 6)) * [3.0, 2.0, 1.0, 0.5, 0.3, 0.1]
    targets = inputs @ rng.normal(size=6) + noise * rng.normal(size=512)
    weights = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    model = nn.Linear(6, 1, bias=False).double()
    model.weight.data = torch.as_tensor(weights)[None]
    train = TensorDataset(torch.as_tensor(inputs), torch.as_tensor(targets)[:, None])
    probes = TensorDataset(*(tensor[:40] for tensor in train.tensors))
    return model, lk.Data(train, probes, squared_error), inputs.T @ inputs / 512


def test_power_iteration_finds_the_largest_eigenvalue_of_each_matrix() -> None:
    rng = torch.Generator().manual_seed(0)
    root = torch.randn(3, 20, 20, generator=rng, dtype=torch.float64)
    matrices = root @ root.transpose(1, 2)
    start = torch.randn(3, 20, generator=rng, dtype=torch.float64)
    directions, values = power_iteration(lambda v: torch.einsum("cij,cj->ci", matrices, v), start, 300)
    exact, vectors = torch.linalg.eigh(matrices)
    torch.testing.assert_close(values, exact[:, -1], rtol=1e-6, atol=0)
    overlap = (directions * vectors[:, :, -1]).sum(1).abs()
    torch.testing.assert_close(overlap, torch.ones(3, dtype=torch.float64), rtol=1e-4, atol=0)


def test_the_curvature_of_a_regression_is_the_largest_eigenvalue_of_its_hessian() -> None:
    model, data, hessian = _regression()
    before = model.weight.detach().clone()
    assert largest_curvature(model, data, ["weight"]) == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-6)
    assert torch.equal(model.weight, before)


def test_calibrated_steps_inflate_as_asked_and_flat_directions_forget_in_time() -> None:
    model, data, hessian = _regression()
    result = calibrate(model, data, SGLD, lk.Schedule(draws=200), progress=False)
    step_size, localization = result.sampler["step_size"], result.sampler["localization"]
    steepest = 50 * np.linalg.eigvalsh(hessian)[-1] + localization
    # Residuals are 0, so that minibatch noise is no part of it at w*, and little of it around.
    assert 1 / (1 - step_size * steepest / 4) == pytest.approx(INFLATION, abs=0.05)
    assert 2 / (step_size * localization) == pytest.approx(RELAXATION, rel=0.1)
    assert result.sampler["nbeta"] == 50.0
    assert result.schedule["burn_in"] >= 5 * RELAXATION
    assert result.schedule["draws"] >= 200
    assert len(result.explanation) == 5
    assert "too short" not in result.explanation[-1]
    assert f"λ_max {np.linalg.eigvalsh(hessian)[-1]:.3g} at w*" in result.explanation[0]


def test_minibatch_noise_makes_calibrated_steps_smaller() -> None:
    steps = []
    for noise in (0.0, 20.0):
        model, data, _ = _regression(noise)
        result = calibrate(model, data, SGLD, lk.Schedule(batch_size=4), progress=False)
        steps.append(result.sampler["step_size"])
    assert steps[1] < 0.7 * steps[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_calibrated_passes_the_diagnosis(seed: int) -> None:
    data = arithmetic(seed=seed, probes_per_task=50)
    torch.manual_seed(seed)
    adam = functools.partial(torch.optim.Adam, lr=1e-2)
    model = lk.fit(MultitaskMLP(2), data, lk.Training(steps=1500, optimizer=adam), seed=seed, progress=False)
    far_off = functools.partial(lk.SGLD, step_size=1.0, nbeta=100.0, localization=1e-3)
    result = calibrate(model, data, far_off, lk.Schedule(chains=8, draws=300), seed=seed, progress=False)
    sampler = functools.partial(lk.SGLD, **result.sampler)
    diagnosis = lk.diagnose(lk.sample(model, data, sampler, lk.Schedule(**result.schedule), seed=seed, progress=False))
    assert diagnosis.verdict == "pass", diagnosis.reasons
    assert diagnosis.metrics["step_inflation"] == pytest.approx(INFLATION, abs=0.15)


def test_a_preconditioned_sampler_is_calibrated_in_its_own_coordinates() -> None:
    model, data, _ = _regression()
    build = functools.partial(lk.RMSpropSGLD, step_size=1.0, nbeta=50.0, localization=1.0)
    result = calibrate(model, data, build, lk.Schedule(draws=200), progress=False)
    last = result.pilots[-1]
    assert 1.0 < last["step_inflation"] < 1.5
    assert last["relaxation_steps"] < 3 * RELAXATION


def test_few_gradients_find_the_same_steps_and_flat_directions_that_forget_sooner() -> None:
    model, data, hessian = _regression()
    result = calibrate(model, data, SGLD, lk.Schedule(draws=200, batch_size=32), gradients=600, progress=False)
    step_size, localization = result.sampler["step_size"], result.sampler["localization"]
    steepest = 50 * np.linalg.eigvalsh(hessian)[-1] + localization
    assert 1 / (1 - step_size * steepest / 4) == pytest.approx(INFLATION, abs=0.06)
    assert 2 / (step_size * localization) == pytest.approx(RELAXATION / MOST_SPEEDUP, rel=0.1)
    assert result.schedule["burn_in"] == pytest.approx(10 * RELAXATION / MOST_SPEEDUP, rel=0.1)


def test_a_network_of_dear_gradients_is_calibrated_with_few(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = 0
    real = StackedModel.gradient

    def counted(stack: StackedModel, weights: Any, inputs: Any, targets: Any, **options: Any) -> Any:
        nonlocal spent
        spent += stack.chains * inputs.shape[1] / 64
        return real(stack, weights, inputs, targets, **options)

    monkeypatch.setattr(StackedModel, "gradient", counted)
    monkeypatch.setattr("losskernel.sampling.calibration.LARGE", 10_000)
    data = digits(100)
    torch.manual_seed(0)
    adam = functools.partial(torch.optim.Adam, lr=3e-3)
    model = lk.fit(SmallCNN(1, 10, (16, 64)), data, lk.Training(steps=200, optimizer=adam), progress=False)
    result = calibrate(model, data, SGLD, lk.Schedule(batch_size=64), progress=False)
    assert 100 < spent <= 600
    assert "too short to tell how many draws single entries of the kernel take" in result.explanation[-1]
    assert result.pilots[-1]["step_inflation"] < 1.4
    assert "the run takes" in result.explanation[-1]
    tried = []

    def diverging(*_: Any, **__: Any) -> None:
        tried.append(True)
        raise DivergenceError("chain 0 left the finite numbers")

    monkeypatch.setattr("losskernel.sampling.calibration.sample", diverging)
    with pytest.raises(DivergenceError, match="no pilot of 3 stayed finite"):
        calibrate(model, data, SGLD, lk.Schedule(batch_size=64), progress=False)
    assert len(tried) == 3
    with pytest.raises(InputError, match="gradients must be >= 300, got 10"):
        calibrate(model, data, SGLD, lk.Schedule(), gradients=10, progress=False)


def test_calibration_refuses_what_cannot_be_calibrated() -> None:
    model, data, _ = _regression()
    with pytest.raises(InputError, match=r"sampler.nbeta must be > 0 to calibrate, got 0"):
        calibrate(model, data, functools.partial(SGLD, nbeta=0.0), lk.Schedule(), progress=False)
    with pytest.raises(InputError, match="rounds must be >= 1, got 0"):
        calibrate(model, data, SGLD, lk.Schedule(), rounds=0, progress=False)


def test_pilots_that_diverge_are_followed_by_smaller_steps(monkeypatch: Any) -> None:
    import losskernel.sampling.calibration

    real, tried = losskernel.sampling.calibration.sample, []

    def diverging(*arguments: Any, **options: Any) -> Any:
        tried.append(arguments[2].keywords["step_size"])
        if len(tried) < 3:
            raise DivergenceError("chain 0 left the finite numbers")
        return real(*arguments, **options)

    model, data, _ = _regression()
    monkeypatch.setattr("losskernel.sampling.calibration.sample", diverging)
    result = calibrate(model, data, SGLD, lk.Schedule(), progress=False)
    assert tried[0] > 3 * tried[1] > 9 * tried[2]
    assert [pilot["faults"] for pilot in result.pilots[:2]] == [["chain 0 left the finite numbers"]] * 2
    monkeypatch.setattr("losskernel.sampling.calibration.sample", lambda *_, **__: diverging(*[None] * 2, SGLD))
    tried.clear()
    with pytest.raises(DivergenceError, match=r"no pilot of 2 stayed finite; lower sampler\.nbeta"):
        calibrate(model, data, SGLD, lk.Schedule(), rounds=2, progress=False)


# --- the command line


def test_a_calibration_is_written_used_and_refused_elsewhere(tmp_path: Path) -> None:
    quick = ["experiment=multitask", "dataset.probes_per_task=20", "training.steps=300", "progress=false"]
    done = losskernel_command(*quick, cwd=tmp_path, command="calibrate")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0].rstrip(":") for line in lines] == [
        "curvature", "step_size", "localization", "burn_in", "pilot", "written",
    ]  # fmt: skip
    assert "use it with sampler=calibrated" in lines[-1]
    choice = tmp_path / "conf" / "sampler" / "calibrated.yaml"
    result = yaml.safe_load(choice.read_text())["calibrated"]["values"]
    # Found in the current folder's conf/, and stronger than the recipe's values, but not than the command line.
    tail = ["sampler=calibrated", "schedule.draws=25", "schedule.chains=2", "analysis=[separation]", "logger=none"]
    used = losskernel_command(*quick, *tail, "paths.run=run", cwd=tmp_path)
    assert used.returncode == 0, used.stderr
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["sampler"]["step_size"] == result["sampler.step_size"] != 5e-4
    assert stored["schedule"]["thinning"] == result["schedule.thinning"]
    assert (stored["schedule"]["draws"], stored["schedule"]["chains"]) == (25, 2)
    assert lk.open_traces(tmp_path / "run").meta["identity"]["sampler"]["step_size"] == result["sampler.step_size"]
    wrong = losskernel_command(*quick, *tail, "model.width=16", "paths.run=other", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "made for another network: model.width: stored 32, asked 16; run losskernel-calibrate again" in wrong.stderr


def test_a_place_that_no_sampler_is_read_from_is_refused(capsys: Any, tmp_path: Path) -> None:
    assert call("into=calibrated.yaml", f"paths.run={tmp_path}", command="calibrate") == 1
    assert "into=calibrated.yaml must be .../sampler/<name>.yaml" in capsys.readouterr().err


def test_without_a_calibration_nothing_changes() -> None:
    plain = config("paths.run=run", "paths.sweep=sweep")  # not the time, which is another for a copy
    before = plain.copy()
    apply_calibration(plain, [])
    assert plain == before
    assert math.isfinite(plain.sampler.step_size)
