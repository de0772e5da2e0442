import functools
import json
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import flipped
from learners import deadly, learned
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel.data.base import Data, stack
from losskernel.errors import InputError, TraceError
from losskernel.losses import cross_entropy, squared_error
from losskernel.representations.baselines import retraining
from losskernel.representations.baselines.retraining import FOLDER, Retrained
from losskernel.representations.evaluation import History
from losskernel.training import retrain

MODEL = nn.Linear(3, 1)


def _data(samples: int = 12, queries: int = 4) -> Data:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(queries + samples, 3, generator=generator)
    targets = inputs.sum(1, keepdim=True)
    names = [f"q{number}" for number in range(queries)] + [f"t{number}" for number in range(samples)]
    train = TensorDataset(inputs[queries:], targets[queries:])
    # the last training samples are no probes
    probes = TensorDataset(inputs[:-2], targets[:-2])
    return Data(train, probes, squared_error, ids=names[:-2], train_ids=names[queries:])


class Counting:
    """A training that counts, and breaks off after some."""

    def __init__(self, stop_after: int = 10**6) -> None:
        self.seeds: list[int] = []
        self._stop_after = stop_after

    def __call__(self, data: Data, seed: int) -> nn.Module:
        if len(self.seeds) == self._stop_after:
            raise KeyboardInterrupt
        self.seeds.append(seed)
        return learned(data, seed)

    def __str__(self) -> str:
        return "counting"


def _rows(folder: Path, train: Callable[..., Any] = learned, data: Data | None = None, **settings: Any) -> Any:
    baseline = Retrained(**{"subsets": 5, "repeats": 2, **settings})
    return baseline(MODEL, data or _data(), History(train, lambda: iter(()), folder))


