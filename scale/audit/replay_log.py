"""`python -m scale audit LOG`: what a finished run's rollouts say, and what other allocations would have changed.

Needs no GPU, no verl and no vLLM. What is reported is in `scale.audit.comparison`; docs/audit.md explains the output.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theory.base.terminal import Console

ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "logs": {"nargs": "+", "type": Path, "metavar": "LOG", "help": "files of one run, or their folder"},
    "--out": {"type": Path, "metavar": "DIR", "help": "write audit.json, audit.parquet and a plot there"},
    "--format": {"default": "auto", "metavar": "F", "help": "csv, parquet, jsonl, verl, trl or allocation"},
    **{
        f"--{name}-column": {"metavar": "NAME", "help": f"the {name}'s column or field, if it differs"}
        for name in ("prompt", "step", "reward")
    },
    "--success": {"type": float, "metavar": "X", "help": "rewards of at least X are right; else two values"},
    "--low": {"type": int, "metavar": "N", "help": "fewest rollouts of a prompt (default: half the mean)"},
    "--high": {"type": int, "metavar": "N", "help": "most rollouts of a prompt (default: 1.5 times the mean)"},
    "--discount": {
        "type": float,
        "default": 1.0,
        "metavar": "X",
        "help": "factor on old counts at each visit (%(default)s)",
    },
    "--steps": {
        "type": int,
        "default": 400,
        "metavar": "N",
        "help": "steps to replay, at most, evenly spaced (%(default)s)",
    },
    "--seed": {"type": int, "default": 0, "metavar": "N", "help": "seed of rules that draw (%(default)s)"},
    "--force": {"action": "store_true", "help": "replace the results in DIR"},
}


def command(args: argparse.Namespace, console: Console) -> int:
    """Read a log, replay it and report; returns 0."""
    from scale.audit import comparison, readers, report
    from scale.audit.log import Columns
    from theory.base import require
    from theory.base.files import only_writer

    if args.format != "auto":
        require.one_of("--format", args.format, readers.FORMATS)
    if args.low is not None:
        require.count("--low", args.low, 2)
    if args.high is not None:
        require.count("--high", args.high, max(2, args.low or 2))
    if args.success is not None:
        require.in_range("--success", args.success)
    require.in_range("--discount", args.discount, 0.0, 1.0)
    require.count("--steps", args.steps, 1)
    require.count("--seed", args.seed)
    if args.out is not None and not args.force:
        report.require_free(args.out)
    columns = Columns(args.prompt_column, args.step_column, args.reward_column)
    with console.status("reading") as status:
        log = readers.read_log(
            args.logs, args.format, columns, args.success, lambda n: status.update(f"reading, {n:,} rollouts so far")
        )
        result = comparison.audit(log, args.low, args.high, args.discount, args.steps, args.seed, status.update)
    written: list[Path] = []
    try:
        if args.out is not None:
            with only_writer(args.out):
                if not args.force:
                    report.require_free(args.out)  # again: another call may have written meanwhile
                written = report.write(result, log, args.out, console)
    finally:  # what was computed is shown, whatever became of the files
        report.show(result, console)
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)
    return 0
