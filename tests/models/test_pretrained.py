import functools
import sys
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import run_python
from damage import flipped
from pictures import googlenet_file, settled
from torch import nn
from torch.utils.data import TensorDataset

import losskernel as lk
from losskernel.errors import InputError
from losskernel.models import inception_v1, resnet18, resnet50, timm_model, vgg16
from losskernel.training import save_weights

TORCHVISION = {"googlenet": inception_v1, "resnet18": resnet18, "resnet50": resnet50, "vgg16": vgg16}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict in the form of torchvision's own file."""
    return googlenet_file(tmp_path_factory.mktemp("weights"))


def images(count: int = 2, size: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def outputs(model: nn.Module) -> torch.Tensor:
    return model.eval()(images())


# --- torchvision's networks


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_networks_are_torchvisions_for_any_number_of_classes(name: str) -> None:
    from torchvision.models import get_model

    with torch.device("meta"):
        model = TORCHVISION[name](outputs=7)
        theirs = get_model(name, num_classes=7, **({"init_weights": True} if name == "googlenet" else {}))
    expected = {key: value.shape for key, value in theirs.state_dict().items() if not key.startswith("aux")}
    assert {key: value.shape for key, value in model.state_dict().items()} == expected


def test_inception_v1_has_one_output_also_in_training() -> None:
    model = inception_v1(outputs=5)
    for mode in (model.train(), model.eval()):
        assert mode(images()).shape == (2, 5)
    assert not any(name.startswith("aux") for name, _ in model.named_parameters())


def test_initial_weights_follow_torchs_seed() -> None:
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(resnet18(outputs=3).fc.weight)
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def test_torchvisions_file_is_read_as_torchvision_reads_it(weights: Path) -> None:
    from torchvision.models import googlenet

    theirs = googlenet(num_classes=1000, aux_logits=True, transform_input=True, init_weights=False)
    theirs.load_state_dict(torch.load(weights, weights_only=True))
    model = inception_v1(weights=str(weights))
    assert torch.equal(outputs(model), outputs(theirs))
    plain = inception_v1(weights=str(weights), transform_input=False)
    assert not torch.allclose(outputs(plain), outputs(theirs))


def test_weights_that_were_trained_here_come_back_as_they_were(tmp_path: Path) -> None:
    model = settled(inception_v1(outputs=4))
    save_weights(model, tmp_path / "own.pt", {"step": 3})
    assert torch.equal(outputs(inception_v1(4, str(tmp_path / "own.pt"))), outputs(model))
    other = inception_v1(4, str(tmp_path / "own.pt"), transform_input=True)
    assert not torch.allclose(outputs(other), outputs(model))
    torch.save(resnet18(outputs=4).state_dict(), tmp_path / "resnet.pt")
    assert outputs(resnet18(4, str(tmp_path / "resnet.pt"))).shape == (2, 4)


def test_pretrained_weights_come_from_torch_hubs_cache(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "googlenet-1378be20.pth").symlink_to(weights)
    expected = outputs(inception_v1(weights=str(weights)))
    assert torch.equal(outputs(inception_v1(weights="torchvision")), expected)


@pytest.mark.parametrize("name", TORCHVISION)
def test_pretrained_weights_that_are_nowhere_say_how_to_get_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    message = (
        rf"model.weights=torchvision: the weights are not at {tmp_path}/hub/checkpoints/{name}-\w+\.pth and cannot be "
        rf"downloaded \(.*Name or service not known.*\); run losskernel-prefetch with .*copy https://\S+/{name}-\w+\.pth"
    )
    with pytest.raises(InputError, match=message) as raised:
        TORCHVISION[name](weights="torchvision")
    assert len(str(raised.value).splitlines()) == 1


def test_weights_that_do_not_fit_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has a head of 1000 classes, but model.outputs=20; set model.outputs=1000"):
        inception_v1(outputs=20, weights=str(weights))
    with pytest.raises(InputError, match=r"model.weights=.*googlenet.pth does not fit ResNet: [0-9]+ missing"):
        resnet50(weights=str(weights))
    with pytest.raises(InputError, match=r"model.weights=nowhere.pt does not exist; give the path"):
        inception_v1(weights="nowhere.pt")
    with pytest.raises(InputError, match=r"model.weights must be null, torchvision or the path of a state dict, got 3"):
        resnet18(weights=3)  # pyright: ignore[reportArgumentType]
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(
        InputError, match=r"model.weights=.*text cannot be read: it is no state \(.*\); restore it from"
    ):
        inception_v1(weights=str(tmp_path / "text"))
    for content in ([torch.zeros(2)], {}, {0: torch.zeros(2)}, {"state_dict": {"step": 1}, "about": {}}):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(InputError, match=r"model.weights=.*other.pt holds no state dict but a .*; save"):
            inception_v1(weights=str(tmp_path / "other.pt"))
    save_weights(resnet18(outputs=2), tmp_path / "own.pt", {})
    flipped(tmp_path / "own.pt")
    for model in (resnet18, functools.partial(timm_model, "resnet18")):
        with pytest.raises(InputError, match=r"model.weights=.*own.pt cannot be read: its content has changed since"):
            model(outputs=2, weights=str(tmp_path / "own.pt"))
    for model in (inception_v1, resnet18, timm_model):
        name = {"name": "test_resnet"} if model is timm_model else {}
        with pytest.raises(InputError, match=r"model.outputs must be >= 1, got 0"):
            model(**name, outputs=0)


# --- BatchNorm


def test_batch_norm_is_frozen_while_sampling() -> None:
    torch.manual_seed(0)
    model = timm_model("test_resnet", outputs=3)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    for norm in norms:  # statistics unlike those of any batch
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    held = TensorDataset(images(8), torch.arange(8) % 3)
    data = lk.Data(train=held, probes=held, loss=lk.losses.cross_entropy)
    sgld = functools.partial(lk.SGLD, step_size=1e-5, nbeta=10.0, localization=10.0, parameters=["fc.*"])

    def sample(block: int) -> lk.LossTraces:
        schedule = lk.Schedule(chains=1, burn_in=1, draws=2, thinning=1, batch_size=4, probe_batch_size=block)
        return lk.sample(model, data, sgld, schedule, progress=False)

    alone, together = sample(1), sample(8)
    # A loss does not depend on which probes are evaluated beside it.
    np.testing.assert_allclose(alone.losses, together.losses, rtol=1e-4)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        expected = lk.losses.cross_entropy(model.eval()(images(8)), held.tensors[1])
    np.testing.assert_allclose(together.dataset.start_losses, expected, rtol=1e-4)


# --- timm


def test_networks_of_timm_by_name(tmp_path: Path) -> None:
    model = timm_model("test_resnet", outputs=4)
    assert outputs(model).shape == (2, 4)
    torch.save(model.state_dict(), tmp_path / "own.pt")
    assert torch.equal(outputs(timm_model("test_resnet", 4, str(tmp_path / "own.pt"))), outputs(model))
    transformer = timm_model("test_vit", outputs=4, input_size=32)
    assert outputs(transformer).shape == (2, 4)
    assert outputs(timm_model("test_resnet", outputs=4, input_size=32)).shape == (2, 4)  # takes any size


def test_networks_of_timm_that_cannot_be_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"model.name: timm has no network 'test_resne'; e.g. test_resnet"):
        timm_model("test_resne")
    with pytest.raises(InputError, match=r"model.name: timm has no network 'zzz'; see timm.list_models\(\)"):
        timm_model("zzz")
    with pytest.raises(InputError, match=r"model.name: timm has no weights of 'test_resnet.nope'; drop the tag"):
        timm_model("test_resnet.nope")
    with pytest.raises(InputError, match=r"model.input_size must be >= 1, got 0"):
        timm_model("test_vit", input_size=0)
    with pytest.raises(
        InputError, match=r"model.weights must be null, timm, package or the path of a state dict, got True"
    ):
        timm_model("test_resnet", weights=True)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"timm: test_resnet has a head of 1000 classes, but .*outputs=4"):
        timm_model("test_resnet", outputs=4, weights="timm")
    torch.save(timm_model("test_resnet", outputs=4).state_dict(), tmp_path / "own.pt")
    with pytest.raises(InputError, match=r"has a head of 4 classes, but model.outputs=5; set model.outputs=4"):
        timm_model("test_resnet", outputs=5, weights=str(tmp_path / "own.pt"))


