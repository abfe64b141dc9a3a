"""`python -m scale`: what a call prints, refuses, and imports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs_verl, pytest.mark.versionless]

ROOT = Path(__file__).parents[2]


def command(*arguments, code="", **environ):
    program = ["-m", "scale"] if not code else ["-c", code]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_dry_run_for_gpus():
    """The command of the README, on a machine without a GPU and without the model's files."""
    words = ["train", "--model", "qwen2.5-math-7b", "--method", "dynamo", "--seed", "1", "--dry-run"]
    result = command(*words)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert (found["gpus"], found["method"], found["rollouts"]) == (8, "dynamo", 200 * 512 * 16)
    assert found["gpu_hours"][0] < found["gpu_hours"][1]
    assert f"python -m scale {' '.join(words[:-1])}" in result.stdout
    for part in ("rollouts", "tokens", "memory", "GPU-hours", "formulas"):
        assert part in result.stdout


@pytest.mark.parametrize(
    ("words", "folder", "found"),
    [
        (["--budget", "first-look"], "qwen2.5-math-1.5b-dynamo-first-look-1", ("Qwen/Qwen2.5-Math-1.5B", 1, 50)),
        (["--budget", "script"], "qwen2.5-math-7b-dynamo-1", ("Qwen/Qwen2.5-Math-7B", 8, 2000)),
        (["--model", "qwen3-14b"], "qwen3-14b-dynamo-1", ("Qwen/Qwen3-14B", 16, 200)),
        (["--experiment", "table1", "--cell", "7b-grpo-1"], "qwen2.5-math-7b-grpo-1",
         ("Qwen/Qwen2.5-Math-7B", 8, 2000)),
        (["--experiment", "table1", "--cell", "7b-grpo-1", "--budget", "recipe"], "qwen2.5-math-7b-grpo-1",
         ("Qwen/Qwen2.5-Math-7B", 8, 200)),
        (["--model", "qwen2.5-math-7b", "--steps", "7"], "qwen2.5-math-7b-dynamo-1", ("Qwen/Qwen2.5-Math-7B", 8, 7)),
    ],
)  # fmt: skip
def test_budgets(words, folder, found, capsys):
    """More steps of the same run go on in its folder; a first look, whose batches are others, has its own."""
    from scale.__main__ import main

    assert main(["train", "--dry-run", *words]) == 0
    said = capsys.readouterr().out
    assert f"folder       results/scale/{folder}\n" in said
    last = json.loads(said.splitlines()[-1])
    assert (last["model"], last["gpus"], last["steps"]) == found


