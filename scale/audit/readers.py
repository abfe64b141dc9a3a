"""Rollout logs of any run, read as groups: verl's and TRL's dumps, tables, and our own record of allocations.

Everything ends as counts by (step, prompt). Rollouts pass by in batches and are never held as Python objects, so that
ten million of them need no more memory than their distinct prompts and groups. The file is long because every format is
damaged in its own way, and the message must name the line.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from scale.run.records import ALLOCATION_LOG, read_lines
from theory.base.arrays import FloatArray, IntArray

FORMATS = ("csv", "parquet", "jsonl", "verl", "trl", "allocation")
"""Tables with a row per rollout; verl's `trainer.rollout_data_dir`; TRL's `log_completions`; our `allocation.jsonl`."""

SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl"}

BATCH_ROWS, BLOCK_BYTES = 2**18, 2**25

THREADS = min(8, os.cpu_count() or 1)
"""Blocks of JSON that are parsed at a time; Arrow reads CSV and Parquet by threads of its own."""

MOST_LISTED = 5
"""Values and names listed in a message, at most."""


class Columns(NamedTuple):
    """Names of the columns; None is the format's own."""

    prompt: str | None = None
    step: str | None = None
    reward: str | None = None


@dataclass(frozen=True)
class Log:
    """A log as groups, in the order of steps, and within a step of the log.

    Attributes
    ----------
    format
        One of `FORMATS`.
    files
        What was read.
    prompts
        Text or key of each prompt, [P].
    step, prompt, attempts, successes
        Step, index of the prompt, rollouts and successes of each group, [G].
    rewards
        What counted as wrong and what as right, in words.
    notes
        What a reader of the results should know about the reading.
    """

    format: str
    files: tuple[Path, ...]
    prompts: tuple[str, ...]
    step: IntArray
    prompt: IntArray
    attempts: IntArray
    successes: IntArray
    rewards: str
    notes: tuple[str, ...]


def read(
    paths: Sequence[Path],
    format: str = "auto",
    columns: Columns | None = None,
    success: float | None = None,
    told: Callable[[int], None] = lambda rollouts: None,
) -> Log:
    """Read the log of one run.

    Parameters
    ----------
    paths
        Files, or folders of files of one kind.
    format
        One of `FORMATS`, or "auto": by suffix and content.
    columns
        Names of columns, where they are not the format's own.
    success
        Rewards of at least this are successes; by default rewards must have two values, the larger of which is.
    told
        Called with the number of rollouts read so far.

    Raises
    ------
    ValueError
        If a file is missing, empty, damaged, of another format than the first or without a column, or a value is
        missing or of the wrong type; the message names the file, and the line or row.
    """
    files = _files(paths)
    kinds = {path: _kind(path) if format == "auto" else format for path in files}
    kind = kinds[files[0]]
    for path, other in kinds.items():
        if other != kind:
            raise ValueError(f"{path}: expected the format of {files[0]}, {kind}, got {other}; one call reads one run")
    tally = _Tally(success, told)
    if kind == "allocation":
        for path in files:
            _read_allocation(path, tally)
    else:
        own = {"verl": Columns("input", "step", "score")}.get(kind, Columns("prompt", "step", "reward"))
        wanted = Columns(*(given or name for given, name in zip(columns or Columns(), own, strict=True)))
        if kind == "trl" and (columns is None or columns.reward is None):
            wanted = wanted._replace(reward=_trl_reward(files[0]))
        tally.once = kind in ("verl", "trl")
        for path, first, batch in _batches(files, kind, wanted, tally):
            tally.add(batch, first, path, wanted)
    return tally.log(kind, tuple(files))


