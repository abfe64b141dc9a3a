"""Section 4.2 and Appendix C: effects of allocation on an estimator, by exact moments of groups (A6 to A8, A10)."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from scipy import stats as statistics

from theory.base.arrays import BoolArray, FloatArray
from theory.claims.allocation import HIGH, LOW, MEAN
from theory.claims.ledger import ROUNDING, Author, Finding, Verdict, by_column, claim
from theory.estimators import moments
from theory.policy import softmax, token_statistics


def answer_policy(population: str, p: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Answer probabilities [N, K] of prompts with success rates `p` [N], and the correct answers [N, K].

    `binary`: one right and one wrong answer. `peaked`: one right answer, wrong ones of mass 1/2, 1/4, 1/8, ...
    `diffuse`: 128 right and 128 wrong answers of equal mass on each side.
    """
    weights = {
        "binary": (np.ones(1), np.ones(1)),
        "peaked": (np.ones(1), 0.5 ** np.minimum(np.arange(1, 8), 6)),
        "diffuse": (np.ones(128), np.ones(128)),
    }[population]
    correct_shares, wrong_shares = (each / each.sum() for each in weights)
    probs = np.concatenate([p[:, None] * correct_shares, (1 - p)[:, None] * wrong_shares], axis=1)
    return probs, np.broadcast_to(np.arange(probs.shape[1]) < len(correct_shares), probs.shape)


STEADY = 0.15
"""Limit of this project in rows A6 and A8: two things are about equal if they differ by less than 15 %."""

FAR = 0.5
"""Limit of this project in row A8: two things are not about equal if they differ by more than half."""

GROUPS = "groups of one prompt, binary reward, on-policy, no clipping; answers of one token"
"""What the exact moments of this module assume."""


@claim(
    "A6",
    "The gradient estimator of n rollouts, with the group-normalised advantage, has variance sigma^2 / n",
    "App. C",
    Verdict.CONDITIONAL,
    regime=f"{GROUPS}; n from {LOW} to {HIGH}, p from .01 to .99; binary, peaked and diffuse answers; n Var within {STEADY:.0%} over n counts as "
    "constant, a limit of ours",
)
def variance_over_n() -> Finding:
    """Follow n Var(g) over n, which is constant if the claim holds: in the paper's range for three policies, and beyond.

    The curves beyond it (n = 2 to 128) are of a peaked policy.
    """
    p = np.round(np.linspace(0.01, 0.99, 99), 2)
    within = np.arange(LOW, HIGH + 1)
    estimators = ("reinforce", "rloo", "dr_grpo", "grpo")
    change = {}
    for population, estimator in product(("binary", "peaked", "diffuse"), estimators):
        probs, correct = answer_policy(population, p)
        scaled = within * moments.gradient_moments(probs[:, None], correct[:, None], within, estimator).variance
        change[population, estimator] = scaled.max(axis=1) / scaled.min(axis=1) - 1
    worst = {cell: float(values.max()) for cell, values in change.items()}
    steady = p[change["diffuse", "grpo"] < STEADY]
    sizes = np.array([2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128])
    rows: list[tuple[Any, ...]] = []
    for rate, estimator in product((0.005, 0.02, 0.1, 0.5), estimators):
        probs, correct = answer_policy("peaked", np.array([rate]))
        variance = moments.gradient_moments(probs, correct, sizes, estimator).variance
        rows += [(rate, estimator, *row) for row in zip(sizes, variance, strict=True)]
    data = by_column(("p", "estimator", "num_rollouts", "variance"), rows)
    rare = data["variance"][(data["p"] == 0.005) & (data["estimator"] == "grpo")]
    peak = int(sizes[np.argmax(rare)])
    exact = max(worst[population, "reinforce"] for population in ("binary", "peaked", "diffuse"))
    near, far = worst["diffuse", "rloo"], worst["diffuse", "grpo"]
    verdict = Verdict.CONDITIONAL if near < STEADY < far else Verdict.APPROXIMATE if far < STEADY else Verdict.FAILS

    def cited(estimator: str) -> str:
        return ", ".join(f"{worst[population, estimator]:.0%}" for population in ("diffuse", "peaked", "binary"))

    return Finding(
        verdict if exact < ROUNDING else Verdict.UNDECIDED,
        f"exact for REINFORCE (and any fixed baseline); for GRPO alone, whose advantage the claim names, about true over a part of p only. Largest over smallest n Var, less one, over n = {LOW} to {HIGH} at the worst p, "
        f"diffuse, peaked and two answers: {cited('rloo')} for RLOO, {cited('grpo')} for GRPO. With diffuse answers RLOO's is "
        f"{change['diffuse', 'rloo'].min():.1%} to {near:.1%} at every p; GRPO's is below 15 % for p from {steady.min():g} to "
        f"{steady.max():g} only: at small p its variance grows with n (p = .005, peaked: up to n = {peak}, "
        f"{rare.max() / rare[0]:.1f} times that of n = 2)",
        {
            **{f"{population}_{estimator}": value for (population, estimator), value in worst.items()},
            "steady_from": float(steady.min(initial=1.0)),
            "steady_to": float(steady.max(initial=0.0)),
            "peak": peak,
            "growth": float(rare.max() / rare[0]),
        },
        f"GRPO, peaked, p = .005: Var = {rare[0]:.4f} at n = 2 and {rare[sizes == 16][0]:.4f} at n = 16",
        data,
    )


