"""Where problems come from: the known data sets, their files here or on the hub, and their rows, read as a stream.

DAPO-Math-17k's file is 1.8 million rows of 17 thousand problems; copies are folded batch by batch, so that it is read
in modest memory.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scale.data.text_keys import strip_template
from scale.text import last_boxed
from theory.base.files import parse_json

BATCH_ROWS = 65_536
"""Rows of a Parquet file in memory at a time."""

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")

PROBLEM_COLUMNS = ("problem", "question", "Problem", "Question")
ANSWER_COLUMNS = ("answer", "final_answer", "Answer", "expected_answer")
SOLUTION_COLUMNS = ("solution", "Solution")
"""Columns that hold a problem, its answer, or a solution with the answer in a box.

The first of them counts, and several answers must be equal."""

DETAIL_COLUMNS = ("level", "subject", "unique_id", "id", "year", "unit", "answer_type")
"""Columns that are kept, as text, in `extra_info`."""


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes
    ----------
    name : Our name of it: its `data_source`, and the name of its file.
    split : `train` or `test`.
    repository, files : Its repository on the hub, and patterns of its files there.
    rows : Numbers of rows that files of it are known to have, and what such a file is.
    problems, others : Number of different problems (texts), and what another known number would be.
    """

    name: str
    split: str
    repository: str
    files: tuple[str, ...]
    rows: Mapping[int, str]
    problems: int
    others: Mapping[int, str] = field(default_factory=dict)


_DAPO = {1_791_700: "the hub's file, 17,917 rows x 100", 17_917: "each row once", 17_398: "each problem once"}

DATASETS: Mapping[str, Dataset] = {
    x.name: x
    for x in (
        Dataset("aime24", "test", "HuggingFaceH4/aime_2024", ("data/train*",), {30: "AIME 2024", 960: "30 x 32"}, 30),
        Dataset("aime25", "test", "math-ai/aime25", ("*test*",), {30: "AIME 2025"}, 30),
        Dataset(
            "amc23", "test", "math-ai/amc23", ("*test*",), {40: "AMC 2023"}, 40, {83: "AMC 2022 and 2023 together"}
        ),
        Dataset("math500", "test", "HuggingFaceH4/MATH-500", ("test*",), {500: "MATH-500"}, 500),
        Dataset("minerva", "test", "math-ai/minervamath", ("*test*",), {272: "Minerva"}, 272),
        Dataset(
            "olympiadbench",
            "test",
            "Hothan/OlympiadBench",
            ("*OE_TO_maths_en_COMP*",),
            {674: "open-ended, text only, English, competition"},
            674,
            {675: "the file of Qwen2.5-Math's evaluation"},
        ),
        Dataset(
            "dapo-math-17k",
            "train",
            "BytedTsinghua-SIA/DAPO-Math-17k",
            ("data/*.parquet",),
            _DAPO,
            17_398,
        ),
    )
}
"""Known data sets by name, what is trained on last."""


class SourceRow(NamedTuple):
    """Equal rows of a source: problem, answer, number of the first, how many, and details of the first."""

    problem: str
    answer: str
    number: int
    copies: int
    details: dict[str, str]


# Files


def find_files(dataset: Dataset, source: Path | None, revision: str | None = None) -> tuple[list[Path], dict[str, Any]]:
    """Return the files of a data set and what they are, downloading them if no source is given.

    Parameters
    ----------
    source : A file, or a folder that holds a file `NAME.*` or a folder `NAME/` for the data set, such as a copy of its
        repository. None downloads from the hub.
    revision : Branch, tag or commit of the hub's repository.
    """
    if source is None:
        folder = _download(dataset, revision)
        files = [path for path in _data_files(folder, "**/*") if _matches(dataset, path.relative_to(folder))]
        where: dict[str, Any] = {"repository": dataset.repository, "commit": folder.name}
        if not files:
            raise ValueError(
                f"{dataset.name}: expected files {' or '.join(dataset.files)} in {dataset.repository}, got none; "
                "download its files yourself and give --source"
            )
        return files, where
    if not source.exists():
        raise ValueError(f"{source}: expected a file or folder with {dataset.name}, got none")
    if source.is_file():
        if source.suffix not in SUFFIXES:
            raise ValueError(f"{source}: expected a file of type {', '.join(SUFFIXES)}, got {source.suffix!r}")
        return [source], {}
    files = _data_files(source, f"{dataset.name}.*")
    if not files:
        folder = source / dataset.name
        every = _data_files(folder, "**/*")
        files = [path for path in every if _matches(dataset, path.relative_to(folder))] or every
    if not files:
        raise ValueError(
            f"{source}: expected {dataset.name}.parquet, .jsonl, .json or .csv, or a folder {dataset.name} of such "
            "files, got none"
        )
    if len({path.suffix for path in files}) > 1 or (files[0].parent == source and len(files) > 1):
        raise ValueError(
            f"{source}: expected one file for {dataset.name}, or files of one type, got "
            f"{', '.join(path.name for path in files)}"
        )
    return files, {}


