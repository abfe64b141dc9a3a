r"""The answer that a response states, found in time linear in its length.

Stated is what stands in a box, between `<answer>` and `</answer>`, on a line "Answer: ..." or after "the answer is".
The last statement counts. Math-Verify's own search for an answer in a long text takes minutes on some garbage, and
finds one where none is stated; so the answer is found here.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from scale.rewards.values import MARKS, Value, distinct, value
from scale.text import Box, boxes, boxes_and_rest, narrow

ASKS_FOR: Mapping[str, str] = MappingProxyType(
    {"boxed": "box", "qwen-boxed": "box", "qwen25-math-cot": "box", "verl-boxed": "box", "dapo": "line"}
)
"""Where a template of `scale.data.text_keys` asks for the answer; of another one nothing is known."""


class Extracted(NamedTuple):
    """The answers in a response, in LaTeX, all of which must be right; whether guessed; and why there is none."""

    texts: tuple[str, ...] = ()
    guessed: bool = False
    reason: str = ""


class _Statement(NamedTuple):
    """Where a statement ends, its kind, and its answer; an empty one is not finished.

    The kinds are "box", "line", "prose" and "words": words without a value, in prose or below a heading.
    """

    end: int
    kind: str
    text: str


def extract(response: str, *, template: str | None = None, require_box: bool = False, guess: bool = False) -> Extracted:
    r"""Return the answer that a response states last.

    Boxes side by side ("\boxed{1} and \boxed{2}") are one answer of several parts. A line "Answer:" after a box takes
    its place; after a mere "the answer is" both must be right. Where the template's name is known, the answer is where
    that template asks for it, if it is there at all.

    Parameters
    ----------
    template : Name of the template of the prompt (`ASKS_FOR`), or None.
    require_box : Whether only a box is an answer.
    guess : Whether the last formula or number is the answer of a response that states none.

    Examples
    --------
    >>> extract(r"either $\boxed{1}$ or $\boxed{2}$").texts, extract("答案是：15。").texts, extract("so 1").reason
    (('1, 2',), ('15',), 'no stated answer')
    >>> extract(r"\boxed{1}, so 2 + 3 is \boxed{5").reason, extract("so 1", guess=True)
    ('unfinished answer', Extracted(texts=('1',), guessed=True, reason=''))
    """
    text = _without_denied(_conclusion(narrow(response)))
    found = _statements(text)
    if require_box:
        found = [x for x in found if x.kind == "box"]
    asked = [x for x in found if x.kind == ASKS_FOR.get(template or "")]
    counts: list[_Statement] = []
    for each in asked[-1:] or found:
        counts = [counts[0], each] if each.kind == "prose" and counts and counts[0].kind == "box" else [each]
    if counts:
        if not all(x.text for x in counts):
            return Extracted(reason="unfinished answer")
        return Extracted(tuple(dict.fromkeys(x.text for x in counts)))
    if require_box:
        return Extracted(reason="no box")
    alone = _alone(text)
    if alone is not None:
        return Extracted((alone,))
    last = _last_value(text) if guess else None
    return Extracted((last,), guessed=True) if last else Extracted(reason="no stated answer")


# The part of a response that concludes

_TOKEN = (
    r"<\|(?:im_end|endoftext|eot_id|end_of_text|eom_id|end|return|end▁of▁sentence|im_start|start_header_id|"
    r"end_of_solution)\|>|<eos>|<end_of_turn>|<start_of_turn>"
)

_END = re.compile(rf"{_TOKEN}|</s>(?=[\s*]*(?:[<\[]|\Z))")

_END_IN_BOX = re.compile(rf"(?:{_TOKEN}|</s>)\s*(?=\}})")

_THOUGHT = re.compile(
    r"<(?=/?(?:think|thinking|thought|reasoning|scratchpad|seed:think)>)(/?)[a-z:]+>|◁(?=/?think▷)(/?)think▷|"
    r"<\|(?:begin|(end))_of_thought\|>|<\|channel\|>(?:analysis|(final))<\|message\|>",
    re.IGNORECASE,
)

_FINAL_CHANNEL = "<|channel|>final<|message|>"
"""Where gpt-oss ends its thinking, which has an end-of-text token of its own."""

_STRUCK = re.compile(r"(?<![{~])~~(?=\S)[^~\n]{1,80}(?<=\S)~~(?![}~])")


def _conclusion(text: str) -> str:
    """Return the text up to its first end-of-text token, after the thinking, if something follows that."""
    text = text[max(0, text.rfind(_FINAL_CHANNEL)) :]
    text = next((part for part in _END.split(_STRUCK.sub(" ", _END_IN_BOX.sub("", text))) if part.strip()), "")
    text = text.rstrip("* \t\r\n")
    last = _last(_THOUGHT, text)
    if last is None:
        return text
    if not any(last.groups()):
        return text[: last.start()]  # a thought that does not end concludes nothing
    rest = text[last.end() :]
    return rest if rest.strip(MARKS) else _THOUGHT.sub(" ", text)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _without_denied(text: str) -> str:
    r"""Return a text with spaces for each box that it denies, as in "not \boxed{5}", so that nobody reads it."""
    parts: list[str] = []
    at = 0
    for box in boxes(text):
        if _before(_DENIED, text, box.start):
            parts += (text[at : box.start], " " * (box.end - box.start))
            at = box.end
    return "".join((*parts, text[at:]))


# Statements


def _statements(text: str) -> list[_Statement]:
    """Return the statements of a text in order; those in words count where there is no other."""
    closed, unfinished = boxes_and_rest(text)
    closed = [x for x in closed if not (_PLACEHOLDER.fullmatch(x.content) and _before(_MENTION, text, x.start))]
    groups = _joined(text, sorted([*closed, *_bare_boxes(text, closed)]))
    found = [_boxed(text, x) for x in groups]
    cut = _CUT_BOX.search(text)
    if cut or unfinished is not None:
        found.append(_Statement(len(text) if cut else (unfinished or 0) + 1, "box", ""))
    found += _said(text, groups)
    tag = _last(_TAG, text)
    if tag is not None:
        found.append(_tagged(text, tag.end(), found))
    found += _last_line(text)
    clear = [x for x in found if x.kind != "words"]
    return sorted(clear or found)


def _boxed(text: str, group: Box) -> _Statement:
    """Return what a box states; "or" and a number after it are a further part."""
    opened = _OPENED.search(text, max(0, group.start - 20), group.start)
    if opened or _DENIAL.match(text, group.end, group.end + WINDOW) or not group.content:
        return _Statement(group.end, "box", "")
    joint = _OR.match(text, group.end)
    more = value(text[joint.end() : joint.end() + LONGEST_ALONE].replace("?", ".")) if joint else None
    if more is None or more.words or not more.text:
        return _Statement(group.end, "box", group.content)
    return _Statement(group.end, "box", ", ".join(distinct([group.content, _UNIT.sub("", more.text)])))


_OR = re.compile(
    r"[\s$*)(\]\\.,]*(?:or(?!\s+(?:approximately|about|roughly|around)\b)(?:\s+(?:maybe|possibly|perhaps|even))?\b|或)",
    re.IGNORECASE,
)

_UNIT = re.compile(r"\\text\{[^{}]*\}\Z")

_PLACEHOLDER = re.compile(r"\s*(?:\.{3}|…|\\[lc]?dots|(?:(?:your|the|final)\s+)*answer(?:\s+here)?)?\s*", re.IGNORECASE)

_MENTION = re.compile(
    r"(?:\b(?:with)?in|\b(?:inside|into|using|use|with|by|form|format|the|an?)|[在到于用])[\s`\"'$*:(\\]*\Z",
    re.IGNORECASE,
)
"""What stands before a box without an answer, as in the prompt's "put your final answer within \boxed{}"."""


