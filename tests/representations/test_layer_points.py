"""Layers as points: the network's own activations, at w* and along its training, named and linked as it is built."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel.errors import InputError
from losskernel.geometry import AngularCKA, Point
from losskernel.models import MLP
from losskernel.representations.evaluation import History
from losskernel.representations.points import TRAINED, NamedPoint
from losskernel.representations.sources import Layers

GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(20, 6, generator=GENERATOR)


def data(loss: object = lk.losses.cross_entropy) -> lk.Data:
    targets = torch.arange(20) % 3 if loss is lk.losses.cross_entropy else INPUTS[:, :3]
    probes = TensorDataset(INPUTS, targets)
    return lk.Data(probes, probes, loss, ids=[f"p{number}" for number in range(20)])  # pyright: ignore[reportArgumentType]


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return MLP(6, 3, [5, 4])


def points(source: Layers, given: lk.Data | None = None, model: nn.Module | None = None) -> list[NamedPoint]:
    def kept() -> Iterator[tuple[int, nn.Module]]:
        yield from ((step, network(step)) for step in (0, 10, 40))

    history = History(lambda data, seed: network(seed), kept, Path(), step=40)
    return list(source(network(40) if model is None else model, given or data(), history))


def named(result: list[NamedPoint]) -> dict[str, NamedPoint]:
    return {item.name: item for item in result}


def test_a_classifier_goes_from_its_inputs_to_its_softmax() -> None:
    result = points(Layers(["layers.*"], "none"))
    assert [item.name for item in result] == [
        "inputs",
        "layers.0",
        "layers.1",
        "layers.2",
        "layers.3",
        "logits",
        "softmax",
    ]
    assert [item.kind for item in result] == ["input", *["layer"] * 4, "output", "output"]
    assert [item.position for item in result] == list(range(7))
    assert [item.after for item in result[1:]] == [(item.name,) for item in result[:-1]]
    assert {item.network for item in result[1:]} == {TRAINED}
    assert {item.step for item in result[1:]} == {40}
    assert all(list(item.point.ids) == [f"p{number}" for number in range(20)] for item in result)


def test_points_are_the_activations_own() -> None:
    model, result = network(40), named(points(Layers(["layers.*"], "none")))
    with torch.no_grad():
        hidden = model.layers[1](model.layers[0](INPUTS))  # pyright: ignore[reportIndexIssue, reportCallIssue]
        logits = model(INPUTS)
    space = AngularCKA()
    for name, values in {"inputs": INPUTS, "layers.1": hidden, "logits": logits, "softmax": logits.softmax(1)}.items():
        assert space.length(result[name].point, Point.from_features(values.numpy(), data().ids)) < 1e-5


def test_every_kept_checkpoint_but_the_trained_one_has_its_own_points() -> None:
    result = points(Layers(["layers.1"]))
    assert [item.name for item in result][1:4] == ["layers.1", "logits", "softmax"]
    assert [item.name for item in result][4:] == [
        f"{name} @ {step}" for step in (0, 10) for name in ("layers.1", "logits", "softmax")
    ]
    early = named(result)["logits @ 10"]
    assert (early.network, early.step, early.label, early.after) == ("step 10", 10, "logits", ("layers.1 @ 10",))
    assert named(result)["layers.1 @ 10"].after == ("inputs",)
    with torch.no_grad():
        given = network(10)(INPUTS).numpy()
    assert AngularCKA().length(early.point, Point.from_features(given, data().ids)) < 1e-5
    assert [item.step for item in points(Layers(["layers.1"], [10]))[4:]] == [10, 10, 10]


def test_a_regression_has_an_output_and_no_softmax() -> None:
    result = points(Layers(None, "none"), data(lk.losses.squared_error))
    assert [(item.name, item.kind) for item in result] == [("inputs", "input"), ("output", "output")]


def test_what_cannot_be_recorded_is_named() -> None:
    dead = network(40)
    dead.layers[0].bias.data.fill_(-100.0)  # pyright: ignore[reportIndexIssue]
    with pytest.raises(
        InputError,
        match=r"layers\.1, .*logits of trained: the same for all probes, so there is no kernel; leave it out",
    ):
        points(Layers(["layers.*"], "none"), model=dead)
    with pytest.raises(InputError, match=r"checkpoints=\[10, 20\]: the run kept 0, 10, 40"):
        points(Layers(None, [10, 20]))
    with pytest.raises(InputError, match=r"'conv\*' matches no operation"):
        points(Layers(["conv*"]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patterns": "layers.*"}, r"points\.layers\.patterns must be null, operations or a list of patterns"),
        ({"checkpoints": "last"}, r"points\.layers\.checkpoints must be all, none or a list of steps, got 'last'"),
        ({"checkpoints": [-1]}, r"points\.layers\.checkpoints must be all, none or a list of steps, got \[-1\]"),
        ({"budget": 0}, r"points\.layers\.budget must be > 0"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Layers(**settings)  # pyright: ignore[reportArgumentType]


def test_a_dead_layer_of_a_checkpoint_is_left_out_aloud(caplog: pytest.LogCaptureFixture) -> None:
    def kept() -> Iterator[tuple[int, nn.Module]]:
        weak = network(0)
        weak.layers[2].weight.data.zero_()  # pyright: ignore[reportIndexIssue]
        yield 0, weak

    history = History(lambda data, seed: network(seed), kept, Path(), step=40)
    result = named(list(Layers(["layers.*"])(network(40), data(), history)))
    assert "logits" in result
    assert [name for name in result if name.endswith("@ 0")] == ["layers.0 @ 0", "layers.1 @ 0"]
    assert "layers.2, layers.3, logits of step 0: the same for all probes" in caplog.text


def test_operations_of_the_whole_network() -> None:
    names = [item.name for item in points(Layers("operations", "none"))]
    assert names == ["inputs", "layers.0", "layers.1", "layers.2", "layers.3", "logits", "softmax"]
    assert np.isfinite(AngularCKA().distances([item.point for item in points(Layers("operations", "none"))])).all()
