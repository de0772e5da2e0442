"""Sources of points in closed form and of further kernels: exact where a formula is known, and no kernel lost."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command import config
from torch import nn
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel.cli.build import build
from losskernel.data import taxonomy_vectors
from losskernel.errors import DivergenceError, InputError
from losskernel.geometry import AngularCKA, Point
from losskernel.models import MLP, SmallCNN
from losskernel.representations.evaluation import History
from losskernel.representations.points import TRAINED, open_points
from losskernel.representations.sources import Gradients, Laplace, LossKernels, TaxonomyKernel, left_out
from losskernel.representations.sources.loss_kernels import gradient_point
from losskernel.runs.run import Study, run

OWN = {"step_size": 1e-3, "nbeta": 10.0, "localization": 100.0}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def data(probes: int = 12, seed: int = 0) -> lk.Data:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(probes, 4, generator=generator)
    samples = TensorDataset(inputs, torch.arange(probes) % 3)
    return lk.Data(samples, samples, lk.losses.cross_entropy, labels={"group": np.arange(probes) % 3})


def history(folder: Path, step: int | None = 50, sample: Any = None) -> History:
    kept = [(0, network(1)), (10, network(2)), (50, network(0))]
    return History(lambda data, seed: network(seed), lambda: iter(kept), folder, sample, step)


def by_hand(model: nn.Module, data: lk.Data, names: list[str] | None = None) -> np.ndarray:
    """Gradients [N, P] of each probe's loss, one backward pass each, in double precision."""
    double, rows = model.double(), []
    weights = [weight for name, weight in double.named_parameters() if names is None or name in names]
    for inputs, target in data.probes:  # pyright: ignore[reportGeneralTypeIssues]
        loss = data.loss(double(inputs[None].double()), target[None]).sum()
        rows.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)]).numpy())
    return np.stack(rows)


def test_gradients_are_those_of_each_probe_alone_at_every_checkpoint(tmp_path: Path) -> None:
    points = list(Gradients(checkpoints="all")(network(), data(), history(tmp_path)))
    assert [item.name for item in points] == ["gradients", "gradients @ 0", "gradients @ 10"]
    assert [(item.network, item.step, item.kind) for item in points] == [
        (TRAINED, 50, "gradient"),
        ("step 0", 0, "gradient"),
        ("step 10", 10, "gradient"),
    ]
    for item, seed in zip(points, (0, 1, 2), strict=True):
        rows = by_hand(network(seed), data())
        np.testing.assert_allclose(item.point.gram(), rows @ rows.T, rtol=1e-10)


def test_gradients_are_of_the_weights_that_move(tmp_path: Path) -> None:
    points = next(iter(Gradients(weights=["2.*"])(network(), data(), history(tmp_path))))
    rows = by_hand(network(), data(), ["2.weight", "2.bias"])
    np.testing.assert_allclose(points.point.gram(), rows @ rows.T, rtol=1e-10)
    with pytest.raises(InputError, match=r"points\.gradients\.weights: 'five\.\*' matches no weight"):
        list(Gradients(weights=["five.*"])(network(), data(), history(tmp_path)))


def test_blocks_of_probes_give_the_same_gram() -> None:
    names = [name for name, _ in network().named_parameters()]
    whole = gradient_point(network(), data(), names)
    parts = gradient_point(network(), data(), names, numbers=5 * 43)  # five of twelve probes at once
    np.testing.assert_allclose(parts.gram(), whole.gram(), rtol=1e-12)


def test_convolutions_are_differentiated_one_by_one() -> None:
    torch.manual_seed(0)
    model = SmallCNN(1, 3, [2, 3])
    inputs = torch.randn(5, 1, 8, 8)
    samples = TensorDataset(inputs, torch.tensor([0, 1, 2, 0, 1]))
    given = lk.Data(samples, samples, lk.losses.cross_entropy)
    rows = by_hand(model.eval(), given)
    result = gradient_point(model.float(), given, [name for name, _ in model.named_parameters()])
    np.testing.assert_allclose(result.gram(), rows @ rows.T, rtol=1e-9)


