from .readers import read_taxonomy as read_taxonomy
from .readers import wordnet as wordnet
from .similarity import MEASURES as MEASURES
from .taxonomy import Taxonomy as Taxonomy
from .taxonomy import Tree as Tree

__all__ = [
    "MEASURES",
    "Taxonomy",
    "Tree",
    "read_taxonomy",
    "wordnet",
]
