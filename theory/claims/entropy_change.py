"""Appendix A: how an update changes the entropy of a softmax policy (rows S1 to S8)."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from scipy import stats as statistics

from theory.base.arrays import FloatArray
from theory.claims.ledger import ROUNDING, Author, Finding, Verdict, by_column, claim
from theory.estimators import advantages
from theory.losses import modulation
from theory.policy import entropy_change, softmax, token_statistics

_TABULAR = "one token with logits of its own"


def random_policies(seed: int, num_policies: int = 400) -> list[FloatArray]:
    """Logits of policies over 2 to 64 tokens, from flat to collapsed, and a few extreme ones."""
    rng = np.random.default_rng(seed)
    logits = [rng.normal(size=rng.integers(2, 65)) * 10 ** rng.uniform(-2, 1.5) for _ in range(num_policies)]
    return [*logits, np.zeros(7), np.array([1e4, -1e4, 0.0]), np.array([60.0, 0.0])]


def sampled_statistics(rng: np.random.Generator, logits: FloatArray) -> softmax.TokenStatistics:
    """Statistics of one token drawn from each policy; logits [..., V]."""
    uniform = rng.random((*logits.shape[:-1], 1))
    actions = (np.exp(softmax.log_softmax(logits)).cumsum(-1) < uniform).sum(-1).clip(0, logits.shape[-1] - 1)
    return token_statistics(logits, actions)


@claim(
    "S1",
    "The centred log-probability has mean zero, sum_v pi(v) Lambda(v) = 0",
    "Def. 2",
    Verdict.EXACT,
    regime="any softmax policy",
)
def centred_mean() -> Finding:
    """Sum pi Lambda over random and extreme policies."""
    policies = random_policies(11)
    error = max(abs(float(np.exp(softmax.log_softmax(z)) @ softmax.centred_log_prob(z))) for z in policies)
    return Finding(
        Verdict.EXACT if error < ROUNDING else Verdict.FAILS,
        f"largest |sum| {error:.0e} over {len(policies)} policies, V = 2 to 64, logits to +-1e4",
        {"error": error},
    )


@claim("S2", "dH/dz(v) = -pi(v) Lambda(v)", "eq. 18-23", Verdict.EXACT, regime="any softmax policy")
def entropy_gradient() -> Finding:
    """Compare with automatic differentiation of the entropy."""
    policies = random_policies(12)
    error = 0.0
    for logits in policies:
        z = torch.tensor(logits, requires_grad=True)
        (automatic,) = torch.autograd.grad(torch.distributions.Categorical(logits=z).entropy(), z)
        closed = -np.exp(softmax.log_softmax(logits)) * softmax.centred_log_prob(logits)
        error = max(error, float(np.abs(closed - automatic.numpy()).max()))
    return Finding(
        Verdict.EXACT if error < ROUNDING else Verdict.FAILS,
        f"largest error {error:.0e} against automatic differentiation, {len(policies)} policies",
        {"error": error},
    )


@claim(
    "S3", "One sampled update changes the entropy at the rate -xi (pi(a) Lambda(a) - E_pi[pi Lambda])", "eq. 27, 29",
    Verdict.EXACT, regime=f"{_TABULAR}, first order",
)  # fmt: skip
def one_sample() -> Finding:
    """Compare with the derivative of H(softmax(z + eta xi (e_a - pi))) in eta, by automatic differentiation.

    The data are changes at eta = .1: exact, to first order, and in the product form without the expectation.
    """
    rng = np.random.default_rng(13)
    policies = random_policies(13)
    error, rows = 0.0, []
    for logits in policies:
        action = np.array(rng.choice(len(logits), p=np.exp(softmax.log_softmax(logits))))
        xi = np.array(rng.normal())
        z = torch.tensor(logits)
        direction = xi.item() * (torch.nn.functional.one_hot(torch.tensor(action), len(logits)) - torch.softmax(z, -1))
        eta = torch.zeros((), dtype=torch.float64, requires_grad=True)
        changed = torch.distributions.Categorical(logits=z + eta * direction).entropy()
        (rate,) = torch.autograd.grad(changed, eta)
        stats = token_statistics(logits, action)
        error = max(error, abs(float(entropy_change.first_order(stats, xi)) - float(rate)))
        rows.append(
            (
                len(logits),
                float(entropy_change.exact(logits, action, xi, 0.1)),
                float(entropy_change.first_order(stats, xi, 0.1)),
                float(-0.1 * xi * softmax.pi_lambda(stats)),
            )
        )
    data = by_column(("num_tokens", "exact", "first_order", "two_factor"), rows)
    return Finding(
        Verdict.EXACT if error < ROUNDING else Verdict.FAILS,
        f"largest error {error:.0e} over {len(policies)} sampled updates; at eta = .1 the first order explains "
        f"{np.corrcoef(data['exact'], data['first_order'])[0, 1] ** 2:.1%} of the variance of the exact change, the product xi pi Lambda alone "
        f"{np.corrcoef(data['exact'], data['two_factor'])[0, 1] ** 2:.0%}",
        {"error": error},
        data=data,
    )


@claim(
    "S4",
    "The remainder of the first-order change is second order in the learning rate",
    "eq. 18",
    Verdict.EXACT,
    regime=f"{_TABULAR}, learning rates from 1e-4 to 1e-2",
)
def remainder_order() -> Finding:
    """Fit the log-log slope of |exact - first order| over four decades of the learning rate."""
    rng = np.random.default_rng(14)
    learning_rates = np.logspace(-4, -1, 13)
    small = learning_rates <= 1e-2
    slopes: list[float] = []
    rows: list[tuple[Any, ...]] = []
    for policy in range(60):
        logits = rng.normal(size=(1, int(rng.integers(2, 65)))) * rng.uniform(0.3, 2)
        action = rng.integers(logits.shape[-1], size=1)
        xi = rng.normal(size=1)
        first = entropy_change.first_order(token_statistics(logits, action), xi)[0] * learning_rates
        exact = np.array([entropy_change.exact(logits, action, xi, eta)[0] for eta in learning_rates])
        slopes.append(np.polyfit(np.log(learning_rates[small]), np.log(np.abs(exact - first)[small]), 1)[0])
        rows += [(policy, *row) for row in zip(learning_rates, exact, first, strict=True)]
    slope, spread = float(np.median(slopes)), float(np.ptp(slopes))
    return Finding(
        Verdict.EXACT if abs(slope - 2) < 0.02 and spread < 0.5 else Verdict.FAILS,
        f"median slope {slope:.3f} for eta from 1e-4 to 1e-2, all 60 policies within {min(slopes):.2f} to {max(slopes):.2f} (furthest "
        f"from 2 where the second-order coefficient nearly vanishes)",
        {"slope": slope, "lowest": min(slopes), "highest": max(slopes)},
        data=by_column(("policy", "learning_rate", "exact", "first_order"), rows),
    )


def _parts(stats: softmax.TokenStatistics, xi: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return what (28) keeps of the mean change of every group, and the whole of it; `xi` is [groups, responses]."""
    return np.mean(-xi * softmax.pi_lambda(stats), axis=1), np.mean(entropy_change.first_order(stats, xi), axis=1)


