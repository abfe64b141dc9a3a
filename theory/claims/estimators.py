"""Section 4.2 and Appendix C: effects of allocation on an estimator, by exact moments of groups (A6 to A8, A10, A11)."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from scipy import stats as statistics

from theory import allocation
from theory.base.arrays import BoolArray, FloatArray
from theory.claims.allocation import HIGH, LOW, MEAN
from theory.claims.ledger import ROUNDING, Finding, Verdict, by_column, claim
from theory.estimators import moments
from theory.policy import softmax, token_statistics


def answer_policy(population: str, p: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Answer probabilities [N, K] of prompts with success rates `p` [N], and the correct answers [N, K].

    `binary`: one right and one wrong answer. `peaked`: one right answer, wrong ones of mass 1/2, 1/4, 1/8, ...
    `diffuse`: 128 right and 128 wrong answers of equal mass on each side.
    """
    correct_shares, wrong_shares = {
        "binary": (np.ones(1), np.ones(1)),
        "peaked": (np.ones(1), 0.5 ** np.minimum(np.arange(1, 8), 6)),
        "diffuse": (np.full(128, 1 / 128), np.full(128, 1 / 128)),
    }[population]
    wrong_shares = wrong_shares / wrong_shares.sum()
    probs = np.concatenate([p[:, None] * correct_shares, (1 - p)[:, None] * wrong_shares], axis=1)
    return probs, np.broadcast_to(np.arange(probs.shape[1]) < len(correct_shares), probs.shape)


@claim("A6", "The estimator from n rollouts has variance sigma^2 / n", "App. C", Verdict.FAILS)
def variance_over_n() -> Finding:
    """Follow n Var(g) over n for each estimator, on a peaked policy: constant if the claim holds."""
    sizes = np.array([2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128])
    rows: list[tuple[Any, ...]] = []
    change = dict.fromkeys(("reinforce", "rloo", "dr_grpo", "grpo"), 0.0)
    for p, estimator in product((0.005, 0.02, 0.1, 0.5), change):
        probs, correct = answer_policy("peaked", np.array([p]))
        variance = moments.gradient_moments(probs, correct, sizes, estimator).variance
        rows += [(p, estimator, *row) for row in zip(sizes, variance, strict=True)]
        change[estimator] = max(change[estimator], float(np.ptp(sizes * variance) / (sizes * variance).max()))
    data = by_column(("p", "estimator", "num_rollouts", "variance"), rows)
    rare = data["variance"][(data["p"] == 0.005) & (data["estimator"] == "grpo")]
    peak = int(sizes[np.argmax(rare)])
    constant = Verdict.EXACT if change["grpo"] < ROUNDING else Verdict.FAILS
    return Finding(
        constant if change["reinforce"] < ROUNDING else Verdict.UNDECIDED,
        f"true of REINFORCE without a baseline (n Var varies by {change['reinforce']:.0e}); n Var varies by {change['rloo']:.0%} for "
        f"RLOO and {change['grpo']:.0%} for GRPO, whose variance at p = .005 grows with n up to n = {peak}, {rare.max() / rare[0]:.1f} times that of n = 2",
        {**change, "peak": peak, "growth": float(rare.max() / rare[0])},
        f"GRPO, p = .005: Var = {rare[0]:.4f} at n = 2 and {rare[sizes == 16][0]:.4f} at n = 16",
        data,
    )


