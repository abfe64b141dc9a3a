"""Finding the answer in a response."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, strategies as st

from scale.data import text_keys
from scale.rewards import extraction
from scale.rewards.extraction import extract
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


STATED = {
    "boxes": [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\text{a } b}", r"\text{a } b"),
        (r"\boxed {7}", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\text{The answer is } 7}", r"\text{The answer is } 7"),
        (r"$\boxed 7$", "7"),
        (r"\boxed7.", "7"),
        (r"\(\boxed\frac{1}{2}\)", r"\frac{1}{2}"),
        ("$$\n\\boxed{7}\n$$", "7"),
        (r"\boxed{4}, no, \boxed{5}", "5"),
        (r"\boxed{6 and then \boxed{7}", "7"),
        (r"Let $A = \{ 1, 2$. So \boxed{7}", "7"),
        (r"in \boxed{} goes \boxed{7}", "7"),
        (r"\boxed{7}. Put your final answer within \boxed{}.", "7"),
        (r"\boxed{7}, in the form `\boxed{answer}`", "7"),
        (r"\boxed{7}，放在 $\boxed{}$ 中", "7"),
        (r"\boxed{7}, which is not \boxed{8}", "7"),
        (r"\boxed{7}. It is impossible to do better.", "7"),
        (r"$x \neq 3$, so \boxed{7}", "7"),
    ],
    "several parts": [
        (r"\boxed{4}, \boxed{5}", "4, 5"),
        (r"$\boxed{1}$, $\boxed{2}$ and \[\boxed{3}\]", "1, 2, 3"),
        (r"$\boxed{3}$或$\boxed{5}$", "3, 5"),
        (r"\boxed{5} \boxed{5}", "5"),
        (r"\boxed{12} \quad \text{or} \quad \boxed{33}", "12, 33"),
        (r"\boxed{1}\text{ and }\boxed{2}", "1, 2"),
        (r"\boxed{1}\,\textrm{or}\,\boxed{2}", "1, 2"),
        (r"\boxed{1}\mbox{ or }\boxed{2}", "1, 2"),
        (r"\boxed{1}~\mathrm{and}~\boxed{2}", "1, 2"),
        (r"\boxed{[0,1)} \cup \boxed{(2,3]}", r"[0,1) \cup (2,3]"),
        (r"\boxed{[0,1)}\text{ or }\boxed{(2,3]}", r"[0,1) \cup (2,3]"),
        (r"\boxed{(0,1)} and \boxed{(2,\infty)}", r"(0,1) \cup (2,\infty)"),
        (r"\boxed{(0,1)} and \boxed{(2,3)}", "(0,1), (2,3)"),
        (r"\boxed{1} \cup \boxed{2}", "1, 2"),
        (r"\boxed{(0,1)} \cup \boxed{(2,3)}", r"(0,1) \cup (2,3)"),
        (r"$\boxed{1}$ as well as $\boxed{2}$ AND $\boxed{3}$", "1, 2, 3"),
        (r"\boxed{1}\hspace{1cm}\mathrel{\texttt{or}}\boxed{2}", "1, 2"),
        (r"\boxed{1}{\rm or}\boxed{2} \& \boxed{3}", "1, 2, 3"),
        ("- $\\boxed{1}$\n- $\\boxed{2}$", "1, 2"),
        ("1. $\\boxed{1}$\n2. $\\boxed{2}$", "1, 2"),
        ("(a) \\boxed{1} (ii) \\boxed{2}", "1, 2"),
        (r"\boxed{3} - \boxed{2}", "3, 2"),
        (r"\boxed{1}\enspace\text{ together with }\hskip 1em\boxed{2}", "1, 2"),
        (r"$\boxed{1}$ or else $\boxed{2}$ | $\boxed{3}$以及\boxed{4}", "1, 2, 3, 4"),
        (r"\boxed{1} & \boxed{2} \\ \boxed{3} \\[2pt] & \boxed{4}", "1, 2, 3, 4"),
        (r"\boxed{1} \lor \boxed{2} \vee \boxed{3} \land \boxed{4}", "1, 2, 3, 4"),
        (r"$x_1 = \boxed{1}$, $x_2 = \boxed{2}$", "1, 2"),
        (r"x &= \boxed{1} \\ y &= \boxed{2}", "1, 2"),
        ("**$\\boxed{1}$** or\n$\\boxed{2}$", "1, 2"),
        (r"\boxed{5} (or possibly \boxed{6})", "5, 6"),
        (r"\boxed{1} + \boxed{2}", "1, 2"),
        (r"\boxed{3} apples \boxed{2}", "3, 2"),
        (r"\boxed{3} " + "apples " * 7 + r"\boxed{2}", "2"),
        (r"\boxed{1}, so \boxed{2}", "2"),
        (r"$\boxed{1}$ along with $\boxed{2}$", "1, 2"),
        (r"$\boxed{1}\kern 2pt\boxed{2} \amalg \boxed{3}$", "1, 2, 3"),
        (r"\boxed{1} -- \boxed{2}または\boxed{3}", "1, 2, 3"),
        (r"\boxed{1}\text{ и }\boxed{2}", "1, 2"),
        (r"\boxed{1} \Rightarrow \boxed{2}", "2"),
        (r"$\boxed{1}$ becomes $\boxed{2}$", "2"),
        (r"We get \boxed{1}. Next, \boxed{2}", "2"),
        (r"It is \boxed{1} now, after some more words \boxed{2}", "2"),
        (r"\boxed{1} \text{ hence } \boxed{2}", "2"),
    ],
    "lines": [
        ("I think.\nAnswer: 6", "6"),
        ("**Answer:** 6.", "6"),
        ("**Answer**: 6", "6"),
        ("> - *Final answer:* $6$", "6"),
        ("So the final answer: 6", "6"),
        ("FINAL ANSWER: 6", "6"),
        ("2) Answer (in cm): 6", "6"),
        (r"\textbf{Answer:} 6", "6"),
        (r"$\text{Answer: } 6$", "6"),
        ("It is\n  \\[Answer: 006\\]", "006"),
        (r"Answer \[ 6 \]", "6"),
        (r"**Answer.** $6$", "6"),
        ("**Ans:** 6", "6"),
        ("### 答案\n\n6", "6"),
        ("综上，故选：C", "C"),
        ("【答案】6", "6"),
        ("Answer:\n\n- $6$", "6"),
        ("Answer:\n- $x=5$\n- $x=6$", "x=5, x=6"),
        ("### Answer\n\n$$6$$", "6"),
        ("**Final Answer**\n\n6", "6"),
        ("Final answer\n6 apples", r"6\text{ apples}"),
        ("**Final Answer**\n\\[\\boxed{6}\\]", "6"),
        ("So it goes.\n#### 72\n", "72"),
        ("Answer: 5\nAnswer: 6", "6"),
        ("Answer: 6. No further ones.", "6"),
        ("Final Answer: The final answer is $6$. I hope it is correct.", "6"),
        ("**最终答案**：6", "6"),
    ],
    "sentences": [
        ("The answer is $x = 6$ now", "x = 6"),
        (r"The answer is: $2\sqrt{2}$.", r"2\sqrt{2}"),
        ("The answer is\n$$\n6\n$$", "6"),
        ("The answer is\n\\[ 6 \\]", "6"),
        ("Thus, the correct answer is option (B).", "(B)"),
        ("So the answer to the problem is 6.", "6"),
        ("The correct option is (C).", "(C)"),
        ("Thus the correct choice is C.", "C"),
        ("for a final answer of $6$.", "6"),
        ("The answer is $6$!", "6"),
        ("The answer, in simplest form, is 1/2.", "1/2"),
        ("The answer in base 8 is 52", "52"),
        ("The answer, therefore, is 6.", "6"),
        ("The answer is found to be 6.", "6"),
        ("The answer turns out to be 6.", "6"),
        ("Since $x = 3$, the answer is 6.", "6"),
        ("If so, we add them, so the answer is 6.", "6"),
        ("The answers are 1 and 2.", "1, 2"),
        ("The answer is Evelyn.", "Evelyn"),
        ("The answer is the number of pairs, which are many. The answer is that the number of pairs is 6.", "6"),
        ("答案是：15。", "15"),
        ("所以答案为 15", "15"),
        ("答案选 B。", "B"),
        ("答案应该是15元，没错", r"15\text{ 元}"),
    ],
    "tags": [
        ("<answer>6</answer>", "6"),
        ("<answer> $6$ </answer> done", "6"),
        (r"<answer>so it is \boxed{6}</answer>", "6"),
        (r"<answer>\boxed{5}. No, \boxed{6}</answer>", "6"),
        ("<think>The answer is 6.</think>\n>_", "6"),
        ("<answer>The answer is 6.</answer>", "6"),
        ("<Answer>Evelyn</Answer>", "Evelyn"),
        (r"<think>\boxed{5}</think><answer>6</answer>", "6"),
        ("<think>The answer is 5.</think>\nThe answer is 6.", "6"),
        ("<think>The answer is 6.</think>\n", "6"),
        ("so 5</think> 6", "6"),
        (r"◁think▷\boxed{5}◁/think▷ Answer: 6", "6"),
        (r"<scratchpad>\boxed{5}</scratchpad> Answer: 6", "6"),
        (r"<|channel|>analysis<|message|>\boxed{5}<|end|><|start|>assistant<|channel|>final<|message|>\boxed{6}", "6"),
    ],
    "marks": [
        ("Answer: `6`", "6"),
        ("Answer:\n```\n6\n```", "6"),
        ('The answer is "6".', "6"),
        ("Answer: 6_", "6"),
        ("Answer: 6{", "6"),
        ("Answer: 6 {checked}", "6"),
        ("Answer: ✅ 6", "6"),
        ("Answer:\n> 6", "6"),
        (r"\boxed{6<|im_end|>}", "6"),
        ("_The answer is 6_ ***", "6"),
        (r"The answer is 6\)", "6"),
        ("Answer: 6<|im_end|>", "6"),
        ("Answer: 6<|end_of_solution|>", "6"),
        ("Answer: 6<|im_start|>user\nAnswer: 7", "6"),
        (r"Answer: 6</s>[INST] Answer: 7", "6"),
        ("Answer: ~~5~~ 6", "6"),
        ("Answer: 6</s></s>", "6"),
        ("Answer: 6<｜end▁of▁sentence｜>", "6"),
        ("<｜end▁of▁sentence｜>Answer: 6<|endoftext|>Answer: 7", "6"),
    ],
    "what follows a value": [
        ("Answer: 6, as shown", "6"),
        ("Answer: 6 (six)", "6"),
        ("Answer: 6 because 2 + 4 = 6", "6"),
        ("Answer: 6, not 7", "6"),
        ("Answer: 10 km/h", r"10\text{ km/h}"),
        ("Answer: 6 bags of red apples", r"6\text{ bags of red apples}"),
        ("Answer: 6 bags full of red apples", "6"),
        ("Answer: \\$10,000 per year", r"10,000\text{ per year}"),
        ("Answer: $10", "10"),
        ("Answer: A. 12", "(A) 12"),
        ("Answer: A. Carbon", r"(A) \text{Carbon}"),
        ("Answer: Yes, because 6 > 5", "Yes"),
        ("Answer: 6 Explanation: 2 + 4", "6"),
        ("Answer: 6 - because", "6"),
        ("Answer: **(C)** 6", "(C) 6"),
        (r"Answer: \begin{equation}6\end{equation}", "6"),
        ("Answer: The value is 6.", "6"),
        ("Answer: The value of n is 6.", "6"),
        (r"Answer: $2\sqrt{3}$ ($\approx 3.46$)", r"2\sqrt{3}"),
        ("Answer: 2√3 (≈ 3.46)", "2√3"),
        ("Answer: the total is 6 apples.", r"6\text{ apples}"),
        ("Answer: (1, 2) and we are done", "(1, 2)"),
        ("Answer: x^2 + 1", "x^2 + 1"),
        (r"Answer: 5\text{ cm}", r"5\text{ cm}"),
        ("Answer: $x$ = $6$", "x = 6"),
    ],
    "hedges": [
        ("Answer: 5 or 6", "5, 6"),
        ("Answer: either $5$ or $6$.", "5, 6"),
        ("Answer: 5, 6", "5, 6"),
        ("Answer: 5 (or 6)", "5, 6"),
        ("Answer: 5. Or maybe 6.", "5, 6"),
        ("Answer: 5\nor 6", "5, 6"),
        ("The answer is 5 apples or perhaps 6 apples", "5, 6"),
        ("The answer is 5 to 6", "5, 6"),
        ("Answer: 5或6", "5, 6"),
        ("Answer: 5–6", "5–6"),
        ("Answer: 5 vs. 6", "5, 6"),
        ("Answer: 5 → 6", "5, 6"),
        ("Answer: 5\n6", "5, 6"),
        ("Answer: 5+", "5+"),
        (r"$\boxed{5}$ or 6", "5, 6"),
        (r"\(\boxed{5}\) (or maybe \(6\))", "5, 6"),
        (r"\boxed{5} or so they say", "5"),
        (r"$\boxed{\frac{1}{2}}$ or $0.5$", r"\frac{1}{2}"),
        ("Answer: 1/2 or 0.5", "1/2"),
        (r"\boxed{5} or \boxed{5.0}", "5"),
        (r"\boxed{5} or maybe 6?", "5, 6"),
        (r"\boxed{5}. Or 6.", "5, 6"),
        (r"Answer: $\boxed{5}$ or 6", "5, 6"),
        (r"\boxed{\sqrt{2}} or approximately 1.41", r"\sqrt{2}"),
        (r"\boxed{\frac{3}{2}}, or $1\frac{1}{2}$", r"\frac{3}{2}"),
        (r"\boxed{5} or 5 cm", "5"),
        ("Answer: 1/2 or 50%", "1/2"),
    ],
    "a place in another's stead": [
        ("So \\boxed{7}.\n\nFinal Answer: The final answer is $8$.", "8"),
        ("It is \\boxed{5}, not \\boxed{6}.", "5"),
        ("Answer: We get 6.", "6"),
        ("The final answer is 6. \\boxed{5}", "5"),
        ("So \\boxed{7/27}, and k + m = 34.\n\nThus the final answer is $34$.", "34"),
        ("Answer: 6\nHence \\boxed{5}", "5"),
        ("\\boxed{6}\n\n### Answer\n\nas was shown", "6"),
        ("So \\boxed{7/27}, and k + m = 34.\n\nAnswer: $34$", "34"),
        ("So \\boxed{7/27}.\n\nAnswer: $\\boxed{34}$", "34"),
        ("\\boxed{5}, since the answer is an integer", "5"),
        ("Answer: 5\nThis agrees with the other answer. " + "And so on. " * 400, "5"),
    ],
    "nothing else": [
        ("6", "6"),
        ("$\\frac{1}{2}$", r"\frac{1}{2}"),
        ("x = 6", "x = 6"),
        ("**(B)**", "(B)"),
        ("-1,234.5", "-1,234.5"),
        ("6 cm", r"6\text{ cm}"),
    ],
}

NOT_STATED = {
    "no answer": [
        *(
            "",
            "  \n",
            "It must be 6",
            "so $x = 6$",
            "We have no answer. See step 5",
            "1 + 1 = 2",
            "$1 + 1 = 2$",
            "so 6",
            "I do not know",
            "7" * 201,
        ),
        *("Steps:\n\n1. Identify\n2. Multiply\n3", "I think the value is 35, not 34", "6\n7", "Step 6"),
        *("Remember to put your answer on its own line", "the answered question: 6", "The answer (6) follows"),
    ],
    "questions": [
        *(
            "Is the answer 6?",
            "The answer is Evelyn?",
            "Wait, the answer is 6? Let me check",
            "The answer is 6, right?",
            "What is the answer: 6 or 7?",
        ),
        *("Could it be that the answer is 6?", "答案是6吗？"),
    ],
    "conditions": [
        *(
            "if the answer is 6",
            "Suppose that the answer is 6.",
            "Check whether the answer is 6",
            "If $x = 1$, the answer is 6.",
        ),
        *(
            "Assume x is 1, then the answer is 6.",
            "For $n = 3$, the answer is 6.",
            "Perhaps the answer is 6",
            "如果答案是6",
        ),
        *(
            "Answer: 6 if n is even, and 7 if n is odd",
            "One might think the answer is 6",
            "Let me verify that the answer is 6",
        ),
    ],
    "denials": [
        *(
            "The answer is not 6.",
            "The answer isn't 6",
            "So the answer is definitely not 6",
            "The answer 6 is wrong",
            "答案不是6",
        ),
        *("The answer is 6 is wrong", "The answer is 6, which is wrong.", "The answer is 6 less than 9"),
        "no answer: 6",
        *("The answer is 6 plus 2.", "The answer is $6$ times $3$", "The answer is 6 and a half"),
        *(r"so $x \neq \boxed{6}$", r"不是 $\boxed{6}$", r"It is not $\boxed{6}$."),
        *("The final answer is 6 or more.", "The answer is 6 at most", "It is false that the answer is 6."),
        *("The answer is 6, give or take 1.", "The answer is 6 or so", "The answer is 6 out of 10."),
        "Answer: Let x = 6.",
        *("It is not \\boxed{6}.", "The answer cannot be $\\boxed{6}$", "We cannot have \\boxed{6}"),
        *("I am not convinced the answer is 6", "The answer is 6 in the first case"),
        *("It is not true that the answer is 6.", "I no longer think that the answer is 6.", "Answer: 6 is too small"),
    ],
    "other answers": [
        *("The wrong answer is 6", "John's answer is 6", "My first answer is 6", "So the answer to part (a) is 6"),
        *(
            "Part (b): the answer is 6",
            "For part (a), the answer is 6",
            "the answer in step 3 is 6",
            "the answer to 2 + 4 is 6",
        ),
    ],
    "thoughts": [
        r"<think>\boxed{6}",
        r"<think>\boxed{6}</think> so 7 it is",
        r"◁think▷\boxed{6}",
        r"<|channel|>analysis<|message|>\boxed{6}",
        "<think>a</think> b <think> the answer is 6",
    ],
    "headings": ["#### Step 6", "#### 6. Compute", "#### 6\nWe go on."],
    "solutions": ["Answer: Let $x = 6$", "Answer: Since $x = 6$, "],
    "lists": ["Answer:\n1. First we compute", "Answer:\n1) 2 + 4 = 6"],
}

UNFINISHED = [
    *(
        r"First \boxed{5}. No wait: \boxed{6",
        r"Answer: 6. \boxed{5",
        r"\boxed{5} or \boxed{6",
        r"\boxed{5}\boxed{",
        r"\boxed{6}, no, \boxed{\frac{1}{2}",
    ),
    *("\\boxed{5}. No: \\boxed", "\\boxed{5}. No: \\box", "\\boxed{}", "\\boxed{ } ", "\\boxed{5}, hence \\boxed{}"),
    *(
        "Answer: ",
        "Answer: 5\nNo.\nAnswer:",
        "**Answer:**",
        "\\boxed{5}. So the answer is",
        "<answer>6",
        "Answer: 5\n<answer>",
    ),
    *("Answer: $\\frac{1}{2", "Answer: \\frac{1}{2", "Answer: \\(6", "The answer is $2 + 4"),
    *("The answer is 6. Wait, I forgot one.", "\\boxed{6}. Wait, that is wrong.", "Answer: 6\nNo wait"),
    *("\\boxed{6}. Sorry, that is wrong.", "\\boxed{6} is wrong", "$\\boxed{6}$? No."),
    "\\boxed{6}. Oh, I made a mistake.",
    *("\\boxed{5}. \\boxed{ \\boxed{6}", "The answer is 6. Oh wait, I made an error"),
    *("Answer: 6\nWait, the answer is 7", "Answer: 6, no, 7", "Answer: 6\nSorry, I meant 7", "Answer: 6\nEdit: 7"),
    *("Answer: $", "The answer is 6 +", "The answer is 2 + 4 =", "Answer: 6\n\nCorrection: 7"),
    *(r"$\boxed{6}$ is incorrect.", r"\boxed{6}? No.", "Answer: 6. Actually 7."),
    *("\\boxed{6}\n\nWait, I made a mistake. It is 7.", r"Answer: \boxed{6} is wrong"),
    "\\boxed{5}. \\boxed{" + " " * 9 + "\\boxed{6}",
    "\\boxed{6}. Hmm, so the answer is 7",
]


def cases(table):
    return [pytest.param(*pair, id=f"{name}: {pair[0][:60]!r}") for name, pairs in table.items() for pair in pairs]


@pytest.mark.parametrize(("response", "answer"), cases(STATED))
def test_stated(response, answer):
    assert extract(response) == ((answer,), False, "")


@pytest.mark.parametrize("response", [x for group in NOT_STATED.values() for x in group])
def test_not_stated(response):
    assert extract(response) == ((), False, "no stated answer")


@pytest.mark.parametrize(
    "between",
    [
        *(" Final answer: ", " **Final Answer** ", ". **Answer:** ", "; finally ", ", whence ", ", we find "),
        *(", total: ", " should be ", " oops ", " I made an error, it's ", " hmm let me redo. ", r" \leadsto "),
        *(" ∴ ", "因此", "，答案为", "更正为", "等于", ", multiply by 3: "),
    ],
)
def test_the_second_box_follows(between):
    assert extract(rf"\boxed{{2}}{between}\boxed{{6}}") == (("6",), False, "")


@pytest.mark.parametrize(
    "response",
    [
        *(r"≠ \boxed{6}", r"$\neq \boxed{6}$", r"Answer: $x \neq \boxed{6}$", r"<answer>≠ \boxed{6}</answer>"),
        *(r"#### \neq \boxed{6}", r"The answer is $\neq \boxed{6}$", r"It shouldn't be \boxed{6}", r"isn’t \boxed{6}"),
        *(r"\not=\boxed{6}", r"$x != \boxed{6}$", r"不等于\boxed{6}", r"not `\boxed{6}`"),
        *(r"\boxed{6} is a wrong answer", r"\boxed{6} is invalid", r"\boxed{6} doesn't work"),
        *(r"\boxed{6} (wrong)", r"\boxed{6}, which is wrong"),
        *(r"\boxed{6}. However, this is wrong.", r"\boxed{6} ❌", r"\boxed{6}不对", r"~~\boxed{6}~~"),
    ],
)
def test_a_denied_box_is_read_by_nobody(response):
    assert not any("6" in text for text in extract(response).texts)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"x is \boxed{5} or it is \boxed{6}", "5, 6"),
        *((text, "5") for text in (r"\boxed{5} instead of \boxed{6}", r"\boxed{5}, no longer \boxed{6}")),
        *((text, "5") for text in (r"\boxed{5}. Incorrect options: 3, 4", r"\boxed{5}. False ones are excluded.")),
        *((text, "5") for text in (r"\boxed{5}, impossible otherwise", r"\boxed{5}. Sorry for the length.")),
        *((text, "5") for text in (r"\boxed{5}? Yes, it is.", r"whether or not \boxed{5}", r"Why not \boxed{5}")),
        *((text, "5") for text in (r"\boxed{5}. Hmm, no mistake found.", r"$\boxed{5}$ ~~$\boxed{6}$~~")),
    ],
)
def test_no_denial_of_this_box(response, answer):
    assert extract(response).texts == (answer,)


@pytest.mark.parametrize("response", UNFINISHED)
def test_unfinished(response):
    """It is no licence for an earlier one, and not guessed."""
    assert extract(response) == extract(response, guess=True) == ((), False, "unfinished answer")


@pytest.mark.parametrize(
    "response", ["see step 6", "a circle of radius 6", "at least 6", "between 5 and 6", "Jane has 6"]
)
def test_words_are_no_number(response):
    """A text is only equal to the same text."""
    assert extract(f"Answer: {response}").texts == (f"\\text{{{response}}}",)


@pytest.mark.parametrize("more", ["Answer: 6", "So the answer is 6.", "The final answer is 6. I hope it is correct."])
def test_a_sentence_after_a_box(more):
    """It does not take the box's place, and must not contradict it."""
    assert extract(rf"Hence \boxed{{5}}. {more}").texts == ("5", "6")
    assert extract(rf"Hence \boxed{{6}}. {more}").texts == ("6",)


