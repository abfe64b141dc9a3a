"""The loss inside verl, on tensors as verl hands them over; no Ray."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

pytest.importorskip("verl")
import numpy as np
import torch
from tensordict import TensorDict
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
from verl.utils import tensordict_utils as tu
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss

from scale.launch.configuration import NO_DUAL_CLIP
from scale.plugin.engine import STATISTICS
from scale.plugin.loss import (
    COUNTED,
    IMPORTANCE,
    SCOPE,
    TARGETED,
    VERL_AGGREGATIONS,
    WEIGHTS,
    MethodLoss,
    looks_ahead,
    weighs_itself,
)
from tests.scale.plugin.gloo import on_ranks
from tests.theory.methods.own import Calm, Likelihood
from tests.theory.waits import Waits
from theory.losses import (
    ClippedSurrogate,
    EntropyAdvantages,
    Modulation,
    aggregate,
    entropy_advantages,
    importance_weights,
    instability,
    modulate,
    policy_loss,
    scope_of,
    select_tokens,
)
from theory.methods import METHODS, register_loss, register_shaping
from theory.policy import token_statistics

pytestmark = pytest.mark.needs_verl

VOCABULARY = 7
PROMPTS = (0, 0, 0, 1, 1, 2, 2, 2)
LENGTHS = (3, 1, 4, 2, 5, 3, 2, 4)


class Batch:
    """Responses of made-up policies, as rows padded on the right and as verl's nested tensors."""

    def __init__(self, seed=0, spread=0.5, dtype=torch.float32):
        rng = np.random.default_rng(seed)
        width = max(LENGTHS)
        self.mask = torch.arange(width) < torch.tensor(LENGTHS).unsqueeze(-1)
        self.logits = torch.from_numpy(rng.normal(size=(len(LENGTHS), width, VOCABULARY))).to(dtype).requires_grad_()
        old = self.logits.detach() + spread * torch.from_numpy(rng.normal(size=self.logits.shape)).to(dtype)
        self.actions = torch.from_numpy(rng.integers(VOCABULARY, size=self.mask.shape))
        self.stats = token_statistics(self.logits, self.actions)
        self.old = token_statistics(old, self.actions).log_prob
        rewards = rng.normal(size=len(LENGTHS))
        self.advantages = (torch.from_numpy(rewards).to(dtype).unsqueeze(-1) * self.mask).contiguous()
        self.uniforms = torch.from_numpy(rng.random(self.mask.shape))
        self.importance = None

    def sampled_elsewhere(self, **settings):
        """Give the batch the importance weights that verl computes, for a sampler that is not quite the trainer."""
        rng = np.random.default_rng(9)
        rollout = (self.old + 0.5 * torch.from_numpy(rng.normal(size=self.mask.shape))).clamp(max=-1e-3)
        self.rollout = (rollout * self.mask).to(self.old.dtype)
        old = self.old * self.mask
        self.importance, _ = compute_rollout_correction_weights(old - self.rollout, self.mask.int(), **settings)
        return self

    def nested(self, rows, lengths):
        return torch.nested.as_nested_tensor([x[:n] for x, n in zip(rows, lengths, strict=True)], layout=torch.jagged)

    def outputs(self, rows):
        """Return the model's outputs: full sequences, one prompt token first; that at t tells of the token after."""

        def full(x):
            parts = [torch.cat([x[i, : LENGTHS[i]], x.new_zeros(1)]) for i in rows]
            return torch.nested.as_nested_tensor(parts, layout=torch.jagged)

        return {"log_probs": full(self.stats.log_prob)} | {
            name: full(x.detach()) for name, x in zip(STATISTICS, self.stats[1:], strict=True)
        }

    def data(self, rows):
        lengths = [LENGTHS[i] for i in rows]
        part = lambda x: self.nested(x[list(rows)], lengths)  # noqa: E731
        fields = {
            "prompts": self.nested(torch.zeros(len(rows), 1, dtype=torch.int64), [1] * len(rows)),
            "responses": part(self.actions),
            "response_mask": part(self.mask.to(torch.int64)),
            "old_log_probs": part(self.old),
            "advantages": part(self.advantages),
            "uniforms": part(self.uniforms),
        }
        data = TensorDict(fields, batch_size=len(rows))
        if self.importance is not None:
            data[IMPORTANCE] = part(self.importance)
        tu.assign_non_tensor_stack(data, "uid", [f"1-{PROMPTS[i]}" for i in rows])
        tu.assign_non_tensor(data, dp_size=1, batch_num_tokens=sum(LENGTHS), global_batch_size=len(LENGTHS))
        return data


