"""Data sets, each a function that returns Data, and wrappers, Data -> Data; loaded when first used."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
