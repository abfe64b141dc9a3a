"""entropy_change: Theorem 1 against the exact change, three kinds of derivative, and 50-digit arithmetic."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from tests.theory import fuzzing
from theory.policy.entropy_change import exact, first_order, first_order_sequence, update_coefficient
from theory.policy.softmax import TokenStatistics, log_softmax, pi_lambda, token_statistics

# mpmath, 50 digits, for z = (3, -12, 25, 0) / 10 as mpf fractions, xi = 1 and a = 0, 1, 2, 3:
#   pol = lambda z: [exp(x) / fsum(exp(y) for y in z) for x in z]; H = lambda p: -fsum(x * log(x) for x in p)
#   p = pol(z); h = H(p); M = fsum(x * x * (log(x) + h) for x in p)
#   first order: -(p[a] * (log(p[a]) + h) - M);  exact: H(pol([z[i] + eta * ((i == a) - p[i]) for i in range(4)])) - h
GOLDEN_LOGITS = np.array([0.3, -1.2, 2.5, 0.0])
GOLDEN_FIRST_ORDER = [0.43396709252270241154, 0.34027377839516422019, -0.090380078375952137415, 0.41277196442490463019]
GOLDEN_EXACT = {
    1e-12: [4.3396709252276810592e-13, 3.4027377839523657811e-13, -9.038007837594963324e-14, 4.1277196442498442171e-13],
    0.5: [0.22188683396661664071, 0.18724847302913917186, -0.044514272229330412029, 0.21853888948698318273],
    2.0: [0.21176645568262597367, 0.6665101777002677672, -0.1680383594535557084, 0.33150517094406651529],
}
ACTIONS = np.arange(4)
FOUR = np.tile(GOLDEN_LOGITS, (4, 1))


def entropy(logits):
    log_pi = log_softmax(logits)
    return -(np.exp(log_pi) * log_pi).sum(-1)


def test_update_coefficient_on_both_sides_of_both_bounds(backend):
    advantage = np.array([2.0, 2.0, 2.0, 2.0, -2.0, -2.0, -2.0, -2.0, 0.0])
    ratio = np.array([0.0, 0.5, 1.25, 1.2501, 0.7499, 0.75, 1.25, 4.0, 1.0])
    got = update_coefficient(backend(advantage), backend(ratio), clip_low=0.25, clip_high=0.25)
    expected = [0.0, 1.0, 2.5, 0.0, 0.0, -1.5, -2.5, -8.0, 0.0]
    np.testing.assert_allclose(backend.numpy(got), expected, rtol=backend.rtol)


def test_clip_ranges_are_not_exchanged(backend):
    got = update_coefficient(backend([1.0, -1.0]), backend([1.25, 0.75]), clip_low=0.2, clip_high=0.28)
    np.testing.assert_allclose(backend.numpy(got), [1.25, 0.0], rtol=backend.rtol)


def test_update_coefficient_is_the_gradient_weight_of_the_clipped_surrogate(rng):
    """d/d log pi of min(r A, clip(r) A) is 1[not clipped] r A."""
    advantage = torch.tensor(rng.normal(size=200))
    log_ratio = torch.tensor(rng.normal(size=200) * 0.4, requires_grad=True)
    ratio = torch.exp(log_ratio)
    surrogate = torch.minimum(ratio * advantage, torch.clip(ratio, 0.8, 1.28) * advantage).sum()
    (gradient,) = torch.autograd.grad(surrogate, log_ratio)
    assert 0 < int((gradient == 0).sum()) < 200
    torch.testing.assert_close(update_coefficient(advantage, ratio, 0.2, 0.28), gradient)


def test_first_order_golden_values(backend):
    stats = token_statistics(backend(FOUR), backend(ACTIONS))
    got = first_order(stats, backend(np.full(4, 3.0)), learning_rate=0.5)
    np.testing.assert_allclose(backend.numpy(got), np.multiply(1.5, GOLDEN_FIRST_ORDER), rtol=10 * backend.rtol)


@pytest.mark.parametrize("learning_rate", GOLDEN_EXACT)
def test_exact_golden_values(backend, learning_rate):
    got = exact(backend(FOUR), backend(ACTIONS), backend(np.ones(4)), learning_rate)
    np.testing.assert_allclose(backend.numpy(got), GOLDEN_EXACT[learning_rate], rtol=10 * backend.rtol)


def test_exact_error_is_a_few_rounding_units_of_the_step(rng):
    """Against 60 digits, over steps from 1e-14 to 20: the error stays below 4 eps min(1, |eta xi|) max(1, log V)."""
    for num_tokens, scale in ((2, 1.0), (5, 0.0), (5, 5.0), (30, 1.0), (30, 20.0)):
        for step in (1e-14, 1e-8, -1e-3, 0.5, -0.999, 1.001, -20.0):
            logits = rng.normal(size=num_tokens) * scale
            action = int(rng.integers(num_tokens))
            got = float(exact(logits, np.array(action), np.array(step)))
            with mpmath.workdps(60):
                z = [mpmath.mpf(float(x)) for x in logits]

                def policy(z):
                    total = mpmath.fsum(mpmath.exp(x) for x in z)
                    return [mpmath.exp(x) / total for x in z]

                def entropy_60(pi):
                    return -mpmath.fsum(p * mpmath.log(p) for p in pi)

                pi = policy(z)
                moved = [x + mpmath.mpf(step) * ((v == action) - p) for v, (x, p) in enumerate(zip(z, pi, strict=True))]
                error = abs(float(mpmath.mpf(got) - (entropy_60(policy(moved)) - entropy_60(pi))))
            assert error <= 4 * np.finfo(float).eps * min(1, abs(step)) * max(1, np.log(num_tokens))


def test_first_order_is_the_directional_derivative_three_ways(rng):
    """Along e_a - pi: the closed form, autograd of H, and central differences of H and of `exact`."""
    for _ in range(5):
        logits = rng.normal(size=6) * 2
        for action in range(6):
            direction = np.eye(6)[action] - np.exp(log_softmax(logits))
            stats = token_statistics(logits, np.array(action))
            closed = float(first_order(stats, np.array(1.0)))
            variable = torch.tensor(logits, requires_grad=True)
            (gradient,) = torch.autograd.grad(token_statistics(variable, torch.tensor(action)).entropy, variable)
            step = 1e-5
            central = (entropy(logits + step * direction) - entropy(logits - step * direction)) / (2 * step)
            plus, minus = (exact(logits, np.array(action), np.array(sign), step) for sign in (1.0, -1.0))
            np.testing.assert_allclose(closed, gradient.numpy() @ direction, rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(closed, central, rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(closed, (plus - minus) / (2 * step), rtol=1e-6, atol=1e-9)


def test_remainder_is_second_order(rng):
    """The remainder exact - first_order falls with slope 2 down to steps of 1e-6, where it is about 1e-12."""
    logits = rng.normal(size=(20, 8))
    actions = rng.integers(8, size=20)
    coefficient = rng.choice([-1.0, 1.0], size=20)
    stats = token_statistics(logits, actions)
    rates = np.logspace(-6, -2, 9)
    remainder = np.array([exact(logits, actions, coefficient, r) - first_order(stats, coefficient, r) for r in rates])
    slopes = np.polyfit(np.log(rates), np.log(np.abs(remainder)), 1)[0]
    np.testing.assert_allclose(slopes, 2.0, atol=0.05)


def test_expectation_cancels_over_an_unclipped_group_and_only_there(rng):
    """(28): the group's mean change is -eta/n sum_j A_j pi(a_j) Lambda(a_j); clipping breaks sum_j xi_j = 0."""
    actions = rng.integers(5, size=8)
    stats = token_statistics(np.tile(rng.normal(size=5), (8, 1)), actions)
    advantage = rng.normal(size=8)
    advantage -= advantage.mean()
    without_expectation = -0.1 * np.mean(advantage * pi_lambda(stats))
    np.testing.assert_allclose(first_order(stats, advantage, 0.1).mean(), without_expectation, rtol=1e-12)
    clipped = update_coefficient(advantage, np.where(advantage == advantage.max(), 1.5, 1.0))
    without_expectation = -0.1 * np.mean(clipped * pi_lambda(stats))
    assert abs(first_order(stats, clipped, 0.1).mean() - without_expectation) > 1e-3