def test_what_gradients_refuse(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weights must be a list of globs or null, got '2'"):
        Gradients(weights="2")
    with pytest.raises(
        InputError, match=r"points\.gradients\.checkpoints must be all, none or a list of steps, got 'l"
    ):
        Gradients(checkpoints="last")
    with pytest.raises(InputError, match=r"checkpoints=\[7\]: the run kept 0, 10, 50; raise"):
        list(Gradients(checkpoints=[7])(network(), data(), history(tmp_path)))
    with pytest.raises(InputError, match="has no weights; drop the source"):
        list(Gradients()(nn.Identity(), data(), history(tmp_path)))
    broken = network()
    broken[0].weight.data[0, 0] = torch.nan  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
    with pytest.raises(InputError, match="the loss gradient of probe 0 is not finite"):
        list(Gradients()(broken, data(), history(tmp_path)))


def test_the_laplace_kernel_goes_to_the_gradients(tmp_path: Path) -> None:
    model = MLP(4, 3, [5])
    points = list(Laplace([1e2, 1e4, 1e6], 10.0)(model, data(), history(tmp_path)))
    end = next(iter(Gradients()(model, data(), history(tmp_path)))).point
    angles = [AngularCKA("u").length(item.point, end) for item in points]
    assert [item.name for item in points] == [
        f"Laplace kernel, localization {name}" for name in ("100", "10000", "1e+06")
    ]
    assert points[0].settings == {"localization": 100.0, "nbeta": 10.0}
    assert angles[0] > 30 * angles[1]
    np.testing.assert_allclose(angles[1] / angles[2], 100, rtol=0.05)
    assert [item.name for item in Laplace([50], "train")(model, data(), history(tmp_path))] == ["Laplace kernel"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"localization": 5.0}, "localization must be a list of numbers, got 5.0"),
        ({"localization": [0.0]}, "localization must be > 0"),
        ({"localization": [5.0, 5.0]}, "holds a number twice"),
        ({"nbeta": "batch"}, r"nbeta must be a number or train \(n/ln n\), got 'batch'; there are no minibatches"),
        ({"hessian": "none"}, "hessian must be one of"),
        ({"order": 3}, "order must be 1 or 2"),
        ({"rank": 0}, "rank must be >= 1"),
    ],
)
def test_what_laplace_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Laplace(**({"localization": [10.0], "nbeta": 1.0} | settings))


def test_a_taxonomy_of_labels_is_the_path_similarity_of_its_tree(tmp_path: Path) -> None:
    vectors = taxonomy_vectors([2, 2, 2], width=4, per_class=1, probes_per_class=2)
    source = TaxonomyKernel("class", ["level_1", "level_2"])
    source.check(vectors)
    (points,) = source(network(), vectors, history(tmp_path))
    assert (points.name, points.kind) == ("taxonomy", "target")
    kernel = points.point.gram()
    # Probes 0 and 1 share a class; 2 a parent, 4 a grandparent, 8 the root alone: 0, 2, 4, 6 edges.
    np.testing.assert_allclose(kernel[0, [0, 1, 2, 4, 8]], [1, 1, 1 / 3, 1 / 5, 1 / 7])
    assert np.linalg.eigvalsh(kernel).min() > -1e-10


def test_a_taxonomy_from_a_file_knows_the_classes(tmp_path: Path) -> None:
    path = tmp_path / "tree.json"
    path.write_text(json.dumps({"all": {"animal": ["dog", "cat"], "plant": ["oak"]}}))
    labels = {"kind": np.array(["dog", "cat", "oak", "dog"])}
    given = replace(data(4), labels=labels)
    (points,) = TaxonomyKernel("kind", str(path))(network(), given, history(tmp_path))
    np.testing.assert_allclose(points.point.gram()[0], [1, 1 / 3, 1 / 5, 1])
    with pytest.raises(InputError, match="label=sort: there is no such probe label; choose from kind"):
        TaxonomyKernel("sort", str(path)).check(given)
    with pytest.raises(InputError, match="needs >= 3 classes, got 2"):
        TaxonomyKernel("kind", str(path)).check(replace(given, labels={"kind": np.array(["dog", "cat"] * 2)}))
    with pytest.raises(InputError, match="measure must be one of"):
        TaxonomyKernel("kind", str(path), "distance")
    with pytest.raises(InputError, match=r"got \[\]"):
        TaxonomyKernel("kind", [])
    with pytest.raises(InputError, match="must be a probe label, got 3"):
        TaxonomyKernel(3)  # pyright: ignore[reportArgumentType]


