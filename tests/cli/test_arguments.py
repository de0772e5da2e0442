"""Paths on the command line need no quotes for Hydra; words of its grammar stay what they are."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from losskernel.cli.arguments import as_hydra_reads


def value(word: str) -> object:
    (read,) = as_hydra_reads([word])
    return OverridesParser.create().parse_override(read).value()


@pytest.mark.parametrize(
    "path",
    ["epoch=1-step=2.ckpt", "my pictures/m.pt", "bücher/m.pt", "a:b.pt", "50%.pt", "it's.pt", "a&b.pt", "日本.pt"],
)
def test_a_path_is_taken_as_it_is(path: str) -> None:
    assert value(f"checkpoint={path}") == path


@pytest.mark.parametrize("name", ["a#b,c.pt", "pictures (2).pt", "[1].pt", "{x}.pt", "1,2"])
def test_a_file_of_that_very_name_is_no_sweep(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    assert value(f"checkpoint={name}") == name


@pytest.mark.parametrize("word", ["checkpoint=~/m.pt", 'checkpoint="~/m.pt"', "checkpoint='~/m.pt'"])
def test_a_home_folder_is_expanded(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of mine")
    assert value(word) == "/home/of mine/m.pt"


@pytest.mark.parametrize(
    "word",
    [
        *("seed=0,1", "a=[1,2]", "a={b: 1}", "a=range(1,4)", "~key", "+a.b=1", "++a=null", "a=", "a=1e3", "a=true"),
        *("--multirun", "-m", "--config-dir=conf", "a='x y'", 'a="x=y"', "a=${b}", "a=[x,'y z']", "a=choice(1,2)"),
    ],
)
def test_words_of_the_grammar_stay_as_they_are(word: str) -> None:
    assert as_hydra_reads([word]) == [word]


def test_what_no_quotes_mend_is_left_to_hydra() -> None:
    assert as_hydra_reads(["a b c"]) == ["a b c"]
