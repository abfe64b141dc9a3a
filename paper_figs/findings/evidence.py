"""What findings are computed from: rows of the ledger and summaries of sweeps, and words that follow from numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paper_figs.result_files import made_by, read_json
from theory.base import require, runs
from theory.base.files import check_fields
from theory.base.tables import Estimate
from theory.claims import Author, Verdict

ROW: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "claim", "said_by", "source", "regime", "verdict", "evidence"), (str,)),
    "numbers": (dict,),
    "by_construction": (bool,),
    "counterexample": (str, type(None)),
}
"""Fields of a row in `ledger.json`."""

NUMBERS = ("value", "low", "high", "difference", "difference_low", "difference_high", "difference_p")
"""Numbers of a row in a summary."""


def read_rows(source: Path) -> list[dict[str, Any]]:
    """Read the rows of `ledger/ledger.json` below a folder."""
    path = source / "ledger" / "ledger.json"
    command = f"python -m theory --json {path} --data {path.parent}"
    rows: list[dict[str, Any]] = read_json(path, {"rows": (list,)}, command)["rows"]
    with made_by(command):
        for row in rows:
            check_fields(row, ROW, f"{path}: row")
            try:
                require.one_of("said_by", row["said_by"], [author.value for author in Author])
                for name, number in row["numbers"].items():
                    require.in_range(name, number)
            except ValueError as error:
                raise ValueError(f"{path}: row {row['id']:.20}: {error}") from error
    return rows


class Missing(LookupError):
    """Results that a finding needs are not there, or are of runs too short for it."""


class Numbers(dict[str, float]):
    """Numbers of a row by name."""

    def __missing__(self, name: str) -> float:
        raise Missing(f"{name} of a row of the ledger")


class Evidence:
    """The ledger and the summaries of sweeps below a folder, each read when it is asked for, and once."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self._rows: dict[str, dict[str, Any]] = {}
        self._summaries: dict[str, list[dict[str, Any]]] = {}
        self.read: set[Path] = set()
        """Files that were read."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the ledger."""
        if not self._rows:
            self._rows = {row["id"]: row for row in read_rows(self.source)}
            self.read.add(self.source / "ledger" / "ledger.json")
        return list(self._rows.values())

    def numbers(self, row: str, verdict: Verdict) -> Mapping[str, float]:
        """Return the numbers of a row of the ledger with the verdict on which a finding's words rely."""
        self.rows()
        if row not in self._rows:
            raise Missing(f"row {row} of the ledger")
        if (found := self._rows[row]["verdict"]) != verdict.value:
            path = self.source / "ledger" / "ledger.json"
            raise ValueError(f"{path}: expected the verdict {verdict.value!r} on row {row}, got {found!r}")
        return Numbers(self._rows[row]["numbers"])

    def values(self, sweep: str, axis: str) -> list[str]:
        """Return the values of an axis, in order."""
        return list(dict.fromkeys(str(row[axis]) for row in self._rows_of(sweep)))

    def gain(self, sweep: str, measure: str = "pass_at_1", /, **axes: str) -> Estimate:
        """Return the gain of a cell over its reference, in points (hundredths)."""
        found = self._record(sweep, measure, axes)
        if found["difference"] is None:
            raise Missing(f"{sweep}: a difference of {', '.join(axes.values())}")
        return _estimate(found, NUMBERS[3:]).scaled(100)

    def measured(self, sweep: str, measure: str = "pass_at_1", /, **axes: str) -> Estimate:
        """Return what was measured of a cell."""
        return _estimate(self._record(sweep, measure, axes), NUMBERS[:3])

    def regime(self, sweep: str, bounds: bool = True, /, **axes: str) -> str:
        """Say under which settings a cell was trained; `bounds`: also those on a prompt's rollouts."""
        config = self._config(sweep, axes)
        optimizer = {"sgd": "", "adamw": "AdamW, "}.get(name := config["optimizer"]["name"], f"{name}, ")
        rate, aggregation = config["optimizer"]["learning_rate"], config["method"]["aggregation"]
        within = f" in [{config['rollouts_low']}, {config['rollouts_high']}]" if bounds else " on average"
        return (
            f"{optimizer}learning rate {rate:g}, {aggregation}, {config['rollouts']} rollouts{within}, "
            f"{config['num_seeds']} seeds"
        )

    def rate(self, sweep: str, /, **axes: str) -> float:
        """Return the learning rate of a cell."""
        return float(self._config(sweep, axes)["optimizer"]["learning_rate"])

    def visits(self, sweep: str, /, **axes: str) -> str:
        """Return how often a cell's run visits a prompt, on average."""
        config = self._config(sweep, axes)
        return f"{config['num_steps'] * config['batch_prompts'] / config['world']['num_prompts']:g}"

    def _config(self, sweep: str, axes: Mapping[str, str]) -> dict[str, Any]:
        record = self._record(sweep, "pass_at_1", axes)
        path = self.source / "toy" / sweep / record["cell"] / "config.json"
        self.read.add(path)
        command = f"python -m toy sweep {sweep}"
        config = read_json(path, dict.fromkeys(("optimizer", "method", "world"), (dict,)), command)
        counts = ("num_seeds", "num_steps", "batch_prompts", "rollouts", "rollouts_low", "rollouts_high")
        with made_by(command):
            check_fields(config, dict.fromkeys(counts, (int,)), str(path))
            check_fields(config["optimizer"], {"name": (str,), "learning_rate": (int, float)}, f"{path}: optimizer")
            check_fields(config["method"], {"aggregation": (str,)}, f"{path}: method")
            check_fields(config["world"], {"num_prompts": (int,)}, f"{path}: world")
        return config

    def has(self, sweep: str, measure: str, /, **axes: str) -> bool:
        """Return whether a cell has the measure, such as one of a step that its run does not reach."""
        return len(self._matches(sweep, measure, axes)) == 1

    def _matches(self, sweep: str, measure: str, axes: Mapping[str, str]) -> list[dict[str, Any]]:
        wanted = {"measure": measure, **axes}
        return [row for row in self._rows_of(sweep) if all(row.get(name) == x for name, x in wanted.items())]

    def _rows_of(self, sweep: str) -> list[dict[str, Any]]:
        if sweep not in self._summaries:
            self._summaries[sweep] = self._read_summary(self.source / "toy" / sweep)
        return self._summaries[sweep]

    def _read_summary(self, folder: Path) -> list[dict[str, Any]]:
        path, record = folder / "summary.parquet", folder / "summary.json"
        command = f"python -m toy sweep {folder.name} --out {folder.parent}"
        if not record.exists():
            raise Missing(command)
        with made_by(command):
            table = runs.read_table(path, runs.read_record(record, (path.name,))["files"], record)
            runs.select(table, path, numbers=("value",), numbers_or_null=NUMBERS[1:], texts=("cell", "measure"))
        self.read |= {path, record}
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def _record(self, sweep: str, measure: str, axes: Mapping[str, str]) -> dict[str, Any]:
        found = self._matches(sweep, measure, axes)
        if len(found) != 1:
            raise Missing(f"{sweep}: {measure} of {', '.join(axes.values())}")
        return found[0]


def _estimate(row: Mapping[str, Any], names: Sequence[str]) -> Estimate:
    numbers = [row[name] for name in names]
    return Estimate(*(math.nan if x is None else float(x) for x in numbers))
