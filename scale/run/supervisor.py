"""Supervision of a run: a deadline, a watchdog, causes of failures by name, and no process left behind.

A run is a command with all the processes it starts, daemons in sessions of their own included. Between the caller and
the command stands a guard, a process that adopts every orphan of the run and ends them all as soon as the command has
ended, the caller says so, or the caller is dead. Processes of the run tell the caller what happens through files in the
run's folder: `beat` writes its progress, `report_failure` what went wrong.

This file runs as the guard's script too, so it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import json
import logging
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

RUN_ID, RUN_FOLDER = "DYNAMO_RUN_ID", "DYNAMO_RUN_FOLDER"
LOG, PROGRESS, FAILURES = "log.txt", "progress.json", "failures"

POLL = 0.2
"""Seconds between two looks at a run."""

SETTLE = 1.0
"""Seconds that a run with a reported failure has to end by itself and to report more."""

GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""

UNKILLABLE = 20.0
"""Seconds after which a process that survives SIGKILL, in the kernel's hands, is left to it."""

LAST_LINES = 20

logger = logging.getLogger(__name__)


# Inside a run


@dataclass(frozen=True)
class Failure:
    """An exception in a process of a run.

    Attributes
    ----------
    where
        Which part of the run, such as "agent loop".
    type, message, traceback
        Of the exception.
    pid
        Of the process.
    time
        Seconds since the epoch.
    """

    where: str
    type: str
    message: str
    traceback: str
    pid: int
    time: float


def report_failure(where: str, error: BaseException) -> None:
    """Report an exception to the supervisor of this run, which then ends the run; never raises.

    Parameters
    ----------
    where
        Which part of the run.
    error
        The exception.
    """
    try:
        folder = os.environ.get(RUN_FOLDER)
        if folder is None:
            logger.warning("%s failed outside a supervised run, %s is not set: %r", where, RUN_FOLDER, error)
            return
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        failure = Failure(where, type(error).__name__, str(error), text, os.getpid(), time.time())
        _write_json(Path(folder, FAILURES, f"{time.time_ns()}-{failure.pid}.json"), asdict(failure))
    except Exception:
        # The caller is about to raise `error`, which must not be hidden by a full disk or an exception without a text.
        logger.warning("the failure of %s could not be reported", where, exc_info=True)


