r"""Answers spelt plainly: Math-Verify reads some spellings as another number (`1\,000` as 0, `2 1/2` as 3/2)."""

from __future__ import annotations

import re

from scale.text import narrow

_GAP = re.compile(r"(?<=\d)(?:\\[,!;: ]|\{,\}|~)\s*(?=\d{3}(?!\d))")
_MIXED = re.compile(r"(?<![\d./])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d./])")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d+)(?![\w.])")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|boxed|fbox)\s*\{|[{}]")
INFINITY = re.compile(r"∞|\\(?:text|mathrm)\s*\{\s*(?i:infinity)\s*\}|(?<![A-Za-z\\])(?i:infinity)(?![A-Za-z])")
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]+")
_PERCENT = re.compile(r"(?:\\?%|\\text\{ *(?:percent|\\?%) *\}|(?i:percent))$")


def plain_text(text: str) -> str:
    r"""Return a text, in which an answer is somewhere, without full-width signs, gaps in numbers and dollar prices.

    Examples
    --------
    >>> plain_text(r"it costs \$1{,}000")
    'it costs 1000'
    """
    return _GAP.sub("", narrow(text).replace("\\$", "")).strip()


def plain(answer: str) -> str:
    r"""Return an answer in LaTeX spelt so that Math-Verify reads what is meant.

    Full-width signs become ASCII, dollar signs and a final full stop go, as do gaps between groups of three digits;
    2 1/2 is a mixed number, 2e3 is 2000, "Infinity" and ∞ are \infty. Chinese units go, and "或", "和", "与" and "、"
    are commas.

    Examples
    --------
    >>> plain(r"$1\,000{,}000$."), plain("2 1/2"), plain("１５ 平方厘米"), plain("3或5"), plain("是")
    ('1000000', '2\\frac{1}{2}', '15', '3,5', '是')
    """
    text = narrow(answer).strip()
    text = re.sub(r"(?<!\\)\$", "", text).strip()
    text = text.removesuffix("。").removesuffix(".").strip() if not text.endswith("..") else text
    text = _GAP.sub("", text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _SCIENTIFIC.sub(r"\1\\times 10^{\2}", text)
    text = text.replace("°", r"^{\circ}").replace(r"\varnothing", r"\emptyset")
    text = INFINITY.sub(r"\\infty ", text).strip()
    if _CHINESE.search(text):
        unwrapped = unwrap(text)
        listed = re.sub("[或和与、]", ",", unwrapped)
        without = _CHINESE.sub("", listed).strip(" ,。;")
        text = without if _READABLE.search(without) else unwrapped
    return text


def without_percent(answer: str) -> str | None:
    r"""Return an answer without its percent sign, or None if it has none.

    Examples
    --------
    >>> without_percent(r"50\%"), without_percent("50")
    ('50', None)
    """
    sign = _PERCENT.search(answer.rstrip())
    return (answer[: sign.start()].strip() or None) if sign else None


def same_text(answer: str) -> str:
    r"""Return an answer without spaces and text commands: equal texts are then found without any algebra.

    Examples
    --------
    >>> same_text(r"\text{ 是 }"), same_text(r"\frac{1}{2} ")
    ('是', '\\frac{1}{2}')
    """
    return "".join(unwrap(answer).split())


def unwrap(text: str) -> str:
    r"""Return a text without the text commands, boxes included, in which no other braces are.

    Examples
    --------
    >>> unwrap(r"\text{\textbf{so} it is} \text{ \frac{1}{2}}")
    'so it is \\text{ \\frac{1}{2}}'
    """
    # Text and braces in turn; a command and its brace are taken out together, innermost first, in one pass.
    parts: list[str] = []
    opened: list[tuple[int, bool]] = []  # where, and whether it can be taken out
    at = 0
    for token in _WRAPPED.finditer(text):
        parts += (text[at : token.start()], token[0])
        at = token.end()
        if token[0] != "}":
            opened.append((len(parts) - 1, token[0] != "{"))
        elif opened:
            place, bare = opened.pop()
            if bare:
                parts[place] = parts[-1] = ""
            elif opened:
                opened[-1] = (opened[-1][0], False)
    return "".join((*parts, text[at:]))


_INTEGER = re.compile(r"([+-]?)(\d{1,3}(?:,\d{3})+|\d+)", re.ASCII)


def is_words(answer: str) -> bool:
    """Return whether an answer has no letter, digit or command that algebra could read, such as a Chinese word.

    Examples
    --------
    >>> is_words("是"), is_words("x"), is_words("")
    (True, False, False)
    """
    return bool(answer) and not _READABLE.search(answer)


_READABLE = re.compile(r"[A-Za-z0-9\\]")


def integer(answer: str) -> str | None:
    """Return the digits of an integer, signed, without leading zeros and separators; None for another answer.

    Examples
    --------
    >>> integer("033"), integer("-1,234"), integer("1,2"), integer("-0")
    ('33', '-1234', None, '0')
    """
    signed = _INTEGER.fullmatch(answer)
    if signed is None:
        return None
    digits = signed[2].replace(",", "").lstrip("0") or "0"
    return f"-{digits}" if signed[1] == "-" and digits != "0" else digits
