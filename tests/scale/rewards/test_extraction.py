"""Finding the answer in a response."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from scale.rewards import extraction
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
    assert extraction.extract(response) == extraction.Extracted(answer, latex)


@pytest.mark.parametrize("response", ["", "  \n", r"\boxed{}", r"\boxed{ } ", "Answer: "])
def test_no_answer(response):
    assert extraction.extract(response) is None


def test_only_a_box_may_count():
    assert extraction.extract("Answer: 6", require_box=True) is None
    assert extraction.extract(r"Answer: \boxed{6}", require_box=True) == ("6", True)


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
