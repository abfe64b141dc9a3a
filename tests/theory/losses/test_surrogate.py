"""theory.losses: hand-computed values, gradients three ways, limits that are GRPO, packing that changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from theory import losses
from theory.estimators.advantages import grpo
from theory.losses.aggregation import AGGREGATIONS, aggregation_weights
from theory.losses.selection import CovarianceScope, covariance
from theory.losses.surrogate import (
    ClipCov,
    ClippedSurrogate,
    EntropyAdvantages,
    EntropyBonus,
    ForkTokens,
    KlCov,
    Selection,
    policy_loss,
    select_tokens,
)
from theory.policy.softmax import TokenStatistics, centred_log_prob, log_softmax, token_statistics

LOSSES = [
    ClippedSurrogate(),
    ClippedSurrogate(clip_low=0.2, clip_high=0.28, dual_clip=1.5),
    ClipCov(ratio=0.3, covariance_low=0.1, covariance_high=3.0, clip_low=0.3, clip_high=0.3),
    KlCov(ratio=0.3, coefficient=0.7),
]


def batch(rng, rows=6, length=5):
    """Log-probabilities off-policy enough to clip some tokens, GRPO-like advantages, a ragged mask, uniforms."""
    mask = np.arange(length) < rng.integers(1, length + 1, size=rows)[:, None]
    old = rng.uniform(-4.0, -0.8, size=mask.shape)
    log_prob = old + rng.normal(size=mask.shape) * 0.3
    advantages = np.repeat(rng.normal(size=(rows, 1)), length, axis=1)
    return log_prob, old, advantages, mask, rng.random(mask.shape)


# (r, A) -> loss, derivative by log pi_theta, clipped; clip 0.2 / 0.28, dual clip 3.
BY_HAND = [
    (1.00, 2.0, -2.00, -2.0, False),
    (1.25, 1.0, -1.25, -1.25, False),
    (1.50, 1.0, -1.28, 0.0, True),
    (0.50, 1.0, -0.50, -0.5, False),
    (0.50, -1.0, 0.80, 0.0, True),
    (1.50, -1.0, 1.50, 1.5, False),
    (3.50, -2.0, 6.00, 0.0, True),
    (1.50, 0.0, 0.00, 0.0, False),
]


def test_clipped_surrogate_by_hand(backend):
    ratio, advantages, values, derivatives, clipped = (np.array(x) for x in zip(*BY_HAND, strict=True))
    old = np.full(len(ratio), -2.0)
    new, mask = backend(old + np.log(ratio)), backend(np.ones(len(ratio), dtype=bool))
    if backend.name == "torch":
        new.requires_grad_()
    config = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0}
    loss = losses.clipped_surrogate(new, backend(old), backend(advantages), mask, **config)
    np.testing.assert_allclose(backend.numpy(loss.values), values, rtol=10 * backend.rtol)
    assert np.array_equal(backend.numpy(loss.clipped), clipped)
    if backend.name == "torch":
        (gradient,) = torch.autograd.grad(loss.values.sum(), new)
        np.testing.assert_allclose(backend.numpy(gradient), derivatives, rtol=10 * backend.rtol)


def test_ratio_is_clamped_at_e_to_the_20_and_has_no_gradient_beyond():
    """mpmath: exp(20) = 485165195.40979027796910683054..., exp(-20) = 2.0611536224385578279659403801558e-9."""
    old = torch.tensor([-30.0, -2.0, -30.0], dtype=torch.float64)
    new = torch.tensor([-5.0, -27.0, -11.0], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64)
    loss = losses.clipped_surrogate(new, old, advantages, torch.ones(3, dtype=torch.bool))
    expected = [485165195.40979028, -2.0611536224385578e-9, np.exp(19.0)]
    np.testing.assert_allclose(loss.values.detach(), expected, rtol=1e-12)
    assert loss.clipped.tolist() == [True, True, False]
    (gradient,) = torch.autograd.grad(loss.values.sum(), new)
    np.testing.assert_allclose(gradient, [0.0, 0.0, np.exp(19.0)], rtol=1e-12)


def test_clipped_surrogate_is_the_published_maximum(backend, rng):
    """The dual-clipped maximum of the sources, evaluated directly."""
    log_prob, old, advantages, mask, _ = batch(rng, rows=200)
    ratio = np.exp(log_prob - old)
    inner = np.maximum(-advantages * ratio, -advantages * np.clip(ratio, 0.8, 1.28))
    expected = np.where(advantages < 0, np.minimum(-advantages * 1.5, inner), inner) * mask
    arrays = [backend(x) for x in (log_prob, old, advantages, mask)]
    loss = policy_loss(LOSSES[1], *arrays)
    np.testing.assert_allclose(backend.numpy(loss.values), expected, rtol=20 * backend.rtol, atol=backend.rtol)
    assert 0.05 < backend.numpy(loss.clipped)[mask].mean() < 0.95


def test_dual_clip_bounds_the_loss_of_negative_advantages():
    old, new = np.full(3, -12.0), np.array([-11.0, -6.0, -1.0])
    advantages, mask = np.full(3, -2.0), np.ones(3, dtype=bool)
    free = losses.clipped_surrogate(new, old, advantages, mask).values
    bounded = losses.clipped_surrogate(new, old, advantages, mask, dual_clip=10.0).values
    assert free.max() > 1e5
    np.testing.assert_allclose(bounded, [2 * np.exp(1.0), 20.0, 20.0], rtol=1e-12)


def test_clip_cov_takes_tokens_out_and_keeps_them_in_the_denominator(backend):
    log_prob, mask = backend(np.log([0.5, 0.1, 0.4])), backend(np.array([True, True, False]))
    advantages, targeted = backend(np.array([1.0, -1.0, 5.0])), backend(np.array([False, True, False]))
    loss = losses.clip_cov(log_prob, log_prob, advantages, mask, targeted)
    assert backend.numpy(loss.values).tolist() == [-1.0, 0.0, 0.0]
    assert backend.numpy(loss.mask).tolist() == [True, True, False]
    assert backend.numpy(loss.clipped).tolist() == [False, True, False]


def test_clip_cov_clips_at_zero_and_two_by_default(backend):
    old, ratio = np.full(3, -3.0), np.array([1.9, 2.5, 2.5])
    advantages, mask = np.array([1.0, 1.0, -1.0]), np.ones(3, dtype=bool)
    loss = losses.clip_cov(*(backend(x) for x in (old + np.log(ratio), old, advantages, mask, ~mask)))
    np.testing.assert_allclose(backend.numpy(loss.values), [-1.9, -2.0, 2.5], rtol=10 * backend.rtol)
    assert backend.numpy(loss.clipped).tolist() == [False, True, False]


def test_clip_cov_does_not_draw_tokens_that_the_clip_already_stops():
    old = np.full(4, -2.0)
    log_prob = old + np.array([1.0, 0.0, 0.0, -1.0])  # with A > 0, r = e is clipped
    advantages, mask = np.array([2.0, 2.0, -2.0, -2.0]), np.ones(4, dtype=bool)
    loss = ClipCov(ratio=1.0, covariance_low=1.0, clip_low=0.2, clip_high=0.2)
    assert covariance(log_prob, advantages, mask).tolist() == [2.0, 0.0, 0.0, 2.0]
    targeted = select_tokens(loss, log_prob, old, advantages, mask, uniforms=np.zeros(4)).targeted
    assert not targeted.any()  # both in the band, both clipped
    wide = replace(loss, clip_low=1.0, clip_high=2.0)
    targeted = select_tokens(wide, log_prob, old, advantages, mask, uniforms=np.zeros(4)).targeted
    assert targeted.tolist() == [True, False, False, True]


def test_kl_cov_by_hand(backend):
    """mpmath: -0.7 * exp(0.3) + 0.25 * 0.3 = -0.86990116530320217..., without the penalty -0.94490116530320217..."""
    new, old = backend(np.array([-1.2, -1.2])), backend(np.array([-1.5, -1.5]))
    mask, targeted = backend(np.array([True, True])), backend(np.array([True, False]))
    loss = losses.kl_cov(new, old, backend(np.array([0.7, 0.7])), mask, targeted, coefficient=0.25)
    expected = [-0.86990116530320217, -0.94490116530320217]
    np.testing.assert_allclose(backend.numpy(loss.values), expected, rtol=10 * backend.rtol)
    assert not backend.numpy(loss.clipped).any()


def test_kl_cov_has_no_clip_and_pays_in_both_directions():
    old = torch.full((2,), -6.0, dtype=torch.float64)
    new = torch.tensor([-1.0, -11.0], dtype=torch.float64, requires_grad=True)
    advantages, every = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.tensor([True, True])
    loss = losses.kl_cov(new, old, advantages, every, every, coefficient=2.0)
    (gradient,) = torch.autograd.grad(loss.values.sum(), new)
    np.testing.assert_allclose(gradient, [-np.exp(5.0) + 2, np.exp(-5.0) - 2], rtol=1e-12)


def test_kl_cov_on_policy_is_the_plain_policy_gradient():
    """At r = 1 the penalty has value 0 and gradient 0: the first mini-batch of a rollout batch never sees it."""
    log_prob = torch.tensor([-0.1, -2.0, -3.0], dtype=torch.float64, requires_grad=True)
    advantages, mask = torch.tensor([1.0, -0.5, -0.5], dtype=torch.float64), torch.ones(3, dtype=torch.bool)
    loss = policy_loss(KlCov(ratio=1.0, coefficient=5.0), log_prob, log_prob.detach(), advantages, mask)
    (gradient,) = torch.autograd.grad(loss.values.sum(), log_prob)
    np.testing.assert_allclose(gradient, -advantages, rtol=1e-12)


def closed_form(loss, log_prob, old, advantages, mask, selection):
    """Return the derivative of the summed loss by log pi_theta, from the formulas."""
    ratio = np.exp(log_prob - old)
    gradient = -advantages * ratio
    if isinstance(loss, KlCov):
        return (gradient + loss.coefficient * np.sign(log_prob - old) * selection.targeted) * mask
    stopped = np.where(advantages > 0, ratio > 1 + loss.clip_high, ratio < 1 - loss.clip_low)
    if getattr(loss, "dual_clip", None):
        stopped |= (advantages < 0) & (ratio > loss.dual_clip)
    return gradient * mask * ~stopped * ~selection.targeted


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_policy_gradient_three_ways(loss, rng):
    """Autograd, the closed form and central differences, in float64, with the choice of tokens held fixed."""
    log_prob, old, advantages, mask, uniforms = batch(rng)
    selection = select_tokens(loss, log_prob, old, advantages, mask, uniforms=uniforms)
    tensors = [torch.tensor(x) for x in (old, advantages, mask)]
    x = torch.tensor(log_prob, requires_grad=True)
    chosen = Selection(*(torch.tensor(m) for m in selection))
    result = policy_loss(loss, x, *tensors, selection=chosen)
    (autograd,) = torch.autograd.grad(result.values.sum(), x)
    closed = closed_form(loss, log_prob, old, advantages, mask, selection)
    np.testing.assert_allclose(autograd, closed, rtol=1e-12)
    assert not autograd.numpy()[result.clipped.numpy()].any()
    assert np.any(closed[mask] != 0)
    assert isinstance(loss, KlCov) or result.clipped.any()
    step = 1e-6
    up, down = (
        policy_loss(loss, log_prob + sign * step, old, advantages, mask, selection=selection).values for sign in (1, -1)
    )
    np.testing.assert_allclose((up - down) / (2 * step), closed, rtol=1e-7, atol=1e-9)


def test_gradient_flows_through_log_prob_only():
    """Advantages, old log-probabilities and the choice of tokens are constants."""
    log_prob, old, advantages, entropy = (torch.full((2,), x, requires_grad=True) for x in (-1.0, -1.1, 0.5, 0.3))
    mask = torch.tensor([True, True])
    assert not losses.entropy_advantages(advantages.detach(), entropy).requires_grad
    shaped = losses.entropy_advantages(advantages, entropy)
    for loss in (ClippedSurrogate(), KlCov()):
        values = policy_loss(loss, log_prob, old, shaped, mask, token_selection=ForkTokens(1.0), entropy=entropy).values
        gradients = torch.autograd.grad(values.sum(), [log_prob, old, advantages, entropy], allow_unused=True)
        assert [g is None for g in gradients] == [False, True, True, True]


def test_entropy_bonus_gradient_three_ways():
    """d(-c H)/dz = c pi Lambda: the bonus descends towards higher entropy."""
    logits, coefficient = np.array([[0.3, -1.2, 2.5, 0.0]]), 0.01
    action, mask = np.array([1]), np.array([True])

    def bonus(z):
        return losses.entropy_bonus(token_statistics(z, action).entropy, mask, coefficient)[0]

    z = torch.tensor(logits, requires_grad=True)
    entropy = token_statistics(z, torch.tensor(action)).entropy
    (autograd,) = torch.autograd.grad(losses.entropy_bonus(entropy, torch.tensor(mask), coefficient).sum(), z)
    closed = coefficient * np.exp(log_softmax(logits)) * centred_log_prob(logits)
    step = 1e-5
    central = [(bonus(logits + step * e) - bonus(logits - step * e)) / (2 * step) for e in np.eye(4)]
    np.testing.assert_allclose(autograd, closed, rtol=1e-12)
    np.testing.assert_allclose(closed[0], central, rtol=1e-7)


def test_entropy_bonus_leaves_padding_out(backend):
    got = losses.entropy_bonus(backend(np.array([2.0, 1.0])), backend(np.array([True, False])), 0.5)
    assert backend.numpy(got).tolist() == [-1.0, 0.0]


def test_entropy_advantages_of_one_correct_among_sixteen(backend):
    """With the sample standard deviation A is 3.75 and -0.25: the caps are 1.875 and 0.125."""
    advantages = grpo(backend(np.eye(16)[0]), backend(np.zeros(16, dtype=np.int64)), epsilon=0.0)
    np.testing.assert_allclose(backend.numpy(advantages)[:2], [3.75, -0.25], rtol=backend.rtol)
    capped = losses.entropy_advantages(advantages, backend(np.full(16, 9.0)))
    np.testing.assert_allclose(backend.numpy(capped)[:2], [3.75 + 1.875, -0.25 + 0.125], rtol=10 * backend.rtol)
    free = losses.entropy_advantages(advantages, backend(np.full(16, 0.1)))
    np.testing.assert_allclose(backend.numpy(free)[:2], [3.79, -0.21], rtol=10 * backend.rtol)


@fuzzing.fuzz
@given(
    fuzzing.float_arrays((2, 3), st.floats(-1e3, 1e3) | fuzzing.any_float),
    st.floats(0, 10) | fuzzing.any_float,
    st.floats(1, 100) | fuzzing.any_float,
)
def test_fuzz_entropy_advantages(x, alpha, kappa):
    advantages, entropy = x[0], np.abs(x[1])
    shaped = fuzzing.call(losses.entropy_advantages, advantages, entropy, alpha, kappa)
    if shaped is not None:
        assert np.all(shaped >= advantages)
        assert np.all(shaped * advantages >= 0)
        assert not shaped[advantages == 0].any()


@fuzzing.fuzz
@given(fuzzing.float_arrays((2, 3), st.floats(-1e3, 1e3) | fuzzing.any_float), st.floats(0, 10), st.floats(1.01, 100))
def test_fuzz_EntropyAdvantages_shape(x, alpha, kappa):
    stats = TokenStatistics(x[0], np.abs(x[1]), x[0], x[0])
    shaped = fuzzing.call(losses.EntropyAdvantages(alpha, kappa).shape, x[0], stats)
    if shaped is not None:
        expected = losses.entropy_advantages(x[0], np.abs(x[1]), alpha, kappa)
        np.testing.assert_array_equal(shaped, expected)


def test_entropy_rounded_below_zero_counts_as_zero(backend):
    got = losses.entropy_advantages(backend(np.array([1.0, -1.0])), backend(np.array([-1e-4, 0.0])))
    assert backend.numpy(got).tolist() == [1.0, -1.0]


def same(one, other):
    for got, expected in zip(one, other, strict=True):
        assert np.array_equal(got, expected)


def test_neutral_settings_are_grpo(rng):
    """Every baseline is GRPO where its one change is switched off."""
    log_prob, old, advantages, mask, uniforms = batch(rng)
    plain = policy_loss(ClippedSurrogate(), log_prob, old, advantages, mask)
    entropy = rng.random(mask.shape)
    clip = {"clip_low": 0.2, "clip_high": 0.2}
    fork = policy_loss(
        ClippedSurrogate(), log_prob, old, advantages, mask, token_selection=ForkTokens(1.0), entropy=entropy
    )
    shaped = losses.entropy_advantages(advantages, entropy, alpha=0.0)
    empty_band = ClipCov(covariance_low=1e6, covariance_high=2e6, **clip)
    never_bites = ClippedSurrogate(**clip, dual_clip=1e9)
    same(fork, plain)
    same(policy_loss(never_bites, log_prob, old, advantages, mask), plain)
    same(policy_loss(ClippedSurrogate(), log_prob, old, shaped, mask), plain)
    same(policy_loss(empty_band, log_prob, old, advantages, mask, uniforms=uniforms), plain)
    assert not losses.entropy_bonus(entropy, mask, 0.0).any()
    near = old + 0.1 * np.sign(log_prob - old)  # inside the clip range
    plain = policy_loss(ClippedSurrogate(), near, old, advantages, mask)
    same(policy_loss(KlCov(ratio=1.0, coefficient=0.0), near, old, advantages, mask), plain)
    higher = policy_loss(ClippedSurrogate(clip_high=0.28), log_prob, old, advantages, mask)
    assert not np.array_equal(higher.values, policy_loss(ClippedSurrogate(), log_prob, old, advantages, mask).values)


def test_fork_tokens_count_alone_in_the_denominator(backend):
    """Of five tokens with loss 1 one is kept: the mean is 1, not 0.2."""
    zeros, mask = backend(np.full((1, 5), -1.0)), backend(np.ones((1, 5), dtype=bool))
    entropy, advantages = backend(np.array([[0.1, 0.4, 0.2, 0.3, 0.0]])), backend(np.full((1, 5), -1.0))
    loss = policy_loss(
        ClippedSurrogate(), zeros, zeros, advantages, mask, token_selection=ForkTokens(0.2), entropy=entropy
    )
    assert backend.numpy(loss.mask).tolist() == [[False, True, False, False, False]]
    weights = backend.numpy(aggregation_weights(loss.mask, "token-mean", dtype=zeros.dtype))
    assert (weights * backend.numpy(loss.values)).sum() == 1.0


def test_covariance_is_taken_over_the_forking_tokens_only():
    log_prob, advantages = np.array([-1.0, -3.0, -9.0]), np.array([1.0, -1.0, -50.0])
    mask, entropy = np.ones(3, dtype=bool), np.array([1.0, 2.0, 0.0])
    selection = select_tokens(
        KlCov(ratio=0.5), log_prob, log_prob, advantages, mask, token_selection=ForkTokens(0.6), entropy=entropy
    )
    assert selection.counted.tolist() == [True, True, False]
    assert selection.targeted.tolist() == [True, False, False]


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("fork", [None, ForkTokens(0.5)], ids=["all", "fork"])
def test_micro_batches_order_and_padding_change_nothing(loss, fork, mode, rng):
    """One choice and one set of weights over the batch: its loss and gradient whatever the packing."""
    log_prob, old, advantages, mask, uniforms = batch(rng, rows=10)
    entropy, prompts = rng.random(mask.shape), rng.integers(3, size=10)
    arrays = [torch.tensor(x) for x in (log_prob, old, advantages, mask)]
    options = {"token_selection": fork, "entropy": torch.tensor(entropy), "uniforms": torch.tensor(uniforms)}
    selection = select_tokens(loss, *arrays, **options)
    weights = aggregation_weights(selection.counted, mode, prompts=torch.tensor(prompts), dtype=torch.float64)

    def gradient(rows, padding):
        pad = torch.nn.functional.pad
        part = [pad(x[rows], (0, padding)) for x in (*arrays, *selection, weights)]
        part[0].requires_grad_()
        result = policy_loss(loss, *part[:4], selection=Selection(*part[4:6]))
        total = (part[6] * result.values).sum()
        (grad,) = torch.autograd.grad(total, part[0])
        assert not grad[:, 5:].any()
        return float(total.detach()), grad[:, :5]

    whole, expected = gradient(torch.arange(10), 0)
    assert isinstance(loss, ClippedSurrogate) or selection.targeted.any()
    total, got = 0.0, torch.zeros_like(expected)
    for rows in np.array_split(rng.permutation(10), [1, 3, 3]):
        value, got[rows] = gradient(torch.tensor(rows), int(rng.integers(3)))
        total += value
    np.testing.assert_allclose(total, whole, rtol=1e-12)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_selection_in_a_micro_batch_depends_on_the_scope():
    """A single response is never chosen in its own scope, and is in the batch's."""
    log_prob, advantages = np.array([[-0.1, -0.2], [-3.0, -4.0]]), np.array([[2.0, 2.0], [-2.0, -2.0]])
    mask, uniforms = np.ones((2, 2), dtype=bool), np.zeros((1, 2))
    row = [x[1:] for x in (log_prob, log_prob, advantages, mask)]
    alone = select_tokens(ClipCov(ratio=1.0), *row, uniforms=uniforms)
    scope = CovarianceScope.of(log_prob, advantages, mask)
    scoped = select_tokens(ClipCov(ratio=1.0), *row, uniforms=uniforms, scope=scope)
    assert alone.targeted.tolist() == [[False, False]]
    assert scoped.targeted.tolist() == [[True, True]]


