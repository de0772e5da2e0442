"""Taxonomies from WordNet, or from a file of nested JSON or YAML, or of links in CSV.

Source of WordNet: Miller 1995 (WordNet 3.0, in whose noun files the number of a wnid is a synset's offset). The nouns
above the ImageNet classes come with the package; all others are read through NLTK.
"""

import csv
import io
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from losskernel.data.taxonomy.similarity import with_ancestors
from losskernel.data.taxonomy.taxonomy import Taxonomy
from losskernel.errors import InputError, require
from losskernel.storage.downloads import PREFETCH, network_timeout, report_download

NOUN_DEPTH = 19  # edges from entity.n.01 down to the deepest noun of WordNet 3.0
_WNID = re.compile(r"n\d{8}")
_NAME = re.compile(r".+\.n\.0*[1-9]\d*")
_COLUMNS = ({"child", "parent"}, {"child", "parent", "name"})

Links = dict[str, tuple[str, list[str]]]  # wnid -> name of the synset, wnids of its hypernyms
Contents = tuple[dict[str, list[str]], dict[str, str]]  # parents of every node, display names


def wordnet(leaves: Sequence[str]) -> Taxonomy:
    """Return the noun synsets given and all above them; nodes are wnids, or the name where a synset was given by name.

    Args:
        leaves: wnids ("n02084071") or names of synsets ("dog.n.01"). The 1,000 ImageNet classes and their hypernyms
            need no data but the package's own; any other synset needs NLTK's WordNet, which is searched at NLTK_DATA
            and in NLTK's own folders, else downloaded.

    Raises:
        InputError: no leaves, one that is neither wnid nor name, no synset of WordNet 3.0, the same synset by wnid and
            by name, or WordNet neither on this machine nor downloaded.
    """
    require(len(leaves) > 0, "leaves must not be empty; name at least one synset, such as n02084071")
    for leaf in leaves:
        fits = isinstance(leaf, str) and (_WNID.fullmatch(leaf) or _NAME.fullmatch(leaf))
        require(bool(fits), f"leaves must be nouns such as n02084071 or dog.n.01, got {leaf!r}")
    links = shipped()
    wnids = {name: wnid for wnid, (name, _) in links.items()}
    chosen = {leaf: wnids.get(leaf.lower(), leaf) for leaf in leaves}
    unknown = [leaf for leaf, wnid in chosen.items() if wnid not in links]
    if unknown:
        links, chosen = _from_nltk(list(chosen), unknown[0])
    return _wordnet_taxonomy(links, chosen)


def shipped() -> Links:
    """Return the 1,000 ImageNet classes and all synsets above them."""
    text = files("losskernel.data.taxonomy").joinpath("imagenet_wordnet.json").read_text(encoding="utf-8")
    return {wnid: (name, parents) for wnid, (name, parents) in json.loads(text).items()}


def read_taxonomy(path: str | Path) -> Taxonomy:
    """Read any is-a hierarchy with one root from a file.

    .json, .yaml, .yml: nested, {"thing": {"animal": ["dog", "cat"], "plant": null}}; each node occurs once.
    .csv: columns child, parent and, if wanted, name (to display); a row per link, so a node may have several parents;
    the root is the parent that is no child, or the child without a parent.

    Raises:
        InputError: a file that is absent, of another kind or malformed, a cycle, or another number of roots than one.
    """
    path = Path(path)
    read = {".json": _json, ".yaml": _yaml, ".yml": _yaml, ".csv": _csv}.get(path.suffix.lower())
    if read is None:
        raise InputError(f"taxonomy file must end in .json, .yaml, .yml, .csv, got {path.name!r}; convert it")
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


def _wordnet_taxonomy(links: Links, chosen: Mapping[str, str]) -> Taxonomy:
    """Return the chosen synsets (leaf as given -> wnid) and all above them, with names to display."""
    given: dict[str, str] = {}  # wnid -> leaf as given
    for leaf, wnid in chosen.items():
        other = given.setdefault(wnid, leaf)
        require(other == leaf, f"leaves {other!r} and {leaf!r} are the same synset; drop one")
    above = with_ancestors(given, lambda wnid: links[wnid][1])
    # By name, since NLTK settles ties by it; NLTK does not define the parents' order, so it is fixed here.
    nodes = sorted(above, key=lambda wnid: links[wnid][0])
    parents = {given.get(wnid, wnid): [given.get(up, up) for up in sorted(links[wnid][1])] for wnid in nodes}
    names = {given.get(wnid, wnid): name for wnid, name in _display_names(links, nodes).items()}
    return Taxonomy(parents, names, NOUN_DEPTH)


