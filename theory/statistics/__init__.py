"""How a comparison is judged: gains within seeds, intervals over runs and problems, and pass@k."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