def test_policy_loss_chooses_by_itself_where_no_selection_is_given(backend, rng):
    log_prob, old, advantages, mask, uniforms = (backend(x) for x in batch(rng))
    for loss in LOSSES:
        selection = select_tokens(loss, log_prob, old, advantages, mask, uniforms=uniforms)
        chosen = policy_loss(loss, log_prob, old, advantages, mask, selection=selection)
        same(policy_loss(loss, log_prob, old, advantages, mask, uniforms=uniforms), chosen)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (2, 0)])
def test_empty_mask_has_zero_loss_and_gradient(loss, shape):
    x = torch.full(shape, -1.0, requires_grad=True)
    none = torch.zeros(shape, dtype=torch.bool)
    result = policy_loss(loss, x, x.detach() - 1, x.detach(), none, uniforms=torch.zeros(shape))
    assert not any(x.any() for x in result)
    (gradient,) = torch.autograd.grad(result.values.sum(), x)
    assert not gradient.any()


def test_values_at_padding_do_not_matter(backend, rng):
    """Padding may hold a positive log-probability or an extreme ratio: losses, choices and gradients stay."""
    log_prob, old, advantages, mask, uniforms = batch(rng)
    for loss in LOSSES:
        expected = policy_loss(
            loss, *(backend(x) for x in (log_prob, old, advantages, mask)), uniforms=backend(uniforms)
        )
        wild = [np.where(mask, x, fill) for x, fill in ((log_prob, 3.0), (old, -1e6), (advantages, -1e6))]
        got = policy_loss(loss, *(backend(x) for x in (*wild, mask)), uniforms=backend(uniforms))
        same(got, expected)


