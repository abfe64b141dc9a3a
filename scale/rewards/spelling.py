r"""Answers spelt plainly: Math-Verify reads some spellings as another number (`1\,000` as 0, `2 1/2` as 3/2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

from scale.text import boxes, narrow

_GAP = re.compile(r"(?<=\d)(?:,?\\[,!;: ]|\{,\}|~)\s*(?=\d{3}(?!\d))")
_SPACED = re.compile(r"[+-]?[1-9]\d{0,2}(?: \d{3})+(?:\.\d+)?")
_MIXED = re.compile(r"(?<![\d./])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d./])")
_SCIENTIFIC = re.compile(r"(?<![\w.\\])(\d+(?:\.\d*)?|\.\d+)[eE]([+-]?\d+)(?![\w.])")
_WRAPPED = re.compile(r"\\(?:text|textbf|textrm|textit|textsf|mathrm|mathbf|mbox|boxed|fbox)\s*\{|[{}]")
INFINITY = re.compile(r"∞|\\(?:text|mathrm)\s*\{\s*(?i:infinity)\s*\}|(?<![A-Za-z\\])(?i:infinity)(?![A-Za-z])")
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]+")
_PERCENT = re.compile(
    r"(?:\\?%|\\(?:text|mathrm|mbox)\s*\{[ ~]*(?:per\s?cent|percentage|pct\.?|\\?%)[ ~]*\}"
    r"|(?<![A-Za-z\\])(?i:per\s?cent|percentage|pct))$"
)
_ENDS = re.compile(r"(?:<\|[a-z_]{1,30}\|>|</s>|<(?:end_of_turn|eos|pad)>)\s*$")
_DEGREE = re.compile(r"\^?\s*(?:\{\s*(?:\\(?:text)?degrees?(?![A-Za-z])|°)\s*\}|\\(?:text)?degrees?(?![A-Za-z])|°)")
_CONSTANT = re.compile(r"\\(?:mathrm|text|textrm|operatorname|mathit|mathbf|mathbb)\s*\{\s*(e|i)\s*\}")
_TEXT_NUMBER = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\s*\{\s*([+-]?[\d.,/]*\d)\s*\}")
_LABEL = re.compile(
    r"(?P<open>\\(?:text|textbf|textrm|textit|mathrm|mathbf|mbox)\s*\{\s*)?"
    r"(?:(?:(?:so|thus|hence|therefore),?\s+)?(?:(?:the|our|my)\s+)?(?:(?:correct|final|required)\s+)?(?:answer|value|ans\.?)"
    r"(?P<closed>\s*\})?(?:\s+is\s*[:=]?|\s*[:=]|(?<=\})\s*is\s*[:=]?|(?<=\.)\s)"
    r"|(?:so|thus|hence|therefore)(?:,\s*|\s+|(?=\s*\})))[\s~]*",
    re.IGNORECASE,
)
_SWITCH = re.compile(
    r"\\(?:bf|it|sf|tt|em|[lL]arge|LARGE|[hH]uge|small|normalsize|(?:text|display|script)style|boldmath|therefore"
    r"|checkmark|qed|blacksquare|square|nonumber|notag)(?![A-Za-z])|\\[hv]space\*?\s*\{[^{}]*\}|\\phantom\s*\{[.,;]?\}"
    r"|\\(?:begin|end)\s*\{(?:equation|align|aligned|gather)\*?\}|\\(?:(?:text)?color|colorbox)\s*\{[^{}]*\}|\\rm(?![A-Za-z])(?=\s*[\d\\])"
)
_OLD_FONT = re.compile(r"\{\s*\\rm\s+([^{}]*)\}|\\(?:mathrm|rm)\s+([A-Za-z])(?![A-Za-z])")
_WHOLE = re.compile(
    r"\\(?:text(?:bf|rm|it|sf|up|normal)?|math(?:bf|rm|it|sf|bb|normal)|mbox|hbox|boldsymbol|bm|pmb|underline|emph|huge|large|boxed|fbox)"
    r"\s*\{|\{"
)
_PAIRS = ("**", "__", "*", "_", "`", '"', "'", "''", "``")
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(
    r"(?<=[\d}])\s*(?:\\(?:text|mathrm|mbox)\s*\{\s*(hundred|thousand|[mbtr]+illion)\s*\}"
    r"|\s(hundred|thousand|[mbtr]+illion)(?![A-Za-z]))"
)
_FUNCTION = re.compile(
    r"\\(?:(?:operatorname|mathrm|text)\*?\s*\{\s*((?:arc)?(?:sin|cos|tan|cot|csc)h?|ln|log|exp)\s*\}"
    r"|operatorname\*?\s*\{\s*(sec|max|min|gcd|lcm)\s*\})"
)
_FIRST_ARGUMENT = re.compile(r"\\(?:[dtc]?frac|sqrt)\s*(?=\\[A-Za-z])(\\(?:[A-Za-z]+))(?!\s*\{)")
_SECOND_ARGUMENT = re.compile(r"(\\[dtc]?frac\s*\{(?:[^{}]|\{[^{}]*\})*\})\s*(\\[A-Za-z]+|[A-Za-z\d])")
_JOINT = re.compile(
    r"\s*,?\s*(?:\\(?:text(?:rm|bf|it)?|mbox|hbox|mathrm)\s*\{[\s,~]*(?:and|or)[\s~]*\}|\\(?:lor|land|vee|wedge)(?![A-Za-z]))\s*",
    re.IGNORECASE,
)
_INEQUALITY = re.compile(r"[<>≤≥]|\\(?:le|ge|leq|geq|leqslant|geqslant|lt|gt)(?![A-Za-z])")
_AND = re.compile(r"(?i:and)|\\wedge")  # and \land
_TIME = re.compile(r"(?<![\d:])(\d{1,2}:\d{2})\s*\\?,?\s*(?:\\text\s*\{\s*)?([aApP])\.?\s*[mM]\.?(?:\s*\})?$")
_FRACTION_SIGN = {"½": "12", "⅓": "13", "⅔": "23", "¼": "14", "¾": "34"}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SPELLINGS = (
    (re.compile(r"√\s*(\d+(?:\.\d+)?|[A-Za-z])"), r"\\sqrt{\1}"),
    (re.compile(r"√"), r"\\sqrt "),
    (re.compile(r"(^|[(,=\[])\s*[–—]\s*(?=[\d\\a-z(.])"), r"\1-"),
    (re.compile(r"\\lg(?![A-Za-z])"), r"\\log_{10}"),
    (re.compile(r"\\([dt]?binom)\s*([A-Za-z\d])\s*([A-Za-z\d])"), r"\\\1{\2}{\3}"),
    (re.compile(r"(?<=[\d)}a-ln-zα-ω])([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)"), lambda x: f"^{{{x[1].translate(_RAISED)}}}"),
    (re.compile("[½⅓⅔¼¾]"), lambda x: "\\frac{{{}}}{{{}}}".format(*_FRACTION_SIGN[x[0]])),
    (re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)"), r"\\times "),
    (re.compile(r"(?<=[)\]])\s*(?:\\text\s*\{\s*U\s*\}|U)\s*(?=(?:\\left)?[(\[])|\\bigcup(?![A-Za-z_])"), r"\\cup "),
    (re.compile(r"\\backslash(?![A-Za-z])"), r"\\setminus "),
    (re.compile(r"\\([lr])brace(?![A-Za-z])"), lambda x: "\\{" if x[1] == "l" else "\\}"),
    (re.compile(r"\\langle\s*([^<>]*,[^<>]*?)\\rangle(?![A-Za-z])"), r"(\1)"),
    (re.compile(r"\\(max|min|gcd|lcm)\s*\\\{([^{}]*)\\\}"), r"\\\1(\2)"),
    (re.compile(r"\\log_\s*\{?\s*e(?![A-Za-z])\s*\}?"), r"\\ln "),
    (re.compile(r"(\\sqrt\s*\[[^\[\]{}]*\])\s*([A-Za-z\d])"), r"\1{\2}"),
    (re.compile(r"(?<![A-Za-z\\])C_\s*\{?\s*(\d+)\s*\}?\s*\^\s*\{?\s*(\d+)\s*\}?"), r"\\binom{\1}{\2}"),
    (re.compile(r"(?:\{\s*\})?\^\s*\{?\s*(\d+)\s*\}?\s*C_\s*\{?\s*(\d+)\s*\}?"), r"\\binom{\1}{\2}"),
    (re.compile(r"(?<=\d)\s*\\text\s*\{\s*to\s*\}\s*(?=\d)"), ":"),
    (re.compile(r"(?<![\d.])(\d+\.)\((\d{1,30})\)"), r"\1\\overline{\2}"),
    (re.compile(r"\\dot\s*(\d)"), r"\\dot{\1}"),
)
"""Other spellings of one thing, and how they are spelt here."""
_GROUPED = re.compile(r"(?<=\{)\s*(\d{1,3}(?:,\d{3})+)\s*(?=\})|(?<![\d,.])(\d{1,3}(?:,\d{3})+)(?=\.\d)")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{(\d{1,30})\}")
_PROGRAM = re.compile(
    r"(?<![A-Za-z\\])(?:(?:np|numpy|math|sp|sympy)\.)?(arc|a)?(sin|cos|tan|sqrt|exp|log|ln|pi)(?![A-Za-z])"
)


NESTED = 50
"""Parentheses in an answer that is read as in Python."""

LONGEST = 4_000
"""Characters of an answer that is spelt plainly; a longer text stays as it is."""


def plain(answer: str) -> str:
    r"""Return an answer in LaTeX spelt so that Math-Verify reads what is meant.

    Full-width signs become ASCII; dollar signs and other marks around it go, as do "The answer is", a final full stop
    and gaps between groups of three digits. 2 1/2 is a mixed number, 2e3 is 2000, -1./3 is -1/3, 3**2 and np.sqrt(2)
    are read as in Python; "Infinity" and ∞ are \infty. Chinese units go, and "或", "和", "与" and "、" are commas.

    Examples
    --------
    >>> plain(r"$1\,000{,}000$."), plain("2 1/2"), plain("１５ 平方厘米"), plain("3或5"), plain("是")
    ('1000000', '2\\frac{1}{2}', '15', '3,5', '是')
    >>> plain(r"\text{The answer is } 5"), plain(r"45\degree"), plain("np.arcsin(10/13)"), plain("-1./3")
    ('5', '45^{\\circ}', '\\arcsin(10/13)', '-1/3')
    """
    text = _without_marks(narrow(answer).strip())
    if len(text) > LONGEST:
        return text
    text = re.sub(r"(?<!\\)\$|\\[()\[\]]", "", text).strip()
    text = _GAP.sub("", text).replace("~", " ")
    text = re.sub(r"(?<!\\)\\ ", " ", text).strip()
    text = text.replace(" ", "") if _SPACED.fullmatch(text) else text
    text = re.sub(r"\*\*(\([A-J]\))\*\*", r"\1", text)
    text = re.sub(r"\{\s*([^{}]+?)\\choose(?![A-Za-z])([^{}]+?)\}", r"\\binom{\1}{\2}", text)
    text = re.sub(r"\\mathbb\s+([A-Z])", r"\\mathbb{\1}", text).replace(r"\not=", r"\neq ")
    text = _OLD_FONT.sub(lambda font: f" \\mathrm{{{font[1] or font[2]}}} ", text)
    text = _without_label(_without_wraps(_SWITCH.sub(" ", text)))
    text = text.removesuffix("。").removesuffix(".").strip() if not text.endswith("..") else text
    text = re.sub(r"\\text\s*\{\s*[.,;]?\s*\}$", "", text).strip()
    text = re.sub(r"\\(?:dots|cdots|dotsc)(?![A-Za-z])", r"\\ldots", text)
    text = re.sub(r"\{\s*\}(?=\s*\^)", "", text)
    of_regions = _INEQUALITY.search(text) is not None
    text = _JOINT.sub(lambda found: _joint(found[0]) if of_regions else ",", text)
    for other, spelt in _SPELLINGS:
        text = other.sub(spelt, text)
    text = _TIME.sub(lambda time: f"{time[1]}\\text{{ {time[2].lower()}m}}", text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _GROUPED.sub(lambda digits: (digits[1] or digits[2]).replace(",", ""), text)
    text = _SCIENTIFIC.sub(r"\1\\times 10^{\2}", text)
    text = _SCALE.sub(_scaled, text)
    text = re.sub(r"(?<=\d)\.(?![\d.\\])", "", text)
    text = _REPEATING.sub(_repeating, text)
    text = _FUNCTION.sub(lambda name: f"\\{name[1] or name[2]} ", text)
    text = _FIRST_ARGUMENT.sub(lambda found: found[0].replace(found[1], f"{{{found[1]}}}"), text)
    text = _SECOND_ARGUMENT.sub(r"\1{\2}", text)
    text = re.sub(r"\^\s*(\\[dtc]?frac\s*\{[^{}]*\}\s*\{[^{}]*\})", r"^{\1}", text)
    text = _program(text)
    text = _DEGREE.sub(r"^{\\circ}", text).replace(r"\varnothing", r"\emptyset")
    text = _TEXT_NUMBER.sub(r" \1 ", text)
    text = _CONSTANT.sub(r" \1 ", text).replace(r"\imath", " i ").strip()
    text = INFINITY.sub(r"\\infty ", text).strip()
    if _CHINESE.search(text):
        unwrapped = unwrap(text)
        listed = re.sub("[或和与、]", ",", unwrapped)
        without = _CHINESE.sub("", listed).strip(" ,。;")
        text = without if _READABLE.search(without) else unwrapped
    return text


def _joint(joint: str) -> str:
    r"""Return how a joint of inequalities is spelt: \text{ and } or \text{ or }."""
    return r"\text{ and }" if _AND.search(joint) else r"\text{ or }"


def _without_marks(text: str) -> str:
    """Return a text without marks of Markdown around it and without tokens that end a text."""
    while (ends := _ENDS.search(text[-60:])) is not None:
        text = text[: len(text[:-60]) + ends.start()].rstrip()
    return text.strip("`").strip() if text.startswith("`") or text.endswith("`") else text


def _without_wraps(text: str) -> str:
    """Return an answer without a text command, quotes or braces around all of it; a word stays in its command."""
    while True:
        text = text.strip()
        for pair in _PAIRS:
            if len(text) > 2 * len(pair) and text.startswith(pair) and text.endswith(pair):
                text = text[len(pair) : -len(pair)].strip()
        text = re.sub(r"(?:\\[,;:!]|[\\ ~])+\Z", "", text)
        wrap = _WHOLE.match(text)
        if wrap is None or not text.endswith("}"):
            return text
        inside = text[wrap.end() : -1]
        depth = 1
        for sign in inside:
            depth += {"{": 1, "}": -1}.get(sign, 0)
            if not depth:
                return text
        if not re.search(r"\d|\\", inside) or ("," in inside and wrap[0] == "{"):
            return text
        text = inside


def _without_label(text: str) -> str:
    """Return an answer without the words "The answer is" in front."""
    label = _LABEL.match(text)
    if label is None:
        return text
    rest = text[label.end() :].strip()
    if label["open"] and not label["closed"]:
        rest = rest[1:] if rest.startswith("}") else label["open"] + rest
    return _without_wraps(rest.strip(" :*"))


def _scaled(number: re.Match[str]) -> str:
    """Return a word such as "million" as a power of ten."""
    power = _SCALES.get(number[1] or number[2])
    return number[0] if power is None else f"\\times 10^{{{power}}}"


def _repeating(number: re.Match[str]) -> str:
    """Return a repeating decimal as a fraction."""
    whole, fixed, period = number.groups()
    scale = 10 ** len(fixed)
    nines = 10 ** len(period) - 1
    value = Fraction(int(whole + fixed or "0")) / scale + Fraction(int(period), scale * nines)
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _program(text: str) -> str:
    """Return an answer with what is written as in Python, such as 3**2 and np.sqrt(2), in LaTeX."""
    if text.count("(") > NESTED or not (re.search(r"\*\*|\(", text) or _PROGRAM.search(text)):
        return text
    text = text.replace("**", "^")

    def name(found: re.Match[str]) -> str:
        arc, what = found[1], found[2]
        natural = what == "log" and "." in found[0]
        return ("\\arc" if arc else "\\") + ("ln" if natural else what)

    text = _PROGRAM.sub(name, text)
    text = _arguments(text, re.compile(r"\\sqrt\s*\("), lambda inside: f"\\sqrt{{{inside}}}")
    text = _arguments(text, re.compile(r"\\exp\s*\("), lambda inside: f"e^{{{inside}}}")
    return _arguments(text, re.compile(r"\^\s*\("), lambda inside: f"^{{{inside}}}")


def _arguments(text: str, opening: re.Pattern[str], spell: Callable[[str], str]) -> str:
    """Return a text in which what stands in the parentheses after a name is spelt anew."""
    parts: list[str] = []
    at = 0
    while (found := opening.search(text, at)) is not None:
        depth, end = 1, found.end()
        while end < len(text) and depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        if depth:
            break
        parts += (text[at : found.start()], spell(_arguments(text[found.end() : end - 1], opening, spell)))
        at = end
    return "".join((*parts, text[at:]))


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

    A space between two digits stays, and so do the capitals of up to three letters.

    Examples
    --------
    >>> same_text(r"\text{ 是 }"), same_text(r"\frac{1}{2} "), same_text("1 2"), same_text("Yes")
    ('是', '\\frac{1}{2}', '1 2', 'yes')
    """
    text = re.sub(r"(?<!\d)\s+|\s+(?!\d)|\s+$", "", " ".join(unwrap(answer).split()))
    word = text.removesuffix(".")
    return word.casefold() if word.isalpha() and (len(word) > 3 or word.casefold() in _SHORT_WORDS) else text


