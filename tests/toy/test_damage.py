"""Files of runs and sweeps that are lost, changed or forged: made again, or refused by name; never another number."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.toy.experiments.test_runner import tiny
from tests.toy.helpers import assert_same
from theory.base import runs
from theory.base.files import hashes, read_json, write_json
from toy.__main__ import main
from toy.experiments import runner, summary
from toy.experiments.runner import run_sweeps
from toy.training import checkpoint, metrics
from toy.training.config import OptimizerConfig, TrainConfig
from toy.training.loop import FILES, Run, train

ALL = (*FILES, runs.VERSIONS_FILE)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def seal(record: Path) -> None:
    """Write the SHA-256 of the files of a record anew, as someone who forges them would."""
    about = read_json(record)
    write_json(record, {**about, "files": hashes(record.parent, list(about["files"]))})


@pytest.fixture
def config(small: Callable[..., TrainConfig]) -> TrainConfig:
    """Return a config with state of every kind."""
    return small("clip-cov", num_steps=3, optimizer=OptimizerConfig(name="adamw", learning_rate=0.1))


@pytest.fixture
def run(config: TrainConfig, tmp_path: Path) -> Run:
    """Train in `tmp_path`."""
    return train(config, out=tmp_path)


# Lost


@pytest.mark.parametrize("lost", [(name,) for name in ALL] + [FILES[:2], FILES, FILES[1:], (FILES[0], FILES[2])])
def test_a_lost_file_is_made_again_and_that_is_said(lost, run, config, tmp_path, caplog):
    before = contents(tmp_path)
    for name in lost:
        (tmp_path / name).unlink()
    assert_same(train(config, out=tmp_path), run)
    assert set(contents(tmp_path)) == set(ALL)
    for name in (runs.CONFIG_FILE, runs.METRICS_FILE):
        assert (tmp_path / name).read_bytes() == before[name]
    np.testing.assert_array_equal(checkpoint.load(tmp_path / checkpoint.NAME)[0]["logits"], run.logits)
    finished = runs.VERSIONS_FILE not in lost  # without it, the run goes on as one that was killed
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / name}: missing in a finished run; made again" for name in ALL if name in lost and finished
    ]
    assert_same(train(config, out=tmp_path), run)


def test_a_lost_checkpoint_is_made_again_only_with_the_same_numbers(run, config, tmp_path):
    """As other software may give others: then the folder has the only copy."""
    path = tmp_path / runs.METRICS_FILE
    table = pq.read_table(path)
    column = table["pass_at_1"].to_numpy().copy()
    column[-1] = np.nextafter(column[-1], 1.0)
    index = table.column_names.index("pass_at_1")
    pq.write_table(table.set_column(index, "pass_at_1", pa.array(column)), path)
    seal(tmp_path / runs.VERSIONS_FILE)
    (tmp_path / checkpoint.NAME).unlink()
    before = contents(tmp_path)
    with pytest.raises(
        ValueError, match=r"checkpoint.npz: expected the checkpoint .*, got none, and training again give"
    ):
        train(config, out=tmp_path)
    assert contents(tmp_path) == before


def test_a_longer_run_needs_no_checkpoint_either(run, config, tmp_path):
    (tmp_path / checkpoint.NAME).unlink()
    longer = replace(config, num_steps=4)
    assert_same(train(longer, out=tmp_path), train(longer))


def test_metrics_alone_are_not_overwritten(run, config, tmp_path):
    (tmp_path / checkpoint.NAME).unlink()
    (tmp_path / runs.VERSIONS_FILE).unlink()
    before = contents(tmp_path)
    with pytest.raises(
        ValueError, match=r"metrics.parquet: expected it with its checkpoint or its versions.json, got it"
    ):
        train(config, out=tmp_path)
    assert contents(tmp_path) == before


def test_lost_files_of_a_sweep_are_made_again(tmp_path, caplog):
    ((_, rows),) = run_sweeps([tiny(3)], tmp_path)
    folder = tmp_path / "tiny"
    before = contents(folder)
    for name in ("grpo/metrics.parquet", "kl-cov/checkpoint.npz", summary.PARQUET, summary.VALUES):
        (folder / name).unlink()
        ((_, again),) = run_sweeps([tiny(3)], tmp_path)
        assert again == rows
        assert caplog.records[-1].getMessage().startswith(f"{folder / name}: missing in a finished ")
        after = contents(folder)
        assert after.keys() == before.keys()
        assert all(after[key] == before[key] for key in before if key.endswith((".parquet", "config.json")))


# Changed


@pytest.mark.parametrize("change", [flip, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"{}")])
@pytest.mark.parametrize("name", ALL)
def test_a_changed_file_is_refused_and_stays(name, change, tmp_path, capsys):
    command = ["run", "--seeds", "2", "--prompts", "12", "--batch", "6", "--steps", "2", "--out", str(tmp_path)]
    assert main(command) == 0
    change(tmp_path / name)
    before = contents(tmp_path)
    for steps in ("2", "3"):  # to show it, and to go on
        capsys.readouterr()
        assert main([*command, "--steps", steps]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"python -m toy run: error: {tmp_path / name}: expected ")
        assert err.endswith("; move it away, and the same command does\n")
        assert err.count("\n") == 1
        assert contents(tmp_path) == before
    (tmp_path / name).unlink()
    assert main(command) == 0


@pytest.mark.parametrize("name", ["grpo/config.json", "grpo/metrics.parquet", "dynamo/checkpoint.npz",
                                  "dynamo/versions.json", summary.PARQUET, summary.VALUES, summary.JSON])  # fmt: skip
def test_a_changed_file_of_a_sweep_is_refused_and_stays(name, tmp_path):
    list(run_sweeps([tiny(2)], tmp_path))
    flip(tmp_path / "tiny" / name)
    before = contents(tmp_path)
    with pytest.raises(
        ValueError, match=rf"{tmp_path / 'tiny' / name}: expected .*; move it away, and the same command"
    ):
        list(run_sweeps([tiny(2)], tmp_path))
    assert contents(tmp_path) == before


def test_folders_of_an_earlier_version_are_refused(run, config, tmp_path):
    versions = read_json(tmp_path / runs.VERSIONS_FILE)
    for files in ({"files": {name: versions["files"][name] for name in FILES[:2]}}, {}):
        about = {name: value for name, value in versions.items() if name != "files"}
        write_json(tmp_path / runs.VERSIONS_FILE, {**about, **files})
        with pytest.raises(
            ValueError, match=r"versions.json: expected the SHA-256 of .*of an earlier version: make it"
        ):
            train(config, out=tmp_path)
    (tmp_path / runs.VERSIONS_FILE).unlink()
    (tmp_path / runs.CONFIG_FILE).write_text('{\n  "method_name": "clip-cov"\n}\n')
    with pytest.raises(
        ValueError, match=r"config.json: expected JSON that ends with its checksum, got none: .* earlier"
    ):
        train(config, out=tmp_path)


# Forged

Forge = Callable[[dict[str, Any], dict[str, Any]], Any]


def at(name: str, index: Any, value: float) -> Forge:
    def forge(arrays: dict[str, Any], data: dict[str, Any]) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name][index] = value

    return forge


def data_with(**values: Any) -> Forge:
    return lambda arrays, data: data.update(values)


def arrays_with(**values: Any) -> Forge:
    return lambda arrays, data: arrays.update({name.replace("__", "."): value for name, value in values.items()})


def history_with(**values: Any) -> Forge:
    return lambda arrays, data: data["histories"][0].update(values)


HUGE = 10**400

FORGED: dict[str, Forge] = {
    "a table of another shape": lambda arrays, data: arrays.update(logits=arrays["logits"][:, :-1]),
    "a table of float32": lambda arrays, data: arrays.update(logits=arrays["logits"].astype(np.float32)),
    "a table of big-endian numbers": lambda arrays, data: arrays.update(logits=arrays["logits"].astype(">f8")),
    "a table of text": arrays_with(logits=np.array("x")),
    "NaN in a table": at("logits", (0, 0, 0), np.nan),
    "infinity in a moment": at("optimizer.first_moment", (0, 0, 0), np.inf),
    "a square below 0": at("optimizer.second_moment", (0, 0, 0), -1.0),
    "metrics of another length": lambda arrays, data: arrays.update(
        {"metrics.entropy": arrays["metrics.entropy"][:, :-1]}
    ),
    "metrics of one more seed": arrays_with(metrics__entropy=np.zeros((4, 4))),
    "NaN in a metric that is always there": at("metrics.pass_at_1", (0, 2), np.nan),
    "NaN in a metric of a step": at("metrics.reward", (0, 2), np.nan),
    "a metric of the step before the first": at("metrics.reward", (0, 0), 0.5),
    "infinity in a diagnostic": at("metrics.gradient_mse", (0, 2), np.inf),
    "an array too many": arrays_with(more=np.zeros(3)),
    "an array missing": lambda arrays, data: arrays.pop("metrics.clip_fraction"),
    "a field too many": data_with(more=1),
    "a field missing": lambda arrays, data: data.pop("software"),
    "other steps of the optimizer": data_with(optimizer_steps=1),
    "a config that is none": data_with(config=[]),
    "a config without a field": lambda arrays, data: data["config"].pop("world"),
    "histories that are no list": data_with(histories={}),
    "a history too few": lambda arrays, data: data["histories"].pop(),
    "a history that is none": data_with(histories=[1, 2, 3]),
    "counts below 0": history_with(successes=[-1.0] * 12),
    "more successes than attempts": history_with(successes=[1e6] * 12),
    "counts that are true": history_with(successes=[True] + [1.0] * 11),
    "counts as text": history_with(attempts=["1"] * 12),
    "counts in halves": history_with(successes=[0.5] * 12),
    "prompts of another world": history_with(keys=[f"x{i}" for i in range(12)]),
    "a history of another discount": history_with(discount=0.5),
    "software that is no list": data_with(software="torch"),
    "software that is no text": data_with(software=[{"torch": 2}]),
    **{f"num_steps {value!r:.9}": data_with(num_steps=value) for value in ("3", -1, 2, True, 3.0, None, [], HUGE)},
    **{f"seconds {value!r:.9}": data_with(seconds=value) for value in ("3", -1, True, None, HUGE)},
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a checkpoint, and its config."""
    from tests.toy.conftest import small_config

    config = small_config("clip-cov", num_steps=3, optimizer=OptimizerConfig(name="adamw", learning_rate=0.1))
    out = tmp_path_factory.mktemp("saved")
    train(config, out=out)
    return config, out / checkpoint.NAME


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_forged_checkpoint_is_refused_by_name(forge, saved, tmp_path):
    config, whole = saved
    arrays, data = checkpoint.load(whole)
    forge(arrays, data)
    checkpoint.save(tmp_path / checkpoint.NAME, arrays, data)
    refused(config, tmp_path)


