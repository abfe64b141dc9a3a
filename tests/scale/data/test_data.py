"""Preparation of data: every problem once, nothing lost uncounted, bad sources refused before anything is written."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings, strategies as st
from rich.console import Console

from scale.data import curate, datasets, prepare, text_keys
from scale.evaluation.problems import read_problems
from scale.launch.checks import check_prompts
from tests.scale import made_data

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_data.make_sources(tmp_path_factory.mktemp("made"))


def run(*arguments, capture=None):
    """Run the command; returns its status, or raises its error."""
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    with open(os.devnull, "w") as nothing:
        return prepare.command(
            parser.parse_args([str(x) for x in arguments]), Console(file=capture or nothing, width=200)
        )


def rows(path):
    return pq.read_table(path).to_pylist()


def manifest(out, name="dapo-math-17k"):
    return json.loads((out / f"{name}.manifest.json").read_text())


# What comes out


def test_every_made_data_set(made, tmp_path):
    """Each schema that is around is read; counts, answers and details are right, and verl's side can use the files."""
    assert run("--source", made, "--out", tmp_path) == 0
    assert manifest(tmp_path)["counts"] == made_data.EXPECTED["dapo-math-17k"]
    for name, problems in made_data.BENCHMARKS.items():
        path = tmp_path / f"{name}.parquet"
        assert [x.prompt[0]["content"].split("\n")[0] for x in read_problems(path)] == [p for p, _ in problems]
        assert {row["data_source"] for row in rows(path)} == {name}
        check_prompts(path, 2)
        assert manifest(tmp_path, name)["counts"]["kept"] == 2
    answers = {name: [x.answer for x in read_problems(tmp_path / f"{name}.parquet")] for name in made_data.BENCHMARKS}
    assert answers == {
        "aime24": ["025", "073"],
        "aime25": ["100", "8"],
        "amc23": ["27", "6"],
        "math500": ["\\frac{1}{2}", "\\{-2,2\\}"],
        "minerva": ["3 \\times 10^{8} \\mathrm{m/s}", "1.5"],
        "olympiadbench": ["$3,4$", "$[0, \\infty)$"],
    }
    details = [json.loads(row["extra_info"]["details"]) for row in rows(tmp_path / "math500.parquet")]
    assert details[1] == {"level": "3", "subject": "Algebra", "unique_id": "1"}
    check_prompts(tmp_path / "dapo-math-17k.parquet", 6)


def test_row(made, tmp_path):
    """A row, value by value; the key is a hash that anyone can compute."""
    run("dapo-math-17k", "--source", made, "--out", tmp_path)
    assert rows(tmp_path / "dapo-math-17k.parquet")[1] == {
        "data_source": "dapo-math-17k",
        "prompt": [
            {
                "role": "user",
                "content": "Find the remainder of $7^{100}$ divided by $5$.\n"
                "Please reason step by step, and put your final answer within \\boxed{}.",
            }
        ],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "1"},
        "extra_info": {
            "key": hashlib.sha256(b"Find the remainder of $7^{100}$ divided by $5$.").hexdigest()[:16],
            "index": 1,
            "split": "train",
            "language": "en",
            "problem": "Find the remainder of $7^{100}$ divided by $5$.",
            "source_row": 2,
            "copies": 5,
            "details": "{}",
        },
    }


def test_conflicts_are_listed(made, tmp_path):
    """A problem with two answers is gone, and listed with both; one whose answers are spelt differently stays."""
    run("dapo-math-17k", "--source", made, "--out", tmp_path)
    (line,) = map(json.loads, (tmp_path / "dapo-math-17k.conflicts.jsonl").read_text().splitlines())
    assert (line["problem"], line["answers"]) == (made_data.CONFLICT, {"7": 5, "6": 5})
    kept = {
        row["extra_info"]["problem"]: row["extra_info"]["copies"] for row in rows(tmp_path / "dapo-math-17k.parquet")
    }
    assert made_data.CONFLICT not in kept
    assert kept["Find $|{-5}|$."] == kept["What is $17 + 25$?"] == 10


