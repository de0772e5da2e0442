"""The registry of configurations, conf/, and what the commands share of its composition."""

from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

# A checkout has conf/ beside the package, a wheel inside it.
_PACKAGE = Path(__file__).parents[2]
_INSIDE, _BESIDE = _PACKAGE / "conf", _PACKAGE.parent / "conf"
CONF = str(_INSIDE if _INSIDE.is_dir() else _BESIDE)


def resolved(config: DictConfig, throw_on_missing: bool = False) -> dict[str, Any]:
    """Return a configuration as plain containers without interpolations.

    Args:
        config: as Hydra composed it.
        throw_on_missing: whether a value of ??? raises MissingMandatoryValue.
    """
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=throw_on_missing))


def show_help(name: str) -> None:
    """Let Hydra print the help of a command that composes several configurations and thus has no task of its own.

    Args:
        name: of the command's yaml in the registry.
    """
    hydra.main(config_path=CONF, config_name=name, version_base="1.3")(_no_task)()


def _no_task(config: DictConfig) -> None:
    """Hydra prints the help and exits before it calls its task."""


def _block_name(globs: Any) -> str:
    from losskernel.sweeps.over_blocks import block_name

    return block_name(globs)


OmegaConf.register_new_resolver("count", len, replace=True)
OmegaConf.register_new_resolver("double", lambda number: 2 * number, replace=True)
# Names of job folders in sweeps around a run.
OmegaConf.register_new_resolver("stem", lambda path: Path(str(path)).stem, replace=True)
OmegaConf.register_new_resolver("block", _block_name, replace=True)

# Hydra copies its registry of structured configurations for every group that --help lists and every job that it
# composes, which takes longer than all the rest of --help. It never changes what it loads from it: one is enough.
ConfigStore.__deepcopy__ = lambda store, _memo: store  # pyright: ignore[reportAttributeAccessIssue]
