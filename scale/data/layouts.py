"""Problem and answer of a row, by the layouts of columns that are around.

- verl: `prompt`, with a template or without, and `reward_model.ground_truth`;
- benchmarks, NuminaMath, GSM8K: `problem` or `question`, and `answer`, `final_answer`, `expected_answer` or
  `ground_truth`;
- slime, OpenRLHF: `prompt`, `input` or `messages`, and `label`;
- TRL, AReaL, NuminaMath, open-r1's Big-Math: one of these problems, and `solution` or `solutions`, with a box or an
  answer alone.

The first column of a problem that is there counts, and so does the first group of columns of an answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from scale.data.formats import Record, read_records, shown
from scale.data.text_keys import answer_form, strip_template
from scale.text import boxes
from theory.base.files import parse_json

PROBLEM_COLUMNS = ("problem", "question", "Problem", "Question", "prompt", "input", "messages")
"""Columns that hold a problem, as text or as chat messages."""

REWARD_COLUMN = "reward_model"

ANSWER_COLUMNS = ("answer", "final_answer", "Answer", "expected_answer", "ground_truth")
LABEL_COLUMNS = ("label",)
SOLUTION_COLUMNS = ("solution", "Solution", "solutions")
"""Columns that hold an answer; where several of a group are there, they must be equal."""

ANSWERS_ALONE = "llama8b_solve_rate"
"""A column beside which `solution` is the answer alone, in words too: open-r1's copy of Big-Math."""

ANSWER_FIELDS = ("ground_truth", "target", "answer", "final_answer", "value", "label")
"""Fields that hold the answer where it is an object."""

PARTS_COLUMN = "final_answer"
"""The column in which a list is one answer of several parts, as in OlympiadBench."""

DETAIL_COLUMNS = ("level", "subject", "unique_id", "id", "year", "unit", "answer_type")
"""Columns that are kept, as text, in `extra_info`."""


class SourceRow(NamedTuple):
    """Equal rows of a source: problem, answer, number of the first, how many, and details of the first."""

    problem: str
    answer: str
    number: int
    copies: int
    details: dict[str, str]


def read_rows(path: Path) -> Iterator[SourceRow]:
    """Yield the rows of a file; equal rows of a Parquet file in verl's schema are folded within a batch.

    A file that is empty, damaged or of another layout, or a row without problem or answer, is a `ValueError`.
    """
    layout: Layout | None = None
    names: frozenset[str] = frozenset()
    for record in read_records(path, lambda columns: _layout(path, columns).columns):
        if layout is None or names != record.values.keys():  # another column may hold another answer
            layout, names = _layout(path, list(record.values)), frozenset(record.values)
        where = f"{path}: row {record.number}"
        try:
            row = _row(where, layout, record)
            "".join((row.problem, row.answer, *row.details.values())).encode()
        except RecursionError as error:
            raise ValueError(f"{where}: expected a problem and its answer, got values nested too deeply") from error
        except UnicodeEncodeError as error:  # JSON may have half of a surrogate pair, which no file of ours can hold
            raise ValueError(f"{where}: expected texts in Unicode, got {error}") from error
        yield row
    if layout is None:
        raise ValueError(f"{path}: expected at least one row, got none")


class Layout(NamedTuple):
    """The columns that are read: of the problem, of the answers that must be equal, and all."""

    problem: str
    answers: Sequence[str]
    read: Callable[[str, str, Any], str]
    columns: Sequence[str]


def _layout(path: Path, names: Sequence[str]) -> Layout:
    if REWARD_COLUMN in names and "prompt" in names:
        return Layout("prompt", (REWARD_COLUMN,), _reward_model, ("prompt", REWARD_COLUMN))
    problem = next((name for name in PROBLEM_COLUMNS if name in names), None)
    for group, read in (
        ((REWARD_COLUMN,), _reward_model),
        (ANSWER_COLUMNS, _answer),
        (LABEL_COLUMNS, _answer),
        (SOLUTION_COLUMNS, _answer_alone if ANSWERS_ALONE in names else _solution),
    ):
        answers = [name for name in group if name in names]
        if problem is not None and answers:
            others = [name for name in (*DETAIL_COLUMNS, "context") if name in names]
            return Layout(problem, answers, read, (problem, *answers, *others))
    raise ValueError(
        f"{path}: expected verl's columns prompt and reward_model, or a problem ({', '.join(PROBLEM_COLUMNS)}) and its "
        f"answer ({', '.join((*ANSWER_COLUMNS, *LABEL_COLUMNS))}) or a solution ({', '.join(SOLUTION_COLUMNS)}), got "
        f"{', '.join(names)[:200] or 'none'}"
    )


