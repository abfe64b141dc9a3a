r"""The answer in a response, found in time linear in its length: a box first, else what follows the word "answer".

Math-Verify's own search for an answer in a long text takes minutes on some garbage, so the answer is found here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from scale.rewards.spelling import INFINITY
from scale.text import boxes, narrow

TAIL = 2_000
"""Characters at the end of a response in which an answer is looked for when there is no box."""

_JOINED = re.compile(r"(?:[\s$,;:.、，]|\\[\[\]();, ]|\\q?quad|and|or|和|或|与)*")


class Extracted(NamedTuple):
    """An answer, and whether it is LaTeX, as in a box, or a text in which to look for it."""

    text: str
    latex: bool


def extract(response: str, *, require_box: bool = False) -> Extracted | None:
    r"""Return the answer in a response: the last box, else what the last "answer" says, else its end.

    Boxes side by side ("\boxed{1} and \boxed{2}") are one answer of several parts. With `require_box` only a box is an
    answer.

    Examples
    --------
    >>> extract(r"either $\boxed{1}$ or $\boxed{2}$"), extract("答案是：15。"), extract("")
    (Extracted(text='1, 2', latex=True), Extracted(text='15', latex=False), None)
    """
    boxed = boxes(response)
    if boxed:
        parts = [boxed[-1].content]
        for one, next_one in zip(boxed[-2::-1], boxed[:0:-1], strict=True):
            if not _JOINED.fullmatch(response, one.end, next_one.start):
                break
            parts.append(one.content)
        text = ", ".join(dict.fromkeys(x.strip() for x in reversed(parts) if x.strip()))
        return Extracted(text, True) if text else None
    if require_box:
        return None
    tail = narrow(response[-TAIL:]).strip()
    stated = _STATED.split(tail)
    if len(stated) == 1:
        return Extracted(tail, False) if tail else None
    said = stated[-1].strip("*。 \n")
    line = said.split("\n")[0].strip("*。 ").removesuffix(".")
    said = line if any(x.isalnum() for x in line) else said  # "$$" may stand on a line of its own
    formula = _FORMULA.fullmatch(said)
    if formula is not None:
        return Extracted(next(x for x in formula.groups() if x), True)
    # LaTeX without its delimiters is LaTeX too; read as a text, 2\sqrt{2} would be 2.
    latex = any(x in said for x in "\\^_{") and not _DELIMITER.search(said)
    return Extracted(said, latex or INFINITY.fullmatch(said.lstrip("+- ")) is not None) if said else None


_DELIMITER = re.compile(r"\$|\\[(\[]")

_FORMULA = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+)\\\)|\\\[(.+)\\\]", re.DOTALL)

_STATED = re.compile(r"(?:(?i:answer)(?:\s+is)?\s*:|(?i:answer\s+is)|答案(?:是|为)?\s*:|答案(?:是|为))")