def _data_files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.suffix in SUFFIXES and path.is_file())


def _matches(dataset: Dataset, path: Path) -> bool:
    return any(fnmatch(path.as_posix(), pattern) for pattern in dataset.files)


def _download(dataset: Dataset, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(
            f"{dataset.name}: expected --source FILE_OR_DIR, or the package huggingface_hub to download "
            f"{dataset.repository}, got neither: {error}"
        ) from error
    try:
        folder = snapshot_download(
            dataset.repository, repo_type="dataset", revision=revision, allow_patterns=list(dataset.files)
        )
    except Exception as error:  # of many kinds: no network, no such repository, no such revision, a broken download
        raise ValueError(
            f"{dataset.name}: expected to download {dataset.repository} from the hub, got {type(error).__name__}: "
            f"{str(error).strip().splitlines()[0][:200]}; without a network, download its files elsewhere and give "
            "--source FILE_OR_DIR"
        ) from error
    return Path(folder)


# Rows


def read_rows(path: Path) -> Iterator[SourceRow]:
    """Yield the rows of a file; equal rows of a Parquet file in verl's schema are folded within a batch.

    Two schemas are read: verl's (`prompt`, `reward_model.ground_truth`), whose prompts may carry the DAPO template, and
    plain columns (`PROBLEM_COLUMNS`, and `ANSWER_COLUMNS` or `SOLUTION_COLUMNS`).
    A file that is empty, cut off or of another schema, or a row without problem or answer, is a `ValueError`.
    """
    rows = 0
    for row in _read_parquet(path) if path.suffix == ".parquet" else _read_text(path):
        rows += row.copies
        try:
            "".join((row.problem, row.answer, *row.details.values())).encode()
        except UnicodeEncodeError as error:  # JSON may have half of a surrogate pair, which no file of ours can hold
            raise ValueError(f"{path}: row {row.number}: expected texts in Unicode, got {error}") from error
        yield row
    if not rows:
        raise ValueError(f"{path}: expected at least one row, got none")


def _read_parquet(path: Path) -> Iterator[SourceRow]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _require_distinct(names)
            convert = _converter(path, names)
            if convert is None:
                yield from _read_verl(path, file)
                return
            first = 0
            columns = [
                name
                for name in names
                if name in (*PROBLEM_COLUMNS, *ANSWER_COLUMNS, *SOLUTION_COLUMNS, *DETAIL_COLUMNS, "context")
            ]
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                for number, row in enumerate(batch.to_pylist(), first):
                    yield convert(number, row)
                first += batch.num_rows
    except (OSError, ValueError, pa.ArrowException) as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: expected a whole Parquet file, got {error}") from error


def _read_verl(path: Path, file: pq.ParquetFile) -> Iterator[SourceRow]:
    """Yield the rows of a Parquet file in verl's schema, equal ones of a batch once."""
    schema = file.schema_arrow
    prompt, reward = schema.field("prompt").type, schema.field("reward_model").type
    listed = pa.types.is_list(prompt) or pa.types.is_large_list(prompt)
    fields = [x.name for x in prompt.value_type] if listed and pa.types.is_struct(prompt.value_type) else []
    if not pa.types.is_string(prompt) and not {"role", "content"} <= set(fields):
        raise ValueError(f"{path}: expected prompt as chat messages (role, content) or a text, got {prompt}")
    if not pa.types.is_struct(reward) or "ground_truth" not in [x.name for x in reward]:
        raise ValueError(f"{path}: expected reward_model with a ground_truth, got {reward}")
    first = 0
    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=["prompt", "reward_model"]):
        texts = batch.column("prompt")
        if listed:
            if not pc.all(pc.fill_null(pc.equal(pc.list_value_length(texts), 1), False)).as_py():
                raise ValueError(f"{path}: expected prompts of one message, a user's, got another number of messages")
            messages = pc.list_flatten(texts)
            if not pc.all(pc.fill_null(pc.equal(pc.struct_field(messages, "role"), "user"), False)).as_py():
                raise ValueError(f"{path}: expected prompts of one message, a user's, got another role")
            texts = pc.struct_field(messages, "content")
        answers = pc.struct_field(batch.column("reward_model"), "ground_truth")
        numbers = pa.array(range(first, first + batch.num_rows), pa.int64())
        table = pa.table({"problem": texts, "answer": answers, "number": numbers})
        folded = table.group_by(["problem", "answer"]).aggregate([("number", "min"), ("number", "count")])
        for row in folded.sort_by("number_min").to_pylist():
            where = f"{path}: row {row['number_min']}"
            problem, answer = _problem(where, row["problem"]), _answer(where, row["answer"])
            yield SourceRow(problem, answer, row["number_min"], row["number_count"], {})
        first += batch.num_rows


