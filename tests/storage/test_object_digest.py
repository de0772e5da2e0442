"""Digests of objects: equal in every process for objects that behave alike, different for any that do not."""

import collections
import datetime
import decimal
import functools
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losskernel.losses import cross_entropy
from losskernel.models import MultitaskMLP
from losskernel.storage.object_digest import UnknownIdentity, object_digest, stored_digest

FACTOR = 2.0


class Weighted:
    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.weight * cross_entropy(outputs, targets)


class Net(nn.Module):
    def __init__(self, activation: Callable[[Tensor], Tensor], seed: int = 1, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer, self.activation, self.scale = nn.Linear(5, 8), activation, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.layer(x)) * self.scale


class Sharp(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.activation(3 * self.layer(x)) * self.scale


def reads_a_global(outputs: Tensor, targets: Tensor) -> Tensor:
    return FACTOR * cross_entropy(outputs, targets)


def calls_another(outputs: Tensor, targets: Tensor) -> Tensor:
    return reads_a_global(outputs, targets)


def scaled(factor: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda outputs, targets: factor * cross_entropy(outputs, targets)


def normed(kind: Callable[[nn.Module], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind(nn.Linear(3, 3))


def hooked(factor: float) -> nn.Module:
    network = Net(torch.relu)
    network.register_forward_hook(lambda _module, _inputs, output: factor * output)
    return network


def bound(network: nn.Module, factor: float) -> nn.Module:
    network.forward = lambda x: factor * network.layer(x)  # type: ignore[method-assign]
    return network


Point = collections.namedtuple("Point", "x y")
torch.manual_seed(0)
# Each entry builds an object anew: in another process, and in this one, its digest must be the same.
BUILDERS: dict[str, Callable[[], Any]] = {
    "a function of torch": lambda: F.cross_entropy,
    "a partial": lambda: functools.partial(F.cross_entropy, reduction="none"),
    "another partial": lambda: functools.partial(F.cross_entropy, reduction="none", label_smoothing=0.5),
    "a partial of a partial": lambda: functools.partial(
        functools.partial(F.cross_entropy, reduction="none"), weight=None
    ),
    "a lambda": lambda: lambda outputs, targets: cross_entropy(outputs, targets),
    "another lambda": lambda: lambda outputs, targets: cross_entropy(outputs / 5, targets),
    "a lambda with a default": lambda: lambda outputs, targets, power=2: cross_entropy(outputs, targets) ** power,
    "another default": lambda: lambda outputs, targets, power=3: cross_entropy(outputs, targets) ** power,
    "a closure": lambda: scaled(1.0),
    "another closure": lambda: scaled(2.0),
    "a callable object": lambda: Weighted(1.0),
    "another state": lambda: Weighted(2.0),
    "a method": lambda: Weighted(3.0).__call__,
    "a function that reads a global": lambda: reads_a_global,
    "a function that calls one": lambda: calls_another,
    "a loss module": lambda: nn.CrossEntropyLoss(reduction="none"),
    "its smoothing": lambda: nn.CrossEntropyLoss(reduction="none", label_smoothing=0.3),
    "its weights": lambda: nn.CrossEntropyLoss(torch.tensor([1.0, 2.0]), reduction="none"),
    "a network": lambda: Net(torch.relu),
    "its activation": lambda: Net(torch.tanh),
    "its weight values": lambda: Net(torch.relu, seed=2),
    "its constant": lambda: Net(torch.relu, scale=2.0),
    "its forward": lambda: Sharp(torch.relu),
    "its hook": lambda: hooked(1.0),
    "another hook": lambda: hooked(2.0),
    "a forward of the instance": lambda: bound(Net(torch.relu), 1.0),
    "another such forward": lambda: bound(Net(torch.relu), 2.0),
    "our network": lambda: (torch.manual_seed(0), MultitaskMLP(2)),
    "a recurrent network": lambda: (torch.manual_seed(0), nn.LSTM(3, 4)),
    "old weight_norm": lambda: normed(nn.utils.weight_norm),
    "old spectral_norm": lambda: normed(nn.utils.spectral_norm),
    "weight_norm": lambda: normed(nn.utils.parametrizations.weight_norm),
    "sixteen bits": lambda: torch.arange(3).bfloat16(),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "compressed rows": lambda: torch.eye(3).to_sparse_csr(),
    "complex": lambda: torch.tensor([1 + 2j]),
    "conjugate": lambda: torch.tensor([1 + 2j]).conj(),
    "numbers of numpy": lambda: np.arange(4.0),
    "objects of numpy": lambda: np.array(["a", None, 3], dtype=object),
    "a set": lambda: {"a", "b", "c", 1},
    "a pattern": lambda: re.compile("a+"),
    "a decimal": lambda: decimal.Decimal("1.5"),
    "a date": lambda: datetime.date(2026, 1, 2),
    "a named tuple": lambda: Point(1, 2),
    "a path": lambda: Path("a/b"),
    "a million names": lambda: [(f"{number}.png", number) for number in range(1000)],
}


def digests() -> dict[str, str]:
    return {name: object_digest(build()) for name, build in BUILDERS.items()}


def test_every_object_has_the_same_digest_in_another_process_and_no_two_share_one() -> None:
    here = digests()
    script = f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_object_digest as t; "
    code = script + "print(json.dumps(t.digests()))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(there.splitlines()[-1]) == here
    assert digests() == here
    shared = {value: [name for name in here if here[name] == value] for value in here.values()}
    assert [names for names in shared.values() if len(names) > 1] == []


def test_a_global_that_a_function_reads_is_seen_through_other_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    before = object_digest(calls_another)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert object_digest(calls_another) != before


def test_a_replaced_forward_of_an_installed_class_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = object_digest(nn.GELU())
    monkeypatch.setattr(nn.GELU, "forward", lambda _, x: 2 * x)
    assert object_digest(nn.GELU()) != before


def test_evaluation_mode_and_a_trainer_do_not_matter() -> None:
    import pytorch_lightning as pl

    class Lit(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    fresh, used = Lit(), Lit().eval()
    used.trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_steps=0)
    assert object_digest(fresh) == object_digest(used)


def test_what_refers_to_itself_has_a_digest() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    assert object_digest(ring) == object_digest(ring)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (threading.Lock(), "_thread.lock"),
        ((number for number in range(3)), "builtins.generator"),
        (Weighted(threading.Lock()), "_thread.lock"),  # type: ignore[arg-type]
        (torch.empty(3, device="meta"), "meta device"),
    ],
    ids=["lock", "generator", "inner", "meta"],
)
def test_what_cannot_be_read_is_named(value: Any, named: str) -> None:
    with pytest.raises(UnknownIdentity, match=named):
        object_digest(value)
    assert stored_digest(value).startswith("unknown (")