def actor(method, **fields):
    """Return verl's config for a method, as `scale.launch` sets it."""
    loss = method.loss
    clips = {}
    if isinstance(loss, ClippedSurrogate):
        clips = {"clip_ratio_low": loss.clip_low, "clip_ratio_high": loss.clip_high}
        clips["clip_ratio_c"] = NO_DUAL_CLIP if loss.dual_clip is None else loss.dual_clip
    mode = VERL_AGGREGATIONS.get(method.aggregation, "token-mean")
    common = {"strategy": "fsdp2", "rollout_n": 8, "use_dynamic_bsz": True, "loss_agg_mode": mode}
    return ActorConfig(**common, **clips, **fields)


def run(loss, batch, parts, during=nullcontext):
    """Return the loss, its gradient in the logits, and the metrics, with the rows in parts; as verl's engine does."""
    rows = [i for part in parts for i in part]
    whole = batch.data(rows)
    method = loss.method
    if method.compares and loss.scope == "rollout-batch":
        tu.assign_non_tensor_data(whole, SCOPE, rollout_scope(batch, method))
    if looks_ahead(method, loss.scope):
        outputs = {name: x.detach() for name, x in batch.outputs(rows).items()}
        with during():
            loss.prepare(outputs, whole, None)
    batch.logits.grad = None
    total, metrics, start = 0.0, [], 0
    for part in parts:
        micro = tu.index_select_tensor_dict(whole, list(range(start, start + len(part))))
        start += len(part)
        outputs = batch.outputs(part)
        with during():
            value, found = loss(outputs, micro)
        total, metrics = total + value, [*metrics, found]
    total.backward(retain_graph=True)
    return total.item(), batch.logits.grad.clone(), metrics


def rollout_scope(batch, method):
    """Return extremes, here of the current statistics, as the trainer computes them for the old."""
    stats = type(batch.stats)(*(x.detach() for x in batch.stats))
    indicator = instability(stats, batch.advantages, batch.mask, method.shaping.mean)
    return scope_of(stats, indicator, batch.mask)


def by_theory(batch, method, scope):
    """Return the loss of a mini-batch by `theory` alone."""
    stats, mask = batch.stats, batch.mask
    advantages = batch.advantages
    fixed = type(stats)(*(x.detach() for x in stats))
    if isinstance(method.shaping, Modulation):
        xi = method.loss.update_coefficient(fixed.log_prob, batch.old, advantages)
        over = rollout_scope(batch, method) if scope == "rollout-batch" else None
        advantages = modulate(advantages, fixed, mask, method.shaping, coefficient=xi, scope=over).advantages
    elif isinstance(method.shaping, Calm):
        advantages = method.shaping.shape(advantages, fixed)
    elif isinstance(method.shaping, EntropyAdvantages):
        shaping = method.shaping
        advantages = entropy_advantages(advantages, fixed.entropy, alpha=shaping.alpha, kappa=shaping.kappa)
    found = policy_loss(
        method.loss,
        stats.log_prob,
        batch.old,
        advantages,
        mask,
        token_selection=method.token_selection,
        entropy=fixed.entropy,
        uniforms=batch.uniforms.to(advantages.dtype),
        importance=batch.importance,
    )
    return aggregate(found.values, found.mask, method.aggregation, prompts=torch.tensor(PROMPTS))


