from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, relu
from torch.utils.data import TensorDataset

from losskernel.data import Data
from losskernel.errors import InputError, TraceError
from losskernel.geometry import AngularCKA, Point
from losskernel.losses import cross_entropy
from losskernel.models import MLP, MultitaskMLP, SmallCNN, inception_v1, resnet18
from losskernel.representations.activations import INPUTS, Graph, choose, record, trace_graph
from losskernel.representations.activations.recording import SINGLE_PRECISION_INPUTS, Triangle, passes
from losskernel.representations.points import StoredPoint, open_point, write_point


def _data(shape: tuple[int, ...], count: int = 12, kind: torch.dtype = torch.float64) -> Data:
    inputs = torch.randn(count, *shape, generator=torch.Generator().manual_seed(1)).to(kind)
    probes = TensorDataset(inputs, torch.zeros(count, dtype=torch.long))
    return Data(probes, probes, cross_entropy, ids=[f"probe {item}" for item in range(count)])


def _inputs(data: Data) -> Tensor:
    return data.probes.tensors[0]  # pyright: ignore[reportAttributeAccessIssue]


def _double(model: nn.Module) -> nn.Module:
    """With statistics that tell BatchNorm from doing nothing."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.01, 0.1)
            nn.init.normal_(module.bias, 0, 0.3)
    return model.double().eval()


def _centred_gram(values: Tensor) -> np.ndarray:
    rows = values.detach().flatten(1).double().numpy()
    rows = rows - rows.mean(0)
    return rows @ rows.T


def _hooked(model: nn.Module, inputs: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Values of modules by plain hooks, copied before anything can overwrite them."""
    result: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    handles = [
        modules[name].register_forward_hook(lambda m, i, o, name=name: result.update({name: o.detach().clone()}))
        for name in names
    ]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return result


def _points(model: nn.Module, data: Data, graph: Graph, **more: int) -> dict[str, Point]:
    return {name: point for name, point in record(model, data, graph, **more) if point is not None}


def _same(point: Point, gram: np.ndarray, tolerance: float = 1e-10) -> bool:
    return bool(np.abs(point.gram() - gram).max() <= tolerance * np.abs(gram).max())


# -- which operations, and how they follow each other --


def test_operations_of_a_multilayer_perceptron_are_a_chain() -> None:
    graph = choose(trace_graph(MLP(6, 3, [5, 4]), _data((2, 3), kind=torch.float32)), "operations")
    assert graph.names == tuple(f"layers.{item}" for item in range(5))  # the flattening is the inputs themselves
    assert graph.edges == {
        "layers.0": (INPUTS,), **{f"layers.{item}": (f"layers.{item - 1}",) for item in range(1, 5)}
    }  # fmt: skip
    assert graph.widths == {"layers.0": 5, "layers.1": 5, "layers.2": 4, "layers.3": 4, "layers.4": 3}


def test_a_residual_sum_follows_on_both_its_branches() -> None:
    graph = trace_graph(resnet18(outputs=4), _data((3, 32, 32), kind=torch.float32))
    assert graph.edges["layer1.0.add"] == ("layer1.0.bn2", "maxpool")
    assert graph.edges["layer2.0.add"] == ("layer2.0.bn2", "layer2.0.downsample.1")
    sums = choose(graph, ["*.*.add"])
    assert sums.names == tuple(f"layer{stage}.{block}.add" for stage in range(1, 5) for block in range(2))
    # Both of a block's branches lead back to the block before.
    assert [sums.edges[name] for name in sums.names] == [(INPUTS,), *((name,) for name in sums.names[:-1])]
    skipping = choose(graph, ["maxpool", "layer1.0.bn2", "layer1.0.add"])
    assert skipping.edges["layer1.0.add"] == ("layer1.0.bn2", "maxpool")


def test_branches_of_inception_stay_branches() -> None:
    graph = trace_graph(inception_v1(outputs=4), _data((3, 32, 32), kind=torch.float32))
    chosen = choose(graph, ["inception3a.branch?", "inception3?", "maxpool2"])
    branches = tuple(f"inception3a.branch{item}" for item in range(1, 5))
    assert chosen.names == ("maxpool2", *branches, "inception3a", "inception3b")
    assert chosen.edges["inception3a"] == branches
    assert all(chosen.edges[branch] == ("maxpool2",) for branch in branches)
    assert chosen.operations["inception3a"] == "inception3a.cat"
    assert chosen.operations["inception3a.branch1"] == "inception3a.branch1.relu"
    assert sum(chosen.widths[branch] for branch in branches) == chosen.widths["inception3a"]


