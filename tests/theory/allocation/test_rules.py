"""rules: the contract of every rule, each formula by hand, what rounds are charged, and known defects."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, field, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from tests.theory import fuzzing
from theory.allocation import variance_ratio
from theory.allocation.history import SuccessHistory
from theory.allocation.optimum import optimal_any
from theory.allocation.rules import (
    ALLOCATORS,
    Cures,
    Dars,
    Dynamo,
    DynamoCode,
    Gvm,
    Knapsack,
    Knowledge,
    LogProgress,
    Neyman,
    OracleProgress,
    OracleVariance,
    PilotCommit,
    ReinforceAda,
    Uniform,
    Vip,
    get_allocator,
    register,
)
from theory.estimators import moments
from theory.methods import METHODS

ONE_SHOT = [name for name, rule in ALLOCATORS.items() if not rule.in_rounds]
IN_ROUNDS = [name for name, rule in ALLOCATORS.items() if rule.in_rounds]
VARIANTS = [
    *ALLOCATORS.values(),
    Vip(estimator="dr_grpo"),
    LogProgress("maxrl", "prompt-mean", "success", (0.5, 2.0)),
    Dars(schedule="hardness", max_rollouts=64),
    Dars(normalize_std=True),
    ReinforceAda(stop="positive_focused"),
]
every_rule = pytest.mark.parametrize("rule", VARIANTS, ids=repr)


@dataclass
class Recorder:
    """Rolls out Bernoulli(p) responses, each prompt from its own stream, and keeps account of what it was asked for."""

    rates: np.ndarray
    asked: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self):
        self.streams = [np.random.default_rng(int(p * 2**32)) for p in self.rates]

    def __call__(self, counts):
        """Return the successes among `counts` new responses."""
        self.asked.append(counts.copy())
        rolls = zip(self.streams, self.rates, counts, strict=True)
        return np.array([stream.binomial(n, p) for stream, p, n in rolls], dtype=np.int64)

    @property
    def charged(self):
        """Everything that was rolled out, per prompt."""
        return np.sum(self.asked, axis=0) if self.asked else np.zeros(len(self.rates), dtype=np.int64)


def scripted(*successes):
    """Return a function that observes the given successes round after round, whatever the counts."""
    rounds = iter(successes)
    return lambda counts: np.minimum(next(rounds), counts)


def allocate(rule, budget, low, high, *, successes=None, attempts=None, num=None, observe=None, seed=0, **knowledge):
    """Call the rule; success rates or other knowledge by keyword, no history unless given."""
    known = {name: np.asarray(value, dtype=np.float64) for name, value in knowledge.items()}
    num = num or len(next(iter([attempts] if attempts is not None else known.values())))
    return rule.allocate(
        np.zeros(num) if successes is None else successes,
        np.zeros(num) if attempts is None else attempts,
        budget,
        low,
        high,
        np.random.default_rng(seed),
        observe=observe,
        knowledge=Knowledge(**known) if known else None,
    )


def batch(rng, num=12, high=24):
    """Return a random history, and knowledge that serves every rule."""
    attempts = rng.integers(0, 40, size=num)
    p = rng.uniform(0.02, 0.98, size=num)
    knowledge = {
        "success_rates": p,
        "gradient_norms": rng.uniform(0.5, 2.0, size=num),
        "correct_norms": rng.uniform(0.5, 2.0, size=num),
        "wrong_norms": rng.uniform(0.5, 2.0, size=num),
        "variances": rng.uniform(size=num),
        "gains": np.cumsum(rng.uniform(size=(num, high + 1)), axis=1),
    }
    return rng.integers(attempts + 1), attempts, knowledge


# --- The contract, for every rule -------------------------------------------------------------------------------------


@every_rule
@pytest.mark.parametrize("with_rates", [False, True])
def test_budget_bounds_dtype_and_charge(rule, with_rates, rng):
    for budget in (36, 37, 100, 192, 287, 288):
        successes, attempts, knowledge = batch(rng)
        observe = Recorder(knowledge["success_rates"])
        if not with_rates:
            del knowledge["success_rates"]
        counts = allocate(
            rule, budget, 3, 24, successes=successes, attempts=attempts, num=12, observe=observe, **knowledge
        )
        assert counts.dtype == np.int64
        assert counts.shape == (12,)
        assert np.all((counts >= 3) & (counts <= 24))
        if rule.in_rounds:
            assert counts.sum() <= budget
            np.testing.assert_array_equal(counts, observe.charged)
        else:
            assert counts.sum() == budget
            assert observe.asked == []


@every_rule
def test_permuting_prompts_permutes_counts(rule, rng):
    """Exactly, with random knowledge; where rounds ask for equal numbers the tie rule may move one rollout each."""
    _, _, knowledge = batch(rng)
    order = rng.permutation(12)
    permuted = {name: value[order] for name, value in knowledge.items()}
    for budget, tolerance in ((132, 1 if rule.in_rounds else 0), (288, 0)):
        counts = allocate(rule, budget, 3, 24, observe=Recorder(knowledge["success_rates"]), **knowledge)
        shuffled = allocate(rule, budget, 3, 24, observe=Recorder(permuted["success_rates"]), **permuted)
        np.testing.assert_allclose(shuffled, counts[order], rtol=0, atol=tolerance)


@every_rule
def test_equal_claims_go_to_the_lower_index(rule):
    """Five equal prompts, 23 rollouts: where not all can get the same, the first get more."""
    expected = [5, 5, 5, 4, 4]
    if rule == LogProgress():
        expected = [11, 3, 3, 3, 3]  # its gains are convex
    knowledge = {"variances": np.ones(5), "gains": np.tile(np.sqrt(np.arange(25.0)), (5, 1))}
    observe = scripted(*[np.full(5, 1)] * 9)
    counts = allocate(rule, 23, 3, 24, successes=[2] * 5, attempts=[8] * 5, observe=observe, **knowledge)
    assert counts.tolist() == expected


@every_rule
def test_same_input_same_counts_and_nothing_is_changed(rule, rng):
    successes, attempts, knowledge = batch(rng)
    arguments = {"successes": successes, "attempts": attempts, **knowledge}
    copies = {name: value.copy() for name, value in arguments.items()}
    first = allocate(rule, 100, 3, 24, observe=Recorder(knowledge["success_rates"]), **arguments)
    second = allocate(rule, 100, 3, 24, observe=Recorder(knowledge["success_rates"]), **arguments)
    np.testing.assert_array_equal(first, second)
    for name, value in arguments.items():
        np.testing.assert_array_equal(value, copies[name])
    with pytest.raises(FrozenInstanceError):
        rule.name = "other"


@every_rule
def test_bounds_without_room_leave_no_choice(rule, rng):
    successes, attempts, knowledge = batch(rng)
    arguments = {"successes": successes, "attempts": attempts, "observe": Recorder(knowledge["success_rates"])}
    assert allocate(rule, 60, 5, 5, **arguments, **knowledge).tolist() == [5] * 12
    assert allocate(rule, 60, 5, 24, **arguments, **knowledge).tolist() == [5] * 12


BAD = [
    ({"successes": [3.0, 9.0]}, "successes: expected <= attempts, got 9.0 of 8.0 at index 1"),
    ({"successes": [-1.0, 0.0]}, "successes: expected finite values"),
    ({"successes": [np.nan, 0.0]}, "successes: expected finite values"),
    ({"attempts": [np.inf, 8.0]}, "attempts: expected finite values"),
    ({"attempts": [8.0]}, r"successes: expected the shape of attempts \(1,\), got \(2,\)"),
    ({"successes": [], "attempts": []}, "successes: expected a non-empty"),
    ({"budget": -1}, "budget: expected an integer >= 0"),
    ({"budget": 16.0}, "budget: expected an integer"),
    ({"budget": True}, "budget: expected an integer"),
    ({"budget": 2**31}, "budget: expected at most"),
    ({"budget": 5}, "budget: expected at least N low = 6, got 5"),
    ({"low": -1}, "low: expected an integer >= 0"),
    ({"high": 2}, "high: expected an integer >= 3, got 2"),
    ({"high": 16.5}, "high: expected an integer"),
    ({"rng": 0}, "rng: expected a numpy.random.Generator, got int"),
    ({"knowledge": {"variances": [1, 2]}}, "knowledge: expected a Knowledge, got dict"),
    ({"knowledge": Knowledge(variances=np.ones(3))}, "knowledge: expected variances of 2 prompts, got 3"),
]


def good_call(rule):
    knowledge = Knowledge(variances=np.ones(2), gains=np.tile(np.sqrt(np.arange(17.0)), (2, 1)))
    return {
        "successes": [3.0, 4.0],
        "attempts": [8.0, 8.0],
        "budget": 16,
        "low": 3,
        "high": 16,
        "rng": np.random.default_rng(0),
        "observe": Recorder(np.array([0.3, 0.6])) if rule.in_rounds else None,
        "knowledge": knowledge,
    }


@every_rule
@pytest.mark.parametrize(("change", "message"), BAD, ids=lambda x: x if isinstance(x, str) else "")
def test_bad_input_is_named(rule, change, message):
    arguments = {**good_call(rule), **change}
    with pytest.raises(ValueError, match=message):
        rule.allocate(**arguments)
    if rule.in_rounds:
        assert arguments["observe"].asked == []


@pytest.mark.parametrize("name", ONE_SHOT)
def test_a_budget_above_the_caps_is_refused(name):
    rule = ALLOCATORS[name]
    with pytest.raises(ValueError, match="budget: expected at most N high = 8, got 16"):
        rule.allocate(**{**good_call(rule), "high": 4})


@pytest.mark.parametrize("name", IN_ROUNDS)
def test_rounds_may_leave_a_budget_above_the_caps(name):
    rule = ALLOCATORS[name]
    arguments = {**good_call(rule), "high": 4, "budget": 100}
    assert rule.allocate(**arguments).tolist() == [4, 4]


@pytest.mark.parametrize("name", IN_ROUNDS)
@pytest.mark.parametrize(
    ("observe", "message"),
    [
        (None, "observe: expected a function, since .* spends in rounds, got None"),
        (lambda counts: counts + 1, "observe: expected whole numbers of successes"),
        (lambda counts: counts - 0.5, "observe: expected whole numbers of successes"),
        (lambda counts: counts[:1], "observe: expected whole numbers of successes"),
        (lambda counts: -counts, "observe: expected finite values"),
        (lambda counts: None, "observe: expected numbers"),
    ],
)
def test_bad_observations_are_named(name, observe, message):
    rule = ALLOCATORS[name]
    with pytest.raises(ValueError, match=message):
        rule.allocate(**{**good_call(rule), "observe": observe})


@pytest.mark.parametrize(
    ("rule", "field_name"), [(OracleVariance(), "variances"), (OracleProgress(), "gains")], ids=["variance", "progress"]
)
def test_missing_knowledge_is_named(rule, field_name):
    for knowledge in (None, Knowledge(success_rates=np.array([0.5, 0.5]))):
        with pytest.raises(ValueError, match=f"knowledge: expected {field_name} for the rule {rule.name}, got none"):
            rule.allocate(**{**good_call(rule), "knowledge": knowledge})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"success_rates": [0.5, 1.1]}, "success_rates: expected finite values"),
        ({"gradient_norms": [-1.0]}, "gradient_norms: expected finite values"),
        ({"correct_norms": [np.inf]}, "correct_norms: expected finite values"),
        ({"wrong_norms": "a"}, "wrong_norms: expected"),
        ({"variances": [[1.0]]}, "variances: expected a non-empty 1-D array"),
        ({"gains": [1.0]}, r"gains: expected shape \[N, M \+ 1\], got \(1,\)"),
        ({"gains": np.zeros((0, 3))}, r"gains: expected shape"),
        ({"gains": [[np.nan]]}, "gains: expected finite values"),
        ({"success_rates": [0.5], "gains": [[0.0], [1.0]]}, "gains: expected the length of success_rates, 1, got 2"),
    ],
)
def test_bad_knowledge_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Knowledge(**fields)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dynamo(min_history=1), "min_history: expected an integer >= 2"),
        (lambda: Neyman(min_history=2.5), "min_history: expected an integer"),
        (lambda: DynamoCode(mastery=0.0), "mastery: expected a finite number"),
        (lambda: DynamoCode(min_weight=0.0), "min_weight: expected a finite number"),
        (lambda: DynamoCode(min_history=1), "min_history: expected an integer >= 2"),
        (lambda: Gvm(alpha=0.0), "alpha: expected a finite number"),
        (lambda: Gvm(beta=0.5), "beta: expected a finite number"),
        (lambda: Gvm(prior=(0.0, 1.0)), "prior: expected a finite number"),
        (lambda: Vip(estimator="grpo"), "estimator: expected one of rloo, dr_grpo, got 'grpo'"),
        (lambda: Vip(prior=1.0), "prior: expected the two parameters"),
        (lambda: Knapsack(prior=(1.0, np.nan)), "prior: expected a finite number"),
        (lambda: Cures(prior=(1.0, 1.0, 1.0)), "prior: expected the two parameters"),
        (lambda: Dars(schedule="ET"), "schedule: expected one of equal, hardness"),
        (lambda: Dars(normalize_std=2), "normalize_std: expected one of True, False"),
        (lambda: Dars(pilot=0), "pilot: expected an integer >= 1"),
        (lambda: Dars(max_rollouts=2**64), "max_rollouts: expected at most 2147483647"),
        (lambda: Dars(pilot=16, max_rollouts=8), "max_rollouts: expected an integer >= 16"),
        (lambda: ReinforceAda(stop="first"), "stop: expected one of balanced, positive_focused"),
        (lambda: ReinforceAda(round_size=0), "round_size: expected an integer >= 1"),
        (lambda: ReinforceAda(max_rounds=0), "max_rounds: expected an integer >= 1"),
        (lambda: ReinforceAda(keep=1), "keep: expected an integer >= 2"),
        (lambda: PilotCommit(pilot=0), "pilot: expected an integer >= 1"),
        (lambda: LogProgress("reinforce"), "estimator: expected one of rloo"),
        (lambda: LogProgress(aggregation="mean"), "aggregation: expected one of token-mean, prompt-mean"),
        (lambda: LogProgress(objective="sqrt"), "objective: expected one of success, log"),
        (lambda: LogProgress(prior=(1.0, 0.0)), "prior: expected"),
        (lambda: PilotCommit(commit=-1), "commit: expected an integer >= 0"),
        (lambda: PilotCommit(min_rate=1.5), "min_rate: expected a finite number"),
        (lambda: PilotCommit(min_rate=0.5, margin=0.6), "margin: expected a finite number"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("aggregation", ["token-mean", "prompt-mean"])
@pytest.mark.parametrize("known", [False, True])
def test_log_progress_is_the_best_of_all_allocations(aggregation, known):
    """Brute force over n in [2, 9]^3 with sum 16; progress of log p by exact moments, the posterior by quadrature."""
    successes, attempts, rates = np.array([0, 3, 7]), np.array([8, 8, 8]), np.array([0.04, 0.4, 0.9])
    grid = (np.arange(4000) + 0.5) / 4000
    value = np.zeros((3, 10))
    for i in range(3):
        p = rates[i : i + 1] if known else grid
        density = np.ones(1) if known else grid ** successes[i] * (1 - grid) ** (attempts[i] - successes[i])
        for n in range(2, 10):
            progress = moments.implied_weight(p, n, "grpo") * (p * (1 - p)) ** 2 / p
            value[i, n] = np.sum(density * progress) / np.sum(density) * (n if aggregation == "token-mean" else 1)
    every = [n for n in product(range(2, 10), repeat=3) if sum(n) == 16]
    best = max(every, key=lambda n: sum(value[i, n[i]] for i in range(3)))
    knowledge = Knowledge(success_rates=rates) if known else None
    got = LogProgress(aggregation=aggregation).allocate(
        successes, attempts, 16, 2, 9, np.random.default_rng(0), knowledge=knowledge
    )
    assert tuple(got) == best
    assert len(set(best)) > 1


def test_names():
    expected = "uniform dynamo dynamo-code neyman gvm vip knapsack cures dars reinforce-ada pilot-commit log-progress"
    assert list(ALLOCATORS) == [*expected.split(), "oracle-variance", "oracle-progress"]
    assert all(get_allocator(name).name == name for name in ALLOCATORS)
    with pytest.raises(ValueError, match=r"name: expected one of uniform, dynamo, .*, oracle-progress, got 'dynano'"):
        get_allocator("dynano")
    with pytest.raises(TypeError):
        ALLOCATORS["new"] = Uniform()


class Mine:
    name, in_rounds = "mine", False

    def allocate(self, successes, attempts, budget, low, high, rng, *, observe=None, knowledge=None):
        return np.full(len(successes), budget // len(successes))


def test_a_rule_of_ones_own_can_be_named_by_a_method():
    with pytest.raises(ValueError, match=r"allocator: expected one of uniform, .*, got 'mine'"):
        replace(METHODS["grpo"], allocator="mine")
    first, second = Mine(), Mine()
    assert register(first) is get_allocator("mine") is first
    assert replace(METHODS["grpo"], allocator="mine").allocator == "mine"
    assert register(second) is get_allocator("mine") is second


@pytest.mark.parametrize("name", ["dynamo", "uniform"])
def test_the_rules_here_cannot_be_replaced(name):
    rule = Mine()
    rule.name = name
    with pytest.raises(ValueError, match=f"rule: expected another name than those of the rules here, got {name}"):
        register(rule)
    assert ALLOCATORS[name] is not rule


# --- One-shot rules, by hand ------------------------------------------------------------------------------------------


def test_dynamo_is_proportional_to_P():
    """Of 10 attempts 1, 2, 5 successes: P = 9/90, 16/90, 25/90."""
    history = {"successes": [1, 2, 5], "attempts": [10, 10, 10]}
    assert allocate(Dynamo(), 50, 1, 50, **history).tolist() == [9, 16, 25]
    assert allocate(Neyman(), 24, 1, 24, **history).tolist() == [6, 8, 10]
    # Bounded: P 9 : 16 : 25 between 8 and 24 at 48; 25 -> 24 first, then 9 : 16 of 24.
    assert allocate(Dynamo(), 48, 8, 24, **history).tolist() == [9, 15, 24]


def test_dynamo_splits_off_prompts_without_history():
    """Equal shares of 60 / 4 = 15 for the two unknown; 30 for P = 9 : 16 -> 10.8, 19.2."""
    counts = allocate(Dynamo(), 60, 1, 60, successes=[1, 0, 2, 3], attempts=[10, 0, 10, 3])
    assert counts.tolist() == [11, 15, 19, 15]
    # B / N = 9 / 2 is rounded half up.
    assert allocate(Dynamo(), 9, 1, 9, successes=[5, 0], attempts=[10, 0]).tolist() == [4, 5]
    # 12 / 5 gives 2 for each of four, which would leave 4 for a cap of 3; one of the four gets that rollout.
    assert allocate(Dynamo(), 12, 0, 3, successes=[0, 0, 5, 0, 0], attempts=[0, 0, 10, 0, 0]).tolist() == [
        3,
        2,
        3,
        2,
        2,
    ]
    # 10 / 4 gives 3 for each of three, which would leave 1 for a floor of 2.
    assert allocate(Dynamo(), 10, 2, 4, successes=[0, 0, 5, 0], attempts=[0, 0, 10, 0]).tolist() == [3, 3, 2, 2]
    # Only unknown prompts, or no variance at all: uniform.
    assert allocate(Dynamo(), 10, 1, 9, successes=[0, 1, 1], attempts=[0, 1, 3]).tolist() == [4, 3, 3]
    assert allocate(Dynamo(), 10, 1, 9, successes=[0, 8, 9], attempts=[8, 8, 9]).tolist() == [4, 3, 3]
    assert allocate(Dynamo(min_history=2), 21, 1, 20, successes=[1, 1], attempts=[2, 3]).tolist() == [13, 8]


def test_dynamo_with_known_rates_needs_no_history():
    """With p (1 - p) = 1/4, 4/25, 9/100, that is 25 : 16 : 9."""
    assert allocate(Dynamo(), 50, 1, 50, success_rates=[0.5, 0.2, 0.9]).tolist() == [25, 16, 9]
    assert allocate(Neyman(), 24, 1, 24, success_rates=[0.5, 0.2, 0.9]).tolist() == [10, 8, 6]


def test_dynamo_code_adds_shares_to_the_floor():
    """P = .1, 25/90, and 9 of 10 is mastered: 39 x (.1, .27778, .01) / .38778 = 10.06, 27.94, 1.006, above 4 each."""
    history = {"successes": [1, 5, 9], "attempts": [10, 10, 10]}
    assert allocate(DynamoCode(), 51, 4, 40, **history).tolist() == [14, 32, 5]
    # Cap 20: 16 of the 27.94 fit; the other 12 are divided by .1 : .01 = 10.9, 1.09.
    assert allocate(DynamoCode(), 51, 4, 20, **history).tolist() == [20, 20, 11]
    assert allocate(DynamoCode(), 51, 4, 30, **history).tolist() == [16, 30, 5]
    # Without mastery the last has P = .1 too, but the first is ahead by its lower success rate, 1e-6 (1 - k/G).
    assert allocate(DynamoCode(mastery=1.0), 52, 4, 40, **history).tolist() == [13, 27, 12]
    assert allocate(DynamoCode(mastery=1.0), 6, 1, 40, successes=[9, 1], attempts=[10, 10]).tolist() == [3, 3]
    assert allocate(DynamoCode(mastery=1.0), 7, 1, 40, successes=[9, 1], attempts=[10, 10]).tolist() == [3, 4]


def test_dynamo_code_gives_no_share_below_four_samples():
    history = {"successes": [0, 5, 1], "attempts": [3, 10, 3]}
    assert allocate(DynamoCode(), 24, 4, 16, **history).tolist() == [4, 16, 4]
    # What the cap leaves goes round the others.
    assert allocate(DynamoCode(), 27, 4, 16, **history).tolist() == [6, 16, 5]
    assert allocate(DynamoCode(), 48, 8, 24, successes=[0, 0, 0], attempts=[0, 0, 0]).tolist() == [16, 16, 16]


def test_dynamo_code_mastery_is_at_085_inclusive():
    """17 of 20 has w = .01, 16 of 20 has 64 / 380 + 2e-7 = .1684: 24 x .01 / .1784 = 1.35."""
    assert allocate(DynamoCode(), 40, 8, 40, successes=[17, 16], attempts=[20, 20]).tolist() == [9, 31]
    # With mastery above it, 51 / 380 = .1342: 24 x .1342 / .3026 = 10.64.
    assert allocate(DynamoCode(mastery=0.86), 40, 8, 40, successes=[17, 16], attempts=[20, 20]).tolist() == [19, 21]


def test_gvm_weights():
    """Weights 1 / sqrt(p + .001 / p) for p = 1/4, 1/2, 1: 1.984, 1.411, .9995; 44 rollouts: 19.9, 14.1, 10.0."""
    assert allocate(Gvm(), 44, 1, 40, success_rates=[0.25, 0.5, 1.0]).tolist() == [20, 14, 10]
    # beta = 3 and alpha = 1/16: p + alpha / p^2 = 1.25 and 0.75 for p = 1/4, 1/2.
    assert allocate(Gvm(alpha=1 / 16, beta=3.0), 33, 1, 40, success_rates=[0.25, 0.5]).tolist() == [14, 19]
    # A prompt without success, or without gradient, gets the floor.
    assert allocate(Gvm(), 20, 2, 20, success_rates=[0.0, 0.5, 0.5], gradient_norms=[1, 1, 0]).tolist() == [2, 16, 2]
    assert allocate(Gvm(), 30, 1, 30, success_rates=[0.5, 0.5], gradient_norms=[1e-9, 2e-9]).tolist() == [10, 20]
    assert allocate(Gvm(beta=1.0), 6, 1, 6, success_rates=[0.0, 0.0]).tolist() == [3, 3]
    # From counts: (k + 1) / (G + 2) = 1/4, 1/2.
    counts = allocate(Gvm(), 34, 1, 40, successes=[1, 3], attempts=[6, 6])
    assert counts.tolist() == allocate(Gvm(), 34, 1, 40, success_rates=[0.25, 0.5]).tolist() == [20, 14]


def test_vip_rloo_is_one_plus_the_root():
    """With a = 4 p q = 1 and .36: n - 1 in the ratio 1 : .6, 16 = 10 + 6."""
    assert allocate(Vip(), 18, 2, 20, success_rates=[0.5, 0.1]).tolist() == [11, 7]
    # (k + 1) / (G + 2) = 4/8 and 1/10; with another prior (k + 1) / (G + 10) = 5/10 and 1/10.
    assert allocate(Vip(), 18, 2, 20, successes=[3, 0], attempts=[6, 8]).tolist() == [11, 7]
    assert allocate(Vip(prior=(1.0, 9.0)), 18, 2, 20, successes=[9, 0], attempts=[10, 0]).tolist() == [11, 7]


def test_vip_dr_grpo_solves_its_cubic():
    """With lambda = a (n - 2) / n^3 = a_1 28 / 30^3 = a_2 18 / 20^3 at n = 30 and 20 if a_2 / a_1 = 112/243."""
    p = 0.5 * (1 - np.sqrt(1 - 112 / 243))
    assert allocate(Vip(estimator="dr_grpo"), 50, 3, 47, success_rates=[0.5, p]).tolist() == [30, 20]


@pytest.mark.parametrize(("estimator", "low"), [("rloo", 2), ("dr_grpo", 3)])
def test_vip_is_the_exact_optimum(estimator, low, rng):
    objective = {"rloo": lambda a, n: a / (n - 1), "dr_grpo": lambda a, n: a * (n - 1) / n**2}[estimator]
    for _ in range(20):
        p = rng.uniform(size=3)
        candidates = np.array([n for n in product(range(low, 10), repeat=3) if sum(n) == 17])
        best = candidates[np.argmin(objective(4 * p * (1 - p), candidates).sum(axis=1))]
        assert allocate(Vip(estimator=estimator), 17, low, 9, success_rates=p).tolist() == best.tolist()


def test_vip_dr_grpo_would_reward_silence_below_three():
    """Section 5.5: without the guard, the least variance has one prompt with a single rollout and no update."""
    p = np.array([0.5, 0.5])
    gains = np.zeros((2, 9))
    n = np.arange(1, 9)
    gains[:, 1:] = -(n - 1) / n**2
    assert sorted(optimal_any(gains, 6, 1, 8).tolist()) == [1, 5]
    for low in (1, 2):
        with pytest.raises(ValueError, match=r"low: expected at least 3 for Vip\(estimator='dr_grpo'.*, got"):
            allocate(Vip(estimator="dr_grpo"), 6, low, 8, success_rates=p)
    with pytest.raises(ValueError, match="low: expected at least 2"):
        allocate(Vip(), 6, 1, 8, success_rates=p)
    assert allocate(Vip(estimator="dr_grpo"), 6, 3, 8, success_rates=p).tolist() == [3, 3]


def test_knapsack_by_hand():
    """Marginals of p q^2 (1 - p^n - q^n) from n = 2: .0313, .0156, .0078 (p = .5); .0205, .0139, .0107 (p = .2)."""
    assert allocate(Knapsack(), 8, 2, 8, success_rates=[0.5, 0.2]).tolist() == [4, 4]
    assert allocate(Knapsack(), 9, 2, 8, success_rates=[0.5, 0.2]).tolist() == [4, 5]


def test_knapsack_is_the_dynamic_programme(rng):
    for _ in range(30):
        p = rng.uniform(size=4)
        n = np.arange(14.0)
        gains = p[:, None] * (1 - p[:, None]) ** 2 * (1 - p[:, None] ** n - (1 - p[:, None]) ** n)
        expected = optimal_any(gains, 23, 1, 13)
        assert allocate(Knapsack(), 23, 1, 13, success_rates=p).tolist() == expected.tolist()


def test_knapsack_tells_small_marginals_apart():
    """At n = 128 marginals of p = .5 are below 2^-128: lost beside the 1 of the formula, not in a difference."""
    assert allocate(Knapsack(), 256, 64, 192, success_rates=[0.5, 0.5]).tolist() == [128, 128]


def test_knapsack_needs_one_rollout_and_leaves_the_solved_at_the_floor():
    with pytest.raises(ValueError, match=r"low: expected at least 1 for Knapsack"):
        allocate(Knapsack(), 8, 0, 8, success_rates=[0.5, 0.2])
    assert allocate(Knapsack(), 14, 2, 10, success_rates=[0.0, 1.0, 0.5]).tolist() == [2, 2, 10]


def test_cures_weights():
    """sqrt(p q) = .5, .3; with norms 2 and 1: .125 x 4 + .125 - .0625 = .75^2, .081 x 4 + .009 - .0081 = .57^2."""
    assert allocate(Cures(), 16, 1, 16, success_rates=[0.5, 0.1]).tolist() == [10, 6]
    norms = {"correct_norms": [2, 2], "wrong_norms": [1, 1]}
    assert allocate(Cures(), 44, 1, 44, success_rates=[0.5, 0.1], **norms).tolist() == [25, 19]
    tiny = {"correct_norms": [2e-9, 2e-9], "wrong_norms": [1e-9, 1e-9]}
    assert allocate(Cures(), 44, 1, 44, success_rates=[0.5, 0.1], **tiny).tolist() == [25, 19]


def test_cures_closed_form_equals_the_published_sum(rng):
    p, c, w = rng.uniform(size=(3, 100))
    q = 1 - p
    published = p * q**2 * c**2 + p**2 * q * w**2 - p**2 * q**2 * (c - w) ** 2
    np.testing.assert_allclose(np.sqrt(p * q) * (q * c + p * w), np.sqrt(published), rtol=1e-9)
    counts = allocate(Cures(), 10**6, 0, 10**6, success_rates=p, correct_norms=c, wrong_norms=w)
    np.testing.assert_allclose(counts, 1e6 * np.sqrt(published) / np.sqrt(published).sum(), atol=1.0)


def test_oracle_variance_minimises_the_total(rng):
    for _ in range(20):
        variances = rng.uniform(size=3)
        candidates = np.array([n for n in product(range(2, 9), repeat=3) if sum(n) == 14])
        best = candidates[np.argmin((variances / candidates).sum(axis=1))]
        assert allocate(OracleVariance(), 14, 2, 8, variances=variances).tolist() == best.tolist()


def test_oracle_progress_is_exact_for_any_table(rng):
    for _ in range(20):
        gains = rng.normal(size=(3, 9))  # Not concave.
        candidates = np.array([n for n in product(range(1, 9), repeat=3) if sum(n) == 14])
        best = candidates[np.argmax(gains[np.arange(3), candidates].sum(axis=1))]
        assert allocate(OracleProgress(), 14, 1, 8, gains=gains).tolist() == best.tolist()
    with pytest.raises(ValueError, match="high: expected at most 8"):
        allocate(OracleProgress(), 14, 1, 9, gains=gains)


def test_oracle_progress_beats_every_rule_on_exact_progress(rng):
    """The table is that of two-answer prompts under standard-deviation normalised GRPO (theory.estimators.moments)."""
    p = rng.uniform(0.05, 0.95, size=6)
    probs = np.stack([p, 1 - p], axis=1)
    gains = moments.expected_progress(probs, np.tile([True, False], (6, 1)), 24, "grpo")
    total = lambda counts: gains[np.arange(6), counts].sum()  # noqa: E731
    best = total(allocate(OracleProgress(), 96, 2, 24, gains=gains))
    for name in ONE_SHOT:
        counts = allocate(ALLOCATORS[name], 96, 2, 24, success_rates=p, variances=p * (1 - p), gains=gains)
        assert total(counts) <= best + 1e-12


def test_variance_proportional_allocation_is_as_bad_as_uniform():
    """Section 5.1: sum sigma^2 / n with n proportional to sigma^2 is N sum sigma^2 / B, uniform's value; exact here."""
    history = {"successes": [1, 2, 5], "attempts": [10, 10, 10]}
    variances = np.array([9, 16, 25]) / 90
    counts = allocate(Dynamo(), 50, 1, 50, **history)
    np.testing.assert_allclose((variances / counts).sum(), 3 * variances.sum() / 50, rtol=1e-14)
    root = allocate(Neyman(), 48, 1, 48, **history)
    np.testing.assert_allclose((variances / root).sum(), np.sqrt(variances).sum() ** 2 / 48, rtol=1e-14)


