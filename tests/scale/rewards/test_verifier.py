"""Time limits that hold wherever the reward is called, and workers that end with their owner."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from scale.rewards import scoring, verifier
from tests.scale.rewards.test_extraction import GARBAGE
from tests.scale.rewards.test_scoring import LIMIT, SLOW, boxed, outcome

psutil = pytest.importorskip("psutil")

pytestmark = pytest.mark.skipif(find_spec("math_verify") is None, reason="needs Math-Verify")


ROOT = Path(__file__).parents[3]

START = 60
"""Seconds beyond the limit: a worker may have to start, on a busy machine."""


def timed(_=None):
    """Return what comes of a comparison that does not end, what comes of the next, and the seconds."""
    start = time.monotonic()
    slow = scoring.compute_score("any", SLOW, r"\frac{7}{3}", timeout=LIMIT)
    after = scoring.compute_score("any", boxed(r"\sqrt{8}"), r"2\sqrt{2}")
    return slow["unverified"], slow["reason"], after["score"], time.monotonic() - start


def check_timed(found):
    *values, seconds = found
    assert values == [1.0, "timeout", 1.0]
    assert seconds < LIMIT * verifier.WALL + START


def put_timed(queue):
    queue.put(timed())


def descendants(of=None):
    return {x.pid for x in psutil.Process(of).children(recursive=True)}


def descendants_of_pool():
    """Return the processes of the workers that there are."""
    pids = set(verifier.shared(scoring.WORKERS).pids())
    return pids.union(*(descendants(pid) for pid in pids))


def is_there(pid):
    with contextlib.suppress(psutil.NoSuchProcess):  # at any moment
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def gone(pids, seconds):
    """Wait until processes are gone; returns those that are not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        left = [x for x in pids if is_there(x)]
        if not left:
            return []
        time.sleep(0.05)
    return left


def test_timeout_in_the_main_thread():
    scoring.check()
    check_timed(timed())


def test_timeout_in_threads():
    """Many threads share the workers; no thread and no process is left behind by what was ended."""
    others = descendants() - descendants_of_pool()
    scoring.check()
    with ThreadPoolExecutor(6) as pool:
        for found in pool.map(timed, range(4)):
            check_timed(found)
    pool = verifier.shared(scoring.WORKERS)
    assert 1 <= len(pool.pids()) <= scoring.WORKERS
    # A worker and the child that it forked.
    assert len(descendants() - others) <= 2 * len(pool.pids())


def test_timeout_in_an_event_loop():
    """As verl's reward managers call it."""

    async def both():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(None, timed) for _ in range(2)))

    for found in asyncio.run(both()):
        check_timed(found)


def test_timeout_in_processes():
    """Processes have workers of their own, which end with them."""
    before = descendants()
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(timed, range(2)):
            check_timed(found)
        # multiprocessing keeps a process to track resources.
        during = {x for x in descendants() - before if "resource_tracker" not in " ".join(psutil.Process(x).cmdline())}
    assert len(during) >= 2 * 3  # the process, a worker, its child
    assert not gone(during, START)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_timeout_in_a_forked_daemon():
    """A fork of a process with workers takes none of them along, and a daemon may have workers of its own."""
    scoring.check()
    workers = verifier.shared(scoring.WORKERS).pids()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=put_timed, args=(queue,), daemon=True)
    process.start()
    check_timed(queue.get(timeout=120))
    process.join(30)
    assert process.exitcode == 0
    assert verifier.shared(scoring.WORKERS).pids() == workers
    check_timed(timed())


OWNER = """
import os, subprocess, sys, threading, time
from scale.rewards import scoring
class Slow(subprocess.Popen):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        time.sleep({making})
subprocess.Popen = Slow
check = threading.Thread(target=scoring.check)
check.start()
check.join({seconds})
if os.fork() == 0:  # a copy that lives on
    time.sleep(600)
    os._exit(0)
check.join()
threading.Thread(target=scoring.compute_score, args=("any", sys.argv[1], "7/3"), kwargs={{"timeout": 0.5}}).start()
print("ready", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize(("seconds", "making"), [(START, 0), (0.1, 0), (0.5, 1)])
def test_workers_end_with_a_killed_owner(seconds, making):
    """Also one that computes, at the latest at its wall-clock limit, and if a fork of the owner lives on.

    A worker is ready when the owner is forked, or is just being started, or its process is just being made.
    """
    code = OWNER.format(seconds=seconds, making=making)
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, "-c", code, SLOW], stdout=subprocess.PIPE, env=environ) as owner:
        assert owner.stdout.readline() == b"ready\n"
        every = descendants(owner.pid)
        copies = {x for x in every if code in psutil.Process(x).cmdline()}
        owner.send_signal(signal.SIGKILL)
    left = gone(every - copies, LIMIT * verifier.WALL + START)
    for pid in copies:
        os.kill(pid, signal.SIGKILL)
    assert (len(copies), len(every - copies) >= 2, left) == (1, True, [])


def test_a_worker_that_was_killed_is_replaced():
    """An idle worker may be ended from outside; the next comparison does not suffer."""
    scoring.check()
    pool = verifier.shared(scoring.WORKERS)
    before = pool.pids()
    for pid in before:
        os.killpg(pid, signal.SIGKILL)
    scoring.check()
    assert not set(before) & set(pool.pids())


def test_closing_ends_the_workers():
    pool = verifier.Verifier(1)
    assert pool.compare([verifier.Pair("1", "x")], 5.0) == verifier.Judgement("wrong")
    workers = pool.pids()
    assert len(workers) == 1
    pool.close()
    assert not gone(workers, START)


def test_without_math_verify(tmp_path, monkeypatch):
    """A worker that cannot import it says so, with what to install."""
    (tmp_path / "math_verify.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"reward: expected Math-Verify \(pip install 'math-verify.*got .*not here"):
        verifier.Verifier(1).compare([verifier.Pair("1", "x")], 5.0)


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage(name):
    """100 kB of anything, boxed or not, are decided, or unverified, within the bound."""
    scoring.check()
    start = time.monotonic()
    for text in (GARBAGE[name], boxed(GARBAGE[name])):
        assert outcome(r"\frac{7}{3}", text, timeout=LIMIT) in ("wrong", "unverified")
    assert time.monotonic() - start < 2 * LIMIT * verifier.WALL + START
    assert outcome("33", GARBAGE[name] + boxed("33")) == "right"


@pytest.mark.parametrize(
    "answer",
    [
        r"10^{10^{10}}+1",
        r"100000!!!",
        r"(x+1)^{100000}",
        r"\sum_{i=1}^{10000000} \frac{1}{i^{3}}",
        r"\int_0^1 e^{-x^{x^x}}\sin(x^{x}) dx",
        "(" * 400 + "1" + ")" * 400,
        r"\sqrt{" * 150 + "2" + "}" * 150,
        "^".join(["9"] * 100),
        "x" * 900,
    ],
)
def test_expensive_answers(answer):
    """Time and memory are bounded, and what could not be decided is never wrong silently."""
    start = time.monotonic()
    assert outcome(r"\frac{7}{3}", boxed(answer), timeout=LIMIT) in ("unverified", "wrong")
    assert time.monotonic() - start < LIMIT * verifier.WALL + START
