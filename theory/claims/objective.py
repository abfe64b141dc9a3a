"""Noise and objective, taken apart: token mean, the best centred estimator, a fixed objective (rows A12 to A14).

Theorems of this project. Moments are exact, p is known, and the bounds are [8, 24] at a mean of 16.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, product
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats as statistics

from theory import allocation, losses
from theory.base.arrays import BoolArray, FloatArray, IntArray
from theory.claims.allocation import HIGH, LOW, MEAN
from theory.claims.estimators import answer_policy
from theory.claims.ledger import ROUNDING, Author, Finding, Verdict, by_column, claim
from theory.estimators import moments, optimal

POPULATIONS = ("binary", "peaked", "diffuse")
NUM_PROMPTS = 512
BUDGET = MEAN * NUM_PROMPTS
SIZES = np.arange(LOW, HIGH + 1)


class Prompts(NamedTuple):
    """What the moments of a group need of a prompt, each [N]: p, v_C, v_W and |d|^2 of `theory.estimators.optimal`."""

    p: FloatArray
    v_correct: FloatArray
    v_wrong: FloatArray
    distance_squared: FloatArray

    @property
    def gradient_squared(self) -> FloatArray:
        """|grad J|^2."""
        return (self.p * (1 - self.p)) ** 2 * self.distance_squared


def prompts_of(population: str) -> Prompts:
    """Return the 512 prompts of row A11: p from Beta(.7, .7) within [.02, .98], and one token a rollout."""
    return prompts_at(population, np.clip(np.random.default_rng(30).beta(0.7, 0.7, size=NUM_PROMPTS), 0.02, 0.98))


def chains_at(length: int, p: FloatArray) -> Prompts:
    """Return prompts at rates `p` [N] whose first token of two decides, and `length` fair coins follow it.

    Each token has logits of its own and adds its score: v_C = v_W = length / 2, and d is the first token's, |d|^2 = 2.
    """
    return Prompts(p, *(np.full(p.shape, x) for x in (length / 2, length / 2, 2.0)))


def prompts_at(population: str, p: FloatArray) -> Prompts:
    """Return prompts with one-token answers at rates `p` [N]."""
    probs, correct = answer_policy(population, p)
    collisions = [(np.where(kind, probs, 0) ** 2).sum(axis=1) for kind in (correct, ~correct)]
    v_correct, v_wrong = (np.maximum(1 - c / x**2, 0) for c, x in zip(collisions, (p, 1 - p), strict=True))
    return Prompts(p, v_correct, v_wrong, 2 - v_correct - v_wrong)


def weight_and_variance(prompts: Prompts, n: Any, estimator: str) -> tuple[FloatArray, FloatArray]:
    """Return w(p, n) and the exact trace variance of each prompt's gradient."""
    terms = moments.group_coefficients(prompts.p, n, estimator)
    parts = (terms.correct, terms.wrong, terms.mean_variance)
    return terms.weight, np.asarray(sum(part * x for part, x in zip(parts, prompts[1:], strict=True)))


def table(prompts: Prompts, estimator: str) -> FloatArray:
    """Variance at the true objective, Var / w^2, for each prompt and group size, [N, HIGH + 1]; 0 below LOW."""
    rows = np.zeros((len(prompts.p), HIGH + 1))
    for n in SIZES:
        if estimator == "best":
            rows[:, n] = optimal.optimal_scale(prompts.p, int(n), *prompts[1:])[1]
        else:
            weight, variance = weight_and_variance(prompts, n, estimator)
            rows[:, n] = variance / weight**2
    return rows


