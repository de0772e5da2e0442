"""Is-a hierarchies of classes: WordNet or a tree from a file, distances within them, trees over chosen classes."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
