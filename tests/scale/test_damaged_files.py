"""Every reader of scale, on damaged and hostile files: a `ValueError` that names the file, or what it held before.

A file with a checksum or a recorded hash is damaged as a disk would, at any bit, and written with a valid checksum as
an attacker would. Files of others have none: there a reader may return another value, but must raise nothing else.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scale import tiny
from scale.audit import read_log
from scale.data import prepare
from scale.evaluation import evaluate, exports, generate, planning, problems
from scale.run import records, reports
from tests.scale.audit.logs import write
from tests.scale.evaluation import made_runs
from tests.theory.fuzzing import DAMAGED
from theory.base.files import read_json, write_json

DEPTH = 100_000

ODD = {
    "null": "null",
    "true": "true",
    "text": '"x"',
    "list": "[]",
    "object": "{}",
    "negative": "-1",
    "fraction": "0.5",
    "beyond float64": "1e999",
    "NaN": "NaN",
    "huge": "9" * 400,
    "lone surrogate": '"\\udc00"',
}
"""What is put in the place of a value, in JSON."""

SEALED, LINES, FOREIGN, FOREIGN_LINES, BYTES = "sealed", "lines", "foreign", "foreign lines", "bytes"
"""Forms of files: JSON with a checksum, lines of it, JSON of others, lines of it, and anything else."""


@dataclass
class Reader:
    """A file, what reads it, its form, and whether any change of it must be seen."""

    path: Path
    read: Callable[[], Any]
    form: str
    exact: bool = True
    names: tuple[str, ...] = ()

    def named(self, message: str) -> bool:
        """Return whether a message names the file, or one of those that are read with it."""
        return any(name in message for name in self.names or (self.path.name,))


# The readers


def finished_run(folder: Path) -> Path:
    run = made_runs.run_folder(folder, "run")
    config = read_json(run / "config.json")
    config["trainer"]["total_training_steps"] = 4
    write_json(run / "config.json", config)
    for step in range(1, 5):
        records.Records(run).append(step, {"x": 0.5})
        records.Records(run).allocation(step, ["a", "b"], np.array([2, 3]), np.array([0, 3]))
    records.finish(run, 1.0)
    return run


def of_a_run(name: str, finished: bool = False) -> Callable[[Path], Reader]:
    def make(folder: Path) -> Reader:
        run = finished_run(folder)
        if not finished:
            (run / "versions.json").unlink()
        form = BYTES if name.endswith(".txt") else SEALED
        return Reader(run / name, lambda: exports.resolve_checkpoint(run), form, exact=finished or form == SEALED)

    return make


def state(folder: Path) -> Reader:
    from tests.scale.plugin.test_trainer import UIDS, torch, trainer

    made, path = trainer(folder), folder / "dynamo.json"
    made._learn_rates(UIDS, torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]), {})
    write_json(path, made.state_dict())

    def read() -> Any:
        again = trainer(folder)
        again.load_state_dict(read_json(path), path)
        return [x.tolist() for x in again.history.counts(["a", "b"])]

    return Reader(path, read, SEALED)


def in_flight(folder: Path) -> Reader:
    from scale.plugin.ahead import read_in_flight
    from scale.plugin.row_order import prompt_name

    path = folder / "in_flight.json"
    batches = {str(step): {prompt_name(step, row): [f"key{row}", 4 + row] for row in range(3)} for step in (7, 8)}
    write_json(path, {"batches": batches})
    return Reader(path, lambda: read_in_flight(path), SEALED)


def of_records(name: str) -> Callable[[Path], Reader]:
    def make(folder: Path) -> Reader:
        path = finished_run(folder) / name
        read = records.read_metrics if name == records.METRICS_LOG else records.read_allocation
        return Reader(path, lambda: read(path), LINES)

    return make


def finished(name: str) -> Callable[[Path], Reader]:
    """Read every file that a finished run vouches for."""

    def make(folder: Path) -> Reader:
        run = finished_run(folder)
        versions = (run / "versions.json").read_bytes()

        def read() -> None:
            records.reopen(run)
            (run / "versions.json").write_bytes(versions)

        return Reader(run / name, read, BYTES)

    return make


def audited(name: str) -> Callable[[Path], Reader]:
    """Read a log of a finished run, for the audit."""

    def make(folder: Path) -> Reader:
        run, dumps = folder / "run", folder / "run" / "rollouts"
        dumps.mkdir(parents=True)
        lines = [{"input": f"p{i // 2}", "output": "x", "score": float(i % 2), "step": 4} for i in range(8)]
        (dumps / "4.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        made = made_runs.run_folder(folder, "composed")
        config = read_json(made / "config.json")
        config["trainer"] |= {"total_training_steps": 1, "rollout_data_dir": str(dumps)}
        write_json(run / "config.json", config)
        records.Records(run).append(1, {"x": 0.5})
        records.Records(run).allocation(1, ["a", "b"], np.array([2, 3]), np.array([0, 3]))
        records.finish(run, 1.0)
        return Reader(run / name, lambda: read_log((run / name).parent if name[0] == "r" else run), BYTES)

    return make


def evaluation(folder: Path) -> tuple[planning.Item, Path]:
    arguments = made_runs.good(folder)
    made_runs.fill(arguments, lambda *_: {"correct": True})
    made_runs.command(*arguments)
    (item,) = planning.plan(made_runs.parsed(*arguments))[0]
    return item, folder / "out"


def settings(folder: Path) -> Reader:
    item, _ = evaluation(folder)
    return Reader(item.folder / planning.SETTINGS_FILE, item.changed_settings, SEALED)


def samples(folder: Path) -> Reader:
    item, _ = evaluation(folder)
    return Reader(item.folder / generate.SAMPLES_FILE, lambda: list(item.samples()), LINES)


def table(folder: Path) -> Reader:
    _, out = evaluation(folder)
    summary = {"evaluations": [], "k": [], "samples": 1}
    return Reader(out / "table.json", lambda: evaluate._lost(out, summary), SEALED)


def of_a_model(name: str, content: Any) -> Callable[[Path], Reader]:
    def make(folder: Path) -> Reader:
        export = made_runs.model(folder / "export")
        if content is not None:
            (export / name).write_text(json.dumps(content))
        spec = {"model": str(export), "gpus": 0, "dtype": "float32", "max_position_embeddings": 0}

        def read() -> Any:
            exports.resolve_checkpoint(export)
            exports.require_unchanged(export)
            return generate.engine_arguments(spec, 64)

        return Reader(export / name, read, BYTES if content is None else FOREIGN, exact=False)

    return make


def spec(folder: Path) -> Reader:
    path = folder / "spec.json"
    write_json(path, {"model": "m", "evaluations": [{"seed": 1, "samples": 2}]})
    return Reader(path, lambda: read_json(path), SEALED)


def prompts(name: str) -> Callable[[Path], Reader]:
    """Read what `prepare` made, by everything that reads it."""

    def make(folder: Path) -> Reader:
        from scale.launch import check_prompts

        data = prepared(folder)
        path = data / f"{tiny.SOURCE}.parquet"

        def read() -> Any:
            check_prompts(path, 1)
            return problems.read_problems(path), prepare.read_texts(path)

        return Reader(data / f"{tiny.SOURCE}{name}", read, SEALED if name.endswith(".json") else BYTES)

    return make


def foreign_prompts(folder: Path) -> Reader:
    from scale.launch import check_prompts

    path = made_runs.parquet(folder / "own.parquet", made_runs.rows("abc"))

    def read() -> Any:
        check_prompts(path, 1)
        return problems.read_problems(path)

    return Reader(path, read, BYTES, exact=False)


def prepared(folder: Path) -> Path:
    """Prepare the tiny source, with its manifest."""
    from scale.data.curate import prepare as curated
    from scale.data.datasets import DATASETS

    source = tiny.write_source(folder / "source")
    made = curated(DATASETS[tiny.SOURCE], source, can_read=None)
    prepare.write(made, "plain", folder / "data", {})
    return folder / "data"


def tiny_setting(name: str) -> Callable[[Path], Reader]:
    def make(folder: Path) -> Reader:
        place = folder / "tiny"
        if not place.exists():
            shutil.copytree(_tiny(), place)
        return Reader(place / name, lambda: tiny.make(place), SEALED if name.endswith(".json") else BYTES)

    return make


_made: list[Path] = []


def _tiny() -> Path:
    return _made[0]


@pytest.fixture(scope="module", autouse=True)
def _tiny_made(tmp_path_factory, request):
    """Make one tiny setting, with a short warm-up, for all cases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "RIGHT_STEPS", 2)
        patch.setattr(tiny, "UNSURE_STEPS", 2)
        folder = tmp_path_factory.mktemp("tiny") / "tiny"
        tiny.make(folder)
        _made[:] = [folder]
        yield


