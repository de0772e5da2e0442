"""Choosing operations of a network by name."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from losskernel.errors import InputError, require
from losskernel.representations.activations.graph import Graph, nearest

OPERATIONS = "operations"
# Before a pattern that is a regular expression.
REGEX = "re:"


def choose(graph: Graph, patterns: Sequence[str] | str | None = None, key: str = "patterns") -> Graph:
    """Return the graph of some operations; edges lead over those that are left out, so that branches stay branches.

    Args:
        graph: of a network.
        patterns: globs in which * does not match a dot, such as "inception*.branch?.*", or "re:" and a regular
            expression that must match the whole name; of operations or of modules, which stand for the operation
            that they end with. "operations" takes all but those that only pick numbers of others; None takes the
            network's direct children. A point is there once, under the name that the first pattern to match gives it:
            the operation's own, or that of the outermost module that ends with it.
        key: what messages call the patterns.

    Raises:
        InputError: a pattern is none or matches nothing, nothing is left, or operations of a network are asked for
            that torch.fx cannot follow.
    """
    chosen = _asked(graph, patterns, key)
    of = "no child of the network" if patterns is None else "none of them"
    require(len(chosen) > 0, f"{key} is {patterns!r}, but {of} returns a tensor; list others, such as {_some(graph)}")
    ordered = [name for name in graph.names if name in chosen]
    return Graph(
        tuple(chosen[name] for name in ordered),
        nearest(graph.names, graph.edges, chosen),
        {chosen[name]: graph.widths[name] for name in ordered},
        {chosen[name]: graph.operations[name] for name in ordered},
        parts=frozenset(chosen[name] for name in ordered if name in graph.parts),
        untraced=graph.untraced,
    )


def _asked(graph: Graph, patterns: Sequence[str] | str | None, key: str) -> dict[str, str]:
    """Return operation -> what it is called."""
    if isinstance(patterns, str):
        require(
            patterns == OPERATIONS, f"{key} must be null, operations or a list, got {patterns!r}; write [{patterns!r}]"
        )
        require(not graph.untraced, f"{key}=operations: {graph.untraced}; list patterns of its modules, such as ['*']")
        return {name: name for name in graph.names if name not in graph.parts}
    known = {**{name: name for name in graph.names}, **graph.aliases}
    if patterns is None:
        # A child that is not evaluated has no part in it.
        return _called([name for name in graph.children if name in known], known)
    found: dict[str, str] = {}
    for pattern in patterns:
        matched = [name for name in known if _matches(name, pattern, key)]
        require(
            len(matched) > 0,
            f"{key}: {pattern!r} matches no operation and no module that returns a tensor; there are {_some(graph)}",
        )
        found = _called(matched, known) | found
    return found


def _called(names: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Return operation -> its own name where that is among the names, else the outermost of them."""
    ordered = sorted(names, key=lambda name: (known[name] != name, name.count(".")))
    found: dict[str, str] = {}
    for name in ordered:
        found.setdefault(known[name], name)
    return found


def _matches(name: str, pattern: str, key: str) -> bool:
    require(isinstance(pattern, str), f"{key} must be a list of patterns, got {pattern!r} in it; write text")
    if pattern.startswith(REGEX):
        try:
            return re.fullmatch(pattern.removeprefix(REGEX), name) is not None
        except re.error as error:
            raise InputError(f"{key}: {pattern!r} is no regular expression: {error}; mend it") from error
    parts, patterns = name.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _some(graph: Graph, count: int = 8) -> str:
    names = (
        [*graph.names[: count // 2], "...", *graph.names[-count // 2 :]] if len(graph.names) > count else graph.names
    )
    return ", ".join(names)
