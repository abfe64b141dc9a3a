"""advantages: a plain loop over groups as reference, the defects seen elsewhere, invariants, both backends."""

from __future__ import annotations

import statistics
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from tests.theory import fuzzing
from theory.estimators import advantages
from theory.estimators.advantages import ADVANTAGES, dr_grpo, grpo, maxrl, reinforce, rloo, w_reinforce

GROUPED = {
    **{name: function for name, function in ADVANTAGES.items() if name != "reinforce"},
    "grpo_population": lambda rewards, groups: grpo(rewards, groups, normalize="population", epsilon=0.0),
}

# mpmath, 50 digits, for a group R = (0.2, 0.5, 1.1) as mpf fractions, m = fsum(R)/3, q = fsum((r - m)**2 for r in R):
#   grpo: (r - m) / (sqrt(q/2) + mpf(10)**-6);  population: (r - m) / sqrt(q/3);  maxrl: (r - m) / m
GOLDEN_REWARDS = np.array([0.2, 0.5, 1.1])
GOLDEN = {
    "grpo": [-0.87286965618622128533, -0.21821741404655532133, 1.0910870702327766067],
    "grpo_population": [-1.0690449676496975387, -0.26726124191242438468, 1.3363062095621219234],
    "dr_grpo": [-0.4, -0.1, 0.5],
    "rloo": [-0.6, -0.15, 0.75],
    "maxrl": [-2 / 3, -1 / 6, 5 / 6],
}


def reference(name, rewards, groups):
    """Return each row's advantage from the rows of its group, by the standard library."""
    result = []
    for reward, key in zip(rewards, groups, strict=True):
        group = [float(r) for r, k in zip(rewards, groups, strict=True) if k == key]
        centred = float(reward) - statistics.fmean(group)
        n = len(group)
        if n == 1 or len(set(group)) == 1:
            result.append(0.0)
        elif name == "grpo":
            result.append(centred / (statistics.stdev(group) + 1e-6))
        elif name == "grpo_population":
            result.append(centred / statistics.pstdev(group))
        elif name == "maxrl":
            result.append(centred / statistics.fmean(group))
        else:
            result.append(centred * {"dr_grpo": 1, "rloo": n / (n - 1)}[name])
    return result


@pytest.mark.parametrize("name", GROUPED)
def test_golden_values(backend, name):
    got = GROUPED[name](backend(GOLDEN_REWARDS), backend(np.array([4, 4, 4])))
    np.testing.assert_allclose(backend.numpy(got), GOLDEN[name], rtol=backend.rtol)


def exact(name, rewards):
    """Return the advantages of one group in rational arithmetic, its standard deviation to 50 digits."""
    group = [Fraction(float(r)) for r in rewards]
    n, mean = len(group), sum(group) / len(group)
    centred = [r - mean for r in group]
    if name in ("grpo", "grpo_population"):
        variance = sum(c * c for c in centred) / (n - 1 if name == "grpo" else n)
        with mpmath.workdps(50):
            std = mpmath.sqrt(mpmath.mpf(variance.numerator) / variance.denominator)
            std += mpmath.mpf(1e-6) if name == "grpo" else 0
            return [float(mpmath.mpf(c.numerator) / c.denominator / std) for c in centred]
    scale = {"dr_grpo": Fraction(1), "rloo": Fraction(n, n - 1), "maxrl": 1 / mean if mean else 1}[name]
    return [float(c * scale) for c in centred]


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("offset", [0.0, 60.0, 1e4])
@pytest.mark.parametrize("spread", [0.05, 1.0, 60.0])
def test_float32_is_rounded_once_and_float64_as_if_there_were_no_offset(rng, name, offset, spread):
    """In float32 within half a unit in the last place; in float64 within n + 8 units of the largest advantage."""
    for n in (2, 5, 64, 1500):
        rewards = offset + spread * rng.random(n)
        for dtype in (np.float32, np.float64):
            given = rewards.astype(dtype)
            expected = np.array(exact(name, given))
            for array in (np.asarray, torch.tensor):
                got = np.asarray(GROUPED[name](array(given), array(np.zeros(n, dtype=np.int64))))
                assert got.dtype == dtype
                if dtype == np.float32:
                    bound = 0.5001 * np.spacing(np.abs(expected).astype(dtype)).astype(float)
                else:
                    bound = (n + 8) * np.finfo(dtype).eps * np.abs(expected).max()
                assert np.all(np.abs(got - expected) <= bound)


