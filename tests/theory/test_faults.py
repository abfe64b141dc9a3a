"""Mutation spot-check: each hand-made fault in a formula is caught by the test named beside it.

Every fault is one edit of one line. It is made in a copy of the sources, and the named test must then fail there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Fault(NamedTuple):
    """A wrong line and the test that notices it."""

    what: str
    module: str
    right: str
    wrong: str
    caught_by: str


FAULTS = [
    Fault("sign of the score norm", "softmax", "1 - 2 * xp.exp", "1 + 2 * xp.exp", "test_statistics_by_enumeration"),
    Fault("factor of C in E[pi Lambda]", "softmax", "+ collision * entropy", "+ entropy", "test_golden_values"),
    Fault("sign of the bound's exponent", "softmax", "xp.expm1(-stats", "xp.expm1(stats",
          "test_bound_is_tight_for_uniform_on_a_subset_and_only_there"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.module}: {fault.what}")
def test_fault_is_caught(fault: Fault, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "theory", tmp_path / "theory")
    shutil.copytree(ROOT / "tests" / "theory", tmp_path / "tests" / "theory")
    for file in ("pyproject.toml", "tests/__init__.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    source = tmp_path / "theory" / f"{fault.module}.py"
    text = source.read_text()
    assert text.count(fault.right) == 1, f"{fault.right!r} should stand once in {source.name}"
    source.write_text(text.replace(fault.right, fault.wrong))
    test = f"tests/theory/test_{fault.module}.py"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", test, "-k", fault.caught_by, "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, f"{fault.caught_by} did not notice\n{run.stdout}\n{run.stderr}"
