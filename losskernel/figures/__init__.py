"""Figures of a loss kernel: arrays in, a matplotlib or plotly figure out; nothing is shown or saved here."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