def test_bounds_rescue_most_of_the_gain():
    """Section 5.1, sigma^2 = p q, 512 prompts, [8, 24] at 16: .912 (code), .901 (no cut), .916 (P), .895 (root).

    Quantiles of Beta(.7, .7) stand for one random sample of it, which moves the numbers by some .007.
    """
    p = stats.beta.ppf((np.arange(512) + 0.5) / 512, 0.7, 0.7)
    for rule, expected in (
        (DynamoCode(), 0.912),
        (DynamoCode(mastery=1.0), 0.901),
        (Dynamo(), 0.916),
        (Neyman(), 0.895),
    ):
        counts = allocate(rule, 512 * 16, 8, 24, success_rates=p)
        assert abs(variance_ratio(p * (1 - p), counts) - expected) < 0.007


# --- Rules in rounds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        (Dars(), [24, 11, 3, 1, 0, 0]),  # 27 for k = 0, capped at 32 in all
        (Dars(schedule="hardness", max_rollouts=64), [56, 24, 8, 3, 0, 0]),
        (Dars(normalize_std=True), [9, 5, 2, 1, 0, 0]),
        (Dars(schedule="hardness", normalize_std=True), [23, 14, 6, 3, 0, 0]),
    ],
    ids=repr,
)
def test_dars_schedules(rule, more):
    """N = 8 and k = 0, 1, 2, 3, 4, 8. Without std, with k = 1/2 for 0: N (N - 2k)^2 / (4 k (N - k)), N (N - 2k) / (2k).

    That is 26.1, 10.3, 2.7, .5 and 56, 24, 8, 2.7. With std N / S - N = 8.5, 4.1, 1.2, .3; 2 q N / S - N = 22.98, 13.2,
    5.9, 2.3.
    """
    counts = allocate(rule, 1000, 0, 100, num=6, observe=scripted(np.array([0, 1, 2, 3, 4, 8]), np.zeros(6)))
    assert counts.tolist() == [8 + m for m in more]


