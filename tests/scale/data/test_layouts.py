"""Problems and answers in every layout of columns that is around, alike in Parquet, JSON and CSV."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scale.data import formats, layouts, text_keys
from tests.scale import made_data
from tests.scale.data.prepared import run


def test_half_a_template_is_an_error(tmp_path):
    cut = [{"prompt": f"{made_data.DAPO_BEFORE}Find x.", "reward_model": {"ground_truth": "1"}}]
    for path in (
        made_data.write_parquet(tmp_path / "x.parquet", cut),
        made_data.write_lines(tmp_path / "x.jsonl", cut),
    ):
        with pytest.raises(ValueError, match=r"row 0: prompt: expected the whole template 'dapo' .* only begins so"):
            list(layouts.read_rows(path))


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
        "row 0: expected reward_model with a ground_truth, got",
    ),
    "an empty ground truth": (table(prompt=["x"], reward_model=[{"ground_truth": ""}]), "row 0: .* as answer, got ''"),
    "no messages": (table(prompt=[["x"]], reward_model=[{"ground_truth": "1"}]), "row 0: .* got a list of texts"),
    "two messages": (
        table(prompt=[[{"role": "user", "content": "x"}] * 2], reward_model=[{"ground_truth": "1"}]),
        "row 0: expected prompt as chat messages of a user, .* got several turns: user, user",
    ),
    "another's message": (
        table(prompt=[[{"role": "system", "content": "x"}]], reward_model=[{"ground_truth": "1"}]),
        "row 0: expected prompt as chat messages of a user, .* got system",
    ),
}


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("name", BAD)
def test_bad_tables(tmp_path, name, suffix):
    """Each is refused with its file, row and column, as Parquet and as JSON, and nothing is written."""
    found, said = BAD[name]
    path = tmp_path / f"x{suffix}"
    if suffix == ".parquet":
        pq.write_table(found, path)
    else:
        made_data.write_lines(path, found.to_pylist())
        if name == "no number":
            said = "line 1: expected readable JSON, got the number NaN"
    with pytest.raises(ValueError, match=rf"(?s){path.name}: .*{said}"):
        run("aime25", "--source", path, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


REQUEST = text_keys.TEMPLATES["verl-boxed"].after
USER = [{"role": "user", "content": "What?"}]
SYSTEM = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"What?{REQUEST}"}]
RULE = {"style": "rule", "ground_truth": "7"}

READ = {
    "verl": {"prompt": USER, "reward_model": RULE},
    "verl with a request": {"prompt": [{"role": "user", "content": f"What?{REQUEST}"}], "reward_model": RULE},
    "a system's message": {"prompt": SYSTEM, "reward_model": RULE},
    "a prompt as text": {"prompt": f"What?\n{REQUEST.strip()}", "reward_model": RULE},
    "JSON as text": {"prompt": json.dumps(SYSTEM), "reward_model": json.dumps(RULE)},
    "a problem beside a reward": {"problem": "What?", "reward_model": RULE},
    "a number": {"prompt": USER, "reward_model": {"ground_truth": 7}},
    "a whole float": {"prompt": USER, "reward_model": {"ground_truth": 7.0}},
    "a list": {"prompt": USER, "reward_model": {"ground_truth": ["7"]}},
    "a list of equal answers": {"prompt": USER, "reward_model": {"ground_truth": ["7", "07", "$7$"]}},
    "a struct": {"prompt": USER, "reward_model": {"ground_truth": {"target": ["7"], "style": None}}},
    "a list as text": {"prompt": USER, "reward_model": {"ground_truth": '["7"]'}},
    "a list as Python writes it": {"problem": "What?", "answer": "['7']"},
    "a list of objects": {"prompt": USER, "reward_model": {"ground_truth": [{"value": "7"}]}},
    "a struct as text": {"prompt": USER, "reward_model": {"ground_truth": '{"value": 7}'}},
    "one message": {"prompt": USER[0], "reward_model": RULE},
    "JSON, the role last": {"prompt": json.dumps([{"name": None, "content": "What?", "role": "user"}]), "label": "7"},
    "one message as text": {"prompt": json.dumps(USER[0]), "reward_model": RULE},
    "slime": {"prompt": USER, "label": "7"},
    "slime's DAPO-Math-17k": {
        "prompt": [{**text_keys.OTHERS["slime"].messages("What?")[0], "step_loss_mask": 1}],
        "label": "7",
    },
    "slime with text": {"prompt": f"What?{REQUEST}", "label": 7},
    "OpenRLHF": {"input": "What?", "label": "7"},
    "parts of a message": {"prompt": [{"role": "user", "content": [{"type": "text", "text": "What?"}]}], "label": "7"},
    "TRL": {"prompt": USER, "solution": "7"},
    "TRL with a box": {"prompt": USER, "solution": r"It is $\boxed{7}$."},
    "AReaL": {"messages": USER, "solutions": [r"So \boxed{7}.", r"\boxed{7}"]},
    "NuminaMath": {"problem": "What?", "solution": r"So \boxed{7}.", "answer": "7", "messages": [*USER, *USER]},
    "NuminaMath-CoT": {"problem": "What?", "solution": r"\boxed{5}? No, \boxed{7}", "messages": [*USER, *USER]},
    "GSM8K": {"question": "What?", "answer": "Add 3 and 4.\n3 + 4 = <<3+4=7>>7\n#### 7"},
    "steps alone": {"question": "What?", "answer": "#### 7"},
    "a request in a column of problems": {"problem": f"What?{REQUEST}", "answer": "7"},
    "a blank context": {"problem": "What?", "answer": "7", "context": " "},
    "other answers that are missing": {"problem": "What?", "answer": "7", "final_answer": None, "ground_truth": "07"},
}


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
@pytest.mark.parametrize("name", READ)
def test_layouts_that_are_around(tmp_path, name, suffix):
    """In each format alike; with another row, so that a batch does not hang on one."""
    (row,) = read(tmp_path / f"x{suffix}", [READ[name]])
    assert (row.problem.rstrip(), row.answer) == ("What?", "7")
    first, second = read(tmp_path / f"x{suffix}", [READ[name], READ[name]])[:1] * 2
    assert first == second
    assert sum(x.copies for x in read(tmp_path / f"x{suffix}", [READ[name]] * 3)) == 3


def read(path, found):
    if path.suffix == ".parquet":
        made_data.write_parquet(path, found)
    elif path.suffix == ".json":
        path.write_text(json.dumps(found))
    else:
        made_data.write_lines(path, found)
    return list(layouts.read_rows(path))


@pytest.mark.parametrize(
    ("types", "value", "answer"),
    [
        (pa.float32(), 0.1, "0.1"),
        (pa.float16(), 0.5, "0.5"),
        (pa.float64(), 0.1, "0.1"),
        (pa.int8(), -7, "-7"),
        (pa.decimal128(10, 2), Decimal("1.50"), "1.5"),
        (pa.decimal128(10, 2), Decimal("20.00"), "20"),
        (pa.decimal128(38, 30), Decimal("1e-7"), "0.0000001"),
        (pa.decimal128(38, 1), Decimal(f"{'12345' * 7}.5"), f"{'12345' * 7}.5"),
        (pa.decimal128(10, 0), Decimal(20), "20"),
        (pa.large_string(), "7", "7"),
        (pa.string_view(), "7", "7"),
        (pa.dictionary(pa.int32(), pa.string()), "7", "7"),
        (pa.list_(pa.float32()), [0.1], "0.1"),
        (pa.large_list(pa.large_string()), ["7"], "7"),
        (pa.struct({"value": pa.float32()}), {"value": 0.1}, "0.1"),
        (pa.large_list(pa.float32()), [0.1], "0.1"),
        (pa.list_(pa.float32(), 1), [0.1], "0.1"),
        (pa.struct({"value": pa.list_(pa.float32(), 1)}), {"value": [0.1]}, "0.1"),
        (pa.map_(pa.string(), pa.float32()), [("value", 0.1)], "0.1"),
        (pa.map_(pa.string(), pa.string()), [("target", "7")], "7"),
        (pa.list_(pa.struct({"value": pa.float32()})), [{"value": 0.1}, {"value": 0.1}], "0.1"),
    ],
    ids=str,
)
def test_types_of_parquet(tmp_path, types, value, answer):
    """In a column of its own, and in a reward_model; equal digits, whatever the type."""
    values = pa.array([value], types)
    problems = pa.array(["What?"], pa.large_string())
    pq.write_table(pa.table({"problem": problems, "answer": values}), tmp_path / "a.parquet")
    reward = pa.StructArray.from_arrays([values], ["ground_truth"])
    pq.write_table(pa.table({"prompt": pa.array([USER]), "reward_model": reward}), tmp_path / "b.parquet")
    for name in "ab":
        assert [(x.problem, x.answer) for x in layouts.read_rows(tmp_path / f"{name}.parquet")] == [("What?", answer)]


def test_types_of_messages(tmp_path):
    """Large, fixed and dictionary-encoded types, and a map in place of a struct."""
    message = pa.struct({"role": pa.large_string(), "content": pa.dictionary(pa.int32(), pa.string())})
    reward = pa.array([[("style", "rule"), ("ground_truth", "7")]], pa.map_(pa.string(), pa.string()))
    fields = pa.map_(pa.string(), pa.string())
    maps = pa.array([[list(USER[0].items())]], pa.list_(fields)), pa.array([list(USER[0].items())], fields)
    for prompt in (pa.array([USER], pa.large_list(message)), pa.array([USER], pa.list_(message, 1)), *maps):
        pq.write_table(pa.table({"prompt": prompt, "reward_model": reward}), tmp_path / "a.parquet")
        assert [(x.problem, x.answer) for x in layouts.read_rows(tmp_path / "a.parquet")] == [("What?", "7")]


@pytest.mark.parametrize(
    "solution",
    ["True", "No", r"$\frac{1}{2}$", r"$y = 2x$", r"\frac{2}{3}", "(1, 2)", r"3 \text{ cm}", r"$x \text{or} y$"],
)
def test_a_solution_may_be_the_answer_alone(tmp_path, solution):
    """As TRL's data have it."""
    (row,) = read(tmp_path / "a.jsonl", [{"prompt": USER, "solution": solution}])
    assert row.answer == solution


