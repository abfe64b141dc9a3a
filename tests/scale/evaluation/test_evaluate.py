"""Evaluation but for vLLM: what is refused before it starts, pass@k, the table, scores."""

from __future__ import annotations

import argparse
import csv
import functools
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from scale.evaluation import evaluate, exports, generate, planning, problems, score_table
from scale.plugin.config import DynamoConfig
from theory.claims.published import BENCHMARKS, TABLE_1
from theory.methods import METHODS

ROOT = Path(__file__).parents[3]
REWARD = "pkg://scale.tiny:compute_score"

# One process fills the folder of the table once.
pytestmark = [pytest.mark.needs_verl, pytest.mark.xdist_group("evaluate")]


def rows(keys, source="tiny-arithmetic", **changes):
    return [
        {
            "data_source": source,
            "prompt": [{"role": "user", "content": f"{key}+1"}],
            "reward_model": {"ground_truth": key, "style": "rule"},
            "extra_info": {"key": key, "index": i},
            **changes,
        }
        for i, key in enumerate(keys)
    ]


def parquet(path, content):
    pq.write_table(pa.Table.from_pylist(content), path)
    return path


def model(folder, marker=""):
    """Write what looks like an exported model: evaluation itself never loads it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "max_position_embeddings": 128}))
    header = json.dumps({"w": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}, "__metadata__": {"m": marker}})
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"12345678")
    return folder


@functools.cache
def composed(base, cluster, *overrides):
    from scale import launch

    return launch.compose(base, cluster, out=Path("run"), overrides=[*["tiny_folder=x"] * (base == "tiny"), *overrides])


def run_folder(tmp_path, name, *overrides, step=4, base="tiny", cluster="cpu"):
    """Write the folder of a run with one checkpoint, with the real configuration."""
    from omegaconf import OmegaConf

    out, config = tmp_path / name, composed(base, cluster, *overrides)
    export = out / "checkpoints" / f"global_step_{step}" / "actor" / "huggingface"
    model(export, name)
    OmegaConf.save(config, out / "verl.yaml", resolve=True)
    (out / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(step))
    settings = DynamoConfig.from_mapping(config.dynamo)
    state = {"method": settings.resolved().to_dict(), "history": {"discount": settings.history_discount}}
    (export.parents[1] / "dynamo.json").write_text(json.dumps(state))
    return out


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return parser.parse_args(list(map(str, arguments)))


def command(*arguments):
    console = Console(record=True, width=160, file=io.StringIO())
    status = evaluate.command(parsed(*arguments), console)
    return status, console.export_text()


def fill(arguments, outcomes):
    """Write the samples of every evaluation that a call asks for: `outcomes(item, problem, sample)`."""
    for item in planning.plan(parsed(*arguments))[0]:
        evaluate._prepare(item)
        with (item.folder / generate.SAMPLES).open("a") as file:
            for problem, sample in itertools.product(item.problems, range(parsed(*arguments).samples)):
                line = {
                    "key": problem.key,
                    "sample": sample,
                    "seed": generate.sample_seed(item.settings["seed"], problem.key, sample),
                    "correct": False,
                    "unverified": False,
                    "tokens": 3,
                    "finish": "stop",
                    "text": "x",
                    **outcomes(item, problem, sample),
                }
                file.write(json.dumps(line) + "\n")


def result(folder):
    return json.loads((folder / "table.json").read_text())


# pass@k


def test_pass_at_k_is_the_share_of_all_subsets_with_a_correct_sample(tmp_path):
    """Brute force: every k-subset of every problem's samples, two sampling seeds, two benchmarks."""
    rng = np.random.default_rng(0)
    data = [
        parquet(tmp_path / f"{name}.parquet", rows([f"{name}{i}" for i in range(count)], name))
        for name, count in (("a", 5), ("b", 3))
    ]
    outcomes = {}

    def outcome(item, problem, sample):
        found = bool(rng.random() < 0.3)
        outcomes.setdefault((problem.benchmark, item.settings["seed"], problem.key), []).append(found)
        return {"correct": found}

    k = [1, 2, 5, 7]
    arguments = [model(tmp_path / "m"), "--data", *data, "--samples", 7, "--k", *k, "--seeds", 1, 2]
    arguments += ["--reward", REWARD, "--max-tokens", 8, "--out", tmp_path / "out"]
    fill(arguments, outcome)
    assert command(*arguments)[0] == 0
    (row,) = result(tmp_path / "out")["rows"]
    by_hand = {}
    for name, each in itertools.product("ab", k):
        shares = [
            np.mean([any(subset) for subset in itertools.combinations(drawn, each)])
            for (benchmark, _, _), drawn in outcomes.items()
            if benchmark == name
        ]
        by_hand[name, each] = 100 * np.mean(shares)
        cell = row["cells"][name][f"pass@{each}"]
        assert cell["value"] == pytest.approx(by_hand[name, each], abs=1e-5)
        assert cell["low"] <= cell["value"] <= cell["high"]
    for each in k:
        average = (by_hand["a", each] + by_hand["b", each]) / 2
        assert row["cells"]["average"][f"pass@{each}"]["value"] == pytest.approx(average, abs=1e-5)


