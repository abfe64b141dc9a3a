"""The reward of mathematical answers: 1 for a response whose answer equals the right one, by Math-Verify, else 0.

verl calls `compute_score` (`reward.custom_reward_function.path=pkg://scale.rewards.scoring`), in threads, Ray workers
or the main process alike. What could not be decided, in time or at all, scores 0 and is reported as *unverified*.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from scale.rewards import verifier
from scale.rewards.extraction import Extracted, extract
from scale.rewards.spelling import (
    BASES,
    TOLERANCES,
    based,
    choice,
    error_allowed,
    integer,
    is_finite,
    is_phrase,
    is_prose,
    is_words,
    number,
    plain,
    same_text,
    unwrap,
    without_percent,
)
from scale.rewards.units import conflict, letter_unit, measured
from scale.rewards.verifier import CORRECT, UNVERIFIED, WRONG, Judgement, Pair
from theory.base import require

TIMEOUT = 5.0
"""Seconds of CPU time for a comparison; most take milliseconds."""

LONGEST_TIMEOUT = 86_400.0
"""Seconds; the kernel's timers and sockets take much longer times for errors."""

WORKERS = 2
"""Comparisons at a time in each process that calls `compute_score`; verl has several such processes."""

LONGEST = 1_000
"""Characters of a boxed answer, unless the right one is half as long; a longer one is not compared."""

SHOWN = 200
"""Characters of an answer that are reported."""


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    *,
    timeout: float = TIMEOUT,
    workers: int = WORKERS,
    require_box: bool = False,
    guess: bool = False,
    tolerance: str = "exact",
    **kwargs: Any,
) -> dict[str, Any]:
    r"""Return the score of a response; where Math-Verify is needed and not installed, this is an error.

    Parameters
    ----------
    data_source, **kwargs : What verl hands over; not used: every data set is scored alike.
    extra_info : Its `template` is the name of the prompt's template and its `problem` the text of the problem, where
        that is known: `python -m scale prepare` writes both.
    solution_str : The model's response, decoded.
    ground_truth : The right answer, in LaTeX or as a number.
    timeout : Limit on the comparison, in seconds of CPU time (`scale.rewards.verifier`).
    workers : Processes that compare; the first call decides.
    require_box : Whether only a box counts as an answer.
    tolerance : How far two numbers may be apart, by the name of a grader in `TOLERANCES`; "exact" for not at all.
    guess : Whether the last formula or number counts where no answer is stated (`scale.rewards.extraction`).

    Returns
    -------
    dict : `score` and `acc`: 1.0 or 0.0. `unverified`: 1.0 if it could not be decided, which scores 0. `guessed`: 1.0
        if the response states no answer and one was guessed. `pred`: the answer. `reason`: why it is not correct, where
        that is known.

    Examples
    --------
    >>> compute_score("aime24", r"Thus \boxed{33}.", "033")
    {'score': 1.0, 'acc': 1.0, 'unverified': 0.0, 'guessed': 0.0, 'pred': '33', 'reason': ''}
    """
    if not isinstance(solution_str, str):
        raise ValueError(f"solution_str: expected a text, got {type(solution_str).__name__}")
    if not isinstance(ground_truth, str) or not ground_truth.strip():
        raise ValueError(f"ground_truth: expected a text, got {ground_truth!r:.80}")
    require.in_range("timeout", timeout, 0, LONGEST_TIMEOUT, open_low=True)
    require.count("workers", workers, 1)
    require.one_of("tolerance", tolerance, TOLERANCES)
    found = extract(solution_str, template=_known(extra_info, "template"), require_box=require_box, guess=guess)
    judgement = Judgement(WRONG, found.reason)
    for text in found.texts:
        if len(text) > max(LONGEST, 2 * len(ground_truth)):
            judgement = Judgement(UNVERIFIED, f"an answer of {len(text)} characters")
        else:
            problem = _known(extra_info, "problem")
            gold = plain(ground_truth)
            judgement = decide(
                gold, plain(text), problem=problem, tolerance=tolerance, timeout=timeout, workers=workers
            )
        if judgement.outcome != CORRECT:
            break
    return _result(judgement, found)


def _known(extra_info: Mapping[str, Any] | None, name: str) -> str | None:
    """Return a text in `extra_info`, or None if it is not there; others may write something else under its name.

    Examples
    --------
    >>> _known({"problem": "1 + 1 = ?"}, "problem"), _known({"problem": 7}, "problem"), _known(None, "problem")
    ('1 + 1 = ?', None, None)
    """
    value = (extra_info or {}).get(name)
    return value if isinstance(value, str) else None


def _result(judgement: Judgement, found: Extracted) -> dict[str, Any]:
    score = float(judgement.outcome == CORRECT)
    unverified = float(judgement.outcome not in (CORRECT, WRONG))
    answer = " | ".join(found.texts)[:SHOWN]
    return {
        "score": score,
        "acc": score,
        "unverified": unverified,
        "guessed": float(found.guessed),
        "pred": answer.encode("utf-8", "replace").decode(),  # half of a surrogate pair has no UTF-8
        "reason": judgement.reason,
    }


