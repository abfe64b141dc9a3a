"""Spelling an answer plainly."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from scale.rewards import spelling


@pytest.mark.parametrize(
    ("answer", "spelt"),
    [
        (r"1\,234\,567", "1234567"),
        ("1{,}234", "1234"),
        (r"1\,23", r"1\,23"),
        ("3 4/5", r"3\frac{4}{5}"),
        ("1.5e-3", r"1.5\times 10^{-3}"),
        ("x2e3", "x2e3"),
        ("90°", r"90^{\circ}"),
        ("x < ∞", r"x < \infty"),
        (r"-\text{Infinity}", r"-\infty"),
        ("infinitely many", "infinitely many"),
        ("1 000,000~000", "1 000,000000"),
        ("1~000~00", "1000 00"),
        (r"1\, 000\;000{,}000\!000", "1000000000000"),
        (r"1\:000\ 000~ 000", "1000000000"),
        (r"x\,000", r"x\,000"),
        (r"1\,0000", r"1\,0000"),
        ("$3$, $4$", "3, 4"),
        (r"\$5", r"\$5"),
        ("5.", "5"),
        ("1, 2, ...", "1, 2, ..."),
        ("（１，２）", "(1,2)"),
        ("−3", "-3"),
        ("15 平方厘米", "15"),
        ("3、4和5", "3,4,5"),
        (r"\text{是}", "是"),
    ],
)
def test_plain(answer, spelt):
    assert spelling.plain(answer) == spelt
    assert spelling.plain(spelt) == spelt


@given(st.integers(), st.integers(0, 3), st.sampled_from(["", ",", r"\,", "{,}"]))
def test_integers(value, zeros, separator):
    """An integer is read whatever its zeros and gaps are."""
    grouped = f"{abs(value):,}".replace(",", separator) if separator else "0" * zeros + str(abs(value))
    assert spelling.integer(spelling.plain(f"{'-' if value < 0 else ''}{grouped}")) == str(value)


@pytest.mark.parametrize("answer", ["1,2", "12,34", "1.0", "x", "", "1 2", "²", "٣"])
def test_no_integer(answer):
    """Digits of other scripts are no integers here; Math-Verify may read them."""
    assert spelling.integer(answer) is None


COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|boxed|fbox)\s*\{([^{}]*)\}")


@given(st.lists(st.sampled_from(["\\text{", "\\mbox {", "\\frac{", "{", "}", "}", "x", "\\", " "]), max_size=14))
def test_unwrap_by_brute_force(parts):
    """One pass takes out what innermost commands, taken out one after the other, leave none of."""
    before, text = None, "".join(parts)
    found = spelling.unwrap(text)
    while text != before:
        before, text = text, COMMAND.sub(r"\1", text)
    assert found == text


def test_the_digits_of_a_base_are_below_it():
    """So x_8 with a digit 9 is no number."""
    assert spelling.based("59_8") is None
    assert spelling.based("57_8") == ("57", 8)


def test_no_tolerance_allows_an_error_of_0():
    """An answer is right if it is off by no more than this share of the right one: of 0 any share is nothing."""
    assert [spelling.error_allowed(Fraction(0), name) for name in spelling.TOLERANCES] == [0, 0, 0]


def test_quotes_around_nothing_stay():
    assert [spelling.plain(x) for x in ('""', "''", '"7"', "'7'")] == ['""', "''", "7", "7"]


def test_what_follows_a_command_whose_text_starts_with_a_label_stays_outside():
    assert spelling.plain("\\text{The answer is 7} + x").split() == ["7", "+", "x"]
    assert spelling.plain("\\text{The answer is } 7") == "7"