def test_dars_does_not_round_a_whole_number_up():
    """N (N - 2k) / (2k) = 9 exactly for N = 18, k = 6, and 5 for N = 20, k = 8; in floating point slightly more."""
    for num, k, more in ((18, 6, 9), (20, 8, 5)):
        rule = Dars(schedule="hardness", pilot=num, max_rollouts=99)
        observe = scripted(np.array([k, num]), np.zeros(2))
        assert allocate(rule, 1000, 0, 100, num=2, observe=observe).tolist() == [num + more, num]


def test_reinforce_ada_stops_each_prompt_by_its_outcomes():
    rounds = [np.array([2, 1, 7, 0]), np.array([0, 1, 1, 0]), np.array([0, 0, 1, 8]), np.array([0, 0, 5, 0])]
    asked = []

    def observe(counts):
        asked.append(counts.tolist())
        return np.minimum(rounds[len(asked) - 1], counts)

    # Two of each: the first has them at once (2 : 6), the second (2 : 14) and third (8 : 8) after round 2, the fourth
    # (8 : 16) after round 3.
    assert allocate(ReinforceAda(), 200, 0, 99, num=4, observe=observe).tolist() == [8, 16, 16, 24]
    assert asked == [[8, 8, 8, 8], [0, 8, 8, 8], [0, 0, 0, 8]]
    asked.clear()
    # Three of each: the first two never have three successes, and stop after four rounds.
    assert allocate(ReinforceAda(keep=6), 200, 0, 99, num=4, observe=observe).tolist() == [32, 32, 16, 24]
    asked.clear()
    positive = ReinforceAda(stop="positive_focused")
    assert allocate(positive, 200, 0, 99, num=4, observe=observe).tolist() == [8, 8, 8, 24]


