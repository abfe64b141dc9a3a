"""What a log of rollouts can say of allocations that were not made: replay, unbiased estimates, intervals.

A log has groups: at step t prompt i got n rollouts, of which k were correct. A rule is replayed by giving it what was
known before each step (`past_counts`, `replay`), and its m rollouts are judged by that step's own (k, n). As long as n
was fixed before the rewards of the step were seen, k is a binomial draw given the past, so that an unbiased estimate
from (k, n) stays unbiased after multiplication by whatever the rule made of the past. Judging by success rates that
are pooled over the log, or that the rule has seen, does not: a rule then profits from the noise it has adapted to.

p is the success rate of the group's prompt under the policy of the group's step, q = 1 - p.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import betaincinv

from theory.allocation.bounds import MAX_BUDGET
from theory.allocation.rules import Allocator
from theory.allocation.variance import bernoulli_variance
from theory.base import require
from theory.base.arrays import FloatArray, IntArray
from theory.estimators.moments import implied_weight
from theory.statistics.intervals import LARGEST, Interval
from theory.statistics.passk import pass_at_k

ESTIMATORS = ("exact-baseline", "rloo", "grpo")
"""Advantages whose noise `noise_bounds` knows: (R - p), leave-one-out, and standardised by the group."""

MAX_CLUSTERS = 4096
"""Clusters that are resampled one by one; more are pooled at random into as many."""


def past_counts(
    steps: Any, prompts: Any, successes: Any, attempts: Any, discount: float = 1.0
) -> tuple[FloatArray, FloatArray]:
    """Successes and attempts of each group's prompt before the group's step: what `SuccessHistory` would have known.

    (K, G) <- discount (K, G) + (k, n) at each visit of the prompt, read before the visit.

    Parameters
    ----------
    steps, prompts
        Integers >= 0, [G], in any order; a prompt has at most one group per step.
    successes, attempts
        k and n of each group, integers, [G], 0 <= k <= n.
    discount
        Factor on old counts, in [0, 1].

    Returns
    -------
    tuple of FloatArray
        K and G, each [G]; 0 at a prompt's first visit.

    Raises
    ------
    ValueError
        If lengths differ, values are out of range, or a step has a prompt twice.

    Examples
    --------
    >>> past_counts([1, 1, 2], [0, 1, 0], [3, 0, 4], [4, 4, 4])
    (array([0., 0., 3.]), array([0., 0., 4.]))
    """
    t, i = _rows("steps", steps), _rows("prompts", prompts)
    k, n = _groups(successes, attempts, 0)
    require.same_shape(attempts=n, steps=t, prompts=i)
    discount = require.in_range("discount", discount, 0.0, 1.0)
    order = np.lexsort((i, t))
    same = (np.diff(t[order]) == 0) & (np.diff(i[order]) == 0)
    if same.any():
        at = order[int(np.argmax(same))]
        raise ValueError(f"prompts: expected a prompt once per step, got {i[at]} twice in step {t[at]}")
    _, i = np.unique(i, return_inverse=True)
    new = np.stack([k, n]).astype(np.float64)
    past, counts = np.zeros(new.shape), np.zeros((2, int(i.max()) + 1))
    for rows in _by_step(t, order):
        past[:, rows] = counts[:, i[rows]]
        counts[:, i[rows]] = discount * past[:, rows] + new[:, rows]
    return past[0], past[1]


def replay(
    rule: Allocator,
    steps: Any,
    past_successes: Any,
    past_attempts: Any,
    attempts: Any,
    low: int,
    high: int,
    rng: np.random.Generator,
) -> IntArray:
    """Rollouts that a rule would have given to each group, at the cost of each step in the log.

    Parameters
    ----------
    rule
        A rule that decides before the first rollout. One in rounds cannot be replayed: it asks for outcomes of the step
        itself, more of them than the log may hold, and the group it stops at would judge itself.
    steps
        Integers >= 0, [G].
    past_successes, past_attempts
        What was known of each group's prompt before, [G]: `past_counts`.
    attempts
        Rollouts of the log, integers >= 1, [G]; their sum over a step is the rule's budget.
    low, high
        Bounds on a prompt's rollouts.
    rng
        For rules that draw.

    Returns
    -------
    IntArray
        Counts, [G]; the sum over each step is the log's.

    Raises
    ------
    ValueError
        If the rule spends in rounds, a step's budget does not fit the bounds, or the rule or its arguments are wrong.

    Examples
    --------
    >>> from theory.allocation.rules import Neyman
    >>> rng = np.random.default_rng(0)
    >>> replay(Neyman(), [1, 1, 1], [0, 4, 1], [8, 8, 8], [6, 6, 6], 3, 9, rng).tolist()
    [3, 9, 6]
    """
    if not hasattr(rule, "allocate") or rule.in_rounds:
        raise ValueError(f"rule: expected one that decides before the first rollout, got {getattr(rule, 'name', rule)}")
    t, n = _rows("steps", steps), _integers("attempts", attempts, 1)
    k, g = require.vector("past_successes", past_successes), require.vector("past_attempts", past_attempts)
    require.same_shape(steps=t, attempts=n, past_successes=k, past_attempts=g)
    counts = np.zeros(n.size, dtype=np.int64)
    for rows in _by_step(t, np.argsort(t, kind="stable")):
        try:
            counts[rows] = rule.allocate(k[rows], g[rows], int(n[rows].sum()), low, high, rng)
        except ValueError as error:
            raise ValueError(f"{error} (step {t[rows[0]]})") from error
    return counts


def degenerate_bounds(successes: Any, attempts: Any, sizes: Any) -> tuple[FloatArray, FloatArray]:
    """Unbiased estimates of two bounds on the probability that a group of m rollouts is all right or all wrong.

    p^m + q^m. For m <= n it has an unbiased estimate from k of n, C(k, m) / C(n, m) + C(n-k, m) / C(n, m), and both
    bounds are it. For m > n it has none; the bounds are then polynomials of degree n, which have,

        p^n - (m - n) p^(n-1) q  <=  p^m  <=  p^n,   estimated by [k = n] - (m-n)/n [k = n-1]  and  [k = n],

    (Bernoulli's inequality p^(m-n+1) >= 1 - (m-n+1) q, times p^(n-1)), and likewise for q. Ours.

    Parameters
    ----------
    successes, attempts
        k and n, integers, [G], 0 <= k <= n, n >= 1.
    sizes
        m, integers >= 1, [G].

    Returns
    -------
    tuple of FloatArray
        The lower and the upper one, each [G]. A single estimate may be below 0; its expectation bounds a probability.

    Raises
    ------
    ValueError
        If lengths differ or values are out of range.

    Examples
    --------
    >>> [x.round(3).tolist() for x in degenerate_bounds([4, 3, 3, 2], [4, 4, 4, 4], [6, 6, 2, 2])]
    [[1.0, -0.5, 0.5, 0.333], [1.0, 0.0, 0.5, 0.333]]
    """
    k, n = _groups(successes, attempts, 1)
    m = _integers("sizes", sizes, 1)
    require.same_shape(attempts=n, sizes=m)
    (k, n, m), where = _distinct(k, n, m)
    within = np.minimum(m, n)
    high = 2 - pass_at_k(n, k, within) - pass_at_k(n, n - k, within)
    low = high - np.maximum(m - n, 0) / n * ((k == n - 1).astype(np.float64) + (k == 1))
    return low[where], high[where]


def noise_bounds(successes: Any, attempts: Any, sizes: Any, estimator: str) -> tuple[FloatArray, FloatArray]:
    """Unbiased estimates of two bounds on a group's gradient noise, in units of the squared score norm.

    E[sum_j A_j^2] / m^2: the trace of the covariance of (1/m) sum_j A_j s_j if the scores s_j of all responses have one
    length and those of different rollouts are orthogonal, the limit of many, diffuse answers in
    `theory.estimators.moments`.

        exact-baseline  A = R - p, p q / m           rloo  p q / (m - 1)
        grpo            (1 - p^m - q^m) / m, by `degenerate_bounds`: a degenerate group makes no noise, and no gradient

    p q is estimated by k (n - k) / (n (n - 1)), so that the bounds are one but for `grpo` with m > n.

    Parameters
    ----------
    successes, attempts
        k and n, integers, [G], 0 <= k <= n, n >= 2.
    sizes
        m, integers >= 2, [G].
    estimator
        One of `ESTIMATORS`.

    Returns
    -------
    tuple of FloatArray
        The lower and the upper one, each [G].

    Raises
    ------
    ValueError
        If lengths differ, values are out of range, or the estimator is unknown.

    Examples
    --------
    >>> [x.round(3).tolist() for x in noise_bounds([2, 4], [4, 4], [6, 6], "rloo")]
    [[0.067, 0.0], [0.067, 0.0]]
    """
    require.one_of("estimator", estimator, ESTIMATORS)
    k, n = _groups(successes, attempts, 2)
    m = _integers("sizes", sizes, 2)
    require.same_shape(attempts=n, sizes=m)
    if estimator == "grpo":
        least, most = degenerate_bounds(k, n, m)
        return (1 - most) / m, (1 - least) / m
    noise = bernoulli_variance(k, n) / (m if estimator == "exact-baseline" else m - 1)
    return noise, noise


def squared_change(successes: Any, attempts: Any, later_successes: Any, later_attempts: Any) -> FloatArray:
    """Unbiased estimate of the squared change of a success rate between two groups of a prompt.

    (k/n - k'/n')^2 - P/n - P'/n', with P = k (n-k) / (n (n-1)): the square of the difference, less its noise.

    Parameters
    ----------
    successes, attempts, later_successes, later_attempts
        k, n, k', n', integers, [V], 0 <= k <= n, n >= 2.

    Returns
    -------
    FloatArray
        [V]; a single estimate may be below 0.

    Raises
    ------
    ValueError
        If lengths differ or values are out of range.

    Examples
    --------
    >>> squared_change([0, 2], [4, 4], [4, 2], [4, 4]).round(3).tolist()
    [1.0, -0.167]
    """
    k, n = _groups(successes, attempts, 2)
    later, of = _groups(later_successes, later_attempts, 2)
    require.same_shape(attempts=n, later_attempts=of)
    noise = bernoulli_variance(k, n) / n + bernoulli_variance(later, of) / of
    return np.asarray((k / n - later / of) ** 2 - noise)


def implied_weights(successes: Any, attempts: Any, sizes: Any, estimator: str = "grpo") -> FloatArray:
    """Weight that a group of m rollouts gives to its prompt's own gradient, at a success rate estimated from k of n.

    w(p, m) of `theory.estimators.implied_weight` at the posterior mean p = (k + 1/2) / (n + 1). A plug-in, hence
    biased: use it for the difference between two sizes, as in `moved_weight`.

    Parameters
    ----------
    successes, attempts
        k and n, integers, [G], 0 <= k <= n, n >= 1.
    sizes
        m, integers in [1, 10000], [G].
    estimator
        One of `theory.estimators.ESTIMATORS`.

    Returns
    -------
    FloatArray
        w, [G].

    Raises
    ------
    ValueError
        If lengths differ, values are out of range, or the estimator is unknown.

    Examples
    --------
    >>> implied_weights([0, 8], [16, 16], [8, 8]).round(2).tolist()
    [2.54, 1.86]
    """
    k, n = _groups(successes, attempts, 1)
    m = _integers("sizes", sizes, 1)
    require.same_shape(attempts=n, sizes=m)
    if m.max() > 10_000:
        raise ValueError(f"sizes: expected at most 10000, got {m.max()}")
    (k, n, m), where = _distinct(k, n, m)
    return np.asarray(implied_weight((k + 0.5) / (n + 1), m, estimator)[where])


def moved_weight(steps: Any, weights: Any, reference: Any) -> FloatArray:
    """Share of a batch's weight that lies on other prompts than under the reference, step by step.

    (1/2) sum_i |w_i / sum w - r_i / sum r|, the total variation distance: 0 for proportional weights, 1 at most.

    Parameters
    ----------
    steps
        Integers >= 0, [G].
    weights, reference
        w and r, [G], in [0, 1e100], not all 0 in a step.

    Returns
    -------
    FloatArray
        [number of steps], in the order of the steps.

    Raises
    ------
    ValueError
        If lengths differ, values are out of range, or a step has no weight.

    Examples
    --------
    >>> moved_weight([1, 1, 2], [8, 24, 16], [16, 16, 16]).tolist()
    [0.25, 0.0]
    """
    t = _rows("steps", steps)
    w, r = (
        require.vector(name, x, low=0.0, high=1e100) for name, x in (("weights", weights), ("reference", reference))
    )
    require.same_shape(steps=t, weights=w, reference=r)
    _, at = np.unique(t, return_inverse=True)
    shares = []
    for name, x in (("weights", w), ("reference", r)):
        x = x / (x.max() or 1.0)
        total = np.bincount(at, weights=x)
        if not total.all():
            raise ValueError(f"{name}: expected a positive sum in every step, got 0")
        shares.append(x / total[at])
    return np.asarray(np.bincount(at, weights=np.abs(shares[0] - shares[1])) / 2)


def ratio_intervals(
    numerators: Any,
    denominators: Any,
    clusters: Any,
    rng: np.random.Generator,
    confidence: float = 0.95,
    num_resamples: int = 2000,
) -> Interval:
    """Percentile cluster-bootstrap intervals of ratios of sums.

    sum x / sum y, all rows of a cluster drawn together, with replacement. Ratios share the resamples. More than
    `MAX_CLUSTERS` clusters are first pooled at random into as many.

    Parameters
    ----------
    numerators, denominators
        x and y, [G, R] each, of size up to `theory.statistics.intervals.LARGEST`.
    clusters
        The cluster of each row (a prompt), integers >= 0, [G].
    rng
        The only source of randomness.
    confidence
        In (0, 1).
    num_resamples
        At least 1.

    Returns
    -------
    Interval
        Point, low and high, each [R]. 0/0 = 1; a resample without a positive denominator counts as 1 too.

    Raises
    ------
    ValueError
        If an argument is not as above, a sum of denominators is negative or, without the numerator's, 0, or a ratio is
        beyond float64.

    Examples
    --------
    >>> x, y = np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [4.0], [6.0]])
    >>> [float(end[0]) for end in ratio_intervals(x, y, [0, 1, 2], np.random.default_rng(0))]
    [0.5, 0.5, 0.5]
    """
    x, y = (
        require.numbers(name, values, low=-LARGEST, high=LARGEST)
        for name, values in (("numerators", numerators), ("denominators", denominators))
    )
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"numerators: expected shape [G, R], got {x.shape}")
    require.same_shape(numerators=x, denominators=y)
    groups = _rows("clusters", clusters)
    if groups.size != len(x):
        raise ValueError(f"clusters: expected one per row, {len(x)}, got {groups.size}")
    require.generator("rng", rng)
    if not 0 < require.in_range("confidence", confidence, 0.0, 1.0) < 1:
        raise ValueError(f"confidence: expected a number in (0, 1), got {confidence}")
    require.count("num_resamples", num_resamples, 1)
    _, cluster = np.unique(groups, return_inverse=True)
    num = int(cluster.max()) + 1
    if num > MAX_CLUSTERS:
        cluster, num = (rng.permutation(num) % MAX_CLUSTERS)[cluster], MAX_CLUSTERS
    # A common scale per ratio keeps sums of any number of rows in range.
    scale = np.maximum(np.abs(x).max(axis=0), np.abs(y).max(axis=0))
    both = np.concatenate([x, y], axis=1) / np.tile(np.where(scale > 0, scale, 1.0), 2)
    sums = np.stack([np.bincount(cluster, weights=column, minlength=num) for column in both.T], axis=1)
    top, bottom = np.split(sums.sum(axis=0), 2)
    if np.any(bottom < 0) or np.any((bottom == 0) & (top != 0)):
        raise ValueError(f"denominators: expected a positive sum, got {bottom.min()}")
    drawn = np.concatenate(
        [
            rng.multinomial(num, np.full(num, 1 / num), size=min(256, num_resamples - start)) @ sums
            for start in range(0, num_resamples, 256)
        ]
    )
    with np.errstate(over="ignore"):
        point, estimates = _ratio(top, bottom), _ratio(*np.split(drawn, 2, axis=1))
    if not (np.isfinite(point).all() and np.isfinite(estimates).all()):
        raise ValueError("denominators: expected ratios within float64, got an overflow")
    low, high = np.quantile(estimates, ((1 - confidence) / 2, (1 + confidence) / 2), axis=0)
    return Interval(point, low, high)


def jeffreys_interval(successes: Any, attempts: Any, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Jeffreys interval of a success rate (Brown, Cai, DasGupta, Statist. Sci. 2001).

    Equal-tailed quantiles of Beta(k + 1/2, n - k + 1/2); 0 below if k = 0, and 1 above if k = n.

    Parameters
    ----------
    successes, attempts
        k and n, integers, [G], 0 <= k <= n, n >= 1.
    confidence
        In (0, 1).

    Returns
    -------
    tuple of FloatArray
        The lower and the upper end, each [G].

    Raises
    ------
    ValueError
        If lengths differ or values are out of range.

    Examples
    --------
    >>> [x.round(3).tolist() for x in jeffreys_interval([0, 8], [16, 16])]
    [[0.0, 0.272], [0.143, 0.728]]
    """
    k, n = _groups(successes, attempts, 1)
    if not 0 < require.in_range("confidence", confidence, 0.0, 1.0) < 1:
        raise ValueError(f"confidence: expected a number in (0, 1), got {confidence}")
    tail = (1 - confidence) / 2
    (k, n), where = _distinct(k, n)
    low = np.where(k > 0, betaincinv(k + 0.5, n - k + 0.5, tail), 0.0)
    high = np.where(k < n, betaincinv(k + 0.5, n - k + 0.5, 1 - tail), 1.0)
    return low[where], high[where]


