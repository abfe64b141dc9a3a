"""Tables in Parquet, JSON and CSV as records, and errors that say what is wrong with which line or row of a file.

DAPO-Math-17k's file is 1.8 million rows of 17 thousand problems; copies are folded batch by batch, so that it is read
in modest memory.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from theory.base.files import opened, parse_json, read_bytes

BATCH_ROWS = 131_072
"""Rows of a Parquet file in memory at a time."""

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")


class Record(NamedTuple):
    """Equal rows of a table: number of the first, how many, and their values by column."""

    number: int
    copies: int
    values: Mapping[str, Any]


def read_records(path: Path, wanted: Callable[[Sequence[str]], Sequence[str]]) -> Iterator[Record]:
    """Yield the rows of a file, of which `wanted` are the columns that a Parquet file is read for.

    A damaged file, one of another format, and a row that is no object are a `ValueError` that names the file and, if
    possible, the line or row.
    """
    try:
        if path.suffix == ".parquet":
            yield from _read_parquet(path, wanted)
        else:
            _require_text(path)
            rows = _read_csv(path) if path.suffix == ".csv" else _read_json(path)
            yield from (Record(number, 1, row) for number, row in enumerate(rows))
    except OSError as error:
        raise ValueError(f"{path}: expected a readable file, got {error}") from error


def shown(value: Any, length: int = 80) -> str:
    """Return a value for a message, cut to a length; one that is nested too deeply to be shown is only named."""
    try:
        return f"{value!r:.{length}}"
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"


# What a file is


_STARTS = {
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a file compressed by gzip: unpack it first",
    b"PK\x03\x04": "a ZIP archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "a file compressed by zstd: unpack it first",
    b"BZh": "a file compressed by bzip2: unpack it first",
    b"\xfd7zXZ": "a file compressed by xz: unpack it first",
    b"ARROW1": "an Arrow file",
    b"\xff\xfe": "text in UTF-16: save it in UTF-8",
    b"\xfe\xff": "text in UTF-16: save it in UTF-8",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file: run git lfs pull, or download it",
}


def _looks_like(path: Path) -> str | None:
    """Return what a file is by its first bytes, or None for text that may be JSON or CSV."""
    with opened(path) as file:
        start = file.read(2**10)
    for first, what in _STARTS.items():
        if start.startswith(first):
            return what
    if b"\0" in start:
        zeros = start[0:64:2].count(0), start[1:64:2].count(0)
        return "text in UTF-16: save it in UTF-8" if max(zeros) > 20 > 2 * min(zeros) else "bytes that are no text"
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page, such as a server's error"
    return None


def _require_text(path: Path) -> None:
    if (what := _looks_like(path)) is not None:
        raise ValueError(f"{path}: expected a {path.suffix} file in UTF-8, got {what}")


# Parquet


def _read_parquet(path: Path, wanted: Callable[[Sequence[str]], Sequence[str]]) -> Iterator[Record]:
    _require_parquet(path)
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _require_distinct(path, names)
            columns = list(wanted(names))
            first = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                rows = _folded(batch, first)
                yield from _listed(path, batch, first) if rows is None else rows
                first += batch.num_rows
    except (OSError, pa.ArrowException, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: expected a Parquet file that pyarrow can read, got {error!s:.200}") from error


def _listed(path: Path, batch: pa.RecordBatch, first: int) -> list[Record]:
    spelt = pa.RecordBatch.from_arrays([_as_spelt(x) for x in batch.columns], batch.schema.names)
    try:
        return [Record(number, 1, row) for number, row in enumerate(spelt.to_pylist(), first)]
    except (ValueError, OverflowError, RecursionError) as error:  # such as a date that Python does not have
        types = ", ".join(f"{x.name} ({x.type!s:.40})" for x in batch.schema)
        raise ValueError(f"{path}: expected columns of text or numbers, got {types:.200}: {error!s:.80}") from error


def _require_parquet(path: Path) -> None:
    with opened(path) as file:
        start = file.read(4)
        size = file.seek(0, io.SEEK_END)
        file.seek(max(size - 4, 0))
        end = file.read(4)
    if not size:
        raise ValueError(f"{path}: expected a Parquet file, got an empty one")
    if start not in (b"PAR1", b"PARE"):
        what = _looks_like(path) or f"other content, which begins with {start!r}"
        raise ValueError(f"{path}: expected a Parquet file, got {what}")
    if size < 12 or end != start:
        raise ValueError(f"{path}: expected a whole Parquet file, got one that was cut off or whose end is damaged")


def _folded(batch: pa.RecordBatch, first: int) -> list[Record] | None:
    """Return the rows of a batch in verl's schema, equal ones once; None for other types, and for other messages."""
    if set(batch.schema.names) != {"prompt", "reward_model"}:
        return None
    texts, reward = batch.column("prompt"), batch.column("reward_model")
    listed = pa.types.is_list(texts.type) or pa.types.is_large_list(texts.type)
    if listed:
        fields = [x.name for x in texts.type.value_type] if pa.types.is_struct(texts.type.value_type) else []
        if sorted(fields) != ["content", "role"]:
            return None
        if not pc.all(pc.fill_null(pc.equal(pc.list_value_length(texts), 1), False)).as_py():
            return None
        messages = pc.list_flatten(texts)
        roles = pc.struct_field(messages, "role")
        if not _is_text(roles) or not pc.all(pc.fill_null(pc.equal(roles, "user"), False)).as_py():
            return None
        texts = pc.struct_field(messages, "content")
    if not pa.types.is_struct(reward.type) or [x.name for x in reward.type].count("ground_truth") != 1:
        return None
    answers = pc.struct_field(reward, "ground_truth")
    if not _is_text(texts) or not _is_text(answers):
        return None
    numbers = pa.array(range(first, first + batch.num_rows), pa.int64())
    table = pa.table({"prompt": texts, "answer": answers, "number": numbers})
    folded = table.group_by(["prompt", "answer"]).aggregate([("number", "min"), ("number", "count")])
    rows = []
    for row in folded.sort_by("number_min").to_pylist():
        prompt = [{"role": "user", "content": row["prompt"]}] if listed else row["prompt"]
        values = {"prompt": prompt, "reward_model": {"ground_truth": row["answer"]}}
        rows.append(Record(row["number_min"], row["number_count"], values))
    return rows