def test_manifest(made, tmp_path):
    """It has the files' hashes, the template, versions and what was asked; twice gives the same bytes."""
    for name in ("one", "two"):
        run("--source", made, "--out", tmp_path / name, "--language", "en", "--template", "qwen25-math-cot")
    found = manifest(tmp_path / "one")
    for name, output in found["outputs"].items():
        content = (tmp_path / "one" / name).read_bytes()
        assert output == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (source,) = found["sources"]["files"]
    assert source["sha256"] == hashlib.sha256((made / "dapo-math-17k.parquet").read_bytes()).hexdigest()
    assert found["template"] == {"name": "qwen25-math-cot", "before": "", "after": "", "system": text_keys.BOXED}
    assert found["settings"] == {"language": "en", "drop_overlap": False}
    assert {"python", "pyarrow", "dynamo-testbed"} <= found["versions"].keys()
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 3 * 7
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_languages(made, tmp_path):
    """English and Chinese problems make up all, and what is left out is counted."""
    keys = {}
    for choice in ("en", "zh", "all"):
        run("dapo-math-17k", "--source", made, "--out", tmp_path / choice, "--language", choice)
        keys[choice] = {row["extra_info"]["key"] for row in rows(tmp_path / choice / "dapo-math-17k.parquet")}
        counts = manifest(tmp_path / choice)["counts"]
        dropped = ("duplicates", "conflicts", "other_language", "overlap", "kept")
        assert sum(counts[name] for name in dropped) == counts["rows"] == 50
    assert {name: len(x) for name, x in keys.items()} == {"en": 4, "zh": 2, "all": 6}
    assert keys["en"] | keys["zh"] == keys["all"]


@pytest.mark.parametrize("template", text_keys.TEMPLATES)
def test_keys_do_not_depend_on_the_template(made, tmp_path, template):
    run("dapo-math-17k", "--source", made, "--out", tmp_path, "--template", template)
    found = rows(tmp_path / "dapo-math-17k.parquet")
    assert [row["extra_info"]["key"] for row in found] == [
        hashlib.sha256(x.encode()).hexdigest()[:16]
        for x in (
            "What is $17 + 25$?",
            "Find the remainder of $7^{100}$ divided by $5$.",
            "求 $x$ 的值:$2x=6$。",
            "求 $1+2+\\cdots+10$。",
            "Find $|{-5}|$.",
            "How many positive divisors does $12$ have?",
        )
    ]
    assert all(row["extra_info"]["problem"] in row["prompt"][-1]["content"] for row in found)


def test_the_dapo_template_is_the_source_s(made, tmp_path):
    """Taken off and put on again, it is what the source has."""
    run("dapo-math-17k", "--source", made, "--out", tmp_path, "--template", "dapo")
    contents = [row["prompt"][0]["content"] for row in rows(made / "dapo-math-17k.parquet")[:10]]
    assert [row["prompt"][0]["content"] for row in rows(tmp_path / "dapo-math-17k.parquet")] == [
        contents[n] for n in (0, 2, 5, 6, 7, 9)
    ]


problems = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(["1", "01", "2"]), st.sampled_from(["", " ", "\n"])),
    min_size=1,
    max_size=30,
)


@settings(max_examples=25, deadline=None)
@given(problems, st.integers(1, 7))
def test_folding_changes_nothing(tmp_path_factory, drawn, batch):
    """Copies folded in batches of any size, as Parquet, give what rows one by one give, as JSON, whatever the order."""
    folder = tmp_path_factory.mktemp("folding")
    listed = made_data.dapo_rows([(f"Find {space}{name}.", answer) for name, answer, space in drawn], copies=2)
    made_data.write_parquet(folder / "x.parquet", listed)
    made_data.write_lines(folder / "x.jsonl", listed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "BATCH", batch)
        folded, texts = curate.merge(datasets.read_rows(folder / "x.parquet"))
    plain, plain_texts = curate.merge(datasets.read_rows(folder / "x.jsonl"))
    assert (folded, texts) == (plain, plain_texts)
    assert sum(x.copies for x in folded) == 2 * len(drawn)
    assert len(folded) == len({name for name, *_ in drawn})
    backwards, _ = curate.merge(reversed(list(datasets.read_rows(folder / "x.jsonl"))))
    by_key = {x.key: (x.answers, x.conflicting) for x in backwards}
    assert by_key == {x.key: (x.answers, x.conflicting) for x in folded}


def test_files_of_a_folder_are_one_source(tmp_path):
    """Rows are numbered through, and copies in two files are copies."""
    (tmp_path / "aime25" / "parts").mkdir(parents=True)
    made_data.write_lines(
        tmp_path / "aime25" / "parts" / "1.jsonl", [{"problem": "a", "answer": 1}, {"problem": "b", "answer": 2}]
    )
    made_data.write_lines(
        tmp_path / "aime25" / "parts" / "2.jsonl", [{"problem": "b", "answer": 2}, {"problem": "c", "answer": 3}]
    )
    found = curate.prepare(datasets.DATASETS["aime25"], tmp_path)
    assert [(x.text, x.number, x.copies) for x in found.problems] == [("a", 0, 1), ("b", 1, 2), ("c", 3, 1)]


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


