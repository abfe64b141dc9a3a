"""Imports run one way: toy -> theory, scale -> theory, paper_figs -> theory; none of the three knows another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("theory", "toy", "scale", "paper_figs")
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for part in PARTS
    for path in (ROOT / part).rglob("*.py")
)


@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=pytest.mark.needs_verl if part == "scale" else ()) for part in PARTS]
)
def test_imports_run_one_way(part: str, tmp_path: Path):
    """In a fresh process, since this one has loaded everything."""
    environ = None
    if part == "scale":
        from scale.launch.configuration import cpu_environment

        environ = cpu_environment(tmp_path)
    modules = [name for name in MODULES if name.split(".")[0] == part]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules!r}]; print(*sys.modules)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    run = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert loaded & set(PARTS) <= {part, "theory"}
    if part == "theory":
        assert not loaded & {"gymnasium", "matplotlib", "pandas", "seaborn", "verl", "vllm"}