@claim(
    "A7",
    "p (1 - p) is a proxy for sigma: it orders the gradient variance of prompts",
    "4.2.2, App. C",
    Verdict.CONDITIONAL,
    regime=f"{GROUPS}, or chains whose tokens have logits of their own; trace of the covariance at n = {MEAN}, p known",
)
def proxy_order() -> Finding:
    """Rank-correlate p (1 - p) with the exact variance at n = 16, per estimator and population, over p in (0, 1).

    Also for chains: one token of two decides, and L fair coins follow, with L the same or crossed with p.
    """
    p = np.linspace(0.02, 0.98, 49)
    rows: list[tuple[Any, ...]] = []
    ranks: dict[tuple[str, str], float] = {}
    for population, estimator in product(
        ("binary", "peaked", "diffuse"), ("reinforce", "rloo", "dr_grpo", "grpo", "maxrl")
    ):
        probs, correct = answer_policy(population, p)
        variance = moments.gradient_moments(probs, correct, MEAN, estimator).variance
        # Rounded, so that p and 1 - p tie where they should.
        ranks[population, estimator] = float(
            statistics.spearmanr(np.round(p * (1 - p), 12), np.round(variance, 14)).statistic
        )
        rows += [(population, estimator, *row) for row in zip(p, p * (1 - p), variance, strict=True)]
    data = by_column(("population", "estimator", "p", "proxy", "variance"), rows)
    for estimator, (name, lengths) in product(
        ("rloo", "grpo"), (("equal", (64,)), ("long", (256,)), ("mixed", (4, 8, 16, 32, 64)))
    ):
        chains = np.stack([_chain_variance(p, length, estimator) for length in lengths])
        proxy = np.broadcast_to(p * (1 - p), chains.shape)
        ranks[f"chain_{name}", estimator] = float(
            statistics.spearmanr(np.round(proxy, 12).ravel(), np.round(chains, 12).ravel()).statistic
        )
    binary = [float(moments.gradient_moments([x, 1 - x], [True, False], MEAN, "rloo").variance) for x in (0.1, 0.5)]
    diffuse = ranks["diffuse", "rloo"]
    conditional = Verdict.CONDITIONAL if ranks["binary", "rloo"] < 0 else Verdict.EXACT
    return Finding(
        conditional if diffuse > 0.9 else Verdict.FAILS,
        f"rank correlation for RLOO: {diffuse:+.2f} with diffuse answers, {ranks['peaked', 'rloo']:+.2f} with peaked ones, "
        f"{ranks['binary', 'rloo']:+.2f} with two; for GRPO (std-normalised) {ranks['diffuse', 'grpo']:+.2f}, {ranks['peaked', 'grpo']:+.2f}, "
        f"{ranks['binary', 'grpo']:+.2f}. Chains of one deciding token and 64 others: RLOO {ranks['chain_equal', 'rloo']:+.2f}, "
        f"GRPO {ranks['chain_equal', 'grpo']:+.2f}; of 256 others {ranks['chain_long', 'rloo']:+.3f} and {ranks['chain_long', 'grpo']:+.3f}; with 4 to 64 others, whatever p: {ranks['chain_mixed', 'rloo']:+.2f} and "
        f"{ranks['chain_mixed', 'grpo']:+.2f}, since the variance follows the length as well",
        {f"{population}_{estimator}": value for (population, estimator), value in ranks.items()},
        f"two answers, RLOO, n = 16: Var = {binary[1]:.4f} at p = .5, where p (1 - p) is largest, and {binary[0]:.4f} at p = .1",
        data,
    )


