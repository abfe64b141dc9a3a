"""toy.worlds.populations: the laws of worlds, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from toy.worlds import WORLDS, Beta, LogisticNormal, Population, SkillChainPopulation, World, populations

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
    assert world.correct.any(-1).all()


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


@pytest.mark.parametrize("name", ["mixed", "skills"])
def test_the_same_generator_gives_the_same_world(name):
    one, other = (WORLDS[name].sample(np.random.default_rng(5)) for _ in range(2))
    for field in ("logits", "correct", "rows", "lengths"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    assert one.keys == other.keys


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


def test_concentrations_are_uniform_in_their_logarithm(rng):
    drawn = populations._concentrations(4000, (0.1, 10.0), rng)
    assert drawn.shape == (4000, 1)
    assert stats.kstest(np.log10(drawn[:, 0]), stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_the_decision_that_every_chain_has_is_at_any_token(rng):
    """Of five tokens, all others fillers."""
    law = replace(WORLDS["skills"], num_prompts=2000, decision_share=0.0, length_low=5, length_high=5)
    world = law.sample(rng)
    decides = world.decisions[world.rows]
    assert (decides.sum(-1) == 1).all()
    assert stats.chisquare(decides.sum(0)).pvalue > 1e-3


@pytest.mark.parametrize("name", ["mixed", "skills"])
def test_hopeless_and_certain_rows_keep_the_margin(name, rng):
    law = replace(WORLDS[name], difficulty=LogisticNormal(mean=0.0, std=50.0), margin=0.05)
    world = law.sample(rng)
    p = np.where(world.correct, np.exp(world.logits), 0.0).sum(-1)[world.decisions]
    np.testing.assert_allclose([p.min(), p.max()], [0.05, 0.95])


def test_skills_spread_the_prompts():
    """Mean p near .3, from hopeless to easy, and prompts share skills."""
    worlds = [WORLDS["skills"].sample(np.random.default_rng(seed)) for seed in range(32)]
    p = np.array([world.success_probability() for world in worlds])
    assert 0.25 < p.mean() < 0.38
    assert np.quantile(p, 0.05) < 0.05
    assert np.quantile(p, 0.95) > 0.7
    assert (worlds[0].counts > 0).sum(0).min() > 10
    assert worlds[0].correct.any(-1).all()


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