@pytest.mark.parametrize("name", GROUPED)
def test_ragged_groups_in_any_order_against_a_loop(backend, rng, name):
    groups = rng.choice([-3, 0, 5, 1000, 7], size=60, p=[0.4, 0.3, 0.2, 0.07, 0.03])
    for rewards in (rng.integers(2, size=60).astype(float), rng.gamma(1.0, size=60)):
        got = GROUPED[name](backend(rewards), backend(groups))
        expected = reference(name, rewards, groups)
        np.testing.assert_allclose(backend.numpy(got), expected, rtol=backend.rtol * 10, atol=backend.rtol)


@pytest.mark.parametrize("dtype", ["U", object])
def test_string_keys(dtype):
    keys = np.array(["b2", "a", "b2", "c", "a", "b2"]).astype(dtype)
    rewards = np.array([1.0, 0.0, 0.0, 5.0, 1.0, 0.5])
    np.testing.assert_array_equal(rloo(rewards, keys), rloo(rewards, np.array([1, 0, 1, 2, 0, 1])))


@pytest.mark.parametrize("name", GROUPED)
def test_R4_groups_are_known_by_key_not_by_stride(backend, name):
    """Two prompts interleaved, of unequal size: every row gets what it gets in its group alone."""
    rewards, groups = np.array([1.0, 0.0, 0.0, 1.0, 1.0]), np.array([0, 1, 0, 1, 1])
    got = backend.numpy(GROUPED[name](backend(rewards), backend(groups)))
    for key in (0, 1):
        alone = GROUPED[name](backend(rewards[groups == key]), backend(groups[groups == key]))
        np.testing.assert_array_equal(got[groups == key], backend.numpy(alone))


@pytest.mark.parametrize("name", GROUPED)
def test_R5_unequal_groups_are_not_normalised_over_the_batch(backend, name):
    """Groups of 4, 3 and 4: the prompt with constant rewards has advantage 0 (not -1.09)."""
    rewards = np.array([1.0, 0.0, 1.0, 1.0] + [0.0] * 3 + [1.0, 1.0, 0.0, 1.0])
    got = backend.numpy(GROUPED[name](backend(rewards), backend(np.repeat([0, 1, 2], [4, 3, 4]))))
    np.testing.assert_array_equal(got[4:7], 0.0)
    assert np.all(got[:4] != 0)


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("value", [0.1, 1e8 + 0.1, 1 / 3, 0.0, 5e-324, 1e300])
@pytest.mark.parametrize("size", [3, 7])
def test_R7_constant_groups_are_exactly_zero(name, value, size):
    """The mean of [0.1] * 3 is not 0.1 in floating point: its deviation of 1e-17 must not be divided by itself."""
    rewards = np.array([value] * size + [1.0, 0.0])
    for array in (np.asarray, torch.tensor):
        got = np.asarray(GROUPED[name](array(rewards), array(np.array([0] * size + [1, 1]))))
        np.testing.assert_array_equal(got[:size], 0.0)


@pytest.mark.parametrize("name", GROUPED)
def test_R8_lone_loser_is_kept(backend, name):
    """Rewards [0] + [.95] * 7: no row of the group is dropped, least of all the one that differs."""
    got = backend.numpy(GROUPED[name](backend(np.array([0.0] + [0.95] * 7)), backend(np.zeros(8, dtype=np.int64))))
    assert got[0] < 0
    assert np.all(got[1:] > 0)
    np.testing.assert_allclose(got[0], -7 * got[1], rtol=1e-5)
    np.testing.assert_allclose(backend.numpy(rloo(backend([0.0] + [0.95] * 7), backend([3] * 8)))[0], -0.95, rtol=1e-6)


@pytest.mark.parametrize("name", GROUPED)
def test_R14_a_group_of_one_is_zero(backend, name):
    rewards, groups = backend([1.0, 0.0, 1.0, 0.5]), backend([5, 6, 6, 7])
    got = backend.numpy(GROUPED[name](rewards, groups))
    assert (got[0], got[3]) == (0.0, 0.0)
    assert got[1] != 0


def test_R14_raw_reward_is_a_named_option(backend):
    """As in verl: mean 0 and standard deviation 1 for a group of one, but not for a constant group of two."""
    rewards, groups = backend([1.0, 0.5, 0.0, 1.0, 1.0]), backend([5, 6, 6, 7, 7])
    pair = 0.25 / (np.sqrt(0.125) + 1e-6)
    got = backend.numpy(grpo(rewards, groups, singleton="reward"))
    np.testing.assert_allclose(got, [1 / (1 + 1e-6), pair, -pair, 0.0, 0.0], rtol=backend.rtol)
    got = backend.numpy(grpo(rewards, groups, normalize=None, singleton="reward"))
    np.testing.assert_array_equal(got, [1.0, 0.25, -0.25, 0.0, 0.0])


