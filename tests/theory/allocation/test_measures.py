"""What an allocation came to, against plain loops."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from theory.allocation import concentration, degenerate_groups, wasted_share


def test_by_a_loop(rng):
    n = rng.integers(0, 9, size=(4, 7))
    n[:, 0] += 1
    k = rng.integers(0, n + 1)
    for row in range(4):
        one_reward = [a in (0, b) for a, b in zip(k[row], n[row], strict=True)]
        assert degenerate_groups(k[row], n[row]).tolist() == one_reward
        lost = sum(int(b) for b, alike in zip(n[row], one_reward, strict=True) if alike)
        assert wasted_share(k[row], n[row]) == lost / int(n[row].sum())
        assert concentration(n[row]) == 7 * int((n[row] ** 2).sum()) / int(n[row].sum()) ** 2
    assert wasted_share(k, n).tolist() == [float(wasted_share(k[row], n[row])) for row in range(4)]
    assert concentration(n).tolist() == [float(concentration(n[row])) for row in range(4)]


def test_limits():
    assert concentration([5, 5, 5]) == 1.0
    assert concentration([0, 9, 0]) == 3.0
    assert wasted_share([0, 4], [4, 4]) == 1.0
    assert wasted_share([1, 3], [4, 4]) == 0.0


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (degenerate_groups, ([5], [4]), "successes: expected at most counts, got 5 > 4"),
        (degenerate_groups, ([1], [4, 4]), "counts: expected the shape of successes"),
        (degenerate_groups, ([0.5], [4]), "successes: expected integers"),
        (wasted_share, ([0, 0], [0, 0]), "counts: expected batches .* of at least one rollout"),
        (concentration, ([0, 0],), "counts: expected batches .* of at least one rollout"),
        (concentration, (3,), r"counts: expected batches .* got shape \(\)"),
        (concentration, ([-1, 2],), "counts: expected integers >= 0"),
    ],
)
def test_bad_input_is_named(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


counts = st.lists(st.integers(-1, 40) | st.sampled_from([2**62, 2**70, True, 0.5]), max_size=4)


@fuzzing.fuzz
@given(counts, counts)
def test_fuzz_degenerate_groups(successes, number):
    fuzzing.call(degenerate_groups, successes, number)


@fuzzing.fuzz
@given(counts, counts)
def test_fuzz_wasted_share(successes, number):
    result = fuzzing.call(wasted_share, successes, number)
    assert result is None or 0 <= result <= 1


@fuzzing.fuzz
@given(counts)
def test_fuzz_concentration(number):
    result = fuzzing.call(concentration, number)
    assert result is None or 1 - 1e-12 <= result <= len(number) * (1 + 1e-12)
