r"""The value in what follows "the answer is": a number, a formula or a word, without the sentence around it.

Only what stands first is the answer. What follows it is a further part ("5 or 6"), a unit ("5 apples") or explains
("5, since 2 + 3 = 5").
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from scale.rewards.spelling import number, plain, without_percent

MARKS = " \t\r\n*_`\"'#>~"
"""Marks around an answer that are not part of it: those of Markdown, quotes and spaces."""

_FUNCTIONS = (
    "sqrt cbrt sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp pi max min gcd lcm mod choose inf"
).replace(" ", "|")

_TOKEN = re.compile(
    rf"""
    (?P<formula>\$\$[^$]+\$\$|\\\[(?:(?!\\\]).)*+\\\]|\\\((?:(?!\\\)).)*+\\\)|\$(?!\s*[\d.,]+\s+[A-Za-z]{{2}})[^$\n]+\$)
    |(?P<unclosed>\$\$|\\[(\[]|\$(?![\s*_.,]*\Z)(?!\s*[-+]?[\d.,]*\d[*_.,]*\s*(?:[A-Za-z(;!?\n]|\Z)))
    |(?P<open>\\?\{{|[(\[])
    |(?P<close>\\?\}}|[)\]])
    |(?P<blank>[ \t]+)
    |(?P<part>
        \\(?:[A-Za-z]+|[^A-Za-z()\[\]{{}}\s])|\\[ ]
        |\d{{1,3}}(?:,\d{{3}})+(?![\d,])(?:\.\d+)?|\d+(?:,\d+)*+(?:\.\d+)?|\.\d+
        |(?<=[\d)])(?!or|to|and)[A-Za-z]{{1,3}}(?![A-Za-z])
        |(?:{_FUNCTIONS}|(?!(?:a|I)\s+[A-Za-z]{{2}})[A-Za-z])(?![A-Za-z\u00c0-\u024f])
        |[–—](?=\s?\d)|(?<=[A-Za-z)])'|:(?=[ ]?\d)|,(?=\d)
        |(?!(?<=\$)!)[-+*/^_=<>|!%&$°′″±∓×÷·⋅∙√∞≤≥≠≈∈∪∩∅∠⁰¹²³⁴-⁹⁻ⁿ½⅓¼⅔¾€£¥\u0370-\u03ff]
    )
    """,
    re.VERBOSE | re.DOTALL,
)

_WRAPPING = re.compile(
    r"\\?\$|\\[()\[\]]|\*\*(?=[\s(])|(?<=[\s)])\*\*|\\(?:begin|end)\{(?:equation|align|aligned|gather|gathered)\*?\}"
)

_NOTE = re.compile(r"(?<![A-Za-z])\s*\{[A-Za-z ]{2,60}\}|[(\[][\s$(\\]*(?:≈|approx|~|=)")

_UNFINISHED = re.compile(r"(?:\s[-+/]|[=^×·÷]|\\(?:times|cdot|div|pm|leq?|geq?|frac|sqrt))\s*\Z")
"""The end of a formula that was cut off."""

_LEAD = re.compile(
    r"(?:[\s*_`\"'#~:=,}\u2190-\u21ff\u2600-\u27bf\ufe0f\U0001f300-\U0001faff]|(?<=\n)(?:>|[-•][ ]+(?=\S))|"
    r"(?:therefore|thus|hence|then|so|simply|just|indeed|exactly|approximately|about|equal to|given by|either|option|"
    r"choice|actually|now|also|only|we (?:get|have|obtain|find)(?: that)?|"
    r"(?:a|the) total of|the (?:set|number|interval|ordered pair|pair|point|value|"
    r"integer|fraction|matrix|vector|expression|polynomial|function)(?: of| is)?|约|等于|是|为|选)(?![A-Za-z]),?)*+",
    re.IGNORECASE,
)

_JOINT = re.compile(
    r"(?:\s*[,;、，]\s*(?:(?:and|or)\b)?|[\s.(]*(?:and|or|alternatively|to|vs|versus)\b\.?|\s*(?:或者?|和|与|及|→|->)|"
    r"[ \t.*_]*\n[ \t]*(?:(?=[-+]?\d[\d.,/]*[ \t*]*(?:\n|\Z))|"
    r"[-•][ ]+(?=(?:\$[^$\n]+\$|[-+]?\d[\d.,/]*)[ \t.*]*(?:\n|\Z))))"
    r"(?:\s*(?:possibly|maybe|perhaps|also|even|else|alternatively)\b)*\s*[*_`]*",
    re.IGNORECASE,
)

_NOT = re.compile(
    r"\W*(?:\w+ly\s+)?(?:not|isn't|never|no longer|neither|unknown|unclear|uncertain|wrong|incorrect|false)\b|不",
    re.IGNORECASE,
)

_DENIED = re.compile(
    r"\W{0,3}(?:(?:(?:which|that|this)\s+)?(?:is|was|are|seems)\s+(?:\w+ly\s+)?(?:not|wrong|incorrect|false|impossible|too)|"
    r"can(?:no|')t be|(?:not\s+|in)(?:correct|right)|wrong|false|at\s+(?:most|least)|"
    r"and\s+(?:an?|one|two|three)[\s-]+(?:half|halves|thirds?|quarters?|fourths?|fifths?|eighths?)|"
    r"(?:times|plus|minus|over)\s+[$\\(]*\d+|(?:or\s+|and\s+)?(?:less|more|greater|fewer|larger|smaller|higher|lower|below|above|up))\b",
    re.IGNORECASE,
)

_CONDITION = re.compile(
    r"\W*(?:if|unless|only if|provided|assuming|otherwise|when (?!rounded|simplified)|give or take|or so|out of|"
    r"in (?:the|this|that) (?:first|second|other|last)? ?case)\b",
    re.IGNORECASE,
)

_UNIT = re.compile(r"(?:\\[,; ]|[ \t*_~])*+([A-Za-z\u4e00-\u9fff°%](?:[^\W\d]|[ /²³^%'-]|(?<=\^)\d)*+)")

_NO_UNIT = re.compile(
    r"\b(?:and|or|but|because|since|as|so|which|where|when|for|with|by|from|if|is|are|was|has|have|had|not|that|then|vs|"
    r"thus|hence|therefore|now|here|after|in|at|on|to|we|it|this|these|given|who|using|i|let|also|indeed|note)\b",
    re.IGNORECASE,
)

_QUESTION = re.compile(r"[^.?!。？！\n]*+(?:\.(?=\w)[^.?!。？！\n]*+)*+([?？])|[^。\n]*吗")

_WORDS = re.compile(r"(?![\s*_`\"'#>~]*(?i:let|suppose|assume)\b)[\s*_`\"'#>~]*([^.。\n]*+(?:\.(?=\S)[^.。\n]*+)*+)")

_REASON = re.compile(r"(?<![\s,]),?\s++(?:because|since)\b")

_SENTENCE = re.compile(
    r"(?:(?!\b(?:if|when|unless|whether|where|which|no|not|step|case|part|suppose|assume|assuming|maybe|"
    r"is|are|equals)\b)[^=.\n]){1,200}?\b(?:is|are|equals)\s+(?=[*_]*(?:[-+\d$]|\\[(\[a-z]|[(\[]\d))",
    re.IGNORECASE,
)
"""A sentence up to its value, as in "the number of pairs is 12"."""

_OF = re.compile(r"\bof\s+\Z", re.IGNORECASE)

_GIVEN = re.compile(
    r"(?:let|given|since|as|suppose|assume|assuming|consider|substituting|setting|when|for|with|using|because)\b[^\n]*=",
    re.IGNORECASE,
)
"""The beginning of a solution, and not an answer."""

_CHOICE = re.compile(r"([A-J])[.):][ \t]+(?=\S)")


class Value(NamedTuple):
    """An answer in LaTeX, where it ends in the text, and whether it is words; an empty one is not finished."""

    text: str
    end: int
    words: bool = False


def value(said: str) -> Value | None:
    r"""Return the value that a text begins with, or None if it gives none.

    Several parts are joined by commas, without their units. A value that is not finished, such as a formula that does
    not close, is empty.

    Examples
    --------
    >>> [value(x).text for x in ("$5$.", "5 cm, as shown", "5 or 6", "Evelyn.", r"$\frac{1}{2")], value("not 5")
    (['5', '5\\text{ cm}', '5, 6', 'Evelyn', ''], None)
    """
    return _value(said, sentences=True)


def _value(said: str, *, sentences: bool) -> Value | None:
    at = _lead(said)
    if _NOT.match(said, at):
        return None
    if _OF.search(said, 0, at) and (place := _SENTENCE.match(said, at)):
        at = place.end()
    choice = _CHOICE.match(said, at)
    parts: list[str] = []
    unit, end = "", at
    if choice:
        at = choice.end()
    while True:
        found = _run(said, at)
        if found is None:
            return Value("", len(said))
        after, text = found
        if not text:
            break
        unit, end = _unit(said, after)
        parts.append(text)
        joint = _JOINT.match(said, end)
        if joint is None:
            break
        at = joint.end()
    label = f"({choice[1]}) " if choice else ""
    if not parts:
        words = _words(said, at, sentences=sentences)
        return words and words._replace(text=f"{label}\\text{{{words.text}}}" if label else words.text)
    if _QUESTION.match(said, end) or _DENIED.match(said, end) or _CONDITION.match(said, end):
        return None
    only = f"\\text{{ {unit}}}" if unit and len(parts) == 1 else ""
    return Value(label + ", ".join(distinct(parts)) + only, end)


def distinct(parts: Iterable[str]) -> list[str]:
    r"""Return the parts of an answer without those that say an earlier number again.

    Examples
    --------
    >>> distinct([r"\frac{1}{2}", "0.5", "x", "x "])
    ['\\frac{1}{2}', 'x']
    """
    found: dict[object, str] = {}
    for part in map(str.strip, parts):
        short = _exact(plain(part)) if len(part) < LONGEST_NUMBER else None
        found.setdefault(part if short is None else short, part)
    return [x for x in found.values() if x]


_MIXED = re.compile(r"(\d+)\s*(\\[dt]?frac.*)")


def _exact(part: str) -> Fraction | None:
    """Return the value of a number, a percentage or a mixed number."""
    bare, mixed = without_percent(part), _MIXED.fullmatch(part)
    if mixed:
        rest = number(mixed[2])
        return None if rest is None else int(mixed[1]) + rest
    found = number(part if bare is None else bare)
    return found if bare is None or found is None else found / 100


LONGEST_NUMBER = 40
"""Characters of a number that is compared with the other parts of an answer."""


def _lead(said: str) -> int:
    match = _LEAD.match(said)
    return match.end() if match else 0


LONGEST_NOTE = 200
"""Characters of a note in brackets after a value."""


def _run(said: str, at: int) -> tuple[int, str] | None:
    """Return where the mathematics that starts at a place ends, and its text; None if it is cut off."""
    start = at
    opened: list[int] = []
    while at < len(said):
        token = _TOKEN.match(said, at)
        if token is None:
            if opened and (said[opened[-1]] == "{" or said[at] in ",;"):
                at += 1  # words in the braces of a command, or commas in a tuple
                continue
            break
        if token["unclosed"]:
            return None
        if token["open"]:
            if at > start and said[at - 1].isspace() and _NOTE.match(said, at, at + LONGEST_NOTE):
                break
            opened.append(at)
        elif token["close"]:
            if not opened:
                break
            opened.pop()
        at = token.end()
    if opened:
        rest = said[opened[0] + 1 :].strip(MARKS + ".")
        if at == len(said) and rest:
            return None
        at = opened[0]  # words in brackets explain
    elif at == len(said) and _UNFINISHED.search(said, start):
        return None
    text = _WRAPPING.sub("", said[start:at])
    text = re.sub(r"\s[-+]\Z", "", text.rstrip(MARKS + "{=/<^,:")).strip()
    return at, text if re.search(r"[^\W_]|[∞∅½⅓¼⅔¾]|\\\{", text) else ""


def _unit(said: str, at: int) -> tuple[str, int]:
    """Return the unit after a value, words up to one that goes on with the sentence, and where it ends."""
    unit = _UNIT.match(said, at)
    words = _NO_UNIT.split(unit[1], maxsplit=1)[0] if unit else ""
    cut_off = unit is not None and words == unit[1] and re.match(r"[\d$\\(:]", said[unit.end() : unit.end() + 1])
    if unit is None or not words.strip() or len(words.split()) > 4 or cut_off:
        return "", at
    return words.strip(), unit.start(1) + len(words.rstrip())


def _words(said: str, at: int, *, sentences: bool) -> Value | None:
    """Return an answer in words: the rest of the line, up to the end of the sentence."""
    line = _WORDS.match(said, at)
    if line is None or _QUESTION.match(said, at) or _GIVEN.match(said, at):
        return None
    text = line[1].strip(MARKS + "$")
    if not any(x.isalnum() for x in text):
        return None
    is_place = _SENTENCE.match(said, at) if sentences else None
    if is_place and (found := _value(said[is_place.end() :], sentences=False)) is not None and not found.words:
        return found._replace(end=is_place.end() + found.end)
    text = _REASON.split(text, maxsplit=1)[0]
    return Value(f"\\text{{{text}}}" if any(x.isdigit() for x in text) else text, line.end(), words=True)