def _before(pattern: re.Pattern[str], text: str, place: int) -> bool:
    return pattern.search(text[max(0, place - 40) : place]) is not None


_OPENED = re.compile(r"\\(?:boxed|fbox)\s*\{[\s{$]*\Z")
"""A box around a box that does not close."""

_CUT_BOX = re.compile(r"\\(?:b(?:o(?:x(?:ed?)?)?)?|f(?:b(?:ox?)?)?)\s*\Z")
"""A box of which only the command is there, or a part of that."""

_BARE_BOX = re.compile(
    r"\\(?:boxed|fbox)(?![A-Za-z{])\s*((?=[-+.\d\\(]|[A-Za-z](?![A-Za-z]))(?:\\[A-Za-z]+(?:\{[^{}\n]{0,200}\})*+|[^\s$\\{}])+)"
)
"""A box without braces: `\boxed 7`."""

_JOINED = re.compile(
    r"(?:[\s$,;:.、，。&~*(){}|/_]|\\\\(?:\[\w+\])?|\\[\[\](), ;:!&]|\\hspace\*?\{[^{}]{0,20}\}|\\hskip\s*\S{1,8}"
    r"|\\(?:q?quad|(?:en|thin|thick|med)?space|hfill|cup|lor|vee|land|wedge|newline|text[a-z]*|math[a-z]+|mbox|hbox|rm|bf|it|"
    r"operatorname)(?![a-z])|(?<![a-z\\])[a-z](?:_\{?\w{1,8}\}?|'|\d)?\s*+&?\s*+[=:]"
    r"|(?:and|or|also|else|as\s+well\s+as|together\s+with|plus|alternatively|equivalently|possibly|maybe|perhaps|either|"
    r"both|the\s+other\s+is|und|oder|et|ou|y|o)(?![a-z])|或者?|和|与|以?及"
    r"|(?<=\n)[ \t]*(?:[-*•]|\d{1,2}[.)])[ \t]|(?<=\()(?:[a-z]|[ivx]{1,4}|\d)\))*+",
    re.IGNORECASE,
)
"""What joins the boxes of an answer of several parts: words, signs of LaTeX, and names as in `x_2 =`."""


