"""Every reader of result files, with one of its files damaged or forged at random: refused by name, or nothing changes.

Damage is what happens to files: a flipped bit, a cut, an edit, or something else in their place. A damaged file is a
`ValueError` that names it, or the result is the undamaged one. Forgery seals what it has changed, so that only the
types and ranges of values tell: no other exception, and no result from a value of another type.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from paper_figs.__main__ import main
from paper_figs.experiments import ExperimentResults
from paper_figs.fig5_dynamics import Dynamics
from paper_figs.report import page
from paper_figs.result_files import LedgerData, ToyRun
from paper_figs.scale_runs import find_runs
from paper_figs.table1_models import Evaluation
from paper_figs.table3_configuration import Configs
from tests.paper_figs.make_data import DATA, seal
from tests.theory.fuzzing import DAMAGED
from tests.toy.conftest import small_config
from tests.toy.experiments.test_runner import tiny
from theory.base import runs
from theory.base.files import CHECKSUM, read_json, write_json
from toy.experiments.runner import read_choices, run_sweeps
from toy.training.loop import train

RUN = ("config.json", "metrics.parquet", "versions.json")


class Reader(NamedTuple):
    """What reads some files below a folder, and returns something that tells all that was read."""

    read: Callable[[Path], Any]
    files: tuple[str, ...]


def trained(source: Path, name: str, num_steps: int) -> Any:
    run = train(small_config(num_steps=num_steps, num_seeds=2), out=source / name)
    return run.metrics, run.logits


def resumed(source: Path) -> Any:
    """Go on with a run that was killed, and kill it again."""
    try:
        return trained(source, "killed", 3)
    finally:
        kill(source / "killed")


def kill(folder: Path) -> None:
    for name in ("versions.json", "metrics.parquet"):
        (folder / name).unlink(missing_ok=True)


def scores(source: Path) -> Any:
    """Return what is drawn of an evaluation."""
    return [
        (row["model"], row["method"], len(row["seeds"]), row["cells"]["average"].get("pass@1"))
        for row in Evaluation().read(source)
    ]


READERS = {
    "ledger data": Reader(
        LedgerData("G3", ("entropy", "bound"), ("family",)).read, ("ledger/G3.parquet", "ledger/data.json")
    ),
    "toy run": Reader(ToyRun("grpo", ("pass_at_1",)).read, tuple(f"toy/grpo/{name}" for name in RUN)),
    "run folder": Reader(lambda source: runs.read_run(source / "toy" / "grpo"), tuple(f"toy/grpo/{x}" for x in RUN)),
    "experiment": Reader(
        ExperimentResults(name="fig2", axes=("rollouts", "method"), measures=("pass_at_1",), worlds=False).read,
        ("toy/fig2/summary.parquet", "toy/fig2/summary.json", "toy/fig2/8-dynamo/config.json"),
    ),
    "dynamics": Reader(Dynamics().read, tuple(f"toy/fig5/mixed-grpo/{name}" for name in RUN)),
    "runs at scale": Reader(find_runs, tuple(f"scale/grpo-seed1/{name}" for name in RUN)),
    "configurations": Reader(Configs().read, ("toy/table1/mixed-dynamo/config.json", "scale/dynamo-seed1/config.json")),
    "evaluation": Reader(scores, ("scale/evaluation/table.json",)),
    "report": Reader(
        page, ("ledger/ledger.json", "figures/index.json", "figures/score_norm.svg", "toy/grpo/versions.json")
    ),
    "choices": Reader(lambda source: read_choices(source / "chosen.json"), ("chosen.json",)),
    "finished run": Reader(
        lambda source: trained(source, "run", 3), tuple(f"run/{name}" for name in (*RUN, "checkpoint.npz"))
    ),
    "killed run": Reader(resumed, ("killed/config.json", "killed/checkpoint.npz")),
    "sweep": Reader(
        lambda source: [rows for _, rows in run_sweeps([tiny(2)], source)],
        ("tiny/summary.json", "tiny/summary.parquet", *(f"tiny/grpo/{name}" for name in RUN)),
    ),
}  # fmt: skip

ROWS = [
    {
        "id": id,
        "claim": "a",
        "said_by": "paper",
        "source": "b",
        "regime": "r",
        "verdict": verdict,
        "evidence": "c",
        "numbers": {},
        "by_construction": False,
        "counterexample": other,
    }
    for id, verdict, other in (("S1", "exact", None), ("M4", "fails", "p < 1/2"))
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of every kind."""
    source = Path(shutil.copytree(DATA, tmp_path_factory.mktemp("fuzz") / "results"))
    assert main(["--source", str(source), "--only", "score_norm", "table2_ablations"]) == 0
    write_json(source / "ledger" / "ledger.json", {"rows": ROWS})
    write_json(source / "chosen.json", {"chosen": [{"world": "mixed", "method": "grpo", "learning_rate": "30"}]})
    train(small_config(num_steps=3, num_seeds=2), out=source / "run")
    train(small_config(num_steps=3, num_seeds=2), out=source / "killed")
    kill(source / "killed")
    list(run_sweeps([tiny(2)], source))
    return source


