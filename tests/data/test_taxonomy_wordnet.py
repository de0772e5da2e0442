"""WordNet as shipped, and through NLTK: a small one written here, and the whole where it is at hand."""

import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import nltk
import numpy as np
import pytest
from nltk.corpus.reader.api import CorpusReader
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader
from taxonomy_oracles import nltk_similarity, synsets, write_wordnet

from losskernel.data.taxonomy import MEASURES, Taxonomy, wordnet
from losskernel.data.taxonomy.readers import NOUN_DEPTH, shipped
from losskernel.errors import InputError

IMAGENET = sorted(set(shipped()) - {parent for _, parents in shipped().values() for parent in parents})
TINY = {
    "entity": [],
    "thing": [("@", "entity")],
    "gadget": [("@", "thing")],
    "widget": [("@", "thing")],
    "excalibur": [("@i", "gadget"), ("@", "widget")],
}


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder, the only one in which NLTK looks for data, with nothing loaded and nothing to download."""
    folder = tmp_path / "nltk_data"
    folder.mkdir()
    languages = LazyCorpusLoader("omw-1.4", CorpusReader, ".*")
    monkeypatch.setattr(nltk.corpus, "wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, languages))
    monkeypatch.delenv("NLTK_DATA", raising=False)
    monkeypatch.setattr(nltk.data, "path", [str(folder)])

    def offline(*_: object, **__: object) -> bool:
        raise ValueError("Error loading wordnet: <urlopen error\n no route to host>")

    monkeypatch.setattr(nltk, "download", offline)
    return folder


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Any:
    """NLTK's reader of the whole of WordNet."""
    beside = Path(__file__).parents[3] / "shared" / "nltk_data"
    if "NLTK_DATA" not in os.environ and beside.is_dir():
        monkeypatch.setenv("NLTK_DATA", str(beside))
    monkeypatch.setattr(nltk.data, "path", [*os.environ.get("NLTK_DATA", "").split(os.pathsep), *nltk.data.path])
    try:
        nltk.corpus.wordnet.ensure_loaded()
    except LookupError:
        pytest.skip("the whole of WordNet is on no path of NLTK's: run python -m nltk.downloader wordnet")
    return nltk.corpus.wordnet


def test_the_dog_is_a_dog() -> None:
    taxonomy = wordnet(["n02084071"])
    assert taxonomy.name("n02084071") == "dog"
    assert [taxonomy.name(node) for node in taxonomy.parents["n02084071"]] == ["domestic animal", "canine"]
    assert [taxonomy.name(root) for root in taxonomy.roots] == ["entity"]
    assert (taxonomy.min_depth["n02084071"], taxonomy.max_depth["n02084071"]) == (8, 13)


def test_imagenet_needs_no_data_but_the_package_s(nowhere: Path) -> None:
    taxonomy = wordnet(IMAGENET)
    assert len(IMAGENET) == 1000
    assert set(IMAGENET) < set(taxonomy.parents) == set(shipped())
    tree = taxonomy.tree(IMAGENET)
    assert (tree.leaves, tree.names[-1]) == (1000, "entity")
    assert not list(nowhere.iterdir())


def test_measures_on_imagenet_are_those_of_nltk() -> None:
    rng = np.random.default_rng(0)
    taxonomy = wordnet([*IMAGENET, "n02084071", "n01503061"])
    chosen = [*rng.choice(IMAGENET, 40, replace=False).tolist(), "n02084071", "n01503061"]
    counts = rng.integers(1, 20, len(chosen)).tolist()
    nodes = synsets(taxonomy, NOUN_DEPTH)
    for measure in MEASURES:
        expected = nltk_similarity([nodes[node] for node in chosen], measure, counts)
        np.testing.assert_allclose(taxonomy.similarity(chosen, measure, counts), expected, rtol=1e-12, atol=1e-14)


def test_known_similarities_of_dog_and_cat() -> None:
    # As NLTK's manual has them.
    pair, taxonomy = ["dog.n.01", "cat.n.01"], wordnet(["dog.n.01", "cat.n.01"])
    for measure, known in [("path", 0.2), ("leacock_chodorow", 2.0281482472922856), ("wu_palmer", 0.8571428571428571)]:
        np.testing.assert_allclose(taxonomy.similarity(pair, measure)[0, 1], known, rtol=1e-14)


def test_synsets_keep_the_identifier_they_were_given_by() -> None:
    taxonomy = wordnet(["dog.n.01", "n02123045", "dog.n.01"])
    assert {"dog.n.01", "n02123045", "n02075296"} < set(taxonomy.parents)
    assert "n02084071" not in taxonomy.parents
    assert taxonomy.tree(["dog.n.01", "n02123045"]).names == ("dog", "tabby", "carnivore")
    np.testing.assert_array_equal(
        taxonomy.distance(["dog.n.01", "n02123045"]),
        wordnet(["n02084071", "n02123045"]).distance(["n02084071", "n02123045"]),
    )


def test_homonyms_are_shown_with_their_kind() -> None:
    taxonomy = wordnet(IMAGENET)
    names = [taxonomy.name(node) for node in taxonomy.parents]
    assert len(set(names)) == len(names)
    assert {"crane (wading bird)", "crane (lifting device)", "border collie", "table.n.02", "table.n.03"} < set(names)
    assert wordnet(["n02012849"]).name("n02012849") == "crane"