def test_what_returns_its_inputs_is_only_another_name() -> None:
    data = _data((3, 32, 32), kind=torch.float32)
    graph = trace_graph(inception_v1(outputs=4), data)
    # At 32 pixels the last map is a single position, whose mean it is already.
    assert {name: graph.aliases[name] for name in ("avgpool", "flatten", "dropout")} == dict.fromkeys(
        ("avgpool", "flatten", "dropout"), "inception5b.cat"
    )
    assert trace_graph(resnet18(outputs=4), _data((3, 64, 64), kind=torch.float32)).aliases["flatten"] == "avgpool"
    assert choose(graph, ["flatten", "fc"]).edges == {"flatten": (INPUTS,), "fc": ("flatten",)}
    assert "dropout" not in choose(graph).names


class _Slices(nn.Module):
    """Halves of the units, one rectified, and their rearrangement."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.scale = nn.Parameter(torch.ones(5, 6))

    def forward(self, inputs: Tensor) -> Tensor:
        whole = self.linear(inputs)
        left, right = whole.chunk(2, dim=1)
        third = whole[:, :2]
        turned = whole.reshape(inputs.shape[0], 2, 3).transpose(1, 2)
        return torch.cat([relu(left) + right, third, turned.contiguous().flatten(1) * self.scale.mean()], 1)


def test_parts_of_others_are_points_only_where_they_are_asked_for() -> None:
    graph = trace_graph(_Slices(), _data((6,), kind=torch.float32))
    assert choose(graph, "operations").names == ("linear", "relu", "add", "mul", "cat")
    assert graph.edges["add"] == ("relu", "getitem_1")
    assert choose(graph, "operations").edges["add"] == ("relu", "linear")
    assert choose(graph, "operations").edges["mul"] == ("linear",)  # and not the parameter
    assert graph.parts == {"getitem", "getitem_1", "getitem_2"}
    assert choose(graph, ["getitem_2"]).widths == {"getitem_2": 2}


class _Overwriting(nn.Module):
    """Adds to its first activation in place, without looking at what the sum returns."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        hidden.add_(inputs)
        return self.second(hidden)


def test_what_is_overwritten_comes_from_what_did_it() -> None:
    model, data = _double(_Overwriting()), _data((3,))
    graph = trace_graph(model, data)
    assert graph.edges == {"first": (INPUTS,), "add_": ("first", INPUTS), "second": ("add_",)}
    points = _points(model, data, graph)
    hidden = model.first(_inputs(data))
    assert _same(points["first"], _centred_gram(hidden))
    assert _same(points["add_"], _centred_gram(hidden + _inputs(data)))


class _Greedy(nn.Module):
    """Overwrites its inputs, and is different every time where it is followed."""

    def __init__(self, random: bool) -> None:
        super().__init__()
        self.random = random
        self.relu, self.linear = nn.ReLU(inplace=True), nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.linear(self.relu(inputs))
        return dropout(outputs) if self.random else outputs


def test_networks_that_overwrite_their_inputs_leave_the_probes_alone() -> None:
    for random in (False, True):
        model, data = _double(_Greedy(random)), _data((3,))
        before = _inputs(data).clone()
        graph = trace_graph(model, data)
        assert bool(graph.untraced) == random  # hooks then
        assert ("other outputs than the network" in graph.untraced) == random
        points = _points(model, data, choose(graph))
        assert bool((_inputs(data) == before).all())
        assert _same(points["relu"], _centred_gram(before.relu()))


# -- choosing --


def test_globs_stop_at_dots_and_regular_expressions_do_not() -> None:
    graph = trace_graph(SmallCNN(3, 4), _data((3, 8, 8), kind=torch.float32))
    assert choose(graph, ["*"]).names == ("features", "mean", "head")
    assert choose(graph, ["features.[04]"]).names == ("features.0", "features.4")
    assert choose(graph, [r"re:features\.\d"]).names == tuple(f"features.{item}" for item in range(8))
    assert choose(graph).names == choose(graph, None).names == ("features", "head")
    assert choose(graph, ["features", "re:.*"]).names[7:] == ("features", "mean", "head")  # first patterns name
    assert choose(graph, ["re:.*"]).names == choose(graph, "operations").names


