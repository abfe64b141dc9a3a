"""Rows A12 to A16: what they enumerate, against definitions; their numbers, against other ways to compute them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from theory import allocation
from theory.claims import LEDGER, learning, objective
from theory.claims.estimators import answer_policy
from theory.claims.ledger import Author, Finding, Verdict
from theory.estimators import gradient_moments, implied_weight, single_rollout_variance

ROWS = {row.id: row for row in LEDGER}


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    return {row: ROWS[row].judge() for row in ("A12", "A13", "A14", "A15", "A16")}


def test_rows_say_who_and_where():
    said_by = {row: ROWS[row].said_by for row in ("A12", "A13", "A14", "A15", "A16")}
    assert said_by == dict.fromkeys(("A12", "A13", "A14"), Author.OURS) | dict.fromkeys(("A15", "A16"), Author.PAPER)
    assert all(ROWS[row].regime for row in said_by)


# Worlds that are enumerated


@pytest.mark.parametrize("name", objective.ENUMERATED)
def test_scores_have_mean_0(name: str):
    world = objective.ENUMERATED[name]
    np.testing.assert_allclose(world.law.sum(), 1, rtol=1e-14)
    np.testing.assert_allclose(world.law @ world.scores, 0, atol=1e-15)


def test_chain_has_the_gradient_of_its_success_rate():
    """J as a function of three logits, by central differences."""
    start, right = special.logit([0.4, 0.3, 0.6]), ((0, 1), (1, 0))

    def success(z):
        first, *after = special.expit(z)
        world = objective.chain(first, (after[0], after[1]), right)
        return world.law[world.right].sum()

    central = [(success(start + 1e-6 * e) - success(start - 1e-6 * e)) / 2e-6 for e in np.eye(3)]
    np.testing.assert_allclose(objective.chain(0.4, (0.3, 0.6), right).gradient, central, rtol=1e-8)


def test_groups_are_all_sequences_of_rollouts():
    world = objective.bandit([0.2, 0.1], [0.7])
    counts, law = objective.groups(world, 4)
    expected: dict[tuple[int, ...], float] = {}
    for sequence in product(range(3), repeat=4):
        key = tuple(np.bincount(sequence, minlength=3).tolist())
        expected[key] = expected.get(key, 0.0) + float(np.prod(world.law[list(sequence)]))
    assert len(law) == len(expected)
    np.testing.assert_allclose(law, [expected[tuple(row)] for row in counts.tolist()], rtol=1e-13)
    g = objective.group_gradient(world, np.array([[1, 1, 2]]), np.array([0.5]), np.array([-0.25]))
    direct = sum(a * (np.eye(3)[i] - world.law) for i, a in ((0, 0.5), (1, 0.5), (2, -0.25), (2, -0.25))) / 4
    np.testing.assert_allclose(g[0], direct, rtol=1e-14)


@pytest.mark.parametrize("population", objective.POPULATIONS)
@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_populations_are_those_of_row_a11(population: str, estimator: str):
    """The same variance and length of grad J from the answers' probabilities themselves."""
    prompts = objective.prompts_of(population)
    full = gradient_moments(*answer_policy(population, prompts.p), 11, estimator)
    weight, variance = objective.weight_and_variance(prompts, 11, estimator)
    np.testing.assert_allclose(variance, full.variance, rtol=1e-9, atol=1e-16)
    np.testing.assert_allclose(weight, full.weight, rtol=1e-12)
    np.testing.assert_allclose(prompts.gradient_squared, full.policy.gradient_squared, rtol=1e-12)


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_table_has_a_column_for_every_size(estimator: str):
    """Var / w^2 from the answers' probabilities, column n for n rollouts; no column for more than the upper bound."""
    prompts = objective.prompts_at("peaked", np.array([0.1, 0.5, 0.8]))
    expected = np.zeros((3, 25))
    for n in range(8, 25):
        full = gradient_moments(*answer_policy("peaked", prompts.p), n, estimator)
        expected[:, n] = full.variance / full.weight**2
    found = objective.table(prompts, estimator)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-9)


# A12


def test_a12_variance_of_a_batch_by_enumeration():
    """Two prompts, their groups and tokens written out: the variance is that of sum n_i g_i / sum n_i T_i."""
    worlds, counts, lengths = [objective.bandit([p], [1 - p]) for p in (0.3, 0.6)], (2, 3), (1, 4)
    total, law = np.zeros((1, 4)), np.ones(1)
    each = []
    for i, (world, n, length) in enumerate(zip(worlds, counts, lengths, strict=True)):
        tokens = 1 / (np.array(counts) @ lengths)  # weight of a token under a token mean; n T of them in a prompt
        groups, probability = objective.groups(world, n)
        k = groups[:, 0]
        g = np.zeros((len(k), 4))
        # The reward's token carries the score; the other tokens of a rollout decide nothing.
        g[:, 2 * i : 2 * i + 2] = tokens * n * objective.group_gradient(world, groups, 1 - k / n, -k / n)
        assert length * n * tokens <= 1
        total = (total[:, None] + g).reshape(-1, 4)
        law = np.outer(law, probability).ravel()
        each.append(n**2 * float(gradient_moments(world.law, world.right, n, "dr_grpo").variance))
    variance = law @ ((total - law @ total) ** 2).sum(axis=1)
    np.testing.assert_allclose(variance, sum(each) / (np.array(counts) @ lengths) ** 2, rtol=1e-12)