NEAR = 40
"""Characters between two boxes that are of one answer, whatever words are there, unless the second one follows."""

_REPLACES = re.compile(
    r"[=≡→⇒⟹⟶∴\n]|\\(?:boxed|fbox|[a-z]*arrow|leadsto|implies|iff|to|therefore|equiv)(?![a-z])|[.?!。？！][\s$)\]*]*[^\W\d_]"
    r"|(?<![a-z])(?:no|wait|so|then|thus|hence|whence|therefore|consequently|finally|correct\w*|actually|sorry|oops|error|"
    r"mistake|hm+|redo|recheck\w*|replace\w*|final|answers?)(?![a-z])|[则故]|因此|所以|于是|那么|答案|改为|更正",
    re.IGNORECASE,
)
"""What says that the second of two boxes takes the place of the first."""

_LISTS = re.compile(r"(?<![a-z])(?:or|also)(?![a-z])|[或、]", re.IGNORECASE)

_FOLLOWS = re.compile(
    r"[<>≈]|\\(?:approx|leq?|geq?|sim)(?![a-z])"
    r"|(?<![a-z])(?:but|instead|give[ns]?|gets?|becomes?|yields?|leads|is|are|was|equals?|should|must|we|let|to|into|from|"
    r"if|because|since|now|next|step|times|add\w*|multipl\w+|doubled|tripled|sum|total)(?![a-z])|[不得到应即]|等于",
    re.IGNORECASE,
)
"""What says that the second of two boxes follows from the first, unless there is an "or"."""

