"""Every command as a process of its own: hostile names, streams and folders; one line, a status, and nothing lost.

`make test` has every command with the worst name on an ASCII output, with a full output, and with a file in place of
its folder; `make test-long` has the whole grid.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.paper_figs.make_data import DATA
from tests.scale.made_data import make_sources
from theory.base.files import write_json
from theory.base.text import plain

ROOT = Path(__file__).parents[1]
SMALL = ("--seeds", "2", "--steps", "2", "--prompts", "8", "--batch", "4", "--rollouts", "8", "--low", "4")

WORST = 'a[/b] [bold]c :smile: $x$ %s {0} "><script> \n\x1b[31m\u202e\udcff'
NAMES = (
    "a[/b]", "a[bold]c", "[link=x]y", ":smile:", "-x", "a\nb", "a\rb", "a\x1b[31m", "\u202eb", '"><script>alert(1)<',
    "$x$", "a$b", "%s", "{0}", "b\udcff\udcfe", "n" * 200, "~", " ", "javascript:x", WORST,
)  # fmt: skip
"""Names of folders, of which a slash makes two."""


class Command(NamedTuple):
    """A command that ends well: its words, from a folder of input and its own, and the last file that it makes."""

    words: Callable[[Path, Path], Sequence[str | Path]]
    makes: str = ""


def _figures(_: Path, out: Path) -> Sequence[str | Path]:
    with suppress(OSError):  # a name that is too long
        if not out.exists() and out.parent.is_dir():
            shutil.copytree(DATA / "ledger", out / "ledger")
    return ("-m", "paper_figs", "--only", "score_norm", "--source", out)


def _report(given: Path, out: Path) -> Sequence[str | Path]:
    return ("-m", "paper_figs.report", "--source", given / "results", "--out", out / "r.html")


def _prepare(given: Path, out: Path) -> Sequence[str | Path]:
    return ("-m", "scale", "prepare", "aime25", "--source", given / "sources", "--out", out)


COMMANDS = {
    "theory": Command(lambda _, out: ("-m", "theory", "--only", "A2", "--json", out / "l.json"), "l.json"),
    "toy run": Command(lambda _, out: ("-m", "toy", "run", *SMALL, "--out", out), "versions.json"),
    "toy list": Command(lambda *_: ("-m", "toy", "list")),
    "scale audit": Command(lambda given, out: ("-m", "scale", "audit", given / "log.csv", "--out", out), "audit.json"),
    "scale prepare": Command(_prepare, "aime25.parquet"),
    "scale experiments": Command(lambda *_: ("-m", "scale", "experiments")),
    "paper_figs": Command(_figures, "figures/index.json"),
    "paper_figs.report": Command(_report, "r.html"),
}
WRITERS = [name for name, command in COMMANDS.items() if command.makes]

REFUSED = {
    "toy sweep": lambda given, out: ("-m", "toy", "sweep", "fig5", "--out", out),
    "scale smoke": lambda given, out: ("-m", "scale", "smoke", "--out", out),
    "scale train": lambda given, out: ("-m", "scale", "train", "--out", out, f"tiny_folder={out}"),
    "scale evaluate": lambda given, out: ("-m", "scale", "evaluate", out, "--data", given / "log.csv", "--out", out),
    "paper_figs.findings": lambda given, out: ("-m", "paper_figs.findings", "--source", out),
    "notebooks/execute.py": lambda given, out: ("notebooks/execute.py", "--folder", out),
    "requirements/lock.py": lambda given, out: ("requirements/lock.py",),  # without uv
}
"""Commands that take long, or need more than is here: they are called in a way that they must refuse at once."""

needs_verl = {"scale smoke", "scale train", "scale evaluate"}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of what the commands read."""
    folder = tmp_path_factory.mktemp("given")
    rows = [f"p{i % 4},{step},{(i + step) % 3 == 0:d}" for step in range(1, 4) for i in range(16)]
    (folder / "log.csv").write_text("\n".join(["prompt,step,reward", *rows]) + "\n")
    make_sources(folder / "sources")
    write_json(folder / "results" / "ledger" / "ledger.json", {"rows": []})
    write_json(folder / "results" / "figures" / "index.json", {"items": [], "files": {}})
    return folder


class Ended(NamedTuple):
    """How a process ended."""

    status: int
    out: str
    err: str


def run(words: Sequence[str | Path], stdout: int = subprocess.PIPE, before: str = "", **environ: str) -> Ended:
    """Run Python; `before` is what a shell does first to the streams."""
    command = [sys.executable, *map(os.fspath, words)]
    # Users' Python has a buffer, which that of many test machines has not.
    own = {"PYTHONUNBUFFERED": "", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    if before:
        command = ["sh", "-c", f'exec "$@" {before}', "sh", *command]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **own, **environ},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        timeout=300,
    )
    return Ended(done.returncode, (done.stdout or b"").decode(), done.stderr.decode())


