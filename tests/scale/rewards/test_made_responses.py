"""Made-up responses: whole ones are right, ones cut before their answer and nearly right golds are never rewarded."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from tests.scale.rewards import made_responses
from tests.scale.rewards.test_scoring import outcome

pytestmark = pytest.mark.skipif(find_spec("math_verify") is None, reason="needs Math-Verify")

WHOLE = len(made_responses.PROBLEMS) * len(made_responses.FORMS)
"""Each problem in each form."""


@pytest.fixture(scope="module")
def made():
    return made_responses.responses(WHOLE, seed=20260222)


def test_the_same_seed_makes_the_same(made):
    assert made_responses.responses(WHOLE, seed=20260222) == made
    assert made_responses.responses(WHOLE, seed=1) != made
    assert {each.form for each in made} == set(made_responses.FORMS)


def test_a_stated_answer_is_right(made):
    missed = [each for each in made if outcome(each.gold, each.response) != "right"]
    assert not missed


def test_a_response_cut_before_its_answer_is_never_right(made):
    """The value often stands in the derivation, and often last."""
    rewarded = [text for each in made for text in made_responses.cuts(each) if outcome(each.gold, text) == "right"]
    assert not rewarded


def test_a_near_gold_is_never_met(made):
    """Another sign, digit, power of ten, element, end or variable."""
    pairs = [(each.near[number % len(each.near)], each) for number, each in enumerate(made)]
    assert not [(near, each) for near, each in pairs if outcome(near, each.response) == "right"]
