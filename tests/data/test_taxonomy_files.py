import json
from pathlib import Path

import pytest

from losskernel.data.taxonomy import Taxonomy, read_taxonomy
from losskernel.errors import InputError

NESTED = {"thing": {"animal": {"mammal": ["dog", "cat"], "bird": None}, "plant": ["moss", {"tree": ["oak"]}], "no": {}}}
PARENTS = {
    "thing": (),
    "animal": ("thing",),
    "mammal": ("animal",),
    "dog": ("mammal",),
    "cat": ("mammal",),
    "bird": ("animal",),
    "plant": ("thing",),
    "moss": ("plant",),
    "tree": ("plant",),
    "oak": ("tree",),
    "no": ("thing",),
}
YAML = """
thing:
  animal:
    mammal: [dog, cat]
    bird:
  plant:
    - moss
    - tree: [oak]
  no: {}
"""
CSV = """child,parent,name
animal,thing,
mammal,animal,
dog,mammal,the dog
cat , mammal,
bird,animal,"a bird, any"
plant,thing,

moss,plant,
tree,plant,
oak,tree,
no,thing,
dog,plant,
"""


def _written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _parents(taxonomy: Taxonomy) -> dict[str, tuple[str, ...]]:
    return {node: taxonomy.parents[node] for node in taxonomy.parents}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps(NESTED)),
        ("a.JSON", "\ufeff" + json.dumps(NESTED, indent=2)),
        ("a.yaml", YAML),
        ("a.yml", json.dumps(NESTED)),
    ],
)
def test_nested_nodes_in_the_order_of_the_file(tmp_path: Path, name: str, text: str) -> None:
    taxonomy = read_taxonomy(_written(tmp_path, name, text))
    assert _parents(taxonomy) == PARENTS
    assert list(taxonomy.parents) == list(PARENTS)


def test_links_in_a_table_may_give_a_node_two_parents_and_a_name(tmp_path: Path) -> None:
    taxonomy = read_taxonomy(str(_written(tmp_path, "a.csv", CSV)))
    assert _parents(taxonomy) == PARENTS | {"dog": ("mammal", "plant")}
    assert [taxonomy.name(node) for node in ("dog", "bird", "cat", "thing")] == [
        "the dog",
        "a bird, any",
        "cat",
        "thing",
    ]


def test_the_root_may_have_a_row_and_the_columns_any_order(tmp_path: Path) -> None:
    taxonomy = read_taxonomy(_written(tmp_path, "a.csv", "parent,child\n,thing\nthing,dog\nthing,cat\n"))
    assert _parents(taxonomy) == {"thing": (), "dog": ("thing",), "cat": ("thing",)}
    assert taxonomy.tree(["dog", "cat"]).ids == ("dog", "cat", "thing")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.nwk", "(a,b);", r"taxonomy file must end in .json, .yaml, .yml, .csv, got 'a.nwk'; convert it"),
        ("a.json", '{"a": [', r"taxonomy file 'a.json': not valid JSON at line 1 \(.*\); correct it"),
        ("a.yaml", "a: [b\nc: d", r"taxonomy file 'a.yaml': not valid YAML at line 2 \(.*\); correct it"),
        ("a.yaml", "a: \x01", r"taxonomy file 'a.yaml': not valid YAML \(.*\); correct it"),
        ("a.json", '["a", "b"]', "taxonomy file 'a.json': must hold a root and what is below it, such as"),
        ("a.yaml", "", "taxonomy file 'a.yaml': must hold a root and what is below it, such as"),
        ("a.json", "{}", "taxonomy file 'a.json': taxonomy.parents must hold at least one node"),
        ("a.json", '{"a": {"b": ["c"], "d": ["c"]}}', "node 'c' occurs twice; rename one, or write a CSV of links"),
        ("a.json", '{"a": {"b": null, "b": ["c"]}}', "node 'b' occurs twice"),
        ("a.yaml", "a: {b: , b: [c]}", "node 'b' occurs twice"),
        ("a.json", '{"a": ["b", 3]}', "nodes must be text, got 3; put it in quotes"),
        ("a.json", '{"a": [""]}', "nodes must be text, got ''; put it in quotes"),
        ("a.yaml", "a: {[b]: c}", "nodes must be text, got .'b'.; put it in quotes"),
        ("a.json", '{"a": ["b"], "c": []}', "taxonomy file 'a.json': must have one root, got a, c; put one above them"),
        ("a.json", '{"a": ' * 30000 + "{}" + "}" * 30000, "'a.json' is nested without end; write it as a CSV of links"),
        ("a.yaml", "a: &x {b: *x}", "'a.yaml' is nested without end; write it as a CSV of links"),
        ("a.csv", "", "taxonomy file 'a.csv': columns must be child,parent or child,parent,name, got ''"),
        ("a.csv", "node,parent\n", "columns must be child,parent or child,parent,name, got 'node,parent'"),
        ("a.csv", "child,parent\n", "taxonomy file 'a.csv': taxonomy.parents must hold at least one node"),
        ("a.csv", "child,parent\na,b\nc\n", r"line 3 does not fit child,parent \(.*shorter.*\); correct it"),
        ("a.csv", "child,parent\na,b,c\n", r"line 2 does not fit child,parent \(.*longer.*\); correct it"),
        ("a.csv", "child,parent\n,b\n", r"line 2 does not fit child,parent \(it has no child\); correct it"),
        ("a.csv", 'child,parent\n"a"x,b\n', r"line 2 does not fit child,parent \(.*expected.*\); correct it"),
        ("a.csv", "child,parent\na,b\nb,c\nc,a\n", "taxonomy file 'a.csv': taxonomy.parents must have no cycle, got"),
        (
            "a.csv",
            "child,parent\na,b\nc,d\n",
            "taxonomy file 'a.csv': must have one root, got b, d; put one above them",
        ),
    ],
)
def test_what_is_no_taxonomy_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_taxonomy(_written(tmp_path, name, text))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"taxonomy file '.*none.json' does not exist; check the path"):
        read_taxonomy(tmp_path / "none.json")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "latin.csv").write_bytes("child,parent\ncaf\xe9,b\n".encode("latin-1"))
    for name in ("folder.csv", "latin.csv"):
        with pytest.raises(
            InputError, match=rf"taxonomy file '.*{name}' cannot be read \(.*\); give a UTF-8 text file"
        ):
            read_taxonomy(tmp_path / name)
