"""Activations of a network's layers on the probes, as points of a space of representations."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
