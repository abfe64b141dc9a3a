"""Files that are whole, unchanged, and written by one process at a time; all else is an error that names them.

A JSON object that we write ends with the checksum of all that precedes it, so that a changed bit is never read as
another number. What holds tables is hashed in a JSON file beside it (`hashes`, `read_hashed`). JSON of others has no
checksum (`read_foreign_json`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import socket
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

CHECKSUM = "checksum"
"""Last name of a JSON object that we write: the first 16 digits of SHA-256 of the bytes before it."""

LOCK_FILE = ".lock"

LOST = 100
"""Times that a folder may be gone before it is locked; one that cannot be made is gone every time."""

BLOCK = 2**20


# Writing


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or none; a second call replaces the rest of a killed first one, and follows no link to it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)  # on a full disk the rest would be in the way
        raise OSError(error.errno, error.strerror, str(path)) from error


def no_link(path: str, flags: int) -> int:
    """Open a file for `open(..., opener=no_link)`, but no symbolic link: it may point at a file of somebody else."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write plain data as a JSON object with its checksum."""
    write_atomically(path, (_sealed(data, "\n  ", "\n", indent=2, allow_nan=False) + "\n").encode())


def json_line(data: Mapping[str, Any]) -> str:
    r"""Return plain data as a line of JSON with its checksum; NaN and infinity stay what they are.

    Examples
    --------
    >>> json_line({"step": 1})
    '{"step": 1, "checksum": "109d15841118aa92"}\n'
    """
    return _sealed(data, " ", "") + "\n"


def _sealed(data: Mapping[str, Any], before: str, after: str, **form: Any) -> str:
    if not data or CHECKSUM in data:
        raise ValueError(f"data: expected a JSON object that is not empty and has no {CHECKSUM}, got {data!r:.80}")
    body = f"{json.dumps(data, **form).removesuffix('}').rstrip()},{before}"
    return f'{body}"{CHECKSUM}": "{_digest(body)}"{after}}}'


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


# Reading


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that `write_json` wrote; a missing, damaged or edited file is a ValueError that names it."""
    text = _read(path)
    check_checksum(text, str(path))
    return {name: value for name, value in _object(text, str(path)).items() if name != CHECKSUM}


def read_foreign_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of others; a missing file, or one that is no JSON object, is a ValueError that names it."""
    return _object(_read(path), str(path))


def read_line(text: str, where: str) -> dict[str, Any]:
    """Return the data of a line of `json_line`; a damaged one is a ValueError that names `where` it is.

    Examples
    --------
    >>> read_line(json_line({"step": 1}), "metrics.jsonl, line 1")
    {'step': 1}
    """
    check_checksum(text, where)
    return {name: value for name, value in _object(text, where, finite=False).items() if name != CHECKSUM}


def check_checksum(text: str, where: str) -> None:
    """Require JSON text as it was written; `where` names it in the error."""
    at = text.rfind(f'"{CHECKSUM}": "')
    if at < 0:
        hint = "it is damaged, or of an earlier version: make it again"
        raise ValueError(f"{where}: expected JSON that ends with its {CHECKSUM}, got none: {hint}")
    expected = f'"{CHECKSUM}": "{_digest(text[:at])}"'
    if text[at:].replace("\n", "") != expected + "}":
        got = text[at : at + 40].rstrip()
        raise ValueError(f"{where}: expected {expected}, got {got!r}: it was changed or damaged")


def parse_json(
    text: str | bytes, where: str, *, finite: bool = True, parse_float: Callable[[str], Any] | None = None
) -> Any:
    """Return what JSON text holds; `where` names it in the error.

    A name that is there twice is an error. So are NaN, infinity and numbers beyond float64, if `finite`. `parse_float`
    takes the text of a number with a point or an exponent, by default to a float.

    Examples
    --------
    >>> parse_json('{"n": 8}', "config.json")
    {'n': 8}
    """
    number, constant = (parse_float or _finite, _not_finite) if finite else (parse_float, None)
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_float=number, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: expected readable JSON, got {error!s:.200}") from error


def check_fields(data: Any, kinds: Mapping[str, tuple[type, ...]], where: str) -> dict[str, Any]:
    """Require a JSON object with these fields, each of one of its kinds, and return it; `where` names it in the error.

    True and false are no numbers. Other fields are not looked at.

    Examples
    --------
    >>> check_fields({"seeds": [0], "seconds": 2}, {"seeds": (list,), "seconds": (int, float)}, "versions.json")
    {'seeds': [0], 'seconds': 2}
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where}: expected a JSON object, got {type(data).__name__}")
    if missing := [name for name in kinds if name not in data]:
        raise ValueError(f"{where}: expected the fields {', '.join(kinds)}, got none named {', '.join(missing)}")
    for name, types in kinds.items():
        value = data[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
            raise ValueError(f"{where}: expected {name} of type {expected}, got {value!r:.80}")
    return data


def _read(path: Path) -> str:
    try:
        return read_bytes(path, "JSON file").decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected a readable JSON file, got {error}") from error


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file to read bytes; a pipe or a device would never end, so anything else is an OSError."""
    nonblocking = getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | nonblocking)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield file