@claim(
    "A12",
    "Under a token mean, any n that rises with sigma raises the variance of the batch: the theorem of Appendix C is about a "
    "prompt mean",
    "4.2.1, App. C, under the released loss",
    Verdict.CONDITIONAL,
    said_by=Author.OURS,
    regime="prompts with parameters of their own, one step with whole groups; the model sigma^2/n, sigma known; exact RLOO and GRPO on "
    "the populations of row A11, p known, sigma the true deviation at n = 16",
)
def token_mean() -> Finding:
    """Take the batch gradient sum n_i g_i / sum n_i T_i, and compare its variance with uniform's.

    In the model Var(g_i) = sigma_i^2 / n_i, on random instances; with exact moments, for n ~ sigma and for the paper's
    n ~ p (1 - p). Exact moments need not follow the model: half of the prompts at p = .5 and half at .005. Noise is also counted against the length of the mean, and by the cosine to the true gradient.
    """
    rng = np.random.default_rng(31)
    counts, lengths = np.array([2, 3, 5, 6]), np.array([3, 1, 2, 4])
    mask = np.arange(lengths.max()) < np.repeat(lengths, counts)[:, None]
    of_prompt = np.split(losses.aggregation_weights(mask, "token-mean"), np.cumsum(counts)[:-1])
    share = np.array([weights.sum() for weights in of_prompt])
    consistent = np.allclose(share, counts * lengths / (counts @ lengths), rtol=0, atol=ROUNDING)
    model = []
    for _ in range(500):
        sigma = np.sort(rng.lognormal(sigma=rng.uniform(0.1, 2), size=int(rng.integers(2, 100))))
        n = np.sort(rng.integers(1, 33, size=len(sigma)))
        if np.ptp(n) > 0:
            model.append(float(n @ sigma**2 / (n.mean() * (sigma @ sigma))))
    cells: dict[tuple[str, str, str], dict[str, float]] = {}
    for population, estimator in product(POPULATIONS, ("rloo", "grpo")):
        prompts = prompts_of(population)
        squared = prompts.gradient_squared
        variance = weight_and_variance(prompts, MEAN, estimator)[1]
        rules = {
            "uniform": np.ones(NUM_PROMPTS),
            "paper": prompts.p * (1 - prompts.p),
            "sigma": np.sqrt(variance),
        }
        for rule, weights in rules.items():
            n = allocation.water_level(weights, BUDGET, LOW, HIGH)
            w, each = weight_and_variance(prompts, n, estimator)
            noise, mean = float(n**2 @ each), float(n**2 @ (w**2 * squared))
            cells[population, estimator, rule] = {
                "equal_lengths": noise,
                "lengths_as_sigma2": noise / float(n @ variance) ** 2,
                "relative": noise / mean,
                "cosine": float(n @ (w * squared)) / np.sqrt((noise + mean) * squared.sum()),
            }
    columns = ("equal_lengths", "lengths_as_sigma2", "relative")
    rows = [
        (*cell, *(value[name] / cells[(*cell[:2], "uniform")][name] for name in columns), value["cosine"])
        for cell, value in cells.items()
    ]
    data = by_column(("population", "estimator", "rule", *columns, "cosine"), rows)
    by_sigma = data["rule"] == "sigma"
    rises = min(model) > 1 and data["equal_lengths"][by_sigma].min() > 1
    pair = Prompts(np.array([0.5, 0.005]), np.zeros(2), np.zeros(2), np.full(2, 2.0))  # two answers

    def of_pair(n: Any) -> FloatArray:
        return weight_and_variance(pair, n, "rloo")[1]

    deviation = np.sqrt(of_pair(MEAN))
    as_sigma = allocation.water_level(deviation, 2 * MEAN, LOW, HIGH)
    steep, along = (
        float(n**2 @ of_pair(n) / (MEAN**2 * of_pair(MEAN).sum())) for n in (np.array([HIGH, LOW]), as_sigma)
    )
    falls = deviation[0] > deviation[1] and min(steep, along) < 1
    turns = data["lengths_as_sigma2"][by_sigma].max() < 1

    def of_rloo(population: str, rule: str, name: str) -> float:
        cell = (data["population"] == population) & (data["estimator"] == "rloo") & (data["rule"] == rule)
        return float(data[name][cell][0])

    low, high = data["equal_lengths"][by_sigma].min(), data["equal_lengths"][by_sigma].max()
    turned = data["lengths_as_sigma2"][by_sigma]
    return Finding(
        ((Verdict.CONDITIONAL if falls or turns else Verdict.EXACT) if rises else Verdict.FAILS)
        if consistent
        else Verdict.UNDECIDED,
        f"true of the model sigma^2/n at equal lengths: at least {min(model):.4f} times uniform's in {len(model)} random instances. With "
        f"exact moments it holds for n ~ sigma on the populations of A11 ({low:.2f} to {high:.2f} times), but not always: A6 says that RLOO's "
        f"variance is not sigma^2/n. Where lengths are proportional to sigma^2 it falls to "
        f"{turned.min():.2f} to {turned.max():.2f}, because more tokens divide the sum. The paper's n ~ p (1 - p), RLOO, equal lengths: "
        f"{of_rloo('diffuse', 'paper', 'equal_lengths'):.2f} with diffuse answers and {of_rloo('binary', 'paper', 'equal_lengths'):.2f} with two, where it gives "
        f"fewer to the larger sigma. More variance is not a worse direction, since the mean changes too: the cosine to the true "
        f"gradient goes from {of_rloo('diffuse', 'uniform', 'cosine'):.3f} to {of_rloo('diffuse', 'paper', 'cosine'):.3f} with diffuse answers, and "
        f"with two from {of_rloo('binary', 'uniform', 'cosine'):.3f} to {of_rloo('binary', 'paper', 'cosine'):.3f}, or {of_rloo('binary', 'sigma', 'cosine'):.3f} for n ~ sigma",
        {
            "model_low": min(model),
            "exact_low": float(low),
            "exact_high": float(high),
            "with_lengths_low": float(turned.min()),
            "with_lengths_high": float(turned.max()),
            "pair_steep": steep,
            "pair_as_sigma": along,
            "paper_diffuse": of_rloo("diffuse", "paper", "equal_lengths"),
            "paper_binary": of_rloo("binary", "paper", "equal_lengths"),
            "cosine_uniform": of_rloo("diffuse", "uniform", "cosine"),
            "cosine_paper": of_rloo("diffuse", "paper", "cosine"),
        },
        f"RLOO, two answers, equal lengths, half of the prompts at p = .5 and half at .005: the deviation at n = {MEAN} is {deviation[0]:.3f} and "
        f"{deviation[1]:.3f}, yet n = ({HIGH}, {LOW}) has {steep:.2f} times uniform's variance, and n ~ sigma, ({as_sigma[0]}, {as_sigma[1]}), {along:.2f} times",
        data,
    )


