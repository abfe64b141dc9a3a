"""Statistics in chunks are those of `theory.policy.softmax`, in at least float32, whatever the chunks."""

from __future__ import annotations

import pytest
import torch

from scale.plugin.token_statistics import chunked_token_statistics
from theory.policy import token_statistics


@pytest.mark.parametrize("chunk_numbers", [1, 7, 100, 10**9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_chunks_change_nothing(chunk_numbers, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(23, 11, generator=generator)).to(dtype)
    actions = torch.randint(11, (23,), generator=generator)
    found = chunked_token_statistics(logits, actions, chunk_numbers=chunk_numbers)
    wide = logits if dtype == torch.float64 else logits.float()
    for name, x, y in zip(found._fields, found, token_statistics(wide, actions), strict=True):
        assert torch.equal(x, y), name
        assert x.dtype == wide.dtype


def test_a_vocabulary_of_152_000_in_bfloat16():
    """The float64 statistics of the same logits, to float32's precision; bfloat16 sums would be off by percents."""
    logits = torch.randn(40, 152_064, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    actions = torch.arange(40)
    found = chunked_token_statistics(logits, actions)
    for name, x, y in zip(found._fields, found, token_statistics(logits.double(), actions), strict=True):
        torch.testing.assert_close(x.double(), y, rtol=2e-5, atol=2e-7, msg=name)


@pytest.mark.parametrize("chunk_numbers", [1, 25, 10**9])
def test_temperatures_are_each_tokens_own(chunk_numbers):
    draw = torch.Generator().manual_seed(2)
    logits, actions = torch.randn(23, 11, generator=draw), torch.randint(11, (23,), generator=draw)
    temperature = 0.1 + torch.rand(23, generator=draw)
    found = chunked_token_statistics(logits, actions, temperature, chunk_numbers=chunk_numbers)
    for name, x, y in zip(found._fields, found, token_statistics(logits / temperature[:, None], actions), strict=True):
        assert torch.equal(x, y), name
    with pytest.raises(ValueError, match=r"temperature: expected shape \(23,\), got \(1,\)"):
        chunked_token_statistics(logits, actions, temperature[:1])


def test_no_gradient_and_no_tokens():
    logits = torch.zeros(0, 5, requires_grad=True)
    found = chunked_token_statistics(logits, torch.zeros(0, dtype=torch.int64))
    assert all(len(x) == 0 and not x.requires_grad for x in found)


@pytest.mark.parametrize(
    ("shape", "num_actions", "chunk", "message"),
    [
        ((2, 3), 3, 5, "logits, actions: expected shapes"),
        ((6,), 6, 5, "expected shapes"),
        ((2, 3), 2, 0, "chunk_numbers"),
    ],
)
def test_bad_input(shape, num_actions, chunk, message):
    with pytest.raises(ValueError, match=message):
        chunked_token_statistics(torch.zeros(shape), torch.zeros(num_actions, dtype=torch.int64), chunk_numbers=chunk)
    with pytest.raises(ValueError, match="actions"):
        chunked_token_statistics(torch.zeros(1, 3), torch.tensor([3]))
