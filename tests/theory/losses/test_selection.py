"""theory.losses.selection: counts, bands and ties by hand; scopes that merge; packing that changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from theory.losses.selection import ForkTokens, clip_cov_tokens, covariance, fork_tokens, kl_cov_tokens

ALL = np.ones(4, dtype=bool)


def tokens(rng, rows=6, length=5):
    """Responses of uneven length with an advantage that is constant within a response, as GRPO's."""
    mask = np.arange(length) < rng.integers(1, length + 1, size=rows)[:, None]
    advantages = np.repeat(rng.normal(size=(rows, 1)), length, axis=1)
    return np.log(rng.uniform(0.01, 1.0, size=mask.shape)), advantages, mask


def test_covariance_by_hand(backend):
    """mpmath: means 0.5 and -1.575 of A = (1.5, 1.5, -.5, -.5) and log pi = (-.1, -2, -.7, -3.5); then the products."""
    log_prob, advantages = np.array([-0.1, -2.0, -0.7, -3.5]), np.array([1.5, 1.5, -0.5, -0.5])
    got = covariance(backend(log_prob), backend(advantages), backend(ALL))
    np.testing.assert_allclose(backend.numpy(got), [1.475, -0.425, -0.875, 1.925], rtol=10 * backend.rtol)


def test_covariances_sum_to_the_sample_covariance_whatever_the_padding(backend, rng):
    log_prob, advantages, mask = tokens(rng)
    got = backend.numpy(covariance(backend(log_prob), backend(advantages), backend(mask)))
    expected = np.cov(log_prob[mask], advantages[mask], ddof=0)[0, 1] * mask.sum()
    np.testing.assert_allclose(got.sum(), expected, rtol=100 * backend.rtol, atol=100 * backend.rtol)
    assert not got[~mask].any()


def test_a_single_response_has_no_covariance_alone_and_has_in_the_batch(backend, rng):
    log_prob, advantages, mask = tokens(rng)
    whole = covariance(backend(log_prob), backend(advantages), backend(mask))
    row = [backend(x[2:3]) for x in (log_prob, advantages, mask)]
    np.testing.assert_allclose(backend.numpy(covariance(*row)), 0.0, atol=10 * backend.rtol)
    assert np.abs(backend.numpy(whole))[2][mask[2]].min() > 1e-3


def test_clip_cov_takes_the_band_strictly_and_the_smallest_uniforms(backend):
    covariances = backend(np.array([1.0, 1.001, 4.999, 5.0, 3.0, 3.0, -3.0]))
    uniforms = backend(np.array([0.0, 0.7, 0.2, 0.0, 0.4, 0.1, 0.0]))
    mask = backend(np.array([True] * 5 + [False, True]))

    def chosen(ratio, excluded=None):
        picked = clip_cov_tokens(covariances, mask, uniforms, ratio=ratio, excluded=excluded)
        return np.flatnonzero(backend.numpy(picked)).tolist()

    assert chosen(0.0) == [2]  # K is at least 1
    assert chosen(0.4) == [2, 4]  # floor(0.4 * 6): padding does not count in N
    assert chosen(1.0) == [1, 2, 4]  # no more than there are candidates
    assert chosen(0.4, excluded=backend(np.array([False, False, True, False, False, False, False]))) == [1, 4]


def test_clip_cov_draws_uniformly_without_replacement(rng):
    """Each of 5 candidates is in the draw of 2 with probability 2/5, each pair with 1/10, within 4 standard errors."""
    covariances, mask = np.array([2.0] * 5 + [0.0] * 5), np.ones(10, dtype=bool)
    num_draws, pairs = 4000, np.zeros((5, 5))
    for _ in range(num_draws):
        chosen = clip_cov_tokens(covariances, mask, rng.random(10), ratio=0.2)[:5]
        assert chosen.sum() == 2
        pairs += np.outer(chosen, chosen)
    for share, expected in ((pairs[np.eye(5, dtype=bool)], 0.4), (pairs[np.triu_indices(5, 1)], 0.1)):
        error = np.sqrt(expected * (1 - expected) / num_draws)
        assert np.abs(share / num_draws - expected).max() < 4 * error


def test_kl_cov_takes_the_largest_signed_covariance(backend):
    covariances = backend(np.array([0.5, -9.0, 2.0, 0.7, 99.0]))
    mask = backend(np.array([True, True, True, True, False]))
    chosen = [
        np.flatnonzero(backend.numpy(kl_cov_tokens(covariances, mask, ratio=ratio))).tolist()
        for ratio in (0.0, 0.5, 0.99, 1.0)
    ]
    assert chosen == [[2], [2, 3], [0, 2, 3], [0, 1, 2, 3]]


