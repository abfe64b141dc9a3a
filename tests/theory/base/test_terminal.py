"""What is printed is text, whatever is in it; and how a command ends."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from theory.base import terminal
from theory.base.text import plain

HOSTILE = ("a[/b]", "a[bold]c", "[link=x]", ":smile:", "%s{0}", "a\nb", "a\rb", "\x1b[1m", "\x9b1m", "\u202e", "\udcff")
"""Names that a terminal, markup, emoji codes, formats or the writing direction would take for more than text."""


def shown(show, **options) -> str:
    """Return what is written to a terminal that has colours, or to a file."""
    file = io.StringIO()
    show(terminal.Console(file=file, **options))
    return file.getvalue()


def lines_with(name: str, place: str) -> list[str]:
    """Return the lines of a table with a name in one place, or of the name alone."""
    texts = {"title": "", "caption": "", "heading": "x" * 40, "cell": "y"} | {place: name}
    table = Table(title=texts["title"], caption=texts["caption"])
    table.add_column(texts["heading"])
    table.add_row(texts["cell"])
    return shown(lambda console: console.print(name if place == "line" else table)).splitlines()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["line", "title", "caption", "heading", "cell"])
def test_a_string_is_shown_as_text_wherever_rich_takes_one(name, place):
    lines = lines_with(name, place)
    assert any(plain(name) in line for line in lines)
    assert all(line.isprintable() for line in lines)
    assert len(lines) == len(lines_with("harmless", place))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bar_and_a_status_show_names_as_text(name):
    def bar(console: terminal.Console) -> None:
        with terminal.progress(console, "{task.fields[state]}") as progress:
            progress.update(progress.add_task(name, total=1, state=name), completed=1)
            console.print(progress.get_renderable())

    def status(console: terminal.Console) -> None:
        with console.status(name) as shown:
            console.print(shown.renderable)
            shown.update(name)
            console.print(shown.renderable)

    for show in (bar, status):
        written = shown(show)
        assert written.count(plain(name)) >= 2
        assert all(line.isprintable() for line in written.splitlines())


def test_styles_and_lines_of_our_own_stay():
    table = Table()
    table.add_column(Text("two\nlines"))
    table.add_row(Text("red", "red"))
    written = shown(lambda console: console.print(table), force_terminal=True, color_system="standard")
    assert "\x1b[31mred" in written
    assert not any("two" in line and "lines" in line for line in written.splitlines())


def test_a_file_is_wide_and_a_bar_is_for_terminals_alone():
    assert terminal.Console(file=io.StringIO()).width == 120
    for on_terminal in (False, True):
        console = terminal.Console(file=io.StringIO(), force_terminal=on_terminal)
        assert terminal.progress(console).disable != on_terminal


def ends(raised: BaseException | None, capsys: pytest.CaptureFixture[str], words=("sweep",)) -> tuple[int, str]:
    @terminal.command("python -m x", {"sweep": "the same command resumes"})
    def main(argv=None) -> int:
        assert argv == words
        if raised is not None:
            raise raised
        return 7

    status = main(words)
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (None, 7, ""),
        (ValueError("a\nb"), 2, "python -m x sweep: error: a\\nb\n"),
        (OSError(28, "No space left", "f"), 2, "[Errno 28] No space left: 'f'; the same command resumes\n"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"), 2, "surrogates\n"),
        (RecursionError(), 2, "expected data of fewer levels, got more than can be read\n"),
        (MemoryError("7 TiB"), 2, "expected a computation that fits in memory: 7 TiB\n"),
        (RuntimeError("can't allocate memory"), 2, "can't allocate memory\n"),
        (KeyboardInterrupt(), 130, "python -m x sweep: interrupted; the same command resumes\n"),
    ],
)
def test_a_command_ends_in_one_line_and_a_status(raised, status, message, capsys):
    found, err = ends(raised, capsys)
    assert found == status
    assert err.endswith(message)
    assert err.count("\n") == bool(message)


@pytest.mark.parametrize("fault", [RuntimeError("x"), KeyError("x"), TypeError("x"), SystemExit(2)])
def test_faults_of_ours_keep_their_traceback(fault, capsys):
    with pytest.raises(type(fault)):
        ends(fault, capsys)


def test_a_wrong_call_is_said_in_plain_text(capsys):
    with pytest.raises(SystemExit, match="2"):
        terminal.Parser().parse_args(["\x1b[31m\n"])
    assert capsys.readouterr().err.endswith("unrecognized arguments: \\x1b[31m\\n\n")


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "<&- 2>&-"])
def test_a_file_never_gets_the_number_of_a_closed_stream(closed, tmp_path):
    """What a library writes to standard error would end in it."""
    code = f"""
from theory.base import terminal

@terminal.command("x")
def main(argv=None):
    with open({str(tmp_path / "file")!r}, "w") as file:
        return file.fileno()

raise SystemExit(main([]))
"""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code]
    assert subprocess.run(command, cwd=Path(__file__).parents[3], check=False).returncode > 2


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
        (OSError(28, "No space left on device"), 2, "standard output: [Errno 28] No space left on device\n"),
    ],
)
@pytest.mark.parametrize("caught", [False, True], ids=["raised", "taken no notice of"])
def test_output_that_cannot_be_written_ends_the_command(error, status, said, caught, capsys, monkeypatch):
    """`head` that has left is no failure to tell of; a full disk is, also where argparse hides it."""

    class Closed(io.StringIO):
        def write(self, text):
            raise error

        def fileno(self):
            return os.open(os.devnull, os.O_WRONLY)

    @terminal.command("python -m x")
    def main(argv=None) -> int:
        with contextlib.suppress(OSError) if caught else contextlib.nullcontext():
            print("result")
        return 0

    monkeypatch.setattr(sys, "stdout", Closed())
    assert main([]) == status
    assert capsys.readouterr().err.endswith(said)