def test_expected_first_order_change_is_zero_under_the_policy(rng):
    logits = rng.normal(size=7)
    stats = token_statistics(np.tile(logits, (7, 1)), np.arange(7))
    assert abs(np.exp(log_softmax(logits)) @ first_order(stats, np.ones(7))) < 1e-16 * 7


def test_sequence_proxy_takes_the_mean_over_valid_tokens(backend, rng):
    stats = token_statistics(backend(rng.normal(size=(2, 3, 5))), backend(rng.integers(5, size=(2, 3))))
    mask = np.array([[True, True, False], [False, True, False]])
    coefficient = rng.normal(size=(2, 3))
    value = backend.numpy(pi_lambda(stats))
    expected = np.zeros((2, 3))
    expected[0, :2] = -0.5 * coefficient[0, :2] * (value[0, :2] - value[0, :2].mean())
    got = first_order_sequence(stats, backend(coefficient), backend(mask), learning_rate=0.5)
    np.testing.assert_allclose(backend.numpy(got), expected, rtol=backend.rtol, atol=backend.rtol)


def test_sequence_proxy_ignores_padding_and_is_exact_where_its_mean_is(backend, rng):
    logits = rng.normal(size=(1, 4, 5))
    coefficient = rng.normal(size=(1, 4))
    mask = np.array([[True, True, True, False]])
    stats = token_statistics(backend(logits), backend(np.array([[0, 1, 2, 3]])))
    other = TokenStatistics(*(backend(np.where(mask, backend.numpy(x), 0.5 * backend.numpy(x))) for x in stats))
    first, second = (
        backend.numpy(first_order_sequence(x, backend(coefficient), backend(mask))) for x in (stats, other)
    )
    np.testing.assert_array_equal(first, second)
    empty = first_order_sequence(stats, backend(coefficient), backend(np.zeros((1, 4), dtype=bool)))
    np.testing.assert_array_equal(backend.numpy(empty), np.zeros((1, 4)))
    uniform = token_statistics(backend(np.zeros((1, 4, 5))), backend(np.zeros((1, 4), dtype=np.int64)))
    np.testing.assert_allclose(
        backend.numpy(first_order_sequence(uniform, backend(coefficient), backend(mask))),
        backend.numpy(first_order(uniform, backend(coefficient))) * mask,
        atol=1e-6,
    )


