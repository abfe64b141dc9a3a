"""The order of rows: every mini-batch is the same on any number of ranks, and parts are even."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("verl")
from hypothesis import given, strategies as st

from scale.plugin.row_order import deal, row_of, spread

pytestmark = pytest.mark.needs_verl


@given(
    lengths=st.lists(st.integers(1, 4000), min_size=1, max_size=12),
    num_minibatches=st.integers(1, 4),
    num_ranks=st.integers(1, 4),
)
def test_every_rank_gets_its_share_of_every_mini_batch(lengths, num_minibatches, num_ranks):
    """Verl cuts the rows into ranks, and each rank's into mini-batches: those must be the canonical ones."""
    lengths = lengths * num_minibatches * num_ranks
    order = deal(lengths, num_minibatches, num_ranks)
    assert sorted(order) == list(range(len(lengths)))
    size = len(lengths) // num_minibatches
    ranks = np.array(order).reshape(num_ranks, num_minibatches, -1)
    for number in range(num_minibatches):
        assert sorted(ranks[:, number].ravel()) == list(range(number * size, (number + 1) * size))


@given(
    data=st.data(),
    num_minibatches=st.integers(1, 6),
    size=st.integers(1, 9),
)
def test_padding_is_spread_over_mini_batches(data, num_minibatches, size):
    """Every mini-batch has as many real rows as any other, up to one, in the canonical order."""
    num_rows = num_minibatches * size
    num_real = data.draw(st.integers(0, num_rows))
    order = spread(num_real, num_rows, num_minibatches)
    assert sorted(order) == list(range(num_rows))
    assert [row for row in order if row < num_real] == list(range(num_real))
    real = (np.array(order) < num_real).reshape(num_minibatches, size).sum(1)
    assert real.max() - real.min() <= 1


def test_deal_balances_tokens():
    lengths = [4000, 1, 1, 1, 4000, 1, 1, 1]
    ranks = np.array(deal(lengths, 1, 2)).reshape(2, -1)
    assert [np.array(lengths)[rank].sum() for rank in ranks] == [4003, 4003]


def test_deal_refuses_rows_that_do_not_divide():
    with pytest.raises(ValueError, match="lengths: expected a multiple of 2 mini-batches x 2 ranks, got 6"):
        deal([1] * 6, 2, 2)


def test_rows_are_named_by_prompt_trajectory_and_turn():
    assert row_of("00000012-00003_10_0") == ("00000012-00003", 10, 0)
