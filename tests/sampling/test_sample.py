"""sample(): closed forms end to end, chains that do not know of each other, and refusals before compute."""

import functools
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from pytorch_lightning.callbacks import StochasticWeightAveraging
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import losskernel as lk
from losskernel.data import arithmetic, digits
from losskernel.errors import DivergenceError, InputError, TraceError
from losskernel.kernel.error_bars import bootstrap
from losskernel.models import MLP, MultitaskMLP, SmallCNN
from losskernel.sampling.setup import setup_of
from losskernel.training import Training

SGLD = functools.partial(lk.SGLD, step_size=1e-3, nbeta=100.0, localization=100.0)
SHORT = lk.Schedule(chains=3, burn_in=7, draws=6, thinning=2, batch_size=32)


def regression(samples: int = 100, inputs: int = 3, probes: int = 40) -> tuple[nn.Module, lk.Data, np.ndarray]:
    """Linear regression in float64 at its optimum, full-batch: data, model, and X."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, inputs))
    y = x @ np.arange(1.0, inputs + 1) + rng.normal(size=samples)
    model = nn.Linear(inputs, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(np.linalg.lstsq(x, y, rcond=None)[0])[None])
    train = TensorDataset(torch.as_tensor(x), torch.as_tensor(y))
    probed = TensorDataset(torch.as_tensor(x[:probes]), torch.as_tensor(y[:probes]))
    return model, lk.Data(train=train, probes=probed, loss=lk.losses.squared_error), x


def exact_kernel(
    model: nn.Module, data: lk.Data, x: np.ndarray, nbeta: float, localization: float, step: float
) -> np.ndarray:
    """K_ij = r_i r_j s_ij + s_ij² / 2 with s = X Σ X' and Σ the stationary covariance of full-batch SGLD."""
    curvature = nbeta * x.T @ x / len(x) + localization * np.eye(x.shape[1])
    values, vectors = np.linalg.eigh(curvature)
    sigma = vectors @ np.diag(1 / (values * (1 - step * values / 4))) @ vectors.T
    inputs, targets = data.probes.tensors  # pyright: ignore[reportAttributeAccessIssue]
    residual = (model(inputs)[:, 0] - targets).detach().numpy()
    s = inputs.numpy() @ sigma @ inputs.numpy().T
    return np.outer(residual, residual) * s + s**2 / 2


def relative(result: np.ndarray, exact: np.ndarray) -> float:
    """Relative Frobenius error."""
    return float(np.linalg.norm(result - exact) / np.linalg.norm(exact))


class Biased(lk.SGLD):
    """SGLD with a chosen fault in its update."""

    sign, half, noise_factor = 1.0, 0.5, 1.0

    def update(self, weight: Tensor, gradient: Tensor, state: dict[str, Any]) -> None:
        """The update with the fault."""
        pull = self.nbeta * gradient * self.sign + self.localization * (weight - state["start"])
        weight.sub_(self.step_size * self.half * pull).add_(
            self.noise(weight), alpha=self.noise_factor * self.step_size**0.5
        )


class WrongSign(Biased):
    """Climbs the loss."""

    sign = -1.0


class NoHalf(Biased):
    """Forgets the 1/2 of the drift."""

    half = 1.0


# localization > nbeta · curvature, so that even the wrong sign has a stationary law to be wrong with
NBETA, GAMMA, STEP = 50.0, 90.0, 0.01


@pytest.fixture(scope="module")
def oracle() -> tuple[nn.Module, lk.Data, np.ndarray]:
    return regression()


def sampled(oracle: tuple[nn.Module, lk.Data, np.ndarray], sampler: Any) -> np.ndarray:
    model, data, x = oracle
    schedule = lk.Schedule(chains=64, burn_in=40, draws=1000, thinning=2, batch_size=len(x))
    factory = functools.partial(sampler, step_size=STEP, nbeta=NBETA, localization=GAMMA)
    traces = lk.sample(model, data, factory, schedule, seed=3, progress=False)
    return lk.LossKernel.from_traces(traces).covariance()


def test_linear_regression_oracle_end_to_end(oracle: tuple[nn.Module, lk.Data, np.ndarray]) -> None:
    model, data, x = oracle
    result = sampled(oracle, lk.SGLD)
    assert relative(result, exact_kernel(model, data, x, NBETA, GAMMA, STEP)) < 0.05


