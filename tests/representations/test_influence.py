from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.utils.data import TensorDataset

from losskernel import Data
from losskernel.errors import InputError
from losskernel.losses import cross_entropy, squared_error
from losskernel.models import MLP
from losskernel.representations.baselines.features import Influence, ProjectedMargins
from losskernel.representations.evaluation import classifies, log_odds


def _regression(samples: int = 40, queries: int = 5, features: int = 3) -> tuple[nn.Linear, Data, Tensor, Tensor]:
    """A linear model away from its optimum; the probes are queries followed by all training samples."""
    torch.manual_seed(0)
    model = nn.Linear(features, 1).double()
    inputs = torch.randn(queries + samples, features, dtype=torch.float64)
    targets = inputs.sum(1, keepdim=True) + torch.randn(queries + samples, 1, dtype=torch.float64)
    return model, _joint(inputs, targets, squared_error, queries), inputs, targets


def _classification(samples: int = 60, queries: int = 6) -> tuple[nn.Linear, Data, Tensor, Tensor]:
    torch.manual_seed(1)
    model = nn.Linear(4, 3).double()
    inputs = torch.randn(queries + samples, 4, dtype=torch.float64)
    targets = (inputs[:, :3] + torch.randn(queries + samples, 3)).argmax(1)
    return model, _joint(inputs, targets, cross_entropy, queries), inputs, targets


def _joint(inputs: Tensor, targets: Tensor, loss: Any, queries: int) -> Data:
    ids = list(range(len(inputs)))
    train = TensorDataset(inputs[queries:], targets[queries:])
    return Data(train, TensorDataset(inputs, targets), loss, ids=ids, train_ids=ids[queries:])


def _with_one(inputs: Tensor) -> np.ndarray:
    return np.c_[inputs.numpy(), np.ones(len(inputs))]


