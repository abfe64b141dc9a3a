"""Names from data are text in drawings, in the report and in what the commands print, whatever is in them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.text import Text

from paper_figs.__main__ import main
from paper_figs.figure import Figure, _draw, items
from paper_figs.report import page
from tests.paper_figs.make_data import DATA
from tests.paper_figs.test_report import ROWS, parsed
from theory.base.files import read_json, write_json
from theory.base.text import as_drawn, plain

ITEMS = items()
NAME = 'a$\\frac$b^_{"><script>alert(1)</script> \x1b[31m\n\u202e\udcff %s {0}'
"""What mathematics, HTML, a terminal and formats would take for more than text; an even number of dollars."""

DRAWN = "a$\\frac$\n{0}"

NAMED = (
    "allocation_rules", "fig2_budgets", "fig4_scaling", "fig5_dynamics", "fig6_efficiency", "variance_order",
    "variance_ratio", "when_ahead",
)  # fmt: skip
"""Figures that show names from result files."""


def renamed(data: Any) -> Any:
    """Return a figure's data with other names of worlds, models and populations."""
    if isinstance(data, dict):
        texts = {name: [f"{DRAWN}{x}" for x in column] for name, column in data.items() if column.dtype == object}
        return {**data, **{name: np.array(column, dtype=object) for name, column in texts.items()}}
    return [replace(each, setting=f"{DRAWN}{each.setting}") for each in data]


@pytest.mark.parametrize("name", NAMED)
def test_names_are_text_in_a_drawing(name: str) -> None:
    item = ITEMS[name]
    assert isinstance(item, Figure)
    drawing = item.draw(*(renamed(each.read(DATA)) for each in item.inputs))
    drawing.draw_without_rendering()  # where mathematics is read
    texts = [text.get_text() for text in drawing.findobj(Text)]
    assert any(as_drawn(DRAWN) in text for text in texts)
    assert not any(DRAWN in text for text in texts)


def test_a_caption_is_text_in_every_file_of_a_figure() -> None:
    item = ITEMS["score_norm"]
    assert isinstance(item, Figure)
    contents = _draw(item, [each.read(DATA) for each in item.inputs], plain(NAME))
    assert ElementTree.fromstring(contents["svg"]).tag.endswith("svg")
    assert b"<script" not in contents["svg"]
    assert contents["pdf"].startswith(b"%PDF")


def write(source: Path, rows: list[Any], entries: list[Any]) -> None:
    write_json(source / "ledger" / "ledger.json", {"rows": rows})
    write_json(source / "figures" / "index.json", {"items": entries, "files": {NAME: "0" * 64}})


def test_names_are_text_in_the_report(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "id": NAME, "claim": NAME, "source": NAME, "evidence": NAME, "counterexample": NAME,
             "verdict": f'x"onload="a {NAME}', "regime": NAME, "by_construction": False}]  # fmt: skip
    table = {
        "name": NAME, "kind": "table", "title": NAME, "caption": NAME, "reading": NAME, "files": {"md": NAME},
        "columns": ["", NAME], "rows": [[NAME, NAME]], "bold": [[True]],
    }  # fmt: skip
    others = [{"name": name, "title": NAME, what: NAME} for name, what in (("b", "error"), ("c", "skipped"))]
    write(tmp_path, rows, [table, *others])
    html = page(tmp_path)
    reader = parsed(html)
    assert "script" not in reader.tags
    assert reader.text.count(plain(NAME)) == 22
    assert reader.ids == ["found", "ledger", plain(NAME), "b", "c", "made-with"]
    assert all(line.isprintable() for line in html.splitlines())


def test_the_commands_say_paths_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a\x1b[31m\n[b]"
    shutil.copytree(DATA / "ledger", source / "ledger")
    (source / "ledger" / "A7.parquet").unlink()
    assert main(["--source", str(source), "--only", "score_norm", "variance_order"]) == 2
    out, err = capsys.readouterr()
    assert f"  {plain(source)}/figures/score_norm.pdf\n" in out
    assert err.startswith(f"variance_order: {plain(source)}/ledger/A7.parquet: expected ")
    assert err.count("\n") == 1


def test_the_index_of_a_run_that_is_not_read_to_its_end_is_written(tmp_path: Path, monkeypatch) -> None:
    class Closed:
        def write(self, text: str) -> int:
            raise BrokenPipeError

        flush = write

    shutil.copytree(DATA / "ledger", tmp_path / "ledger")
    monkeypatch.setattr("sys.stdout", Closed())
    with pytest.raises(BrokenPipeError):
        main.__wrapped__(["--source", str(tmp_path), "--only", "score_norm", "variance_order"])
    assert [entry["name"] for entry in read_json(tmp_path / "figures" / "index.json")["items"]] == ["score_norm"]