def _chain_variance(p: FloatArray, length: int, estimator: str) -> FloatArray:
    """Trace variance of a group of 16 chains, of which a first token of two decides and `length` fair coins follow.

    Each token has logits of its own and adds its score: v_C = v_W = length / 2, and d is the first token's, |d|^2 = 2.
    """
    terms = moments.group_coefficients(p, MEAN, estimator)
    return (terms.correct + terms.wrong) * length / 2 + terms.mean_variance * 2


@claim(
    "A8",
    "sigma^2 correlates positively with reward variance and squared score (39); it is about their product (38), the squared score being "
    "the sum of 1 - C over tokens (41), or an increasing function of entropy (42)",
    "App. C, eq. 38-42",
    Verdict.CONDITIONAL,
    regime="one rollout, exact baseline p, binary reward, and groups of 16 under GRPO for (39); random softmax bandits of 2 to 256 answers; "
    "chains of 1 to 3 tokens, 3 options each, with logits for every prefix or shared by all positions",
)
def product_form() -> Finding:
    """Compare sigma^2 of one rollout with p (1 - p) (1 - C) and with p (1 - p) H, over random softmax bandits.

    The words are of a correlation and of an increasing function as well: rank correlations, also of GRPO's variance.

    Answers count as diffuse where neither the correct nor the wrong ones collide often: a collision probability below
    .05 on both sides. Then chains, by enumeration of all their trajectories.
    """
    rng = np.random.default_rng(28)
    rows, triples = [], []
    for _ in range(2500):
        num_answers = int(rng.choice([2, 4, 16, 64, 256]))
        logits = rng.normal(size=num_answers) * rng.uniform(0.2, 4)
        correct = rng.random(num_answers) < rng.uniform(0.1, 0.9)
        correct[np.argmax(logits)], correct[np.argmin(logits)] = rng.permutation([True, False])
        probs = np.exp(softmax.log_softmax(logits))
        p = float(probs[correct].sum())
        if p * (1 - p) < 1e-6:
            continue
        right, wrong = (float(((probs[side] / probs[side].sum()) ** 2).sum()) for side in (correct, ~correct))
        diffuse = max(right, wrong) < 0.05
        triples.append((1 - right, 1 - wrong, right + wrong))
        stats = token_statistics(logits, np.array(0))
        exact = float(moments.single_rollout_variance(probs, correct))
        with_collision = p * (1 - p) * (1 - float(stats.collision))
        rows.append((num_answers, p, diffuse, exact, with_collision, p * (1 - p) * float(stats.entropy)))
    data = by_column(("num_answers", "p", "diffuse", "variance", "with_collision", "with_entropy"), rows)
    ratio = data["variance"] / data["with_collision"]
    near, far = (np.quantile(ratio[part], [0.05, 0.95]) for part in (data["diffuse"], ~data["diffuse"]))
    chains, additive = {}, 0.0
    for num_tokens, shared in ((1, False), (2, False), (3, False), (3, True)):
        variance, product_of, squared, sum_of = _chains(rng, num_tokens, shared)
        additive = max(additive, float(np.abs(squared / sum_of - 1).max()))
        chains[num_tokens, shared] = np.quantile(variance / product_of, [0.05, 0.95])
    proxies = {"with_collision": data["with_collision"], "with_entropy": data["with_entropy"]}
    proxies["bernoulli"] = data["p"] * (1 - data["p"])
    proxies |= {name: data[f"with_{name}"] / proxies["bernoulli"] for name in ("collision", "entropy")}
    terms = moments.group_coefficients(data["p"], MEAN, "grpo")
    parts = (terms.correct, terms.wrong, terms.mean_variance)
    of_grpo = np.asarray(sum(part * x for part, x in zip(parts, np.transpose(triples), strict=True)))
    ranks = {name: _rank(data["variance"], values) for name, values in proxies.items()}
    ranks |= {f"grpo_{name}": _rank(of_grpo, values) for name, values in proxies.items()}
    factor = _rank(data["variance"] / proxies["bernoulli"], data["with_entropy"] / proxies["bernoulli"])
    positive = min(ranks.values()) > 0
    conditional = Verdict.CONDITIONAL if max(abs(far - 1)) > FAR or factor < 0 else Verdict.APPROXIMATE

    def cited(num_tokens: int, shared: bool) -> str:
        low, high = chains[num_tokens, shared]
        return f"{low:.2f} to {high:.1f}"

    return Finding(
        conditional if positive and max(abs(near - 1)) < STEADY and additive < 1e-9 else Verdict.FAILS,
        f"(39) is true over these bandits together (over p alone see A7, which has the other sign with two answers): rank correlations of sigma^2 with p (1 - p) {ranks['bernoulli']:+.2f}, with 1 - C {ranks['collision']:+.2f}, "
        f"with H {ranks['entropy']:+.2f}, with the products p (1 - p) (1 - C) {ranks['with_collision']:+.2f} and p (1 - p) H {ranks['with_entropy']:+.2f}; of GRPO's "
        f"variance at n = {MEAN} {ranks['grpo_bernoulli']:+.2f}, {ranks['grpo_collision']:+.2f}, {ranks['grpo_entropy']:+.2f}, {ranks['grpo_with_collision']:+.2f} and "
        f"{ranks['grpo_with_entropy']:+.2f}. About the product (within {STEADY:.0%} in 90 %, not about it beyond {FAR:.0%}, limits of ours) it is with many answers only. With diffuse answers sigma^2 is {near[0]:.2f} to {near[1]:.2f} times p (1 - p) (1 - C), in 90 % of "
        f"{int(data['diffuse'].sum())} bandits; otherwise {far[0]:.2f} to {far[1]:.1f} times ({int((~data['diffuse']).sum()):,} "
        f"bandits), and sigma^2 / (p (1 - p)) does not rise with H over all ({factor:+.2f}). Chains: that the squared score is the sum of 1 - C over tokens (40, 41) "
        f"is exact (to {additive:.0e}); sigma^2 is {cited(1, False)}, {cited(2, False)} and {cited(3, False)} times the product at 1, 2 "
        f"and 3 tokens, and {cited(3, True)} times where 3 positions share their logits and all must be right",
        {
            "diffuse_low": near[0],
            "diffuse_high": near[1],
            "low": far[0],
            "high": far[1],
            **ranks,
            "factor_with_entropy": factor,
            "additive_error": additive,
            "chain_3_low": float(chains[3, False][0]),
            "chain_3_high": float(chains[3, False][1]),
            "shared_3_low": float(chains[3, True][0]),
            "shared_3_high": float(chains[3, True][1]),
        },
        f"two answers at p = .5: sigma^2 = {float(moments.single_rollout_variance([0.5, 0.5], [True, False])):.0f} (both "
        f"answers give one gradient), p (1 - p) (1 - C) = .125",
        data,
    )