def test_a12_numbers(findings):
    """Diffuse answers, RLOO and the paper's rule, from the answers' probabilities."""
    numbers = findings["A12"].numbers
    prompts = objective.prompts_of("diffuse")
    policy = answer_policy("diffuse", prompts.p)
    n = allocation.water_level(prompts.p * (1 - prompts.p), 16 * 512, 8, 24)
    cosines, noise = [], []
    for counts in (n, np.full(512, 16)):
        full = gradient_moments(*policy, counts, "rloo")
        mean = counts[:, None] * full.mean
        noise.append(counts**2 @ full.variance)
        length = np.sqrt((noise[-1] + (mean**2).sum()) * (full.true_gradient**2).sum())
        cosines.append((mean * full.true_gradient).sum() / length)
    np.testing.assert_allclose([numbers["cosine_paper"], numbers["cosine_uniform"]], cosines, rtol=1e-9)
    np.testing.assert_allclose(numbers["paper_diffuse"], noise[0] / noise[1], rtol=1e-9)
    assert numbers["model_low"] > 1
    np.testing.assert_allclose(numbers["with_lengths_low"], 0.80, atol=0.005)


def test_a12_rloo_refutes_the_model(findings):
    """By Monte Carlo: two answers, half of the prompts at p = .5 and half at .005; counts rise with the deviation."""
    rng = np.random.default_rng(8)

    def squared_noise(p: float, n: int) -> tuple[float, float]:
        """Return n^2 times the squared distance to grad J of 2,000,000 groups: its mean and standard error."""
        k = rng.binomial(n, p, size=2_000_000)
        squared = 2 * n**2 * (k * (n - k) / (n * (n - 1)) - p * (1 - p)) ** 2
        return float(squared.mean()), float(squared.std() / np.sqrt(len(squared)))

    uniform = [squared_noise(p, 16) for p in (0.5, 0.005)]
    assert uniform[0][0] > uniform[1][0] + 5 * (uniform[0][1] + uniform[1][1])
    base = sum(mean for mean, _ in uniform)
    for name, counts in (("pair_steep", (24, 8)), ("pair_as_sigma", (18, 14))):
        rule = [squared_noise(p, n) for p, n in zip((0.5, 0.005), counts, strict=True)]
        error = sum(each for _, each in rule + uniform) / base
        assert error < 0.005
        assert abs(findings["A12"].numbers[name] - sum(mean for mean, _ in rule) / base) < 4 * error
        assert findings["A12"].numbers[name] < 0.96


@pytest.mark.parametrize(("power", "verdict"), [(-4.0, Verdict.FAILS), (4.0, Verdict.EXACT)])
def test_a12_turns_with_the_fall_of_the_variance(monkeypatch, power, verdict):
    """A variance that falls as n^-5 favours more rollouts; of one that rises with n no condition is left."""
    moments = objective.weight_and_variance

    def another(prompts, n, estimator):
        weight, variance = moments(prompts, n, estimator)
        return weight, variance * (np.asarray(n) / 16) ** power

    monkeypatch.setattr(objective, "weight_and_variance", another)
    assert ROWS["A12"].judge().verdict is verdict


def test_chains_of_an_odd_length():
    """Each fair coin has a score of squared norm 1/2 about its mean, whatever the reward."""
    prompts = objective.chains_at(3, np.array([0.2, 0.7]))
    assert [x.tolist() for x in prompts] == [[0.2, 0.7], [1.5, 1.5], [1.5, 1.5], [2.0, 2.0]]


# A13 and A14: the table of an independent derivation, to its three digits


def test_a13_and_a14_are_least_from_both_sides(findings):
    """Neither Lagrange's condition nor brute force gives more than the formula or less than it."""
    assert [findings[row].verdict for row in ("A13", "A14")] == [Verdict.EXACT] * 2


