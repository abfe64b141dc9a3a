"""The rows of the ledger, in order."""

from __future__ import annotations

from theory.claims import allocation, entropy_change, estimators, gradient_norm, modulation, published
from theory.claims.ledger import Claim

SECTIONS = "SGAMT"
"""First letters of ids in order: entropy change, score norm (gradient), allocation, modulation, tables."""

LEDGER: tuple[Claim, ...] = tuple(
    sorted(
        (
            *entropy_change.CLAIMS,
            *gradient_norm.CLAIMS,
            *allocation.CLAIMS,
            *estimators.CLAIMS,
            *modulation.CLAIMS,
            *published.CLAIMS,
        ),
        key=lambda row: (SECTIONS.index(row.id[0]), int(row.id[1:])),
    )
)