@pytest.mark.parametrize("samples", [40, 2])  # more probes than weights, and fewer, where the rows are turned
def test_influence_on_least_squares_is_the_closed_form(samples: int) -> None:
    model, data, inputs, targets = _regression(samples, queries=1)
    design = _with_one(inputs)
    gradients = (model(inputs) - targets).detach().numpy() * design
    curvature = design[1:].T @ design[1:] / samples + 0.05 * np.eye(4)
    expected = gradients @ np.linalg.solve(curvature, gradients.T)
    rows = Influence(damping=0.05)(model, data)
    assert rows.shape == (samples + 1, min(samples + 1, 4))
    np.testing.assert_allclose(rows @ rows.T, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_influence_on_logistic_regression_has_the_exact_hessian() -> None:
    model, data, inputs, targets = _classification()
    shape = {name: weight.shape for name, weight in model.named_parameters()}
    flat = torch.cat([weight.detach().flatten() for weight in model.parameters()])

    def losses(weights: Tensor) -> Tensor:
        parts = weights.split([size.numel() for size in shape.values()])
        named = {name: part.view(size) for part, (name, size) in zip(parts, shape.items(), strict=True)}
        return cross_entropy(functional_call(model, named, (inputs,)), targets)

    exact: Any = hessian(lambda weights: losses(weights)[6:].mean())(flat)
    gradients = torch.autograd.functional.jacobian(losses, flat)
    expected = gradients @ torch.linalg.solve(exact + 0.01 * torch.eye(len(flat)), gradients.T)  # pyright: ignore
    rows = Influence(damping=0.01)(model, data)
    np.testing.assert_allclose(rows @ rows.T, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def _ridge(inputs: np.ndarray, targets: np.ndarray, damping: float, total: int) -> np.ndarray:
    """Minimum of the summed losses / total + damping / 2 |w|²."""
    return np.linalg.solve(inputs.T @ inputs / total + damping * np.eye(inputs.shape[1]), inputs.T @ targets / total)


def test_leaving_out_a_helpful_sample_raises_the_loss_by_its_influence() -> None:
    rng, damping, total = np.random.default_rng(0), 0.02, 200
    inputs = rng.normal(size=(total + 4, 3))
    targets = inputs @ [1.0, -1.0, 0.5] + rng.normal(size=total + 4)
    best = _ridge(inputs[4:], targets[4:], damping, total)
    model = nn.Linear(3, 1, bias=False).double()
    model.weight.data = torch.as_tensor(best)[None]
    rows = Influence(damping)(
        model, _joint(torch.as_tensor(inputs), torch.as_tensor(targets)[:, None], squared_error, 4)
    )
    influence = rows[4:] @ rows[:4].T / total  # [T, Q]
    change = np.empty_like(influence)
    before = 0.5 * (inputs[:4] @ best - targets[:4]) ** 2
    for left_out in range(total):
        kept = np.delete(np.arange(4, total + 4), left_out)
        without = _ridge(inputs[kept], targets[kept], damping, total)
        change[left_out] = 0.5 * (inputs[:4] @ without - targets[:4]) ** 2 - before
    assert (change[influence.argmax(0), range(4)] > 0).all()
    assert (change[influence.argmin(0), range(4)] < 0).all()
    assert all(np.corrcoef(influence[:, query], change[:, query])[0, 1] > 0.995 for query in range(4))
    slopes = (influence * change).sum(0) / (influence * influence).sum(0)
    np.testing.assert_allclose(slopes, 1, atol=0.05)


def test_influence_refuses_what_it_cannot_hold_or_invert() -> None:
    model, data, _, _ = _regression()
    with pytest.raises(
        InputError, match=r"the 4 weights' curvature would fill 0.0 GB, more than largest=3 allows; drop"
    ):
        Influence(largest=3)(model, data)
    with pytest.raises(InputError, match="Flatten has no weights; drop the baseline"):
        Influence()(nn.Flatten(), data)
    with pytest.raises(InputError, match=r"data.loss has curvature -1 in the model's outputs, and must be convex"):
        Influence()(model, replace(data, loss=lambda outputs, targets: -squared_error(outputs, targets)))
    with pytest.raises(InputError, match=r"baselines.influence.damping must be > 0, got 0"):
        Influence(damping=0)
    with pytest.raises(InputError, match=r"baselines.influence.largest must be >= 1"):
        Influence(largest=0)


def test_the_margin_is_the_log_odds_and_keeps_certain_ones() -> None:
    outputs, targets = torch.randn(8, 4, dtype=torch.float64), torch.arange(8) % 4
    p = torch.softmax(outputs, 1)[range(8), targets]
    torch.testing.assert_close(log_odds(outputs, targets), torch.log(p / (1 - p)))
    certain = log_odds(torch.tensor([[200.0, 0.0]]), torch.tensor([0]))
    assert certain.item() == 200
    assert classifies(outputs, targets)
    assert not classifies(outputs[:, :1], targets)
    assert not classifies(outputs, outputs)


def test_projected_margins_on_least_squares_are_the_ridge_formula() -> None:
    model, data, inputs, targets = _regression()
    rows = ProjectedMargins(size=400, damping=0.1)(model, data)  # no two of the four weights share a column
    design, residuals = _with_one(inputs), (targets - model(inputs)).detach().numpy()[:, 0]
    curvature = design[5:].T @ design[5:] / 40 + 0.1 * np.eye(4)
    moved = design @ np.linalg.solve(curvature, design.T) * residuals  # of the output of a row by a column
    np.testing.assert_allclose(rows["query"] @ rows["train"].T, residuals[:, None] * moved, rtol=1e-3, atol=1e-4)


def test_projected_margins_of_classes_weigh_by_what_was_not_learned() -> None:
    model, data, inputs, targets = _classification()
    p = torch.softmax(model(inputs), 1).detach()
    one_hot = torch.nn.functional.one_hot(targets, 3)
    chosen = p[range(66), targets][:, None]
    # of log p - log (1 - p) in the logits: 1 of the class, minus the others' shares of what is left
    slopes = one_hot - (1 - one_hot) * p / (1 - chosen)
    features = torch.einsum("nc,nd->ncd", slopes, torch.as_tensor(_with_one(inputs))).flatten(1).numpy()
    curvature = features[6:].T @ features[6:] / 60 + 0.2 * np.eye(15)
    expected = features @ np.linalg.solve(curvature, features.T) * (1 - chosen.numpy()[:, 0])
    # no two of the fifteen weights share a column
    rows = ProjectedMargins(size=500, seed=2, damping=0.2)(model, data)
    np.testing.assert_allclose(rows["query"] @ rows["train"].T, expected, rtol=1e-3, atol=1e-4)


def test_projections_leave_the_network_alone() -> None:
    torch.manual_seed(0)
    model = MLP(4, 3, [5]).train()
    _, data, _, _ = _classification()
    data = _joint(data.probes.tensors[0].float(), data.probes.tensors[1], cross_entropy, 6)  # pyright: ignore
    first, second = (ProjectedMargins(size=16)(model, data) for _ in range(2))
    assert model.training
    assert all(weight.grad is None for weight in model.parameters())
    np.testing.assert_array_equal(first["query"], second["query"])
    assert first["train"].shape == (66, 16)
    assert first["train"].dtype == np.float32


def test_projected_margins_refuse_what_they_cannot_whiten() -> None:
    model, data, inputs, _ = _regression()
    with pytest.raises(InputError, match=r"no probe is known to be a training sample; add wrapper=\[joint_probes\]"):
        ProjectedMargins()(model, replace(data, train_ids=None))
    with pytest.raises(InputError, match="without damping size must be <= the 40 training samples, got 41"):
        ProjectedMargins(size=41, damping=0)(model, data)
    with pytest.raises(InputError, match="projected gradients of the 40 samples are dependent; raise damping"):
        ProjectedMargins(size=30, damping=0)(model, data)
    two = TensorDataset(inputs, torch.randn(45, 2))
    with pytest.raises(InputError, match="projected margins need logits of classes, or one output and one number"):
        ProjectedMargins()(nn.Linear(3, 2).double(), replace(data, train=two, probes=two, train_ids=data.ids))
    with pytest.raises(InputError, match=r"baselines.trak.size must be >= 2"):
        ProjectedMargins(size=1)
    with pytest.raises(InputError, match=r"baselines.trak.damping must be >= 0"):
        ProjectedMargins(damping=-1)
