"""Section 4.3: gradient compensation and update stabilisation (rows M1 to M8)."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from scipy import stats as statistics

from theory.base.arrays import BoolArray, FloatArray
from theory.claims.entropy_change import sampled_statistics
from theory.claims.gradient_norm import one_large
from theory.claims.ledger import ROUNDING, Finding, Verdict, by_column, claim
from theory.estimators import advantages
from theory.losses import Modulation, Scope, modulate, modulation, scope_of
from theory.policy import TokenStatistics, entropy_change, softmax, token_statistics


def sample_batch(
    rng: np.random.Generator, num_responses: int, length: int, num_tokens: int = 64
) -> tuple[FloatArray, TokenStatistics, BoolArray]:
    """Advantages, statistics and mask of on-policy responses, [num_responses, length].

    Groups of 8 responses share a success rate from Beta(1, 1); every token has its own policy, with normal logits of a
    scale from 0.3 to 10.
    """
    scale = 10 ** rng.uniform(-0.5, 1, size=(num_responses, length, 1))
    stats = sampled_statistics(rng, rng.normal(size=(num_responses, length, num_tokens)) * scale)
    groups = np.arange(num_responses) // 8
    rewards = (rng.random(num_responses) < rng.random(groups[-1] + 1)[groups]).astype(np.float64)
    advantage = np.repeat(advantages.grpo(rewards, groups)[:, None], length, axis=1)
    return advantage, stats, np.ones(advantage.shape, dtype=np.bool_)


@claim(
    "M1", "1 <= beta_comp <= 1 + alpha and 1 - alpha <= beta_stab <= 1, and no sign changes", "eq. 8-14", Verdict.EXACT
)
def ranges() -> Finding:
    """Look for a factor outside its range over random batches and settings."""
    rng = np.random.default_rng(31)
    outside, flips, reached = 0.0, 0, []
    for _ in range(60):
        advantage, stats, mask = sample_batch(rng, 16, 12)
        alpha = float(rng.uniform(0, 1))
        result = modulate(
            advantage, stats, mask, Modulation(alpha, float(rng.uniform(1, 100)), float(rng.uniform(0, 1)))
        )
        comp, stab = result.compensation, result.stabilization
        excess = (1 - comp, comp - 1 - alpha, 1 - alpha - stab, stab - 1)
        outside = max(outside, *(float(x.max()) for x in excess))
        flips += int(np.sum(np.sign(result.advantages) != np.sign(advantage)))
        reached.append(float(comp.max() - 1) / alpha)
    return Finding(
        Verdict.EXACT if outside < ROUNDING and flips == 0 else Verdict.FAILS,
        f"no factor outside by more than {max(outside, 0):.0e} and no sign change in 60 batches; the largest compensation "
        f"comes to {np.median(reached):.0%} of alpha in the median batch",
        {"outside": outside, "flips": flips},
    )


@claim("M2", "Compensation falls with entropy; stabilisation falls with the entropy change", "eq. 9, 13", Verdict.EXACT)
def monotonicity() -> Finding:
    """Follow both factors along a grid from one extreme of the batch to the other."""
    grid = np.linspace(0, 1, 1001)
    scope = Scope(0.0, 1.0, 1.0)
    comp = modulation.compensation(grid, np.ones(1001), 0.4, scope)
    negative = modulation.compensation(grid, -np.ones(1001), 0.4, scope)
    stab = modulation.stabilization(grid, 0.4, 50.0, 0.9, scope)
    monotone = bool(np.all(np.diff(comp) < 0) and np.all(np.diff(stab) <= 0) and np.ptp(stab) > 0.3)
    bypassed = float(np.abs(negative - 1).max())
    middle = float(grid[np.argmin(np.abs(stab - 0.8))])
    return Finding(
        Verdict.EXACT if monotone and bypassed == 0 and comp[-1] == 1 else Verdict.FAILS,
        f"monotone on 1,001 points; negative advantages are not compensated; half of the stabilisation sets in at "
        f"{middle:.2f} of the largest Xi, and at the largest the factor is {stab[-1]:.4f}, not quite 1 - alpha = .6",
        {"bypassed": bypassed, "half": middle, "least": float(stab[-1])},
    )


@claim("M3", "alpha = 0 is GRPO", "eq. 8-14", Verdict.EXACT)
def neutral() -> Finding:
    """Compare advantages bit for bit."""
    rng = np.random.default_rng(33)
    different = 0
    for _ in range(20):
        advantage, stats, mask = sample_batch(rng, 16, 12)
        different += int(np.sum(modulate(advantage, stats, mask, Modulation(0.0)).advantages != advantage))
    return Finding(
        Verdict.EXACT if different == 0 else Verdict.FAILS,
        f"{different} of {20 * 16 * 12:,} advantages differ in any bit",
        {"different": different},
    )


def _expected_gradient(probs: FloatArray, group_size: int, setting: Modulation) -> FloatArray:
    """Exact mean of the modulated RLOO gradient over every batch of one group per prompt; the last answer is correct.

    Batches are enumerated, and each is modulated with its own extremes. `probs` is [N, K]; returns [N, K].
    """
    num_prompts, num_answers = probs.shape
    groups = np.array(list(product(range(num_answers), repeat=group_size)))
    gradient = np.zeros_like(probs)
    keys = np.zeros(group_size, dtype=np.int64)
    advantage = [advantages.rloo((group == num_answers - 1).astype(np.float64), keys) for group in groups]
    mask = np.ones((num_prompts, group_size), dtype=np.bool_)
    for choice in product(range(len(groups)), repeat=num_prompts):
        actions = groups[list(choice)]
        chance = np.prod(np.take_along_axis(probs, actions, axis=1))
        logits = np.repeat(np.log(probs)[:, None], group_size, axis=1)
        weight = modulate(
            np.stack([advantage[i] for i in choice]), token_statistics(logits, actions), mask, setting
        ).advantages
        score = np.eye(num_answers)[actions] - probs[:, None]
        gradient += chance * (weight[..., None] * score).mean(1)
    return gradient


@claim("M4", "The modulated estimator stays unbiased", "review of the paper, rebuttal", Verdict.FAILS)
def bias() -> Finding:
    """Enumerate all batches of two prompts (K = 3, n = 3, RLOO, which is unbiased) over alpha and both mechanisms.

    In a batch of six tokens every other token is near the maximum, so that stabilisation acts more than in large ones
    (M6); compensation does not depend on the size of the batch in this way.
    """
    probs = np.array([[0.6, 0.3, 0.1], [0.05, 0.05, 0.9]])
    success = probs[:, -1]
    truth = success[:, None] * (np.eye(3)[-1] - probs)
    rows = []
    for kind, (comp, stab) in {"both": (1, 1), "compensation": (1, 0), "stabilisation": (0, 1)}.items():
        for alpha in (0.0, 0.2, 0.4, 0.8):
            mean = _expected_gradient(probs, 3, Modulation(alpha_comp=alpha * comp, alpha_stab=alpha * stab))
            relative = np.linalg.norm(mean - truth) / np.linalg.norm(truth)
            cosine = float(np.sum(mean * truth) / np.linalg.norm(mean) / np.linalg.norm(truth))
            rows.append((kind, alpha, float(relative), cosine))
    data = by_column(("mechanism", "alpha", "relative_bias", "cosine"), rows)
    biased = {
        kind: float(data["relative_bias"][(data["mechanism"] == kind) & (data["alpha"] == 0.4)][0])
        for kind in data["mechanism"]
    }
    unmodulated = float(data["relative_bias"][data["alpha"] == 0].max())
    worst = float(data["cosine"].min())
    unbiased = Verdict.EXACT if max(biased.values()) < ROUNDING else Verdict.FAILS
    return Finding(
        unbiased if unmodulated < ROUNDING else Verdict.UNDECIDED,
        f"without modulation the bias is {unmodulated:.0e}; at alpha = .4 it is {biased['both']:.1%} of the gradient "
        f"({biased['compensation']:.1%} by compensation, {biased['stabilisation']:.1%} by stabilisation). Mostly a change "
        f"of scale: the cosine to the true gradient stays above {worst:.3f}",
        {"unmodulated": unmodulated, **biased, "cosine": worst},
        f"pi = (.6, .3, .1) and (.05, .05, .9), the last answer correct, n = 3: relative bias {biased['both']:.3f}",
        data,
    )


@claim("M5", "Compensation offsets the attenuation of confident correct tokens", "4.3.1", Verdict.FAILS)
def offset() -> Finding:
    """Compare the factor with the one that would restore the score norm of the least confident token.

    Binary tokens (V = 2) of a batch whose probabilities run from .5 to .999, and V = 64 with equal others.
    """
    rows: list[tuple[Any, ...]] = []
    for num_tokens in (2, 64):
        probability = np.linspace(1 / num_tokens + 1e-6, 0.999, 500)
        logits = np.stack([one_large(p, num_tokens) for p in probability])
        stats = token_statistics(logits, np.zeros(500, dtype=np.int64))
        norm = np.sqrt(softmax.score_norm_squared(stats))
        scope = Scope(float(stats.entropy.min()), float(stats.entropy.max()), 0.0)
        factor = modulation.compensation(stats.entropy, np.ones(500), 0.4, scope)
        rows += [(num_tokens, *row) for row in zip(probability, norm, factor, norm[0] / norm, strict=True)]
    data = by_column(("num_tokens", "probability", "norm", "factor", "required"), rows)
    confident = data["required"] > 1.01
    restored = np.log(data["factor"][confident]) / np.log(data["required"][confident])
    chosen = int(np.argmin(np.abs(data["probability"] - 0.99) + (data["num_tokens"] != 2)))
    required, factor_given = (float(data[name][chosen]) for name in ("required", "factor"))
    # The score of a binary token has length sqrt(2) (1 - pi).
    binary = data["num_tokens"] == 2
    consistent = np.allclose(data["norm"][binary], np.sqrt(2) * (1 - data["probability"][binary]), rtol=1e-9)
    confirmed = Verdict.EXACT if restored.min() > 0.99 else Verdict.CONDITIONAL
    judged = confirmed if restored.max() > 0.5 else Verdict.FAILS
    return Finding(
        judged if consistent else Verdict.UNDECIDED,
        f"a correct binary token at pi = .99 has a score {required:.0f} times shorter than one at .5, and is "
        f"raised by a factor {factor_given:.2f}; no token of the batch gets more than {restored.max():.0%} of its "
        f"attenuation back (in logarithms; median {np.median(restored):.0%}), since the factor is bounded and the attenuation is not",
        {"required": required, "factor": factor_given, "most": float(restored.max())},
        f"pi = .99: required factor {required:.0f}, given {factor_given:.2f}",
        data,
    )


@claim("M6", "Stabilisation removes update spikes", "4.3.2, Fig. 5", Verdict.CONDITIONAL)
def spikes() -> Finding:
    """Measure the second moment and the tail of |A beta s| with stabilisation alone, over batches of growing size.

    A spike counts as removed if the largest of a batch falls by 10 % or more in every batch size: of the update norm
    |A s|, and of the entropy change that the mechanism watches.
    """
    rng = np.random.default_rng(36)
    rows, errors = [], []
    settings = {"paper": Modulation(alpha_comp=0.0), "script": Modulation(0.0, 50.0, 0.99, alpha_stab=0.4)}
    for num_responses, (name, setting) in product((16, 64, 256, 1024), settings.items()):
        measured = []
        for _ in range(max(16, 512 // num_responses)):
            advantage, stats, mask = sample_batch(rng, num_responses, 8)
            if not advantage.any():  # every group of a small batch may be all right or all wrong
                continue
            factor = modulate(advantage, stats, mask, setting).stabilization
            norm = np.abs(advantage) * np.sqrt(softmax.score_norm_squared(stats))
            entropy = np.abs(entropy_change.first_order(stats, advantage))
            measured.append(
                (
                    np.mean(factor < 0.95),
                    np.mean((factor * norm) ** 2) / np.mean(norm**2),
                    np.max(factor * norm) / np.max(norm),
                    np.max(factor * entropy) / np.max(entropy),
                )
            )
        rows.append((name, num_responses * 8, *np.mean(measured, axis=0)))
        errors.append(float(np.max(np.std(measured, axis=0, ddof=1)) / np.sqrt(len(measured))))
    data = by_column(
        ("setting", "num_tokens", "share_stabilised", "second_moment", "largest_update", "largest_entropy_change"), rows
    )
    ours = data["setting"] == "paper"
    first, last = (data["share_stabilised"][ours][i] for i in (0, -1))
    update, moment, entropy = (
        data[name][ours] for name in ("largest_update", "second_moment", "largest_entropy_change")
    )
    return Finding(
        (Verdict.EXACT if update.max() <= 0.9 else Verdict.CONDITIONAL) if entropy.max() <= 0.9 else Verdict.FAILS,
        f"true of the largest entropy change of a batch ({entropy[-1]:.2f} times), as built; false of the largest update norm, which falls to "
        f"{update[0]:.2f} times ({update[-1]:.2f} in the largest batch), and its second moment {moment[0]:.3f} to {moment[-1]:.4f} times. "
        f"Since tokens are compared with the batch's maximum, {first:.2%} of the tokens of a small batch are damped and {last:.3%} of a large one (means of 16 batches or more, standard errors "
        f"up to {max(errors):.2f})",
        {"largest_update": float(update.max()), "second_moment": float(moment.max()), "share": float(last)},
        f"a batch of {int(data['num_tokens'][ours][-1]):,} tokens: the largest |A s| keeps {update[-1]:.0%} of its length",
        data,
    )


@claim(
    "M7",
    "Normalisers per micro-batch, as in the public code, give the factors of the batch",
    "4.3.1, public code",
    Verdict.FAILS,
)
def packing() -> Finding:
    """Modulate the same tokens whole, in micro-batches with their own extremes, and in micro-batches with the batch's."""
    rng = np.random.default_rng(37)
    advantage, stats, mask = sample_batch(rng, 64, 32)
    setting = Modulation()
    whole = modulate(advantage, stats, mask, setting)
    indicator = modulation.instability(stats, advantage, mask)
    merged = Scope.merge([scope_of(stats, indicator, mask)])
    rows = []
    for size in (1, 2, 4, 8, 16, 32, 64):
        own, shared = [], []
        for start in range(0, 64, size):
            part = slice(start, start + size)
            piece = (advantage[part], TokenStatistics(*(x[part] for x in stats)), mask[part], setting)
            own.append(modulate(*piece).advantages)
            shared.append(modulate(*piece, scope=merged).advantages)
        for name, parts in (("micro-batch", own), ("batch", shared)):
            # Where A = 0 there is nothing to compare.
            active = advantage != 0
            change = np.abs(np.concatenate(parts)[active] / whole.advantages[active] - 1)
            rows.append((name, size, float(change.max()), float(change.mean())))
    data = by_column(("scope", "responses", "largest_change", "mean_change"), rows)
    smaller = (data["scope"] == "micro-batch") & (data["responses"] < 64)
    own_change, mean_change = data["largest_change"][smaller], data["mean_change"][smaller]
    shared_change = float(data["largest_change"][data["scope"] == "batch"].max())
    same = Verdict.EXACT if own_change.max() == 0 else Verdict.FAILS
    return Finding(
        same if shared_change == 0 else Verdict.UNDECIDED,
        f"the same 2,048 tokens in micro-batches of 1 to 32 responses: weights change by up to {own_change.max():.0%} (mean "
        f"{mean_change.min():.1%} to {mean_change.max():.1%}), so that they depend on packing and hardware; with the batch's "
        f"extremes handed to each micro-batch they are the same to the bit",
        {"micro_batch": float(own_change.max()), "batch": shared_change},
        f"micro-batches of one response: a weight changes by {own_change[0]:.0%}",
        data,
    )


