import os
import shutil
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import cifar_like, draw, imagenet_like
from PIL import Image
from torch.utils.data import DataLoader

from losskernel.data import (
    Duplicates,
    JointProbes,
    Preprocessing,
    SymmetricNoise,
    TrainingProbes,
    cifar10,
    cifar100,
    image_folder,
    imagenet,
    stack,
    tiny_imagenet,
)
from losskernel.data.base import size
from losskernel.data.images.image_files import CachedImages, ImageFiles
from losskernel.data.images.image_folders import class_names, stratified
from losskernel.errors import InputError

COUNTS = {"ant": 3, "bee": 5, "cat": 4}


@pytest.fixture(scope="module")
def like_imagenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    root = tmp_path_factory.mktemp("imagenet")
    return root, imagenet_like(root, classes=4, train=3, val=3)


def folder(root: Path, split: str = "", counts: dict[str, int] | None = None) -> Path:
    for number, (name, count) in enumerate((counts or COUNTS).items()):
        for item in range(count):
            draw(root / split / name / f"{item}.jpg", 10 * number + item)
    return root


# --- a choice that is the same in every class


def test_as_many_probes_of_every_class_by_chance() -> None:
    numbers = np.random.default_rng(0).permutation(np.arange(60) % 3)
    rows = stratified(numbers, [0, 1, 2], ["a", "b", "c"], 7, seed=1)
    assert numbers[rows].tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert len(set(rows.tolist())) == 21
    assert rows.tolist() == stratified(numbers, [0, 1, 2], ["a", "b", "c"], 7, seed=1).tolist()
    assert rows.tolist() != stratified(numbers, [0, 1, 2], ["a", "b", "c"], 7, seed=2).tolist()


def test_fewer_probes_and_classes_are_among_more() -> None:
    numbers = np.arange(60) % 3
    rows = stratified(numbers, [0, 1, 2], ["a", "b", "c"], 7, seed=1).reshape(3, 7)
    assert stratified(numbers, [2], ["c"], 4, seed=1).tolist() == rows[2, :4].tolist()
    everything = stratified(numbers, [0, 2], ["a", "c"], None, seed=1)
    assert everything.tolist() == [*range(0, 60, 3), *range(2, 60, 3)]
    chosen = np.concatenate([stratified(numbers, [1], ["b"], 1, seed) for seed in range(200)])
    assert len(set(chosen.tolist())) == 20  # every one has its chance


# --- labelled folders


@pytest.mark.parametrize("split", ["", "train"])
def test_a_folder_for_each_class(split: str, tmp_path: Path) -> None:
    data = image_folder(str(folder(tmp_path, split)), size=32, probes_per_class=2, workers=0, cache=str(tmp_path / "c"))
    inputs, targets = stack(data.train)
    assert targets.tolist() == [0] * 3 + [1] * 5 + [2] * 4
    assert inputs.shape == (12, 3, 32, 32)
    assert data.labels["class"].tolist() == ["ant", "ant", "bee", "bee", "cat", "cat"]
    assert set(data.labels) == {"class"}
    for name, label, probe in zip(data.ids, data.labels["class"], data.probes, strict=True):
        assert name.startswith(f"{split}/{label}/".lstrip("/"))
        assert (tmp_path / name).is_file()
        assert list(COUNTS)[int(probe[1])] == label
        (row,) = (row for row in range(12) if torch.equal(inputs[row], probe[0]))  # each a training picture
        assert targets[row] == probe[1]


@pytest.mark.parametrize("split", ["", "train", "val"])
def test_probes_know_which_training_picture_they_are(split: str, tmp_path: Path) -> None:
    folder(tmp_path, "train" if split else "")
    if split == "val":
        folder(tmp_path, "val")
    for item in (2, None):
        data = image_folder(str(tmp_path), size=16, probes_per_class=item, workers=0, cache=str(tmp_path / "c"))
        members, train = data.members(), stack(data.train)
        if split == "val":
            assert (members == -1).all()
        else:
            assert torch.equal(train[0][members], stack(data.probes)[0])
            assert torch.equal(train[1][members], stack(data.probes)[1])
        assert data.classes == list(COUNTS)
        assert data.train_ids[3].endswith("bee/0.jpg")
    assert data.labels["class"].tolist() == ["ant"] * 3 + ["bee"] * 5 + ["cat"] * 4
    if split != "val":
        assert members.tolist() == list(range(12))