class Restored:
    """The files of a folder, as they were. Nothing but those files, and what stands in their places, is touched."""

    def __init__(self, folder: Path) -> None:
        self.files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def restore(self, folders: set[Path]) -> None:
        """Write back the files of folders that are not as they were."""
        for path, content in self.files.items():
            if path.parent in folders:
                if path.is_symlink() or path.is_fifo():
                    path.unlink()
                elif path.is_dir():
                    path.rmdir()
                if not path.exists() or path.read_bytes() != content:
                    path.write_bytes(content)


@pytest.fixture(scope="module")
def restored(source: Path) -> Restored:
    return Restored(source)


def folders_of(reader: Reader, source: Path) -> set[Path]:
    """Return the folders of a reader's files."""
    return {(source / file).parent for file in reader.files}


# Damage


def in_place(path: Path, make: Callable[[], object]) -> None:
    path.unlink()
    make()


def edited(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    at = rng.randrange(len(content))
    path.write_bytes(content[:at] + rng.choice([b"1", b"-", b"\xff", b"\n", b'"', b"null"]) + content[at + 1 :])


def flipped(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


DAMAGE: dict[str, tuple[int, Callable[[Path, random.Random], object]]] = {
    "flip": (8, flipped),
    "cut": (4, lambda path, rng: path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])),
    "edit": (4, edited),
    "append": (1, lambda path, rng: path.write_bytes(path.read_bytes() + rng.randbytes(9))),
    "empty": (1, lambda path, rng: path.write_bytes(b"")),
    "noise": (1, lambda path, rng: path.write_bytes(rng.randbytes(200))),
    "deep list": (1, lambda path, rng: path.write_text("[" * 100_000)),
    "deep object": (1, lambda path, rng: path.write_text('{"a":' * 100_000)),
    "folder": (1, lambda path, rng: in_place(path, path.mkdir)),
    "loop": (1, lambda path, rng: in_place(path, lambda: path.symlink_to(path))),
    "link to nothing": (1, lambda path, rng: in_place(path, lambda: path.symlink_to("nothing"))),
    "pipe": (1, lambda path, rng: in_place(path, lambda: os.mkfifo(path))),
    "lost": (1, lambda path, rng: path.unlink()),
}
"""Kinds of damage, with how often they are drawn."""


MISSING = ("lost", "loop", "link to nothing")
MAY_BE_MISSING = {
    "runs at scale": ("versions.json",),  # a run that goes on
    "report": ("versions.json",),
    "configurations": ("config.json",),  # a run that is not there
    "evaluation": ("table.json",),
    "killed run": ("config.json",),  # it is in the checkpoint
}
"""What a reader takes for absent and not for damaged, where that is no other number."""