_SHORT_WORDS = frozenset({"yes", "no", "odd", "dne"})
"""Words of up to three letters; others are symbols, whose capitals matter."""


def is_phrase(answer: str) -> bool:
    r"""Return whether an answer is words, which are equal as texts only: "listen" is not "silent".

    Examples
    --------
    >>> is_phrase("Tuesday"), is_phrase(r"\text{no}"), is_phrase("abc"), is_phrase("x = 5")
    (True, True, False, False)
    """
    text = unwrap(answer).strip()
    if re.fullmatch(r"[A-Za-z]+(?:[ '-][A-Za-z]+)*", text) is None:
        return False
    return any(len(word) > 3 for word in re.split("[ '-]", text)) if text == answer.strip() else len(text) > 1


_NOTHING = frozenset({"proof", "notfound", "NaN", "nan", "None", "null", "n/a", "N/A", "?", "-"})
_SENTENCE = re.compile(r"(?:\A|[.!?]\s+)\s*([A-Z][a-z]*(?:,?\s+[a-z]{2,})+)(?![A-Za-z])")


def is_prose(gold: str) -> bool:
    r"""Return whether a right answer is none that is compared: a sentence with a value, or a word for nothing.

    A sentence begins with a word in capitals and another word; an equation is none. A solution with a box is its box,
    unless it has several that differ, with words between them.

    Examples
    --------
    >>> is_prose("Tom has 7 apples."), is_prose("proof"), is_prose("no solution"), is_prose(r"x = 7 \text{ or } x = 8")
    (True, True, False, False)
    >>> is_prose(r"So it is \boxed{7}."), is_prose(r"\frac{ab+cd}{2}"), is_prose("AB = 4, CD = 5")
    (False, False, False)
    """
    text = unwrap(gold).strip()
    gold = gold.replace(r"\\boxed", r"\boxed")  # escaped twice, in some sources
    found = boxes(gold)
    boxed = {x.content.strip() for x in found}
    if len(boxed) != 1 and re.search(r"\d", text) and "=" not in text and _SENTENCE.search(text):
        return True
    words = any(re.search(r"(?!(?:and|or)\b)\b[^\W\d_]", gold[x.end : y.start]) for x, y in pairwise(found))
    return (len(boxed) > 1 and words) or text in _NOTHING


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


