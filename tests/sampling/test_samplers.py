import copy
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

import losskernel as lk
from losskernel.data import arithmetic
from losskernel.errors import InputError
from losskernel.models import MultitaskMLP
from losskernel.sampling.samplers import SGHMC, SGLD, SGNHT, Phase, RMSpropSGLD, Sampler, resolve_nbeta, select


class Case(NamedTuple):
    """A sampler, and its preconditioner G where gradients are tiny and its memory of the start has faded."""

    build: Callable[..., Sampler]
    scale: float


# A new sampler joins the contract by one entry here.
SAMPLERS = {
    "SGLD": Case(SGLD, 1.0),
    "RMSpropSGLD": Case(partial(RMSpropSGLD, smoothing=0.9, damping=0.1), 10.0),
    "RMSpropSGLD, devinterp": Case(partial(RMSpropSGLD, smoothing=0.9, damping=0.2, variant="devinterp"), 5.0),
    "SGHMC": Case(partial(SGHMC, momentum=0.4), 1.0),
    "SGHMC, no momentum": Case(partial(SGHMC, momentum=0.0), 1.0),
    "SGNHT": Case(partial(SGNHT, momentum=0.4, thermostat_mass=3.0), 1.0),
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


class Well(NamedTuple):
    """Many coordinates [P] of a quadratic L around w* = 1, whose gradients are tiny, so that G is a constant."""

    weight: Tensor
    sampler: Sampler
    gradient: Callable[[Tensor], Tensor]  # of L, noise included
    mean: float  # of w, exact
    curvature: float  # a
    noise: float  # variance of the minibatch noise in the gradient of U

    def expected_variance(self, scale: float) -> float:
        """What the sampler says; its law holds for w / √G."""
        return scale * self.sampler.stationary_variance(self.curvature * scale, self.noise * scale)


def _well(case: Case, relative_step: float, steps: int, noise: float = 0.0) -> Well:
    """Run coordinates in L = h/2 (w - m)² until they have forgotten where they started."""
    curvature, minimum, start, localization = 1e-4, -2.0, 1.0, 4.0
    nbeta = 6.0 / curvature
    a = nbeta * curvature + localization
    weight = torch.full((COORDINATES,), start, dtype=torch.float64)
    normal, step_size = _normal(0), 4 * relative_step / a / case.scale
    sampler = case.build([weight], step_size=step_size, nbeta=nbeta, localization=localization, noise=normal)
    jitter = math.sqrt(noise * a) / nbeta

    def gradient(w: Tensor) -> Tensor:
        exact = curvature * (w - minimum)
        return exact + jitter * normal(w) if noise > 0 else exact

    _advance(sampler, weight, gradient, steps)
    mean = (nbeta * curvature * minimum + localization * start) / a
    return Well(weight, sampler, gradient, mean, a, noise * a)


# --- the contract of every sampler


@every_sampler
@pytest.mark.parametrize("relative_step", [0.05, 0.3])
def test_the_stationary_law_of_a_quadratic_well(case: Case, relative_step: float) -> None:
    well = _well(case, relative_step, steps=400)
    expected = well.expected_variance(case.scale)
    assert (well.weight.mean().item() - well.mean) / math.sqrt(expected / COORDINATES) == pytest.approx(0, abs=4)
    relative_error = math.sqrt(2 / COORDINATES)
    assert (well.weight.var().item() / expected - 1) / relative_error == pytest.approx(0, abs=4)
    if case.build is SGLD and relative_step > 0.1:  # the continuous-time variance is far outside the error bar
        assert (well.weight.var().item() * well.curvature - 1) / relative_error > 20


@every_sampler
def test_minibatch_noise_inflates_the_variance_as_stated(case: Case) -> None:
    well = _well(case, relative_step=0.05, steps=300, noise=2.0)
    variances = []
    for _ in range(10):
        _advance(well.sampler, well.weight, well.gradient, 20)
        variances.append(well.weight.var().item())
    assert np.mean(variances) / well.expected_variance(case.scale) == pytest.approx(1, abs=0.015)


@every_sampler
@pytest.mark.parametrize("relative_step", [0.02, 0.15])
def test_autocorrelations_decay_in_the_stated_relaxation_time(case: Case, relative_step: float) -> None:
    well = _well(case, relative_step, steps=200)
    path = [_advance(well.sampler, well.weight, well.gradient, 1).clone() - well.mean for _ in range(80)]
    lags, starts = 16, range(0, 64, 2)
    measured = np.array([np.mean([torch.dot(path[t], path[t + lag]) for t in starts]) for lag in range(lags)])
    # n numbers that obey x' = M x have autocovariances that obey a recurrence of n terms, whose roots are M's.
    transition, noises = well.sampler.transition(well.curvature * case.scale)
    terms = len(transition)
    windows = np.lib.stride_tricks.sliding_window_view(measured, terms + 1)
    coefficients = np.linalg.lstsq(windows[:, :-1], windows[:, -1], rcond=None)[0]
    radius = np.abs(np.roots([1, *-coefficients[::-1]])).max()
    assert -1 / math.log(radius) == pytest.approx(well.sampler.relaxation_steps(well.curvature * case.scale), rel=0.1)
    stationary = solve_discrete_lyapunov(transition, noises)
    stated = [(np.linalg.matrix_power(transition, lag) @ stationary)[0, 0] for lag in range(lags)]
    np.testing.assert_allclose(measured / measured[0], np.array(stated) / stated[0], atol=0.03)


@every_sampler
def test_the_bias_has_the_stated_order_in_the_step_size(case: Case) -> None:
    # U = w²/2 + 0.3 cos 3w, whose force is bounded by a line, so that large steps stay stable.
    grid = np.linspace(-9, 9, 20_001)
    density = np.exp(-(grid**2) / 2 - 0.3 * np.cos(3 * grid))
    exact = np.average(np.cos(3 * grid), weights=density)
    start = np.interp((np.arange(COORDINATES) + 0.5) / COORDINATES, np.cumsum(density) / density.sum(), grid)
    tiny = 1e-6

    def bias(step_size: float) -> tuple[float, int]:
        weight = torch.from_numpy(start.copy())
        settings = {"step_size": step_size / case.scale, "nbeta": 1 / tiny, "localization": 0.0}
        sampler, means = case.build([weight], **settings, noise=_normal(0)), []

        def gradient(w: Tensor) -> Tensor:
            return tiny * (w - 0.9 * torch.sin(3 * w))

        _advance(sampler, weight, gradient, 60)
        for _ in range(200):
            _advance(sampler, weight, gradient, 2)
            means.append(torch.cos(3 * weight).mean().item())
        return float(np.mean(means)) - exact, sampler.order

    (coarse, order), (fine, _) = bias(0.32), bias(0.16)
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.45)


