"""Lines of metrics and allocations that a run leaves behind, how they are read again, and a finished run's hashes."""

from __future__ import annotations

import math
import os
import re

import numpy as np
import pytest

from scale.run import records
from theory.base import runs
from theory.base.files import json_line, write_json


def refused(message, call, *arguments):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(*arguments)


def run(folder, steps=3, total=None):
    """Write the records of a run with an exported checkpoint, as its processes do."""
    kept, total = records.Records(folder), steps if total is None else total
    config = {"dynamo": {"seed": 7}, "trainer": {"total_training_steps": total, "rollout_data_dir": f"{folder}/dumps"}}
    write_json(folder / "config.json", config)
    for step in range(1, steps + 1):
        kept.allocation(step, ["a", "b"], np.array([2, 3]), np.array([0, 3]))
        kept.append(step, {"x": step, "dynamo/rollouts": 5})
    checkpoint = folder / "checkpoints" / f"global_step_{steps}"
    (checkpoint / "actor" / "huggingface").mkdir(parents=True)
    (checkpoint / "actor" / "huggingface" / "model.safetensors").write_bytes(b"weights")
    (checkpoint / "dynamo.json").write_text("state")
    (folder / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(steps))
    (folder / "dumps").mkdir()
    (folder / "dumps" / "1.jsonl").write_text("{}")
    return folder


def test_a_resumed_run_drops_what_it_will_do_again(tmp_path):
    kept = records.Records(tmp_path)
    for step in (0, 1, 2, 3):
        kept.append(step, {"x": step, "text": "no"})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "x"')
    records.Records(tmp_path).truncate(2)
    assert records.read_metrics(tmp_path / "metrics.jsonl") == [{"step": step, "x": float(step)} for step in (0, 1, 2)]


def test_a_number_that_is_not_finite_stays_one_and_is_not_a_missing_one(tmp_path):
    run(tmp_path, steps=2, total=4)
    records.Records(tmp_path).append(3, {"x": math.nan, "y": math.inf})
    records.Records(tmp_path).append(4, {"x": -math.inf})
    records.finish(tmp_path, 12.3456)
    metrics, versions = runs.read_run(tmp_path).metrics, runs.read_run(tmp_path).versions
    assert (metrics["seed"].to_pylist(), metrics["step"].to_pylist()) == ([7] * 4, [1, 2, 3, 4])
    assert (versions["seeds"], versions["seconds"]) == ([7], 12.346)
    assert str(metrics["x"].to_pylist()) == "[1.0, 2.0, nan, -inf]"
    assert metrics["y"].to_pylist() == [None, None, math.inf, None]


def test_a_run_killed_between_a_checkpoint_and_its_metrics_goes_on_without_them(tmp_path):
    """Verl writes the checkpoint first; a line without a metric says that nothing was measured."""
    run(tmp_path, steps=2)
    records.Records(tmp_path).truncate(3)
    records.Records(tmp_path).append(4, {"x": 4})
    found = records.read_metrics(tmp_path / "metrics.jsonl")
    assert found[2:] == [{"step": 3}, {"step": 4, "x": 4.0}]
    records.require_steps(tmp_path, 4, whole=True)
    refused("expected every step up to 6, got none for 1, the first 5", records.Records(tmp_path).truncate, 6)


@pytest.mark.parametrize("last", [1, 2])
def test_a_whole_run_has_its_first_step(tmp_path, last):
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    with pytest.raises(ValueError, match=f"expected every step up to {last}, got none for {last}, the first 1"):
        records.require_steps(tmp_path, last, whole=True)
    (tmp_path / "metrics.jsonl").unlink()
    records.require_steps(tmp_path, 0, whole=True)  # nothing is written before the first step


@pytest.mark.parametrize("kept", [0, 1])
def test_a_run_without_all_of_its_steps_is_not_finished(tmp_path, kept):
    path = run(tmp_path) / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
    refused(f"{path}: expected every step up to 3, got none for {3 - kept}", records.finish, tmp_path, 1.0)
    records.Records(tmp_path).append(2, {})
    records.Records(tmp_path).append(3, {})
    refused("every step" if not kept else "expected metrics of the last step, got none", records.finish, tmp_path, 1.0)
    assert not (tmp_path / "versions.json").exists()


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_run_without_all_of_its_allocations_is_neither_finished_nor_resumed(tmp_path, kept):
    path = run(tmp_path) / "allocation.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
    message = f"{path}: expected every step up to 3, got none for {3 - kept}, the first {kept + 1}"
    refused(message, records.finish, tmp_path, 1.0)
    refused(message, records.Records(tmp_path).truncate, 3)
    records.Records(tmp_path).truncate(kept)  # of an earlier checkpoint
    path.unlink()
    refused(f"{path}: expected a readable file" if kept else "metrics.jsonl", records.finish, tmp_path, 1.0)


