"""Files of prompts beside a manifest are as they were made; others are taken as they are."""

from __future__ import annotations

import os
import re

import pyarrow as pa
import pytest

from scale.manifest import open_prompts
from theory.base.files import hashes, write_json


@pytest.mark.parametrize("manifest", ["a.manifest.json", "tiny.manifest.json"])
def test_a_file_is_what_its_manifest_says(tmp_path, manifest):
    a, b = tmp_path / "a.parquet", tmp_path / "b.parquet"
    a.write_bytes(b"one")
    b.write_bytes(b"two")
    assert open_prompts(a) == a
    write_json(tmp_path / manifest, {"files": hashes(tmp_path, ["a.parquet"])})
    assert isinstance(open_prompts(a), pa.BufferReader)
    assert open_prompts(b) == b  # of somebody else, in the same folder
    a.write_bytes(b"0ne")
    with pytest.raises(
        ValueError, match=re.escape(f"{a}: expected the file whose SHA-256 is in {tmp_path / manifest}")
    ):
        open_prompts(a)


def test_a_manifest_of_another_file_is_none(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"one")
    for content in ({"files": {}}, {"files": ["a.parquet"]}, {"x": 1}):
        write_json(tmp_path / "a.manifest.json", content)
        with pytest.raises(ValueError, match=r"a\.manifest\.json: expected the SHA-256 of a\.parquet in files"):
            open_prompts(path)


def test_prompts_that_are_no_file_are_not_waited_for(tmp_path):
    path = tmp_path / "a.parquet"
    os.mkfifo(path)
    for _ in range(2):
        with pytest.raises(ValueError, match=re.escape(f"{path}: expected a file of prompts")):
            open_prompts(path)
        path.unlink(missing_ok=True)