def progress(folder: Path) -> Reader:
    path = folder / reports.PROGRESS
    path.write_text(json.dumps({"step": 3, "time": 1.5, "reward": 0.5}))
    return Reader(path, lambda: reports.read_progress(folder), FOREIGN, exact=False)


def failure(folder: Path) -> Reader:
    path = folder / reports.FAILURES / "12-34.json"
    path.parent.mkdir()
    fields = {"where": "x", "type": "E", "message": "m", "traceback": "t", "pid": 3, "time": 1.0}
    path.write_text(json.dumps(fields))

    def read() -> Any:
        (found,) = reports.read_failures(folder)
        if found.where == "unknown part":  # a report that cannot be read is one, too
            raise ValueError(found.message)
        return found

    return Reader(path, read, FOREIGN, exact=False)


def log(kind: str) -> Callable[[Path], Reader]:
    """Read a log of any run, for the audit."""

    def make(folder: Path) -> Reader:
        rows = [(step, f"p{i}", float((i + step + j) % 2)) for step in (1, 2) for i in range(4) for j in range(4)]
        given = write(pd.DataFrame(rows, columns=["step", "prompt", "reward"]), kind, folder)
        path = next(x for x in sorted(given.rglob("*") if given.is_dir() else [given]) if x.is_file())
        form = {"jsonl": FOREIGN_LINES, "verl": FOREIGN_LINES, "allocation": LINES}.get(kind, BYTES)
        names = tuple(x.name for x in path.parent.iterdir())
        return Reader(path, lambda: read_log(given), form, exact=kind == "allocation", names=names)

    return make


