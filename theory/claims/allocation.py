"""Section 4.2 and Appendices C and D: how many rollouts a prompt should get (rows A1 to A11)."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from scipy import optimize, stats as statistics

from theory import allocation
from theory.base.arrays import BoolArray, FloatArray
from theory.claims.ledger import Finding, Verdict, claim
from theory.estimators import moments
from theory.policy import softmax
from theory.policy.softmax import token_statistics

ROUNDING = 1e-12
MEAN, LOW, HIGH = 16, 8, 24
"""Rollouts per prompt in the paper's Table 3: the mean and the dynamic range."""


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


@claim("A1", "n proportional to sigma minimises sum sigma^2/n at a fixed budget", "eq. 5, 36", Verdict.EXACT)
def optimal_shares() -> Finding:
    """Check stationarity and a free numerical search over the reals, and all integer allocations of small instances."""
    rng = np.random.default_rng(21)
    stationarity, beaten = 0.0, 0.0
    for _ in range(30):
        sigma = rng.lognormal(sigma=1, size=int(rng.integers(2, 9)))
        budget = int(rng.integers(len(sigma), 200))
        shares = allocation.proportional(sigma, budget)
        marginal = sigma**2 / shares**2
        stationarity = max(stationarity, float(np.ptp(marginal) / marginal.mean()))
        # A free search over shares softmax(t) of the budget.
        found = optimize.minimize(
            lambda t, v=sigma**2, b=budget: np.sum(v / (b * np.exp(softmax.log_softmax(t)))), np.zeros(len(sigma))
        )
        value = float(np.sum(sigma**2 / shares))
        beaten = max(beaten, (value - found.fun) / value)
    instances, wrong, rounding_loses, worst_loss = 0, 0, 0, 0.0
    for num_prompts, budget in product((2, 3, 4), range(4, 17, 3)):
        grid = np.array([n for n in product(range(1, budget + 1), repeat=num_prompts) if sum(n) == budget])
        for _ in range(8):
            variance = rng.lognormal(sigma=2, size=num_prompts)
            best = float(np.min((variance / grid).sum(-1)))
            exact = allocation.total_variance(variance, allocation.optimal(variance, budget, 1, budget))
            rounded = allocation.total_variance(variance, allocation.water_level(np.sqrt(variance), budget, 1, budget))
            instances += 1
            wrong += int(exact > best * (1 + ROUNDING))
            rounding_loses += int(rounded > best * (1 + 1e-9))
            worst_loss = max(worst_loss, rounded / best - 1)
    holds = stationarity < ROUNDING and beaten < 1e-7 and wrong == 0
    return Finding(
        Verdict.EXACT if holds else Verdict.FAILS,
        f"over the reals: marginal variances agree to {stationarity:.0e}, and a numerical search finds nothing better; over the "
        f"integers the exact rounding equals brute force in {instances - wrong} of {instances} instances, while largest "
        f"remainders lose up to {worst_loss:.0%} (in {rounding_loses} instances)",
        {
            "stationarity": stationarity,
            "beaten": beaten,
            "wrong": wrong,
            "rounding_loses": rounding_loses,
            "worst_loss": worst_loss,
        },
    )


@claim("A2", "The optimum's variance over uniform's is (sum sigma)^2 / (N sum sigma^2) <= 1", "eq. 44", Verdict.EXACT)
def optimum_against_uniform() -> Finding:
    """Compare the closed form with the two variances and with 1 / (1 + CV^2)."""
    rng = np.random.default_rng(22)
    error, largest = 0.0, 0.0
    for _ in range(200):
        sigma = rng.lognormal(sigma=rng.uniform(0, 2), size=int(rng.integers(1, 600)))
        direct = allocation.variance_ratio(sigma**2, allocation.proportional(sigma, 16 * len(sigma)))
        closed = allocation.optimal_variance_ratio(sigma)
        spread = 1 / (1 + (sigma.std() / sigma.mean()) ** 2)
        error = max(error, abs(closed - direct), abs(closed - spread))
        largest = max(largest, closed)
    return Finding(
        Verdict.EXACT if error < ROUNDING and largest <= 1 + ROUNDING else Verdict.FAILS,
        f"largest error {error:.0e} over 200 populations; equal to 1 / (1 + CV^2), so 1 only where all sigma are equal",
        {"error": error, "largest": largest},
    )


