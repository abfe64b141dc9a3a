"""Rows in parts of like length: every token once, whatever the lengths, and little padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from scale.plugin.packing import like_lengths, nested_like


def nested(lengths, start=1):
    flat = torch.arange(start, start + sum(lengths))
    return torch.nested.as_nested_tensor(list(flat.split(lengths)), layout=torch.jagged)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(1, 60))
def test_every_row_is_in_one_part_and_parts_keep_their_size(lengths, numbers):
    rows = {"x": nested(lengths), "y": -nested(lengths)}
    found, widths = [], []
    for part in like_lengths(rows, numbers):
        assert torch.equal(part["y"], -part["x"])
        assert len(part["x"]) == 1 or part["x"].numel() <= numbers or part["x"].shape[1] <= 1
        widths.append(part["x"].shape[1])
        found += [row[row > 0].tolist() for row in part["x"]]
    expected = [row.tolist() for row in rows["x"].unbind()]
    assert sorted(found) == sorted(expected)
    assert [len(row) for row in found] == sorted(lengths, reverse=True)
    assert widths == sorted(widths, reverse=True)


def test_padding_is_little_where_lengths_are_those_of_a_run():
    lengths = np.minimum(np.random.default_rng(0).gamma(1.5, 670, size=2048).astype(int) + 1, 8192).tolist()
    tokens = sum(part["x"].numel() for part in like_lengths({"x": nested(lengths)}))
    assert sum(lengths) < tokens < 1.25 * sum(lengths)
    assert tokens < 0.25 * len(lengths) * max(lengths)


@pytest.mark.parametrize("lengths", [[3, 1, 2], [2, 2], [1]])
def test_values_become_rows_of_the_same_lengths(lengths):
    rows = nested(lengths)
    found = nested_like(rows.values() * 2, rows)
    assert [row.tolist() for row in found.unbind()] == [(2 * row).tolist() for row in rows.unbind()]
    assert found.to_padded_tensor(0).shape == (len(lengths), max(lengths))
