"""What people call a run of the command line: its name and what was set for it, its sweep's group, kind and tags."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from losskernel.config_keys import COMPARED, Use, row, symbol_of, with_use
from losskernel.runs.tracking.wandb_settings import part_name
from losskernel.sweeps.read_runs import JOBS

_MOST, _LONGEST = 4, 24


def described(config: DictConfig, folder: Path, sweep: str | None) -> dict[str, Any]:
    """Return name, group, job type and tags of a run, as a record shows them among others."""
    about: dict[str, Any] = {"tags": [*config.logger.tags, *_tags(config, sweep)]}
    if config.logger.name == config.name:
        about["name"] = " ".join([str(config.name), *_told()]) + _number()
    if sweep is not None:
        about["group"] = Path(sweep).name
    if sweep is not None and (folder.parent / JOBS).is_file():  # a sweep around a run: dynamics, layers
        about["job_type"] = folder.parent.name
    return about


def _tags(config: DictConfig, sweep: str | None) -> list[str]:
    plain: Any = OmegaConf.to_container(config, resolve=True)
    names = [part_name(plain, key) for key in with_use(Use.CLASS_NAME)]
    return [*filter(None, names), *(["sweep"] if sweep is not None else [])]


def _told() -> list[str]:
    """Return the words of a job that tell it from others: in a sweep what is swept, else what was set by hand."""
    if not HydraConfig.initialized():
        return []
    now = HydraConfig.get()
    given = {
        name: value for name, value in map(_split, now.overrides.task) if row(name.replace("/", ".")).role in COMPARED
    }
    if now.mode == RunMode.MULTIRUN:
        given = {name: value for name, value in given.items() if name in swept(Path(now.sweep.dir))}
    told = [f"{symbol_of(name, name.rsplit('.', 1)[-1])}={_short(value)}" for name, value in given.items()]
    return [*told[:_MOST], *(["..."] if len(told) > _MOST else [])]


def _number() -> str:
    """Return the number of a sweep's job, which tells replicates apart and names its folder."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return ""
    return f" · {HydraConfig.get().job.num}"


def swept(folder: Path) -> list[str]:
    """Return the keys that a sweep varies, from what Hydra notes in its folder before the first job."""
    try:
        words = OmegaConf.load(folder / "multirun.yaml").hydra.overrides.task
        found = OverridesParser.create().parse_overrides(list(words))
        return [str(each.key_or_group) for each in found if each.is_sweep_override()]
    except (OSError, HydraException):
        return []


def _split(word: str) -> Sequence[str]:
    name, _, value = word.partition("=")
    return name.lstrip("+~"), value


def _short(value: str) -> str:
    """Return a value in as few characters as tell it: a number in four digits, a file by its stem."""
    try:
        return f"{float(value):.4g}"
    except ValueError:
        text = Path(value).stem if re.search(r"[\w-]/", value) and value[0] not in "[{" else value
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
