"""toy.worlds: the laws, what a world must hold, exact success probabilities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from toy.worlds import WORLDS, Beta, LogisticNormal, Population, World


@pytest.fixture
def rng():
    return np.random.default_rng(20260222)


@pytest.mark.parametrize("name", WORLDS)
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


def test_the_same_generator_gives_the_same_world():
    one, other = (WORLDS["mixed"].sample(np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.logits, other.logits)
    np.testing.assert_array_equal(one.correct, other.correct)
    assert one.keys == other.keys


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
        (lambda: World(np.zeros(2), np.ones(2, bool), ("a",)), r"logits: expected shape \[N, K\]"),
        (lambda: World(np.zeros((1, 2)), np.ones((1, 2)), ("a",)), "correct: expected a boolean dtype"),
        (lambda: World(np.zeros((1, 2)), np.ones((1, 3), bool), ("a",)), "correct: expected the shape"),
        (lambda: World(np.zeros((1, 2)), np.zeros((1, 2), bool), ("a",)), "got none for prompt 0"),
        (lambda: World(np.zeros((2, 2)), np.ones((2, 2), bool), ("a", "a")), "keys: expected 2 different keys, got 1"),
    ],
)
def test_bad_laws_and_worlds_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
