r"""Reading two answers and comparing them; it runs in a worker (`scale.rewards.verifier`), without a limit on time.

latex2sympy reads an answer, and Math-Verify compares sets, tuples, intervals and equations. Two numbers or expressions
are compared here, in place of Math-Verify's rounding to six places: exactly where both are rational, else relative to
their size. All decimals are exact; a decimal is equal to a number without finite decimals if it is that number
correctly rounded to `ROUNDED` digits at least.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise, product
from typing import Any

import sympy
from antlr4.atn.PredictionMode import PredictionMode
from latex2sympy2_extended import latex2sympy2, math_normalization
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.sets import FiniteSet
from math_verify import grader, parser
from sympy.core.function import AppliedUndef

from scale.rewards.spelling import error_allowed

ROUNDED = 6
"""Significant digits, at least, to which a decimal must be correct that stands for a number without finite decimals."""

DIGITS = 40
"""Significant digits to which two numbers are computed; if they agree, the numbers are equal."""

POINTS = 5
"""Points at which two expressions with variables are compared; most are told apart at the first one."""

APPROXIMATE = sympy.Rational(1, 100)
"""Relative error beyond which one number is not approximately another; a decimal must be so in its last digit."""

_NORMAL = math_normalization.NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="all", equations=False
)


# Reading


class Unreadable(ValueError):
    """An answer that is not read."""


_I = sympy.Symbol("i", real=True)


class _Reader(latex2sympy2._Latex2Sympy):  # type: ignore[misc]
    """latex2sympy with exact decimals, the imaginary unit, bases, and no sum where two numbers stand side by side."""

    def __init__(self, *, imaginary: bool) -> None:
        super().__init__(is_real=True, config=latex2sympy2.ConversionConfig(lowercase_symbols=False))
        self._imaginary = imaginary
        self._prediction = PredictionMode.SLL

    def create_parser(self, latex_str: str) -> Any:
        created = super().create_parser(latex_str)
        created._interp.predictionMode = self._prediction
        return created

    def parse(self, latex_str: str) -> Any:
        """Read a text in ANTLR's fast way, whose outcome is the same as that of the full one where it has one."""
        try:
            return super().parse(latex_str)
        except Unreadable:
            raise
        except Exception:
            self._prediction = PredictionMode.LL
            return super().parse(latex_str)

    def parse_number(self, text: str) -> Any:
        return sympy.Rational(Fraction(text.replace(",", "").replace(" ", "")))

    def convert_atom(self, atom: Any) -> Any:
        with_base = atom.number_subexpr()
        if with_base and with_base.subexpr():
            text = with_base.getText()
            return sympy.Symbol(re.sub(r"[{}\s]", "", text), real=True)
        return super().convert_atom(atom)

    def convert_atom_expr(self, atom_expr: Any) -> Any:
        symbol = super().convert_atom_expr(atom_expr)
        return symbol.xreplace({_I: sympy.I}) if self._imaginary else symbol

    def handle_gcd_lcm(self, f: str, args: Any) -> Any:
        if any(x.free_symbols for x in args):
            raise Unreadable("a divisor of variables")  # latex2sympy says 1
        return super().handle_gcd_lcm(f, args)

    def convert_relation(self, rel: Any) -> Any:
        if rel.APPROX():
            sides = [self.convert_relation(x) for x in rel.relation()]
            if all(isinstance(x, sympy.Expr) and not x.free_symbols for x in sides):
                one, other = (_done(x) for x in sides)
                places = _places(other) if other.is_Rational else None
                allowed = APPROXIMATE * abs(one) if places is None else sympy.Rational(1, 10**places)
                if not abs(one - other) < allowed:
                    raise Unreadable("an approximation that is none")
        return super().convert_relation(rel)

    def convert_postfix_list(self, arr: Any, i: int = 0) -> Any:
        texts = [x.getText() for x in arr[i : i + 2]]
        if len(texts) == 2 and texts[0].replace(",", "").replace(".", "").isdigit():
            if texts[1][0].isdigit():
                raise Unreadable("two numbers side by side")
            if not re.fullmatch(r"\\[dtc]?frac\{?\d+\}?\{?\d+\}?", texts[1]):
                # 2(3) is a product; latex2sympy would read a mixed number.
                return self.mul_flat(self.convert_postfix(arr[i]), self.convert_postfix_list(arr, i + 1))
        return super().convert_postfix_list(arr, i)