def test_a13_and_a14_numbers(findings):
    numbers = findings["A14"].numbers
    table = {
        "best_uniform": (0.320, 0.717, 1.000),
        "rloo_best": (0.948, 0.953, 0.900),
        "best_best": (0.239, 0.678, 0.899),
        "rloo_paper": (1.264, 1.092, 0.929),
    }
    for column, expected in table.items():
        got = [numbers[f"{population}_{column}"] for population in objective.POPULATIONS]
        np.testing.assert_allclose(got, expected, atol=6e-4)
    numbers = findings["A13"].numbers
    np.testing.assert_allclose([numbers[f"weight_if_{p}"] for p in (0.1, 0.2, 0.5)], [1.30, 1.94, 2.95], atol=0.005)
    for population in objective.POPULATIONS:
        p = objective.prompts_of(population).p
        known = single_rollout_variance(*answer_policy(population, p)).sum() / 16
        rloo = gradient_moments(*answer_policy(population, p), 16, "rloo").variance.sum()
        np.testing.assert_allclose(numbers[f"known_p_{population}"], known / rloo, rtol=1e-9)
    assert numbers["chain_loss"] < 0.004


def test_a14_a_weight_from_the_history_is_off_once_p_has_moved(findings):
    """Monte Carlo: 64 rollouts at p = .05, then a group at .5 divided by the weight of the rate seen."""
    numbers = findings["A14"].numbers
    seen = np.random.default_rng(3).binomial(64, 0.05, size=100_000) / 64
    rates, times = np.unique(seen, return_counts=True)
    factors = np.repeat(implied_weight(0.5, 16) / implied_weight(rates, 16), times)
    assert abs(factors.mean() - numbers["history_weight_moved"]) < 4 * factors.std() / np.sqrt(len(factors))
    assert factors.std() / np.sqrt(len(factors)) < 1e-3


def test_a14_counts_of_one_rollout_too_many_turn_it_red(monkeypatch):
    """They have less variance than the best of all within the budget, which is as wrong as more of it."""
    best = allocation.optimal_any
    monkeypatch.setattr(allocation, "optimal_any", lambda gain, budget, low, high: best(gain, budget + 1, low, high))
    assert ROWS["A14"].judge().verdict is Verdict.FAILS


def test_a14_sums_over_groups_of_every_size(monkeypatch):
    sizes = set()
    scaled_mean = objective.scaled_mean

    def watched(p, n, *args):
        sizes.add(int(n))
        return scaled_mean(p, n, *args)

    monkeypatch.setattr(objective, "scaled_mean", watched)
    ROWS["A14"].judge()
    assert sizes == set(range(2, 25))


# A15


def test_a15_curvature_that_is_not_that_of_success_leaves_it_undecided(monkeypatch):
    """A rate that is 5e-11 too high breaks no bound, but a curvature that is measured at 1e-3 is wrong by 5e-5."""
    success = learning.success

    def too_high(logits, right):
        rate = success(logits, right)
        return rate + 5e-11 * (rate < 0.3)

    monkeypatch.setattr(learning, "success", too_high)
    finding = ROWS["A15"].judge()
    assert finding.numbers["slack"] > 0
    assert np.abs(finding.data["noise"][finding.data["p"] == 0.1]).min() > 1e-4
    assert finding.verdict is Verdict.UNDECIDED


def test_a15_path_by_every_sequence_of_groups():
    p, n, rate, steps = 0.2, 3, 0.7, 4
    total = 0.0
    for ks in product(range(n + 1), repeat=steps):
        z, probability = special.logit(p), 1.0
        for k in ks:
            probability *= stats.binom.pmf(k, n, special.expit(z))
            # RLOO: (n / (n - 1)) (R - k/n), each score (1 - pi, -(1 - pi)) or (-pi, pi).
            right, wrong = (n - k) / (n - 1), -k / (n - 1)
            pi = special.expit(z)
            z += 2 * rate * (k * right * (1 - pi) - (n - k) * wrong * pi) / n
        total += probability * special.expit(z)
    np.testing.assert_allclose(learning.expected_path(p, n, rate, steps)[-1], total, rtol=1e-12)


@settings(deadline=None, derandomize=True)
@given(
    hnp.arrays(np.float64, 5, elements=st.floats(-4, 4)),
    hnp.arrays(np.float64, 5, elements=st.floats(-1, 1)),
    st.integers(1, 30),
)
def test_a15_success_has_curvature_of_at_most_one_half(logits, direction, mask):
    right = (mask >> np.arange(5)) % 2 > 0
    step = 1e-3
    points = logits + np.array([[-step], [0.0], [step]]) * direction
    low, middle, high = learning.success(points, right)
    assert abs(low - 2 * middle + high) / step**2 <= direction @ direction / 2 + 1e-8


def test_a15_curve_has_both_signs(findings):
    data = findings["A15"].data
    two = (data["world"] == "two answers") & (data["estimator"] == "rloo")
    signs = [np.sign(np.round(data["noise"][two & (data["p"] == p)], 12)) for p in (0.1, 0.5, 0.9)]
    assert [set(x.tolist()) for x in signs] == [{1.0}, {0.0}, {-1.0}]
    assert findings["A15"].numbers["noisy_20"] > findings["A15"].numbers["quiet_20"]
    assert findings["A15"].numbers["noisy_50"] < findings["A15"].numbers["quiet_50"]