@claim("A3", "P = k (G - k) / (G (G - 1)) is unbiased for p (1 - p)", "eq. 6, 43", Verdict.EXACT)
def proxy_unbiased() -> Finding:
    """Sum over k ~ Binomial(G, p); beside it the plug-in k/G (1 - k/G)."""
    error, plug_in = 0.0, 0.0
    for attempts in (2, 3, 8, 16, 100):
        k = np.arange(attempts + 1)
        estimate = allocation.bernoulli_variance(k, np.full(attempts + 1, attempts))
        for p in (0.0, 0.001, 0.1, 0.5, 0.97, 1.0):
            law = statistics.binom.pmf(k, attempts, p)
            error = max(error, abs(float(law @ estimate) - p * (1 - p)))
            plug_in = max(plug_in, abs(float(law @ (k / attempts * (1 - k / attempts))) - p * (1 - p)))
    return Finding(
        Verdict.EXACT if error < ROUNDING else Verdict.FAILS,
        f"largest bias {error:.0e} for G from 2 to 100; the plug-in k/G (1 - k/G) is off by up to {plug_in:.3f} (at G = 2)",
        {"error": error, "plug_in": plug_in},
    )


@claim(
    "A4",
    "Shares proportional to P, an estimate of the variance, implement n proportional to sigma",
    "4.2.2, Alg. 1",
    Verdict.FAILS,
)
def variance_for_deviation() -> Finding:
    """Take sigma^2 known and compare n ~ sigma^2 with n ~ sigma, without bounds and within [8, 24] at 16.

    Populations of 512 prompts with sigma^2 = p (1 - p), p from Beta(a, a).
    """
    rng = np.random.default_rng(24)
    rows, ideal = [], []
    for concentration in (0.1, 0.3, 0.7, 1.0, 2.0, 5.0):
        p = np.clip(rng.beta(concentration, concentration, size=512), 1e-3, 1 - 1e-3)
        variance = p * (1 - p)
        budget = MEAN * len(p)
        for name, weights in (("variance", variance), ("deviation", np.sqrt(variance))):
            unbounded = allocation.variance_ratio(variance, allocation.proportional(weights, budget))
            bounded = allocation.variance_ratio(variance, allocation.water_level(weights, budget, LOW, HIGH))
            rows.append((concentration, name, unbounded, bounded))
        ideal.append(allocation.optimal_variance_ratio(np.sqrt(variance)))
    columns = ("concentration", "weights", "unbounded", "bounded")
    data: dict[str, Any] = {
        name: np.array(column) for name, column in zip(columns, zip(*rows, strict=True), strict=True)
    }
    by_variance = data["weights"] == "variance"
    error = float(np.abs(data["unbounded"][by_variance] - 1).max())
    # With sigma^2 for sigma the sum of sigma^2/n is N sum(sigma^2)/B, whatever the population.
    uniform = error < 1e-9
    closed = float(np.abs(data["unbounded"][~by_variance] - ideal).max())
    two = np.array([0.25, 0.01])
    shares = allocation.proportional(two, 26)
    best = float(data["unbounded"][~by_variance].min())
    return Finding(
        (Verdict.FAILS if uniform and best < 0.99 else Verdict.EXACT) if closed < ROUNDING else Verdict.UNDECIDED,
        f"without bounds n ~ sigma^2 has exactly uniform's variance (ratio 1 to {error:.0e}), where n ~ sigma has down to "
        f"{best:.2f}; within [{LOW}, {HIGH}] at {MEAN} the bounds bring most of it back in spread-out populations: {data['bounded'][by_variance].min():.3f} to "
        f"{data['bounded'][by_variance].max():.3f} against {data['bounded'][~by_variance].min():.3f} to {data['bounded'][~by_variance].max():.3f}",
        {"error": error, "best": best},
        f"sigma^2 = (.25, .01), B = 26: n = ({shares[0]:.0f}, {shares[1]:.0f}) gives {np.sum(two / shares):.4f}, uniform "
        f"{np.sum(two / 13):.4f}, n ~ sigma {np.sum(two / allocation.proportional(np.sqrt(two), 26)):.4f}",
        data,
    )


