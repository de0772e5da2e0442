"""losskernel-prefetch: download what a run needs where there is internet, and prove that it then builds without."""

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from losskernel.cli.config import combinations, composed, resolved
from losskernel.config_keys import Use, with_use
from losskernel.errors import InputError, require
from losskernel.storage.downloads import PREFETCH, Download, network_timeout, recorded_connections, recorded_downloads

# Environment variables that say where caches lie; compute nodes need the same values.
_CACHES = ("TORCH_HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "NLTK_DATA", "LOSSKERNEL_CACHE")
# Errors about missing files recommend this command; within it, they must recommend something else.
_REMEDY = "run this command, which needs internet, on a machine that has it"


def prefetch_for(arguments: Sequence[str]) -> None:
    """Download all that some jobs need, prove that they build without network, and print where it lies.

    Args:
        arguments: overrides of the losskernel command; several values of a key as in a multirun.

    Raises:
        InputError: one line for each thing that cannot be downloaded, and for every other fault of a job.
    """
    # Jobs that differ in what needs no download, such as sampler settings, are built once.
    configs = _distinct(_jobs(arguments))
    downloads: dict[Path, Download] = {}
    faults: list[str] = []
    for config in configs:
        with recorded_downloads() as taken:
            try:
                _download(config)
            except InputError as error:
                faults += str(error).replace(PREFETCH, _REMEDY).splitlines()
        for download in taken:
            # A later job finds in the cache what an earlier one has downloaded: it stays new.
            new = download.new or (download.path in downloads and downloads[download.path].new)
            downloads[download.path] = Download(download.what, download.path, new)
    print(*_table(list(downloads.values())), sep="\n", end="\n" if downloads else "")
    if faults:
        raise InputError("\n".join(dict.fromkeys(faults)))
    print(*_advice(configs, downloads), sep="\n")


def _jobs(arguments: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the overrides of each job.

    Raises:
        InputError: a word is not for this command, or its values cannot be listed.
    """
    given: list[str] = []
    rest = iter(arguments)
    for word in rest:
        flag, _, folder = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            # compose() has no --config-dir; the search path does the same.
            folder = Path(folder or next(rest, "")).absolute()
            given.append(f"hydra.searchpath=['file://{folder}']")
        elif word not in ("-m", "--multirun"):
            fits = not word.startswith("-")
            require(fits, f"losskernel-prefetch takes key=value, -m, --config-dir and --help, got {word}")
            given.append(word)
    return combinations(given)


def _distinct(jobs: Sequence[Sequence[str]]) -> list[DictConfig]:
    """Return a configuration for every set of downloads that the jobs need."""
    configs: dict[str, DictConfig] = {}
    for words in jobs:
        config = composed(words)
        plain = resolved(config)
        needs = {name: plain.get(name) for name in with_use(Use.DOWNLOAD)}
        configs.setdefault(json.dumps(needs, sort_keys=True, default=str), config)
    return list(configs.values())


def _download(config: DictConfig) -> None:
    """Build a study with the network open; then, if that used it, once more with the network cut off."""
    from losskernel.cli.build import build

    # The jobs themselves need not set download=true, and must not: compute nodes have no network.
    fetching = deepcopy(config)
    if isinstance(fetching.get("dataset"), DictConfig) and "download" in fetching.dataset:
        fetching.dataset.download = True
    with recorded_connections() as tried, network_timeout():
        study = build(fetching)
        # Decoding and caching pictures now spares every job doing it.
        for images in [*_cached_images(study.data.probes), *_cached_images(study.data.train)]:
            images.held()
    # Libraries may ask a server even for what they have cached; such a job would hang on a compute node.
    if tried:
        try:
            with recorded_connections(refused=True):
                build(config)
        except InputError as error:
            lines = [f"with the network cut off, {line}" for line in str(error).splitlines()]
            raise InputError("\n".join(lines)) from error


def _cached_images(dataset: Any) -> Iterator[Any]:
    """Yield the datasets that cache decoded pictures on disk: a dataset itself, or those that it wraps."""
    from losskernel.data.images.image_files import CachedImages
    from losskernel.data.recombined import Assembled

    if isinstance(dataset, CachedImages):
        yield dataset
    wrapped = dataset.sources if isinstance(dataset, Assembled) else [getattr(dataset, "dataset", None)]
    for source in wrapped:
        if source is not None:
            yield from _cached_images(source)


def _table(downloads: Sequence[Download]) -> list[str]:
    rows = [
        (download.what, "new" if download.new else "was there", _size(download.path), download.path.absolute())
        for download in downloads
    ]
    first, second, third = (max((len(str(row[column])) for row in rows), default=0) for column in range(3))
    return [f"  {what:<{first}}  {state:<{second}}  {size:>{third}}  {path}" for what, state, size, path in rows]


def _size(path: Path) -> str:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    return f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"


def _advice(configs: Sequence[DictConfig], downloads: dict[Path, Download]) -> list[str]:
    """Return what was proved, and what a job script has to say."""
    nothing = "" if downloads else "nothing is wanted from outside; "
    many = "the study builds" if len(configs) == 1 else f"{len(configs)} studies build"
    lines = [f"{nothing}tried without the network: {many}, and two probes pass through the model"]
    exports = [f"{name}={shlex.quote(os.environ[name])}" for name in _CACHES if os.environ.get(name)]
    exports += ["HF_HUB_OFFLINE=1"] if any(path.name.startswith("models--") for path in downloads) else []
    recorded = dict.fromkeys(
        f"{config.paths.outputs}/{config.name}" for config in configs if "project" in config.logger
    )
    exports += ["WANDB_MODE=offline"] if recorded else []
    if exports:
        lines += ["in the job script, so that compute nodes look in the same places, and only there:"]
        lines += [f"  export {export}" for export in exports]
    if recorded:
        lines += ["afterwards, where there is internet:"]
        lines += [f"  wandb sync $(find {folder} -type d -name 'offline-run-*')" for folder in recorded]
    return lines
