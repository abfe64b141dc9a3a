"""Every number of an audit against a loop over its groups, on a log whose groups differ in size and order."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from math import comb

import numpy as np
import pytest

from scale.audit import audit, comparison, read_log
from scale.audit.log import Log
from tests.scale.audit.logs import simulated, write
from theory.allocation import log_replay
from theory.allocation.log_estimates import degenerate_bounds, noise_bounds
from theory.allocation.log_intervals import NoiseRatio, left_out, noise_ratio
from theory.allocation.rules import Neyman, Uniform
from theory.estimators import implied_weight


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Read the log of a made run of DynaMO's rule; a tenth of the rollouts is lost, and every third step is smaller."""
    rng = np.random.default_rng(0)
    table = simulated(4, "dynamo", steps=14)
    table = table[(rng.random(len(table)) < 0.9) & ((table.step % 3 != 0) | table.prompt.str.contains("[02468] "))]
    lonely = table.prompt.str.contains("[0357] ") & table.step.isin([1, 2, 12, 13])
    table = table[~(lonely & table.duplicated(["step", "prompt"]))]
    return read_log([write(table.sample(frac=1, random_state=1), "parquet", tmp_path_factory.mktemp("log"))])


@pytest.fixture(scope="module")
def found(log):
    return audit(log, 3, 13)


def groups(log):
    return list(zip(*(x.tolist() for x in (log.step, log.prompt, log.successes, log.attempts)), strict=True))


def test_what_is_said_of_the_groups(log, found):
    every = groups(log)
    told = found["groups"]
    assert told["rollouts_mean"] == pytest.approx(np.mean([n for *_, n in every]))
    assert (told["rollouts_min"], told["rollouts_max"]) == (log.attempts.min(), log.attempts.max())
    assert told["of_one"] == sum(n == 1 for *_, n in every)
    assert {k for *_, k, n in every if n == 1} == {0, 1}
    assert told["success_rate"] == pytest.approx(np.mean([k / n for *_, k, n in every]))
    wrong, right = (np.array(kind) for kind in zip(*((k == 0, k == n) for *_, k, n in every), strict=True))
    assert told["all_wrong_share"] == pytest.approx(wrong.mean())
    assert told["all_right_share"] == pytest.approx(right.mean())
    assert told["degenerate_share"] == pytest.approx((wrong | right).mean())
    assert told["wasted_share"] == pytest.approx(log.attempts[wrong | right].sum() / log.attempts.sum())
    sizes = np.bincount(log.attempts)
    common = int(sizes.argmax())
    assert common < log.attempts.max()
    expected = np.zeros(common + 1, dtype=int)
    for *_, k, n in every:
        expected[round(k / n * common)] += 1
    assert told["success_rate_histogram"] == expected.tolist()


def test_what_is_said_of_the_prompts(log, found):
    visits, changes = defaultdict(list), []
    for _, prompt, k, n in sorted(groups(log)):
        visits[prompt].append((k, n))
    for of_prompt in visits.values():
        known = [(k, n) for k, n in of_prompt if n >= 2]
        for (k, n), (later, of) in pairwise(known):
            noise = k * (n - k) / (n * (n - 1) * n) + later * (of - later) / (of * (of - 1) * of)
            changes.append((k / n - later / of) ** 2 - noise)
    told = found["prompts"]
    assert told["visits_mean"] == pytest.approx(np.mean([len(x) for x in visits.values()]))
    assert told["seen_once"] == sum(len(x) == 1 for x in visits.values())
    assert told["pairs_of_visits"] == len(changes)
    assert told["change_between_visits"] == pytest.approx(np.sqrt(np.mean(changes)))
    assert 0 < told["change_between_visits"] < 1
    rates = [sum(k for k, _ in x) / sum(n for _, n in x) for x in visits.values()]
    for percent, value in told["success_rate_quantiles"].items():
        assert value == pytest.approx(np.percentile(rates, int(percent)))


def test_degenerate_groups_by_step(log, found):
    by_step = defaultdict(list)
    for step, _, k, n in groups(log):
        by_step[step].append(k in (0, n))
    assert found["degenerate_by_step"]["step"] == sorted(by_step)
    assert found["degenerate_by_step"]["share"] == pytest.approx([np.mean(by_step[t]) for t in sorted(by_step)])


