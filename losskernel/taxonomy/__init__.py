"""Is-a hierarchies of classes: WordNet or a tree from a file, distances within them, trees over chosen classes."""

from losskernel.taxonomy.files import read_taxonomy
from losskernel.taxonomy.graph import Taxonomy
from losskernel.taxonomy.measures import MEASURES
from losskernel.taxonomy.tree import Tree
from losskernel.taxonomy.wordnet import wordnet

__all__ = ["MEASURES", "Taxonomy", "Tree", "read_taxonomy", "wordnet"]
