"""What ranks tell each other arrives as it was sent, in the order of the ranks; over gloo."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from scale.plugin import exchange
from tests.scale.plugin.gloo import on_ranks
from theory.losses import Scope

SIZES = (3, 0, 5)


def tokens(rank):
    draw = torch.Generator().manual_seed(rank)
    single = torch.randn(SIZES[rank], generator=draw)
    return {"x": single, "y": torch.rand(SIZES[rank], generator=draw, dtype=torch.float64)}


def told(rank):
    """Return on a rank all that it is told."""
    group = dist.group.WORLD
    scopes = [Scope(*map(torch.tensor, (0.1, 0.7, 2.0))), Scope(), Scope(*map(torch.tensor, (0.3, 0.9, 0.0)))]
    scope = exchange.merged(scopes[rank], torch.device("cpu"), group)
    every, here = exchange.of_all_ranks(tokens(rank), group)
    lengths, prompts, rows = exchange.lengths_of_all_ranks(torch.tensor([rank, 7]), [f"p{rank % 2}", "q"], group)
    return vars(scope), every, here, lengths.tolist(), prompts.tolist(), rows


def test_everything_arrives_exactly_and_in_the_order_of_the_ranks():
    for rank, (scope, every, here, lengths, prompts, rows) in enumerate(on_ranks(told, 3)):
        assert [float(x) for x in scope.values()] == [float(torch.tensor(x)) for x in (0.1, 0.9, 2.0)]
        assert {x.dtype for x in scope.values()} == {torch.float32}
        for name, x in every.items():
            expected = torch.cat([tokens(i)[name] for i in range(3)])
            assert x.dtype == expected.dtype
            assert torch.equal(x, expected)
            assert torch.equal(x[here], tokens(rank)[name])
        assert lengths == [0, 7, 1, 7, 2, 7]
        assert prompts == [0, 1, 2, 1, 0, 1]
        assert rows == slice(2 * rank, 2 * rank + 2)


def test_a_process_without_a_group_tells_nobody():
    scope = Scope(*map(torch.tensor, (0.1, 0.7, 2.0)))
    assert exchange.merged(scope, torch.device("cpu"), None) == scope
    every, here = exchange.of_all_ranks(tokens(0), None)
    assert all(torch.equal(x[here], tokens(0)[name]) for name, x in every.items())
    lengths, prompts, rows = exchange.lengths_of_all_ranks(torch.tensor([4, 2]), ["a", "a"], None)
    assert (lengths.tolist(), prompts.tolist(), rows) == ([4, 2], [0, 0], slice(0, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_scope_of_no_token_stays_one(dtype):
    none = Scope(*(torch.tensor(x, dtype=dtype) for x in vars(Scope()).values()))
    for scope in (none, Scope()):
        found = exchange.merged(scope, torch.device("cpu"), None)
        assert [float(x) for x in vars(found).values()] == list(vars(Scope()).values())
