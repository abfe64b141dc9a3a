"""What a log's rollouts say, and what other allocations would have changed: everything that is reported, as plain data.

The mathematics is in `theory.allocation.log_replay`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scale.audit.log import Log
from theory.allocation import (
    ALLOCATORS,
    NOISE_ESTIMATORS,
    ORACLES,
    NoiseRatio,
    degenerate_groups,
    left_out,
    log_estimates,
    log_replay,
    noise_ratio,
    spends_in_rounds,
    squared_change,
    wasted_share,
)
from theory.base.arrays import BoolArray, FloatArray, IntArray
from theory.statistics import holm, jeffreys_interval

Allocated = tuple[IntArray, IntArray]
"""Indices of the groups that an allocation is replayed on, and the rollouts that it gives them."""

MOST_ENTRIES = 2e9
"""Table entries that a rule may visit: five to ten seconds. `log-progress` visits N B (high - low) in a step."""

UNCLEAR, WITHHELD = "cannot say", "withheld"

IMPROBABLE, DOUBTFUL = 0.002, 0.1
"""Chances, of all right and of all wrong each. Below the first a log counts as filtered: under 1 % of false alarms.
Below the second, if none of the kind is there, verdicts get a question mark."""

LEAST_TELLING = 10
"""Groups that must have even counts before a log may have been given twice: a chance of 1/2 or less each."""


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
    seed : Seed of rules that draw.
    told : Called with a few words when a part of the work begins.
    """
    told("describing the groups")
    described = _described(log)
    doubt = described["filtered"]["verdict"]
    if described["groups"]["copies"] > 1 and doubt == "no":
        doubt = "perhaps"
    replay, rules, skipped = _replayed(log, low, high, discount, steps, seed, doubt, told)
    said = _limits(described, replay, rules)
    return {
        **described,
        "replay": replay,
        "rules": rules,
        "left_out": skipped,
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
    chances = left_out(k, n)
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
            "copies": _copies(k, n),
            "success_rate": float((k / n).mean()),
            "degenerate_share": float(degenerate.mean()),
            "all_wrong_share": float((k == 0).mean()),
            "all_right_share": float((k == n).mean()),
            "wasted_share": float(wasted_share(k, n)),
            "success_rate_histogram": histogram.tolist(),
            "interval_width_median": float(np.median(width)),
        },
        "filtered": {
            "all_right_chance": chances[0],
            "all_wrong_chance": chances[1],
            "verdict": _filtered((k == n, k == 0), chances),
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


def _copies(k: IntArray, n: IntArray) -> int:
    """Return how many times the log was given, as far as counts tell: the common divisor of all of them, or 1.

    If n is even and 0 < k < n, k is even with a chance of at most 1/2, for any success rate; likewise for multiples of
    3, 4, and so on. Groups that are half right do not count, since they may have been chosen so.
    """
    telling = (k > 0) & (k < n) & (2 * k != n)
    return int(np.gcd.reduce(np.concatenate([k, n]))) if telling.sum() >= LEAST_TELLING else 1


def _filtered(kinds: tuple[BoolArray, BoolArray], chances: tuple[float, float]) -> str:
    """Return whether groups that are all right, or all wrong, were left out: "yes", "perhaps" or "no"."""
    if min(chances) < IMPROBABLE:
        return "yes"
    doubt = (not kind.any() and chance < DOUBTFUL for kind, chance in zip(kinds, chances, strict=True))
    return "perhaps" if any(doubt) else "no"


def _replayed(
    log: Log, low: int | None, high: int | None, discount: float, steps: int, seed: int, filtered: str, told: Any
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
    skipped: dict[str, str] = {}
    fitting = int(MOST_ENTRIES // float(np.max(size * size * mean) * (most - least + 1)))
    for name, rule in ALLOCATORS.items():
        if name in ORACLES:
            skipped[name] = "needs exact moments of the policy gradient, which no log holds"
            continue
        if spends_in_rounds(rule):
            skipped[name] = "asks for outcomes of the step itself, and more of them than the log may hold"
            continue
        told(f"replaying {name}")
        part = every
        if name == "log-progress":
            if fitting < min(10, chosen.size):
                skipped[name] = "its dynamic programme would take too long on steps of this size"
                continue
            part = np.flatnonzero(np.isin(t, _spaced(chosen, fitting)))
        try:
            counts = log_replay.replay(
                rule, t[part], past_k[part], past_n[part], n[part], least, most, np.random.default_rng(seed)
            )
        except ValueError as error:
            skipped[name] = str(error)
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
        "uniform_log": bool(np.array_equal(np.sort(n), np.sort(allocated["uniform"][1]))),
        "rollouts_past_mean": float(past_n.mean()),
    }
    told("comparing")
    return replay, _compared(t, k, n, (past_k, past_n), allocated, filtered), skipped


def _spaced(steps: IntArray, most: int) -> IntArray:
    """Return at most so many of the steps, evenly spaced, the last one included."""
    if steps.size <= most:
        return steps
    return np.asarray(steps[np.linspace(steps.size - 1, 0, most).round().astype(np.int64)[::-1]])


def _compared(
    t: IntArray,
    k: IntArray,
    n: IntArray,
    past: tuple[FloatArray, FloatArray],
    allocated: dict[str, Allocated],
    filtered: str,
) -> dict[str, Any]:
    """Return, for every rule, noise, weights and degenerate groups against uniform and against the log."""
    _, index, size = np.unique(t, return_inverse=True, return_counts=True)
    scale = 1.0 / size[index].astype(np.float64) ** 2  # The gradient of a step is the mean over its prompts.
    uniform = allocated["uniform"][1]

    def against(m: IntArray, part: IntArray, other: IntArray) -> dict[str, NoiseRatio]:
        seen = k[part], n[part], past[0][part], past[1][part]
        return {x: noise_ratio(*seen, m, other[part], scale[part], x) for x in NOISE_ESTIMATORS}

    rules: dict[str, dict[str, Any]] = {}
    for name, (part, m) in allocated.items():
        degenerate = log_estimates.degenerate_bounds(k[part], n[part], m)
        rate, of = k[part] / n[part], uniform[part]
        weights = [log_estimates.implied_weights(k[part], n[part], x, "grpo") for x in (m, of)]
        of_uniform = against(m, part, uniform)
        plain = of_uniform["exact-baseline"]
        rules[name] = {
            "steps": int(np.unique(t[part]).size),
            "noise_against_uniform": _plain(of_uniform),
            "noise_against_log": _plain(of_uniform if np.array_equal(n, uniform) else against(m, part, n)),
            "degenerate_share": [float(max(x.mean(), 0.0)) for x in degenerate],
            "wasted_share": [float(max((m * x).sum() / m.sum(), 0.0)) for x in degenerate],
            "weight_moved_token_mean": float(log_estimates.moved_weight(t[part], m, of).mean()),
            "weight_moved_prompt_mean_grpo": float(log_estimates.moved_weight(t[part], *weights).mean()),
            "success_rate_of_a_rollout": float((m * rate).sum() / m.sum()),
            "verdict": _verdict(plain, filtered),
            "p_value_of_all": None,
        }
    # One family: noise p (1 - p) / n of every rule that differs from uniform.
    family = [name for name, x in rules.items() if x["noise_against_uniform"]["exact-baseline"]["method"] != "same"]
    if family and filtered != "yes":
        adjusted = holm([rules[name]["noise_against_uniform"]["exact-baseline"]["p_value"] for name in family])
        for name, p_value in zip(family, adjusted.tolist(), strict=True):
            rules[name]["p_value_of_all"] = p_value
    return rules


def _plain(ratios: dict[str, NoiseRatio]) -> dict[str, Any]:
    return {
        name: {"point": [*x.bounds], "interval": [*x.interval], "p_value": x.p_value, "method": x.method}
        for name, x in ratios.items()
    }


def _verdict(ratio: NoiseRatio, filtered: str) -> str:
    if filtered == "yes":
        return WITHHELD
    if ratio.method == "same":
        return "the same"
    low, high = ratio.interval
    if low is None or high is None or low <= 1 <= high:
        return UNCLEAR
    return ("less noise" if high < 1 else "more noise") + ("?" if filtered == "perhaps" else "")


def _missing(described: dict[str, Any]) -> list[str]:
    """Return sentences on kinds of groups that the log lacks."""
    said, filtered = [], described["filtered"]
    for kind, near in (("right", "wrong"), ("wrong", "right")):
        share, chance = described["groups"][f"all_{kind}_share"], filtered[f"all_{kind}_chance"]
        found = f"{round(share * described['log']['groups']):,}" if share else "None"
        if chance < IMPROBABLE:
            said.append(
                f"{found} of {described['log']['groups']:,} groups are all {kind}. Beside the groups with one or two "
                f"{near} rollouts so few have a chance of at most {max(chance, 1e-12):.0e}. Such groups were left out "
                "(dynamic sampling), or the sizes of groups followed their own rewards. All numbers are biased, and no "
                "verdict is given."
            )
        elif not share and chance < DOUBTFUL:
            said.append(
                f"No group is all {kind}. Beside the groups with one or two {near} rollouts this has a chance of at "
                f"most {chance:.1%}: such groups may have been left out (dynamic sampling). If they were, all numbers "
                "are biased, so verdicts have a question mark."
            )
        elif not share and chance < 1:
            said.append(
                f"No group is all {kind}, and the log is too small to say whether such groups were left out. If they "
                "were, all numbers are biased."
            )
    return said


def _copied(copies: int) -> list[str]:
    """Return a sentence on a log that may have been given several times."""
    if copies == 1:
        return []
    seen, times = ("even", "twice") if copies == 2 else (f"a multiple of {copies}", f"{copies} times")
    return [
        f"Every number of rollouts and of successes is {seen}: was the log given {times}? If it was, all intervals are "
        f"too narrow, by a factor of {np.sqrt(copies):.1f}, so verdicts have a question mark."
    ]


def _unclear(rules: dict[str, Any]) -> list[str]:
    """Return sentences on the rules that are not told from uniform, by reason."""
    names: dict[bool, list[str]] = {False: [], True: []}
    for name, x in rules.items():
        if x["verdict"] == UNCLEAR and name != "log":
            names[x["noise_against_uniform"]["exact-baseline"]["method"] == "none"].append(name)
    reasons = {
        False: "1 is in the interval.",
        True: "no replayed group has both right and wrong responses, so there is no noise to compare.",
    }
    return [
        f"Whether {', '.join(some)} make{'s' * (len(some) == 1)} more or less noise than uniform: {reasons[none]}"
        for none, some in names.items()
        if some
    ]


def _limits(described: dict[str, Any], replay: dict[str, Any] | None, rules: dict[str, Any]) -> list[str]:
    """Return, in plain sentences, which questions these data leave open."""
    groups = described["groups"]
    said = [*_copied(groups["copies"]), *_missing(described)]
    if replay is None and described["prompts"]["seen_once"] < described["log"]["prompts"]:
        said.append(
            "Prompts come back in later steps, but in groups of one rollout only. No group of two or more has a "
            "history, and so no rule can be replayed."
        )
    elif replay is None:
        said.append(
            "No prompt comes back in a later step: rules that learn from earlier steps have nothing to learn from, and "
            "all of them are the uniform allocation."
        )
    if groups["of_one"]:
        said.append(
            f"{groups['of_one']:,} groups of one rollout have no variance: they count for the history, and are left "
            "out of the replays with their rollouts."
        )
    if replay is None:
        return said
    if replay["groups_with_history_share"] < 0.5:
        said.append(
            f"Only {replay['groups_with_history_share']:.0%} of the groups in the replayed steps have a history: the "
            "rules are nearly uniform here, and would differ more in a longer run."
        )
    said += _unclear(rules)
    said.append(
        "What other prompts, steps or runs would show: the intervals are for the prompts, the steps and the policies "
        "of this log."
    )
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
