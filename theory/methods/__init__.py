"""Every method as data, and the grid of the paper's experiments: what its tables compare and its figures vary."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