class Rollouts(NamedTuple):
    """A law of rollouts that can be enumerated: probabilities [K], rewards [K] and scores [K, D] of the outcomes."""

    law: FloatArray
    right: BoolArray
    scores: FloatArray

    @property
    def gradient(self) -> FloatArray:
        """Grad J by its definition, E[R S]."""
        return (self.law * self.right) @ self.scores

    def triple(self) -> tuple[float, float, float, float]:
        """Return p, v_C, v_W and |d|^2, from their definitions."""
        sides = [self.law * kind / self.law[kind].sum() for kind in (self.right, ~self.right)]
        means = [side @ self.scores for side in sides]
        v_correct, v_wrong = (
            float(side @ ((self.scores - mean) ** 2).sum(axis=1)) for side, mean in zip(sides, means, strict=True)
        )
        return float(self.law[self.right].sum()), v_correct, v_wrong, float(((means[0] - means[1]) ** 2).sum())


def bandit(right: list[float], wrong: list[float]) -> Rollouts:
    """One token: probabilities of the right answers, then of the wrong ones; the score is e_a - pi."""
    law = np.array([*right, *wrong])
    return Rollouts(law, np.arange(len(law)) < len(right), np.eye(len(law)) - law)


def chain(first: float, after: tuple[float, float], right: tuple[tuple[int, int], ...]) -> Rollouts:
    """Two tokens of two values; the first and, after each of its values, the second have a logit each."""
    law, scores = [], []
    for a, b in product((0, 1), repeat=2):
        law.append((first if a else 1 - first) * (after[a] if b else 1 - after[a]))
        scores.append([a - first, (1 - a) * (b - after[0]), a * (b - after[1])])
    return Rollouts(np.array(law), np.array([pair in right for pair in product((0, 1), repeat=2)]), np.array(scores))


