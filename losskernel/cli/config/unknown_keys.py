"""Words of the command line that name no key or no choice, told in one line with what was probably meant."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf

_CLOSE = 0.8  # difflib's ratio from which two dotted keys count as one mistyped


def unknown_choice(error: MissingConfigException) -> str | None:
    """Return what to say of a choice that is not there; None where its group has none at all."""
    missing = str(error.missing_cfg_file)
    # Hydra lists the choices of a group of which one is chosen, and for a list of them says only where it looked.
    choices = sorted(error.options or _choices(str(error), PurePosixPath(missing).parent))
    if not choices:
        return None
    near = get_close_matches(PurePosixPath(missing).name, choices, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"Could not find '{missing}'; {meant}choose from {', '.join(choices)}"


def unknown_key(error: HydraException) -> str:
    """Return what to say of a key that the configuration does not have."""
    said = str(error).splitlines()[0]
    (key,) = re.findall(r"Could not override '([^']*)'", said)[:1] or [""]
    near = _near(key, getattr(error.__cause__, "parent_node", None))
    listing = "hydra --package hydra.launcher hydra/launcher=..." if key.startswith("hydra.launcher") else "job"
    meant = f"did you mean {near}? " if near else ""
    return f"Could not override '{key}'; {meant}`losskernel --cfg {listing}` lists every key"


def _choices(said: str, group: PurePosixPath) -> set[str]:
    """Return the choices of a group in the folders that Hydra says it has searched."""
    folders = [Path(each) / group for each in re.findall(r"path=file://(.*)", said)]
    return {path.stem for folder in folders for path in folder.glob("*.yaml")}


def _near(key: str, node: Any) -> str | None:
    """Return the key that was meant: the closest, or the only one of that name elsewhere; None where none is."""
    if node is None:
        return None
    every: Any = OmegaConf.to_container(node._get_root(), resolve=False)
    if not key.startswith("hydra."):
        every.pop("hydra", None)
    known = list(_keys(every))
    alike = [each for each in known if each.rpartition(".")[2] == key.rpartition(".")[2]]
    close = get_close_matches(key, known, 1, _CLOSE)
    return close[0] if close else alike[0] if len(alike) == 1 else None


def _keys(node: Any, above: str = "") -> Iterator[str]:
    """Yield every key, dotted, that a user may set."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        if not str(name).startswith("_"):
            yield f"{above}{name}"
            yield from _keys(value, f"{above}{name}.")