def test_probes_come_from_the_split_that_is_named(tmp_path: Path) -> None:
    for name in ("train", "val", "extra"):
        folder(tmp_path, name)
    first = {
        name: image_folder(str(tmp_path), probes_per_class=1, probe_split=name).ids[0].split("/")[0]
        for name in (None, "train", "val", "extra")
    }
    assert first == {None: "val", "train": "train", "val": "val", "extra": "extra"}


def test_only_pictures_that_can_be_seen_count(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "bee" / "notes.txt").touch()
    (tmp_path / "bee" / "._0.jpg").touch()
    (tmp_path / "bee" / "deeper").mkdir()
    draw(tmp_path / "bee" / "deeper" / "9.JPG", 9)
    (tmp_path / ".hidden").mkdir()
    data = image_folder(str(tmp_path), probes_per_class=3)
    assert len(data.train) == 13
    assert set(data.labels["class"]) == {"ant", "bee", "cat"}


def test_links_upwards_add_nothing_and_broken_ones_are_named(tmp_path: Path) -> None:
    root = folder(tmp_path, counts={"a": 4, "b": 4})
    (root / "a" / "deep").mkdir()
    shutil.copy(next((root / "a").glob("*.*")), root / "a" / "deep" / "more.png")
    (root / "a" / "self").symlink_to(root / "a")
    (root / "b" / "all").symlink_to(root)
    (root / "c").symlink_to(root / "a")  # a class that is another's pictures
    build = partial(image_folder, str(root), size=16, probes_per_class=2, cache=str(tmp_path / "cache"), workers=0)
    assert len(build().train) == 4 + 1 + 4 + 4 + 1
    (root / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    data: Any = build()
    with pytest.raises(
        InputError, match=r"b/gone.png cannot be read \(No such file or directory\); remove it, or mend"
    ):
        data.train.held()


def zipped(folder: Path, archive: Path, below: str = "") -> Path:
    """Write a folder's files into an archive, below a name."""
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, below + path.relative_to(folder).as_posix())
    return archive