_DENIED = re.compile(
    r"(?:(?<![a-z])(?:(?<!or )(?<!why )not(?:\s+be)?(?:\s+equal)?(?:\s+to)?|never|neither|instead\s+of|rather\s+than|"
    r"no\s+longer|cannot\s+(?:be|have|equal)|(?:is|are|was|ca|should|wo|does|would|did)n['’]t(?:\s+(?:be|equal))?)|"
    r"不是|不等于|并非|不会是|≠|!=|\\not\s*=|\\neq?(?![a-z]))(?:[\s$*(`\"'{\[\\]|\\(?:displaystyle|text|mathbf)(?![a-z]))*\Z",
    re.IGNORECASE,
)
"""What is in front of a box that holds no answer."""


def _are_joined(between: str) -> bool:
    """Return whether two boxes are of one answer, by what is between them."""
    if _JOINED.fullmatch(between):
        return True
    if len(between) > NEAR or _REPLACES.search(between):
        return False
    return _LISTS.search(between) is not None or _FOLLOWS.search(between) is None


def _bare_boxes(text: str, closed: list[Box]) -> list[Box]:
    found = (Box(x.start(), x.end(), x[1].rstrip(".,;:")) for x in _BARE_BOX.finditer(text))
    return [x for x in found if _around(closed, x.start) is None]


def _joined(text: str, closed: list[Box]) -> list[Box]:
    """Return boxes of which those side by side are one."""
    groups: list[list[Box]] = []
    for box in closed:
        if groups and _are_joined(text[groups[-1][-1].end : box.start]):
            groups[-1].append(box)
        else:
            groups.append([box])
    return [_together(text, x) for x in groups]


_SET = re.compile(r"\s*(?:\\left\b|\\\{|[(\[])")

_INTERVAL = re.compile(r"\s*(?:\\left\s*)?([(\[])[^()\[\]]*,[^()\[\]]*([)\]])\s*")


def _together(text: str, group: list[Box]) -> Box:
    """Return boxes as one: a union where a sign says so, or half-open or infinite intervals do, else a list."""
    first, last = group[0], group[-1]
    parts = distinct(x.content for x in group)
    intervals = [_INTERVAL.fullmatch(x) for x in parts]
    plainly = any("infty" in x for x in parts) or any(x and x[1] + x[2] in ("(]", "[)") for x in intervals)
    signed = any("\\cup" in text[x.end : y.start] for x, y in pairwise(group))
    union = (signed and all(map(_SET.match, parts))) or (plainly and all(intervals))
    return Box(first.start, last.end, r" \cup ".join(parts) if union else ", ".join(parts))


def _around(closed: list[Box], place: int) -> Box | None:
    """Return the box in which a place is."""
    number = bisect_right(closed, place, key=lambda x: x.start) - 1
    return closed[number] if number >= 0 and place < closed[number].end else None


_TAG = re.compile(r"<answer>", re.IGNORECASE)

_TAG_END = re.compile(r"</answer>", re.IGNORECASE)


def _tagged(text: str, start: int, found: list[_Statement]) -> _Statement:
    """Return what the last `<answer>` states: what is stated between it and its end, else all of that."""
    end = _TAG_END.search(text, start)
    if end is None:
        return _Statement(start, "line", "")
    inner = text[start : end.start()]
    inside = [x for x in found if start <= x.end <= end.start() and x.kind != "words"]
    said = max(inside).text if inside else (value(inner) or Value("", 0)).text
    return _Statement(end.start(), "line", said)


_LAST_LINE = re.compile(r"(?:\A|\n)####[ \t]+(\S[^\n]*)\Z")


def _last_line(text: str) -> Iterator[_Statement]:
    """Yield the answer in a last line "#### 72", as in GSM8K."""
    line = _LAST_LINE.search(text, max(0, text.rfind("\n")))
    found = value(line[1]) if line else None
    if line and found and not found.words and not line[1][found.end :].strip(MARKS + ".$"):
        yield _Statement(len(text), "line", found.text)


# What is said of an answer