def _row(where: str, layout: Layout, record: Record) -> SourceRow:
    values = record.values
    text = _problem(where, layout.problem, values.get(layout.problem))
    context = values.get("context")
    if isinstance(context, str) and context.strip() and "context" in layout.columns:
        text = f"{context}\n{text}"
    first, *others = [name for name in layout.answers if values.get(name) not in (None, "")] or layout.answers
    answer = layout.read(where, first, values.get(first))
    for other in others:
        if answer_form(layout.read(where, other, values.get(other))) != answer_form(answer):
            got = f"{first} {shown(values.get(first), 40)} and {other} {shown(values.get(other), 40)}"
            raise ValueError(f"{where}: expected one answer, got {got}")
    details = {
        name: str(values[name])
        for name in DETAIL_COLUMNS
        if name in layout.columns and values.get(name) not in (None, "")
    }
    return SourceRow(text, answer, record.number, record.copies, details)


# Problems


_MESSAGES = re.compile(r"""\[?\s*\{\s*(?=["']\w+["']\s*:)(?=.*["']role["']\s*:)""", re.DOTALL)
"""What messages as text begin with, whichever of their fields comes first."""

_CHAT_TOKENS = re.compile(r"<\|(?:im_start|im_end|user|assistant|start_header_id)\|>|<｜(?:User|Assistant)｜>")


def _problem(where: str, name: str, value: Any) -> str:
    if isinstance(value, str) and _MESSAGES.match(value.lstrip()):
        value = parse_json(value, f"{where}: chat messages in {name}")
    value = _mapped(value)
    if isinstance(value, Mapping):
        value = [value]
    text = _text(where, name, _users_text(where, name, value) if isinstance(value, list) else value)
    try:
        return _text(where, name, _bare(name, text))
    except ValueError as error:
        raise error if str(error).startswith(where) else ValueError(f"{where}: {error}") from error


@lru_cache(2**15)  # a text comes again in every batch of DAPO-Math-17k
def _bare(name: str, text: str) -> str:
    if (token := _CHAT_TOKENS.search(text)) is not None:
        raise ValueError(f"expected a problem or chat messages as {name}, got a chat in text: {token[0]}")
    return strip_template(text)


def _users_text(where: str, name: str, messages: list[Any]) -> Any:
    """Return what the user says in chat messages; a system's message before it is how another template asks."""
    expected = f"{where}: expected {name} as chat messages of a user, at most with a system's message before"
    roles = []
    messages = [_mapped(x) for x in messages]
    for message in messages:
        if isinstance(message, str):
            raise ValueError(f"{where}: expected {name} as text or messages, got a list of texts: {shown(messages)}")
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            raise ValueError(f"{expected}, each with role and content, got {shown(message)}")
        roles.append(message["role"])
    if roles not in (["user"], ["system", "user"]):
        kind = "several turns" if roles.count("user") > 1 else "an assistant's turn" if "assistant" in roles else ""
        listed = ", ".join(str(x) for x in roles[:6]) if all(isinstance(x, str) for x in roles) else shown(roles)
        raise ValueError(f"{expected}, got {f'{kind}: ' if kind else ''}{listed[:80] or 'none'}")
    content = messages[-1]["content"]
    if isinstance(content, list) and content:  # parts, as other modalities have
        parts = [x["text"] for x in content if isinstance(x, Mapping) and x.get("type") == "text" and "text" in x]
        if len(parts) < len(content) or not all(isinstance(x, str) for x in parts):
            raise ValueError(f"{where}: expected text alone as content of {name}, got {shown(content)}")
        return "".join(parts)
    return content


def _text(where: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: expected a text as {name}, got {shown(value)}")
    return value


# Answers


_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\t(?:imes|an|heta|ext|frac|au|ilde)|\r(?:ight|ho|angle|floor|ceil)|\n(?:eq|abla|ot)"
)
"""What is left of commands such as \\frac or \\times where JSON was written with single backslashes."""

_STEPS = re.compile(r"(?:\A|\n)#### ?([^\n]+)\s*\Z")


def _reward_model(where: str, name: str, value: Any) -> str:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = parse_json(value, f"{where}: {name}")
    value = _mapped(value)
    if not isinstance(value, Mapping) or "ground_truth" not in value:
        raise ValueError(f"{where}: expected {name} with a ground_truth, got {shown(value)}")
    return _answer(where, "ground_truth", value["ground_truth"])


def _answer(where: str, name: str, value: Any) -> str:
    """Return an answer as text: a finite number in its shortest form, and of a list or object the one value in it."""
    value = _unpacked(where, name, value)
    if isinstance(value, list):
        texts = [_plain(where, name, _unpacked(where, name, x)) for x in value]
        if name == PARTS_COLUMN and texts:
            return ", ".join(texts)
        return _one(where, name, texts, value)
    return _plain(where, name, value)