@pytest.mark.parametrize("below", ["", "pictures/", "a/"])
@pytest.mark.parametrize("split", ["", "train"])
def test_an_archive_is_read_in_place_as_the_folder_it_holds(below: str, split: str, tmp_path: Path) -> None:
    folder(tmp_path / "a", split)
    (tmp_path / "a" / split / "bee" / "._0.jpg").touch()
    (tmp_path / "a" / split / "bee" / "deeper").mkdir()
    draw(tmp_path / "a" / split / "bee" / "deeper" / "9.JPG", 9)
    archive = zipped(tmp_path / "a", tmp_path / "pictures.zip", below)
    settings = {"size": 16, "probes_per_class": 2, "cache": str(tmp_path / "cache")}
    wanted, given = (image_folder(str(path), workers=0, **settings) for path in (tmp_path / "a", archive))
    assert given.ids.tolist() == wanted.ids.tolist()
    assert given.train_ids == wanted.train_ids
    assert given.labels["class"].tolist() == wanted.labels["class"].tolist()
    for ours, theirs in zip(
        stack(given.train) + stack(given.probes), stack(wanted.train) + stack(wanted.probes), strict=True
    ):
        assert torch.equal(ours, theirs)
    # Processes that load from it each open it for themselves.
    files = image_folder(str(archive), **settings).train._files
    assert torch.equal(stack(files)[0], stack(wanted.train)[0])
    loaded = list(DataLoader(files, 3, num_workers=2))
    assert torch.equal(torch.cat([inputs for inputs, _ in loaded]), stack(wanted.train)[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "pictures.zip"]


def test_an_archive_that_changed_or_moved_is_known(tmp_path: Path) -> None:
    folder(tmp_path / "a")
    settings = {"size": 16, "probes_per_class": 2, "cache": str(tmp_path / "cache"), "workers": 0}
    archive = zipped(tmp_path / "a", tmp_path / "one.zip")
    first, before = image_folder(str(archive), **settings), archive.stat()
    copied = shutil.copy(archive, tmp_path / "two.zip")
    assert image_folder(str(copied), **settings).train.identity()[0] == first.train.identity()[0]
    pixels = stack(first.train)[0]
    draw(tmp_path / "a" / "ant" / "0.jpg", 777)
    zipped(tmp_path / "a", archive)
    os.utime(archive, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = image_folder(str(archive), **settings)
    assert again.train.identity()[0] != first.train.identity()[0]
    assert not torch.equal(stack(again.train)[0][0], pixels[0])
    assert torch.equal(stack(again.train)[0][1:], pixels[1:])


def test_archives_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    archive = zipped(folder(tmp_path / "a"), tmp_path / "pictures.zip")
    whole = archive.read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"dataset.root=.*cut.zip is no zip archive, or damaged \(.*\); expected"):
        image_folder(str(tmp_path / "cut.zip"))
    position = whole.index(b"ant/1.jpg") + 500
    (tmp_path / "bad.zip").write_bytes(whole[:position] + bytes(20) + whole[position + 20 :])
    data = image_folder(str(tmp_path / "bad.zip"), 16, probes_per_class=3, cache=str(tmp_path / "c"), workers=0)
    with pytest.raises(InputError, match=r"bad.zip/ant/1.jpg cannot be read \(Bad CRC-32.*\); make the archive again"):
        stack(data.probes)
    assert not list((tmp_path / "c").glob("*.npy"))


# --- Tiny ImageNet


def tiny_like(root: Path) -> list[str]:
    """Lay a folder out like tiny-imagenet-200 as it is unpacked; return its wnids."""
    wnids = list(class_names())[5:1000:250]
    rows = []
    for number, wnid in enumerate(wnids):
        for item in range(3):
            draw(root / "train" / wnid / "images" / f"{wnid}_{item}.JPEG", 10 * number + item)
            draw(root / "val" / "images" / f"val_{3 * number + item}.JPEG", 500 + 10 * number + item)
            rows.append(f"val_{3 * number + item}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(reversed(rows)))
    (root / "wnids.txt").write_text("\n".join(wnids))
    return wnids


@pytest.mark.parametrize("archived", [False, True])
def test_tiny_imagenet_as_it_is_unpacked_or_sorted(archived: bool, tmp_path: Path) -> None:
    wnids = tiny_like(tmp_path / "a")
    root = zipped(tmp_path / "a", tmp_path / "tiny.zip", "tiny-imagenet-200/") if archived else tmp_path / "a"
    settings = {"size": 16, "probes_per_class": 2, "cache": str(tmp_path / "cache"), "workers": 0}
    data = tiny_imagenet(str(root), **settings)
    assert data.labels["wnid"].tolist() == np.repeat(wnids, 2).tolist()
    assert data.labels["class"].tolist() == np.repeat([class_names()[wnid] for wnid in wnids], 2).tolist()
    assert stack(data.probes)[1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert stack(data.train)[1].tolist() == np.repeat(range(4), 3).tolist()
    for name, (_, target) in zip(data.ids, data.probes, strict=True):
        assert int(name.removeprefix("val/images/val_").removesuffix(".JPEG")) // 3 == int(target)
    numbered = tiny_imagenet(str(root), pretrained_head=True, **settings)
    places = [list(class_names()).index(wnid) for wnid in wnids]
    assert stack(numbered.probes)[1].tolist() == np.repeat(places, 2).tolist()
    assert len(numbered.classes or ()) == 1000
    assert tiny_imagenet(str(root), probe_split="train", **settings).members().min() >= 0
    if not archived:
        shutil.rmtree(root / "val")
        for number, wnid in enumerate(wnids):
            for item in range(2):
                draw(root / "val" / wnid / f"{item}.JPEG", 900 + 10 * number + item)
        assert tiny_imagenet(str(root), **settings).labels["wnid"].tolist() == np.repeat(wnids, 2).tolist()


def test_a_tiny_imagenet_that_is_not_one_is_refused(tmp_path: Path) -> None:
    wnids = tiny_like(tmp_path)
    notes = tmp_path / "val" / "val_annotations.txt"
    notes.write_text(notes.read_text().replace(wnids[0], "n00000000"))
    with pytest.raises(
        InputError, match=r"val_annotations.txt does not give each image a class of train; expected tiny"
    ):
        tiny_imagenet(str(tmp_path))
    with pytest.raises(InputError, match=r"is not Tiny ImageNet: .*/train holds no folders called by wnids"):
        tiny_imagenet(str(folder(tmp_path / "other", "train")))
    with pytest.raises(InputError, match=r"dataset.pretrained_head must be true or false, got 'yes'"):
        tiny_imagenet(str(tmp_path), pretrained_head="yes")  # pyright: ignore[reportArgumentType]


def test_another_folder_can_give_imagenets_training_images(tmp_path: Path) -> None:
    wnids = imagenet_like(tmp_path / "sample", classes=4, train=1, val=0)
    tiny = tiny_like(tmp_path / "tiny")
    settings = {"size": 32, "probes_per_class": 1, "probe_split": "train", "cache": str(tmp_path / "c"), "workers": 0}
    data = imagenet(str(tmp_path / "sample"), str(tmp_path / "tiny"), **settings)
    order = list(class_names())
    assert stack(data.train)[1].tolist() == np.repeat([order.index(wnid) for wnid in tiny], 3).tolist()
    assert stack(data.probes)[1].tolist() == [order.index(wnid) for wnid in wnids]
    assert (data.members() == -1).all()
    with pytest.raises(InputError, match=r"dataset.train_root=.*other is not a folder or zip archive"):
        imagenet(str(tmp_path / "sample"), str(tmp_path / "other"), **settings)
    folder(tmp_path / "any", "train")
    with pytest.raises(InputError, match=r"dataset.train_root=.*any: train/ant is none of ImageNet's 1,000 classes"):
        imagenet(str(tmp_path / "sample"), str(tmp_path / "any"), **settings)


def test_folders_named_by_wnid_have_that_label(tmp_path: Path) -> None:
    folder(tmp_path, counts={"n02084071": 2, "n02121808": 2})
    data = image_folder(str(tmp_path), probes_per_class=1)
    assert data.labels["wnid"].tolist() == data.labels["class"].tolist() == ["n02084071", "n02121808"]


def test_a_few_classes_by_name_or_number(tmp_path: Path) -> None:
    whole = image_folder(str(folder(tmp_path)), probes_per_class=2)
    some = image_folder(str(tmp_path), probes_per_class=2, classes=["cat", "ant"])
    assert some.labels["class"].tolist() == ["ant", "ant", "cat", "cat"]
    assert some.ids.tolist() == [*whole.ids[:2], *whole.ids[4:]]
    assert [int(target) for _, target in some.probes] == [0, 0, 2, 2]  # the heads stay
    assert len(some.train) == 12
    drawn = {
        tuple(image_folder(str(tmp_path), 8, classes=2, probes_per_class=1, seed=seed).labels["class"])
        for seed in range(12)
    }
    assert drawn == {("ant", "bee"), ("ant", "cat"), ("bee", "cat")}


def test_a_large_training_set_is_read_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path)
    assert isinstance(image_folder(str(tmp_path), probes_per_class=1).train, CachedImages)
    monkeypatch.setattr("losskernel.data.images.image_folders._TRAIN_CACHED_BYTES", 12 * 3 * 32**2 - 1)
    data = image_folder(str(tmp_path), size=32, probes_per_class=1, workers=3)
    assert isinstance(data.train, ImageFiles)
    assert isinstance(data.probes, CachedImages)
    assert data.workers == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"root": None}, r"dataset.root is not set; expected a folder of images for each class, root/CLASS/\*, or"),
        (
            {"root": "nowhere"},
            "dataset.root=nowhere is not a folder or zip archive; expected a folder of images for each class",
        ),
        ({"probe_split": "val"}, "dataset.probe_split=val: there is no .*/train; expected"),
        ({"probes_per_class": 4}, "probes_per_class needs 4 samples of every class, but ant has 3; lower it, or name"),
        ({"probes_per_class": 0}, "dataset.probes_per_class must be >= 1"),
        ({"workers": -1}, "dataset.workers must be >= 0"),
        ({"seed": "x"}, "dataset.seed must be a whole number"),
        ({"classes": 4}, "dataset.classes must be <= the 3 classes there are, got 4; lower it"),
        ({"classes": 0}, "dataset.classes must be >= 1"),
        ({"classes": "cat"}, r"must be a number, or a list of classes, got 'cat'; e.g. \[ant\]"),
        ({"classes": []}, r"must be a number, or a list of classes, got \[\]"),
        ({"classes": ["dog"]}, r"dataset.classes: there is no folder \['dog'\]; folders are such as ant"),
        ({"classes": ["cat", "cat"]}, "dataset.classes names a class twice"),
    ],
)
def test_folders_that_do_not_fit_are_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    root = folder(tmp_path)
    with pytest.raises(InputError, match=message) as raised:
        image_folder(**({"root": str(root), "probes_per_class": 1} | given))
    assert len(str(raised.value).splitlines()) == 1


