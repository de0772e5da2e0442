import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from losskernel.errors import InputError
from losskernel.samplers import SGLD, RMSpropSGLD, Sampler, resolve_nbeta, select


class Case(NamedTuple):
    """A sampler, and its preconditioner G where gradients are tiny and its memory of the start has faded."""

    build: Callable[..., Sampler]
    scale: float


# A new sampler joins the contract by one entry here.
SAMPLERS = {
    "SGLD": Case(SGLD, 1.0),
    "RMSpropSGLD": Case(partial(RMSpropSGLD, smoothing=0.9, damping=0.1), 10.0),
    "RMSpropSGLD, devinterp": Case(partial(RMSpropSGLD, smoothing=0.9, damping=0.2, variant="devinterp"), 5.0),
}
every_sampler = pytest.mark.parametrize("case", SAMPLERS.values(), ids=SAMPLERS.keys())

COORDINATES = 20_000
SETTINGS = {"step_size": 0.01, "nbeta": 2.0, "localization": 1.0}


def _normal(seed: int) -> Callable[[Tensor], Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return lambda weight: torch.randn(weight.shape, generator=rng, dtype=weight.dtype)


def _ones(weight: Tensor) -> Tensor:
    return torch.ones_like(weight)


def _zeros(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight)


def _advance(sampler: Sampler, weight: Tensor, gradient: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    for _ in range(steps):
        weight.grad = gradient(weight)
        sampler.step()
    return weight


def _well(case: Case, relative_step: float, steps: int) -> tuple[Tensor, float, float]:
    """Run many coordinates in L = h/2 (w - m)² around w* = 1; return them, the curvature a and the exact mean."""
    curvature, minimum, start, localization = 1e-4, -2.0, 1.0, 4.0  # tiny gradients, so that G is a constant
    nbeta = 6.0 / curvature
    a = nbeta * curvature + localization
    weight = torch.full((COORDINATES,), start, dtype=torch.float64)
    sampler = case.build(
        [weight],
        step_size=4 * relative_step / a / case.scale,
        nbeta=nbeta,
        localization=localization,
        noise=_normal(0),
    )
    _advance(sampler, weight, lambda w: curvature * (w - minimum), steps)
    return weight, a, (nbeta * curvature * minimum + localization * start) / a


# --- the contract of every sampler


@every_sampler
@pytest.mark.parametrize("relative_step", [0.05, 0.3])
def test_the_stationary_law_of_a_quadratic_well(case: Case, relative_step: float) -> None:
    weight, a, mean = _well(case, relative_step, steps=400)
    # With e = step_size * G the variance is 1 / (a (1 - e a / 4)), where e a / 4 is the relative step.
    exact = 1 / (a * (1 - relative_step))
    assert (weight.mean().item() - mean) / math.sqrt(exact / COORDINATES) == pytest.approx(0, abs=4)
    relative_error = math.sqrt(2 / COORDINATES)
    assert (weight.var().item() / exact - 1) / relative_error == pytest.approx(0, abs=4)
    if relative_step > 0.1:  # the variance of the continuous-time process is far outside the error bar
        assert (weight.var().item() * a - 1) / relative_error > 20


@every_sampler
def test_the_localisation_pulls_back_to_the_start(case: Case) -> None:
    start = torch.linspace(-1, 1, 50, dtype=torch.float64)
    weight = start.clone()
    sampler = case.build([weight], step_size=0.05, nbeta=0.0, localization=2.0, noise=_zeros)
    weight += 3.0
    distances = [3.0]
    for _ in range(400):
        _advance(sampler, weight, torch.zeros_like, 1)
        distances.append((weight - start).abs().max().item())
    assert all(after < before for before, after in itertools.pairwise(distances[:20]))
    assert distances[-1] < 1e-3


@every_sampler
def test_nbeta_zero_leaves_no_drift_from_the_loss(case: Case) -> None:
    weight = torch.linspace(-1, 1, 50)
    before = weight.clone()
    sampler = case.build([weight], step_size=0.05, nbeta=0.0, localization=2.0, noise=_zeros)
    _advance(sampler, weight, lambda w: 100 * torch.cos(w), 20)
    assert torch.equal(weight, before)


@every_sampler
def test_the_drift_is_proportional_to_nbeta(case: Case) -> None:
    moved = []
    for nbeta in (1.0, 7.0):
        weight = torch.zeros(3, dtype=torch.float64)
        sampler = case.build([weight], step_size=0.01, nbeta=nbeta, localization=0.0, noise=_zeros)
        moved.append(_advance(sampler, weight, lambda w: torch.tensor([1.0, -2.0, 0.1], dtype=w.dtype), 1))
    torch.testing.assert_close(moved[1], 7 * moved[0])
    assert moved[0].sign().tolist() == [-1, 1, -1]


@every_sampler
def test_the_update_is_elementwise(case: Case) -> None:
    rng = torch.Generator().manual_seed(1)
    start = torch.randn(3, 40, generator=rng, dtype=torch.float64)
    noise = torch.randn(30, 3, 40, generator=rng, dtype=torch.float64)
    order = torch.randperm(40, generator=rng)

    def run(start: Tensor, noise: Tensor) -> Tensor:
        weight, steps = start.clone(), iter(noise)
        sampler = case.build([weight], **SETTINGS, noise=lambda _: next(steps))
        return _advance(sampler, weight, torch.sin, len(noise))

    stacked = run(start, noise)
    for chain in range(3):
        torch.testing.assert_close(stacked[chain], run(start[chain], noise[:, chain]), rtol=1e-12, atol=1e-12)
    permuted = run(start[:, order], noise[..., order])
    torch.testing.assert_close(stacked[:, order], permuted, rtol=1e-12, atol=1e-12)


@every_sampler
def test_all_randomness_comes_from_the_given_noise(case: Case) -> None:
    def run(seed: int, global_seed: int) -> Tensor:
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        weight = torch.zeros(20)
        sampler = case.build([weight], **SETTINGS, noise=_normal(seed))
        _advance(sampler, weight, torch.sin, 5)
        assert torch.equal(torch.get_rng_state(), before)
        return weight

    assert torch.equal(run(0, 0), run(0, 1))
    assert not torch.equal(run(0, 0), run(1, 0))


@every_sampler
def test_globs_choose_which_weights_move(case: Case) -> None:
    named = [("trunk.weight", torch.zeros(3)), ("trunk.bias", torch.zeros(3)), ("head.weight", torch.zeros(3))]
    sampler = case.build(named, **SETTINGS, parameters=["trunk.*"], noise=_ones)
    for _, weight in named:
        weight.grad = torch.zeros(3)
    sampler.step()
    assert [bool((weight != 0).all()) for _, weight in named] == [True, True, False]


@every_sampler
def test_a_weight_without_gradient_stays(case: Case) -> None:
    moving, frozen = torch.zeros(3), torch.zeros(3)
    sampler = case.build([moving, frozen], **SETTINGS, noise=_ones)
    moving.grad = torch.zeros(3)
    sampler.step()
    assert bool((moving != 0).all())
    assert torch.equal(frozen, torch.zeros(3))


@every_sampler
def test_a_closure_is_evaluated_with_gradients(case: Case) -> None:
    weight = torch.ones(3, requires_grad=True)
    sampler = case.build([weight], step_size=0.01, nbeta=1.0, localization=0.0, noise=_zeros)

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert sampler.step(closure) == 3.0
    assert bool((weight < 1).all())


@every_sampler
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"step_size": 0.0}, "sampler.step_size must be > 0, got 0.0; raise sampler.step_size"),
        ({"step_size": -1e-3}, "sampler.step_size must be > 0"),
        ({"step_size": math.nan}, "sampler.step_size must be finite, got nan"),
        ({"step_size": math.inf}, "sampler.step_size must be finite, got inf"),
        ({"step_size": "1e-3"}, "sampler.step_size must be a number, got '1e-3'"),
        ({"step_size": True}, "sampler.step_size must be a number, got True"),
        ({"nbeta": -1.0}, "sampler.nbeta must be >= 0, got -1.0; raise sampler.nbeta"),
        ({"nbeta": None}, "sampler.nbeta must be a number, got None"),
        ({"localization": -1.0}, "sampler.localization must be >= 0"),
        ({"localization": math.nan}, "sampler.localization must be finite"),
        ({"parameters": ["w"]}, "sampler.parameters needs named weights"),
    ],
)
def test_a_bad_setting_is_refused(case: Case, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        case.build([torch.zeros(3)], **(SETTINGS | setting))


@every_sampler
def test_a_glob_without_a_match_is_refused(case: Case) -> None:
    with pytest.raises(InputError, match=r"'tail\.\*' matches no weight; the names are head"):
        case.build([("head", torch.zeros(3))], **SETTINGS, parameters=["tail.*"])


# --- SGLD


def test_sgld_states_its_own_law_in_a_quadratic_well() -> None:
    sampler = SGLD([torch.zeros(1)], step_size=0.12, nbeta=1.0, localization=0.0)
    assert sampler.stationary_variance(10.0) == pytest.approx(1 / (10 * 0.7))
    # Minibatch noise s² in the gradient adds ε² s² / 4 to the ε of each step.
    assert sampler.stationary_variance(10.0, 5.0) == pytest.approx((1 + 0.12 * 5 / 4) / (10 * 0.7))
    assert sampler.stationary_variance(34.0) == math.inf
    assert sampler.relaxation_steps(10.0) == pytest.approx(-1 / math.log(1 - 0.6))
    assert sampler.relaxation_steps(0.0) == math.inf


def test_sgld_at_nbeta_zero_ignores_the_loss_altogether() -> None:
    runs = []
    for gradient in (torch.zeros_like, torch.sin):
        weight = torch.zeros(20)
        sampler = SGLD([weight], step_size=0.05, nbeta=0.0, localization=2.0, noise=_normal(3))
        runs.append(_advance(sampler, weight, gradient, 10))
    assert torch.equal(*runs)


def test_one_step_of_sgld_is_its_equation() -> None:
    weight = torch.tensor([1.0], dtype=torch.float64)
    sampler = SGLD([weight], step_size=0.04, nbeta=5.0, localization=3.0, noise=lambda w: torch.full_like(w, 0.7))
    weight += 2.0
    _advance(sampler, weight, lambda w: torch.full_like(w, 0.3), 1)
    assert weight.item() == pytest.approx(3.0 - 0.02 * (5 * 0.3 + 3 * 2.0) + 0.2 * 0.7, rel=1e-14)


def test_sgld_refuses_a_localisation_that_diverges() -> None:
    SGLD([torch.zeros(3)], step_size=0.0399, nbeta=0.0, localization=100.0)
    with pytest.raises(InputError, match=r"step_size \* sampler.localization must be < 4, got 0.04 \* 100"):
        SGLD([torch.zeros(3)], step_size=0.04, nbeta=0.0, localization=100.0)


# --- RMSprop-SGLD


def _first_scales(variant: str, gradient: float) -> tuple[float, float]:
    """G of the first step, read from the drift and from the noise."""
    weight = torch.zeros(1, dtype=torch.float64)
    sampler = RMSpropSGLD([weight], step_size=0.01, nbeta=1e3, localization=0.0, variant=variant, noise=_zeros)
    _advance(sampler, weight, lambda w: torch.full_like(w, gradient), 1)
    from_drift = -weight.item() * 2 / (0.01 * 1e3 * gradient)
    weight = torch.zeros(1, dtype=torch.float64)
    sampler = RMSpropSGLD([weight], step_size=0.01, nbeta=0.0, localization=0.0, variant=variant, noise=_ones)
    _advance(sampler, weight, lambda w: torch.full_like(w, gradient), 1)
    return from_drift, weight.item() ** 2 / 0.01


@pytest.mark.parametrize("gradient", [1e-6, 0.5, 20.0])
def test_the_published_preconditioner_starts_at_one_with_bias_correction(gradient: float) -> None:
    # v = 0.99 · 1 + 0.01 g², divided by 1 - 0.99; about 99 for tiny g
    expected = 1 / (math.sqrt((0.99 + 0.01 * gradient**2) / 0.01) + 0.1)
    assert _first_scales("published", gradient) == pytest.approx((expected, expected), rel=1e-9)
    assert gradient > 1 or expected == pytest.approx(1 / (math.sqrt(99) + 0.1), rel=2e-3)


@pytest.mark.parametrize("gradient", [1e-6, 0.5, 20.0])
def test_the_devinterp_preconditioner_starts_at_zero_without_correction(gradient: float) -> None:
    expected = 1 / (0.1 * gradient + 0.1)  # √(0.01 g²) + δ; 1 / δ for tiny g
    assert _first_scales("devinterp", gradient) == pytest.approx((expected, expected), rel=1e-9)


@pytest.mark.parametrize("variant", ["published", "devinterp"])
def test_rmsprop_follows_a_plain_numpy_recursion(variant: str) -> None:
    rng = np.random.default_rng(0)
    start, noise = rng.normal(size=30), rng.normal(size=(50, 30))
    step_size, nbeta, localization, smoothing, damping = 0.02, 3.0, 2.0, 0.95, 0.2

    w, v = start.copy(), np.full(30, 1.0 if variant == "published" else 0.0)
    for step, xi in enumerate(noise, 1):
        g = np.sin(3 * w)
        v = smoothing * v + (1 - smoothing) * g**2
        corrected = v / (1 - smoothing**step) if variant == "published" else v
        scale = 1 / (np.sqrt(corrected) + damping)
        w = w - step_size / 2 * scale * (nbeta * g + localization * (w - start)) + np.sqrt(step_size * scale) * xi

    weight, steps = torch.as_tensor(start), iter(torch.as_tensor(noise))
    weight = weight.clone()
    sampler = RMSpropSGLD(
        [weight],
        step_size=step_size,
        nbeta=nbeta,
        localization=localization,
        smoothing=smoothing,
        damping=damping,
        variant=variant,
        noise=lambda _: next(steps),
    )
    _advance(sampler, weight, lambda x: torch.sin(3 * x), 50)
    np.testing.assert_allclose(weight.numpy(), w, rtol=1e-10, atol=1e-12)


def test_the_variants_agree_once_the_start_is_forgotten() -> None:
    scales = []
    for variant in ("published", "devinterp"):
        weight = torch.zeros(1, dtype=torch.float64)
        sampler = RMSpropSGLD([weight], step_size=1e-6, nbeta=0.0, localization=0.0, variant=variant, noise=_zeros)
        _advance(sampler, weight, lambda w: torch.full_like(w, 0.5), 3000)
        sampler.noise = _ones
        _advance(sampler, weight, lambda w: torch.full_like(w, 0.5), 1)
        scales.append(weight.item() ** 2 / 1e-6)
    assert scales == pytest.approx([1 / 0.6, 1 / 0.6], rel=1e-6)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"smoothing": 1.0}, "sampler.smoothing must be < 1, got 1.0; the papers use 0.99"),
        ({"smoothing": -0.1}, "sampler.smoothing must be >= 0"),
        ({"smoothing": "high"}, "sampler.smoothing must be a number"),
        ({"damping": 0.0}, "sampler.damping must be > 0"),
        ({"variant": "adam"}, r"sampler.variant must be one of \('published', 'devinterp'\), got 'adam'"),
    ],
)
def test_a_bad_setting_of_rmsprop_is_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RMSpropSGLD([torch.zeros(3)], **SETTINGS, **setting)


