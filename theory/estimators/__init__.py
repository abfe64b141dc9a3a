"""What a group of rollouts estimates: advantages, exact moments of the gradient, and expected progress."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
