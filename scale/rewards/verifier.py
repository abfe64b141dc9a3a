"""Comparing answers by Math-Verify in processes of their own, which the kernel ends when their time is up.

A computation of sympy cannot be interrupted in a thread, and Math-Verify's own timeouts need the main thread; elsewhere
they raise, or make wrong an answer that was never compared. Here a worker process (`serve`) imports Math-Verify once
and forks a child that compares, one job after the other. The child sets timers of the kernel whose signals end it,
whatever it computes; the worker then reports the timeout and forks the next child, in milliseconds. A worker ends with
its owner, because its input does.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

PIN = "math-verify[antlr4_9_3]==0.9.0"

CORRECT, WRONG, UNVERIFIED = "correct", "wrong", "unverified"

MEMORY = 4 * 2**30
"""Bytes of address space of a child; what needs more is unverified."""

WALL = 4.0
"""Wall-clock limit of a job over its limit on CPU time: on a busy machine the judgement is the same, only later."""

_ROOT = str(Path(__file__).resolve().parents[2])

START_SECONDS = 120.0

GRACE_SECONDS = 10.0
"""How much later than its last limit a worker may answer before it is given up."""


class Pair(NamedTuple):
    """A right answer, an answer to judge, and whether the latter is LaTeX or a text."""

    gold: str
    answer: str
    latex: bool


class Judgement(NamedTuple):
    """Whether one of some pairs is equal: `CORRECT`, `WRONG` or `UNVERIFIED`, and why not."""

    outcome: str
    reason: str = ""


# The owner's side


class Verifier:
    """Worker processes, `workers` at most, started as they are needed and used by any number of threads."""

    def __init__(self, workers: int) -> None:
        self._slots = threading.BoundedSemaphore(workers)
        self._idle: list[_Worker] = []
        self._every: set[_Worker] = set()
        self._lock = threading.Lock()

    def compare(self, pairs: Sequence[Pair], timeout: float) -> Judgement:
        """Return whether any pair is equal, within `timeout` seconds of CPU time in all; it needs Math-Verify."""
        job = {"pairs": pairs, "timeout": timeout}
        with self._slots:
            while True:
                worker, fresh = self._take()
                try:
                    reply = worker.ask(job, timeout * WALL + GRACE_SECONDS)
                except BaseException:
                    self._end(worker)
                    raise
                if reply is not None:
                    with self._lock:
                        self._idle.append(worker)
                    return Judgement(reply["outcome"], reply["reason"])
                self._end(worker)
                if fresh:  # one that was ended from outside while idle says nothing of the job
                    return Judgement(UNVERIFIED, "worker lost")

    def _take(self) -> tuple[_Worker, bool]:
        """Return an idle worker or a new one, and whether it is new."""
        with self._lock:
            if self._idle:
                return self._idle.pop(), False
        worker = _Worker()
        with self._lock:
            self._every.add(worker)
        return worker, True

    def _end(self, worker: _Worker) -> None:
        with self._lock:
            self._every.discard(worker)
        worker.end()

    def pids(self) -> list[int]:
        """Return the worker processes."""
        with self._lock:
            return [worker.process.pid for worker in self._every]

    def close(self) -> None:
        """End the workers."""
        with self._lock:
            every, self._every, self._idle = self._every, set(), []
        for worker in every:
            worker.end()

    def forget(self) -> None:
        """Close the pipes in a forked copy: the workers belong to the parent, and must end with it."""
        for worker in self._every:
            worker.process.returncode = 0
            worker.close()


class _Worker:
    """A worker process and the pipes to it."""

    def __init__(self) -> None:
        # This package first on the path, in place of the folder that the caller happens to be in.
        path = f"import sys; sys.path[:] = [{_ROOT!r}, *filter(None, sys.path)]"
        code = f"{path}; from scale.rewards.verifier import serve; serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        reply = self._reply(START_SECONDS)
        if reply is None or "error" in reply:
            self.end()
            what = f"none that starts within {START_SECONDS:g} s" if reply is None else reply["error"]
            raise ValueError(f"reward: expected Math-Verify (pip install '{PIN}'), got {what}")

    def ask(self, job: Any, seconds: float) -> Any:
        """Return the reply to a job, or None if there is none in time."""
        assert self.process.stdin is not None
        try:
            content = memoryview((json.dumps(job) + "\n").encode())
            while content:
                content = content[self.process.stdin.write(content) :]
        except OSError:
            return None
        return self._reply(seconds)

    def _reply(self, seconds: float) -> Any:
        assert self.process.stdout is not None
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        deadline, line = time.monotonic() + seconds, b""
        while not line.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            block = os.read(self.process.stdout.fileno(), 2**16)
            if not block:
                return None
            line += block
        return json.loads(line)

    def end(self) -> None:
        """End the process and its child."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.close()

    def close(self) -> None:
        """Close the pipes."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


_shared: Verifier | None = None
_shared_lock = threading.Lock()


def shared(workers: int) -> Verifier:
    """Return this process's verifier; the first call decides how many workers it may have."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = Verifier(workers)
            atexit.register(_shared.close)
        return _shared