def test_labels_that_are_no_tree_are_refused() -> None:
    labels = {"fine": np.array(["a", "b", "c", "a"]), "coarse": np.array(["x", "x", "y", "y"])}
    with pytest.raises(InputError, match="fine a lies in two groups of the level above"):
        TaxonomyKernel("fine", ["coarse"]).check(replace(data(4), labels=labels))


def _curvature(model: nn.Module, data: lk.Data, moving: list[str], device: torch.device) -> float:
    assert moving == [name for name, _ in network().named_parameters()]
    return CURVATURE


class Sampled:
    """Stands in for the run's sampling: records what was asked, and lets some kernels diverge."""

    def __init__(self, diverging: Mapping[str, int] | None = None) -> None:
        self.asked: list[tuple[str, dict[str, float]]] = []
        self._diverging = dict(diverging or {})

    def __call__(self, model: nn.Module, path: str, settings: Mapping[str, float]) -> lk.LossTraces:
        self.asked.append((path, dict(settings)))
        for word, times in self._diverging.items():
            if word in path and times > 0:
                self._diverging[word] -= 1
                raise DivergenceError(f"chain 0 of {path} left the finite numbers")
        return lk.LossTraces.from_arrays(np.random.default_rng(len(path)).normal(size=(2, 20, 12)))


CURVATURE = 3.5


@pytest.fixture
def known_curvature(monkeypatch: pytest.MonkeyPatch) -> None:
    """A known curvature and verdict, where step sizes and names are tested; those of a run below are computed."""
    verdict = SimpleNamespace(verdict="pass")
    monkeypatch.setattr("losskernel.representations.sources.loss_kernels.largest_curvature", _curvature)
    monkeypatch.setattr("losskernel.representations.sources.loss_kernels.diagnose", lambda traces: verdict)


@pytest.mark.usefixtures("known_curvature")
def test_every_setting_has_its_kernel_and_the_runs_own_is_not_sampled_again(tmp_path: Path) -> None:
    sample = Sampled()
    source = LossKernels(OWN, [10.0, 100.0, 1e6], [10.0, 30.0], "all")
    points = list(source(network(), data(), history(tmp_path, sample=sample)))
    names = ["localization 10", "localization 1e+06", "nbeta 30"]
    assert [item.name for item in points] == [f"loss kernel, {name}" for name in names] + [
        "loss kernel @ 0",
        "loss kernel @ 10",
    ]
    assert [item.traces for item in points] == [path for path, _ in sample.asked]
    assert {item.kind for item in points} == {"loss_kernel"}
    assert (points[0].network, points[0].step, points[3].network, points[3].step) == (TRAINED, 50, "step 0", 0)
    assert points[0].settings["localization"] == 10.0
    assert set(points[0].settings) == {"localization", "nbeta", "step_size", "failed"}
    assert left_out(tmp_path) == {}


@pytest.mark.usefixtures("known_curvature")
def test_steps_are_as_large_as_the_runs_own_beside_the_steepest_direction(tmp_path: Path) -> None:
    sample = Sampled()
    list(LossKernels(OWN, [1.0, 1e6], [1000.0])(network(), data(), history(tmp_path, sample=sample)))
    given = 100.0 + 10.0 * CURVATURE
    steps = [settings["step_size"] for _, settings in sample.asked]
    expected = [1e-3, 1e-3 * given / (1e6 + 10 * CURVATURE), 1e-3 * given / (100 + 1000 * CURVATURE)]
    np.testing.assert_allclose(steps, expected, rtol=1e-6)


@pytest.mark.usefixtures("known_curvature")
def test_steps_stay_stable_where_the_runs_own_are_not(tmp_path: Path) -> None:
    sample = Sampled()
    list(LossKernels(OWN | {"step_size": 1.0}, [1.0, 1e6])(network(), data(), history(tmp_path, sample=sample)))
    steps = [settings["step_size"] for _, settings in sample.asked]
    np.testing.assert_allclose(steps, [1 / (1 + 10 * CURVATURE), 1 / (1e6 + 10 * CURVATURE)], rtol=1e-6)


