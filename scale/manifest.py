"""Files of prompts that are as they were made, by the manifest beside them.

A manifest of ours holds SHA-256 by name in `files`: `NAME.manifest.json` that of what `prepare` made of a data set,
`tiny.manifest.json` those of `scale.tiny`. Files of prompts of others have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from theory.base import files

SUFFIX = ".manifest.json"

TINY = f"tiny{SUFFIX}"


def open_prompts(path: Path) -> Path | pa.BufferReader:
    """Return what to read a Parquet file of prompts from; one that differs from its manifest is a `ValueError`."""
    if not path.is_file():  # a pipe would never end
        raise ValueError(f"{path}: expected a file of prompts, got none")
    own = path.with_name(f"{path.stem}{SUFFIX}")
    for manifest in (own, path.with_name(TINY)):
        if manifest.exists():
            listed = files.read_json(manifest).get("files")
            if not isinstance(listed, Mapping) or (manifest == own and path.name not in listed):
                raise ValueError(f"{manifest}: expected the SHA-256 of {path.name} in files, got {listed!r:.80}")
            if path.name in listed:
                return pa.BufferReader(files.read_hashed(path, listed, manifest))
    return path