def test_binary_rewards_in_closed_form(backend):
    """With k of n correct, population GRPO gives sqrt((n - k) / k) and MaxRL (n - k) / k to the correct."""
    n = 8
    for k in range(1, n):
        rewards, groups = backend((np.arange(n) < k).astype(float)), backend(np.zeros(n, dtype=np.int64))
        got = backend.numpy(grpo(rewards, groups, normalize="population", epsilon=0.0))
        np.testing.assert_allclose(got[[0, -1]], [np.sqrt((n - k) / k), -np.sqrt(k / (n - k))], rtol=backend.rtol)
        np.testing.assert_allclose(backend.numpy(maxrl(rewards, groups))[[0, -1]], [(n - k) / k, -1], rtol=backend.rtol)


def test_normalisations_differ_by_their_constants(backend, rng):
    rewards, groups = backend(rng.normal(size=6)), backend(np.zeros(6, dtype=np.int64))
    sample = backend.numpy(grpo(rewards, groups, epsilon=0.0))
    population = backend.numpy(grpo(rewards, groups, normalize="population", epsilon=0.0))
    np.testing.assert_allclose(population, sample * np.sqrt(6 / 5), rtol=backend.rtol)
    none = grpo(rewards, groups, normalize=None)
    np.testing.assert_array_equal(backend.numpy(none), backend.numpy(dr_grpo(rewards, groups)))


def test_epsilon_decides_where_the_spread_is_small(backend):
    groups = backend([0, 0])
    got = backend.numpy(grpo(backend([0.0, 2e-6]), groups, normalize="population"))
    np.testing.assert_allclose(got, [-0.5, 0.5], rtol=1e-5)
    got = backend.numpy(grpo(backend([0.0, 1e-30]), groups, normalize="population", epsilon=0.0))
    np.testing.assert_allclose(got, [-1.0, 1.0], rtol=1e-5)


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("size", [1e-320, 1e-170, 1e170, 1e307])
def test_rewards_of_extreme_size(name, size):
    """No square overflows or underflows; sizes cancel, as far as epsilon lets them."""
    got = GROUPED[name](np.array([0.0, 1.0, 3.0, 4.0]) * size, np.zeros(4, dtype=np.int64))
    unit = np.array(reference(name, [0.0, 1.0, 3.0, 4.0], [0] * 4))
    if name in ("dr_grpo", "rloo"):
        np.testing.assert_allclose(got, unit * size, rtol=1e-2, atol=1e-323)
    elif name == "grpo" and size < 1:
        np.testing.assert_allclose(got, 0.0, atol=1e-150)
    else:
        np.testing.assert_allclose(got, unit, rtol=1e-2 if size < 1e-300 else 1e-5)


def test_reinforce_has_no_baseline(backend):
    rewards = np.array([1.0, -2.0, 1.0])
    np.testing.assert_array_equal(backend.numpy(reinforce(backend(rewards), backend([0, 0, 0]))), rewards)


def test_w_reinforce_takes_correctness(backend):
    xp = torch if backend.name == "torch" else np
    got = w_reinforce(backend(np.array([[True, False], [False, False]])), 0.1, dtype=getattr(xp, backend.dtype))
    np.testing.assert_allclose(backend.numpy(got), [[0.1, -1.0], [-1.0, -1.0]], rtol=backend.rtol)


def test_w_reinforce_default_dtype_is_the_librarys():
    assert w_reinforce(np.array([True])).dtype == np.float64
    assert w_reinforce(torch.tensor([True])).dtype == torch.get_default_dtype()


def test_names():
    assert list(ADVANTAGES) == ["grpo", "dr_grpo", "rloo", "reinforce", "maxrl"]
    assert all(function is getattr(advantages, name) for name, function in ADVANTAGES.items())