_DOTS = re.compile(r"\\[hv]?phantom|\\[lcv]?dots(?![A-Za-z])|\.\.\.|…")
_SPACES = re.compile(r"(?<!\\)\\(?:[,;:!> ]|q?quad|thinspace|displaystyle|limits)|~")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*\\?%")
_GAMMA = re.compile(r"\\(gamma(?![A-Za-z])|Gamma(?![A-Za-z])(?!\s*\())")
_SYMBOL_E = re.compile(r"(?<![A-Za-z\\])([Ee])\s*_\s*(?:([A-Za-z0-9])|\{([^{}]*)\})")
_ANGULAR = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_DEGREES = re.compile(
    r"(\d*\\[dt]?frac\s*\{[^{}]*\}\s*\{[^{}]*\}|\([^()]*\)|\d+(?:\.\d+)?|\.\d+|(?<![A-Za-z\\])[A-Za-z])"
    r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)"
)
_UPRIGHT = re.compile(r"\\(?:mathrm|mathit|mathbf|operatorname|boldsymbol|bm)\s*\{\s*([A-Za-z])\s*\}")
_CAPITAL_I = re.compile(r"(\\(?:text|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+)|(?<![a-z])I(?![a-z])")
_CALCULUS = re.compile(r"\\int|\\i+nt|\\oint|\\frac\s*\{\s*(?:d|\\partial)")
_LETTER_D = re.compile(r"(\\(?:text|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+)|(?<![A-Za-z])d(?![A-Za-z])")
_ARRAY = re.compile(
    r"\[\s*\\begin\s*\{(?:array\}\s*\{[^{}]*\}|matrix\})(.*?)\\end\s*\{(?:array|matrix)\}\s*\]", re.DOTALL
)
_SET_OF = re.compile(
    r"\s*\\\{\s*[a-z]\s*(?:\||\\mid(?![a-z])|:|\\colon)\s*(.*[<>=].*|.*\\(?:l|g|n)e.*)\\\}\s*", re.DOTALL
)
_ANGLE = re.compile(r"\\(angle|triangle|measuredangle|overline|overrightarrow)\s*\{?\s*([A-Z]{2,4})(?![A-Za-z])\s*\}?")
_MINUS_POWER = re.compile(r"\^\s*([+-])\s*(\d+|[A-Za-z])")
_INDEX = re.compile(r"_\s*\{?\s*i(?![A-Za-z])|(?<![A-Za-z\\])i\s*=|i\s*\\in(?![A-Za-z])")
_BOTH_SIGNS = re.compile(r"\\(pm|mp)(?![A-Za-z])|±|∓")
_SYMBOLS = {
    "≤": r"\le ",
    "≥": r"\ge ",
    "<=": r"\le ",
    ">=": r"\ge ",
    "π": r"\pi ",
    "×": r"\times ",
    "·": r"\cdot ",
    "÷": "/",
    "∪": r"\cup ",
}


def is_imaginary(*answers: str) -> bool:
    """Return whether the letter i is the imaginary unit in some answers: it is, unless it is an index in one.

    Examples
    --------
    >>> is_imaginary("2i", "3"), is_imaginary("x_i", "2i")
    (True, False)
    """
    return not any(_INDEX.search(x) for x in answers)


