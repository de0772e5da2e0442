"""Points of a study: what a source gives is kept, compared once, and asked of without any sampling."""

import html
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from command import TINY, config
from torch import nn
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel.analyses.result import Result
from losskernel.cli.build import analyse_from, build, run_from
from losskernel.errors import InputError, TraceError
from losskernel.geometry import AngularCKA, Point
from losskernel.representations.evaluation import History
from losskernel.representations.points import TRAINED, NamedPoint, PointSet, collect, open_points
from losskernel.representations.sources import Targets
from losskernel.runs.run import Study, preflight, run

IDS = [f"probe {number}" for number in range(12)]
GROUP = np.arange(12) % 3


def features(width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([width, seed]).normal(size=(12, width))


def data() -> lk.Data:
    inputs = torch.tensor(features(4), dtype=torch.float32)
    probes = TensorDataset(inputs, inputs.sum(1, keepdim=True))
    return lk.Data(probes, probes, lk.losses.squared_error, labels={"group": GROUP, "own": np.arange(12)}, ids=IDS)


def history(folder: Path) -> History:
    return History(lambda data, seed: nn.Linear(4, 1), lambda: iter(()), folder)


@dataclass(frozen=True)
class Fixed:
    """Points of several forms, made without a network."""

    width: int = 3
    breaks: bool = False

    def __call__(self, model: nn.Module, data: lk.Data, history: History) -> Iterator[NamedPoint]:
        yield NamedPoint("inputs", Point.from_features(features(2), data.ids), "input")
        yield NamedPoint("wide", Point.from_features(features(30), data.ids), "layer", TRAINED, 50, 1, ("inputs",))
        if self.breaks:
            raise InputError("the third point cannot be made")
        yield NamedPoint("wide @ 0", Point.from_features(features(self.width, 1), data.ids), "layer", "step 0", 0, 1)
        gram = np.add.outer(np.arange(12.0), np.arange(12.0)) ** 2
        yield NamedPoint("out", Point.from_gram(gram, data.ids), "output", TRAINED, 50, 2, ("wide",))


@dataclass(frozen=True)
class Distances:
    """How far the points are from the first."""

    of_points: ClassVar[bool] = True
    centring: str = "u"

    def __call__(self, points: PointSet) -> Result:
        result = points.arrangement(AngularCKA(self.centring)).distances[0]
        return Result({"last": float(result[-1])}, {"distances": pd.DataFrame({"name": points.names, "d": result})})


def test_points_come_back_as_they_were(tmp_path: Path) -> None:
    made = collect(
        {"fixed": Fixed(), "targets": Targets(["group"])}, nn.Linear(4, 1), data(), tmp_path, history(tmp_path)
    )
    assert made is not None
    again = open_points(tmp_path)
    assert again is not None
    assert again.names == made.names == ["inputs", "wide", "wide @ 0", "out", "group"]
    assert list(again.ids) == IDS
    np.testing.assert_array_equal(again.labels["group"], GROUP)
    direct = [
        *Fixed()(nn.Linear(4, 1), data(), history(tmp_path)),
        *Targets(["group"])(nn.Linear(4, 1), data(), history(tmp_path)),
    ]
    for kept, original in zip(again.points, direct, strict=True):
        np.testing.assert_allclose(kept.point.gram(), original.point.gram(), rtol=1e-6, atol=1e-6)
        facts = ("name", "kind", "network", "step", "position", "after")
        assert [getattr(kept, fact) for fact in facts] == [getattr(original, fact) for fact in facts]
    assert (again.path(), again.path("step 0")) == ([0, 1, 3], [0, 2])
    assert (again.networks(), again.step("step 0"), again[2].label) == (["step 0", TRAINED], 0, "wide")
    assert list(again.table()["kind"]) == ["input", "layer", "layer", "output", "target"]
    # One-hot labels of three equal groups, less their mean: 1 within a group.
    alike = (GROUP[:, None] == GROUP).astype(float)
    np.testing.assert_allclose(again[4].point.gram(), alike - 1 / 3, atol=1e-12)


def test_a_source_is_asked_once_and_one_that_broke_again(tmp_path: Path) -> None:
    calls: list[str] = []

    def counted(model: nn.Module, data: lk.Data, history: History) -> Iterator[NamedPoint]:
        calls.append("asked")
        yield NamedPoint("inputs", Point.from_features(features(2), data.ids), "input")

    for _ in range(2):
        collect({"counted": counted}, nn.Linear(4, 1), data(), tmp_path, history(tmp_path))
    assert calls == ["asked"]
    with pytest.raises(InputError, match=r"points\.fixed: the third point cannot be made"):
        collect({"counted": counted, "fixed": Fixed(breaks=True)}, nn.Linear(4, 1), data(), tmp_path, history(tmp_path))
    assert not (tmp_path / "points.zarr" / "fixed").exists()
    known = open_points(tmp_path)
    assert known is not None
    assert known.names == ["inputs"]
    collect({"fixed": Fixed(3)}, nn.Linear(4, 1), data(), tmp_path, history(tmp_path))
    with pytest.raises(TraceError, match=r"made by Fixed\(width=3, breaks=False\), but the run has Fixed\(width=5"):
        collect({"fixed": Fixed(5)}, nn.Linear(4, 1), data(), tmp_path, history(tmp_path))


def test_a_point_without_a_place_in_the_space_is_named() -> None:
    white = NamedPoint("noise", Point.from_gram(np.eye(12)), "layer")
    with pytest.raises(InputError, match="noise: point 0 is white"):
        PointSet((NamedPoint("inputs", Point.from_features(features(2)), "input"), white)).arrangement(AngularCKA())


def test_no_sources_make_no_points(tmp_path: Path) -> None:
    assert collect({}, nn.Linear(4, 1), data(), tmp_path, history(tmp_path)) is None
    assert open_points(tmp_path) is None


def test_damaged_points_are_named(tmp_path: Path) -> None:
    collect({"targets": Targets(["group"])}, nn.Linear(4, 1), data(), tmp_path, history(tmp_path))
    (tmp_path / "points.zarr" / "targets" / "zarr.json").unlink()
    with pytest.raises(TraceError, match="targets holds no points"):
        open_points(tmp_path)


def test_points_must_stand_over_the_probes_and_have_names_of_their_own(tmp_path: Path) -> None:
    def others(model: nn.Module, data: lk.Data, history: History) -> Iterator[NamedPoint]:
        yield NamedPoint("inputs", Point.from_features(features(2)), "input")

    with pytest.raises(InputError, match="'inputs' is not over the probes"):
        collect({"others": others}, nn.Linear(4, 1), data(), tmp_path, history(tmp_path))
    twice = NamedPoint("same", Point.from_features(features(2)), "input")
    with pytest.raises(InputError, match=r"the name \['same'\] occurs twice"):
        PointSet((twice, twice))
    with pytest.raises(InputError, match="the kind of point 'same' must be one of"):
        NamedPoint("same", twice.point, "sort")
    with pytest.raises(InputError, match="there is no point 'other'; choose from same"):
        PointSet((twice,)).number("other")


def test_one_more_point_costs_one_more_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed = [
        NamedPoint(str(width), Point.from_features(features(width)), "layer", position=width) for width in range(2, 8)
    ]
    space, firsts = AngularCKA(), []
    monkeypatch.setattr("losskernel.geometry.spaces.angular_cka.products", _spied(firsts))
    whole = PointSet(tuple(placed)).arrangement(space)
    some = PointSet(tuple(placed[:5]), folder=tmp_path)
    some.arrangement(space)
    firsts.clear()
    some.arrangement(space)
    assert firsts == []  # nothing new: nothing computed
    # The new one stands in the middle: the order asked for is the order given.
    more = PointSet((*placed[:2], placed[5], *placed[2:5]), folder=tmp_path)
    grown = more.arrangement(space)
    assert max(firsts) == 5  # products of the sixth alone with all
    order = [0, 1, 5, 2, 3, 4]
    np.testing.assert_allclose(grown.distances, whole.distances[np.ix_(order, order)], atol=1e-12)
    assert grown.cosines is not None
    assert whole.cosines is not None
    np.testing.assert_allclose(grown.cosines, whole.cosines[np.ix_(order, order)], atol=1e-12)
    # Another space, and another kernel under the same name, are computed anew.
    assert not np.allclose(more.arrangement(AngularCKA("double")).distances, grown.distances)
    changed = PointSet((NamedPoint("2", Point.from_features(features(9)), "layer"), *placed[1:5]), folder=tmp_path)
    assert changed.arrangement(space).distances[0, 1] == pytest.approx(
        space.length(changed[0].point, placed[1].point), abs=1e-12
    )
    next(tmp_path.glob("arrangement-*u*.npz")).write_bytes(b"damaged")
    np.testing.assert_allclose(some.arrangement(space).distances, whole.distances[:5, :5], atol=1e-12)


def _spied(firsts: list[int]) -> Any:
    from losskernel.geometry.centring import products

    def spy(points: Any, centring: str, first: int = 0, device: Any = None) -> Any:
        if len(points) > 1:
            firsts.append(first)
        return products(points, centring, first, device)

    return spy


def study(**parts: Any) -> Study:
    training = lk.Training(steps=5, batch_size=4, checkpoints=2)
    original: dict[str, Any] = {"schedule": None, "points": {"fixed": Fixed()}, "analyses": {"far": Distances()}}
    sampler = partial(lk.SGLD, step_size=1e-3, nbeta=10.0, localization=10.0)
    return Study(nn.Linear(4, 1), data(), sampler, training=training, progress=False, **(original | parts))


def test_points_alone_need_no_sampling(tmp_path: Path) -> None:
    outcome = run(study(), tmp_path / "run")
    assert outcome.diagnosis is None
    assert not (tmp_path / "run" / "traces.zarr").exists()
    result = pd.read_csv(tmp_path / "run" / "tables" / "distances.csv")
    assert list(result["name"]) == ["inputs", "wide", "wide @ 0", "out"]
    assert outcome.metrics["far/last"] == pytest.approx(result["d"].iloc[-1])
    assert "Not diagnosed" in (tmp_path / "run" / "report.html").read_text()


def test_what_was_sampled_is_a_point_among_the_others(tmp_path: Path) -> None:
    schedule = lk.Schedule(chains=2, burn_in=2, draws=6, thinning=1, batch_size=4)
    outcome = run(study(schedule=schedule), tmp_path / "run")
    assert outcome.diagnosis is not None
    names = pd.read_csv(tmp_path / "run" / "tables" / "distances.csv")["name"]
    assert list(names)[-1] == "loss kernel"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"points": {}}, r"analysis\.far is asked of points; choose some"),
        (
            {"points": {"targets": Targets(["nothing"])}},
            r"points\.targets: labels=nothing: there is no such probe label",
        ),
        ({"points": {"targets": Targets(["own"])}}, r"points\.targets: labels=own: it has 12 values on 12 probes"),
        (
            {"analyses": {"spectrum": lk.analyses.Spectrum()}},
            r"analysis\.spectrum is asked of a loss kernel, but schedule=none",
        ),
        (
            {"points": {"targets": Targets(["group"])}, "analyses": {"path": lk.analyses.Paths()}},
            r"analysis\.path needs points of other kinds: there is no layer; add what gives them",
        ),
        ({"schedule": "short"}, r"schedule must be a losskernel\.Schedule or null, got 'short'"),
    ],
)
def test_what_does_not_fit_is_named_before_compute(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        preflight(study(**parts))


def test_targets_are_a_list() -> None:
    with pytest.raises(InputError, match=r"points\.targets\.labels must be a list of probe labels, got 'group'"):
        Targets("group")


def test_the_command_line_runs_points_alone_and_asks_more_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    words = [word for word in TINY if not word.startswith("schedule.")]
    far = "test_points.Distances"
    run_from(
        config(
            "analysis=[]", f"+analysis.far._target_={far}", "points=[targets]", "schedule=none", "logger=none", *words
        ),
        folder,
        None,
    )
    assert "nothing was sampled: points only" in capsys.readouterr().out
    analyse_from(config(f"run={folder}", "analysis=[]", f"+analysis.again._target_={far}", name="analyse"))
    assert json.loads((folder / "metrics.json").read_text()).keys() == {"far/last", "again/last"}
    # Asked anew with other settings: said, and the settings stand beside the numbers.
    words = ("analysis=[]", f"+analysis.far._target_={far}", "+analysis.far.centring=double")
    analyse_from(config(f"run={folder}", *words, name="analyse"))
    assert "replaced: far, asked before: Distances(centring='u')" in capsys.readouterr().out
    requested = json.loads((folder / "analyses.json").read_text())
    assert requested == {"far": "Distances(centring='double')", "again": "Distances(centring='u')"}
    assert "Distances(centring='double')" in html.unescape((folder / "report.html").read_text())


def test_settings_of_what_is_not_chosen_build_nothing(tmp_path: Path) -> None:
    words = ("experiment=paths", "points=[targets]", "analysis=[]", "+analysis.far._target_=test_points.Distances")
    built = build(config(*words, "logger=none"))  # the recipe sets points.layers.patterns
    assert list(built.points) == ["targets"]
