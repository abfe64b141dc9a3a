"""pass@k by brute force, and what the table says in each of its forms."""

from __future__ import annotations

import csv
import itertools
import shutil

import numpy as np
import pytest

from scale.evaluation import score_table
from scale.evaluation.problems import BenchmarkProblem
from tests.scale.evaluation.made_runs import REWARD, command, fill, model, parquet, result, rows, run_folder
from theory.claims.published import BENCHMARKS, TABLE_1
from theory.statistics import crossed_interval

# One process fills the folder of the table once.
pytestmark = [pytest.mark.needs_verl, pytest.mark.versionless, pytest.mark.xdist_group("evaluate")]


def test_samples_are_counted_by_benchmark():
    """Of two benchmarks whose problems alternate."""
    problems = [BenchmarkProblem(f"k{i}", "ab"[i % 2], [], "", {}) for i in range(4)]
    drawn = [
        {"key": f"k{i}", "sample": j, "correct": i == j, "unverified": i == 3, "finish": "length" if i else "stop"}
        | {"tokens": 10**i}
        for i, j in itertools.product(range(4), range(3))
    ]
    found = score_table.count(drawn, problems, 2)
    assert list(found) == ["a", "b"]
    for name, correct, unverified, truncated, tokens in (
        ("a", [1, 0], [0, 0], [0, 2], 202),
        ("b", [1, 0], [0, 2], [2, 2], 2020),
    ):
        counts = found[name]
        assert [x.tolist() for x in (counts.correct, counts.unverified, counts.truncated)] == [
            correct,
            unverified,
            truncated,
        ]
        assert (counts.samples, counts.tokens) == (2, tokens)


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
    for name, problems in (("a", 5), ("b", 3)):
        told = row["cells"][name]
        counts = {"problems": problems, "samples": 7, "responses": 2 * 7 * problems, "tokens": 2 * 7 * problems * 3}
        assert {x: told[x] for x in counts} == counts
    for each in k:
        average = (by_hand["a", each] + by_hand["b", each]) / 2
        assert row["cells"]["average"][f"pass@{each}"]["value"] == pytest.approx(average, abs=1e-5)


def test_further_samples_do_not_count():
    """Of three samples of each problem, as a call before this one drew them, the first two are asked for."""
    problems = [BenchmarkProblem(key, "b", [], "1", {}) for key in ("x", "y")]
    said = {"finish": "length", "tokens": 5}
    drawn = [
        {"key": key, "sample": i, "correct": i == 2 or key == "y", "unverified": i == 2, **said}
        for key in ("x", "y")
        for i in range(3)
    ]
    (found,) = score_table.count(drawn, problems, 2).values()
    assert (found.samples, found.correct.tolist(), found.tokens) == (2, [0, 2], 20)
    assert (found.unverified.tolist(), found.truncated.tolist()) == ([0, 0], [2, 2])
    (first,) = score_table.count(drawn, problems, 1).values()
    assert (first.samples, first.correct.tolist(), first.tokens) == (1, [0, 1], 10)
    with pytest.raises(ValueError, match="samples: expected 3 of every problem, got 2 of some"):
        score_table.count(drawn[:-1], problems, 3)


def test_the_share_of_truncated_responses_is_of_all_runs_and_seeds():
    cell = {"problems": 5, "samples": 4, "responses": 60, "truncated": 3}
    said = score_table.notes([{"source": "measured", "method": "M", "cells": {"b": cell}}])
    assert said[1:] == ["M, b: 5.0% of the responses end at the longest length."]


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
    # 8, 16, 24 of 32, all problems alike; the table's interval is that of these scores.
    interval = crossed_interval([np.repeat([[0.25], [0.5], [0.75]], 5, axis=1)], shares=True)
    expected = tuple(100 * float(x[0]) for x in interval)
    assert (dynamo["value"], dynamo["low"], dynamo["high"]) == pytest.approx(expected, abs=2e-3)
    assert grpo["value"] == 25.0
    assert grpo["low"] < 25.0 < grpo["high"]  # one more problem may be all wrong, or all right
    assert (base["value"], base["low"]) == (0.0, 0.0)
    assert base["high"] > 0


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
    assert markdown.splitlines()[1] == "|" + "---|" * 11
    assert "| Qwen2.5-Math-7B | DynaMO | 1 2 3 | 50.0 [6.9, 93.1] | 100.0 [18.6, 100.0] |" in markdown
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
    # A measured average over a seventh benchmark, or over five, is of other benchmarks than the paper's.
    for other in (cells | {"math_hard_of_ours": {}}, {name: {} for name in list(cells)[1:]}):
        found = score_table.published([rows[0] | {"cells": other}], [1])
        assert found
        assert all("average" not in row["cells"] for row in found)


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