@lru_cache(maxsize=64)
def read(answer: str, imaginary: bool) -> Any:
    r"""Return an answer in LaTeX as an object of sympy with exact numbers; it raises if it cannot be read.

    Examples
    --------
    >>> read(r"9.28 \times 10^2", True).doit(), read(r"\pm 2", True)
    (928, {-2, 2})
    """
    if _DOTS.search(answer) or not re.search(r"[^{}\s]", answer):
        raise Unreadable("dots, or nothing")
    text = _SPACES.sub(" ", answer)
    text = re.sub(r"\\(?:left|right|big|Big|bigg|Bigg)[lrm]?(?![A-Za-z])\.?", "", text)
    for sign, spelt in _SYMBOLS.items():
        text = text.replace(sign, spelt)
    if (condition := _SET_OF.fullmatch(text)) is not None:
        text = condition[1]
    text = re.sub(r"\\(l|g)eqslant(?![a-z])", r"\\\1e ", text)
    text = re.sub(r"_\s*\{?\s*\\(max|min)\s*\}?", r"_{\1}", text)
    text = _ARRAY.sub(r"\\begin{matrix}\1\\end{matrix}", text)
    text = _ANGLE.sub(r"\\text{\1\2}", text)
    if _ANGULAR.search(text):
        text = _DEGREES.sub(r"\\frac{\1\\pi}{180}", text)
    text = _UPRIGHT.sub(r" \1 ", text)
    text = _GAMMA.sub(r"\\text{\1}", text)  # latex2sympy applies it to what follows
    text = _SYMBOL_E.sub(lambda found: f"\\text{{{found[1]}}}_{{{found[2] or found[3]}}}", text)
    text = _CAPITAL_I.sub(lambda found: found[1] or r"\text{I}", text)  # latex2sympy's imaginary unit
    if not _CALCULUS.search(text):
        text = _LETTER_D.sub(lambda found: found[1] or r"\text{d}", text)
    text = _MINUS_POWER.sub(r"^{\1\2}", text)
    text = _PERCENT.sub(r"\\frac{\1}{100}", text)
    text = re.sub(r"(?<=\d)i(?![A-Za-z])", " i", text)
    text = re.sub(r"^\s*(?:=|\\approx|≈)", "", text)
    text = ",".join(signed for part in elements(text) for signed in _signs(part))
    text = math_normalization.normalize_latex(text, _NORMAL)
    try:
        found = _Reader(imaginary=imaginary).parse(text)
    except Exception:
        sides = parser.equation_split_regex.split(text)
        if len(sides) < 3 or re.search("[,;<>]", text):
            raise
        found = _last(sides, imaginary)
    if found.has(sympy.zoo, sympy.nan):
        raise Unreadable("a division by zero")
    return found


def _last(sides: list[str], imaginary: bool) -> Any:
    """Return the last side of a chain of equations that is not read as a whole, if no other side is another number."""
    last = _Reader(imaginary=imaginary).parse(sides[-1])
    for side in sides[:-1]:
        value = last
        with suppress(Exception):
            value = _Reader(imaginary=imaginary).parse(side)
        if isinstance(value, sympy.Expr) and not value.free_symbols and not same(last, value):
            raise Unreadable("an equation of different numbers")
    return last


USUAL = (
    *(r"\frac{1}{2}", "0.5", r"-\frac{\sqrt{3}}{2}", r"2\sqrt{2}", r"\sqrt[3]{2}", r"\frac{2\pi}{3}", r"\pi r^2"),
    *("(1,2)", r"(-\infty, 2) \cup [3, \infty)", "[0,1]", "1,2", r"\{1, 2\}", "(1,2), (3,4)", r"(2 \cdot 10^{-9}, x)"),
    *("x^2+2x+1", r"\frac{x+1}{x-1}", "y=2x+1", r"x \le 2", "1<x<2", "x=1, y=2", "f(x)=x^2", r"x \in [0,1]", "n!"),
    *("2^{10}", "3+4i", r"e^{-x}", r"\ln 2", r"\log_2 3", r"\sin x", r"\cos\frac{\pi}{5}", "E_{1}", "x_1"),
    *(r"3 \times 10^8", r"\begin{pmatrix}1\\2\end{pmatrix}", r"\binom{5}{2}", "|x|", r"10!", r"1+\frac{1}{2+\sqrt{5}}"),
)
"""Answers of the usual forms."""


def warm_up() -> None:
    """Read and compare answers of the usual forms, so that the parser has its tables when the first answer comes."""
    for one, other in pairwise(USUAL):
        equal(one, other)


def elements(text: str) -> list[str]:
    """Return the parts of a text between the commas that are in no bracket.

    Examples
    --------
    >>> elements("1,(2,3)")
    ['1', '(2,3)']
    """
    parts, depth, at = [], 0, 0
    for place, sign in enumerate(text):
        if sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        elif sign == "," and not depth:
            parts.append(text[at:place])
            at = place + 1
    return [*parts, text[at:]]