@pytest.mark.parametrize(("p", "published"), [(0.05, 19.2), (0.1, 13.6), (0.5, 8.0)])
def test_reinforce_ada_expected_cost(p, published):
    """E[N] of rounds of 8 until a success, at most 4 (section 5.4) against the rule itself; 4 standard errors."""
    cost = 8 * sum((1 - p) ** (8 * r) for r in range(4))
    assert cost == pytest.approx(published, abs=0.06)
    generator = np.random.default_rng(3)
    counts = allocate(
        ReinforceAda(stop="positive_focused"), 10**6, 0, 32, num=4000, observe=lambda n: generator.binomial(n, p)
    )
    assert abs(counts.mean() - cost) < 4 * counts.std() / np.sqrt(4000) + 0.01


def test_pilot_commit_keeps_the_middle_inclusive():
    pilot = np.arange(9)
    counts = allocate(PilotCommit(), 10**4, 0, 99, num=9, observe=scripted(pilot, pilot))
    assert counts.tolist() == [8, *[32] * 6, 8, 8]


@pytest.mark.parametrize("name", IN_ROUNDS)
def test_R12_pilots_are_charged(name):
    """The counts are all that `observe` was asked for, the pilots of prompts that get nothing more included."""
    observe = Recorder(np.array([0.01, 0.3, 0.5, 0.99]))
    counts = allocate(ALLOCATORS[name], 80, 2, 32, num=4, observe=observe)
    assert len(observe.asked) >= 2
    assert counts.sum() == sum(asked.sum() for asked in observe.asked) <= 80
    assert np.all(counts >= 8)
    # A budget for the pilot alone is spent on it, and nothing after.
    observe = Recorder(np.array([0.01, 0.3, 0.5, 0.99]))
    assert allocate(ALLOCATORS[name], 32, 2, 32, num=4, observe=observe).tolist() == [8] * 4
    assert len(observe.asked) == 1


