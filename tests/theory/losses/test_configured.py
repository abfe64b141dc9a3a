"""theory.losses.configured: limits that are GRPO, choices over a scope, packing that changes nothing."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from tests.theory.losses.tokens import EVERY, LOSSES, X, batch, bits, masks, same, stacks
from theory import losses
from theory.losses import (
    AGGREGATIONS,
    ClipCov,
    ClippedSurrogate,
    EntropyAdvantages,
    EntropyBonus,
    ForkTokens,
    KlCov,
    Selection,
    aggregation_weights,
    covariance,
    policy_loss,
    select_tokens,
)


@pytest.mark.parametrize(
    ("part", "function"),
    [
        (EntropyAdvantages(), losses.entropy_advantages),
        (EntropyBonus(), losses.entropy_bonus),
        (ForkTokens(), losses.fork_tokens),
        (ClippedSurrogate(), losses.clipped_surrogate),
        (ClipCov(), losses.clip_cov),
        (ClipCov(), losses.clip_cov_tokens),
        (KlCov(), losses.kl_cov),
        (KlCov(), losses.kl_cov_tokens),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_part_has_the_defaults_of_its_function(part, function):
    own = {name.removeprefix("covariance_"): value for name, value in vars(part).items()}
    parameters = inspect.signature(function).parameters.values()
    defaults = {x.name: x.default for x in parameters if x.default is not x.empty and x.name != "excluded"}
    assert defaults
    assert {name: own[name] for name in defaults} == defaults


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_the_update_coefficient_is_the_weight_of_the_score_in_the_gradient(loss):
    """Of the loss by autograd, without the terms beside -A r; a loss without a clip never has 0 for it."""
    ratio = torch.tensor([0.1, 0.75, 0.9, 1.0, 1.1, 1.25, 1.29, 1.4, 8.0] * 2, dtype=torch.float64)
    advantages = torch.tensor([1.5] * 9 + [-1.5] * 9, dtype=torch.float64)
    old = torch.full((18,), -4.0, dtype=torch.float64)
    log_prob = (old + torch.log(ratio)).requires_grad_()
    every = torch.ones(18, dtype=torch.bool)
    plain = replace(loss, dual_clip=None) if isinstance(loss, ClippedSurrogate) else loss
    values = plain.values(log_prob, old, advantages, Selection(every, ~every)).values
    (gradient,) = torch.autograd.grad(values.sum(), log_prob)
    found = loss.update_coefficient(log_prob, old, advantages)
    torch.testing.assert_close(found, -gradient)
    assert (found == 0).any() == (loss.clip_range is not None)


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
    """A single response is never chosen where it stands alone, and is in its batch."""
    log_prob, advantages = np.array([[-0.1, -0.2], [-3.0, -4.0]]), np.array([[2.0, 2.0], [-2.0, -2.0]])
    mask, uniforms = np.ones((2, 2), dtype=bool), np.zeros((2, 2))
    row = [x[1:] for x in (log_prob, log_prob, advantages, mask)]
    alone = select_tokens(ClipCov(ratio=1.0), *row, uniforms=uniforms[1:])
    whole = select_tokens(ClipCov(ratio=1.0), log_prob, log_prob, advantages, mask, uniforms=uniforms)
    assert alone.targeted.tolist() == [[False, False]]
    assert whole.targeted[1].tolist() == [True, True]


def test_policy_loss_chooses_by_itself_where_no_selection_is_given(backend, rng):
    log_prob, old, advantages, mask, uniforms = (backend(x) for x in batch(rng))
    for loss in LOSSES:
        selection = select_tokens(loss, log_prob, old, advantages, mask, uniforms=uniforms)
        chosen = policy_loss(loss, log_prob, old, advantages, mask, selection=selection)
        same(policy_loss(loss, log_prob, old, advantages, mask, uniforms=uniforms), chosen)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_importance_weights_multiply_a_tokens_whole_loss_and_change_nothing_else(loss, backend, rng):
    """Ones change no bit; tokens of weight 0 stay in the denominator."""
    log_prob, old, advantages, mask, uniforms = (backend(x) for x in batch(rng))
    plain = policy_loss(loss, log_prob, old, advantages, mask, uniforms=uniforms)
    ones = plain.values * 0 + 1
    same(policy_loss(loss, log_prob, old, advantages, mask, uniforms=uniforms, importance=ones), plain)
    weights = backend(rng.random(mask.shape) * (rng.random(mask.shape) < 0.7))
    found = policy_loss(loss, log_prob, old, advantages, mask, uniforms=uniforms, importance=weights)
    same(found, (weights * plain.values, plain.mask, plain.clipped))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_gradient_with_importance_weights_three_ways(loss, rng):
    """Autograd, central differences, and the plain gradient times the weight, which is a constant."""
    log_prob, old, advantages, mask, uniforms = (torch.tensor(x) for x in batch(rng))
    selection = select_tokens(loss, log_prob, old, advantages, mask, uniforms=uniforms)
    weights = torch.tensor(rng.random(mask.shape) * 2).requires_grad_()

    def total(x, importance):
        return policy_loss(loss, x, old, advantages, mask, selection=selection, importance=importance).values.sum()

    x = log_prob.clone().requires_grad_()
    value = total(x, weights)
    value.backward()
    assert weights.grad is None
    plain = log_prob.clone().requires_grad_()
    total(plain, None).backward()
    torch.testing.assert_close(x.grad, weights.detach() * plain.grad, rtol=1e-12, atol=0)
    step = 1e-6
    for i in range(mask.shape[0]):
        for t in range(mask.shape[1]):
            moved = torch.zeros_like(log_prob)
            moved[i, t] = step
            slope = (total(log_prob + moved, weights) - total(log_prob - moved, weights)) / (2 * step)
            assert float(slope) == pytest.approx(float(x.grad[i, t]), rel=1e-6, abs=1e-7)


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: policy_loss(ClipCov(), X, X, X, EVERY), "uniforms: expected an array for ClipCov, got None"),
        (
            lambda: policy_loss(ClippedSurrogate(), X, X, X, EVERY, token_selection=ForkTokens()),
            "entropy: expected an array for ForkTokens, got None",
        ),
        (
            lambda: policy_loss(KlCov(), X, X, X, ~EVERY, selection=Selection(EVERY, EVERY)),
            "selection: expected tokens inside the mask",
        ),
        (lambda: policy_loss("kl", X, X, X, EVERY), "loss: expected a Loss, got str"),
        (lambda: policy_loss(KlCov(), X, X, X, EVERY, importance=X), "importance: expected values >= 0"),
        (lambda: policy_loss(KlCov(), X, X, X, EVERY, importance=X[:1]), "importance: expected the shape of values"),
        (
            lambda: policy_loss("kl", X, X, X, EVERY, selection=Selection(EVERY, EVERY)),
            "loss: expected a Loss, got str",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


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
    result = fuzzing.call(policy_loss, loss, *stack[:3], mask, **extra, importance=np.abs(stack[2]))
    if result is not None:
        assert not (result.mask & ~mask).any()
        assert not result.values[~result.mask].any()
        assert not (result.clipped & ~result.mask).any()
