"""The reward: a table of tricky answers, and what is reported."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from scale.evaluation import problems
from scale.rewards import scoring, verifier
from scale.rewards.extraction import Extracted

pytestmark = pytest.mark.skipif(find_spec("math_verify") is None, reason="needs Math-Verify")


SLOW = r"\boxed{9^{9^{9^{9}}}}"
"""A power that is computed without letting go of the interpreter: no thread and no handler of a signal can stop it."""


LIMIT = 0.5


def outcome(gold, response, **arguments):
    result = scoring.compute_score("any", response, gold, **arguments)
    assert list(result) == ["score", "acc", "unverified", "guessed", "pred", "reason"]
    assert result["score"] == result["acc"] in (0.0, 1.0)
    assert not (result["score"] and result["unverified"])
    result["pred"].encode()
    return "unverified" if result["unverified"] else "right" if result["score"] else "wrong"


def boxed(answer):
    return f"So it is \\boxed{{{answer}}}."


RIGHT = {
    "fractions": [
        (r"\frac{1}{2}", "0.5"),
        ("0.5", "1/2"),
        (r"\frac12", r"\dfrac{1}{2}"),
        (r"\frac{3}{4}", r"\tfrac34"),
        (r"-\frac{1}{2}", r"\frac{-1}{2}"),
        ("33", r"\frac{66}{2}"),
    ],
    "mixed numbers": [
        (r"2\frac{1}{2}", "2.5"),
        ("2.5", r"2\frac{1}{2}"),
        ("2 1/2", "2.5"),
        (r"\frac{5}{2}", "2 1/2"),
    ],
    "sets": [
        (r"\{1,2\}", r"\{2,1\}"),
        ("1,2", "2,1"),
        ("1,2", r"\{1,2\}"),
        (r"\{1,2\}", "1 and 2"),
        (r"3\pm\sqrt{2}", r"3+\sqrt{2},3-\sqrt{2}"),
        (r"\emptyset", r"\varnothing"),
        ("$3$, $4$", "4,3"),
        ("3,5", "3或5"),
    ],
    "intervals and tuples": [
        ("[0,1)", "[0, 1)"),
        (r"(-\infty, 2]\cup[3,\infty)", r"(-\infty,2] \cup [3,+\infty)"),
        ("(0,1)", r"x\in(0,1)"),
        ("1<x<2", "(1,2)"),
        ("(1,2,3)", "(1, 2, 3)"),
    ],
    "units": [
        ("5", r"5\text{ cm}"),
        ("5", "5 cm"),
        (r"5\text{ cm}", "5"),
        ("10", r"10\,\mathrm{km}"),
        (r"3 \times 10^{8} \mathrm{m/s}", r"3\times 10^8"),
        (r"\$5", "5"),
        ("5", r"\$5.00"),
    ],
    "percent": [
        (r"50\%", r"50\%"),
        (r"50\%", "0.5"),
        (r"50\%", "50"),
        ("50", r"50\%"),
        ("0.5", r"50\%"),
        (r"12.5\%", r"\frac{1}{8}"),
        (r"50\%", r"50\text{ percent}"),
    ],
    "degrees": [
        (r"90^\circ", "90"),
        ("90", r"90^{\circ}"),
        ("90", "90°"),
        ("90", r"90\text{ degrees}"),
    ],
    "integers": [
        ("033", "33"),
        ("33", "033"),
        ("025", "25.0"),
        ("000", "0"),
        ("073", r"\textbf{73}"),
        ("-3", "−3"),
        ("3", "+3"),
        ("1024", "2^{10}"),
        ("10!", "3628800"),
    ],
    "thousands": [
        ("1234", "1,234"),
        ("1,234", "1234"),
        ("1000000", r"1\,000\,000"),
        ("1000000", "1{,}000{,}000"),
        ("1000000", "10^6"),
        ("1500", "1.5e3"),
        ("6e8", r"6 \times 10^8"),
    ],
    "infinity": [
        (r"\infty", "∞"),
        (r"\infty", "+∞"),
        (r"\infty", "inf"),
        (r"\infty", r"\text{Infinity}"),
        ("Infinity", r"+\infty"),
        ("Infinity", r"\infty"),
        ("-Infinity", r"-\infty"),
        (r"(-\infty,2]", "(-∞, 2]"),
    ],
    "Chinese": [
        ("15", r"15\text{元}"),
        ("15", "15 平方厘米"),
        ("15", "１５"),
        ("15", "答案是15"),
        ("是", r"\text{是}"),
    ],
    "algebra": [
        (r"2\sqrt{2}", r"\sqrt{8}"),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt 3}"),
        ("x^2+2x+1", "(x+1)^2"),
        ("y=2x+1", "y = 1+2x"),
        ("15", "x=15"),
        ("x=15", "15"),
        (r"2\pi", "6.283185307"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}"),
        (r"\text{Evelyn}", "Evelyn"),
        ("C", r"\text{(C)}"),
        ("5", r"\boxed{5}"),
        ("5", "5."),
    ],
}


WRONG = {
    "numbers": [
        ("-3", "3"),
        ("33", "3300"),
        (r"\frac{1}{3}", "0.333"),
        (r"\pi", "3.14"),
        ("0", r"1\,000"),
        ("2", r"2\sqrt{2}"),
    ],
    "large": [("100000000000000000000001", "100000000000000000000002")],
    "sets": [(r"\{1,2\}", r"\{1,2,3\}"), ("33", "33 or 34"), ("33", "33, 34"), ("1,2", "1")],
    "intervals and tuples": [("[0,1)", "[0,1]"), ("(2,3)", "(3,2)"), ("(1,2,3)", "(1,3,2)"), ("1:2", "1:3")],
    "percent": [(r"50\%", "0.05"), (r"50\%", r"5\%")],
    "infinity": [
        (r"\infty", r"-\infty"),
        ("Infinity", "-Infinity"),
        (r"\infty", "NaN"),
        (r"\infty", "1e999"),
        (r"\infty", "x"),
        ("5", "Infinity"),
        ("5", "nan"),
    ],
    "texts": [("是", "否"), (r"\text{Yes}", r"\text{No}"), ("A", "B")],
    "nothing": [("4", ""), ("4", "  "), ("4", "?")],
}


def table(groups):
    return [pytest.param(*pair, id=f"{name} {' = '.join(pair)}") for name, pairs in groups.items() for pair in pairs]


@pytest.mark.parametrize(("gold", "answer"), table(RIGHT))
def test_right_answers(gold, answer):
    assert outcome(gold, boxed(answer)) == "right"


@pytest.mark.parametrize(
    "gold", ["NaN", "proof", "Tom has 7 apples.", "We add 3 + 4. So it is 7.", r"First \boxed{3}, then \boxed{7}"]
)
def test_words_around_a_value_are_no_right_answer(gold):
    """Prepared data lists them; a response that says the same is right, any other one is undecided."""
    assert outcome(gold, boxed("7")) == "unverified"
    assert outcome(gold, boxed(gold)) == "right"
    assert not scoring.can_read(gold)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("AB=4,CD=5", "4, 5"),
        (r"\frac{ab+cd}{2}", r"\frac{cd+ab}{2}"),
        ("2(ab+bc+ca)", "2ab+2bc+2ca"),
        ("x_{max}=2, x_{min}=1", "2, 1"),
        (r"\text{Area}=10, \text{Perimeter}=14", "10, 14"),
        (r"\left[\begin{array}{cc}1&2\\3&4\end{array}\right]", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
        (r"\frac{NO}{BO}=\frac{1}{\sqrt{6}}", r"\frac{1}{\sqrt{6}}"),
        (r"So the answer should be \boxed{004}. In short: \boxed{004}", "4"),
        (r"So the answer should be \\boxed{004}. In short: \\boxed{004}", "4"),
        (r"Therefore the set of all solutions is \boxed{x \in [-2,7]}.", r"x \in [-2,7]"),
    ],
)
def test_words_around_a_right_answer_that_is_read(gold, answer):
    """Capital letters name points, and a solution is its only box."""
    assert outcome(gold, boxed(answer)) == "right"
    assert outcome(gold, boxed("3")) == "wrong"


@pytest.mark.parametrize(
    "gold", ["no solution", "Tuesday", r"7 \text{ or } 8 \text{ and } 9", r"5 \text{ square feet per second}"]
)
def test_words_that_are_an_answer(gold):
    assert outcome(gold, boxed("4")) == "wrong"
    assert scoring.can_read(gold)


@pytest.mark.parametrize(("gold", "answer"), table(WRONG))
def test_wrong_answers(gold, answer):
    assert outcome(gold, boxed(answer)) == "wrong"


@pytest.mark.parametrize(
    ("gold", "response", "expected"),
    [
        ("5", r"I tried \boxed{4} and then found \boxed{5}", "right"),
        ("4", r"I tried \boxed{4} and then found \boxed{5}", "wrong"),
        ("5", r"The final answer is 6. \boxed{5}", "right"),
        ("6", r"\boxed{5}. The final answer is 6. I hope it is correct.", "wrong"),
        ("1,2", r"$\boxed{1}$ and $\boxed{2}$", "right"),
        ("2", r"$\boxed{1}$ and $\boxed{2}$", "wrong"),
        ("6", "The answer is 6.", "right"),
        ("6", "**Answer:** $6$", "right"),
        ("1234", r"The answer is \$1,234.", "right"),
        (r"\sqrt{8}", "The answer is:\n$$\n2\\sqrt{2}\n$$", "right"),
        (r"\sqrt{8}", r"Answer: $x=2\sqrt{2}$, as shown", "right"),
        ("2", r"Answer: 2\sqrt{2}", "wrong"),
        ("-7", "Answer: −7", "right"),
        (r"\infty", "The answer is infinity.", "right"),
        (r"\infty", "Answer: -∞", "wrong"),
        ("0.5", r"thus $\frac12$", "wrong"),
        ("15", "所以答案为15元。", "right"),
        ("6", "I do not know", "wrong"),
        ("6", "", "wrong"),
        ("6", r"\boxed{6", "wrong"),
        ("5", r"First \boxed{5}. No: \boxed{6", "wrong"),
        ("5", r"\boxed{5}. The final answer is 6.", "wrong"),
        ("5", r"\boxed{5}. The final answer is 5.0.", "right"),
        ("5", "\\boxed{6}\nAnswer: $5$", "right"),
        ("33", r"\boxed{12} \quad \text{or} \quad \boxed{33}", "wrong"),
        ("12,33", r"\boxed{12} \quad \text{or} \quad \boxed{33}", "right"),
        ("5", "Answer: 5 or 6", "wrong"),
        ("6", "Answer: 5\nAnswer: 6", "right"),
        ("5", "Answer: 5 apples, 6 pears", "wrong"),
        ("5", "Answer: 5 apples", "right"),
        ("3", "Answer: a circle of radius 3", "wrong"),
        ("3", "Answer: see step 3", "wrong"),
        ("Evelyn", "The answer is Evelyn.", "right"),
        ("B", "The correct answer is (B).", "right"),
        ("5", "We have no answer. See step 5", "wrong"),
        ("9", "The last digits are\n\\[Answer: 009\\]", "right"),
        ("9", "Answer: `9`<|im_end|>", "right"),
        ("916", "Answer: 916\n" + "This agrees with all that was said above. " * 70, "right"),
        ("7", "7", "right"),
    ],
)
def test_responses(gold, response, expected):
    """What is stated last."""
    assert outcome(gold, response) == expected


def test_the_right_answer_comes_first():
    """Math-Verify's comparison is not symmetric: an interval answers an inequality, not the other way round."""
    assert outcome("1<x<2", boxed("(1,2)")) == "right"
    assert outcome("(1,2)", boxed("1<x<2")) == "wrong"


