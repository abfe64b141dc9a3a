"""What a log's rollouts say, and what other allocations would have changed: everything that is reported, as plain data.

The mathematics is in `theory.allocation.log_replay`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scale.audit.log import Log
from theory.allocation import (
    ALLOCATORS,
    ORACLES,
    degenerate_groups,
    log_estimates,
    log_replay,
    spends_in_rounds,
    squared_change,
    wasted_share,
)
from theory.base.arrays import FloatArray, IntArray
from theory.statistics import jeffreys_interval, ratio_intervals

Allocated = tuple[IntArray, IntArray]
"""Indices of the groups that an allocation is replayed on, and the rollouts that it gives them."""

MOST_ENTRIES = 2e9
"""Table entries that a rule may visit: five to ten seconds. `log-progress` visits N B (high - low) in a step."""

FEW_PROMPTS = 30
"""Prompts with a history below which a bootstrap over prompts says little."""


def audit(
    log: Log,
    low: int | None = None,
    high: int | None = None,
    discount: float = 1.0,
    steps: int = 400,
    seed: int = 0,
    told: Any = lambda text: None,
) -> dict[str, Any]:
    """Return everything that is reported, as plain data.

    Parameters
    ----------
    low, high : Bounds on a prompt's rollouts in the replays, at least 2; by default half the mean and one and a half
        times it. They must include the mean of every replayed step.
    discount : Factor on a prompt's old counts at each visit, in [0, 1].
    steps : Steps that are replayed, at most, evenly spaced over those with a history.
    seed : Seed of the bootstrap.
    told : Called with a few words when a part of the work begins.
    """
    told("describing the groups")
    described = _described(log)
    replay, rules, left_out = _replayed(log, low, high, discount, steps, seed, told)
    said = _limits(described, replay, rules)
    return {
        **described,
        "replay": replay,
        "rules": rules,
        "left_out": left_out,
        "cannot_say": said,
        "notes": [*log.notes],
    }


def _described(log: Log) -> dict[str, Any]:
    k, n = log.successes, log.attempts
    degenerate = degenerate_groups(k, n)
    visits = np.bincount(log.prompt, minlength=len(log.prompts))
    totals = [np.bincount(log.prompt, weights=x, minlength=len(log.prompts)) for x in (k, n)]
    percents, width = (5, 25, 50, 75, 95), np.diff(jeffreys_interval(k, n), axis=0)
    # Two visits of a prompt in a row, both with a variance.
    order = np.lexsort((log.step, log.prompt))
    order = order[n[order] >= 2]
    pairs = np.flatnonzero(np.diff(log.prompt[order]) == 0)
    first, second = order[pairs], order[pairs + 1]
    change = squared_change(k[first], n[first], k[second], n[second]).mean() if pairs.size else None
    # Rates are rounded to those that the commonest size has (up to 32), so that no bin of the histogram is favoured.
    bins = min(32, int(np.bincount(n).argmax()))
    histogram = np.bincount(np.rint(k / n * bins).astype(np.int64), minlength=bins + 1)
    steps, of_step = np.unique(log.step, return_inverse=True)
    shares = np.bincount(of_step, weights=degenerate) / np.bincount(of_step)
    return {
        "log": {
            "format": log.format,
            "files": [str(path) for path in log.files],
            "rewards": log.rewards,
            "steps": int(steps.size),
            "prompts": len(log.prompts),
            "groups": int(n.size),
            "rollouts": int(n.sum()),
        },
        "groups": {
            "rollouts_mean": float(n.mean()),
            "rollouts_min": int(n.min()),
            "rollouts_max": int(n.max()),
            "of_one": int((n == 1).sum()),
            "success_rate": float((k / n).mean()),
            "degenerate_share": float(degenerate.mean()),
            "all_wrong_share": float((k == 0).mean()),
            "all_right_share": float((k == n).mean()),
            "wasted_share": float(wasted_share(k, n)),
            "success_rate_histogram": histogram.tolist(),
            "interval_width_median": float(np.median(width)),
        },
        "prompts": {
            "visits_mean": float(visits.mean()),
            "seen_once": int((visits == 1).sum()),
            "success_rate_quantiles": dict(
                zip(map(str, percents), np.percentile(totals[0] / totals[1], percents).tolist(), strict=True)
            ),
            "change_between_visits": None if change is None else float(np.sqrt(max(change, 0.0))),
            "pairs_of_visits": int(pairs.size),
        },
        "degenerate_by_step": {"step": steps.tolist(), "share": shares.tolist()},
    }


def _replayed(
    log: Log, low: int | None, high: int | None, discount: float, steps: int, seed: int, told: Any
) -> tuple[dict[str, Any] | None, dict[str, Any], dict[str, str]]:
    """Return what was replayed (None without a history), the rules compared, and why others are left out."""
    past_k, past_n = log_replay.past_counts(log.step, log.prompt, log.successes, log.attempts, discount)
    usable = log.attempts >= 2
    informed = np.unique(log.step[usable & (past_n > 0)])
    if not informed.size:
        return None, {}, {}
    chosen = _spaced(informed, steps)
    rows = np.flatnonzero(usable & np.isin(log.step, chosen))
    t, i, n, k = log.step[rows], log.prompt[rows], log.attempts[rows], log.successes[rows]
    past_k, past_n = past_k[rows], past_n[rows]
    _, index, size = np.unique(t, return_inverse=True, return_counts=True)
    mean = np.bincount(index, weights=n) / size
    least = max(2, int(mean.min()) // 2) if low is None else low
    most = max(least, int(np.ceil(1.5 * mean.max()))) if high is None else high
    unfit = (mean < least) | (mean > most)
    if unfit.any():
        step = int(np.unique(t)[np.argmax(unfit)])
        raise ValueError(
            f"--low, --high: expected bounds around {mean[np.argmax(unfit)]:g}, the mean of step {step}, got "
            f"{least} to {most}"
        )
    every = np.arange(n.size)
    allocated: dict[str, Allocated] = {"log": (every, n)}
    left_out: dict[str, str] = {}
    fitting = int(MOST_ENTRIES // float(np.max(size * size * mean) * (most - least + 1)))
    for name, rule in ALLOCATORS.items():
        if name in ORACLES:
            left_out[name] = "needs exact moments of the policy gradient, which no log holds"
            continue
        if spends_in_rounds(rule):
            left_out[name] = "asks for outcomes of the step itself, and more of them than the log may hold"
            continue
        told(f"replaying {name}")
        part = every
        if name == "log-progress":
            if fitting < min(10, chosen.size):
                left_out[name] = "its dynamic programme would take too long on steps of this size"
                continue
            part = np.flatnonzero(np.isin(t, _spaced(chosen, fitting)))
        try:
            counts = log_replay.replay(
                rule, t[part], past_k[part], past_n[part], n[part], least, most, np.random.default_rng(seed)
            )
        except ValueError as error:
            left_out[name] = str(error)
        else:
            allocated[name] = (part, counts)
    replay = {
        "low": least,
        "high": most,
        "discount": discount,
        "seed": seed,
        "steps": int(chosen.size),
        "steps_with_history": int(informed.size),
        "groups": int(n.size),
        "prompts_with_history": int(np.unique(i[past_n > 0]).size),
        "groups_with_history_share": float((past_n > 0).mean()),
        "uniform_log": bool(np.array_equal(np.sort(n), np.sort(allocated["uniform"][1])) and np.ptp(n) <= 1),
        "rollouts_past_mean": float(past_n.mean()),
    }
    told("resampling prompts")
    return replay, _compared(t, i, n, k, allocated, seed), left_out


def _spaced(steps: IntArray, most: int) -> IntArray:
    """Return at most so many of the steps, evenly spaced, the last one included."""
    if steps.size <= most:
        return steps
    return np.asarray(steps[np.linspace(steps.size - 1, 0, most).round().astype(np.int64)[::-1]])


def _compared(
    t: IntArray, i: IntArray, n: IntArray, k: IntArray, allocated: dict[str, Allocated], seed: int
) -> dict[str, Any]:
    """Return, for every rule, noise, weights and degenerate groups against uniform and against the log."""
    _, index, size = np.unique(t, return_inverse=True, return_counts=True)
    scale = 1.0 / size[index].astype(np.float64) ** 2  # The gradient of a step is the mean over its prompts.
    uniform = allocated["uniform"][1]

    def noise(m: IntArray, part: IntArray, estimator: str) -> tuple[FloatArray, FloatArray]:
        low, high = log_estimates.noise_bounds(k[part], n[part], m, estimator)
        return low * scale[part], high * scale[part]

    names: list[tuple[str, str, str, str]] = []
    above: list[FloatArray] = []
    below: list[FloatArray] = []
    prompts, of_prompt = np.unique(i, return_inverse=True)
    for name, (part, m) in allocated.items():
        for estimator in log_estimates.NOISE_ESTIMATORS:
            own = noise(m, part, estimator)
            for base, other in (("uniform", uniform[part]), ("log", n[part])):
                theirs = noise(other, part, estimator)
                if base == name or (base == "log" and np.array_equal(other, m)):
                    theirs = own[::-1]  # The same groups: the bounds' gap cancels.
                for end, x, y in (("low", own[0], theirs[1]), ("high", own[1], theirs[0])):
                    names.append((name, base, estimator, end))
                    for sums, some in ((above, x), (below, y)):
                        sums.append(np.bincount(of_prompt[part], some, prompts.size).astype(np.float64))
    ends = ratio_intervals(np.stack(above, 1), np.stack(below, 1), prompts, np.random.default_rng(seed))
    ratios = dict(zip(names, np.stack(ends, axis=1).tolist(), strict=True))

    def against(name: str, base: str) -> dict[str, Any]:
        """Return the ratio of noise by estimator: its bounds, and the interval around both."""
        bounds = {x: [ratios[name, base, x, end] for end in ("low", "high")] for x in log_estimates.NOISE_ESTIMATORS}
        return {
            x: {"point": [least[0], most[0]], "interval": [least[1], most[2]]} for x, (least, most) in bounds.items()
        }

    rules = {}
    for name, (part, m) in allocated.items():
        degenerate = log_estimates.degenerate_bounds(k[part], n[part], m)
        rate, of = k[part] / n[part], uniform[part]
        weights = [log_estimates.implied_weights(k[part], n[part], x, "grpo") for x in (m, of)]
        against_uniform = against(name, "uniform")
        rules[name] = {
            "steps": int(np.unique(t[part]).size),
            "noise_against_uniform": against_uniform,
            "noise_against_log": against(name, "log"),
            "degenerate_share": [float(max(x.mean(), 0.0)) for x in degenerate],
            "wasted_share": [float(max((m * x).sum() / m.sum(), 0.0)) for x in degenerate],
            "weight_moved_token_mean": float(log_estimates.moved_weight(t[part], m, of).mean()),
            "weight_moved_prompt_mean_grpo": float(log_estimates.moved_weight(t[part], *weights).mean()),
            "success_rate_of_a_rollout": float((m * rate).sum() / m.sum()),
            "verdict": _verdict(against_uniform["exact-baseline"]["interval"]),
        }
    return rules


def _verdict(interval: list[float]) -> str:
    low, high = interval
    if low == high == 1:
        return "the same"
    return "less noise" if high < 1 else "more noise" if low > 1 else "cannot say"


def _limits(described: dict[str, Any], replay: dict[str, Any] | None, rules: dict[str, Any]) -> list[str]:
    """Return, in plain sentences, which questions these data leave open."""
    said, groups = [], described["groups"]
    if replay is None:
        said.append(
            "No prompt comes back in a later step: rules that learn from earlier steps have nothing to learn from, and "
            "all of them are the uniform allocation."
        )
    if groups["of_one"]:
        said.append(
            f"{groups['of_one']:,} groups of one rollout have no variance: they count for the history, and are left "
            "out of the replays with their rollouts."
        )
    if groups["degenerate_share"] == 0 and described["log"]["groups"] >= 50:
        said.append(
            "No group is all right or all wrong. If the log was filtered (dynamic sampling), everything here is about "
            "the groups that were kept, and is biased."
        )
    if replay is None:
        return said
    if replay["groups_with_history_share"] < 0.5:
        said.append(
            f"Only {replay['groups_with_history_share']:.0%} of the groups in the replayed steps have a history: the "
            "rules are nearly uniform here, and would differ more in a longer run."
        )
    if replay["prompts_with_history"] < FEW_PROMPTS:
        said.append(
            f"Only {replay['prompts_with_history']} prompts have a history: the intervals, which resample prompts, "
            "are too narrow."
        )
    unclear = [name for name, x in rules.items() if x["verdict"] == "cannot say" and name != "log"]
    if unclear:
        said.append(f"Whether {', '.join(unclear)} make more or less noise than uniform: 1 is in the interval.")
    said.append(
        "What the noise of the real gradient is: p (1 - p) / n is right if the scores of all responses have one "
        "length, and a log of rewards does not hold the scores. For prompts with few or peaked answers the order can "
        "be the reverse."
    )
    said.append(
        "Whether a run would have ended better: less noise is not more progress, and more rollouts for a prompt are "
        "also more weight for it."
    )
    return said
