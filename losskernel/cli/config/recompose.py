"""The configuration of a finished run composed again, with some of it changed: for jobs that repeat it otherwise.

A run's folder holds the overrides it was composed from, `.hydra/overrides.yaml`, and the result, `config.yaml`.
Recipes, calibrations and defaults may have changed since. Where they give other values now, further overrides restore
the stored ones, value by value.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.utils import get_object
from omegaconf import DictConfig

from losskernel.cli.config import CONF, resolved
from losskernel.cli.config.calibrated_choice import apply_calibration
from losskernel.config_keys import Use, current_classes, with_use
from losskernel.errors import require


def recompose(run: Path, defaults: Sequence[str], given: Sequence[str]) -> tuple[list[str], DictConfig]:
    """Return overrides that compose a run's configuration with some of it changed, and that configuration.

    Args:
        run: its folder.
        defaults: overrides that win over the run's.
        given: overrides that win over all; a key set here is taken from neither the run nor the defaults.

    Raises:
        InputError: the folder does not say how the run was made.
    """
    overrides, config = run / ".hydra" / "overrides.yaml", run / "config.yaml"
    for path in (overrides, config):
        require(
            path.is_file(),
            f"run={run} has no {path.relative_to(run)}, which says how it was made; give the folder of a run of "
            "the losskernel command",
        )
    # Classes may have moved since; the stored configuration names them where they were.
    stored = current_classes(yaml.safe_load(config.read_text(encoding="utf-8")))
    original = yaml.safe_load(overrides.read_text(encoding="utf-8")) or []
    repeated = _without(original, [*with_use(Use.PER_JOB), *keys(given)])
    # Registries of the user's own come first: overrides of choices in them are invalid without.
    search = [word for word in given if keys([word]) == ["hydra.searchpath"]]
    search = search or _search_path(run / ".hydra" / "hydra.yaml")
    # First composed as the run was, to see what has changed since; then with the changes that are asked for.
    restored = _restoring(stored, resolved(_composed([*search, *repeated])))
    words = [*search, *repeated, *_without([*restored, *defaults], keys(given))]
    words += [word for word in given if word not in search]
    return words, _composed(words)


def run_specific_choices(config: DictConfig, given: Sequence[str]) -> list[str]:
    """Return the choices that a job around a run leaves out: baselines of the training, points, analyses of points.

    Args:
        config: of the run.
        given: overrides; groups that they set are left as they are.
    """

    def chosen(group: str, attribute: str | None) -> list[str]:
        if any(key.startswith(group) for key in keys(given)):
            return []
        nodes = {str(name): node for name, node in (config.get(group) or {}).items()}
        targets = {name: str(node["_target_"]) for name, node in nodes.items() if "_target_" in node}
        return [
            f"{group}.{name}"
            for name, target in targets.items()
            if attribute is None or getattr(get_object(target), attribute, False)
        ]

    return [*chosen("baselines", "needs_history"), *chosen("points", None), *chosen("analysis", "of_points")]


def keys(words: Sequence[str]) -> list[str]:
    """Return the keys that some overrides set."""
    return [override.key_or_group.replace("/", ".") for override in _parsed(words)]


def one_value(word: str) -> Any:
    """Return the value that an override sets.

    Raises:
        InputError: it sweeps over several.
    """
    (override,) = _parsed([word])
    require(not override.is_sweep_override(), f"{word}: give one value; what is swept here is chosen by the command")
    return override.value()


def quoted(value: Any) -> str:
    """Return a value of a configuration in Hydra's override grammar, whatever characters it holds."""
    if value is None:
        return "null"
    # Strings are always quoted: unquoted, `1e3`, `null` or `a,b` would be numbers, nothing, or a sweep.
    if isinstance(value, str):
        return QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(quoted, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _parsed(words: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(words))


def _without(words: Sequence[str], prefixes: Sequence[str]) -> list[str]:
    """Return the overrides that set none of some keys, nor anything below; a group counts as the key it fills."""

    def is_below(key: str) -> bool:
        return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)

    return [word for word, key in zip(words, keys(words), strict=True) if not is_below(key)]


def _search_path(path: Path) -> list[str]:
    """Return the override that names the registries which --config-dir or the working folder added to the run's.

    Args:
        path: of the run's hydra.yaml.
    """
    if not path.is_file():
        return []
    sources = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]["runtime"]["config_sources"]
    folders = [str(source["path"]) for source in sources if source["schema"] == "file" and source["provider"] != "main"]
    known = (CONF, str(Path.cwd() / "conf"))
    added = [f"file://{folder}" for folder in folders if Path(folder).is_dir() and folder not in known]
    return [f"hydra.searchpath={quoted(added)}"] if added else []


def _composed(words: Sequence[str]) -> DictConfig:
    # Not hydra.main: that would parse sys.argv and start a job.
    with initialize_config_dir(CONF, version_base="1.3"):
        config = compose("config", overrides=list(words))
    apply_calibration(config, list(words))
    return config


def _restoring(stored: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the overrides that turn what is composed now into what was composed when the run was made.

    A top-level key that has been added since keeps its default; within a part, a key that was added is removed.
    """
    words: list[str] = []
    for name, value in stored.items():
        key = f"{prefix}{name}"
        if key in (*with_use(Use.PER_JOB), "calibrated"):  # calibrated values are stored where they were set
            continue
        if isinstance(value, Mapping) and isinstance(now.get(name), Mapping):
            words += _restoring(value, now[name], f"{key}.")
        elif name not in now or now[name] != value:
            # ++ adds or overrides, so that it does not matter which of the two it is.
            words.append(f"++{key}={quoted(value)}")
    return words + [f"~{prefix}{name}" for name in now if prefix and name not in stored]
