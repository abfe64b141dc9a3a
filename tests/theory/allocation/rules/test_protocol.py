"""theory.allocation.rules.protocol: the contract of every rule, rules that break it, defects of public trainers."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from tests.theory.allocation.rules.calls import (
    ONE_SHOT,
    VARIANTS,
    Recorder,
    allocate,
    batch,
    call,
    every_rule,
    good_call,
    scripted,
)
from theory import allocation
from theory.allocation.history import SuccessHistory
from theory.allocation.rules import ALLOCATORS, Knowledge, LogProgress, Neyman, Problem, Rounds, spends_in_rounds


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
        if spends_in_rounds(rule):
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
    for budget, tolerance in ((132, 1 if spends_in_rounds(rule) else 0), (288, 0)):
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


def test_what_is_no_call_is_named():
    good = good_call(Neyman())
    rng, observe = good.pop("rng"), good.pop("observe")
    problem = Problem(**good)
    with pytest.raises(ValueError, match=r"rng: expected a numpy\.random\.Generator, got int"):
        allocation.allocate(Neyman(), problem, 0, observe)
    with pytest.raises(ValueError, match="problem: expected a Problem, got dict"):
        allocation.allocate(Neyman(), good, rng, observe)
    for rule in ("neyman", Neyman):
        with pytest.raises(ValueError, match="rule: expected an object with a name and one of counts and spend, got"):
            allocation.allocate(rule, problem, rng, observe)


@pytest.mark.parametrize("name", ONE_SHOT)
def test_a_budget_above_the_caps_is_refused(name):
    rule = ALLOCATORS[name]
    with pytest.raises(ValueError, match="budget: expected at most N high = 8, got 16"):
        call(rule, **{**good_call(rule), "high": 4})


@dataclass
class Fixed:
    """A one-shot rule that returns what it was made with."""

    value: object
    name: str = "fixed"

    def counts(self, problem, rng):
        return self.value


@dataclass
class Rolls:
    """A rule in rounds that asks for what it was made with, and returns the sum of that, or something else."""

    rounds: list
    value: object = ...
    name: str = "rolls"

    def spend(self, problem, observe, rng):
        for asked in self.rounds:
            observe(asked)
        return np.sum(self.rounds, axis=0) if self.value is ... else self.value


def of_two(rule, observe=None):
    """Ask a rule for 16 rollouts of two prompts in [3, 12]."""
    return allocation.allocate(rule, Problem([1, 2], [4, 4], 16, 3, 12), np.random.default_rng(0), observe)


@pytest.mark.parametrize("value", [[8, 8], (8.0, 8.0), np.array([8, 8], dtype=np.uint8), np.array([8.0, 8.0])])
def test_whole_numbers_are_counts_whatever_their_type(value):
    counts = of_two(Fixed(value))
    assert counts.tolist() == [8, 8]
    assert counts.dtype == np.int64
    assert counts is not value


OUTSIDE = r"expected finite values in \[3, 12\], got"
WRONG = [
    ([7.1, 8.9], "expected whole numbers, got 7.1"),
    ([np.nan, 8.0], f"{OUTSIDE} nan at index 0"),
    ([8.0, np.inf], f"{OUTSIDE} inf at index 1"),
    ([13, 3], f"{OUTSIDE} 13.0 at index 0"),
    ([12, 2], f"{OUTSIDE} 2.0 at index 1"),
    ([-8, 24], f"{OUTSIDE} -8.0 at index 0"),
    ([2**63 + 3, 8], f"{OUTSIDE} 9.2"),
    ([8], r"expected shape \(2,\), got \(1,\)"),
    ([8, 8, 8], r"expected shape \(2,\), got \(3,\)"),
    ([[8, 8]], r"expected a non-empty 1-D array, got shape \(1, 2\)"),
    (8, r"expected a non-empty 1-D array, got shape \(\)"),
    (None, "expected numbers, got dtype object"),
    ("88", "expected numbers, got dtype <U2"),
    ([True, True], "expected numbers, got dtype bool"),
    ([8 + 0j, 8], "expected numbers, got dtype complex128"),
]


@pytest.mark.parametrize(("value", "message"), WRONG, ids=repr)
def test_wrong_counts_are_named_with_the_rule(value, message):
    with pytest.raises(ValueError, match=f"^rule fixed: counts: {message}"):
        of_two(Fixed(value))
    observe = Recorder(np.array([0.3, 0.6]))
    with pytest.raises(ValueError, match=f"^rule rolls: counts: {message}"):
        of_two(Rolls([[8, 8]], value), observe)


@pytest.mark.parametrize(("value", "total"), [([8, 9], 17), ([8, 7], 15), ([3, 3], 6)])
def test_a_one_shot_rule_spends_the_budget_exactly(value, total):
    with pytest.raises(ValueError, match=f"^rule fixed: counts: expected the sum 16, the budget, got {total}"):
        of_two(Fixed(value))


def test_a_rule_in_rounds_may_leave_a_part_of_the_budget():
    assert of_two(Rolls([[3, 3], [0, 0], [1, 0]]), lambda counts: counts).tolist() == [4, 3]


def test_a_rule_in_rounds_returns_what_it_rolled_out():
    with pytest.raises(ValueError, match=r"^rule rolls: counts: expected what was rolled out, 8 at index 0, got 4"):
        of_two(Rolls([[8, 8]], [4, 8]), lambda counts: counts)
    with pytest.raises(ValueError, match=f"^rule rolls: counts: {OUTSIDE} 0.0 at index 0"):
        of_two(Rolls([[0, 8]]), lambda counts: counts)


@pytest.mark.parametrize(
    ("rounds", "message", "done"),
    [
        ([[13, 3]], r"expected finite values in \[0, 12\], got 13.0 at index 0", 0),
        ([[8, 3], [5, 0]], "expected at most high = 12 in all, got 13", 1),
        ([[8, 9]], "expected at most the budget 16 in all, got 17", 0),
        ([[8, 7], [1, 0], [0, 1]], "expected at most the budget 16 in all, got 17", 2),
        ([[8, 8], [-1, 0]], r"expected finite values in \[0, 12\], got -1.0 at index 0", 1),
        ([[7.5, 8]], "expected whole numbers, got 7.5", 0),
        ([[np.nan, 8]], r"expected finite values in \[0, 12\], got nan at index 0", 0),
        ([[8]], r"expected shape \(2,\), got \(1,\)", 0),
    ],
)
def test_a_wrong_round_is_refused_before_it_is_rolled_out(rounds, message, done):
    observe = Recorder(np.array([0.3, 0.6]))
    with pytest.raises(ValueError, match=f"^rule rolls: round: {message}"):
        of_two(Rolls(rounds), observe)
    assert len(observe.asked) == done


class Meddler:
    """A rule that changes what it is given, or fails."""

    name = "meddler"

    def __init__(self, do):
        self.do = do

    def counts(self, problem, rng):
        self.do(problem)
        return np.array([8, 8])


def fails(error):
    raise error


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda problem: problem.successes.fill(4), "assignment destination is read-only"),
        (lambda problem: setattr(problem, "budget", 99), "expected counts, got FrozenInstanceError: cannot assign"),
        (lambda problem: problem.successes[2], "expected counts, got IndexError: index 2 is out of bounds"),
        (lambda problem: problem.counts, "expected counts, got AttributeError: 'Problem' object has no attribute"),
        (lambda problem: {}["x"], "expected counts, got KeyError: 'x'"),
        (lambda problem: 1 / 0, "expected counts, got ZeroDivisionError: division by zero"),
        (lambda problem: len(3), "expected counts, got TypeError: object of type 'int' has no len"),
        (lambda problem: fails(RuntimeError("boom")), "expected counts, got RuntimeError: boom"),
        (lambda problem: fails(NotImplementedError()), "expected counts, got NotImplementedError"),
        (lambda problem: fails(AssertionError("no")), "expected counts, got AssertionError: no"),
        (lambda problem: fails(ValueError("weights: expected more")), "weights: expected more"),
    ],
)
def test_a_rule_that_fails_or_changes_its_problem_is_named(do, message):
    with pytest.raises(ValueError, match=f"^rule meddler: ({message})"):
        of_two(Meddler(do))


@pytest.mark.parametrize("kind", [RuntimeError, KeyError, ValueError, TypeError])
def test_a_failure_of_the_rollouts_is_not_the_rules(kind):
    with pytest.raises(kind, match=r"^'?no GPU'?$"):
        of_two(Rolls([[8, 8]]), lambda counts: fails(kind("no GPU")))


def test_the_account_belongs_to_the_caller():
    """A rule that changes what it asked for, or what it was told, afterwards."""

    class Forger:
        name = "forger"

        def spend(self, problem, observe, rng):
            asked = np.array([8, 8])
            observe(asked)[:] = 0
            asked[:] = 3
            return asked

    with pytest.raises(ValueError, match=r"^rule forger: counts: expected what was rolled out, 8 at index 0, got 3"):
        of_two(Forger(), lambda counts: counts)


def test_rounds_cover_low_first_however_unequal_the_first_round():
    """Of 12 rollouts 3 are due to each; the other 3 are divided by 13 : 2, 2.6 and .4."""
    problem = Problem([0, 0, 0], [0, 0, 0], 12, 3, 16)
    rounds = Rounds(problem, lambda counts: counts)
    rounds.roll_out(np.array([16, 5, 0]))
    assert rounds.spent.tolist() == rounds.successes.tolist() == [6, 3, 3]
    assert rounds.left == 0


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
def test_fuzz_every_rule(rule, problem, seed):
    rng = np.random.default_rng(seed)
    asked = []

    def observe(counts):
        asked.append(counts.copy())
        return rng.integers(counts + 1)

    counts = fuzzing.call(lambda: allocation.allocate(rule, Problem(*problem), rng, observe))
    _, _, budget, low, high, _ = problem
    if counts is not None:
        assert counts.dtype == np.int64
        assert np.all((counts >= low) & (counts <= high))
        assert counts.sum() <= budget if spends_in_rounds(rule) else counts.sum() == budget
        np.testing.assert_array_equal(counts, np.sum(asked, axis=0) if asked else counts)
    elif len(problem[0]) * low <= budget <= len(problem[0]) * high and low >= 3:
        assert rule.name.startswith("oracle")


returns = (
    fuzzing.float_arrays(st.integers(0, 3) | st.just(2), st.integers(-1, 14).map(float) | fuzzing.any_float)
    | st.lists(st.integers(0, 14), min_size=1, max_size=3)
    | st.none()
    | st.text(max_size=2)
    | st.integers(0, 20)
)


@fuzzing.fuzz
@given(returns, st.lists(returns, max_size=3))
def test_fuzz_allocate(value, asked):
    counts = fuzzing.call(of_two, Fixed(value))
    assert counts is None or (counts.sum() == 16 and counts.tolist() == np.asarray(value).tolist())
    observe = Recorder(np.array([0.3, 0.6]))
    counts = fuzzing.call(of_two, Rolls(asked, value), observe)
    assert observe.charged.sum() <= 16
    assert np.all(observe.charged <= 12)
    assert counts is None or counts.tolist() == observe.charged.tolist()


@fuzzing.fuzz
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "counts", "spend"), st.none() | st.text() | st.just(len)))
)
def test_fuzz_spends_in_rounds(attributes):
    found = fuzzing.call(spends_in_rounds, SimpleNamespace(**attributes))
    assert found in (None, attributes.get("spend") is len)