def refused(config: TrainConfig, folder: Path) -> None:
    before = contents(folder)
    for num_steps in (3, 9):
        with pytest.raises(ValueError, match=f"^{folder / checkpoint.NAME}: "):
            train(replace(config, num_steps=num_steps), out=folder)
    assert contents(folder) == before


def archive(change: Callable[[zipfile.ZipFile, dict[str, bytes]], None], whole: Path, **options: Any) -> bytes:
    """Return the archive of a checkpoint, written anew: `change` writes, given the content of every member."""
    with zipfile.ZipFile(whole) as old:
        members = {name: old.read(name) for name in old.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as new:
        change(new, members)
    return buffer.getvalue()


def header(shape: str, kind: str = "<f8") -> bytes:
    """Return an array that claims a shape, and holds 8 bytes."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(8)


def members_with(**values: Any) -> Callable[[zipfile.ZipFile, dict[str, bytes]], None]:
    def write(new: zipfile.ZipFile, members: dict[str, bytes]) -> None:
        for name, content in {**members, **{f"{key}.npy": x for key, x in values.items()}}.items():
            new.writestr(name, content)

    return write


def twice(new: zipfile.ZipFile, members: dict[str, bytes]) -> None:
    members_with()(new, members)
    with pytest.warns(UserWarning, match="Duplicate"):
        new.writestr("logits.npy", members["logits.npy"])


def npy(x: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, x)
    return buffer.getvalue()


ARCHIVES: dict[str, tuple[Any, dict[str, Any]]] = {
    "an array that claims 10^12 numbers": (members_with(logits=header("(1000000000000,)")), {}),
    "an array that claims 2^80 numbers": (members_with(logits=header("(1099511627776, 1099511627776)")), {}),
    "an array of a negative length": (members_with(logits=header("(-1, -1)")), {}),
    "an array whose length is text": (members_with(logits=header("('1',)")), {}),
    "an array with text of 10^12 characters": (members_with(logits=header("(1,)", "<U1000000000")), {}),
    "an array of objects": (members_with(logits=npy(np.array([{"a": 1}], dtype=object))), {}),
    "an array of a structure": (members_with(logits=npy(np.zeros(2, dtype=[("a", "f8")]))), {}),
    "no array": (members_with(logits=b"hello"), {}),
    "an array of nothing": (members_with(logits=b""), {}),
    "JSON of depth 100,000": (members_with(json=npy(np.array("[" * 100_000))), {}),
    "JSON of objects of depth 100,000": (members_with(json=npy(np.array('{"a":' * 100_000))), {}),
    "JSON with NaN": (members_with(json=npy(np.array('{"version": 1, "seconds": NaN}'))), {}),
    "JSON with a name twice": (members_with(json=npy(np.array('{"version": 1, "version": 1}'))), {}),
    "JSON that is a list": (members_with(json=npy(np.array("[1]"))), {}),
    "JSON without a version": (members_with(json=npy(np.array("{}"))), {}),
    "JSON of a version that is true": (members_with(json=npy(np.array('{"version": true}'))), {}),
    "JSON in an array": (members_with(json=npy(np.array(["{}"]))), {}),
    "JSON as bytes": (members_with(json=npy(np.array(b"{}"))), {}),
    "a member twice": (twice, {}),
    "compressed members": (members_with(), {"compression": zipfile.ZIP_DEFLATED}),
    "a member that is no array": (lambda new, members: new.writestr("readme.txt", "hello"), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_forged_archive_is_refused_by_name(name, saved, tmp_path):
    config, whole = saved
    change, options = ARCHIVES[name]
    (tmp_path / checkpoint.NAME).write_bytes(archive(change, whole, **options))
    refused(config, tmp_path)


def test_an_archive_that_is_written_anew_is_read(saved, tmp_path):
    """What the forgers above do is not what is refused."""
    config, whole = saved
    (tmp_path / checkpoint.NAME).write_bytes(archive(members_with(), whole))
    assert_same(train(config, out=tmp_path), train(config))


# Choices, and numbers that are none

GOOD = {"world": "mixed", "method": "grpo", "learning_rate": "30"}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (None, "expected a list, got None"),
        ({}, "expected a list"),
        ([3], "expected a JSON object, got int"),
        ([{**GOOD, "world": "easy"}], "world: expected one of"),
        ([{**GOOD, "method": 3}], "method of type str, got 3"),
        ([{"world": "mixed", "method": "grpo"}], "got none named learning_rate"),
        ([GOOD, GOOD], "expected one choice for a method in a world, got several"),
        *(
            ([{**GOOD, "learning_rate": rate}], "learning_rate")
            for rate in (30, None, True, "-1", "0", "1e999", "nan", "inf", "3_0", "30 ", "30.0")
        ),
        ([{**GOOD, "learning_rate": "fast"}], "could not convert"),
    ],
)
def test_forged_choices_are_refused(chosen, message, tmp_path):
    path = tmp_path / "chosen.json"
    write_json(path, {"chosen": chosen})
    with pytest.raises(ValueError, match=f"^{path}: expected choices as the sweep tuning writes them: .*{message}"):
        runner.read_choices(path)
    write_json(path, {"chosen": [GOOD]})
    assert runner.read_choices(path) == [GOOD]


def test_a_run_that_diverges_is_an_error_and_no_gap(small, tmp_path):
    """In its last step, where no next gradient would notice it."""
    learning = OptimizerConfig(name="adamw", learning_rate=1e308)
    with pytest.raises(ValueError, match="logits: expected finite values"):
        train(small("grpo", num_steps=1, num_minibatches=1, optimizer=learning), out=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {runs.CONFIG_FILE}


@pytest.mark.parametrize(("name", "value"), [("entropy", np.nan), ("reward", np.nan), ("gradient_mse", np.inf)])
def test_a_metric_that_is_no_number_is_an_error_and_no_gap(name, value, small, tmp_path, monkeypatch):
    of_batch = metrics.of_batch
    monkeypatch.setattr(metrics, "of_batch", lambda *args: {**of_batch(*args), name: np.full(3, value)})
    with pytest.raises(ValueError, match=f"^{name}: expected finite numbers, got {value}: the run has diverged"):
        train(small(), out=tmp_path)
