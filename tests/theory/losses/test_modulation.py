"""theory.losses.modulation: golden values, ranges and monotonicity, factors as constants."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from tests.theory.losses.statistics import ONES, STATS, VALID, arrays, batch, floats, masks, put, scopes, statistics_of
from theory.losses import (
    RELEASED_SCRIPT,
    Modulation,
    Scope,
    compensation,
    instability,
    modulate,
    scope_of,
    stabilization,
)
from theory.policy import TokenStatistics, token_statistics

# mpmath, 50 digits, one response of four tokens; logits / 10, actions and advantages as mpf fractions:
#   H, L = -fsum(x * log(x) for x in p), p[a] * (log(p[a]) + H);  M = fsum(x * x * (log(x) + H) for x in p)
#   X = [abs(A * (L - M))], with M the mean of L over the four tokens for mean="sequence"
#   comp = 1 + ac * (max(H) - h) / (max(H) - min(H)) if A > 0 else 1
#   stab = (1 - as) + as / (1 + exp(gamma * (x / max(X) - tau)));  A * comp * stab
LOGITS = np.array([[[0.3, -1.2, 2.5, 0.0], [0.0, 0.0, 1.0, 0.0], [-0.5, 2.0, 0.1, 0.0], [0.2, 0.1, 0.0, -0.1]]])
ACTIONS = np.array([[0, 2, 1, 3]])
ADVANTAGES = np.array([[1.5, 1.5, 0.5, -0.75]])
MASK = np.ones((1, 4), dtype=bool)
NARROW = np.ones(2, dtype=np.float32)
GOLDEN_INSTABILITY = [[0.65095063878405361731, 0.26167987223794688672, 0.073224345690647832, 0.028382535275177988769]]
GOLDEN = {  # modulation: (beta_comp, beta_stab, A_final)
    Modulation(alpha=0.4, sharpness=5.0, threshold=0.9): (
        [[1.4, 1.060471950799765974, 1.2767148290005319645, 1.0]],
        [[0.75101626751925817414, 0.96937561731100498835, 0.992350823370134356, 0.99454925477019264564]],
        [[1.5771341617904421657, 1.5419934779212932768, 0.63347450588376909169, -0.74591194107764448423]],
    ),
    RELEASED_SCRIPT: (
        [[1.2, 1.030235975399882987, 1.1383574145002659822, 1.0]],
        [[0.75101626751925817414, 0.9999999999952431324, 0.99999999999999414872, 0.99999999999999989342]],
        [[1.3518292815346647135, 1.5453539630924734363, 0.56917870725012966069, -0.74999999999999992006]],
    ),
}


@pytest.mark.parametrize("modulation", GOLDEN, ids=["vocabulary", "released-script"])
def test_golden_values(backend, modulation):
    stats = token_statistics(backend(LOGITS), backend(ACTIONS))
    got = modulate(backend(ADVANTAGES), stats, backend(MASK), modulation)
    comp, stab, advantages = GOLDEN[modulation]
    tolerance = 100 * backend.rtol  # The sharpness multiplies the rounding of Xi / max Xi.
    np.testing.assert_allclose(backend.numpy(got.compensation), comp, rtol=backend.rtol)
    np.testing.assert_allclose(backend.numpy(got.stabilization), stab, rtol=tolerance)
    np.testing.assert_allclose(backend.numpy(got.advantages), advantages, rtol=tolerance)


def test_instability_golden_values(backend):
    stats = token_statistics(backend(LOGITS), backend(ACTIONS))
    got = instability(stats, backend(ADVANTAGES), backend(MASK))
    np.testing.assert_allclose(backend.numpy(got), GOLDEN_INSTABILITY, rtol=10 * backend.rtol)


# mpmath, 30 digits: 1 - 1 / (1 + exp(-50 * (x - 1))) for x = 0, .875, 1, 1.0625, 1.5
GOLDEN_SIGMOID = [1.0, 0.99807326533667252459, 0.5, 0.0420877279156188409, 1.388794386477114561e-11]


def test_sigmoid_golden_values(backend):
    """Stabilisation with alpha = 1 around its threshold: at full weight, at half, and next to none."""
    got = stabilization(backend([0.0, 0.4375, 0.5, 0.53125, 0.75]), 1.0, 100.0, 0.5, Scope(0.0, 1.0, 1.0))
    np.testing.assert_allclose(backend.numpy(got), GOLDEN_SIGMOID, rtol=backend.rtol, atol=backend.rtol / 100)


@pytest.mark.parametrize("mean", ["vocabulary", "sequence"])
def test_zero_alpha_returns_the_advantages_to_the_bit(backend, rng, mean):
    stats, advantages, mask = batch(rng)
    stats, advantages = put(backend, stats), backend(advantages)
    got = modulate(advantages, stats, backend(mask), Modulation(alpha=0.0, mean=mean))
    np.testing.assert_array_equal(backend.numpy(got.advantages), backend.numpy(advantages))


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0])
def test_ranges_and_sign(backend, rng, alpha):
    stats, advantages, mask = batch(rng, rows=30)
    stats, advantages, mask = put(backend, stats), backend(advantages), backend(mask)
    got = modulate(advantages, stats, mask, Modulation(alpha=alpha))
    comp, stab = backend.numpy(got.compensation), backend.numpy(got.stabilization)
    rounding = 1e-7
    valid = backend.numpy(mask)
    positive = backend.numpy(advantages) > 0
    assert np.all((comp >= 1) & (comp <= 1 + alpha + rounding))
    assert np.all((stab >= 1 - alpha - rounding) & (stab <= 1))
    assert np.all(np.sign(backend.numpy(got.advantages)) == np.sign(backend.numpy(advantages)))
    # Both ends of both ranges are reached, on valid tokens.
    entropy = backend.numpy(stats.entropy)
    most_confident = np.where(valid, entropy, np.inf).argmin()
    np.testing.assert_allclose(comp.flat[most_confident], 1 + alpha if positive.flat[most_confident] else 1, rtol=1e-6)
    assert np.all(comp[~positive] == 1)
    indicator = np.where(valid, backend.numpy(instability(stats, advantages, mask)), -1)
    np.testing.assert_allclose(stab.flat[indicator.argmax()], 1 - alpha / (1 + np.exp(-5.0)), rtol=1e-5)


def test_compensation_is_for_positive_advantages_alone(backend):
    comp = compensation(backend(np.zeros(3)), backend(np.array([1.0, 0.0, -1.0])), 0.5, Scope(0.0, 1.0))
    assert backend.numpy(comp).tolist() == [1.5, 1.0, 1.0]


def test_monotone_in_entropy_and_in_instability(backend):
    values = np.linspace(0, 2, 21)
    comp = backend.numpy(compensation(backend(values), backend(np.ones(21)), 0.4, Scope(0.0, 2.0)))
    assert np.all(np.diff(comp) < 0)
    stab = backend.numpy(stabilization(backend(values), 0.4, 5.0, 0.5, Scope(0.0, 1.0, 2.0)))
    assert np.all(np.diff(stab) < 0)
    np.testing.assert_allclose(stab[10], 0.8, rtol=1e-6)  # At the threshold, half of the stabilisation.


def test_tokens_outside_the_mask_change_nothing_and_are_not_changed(backend, rng):
    stats, advantages, mask = batch(rng)
    other = TokenStatistics(*(np.where(mask, x, y) for x, y in zip(stats, batch(rng)[0], strict=True)))
    # Extremes outside the mask: a uniform and a deterministic token.
    other.entropy[0, :2] = np.log(7), 0.0
    changed = np.where(mask, advantages, 1e3)
    for modulation in GOLDEN:
        first = modulate(backend(advantages), put(backend, stats), backend(mask), modulation)
        second = modulate(backend(changed), put(backend, other), backend(mask), modulation)
        for x, y in zip(first, second, strict=True):
            np.testing.assert_array_equal(backend.numpy(x)[mask], backend.numpy(y)[mask])
        np.testing.assert_array_equal(backend.numpy(second.advantages)[~mask], 1e3)
        assert np.all(backend.numpy(second.compensation)[~mask] == 1)
        assert np.all(backend.numpy(second.stabilization)[~mask] == 1)


def test_empty_mask_and_empty_scope(backend, rng):
    stats, advantages, mask = batch(rng)
    stats, advantages = put(backend, stats), backend(advantages)
    nothing = backend(np.zeros_like(mask))
    assert scope_of(stats, advantages * advantages, nothing) == Scope()
    for valid, scope in ((nothing, None), (nothing, Scope(0.0, 1.0, 1.0)), (backend(mask), Scope())):
        got = modulate(advantages, stats, valid, Modulation(), scope=scope)
        np.testing.assert_array_equal(backend.numpy(got.advantages), backend.numpy(advantages))


def test_equal_entropies_and_zero_instability_leave_the_factors_at_one(backend):
    """Not at 1 + alpha, nor at (1 - alpha) + alpha sigmoid(gamma tau), which is below 1 for a soft sigmoid."""
    stats = token_statistics(backend(np.zeros((1, 3, 4))), backend(np.zeros((1, 3), dtype=np.int64)))
    mask = backend(np.ones((1, 3), dtype=bool))
    got = modulate(backend(np.ones((1, 3))), stats, mask, Modulation(sharpness=0.1))
    np.testing.assert_array_equal(backend.numpy(got.compensation), 1.0)
    clipped = modulate(
        backend(np.ones((1, 3))), stats, mask, Modulation(sharpness=0.1), coefficient=backend(np.zeros((1, 3)))
    )
    np.testing.assert_array_equal(backend.numpy(clipped.stabilization), 1.0)


@pytest.mark.parametrize("mean", ["vocabulary", "sequence"])
def test_rounding_is_not_blown_up_to_the_range_of_the_factors(backend, rng, mean):
    """Entropies that differ in the last bit, and a uniform policy, whose Xi is 1e-17 instead of 0."""
    stats = token_statistics(backend(np.zeros((1, 40, 7))), backend(np.full((1, 40), 2)))
    last_bit = np.spacing(backend.numpy(stats.entropy).astype(backend.dtype)) * rng.integers(3, size=(1, 40))
    stats = stats._replace(entropy=stats.entropy + backend(last_bit))
    mask = backend(np.ones((1, 40), dtype=bool))
    for scale in (1e-3, 1.0):
        got = modulate(backend(np.full((1, 40), scale)), stats, mask, Modulation(mean=mean))
        np.testing.assert_array_equal(backend.numpy(got.compensation), 1.0)
        np.testing.assert_array_equal(backend.numpy(got.stabilization), 1.0)


@pytest.mark.parametrize(("epsilons", "counts"), [(15, False), (16, False), (17, True)])
@pytest.mark.parametrize("size", [0.5, 8.0])
def test_what_counts_as_rounding(backend, epsilons, counts, size):
    """Sixteen machine epsilons of the coefficient, and of the largest entropy or 1; what is larger is a difference."""
    step = epsilons * float(np.finfo(backend.dtype).eps)
    # log pi(a) = 0 and H = 0, so that the change is |xi M|.
    stats = TokenStatistics(*(backend(np.array([[x]])) for x in (0.0, 0.0, 1.0, step)))
    found = backend.numpy(instability(stats, backend(np.array([[size]])), backend(np.ones((1, 1), dtype=bool))))
    np.testing.assert_allclose(found, step * size * counts, rtol=1e-6)
    low, high = size, size + max(1.0, size) * step
    entropies, ones = backend(np.array([low, high])), backend(np.ones(2))
    factors = backend.numpy(compensation(entropies, ones, 0.5, Scope(low, high)))
    np.testing.assert_array_equal(factors, [1.5 if counts else 1.0, 1.0])
    scope = Scope(*(backend(np.array(x)) for x in (low, high, 0.0)))
    np.testing.assert_array_equal(backend.numpy(compensation(entropies, ones, 0.5, scope)), factors)


def test_factors_do_not_depend_on_the_scale_of_advantages(rng):
    stats, advantages, mask = batch(rng)
    expected = modulate(advantages, stats, mask, Modulation())
    got = modulate(advantages * 2.0**-60, stats, mask, Modulation())
    np.testing.assert_array_equal(got.stabilization, expected.stabilization)
    assert np.any(got.stabilization < 1)


def test_values_outside_the_scope_count_as_the_nearest_extreme(backend):
    comp = compensation(backend([0.0, 0.5, 2.0, 9.0]), backend(np.ones(4)), 0.4, Scope(0.5, 2.0))
    np.testing.assert_allclose(backend.numpy(comp), [1.4, 1.4, 1.0, 1.0], rtol=1e-6)
    stab = backend.numpy(stabilization(backend([2.0, 50.0]), 0.4, 50.0, 0.9, Scope(0.5, 2.0, 2.0)))
    assert stab[0] == stab[1]


def test_scope_that_a_narrow_dtype_cannot_hold(backend):
    ones = backend(np.ones(2))
    if backend.dtype == "float32":
        np.testing.assert_array_equal(backend.numpy(stabilization(ones, 0.4, 1.0, 0.9, Scope(0.0, 1.0, 1e-300))), 1.0)
        np.testing.assert_array_equal(backend.numpy(compensation(ones, ones, 0.4, Scope(1.0, 1.0 + 1e-12))), 1.0)
        with pytest.raises(ValueError, match=r"scope: .* got an overflow"):
            stabilization(ones, 0.4, 1.0, 0.9, Scope(0.0, 1.0, 1e300))


def test_clipped_tokens_are_stable_and_the_coefficient_replaces_the_advantage(backend, rng):
    stats, advantages, mask = batch(rng)
    coefficient = np.where(rng.random(mask.shape) < 0.5, 0.0, 2 * advantages)
    got = modulate(
        backend(advantages), put(backend, stats), backend(mask), Modulation(), coefficient=backend(coefficient)
    )
    indicator = instability(put(backend, stats), backend(coefficient), backend(mask))
    scope = scope_of(put(backend, stats), indicator, backend(mask))
    expected = np.where(mask, backend.numpy(stabilization(indicator, 0.4, 50.0, 0.9, scope)), 1)
    np.testing.assert_array_equal(backend.numpy(got.stabilization), expected)
    np.testing.assert_array_equal(backend.numpy(got.stabilization)[coefficient == 0], 1.0)
    expected = backend.numpy(compensation(put(backend, stats).entropy, backend(advantages), 0.4, scope))
    np.testing.assert_array_equal(backend.numpy(got.compensation), np.where(mask, expected, 1))


@pytest.mark.parametrize("modulation", GOLDEN, ids=["vocabulary", "released-script"])
def test_factors_are_constants_for_the_gradient(rng, modulation):
    """The gradient of -sum A_final log pi(a) is that of -sum A log pi(a), token by token times both factors."""
    logits = torch.tensor(rng.normal(size=(3, 4, 5)), requires_grad=True)
    actions = torch.tensor(rng.integers(5, size=(3, 4)))
    advantages = torch.tensor(rng.normal(size=(3, 1))).expand(3, 4).clone()
    mask = torch.tensor(rng.random((3, 4)) < 0.8)
    stats = token_statistics(logits, actions)
    ratio = torch.exp(stats.log_prob - stats.log_prob.detach())
    result = modulate(advantages, stats, mask, modulation, coefficient=ratio * advantages)
    indicator = instability(stats, ratio * advantages, mask, modulation.mean)
    comp = compensation(stats.entropy, advantages, 0.4, Scope(0.0, 2.0))
    stab = stabilization(torch.exp(stats.log_prob), 0.4, 50.0, 0.9, Scope(0.0, 1.0, 1.0))
    assert not any(x.requires_grad for x in (*result, indicator, comp, stab))
    (modulated,) = torch.autograd.grad(-(result.advantages * stats.log_prob).sum(), logits, retain_graph=True)
    (plain,) = torch.autograd.grad(-(advantages * stats.log_prob).sum(), logits)
    factors = result.compensation * result.stabilization
    assert int((factors != 1).sum()) >= 4
    torch.testing.assert_close(modulated, plain * factors[..., None], rtol=1e-13, atol=1e-15)
    trainable = advantages.clone().requires_grad_()
    (direct,) = torch.autograd.grad(modulate(trainable, stats, mask, modulation).advantages.sum(), trainable)
    again = modulate(advantages, stats, mask, modulation)
    torch.testing.assert_close(direct, again.compensation * again.stabilization)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_extremes(backend, scale):
    logits = np.array([[[scale, -scale, 0.0], [0.0, 0.0, -scale], [scale, -scale, 0.0], [0.0, 0.1, 0.2]]])
    stats = token_statistics(backend(logits), backend(np.array([[1, 0, 0, 2]])))
    advantages = backend(np.array([[1.0, -1.0, 1e20, 1e-20]]))
    got = modulate(advantages, stats, backend(np.ones((1, 4), bool)), Modulation(sharpness=1e6, alpha=1.0))
    for x in got:
        assert np.isfinite(backend.numpy(x)).all()
    np.testing.assert_allclose(backend.numpy(got.compensation)[0, [0, 2]], 2.0, rtol=1e-6)


def test_strengths_default_to_alpha():
    assert (Modulation(alpha=0.3).compensation_strength, Modulation(alpha=0.3).stabilization_strength) == (0.3, 0.3)
    only = Modulation(alpha_comp=0.0, alpha_stab=0.7)
    assert (only.compensation_strength, only.stabilization_strength) == (0.0, 0.7)
    changed = dataclasses.replace(Modulation(alpha_stab=0.7), alpha=0.1)
    assert (changed.compensation_strength, changed.stabilization_strength) == (0.1, 0.7)


@pytest.mark.parametrize(
    ("modulation", "factor"),
    [(Modulation(alpha_comp=0.0), "compensation"), (Modulation(alpha_stab=0.0), "stabilization")],
)
def test_each_mechanism_can_be_switched_off(rng, modulation, factor):
    stats, advantages, mask = batch(rng)
    got = modulate(advantages, stats, mask, modulation)._asdict()
    assert np.all(got.pop(factor) == 1)
    assert all(np.any(x != 1) for x in got.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Modulation(alpha=1.1), r"alpha: .* in \[0.0, 1.0\], got 1.1"),
        (lambda: Modulation(alpha=True), "alpha: expected a number"),
        (lambda: Modulation(sharpness=0.0), r"sharpness: .* in \(0.0, inf\], got 0.0"),
        (lambda: Modulation(sharpness=float("inf")), "sharpness: expected a finite number"),
        (lambda: Modulation(threshold=-0.1), "threshold: expected"),
        (lambda: Modulation(threshold=1.1), "threshold: expected"),
        (lambda: Modulation(alpha_comp=-0.1), "alpha_comp: expected"),
        (lambda: Modulation(alpha_stab=1.5), "alpha_stab: expected"),
        (lambda: Modulation(mean="batch"), "mean: expected one of vocabulary, sequence, got 'batch'"),
        (lambda: instability(STATS, ONES, VALID, "batch"), "mean: expected one of"),
        (lambda: instability(STATS, ONES, ONES), "mask: expected a boolean dtype"),
        (lambda: instability(STATS, ONES, np.ones(3, bool)), "mask: expected the shape of coefficient"),
        (lambda: compensation(ONES, np.ones(3), 0.4, Scope()), "advantages: expected the shape of entropy"),
        (lambda: compensation(ONES, ONES, -0.4, Scope()), "alpha: expected"),
        (lambda: stabilization(-ONES, 0.4, 50.0, 0.9, Scope()), "instability: expected values >= 0"),
        (lambda: stabilization(ONES, 1.4, 50.0, 0.9, Scope()), "alpha: expected"),
        (lambda: stabilization(ONES, 0.4, -50.0, 0.9, Scope()), "sharpness: expected"),
        (lambda: stabilization(ONES, 0.4, 0.0, 0.9, Scope()), "sharpness: expected"),
        (lambda: stabilization(ONES, 0.4, 50.0, 9.0, Scope()), "threshold: expected"),
        (lambda: stabilization(ONES, -0.1, 50.0, 0.9, Scope()), "alpha: expected"),
        # Beyond the largest number of the dtype; 3e38 is within.
        (lambda: stabilization(NARROW, 0.4, 4e38, 0.0, Scope(0.0, 1.0, 1.0)), "sharpness: .* got an overflow"),
        (lambda: compensation(NARROW, NARROW, 4e38, Scope(1.0, 2.0)), "alpha: .* got an overflow"),
        (lambda: modulate(np.ones((1, 2)), STATS, VALID, Modulation()), "mask: expected the shape of advantages"),
        (lambda: modulate(np.array([1, 1]), STATS, VALID, Modulation()), "advantages: expected a floating dtype"),
        (lambda: modulate(ONES, STATS, VALID, Modulation(), coefficient=np.ones(3)), "expected the shape"),
        (lambda: modulate(ONES, STATS, torch.ones(2) > 0, Modulation()), "expected one array library"),
        (
            lambda: modulate(ONES * 1e308, STATS, VALID, Modulation(alpha_comp=1e3), scope=Scope(0.0, 2.0, 0.0)),
            "advantages: .* got an overflow",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_strengths_up_to_the_largest_of_the_dtype():
    steep = stabilization(np.float32([0.0, 0.5, 1.0]), 0.25, 3e38, 0.5, Scope(0.0, 1.0, 1.0))
    np.testing.assert_array_equal(steep, np.float32([1.0, 0.875, 0.75]))
    strong = compensation(NARROW, NARROW, 3e38, Scope(1.0, 2.0))
    np.testing.assert_array_equal(strong, np.float32([3e38, 3e38]))


@fuzzing.fuzz
@given(
    st.lists(st.none() | st.floats(0, 1) | fuzzing.any_float, min_size=5, max_size=5), st.sampled_from(["sequence", 1])
)
def test_fuzz_Modulation(values, mean):
    fuzzing.call(Modulation, *[0.5 if x is None and i < 3 else x for i, x in enumerate(values)], mean=mean)


@fuzzing.fuzz
@given(arrays(5), masks, st.sampled_from(["vocabulary", "sequence", "batch"]))
def test_fuzz_instability(values, mask, mean):
    fuzzing.call(instability, statistics_of(values), values[4], mask[: values.shape[1]], mean)


@fuzzing.fuzz
@given(arrays(2), floats, scopes)
def test_fuzz_compensation(values, alpha, scope):
    fuzzing.call(compensation, *values, alpha, scope)


@fuzzing.fuzz
@given(arrays(1), floats, floats, st.floats(0, 1), scopes)
def test_fuzz_stabilization(values, alpha, sharpness, threshold, scope):
    factor = fuzzing.call(stabilization, values[0], alpha, sharpness, threshold, scope)
    if factor is not None:
        assert np.all((factor >= 1 - alpha) & (factor <= 1))


@fuzzing.fuzz
@given(arrays(6), masks, st.sampled_from(list(GOLDEN)), st.none() | scopes, st.booleans())
def test_fuzz_modulate(values, mask, modulation, scope, on_policy):
    coefficient = None if on_policy else values[5]
    mask = mask[: values.shape[1]]
    stats = statistics_of(values)
    fuzzing.call(modulate, values[4], stats, mask, modulation, coefficient=coefficient, scope=scope)