def _unpacked(where: str, name: str, value: Any) -> Any:
    """Return what is in JSON as text, and in the field of an object that holds the answer."""
    for _ in range(2):
        if isinstance(value, str) and _LISTED.fullmatch(value):
            value = _of_text(where, name, value)
        value = _mapped(value)
        if isinstance(value, Mapping):
            fields = [x for x in ANSWER_FIELDS if value.get(x) is not None]
            if len(fields) != 1:
                raise ValueError(
                    f"{where}: expected one of the fields {', '.join(ANSWER_FIELDS)} in {name}, got {shown(value)}"
                )
            value = value[fields[0]]
    return value


_LISTED = re.compile(r"""\s*(?:\[\s*["'].*["']\s*\]|\{\s*["']\w+["']\s*:.*\})\s*""", re.DOTALL)
_LIST_OF_PYTHON = re.compile(r"\s*\[\s*'((?:[^'\\\n]|\\[\\'])*)'\s*,?\s*\]\s*")


def _of_text(where: str, name: str, text: str) -> Any:
    """Return a list or object that was written as JSON, or a list of one text that was written as Python does."""
    if (one := _LIST_OF_PYTHON.fullmatch(text)) is not None:
        return [re.sub(r"\\(.)", r"\1", one[1])]
    return parse_json(text.strip(), f"{where}: {name}")


def _mapped(value: Any) -> Any:
    """Return a map of Parquet as an object."""
    pairs = isinstance(value, list) and value and all(isinstance(x, tuple) for x in value)
    return dict(value) if pairs else value


def _one(where: str, name: str, texts: Sequence[str], value: Any) -> str:
    if len({answer_form(x) for x in texts}) != 1:
        hint = "; whether they are parts or alternatives is not known" if texts else ""
        raise ValueError(f"{where}: expected one answer as {name}, got {shown(value)}{hint}")
    return texts[0]


def _plain(where: str, name: str, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, Decimal) and value.is_finite():
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    kind = "answer" if name in (*ANSWER_COLUMNS, *LABEL_COLUMNS) else name
    text = _printed(where, _text(where, kind, value))
    if (steps := _STEPS.search(text)) is not None:  # as in GSM8K
        text = _text(where, f"{kind} after ####", steps[1])
    return text.strip()


def _printed(where: str, answer: str) -> str:
    if (control := _CONTROL.search(answer)) is not None:
        got = f"{control[0]!r} in {answer!r:.60}: in JSON a backslash is written twice"
        raise ValueError(f"{where}: expected an answer of printed characters, got {got}")
    return answer


_WORD = re.compile(r"[^\W\d_]{2}")
_COMMAND = re.compile(r"\\(?:text|mathrm|textbf|mbox)\s*\{[^{}]*\}|\\[A-Za-z]+")
_FORMULA = re.compile(r"\$[^$\n]+\$|True|False|Yes|No")
_JOINT = re.compile(
    r"(?:[\s$,;&()\[\]\\]|and|or|\\(?:quad|qquad|cup|lor|text|textrm|mbox|mathrm)|\{\s*(?:and|or)\s*,?\s*\})*"
)


def _solution(where: str, name: str, value: Any) -> str:
    """Return the answer of worked solutions: in the last boxes, or all of a solution that is a formula alone."""
    if isinstance(value, list):
        return _one(where, name, [_solution(where, name, x) for x in value if not isinstance(x, list)], value)
    if not isinstance(value, str):
        return _plain(where, name, value)
    text = _text(where, name, value)
    if (answer := _boxed(text)) is not None:
        return _printed(where, _text(where, f"{name} in a box", answer)).strip()
    text = _printed(where, text).strip()
    alone = "\n" not in text and "=" not in text and len(text) <= 200 and not _WORD.search(_COMMAND.sub("", text))
    if not alone and not _FORMULA.fullmatch(text):
        raise ValueError(f"{where}: expected a solution with \\boxed{{...}}, got {text[-80:]!r}")
    return text


def _answer_alone(where: str, name: str, value: Any) -> str:
    boxed = isinstance(value, str) and boxes(value)
    return _solution(where, name, value) if boxed else _answer(where, name, value)


def _boxed(text: str) -> str | None:
    """Return what is in the last box; boxes joined by "and", "or" or a comma are one answer of several parts."""
    closed = boxes(text)
    if not closed:
        return None
    parts = [closed[-1]]
    for box in reversed(closed[:-1]):
        if not _JOINT.fullmatch(text, box.end, parts[0].start):
            break
        parts.insert(0, box)
    return ", ".join(dict.fromkeys(x.content.strip(" \n") for x in parts))
