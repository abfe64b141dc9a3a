"""`python -m paper_figs.findings`: print the findings of result files, or write those of the archive into pages."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from paper_figs.findings import ARCHIVE, FINDINGS, Evidence, Missing, render
from theory.base.files import only_writer, read_json, write_atomically, write_json
from theory.base.terminal import Parser, command
from theory.base.text import plain


def archive(source: Path) -> None:
    """Replace the archive by what the findings read below `source`, the numbers of seeds, and the software of runs."""
    evidence = Evidence(source)
    for finding in FINDINGS.values():
        finding.tell(evidence)
    evidence.rows()
    used: Counter[str] = Counter()
    for folder in sorted({path.parent for path in evidence.read if path.name == "summary.parquet"}):
        for path in sorted(folder.glob("*/versions.json")):
            about = read_json(path)
            used[json.dumps({name: x for name, x in about.items() if isinstance(x, str)}, sort_keys=True)] += 1
    with only_writer(ARCHIVE):
        made = [{"count": count, **json.loads(software)} for software, count in sorted(used.items())]
        write_json(ARCHIVE / "made_with.json", {"runs": made})
        for old in (ARCHIVE / "toy", ARCHIVE / "ledger"):
            shutil.rmtree(old, ignore_errors=True)
        for path in sorted(evidence.read):
            target = ARCHIVE / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.name != "summary.json":
                shutil.copyfile(path, target)
            if path.name == "summary.parquet":
                shutil.copyfile(path.with_name("values.parquet"), target.with_name("values.parquet"))
            elif path.name == "summary.json":  # its rows are in the table, too
                write_json(target, {name: value for name, value in read_json(path).items() if name != "rows"})


@command("python -m paper_figs.findings")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, or as in `theory.base.terminal`."""
    parser = Parser(prog="python -m paper_figs.findings", description="What was found, computed from result files.")
    parser.add_argument("--source", type=Path, default=ARCHIVE, metavar="DIR", help="result files")
    parser.add_argument("--write", nargs="+", type=Path, metavar="PAGE", help="write into pages, between marks")
    parser.add_argument("--archive", action="store_true", help="replace the archive by files of DIR")
    args = parser.parse_args(argv)
    if args.archive:
        if args.source == ARCHIVE:
            parser.error("--archive: expected another folder as --source, got none")
        archive(args.source)
        return 0
    evidence = Evidence(args.source)
    for page in args.write or ():
        text = page.read_text(encoding="utf-8")
        write_atomically(page, render(text, evidence).encode())
    if not args.write:
        for finding in FINDINGS.values():
            try:
                print(plain(f"{finding.name}: {finding.markdown(evidence)}"))
            except Missing as missing:
                made = " && ".join(finding.commands)
                print(plain(f"{finding.name}: not in {args.source} ({missing}); make it with `{made}`"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
