"""While a run goes on: its supervisor, the reports of its processes, and the lines that it leaves behind."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
