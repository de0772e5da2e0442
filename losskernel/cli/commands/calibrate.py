"""losskernel-calibrate: settings from the network's curvature, written as a choice of the sampler group."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from losskernel.config_keys import Use, with_use
from losskernel.errors import InputError, require


class OwnChoices(SearchPathPlugin):
    """Looks for choices in `conf/` of the current folder too, where calibrations are written."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folder, if there is one and it is not the registry itself."""
        own = Path.cwd() / "conf"
        known = [Path(each.path.removeprefix("file://")) for each in search_path.get_path() if each.path]
        if own.is_dir() and own not in known:
            search_path.append("own", f"file://{own}")


Plugins.instance().register(OwnChoices)


def calibrate_from(config: DictConfig, folder: Path) -> None:
    """Train or load the network of a configuration, calibrate its sampler, and write the choice."""
    from losskernel.cli.build import build
    from losskernel.runs.folder import RunFolder
    from losskernel.runs.run import set_threads, trained
    from losskernel.sampling.calibration import calibrate

    into = Path(config.into)
    require(into.suffix == ".yaml" and into.parent.name == "sampler", f"into={into} must be .../sampler/<name>.yaml")
    study, resolved = build(config), _resolved(config)
    schedule = study.schedule
    if schedule is None:
        raise InputError("schedule=none leaves nothing to calibrate; choose schedule=default")
    set_threads(config.threads)
    files = RunFolder(folder)
    files.prepare()
    files.write_text("config.yaml", yaml.safe_dump(resolved, sort_keys=False))
    model = trained(study, files)
    options = {"seed": study.seed, "rounds": config.rounds, "trainer": study.trainer, "progress": study.progress}
    found = calibrate(model, study.data, study.sampler, schedule, **options)
    files.write_json("calibration.json", asdict(found))
    values = {f"sampler.{name}": value for name, value in found.sampler.items()}
    values |= {f"schedule.{name}": value for name, value in found.schedule.items()}
    choice = {
        "sampler": resolved["sampler"] | found.sampler,
        "calibrated": {"values": values, "of": _subject(resolved)},
    }
    words = [f"losskernel-calibrate, {folder}", *found.explanation]
    header = "".join(f"# {line}\n" for line in ["@package _global_", *words])
    RunFolder(into.parent).write_text(into.name, header + yaml.safe_dump(choice, sort_keys=False, allow_unicode=True))
    print("\n".join(found.explanation))
    weights = study.checkpoint or files.path / "checkpoints" / "trained.pt"
    print(f"written to {into}; use it with sampler={into.stem} (checkpoint={weights} spares the training)")


def apply_calibration(config: DictConfig, overrides: Sequence[str]) -> None:
    """Let calibrated values win over a recipe's own, and the command line over both.

    Raises:
        InputError: the calibration was made for another network or other data.
    """
    calibrated = config.get("calibrated")
    if calibrated is None:
        return
    from losskernel.storage.settings_diff import differences

    found = cast(dict[str, Any], OmegaConf.to_container(calibrated, resolve=True))
    # Weights given as a file are the calibrated ones trained elsewhere, or the user's own word.
    asked = _subject(_resolved(config)) | {"checkpoint": found["of"]["checkpoint"]}
    lines = differences(found["of"], asked)
    if lines:
        raise InputError(
            f"the calibrated sampler was made for another network: {'; '.join(lines)}; run losskernel-calibrate again"
        )
    given = {each.lstrip("+").split("=")[0] for each in overrides}
    for key, value in found["values"].items():
        if key not in given:
            OmegaConf.update(config, key, value)


def _resolved(config: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))


def _subject(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return what a calibration belongs to; networks of other seeds have nearly the same curvature."""
    return {name: _without_seed(resolved.get(name)) for name in with_use(Use.CALIBRATION)}


def _without_seed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_seed(item) for key, item in value.items() if key != "seed"}
    return value