@every_sampler
def test_the_acceptance_ratio_is_that_of_the_step(case: Case) -> None:
    # From states of the target, the ratio of a step and its reverse has the mean 1 whatever the step size.
    well = _well(case, relative_step=0.3, steps=400)
    step_size, normal, weight = well.sampler.step_size, _normal(7), well.weight
    state = well.sampler.state[weight]

    def phase() -> Phase:
        at, kept = weight.clone()[:, None], copy.deepcopy(dict(state))
        columns = {key: value[:, None] if isinstance(value, Tensor) else value for key, value in kept.items()}
        return Phase(at, well.curvature * (at - well.mean), well.curvature / 2 * (at - well.mean)[:, 0] ** 2, columns)

    weight.copy_(well.mean + normal(weight) / math.sqrt(well.curvature))
    if isinstance(well.sampler, SGHMC):  # in the middle of a kick it is standard normal
        half_kick = math.sqrt(step_size) / 2 * well.curvature * (weight - well.mean)
        state["momentum"].copy_(normal(weight) + half_kick)
    if isinstance(well.sampler, SGNHT):
        state["thermostat"].copy_(normal(weight) / math.sqrt(well.sampler.thermostat_mass))
    before = phase()
    _advance(well.sampler, weight, well.gradient, 1)
    ratio = well.sampler.log_acceptance(before, phase())
    assert ratio.exp().mean().item() == pytest.approx(1, abs=4 * ratio.exp().std().item() / math.sqrt(COORDINATES))
    assert ratio.mean().item() < -0.005


@every_sampler
def test_the_localisation_pulls_back_to_the_start(case: Case) -> None:
    weight = torch.full((COORDINATES,), 2.0, dtype=torch.float64)
    sampler = case.build([weight], step_size=0.05, nbeta=0.0, localization=2.0, noise=_normal(0))
    weight += 1.0
    distances = [1.0]
    for _ in range(400):
        _advance(sampler, weight, torch.zeros_like, 1)
        distances.append(abs(weight.mean().item() - 2.0))
    assert all(after < before for before, after in itertools.pairwise(distances[:10]))
    assert distances[-1] < 4 * math.sqrt(0.6 / COORDINATES)


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
        # Small, for what gradients do to friction is another matter.
        moved.append(_advance(sampler, weight, lambda w: torch.tensor([1e-3, -2e-3, 1e-4], dtype=w.dtype), 1))
    torch.testing.assert_close(moved[1], 7 * moved[0], rtol=1e-6, atol=0.0)
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


