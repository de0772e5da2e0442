"""What the README shows works as it stands there."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from command import config

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MANUALS = [README, ROOT / "conf" / "README.md", ROOT / "experiments" / "README.md"]


def test_the_notebook_snippets_run_and_show_digits_that_share_a_class(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for snippet in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S):
        exec(compile(snippet, str(README), "exec"), names)
    assert re.match(r"(pass|warn|fail) \[", capsys.readouterr().out)
    kernel = names["kernel"]
    classes = kernel.label("class")
    nearest = kernel.neighbors(5).indices
    assert (classes[nearest] == classes[:, None]).mean() > 0.8
    assert names["path"].length > 0


def commands() -> list[str]:
    """Every command line of the package in the manuals, in code blocks and in tables, without its comment."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in MANUALS).replace("\\\n", " ")
    lines = re.findall(r"(?:uv run |`)(losskernel(?:-\w+)? [^`\n]*|losskernel(?:-\w+)?)(?=`|\n|$)", text)
    plain = [line.split("  #")[0].strip() for line in lines]
    return list(dict.fromkeys(line for line in plain if "..." not in line))


@pytest.mark.parametrize("line", commands())
def test_every_command_composes(line: str, tmp_path: Path) -> None:
    name, *words = shlex.split(line)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert name in scripts
    command = name.removeprefix("losskernel").removeprefix("-").replace("prefetch", "") or "config"
    if command == "status" or "my_conf" in words:  # no Hydra; a folder of the reader's
        return
    given = [re.sub(r"<[^>]*>", "x", word) for word in words if not word.startswith("-")]
    given = [word for word in given if word not in ("sampler=calibrated", "hydra/launcher=slurm")]
    given = [word for word in given if not word.startswith("hydra.launcher.")]
    if command in ("dynamics", "layers", "compare"):
        given = [word for word in given if word.partition("=")[0] in ("run", "runs")]
    composed = config(*(first_value(word) for word in given), name=command)
    assert composed is not None


def first_value(word: str) -> str:
    """A word of a sweep as its first job gets it."""
    key, sign, value = word.partition("=")
    value = re.sub(r"^range\((\d+),.*\)$", r"\1", value)
    depth, end = 0, len(value)
    for at, letter in enumerate(value):
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and depth == 0:
            end = at
            break
    return f"{key}{sign}{value[:end]}"


def test_every_picture_and_link_is_there() -> None:
    for path in MANUALS:
        for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (path.parent / target).exists(), f"{path}: {target}"


def test_every_recipe_that_is_named_exists() -> None:
    named = set(re.findall(r"experiment=(\w+)", "".join(path.read_text(encoding="utf-8") for path in MANUALS)))
    there = {path.stem for path in (README.parent / "conf" / "experiment").glob("*.yaml")}
    assert named <= there