BOTH = r"So \boxed{5}.", "Answer: 6"


@pytest.mark.parametrize(
    ("template", "first", "last"),
    [
        ("dapo", "6", "6"),
        ("boxed", "5", "5"),
        ("verl-boxed", "5", "5"),
        ("plain", "6", "5"),
        ("other", "6", "5"),
        (None, "6", "5"),
    ],
)
def test_the_template_that_asked_decides(template, first, last):
    assert extract("\n".join(BOTH), template=template).texts == (first,)
    assert extract("\n".join(BOTH[::-1]), template=template).texts == (last,)
    for one, answer in zip(BOTH, "56", strict=True):
        assert extract(one, template=template).texts == (answer,)


@pytest.mark.parametrize(("template", "unfinished"), [("dapo", "Answer:"), ("boxed", r"\boxed{")])
def test_the_place_asked_for_is_unfinished(template, unfinished):
    assert extract("\n".join((*BOTH, unfinished)), template=template).reason == "unfinished answer"


def test_templates():
    """Rewards and preparation do not know each other: here their tables are compared."""
    texts = {name: "".join((x.system, x.before, x.after)) for name, x in text_keys.TEMPLATES.items()}
    box, line = ({name for name, text in texts.items() if mark in text} for mark in (r"\boxed{}", "Answer: $Answer"))
    assert box | line == texts.keys() - {"plain"}
    assert dict.fromkeys(box, "box") | dict.fromkeys(line, "line") == extraction.ASKS_FOR


