"""Rollout logs of any run, read as groups: verl's and TRL's dumps, tables, and our own record of allocations.

A reader yields batches of prompt, step and reward, which `scale.audit.log` counts. The file is long because every
format is damaged in its own way, and the message must name the line.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from scale.audit.log import Columns, Log, Tally
from scale.run.records import ALLOCATION_LOG, METRICS_LOG, read_allocation, require_recorded

FORMATS = ("csv", "parquet", "jsonl", "verl", "trl", "allocation")
"""Tables with a row per rollout; verl's `trainer.rollout_data_dir`; TRL's `log_completions`; our `allocation.jsonl`."""

FORMAT_OF_SUFFIX = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl"}

TRL_COLUMNS = frozenset({"step", "prompt", "completion", "advantage"})
"""Columns that TRL itself writes; the others are its reward functions'."""

BATCH_ROWS, BLOCK_BYTES = 2**18, 2**25

THREADS = min(8, os.cpu_count() or 1)
"""Blocks of JSON that are parsed at a time; Arrow reads CSV and Parquet by threads of its own."""


def read_log(
    path: Path | str | Sequence[Path | str],
    format: str = "auto",
    columns: Columns | None = None,
    success: float | None = None,
    told: Callable[[int], None] = lambda rollouts: None,
) -> Log:
    """Read the log of one run; an error names the file, and the line or row.

    Parameters
    ----------
    path : A file, or a folder of files of one kind, or several of them.
    format : One of `FORMATS`; "auto" goes by suffix and content.
    columns : Names of columns, where they are not the format's own.
    success, told : As in `scale.audit.log.Tally`.
    """
    files = _files([Path(path)] if isinstance(path, (str, Path)) else [Path(each) for each in path])
    kinds = {file: _kind(file) if format == "auto" else format for file in files}
    kind = kinds[files[0]]
    for file, other in kinds.items():
        if other != kind:
            raise ValueError(f"{file}: expected the format of {files[0]}, {kind}, got {other}; one call reads one run")
    for folder in {parent for file in files for parent in file.parents[:2]}:
        if (folder / METRICS_LOG).exists():  # a run of ours that is finished vouches for its record and its dumps
            require_recorded(folder, [file for file in files if folder in file.parents[:2]])
    tally = Tally(success, told, steps_in_one_file=kind in ("verl", "trl"))
    if kind == "allocation":
        for file in files:
            _read_allocation(file, tally)
    else:
        own = {"verl": Columns("input", "step", "score")}.get(kind, Columns("prompt", "step", "reward"))
        wanted = Columns(*(given or name for given, name in zip(columns or Columns(), own, strict=True)))
        if kind == "trl" and (columns is None or columns.reward is None):
            wanted = wanted._replace(reward=_trl_reward(files[0]))
        for file, first, batch in _batches(files, kind, wanted, tally.notes):
            tally.add(batch, first, file, wanted)
    return tally.log(kind, tuple(files))


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += _in_folder(path)
        elif path.exists():
            files.append(path)
        else:
            raise ValueError(f"{path}: expected a file or a folder, got nothing of that name")
    if odd := [path for path in files if not path.is_file()]:
        raise ValueError(f"{odd[0]}: expected a regular file, which is read twice, got another kind of file")
    twice = [path for path in files if files.count(path) > 1] if len(set(files)) < len(files) else []
    if twice:
        raise ValueError(f"{twice[0]}: expected every file once, got it {files.count(twice[0])} times")
    return files


def _in_folder(folder: Path) -> list[Path]:
    """Return a folder's log: our record, the dumps in it, or TRL's in `completions`."""
    if (folder / ALLOCATION_LOG).exists():
        return [folder / ALLOCATION_LOG]
    files = sorted(path for path in folder.iterdir() if path.suffix in FORMAT_OF_SUFFIX)
    if not files and (folder / "completions").is_dir():
        return _in_folder(folder / "completions")
    suffixes = sorted({path.suffix for path in files})
    if len(suffixes) != 1:
        got = "none" if not files else " and ".join(suffixes)
        raise ValueError(f"{folder}: expected files of one kind, {', '.join(FORMAT_OF_SUFFIX)}, got {got}")
    return sorted(files, key=lambda path: (len(path.name), path.name))