@pytest.mark.parametrize("name", IN_ROUNDS)
def test_the_round_that_overdraws_is_scaled_down_and_is_the_last(name):
    observe = Recorder(np.full(3, 0.05))
    assert allocate(ALLOCATORS[name], 20, 2, 32, num=3, observe=observe).tolist() == [7, 7, 6]
    assert len(observe.asked) == 1
    # DARS asks for 11 + 3 after k = 1, 2 of 8 each, and 7 are left: 5.5 and 1.5, the tie to the first.
    assert allocate(Dars(), 23, 0, 99, num=2, observe=scripted(np.array([1, 2]), np.zeros(2))).tolist() == [14, 9]


@pytest.mark.parametrize("name", IN_ROUNDS)
def test_the_first_round_covers_low_and_no_round_exceeds_high(name):
    observe = Recorder(np.array([0.02, 0.3]))
    counts = allocate(ALLOCATORS[name], 100, 12, 20, num=2, observe=observe)
    assert observe.asked[0].tolist() == [12, 12]
    assert counts.max() <= 20
    assert allocate(ALLOCATORS[name], 100, 0, 5, num=2, observe=Recorder(np.array([0.02, 0.3]))).tolist() == [5, 5]
    assert allocate(ALLOCATORS[name], 0, 0, 5, num=2, observe=Recorder(np.array([0.02, 0.3]))).tolist() == [0, 0]