@pytest.mark.parametrize(("name", "rule"), [("neyman", Neyman()), ("log", None)])
def test_what_is_said_of_a_rule(log, found, name, rule):
    past = np.stack(log_replay.past_counts(log.step, log.prompt, log.successes, log.attempts))
    rows = log.attempts >= 2
    informed = np.unique(log.step[rows & (past[1] > 0)])
    rows &= np.isin(log.step, informed)
    t, k, n = log.step[rows], log.successes[rows], log.attempts[rows]
    replayed = (t, *past[:, rows], n, 3, 13, np.random.default_rng(0))
    uniform = log_replay.replay(Uniform(), *replayed)
    m = n if rule is None else log_replay.replay(rule, *replayed)
    steps = [np.flatnonzero(t == step) for step in np.unique(t)]
    assert len({len(x) for x in steps}) > 1, "steps of one size have one weight"
    told = found["rules"][name]
    assert told["steps"] == len(steps)
    assert told["success_rate_of_a_rollout"] == pytest.approx((m * k / n).sum() / m.sum())

    degenerate = degenerate_bounds(k, n, m)
    assert told["degenerate_share"] == pytest.approx([x.mean() for x in degenerate])
    assert told["wasted_share"] == pytest.approx([(m * x).sum() / m.sum() for x in degenerate])

    def moved(weights, reference):
        shares = [[w[x] / w[x].sum() for x in steps] for w in (weights, reference)]
        return np.mean([np.abs(a - b).sum() / 2 for a, b in zip(*shares, strict=True)])

    assert told["weight_moved_token_mean"] == pytest.approx(moved(m, uniform))
    guess = (k + 0.5) / (n + 1)
    by_prompt = moved(*(implied_weight(guess, x, "grpo") for x in (m, uniform)))
    assert told["weight_moved_prompt_mean_grpo"] == pytest.approx(by_prompt)
    assert min(told["weight_moved_token_mean"], by_prompt) > 0.001

    size = np.array([(t == step).sum() for step in t])
    for base, other in (("uniform", uniform), ("log", n)):
        for estimator in ("exact-baseline", "rloo", "grpo"):
            (least, most), (low, high) = (noise_bounds(k, n, counts, estimator) for counts in (m, other))
            ends = [(x / size**2).sum() / (y / size**2).sum() for x, y in ((least, high), (most, low))]
            told_noise = told[f"noise_against_{base}"][estimator]
            assert told_noise["point"] == pytest.approx([1.0] * 2 if np.array_equal(m, other) else ends)
            interval = noise_ratio(k, n, *past[:, rows], m, other, 1 / size**2, estimator)
            assert told_noise["interval"] == pytest.approx([*interval.interval])
            assert (told_noise["p_value"], told_noise["method"]) == (interval.p_value, interval.method)
    assert found["filtered"] == {
        "all_right_chance": left_out(log.successes, log.attempts)[0],
        "all_wrong_chance": left_out(log.successes, log.attempts)[1],
        "verdict": "no",
    }


def test_the_rules_that_differ_from_uniform_are_one_family(found):
    """Holm by hand: the least of m p-values times m, the next times m - 1, never less than the one before."""
    noise = {name: rule["noise_against_uniform"]["exact-baseline"] for name, rule in found["rules"].items()}
    differ = sorted((x["p_value"], name) for name, x in noise.items() if x["method"] != "same")
    assert 3 < len(differ) < len(noise)
    adjusted, most = {}, 0.0
    for rank, (p_value, name) in enumerate(differ):
        adjusted[name] = most = min(1.0, max(most, (len(differ) - rank) * p_value))
    told = {name: rule["p_value_of_all"] for name, rule in found["rules"].items()}
    assert {name: x for name, x in told.items() if x is not None} == pytest.approx(adjusted)


def made(groups_of_a_step, num_steps):
    """Return a log of which every step has the same groups (k, n), of one prompt each."""
    k, n = np.tile(np.array(groups_of_a_step).T, num_steps)
    num = len(groups_of_a_step)
    texts = tuple(f"prompt {i}" for i in range(num))
    step, prompt = np.repeat(np.arange(1, num_steps + 1), num), np.tile(np.arange(num), num_steps)
    return Log("csv", (), texts, step, prompt, n, k, "", ())


def test_shares_of_degenerate_groups_are_never_below_zero():
    """Groups all but one right say that larger ones are degenerate less than never; the estimate is cut at 0."""
    told = audit(made([(3, 4), (1, 4), (1, 2)], 8), 2, 8)["rules"]
    larger = [rule for rule in told.values() if rule["steps"] and min(rule["degenerate_share"]) == 0.0]
    assert larger
    for rule in told.values():
        assert min(rule["wasted_share"] + rule["degenerate_share"]) >= 0.0
    assert any(min(rule["wasted_share"]) == 0.0 for rule in larger)