X, EVERY = np.full(3, -1.0), np.ones(3, dtype=bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.clipped_surrogate(X, X[:2], X, EVERY), "old_log_prob: expected the shape of log_prob"),
        (lambda: losses.clipped_surrogate(-X, X, X, EVERY), "log_prob: expected values <= 0"),
        (lambda: losses.clipped_surrogate(X, -X, X, EVERY), "old_log_prob: expected values <= 0"),
        (lambda: losses.clipped_surrogate(X, X, X * np.nan, EVERY), "advantages: expected finite values"),
        (lambda: losses.clipped_surrogate(X, X, X * 1e200, EVERY), "advantages: expected magnitudes of at most"),
        (lambda: losses.clipped_surrogate(X, X, X, X), "mask: expected a boolean dtype"),
        (
            lambda: losses.clipped_surrogate(X, X, X, EVERY, clip_low=1.5),
            r"clip_low: expected .* \[0.0, 1.0\], got 1.5",
        ),
        (lambda: losses.clipped_surrogate(X, X, X, EVERY, clip_high=-1), r"clip_high: expected .*, got -1"),
        (lambda: losses.clipped_surrogate(X, X, X, EVERY, dual_clip=1.0), r"dual_clip: expected .* \(1.0, .*got 1.0"),
        (lambda: losses.clip_cov(X, X * 900, X, EVERY, EVERY), "log_prob: expected at most old_log_prob"),
        (lambda: losses.kl_cov(X, X * 900, X, EVERY, EVERY), "log_prob: expected at most old_log_prob"),
        (lambda: losses.kl_cov(X, X, X, EVERY, EVERY, coefficient=-1.0), "coefficient: expected"),
        (lambda: losses.kl_cov(X, X, X, EVERY, X), "targeted: expected a boolean dtype"),
        (lambda: losses.entropy_bonus(X, EVERY), "entropy: expected values >= 0"),
        (lambda: losses.entropy_bonus(-X, X), "mask: expected a boolean dtype"),
        (lambda: losses.entropy_bonus(-X, EVERY, -0.1), "coefficient: expected"),
        (lambda: losses.entropy_advantages(X, -X[:2]), "entropy: expected the shape of advantages"),
        (lambda: losses.entropy_advantages(X, -X, kappa=1.0), r"kappa: expected .* \(1.0"),
        (lambda: losses.entropy_advantages(X, -X, alpha=-0.1), "alpha: expected"),
        (lambda: policy_loss(ClipCov(), X, X, X, EVERY), "uniforms: expected an array for ClipCov, got None"),
        (
            lambda: policy_loss(ClippedSurrogate(), X, X, X, EVERY, token_selection=ForkTokens()),
            "entropy: expected an array for ForkTokens, got None",
        ),
        (
            lambda: policy_loss(KlCov(), X, X, X, ~EVERY, selection=Selection(EVERY, EVERY)),
            "selection: expected tokens inside the mask",
        ),
        (lambda: policy_loss("kl", X, X, X, EVERY), "loss: expected ClippedSurrogate, ClipCov or KlCov, got str"),
        (
            lambda: policy_loss("kl", X, X, X, EVERY, selection=Selection(EVERY, EVERY)),
            "loss: expected ClippedSurrogate, ClipCov or KlCov, got str",
        ),
        (lambda: ClippedSurrogate(clip_low=-0.1), "clip_low: expected"),
        (lambda: ClippedSurrogate(dual_clip=0.5), "dual_clip: expected"),
        (lambda: ClipCov(ratio=2.0), "ratio: expected"),
        (lambda: ClipCov(covariance_low=5.0), "covariance_high: expected"),
        (lambda: ClipCov(clip_low=2.0), "clip_low: expected"),
        (lambda: KlCov(ratio=0.2, coefficient=-1.0), "coefficient: expected"),
        (lambda: KlCov(ratio="0.2"), "ratio: expected a number, got '0.2'"),
        (lambda: ForkTokens(1.2), "ratio: expected"),
        (lambda: EntropyBonus(-1e-3), "coefficient: expected"),
        (lambda: EntropyAdvantages(kappa=1.0), "kappa: expected"),
        (lambda: EntropyAdvantages(alpha=-0.4), "alpha: expected"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# The arrays of a call are drawn by a seed from a pool of ordinary, extreme and forbidden numbers: drawn one by one,
# these thousands of numbers would take most of the time.
POOL = np.array([0.0, -0.5, -1.0, -2.5, -8.0, -30.0, -1e3, 0.01, 0.7, 1.0, 5e-324, -1e150, 1e18, 1e308, np.nan, np.inf])


def stack_of(shape, seed, num_kinds):
    """Return log pi, log pi_old, A and entropies (or uniforms) from the first kinds of the pool."""
    rng = np.random.default_rng(seed)
    stack = rng.choice(POOL[:num_kinds], size=(4, *shape))
    stack[2] *= rng.choice([-1.0, 1.0], size=shape)
    return stack


seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(0, 2), st.integers(0, 3))
stacks = st.builds(stack_of, shapes, seeds, st.integers(1, len(POOL)))
bits = st.builds(lambda seed: np.random.default_rng(seed).random((2, 2, 3)) < 0.6, seeds)
clips = st.floats(0, 1) | fuzzing.any_float


