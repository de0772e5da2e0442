"""Operations of a network, how they follow each other, and how to choose some of them by name."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from losskernel.errors import InputError, require

INPUTS = "inputs"  # name of what precedes the first operation
OPERATIONS = "operations"
# Before a pattern that is a regular expression.
_REGEX = "re:"


@dataclass(frozen=True, eq=False)
class Graph:
    """All or some operations of a network in the order of evaluation, and the edges between them.

    An operation returns one floating tensor [B, ...] that depends on the inputs: modules of torch and functions such
    as a residual sum. One that returns the numbers of another unchanged (dropout in eval mode, a flattening) is the
    same point under another name.

    Attributes:
        names: in the order of evaluation.
        edges: name -> names of the nearest operations before it that are in the graph, or "inputs".
        widths: name -> numbers per probe.
        operations: name -> name of the operation in the network's complete graph.
        aliases: names of modules, and of operations that change nothing -> name of the operation that they end with.
        parts: names of those that only select numbers of another, such as a slice.
        children: names of the network's direct children.
        untraced: why torch.fx cannot trace the network; then only modules are known, each after the one before.
    """

    names: tuple[str, ...]
    edges: Mapping[str, tuple[str, ...]]
    widths: Mapping[str, int]
    operations: Mapping[str, str]
    aliases: Mapping[str, str] = field(default_factory=dict)
    parts: frozenset[str] = frozenset()
    children: tuple[str, ...] = ()
    untraced: str = ""


def choose(graph: Graph, patterns: Sequence[str] | str | None = None, key: str = "patterns") -> Graph:
    """Return the graph of some operations; edges skip those that are left out, so that branches stay branches.

    Args:
        graph: of a network.
        patterns: globs in which * does not match a dot, such as "inception*.branch?.*", or "re:" and a regular
            expression that must match the whole name; of operations, or of modules, which refer to the operation
            that they end with. "operations" takes all but those that only select numbers of others; None takes the
            network's direct children. Each operation occurs once, under the name that the first pattern to match
            gives it: its own name, or that of the outermost module that ends with it.
        key: config key that messages name.

    Raises:
        InputError: a pattern is invalid or matches nothing, nothing is left, or "operations" is asked of a network
            that torch.fx cannot trace.
    """
    chosen = _chosen(graph, patterns, key)
    of = "no child of the network" if patterns is None else "none of them"
    require(len(chosen) > 0, f"{key} is {patterns!r}, but {of} returns a tensor; list others, such as {_some(graph)}")
    ordered = [name for name in graph.names if name in chosen]  # in the order of evaluation, not of the patterns
    # Edges between chosen operations are drawn through those that are left out.
    ends: dict[str, tuple[str, ...]] = {INPUTS: (INPUTS,)}  # name -> nearest chosen operations at or before it
    edges: dict[str, tuple[str, ...]] = {}
    for name in graph.names:
        ends[name] = tuple(dict.fromkeys(end for parent in graph.edges[name] for end in ends[parent]))
        if name in chosen:
            edges[chosen[name]], ends[name] = ends[name], (chosen[name],)
    return Graph(
        tuple(chosen[name] for name in ordered),
        edges,
        {chosen[name]: graph.widths[name] for name in ordered},
        {chosen[name]: graph.operations[name] for name in ordered},
        parts=frozenset(chosen[name] for name in ordered if name in graph.parts),
        untraced=graph.untraced,
    )


def matches_glob(name: str, pattern: str) -> bool:
    """Whether a dotted name matches a glob in which * does not match a dot."""
    parts, patterns = name.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _chosen(graph: Graph, patterns: Sequence[str] | str | None, key: str) -> dict[str, str]:
    """Return operation -> its name in the chosen graph."""
    if isinstance(patterns, str):
        require(
            patterns == OPERATIONS, f"{key} must be null, operations or a list, got {patterns!r}; write [{patterns!r}]"
        )
        require(not graph.untraced, f"{key}=operations: {graph.untraced}; list patterns of its modules, such as ['*']")
        return {name: name for name in graph.names if name not in graph.parts}
    known = {**{name: name for name in graph.names}, **graph.aliases}
    if patterns is None:
        # Children that are not evaluated, or return no tensor, are skipped.
        return _named([name for name in graph.children if name in known], known)
    chosen: dict[str, str] = {}
    for pattern in patterns:
        matched = [name for name in known if _matches(name, pattern, key)]
        require(
            len(matched) > 0,
            f"{key}: {pattern!r} matches no operation and no module that returns a tensor; there are {_some(graph)}",
        )
        chosen = _named(matched, known) | chosen  # names of earlier patterns win
    return chosen


def _named(names: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Return operation -> its own name if that is among the names, else the outermost of them."""
    chosen: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (known[name] != name, name.count("."))):
        chosen.setdefault(known[name], name)
    return chosen


def _matches(name: str, pattern: str, key: str) -> bool:
    require(isinstance(pattern, str), f"{key} must be a list of patterns, got {pattern!r} in it; write text")
    if not pattern.startswith(_REGEX):
        return matches_glob(name, pattern)
    try:
        return re.fullmatch(pattern.removeprefix(_REGEX), name) is not None
    except re.error as error:
        raise InputError(f"{key}: {pattern!r} is no regular expression: {error}; correct it") from error


def _some(graph: Graph, count: int = 8) -> str:
    names = graph.names
    half = count // 2
    return ", ".join([*names[:half], "...", *names[-half:]] if len(names) > count else names)