def test_kl_cov_ratio_is_a_fraction_not_percent():
    covariances, mask = np.arange(1000.0), np.ones(1000, dtype=bool)
    assert kl_cov_tokens(covariances, mask).sum() == 2  # 0.2 percent
    assert kl_cov_tokens(covariances, mask, ratio=0.2).sum() == 200


def test_choosing_in_micro_batches_is_another_choice(rng):
    """The example of verl issue 7829: 8192 tokens at a ratio of 2e-4 are 1 token in one scope and 8 in eight."""
    covariances, mask = rng.normal(size=(8, 1024)), np.ones((8, 1024), dtype=bool)
    assert kl_cov_tokens(covariances, mask, ratio=2e-4).sum() == 1
    assert sum(kl_cov_tokens(c, m, ratio=2e-4).sum() for c, m in zip(covariances, mask, strict=True)) == 8


def test_fork_tokens_are_the_top_of_the_valid_entropies(backend):
    entropy = backend(np.array([[0.1, 0.9, 0.3], [0.2, 5.0, 0.8]]))
    mask = backend(np.array([[True, True, True], [True, False, True]]))
    chosen = [
        np.flatnonzero(backend.numpy(fork_tokens(entropy, mask, ratio=ratio))).tolist()
        for ratio in (0.0, 0.2, 0.21, 0.6, 1.0)
    ]
    assert chosen == [[1], [1], [1, 5], [1, 2, 5], [0, 1, 2, 3, 5]]


@pytest.mark.parametrize(("num_tokens", "expected"), [(35, 7), (36, 8), (4, 1), (1, 1)])
def test_fork_tokens_round_up(num_tokens, expected):
    assert fork_tokens(np.arange(float(num_tokens)), np.ones(num_tokens, dtype=bool)).sum() == expected


def test_counts_are_exact_where_floats_are_not():
    """In floats 0.07 * 100 is above 7, and 0.29 * 100 below 29."""
    scores, mask = np.arange(100.0), np.ones(100, dtype=bool)
    assert fork_tokens(scores, mask, ratio=0.07).sum() == 7
    assert kl_cov_tokens(scores, mask, ratio=0.29).sum() == 29


def test_ties_go_to_the_lower_index(backend):
    same, mask = backend(np.zeros(5)), backend(np.array([False, True, True, True, True]))
    expected = [False, True, True, False, False]
    assert backend.numpy(fork_tokens(same, mask, ratio=0.5)).tolist() == expected
    assert backend.numpy(kl_cov_tokens(same, mask, ratio=0.5)).tolist() == expected
    assert backend.numpy(clip_cov_tokens(same + 2, mask, same, ratio=0.5)).tolist() == expected


def test_order_padding_and_layout_change_nothing(backend, rng):
    """A token is chosen or not whatever the rows around it, their order, and the padding between."""
    log_prob, advantages, mask = tokens(rng, rows=8)
    covariances = np.abs(covariance(log_prob, advantages, mask)) * 4
    uniforms = rng.random(mask.shape)
    order = rng.permutation(8)

    def repack(x):
        return backend(np.pad(x[order], ((0, 2), (0, 3))))

    for choose, arrays in (
        (lambda c, u, m: clip_cov_tokens(c, m, u, ratio=0.2, low=0.1), (covariances, uniforms, mask)),
        (lambda c, m: kl_cov_tokens(c, m, ratio=0.2), (covariances, mask)),
        (lambda c, m: fork_tokens(c, m, ratio=0.2), (covariances, mask)),
    ):
        chosen = backend.numpy(choose(*(backend(x) for x in arrays)))
        repacked = backend.numpy(choose(*(repack(x) for x in arrays)))
        assert 0 < chosen.sum() < mask.sum()
        assert np.array_equal(repacked[:8, :5], chosen[order])
        assert not repacked[8:].any()
        assert not repacked[:, 5:].any()


def test_no_valid_token_chooses_none(backend):
    none = backend(np.zeros((2, 3), dtype=bool))
    x = backend(np.full((2, 3), 2.0))
    for chosen in (fork_tokens(x, none), kl_cov_tokens(x, none), clip_cov_tokens(x, none, x / 2)):
        assert not backend.numpy(chosen).any()
    assert not backend.numpy(covariance(x, x, none)).any()


