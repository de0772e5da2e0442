"""Whatever happens to a file of a trace: it is named, or it changes nothing."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import losskernel as lk
from losskernel.data import arithmetic
from losskernel.errors import TraceError
from losskernel.geometry import Point
from losskernel.models import MultitaskMLP
from losskernel.representations.baselines.collect import read_representations, represent
from losskernel.representations.points import open_point, write_point
from losskernel.representations.points.store import open_points
from losskernel.storage import zarr_integrity as integrity
from losskernel.storage.torch_files import atomic_save, state_from_bytes
from losskernel.storage.zarr_integrity import root_with
from losskernel.traces import zarr_store as store
from losskernel.traces.loss_traces import coordinates_of, open_traces
from losskernel.traces.records import CHAIN_RECORDS, layout
from losskernel.traces.zarr_store import TraceStore

RNG = np.random.default_rng(0)
SHAPE = (3, 4, 5)  # chains, two of them in a stack; draws, two of them in a chunk; probes
RECORDS = {name: RNG.normal(size=extent).astype(np.float32) for name, (_, extent) in layout(SHAPE, 3, 2).items()}
RECORDS["acceptance"][:] = np.nan  # never measured
REMEDY = "restore it from a copy, or remove .* and run again"


STATE = {"rows": 2, "written": 2, "summary": "chains 2 to 2: 3 draws done", "pending": []}


def fill(target: TraceStore, state: dict[str, Any] | None = None) -> None:
    """Write all draws of a trace with every kind of array; save a state when the second stack is half written."""
    labels = {"class": [0] * 5, "name": ["a", "bé", "c", "dd", ""], "odd": [True, False, True, False, True]}
    coordinates = coordinates_of(5, range(3), 4, labels, [f"probe {number}" for number in range(5)])
    pictures = RNG.integers(0, 255, (5, 4, 4, 3)).astype(np.uint8)
    coordinates = coordinates.assign(
        start_losses=("probe", np.arange(5.0)), thumbnails=(("probe", "height", "width", "colour"), pictures)
    )
    arrays = layout(SHAPE, 3, 2)
    target.create(coordinates, {"identity": {"seed": 0}, "chains_per_fit": 2}, arrays, "float32")
    for rows in (slice(0, 2), slice(2, 3)):
        drawn = {name: values[rows] for name, values in RECORDS.items() if "draw" in arrays[name][0]}
        for start in (0, 2):
            target.write(rows, {name: values[:, start : start + 2] for name, values in drawn.items()}, start)
            if state is not None and (rows.start, start) == (2, 0):
                target.save_state(state)
        target.write(rows, {name: values[rows] for name, values in RECORDS.items() if name not in drawn}, 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished trace."""
    folder = tmp_path_factory.mktemp("whole") / "traces.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_CHUNK_BYTES", 2 * 2 * 5 * 4)
        target = TraceStore(folder)
        fill(target)
        target.finish()
    return folder


