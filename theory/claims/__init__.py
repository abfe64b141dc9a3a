"""The ledger: every claim of the paper, judged by computation.

One module per appendix, one function per row; `LEDGER` holds the rows in order and `python -m theory` prints them.
"""

from __future__ import annotations

from theory.claims import allocation, entropy_change, gradient_norm, modulation, published
from theory.claims.ledger import Claim

LEDGER: tuple[Claim, ...] = (
    *entropy_change.CLAIMS,
    *gradient_norm.CLAIMS,
    *allocation.CLAIMS,
    *modulation.CLAIMS,
    *published.CLAIMS,
)
