"""theory.allocation.rules.dynamo: each formula by hand, and what the square root and the bounds are worth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tests.theory.allocation.rules.calls import allocate
from theory.allocation.rules import Dynamo, DynamoCode, Neyman
from theory.allocation.variance import variance_ratio


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dynamo(min_history=1), "min_history: expected an integer >= 2"),
        (lambda: Neyman(min_history=2.5), "min_history: expected an integer"),
        (lambda: DynamoCode(mastery=0.0), "mastery: expected a finite number"),
        (lambda: DynamoCode(min_weight=0.0), "min_weight: expected a finite number"),
        (lambda: DynamoCode(min_history=1), "min_history: expected an integer >= 2"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
