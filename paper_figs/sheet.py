"""Rows of a table, and how they are written: Markdown to read, LaTeX (booktabs) to print, CSV with every digit."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from paper_figs.experiments import Estimate

NOTHING = "–"
"""What stands where there is no number."""

# What LaTeX reads as commands, and what its plain fonts lack.
ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {"−": "$-$", "–": "--", "±": "$\\pm$", "≤": "$\\le$", "→": "$\\to$"}

Value = Estimate | float | str | None


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes
    ----------
    heading
        Its heading.
    decimals
        Of its numbers.
    signed
        Whether positive numbers carry a sign, as differences do.
    """

    heading: str
    decimals: int = 2
    signed: bool = False

    def text(self, value: Value) -> str:
        """Return a value as text, an interval in brackets.

        Examples
        --------
        >>> Column("gain", signed=True).text(Estimate(0.5, -0.25, 1.0))
        '+0.50 [−0.25, +1.00]'
        """
        if value is None:
            return NOTHING
        if isinstance(value, str):
            return value
        point, low, high = value if isinstance(value, Estimate) else Estimate(value)
        ends = "" if math.isnan(low) else f" [{self._number(low)}, {self._number(high)}]"
        return self._number(point) + ends

    def _number(self, number: float) -> str:
        text = f"{number:{'+' * self.signed}.{self.decimals}f}"
        return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


@dataclass(frozen=True)
class Sheet:
    """A table: columns, groups of rows with a heading each, and which cells are the best of their group.

    Attributes
    ----------
    columns
        The columns; the first holds names.
    groups
        Heading and rows of every group.
    highest
        Numbers of columns in which the largest value of a group is set in bold.
    """

    columns: tuple[Column, ...]
    groups: tuple[tuple[str, tuple[tuple[Value, ...], ...]], ...]
    highest: tuple[int, ...] = ()

    @property
    def headings(self) -> list[str]:
        """Headings, the group's first."""
        return ["", *(column.heading for column in self.columns)]

    def texts(self) -> list[list[str]]:
        """Return every row as text, the group's heading before its first one."""
        return [
            [heading * (i == 0), *(column.text(value) for column, value in zip(self.columns, row, strict=True))]
            for heading, rows in self.groups
            for i, row in enumerate(rows)
        ]

    def bold(self) -> list[list[bool]]:
        """Return, row by row, which values are set in bold: the highest as printed, unless half of the group ties."""
        marks = []
        for _, rows in self.groups:
            points = [[round(_point(row[i]), self.columns[i].decimals) for row in rows] for i in self.highest]
            best = {i: max(column) for i, column in zip(self.highest, points, strict=True)}
            tied = {i for i, column in zip(self.highest, points, strict=True) if 2 * column.count(best[i]) > len(rows)}
            for number in range(len(rows)):
                bold = [i for i, column in zip(self.highest, points, strict=True) if column[number] == best[i]]
                marks.append([i in bold and i not in tied for i in range(len(self.columns))])
        return marks

    def render(self, name: str, title: str, caption: str) -> dict[str, str]:
        """Return the files' contents by suffix."""
        return {"md": self._markdown(title, caption), "tex": self._latex(name, title, caption), "csv": self._csv()}

    def _markdown(self, title: str, caption: str) -> str:
        lines = [f"**{title}**", "", _row(self.headings), _row(["---"] * len(self.headings))]
        for (heading, *texts), bold in zip(self.texts(), self.bold(), strict=True):
            cells = [f"**{text}**" if mark else text for text, mark in zip(texts, bold, strict=True)]
            lines.append(_row([heading, *cells]))
        return "\n".join([*lines, "", caption, ""])

    def _latex(self, name: str, title: str, caption: str) -> str:
        columns = len(self.columns)
        lines = [
            "% Needs \\usepackage{booktabs,graphicx}.",
            "\\begin{table*}",
            "\\centering\\small",
            "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}{%",
            f"\\begin{{tabular}}{{l{'r' * (columns - 1)}}}",
            "\\toprule",
            " & ".join(_tex(column.heading) for column in self.columns) + " \\\\",
        ]
        marks = iter(self.bold())
        for heading, rows in self.groups:
            lines.append("\\midrule")
            if heading:
                lines.append(f"\\multicolumn{{{columns}}}{{l}}{{\\emph{{{_tex(heading)}}}}} \\\\")
            for row in rows:
                texts = [_tex(column.text(value)) for column, value in zip(self.columns, row, strict=True)]
                bold = next(marks)
                cells = [f"\\textbf{{{text}}}" if mark else text for text, mark in zip(texts, bold, strict=True)]
                lines.append(" & ".join(cells) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}}", f"\\caption{{\\textbf{{{_tex(title)}.}} {_tex(caption)}}}"]
        return "\n".join([*lines, f"\\label{{tab:{name}}}", "\\end{table*}", ""])

    def _csv(self) -> str:
        """Return one line a row; a column with intervals has three of its own."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        rows = [(heading, *row) for heading, group in self.groups for row in group]
        wide = [any(isinstance(row[i], Estimate) for row in rows) for i in range(len(self.columns) + 1)]
        names = ["group", *(column.heading for column in self.columns)]
        ends = ("", " low", " high")
        writer.writerow([name + end for name, w in zip(names, wide, strict=True) for end in (ends if w else ends[:1])])
        for row in rows:
            values: list[str | float] = []
            for value, w in zip(row, wide, strict=True):
                parts: Sequence[Value] = value if isinstance(value, Estimate) else (value, None, None)
                values += [_exact(part) for part in (parts if w else parts[:1])]
            writer.writerow(values)
        return text.getvalue()


def _point(value: Value) -> float:
    """Return the number that a value is or, as published ones, is printed as; -inf if it is none."""
    if isinstance(value, Estimate):
        return value.value
    try:
        return float(str(value).replace("−", "-"))
    except ValueError:
        return -math.inf


def _exact(value: Value) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str) else repr(float(value))  # type: ignore[arg-type]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _tex(text: str) -> str:
    return "".join(ESCAPES.get(c, c) for c in text)
