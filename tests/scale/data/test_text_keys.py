"""The normal form of problems and answers, and templates that are taken off whole."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from scale.data import text_keys


@example("a\u200b\u0301 ａ\u0301")  # a letter and an accent that become one
@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_normal_form(text):
    """It is its own normal form, and spaces and widths do not change it."""
    form = text_keys.normalize(text)
    assert text_keys.normalize(form) == form
    assert text_keys.normalize(f"  {text}\n\u3000") == form
    wide = "".join(chr(ord(x) + 0xFEE0) if "!" <= x <= "~" else x for x in form)
    assert text_keys.prompt_key(wide) == text_keys.prompt_key(form)


@pytest.mark.parametrize(("one", "other"), [("x²", "x2"), ("x", "X"), ("1 2", "12"), ("a-b", "ab"), ("½", "1/2")])
def test_different_problems_stay_different(one, other):
    assert text_keys.prompt_key(one) != text_keys.prompt_key(other)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("025", "25", True),
        ("27.0", "27", True),
        (" $3$ ", "3", True),
        ("$$3$$", "3", True),
        ("$$x$", "$x", True),
        ("$x$$", "x$", True),
        ("$$$", "$", True),
        ("-0", "0", True),
        ("1.50", "1.5", True),
        ("\\frac{1} {2}", "\\frac{1}{2}", True),
        ("3", "-3", False),
        ("$3", "3", False),
        ("10", "1", False),
        ("0.5", "\\frac{1}{2}", False),
        ("1,2", "2,1", False),
    ],
)
def test_answers_that_agree(one, other, same):
    """Only spellings that are surely the same agree."""
    assert (text_keys.answer_form(one) == text_keys.answer_form(other)) is same


def test_a_template_is_taken_off_whole():
    """Whatever spaces end the message; a text without it is left alone."""
    posed = text_keys.TEMPLATES["dapo"].messages("Find $x$.")[0]["content"]
    assert text_keys.strip_template(f"{posed} \n") == "Find $x$."
    assert text_keys.strip_template("Find $x$. ") == "Find $x$. "
