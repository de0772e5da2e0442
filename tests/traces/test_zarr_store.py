from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from losskernel.errors import TraceError
from losskernel.runs.folder import RunFolder
from losskernel.runs.run import record_ending
from losskernel.runs.status.status_file import RunStatus
from losskernel.runs.tracking.tracker import Tracker
from losskernel.storage.locations import guard
from losskernel.storage.settings_diff import differences
from losskernel.storage.torch_files import atomic_save
from losskernel.traces import zarr_store as store
from losskernel.traces.loss_traces import coordinates_of
from losskernel.traces.records import CHAIN_RECORDS, MemoryStore, layout
from losskernel.traces.zarr_store import TraceStore

SHAPE = (3, 8, 5)
ABOUT = {"identity": {"seed": 0, "betas": [1, 2]}, "chains_per_fit": 2}
RNG = np.random.default_rng(0)
RECORDS = {name: RNG.normal(size=extent).astype(np.float32) for name, (_, extent) in layout(SHAPE, 4).items()}


def _create(target: TraceStore | MemoryStore, burn_in: int = 4, dtype: str = "float32") -> Any:
    coordinates = coordinates_of(5, range(3), 8, {"class": [1, 2, 3, 4, 5]}, None)
    target.create(coordinates.assign(start_losses=("probe", np.arange(5.0))), ABOUT, layout(SHAPE, burn_in), dtype)
    return target


def _fill(target: TraceStore | MemoryStore) -> None:
    whole = ("burn_in_loss", *CHAIN_RECORDS)
    per_draw = {name: array for name, array in RECORDS.items() if name not in whole}
    for chains in (slice(0, 2), slice(2, 3)):
        for start in (0, 3, 6):
            target.write(chains, {name: array[chains, start : start + 3] for name, array in per_draw.items()}, start)
        target.write(chains, {name: RECORDS[name][chains] for name in whole}, 0)


def _blocked(tmp_path: Path) -> Path:
    """A path below a file: nobody can write there, not even root."""
    (tmp_path / "file").write_text("not a folder")
    return tmp_path / "file" / "traces.zarr"


def test_draws_written_in_pieces_are_read_back_whole(tmp_path: Path) -> None:
    on_disk, in_memory = _create(TraceStore(tmp_path / "runs" / "traces.zarr")), _create(MemoryStore())
    for target in (on_disk, in_memory):
        _fill(target)
        target.finish()
    opened = xr.open_zarr(on_disk.path, consolidated=False, chunks=None).load()
    for name, array in RECORDS.items():
        np.testing.assert_array_equal(opened[name], array)
        np.testing.assert_array_equal(in_memory.dataset[name], array)
    assert opened["class"].dims == ("probe",)
    assert "class" in opened["losses"].coords
    assert opened["losses"].dtype == np.float32
    xr.testing.assert_equal(opened, in_memory.dataset)


def test_what_is_not_written_yet_is_nan(tmp_path: Path) -> None:
    for target in (_create(TraceStore(tmp_path / "traces.zarr")), _create(MemoryStore())):
        target.write(slice(0, 2), {"losses": RECORDS["losses"][:2, :3]}, 0)
    opened = xr.open_zarr(tmp_path / "traces.zarr", consolidated=False, chunks=None)["losses"].values
    np.testing.assert_array_equal(opened, target.dataset["losses"])
    assert np.isfinite(opened[:2, :3]).all()
    assert np.isnan(opened[:2, 3:]).all()
    assert np.isnan(opened[2]).all()


def test_a_store_exists_from_its_layout_and_is_complete_at_its_end(tmp_path: Path) -> None:
    target = TraceStore(tmp_path / "traces.zarr")
    assert not target.exists
    assert not MemoryStore().exists
    target.path.mkdir()
    assert not target.exists  # an empty folder may be used
    _create(target)
    assert target.exists
    assert not target.complete
    assert target.provenance() == ABOUT
    target.save_state({"step": 3})
    _fill(target)
    target.finish()
    assert target.complete
    assert target.load_state() is None
    memory = _create(MemoryStore())
    assert memory.exists
    memory.save_state({"step": 3})
    memory.finish()
    assert memory.dataset.attrs["complete"] is True


def test_a_store_has_burn_in_losses_only_if_there_is_a_burn_in(tmp_path: Path) -> None:
    assert "burn_in_loss" in layout(SHAPE, 4)
    assert "burn_in_loss" not in layout(SHAPE, 0)
    _create(TraceStore(tmp_path / "traces.zarr"), burn_in=0)
    assert "burn_in_loss" not in xr.open_zarr(tmp_path / "traces.zarr", consolidated=False)