@claim("A5", "Allocation lowers gradient variance by up to 50 %", "summary of the paper", Verdict.FAILS)
def largest_reduction() -> Finding:
    """Search populations for the largest reduction within [8, 24] at a mean of 16, beside the optimum without bounds.

    No n exceeds n_high, so that sum sigma^2/n >= sum sigma^2/n_high: at least n_mean/n_high of uniform's variance.
    """
    rng = np.random.default_rng(25)
    rows: list[tuple[Any, ...]] = []
    for law in ("log-normal", "two-point", "Bernoulli"):
        for _ in range(60):
            if law == "log-normal":
                sigma = rng.lognormal(sigma=rng.uniform(0, 2.5), size=512)
            elif law == "two-point":
                sigma = np.where(rng.random(512) < rng.uniform(0.02, 0.9), 1.0, 10 ** -rng.uniform(0, 4))
            else:
                concentration = 10 ** rng.uniform(-1.3, 1)
                p = np.clip(rng.beta(concentration, concentration, size=512), 1e-6, 1 - 1e-6)
                sigma = np.sqrt(p * (1 - p))
            spread = float(sigma.std() / sigma.mean())
            bounded = allocation.variance_ratio(sigma**2, allocation.optimal(sigma**2, MEAN * 512, LOW, HIGH))
            rows.append((law, "no bounds", spread, allocation.optimal_variance_ratio(sigma)))
            rows.append((law, f"bounds [{LOW}, {HIGH}] at {MEAN}", spread, bounded))
    population, kind, cv, ratio = (np.array(column) for column in zip(*rows, strict=True))
    free = kind == "no bounds"
    floor = MEAN / HIGH
    lowest = float(ratio[~free].min())
    halved = float(cv[free & (ratio <= 0.5)].min())
    return Finding(
        Verdict.FAILS if floor > 0.5 and lowest >= floor - 1e-9 else Verdict.EXACT,
        f"within [{LOW}, {HIGH}] at {MEAN} no allocation can remove more than {1 - floor:.0%} (the best of {np.sum(~free)} "
        f"populations: {1 - lowest:.0%}); without bounds half is removed only where CV(sigma) >= 1 (smallest found {halved:.2f}), "
        f"and Bernoulli deviations reach CV {cv[free & (population == 'Bernoulli')].max():.1f} only if nearly all prompts are solved or hopeless",
        {"floor": floor, "lowest": lowest, "cv_for_half": halved},
        f"any sigma: sum sigma^2/n >= sum sigma^2/{HIGH} = {floor:.2f} of uniform's",
        {
            "population": population, "kind": kind, "cv": cv, "ratio": ratio, "low": np.full(len(cv), LOW),
            "high": np.full(len(cv), HIGH), "mean": np.full(len(cv), MEAN),
        },
    )  # fmt: skip


@claim("A6", "The estimator from n rollouts has variance sigma^2 / n", "App. C", Verdict.FAILS)
def variance_over_n() -> Finding:
    """Follow n Var(g) over n for each estimator, on a peaked policy: constant if the claim holds."""
    sizes = np.array([2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128])
    rows = []
    for p in (0.005, 0.02, 0.1, 0.5):
        probs, correct = answer_policy("peaked", np.array([p]))
        for estimator in ("reinforce", "rloo", "dr_grpo", "grpo"):
            variance = np.array(
                [float(moments.gradient_moments(probs[0], correct[0], int(n), estimator).variance) for n in sizes]
            )
            rows += [(p, estimator, int(n), v) for n, v in zip(sizes, variance, strict=True)]
    columns = ("p", "estimator", "num_rollouts", "variance")
    data: dict[str, Any] = {
        name: np.array(column) for name, column in zip(columns, zip(*rows, strict=True), strict=True)
    }
    scaled = data["num_rollouts"] * data["variance"]
    change = {
        name: float(max(np.ptp(scaled[part]) / scaled[part].max() for part in _cells(data, name)))
        for name in ("reinforce", "rloo", "dr_grpo", "grpo")
    }
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


