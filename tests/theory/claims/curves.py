"""Summaries of the curves of the ledger: `python -m tests.theory.claims.curves` writes those of the code as it is.

They say that a curve is the one that was drawn before, and not that it is right. That is for the row's verdict.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from theory.claims import LEDGER
from theory.claims.ledger import Finding

RECORDED = Path(__file__).with_suffix(".json")


def summary(finding: Finding) -> dict[str, Any]:
    """Return what identifies each column: the words in it, or mean, mean square and mean product with the place."""
    found: dict[str, Any] = {}
    for name, column in finding.data.items():
        x = np.asarray(column)
        if x.dtype.kind in "fiub":
            x = x.astype(np.float64)
            place = np.arange(1, x.size + 1) / x.size
            found[name] = [x.size, *(float(np.mean(y)) for y in (x, x**2, x * place))]
        else:
            found[name] = [x.size, *sorted(set(map(str, x.tolist())))]
    return found


if __name__ == "__main__":
    curves = {row.id: curve for row in LEDGER if (curve := summary(row.judge()))}
    lines = (f"{json.dumps(name)}: {json.dumps(curve)}" for name, curve in curves.items())
    RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