@pytest.mark.parametrize("name", IN_ROUNDS)
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_R16_a_batch_without_informative_prompts_does_not_abort(name, rate):
    counts = allocate(ALLOCATORS[name], 10**4, 2, 32, num=5, observe=lambda n: (n * rate).astype(np.int64))
    assert np.all((counts >= 8) & (counts <= 32))
    if name == "pilot-commit":
        assert counts.tolist() == [8] * 5


@pytest.mark.parametrize("name", IN_ROUNDS)
def test_an_observer_cannot_change_the_account(name):
    def observe(counts):
        successes = counts // 2
        counts[:] = 0
        return successes

    assert np.all(allocate(ALLOCATORS[name], 100, 2, 32, num=3, observe=observe) >= 8)


# --- Known defects of public trainers ---------------------------------------------------------------------------------


def test_R3_a_key_drawn_afresh_makes_every_allocation_uniform():
    stable, fresh = SuccessHistory(), SuccessHistory()
    stable.update(["hard", "half"], [0, 8], [16, 16])
    fresh.update(["uid-1", "uid-2"], [0, 8], [16, 16])
    known, unknown = stable.counts(["hard", "half"]), fresh.counts(["uid-3", "uid-4"])
    for name in ("dynamo", "dynamo-code", "neyman", "gvm", "vip", "knapsack", "cures"):
        rule = ALLOCATORS[name]
        assert allocate(rule, 32, 8, 24, successes=unknown[0], attempts=unknown[1]).tolist() == [16, 16]
        assert allocate(rule, 32, 8, 24, successes=known[0], attempts=known[1]).tolist() != [16, 16]