def test_splits_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no folders; expected"):
        image_folder(str(tmp_path))
    folder(tmp_path, "train")
    with pytest.raises(InputError, match=r"dataset.probe_split=val: .*/val holds no folders"):
        image_folder(str(tmp_path), probe_split="val")
    folder(tmp_path, "val", {"dog": 1, "ant": 1})
    with pytest.raises(InputError, match="val/dog is no class of train; train on it, or move it away"):
        image_folder(str(tmp_path))
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(InputError, match=r"dataset.root: there are no images in .*empty; fill its folders"):
        image_folder(str(tmp_path / "empty"))


# --- ImageNet


def test_the_classes_of_imagenet_are_those_of_pretrained_heads() -> None:
    from torchvision.models import GoogLeNet_Weights

    names = class_names()
    assert (len(names), len(set(names.values()))) == (1000, 1000)
    assert list(names) == sorted(names)
    categories = [name.lower() for name in GoogLeNet_Weights.DEFAULT.meta["categories"]]
    # Those that share a name are told apart, here and there in other words.
    ours = [name.split(" (")[0].lower() for name in names.values()]
    assert all(theirs.startswith(label) for label, theirs in zip(ours, categories, strict=True))
    assert sum(label != theirs for label, theirs in zip(ours, categories, strict=True)) <= 2
    assert (names["n01440764"], names["n02106166"]) == ("tench", "border collie")