def _after_fork() -> None:
    global _shared, _shared_lock
    _shared_lock = threading.Lock()
    if _shared is not None:
        atexit.unregister(_shared.close)
        _shared.forget()
        _shared = None


os.register_at_fork(after_in_child=_after_fork)


# The worker's side


def serve() -> None:
    """Answer jobs until the input ends."""
    import resource

    try:
        judge([Pair("1", "2", True), Pair("\\frac{1}{2}", "x", False)])  # compiles its patterns, once for all children
    except ImportError as error:
        _answer({"error": repr(error)})
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard), hard))
    _answer({"ready": True})
    while True:
        child = os.fork()
        if not child:
            _work()
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return
        timers = (signal.SIGPROF, signal.SIGALRM)
        timeout = os.WIFSIGNALED(status) and os.WTERMSIG(status) in timers
        _answer(Judgement(UNVERIFIED, "timeout" if timeout else "crash")._asdict())


def _work() -> None:
    """Answer jobs in the child; never returns."""
    try:
        while (job := _read_job()) is not None:
            signal.setitimer(signal.ITIMER_PROF, job["timeout"])
            signal.setitimer(signal.ITIMER_REAL, job["timeout"] * WALL)
            judgement = judge([Pair(*pair) for pair in job["pairs"]])
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _answer(judgement._asdict())
        os._exit(0)
    finally:
        os._exit(1)


def _read_job() -> Any:
    line = b""
    while not line.endswith(b"\n"):
        block = os.read(0, 2**16)
        if not block:
            return None
        line += block
    return json.loads(line)


def _answer(reply: Any) -> None:
    try:
        os.write(1, (json.dumps(reply) + "\n").encode())
    except BrokenPipeError:
        os._exit(0)


def judge(pairs: Sequence[Pair]) -> Judgement:
    """Return whether Math-Verify finds any pair equal, without a limit on time.

    The right answer comes first: the comparison is not symmetric.
    """
    import logging

    import math_verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that it has no timeout
    latex = math_verify.LatexExtractionConfig(boxed_match_priority=0)
    either = [latex, math_verify.ExprExtractionConfig()]
    wrong, unverified = "", ""
    for pair in pairs:
        golds = math_verify.parse(f"\\boxed{{{pair.gold}}}", [latex], parsing_timeout=None)
        text = f"\\boxed{{{pair.answer}}}" if pair.latex else pair.answer
        answers = math_verify.parse(text, either, parsing_timeout=None)
        # Math-Verify returns an answer's text too; where it returns nothing else, it could not read the answer.
        if all(isinstance(x, str) for x in golds):
            unverified = "the right answer cannot be read"
        elif all(isinstance(x, str) for x in answers):
            wrong = "the answer cannot be read" if answers else "no answer found"
        for gold, answer in product(golds, answers):
            try:
                if math_verify.verify(gold, answer, timeout_seconds=None, raise_on_error=True):
                    return Judgement(CORRECT)
            except Exception as error:  # of any kind: of sympy, of recursion, of memory
                unverified = f"comparison failed: {type(error).__name__}"
    return Judgement(UNVERIFIED, unverified) if unverified else Judgement(WRONG, wrong)