def _distinct(*columns: IntArray) -> tuple[tuple[IntArray, ...], IntArray]:
    """Return the different rows, and of each row which it is: a log has many groups, and few different ones."""
    spans = [int(x.max()) + 1 for x in columns]
    if math.prod(spans) > 2**22:
        rows, where = np.unique(np.stack(columns), axis=1, return_inverse=True)
        return tuple(rows), where.reshape(-1)
    code = np.ravel_multi_index(columns, spans)
    seen = np.bincount(code, minlength=math.prod(spans)) > 0
    return np.unravel_index(np.flatnonzero(seen), spans), (np.cumsum(seen) - 1)[code]


def _ratio(x: FloatArray, y: FloatArray) -> FloatArray:
    positive = y > 0
    return np.where(positive, x / np.where(positive, y, 1.0), 1.0)


def _by_step(steps: IntArray, order: IntArray) -> list[IntArray]:
    """Split the rows, in an order by step, at the ends of the steps."""
    return np.split(order, np.flatnonzero(np.diff(steps[order])) + 1)


def _integers(name: str, value: Any, minimum: int) -> IntArray:
    x = require.integers(name, value, minimum=minimum)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"{name}: expected a non-empty 1-D array, got shape {x.shape}")
    return x


def _rows(name: str, value: Any) -> IntArray:
    return _integers(name, value, 0)


def _groups(successes: Any, attempts: Any, minimum: int) -> tuple[IntArray, IntArray]:
    k, n = _integers("successes", successes, 0), _integers("attempts", attempts, minimum)
    require.same_shape(successes=k, attempts=n)
    if n.max() > MAX_BUDGET:
        raise ValueError(f"attempts: expected at most {MAX_BUDGET}, got {n.max()}")
    if (k > n).any():
        at = int(np.argmax(k > n))
        raise ValueError(f"successes: expected at most attempts, got {k[at]} of {n[at]} at index {at}")
    return k, n