@claim("A7", "p (1 - p) orders the gradient variance of prompts", "4.2.2; review, major comment 1", Verdict.CONDITIONAL)
def proxy_order() -> Finding:
    """Rank-correlate p (1 - p) with the exact variance at n = 16, per estimator and population, over p in (0, 1)."""
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
    binary = [float(moments.gradient_moments([x, 1 - x], [True, False], MEAN, "rloo").variance) for x in (0.1, 0.5)]
    diffuse = ranks["diffuse", "rloo"]
    conditional = Verdict.CONDITIONAL if ranks["binary", "rloo"] < 0 else Verdict.EXACT
    return Finding(
        conditional if diffuse > 0.9 else Verdict.FAILS,
        f"rank correlation for RLOO: {diffuse:+.2f} with diffuse answers, {ranks['peaked', 'rloo']:+.2f} with peaked ones, "
        f"{ranks['binary', 'rloo']:+.2f} with two; for GRPO (std-normalised) {ranks['diffuse', 'grpo']:+.2f}, {ranks['peaked', 'grpo']:+.2f}, "
        f"{ranks['binary', 'grpo']:+.2f}",
        {f"{population}_{estimator}": value for (population, estimator), value in ranks.items()},
        f"two answers, RLOO, n = 16: Var = {binary[1]:.4f} at p = .5, where p (1 - p) is largest, and {binary[0]:.4f} at p = .1",
        data,
    )


@claim("A8", "sigma^2 is reward variance times squared score, with entropy for 1 - C", "eq. 38-42", Verdict.CONDITIONAL)
def product_form() -> Finding:
    """Compare sigma^2 of one rollout with p (1 - p) (1 - C) and with p (1 - p) H, over random softmax bandits.

    Answers count as diffuse where neither the correct nor the wrong ones collide often: a collision probability below
    .05 on both sides.
    """
    rng = np.random.default_rng(28)
    rows = []
    for _ in range(2500):
        num_answers = int(rng.choice([2, 4, 16, 64, 256]))
        logits = rng.normal(size=num_answers) * rng.uniform(0.2, 4)
        correct = rng.random(num_answers) < rng.uniform(0.1, 0.9)
        correct[np.argmax(logits)], correct[np.argmin(logits)] = rng.permutation([True, False])
        probs = np.exp(softmax.log_softmax(logits))
        p = float(probs[correct].sum())
        if p * (1 - p) < 1e-6:
            continue
        diffuse = all(((probs[side] / probs[side].sum()) ** 2).sum() < 0.05 for side in (correct, ~correct))
        stats = token_statistics(logits, np.array(0))
        exact = float(moments.single_rollout_variance(probs, correct))
        with_collision = p * (1 - p) * (1 - float(stats.collision))
        rows.append((num_answers, p, diffuse, exact, with_collision, p * (1 - p) * float(stats.entropy)))
    data = by_column(("num_answers", "p", "diffuse", "variance", "with_collision", "with_entropy"), rows)
    ratio = data["variance"] / data["with_collision"]
    near, far = (np.quantile(ratio[part], [0.05, 0.95]) for part in (data["diffuse"], ~data["diffuse"]))
    proxies = {"with_collision": data["with_collision"], "with_entropy": data["with_entropy"]}
    proxies["bernoulli"] = data["p"] * (1 - data["p"])
    ranks = {name: float(statistics.spearmanr(data["variance"], values).statistic) for name, values in proxies.items()}
    conditional = Verdict.CONDITIONAL if max(abs(far - 1)) > 0.5 else Verdict.APPROXIMATE
    return Finding(
        conditional if max(abs(near - 1)) < 0.15 else Verdict.FAILS,
        f"with diffuse answers sigma^2 is {near[0]:.2f} to {near[1]:.2f} times p (1 - p) (1 - C), in 90 % of "
        f"{int(data['diffuse'].sum())} bandits; otherwise {far[0]:.2f} to {far[1]:.1f} times ({int((~data['diffuse']).sum()):,} "
        f"bandits). Over all, rank correlation {ranks['with_collision']:.2f}, with H for 1 - C {ranks['with_entropy']:.2f}, with "
        f"p (1 - p) alone {ranks['bernoulli']:.2f}",
        {"diffuse_low": near[0], "diffuse_high": near[1], "low": far[0], "high": far[1], **ranks},
        f"two answers at p = .5: sigma^2 = {float(moments.single_rollout_variance([0.5, 0.5], [True, False])):.0f} (both "
        f"answers give one gradient), p (1 - p) (1 - C) = .125",
        data,
    )


