"""Checkpoints of other tools: loaded under any prefix and nesting, or refused with what they hold."""

import argparse
import pathlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from losskernel.errors import InputError
from losskernel.training import load_weights


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


STATE = network().state_dict()


def under(prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in STATE.items()}


def lightning(prefix: str, settings: Any = None, **more: Any) -> dict[str, Any]:
    rest = {"epoch": 3, "pytorch-lightning_version": "2.6", "loops": {}, "optimizer_states": []}
    return {"state_dict": under(prefix) | more, "hyper_parameters": settings, **rest}


class Wrapped(nn.Module):
    """A network inside another, of which a part was compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()


LOADED: dict[str, Any] = {
    "bare": STATE,
    "DataParallel": under("module."),
    "compiled": under("_orig_mod."),
    "both": under("module._orig_mod."),
    "net": under("net."),
    "model": under("model."),
    "own prefix": under("backbone.encoder."),
    "nested": {"epoch": 1, "model_state_dict": STATE, "optimizer_state_dict": {"state": {}}},
    "nested twice": {"checkpoint": {"net": under("module.")}, "accuracy": 0.9},
    "Lightning, self.model": lightning("model."),
    "Lightning, self.net": lightning("net.", {"lr": 1e-3}),
    "Lightning, compiled": lightning("model._orig_mod."),
    "Lightning, Namespace": lightning("model.", argparse.Namespace(lr=1e-3)),
    "Lightning, Path": lightning("model.", {"root": pathlib.PurePosixPath("/data")}),
    "Lightning, with a loss": lightning("model.", **{"criterion.weight": torch.ones(3)}),
    "a teacher beside": {"state_dict": under("student.") | {"teacher.0.weight": torch.zeros(2, 2)}},
    "numpy numbers beside": {"state_dict": STATE, "best": np.float64(0.9), "scores": np.arange(3.0)},
    "sixteen bits": {name: value.bfloat16() if value.is_floating_point() else value for name, value in STATE.items()},
    "old BatchNorm": {name: value for name, value in STATE.items() if "num_batches" not in name},
}


@pytest.mark.parametrize("kind", LOADED)
def test_weights_are_found(kind: str, tmp_path: Path) -> None:
    torch.save(LOADED[kind], tmp_path / "c.pt")
    got = load_weights(network(1), tmp_path / "c.pt").state_dict()
    for name, value in STATE.items():
        torch.testing.assert_close(got[name].float(), value.float(), atol=1e-2, rtol=1e-2)


def test_safetensors_and_the_format_before_zip_are_read(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(STATE, tmp_path / "c.safetensors")
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("c.safetensors", "old.pt"):
        assert torch.equal(load_weights(network(1), tmp_path / name).state_dict()["0.weight"], STATE["0.weight"])


def test_a_home_folder_is_that_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(STATE, tmp_path / "c.pt")
    load_weights(network(1), "~/c.pt")


def test_what_does_not_fit_is_counted_and_three_are_named(tmp_path: Path) -> None:
    other = nn.Sequential(nn.Linear(5, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3), nn.ReLU(), nn.Linear(3, 3))
    torch.save(other.state_dict(), tmp_path / "c.pt")
    with pytest.raises(InputError) as raised:
        load_weights(network(), tmp_path / "c.pt")
    message = str(raised.value)
    assert "2 unexpected (5.weight, 5.bias)" in message
    assert "7 of another shape (0.weight (9, 5) instead of (8, 5), 0.bias (9,) instead of (8,), 1.weight" in message
    assert ", ...)" in message
    assert len(message.splitlines()) == 1


REFUSED: dict[str, tuple[Any, str]] = {
    "whole model": (network(), r"holds more than weights \(torch\.nn\.modules\.container\.Sequential\)"),
    "list": (list(STATE.values()), "holds no state dict but a list"),
    "settings alone": ({"lr": 0.1, "epoch": 3}, "holds no state dict but a dict with the keys lr, epoch"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_holds_no_weights_is_said(kind: str, tmp_path: Path) -> None:
    content, message = REFUSED[kind]
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(InputError, match=message):
        load_weights(network(), tmp_path / "c.pt")


@pytest.mark.filterwarnings("ignore")
def test_other_archives_are_named(tmp_path: Path) -> None:
    torch.jit.script(network()).save(tmp_path / "script.pt")
    np.savez(tmp_path / "w.npz", **{name: value.numpy() for name, value in STATE.items()})
    with pytest.raises(InputError, match="is a TorchScript archive"):
        load_weights(network(), tmp_path / "script.pt")
    with pytest.raises(InputError, match="is an archive of numpy arrays"):
        load_weights(network(), tmp_path / "w.npz")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(InputError, match="cannot be read: it is no state"):
        load_weights(network(), tmp_path / "text.pt")
