"""What a step of the trainer spends beside the engine, each beside how it was done before (`--benchmark-enable -s`).

Processor time of one core, both in one run, on a machine that others use too: the ratios hold, the seconds scatter.
Lengths are those of a long chain of thought: a gamma distribution of mean 1,000, cut at 8,192.

Two runs on an idle machine: the extremes of 8,192 rows 2.5 s against 26.6 s, 10.3 and 10.9 times as fast. Tokens that
compete among 512 rows, for each of 8 ranks and each mini-batch, without the time that the network takes: Clip-Cov 8.2
and 9.6 times as fast, KL-Cov 5.1 and 5.9, Fork Tokens 3.9 and 4.5 (on a busy machine 18, 9.0 and 7.4). Token statistics
without verl's entropy: 1.3 s against 1.8 s, 1.4 times.
"""

from __future__ import annotations

import time
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("verl")
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.torch_functional import entropy_from_logits_with_chunking
from verl.workers.config import ActorConfig
from verl.workers.utils.padding import response_from_nested, response_to_nested

from scale.plugin.engine import STATISTICS
from scale.plugin.loss import SCOPE, WEIGHTS, MethodLoss, token_statistics_of
from scale.plugin.metrics import factor_quantiles
from scale.plugin.token_statistics import chunked_token_statistics
from scale.plugin.trainer import Dynamo
from theory.base import require
from theory.losses import aggregation_weights, select_tokens
from theory.methods import METHODS

pytestmark = pytest.mark.needs_verl

LONGEST, MEAN = 8192, 1000


def batch(num, longest=LONGEST, mean=MEAN, seed=0):
    """Return a rollout batch as the trainer gets it: nested rows, statistics of prompts and responses."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.gamma(1.5, mean / 1.5, size=num).astype(int) + 1, longest)
    lengths[0] = longest

    def rows(make, before=0):
        parts = [torch.from_numpy(make(before + n)).float() for n in lengths]
        return torch.nested.as_nested_tensor(parts, layout=torch.jagged)

    data = {
        "prompts": rows(lambda n: np.zeros(1)).long(),
        "responses": rows(np.zeros).long(),
        "response_mask": rows(np.ones).long(),
        "advantages": rows(lambda n: np.full(n, rng.normal())),
        "old_log_probs": rows(lambda n: -rng.exponential(size=n)),
        "uniforms": rows(rng.random),
    }
    data |= {name: rows(rng.random, before=1) for name in STATISTICS}
    data[STATISTICS[2]] = data[STATISTICS[2]] * -0.3
    data["log_probs"] = rows(lambda n: -rng.exponential(size=n), before=1)
    return data


def seconds(function, *args):
    start = time.process_time()
    result = function(*args)
    return time.process_time() - start, result


def told(benchmark, what, before, now):
    benchmark.extra_info["times as fast"] = before / now
    print(f"{what}: {now:.2f} s, before {before:.2f} s, {before / now:.1f} times as fast")


def padded_scope(shaping, data):
    """Return extremes and quantiles of rows of one width."""
    nested = data["response_mask"]
    mask = nested.to_padded_tensor(0).bool()
    advantages, log_prob = (data[name].to_padded_tensor(0) for name in ("advantages", "old_log_probs"))
    padded = [response_from_nested(data[name], nested).to_padded_tensor(0) for name in STATISTICS]
    stats = token_statistics_of(log_prob, padded, mask)
    scope = shaping.scope(stats, advantages, mask)
    factors = shaping.apply(advantages, stats, mask, coefficient=advantages, scope=scope).factors
    metrics = {}
    for name, factor in factors.items():
        metrics |= factor_quantiles(name, factor[mask].numpy())
    return scope, metrics


@pytest.mark.benchmark(group="step")
def test_extremes_of_a_rollout_batch(benchmark):
    """8,192 rows."""
    data = batch(8192 if benchmark.enabled else 64, LONGEST if benchmark.enabled else 400)
    made = Dynamo.__new__(Dynamo)
    made.method = METHODS["dynamo"]
    metrics = {}
    now, scope = seconds(made._scope, data, metrics)
    before, expected = seconds(padded_scope, made.method.shaping, data)
    assert (vars(scope), metrics) == (vars(expected[0]), expected[1])
    told(benchmark, "extremes of a rollout batch", before, now)
    benchmark.pedantic(made._scope, (data, {}), rounds=1)


def gathered(loss, ranks):
    """Do what each rank did: with all ranks' padded rows, which it has been sent as objects."""
    import pickle

    parts = [pickle.loads(pickle.dumps(part)) for part in ranks]
    width = max(part["mask"].shape[1] for part in parts)
    for part in parts:
        for name, x in part.items():
            part[name] = torch.nn.functional.pad(x, (0, width - x.shape[1]))
    merged = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    mask, method = merged["mask"], loss.method
    stats = token_statistics_of(merged["log_prob"], [merged[name] for name in STATISTICS], mask)
    given = (merged["log_prob"], merged["old_log_prob"], merged["advantages"], mask)
    fork, uniforms = method.token_selection, merged["uniforms"]
    selection = select_tokens(method.loss, *given, token_selection=fork, entropy=stats.entropy, uniforms=uniforms)
    aggregation_weights(selection.counted, method.aggregation, prompts=torch.arange(len(mask)), dtype=torch.float32)
    return selection


