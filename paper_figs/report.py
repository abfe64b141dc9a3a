"""`python -m paper_figs.report`: one self-contained HTML page of what is below a result folder.

It reads the ledger (`ledger/ledger.json`), what `python -m paper_figs` made (`figures/index.json` and its files) and
the software and seeds of the runs. Nothing in it comes from the network, and the same files give the same bytes.
"""

from __future__ import annotations

import base64
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from paper_figs.findings import ARCHIVE, HEADLINES, Evidence, Missing
from paper_figs.formulas import mathml, typeset
from paper_figs.result_files import made_by, unfit
from theory.base import runs
from theory.base.files import check_fields, only_writer, read_hashed, write_atomically
from theory.base.terminal import Parser, command
from theory.base.text import plain
from theory.claims import Author, Verdict

PAPER = "https://arxiv.org/abs/2602.19208"

VERDICTS = tuple(verdict.value for verdict in reversed(Verdict))
"""Verdicts of the ledger, the surprising ones first: a broken formula, then claims that fail."""

MARKDOWN = MarkdownIt("commonmark", {"html": False})

# A figure keeps a size at which its text is read; where the screen is narrower it scrolls in its own box.
STYLE = """
:root { color-scheme: light; --line: #d8d8d8; --soft: #f5f5f2; --ink: #1c1c1c; --dim: #5c5c5c; --scale: 1.9px; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff; margin: 0 auto; max-width: 60rem;
  padding: 1rem 1rem 4rem; overflow-wrap: break-word; }
h1 { line-height: 1.2; } h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); line-height: 1.3; }
figure { margin: 0; } img { display: block; width: calc(var(--points) * var(--scale)); height: auto; }
.wide { overflow-x: auto; margin-bottom: .5rem; } .dim, figcaption { color: var(--dim); font-size: .9rem; }
table { border-collapse: collapse; min-width: 44rem; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem; border-bottom: 1px solid var(--line); }
td small { display: block; white-space: nowrap; color: var(--dim); font-weight: normal; }
tr > :first-child { position: sticky; left: 0; background: #fff; } .group th { padding-top: 1rem; }
.group span { position: sticky; left: .6rem; }
ol.found li { margin-bottom: .6rem; } math { font-size: 1.05rem; }
nav ul { columns: 2 16rem; padding-left: 1.2rem; } a { color: #0b5394; }
details { border-bottom: 1px solid var(--line); padding: .4rem 0; } summary { cursor: pointer; }
.verdict { display: inline-block; min-width: 6.5rem; font-size: .8rem; padding: 0 .4rem; margin-right: .4rem;
  border: 1px solid var(--ink); text-align: center; }
.undecided { background: #a00; color: #fff; }
.fails { background: #1c1c1c; color: #fff; } .conditional { background: #cfcfcf; } .approximate { background: #ececec; }
.note { background: var(--soft); padding: .6rem .8rem; }
@media (max-width: 40rem) { :root { --scale: 1.3px; } }
@media print { .wide { overflow: visible; } :root { --scale: 1.4px; } }
"""


def page(source: Path) -> str:
    """Return the report on a result folder."""
    evidence = Evidence(source)
    sections = [
        ("found", "What was found", _found(evidence)),
        ("ledger", "The ledger: claims judged by computation", _ledger(evidence.rows())),
        *_items(source / "figures" / "index.json", f"python -m paper_figs --source {source}"),
        ("made-with", "Made with", _made_with(source)),
    ]
    links = "".join(f'<li><a href="#{_text(name)}">{_text(title)}</a></li>' for name, title, _ in sections)
    body = "".join(
        f'<section id="{_text(name)}"><h2>{_text(title)}</h2>\n{content}</section>\n'
        for name, title, content in sections
    )
    title = "DynaMO, judged by computation"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n"
        f'<p>How to allocate rollouts, and how to modulate advantages? The claims of <a href="{PAPER}">arXiv 2602.19208'
        "</a>, its tables and its figures, again: in exact mathematics and in tabular worlds, where every method runs "
        "with many seeds, and in verl where such runs are. What the paper publishes of language models appears as a "
        "reference only, and is marked.</p>\n"
        f"<nav><ul>{links}</ul></nav>\n{body}</body></html>\n"
    )


def _found(evidence: Evidence) -> str:
    """Return the first screen: five sentences, from the project's archive where the folder lacks their results."""
    items = []
    for tell in HEADLINES:
        try:
            text = tell(evidence)
        except Missing:
            text = f"{tell(Evidence(ARCHIVE))} (Archived results; `make findings` makes them.)"
        items.append(f"<li>{typeset(MARKDOWN.renderInline(' '.join(text.split())))}</li>")
    return f'<ol class="found">{"".join(items)}</ol>'