# --- names and conventions


def test_a_sampler_without_an_update_says_so() -> None:
    weight = torch.zeros(3)
    sampler = Sampler([weight], **SETTINGS)
    weight.grad = torch.zeros(3)
    with pytest.raises(TypeError, match=r"Sampler must define update\(weight, gradient, state\)"):
        sampler.step()


def test_select_keeps_the_order_of_the_names() -> None:
    names = ["a.weight", "a.bias", "b.weight"]
    assert select(names, None) == names
    assert select(names, ["b.*", "*.weight"]) == ["a.weight", "b.weight"]
    assert select(names, "a.*") == ["a.weight", "a.bias"]


def test_select_refuses_what_matches_nothing() -> None:
    with pytest.raises(InputError, match=r"'c\*' matches no weight; the names are a, b"):
        select(["a", "b"], ["a", "c*"])
    with pytest.raises(InputError, match=r"sampler.parameters is an empty list; leave it null"):
        select(["a", "b"], [])


def test_nbeta_may_be_a_number_or_a_convention() -> None:
    sizes = {"batch_size": 64, "train_size": 1000}
    assert resolve_nbeta(17.5, **sizes) == 17.5
    assert resolve_nbeta("batch", **sizes) == pytest.approx(64 / math.log(64))
    assert resolve_nbeta("train", **sizes) == pytest.approx(1000 / math.log(1000))


def test_an_unknown_convention_of_nbeta_is_refused() -> None:
    with pytest.raises(InputError, match=r"'batch' \(B/ln B\) or 'train' \(n/ln n\), got 'auto'"):
        resolve_nbeta("auto", batch_size=64, train_size=1000)


@pytest.mark.parametrize("name", ["batch", "train"])
def test_a_convention_of_nbeta_needs_two_samples(name: str) -> None:
    with pytest.raises(InputError, match=f"sampler.nbeta={name} needs at least 2 samples, got 1"):
        resolve_nbeta(name, batch_size=1, train_size=1)