@pytest.mark.parametrize("answer", [r"['\frac{1}{2}']", r"['\\frac{1}{2}']", r'["\\frac{1}{2}"]'])
def test_a_command_in_a_list_as_text(tmp_path, answer):
    """With the backslash as Python and JSON write it; else it is refused, as a list whose text was damaged."""
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["problem", "answer"], ["What?", answer]])
    if "\\\\" in answer:
        assert [x.answer for x in layouts.read_rows(path)] == [r"\frac{1}{2}"]
    else:
        with pytest.raises(ValueError, match="row 0: answer: expected readable JSON"):
            list(layouts.read_rows(path))


@pytest.mark.parametrize("answer", ["[1, 2]", "{1, 2}", "['1", r"\{1, 2\}", "['a'] and ['b'", '{"a", "b"}', "[7]"])
def test_a_text_that_is_no_list_of_texts(tmp_path, answer):
    (row,) = read(tmp_path / "a.jsonl", [{"problem": "What?", "answer": answer}])
    assert row.answer == answer


@pytest.mark.parametrize("solution", ["Saturday", "x = 5", "5 hours", "even", "A = 3, B = 4", r"\boxed{even}"])
def test_the_solutions_of_big_math_are_answers(tmp_path, solution):
    """Of open-r1's copy, where words are answers too; a box is still read."""
    (row,) = read(tmp_path / "a.jsonl", [{"prompt": "What?", "solution": solution, "llama8b_solve_rate": 0.5}])
    assert row.answer == solution.removeprefix(r"\boxed{").removesuffix("}")


