"""A taxonomy out of a file: nested JSON or YAML, or CSV with a row per link."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losskernel.data.taxonomy.taxonomy import Taxonomy
from losskernel.errors import InputError, require

_COLUMNS = ({"child", "parent"}, {"child", "parent", "name"})

Contents = tuple[dict[str, list[str]], dict[str, str]]  # parents of every node, display names


def read_taxonomy(path: str | Path) -> Taxonomy:
    """Read any is-a hierarchy with one root from a file.

    .json, .yaml, .yml: nested, {"thing": {"animal": ["dog", "cat"], "plant": null}}; each node stands once.
    .csv: columns child, parent and, if wanted, name (to display); a row per link, so a node may have several parents;
    the root is the parent that is no child, or the child without a parent.

    Raises:
        InputError: a file that is absent, of another kind or malformed, a cycle, or another number of roots than one.
    """
    path = Path(path)
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(f"taxonomy file must end in {', '.join(_READERS)}, got {path.name!r}; convert it")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"taxonomy file {str(path)!r} does not exist; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"taxonomy file {str(path)!r} cannot be read ({error}); give a UTF-8 text file") from error
    try:
        taxonomy = Taxonomy(*read(text))
        roots = taxonomy.roots
        require(len(roots) == 1, f"must have one root, got {', '.join(roots[:3])}; put one above them")
    except InputError as error:
        raise InputError(f"taxonomy file {path.name!r}: {error}") from error
    except RecursionError as error:
        raise InputError(f"taxonomy file {path.name!r} is nested without end; write it as a CSV of links") from error
    return taxonomy


def _json(text: str) -> Contents:
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON at line {error.lineno} ({error.msg}); mend it") from error
    return _nested(content)


def _yaml(text: str) -> Contents:
    import yaml

    def plain(node: yaml.Node | None) -> Any:
        if isinstance(node, yaml.MappingNode):
            return _unique([(plain(key), plain(value)) for key, value in node.value])
        if isinstance(node, yaml.SequenceNode):
            return [plain(each) for each in node.value]
        # The text itself: a class called `no` or `1` is neither False nor a number.
        return node.value if isinstance(node, yaml.ScalarNode) and not node.tag.endswith(":null") else None

    try:
        content = plain(yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"not valid YAML{where} ({problem}); mend it") from error
    return _nested(content)


def _unique(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    # Of two equal keys a dictionary would silently keep the last.
    seen: dict[Any, Any] = {}
    for key, value in pairs:
        require(isinstance(key, str), f"nodes must be text, got {key!r}; put it in quotes")
        require(key not in seen, _twice(key))
        seen[key] = value
    return seen


def _twice(node: str) -> str:
    return f"node {node!r} stands twice; rename one, or write a CSV of links"


def _nested(content: Any) -> Contents:
    parents: dict[str, list[str]] = {}

    def add(below: Any, above: list[str]) -> None:
        if isinstance(below, dict):
            for node, children in below.items():
                add(node, above)
                add(children, [node])
        elif isinstance(below, list):
            for each in below:
                add(each, above)
        elif below is not None:
            require(isinstance(below, str) and below != "", f"nodes must be text, got {below!r}; put it in quotes")
            require(below not in parents, _twice(below))
            parents[below] = above

    require(isinstance(content, dict), 'must hold a root and what is below it, such as {"animal": ["dog", "cat"]}')
    add(content, [])
    return parents, {}


def _csv(text: str) -> Contents:
    rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    header = [column.strip() for column in next(rows, [])]
    require(set(header) in _COLUMNS, f"columns must be child,parent or child,parent,name, got {','.join(header)!r}")
    parents: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    try:
        for row in rows:
            if row:
                _link(dict(zip(header, map(str.strip, row), strict=True)), parents, names)
    except (ValueError, csv.Error) as error:
        raise InputError(f"line {rows.line_num} does not fit {','.join(header)} ({error}); mend it") from error
    # The root need not have a row of its own.
    for parent in [each for above in parents.values() for each in above]:
        parents.setdefault(parent, [])
    return parents, names


def _link(row: dict[str, str], parents: dict[str, list[str]], names: dict[str, str]) -> None:
    child = row["child"]
    if not child:
        raise ValueError("it has no child")
    above = parents.setdefault(child, [])
    if row["parent"]:
        above.append(row["parent"])
    if row.get("name"):
        names[child] = row["name"]


_READERS = {".json": _json, ".yaml": _yaml, ".yml": _yaml, ".csv": _csv}
