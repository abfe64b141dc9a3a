"""The rows of the ledger, in order."""

from __future__ import annotations

from theory.claims import (
    allocation,
    entropy_change,
    estimators,
    gradient_norm,
    learning,
    modulation,
    objective,
    published,
    variance_reduction,
)
from theory.claims.ledger import Claim

SECTIONS = "SGAMT"
"""First letters of ids in order: entropy change, score norm (gradient), allocation, modulation, tables."""

LEDGER: tuple[Claim, ...] = tuple(
    sorted(
        (
            row
            for module in (
                entropy_change,
                gradient_norm,
                allocation,
                estimators,
                learning,
                modulation,
                objective,
                published,
                variance_reduction,
            )
            for row in vars(module).values()
            if isinstance(row, Claim)
        ),
        key=lambda row: (SECTIONS.index(row.id[0]), int(row.id[1:])),
    )
)
