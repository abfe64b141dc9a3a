"""Sources of every kind: bad tables, files that were cut off, copies of a repository, and the hub."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scale.data import curate, datasets
from tests.scale import made_data
from tests.scale.data.prepared import ROOT, run


def test_a_copy_of_the_repository(tmp_path):
    """Of a folder with other configurations beside, the files that belong to the data set are read."""
    wanted = tmp_path / "olympiadbench" / "OlympiadBench" / "OE_TO_maths_en_COMP" / "OE_TO_maths_en_COMP.jsonl"
    other = tmp_path / "olympiadbench" / "OlympiadBench" / "OE_TO_physics_en_COMP" / "OE_TO_physics_en_COMP.jsonl"
    for path, name in ((wanted, "mathematics"), (other, "physics")):
        path.parent.mkdir(parents=True)
        made_data.write_lines(
            path, [{"question": f"Some {name}?", "final_answer": ["1", "2"], "context": "Given $x$."}]
        )
    (found,) = curate.prepare(datasets.DATASETS["olympiadbench"], tmp_path).problems
    assert (found.text, found.answer) == ("Given $x$.\nSome mathematics?", "1, 2")


def test_rows_are_numbered_through_the_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "BATCH_ROWS", 2)
    path = made_data.write_parquet(tmp_path / "x.parquet", [{"problem": x, "answer": "1"} for x in "abcde"])
    assert [(x.problem, x.number) for x in datasets.read_rows(path)] == list(zip("abcde", range(5), strict=True))
    made_data.write_parquet(path, [{"problem": x, "answer": "1" if x != "d" else ""} for x in "abcde"])
    with pytest.raises(ValueError, match="row 3: expected a text as answer"):
        list(datasets.read_rows(path))


def test_half_a_template_is_an_error(tmp_path):
    cut = [{"prompt": f"{made_data.DAPO_BEFORE}Find x.", "reward_model": {"ground_truth": "1"}}]
    for path in (
        made_data.write_parquet(tmp_path / "x.parquet", cut),
        made_data.write_lines(tmp_path / "x.jsonl", cut),
    ):
        with pytest.raises(ValueError, match=r"row 0: prompt: expected the whole template 'dapo' .* only begins so"):
            list(datasets.read_rows(path))


def table(**columns):
    return pa.table(columns)


BAD = {
    "no rows": (
        table(problem=pa.array([], pa.string()), answer=pa.array([], pa.string())),
        "at least one row, got none",
    ),
    "no answers": (table(problem=["x"], text=["y"]), "expected verl's columns .* got problem, text"),
    "no problems": (table(answer=["x"]), "expected verl's columns .* got answer"),
    "numbers for problems": (table(problem=[1], answer=["1"]), "row 0: expected a text as problem, got 1"),
    "a blank problem": (table(problem=["x", " "], answer=["1", "1"]), "row 1: expected a text as problem, got ' '"),
    "a missing answer": (table(problem=["x", "y"], answer=["1", None]), "row 1: expected a text as answer, got None"),
    "truth for an answer": (table(problem=["x"], answer=[True]), "row 0: expected a text as answer, got True"),
    "no number": (table(problem=["x"], answer=[float("nan")]), "row 0: expected a text as answer, got nan"),
    "no answer in a list": (table(problem=["x"], answer=pa.array([[]], pa.list_(pa.string()))), "row 0: .* got \\[\\]"),
    "a solution without a box": (table(problem=["x"], solution=["so 1"]), "row 0: expected a solution with .*boxed"),
    "no ground truth": (
        table(prompt=["x"], reward_model=[{"style": "rule"}]),
        "expected reward_model with a ground_truth",
    ),
    "an empty ground truth": (table(prompt=["x"], reward_model=[{"ground_truth": ""}]), "row 0: .* as answer, got ''"),
    "no messages": (table(prompt=[["x"]], reward_model=[{"ground_truth": "1"}]), "expected prompt as chat messages"),
    "two messages": (
        table(prompt=[[{"role": "user", "content": "x"}] * 2], reward_model=[{"ground_truth": "1"}]),
        "expected prompts of one message, a user's, got another number",
    ),
    "another's message": (
        table(prompt=[[{"role": "system", "content": "x"}]], reward_model=[{"ground_truth": "1"}]),
        "expected prompts of one message, a user's, got another role",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables(tmp_path, name):
    """Each is refused with its file, row and column, as Parquet and as JSON, and nothing is written."""
    found, message = BAD[name]
    pq.write_table(found, tmp_path / "x.parquet")
    made_data.write_lines(tmp_path / "x.jsonl", found.to_pylist())
    for path in (tmp_path / "x.parquet", tmp_path / "x.jsonl"):
        said = message
        if path.suffix == ".jsonl" and "prompt" in found.column_names and "ground truth" not in name:
            said = "row 0: expected a prompt of one message"
        if path.suffix == ".jsonl" and name == "no ground truth":
            said = "row 0: expected a text as answer, got None"
        if path.suffix == ".jsonl" and name == "no number":
            said = "line 1: expected readable JSON, got the number NaN"
        with pytest.raises(ValueError, match=rf"(?s){path.name}: .*{said}"):
            run("aime25", "--source", path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files(made, tmp_path, share):
    """A file that was cut off is refused, whatever its type."""
    for name in ("amc23.parquet", "aime25.jsonl", "olympiadbench.json", "minerva.csv"):
        content = (made / name).read_bytes()
        path = tmp_path / name
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=rf"{path}: "):
            run(path.stem, "--source", path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


HUB = """
import sys
from pathlib import Path
from scale.data import curate, datasets
found = curate.prepare(datasets.DATASETS["math500"], None)
print(len(found.problems), found.sources["repository"], found.sources["commit"])
"""


def hub(folder, *, offline=True):
    environ = os.environ | {"HF_HOME": str(folder), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": str(int(offline))}
    return subprocess.run([sys.executable, "-c", HUB], env=environ, capture_output=True, text=True, check=False)


def test_the_hub_s_cache(made, tmp_path):
    """What the hub's library has in its cache is used without a network; without it, the message says what to do."""
    pytest.importorskip("huggingface_hub")
    found = hub(tmp_path)
    assert (
        "math500: expected to download HuggingFaceH4/MATH-500 from the hub, got LocalEntryNotFoundError" in found.stderr
    )
    assert "give --source FILE_OR_DIR" in found.stderr
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "datasets--HuggingFaceH4--MATH-500"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots" / commit).mkdir(parents=True)
    (cached / "snapshots" / commit / "test.jsonl").write_bytes((made / "math500.jsonl").read_bytes())
    (cached / "snapshots" / commit / "README.md").write_text("")
    found = hub(tmp_path)
    assert found.stdout.split() == ["2", "HuggingFaceH4/MATH-500", commit], found.stderr


