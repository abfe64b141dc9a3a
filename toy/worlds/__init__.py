"""Worlds: what is right in which state of a table of logits, and the populations that worlds are drawn from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