def test_what_is_measured_once_a_chain_has_one_number_each() -> None:
    arrays = layout(SHAPE, 4)
    assert {name for name, (dimensions, _) in arrays.items() if dimensions == ("chain",)} == set(CHAIN_RECORDS)
    assert all(arrays[name][1] == (3,) for name in CHAIN_RECORDS)


def test_chunks_are_bounded_in_bytes_and_hold_one_stack_of_chains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_CHUNK_BYTES", 3 * 2 * 5 * 4)  # three draws of two chains, five probes, float32
    target = _create(TraceStore(tmp_path / "traces.zarr"))
    assert target.chunk_draws == 3
    _fill(target)
    opened = xr.open_zarr(target.path, consolidated=False, chunks=None).load()
    np.testing.assert_array_equal(opened["losses"], RECORDS["losses"])
    assert sorted(item.name for item in (target.path / "losses" / "c").iterdir()) == ["0", "1"]
    assert sorted(item.name for item in (target.path / "losses" / "c" / "0").iterdir()) == ["0", "1", "2"]


def test_a_small_store_is_one_chunk_a_stack(tmp_path: Path) -> None:
    assert _create(TraceStore(tmp_path / "traces.zarr")).chunk_draws == 8


def test_the_resume_state_is_replaced_whole(tmp_path: Path) -> None:
    target = _create(TraceStore(tmp_path / "traces.zarr"))
    assert target.load_state() is None
    target.save_state({"step": 1, "weights": torch.ones(2), "pending": []})
    target.save_state({"step": 2, "weights": torch.zeros(2), "pending": [{"losses": torch.ones(3)}]})
    state = target.load_state()
    assert state["step"] == 2
    assert torch.equal(state["weights"], torch.zeros(2))
    assert torch.equal(state["pending"][0]["losses"], torch.ones(3))
    assert not list(target.path.glob("*.partial"))


