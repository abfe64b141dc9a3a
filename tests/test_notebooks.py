"""The notebooks run, say what their committed outputs say, define nothing and stay small."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from pytest_benchmark.fixture import BenchmarkFixture

from notebooks.execute import FOLDER, execute
from theory.claims import LEDGER

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_notebook_the_later_ones_long = pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.long] * (path.stem >= "05")) for path in NOTEBOOKS],
)
INITIALS = {"01": "S", "02": "G", "03": "A", "04": "M"}
each_theorem_notebook = pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path.stem[:2] in INITIALS], ids=lambda path: path.stem
)
OF_YOUR_OWN = re.compile(r"## A (?:rule|modulation) of your own\n")

ROUNDING = 1e-9
MAX_BYTES = 400_000
# Temporary and home folders, and addresses of objects.
OF_THIS_MACHINE = re.compile(r"/(?:tmp|home|root|Users|usr)/|[A-Z]:\\|\bat 0x[0-9a-f]+|site-packages")


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook: NotebookNode) -> list[list[str]]:
    """Text outputs of each code cell; numbers that are rounding errors are 0, since those differ between processors."""
    outputs = [
        [output.text if output.output_type == "stream" else output.data["text/plain"] for output in cell.outputs]
        for cell in code_cells(notebook)
    ]
    return [[without_rounding(text) for text in cell] for cell in outputs]


def without_rounding(text: str) -> str:
    number = re.compile(r"-?\d+(?:\.\d+)?e[-+]\d+")
    return number.sub(lambda match: match[0] if abs(float(match[0])) > ROUNDING else "0", text)


def test_the_notebooks_are_here() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "01_entropy_change", "02_gradient_norm", "03_allocation", "04_modulation",
        "05_toy_training", "06_allocation_rules", "07_from_toy_to_scale", "08_audit_your_run",
    ]  # fmt: skip


@each_notebook_the_later_ones_long
def test_runs_and_says_what_is_committed(path: Path, benchmark: BenchmarkFixture) -> None:
    benchmark.group = "a notebook"
    fresh = benchmark.pedantic(execute, args=(path,), rounds=1)
    committed = read(path)
    assert texts(fresh) == texts(committed), "run `python notebooks/execute.py` and look at what changed"
    for new, old in zip(code_cells(fresh), code_cells(committed), strict=True):
        assert [output.output_type for output in new.outputs] == [output.output_type for output in old.outputs]
        assert all(output.get("name") != "stderr" for output in new.outputs), "a warning"
    assert fresh.metadata == committed.metadata


@each_notebook
def test_is_thin(path: Path) -> None:
    """Nothing is defined but, under its heading, the reader's own rule or shaping: one short class."""
    notebook = read(path)
    assert 8 <= len(notebook.cells) <= 14
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type != "code":
            continue
        body = ast.parse(cell.source).body
        defined = [
            node
            for node in ast.walk(ast.Module(body, []))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        ]
        if before.cell_type == "markdown" and OF_YOUR_OWN.match(before.source):
            assert [type(node) for node in defined] == [ast.ClassDef, ast.FunctionDef]
            assert defined[0] in body
            assert (defined[0].end_lineno or 0) - defined[0].lineno < 15
        else:
            assert not defined, f"{defined[0].name}: expected in a module, with its tests"


@each_notebook
def test_ends_with_what_to_try(path: Path) -> None:
    last = read(path).cells[-1]
    assert last.cell_type == "markdown"
    assert last.source.startswith("## What to try\n")


def test_a_rule_and_a_modulation_of_your_own_are_registered() -> None:
    for stem, function in (("05_toy_training", "register_shaping"), ("06_allocation_rules", "register")):
        notebook = read(FOLDER / f"{stem}.ipynb")
        heading = next(i for i, cell in enumerate(notebook.cells) if OF_YOUR_OWN.match(cell.source))
        names = {
            node.id for node in ast.walk(ast.parse(notebook.cells[heading + 1].source)) if isinstance(node, ast.Name)
        }
        assert function in names


def test_toy_and_scale_hold_the_same_method() -> None:
    said = "\n".join(text for cell in texts(read(FOLDER / "07_from_toy_to_scale.ipynb")) for text in cell)
    assert "the bandit's object: True" in said
    assert "96 of 96 counts equal those of the run" in said
    assert len(re.findall(r"equal to 1e-6: True", said)) == 3
    assert "False" not in said


@each_notebook
def test_is_committed_as_executed(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell.outputs for cell in cells[1:])  # the first imports
    assert all(not cell.metadata for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    images = [o for cell in cells for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(images) >= 3
    assert path.stat().st_size < MAX_BYTES
    said = "\n".join(text for cell in texts(notebook) for text in cell)
    assert not OF_THIS_MACHINE.search(said)


@each_theorem_notebook
def test_prints_the_verdict_of_every_row_of_its_appendix(path: Path) -> None:
    notebook = read(path)
    headings = [cell.source.splitlines()[0] for cell in notebook.cells if cell.cell_type == "markdown"]
    assert headings[-2:] == ["## What the ledger says", "## What to try"]
    said = code_cells(notebook)[-1].outputs[0].text
    initial = INITIALS[path.stem[:2]]
    rows = [row for row in LEDGER if row.id[0] == initial]
    printed = re.findall(rf"^({initial}\d+)  ([A-Z ]+): ", said, flags=re.MULTILINE)
    assert printed == [(row.id, row.recorded.value.upper()) for row in rows]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("largest error 7e-16 over", "largest error 0 over"),
        ("0e+00", "0"),
        ("-1.5e-12", "0"),
        ("pi Lambda = -2e-08", "pi Lambda = -2e-08"),
        ("from 1e-4 to 1e+4", "from 1e-4 to 1e+4"),
        ("ratio 0.679", "ratio 0.679"),
    ],
)
def test_only_rounding_errors_are_masked(text: str, expected: str) -> None:
    assert without_rounding(text) == expected
