"""The README: every snippet and every command in it runs, every link leads somewhere."""

from __future__ import annotations

import doctest
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from theory.claims import LEDGER

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.S)
    for line in block.splitlines()
]


def test_snippets():
    snippets = "\n".join(re.findall(r"```python\n(.*?)```", README, re.S))
    test = doctest.DocTestParser().get_doctest(snippets, {}, "README", "README.md", 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


def _slow(command):
    """Let the commands that run verl share one process, with the other runs of verl."""
    marks = (pytest.mark.needs_verl, pytest.mark.xdist_group("verl")) if "-m scale" in command else ()
    return pytest.param(command, marks=marks)


@pytest.mark.parametrize("command", [_slow(command) for command in COMMANDS])
def test_command(command: str, tmp_path: Path):
    program, *arguments = shlex.split(command)
    if arguments[:3] == ["-m", "scale", "smoke"]:
        arguments += ["--help"]  # tests/scale/test_smoke.py runs it
    if program == "make":  # running it here would recurse; that the target exists can be seen
        run = subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    else:
        assert program == "python"
        shutil.copytree(ROOT / "tests" / "paper_figs" / "data", tmp_path / "results")
        run = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_excerpt_is_what_the_ledger_says():
    cells = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in README.splitlines() if line.startswith("│")
    ]
    excerpt: dict[str, list[str]] = {}
    for row, *_, evidence in cells:
        excerpt.setdefault(row or list(excerpt)[-1], []).append(evidence)
    assert excerpt
    for row in LEDGER:
        if row.id in excerpt:
            found = row.judge()
            counterexample = f" Counter-example: {found.counterexample}" if found.counterexample else ""
            assert " ".join(excerpt.pop(row.id)) == found.evidence + counterexample
    assert not excerpt


def test_links():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