def _read_text(path: Path) -> Iterator[SourceRow]:
    """Yield the rows of a JSON or CSV file, whose values are taken as they are spelt."""
    convert: Callable[[int, Mapping[str, Any]], SourceRow] | None = None
    names: frozenset[str] = frozenset()
    for number, row in enumerate(_mappings(path)):
        if convert is None or names != row.keys():  # another column may hold another answer
            convert, names = _converter(path, list(row)) or _verl_row(path), frozenset(row)
        yield convert(number, row)


def _mappings(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                content = file.read()
                if content and not content.endswith(("\n", "\r")):
                    raise ValueError("a last line without an end, as of a file that was cut off")
                table = csv.DictReader(io.StringIO(content), strict=True)
                _require_distinct(table.fieldnames or ())
                for row in table:
                    if None in row or None in row.values():
                        raise ValueError("a line with more or fewer fields than the first")
                    yield row
                return
            start = file.read(2**10).lstrip()[:1]
            file.seek(0)
            listed = start == "["
            for record in parse_json(file.read(), str(path), parse_float=_as_spelt) if listed else _lines(path, file):
                if not isinstance(record, dict):
                    raise ValueError(f"{type(record).__name__} in place of an object")
                yield record
    except (OSError, ValueError, csv.Error) as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: expected a whole {path.suffix} file, got {error}") from error


def _lines(path: Path, file: Iterable[str]) -> Iterator[Any]:
    for number, line in enumerate(file, 1):
        if line.strip():
            yield parse_json(line, f"{path}: line {number}", parse_float=_as_spelt)


def _require_distinct(names: Sequence[str]) -> None:
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        raise ValueError(f"the column {twice[0]:.80} twice")


def _as_spelt(text: str) -> float | str:
    """Return a number of JSON, as its text if float64 would lose a digit."""
    return float(text) if Decimal(repr(float(text))) == Decimal(text) else text


def _converter(path: Path, names: list[str]) -> Callable[[int, Mapping[str, Any]], SourceRow] | None:
    """Return what makes rows of plain columns, or None for verl's schema."""
    if {"prompt", "reward_model"} <= set(names):
        return None
    problem = next((name for name in PROBLEM_COLUMNS if name in names), None)
    answers = [name for name in ANSWER_COLUMNS if name in names]
    answer = answers[0] if answers else None
    solution = next((name for name in SOLUTION_COLUMNS if name in names), None)
    if problem is None or (answer is None and solution is None):
        raise ValueError(
            f"{path}: expected verl's columns prompt and reward_model, or a problem ({', '.join(PROBLEM_COLUMNS)}) and "
            f"its answer ({', '.join(ANSWER_COLUMNS)}) or a solution with a box ({', '.join(SOLUTION_COLUMNS)}), got "
            f"{', '.join(names)}"
        )

    def convert(number: int, row: Mapping[str, Any]) -> SourceRow:
        where = f"{path}: row {number}"
        text = _text(where, problem, row.get(problem))
        context = row.get("context")
        if isinstance(context, str) and context.strip():
            text = f"{context}\n{text}"
        if answer is None:
            worked = _text(where, str(solution), row.get(str(solution)))
            value = last_boxed(worked)
            if value is None:
                raise ValueError(f"{where}: expected a solution with \\boxed{{...}}, got {worked[-80:]!r}")
        else:
            value = row.get(answer)
            for other in answers[1:]:
                if row.get(other) != value:
                    got = f"{answer} {value!r:.40} and {other} {row.get(other)!r:.40}"
                    raise ValueError(f"{where}: expected one answer, got {got}")
        details = {name: str(row[name]) for name in DETAIL_COLUMNS if row.get(name) not in (None, "")}
        return SourceRow(text, _answer(where, value), number, 1, details)

    return convert


def _verl_row(path: Path) -> Callable[[int, Mapping[str, Any]], SourceRow]:
    def convert(number: int, row: Mapping[str, Any]) -> SourceRow:
        where = f"{path}: row {number}"
        prompt, reward = row.get("prompt"), row.get("reward_model")
        if isinstance(prompt, list):
            if len(prompt) != 1 or not isinstance(prompt[0], dict) or prompt[0].get("role") != "user":
                raise ValueError(f"{where}: expected a prompt of one message, a user's, got {prompt!r:.80}")
            prompt = prompt[0].get("content")
        if not isinstance(reward, dict):
            raise ValueError(f"{where}: expected reward_model with a ground_truth, got {reward!r:.80}")
        return SourceRow(_problem(where, prompt), _answer(where, reward.get("ground_truth")), number, 1, {})

    return convert


def _problem(where: str, prompt: Any) -> str:
    text = _text(where, "prompt", prompt)
    try:
        return strip_template(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _text(where: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: expected a text as {name}, got {value!r:.80}")
    return value


def _answer(where: str, value: Any) -> str:
    """Return an answer as text: a finite number in its shortest form, several answers joined by commas."""
    if isinstance(value, list) and value:
        return ", ".join(_answer(where, x) for x in value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    return _text(where, "answer", value).strip()