@pytest.mark.parametrize("solution", ["It is 5", "2 + 3 = 5", "$2 + 3$ is $5$", "1\n2", "Yes, 5", "1 " * 101])
def test_a_text_about_the_answer_is_none(tmp_path, solution):
    with pytest.raises(ValueError, match=r"row 0: expected a solution with \\boxed"):
        read(tmp_path / "a.jsonl", [{"prompt": USER, "solution": solution}])


def test_values_that_are_nested_too_deeply_for_the_interpreter(monkeypatch):
    """Its depth is another in every version, so a reader may give what cannot be shown."""
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert formats.shown(deep) == "a list that is nested too deeply"
    cases = [({"answer": deep}, "a text as answer, got a list"), ({"answer": "7", "level": deep}, "a problem and")]
    for more, said in cases:
        records = [formats.Record(4, 1, {"problem": "What?", **more})]
        monkeypatch.setattr(layouts, "read_records", lambda path, wanted, records=records: iter(records))
        with pytest.raises(ValueError, match=f"^a.json: row 4: expected {said}.* nested too deeply"):
            list(layouts.read_rows(Path("a.json")))


def test_joined_boxes_are_one_answer(tmp_path):
    """The last of several joined ones alone would be a wrong answer to reward."""
    solutions = {
        r"So $\boxed{1}$ and $\boxed{2}$.": "1, 2",
        r"\boxed{1} \quad \text{or} \quad \boxed{2}": "1, 2",
        r"\boxed{1}, \boxed{2},\boxed{3}": "1, 2, 3",
        r"\boxed{2} and \boxed{2}": "2",
        r"First \boxed{1}. Then \boxed{2}": "2",
    }
    found = read(tmp_path / "a.jsonl", [{"problem": f"p{x}", "solution": x} for x in solutions])
    assert [x.answer for x in found] == list(solutions.values())


