"""Before a run starts: its configuration, what is wrong with it, what it needs, and the process that it runs in."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
