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

from scale.run.activity import Moved, Sample, moved, sample
from scale.run.guard import RUN_ID, end_run
from scale.run.reports import (
    CURRENT,
    FAILURES,
    PROGRESS,
    PULSE,
    RUN_FOLDER,
    STARTING,
    STOP,
    STOPPED,
    STOPPING,
    Failure,
    ask_to_stop,
    read_failures,
    read_progress,
)
from scale.run.secrets import hide_in_bytes, secrets_of
from theory.base.files import no_link, write_atomically

LOG = "log.txt"

GUARD = Path(__file__).with_name("guard.py")

POLL = 0.2
"""Seconds between two looks at a run."""

SETTLE = 1.0
"""Seconds that a run with a reported failure has to end by itself and to report more."""

STOPPED_FOR = 5.0
"""Seconds between two looks after which this process must have been stopped, by Ctrl-Z or with the whole machine."""

LAST_LINES = 20

PATIENCE = 30.0
"""Seconds to wait for the processes of a run that was just killed: they may write until they have ended."""


MOVING = 3.0
"""A phase that is silent for longer than its limit, but moves, is given this multiple of the limit."""

WINDOW = 300.0
"""Seconds over which a run is watched for movement, or a quarter of the limit if that is less."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    reason : "finished", "stopped", "failed", "deadline", "silence" or "interrupted". A stopped run was asked to end,
        and has lost nothing that it had learnt.
    returncode : Exit status of the command, 128 + n if signal n ended it.
    seconds : Time until all its processes had ended.
    failures : Failures that its processes reported, the first cause first.
    lines : Last lines of its output.
    progress : Step, phase, time and values of the last `beat`.
    silent : Seconds since that `beat`, or since the start.
    limit : Seconds of silence that its phase was allowed.
    moved : What moved at last, if the run was silent.
    """

    reason: str
    returncode: int
    seconds: float
    failures: tuple[Failure, ...] = ()
    lines: tuple[str, ...] = ()
    progress: Mapping[str, Any] | None = None
    silent: float = 0.0
    limit: float = 0.0
    moved: Moved | None = None

    @property
    def step(self) -> int:
        """Return the last step that is done, 0 if there is none."""
        return int((self.progress or {}).get("step", 0))

    @property
    def phase(self) -> str:
        """Return the phase that the run was in."""
        return _phase(self.progress)

    def cause(self) -> str:
        """Return why the run ended, for a reader.

        Examples
        --------
        >>> print(Outcome("deadline", 143, 61.0, progress={"step": 3, "phase": "update"}).cause())
        the deadline has passed, so the run was ended after 61 s; the last step was 3, and the phase was update
        """
        if self.reason == "finished":
            return f"finished in {self.seconds:.0f} s"
        steps = f"the last step was {self.step}" if self.step else "no step was done"
        if self.reason == "stopped":
            return f"stopped as asked after {self.seconds:.0f} s; {steps}, and nothing of it is lost"
        how = {
            "interrupted": "interrupted",
            "deadline": "the deadline has passed, so the run was ended",
            "silence": f"{self._silence()}, so the run was ended",
        }
        text = f"{how.get(self.reason, 'failed')} after {self.seconds:.0f} s; {steps}"
        if self.reason != "silence" and self.phase:
            text += f", and the phase was {self.phase}"
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

    def _silence(self) -> str:
        """Return how long nothing was heard, and what tells a run that hangs from one that is slow."""
        where = f" in the phase {self.phase}" if self.phase else ""
        text = f"no progress for {self.silent:.0f} s{where}, where the limit is {self.limit:.0f} s"
        if self.moved is None:
            return text
        if self.moved.moving:
            return (
                f"{text}: it moves, but {MOVING:g} times the limit are over: {self.moved}; it is far slower than it "
                "was expected to be, or waits in a loop as a hung collective of NCCL does"
            )
        return f"{text}: it is stuck, and nothing moves: {self.moved}"


def _phase(progress: Mapping[str, Any] | None) -> str:
    return str((progress or {}).get("phase") or "")


# Supervising


