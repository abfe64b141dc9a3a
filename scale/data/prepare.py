"""`python -m scale prepare`: data sets to verl's Parquet files, every problem once, with a manifest of what was done.

For a data set NAME, the output folder gets

- `NAME.parquet`, in verl's schema: `data_source`, `prompt`, `ability`, `reward_model`, `extra_info`. `extra_info.key`
  is the problem's identity (`scale.data.prompt_key`), `extra_info.problem` its text without a template, and
  `extra_info.template` the name of the template that asks: the reward reads both;
- `NAME.conflicts.jsonl`, the problems that were dropped because their copies have different answers, with all of them;
- `NAME.manifest.json`, hashes of sources and outputs, counts, template, versions and warnings, and the right answers
  that the reward cannot read. It is written last: a file with a manifest is complete.

Nothing is dropped or changed that the manifest does not count: rows = duplicates + conflicts + other language +
unreadable + overlap + kept. Templates and messages of a system are taken off the source's prompts, and not kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from scale.data.curate import Prepared, find_overlap, prepare
from scale.data.datasets import DATASETS, Dataset
from scale.data.text_keys import LANGUAGES, TEMPLATES, get_template, language
from scale.manifest import SUFFIX, open_prompts
from theory.base import require
from theory.base.files import only_writer, write_atomically, write_json
from theory.base.runs import software
from theory.base.terminal import Console

ABILITY = "math"

OUTPUT_SUFFIXES = {"prompts": ".parquet", "conflicts": ".conflicts.jsonl", "manifest": SUFFIX}

SCHEMA = pa.schema(
    {
        "data_source": pa.string(),
        "prompt": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "ability": pa.string(),
        "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
        "extra_info": pa.struct(
            {
                "key": pa.string(),
                "index": pa.int64(),
                "split": pa.string(),
                "language": pa.string(),
                "problem": pa.string(),
                "template": pa.string(),
                "source_row": pa.int64(),
                "copies": pa.int64(),
                "details": pa.string(),
            }
        ),
    }
)
"""verl's columns. `index` counts the file's rows; `source_row` is the first row of the source with this problem, and
`copies` says how many there are; `details` are other columns of the source, as a JSON object."""


# Writing


def table(prepared: Prepared, template: str) -> pa.Table:
    """Return the problems in verl's schema, with prompts made by a template, by its name."""
    messages = get_template(template).messages
    name, split = prepared.dataset.name, prepared.dataset.split
    rows = [
        {
            "data_source": name,
            "prompt": messages(x.text),
            "ability": ABILITY,
            "reward_model": {"style": "rule", "ground_truth": x.answer},
            "extra_info": {
                "key": x.key,
                "index": index,
                "split": split,
                "language": language(x.text),
                "problem": x.text,
                "template": template,
                "source_row": x.number,
                "copies": x.copies,
                "details": json.dumps(x.details, ensure_ascii=False),
            },
        }
        for index, x in enumerate(prepared.problems)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def paths(out: Path, name: str) -> dict[str, Path]:
    """Return the files of a data set in the output folder."""
    return {what: out / f"{name}{suffix}" for what, suffix in OUTPUT_SUFFIXES.items()}


def write(prepared: Prepared, template: str, out: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write a data set's files, the manifest last, and return the manifest, which keeps `settings` too."""
    place = paths(out, prepared.dataset.name)
    sink = pa.BufferOutputStream()
    pq.write_table(table(prepared, template), sink, compression="zstd")
    lines = [
        {"key": x.key, "problem": x.text, "answers": dict(x.answers), "source_row": x.number}
        for x in prepared.conflicts
    ]
    contents = {
        "prompts": sink.getvalue().to_pybytes(),
        "conflicts": "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines).encode(),
    }
    manifest = {
        "dataset": prepared.dataset.name,
        "template": {"name": template, **vars(TEMPLATES[template])},
        "settings": dict(settings),
        "counts": prepared.counts,
        "languages": dict(Counter(language(x.text) for x in prepared.problems)),
        "warnings": prepared.warnings,
        "unreadable": prepared.unreadable,
        "overlap": prepared.overlap,
        "sources": prepared.sources,
        "files": {place[x].name: hashlib.sha256(y).hexdigest() for x, y in contents.items()},
        "versions": software("pyarrow", "math-verify"),
    }
    place["manifest"].unlink(missing_ok=True)  # the old one: a manifest vouches for the files next to it
    for what, content in contents.items():
        write_atomically(place[what], content)
    write_json(place["manifest"], manifest)
    return manifest


def read_texts(path: Path) -> list[str]:
    """Return the texts of problems of a prepared file."""
    try:
        rows = pq.read_table(open_prompts(path), columns=["extra_info"]).column("extra_info").to_pylist()
        return [str(row["problem"]) for row in rows]
    except (OSError, pa.ArrowException, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a prepared file with extra_info.problem, got {error!r}") from error


# The command


ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "datasets": {"nargs": "*", "metavar": "DATASET", "help": f"one or more of {', '.join(DATASETS)} (default: all)"},
    "--source": {
        "type": Path,
        "metavar": "FILE_OR_DIR",
        "help": "a file of the data set, or a folder with DATASET.parquet, .jsonl, .json or .csv (default: the hub)",
    },
    "--revision": {"help": "branch, tag or commit of the hub's repository (default: its main branch)"},
    "--out": {"type": Path, "default": Path("data"), "metavar": "DIR", "help": "default: %(default)s"},
    "--language": {"choices": (*LANGUAGES, "all"), "default": "all", "help": "problems to keep (default: %(default)s)"},
    "--template": {
        "choices": tuple(TEMPLATES),
        "default": "boxed",
        "metavar": "NAME",
        "help": f"prompt template, one of {', '.join(TEMPLATES)} (default: %(default)s)",
    },
    "--drop-overlap": {"action": "store_true", "help": "do not train on problems that a prepared benchmark has too"},
    "--drop-unreadable": {
        "action": "store_true",
        "help": "do not train on problems whose right answer the reward cannot read",
    },
    "--strict": {"action": "store_true", "help": "refuse a source that a warning is about"},
    "--force": {"action": "store_true", "help": "replace earlier files"},
}


def command(args: argparse.Namespace, console: Console, can_read: Callable[[str], bool] | None) -> int:
    """Prepare data sets and return the exit status; all are read before the first file is written.

    `can_read` is as in `scale.data.curate.prepare`.
    """
    for name in args.datasets:
        require.one_of("dataset", name, DATASETS)
    chosen = [dataset for name, dataset in DATASETS.items() if name in args.datasets or not args.datasets]
    if len(chosen) > 1 and args.source is not None and args.source.is_file():
        raise ValueError(f"source: expected a folder for {len(chosen)} data sets, got the file {args.source}")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"out: expected a folder, got the file {args.out}")
    _require_free(args, chosen)
    prepared = []
    for dataset in chosen:
        console.print(f"{dataset.name}: reading", args.source or dataset.repository, soft_wrap=True)
        prepared.append(
            prepare(
                dataset,
                args.source,
                keep=args.language,
                revision=args.revision,
                can_read=can_read,
                drop_unreadable=args.drop_unreadable,
            )
        )
    warnings = [text for x in prepared for text in x.warnings]
    if warnings and args.strict:
        raise ValueError("; ".join(warnings))
    _compare(prepared, args.out, drop=args.drop_overlap)
    settings = {name: getattr(args, name) for name in ("language", "drop_overlap", "drop_unreadable")}
    with only_writer(args.out):
        _require_free(args, chosen)  # again: another call may have written meanwhile
        for x in prepared:
            write(x, args.template, args.out, settings)
    report(prepared, args.out, console)
    return 0


def _require_free(args: argparse.Namespace, chosen: Sequence[Dataset]) -> None:
    there = [path for x in chosen for path in paths(args.out, x.name).values() if path.exists()]
    if there and not args.force:
        others = f" and {len(there) - 1} others" if there[1:] else ""
        raise ValueError(f"{there[0]}: expected no such file, got one{others}; --force replaces them")


def _compare(prepared: Sequence[Prepared], out: Path, *, drop: bool) -> None:
    """Compare what is trained on with every benchmark, of this call or prepared before."""
    benchmarks: dict[str, list[str]] = {}
    for name, dataset in DATASETS.items():
        now = next((x for x in prepared if x.dataset is dataset), None)
        path = paths(out, name)["prompts"]
        if dataset.split == "test" and (now or path.exists()):
            benchmarks[name] = [x.text for x in now.problems] if now else read_texts(path)
    for x in prepared:
        if x.dataset.split == "train":
            find_overlap(x, benchmarks, drop=drop)


def report(prepared: Sequence[Prepared], out: Path, console: Console) -> None:
    """Print what was read, dropped and kept, and the warnings."""
    shown = Table(box=None)
    columns = ("rows", "duplicates", "conflicts", "other_language", "unreadable", "overlap", "kept")
    shown.add_column("data set")
    for name in columns:
        shown.add_column(name.replace("_", " "), justify="right")
    for x in prepared:
        shown.add_row(x.dataset.name, *(f"{x.counts[name]:,}" for name in columns))
    console.print(shown)
    for x in prepared:
        place = paths(out, x.dataset.name)
        for text in x.warnings:
            console.print(f"warning: {text}", soft_wrap=True, style="yellow")
        if x.conflicts:
            console.print(f"conflicting answers: {place['conflicts']}", soft_wrap=True)
        if x.unreadable:
            _report_unreadable(x, place["manifest"], console)
        shared = {name: len(keys) for name, keys in x.overlap.items() if keys}
        if shared:
            where = ", ".join(f"{count} of {name}" for name, count in shared.items())
            done = "dropped" if x.counts["overlap"] else "kept (--drop-overlap drops them)"
            console.print(f"{x.dataset.name}: problems of benchmarks: {where}; {done}", soft_wrap=True)
    console.print(f"written: {out}", soft_wrap=True)


SHOWN_ANSWERS = 20


def _report_unreadable(prepared: Prepared, manifest: Path, console: Console) -> None:
    answers = prepared.unreadable or {}
    done = "dropped" if prepared.counts["unreadable"] else "kept (--drop-unreadable drops those to train on)"
    console.print(
        f"{prepared.dataset.name}: Math-Verify cannot read {len(answers)} of the right answers; {done}. A response to "
        "such a problem is right if it is spelt alike, else unverified:",
        soft_wrap=True,
    )
    for key, answer in list(answers.items())[:SHOWN_ANSWERS]:
        console.print(f"  {key}  {' '.join(answer.split()):.100}", soft_wrap=True)
    if len(answers) > SHOWN_ANSWERS:
        rest = len(answers) - SHOWN_ANSWERS
        console.print(f"  and {rest} more, by key in unreadable of {manifest}", soft_wrap=True)
