"""NLTK's own code on any taxonomy, and small hierarchies, that several tests share."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from nltk.corpus.reader.wordnet import Synset

from losskernel.data.taxonomy import Taxonomy, Tree

# Small enough to work by hand. Two ways lead from the dog up to the animal.
PETS: dict[str, list[str]] = {
    "thing": [],
    "animal": ["thing"],
    "stone": ["thing"],
    "pet": ["animal"],
    "mammal": ["animal"],
    "bird": ["animal"],
    "carnivore": ["mammal"],
    "dog": ["pet", "carnivore"],
    "cat": ["carnivore"],
    "hen": ["bird"],
}


def random_parents(rng: np.random.Generator, nodes: int) -> dict[str, list[str]]:
    """A rooted graph in which every node has one to three parents; listed by name, as NLTK sorts."""
    names = [f"n{number:03d}" for number in rng.permutation(nodes)]
    parents: dict[str, list[str]] = {names[0]: []}
    for number in range(1, nodes):
        count = min(number, int(rng.choice([1, 1, 1, 2, 3])))
        parents[names[number]] = [names[parent] for parent in rng.choice(number, count, replace=False)]
    return dict(sorted(parents.items()))


def random_tree(rng: np.random.Generator, leaves: int) -> Tree:
    """Two to four of the nodes without parent are joined until one is left; numbered as they come."""
    free, parents, count = list(range(leaves)), {}, leaves
    while len(free) > 1:
        size = min(len(free), int(rng.integers(2, 5)))
        for node in rng.choice(free, size, replace=False).tolist():
            free.remove(node)
            parents[node] = count
        free.append(count)
        count += 1
    ids = tuple(map(str, range(count)))
    return Tree(ids, ids, np.array([parents.get(node, -1) for node in range(count)]))


def synsets(taxonomy: Taxonomy, depth: int) -> dict[str, Synset]:
    """NLTK's synsets for the nodes of a taxonomy of that depth, without files behind them."""
    number = {node: offset for offset, node in enumerate(list(taxonomy.parents), start=1)}
    found: dict[str, Synset] = {}
    reader = SimpleNamespace(
        synset_from_pos_and_offset=lambda _, offset: found[list(taxonomy.parents)[offset - 1]],
        get_version=lambda: "3.0",
        _max_depth={("n", False): depth},
    )
    for node, offset in number.items():
        found[node] = Synset(reader)
        found[node]._pos, found[node]._offset, found[node]._name = "n", offset, node
        found[node]._pointers["@"] = {("n", number[parent]) for parent in taxonomy.parents[node]}
    return found


def nltk_similarity(chosen: Sequence[Synset], measure: str, counts: Sequence[int]) -> np.ndarray:
    """What NLTK's own code says of all pairs [G, G]; information content from the counts of the chosen."""
    content: Mapping[str, defaultdict[int, float]] = {"n": defaultdict(float)}
    content["n"][0] = sum(counts)  # where NLTK keeps the total: no synset has offset 0
    for synset, count in zip(chosen, counts, strict=True):
        for above in synset.common_hypernyms(synset):
            content["n"][above.offset()] += count
    calls = {
        "path": lambda a, b: a.path_similarity(b),
        "wu_palmer": lambda a, b: a.wup_similarity(b),
        "leacock_chodorow": lambda a, b: a.lch_similarity(b),
        "lca_depth": lambda a, b: a.lowest_common_hypernyms(b, use_min_depth=True)[0].min_depth(),
        "resnik": lambda a, b: a.res_similarity(b, content),
        # NLTK divides 0 by 0 for a synset that is above all the chosen, with itself.
        "lin": lambda a, b: 1.0 if a is b else a.lin_similarity(b, content),
    }
    return np.array([[calls[measure](a, b) for b in chosen] for a in chosen])


def write_wordnet(folder: Path, nouns: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, str]:
    """Write a WordNet of a few nouns where NLTK looks for it below `folder`; return the wnid of each.

    nouns: lemma -> pairs of a pointer ("@" kind of, "@i" instance of) and the lemma that it points at.
    """
    corpus = folder / "corpora" / "wordnet"
    corpus.mkdir(parents=True)
    header = "  1 WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved.  \n"
    for part in ("adj", "adv", "verb"):
        for name in (f"data.{part}", f"index.{part}", f"{part}.exc"):
            (corpus / name).write_text(header if name.startswith("data") else "")
    for name in ("noun.exc", "cntlist.rev", "index.sense"):
        (corpus / name).write_text("")
    lexnames = ["adj.all\t3", "adj.pert\t3", "adv.all\t4", "noun.Tops\t1"]
    (corpus / "lexnames").write_text("".join(f"{number:02d}\t{line}\n" for number, line in enumerate(lexnames)))
    offsets = dict.fromkeys(nouns, 0)
    for _ in range(2):  # a line's length does not depend on the offsets in it
        data, index = header, ""
        for lemma, pointers in nouns.items():
            offsets[lemma] = len(data)
            links = "".join(f"{symbol} {offsets[target]:08d} n 0000 " for symbol, target in pointers)
            data += f"{offsets[lemma]:08d} 03 n 01 {lemma} 0 {len(pointers):03d} {links}| some gloss  \n"
            symbols = "".join(f"{symbol} " for symbol, _ in pointers)
            index += f"{lemma} n 1 {len(pointers)} {symbols}1 0 {offsets[lemma]:08d}  \n"
    (corpus / "data.noun").write_text(data)
    (corpus / "index.noun").write_text(index)
    return {lemma: f"n{offset:08d}" for lemma, offset in offsets.items()}
