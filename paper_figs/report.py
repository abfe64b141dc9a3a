"""`python -m paper_figs.report`: one self-contained HTML page of what is below a result folder.

It reads the ledger (`ledger/ledger.json`), what `python -m paper_figs` made (`figures/index.json` and its files) and
the software and seeds of the runs. Nothing in it comes from the network, and the same files give the same bytes.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from paper_figs.sources import read_json
from theory import _checks
from theory._runs import VERSIONS, write_atomically

PAPER = "https://arxiv.org/abs/2602.19208"

VERDICTS = ("fails", "conditional", "approximate", "bound holds", "exact")
"""Verdicts of the ledger, the surprising ones first."""

STYLE = """
:root { color-scheme: light; --line: #d8d8d8; --soft: #f5f5f2; --ink: #1c1c1c; --dim: #5c5c5c; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff; margin: 0 auto; max-width: 60rem;
  padding: 1rem 1rem 4rem; overflow-wrap: break-word; }
h1 { line-height: 1.2; } h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
h3 { margin: 2.5rem 0 .5rem; }
figure { margin: 0; } img { display: block; width: 100%; height: auto; background: #fff; }
.wide { overflow-x: auto; } .dim, figcaption { color: var(--dim); font-size: .9rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
nav ul { columns: 2 16rem; padding-left: 1.2rem; } a { color: #0b5394; }
details { border-bottom: 1px solid var(--line); padding: .4rem 0; } summary { cursor: pointer; }
.verdict { display: inline-block; min-width: 6.5rem; font-size: .8rem; padding: 0 .4rem; margin-right: .4rem;
  border: 1px solid var(--ink); text-align: center; }
.fails { background: #1c1c1c; color: #fff; } .conditional { background: #cfcfcf; } .approximate { background: #ececec; }
code { background: var(--soft); padding: 0 .2rem; } .note { background: var(--soft); padding: .6rem .8rem; }
"""


def page(source: Path) -> str:
    """Return the report on a result folder.

    Raises
    ------
    ValueError
        If a file is missing or unfit; the message names it and the command that makes it.
    """
    ledger_path, index_path = source / "ledger" / "ledger.json", source / "figures" / "index.json"
    ledger = read_json(ledger_path, ("rows",), f"python -m theory --json {ledger_path} --data {ledger_path.parent}")
    index = read_json(index_path, ("items",), f"python -m paper_figs --source {source}")
    try:
        sections = [
            ("ledger", "The ledger: every claim, judged by computation", _ledger(ledger["rows"])),
            *_items(index["items"], index_path.parent),
            ("made-with", "Made with", _made_with(source)),
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{source}: expected entries as this version writes them, got one without {error}") from error
    links = "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title, _ in sections)
    body = "".join(
        f'<section id="{name}"><h2>{escape(title)}</h2>\n{content}</section>\n' for name, title, content in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>DynaMO, judged by computation</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>DynaMO, judged by "
        "computation</h1>\n"
        f'<p>How to allocate rollouts, and how to modulate advantages? The claims of <a href="{PAPER}">arXiv 2602.19208'
        "</a>, its tables and its figures, again: in exact mathematics and in tabular worlds, where every method runs "
        "with many seeds. What the paper publishes of language models appears as a reference only, and is marked.</p>\n"
        f"<nav><ul>{links}</ul></nav>\n{body}</body></html>\n"
    )


def _ledger(rows: Sequence[Mapping[str, Any]]) -> str:
    tally = Counter(row["verdict"] for row in rows)
    known = [verdict for verdict in VERDICTS if tally[verdict]]
    known += [verdict for verdict in tally if verdict not in VERDICTS]
    told = ", ".join(f"{tally[verdict]} {verdict}" for verdict in known)
    parts = [f"<p>{len(rows)} claims: {escape(told)}. Those that fail come first; open a row for its numbers.</p>"]
    for verdict in known:
        for row in rows:
            if row["verdict"] == verdict:
                parts.append(
                    f'<details><summary><span class="verdict {escape(verdict.split()[0])}">{escape(verdict)}</span> '
                    f"<b>{escape(row['id'])}</b> {escape(row['claim'])} "
                    f'<span class="dim">{escape(row["source"])}</span>'
                    f"</summary><p>{escape(row['evidence'])}</p>"
                    + (f"<p>Counter-example: {escape(row['counterexample'])}</p>" if row["counterexample"] else "")
                    + "</details>"
                )
    return "\n".join(parts)


def _items(entries: Iterable[Mapping[str, Any]], folder: Path) -> list[tuple[str, str, str]]:
    """Return name, title and content of every figure and table."""
    return [(entry["name"], entry["title"], _item(entry, folder)) for entry in entries]


def _item(entry: Mapping[str, Any], folder: Path) -> str:
    for state in ("skipped", "error"):
        if state in entry:
            return f'<p class="note">{escape("Not here: " if state == "skipped" else "")}{escape(entry[state])}</p>'
    _checks.one_of("kind", entry["kind"], ("figure", "table"))
    shown = _image(entry, folder) if entry["kind"] == "figure" else _table(entry)
    files = ", ".join(escape(name) for name in entry["files"].values())
    return (
        f"<figure>{shown}<figcaption>{escape(entry['caption'])}</figcaption></figure>\n"
        f'<p>{escape(entry["reading"])}</p>\n<p class="dim">Files: {files}</p>'
    )


def _image(entry: Mapping[str, Any], folder: Path) -> str:
    path = folder / entry["files"]["svg"]
    try:
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise ValueError(f"{path}: expected a figure, got {error}; make it with `python -m paper_figs`") from error
    return f'<img alt="{escape(entry["title"])}" src="data:image/svg+xml;base64,{data}">'


def _table(entry: Mapping[str, Any]) -> str:
    def row(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    head, rows = row(entry["columns"], "th"), "".join(row(cells, "td") for cells in entry["rows"])
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _made_with(source: Path) -> str:
    """Return the software, seeds and time of every run below the folder."""
    software: Counter[str] = Counter()
    seeds: set[int] = set()
    seconds, runs = 0.0, 0
    for path in sorted(source.rglob(VERSIONS)):
        found = dict(read_json(path, ("seeds", "seconds"), "the command of the run"))
        found.pop("earlier", None)
        seeds |= set(found.pop("seeds"))
        seconds += found.pop("seconds")
        runs += 1
        software[", ".join(f"{name} {version}" for name, version in found.items() if version != "not installed")] += 1
    ranges = f"seeds {min(seeds)} to {max(seeds)}" if seeds else "no seeds"
    listed = "".join(f"<li>{count} runs with {escape(text)}</li>" for text, count in software.most_common())
    return f"<p>{runs} training runs, {ranges}, {seconds / 60:.0f} minutes of one core.</p><ul>{listed}</ul>"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report; returns the exit status: 0, or 2 if a file is missing or unfit."""
    parser = argparse.ArgumentParser(prog="python -m paper_figs.report", description="One page of what was found.")
    parser.add_argument("--source", type=Path, default=Path("results"), metavar="DIR", help="result files")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: DIR/report.html)")
    args = parser.parse_args(argv)
    path = args.out or args.source / "report.html"
    try:
        write_atomically(path, page(args.source).encode())
    except (ValueError, OSError) as error:
        print(f"python -m paper_figs.report: {error}", file=sys.stderr)
        return 2
    print(f"report: {path.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
