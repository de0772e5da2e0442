"""The loss kernel: estimators, error bars, diagnosis."""

import lazy_loader as lazy

# Each name is imported when it is first used: the diagnosis' tables need no traces.
__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
