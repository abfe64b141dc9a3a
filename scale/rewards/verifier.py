"""Comparing answers by Math-Verify in processes of their own, which the kernel ends when their time is up.

A computation of sympy cannot be interrupted in a thread, and Math-Verify's own timeouts need the main thread; elsewhere
they raise, or make wrong an answer that was never compared. Here a worker process (`serve`) imports Math-Verify once
and forks a child that compares, one job after the other. The child sets timers of the kernel whose signals end it,
whatever it computes; the worker then reports the timeout and forks the next child, in milliseconds. A worker ends with
its owner, because its socket does.

Any of these processes may be killed or stopped at any moment, for example by the kernel when memory is short. So each
has a socket of its own, every job has a number, and a judgement counts only if it carries the number of its job. A
process that has ended, is late or says anything else is replaced, and the job is done again once or is unverified.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

PIN = "math-verify[antlr4_9_3]==0.9.0"

CORRECT, WRONG, UNVERIFIED = "correct", "wrong", "unverified"

CRASH = "crash"
"""Why a job is unverified whose child ended before its time was up."""

TRIES = 2
"""How often a job is begun, if processes end without a judgement; it may be the job that ends them."""

MEMORY = 4 * 2**30
"""Bytes of address space of a child; what needs more is unverified."""

WALL = 4.0
"""Wall-clock limit of a job over its limit on CPU time: on a busy machine the judgement is the same, only later."""

START = 120.0
"""Seconds in which a worker must have imported Math-Verify."""

GRACE = 10.0
"""How many seconds later than its last limit a worker may answer before it is given up."""

TIMERS = (signal.SIGPROF, signal.SIGALRM)
"""Signals of the timers for CPU time and wall-clock time."""

_ROOT = str(Path(__file__).resolve().parents[2])


class Pair(NamedTuple):
    """A right answer, an answer to judge, and the name of a tolerance (`scale.rewards.spelling`)."""

    gold: str
    answer: str
    tolerance: str = "exact"


class Judgement(NamedTuple):
    """Whether one of some pairs is equal: `CORRECT`, `WRONG` or `UNVERIFIED`, and why not."""

    outcome: str
    reason: str = ""


# Messages: each is a line of JSON. `TimeoutError` is one that is late, another `OSError` one that is lost.


def _send(link: socket.socket, message: Mapping[str, Any], deadline: float = math.inf) -> None:
    _limit(link, deadline)
    link.sendall(json.dumps(message).encode() + b"\n")


def _receive(link: socket.socket, deadline: float = math.inf) -> Any:
    content = bytearray()
    while not content.endswith(b"\n"):
        _limit(link, deadline)
        block = link.recv(2**16)
        if not block:
            raise ConnectionError("expected a message, got its end")
        content += block
    try:
        return json.loads(content)
    except ValueError as error:
        raise ConnectionError(f"expected a message, got {content[:80]!r}") from error


def _limit(link: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("expected a message in time")
    link.settimeout(None if left == math.inf else left)


def _ask(link: socket.socket, job: Mapping[str, Any], deadline: float = math.inf) -> Judgement:
    """Return the judgement of a job, and of no other."""
    _send(link, job, deadline)
    reply = _receive(link, deadline)
    match reply:
        case {"id": number, "outcome": str(outcome), "reason": str(reason)} if number == job["id"]:
            if outcome in (CORRECT, WRONG, UNVERIFIED):
                return Judgement(outcome, reason)
    raise ConnectionError(f"expected the judgement of job {job['id']}, got {reply!r:.80}")


def _answer(link: socket.socket, job: Mapping[str, Any], judgement: Judgement) -> None:
    _send(link, {"id": job["id"], **judgement._asdict()})


def _is_silent(link: socket.socket) -> bool:
    """Return whether the other side is there and has said nothing; one that speaks unasked cannot be trusted."""
    poll = select.poll()  # select.select takes no file beyond 1024
    poll.register(link, select.POLLIN)
    return not poll.poll(0)


# The owner's side


class Verifier:
    """Worker processes, `workers` at most, started as they are needed and used by any number of threads."""

    def __init__(self, workers: int) -> None:
        self._slots = threading.BoundedSemaphore(workers)
        self._idle: list[_Worker] = []
        self._every: set[_Worker] = set()

    def compare(self, pairs: Sequence[Pair], timeout: float) -> Judgement:
        """Return whether any pair is equal, within `timeout` seconds of CPU time in all; it needs Math-Verify."""
        judgement, worker = Judgement(UNVERIFIED, "worker lost"), None
        with self._slots:
            for number in range(TRIES):
                worker = worker or self._take(new=number > 0)
                try:
                    judgement = worker.ask(pairs, timeout)
                except TimeoutError:
                    self._end(worker)
                    return Judgement(UNVERIFIED, "worker late")
                except OSError:
                    self._end(worker)
                    worker = None
                    continue
                except BaseException:
                    self._end(worker)
                    raise
                if judgement.reason != CRASH:
                    break
            if worker is not None:
                with _lock:
                    self._idle.append(worker)
        return judgement

    def _take(self, *, new: bool) -> _Worker:
        """Return an idle worker or a new one; `new` if another one was lost, since the idle ones may be lost, too."""
        with _lock:
            while self._idle:
                worker = self._idle.pop()
                if not new and _is_silent(worker.link):
                    return worker
                self._end(worker)
            worker = _Worker()
            self._every.add(worker)
            return worker

    def _end(self, worker: _Worker) -> None:
        with _lock:
            self._every.discard(worker)
        worker.end()

    def pids(self) -> list[int]:
        """Return the worker processes."""
        with _lock:
            return [worker.process.pid for worker in self._every]

    def close(self) -> None:
        """End the workers."""
        with _lock:
            every, self._every, self._idle = self._every, set(), []
        for worker in every:
            worker.end()

    def forget(self) -> None:
        """Close the sockets in a forked copy: the workers belong to the parent, and must end with it."""
        for worker in self._every:
            worker.process.returncode = 0
            worker.link.close()


class _Worker:
    """A worker process and the socket to it."""

    def __init__(self) -> None:
        # This package first on the path, in place of the folder that the caller happens to be in.
        path = f"import sys; sys.path[:] = [{_ROOT!r}, *filter(None, sys.path)]"
        self.link, other = socket.socketpair()
        with other:
            # Standard output is not ours: what libraries print must not be in between.
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{path}; from scale.rewards.verifier import serve; serve({other.fileno()})"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                start_new_session=True,
            )
        self.jobs = -1
        """Number of its last job, < 0 before it is ready."""

    def ask(self, pairs: Sequence[Pair], timeout: float) -> Judgement:
        """Return the judgement of a job."""
        if self.jobs < 0:
            self._start()
        self.jobs += 1
        job = {"id": self.jobs, "pairs": pairs, "timeout": timeout}
        return _ask(self.link, job, time.monotonic() + timeout * WALL + GRACE)

    def _start(self) -> None:
        """Wait until the worker is ready."""
        try:
            said = _receive(self.link, time.monotonic() + START)
        except ConnectionError:
            status = self.process.wait()
            if status < 0:  # It was killed.
                raise
            said = {"error": f"a worker that ends with status {status}"}
        match said:
            case {"ready": True}:
                self.jobs = 0
            case {"error": what}:
                raise ValueError(f"reward: expected Math-Verify (pip install '{PIN}'), got {what}")
            case _:
                raise ConnectionError(f"expected a worker that is ready, got {said!r:.80}")

    def end(self) -> None:
        """End the process and its child."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.link.close()