_ANSWER = re.compile(
    r"</?answer>|(?<![a-z])(?:answers?(?![a-z])|ans(?=[*_\s]*[:=]))|(?<=correct )(?:option|choice)(?![a-z])|"
    r"故(?:应)?选择?[\s*:]*|【答案】[\s*:]*|答案",
    re.IGNORECASE,
)

_OF = (
    r"(?:,?\s*+(?:to|of|for)\s++(?:(?:the|this|our|your|that)\s++)?(?:(?:original|given|above|whole|entire|main)\s++)?"
    r"(?:problem|question|exercise|task|puzzle|equation)\b|"
    r",?\s*+\b(?:in|as|rounded|expressed|modulo|correct\s+to|written)\b"
    r"(?:(?!\b(?:step|part|case|first|second|previous)\b)[^.,:;\n?$=]){1,60}?)?"
)

_IS = re.compile(
    rf"""[\s*_`"'\]}})]*+(?:\([^()\n]{{1,60}}\)[*_\s]*+)?(?:(?:choice|option)\b\s*+)?
    {_OF}(?:,?\s*+\b(?:therefore|then|thus|hence)\b)?[\s*_`}},]*+
    (?:(?P<colon>[:=])|(?<!\w)(?:is\s+(?:found|calculated|determined|known)\s+to\s+be|is|are|equals|
    (?:must|will|should|would|has\s+to)\s+be|(?:turns|comes)\s+out\s+to\s+be|
    (?<=final\ answer\ )of(?=\s+[*_]*[-\d$\\]))(?![A-Za-z'])\s*+:?)""",
    re.IGNORECASE | re.VERBOSE,
)

_IS_CHINESE = re.compile(r"[\s*]*(?:应该|应|就|即)?(?:(?:是|为|等于|选)[\s*]*[:]?|(?P<colon>[:=]))(?!不|否)")

_FIRST_LINE = re.compile(r"(?:[\s*_:>#`$]|\\\[|\\\()*+[^\n]*")
"""The first line that is more than marks."""

_HEADING = re.compile(r"[\s*_#}]*\n")

_LETTER = re.compile(r"[^\W\d_]")

_FORMULA_NEXT = re.compile(r"[\s*_.]*(?=\$|\\\(|\\\[|\\boxed)")

_LINE = re.compile(
    r"[\W_]*(?:\d+[.)][\W_]*)?(?:(?:so|thus|therefore|hence|then|and|finally|the|my|our|a|final|correct|short|numerical|"
    r"numeric|exact|overall|complete|answer|最终|最后|所以|因此)(?![A-Za-z])[\W_]*)*+",
    re.IGNORECASE,
)

_NAME = re.compile(
    r"(?:(?P<the>the|our|my|your|this|an?)\s+)?[*_]*(?:(?:final|correct|right|required|desired|exact|numerical|numeric|"
    r"actual|overall|simplified|complete|full|ultimate|only|best|last|resulting|integer|single|unique|true)\s+)*+\Z",
    re.IGNORECASE,
)

_BARE_OK = re.compile(
    r"(?:\A|[^\w\s']|\d|\b(?:so|thus|hence|therefore|then|and|but|finally|that|get|gives|obtain))\Z", re.I
)

_SUPPOSED = re.compile(
    r"\b(?:if|whether|unless|until|once|suppose|supposing|assume|assuming|guess(?:es)?|thought|doubt|claims?|says?|"
    r"false|not\s+true|untrue|(?:no\s+longer|not|n't|never)\s+(?:think|believe|know|say|mean|convinced|certain)|verify|check|confirm|test|ensure|sure|prove|maybe|perhaps|possibly|probably|presumably|why|when|how|what|where|"
    r"(?:might|may|could|would|can)\s+(?:think|say|guess|believe|expect)|is|are|was|not|"
    r"(?:part|case|question|problem|subproblem)\s*\(?(?:\d+|[a-z]|[ivx]+)\)?)"
    r"(?:\s+(?:that|then|for))?[\s,:*]*\Z|"
    r"\A\W*(?:(?:so|then|and|but|now)\W+)?(?:if|suppose|supposing|assume|assuming|unless|(?:for|when|with)\b[^,]*[=<>≤≥])"
    r"(?!\w)(?!.*\b(?:so|thus|hence|therefore|consequently)\b)",
    re.IGNORECASE | re.DOTALL,
)