def _groups_of_16(rng: np.random.Generator, num_groups: int) -> tuple[FloatArray, FloatArray]:
    """Rewards at p = .5 and GRPO's advantages of groups of 16."""
    rewards = (rng.random((num_groups, 16)) < 0.5).astype(np.float64)
    return rewards, advantages.grpo(rewards.ravel(), np.repeat(np.arange(num_groups), 16)).reshape(rewards.shape)


def _random_contexts(rng: np.random.Generator, num_tokens: int, low: float, high: float) -> tuple[FloatArray, ...]:
    """Parts of 250 groups, each response in a random context of its own: normal logits, log-uniform scales."""
    rewards, xi = _groups_of_16(rng, 250)
    scale = np.exp(rng.uniform(np.log(low), np.log(high), size=(*rewards.shape, 1)))
    return _parts(sampled_statistics(rng, rng.normal(size=(*rewards.shape, num_tokens)) * scale), xi)


def _two_contexts(rng: np.random.Generator, by_reward: bool) -> tuple[FloatArray, ...]:
    """Parts of 40,000 groups in two contexts over 256 tokens: uniform, and one token at .8 with equal others.

    The second is where the correct responses stand, or any response with probability 1/2.
    """
    rewards, xi = _groups_of_16(rng, 40_000)
    logits = np.zeros((2, 256))
    logits[1, 0] = np.log(0.8 / (0.2 / 255))
    # Four kinds of tokens stand for all: a context's first token, or any other.
    kinds = token_statistics(np.repeat(logits, 2, axis=0), np.array([0, 1, 0, 1]))
    context = rewards.astype(np.int64) if by_reward else rng.integers(2, size=rewards.shape)
    other = rng.random(rewards.shape) >= np.array([1 / 256, 0.8])[context]
    return _parts(softmax.TokenStatistics(*(x[2 * context + other] for x in kinds)), xi)


