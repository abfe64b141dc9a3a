"""One token under one policy: what a softmax knows of it, and how an update moves the entropy."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