def harmed(content: bytes, kind: str, rng: random.Random) -> bytes | None:
    """What becomes of a file; None where it is gone."""
    if kind == "flipped":
        position = rng.randrange(8 * len(content))
        return bytes(
            byte ^ (1 << position % 8 if number == position // 8 else 0) for number, byte in enumerate(content)
        )
    if kind == "longer":
        return content + rng.randbytes(rng.randrange(1, 9))
    if kind == "overwritten":
        return rng.randbytes(len(content))
    return {"cut": content[: rng.randrange(len(content))], "empty": b"", "gone": None}[kind]


def is_named(folder: Path, name: str, whole: xr.Dataset) -> bool:
    """Whether opening names the file; if it does not, the trace must be the same."""
    try:
        result, said = open_traces(folder).dataset, ""
    except TraceError as error:
        result, said = None, str(error)
    if result is None:
        assert f"{folder}/{name} is " in said
        assert "restore it from a copy, or remove" in said
        assert "\n" not in said
    assert result is None or result.identical(whole), name
    return result is None


def test_every_kind_of_damage_to_every_file_is_named(finished: Path, tmp_path: Path) -> None:
    whole, rng = open_traces(finished).dataset, random.Random(0)
    names = sorted(str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file())
    assert {name.split("/")[0] for name in names} == {"zarr.json", *map(str, whole.variables)}
    chosen = [(name, "gone") for name in names if rng.random() < 0.4] + [
        (rng.choice(names), kind) for kind in ("cut", "empty", "longer", "overwritten") for _ in range(8)
    ]
    folder = tmp_path / "traces.zarr"
    shutil.copytree(finished, folder)
    for name, kind in chosen:
        content = (folder / name).read_bytes()
        changed = harmed(content, kind, rng)
        (folder / name).unlink() if changed is None else (folder / name).write_bytes(changed)
        assert is_named(folder, name, whole), (name, kind)
        (folder / name).write_bytes(content)
    assert open_traces(folder).dataset.identical(whole)


def test_a_flipped_bit_is_named_unless_it_means_nothing(finished: Path, tmp_path: Path) -> None:
    whole, rng = open_traces(finished).dataset, random.Random(1)
    folder = tmp_path / "traces.zarr"
    shutil.copytree(finished, folder)
    names = sorted(str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file())
    flips = [*rng.sample(names, 25), *["zarr.json"] * 25, *["losses/c/0/0/0"] * 10]
    named = 0
    for name in flips:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(harmed(content, "flipped", rng) or b"")
        named += is_named(folder, name, whole)
        (folder / name).write_bytes(content)
    assert named > 0.9 * len(flips)


def exchange(folder: Path, one: str, other: str) -> None:
    first, second = (folder / one).read_bytes(), (folder / other).read_bytes()
    (folder / one).write_bytes(second)
    (folder / other).write_bytes(first)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("losses/c/0/0/0", "losses/c/0/1/0"),
        ("train_loss/c/0/0", "distance/c/0/0"),
        ("curvature/c/0", "relaxation_rate/c/0"),
    ],
)
def test_exchanged_chunks_are_named(finished: Path, tmp_path: Path, one: str, other: str) -> None:
    folder = tmp_path / "traces.zarr"
    shutil.copytree(finished, folder)
    exchange(folder, one, other)
    with pytest.raises(TraceError, match=rf"{folder}/({one}|{other}) is damaged: its content has changed .*; {REMEDY}"):
        open_traces(folder)


