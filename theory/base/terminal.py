"""What commands print, and how they end: text from data is shown as text, and what goes wrong is one line.

A string that is printed may come from a file, a path or an exception. So the console takes every string as one line of
text, without orders: no markup, and `plain` characters alone. What has a style or lines of its own is a rich `Text`.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import IO, Any, NoReturn, Protocol, cast

import rich.console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task
from rich.status import Status
from rich.table import Column
from rich.text import Text

from theory.base.text import plain

FAILED, INTERRUPTED, READER_LEFT = 2, 130, 141
"""Exit statuses: a wrong call or a file that cannot be used; Ctrl-C; the reader of a pipe has closed it, as `head`."""


class Console(rich.console.Console):
    """A console to which a string is a line of text, whatever is in it."""

    def __init__(self, width: int = 120, file: IO[str] | None = None, **options: Any) -> None:
        """Write to standard output, or a file; `width` is for what is no terminal, and so has no width of its own."""
        narrow = (file or sys.stdout).isatty()
        options = {"markup": False, "emoji": False, "highlight": False, **options}
        super().__init__(width=None if narrow else width, file=file, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as text; rich asks for it wherever it is given a string."""
        return super().render_str(plain(text), **options)

    def status(self, status: rich.console.RenderableType, **options: Any) -> Status:
        """Return a line that is shown on a terminal while something is done."""
        return _Status(status, console=self, **options)

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to `command`, where rich would end the process."""
        raise


class _Status(Status):
    def __init__(self, status: rich.console.RenderableType, **options: Any) -> None:
        super().__init__(Text(plain(status)), **options)

    def start(self) -> None:
        if self.console.is_terminal:
            super().start()

    def update(self, status: rich.console.RenderableType | None = None, **options: Any) -> None:
        super().update(None if status is None else Text(plain(status)), **options)


class Words(ProgressColumn):
    """A column of a progress bar: a format of the task, whose fields are shown as text."""

    def __init__(self, form: str) -> None:
        super().__init__(Column(no_wrap=True))
        self.form = form

    def render(self, task: Task) -> Text:
        """Return the text of a task."""
        return Text(plain(self.form.format(task=task)))


def progress(console: Console, *after: ProgressColumn | str) -> Progress:
    """Return a bar with description and count, then columns or formats; it is shown on a terminal, to its end."""
    columns = [Words(column) if isinstance(column, str) else column for column in after]
    first = (Words("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*first, *columns, console=console, transient=True, disable=not console.is_terminal)


class Parser(argparse.ArgumentParser):
    """A parser of a command line that says what is wrong with it in plain text."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit with 2."""
        super().error(plain(message))


class Main(Protocol):
    """A command."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Take the words, by default those of the command line, and return the exit status."""
        ...


def command(program: str, resumes: Mapping[str, str] | None = None) -> Callable[[Main], Main]:
    """Let a command end in one line on standard error, whatever goes wrong; returns a decorator.

    The exit status is 2 for a `ValueError`, an `OSError` and too little memory, 130 for Ctrl-C, and 141 if the reader
    of standard output has left. Other exceptions are faults of ours and keep their traceback.

    Parameters
    ----------
    program : What the user has called, without the name of the subcommand.
    resumes : By subcommand, how it goes on after Ctrl-C or a file that cannot be written, where it does.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None) -> int:
            words = sys.argv[1:] if argv is None else argv
            subcommand = words[0] if words and words[0].isalpha() else ""
            after = f"; {resumes[subcommand]}" if resumes and subcommand in resumes else ""
            return _run(functools.partial(main, words), f"{program} {subcommand}".rstrip(), after)

        return run

    return decorate


class _Output:
    """A stream that knows whether writing to it has failed: an `OSError` does not say of which file it is."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._watched():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._watched():
            self._stream.flush()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            raise


def _run(main: Callable[[], int], name: str, after: str) -> int:
    _open_streams()
    if sys.stdout is None:
        return _fail(f"{name}: error: standard output: expected an open file, got a closed one")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # ASCII has no ±
    output = _Output(sys.stdout)
    try:
        with redirect_stdout(cast("IO[str]", output)):
            try:
                return main()
            finally:
                output.flush()
                if output.error is not None:  # argparse takes no notice of it
                    raise output.error
    except KeyboardInterrupt:
        return _fail(f"{name}: interrupted{after}", INTERRUPTED)
    except ValueError as error:
        return _fail(f"{name}: error: {error}")
    except OSError as error:
        if output.error is None:
            return _fail(f"{name}: error: {error}{after}")
        _drop(sys.stdout)
        if isinstance(output.error, BrokenPipeError):
            return READER_LEFT
        return _fail(f"{name}: error: standard output: {output.error}{after}")
    except RecursionError:
        return _fail(f"{name}: error: expected data of fewer levels, got more than can be read")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # torch has no type of its own
            raise
        return _fail(f"{name}: error: expected a computation that fits in memory: {error}")


def _open_streams() -> None:
    """Send closed standard streams to nowhere: a file that is opened next would get the number of one, and its output.

    Standard output stays closed.
    """
    if sys.stdout is not None:
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _fail(message: str, status: int = FAILED) -> int:
    try:
        print(plain(message), file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr)
    return status


def _drop(stream: IO[str]) -> None:
    """Send what a stream holds to nowhere: the interpreter would write it again at its end, and exit with 120."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
