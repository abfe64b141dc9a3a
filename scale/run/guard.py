"""The guard of a run: a process between the caller and the command, which leaves no other process behind.

It adopts every orphan of the run and ends them all as soon as the command has ended, the caller says so, or the caller
is dead. Started as a script, in isolation from the caller's paths, so it imports the standard library alone (psutil
where processes are listed).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

RUN_ID = "DYNAMO_RUN_ID"
"""Variable of the environment that names the run that a process belongs to."""

GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""

UNKILLABLE = 20.0
"""Seconds after which a process that survives SIGKILL, in the kernel's hands, is left to it."""


def end_processes(run_id: str, adopted: bool = False) -> dict[int, int]:
    """End all processes of a run other than this one: SIGTERM, and SIGKILL to those that are left after a while.

    The processes carry `run_id` in their environment. If `adopted`, all descendants of this process belong to the run
    too, and the wait statuses of its children are returned by process.
    """
    start = time.monotonic()
    asked: set[int] = set()
    segments: set[Path] = set()
    ended: dict[int, int] = {}
    while time.monotonic() - start < UNKILLABLE:
        pids = _processes(run_id, adopted)
        if not pids:
            break
        late = time.monotonic() - start >= GRACE
        for pid in pids:
            if late or pid not in asked:
                segments |= _segments(pid)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            asked.add(pid)
        time.sleep(0.05)
        if adopted:
            ended |= _reap()
    for path in segments:
        path.unlink(missing_ok=True)
    return ended


def _processes(run_id: str, adopted: bool) -> list[int]:
    import psutil

    own = {process.pid for process in psutil.Process().children(recursive=True)} if adopted else set()
    pids = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.pid in own or process.environ().get(RUN_ID) == run_id:
                pids.append(process.pid)
    return pids


def _segments(pid: int) -> set[Path]:
    """Return the shared memory of Python or verl that a process uses; it outlives a process that is killed."""
    with contextlib.suppress(OSError):
        maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
        return {Path(name) for name in re.findall(r"(/dev/shm/(?:psm|verl_weights)_\w+)$", maps, re.MULTILINE)}
    return set()


def guard(run_id: str, temporary: str, *command: str) -> int:
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
    """Return the exit status as shells count it: 128 + n after signal n."""
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
    sys.exit(guard(*sys.argv[1:]))
