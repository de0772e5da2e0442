"""The tree over chosen classes: each node under one parent, nodes that part nothing left out."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from losskernel.data.taxonomy.tree import Tree
from losskernel.errors import require


def contracted(leaves: Sequence[str], parent: Callable[[str], str | None], name: Callable[[str], str]) -> Tree:
    """Return the tree over the leaves; inner nodes are those at which two of them part.

    A leaf that stands above another one is also an inner node: as a leaf it hangs below itself, with the same id.

    parent: of a node in a tree or, for a root, None.

    Raises:
        InputError: leaves under different roots.
    """
    chains = {leaf: _upwards(leaf, parent) for leaf in leaves}
    roots = {chain[-1]: leaf for leaf, chain in reversed(chains.items())}
    pair = " and ".join(f"{leaf!r} (under {root!r})" for root, leaf in list(roots.items())[-1:-3:-1])
    require(len(roots) == 1, f"leaves {pair} have no common root; put one above both")
    branches: dict[str, set[str | None]] = {leaf: {None} for leaf in leaves}
    depth: dict[str, int] = {}
    for chain in chains.values():
        for below, above in pairwise(chain):
            branches.setdefault(above, set()).add(below)
        depth |= {node: len(chain) - place for place, node in enumerate(chain)}
    inner = [node for node, parts in branches.items() if len(parts) > 1]
    inner.sort(key=lambda node: -depth[node])  # children before parents
    number = {node: len(leaves) + place for place, node in enumerate(inner)}
    parents = [
        *(_nearest(chains[leaf], number) for leaf in leaves),
        *(_nearest(_upwards(node, parent)[1:], number) for node in inner),
    ]
    ids = (*leaves, *inner)
    return Tree(ids, tuple(map(name, ids)), np.array(parents))


def _upwards(node: str, parent: Callable[[str], str | None]) -> list[str]:
    chain = [node]
    while (above := parent(chain[-1])) is not None:
        chain.append(above)
    return chain


def _nearest(chain: list[str], number: dict[str, int]) -> int:
    return next((number[node] for node in chain if node in number), -1)
