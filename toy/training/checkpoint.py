"""Checkpoints: one file that holds arrays and plain data, whole or not at all."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from theory.base.files import write_atomically

NAME = "checkpoint.npz"

VERSION = 1

Arrays = dict[str, np.ndarray[Any, Any]]


def save(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]], data: Mapping[str, Any]) -> None:
    """Write arrays and JSON data to `path`."""
    buffer = io.BytesIO()
    text = json.dumps({"version": VERSION, **data}, allow_nan=False)
    np.savez(buffer, json=np.array(text), **arrays)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


def load(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read what `save` wrote; an error names a file that is damaged, no checkpoint or from newer code."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        data = json.loads(str(arrays.pop("json")))
        version = data.pop("version")
    except (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: expected a whole checkpoint, got a truncated or damaged file ({error}); delete it to start again"
        ) from error
    if version != VERSION:
        raise ValueError(f"{path}: expected checkpoint version {VERSION}, got {version}; use the code that wrote it")
    return arrays, data
