"""Finding the answer in a response, and spelling it plainly."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from scale.rewards import answers
from scale.text import Box, boxes


def brute_boxes(text):
    """Return the outermost closed boxes, by counting braces from every start."""
    found, at = [], 0
    while (start := text.find("\\boxed{", at)) >= 0:
        depth, end = 1, start + 7
        while end < len(text) and depth:
            if text[end] == "\\" and not text.startswith("\\boxed{", end):
                end += 2
                continue
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        if depth:
            at = start + 7  # never closed: one inside may be
        else:
            found.append(Box(start, end, text[start + 7 : end - 1]))
            at = end
    return found


@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "x", "\\{", "\\}", " "]), max_size=14).map("".join))
def test_boxes_by_brute_force(text):
    """One pass over the text finds what counting braces from every box finds."""
    assert boxes(text) == brute_boxes(text)


@pytest.mark.parametrize(
    ("response", "answer", "latex"),
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}", True),
        (r"\boxed{4}, \boxed{5}", "4, 5", True),
        (r"\boxed{4}, no, \boxed{5}", "5", True),
        (r"$\boxed{1}$, $\boxed{2}$ and \[\boxed{3}\]", "1, 2, 3", True),
        (r"$\boxed{3}$或$\boxed{5}$", "3, 5", True),
        (r"\boxed{5} \boxed{5}", "5", True),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}", True),
        (r"\boxed{\text{a } b}", r"\text{a } b", True),
        (r"\boxed {7}", "7", True),
        (r"\fbox{7}", "7", True),
        (r"\boxed{5}. Answer: 6", "5", True),
        (r"Answer: 6. \boxed{5", r"6. \boxed{5", True),
        ("I think.\nAnswer: 6", "6", False),
        ("**Answer:** 6.", "6", False),
        ("The answer is $x = 6$ now", "$x = 6$ now", False),
        (r"The answer is: $2\sqrt{2}$.", r"2\sqrt{2}", True),
        (r"Answer: 2\sqrt{2}", r"2\sqrt{2}", True),
        ("The answer is\n$$\n6\n$$", "\n6\n", True),
        ("The answer is\n\\[ 6 \\]", " 6 ", True),
        ("答案是：15。", "15", False),
        ("所以答案为 15", "15", False),
        ("It must be 6", "It must be 6", False),
    ],
)
def test_extract(response, answer, latex):
    assert answers.extract(response) == answers.Extracted(answer, latex)


@pytest.mark.parametrize("response", ["", "  \n", r"\boxed{}", r"\boxed{ } ", "Answer: "])
def test_no_answer(response):
    assert answers.extract(response) is None


def test_only_a_box_may_count():
    assert answers.extract("Answer: 6", require_box=True) is None
    assert answers.extract(r"Answer: \boxed{6}", require_box=True) == ("6", True)


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
        ("1~000~00", "1000~00"),
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
    assert answers.plain(answer) == spelt
    assert answers.plain(spelt) == spelt


@given(st.integers(), st.integers(0, 3), st.sampled_from(["", ",", r"\,", "{,}"]))
def test_integers(value, zeros, separator):
    """An integer is read whatever its zeros and gaps are."""
    grouped = f"{abs(value):,}".replace(",", separator) if separator else "0" * zeros + str(abs(value))
    assert answers.integer(answers.plain(f"{'-' if value < 0 else ''}{grouped}")) == str(value)


@pytest.mark.parametrize("answer", ["1,2", "12,34", "1.0", "x", "", "1 2", "²", "٣"])
def test_no_integer(answer):
    """Digits of other scripts are no integers here; Math-Verify may read them."""
    assert answers.integer(answer) is None


COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|boxed|fbox)\s*\{([^{}]*)\}")


@given(st.lists(st.sampled_from(["\\text{", "\\mbox {", "\\frac{", "{", "}", "}", "x", "\\", " "]), max_size=14))
def test_unwrap_by_brute_force(parts):
    """One pass takes out what innermost commands, taken out one after the other, leave none of."""
    before, text = None, "".join(parts)
    found = answers.unwrap(text)
    while text != before:
        before, text = text, COMMAND.sub(r"\1", text)
    assert found == text


HUGE = 100_000
"""Characters."""

GARBAGE = {
    "boxes that do not close": "\\boxed{" * (HUGE // 7),
    "nested boxes": "\\boxed{" * (HUGE // 14) + "}" * (HUGE // 14),
    "many boxes": "\\boxed{1} " * (HUGE // 10),
    "boxes and joints": ("\\boxed{1}" + " and" * (HUGE // 100) + "x") * 20,
    "spaces in boxes": "\\boxed" + " " * HUGE,
    "braces": "{" * (HUGE // 2) + "}" * (HUGE // 2),
    "dollars": "$" * HUGE,
    "fractions": "\\frac{" * (HUGE // 6),
    "digits": "1" * HUGE,
    "operators": "1 + " * (HUGE // 4),
    "answers": "answer: " * (HUGE // 8),
    "答案": "答案是" * (HUGE // 3),
    "final answers": "the final answer is " * (HUGE // 20),
    "backslashes": "\\" * HUGE,
    "halves of pairs": "\ud800" * HUGE,
    "nulls": "\0" * HUGE,
}