_SUPPOSED_CHINESE = re.compile(r"(?:如果|假设|假如|若|是否|要是|设|可能|也许|错误|验证|检查)[^。，,!?\n]{0,6}\Z")

_WRONG = (
    r"(?:wrong|incorrect|false|impossible|invalid|not\s+(?:right|correct|valid|possible|it|the\s+(?:\w+\s+)?answer))"
)

_DENIAL = re.compile(
    r"[\s$.,;*!)\]\\–—-]*(?:(?:but|oh|sorry|hmm+|however)[\s,]+)*(?:"
    r"(?:no,?\s+wait|wait,?\s+(?:no|that|this)|scratch that|oops|sorry(?!\s+(?:for|about))|i\s+meant?|"
    r"correction(?!\s+factor)|no,\s+(?!we|the\s+other))\b|edit:|actually,?\s+(?:it\s+is\s+)?[$\\(]*-?\d|"
    r"(?:wait|hmm+|hold on|actually)\b(?!,?\s+no\s+mis)[^.!?\n]{0,60}?"
    r"\b(?:mistake|error|wrong|incorrect|not\s+right|forgot|mis\w+ed)\b|"
    r"\(?(?:no,\s+)?(?:(?:(?:that|this|it|which)\s+)?(?:is|was|seems|looks|(?:must|would|can['’]t|cannot)\s+be)|"
    rf"(?:that|this|it)['’]s)\s+(?:an?\s+|the\s+)?(?:\w+ly\s+)?{_WRONG}(?!\s+(?:to|that|for|if)\b)\b|"
    r"\(\s*(?:wrong|incorrect)\s*\)|(?:isn|doesn)['’]t\s+(?:right|correct|work)|(?:that|this|it)\s+can(?:['’]t|not)\s+be\s+right|"
    r"(?:wait|no)?[\s,]*I\s+(?:have\s+)?made\s+an?\s+(?:mistake|error)|[❌✗]|不对|不正确|错误|是错的)|"
    r"[\s$*)\]\\]*(?:\?|吗)(?![\s$*)]*(?:yes|correct|right|let's|是的)\b)",
    re.IGNORECASE,
)

_DOUBT = re.compile(r"[^.!?\n]{0,80}[.!?]*[\s*]*(?:but\s+)?(?:wait|hold on|hmm+|oops|actually|no)\b", re.IGNORECASE)

_LIST = re.compile(r"[\s*_$`]*[.):][\s*_]*\S|[^\n]*[\d$]")

WINDOW = 200
"""Characters before "answer", or after a value, that may say that it is none."""


def _said(text: str, groups: list[Box]) -> Iterator[_Statement]:
    """Yield what is said after "answer", where a statement and no question, condition or denial goes with it."""
    places = [x for x in _ANSWER.finditer(text) if _around(groups, x.start()) is None]
    before = 0
    for place, end in zip(places, (*(x.start() for x in places[1:]), len(text)), strict=False):
        kind, start = ("", 0) if place[0].startswith("<") else _kind(text, place, before, end)
        before = place.end()
        if not kind:
            continue
        first = _FIRST_LINE.match(text, start, end)
        box = _first_from(groups, start)
        if first and box is not None and box.start < first.end():
            if kind == "line":
                yield _boxed(text, box)._replace(kind=kind)
            continue
        said = text[start:end]
        if not said.strip(MARKS + ".:$\\([{") and end == len(text):
            yield _Statement(start, kind, "")
            continue
        found = value(said)
        if found is None:
            continue
        below = "\n" in text[place.end() : end - len(said.lstrip(MARKS + ":"))]
        if below and _LIST.match(said, found.end):
            continue
        denied = (
            _DENIAL.match(said, found.end, found.end + WINDOW) is not None
            or (kind != "line" and _DOUBT.match(said, found.end) is not None)
            or (kind == "thought" and start + found.end == len(text))  # a question that is cut off, perhaps
        )
        kind = "prose" if kind == "thought" else kind
        kind = "words" if found.words and (kind == "prose" or below) else kind
        yield _Statement(start + found.end, kind, "" if denied else found.text)