CHAT = "expected prompt as chat messages of a user, at most with a system's message before"
REFUSED = {
    "several turns": ({"prompt": [*SYSTEM, *USER], "label": "7"}, f"{CHAT}, got several turns: system, user, user"),
    "an assistant": (
        {"prompt": [*USER, {"role": "assistant", "content": "7"}], "label": "7"},
        f"{CHAT}, got an assistant's turn: user, assistant",
    ),
    "a system alone": ({"prompt": SYSTEM[:1], "label": "7"}, f"{CHAT}, got system"),
    "a system after": ({"prompt": SYSTEM[::-1], "label": "7"}, f"{CHAT}, got user, system"),
    "two systems": ({"prompt": [*SYSTEM[:1], *SYSTEM], "label": "7"}, f"{CHAT}, got system, system, user"),
    "several turns as text": ({"prompt": json.dumps(USER * 2), "label": "7"}, f"{CHAT}, got several turns: user, user"),
    "messages of Python": ({"prompt": str(USER), "label": "7"}, "chat messages in prompt: expected readable JSON"),
    "tokens of a chat": (
        {"prompt": "<|im_start|>user\nWhat?<|im_end|>", "label": "7"},
        r"expected a problem or chat messages as prompt, got a chat in text: <\|im_start\|>",
    ),
    "an image": (
        {"prompt": [{"role": "user", "content": [{"type": "image", "image": "x"}]}], "label": "7"},
        "expected text alone as content of prompt",
    ),
    "a request alone": ({"prompt": REQUEST, "label": "7"}, "expected a text as prompt, got ''"),
    "several answers": (
        {"prompt": USER, "reward_model": {"ground_truth": ["1", "2"]}},
        r"expected one answer as ground_truth, got \['1', '2'\]; whether they are parts or alternatives is not known",
    ),
    "several answers of a problem": ({"problem": "What?", "answer": ["1", "2"]}, "expected one answer as answer"),
    "several solutions": (
        {"problem": "What?", "solutions": [r"\boxed{1}", r"\boxed{2}"]},
        "expected one answer as solutions",
    ),
    "several answers as NumPy writes them": (
        {"problem": "What?", "answer": "['1' '2']"},
        r"answer: expected readable JSON",
    ),
    "several answers as Python writes them": (
        {"problem": "What?", "answer": "['1', '2']"},
        r"answer: expected readable JSON",
    ),
    "a list with single backslashes": (
        {"prompt": USER, "reward_model": {"ground_truth": r'["\sqrt{2}"]'}},
        r"ground_truth: expected readable JSON",
    ),
    "an object with a name twice": (
        {"problem": "What?", "answer": '{"value": "7", "value": "8"}'},
        "answer: expected readable JSON, got the name 'value' twice",
    ),
    "an object of many levels as text": (
        {"problem": "What?", "answer": '{"value":' * 100_000 + '"7"' + "}" * 100_000},
        "answer: expected readable JSON",
    ),
    "no solutions": ({"problem": "What?", "solutions": []}, r"expected one answer as solutions, got \[\]"),
    "a struct without an answer": (
        {"prompt": USER, "reward_model": {"ground_truth": {"x": "1"}}},
        "expected one of the fields ground_truth, .* in ground_truth, got {'x': '1'}",
    ),
    "a struct of two answers": (
        {"prompt": USER, "reward_model": {"ground_truth": {"value": "1", "target": "2"}}},
        "expected one of the fields ground_truth, .* in ground_truth, got {",
    ),
    "a reward of text": (
        {"prompt": USER, "reward_model": "rule"},
        "expected reward_model with a ground_truth, got 'rule'",
    ),
    "two answers": (
        {"problem": "What?", "answer": "1", "ground_truth": "2"},
        "expected one answer, got answer '1' and ground_truth '2'",
    ),
    "a working without a box": ({"prompt": USER, "solution": "1 + 1 = 2"}, "expected a solution with .*boxed"),
    "an empty box": ({"prompt": USER, "solution": r"\boxed{ }"}, "expected a text as solution in a box"),
    "a command that JSON ate": ({"problem": "What?", "answer": "\frac{1}{2}"}, r"printed characters, got '\\x0c' in"),
    "a tab that was a command": ({"problem": "What?", "answer": "3 \times 4"}, r"printed characters, got '\\times' in"),
    "one in a box": ({"problem": "What?", "solution": "\\boxed{\frac12}"}, r"printed characters, got '\\x0c' in"),
    "half a template": (
        {"prompt": f"{made_data.DAPO_BEFORE}What?", "label": "7"},
        "prompt: expected the whole template 'dapo' or none of it, got one that only begins so",
    ),
}


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_plain_is_refused(tmp_path, name, suffix):
    """With the file and the row, as Parquet and as JSON."""
    row, said = REFUSED[name]
    with pytest.raises(ValueError, match=rf"x{suffix}: row 0: .*{said}"):
        read(tmp_path / f"x{suffix}", [row])
