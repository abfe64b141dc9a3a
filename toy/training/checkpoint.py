"""Checkpoints: one file that holds arrays and plain data, whole or not at all."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from theory.base.files import check_fields, parse_json, read_bytes, write_atomically

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
        arrays = _arrays(read_bytes(path))
        text = arrays.pop("json")
        if text.shape != () or text.dtype.kind != "U":
            raise ValueError(f"expected text, got {text.dtype} {text.shape}")
        data = check_fields(parse_json(str(text), "json"), {"version": (int,)}, "json")
        version = data.pop("version")
    except Exception as error:  # whatever the readers of others make of a forged file
        raise ValueError(
            f"{path}: expected a whole checkpoint, got a truncated or damaged file ({error}); delete it to start again"
        ) from error
    if version != VERSION:
        raise ValueError(f"{path}: expected checkpoint version {VERSION}, got {version}; use the code that wrote it")
    return arrays, data


def _arrays(content: bytes) -> Arrays:
    """Return the arrays of an archive; none is larger than the archive, so that a small file never fills the memory."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len(set(names)) < len(names) or not all(name.endswith(".npy") for name in names):
            raise ValueError(f"expected arrays with different names, got {names!r:.200}")
        if sum(entry.file_size for entry in entries) > len(content):
            raise ValueError("expected arrays that fit into the file, got larger ones")
        return {entry.filename.removesuffix(".npy"): _array(archive.read(entry)) for entry in entries}


def _array(content: bytes) -> np.ndarray[Any, Any]:
    stream = io.BytesIO(content)
    formats: Any = np.lib.format
    version = formats.read_magic(stream)
    shape, _, dtype = {(1, 0): formats.read_array_header_1_0, (2, 0): formats.read_array_header_2_0}[version](stream)
    if math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"expected an array of {len(content) - stream.tell()} bytes, got {dtype} {shape}")
    stream.seek(0)
    array: np.ndarray[Any, Any] = np.load(stream, allow_pickle=False)
    return array
