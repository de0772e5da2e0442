"""Is-a hierarchies of classes: WordNet or a tree from a file, distances within them, trees over chosen classes."""

from losskernel.data.taxonomy.files import read_taxonomy
from losskernel.data.taxonomy.similarity import MEASURES
from losskernel.data.taxonomy.taxonomy import Taxonomy
from losskernel.data.taxonomy.tree import Tree
from losskernel.data.taxonomy.wordnet import wordnet

__all__ = ["MEASURES", "Taxonomy", "Tree", "read_taxonomy", "wordnet"]
