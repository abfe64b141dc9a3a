"""Rows A3 to A11: their numbers again, by sums over all k that share no code with them; faults that turn them red."""

from __future__ import annotations

from itertools import pairwise, product
from math import comb, sqrt

import numpy as np
import pytest
import torch
from scipy import stats

from theory import allocation
from theory.allocation.rules import dynamo
from theory.claims import LEDGER, allocation as rows_of_a9, estimators as claims, variance_reduction
from theory.claims.ledger import Author, Verdict
from theory.estimators import moments

ROWS = {row.id: row for row in LEDGER if row.id in {f"A{i}" for i in range(1, 12)}}
FINDINGS: dict[str, dict[str, float]] = {}


def numbers(id: str) -> dict[str, float]:
    """Return a row's numbers, judged once for all tests."""
    if id not in FINDINGS:
        FINDINGS[id] = dict(ROWS[id].judge().numbers)
    return FINDINGS[id]


def binomial(k: int, n: int, p: float) -> float:
    return comb(n, k) * p**k * (1 - p) ** (n - k)


def advantages(k: int, n: int, estimator: str) -> list[float]:
    """Return what a group of rewards 1 (k times) and 0 gives to each rollout."""
    rewards = [1.0] * k + [0.0] * (n - k)
    if estimator == "rloo":
        return [r - (sum(rewards) - r) / (n - 1) for r in rewards]
    deviation = float(np.std(rewards))
    return [(r - k / n) / deviation if deviation > 0 else 0.0 for r in rewards]


def group(p: float, n: int, estimator: str, v_right: float, v_wrong: float, distance: float) -> tuple[float, float]:
    """Return trace variance and weight of a group's gradient, from the spreads of scores given right and wrong, |d|^2.

    A right score is q d on average, a wrong one -p d.
    """
    within, first, second = 0.0, 0.0, 0.0
    for k in range(n + 1):
        a = advantages(k, n, estimator)
        along = (sum(a[:k]) * (1 - p) - sum(a[k:]) * p) / n
        spread = (sum(x * x for x in a[:k]) * v_right + sum(x * x for x in a[k:]) * v_wrong) / n**2
        within += binomial(k, n, p) * spread
        first += binomial(k, n, p) * along
        second += binomial(k, n, p) * along**2
    return within + (second - first**2) * distance, first / (p * (1 - p))


SPREADS = {"binary": (0.0, 0.0, 2.0), "diffuse": (127 / 128, 127 / 128, 2 / 128)}
"""v given right and wrong, |d|^2: one answer on each side, and 128 alike on each."""


def test_every_row_says_its_regime_and_its_author() -> None:
    assert all(row.regime for row in ROWS.values())
    assert [row.id for row in ROWS.values() if row.said_by is not Author.PAPER] == ["A5", "A10"]
    assert [row.id for row in ROWS.values() if row.by_construction] == ["A9"]


def test_pooled_history_over_all_pairs_of_counts() -> None:
    pairs = list(product(range(17), repeat=2))
    pooled = sum(binomial(i, 16, 0.1) * binomial(j, 16, 0.9) * (i + j) * (32 - i - j) / (32 * 31) for i, j in pairs)
    assert numbers("A3")["moved"] == pytest.approx(pooled, rel=1e-12)
    assert round(pooled, 3) == 0.255


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_sizes_that_follow_the_estimate_bias_it(p: float) -> None:
    """Two prompts share 32 rollouts in proportion to P and 1/4, within [8, 24]; the larger remainder is rounded up."""
    mean = 0.0
    for i in range(17):
        estimate = i * (16 - i) / (16 * 15)
        share = min(max(32 * estimate / (estimate + 0.25), 8.0), 24.0)
        n = int(share) + (share % 1 >= 0.5)
        for j in range(n + 1):
            k, g = i + j, 16 + n
            mean += binomial(i, 16, p) * binomial(j, n, p) * k * (g - k) / (g * (g - 1))
    assert numbers("A3")[f"bias_at_{p}"] == pytest.approx(mean / (p * (1 - p)) - 1, rel=1e-9)