@pytest.mark.parametrize("missing", ["right", "wrong"])
def test_a_log_without_a_kind_of_groups_is_doubted(missing):
    """The log of `left_out`'s example, where the missing kind has a chance of 0.0384, and its mirror image."""
    k = [7] * 12 + [6] * 9 + [3, 2, 5, 1, 1, 1, 1] + [0] * 4
    some = [(x if missing == "right" else 8 - x, 8) for x in k]
    filtered = comparison._described(made(some, 1))["filtered"]
    assert comparison.IMPROBABLE < filtered[f"all_{missing}_chance"] < comparison.DOUBTFUL
    assert filtered["verdict"] == "perhaps"
    there = comparison._described(made([*some, (8, 8), (0, 8)], 1))["filtered"]
    assert there["verdict"] == "no"


@pytest.mark.parametrize(
    ("low", "high", "method", "verdict"),
    [
        (0.8, 0.99, "unbiased", "less noise"),
        (0.8, 1.0, "unbiased", "cannot say"),
        (1.01, 1.2, "predicted", "more noise"),
        (1.0, 1.2, "predicted", "cannot say"),
        (1.0, 1.0, "same", "the same"),
        (None, None, "none", "cannot say"),
        (1.2, None, "predicted", "cannot say"),
    ],
)
def test_verdicts_follow_from_intervals(low, high, method, verdict):
    ratio = NoiseRatio((low, high), (low, high), 0.5, method)
    assert comparison._verdict(ratio, "no") == verdict
    assert comparison._verdict(ratio, "perhaps") == verdict + "?" * verdict.endswith(" noise")
    assert comparison._verdict(ratio, "yes") == "withheld"


def test_filtered_perhaps_only_if_none_is_there():
    some, none = np.array([True, False]), np.zeros(2, dtype=bool)
    for kinds, chances, expected in (
        ((none, some), (0.09, 1.0), "perhaps"),
        ((some, some), (0.09, 1.0), "no"),
        ((none, none), (0.11, 0.5), "no"),
        ((some, none), (0.5, 0.09), "perhaps"),
        ((some, some), (0.5, 0.001), "yes"),
    ):
        assert comparison._filtered(kinds, chances) == expected


def test_bounds_follow_from_the_means_of_the_steps(log):
    """Half of the least mean of a replayed step, and one and a half times the largest, rounded outwards."""
    sizes = defaultdict(list)
    seen = set()
    informed = set()
    for step, prompt, _, n in groups(log):
        informed |= {step} if prompt in seen and n > 1 else set()
        sizes[step] += [n] if n > 1 else []
        seen.add(prompt)
    means = [np.mean(sizes[step]) for step in informed]
    assert min(means) // 2 < max(means) // 2
    replay = audit(log)["replay"]
    assert (replay["low"], replay["high"]) == (min(means) // 2, np.ceil(1.5 * max(means)))


@pytest.mark.parametrize("times", [2, 3, 4, 5, 6])
def test_multiples_have_a_chance_of_a_half_at_most(times):
    """Of groups with both outcomes, for any success rate, where half right does not count if it is a multiple."""
    p = np.linspace(0.001, 0.999, 999)[:, None]
    for n in range(times, 65, times):
        k = np.array([k for k in range(1, n) if 2 * k != n or k % times])
        chance = np.array([comb(n, x) for x in k.tolist()], dtype=float) * p**k * (1 - p) ** (n - k)
        if k.size:
            assert (chance[:, k % times == 0].sum(axis=1) / chance.sum(axis=1)).max() <= 0.5 + 1e-12


@pytest.mark.parametrize(
    ("k", "n", "copies"),
    [
        ([2, 6] * 5 + [0, 8], [8] * 12, 2),
        ([3, 6] * 5 + [0, 9], [9] * 12, 3),
        ([2, 6] * 4 + [2, 0, 8], [8] * 11, 1),
        ([2, 6] * 5 + [1], [8] * 11, 1),
        ([2, 6] * 5 + [0], [8] * 10 + [7], 1),
        ([4] * 20, [8] * 20, 1),
    ],
)
def test_a_common_divisor_of_all_counts_is_a_number_of_copies(k, n, copies):
    assert comparison._copies(np.array(k), np.array(n)) == copies


def test_copies_are_seldom_seen_where_there_are_none():
    """Also in small logs, at the rates at which even counts are commonest."""
    rng = np.random.default_rng(0)
    for num, n, p in ((5, 8, 0.5), (12, 8, 0.5), (15, 4, 0.5), (40, 4, 0.9), (20, 8, 0.99)):
        alarms = [comparison._copies(rng.binomial(n, p, num), np.full(num, n)) > 1 for _ in range(3000)]
        assert np.mean(alarms) < 0.005


@pytest.mark.parametrize(("most", "expected"), [(1, [9]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, list(range(10)))])
def test_steps_are_spaced_up_to_the_last(most, expected):
    assert comparison._spaced(np.arange(10), most).tolist() == expected