# --- SGHMC


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_sghmc_states_its_own_law_in_a_quadratic_well(momentum: float) -> None:
    sampler = SGHMC([torch.zeros(1)], step_size=0.12, nbeta=1.0, localization=0.0, momentum=momentum)
    # Exact for every stable step, and minibatch noise s² is amplified as much as slow directions are sped up.
    for curvature in (0.01, 10.0, 33.0):
        assert sampler.stationary_variance(curvature) == pytest.approx(1 / curvature)
    amplified = (1 + momentum) / (1 - momentum) * 0.12 * 5 / (4 - 0.12 * 10)
    assert sampler.stationary_variance(10.0, 5.0) == pytest.approx((1 + amplified) / 10)
    assert sampler.stationary_variance(34.0) == math.inf
    # A slow direction relaxes as with the step ε (1 + m) / (1 - m); a fast one as momenta do.
    slow = 0.12 * (1 + momentum) / (1 - momentum)
    assert sampler.relaxation_steps(1e-4) == pytest.approx(2 / (slow * 1e-4), rel=2e-3)
    assert sampler.relaxation_steps(1 / 0.06) == pytest.approx(
        -2 / math.log(momentum) if momentum > 0 else 0.0, abs=0.05
    )
    assert sampler.relaxation_steps(0.0) > 1e12


