import pytest
import torch
from torch import Tensor

from losskernel.data.loading import MINIBATCH, NOISE, MinibatchIndices, generator
from losskernel.sampling.chains import BLOCK_NUMBERS, NoiseStream

# Weights per chain such that a block of noise holds many steps, two, and one.
SIZES = [5, BLOCK_NUMBERS // 2, BLOCK_NUMBERS + 1]


def _stream(chains: list[int], size: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> NoiseStream:
    return NoiseStream(seed, chains, torch.zeros(len(chains), size, dtype=dtype))


def _noise(stream: NoiseStream, steps: int) -> Tensor:
    return torch.stack([stream().clone() for _ in range(steps)])  # [steps, C, P]


def _indices(chains: list[int], steps: int, seed: int = 0, first_step: int = 0) -> Tensor:
    stream = MinibatchIndices(seed, chains, train_size=103, batch_size=10, first_step=first_step)
    return torch.stack([stream().clone() for _ in range(steps)])  # [steps, C, B]


@pytest.mark.parametrize("size", SIZES)
def test_a_chain_has_the_same_noise_alone_and_among_eight(size: int) -> None:
    together = _noise(_stream(list(range(8)), size), 3)
    for chain in (0, 5, 7):
        assert torch.equal(_noise(_stream([chain], size), 3)[:, 0], together[:, chain])


def test_a_chain_has_the_same_minibatches_alone_and_among_eight() -> None:
    together = _indices(list(range(8)), 25)
    for chain in (0, 5, 7):
        assert torch.equal(_indices([chain], 25)[:, 0], together[:, chain])


@pytest.mark.parametrize(
    ("size", "done"),
    [(SIZES[0], 0), (SIZES[0], 1), (SIZES[0], 63), (SIZES[0], 64), (SIZES[0], 65)]
    + [(size, done) for size in SIZES[1:] for done in range(4)],
)
def test_noise_goes_on_from_a_saved_state(size: int, done: int) -> None:
    stream = _stream([2, 3], size)
    for _ in range(done):
        stream()
    state = stream.state()
    expected = _noise(stream, 5)  # the saved state must not follow the stream
    restored = _stream([2, 3], size)
    restored.restore(state)
    assert torch.equal(_noise(restored, 5), expected)


@pytest.mark.parametrize("done", [0, 1, 9, 10, 11, 20, 24])
def test_minibatches_restart_at_any_step(done: int) -> None:
    assert torch.equal(_indices([2, 3], 25 - done, first_step=done), _indices([2, 3], 25)[done:])


def test_an_epoch_visits_no_sample_twice_and_drops_only_the_rest() -> None:
    epochs = _indices([0, 1], 30).unflatten(0, (3, 10))  # [epoch, step, C, B]; 103 = 10 · 10 + 3
    visited = epochs.permute(0, 2, 1, 3).flatten(2)  # [epoch, C, 100]
    for epoch in visited.flatten(0, 1):
        assert len(epoch.unique()) == 100
    assert visited.min() >= 0
    assert visited.max() < 103
    # each epoch leaves other samples out, so that all are seen
    assert len(visited[:, 0].unique()) == 103


def test_every_epoch_is_reshuffled() -> None:
    epochs = _indices([0], 20).unflatten(0, (2, 10)).flatten(1)
    assert not torch.equal(epochs[0], epochs[1])


def test_a_batch_of_the_whole_set_is_a_permutation() -> None:
    stream = MinibatchIndices(0, [0], train_size=7, batch_size=7)
    assert sorted(stream()[0].tolist()) == list(range(7))
    assert stream.shape == (1, 7)


def test_chains_seeds_and_steps_have_numbers_of_their_own() -> None:
    noise, indices = _noise(_stream([0, 1], 50), 2), _indices([0, 1], 2)
    assert not torch.equal(noise[:, 0], noise[:, 1])
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(indices[:, 0], indices[:, 1])
    assert not torch.equal(noise, _noise(_stream([0, 1], 50, seed=1), 2))
    assert not torch.equal(indices, _indices([0, 1], 2, seed=1))


def test_no_two_streams_of_a_seed_share_a_generator() -> None:
    keys = [(stream, chain) for stream in (NOISE, MINIBATCH) for chain in [*range(3000), 2**30]]
    for seed in (0, 1, 12345):
        first = {generator(seed, stream, chain).initial_seed() & 0xFFFFFFFF for stream, chain in keys}
        assert len(first) == len(keys)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_is_standard_normal_and_uncorrelated_between_chains(dtype: torch.dtype) -> None:
    noise = _noise(_stream([0, 1, 2, 3], 2000, dtype=dtype), 20)
    assert noise.dtype == dtype
    noise, count = noise.double(), noise.numel()
    assert noise.mean().item() * count**0.5 == pytest.approx(0, abs=4)
    assert (noise.square().mean().item() - 1) * (count / 2) ** 0.5 == pytest.approx(0, abs=4)
    assert (noise**4).mean().item() == pytest.approx(3, abs=0.1)
    correlation = torch.corrcoef(noise.transpose(0, 1).flatten(1))
    assert (correlation - torch.eye(4)).abs().max().item() < 4 / (count / 4) ** 0.5


def test_streams_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    _noise(_stream([0, 1], 50), 2)
    _indices([0, 1], 2)
    assert torch.equal(torch.get_rng_state(), before)