def groups(world: Rollouts, n: int) -> tuple[IntArray, FloatArray]:
    """Return every group of n rollouts as counts of the outcomes [M, K], and its probability [M]."""
    kinds = len(world.law)
    counts = np.array([np.bincount(each, minlength=kinds) for each in combinations_with_replacement(range(kinds), n)])
    ways = special.gammaln(n + 1) - special.gammaln(counts + 1.0).sum(axis=1)
    return counts, np.exp(ways + special.xlogy(counts, world.law).sum(axis=1))


def group_gradient(world: Rollouts, counts: IntArray, a_right: FloatArray, a_wrong: FloatArray) -> FloatArray:
    """(1/n) sum_j A_j S_j of each group [M, D], for the advantages [M] of its right and of its wrong rollouts."""
    advantages = np.where(world.right, a_right[:, None], a_wrong[:, None])
    return np.asarray((counts * advantages) @ world.scores / counts[0].sum())


ENUMERATED = {
    "two answers": bandit([0.25], [0.75]),
    "one right of four": bandit([0.1], [0.5, 0.3, 0.1]),
    "two of four": bandit([0.3, 0.1], [0.4, 0.2]),
    "three of six": bandit([0.1] * 3, [0.3, 0.3, 0.1]),
    "chain, one way": chain(0.4, (0.3, 0.6), ((1, 1),)),
    "chain, two ways": chain(0.3, (0.2, 0.7), ((0, 1), (1, 0))),
}