@pytest.mark.usefixtures("known_curvature")
def test_a_kernel_that_diverges_is_tried_with_smaller_steps_and_then_left_out_by_name(tmp_path: Path) -> None:
    sample = Sampled({"localization=1.zarr": 1, "localization=7": 9})
    source = LossKernels(OWN, [1.0, 7.0, 50.0])
    points = list(source(network(), data(), history(tmp_path, sample=sample)))
    assert [item.name for item in points] == ["loss kernel, localization 1", "loss kernel, localization 50"]
    steps = {path: settings["step_size"] for path, settings in sample.asked}
    assert steps["kernels/localization=1, try 2.zarr"] == steps["kernels/localization=1.zarr"] / 4
    assert points[0].traces == "kernels/localization=1, try 2.zarr"
    assert "loss kernel, localization 7" in left_out(tmp_path)
    assert "left the finite numbers" in left_out(tmp_path)["loss kernel, localization 7"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"own": {"nbeta": 1.0}}, "own must hold step_size, nbeta, localization"),
        ({"own": OWN | {"step_size": 0}}, r"own\.step_size must be > 0"),
        ({"localization": 5}, "localization must be a list of numbers, got 5"),
        ({"nbeta": [-1.0]}, "nbeta must be >= 0"),
        ({"nbeta": [1.0, 1.0]}, r"nbeta holds a number twice: \[1.0, 1.0\]"),
        ({"checkpoints": "some"}, "checkpoints must be all, none or a list of steps"),
    ],
)
def test_what_loss_kernels_refuse(settings: dict[str, Any], message: str) -> None:
    requested: dict[str, Any] = {"own": OWN} | settings
    with pytest.raises(InputError, match=message):
        LossKernels(**requested)


@pytest.mark.usefixtures("known_curvature")
def test_an_nbeta_by_convention_is_resolved_as_the_run_does(tmp_path: Path) -> None:
    sample = Sampled()
    source = LossKernels(OWN | {"nbeta": "batch"}, [5.0], batch_size=8)
    source.check(data())
    list(source(network(), data(), history(tmp_path, sample=sample)))
    assert sample.asked[0][1]["nbeta"] == pytest.approx(8 / np.log(8))
    with pytest.raises(InputError, match=r"batch_size must be a whole number, got None"):
        LossKernels(OWN | {"nbeta": "batch"}).check(data())
    with pytest.raises(InputError, match="schedule=none; choose a schedule"):
        list(source(network(), data(), history(tmp_path)))


def test_further_kernels_are_sampled_kept_and_read_again(tmp_path: Path) -> None:
    schedule = lk.Schedule(chains=2, burn_in=2, draws=10, thinning=1, batch_size=6)
    sampler = partial(lk.SGLD, **OWN)
    study = Study(
        network(),
        data(),
        sampler,
        schedule,
        lk.Training(steps=4, batch_size=6, checkpoints=2),
        points={"loss_kernels": LossKernels(OWN, [1e5], checkpoints=[0])},
        progress=False,
    )
    run(study, tmp_path)
    points = open_points(tmp_path)
    assert points is not None
    assert points.names == ["loss kernel, localization 100000", "loss kernel @ 0"]
    assert points[0].settings["failed"] in (0.0, 1.0)
    traces = lk.open_traces(tmp_path / "kernels" / "localization=100000.zarr")
    requested = traces.meta["identity"]["sampler"]
    assert (requested["localization"], requested["nbeta"]) == (1e5, 10.0)
    direct = Point.from_draws(list(traces.losses.transpose("chain", "probe", "draw").values))
    np.testing.assert_allclose(points[0].point.gram(), direct.gram())
    assert points[0].point.chains == (10, 10)
    trained = np.asarray(open_start(tmp_path / "traces.zarr"))
    np.testing.assert_array_equal(open_start(tmp_path / "kernels" / "localization=100000.zarr"), trained)
    assert not np.array_equal(open_start(tmp_path / "kernels" / "step=0.zarr"), trained)


def open_start(path: Path) -> np.ndarray:
    return lk.open_traces(path).dataset["start_losses"].values


def test_sources_take_the_runs_sampler_from_its_configuration() -> None:
    composed = config("points=[gradients,laplace,loss_kernels]", "sampler.parameters=[trunk.*]", "sampler.nbeta=batch")
    assert list(composed.points.gradients.weights) == ["trunk.*"]
    assert composed.points.loss_kernels.own.localization == composed.sampler.localization
    with pytest.raises(InputError, match=r"points\.laplace\.nbeta must be a number or train"):
        build(composed)
    composed.points.laplace.nbeta = 10.0
    built = build(composed).points["loss_kernels"]
    assert isinstance(built, LossKernels)
    assert (built.batch_size, built.own["nbeta"]) == (composed.schedule.batch_size, "batch")