def _root_mean_square(x: FloatArray, weights: FloatArray | None = None) -> float:
    return float(np.sqrt(np.average(x**2, weights=weights)))


@claim(
    "S5", "Over a group, entropy change is dominated by the mean of -xi pi(a) Lambda(a): the E_pi term cancels", "eq. 28",
    Verdict.CONDITIONAL, regime="GRPO; groups of 4 at one state by enumeration; groups of 16 on-policy tokens that decide nothing",
)  # fmt: skip
def group_cancellation() -> Finding:
    """Enumerate every group of 4 over 3 tokens at one state; then clip, modulate, or let the contexts differ.

    What (28) leaves out is compared with the whole change, as root mean squares over groups: above 1 what is left out
    is larger than the change itself, and nothing is dominated by the rest. What (28) keeps is no measure: for on-policy
    tokens that decide nothing the left-out part is minus the mean of the kept one given the contexts, so never larger.
    """
    logits = np.log(np.array([0.6, 0.3, 0.1]))
    actions = np.array(list(product(range(3), repeat=4)))
    advantage = advantages.grpo((actions == 2).astype(np.float64).ravel(), np.repeat(np.arange(len(actions)), 4))
    advantage = advantage.reshape(actions.shape)
    stats = token_statistics(np.tile(logits, (*actions.shape, 1)), actions)
    chance = np.exp(stats.log_prob.sum(-1))
    clipped = entropy_change.update_coefficient(advantage, np.where(actions == 2, 1.3, 1.0))
    # Every group is a batch, with extremes of its own.
    modulated = np.stack(
        [
            modulation.modulate(
                xi[:, None],
                softmax.TokenStatistics(*(x[group][:, None] for x in stats)),
                np.ones((4, 1), dtype=np.bool_),
                modulation.Modulation(),
            ).advantages[:, 0]
            for group, xi in enumerate(advantage)
        ]
    )
    left, ratios = {}, {}
    for name, xi in (("plain", advantage), ("clipped", clipped), ("modulated", modulated)):
        kept, whole = _parts(stats, xi)
        left[name] = float(np.abs(whole - kept).max())
        ratios[name] = _root_mean_square(whole - kept, chance) / _root_mean_square(whole, chance)
    rng, random, explained = np.random.default_rng(15), [], []
    for num_tokens, (low, high) in product((4, 64, 512), ((0.5, 0.5), (2.0, 2.0), (6.0, 6.0), (0.3, 10.0))):
        kept, whole = _random_contexts(rng, num_tokens, low, high)
        random.append(_root_mean_square(whole - kept) / _root_mean_square(whole))
        explained.append(float(np.corrcoef(kept, whole)[0, 1] ** 2))
    two_kept, two_whole = _two_contexts(rng, by_reward=False)
    ratios["two"] = _root_mean_square(two_whole - two_kept) / _root_mean_square(two_whole)
    of_kept = _root_mean_square(two_whole - two_kept) / _root_mean_square(two_kept)
    explained_two = float(np.corrcoef(two_kept, two_whole)[0, 1] ** 2)
    kept, whole = _two_contexts(rng, by_reward=True)
    left["contexts"] = float(np.abs(whole - kept).max())
    ratios["contexts"] = _root_mean_square(whole - kept) / _root_mean_square(whole)
    largest = max(*ratios.values(), *random)
    elsewhere = Verdict.EXACT if largest < ROUNDING else Verdict.APPROXIMATE if largest < 1 else Verdict.CONDITIONAL
    return Finding(
        elsewhere if left["plain"] < ROUNDING else Verdict.FAILS,
        f"exact (to {left['plain']:.0e}) for an unclipped on-policy group at one state. Elsewhere (28) leaves something "
        f"out, relative to the whole change (root mean squares; above 1 it is larger than the change): at one state "
        f"{ratios['clipped']:.2f} once the correct token is clipped, {ratios['modulated']:.2f} with modulated "
        f"advantages; after the first token, where contexts differ, {min(random):.2f} to {max(random):.2f} in random "
        f"ones ((28) explains {min(explained):.0%} to {max(explained):.0%} of the variance of the change), "
        f"{ratios['two']:.2f} in a uniform or a peaked one at random ({explained_two:.0%}; {of_kept:.2f} of what (28) "
        f"keeps), {ratios['contexts']:.1f} where these two go with the reward",
        {
            **left,
            **{f"ratio_{name}": ratio for name, ratio in ratios.items()},
            "ratio_random_least": min(random),
            "ratio_random_most": max(random),
            "explained_least": min(explained),
            "explained_two": explained_two,
            "two_of_kept": of_kept,
        },
        f"V = 256, correct responses where one token has .8 and wrong ones at a uniform policy: on average (28) gives "
        f"{kept.mean():.2f} nats per unit of eta, and the change is {whole.mean():.4f}",
    )


