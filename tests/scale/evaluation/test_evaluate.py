"""The command but for vLLM: scores made again, tables that are not lost, calls beside each other."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from scale.evaluation import evaluate, generate
from tests.scale.evaluation.made_runs import ROOT, command, fill, good, refused, result, run_folder

# Configurations are composed once in a process.
pytestmark = [pytest.mark.needs_verl, pytest.mark.xdist_group("evaluate")]


def test_another_reward_scores_the_same_samples_again(tmp_path):
    """Responses "x" under two versions of a file; --force keeps the text and changes the score alone."""
    reward = tmp_path / "r.py"
    body = "def f(data_source, solution_str, ground_truth, extra_info=None):\n    return {answer}\n"
    reward.write_text(body.format(answer="solution_str == ground_truth"))
    arguments = [*good(tmp_path), "--reward", f"{reward}:f"]
    fill(arguments, lambda *_: {"correct": False})
    command(*arguments)
    path = tmp_path / "out" / "run-step4" / "d-seed1" / generate.SAMPLES_FILE
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
    real = evaluate._sample

    def meanwhile(*given):
        monkeypatch.setattr(evaluate, "_sample", real)
        command(second, *arguments)
        return 0

    monkeypatch.setattr(evaluate, "_sample", meanwhile)
    status, text = command(first, *arguments)
    assert status == 0
    assert "is by a call beside this one: a call with the checkpoints of both makes one table" in text
    assert [x["method"] for x in result(tmp_path / "out")["rows"]] == ["GRPO"]
    command(first, second, *arguments)
    assert [x["method"] for x in result(tmp_path / "out")["rows"]] == ["DynaMO", "GRPO"]


def test_the_module_is_light():
    code = (
        "import sys, scale.evaluation.evaluate\n"
        "heavy = {'verl', 'vllm', 'ray', 'torch', 'transformers', 'hydra'}\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & heavy))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
