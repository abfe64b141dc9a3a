"""theory.losses.aggregation: hand-computed ragged batches, parts that add up, empty masks, both backends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from tests.theory import fuzzing
from theory.losses.aggregation import AGGREGATIONS, aggregate, aggregation_weights, sequence_weights

# Prompt 7 has two sequences (3 tokens and 1), prompt 3 one sequence (2 tokens), prompt 5 only padding.
MASK = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)
PROMPTS = np.array([7, 3, 7, 5])
VALUES = np.array([[1.0, 2.0, 6.0], [4.0, 8.0, 99.0], [99.0, 9.0, 99.0], [99.0, 99.0, 99.0]])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("token-mean", (1 + 2 + 6 + 4 + 8 + 9) / 6),
        ("sequence-mean", ((1 + 2 + 6) / 3 + (4 + 8) / 2 + 9) / 3),
        ("prompt-mean", ((1 + 2 + 6 + 9) / 4 + (4 + 8) / 2) / 2),
    ],
)
def test_ragged_batch_by_hand(backend, mode, expected):
    got = aggregate(backend(VALUES), backend(MASK), mode, prompts=backend(PROMPTS))
    np.testing.assert_allclose(backend.numpy(got), expected, rtol=backend.rtol)


@pytest.mark.parametrize("mode", AGGREGATIONS)
def test_weights_sum_to_one_and_leave_padding_out(backend, mode):
    dtype = backend(VALUES).dtype
    weights = backend.numpy(aggregation_weights(backend(MASK), mode, prompts=backend(PROMPTS), dtype=dtype))
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=backend.rtol)
    assert np.array_equal(weights > 0, MASK)


@pytest.mark.parametrize("mode", AGGREGATIONS)
def test_lengths_are_enough_for_the_weights(backend, mode):
    """By hand, for 3, 2, 1 and 0 counted tokens of prompts 7, 3, 7 and 5; and to the bit those of the mask."""
    lengths, dtype = backend(np.array([3, 2, 1, 0])), backend(VALUES).dtype
    found = sequence_weights(lengths, mode, prompts=backend(PROMPTS), dtype=dtype)
    expected = {"token-mean": [1 / 6] * 3, "sequence-mean": [1 / 9, 1 / 6, 1 / 3], "prompt-mean": [1 / 8, 1 / 4, 1 / 8]}
    np.testing.assert_allclose(backend.numpy(found)[:3], expected[mode], rtol=backend.rtol)
    weights = aggregation_weights(backend(MASK), mode, prompts=backend(PROMPTS), dtype=dtype)
    assert np.array_equal(backend.numpy(weights), np.where(MASK, backend.numpy(found)[:, None], 0.0))


@pytest.mark.parametrize("mode", AGGREGATIONS)
def test_parts_add_up_to_the_whole(backend, mode, rng):
    """Any packing into micro-batches, in any order, of the batch and its weights gives the batch's loss."""
    mask = rng.random((12, 5)) < 0.6
    values, prompts = rng.normal(size=mask.shape), rng.integers(4, size=12)
    whole = backend.numpy(aggregate(backend(values), backend(mask), mode, prompts=backend(prompts)))
    weights = aggregation_weights(backend(mask), mode, prompts=backend(prompts), dtype=backend(values).dtype)
    parts = np.array_split(rng.permutation(12), [1, 4, 4, 9])
    total = sum(float((weights[backend(rows)] * backend(values[rows])).sum()) for rows in parts)
    np.testing.assert_allclose(total, whole, rtol=20 * backend.rtol)


def test_means_inside_micro_batches_do_not_add_up():
    """What the weights are for: a mean of means is another loss."""
    mean_of_means = np.mean([aggregate(VALUES[rows], MASK[rows], "token-mean") for rows in ([0, 1], [2])])
    assert abs(mean_of_means - aggregate(VALUES, MASK, "token-mean")) > 0.1


def test_more_rollouts_weigh_more_in_a_token_mean_only(backend):
    mask = np.ones((4, 2), dtype=bool)
    prompts = np.array([0, 0, 0, 1])
    shares = {}
    for mode in AGGREGATIONS:
        weights = aggregation_weights(backend(mask), mode, prompts=backend(prompts), dtype=backend(VALUES).dtype)
        shares[mode] = backend.numpy(weights)[:3].sum()
    assert shares == pytest.approx({"token-mean": 0.75, "sequence-mean": 0.75, "prompt-mean": 0.5})


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("shape", [(3, 2), (0, 2), (3, 0)])
def test_empty_mask_is_a_zero_loss_with_a_zero_gradient(mode, shape):
    values = torch.ones(shape, requires_grad=True)
    mask, prompts = torch.zeros(shape, dtype=torch.bool), torch.arange(shape[0])
    loss = aggregate(values, mask, mode, prompts=prompts)
    loss.backward()
    assert loss == 0
    assert torch.equal(values.grad, torch.zeros(shape))


