"""theory.losses.importance: golden values, what a product is over, no gradient, expectations that come out right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from tests.theory.losses.tokens import EVERY, X, bits, masks, stacks
from theory.losses import importance_weights

OLD = np.array([[-0.5, -1.0, -2.0], [-30.0, -1.0, -1.0]])
ROLLOUT = np.array([[-0.7, -0.9, -3.0], [-1.0, -1.5, -99.0]])
MASK = np.array([[True, True, True], [True, True, False]])


@pytest.mark.parametrize(
    ("level", "cap", "expected"),
    [
        # mpmath: exp(0.2), exp(-0.1), exp(1); exp(-20) for log r = -29; exp(0.5)
        ("token", 1e9, [[1.2214027581601699, 0.9048374180359596, 2.718281828459], [2.0611536e-9, 1.6487212707001, 0]]),
        ("token", 1.5, [[1.2214027581601699, 0.9048374180359596, 1.5], [2.0611536e-9, 1.5, 0]]),
        # mpmath: exp(1.1); exp(-20) for log r = -28.5
        ("sequence", 1e9, [[3.004166023946433] * 3, [2.0611536e-9, 2.0611536e-9, 0]]),
        ("sequence", 2.0, [[2.0] * 3, [2.0611536e-9, 2.0611536e-9, 0]]),
    ],
)  # fmt: skip
def test_golden_values(backend, level, cap, expected):
    found = importance_weights(backend(OLD), backend(ROLLOUT), backend(MASK), level=level, cap=cap)
    assert found.dtype == backend(OLD).dtype
    np.testing.assert_allclose(backend.numpy(found), expected, rtol=20 * max(backend.rtol, 1e-9))


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_weights_are_ones_where_the_policies_agree(backend, level):
    """To the bit: a run whose sampler computes as the trainer does is the run without weights."""
    found = backend.numpy(importance_weights(backend(OLD), backend(OLD), backend(MASK), level=level))
    assert np.array_equal(found, MASK.astype(float))


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_weights_are_constants_and_see_no_padding(level, rng):
    old = torch.tensor(OLD, requires_grad=True)
    rollout, mask = torch.tensor(ROLLOUT, requires_grad=True), torch.tensor(MASK)
    found = importance_weights(old, rollout, mask, level=level)
    assert not found.requires_grad
    wild = [torch.where(mask, x.detach(), 3.0) for x in (old, rollout)]
    assert torch.equal(importance_weights(*wild, mask, level=level), found)
    rows = [1, 0]
    moved = importance_weights(*(torch.nn.functional.pad(x[rows], (0, 2)) for x in (old, rollout, mask)), level=level)
    torch.testing.assert_close(moved[:, :3], found[rows], rtol=1e-15, atol=0)
    assert not moved[:, 3:].any()


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_weighted_means_over_one_policy_are_means_over_the_other(level, rng):
    """Monte Carlo, 5 standard errors: f of a sequence of two tokens; f of a token alone for weights of tokens."""
    num = 200_000
    old, rollout = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    drawn = rng.choice(3, size=(num, 2), p=rollout)
    weights = importance_weights(np.log(old[drawn]), np.log(rollout[drawn]), drawn >= 0, level=level, cap=1e9)
    if level == "sequence":
        values, exact = (drawn.sum(axis=1) == 1).astype(float), 2 * old[0] * old[1]
    else:
        values, exact = (drawn[:, 0] == 1).astype(float) + 2.0 * (drawn[:, 0] == 0), old[1] + 2 * old[0]
    terms = weights[:, 0] * values
    assert abs(terms.mean() - exact) < 5 * terms.std() / np.sqrt(num)
    assert abs(values.mean() - exact) > 20 * values.std() / np.sqrt(num)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: importance_weights(X, X, EVERY, level="prompt"), "level: expected one of"),
        (lambda: importance_weights(X, X, EVERY, cap=0.0), "cap: expected a finite number in"),
        (lambda: importance_weights(X, -X, EVERY), "rollout_log_prob: expected values <= 0"),
        (lambda: importance_weights(X[0], X[0], EVERY[0]), "mask: expected shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@fuzzing.fuzz
@given(stacks, bits, st.sampled_from(["token", "sequence"]), fuzzing.any_float)
def test_fuzz_importance_weights(stack, bit, level, cap):
    mask, _ = masks(stack, bit)
    found = fuzzing.call(importance_weights, *stack[:2], mask, level=level, cap=cap)
    if found is not None:
        assert ((found >= 0) & (found <= cap)).all()
        assert not found[~mask].any()