def level(weights: np.ndarray, mean: float) -> np.ndarray:
    """Return real shares clip(c w, 8, 24) with this mean, by bisection."""
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * weights, 8, 24).mean() < mean else (low, middle)
    return np.clip(low * weights, 8, 24)


def test_cost_of_the_variance_in_place_of_the_deviation() -> None:
    """By bisection over the reals; two values at 1 : 3 just reach both bounds, where the cost is largest."""
    rng = np.random.default_rng(24)
    cost, kept = [], []
    for a in (0.1, 0.3, 0.7, 1.0, 2.0, 5.0):
        p = np.clip(rng.beta(a, a, size=512), 1e-3, 1 - 1e-3)
        v = p * (1 - p)
        published, root = (16 * (v / level(w, 16)).sum() / v.sum() for w in (v, np.sqrt(v)))
        cost.append(published - root)
        kept.append((1 - published) / (1 - root))
        assert published <= 1 + 1e-9
    found = numbers("A4")
    assert found["largest_cost"] == pytest.approx(max(cost), abs=1e-3)
    assert found["kept_at_0.1"] == pytest.approx(kept[0], abs=0.01)
    assert found["kept_at_1"] == pytest.approx(kept[3], abs=0.03)
    assert 0.06 < found["two_valued_cost"] < 1 - (1 + sqrt(1 / 3)) ** 2 / (2 * 4 / 3)


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_batches_half_of_which_are_hopeless(estimator: str) -> None:
    def variance(p: float, n: int) -> float:
        return group(p, n, estimator, *SPREADS["binary"])[0]

    for text, p in (("1e-06", 1e-6), ("1e-04", 1e-4), ("1e-03", 1e-3), ("1e-02", 1e-2)):
        ratio = (variance(0.5, 24) + variance(p, 8)) / (variance(0.5, 16) + variance(p, 16))
        assert numbers("A5")[f"{estimator}_at_{text}"] == pytest.approx(ratio, rel=1e-8)
    p = numbers("A5")[f"{estimator}_halved_up_to"]
    assert 2 * (variance(0.5, 24) + variance(p, 8)) == pytest.approx(variance(0.5, 16) + variance(p, 16), rel=1e-8)
    assert p == pytest.approx({"grpo": 1.18e-4, "rloo": 3.63e-4}[estimator], rel=0.005)
    assert numbers("A5")[f"floor_{estimator}"] == pytest.approx(variance(0.5, 24) / variance(0.5, 16), rel=1e-9)