@claim(
    "A13",
    "Among unbiased centred advantages s(k) (R - k/n), s* = p q (X/Q) / E[X^2/Q] has the least variance",
    "theory.estimators.optimal",
    Verdict.EXACT,
    said_by=Author.OURS,
    regime="i.i.d. rollouts, binary reward, one unclipped step with the whole group, the true p known; one token and chains",
)
def least_variance() -> Finding:
    """Enumerate all groups of small worlds: the mean, the variance, and Lagrange's condition, which decides a convex problem.

    Then compare with RLOO, GRPO, R - p and a wrong p over the populations of row A11.
    """
    error, off_least = 0.0, 0.0
    for world, n in product(ENUMERATED.values(), (2, 3, 5, 8)):
        p, v_correct, v_wrong, distance = world.triple()
        unit = max(1.0, v_correct, v_wrong)  # of a chain; the unit of the scores changes nothing in s
        s, variance = optimal.optimal_scale(p, n, v_correct / unit, v_wrong / unit, distance / unit)
        counts, law = groups(world, n)
        k = counts[:, world.right].sum(axis=1)
        one = group_gradient(world, counts, 1 - k / n, -k / n)  # with s = 1
        g, gradient = s[k][:, None] * one, world.gradient
        squared = float(gradient @ gradient)
        error = max(error, float(np.abs(law @ g - gradient).max()))
        error = max(error, abs(float(law @ (g**2).sum(axis=1)) - squared - float(variance) * unit))
        # E[s^2 m] is least under E[s c] = 1 exactly where s m / c is one number, and is 1 / sum(c^2 / m) there.
        m = np.bincount(k, law * (one**2).sum(axis=1), n + 1)[1:-1]
        c = np.bincount(k, law * (one @ gradient) / squared, n + 1)[1:-1]
        multiplier = s[1:-1] * m / c
        error = max(error, float(np.ptp(multiplier) / multiplier.mean()))
        off_least = max(off_least, abs(float(s[1:-1] ** 2 @ m * (c**2 / m).sum()) - 1))
    rows: list[tuple[Any, ...]] = []
    for population in POPULATIONS:
        prompts = prompts_of(population)
        right, wrong = prompts.p, 1 - prompts.p
        # The variance of (R - p) S of one rollout, over n.
        inside = wrong * prompts.v_correct + right * prompts.v_wrong + (wrong - right) ** 2 * prompts.distance_squared
        known = right * wrong * inside / MEAN
        total = {name: float(table(prompts, name)[:, MEAN].sum()) for name in ("best", "rloo", "grpo")}
        rows.append((population, *(x / total["rloo"] for x in (total["best"], total["grpo"], float(known.sum())))))
    data = by_column(("population", "best", "grpo", "known_p"), rows)
    best, known_p = (dict(zip(POPULATIONS, data[name].tolist(), strict=True)) for name in ("best", "known_p"))
    two = prompts_of("binary")
    pair = float((two.p * (1 - two.p) * (1 - 2 * two.p) ** 2).sum() / weight_and_variance(two, 2, "rloo")[1].sum())
    law = statistics.binom.pmf(np.arange(MEAN + 1), MEAN, 0.05)
    r = np.arange(MEAN + 1) / MEAN
    biased = {
        used: float(law @ (optimal.optimal_scale(used, MEAN, 0.0, 0.0, 2.0)[0] * r * (1 - r))) / (0.05 * 0.95)
        for used in (0.1, 0.2, 0.5)
    }
    rates = np.linspace(0.02, 0.98, 49)
    long_chain = Prompts(rates, *(np.full(rates.shape, x) for x in (1.0, 1.0, 0.08)))
    rloo = weight_and_variance(long_chain, MEAN, "rloo")[1]
    loss = float((rloo / optimal.optimal_scale(rates, MEAN, 1.0, 1.0, 0.08)[1]).max()) - 1
    return Finding(
        Verdict.EXACT if max(error, off_least) < ROUNDING else Verdict.FAILS,
        f"all groups of n = 2, 3, 5, 8 in {len(ENUMERATED)} worlds, chains among them: mean, variance and Lagrange's condition agree to "
        f"{error:.0e}. At n = {MEAN} its variance is {best['binary']:.3f} of RLOO's with two answers, {best['peaked']:.3f} with peaked ones and "
        f"{best['diffuse']:.3f} with diffuse ones; where |d|^2 is .08 of v_C = v_W, RLOO has at most {loss:.1%} more. R - p, which is not "
        f"centred, has {known_p['binary']:.2f}, {known_p['peaked']:.2f} and {known_p['diffuse']:.2f} of RLOO's: less than s* only with diffuse answers, but at n = 2, where s* is RLOO, {pair:.2f} with two. s* needs the true p: two answers with "
        f"p = .05 get the weight {biased[0.1]:.2f}, {biased[0.2]:.2f} or {biased[0.5]:.2f} if p is taken for .1, .2 or .5",
        {
            "error": error,
            **{f"best_{name}": value for name, value in best.items()},
            **{f"known_p_{name}": value for name, value in known_p.items()},
            "known_p_binary_pair": pair,
            "chain_loss": loss,
            **{f"weight_if_{used}": weight for used, weight in biased.items()},
        },
        f"with p = .1 for .05, two answers and n = {MEAN}, s* is biased: E g = {biased[0.1]:.2f} grad J",
        data,
    )