def _is_text(values: pa.Array) -> bool:
    return bool(pa.types.is_string(values.type) or pa.types.is_large_string(values.type))


def _as_spelt(values: pa.Array) -> pa.Array:
    """Return float32 as the float64 that is spelt alike, wherever it is: 0.1, not 0.10000000149."""
    if (text := _with_floats(values.type, pa.string())) == values.type:
        return values
    return values.cast(text).cast(_with_floats(values.type, pa.float64()))


def _with_floats(old: pa.DataType, new: pa.DataType) -> pa.DataType:
    """Return a type with another one in place of float32 and float16."""
    if old in (pa.float32(), pa.float16()):
        return new
    if pa.types.is_struct(old):
        return pa.struct([field.with_type(_with_floats(field.type, new)) for field in old])
    if pa.types.is_map(old):
        return pa.map_(old.key_type, _with_floats(old.item_type, new))
    if pa.types.is_list(old):
        return pa.list_(_with_floats(old.value_type, new))
    if pa.types.is_large_list(old):
        return pa.large_list(_with_floats(old.value_type, new))
    if pa.types.is_fixed_size_list(old):
        return pa.list_(_with_floats(old.value_type, new), old.list_size)
    return old


# CSV


def _read_csv(path: Path) -> Iterator[Mapping[str, str]]:
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}: line {line}: expected text in UTF-8, got {error}") from error
    if text and not text.endswith(("\n", "\r")):
        raise ValueError(
            f"{path}: expected a line end after the last line, got a last line without an end: if the file was not cut "
            "off there, add one"
        )
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = next(table, [])
        _require_distinct(path, names)
        for fields in table:
            if not fields:
                continue
            if len(fields) != len(names):
                raise ValueError(
                    f"{path}: line {table.line_num}: expected {len(names)} fields as in the first line, got a line "
                    f"with {'more' if len(fields) > len(names) else 'fewer'}, {len(fields)}"
                )
            yield dict(zip(names, fields, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}: line {table.line_num}: expected readable CSV, got {error}") from error


# JSON


def _read_json(path: Path) -> Iterator[dict[str, Any]]:
    with opened(path) as file:
        start = file.read(2**16).removeprefix(b"\xef\xbb\xbf").lstrip()
        file.seek(0)
        if start.startswith(b"[") or path.suffix == ".json":
            yield from _elements(path, file.read())
            return
        for number, line in enumerate(file, 1):
            where = f"{path}: line {number}"
            if not (text := _decoded(line, where).strip()):
                continue
            try:
                value = _parsed(text, where)
            except ValueError:
                if number == 1 and text.startswith("{"):
                    _refuse_one_object(path, f"{text}\n{_decoded(file.read(), str(path))}")
                raise
            yield _object(value, where)


def _elements(path: Path, content: bytes) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON list, or of lines."""
    text = _decoded(content, str(path)).strip()
    if not text.startswith("["):
        yield from _objects(path, text)
        return
    scan, row, at = json.JSONDecoder(), 0, 1
    while True:
        at = _after_space(text, at)
        if row == 0 and text[at : at + 1] == "]":
            break
        where = f"{path}: row {row}"
        try:
            _, end = scan.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: expected readable JSON, got {error!s:.200}") from error
        yield _object(_parsed(text[at:end], where), where)
        at = _after_space(text, end)
        if text[at : at + 1] == "]":
            break
        if text[at : at + 1] != ",":
            raise ValueError(f"{where}: expected a comma or the list's end after it, got {text[at : at + 20]!r}")
        row, at = row + 1, at + 1
    if rest := text[at + 1 :].strip():
        raise ValueError(f"{path}: expected one JSON list, or an object a line, got {rest[:20]!r} after a list")


def _objects(path: Path, text: str) -> Iterator[dict[str, Any]]:
    """Yield the object of each line; one object over several lines is another layout."""
    lines = text.splitlines() if "\r" in text and "\n" not in text else text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            found = _object(_parsed(line, where), where)
        except ValueError:
            if number == 1:
                _refuse_one_object(path, text)
            raise
        if number == 1 and len(lines) == 1:
            _refuse_columns(path, found)
        yield found


def _refuse_one_object(path: Path, text: str) -> None:
    try:
        whole = parse_json(text, str(path))
    except ValueError:
        return
    if isinstance(whole, dict):
        _refuse_columns(path, whole)
        names = ", ".join(list(whole)[:5])
        raise ValueError(f"{path}: expected a list of objects, or an object a line, got one object ({names:.80})")


def _refuse_columns(path: Path, whole: Mapping[str, Any]) -> None:
    rows = any(isinstance(x, list) and x and isinstance(x[0], dict) for x in whole.values())
    if len(whole) > 1 and not rows and all(isinstance(x, (list, dict)) for x in whole.values()):
        kinds = "lists" if all(isinstance(x, list) for x in whole.values()) else "columns"
        names = ", ".join(list(whole)[:5])
        raise ValueError(
            f"{path}: expected a list of objects, or an object a line, got one object of {kinds} ({names:.80})"
        )


def _after_space(text: str, at: int) -> int:
    while text[at : at + 1].isspace():
        at += 1
    return at


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content.count(b"\n") > 1:
            line = content.count(b"\n", 0, error.start) + 1
            where = f"{where}: line {line}"
        raise ValueError(f"{where}: expected text in UTF-8, got {error}") from error


def _parsed(text: str, where: str) -> Any:
    try:
        return parse_json(text, where, parse_float=_exact)
    except ValueError as error:
        if text.lstrip()[:1] not in ("{", "[", '"'):
            raise ValueError(f"{where}: expected a JSON object, got {text[:40]!r}") from error
        raise


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")
        raise ValueError(f"{where}: expected a JSON object, got {kind}: {shown(value, 40)}")
    return value


def _exact(text: str) -> float | str:
    """Return a number of JSON, as its text if float64 would lose a digit."""
    try:
        same = math.isfinite(float(text)) and Decimal(repr(float(text))) == Decimal(text)
    except InvalidOperation:  # an exponent beyond what Decimal holds
        return text
    return float(text) if same else text


def _require_distinct(path: Path, names: Sequence[str]) -> None:
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        raise ValueError(f"{path}: expected each column once, got the column {twice[0]:.80} twice")
