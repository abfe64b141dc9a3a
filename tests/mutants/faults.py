"""Faults that cosmic-ray plants in the code: what they are, where they stand, and a seeded sample of them."""

from __future__ import annotations

import ast
import difflib
import random
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

SCOPE = (
    "theory",
    "toy/training",
    "scale/text.py",
    "scale/manifest.py",
    "scale/rewards/extraction.py",
    "scale/rewards/spelling.py",
    "scale/data/curate.py",
    "scale/data/datasets.py",
    "scale/data/text_keys.py",
    "scale/audit/comparison.py",
    "scale/audit/log.py",
    "scale/audit/readers.py",
    "scale/evaluation/exports.py",
    "scale/evaluation/score_table.py",
    "scale/launch/estimate.py",
    "scale/run/records.py",
)
"""Folders and files: of `scale`, what computes or reads and starts no process, and neither verl nor vLLM."""


@dataclass(frozen=True, order=True)
class Fault:
    """One edit: where cosmic-ray makes it, and the lines that it takes away and puts in."""

    path: str
    line: int
    column: int
    operator: str
    occurrence: int
    statement: tuple[int, ...]
    at_import: bool

    def source(self, text: str) -> str | None:
        """Return a module's text with the fault; None if that is no program."""
        name = self.operator if "/" in self.operator else f"core/{self.operator}"
        try:
            wrong = mutate_code(text, get_operator(name)(), self.occurrence)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(wrong or "", self.path, "exec")
        except (SyntaxError, AttributeError):  # cosmic-ray knows no `except module.Error`
            return None
        return wrong if wrong != text else None


def changed(right: str, wrong: str) -> list[str]:
    """Return the lines that an edit takes away (-) and puts in (+)."""
    lines = difflib.unified_diff(right.splitlines(), wrong.splitlines(), n=0, lineterm="")
    return [line[0] + " " + line[1:].strip() for line in list(lines)[2:] if line[:1] in "+-"]


def files(root: Path) -> list[str]:
    """Return the modules of the scope."""
    return [
        str(path.relative_to(root))
        for part in SCOPE
        for path in ([root / part] if part.endswith(".py") else sorted((root / part).rglob("*.py")))
    ]


def _span(node: ast.AST) -> tuple[int, int, int, int]:
    return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset  # type: ignore[attr-defined]


class Places:
    """What a position of a module is: not run at all, run at the import, or in the body of a function."""

    def __init__(self, text: str) -> None:
        tree = ast.parse(text)
        self.never, self.bodies, self.statements = [], [], []
        for node in ast.walk(tree):
            hints = [getattr(node, "annotation", None), getattr(node, "returns", None)]
            self.never += [_span(hint) for hint in hints if hint is not None]
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                self.never.append(_span(node))
            if isinstance(node, ast.FunctionDef):
                if any("overload" in ast.unparse(each) for each in node.decorator_list):
                    self.never.append(_span(node))
                self.bodies.append((*_span(node.body[0])[:2], *_span(node.body[-1])[2:]))
            if isinstance(node, (ast.stmt, ast.excepthandler)):
                start = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
                body = getattr(node, "body", None)
                end = max(start, body[0].lineno - 1) if body else node.end_lineno or start
                self.statements.append((start, end))

    def is_run(self, line: int, column: int) -> bool:
        return not any((a, b) <= (line, column) < (c, d) for a, b, c, d in self.never)

    def in_body(self, line: int, column: int) -> bool:
        return any((a, b) <= (line, column) < (c, d) for a, b, c, d in self.bodies)

    def statement(self, line: int) -> tuple[int, ...]:
        """Return the lines of the smallest statement around a line, without those of its block."""
        around = [(a, b) for a, b in self.statements if a <= line <= b]
        start, end = min(around, key=lambda ends: ends[1] - ends[0], default=(line, line))
        return tuple(range(start, end + 1))


def all_faults(root: Path, paths: Iterable[str]) -> Iterator[Fault]:
    """Yield every fault of every operator of cosmic-ray that needs no arguments, in code that is run."""
    operators = [(name.removeprefix("core/"), get_operator(name)) for name in operator_names()]
    plain = [(name, operator()) for name, operator in operators if not operator.arguments()]
    for path in paths:
        text = (root / path).read_text()
        places, nodes = Places(text), list(ast_nodes(get_ast(text)))
        for name, operator in plain:
            found = ((node, start) for node in nodes for start, _ in operator.mutation_positions(node))
            for occurrence, (node, (line, column)) in enumerate(found):
                sign = getattr(node.parent, "type", "") == "parameters"  # the * of keywords is no operator
                if not sign and places.is_run(line, column):
                    at_import = not places.in_body(line, column)
                    yield Fault(path, line, column, name, occurrence, places.statement(line), at_import)


def sample(root: Path, size: int, seed: int) -> list[Fault]:
    """Draw faults that are programs; equal trees and seeds give equal samples."""
    faults = sorted(all_faults(root, files(root)))
    random.Random(seed).shuffle(faults)
    drawn: list[Fault] = []
    for fault in faults:
        if len(drawn) == size:
            break
        if fault.source((root / fault.path).read_text()) is not None:
            drawn.append(fault)
    return drawn


def again(root: Path, path: str, operator: str, line: int, diff: list[str]) -> Fault | None:
    """Find a fault in a tree that has changed since, by its edit and the nearest line; None if the code is gone."""
    text = (root / path).read_text() if (root / path).exists() else ""
    rows = [row.strip() for row in text.splitlines()]
    alike = (f for f in all_faults(root, [path] * bool(text)) if f.operator == operator)
    near = (f for f in alike if any("- " + rows[number - 1] in diff for number in f.statement))
    same = [f for f in near if (wrong := f.source(text)) is not None and changed(text, wrong) == diff]
    return min(same, key=lambda f: abs(f.line - line), default=None)
