"""laplace_kernel(): closed forms, brute-force expansion, invariances, agreement with SGLD, and refusals."""

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacrev
from torch.utils.data import Dataset, Subset, TensorDataset

import losskernel as lk
from losskernel.data import digits
from losskernel.errors import InputError
from losskernel.models import SmallCNN
from losskernel.representations import laplace
from losskernel.representations.laplace import Network, curvature_of

NBETA, GAMMA = 50.0, 90.0
Case = tuple[nn.Module, lk.Data]


def regression(samples: int = 100, inputs: int = 3, probes: int = 40) -> tuple[nn.Module, lk.Data, np.ndarray]:
    """Linear regression in float64 at its optimum: model, data, and X."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, inputs))
    y = x @ np.arange(1.0, inputs + 1) + rng.normal(size=samples)
    model = nn.Linear(inputs, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(np.linalg.lstsq(x, y, rcond=None)[0])[None])
    whole = TensorDataset(torch.as_tensor(x), torch.as_tensor(y))
    return model, lk.Data(train=whole, probes=Subset(whole, range(probes)), loss=lk.losses.squared_error), x


def exact_kernel(model: nn.Module, data: lk.Data, x: np.ndarray, nbeta: float, localization: float) -> np.ndarray:
    """K_ij = r_i r_j s_ij + s_ij² / 2 with s = X (nβ H + γ)⁻¹ X' and r the residuals at the posterior's centre."""
    sigma = np.linalg.inv(nbeta * x.T @ x / len(x) + localization * np.eye(x.shape[1]))
    inputs, targets = (torch.stack(list(part)) for part in zip(*data.probes, strict=True))  # pyright: ignore
    residual = (model(inputs)[:, 0] - targets).detach().numpy()
    s = inputs.numpy() @ sigma @ inputs.numpy().T
    return np.outer(residual, residual) * s + s**2 / 2


def relative(result: np.ndarray, exact: np.ndarray) -> float:
    """Relative Frobenius error."""
    return float(np.linalg.norm(result - exact) / np.linalg.norm(exact))


class TanhMLP(nn.Module):
    """A smooth network, whose exact Hessian has every derivative."""

    def __init__(self, inputs: int = 2, outputs: int = 3) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(inputs, 4), nn.Linear(4, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(inputs)))


def case(loss: Any, outputs: int = 3, samples: int = 40, probes: int = 12, seed: int = 0) -> Case:
    """An untrained smooth network: gradients, residuals and second derivatives are all far from zero."""
    torch.manual_seed(seed)
    model = TanhMLP(outputs=outputs)
    x = torch.randn(samples, 2)
    squared = loss is lk.losses.squared_error
    y = torch.randn(samples, outputs) if squared else torch.randint(outputs, (samples,))
    whole = TensorDataset(x, y)
    names = {"kind": np.arange(probes) % 3}
    return model, lk.Data(train=whole, probes=Subset(whole, range(probes)), loss=loss, labels=names, ids=range(7, 19))


LOSSES = [lk.losses.squared_error, lk.losses.cross_entropy]


def named(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def by_hand(model: nn.Module, data: lk.Data, kind: str, moving: list[str]) -> tuple[Tensor, ...]:
    """(H, mean gradient, b [N, P], A [N, P, P]) by plain autograd through whole losses, with A = Jᵀ h J."""
    model = copy.deepcopy(model).double().eval().requires_grad_(False)
    weights = {name: weight.detach() for name, weight in model.named_parameters() if name in moving}
    shapes = [weight.shape for weight in weights.values()]
    start = torch.cat([weight.flatten() for weight in weights.values()])

    def outputs(w: Tensor, x: Tensor) -> Tensor:
        parts = w.split([shape.numel() for shape in shapes])
        return functional_call(model, {n: p.view(s) for n, p, s in zip(weights, parts, shapes, strict=True)}, (x,))

    def loss(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return data.loss(outputs(w, x), y)

    def curved(x: Tensor, y: Tensor) -> Tensor:
        rows = []
        for one, plain in zip(x, y, strict=True):
            jacobian = jacrev(outputs)(start, one[None])[0]
            bend = hessian(lambda z, plain=plain: data.loss(z[None], plain[None])[0])(outputs(start, one[None])[0])
            rows.append(jacobian.T @ bend @ jacobian)
        return torch.stack(rows)

    def loaded(dataset: Any) -> tuple[Tensor, Tensor]:
        x, y = (torch.stack(list(part)) for part in zip(*dataset, strict=True))
        return x.double(), y.double() if y.is_floating_point() else y

    (x, y), probes = loaded(data.train), loaded(data.probes)
    exact = hessian(lambda w: loss(w, x, y).mean())(start)
    whole = exact if kind == "exact" else curved(x, y).mean(0)
    return whole, jacrev(lambda w: loss(w, x, y).mean())(start), jacrev(loss)(start, *probes), curved(*probes)


def closed_form(parts: tuple[Tensor, ...], order: int, localization: float) -> np.ndarray:
    """The kernel from its formula, with explicit P × P matrices."""
    curvature, slope, b, a = parts
    sigma = torch.linalg.inv(NBETA * curvature + localization * torch.eye(len(curvature), dtype=torch.float64))
    if order == 1:
        return (b @ sigma @ b.T).numpy()
    centred = b + a @ (-sigma @ (NBETA * slope))
    scaled = a @ sigma
    return (centred @ sigma @ centred.T + torch.einsum("ipq,jqp->ij", scaled, scaled) / 2).numpy()


@pytest.mark.parametrize("kind", ["ggn", "exact"])
def test_linear_regression_is_exact(kind: str) -> None:
    model, data, x = regression()
    result = lk.laplace_kernel(model, data, nbeta=NBETA, localization=GAMMA, hessian=kind).covariance()
    np.testing.assert_allclose(result, exact_kernel(model, data, x, NBETA, GAMMA), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("nbeta", [0.0, 3.0, "train"])
def test_linear_regression_without_localization_or_without_loss(nbeta: Any) -> None:
    model, data, x = regression()
    gamma = 4.0 if nbeta == 0 else 0.0
    number = len(x) / np.log(len(x)) if nbeta == "train" else nbeta
    result = lk.laplace_kernel(model, data, nbeta=nbeta, localization=gamma).covariance()
    np.testing.assert_allclose(result, exact_kernel(model, data, x, number, gamma), rtol=1e-8, atol=1e-12)


def test_a_network_that_changes_its_inputs_is_as_good_as_one_that_does_not() -> None:
    rng = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(20, 4, generator=rng), torch.randint(0, 3, (20,), generator=rng)
    held = TensorDataset(inputs, targets)
    data = lk.Data(train=held, probes=held, loss=lk.losses.cross_entropy)
    kernels = []
    for inplace in (False, True):
        torch.manual_seed(1)
        network = nn.Sequential(nn.ReLU(inplace=inplace), nn.Linear(4, 3))
        kernels.append(lk.laplace_kernel(network, data, nbeta=10.0, localization=100.0).covariance())
    np.testing.assert_array_equal(*kernels)
    assert inputs.min() < 0  # as they were


def test_away_from_the_optimum_the_gaussian_is_centred_at_the_newton_step() -> None:
    model, data, x = regression()
    optimum = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(torch.tensor([[0.3, -0.2, 0.5]]))
    h = torch.as_tensor(x.T @ x / len(x))
    pull = torch.linalg.solve(NBETA * h + GAMMA * torch.eye(3), NBETA * h @ (optimum - model.weight)[0])
    shifted = copy.deepcopy(model)
    with torch.no_grad():
        shifted.weight.add_(pull)
    result = lk.laplace_kernel(model, data, nbeta=NBETA, localization=GAMMA).covariance()
    np.testing.assert_allclose(result, exact_kernel(shifted, data, x, NBETA, GAMMA), rtol=1e-8, atol=1e-12)
    assert relative(result, exact_kernel(model, data, x, NBETA, GAMMA)) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("moved", [0.0, 0.5])
def test_sgld_agrees_on_linear_regression(moved: float) -> None:
    model, data, x = regression()
    with torch.no_grad():
        model.weight.add_(moved)
    schedule = lk.Schedule(chains=64, burn_in=200, draws=300, thinning=12, batch_size=len(x))
    factory = functools.partial(lk.SGLD, step_size=1e-3, nbeta=NBETA, localization=GAMMA)
    sampled = lk.LossKernel.from_traces(lk.sample(model, data, factory, schedule, progress=False))
    result = lk.laplace_kernel(model, data, nbeta=NBETA, localization=GAMMA).covariance()
    away = (sampled.covariance() - result) / sampled.standard_error()
    assert relative(sampled.covariance(), result) < 0.1
    # Discretisation widens the variances by step_size (nbeta h + localization) / 4, which is 4 %.
    assert np.abs(away).mean() < 2


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["ggn", "exact"])
@pytest.mark.parametrize("order", [1, 2])
def test_equals_the_formula_with_explicit_matrices(loss: Any, kind: str, order: int) -> None:
    model, data = case(loss)
    result = lk.laplace_kernel(model, data, nbeta=NBETA, localization=GAMMA, hessian=kind, order=order).covariance()
    wanted = closed_form(by_hand(model, data, kind, named(model)), order, GAMMA)
    np.testing.assert_allclose(result, wanted, rtol=1e-8, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("loss", LOSSES)
def test_equals_brute_force_draws_of_the_quadratic_expansion(loss: Any) -> None:
    model, data = case(loss)
    curvature, slope, b, a = by_hand(model, data, "ggn", named(model))
    sigma = torch.linalg.inv(NBETA * curvature + 20.0 * torch.eye(len(curvature)))
    rng = torch.Generator().manual_seed(0)
    u = torch.randn(40_000, len(sigma), generator=rng, dtype=torch.float64) @ torch.linalg.cholesky(sigma).T
    u -= NBETA * slope @ sigma
    losses = u @ b.T + torch.stack([((u @ item) * u).sum(1) for item in a], dim=1) / 2
    result = lk.laplace_kernel(model, data, nbeta=NBETA, localization=20.0).covariance()
    assert relative(np.cov(losses.numpy().T), result) < 0.04


@pytest.mark.parametrize("loss", LOSSES)
def test_gauss_newton_products_are_those_of_the_matrix(loss: Any) -> None:
    model, data = case(loss)
    network = Network(model, data, named(model))
    eye = torch.eye(len(network.weights), dtype=torch.float64)
    for kind, products in (("ggn", network.ggn_products), ("exact", network.hessian_products)):
        curvature, slope, *_ = by_hand(model, data, kind, named(model))
        torch.testing.assert_close(products(eye), curvature, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(network.gradient(), slope, rtol=1e-10, atol=1e-12)


def test_cross_entropy_curvature_in_the_outputs_is_that_of_softmax() -> None:
    model, data = case(lk.losses.cross_entropy)
    x, y = (torch.stack(list(part)) for part in zip(*data.probes, strict=True))
    result = Network(model, data, named(model)).derivatives(x, y)
    p = torch.softmax(copy.deepcopy(model).double()(x.double()), 1)
    torch.testing.assert_close(result.hessian, torch.diag_embed(p) - p[:, :, None] * p[:, None])
    torch.testing.assert_close(result.gradient, p - nn.functional.one_hot(y, 3))


def test_probes_with_tiny_losses_keep_their_correlation() -> None:
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    # The last two have a margin of 40 nats, hence losses of 4e-18 and variances of 1e-36.
    x = torch.tensor([[0.5, 1.0], [0.5, 0.8], [20.0, 1.0], [20.0, -8.0]])
    whole = TensorDataset(x, torch.zeros(4).long())
    data = lk.Data(train=whole, probes=whole, loss=lk.losses.cross_entropy)
    kernel = lk.laplace_kernel(model, data, nbeta=NBETA, localization=GAMMA)
    wanted = closed_form(by_hand(model, data, "ggn", ["weight"]), 2, GAMMA)
    scale = np.sqrt(np.diag(wanted))
    assert scale[2] < 1e-15
    np.testing.assert_allclose(kernel.correlation(), wanted / np.outer(scale, scale), atol=1e-8)


def few_samples(inputs: int = 20, samples: int = 8) -> Case:
    """A linear model with more weights than samples: either Hessian is 0 on all but `samples` directions."""
    torch.manual_seed(0)
    whole = TensorDataset(torch.randn(samples, inputs), torch.randn(samples))
    return nn.Linear(inputs, 1), lk.Data(train=whole, probes=whole, loss=lk.losses.squared_error)


@pytest.mark.parametrize("kind", ["ggn", "exact"])
def test_low_rank_that_covers_the_spectrum_is_dense(kind: str) -> None:
    model, data = few_samples()
    settings: dict[str, Any] = {"nbeta": NBETA, "localization": GAMMA, "hessian": kind}
    dense = lk.laplace_kernel(model, data, **settings).covariance()
    for rank in (8, 9, 20):
        low = lk.laplace_kernel(model, data, rank=rank, **settings).covariance()
        np.testing.assert_allclose(low, dense, rtol=1e-8, atol=1e-10 * np.abs(dense).max())
    # What is left out counts as flat, so that Σ is an upper bound.
    wide = [lk.laplace_kernel(model, data, rank=rank, order=1, **settings).variance() for rank in (1, 4, 8)]
    assert (wide[0] > wide[1]).all()
    assert (wide[1] > wide[2]).all()


def test_many_weights_take_the_low_rank_route(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = few_samples()
    requested = Network(model, data, named(model))
    monkeypatch.setattr(laplace, "DENSE", 20)
    monkeypatch.setattr(laplace, "DEFAULT_RANK", 5)
    assert len(curvature_of(requested).values) == 5
    monkeypatch.setattr(laplace, "DENSE", 21)
    assert len(curvature_of(requested).values) == 21


def test_the_seed_of_the_iteration_changes_nothing() -> None:
    model, data = case(lk.losses.cross_entropy)
    kernels = [lk.laplace_kernel(model, data, nbeta=NBETA, localization=GAMMA, rank=6, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (kernel.covariance() for kernel in kernels)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, other, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_blocks_of_probes_change_nothing(order: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = case(lk.losses.cross_entropy)
    whole = lk.laplace_kernel(model, data, nbeta=NBETA, localization=GAMMA, order=order).covariance()
    monkeypatch.setattr(laplace, "_BLOCK_NUMBERS", 5 * 3 * 27)
    cut = lk.laplace_kernel(model, data, nbeta=NBETA, localization=GAMMA, order=order).covariance()
    np.testing.assert_allclose(cut, whole, rtol=1e-10, atol=1e-14)


def test_follows_a_permutation_of_the_probes_and_keeps_labels_and_ids() -> None:
    model, data = case(lk.losses.squared_error)
    order = np.random.default_rng(0).permutation(12)
    moved = lk.Data(
        train=data.train,
        probes=Subset(data.probes, order.tolist()),
        loss=data.loss,
        labels={"kind": data.labels["kind"][order]},
        ids=np.asarray(data.ids)[order].tolist(),
    )
    first = lk.laplace_kernel(model, data, nbeta=NBETA, localization=GAMMA)
    second = lk.laplace_kernel(model, moved, nbeta=NBETA, localization=GAMMA)
    np.testing.assert_allclose(second.covariance(), first.covariance()[np.ix_(order, order)], rtol=1e-9)
    np.testing.assert_array_equal(second.label("kind"), first.label("kind")[order])
    np.testing.assert_array_equal(second.ids, first.ids[order])


def test_frozen_weights_leave_the_formula_of_those_that_move() -> None:
    model, data = case(lk.losses.cross_entropy)
    result = lk.laplace_kernel(model, data, nbeta=NBETA, localization=GAMMA, parameters=["head.*"]).covariance()
    wanted = closed_form(by_hand(model, data, "ggn", ["head.weight", "head.bias"]), 2, GAMMA)
    np.testing.assert_allclose(result, wanted, rtol=1e-8)


def test_the_model_stays_as_it_was_and_its_mode_does_not_matter() -> None:
    model, data = SmallCNN(widths=(2, 3)), digits(10)
    some = lk.Data(train=Subset(data.train, range(30)), probes=data.probes, loss=data.loss)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = lk.laplace_kernel(model.train(), some, nbeta=NBETA, localization=GAMMA).covariance()
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    np.testing.assert_array_equal(
        trained, lk.laplace_kernel(model.eval(), some, nbeta=NBETA, localization=GAMMA).covariance()
    )


def test_data_on_disk_equals_data_in_memory() -> None:
    class OnDisk(Dataset[Any]):
        def __init__(self, held: Any) -> None:
            self.held = held

        def __len__(self) -> int:
            return len(self.held)

        def __getitem__(self, index: int) -> Any:
            return self.held[index]

    model, data = case(lk.losses.cross_entropy)
    disk = lk.Data(train=OnDisk(data.train), probes=OnDisk(data.probes), loss=data.loss)
    np.testing.assert_allclose(
        lk.laplace_kernel(model, disk, nbeta=NBETA, localization=GAMMA).covariance(),
        lk.laplace_kernel(model, data, nbeta=NBETA, localization=GAMMA).covariance(),
    )


def test_a_saddle_is_refused_with_the_localization_that_it_takes() -> None:
    model, data = case(lk.losses.squared_error)
    least = float(curvature_of(Network(model, data, named(model)), "exact").values[0])
    assert least < 0
    with pytest.raises(InputError, match=r"localization=0.001 .* raise localization above .* or take hessian='ggn'"):
        lk.laplace_kernel(model, data, nbeta=NBETA, localization=1e-3, hessian="exact")
    lk.laplace_kernel(model, data, nbeta=NBETA, localization=-1.01 * NBETA * least, hessian="exact")
    with pytest.raises(InputError, match="raise localization above"):
        lk.laplace_kernel(model, data, nbeta=NBETA, localization=-0.99 * NBETA * least, hessian="exact")


@pytest.mark.parametrize("rank", [None, 3])
def test_flat_directions_without_localization_are_refused(rank: int | None) -> None:
    model, data = few_samples()
    with pytest.raises(InputError, match=r"localization=0 .* eigenvalue of H is 0; raise localization above 0$"):
        lk.laplace_kernel(model, data, nbeta=NBETA, localization=0.0, rank=rank)


def test_a_loss_that_is_not_convex_in_the_outputs_is_refused_to_second_order() -> None:
    model, data = case(lk.losses.squared_error)
    bent = lk.Data(train=data.train, probes=data.probes, loss=lambda o, t: torch.cos(o - t).sum(1))
    with pytest.raises(InputError, match=r"convex in the model's outputs.* take order=1"):
        lk.laplace_kernel(model, bent, nbeta=0.0, localization=1.0)
    assert np.isfinite(lk.laplace_kernel(model, bent, nbeta=0.0, localization=1.0, order=1).covariance()).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hessian": "fisher"}, "hessian must be 'ggn' or 'exact', got 'fisher'"),
        ({"order": 3}, "order must be 1 or 2, got 3"),
        ({"nbeta": -1.0}, "nbeta must be >= 0"),
        ({"nbeta": "batch"}, "nbeta must be a number or 'train'"),
        ({"localization": -1.0}, "localization must be >= 0"),
        ({"rank": 0}, "rank must be >= 1"),
        ({"seed": -1}, "seed must be >= 0"),
        ({"parameters": ["nothing.*"]}, "matches no weight"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    model, data = case(lk.losses.squared_error)
    with pytest.raises(InputError, match=message):
        lk.laplace_kernel(model, data, **({"nbeta": NBETA, "localization": GAMMA} | settings))


def test_a_model_without_weights_and_a_scalar_loss_are_refused() -> None:
    _, data = case(lk.losses.squared_error)
    with pytest.raises(InputError, match="has no weights to move"):
        lk.laplace_kernel(nn.Identity(), data, nbeta=NBETA, localization=GAMMA)
    mean = lk.Data(train=data.train, probes=data.probes, loss=lambda o, t: (o - t).square().mean())
    with pytest.raises(InputError, match="one loss per sample"):
        lk.laplace_kernel(TanhMLP(), mean, nbeta=NBETA, localization=GAMMA)