def outcome(reader: Reader, source: Path) -> bytes | str:
    """Return all that was read, or the message of a ValueError; any other exception is a fault."""
    try:
        return pickle.dumps(reader.read(source))
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("name", READERS)
def test_fuzz_damage(name: str, source: Path, restored: Restored) -> None:
    reader, rng = READERS[name], random.Random(name)
    whole = outcome(reader, source)
    assert isinstance(whole, bytes)
    kinds, weights = list(DAMAGE), [weight for weight, _ in DAMAGE.values()]
    refused = 0
    for case in range(DAMAGED):
        path = source / rng.choice(reader.files)
        kind = rng.choices(kinds, weights)[0]
        DAMAGE[kind][1](path, rng)
        got = outcome(reader, source)
        told = isinstance(got, str) and str(path) in got
        told = told or (kind in MISSING and path.name in MAY_BE_MISSING.get(name, ()))
        assert told or got == whole, f"case {case}: {kind} of {path}: {got!r:.300}"
        refused += told
        restored.restore(folders_of(reader, source))
    assert refused > DAMAGED / 2


# Forgery

VALUES = (None, True, "text", "", [], {}, [1], {"a": 1}, -1, 0, 0.5, 10**400, "1e999 as a number")


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where the values of plain data are."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [place for key, value in inner for place in [(*path, key), *places(value, (*path, key))]]


def sealed(data: Any) -> str:
    """Return JSON with its checksum, also of numbers that are none."""
    body = json.dumps(data, indent=2).removesuffix("}").rstrip().replace('"1e999 as a number"', "1e999") + ",\n  "
    return f'{body}"{CHECKSUM}": "{hashlib.sha256(body.encode()).hexdigest()[:16]}"\n}}\n'


def forge(path: Path, rng: random.Random) -> tuple[str, Any, Any]:
    """Change one value of a JSON file, and everything that would tell; return how, the value and the new one."""
    data = read_json(path)
    where = rng.choice(places(data))
    place: Any = data
    for key in where[:-1]:
        place = place[key]
    old, how, new = copy.deepcopy(place[where[-1]]), rng.choice(["other"] * 8 + ["gone", "more", "twice"]), None
    if how == "gone":
        del place[where[-1]]
    elif how == "more" and isinstance(place, dict):
        place["more"] = new = rng.choice(VALUES)
    elif how == "twice" and isinstance(place, list):
        place.append(old)
    else:
        place[where[-1]] = new = rng.choice(VALUES)
        how = "other"
    path.write_text(sealed(data))
    record = path.with_name("versions.json")
    if path.name == "config.json" and record.exists():
        seal(record)
    return f"{how} {where} {old!r:.40} {new!r:.40}", old, new


def kind_of(value: Any) -> type:
    return float if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value)


NULLABLE = ("counterexample",)


@pytest.mark.parametrize("name", [name for name in READERS if any(x.endswith(".json") for x in READERS[name].files)])
def test_fuzz_forgery(name: str, source: Path, restored: Restored) -> None:
    reader, rng = READERS[name], random.Random(name)
    whole = outcome(reader, source)
    refused = 0
    for case in range(DAMAGED):
        path = source / rng.choice([file for file in reader.files if file.endswith(".json")])
        how, old, new = forge(path, rng)
        got = outcome(reader, source)
        if isinstance(got, str):
            refused += 1
            # Of runs that do not fit together the folder around them is named.
            assert str(path.parent) in got or str(path.parents[1]) in got, f"case {case}: {how} in {path}: {got}"
        elif how.startswith("other") and kind_of(old) is not kind_of(new) and path.name != "config.json":
            assert got == whole or any(field in how for field in NULLABLE), f"case {case}: {how} in {path}"
        restored.restore(folders_of(reader, source))
    assert refused
