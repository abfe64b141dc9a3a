"""theory.claims.modulation: what the verdicts of M6 to M9 rest on, and what they do not."""

from __future__ import annotations

import numpy as np
import pytest

from theory.claims import LEDGER, modulation
from theory.claims.gradient_norm import one_large
from theory.claims.ledger import Verdict
from theory.losses import modulation as losses

ROWS = {row.id: row for row in LEDGER if row.id.startswith("M")}


@pytest.mark.parametrize("largest_scale", [1.0, 10**0.5, 10**0.6, 10.0, 30.0])
def test_the_scale_of_made_logits_decides_no_verdict(monkeypatch: pytest.MonkeyPatch, largest_scale: float):
    monkeypatch.setattr(modulation, "LARGEST_SCALES", (largest_scale,))
    assert ROWS["M8"].judge().verdict is Verdict.BOUND
    assert ROWS["M9"].judge().verdict is Verdict.CONDITIONAL


def test_the_constant_is_the_norm_of_a_vector():
    """Of two tokens both entries of pi Lambda are alike up to a sign: the norm is sqrt(2) times the largest, .224."""
    largest = max(
        np.abs(np.exp(z) * (z - np.exp(z) @ z)).max() for z in (one_large(p, 2) for p in np.linspace(0.5, 0.999, 1000))
    )
    assert largest == pytest.approx(0.224, abs=1e-3)
    assert ROWS["M8"].judge().numbers["slope_2"] == pytest.approx(np.sqrt(2) * largest, rel=1e-3)


def test_both_mechanisms_are_measured_beside_stabilisation_alone():
    """Compensation multiplies by 1 to 1.4 and leaves alone which tokens are stabilised."""
    data = ROWS["M6"].judge().data
    alone, both = (data["setting"] == name for name in ("default", "both"))
    for column in ("largest_update", "largest_entropy_change", "second_moment"):
        assert np.all(data[column][both] > data[column][alone])
        assert np.all(data[column][both] <= 1.4**2 * data[column][alone])
    np.testing.assert_array_equal(data["share_stabilised"][both], data["share_stabilised"][alone])
    assert data["largest_update"][both].min() > 1


def test_micro_batches_of_the_whole_batch_change_nothing_and_smaller_ones_damp_more():
    data = ROWS["M7"].judge().data
    own = data["scope"] == "micro-batch"
    whole = own & (data["responses"] == 64)
    assert data["relative_error"][whole] == 0
    assert np.all(np.diff(data["relative_error"][own]) < 0)
    assert np.all(np.diff(data["damped"][own]) < 0)


def test_a_compensation_of_negative_advantages_turns_m2_red(monkeypatch: pytest.MonkeyPatch):
    compensation = losses.compensation
    monkeypatch.setattr(losses, "compensation", lambda h, a, *args: compensation(h, np.abs(a), *args))
    finding = ROWS["M2"].judge()
    assert finding.numbers["bypassed"] > 0.1
    assert finding.verdict is Verdict.FAILS


@pytest.mark.parametrize("sign", [1, -1])
def test_a_change_of_either_sign_turns_m1_red(monkeypatch: pytest.MonkeyPatch, sign: int):
    modulate = modulation.modulate

    def flipped(advantage, *args):
        result = modulate(advantage, *args)
        return result._replace(advantages=np.where(sign * advantage > 0, -result.advantages, result.advantages))

    monkeypatch.setattr(modulation, "modulate", flipped)
    assert ROWS["M1"].judge().verdict is Verdict.FAILS
