"""Groups of a log: how many rollouts every prompt had in every step, and how many of them were right.

Rollouts pass by in batches and are never held as Python objects, so that ten million of them need no more memory than
their distinct prompts and groups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from theory.base.arrays import FloatArray, IntArray

MERGED_ROWS = 2**20
"""Counts of batches that may wait until they are added up."""

MOST_LISTED = 5


class Columns(NamedTuple):
    """Names of the columns; None is the format's own."""

    prompt: str | None = None
    step: str | None = None
    reward: str | None = None


@dataclass(frozen=True)
class Log:
    """A log as groups, ordered by step, and within a step by `blind_order` of the prompt.

    Attributes
    ----------
    format, files : One of `scale.audit.FORMATS`, and the files that were read.
    prompts : Text or key of each prompt, [P], by `blind_order`.
    step, prompt, attempts, successes : Step, index of the prompt, rollouts and successes of each group, [G].
    rewards : Which rewards counted as wrong and which as right, in words.
    notes : Sentences on what was left out while reading.
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


def blind_order(prompt: str) -> bytes:
    """Return a sort key of a prompt's text or key that cannot know its rewards, and is the same in every format.

    Rules place remainders and ties by order, and rows may be sorted by length or reward.
    """
    return hashlib.blake2b(prompt.encode(errors="surrogatepass"), digest_size=16).digest()


@dataclass
class Tally:
    """Counts by (step, prompt), batch after batch.

    Attributes
    ----------
    success : Rewards of at least this are successes; None: rewards have two values, and the larger one is a success.
    told : Called with the number of rollouts counted so far.
    steps_in_one_file : Whether a step that is in two files is an error.
    notes : As in `Log`.
    """

    success: float | None
    told: Callable[[int], None]
    steps_in_one_file: bool = False
    notes: list[str] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    parts: list[pa.Table] = field(default_factory=list)
    rollouts: int = 0
    path_of_step: dict[int, Path] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch, first: int, path: Path, names: Columns) -> None:
        """Count a batch whose rows are numbered from `first` in the file."""
        prompt, step, reward = (batch.column(i) for i in range(3))
        unit = "line" if path.suffix == ".jsonl" else "row"
        for name, column in zip(names, (prompt, step, reward), strict=True):
            if column.null_count:
                row = first + int(pc.index(column.is_null(), pa.scalar(True)).as_py())
                raise ValueError(f"{path}: expected {name} in every {unit}, got none in {unit} {row}")
        t = _whole_steps(step, path, str(names.step), first, unit)
        r = reward.cast(pa.float64()).to_numpy(zero_copy_only=False)
        if not np.isfinite(r).all():
            row = int(np.argmin(np.isfinite(r)))
            raise ValueError(f"{path}: expected finite numbers in {names.reward}, got {r[row]} in {unit} {first + row}")
        coded = prompt if pa.types.is_dictionary(prompt.type) else prompt.dictionary_encode()
        try:
            texts = coded.dictionary.cast(pa.string()).to_pylist()
        except (UnicodeDecodeError, pa.ArrowException) as error:
            raise ValueError(f"{path}: expected texts in {names.prompt}, got {error}") from error
        id_of_code: IntArray = np.array([self._id(text) for text in texts], dtype=np.int64)
        ids: IntArray = id_of_code[coded.indices.to_numpy(zero_copy_only=False)]
        self._count(t, ids, np.ones(t.size, dtype=np.int64), self._flags(r, path))
        if self.steps_in_one_file:
            for number in np.unique(t).tolist():
                other = self.path_of_step.setdefault(number, path)
                if other != path:
                    raise ValueError(
                        f"{path}: expected steps of its own, got step {number} of {other}; one call reads one run"
                    )

    def add_groups(self, step: int, keys: Iterable[str], attempts: IntArray, successes: IntArray) -> None:
        """Add groups that are counts already."""
        ids = np.array([self._id(key) for key in keys], dtype=np.int64)
        self._count(np.full(ids.size, step), ids, attempts, successes)

    def _id(self, text: str) -> int:
        return self.ids.setdefault(text, len(self.ids))

    def _flags(self, rewards: FloatArray, path: Path) -> IntArray:
        """Return 1 for a success; without a threshold 1 for the value that came first, which `log` may have to swap."""
        if self.success is not None:
            return np.asarray(rewards >= self.success, dtype=np.int64)
        if not self.values:
            self.values.append(float(rewards[0]))
        flags = rewards == self.values[0]
        others = np.unique(rewards[~flags]).tolist()
        new = [x for x in others if x not in self.values]
        if len(self.values) + len(new) > 2:
            every = sorted({*self.values, *new})
            shown = ", ".join(f"{x:g}" for x in every[:MOST_LISTED]) + (", ..." if len(every) > MOST_LISTED else "")
            raise ValueError(
                f"{path}: expected rewards of two values, right and wrong, got {shown}; name the least reward of a "
                "right response with --success"
            )
        self.values += new
        return np.asarray(flags, dtype=np.int64)

    def _count(self, t: Any, ids: IntArray, attempts: IntArray, flags: IntArray) -> None:
        self.parts.append(_summed(pa.table({"t": t, "i": ids, "n": attempts, "k": flags})))
        if sum(part.num_rows for part in self.parts[1:]) > MERGED_ROWS:
            self.parts = [_summed(pa.concat_tables(self.parts))]
        self.rollouts += int(attempts.sum())
        self.told(self.rollouts)

    def log(self, kind: str, files: tuple[Path, ...]) -> Log:
        """Return everything counted, as groups."""
        if not self.rollouts:
            raise ValueError(f"{files[0]}: expected rollouts, got none")
        table = _summed(pa.concat_tables(self.parts))
        t, i, n, k = (table.column(name).to_numpy() for name in ("t", "i", "n", "k"))
        texts = list(self.ids)
        seen = sorted(np.unique(i).tolist(), key=lambda number: blind_order(texts[number]))
        rank = np.zeros(len(texts), dtype=np.int64)
        rank[seen] = np.arange(len(seen))
        i = rank[i]
        order = np.lexsort((i, t))
        t, i, n, k = t[order], i[order], n[order], k[order]
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
        return Log(kind, files, tuple(texts[number] for number in seen), t, i, n, k, said, tuple(self.notes))


def _summed(rows: pa.Table) -> pa.Table:
    """Add up n and k by step and prompt."""
    sums = rows.group_by(["t", "i"]).aggregate([("n", "sum"), ("k", "sum")])
    return sums.select(["t", "i", "n_sum", "k_sum"]).rename_columns(["t", "i", "n", "k"])


def _whole_steps(column: pa.Array, path: Path, name: str, first: int, unit: str) -> IntArray:
    if pa.types.is_integer(column.type):
        steps = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    else:
        x = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        whole = np.isfinite(x) & (np.abs(x) < 2.0**53)
        whole[whole] = x[whole] % 1 == 0
        if not whole.all():
            row = int(np.argmin(whole))
            raise ValueError(f"{path}: expected whole numbers in {name}, got {x[row]} in {unit} {first + row}")
        steps = x.astype(np.int64)
    if steps.min() < 0:
        row = int(np.argmin(steps))
        raise ValueError(f"{path}: expected steps >= 0 in {name}, got {steps[row]} in {unit} {first + row}")
    return np.asarray(steps)
