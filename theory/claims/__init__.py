"""The ledger: claims of the paper, of its public code and of others, judged by computation.

One module per appendix or matter, one function per row; `LEDGER` holds the rows in the order of their ids, and
`python -m theory` prints them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
