import itertools
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import draw
from PIL import Image
from torch.utils.data import Subset

from losskernel.data import Preprocessing
from losskernel.data.base import PackedTensors
from losskernel.data.images.image_files import CachedImages, Crop, ImageFiles
from losskernel.data.loading import BlockLoader
from losskernel.errors import InputError

CPU = torch.device("cpu")
PLAIN = Crop(16, 20, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear")


def files(folder: Path, count: int = 5, crop: Crop = PLAIN) -> ImageFiles:
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        if not (folder / name).exists():
            draw(folder / name, number)
    return ImageFiles(folder, names, range(count), crop)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded."""
    names: list[str] = []
    read = Crop.read

    def noted(crop: Crop, path: Path, called: str, seed: int | None) -> torch.Tensor:
        names.append(Path(path).name)
        return read(crop, path, called, seed)

    monkeypatch.setattr(Crop, "read", noted)
    return names


# --- preprocessing


@pytest.mark.parametrize("name", ["googlenet", "resnet50"])
def test_a_network_gets_what_its_own_transforms_give(name: str, tmp_path: Path) -> None:
    from torchvision.models import get_model_weights

    path = draw(tmp_path / "picture.png", 1)
    crop = Preprocessing(f"torchvision/{name}").at()
    with Image.open(path) as picture:
        expected = get_model_weights(name).DEFAULT.transforms()(picture)
    computed = crop(crop.read(path)[None])[0]
    assert computed.shape == (3, 224, 224)
    torch.testing.assert_close(computed, expected, rtol=0, atol=1e-5)


def test_what_is_given_replaces_what_the_network_wants() -> None:
    computed = Preprocessing().at()
    assert (computed.size, computed.resize, computed.interpolation) == (224, 256, "bilinear")
    assert Preprocessing().at(64).resize == 73  # 256 / 224 of it
    given = Preprocessing("torchvision/resnet50", 70, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6], "bicubic").at(64)
    assert given == Crop(64, 70, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6], "bicubic")


def test_networks_of_timm_have_their_own_preprocessing() -> None:
    pytest.importorskip("timm")
    crop = Preprocessing("timm/vit_tiny_patch16_224").at()
    assert crop == Crop(224, 248, [0.5] * 3, [0.5] * 3, "bicubic")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train_crops": 0}, r"dataset\.preprocessing\.train_crops must be"),
        ({"network": "googlenet"}, "preprocessing.network must be torchvision/NAME or timm/NAME, got 'googlenet'"),
        ({"network": "torchvision/nope"}, "dataset.preprocessing.network: torchvision has no pretrained 'nope'"),
        ({"network": "timm/nope"}, "dataset.preprocessing.network: timm has no network 'nope'"),
        ({"resize": 10}, r"preprocessing.resize must be >= 16 \(dataset.size, which is cropped from it\), got 10"),
        ({"mean": 0.5}, r"preprocessing.mean must be three numbers, got 0.5; e.g. \[0.5,0.5,0.5\]"),
        ({"mean": [0.5, 0.5]}, "preprocessing.mean must be three numbers"),
        ({"std": [0.5, 0.5, "x"]}, "preprocessing.std must be a number, got 'x'"),
        ({"std": [0.5, 0.5, 0]}, r"preprocessing.std must be > 0, got \[0.5, 0.5, 0\]"),
        ({"interpolation": "cubic"}, "interpolation must be one of nearest, bilinear, .*, got 'cubic'"),
    ],
)
def test_preprocessing_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocessing(**given).at(16)


def test_versions_of_training_pictures_are_crops_that_stay_the_same(tmp_path: Path) -> None:
    plain = files(tmp_path)
    versions = ImageFiles(tmp_path, [f"{number}.png" for number in range(5)], range(5), PLAIN, crops=9)
    assert versions.targets.tolist() == [*range(5)] * 9
    assert versions.key() != plain.key()
    decoded = torch.stack([versions.packed(index)[0] for index in range(45)])
    assert torch.equal(decoded[:5], torch.stack([plain.packed(index)[0] for index in range(5)]))
    assert len(torch.unique(decoded.flatten(1), dim=0)) == 45  # no two alike
    for pictures in (plain, versions):
        assert torch.equal(pictures.packed(-1)[0], pictures.packed(len(pictures) - 1)[0])
        with pytest.raises(IndexError):
            pictures.packed(len(pictures))
    cached = CachedImages(versions, tmp_path, workers=0)
    assert torch.equal(cached.held()[0], decoded)
    # A random crop of a picture that brightens to the right is brighter on its right, or mirrored.
    ramp = np.tile(np.arange(240, dtype=np.uint8), (240, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    ramps = ImageFiles(tmp_path, ["ramp.png"], [0], PLAIN, crops=60)
    slopes = [int(ramps.packed(version)[0][0, 8, [0, -1]].int().diff()) for version in range(1, 60)]
    assert 15 < sum(slope > 0 for slope in slopes) < 45
    shares = np.abs(slopes) / 240 * 16 / 15  # of the width
    assert 0.4 < shares.min() < 0.6  # 25 % of the area, at 3 : 4 or 4 : 3
    assert shares.max() > 0.9


@pytest.mark.parametrize("size", [0, 1.5])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(InputError, match=r"dataset.size must be"):
        Preprocessing().at(size)


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "png"), ("1", "png"), ("P", "png"), ("RGBA", "png"), ("LA", "png"), ("CMYK", "jpg")]
)
def test_pictures_of_every_mode_become_colour(mode: str, kind: str, tmp_path: Path) -> None:
    path = draw(tmp_path / f"picture.{kind}", 3, mode)
    pixels = PLAIN.read(path)
    assert pixels.shape == (3, 16, 16)
    assert pixels.dtype == torch.uint8
    with Image.open(path) as picture:
        assert picture.mode == mode
        picture.convert("RGB").save(tmp_path / "colour.png")
    assert torch.equal(pixels, PLAIN.read(tmp_path / "colour.png"))


def test_a_broken_picture_is_named_also_by_a_worker(tmp_path: Path) -> None:
    whole = files(tmp_path)
    content = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"3\.png cannot be read as an image \(.*\); replace or remove it"):
        whole[3]
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"3\.png cannot be read as an image") as raised:
            CachedImages(whole, tmp_path / "cache", workers).held()
        assert len(str(raised.value).splitlines()) == 1
        assert multiprocessing.active_children() == []  # though the error is still held
    (tmp_path / "3.png").write_text("no picture")
    with pytest.raises(InputError, match=r"3\.png cannot be read as an image \(cannot identify image file"):
        whole[3]


# --- the cache


def test_pictures_are_decoded_once_and_for_all(tmp_path: Path, reads: list[str]) -> None:
    plain = files(tmp_path)
    probes = CachedImages(plain, tmp_path / "cache", 0)
    assert reads == []  # a run that is refused has decoded nothing
    early = probes[2]
    assert reads == ["2.png"]
    pixels, targets = probes.held()
    assert sorted(reads[1:]) == [f"{number}.png" for number in range(5)]
    again = CachedImages(files(tmp_path), tmp_path / "cache", 0)
    assert torch.equal(again.held()[0], pixels)
    late = again[2]
    assert len(reads) == 6
    assert pixels.shape == (5, 3, 16, 16)
    assert targets.tolist() == list(range(5))
    assert torch.equal(early[0], late[0])
    assert early[1] == late[1] == 2
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npy"]


def test_the_cache_knows_when_it_does_not_fit(tmp_path: Path, reads: list[str]) -> None:
    def decoded(count: int = 5, crop: Crop = PLAIN) -> int:
        before = len(reads)
        CachedImages(files(tmp_path, count, crop), tmp_path / "cache", 0).held()
        return len(reads) - before

    assert (decoded(), decoded()) == (5, 0)
    assert decoded(4) == 4
    assert decoded(crop=Crop(16, 18, PLAIN.mean, PLAIN.std, "bilinear")) == 5
    assert decoded(crop=Crop(12, 20, PLAIN.mean, PLAIN.std, "bilinear")) == 5
    assert decoded(crop=Crop(16, 20, PLAIN.mean, PLAIN.std, "nearest")) == 5
    assert decoded(crop=Crop(16, 20, (0, 0, 0), (1, 1, 1), "bilinear")) == 0  # normalised later
    os.utime(tmp_path / "1.png", (time.time() + 5, time.time() + 5))
    assert decoded() == 5
    draw(tmp_path / "1.png", 77)
    assert decoded() == 5


def test_a_cache_that_was_not_finished_does_not_count(tmp_path: Path, monkeypatch: Any, reads: list[str]) -> None:
    cache = tmp_path / "cache"
    whole = files(tmp_path)
    (tmp_path / "4.png").rename(tmp_path / "away")
    (tmp_path / "4.png").write_text("no picture")
    with pytest.raises(InputError, match=r"4\.png"):
        CachedImages(whole, cache, 0).held()
    assert list(cache.iterdir()) == []
    (tmp_path / "away").rename(tmp_path / "4.png")
    pixels = CachedImages(whole, cache, 0).held()[0].clone()
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:-100])  # as a copy that was cut short
    reads.clear()
    assert torch.equal(CachedImages(whole, cache, 0).held()[0], pixels)
    assert len(reads) == 5


def test_what_is_read_from_the_cache_cannot_change_it(tmp_path: Path) -> None:
    first = CachedImages(files(tmp_path), tmp_path / "cache", 0)
    before = first.held()[0].clone()
    first.held()[0].zero_()
    assert torch.equal(CachedImages(files(tmp_path), tmp_path / "cache", 0).held()[0], before)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"dataset.cache: cannot write .*; free space, or choose .*LOSSKERNEL_CACHE"):
        CachedImages(files(tmp_path), tmp_path / "file" / "cache", 0).held()


def test_the_environment_moves_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSKERNEL_CACHE", str(tmp_path / "there"))
    CachedImages(files(tmp_path), None, 0).held()
    assert len(list((tmp_path / "there").iterdir())) == 1
    monkeypatch.delenv("LOSSKERNEL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    CachedImages(files(tmp_path), None, 0).held()
    assert len(list((tmp_path / ".cache" / "losskernel").iterdir())) == 1


# --- datasets


def test_all_kinds_of_pictures_give_the_same_inputs(tmp_path: Path) -> None:
    plain = files(tmp_path, 7)
    cached = CachedImages(plain, tmp_path / "cache", 0)
    arrays = PackedTensors(*cached.held(), PLAIN)
    expected = torch.stack([plain[number][0] for number in range(7)])
    assert expected.dtype == torch.float32
    with Image.open(tmp_path / "0.png") as picture:
        side = np.asarray(picture.resize((25, 20), Image.Resampling.BILINEAR)) / 255
    centre = (side[2:18, 4:20] - PLAIN.mean) / PLAIN.std
    np.testing.assert_allclose(expected[0].permute(1, 2, 0), centre, atol=0.02)
    for dataset, block in itertools.product((plain, cached, arrays), (3, 100)):
        for some, rows in ((dataset, range(7)), (Subset(dataset, [4, 1, 1, 6]), [4, 1, 1, 6])):
            parts = list(BlockLoader(some, block, 0, CPU))
            assert torch.equal(torch.cat([inputs for inputs, _ in parts]), expected[list(rows)])
            assert torch.cat([targets for _, targets in parts]).tolist() == list(rows)
            assert torch.equal(some[1][0], expected[rows[1]])