def _first_from(groups: list[Box], start: int) -> Box | None:
    number = bisect_left(groups, start, key=lambda x: x.start)
    return groups[number] if number < len(groups) else None


def _kind(text: str, place: re.Match[str], before: int, end: int) -> tuple[str, int]:
    """Return the kind of a statement and where what it says starts; no kind if it states nothing."""
    window = max(before, place.start() - WINDOW)
    line = text.rfind("\n", window, place.start()) + 1
    prefix = text[max(line, window) : place.start()]
    if place[0][0] in "故【":
        return "line", place.end()
    chinese = place[0] == "答案"
    begins = (line > 0 or window == 0) and _LINE.fullmatch(prefix) is not None
    said = (_IS_CHINESE if chinese else _IS).match(text, place.end(), end)
    if said is None:
        capital = _LETTER.search(prefix + place[0])
        if not begins or not (chinese or (capital and capital[0].isupper())):
            return "", 0
        plain = _HEADING.match(text, place.end(), end) or _FORMULA_NEXT.match(text, place.end(), end)
        return ("line", plain.end()) if plain else ("", 0)
    if begins and (said["colon"] or "answer" in prefix.lower()):
        return "line", said.end()
    final = begins and "final" in prefix.lower()
    clause = _CLAUSE.split(prefix)[-1].replace("*", "")
    if chinese:
        return ("", 0) if _SUPPOSED_CHINESE.search(clause) else ("prose", said.end())
    name = _NAME.search(clause)
    lead = clause[: name.start()] if name else clause
    if _SUPPOSED.search(lead) or not ((name and name["the"]) or _BARE_OK.search(lead.rstrip())):
        return "", 0
    if _THINKING.match(lead):
        return "thought", said.end()
    return "line" if final else "prose", said.end()


_THINKING = re.compile(r"\W*(?:but |so )?(?:wait|hm+|hold on|oh)\b", re.IGNORECASE)

_CLAUSE = re.compile(r"[.!?;。！？；]\s|[。；\n]")


# Where nothing is stated

_GUESS = re.compile(
    r"\$\$[^$]+\$\$|\$[^$\n]+\$|\\\((?:(?!\\[()]).)*+\\\)|\\\[(?:(?!\\[\[\]]).)*+\\\]"
    r"|(?<![A-Za-z\d])[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?%?",
    re.DOTALL,
)


def _alone(text: str) -> str | None:
    """Return the answer in a response that is nothing else: a number, or a formula."""
    stripped = text.strip(MARKS)
    if not stripped or len(stripped) > LONGEST_ALONE or not _ALONE.match(stripped):
        return None
    found = value(stripped)
    if found is None or found.words or stripped[found.end :].strip(MARKS + ".$"):
        return None
    return found.text or None


LONGEST_ALONE = 200
"""Characters of a response that is nothing but its answer."""

_ALONE = re.compile(
    r"(?=[^=]*\Z|.*(?<![A-Za-z\\])[A-Za-z](?![A-Za-z]))\\?[$(\[]|\(?[A-Z]\)?\Z|(?:[A-Za-z]\w?\s*=)?[^=A-Za-z\n][^=\n]*\Z",
    re.DOTALL,
)


def _last_value(text: str) -> str | None:
    """Return the last formula or number of a text."""
    last = _last(_GUESS, text)
    if last is None:
        return None
    return re.sub(r"\$+|\\[()\[\]]", "", last[0]).strip().rstrip(",.") or None
