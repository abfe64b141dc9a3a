"""Every problem of a data set once: copies merged, conflicts and other languages set apart, counts checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from scale.data.datasets import Dataset, find_files
from scale.data.layouts import SourceRow, read_rows
from scale.data.text_keys import LANGUAGES, answer_form, language, loose_form, prompt_key
from theory.base import require
from theory.base.files import hash_file


@dataclass
class CuratedProblem:
    """A problem, by its `key`, and its copies.

    Attributes
    ----------
    text, answer, number, details : As in its first row of the source.
    answers : Number of rows by answer, as spelt there.
    """

    key: str
    text: str
    answer: str
    number: int
    details: dict[str, str]
    answers: Counter[str] = field(default_factory=Counter)

    @property
    def copies(self) -> int:
        """Number of rows."""
        return self.answers.total()

    @property
    def conflicting(self) -> bool:
        """Whether its copies have different answers, other than in spelling."""
        return len({answer_form(x) for x in self.answers}) > 1


def merge(rows: Iterable[SourceRow]) -> tuple[list[CuratedProblem], int]:
    """Return every problem of a data set once, in the order of its first row, and the number of different texts.

    Examples
    --------
    >>> copies = [SourceRow("Find  x", "2", 0, 1, {}), SourceRow("Find x", "02", 1, 3, {})]
    >>> problems, texts = merge([*copies, SourceRow("Find y", "2", 4, 1, {})])
    >>> [(x.text, x.copies, x.conflicting) for x in problems], texts
    ([('Find  x', 4, False), ('Find y', 1, False)], 3)
    """
    problems: dict[str, CuratedProblem] = {}
    keys: dict[str, str] = {}  # by text: a text comes again in every batch of the source
    for row in rows:
        key = keys.get(row.problem)
        if key is None:
            key = keys[row.problem] = prompt_key(row.problem)
        if key not in problems:
            problems[key] = CuratedProblem(key, row.problem, row.answer, row.number, row.details)
        problems[key].answers[row.answer] += row.copies
    return list(problems.values()), len(keys)


@dataclass
class Prepared:
    """A data set, ready to be written.

    Attributes
    ----------
    problems, conflicts : Problems that are kept, and those dropped because their copies have different answers.
    counts : Rows read, and where they went.
    warnings : A sentence for every count that is not the known one, and for a request that no template has.
    sources : Files with their hashes, and the repository that they are from.
    unreadable : Right answers that the reward cannot read, by the problem's key; None if that was not looked for.
    overlap : Keys of problems that a benchmark has too, by benchmark.
    """

    dataset: Dataset
    problems: list[CuratedProblem]
    conflicts: list[CuratedProblem]
    counts: dict[str, int]
    warnings: list[str]
    sources: dict[str, Any]
    unreadable: dict[str, str] | None = None
    overlap: dict[str, list[str]] = field(default_factory=dict)


def prepare(
    dataset: Dataset,
    source: Path | None,
    *,
    keep: str = "all",
    revision: str | None = None,
    can_read: Callable[[str], bool] | None = None,
    drop_unreadable: bool = False,
) -> Prepared:
    """Read a data set and keep every problem of a language once; at least one must be left.

    Parameters
    ----------
    source, revision : As in `find_files`.
    keep : Language, one of `LANGUAGES`, or `all`.
    can_read : Whether the reward of the training can read a right answer; None if that cannot be found out here.
    drop_unreadable : Whether to leave out problems to train on whose right answer it cannot read; needs `can_read`.
    """
    if drop_unreadable and can_read is None:
        raise ValueError("drop_unreadable: expected Math-Verify, by which right answers are read, got none")
    require.one_of("language", keep, (*LANGUAGES, "all"))
    files, where = find_files(dataset, source, revision)
    every, texts = merge(_number(files))
    read = sum(x.copies for x in every)
    conflicts = [x for x in every if x.conflicting]
    agreed = [x for x in every if not x.conflicting]
    kept = [x for x in agreed if keep in ("all", language(x.text))]
    if not kept:
        raise ValueError(f"{dataset.name}: expected problems in the language {keep!r}, got none of {len(agreed)}")
    unreadable = None
    if can_read is not None:
        readable = {answer: can_read(answer) for answer in dict.fromkeys(x.answer for x in kept)}
        unreadable = {x.key: x.answer for x in kept if not readable[x.answer]}
    dropped = unreadable if unreadable and drop_unreadable and dataset.split == "train" else {}
    kept = [x for x in kept if x.key not in dropped]
    if not kept:
        raise ValueError(f"{dataset.name}: expected a right answer that can be read, got none of {len(dropped)}")
    counts = {
        "rows": read,
        "texts": texts,
        "problems": len(every),
        "duplicates": read - len(every),
        "conflicts": len(conflicts),
        "other_language": len(agreed) - len(kept) - len(dropped),
        "unreadable": len(dropped),
        "overlap": 0,
        "kept": len(kept),
    }
    # A file is identified by its name and hash, not by the folder it lay in.
    hashes = [{"name": path.name, "bytes": path.stat().st_size, "sha256": hash_file(path)} for path in files]
    warnings = check_counts(dataset, read, texts) + check_requests(dataset, [x.text for x in every])
    return Prepared(dataset, kept, conflicts, counts, warnings, where | {"files": hashes}, unreadable)


def _number(files: Iterable[Path]) -> Iterator[SourceRow]:
    first = 0
    for path in files:
        rows = 0
        for row in read_rows(path):
            yield row._replace(number=first + row.number)
            rows += row.copies
        first += rows


def check_counts(dataset: Dataset, rows: int, texts: int) -> list[str]:
    """Return a sentence for every count that is not the known one: of the source's rows, and of its different texts.

    Examples
    --------
    >>> from scale.data.datasets import DATASETS
    >>> check_counts(DATASETS["amc23"], 83, 83)[0]
    'amc23: expected 40 problems (math-ai/amc23), got 83: AMC 2022 and 2023 together'
    """
    if texts != dataset.problems:
        more = texts - dataset.problems
        what = dataset.others.get(texts, f"{abs(more):,} {'too many' if more > 0 else 'missing'}")
        return [f"{dataset.name}: expected {dataset.problems:,} problems ({dataset.repository}), got {texts:,}: {what}"]
    if rows not in dataset.rows:
        usual = ", ".join(f"{count:,} ({what})" for count, what in dataset.rows.items())
        return [f"{dataset.name}: expected a file of {usual} rows, got {rows:,}; its {texts:,} problems are as known"]
    return []


REQUEST_CHARACTERS, REQUEST_PROBLEMS = 20, 10
"""Characters that a request has at least, and problems among which it can be told from chance."""


def check_requests(dataset: Dataset, texts: Sequence[str]) -> list[str]:
    """Return a sentence for what most problems begin or end with: a request, perhaps, that no template of ours has.

    Examples
    --------
    >>> from scale.data.datasets import DATASETS
    >>> check_requests(DATASETS["aime25"], [f"Find {n}. Answer after four hashes." for n in range(10)])[0]
    "aime25: expected problems alone, got 10 of 10 that end with '. Answer after four hashes.', kept as part of them"
    """
    found = []
    for where, step in (("begin", 1), ("end", -1)):
        ordered = [text[::step] for text in texts]
        shared, count = Counter(text[:REQUEST_CHARACTERS] for text in ordered).most_common(1)[0]
        if len(shared) == REQUEST_CHARACTERS and count >= REQUEST_PROBLEMS and 2 * count > len(texts):
            alike = [text for text in ordered if text.startswith(shared)]
            pairs = zip(min(alike), max(alike), strict=False)  # what the first and the last share, all share
            request = "".join(x for x, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))[::step]
            got = f"{count:,} of {len(texts):,} that {where} with {request!r:.200}, kept as part of them"
            found.append(f"{dataset.name}: expected problems alone, got {got}")
    return found


def find_overlap(prepared: Prepared, benchmarks: Mapping[str, Iterable[str]], *, drop: bool) -> None:
    """Note in `prepared` the problems to train on that a benchmark has too; with `drop`, take them out.

    `benchmarks` holds texts of problems by benchmark; at least one problem must be left. Problems are compared by
    `scale.data.text_keys.loose_form`, which finds copies, not reworded problems.
    """
    forms: dict[str, list[str]] = {}
    for x in prepared.problems:
        forms.setdefault(loose_form(x.text), []).append(x.key)
    forms.pop("", None)
    for name, texts in benchmarks.items():
        prepared.overlap[name] = sorted({key for form in map(loose_form, texts) for key in forms.get(form, ())})
    if drop:
        shared = {key for keys in prepared.overlap.values() for key in keys}
        prepared.problems = [x for x in prepared.problems if x.key not in shared]
        prepared.counts["overlap"] = prepared.counts["kept"] - len(prepared.problems)
        prepared.counts["kept"] = len(prepared.problems)
        if not prepared.problems:
            many = prepared.counts["overlap"]
            raise ValueError(f"{prepared.dataset.name}: expected problems that no benchmark has, got none of {many}")
