"""One chain at a time of a convolutional network: precision, blocks and memory of its probes."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel.errors import InputError
from losskernel.losses import cross_entropy, squared_error
from losskernel.models import MLP, SmallCNN
from losskernel.sampling.chains import Chains
from losskernel.sampling.setup import setup_of
from losskernel.traces.records import PRECISION_CHECKS

SGLD = functools.partial(lk.SGLD, step_size=1e-4, nbeta=100.0, localization=100.0)
LENGTHS: dict[str, Any] = {"chains": 2, "burn_in": 4, "draws": 12, "thinning": 2, "batch_size": 16}


def images(loss: Any = cross_entropy, probes: int = 30) -> lk.Data:
    rng = torch.Generator().manual_seed(0)
    inputs, targets = torch.rand(64, 1, 8, 8, generator=rng), torch.randint(10, (64,), generator=rng)
    return lk.Data(TensorDataset(inputs, targets), TensorDataset(inputs[:probes], targets[:probes]), loss)


def network() -> nn.Module:
    torch.manual_seed(0)
    return SmallCNN(widths=(4, 6)).eval()


def sampled(model: nn.Module, data: lk.Data, out: Path | None = None, **changed: Any) -> lk.LossTraces:
    return lk.sample(model, data, SGLD, lk.Schedule(**(LENGTHS | changed)), out=out, progress=False)


# --- precision


@pytest.mark.parametrize(("model", "data"), [(network(), images()), (MLP(64, 10, (8,)), None)], ids=["cnn", "mlp"])
def test_lower_precision_is_compared_with_full_at_every_chains_end(model: nn.Module, data: lk.Data | None) -> None:
    if data is None:
        flat = [
            TensorDataset(item.tensors[0].flatten(1), item.tensors[1]) for item in (images().train, images().probes)
        ]
        data = lk.Data(*flat, cross_entropy)
    full, low = sampled(model, data), sampled(model, data, probe_precision="bfloat16")
    np.testing.assert_allclose(low.losses, full.losses, rtol=0.1)
    assert not low.losses.equals(full.losses)
    for name in ("train_loss", "distance", "gradient_norm"):  # the chains themselves are the same
        np.testing.assert_array_equal(low.record(name), full.record(name))
    result = low.record("precision_noise")
    assert result is not None
    assert result.shape == (2, PRECISION_CHECKS, 30)
    assert (result != 0).any(axis=(1, 2)).all()
    apart = low.losses.values - full.losses.values
    assert 0.3 < np.square(result).mean() / np.square(apart).mean() < 3  # as large as where the draws were
    assert "precision_noise" not in full.dataset
    assert "precision_error" not in lk.diagnose(full).metrics


class Cancelling(nn.Module):
    """A small difference of large numbers."""

    def __init__(self, large: float) -> None:
        super().__init__()
        self.convolution, self.large = nn.Conv2d(1, 1, 8), large

    def forward(self, inputs: Tensor) -> Tensor:
        return self.convolution(inputs + self.large).flatten(1) - self.large * self.convolution.weight.sum()


def test_a_network_that_cannot_bear_rounding_is_told_so_and_another_is_not() -> None:
    verdicts = {}
    for large in (0.0, 1e3):
        torch.manual_seed(0)
        data = images(lambda outputs, targets: squared_error(outputs, targets.float() / 10))
        traces = sampled(Cancelling(large), data, probe_precision="bfloat16", draws=60)
        diagnosis = lk.diagnose(traces)
        verdicts[large] = diagnosis
    error = "precision_error"
    assert verdicts[0.0].metrics[error] < 0.02
    assert verdicts[1e3].metrics[error] > 0.1
    messages = [reason for reason in verdicts[1e3].reasons if "lower precision" in reason]
    assert messages
    assert messages[0].endswith("set schedule.probe_precision=float32")
    assert not any("lower precision" in reason for reason in verdicts[0.0].reasons)


def test_lower_precision_is_for_float32_models() -> None:
    model, data = network().double(), images()
    with pytest.raises(InputError, match=r"schedule.probe_precision=bfloat16 needs a float32 model, got .*float64"):
        sampled(model, data, probe_precision="bfloat16")


# --- blocks


def test_the_number_of_probes_at_once_is_decided_and_kept(tmp_path: Path) -> None:
    traces = sampled(network(), images(), tmp_path / "traces.zarr")
    assert traces.meta["probe_batch_size"] == 1024
    assert traces.meta["identity"]["schedule"]["probe_batch_size"] is None
    given = sampled(network(), images(), probe_batch_size=7)
    assert given.meta["probe_batch_size"] == 7
    np.testing.assert_allclose(given.losses, traces.losses, rtol=1e-5)
    large = TensorDataset(torch.rand(3, 1, 64, 64), torch.zeros(3, dtype=torch.int64))
    lengths = {"chains": 1, "draws": 2, "burn_in": 0, "thinning": 1, "batch_size": 1}
    many = sampled(SmallCNN(widths=(32, 2)), lk.Data(large, large, cross_entropy), **lengths)
    assert many.meta["probe_batch_size"] == 32  # 32 x 64 x 64 float32 numbers a probe, 16 MiB


class Hungry(SmallCNN):
    """Has no memory for more than a few samples."""

    limit = 5

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(inputs)


def prepared(model: nn.Module, data: lk.Data, **changed: Any) -> Chains:
    """One chain, ready for its first step."""
    schedule = lk.Schedule(**(LENGTHS | {"chains": 1} | changed))
    chains = Chains(setup_of(model, data, SGLD, schedule), [0])
    chains.configure_optimizers()
    chains.on_fit_start()
    return chains


def test_blocks_are_halved_until_they_fit_into_memory() -> None:
    torch.manual_seed(0)
    hungry = Hungry(widths=(4, 6)).eval()
    chains = prepared(hungry, images(), probe_batch_size=16)
    result = chains.probe_losses(None)
    assert chains.block == 4
    assert chains.state()["block"] == 4  # an interrupted run goes on in blocks of the same size
    torch.testing.assert_close(result, prepared(network(), images()).probe_losses(None))


def test_where_not_even_one_probe_fits_the_lack_of_memory_is_not_hidden() -> None:
    hungry = Hungry(widths=(4, 6)).eval()
    hungry.limit = 0
    with pytest.raises(torch.OutOfMemoryError):
        prepared(hungry, images()).probe_losses(None)


# --- one recording for all chains


def test_chains_of_one_model_share_what_was_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    from losskernel.sampling.engine import probe_losses as evaluation

    recorded: list[int] = []
    record = evaluation.record

    def counted(*given: Any) -> Any:
        recorded.append(1)
        return record(*given)

    monkeypatch.setattr(evaluation, "record", counted)
    sampled(network(), images(), chains=3)
    assert len(recorded) == 2  # of a few samples beforehand, and of a block of probes, for all chains


# --- continuing


class Break(pl.Callback):
    """Ends the process, as it were, after some batches in all."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_train_batch_end(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise ConnectionError("gone")


@pytest.mark.parametrize("batches", [14, 22])
def test_an_interrupted_convolutional_run_continues_to_the_same_bits(batches: int, tmp_path: Path) -> None:
    schedule = lk.Schedule(**(LENGTHS | {"draws": 11, "probe_precision": "bfloat16"}))
    out, data = tmp_path / "traces.zarr", images()

    def run(path: Path | None, callbacks: list[pl.Callback]) -> lk.LossTraces:
        return lk.sample(
            network(), data, SGLD, schedule, out=path, callbacks=callbacks, state_every=0.0, progress=False
        )

    with pytest.raises(ConnectionError, match="gone"):
        run(out, [Break(batches)])
    resumed, whole = run(out, []), run(None, [])
    for name in whole.dataset.data_vars:
        assert resumed.dataset[name].equals(whole.dataset[name]), name