# A share of tokens that is not 0 in so small a batch.
CLIP_COV, KL_COV = METHODS["clip-cov"], METHODS["kl-cov"]
VARIANTS = {
    **{name: method for name, method in METHODS.items() if method.entropy_bonus is None},
    "clip-cov": replace(CLIP_COV, loss=replace(CLIP_COV.loss, ratio=0.3, covariance_low=-5.0)),
    "kl-cov": replace(KL_COV, loss=replace(KL_COV.loss, ratio=0.3)),
    "sequence-mean": replace(METHODS["dynamo"], aggregation="sequence-mean"),
    "prompt-mean": replace(METHODS["dynamo"], aggregation="prompt-mean"),
}
each_variant = pytest.mark.parametrize("name", [*VARIANTS, "own-parts"])


def variant(name):
    """Return a method of `VARIANTS`, or one whose loss and shaping are somebody's own."""
    if name == "own-parts":
        return replace(METHODS["grpo"], loss=register_loss(Likelihood)(), shaping=register_shaping(Calm)())
    return VARIANTS[name]


@pytest.mark.parametrize("scope", ["rollout-batch", "mini-batch"])
@each_variant
def test_every_method_is_theorys(name, scope):
    """Loss and gradient, with ratios that are clipped."""
    method, batch = variant(name), Batch(dtype=torch.float64)
    loss, gradient, _ = run(MethodLoss(method, actor(method), scope), batch, [range(len(LENGTHS))])
    expected = by_theory(batch, method, scope)
    batch.logits.grad = None
    expected.backward()
    # Statistics at scale are float32 or better; gradients see log-probabilities only, in float64.
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient, batch.logits.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("scope", ["rollout-batch", "mini-batch"])
@each_variant
def test_R6_packing_and_order_change_nothing(name, scope):
    method, batch = variant(name), Batch()
    loss = MethodLoss(method, actor(method), scope)
    expected, gradient, _ = run(loss, batch, [range(len(LENGTHS))])
    for parts in ([[i] for i in range(8)], [[7, 0, 3], [5], [1, 2, 4, 6]]):
        value, found, _ = run(loss, batch, parts)
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-7)
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-7)


LEVELS = {
    "token": {"rollout_is": "token"},
    "sequence": {"rollout_is": "sequence", "rollout_is_threshold": 1.3},
    "normalised": {"rollout_is": "token", "rollout_is_batch_normalize": True},
    "in a range": {"rollout_is": "token", "rollout_is_threshold": "0.8_1.3"},
}


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("cap", [1.3, 1e9])
def test_importance_weights_of_verl_are_theorys(level, cap):
    batch = Batch(dtype=torch.float64).sampled_elsewhere(rollout_is=level, rollout_is_threshold=cap)
    expected = importance_weights(batch.old, batch.rollout, batch.mask, level=level, cap=cap)
    torch.testing.assert_close(batch.importance, expected, rtol=1e-14, atol=0)
    assert (expected == cap).any() == (cap < 2)


@pytest.mark.parametrize("level", LEVELS)
@each_variant
def test_every_method_is_theorys_with_importance_weights(name, level):
    """Loss and gradient, packed as they come: selections, factors and means are those without weights."""
    method, batch = variant(name), Batch(dtype=torch.float64).sampled_elsewhere(**LEVELS[level])
    loss = MethodLoss(method, actor(method), "mini-batch")
    expected = by_theory(batch, method, "mini-batch")
    expected.backward(retain_graph=True)
    gradient = batch.logits.grad.clone()
    batch.importance, weights = None, batch.importance
    plain, _, alone = run(loss, batch, [range(8)])
    batch.importance = weights
    for parts in ([range(8)], [[7, 0, 3], [5], [1, 2, 4, 6]]):
        value, found, metrics = run(loss, batch, parts)
        assert value == pytest.approx(expected.item(), rel=1e-5)
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-8)
    assert value != pytest.approx(plain, rel=1e-3)
    told, own = numbers(metrics), batch.importance[batch.mask]
    for kind in ("mean", "min", "max"):
        assert told.pop(f"dynamo/importance_{kind}") == pytest.approx(float(getattr(own, kind)()), rel=1e-5), kind
    assert told == pytest.approx(numbers(alone), rel=1e-5)


