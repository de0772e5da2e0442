"""Samples of other datasets with other targets: in memory they stay there, in files they are read late and packed."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import draw
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from losskernel.data import stack
from losskernel.data.base import PackedTensors, ReadOnce, held, tensors, unchanged, unpacker
from losskernel.data.images.image_files import CachedImages, Crop, ImageFiles
from losskernel.data.loading import BlockLoader
from losskernel.data.recombined import Assembled, as_probes, assemble, inputs_like, packed_inputs, targets_of
from losskernel.errors import InputError

CPU = torch.device("cpu")
CROP = Crop(8, 8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear")
OTHER = Crop(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear")


class Counted(Dataset):
    """A dataset of one's own that counts how often its samples are asked for."""

    def __init__(self, count: int) -> None:
        self.asked = np.zeros(count, int)

    def __len__(self) -> int:
        return len(self.asked)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.asked[index] += 1
        return torch.full((2,), float(index)), index % 3


class WithTargets(Counted):
    """One that says its targets, as torchvision's do; and maybe wrongly, as a subclass of one may."""

    def __init__(self, count: int, right: bool) -> None:
        super().__init__(count)
        self.targets = [(row if right else row + 1) % 3 for row in range(count)]


def _pixels(count: int, seed: int = 0, crop: Crop = CROP) -> PackedTensors:
    rng = np.random.default_rng(seed)
    pixels = torch.as_tensor(rng.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8))
    return PackedTensors(pixels, torch.arange(count) % 3, crop)


def _numbers(count: int) -> TensorDataset:
    return TensorDataset(torch.arange(count).float()[:, None], torch.arange(count) % 3)


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    names = [draw(tmp_path / f"{number}.png", number).name for number in range(9)]
    return ImageFiles(tmp_path, names, [number % 3 for number in range(9)], CROP)


def test_tensors_stay_tensors_and_are_not_copied_for_nothing() -> None:
    whole = _numbers(5)
    again = assemble([(whole, range(5))], torch.zeros(5))
    assert tensors(again)[0] is whole.tensors[0]
    both = tensors(assemble([(whole, [3, 1]), (Subset(whole, [4, 2]), [1])], torch.tensor([7, 8, 9])))
    assert both[0][:, 0].tolist() == [3, 1, 2]
    assert both[1].tolist() == [7, 8, 9]


def test_pixels_stay_bytes_and_are_shared_where_all_stay() -> None:
    arrays = _pixels(6)
    same = assemble([(arrays, range(6))], torch.arange(6))
    assert held(same)[0] is arrays.inputs
    some = assemble([(arrays, [5, 0]), (_pixels(4, 1), [2])], torch.arange(3))
    assert unpacker(some) == CROP
    pixels, targets = held(some)
    assert pixels.dtype == torch.uint8
    assert held(some)[0] is pixels  # put together once
    assert targets.tolist() == [0, 1, 2]
    expected = torch.stack([arrays[5][0], arrays[0][0], _pixels(4, 1)[2][0]])
    assert torch.equal(torch.stack([some[row][0] for row in range(3)]), expected)
    blocks = list(BlockLoader(some, 2, 0, CPU))
    assert torch.equal(torch.cat([inputs for inputs, _ in blocks]), expected)


def test_what_packs_otherwise_is_joined_unpacked() -> None:
    first, second = _pixels(3), _pixels(3, 1, OTHER)
    both = assemble([(first, [1]), (second, [2])], torch.arange(2))
    assert unpacker(both) is unchanged
    expected = torch.stack([first[1][0], second[2][0]])
    assert torch.equal(stack(both)[0], expected)
    assert torch.equal(held(both)[0], expected)