def test_patterns_that_choose_nothing_are_named() -> None:
    graph = trace_graph(SmallCNN(3, 4), _data((3, 8, 8), kind=torch.float32))
    with pytest.raises(InputError, match=r"analysis\.path\.layers: 'conv\*' matches no operation .* features\.0"):
        choose(graph, ["conv*"], "analysis.path.layers")
    with pytest.raises(InputError, match=r"'re:\(' is no regular expression"):
        choose(graph, ["re:("])
    with pytest.raises(InputError, match=r"must be null, operations or a list, got 'head'; write \['head'\]"):
        choose(graph, "head")
    with pytest.raises(InputError, match="must be a list of patterns, got 3"):
        choose(graph, [3])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"patterns is \[\], but none of them returns a tensor; list others, such as"):
        choose(graph, [])
    towers = trace_graph(MultitaskMLP(2, towers=True), _data((4,), kind=torch.float32))
    with pytest.raises(
        InputError, match=r"is None, but no child of the network returns a tensor; .* towers\.0\.layers"
    ):
        choose(towers)


# -- recording --


def test_recorded_modules_are_those_of_plain_hooks() -> None:
    for model, shape in ((MLP(12, 3), (3, 2, 2)), (SmallCNN(3, 4), (3, 8, 8)), (resnet18(outputs=4), (3, 32, 32))):
        model, data = _double(model), _data(shape)
        names = [name for name, module in model.named_modules() if not list(module.children())]
        called_once = [name for name in names if not (name.startswith("layer") and name.endswith("relu"))]
        expected = _hooked(model, _inputs(data), called_once)
        graph = trace_graph(model, data)
        points = _points(model, data, choose(graph, "operations"))
        assert len(points) == len(graph.names)
        for name, values in expected.items():
            assert _same(points[graph.aliases.get(name, name)], _centred_gram(values)), name
        assert all(point.ids is points[graph.names[0]].ids for point in points.values())


def test_a_residual_sum_is_recorded_before_it_is_rectified_in_place() -> None:
    model, data = _double(resnet18(outputs=4)), _data((3, 32, 32))
    points = _points(model, data, choose(trace_graph(model, data), ["maxpool", "layer1.0.*"]))
    values = _hooked(model, _inputs(data), ["maxpool", "layer1.0.bn2"])
    total = values["layer1.0.bn2"] + values["maxpool"]
    assert bool((total < 0).any())
    assert _same(points["layer1.0.add"], _centred_gram(total))
    assert _same(points["layer1.0.relu_1"], _centred_gram(total.relu()))
    assert not _same(points["layer1.0.add"], _centred_gram(total.relu()), 1e-3)


def test_a_module_stands_for_the_operation_that_it_ends_with() -> None:
    model, data = _double(inception_v1(outputs=4)), _data((3, 32, 32), 6)
    names = ["conv1", "inception3a", "inception3a.branch2", "inception5b", "fc"]
    points = _points(model, data, choose(trace_graph(model, data), names))
    for name, values in _hooked(model, _inputs(data), names).items():
        assert _same(points[name], _centred_gram(values)), name


def test_the_budget_changes_passes_and_not_points() -> None:
    model, data = _double(SmallCNN(3, 4)), _data((3, 8, 8), 70)
    graph = choose(trace_graph(model, data), "operations")
    whole = _points(model, data, graph)
    columns = 70 * 8
    for budget in (columns * 50, columns * 333, columns * 4000):
        parts = _points(model, data, graph, budget=budget)
        assert list(parts) == list(whole)
        assert all(_same(parts[name], whole[name].gram(), 1e-12) for name in whole)
        assert {name for name in parts if parts[name].factor is not None} == {"mean", "head"}
    single = _points(model.float(), _data((3, 8, 8), 70, torch.float32), graph)
    assert all(_same(single[name], whole[name].gram(), 1e-5) for name in whole)


def test_passes_fill_the_budget_and_keep_factors_whole() -> None:
    planned = passes({"wide": 25, "narrow": 4, "head": 2}, inputs=8, itemsize=4, budget=10 * 32)
    assert [[(piece.name, piece.start, piece.stop, piece.last) for piece in item] for item in planned] == [
        [("wide", 0, 10, False)],
        [("wide", 10, 20, False)],
        [("wide", 20, 25, True), ("narrow", 0, 4, True)],
        [("head", 0, 2, True)],
    ]
    assert [len(item) for item in passes({"wide": 3}, inputs=8, itemsize=4, budget=1)] == [1, 1, 1]


def test_the_callers_network_stays_as_it_was() -> None:
    model, data = SmallCNN(3, 4).train(), _data((3, 8, 8), kind=torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _points(model, data, choose(trace_graph(model, data)))
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())
    assert all(bool((value == before[name]).all()) for name, value in model.state_dict().items())


