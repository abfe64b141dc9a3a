"""Findings: pages say what the archive says, a changed result changes its sentence, and results made again agree."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paper_figs.findings import ARCHIVE, FINDINGS, Evidence, Missing, render
from paper_figs.findings.__main__ import main
from paper_figs.findings.pages import BLOCK
from tests.paper_figs.make_data import seal
from theory.base import runs
from theory.base.files import read_json, write_json
from theory.claims import LEDGER
from toy.experiments.sweeps import SWEEPS
from toy.training import train

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
QUOTING = [path for path in PAGES if BLOCK.search(path.read_text())]


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return Evidence(ARCHIVE)


@pytest.mark.parametrize("path", QUOTING, ids=lambda path: path.name)
def test_a_page_says_what_the_archive_says(path: Path, evidence: Evidence) -> None:
    assert render(path.read_text(), evidence) == path.read_text()


def test_every_finding_is_on_a_page_and_no_other_sentence_has_an_interval() -> None:
    assert ROOT / "README.md" in QUOTING
    quoted = {name for path in QUOTING for block in BLOCK.finditer(path.read_text()) for name in block[2].split()}
    assert quoted == {"headlines", *FINDINGS}
    text = re.sub(r"```.*?```", "", BLOCK.sub("", (ROOT / "README.md").read_text()), flags=re.S)
    assert not re.findall(r"\[[−+-]?[\d.]+, [−+-]?[\d.]+\]|\+- ?[\d.]+", text)


def test_the_ledger_of_the_archive_has_the_rows_of_the_ledger(evidence: Evidence) -> None:
    """What they say is compared where they are judged, in tests/theory/test_claims.py."""
    assert [row["id"] for row in evidence.rows()] == [row.id for row in LEDGER]


@pytest.mark.parametrize("name", FINDINGS)
def test_a_finding_names_a_command_that_makes_its_results(name: str) -> None:
    for sweep in FINDINGS[name].sweeps:
        assert sweep.rpartition("/")[2] in SWEEPS


def changed(folder: Path, sweep: str, change) -> Evidence:
    """Return the archive with another summary of a sweep."""
    source = shutil.copytree(ARCHIVE, folder / "archive")
    path = source / "toy" / sweep / "summary.parquet"
    pq.write_table(pa.Table.from_pylist([change(row) for row in pq.read_table(path).to_pylist()]), path)
    seal(path.with_suffix(".json"))
    return Evidence(source)


def turned(row: dict) -> dict:
    """Return a row whose difference has the other sign."""
    if row["difference"] is None:
        return row
    low, high = row["difference_low"], row["difference_high"]
    return {**row, "difference": -row["difference"], "difference_low": -high, "difference_high": -low}


@pytest.mark.parametrize("name", [name for name, finding in FINDINGS.items() if finding.sweeps])
def test_a_sign_that_turns_changes_the_sentence(name: str, evidence: Evidence, tmp_path: Path) -> None:
    other = changed(tmp_path, FINDINGS[name].sweeps[0], turned)
    assert FINDINGS[name].markdown(other) != FINDINGS[name].markdown(evidence)


def test_a_finding_without_its_results_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = shutil.copytree(ARCHIVE, tmp_path / "archive")
    shutil.rmtree(source / "toy" / "table1")
    with pytest.raises(Missing):
        FINDINGS["horizon"].tell(Evidence(source))
    assert main(["--source", str(source)]) == 0
    assert "horizon: not in" in capsys.readouterr().out


def test_a_damaged_summary_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = shutil.copytree(ARCHIVE, tmp_path / "archive")
    path = source / "toy" / "table1" / "summary.parquet"
    path.write_bytes(path.read_bytes()[:-7])
    assert main(["--source", str(source)]) == 2
    assert str(path) in capsys.readouterr().err


def test_a_page_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n\n<!-- findings: horizon -->\nold\n<!-- end of findings -->\nb\n")
    assert main(["--write", str(page)]) == 0
    written = page.read_text()
    assert written.startswith("a\n\n<!-- findings: horizon -->\n- **DynaMO against GRPO.**")
    assert written.endswith("<!-- end of findings -->\nb\n")
    assert max(map(len, written.splitlines())) <= 120
    page.write_text("<!-- findings: nothing -->\n<!-- end of findings -->\n")
    assert main(["--write", str(page)]) == 2


@pytest.mark.long
@pytest.mark.parametrize(("sweep", "cell"), [("table1", "mixed-dynamo"), ("table1", "mixed-grpo")])
def test_a_run_made_again_is_that_of_the_archive(sweep: str, cell: str) -> None:
    """The numbers of every seed agree to the bit on the same software, else to what rounding does to training."""
    (config,) = (each.config for each in SWEEPS[sweep].cells if each.name == cell)
    curves = train(config).metrics["pass_at_1"]
    values = pq.read_table(ARCHIVE / "toy" / sweep / "values.parquet").to_pylist()
    for measure, step in (("pass_at_1_after_8_visits", 32), ("pass_at_1", -1)):
        archived = [row["value"] for row in values if (row["cell"], row["measure"]) == (cell, measure)]
        np.testing.assert_allclose(curves[:, step].mean(), np.mean(archived), atol=2e-3)


def test_archive_is_small() -> None:
    files = [path for path in ARCHIVE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3e6
    for record in ARCHIVE.rglob("summary.json"):
        assert set(json.loads(record.read_text())["files"]) == {"summary.parquet", "values.parquet"}
        runs.read_record(record, ("summary.parquet",))


def test_archive_says_what_made_it() -> None:
    made = read_json(ARCHIVE / "made_with.json")["runs"]
    cells = {(path.parent, row["cell"]) for path in ARCHIVE.rglob("summary.parquet") for row in rows_of(path)}
    assert sum(each["count"] for each in made) == len(cells)
    assert all(each["torch"] and each["python"] for each in made)


def rows_of(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def test_a_configuration_of_another_kind_is_told_by_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(ARCHIVE, tmp_path / "archive")
    path = source / "toy" / "table1" / "mixed-dynamo" / "config.json"
    config = read_json(path)
    write_json(path, {**config, "method": {**config["method"], "aggregation": None}})
    assert main(["--source", str(source)]) == 2
    assert f"{path}: method: expected aggregation of type str" in capsys.readouterr().err
