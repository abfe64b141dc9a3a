"""theory.base.files: whole and unchanged files, and one writer a folder."""

from __future__ import annotations

import doctest
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from theory.base import files
from theory.base.files import check_hashes, hashes, only_writer, read_hashed, read_json, write_atomically, write_json

DATA = {"seeds": [0, 1], "seconds": 12.345, "name": "läuft\n", "inner": {"checksum": "", "n": 8}}

KEYS = st.text(st.characters(codec="utf-8"), max_size=5).filter(lambda name: name != files.CHECKSUM)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", DATA)
    assert read_json(tmp_path / "a.json") == DATA
    assert list(json.loads((tmp_path / "a.json").read_text())) == [*DATA, files.CHECKSUM]  # plain JSON for all others


@given(st.dictionaries(KEYS, JSON, min_size=1, max_size=3))
def test_fuzz_json_line(data: dict) -> None:
    assert files.read_line(files.json_line(data), "here") == json.loads(json.dumps(data))


def test_a_flip_of_a_bit_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, DATA)
    content = path.read_bytes()
    for bit in range(0, 8 * len(content), 3):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=f"^{path}: expected "):
            read_json(path)


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, DATA)
    content = path.read_bytes()
    for length in range(len(content) - 1):  # but the newline at the end
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=f"^{path}: expected "):
            read_json(path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", "null", "{}", '{"a": NaN}', '{"a": 1e999}', '{"a": 1, "a": 2}', "[" * 100_000, '{"a":' * 100_000],
    ids=lambda text: text[:20],
)
def test_json_of_others_is_an_object_of_finite_numbers(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    if text == "{}":
        assert files.read_foreign_json(path) == {}
        return
    with pytest.raises(ValueError, match=f"^{path}: expected "):
        files.read_foreign_json(path)


def test_nothing_may_follow_the_checksum(tmp_path: Path) -> None:
    """Whoever adds a name at the end leaves all that the checksum is of as it was."""
    path = tmp_path / "a.json"
    write_json(path, DATA)
    text = path.read_text().rstrip("}\n")
    for more in (', "seconds": 1.0}', ', "x": 1}', "}}", "} 1", ""):
        path.write_text(text + more)
        with pytest.raises(ValueError, match=r"a\.json: expected "):
            read_json(path)
    with pytest.raises(ValueError, match="here: expected "):
        files.read_line(files.json_line(DATA).rstrip("}\n") + ', "x": 1}\n', "here")


def test_a_large_file_is_hashed_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "large"
    content = bytes(2 * files.BLOCK + 5)
    path.write_bytes(content)
    recorded = hashes(tmp_path, ["large"])
    assert recorded == {"large": hashlib.sha256(content).hexdigest()}
    for place in (0, files.BLOCK, len(content) - 1):
        path.write_bytes(content[:place] + b"x" + content[place + 1 :])
        with pytest.raises(ValueError, match="large: expected the file whose SHA-256 is in"):
            check_hashes(tmp_path, recorded, tmp_path / "record.json")


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut there is the whole old file or the whole new one."""
    path, seen, sync = tmp_path / "a", [], os.fsync
    write_atomically(path, b"old")
    monkeypatch.setattr(
        os, "fsync", lambda number: [seen.append((path.read_bytes(), os.fstat(number).st_size)), sync(number)]
    )
    write_atomically(path, b"newer")
    assert seen == [(b"old", 5)]
    assert path.read_bytes() == b"newer"


def test_json_without_a_checksum_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"seconds": 3}')
    with pytest.raises(ValueError, match="expected JSON that ends with its checksum, got none"):
        read_json(path)


def test_data_that_cannot_carry_a_checksum_is_refused(tmp_path: Path) -> None:
    for data in ({}, {"checksum": 1}, {"a": float("nan")}):
        with pytest.raises(ValueError):
            write_json(tmp_path / "a.json", data)
    assert list(tmp_path.iterdir()) == []


def test_hashed_files_are_read_as_they_were(tmp_path: Path) -> None:
    path, record = tmp_path / "a.bin", tmp_path / "versions.json"
    path.write_bytes(b"content")
    recorded = hashes(tmp_path, ["a.bin"])
    assert recorded["a.bin"] == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"  # sha256sum
    assert read_hashed(path, recorded, record) == b"content"
    check_hashes(tmp_path, recorded, record)
    path.write_bytes(b"kontent")
    for check in (lambda: read_hashed(path, recorded, record), lambda: check_hashes(tmp_path, recorded, record)):
        with pytest.raises(ValueError, match=f"^{path}: expected the file whose SHA-256 is in {record}"):
            check()
    path.unlink()
    with pytest.raises(ValueError, match=f"^{path}: expected a readable file"):
        check_hashes(tmp_path, recorded, record)


def test_a_name_that_no_file_can_have_is_refused_as_a_file(tmp_path: Path) -> None:
    """Names of files come from data, such as an index."""
    for name in ("a\0b", "\ud800", "a" * 300):
        with pytest.raises(ValueError, match="expected a readable file"):
            files.read_bytes(tmp_path / name)
        with pytest.raises(ValueError, match="expected a readable file"):
            hashes(tmp_path, [name])


def test_what_does_not_fit_in_memory_is_named(tmp_path: Path) -> None:
    """A sparse file of 8 TiB, of which no buffer is had."""
    for read in (read_json, files.read_bytes):
        with open(path := tmp_path / "a.json", "wb") as file:
            file.truncate(2**43)
        with pytest.raises(ValueError, match=f"^{path}: expected a readable .*, got more than fits in memory"):
            read(path)


def test_writing_follows_no_link(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "a.json"
    victim.write_text("mine")
    (tmp_path / ".a.json.partial").symlink_to(victim)
    path.symlink_to(victim)
    write_atomically(path, b"new")
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("mine", "new", False)


def test_what_is_appended_to_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "log").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic link"), open(tmp_path / "log", "a", opener=files.no_link):
        raise AssertionError
    with open(tmp_path / "other", "a", opener=files.no_link) as file:
        file.write("x")
    assert (tmp_path / "other").read_text() == "x"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_is_named_and_the_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    opened = os.open
    monkeypatch.setattr(files.os, "open", lambda name, *rest: opened("/dev/full", os.O_WRONLY))
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


# One writer

HOLD = """
import sys, time
from pathlib import Path
from theory.base.files import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def refused(folder: Path, holder: int, patience: float = 0.0) -> None:
    message = f"^{folder}: expected no other writer, got process {holder} on "
    with pytest.raises(ValueError, match=message), only_writer(folder, patience):
        raise AssertionError("two writers")


def test_two_writers_of_a_folder_are_refused_and_a_dead_one_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            refused(tmp_path, holder.pid)
            holder.send_signal(signal.SIGSTOP)  # a stopped one still writes when it goes on
            refused(tmp_path, holder.pid, patience=0.3)
        finally:
            holder.kill()
    with only_writer(tmp_path):
        refused(tmp_path, os.getpid())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file/inner", "/proc/none/out", "/dev/full"])
def test_a_folder_that_cannot_be_made_is_an_error(place: str, tmp_path: Path) -> None:
    """None in /proc can: there a folder that is made is found missing, as one that its last owner has removed."""
    (tmp_path / "file").touch()
    folder = tmp_path / place
    with pytest.raises(ValueError, match=f"^{folder}: expected a folder that can be written"), only_writer(folder):
        raise AssertionError


def test_a_child_that_inherits_the_lock_holds_it(tmp_path: Path) -> None:
    """As the guard of a run does, when the command that started it was killed."""
    code = f"""
import os, signal, subprocess, sys
from pathlib import Path
from theory.base.files import only_writer
with only_writer(Path(sys.argv[1])) as lock:
    child = subprocess.Popen([{sys.executable!r}, "-c", "import time; time.sleep(600)"], pass_fds=[lock], stdout=2)
    print(child.pid, os.getpid(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    held = subprocess.run([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, check=False)
    child, holder = map(int, held.stdout.split())
    try:
        refused(tmp_path, holder)
    finally:
        os.kill(child, signal.SIGKILL)
    with only_writer(tmp_path, patience=30):
        pass


COUNT = """
import sys
from pathlib import Path
from theory.base import files
from theory.base.files import only_writer
files.time.sleep = lambda seconds: None  # look again at once
folder = Path(sys.argv[1])
for _ in range(100):
    with only_writer(folder, patience=60):
        path = folder / "count"
        n = int(path.read_text() or 0) if path.exists() else 0
        path.write_text(str(n + 1))
"""


def test_writers_that_take_turns_lose_nothing(tmp_path: Path) -> None:
    """The file of the lock goes and comes: a writer that waits for one that is gone must not go on with it."""
    writers = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)]) for _ in range(3)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "300"


def _cannot_be_locked(folder: Path, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{folder}.*{message}"), only_writer(folder):
        raise AssertionError("written")


def test_a_folder_in_a_removed_one_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    _cannot_be_locked(Path("run"), "No such file or directory")


def test_the_lock_is_written_to_no_file_of_another_name(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / files.LOCK_FILE
    for make, message in (
        (lambda: path.hardlink_to(victim), "another name"),
        (lambda: path.symlink_to(victim), "symbolic links"),
        (lambda: path.symlink_to(path), "symbolic links"),
        (lambda: os.mkfifo(path), "no regular file"),
    ):
        make()
        _cannot_be_locked(tmp_path / "run", message)
        path.unlink()  # it is still there
    path.mkdir()
    _cannot_be_locked(tmp_path / "run", "Is a directory")
    assert victim.read_text() == "mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_lock_that_cannot_be_taken_or_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / files.LOCK_FILE
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda lock, content: write(os.open("/dev/full", os.O_WRONLY), content))
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), only_writer(tmp_path):
        raise AssertionError("written")
    monkeypatch.undo()

    def unsupported(lock: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", unsupported)  # as some network file systems have it
    _cannot_be_locked(tmp_path, "No locks available")


def test_doctests() -> None:
    assert doctest.testmod(files).failed == 0