def test_without_the_hub_s_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"amc23: expected --source FILE_OR_DIR, or the package huggingface_hub"):
        run("amc23", "--out", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "problem,answer,answer\nWhat?,1,2\n", "the column answer twice"),
        ("a.csv", "problem,answer,final_answer\nWhat?,1,2\n", "row 0: expected one answer, got answer '1' and"),
        ("a.jsonl", '{"problem": "What?", "answer": 1, "answer": 2}\n', "the name 'answer' twice"),
        ("a.jsonl", '{"problem": "What?", "answer": Infinity}\n', "the number Infinity"),
        ("a.json", '[{"problem": "What?", "answer": NaN}]\n', "the number NaN"),
        ("a.json", "[" * 100_000, "recursion"),
        ("a.csv", "problem,answer\nWhat?,1\nAnd?,2", "a last line without an end"),
        (
            "a.jsonl",
            '{"problem": "What?", "answer": 1}\n{"problem": "And?", "answer": 1, "final_answer": 2}\n',
            "row 1: expected one answer, got answer 1 and final_answer 2",
        ),
        ("a.jsonl", '{"problem": "What\\ud800", "answer": 1}\n', "row 0: expected texts in Unicode"),
        ("a.json", '[{"problem": "What?", "answer": "\\udc00"}]\n', "row 0: expected texts in Unicode"),
        ("a.jsonl", '{"problem": "What?", "answer": 1, "level": "\\ud800"}\n', "row 0: expected texts in Unicode"),
    ],
    ids=lambda text: text[:30],
)
def test_what_could_be_another_answer_is_refused(name, content, said, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"^{tmp_path / name}: .*{re.escape(said)}"):
        list(datasets.read_rows(tmp_path / name))


def test_columns_of_parquet_that_could_be_another_answer(tmp_path):
    texts = [pa.array(["What?"]), pa.array(["1"]), pa.array(["2"])]
    pq.write_table(pa.table(texts, names=["problem", "answer", "answer"]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet: .* the column answer twice"):
        list(datasets.read_rows(tmp_path / "a.parquet"))
    for value in (math.inf, -math.inf, math.nan):
        pq.write_table(pa.table({"problem": ["What?"], "answer": [value]}), tmp_path / "b.parquet")
        with pytest.raises(ValueError, match=r"b.parquet: row 0: expected a text as answer, got -?(inf|nan)"):
            list(datasets.read_rows(tmp_path / "b.parquet"))


def test_numbers_of_json_keep_their_digits(tmp_path):
    spelt = {"0.1": "0.1", "2.0": "2", "3.14159265358979323846": "3.14159265358979323846", "1e999": "1e999", "7": "7"}
    lines = [f'{{"problem": "p{i}", "answer": {text}}}\n' for i, text in enumerate(spelt)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    assert [row.answer for row in datasets.read_rows(tmp_path / "a.jsonl")] == list(spelt.values())


def test_equal_answers_are_one(tmp_path):
    (tmp_path / "a.csv").write_text("problem,answer,final_answer\nWhat?,1,1\n")
    assert [row.answer for row in datasets.read_rows(tmp_path / "a.csv")] == ["1"]