def test_products_of_many_probes_go_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(40, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("losskernel.representations.activations.recording._NUMBERS", 120)
    for double, columns, tolerance in ((True, values, 1e-14), (False, values.float(), 1e-6)):
        if not double:
            monkeypatch.setattr("losskernel.representations.activations.recording.SINGLE_PRECISION_INPUTS", 40)
        triangle = Triangle(40, double)
        triangle.add(columns[:, :3])
        triangle.add(columns[:, 3:])
        assert triangle.values.dtype == (np.float64 if double else np.float32)
        assert _same(Point(np.arange(40), triangle=triangle.values), (values @ values.T).numpy(), tolerance)
    assert SINGLE_PRECISION_INPUTS == 4096


# -- what cannot be recorded --


def test_a_layer_that_is_the_same_for_all_probes_is_no_point() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 30), nn.ReLU(), nn.Linear(30, 2))
    with torch.no_grad():
        model[2].bias.fill_(-1e4)
    data = _data((4,), kind=torch.float32)
    result = dict(record(model, data, choose(trace_graph(model, data), ["*"]), budget=12 * 4 * 7))
    assert {name: point is None for name, point in result.items()} == {
        "0": False, "1": False, "2": False, "3": True, "4": True
    }  # fmt: skip


def test_activations_that_are_not_finite_are_named_with_the_probe() -> None:
    model, data = MLP(4, 2, [3]), _data((4,), 70, torch.float32)
    graph = trace_graph(model, data)
    _inputs(data)[66, 1] = float("nan")
    with pytest.raises(InputError, match=r"activations of layers\.0 are not finite, first at probe probe 66"):
        list(record(model, data, graph))


def test_products_beyond_single_precision_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losskernel.representations.activations.recording.SINGLE_PRECISION_INPUTS", 4)
    model, data = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8)), _data((4,), kind=torch.float32)
    for scale in (1e20, 1e-25):
        scaled = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8))
        scaled.load_state_dict({name: value * scale for name, value in model.state_dict().items()})
        with pytest.raises(InputError, match="products of activations of 0 leave single precision; call double"):
            list(record(scaled, data, choose(trace_graph(scaled, data), ["0"])))


def test_the_graph_must_be_the_networks_own() -> None:
    data = _data((4,), kind=torch.float32)
    graph = trace_graph(MLP(4, 2, [3, 3]), data)
    with pytest.raises(InputError, match=r"MLP has no operation layers\.3, layers\.4; use this network's graph"):
        record(MLP(4, 2, [3]), data, graph)
    with pytest.raises(InputError, match=r"layers\.0 has 5 numbers per probe, its graph 3"):
        list(record(MLP(4, 2, [5, 3]), data, graph))
    with pytest.raises(InputError, match=r"torch\.fx cannot trace _Deciding"):
        record(_Deciding(), data, graph)
    with pytest.raises(InputError, match="budget must be >= 1"):
        record(MLP(4, 2, [3, 3]), data, graph, budget=0)
    with pytest.raises(InputError, match=r"MLP cannot be evaluated on the probes: .* give a network that fits them"):
        trace_graph(MLP(5, 2), data)