def test_a15_pairs_have_one_n_or_two(findings):
    """Counted again from the cases, by a comparison of ranks."""
    data = findings["A15"].data
    found = findings["A15"].numbers
    for p in (0.1, 0.5, 0.9):
        signs: dict[bool, list[float]] = {True: [], False: []}
        for world, rate in product(np.unique(data["world"]), (0.3, 1.0)):
            cell = (data["world"] == world) & (data["rate"] == rate) & (data["p"] == p)
            n, variance, gain = (data[name][cell] for name in ("num_rollouts", "variance", "gain"))
            for i, j in zip(*np.triu_indices(len(n), 1), strict=True):
                if abs(variance[i] - variance[j]) > 1e-6:
                    signs[n[i] == n[j]].append(float((variance[i] < variance[j]) == (gain[i] < gain[j])))
        np.testing.assert_allclose(found[f"against_{p}"], np.mean(signs[True]))
        np.testing.assert_allclose(found[f"against_{p}_unequal"], np.mean(signs[False]))
    assert [round(found[f"against_{p}"], 2) for p in (0.1, 0.5, 0.9)] == [0.69, 0.21, 0.31]


def test_a15_least_variance_of_grpo_with_less_progress(findings):
    """From the moments of the answers themselves."""

    def batch(n):
        full = gradient_moments([[0.1, 0.9], [0.5, 0.5]], [[True, False]] * 2, n, "grpo")
        return full.variance.sum(), (full.mean * full.true_gradient).sum()

    cells = [batch([n, 32 - n]) for n in range(8, 25)]
    least, even = min(cells), cells[8]
    found = findings["A15"].numbers
    np.testing.assert_allclose(found["grpo_less_variance"], least[0] / even[0], rtol=1e-9)
    np.testing.assert_allclose(found["grpo_less_progress"], least[1] / even[1], rtol=1e-9)
    assert least[1] < even[1]


# A16


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_a16_proxy_by_monte_carlo(discount):
    """Within 4 standard errors of 200,000 prompts, which would show an error of 1 %."""
    rates, n, rng = np.array([0.1, 0.3, 0.6, 0.9]), 8, np.random.default_rng(5)
    k, attempts = np.zeros(200_000), 0.0
    for p in rates:
        k, attempts = discount * k + rng.binomial(n, p, size=len(k)), discount * attempts + n
    sampled = allocation.bernoulli_variance(k, np.full(len(k), attempts))
    expected = learning.expected_proxy(rates, n, discount)[-1]
    standard_error = sampled.std() / np.sqrt(len(k))
    assert abs(sampled.mean() - expected) < 4 * standard_error
    assert 4 * standard_error < 0.01 * expected


def test_a16_numbers(findings):
    numbers = findings["A16"].numbers
    # 16 at .1 and 16 at .9: E[K] = 16, Var K = 2.88, so (16 * 16 - 2.88) / (32 * 31).
    np.testing.assert_allclose(learning.expected_proxy(np.array([0.1, 0.9]), 16, 1.0), [0.09, 253.12 / 992], rtol=1e-13)
    # Without noise the pooled rate r = (.5 m + .9 j) / (m + j) has r (1 - r) = 1.2 * .09 at j = 16.5 m.
    for seen in (4, 16, 32):
        assert abs(numbers[f"lag_0.9_{seen}_1.0"] / seen - 16.5) < 0.5
        assert numbers[f"lag_0.9_{seen}_0.5"] == 5
    assert learning.visits_until(0.5, 0.999, 4, 1.0) == 1001
    assert numbers["still_32"] < 0.1
    ends = [learning.loop(4, 4.0, 0.5, seed)[-1] for seed in learning.SEEDS]
    data = findings["A16"].data
    cell = (data["visits"] == 4) & (data["drift"] == 4.0) & (data["discount"] == 0.5) & (data["visit"] == 4)
    np.testing.assert_allclose(data["gap"][cell], np.mean(ends), rtol=1e-12)
    assert len(set(ends)) == len(learning.SEEDS) == 8


def test_a16_an_ideal_history_has_no_gap(monkeypatch):
    """If P were p (1 - p) itself, the loop's counts would be those of the true p."""
    drawn = np.random.default_rng(33).normal(-1, 2, objective.NUM_PROMPTS)
    visits = iter(range(1, 4))

    def true_variance(k, attempts):
        p = special.expit(drawn + 4.0 * next(visits) / 3)
        return p * (1 - p)

    monkeypatch.setattr(allocation, "bernoulli_variance", true_variance)
    assert learning.loop(4, 4.0, 1.0, seed=33).tolist() == [0.0, 0.0, 0.0]