def _signs(part: str) -> list[str]:
    r"""Return a part of an answer with each choice of the signs in \pm."""
    found = _BOTH_SIGNS.findall(part)
    if not found:
        return [part]
    if len(found) > 4:
        raise Unreadable(f"{len(found)} signs of both kinds")
    pieces = re.split(r"\\(?:pm|mp)(?![A-Za-z])|±|∓", part)
    spelt = []
    for signs in product("+-", repeat=len(found)):
        joined = "".join(sign + piece for sign, piece in zip(("", *signs), pieces, strict=True))
        spelt.append(re.sub(r"(^|[({\[=,])\s*\+", r"\1", joined))
    return spelt


# Comparing


def equal(gold: str, answer: str, tolerance: str = "exact") -> bool:
    """Return whether two answers in LaTeX are equal; it raises `Unreadable` or any error of sympy's.

    `tolerance` names the relative error that two numbers may have (`scale.rewards.spelling`). The comparison is not
    symmetric: an interval answers an inequality.
    """
    imaginary = is_imaginary(gold, answer)
    _leeway.tolerance, _leeway.rounded = tolerance, "." in gold + answer
    right, found = read(gold, imaginary), read(answer, imaginary)
    in_set = isinstance(right, sympy.Eq) and isinstance(right.rhs, sympy.Set)  # an inequality says the same of x
    if in_set and not isinstance(found, sympy.Eq):
        right = right.rhs
    for one, other, text in ((right, found, answer), (found, right, gold)):
        point = isinstance(one, (sympy.Tuple, sympy.Interval))
        if point and isinstance(other, FiniteSet) and text.strip().startswith(r"\{"):
            return False  # a set for a point or an interval
    regions = _region(right, gold), _region(found, answer)
    if None not in regions and (isinstance(right, FiniteSet) or isinstance(found, FiniteSet) or not _is_point(right)):
        (gold_set, gold_symbol), (answer_set, symbol) = regions
        return (gold_symbol == symbol or not gold_symbol or not symbol) and any(x in answer_set for x in gold_set)
    as_set = in_set or _SET_OF.fullmatch(answer) is not None
    if grader.sympy_expr_eq(right, found, ROUNDED, DIGITS, as_set):
        return True
    if r"\ln" in gold and _LOGARITHM.search(answer):
        return equal(gold, _LOGARITHM.sub(r"\\ln ", answer), tolerance)
    return False


def _region(value: Any, text: str) -> Any:
    """Return what sets inequalities in a variable, or intervals, may mean, and the variable; None for another answer.

    By "or" their union is meant, and by "and" what satisfies all, or again the union if nothing does. A comma may mean
    either.
    """
    parts = list(value.args) if isinstance(value, FiniteSet) else [value]
    sets, symbols = [], set()
    for part in parts:
        if isinstance(part, sympy.Eq) and isinstance(part.rhs, (sympy.Interval, sympy.Union)):
            part, symbol = part.rhs, {part.lhs}
        elif isinstance(part, (sympy.Interval, sympy.Union)):
            symbol = set()
        elif grader.is_relation(part) and not grader.is_equation(part) and len(part.free_symbols) == 1:
            symbol = part.free_symbols
            with suppress(Exception):
                part = part.as_set()
        if not isinstance(part, (sympy.Interval, sympy.Union)):
            return None
        sets.append(part)
        symbols |= symbol
    if not sets or len(symbols) > 1 or (len(sets) > 1 and not symbols):
        return None
    union, common = sympy.Union(*sets), sympy.Intersection(*sets)
    if common is sympy.S.EmptySet or _OR.search(text):
        return [union], symbols
    return [common] if _AND.search(text) else [union, common], symbols


def _is_point(value: Any) -> bool:
    """Return whether an interval may be a point, such as (0, 1), or a list, such as [0, 1]."""
    if not isinstance(value, sympy.Interval) or value.start.is_infinite or value.end.is_infinite:
        return False
    return bool(value.left_open == value.right_open)


_OR = re.compile(r"\\text\s*\{\s*or\s*\}")
_AND = re.compile(r"\\text\s*\{\s*and\s*\}")

_LOGARITHM = re.compile(r"\\log(?![A-Za-z_])(?!\s*_)")


class _Leeway:
    """What the comparison in progress allows; Math-Verify hands nothing through."""

    tolerance = "exact"
    rounded = True
    """Whether a decimal is written in one of the answers."""


_leeway = _Leeway()