def test_timms_weights_that_are_nowhere_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create = timm.create_model
    requested: list[bool] = []

    def offline(name: str, pretrained: bool, **options: Any) -> nn.Module:
        requested.append(pretrained)
        if pretrained:
            raise OSError("cannot reach the hub\nand more")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    message = r"the weights of test_resnet are not at .*test_resnet.* \(cannot reach the hub\); run losskernel-prefetch"
    with pytest.raises(InputError, match=message):
        timm_model("test_resnet", weights="timm")
    assert requested == [True]


def test_timms_pretrained_weights_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create = timm.create_model

    def filled(name: str, pretrained: bool, **options: Any) -> nn.Module:
        model = create(name, pretrained=False, **options)
        if pretrained:
            nn.init.ones_(model.get_classifier().bias)
        return model

    monkeypatch.setattr(timm, "create_model", filled)
    assert (timm_model("test_vit", weights="timm", input_size=32).head.bias == 1).all()
    assert (timm_model("test_vit", weights=None, input_size=32).head.bias == 0).all()


def test_without_timm_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"model.name: the package timm is missing; pip install 'losskernel\[timm\]'"):
        timm_model("resnet18")


def test_neither_torchvision_nor_timm_is_loaded_before_it_is_used(tmp_path: Path) -> None:
    code = "import sys, losskernel.data, losskernel.models; print({'torchvision', 'timm'} & set(sys.modules))"
    assert run_python("-c", code, cwd=tmp_path).stdout.strip() == "set()"
