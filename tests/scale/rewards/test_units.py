"""Telling units from variables, and from words that say something else."""

from __future__ import annotations

import pytest

from scale.rewards import units


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (r"5\text{ cm}", "5"),
        (r"9.8\,\mathrm{m\,s^{-2}}", r"9.8\,"),
        (r"9.8 \mathrm{~m} / \mathrm{s}^{2}", "9.8"),
        (r"20^{\circ}\mathrm{C}", "20"),
        ("12 square feet", "12"),
        ("5 more apples", "5"),
        ("1,000.99€", "1,000.99"),
        ("7m²", "7"),
        (r"\$5", "5"),
        (r"\frac{3}{4} \text{ of the pie}", r"\frac{3}{4}"),
    ],
)
def test_units(answer, value):
    found = units.measured(answer)
    assert found.value == value
    assert found.unit


@pytest.mark.parametrize(
    "answer",
    [
        *("6m", "5xy", "2g", r"2\mathrm{R}", r"\text{cm}", r"\text{Evelyn}", "x", "5", "", "{"),
        *(r"5\text{ or more}", r"5\text{ million}", "5 squared", r"5 \text{ percent of 6}", "5 tenths", "5 dozen"),
        *(r"5\text{ at most}", "5 wrong", r"3\mathrm{e}", r"3\mathrm{i}"),
    ],
)
def test_no_units(answer):
    assert units.measured(answer) == (answer, "")


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("cm", "m", True),
        (r"\text{ cm}^2", "square centimeters", False),
        (r"\text{ cm}^2", "cm", True),
        (r"\mathrm{m/s}", "meters per second", False),
        (r"\frac{\text{m}}{\text{s}^2}", "m/s^2", False),
        ("apples", "pears", False),
        (r"\text{ a.m.}", r"\text{ p.m.}", True),
        (r"\$", "dollars", False),
        (r"^\circ", "degrees", False),
        (r"^\circ C", r"^\circ F", True),
    ],
)
def test_conflict(one, other, differ):
    assert units.conflict(one, other) is differ
    assert units.conflict(other, one) is differ


@pytest.mark.parametrize(
    ("problem", "is_unit"),
    [
        ("How many meters?", True),
        (r"A rod of $3 \mathrm{~m}$ is cut.", True),
        ("A rod of 3 m is cut.", True),
        ("How many apples?", False),
        ("Let $m$ be in meters.", False),
        (r"Let \(2m+1\) be odd, in meters.", False),
        (None, False),
    ],
)
def test_a_bare_letter(problem, is_unit):
    assert units.letter_unit("6m", problem) == (("6", "m") if is_unit else None)