def test_only_a_box_may_count():
    assert extract("Answer: 6", require_box=True) == ((), False, "no box")
    assert extract(r"Answer: \boxed{6}", require_box=True).texts == ("6",)
    assert extract("\\boxed{6}\nAnswer: 5", require_box=True, template="dapo").texts == ("6",)
    assert extract("It is 6", require_box=True, guess=True).reason == "no box"


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("The probability that she wins is 2/3. <|im_end|>", "2/3"),
        ("It is 7, by AZYUK2A", "7"),
        ("It must be 6", "6"),
        ("thus $\\frac12$", r"\frac12"),
        ("thus $x = 6$, as \\(y = 3\\) said", "y = 3"),
        ("so \\[\n6\n\\]", "6"),
        ("from 5 to -1,234.5%.", "-1,234.5%"),
        ("6 or so. " + "And so on. " * 400, "6"),
    ],
)
def test_guesses(response, answer):
    """The last number or formula, wherever it stands, if that is asked for."""
    assert extract(response) == ((), False, "no stated answer")
    assert extract(response, guess=True) == ((answer,), True, "")


def test_a_sentence_in_a_sentence_without_end():
    """Only the value of the first is looked for."""
    text = "one is -" * 10_000
    assert extract(f"Answer: {text}").texts == (text.strip(" -") + " -",)


