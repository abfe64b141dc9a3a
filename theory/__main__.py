"""`python -m theory`: judge every claim of the ledger, print the ledger, and say what changed.

The exit status is 0 when every verdict is the recorded one, 1 when one is not, and else as in `theory.base.terminal`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.progress import TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from theory.base.files import only_writer, write_json
from theory.base.runs import listed_tables, software, write_tables
from theory.base.terminal import Console, Parser, command, progress
from theory.base.text import plain
from theory.claims import LEDGER, Claim, Finding, Verdict

COLOURS = {
    Verdict.EXACT: "green",
    Verdict.BOUND: "green",
    Verdict.APPROXIMATE: "yellow",
    Verdict.CONDITIONAL: "yellow",
    Verdict.FAILS: "red",
    Verdict.UNDECIDED: "bold red",
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog="python -m theory", description="Judge the claims of the ledger.")
    parser.add_argument("--only", nargs="+", metavar="ID", help="judge these rows only, e.g. --only A7 G4")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the ledger as JSON")
    parser.add_argument("--data", type=Path, metavar="DIR", help="write the data of each curve as DIR/ID.parquet")
    args = parser.parse_args(argv)
    ids = [row.id for row in LEDGER]
    unknown = [name for name in args.only or () if name not in ids]
    if unknown:
        parser.error(f"--only: expected ids among {', '.join(ids)}, got {', '.join(unknown)}")
    return args


def judge(rows: Sequence[Claim], console: Console) -> list[tuple[Claim, Finding, float]]:
    """Judge the rows one by one under a progress bar; returns each row with its finding and its seconds."""
    judged = []
    with progress(console, TimeElapsedColumn()) as bar:
        task = bar.add_task("", total=len(rows))
        for row in rows:
            bar.update(task, description=f"judging {row.id}")
            start = time.perf_counter()
            finding = row.judge()
            judged.append((row, finding, time.perf_counter() - start))
            bar.advance(task)
    return judged


def show(judged: Sequence[tuple[Claim, Finding, float]], console: Console) -> None:
    """Print the ledger as a table."""
    table = Table(title="Claims of DynaMO (arXiv 2602.19208), judged by computation", show_lines=True, expand=True)
    columns = (("id", None), ("claim", 3), ("said by", None), ("regime", 2), ("verdict", None), ("evidence", 5))
    for heading, ratio in columns:
        table.add_column(heading, ratio=ratio)
    for row, finding, _ in judged:
        verdict = Text(finding.verdict.value, COLOURS[finding.verdict])
        if finding.verdict is not row.recorded:
            verdict.append(f"\n(recorded: {row.recorded.value})", "bold red")
        evidence = plain(finding.evidence)
        if finding.counterexample:
            evidence += f"\nCounter-example: {plain(finding.counterexample)}"
        if row.by_construction:
            verdict.append("\n(by construction)", "dim")
        statement = Text(f"{row.statement} ").append(f"({row.source})", "dim")
        table.add_row(row.id, statement, row.said_by.value, Text(row.regime), verdict, Text(evidence))
    console.print(table)


def as_json(judged: Sequence[tuple[Claim, Finding, float]]) -> dict[str, Any]:
    """Return the ledger as plain data; a number that is not finite is an error."""
    for row, finding, _ in judged:
        for name, value in finding.numbers.items():
            if not math.isfinite(value):
                raise ValueError(f"{row.id}: expected finite numbers, got {name} = {value}")
    return {
        "paper": "arXiv 2602.19208",
        "versions": software(),
        "rows": [
            {
                "id": row.id,
                "claim": row.statement,
                "said_by": row.said_by.value,
                "source": row.source,
                "regime": row.regime,
                "by_construction": row.by_construction,
                "verdict": finding.verdict.value,
                "recorded": row.recorded.value,
                "evidence": finding.evidence,
                "numbers": {name: float(value) for name, value in finding.numbers.items()},
                "counterexample": finding.counterexample,
                "seconds": round(seconds, 3),
            }
            for row, finding, seconds in judged
        ],
    }


@command("python -m theory")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = parse(argv)
    folders = {folder.resolve() for folder in (args.json and args.json.parent, args.data) if folder is not None}
    with ExitStack() as stack:
        for folder in sorted(folders):
            stack.enter_context(only_writer(folder))
        if args.data:
            listed_tables(args.data)  # a damaged list is found before minutes of work
        return run(args, Console(width=140))


def run(args: argparse.Namespace, console: Console) -> int:
    """Judge, write and print; returns the exit status."""
    rows = [row for row in LEDGER if not args.only or row.id in args.only]
    start = time.perf_counter()
    judged = judge(rows, console)
    said = []
    try:
        if args.json:
            write_json(args.json, as_json(judged))
            said.append(f"ledger  {args.json}")
        if args.data:
            tables = {row.id: finding.data for row, finding, _ in judged if finding.data}
            said += [f"data    {path}" for path in write_tables(args.data, tables)]
    finally:  # what was computed is shown, whatever became of the files
        show(judged, console)
    for line in said:
        console.print(line, soft_wrap=True)
    tally = Counter(finding.verdict for _, finding, _ in judged)
    console.print(", ".join(f"{tally[verdict]} {verdict.value}" for verdict in Verdict if tally[verdict]))
    changed = [(row, finding) for row, finding, _ in judged if finding.verdict is not row.recorded]
    for row, finding in changed:
        console.print(f"{row.id}: recorded '{row.recorded.value}', now '{finding.verdict.value}'", style="bold red")
    console.print(f"{len(judged)} claims judged in {time.perf_counter() - start:.0f} s, {len(changed)} changed")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
