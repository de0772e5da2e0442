"""Choices of the sampler group that losskernel-calibrate wrote: where they are looked for, and what they set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from losskernel.cli.config import resolved
from losskernel.config_keys import Use, with_use
from losskernel.errors import InputError


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
