"""Advantages from the rewards of ragged groups: one row per rollout, one key per row that names its prompt.

Rows come in any order and groups in any size; only keys decide which rows belong together. The conventions:

- A group whose rewards are all equal has advantages of exactly 0, whatever rounding does to its mean. `reinforce` and
  `w_reinforce` compare nothing and are exceptions.
- A group of one has advantage 0 too. verl gives it its own reward; `grpo` does so with `singleton="reward"`.
- `grpo` divides by the sample standard deviation plus 1e-6, as verl does. Theory uses `normalize="population"` and
  `epsilon=0`, for which `theory.estimators.moments` has closed forms.
- Rewards are sorted before they are summed, so the order of rows does not change even the rounding. On a GPU this
  needs torch's deterministic algorithms.
- All is computed in float64, from the distances to the group's least reward, and rounded once to the dtype of the
  rewards. So a large offset that all rewards share costs nothing, nor do groups of thousands in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import array_api_compat
import numpy as np

from theory.base import require
from theory.base.arrays import Array, clip, group_index, segment_sum


def grpo(
    rewards: Array,
    groups: Array,
    *,
    normalize: Literal["sample", "population"] | None = "sample",
    epsilon: float = 1e-6,
    singleton: Literal["zero", "reward"] = "zero",
) -> Array:
    """Group-relative advantages, normalised by the group's standard deviation (GRPO, arXiv 2402.03300).

    A = (R - mean) / (std + epsilon).

    Parameters
    ----------
    rewards : R, [N], floating, N >= 1.
    groups : Key of each row's group, [N]: integers, or strings on NumPy.
    normalize : "sample": standard deviation with n - 1, as in verl. "population": with n. None: no division, as in
        Dr.GRPO.
    epsilon : Added to the standard deviation, >= 0; 0 makes the advantages invariant to the scale of rewards.
    singleton : Advantage of a group of one: "zero", or "reward" as in verl, which takes mean 0 and standard deviation
        1.

    Returns
    -------
    Array : A, [N]; sums to 0 in every group, exactly 0 where all rewards of the group are equal.

    Examples
    --------
    >>> rewards, groups = np.array([1.0, 1.0, 0.0, 0.0, 1.0]), np.array(["a", "b", "a", "a", "b"])
    >>> grpo(rewards, groups).round(3).tolist()
    [1.155, 0.0, -0.577, -0.577, 0.0]
    >>> grpo(rewards, groups, normalize="population", epsilon=0.0).round(3).tolist()
    [1.414, 0.0, -0.707, -0.707, 0.0]
    """
    require.one_of("normalize", normalize, ("sample", "population", None))
    require.one_of("singleton", singleton, ("zero", "reward"))
    epsilon = require.in_range("epsilon", epsilon, 0.0)
    xp, group = _group(rewards, groups)
    if normalize is None:
        advantages = group.deviation * group.unit
        raw = group.rewards
    else:
        num_free = group.size - 1 if normalize == "sample" else group.size
        std = xp.sqrt(xp.where(group.squares > 0, group.squares / clip(num_free, 1, None), xp.ones_like(group.unit)))
        with np.errstate(over="ignore"):  # A spread far below epsilon: the advantage is 0.
            advantages = group.deviation / (std + epsilon / group.unit)
        raw = group.rewards / (1 + epsilon)
    if singleton == "reward":
        advantages = xp.where(group.size == 1, raw, advantages)
    return xp.astype(advantages, rewards.dtype)


def dr_grpo(rewards: Array, groups: Array) -> Array:
    """Group-relative advantages without normalisation (Dr.GRPO, arXiv 2503.20783).

    A = R - mean. Arguments and result as in `grpo`.

    Examples
    --------
    >>> dr_grpo(np.array([1.0, 0.0, 1.0]), np.array([7, 7, 3])).tolist()
    [0.5, -0.5, 0.0]
    """
    xp, group = _group(rewards, groups)
    return xp.astype(group.deviation * group.unit, rewards.dtype)


def rloo(rewards: Array, groups: Array) -> Array:
    """Advantages over the mean of the other rewards of the group (leave-one-out, arXiv 2402.14740).

    A_j = R_j - mean_{i != j} R_i = n / (n - 1) (R_j - mean); 0 in a group of one. Arguments and result as in `grpo`.

    Examples
    --------
    >>> rloo(np.array([1.0, 0.0, 0.0]), np.array([7, 7, 7])).tolist()
    [1.0, -0.5, -0.5]
    """
    xp, group = _group(rewards, groups)
    leave_one_out = group.size / clip(group.size - 1, 1, None)
    with np.errstate(over="ignore"):
        advantages = xp.astype(group.deviation * leave_one_out * group.unit, rewards.dtype)
    require.representable(xp, rewards=advantages)
    return advantages


def reinforce(rewards: Array, groups: Array) -> Array:
    """Rewards as advantages, without a baseline (REINFORCE).

    A = R. Arguments as in `grpo`; the groups are checked, but have no effect.

    Returns
    -------
    Array : The rewards, [N].

    Examples
    --------
    >>> reinforce(np.array([1.0, 0.0]), np.array([7, 7])).tolist()
    [1.0, 0.0]
    """
    _check(rewards, groups)
    return rewards


def maxrl(rewards: Array, groups: Array) -> Array:
    """Group-relative advantages over the group's mean reward (MaxRL, arXiv 2602.02710).

    A = (R - mean) / mean; 0 where the mean is 0. Arguments as in `grpo`, with R >= 0.

    Returns
    -------
    Array : A, [N], in [-1, n - 1], whatever the scale of rewards; sums to 0 in every group.

    Examples
    --------
    >>> maxrl(np.array([1.0, 0.0, 0.0, 0.0, 0.0]), np.array([7, 7, 7, 7, 3])).tolist()
    [3.0, -1.0, -1.0, -1.0, 0.0]
    """
    xp, group = _group(rewards, groups)
    require.values("rewards", rewards, "values >= 0", lambda x: x >= 0)
    varies, one = group.squares > 0, xp.ones_like(group.high)
    high = xp.where(varies, group.high, one)
    unit = group.unit / high
    mean = xp.where(varies, group.low / high + group.mean * unit, one)  # of R / high, at least 1 / n
    return xp.astype(group.deviation * unit / mean, rewards.dtype)


@dataclass(frozen=True)
class WReinforce:
    """Configuration of `w_reinforce`: `weight` for a correct response, -1 for a wrong one."""

    weight: float = 0.1

    def __post_init__(self) -> None:
        require.in_range("weight", self.weight, 0.0)


def w_reinforce(correct: Array, weight: float = 0.1, *, dtype: Any = None) -> Array:
    """Weighted REINFORCE: learn little from correct responses, fully from wrong ones (arXiv 2506.01347).

    A = weight for a correct response, -1 for a wrong one; weight = 1 is REINFORCE with rewards +1 and -1. It takes
    correctness, not rewards, so a wrong response may score 0 or -1.

    Parameters
    ----------
    correct : True where the response is correct, [...], boolean.
    weight : lambda >= 0; the paper recommends 0.1.
    dtype : float32 or float64 of the array library; None is its default.

    Returns
    -------
    Array : A, [...]. No group mean is taken: groups that are all correct or all wrong count too.

    Examples
    --------
    >>> w_reinforce(np.array([True, False])).tolist()
    [0.1, -1.0]
    """
    correct = np.asarray(correct) if isinstance(correct, bool) else correct
    xp = require.namespace(correct=correct)
    require.boolean(xp, correct=correct)
    weight = require.in_range("weight", weight, 0.0)
    require.one_of("dtype", dtype, (None, xp.float32, xp.float64))
    device = array_api_compat.device(correct)
    with np.errstate(over="ignore"):
        advantages = xp.where(
            correct, xp.asarray(weight, dtype=dtype, device=device), xp.asarray(-1.0, dtype=dtype, device=device)
        )
    require.representable(xp, weight=advantages)
    return advantages


ADVANTAGES: Mapping[str, Callable[[Array, Array], Array]] = MappingProxyType(
    {"grpo": grpo, "dr_grpo": dr_grpo, "rloo": rloo, "reinforce": reinforce, "maxrl": maxrl}
)
"""Advantages of (rewards, groups) with default options, by name; `grpo` is `grpo_sample` of `ESTIMATORS`."""


class _Groups(NamedTuple):
    """What each row needs to know of its group; all fields [N], float64.

    low, high: the extreme rewards; unit: the largest power of two up to high - low, 1 where that is 0; size: number of
    rows; mean: (mean - low) / unit, in [0, 2); deviation: (R - mean) / unit; squares: sum of the squared deviations.
    The last three are 0 where all rewards are equal.
    """

    rewards: Array
    low: Array
    high: Array
    unit: Array
    size: Array
    mean: Array
    deviation: Array
    squares: Array


def _check(rewards: Array, groups: Array) -> Any:
    xp = require.namespace(rewards=rewards, groups=groups)
    require.finite(xp, rewards=rewards)
    if rewards.ndim != 1 or rewards.shape[0] == 0:
        raise ValueError(f"rewards: expected a non-empty 1-D array, got shape {tuple(rewards.shape)}")
    require.same_shape(rewards=rewards, groups=groups)
    if not (array_api_compat.is_numpy_array(groups) and groups.dtype.kind in "USO"):
        require.integer(xp, groups=groups)
    return xp


def _group(rewards: Array, groups: Array) -> tuple[Any, _Groups]:
    """Return the array namespace, and what the rows of each group have in common."""
    xp = _check(rewards, groups)
    try:
        index = group_index(xp, groups)
    except TypeError as error:
        raise ValueError(f"groups: expected keys that can be sorted, got {error}") from error
    dtype, last = rewards.dtype, index.shape[0] - 1  # there may be as many groups as rows
    order = xp.argsort(rewards, stable=True)
    order = order[xp.argsort(index[order], stable=True)]  # by group, then by reward
    size = segment_sum(xp, xp.ones_like(index), index, last + 1)
    end = xp.cumulative_sum(size)
    rewards = xp.astype(rewards, xp.float64)
    low, high = rewards[order[clip(end - size, 0, last)]][index], rewards[order[end - 1]][index]
    size = xp.astype(size, xp.float64)[index]
    with np.errstate(over="ignore"):
        spread = high - low
        require.representable(xp, rewards=xp.astype(spread, dtype))
    # Over a power of two, which changes no digit, rewards of any size have squares that neither overflow nor underflow.
    spread = xp.where(spread > 0, spread, xp.ones_like(spread))
    unit = spread / (2 * xp.frexp(spread)[0])
    position = (rewards - low) / unit

    def group_sum(x: Array) -> Array:
        return segment_sum(xp, x[order], index[order], last + 1)[index]

    mean = group_sum(position) / size
    deviation = position - mean
    return xp, _Groups(rewards, low, high, unit, size, mean, deviation, group_sum(deviation * deviation))
