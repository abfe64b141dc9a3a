"""theory.losses.surrogate: hand-computed values, gradients three ways, clips and penalties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from tests.theory.losses.tokens import EVERY, LOSSES, X, batch, bits, clips, masks, stacks
from theory import losses
from theory.losses import ClipCov, ClippedSurrogate, ForkTokens, KlCov, Selection, policy_loss, select_tokens

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
        (lambda: ClippedSurrogate(clip_low=-0.1), "clip_low: expected"),
        (lambda: ClippedSurrogate(dual_clip=0.5), "dual_clip: expected"),
        (lambda: ClipCov(ratio=2.0), "ratio: expected"),
        (lambda: ClipCov(covariance_low=5.0), "covariance_high: expected"),
        (lambda: ClipCov(clip_low=2.0), "clip_low: expected"),
        (lambda: KlCov(ratio=0.2, coefficient=-1.0), "coefficient: expected"),
        (lambda: KlCov(ratio="0.2"), "ratio: expected a number, got '0.2'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


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