def _display_names(links: Links, wnids: Sequence[str]) -> dict[str, str]:
    """Return plain words for synsets; homonyms with their kind, "crane (wading bird)", else sense, "cap.n.03"."""
    words = {wnid: links[wnid][0].rsplit(".", 2)[0].replace("_", " ") for wnid in wnids}
    uses = Counter(words.values())
    names = dict(words)
    for wnid, word in words.items():
        above = [words[up] for up in sorted(links[wnid][1]) if words[up] != word]
        if uses[word] > 1 and above:
            names[wnid] = f"{word} ({above[0]})"
    uses = Counter(names.values())
    return {wnid: links[wnid][0] if uses[name] > 1 else name for wnid, name in names.items()}


def _from_nltk(leaves: Sequence[str], wanted: str) -> tuple[Links, dict[str, str]]:
    """Return the links above the leaves, and leaf as given -> wnid; `wanted` is a leaf that the package lacks."""
    reader = _nltk_reader(wanted)
    synsets = {leaf: _synset(reader, leaf) for leaf in leaves}

    def above(synset: Any) -> list[Any]:
        return [*synset.hypernyms(), *synset.instance_hypernyms()]

    every = with_ancestors(synsets.values(), above)
    links = {_wnid(synset): (synset.name(), [_wnid(up) for up in above(synset)]) for synset in every}
    return links, {leaf: _wnid(synset) for leaf, synset in synsets.items()}


def _wnid(synset: Any) -> str:
    return f"n{synset.offset():08d}"


def _synset(reader: Any, leaf: str) -> Any:
    from nltk.corpus.reader.wordnet import WordNetError

    try:
        if not _WNID.fullmatch(leaf):
            return reader.synset(leaf)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error below reports it
            synset = reader.synset_from_pos_and_offset("n", int(leaf[1:]))
    except WordNetError:
        synset = None
    require(synset is not None, f"WordNet 3.0 has no noun {leaf!r}; check the identifier")
    return synset


def _nltk_reader(wanted: str) -> Any:
    """Return NLTK's WordNet, downloaded if it is not on this machine; `wanted` is a synset that needs it."""
    import nltk
    from nltk.corpus import wordnet as reader

    # NLTK reads the variable only once, when it is imported.
    named = [folder for folder in os.environ.get("NLTK_DATA", "").split(os.pathsep) if folder]
    nltk.data.path[:0] = [folder for folder in named if folder not in nltk.data.path]
    there = True
    try:
        reader.ensure_loaded()
    except LookupError:
        there, reason = False, _download()
        try:
            reader.ensure_loaded()
        except LookupError as error:
            raise InputError(
                f"{wanted!r} is not above or among the ImageNet classes, and WordNet, which may know it, is not on "
                f"this machine and could not be downloaded ({reason}); check the identifier, {PREFETCH}, or run python "
                "-m nltk.downloader wordnet there, and set NLTK_DATA to the folder it wrote"
            ) from error
    path = Path(str(reader.root))
    while not path.exists():  # inside of an archive
        path = path.parent
    report_download("WordNet", path, new=not there)
    return reader


def _download() -> str:
    """Let NLTK download WordNet into the first of its folders that is writable; return the reason if that fails."""
    import nltk

    try:
        with network_timeout():
            nltk.download("wordnet", quiet=True, raise_on_error=True, print_error_to=io.StringIO())
    except (OSError, ValueError) as error:
        return " ".join(str(error).split())
    return "written where NLTK does not look"


def _json(text: str) -> Contents:
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON at line {error.lineno} ({error.msg}); correct it") from error
    return _nested(content)


def _yaml(text: str) -> Contents:
    import yaml

    def plain(node: yaml.Node | None) -> Any:
        if isinstance(node, yaml.MappingNode):
            return _unique([(plain(key), plain(value)) for key, value in node.value])
        if isinstance(node, yaml.SequenceNode):
            return [plain(item) for item in node.value]
        # The text itself: a class called `no` or `1` is neither False nor a number.
        return node.value if isinstance(node, yaml.ScalarNode) and not node.tag.endswith(":null") else None

    try:
        content = plain(yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"not valid YAML{where} ({problem}); correct it") from error
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
    return f"node {node!r} occurs twice; rename one, or write a CSV of links"


def _nested(content: Any) -> Contents:
    parents: dict[str, list[str]] = {}

    def add(below: Any, above: list[str]) -> None:
        if isinstance(below, dict):
            for node, children in below.items():
                add(node, above)
                add(children, [node])
        elif isinstance(below, list):
            for item in below:
                add(item, above)
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
                _add_link(dict(zip(header, map(str.strip, row), strict=True)), parents, names)
    except (ValueError, csv.Error) as error:
        raise InputError(f"line {rows.line_num} does not fit {','.join(header)} ({error}); correct it") from error
    # The root need not have a row of its own.
    for parent in [parent for above in parents.values() for parent in above]:
        parents.setdefault(parent, [])
    return parents, names


def _add_link(row: dict[str, str], parents: dict[str, list[str]], names: dict[str, str]) -> None:
    child = row["child"]
    if not child:
        raise ValueError("it has no child")
    above = parents.setdefault(child, [])
    if row["parent"]:
        above.append(row["parent"])
    if row.get("name"):
        names[child] = row["name"]
