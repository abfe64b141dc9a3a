"""theory.losses.scope: merged extremes of parts are those of the batch, whatever the packing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from tests.theory import fuzzing
from tests.theory.losses.statistics import ONES, STATS, VALID, arrays, batch, floats, masks, put, scopes, statistics_of
from theory.losses import Modulation, Scope, instability, modulate, scope_of
from theory.policy import TokenStatistics, token_statistics


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 11), max_size=4), st.booleans())
def test_R6_micro_batches_with_the_merged_scope_are_the_batch_to_the_bit(seed, cuts, sequence):
    """Any split of the shuffled responses, each micro-batch with its own scope merged over all."""
    rng = np.random.default_rng(seed)
    stats, advantages, mask = batch(rng, rows=12)
    coefficient = advantages * rng.choice([0.0, 0.9, 1.1], size=advantages.shape)
    modulation = Modulation(mean="sequence" if sequence else "vocabulary")
    parts = np.split(rng.permutation(12), sorted(set(cuts)))
    for array in (np.asarray, torch.tensor):

        def rows(index, array=array):
            part = TokenStatistics(*(array(x[index]) for x in stats))
            return array(advantages[index]), part, array(mask[index]), array(coefficient[index])

        def scope(index, rows=rows):
            _, part, valid, xi = rows(index)
            return scope_of(part, instability(part, xi, valid, modulation.mean), valid)

        A, part, valid, xi = rows(np.arange(12))
        whole = modulate(A, part, valid, modulation, coefficient=xi)
        merged = Scope.merge(scope(index) for index in parts)
        assert merged == scope(np.arange(12))
        for index in parts:
            A, part, valid, xi = rows(index)
            for got, expected in zip(
                modulate(A, part, valid, modulation, coefficient=xi, scope=merged), whole, strict=True
            ):
                np.testing.assert_array_equal(np.asarray(got), np.asarray(expected)[index])


def test_R6_packing_and_padding_do_not_matter(backend, rng):
    """Valid tokens packed into one row, and padded to twice the length with other values."""
    stats, advantages, mask = batch(rng)
    expected = modulate(backend(advantages), put(backend, stats), backend(mask), Modulation())
    packed = modulate(
        backend(advantages[mask]),
        put(backend, [x[mask] for x in stats]),
        backend(np.ones(mask.sum(), dtype=bool)),
        Modulation(),
    )
    np.testing.assert_array_equal(backend.numpy(packed.advantages), backend.numpy(expected.advantages)[mask])
    padded = modulate(
        backend(np.concatenate([advantages, advantages + 3], axis=1)),
        put(backend, [np.concatenate([x, x[::-1]], axis=1) for x in stats]),
        backend(np.concatenate([mask, np.zeros_like(mask)], axis=1)),
        Modulation(),
    )
    np.testing.assert_array_equal(backend.numpy(padded.advantages)[:, :5], backend.numpy(expected.advantages))


def test_R6_normalisers_per_micro_batch_are_another_method(rng):
    """What the merged scope prevents: each micro-batch stretches its factors to their full range."""
    stats, advantages, mask = batch(rng, rows=8)
    whole = modulate(advantages, stats, mask, Modulation()).advantages
    halves = [
        modulate(advantages[rows], TokenStatistics(*(x[rows] for x in stats)), mask[rows], Modulation()).advantages
        for rows in (slice(0, 4), slice(4, 8))
    ]
    assert np.abs(np.concatenate(halves) - whole).max() > 0.05


@pytest.mark.parametrize("mean", ["vocabulary", "sequence"])
def test_batches_side_by_side_are_each_as_alone_to_the_bit(backend, rng, mean):
    """Four batches on the first axis: two plain, one of equal entropies with A = 0, one without valid tokens."""
    logits = rng.normal(size=(4, 6, 3, 5)) * 2
    logits[2] = rng.permuted(np.broadcast_to(logits[2, 0, 0], (6, 3, 5)), axis=-1)
    advantages = rng.normal(size=(4, 6, 3))
    advantages[2] = 0.0
    mask = rng.random((4, 6, 3)) < 0.7
    mask[3] = False
    settings = Modulation(alpha=0.4, sharpness=5.0, threshold=0.3, mean=mean)
    stats, a, valid = (
        put(backend, token_statistics(logits, rng.integers(5, size=(4, 6, 3)))),
        backend(advantages),
        backend(mask),
    )
    indicator = instability(stats, a, valid, mean)
    scope = scope_of(stats, indicator, valid, axis=(1, 2))
    together = modulate(a, stats, valid, settings, scope=scope)
    halves = [slice(0, 3), slice(3, 6)]
    parts = [
        scope_of(TokenStatistics(*(x[:, half] for x in stats)), indicator[:, half], valid[:, half], axis=(1, 2))
        for half in halves
    ]
    merged = Scope.merge(parts)
    for i in range(4):
        one = TokenStatistics(*(x[i] for x in stats))
        alone_scope = scope_of(one, indicator[i], valid[i])
        for name in ("entropy_min", "entropy_max", "instability_max"):
            assert tuple(getattr(scope, name).shape) == (4, 1, 1)
            assert float(getattr(scope, name)[i, 0, 0]) == getattr(alone_scope, name)
            assert float(getattr(merged, name)[i, 0, 0]) == getattr(alone_scope, name)
        alone = modulate(a[i], one, valid[i], settings, scope=alone_scope)
        for got, expected in zip(together, alone, strict=True):
            np.testing.assert_array_equal(backend.numpy(got[i]), backend.numpy(expected))
    assert (backend.numpy(together.compensation[2:]) == 1).all()
    assert (backend.numpy(together.compensation[:2]) > 1).any()
    assert (backend.numpy(together.stabilization[:2]) < 1).any()


def test_scope_merge():
    scopes = [Scope(0.1, 0.5, 2.0), Scope(), Scope(0.2, 0.9, 1.0)]
    assert Scope.merge(scopes) == Scope(0.1, 0.9, 2.0) == Scope.merge(reversed(scopes))
    assert Scope.merge([Scope.merge(scopes[:2]), scopes[2]]) == Scope.merge(scopes)
    assert Scope.merge([]) == Scope() == Scope.merge([Scope(), Scope()])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Scope(1.0, 0.5, 0.0), "entropy_max: expected"),
        (lambda: Scope(-1.0, 0.5, 0.0), "entropy_min: expected"),
        (lambda: Scope(0.0, math.inf, 0.0), "entropy_max: expected"),
        (lambda: Scope(instability_max=1.0), "entropy_min: expected"),
        (lambda: Scope(0.0, 1.0, -1.0), "instability_max: expected"),
        (lambda: Scope(np.full(2, -1.0), np.ones(2), np.zeros(2)), "scope: expected 0 <= entropy_min"),
        (lambda: Scope.merge([Scope(0.1, 0.3, 2.0), Scope(*np.ones((3, 2)))]), "expected an array, got float"),
        (lambda: Scope.merge([Scope(*np.ones((3, 2))), Scope(0.1, 0.3, 2.0)]), "expected an array, got float"),
        (lambda: Scope(np.ones(2), np.zeros(2), np.zeros(2)), "scope: expected 0 <= entropy_min <= entropy_max"),
        (lambda: Scope(np.zeros(2), np.full(2, np.inf), np.zeros(2)), "scope: expected 0 <= entropy_min"),
        (lambda: Scope(np.zeros(2), np.zeros(3), np.zeros(2)), "entropy_max: expected the shape of entropy_min"),
        (lambda: Scope(np.zeros(2), 1.0, 1.0), "entropy_max: expected an array"),
        (lambda: scope_of(STATS, -ONES, VALID), "instability: expected values >= 0"),
        (lambda: scope_of(STATS, np.ones(3), VALID), "instability: expected the shape of entropy"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@fuzzing.fuzz
@given(floats, floats, floats)
def test_fuzz_Scope(entropy_min, entropy_max, instability_max):
    fuzzing.call(Scope, entropy_min, entropy_max, instability_max)


@fuzzing.fuzz
@given(st.lists(scopes, max_size=4))
def test_fuzz_Scope_merge(parts):
    merged = Scope.merge(parts)
    assert merged == Scope() or (merged.entropy_min, merged.entropy_max) == (
        min(part.entropy_min for part in parts),
        max(part.entropy_max for part in parts),
    )


@fuzzing.fuzz
@given(arrays(5), masks)
def test_fuzz_scope_of(values, mask):
    def finite_fields():
        scope = scope_of(statistics_of(values), values[4], mask[: values.shape[1]])
        return None if scope == Scope() else scope

    fuzzing.call(finite_fields)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 2)])
def test_no_token_at_all_has_the_empty_scope(shape):
    none = np.zeros(shape)
    stats = TokenStatistics(none, none, none, none)
    for axis in (None, 0, len(shape) - 1):
        assert scope_of(stats, none, none > 0, axis=axis) == Scope()
