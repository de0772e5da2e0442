"""losskernel-prefetch: where there is internet, fetch what a run will want where there is none; then try without."""

import itertools
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from losskernel.config_keys import Use, with_use
from losskernel.errors import InputError, require
from losskernel.storage.downloads import PREFETCH, Download, network_timeout, recorded_connections, recorded_downloads

# They say where things lie, and must say the same on the compute nodes.
_PLACES = ("TORCH_HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "NLTK_DATA", "LOSSKERNEL_CACHE")
# What others say where something is missing sends its reader here, where it would send him round in a circle.
_HERE = "run this command, which needs internet, on a machine that has it"


def prefetch_for(conf: str, arguments: Sequence[str]) -> None:
    """Fetch all that the jobs of some words want, prove that they do without the network, and say where it lies.

    Args:
        conf: the registry.
        arguments: words of the losskernel command; choices as in a multirun.

    Raises:
        InputError: one line for each thing that cannot be fetched, and for every other fault of a job.
    """
    if {"--help", "-h"} & set(arguments):
        hydra.main(config_path=conf, config_name="prefetch", version_base="1.3")(_nothing)()
        return
    configs = _distinct(conf, _words(arguments))
    found: dict[Path, Download] = {}
    faults: list[str] = []
    for config in configs:
        with recorded_downloads() as heard:
            try:
                _fetched(config)
            except InputError as error:
                faults += str(error).replace(PREFETCH, _HERE).splitlines()
        for each in heard:
            new = each.new or (each.path in found and found[each.path].new)
            found[each.path] = Download(each.what, each.path, new)
    print(*_table(list(found.values())), sep="\n", end="\n" if found else "")
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))
    print(*_advice(configs, found), sep="\n")


def _words(arguments: Sequence[str]) -> list[list[str]]:
    """Return the words of each job.

    Raises:
        InputError: a word is none of the losskernel command's.
    """
    given: list[str] = []
    rest = iter(arguments)
    for word in rest:
        flag, _, folder = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            folder = Path(folder or next(rest, "")).absolute()
            given.append(f"hydra.searchpath=['file://{folder}']")
        elif word not in ("-m", "--multirun"):
            fits = not word.startswith("-")
            require(fits, f"losskernel-prefetch takes key=value, -m, --config-dir and --help, got {word}")
            given.append(word)
    choices: list[list[str]] = []
    for word in OverridesParser.create().parse_overrides(given):
        if word.is_sweep_override():
            listed = word.is_discrete_sweep()
            require(listed, f"{word.input_line}: its values cannot be listed; give one, or several with commas")
            choices.append([f"{word.get_key_element()}={value}" for value in word.sweep_string_iterator()])
        else:
            choices.append([str(word.input_line)])
    return [list(words) for words in itertools.product(*choices)]


def _distinct(conf: str, jobs: Sequence[list[str]]) -> list[DictConfig]:
    """Return the configurations of jobs that want different things."""
    from losskernel.cli.commands.calibrate import apply_calibration

    found: dict[str, DictConfig] = {}
    for words in jobs:
        with initialize_config_dir(conf, version_base="1.3"):
            config = compose("config", overrides=words)
        apply_calibration(config, words)
        resolved = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
        wanting = {name: resolved.get(name) for name in with_use(Use.DOWNLOAD)}
        found.setdefault(json.dumps(wanting, sort_keys=True, default=str), config)
    return list(found.values())


def _fetched(config: DictConfig) -> None:
    """Build a study with the network open; then, if that used it, once more with the network cut off."""
    from losskernel.cli.build import build

    fetching = deepcopy(config)
    if isinstance(fetching.get("dataset"), DictConfig) and "download" in fetching.dataset:
        fetching.dataset.download = True
    with recorded_connections() as tried, network_timeout():
        study = build(fetching)
        for images in [*_cached(study.data.probes), *_cached(study.data.train)]:
            images.held()
    if tried:
        try:
            with recorded_connections(refused=True):
                build(config)
        except InputError as error:
            lines = [f"with the network cut off, {line}" for line in str(error).splitlines()]
            raise InputError("\n".join(lines)) from error


def _cached(dataset: Any) -> Iterator[Any]:
    """Yield what keeps its decoded pictures on disk, in a dataset or below it."""
    from losskernel.data.images.image_files import CachedImages
    from losskernel.data.recombined import Assembled

    if isinstance(dataset, CachedImages):
        yield dataset
    below = dataset.sources if isinstance(dataset, Assembled) else [getattr(dataset, "dataset", None)]
    for each in below:
        if each is not None:
            yield from _cached(each)


def _table(things: Sequence[Download]) -> list[str]:
    rows = [(each.what, "new" if each.new else "was there", _size(each.path), each.path.absolute()) for each in things]
    first, second, third = (max((len(str(row[column])) for row in rows), default=0) for column in range(3))
    return [f"  {what:<{first}}  {state:<{second}}  {size:>{third}}  {path}" for what, state, size, path in rows]


def _size(path: Path) -> str:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file() and not each.is_symlink()]
    return f"{sum(each.stat().st_size for each in files) / 1e6:,.1f} MB"


def _advice(configs: Sequence[DictConfig], found: dict[Path, Download]) -> list[str]:
    """Return what was proved, and what a job script has to say."""
    wanted = "" if found else "nothing is wanted from outside; "
    many = "the study builds" if len(configs) == 1 else f"{len(configs)} studies build"
    lines = [f"{wanted}tried without the network: {many}, and two probes pass through the model"]
    exports = [f"{name}={shlex.quote(os.environ[name])}" for name in _PLACES if os.environ.get(name)]
    exports += ["HF_HUB_OFFLINE=1"] if any(path.name.startswith("models--") for path in found) else []
    recorded = dict.fromkeys(f"{each.paths.outputs}/{each.name}" for each in configs if "project" in each.logger)
    exports += ["WANDB_MODE=offline"] if recorded else []
    if exports:
        lines += ["in the job script, so that compute nodes look in the same places, and only there:"]
        lines += [f"  export {each}" for each in exports]
    if recorded:
        lines += ["afterwards, where there is internet:"]
        lines += [f"  wandb sync $(find {place} -type d -name 'offline-run-*')" for place in recorded]
    return lines


def _nothing(config: DictConfig) -> None:
    """Stand for a job where only help is wanted."""
