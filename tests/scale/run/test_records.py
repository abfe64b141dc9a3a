"""Lines of metrics that a run leaves behind, and how they are read again."""

from __future__ import annotations

import pytest

from scale.run import records
from theory.base.files import read_json


def test_a_resumed_run_drops_what_it_will_do_again(tmp_path):
    kept = records.Records(tmp_path)
    for step in (0, 1, 2, 3):
        kept.append(step, {"x": step, "nan": float("nan"), "text": "no"})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "x"')
    records.Records(tmp_path).truncate(2)
    assert records.read_lines(tmp_path / "metrics.jsonl") == [{"step": step, "x": float(step)} for step in (0, 1, 2)]


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl: expected JSON in line 2"):
        records.read_lines(tmp_path / "metrics.jsonl")
    for content in ("[]", "{"):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(ValueError, match=r"x\.json: expected a"):
            read_json(tmp_path / "x.json")
