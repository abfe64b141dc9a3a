"""What is reported of a diagnosed step: its gradient estimator, its allocation, and what was known before it.

`toy.training.batch_moments` measures the estimator: exactly where it can, else from `NUM_RESAMPLES` batches drawn
again, for which the step's own functions roll out and take the gradient (`of_step`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from theory import allocation
from theory.allocation import get_allocator, spends_in_rounds
from theory.base.arrays import BoolArray, FloatArray, IntArray
from theory.methods import Method
from theory.policy import log_softmax
from toy.training import metrics, oracles
from toy.training.batch_moments import (
    batch_moments,
    exact_estimator,
    implied_weights,
    inner_products,
    resampled_moments,
    true_gradient,
)
from toy.training.generators import Stream, uniforms
from toy.training.rollouts import Batch, of_states, to_rows
from toy.training.state import Setup, State
from toy.training.step import allocate, loss_gradient, roll_out, with_advantages

NUM_RESAMPLES = 64
"""Batches drawn again where no exact formula applies. The variance has a relative standard error of sqrt(2/63) = 18 %
if one direction holds all of it, and less if many share it."""


def proxy_variances(rule_name: str, successes: FloatArray, attempts: FloatArray, variances: FloatArray) -> Any:
    """Return what a rule takes for the variance of one rollout, [Q]; None for a rule that has no such proxy.

    Rules with a `min_history`: P (6); a prompt below it stands for the mean of the others. Rules with a `prior`: p (1 -
    p) at the posterior mean. `oracle-variance`: the exact `variances`.
    """
    rule: Any = get_allocator(rule_name)
    if rule_name == "oracle-variance":
        return variances
    if spends_in_rounds(rule):
        return None
    if hasattr(rule, "min_history"):
        visited = attempts >= rule.min_history
        if not visited.any():
            return np.ones_like(attempts)
        proxies = np.empty_like(attempts)
        proxies[visited] = allocation.bernoulli_variance(successes[visited], attempts[visited])
        proxies[~visited] = proxies[visited].mean()
        return proxies
    if hasattr(rule, "prior"):
        a, b = rule.prior
        p = (successes + a) / (attempts + a + b)
        return p * (1 - p)
    return None


def regret(variances: FloatArray, counts: IntArray, low: int, high: int) -> float:
    """How much more variance the counts leave than the oracle's: sum v/n over its exact integer minimum, minus 1.

    `variances` are the exact v of one rollout, [Q]; `counts` the rollouts, [Q]; `low` and `high` the rule's bounds. The
    oracle knows v, has the same rollouts to spend, and the same bounds (a lower one where the counts go below `low`, as
    rules that spend in rounds may). 0 if nothing varies; NaN where a prompt that varies has no rollout.

    Examples
    --------
    >>> round(regret(np.array([1.0, 9.0]), np.array([4, 4]), 1, 8), 6)
    0.25
    """
    if not variances.any():
        return 0.0
    if not counts[variances > 0].all():
        return float("nan")
    best = allocation.optimal(variances, int(counts.sum()), min(low, int(counts.min())), high)
    return allocation.total_variance(variances, counts) / allocation.total_variance(variances, best) - 1.0


def estimate_errors(p: FloatArray, successes: FloatArray, attempts: FloatArray) -> tuple[float, float]:
    """Mean |k/G - p| and mean (k/G - p) over the prompts with a history; NaN if there is none.

    Examples
    --------
    >>> estimate_errors(np.array([0.5, 0.5, 0.9]), np.array([3.0, 2.0, 0.0]), np.array([4.0, 8.0, 0.0]))
    (0.25, 0.0)
    """
    seen = attempts > 0
    if not seen.any():
        return float("nan"), float("nan")
    errors = successes[seen] / attempts[seen] - p[seen]
    return float(np.abs(errors).mean()), float(errors.mean())


def of_step(setup: Setup, state: State, batch: Batch) -> dict[str, FloatArray]:
    """Return the diagnostics of the step under way, from whose batch nothing has been learnt yet."""
    method = setup.config.method
    in_rounds = spends_in_rounds(get_allocator(method.allocator))
    rngs = setup.generators(Stream.DIAGNOSTICS, state.num_steps)

    def resample() -> FloatArray:
        rollouts = roll_out(setup, state.logits, batch.prompts, rngs)
        again = with_advantages(setup, rollouts, allocate(setup, state, rollouts) if in_rounds else batch.counts)
        draws = None
        if method.loss.draws:
            draws = setup.tensor(uniforms(rngs, again.mask.shape[1:]))
        gradient, _ = loss_gradient(setup, state.logits, again, draws=draws)
        return -gradient.cpu().numpy()

    def scatter(gradient: FloatArray) -> FloatArray:
        return to_rows(setup.tensor(gradient), of_states(setup.rows, prompts), state.logits).cpu().numpy()

    prompts = setup.tensor(batch.prompts)
    rows, states, tokens = setup.states(batch.prompts)
    probs = of_states(log_softmax(of_states(state.logits, rows)).exp(), states)
    correct = of_states(of_states(setup.correct, rows), states) | ~tokens.unsqueeze(-1)
    histories = zip(state.histories, batch.prompts, strict=True)
    successes, attempts = np.stack([h.counts([setup.keys[i] for i in own]) for h, own in histories], axis=1)
    return diagnose(
        method,
        (setup.config.rollouts_low, setup.config.rollouts_high),
        probs.cpu().numpy(),
        correct.cpu().numpy(),
        batch.counts,
        (successes, attempts),
        np.stack([oracles.variances(setup, state.logits, s, own) for s, own in enumerate(batch.prompts)]),
        resample,
        scatter,
    )


def diagnose(
    method: Method,
    bounds: tuple[int, int],
    probs: FloatArray,
    correct: BoolArray,
    counts: IntArray,
    history: tuple[FloatArray, FloatArray],
    variances: FloatArray,
    resample: Callable[[], FloatArray],
    scatter: Callable[[FloatArray], FloatArray],
) -> dict[str, FloatArray]:
    """Return the `toy.training.metrics.DIAGNOSTICS` of one step, each [S]; NaN where a number does not exist.

    Parameters
    ----------
    bounds : Fewest and most rollouts of a prompt.
    probs, correct : Policy and correct tokens at every token of the batch, [S, Q, T, K].
    counts : Rollouts, [S, Q].
    history : Successes and attempts that the rule knew, before the step, each [S, Q].
    variances : Exact variance of one rollout of every prompt, [S, Q].
    resample : Draws the batches again and returns the gradient (of J, not of the loss) in the table, [S, ...]. Called
        only where no exact formula applies.
    scatter : Adds the gradients of tokens [S, Q, T, K] up to that of the table, [S, ...].
    """
    num_seeds, num_prompts, length, _ = probs.shape
    successes, attempts = history
    p = np.minimum(np.where(correct, probs, 0.0).sum(-1), 1.0).prod(-1)
    estimator = exact_estimator(method) if length == 1 else None
    truth = true_gradient(probs, correct)
    columns = {name: np.full(num_seeds, np.nan) for name in metrics.DIAGNOSTICS}
    if estimator is None:
        table = scatter(truth)
        for name, values in resampled_moments(resample, table, NUM_RESAMPLES)._asdict().items():
            columns[f"gradient_{name}"] = values
        columns["true_gradient_squared"] = inner_products(table, table)
    else:
        columns["true_gradient_squared"] = inner_products(truth, truth)
    for s in range(num_seeds):
        n = counts[s]
        row: dict[str, Any] = {"allocation_regret": regret(variances[s], n, *bounds)}
        proxy = proxy_variances(method.allocator, successes[s], attempts[s], variances[s])
        if proxy is not None and n[proxy > 0].all():
            row["variance_ratio_predicted"] = allocation.variance_ratio(proxy, n)
        if estimator is not None:
            pi, right = probs[s, :, 0], correct[s, :, 0]
            exact = batch_moments(pi, right, n, method.aggregation, estimator)
            row |= {f"gradient_{name}": value for name, value in exact._asdict().items()}
            equal = allocation.water_level(np.ones(num_prompts), int(n.sum()), 0, int(n.sum()))
            uniform = batch_moments(pi, right, equal, method.aggregation, estimator).variance
            row["variance_ratio_realized"] = exact.variance / uniform if uniform > 0 else 1.0
            weights = implied_weights(p[s], n, method.aggregation, estimator)
            row |= {"implied_weight_min": weights.min(), "implied_weight_max": weights.max()}
            row["implied_weight_share"] = weights.sum() ** 2 / (num_prompts * np.square(weights).sum())
        row["estimate_error"], row["estimate_bias"] = estimate_errors(p[s], successes[s], attempts[s])
        for name, value in row.items():
            columns[name][s] = value
    return columns