def test_what_is_stated_is_not_guessed():
    assert extract("Answer: 6, of 7", guess=True) == (("6",), False, "")
    assert extract("no number", guess=True) == ((), False, "no stated answer")


# Properties

END = st.sampled_from(["<|im_end|>", "<|endoftext|>", "</s>", "<｜end▁of▁sentence｜>", " ", "\n", "\t", "*", "**"])


@given(st.sampled_from([x for group in STATED.values() for x, _ in group]), st.lists(END, max_size=5).map("".join))
def test_what_ends_a_text_changes_nothing(response, end):
    """Tokens, spaces and stars."""
    assert extract(response + end) == extract(response)


STEPS = [
    "First, $x = {a}$, so $2x = {b}$.",
    "Step {a}: we add {b} and {c}, which gives {a}.",
    "{a}. Compute $\\frac{{{a}}}{{{b}}} \\cdot {c} = {a}$.",
    "### {a}. The next case",
    "So the answer to part (a) is {a}.",
    "Wait, the answer is {a}? Let me check.",
    "If the answer is {a}, then $y = {b}$.",
    "Hmm, the answer is not {a}, since {b} > {c}.",
    "We want an answer of the form $m + n$; here $m = {a}$.",
    "\\[ \\sqrt{{{a}^2}} = {a} \\]",
    "- $f({b}) = {a}$\n- $f({c}) = {b}$",
    "Maybe the answer is {a}, but that needs a proof.",
    "Therefore $n = {a}$.",
    "What is the answer when $n = {a}$?",
    "The number of ways is {a}",
    "To verify that the answer is {a}, we put $x = {a}$ in.",
]
ENDS = [
    *(
        "So it is \\boxed{{{a}}}.",
        "Answer: {a}",
        "**Final Answer:** ${a}$",
        "The answer is {a}.",
        "<answer>{a}</answer>",
    ),
    "Thus, the final answer is $\\boxed{{{a}}}$.",
]