def test_answers_that_cannot_be_read(tmp_path):
    """They are found before a run, which would never reward another spelling; without Math-Verify, not looked for."""
    answers = ["1", "025", "是", r"50\%", r"\frac{1}{2}", "$3$, $4$", r"\frac{1}{", "[0, \\infty)"]
    made_data.write_lines(tmp_path / "math500.jsonl", [{"problem": f"Find {x}", "answer": x} for x in answers])
    with (tmp_path / "said.txt").open("w") as said:
        run("math500", "--source", tmp_path, "--out", tmp_path / "out", capture=said)
    found = manifest(tmp_path / "out", "math500")["unreadable"]
    if find_spec("math_verify") is None:
        assert found is None
    else:
        assert found == [text_keys.prompt_key(r"Find \frac{1}{")]
        assert "math500: Math-Verify cannot read 1 of the right answers" in (tmp_path / "said.txt").read_text()


# Texts


@example("a\u200b\u0301 ａ\u0301")  # a letter and an accent that become one
@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_normal_form(text):
    """It is its own normal form, and spaces and widths do not change it."""
    form = text_keys.normalize(text)
    assert text_keys.normalize(form) == form
    assert text_keys.normalize(f"  {text}\n\u3000") == form
    wide = "".join(chr(ord(x) + 0xFEE0) if "!" <= x <= "~" else x for x in form)
    assert text_keys.prompt_key(wide) == text_keys.prompt_key(form)


@pytest.mark.parametrize(("one", "other"), [("x²", "x2"), ("x", "X"), ("1 2", "12"), ("a-b", "ab"), ("½", "1/2")])
def test_different_problems_stay_different(one, other):
    assert text_keys.prompt_key(one) != text_keys.prompt_key(other)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("025", "25", True),
        ("27.0", "27", True),
        (" $3$ ", "3", True),
        ("-0", "0", True),
        ("1.50", "1.5", True),
        ("\\frac{1} {2}", "\\frac{1}{2}", True),
        ("3", "-3", False),
        ("10", "1", False),
        ("0.5", "\\frac{1}{2}", False),
        ("1,2", "2,1", False),
    ],
)
def test_answers_that_agree(one, other, same):
    """Only spellings that are surely the same agree."""
    assert (text_keys.answer_form(one) == text_keys.answer_form(other)) is same


def test_a_template_is_taken_off_whole():
    """Whatever spaces end the message; a text without it is left alone."""
    posed = text_keys.TEMPLATES["dapo"].messages("Find $x$.")[0]["content"]
    assert text_keys.strip_template(f"{posed} \n") == "Find $x$."
    assert text_keys.strip_template("Find $x$. ") == "Find $x$. "


def test_half_a_template_is_an_error(tmp_path):
    cut = [{"prompt": f"{made_data.DAPO_BEFORE}Find x.", "reward_model": {"ground_truth": "1"}}]
    for path in (
        made_data.write_parquet(tmp_path / "x.parquet", cut),
        made_data.write_lines(tmp_path / "x.jsonl", cut),
    ):
        with pytest.raises(ValueError, match=r"row 0: prompt: expected the whole template 'dapo' .* only begins so"):
            list(datasets.read_rows(path))


# Known counts and overlap


@pytest.mark.parametrize(
    ("name", "rows", "texts", "said"),
    [
        ("dapo-math-17k", 1_791_700, 17_398, []),
        ("dapo-math-17k", 17_398, 17_398, []),
        ("aime24", 960, 30, []),
        ("olympiadbench", 675, 675, ["675: the file of Qwen2.5-Math"]),
        ("amc23", 83, 83, ["expected 40 problems (math-ai/amc23), got 83: AMC 2022 and 2023 together"]),
        ("math500", 499, 499, ["got 499: 1 missing"]),
        ("dapo-math-17k", 20_000, 17_400, ["expected 17,398 problems", "got 17,400: 2 too many"]),
        ("aime25", 60, 30, ["expected a file of 30 (AIME 2025) rows, got 60; its 30 problems are as known"]),
    ],
)
def test_known_counts(name, rows, texts, said):
    found = curate.check_counts(datasets.DATASETS[name], rows, texts)
    assert len(found) == bool(said)
    for part in said:
        assert part in found[0]


def test_strict_refuses_other_counts(made, tmp_path):
    """By default they are a warning, printed and kept; with --strict nothing is written."""
    with pytest.raises(ValueError, match=r"aime25: expected 30 problems .* got 2: 28 missing"):
        run("aime25", "--source", made, "--out", tmp_path / "strict", "--strict")
    assert not (tmp_path / "strict").exists()
    with (tmp_path / "said.txt").open("w") as said:
        assert run("aime25", "--source", made, "--out", tmp_path, capture=said) == 0
    assert (
        "warning: aime25: expected 30 problems (math-ai/aime25), got 2: 28 missing"
        in (tmp_path / "said.txt").read_text()
    )
    assert manifest(tmp_path, "aime25")["warnings"] == [
        "aime25: expected 30 problems (math-ai/aime25), got 2: 28 missing"
    ]


