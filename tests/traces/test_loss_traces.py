import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from losskernel import LossTraces, open_traces
from losskernel.errors import InputError, TraceError
from losskernel.traces.records import layout
from losskernel.traces.zarr_store import TraceStore

RNG = np.random.default_rng(0)
LABELS = {"task": ["add", "multiply", "add"], "class": [3, 1, 2], "a": [0.5, -0.25, 1e-3]}


def _traces(chains: int = 2, draws: int = 5, seed: int | None = None, **given: Any) -> LossTraces:
    """Traces of three probes; with a seed they carry the identity of a sampling run."""
    if seed is not None:
        identity = {"seed": seed, "schedule": {"chains": chains, "draws": draws}, "sampler": {"localization": 100.0}}
        given["meta"] = {"identity": identity}
    return LossTraces.from_arrays(RNG.normal(size=(chains, draws, 3)), **given)


def _saved(folder: Path, *traces: LossTraces) -> list[Path]:
    return [item.save(folder / f"{number}.zarr") for number, item in enumerate(traces)]


# --- from_arrays


def test_traces_hold_what_they_are_given() -> None:
    values = RNG.normal(size=(2, 5, 3))
    traces = LossTraces.from_arrays(values, labels=LABELS, ids=["x", "y", "z"], meta={"note": 7})
    assert traces.losses.dims == ("chain", "draw", "probe")
    np.testing.assert_array_equal(traces.losses, values)
    assert traces.losses["probe"].values.tolist() == ["x", "y", "z"]
    assert {name: item.tolist() for name, item in traces.labels.items()} == LABELS
    assert list(traces.labels) == list(LABELS)
    assert traces.meta == {"note": 7}
    assert repr(traces) == "LossTraces(2 chains, 5 draws, 3 probes, labels ['a', 'class', 'task'])"


@pytest.mark.parametrize(
    ("given", "kept"), [("float32", "float32"), ("float64", "float64"), ("float16", "float64"), ("int64", "float64")]
)
def test_traces_are_float32_or_float64(given: str, kept: str) -> None:
    assert LossTraces.from_arrays(np.ones((1, 2, 3), given)).losses.dtype == kept


def test_a_record_is_float64_or_absent() -> None:
    traces = _traces()
    assert traces.record("distance") is None
    record = LossTraces(traces.dataset.assign(distance=(("chain", "draw"), np.ones((2, 5), np.float32))))
    assert record.record("distance").dtype == np.float64


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_named(bad: float) -> None:
    losses = np.zeros((3, 4, 5))
    losses[1, 2, 3] = losses[2, 0, 0] = bad
    message = f"losses hold {bad} at chain 1, draw 2, probe 3; .* lower step_size or raise localization"
    with pytest.raises(InputError, match=message):
        LossTraces.from_arrays(losses)


