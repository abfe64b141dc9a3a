"""How a budget is divided: rules and optima, what is known of a prompt, and what a rule would have changed in a log."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