_shared: Verifier | None = None

# Of all verifiers. Forks wait for it, so that a copy knows every socket that it must close. A handler of a signal may
# fork, and runs in a thread that holds it: hence reentrant.
_lock = threading.RLock()


def shared(workers: int) -> Verifier:
    """Return this process's verifier; the first call decides how many workers it may have."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = Verifier(workers)
            atexit.register(_shared.close)
        return _shared


def _after_fork() -> None:
    global _shared
    if _shared is not None:
        atexit.unregister(_shared.close)
        _shared.forget()
        _shared = None
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork)


# The worker's side


def serve(file: int) -> None:
    """Answer the jobs that come through a socket until it ends."""
    import resource

    owner = socket.socket(fileno=file)
    try:
        from scale.rewards import comparing

        comparing.warm_up()  # once for all children
    except Exception as error:
        _send(owner, {"error": repr(error)})
        return
    for number in TIMERS:  # The owner may ignore or block them, which its processes inherit.
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TIMERS)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard), hard))
    with suppress(OSError):  # The owner has ended, or no process can be forked.
        _send(owner, {"ready": True})
        child = _Child(owner)
        while True:
            job = _receive(owner)
            if not _is_silent(child.link):
                child.end()
                child = _Child(owner)
            try:
                judgement = _ask(child.link, job)
            except OSError:
                judgement = Judgement(UNVERIFIED, "timeout" if child.end() in TIMERS else CRASH)
                child = _Child(owner)
            _answer(owner, job, judgement)


class _Child:
    """A fork of the worker that compares, and the socket to it."""

    def __init__(self, owner: socket.socket) -> None:
        self.link, other = socket.socketpair()
        self.process = os.fork()
        if not self.process:
            owner.close()
            self.link.close()
            _work(other)
        other.close()

    def end(self) -> int:
        """End the process; returns the signal that ended it, 0 for none."""
        os.kill(self.process, signal.SIGKILL)
        self.link.close()
        return os.WTERMSIG(os.waitpid(self.process, 0)[1])


def _work(worker: socket.socket) -> NoReturn:
    """Answer jobs in the child."""
    try:
        while True:
            job = _receive(worker)
            signal.setitimer(signal.ITIMER_PROF, job["timeout"])
            signal.setitimer(signal.ITIMER_REAL, job["timeout"] * WALL)
            judgement = judge([Pair(*pair) for pair in job["pairs"]])
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _answer(worker, job, judgement)
    finally:
        os._exit(0)


def judge(pairs: Sequence[Pair]) -> Judgement:
    """Return whether any pair is equal, without a limit on time (`scale.rewards.comparing`)."""
    import logging

    from scale.rewards import comparing

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that it has no timeout
    wrong, unverified = "", ""
    for pair in pairs:
        imaginary = comparing.is_imaginary(pair.gold, pair.answer)
        try:
            comparing.read(pair.gold, imaginary)
        except Exception:
            unverified = "the right answer cannot be read"
            continue
        try:
            comparing.read(pair.answer, imaginary)
        except Exception as error:
            if type(error) in (Exception, comparing.Unreadable):  # latex2sympy has no type of its own
                wrong = "the answer cannot be read"
            else:
                unverified = f"reading failed: {type(error).__name__}"
            continue
        try:
            if comparing.equal(pair.gold, pair.answer, pair.tolerance):
                return Judgement(CORRECT)
        except Exception as error:  # of any kind: of sympy, of recursion, of memory
            unverified = f"comparison failed: {type(error).__name__}"
    return Judgement(UNVERIFIED, unverified) if unverified else Judgement(WRONG, wrong)
