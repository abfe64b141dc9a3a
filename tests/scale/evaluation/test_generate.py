"""The file of samples, its one writer, scores in processes, and the engines' settings; without vLLM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from scale.evaluation import engine, generate, problems
from tests.scale.evaluation.made_runs import command, fill, good, model, refused, run_folder
from theory.base.files import json_line, read_line

ROOT = Path(__file__).parents[3]

# Configurations are composed once in a process.
pytestmark = [pytest.mark.needs_verl, pytest.mark.xdist_group("evaluate")]


def test_every_sample_has_a_seed_of_its_own():
    seeds = {
        generate.sample_seed(seed, key, sample) for seed in range(5) for key in ("a", "b", "1") for sample in range(20)
    }
    assert len(seeds) == 5 * 3 * 20
    assert 0 <= min(seeds) <= max(seeds) < 2**31


def test_damaged_samples(tmp_path):
    arguments = good(tmp_path)
    fill(arguments, lambda *_: {"correct": True})
    path = tmp_path / "out" / "run-step4" / "d-seed1" / generate.SAMPLES_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[0]]))
    refused("expected each sample once, got 0 of 'a' twice", *arguments)
    path.write_bytes(b"".join([b"\0\0\n", *lines]))
    refused("samples.jsonl: line 1: expected JSON that ends with its checksum", *arguments)
    path.write_bytes(b"".join(lines).replace(b'"key": "a"', b'"key": "z"'))
    refused('samples.jsonl: line 1: expected "checksum"', *arguments)
    changed = {"key": "z", "seed": 7, "correct": 7, "unverified": None, "tokens": -1, "finish": "abort", "text": 1}
    for name, value in changed.items():
        path.write_text("".join([json_line({**read_line(lines[0].decode(), ""), name: value})]))
        refused("samples.jsonl: line 1: expected a sample", *arguments)


def test_samples_of_another_checkpoint_are_not_this_ones(tmp_path):
    """They have the same problems, numbers and seeds; exchanged files would exchange the results of two runs."""
    first, *arguments = good(tmp_path)
    second = run_folder(tmp_path, "second", "dynamo.seed=2")
    fill([first, second, *arguments], lambda item, *_: {"correct": item.checkpoint.name == "run-step4"})
    assert command(first, second, *arguments)[0] == 0
    path, other = (tmp_path / "out" / f"{name}-step4/d-seed1/{generate.SAMPLES_FILE}" for name in ("run", "second"))
    other.write_bytes(path.read_bytes())
    refused(f"{other}: line 1: expected a sample of evaluation", first, second, *arguments)


@pytest.mark.parametrize(
    "place",
    [
        f"out/run-step4/d-seed1/{generate.SAMPLES_FILE}",
        "run/checkpoints/latest_checkpointed_iteration.txt",
        "run/checkpoints/global_step_4/actor/huggingface/model.safetensors",
        "run/checkpoints/global_step_4/actor/huggingface/pytorch_model.bin",
        "d.parquet",
    ],
)
@pytest.mark.parametrize("kind", ["pipe", "device", "link to itself"])
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, place, kind):
    """A pipe that nobody writes, a device without an end, and a link that leads nowhere."""
    arguments, path = good(tmp_path), tmp_path / place
    fill(arguments, lambda *_: {})
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    refused(str(path), *arguments)


def test_a_line_of_samples_without_end_is_not_read_to_its_end(tmp_path, monkeypatch):
    arguments = good(tmp_path)
    fill(arguments, lambda *_: {})
    monkeypatch.setattr(generate, "LONGEST", 2**10)
    path = tmp_path / "out" / "run-step4" / "d-seed1" / generate.SAMPLES_FILE
    path.write_bytes(b"\0" * 2**10)
    refused(f"{path}: line 1: expected less than 1024 bytes, got more", *arguments)


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


def test_responses_that_do_not_fit_into_the_models_positions(tmp_path):
    spec = {"model": str(model(tmp_path / "m")), "gpus": 2, "dtype": "bfloat16", "max_position_embeddings": 0}
    with pytest.raises(ValueError, match=r"max_tokens: expected .* within the model's 128 positions, got 129"):
        engine.engine_arguments(spec, 129)
    assert "hf_overrides" not in engine.engine_arguments(spec, 128)
    found = engine.engine_arguments(spec | {"max_position_embeddings": 256}, 129)
    assert found["hf_overrides"] == {"max_position_embeddings": 256}
    assert (found["max_model_len"], found["tensor_parallel_size"], found["dtype"]) == (129, 2, "bfloat16")


@pytest.mark.parametrize("content", ['{"version": "1.0"}', "{}", '{"model": {"type": "BPE"}}'])
def test_a_tokenizer_that_cannot_be_read_is_named(tmp_path, content):
    """JSON it is; Transformers raises what it likes."""
    export = model(tmp_path / "m")
    (export / "tokenizer.json").write_text(content)
    spec = {"model": str(export), "template": {}}
    problem = problems.BenchmarkProblem("k", "b", [{"role": "user", "content": "x"}], "33", {"key": "k"})
    one = SimpleNamespace(problems=[problem], spec={"max_tokens": 8})
    with pytest.raises(ValueError, match=f"{export}: expected a tokenizer with a chat template, got"):
        generate._load(spec, [one])


def test_the_trainings_reward_scores_in_processes():
    """Math-Verify in the processes that score: right, wrong, and nothing left behind."""
    problem = problems.BenchmarkProblem("k", "aime24", [{"role": "user", "content": "x"}], "33", {"key": "k"})
    with generate.scorers("pkg://scale.rewards.scoring:compute_score", {}, 1) as pool:
        boxes = [r"\boxed{33.}", r"\boxed{34}", r"\boxed{\sqrt{1089}}"]
        found = list(pool.map(generate.score_response, [problem] * 3, boxes))
    assert found == [(True, False), (False, False), (True, False)]


SCORING = """
import sys
from scale.evaluation import engine, generate, problems
if __name__ == "__main__":
    problem = problems.BenchmarkProblem("k", "aime24", [{"role": "user", "content": "x"}], "33", {"key": "k"})
    with generate.scorers("pkg://scale.rewards.scoring:compute_score", {}, 1) as pool:
        print(*pool.map(generate.score_response, [problem], [r"\\boxed{\\sqrt{1089}}"]), flush=True)
        sys.stdin.read()
"""


def test_processes_that_score_end_with_a_killed_caller(tmp_path):
    """Also where there is no run and no guard: `--force` scores again in the command's own processes."""
    import psutil

    (tmp_path / "scoring.py").write_text(SCORING)
    command, environ = [sys.executable, "scoring.py"], os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, **pipes) as caller:
        assert b"correct=True" in caller.stdout.readline()
        processes = psutil.Process(caller.pid).children(recursive=True)
        assert len(processes) >= 3
        caller.kill()
    gone = psutil.wait_procs(processes, timeout=60)[0]
    assert {*gone} == {*processes}