def test_assembling_the_assembled_reaches_for_what_lies_below() -> None:
    base = _pixels(6)
    first = as_probes(assemble([(base, [4, 2, 0]), (inputs_like(base.inputs[:1] // 2, base), [0])], torch.arange(4)), 0)
    second = assemble([(Subset(first, [3, 1]), [1, 0]), (base, [5])], torch.arange(3))
    assert isinstance(second, Assembled)
    assert {type(source) for source in second.sources} == {PackedTensors, type(inputs_like(base.inputs, base))}
    expected = torch.stack([base.inputs[2], base.inputs[0] // 2, base.inputs[5]])
    assert torch.equal(held(second)[0], expected)
    assert torch.equal(torch.stack([second.packed(row)[0] for row in range(3)]), expected)


def test_relabelling_files_decodes_none(files: ImageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("decoded")

    cached = CachedImages(files, tmp_path / "cache", 0)
    with monkeypatch.context() as patch:
        patch.setattr(Crop, "read", never)
        relabelled = [assemble([(item, range(9))], torch.ones(9).long()) for item in (files, cached)]
        assert [targets_of(Subset(item, [1, 5])).tolist() for item in (files, cached)] == [[1, 2], [1, 2]]
    assert held(relabelled[0]) is None
    assert held(relabelled[1])[0] is cached.held()[0]
    for item in relabelled:
        assert torch.equal(item[4][0], files[4][0])
        assert item[4][1] == 1


def test_probes_from_files_are_kept_packed_once_read(files: ImageFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    probes = as_probes(assemble([(files, [7, 1])], torch.arange(2)), 0)
    pixels, targets = held(probes)
    assert pixels.dtype == torch.uint8
    assert held(probes)[0] is pixels
    assert torch.equal(pixels, torch.stack([files.packed(7)[0], files.packed(1)[0]]))
    assert targets.tolist() == [0, 1]
    assert torch.equal(next(iter(BlockLoader(probes, 2, 0, CPU)))[0], torch.stack([files[7][0], files[1][0]]))
    monkeypatch.setattr("losskernel.data.base.KEPT_BYTES", 2 * 3 * 8 * 8 - 1)
    assert held(as_probes(assemble([(files, [7, 1])], torch.arange(2)), 0)) is None


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_among_probes_is_one_line(workers: int, files: ImageFiles, tmp_path: Path) -> None:
    (tmp_path / "7.png").write_text("no picture")
    with pytest.raises(InputError, match=r"7\.png cannot be read as an image") as raised:
        held(as_probes(assemble([(files, range(9))], torch.arange(9)), workers))
    assert len(str(raised.value).splitlines()) == 1


def test_ones_own_dataset_is_read_late_and_once_as_probes() -> None:
    dataset = Counted(5)
    probes = as_probes(assemble([(dataset, [4, 1])], torch.tensor([2, 2])), 0)
    assert dataset.asked.sum() == 0
    for _ in range(2):
        inputs, targets = next(iter(BlockLoader(probes, 5, 0, CPU)))
        assert inputs[:, 0].tolist() == [4, 1]
        assert targets.tolist() == [2, 2]
    assert dataset.asked.max() <= 2  # one look at the first for the size
    assert probes[1][0].tolist() == [1, 1]


def test_targets_are_read_only_where_nobody_knows_them() -> None:
    dataset = Counted(70)
    assert targets_of(dataset).tolist() == [row % 3 for row in range(70)]
    assert (dataset.asked == 1).all()
    kept = ReadOnce(dataset, 0)
    assert torch.equal(targets_of(kept), targets_of(dataset))
    dataset.asked[:] = 0
    targets_of(kept)
    assert dataset.asked.sum() == 0
    right, wrong = WithTargets(70, True), WithTargets(70, False)
    assert targets_of(right).tolist() == targets_of(wrong).tolist() == targets_of(dataset).tolist()
    assert right.asked.sum() == 8  # to see that they are true
    assert targets_of(Subset(_numbers(5), [4, 0])).tolist() == [1, 0]


def test_inputs_of_a_few_samples() -> None:
    assert packed_inputs(_numbers(5), [3, 0])[:, 0].tolist() == [3, 0]
    dataset = Counted(5)
    assert packed_inputs(dataset, np.array([3, 0]))[:, 0].tolist() == [3, 0]
    assert dataset.asked.tolist() == [1, 0, 0, 1, 0]
    assert torch.equal(packed_inputs(_pixels(4), [2]), _pixels(4).inputs[2:3])


def test_what_is_assembled_can_go_to_another_process(files: ImageFiles) -> None:
    probes = as_probes(assemble([(files, [7, 1]), (_pixels(2), [0])], torch.arange(3)), 0)
    again = pickle.loads(pickle.dumps(probes))
    assert torch.equal(held(again)[0], held(probes)[0])
    dataset = assemble([(inputs_like(_pixels(2).inputs, _pixels(1)), [1])], torch.arange(1))
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0][0], dataset[0][0])