def require_one_line(ended: Ended, status: int = 2) -> str:
    """Require one line on standard error, after the usage if it is argparse's, and return it."""
    assert ended.status == status, ended
    line = ended.err.splitlines()[-1]
    assert ended.err.count("\n") == 1 or ended.err.startswith("usage: "), ended.err
    assert ": error: " in line
    assert line.isprintable()
    return line


def long_but(names: Sequence[str], *short: str) -> list[object]:
    return [pytest.param(name, marks=[pytest.mark.long] * (name not in short)) for name in names]


NAMED = [
    pytest.param(command, name, marks=[pytest.mark.long] * (name != WORST))
    for i, command in enumerate(COMMANDS)
    for j, name in enumerate(NAMES)
    if name == WORST or (i + j) % 3 == 0
]
"""Every command with a third of the names, and with the worst."""


@pytest.mark.parametrize(("command", "name"), NAMED)
def test_a_name_is_text(command: str, name: str, given: Path, tmp_path: Path) -> None:
    """Also on an output that has ASCII alone."""
    out = Path(os.path.join(tmp_path, name))
    out.parent.mkdir(exist_ok=True)
    ended = run(COMMANDS[command].words(given, out), PYTHONIOENCODING="ascii")
    assert (ended.status, ended.err) == (0, "")
    assert all(line.isprintable() for line in ended.out.splitlines())
    if makes := COMMANDS[command].makes:
        assert (out / makes).exists()
        shown = plain(out).encode("ascii", "backslashreplace").decode()
        assert shown in ended.out.replace("\n", "") if command == "paper_figs" else shown in ended.out


STREAMS = {
    "full": (">/dev/full", 2, "standard output: [Errno 28] No space left on device"),
    "full, no buffer": (">/dev/full", 2, "standard output: [Errno 28] No space left on device"),
    "closed": (">&-", 2, "standard output: expected an open file, got a closed one"),
    "both full": (">/dev/full 2>/dev/full", 2, ""),
    "both closed": (">&- 2>&-", 2, ""),
    "errors closed": ("2>&-", 0, ""),
    "input closed": ("<&-", 0, ""),
}


@pytest.mark.parametrize("stream", long_but(list(STREAMS), "full"))
@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_cannot_be_written(command: str, stream: str, given: Path, tmp_path: Path) -> None:
    """The work is on disk, except where there was no output from the start."""
    before, status, message = STREAMS[stream]
    unbuffered = "1" if "no buffer" in stream else ""
    ended = run(COMMANDS[command].words(given, tmp_path / "out"), before=before, PYTHONUNBUFFERED=unbuffered)
    if message:
        assert message in require_one_line(ended)
    assert (ended.status, ended.err if not message else "") == (status, "")
    makes = COMMANDS[command].makes
    # `prepare` says what it reads before it does.
    if makes and stream != "closed" and stream != "both closed" and not (command == "scale prepare" and status):
        assert (tmp_path / "out" / makes).exists()


@pytest.mark.parametrize("command", long_but(list(COMMANDS), "toy list"))
def test_a_reader_that_leaves(command: str, given: Path, tmp_path: Path) -> None:
    """As `| head -0` does: the status is that of SIGPIPE in a shell, and nothing is said."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert run(COMMANDS[command].words(given, tmp_path / "out"), stdout=writer)[::2] == (141, "")
    finally:
        os.close(writer)


@pytest.mark.parametrize("arguments", [["theory"], ["scale", "audit"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_help_on_a_full_output(arguments: list[str], unbuffered: str) -> None:
    ended = run(["-m", *arguments, "--help"], before=">/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert "standard output: " in require_one_line(ended)


PLACES = {"a file": "file/out", "a device": "/dev/full/out", "no folder": "/proc/none/out", "too long": "n" * 300}


@pytest.mark.parametrize("place", long_but(list(PLACES), "a file"))
@pytest.mark.parametrize(
    "command", [pytest.param(x, marks=[pytest.mark.needs_verl] * (x in needs_verl)) for x in (*WRITERS, *REFUSED)]
)
def test_a_folder_that_cannot_be_made(command: str, place: str, given: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    out = tmp_path / PLACES[place]
    words = REFUSED[command] if command in REFUSED else COMMANDS[command].words
    # Without uv, and so that nothing is found that would be written.
    line = require_one_line(run(words(given, out), PATH="/usr/bin:/bin"))
    assert line.startswith(("python -m", command))
    assert "uv" in line if command == "requirements/lock.py" else str(out.parent) in line or str(out) in line
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("command", ["toy run"])
def test_ctrl_c(command: str, given: Path, tmp_path: Path) -> None:
    """What is at work when it comes goes on with the same command."""
    words = [*COMMANDS[command].words(given, tmp_path), "--steps", "100000", "--checkpoint-every", "2"]
    with subprocess.Popen(
        [sys.executable, *map(os.fspath, words)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 300
        while not any(tmp_path.glob("*.npz")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.decode() == "python -m toy run: interrupted; with --out, the same command resumes\n"


NUM_CASES = len(NAMED) + len(COMMANDS) * (len(STREAMS) + 1) + (len(WRITERS) + len(REFUSED)) * len(PLACES) + 5
"""Processes that the tests of this file start."""