@pytest.mark.parametrize(("population", "estimator"), list(product(SPREADS, ("rloo", "grpo"))))
def test_batches_half_of_which_are_less_sure(population: str, estimator: str) -> None:
    """At p = .3 the weights are .25 and .21 and the shares 17.4 and 14.6: largest remainders round to 17 and 15."""

    def variance(p: float, n: int) -> float:
        return group(p, n, estimator, *SPREADS[population])[0]

    ratio = (variance(0.5, 17) + variance(0.3, 15)) / (variance(0.5, 16) + variance(0.3, 16))
    assert variance_reduction._variance_left(population, 0.3, estimator) == pytest.approx(ratio, rel=1e-9)


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_no_policy_leaves_less_than_the_floor(estimator: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        p, n = float(rng.choice([0.5, rng.random(), 10 ** -rng.uniform(2, 4)])), int(rng.integers(8, 25))
        parts = rng.random(3) ** 4 * (rng.random(3) < 0.7) + [0, 0, 1e-9]
        ratio = group(p, n, estimator, *parts)[0] / group(p, 16, estimator, *parts)[0]
        assert ratio > numbers("A5")[f"floor_{estimator}"] - 1e-9


def test_how_far_the_variance_is_from_one_over_n() -> None:
    def change(p: float, estimator: str, population: str = "diffuse") -> float:
        scaled = [n * group(p, n, estimator, *SPREADS[population])[0] for n in range(8, 25)]
        return max(scaled) / min(scaled) - 1

    found = numbers("A6")
    assert change(0.5, "rloo") == pytest.approx(found["diffuse_rloo"], abs=0.002)
    assert change(0.5, "rloo", "binary") == pytest.approx(found["binary_rloo"], rel=1e-9)
    assert change(0.01, "grpo") == pytest.approx(found["diffuse_grpo"], rel=1e-9)
    assert (found["steady_from"], found["steady_to"]) == (0.23, 0.77)
    assert [change(p, "grpo") < 0.15 for p in (0.22, 0.23, 0.77, 0.78)] == [False, True, True, False]


def test_rank_correlations_of_the_variance_with_the_proxies() -> None:
    """From the moments of each bandit's own gradient."""
    rng = np.random.default_rng(28)
    rows = []
    while len(rows) < 2496:
        size = int(rng.choice([2, 4, 16, 64, 256]))
        z = rng.normal(size=size) * rng.uniform(0.2, 4)
        right = rng.random(size) < rng.uniform(0.1, 0.9)
        right[np.argmax(z)], right[np.argmin(z)] = rng.permutation([True, False])
        pi = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        p = pi[right].sum()
        if p * (1 - p) >= 1e-6:
            variance = moments.gradient_moments(pi, right, 16, "grpo").variance
            rows.append((p * (1 - p), 1 - (pi**2).sum(), -(pi * np.log(pi)).sum(), float(variance)))
    bernoulli, collision, entropy, variance = np.array(rows).T
    expected = {"bernoulli": bernoulli, "collision": collision, "entropy": entropy, "with_entropy": bernoulli * entropy}
    for name, values in expected.items():
        rank = stats.spearmanr(variance, values).statistic
        assert numbers("A8")[f"grpo_{name}"] == pytest.approx(rank, abs=1e-6), name
        assert rank > 0


def test_order_of_chains() -> None:
    """A fair coin's score is (1/2, -1/2) or its negative: squared norm 1/2, and it says nothing of the reward."""
    p = np.linspace(0.02, 0.98, 49)
    proxy = np.round(p * (1 - p), 12)
    chains = {"equal": [64], "long": [256], "mixed": [4, 8, 16, 32, 64]}
    for estimator, (name, lengths) in product(("rloo", "grpo"), chains.items()):
        variance = [[group(x, 16, estimator, length / 2, length / 2, 2.0)[0] for x in p] for length in lengths]
        rank = stats.spearmanr(np.tile(proxy, len(lengths)), np.round(variance, 12).ravel()).statistic
        assert numbers("A7")[f"chain_{name}_{estimator}"] == pytest.approx(rank, abs=1e-6)


@pytest.mark.parametrize(("num_tokens", "shared"), [(1, False), (2, False), (3, False), (3, True)])
def test_moments_of_a_chain_by_automatic_differentiation(num_tokens: int, shared: bool) -> None:
    results = claims._chains(np.random.default_rng(5), num_tokens, shared)
    rng = np.random.default_rng(5)  # the same draws again, in the same order
    prefixes = [x for t in range(num_tokens) for x in product(range(3), repeat=t)]
    trajectories = list(product(range(3), repeat=num_tokens))
    logits = rng.normal(size=(300, 1 if shared else len(prefixes), 3)) * rng.uniform(0.2, 2, size=(300, 1, 1))
    coins = np.zeros((300, len(trajectories))) if shared else rng.integers(2, size=(300, len(trajectories)))
    coins[:, 0], coins[:, -1] = 1, 0
    for i in range(3):
        z = torch.tensor(logits[i], requires_grad=True)
        scores, chances, plain = [], [], 0.0
        for x in trajectories:
            rows = [0 if shared else prefixes.index(x[:t]) for t in range(num_tokens)]
            log_prob = sum(torch.log_softmax(z[r], -1)[action] for r, action in zip(rows, x, strict=True))
            (score,) = torch.autograd.grad(log_prob, z)
            scores.append(score.flatten().numpy())
            chances.append(float(log_prob.detach().exp()))
            plain += chances[-1] * sum(1 - (torch.softmax(z[r].detach(), -1) ** 2).sum().item() for r in rows)
        chance, score, reward = np.array(chances), np.array(scores), coins[i]
        p = float(chance @ reward)
        samples = (reward - p)[:, None] * score
        variance = float(chance @ (samples**2).sum(1) - ((chance @ samples) ** 2).sum())
        expected = (variance, p * (1 - p) * plain, float(chance @ (score**2).sum(1)), plain)
        np.testing.assert_allclose([each[i] for each in results], expected, rtol=1e-10)


@pytest.mark.parametrize("mean", ["prompt_mean", "token_mean"])
def test_weight_of_a_rare_success(mean: str) -> None:
    few, many = (group(0.05, n, "grpo", *SPREADS["binary"])[1] for n in (8, 24))
    factor = 3 if mean == "token_mean" else 1
    assert numbers("A10")[f"{mean}_grpo"] == pytest.approx(factor * many / few, rel=1e-9)
    for name, p in (("least_growth", 0.5), ("most_growth", 0.01)):
        few, many = (group(p, n, "grpo", *SPREADS["binary"])[1] for n in (8, 24))
        assert numbers("A10")[name] == pytest.approx(many / few, rel=1e-9)


def test_a_weight_that_does_not_rise_with_n_turns_a10_red(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = moments.implied_weight
    monkeypatch.setattr(moments, "implied_weight", lambda p, n, e: weight(p, np.full_like(n, 16), e))
    assert ROWS["A10"].judge().verdict is Verdict.FAILS


@pytest.mark.parametrize(("population", "estimator"), list(product(SPREADS, ("rloo", "grpo"))))
def test_the_rule_against_uniform_by_three_criteria(population: str, estimator: str) -> None:
    p = np.clip(np.random.default_rng(30).beta(0.7, 0.7, size=512), 0.02, 0.98)
    counts = allocation.water_level(p * (1 - p), 16 * 512, 8, 24)
    rule, uniform = (
        np.array([group(x, int(m), estimator, *SPREADS[population]) for x, m in zip(p, n, strict=True)]).T
        for n in (counts, np.full(512, 16))
    )
    true = (p * (1 - p)) ** 2 * SPREADS[population][2]
    found = {name.removesuffix(f"_{population}_{estimator}"): value for name, value in numbers("A11").items()}
    assert numbers("A11")[f"{population}_{estimator}_P"] == pytest.approx(rule[0].sum() / uniform[0].sum(), rel=1e-9)
    one, own = uniform[0] / uniform[1] ** 2, uniform[1] ** 2
    assert found["same_objective"] == pytest.approx((rule[0] / rule[1] ** 2).sum() / one.sum(), rel=1e-9)
    assert found["own_objective"] == pytest.approx((rule[0] / rule[1] ** 2 * own).sum() / (one * own).sum(), rel=1e-9)
    for name, (variance, weight), shares in (
        ("uniform", uniform, np.ones(512)),
        ("prompt_mean", rule, np.ones(512)),
        ("token_mean", rule, counts / counts.sum()),
    ):
        second_moment = (shares**2 * (variance + weight**2 * true)).sum()
        cosine = (shares * weight * true).sum() / sqrt(true.sum() * second_moment)
        assert found[f"cosine_{name}"] == pytest.approx(cosine, rel=1e-9)


def ratio_of_the_rule(p: np.ndarray, estimator: str, spreads: tuple[float, float, float]) -> float:
    counts = allocation.water_level(p * (1 - p), 16 * len(p), 8, 24)
    rule = sum(group(x, int(n), estimator, *spreads)[0] for x, n in zip(p, counts, strict=True))
    return rule / sum(group(x, 16, estimator, *spreads)[0] for x in p)


@pytest.mark.parametrize(("a", "b", "clip"), [(0.1, 0.1, 1e-4), (0.3, 0.3, 0.02), (2.0, 2.0, 1e-4), (0.3, 1.0, 1e-4)])
def test_the_population_decides_whether_the_rule_is_below_uniform(a: float, b: float, clip: float) -> None:
    p = np.clip(stats.beta.ppf((np.arange(512) + 0.5) / 512, a, b), clip, 1 - clip)
    for estimator in ("rloo", "grpo"):
        found = numbers("A11")[f"binary_{estimator}_beta_{a}_{b}_{clip}"]
        assert found == pytest.approx(ratio_of_the_rule(p, estimator, SPREADS["binary"]), rel=1e-6)
    low, high = (numbers("A11")[f"{end}_binary_rloo_trace"] for end in ("least", "most"))
    assert low < 0.66
    assert high > 1.2


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_the_rule_on_long_chains_is_as_on_diffuse_answers(estimator: str) -> None:
    p = np.clip(np.random.default_rng(30).beta(0.7, 0.7, size=512), 0.02, 0.98)
    for length in (4, 1024):
        expected = ratio_of_the_rule(p, estimator, (length / 2, length / 2, 2.0))
        assert numbers("A11")[f"chain_{length}_{estimator}"] == pytest.approx(expected, rel=1e-9)
    assert numbers("A11")[f"chain_1024_{estimator}"] == pytest.approx(
        numbers("A11")[f"diffuse_{estimator}_P"], abs=0.002
    )


def test_a_rollout_that_is_not_spent_is_counted_in_every_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    """A valid allocation of one rollout too few: bounds and order hold, and only the budget is not met."""
    right, budgets = allocation.water_level, []

    def thrifty(weights, budget, low, high):
        budgets.append(budget)
        return right(weights, max(budget - 1, 0), low, high)

    monkeypatch.setattr(allocation, "water_level", thrifty)
    finding = ROWS["A9"].judge()
    assert finding.verdict is Verdict.FAILS
    assert finding.numbers["violations"] == np.count_nonzero(budgets[:2000]) < 2000


def test_equal_shares_differ_by_one_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """All prompts have little history, and one gives a rollout to another: budget and bounds still hold."""
    right, broken = allocation.allocate, []

    def unfair(allocator, problem, rng):
        counts = right(allocator, problem, rng).copy()
        giver, taker = np.argsort(counts, kind="stable")[:2] if len(counts) > 1 else (0, 0)
        moves = (problem.attempts < 4).all() and counts[giver] > problem.low and counts[taker] < problem.high
        counts[giver] -= moves
        counts[taker] += moves
        broken.append(bool(moves and giver != taker))
        return counts

    monkeypatch.setattr(allocation, "allocate", unfair)
    rng = np.random.default_rng(0)
    assert [rows_of_a9._violates_the_fallback(rng) for _ in range(200)] == broken
    assert 20 < sum(broken) < 180


def test_a7_is_conditional_only_where_an_order_is_reversed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With peaked answers in place of two the correlation is weak, but it has the claimed sign."""
    policy = claims.answer_policy
    instead = {"binary": "peaked", "peaked": "peaked", "diffuse": "diffuse"}
    monkeypatch.setattr(claims, "answer_policy", lambda population, p: policy(instead[population], p))
    finding = ROWS["A7"].judge()
    assert 0 < finding.numbers["binary_rloo"] < 0.2
    assert finding.verdict is Verdict.EXACT


@pytest.mark.parametrize(
    ("binary", "others", "expected"),
    [
        (0.5, 0.5, Verdict.EXACT),
        (0.5, 0.501, Verdict.CONDITIONAL),
        (0.501, 0.5, Verdict.FAILS),
    ],
)
def test_a_half_is_reached_somewhere_everywhere_or_nowhere(
    binary: float, others: float, expected: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {"binary": binary, "peaked": others, "diffuse": others}
    monkeypatch.setattr(variance_reduction, "_variance_left", lambda population, rare, estimator: left[population])
    assert ROWS["A5"].judge().verdict is expected


def forgets_the_fallback(counts):
    return lambda self, problem, rng: counts(dynamo.Dynamo(min_history=2), problem, rng)


@pytest.mark.parametrize(
    ("row", "module", "name", "fault"),
    [
        ("A4", allocation, "water_level", lambda f: lambda w, *args: f(np.asarray(w) ** 4, *args)),
        ("A5", allocation, "water_level", lambda f: lambda w, *args: f(np.ones_like(w), *args)),
        ("A9", dynamo.Dynamo, "counts", forgets_the_fallback),
    ],
)
def test_another_fault_turns_the_row_red(row: str, module, name: str, fault, monkeypatch) -> None:
    monkeypatch.setattr(module, name, fault(getattr(module, name)))
    assert ROWS[row].judge().verdict is not ROWS[row].recorded


def test_shares_that_leave_a_tenth_of_the_budget_turn_a1_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their marginal variances agree, so that only the free search finds better ones."""
    shares = allocation.proportional
    monkeypatch.setattr(allocation, "proportional", lambda *args: 0.9 * shares(*args))
    finding = ROWS["A1"].judge()
    assert finding.verdict is Verdict.FAILS
    assert finding.numbers["stationarity"] < 1e-9
    assert finding.numbers["beaten"] == pytest.approx(0.1, abs=1e-6)


def test_a9_counts_every_batch_whose_order_is_wrong_by_two(monkeypatch: pytest.MonkeyPatch) -> None:
    level, planted = allocation.water_level, []

    def disordered(weights, budget: int, low: int, high: int):
        counts = level(weights, budget, low, high)
        order = np.argsort(weights, kind="stable")
        for i, j in pairwise(order):
            if len(set(weights)) > 1 and counts[i] == counts[j] and low < counts[i] < high:
                counts[i], counts[j] = counts[i] + 1, counts[j] - 1
                planted.append(budget)
                break
        return counts

    monkeypatch.setattr(allocation, "water_level", disordered)
    finding = ROWS["A9"].judge()
    assert finding.numbers == {"violations": len(planted), "fallback_violations": 0}
    assert len(planted) > 100
    assert finding.verdict is Verdict.FAILS


def test_a9_counts_every_batch_in_which_a_scarce_prompt_has_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the prompts of few rollouts gets one more than the equal share, which the others could have paid."""
    allocate, planted, lows = allocation.allocate, [], set()

    def generous(rule, problem, rng):
        counts = allocate(rule, problem, rng).copy()
        lows.add(int(problem.low))
        few = problem.attempts < 4
        share = int(problem.budget / len(counts) + 0.5)
        if few.any() and not few.all() and (counts[few] == share).all() and share < problem.most:
            rich = np.flatnonzero(~few)[np.argmax(counts[~few])]
            if counts[rich] > problem.low:
                counts[np.flatnonzero(few)[0]] += 1
                counts[rich] -= 1
                planted.append(share)
        return counts

    monkeypatch.setattr(allocation, "allocate", generous)
    finding = ROWS["A9"].judge()
    assert finding.numbers == {"violations": 0, "fallback_violations": len(planted)}
    assert len(planted) > 100
    assert lows == set(range(1, 9))
    assert finding.verdict is Verdict.FAILS


def test_a8_is_no_condition_where_the_product_is_the_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    def product_form(probs, correct):
        pi, right = np.asarray(probs), np.asarray(correct)
        p = pi[right].sum()
        return p * (1 - p) * (1 - (pi**2).sum())

    monkeypatch.setattr(moments, "single_rollout_variance", product_form)
    assert ROWS["A8"].judge().verdict is Verdict.APPROXIMATE