def test_naive_variance_fails_the_oracle(oracle: tuple[nn.Module, lk.Data, np.ndarray]) -> None:
    model, data, x = oracle
    assert relative(sampled(oracle, lk.SGLD), exact_kernel(model, data, x, NBETA, GAMMA, 0.0)) > 0.2


@pytest.mark.parametrize("sampler", [WrongSign, NoHalf])
def test_faulty_updates_fail_the_oracle(oracle: tuple[nn.Module, lk.Data, np.ndarray], sampler: Any) -> None:
    model, data, x = oracle
    assert relative(sampled(oracle, sampler), exact_kernel(model, data, x, NBETA, GAMMA, STEP)) > 0.2


def test_the_fault_free_copy_of_the_update_passes_the_oracle(oracle: tuple[nn.Module, lk.Data, np.ndarray]) -> None:
    model, data, x = oracle
    assert relative(sampled(oracle, Biased), exact_kernel(model, data, x, NBETA, GAMMA, STEP)) < 0.05


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_disjoint_towers_have_no_cross_task_kernel(seed: int) -> None:
    data = arithmetic(seed=seed, probes_per_task=60)
    torch.manual_seed(seed)
    adam = functools.partial(torch.optim.Adam, lr=1e-2)
    model = lk.fit(MultitaskMLP(2, towers=True), data, Training(steps=600, optimizer=adam), seed=seed, progress=False)
    schedule = lk.Schedule(chains=16, burn_in=500, draws=200, thinning=5)
    factory = functools.partial(lk.SGLD, step_size=5e-4, nbeta=100.0, localization=100.0)
    kernel = lk.LossKernel.from_traces(lk.sample(model, data, factory, schedule, seed=seed, progress=False))
    across = kernel.label("task")[:, None] != kernel.label("task")

    numbers = bootstrap(kernel, lambda part: {"coupling": float(part.coupling()[across].mean())})
    assert abs(numbers["coupling"]) < 3 * numbers["coupling_se"]
    floors = [np.abs(kernel.null_correlation(shift=shift))[across].mean() for shift in range(1, 8)]
    assert abs(np.abs(kernel.correlation())[across].mean() - np.mean(floors)) < 4 * np.std(floors, ddof=1)


MODELS = [(MultitaskMLP(2), arithmetic(probes_per_task=20)), (MLP(64, 10), digits(50)), (SmallCNN(), digits(50))]


def agree(first: np.ndarray, second: np.ndarray, model: nn.Module) -> None:
    """To the last bit, but for convolutions: alone they take another route than stacked, with other rounding."""
    if isinstance(model, SmallCNN):
        np.testing.assert_allclose(first, second, rtol=2e-3, atol=1e-6)
    else:
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("model", "data"), MODELS, ids=["multitask", "mlp", "cnn"])
def test_a_chain_is_the_same_alone_and_among_eight(model: nn.Module, data: lk.Data) -> None:
    lengths = {"burn_in": 7, "draws": 5, "thinning": 2, "batch_size": 32}
    alone = lk.sample(model, data, SGLD, lk.Schedule(chains=1, **lengths), progress=False).losses.values
    among = lk.sample(
        model, data, SGLD, lk.Schedule(chains=8, **lengths), chains_per_fit=8, progress=False
    ).losses.values
    agree(alone[0], among[0], model)
    assert np.abs(among[0] - among[1]).max() > 1e-3 * np.abs(among).max()


@pytest.mark.parametrize(("model", "data"), MODELS, ids=["multitask", "mlp", "cnn"])
@pytest.mark.parametrize("together", [1, 2])
def test_stacked_equals_looped(model: nn.Module, data: lk.Data, together: int) -> None:
    looped = lk.sample(model, data, SGLD, SHORT, chains_per_fit=together, progress=False)
    stacked = lk.sample(model, data, SGLD, SHORT, chains_per_fit=3, progress=False)
    for name in ("losses", "train_loss", "distance", "burn_in_loss"):
        agree(looped.dataset[name].values, stacked.dataset[name].values, model)


def test_seeds_differ_and_repeat() -> None:
    model, data = MODELS[0]
    first, again, other = (lk.sample(model, data, SGLD, SHORT, seed=seed, progress=False).losses for seed in (0, 0, 1))
    assert first.equals(again)
    assert not np.allclose(first, other)


