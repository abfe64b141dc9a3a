"""Is a response right? The answer in it, Math-Verify's judgement in time, and the reward."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
