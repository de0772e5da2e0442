"""Other representations of the probes and reference measurements, to compare a loss kernel with."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
