"""A step without its engine, and where its time goes; `tests.benchmarks.control_plane` has the full size too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl")
from scale.launch import cpu_environment
from scale.run.records import read_allocation
from tests.benchmarks.control_plane import PARTS

ROOT = Path(__file__).parents[2]
PROMPTS = 64
AFTER = ("metrics and records", "dump", "dump, written", "rest")
"""Parts outside of what verl calls the step."""


@pytest.mark.long
@pytest.mark.needs_verl
def test_every_part_of_a_step_is_accounted_for(tmp_path):
    """An eighth of a full step's rows, of up to 8,192 tokens, through a real TransferQueue."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.control_plane"]
    words = [*command, str(tmp_path / "made"), str(PROMPTS), "1"]
    environ = cpu_environment(tmp_path / "environment")
    said = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr[-3000:]
    print(said.stdout[said.stdout.index("beside the engine") - 1000 :])
    found = json.loads(said.stdout.splitlines()[-1])
    assert (found["rows"], found["left"], found["known"]) == (16 * PROMPTS, 0, PROMPTS)
    parts = found["step"]
    assert parts.keys() == {*PARTS.values(), "sampling", "rest", "engine"}
    whole = sum(parts.values())
    assert whole - sum(parts[name] for name in AFTER) <= found["verl"] <= whole
    (line,) = read_allocation(tmp_path / "made" / "run" / "allocation.jsonl")
    counts = line["counts"]
    assert (len(counts), sum(counts)) == (PROMPTS, 16 * PROMPTS)
    assert 8 <= min(counts) <= max(counts) <= 24
    with (tmp_path / "made" / "dump" / "1.jsonl").open() as file:
        assert sum(1 for _ in file) == 16 * PROMPTS
