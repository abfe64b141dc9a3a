"""Exact moments of a finite group's gradient: mean, covariance, error and implied weight, also under stopping rules.

A prompt has K answers; the policy is pi = softmax(z) over them, some answers are correct, J = p = pi(correct),
q = 1 - p. A group of n rollouts of which k are correct gives every correct one the advantage A_C(k, n), every wrong
one A_W(k, n), and the gradient in the logits g = (1/n) sum_j A_j s(a_j) with the score s(a) = e_a - pi.

Let pi_C, pi_W be the policy given a correct or a wrong answer and d = pi_C - pi_W. Then pi_C - pi = q d,
pi_W - pi = -p d and grad J = p q d. Given which rollouts are correct, the answers are independent draws from pi_C and
pi_W, so that given (n, k)

    E[g] = c d, with c = (k A_C q - (n-k) A_W p) / n
    Cov[g] = (k A_C^2 Sigma_C + (n-k) A_W^2 Sigma_W) / n^2, with Sigma_C = diag(pi_C) - pi_C pi_C^T,

and over (n, k)

    E[g] = E[c] d = w grad J
    Cov[g] = E[k A_C^2 / n^2] Sigma_C + E[(n-k) A_W^2 / n^2] Sigma_W + Var(c) d d^T.

The mean is parallel to grad J whatever the estimator: the implied weight w = E[c] / (p q) is all of its bias. Nothing
above needs n to be fixed, only that the decision to stop looks at rewards and never at answers. It is independence
given the rewards that is used, not exchangeability, which stopping destroys (the last rollout of "until one success"
is the correct one).

Conventions: a group whose rewards are all equal has advantages 0, and so has a group of one, except for `reinforce`;
no epsilon is added to a standard deviation. Formulas without a source are ours. The sums over k are made in the log
domain; their relative error is about 3e-14 at n = 100 and 1e-11 at n = 10,000.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln, xlogy

from theory.base import require
from theory.base.arrays import FloatArray, IntArray

# A = scale(k, n) (R - k/n) for 0 < k < n, by estimator; `reinforce` is the one that is not centred.
_SCALES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "rloo": lambda k, n: n / (n - 1),
    "dr_grpo": lambda k, n: np.ones_like(k),
    "grpo": lambda k, n: n / np.sqrt(k * (n - k)),
    "grpo_sample": lambda k, n: np.sqrt(n * (n - 1) / (k * (n - k))),
    "maxrl": lambda k, n: n / k,
}
ESTIMATORS = ("reinforce", *_SCALES)
"""REINFORCE (A = R), leave-one-out baseline, Dr.GRPO (R - mean), GRPO with the population and with the sample standard
deviation, MaxRL ((R - mean) / mean)."""


class Coefficients(NamedTuple):
    """What the moments need of the group-size law and the estimator, not of the answers; all fields share one shape.

    Attributes
    ----------
    weight
        w = E[c] / (p q), finite also at p = 0 and p = 1; at least 0.
    mean
        E[c].
    mean_variance
        Var(c), the factor of d d^T.
    correct
        E[k A_C^2 / n^2], the factor of Sigma_C.
    wrong
        E[(n-k) A_W^2 / n^2], the factor of Sigma_W.
    """

    weight: FloatArray
    mean: FloatArray
    mean_variance: FloatArray
    correct: FloatArray
    wrong: FloatArray


class ConditionalPolicy(NamedTuple):
    """A policy split by the correctness of the answer.

    Attributes
    ----------
    correct, wrong
        pi_C and pi_W, [..., K]; all zeros where p = 0 or q = 0.
    p, q
        Probability of a correct and of a wrong answer, [...]; each precise where it is tiny.
    """

    correct: FloatArray
    wrong: FloatArray
    p: FloatArray
    q: FloatArray


@dataclass(frozen=True, eq=False)
class Moments:
    """Exact moments of a group's gradient g in the logits, against grad J; properties are computed when asked for.

    With a batch of prompts [...] and of group sizes that broadcast to [...], vectors are [..., K], scalars [...].

    Attributes
    ----------
    policy
        The policy split by correctness.
    coefficients
        The scalar core.
    """

    policy: ConditionalPolicy
    coefficients: Coefficients

    @property
    def weight(self) -> FloatArray:
        """Implied weight w: E[g] = w grad J."""
        return self.coefficients.weight

    @property
    def true_gradient(self) -> FloatArray:
        """Return grad J = p q d, [..., K]."""
        pq = self.policy.p * self.policy.q
        return pq[..., None] * (self.policy.correct - self.policy.wrong)

    @property
    def mean(self) -> FloatArray:
        """E[g], [..., K]."""
        return self.weight[..., None] * self.true_gradient

    @cached_property
    def covariance(self) -> FloatArray:
        """Cov[g], [..., K, K]."""
        correct, wrong = self.policy.correct, self.policy.wrong
        terms = self.coefficients
        difference = correct - wrong
        return (
            terms.correct[..., None, None] * _multinomial_covariance(correct)
            + terms.wrong[..., None, None] * _multinomial_covariance(wrong)
            + terms.mean_variance[..., None, None] * (difference[..., :, None] * difference[..., None, :])
        )

    @property
    def variance(self) -> FloatArray:
        """Trace of the covariance, in O(K)."""
        terms = self.coefficients
        return (
            terms.correct * _spread(self.policy.correct)
            + terms.wrong * _spread(self.policy.wrong)
            + terms.mean_variance * _difference_squared(self.policy)
        )

    @property
    def mse(self) -> FloatArray:
        """E|g - grad J|^2 = variance + (w - 1)^2 |grad J|^2."""
        return self.variance + (self.weight - 1) ** 2 * _gradient_squared(self.policy)

    @property
    def signal(self) -> FloatArray:
        """|E[g]|^2 = w^2 |grad J|^2."""
        return self.weight**2 * _gradient_squared(self.policy)

    @property
    def progress(self) -> FloatArray:
        """E<g, grad J> = w |grad J|^2: first-order improvement of J for a unit learning rate."""
        return self.weight * _gradient_squared(self.policy)

    @property
    def cosine(self) -> FloatArray:
        """<E g, grad J> / (|grad J| sqrt(E|g|^2)), which no scale of the advantages changes; 0 where g is always 0."""
        second_moment = self.signal + self.variance
        return np.asarray(np.sqrt(self.signal / np.where(second_moment > 0, second_moment, 1.0)))


@dataclass(frozen=True)
class StoppingRule:
    """Sample rounds of rollouts until enough of both kinds are seen, or the rounds are used up; pool all of them.

    `min_correct=1, min_wrong=0` waits for a success, 1 and 1 for both kinds, keep/2 and keep/2 is the balanced rule of
    Reinforce-Ada (2510.04996), 0 and 0 is a fixed group of one round.

    Attributes
    ----------
    round_size
        Rollouts per round, at least 1.
    max_rounds
        Rounds at most, at least 1.
    min_correct, min_wrong
        Sampling stops after the first round at whose end there are so many correct and so many wrong rollouts.

    Raises
    ------
    ValueError
        If a field is not an integer or too small.
    """

    round_size: int
    max_rounds: int
    min_correct: int = 1
    min_wrong: int = 0

    def __post_init__(self) -> None:
        require.count("round_size", self.round_size, 1)
        require.count("max_rounds", self.max_rounds, 1)
        require.count("min_correct", self.min_correct)
        require.count("min_wrong", self.min_wrong)


@dataclass(frozen=True, eq=False)
class GroupLaw:
    """Joint law of the size of a group and its number of correct rollouts, on M reachable pairs.

    Attributes
    ----------
    num_rollouts, num_correct
        n and k of each pair, [M].
    probability
        P(n, k), [..., M].
    """

    num_rollouts: IntArray
    num_correct: IntArray
    probability: FloatArray

    @property
    def expected_rollouts(self) -> FloatArray:
        """E[n], [...]: what the rule costs."""
        return self.probability @ self.num_rollouts.astype(np.float64)

    @property
    def expected_pooled_mean(self) -> FloatArray:
        """E[k/n], [...]: differs from p when the size depends on the rewards."""
        return self.probability @ (self.num_correct / self.num_rollouts)


def group_advantages(num_correct: ArrayLike, num_rollouts: ArrayLike, estimator: str) -> tuple[FloatArray, FloatArray]:
    """Advantages that a group gives to its correct and to its wrong rollouts, for rewards in {0, 1}.

    reinforce: R; rloo: n (R - k/n) / (n-1); dr_grpo: R - k/n; grpo: (R - k/n) / sqrt(k (n-k) / n^2);
    grpo_sample: (R - k/n) / sqrt(k (n-k) / (n (n-1))); maxrl (2602.02710): (R - k/n) / (k/n).

    Parameters
    ----------
    num_correct
        k in [0, n], integers, [...].
    num_rollouts
        n >= 1, integers, [...]; both broadcast.
    estimator
        One of `ESTIMATORS`.

    Returns
    -------
    tuple[FloatArray, FloatArray]
        A_C and A_W, [...]; 0 for a kind that the group lacks.

    Raises
    ------
    ValueError
        If a count is not an integer or out of range, or the estimator is unknown.

    Examples
    --------
    >>> [a.tolist() for a in group_advantages([0, 1, 4], 4, "maxrl")]
    [[0.0, 3.0, 0.0], [0.0, -1.0, 0.0]]
    """
    require.one_of("estimator", estimator, ESTIMATORS)
    n = require.integers("num_rollouts", num_rollouts, minimum=1)
    k = require.integers("num_correct", num_correct)
    k, n = require.broadcast(num_correct=k, num_rollouts=n)
    if np.any(k > n):
        raise ValueError(f"num_correct: expected at most num_rollouts, got {k[k > n][0]} of {n[k > n][0]}")
    return _advantages(k.astype(np.float64), n.astype(np.float64), estimator)


def group_coefficients(p: ArrayLike, n: ArrayLike, estimator: str = "grpo") -> Coefficients:
    """Scalar core of the moments of groups of fixed size: everything that does not depend on the answers.

    Sums over k ~ Binomial(n, p); see `Coefficients`.

    Parameters
    ----------
    p
        Success probability in [0, 1], [...].
    n
        Group size >= 1, integers, [...]; both broadcast, so `p[:, None]` and `np.arange(1, 25)` give a table.
    estimator
        One of `ESTIMATORS`.

    Returns
    -------
    Coefficients
        Five arrays [...]. Time and memory are O(n) per element.

    Raises
    ------
    ValueError
        If `p` or `n` is out of range, their shapes do not broadcast, or the estimator is unknown.

    Examples
    --------
    >>> round(float(group_coefficients(0.5, 4, "dr_grpo").weight), 4)
    0.75
    >>> group_coefficients(0.5, [1, 2, 24]).weight.round(2).tolist()
    [0.0, 1.0, 1.96]
    """
    require.one_of("estimator", estimator, ESTIMATORS)
    p = require.numbers("p", p, low=0.0, high=1.0)
    return _fixed_coefficients(p, 1 - p, n, estimator)


def implied_weight(p: ArrayLike, n: ArrayLike, estimator: str = "grpo") -> FloatArray:
    """Weight w(p, n) that the estimator gives to a prompt's own gradient: E[g] = w grad J.

    reinforce, rloo (n >= 2): 1; dr_grpo: (n-1)/n; maxrl: (1 - q^(n-1)) / p, which makes E[g] the gradient of
    -sum_{j < n} q^j / j, the log-likelihood truncated (2602.02710); grpo: tends to 1 / sqrt(p q). With group sizes
    that differ between prompts these weights differ too.

    Parameters
    ----------
    p
        Success probability in [0, 1], [...].
    n
        Group size >= 1, integers, [...]; both broadcast.
    estimator
        One of `ESTIMATORS`.

    Returns
    -------
    FloatArray
        w, [...]; at p = 0 and p = 1 its finite limit.

    Raises
    ------
    ValueError
        As `group_coefficients`.

    Examples
    --------
    >>> implied_weight([0.0, 0.05, 0.5], 4).round(2).tolist()
    [1.73, 1.71, 1.62]
    """
    return group_coefficients(p, n, estimator).weight


def gradient_moments(probs: ArrayLike, correct: ArrayLike, n: ArrayLike, estimator: str = "grpo") -> Moments:
    """Exact moments of the gradient of a group of fixed size.

    E[g] = w grad J; Cov[g] = E[k A_C^2] / n^2 Sigma_C + E[(n-k) A_W^2] / n^2 Sigma_W + Var(c) d d^T.

    Parameters
    ----------
    probs
        Answer probabilities pi, [..., K], which sum to one within 1e-6; the sum is divided out.
    correct
        Which answers are correct, booleans, [..., K].
    n
        Group size >= 1, integers that broadcast with [...].
    estimator
        One of `ESTIMATORS`.

    Returns
    -------
    Moments
        At p = 0 and p = 1 grad J, the mean and (except for `reinforce` at p = 1) the covariance are 0.

    Raises
    ------
    ValueError
        If `probs` is not a distribution, `correct` not a mask of its shape, `n` out of range or the estimator unknown.

    Examples
    --------
    >>> moments = gradient_moments([0.5, 0.5], [True, False], 16, "rloo")
    >>> moments.mean.round(4).tolist(), round(float(moments.variance), 5)
    ([0.25, -0.25], 0.00104)
    """
    require.one_of("estimator", estimator, ESTIMATORS)
    policy = _condition(probs, correct)
    return Moments(policy, _fixed_coefficients(policy.p, policy.q, n, estimator))


def expected_progress(probs: ArrayLike, correct: ArrayLike, n_max: int, estimator: str = "grpo") -> FloatArray:
    """First-order improvement of J that a group of each size is expected to bring, as a table for oracle allocation.

    E<g, grad J> = w(p, n) |grad J|^2, for a unit learning rate. It is flat in n for an unbiased estimator: more
    rollouts then buy less variance only.

    Parameters
    ----------
    probs
        Answer probabilities, [..., K].
    correct
        Which answers are correct, booleans, [..., K].
    n_max
        Largest group size, at least 1.
    estimator
        One of `ESTIMATORS`.

    Returns
    -------
    FloatArray
        [..., n_max + 1]; column n is for a group of n, column 0 is 0.

    Raises
    ------
    ValueError
        As `gradient_moments`, or if `n_max` is not an integer >= 1.

    Examples
    --------
    >>> expected_progress([0.5, 0.5], [True, False], 4, "dr_grpo").round(4).tolist()
    [0.0, 0.0, 0.0625, 0.0833, 0.0938]
    """
    sizes = np.arange(1, require.count("n_max", n_max, 1) + 1)
    require.one_of("estimator", estimator, ESTIMATORS)
    policy = _condition(probs, correct)
    weight = _fixed_coefficients(policy.p[..., None], policy.q[..., None], sizes, estimator).weight
    progress = weight * _gradient_squared(policy)[..., None]
    return np.concatenate([np.zeros((*progress.shape[:-1], 1)), progress], axis=-1)


def single_rollout_variance(probs: ArrayLike, correct: ArrayLike, baseline: ArrayLike | None = None) -> FloatArray:
    """Trace variance of one rollout's (R - b) s(a): the sigma^2 that the allocation theorem needs.

    p (1-b)^2 v_C + q b^2 v_W + p q (q - b)^2 |d|^2, with v = 1 - |pi_C|^2 or 1 - |pi_W|^2. The mean of n rollouts has
    variance sigma^2 / n. Only where answers are many and diffuse (v near 1, |d| near 0) is it p q for b = p.

    Parameters
    ----------
    probs
        Answer probabilities, [..., K].
    correct
        Which answers are correct, booleans, [..., K].
    baseline
        b in [-1e100, 1e100], broadcasts with [...]; None means the exact p.

    Returns
    -------
    FloatArray
        sigma^2, [...].

    Raises
    ------
    ValueError
        As `gradient_moments`, or if `baseline` is out of range or does not broadcast.

    Examples
    --------
    >>> single_rollout_variance([[0.5, 0.5], [0.9, 0.1]], [[True, False]] * 2).round(4).tolist()
    [0.0, 0.1152]
    """
    policy = _condition(probs, correct)
    p, q = policy.p, policy.q
    # With b = p, 1 - b is q, also where q is tiny.
    b, miss = p, q
    if baseline is not None:
        _, b = require.broadcast(p=p, baseline=require.numbers("baseline", baseline, low=-1e100, high=1e100))
        miss = 1 - b
    return np.asarray(
        p * miss**2 * _spread(policy.correct)
        + q * b**2 * _spread(policy.wrong)
        + p * q * (q - b) ** 2 * _difference_squared(policy)
    )


def stopping_law(p: ArrayLike, rule: StoppingRule) -> GroupLaw:
    """Exact law of the size and the successes of a group under a stopping rule.

    P(n, k) = N(n, k) p^k q^(n-k), where N counts the reward sequences that stop there, by dynamic programming over
    rounds.

    Parameters
    ----------
    p
        Success probability in [0, 1], [...].
    rule
        The stopping rule.

    Returns
    -------
    GroupLaw
        The pairs in order of n, then k; they are the same for every p.

    Raises
    ------
    ValueError
        If `p` is out of range or `rule` is not a StoppingRule.

    Examples
    --------
    >>> law = stopping_law(0.05, StoppingRule(round_size=8, max_rounds=4))
    >>> round(float(law.expected_pooled_mean), 4), round(float(law.expected_rollouts), 1)
    (0.0776, 19.2)
    """
    p = require.numbers("p", p, low=0.0, high=1.0)
    n, k, log_paths = _stopping_paths(rule)
    probability = _path_probability(log_paths, k, n - k, p[..., None], 1 - p[..., None])
    return GroupLaw(n.astype(np.int64), k.astype(np.int64), probability)


def stopped_coefficients(p: ArrayLike, rule: StoppingRule, estimator: str = "grpo") -> Coefficients:
    """Scalar core of the moments under a stopping rule: `group_coefficients` with n random.

    Parameters
    ----------
    p
        Success probability in [0, 1], [...].
    rule
        The stopping rule; advantages are computed over all rollouts that it pools.
    estimator
        One of `ESTIMATORS`.

    Returns
    -------
    Coefficients
        Five arrays [...].

    Raises
    ------
    ValueError
        If `p` is out of range, `rule` is not a StoppingRule or the estimator is unknown.

    Examples
    --------
    >>> rule = StoppingRule(round_size=8, max_rounds=4)
    >>> stopped_coefficients([0.05, 0.1, 0.5], rule, "dr_grpo").weight.round(2).tolist()
    [1.41, 1.17, 0.88]
    """
    require.one_of("estimator", estimator, ESTIMATORS)
    p = require.numbers("p", p, low=0.0, high=1.0)
    return _coefficients(p, 1 - p, *_stopping_paths(rule), estimator)


def gradient_moments_stopped(
    probs: ArrayLike, correct: ArrayLike, rule: StoppingRule, estimator: str = "grpo"
) -> Moments:
    """Exact moments of the gradient of a group whose size a stopping rule decides.

    As `gradient_moments`, with expectations over the joint law of (n, k).

    Parameters
    ----------
    probs
        Answer probabilities, [..., K].
    correct
        Which answers are correct, booleans, [..., K].
    rule
        The stopping rule; g is the mean over all rollouts that it pools.
    estimator
        One of `ESTIMATORS`.

    Returns
    -------
    Moments
        As `gradient_moments`. Even `reinforce` and `rloo` are biased here: their weight is not 1.

    Raises
    ------
    ValueError
        As `gradient_moments`, or if `rule` is not a StoppingRule.

    Examples
    --------
    >>> rule = StoppingRule(round_size=8, max_rounds=4)
    >>> moments = gradient_moments_stopped([0.1, 0.9], [True, False], rule, "rloo")
    >>> round(float(moments.weight), 4)
    1.3162
    """
    require.one_of("estimator", estimator, ESTIMATORS)
    policy = _condition(probs, correct)
    return Moments(policy, _coefficients(policy.p, policy.q, *_stopping_paths(rule), estimator))


def _condition(probs: ArrayLike, correct: ArrayLike) -> ConditionalPolicy:
    pi = require.numbers("probs", probs, low=0.0)
    if pi.ndim < 1 or pi.shape[-1] < 1:
        raise ValueError(f"probs: expected shape [..., K] with K >= 1, got {pi.shape}")
    total = pi.sum(axis=-1)
    off = np.abs(total - 1) > 1e-6
    if off.any():
        raise ValueError(f"probs: expected a sum of 1 over the last axis, got {total[off][0]}")
    mask = require.booleans("correct", correct)
    require.same_shape(probs=pi, correct=mask)
    # Sums of nonnegative terms keep their relative precision: q is as good as p, which 1 - p is not.
    parts = [np.where(mask, pi, 0.0), np.where(mask, 0.0, pi)]
    masses = [part.sum(axis=-1) for part in parts]
    conditional = [part / np.where(mass > 0, mass, 1.0)[..., None] for part, mass in zip(parts, masses, strict=True)]
    return ConditionalPolicy(*conditional, *(mass / (masses[0] + masses[1]) for mass in masses))


def _advantages(k: FloatArray, n: FloatArray, estimator: str) -> tuple[FloatArray, FloatArray]:
    if estimator == "reinforce":
        return (k > 0).astype(np.float64), np.zeros_like(k)
    mixed = (k > 0) & (k < n)
    safe_k, safe_n = np.where(mixed, k, 1.0), np.where(mixed, n, 2.0)
    scale = _SCALES[estimator](safe_k, safe_n)
    return np.where(mixed, scale * (n - k) / n, 0.0), np.where(mixed, -scale * k / n, 0.0)


def _fixed_coefficients(p: FloatArray, q: FloatArray, n: ArrayLike, estimator: str) -> Coefficients:
    sizes = require.integers("n", n, minimum=1)
    p, sizes = require.broadcast(p=p, n=sizes)
    q = np.broadcast_to(q, p.shape)
    fields = [np.empty(p.shape) for _ in Coefficients._fields]
    for size in np.unique(sizes):
        rows = sizes == size
        k = np.arange(size + 1.0)
        values = _coefficients(p[rows], q[rows], np.full_like(k, size), k, _log_binomial(size), estimator)
        for field, value in zip(fields, values, strict=True):
            field[rows] = value
    return Coefficients(*(field[()] for field in fields))


def _coefficients(
    p: FloatArray, q: FloatArray, n: FloatArray, k: FloatArray, log_paths: FloatArray, estimator: str
) -> Coefficients:
    """Sum over the pairs (n, k), each [M], that are reached along exp(log_paths) reward sequences."""
    p, q = p[..., None], q[..., None]
    correct, wrong = _advantages(k, n, estimator)
    # c / (p q) in two parts, each times a probability with one factor p or q taken out: no division, no cancellation.
    weight = (k * correct / n * _path_probability(log_paths, np.maximum(k - 1, 0), n - k, p, q)).sum(axis=-1) - (
        (n - k) * wrong / n * _path_probability(log_paths, k, np.maximum(n - k - 1, 0), p, q)
    ).sum(axis=-1)
    probability = _path_probability(log_paths, k, n - k, p, q)
    mean = (p * q)[..., 0] * weight
    deviation = (k * correct * q - (n - k) * wrong * p) / n - mean[..., None]
    return Coefficients(
        weight,
        mean,
        (probability * deviation**2).sum(axis=-1),
        probability @ (k * correct**2 / n**2),
        probability @ ((n - k) * wrong**2 / n**2),
    )


def _path_probability(
    log_paths: FloatArray, num_p: FloatArray, num_q: FloatArray, p: FloatArray, q: FloatArray
) -> FloatArray:
    """exp(log_paths) p^num_p q^num_q, with 0^0 = 1."""
    return np.asarray(np.exp(log_paths + xlogy(num_p, p) + xlogy(num_q, q)))


def _log_binomial(n: int) -> FloatArray:
    """Return log C(n, k) for k = 0 ... n."""
    k = np.arange(n + 1.0)
    return np.asarray(gammaln(n + 1.0) - gammaln(k + 1) - gammaln(n - k + 1))


def _stopping_paths(rule: StoppingRule) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return n, k and log N(n, k) of the pairs at which the rule can stop; no probability enters."""
    if not isinstance(rule, StoppingRule):
        raise ValueError(f"rule: expected a StoppingRule, got {rule!r}")
    log_alive = np.zeros(1)
    stops = []
    for num_rounds in range(1, rule.max_rounds + 1):
        n = num_rounds * rule.round_size
        log_reached = np.full(n + 1, -np.inf)
        for successes, ways in enumerate(_log_binomial(rule.round_size)):
            span = slice(successes, successes + log_alive.size)
            log_reached[span] = np.logaddexp(log_reached[span], log_alive + ways)
        k = np.arange(n + 1)
        done = (k >= rule.min_correct) & (n - k >= rule.min_wrong) | (num_rounds == rule.max_rounds)
        stop = done & np.isfinite(log_reached)
        stops.append(np.stack([np.full_like(k, n)[stop], k[stop], log_reached[stop]]))
        log_alive = np.where(done, -np.inf, log_reached)
    n, k, log_paths = np.concatenate(stops, axis=1)
    return n, k, log_paths


def _multinomial_covariance(x: FloatArray) -> FloatArray:
    return x[..., :, None] * (np.eye(x.shape[-1]) - x[..., None, :])


def _spread(x: FloatArray) -> FloatArray:
    """1 - |x|^2 of a distribution, as a sum without cancellation; 0 for an absent kind."""
    return np.asarray((x * (1 - x)).sum(axis=-1))


def _difference_squared(policy: ConditionalPolicy) -> FloatArray:
    """|d|^2; the supports of pi_C and pi_W are disjoint."""
    return np.asarray((policy.correct**2).sum(axis=-1) + (policy.wrong**2).sum(axis=-1))


def _gradient_squared(policy: ConditionalPolicy) -> FloatArray:
    """|grad J|^2."""
    return (policy.p * policy.q) ** 2 * _difference_squared(policy)