def test_nothing_carries_a_gradient():
    x = torch.tensor([-1.0, -2.0], requires_grad=True)
    mask = torch.tensor([True, True])
    assert not covariance(x, x, mask).requires_grad
    assert fork_tokens(-x, mask).dtype == torch.bool


ONES = np.ones(4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: covariance(ONES, ONES[:3], ALL), r"advantages: expected the shape of log_prob \(4,\), got \(3,\)"),
        (lambda: covariance(ONES * np.nan, ONES, ALL), "log_prob: expected finite"),
        (lambda: covariance(ONES, ONES * 1e200, ALL), "advantages: expected magnitudes of at most"),
        (lambda: covariance(ONES, ONES, ONES), "mask: expected a boolean dtype"),
        (lambda: covariance(ONES, torch.ones(4), ALL), "expected one array library"),
        (lambda: clip_cov_tokens(ONES, ALL, ONES * 1.1), r"uniforms: expected values in \[0, 1\]"),
        (
            lambda: clip_cov_tokens(ONES, ALL, ONES, low=2.0, high=2.0),
            r"high: expected a finite number in \(2.0, inf\]",
        ),
        (lambda: clip_cov_tokens(ONES, ALL, ONES, ratio=1.5), r"ratio: expected a finite number in \[0.0, 1.0\]"),
        (lambda: clip_cov_tokens(ONES, ALL, ONES, excluded=ONES), "excluded: expected a boolean dtype"),
        (lambda: clip_cov_tokens(ONES, ALL, ONES, excluded=ALL[:2]), "excluded: expected the shape of covariances"),
        (lambda: kl_cov_tokens(ONES, ALL, ratio=-0.1), r"ratio: expected a finite number in \[0.0, 1.0\]"),
        (lambda: fork_tokens(ONES, ALL, ratio=True), "ratio: expected a number, got True"),
        (lambda: ForkTokens(1.2), "ratio: expected"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Arrays are drawn by a seed from a pool of ordinary, extreme and forbidden numbers, which is quicker than one by one.
POOL = np.array([0.0, 0.3, 0.99, 1.0, 1.5, 5.0, 7.0, -0.5, -2.0, 1e-300, 1e150, -1e18, 1e308, np.nan, -np.inf])


def pair_and_mask(rows, length, seed, num_kinds):
    """Return two arrays from the first kinds of the pool, and a mask."""
    rng = np.random.default_rng(seed)
    return rng.choice(POOL[:num_kinds], size=(2, rows, length)), rng.random((rows, length)) < 0.7


pairs = st.builds(pair_and_mask, st.integers(0, 2), st.integers(0, 4), st.integers(0), st.integers(1, len(POOL)))
ratios = st.floats(0, 1) | fuzzing.any_float


@fuzzing.fuzz
@given(pairs)
def test_fuzz_covariance(pair):
    x, mask = pair
    got = fuzzing.call(covariance, *x, mask)
    if got is not None:
        assert not got[~mask].any()


@fuzzing.fuzz
@given(pairs, ratios)
def test_fuzz_clip_cov_tokens(pair, ratio):
    x, mask = pair
    chosen = fuzzing.call(clip_cov_tokens, x[0], mask, x[1], ratio=ratio)
    if chosen is not None:
        candidates = mask & (x[0] > 1) & (x[0] < 5)
        assert not (chosen & ~candidates).any()
        assert min(1, candidates.sum()) <= chosen.sum() <= max(ratio * mask.sum() + 1e-9, 1)


@fuzzing.fuzz
@given(pairs, ratios)
def test_fuzz_kl_cov_tokens(pair, ratio):
    x, mask = pair
    chosen = fuzzing.call(kl_cov_tokens, x[0], mask, ratio=ratio)
    if chosen is not None and mask.any():
        assert x[0][chosen].min() >= x[0][mask & ~chosen].max(initial=-np.inf)


@fuzzing.fuzz
@given(pairs, ratios)
def test_fuzz_fork_tokens(pair, ratio):
    x, mask = pair
    chosen = fuzzing.call(fork_tokens, x[0], mask, ratio=ratio)
    if chosen is not None and mask.any():
        assert x[0][chosen].min() >= x[0][mask & ~chosen].max(initial=-np.inf)
        assert mask.sum() >= chosen.sum() >= ratio * mask.sum() - 1e-9