def test_a_right_answer_that_cannot_be_read():
    """Nothing is wrong against an answer that nobody can read; the same text is right."""
    gold = r"\frac{1}{"
    assert outcome(gold, boxed("2")) == "unverified"
    assert scoring.compute_score("any", boxed("2"), gold)["reason"] == "the right answer cannot be read"


def test_an_answer_whose_reading_fails():
    """An exception of sympy's says nothing of the answer."""
    found = verifier.judge([verifier.Pair("7", "9" * 5000)])
    assert found == ("unverified", "reading failed: ValueError")


def test_what_is_reported():
    expected = {"score": 0.0, "acc": 0.0, "unverified": 0.0, "guessed": 0.0, "pred": "7", "reason": ""}
    assert scoring.compute_score("any", boxed("7"), "8") == expected
    assert scoring.compute_score("any", "Answer: 7", "7", require_box=True)["reason"] == "no box"
    assert scoring.compute_score("any", "", "7")["reason"] == "no stated answer"
    assert scoring.compute_score("any", "Hm.", "7", guess=True)["reason"] == "no stated answer"
    assert scoring.compute_score("any", r"\boxed{7", "7")["reason"] == "unfinished answer"
    assert scoring.compute_score("any", boxed("?!"), "7")["reason"] == "the answer cannot be read"
    assert scoring.compute_score("any", r"\boxed{7}. The answer is 8.", "7")["pred"] == "7 | 8"
    assert len(scoring.compute_score("any", "7" * 999, "7", guess=True)["pred"]) == scoring.SHOWN


