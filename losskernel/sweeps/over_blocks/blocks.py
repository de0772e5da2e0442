"""Blocks of a network's weights: its parts as its names tell them, or what the user names."""

import re
from collections.abc import Sequence
from typing import Any

from losskernel.errors import require
from losskernel.sampling.samplers.base import select

WHOLE = "whole"


def blocks_of(
    names: Sequence[str], asked: Any = "auto", whole: Sequence[str] | str | None = None
) -> dict[str, Sequence[str] | str | None]:
    """Return the blocks of weights that are sampled: name -> globs over the names of weights, the whole first.

    The whole is called so where it is all weights, else after its globs.

    Args:
        names: of the weights that move in the whole, as layers.0.weight.
        asked: "auto" for the network's parts: its direct children with weights, and where it has only one, that
            child's; else a list of blocks, each a glob or a list of globs.
        whole: globs of the whole; None for all weights.

    Raises:
        InputError: a block is no list of globs, matches no weight, or has another's name; or there are fewer than two.
    """
    if asked == "auto":
        blocks: list[Any] = [[f"{part}.*" if part not in names else part] for part in parts(names)]
        require(
            len(blocks) > 1, f"blocks=auto finds one part only, {parts(names)[0]}; name the blocks by globs of weights"
        )
    else:
        listed = isinstance(asked, (list, tuple))
        require(
            listed, f"blocks must be auto or a list of blocks, got {asked!r}; e.g. blocks=[[layers.0.*],[layers.2.*]]"
        )
        blocks = [[each] if isinstance(each, str) else each for each in asked]
        require(len(blocks) > 0, "blocks=[] names none; give auto, or globs such as blocks=[[layers.0.*]]")
    found: dict[str, Sequence[str] | str | None] = {block_name(whole): whole}
    for globs in blocks:
        texts = isinstance(globs, (list, tuple)) and all(isinstance(glob, str) for glob in globs)
        require(texts, f"blocks: {globs!r} is not a list of globs over names of weights; e.g. [layers.0.*]")
        select(names, list(globs), key="blocks")
        name = block_name(globs)
        require(name not in found, f"blocks: two are called {name}; name their weights apart")
        found[name] = list(globs)
    return found


def block_name(globs: Any) -> str:
    """Return what a block is called, fit for a folder: its globs without their endings; the whole for None."""
    if globs is None:
        return WHOLE
    names = [globs] if isinstance(globs, str) else [str(glob) for glob in globs]
    return "+".join(re.sub(r"[^\w.\-]", "_", name.removesuffix("*").removesuffix(".") or "all") for name in names)


def parts(names: Sequence[str]) -> list[str]:
    """Return the outermost parts that tell weights apart: children of the network, or of its only child, and so on."""
    above = ""
    while True:
        found = list(dict.fromkeys(above + name[len(above) :].split(".")[0] for name in names))
        if len(found) > 1 or found[0] in names:
            return found
        above = f"{found[0]}."