def test_start_losses_and_records_are_what_they_say() -> None:
    model, data = MODELS[1]
    still = functools.partial(lk.SGLD, step_size=1e-12, nbeta=100.0, localization=100.0)
    traces = lk.sample(model, data, still, SHORT, progress=False)
    np.testing.assert_allclose(
        traces.losses.values, np.broadcast_to(traces.record("start_losses"), traces.losses.shape), rtol=1e-3
    )
    np.testing.assert_allclose(traces.record("train_loss").mean(), traces.meta["start_train_loss"]["value"], rtol=0.2)
    assert traces.record("burn_in_loss").shape == (3, 4)
    assert traces.dataset["thumbnails"].shape == (50, 8, 8, 1)
    assert list(traces.labels) == ["class"]
    assert traces.meta["steps_per_chain"] == 7 + 6 * 2


def test_only_chosen_weights_move_and_the_model_stays() -> None:
    model, data = MODELS[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    frozen = functools.partial(lk.SGLD, step_size=1e-3, nbeta=0.0, localization=100.0, parameters=["head.*"])
    traces = lk.sample(model, data, frozen, SHORT, progress=False)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert traces.meta["parameters"]["moving"] == 33
    # nbeta = 0: 33 coordinates that only noise moves, |w - w*|² a third of the way to 33 / localization
    assert traces.record("distance").max() < 3 * np.sqrt(33 / 100)


def test_data_on_disk_equals_data_in_memory() -> None:
    class OnDisk(Dataset[Any]):
        def __init__(self, held: TensorDataset) -> None:
            self.held = held

        def __len__(self) -> int:
            return len(self.held)

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return self.held[index]

    model, data = MODELS[1]
    disk = lk.Data(train=OnDisk(data.train), probes=OnDisk(data.probes), loss=data.loss, labels=data.labels)  # pyright: ignore
    memory = lk.sample(model, data, SGLD, SHORT, progress=False)
    streamed = lk.sample(model, disk, SGLD, SHORT, progress=False)
    np.testing.assert_array_equal(memory.losses.values, streamed.losses.values)


def test_named_nbeta_is_resolved_and_its_origin_kept() -> None:
    model, data = MODELS[0]
    named = functools.partial(lk.SGLD, step_size=1e-4, nbeta="train", localization=100.0)
    settings = lk.sample(model, data, named, SHORT, progress=False).meta["identity"]["sampler"]
    assert settings["nbeta"] == pytest.approx(1000 / np.log(1000))
    assert settings["nbeta_origin"] == "train"


def test_rmsprop_samples_and_continues() -> None:
    model, data = MODELS[0]
    factory = functools.partial(lk.RMSpropSGLD, step_size=1e-4, nbeta=100.0, localization=100.0)
    assert np.isfinite(lk.sample(model, data, factory, SHORT, progress=False).losses).all()


def test_divergence_names_chain_step_and_remedy() -> None:
    model, data = MODELS[0]
    wild = functools.partial(lk.SGLD, step_size=10.0, nbeta=1e6, localization=0.0)
    with pytest.raises(
        DivergenceError, match=r"chain \d left the finite numbers at step \d+ .* lower sampler.step_size"
    ):
        lk.sample(model, data, wild, lk.Schedule(chains=2, burn_in=50, draws=5, batch_size=16), progress=False)


def test_a_diverged_run_leaves_no_finished_trace(tmp_path: Any) -> None:
    model, data = MODELS[0]
    wild = functools.partial(lk.SGLD, step_size=10.0, nbeta=1e6, localization=0.0)
    with pytest.raises(DivergenceError):
        lk.sample(
            model,
            data,
            wild,
            lk.Schedule(chains=2, burn_in=50, draws=5, batch_size=16),
            out=tmp_path / "t",
            progress=False,
        )
    with pytest.raises(TraceError, match="is unfinished"):
        lk.open_traces(tmp_path / "t")


def test_a_loss_that_is_nan_at_the_start_is_refused() -> None:
    model, data = MODELS[0]
    broken = lk.Data(train=data.train, probes=data.probes, loss=lambda o, t: lk.losses.squared_error(o, t) * torch.nan)
    with pytest.raises(DivergenceError, match="at the trained weights is nan"):
        lk.sample(model, broken, SGLD, SHORT, progress=False)


def test_a_scalar_loss_is_refused() -> None:
    model, data = MODELS[0]
    mean = lk.Data(train=data.train, probes=data.probes, loss=lambda o, t: lk.losses.squared_error(o, t).mean())
    with pytest.raises(InputError, match="one loss per sample"):
        lk.sample(model, mean, SGLD, SHORT, progress=False)


@pytest.mark.parametrize(
    ("sampler", "schedule", "message"),
    [
        (
            functools.partial(lk.SGLD, step_size=-1.0, nbeta=1.0, localization=1.0),
            SHORT,
            "sampler.step_size must be > 0",
        ),
        (
            functools.partial(lk.SGLD, step_size="x", nbeta=1.0, localization=1.0),
            SHORT,
            "sampler.step_size must be a number",
        ),
        (
            functools.partial(lk.SGLD, step_size=1.0, nbeta="n", localization=1.0),
            SHORT,
            "sampler.nbeta must be a number",
        ),
        (functools.partial(lk.SGLD, step_size=1.0, nbeta=1.0, localization=9.0), SHORT, "must be < 4"),
        (functools.partial(SGLD, parameters=["nothing.*"]), SHORT, "matches no weight"),
        (SGLD, lk.Schedule(batch_size=5000), "schedule.batch_size must be <= the 1000"),
    ],
)
def test_bad_settings_are_refused_before_compute(sampler: Any, schedule: lk.Schedule, message: str) -> None:
    model, data = MODELS[0]
    with pytest.raises(InputError, match=message):
        lk.sample(model, data, sampler, schedule, progress=False)


def test_weights_of_mixed_or_low_precision_are_refused() -> None:
    mixed = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1).double())
    for model, got in ((mixed, "float32.*float64"), (nn.Linear(4, 1).bfloat16(), "bfloat16")):
        with pytest.raises(InputError, match=f"the moving weights must all be float32 or all float64, got .*{got}"):
            lk.sample(model, MODELS[0][1], SGLD, SHORT, progress=False)


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(InputError, match="has no weights to sample"):
        lk.sample(nn.Identity(), MODELS[0][1], SGLD, SHORT, progress=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradient_clip_val": 1.0}, "gradient_clip_val"),
        ({"accumulate_grad_batches": 4}, "accumulate_grad_batches"),
        ({"precision": "bf16-mixed"}, "precision"),
        ({"callbacks": [StochasticWeightAveraging(1e-3)]}, "StochasticWeightAveraging"),
        ({"max_steps": 5}, r"max_steps=5 \(ends training and chains early\)"),
        ({"max_time": {"seconds": 9}}, "callback Timer"),
        ({"overfit_batches": 3}, "overfit_batches=3"),
    ],
)
def test_lightning_features_that_change_the_law_are_refused(settings: dict[str, Any], message: str) -> None:
    model, data = MODELS[0]
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **settings)
    with pytest.raises(InputError, match=message):
        lk.sample(model, data, SGLD, SHORT, trainer=trainer, progress=False)