def _rank(x: FloatArray, y: FloatArray) -> float:
    return float(statistics.spearmanr(x, y).statistic)


def _chains(
    rng: np.random.Generator, num_tokens: int, shared: bool
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Enumerate 300 random chains of tokens of 3.

    Every prefix has logits of its own, and a coin says which trajectories are right; or all positions share their logits,
    and every token must be the first of 3. Returns sigma^2 of (R - p) S, the product
    p (1 - p) E sum (1 - C), E|S|^2 with the score S of the trajectory, and E sum (1 - C), each [300].
    """
    vocabulary, num_prompts = 3, 300
    trajectories = list(product(range(vocabulary), repeat=num_tokens))
    row = {x: i for i, x in enumerate(x for t in range(num_tokens) for x in product(range(vocabulary), repeat=t))}
    logits = rng.normal(size=(num_prompts, 1 if shared else len(row), vocabulary))
    logits *= rng.uniform(0.2, 2, size=(num_prompts, 1, 1))
    policy = np.exp(softmax.log_softmax(logits))
    score = np.zeros((num_prompts, len(trajectories), *policy.shape[1:]))
    probability = np.ones(score.shape[:2])
    sum_of = np.zeros_like(probability)
    for j, actions in enumerate(trajectories):
        for t, action in enumerate(actions):
            at = 0 if shared else row[actions[:t]]
            score[:, j, at] -= policy[:, at]
            score[:, j, at, action] += 1
            probability[:, j] *= policy[:, at, action]
            sum_of[:, j] += 1 - (policy[:, at] ** 2).sum(-1)
    reward = np.zeros(probability.shape)
    if not shared:
        reward[:] = rng.integers(2, size=probability.shape)
    reward[:, 0], reward[:, -1] = 1.0, 0.0
    p = (probability * reward).sum(-1)
    advantage = reward - p[:, None]
    squared = (score**2).sum((-2, -1))
    gradient = (probability * advantage)[..., None, None] * score
    variance = (probability * advantage**2 * squared).sum(-1) - (gradient.sum(1) ** 2).sum((-2, -1))
    expected = (probability * sum_of).sum(-1)
    return variance, p * (1 - p) * expected, (probability * squared).sum(-1), expected


@claim(
    "A10",
    "An allocation changes what GRPO's gradient estimates, since the weight w(p, n) of a prompt rises with n; RLOO's mean over prompts "
    "stays the same, its mean over tokens does not",
    "theory.estimators.implied_weight; 4.2.1 and App. C compare variances only",
    Verdict.EXACT,
    said_by=Author.OURS,
    regime=f"{GROUPS}; n from 2 to 32, p from .01 to .99; mean over prompts, or over tokens at equal lengths",
)
def implied_objective() -> Finding:
    """Compute the implied weight w(p, n) of a prompt, E[g] = w grad J, for n in the paper's range.

    Under a mean over prompts a prompt counts w(p, n); under a mean over tokens n/16 times that.
    """
    p = np.array([0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
    rows: list[tuple[Any, ...]] = []
    for estimator, n in product(("rloo", "dr_grpo", "grpo", "maxrl"), range(2, 33)):
        weight = moments.implied_weight(p, n, estimator)
        rows += [(estimator, n, *row) for row in zip(p, weight, weight * n / MEAN, strict=True)]
    data = by_column(("estimator", "num_rollouts", "p", "prompt_mean", "token_mean"), rows)

    def weights_of(estimator: str, column: str = "prompt_mean") -> list[float]:
        cells = (data["estimator"] == estimator) & np.isin(data["num_rollouts"], (LOW, HIGH)) & (data["p"] == 0.05)
        return [float(weight) for weight in data[column][cells]]

    growth = {}
    for column, estimator in product(("prompt_mean", "token_mean"), ("rloo", "grpo")):
        few, many = weights_of(estimator, column)
        growth[column, estimator] = many / few
    few, many = weights_of("grpo")
    everywhere = moments.implied_weight(np.linspace(0.01, 0.99, 99)[:, None], np.arange(2, 33), "grpo")
    rises = bool((np.diff(everywhere, axis=1) > 0).all())
    range_of = everywhere[:, HIGH - 2] / everywhere[:, LOW - 2]
    unbiased = float(np.abs(data["prompt_mean"][data["estimator"] == "rloo"] - 1).max()) < ROUNDING
    return Finding(
        (Verdict.EXACT if rises else Verdict.FAILS) if unbiased else Verdict.UNDECIDED,
        f"w(p, n) of GRPO rises with n at every p, from n = {LOW} to {HIGH} by a factor of {range_of.min():.2f} (p = .5) to "
        f"{range_of.max():.2f} (p = .01 and .99); at p = .05 from {few:.2f} to {many:.2f}. So where n differs an allocation re-weights "
        f"prompts, and variances alone do not compare two allocations. RLOO's w is 1 (REINFORCE's as well). From n = {LOW} to {HIGH} a prompt at "
        f"p = .05 gains weight: GRPO {growth['prompt_mean', 'grpo']:.2f} times under a prompt mean and {growth['token_mean', 'grpo']:.1f} times under a token mean; RLOO {growth['prompt_mean', 'rloo']:.2f} and "
        f"{growth['token_mean', 'rloo']:.1f}",
        {
            **{f"{column}_{estimator}": value for (column, estimator), value in growth.items()},
            "least_growth": float(range_of.min()),
            "most_growth": float(range_of.max()),
        },
        data=data,
    )