def decide(
    gold: str,
    answer: str,
    *,
    problem: str | None = None,
    tolerance: str = "exact",
    timeout: float = TIMEOUT,
    workers: int = WORKERS,
) -> Judgement:
    """Decide whether an answer is right: equal texts and plain numbers at once, the rest by Math-Verify.

    Both are LaTeX, spelt plainly (`scale.rewards.spelling.plain`). `problem` is the text of the problem, or None.
    `tolerance`, `timeout` and `workers` are as in `compute_score`.
    """
    pairs = []
    for one, other in readings(gold, answer, problem):
        if same_text(one) == same_text(other):
            return Judgement(CORRECT)
        if (first := integer(one)) is not None and first == integer(other):
            return Judgement(CORRECT)
        value, found = number(one), number(other)
        if value is not None and found is not None:
            if abs(value - found) <= error_allowed(value, tolerance) * abs(value):
                return Judgement(CORRECT)
            if is_finite(value) == is_finite(found):
                continue
        if not (is_words(same_text(one)) or is_phrase(one) or is_phrase(other)):
            pairs.append(Pair(one, other, tolerance))
    if is_prose(measured(gold).value):
        return Judgement(UNVERIFIED, "the right answer is words around a value")
    if not pairs:
        return Judgement(WRONG)
    return verifier.shared(workers).compare(pairs, timeout)


def readings(gold: str, answer: str, problem: str | None = None) -> list[tuple[str, str]]:
    r"""Return the pairs one of which must be equal: an answer may do without the letter of a choice, a unit, a base.

    A percent sign is a unit that may be left out, or a hundredth.

    Examples
    --------
    >>> readings("50", "50"), readings(r"50\%", "0.5")
    ([('50', '50')], [('50', '0.5'), ('\\frac{50}{100}', '0.5')])
    >>> readings("12", r"\textbf{(B)}\ 12"), readings("5", r"5\text{ cm}"), readings("6m", "6")
    ([('12', '12')], [('5', '5')], [('6m', '6')])
    """
    chosen, choosing = choice(gold), choice(answer)
    if chosen is not None and choosing is not None:
        if not (chosen[1] and choosing[1]):
            return [(chosen[0], choosing[0])]
        if chosen[0] != choosing[0]:
            return []
        gold, answer = chosen[1], choosing[1]
    elif chosen is not None and chosen[1]:
        gold = chosen[1]
    elif choosing is not None and choosing[1]:
        answer = choosing[1]
    return [pair for one, other in _without_units(gold, answer, problem) for pair in _percents(one, other)]


def _without_units(gold: str, answer: str, problem: str | None) -> list[tuple[str, str]]:
    """Return the pair of answers without their units; none if the units are known and differ."""
    base, other = based(gold), based(answer)
    if base is not None or other is not None:
        return _without_bases(gold, answer, problem)
    first, second = measured(gold), measured(answer)
    if not first.unit:
        first = letter_unit(gold, problem) or first
    if not second.unit:
        second = letter_unit(answer, problem) or second
    if first.unit and second.unit and conflict(first.unit, second.unit):
        return []
    pairs = [(first.value, second.value)]
    if bool(first.unit) != bool(second.unit) and (gold[-1:].isalpha() or answer[-1:].isalpha()):
        pairs.append((unwrap(gold), unwrap(answer)))  # "6 \\text{m}" may be 6 times m
    return pairs


def _without_bases(gold: str, answer: str, problem: str | None) -> list[tuple[str, str]]:
    """Return a pair of digits, if digits and base agree; the answer may leave out the base that the right one says.

    Digits are compared as a text: a problem that asks for 42 in base 8 is not solved by 42.
    """
    first, second = based(gold), based(answer)
    if first is not None and second is not None:
        return [(first[0], first[0])] if first == second else []
    if first is not None:
        return [(first[0], first[0])] if (integer(answer) or answer) == first[0] else []
    assert second is not None
    word = BASES[second[1]] if second[1] < len(BASES) else "-"
    named = re.search(rf"base[\s-]*\$?(?:{second[1]}(?!\d)|{word})", problem or "", re.IGNORECASE)
    return [(gold, second[0])] if second[1] == 10 or named else []


def _percents(gold: str, answer: str) -> list[tuple[str, str]]:
    bare_gold, bare_answer = without_percent(gold), without_percent(answer)
    pairs = [(gold if bare_gold is None else bare_gold, answer if bare_answer is None else bare_answer)]
    if bare_gold is not None and bare_answer is None:
        pairs.append((f"\\frac{{{bare_gold}}}{{100}}", answer))
    if bare_gold is None and bare_answer is not None:
        pairs.append((gold, f"\\frac{{{bare_answer}}}{{100}}"))
    return pairs


def can_read(gold: str, *, timeout: float = TIMEOUT, workers: int = WORKERS) -> bool:
    r"""Return whether a right answer can be read, so that other spellings of it are recognized.

    Examples
    --------
    >>> can_read("025"), can_read("是"), can_read("Tom has 7 apples.")
    (True, True, False)
    """
    gold = plain(gold)
    if is_prose(measured(gold).value):
        return False
    pairs = []
    for text, _ in readings(gold, "0"):
        if number(text) is not None or integer(text) is not None or is_words(same_text(text)):
            return True
        pairs.append(Pair(text, "0"))
    if not pairs or choice(gold) is not None:
        return True
    # Against another answer, so that something is compared.
    return verifier.shared(workers).compare(pairs[:1], timeout).outcome != UNVERIFIED


def answer_reader() -> Callable[[str], bool] | None:
    """Return `can_read`, or None if Math-Verify is not installed."""
    return None if find_spec("math_verify") is None else can_read


def check() -> None:
    """Compare two answers, so that a missing Math-Verify is found before a run starts."""
    judgement = decide(r"\sqrt{8}", r"2\sqrt{2}")
    if judgement.outcome != CORRECT:
        raise ValueError(f"reward: expected Math-Verify to find a root equal to twice another, got {judgement}")