def _kind(path: Path) -> str:
    if path.suffix not in FORMAT_OF_SUFFIX:
        raise ValueError(
            f"{path}: expected a file {', '.join(FORMAT_OF_SUFFIX)}, got {path.suffix!r}; name it with --format"
        )
    kind = FORMAT_OF_SUFFIX[path.suffix]
    if kind == "parquet" and set(_schema(path).names) >= TRL_COLUMNS:
        return "trl"
    if kind == "jsonl":
        try:
            with path.open("rb") as file:
                line = next((text for text in file if text.strip()), b"")
        except OSError as error:
            raise ValueError(f"{path}: expected a readable file, got {error}") from error
        names = set(_json_line(line, path, 1)) if line else set()
        if {"keys", "counts", "successes"} <= names:
            return "allocation"
        if {"input", "output", "score"} <= names:
            return "verl"
    return kind


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: expected a readable Parquet file, got {error}") from error


def _trl_reward(path: Path) -> str:
    numbers = [str(x.name) for x in _schema(path) if x.name not in TRL_COLUMNS and _is_number(x.type)]
    if len(numbers) != 1:
        got = ", ".join(numbers) or "none"
        raise ValueError(
            f"{path}: expected one reward column besides TRL's own, got {got}; name it with --reward-column"
        )
    return numbers[0]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _batches(
    files: Sequence[Path], kind: str, names: Columns, notes: list[str]
) -> Iterator[tuple[Path, int, pa.RecordBatch]]:
    """Yield (file, number of the first row or line, batch of prompt, step and reward); note what is left out."""
    columns = [str(name) for name in names]
    if len(set(columns)) < 3:
        raise ValueError(f"columns: expected three different ones, got {', '.join(columns)}")
    if kind in ("jsonl", "verl"):
        yield from _json_batches(files, columns)
        return
    first_with: dict[bytes, Path] = {}
    for path in files:
        if kind == "trl":
            earlier = first_with.setdefault(_hash_completions(path, columns[0]), path)
            if earlier != path:
                notes.append(f"{path.name} has the very completions of {earlier.name}; they are counted once.")
                continue
        batches = _csv_batches(path, columns, notes) if kind == "csv" else _parquet_batches(path, columns, columns[1:])
        for first, batch in batches:
            yield path, first, batch


def _hash_completions(path: Path, prompt: str) -> bytes:
    """Return a hash of a file's prompts and completions, which TRL writes again when it trains on them twice."""
    digest = hashlib.blake2b()
    for _, batch in _parquet_batches(path, [prompt, "completion"], ()):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        digest.update(sink.getvalue())
    return digest.digest()


def _require(path: Path, columns: Sequence[str], names: Sequence[str]) -> None:
    missing = [name for name in columns if name not in names]
    if missing:
        raise ValueError(
            f"{path}: expected the columns {', '.join(columns)}, got {', '.join(names) or 'none'}; name them with "
            "--prompt-column, --step-column and --reward-column"
        )
    twice = [name for name in columns if names.count(name) > 1]
    if twice:
        raise ValueError(f"{path}: expected one column {twice[0]}, got {names.count(twice[0])}")