def _cells(data: dict[str, Any], estimator: str) -> list[BoolArray]:
    return [(data["p"] == p) & (data["estimator"] == estimator) for p in np.unique(data["p"])]


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
    columns = ("population", "estimator", "p", "proxy", "variance")
    data: dict[str, Any] = {
        name: np.array(column) for name, column in zip(columns, zip(*rows, strict=True), strict=True)
    }
    binary = [float(moments.gradient_moments([x, 1 - x], [True, False], MEAN, "rloo").variance) for x in (0.1, 0.5)]
    diffuse = ranks["diffuse", "rloo"]
    reversed_order = ranks["binary", "rloo"] < 0
    conditional = Verdict.CONDITIONAL if reversed_order else Verdict.EXACT
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
    columns = ("num_answers", "p", "diffuse", "variance", "with_collision", "with_entropy")
    data: dict[str, Any] = {
        name: np.array(column) for name, column in zip(columns, zip(*rows, strict=True), strict=True)
    }
    ratio = data["variance"] / data["with_collision"]
    near = np.quantile(ratio[data["diffuse"]], [0.05, 0.95])
    far = np.quantile(ratio[~data["diffuse"]], [0.05, 0.95])
    ranks = {
        name: float(statistics.spearmanr(data["variance"], values).statistic)
        for name, values in (
            ("with_collision", data["with_collision"]),
            ("with_entropy", data["with_entropy"]),
            ("bernoulli", data["p"] * (1 - data["p"])),
        )
    }
    close, off = max(abs(near - 1)) < 0.15, max(abs(far - 1)) > 0.5
    conditional = Verdict.CONDITIONAL if off else Verdict.APPROXIMATE
    return Finding(
        conditional if close else Verdict.FAILS,
        f"with diffuse answers sigma^2 is {near[0]:.2f} to {near[1]:.2f} times p (1 - p) (1 - C), in 90 % of "
        f"{int(data['diffuse'].sum())} bandits; otherwise {far[0]:.2f} to {far[1]:.1f} times ({int((~data['diffuse']).sum()):,} "
        f"bandits). Over all, rank correlation {ranks['with_collision']:.2f}, with H for 1 - C {ranks['with_entropy']:.2f}, with "
        f"p (1 - p) alone {ranks['bernoulli']:.2f}",
        {"diffuse_low": near[0], "diffuse_high": near[1], "low": far[0], "high": far[1], **ranks},
        f"two answers at p = .5: sigma^2 = {float(moments.single_rollout_variance([0.5, 0.5], [True, False])):.0f} (both "
        f"answers give one gradient), p (1 - p) (1 - C) = .125",
        data,
    )