@pytest.mark.parametrize("scope", ["rollout-batch", "mini-batch", "micro-batch"])
@each_variant
def test_importance_weights_of_one_change_no_bit(name, scope):
    method, batch, parts = variant(name), Batch(), [range(4), range(4, 8)]
    loss = MethodLoss(method, actor(method), scope)
    value, gradient, _ = run(loss, batch, parts)
    batch.importance = torch.ones(batch.mask.shape)
    weighted = run(loss, batch, parts)
    assert weighted[0] == value
    assert torch.equal(weighted[1], gradient)


@pytest.mark.parametrize("scope", ["rollout-batch", "mini-batch", "micro-batch"])
@each_variant
def test_theory_never_waits_for_the_device(name, scope):
    """Neither in the look ahead nor in the loss is a tensor of `theory` made a number."""
    method, batch = variant(name), Batch()
    waits = Waits()
    run(MethodLoss(method, actor(method), scope), batch, [range(4), range(4, 8)], during=lambda: waits)
    assert not waits.found


@pytest.mark.parametrize(
    ("fields", "ours"),
    [
        ({}, False),
        ({"aggregation": "sequence-mean"}, False),
        ({"aggregation": "prompt-mean"}, True),
        ({"allocator": "reinforce-ada"}, False),
        ({"allocator": "reinforce-ada", "aggregation": "sequence-mean"}, True),
        ({"loss": KL_COV.loss}, True),
    ],
    ids=str,
)
def test_weights_are_ours_where_verl_has_none_or_counts_padding(fields, ours):
    """A rule in rounds may leave budget, which becomes padding: verl's mean over sequences would count its rows."""
    assert weighs_itself(replace(METHODS["grpo"], **fields)) == ours


def test_micro_batch_scope_depends_on_packing():
    """As the public code does: that is what the other scopes are for."""
    method, batch = METHODS["dynamo"], Batch()
    loss = MethodLoss(method, actor(method), "micro-batch")
    one, several = (run(loss, batch, parts)[0] for parts in ([range(8)], [range(4), range(4, 8)]))
    assert one != pytest.approx(several, rel=1e-3)


def test_alpha_zero_is_verls_loss_to_the_bit():
    method = replace(METHODS["dynamo"], shaping=Modulation(alpha=0.0))
    batch = Batch()
    value, gradient, _ = run(MethodLoss(method, actor(method)), batch, [range(8)])
    expected, _ = ppo_loss(actor(method), batch.outputs(range(8)), batch.data(range(8)))
    batch.logits.grad = None
    expected.backward()
    assert value == expected.item()
    assert torch.equal(gradient, batch.logits.grad)


def test_factors_are_constants_for_the_gradient():
    """The gradient is that of the same loss with the shaped advantages given."""
    method, batch = METHODS["dynamo"], Batch()
    _, gradient, _ = run(MethodLoss(method, actor(method)), batch, [range(8)])
    fixed = type(batch.stats)(*(x.detach() for x in batch.stats))
    xi = method.loss.update_coefficient(fixed.log_prob, batch.old, batch.advantages)
    over = rollout_scope(batch, method)
    shaped = modulate(batch.advantages, fixed, batch.mask, method.shaping, coefficient=xi, scope=over).advantages
    assert not torch.equal(shaped, batch.advantages)
    batch.advantages = shaped
    expected, _ = ppo_loss(actor(method), batch.outputs(range(8)), batch.data(range(8)))
    batch.logits.grad = None
    expected.backward()
    torch.testing.assert_close(gradient, batch.logits.grad, rtol=1e-5, atol=1e-8)


