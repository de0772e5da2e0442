"""Scores of mislabelled samples by established methods: one number per probe, [N, 1], higher = more suspicious.

Each score is called with the network and the data, those that look back at training with its history as well. The class
of a probe is its target, the label as given.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
