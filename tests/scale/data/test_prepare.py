"""Preparation of data: every problem once, nothing lost uncounted, bad sources refused before anything is written."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from scale.data import curate, datasets, prepare, text_keys
from scale.evaluation.problems import read_problems
from scale.launch.checks import check_prompts
from tests.scale import made_data
from tests.scale.data.prepared import ROOT, manifest, rows, run
from theory.base.terminal import Console


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
            "template": "boxed",
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
    for name, output in found["files"].items():
        content = (tmp_path / "one" / name).read_bytes()
        assert output == hashlib.sha256(content).hexdigest()
    (source,) = found["sources"]["files"]
    assert source["sha256"] == hashlib.sha256((made / "dapo-math-17k.parquet").read_bytes()).hexdigest()
    assert found["template"] == {"name": "qwen25-math-cot", "before": "", "after": "", "system": text_keys.BOXED}
    assert found["settings"] == {"language": "en", "drop_overlap": False, "drop_unreadable": False}
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
        dropped = ("duplicates", "conflicts", "other_language", "unreadable", "overlap", "kept")
        assert sum(counts[name] for name in dropped) == counts["rows"] == 50
        assert manifest(tmp_path / choice)["languages"] == {
            name: count for name, count in (("en", 4), ("zh", 2)) if choice in (name, "all")
        }
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


@pytest.mark.parametrize("template", text_keys.TEMPLATES)
def test_what_is_written_can_be_read(made, tmp_path, template):
    """By any template: the same problems, keys and answers, and the same overlap, for training and for benchmarks."""
    run("amc23", "dapo-math-17k", "--source", made, "--out", tmp_path / "one", "--template", template)
    run("amc23", "dapo-math-17k", "--source", tmp_path / "one", "--out", tmp_path / "two", "--template", "plain")
    for name in ("amc23", "dapo-math-17k"):
        first, second = (rows(tmp_path / folder / f"{name}.parquet") for folder in ("one", "two"))
        assert [x["reward_model"] for x in first] == [x["reward_model"] for x in second]
        for same in ("key", "problem"):
            assert [x["extra_info"][same] for x in first] == [x["extra_info"][same] for x in second]
        assert {x["extra_info"]["template"] for x in first} == {template}
        plain = [text_keys.TEMPLATES["plain"].messages(x["extra_info"]["problem"]) for x in first]
        assert [x["prompt"] for x in second] == plain
    assert manifest(tmp_path / "one")["overlap"] == manifest(tmp_path / "two")["overlap"]
    assert len(manifest(tmp_path / "two")["overlap"]["amc23"]) == 1


def test_the_dapo_template_is_the_source_s(made, tmp_path):
    """Taken off and put on again, it is what the source has."""
    run("dapo-math-17k", "--source", made, "--out", tmp_path, "--template", "dapo")
    contents = [row["prompt"][0]["content"] for row in rows(made / "dapo-math-17k.parquet")[:10]]
    assert [row["prompt"][0]["content"] for row in rows(tmp_path / "dapo-math-17k.parquet")] == [
        contents[n] for n in (0, 2, 5, 6, 7, 9)
    ]


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
        assert found == {text_keys.prompt_key(r"Find \frac{1}{"): r"\frac{1}{"}
        assert "math500: Math-Verify cannot read 1 of the right answers" in (tmp_path / "said.txt").read_text()


@pytest.mark.skipif(find_spec("math_verify") is None, reason="without Math-Verify no answer is unreadable")
@pytest.mark.parametrize(("name", "kept"), [("dapo-math-17k", ["a", "c"]), ("math500", ["a", "b", "c"])])
def test_answers_that_cannot_be_read_are_dropped_if_asked(tmp_path, name, kept):
    """Only from what is trained on; a benchmark stays whole. A person sees each, and the manifest counts them."""
    found = [{"problem": x, "answer": y} for x, y in (("a", "1"), ("b", "\\frac{7}{"), ("c", "2"))]
    source = made_data.write_lines(tmp_path / f"{name}.jsonl", found)
    for option in ([], ["--drop-unreadable", "--force"]):
        with (tmp_path / "said.txt").open("w") as said:
            run(name, "--source", source, "--out", tmp_path / "out", *option, capture=said)
        listed = [row["extra_info"]["problem"] for row in rows(tmp_path / "out" / f"{name}.parquet")]
        assert listed == (kept if option else ["a", "b", "c"])
        counts = manifest(tmp_path / "out", name)["counts"]
        assert (counts["unreadable"], counts["kept"]) == (3 - len(listed), len(listed))
        dropped = ("duplicates", "conflicts", "other_language", "unreadable", "overlap", "kept")
        assert sum(counts[x] for x in dropped) == counts["rows"] == 3
        key = text_keys.prompt_key("b")
        assert manifest(tmp_path / "out", name)["unreadable"] == {key: "\\frac{7}{"}
        shown = (tmp_path / "said.txt").read_text()
        assert f"  {key}  \\frac{{7}}{{\n" in shown
        assert ("; dropped." in shown) == (len(listed) == 2)


def test_of_many_answers_that_cannot_be_read_the_first_are_shown(tmp_path):
    found = [{"problem": f"p{n}", "answer": f"\\frac{{{n}}}{{"} for n in range(prepare.SHOWN_ANSWERS + 3)]
    made = curate.prepare(
        datasets.DATASETS["math500"], made_data.write_lines(tmp_path / "x.jsonl", found), can_read=lambda answer: False
    )
    with (tmp_path / "said.txt").open("w") as said:
        prepare.report([made], tmp_path, Console(file=said, width=200))
    shown = (tmp_path / "said.txt").read_text()
    assert shown.count("\\frac{") == prepare.SHOWN_ANSWERS
    assert f"  and 3 more, by key in unreadable of {tmp_path / 'math500.manifest.json'}" in shown


def test_dropping_needs_a_reader_and_leaves_something(tmp_path):
    source = made_data.write_lines(tmp_path / "x.jsonl", [{"problem": "a", "answer": "1"}])
    dataset = datasets.DATASETS["dapo-math-17k"]
    with pytest.raises(ValueError, match=r"drop_unreadable: expected Math-Verify, .* got none"):
        curate.prepare(dataset, source, drop_unreadable=True)
    with pytest.raises(ValueError, match="dapo-math-17k: expected a right answer that can be read, got none of 1"):
        curate.prepare(dataset, source, can_read=lambda answer: False, drop_unreadable=True)


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


def test_overlap_is_with_the_benchmark_of_this_call(made, tmp_path):
    """Not with the file that it replaces."""
    other = made_data.write_lines(tmp_path / "other.jsonl", [{"problem": "Find $9^9$.", "answer": "1"}])
    run("amc23", "--source", other, "--out", tmp_path / "out")
    run("amc23", "dapo-math-17k", "--source", made, "--out", tmp_path / "out", "--force")
    assert len(manifest(tmp_path / "out")["overlap"]["amc23"]) == 1


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
    with pytest.raises(ValueError, match=r"bad.parquet: expected a Parquet file, got an empty one"):
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


def test_imports_are_light():
    """Preparing data and scoring need neither verl nor vLLM, torch nor a hub's library."""
    code = (
        "import sys, scale.data.prepare, scale.rewards.scoring; "
        "print([x for x in ('verl', 'vllm', 'ray', 'torch', 'datasets', 'huggingface_hub', 'sympy', 'math_verify') "
        "if x in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
