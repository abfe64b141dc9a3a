"""Files of problems, and the scores of a reward function, which is known by all its files."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scale.evaluation import planning, problems
from tests.scale.evaluation.made_runs import ROOT, good, parquet, refused, rows

# Configurations are composed once in a process.
pytestmark = [pytest.mark.needs_verl, pytest.mark.versionless, pytest.mark.xdist_group("evaluate")]


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


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (1.0, (True, False)),
        (0, (False, False)),
        (True, (True, False)),
        (np.float32(1), (True, False)),
        ({"score": np.int64(1), "acc": np.bool_(False)}, (False, False)),
        ({"score": 0.0, "unverified": True}, (False, True)),
        ({"score": 1.0, "unverified": True}, (False, True)),
        ({"score": -1.0, "acc": 0}, (False, False)),
        ({"score": 1.0, "acc": True, "pred": "7"}, (True, False)),
    ],
)
def test_scores(found, expected):
    problem = problems.BenchmarkProblem("k", "b", [{"role": "user", "content": "x"}], "7", {"key": "k"})
    assert problems.score(lambda **_: found, problem, "7") == expected


def test_other_problems_and_other_answers_are_other_data():
    first = problems.BenchmarkProblem("k", "b", [{"role": "user", "content": "x"}], "7", {"key": "k", "index": 1})
    before = problems.fingerprint([first])
    for change in ({"key": "l"}, {"benchmark": "c"}, {"prompt": [{"role": "user", "content": "y"}]}, {"answer": "8"}):
        assert problems.fingerprint([replace(first, **change)]) != before, change
    assert problems.fingerprint([replace(first, extra_info={"key": "k", "index": 2})]) == before


@pytest.mark.parametrize(
    "found", [-1.0, 0.5, None, "1", {}, math.nan, {"acc": None, "score": 1}, np.ones(1), {"score": 10**400}]
)
def test_scores_that_tell_no_correctness(found):
    problem = problems.BenchmarkProblem("k", "b", [{"role": "user", "content": "x"}], "7", {"key": "k"})
    with pytest.raises(ValueError, match="reward: expected 0 or 1, or a dict with such an acc or score, got"):
        problems.score(lambda **_: found, problem, "7")


def test_a_reward_file_and_its_arguments(tmp_path):
    file = tmp_path / "r.py"
    file.write_text("def f(data_source, solution_str, ground_truth, extra_info=None, most=0):\n    return most\n")
    assert problems.load_reward(f"{file}:f", {"most": 1})(data_source="", solution_str="", ground_truth="") == 1


@pytest.mark.parametrize("changed", ["r.py", "grader/__init__.py", "grader/core.py", "late.py", "named.py", "deco.py"])
def test_a_change_of_any_file_is_another_reward(tmp_path, changed):
    """Of a package, of what is imported late or by a name, of a decorator; a file that cannot be read counts too."""
    files = {
        "r.py": "import deco, importlib\nfrom grader import f\nnamed = importlib.import_module('named')\n@deco.same\n"
        "def compute_score(*args, **kwargs):\n    import late, broken\n    from .......... import far\n    return f()",
        "deco.py": "from functools import wraps\ndef same(g):\n    return wraps(g)(lambda *a, **b: g(*a, **b))",
        "grader/__init__.py": "from .core import f",
        "grader/core.py": "def f():\n    return 0",
        "late.py": "",
        "named.py": "",
        "broken.py": "print 'Python 2'",
    }
    identities = []
    for version in ("one", "two"):
        folder = tmp_path / version
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text + ("\nCHANGED = 1\n" if (version, name) == ("two", changed) else "\n"))
        command = (
            "import sys; sys.path.insert(0, '.'); from scale.evaluation import planning, problems; "
            "found = problems.load_reward('r.py:compute_score'); "
            "print(sorted(x.name for x in problems.reward_files(found)), "
            "{k: v for k, v in planning._reward_identity('r.py:compute_score', found).items() if k != 'name'})"
        )
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        identities.append(subprocess.check_output([sys.executable, "-c", command], cwd=folder, env=environ, text=True))
    assert identities[0] != identities[1]
    names = ["__init__.py", "broken.py", "core.py", "deco.py", "late.py", "named.py", "r.py"]
    assert identities[0].startswith(str(names))


def test_a_reward_is_all_its_files():
    """By either name, with the files beside it that it calls, so that a change of any of them is another reward."""
    names = ["pkg://scale.rewards.scoring:compute_score", f"{ROOT / 'scale' / 'rewards' / 'scoring.py'}:compute_score"]
    files = [problems.reward_files(problems.load_reward(name)) for name in names]
    assert files[0] == files[1]
    scale = ROOT / "scale"
    assert {*(scale / "rewards").glob("*.py"), scale / "__init__.py", scale / "text.py"} == {*files[0]}
    assert scale / "rewards" / "comparing.py" in files[0]  # which only a worker imports
    first, second = (planning._reward_identity(x, problems.load_reward(x)) for x in names)
    assert {**first, "name": ""} == {**second, "name": ""}
