"""`python -m paper_figs`: draw every figure and fill every table whose result files are there.

Figures and tables go to DIR/figures, with `index.json`, which lists them with title, caption, reading and files. Those
that `make reproduce` makes no results for are skipped if there are none. The exit status is 0 when all others were
made; it is 2 when a result file is missing or unfit (each is named), or for a wrong call.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paper_figs.figure import build, items
from theory.base.files import write_json

INDEX = "index.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    every = items()
    parser = argparse.ArgumentParser(prog="python -m paper_figs", description="Draw the figures from result files.")
    parser.add_argument(
        "--source", type=Path, default=Path("results"), metavar="DIR", help="result files; figures go to DIR/figures"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"make these only, of: {', '.join(every)}")
    args = parser.parse_args(argv)
    unknown = [name for name in args.only or () if name not in every]
    if unknown:
        parser.error(f"--only: expected names among {', '.join(every)}, got {', '.join(unknown)}")
    output = args.source / "figures"
    entries = _entries(output / INDEX) if args.only else {}
    failures = 0
    for name in args.only or every:
        item = every[name]
        try:
            if item.made_by and not args.only and not all(result.exists(args.source) for result in item.inputs):
                skipped = f"no results; `{item.made_by}` makes them"
                entries[name] = {"name": name, "title": item.title, "skipped": skipped}
                print(f"{name}: skipped: {skipped}", flush=True)
                continue
            built = build(item, args.source, output)
        except (ValueError, OSError) as error:
            failures += 1
            entries[name] = {"name": name, "title": item.title, "error": str(error)}
            print(f"{name}: {error}", file=sys.stderr)
            continue
        entries[name] = built.to_dict()
        print(f"{name}: {built.caption}", *(f"  {path}" for path in built.files.values()), sep="\n", flush=True)
    try:
        write_json(output / INDEX, {"items": [entries[name] for name in every if name in entries]})
    except OSError as error:
        print(f"{output / INDEX}: {error}", file=sys.stderr)
        return 2
    return 2 if failures else 0


def _entries(path: Path) -> dict[str, Any]:
    """Return the entries of an index by name; none if there is no sound one."""
    try:
        return {entry["name"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))["items"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


if __name__ == "__main__":
    sys.exit(main())
