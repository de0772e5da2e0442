"""Losses that share factors along a known tree of classes, so that every correlation is known in closed form."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from losskernel import LossTraces

# Leaves "aaa" to "cbb": three branches, each of two, each of two classes.
LEAVES = ["".join(each) for each in itertools.product("abc", "ab", "ab")]
# Share of a loss' variance that the ancestors at depth 1, 2 and 3 (the class itself) give; the rest is the probe's own.
SHARES = (0.15, 0.2, 0.25)


def tree_file(folder: Path) -> str:
    """Write the tree, whose inner nodes are "a", "ab" and so on."""
    content: dict[str, Any] = {}
    for leaf in LEAVES:
        content.setdefault(leaf[0], {}).setdefault(leaf[:2], []).append(leaf)
    path = folder / "tree.json"
    path.write_text(json.dumps({"thing": content}))
    return str(path)


def exact(first: str, second: str) -> float:
    """R of two different probes of two classes."""
    common = next((depth for depth in range(3) if first[depth] != second[depth]), 3)
    return sum(SHARES[:common])


def planted(
    per_class: int = 4, chains: int = 4, draws: int = 400, seed: int = 0, signs: bool = False, **known: Any
) -> LossTraces:
    """Traces of `per_class` probes of every leaf, in shuffled order, with the label "kind"."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat(LEAVES, per_class)[np.random.default_rng(1).permutation(len(LEAVES) * per_class)]
    losses = np.sqrt(1 - sum(SHARES)) * rng.normal(size=(chains, draws, len(kinds)))
    for depth, share in enumerate(SHARES, 1):
        nodes, member = np.unique([kind[:depth] for kind in kinds], return_inverse=True)
        losses += np.sqrt(share) * rng.normal(size=(chains, draws, len(nodes)))[:, :, member]
    if signs:  # half of the probes the other way round: R loses what |R| and the coupling keep
        losses *= np.where(np.arange(len(kinds)) % 2, 1.0, -1.0)
    return LossTraces.from_arrays(losses, labels={"kind": kinds}, **known)
