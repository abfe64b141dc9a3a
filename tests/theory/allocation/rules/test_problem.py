"""theory.allocation.rules.problem: bad input is named, and what is given is copied and read-only."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from theory.allocation.rules import Knowledge, Problem

GOOD = {"successes": [3.0, 4.0], "attempts": [8.0, 8.0], "budget": 16, "low": 3, "high": 16}
BAD = [
    ({"successes": [3.0, 9.0]}, "successes: expected at most attempts, got 9.0 > 8.0 at index 1"),
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
    ({"knowledge": {"variances": [1, 2]}}, "knowledge: expected a Knowledge, got dict"),
    ({"knowledge": None}, "knowledge: expected a Knowledge, got NoneType"),
    ({"knowledge": Knowledge(variances=np.ones(3))}, "knowledge: expected variances of 2 prompts, got 3"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=lambda x: x if isinstance(x, str) else "")
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        Problem(**{**GOOD, **change})


def test_bounds_without_limit():
    assert Problem(**{**GOOD, "high": 2**70}).high == 2**31 - 1


def test_a_problem_cannot_be_changed():
    """Neither by its fields, nor through the arrays that it was made of, nor through those that it hands out."""
    successes, rates = np.array([3.0, 4.0]), np.array([0.1, 0.5])
    problem = Problem(**{**GOOD, "successes": successes, "knowledge": Knowledge(success_rates=rates)})
    successes[0], rates[0] = 8, 1
    assert problem.successes.tolist() == [3, 4]
    assert problem.success_rates((1.0, 1.0)).tolist() == [0.1, 0.5]
    for array in (problem.successes, problem.attempts, problem.success_rates((1.0, 1.0))):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(FrozenInstanceError):
        problem.budget = 17


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


numbers = st.integers(0, 20) | st.integers(-1, 2**70) | st.sampled_from([None, 1.5, True])


@st.composite
def fields(draw):
    num = draw(st.integers(0, 3))
    arrays = fuzzing.float_arrays(
        num | draw(st.sampled_from([0, 1])), st.integers(-1, 9).map(float) | fuzzing.any_float
    )
    knowledge = draw(st.none() | st.just(Knowledge()) | st.just(Knowledge(variances=[1.0, 2.0])))
    return draw(arrays), draw(arrays), draw(numbers), draw(numbers), draw(numbers), knowledge


@fuzzing.fuzz
@given(fields())
def test_fuzz_Problem(arguments):
    problem = fuzzing.call(Problem, *arguments)
    if problem is not None:
        assert problem.budget >= problem.num_prompts * problem.low
        fuzzing.call(problem.success_rates, (1.0, 1.0))
        fuzzing.call(problem.reward_variances, 4)


@fuzzing.fuzz
@given(
    st.dictionaries(
        st.sampled_from(["success_rates", "gradient_norms", "correct_norms", "wrong_norms", "variances", "gains"]),
        fuzzing.float_arrays(st.integers(0, 2) | st.tuples(st.integers(0, 2), st.integers(0, 2)), fuzzing.any_float),
    )
)
def test_fuzz_Knowledge(fields):
    fuzzing.call(Knowledge, **fields)