def _path(build: Callable[..., Sampler], noise: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Weights [T, P] of a sampler on L = 1 - cos(3 w) / 3, given its noise [T, P]."""
    weight, steps = torch.as_tensor(start).clone(), iter(torch.as_tensor(noise))
    sampler = build([weight], step_size=0.02, nbeta=3.0, localization=2.0, noise=lambda _: next(steps))
    weight += 0.1
    path = [_advance(sampler, weight, lambda x: torch.sin(3 * x), 1).clone() for _ in range(len(noise))]
    return torch.stack(path).numpy()


def test_sghmc_follows_a_plain_numpy_recursion() -> None:
    rng = np.random.default_rng(0)
    start, noise = rng.normal(size=30), rng.normal(size=(50, 30))
    w, p, h, m = start + 0.1, np.zeros(30), math.sqrt(0.02), 0.7
    expected = []
    for xi in noise:
        p = p - h * (3 * np.sin(3 * w) + 2 * (w - start))
        w = w + h / 2 * p
        p = m * p + math.sqrt(1 - m**2) * xi
        w = w + h / 2 * p
        expected.append(w)
    np.testing.assert_allclose(_path(partial(SGHMC, momentum=m), noise, start), expected, rtol=1e-10, atol=1e-12)


def test_sghmc_without_momentum_is_an_sgld_with_averaged_noise() -> None:
    rng = np.random.default_rng(0)
    start, noise = rng.normal(size=30), rng.normal(size=(50, 30))
    averaged = (noise + np.vstack([np.zeros(30), noise[:-1]])) / 2
    path = _path(partial(SGHMC, momentum=0.0), noise, start)
    np.testing.assert_allclose(path, _path(SGLD, averaged, start), rtol=1e-10, atol=1e-12)


def test_sghmc_refuses_a_localisation_that_diverges() -> None:
    with pytest.raises(InputError, match=r"step_size \* sampler.localization must be < 4, got 0.04 \* 100"):
        SGHMC([torch.zeros(3)], step_size=0.04, nbeta=0.0, localization=100.0)


@pytest.mark.parametrize("build", [SGHMC, SGNHT])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"momentum": 1.0}, "sampler.momentum must be < 1, got 1.0; lower sampler.momentum"),
        ({"momentum": -0.1}, "sampler.momentum must be >= 0"),
        ({"momentum": "high"}, "sampler.momentum must be a number"),
    ],
)
def test_a_bad_momentum_is_refused(build: Callable[..., Sampler], setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build([torch.zeros(3)], **SETTINGS, **setting)


# --- SGNHT


def test_sgnht_follows_a_plain_numpy_recursion() -> None:
    rng = np.random.default_rng(0)
    start, noise = rng.normal(size=30), rng.normal(size=(50, 30))
    w, p, chi, h, m, mu = start + 0.1, np.zeros(30), np.zeros(30), math.sqrt(0.02), 0.7, 0.3
    expected = []
    for xi in noise:
        p = p - h * (3 * np.sin(3 * w) + 2 * (w - start))
        w = w + h / 2 * p
        chi = chi + h / (2 * mu) * (p**2 - 1)
        p = np.exp(-h * chi / 2) * p
        p = m * p + math.sqrt(1 - m**2) * xi
        p = np.exp(-h * chi / 2) * p
        chi = chi + h / (2 * mu) * (p**2 - 1)
        w = w + h / 2 * p
        expected.append(w)
    build = partial(SGNHT, momentum=m, thermostat_mass=mu)
    np.testing.assert_allclose(_path(build, noise, start), expected, rtol=1e-10, atol=1e-12)


def test_sgnht_with_heavy_thermostats_is_sghmc() -> None:
    rng = np.random.default_rng(0)
    start, noise = rng.normal(size=30), rng.normal(size=(50, 30))
    path = _path(partial(SGNHT, momentum=0.7, thermostat_mass=1e12), noise, start)
    np.testing.assert_allclose(path, _path(partial(SGHMC, momentum=0.7), noise, start), rtol=1e-9)


def test_sgnht_states_that_it_absorbs_minibatch_noise() -> None:
    settings = {"step_size": 0.02, "nbeta": 1.0, "localization": 0.0, "momentum": 0.4}
    plain, thermostatted = SGHMC([torch.zeros(1)], **settings), SGNHT([torch.zeros(1)], **settings)
    assert plain.stationary_variance(10.0, 20.0) == pytest.approx(0.1 * (1 + 1.4 / 0.6 * 0.4 / 3.8))
    assert 0.094 < thermostatted.stationary_variance(10.0, 20.0) < 0.1  # it cools a little too much
    assert thermostatted.stationary_variance(10.0) == pytest.approx(0.1)
    # Kicks hotter than the target by themselves are beyond any friction; so is a step that is not stable.
    assert thermostatted.stationary_variance(10.0, 1000.0) > 0.1
    assert thermostatted.stationary_variance(210.0, 20.0) == math.inf


def test_thermostats_cool_noise_in_single_weights_but_not_in_a_direction_that_weights_share() -> None:
    # Two weights in equal wells meet one common minibatch noise: their sum stays hot, their difference overcools.
    normal, weight = _normal(0), torch.zeros(2, 4000, dtype=torch.float64)
    sampler = SGNHT(
        [weight], step_size=0.02, nbeta=1.0, localization=0.0, momentum=0.4, thermostat_mass=3.0, noise=normal
    )
    moments = []
    for step in range(900):
        _advance(sampler, weight, lambda w: 10 * w + math.sqrt(20) * normal(w[0]), 1)
        if step >= 300:
            first, second = weight
            moments.append([first.var(), ((first + second) / 2**0.5).var(), ((first - second) / 2**0.5).var()])
    item, together, apart = 10 * np.mean(moments, axis=0)
    assert item == pytest.approx(10 * sampler.stationary_variance(10.0, 20.0), abs=0.02)
    assert together > 1.08
    assert apart < 0.92


def test_a_bad_mass_of_the_thermostats_is_refused() -> None:
    with pytest.raises(InputError, match=r"sampler.thermostat_mass must be > 0, got 0.0"):
        SGNHT([torch.zeros(3)], **SETTINGS, thermostat_mass=0.0)


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


class Halved(SGLD):
    """A sampler of one's own that is preconditioned, without saying so in its settings."""

    def preconditioner(self, weight: Tensor, state: dict[str, Any]) -> Tensor:
        return torch.full_like(weight, 0.5)


def test_plain_steps_noise_is_not_reckoned_for_a_preconditioned_sampler_of_ones_own() -> None:
    data, schedule = arithmetic(probes_per_task=10), lk.Schedule(chains=2, burn_in=5, draws=20, thinning=1)
    torch.manual_seed(0)
    model = MultitaskMLP(2)
    for kind, known in ((SGLD, True), (Halved, False)):
        sampler = partial(kind, step_size=1e-4, nbeta=10.0, localization=10.0)
        traces = lk.sample(model, data, sampler, schedule, progress=False)
        assert traces.meta["preconditioned"] is not known
        assert ("noise_to_gradient" in lk.diagnose(traces).metrics) is known