@claim(
    "S6", "The change vanishes with any of its factors, and these are three orthogonal mechanisms", "Remark 2",
    Verdict.CONDITIONAL, regime=f"{_TABULAR}; correlations: 20,000 policies, V = 32",
)  # fmt: skip
def factors() -> Finding:
    """Let each factor go to zero, and correlate the factors over sampled tokens.

    The verdict is on the first half. "Orthogonal" has no formula: as three separate factors of a product it is true by
    the form of (28). The correlations are our reading of it, and have no part in the verdict.
    """
    rng = np.random.default_rng(16)
    policies = random_policies(16)
    vanishing = 0.0
    for logits in policies:
        stats = token_statistics(logits, np.array(0))
        vanishing = max(vanishing, abs(float(entropy_change.first_order(stats, np.array(0.0)))))
    # Three factors of the product, each near zero in turn: pi(a), Lambda(a) (where log pi(a) = -H), and xi above.
    rare = token_statistics(np.log(np.array([0.7, 0.3 - 1e-9, 1e-9])), np.array(2))
    middle = token_statistics(np.zeros(3), np.array(0))
    products = max(abs(float(softmax.pi_lambda(stats))) for stats in (rare, middle))
    change = float(entropy_change.first_order(rare, np.array(1.0)))
    logits = rng.normal(size=(20_000, 32)) * 10 ** rng.uniform(-1, 1, size=(20_000, 1))
    rank, within = (
        float(statistics.spearmanr(np.exp(tokens.log_prob), tokens.log_prob + tokens.entropy).statistic)
        for tokens in (
            sampled_statistics(rng, logits),
            token_statistics(np.tile(logits[0], (32, 1)), np.arange(32)),
        )
    )
    conditional = Verdict.EXACT if abs(change) < 1e-6 else Verdict.CONDITIONAL
    return Finding(
        conditional if vanishing == 0.0 and products < 1e-6 else Verdict.FAILS,
        f"the product xi pi Lambda of (28) vanishes with each factor; the change of one token (27) vanishes with xi, not "
        f"with the others, since E_pi[pi Lambda] stays. As factors of a product the three are separate. As quantities, "
        f"which is our reading and not judged, concentration and deviation go together: rank correlation {within:.2f} "
        f"within a policy, {rank:+.2f} over tokens sampled from 20,000",
        {"vanishing": vanishing, "change": change, "rank_within": within, "rank_sampled": rank},
        f"pi = (.7, .3, 1e-9), the last token sampled with xi = 1: pi Lambda = {float(softmax.pi_lambda(rare)):.0e}, "
        f"yet dH/d eta = {change:.3f}",
    )