def same(gold: Any, answer: Any, *_: Any) -> bool:
    """Return whether two objects of sympy are the same number, expression, matrix or union of sets.

    Examples
    --------
    >>> same(sympy.sqrt(8), 2 * sympy.sqrt(2)), same(sympy.Rational("2.88e-19"), sympy.Rational("5.76e-19"))
    (True, False)
    """
    gold, answer = _done(gold), _done(answer)
    if isinstance(gold, sympy.MatrixBase) or isinstance(answer, sympy.MatrixBase):
        return (
            isinstance(gold, sympy.MatrixBase)
            and isinstance(answer, sympy.MatrixBase)
            and gold.shape == answer.shape
            and all(same(x, y) for x, y in zip(gold.flat(), answer.flat(), strict=True))
        )
    if gold == answer:
        return True
    if not (isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr)):
        return False
    if gold in _ENDLESS or answer in _ENDLESS:
        return False
    if not gold.free_symbols and not answer.free_symbols:
        return _same_number(gold, answer)
    return _same_expression(gold, answer)


_ENDLESS = (sympy.oo, -sympy.oo, sympy.zoo, sympy.nan)


def _done(value: Any) -> Any:
    """Return a value with its sums, products and powers computed."""
    try:
        return sympy.sympify(value).doit()
    except (TypeError, ValueError, NotImplementedError):
        return value


def _close(gold: Any, answer: Any) -> bool:
    """Return whether two real numbers differ by less than the tolerance."""
    size = abs(gold.evalf(DIGITS))
    error = abs((gold - answer).evalf(DIGITS))
    return bool(error <= sympy.Rational(error_allowed(Fraction(str(size)), _leeway.tolerance)) * size)


def _same_number(gold: Any, answer: Any) -> bool:
    """Return whether two numbers are equal, or one is a decimal that is the other one correctly rounded."""
    exact = False if gold.is_Rational and answer.is_Rational else _numbers_agree(gold, answer)
    if exact is None:
        return bool(sympy.simplify(gold - answer) == 0)
    if exact:
        return True
    if _leeway.tolerance != "exact" and gold.is_real and answer.is_real:
        return _close(gold, answer)
    return _leeway.rounded and (_is_rounded(gold, answer) or _is_rounded(answer, gold))


def _numbers_agree(gold: Any, answer: Any) -> bool | None:
    """Return whether two numbers agree to `DIGITS` digits; None if one of them has no value."""
    one, other = gold.evalf(DIGITS), answer.evalf(DIGITS)
    if not (_is_value(one) and _is_value(other)):
        return None
    size = max(abs(one), abs(other))
    if not size:
        return True
    if abs(one - other) > size * sympy.Float(10, DIGITS) ** (5 - DIGITS):
        # A zero that is not seen as one, such as \sqrt{2}\sqrt{3} - \sqrt{6}, has no correct digit.
        return bool(not one or not other) and _is_zero(gold - answer)
    return True


def _is_value(number: Any) -> bool:
    real, imaginary = number.as_real_imag()
    return bool(real.is_Float or real.is_Rational) and bool(imaginary.is_Float or imaginary.is_Rational)


def _is_zero(number: Any) -> bool:
    """Return whether no digit of a number can be determined."""
    return all(not x or (x.is_Float and x._prec <= 1) for x in number.evalf(15, maxn=200).as_real_imag())