def supervise(
    command: Sequence[str],
    *,
    folder: Path,
    deadline: float,
    silence: float,
    phases: Mapping[str, float] | None = None,
    environ: Mapping[str, str] | None = None,
    echo: Callable[[str], None] | None = None,
    temporary: Path | None = None,
    stop: threading.Event | None = None,
    ask: threading.Event | None = None,
    grace: float = 0.0,
    keep: Sequence[int] = (),
) -> Outcome:
    """Run a command until it ends, reports a failure, or must be ended; none of its processes is left.

    Ctrl-C and SIGTERM to this process end the run with the reason "interrupted". A run that is silent for longer than
    its limit is ended if nothing of it moves (`scale.run.activity`). If something moves, it is ended after `MOVING`
    times the limit. Secrets of its environment are taken out of its log and of what is told of it.

    Parameters
    ----------
    command : Program and arguments; no shell is involved.
    folder : Folder of the run, made if missing; its log grows, its progress and failures are of the last run alone.
    deadline, silence : Seconds in all, and between two calls of `beat` or `pulse`, or before the first.
    phases : Seconds of silence by phase, where they differ from `silence`.
    environ : Environment of the run; that of this process if None.
    echo : Called with every line of output.
    temporary : Folder for sockets and the like, to delete when the run has ended, even if this process is dead by then.
        It is left only if this process and the guard are killed before the watcher has started, in the first second.
    stop : Ends the run, as interrupted, when it is set: signals reach the main thread alone.
    ask, grace : Asks the run to save and to end when it is set, and ends it as interrupted if it goes on for `grace`
        seconds more. A run that has not begun its first step is ended at once, as stopped: it has nothing to save.
    keep : File descriptors that stay open until all processes have ended, even if this process is dead by then: locks.
    """
    environ = dict(os.environ if environ is None else environ)
    if not command or shutil.which(command[0], path=environ.get("PATH")) is None:
        raise ValueError(f"command: expected a program that can be run, got {list(command)!r:.80}")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in (PROGRESS, PULSE, STOP):
        (folder / name).unlink(missing_ok=True)
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
        tail = _Tail(reader, echo, secrets_of(environ))
        watch = _Watch(folder, run_id, tail, start + deadline, silence, phases or {})
        with interruptible():
            reason = "interrupted"
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
                reason = watch.until_end(guard, stop, ask, grace)
            except KeyboardInterrupt:
                pass
            finally:
                silent = time.monotonic() - watch.last
                _end_guard(guard, run_id, temporary)
        tail.read(last=True)
    failures, progress = read_failures(folder), _last_progress(folder)
    if _phase(progress) == STOPPED:
        reason, failures = "stopped", ()  # What failed while all was saved and the processes ended is of no account.
    if reason == "ended":
        reason = "failed" if guard.returncode or failures else "finished"
    code = guard.returncode if guard.returncode >= 0 else 128 - guard.returncode
    moved = watch.moved if reason == "silence" else None
    seconds = time.monotonic() - start
    return Outcome(reason, code, seconds, failures, tuple(tail.lines), progress, silent, watch.limit, moved)


