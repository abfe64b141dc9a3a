"""theory.claims.published: one number of a table changes, and the verdict or the count changes with it."""

from __future__ import annotations

import numpy as np
import pytest

from theory.claims import LEDGER, published
from theory.claims.ledger import Finding, Verdict
from theory.statistics import passk

ROWS = {row.id: row for row in LEDGER if row.id.startswith("T")}
SMALL, LARGE = published.TABLE_1


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch):
    """Return a function that judges a row after one cell of Table 1 or 2 has another value."""

    def with_cell(id: str, value: float, method: str, column: str, model: str = "", metric: int = 0) -> Finding:
        table = published.TABLE_1[model] if model else published.TABLE_2
        row = [list(part) if isinstance(part, tuple) else part for part in table[method]]
        row[metric][published.BENCHMARKS.index(column)] = value
        monkeypatch.setitem(table, method, tuple(tuple(part) if isinstance(part, list) else part for part in row))
        return ROWS[id].judge()

    return with_cell


def test_the_cells_that_dynamo_leads():
    """Counted by hand: at 7B MATH500 pass@32 is 84.0 for two methods, which is neither ahead nor behind."""
    numbers = ROWS["T1"].judge().numbers
    assert (numbers["ahead_pass@1"], numbers["behind_pass@1"]) == (11, 1)
    assert (numbers["ahead_pass@32"], numbers["behind_pass@32"]) == (7, 4)


def test_another_best_cell_or_average_changes_the_lead(put):
    assert put("T1", 99.0, "GRPO", "AIME24", LARGE).numbers["behind_pass@1"] == 2
    assert put("T1", 99.0, "GRPO", "Minerva", LARGE).verdict is Verdict.FAILS


def test_a_wrong_average_is_found(put):
    found = put("T2", 35.0, "DynaMO", "AIME24", LARGE)
    assert (found.verdict, found.numbers["wrong"]) == (Verdict.FAILS, 1)
    assert "DynaMO pass@1" in str(found.counterexample)


def test_synergy_is_gone_with_a_better_pair(put):
    numbers = ROWS["T3"].judge().numbers
    assert (numbers["joint"], numbers["separate"]) == pytest.approx((19.4 / 6, 7.8 / 6 + 8.7 / 6))
    found = put("T3", 33.6, "GC & UMS", "AIME24")
    assert found.verdict is Verdict.FAILS
    assert found.numbers["GC & UMS"] == pytest.approx(0.4833 - 3.1 / 6, abs=1e-4)


@pytest.mark.parametrize(("method", "column"), [("UMS", "Olympiad"), ("GC", "Minerva")])
def test_another_component_has_the_largest_impact(put, method: str, column: str):
    assert put("T4", 20.0, method, column).verdict is Verdict.FAILS


def test_pass_at_32_on_the_grid_or_below_pass_at_1(put):
    before = ROWS["T5"].judge().numbers["off_grid"]
    assert put("T5", 33.3, "GRPO", "AIME24", SMALL, 1).numbers["off_grid"] == before - 1
    assert put("T5", 28.7, "GRPO", "AIME24", LARGE, 1).verdict is Verdict.FAILS


def test_a_biased_estimator_is_seen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(passk, "pass_at_k", lambda n, c, k: 1 - (1 - np.asarray(c) / n) ** k)
    assert ROWS["T5"].judge().verdict is Verdict.UNDECIDED


def test_a_removal_that_gains(put):
    assert put("T6", 31.7, "GC", "Olympiad").numbers["benchmarks_single"] == 17
    assert put("T6", 50.0, "GC", "Olympiad").verdict is Verdict.FAILS


def test_gaps_that_do_not_widen(put):
    found = ROWS["T7"].judge()
    numbers = found.numbers
    assert found.verdict is Verdict.CONDITIONAL
    assert (numbers["gap_pass@1_1.5B"], numbers["gap_pass@1_7B"]) == pytest.approx((22.0 / 6, 26.2 / 6))
    assert numbers["gap_pass@32_7B"] / numbers["gap_pass@32_1.5B"] == pytest.approx(36.8 / 10.9)
    assert (numbers["wider_pass@1"], numbers["wider_pass@32"]) == (4, 6)
    assert put("T7", 35.0, "DynaMO", "Minerva", SMALL).verdict is Verdict.FAILS


def test_a_gap_at_7b_that_grows_relative_to_grpo_too(put):
    """15 more points on one benchmark lift the gap of pass@1 to 6.9 points, 18 % of GRPO's average."""
    assert put("T7", 60.0, "DynaMO", "Olympiad", LARGE).verdict is Verdict.EXACT


def test_a_cell_that_is_level_with_grpo(put):
    assert put("T7", 28.6, "DynaMO", "Olympiad", LARGE).verdict is Verdict.FAILS
