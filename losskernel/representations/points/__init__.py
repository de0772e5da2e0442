"""Named points of a run in one space: inputs, layers, labels and loss kernels over the same probes."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
