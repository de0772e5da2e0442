"""Sources of points: layers of a network, its targets, kernels in closed form and further sampled loss kernels."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
