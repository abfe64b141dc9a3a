"""The mathematics of rollout allocation and advantage modulation, as pure functions of arrays.

Nothing here reads files, keeps global state or knows a trainer. `softmax`, `entropy_change`, `advantages`,
`modulation`, `losses`, `token_selection` and `aggregation` are written against the Python array API and take NumPy
arrays and torch tensors alike; `allocation`, `rules`, `history`, `moments`, `passk` and `intervals` use NumPy and SciPy
only. None of them loads torch by itself. `methods` names every method of the paper as data, `claims` judges what the
paper says.

Equation numbers are those of DynaMO (arXiv 2602.19208).
"""

from __future__ import annotations

__version__ = "0.1.0"