def test_guesses():
    """An option; what is guessed is counted, right or wrong."""
    for gold, expected in (("34", 1.0), ("35", 0.0)):
        assert outcome(gold, "It is not 35. It is 34") == "wrong"
        found = scoring.compute_score("any", "It is not 35. It is 34", gold, guess=True)
        assert (found["score"], found["guessed"], found["pred"]) == (expected, 1.0, "34")
    assert scoring.compute_score("any", "Answer: 34", "34", guess=True)["guessed"] == 0.0


@pytest.mark.parametrize(
    ("extra", "gold", "expected"),
    [
        ({"template": "dapo"}, "34", "right"),
        ({"template": "boxed"}, "34", "wrong"),
        ({"template": "boxed"}, "7/27", "right"),
        ({"template": "dapo", "problem": "What is k + m?", "index": 3}, "34", "right"),
        ({"template": None}, "34", "right"),
        ({"template": ["boxed"]}, "34", "right"),
        ({}, "7/27", "wrong"),
        (None, "34", "right"),
    ],
)
def test_the_template_decides_where_the_answer_is(extra, gold, expected):
    """What is not known, or not ours, decides nothing."""
    response = "So the probability is $\\boxed{7/27}$.\n\nAnswer: $34$"
    assert outcome(gold, response, extra_info=extra) == expected


