"""The registry of configurations, conf/, and what the commands share of its composition."""

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from losskernel.config_keys import Use, with_use
from losskernel.errors import InputError, require

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


def parsed(words: Sequence[str]) -> list[Override]:
    """Return overrides as Hydra reads them."""
    return OverridesParser.create().parse_overrides(list(words))


def combinations(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the overrides of each job that Hydra's own sweeper makes of some.

    Raises:
        InputError: the values of one cannot be listed.
    """
    choices: dict[str, list[str]] = {}
    for override in parsed(words):
        swept = override.is_sweep_override()
        listed = not swept or override.is_discrete_sweep()
        require(listed, f"{override.input_line}: its values cannot be listed; give one, or several with commas")
        key = override.get_key_element()
        values = override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
        choices[key] = [f"{key}={value}" for value in values]
    return list(itertools.product(*choices.values()))


def composed(words: Sequence[str]) -> DictConfig:
    """Return the configuration that some overrides compose, with the calibration that they choose."""
    # Not hydra.main: that would parse sys.argv and start a job.
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        config = hydra.compose("config", overrides=list(words))
    apply_calibration(config, words)
    return config


def shown_help(name: str) -> bool:
    """Let Hydra print the help of a command that composes several configurations, if the command line asks for it.

    Args:
        name: of the command's yaml in the registry.
    """
    wanted = bool({"--help", "-h"} & set(sys.argv[1:]))
    if wanted:  # Hydra prints the help and does not call the task
        hydra.main(config_path=CONF, config_name=name, version_base="1.3")(lambda _: None)()
    return wanted


OmegaConf.register_new_resolver("count", len, replace=True)
OmegaConf.register_new_resolver("double", lambda number: 2 * number, replace=True)
# Names of job folders in sweeps around a run.
OmegaConf.register_new_resolver("stem", lambda path: Path(str(path)).stem, replace=True)
OmegaConf.register_new_resolver(
    "block", lambda globs: get_object("losskernel.sweeps.over_blocks.block_name")(globs), replace=True
)

# Hydra copies its registry of structured configurations for every group that --help lists and every job that it
# composes, which takes longer than all the rest of --help. It never changes what it loads from it: one is enough.
ConfigStore.__deepcopy__ = lambda store, _memo: store  # pyright: ignore[reportAttributeAccessIssue]


# Choices of the sampler group that losskernel-calibrate wrote: where they are looked for, and what they set.


class WorkingFolderChoices(SearchPathPlugin):
    """Adds `conf/` of the working folder to Hydra's search path; calibrations are written there."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder if it exists and is not the registry itself."""
        folder = Path.cwd() / "conf"
        known = [Path(entry.path.removeprefix("file://")) for entry in search_path.get_path() if entry.path]
        if folder.is_dir() and folder not in known:
            search_path.append("own", f"file://{folder}")


Plugins.instance().register(WorkingFolderChoices)


def apply_calibration(config: DictConfig, overrides: Sequence[str]) -> None:
    """Set the calibrated values in a configuration; they win over a recipe's, and the command line wins over them.

    Args:
        config: composed; changed in place.
        overrides: words of the command line.

    Raises:
        InputError: the calibration was made for another network or other data.
    """
    # Written by calibrate_from() into the choice itself: {values: {key: value}, of: the subject}.
    if config.get("calibrated") is None:
        return
    from losskernel.storage.settings_diff import differences

    calibrated = resolved(config.calibrated)
    # A checkpoint given on the command line is either the calibrated network trained elsewhere, or deliberate.
    subject = subject_of(resolved(config, throw_on_missing=True)) | {"checkpoint": calibrated["of"]["checkpoint"]}
    lines = differences(calibrated["of"], subject)
    if lines:
        raise InputError(
            f"the calibrated sampler was made for another network: {'; '.join(lines)}; run losskernel-calibrate again"
        )
    # A recipe is composed after the sampler's choice and would win over it; the command line is meant to.
    given = {word.lstrip("+").split("=")[0] for word in overrides}
    for key, value in calibrated["values"].items():
        if key not in given:
            OmegaConf.update(config, key, value)


def subject_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a resolved configuration that a calibration is made for.

    Seeds are left out: the curvature of networks that differ in their seed alone is nearly the same.
    """
    return {name: _without_seed(config.get(name)) for name in with_use(Use.CALIBRATION)}


def _without_seed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_seed(item) for key, item in value.items() if key != "seed"}
    return value
