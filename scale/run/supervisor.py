"""Supervision of a run: a deadline, a watchdog, causes of failures by name, and no process left behind.

A run is a command with all the processes it starts, daemons in sessions of their own included. A guard between the
caller and the command ends them, and a watcher beside it if the guard cannot (`scale.run.guard`). They report what
happens through files in the run's folder (`scale.run.reports`).
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scale.run.guard import RUN_ID, end_run
from scale.run.reports import CURRENT, FAILURES, PROGRESS, RUN_FOLDER, Failure, read_failures, read_progress
from theory.base.files import no_link, write_atomically

LOG = "log.txt"

GUARD = Path(__file__).with_name("guard.py")

POLL = 0.2
"""Seconds between two looks at a run."""

SETTLE = 1.0
"""Seconds that a run with a reported failure has to end by itself and to report more."""

STOPPED = 5.0
"""Seconds between two looks after which this process must have been stopped, by Ctrl-Z or with the whole machine."""

LAST_LINES = 20

PATIENCE = 30.0
"""Seconds to wait for the processes of a run that was just killed: they may write until they have ended."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    reason : "finished", "failed", "deadline", "silence" or "interrupted".
    returncode : Exit status of the command, 128 + n if signal n ended it.
    seconds : Time until all its processes had ended.
    failures : Failures that its processes reported, the first cause first.
    lines : Last lines of its output.
    progress : Step, time and values of the last `beat`.
    silent : Seconds since that `beat`, or since the start.
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
        how = {
            "interrupted": "interrupted",
            "deadline": "the deadline has passed, so the run was ended",
            "silence": f"no step for {self.silent:.0f} s, so the run was ended",
        }
        text = f"{how.get(self.reason, 'failed')} after {self.seconds:.0f} s; {steps}"
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


# Supervising


def supervise(
    command: Sequence[str],
    *,
    folder: Path,
    deadline: float,
    silence: float,
    environ: Mapping[str, str] | None = None,
    echo: Callable[[str], None] | None = None,
    temporary: Path | None = None,
    stop: threading.Event | None = None,
    keep: Sequence[int] = (),
) -> Outcome:
    """Run a command until it ends, reports a failure, or must be ended; none of its processes is left.

    Ctrl-C and SIGTERM to this process end the run with the reason "interrupted".

    Parameters
    ----------
    command : Program and arguments; no shell is involved.
    folder : Folder of the run, made if missing; its log grows, its progress and failures are of the last run alone.
    deadline, silence : Seconds in all, and between two calls of `beat` or before the first.
    environ : Environment of the run; that of this process if None.
    echo : Called with every line of output.
    temporary : Folder for sockets and the like, to delete when the run has ended, even if this process is dead by then.
        It is left only if this process and the guard are killed before the watcher has started, in the first second.
    stop : Ends the run, as interrupted, when it is set: signals reach the main thread alone.
    keep : File descriptors that stay open until all processes have ended, even if this process is dead by then: locks.
    """
    environ = dict(os.environ if environ is None else environ)
    if not command or shutil.which(command[0], path=environ.get("PATH")) is None:
        raise ValueError(f"command: expected a program that can be run, got {list(command)!r:.80}")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROGRESS).unlink(missing_ok=True)
    shutil.rmtree(folder / FAILURES, ignore_errors=True)
    run_id = str(uuid.uuid4())
    # SPT_NOENV: setproctitle, which Ray and vLLM call, would overwrite the environment that names a process's run.
    environ |= {RUN_ID: run_id, RUN_FOLDER: str(folder), "SPT_NOENV": "1"}
    if temporary is not None:
        environ["VLLM_RPC_BASE_PATH"] = str(temporary)  # vLLM never deletes its sockets.
    write_atomically(folder / CURRENT, run_id.encode())
    guard_command = [sys.executable, "-I", str(GUARD), run_id, str(temporary or ""), str(os.getpid()), *command]
    start = time.monotonic()
    with open(folder / LOG, "ab", opener=no_link) as log, (folder / LOG).open("rb") as reader:
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
                pass_fds=tuple(keep),
            )
            try:
                reason, last = _watch(guard, folder, tail, start, deadline, silence, stop)
            except KeyboardInterrupt:
                pass
            finally:
                silent = time.monotonic() - last
                _end_guard(guard, run_id, temporary)
        tail.read(last=True)
    failures = read_failures(folder)
    if reason == "ended":
        reason = "failed" if guard.returncode or failures else "finished"
    code = guard.returncode if guard.returncode >= 0 else 128 - guard.returncode
    seconds = time.monotonic() - start
    return Outcome(reason, code, seconds, failures, tuple(tail.lines), _last_progress(folder), silent)


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
    last, seen, failed, now = start, None, None, time.monotonic()
    while True:
        if select.select([guard.stdout], [], [], POLL)[0]:  # The command has ended, or the guard is dead.
            return "ended", last
        tail.read()
        before, now = now, time.monotonic()
        if now - before > STOPPED:  # The run may have been stopped as long.
            last += now - before
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
    """Let the guard end the run; do it here if the guard itself was killed or stopped."""

    def gone(seconds: float | None) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            guard.communicate(timeout=seconds)  # Closes its standard input.
        return guard.returncode is not None

    end_run(run_id, str(temporary or ""), guard.pid, gone)
    gone(None)


def _last_progress(folder: Path) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        return read_progress(folder)
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
