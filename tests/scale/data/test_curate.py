"""Copies merged, files of a folder as one source, and counts that are as known."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from scale.data import curate, datasets, formats, layouts, text_keys
from scale.data.text_keys import prompt_key
from tests.scale import made_data

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
        patch.setattr(formats, "BATCH_ROWS", batch)
        folded, texts = curate.merge(layouts.read_rows(folder / "x.parquet"))
    plain, plain_texts = curate.merge(layouts.read_rows(folder / "x.jsonl"))
    assert (folded, texts) == (plain, plain_texts)
    assert sum(x.copies for x in folded) == 2 * len(drawn)
    assert len(folded) == len({name for name, *_ in drawn})
    backwards, _ = curate.merge(reversed(list(layouts.read_rows(folder / "x.jsonl"))))
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


def test_rows_are_numbered_through_folded_copies_and_any_number_of_files(tmp_path):
    """Of three files of six, two and four rows the last begins at row 8."""
    (tmp_path / "aime25").mkdir()
    for name, problems, copies in (("1", "ab", 3), ("2", "c", 2), ("3", "bd", 2)):
        found = made_data.dapo_rows([(x, "1") for x in problems], copies=copies)
        made_data.write_parquet(tmp_path / "aime25" / f"{name}.parquet", found)
    found = curate.prepare(datasets.DATASETS["aime25"], tmp_path)
    listed = [(x.text, x.number, x.copies) for x in found.problems]
    assert listed == [("a", 0, 3), ("b", 1, 5), ("c", 6, 2), ("d", 9, 2)]
    assert found.counts["rows"] == 12


def test_all_copies_of_a_benchmarks_problem_overlap_and_signs_alone_do_not(tmp_path):
    problems = [("Find $x+1$.", "1"), ("Find $x-1$.", "1"), ("$+$?", "1"), ("Find $y$.", "1")]
    source = made_data.write_parquet(tmp_path / "x.parquet", made_data.dapo_rows(problems))
    found = curate.prepare(datasets.DATASETS["dapo-math-17k"], source)
    curate.find_overlap(found, {"amc23": ["find $x + 1$", "$-$!"], "aime25": ["Find $z$."]}, drop=True)
    assert found.overlap == {"amc23": sorted(prompt_key(text) for text, _ in problems[:2]), "aime25": []}
    assert [x.text for x in found.problems] == ["$+$?", "Find $y$."]
    assert (found.counts["overlap"], found.counts["kept"]) == (2, 2)


def test_a_problem_that_no_benchmark_has_must_be_left(tmp_path):
    source = made_data.write_parquet(tmp_path / "x.parquet", made_data.dapo_rows([("Find $x$.", "1"), ("$y$?", "2")]))
    found = curate.prepare(datasets.DATASETS["dapo-math-17k"], source)
    benchmarks = {"amc23": ["find x", "y"]}
    curate.find_overlap(found, benchmarks, drop=False)
    with pytest.raises(ValueError, match="dapo-math-17k: expected problems that no benchmark has, got none of 2"):
        curate.find_overlap(found, benchmarks, drop=True)


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


def test_a_request_that_no_template_has_is_named(tmp_path):
    """Of most problems, from ten on; one of ours is taken off before."""
    problems = [f"Find ${n}x$." for n in range(10)]

    def warned(texts):
        found = made_data.write_lines(tmp_path / "x.jsonl", [{"problem": text, "answer": 1} for text in texts])
        made = curate.prepare(datasets.DATASETS["aime25"], found)
        return [text for text in made.warnings if "problems alone" in text]

    after = [f"{text}\n\nPresent the answer in \\boxed{{Your answer}}" for text in problems]
    (said,) = warned(after)
    assert said.startswith("aime25: expected problems alone, got 10 of 10 that end with 'x$.\\n\\nPresent the")
    (said,) = warned([f"Answer with a number alone. {text}" for text in problems])
    assert "10 of 10 that begin with 'Answer with a number alone. Find $'" in said
    assert warned(after + [f"Other {text}" for text in problems[:9]])
    for none in (after[:9], after + [f"Other {text}" for text in problems], problems):
        assert warned(none) == []
    assert warned([text_keys.TEMPLATES["boxed"].messages(text)[0]["content"] for text in problems]) == []
