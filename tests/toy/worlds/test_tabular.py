"""toy.worlds.tabular: what a world must hold, exact success probabilities, gradients and variances."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from theory.estimators import ESTIMATORS, moments
from theory.policy.softmax import log_softmax
from toy.worlds import WORLDS, Beta, LogisticNormal, World


@pytest.fixture
def rng():
    return np.random.default_rng(20260222)


def test_success_probability_by_hand():
    world = World(
        np.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]), np.array([[1, 0, 1], [0, 1, 0]], dtype=bool), ("a", "b")
    )
    np.testing.assert_allclose(world.success_probability(), [0.75, 0.2], rtol=1e-14)
    np.testing.assert_allclose(world.success_probability(np.zeros((4, 2, 3)))[3], [2 / 3, 1 / 3], rtol=1e-14)


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
