"""The two sweeps around a finished run: over the checkpoints it kept, and over blocks of its weights."""

from pathlib import Path
from typing import Any

import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from losskernel.cli.commands.around import Kind
from losskernel.cli.config.recompose import quoted, resolved
from losskernel.errors import require


def _block(globs: Any) -> str:
    from losskernel.sweeps.over_blocks import block_name

    return block_name(globs)


OmegaConf.register_new_resolver("stem", lambda path: Path(str(path)).stem, replace=True)
OmegaConf.register_new_resolver("block", _block, replace=True)


def _checkpoints(folder: Path, config: DictConfig, asked: Any) -> dict[str, Any]:
    from losskernel.sweeps.over_training.over_training import kept_checkpoints

    return dict(kept_checkpoints(folder, asked))


def _show_dynamics(folder: Path, **options: Any) -> Any:
    from losskernel.sweeps.over_training.over_training import over_training

    return over_training(folder, **options)


def _blocks(folder: Path, config: DictConfig, asked: Any) -> dict[str, Any]:
    from losskernel.sampling.samplers.base import select
    from losskernel.sweeps.over_blocks import blocks_of

    model = instantiate(config.model, _convert_="all")
    names = [name for name, weight in model.named_parameters() if weight.is_floating_point()]
    whole = resolved(config)["sampler"].get("parameters")
    return blocks_of(select(names, whole), asked, whole)


def _trained(folder: Path) -> list[str]:
    """Return the word for the run's trained weights: its own, or those that it was given."""
    own, made = folder / "checkpoints" / "trained.pt", folder / "config.yaml"
    loaded = made.is_file() and not own.is_file()
    given = yaml.safe_load(made.read_text(encoding="utf-8")).get("checkpoint") if loaded else None
    require(
        own.is_file() or given is not None, f"run={folder} has no trained weights; continue it with paths.run={folder}"
    )
    if given is not None:
        asked = yaml.safe_load((folder / ".hydra" / "hydra.yaml").read_text(encoding="utf-8"))
        own = Path(asked["hydra"]["runtime"]["cwd"]) / given
    return [f"checkpoint={quoted(str(own))}"]


def _show_layers(folder: Path, **options: Any) -> Any:
    from losskernel.sweeps.over_blocks import over_blocks

    return over_blocks(folder, **options)


DYNAMICS = Kind(
    "dynamics", "checkpoints", "checkpoint", "${stem:${checkpoint}}", lambda _: [], _checkpoints, _show_dynamics
)
LAYERS = Kind(
    "layers", "blocks", "sampler.parameters", "${block:${sampler.parameters}}", _trained, _blocks, _show_layers
)