@pytest.mark.parametrize("split", ["val", "train"])
def test_imagenet_numbers_classes_among_all_thousand(split: str, like_imagenet: tuple[Path, list[str]]) -> None:
    root, wnids = like_imagenet
    data = imagenet(str(root), probes_per_class=2, probe_split=split)
    assert data.labels["wnid"].tolist() == [wnid for wnid in wnids for _ in range(2)]
    assert data.labels["class"][0] == "tench"
    assert [int(data.probes[number][1]) for number in range(8)] == [0, 0, 250, 250, 500, 500, 750, 750]
    assert all(name.startswith(f"{split}/{wnid}/") for name, wnid in zip(data.ids, data.labels["wnid"], strict=True))
    assert data.probes[0][0].shape == (3, 224, 224)
    assert sorted({int(data.train[number][1]) for number in range(12)}) == [0, 250, 500, 750]
    assert len(data.classes) == 1000
    assert [data.classes[int(data.probes[row][1])] for row in range(8)] == data.labels["class"].tolist()
    paths = [data.train_ids[row] for row in data.members() if row >= 0]
    assert paths == (data.ids.tolist() if split == "train" else [])


def test_a_few_classes_of_imagenet_keep_their_probes(like_imagenet: tuple[Path, list[str]]) -> None:
    root, wnids = like_imagenet
    whole = imagenet(str(root), probes_per_class=2, seed=3)
    some = imagenet(str(root), probes_per_class=1, seed=3, classes=wnids[2:])
    assert some.ids.tolist() == [whole.ids[4], whole.ids[6]]
    assert len(some.train) == 12
    assert len(imagenet(str(root), probes_per_class=1, classes=3).ids) == 3