@claim("A10", "Allocation changes the variance of the gradient, not what it estimates", "4.2", Verdict.FAILS)
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
    changes = Verdict.FAILS if abs(growth["prompt_mean", "grpo"] - 1) > 1e-9 else Verdict.EXACT
    unbiased = float(np.abs(data["prompt_mean"][data["estimator"] == "rloo"] - 1).max()) < ROUNDING
    return Finding(
        changes if unbiased else Verdict.UNDECIDED,
        f"from n = {LOW} to {HIGH} a prompt at p = .05 gains weight: GRPO {growth['prompt_mean', 'grpo']:.2f} times under a prompt "
        f"mean and {growth['token_mean', 'grpo']:.1f} times under a token mean; RLOO {growth['prompt_mean', 'rloo']:.2f} and "
        f"{growth['token_mean', 'rloo']:.1f}. Only an unbiased estimator under a prompt mean keeps the objective",
        {f"{column}_{estimator}": value for (column, estimator), value in growth.items()},
        f"GRPO, p = .05: w = {few:.2f} at n = {LOW}, {many:.2f} at n = {HIGH}",
        data,
    )


@claim("A11", "Dynamic allocation provably reduces variance against uniform", "4.2.2", Verdict.CONDITIONAL)
def rule_against_uniform() -> Finding:
    """Charge each rule with the exact variance of the estimator at the counts it gives, p known, [8, 24] at 16.

    512 prompts, p from Beta(.7, .7) within [.02, .98]; the best counts possible come from the exact variances themselves,
    by dynamic programming.
    """
    rng = np.random.default_rng(30)
    p = np.clip(rng.beta(0.7, 0.7, size=512), 0.02, 0.98)
    budget = MEAN * len(p)
    rules = {
        "P": allocation.water_level(p * (1 - p), budget, LOW, HIGH),
        "sqrt(P)": allocation.water_level(np.sqrt(p * (1 - p)), budget, LOW, HIGH),
    }
    ratio = {}
    for population, estimator in product(("binary", "peaked", "diffuse"), ("rloo", "grpo")):
        probs, correct = answer_policy(population, p)
        table = np.zeros((len(p), HIGH + 1))
        for n in range(LOW, HIGH + 1):
            table[:, n] = moments.gradient_moments(probs, correct, n, estimator).variance
        best = allocation.optimal_any(-table, budget, LOW, HIGH)
        for rule, counts in {**rules, "best": best}.items():
            variance = table[np.arange(len(p)), counts].sum()
            ratio[population, estimator, rule] = float(variance / table[:, MEAN].sum())

    def cited(population: str, estimator: str) -> str:
        return f"{ratio[population, estimator, 'P']:.2f} ({ratio[population, estimator, 'best']:.2f})"

    ours = [value for (*_, rule), value in ratio.items() if rule == "P"]
    never = Verdict.FAILS if min(ours) >= 1 else Verdict.CONDITIONAL
    return Finding(
        never if max(ours) > 1 else Verdict.EXACT,
        f"variance of the paper's rule over uniform's, and the least possible in brackets. RLOO: "
        f"{cited('diffuse', 'rloo')} with diffuse answers, {cited('peaked', 'rloo')} with peaked ones, "
        f"{cited('binary', 'rloo')} with two; GRPO: {cited('diffuse', 'grpo')}, {cited('peaked', 'grpo')}, {cited('binary', 'grpo')}",
        {"_".join(cell): value for cell, value in ratio.items()},
        f"two answers, RLOO: {ratio['binary', 'rloo', 'P']:.2f} times uniform's variance",
        by_column(("population", "estimator", "rule", "ratio"), [(*cell, value) for cell, value in ratio.items()]),
    )