@pytest.mark.parametrize("name", ["losses/c/1/1/0", "zarr.json"])
def test_a_file_of_another_trace_is_named(finished: Path, tmp_path: Path, name: str) -> None:
    folder, other = tmp_path / "traces.zarr", TraceStore(tmp_path / "other.zarr")
    shutil.copytree(finished, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_CHUNK_BYTES", 2 * 2 * 5 * 4)
        patch.setitem(RECORDS, "losses", -RECORDS["losses"])
        fill(other)
        other.finish()
    shutil.copy(tmp_path / "other.zarr" / name, folder / name)
    with pytest.raises(TraceError, match=rf"{folder}/losses/c/\d/\d/0 is damaged: its content has changed"):
        open_traces(folder)


def test_a_trace_without_checksums_of_chunks_opens(finished: Path, tmp_path: Path) -> None:
    folder, whole = tmp_path / "traces.zarr", open_traces(finished).dataset
    shutil.copytree(finished, folder)
    document = json.loads((folder / "zarr.json").read_text())
    sums = {name: item for name, item in document["attributes"]["checksums"].items() if name.endswith("zarr.json")}
    (folder / "zarr.json").write_bytes(root_with(document, checksums=sums))
    assert open_traces(folder).dataset.identical(whole)
    (folder / "losses" / "c" / "0" / "0" / "0").unlink()
    with pytest.raises(TraceError, match="losses/c/0/0/0 is missing"):
        open_traces(folder)


def test_a_trace_without_checksums_opens(tmp_path: Path) -> None:
    losses = RNG.normal(size=(2, 6, 3))
    dataset = lk.LossTraces.from_arrays(losses, labels={"class": [0, 0, 0]}).dataset
    folder = tmp_path / "traces.zarr"
    dataset.to_zarr(folder, mode="w", zarr_format=3, consolidated=False)
    opened = open_traces(folder)
    np.testing.assert_array_equal(opened.losses, losses)
    assert not (folder / "class" / "c").exists()  # it held nothing but the fill value
    for name, reason in {
        "losses/c/0/0/0": "missing",
        "losses/zarr.json": "missing",
        "class/zarr.json": "damaged",
    }.items():
        content = (folder / name).read_bytes()
        (folder / name).unlink() if reason == "missing" else (folder / name).write_text("{")
        with pytest.raises(TraceError, match=rf"{folder}/{name} is {reason}.*; {REMEDY}"):
            open_traces(folder)
        (folder / name).write_bytes(content)
    copy = opened.save(tmp_path / "copy.zarr")
    (Path(copy) / "class" / "c" / "0").unlink()
    with pytest.raises(TraceError, match=r"copy\.zarr/class/c/0 is missing"):
        open_traces(copy)


def test_an_unreadable_file_is_not_called_damaged(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "traces.zarr"
    shutil.copytree(finished, folder)
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.parts[-3:-1] == ("c", "0"):
            raise OSError(5, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    message = r"cannot read .*/c/0/\S+: Input/output error; check the file system and its permissions"
    with pytest.raises(TraceError, match=message):
        open_traces(folder)


def test_other_exceptions_pass(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity.xr, "open_zarr", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_traces(finished)


# --- unfinished traces


@pytest.fixture
def unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TraceStore:
    """A trace whose state counts the first stack and half of the second; it was killed before the next state."""
    monkeypatch.setattr(store, "_CHUNK_BYTES", 2 * 2 * 5 * 4)
    target = TraceStore(tmp_path / "traces.zarr")
    fill(target, STATE)
    return target


def test_a_damaged_state_is_named_and_not_resumed(unfinished: TraceStore) -> None:
    path, rng = Path(unfinished.path) / "resume.pt", random.Random(0)
    content = path.read_bytes()
    kinds = {kind: harmed(content, kind, rng) or b"" for kind in ("cut", "empty", "overwritten")}
    for changed in (content.replace(b"chains 2", b"chains 3"), *kinds.values()):
        path.write_bytes(changed)
        for use in (unfinished.load_state, unfinished.verified_state, lambda: open_traces(unfinished.path)):
            with pytest.raises(TraceError, match=rf"{path} is damaged: .*; {REMEDY}"):
                use()
    path.write_bytes(content)
    assert unfinished.verified_state() == STATE


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("losses/c/0/1/0", True),  # of the first stack
        ("losses/c/1/0/0", True),  # of the second, as far as the state counts
        ("losses/c/1/1/0", False),
        ("train_loss/c/1/0", True),
        ("curvature/c/0", True),
        ("curvature/c/1", False),
        ("name/c/0", True),
        ("losses/zarr.json", True),
    ],
)
@pytest.mark.parametrize("kind", ["flipped", "gone"])
def test_sampling_does_not_resume_on_damage(unfinished: TraceStore, name: str, counts: bool, kind: str) -> None:
    path = Path(unfinished.path) / name
    changed = harmed(path.read_bytes(), kind, random.Random(3))
    path.unlink() if changed is None else path.write_bytes(changed)
    if counts:
        with pytest.raises(TraceError, match=rf"{path} is (damaged: .*|missing); {REMEDY}"):
            unfinished.verified_state()
    else:
        assert unfinished.verified_state() is not None
    if kind == "gone":  # nor is it taken for finished
        with pytest.raises(TraceError, match=rf"{path} is missing; {REMEDY}"):
            unfinished.finish()
        assert not unfinished.complete or name == "zarr.json"


@pytest.mark.parametrize(("one", "other"), [("losses/c/0/0/0", "losses/c/0/1/0"), ("acceptance/c/0", "curvature/c/0")])
def test_sampling_does_not_resume_on_exchanged_chunks(unfinished: TraceStore, one: str, other: str) -> None:
    assert TraceStore(unfinished.path).verified_state() is not None
    exchange(Path(unfinished.path), one, other)
    with pytest.raises(TraceError, match=rf"/({one}|{other}) is damaged: its content has changed .*; {REMEDY}"):
        TraceStore(unfinished.path).verified_state()


def test_checksums_from_before_a_kill_are_kept(unfinished: TraceStore) -> None:
    again = TraceStore(unfinished.path)
    again.verified_state()
    again.finish()
    exchange(Path(unfinished.path), "losses/c/0/0/0", "losses/c/0/1/0")
    with pytest.raises(TraceError, match=r"losses/c/0/\d/0 is damaged: its content has changed"):
        open_traces(unfinished.path)


def test_a_state_of_another_trace_is_named(unfinished: TraceStore, tmp_path: Path) -> None:
    other = TraceStore(tmp_path / "other.zarr")
    other.create(
        coordinates_of(5, range(3), 4, {}, None), {"chains_per_fit": 2, "seed": 1}, layout(SHAPE, 3), "float32"
    )
    other.save_state({"rows": 0, "written": 0})
    shutil.copy(tmp_path / "other.zarr" / "resume.pt", Path(unfinished.path) / "resume.pt")
    with pytest.raises(TraceError, match=rf"resume\.pt is damaged: it is another trace's; {REMEDY}"):
        unfinished.verified_state()


def test_a_state_without_checksums_is_resumed(unfinished: TraceStore) -> None:
    path = Path(unfinished.path) / "resume.pt"
    state = state_from_bytes(path.read_bytes())
    assert set(state.pop("bound")) == {"trace", "chunks"}
    atomic_save(state, path)
    again = TraceStore(unfinished.path)
    assert again.verified_state() == state
    again.finish()
    np.testing.assert_array_equal(open_traces(unfinished.path).losses, RECORDS["losses"])


def test_temporary_files_of_killed_writers_are_removed(unfinished: TraceStore) -> None:
    left = Path(unfinished.path) / "losses" / "c" / "0" / "0" / "0.1234.partial"
    left.write_bytes(b"half")
    unfinished.verified_state()
    assert not left.exists()


def test_a_store_that_others_have_changed_is_named_when_it_is_written(unfinished: TraceStore) -> None:
    shutil.rmtree(Path(unfinished.path) / "distance")
    with pytest.raises(TraceError, match=r"distance/zarr\.json is missing"):
        unfinished.write(slice(0, 2), {"distance": RECORDS["distance"][:2, :2]}, 0)


def test_a_chunk_that_no_state_counts_is_written_again(unfinished: TraceStore) -> None:
    (Path(unfinished.path) / "losses" / "c" / "1" / "1" / "0").write_bytes(b"torn")  # by a loss of power
    again = TraceStore(unfinished.path)
    assert again.verified_state() == STATE
    again.write(slice(2, 3), {"losses": RECORDS["losses"][2:, 2:]}, 2)
    again.finish()
    np.testing.assert_array_equal(open_traces(unfinished.path).losses, RECORDS["losses"])


# --- states


def test_a_state_comes_back_whole_or_not_at_all(tmp_path: Path) -> None:
    state = {"weights": torch.arange(40.0), "rows": 3, "pending": [{"losses": torch.ones(2)}]}
    atomic_save(state, tmp_path / "state.pt")
    content, rng = (tmp_path / "state.pt").read_bytes(), random.Random(0)
    assert torch.equal(torch.load(tmp_path / "state.pt", weights_only=True)["weights"], state["weights"])
    for kind in ("flipped", "cut", "overwritten"):
        for _ in range(60):
            try:
                result = state_from_bytes(harmed(content, kind, rng) or b"")
            except ValueError:
                continue
            assert torch.equal(result["weights"], state["weights"])
            assert (result["rows"], len(result["pending"])) == (3, 1)
    torch.save(state, tmp_path / "plain.pt")  # as states were before they had checksums
    assert state_from_bytes((tmp_path / "plain.pt").read_bytes())["rows"] == 3


def test_records_of_chains_are_all_tried() -> None:
    assert set(CHAIN_RECORDS) <= RECORDS.keys()


# --- what else lies in a run's folder


def test_a_damaged_point_is_named(tmp_path: Path) -> None:
    features, ids = RNG.normal(size=(40, 30)), np.arange(40)
    features[:, 0] = 0.0
    folder, rng = tmp_path / "0000", random.Random(0)
    whole = write_point(Point.from_features(features, ids), folder).triangle_entries()
    for name in ("zarr.json", "triangle/zarr.json", "triangle/c/0", "diagonal/c/0"):
        content = (folder / name).read_bytes()
        for kind in ("cut", "gone", "overwritten"):
            changed = harmed(content, kind, rng)
            (folder / name).unlink() if changed is None else (folder / name).write_bytes(changed)
            with pytest.raises(TraceError, match=rf"{folder}/{name} is (damaged|missing)|{folder} holds no point"):
                _ = (point := open_point(folder, ids)).diagonal(), point.triangle_entries(), point.rows(0, 3)
        (folder / name).write_bytes(content)
    np.testing.assert_array_equal(open_point(folder, ids).triangle_entries(), whole)


def test_damaged_baselines_are_named(tmp_path: Path) -> None:
    path, model = tmp_path / "baselines.zarr", MultitaskMLP(2)
    data = arithmetic(probes_per_task=5)
    result = represent({"zeros": lambda *_: np.zeros((10, 2))}, model, data, path)
    np.testing.assert_array_equal(read_representations(path)["zeros"], result["zeros"])
    (path / "zeros" / "c" / "0" / "0").unlink()
    with pytest.raises(TraceError, match=r"baselines\.zarr/zeros/c/0/0 is missing; restore it from a copy, or remove"):
        read_representations(path)


def test_a_damaged_list_of_points_is_named(tmp_path: Path) -> None:
    (tmp_path / "points.zarr").mkdir()
    (tmp_path / "points.zarr" / "points.json").write_text("{")
    with pytest.raises(
        TraceError, match=r"points\.zarr/points\.json is damaged: it is no JSON; restore it from a copy"
    ):
        open_points(tmp_path)