# The table


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Three seeds of DynaMO and one of GRPO at 7B, an ablation, and the base model, on three benchmarks."""
    tmp_path = tmp_path_factory.mktemp("table")
    big = {"base": "qwen2.5-math-7b", "cluster": "1x8-a100"}
    runs = [run_folder(tmp_path, f"dynamo-{i}", f"dynamo.seed={i}", **big) for i in (1, 2, 3)]
    runs.append(run_folder(tmp_path, "grpo-1", "dynamo.method=grpo", **big))
    runs.append(run_folder(tmp_path, "no-gc-1", "dynamo.method=dynamo-no-gc", **big))
    names = {"olympiadbench": 4, "aime24": 5, "math-500": 6}
    data = [parquet(tmp_path / f"{x}.parquet", rows([f"{x}{i}" for i in range(n)], x)) for x, n in names.items()]
    arguments = [*runs, model(tmp_path / "base"), "--data", *data, "--samples", 32, "--k", 1, 32]
    arguments += ["--reward", REWARD, "--max-tokens", 8192, "--out", tmp_path / "out"]

    def outcome(item, problem, sample):
        right = sample < 8 * (item.checkpoint.seed or 0)
        unsure = problem.key == "aime240" and item.checkpoint.name == "grpo-1-step4" and sample >= 30
        return {"correct": right, "unverified": unsure, "finish": "length" if sample == 31 else "stop"}

    fill(arguments, outcome)
    status, text = command(*arguments)
    assert status == 0
    return tmp_path / "out", text


def test_rows_pool_training_seeds_and_nothing_else(table):
    measured = [row for row in result(table[0])["rows"] if row["source"] == "measured"]
    assert [(x["model"], x["method"], x["seeds"]) for x in measured] == [
        ("Qwen2.5-Math-7B", "DynaMO", [1, 2, 3]),
        ("Qwen2.5-Math-7B", "GRPO", [1]),
        ("Qwen2.5-Math-7B", "- GC", [1]),
        ("base", "no training here", [None]),
    ]
    dynamo, grpo, _, base = (row["cells"]["aime24"]["pass@1"] for row in measured)
    assert (dynamo["value"], dynamo["low"], dynamo["high"]) == (50.0, 25.0, 75.0)  # 8, 16, 24 of 32, all problems alike
    assert (grpo["value"], grpo["low"], base["value"]) == (25.0, 25.0, 0.0)


def test_published_values_are_beside_and_marked(table):
    out, text = table
    found = [row for row in result(out)["rows"] if row["source"] == "published"]
    assert [row["method"] for row in found[:9]] == list(TABLE_1["Qwen2.5-Math-7B"])
    assert [row["method"] for row in found[9:]] == ["- GC", "- UMS", "- DRA", "- GC & DRA", "- GC & UMS", "- UMS & DRA"]
    ours = found[8]["cells"]
    assert (ours["aime24"]["pass@1"], ours["aime24"]["pass@32"]) == ({"value": 34.4}, {"value": 59.0})
    assert (ours["math-500"]["pass@1"], ours["olympiadbench"]["pass@32"]) == ({"value": 66.4}, {"value": 50.1})
    assert found[9]["cells"]["olympiadbench"] == {"pass@1": {"value": 29.3}}
    assert "average" not in ours  # the printed one is over six benchmarks, of which three are here
    markdown = (out / "table.md").read_text()
    head = "| model | method | seeds | AIME24 pass@1 | AIME24 pass@32 | MATH500 pass@1 | MATH500 pass@32 | Olympiad"
    assert markdown.startswith(head)
    assert "| Qwen2.5-Math-7B | DynaMO | 1 2 3 | 50.0 [25.0, 75.0] | 100.0 [100.0, 100.0] |" in markdown
    assert "| Qwen2.5-Math-7B | DynaMO (published) |  | 34.4 | 59.0 | 66.4 | 84.0 | 31.6 | 50.1 |" in markdown
    assert "arXiv 2602.19208" in markdown
    assert "DynaMO (published)" in text


def test_what_could_not_be_checked_is_counted_and_said(table):
    out, text = table
    cells = next(x for x in result(out)["rows"] if x["method"] == "GRPO")["cells"]["aime24"]
    assert (cells["unverified"], cells["responses"], cells["truncated"]) == (2, 160, 5)
    assert cells["if_unverified_were_correct"]["pass@1"] == pytest.approx(100 * (40 + 2) / 160)
    said = (
        "GRPO, aime24: 2 of 160 responses could not be checked and do not count as correct; if all of them were: pass@1"
    )
    assert said in text.replace("\n", " ")
    assert said in (out / "table.md").read_text()
    assert "GRPO, aime24: 3.1% of the responses end at the longest length" in text.replace("\n", " ")


def test_csv_has_a_line_for_each_value(table):
    lines = list(csv.DictReader((table[0] / "table.csv").read_text().splitlines()))
    first = lines[0]
    assert (first["method"], first["source"], first["seeds"], first["benchmark"]) == (
        "DynaMO",
        "measured",
        "1 2 3",
        "olympiadbench",
    )
    assert len([x for x in lines if x["source"] == "measured"]) == 4 * (3 + 1) * 2
    published = {(x["method"], x["benchmark"], x["k"]): x["value"] for x in lines if x["source"] == "published"}
    assert published["KL-COV", "aime24", "32"] == "53.3"


def test_all_six_benchmarks_have_the_published_average():
    cells = {name.lower(): {} for name in BENCHMARKS} | {"average": {}}
    rows = [{"model": "Qwen2.5-Math-1.5B", "method": "DynaMO", "source": "measured", "cells": cells}]
    found = score_table.published(rows, [1, 8, 32])
    assert found[-1]["cells"]["average"] == {"pass@1": {"value": 32.7}, "pass@32": {"value": 55.6}}
    assert score_table.published([rows[0] | {"model": "tiny"}], [1]) == []


def test_steps_of_a_run_are_rows_of_their_own(tmp_path):
    out = run_folder(tmp_path, "run", step=4)
    shutil.copytree(out / "checkpoints" / "global_step_4", out / "checkpoints" / "global_step_8")
    data = parquet(tmp_path / "d.parquet", rows("ab"))
    steps = [out / "checkpoints" / f"global_step_{i}" for i in (4, 8)]
    arguments = [*steps, "--data", data, "--samples", 2, "--k", 1, "--out", tmp_path / "out"]
    fill(arguments, lambda item, *_: {"correct": item.checkpoint.step == 8})
    command(*arguments)
    assert [x["cells"]["tiny-arithmetic"]["pass@1"]["value"] for x in result(tmp_path / "out")["rows"]] == [0.0, 100.0]
    assert "DynaMO, step 8" in (tmp_path / "out" / "table.md").read_text()


# Bad input: said before anything starts


def good(tmp_path):
    data = parquet(tmp_path / "d.parquet", rows("abc"))
    arguments = ["--data", data, "--samples", 4, "--k", 1, 2, "--out", tmp_path / "out"]
    return [run_folder(tmp_path, "run"), *arguments]


def refused(message, *arguments):
    with pytest.raises(ValueError, match=re.escape(message)):
        command(*arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--k", 1, 5], "samples: expected at least k = 5 of each problem, got 4"),
        (["--k", 0], "k: expected an integer >= 1, got 0"),
        (["--seeds", 1, 1], "seeds: expected different ones, got 1 more than once"),
        (["--seeds", -1], "seeds: expected an integer >= 0"),
        (["--temperature", 0], "temperature: expected more than 0, since 4 samples would all be alike"),
        (["--temperature", "nan"], "temperature: expected a finite number"),
        (["--top-p", 0], "top_p: expected a finite number in (0.0, 1.0]"),
        (["--max-tokens", 0], "max_tokens: expected an integer >= 1"),
        (["--reward", "pkg://scale.tiny:no_such"], "reward: expected a function that can be imported"),
        (["--reward", "pkg://no.such:f"], "reward: expected a function that can be imported"),
        (["--reward", "no_such.py:f"], "reward: expected a function that can be imported"),
        (["--reward", "pkg://scale.tiny:LEVELS"], "reward: expected a function, got"),
        (["--reward", "nonsense"], "reward: expected pkg://module:function or file.py:function"),
        (["--cluster", "3xB300"], "cluster: expected one of 1x8-a100"),
        (["--cluster", "1x8-a100", "--tensor-parallel", 99], "cluster: expected 99 GPUs that torch can use"),
    ],
)
def test_bad_arguments(tmp_path, change, message):
    refused(message, *good(tmp_path), *change)
    assert not (tmp_path / "out").exists()


def changed(field, value):
    content = rows("abc")
    content[1][field] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"prompt": "x"}], "expected verl's columns data_source, prompt, reward_model, extra_info, got none named"),
        (rows("aba"), "row 2: expected every key once, got 'a' again, alike; samples are drawn by --samples"),
        (
            [*rows("ab"), *rows("a", reward_model={"ground_truth": "7", "style": "rule"})],
            "row 2: expected every key once, got 'a' again, with the answers 'a' and '7'",
        ),
        (changed("extra_info", {"key": None, "index": 1}), "row 1: expected a text as extra_info.key, got None"),
        (
            changed("reward_model", {"ground_truth": "", "style": "rule"}),
            "row 1: expected a text as reward_model.ground",
        ),
        (rows("abc", prompt="1+1"), "row 0: expected chat messages (role, content) as prompt, got '1+1'"),
        (rows("abc", prompt=[{"role": "user"}]), "row 0: expected chat messages"),
        (rows("abc", reward_model=3), "row 0: expected a text as reward_model.ground_truth, got None"),
    ],
)
def test_bad_data(tmp_path, content, message):
    arguments = good(tmp_path)
    parquet(tmp_path / "d.parquet", content)
    refused(message, *arguments)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_data(tmp_path):
    arguments = good(tmp_path)
    path = tmp_path / "d.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("d.parquet: expected a whole Parquet file, got", *arguments)
    path.write_bytes(b"")
    refused("d.parquet: expected a whole Parquet file, got", *arguments)
    path.unlink()
    refused("d.parquet: expected a file of problems, got none; `python -m scale prepare` makes", *arguments)
    pq.write_table(pa.Table.from_pylist(rows("a")).slice(0, 0), path)
    refused("d.parquet: expected at least one problem, got none", *arguments)


def test_checkpoints_that_cannot_be_evaluated(tmp_path):
    arguments = good(tmp_path)
    run = arguments[0]
    actor = run / "checkpoints" / "global_step_4" / "actor"
    weights = actor / "huggingface" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    refused(f"model.safetensors: expected {len(whole)} bytes, got {len(whole) - 1}", *arguments)
    weights.write_bytes(b"\xff" * 20)
    refused("model.safetensors: expected a whole file of weights", *arguments)
    weights.unlink()
    how = f"merge --backend fsdp --local_dir {actor} --target_dir {actor / 'huggingface'}"
    refused("save_contents=[model,optimizer,extra,hf_model], or make it now: python -m verl.model_merger", *arguments)
    refused(how, *arguments)
    weights.write_bytes(whole)
    state = {"method": METHODS["grpo"].to_dict(), "history": {"discount": 1.0}}
    (actor.parent / "dynamo.json").write_text(json.dumps(state))
    refused(
        "expected a checkpoint of the method dynamo of its run's configuration, got one that differs in title",
        *arguments,
    )
    (run / "verl.yaml").unlink()
    refused("expected verl.yaml or config.json beside its checkpoints, got neither", *arguments)
    refused("no-such: expected the folder of a run, a checkpoint or a model, got none", "no-such", *arguments[1:])
    (tmp_path / "other").mkdir()
    refused(
        "other: expected the folder of a run, a checkpoint or a model, got other", tmp_path / "other", *arguments[1:]
    )
    (tmp_path / "new" / "checkpoints").mkdir(parents=True)
    refused("new: expected a run with a checkpoint, got none yet", tmp_path / "new", *arguments[1:])


def test_every_way_to_name_a_checkpoint_finds_the_same_export(tmp_path):
    run = run_folder(tmp_path, "run", "dynamo.method=kl-cov", "dynamo.seed=7")
    folder = run / "checkpoints" / "global_step_4"
    found = [exports.resolve(x) for x in (run, folder, folder / "actor", folder / "actor" / "huggingface")]
    assert {x.export for x in found} == {folder / "actor" / "huggingface"}
    assert {(x.name, x.method, x.seed, x.step) for x in found} == {("run-step4", "KL-COV", 7, 4)}
    other = run_folder(tmp_path, "other", "dynamo.allocator=neyman", "dynamo.alpha=0.2")
    assert exports.resolve(other).method == "DynaMO (allocator neyman, alpha 0.2)"


def test_runs_that_differ_in_more_than_seeds_share_no_row(tmp_path):
    """Each variant of figures 2 and 3 is a row, named by what it has otherwise; its seeds are pooled."""
    few = ["actor_rollout_ref.rollout.n=6", "dynamo.rollouts_low=3"]
    variants = {"": [], "few": few, "steep": ["dynamo.sharpness=5"], "fast": ["actor_rollout_ref.actor.optim.lr=3e-3"]}
    runs = [
        run_folder(tmp_path, f"{name}{seed}", f"dynamo.seed={seed}", *overrides)
        for name, overrides in variants.items()
        for seed in (1, 2)
    ]
    found = planning.rows_of([exports.resolve(x) for x in runs])
    assert [x.method for x in found] == [
        "DynaMO (lr 0.001, n 8, rollouts_low 4)",
        "DynaMO (lr 0.001, n 6, rollouts_low 3)",
        "DynaMO (lr 0.003, n 8, rollouts_low 4)",
        "DynaMO (sharpness 5)",
    ]
    assert [[x.seed for x in row.checkpoints] for row in found] == [[1, 2]] * 4
    assert [x.method for x in planning.rows_of([exports.resolve(runs[0])])] == ["DynaMO"]


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
    before = (folder / generate.SAMPLES).read_bytes()
    assert command(*arguments, "--force")[0] == 0
    assert (folder / generate.SAMPLES).read_bytes() == before  # the same settings: nothing is thrown away


def test_another_reward_scores_the_same_samples_again(tmp_path):
    """Responses "x" under two versions of a file; --force keeps the text and changes the score alone."""
    reward = tmp_path / "r.py"
    body = "def f(data_source, solution_str, ground_truth, extra_info=None):\n    return {answer}\n"
    reward.write_text(body.format(answer="solution_str == ground_truth"))
    arguments = [*good(tmp_path), "--reward", f"{reward}:f"]
    fill(arguments, lambda *_: {"correct": False})
    command(*arguments)
    path = tmp_path / "out" / "run-step4" / "d-seed1" / generate.SAMPLES
    before = path.read_bytes()
    reward.write_text(body.format(answer="{'score': solution_str == 'x', 'unverified': ground_truth == 'b'}"))
    refused("or --force to score its samples again", *arguments)
    assert command(*arguments, "--force")[0] == 0
    assert result(tmp_path / "out")["rows"][0]["cells"]["tiny-arithmetic"]["unverified"] == 4
    after = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [x["correct"] for x in after] == [x["key"] != "b" for x in after]
    same = ("key", "sample", "seed", "text", "tokens", "finish")
    assert [[x[y] for y in same] for x in after] == [[x[y] for y in same] for x in map(json.loads, before.splitlines())]
    assert command(*arguments)[0] == 0


def test_a_table_is_not_replaced_by_a_lesser_one(tmp_path):
    arguments = good(tmp_path)
    fill(arguments, lambda *_: {"correct": True})
    command(*arguments)
    refused("expected a table of the same or fewer evaluations, got one with pass@2, which would", *arguments, "--k", 1)
    refused("got one with 4 samples a problem", *arguments, "--samples", 3)
    more = [*arguments, "--seeds", 1, 2]
    fill([*arguments, "--seeds", 2], lambda *_: {})
    assert command(*more)[0] == 0
    refused("got one with run-step4/d-seed2", *arguments)
    assert command(*arguments, "--force")[0] == 0


def test_calls_beside_each_other(tmp_path, monkeypatch):
    """The table of a call that ended meanwhile stays; one for both checkpoints then makes it from their samples."""
    first, *arguments = good(tmp_path)
    second = run_folder(tmp_path, "second", "dynamo.method=grpo")
    for run in (first, second):
        fill([run, *arguments], lambda *_: {"correct": True})
    real = evaluate._generate

    def meanwhile(*given):
        monkeypatch.setattr(evaluate, "_generate", real)
        command(second, *arguments)
        return 0

    monkeypatch.setattr(evaluate, "_generate", meanwhile)
    status, text = command(first, *arguments)
    assert status == 0
    assert "is by a call beside this one: a call with the checkpoints of both makes one table" in text
    assert [x["method"] for x in result(tmp_path / "out")["rows"]] == ["GRPO"]
    command(first, second, *arguments)
    assert [x["method"] for x in result(tmp_path / "out")["rows"]] == ["DynaMO", "GRPO"]


def test_damaged_samples(tmp_path):
    arguments = good(tmp_path)
    fill(arguments, lambda *_: {"correct": True})
    path = tmp_path / "out" / "run-step4" / "d-seed1" / generate.SAMPLES
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[0]]))
    refused("expected each sample once, got 0 of 'a' twice", *arguments)
    path.write_bytes(b"".join([b"\0\0\n", *lines]))
    refused("expected a sample in line 1", *arguments)
    path.write_bytes(b"".join(lines).replace(b'"key": "a"', b'"key": "z"'))
    refused("expected samples of its problems and seed, got in line 1", *arguments)


@pytest.mark.parametrize("size", [3, 2**16 - 1, 2**16, 2**17 + 5])
def test_an_unfinished_line_is_dropped(tmp_path, size):
    path = tmp_path / "s"
    for whole in (b"", b"a\nbb\n"):
        path.write_bytes(whole + b"x" * size)
        generate.drop_unfinished(path)
        assert path.read_bytes() == whole
    path.write_bytes(b"a\n")
    generate.drop_unfinished(path)
    assert path.read_bytes() == b"a\n"


def test_a_second_writer_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "LOCK_SECONDS", 0.3)
    second = generate.only_writer(tmp_path / "s")
    with (
        generate.only_writer(tmp_path / "s"),
        pytest.raises(ValueError, match="expected no other writer, got another evaluation at work"),
    ):
        second.__enter__()
    with generate.only_writer(tmp_path / "s"):
        pass


def test_responses_that_do_not_fit_into_the_models_positions(tmp_path):
    spec = {"model": str(model(tmp_path / "m")), "gpus": 2, "dtype": "bfloat16", "max_position_embeddings": 0}
    with pytest.raises(ValueError, match=r"max_tokens: expected .* within the model's 128 positions, got 129"):
        generate.engine_arguments(spec, 129)
    assert "hf_overrides" not in generate.engine_arguments(spec, 128)
    found = generate.engine_arguments(spec | {"max_position_embeddings": 256}, 129)
    assert found["hf_overrides"] == {"max_position_embeddings": 256}
    assert (found["max_model_len"], found["tensor_parallel_size"], found["dtype"]) == (129, 2, "bfloat16")


# Rewards


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (1.0, (True, False)),
        (0, (False, False)),
        (True, (True, False)),
        ({"score": 0.0, "unverified": True}, (False, True)),
        ({"score": 1.0, "unverified": True}, (False, True)),
        ({"score": -1.0, "acc": 0}, (False, False)),
        ({"score": 1.0, "acc": True, "pred": "7"}, (True, False)),
    ],
)
def test_scores(found, expected):
    problem = problems.Problem("k", "b", [{"role": "user", "content": "x"}], "7", {"key": "k"})
    assert problems.score(lambda **_: found, problem, "7") == expected


@pytest.mark.parametrize("found", [-1.0, 0.5, None, "1", {}, float("nan"), {"acc": None, "score": 1}])
def test_scores_that_tell_no_correctness(found):
    problem = problems.Problem("k", "b", [{"role": "user", "content": "x"}], "7", {"key": "k"})
    with pytest.raises(ValueError, match="reward: expected 0 or 1, or a dict with such an acc or score, got"):
        problems.score(lambda **_: found, problem, "7")


def test_a_reward_file_and_its_arguments(tmp_path):
    file = tmp_path / "r.py"
    file.write_text("def f(data_source, solution_str, ground_truth, extra_info=None, most=0):\n    return most\n")
    assert problems.load_reward(f"{file}:f", {"most": 1})(data_source="", solution_str="", ground_truth="") == 1


def test_a_reward_is_all_its_files():
    """By either name, with the files beside it that it calls, so that a change of any of them is another reward."""
    names = ["pkg://scale.rewards.scoring:compute_score", f"{ROOT / 'scale' / 'rewards' / 'scoring.py'}:compute_score"]
    files = [problems.reward_files(problems.load_reward(name)) for name in names]
    assert files[0] == files[1]
    assert {"answers.py", "scoring.py", "text_keys.py", "verifier.py"} == {x.name for x in files[0]}
    first, second = (planning._reward_identity(x, problems.load_reward(x)) for x in names)
    assert {**first, "name": ""} == {**second, "name": ""}


def test_the_trainings_reward_scores_in_processes():
    """Math-Verify in the processes that score: right, wrong, and nothing left behind."""
    problem = problems.Problem("k", "aime24", [{"role": "user", "content": "x"}], "33", {"key": "k"})
    with generate.scorers("pkg://scale.rewards.scoring:compute_score", {}, 1) as pool:
        found = list(pool.map(generate.score_response, [problem] * 3, [r"\boxed{33.}", r"\boxed{34}", r"\boxed{66/2}"]))
    assert found == [(True, False), (False, False), (True, False)]


def test_the_module_is_light():
    code = (
        "import sys, scale.evaluation.evaluate\n"
        "heavy = {'verl', 'vllm', 'ray', 'torch', 'transformers', 'hydra'}\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & heavy))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