class _Deciding(nn.Module):
    """Goes by what it is given, which torch.fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True))
        self.again = nn.Linear(6, 6)
        self.rare = nn.Linear(6, 6)
        self.drop = nn.Dropout()
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        if len(hidden) > 5:
            hidden = self.rare(hidden)
        for _ in range(2):
            hidden = self.again(hidden)
        return self.head(self.drop(hidden))


def test_modules_of_a_network_that_cannot_be_followed_are_a_chain() -> None:
    model, data = _double(_Deciding()), _data((4,), 70)
    graph = trace_graph(model, data)
    assert "_Deciding cannot be traced by torch.fx" in graph.untraced
    assert graph.names == ("first.0", "first.1", "again", "again_1", "head")
    assert graph.aliases == {"first": "first.1", "drop": "again_1"}
    chosen = choose(graph, ["first", "again*", "head"])
    assert chosen.edges == {"first": (INPUTS,), "again": ("first",), "again_1": ("again",), "head": ("again_1",)}
    assert choose(graph).names == ("first", "again", "drop", "head")
    points = _points(model, data, choose(graph, ["re:.*"]))
    with torch.no_grad():
        linear = model.first[0](_inputs(data))
        assert _same(points["first.0"], _centred_gram(linear))
        rare = model.rare(linear.relu())
        assert _same(points["again_1"], _centred_gram(model.again(model.again(rare))))
    with pytest.raises(InputError, match=r"patterns=operations: _Deciding cannot be traced .* list patterns"):
        choose(graph, "operations")
    with pytest.raises(InputError, match=r"MLP has no operation first\.1, again, again_1, head"):
        record(MLP(4, 2), data, chosen)


def test_an_untraceable_network_without_modules_and_a_layer_left_out_later() -> None:
    class Bare(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs * 2 if len(inputs) else inputs

    data = _data((4,), kind=torch.float32)
    with pytest.raises(InputError, match="Bare has no module that returns a tensor"):
        trace_graph(Bare(), data)
    model = _double(_Deciding())
    few = _data((4,), 4)
    with pytest.raises(InputError, match=r"rare was evaluated for 64 of 68 probes"):
        list(record(model, _data((4,), 68), choose(_with_rare(trace_graph(model, few)), ["rare"])))


def _with_rare(graph: Graph) -> Graph:
    """As if the module had been seen."""
    names = ("rare", *graph.names)
    return Graph(
        names, {**graph.edges, "rare": (INPUTS,)}, {**graph.widths, "rare": 6}, {name: name for name in names},
        untraced=graph.untraced,
    )  # fmt: skip


# -- on disk --


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_stored_point_is_the_point(tmp_path: Path, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losskernel.representations.points.store._CHUNK", 100)
    monkeypatch.setattr("losskernel.representations.points.store._WINDOW", 250)
    features = np.random.default_rng(0).normal(size=(40, 50)).astype(kind)
    point = Point.from_features(features, [f"probe {item}" for item in range(40)])
    stored = write_point(point, tmp_path / "layer.zarr")
    assert isinstance(stored, StoredPoint)
    for start, stop in [(0, 3), (3, 4), (4, 20), (20, 40), (2, 5), (39, 40), (30, 64)]:  # forwards, back, beyond
        np.testing.assert_array_equal(stored.rows(start, stop), point.rows(start, min(stop, 40)))
    np.testing.assert_array_equal(stored.gram(), point.gram())
    np.testing.assert_array_equal(stored.diagonal(), point.diagonal())
    np.testing.assert_array_equal(stored.sums(), point.sums())
    np.testing.assert_array_equal(stored.triangle_entries(), point.triangle)
    assert stored.rows(0, 2).dtype == kind
    assert stored.ids is point.ids
    again = write_point(stored, tmp_path / "copy.zarr")
    np.testing.assert_array_equal(again.gram(), point.gram())
    assert sorted(item.name for item in tmp_path.iterdir()) == ["copy.zarr", "layer.zarr"]


def test_factors_are_stored_as_they_are_where_few_columns_make_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    narrow = Point(np.arange(130), factor=rng.normal(size=(130, 2)), chains=(1, 1))
    stored = write_point(narrow, tmp_path / "narrow.zarr")
    assert not isinstance(stored, StoredPoint)
    np.testing.assert_array_equal(stored.factor, narrow.factor)
    assert stored.chains == (1, 1)
    wide = Point(np.arange(130), factor=rng.normal(size=(130, 30)).astype(np.float32), centring="u")
    stored = write_point(wide, tmp_path / "narrow.zarr")  # replaced
    assert isinstance(stored, StoredPoint)
    assert stored.centring == "u"
    exact = wide.factor.astype(np.float64)
    np.testing.assert_allclose(stored.gram(), exact @ exact.T, rtol=1e-14, atol=1e-13)


def test_angles_of_stored_points_are_those_of_points(tmp_path: Path) -> None:
    model, data = _double(SmallCNN(3, 4)), _data((3, 8, 8), 70)
    graph = choose(trace_graph(model, data), "operations")
    points = _points(model, data, graph)
    stored = [write_point(point, tmp_path / f"{name}.zarr") for name, point in points.items()]
    for centring in ("u", "double"):
        result = AngularCKA(centring).arrangement(stored)
        expected = AngularCKA(centring).arrangement(list(points.values()))
        np.testing.assert_allclose(result.distances, expected.distances, atol=1e-9)
        np.testing.assert_allclose(result.cosines, expected.cosines, atol=1e-12)


def test_folders_without_the_point_are_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"missing\.zarr holds no point; record it again"):
        open_point(tmp_path / "missing.zarr", np.arange(3))
    write_point(Point(np.arange(3), factor=np.ones((3, 1))), tmp_path / "here.zarr")
    with pytest.raises(TraceError, match="holds a point over 3 inputs, but got 4 ids"):
        open_point(tmp_path / "here.zarr", np.arange(4))
    with pytest.raises(TraceError, match="cannot write"):
        write_point(Point(np.arange(3), factor=np.ones((3, 1))), tmp_path / "here.zarr" / "zarr.json" / "x")
