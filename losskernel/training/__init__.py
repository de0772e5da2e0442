"""Training of a network before its weights are sampled: fit() and its settings; loaded when first used."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