class _Watch:
    """What is seen of a run from outside: its beats, and what moves when there are none."""

    def __init__(
        self, folder: Path, run_id: str, tail: _Tail, end: float, silence: float, phases: Mapping[str, float]
    ) -> None:
        self.folder, self.run_id, self.tail, self.end = folder, run_id, tail, end
        self.silence, self.phases = silence, phases
        self.last = time.monotonic()
        self.phase = ""
        self.unread = False
        self.sampling = 0.0
        self.seen: dict[str, tuple[int, int]] = {}
        self.sample: Sample | None = None
        self.moved: Moved | None = None

    @property
    def limit(self) -> float:
        """Return the seconds of silence that the phase is allowed."""
        return self.phases.get(self.phase, self.silence)

    def until_end(
        self, guard: subprocess.Popen[bytes], stop: threading.Event | None, ask: threading.Event | None, grace: float
    ) -> str:
        """Wait for the end of a run; returns the reason."""
        assert guard.stdout is not None
        failed = asked = None
        now = time.monotonic()
        while True:
            if select.select([guard.stdout], [], [], POLL)[0]:  # The command has ended, or the guard is dead.
                return "ended"
            self.tail.read()
            before, now = now, time.monotonic()
            if now - before - self.sampling > STOPPED_FOR:  # The run may have been stopped as long.
                self.last += now - before
                self.sample = self.moved = None
            self._hear(now)
            saving = self.phase in (STOPPING, STOPPED)  # What it gives up by then may fail.
            if failed is None and not saving and any((self.folder / FAILURES).glob("[0-9]*.json")):
                failed = now
            if failed is not None and now - failed >= SETTLE:
                return "failed"
            if stop is not None and stop.is_set():
                return "interrupted"
            if ask is not None and ask.is_set():
                if asked is None:
                    asked = now
                    ask_to_stop(self.folder)
                if not self.phase or self.phase in STARTING:
                    return "stopped"
                if now - asked >= grace:
                    return "interrupted"
            if now >= self.end:
                return "deadline"
            if self._is_silent(now):
                return "silence"

    def _hear(self, now: float) -> None:
        """Notice beats and pulses."""
        for name in (PROGRESS, PULSE):
            with contextlib.suppress(FileNotFoundError):
                stat = (self.folder / name).stat()
                if self.seen.get(name) != (stat.st_ino, stat.st_mtime_ns):
                    self.seen[name], self.last = (stat.st_ino, stat.st_mtime_ns), now
                    self.sample = self.moved = None
                    self.unread |= name == PROGRESS
        if self.unread and (progress := _last_progress(self.folder)) is not None:
            self.phase, self.unread = _phase(progress), False

    def _is_silent(self, now: float) -> bool:
        """Return whether the limit is over and nothing moves, or `MOVING` times the limit."""
        silent, limit, self.sampling = now - self.last, self.limit, 0.0
        window = min(WINDOW, limit / 4)
        if silent < limit - window:
            return False
        if self.sample is None or now - self.sample.time >= window:
            begun = time.monotonic()
            found = sample(self.run_id, lambda: self.tail.size)
            self.sampling = time.monotonic() - begun  # `nvidia-smi` may take long, and that is no pause.
            self.moved = None if self.sample is None else moved(self.sample, found)
            self.sample = found
        if silent < limit or self.moved is None:
            return False
        return not self.moved.moving or silent >= MOVING * limit


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
def interruptible(ask: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Let SIGTERM interrupt like Ctrl-C, unless `ask`, which is called first, says that it need not."""

    def interrupt(number: int, frame: object) -> None:
        if not ask():
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
    """Lines that are added to a log from now on; stars take the place of secrets in the log, too."""

    def __init__(self, file: Any, echo: Callable[[str], None] | None, secrets: Sequence[str] = ()) -> None:
        self.file, self.echo, self.secrets = file, echo, secrets
        self.place = self.file.seek(0, os.SEEK_END)
        self.rest = b""
        self.lines: list[str] = []

    @property
    def size(self) -> int:
        """Return the bytes that the log has by now."""
        return os.fstat(self.file.fileno()).st_size

    def read(self, last: bool = False) -> None:
        """Read what is new; a line without an end waits for it, unless it is the last."""
        *whole, self.rest = (self.rest + self.file.read()).split(b"\n")
        if last and self.rest:
            whole, self.rest = [*whole, self.rest], b""
        for line in self._without_secrets(b"\n".join(whole)).split(b"\n") if whole else ():
            text = line.decode(errors="replace").rstrip("\r")
            self.lines = [*self.lines[1 - LAST_LINES :], text] if text.strip() else self.lines
            if self.echo is not None:
                self.echo(text)

    def _without_secrets(self, lines: bytes) -> bytes:
        """Return the next lines with stars for secrets, in the log too, to which the others only add."""
        hidden = hide_in_bytes(lines, self.secrets)
        if hidden != lines:
            with open(self.file.name, "r+b", opener=no_link) as log:
                log.seek(self.place)
                log.write(hidden)
        self.place += len(lines) + 1
        return hidden