grouped_rows = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), min_size=1, max_size=25)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(grouped_rows, st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter_to_the_bit(rows, random):
    shuffled = list(enumerate(rows))
    random.shuffle(shuffled)
    where = [i for i, _ in shuffled]
    rewards, groups = np.array([r / 7 for r, _ in rows]), np.array([g for _, g in rows])
    for function in GROUPED.values():
        for array in (np.asarray, torch.tensor):
            whole = np.asarray(function(array(rewards), array(groups)))
            np.testing.assert_array_equal(
                np.asarray(function(array(rewards[where]), array(groups[where]))), whole[where]
            )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(grouped_rows, st.integers(-3, 3), st.sampled_from([0.5, 2.0, 8.0]))
def test_invariants(rows, shift, scale):
    """Zero sum; invariant to a shift, save MaxRL; equivariant to scale, GRPO without epsilon and MaxRL invariant."""
    rewards, groups = np.array([float(r) for r, _ in rows]), np.array([g for _, g in rows])
    for name, function in GROUPED.items():
        result = function(rewards, groups)
        for key in set(groups.tolist()):
            assert abs(result[groups == key].sum()) < 1e-12
            spread = np.ptp(rewards[groups == key])
            assert np.all((result[groups == key] != 0).any() == (spread > 0))
        if name != "maxrl":
            np.testing.assert_array_equal(function(rewards + shift, groups), result)
        if name != "grpo":
            expected = result if name in ("grpo_population", "maxrl") else scale * result
            np.testing.assert_array_equal(function(rewards * scale, groups), expected)


ONE, KEYS = np.ones(2), np.array([0, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: grpo(np.zeros(0), np.zeros(0, dtype=int)),
            r"rewards: expected a non-empty 1-D array, got shape \(0,\)",
        ),
        (lambda: rloo(np.ones((2, 2)), np.zeros((2, 2), dtype=int)), "rewards: expected a non-empty 1-D array"),
        (lambda: dr_grpo(ONE, np.array([0, 0, 0])), r"groups: expected the shape of rewards \(2,\), got \(3,\)"),
        (lambda: maxrl(ONE, np.array([0.0, 1.0])), "groups: expected an integer dtype"),
        (lambda: grpo(ONE, np.array([True, False])), "groups: expected an integer dtype"),
        (lambda: grpo(ONE, np.array(["a", 1], dtype=object)), "groups: expected keys that can be sorted"),
        (lambda: grpo(torch.ones(2), np.array(["a", "b"])), "rewards, groups: expected one array library"),
        (lambda: reinforce(np.array([1, 0]), KEYS), "rewards: expected a floating dtype"),
        (lambda: reinforce(np.array([1.0, np.nan]), KEYS), "rewards: expected finite values"),
        (lambda: reinforce([1.0, 0.0], KEYS), "rewards: expected an array, got list"),
        (lambda: maxrl(np.array([1.0, -1.0]), KEYS), "rewards: expected values >= 0"),
        (lambda: dr_grpo(np.array([1.7e308, -1.7e308]), KEYS), "rewards: .* got an overflow"),
        (lambda: grpo(ONE, KEYS, normalize="std"), "normalize: expected one of sample, population, None, got 'std'"),
        (lambda: grpo(ONE, KEYS, singleton=0), "singleton: expected one of zero, reward, got 0"),
        (lambda: grpo(ONE, KEYS, epsilon=-1e-6), "epsilon: expected"),
        (lambda: w_reinforce(np.array([1.0, 0.0])), "correct: expected a boolean dtype"),
        (lambda: w_reinforce(np.array([True]), -0.1), "weight: expected"),
        (lambda: w_reinforce(np.array([True]), 1e300, dtype=np.float32), "weight: .* got an overflow"),
        (lambda: w_reinforce(np.array([True]), dtype=np.int64), "dtype: expected one of None, .*float32"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


rewards_of = st.sampled_from([0.0, 1.0]) | st.floats(0, 1) | fuzzing.any_float
rows = st.tuples(st.integers(0, 4), st.integers(0, 4)).flatmap(
    lambda n: st.tuples(
        fuzzing.float_arrays(n[0], rewards_of),
        hnp.arrays(np.int64, n[0] if n[1] else n[1], elements=st.integers(0, 2)),  # now and then of another length
    )
)


@fuzzing.fuzz
@given(
    rows,
    st.sampled_from(["sample", "population", None, "std"]),
    st.sampled_from([0.0, 1e-6]) | fuzzing.any_float,
    st.sampled_from(["zero", "reward", "raw"]),
)
def test_fuzz_grpo(rows, normalize, epsilon, singleton):
    fuzzing.call(grpo, *rows, normalize=normalize, epsilon=epsilon, singleton=singleton)


@fuzzing.fuzz
@given(rows)
def test_fuzz_dr_grpo(rows):
    fuzzing.call(dr_grpo, *rows)


@fuzzing.fuzz
@given(rows)
def test_fuzz_rloo(rows):
    fuzzing.call(rloo, *rows)


@fuzzing.fuzz
@given(rows)
def test_fuzz_reinforce(rows):
    fuzzing.call(reinforce, *rows)


@fuzzing.fuzz
@given(rows)
def test_fuzz_maxrl(rows):
    result = fuzzing.call(maxrl, *rows)
    if result is not None:
        assert np.all((result >= -1 - 1e-12) & (result <= len(result) - 1 + 1e-12))


@fuzzing.fuzz
@given(hnp.arrays(np.bool_, st.integers(0, 4)), st.just(0.1) | fuzzing.any_float)
def test_fuzz_w_reinforce(correct, weight):
    fuzzing.call(w_reinforce, correct, weight)