def _is_rounded(decimal: Any, number: Any) -> bool:
    """Return whether a finite decimal is another number, correctly rounded to `ROUNDED` significant digits at least."""
    if not decimal.is_Rational or decimal == 0 or (places := _places(decimal)) is None or not number.is_real:
        return False
    if number.is_Rational and _places(number) is not None:
        return False
    significant = len(str(abs(decimal.p) * 10**places // decimal.q)) if places > 0 else 0
    if significant < ROUNDED:
        return False
    error = (number - decimal).evalf(DIGITS)
    return bool(abs(error) <= sympy.Rational(1, 2 * 10**places))


def _places(number: Any) -> int | None:
    """Return how many decimal places a rational number has; None for endless ones and 0 for an integer."""
    twos = fives = 0
    rest = int(number.q)
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


def _same_expression(gold: Any, answer: Any) -> bool:
    """Return whether two expressions with variables agree at points of both signs, else by algebra."""
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    agreed = 0
    steps = _is_of_integers(gold) or _is_of_integers(answer)
    complex_numbers = gold.has(sympy.I) or answer.has(sympy.I)
    roots = [x for x in gold.atoms(sympy.Pow) | answer.atoms(sympy.Pow) if x.exp.is_Rational and x.exp.q % 2 == 0]
    for number in range(1, 12 * POINTS):
        at = {x: _point(number, place, whole=steps) for place, x in enumerate(symbols)}
        one, other = _done(gold.subs(at)), _done(answer.subs(at))
        if not complex_numbers and any((x.base.subs(at)).is_negative for x in roots):
            continue
        if not isinstance(one, sympy.Expr) or not isinstance(other, sympy.Expr) or one in _ENDLESS or other in _ENDLESS:
            continue
        if not complex_numbers and not (one.is_real and other.is_real):
            continue  # where a root has no real value
        verdict = bool(one == other) or (None if one.free_symbols or other.free_symbols else _numbers_agree(one, other))
        if verdict is None or one == other == 0:  # 1/(n - k)! is 0 wherever k > n
            continue
        if not verdict:
            return False
        agreed += 1
        if agreed == (8 if steps else 1) * POINTS:
            return True
    return agreed >= ENOUGH or bool(sympy.simplify(gold - answer) == 0)


ENOUGH = 2
"""Points that suffice where there are no more, as with roots of many variables."""

_STEPS = (sympy.floor, sympy.ceiling, sympy.Mod, sympy.factorial, sympy.binomial)
"""Functions of integers: they are compared at many integers, since they may agree at a few numbers."""


def _is_of_integers(expression: Any) -> bool:
    """Return whether an expression has functions of integers; the floor of x alone says that x is none."""
    whole = {x: sympy.Dummy(integer=True) for x in expression.free_symbols}
    rounded = expression.atoms(sympy.floor, sympy.ceiling)
    return bool(expression.has(*_STEPS)) and not any(x.args[0].xreplace(whole).is_integer for x in rounded)


def _point(number: int, place: int, *, whole: bool) -> Any:
    """Return a number for a variable: any do that satisfy no simple equation, and have all combinations of signs."""
    if whole:
        return sympy.Integer(number + place * (number % 7 + 1) * (1 if number % 2 or place > number else -1))
    size = sympy.Rational(7919 * number + 104_729 * place + 31, 9_991)
    size = size / 61 if number % 3 == 0 else size  # a root may have no value at numbers above 1
    return size if (number >> place % 4) % 2 else -size


def _same_symbols(gold: Any, answer: Any) -> bool:
    """Return whether two answers are the same, one of which is a symbol; words are so whatever their capitals are."""
    if isinstance(gold, sympy.Symbol) and isinstance(answer, sympy.Symbol):
        one, other = gold.name, answer.name
        return bool(one == other or (len(one) > 1 and one.isalpha() and one.casefold() == other.casefold()))
    for word, letters in ((gold, answer), (answer, gold)):
        if isinstance(word, sympy.Symbol) and len(word.name) > 2 and _are_letters(letters):
            spelt = "".join("e" if x == sympy.E else x.name for x in letters.args)
            return sorted(word.name.casefold()) == sorted(spelt.casefold())
    return same(gold, answer)


def _are_letters(product: Any) -> bool:
    """Return whether an expression is a product of symbols, as a word is read that is not in a text command."""
    return isinstance(product, sympy.Mul) and all(x.is_Symbol or x == sympy.E for x in product.args)


def _same_elements(gold: Any, answer: Any, *precision: Any) -> bool:
    """Return whether two finite sets have the same elements, or two tuples the same in order."""
    if len(gold) != len(answer):
        return False
    if isinstance(gold, sympy.Tuple):
        ordered = answer._unsorted_args if isinstance(answer, FiniteSet) else answer.args
        if len(ordered) != len(gold):
            return False
        return all(grader.sympy_expr_eq(x, y, *precision) for x, y in zip(gold.args, ordered, strict=True))
    return _match(gold.args, answer.args, lambda x, y: bool(grader.sympy_expr_eq(x, y, *precision)))


def _match(golds: Iterable[Any], answers: Iterable[Any], are_equal: Callable[[Any, Any], bool]) -> bool:
    left = list(answers)
    for gold in golds:
        found = next((place for place, x in enumerate(left) if are_equal(gold, x)), None)
        if found is None:
            return False
        del left[found]
    return not left


def _same_answers(gold: Any, answer: Any, *precision: Any) -> bool:
    """Return whether two answers are the same; of an equation, what is on its right side answers a question.

    The sides of an equation that are numbers must agree, so that 6 = 5 says nothing; and of one unknown it must say
    what it is, not what its square or its double is.
    """
    if _written(gold) > len(getattr(gold, "args", ())) and _written(gold) != _written(answer):
        return False  # a list with copies, such as 1, 1
    if grader.is_relation(gold) and not grader.is_equation(gold):
        if isinstance(answer, sympy.FiniteSet):
            return False  # its ends are not what is between them
        if grader.is_relation(answer) and not grader.is_equation(answer) and _same_solution_sets(gold, answer):
            return True
    if grader.is_equation(answer):
        sides = _sides(answer)
        numbers = [x for x in sides if isinstance(x, sympy.Expr) and not x.free_symbols and not x.atoms(AppliedUndef)]
        if any(not same(numbers[-1], x) for x in numbers[:-1]):
            return False
    if grader.is_equation(answer) and not grader.is_equation(gold):
        left = sides[0]
        if isinstance(left, sympy.Expr) and len(left.free_symbols) == 1 and not _is_name(left):
            return False
    if grader.is_equation(gold) and not grader.is_relation(answer) and not _is_name(_sides(gold)[0], ratio=True):
        return False
    return bool(_compare_answers(gold, answer, *precision))


def _same_solution_sets(gold: Any, answer: Any) -> bool:
    """Return whether inequalities in one variable have the same solutions."""
    if len(gold.free_symbols) != 1 or gold.free_symbols != answer.free_symbols:
        return False
    with suppress(Exception):
        return bool(gold.as_set() == answer.as_set())
    return False


def _written(answer: Any) -> int:
    """Return how many elements a list or a finite set has as it is written, copies included; 0 for another answer."""
    return len(answer._unsorted_args) if isinstance(answer, FiniteSet) and hasattr(answer, "_unsorted_args") else 0


def _sides(equation: Any) -> list[Any]:
    """Return the sides of an equation, or of a chain of equations."""
    parts = equation._unsorted_args if isinstance(equation, And) else [equation]
    return [parts[0].lhs, *(x.rhs for x in parts)]


def _is_name(left: Any, *, ratio: bool = False) -> bool:
    """Return whether the left side of an equation is a symbol or a function such as f(x), or a ratio of symbols."""
    if isinstance(left, (sympy.Symbol, sympy.Tuple, AppliedUndef)):
        return True
    symbols = len(getattr(left, "free_symbols", ()))
    return ratio and symbols > 1 and not left.has(sympy.Add) and latex2sympy2.is_expr_of_only_symbols(left)


_compare_answers = grader.sympy_expr_eq
_solve_and_compare = grader.sympy_solve_and_compare
_compare_sets = grader.sympy_compare_sets


def _same_sets(gold: Any, answer: Any, *precision: Any) -> bool:
    """Return whether two sets are the same; unions, part by part, of which an answer may be a list."""

    def parts_agree() -> bool:
        return _match(gold.args, answer.args, lambda x, y: bool(grader.sympy_expr_eq(x, y, *precision)))

    listed = isinstance(answer, FiniteSet) and all(isinstance(x, sympy.Set) for x in answer.args)
    in_parts = isinstance(gold, sympy.Union) and (listed or isinstance(answer, sympy.Union))
    return (in_parts and parts_agree()) or bool(_compare_sets(gold, answer, *precision))


def _same_solutions(gold: Any, answer: Any, *precision: Any) -> bool:
    """Return whether two equations or inequalities have the same solutions; those without any are not compared."""
    if gold.free_symbols != answer.free_symbols or not sympy.solve(gold, gold.free_symbols):
        return False
    return bool(_solve_and_compare(gold, answer, *precision))


# Math-Verify's comparison calls these by name.
grader.sympy_expr_eq = _same_answers
grader.sympy_numeric_eq = same
grader.sympy_symbolic_eq = lambda gold, answer: False
grader.sympy_compare_symbols = _same_symbols
grader.sympy_deep_compare_set_and_tuple = _same_elements
grader.sympy_compare_sets = _same_sets
grader.sympy_solve_and_compare = _same_solutions
