"""The guard of a run, a process between the caller and the command, and its watcher: they leave no process behind.

The guard adopts every orphan of the run and ends them all as soon as the command has ended, the caller says so, or the
caller is dead. If the guard itself is dead or stopped when it has work to do, the watcher does it. Whatever is killed
of caller, guard and command, the watcher remains; if it is killed too, the kernel still ends the command with its
guard.

Both are started as scripts, in isolation from the caller's paths, so they import the standard library alone (psutil
where processes are listed).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

RUN_ID = "DYNAMO_RUN_ID"
"""Variable of the environment that names the run that a process belongs to."""

GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""

UNKILLABLE = 20.0
"""Seconds after which a process that survives SIGKILL, in the kernel's hands, is left to it."""


PATIENCE = 5.0
"""Seconds that a guard with work to do has before others begin to do it, and once more before it is ended itself."""


def end_processes(run_id: str, adopted: bool = False, spared: Collection[int] = ()) -> dict[int, int]:
    """End all processes of a run other than this one: SIGTERM, and SIGKILL to those that are left after a while.

    The processes carry `run_id` in their environment. If `adopted`, all descendants of this process belong to the run
    too, and the wait statuses of its children are returned by process. The processes `spared` are left alone.
    """
    import psutil

    start = time.monotonic()
    asked: set[int] = set()
    segments: set[Path] = set()
    ended: dict[int, int] = {}
    while time.monotonic() - start < UNKILLABLE:
        found = processes(run_id, adopted, spared)
        if not found:
            break
        late = time.monotonic() - start >= GRACE
        for process in found:
            if late or process.pid not in asked:
                segments |= _segments(process.pid)
                with contextlib.suppress(psutil.Error, OSError):
                    process.send_signal(signal.SIGKILL if late else signal.SIGTERM)
            asked.add(process.pid)
        time.sleep(0.05)
        if adopted:
            ended |= _reap()
    for path in segments:
        path.unlink(missing_ok=True)
    return ended


def processes(run_id: str, adopted: bool = False, spared: Collection[int] = ()) -> list[Any]:
    """Return a run's processes, as psutil's, which know them from later ones with the same number."""
    import psutil

    own = {process.pid for process in psutil.Process().children(recursive=True)} if adopted else set()
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            if pid == os.getpid() or pid in spared or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if pid in own or process.environ().get(RUN_ID) == run_id:
                found.append(process)
    return found


def _segments(pid: int) -> set[Path]:
    """Return the shared memory of Python, verl or NCCL that a process uses; it outlives a process that is killed."""
    with contextlib.suppress(OSError):
        maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
        names = re.findall(r"(/dev/shm/(?:(?:psm|verl_weights)_|sem\.mp-|nccl-)\w+)$", maps, re.MULTILINE)
        return {Path(name) for name in names}
    return set()


def end_run(run_id: str, temporary: str, guard: int, gone: Callable[[float], bool]) -> None:
    """End what is left of a run whose guard should be ending it, and delete its temporary folder.

    The guard (a process) may be dead, or stopped. `gone` waits some seconds for its end, and tells whether it is gone.
    """
    if not gone(PATIENCE):
        end_processes(run_id, spared={guard})  # This does not disturb a guard that is only slow.
        gone(PATIENCE)
    end_processes(run_id)
    if temporary:
        shutil.rmtree(temporary, ignore_errors=True)


def watch(run_id: str, temporary: str, *files: str) -> None:
    """End a run when its guard, its caller (`files`: their descriptors) or its command (standard input) is dead."""
    import psutil  # noqa: F401 - it is there when it is needed.

    watched = [int(file) for file in files]
    if select.select([0, *watched], [], [])[0] == [0]:
        with contextlib.suppress(ProcessLookupError, ValueError):  # The command or the guard is dead already.
            watched.append(os.pidfd_open(int(os.read(0, 20))))
            select.select(watched, [], [])
    end_run(run_id, temporary, os.getppid(), lambda seconds: bool(select.select(watched[:1], [], [], seconds)[0]))


def _start_watcher(run_id: str, temporary: str, *pids: int) -> subprocess.Popen[bytes] | None:
    """Start the watcher of the guard and the caller; its standard input takes the command's process."""
    try:
        files = [os.pidfd_open(pid) for pid in pids]
    except (AttributeError, OSError):  # Not Linux, or one before 5.3; or the caller is dead, which the guard sees.
        return None
    for file in files:
        os.set_inheritable(file, True)
    # It is no process of the run, for those who end these.
    environ = {name: x for name, x in os.environ.items() if not name.startswith("DYNAMO_RUN_")}
    return subprocess.Popen(
        [sys.executable, "-I", __file__, "--watch", run_id, temporary, *map(str, files)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # The caller waits for the end of the guard's.
        env=environ,
        close_fds=False,  # It keeps what the caller gave to the guard, such as a lock.
        start_new_session=True,
    )


def guard(run_id: str, temporary: str, caller: str, *command: str) -> int:
    """Run a command; end all that is left of it when it has ended, standard input is closed, or the caller is dead."""
    own = os.getpid()
    if sys.platform == "linux":
        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    watcher = _start_watcher(run_id, temporary, own, int(caller))
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,
        start_new_session=True,
        preexec_fn=partial(_end_with, own),  # There is one thread so far.
    )
    if watcher and watcher.stdin:
        with contextlib.suppress(BrokenPipeError):
            os.write(watcher.stdin.fileno(), str(child.pid).encode())
    closed = threading.Event()

    def wait_for_end() -> None:
        os.read(0, 1)
        closed.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    ended: dict[int, int] = {}
    while child.pid not in ended and not closed.wait(0.05) and os.getppid() == int(caller):
        ended |= _reap()
    if child.pid in ended:  # Said before the rest is ended: that takes time, which is not the command's.
        with contextlib.suppress(BrokenPipeError):
            os.write(1, str(_status(ended[child.pid])).encode())
    ended |= end_processes(run_id, adopted=True, spared={watcher.pid} if watcher else ())
    if temporary:
        shutil.rmtree(temporary, ignore_errors=True)
    if watcher:
        watcher.kill()
        watcher.wait()
    child.returncode = _status(ended.get(child.pid, signal.SIGKILL))
    return child.returncode


def _end_with(guard: int) -> None:
    """Let the kernel kill this process when its parent, the guard, is dead."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != guard:  # It was dead already.
        os._exit(1)


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
    if sys.argv[1] == "--watch":
        watch(*sys.argv[2:])
    else:
        sys.exit(guard(*sys.argv[1:]))