def test_a_synset_that_is_not_shipped_comes_through_nltk(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = nowhere.parent / "elsewhere"
    wnids = write_wordnet(folder, TINY)
    # Where the variable names a folder after NLTK was imported, too.
    monkeypatch.setenv("NLTK_DATA", os.pathsep.join(["", str(folder)]))
    taxonomy = wordnet([wnids["excalibur"], "thing.n.01"])
    kinds = {node: set(taxonomy.parents[node]) for node in taxonomy.parents}
    assert kinds == {
        wnids["entity"]: set(),
        "thing.n.01": {wnids["entity"]},
        wnids["gadget"]: {"thing.n.01"},
        wnids["widget"]: {"thing.n.01"},
        wnids["excalibur"]: {wnids["gadget"], wnids["widget"]},
    }
    assert taxonomy.name(wnids["excalibur"]) == "excalibur"
    assert nltk.data.path == [str(folder), str(nowhere)]


def test_wordnet_is_found_zipped(nowhere: Path) -> None:
    wnids = write_wordnet(nowhere, TINY)
    corpora = nowhere / "corpora"
    shutil.make_archive(str(corpora / "wordnet"), "zip", corpora, "wordnet")
    shutil.rmtree(corpora / "wordnet")
    assert wordnet(["widget.n.01"]).parents["widget.n.01"] == (wnids["thing"],)


def test_wordnet_is_downloaded_where_it_is_absent(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requested = []

    def download(name: str, **_: object) -> bool:
        requested.append(name)
        write_wordnet(nowhere, TINY)
        return True

    monkeypatch.setattr(nltk, "download", download)
    assert wordnet(["widget.n.01"]).name("widget.n.01") == "widget"
    assert wordnet(["gadget.n.01"]).name("gadget.n.01") == "gadget"
    assert requested == ["wordnet"]


def test_offline_and_absent_is_one_line_with_the_remedy(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = [r"\(Error loading wordnet: <urlopen error no route to host>\)", r"\(written where NLTK does not look\)"]
    for reason in reasons:
        with pytest.raises(
            InputError, match=rf"could not be downloaded {reason}; .* python -m nltk.downloader"
        ) as messages:
            wordnet(["n02084071", "widget.n.01"])
        assert "NLTK_DATA" in str(messages.value)
        assert "\n" not in str(messages.value)
        monkeypatch.setattr(nltk, "download", lambda *_, **__: True)


def test_what_is_no_synset_is_named(nowhere: Path) -> None:
    with pytest.raises(InputError, match="leaves must not be empty; name at least one synset, such as n02084071"):
        wordnet([])
    for leaf in ("dog", "n2084071", "v00001740", "run.v.01", "dog.n.00", 2084071):
        with pytest.raises(InputError, match=f"leaves must be nouns such as n02084071 or dog.n.01, got {leaf!r}"):
            wordnet([leaf])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"leaves 'n02084071' and 'dog.n.01' are the same synset; drop one"):
        wordnet(["n02084071", "dog.n.01"])


@pytest.mark.parametrize("leaf", ["n99999999", "n00000003", "n02084072", "dog.n.02", "widget.n.02"])
def test_an_unknown_synset_is_named(nowhere: Path, leaf: str) -> None:
    write_wordnet(nowhere, TINY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("default", ResourceWarning)  # of what other tests of this process left to the collector
        with pytest.raises(InputError, match=f"WordNet 3.0 has no noun {leaf!r}; check the identifier"):
            wordnet([leaf, "widget.n.01"])


def test_the_shipped_part_is_that_of_the_whole(whole: Any) -> None:
    for wnid, (name, parents) in shipped().items():
        synset = whole.synset_from_pos_and_offset("n", int(wnid[1:]))
        assert synset.name() == name
        assert {f"n{above.offset():08d}" for above in synset.hypernyms() + synset.instance_hypernyms()} == set(parents)


def test_no_noun_of_the_whole_is_deeper(whole: Any) -> None:
    # Out of the file itself, for NLTK takes long over 82,115 synsets.
    with whole.open("data.noun") as file:
        lines = [line for line in file.read().splitlines() if not line.startswith("  ")]
    links = {line[:8]: re.findall(r" @i? (\d{8}) n ", line.split(" | ")[0]) for line in lines}
    taxonomy = Taxonomy(links)
    assert len(links) == 82115
    assert max(map(taxonomy.max_depth.__getitem__, links)) == NOUN_DEPTH
    assert taxonomy.roots == ["00001740"]


def test_measures_on_nouns_of_the_whole_are_those_of_nltk(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    words = rng.choice(sorted(whole.all_lemma_names("n")), 30, replace=False)
    chosen = list({synset.offset(): synset for word in words for synset in whole.synsets(word, "n")[:1]}.values())
    leaves = [f"n{synset.offset():08d}" for synset in chosen]
    taxonomy = wordnet(leaves)
    counts = rng.integers(1, 20, len(leaves)).tolist()
    monkeypatch.setitem(whole._max_depth, ("n", False), NOUN_DEPTH)  # which NLTK would find as the test above does
    for measure in MEASURES:
        expected = nltk_similarity(chosen, measure, counts)
        np.testing.assert_allclose(taxonomy.similarity(leaves, measure, counts), expected, rtol=1e-12, atol=1e-14)
