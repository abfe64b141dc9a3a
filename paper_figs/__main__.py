"""`python -m paper_figs`: draw every figure whose result files are there.

The exit status is 0 when every figure was drawn, 2 when a result file is missing or unfit (each is named), or for a
wrong call.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from paper_figs.figure import build, figures


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    known = figures()
    parser = argparse.ArgumentParser(prog="python -m paper_figs", description="Draw the figures from result files.")
    parser.add_argument(
        "--source", type=Path, default=Path("results"), metavar="DIR", help="result files; figures go to DIR/figures"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"draw these only, of: {', '.join(known)}")
    args = parser.parse_args(argv)
    unknown = [name for name in args.only or () if name not in known]
    if unknown:
        parser.error(f"--only: expected names among {', '.join(known)}, got {', '.join(unknown)}")
    failures = 0
    for name in args.only or known:
        try:
            caption, paths = build(known[name], args.source, args.source / "figures")
        except (ValueError, OSError) as error:
            failures += 1
            print(f"{name}: {error}", file=sys.stderr)
            continue
        print(f"{name}: {caption}", *(f"  {path}" for path in paths), sep="\n", flush=True)
    return 2 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
