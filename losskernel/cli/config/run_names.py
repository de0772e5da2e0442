"""Names of runs for their records: name, group, kind and tags, from what was set on the command line."""

import re
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from losskernel.cli.config import resolved
from losskernel.cli.launchers.sweep_jobs import swept_keys
from losskernel.config_keys import COMPARED, Use, row, symbol_of, with_use
from losskernel.runs.tracking.wandb_settings import part_name
from losskernel.sweeps.read_runs import JOBS

_MOST, _LONGEST = 4, 24  # settings in a name, and characters of a value


def described(config: DictConfig, folder: Path, sweep: str | None) -> dict[str, Any]:
    """Return name, group, job type and tags of a run, by which a record shows it among others.

    Args:
        config: of the run.
        folder: of the run.
        sweep: name of its sweep; None for a single run.
    """
    about: dict[str, Any] = {"tags": [*config.logger.tags, *_tags(config, sweep)]}
    if config.logger.name == config.name:  # a name of the user's own is used as it is
        about["name"] = " ".join([str(config.name), *_settings()]) + _number()
    if sweep is not None:
        about["group"] = Path(sweep).name
    if sweep is not None and (folder.parent / JOBS).is_file():  # a sweep around a run: dynamics, layers
        about["job_type"] = folder.parent.name
    return about


def _tags(config: DictConfig, sweep: str | None) -> list[str]:
    plain = resolved(config)
    names = [part_name(plain, key) for key in with_use(Use.CLASS_NAME)]
    return [*filter(None, names), *(["sweep"] if sweep is not None else [])]


def _settings() -> list[str]:
    """Return `key=value` for what tells a run from others: in a sweep what is swept, else what was set by hand."""
    if not HydraConfig.initialized():
        return []
    hydra_config = HydraConfig.get()
    words = [word.partition("=") for word in hydra_config.overrides.task]
    given = {name.lstrip("+~"): value for name, _, value in words}
    given = {name: value for name, value in given.items() if row(name.replace("/", ".")).role in COMPARED}
    if hydra_config.mode == RunMode.MULTIRUN:
        given = {name: value for name, value in given.items() if name in swept_keys(Path(hydra_config.sweep.dir))}
    settings = [f"{symbol_of(name, name.rsplit('.', 1)[-1])}={_short(value)}" for name, value in given.items()]
    return [*settings[:_MOST], *(["..."] if len(settings) > _MOST else [])]


def _number() -> str:
    """Return the number of a sweep's job, which tells replicates apart and names its folder."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return ""
    return f" · {HydraConfig.get().job.num}"


def _short(value: str) -> str:
    """Return a value in few characters: a number to four digits, a file by its stem."""
    try:
        return f"{float(value):.4g}"
    except ValueError:
        # A path, but neither a list nor a mapping that holds one.
        text = Path(value).stem if re.search(r"[\w-]/", value) and value[0] not in "[{" else value
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