def test_a_folder_of_the_tiny_model_that_is_given_is_taken(capsys, tmp_path):
    from scale.__main__ import main

    assert main(["train", "--model", "tiny", "--dry-run", f"tiny_folder={tmp_path}"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["model"] == f"{tmp_path}/model"


def test_bad_input_starts_nothing(tmp_path):
    result = command(
        "train", "--method", "dynamite", "--dry-run", "--model", "qwen2.5-math-7b", "--cluster", "1x8-a100"
    )
    assert result.returncode == 2
    assert "error: --method: expected one of grpo" in result.stderr
    assert not (tmp_path / "log.txt").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--method", "dynamite"], "--method: expected one of grpo, .*, got 'dynamite' (close: dynamo)"),
        (["train", "--model", "qwen2.5-7b"], "--model: expected one of .*, got 'qwen2.5-7b' (close: qwen2.5-math-7b"),
        (["train", "--cluster", "8-a100"], "--cluster: expected one of .* (close: 2x8-a100, 1x8-a100"),
        (["train", "--allocator", "wip"], "--allocator: expected one of .* (close: vip)"),
        (["train", "--scope", "minibatch"], "--scope: expected one of .* (close: mini-batch"),
        (["train", "--experiment", "table4", "--cell", "x"], "--experiment: expected one of table1"),
        (["train", "--experiment", "table1", "--cell", "7b-dynamo"], "--cell: expected one of .* (close: 7b-dynamo-"),
        (["train", "trainer.save_frequency=3"], "trainer.save_frequency: expected a setting of verl's or of ours"),
        (["train", "dynamo.method=dynamite"], "dynamo.method: expected one of .* (close: dynamo)"),
        (["smoke", "--methods", "grpo", "dynamoo"], "--methods: expected one of .* (close: dynamo"),
        (["smoke", "trainer.save_frequency=3"], "trainer.save_frequency: expected a setting of verl's or of ours"),
        (["train", "--budget", "reciper"], "--budget: expected one of first-look, recipe, script, .*(close: recipe)"),
        (["train", "--budget", "recipe", "--model", "tiny"], "--budget: expected one of the paper's models, got tiny"),
        (["experiments", "table1", "--budget", "first-look"], "--budget: expected one of recipe, script for a run of"),
        (["experiments", "table4"], "NAME: expected one of table1, table2"),
        (["evaluate", "run", "--data", "x", "--cluster", "gpu"], "--cluster: expected one of"),
        (["train", "--steps", "0"], "--steps: expected an integer >= 1, got 0"),
        (["train", "--seed", "-1"], "--seed: expected an integer >= 0, got -1"),
        (["train", "--alpha", "nan"], "--alpha: expected a finite number in [0.0, 1.0], got nan"),
        (["train", "--restarts", "-1"], "--restarts: expected an integer >= 0, got -1"),
        (["train", "--deadline", "0"], "--deadline: expected a finite number in (0.0, inf], got 0.0"),
        (["train", "--grace", "-5"], "--grace: expected a finite number in [0.0, inf], got -5.0"),
        (["smoke", "--silence", "inf"], "--silence: expected a finite number in (0.0, inf], got inf"),
        (["smoke", "--jobs", "0"], "--jobs: expected an integer >= 1, got 0"),
        (["train", "--stock", "--method", "clip-cov"], "--method: expected none with --stock, which is GRPO by"),
        (["train", "--stock", "--alpha", "0.5"], "--alpha: expected none with --stock"),
    ],
)
def test_a_wrong_word_is_found_before_anything_heavy(words, message):
    """By the name of its option, with names that are close, and before the tiny model is made or verl is loaded."""
    code = (
        "import sys; from scale.__main__ import main\n"
        f"assert main({words!r}) == 2\n"
        "heavy = {'verl', 'vllm', 'ray', 'transformers', 'hydra', 'torch', 'datasets'}\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & heavy))"
    )
    result = command(code=code)
    assert re.search(".*".join(map(re.escape, message.split(".*"))), result.stderr), result.stderr
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("words", [["smoke"], ["train", "--dry-run"]])
def test_without_verl_it_says_what_to_install(words):
    result = command(code=WITHOUT_VERL + f"sys.exit(main({words!r}))")
    assert result.returncode == 2
    assert f"python -m scale {words[0]} needs verl and vLLM, and cannot import verl, vllm" in result.stderr
    assert "make scale-cpu" in result.stderr


WITHOUT_VERL = (
    "import sys, importlib.util as u; find = u.find_spec\n"
    "u.find_spec = lambda name, *a: None if name in ('verl', 'vllm') else find(name, *a)\n"
    "from scale.__main__ import main\n"
)


@pytest.mark.parametrize("words", [["experiments", "smoke"], ["audit", "nowhere.csv"], ["prepare", "nothing"]])
def test_what_needs_no_verl_works_without(words):
    """The last two say what is wrong with their arguments."""
    result = command(code=WITHOUT_VERL + f"sys.exit(main({words!r}))")
    assert "cannot import" not in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == (0 if words[0] == "experiments" else 2)


@pytest.mark.parametrize("name", ["audit", "prepare", "evaluate", "train", "experiments", "smoke"])
def test_every_command_has_help_without_heavy_imports(name):
    code = (
        "import sys; from scale.__main__ import parser\n"
        f"try: parser({name!r}).parse_args([{name!r}, '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"heavy = {HEAVY!r}\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & heavy))"
    )
    result = command(code=code)
    assert f"usage: python -m scale {name}" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"


HEAVY = {"verl", "vllm", "ray", "transformers", "hydra", "torch", "pandas", "datasets"}


def test_help_is_light():
    code = (
        "import sys; from scale.__main__ import parser; parser().format_help()\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'verl', 'vllm', 'ray', 'transformers', 'hydra'}))"
    )
    assert command(code=code).stdout.strip() == "[]"
