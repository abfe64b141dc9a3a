r"""What preparation and rewards read alike: characters of full width, and boxes in LaTeX."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

# Full-width forms of ASCII, and the signs that stand for an ASCII one. Compatibility forms (NFKC) are not folded:
# they would make x² and x2 the same.
_WIDTH = {code + 0xFEE0: code for code in range(0x21, 0x7F)} | {0x3000: 0x20, 0x2212: 0x2D, 0x200B: None, 0xFEFF: None}

_TOKEN = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)


# No character up to U+02FF and no Chinese one is a mark or begins with one, so marks lie within such a run.
_RUN = re.compile("[^\x00-\u02ff\u3400-\u4dbf\u4e00-\u9fff]{64,}")


def narrow(text: str) -> str:
    """Return a text with composed accents (NFC) and full-width forms of ASCII made narrow.

    Examples
    --------
    >>> narrow("ｘ＝３，")
    'x=3,'
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _RUN.sub(lambda run: _in_order(run[0]), text.translate(_WIDTH)))


def _in_order(text: str) -> str:
    """Return a text decomposed, with the marks on each character in canonical order, as in NFD.

    Python's own NFD and NFC sort them, too, but in time quadratic in the number of marks.
    """
    ordered: list[str] = []
    marks: list[str] = []
    for each in "".join(unicodedata.normalize("NFD", x) for x in text):
        if unicodedata.combining(each):
            marks.append(each)
        else:
            ordered += (*sorted(marks, key=unicodedata.combining), each)
            marks.clear()
    return "".join((*ordered, *sorted(marks, key=unicodedata.combining)))


class Box(NamedTuple):
    """Where a box starts and ends, and what is in it."""

    start: int
    end: int
    content: str


def boxes(text: str) -> list[Box]:
    r"""Return the boxes of a text whose braces close, in order, without those inside others.

    Examples
    --------
    >>> [box.content for box in boxes(r"\boxed{1}, not \boxed{\frac{1}{\boxed{2}}} or \boxed{3")]
    ['1', '\\frac{1}{\\boxed{2}}']
    """
    return boxes_and_rest(text)[0]


def boxes_and_rest(text: str) -> tuple[list[Box], int | None]:
    r"""Return the boxes of a text, and where the first one after them starts that never closes, or None.

    Examples
    --------
    >>> boxes_and_rest(r"\boxed{1 and \boxed{2}")[1], boxes_and_rest(r"\boxed{1} and \boxed{2")[1]
    (None, 14)
    """
    closed: list[tuple[int, int, int]] = []  # where a box, its content and its closing brace start
    opened: list[tuple[int, int] | None] = []
    for token in _TOKEN.finditer(text):
        what = token[0]
        if what.startswith("\\"):
            if what.endswith("{") and len(what) > 2:
                opened.append((token.start(), token.end()))
        elif what == "{":
            opened.append(None)
        elif opened and (box := opened.pop()) is not None:
            while closed and closed[-1][0] > box[0]:
                closed.pop()
            closed.append((*box, token.start()))
    last = closed[-1][2] if closed else -1
    rest = next((box[0] for box in opened if box is not None and box[0] > last), None)
    return [Box(start, end + 1, text[inside:end]) for start, inside, end in closed], rest