def _ledger(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows by who made the claim, and then by verdict."""
    broken = sum(row["verdict"] == Verdict.UNDECIDED.value for row in rows)
    parts = ["<p>Each row says for which case it was judged. Open it for the numbers.</p>"]
    if broken:
        parts.append(
            f'<p class="note">{broken} undecided: a computation here contradicts an identity that it must satisfy, so '
            "that our formulas are broken, not the claim.</p>"
        )
    for author in dict.fromkeys([*(author.value for author in Author), *(row["said_by"] for row in rows)]):
        own = [row for row in rows if row["said_by"] == author]
        if own:
            judged = [row for row in own if not row["by_construction"]]
            tally = Counter(row["verdict"] for row in judged)
            verdicts = [v for v in VERDICTS if tally[v]] + [v for v in tally if v not in VERDICTS]
            counts = ", ".join(f"{tally[verdict]} {verdict}" for verdict in verdicts)
            made = f"; {len(own) - len(judged)} by construction" if len(judged) < len(own) else ""
            parts.append(f"<h3>Said by: {_text(author)}</h3><p>{len(judged)} claims: {_text(counts)}{made}.</p>")
            parts += [_row(row) for verdict in verdicts for row in judged if row["verdict"] == verdict]
            parts += [_row(row) for row in own if row["by_construction"]]
    return "\n".join(parts)


def _row(row: Mapping[str, Any]) -> str:
    look, verdict = _text(row["verdict"].partition(" ")[0]), _text(row["verdict"])
    other = row["counterexample"]
    details = (
        mathml(row["id"]),
        "By construction: this tests our own code, or copied numbers." if row["by_construction"] else "",
        f"Judged for: {typeset(_text(row['regime']))}." if row["regime"] else "",
        typeset(_text(row["evidence"])),
        "" if other is None else f"Counter-example: {typeset(_text(other))}",
    )
    return (
        f'<details><summary><span class="verdict {look}">{verdict}</span> <b>{_text(row["id"])}</b> '
        f"{'by construction: ' * row['by_construction']}"
        f'{typeset(_text(row["claim"]))} <span class="dim">{_text(row["source"])}</span></summary>'
        + "".join(f"<p>{text}</p>" for text in details if text)
        + "</details>"
    )


def read_index(path: Path, command: str) -> dict[str, Any]:
    """Read `figures/index.json`: the entries of its `items`, and the SHA-256 of their `files`."""
    with made_by(command):
        index = check_fields(runs.read_record(path), {"items": (list,)}, str(path))
        for entry in index["items"]:
            _require_entry(entry, f"{path}: entry")
            if unknown := sorted(set(entry.get("files", {}).values()) - set(index["files"])):
                raise ValueError(f"{path}: expected the SHA-256 of {', '.join(unknown):.80}, got none")
        names = [entry["name"] for entry in index["items"]]
        if len(set(names)) < len(names):
            raise ValueError(f"{path}: expected entries of different names, got {', '.join(names):.200}")
    return index


def _require_entry(entry: Any, where: str) -> None:
    texts: dict[str, tuple[type, ...]] = {"name": (str,), "title": (str,)}
    check_fields(entry, texts, where)
    if {"skipped", "error"} & set(entry):
        check_fields(entry, {name: (str,) for name in ("skipped", "error") if name in entry}, where)
        return
    check_fields(entry, {"kind": (str,), "reading": (str,), "caption": (str,), "files": (dict,)}, where)
    if not all(isinstance(name, str) for name in entry["files"].values()):
        raise ValueError(f"{where}: expected names of files, got {entry['files']!r:.80}")
    if entry["kind"] == "figure" and "svg" in entry["files"]:
        return
    if entry["kind"] != "table":
        raise ValueError(f"{where}: expected a table, or a figure with an SVG, got {entry['kind']!r:.80}")
    check_fields(entry, {"columns": (list,), "rows": (list,), "bold": (list,)}, where)
    columns, rows, bold = entry["columns"], entry["rows"], entry["bold"]
    texts_only = all(isinstance(row, list) and all(isinstance(cell, str) for cell in row) for row in (columns, *rows))
    marks_only = all(isinstance(marks, list) and all(isinstance(mark, bool) for mark in marks) for marks in bold)
    if not texts_only or not marks_only:
        raise ValueError(f"{where}: expected a table of text and marks of bold, got others in {entry['name']!r:.80}")
    if [len(row) for row in rows] != [len(columns)] * len(rows) or [len(x) + 1 for x in bold] != [len(x) for x in rows]:
        raise ValueError(f"{where}: expected rows of {len(columns)} cells, got others in {entry['name']!r:.80}")


def _items(path: Path, command: str) -> list[tuple[str, str, str]]:
    """Return name, title and content of every figure and table."""
    index = read_index(path, command)
    return [(entry["name"], entry["title"], _item(entry, index["files"], path)) for entry in index["items"]]


def _item(entry: Mapping[str, Any], hashes: Mapping[str, Any], index: Path) -> str:
    if "skipped" in entry or "error" in entry:
        return f'<p class="note">Not here: {_text(entry["skipped"] if "skipped" in entry else entry["error"])}</p>'
    shown = _image(entry, hashes, index) if entry["kind"] == "figure" else _table(entry)
    files = ", ".join(_text(name) for name in entry["files"].values())
    # A box that scrolls is reached by keyboard too.
    return (
        f'<p>{_text(entry["reading"])}</p>\n<figure><div class="wide" tabindex="0" role="group" '
        f'aria-label="{_text(entry["title"])}">{shown}</div><figcaption>{_text(entry["caption"])}</figcaption>'
        f'</figure>\n<p class="dim">Files: {files}</p>'
    )


def _image(entry: Mapping[str, Any], hashes: Mapping[str, Any], index: Path) -> str:
    path = index.parent / entry["files"]["svg"]
    command = f"python -m paper_figs --only {entry['name']}"
    with made_by(command):
        drawing = read_hashed(path, hashes, index)
    width = re.search(rb'<svg[^>]*? width="(\d+(?:\.\d+)?)pt"', drawing)
    if width is None:
        raise unfit(path, "an SVG with its width in points", "another file", command)
    data = base64.b64encode(drawing).decode()
    size = f"--points: {float(width[1]):g}"
    return f'<img alt="{_text(entry["title"])}" style="{size}" src="data:image/svg+xml;base64,{data}">'


def _table(entry: Mapping[str, Any]) -> str:
    """Return a table; the heading of a group is a row of its own."""
    columns = entry["columns"][1:]
    lines = ["<tr>" + "".join(f"<th>{_text(column)}</th>" for column in columns) + "</tr>"]
    for (group, *cells), bold in zip(entry["rows"], entry["bold"], strict=True):
        if group:
            lines.append(f'<tr class="group"><th colspan="{len(columns)}"><span>{_text(group)}</span></th></tr>')
        lines.append("<tr>" + "".join(map(_cell, cells, bold)) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _text(text: str) -> str:
    """Return text from data for a page; quotes are escaped too, for attributes."""
    return escape(plain(text))


def _cell(text: str, is_bold: bool) -> str:
    """Return a cell; an interval stands below its number."""
    number, interval = parts.groups() if (parts := re.fullmatch(r"(\S+) (\[.+\])", text)) else (text, "")
    shown = f"<b>{_text(number)}</b>" if is_bold else _text(number)
    return f"<td>{shown}{f'<small>{_text(interval)}</small>' if interval else ''}</td>"


def _made_with(source: Path) -> str:
    """Return the software, seeds and time of every run below the folder."""
    software: Counter[str] = Counter()
    seeds: set[int] = set()
    seconds = 0.0
    for folder, inner, files in os.walk(source):
        inner.sort()
        if runs.VERSIONS_FILE in (*files, *inner):
            inner.clear()  # checkpoints are large
            with made_by("the command of the run"):
                versions = runs.read_versions(Path(folder))
            for name in ("earlier", "files"):
                versions.pop(name)
            seeds |= set(versions.pop("seeds"))
            seconds += versions.pop("seconds")
            text = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "not installed")
            software[text] += 1
    if not software:
        return "<p>There are no training runs here.</p>"
    listed = "".join(f"<li>{count} with {_text(text)}</li>" for text, count in sorted(software.items()))
    return (
        f"<p>{sum(software.values())} training runs with seeds {min(seeds)} to {max(seeds)}, which took "
        f"{seconds / 60:.0f} minutes one after another:</p><ul>{listed}</ul>"
    )


@command("python -m paper_figs.report")
def main(argv: Sequence[str] | None = None) -> int:
    """Write the report; returns the exit status: 0, or as in `theory.base.terminal`."""
    parser = Parser(prog="python -m paper_figs.report", description="One page of what was found.")
    parser.add_argument("--source", type=Path, default=Path("results"), metavar="DIR", help="result files")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: DIR/report.html)")
    args = parser.parse_args(argv)
    path = args.out or args.source / "report.html"
    with only_writer(path.parent):
        write_atomically(path, page(args.source).encode())
    print(plain(f"report: {path.resolve()}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
