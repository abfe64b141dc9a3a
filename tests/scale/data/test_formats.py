"""Files of every kind: tables of any type, copies of rows, and what is no table or no whole one."""

from __future__ import annotations

import gzip
import json
import math
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from scale.data import formats, layouts
from tests.scale import made_data
from tests.scale.data.prepared import run


def test_rows_are_numbered_through_the_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "BATCH_ROWS", 2)
    path = made_data.write_parquet(tmp_path / "x.parquet", [{"problem": x, "answer": "1"} for x in "abcde"])
    assert [(x.problem, x.number) for x in layouts.read_rows(path)] == list(zip("abcde", range(5), strict=True))
    made_data.write_parquet(path, [{"problem": x, "answer": "1" if x != "d" else ""} for x in "abcde"])
    with pytest.raises(ValueError, match="row 3: expected a text as answer"):
        list(layouts.read_rows(path))


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
        list(layouts.read_rows(tmp_path / name))


def test_columns_of_parquet_that_could_be_another_answer(tmp_path):
    texts = [pa.array(["What?"]), pa.array(["1"]), pa.array(["2"])]
    pq.write_table(pa.table(texts, names=["problem", "answer", "answer"]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet: .* the column answer twice"):
        list(layouts.read_rows(tmp_path / "a.parquet"))
    for value in (math.inf, -math.inf, math.nan):
        pq.write_table(pa.table({"problem": ["What?"], "answer": [value]}), tmp_path / "b.parquet")
        with pytest.raises(ValueError, match=r"b.parquet: row 0: expected a text as answer, got -?(inf|nan)"):
            list(layouts.read_rows(tmp_path / "b.parquet"))


def test_numbers_of_json_keep_their_digits(tmp_path):
    spelt = {"0.1": "0.1", "2.0": "2", "3.14159265358979323846": "3.14159265358979323846", "1e999": "1e999", "7": "7"}
    spelt["1e-99999999999999999999"] = "1e-99999999999999999999"  # beyond what Decimal holds
    lines = [f'{{"problem": "p{i}", "answer": {text}}}\n' for i, text in enumerate(spelt)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    assert [row.answer for row in layouts.read_rows(tmp_path / "a.jsonl")] == list(spelt.values())


def test_equal_answers_are_one(tmp_path):
    (tmp_path / "a.csv").write_text("problem,answer,final_answer\nWhat?,1,1\n")
    assert [row.answer for row in layouts.read_rows(tmp_path / "a.csv")] == ["1"]


ROWS = [{"problem": "What?", "answer": "1"}, {"problem": "And?", "answer": "2"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
TABLE = "problem,answer\nWhat?,1\nAnd?,2\n"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
PAGE = "\n<!DOCTYPE html>\n<html><body>404</body></html>"


def parquet():
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue().to_pybytes()


def nested(levels):
    return "[" * levels + "1" + "]" * levels


BAD = {
    ("a table of CSV", ".jsonl"): (TABLE, "line 1: expected a JSON object, got 'problem,answer'"),
    ("a table of CSV", ".json"): (TABLE, "line 1: expected a JSON object, got 'problem,answer'"),
    ("a table of CSV", ".parquet"): (TABLE, "expected a Parquet file, got other content, which begins with b'prob'"),
    ("lines of JSON", ".csv"): (LINES, "expected verl's columns prompt and reward_model, or a problem"),
    ("lines of JSON", ".parquet"): (LINES, "expected a Parquet file, got other content, which begins with b'{\"pr'"),
    ("Parquet", ".csv"): (parquet(), "expected a .csv file in UTF-8, got a Parquet file"),
    ("Parquet", ".jsonl"): (parquet(), "expected a .jsonl file in UTF-8, got a Parquet file"),
    ("a pipe's end", ".parquet"): (b"", "expected a Parquet file, got an empty one"),
    ("no line", ".csv"): ("problem,answer\n", "expected at least one row, got none"),
    ("no line", ".jsonl"): ("\n\n", "expected at least one row, got none"),
    ("no row", ".json"): (" [ ] ", "expected at least one row, got none"),
    ("zeros", ".jsonl"): (b"\0" * 99, "expected a .jsonl file in UTF-8, got bytes that are no text"),
    ("Latin-1", ".jsonl"): (LINES.encode() + b"\xe9\n", "line 3: expected text in UTF-8, got 'utf-8' codec"),
    ("Latin-1", ".csv"): (TABLE.encode() + b"\xe9,1\n", "line 4: expected text in UTF-8, got 'utf-8' codec"),
    ("Latin-1", ".json"): (b'[\n\n"\xe9"]', "line 3: expected text in UTF-8, got 'utf-8' codec"),
    ("a list a line", ".jsonl"): ('["What?", "1"]\n', "row 0: expected a JSON object, got a text: 'What?'"),
    ("a list a row", ".json"): ('[["What?", "1"]]', "row 0: expected a JSON object, got a list: ['What?', '1']"),
    ("a number", ".jsonl"): (LINES + "3\n", "line 3: expected a JSON object, got a number: 3"),
    ("null", ".json"): (f"[{json.dumps(ROWS[0])}, null]", "row 1: expected a JSON object, got null"),
    ("lists", ".json"): ('{"problem": ["What?"], "answer": ["1"]}', "got one object of lists (problem, answer)"),
    ("lists", ".jsonl"): ('{"problem": ["What?"], "answer": ["1"]}', "row 0: expected problem as text or messages"),
    ("lists over lines", ".jsonl"): ('{"problem": ["What?"],\n"answer": ["1"]}', "got one object of lists (problem"),
    ("columns of pandas", ".json"): ('{"problem": {"0": "x"}, "answer": {"0": "1"}}', "got one object of columns"),
    ("rows in a field", ".json"): (json.dumps({"data": ROWS}, indent=1), "got one object (data)"),
    ("an object over lines", ".json"): (json.dumps(ROWS[0], indent=1), "got one object (problem, answer)"),
    ("an object over lines", ".jsonl"): (json.dumps(ROWS[0], indent=1), "got one object (problem, answer)"),
    ("a comma a line", ".jsonl"): (LINES.replace("\n", ",\n"), "line 1: expected readable JSON, got Extra data"),
    ("no comma", ".json"): (f"[{LINES}]", "row 0: expected a comma or the list's end after it, got '{\"problem\": "),
    ("two lists", ".json"): (json.dumps(ROWS) * 2, "expected one JSON list, or an object a line, got '[{"),
    ("an end that is cut", ".json"): (json.dumps(ROWS)[:-1], "row 1: expected a comma or the list's end after it"),
    ("a row that is cut", ".json"): (json.dumps(ROWS)[:-9], "row 1: expected readable JSON, got "),
    ("a row that is cut", ".jsonl"): (LINES[:-9], "line 2: expected readable JSON, got "),
    ("not a number", ".json"): ('[{"problem": "x", "answer": 1}, {"answer": NaN}]', "row 1: expected readable JSON"),
    ("not a number", ".jsonl"): ('\n{"answer": NaN}\n', "line 2: expected readable JSON, got the number NaN"),
    ("no value", ".jsonl"): ('{"problem": "What?", "answer": null}\n', "row 0: expected a text as answer, got None"),
    ("truth", ".jsonl"): ('{"problem": "What?", "answer": true}\n', "row 0: expected a text as answer, got True"),
    ("another row", ".jsonl"): (f'{LINES}{{"problem": "x"}}\n', "(solution, Solution, solutions), got problem"),
    ("more fields", ".csv"): (f"{TABLE}a,b,c\n", "line 4: expected 2 fields as in the first line"),
    ("a quote at the start", ".csv"): (f'"a,\n{TABLE}', "line 4: expected readable CSV, got unexpected end of data"),
    ("one field", ".csv"): (f"{TABLE}a\n", "line 4: expected 2 fields as in the first line, got a line with fewer, 1"),
    ("a quote", ".csv"): (f'{TABLE}"a,1\n', "line 4: expected readable CSV, got unexpected end of data"),
    ("a long field", ".csv"): (f"{TABLE}{'x' * 200_000},1\n", "line 4: expected readable CSV, got field larger than"),
    ("levels", ".jsonl"): (f"{LINES}{nested(100_000)}\n", "line 3: expected readable JSON, got maximum rec"),
    ("levels", ".json"): (f"[{json.dumps(ROWS[0])}, {nested(100_000)}]", "row 1: expected readable JSON, got max"),
    ("an end alone", ".parquet"): (parquet()[:-9], "expected a whole Parquet file, got one that was cut off"),
    ("a start alone", ".parquet"): (b"PAR1", "expected a whole Parquet file, got one that was cut off or whose end is"),
}  # fmt: skip
for suffix in (".jsonl", ".json", ".csv"):
    content = TABLE if suffix == ".csv" else LINES
    said = f"expected a {suffix} file in UTF-8, got "
    BAD["compressed", suffix] = (gzip.compress(content.encode()), f"{said}a file compressed by gzip")
    BAD["UTF-16", suffix] = (content.encode("utf-16"), f"{said}text in UTF-16")
    BAD["UTF-16 without a mark", suffix] = (content.encode("utf-16-le"), f"{said}text in UTF-16")
    BAD["a pointer", suffix] = (POINTER, f"{said}a pointer of Git LFS")
    BAD["a page", suffix] = (PAGE, f"{said}a web page")
for name, content, said in (
    ("compressed", gzip.compress(parquet()), "a file compressed by gzip"),
    ("a pointer", POINTER, "a pointer of Git LFS"),
    ("a page", PAGE, "a web page"),
):
    BAD[name, ".parquet"] = (content, f"expected a Parquet file, got {said}")


@pytest.mark.parametrize(("name", "suffix"), BAD)
def test_what_is_wrong_is_said(tmp_path, name, suffix):
    """With the file, and the line or row."""
    content, said = BAD[name, suffix]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"^{path}: .*{re.escape(said)}"):
        list(layouts.read_rows(path))


VALUES = {
    "answer": f'{{"problem": "What?", "answer": {nested(480)}}}',
    "object": f'{{"problem": "What?", "answer": {nested(480).replace("[", """{"value": """).replace("]", "}")}}}',
    "problem": f'{{"problem": {nested(480)}, "answer": "1"}}',
    "messages": f'{{"prompt": {nested(480)}, "label": "1"}}',
    "truth": f'{{"prompt": "What?", "reward_model": {{"ground_truth": {nested(480)}}}}}',
    "reward": f'{{"prompt": "What?", "reward_model": {nested(480)}}}',
    "text": json.dumps({"prompt": "What?", "reward_model": f'{{"ground_truth": {nested(100_000)}}}'}),
}


@pytest.mark.parametrize("limit", [0, 500])
@pytest.mark.parametrize("name", VALUES)
def test_levels_that_are_read_and_cannot_be_shown(tmp_path, name, limit):
    """Wherever the interpreter's depth ends: in reading, in looking, or in the message."""
    path = tmp_path / "x.jsonl"
    path.write_text(f"{VALUES[name]}\n")

    def deeper(levels):
        if levels:
            return deeper(levels - 1)
        with pytest.raises(ValueError, match=rf"^{path}: (row 0|line 1): .*expected"):
            list(layouts.read_rows(path))
        return None

    deeper(limit)


def test_marks_and_line_ends_of_other_systems(tmp_path):
    expected = [("What?", "1"), ("And?", "2")]
    for name, content in (
        ("a.jsonl", LINES),
        ("b.json", LINES),
        ("c.json", json.dumps(ROWS, indent=1)),
        ("d.jsonl", json.dumps(ROWS)),
        ("e.csv", TABLE),
    ):
        for text in (content, f"\ufeff{content}", content.replace("\n", "\r\n"), f"{content}\n\n"):
            (tmp_path / name).write_bytes(text.encode())
            assert [(x.problem, x.answer) for x in layouts.read_rows(tmp_path / name)] == expected, (name, text)


def test_columns_that_are_not_needed_may_be_anything(tmp_path):
    """Of those that are kept, a date that Python lacks is named."""
    year = pa.array([2**60], pa.timestamp("us"))
    found = pa.table({"problem": ["What?"], "answer": ["1"], "other": year, "more": [b"\xff"]})
    pq.write_table(found, tmp_path / "x.parquet")
    assert [x.answer for x in layouts.read_rows(tmp_path / "x.parquet")] == ["1"]
    pq.write_table(found.rename_columns(["problem", "answer", "year", "more"]), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x.parquet: expected columns of text or numbers, got .*year \(timestamp"):
        list(layouts.read_rows(tmp_path / "x.parquet"))


PIECES = [*b'" [ ] { } , \\ NaN 1e999 null "role" \\u0000 \xff'.split(b" "), b"\n", b"\0"]


@pytest.fixture(scope="module")
def contents(made):
    return [(path.suffix, path.read_bytes()) for path in sorted(made.iterdir())]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 6), random=st.randoms(use_true_random=False))
def test_fuzz_damaged_sources(contents, tmp_path, number, random):
    """Bits, cuts and pieces that do not belong there: a source is read, or refused by its name."""
    suffix, content = contents[number]
    damaged = bytearray(content)
    for _ in range(random.choice([1, 1, 3, 20])):
        at, kind = random.randrange(len(damaged) + 1), random.random()
        if kind < 0.4 and at < len(damaged):
            damaged[at] ^= 1 << random.randrange(8)
        elif kind < 0.6:
            damaged[at:at] = random.choice(PIECES)
        else:
            del damaged[at : at + random.choice([1, 40, len(damaged)])]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(damaged)
    try:
        found = list(layouts.read_rows(path))
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert all(row.problem.strip() and row.answer.strip() for row in found)


def test_one_row_whose_values_are_lists_is_no_object_of_columns(tmp_path):
    row = {"messages": [{"role": "user", "content": "What?"}], "solutions": [r"\boxed{1}"]}
    for name in ("a.json", "a.jsonl"):
        (tmp_path / name).write_text(json.dumps(row))
        assert [(x.problem, x.answer) for x in layouts.read_rows(tmp_path / name)] == [("What?", "1")]