def _parquet_batches(path: Path, columns: list[str], numbers: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    schema = _schema(path)
    _require(path, columns, schema.names)
    texts = []
    for name in columns:
        kind = schema.field(name).type
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        is_text = pa.types.is_string(plain) or pa.types.is_large_string(plain)
        if name in numbers and not _is_number(kind):
            raise ValueError(f"{path}: expected numbers in {name}, got {kind}")
        if name not in numbers and not (is_text or pa.types.is_integer(plain)):
            raise ValueError(f"{path}: expected text or integers in {name}, got {kind}")
        texts += [name] if name not in numbers and is_text and len(columns) == 3 else []
    first = 0
    try:
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                if batch.num_rows:
                    yield first, batch.select(columns)
                first += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: expected a readable Parquet file, got {error}") from error
    if not first:
        raise ValueError(f"{path}: expected rollouts, got none")


def _csv_batches(path: Path, columns: list[str], notes: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    types = dict(zip(columns, (pa.string(), pa.float64(), pa.float64()), strict=True))
    first = 1
    try:
        # The header alone: a missing column is not to be found after everything was read.
        with path.open("rb") as file:
            header = file.readline()
            file.seek(-1, os.SEEK_END)
            if file.read() not in (b"\n", b"\r"):
                notes.append(f"The last line of {path.name} has no end; if the file was cut off, its reward is wrong.")
        if not header.strip():
            raise ValueError(f"{path}: expected a header and rollouts, got an empty file")
        _require(path, columns, pa.csv.read_csv(pa.BufferReader(header)).column_names)
        options = pa.csv.ConvertOptions(column_types=types, include_columns=columns)
        parsing = pa.csv.ParseOptions(newlines_in_values=True)
        reading = pa.csv.ReadOptions(block_size=BLOCK_BYTES)
        with pa.csv.open_csv(path, reading, parsing, options) as file:
            for batch in file:
                if batch.num_rows:
                    yield first, batch
                first += batch.num_rows
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a CSV file with {', '.join(columns)}, got {error}") from error
    if first == 1:
        raise ValueError(f"{path}: expected rollouts, got none")


def _json_batches(files: Sequence[Path], columns: list[str]) -> Iterator[tuple[Path, int, pa.RecordBatch]]:
    """Yield batches in order; blocks of the files are parsed by threads, a few of them ahead."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[tuple[Path, int, Future[pa.Table]]] = deque()
        try:
            for path, first, block in _numbered_blocks(files):
                waiting.append((path, first, pool.submit(_parsed, block, path, columns, first)))
                if len(waiting) > THREADS:
                    yield from _batches_of(*waiting.popleft())
            while waiting:
                yield from _batches_of(*waiting.popleft())
        finally:
            for *_, future in waiting:
                future.cancel()


def _batches_of(path: Path, first: int, future: Future[pa.Table]) -> Iterator[tuple[Path, int, pa.RecordBatch]]:
    for batch in future.result().combine_chunks().to_batches():
        yield path, first, batch


def _parsed(block: bytes, path: Path, columns: list[str], first: int) -> pa.Table:
    schema = pa.schema(list(zip(columns, (pa.string(), pa.float64(), pa.float64()), strict=True)))
    parsing = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    reading = pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1)
    try:
        table = pa.json.read_json(pa.BufferReader(block), reading, parsing)
    except pa.ArrowException as error:
        _find_damage(block, path, columns, first)
        raise ValueError(f"{path}: expected JSON lines with {', '.join(columns)}, got {error}") from error
    numbers = [table.column(name) for name in columns[1:]]
    finite = all(pc.all(pc.is_finite(x)).as_py() for x in numbers if not x.null_count)
    if table.num_rows != _num_lines(block) or not finite or any(x.null_count for x in table.columns):
        _find_damage(block, path, columns, first)
    return table.select(columns)


def _num_lines(block: bytes) -> int:
    return block.count(b"\n") + (not block.endswith(b"\n"))


def _numbered_blocks(files: Sequence[Path]) -> Iterator[tuple[Path, int, bytes]]:
    """Yield (file, number of the first line, block)."""
    for path in files:
        first = 1
        for block in _blocks(path):
            yield path, first, block
            first += _num_lines(block)
        if first == 1:
            raise ValueError(f"{path}: expected rollouts, got an empty file")


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield the file in blocks of whole lines."""
    rest = b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(BLOCK_BYTES):
                end = chunk.rfind(b"\n") + 1
                if end:
                    yield rest + chunk[:end]
                    rest = chunk[end:]
                else:
                    rest += chunk
    except OSError as error:
        raise ValueError(f"{path}: expected a readable file, got {error}") from error
    if rest:
        yield rest


def _find_damage(block: bytes, path: Path, columns: Sequence[str], first: int) -> None:
    """Raise for the first line that is no JSON object with text and two finite numbers; slow, for suspect blocks."""
    for number, line in enumerate(block.split(b"\n"), first):
        if not line.strip():
            continue
        record = _json_line(line, path, number)
        for name, kinds in zip(columns, ((str,), (int, float), (int, float)), strict=True):
            value = record.get(name)
            fits = isinstance(value, kinds) and not isinstance(value, bool)
            if not fits or (isinstance(value, float) and not math.isfinite(value)):
                what = "text" if kinds == (str,) else "a number"
                raise ValueError(f"{path}: expected {what} as {name} in line {number}, got {json.dumps(value)[:80]}")


def _json_line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON in line {number}, got {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected a JSON object in line {number}, got {type(record).__name__}")
    return record


def _read_allocation(path: Path, tally: Tally) -> None:
    """Read our record, a line per step; while a run goes on, its last line may be unfinished."""
    lines = read_allocation(path)
    if not lines:
        raise ValueError(f"{path}: expected rollouts, got none")
    for line in lines:
        counts, successes = (np.array(line[name], dtype=np.int64) for name in ("counts", "successes"))
        some = counts > 0
        kept = [key for key, one in zip(line["keys"], some.tolist(), strict=True) if one]
        tally.add_groups(line["step"], kept, counts[some], successes[some])