_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)"
_SIGNED = rf"[+-]?\s*{_DECIMAL}"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:(?P<value>{_DECIMAL})(?:\s*/\s*(?P<below>{_DECIMAL}))?"
    rf"|\\[dtc]?frac\s*(?:(?P<short>\d)\s*(?P<other>\d)|\{{\s*(?P<top>{_SIGNED})\s*\}}\s*\{{\s*(?P<bottom>{_SIGNED})\s*\}}))"
    r"(?:\s*(?:\\times|\\cdot|×|\*)\s*(?P<ten>10\s*\^\s*(?:\{\s*(?P<power>[+-]?\s*\d{1,4})\s*\}|(?P<digit>\d))))?",
    re.ASCII,
)
_TEN = re.compile(r"([+-]?)\s*(10\s*\^\s*)", re.ASCII)

DIGITS = 1_000
"""Characters of a number that is read at once, and its largest power of ten."""


def number(answer: str) -> Fraction | None:
    r"""Return the exact value of an integer, a decimal or a fraction of such, times a power of ten; else None.

    Examples
    --------
    >>> number(r"9.28 \times 10^{2}"), number(r"-\frac{1}{2}"), number(".5"), number("1,234.5"), number("x")
    (Fraction(928, 1), Fraction(-1, 2), Fraction(1, 2), Fraction(2469, 2), None)
    """
    text = answer.strip()
    if len(text) > DIGITS:
        return None
    found = _NUMBER.fullmatch(_TEN.sub(r"\g<1>1*\2", text) if _TEN.match(text) else text)
    if found is None:
        return None
    top = found["value"] or found["short"] or found["top"]
    bottom = found["below"] or found["other"] or found["bottom"] or "1"
    power = int((found["power"] or found["digit"] or "0").replace(" ", ""))
    below = _fraction(bottom)
    if not below or abs(power) > DIGITS:
        return None
    value = _fraction(top) / below
    return (-value if found["sign"] == "-" else value) * Fraction(10) ** power


