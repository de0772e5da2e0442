"""Every recipe and every choice of every group composes, binds and builds; keys are argument names."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command import config
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from pictures import cifar_like, imagenet_like

import losskernel.cli
from losskernel.cli.build import build
from losskernel.data.base import stack
from losskernel.errors import InputError

CONF = Path(losskernel.cli.CONF)
RECIPES = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
CHOICES = sorted(
    f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml") if path.parent.name != "experiment"
)
TAXONOMY = ["dataset.size=32", "dataset.per_class=3", "dataset.probes_per_class=2"]
OF_CLASSES = ("atlas", "discovery", "hierarchy")
# Wrappers that need classes, or images.
OF_DIGITS = ("symmetric_noise", "class_dependent_noise", "instance_dependent_noise", "backdoor")
# A model belongs to data of its shape, and analyses of a taxonomy to probes that have one.
COMPANIONS = {
    "model=mlp": ["dataset=digits"],
    "model=small_cnn": ["dataset=digits"],
    "model=cifar_resnet": ["dataset=digits", "model.depth=8", "model.channels=1"],
    "model=cifar_vgg": ["dataset=digits", "model.width=0.125", "model.channels=1"],
    "training=stepped_sgd": ["dataset=digits", "model=mlp"],
    "dataset=digits": ["model=mlp"],
    "dataset=modular_arithmetic": ["experiment=modular"],
    "model=inception_v1": ["dataset=image_folder"],
    "model=resnet18": ["dataset=image_folder"],
    "model=resnet50": ["dataset=image_folder"],
    "model=vgg16": ["dataset=image_folder"],
    "model=squeezenet1_1": ["dataset=image_folder"],
    "model=efficientnet_lite0": ["dataset=image_folder"],
    "model=timm": ["dataset=image_folder", "model.name=test_resnet"],
    "dataset=image_folder": ["model=resnet18"],
    "dataset=imagenet": ["model=resnet18"],
    "dataset=tiny_imagenet": ["model=resnet18"],
    "dataset=cifar10": ["model=resnet18", "dataset.probes_per_class=2"],
    "dataset=cifar100": ["model=resnet18", "dataset.probes_per_class=2"],
    "dataset=taxonomy_images": [*TAXONOMY, "model=resnet18"],
    **{f"wrapper={name}": ["dataset=digits", "model=mlp"] for name in OF_DIGITS},
    "wrapper=human_labels": ["dataset=cifar10", "model=resnet18", "dataset.probes_per_class=2"],
    "schedule=none": ["dataset=digits", "model=mlp", "points=[layers,targets]", "analysis=[path]"],
    "analysis=attribution": ["wrapper=[joint_probes]"],
    "analysis=memorisation": ["dataset=digits", "model=mlp"],
    "dataset=taxonomy_vectors": ["model=mlp", "model.outputs=16"],
    "analysis=path": ["points=[layers,targets]"],
    "analysis=joint": ["points=[layers,targets,gradients]"],
    "points=taxonomy": ["dataset=taxonomy_images", *TAXONOMY, "model=resnet18"],
    "analysis=levels": ["dataset=taxonomy_vectors", "model=mlp", "model.outputs=16"],
    "experiment=paths_resnet": ["dataset=cifar10", "dataset.probes_per_class=2", "training.batch_size=8"],
    "experiment=cifar10n": ["dataset=cifar10", "dataset.probes_per_class=2", "wrapper.training_probes.limit=100"],
    "experiment=taxonomy": TAXONOMY,
    **{f"analysis={name}": ["dataset=taxonomy_images", *TAXONOMY, "model=resnet18"] for name in OF_CLASSES},
    "experiment=imagenet_small": ["dataset=imagenet", "schedule.batch_size=64"],
    "experiment=inception": ["dataset=imagenet", "model.weights=null", "schedule.batch_size=64"],
}
# Devices that this machine may lack: their keys are checked, they are not built.
DEVICES = {"trainer=gpu", "trainer=mps"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out like ImageNet."""
    root = tmp_path_factory.mktemp("pictures")
    imagenet_like(root, classes=20, train=8, val=2)
    return root


