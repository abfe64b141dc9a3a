"""Where data sets come from: copies of a repository, and the hub."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from scale.data import curate, datasets
from tests.scale import made_data
from tests.scale.data.prepared import ROOT, run


def test_a_copy_of_the_repository(tmp_path):
    """Of a folder with other configurations beside, the files that belong to the data set are read."""
    wanted = tmp_path / "olympiadbench" / "OlympiadBench" / "OE_TO_maths_en_COMP" / "OE_TO_maths_en_COMP.jsonl"
    other = tmp_path / "olympiadbench" / "OlympiadBench" / "OE_TO_physics_en_COMP" / "OE_TO_physics_en_COMP.jsonl"
    for path, name in ((wanted, "mathematics"), (other, "physics")):
        path.parent.mkdir(parents=True)
        made_data.write_lines(
            path, [{"question": f"Some {name}?", "final_answer": ["1", "2"], "context": "Given $x$."}]
        )
    (found,) = curate.prepare(datasets.DATASETS["olympiadbench"], tmp_path).problems
    assert (found.text, found.answer) == ("Given $x$.\nSome mathematics?", "1, 2")


HUB = """
import sys
from pathlib import Path
from scale.data import curate, datasets
found = curate.prepare(datasets.DATASETS["math500"], None)
print(len(found.problems), found.sources["repository"], found.sources["commit"])
"""


def hub(folder, *, offline=True):
    environ = os.environ | {"HF_HOME": str(folder), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": str(int(offline))}
    return subprocess.run([sys.executable, "-c", HUB], env=environ, capture_output=True, text=True, check=False)


def test_the_hub_s_cache(made, tmp_path):
    """What the hub's library has in its cache is used without a network; without it, the message says what to do."""
    pytest.importorskip("huggingface_hub")
    found = hub(tmp_path)
    assert (
        "math500: expected to download HuggingFaceH4/MATH-500 from the hub, got LocalEntryNotFoundError" in found.stderr
    )
    assert "give --source FILE_OR_DIR" in found.stderr
    reason = found.stderr.rpartition("LocalEntryNotFoundError: ")[2].partition("; without a network")[0]
    assert 0 < len(reason) <= 200
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "datasets--HuggingFaceH4--MATH-500"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots" / commit).mkdir(parents=True)
    (cached / "snapshots" / commit / "test.jsonl").write_bytes((made / "math500.jsonl").read_bytes())
    (cached / "snapshots" / commit / "README.md").write_text("")
    found = hub(tmp_path)
    assert found.stdout.split() == ["2", "HuggingFaceH4/MATH-500", commit], found.stderr


def test_without_the_hub_s_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"amc23: expected --source FILE_OR_DIR, or the package huggingface_hub"):
        run("amc23", "--out", tmp_path)
