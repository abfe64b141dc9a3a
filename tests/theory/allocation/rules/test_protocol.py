"""theory.allocation.rules.protocol: the contract of every rule, bad input, and known defects of public trainers."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

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
    every_rule,
    good_call,
    scripted,
)
from theory.allocation.history import SuccessHistory
from theory.allocation.rules import ALLOCATORS, Knowledge, LogProgress, Neyman


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
@given(
    st.dictionaries(
        st.sampled_from(["success_rates", "gradient_norms", "correct_norms", "wrong_norms", "variances", "gains"]),
        fuzzing.float_arrays(st.integers(0, 2) | st.tuples(st.integers(0, 2), st.integers(0, 2)), fuzzing.any_float),
    )
)
def test_fuzz_Knowledge(fields):
    fuzzing.call(Knowledge, **fields)