@claim(
    "S7", "The mean over the response's tokens stands for E_pi[pi Lambda]",
    "verl/workers/actor/dp_actor.py", Verdict.APPROXIMATE,
    said_by=Author.CODE, regime="on-policy tokens of random policies, |A| = 1, V = 4 to 512",
)  # fmt: skip
def sequence_mean() -> Finding:
    """Compare Xi with both means over vocabularies, lengths and concentrations, with on-policy tokens and |A| = 1.

    Each token has its own policy, with normal logits of the given scale; about 6,000 tokens a cell.
    """
    rng = np.random.default_rng(17)
    rows = []
    for num_tokens, length, scale in product((4, 64, 512), (4, 32, 256), (0.5, 2.0, 6.0)):
        num_responses = max(4, 6_000 // length)
        logits = rng.normal(size=(num_responses, length, num_tokens)) * scale
        stats = sampled_statistics(rng, logits)
        ones = np.ones(logits.shape[:-1])
        exact = np.abs(entropy_change.first_order(stats, ones)).ravel()
        proxy = np.abs(entropy_change.first_order_sequence(stats, ones, ones > 0)).ravel()
        relative = float(np.sqrt(np.mean((proxy - exact) ** 2) / np.mean(exact**2)))
        top = max(1, len(exact) // 100)
        agreed = len(set(np.argsort(exact)[-top:]) & set(np.argsort(proxy)[-top:])) / top
        rank = float(statistics.spearmanr(exact, proxy).statistic)
        rows.append((num_tokens, length, scale, relative, rank, agreed))
    data = by_column(
        ("num_tokens", "length", "scale", "relative_error", "rank_correlation", "top_percent_agreement"), rows
    )
    error, ranks = data["relative_error"], data["rank_correlation"]
    approximate = Verdict.APPROXIMATE if error.max() > 1e-6 else Verdict.EXACT
    return Finding(
        approximate if np.median(ranks) > 0.5 else Verdict.FAILS,
        f"relative error of Xi {error.min():.0%} to {error.max():.0%} (median {np.median(error):.0%}), rank correlation "
        f"{ranks.min():.2f} to {ranks.max():.2f}; of the 1 % most unstable tokens {data['top_percent_agreement'].min():.0%} to "
        f"{data['top_percent_agreement'].max():.0%} are the same. A response of one token has Xi = 0 whatever its policy",
        {"lowest": float(error.min()), "highest": float(error.max()), "median": float(np.median(error))},
        data=data,
    )


@claim(
    "S8", "When both the policy concentration and the coefficient's magnitude are large, entropy changes become substantial",
    "4.3.2", Verdict.CONDITIONAL, regime=f"{_TABULAR}, xi = 1; one large token is sampled, the others are equal",
)  # fmt: skip
def concentration() -> Finding:
    """Follow the change of entropy by a sampled token while its probability, the concentration, goes to 1."""
    share = np.geomspace(1e-9, 1, 2_000, endpoint=False)
    rows: list[tuple[Any, ...]] = []
    peaks, peak_at, last, product_shares = [], [], [], []
    for num_tokens in (2, 64, 1_024):
        # `share` is the rest's part of what it has in the uniform policy, where the sampled token has 1/V.
        rest = share * (1 - 1 / num_tokens)
        logits = np.zeros((len(rest), num_tokens))
        logits[:, 0] = np.log1p(-rest) - np.log(rest / (num_tokens - 1))
        stats = token_statistics(logits, np.zeros(len(rest), dtype=np.int64))
        change = np.abs(entropy_change.first_order(stats, np.ones(len(rest))))
        probability = np.exp(stats.log_prob)
        best = int(np.argmax(change))
        peaks.append(float(change[best]))
        peak_at.append(float(probability[best]))
        sure = np.full(num_tokens, np.log(0.01 / (num_tokens - 1)))
        sure[0] = np.log(0.99)
        near = token_statistics(sure, np.array(0))
        last.append(abs(float(entropy_change.first_order(near, np.array(1.0)))))
        product_shares.append(abs(float(softmax.pi_lambda(near))) / float(np.abs(softmax.pi_lambda(stats)).max()))
        rows += [(num_tokens, *row) for row in zip(probability, change, strict=True)]
    data = by_column(("num_tokens", "probability", "change"), rows)
    rises = all(at > 1 / num_tokens + 0.05 for at, num_tokens in zip(peak_at, (2, 64, 1_024), strict=True))
    falls = max(at / peak for at, peak in zip(last, peaks, strict=True))
    ends = float(data["change"][data["probability"] > 1 - 1e-6].max())
    conditional = Verdict.CONDITIONAL if ends < 1e-3 * min(peaks) else Verdict.EXACT
    return Finding(
        conditional if rises else Verdict.FAILS,
        f"true of middling concentration: the change rises with pi(a) up to {min(peak_at):.2f} to {max(peak_at):.2f}, where "
        f"it is {min(peaks):.2f} to {max(peaks):.2f} nats per unit of eta (V = 2 to 1,024). Beyond that it falls to 0, "
        f"because the deviation Lambda(a) goes to 0 as pi(a) goes to 1: at .99 it is at most {falls:.2%} of the peak; "
        f"the product pi Lambda alone (28) is at most {max(product_shares):.0%} of its own",
        {"peak_least": min(peaks), "peak_most": max(peaks), "peak_at_least": min(peak_at), "peak_at_most": max(peak_at),
         "share_at_99": falls, "product_share_at_99": max(product_shares)},
        f"V = 2, pi(a) = .99, xi = 1: the change is {last[0]:.4f}, against {peaks[0]:.3f} at pi(a) = {peak_at[0]:.2f}",
        data,
    )  # fmt: skip
