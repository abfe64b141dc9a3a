"""`python -m paper_figs`: draw every figure and fill every table whose result files are there.

Figures and tables go to DIR/figures. There, `index.json` lists them with title, caption, reading, and files with their
SHA-256; it is written last. Those that `make reproduce` makes no results for are skipped if there are none. The exit
status is 0 when all others were made; it is 2 when a result file is missing or unfit (each is named), or for a wrong
call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paper_figs.figure import Item, build, items
from paper_figs.report import read_index
from theory.base.files import hashes, only_writer, write_json
from theory.base.terminal import Parser, command
from theory.base.text import plain

INDEX = "index.json"


@command("python -m paper_figs")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    every = items()
    parser = Parser(prog="python -m paper_figs", description="Draw the figures from result files.")
    parser.add_argument(
        "--source", type=Path, default=Path("results"), metavar="DIR", help="result files; figures go to DIR/figures"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"make these only, of: {', '.join(every)}")
    args = parser.parse_args(argv)
    unknown = [name for name in args.only or () if name not in every]
    if unknown:
        parser.error(f"--only: expected names among {', '.join(every)}, got {', '.join(unknown)}")
    output = args.source / "figures"
    with only_writer(output):
        return draw(args.only or list(every), args.source, output, keep=bool(args.only))


def draw(names: Sequence[str], source: Path, output: Path, *, keep: bool) -> int:
    """Make items and the index, with the other entries of an index that is there if `keep`; returns the exit status."""
    every, entries, files = items(), {}, {}
    if keep and os.path.lexists(output / INDEX):
        index = read_index(output / INDEX, f"python -m paper_figs --source {source}")
        entries, files = {entry["name"]: entry for entry in index["items"]}, index["files"]
    failures = 0
    try:
        for name in names:
            try:
                entries[name], told = _made(every[name], source, output, always=keep)
                files |= hashes(output, entries[name].get("files", {}).values())
            except (ValueError, OSError) as error:
                failures += 1
                entries[name] = {"name": name, "title": every[name].title, "error": str(error)}
                print(plain(f"{name}: {error}"), file=sys.stderr)
            else:
                print(*map(plain, told), sep="\n", flush=True)
    finally:  # the index has what was made, even if nobody reads what is printed
        there: list[dict[str, Any]] = [entries[name] for name in every if name in entries]
        listed = {name: files[name] for entry in there for name in entry.get("files", {}).values()}
        write_json(output / INDEX, {"items": there, "files": listed})
    return 2 if failures else 0


def _made(item: Item, source: Path, output: Path, *, always: bool) -> tuple[dict[str, Any], list[str]]:
    """Make an item, or skip it where it has no results; returns its entry in the index, and what is said of it."""
    if item.made_by and not always and not all(result.exists(source) for result in item.inputs):
        skipped = f"no results; `{item.made_by}` makes them"
        return {"name": item.name, "title": item.title, "skipped": skipped}, [f"{item.name}: skipped: {skipped}"]
    built = build(item, source, output)
    return built.to_dict(), [f"{item.name}: {built.caption}", *(f"  {path}" for path in built.files.values())]


if __name__ == "__main__":
    sys.exit(main())