@claim(
    "A9",
    "The water level meets the budget exactly, within bounds, with the stated fallbacks",
    "Alg. 1, App. D",
    Verdict.EXACT,
)
def water_level_properties() -> Finding:
    """Allocate random and degenerate instances, and count what is violated."""
    rng = np.random.default_rng(29)
    instances, violations = 0, 0
    for _ in range(2000):
        num_prompts = int(rng.integers(1, 64))
        low = int(rng.integers(0, 8))
        high = low + int(rng.integers(1, 32))
        # Also budgets below N * low, which scale the lower bounds down.
        budget = int(rng.integers(0, num_prompts * high + 1))
        weights = rng.random(num_prompts) ** rng.uniform(0, 20) * 10 ** rng.uniform(-12, 12)
        counts = allocation.water_level(weights, budget, low, high)
        instances += 1
        floor = min(low, budget // num_prompts)
        order = np.argsort(weights, kind="stable")
        violations += int(
            counts.sum() != budget
            or counts.min() < floor
            or counts.max() > high
            or (budget >= num_prompts * low and np.any(np.diff(counts[order]) < -1))
        )
    uniform = allocation.water_level(np.full(10, 1e-9), 163, LOW, HIGH)
    fallback = bool(np.ptp(uniform) <= 1 and uniform.sum() == 163)
    return Finding(
        Verdict.EXACT if violations == 0 and fallback else Verdict.FAILS,
        f"{violations} violations of budget, bounds or order in {instances:,} instances, weights from 1e-12 to 1e12; negligible "
        f"weights fall back to uniform",
        {"violations": violations},
    )


@claim("A10", "Allocation changes the variance of the gradient, not what it estimates", "4.2", Verdict.FAILS)
def implied_objective() -> Finding:
    """Compute the implied weight w(p, n) of a prompt, E[g] = w grad J, for n in the paper's range.

    Under a mean over prompts a prompt counts w(p, n); under a mean over tokens n/16 times that.
    """
    p = np.array([0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
    sizes = np.arange(2, 33)
    rows = []
    for estimator in ("rloo", "dr_grpo", "grpo", "maxrl"):
        for n in sizes:
            weight = moments.implied_weight(p, int(n), estimator)
            rows += [(estimator, int(n), *row) for row in zip(p, weight, weight * n / MEAN, strict=True)]
    columns = ("estimator", "num_rollouts", "p", "prompt_mean", "token_mean")
    data: dict[str, Any] = {
        name: np.array(column) for name, column in zip(columns, zip(*rows, strict=True), strict=True)
    }

    def at(column: str, estimator: str, n: int, success: float) -> float:
        cell = (data["estimator"] == estimator) & (data["num_rollouts"] == n) & (data["p"] == success)
        return float(data[column][cell][0])

    growth = {
        (column, estimator): at(column, estimator, HIGH, 0.05) / at(column, estimator, LOW, 0.05)
        for column in ("prompt_mean", "token_mean")
        for estimator in ("rloo", "grpo")
    }
    changes = abs(growth["prompt_mean", "grpo"] - 1) > 1e-9
    unbiased = float(np.abs(data["prompt_mean"][data["estimator"] == "rloo"] - 1).max()) < ROUNDING
    return Finding(
        (Verdict.FAILS if changes else Verdict.EXACT) if unbiased else Verdict.UNDECIDED,
        f"from n = {LOW} to {HIGH} a prompt at p = .05 gains weight: GRPO {growth['prompt_mean', 'grpo']:.2f} times under a prompt "
        f"mean and {growth['token_mean', 'grpo']:.1f} times under a token mean; RLOO {growth['prompt_mean', 'rloo']:.2f} and "
        f"{growth['token_mean', 'rloo']:.1f}. Only an unbiased estimator under a prompt mean keeps the objective",
        {f"{column}_{estimator}": value for (column, estimator), value in growth.items()},
        f"GRPO, p = .05: w = {at('prompt_mean', 'grpo', LOW, 0.05):.2f} at n = {LOW}, {at('prompt_mean', 'grpo', HIGH, 0.05):.2f} at n = {HIGH}",
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
    rows = []
    for population, estimator in product(("binary", "peaked", "diffuse"), ("rloo", "grpo")):
        probs, correct = answer_policy(population, p)
        table = np.zeros((len(p), HIGH + 1))
        for n in range(LOW, HIGH + 1):
            table[:, n] = moments.gradient_moments(probs, correct, n, estimator).variance
        best = allocation.optimal_any(-table, budget, LOW, HIGH)
        for rule, counts in {**rules, "best": best}.items():
            ratio = table[np.arange(len(p)), counts].sum() / table[:, MEAN].sum()
            rows.append((population, estimator, rule, float(ratio)))
    columns = ("population", "estimator", "rule", "ratio")
    data: dict[str, Any] = {
        name: np.array(column) for name, column in zip(columns, zip(*rows, strict=True), strict=True)
    }

    def at(population: str, estimator: str, rule: str) -> float:
        cell = (data["population"] == population) & (data["estimator"] == estimator) & (data["rule"] == rule)
        return float(data["ratio"][cell][0])

    def cited(population: str, estimator: str) -> str:
        return f"{at(population, estimator, 'P'):.2f} ({at(population, estimator, 'best'):.2f})"

    ours = data["ratio"][data["rule"] == "P"]
    never = Verdict.FAILS if ours.min() >= 1 else Verdict.CONDITIONAL
    return Finding(
        never if ours.max() > 1 else Verdict.EXACT,
        f"variance of the paper's rule over uniform's, and the least possible in brackets. RLOO: "
        f"{cited('diffuse', 'rloo')} with diffuse answers, {cited('peaked', 'rloo')} with peaked ones, "
        f"{cited('binary', 'rloo')} with two; GRPO: {cited('diffuse', 'grpo')}, {cited('peaked', 'grpo')}, {cited('binary', 'grpo')}",
        {f"{row[0]}_{row[1]}_{row[2]}": row[3] for row in rows},
        f"two answers, RLOO: {at('binary', 'rloo', 'P'):.2f} times uniform's variance",
        data,
    )


CLAIMS = (
    optimal_shares, optimum_against_uniform, proxy_unbiased, variance_for_deviation, largest_reduction, variance_over_n,
    proxy_order, product_form, water_level_properties, implied_objective, rule_against_uniform,
)  # fmt: skip