@claim(
    "A14",
    "Divided by w(p, n), and under a token mean by its share of the tokens, a prompt's part no longer depends on n: the best n "
    "then minimises the sum of Var / w^2",
    "theory.estimators.implied_weight, theory.allocation.optimal_any",
    Verdict.EXACT,
    said_by=Author.OURS,
    regime="the true p known, unclipped, one step with whole groups; a tabular policy",
)
def fixed_objective() -> Finding:
    """Check the mean by summing over all groups, for random p and n; the best n by brute force on small instances.

    Then the variance of four combinations on the populations of row A11, and two weights that are not the true one.
    """
    rng = np.random.default_rng(32)
    error = 0.0
    for estimator in ("rloo", "dr_grpo", "grpo", "maxrl"):
        p, n = rng.uniform(0.01, 0.99, size=64), rng.integers(2, HIGH + 1, size=64)
        weight = moments.implied_weight(p, n, estimator)
        for i in range(len(p)):
            error = max(error, abs(scaled_mean(p[i], n[i], estimator, np.full(n[i] + 1, weight[i])) - 1))
    lengths, n = rng.integers(1, 9, size=12), rng.integers(2, HIGH + 1, size=12)
    mask = np.arange(8) < np.repeat(lengths, n)[:, None]
    tokens = losses.aggregation_weights(mask, "token-mean").sum(axis=1)
    restored = np.repeat((n @ lengths) / (n * lengths) / len(n), n) * tokens  # every prompt weighs 1/N again
    sums = np.bincount(np.repeat(np.arange(12), n), restored)
    error = max(error, float(np.abs(sums * len(n) - 1).max()))
    ratio, wrong = {}, 0
    for population in POPULATIONS:
        prompts = prompts_of(population)
        paper = allocation.water_level(prompts.p * (1 - prompts.p), BUDGET, LOW, HIGH)
        tables = {name: table(prompts, name) for name in ("rloo", "best")}
        uniform = tables["rloo"][:, MEAN].sum()
        for name, each in tables.items():
            counts = allocation.optimal_any(-each, BUDGET, LOW, HIGH)
            for rule, n in (("uniform", np.full(NUM_PROMPTS, MEAN)), ("best", counts), ("paper", paper)):
                ratio[population, name, rule] = float(each[np.arange(NUM_PROMPTS), n].sum() / uniform)
            few = each[:3]
            least = min(few[range(3), n].sum() for n in product(SIZES, repeat=3) if sum(n) == 3 * MEAN)
            found = few[range(3), allocation.optimal_any(-few, 3 * MEAN, LOW, HIGH)].sum()
            wrong += int(abs(found / least - 1) > 1e-9)
    own = {
        x: scaled_mean(x, MEAN, "grpo", moments.implied_weight(np.arange(MEAN + 1) / MEAN, MEAN, "grpo"))
        for x in (0.05, 0.5)
    }
    seen = 4 * MEAN
    past = statistics.binom.pmf(np.arange(seen + 1), seen, 0.05)
    inverse = float(past @ (1 / moments.implied_weight(np.arange(seen + 1) / seen, MEAN, "grpo")))
    still, moved = (float(moments.implied_weight(now, MEAN, "grpo")) * inverse for now in (0.05, 0.5))

    def cited(name: str, rule: str) -> str:
        return ", ".join(f"{ratio[population, name, rule]:.3f}" for population in POPULATIONS)

    return Finding(
        Verdict.EXACT if error < ROUNDING and wrong == 0 else Verdict.FAILS,
        f"the mean is grad J to {error:.0e} for 4 estimators at 64 random p and n each, also under a token mean. Variance at this objective, over "
        f"that of RLOO with {MEAN} each (two, peaked, diffuse answers): best s {cited('best', 'uniform')}; RLOO with the best n "
        f"{cited('rloo', 'best')}; both {cited('best', 'best')}; RLOO with the paper's n {cited('rloo', 'paper')}. The weight must be the "
        f"true one: 1/w(k/n, n) of the group itself is only another s(k), and 1/w of {seen} past rollouts at p = .05 leaves a weight of {still:.2f} if p has not moved, and {moved:.2f} if it is .5 now",
        {
            "error": float(error),
            **{"_".join(cell): value for cell, value in ratio.items()},
            "own_weight_hard": own[0.05],
            "own_weight_even": own[0.5],
            "history_weight_still": still,
            "history_weight_moved": moved,
        },
        f"GRPO divided by w(k/n, n) of its own group of {MEAN}: E g = {own[0.05]:.2f} grad J at p = .05 and {own[0.5]:.2f} grad J at p = .5",
        by_column(("population", "estimator", "rule", "ratio"), [(*cell, value) for cell, value in ratio.items()]),
    )


def scaled_mean(p: float, n: int, estimator: str, weights: FloatArray) -> float:
    """Factor of grad J in the mean of a group's gradient divided by weights [n + 1], by summing over k."""
    k = np.arange(n + 1)
    right, wrong = moments.group_advantages(k, n, estimator)
    along = (k * right * (1 - p) - (n - k) * wrong * p) / n  # in units of d: E[S | right] = q d, E[S | wrong] = -p d
    return float(statistics.binom.pmf(k, n, p) @ (along / weights)) / (p * (1 - p))