TOLERANCES = {
    "exact": (Fraction(0), Fraction(0), Fraction(0)),
    "minerva": (Fraction(1, 100_000), Fraction(1, 10**8), Fraction(1, 100)),
    "qwen": (Fraction(1, 10_000), Fraction(0), Fraction(1)),
}
"""The relative and the absolute error that graders add up, and the largest relative one (docs/scale.md has sources)."""


def error_allowed(gold: Fraction, tolerance: str) -> Fraction:
    """Return the relative error that a tolerance allows of a right answer; of 0 there is none.

    Examples
    --------
    >>> [error_allowed(Fraction(x), "minerva") for x in ("1e-20", "1e-3")], error_allowed(Fraction(7), "exact")
    ([Fraction(1, 100), Fraction(1, 50000)], Fraction(0, 1))
    """
    relative, absolute, most = TOLERANCES[tolerance]
    return min(most, relative + absolute / abs(gold)) if gold else Fraction(0)


def _fraction(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", ""))


def is_finite(value: Fraction) -> bool:
    """Return whether a number has finitely many decimals.

    Examples
    --------
    >>> is_finite(Fraction(1, 8)), is_finite(Fraction(1, 3))
    (True, False)
    """
    return bool(10 ** value.denominator.bit_length() % value.denominator == 0)


_BASE = re.compile(
    r"[({]?\s*(?P<digits>[0-9A-F]+|\d{1,3}(?:,\d{3})+)\s*[)}]?\s*_\s*"
    r"(?:(?P<short>\d)|\{\s*\(?(?P<long>\d{1,2})\)?\s*\}|\{?\s*(?P<word>[a-z]+)\s*\}?)",
    re.ASCII,
)
BASES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen"),
)
"""Numbers in words, by their value."""


