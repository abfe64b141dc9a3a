"""What is refused before anything starts, which runs share a row, and settings that are never mixed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scale.evaluation import exports, generate, planning
from tests.scale.evaluation.made_runs import (
    REWARD,
    command,
    fill,
    good,
    model,
    parquet,
    parsed,
    refused,
    rows,
    run_folder,
)

# Configurations are composed once in a process.
pytestmark = [pytest.mark.needs_verl, pytest.mark.xdist_group("evaluate")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--k", 1, 5], "--samples: expected at least k = 5 of each problem, got 4"),
        (["--k", 0], "--k: expected an integer >= 1, got 0"),
        (["--seeds", 1, 1], "seeds: expected different ones, got 1 more than once"),
        (["--seeds", -1], "--seeds: expected an integer >= 0"),
        (["--temperature", 0], "--temperature: expected more than 0, since 4 samples would all be alike"),
        (["--temperature", "nan"], "--temperature: expected a finite number"),
        (["--top-p", 0], "--top-p: expected a finite number in (0.0, 1.0]"),
        (["--max-tokens", 0], "--max-tokens: expected an integer >= 1"),
        (["--reward", "pkg://scale.tiny:no_such"], "reward: expected a function that can be imported"),
        (["--reward", "pkg://no.such:f"], "reward: expected a function that can be imported"),
        (["--reward", "no_such.py:f"], "reward: expected a function that can be imported"),
        (["--reward", "pkg://scale.tiny:LEVELS"], "reward: expected a function, got"),
        (["--reward", "nonsense"], "reward: expected pkg://module:function or file.py:function"),
        (["--cluster", "3xB300"], "cluster: expected one of 1x8-a100"),
        (["--engines", 0], "--engines: expected an integer >= 1, got 0"),
        (["--tensor-parallel", 2], "--tensor-parallel: expected 1 on a CPU, got 2"),
        (["--cluster", "1x8-a100", "--tensor-parallel", 99], "cluster: expected 99 GPUs that torch can use"),
    ],
)
def test_bad_arguments(tmp_path, change, message):
    refused(message, *good(tmp_path), *change)
    assert not (tmp_path / "out").exists()


def hardware(tmp_path, monkeypatch, memory, visible, *arguments):
    """Return the engines of a call where torch can use GPUs with free and whole memory, GiB."""
    monkeypatch.setattr(planning, "memory_of_gpus", lambda: [(free * 2**30, all_ * 2**30) for free, all_ in memory])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    args = parsed(*good(tmp_path), "--cluster", "1x8-a100", *arguments)
    return planning.hardware_of(args, [exports.resolve_checkpoint(x) for x in args.checkpoints])


FREE = (79, 80)


@pytest.mark.parametrize(
    ("memory", "visible", "arguments", "gpus", "devices"),
    [
        ([FREE] * 8, None, [], 1, list("01234567")),
        ([FREE] * 8, None, ["--tensor-parallel", 2], 2, ["0,1", "2,3", "4,5", "6,7"]),
        ([FREE] * 8, None, ["--tensor-parallel", 3], 3, ["0,1,2", "3,4,5"]),
        ([FREE] * 3, "6, 2,4", [], 1, ["6", "2", "4"]),
        ([FREE] * 2, "GPU-a,GPU-b,GPU-gone", [], 1, ["GPU-a", "GPU-b"]),
        ([FREE], "MIG-a,MIG-b,MIG-c", [], 1, ["MIG-a", "MIG-b", "MIG-c"]),
        ([FREE] * 2 + [(10, 80)] * 2, None, ["--engines", 2], 1, ["0", "1"]),
    ],
)
def test_engines_share_the_gpus_that_are_visible(tmp_path, monkeypatch, memory, visible, arguments, gpus, devices):
    assert hardware(tmp_path, monkeypatch, memory, visible, *arguments) == (gpus, devices)


@pytest.mark.parametrize(
    ("memory", "visible", "arguments", "message"),
    [
        ([FREE] * 8, None, ["--engines", 9], "--engines: expected at most 8, each with 1 GPU of the 8 that are"),
        ([FREE] * 5, None, ["--tensor-parallel", 2, "--engines", 3], "at most 2, each with 2 GPUs of the 5 that are"),
        ([FREE], "MIG-a,MIG-b", ["--tensor-parallel", 2], "cluster: expected 2 GPUs that torch can use, got 1"),
        ([FREE, (10, 80)], "4,7", [], "GPU 7: expected 90% of 80.0 GiB to be free, got 10.0 GiB"),
    ],
)
def test_gpus_that_are_missing_or_taken(tmp_path, monkeypatch, memory, visible, arguments, message):
    with pytest.raises(ValueError, match=message):
        hardware(tmp_path, monkeypatch, memory, visible, *arguments)


def test_another_process_looks_at_the_gpus(monkeypatch):
    monkeypatch.setattr(planning, "MEMORY", "print('a warning'); print('[[3, 4], [5, 6]]')")
    assert planning.memory_of_gpus() == [(3, 4), (5, 6)]
    monkeypatch.setattr(planning, "MEMORY", "import sys; sys.exit('the driver is too old')")
    with pytest.raises(ValueError, match="cluster: expected GPUs that torch can use, got the driver is too old"):
        planning.memory_of_gpus()


def test_runs_that_differ_in_more_than_seeds_share_no_row(tmp_path):
    """Each variant of figures 2 and 3 is a row, named by what it has otherwise; its seeds are pooled."""
    few = ["actor_rollout_ref.rollout.n=6", "dynamo.rollouts_low=3"]
    variants = {"": [], "few": few, "steep": ["dynamo.sharpness=5"], "fast": ["actor_rollout_ref.actor.optim.lr=3e-3"]}
    runs = [
        run_folder(tmp_path, f"{name}{seed}", f"dynamo.seed={seed}", *overrides)
        for name, overrides in variants.items()
        for seed in (1, 2)
    ]
    found = planning.rows_of([exports.resolve_checkpoint(x) for x in runs])
    assert [x.method for x in found] == [
        "DynaMO (lr 0.001, n 8, rollouts_low 4)",
        "DynaMO (lr 0.001, n 6, rollouts_low 3)",
        "DynaMO (lr 0.003, n 8, rollouts_low 4)",
        "DynaMO (sharpness 5)",
    ]
    assert [[x.seed for x in row.checkpoints] for row in found] == [[1, 2]] * 4
    assert [x.method for x in planning.rows_of([exports.resolve_checkpoint(runs[0])])] == ["DynaMO"]


def test_checkpoints_that_share_no_table(tmp_path):
    arguments = good(tmp_path)
    same = run_folder(tmp_path, "same")
    refused("checkpoints: seeds of DynaMO: expected different ones, got 1 more than once", same, *arguments)
    refused("checkpoints: expected different ones, got run-step4 more than once", arguments[0], *arguments)
    longer = run_folder(tmp_path, "longer", "dynamo.method=grpo", "data.max_response_length=9")
    refused(
        "max_tokens: expected one for a table, got 8, 9 in the runs' configurations; choose by --max-tokens",
        longer,
        *arguments,
    )


def test_a_model_without_a_run_needs_to_be_told(tmp_path):
    arguments = [model(tmp_path / "m"), *good(tmp_path)[1:]]
    refused("reward: expected --reward, since no run's configuration tells it", *arguments)
    refused("max_tokens: expected --max-tokens, since no run's", *arguments, "--reward", REWARD)


def of_a_model(tmp_path):
    """Return arguments for four samples of each of three problems, without a run."""
    data = parquet(tmp_path / "d.parquet", rows("abc"))
    told = ["--samples", 4, "--k", 1, "--reward", REWARD, "--max-tokens", 8, "--out", tmp_path / "out"]
    return [model(tmp_path / "m"), "--data", data, *told]


def test_what_is_missing_of_a_part_that_is_there(tmp_path):
    """Of three problems the first has four samples, the others none: of two of each, four are missing."""
    arguments = of_a_model(tmp_path)
    (item,), _ = planning.plan(parsed(*arguments))
    assert item.missing(2) == 6
    fill(arguments, lambda *_: {})
    assert [item.missing(n) for n in (1, 2, 4, 5)] == [0, 0, 0, 3]
    path = item.folder / generate.SAMPLES_FILE
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    assert [item.missing(n) for n in (1, 2, 4, 5)] == [2, 4, 8, 11]


@pytest.mark.parametrize(
    ("change", "scores"),
    [
        ({}, False),
        ({"reward": {"hash": "1"}}, True),
        ({"reward_arguments": {"most": 2}}, True),
        ({"reward": {"hash": "1"}, "reward_arguments": {"most": 2}}, True),
        ({"reward": {"hash": "1"}, "temperature": 0.5}, False),
    ],
)
def test_when_stored_samples_need_other_scores_only(tmp_path, change, scores):
    arguments = of_a_model(tmp_path)
    (item,), _ = planning.plan(parsed(*arguments))
    assert not item.only_scores_differ()
    fill(arguments, lambda *_: {})
    assert replace(item, settings={**item.settings, **change}).only_scores_differ() == scores


def test_settings_are_never_mixed(tmp_path):
    arguments = good(tmp_path)
    fill(arguments, lambda *_: {"correct": True})
    assert command(*arguments)[0] == 0
    folder = tmp_path / "out" / "run-step4" / "d-seed1"
    refused(
        "got one with temperature 1.0 instead of 0.5; choose another --out, or --force",
        *arguments,
        "--temperature",
        0.5,
    )
    parquet(tmp_path / "d.parquet", rows("abcd"))
    refused(f"{folder}: expected an evaluation with the same settings, got one with data", *arguments)
    parquet(tmp_path / "d.parquet", rows("abc"))
    weights = arguments[0] / "checkpoints" / "global_step_4" / "actor" / "huggingface" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"9")
    refused("got one with model", *arguments)
    weights.write_bytes(whole)
    before = (folder / generate.SAMPLES_FILE).read_bytes()
    assert command(*arguments, "--force")[0] == 0
    assert (folder / generate.SAMPLES_FILE).read_bytes() == before  # the same settings: nothing is thrown away