@pytest.fixture
def companions(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """What a choice needs beside it, files among that."""

    def needed(choice: str) -> list[str]:
        others = COMPANIONS.get(choice, [])
        if {"dataset=image_folder", "dataset=imagenet", "dataset=tiny_imagenet"} & {choice, *others}:
            return [*others, f"dataset.root={pictures}", "dataset.size=64", "dataset.probes_per_class=2"]
        cifar = next((item for item in (choice, *others) if item.startswith("dataset=cifar")), None)
        if cifar is not None:
            cifar_like(tmp_path, monkeypatch, classes=int(cifar.removeprefix("dataset=cifar")))
            if choice in ("wrapper=human_labels", "experiment=cifar10n"):
                labels = torch.arange(200) % 10
                torch.save({"clean_label": labels, "aggre_label": labels.flip(0)}, tmp_path / "labels.pt")
                others = [*others, f"wrapper.human_labels.file={tmp_path}/labels.pt"]
            return [*others, f"dataset.root={tmp_path}"]
        return others

    return needed


def targets(node: Any, key: str = "") -> list[tuple[str, DictConfig]]:
    """Every node with a `_target_`, with its key."""
    if not isinstance(node, DictConfig):
        return []
    inner = [result for name in node for result in targets(node[name], f"{key}.{name}".strip("."))]
    return inner + ([(key, node)] if "_target_" in node else [])


def check(overrides: list[str]) -> DictConfig:
    """Compose, resolve, compare keys with arguments, build, and evaluate two probes."""
    composed = config(*overrides)
    OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    for key, node in targets(composed):
        arguments = inspect.signature(get_object(node["_target_"])).parameters
        assert {str(name) for name in node if not str(name).startswith("_")} <= set(arguments), key
    study = build(composed)
    inputs, wanted = stack(study.data.probes, limit=2)
    with torch.no_grad():
        losses = study.data.loss(study.model.eval()(inputs), wanted)
    assert losses.shape == (2,)
    assert losses.isfinite().all()
    assert composed.label in study.data.labels
    assert len(study.analyses) == len(composed.analysis)
    return composed


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_builds(recipe: str, companions: Callable[[str], list[str]]) -> None:
    composed = check([f"experiment={recipe}", *companions(f"experiment={recipe}")])
    assert composed.name == recipe


def test_a_recipe_has_the_last_word() -> None:
    composed = config("experiment=digits")
    assert (composed.name, composed.threads) == ("digits", 1)
    assert composed.model["_target_"] == "losskernel.models.MLP"
    assert config("experiment=digits", "sampler.localization=7").sampler.localization == 7


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_builds(
    choice: str, companions: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Taking a step of each large network is much of a minute; recipes do, and tests/sampling/test_module_zoo.py.
    monkeypatch.setattr("losskernel.runs.preflight.rehearse", lambda _: None)
    group, name = choice.split("=")
    extra = f"analysis=[{name}]" if group == "analysis" else choice
    if choice in DEVICES:
        node = config(extra).trainer
        assert set(node) - {"_target_", "_partial_"} <= set(inspect.signature(get_object(node._target_)).parameters)
    else:
        check([*companions(choice), extra])


def truths(node: Any, key: str = "") -> list[str]:
    """Every key that is true or false."""
    if isinstance(node, dict):
        return [result for name in node for result in truths(node[name], f"{key}.{name}".strip("."))]
    return [key] if isinstance(node, bool) and not key.rpartition(".")[2].startswith("_") else []


def test_no_other_word_is_taken_for_true() -> None:
    said = re.compile(r"^ *(?!_)\w+: (true|false)\b", re.MULTILINE)
    choices = [item for item in CHOICES if said.search((CONF / f"{item.replace('=', '/')}.yaml").read_text())]
    assert {"analysis=atlas", "dataset=cifar10", "model=multitask_mlp", "training=stepped_sgd"} <= set(choices)
    for choice in choices:
        group, name = choice.split("=")
        extra = [*COMPANIONS.get(choice, []), f"analysis=[{name}]" if group == "analysis" else choice]
        keys = truths(OmegaConf.to_container(config(*extra)))
        assert "progress" in keys
        assert any(key.startswith(f"{group}.") for key in keys)
        with pytest.raises(InputError) as raised:
            build(config(*extra, "control=fasle", *(f"{key}=fasle" for key in keys)))
        lines = str(raised.value).splitlines()
        for key in keys:
            assert f"{key} must be true or false, got 'fasle'" in "\n".join(lines), (key, lines)
        assert "control must be true, false or null, got 'fasle'" in lines


def test_the_recipes_state_their_cost_and_what_to_expect() -> None:
    for recipe in RECIPES:
        text = (CONF / "experiment" / f"{recipe}.yaml").read_text(encoding="utf-8")
        assert f"losskernel experiment={recipe}" in text


def test_defaults_in_yaml_are_those_of_the_code() -> None:
    rmsprop = config("sampler=rmsprop_sgld").sampler
    defaults = inspect.signature(get_object("losskernel.RMSpropSGLD")).parameters
    for name in ("smoothing", "damping", "variant", "parameters"):
        assert rmsprop[name] == defaults[name].default, name


def test_the_analysis_command_composes_every_analysis() -> None:
    names = [choice.split("=")[1] for choice in CHOICES if choice.startswith("analysis=")]
    composed = config(f"analysis=[{','.join(names)}]", "run=somewhere", "label=task", name="analyse")
    assert set(composed.analysis) == set(names)
    for key, node in targets(composed.analysis):
        assert {str(name) for name in node} - {"_target_"} <= set(
            inspect.signature(get_object(node["_target_"])).parameters
        ), key


def test_without_analyses_a_study_still_builds() -> None:
    assert build(config("analysis=[]")).analyses == {}


def test_a_network_with_too_few_outputs_is_told_how_many() -> None:
    with pytest.raises(InputError, match=r"must be >= the 10 classes, got 7; set model.outputs=10"):
        build(config("experiment=digits", "model.outputs=7"))