def test_gradient_is_the_weights():
    values = torch.tensor(VALUES, requires_grad=True)
    mask, prompts = torch.tensor(MASK), torch.tensor(PROMPTS)
    (gradient,) = torch.autograd.grad(aggregate(values, mask, "prompt-mean", prompts=prompts), values)
    expected = np.array([[1, 1, 1], [2, 2, 0], [0, 1, 0], [0, 0, 0]]) / 8
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-12)


def test_leading_axes_are_sequences(backend):
    """[prompts, rollouts, T] is the same batch as [sequences, T]."""
    values, mask = backend(VALUES.reshape(2, 2, 3)), backend(MASK.reshape(2, 2, 3))
    prompts = backend(PROMPTS.reshape(2, 2))
    for mode in AGGREGATIONS:
        flat = aggregate(backend(VALUES), backend(MASK), mode, prompts=backend(PROMPTS))
        np.testing.assert_allclose(backend.numpy(aggregate(values, mask, mode, prompts=prompts)), backend.numpy(flat))


def test_weights_have_the_default_dtype_of_their_library():
    assert aggregation_weights(MASK, "token-mean").dtype == np.float64
    assert aggregation_weights(torch.tensor(MASK), "token-mean").dtype == torch.get_default_dtype()


@pytest.mark.parametrize(
    ("values", "mask", "mode", "prompts", "message"),
    [
        (VALUES, MASK, "mean", None, "mode: expected one of token-mean, sequence-mean, prompt-mean, got 'mean'"),
        (VALUES, MASK.astype(float), "token-mean", None, "mask: expected a boolean dtype"),
        (VALUES[0], MASK, "token-mean", None, r"values: expected the shape of mask \(4, 3\), got \(3,\)"),
        (VALUES * np.inf, MASK, "token-mean", None, "values: expected finite"),
        (VALUES, MASK, "prompt-mean", None, "prompts: expected the prompt id"),
        (VALUES, MASK, "prompt-mean", PROMPTS[:2], r"prompts: expected shape \(4,\), got \(2,\)"),
        (VALUES, MASK, "prompt-mean", PROMPTS.astype(float), "prompts: expected an integer dtype"),
        (VALUES[0, 0], MASK[0, 0], "token-mean", None, r"mask: expected shape \[..., T\], got \(\)"),
        (VALUES, torch.tensor(MASK), "token-mean", None, "expected one array library"),
        (VALUES, MASK, "prompt-mean", torch.tensor(PROMPTS), "expected one array library"),
    ],
)
def test_bad_input_is_named(values, mask, mode, prompts, message):
    with pytest.raises(ValueError, match=message):
        aggregate(
            np.asarray(values), mask if isinstance(mask, torch.Tensor) else np.asarray(mask), mode, prompts=prompts
        )


def test_integer_weights_are_refused():
    with pytest.raises(ValueError, match="dtype: expected a floating dtype, got"):
        aggregation_weights(MASK, "token-mean", dtype=np.int64)


modes = st.sampled_from([*AGGREGATIONS, "mean"])
shapes = st.tuples(st.integers(0, 3), st.integers(0, 3))
masks = hnp.arrays(np.bool_, shapes)
prompt_arrays = st.none() | hnp.arrays(np.int64, st.integers(0, 3))


@fuzzing.fuzz
@given(masks, modes, prompt_arrays)
def test_fuzz_aggregation_weights(mask, mode, prompts):
    weights = fuzzing.call(aggregation_weights, mask, mode, prompts=prompts)
    if weights is not None:
        assert abs(weights.sum() - mask.any()) < 1e-12


length_arrays = hnp.arrays(np.int64, st.integers(0, 3), elements=st.integers(0, 9) | st.integers(-1, 2**40))


@fuzzing.fuzz
@given(length_arrays, modes, prompt_arrays)
def test_fuzz_sequence_weights(lengths, mode, prompts):
    weights = fuzzing.call(sequence_weights, lengths, mode, prompts=prompts)
    if weights is not None:
        assert (weights > 0).all()
        assert abs((weights * lengths).sum() - lengths.any()) < 1e-12


@fuzzing.fuzz
@given(shapes.flatmap(lambda s: fuzzing.float_arrays(s, fuzzing.any_float | fuzzing.finite_float)), masks, modes)
def test_fuzz_aggregate(values, mask, mode):
    prompts = np.zeros(mask.shape[0], dtype=np.int64)
    fuzzing.call(aggregate, values, mask[: values.shape[0], : values.shape[1]], mode, prompts=prompts)
