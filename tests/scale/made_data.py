"""Small source files that we make, with the schemas of the hub's data sets: copies, spellings and conflicts included.

The problems are ours. `make_sources(folder)` writes one file for every data set; `EXPECTED` says what must come of the
one to train on.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DAPO_BEFORE = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n"
)
DAPO_AFTER = '\n\nRemember to put your answer on its own line after "Answer:".'

CONFLICT = "How many integers $n$ have $n^2 < 10$?"

TRAIN = [
    ("What is $17 + 25$?", "42"),
    ("What  is $17 + 25$?", "42"),  # the same problem, spelt with another space
    ("Find the remainder of $7^{100}$ divided by $5$.", "1"),
    (CONFLICT, "7"),
    (CONFLICT, "6"),
    ("求 $x$ 的值：$2x＝6$。", "3"),
    ("求 $1+2+\\cdots+10$。", "55"),
    ("Find $|{-5}|$.", "5"),
    ("Find $|{-5}|$.", "05"),  # the same answer, spelt otherwise
    ("How many positive divisors does $12$ have?", "6"),
]
"""Problems as of DAPO-Math-17k: 10 rows, 8 texts, 7 problems, 1 conflict; of the 6 that are left, 2 in Chinese."""

COPIES = 5

BENCHMARKS = {
    "aime24": [("Find the last three digits of $5^{2}+0$.", "025"), ("Find $70 + 3$.", "073")],
    "aime25": [("Find $10^2$.", 100), ("Find $2^3$.", 8)],
    "amc23": [("What is $3^3$?", 27.0), ("How many positive divisors does $12$ have?", 6.0)],
    "math500": [("Write $0.5$ as a fraction.", "\\frac{1}{2}"), ("Solve $x^2=4$.", "\\{-2,2\\}")],
    "minerva": [("How fast?", "3 \\times 10^{8} \\mathrm{m/s}"), ("How far is it?", "1.5")],
    "olympiadbench": [("Solve $x^2-7x+12=0$.", ["$3,4$"]), ("Find the range of $x^2$.", ["$[0, \\infty)$"])],
}

EXPECTED = {
    "dapo-math-17k": {
        "rows": 50,
        "texts": 8,
        "problems": 7,
        "duplicates": 43,
        "conflicts": 1,
        "other_language": 0,
        "unreadable": 0,
        "overlap": 0,
        "kept": 6,
    }
}


def dapo_rows(problems, copies=COPIES):
    """Return rows in the schema of DAPO-Math-17k's file, all copies of all rows, in the file's order."""
    return [
        {
            "data_source": "math_dapo",
            "prompt": [{"content": f"{DAPO_BEFORE}{problem}{DAPO_AFTER}", "role": "user"}],
            "ability": "MATH",
            "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": f"00000000-0000-0000-0000-{number:012d}"},
        }
        for _ in range(copies)
        for number, (problem, answer) in enumerate(problems)
    ]


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def make_sources(folder):
    """Write a file for every data set, each of another of the schemas that are around; returns the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(folder / "dapo-math-17k.parquet", dapo_rows(TRAIN))
    # In verl's schema, every problem 32 times, as AIME 2024 is found too.
    write_parquet(folder / "aime24.parquet", dapo_rows(BENCHMARKS["aime24"], copies=32))
    write_lines(
        folder / "aime25.jsonl", [{"problem": p, "answer": a, "id": str(n)} for n, (p, a) in _numbered("aime25")]
    )
    amc = [{"id": n, "question": p, "answer": a, "url": "none"} for n, (p, a) in _numbered("amc23")]
    write_parquet(folder / "amc23.parquet", amc)
    math = [
        {
            "problem": p,
            "solution": f"So \\boxed{{{a}}}.",
            "answer": a,
            "subject": "Algebra",
            "level": 3,
            "unique_id": f"{n}",
        }
        for n, (p, a) in _numbered("math500")
    ]
    write_lines(folder / "math500.jsonl", math)
    # Without an answer column: the answer is in the solution's box.
    with (folder / "minerva.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["problem", "solution"])
        writer.writeheader()
        writer.writerows(
            {"problem": p, "solution": f"First \\boxed{{0}}? No: \\boxed{{{a}}}"} for p, a in BENCHMARKS["minerva"]
        )
    olympiad = [
        {"id": n, "question": p, "final_answer": a, "context": None, "is_multiple_answer": "," in a[0], "unit": None}
        for n, (p, a) in _numbered("olympiadbench")
    ]
    (folder / "olympiadbench.json").write_text(json.dumps(olympiad))
    return folder


def _numbered(name):
    return list(enumerate(BENCHMARKS[name]))
