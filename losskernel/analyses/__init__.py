"""Analyses: one question per file, each a frozen dataclass called on (kernel, traces) -> Result."""

import lazy_loader as lazy

# Each name is imported when it is first used: one analysis does not load the libraries of the others.
__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