def test_change_vanishes_with_each_factor(backend):
    """Remark 2, and a deterministic or a uniform policy."""
    logits = backend(np.array([[200.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 2.0]]))
    stats = token_statistics(logits, backend(np.array([0, 1, 2])))
    change = backend.numpy(first_order(stats, backend([1.0, 1.0, 0.0])))
    np.testing.assert_allclose(change, 0.0, atol=1e-7)
    single = exact(backend(np.array([[3.0]])), backend(np.array([0])), backend([1.0]))
    np.testing.assert_array_equal(backend.numpy(single), [0.0])


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_extreme_logits_and_steps(backend, scale):
    logits = backend(np.array([[scale, -scale, 0.0], [0.0, 0.0, -scale], [0.0, 0.0, 0.0]]))
    actions = backend(np.array([1, 0, 2]))
    far = backend.numpy(exact(logits, actions, backend(np.array([1.0, 1.0, 1.0])), 4 * scale))
    np.testing.assert_allclose(far, [0.0, -np.log(2), -np.log(3)], rtol=1e-6, atol=1e-6)
    near = backend.numpy(exact(logits, actions, backend(np.array([1.0, 1.0, 1.0])), 1e-6))
    np.testing.assert_allclose(near, 0.0, atol=1e-11)
    for zero in (exact(logits, actions, backend(np.ones(3)), 0.0), exact(logits, actions, backend(np.zeros(3)), 1e3)):
        np.testing.assert_array_equal(backend.numpy(zero), 0.0)