def test_entropy_bonus_and_kl_are_verls():
    """Beside a loss of `theory` as beside verl's own: KL-Cov without its KL is the unclipped surrogate."""
    batch, totals = Batch(), []
    plain = replace(KL_COV, loss=replace(KL_COV.loss, coefficient=0.0))
    for method in (plain, replace(KL_COV, loss=ClippedSurrogate(clip_low=1.0, clip_high=1e9))):
        loss = MethodLoss(method, actor(method, entropy_coeff=0.01, use_kl_loss=True, kl_loss_coef=0.1))
        data = batch.data(range(8))
        data["ref_log_prob"] = batch.nested(batch.old * 1.1, LENGTHS)
        outputs = batch.outputs(range(8))
        outputs["entropy"] = outputs[STATISTICS[0]]
        if looks_ahead(method, loss.scope):
            loss.prepare({name: x.detach() for name, x in outputs.items()}, data, None)
        value, metrics = loss(outputs, data)
        totals.append(value.item())
        assert {"actor/entropy_loss", "kl_loss"} <= set(metrics)
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)


def test_metrics_are_exact_means_over_the_tokens_of_all_micro_batches():
    method, batch = METHODS["dynamo"], Batch()
    loss = MethodLoss(method, actor(method))
    means = []
    for parts in ([range(8)], [[i] for i in range(8)]):
        _, _, metrics = run(loss, batch, parts)
        means.append(sum(found["dynamo/compensation_mean"].aggregate() for found in metrics))
    assert means[0] == pytest.approx(means[1], rel=1e-6)
    assert means[0] > 1.0


@pytest.mark.parametrize("name", ["dynamo", "entropy-advantages", "fork-tokens"])
def test_only_modulated_micro_batches_are_dumped(name, tmp_path):
    method = METHODS[name]
    run(MethodLoss(method, actor(method), dump=str(tmp_path / "modulated")), Batch(), [range(4), range(4, 8)])
    assert len(list(tmp_path.glob("modulated/*.pt"))) == (2 if method.compares else 0)


def numbers(metrics):
    """Return what verl makes of our metrics of micro-batches: sums, least and largest."""
    by_name = {}
    for found in metrics:
        for name, x in found.items():
            if name.startswith("dynamo/"):
                by_name.setdefault(name, []).append(x)
    kinds = {"SUM": sum, "MIN": min, "MAX": max}
    return {
        name: kinds[parts[0].aggregation.name](float(part.aggregate()) for part in parts)
        for name, parts in by_name.items()
    }


@pytest.mark.parametrize("parts", [[range(8)], [[7, 0, 3], [5], [1, 2, 4, 6]]], ids=["whole", "in parts"])
def test_metrics_of_factors_are_over_tokens_alone(parts):
    method, batch = METHODS["dynamo"], Batch()
    _, _, metrics = run(MethodLoss(method, actor(method)), batch, parts)
    fixed = type(batch.stats)(*(x.detach() for x in batch.stats))
    xi = method.loss.update_coefficient(fixed.log_prob, batch.old, batch.advantages)
    over = rollout_scope(batch, method)
    factors = method.shaping.apply(batch.advantages, fixed, batch.mask, coefficient=xi, scope=over).factors
    found = numbers(metrics)
    for name, factor in factors.items():
        own = factor[batch.mask]
        expected = {"mean": own.mean(), "min": own.min(), "max": own.max()}
        assert expected["min"] < expected["mean"] < expected["max"]
        for kind, value in expected.items():
            assert found[f"dynamo/{name}_{kind}"] == pytest.approx(float(value), rel=1e-5), (name, kind)


@pytest.mark.parametrize("parts", [[range(8)], [[7, 0, 3], [5], [1, 2, 4, 6]]], ids=["whole", "in parts"])
@pytest.mark.parametrize("name", ["clip-cov", "kl-cov", "fork-tokens"])
def test_metrics_of_tokens_that_are_singled_out_are_shares(name, parts):
    method, batch = VARIANTS[name], Batch()
    selection = select_tokens(
        method.loss,
        batch.stats.log_prob.detach(),
        batch.old,
        batch.advantages,
        batch.mask,
        token_selection=method.token_selection,
        entropy=batch.stats.entropy.detach(),
        uniforms=batch.uniforms,
    )
    _, _, metrics = run(MethodLoss(method, actor(method)), batch, parts)
    found = numbers(metrics)
    for kind in ("counted", "targeted"):
        share = float((getattr(selection, kind) & batch.mask).sum()) / sum(LENGTHS)
        assert found[f"dynamo/{kind}"] == pytest.approx(share), kind
    assert found["dynamo/counted"] < 1 or found["dynamo/targeted"] > 0
    assert 0 <= found["dynamo/clipped"] <= 1