@dataclass
class _Tally:
    """Counts by (step, prompt), batch after batch."""

    success: float | None
    told: Callable[[int], None]
    ids: dict[str, int] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    parts: list[pa.Table] = field(default_factory=list)
    rollouts: int = 0
    path_of_step: dict[int, Path] = field(default_factory=dict)
    digests: dict[bytes, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    once: bool = False
    """Whether all of a step is in one file."""

    def repeats(self, path: Path, prompt: str) -> bool:
        """Whether the file has the very completions of an earlier one, as TRL writes when it trains on them twice."""
        digest = hashlib.blake2b()
        for _, batch in _parquet_batches(path, [prompt, "completion"], {}):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as stream:
                stream.write_batch(batch)
            digest.update(sink.getvalue())
        first = self.digests.setdefault(digest.digest(), path)
        if first != path:
            self.notes.append(f"{path.name} has the very completions of {first.name}; they are counted once.")
        return first != path

    def add(self, batch: pa.RecordBatch, first: int, path: Path, names: Columns) -> None:
        """Count a batch whose rows are numbered from `first` in the file."""
        prompt, step, reward = (batch.column(i) for i in range(3))
        unit = "line" if path.suffix == ".jsonl" else "row"
        for name, column in zip(names, (prompt, step, reward), strict=True):
            if column.null_count:
                row = first + int(pc.index(column.is_null(), pa.scalar(True)).as_py())
                raise ValueError(f"{path}: expected {name} in every {unit}, got none in {unit} {row}")
        t = _whole(step, path, str(names.step), first, unit)
        r = reward.cast(pa.float64()).to_numpy(zero_copy_only=False)
        if not np.isfinite(r).all():
            at = int(np.argmin(np.isfinite(r)))
            raise ValueError(f"{path}: expected finite numbers in {names.reward}, got {r[at]} in {unit} {first + at}")
        coded = prompt if pa.types.is_dictionary(prompt.type) else prompt.dictionary_encode()
        known: IntArray = np.array(
            [self._id(text) for text in coded.dictionary.cast(pa.string()).to_pylist()], dtype=np.int64
        )
        ids: IntArray = known[coded.indices.to_numpy(zero_copy_only=False)]
        self._count(t, ids, np.ones(t.size, dtype=np.int64), self._flags(r, path))
        self._steps(np.unique(t), path)

    def add_groups(self, step: int, keys: Iterable[str], attempts: IntArray, successes: IntArray, path: Path) -> None:
        """Add groups that are counts already."""
        ids = np.array([self._id(key) for key in keys], dtype=np.int64)
        self._count(np.full(ids.size, step), ids, attempts, successes)

    def _id(self, text: str) -> int:
        return self.ids.setdefault(text, len(self.ids))

    def _flags(self, rewards: FloatArray, path: Path) -> IntArray:
        """Return 1 for a success, or for the first of the two values as long as it is open which is the larger."""
        if self.success is not None:
            return np.asarray(rewards >= self.success, dtype=np.int64)
        if not self.values:
            self.values.append(float(rewards[0]))
        flags = rewards == self.values[0]
        others = np.unique(rewards[~flags]).tolist()
        new = [x for x in others if x not in self.values]
        if len(self.values) + len(new) > 2:
            found = sorted({*self.values, *new})
            shown = ", ".join(f"{x:g}" for x in found[:MOST_LISTED]) + (", ..." if len(found) > MOST_LISTED else "")
            raise ValueError(
                f"{path}: expected rewards of two values, right and wrong, got {shown}; name the least reward of a "
                "right response with --success"
            )
        self.values += new
        return np.asarray(flags, dtype=np.int64)

    def _count(self, t: Any, ids: IntArray, attempts: IntArray, flags: IntArray) -> None:
        row = np.arange(self.rollouts, self.rollouts + ids.size)
        rows = pa.table({"t": t, "i": ids, "n": attempts, "k": flags, "row": row})
        self.parts.append(_summed(rows))
        if sum(part.num_rows for part in self.parts[1:]) > 4 * BATCH_ROWS:
            self.parts = [_summed(pa.concat_tables(self.parts))]
        self.rollouts += int(attempts.sum())
        self.told(self.rollouts)

    def _steps(self, steps: IntArray, path: Path) -> None:
        if not self.once:
            return
        for step in steps.tolist():
            first = self.path_of_step.setdefault(step, path)
            if first != path:
                raise ValueError(
                    f"{path}: expected steps of its own, got step {step} of {first}; one call reads one run"
                )

    def log(self, kind: str, files: tuple[Path, ...]) -> Log:
        """Return everything counted, as groups."""
        if not self.rollouts:
            raise ValueError(f"{files[0]}: expected rollouts, got none")
        table = _summed(pa.concat_tables(self.parts)).sort_by([("t", "ascending"), ("row", "ascending")])
        t, i, n, k = (table.column(name).to_numpy() for name in ("t", "i", "n", "k"))
        said = "successes as counted in the log"
        if self.success is not None:
            said = f"a reward of at least {self.success:g} is a success"
        elif self.values:
            right = max(self.values) if len(self.values) == 2 else 1.0
            if len(self.values) == 1 and self.values[0] not in (0.0, 1.0):
                raise ValueError(
                    f"{files[0]}: expected rewards of two values, got {self.values[0]:g} only; name the least reward "
                    "of a right response with --success"
                )
            k = k if self.values[0] == right else n - k
            said = (
                f"rewards of {min(self.values):g} are wrong, of {right:g} right"
                if len(self.values) == 2
                else (f"all rewards are {self.values[0]:g}")
            )
        return Log(kind, files, tuple(self.ids), t, i, n, k, said, tuple(self.notes))


def _summed(rows: pa.Table) -> pa.Table:
    """Add up n and k by step and prompt, and keep the first row."""
    sums = rows.group_by(["t", "i"]).aggregate([("n", "sum"), ("k", "sum"), ("row", "min")])
    return sums.select(["t", "i", "n_sum", "k_sum", "row_min"]).rename_columns(["t", "i", "n", "k", "row"])


def _whole(column: pa.Array, path: Path, name: str, first: int, unit: str) -> IntArray:
    if pa.types.is_integer(column.type):
        found = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    else:
        x = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        whole = np.isfinite(x) & (np.abs(x) < 2.0**53) & (x % 1 == 0)
        if not whole.all():
            at = int(np.argmin(whole))
            raise ValueError(f"{path}: expected whole numbers in {name}, got {x[at]} in {unit} {first + at}")
        found = x.astype(np.int64)
    if found.min() < 0:
        at = int(np.argmin(found))
        raise ValueError(f"{path}: expected steps >= 0 in {name}, got {found[at]} in {unit} {first + at}")
    return np.asarray(found)


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += _in_folder(path)
        elif path.exists():
            found.append(path)
        else:
            raise ValueError(f"{path}: expected a file or a folder, got nothing of that name")
    twice = [path for path in found if found.count(path) > 1] if len(set(found)) < len(found) else []
    if twice:
        raise ValueError(f"{twice[0]}: expected every file once, got it {found.count(twice[0])} times")
    return found


def _in_folder(folder: Path) -> list[Path]:
    """Return a folder's log: our record, the dumps in it, or TRL's in `completions`."""
    if (folder / ALLOCATION_LOG).exists():
        return [folder / ALLOCATION_LOG]
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if not files and (folder / "completions").is_dir():
        return _in_folder(folder / "completions")
    suffixes = sorted({path.suffix for path in files})
    if len(suffixes) != 1:
        got = "none" if not files else " and ".join(suffixes)
        raise ValueError(f"{folder}: expected files of one kind, {', '.join(SUFFIXES)}, got {got}")
    return sorted(files, key=lambda path: (len(path.name), path.name))


def _kind(path: Path) -> str:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a file {', '.join(SUFFIXES)}, got {path.suffix!r}; name it with --format")
    kind = SUFFIXES[path.suffix]
    if kind == "parquet" and {"step", "prompt", "completion", "advantage"} <= set(_schema(path).names):
        return "trl"
    if kind == "jsonl":
        with path.open("rb") as file:
            line = next((text for text in file if text.strip()), b"")
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
    """Return the one column of a TRL file that can be a reward."""
    known = {"step", "prompt", "completion", "advantage"}
    numbers = [x.name for x in _schema(path) if x.name not in known and _is_number(x.type)]
    if len(numbers) != 1:
        got = ", ".join(numbers) or "none"
        raise ValueError(
            f"{path}: expected one reward column beside TRL's own, got {got}; name it with --reward-column"
        )
    return str(numbers[0])


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _batches(
    files: Sequence[Path], kind: str, names: Columns, tally: _Tally
) -> Iterator[tuple[Path, int, pa.RecordBatch]]:
    """Yield (file, number of the first row or line, batch of prompt, step and reward)."""
    columns = [str(name) for name in names]
    if len(set(columns)) < 3:
        raise ValueError(f"columns: expected three different ones, got {', '.join(columns)}")
    if kind in ("jsonl", "verl"):
        yield from _json_batches(files, columns)
        return
    for path in files:
        if kind == "csv":
            found = _csv_batches(path, columns)
        elif kind == "trl" and tally.repeats(path, columns[0]):
            continue
        else:
            found = _parquet_batches(path, columns, {columns[1]: "number", columns[2]: "number"})
        for first, batch in found:
            yield path, first, batch


def _require(path: Path, columns: Sequence[str], found: Sequence[str]) -> None:
    missing = [name for name in columns if name not in found]
    if missing:
        raise ValueError(
            f"{path}: expected the columns {', '.join(columns)}, got {', '.join(found) or 'none'}; name them with "
            "--prompt-column, --step-column and --reward-column"
        )


def _parquet_batches(path: Path, columns: list[str], numbers: dict[str, str]) -> Iterator[tuple[int, pa.RecordBatch]]:
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


def _csv_batches(path: Path, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    types = dict(zip(columns, (pa.string(), pa.float64(), pa.float64()), strict=True))
    first = 1
    try:
        # The header alone: a missing column is not to be found after everything was read.
        with path.open("rb") as file:
            header = file.readline()
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
    except (OSError, pa.ArrowException) as error:
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
    """Raise for the first line that is no JSON object with text and two finite numbers; slow, for suspects only."""
    for number, line in enumerate(block.split(b"\n"), first):
        if not line.strip():
            continue
        record = _json_line(line, path, number)
        for name, kinds in zip(columns, ((str,), (int, float), (int, float)), strict=True):
            value = record.get(name)
            known = isinstance(value, kinds) and not isinstance(value, bool)
            if not known or (isinstance(value, float) and not math.isfinite(value)):
                what = "text" if kinds == (str,) else "a number"
                raise ValueError(f"{path}: expected {what} as {name} in line {number}, got {json.dumps(value)[:80]}")


def _json_line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON in line {number}, got {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected a JSON object in line {number}, got {type(record).__name__}")
    return record


def _read_allocation(path: Path, tally: _Tally) -> None:
    """Read our record: a line per step; of a run that goes on, the last one may be unfinished."""
    if not path.exists():
        raise ValueError(f"{path}: expected a file, got nothing of that name")
    lines = read_lines(path)
    if not lines:
        raise ValueError(f"{path}: expected rollouts, got none")
    seen: set[int] = set()
    for number, line in enumerate(lines, 1):
        try:
            step, keys = line["step"], line["keys"]
            counts, successes = (np.array(line[name], dtype=np.int64) for name in ("counts", "successes"))
            valid = isinstance(step, int) and step >= 0 and all(isinstance(key, str) for key in keys)
            valid &= len(keys) == counts.size == successes.size > 0 and len(set(keys)) == len(keys)
            valid &= bool(np.all((successes >= 0) & (successes <= counts)))
            valid &= counts.tolist() == line["counts"] and successes.tolist() == line["successes"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: expected step, keys, counts and successes in line {number}, got {error!r}"
            ) from error
        if not valid or step in seen:
            what = f"step {step} twice" if valid else "others"
            raise ValueError(f"{path}: expected a new step and counts of one length in line {number}, got {what}")
        seen.add(step)
        some = counts > 0
        kept = [key for key, one in zip(keys, some.tolist(), strict=True) if one]
        tally.add_groups(step, kept, counts[some], successes[some], path)