def test_R13_counts_follow_the_history():
    """No rule keeps anything between calls: a solved prompt loses its rollouts as soon as the history says so."""
    history = SuccessHistory(discount=0.5)
    history.update(["a", "b"], [8, 8], [16, 16])
    rule = Neyman()
    before = allocate(rule, 32, 8, 24, **dict(zip(("successes", "attempts"), history.counts(["a", "b"]), strict=True)))
    for _ in range(6):
        history.update(["a"], [16], [16])
    after = allocate(rule, 32, 8, 24, **dict(zip(("successes", "attempts"), history.counts(["a", "b"]), strict=True)))
    assert before.tolist() == [16, 16]
    assert after.tolist() == [8, 24]


@pytest.mark.parametrize("module", ["theory.allocation", "theory.allocation.history", "theory.allocation.rules"])
def test_no_torch_is_loaded(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- Fuzzing ----------------------------------------------------------------------------------------------------------

sizes = st.integers(1, 4)
rates = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 5e-324, 1 - 2**-53])
magnitudes = st.floats(0, 1.8e308, exclude_max=True) | st.sampled_from([0.0, 5e-324, 1e-9, 1.0])


@st.composite
def problems(draw):
    num = draw(sizes)
    low = draw(st.integers(0, 4))
    high = draw(st.integers(low, 12))
    attempts = draw(fuzzing.float_arrays(num, st.integers(0, 20).map(float) | st.floats(0, 1e300)))
    successes = attempts * draw(fuzzing.float_arrays(num, rates))
    knowledge = {}
    for name, elements in {
        "success_rates": rates,
        "gradient_norms": magnitudes,
        "correct_norms": magnitudes,
        "wrong_norms": magnitudes,
        "variances": magnitudes,
    }.items():
        if draw(st.booleans()):
            knowledge[name] = draw(fuzzing.float_arrays(num, elements))
    if draw(st.booleans()):
        knowledge["gains"] = draw(fuzzing.float_arrays((num, draw(st.integers(high, 12)) + 1), fuzzing.finite_float))
    budget = draw(st.integers(num * low, max(num * low, num * high)) | st.integers(-1, 60))
    return successes, attempts, budget, low, high, Knowledge(**knowledge)