@pytest.mark.parametrize("seed", range(250))
def test_a_derivation_that_is_cut_states_nothing(seed):
    """All its steps have the right number in them; only the end states it."""
    rng = random.Random(seed)
    answer = str(rng.randint(2, 999))

    def filled(line):
        return line.format(a=answer, b=rng.randint(2, 99), c=rng.randint(2, 99))

    steps = "".join(filled(rng.choice(STEPS)) + rng.choice(["\n", "\n\n", " "]) for _ in range(rng.randint(3, 30)))
    text = f"Let $n$ be the number.\n{steps}\n\n"
    end = filled(rng.choice(ENDS))
    assert extract(text + end).texts == (answer,)
    for cut in {int(len(text) * share) for share in (0.3, 0.5, 0.7, 0.9, 1)} | {
        rng.randrange(10, len(text)) for _ in range(20)
    }:
        assert not extract(text[:cut]).texts, text[:cut][-80:]


@pytest.mark.parametrize("after", ["", " " * 30, "\n" * 30 + "<think>"])
def test_a_box_that_is_cut_takes_back_the_one_before(after):
    assert extract("So \\boxed{3}. Wait, it is \\boxed" + after).texts == ()
    assert extract("So \\boxed{3}, as was to be shown.").texts == ("3",)


@given(st.text(st.sampled_from("answer is:5\n $\\boxed{}()[],*or不答案<>/"), max_size=60))
def test_fuzz_extract(text):
    found = extract(text)
    assert bool(found.texts) == (not found.reason)
    assert all(x.strip() for x in found.texts)
    guessed = extract(text, guess=True)
    assert guessed == found or (guessed.guessed and found.reason == "no stated answer")


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