@each_variant
def test_losses_and_sums_are_scaled_for_the_mean_over_ranks(name):
    """Verl takes the mean over data-parallel ranks: a rank's part of two counts twice; extremes stay."""
    method, batch, found = variant(name), Batch(), {}
    loss = MethodLoss(method, actor(method))
    for ranks in (1, 2):
        data = batch.data(range(8))
        tu.assign_non_tensor(data, dp_size=ranks)
        if method.compares:
            tu.assign_non_tensor_data(data, SCOPE, rollout_scope(batch, method))
        outputs = batch.outputs(range(8))
        if looks_ahead(method, loss.scope):
            loss.prepare({name: x.detach() for name, x in outputs.items()}, data, None)
        value, metrics = loss(outputs, data)
        found[ranks] = value.item(), numbers([metrics])
    assert found[2][0] == pytest.approx(2 * found[1][0], rel=1e-6)
    for key, x in found[1][1].items():
        scale = 1 if key.endswith(("_min", "_max")) else 2
        assert found[2][1][key] == pytest.approx(scale * x, rel=1e-6), key


def prepared(method, batch, rows, group=None):
    """Return what `prepare` tells the tokens of some rows: the scope, and by row what counts and how much."""
    data = batch.data(rows)
    loss = MethodLoss(method, actor(method), "mini-batch")
    loss.prepare({name: x.detach() for name, x in batch.outputs(rows).items()}, data, group)
    scope = {name: float(x) for name, x in vars(tu.get(data, SCOPE)).items()} if method.compares else {}
    names = [name for name in (COUNTED, TARGETED, WEIGHTS) if name in data]
    return scope, {name: [row.tolist() for row in data[name].unbind()] for name in names}


COMPETING = {
    **{name: VARIANTS[name] for name in ("clip-cov", "kl-cov", "fork-tokens", "prompt-mean", "dynamo")},
    "prompts and tokens": replace(VARIANTS["fork-tokens"], aggregation="prompt-mean"),
    "all": replace(VARIANTS["dynamo"], loss=VARIANTS["kl-cov"].loss, aggregation="sequence-mean"),
}


@pytest.mark.parametrize("parts", [[[0, 1, 3], [2, 4, 5, 6, 7]], [[1], [0, 5], [6, 3, 2, 7], [4]]], ids=["2", "4"])
def test_ranks_share_a_mini_batch(parts):
    """Each row is told to the bit what it is told on one rank, whatever the rows' numbers and widths on the ranks."""
    batch, rows = Batch(), [i for part in parts for i in part]

    def on_rank(rank):
        group = torch.distributed.group.WORLD
        return {name: prepared(method, batch, parts[rank], group) for name, method in COMPETING.items()}

    found = on_ranks(on_rank, len(parts))
    for name, method in COMPETING.items():
        scope, told = prepared(method, batch, rows)
        assert [one[name][0] for one in found] == [scope] * len(parts)
        assert {key: [row for one in found for row in one[name][1][key]] for key in told} == told, name
        assert all(one[name][1].keys() == told.keys() for one in found)
        assert scope or told


def test_a_rank_of_padding_alone_shares_a_mini_batch():
    """It has rows and no token that counts."""
    batch, parts = Batch(), [[0, 1, 3], [2, 4]]
    batch.mask[[2, 4]] = False

    def on_rank(rank):
        return {name: prepared(x, batch, parts[rank], torch.distributed.group.WORLD) for name, x in COMPETING.items()}

    found = on_ranks(on_rank, 2)
    for name, method in COMPETING.items():
        scope, told = prepared(method, batch, parts[0])
        assert found[0][name] == (scope, told)
        assert found[1][name][0] == scope
        assert not any(any(row) for rows in found[1][name][1].values() for row in rows)