@pytest.mark.parametrize(
    ("shape", "given", "message"),
    [
        ((4, 5), {}, r"losses must be \[chain, draw, probe\], got shape \(4, 5\)"),
        ((2, 5, 0), {}, r"losses are empty, shape \(2, 5, 0\); give probes"),
        ((0, 5, 3), {}, r"losses are empty, shape \(0, 5, 3\)"),
        ((2, 1, 3), {}, "draws must be >= 2 to estimate a covariance, got 1; draw more"),
        ((2, 5, 3), {"labels": {"task": [1, 2]}}, r"labels\['task'\] has shape \(2,\), but there are 3 probes"),
        ((2, 5, 3), {"labels": {"task": np.zeros((3, 1))}}, r"labels\['task'\] has shape \(3, 1\)"),
        ((2, 5, 3), {"ids": [1, 2]}, "ids has 2 entries, but there are 3 probes"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(shape: tuple[int, ...], given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LossTraces.from_arrays(np.zeros(shape), **given)


# --- save and open


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
@pytest.mark.parametrize("ids", [None, [7, 3, 5], ["n01440764", "n01443537", "x"]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_saved_trace_comes_back_as_it_was(tmp_path: Path, ids: list[Any] | None, dtype: type) -> None:
    values = RNG.normal(size=(2, 5, 3)).astype(dtype)
    traces = LossTraces.from_arrays(values, labels=LABELS, ids=ids, meta={"identity": {"seed": 3}})
    path = traces.save(tmp_path / "runs" / "traces.zarr")
    opened = open_traces(path)
    xr.testing.assert_identical(opened.dataset, traces.dataset)
    assert opened.losses.dtype == dtype
    assert list(opened.labels) == list(LABELS)
    assert opened.meta == {"identity": {"seed": 3}}
    assert [item.name for item in path.parent.iterdir()] == ["traces.zarr"]


def test_a_run_folder_opens_as_its_trace(tmp_path: Path) -> None:
    traces = _traces()
    traces.save(tmp_path / "traces.zarr")
    xr.testing.assert_equal(open_traces(str(tmp_path)).losses, traces.losses)


def test_an_existing_path_is_not_overwritten(tmp_path: Path) -> None:
    path = _traces().save(tmp_path / "traces.zarr")
    before = open_traces(path)
    with pytest.raises(TraceError, match=r"traces.zarr exists; choose another path or remove it"):
        _traces().save(path)
    xr.testing.assert_identical(open_traces(path).dataset, before.dataset)


def test_a_path_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    with pytest.raises(TraceError, match=r"cannot write .*file/traces.zarr: .*; free space or choose another folder"):
        _traces().save(blocker / "traces.zarr")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", ["missing", "empty folder", "file", "below a file", "other files", "broken metadata"])
def test_what_is_no_trace_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind in ("file", "below a file"):
        path.write_text("text")
        path = path / "below" if kind == "below a file" else path
    elif kind != "missing":
        path.mkdir()
        if kind != "empty folder":
            (path / ("zarr.json" if kind == "broken metadata" else "notes.txt")).write_text("{ this is no JSON")
    with pytest.raises(TraceError, match=f"{path.name} holds no loss trace; give the folder of a run"):
        open_traces(path)


def test_another_zarr_store_is_no_trace(tmp_path: Path) -> None:
    xr.Dataset({"a": ("x", [1, 2])}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(TraceError, match="holds no loss trace"):
        open_traces(tmp_path / "other.zarr")


@pytest.mark.parametrize("state", [None, {"summary": "chains 0 to 3: 17 draws done"}])
def test_an_unfinished_trace_is_refused_and_says_how_far_it_is(tmp_path: Path, state: dict[str, Any] | None) -> None:
    store = TraceStore(tmp_path / "traces.zarr")
    coordinates = _traces().dataset.drop_vars("losses")
    store.create(coordinates, {"identity": {}, "chains_per_fit": 2}, layout((2, 5, 3), 0), "float32")
    done = ""
    if state is not None:
        store.save_state(state)
        done = r" \(chains 0 to 3: 17 draws done\)"
    with pytest.raises(TraceError, match=f"traces.zarr is unfinished{done}; run the same command again"):
        open_traces(tmp_path)


# --- join


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_joined_traces_are_concatenated_along_the_chains(tmp_path: Path) -> None:
    parts = [
        _traces(chains, seed=seed, labels=LABELS, ids=["x", "y", "z"]) for chains, seed in ((2, 0), (1, 1), (3, 2))
    ]
    parts = [
        LossTraces(
            part.dataset.assign(
                distance=(("chain", "draw"), RNG.normal(size=part.losses.shape[:2])),
                start_losses=("probe", [1.0, 2.0, 3.0]),
            )
        )
        for part in parts
    ]
    joined = open_traces(_saved(tmp_path, *parts))
    np.testing.assert_array_equal(joined.losses, np.concatenate([part.losses for part in parts]))
    np.testing.assert_array_equal(
        joined.record("distance"), np.concatenate([part.record("distance") for part in parts])
    )
    np.testing.assert_array_equal(joined.record("start_losses"), [1, 2, 3])
    assert joined.losses["chain"].values.tolist() == list(range(6))
    assert {name: item.tolist() for name, item in joined.labels.items()} == LABELS
    assert joined.losses["probe"].values.tolist() == ["x", "y", "z"]
    identity = parts[0].meta["identity"] | {"seed": [0, 1, 2]}
    assert joined.meta["identity"] == identity | {"schedule": {"chains": 6, "draws": 5}}
    assert [item["chains"] for item in joined.meta["joined"]] == [[0, 1], [0], [0, 1, 2]]


def test_traces_without_provenance_join_too(tmp_path: Path) -> None:
    parts = [_traces(), _traces()]
    assert open_traces(_saved(tmp_path, *parts)).losses.shape == (4, 5, 3)


def test_one_path_in_a_list_is_that_trace(tmp_path: Path) -> None:
    traces = _traces()
    xr.testing.assert_identical(open_traces(_saved(tmp_path, traces)).dataset, traces.dataset)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(InputError, match="open_traces got an empty list; give at least one path"):
        open_traces([])


def test_traces_of_other_settings_do_not_join(tmp_path: Path) -> None:
    first, second = _traces(seed=0), _traces(seed=1)
    meta = second.meta
    meta["identity"]["sampler"]["localization"] = 10.0
    second = LossTraces.from_arrays(second.losses, meta=meta)
    message = (
        r"0.zarr and .*1.zarr are not chains of one kernel: sampler.localization: 100.0 in .*0.zarr, 10.0 in .*1.zarr$"
    )
    with pytest.raises(TraceError, match=message):
        open_traces(_saved(tmp_path, first, second))


def test_traces_of_other_probes_do_not_join(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"probes: the ids in .*0\.zarr are not those in .*1\.zarr"):
        open_traces(_saved(tmp_path, _traces(ids=[1, 2, 3]), _traces(ids=[1, 2, 4])))


def test_traces_of_other_lengths_do_not_join(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"not chains of one kernel: draws: 5 in .*0\.zarr, 7 in .*1\.zarr"):
        open_traces(_saved(tmp_path, _traces(draws=5), _traces(draws=7)))


def test_a_chain_joins_only_once(tmp_path: Path) -> None:
    path = _traces(seed=4).save(tmp_path / "0.zarr")
    shutil.copytree(path, tmp_path / "copy.zarr")
    with pytest.raises(
        TraceError, match=r"chain 0 of seed 4 stands in .*0\.zarr and in .*copy\.zarr; join each chain once"
    ):
        open_traces([path, tmp_path / "copy.zarr"])