EXPORT = "checkpoints/global_step_4/actor/huggingface"

READERS: dict[str, Callable[[Path], Reader]] = {
    "config.json": of_a_run("config.json"),
    "config.json of a finished run": of_a_run("config.json", finished=True),
    "versions.json": of_a_run("versions.json", finished=True),
    "number of the last checkpoint": of_a_run("checkpoints/latest_checkpointed_iteration.txt"),
    "dynamo.json": of_a_run("checkpoints/global_step_4/dynamo.json"),
    "dynamo.json, resumed": state,
    "in_flight.json": in_flight,
    "metrics.jsonl": of_records("metrics.jsonl"),
    "allocation.jsonl": of_records("allocation.jsonl"),
    "metrics.jsonl of a finished run": finished("metrics.jsonl"),
    "metrics.parquet of a finished run": finished("metrics.parquet"),
    "weights of a finished run": finished(f"{EXPORT}/model.safetensors"),
    "dumps of a finished run": audited("rollouts/4.jsonl"),
    "allocation.jsonl of a finished run": audited("allocation.jsonl"),
    "evaluation.json": settings,
    "samples.jsonl": samples,
    "table.json": table,
    "spec.json": spec,
    "config of a model": of_a_model("config.json", {"model_type": "qwen2", "max_position_embeddings": 128}),
    "index of weights": of_a_model(exports.INDEX, {"metadata": {}, "weight_map": {"w": "model.safetensors"}}),
    "tokenizer": of_a_model("tokenizer_config.json", {"chat_template": "x", "model_max_length": 128}),
    "weights": of_a_model("model.safetensors", None),
    "prepared prompts": prompts(".parquet"),
    "manifest": prompts(".manifest.json"),
    "prompts of others": foreign_prompts,
    "tiny prompts": tiny_setting("train.parquet"),
    "tiny manifest": tiny_setting("tiny.manifest.json"),
    "progress.json": progress,
    "failures": failure,
    **{f"{kind} log": log(kind) for kind in ("csv", "parquet", "jsonl", "verl", "trl", "allocation")},
}


# Damage


