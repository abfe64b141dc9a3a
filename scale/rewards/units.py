r"""Units at the end of an answer, told from variables by how they are spelt and by what the problem says.

"5\text{ cm}", "5 cm" and "5\,\mathrm{m/s^2}" have a unit. A bare letter, as in "6m", is a variable: it is a unit only
if the problem names that unit and does not use the letter in a formula.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NAMES = """
m: meter meters metre metres
cm: centimeter centimeters centimetre centimetres
mm: millimeter millimeters millimetre millimetres
km: kilometer kilometers kilometre kilometres kms
dm: decimeter decimeters decimetre decimetres
nm: nanometer nanometers nanometre nanometres
in: inch inches
ft: foot feet
yd: yard yards
mi: mile miles
s: sec secs second seconds
min: mins minute minutes
h: hr hrs hour hours
day: days
week: weeks
month: months
yr: year years
g: gram grams gm gms
kg: kilogram kilograms kgs
lb: lbs pound pounds
oz: ounce ounces
ton: tons tonne tonnes
L: l liter liters litre litres
mL: ml milliliter milliliters millilitre millilitres
gal: gallon gallons
mph:
kmph: kmh kph
N: newton newtons
J: joule joules
kJ: kilojoule kilojoules
W: watt watts
kW: kilowatt kilowatts
V: volt volts
A: amp amps ampere amperes
C: coulomb coulombs celsius
F: fahrenheit
K: kelvin kelvins
Hz: hertz
Pa: pascal pascals
mol: mole moles mols
eV:
erg: ergs
ohm: ohms Ω
T: tesla teslas
pc: parsec parsecs
AU:
atm:
cal: calorie calories
cup: cups
pint: pints
quart: quarts
rad: radian radians
deg: degree degrees
am:
pm:
dollar: dollars usd
cent: cents
rupee: rupees rs
euro: euros eur
"""

_UNITS = {
    word: line.partition(":")[0]
    for line in _NAMES.split("\n")
    if line
    for word in (line.partition(":")[0], *line.partition(":")[2].split())
}

_PREFIXES = "fpnμmckMGT"
_METRIC = frozenset({*"msgLNJWVACKTΩ", "Hz", "Pa", "mol", "eV", "pc", "cal"})

_BARE = {word for word in _UNITS if len(word) > 1} - {
    *("am", "pm", "ml", "mL", "rs", "gm", "nm", "dm", "kJ", "kW", "Pa", "mi", "pc", "AU")
} | {"keV", "MeV", "GeV", "kHz", "MHz", "GHz", "kPa", "MPa"}
"""Spellings that are units without a text command, too; the others may be products of variables."""

_GLYPHS = {"$": "dollar", "¢": "cent", "€": "euro", "£": "lb", "¥": "yen", "₹": "rupee"}

_FRONT = re.compile(
    r"(?:\\\$|[€£¥₹]|\\pounds(?![A-Za-z])|\\text\s*\{\s*(?:US)?\\?\$\s*\}|US\s*\\?\$|(?:US|Rs\.?|USD|EUR)(?=[\s\d]))\s*"
)

_COMMAND = r"\\(?:text|textrm|textit|textbf|textnormal|mathrm|mathit|mathsf|mbox|operatorname|rm)\s*"
_POWER = r"(?:\s*\^\s*(?:-?\d|\{\s*-?\d\s*\})|[²³])?"
_SPELT = rf"(?:\\mu\s*(?={_COMMAND}\{{[A-Za-z]))?{_COMMAND}\{{(?P<text>(?:[^{{}}]|\{{[^{{}}]*\}})*)\}}{_POWER}"
_FRACTION = rf"\\frac\s*\{{\s*{_COMMAND}\{{[^{{}}]*\}}{_POWER}\s*\}}\s*\{{\s*{_COMMAND}\{{[^{{}}]*\}}{_POWER}\s*\}}"
_DEGREE = r"\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})\s*(?:[CFK](?![A-Za-z]))?"
_WORD = r"(?<![A-Za-z\\{_^])[A-Za-z]{2,}\.?(?:\s*\^\s*(?:-?\d|\{\s*-?\d\s*\})|[²³]|(?<=m)[23])?"
_SIGN = r"[€£¥₹¢]|\\\$|\\AA(?![A-Za-z])|(?<![A-Za-z\\])[A-Za-z]+[²³]"
_PHRASE = re.compile(r"(?<=[\d)}])\s+((?:[a-z]{2,}\s+)+[a-z]{2,})$")
_BETWEEN = r"(?:[\s/]|\\(?:cdot|times)(?![A-Za-z]))*"
_ATOM = r"[A-Za-z]+(?:\s*\^\s*(?:-?\d|\{\s*-?\d\s*\})|[²³])?"
_COMPOUND = re.compile(rf"(?<=[\d)}}\s])(?:\s|\\[,;: ]|~)*(?P<unit>{_ATOM}(?:(?:\s*/\s*|\s*\\cdot\s*|\s+){_ATOM})+)$")
_LAST = re.compile(rf"{_BETWEEN}(?P<unit>{_FRACTION}|{_SPELT}|{_DEGREE}|{_SIGN}|{_WORD})$")

_NO_UNITS = re.compile(
    r"\b(?:not|no|or|and|than|if|when|where|for|with|except|excluded|unless|either|neither|wrong|false|incorrect"
    r"|mod|(?<!to )choose|plus|minus|times|over|under|above|below|between|too|(?:negative|positive)$|most|least|fewer"
    r"|less|approximately|about|divided|multiplied|factorial|twice|thrice|doubled?|tripled?|dozens?|lakhs?|crores?"
    r"|hundreds?|thousands?|[mbtr]+illions?|half|halves|quarters?|thirds?|(?:four|fif|six|seven|eigh|nin|ten)ths?"
    r"|(?:hundred|thousand|million|billion)ths?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|more(?=$|\s+than)|percent(?=\s+\S))\b|^(?:squared|cubed)\b",
    re.IGNORECASE,
)
"""Words that say something else of a number."""

_LETTERS = frozenset({"e", "i", "d", "pi", "and", "or", "Yes", "No", "True", "False", "if", "for", "where"})
"""What stands in a text command and is no unit."""


LONGEST = 1_000
"""Characters of an answer that may have a unit."""


class Measured(NamedTuple):
    """An answer without its unit, and the unit as it is spelt, empty if there is none."""

    value: str
    unit: str


def measured(answer: str) -> Measured:
    r"""Return an answer and its unit apart; only what is spelt as a unit is one.

    Examples
    --------
    >>> measured(r"5\text{ cm}^2"), measured("6m"), measured("12 square feet")
    (Measured(value='5', unit='\\text{ cm}^2'), Measured(value='6m', unit=''), Measured(value='12', unit='square feet'))
    """
    text = answer.strip()
    if len(text) > LONGEST:
        return Measured(text, "")
    front = _FRONT.match(text)
    value = text[front.end() :] if front else text
    end = len(value)
    phrase = _PHRASE.search(value)
    if phrase is not None and not _NO_UNITS.search(phrase[1]) and any(len(x) > 3 for x in phrase[1].split()):
        end = phrase.start()
    if (together := _compound(value)) is not None and together[1] & {*_BARE, "mi"}:
        end = together[0]
    while (last := _LAST.search(value[:end])) is not None and _is_unit(last, value[: last.start()]):
        end = last.start()
    if not re.search(r"[A-Za-z0-9]", value[:end]):
        return Measured(text, "")
    unit = (front[0].strip() if front else "") + value[end:].strip()
    return Measured(value[:end].strip(), unit)


def _compound(value: str) -> tuple[int, set[str], str] | None:
    """Return where a unit of several known ones begins, such as km/h and erg s^{-1}, their words, and the unit."""
    found = _COMPOUND.search(value)
    if found is None or not ("/" in found["unit"] or re.search(r"\^\s*\{?\s*-", found["unit"])):
        return None
    words = set(re.findall("[A-Za-z]+", found["unit"]))
    known = words <= {*_UNITS, *_BARE} and re.search(r"\d", value[: found.start()])
    return (found.start(), words, found["unit"]) if known else None


_OF_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
"""Functions whose argument may be in degrees, which are then no unit of the value."""


def _is_unit(last: re.Match[str], before: str) -> bool:
    """Return whether what stands last is a unit of what stands before."""
    if not re.search(r"[0-9A-Za-z)}]", before):
        return False
    unit = last["unit"]
    if unit.startswith("^") and _OF_ANGLE.search(before):
        return False
    if unit.startswith(("^", "\\frac", "\\$", "\\AA")) or not unit[-1].isascii():
        return True
    if last["text"] is not None:
        words = last["text"].replace("~", " ").strip(" .()")
        if words in _LETTERS or not re.fullmatch(r"[A-Za-zµμΩ°²³ ./^*\d{}\\,-]+", words):
            return False
        if _NO_UNITS.search(words):
            return False
        # One letter may be a variable that is set upright.
        return len(words) > 1 or words in _UNITS
    word = re.match(r"[A-Za-z]+", unit)
    assert word is not None
    if _NO_UNITS.search(unit):
        return False
    return word[0] in _BARE or (len(word[0]) > 3 and before[-1:] != "\\" and _is_phrase(word[0], before))


def _is_phrase(word: str, before: str) -> bool:
    """Return whether a word of more than three letters follows a number, or words that follow one."""
    return word.islower() and re.search(r"[\d)}]\s*(?:[A-Za-z]{2,}\.?(?:\s+|$)|/\s*)*$", before) is not None


def conflict(one: str, other: str) -> bool:
    r"""Return whether two units are known, and are not the same one.

    Examples
    --------
    >>> conflict(r"\text{ cm}", "centimeters"), conflict("cm", "m"), conflict("apples", "m")
    (False, True, False)
    """
    first, second = dimension(one), dimension(other)
    return first is not None and second is not None and first != second


_TOKEN = re.compile(r"[A-Za-zμΩ]+|\^?-?\d+|[²³/$€£¥₹¢°]")


def _name(word: str) -> str | None:
    """Return the name of a unit, also of one with a prefix such as MeV; None if it is not known."""
    known = _UNITS.get(word) or _UNITS.get(word.lower()) or _GLYPHS.get(word)
    return known or (word if word[0] in _PREFIXES and word[1:] in _METRIC else None)


def dimension(unit: str) -> dict[str, int] | None:
    r"""Return the powers of the units in a unit, or None if a word in it is not known.

    Examples
    --------
    >>> dimension(r"\mathrm{~m} / \mathrm{s}^{2}"), dimension("square feet"), dimension("apples")
    ({'m': 1, 's': -2}, {'ft': 2}, None)
    """
    text = re.sub(rf"(?:\\mu|[µμ])\s*(?:{_COMMAND}\{{)?", "μ", unit).replace("\\Omega", "Ω")
    text = re.sub(_COMMAND, " ", text).replace("\\circ", "°").replace("\\frac", "").replace("}{", "/")
    text = re.sub(r"\\(?:cdot|times)", " ", text)
    text = re.sub(r"[{}\\~,().]", "", re.sub(r"\^\s*°", "°", text.replace("{", " ").replace("}", " ")))
    found: dict[str, int] = {}
    sign, power, last = 1, 1, ""
    for token in _TOKEN.findall(text):
        low = token.lower()
        if token == "/" or low == "per":
            sign = -1
        elif low in ("square", "sq", "squared"):
            if low == "squared" and last:
                found[last] *= 2
            else:
                power = 2
        elif low in ("cubic", "cu", "cubed"):
            if low == "cubed" and last:
                found[last] *= 3
            else:
                power = 3
        elif token in ("²", "³") or token.lstrip("^-").isdigit():
            if not last:
                return None
            found[last] *= {"²": 2, "³": 3}.get(token) or int(token.lstrip("^"))
        elif token == "°":
            last = "deg"
            found[last] = found.get(last, 0) + sign
        else:
            name = _name(token)
            if name is None:
                return None
            if last == "deg" and name in ("C", "F", "K"):
                found.pop("deg", None)
            last = name
            found[name] = found.get(name, 0) + sign * power
            power = 1
    return found or None


_LETTER = re.compile(r"(?P<value>.*[\d)}\s])\s*(?P<letter>[A-Za-z])\s*", re.DOTALL)
_FORMULA = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_TEXTS = re.compile(rf"{_COMMAND}\{{[^{{}}]*\}}")


def letter_unit(answer: str, problem: str | None) -> Measured | None:
    """Return an answer without the bare letter at its end, if the problem names the unit and has no such variable.

    Examples
    --------
    >>> letter_unit("6m", "How many meters?"), letter_unit("6m", "Find $2m + 4m$ in meters."), letter_unit("6m", None)
    (Measured(value='6', unit='m'), None, None)
    """
    if problem is not None and (together := _compound(answer)) is not None:
        start, words, unit = together
        said = re.sub(r"[\s{}]", "", unit) in re.sub(r"[\s{}~\\]", "", re.sub(_COMMAND, "", problem))
        if said and not any(has_variable(problem, x) for x in words):
            return Measured(answer[:start].strip(), unit)
    ends = _LETTER.fullmatch(answer)
    if problem is None or ends is None or ends["letter"] not in _UNITS:
        return None
    letter = ends["letter"]
    if has_variable(problem, letter):
        return None
    names = [word for word, name in _UNITS.items() if name == _UNITS[letter] and len(word) > 1]
    named = re.search(rf"(?<![A-Za-z])(?:{'|'.join(names)})(?![A-Za-z])", problem, re.IGNORECASE)
    spelt = re.search(rf"\d\s*{letter}(?![A-Za-z])|{_COMMAND}\{{[~\s]*{letter}[\s}}/]", problem)
    return Measured(ends["value"].strip(), letter) if named or spelt else None


def has_variable(problem: str, letter: str) -> bool:
    """Return whether a formula of a problem has a letter as a symbol."""
    symbol = re.compile(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])")
    return any(
        symbol.search(_TEXTS.sub(" ", "".join(x for x in formula.groups() if x))) is not None
        for formula in _FORMULA.finditer(problem)
    )
