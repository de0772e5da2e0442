"""Metric spaces whose points are kernels over the same inputs: how far apart are two representations?"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