def masks(stack, bit):
    return bit[:, : stack.shape[1], : stack.shape[2]]


@fuzzing.fuzz
@given(stacks, bits, clips, clips, st.none() | st.floats(1, 20) | fuzzing.any_float)
def test_fuzz_clipped_surrogate(stack, bit, clip_low, clip_high, dual_clip):
    mask, _ = masks(stack, bit)
    clip = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
    loss = fuzzing.call(losses.clipped_surrogate, *stack[:3], mask, **clip)
    if loss is not None:
        assert not loss.values[~mask].any()
        assert not (loss.clipped & ~mask).any()


@fuzzing.fuzz
@given(stacks, bits, clips, clips)
def test_fuzz_clip_cov(stack, bit, clip_low, clip_high):
    loss = fuzzing.call(losses.clip_cov, *stack[:3], *masks(stack, bit), clip_low=clip_low, clip_high=clip_high)
    if loss is not None:
        assert not loss.values[~loss.mask].any()


@fuzzing.fuzz
@given(stacks, bits, st.floats(0, 10) | fuzzing.any_float)
def test_fuzz_kl_cov(stack, bit, coefficient):
    loss = fuzzing.call(losses.kl_cov, *stack[:3], *masks(stack, bit), coefficient=coefficient)
    if loss is not None:
        assert not loss.values[~loss.mask].any()


