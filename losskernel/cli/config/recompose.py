"""The configuration of a finished run, as the words that compose it again: for jobs that repeat it but for one thing.

What the run was asked for lies in its folder, `.hydra/overrides.yaml`, and what came of it in `config.yaml`. Recipes,
calibrations and defaults may have changed since; what they give now is put right by further words, value by value.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from losskernel.cli.commands.calibrate import apply_calibration
from losskernel.config_keys import Use, current_classes, with_use
from losskernel.errors import require


def recompose(conf: str, folder: Path, defaults: Sequence[str], given: Sequence[str]) -> tuple[list[str], DictConfig]:
    """Return the words that compose a run's configuration with some of it changed, and that configuration.

    Args:
        conf: the registry.
        folder: the run's folder.
        defaults: words that win over the run's.
        given: words that win over all; what they set anew is taken from neither the run nor the defaults.

    Raises:
        InputError: the folder does not say how the run was made.
    """
    asked, made = folder / ".hydra" / "overrides.yaml", folder / "config.yaml"
    for path in (asked, made):
        require(
            path.is_file(),
            f"run={folder} has no {path.relative_to(folder)}, which says how it was made; give the folder of a run of "
            "the losskernel command",
        )
    stored = current_classes(yaml.safe_load(made.read_text(encoding="utf-8")))
    known = _without(yaml.safe_load(asked.read_text(encoding="utf-8")) or [], [*with_use(Use.PER_JOB), *keys(given)])
    search = [word for word in given if keys([word]) == ["hydra.searchpath"]]
    search = search or _search_path(folder / ".hydra" / "hydra.yaml", conf)
    mended = _mending(stored, resolved(_composed(conf, [*search, *known])))
    before = [*search, *known, *_without([*mended, *defaults], keys(given))]
    words = [*before, *(word for word in given if word not in search)]
    return words, _composed(conf, words)


def of_the_run_alone(config: DictConfig, given: Sequence[str]) -> list[str]:
    """Return what a job around a run leaves out: baselines that need the training, points, and what is asked of them.

    Groups that are given anew are left as they are given.
    """

    def named(group: str, needs: str | None) -> list[str]:
        if any(key.startswith(group) for key in keys(given)):
            return []
        nodes = {str(name): node for name, node in (config.get(group) or {}).items()}
        targets = {name: str(node["_target_"]) for name, node in nodes.items() if "_target_" in node}
        chosen = [
            name for name, target in targets.items() if needs is None or getattr(get_object(target), needs, False)
        ]
        return [f"{group}.{name}" for name in chosen]

    return [*named("baselines", "needs_history"), *named("points", None), *named("analysis", "of_points")]


def keys(words: Sequence[str]) -> list[str]:
    """Return the keys that some words set."""
    return [each.key_or_group.replace("/", ".") for each in _parsed(words)]


def one_value(word: str) -> Any:
    """Return the value that a word gives.

    Raises:
        InputError: it gives several.
    """
    (parsed,) = _parsed([word])
    require(not parsed.is_sweep_override(), f"{word}: give one value; what is swept here is chosen by the command")
    return parsed.value()


def quoted(value: Any) -> str:
    """Return a value of a configuration as Hydra's grammar writes it, whatever signs it holds."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{quoted(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(quoted, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _parsed(words: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(words))


def _below(word: Override, above: Sequence[str]) -> bool:
    """Whether a word sets one of some keys, or something within it; choices of a group count as its key."""
    key = word.key_or_group.replace("/", ".")
    return any(key == each or key.startswith(f"{each}.") for each in above)


def _without(words: Sequence[str], above: Sequence[str]) -> list[str]:
    return [word for word, each in zip(words, _parsed(words), strict=True) if not _below(each, above)]


def _search_path(path: Path, conf: str) -> list[str]:
    """Return the word that names further registries, as --config-dir or one of the folder of then added."""
    if not path.is_file():
        return []
    sources = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]["runtime"]["config_sources"]
    further = [str(each["path"]) for each in sources if each["schema"] == "file" and each["provider"] != "main"]
    there = [
        f"file://{each}" for each in further if Path(each).is_dir() and each not in (conf, str(Path.cwd() / "conf"))
    ]
    return [f"hydra.searchpath={quoted(there)}"] if there else []


def _composed(conf: str, words: Sequence[str]) -> DictConfig:
    with initialize_config_dir(conf, version_base="1.3"):
        config = compose("config", overrides=list(words))
    apply_calibration(config, list(words))
    return config


def resolved(config: DictConfig) -> dict[str, Any]:
    """Return a configuration without interpolations."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def _mending(stored: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> list[str]:
    """Return the words that make of what is composed now what was composed then.

    A top-level key that is new since then keeps its default; within a part, what is new is left out.
    """
    words: list[str] = []
    for name, value in stored.items():
        key = f"{above}{name}"
        if key in (*with_use(Use.PER_JOB), "calibrated"):  # what a calibration gave stands where it was put
            continue
        if isinstance(value, Mapping) and isinstance(now.get(name), Mapping):
            words += _mending(value, now[name], f"{key}.")
        elif name not in now or now[name] != value:
            words.append(f"++{key}={quoted(value)}")
    return words + [f"~{above}{name}" for name in now if above and name not in stored]