@pytest.mark.benchmark(group="step")
@pytest.mark.parametrize("name", ["clip-cov", "kl-cov", "fork-tokens"])
def test_tokens_that_compete(name, benchmark):
    """One of 8 ranks that share 512 rows, and what the others send it."""
    num, longest = (512, LONGEST) if benchmark.enabled else (64, 400)
    method, whole = METHODS[name], batch(num, longest)
    actor = ActorConfig(strategy="fsdp2", rollout_n=8, use_dynamic_bsz=True)
    loss = MethodLoss(method, actor)

    def part(rank):
        rows = {key: list(x.unbind())[rank::8] for key, x in whole.items()}
        rows = {key: torch.nested.as_nested_tensor(x, layout=torch.jagged) for key, x in rows.items()}
        outputs = {key: rows.pop(key) for key in ("log_probs", *STATISTICS)}
        data = TensorDict(rows, batch_size=num // 8)
        tu.assign_non_tensor_stack(data, "uid", [f"{rank}-{i // 8}" for i in range(num // 8)])
        return outputs, data

    parts = [part(rank) for rank in range(8)]
    with require.trusted():
        sent = [loss._tokens(*x) for x in parts]
        sent = [x | {key: torch.zeros_like(x["log_prob"]) for key in STATISTICS if key not in x} for x in sent]
        before, expected = seconds(gathered, loss, sent)
    flat = {key: torch.cat([x[key][x["mask"]] for x in sent]) for key in ("log_prob", "old_log_prob", "advantages")}
    flat |= {"uniforms": torch.cat([x["uniforms"][x["mask"]] for x in sent])}
    flat |= {"entropy": torch.cat([x[STATISTICS[0]][x["mask"]] for x in sent])}
    lengths = torch.cat([x["mask"].sum(dim=1) for x in sent])
    mine = int(sent[0]["mask"].sum())

    def all_tokens(own, group):
        packed = torch.stack([flat[key].double() for key in own])
        return {key: row.to(own[key].dtype) for key, row in zip(own, packed, strict=True)}, slice(0, mine)

    def all_lengths(own, prompts, group):
        return lengths, torch.arange(len(lengths)), slice(0, len(own))

    with (
        mock.patch("scale.plugin.exchange.of_all_ranks", all_tokens),
        mock.patch("scale.plugin.exchange.lengths_of_all_ranks", all_lengths),
    ):
        now, _ = seconds(loss.prepare, *parts[0], None)
    assert SCOPE not in parts[0][1]
    assert WEIGHTS in parts[0][1]
    chosen = response_to_nested(expected.targeted[: num // 8], parts[0][1]["response_mask"])
    assert torch.equal(chosen.values(), parts[0][1]["targeted_tokens"].values())
    told(benchmark, f"tokens that compete, {name}", before, now)
    benchmark.pedantic(lambda: None, rounds=1)


@pytest.mark.benchmark(group="step")
def test_entropy_of_the_rollout_batch(benchmark):
    """256 tokens of a vocabulary of 151,936, in bfloat16."""
    tokens, vocabulary = (256, 151_936) if benchmark.enabled else (8, 1000)
    logits = torch.randn(tokens, vocabulary, generator=torch.Generator().manual_seed(0)).bfloat16()
    actions = torch.zeros(tokens, dtype=torch.int64)
    verls, expected = seconds(entropy_from_logits_with_chunking, logits)
    ours, stats = seconds(chunked_token_statistics, logits, actions)
    torch.testing.assert_close(stats.entropy, expected, rtol=1e-5, atol=1e-4)
    told(benchmark, "entropy beside token statistics", ours + verls, ours)
    benchmark.pedantic(lambda: None, rounds=1)