@claim("M8", "A large entropy change indicates an excessive update magnitude", "4.3.2", Verdict.CONDITIONAL)
def indicator_of_magnitude() -> Finding:
    """Correlate Xi with the length |A s| of the update over tokens; judge the uniform policy by itself."""
    rng = np.random.default_rng(38)
    uniform = token_statistics(np.zeros((1, 64)), np.array([0]))
    norm = float(np.sqrt(softmax.score_norm_squared(uniform)[0]))
    change = float(np.abs(entropy_change.first_order(uniform, np.ones(1))[0]))
    rows = []
    for _ in range(8):
        advantage, stats, mask = sample_batch(rng, 64, 8)
        active = advantage != 0
        length = (np.abs(advantage) * np.sqrt(softmax.score_norm_squared(stats)))[active]
        rows.append((modulation.instability(stats, advantage, mask)[active], length, stats.entropy[active]))
    indicator, length, entropy = (np.concatenate(column) for column in zip(*rows, strict=True))
    parts = (entropy < np.quantile(entropy, 1 / 3), entropy > np.quantile(entropy, 2 / 3), entropy > -np.inf)
    *ranks, rank = (float(statistics.spearmanr(indicator[part], length[part]).statistic) for part in parts)
    top = max(1, len(length) // 100)
    shared = len(set(np.argsort(indicator)[-top:]) & set(np.argsort(length)[-top:])) / top
    conditional = Verdict.CONDITIONAL if (norm > 0.9 and change < 1e-9) or rank < 0.9 else Verdict.EXACT
    return Finding(
        conditional if max(ranks) > 0.5 else Verdict.FAILS,
        f"rank correlation {ranks[0]:.2f} in the third of the tokens with the lowest entropy, {ranks[1]:.2f} in the third "
        f"with the highest, {rank:.2f} over all; {shared:.0%} of the 1 % longest updates are among the 1 % largest Xi",
        {"rank": rank, "rank_low_entropy": ranks[0], "rank_high_entropy": ranks[1], "top_shared": shared},
        f"the uniform policy over 64 tokens: |s| = {norm:.3f}, close to the longest mean there is, and Xi = {change:.0e}",
        {"indicator": indicator, "update": length, "entropy": entropy},
    )