def test_rows_say_what_retraining_on_each_subset_gave(tmp_path: Path) -> None:
    data = _data()
    rows = _rows(tmp_path, data=data)
    assert {name: item.shape for name, item in rows.items()} == {"losses": (14, 10), "members": (14, 5)}
    assert (rows["members"][:4] == 0).all()  # queries are in no subset
    train = stack(data.train)
    probes = stack(data.probes)
    for subset in range(5):
        inside = rows["members"][4:, subset] == 1
        assert 4 <= inside.sum() <= 6  # of the six, those that are probes
        files = sorted((tmp_path / FOLDER).glob(f"subset-{subset:04d}-*.npz"))
        assert len(files) == 2
        chosen = np.sort(np.random.default_rng([0, subset]).permutation(12)[:6])
        np.testing.assert_array_equal(np.flatnonzero(inside), chosen[chosen < 10])
        for repeat in range(2):
            seed = int(np.random.SeedSequence([0, subset, repeat]).generate_state(1)[0])
            network = learned(
                replace(data, train=TensorDataset(*(part[chosen] for part in train)), train_ids=None), seed
            )
            with torch.no_grad():
                expected = squared_error(network(probes[0]), probes[1])
            np.testing.assert_allclose(rows["losses"][:, 2 * subset + repeat], expected, rtol=1e-5)


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    whole, broken, rest = Counting(), Counting(stop_after=4), Counting()
    expected = _rows(tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        _rows(tmp_path / "killed", broken)
    folder = tmp_path / "killed" / FOLDER
    assert len(list(folder.glob("*.npz"))) == 4
    (folder / "subset-0000-repeat-0.npz.0.partial").write_bytes(b"half")
    result = _rows(tmp_path / "killed", rest)
    assert len(rest.seeds) == 6
    assert sorted(broken.seeds + rest.seeds) == sorted(whole.seeds)
    for name, values in expected.items():
        np.testing.assert_array_equal(result[name], values)


def test_a_damaged_retraining_is_named_and_made_again(tmp_path: Path) -> None:
    expected = _rows(tmp_path, Counting())
    kept = tmp_path / FOLDER / "subset-0002-repeat-1.npz"
    flipped(kept)
    with pytest.raises(TraceError, match=r"subset-0002-repeat-1.npz is damaged: .*; remove it, and the same command"):
        _rows(tmp_path, Counting())
    kept.unlink()
    again = Counting()
    np.testing.assert_array_equal(_rows(tmp_path, again)["losses"], expected["losses"])
    assert len(again.seeds) == 1


def test_more_subsets_and_repeats_add_to_those_that_are_there(tmp_path: Path) -> None:
    first, more = Counting(), Counting()
    few = _rows(tmp_path, first, subsets=3, repeats=1)
    many = _rows(tmp_path, more, subsets=4, repeats=2)
    assert (len(first.seeds), len(more.seeds)) == (3, 5)
    assert len(set(first.seeds + more.seeds)) == 8
    np.testing.assert_array_equal(many["losses"][:, [0, 2, 4]], few["losses"])
    np.testing.assert_array_equal(many["members"][:, :3], few["members"])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"fraction": 0.3}, r"fraction: stored 0.5, asked 0.3"),
        ({"seed": 1}, r"seed: stored 0, asked 1"),
        ({"data": _data(samples=13)}, r"train: stored '12 samples"),
        ({"data": replace(_data(), ids=[f"other{number}" for number in range(14)])}, "probes: stored"),
        ({"train": functools.partial(learned, scale=2.0)}, r"training: stored 'learned', asked 'learned\(scale=2.0\)'"),
    ],
)
def test_retrainings_of_other_settings_are_refused(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    _rows(tmp_path)
    with pytest.raises(TraceError, match=rf"holds other retrainings: .*{named}.*; remove it or take another run"):
        _rows(tmp_path, **changed)


def test_what_is_trained_is_told_the_same_in_every_process(tmp_path: Path) -> None:
    training = lk.Training(steps=0, optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    _rows(tmp_path, functools.partial(retrain, MODEL, training), subsets=3, repeats=1)
    messages = json.loads((tmp_path / FOLDER / "settings.json").read_text())["training"]
    assert messages.startswith("retrain(Linear ")
    assert "lr=0.1" in messages
    assert "0x" not in messages


def test_two_workers_find_what_one_finds(tmp_path: Path) -> None:
    one = _rows(tmp_path / "one", subsets=3, repeats=1)
    two = _rows(tmp_path / "two", subsets=3, repeats=1, workers=2)
    for name, values in one.items():
        np.testing.assert_array_equal(two[name], values)


def test_workers_that_cannot_work_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"workers cannot be sent model, data and loss \(.*\); set workers to 1"):
        _rows(tmp_path / "unsent", lambda data, seed: learned(data, seed), workers=2)
    # Forked, for speed: that spawned workers train is the test above.
    monkeypatch.setattr(retraining, "get_context", lambda method: multiprocessing.get_context("fork"))
    with pytest.raises(TraceError, match=r"a worker process died .*and the same command resumes from there"):
        _rows(tmp_path / "dead", deadly, workers=2)


def test_margins_come_with_classes(tmp_path: Path) -> None:
    held = TensorDataset(torch.randn(12, 3), torch.arange(12) % 3)
    data = Data(held, held, cross_entropy, train_ids=range(12))
    rows = _rows(tmp_path, lambda part, seed: nn.Linear(3, 3), data=data, subsets=3)
    np.testing.assert_allclose(rows["margins"], -np.log(np.expm1(rows["losses"])), rtol=1e-4, atol=1e-5)
    assert (rows["members"].sum(0) == 6).all()


def test_a_batch_larger_than_a_subset_is_named(tmp_path: Path) -> None:
    training = functools.partial(retrain, MODEL, lk.Training(steps=2, batch_size=10))
    message = r"on a subset, 6 of 12 samples: training.batch_size must be <= the 6 training samples, got 10"
    with pytest.raises(InputError, match=message):
        _rows(tmp_path, training)


def test_bad_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a subset would hold 0 of 12 training samples; change the fraction"):
        _rows(tmp_path, fraction=0.01)
    with pytest.raises(InputError, match=r"baselines.retrained.fraction must be < 1, got 1"):
        Retrained(fraction=1.0)
    with pytest.raises(InputError, match=r"baselines.retrained.fraction must be > 0"):
        Retrained(fraction=0.0)
    for key in ("subsets", "repeats", "workers"):
        with pytest.raises(InputError, match=rf"baselines.retrained.{key} must be >= "):
            Retrained(**{key: 0})


def test_the_inputs_of_probes_are_evaluated_where_the_network_is(tmp_path: Path) -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))
            self.dropped = nn.Dropout(0.5)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.dropped(inputs.sum(1, keepdim=True)) * self.weight

    rows = _rows(tmp_path, lambda part, seed: Doubled().train(), subsets=3, repeats=1)
    np.testing.assert_allclose(rows["losses"], 0, atol=1e-9)  # in evaluation mode, without dropout


def test_two_jobs_that_share_a_folder_leave_each_others_work_alone(tmp_path: Path) -> None:
    expected, other = _rows(tmp_path / "alone", Counting()), Counting()

    class Overtaken(Counting):
        def __call__(self, data: Data, seed: int) -> nn.Module:
            if not self.seeds:  # while this one trains, another job does all
                _rows(tmp_path / "shared", other)
            return super().__call__(data, seed)

    one = Overtaken()
    result = _rows(tmp_path / "shared", one)
    assert (len(one.seeds), len(other.seeds)) == (1, 10)
    assert not list((tmp_path / "shared" / FOLDER).glob("*.partial"))
    for name, values in expected.items():
        np.testing.assert_array_equal(result[name], values)