def test_a_save_that_breaks_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    atomic_save({"step": 1}, path)
    with pytest.raises(Exception, match=r"pickle|local object"):
        atomic_save({"step": lambda: 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_a_full_disk_leaves_the_old_file_and_all_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = _create(TraceStore(tmp_path / "traces.zarr"))
    target.save_state({"step": 1})
    (tmp_path / "metrics.json").write_text("{}")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(TraceError, match=r"cannot write .*: No space left on device"):
            target.save_state({"step": 2})
    with pytest.raises(TraceError, match=r"cannot write .*: No space left on device"):
        RunFolder(tmp_path).write("metrics.json", lambda path: path.write_text("half") and full())
    assert target.load_state() == {"step": 1}
    assert (tmp_path / "metrics.json").read_text() == "{}"
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


def test_a_layout_that_fails_leaves_all_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, settled = Path.write_bytes, []
    monkeypatch.setattr("os.fsync", settled.append)

    def full(path: Path, content: bytes) -> int:
        if path.parent.name == "losses":
            raise OSError(28, "No space left on device")
        return written(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(TraceError, match="No space left on device"):
            _create(TraceStore(tmp_path / "traces.zarr"))
    assert not list(tmp_path.iterdir())
    _create(TraceStore(tmp_path / "traces.zarr"))
    assert len(settled) == len([path for path in tmp_path.rglob("*") if path.is_file()])  # it outlives a loss of power


@pytest.mark.parametrize("there", [False, True])
def test_a_link_to_another_disk_is_followed(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "disk").mkdir()
    (tmp_path / "traces.zarr").symlink_to(tmp_path / "disk")
    target = _create(TraceStore(tmp_path / "traces.zarr"))
    _fill(target)
    target.finish()
    assert (tmp_path / "traces.zarr").is_symlink()
    np.testing.assert_array_equal(TraceStore(tmp_path / "disk").dataset()["losses"], RECORDS["losses"])


def test_an_array_on_another_disk_is_not_missing(tmp_path: Path) -> None:
    target = _create(TraceStore(tmp_path / "traces.zarr"))
    _fill(target)
    (target.path / "losses" / "c").rename(tmp_path / "disk")
    (target.path / "losses" / "c").symlink_to(tmp_path / "disk")
    target.finish()
    np.testing.assert_array_equal(target.dataset()["losses"], RECORDS["losses"])


def test_a_name_like_a_url_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target = _create(TraceStore(Path("a::b") / "ü [1]?.zarr"))
    _fill(target)
    target.finish()
    np.testing.assert_array_equal(target.dataset()["losses"], RECORDS["losses"])


def test_a_record_that_cannot_be_closed_does_not_hide_why_the_run_ends(tmp_path: Path) -> None:
    class Full(Tracker):
        def finish(self, state: str) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(TraceError, match="the reason"), record_ending(RunStatus(tmp_path), Full(), {}, tmp_path):
        raise TraceError("the reason")
    with pytest.raises(OSError, match="No space left"), record_ending(RunStatus(tmp_path), Full(), {}, tmp_path):
        pass


def test_a_layout_left_half_done_is_no_store(tmp_path: Path) -> None:
    target = TraceStore(tmp_path / "traces.zarr")
    (tmp_path / "traces.zarr.partial").mkdir()
    (tmp_path / "traces.zarr.partial" / "zarr.json").write_text("half")
    assert not target.exists
    _create(target)
    assert [item.name for item in tmp_path.iterdir()] == ["traces.zarr"]


# --- errors


def test_a_store_that_cannot_be_laid_out_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"cannot write .*traces.zarr: .*; free space or choose another folder"):
        _create(TraceStore(_blocked(tmp_path)))


def _act(target: TraceStore, action: str) -> None:
    """Do what a process does that still writes."""
    actions = {
        "write": lambda: target.write(slice(0, 2), {"losses": RECORDS["losses"][:2]}, 0),
        "save_state": lambda: target.save_state({"step": 1}),
        "finish": target.finish,
    }
    actions[action]()


@pytest.mark.parametrize("action", ["write", "save_state", "finish"])
def test_a_store_that_vanishes_is_one_line(tmp_path: Path, action: str) -> None:
    target = _create(TraceStore(tmp_path / "traces.zarr"))
    target.path.rename(tmp_path / "elsewhere.zarr")
    target.path.write_text("a file stands in its place")
    with pytest.raises(TraceError, match=r"cannot write .*traces.zarr: .*what was written before stays readable"):
        _act(target, action)


@pytest.mark.parametrize("action", ["write", "save_state", "finish"])
def test_a_trace_that_another_has_replaced_is_left_alone(tmp_path: Path, action: str) -> None:
    target = _create(TraceStore(tmp_path / "traces.zarr"))
    target.path.rename(tmp_path / "elsewhere.zarr")
    other = TraceStore(tmp_path / "traces.zarr")
    other.create(coordinates_of(5, range(3), 8, {}, None), ABOUT | {"seed": 1}, layout(SHAPE, 4), "float32")
    _fill(other)
    other.finish()
    before = {path: path.read_bytes() for path in target.path.rglob("*") if path.is_file()}
    with pytest.raises(TraceError, match=r"traces\.zarr was replaced while it was written; run again to see what lies"):
        _act(target, action)
    assert {path: path.read_bytes() for path in target.path.rglob("*") if path.is_file()} == before


def test_no_state_is_left_in_a_folder_made_anew(tmp_path: Path) -> None:
    target = _create(TraceStore(tmp_path / "traces.zarr"))
    target.path.rename(tmp_path / "elsewhere.zarr")
    target.path.mkdir()
    with pytest.raises(TraceError, match=r"cannot write .*traces.zarr: No such file or directory"):
        target.save_state({"step": 1})
    assert not target.exists  # the run may begin again


def test_provenance_needs_a_trace(tmp_path: Path) -> None:
    for ask in (lambda: TraceStore(tmp_path).provenance(), lambda: TraceStore(tmp_path).complete):
        with pytest.raises(TraceError, match=r"holds no loss trace; give the folder of a run or of a traces.zarr"):
            ask()


def test_guard_passes_other_errors_on(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    def wrong() -> None:
        raise KeyError("a fault in the code")

    with pytest.raises(TraceError, match=f"cannot write {tmp_path}: No space left on device; free space"):
        guard(tmp_path, full)
    with pytest.raises(KeyError, match="a fault in the code"):
        guard(tmp_path, wrong)


# --- differences


def test_equal_settings_have_no_differences_whatever_json_made_of_them() -> None:
    stored = {"sampler": {"nbeta": 100.0, "betas": [1, 2]}, "seed": 0, "path": "a/b"}
    settings = {"sampler": {"nbeta": 100, "betas": (1, 2)}, "seed": 0, "path": Path("a/b")}
    assert differences(stored, settings) == []


def test_every_difference_names_its_key_and_both_values() -> None:
    stored = {"sampler": {"nbeta": 1.0, "inner": {"a": 1}}, "seed": 0, "gone": True}
    settings = {"sampler": {"nbeta": 2.0, "inner": {"a": None}}, "seed": 0, "new": "x"}
    assert differences(stored, settings) == [
        "gone: stored True, asked None",
        "new: stored None, asked 'x'",
        "sampler.inner.a: stored 1, asked None",
        "sampler.nbeta: stored 1.0, asked 2.0",
    ]
