"""verl's built-in Clip-Cov and KL-Cov beside those of `theory.losses`, on the same tensors.

Given the tokens that are singled out, loss and gradient are the same. Four things differ, each with a test below:

- scope: verl chooses tokens within a micro-batch, ours within the mini-batch (`scope="micro-batch"` is verl's);
- rounding: verl takes int(ratio * N) tokens in floating point, ours the exact floor;
- chance: verl draws by torch's global generator, ours by uniform numbers that belong to the tokens;
- defaults: verl's are other numbers than the authors' scripts, which ours are.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("verl")
import torch
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.workers.config import ActorConfig
from verl.workers.config.actor import PolicyLossConfig
from verl.workers.utils.losses import ppo_loss

from scale.plugin.loss import MethodLoss
from tests.scale.plugin import test_loss
from theory.losses import ClipCov, KlCov, Selection, aggregate, kl_cov_tokens, policy_loss, select_tokens
from theory.methods import METHODS

pytestmark = pytest.mark.needs_verl

LENGTHS = torch.tensor([9, 4, 12, 7, 1, 10, 12, 5])
MASK = torch.arange(12) < LENGTHS.unsqueeze(-1)
"""60 tokens."""


class Tokens:
    """Log-probabilities of two policies and advantages that are constant in a response, in float64."""

    def __init__(self, seed=0):
        draw = torch.Generator().manual_seed(seed)
        normal = lambda *size: torch.randn(size, generator=draw, dtype=torch.float64)  # noqa: E731
        self.log_prob = (-normal(*MASK.shape).abs() - 0.1).requires_grad_()
        # Some ratios are far outside every clip range.
        self.old = torch.clamp(self.log_prob.detach() + 0.5 * normal(*MASK.shape), max=0.0)
        self.advantages = normal(len(MASK), 1) * MASK
        self.uniforms = torch.rand(MASK.shape, generator=draw, dtype=torch.float64)

    def verl(self, mode, rows=slice(None), clip=1.0, **settings):
        """Return verl's loss of some rows, a share of all tokens' mean, and its gradient."""
        config = ActorConfig(
            strategy="fsdp2",
            rollout_n=8,
            use_dynamic_bsz=True,
            clip_ratio_low=clip,
            clip_ratio_high=clip,
            policy_loss=PolicyLossConfig(loss_mode=mode, **settings),
        )
        config.global_batch_info["batch_num_tokens"] = int(MASK.sum())
        parts = (x[rows] for x in (self.old, self.log_prob, self.advantages, MASK))
        value, _ = get_policy_loss_fn(mode)(*parts, config=config)
        return value.item(), torch.autograd.grad(value, self.log_prob)[0]

    def select(self, loss, rows=slice(None)):
        """Return what `theory` singles out of some rows."""
        parts = (x[rows] for x in (self.log_prob.detach(), self.old, self.advantages, MASK))
        return select_tokens(loss, *parts, uniforms=self.uniforms[rows]).targeted

    def theory(self, loss, targeted):
        """Return the loss of `theory` with given tokens singled out, and its gradient."""
        parts = (self.log_prob, self.old, self.advantages, MASK)
        found = policy_loss(loss, *parts, selection=Selection(MASK, targeted))
        value = aggregate(found.values, found.mask, "token-mean")
        return value.item(), torch.autograd.grad(value, self.log_prob)[0]


def same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-12)
    torch.testing.assert_close(one[1], other[1], rtol=1e-12, atol=1e-15)


BAND = {"clip_cov_lb": -0.3, "clip_cov_ub": 0.9}
CLIP_COV = ClipCov(ratio=1.0, covariance_low=-0.3, covariance_high=0.9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("clip", [1.0, 0.2])
def test_clip_cov_of_all_candidates_is_verls(seed, clip):
    """With as many tokens as there are candidates nothing is drawn: the band, and what PPO has clipped, are alike."""
    tokens = Tokens(seed)
    loss = replace(CLIP_COV, clip_low=clip, clip_high=clip)
    targeted = tokens.select(loss)
    assert 5 < targeted.sum() < 60
    same(tokens.verl("clip_cov", clip=clip, clip_cov_ratio=1.0, **BAND), tokens.theory(loss, targeted))


def test_clip_cov_draws_as_verl_does():
    """As many of the same candidates, every one as often: 5 standard errors of 2,000 draws; then losses are equal."""
    tokens, num_draws, ratio = Tokens(), 2000, 0.1
    candidates = tokens.select(CLIP_COV)
    loss = replace(CLIP_COV, ratio=ratio)
    draw = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    ours, verls = torch.zeros(MASK.shape), torch.zeros(MASK.shape)
    for number in range(num_draws):
        value, gradient = tokens.verl("clip_cov", clip_cov_ratio=ratio, **BAND)
        taken = candidates & (gradient == 0)
        tokens.uniforms = torch.rand(MASK.shape, generator=draw, dtype=torch.float64)
        mine = tokens.select(loss)
        assert taken.sum() == mine.sum() == 6
        assert not (mine & ~candidates).any()
        if number < 20:
            same((value, gradient), tokens.theory(loss, taken))
        ours, verls = ours + mine, verls + taken
    p = 6 / int(candidates.sum())
    error = 5 * (p * (1 - p) / num_draws) ** 0.5
    for counts in (ours, verls):
        assert (counts[candidates] / num_draws - p).abs().max() < error


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ratio", [0.001, 0.05, 0.5])
def test_kl_cov_is_verls(seed, ratio):
    """At least one token, the largest signed covariances, no clip, beta |log r|."""
    tokens, loss = Tokens(seed), KlCov(ratio=ratio, coefficient=0.7)
    targeted = tokens.select(loss)
    assert targeted.sum() == max(1, int(60 * ratio))
    same(tokens.verl("kl_cov", kl_cov_ratio=ratio, ppo_kl_coef=0.7), tokens.theory(loss, targeted))


# What differs


def test_scope():
    """A part at a time, `theory` does as verl does; over the whole, tokens are chosen by what they are.

    The advantage of a response alone is constant, and its covariances are 0: verl then takes no token for Clip-Cov, and
    for KL-Cov one of each response, by rounding.
    """
    tokens, kl = Tokens(), KlCov(ratio=0.05, coefficient=0.7)
    clip = replace(CLIP_COV, covariance_low=0.1)

    def summed(parts, mode, **settings):
        found = [tokens.verl(mode, rows, **settings) for rows in parts]
        return sum(x for x, _ in found), sum(x for _, x in found)

    pairs, alone = [[i, i + 1] for i in range(0, 8, 2)], [[i] for i in range(8)]
    band = {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.1, "clip_cov_ub": 0.9}
    for mode, loss, settings in (
        ("clip_cov", clip, band),
        ("kl_cov", kl, {"kl_cov_ratio": 0.05, "ppo_kl_coef": 0.7}),
    ):
        in_parts = torch.cat([tokens.select(loss, rows) for rows in pairs])
        assert not torch.equal(in_parts, tokens.select(loss))
        same(summed(pairs, mode, **settings), tokens.theory(loss, in_parts))
    same(summed(alone, "clip_cov", **band), tokens.theory(clip, torch.zeros_like(MASK)))
    assert tokens.select(clip).sum() > 5
    assert (sum(tokens.select(kl, rows).sum() for rows in alone), tokens.select(kl).sum()) == (8, 3)


def test_rounding():
    """0.29 of 100 is 29; in floating point it is a little less, and verl takes 28."""
    assert int(100 * 0.29) == 28
    assert kl_cov_tokens(torch.arange(100.0, dtype=torch.float64), torch.full((100,), True), ratio=0.29).sum() == 29


def test_defaults():
    """Of verl its yaml's; ours those of the authors' scripts for 7B (arXiv 2505.22617)."""
    verls, clips = PolicyLossConfig(), ActorConfig(strategy="fsdp2", rollout_n=8, use_dynamic_bsz=True)
    assert (verls.clip_cov_ratio, verls.clip_cov_lb, verls.clip_cov_ub) == (2e-4, 1.0, 5.0)
    assert METHODS["clip-cov"].loss == ClipCov(2e-4, 1.0, 5.0, clip_low=1.0, clip_high=1.0)
    assert (clips.clip_ratio_low, clips.clip_ratio_high) == (0.2, 0.2)
    assert (verls.kl_cov_ratio, verls.ppo_kl_coef) == (2e-4, 0.1)
    assert METHODS["kl-cov"].loss == KlCov(ratio=2e-3, coefficient=1.0)


# Inside verl's step


@pytest.mark.parametrize("level", [None, *test_loss.LEVELS])
def test_kl_cov_of_a_micro_batch_in_the_trainers_loss_is_verls(level):
    """`MethodLoss` beside verl's `ppo_loss` with its built-in loss, on verl's nested tensors."""
    batch, rows = test_loss.Batch(dtype=torch.float64), range(len(test_loss.LENGTHS))
    if level is not None:
        batch.sampled_elsewhere(**test_loss.LEVELS[level])
    method = replace(METHODS["kl-cov"], loss=KlCov(ratio=0.3, coefficient=0.7))
    ours = test_loss.run(MethodLoss(method, test_loss.actor(method), "micro-batch"), batch, [rows])
    config = test_loss.actor(
        method, policy_loss=PolicyLossConfig(loss_mode="kl_cov", kl_cov_ratio=0.3, ppo_kl_coef=0.7)
    )
    value, _ = ppo_loss(config, batch.outputs(rows), batch.data(rows))
    batch.logits.grad = None
    value.backward()
    assert ours[0] == pytest.approx(value.item(), rel=1e-6)
    torch.testing.assert_close(ours[1], batch.logits.grad, rtol=1e-5, atol=1e-9)