def based(answer: str) -> tuple[str, int] | None:
    r"""Return the digits and the base of a number with a base, such as 52_8; else None.

    Examples
    --------
    >>> based("52_8"), based(r"52_{\text{eight}}"), based("x_8"), based("52")
    (('52', 8), ('52', 8), None, None)
    """
    found = _BASE.fullmatch(unwrap(answer).strip()) if len(answer) <= DIGITS else None
    if found is None:
        return None
    word = found["word"]
    base = BASES.index(word) if word in BASES else int(found["short"] or found["long"] or "0")
    digits = found["digits"].replace(",", "").lstrip("0") or "0"
    return (digits, base) if all(int(x, 16) < base for x in digits) else None


_CHOICE = re.compile(
    r"(?:(?i:option|choice)\s*)?"
    r"(?:\(\s*([A-J])\s*\)|([A-J])(?:\s*[).]|:(?=\s*[-\d.\\]))|([A-J])(?=$)|(?<=n |e )([A-J])\s*:)(.*)",
    re.DOTALL,
)
_SPACE = re.compile(r"^(?:\\[ ,;:!]|\\(?:q?quad|enspace|thinspace)(?![A-Za-z])|[\s:~])+")


def choice(answer: str) -> tuple[str, str] | None:
    r"""Return the letter of a choice and what follows it, or None for an answer that does not begin with a choice.

    Examples
    --------
    >>> choice(r"\textbf{(B)}\ 12"), choice("(C)"), choice("B. 7"), choice("(A)+1"), choice("(A) and (C)")
    (('B', '12'), ('C', ''), ('B', '7'), None, None)
    """
    text = unwrap(answer).strip()
    found = _CHOICE.fullmatch(text) if len(text) <= LONGEST else None
    if found is None:
        return None
    rest = _SPACE.sub("", found[5])
    labelled = text != answer.strip() or found[5] != rest
    if re.search(r"\([A-J]\)|^[A-J]\b|^(?:and|or|&|,)|(?:,|and|or)\s*\(?[A-J]\)?$", rest):
        return None
    if not labelled and rest and not rest[0].isalnum() and rest[0] not in "\\.":
        return None
    return found[1] or found[2] or found[3] or found[4], rest
