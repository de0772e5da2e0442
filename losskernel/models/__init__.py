"""Networks as plain nn.Module factories, loaded when first used; any other importable nn.Module works as well."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