def test_a_missing_imagenet_is_one_clear_message(like_imagenet: tuple[Path, list[str]], tmp_path: Path) -> None:
    layout = r"ROOT/train/n01440764/\*\.JPEG and ROOT/val/n01440764.*register at image-net.org.*experiment=taxonomy"
    for root, message in (
        (None, "dataset.root is not set"),
        (str(tmp_path), f"dataset.root={tmp_path} is not ImageNet: {tmp_path}/train holds no folders"),
    ):
        with pytest.raises(InputError, match=f"{message}; expected {layout}") as raised:
            imagenet(root)
        assert len(str(raised.value).splitlines()) == 1
    shutil.copytree(like_imagenet[0] / "train", tmp_path / "train")
    with pytest.raises(InputError, match=f"{tmp_path}/val holds no folders; expected {layout}"):
        imagenet(str(tmp_path))
    assert len(imagenet(str(tmp_path), probes_per_class=1, probe_split="train").ids) == 4
    draw(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", 1)
    with pytest.raises(InputError, match=r"val holds images that are not sorted by wnid; .*dataset.probe_split=train"):
        imagenet(str(tmp_path))
    draw(tmp_path / "train" / "n02084071" / "1.JPEG", 1)
    with pytest.raises(InputError, match=r"train/n02084071 is none of ImageNet's 1,000 classes; dataset=image_folder"):
        imagenet(str(tmp_path), probe_split="train")
    with pytest.raises(InputError, match=r"dataset.probe_split must be val or train, got 'test'"):
        imagenet(str(tmp_path), probe_split="test")


# --- CIFAR


@pytest.mark.parametrize("split", ["val", "train"])
def test_cifar10_from_torchvisions_archives(split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = cifar_like(tmp_path, monkeypatch, classes=10)
    data = cifar10(str(tmp_path), probes_per_class=3, probe_split=split, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 1.0))
    inputs, targets = stack(data.probes)
    assert (inputs.shape, len(data.train)) == ((30, 3, 32, 32), 200)
    assert targets.tolist() == [number for number in range(10) for _ in range(3)]
    assert data.labels["class"].tolist() == [f"class {number}" for number in targets.tolist()]
    rows = [int(name.removeprefix(f"{split}/")) for name in data.ids]
    if split == "val":
        expected = (pixels[rows] / 255 - 0.5) / np.array([0.5, 0.25, 1.0])[:, None, None]
        np.testing.assert_allclose(inputs, expected, atol=1e-5)
    else:
        assert torch.equal(inputs, torch.stack([data.train[row][0] for row in rows]))
    assert data.members().tolist() == ([-1] * 30 if split == "val" else rows)
    assert data.classes == [f"class {number}" for number in range(10)]
    whole = cifar10(str(tmp_path), probes_per_class=None, probe_split=split)
    assert len(whole.ids) == (40 if split == "val" else 200)
    assert set(data.ids) < set(whole.ids)


def test_cifar100_knows_superclasses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar_like(tmp_path, monkeypatch, classes=100, test=2)
    for split in ("val", "train"):
        data = cifar100(str(tmp_path), probes_per_class=1, probe_split=split)
        assert data.labels["superclass"].tolist() == [f"group {number // 5}" for number in range(100)]
        assert data.labels["class"].tolist() == [f"class {number}" for number in range(100)]


@pytest.mark.parametrize(
    ("build", "folder"), [(cifar10, "cifar-10-batches-py"), (cifar100, "cifar-100-python")], ids=["10", "100"]
)
def test_a_missing_cifar_says_where_it_belongs(build: Any, folder: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=rf"dataset.root=.* expected .*{folder} \(.*set dataset.download=true"
    ) as raised:
        build(str(tmp_path))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"probes_per_class": 0}, "dataset.probes_per_class must be >= 1"),
        ({"probes_per_class": 5}, "needs 5 samples of every class, but class 0 has 4"),
        ({"probe_split": "test"}, "dataset.probe_split must be val or train, got 'test'"),
        ({"seed": -1}, "dataset.seed must be >= 0"),
        ({"mean": [0.5]}, "mean must be three numbers"),
    ],
)
def test_cifar_refuses_what_does_not_fit(
    given: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar_like(tmp_path, monkeypatch, classes=10)
    with pytest.raises(InputError, match=message):
        cifar10(str(tmp_path), **({"probes_per_class": 1} | given))


def cifar_pictures(root: Path, counts: tuple[int, int] = (3, 2)) -> None:
    for split, count in zip(("train", "test"), counts, strict=True):
        for number, name in enumerate(("ant", "bee", "cat")):
            for item in range(count):
                path = draw(root / split / name / f"{item:04d}.png", 100 * len(split) + 10 * number + item)
                with Image.open(path) as picture:
                    picture.resize((32, 32)).save(path)


@pytest.mark.parametrize("archived", [False, True])
def test_cifar_from_picture_files(archived: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSKERNEL_CACHE", str(tmp_path / "cache"))
    cifar_pictures(tmp_path / "a")
    root = zipped(tmp_path / "a", tmp_path / "cifar.zip") if archived else tmp_path / "a"
    data = cifar10(str(root), probes_per_class=2, mean=[0, 0, 0], std=[1, 1, 1])
    inputs, targets = stack(data.train)
    assert data.classes == ["ant", "bee", "cat"]
    assert targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.labels["class"].tolist() == ["ant", "ant", "bee", "bee", "cat", "cat"]
    for names, values in ((data.train_ids, inputs), (data.ids, stack(data.probes)[0])):
        for name, value in zip(names, values, strict=True):
            with Image.open(tmp_path / "a" / name) as picture:
                wanted = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1) / 255
            torch.testing.assert_close(value, wanted)
    assert (cifar10(str(root), probes_per_class=2, probe_split="train").members() >= 0).all()
    cifar_like(tmp_path / "a", monkeypatch, classes=10)
    assert len(cifar10(str(tmp_path / "a"), probes_per_class=2).classes or ()) == 10  # CIFAR's own archives come first
    shutil.rmtree(tmp_path / "a" / "cifar-10-batches-py")
    shutil.rmtree(tmp_path / "a" / "test" / "bee")
    with pytest.raises(InputError, match=r"dataset.root: .*test does not hold the folders of all classes; expected a"):
        cifar10(str(tmp_path / "a"))


def test_versions_of_pictures_are_no_samples_for_what_changes_or_chooses_samples(tmp_path: Path) -> None:
    imagenet_like(tmp_path, classes=3, train=4, val=2)
    crops = Preprocessing(train_crops=3)
    data = image_folder(str(tmp_path), size=16, preprocessing=crops, probes_per_class=2, workers=0)
    assert size(data.train) == 36
    assert data.train_ids is not None
    assert [name.partition(" ")[2] for name in data.train_ids] == [""] * 12 + ["crop 1"] * 12 + ["crop 2"] * 12
    for change in (TrainingProbes(limit=2), JointProbes(), SymmetricNoise(0.3), Duplicates(2)):
        with pytest.raises(InputError, match=r"dataset.preprocessing.train_crops=3 makes as many of each picture"):
            change(data)