@fuzzing.fuzz
@given(stacks, bits, st.floats(0, 10) | fuzzing.any_float)
def test_fuzz_entropy_bonus(stack, bit, coefficient):
    mask, _ = masks(stack, bit)
    bonus = fuzzing.call(losses.entropy_bonus, np.abs(stack[3]), mask, coefficient)
    if bonus is not None:
        assert np.all(bonus <= 0)


any_loss = st.sampled_from([*LOSSES, ClipCov(), KlCov()])
any_fork = st.none() | st.builds(ForkTokens, st.floats(0, 1))


@fuzzing.fuzz
@given(any_loss, stacks, bits, any_fork)
def test_fuzz_select_tokens(loss, stack, bit, fork):
    mask, _ = masks(stack, bit)
    extra = {"token_selection": fork, "entropy": np.abs(stack[3]), "uniforms": np.clip(-stack[3], 0, 1)}
    selection = fuzzing.call(select_tokens, loss, *stack[:3], mask, **extra)
    if selection is not None:
        assert not (selection.counted & ~mask).any()
        assert not (selection.targeted & ~selection.counted).any()


@fuzzing.fuzz
@given(any_loss, stacks, bits, any_fork)
def test_fuzz_policy_loss(loss, stack, bit, fork):
    mask, _ = masks(stack, bit)
    extra = {"token_selection": fork, "entropy": np.abs(stack[3]), "uniforms": np.clip(-stack[3], 0, 1)}
    result = fuzzing.call(policy_loss, loss, *stack[:3], mask, **extra)
    if result is not None:
        assert not (result.mask & ~mask).any()
        assert not result.values[~result.mask].any()
        assert not (result.clipped & ~result.mask).any()