def test_the_problem_reaches_the_comparison(monkeypatch):
    seen = []
    monkeypatch.setattr(
        scoring, "decide", lambda *_, problem, **__: seen.append(problem) or verifier.Judgement("wrong")
    )
    for extra in ({"problem": "1 + 1 = ?"}, {"problem": 7}, {}, None):
        scoring.compute_score("any", boxed("2"), "2", extra)
    assert seen == ["1 + 1 = ?", None, None, None]


@pytest.mark.parametrize(("digits", "longest"), [(2, 1000), (500, 1000), (600, 1200)])
def test_the_longest_answer(digits, longest):
    """A longer one is not compared, and not wrong."""
    gold = "7" * digits
    assert outcome(gold, boxed(gold.zfill(longest))) == "right"
    assert outcome(gold, boxed(gold.zfill(longest + 1))) == "unverified"
    found = scoring.compute_score("any", boxed(gold.zfill(longest + 1)), gold)
    assert found["reason"] == f"an answer of {longest + 1} characters"


@pytest.mark.parametrize("timeout", [1e-12, scoring.LONGEST_TIMEOUT])
def test_any_timeout(timeout):
    """The shortest is no time at all, and not none."""
    expected = "unverified" if timeout < 1 else "right"
    assert outcome(r"\sqrt{2}", boxed(r"\frac{2}{\sqrt{2}}"), timeout=timeout) == expected


def test_an_outcome_that_is_none():
    found = scoring._result(verifier.Judgement("perhaps"), Extracted(("7",)))
    assert (found["score"], found["unverified"]) == (0.0, 1.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(-(10**9), 10**9), st.integers(-2, 2), st.sampled_from(["{}", "{:,}", "0{}", "{}.0"]))
def test_shortcuts_agree_with_math_verify(value, difference, form):
    """Integers and equal texts are decided without Math-Verify, as it would decide."""
    answer = form.format(value + difference)
    if not answer.startswith("0-"):
        found = scoring.decide(str(value), answer)
        assert found.outcome == ("wrong" if difference else "correct")
        assert found.outcome == verifier.judge([verifier.Pair(str(value), answer)]).outcome


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solution_str": None}, "solution_str: expected a text, got NoneType"),
        ({"ground_truth": 5}, "ground_truth: expected a text, got 5"),
        ({"ground_truth": " "}, "ground_truth: expected a text, got ' '"),
        ({"timeout": 0}, "timeout: expected a finite number in"),
        ({"timeout": 1e9}, "timeout: expected a finite number in"),
        ({"workers": 0}, "workers: expected an integer >= 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        scoring.compute_score(**{"data_source": "any", "solution_str": "5", "ground_truth": "5"} | arguments)


def test_as_evaluation_calls_it():
    """`scale.evaluation.problems` loads it by name; what is unverified is not correct, and counted apart."""
    reward = problems.load_reward("pkg://scale.rewards.scoring:compute_score", {"timeout": LIMIT})
    problem = problems.BenchmarkProblem("key", "math500", [], r"\frac{1}{2}", {"index": 0})
    found = [problems.score(reward, problem, text) for text in (boxed(r"\frac{\sqrt{4}}{4}"), boxed(r"\sqrt{4}"), SLOW)]
    assert found == [(True, False), (False, False), (False, True)]


def test_the_options_of_the_configuration():
    """They are the function's, with its defaults, so that the command line can change them."""
    config = yaml.safe_load((Path(scoring.__file__).parents[1] / "conf" / "table3.yaml").read_text())
    options = config["reward"]["custom_reward_function"]["reward_kwargs"]
    parameters = inspect.signature(scoring.compute_score).parameters
    assert options == {name: parameters[name].default for name in ("guess", "require_box", "tolerance")}


@pytest.mark.needs_verl
def test_as_verl_calls_it():
    """It loads the file as a module of its own, with the arguments of the configuration."""
    from omegaconf import OmegaConf
    from verl.trainer.ppo.reward import get_custom_reward_fn

    settings = {"path": scoring.__file__, "name": "compute_score", "reward_kwargs": {"require_box": True}}
    reward = get_custom_reward_fn(OmegaConf.create({"reward": {"custom_reward_function": settings}}))
    arguments = {"data_source": "any", "ground_truth": r"\frac{1}{2}", "extra_info": {}, "reward_router_address": None}
    assert [reward(solution_str=text, **arguments)["score"] for text in (boxed("0.5"), "Answer: 0.5")] == [1.0, 0.0]