@fuzzing.fuzz
@given(st.sampled_from(VARIANTS), problems(), st.integers(0, 2**32))
def test_fuzz_Allocator_allocate(rule, problem, seed):
    *arguments, knowledge = problem
    rng = np.random.default_rng(seed)
    asked = []

    def observe(counts):
        asked.append(counts.copy())
        return rng.integers(counts + 1)

    counts = fuzzing.call(rule.allocate, *arguments, rng, observe=observe, knowledge=knowledge)
    _, _, budget, low, high = arguments
    if counts is not None:
        assert counts.dtype == np.int64
        assert np.all((counts >= low) & (counts <= high))
        assert counts.sum() <= budget if rule.in_rounds else counts.sum() == budget
        np.testing.assert_array_equal(counts, np.sum(asked, axis=0) if asked else counts)
    elif len(problem[0]) * low <= budget <= len(problem[0]) * high and low >= 3:
        assert rule.name.startswith("oracle")


@fuzzing.fuzz
@given(st.text("adnyo-", max_size=6) | st.sampled_from([None, 7, [], *ALLOCATORS]))
def test_fuzz_get_allocator(name):
    rule = fuzzing.call(get_allocator, name)
    assert rule is None or rule is ALLOCATORS[name]


@fuzzing.fuzz
@given(st.fixed_dictionaries({}, optional={x: st.none() | st.text() | st.booleans() for x in ("name", "in_rounds")}))
def test_fuzz_register(attributes):
    rule = type("Rule", (), {**attributes, "allocate": Mine.allocate})()
    found = fuzzing.call(register, rule)
    assert found is None or ALLOCATORS[attributes["name"]] is rule


@fuzzing.fuzz
@given(
    st.dictionaries(
        st.sampled_from(["success_rates", "gradient_norms", "correct_norms", "wrong_norms", "variances", "gains"]),
        fuzzing.float_arrays(st.integers(0, 2) | st.tuples(st.integers(0, 2), st.integers(0, 2)), fuzzing.any_float),
    )
)
def test_fuzz_Knowledge(fields):
    fuzzing.call(Knowledge, **fields)
