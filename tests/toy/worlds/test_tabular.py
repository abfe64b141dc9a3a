"""toy.worlds: the laws, what a world must hold, exact success probabilities, gradients and variances."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from theory.estimators import ESTIMATORS, moments
from theory.policy.softmax import log_softmax
from toy.worlds.tabular import WORLDS, Beta, LogisticNormal, Population, SkillChainPopulation, World

BANDITS = [name for name, population in WORLDS.items() if isinstance(population, Population)]
CHAINS = [name for name in WORLDS if name not in BANDITS]


@pytest.fixture
def rng():
    return np.random.default_rng(20260222)


@pytest.mark.parametrize("name", BANDITS)
def test_a_world_is_a_policy_with_the_success_rates_of_its_law(name, rng):
    population = replace(WORLDS[name], num_prompts=2000)
    world = population.sample(rng)
    assert world.logits.shape == (2000, population.num_answers)
    assert (world.correct.sum(-1) == population.num_correct).all()
    np.testing.assert_allclose(np.exp(world.logits).sum(-1), 1.0, rtol=1e-12)
    p = world.success_probability()
    expected = population.difficulty.sample(2000, np.random.default_rng(1)).clip(
        population.margin, 1 - population.margin
    )
    assert stats.ks_2samp(p, expected).pvalue > 1e-3
    assert world.optimum == 1.0


def test_concentration_separates_peaked_from_diffuse(rng):
    """Mean share of the likeliest wrong answer among 28: about 1/28 when diffuse, most of it when peaked."""
    share = {}
    for name in ("peaked", "diffuse"):
        world = replace(WORLDS[name], num_prompts=500).sample(rng)
        wrong = np.where(world.correct, 0.0, np.exp(world.logits))
        share[name] = (wrong.max(-1) / wrong.sum(-1)).mean()
    assert share["diffuse"] < 0.06
    assert share["peaked"] > 0.4


def test_correct_answers_are_at_random_ids(rng):
    correct = replace(WORLDS["diffuse"], num_prompts=4000).sample(rng).correct
    # Each id is correct with probability 1/8: standard error sqrt(7/64/4000) = 0.0052.
    np.testing.assert_allclose(correct.mean(0), 1 / 8, atol=4 * 0.0052)


def test_success_probability_by_hand():
    world = World(
        np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]), np.array([[1, 0, 1], [0, 1, 0]], dtype=bool), ("a", "b")
    )
    np.testing.assert_allclose(world.success_probability(), [0.75, 0.2], rtol=1e-14)
    np.testing.assert_allclose(world.success_probability(np.zeros((4, 2, 3)))[3], [2 / 3, 1 / 3], rtol=1e-14)


@pytest.mark.parametrize("name", ["mixed", "skills"])
def test_the_same_generator_gives_the_same_world(name):
    one, other = (WORLDS[name].sample(np.random.default_rng(5)) for _ in range(2))
    for field in ("logits", "correct", "rows", "lengths"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    assert one.keys == other.keys


# Skill chains


@pytest.fixture
def chain(rng):
    """Four rows of three tokens, the last a filler; prompt b needs row 1 twice, c a filler only."""
    correct = np.array([[1, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)
    rows = np.array([[0, 3, 2, 1], [1, 3, 1, 0], [3, 0, 0, 0]])
    return World(rng.normal(size=(4, 3)), correct, ("a", "b", "c"), rows, np.array([4, 3, 1]))


def rollouts(world, i):
    """Every rollout of prompt i: probability, whether it is correct, and the sum of its scores [R, K]."""
    pi = np.exp(log_softmax(world.logits))
    rows = world.rows[i, : world.lengths[i]]
    found = []
    for tokens in itertools.product(range(world.num_answers), repeat=len(rows)):
        score = np.zeros_like(pi)
        for row, token in zip(rows, tokens, strict=True):
            score[row] -= pi[row]
            score[row, token] += 1
        found.append((pi[rows, tokens].prod(), world.correct[rows, tokens].all(), score))
    return tuple(np.array(x) for x in zip(*found, strict=True))


def test_success_and_gradient_of_a_chain_are_those_of_all_its_rollouts(chain):
    gradients = np.zeros((3, 4, 3))
    p = np.zeros(3)
    for i in range(3):
        probability, right, score = rollouts(chain, i)
        np.testing.assert_allclose(probability.sum(), 1.0, rtol=1e-12)
        p[i] = probability[right].sum()
        gradients[i] = np.einsum("j,j,jrk->rk", probability, right, score)
    np.testing.assert_allclose(chain.success_probability(), p, rtol=1e-13)
    assert p[2] == 1.0 == chain.success_probability()[2]
    np.testing.assert_allclose(chain.gradient(), gradients.mean(0), rtol=1e-12, atol=1e-16)
    products = np.einsum("irk,jrk->i", gradients, gradients)
    np.testing.assert_allclose(chain.gradient_products(), products, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("name", ["skills", "mixed"])
def test_the_gradient_is_that_of_autograd_and_of_differences(name):
    world = replace(WORLDS[name], num_prompts=30).sample(np.random.default_rng(3))
    logits = torch.tensor(world.logits, requires_grad=True)
    mass = (torch.softmax(logits, -1) * torch.from_numpy(world.correct)).sum(-1)
    p = torch.stack([mass[world.rows[i, : world.lengths[i]]].prod() for i in range(30)])
    p.mean().backward()
    np.testing.assert_allclose(world.success_probability(), p.detach(), rtol=1e-12)
    np.testing.assert_allclose(world.gradient(), logits.grad, rtol=1e-9, atol=1e-15)
    rng = np.random.default_rng(4)
    for _ in range(5):
        step = 1e-5 * rng.normal(size=world.logits.shape)
        ends = [world.success_probability(world.logits + sign * step).mean() for sign in (1, -1)]
        np.testing.assert_allclose(ends[0] - ends[1], 2 * (world.gradient() * step).sum(), rtol=1e-6)


def test_worlds_take_batches_of_policies(chain, rng):
    tables = rng.normal(size=(5, 2, 4, 3))
    for function in ("success_probability", "gradient", "gradient_products", "single_rollout_variance"):
        together = getattr(chain, function)(tables)
        for at in np.ndindex(5, 2):
            np.testing.assert_allclose(together[at], getattr(chain, function)(tables[at]), rtol=1e-12, atol=1e-16)


def test_variance_of_a_rollout_is_that_of_all_rollouts(chain):
    for i, found in enumerate(chain.single_rollout_variance()):
        probability, right, score = rollouts(chain, i)
        p = probability[right].sum()
        terms = (right - p)[:, None, None] * score
        mean = np.einsum("j,jrk->rk", probability, terms)
        expected = probability @ np.square(terms).sum((1, 2)) - np.square(mean).sum()
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-15)


def test_a_bandit_is_a_chain_of_one_token():
    world = replace(WORLDS["mixed"], num_prompts=40).sample(np.random.default_rng(1))
    probs = np.exp(log_softmax(world.logits))
    np.testing.assert_allclose(
        world.single_rollout_variance(), moments.single_rollout_variance(probs, world.correct), rtol=1e-9
    )
    exact = moments.gradient_moments(probs, world.correct, 8, "rloo")
    np.testing.assert_allclose(world.gradient() * 40, exact.true_gradient, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(world.gradient_products(), exact.progress, rtol=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_group_of_chains_has_the_implied_weight_of_a_bandit(estimator, chain):
    """E[g] = w(p, n) grad p over all groups of three rollouts, whatever a rollout is made of."""
    n = 3
    probability, right, score = rollouts(chain, 1)
    group = np.array(list(itertools.product(range(len(right)), repeat=n)))
    k = right[group].sum(-1)
    if_correct, if_wrong = moments.group_advantages(k, n, estimator)
    advantages = np.where(right[group], if_correct[:, None], if_wrong[:, None])
    mean = np.einsum("g,gj,gjrk->rk", probability[group].prod(-1), advantages / n, score[group])
    p = probability[right].sum()
    gradient = np.einsum("j,j,jrk->rk", probability, right, score)
    np.testing.assert_allclose(mean, moments.implied_weight(p, n, estimator) * gradient, rtol=1e-11, atol=1e-15)


def test_long_chains_keep_their_gradient():
    """1,000 tokens of mass 1/2 each, p = 2^-1000; rows that are solved or hopeless stay finite."""
    rows = np.zeros((1, 1000), dtype=int)
    world = World(np.zeros((1, 2)), np.array([[True, False]]), ("a",), rows)
    np.testing.assert_allclose(np.log(world.success_probability()), [-1000 * np.log(2)], rtol=1e-13)
    np.testing.assert_allclose(world.gradient(), 0.5**1000 * 1000 * np.array([[0.5, -0.5]]), rtol=1e-11)
    for logits in ([[800.0, -800.0]], [[-800.0, 800.0]]):
        assert np.isfinite(world.gradient(np.array(logits))).all()
        assert np.isfinite(world.single_rollout_variance(np.array(logits))).all()


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_world_is_that_of_its_law(name, rng):
    law = replace(WORLDS[name], num_prompts=2000, num_skills=1000, num_decisions=600, decision_share=0.3)
    world = law.sample(rng)
    assert world.logits.shape == (1000, law.num_tokens)
    np.testing.assert_allclose(np.exp(world.logits).sum(-1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(world.decisions, np.arange(1000) < 600)
    assert (world.correct[:600].sum(-1) == law.num_accepted).all()
    lengths = np.bincount(world.lengths)
    assert lengths[: law.length_low].sum() == 0
    assert len(lengths) == law.length_high + 1
    assert stats.chisquare(lengths[law.length_low :]).pvalue > 1e-3
    p = World(world.logits[:600], world.correct[:600], tuple(map(str, range(600)))).success_probability()
    expected = law.difficulty.sample(600, np.random.default_rng(1)).clip(law.margin, 1 - law.margin)
    assert stats.ks_2samp(p, expected).pvalue > 1e-3
    decides = world.decisions[world.rows] & world.mask
    assert decides.any(-1).all()
    # One token of each chain decides for certain, the others at .3.
    share = 1 / world.lengths + 0.3 * (1 - 1 / world.lengths)
    error = np.sqrt((0.21 * (world.lengths - 1)).sum()) / world.lengths.sum()
    assert abs(decides.sum() / world.lengths.sum() - np.average(share, weights=world.lengths)) < 4 * error
    assert stats.chisquare(np.bincount(world.rows[decides], minlength=600)).pvalue > 1e-3
    assert stats.chisquare(np.bincount(world.rows[~decides & world.mask] - 600, minlength=400)).pvalue > 1e-3


def test_skills_spread_the_prompts():
    """Mean p near .3, from hopeless to easy, and prompts share skills."""
    worlds = [WORLDS["skills"].sample(np.random.default_rng(seed)) for seed in range(32)]
    p = np.array([world.success_probability() for world in worlds])
    assert 0.25 < p.mean() < 0.38
    assert np.quantile(p, 0.05) < 0.05
    assert np.quantile(p, 0.95) > 0.7
    assert (worlds[0].counts > 0).sum(0).min() > 10
    assert worlds[0].optimum == 1.0


def test_chains_without_fillers():
    law = replace(WORLDS["skills"], num_decisions=48, decision_share=1.0)
    assert law.sample(np.random.default_rng(0)).decisions.all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_skills": 0}, "num_skills: expected an integer >= 1, got 0"),
        ({"num_decisions": 49}, "num_decisions: expected at most num_skills 48, got 49"),
        ({"num_decisions": 0}, "num_decisions: expected an integer >= 1, got 0"),
        ({"num_tokens": 1}, "num_tokens: expected an integer >= 2, got 1"),
        ({"num_accepted": 16}, "num_accepted: expected fewer than num_tokens 16, got 16"),
        ({"length_low": 0}, "length_low: expected an integer >= 1, got 0"),
        ({"length_high": 3}, "length_high: expected an integer >= 4, got 3"),
        ({"decision_share": 1.5}, "decision_share: expected"),
        ({"num_decisions": 48}, "decision_share: expected 1.0 without fillers, got 0.5"),
        ({"difficulty": None}, "difficulty: expected Beta or LogisticNormal, got None"),
        ({"concentration_low": 0.0}, "concentration_low: expected"),
        ({"margin": 0.7}, "margin: expected"),
    ],
)
def test_bad_chain_laws_are_named(change, message):
    assert isinstance(WORLDS["skills"], SkillChainPopulation)
    with pytest.raises(ValueError, match=message):
        replace(WORLDS["skills"], **change)


def test_extreme_concentrations_stay_finite(rng):
    for ends in ((0.01, 0.01), (1e4, 1e4)):
        population = replace(WORLDS["mixed"], concentration_low=ends[0], concentration_high=ends[1])
        assert np.isfinite(population.sample(rng).logits).all()


POPULATION = {
    "num_answers": 4,
    "num_correct": 1,
    "concentration_low": 1.0,
    "concentration_high": 2.0,
    "difficulty": Beta(a=1.0, b=1.0),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_prompts": 0}, "num_prompts: expected an integer >= 1, got 0"),
        ({"num_answers": 1}, "num_answers: expected an integer >= 2"),
        ({"num_answers": 4.0}, "num_answers: expected an integer, got 4.0"),
        ({"num_correct": 4}, "num_correct: expected fewer than num_answers 4, got 4"),
        ({"num_correct": 0}, "num_correct: expected an integer >= 1"),
        ({"concentration_low": 0.0}, "concentration_low: expected"),
        ({"concentration_high": 0.5}, r"concentration_high: expected a finite number in \[1.0"),
        ({"difficulty": "hard"}, "difficulty: expected Beta or LogisticNormal, got 'hard'"),
        ({"margin": 0.0}, "margin: expected"),
    ],
)
def test_bad_populations_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Population(**{**POPULATION, **change})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Beta(a=0.0, b=1.0), "a: expected"),
        (lambda: Beta(a=1.0, b=float("nan")), "b: expected"),
        (lambda: LogisticNormal(mean=float("inf"), std=1.0), "mean: expected"),
        (lambda: LogisticNormal(mean=0.0, std=-1.0), "std: expected"),
        (lambda: World(np.full((1, 2), np.nan), np.ones((1, 2), bool), ("a",)), "logits: expected finite"),
        (lambda: World(np.zeros(2), np.ones(2, bool), ("a",)), r"logits: expected shape \[R, K\]"),
        (lambda: World(np.zeros((1, 2)), np.ones((1, 2)), ("a",)), "correct: expected a boolean dtype"),
        (lambda: World(np.zeros((1, 2)), np.ones((1, 3), bool), ("a",)), "correct: expected the shape"),
        (lambda: World(np.zeros((1, 2)), np.zeros((1, 2), bool), ("a",)), "got none in row 0"),
        (lambda: World(np.zeros((2, 2)), np.ones((2, 2), bool), ("a", "a")), "keys: expected 2 different keys, got 1"),
        (lambda: World(np.zeros((1, 2)), np.ones((1, 2), bool), ("a",), np.zeros(1, int)), r"rows: expected shape \[N"),
        (
            lambda: World(np.zeros((1, 2)), np.ones((1, 2), bool), ("a",), np.ones((1, 1), int)),
            "rows: expected rows of",
        ),
        (lambda: World(np.zeros((1, 2)), np.ones((1, 2), bool), ("a",), np.zeros((1, 1))), "rows: expected integers"),
        (
            lambda: World(np.zeros((1, 2)), np.ones((1, 2), bool), ("a",), np.zeros((1, 1), int), np.array([2])),
            "lengths: expected 1 lengths of at most 1",
        ),
    ],
)
def test_bad_laws_and_worlds_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