@pytest.mark.parametrize("together", [True, False])
def test_overlap_with_benchmarks(made, tmp_path, together):
    """A benchmark's problem among the training problems is reported, and dropped if asked, also if prepared before."""
    key = text_keys.prompt_key("How many positive divisors does $12$ have?")
    if not together:
        run("amc23", "--source", made, "--out", tmp_path)
    chosen = ["amc23", "dapo-math-17k"] if together else ["dapo-math-17k"]
    run(*chosen, "--source", made, "--out", tmp_path)
    assert manifest(tmp_path)["overlap"] == {"amc23": [key]}
    assert manifest(tmp_path)["counts"]["kept"] == 6
    run(*chosen, "--source", made, "--out", tmp_path, "--drop-overlap", "--force")
    found = manifest(tmp_path)
    assert (found["overlap"], found["counts"]["overlap"], found["counts"]["kept"]) == ({"amc23": [key]}, 1, 5)
    assert key not in {row["extra_info"]["key"] for row in rows(tmp_path / "dapo-math-17k.parquet")}


# Bad sources


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


def test_a_bad_data_set_spoils_the_others(made, tmp_path):
    """All are read before the first is written."""
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "dapo-math-17k.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="expected a whole Parquet file"):
        run("--source", tmp_path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_calls(made, tmp_path):
    cases = [
        (["mnist"], "dataset: expected one of aime24, .*got 'mnist'"),
        (["--source", made / "amc23.parquet"], "source: expected a folder for 7 data sets, got the file"),
        (["amc23", "--source", tmp_path / "none"], "none: expected a file or folder with amc23, got none"),
        (["amc23", "--source", tmp_path], "expected amc23.parquet, .jsonl, .json or .csv, or a folder amc23"),
        (["aime24", "--source", made, "--language", "zh"], "expected problems in the language 'zh', got none of 2"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            run(*arguments, "--out", tmp_path / "out")
    (tmp_path / "amc23.txt").touch()
    with pytest.raises(
        ValueError, match=r"amc23.txt: expected a file of type .parquet, .jsonl, .json, .csv, got '.txt'"
    ):
        run("amc23", "--source", tmp_path / "amc23.txt", "--out", tmp_path / "out")
    for suffix in (".csv", ".jsonl"):
        (tmp_path / f"amc23{suffix}").touch()
    with pytest.raises(ValueError, match=r"expected one file for amc23, .* got amc23.csv, amc23.jsonl"):
        run("amc23", "--source", tmp_path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"out: expected a folder, got the file .*amc23.txt"):
        run("amc23", "--source", made, "--out", tmp_path / "amc23.txt")


def test_nothing_is_overwritten(made, tmp_path):
    """Not without --force, not by half, and before anything is read."""
    run("amc23", "--source", made, "--out", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        ValueError, match=r"amc23.parquet: expected no such file, got one and 2 others; --force replaces"
    ):
        run("--source", made / "none", "--out", tmp_path, "--template", "plain")
    (tmp_path / "bad.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match="expected a whole Parquet file"):
        run("amc23", "--source", tmp_path / "bad.parquet", "--out", tmp_path, "--force")
    (tmp_path / "bad.parquet").unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    run("amc23", "--source", made, "--out", tmp_path, "--template", "plain", "--force")
    assert manifest(tmp_path, "amc23")["template"]["name"] == "plain"


def test_a_killed_call_leaves_no_manifest(made, tmp_path, monkeypatch):
    """A manifest stands for whole files beside it; what is being replaced has none."""
    run("amc23", "--source", made, "--out", tmp_path)

    def full(path, content):
        raise OSError("the disk is full")

    monkeypatch.setattr(prepare, "write_atomically", full)
    with pytest.raises(OSError, match="the disk is full"):
        run("amc23", "--source", made, "--out", tmp_path, "--force")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["amc23.conflicts.jsonl", "amc23.parquet"]


# The hub


HUB = """
import sys
from pathlib import Path
from scale.data import curate, sources
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


def test_imports_are_light():
    """Preparing data and scoring need neither verl nor vLLM, torch nor a hub's library."""
    code = (
        "import sys, scale.data.prepare, scale.rewards.scoring; "
        "print([x for x in ('verl', 'vllm', 'ray', 'torch', 'datasets', 'huggingface_hub', 'sympy', 'math_verify') "
        "if x in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