class reported:
    """Report exceptions of a block, a function or an async function, and let them pass.

    Parameters
    ----------
    where
        Which part of the run.

    Examples
    --------
    >>> @reported("reward")
    ... def score(answer):
    ...     return len(answer)
    >>> score("17")
    2
    """

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        """Start the block."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Exception):  # Neither an interrupt nor a cancelled task is a failure.
            report_failure(self.where, error)

    def __call__(self, function: F) -> F:
        """Return the function, reported."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return run_async  # type: ignore[return-value]

        @functools.wraps(function)
        def run_sync(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return run_sync  # type: ignore[return-value]


def beat(step: int, **values: float) -> None:
    """Tell the supervisor that a step is done; nothing happens outside a supervised run.

    Parameters
    ----------
    step
        Number of the step.
    **values
        Numbers to show.

    Raises
    ------
    OSError
        If the run's folder cannot be written.
    """
    folder = os.environ.get(RUN_FOLDER)
    if folder is not None:
        _write_json(Path(folder, PROGRESS), {**values, "step": step, "time": time.time()})


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    # A text may hold what UTF-8 cannot; JSON's escapes can.
    partial.write_text(json.dumps(data), encoding="ascii")
    partial.replace(path)


# Reading a run's folder


def progress(folder: Path) -> dict[str, Any] | None:
    """Return what the last `beat` of the run in a folder said: step, time and values; None before the first.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    path = folder / PROGRESS
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path}: expected progress of a run, got damaged JSON: {error}") from error
    if not isinstance(found, dict) or "step" not in found:
        raise ValueError(f"{path}: expected progress of a run, got {found!r:.80}")
    return found


def failures(folder: Path) -> tuple[Failure, ...]:
    """Return the failures that were reported by the run in a folder, the first one first.

    A damaged report counts as a failure of an unknown part, and its message names the file.
    """
    paths = sorted((folder / FAILURES).glob("[0-9]*.json"), key=lambda path: int(re.split(r"\D", path.name)[0]))
    return tuple(_read_failure(path) for path in paths)


def _read_failure(path: Path) -> Failure:
    try:
        data = json.loads(path.read_bytes())
        return Failure(**{field.name: data[field.name] for field in fields(Failure)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Failure("unknown part", "damaged report", f"{path}: {error!r}", "", 0, 0.0)


# Outcome


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    reason
        "finished", "failed", "deadline", "silence" or "interrupted".
    returncode
        Exit status of the command, 128 + n if signal n ended it.
    seconds
        That it took, with the end of its processes.
    failures
        What its processes reported, the first cause first.
    lines
        The last ones of its output.
    progress
        What the last `beat` said.
    silent
        Seconds since then, or since the start.
    """

    reason: str
    returncode: int
    seconds: float
    failures: tuple[Failure, ...] = ()
    lines: tuple[str, ...] = ()
    progress: Mapping[str, Any] | None = None
    silent: float = 0.0

    def cause(self) -> str:
        """Return why the run ended, for a reader.

        Examples
        --------
        >>> print(Outcome("silence", 143, 61.0, progress={"step": 3}, silent=60.0).cause())
        no step for 60 s, so the run was ended after 61 s; the last step was 3
        """
        if self.reason == "finished":
            return f"finished in {self.seconds:.0f} s"
        steps = "no step was done" if self.progress is None else f"the last step was {self.progress['step']}"
        if self.reason == "interrupted":
            text = f"interrupted after {self.seconds:.0f} s; {steps}"
        elif self.reason == "deadline":
            text = f"the deadline has passed, so the run was ended after {self.seconds:.0f} s; {steps}"
        elif self.reason == "silence":
            text = f"no step for {self.silent:.0f} s, so the run was ended after {self.seconds:.0f} s; {steps}"
        else:
            text = f"failed after {self.seconds:.0f} s; {steps}"
        if self.failures:
            first = self.failures[0]
            text += f"; the {first.where} (process {first.pid}) raised {first.type}: {first.message}"
            places = [line.strip() for line in first.traceback.splitlines() if line.startswith('  File "')]
            text += f" [{places[-1]}]" if places else ""
            more = len(self.failures) - 1
            text += f"; {more} more failure{'s' * (more > 1)} followed" if more else ""
        elif self.reason == "failed":
            ended = (
                f"signal {self.returncode - 128}"
                if 128 < self.returncode < 128 + signal.NSIG
                else f"exit status {self.returncode}"
            )
            text += f"; nothing was reported, the command ended with {ended}"
        if self.lines and (not self.failures) and self.reason != "interrupted":
            text += f"; its last output: {self.lines[-1].strip()}"
        return text

    def raise_for_failure(self) -> None:
        """Raise unless the run finished.

        Raises
        ------
        RuntimeError
            With the cause.
        """
        if self.reason != "finished":
            raise RuntimeError(self.cause())


# Supervising


def run(
    command: Sequence[str],
    *,
    folder: Path,
    deadline: float,
    silence: float,
    environ: Mapping[str, str] | None = None,
    echo: Callable[[str], None] | None = None,
    temporary: Path | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Run a command until it ends, reports a failure, or must be ended; none of its processes is left.

    Parameters
    ----------
    command
        Program and arguments; no shell is involved.
    folder
        Of the run, made if it is not there; its log grows, its progress and failures are of the last run alone.
    deadline
        Seconds in all.
    silence
        Seconds between two calls of `beat`, and before the first.
    environ
        Environment of the run; that of this process if None.
    echo
        Called with every line of output.
    temporary
        Folder to delete when the run has ended, even if this process is dead by then.
    stop
        Ends the run, as interrupted, when it is set: signals reach the main thread alone.

    Returns
    -------
    Outcome
        How the run ended; Ctrl-C and SIGTERM to this process end the run with the reason "interrupted".

    Raises
    ------
    ValueError
        If there is no such program.
    """
    environ = dict(os.environ if environ is None else environ)
    if not command or shutil.which(command[0], path=environ.get("PATH")) is None:
        raise ValueError(f"command: expected a program that can be run, got {list(command)!r:.80}")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROGRESS).unlink(missing_ok=True)
    shutil.rmtree(folder / FAILURES, ignore_errors=True)
    run_id = str(uuid.uuid4())
    # SPT_NOENV: setproctitle, which Ray and vLLM call, would overwrite the environment that tells whose a process is.
    environ |= {RUN_ID: run_id, RUN_FOLDER: str(folder), "SPT_NOENV": "1"}
    guard_command = [sys.executable, "-I", __file__, run_id, str(temporary or ""), *command]
    start = time.monotonic()
    with (folder / LOG).open("ab") as log, (folder / LOG).open("rb") as reader:
        tail = _Tail(reader, echo)
        with interruptible():
            reason, last = "interrupted", start
            guard = subprocess.Popen(
                guard_command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environ,
                start_new_session=True,
            )
            try:
                reason, last = _watch(guard, folder, tail, start, deadline, silence, stop)
            except KeyboardInterrupt:
                pass
            finally:
                silent = time.monotonic() - last
                _end_guard(guard, run_id, temporary)
        tail.read(last=True)
    found = failures(folder)
    if reason == "ended":
        reason = "failed" if guard.returncode or found else "finished"
    code = guard.returncode if guard.returncode >= 0 else 128 - guard.returncode
    seconds = time.monotonic() - start
    return Outcome(reason, code, seconds, found, tuple(tail.lines), _last_progress(folder), silent)


def _watch(
    guard: subprocess.Popen[bytes],
    folder: Path,
    tail: _Tail,
    start: float,
    deadline: float,
    silence: float,
    stop: threading.Event | None,
) -> tuple[str, float]:
    """Wait for the end of a run; returns the reason and the time of the last beat."""
    assert guard.stdout is not None
    last, seen, failed = start, None, None
    while True:
        if select.select([guard.stdout], [], [], POLL)[0]:  # The command has ended, or the guard is dead.
            return "ended", last
        tail.read()
        now = time.monotonic()
        with contextlib.suppress(FileNotFoundError):
            stat = (folder / PROGRESS).stat()
            if seen != (stat.st_ino, stat.st_mtime_ns):
                seen, last = (stat.st_ino, stat.st_mtime_ns), now
        if failed is None and any((folder / FAILURES).glob("[0-9]*.json")):
            failed = now
        if failed is not None and now - failed >= SETTLE:
            return "failed", last
        if stop is not None and stop.is_set():
            return "interrupted", last
        if now - start >= deadline:
            return "deadline", last
        if now - last >= silence:
            return "silence", last


def _end_guard(guard: subprocess.Popen[bytes], run_id: str, temporary: Path | None) -> None:
    """Let the guard end the run; do it here if the guard itself was killed."""
    guard.communicate()  # Closes its standard input.
    end_processes(run_id)
    if temporary is not None:
        shutil.rmtree(temporary, ignore_errors=True)


def _last_progress(folder: Path) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        return progress(folder)
    return None


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM interrupt like Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # Only the main thread hears signals.
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Tail:
    """Lines that are added to a log from now on."""

    def __init__(self, file: Any, echo: Callable[[str], None] | None) -> None:
        self.file, self.echo = file, echo
        self.file.seek(0, os.SEEK_END)
        self.rest = b""
        self.lines: list[str] = []

    def read(self, last: bool = False) -> None:
        """Read what is new; a line without an end waits for it, unless it is the last."""
        *whole, self.rest = (self.rest + self.file.read()).split(b"\n")
        if last and self.rest:
            whole, self.rest = [*whole, self.rest], b""
        for line in whole:
            text = line.decode(errors="replace").rstrip("\r")
            self.lines = [*self.lines[1 - LAST_LINES :], text] if text.strip() else self.lines
            if self.echo is not None:
                self.echo(text)


# Ending


def end_processes(run_id: str, adopted: bool = False) -> dict[int, int]:
    """End all processes of a run but this one: SIGTERM, and SIGKILL to those that are left after a while.

    Parameters
    ----------
    run_id
        Of the run; its processes carry it in their environment.
    adopted
        Whether all descendants of this process belong to the run too.

    Returns
    -------
    dict
        Wait statuses of those that were children of this process, if `adopted`, by process.
    """
    start = time.monotonic()
    told: set[int] = set()
    segments: set[Path] = set()
    ended: dict[int, int] = {}
    while time.monotonic() - start < UNKILLABLE:
        found = _processes(run_id, adopted)
        if not found:
            break
        late = time.monotonic() - start >= GRACE
        for pid in found:
            if late or pid not in told:
                segments |= _segments(pid)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            told.add(pid)
        time.sleep(0.05)
        if adopted:
            ended |= _reap()
    for path in segments:
        path.unlink(missing_ok=True)
    return ended


def _processes(run_id: str, adopted: bool) -> list[int]:
    import psutil

    own = {process.pid for process in psutil.Process().children(recursive=True)} if adopted else set()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.pid in own or process.environ().get(RUN_ID) == run_id:
                found.append(process.pid)
    return found


def _segments(pid: int) -> set[Path]:
    """Return shared memory, of Python or verl, in use by a process, which outlives it if it is killed."""
    with contextlib.suppress(OSError):
        maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
        return {Path(name) for name in re.findall(r"(/dev/shm/(?:psm|verl_weights)_\w+)$", maps, re.MULTILINE)}
    return set()


# The guard


def _guard(run_id: str, temporary: str, *command: str) -> int:
    """Run a command; end all that is left of it when it has ended, standard input is closed, or the parent is dead."""
    if sys.platform == "linux":
        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    parent = os.getppid()
    closed = threading.Event()

    def wait_for_end() -> None:
        os.read(0, 1)
        closed.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
    ended: dict[int, int] = {}
    while child.pid not in ended and not closed.wait(0.05) and os.getppid() == parent:
        ended |= _reap()
    if child.pid in ended:  # Said before the rest is ended: that takes time, which is not the command's.
        with contextlib.suppress(BrokenPipeError):
            os.write(1, str(_status(ended[child.pid])).encode())
    ended |= end_processes(run_id, adopted=True)
    if temporary:
        shutil.rmtree(temporary, ignore_errors=True)
    child.returncode = _status(ended.get(child.pid, signal.SIGKILL))
    return child.returncode


def _status(waited: int) -> int:
    """Return the exit status as shells tell it."""
    code = os.waitstatus_to_exitcode(waited)
    return code if code >= 0 else 128 - code


def _reap() -> dict[int, int]:
    """Return the statuses of children, adopted ones included, that have ended."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            ended[pid] = status
    return ended


if __name__ == "__main__":
    sys.exit(_guard(*sys.argv[1:]))