def damaged(content: bytes, reader: Reader, rng: random.Random) -> tuple[str, bytes | None, bool]:
    """Return what is wrong, the content (None for a folder in its place), and whether it must be seen."""
    kinds = ["bit"] * 4 + ["cut"] * 3 + ["depth", "empty", "folder", "no UTF-8", "zeros"]
    if reader.form in (SEALED, LINES, FOREIGN, FOREIGN_LINES):
        kinds += ["schema"] * 8
    if reader.form in (LINES, FOREIGN_LINES):
        kinds += ["twice", "order"]
    kind = rng.choice(kinds)
    at = rng.randrange(len(content))
    seen = reader.exact
    if kind == "bit":
        changed = bytearray(content)
        changed[at] ^= 1 << rng.randrange(8)
        return f"bit of byte {at}", bytes(changed), seen
    if kind == "cut":
        return f"cut at {at}", content[:at], seen
    if kind == "depth":
        opened = rng.choice([b"[", b'{"a":'])
        return "depth", opened * DEPTH, True
    if kind == "empty":
        return "empty", b"", seen
    if kind == "folder":
        return "folder", None, True
    if kind == "no UTF-8":
        return f"no UTF-8 at {at}", content[:at] + b"\xff\xfe" + content[at:], seen
    if kind == "zeros":
        return "zeros", bytes(len(content)), seen
    if kind in ("twice", "order"):
        lines = content.splitlines(keepends=True)
        first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
        if kind == "twice":
            return "a line twice", b"".join([*lines, lines[first]]), seen
        lines[first], lines[second] = lines[second], lines[first]
        # Samples may be in any order.
        return "other order", b"".join(lines), seen and first != second and reader.path.name != generate.SAMPLES_FILE
    return with_schema(content, reader, rng)


def with_schema(content: bytes, reader: Reader, rng: random.Random) -> tuple[str, bytes, bool]:
    """Change a value or a name of JSON, and give it a valid checksum where it had one."""
    lines = content.decode().splitlines() if reader.form in (LINES, FOREIGN_LINES) else [content.decode()]
    number = rng.randrange(len(lines))
    data = json.loads(lines[number])
    data.pop("checksum", None)
    data = copy.deepcopy(data)
    node, name = rng.choice(list(_places(data)))
    what = rng.choice([*ODD, "missing", "more", "twice"])
    mark = "@@odd@@"
    if what == "missing":
        del node[name]
    elif what == "more":
        node[name] = {"more": node[name]}
        data["another name"] = 1
    else:
        node[name] = mark
    text = json.dumps(data) if data else '{"x": 1}'
    quoted = json.dumps(mark)
    if what == "twice":
        text = text.replace(quoted, "1")
        text = f'{{"again": 1, "again": 2, {text[1:]}'
    elif what in ODD:
        text = text.replace(quoted, ODD[what])
    if reader.form in (SEALED, LINES):
        body = f"{text[:-1]}, "
        text = f'{body}"checksum": "{hashlib.sha256(body.encode()).hexdigest()[:16]}"}}'
    lines[number] = text
    return f"{what} as {name}", ("\n".join(lines) + "\n").encode(), False


def _places(data: Any) -> Any:
    """Yield (container, name) of every value in JSON data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, value in list(items):
        yield data, name
        yield from _places(value)


def replace(path: Path, content: bytes | None) -> None:
    if path.is_dir():
        path.rmdir()
    if content is None:
        path.unlink(missing_ok=True)
        path.mkdir()
    else:
        path.write_bytes(content)


@pytest.mark.needs_verl
@pytest.mark.xdist_group("evaluate")
@pytest.mark.parametrize("name", READERS)
def test_fuzz_readers(name, tmp_path):
    reader = READERS[name](tmp_path)
    content = reader.path.read_bytes()
    expected = repr(reader.read())
    rng = random.Random(zlib.crc32(name.encode()))
    wrong = []
    for _ in range(DAMAGED):
        what, changed, seen = damaged(content, reader, rng)
        replace(reader.path, changed)
        try:
            found = repr(reader.read())
        except ValueError as error:
            if not reader.named(str(error)):
                wrong.append(f"{what}: the file has no name in {error!s:.200}")
        except Exception as error:  # of any kind: it would be a traceback
            wrong.append(f"{what}: {error!r:.200}")
        else:
            if changed == content:
                continue
            # A last line without an end is of a killed process, and is not one; whole lines that are missing at the
            # end are seen by the number of steps or samples, and by the hash of a finished run's file.
            shorter = reader.form == LINES and (content.startswith(changed) or not changed.endswith(b"\n"))
            if seen and not shorter and found != expected:
                wrong.append(f"{what}: read as {found:.200}")
        finally:
            replace(reader.path, content)
    assert repr(reader.read()) == expected
    assert wrong == []


def test_there_are_as_many_readers_as_the_page_says():
    text = (made_runs.ROOT / "docs" / "scale.md").read_text()
    assert f"{len(READERS)} readers" in " ".join(text.split())
