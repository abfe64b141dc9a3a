"""The mathematics of rollout allocation and advantage modulation, as pure functions of arrays.

The chapters, in the order in which they build on each other; each hands on its public names:

- `base`: checks of arguments, types of arrays, tables as text, and the folder of a run, the only input and output;
- `policy`: one token under one policy: log-probability, entropy, score norm, and how an update changes the entropy;
- `estimators`: what a group of n rollouts estimates: advantages, exact moments of the gradient, expected progress;
- `statistics`: how a comparison is judged: paired gains, intervals, pass@k;
- `allocation`: how a budget of rollouts is divided: optima, rules, histories, and the replay of a log;
- `losses`: how tokens are learnt from: policy losses, selection, aggregation, modulation;
- `methods`: every method of the paper as data, and what its tables compare and its figures vary;
- `claims`: the ledger, which judges what the paper says: `python -m theory`.

`policy`, `losses` and the advantages are written against the Python array API: they take NumPy arrays and torch
tensors alike and keep the dtype, and on torch policies and losses are differentiable. The rest uses NumPy and SciPy.
Nothing here loads torch by itself, except where `claims` differentiates.

Equation numbers are those of DynaMO (arXiv 2602.19208).
"""

from __future__ import annotations

__version__ = "0.1.0"