def test_a_given_trainer_is_used_for_every_stack_and_gives_the_same_chains() -> None:
    model, data = MODELS[0]
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    traces = lk.sample(model, data, SGLD, SHORT, chains_per_fit=2, trainer=trainer, progress=False)
    assert traces.losses.equals(lk.sample(model, data, SGLD, SHORT, chains_per_fit=2, progress=False).losses)


def test_a_trainer_that_stops_early_is_not_taken_for_finished() -> None:
    model, data = MODELS[0]
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, limit_train_batches=3)
    with pytest.raises(DivergenceError, match="the trainer ended after 0 of 18 draws"):
        lk.sample(model, data, SGLD, SHORT, trainer=trainer, progress=False)


def test_a_sampler_chosen_by_hydra_keeps_its_name_when_a_setting_is_changed() -> None:
    # Hydra's own kind of partial is not flattened within another, as the companion at nbeta = 0 has it.
    chosen = instantiate(
        {
            "_target_": "losskernel.sampling.samplers.SGLD",
            "_partial_": True,
            "step_size": 1e-3,
            "nbeta": 10.0,
            "localization": 1.0,
        }
    )
    idle = functools.partial(chosen, nbeta=0.0)
    result = setup_of(MultitaskMLP(2), arithmetic(probes_per_task=5), idle, lk.Schedule()).settings
    assert (result["sampler"], result["nbeta"], result["step_size"]) == ("SGLD", 0.0, 1e-3)
