"""What the README shows works as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[2] / "README.md"


def test_the_notebook_snippet_runs_and_shows_digits_that_share_a_class(capsys: pytest.CaptureFixture[str]) -> None:
    (_, snippet) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    names: dict[str, object] = {}
    exec(compile(snippet, str(README), "exec"), names)
    assert re.match(r"(pass|warn|fail) \[", capsys.readouterr().out)
    kernel = names["kernel"]
    classes = kernel.label("class")  # pyright: ignore[reportAttributeAccessIssue]
    nearest = kernel.neighbors(5).indices  # pyright: ignore[reportAttributeAccessIssue]
    assert (classes[nearest] == classes[:, None]).mean() > 0.8


def test_the_geometry_snippet_runs() -> None:
    (snippet, _) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    activations = [np.random.default_rng(width).normal(size=(20, width)) for width in (3, 5, 8)]
    names: dict[str, object] = {"activations": activations}
    exec(compile(snippet, str(README), "exec"), names)
    assert names["path"].length > 0  # pyright: ignore[reportAttributeAccessIssue]


def test_every_recipe_that_is_named_exists() -> None:
    named = set(re.findall(r"experiment=(\w+)", README.read_text(encoding="utf-8")))
    there = {path.stem for path in (README.parent / "conf" / "experiment").glob("*.yaml")}
    assert named <= there