def test_exact_is_continuous_where_the_two_evaluations_meet(rng):
    logits = rng.normal(size=(30, 6)) * 3
    actions = rng.integers(6, size=30)
    for sign in (1.0, -1.0):
        below = exact(logits, actions, np.full(30, sign))
        above = exact(logits, actions, np.full(30, sign * (1 + 1e-15)))
        np.testing.assert_allclose(below, above, atol=1e-14)


def test_torch_gradients_are_finite():
    logits = torch.tensor([[1e4, -1e4, 0.0], [0.3, 0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    coefficient = torch.tensor([5.0, 0.5], dtype=torch.float64, requires_grad=True)
    change = exact(logits, torch.tensor([1, 2]), coefficient).sum()
    change = change + first_order(token_statistics(logits, torch.tensor([1, 2])), coefficient).sum()
    for gradient in torch.autograd.grad(change, (logits, coefficient)):
        assert torch.isfinite(gradient).all()


STATS = token_statistics(np.zeros((2, 3)), np.array([0, 1]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: update_coefficient(np.ones(2), np.array([1.0, -0.1])), "ratio: expected values >= 0"),
        (lambda: update_coefficient(np.ones(2), np.ones(3)), r"ratio: expected the shape of advantage \(2,\)"),
        (lambda: update_coefficient(np.array([np.nan]), np.ones(1)), "advantage: expected finite"),
        (lambda: update_coefficient(np.ones(1), np.ones(1), clip_low=1.5), r"clip_low: .* in \[0.0, 1.0\], got 1.5"),
        (lambda: update_coefficient(np.ones(1), np.ones(1), clip_high=-0.1), "clip_high: expected"),
        (lambda: update_coefficient(np.full(1, -1e300), np.full(1, 1e300)), "coefficient: .* got an overflow"),
        (lambda: first_order(STATS, np.ones(3)), r"coefficient: expected the shape of log_prob \(2,\)"),
        (lambda: first_order(STATS, np.array([1, 1])), "coefficient: expected a floating dtype"),
        (lambda: first_order(STATS, np.ones(2), -1.0), "learning_rate: expected"),
        (lambda: first_order(STATS, np.ones(2), True), "learning_rate: expected a number"),
        (lambda: first_order(STATS, np.full(2, 1e300), 1e300), "coefficient: .* got an overflow"),
        (lambda: first_order(STATS._replace(entropy=np.full(2, -1.0)), np.ones(2)), "entropy: expected values >= 0"),
        (lambda: first_order(STATS, torch.ones(2)), "expected one array library"),
        (lambda: first_order_sequence(STATS, np.ones(2), np.ones(2)), "mask: expected a boolean dtype"),
        (lambda: first_order_sequence(STATS, np.ones(2), np.ones((2, 1), bool)), "mask: expected the shape"),
        (
            lambda: first_order_sequence(token_statistics(np.zeros(3), np.array(0)), np.array(1.0), np.array(True)),
            r"mask: expected shape \[..., T\]",
        ),
        (lambda: exact(np.zeros((2, 3)), np.array([0, 3]), np.ones(2)), "actions: expected ids"),
        (lambda: exact(np.zeros((2, 3)), np.array([0, 0]), np.ones(3)), "coefficient: expected the shape"),
        (lambda: exact(np.full((1, 2), -1e308), np.array([0]), np.ones(1), np.inf), "learning_rate: expected"),
        (
            lambda: exact(np.array([[1.7e308, -1.7e308]]), np.array([1]), np.full(1, -1.7e308)),
            "coefficient: .* got an overflow",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


floats = fuzzing.any_float | fuzzing.finite_float | st.floats(-2, 2)
vectors = fuzzing.float_arrays(st.integers(0, 3), floats)
masks = hnp.arrays(np.bool_, st.integers(0, 3))
statistic_tuples = st.integers(0, 3).flatmap(
    lambda n: st.builds(
        TokenStatistics,
        fuzzing.float_arrays(n, st.floats(-1e3, 0) | floats),
        fuzzing.float_arrays(n, st.floats(0, 1e3) | floats),
        fuzzing.float_arrays(n, st.floats(0, 1)),
        fuzzing.float_arrays(n, floats),
    )
)


@fuzzing.fuzz
@given(vectors, vectors, floats, floats)
def test_fuzz_update_coefficient(advantage, ratio, clip_low, clip_high):
    coefficient = fuzzing.call(update_coefficient, advantage, ratio, clip_low, clip_high)
    if coefficient is not None:
        assert np.all(np.sign(advantage) * np.sign(coefficient) >= 0)


@fuzzing.fuzz
@given(statistic_tuples, vectors, floats)
def test_fuzz_first_order(stats, coefficient, learning_rate):
    fuzzing.call(first_order, stats, coefficient, learning_rate)


@fuzzing.fuzz
@given(statistic_tuples, vectors, masks, floats)
def test_fuzz_first_order_sequence(stats, coefficient, mask, learning_rate):
    fuzzing.call(first_order_sequence, stats, coefficient, mask, learning_rate)


@fuzzing.fuzz
@given(
    fuzzing.float_arrays(st.tuples(st.integers(0, 3), st.integers(0, 4)), floats),
    hnp.arrays(np.int64, st.integers(0, 3), elements=st.integers(-1, 4)),
    vectors,
    floats,
)
def test_fuzz_exact(logits, actions, coefficient, learning_rate):
    change = fuzzing.call(exact, logits, actions, coefficient, learning_rate)
    if change is not None:
        assert np.all(np.abs(change) <= np.log(logits.shape[-1]) + 1e-12)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_one_coefficient_stands_for_that_of_all_tokens(backend, rng, shape):
    """A number, NumPy's or Python's, and an array []: what an array filled with it gives, of the tokens' shape."""
    logits, actions = backend(rng.normal(size=(*shape, 5))), backend(rng.integers(5, size=shape))
    stats, filled = token_statistics(logits, actions), backend(np.full(shape, 2.0))
    for coefficient in (2, 2.0, np.float32(2), np.int64(2), backend(np.array(2.0))):
        for got, expected in (
            (first_order(stats, coefficient, 0.1), first_order(stats, filled, 0.1)),
            (exact(logits, actions, coefficient, 0.1), exact(logits, actions, filled, 0.1)),
            (update_coefficient(coefficient, filled, 0.2, 5.0), update_coefficient(filled, filled, 0.2, 5.0)),
            (update_coefficient(filled, coefficient, 0.2, 5.0), update_coefficient(filled, filled, 0.2, 5.0)),
        ):
            assert tuple(got.shape) == shape
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(backend.numpy(got), backend.numpy(expected))
    with pytest.raises(ValueError, match="coefficient: expected a finite number in"):
        first_order(stats, 1e300 if backend.dtype == "float32" else np.inf)
    with pytest.raises(ValueError, match="coefficient: expected an array, got bool"):
        first_order(stats, True)
    with pytest.raises(ValueError, match="coefficient: expected the shape of log_prob"):
        first_order(stats, backend(np.ones((7, *shape))))


def test_numbers_alone_are_numbers():
    assert update_coefficient(1.0, 1.1) == 1.1
    assert update_coefficient(np.float32(1), np.float32(1.25)).dtype == np.float32


def test_the_token_of_one_policy_may_be_a_number(backend, rng):
    logits = backend(rng.normal(size=5))
    stats = token_statistics(logits, 3)
    for one, other in zip(stats, token_statistics(logits, backend(np.array(3))), strict=True):
        np.testing.assert_array_equal(backend.numpy(one), backend.numpy(other))
    np.testing.assert_array_equal(
        backend.numpy(exact(logits, 3, 1.5)), backend.numpy(exact(logits, backend(np.array(3)), backend(np.array(1.5))))
    )
    for wrong in (3.0, True, "3", None):
        with pytest.raises(ValueError, match="actions: expected"):
            token_statistics(logits, wrong)
    for wrong in (5, -1, 10**30):
        with pytest.raises(ValueError, match=r"actions: expected (at most 4|an integer >= 0), got"):
            token_statistics(logits, wrong)
