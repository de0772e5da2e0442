"""Pictures that are mirrored and shifted: exactly, evenly, seeded, and before they are normalised."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import cifar_like
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from losskernel.data import Data, FlipAndCrop, cifar10, digits, stack
from losskernel.data.recombined import Augmented
from losskernel.errors import InputError
from losskernel.losses import cross_entropy
from losskernel.models import SmallCNN
from losskernel.training import Training, fit
from losskernel.training.supervised import Minibatches


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def versions(picture: Tensor, padding: int, flip: bool, frame: Tensor | float = 0) -> Tensor:
    """Return every picture [C, h, w] that may become of one, frame numbers around it, all written out."""
    channels, height, width = picture.shape
    made = []
    for mirrored, down, right in itertools.product((False, True)[: 1 + flip], *[range(-padding, padding + 1)] * 2):
        whole = torch.zeros(channels, height, width, dtype=picture.dtype) + frame
        for row, column in itertools.product(range(height), range(width)):
            source, other = row + down, column + right
            if 0 <= source < height and 0 <= other < width:
                whole[:, row, column] = picture[:, source, other]
        made.append(whole.flip(2) if mirrored else whole)
    return torch.stack(made)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize("flip", [False, True])
def test_every_picture_becomes_one_of_its_own_versions(kind: torch.dtype, flip: bool) -> None:
    pictures = (torch.rand(40, 2, 5, 7, generator=_seeded()) * 250 + 1).to(kind)
    before = pictures.clone()
    made = FlipAndCrop(2, flip)(pictures, _seeded(1))
    assert (made.shape, made.dtype) == (pictures.shape, kind)
    assert torch.equal(pictures, before)
    assert made.is_contiguous()
    result = [
        (versions(picture, 2, flip) == new).flatten(1).all(1) for picture, new in zip(pictures, made, strict=True)
    ]
    assert all(item.sum() == 1 for item in result)
    assert len({int(item.nonzero()) for item in result}) > 15  # each its own


@pytest.mark.parametrize("flip", [False, True])
def test_all_versions_are_equally_likely(flip: bool) -> None:
    one = torch.arange(1, 13).reshape(1, 1, 3, 4)
    made = FlipAndCrop(1, flip)(one.expand(18_000, -1, -1, -1), _seeded())
    counts = np.array([(made == item).flatten(1).all(1).sum().item() for item in versions(one[0], 1, flip)])
    assert counts.sum() == 18_000
    expected = 18_000 / len(counts)
    assert len(counts) == (18 if flip else 9)
    assert ((counts - expected) ** 2 / expected).sum() < 40  # chi-squared of 17 degrees: 0.999 quantile 40.8


def test_the_generator_fixes_the_versions() -> None:
    pictures, augment = torch.rand(30, 1, 8, 8), FlipAndCrop()
    assert torch.equal(augment(pictures, _seeded(2)), augment(pictures, _seeded(2)))
    ongoing = _seeded(2)
    first, second = augment(pictures, ongoing), augment(pictures, ongoing)
    assert not torch.equal(first, second)
    assert not torch.equal(first, augment(pictures, _seeded(3)))


def test_without_shifts_and_flips_pictures_stay() -> None:
    pictures = torch.rand(6, 3, 4, 4)
    assert torch.equal(FlipAndCrop(0, flip=False)(pictures, _seeded()), pictures)
    mirrored = FlipAndCrop(0)(pictures, _seeded())
    same = (mirrored == pictures).flatten(1).all(1)
    assert torch.equal(mirrored[~same], pictures[~same].flip(3))
    assert 0 < same.sum() < 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"padding": -1}, "training.augment.padding must be >= 0"),
        ({"padding": 1.5}, "training.augment.padding must be a whole number"),
        ({"flip": 1}, "training.augment.flip must be true or false, got 1"),
    ],
)
def test_what_cannot_be_done_to_pictures_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FlipAndCrop(**given)


def test_what_is_no_picture_is_refused() -> None:
    message = r"training.augment takes images \[B, C, h, w\], got \(5, 4\); set training.augment=null"
    with pytest.raises(InputError, match=message):
        FlipAndCrop()(torch.zeros(5, 4), _seeded())
    vectors = TensorDataset(torch.zeros(20, 4), torch.zeros(20).long())
    data = Data(train=vectors, probes=vectors, loss=cross_entropy)
    training = Training(steps=2, batch_size=5, augment=FlipAndCrop())
    with pytest.raises(InputError, match="got \\(5, 4\\)"):
        fit(torch.nn.Linear(4, 2), data, training, progress=False)


def test_pixels_are_framed_in_black_before_they_are_normalised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar_like(tmp_path, monkeypatch, classes=10)
    mean, std = (0.2, 0.5, 0.9), (0.5, 0.25, 0.1)
    whole = cifar10(str(tmp_path), mean=mean, std=std, probes_per_class=1)
    clean, targets = stack(whole.train)
    data = Data(train=Subset(whole.train, range(50, 80)), probes=whole.probes, loss=whole.loss)
    batches = Minibatches(data, Training(batch_size=15, augment=FlipAndCrop(1)), seed=0)
    (first, seconds), (second, _) = itertools.islice(batches, 2)
    black = (-torch.tensor(mean) / torch.tensor(std))[:, None, None]
    possible = torch.stack([versions(picture, 1, True, black) for picture in clean[50:80]])  # [30, 18, 3, 32, 32]
    sources = []
    for made, target in zip(first, seconds, strict=True):
        same = torch.isclose(possible, made, atol=1e-5).flatten(2).all(2)
        (source,) = set(same.nonzero()[:, 0].tolist())
        assert targets[50 + source] == target
        sources.append(source)
    assert len(set(sources)) == 15
    assert not torch.equal(first, second)
    assert torch.equal(stack(data.train)[0], clean[50:80])  # for chains and for the training loss


def test_an_augmented_set_is_the_set_until_a_batch_is_loaded() -> None:
    data = digits(50)
    augmented = Augmented(data.train, FlipAndCrop(1), _seeded())
    inputs, targets = stack(data.train)
    assert len(augmented) == len(inputs)
    held = augmented.held()
    assert held is not None
    assert torch.equal(held[0], inputs)
    assert torch.equal(held[1], targets)
    picture, target = augmented[7]
    assert target == targets[7]
    assert (versions(inputs[7], 1, True) == picture).flatten(1).all(1).any()


def test_a_network_learns_from_shifted_digits_to_read_shifted_digits() -> None:
    torch.manual_seed(0)
    data, model = digits(None, probe_split="held_out"), SmallCNN()
    settings = {"steps": 150, "optimizer": lambda weights: torch.optim.Adam(weights, lr=1e-2)}
    inputs, targets = stack(data.probes)
    shifted = FlipAndCrop(1, flip=False)(inputs, _seeded(9))
    plain = fit(model, data, Training(**settings), progress=False)
    augmented = fit(model, data, Training(**settings, augment=FlipAndCrop(1, flip=False)), progress=False)
    with torch.no_grad():
        right = [(network(shifted).argmax(1) == targets).float().mean().item() for network in (plain, augmented)]
    assert right[1] > 0.9
    assert right[1] > right[0] + 0.05