def _object(text: str, where: str, *, finite: bool = True) -> dict[str, Any]:
    data = parse_json(text, where, finite=finite)
    if not isinstance(data, dict):
        raise ValueError(f"{where}: expected a JSON object, got {type(data).__name__}")
    return data


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"the number {name}")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        names = Counter(name for name, _ in pairs)
        raise ValueError(f"the name {next(name for name, n in names.items() if n > 1)!r:.80} twice")
    return data


def read_bytes(path: Path, kind: str = "file") -> bytes:
    """Return the content of a regular file; any other, or a missing one, is a ValueError that names it and its kind."""
    try:
        with opened(path) as file:
            return file.read()
    except (OSError, ValueError, MemoryError) as error:  # a name with a null character is a ValueError
        reason = "more than fits in memory" if isinstance(error, MemoryError) else error
        raise ValueError(f"{path}: expected a readable {kind}, got {reason}") from error


# Hashes of files


def hashes(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of files in a folder, by name, as `read_hashed` takes them."""
    return {name: hash_file(folder / name) for name in names}


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file; one that cannot be read is a ValueError that names it."""
    digest = hashlib.sha256()
    try:
        with opened(path) as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a readable file, got {error}") from error
    return digest.hexdigest()


def read_hashed(path: Path, recorded: Mapping[str, Any], record: Path) -> bytes:
    """Return the content of a file whose SHA-256 is `recorded`, by name, in the JSON file `record`.

    A missing file, and one that was changed since, are a ValueError that names it.
    """
    content = read_bytes(path)
    _require_hash(path, hashlib.sha256(content).hexdigest(), recorded.get(path.name), record)
    return content


def check_hashes(folder: Path, recorded: Mapping[str, Any], record: Path) -> None:
    """Require every file whose SHA-256 is `recorded`, by its name in the folder, as it was."""
    for name, expected in recorded.items():
        _require_hash(folder / name, hash_file(folder / name), expected, record)


def _require_hash(path: Path, found: str, expected: Any, record: Path) -> None:
    if found != expected:
        hint = "it was changed or damaged"
        raise ValueError(f"{path}: expected the file whose SHA-256 is in {record} ({expected}), got {found}: {hint}")


# One writer


@contextmanager
def only_writer(folder: Path, patience: float = 0.0) -> Iterator[int]:
    """Be the only process that writes a folder; another one at work is a ValueError that names it.

    The lock is the kernel's, on the file `.lock`: it ends with the processes that hold it, so none is ever stale.

    Parameters
    ----------
    folder : Made if missing.
    patience : Seconds to wait for another process to end.

    Yields
    ------
    int : The lock's file descriptor; a child that inherits it holds the lock too, until it ends.
    """
    import fcntl  # POSIX alone

    path, start, lost = folder / LOCK_FILE, time.monotonic(), 0
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = no_link(str(path), os.O_RDWR | os.O_CREAT)
        except OSError as error:
            lost += isinstance(error, FileNotFoundError)
            if 0 < lost < LOST:
                continue  # its last owner has removed the folder meanwhile
            raise ValueError(f"{folder}: expected a folder that can be written, got {error}") from error
        try:
            _require_lock(lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file(path, lock):
                break
            os.close(lock)  # its owner has removed it meanwhile
        except BlockingIOError:
            holder = os.read(lock, 200).decode(errors="replace").strip() or "another process"
            os.close(lock)
            if time.monotonic() - start >= patience:
                raise ValueError(f"{folder}: expected no other writer, got {holder}") from None
            time.sleep(0.1)
        except (OSError, ValueError) as error:
            os.close(lock)
            raise ValueError(f"{path}: expected a file that can be locked, got {error}") from error
    try:
        try:
            os.truncate(lock, 0)
            os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        yield lock
    finally:
        try:
            path.unlink(missing_ok=True)
        finally:
            os.close(lock)


def _require_lock(descriptor: int) -> None:
    """Require a file of one name: what is written to the lock must not end up in another file or a pipe."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise ValueError("one that is no regular file, or has another name, too")


def _is_file(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