def test_a_finished_run_vouches_for_every_file_that_is_read_again(tmp_path):
    run(tmp_path)
    records.finish(tmp_path, 1.0)
    listed = records.recorded(tmp_path)
    assert sorted(listed) == [
        "allocation.jsonl",
        "checkpoints/global_step_3/actor/huggingface/model.safetensors",
        "checkpoints/global_step_3/dynamo.json",
        "checkpoints/latest_checkpointed_iteration.txt",
        "config.json",
        "dumps/1.jsonl",
        "metrics.jsonl",
        "metrics.parquet",
    ]
    for name in listed:
        path = tmp_path / name
        content = path.read_bytes()
        for damaged in (content[:-1], bytes([content[0] ^ 1]) + content[1:], None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            refused(f"{path}: expected ", records.reopen, tmp_path)
            assert (tmp_path / "versions.json").exists()
        path.write_bytes(content)
    records.reopen(tmp_path)
    assert records.recorded(tmp_path) == {}
    records.finish(tmp_path, 1.0)
    assert records.recorded(tmp_path) == listed


def test_groups_may_have_up_to_2_to_the_31_rollouts(tmp_path):
    line = {"step": 1, "keys": ["a", "b"], "counts": [1000, 2**31 - 1], "successes": [1000, 0]}
    path = tmp_path / records.ALLOCATION_LOG
    path.write_text(json_line(line))
    assert records.read_allocation(path)[0]["counts"] == [1000, 2**31 - 1]
    path.write_text(json_line({**line, "counts": [1000, 2**31]}))
    refused("expected whole numbers 0 <= successes <= counts", records.read_allocation, path)


GOOD = {"step": 3, "keys": ["a", "b"], "counts": [2, 3], "successes": [0, 3]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 0}, "line 2: expected a step after 0, got 0"),
        ({"step": True}, "line 2: expected a step after 0, got True"),
        ({"step": "3"}, "line 2: expected a step after 0, got '3'"),
        ({"step": 1.5}, "line 2: expected a step after 0, got 1.5"),
        ({"step": 2**70}, "line 2: expected a step after 0, got 1180591620717411303424"),
        ({"keys": ["a", "a"]}, "line 2: expected different texts as keys"),
        ({"keys": ["a", 1]}, "line 2: expected different texts as keys"),
        ({"keys": "ab"}, "line 2: expected keys, counts and successes of one length"),
        ({"counts": [2]}, "line 2: expected keys, counts and successes of one length"),
        ({"keys": ["a"]}, "line 2: expected keys, counts and successes of one length"),
        ({"successes": [0]}, "line 2: expected keys, counts and successes of one length"),
        ({"successes": [0, 3, 0]}, "line 2: expected keys, counts and successes of one length"),
        ({"keys": [], "counts": [], "successes": []}, "line 2: expected keys, counts and successes of one length"),
        ({"counts": None}, "line 2: expected keys, counts and successes of one length"),
        ({"counts": [2, 2]}, "line 2: expected whole numbers 0 <= successes <= counts"),
        ({"counts": [2, 2**40]}, "line 2: expected whole numbers 0 <= successes <= counts"),
        ({"successes": [0.0, 3]}, "line 2: expected whole numbers 0 <= successes <= counts"),
        ({"successes": [True, 3]}, "line 2: expected whole numbers 0 <= successes <= counts"),
    ],
    ids=str,
)
def test_lines_that_no_run_writes_are_refused(tmp_path, change, message):
    path = tmp_path / "allocation.jsonl"
    path.write_text(json_line({**GOOD, "step": 0}) + json_line(GOOD))
    assert len(records.read_allocation(path)) == 2
    path.write_text(json_line({**GOOD, "step": 0}) + json_line({**GOOD, **change}))
    refused(f"{path}: {message}", records.read_allocation, path)


@pytest.mark.parametrize("value", [None, True, "1", 1, [], {}], ids=str)
def test_metrics_that_are_no_numbers_are_refused(tmp_path, value):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json_line({"step": 1, "x": value}))
    refused(f"{path}: line 1: expected a number as x, got", records.read_metrics, path)


@pytest.mark.parametrize("content", [b"x", b"-1", b"", b"1.0", b"\xff", "\u0661".encode(), b"9" * 10], ids=str)
def test_the_number_of_the_last_checkpoint(tmp_path, content):
    path = tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt"
    path.parent.mkdir()
    path.write_bytes(b" 12\n")
    assert records.latest_checkpoint(tmp_path) == path.parent / "global_step_12"
    path.write_bytes(b"123456789")
    assert records.latest_checkpoint(tmp_path) == path.parent / "global_step_123456789"
    path.write_bytes(content)
    refused(f"{path}: expected the number of the last checkpoint", records.latest_checkpoint, tmp_path)
    path.unlink()
    assert records.latest_checkpoint(tmp_path) is None
    path.mkdir()
    refused(f"{path}: expected a readable file", records.latest_checkpoint, tmp_path)


def test_a_record_that_is_no_file_is_named_and_never_waited_for(tmp_path):
    """A pipe that nobody writes, a device without an end, and a link that leads nowhere."""
    (tmp_path / "checkpoints").mkdir()
    tracker = tmp_path / "checkpoints" / records.LATEST
    readers = [(tmp_path / records.METRICS_LOG, records.read_metrics)]
    readers += [(tmp_path / records.ALLOCATION_LOG, records.read_allocation)]
    for path, read, argument in [*((x, y, x) for x, y in readers), (tracker, records.latest_checkpoint, tmp_path)]:
        for make in (os.mkfifo, lambda x: x.symlink_to("/dev/zero"), lambda x: x.symlink_to(x)):
            make(path)
            refused(f"{path}: expected a readable file", read, argument)
            path.unlink()
