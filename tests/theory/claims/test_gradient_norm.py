"""theory.claims.gradient_norm: a response of decisions and fillers against the enumeration of every response."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from theory.claims import LEDGER
from theory.claims.gradient_norm import FILLER_SHARES, _Chain
from theory.claims.ledger import Verdict
from theory.policy import expected_score_norm_squared, token_statistics


def enumerated(chain: _Chain) -> tuple[float, float]:
    """E[A^2 |s|^2] and E|s|^2, means over tokens, by the sum over all V^T responses; the first tokens decide."""
    p, decisions = chain.success, round(chain.length * (1 - chain.filler_share))
    right = p ** (1 / decisions)
    pi = np.full(chain.num_tokens, (1 - right) / (chain.num_tokens - chain.num_right))
    pi[: chain.num_right] = right / chain.num_right
    norms = ((np.eye(chain.num_tokens) - pi) ** 2).sum(-1)
    left = 0.0
    for response in product(range(chain.num_tokens), repeat=chain.length):
        reward = all(token < chain.num_right for token in response[:decisions])
        advantage = (reward - p) / np.sqrt(p * (1 - p))
        left += np.prod(pi[list(response)]) * advantage**2 * norms[list(response)].mean()
    return left, float(pi @ norms)


@pytest.mark.parametrize(
    "chain",
    [
        _Chain(0.3, 2, 1, 1, 0.0),
        _Chain(0.9, 2, 1, 4, 0.0),
        _Chain(0.9, 2, 1, 8, 0.75),
        _Chain(0.1, 3, 1, 4, 0.5),
        _Chain(0.7, 5, 2, 2, 0.0),
        _Chain(0.7, 4, 3, 4, 0.75),
    ],
)
def test_means_over_a_response(chain: _Chain):
    left, independent, bound = chain.means()
    assert (left, independent) == pytest.approx(enumerated(chain), rel=1e-12)
    assert bound > independent


def test_dependence_fades_with_fillers_and_in_no_other_way():
    """Row G4 of the ledger: long chains of sure decisions keep f + (1 - f) p/q, so that at p = .5 nothing is seen."""
    data = next(row for row in LEDGER if row.id == "G4").judge().data
    long = (data["length"] == 1024) & (data["num_tokens"] == 2)
    for p, expected in ((0.1, 1 / 9), (0.5, 1.0), (0.9, 9.0), (0.95, 19.0), (0.99, 99.0)):
        here = long & (data["success"] == p)
        dependence = dict(zip(data["filler_share"][here], data["dependence"][here], strict=True))
        assert list(dependence) == list(FILLER_SHARES)
        for share in FILLER_SHARES:
            assert dependence[share] == pytest.approx(share + (1 - share) * expected, rel=0.02)


def test_no_share_of_fillers_is_enough_for_every_success_probability():
    """Row G4 of the ledger, against chains of 128 tokens: what decides is (1 - f) |p/q - 1|, so p near 1 breaks it."""
    numbers = next(row for row in LEDGER if row.id == "G4").judge().numbers
    for p in (0.9, 0.95, 0.99):
        left, _, bound = _Chain(p, 2, 1, 128, 0.75).means()
        assert numbers[f"three_quarters_{p}"] == pytest.approx(max(left / bound, 1), abs=0.005)
    assert numbers["three_quarters_0.99"] > 5 > 1 >= numbers["ratio_where_small"]
    assert numbers["dependence_0.99"] > 0.7 > 0.1 > numbers["dependence_where_small"]


def test_dependence_at_even_odds_contradicts_the_condition(monkeypatch: pytest.MonkeyPatch):
    """Row G4 of the ledger: at p = q any share of fillers meets the condition, so 256 decisions may not depend on A."""
    means = _Chain.means

    def with_dependence(chain: _Chain) -> tuple[float, float, float]:
        left, independent, bound = means(chain)
        here = (chain.success, chain.length, chain.filler_share) == (0.5, 256, 0.0)
        return left * (1.2 if here else 1.0), independent, bound

    monkeypatch.setattr(_Chain, "means", with_dependence)
    finding = next(row for row in LEDGER if row.id == "G4").judge()
    assert finding.numbers["law_error"] < 0.05
    assert finding.numbers["dependence_where_small"] == pytest.approx(0.2, abs=0.01)
    assert finding.verdict is Verdict.FAILS


def test_the_score_of_a_sure_policy_is_above_rounding():
    """The limit of row G5 is fitted down to q = 1e-5, where |s|^2 = 2 q^2 = 2e-10."""
    stats = token_statistics(np.log(np.array([[1 - 1e-5, 1e-5]])), np.array([0]))
    assert float(expected_score_norm_squared(stats)[0]) == pytest.approx(2e-5, rel=1e-4)


def test_a_long_chain_off_its_law_turns_g4_red(monkeypatch: pytest.MonkeyPatch):
    """By a fifth, in chains of sure decisions, of which the bound is not asked to hold."""
    means = _Chain.means

    def off(chain: _Chain) -> tuple[float, float, float]:
        left, *others = means(chain)
        sure = chain.length == 1024 and chain.filler_share == 0 and chain.success == 0.95
        return (1.2 * left if sure else left, *others)

    monkeypatch.setattr(_Chain, "means", off)
    finding = next(row for row in LEDGER if row.id == "G4").judge()
    assert finding.numbers["ratio_where_small"] <= 1
    assert finding.verdict is Verdict.FAILS
