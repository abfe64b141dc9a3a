"""Processes of the verifier that are killed, stopped or say what is not theirs: no verdict is ever another job's."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from scale.rewards import scoring, verifier
from tests.scale.rewards.test_scoring import LIMIT, SLOW, boxed
from tests.scale.rewards.test_verifier import descendants, gone

psutil = pytest.importorskip("psutil")

pytestmark = pytest.mark.skipif(find_spec("math_verify") is None, reason="needs Math-Verify")

ROOT = Path(__file__).parents[3]

PAIR = [verifier.Pair(r"\frac{1}{2}", "0.5")]

HANG = 120
"""Seconds after which a process of a test hangs."""


def verdict(number):
    """Return whether a verdict is right, or unverified; every other number has a right answer, and all differ."""
    right = number % 2 == 0
    answer = rf"\sqrt{{{(2 if right else 3) * (number + 1) ** 2}}}"  # which only a worker decides
    found = scoring.compute_score("any", boxed(answer), rf"{number + 1}\sqrt{{2}}")
    assert found["pred"] == answer
    if found["unverified"]:
        assert found["score"] == 0
        return found["reason"]
    assert found["score"] == right, found
    return ""


def processes(of=None):
    """Return the workers of a verifier, each with a session of its own, and the children that they forked."""
    workers = (of or verifier.shared(scoring.WORKERS)).pids()
    children = []
    for pid in sorted(descendants() - set(workers)):
        with contextlib.suppress(ProcessLookupError):
            children += [pid] if os.getsid(pid) in workers else []
    return workers, children


class Asking:
    """Threads that ask for verdicts, one after the other, until the block ends."""

    def __init__(self, threads):
        self.threads = [threading.Thread(target=self._ask, args=(k,)) for k in range(threads)]
        self.ended = threading.Event()
        self.running = threading.Event()
        self.running.set()
        self.reasons, self.errors = [], []

    def _ask(self, number):
        while not self.ended.is_set():
            self.running.wait()
            try:
                self.reasons.append(verdict(number))
            except BaseException as error:
                self.errors.append(error)
            number += len(self.threads)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.running.set()
        for thread in self.threads:
            thread.join()


def kill_at_random(kills, seed, threads=4):
    """Kill a process of the verifier at random moments, between jobs and within, and ask in several threads."""
    rng = random.Random(seed)
    scoring.check()
    with Asking(threads) as asking:
        for _ in range(kills):
            moment = rng.choice(["soon", "after some verdicts", "between jobs"])
            if moment != "soon":
                asking.running.set()
                enough = len(asking.reasons) + rng.randint(1, 20)
                eventually(lambda enough=enough: len(asking.reasons) >= enough or asking.errors)
            if moment == "between jobs":
                asking.running.clear()
            time.sleep(rng.expovariate(1 / rng.choice([1e-3, 1e-2, 0.1])))
            workers, children = processes()
            if found := workers + children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(found), signal.SIGKILL)
            if asking.errors:
                break
    assert not asking.errors, asking.errors
    assert set(asking.reasons) <= {"", "crash", "worker lost"}
    assert [verdict(number) for number in range(20)] == [""] * 20
    return asking.reasons


def test_kills():
    assert "" in kill_at_random(15, 0)


@pytest.mark.long
def test_200_kills():
    reasons = kill_at_random(200, 1)
    assert reasons.count("") > 200


def kill(pids):
    """Kill processes, and wait until they have ended."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert not gone(pids, HANG)


@pytest.mark.parametrize("who", ["children", "workers", "all"])
def test_idle_processes_that_are_killed(who):
    """As the kernel does it when memory is short: the next verdicts are right, and not unverified."""
    with Asking(4) as asking:
        eventually(lambda: len(asking.reasons) > 20)
    workers, children = processes()
    assert workers
    assert children
    for pid in {"workers": workers, "children": children, "all": workers + children}[who]:
        os.kill(pid, signal.SIGKILL)  # they may still be there when the next job comes
    assert [verdict(number) for number in range(10)] == [""] * 10


def eventually(condition):
    """Wait until a condition comes true."""
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def pool():
    """Make a verifier with one worker."""
    pool = verifier.Verifier(1)
    assert pool.compare(PAIR, 5.0).outcome == "correct"
    yield pool
    pool.close()


@pytest.mark.parametrize(
    ("killed", "reason"),
    [
        ("child", "timeout"),
        ("worker", "timeout"),
        ("child child", "crash"),
        ("worker worker", "worker lost"),
        ("idle-child child", "timeout"),  # what ended before has nothing to do with the job
        ("idle-worker worker", "timeout"),
    ],
)
def test_a_job_is_begun_twice_at_most(killed, reason, pool):
    """It may be the job itself that ends its processes."""
    said, ended = [], set()
    timeout = 1.0 if reason == "timeout" else 1000.0  # a lost process is seen at once, not when the time is up
    pairs = [verifier.Pair("7/3", SLOW)]
    job = threading.Thread(target=lambda: said.append(pool.compare(pairs, timeout)), daemon=True)
    for who in killed.split():
        if not who.startswith("idle-"):
            if not job.is_alive():
                job.start()
            eventually(lambda before=frozenset(ended): any(busy(pid) for pid in set(processes(pool)[1]) - before))
        workers, children = processes(pool)
        ended |= set(children)
        kill(workers if who.endswith("worker") else children)
    job.join()
    assert said == [("unverified", reason)]
    assert pool.compare(PAIR, 5.0) == ("correct", "")


def test_a_job_whose_worker_is_lost_is_done_by_a_new_one():
    """Another idle one may be lost, too, though it does not look so yet."""
    pool = verifier.Verifier(2)
    slow = [threading.Thread(target=pool.compare, args=([verifier.Pair("7/3", SLOW)], 0.2)) for _ in range(2)]
    for thread in slow:
        thread.start()
    for thread in slow:
        thread.join()
    idle = list(pool._idle)
    assert len(idle) == 2
    jobs = idle[-1].jobs
    for worker in idle:
        os.kill(worker.process.pid, signal.SIGSTOP)
    said = []
    job = threading.Thread(target=lambda: said.append(pool.compare(PAIR, 5.0)))
    job.start()
    eventually(lambda: idle[-1].jobs > jobs)
    kill([idle[-1].process.pid])
    job.join()
    assert said == [("correct", "")]
    pool.close()


def busy(pid):
    """Return whether a process has computed for a while."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).cpu_times().user > 0.1
    return False


@pytest.mark.parametrize(("who", "length"), [("worker", 1), ("worker", 100_000), ("child", 1), ("child", 100_000)])
def test_a_stopped_process_is_replaced(who, length, pool, monkeypatch):
    """It is late, also with a job that its socket cannot hold: unverified, and the next verdict is right."""
    monkeypatch.setattr(verifier, "GRACE", 0.1)
    workers, children = processes(pool)
    stopped = workers if who == "worker" else children
    os.kill(stopped[0], signal.SIGSTOP)
    said = []
    job = threading.Thread(target=lambda: said.append(pool.compare(PAIR * length, 0.1)), daemon=True)
    job.start()
    job.join(HANG)
    assert said == [("unverified", "worker late")]
    assert not gone(stopped, HANG)
    monkeypatch.undo()
    assert pool.compare(PAIR, 5.0) == ("correct", "")


def test_a_long_job(pool):
    """It is longer than what a socket holds."""
    assert pool.compare([verifier.Pair("1", "2")] * 3 + PAIR * 50_000, 5.0) == ("correct", "")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_a_job_is_under_way():
    """The copies have no part in it, and have verdicts of their own."""
    scoring.check()
    result = []
    job = threading.Thread(target=lambda: result.append(scoring.compute_score("any", SLOW, "7/3", timeout=LIMIT)))
    job.start()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    copies = [context.Process(target=lambda: queue.put([verdict(k) for k in range(4)])) for _ in range(2)]
    for copy in copies:
        copy.start()
    assert [verdict(k) for k in range(4)] == [""] * 4
    for copy in copies:
        assert queue.get() == [""] * 4
        copy.join(HANG)
        assert copy.exitcode == 0
    job.join()
    assert result[0]["reason"] == "timeout"


# What a process says


@pytest.mark.parametrize(
    "reply",
    [
        b'{"id": 6, "outcome": "correct", "reason": ""}\n',
        b'{"outcome": "correct", "reason": ""}\n',
        b'{"id": null, "outcome": "correct", "reason": ""}\n',
        b'{"id": 7, "outcome": "perhaps", "reason": ""}\n',
        b'{"id": 7, "outcome": ["correct"], "reason": ""}\n',
        b'{"id": 7, "outcome": "correct"}\n',
        b'{"id": 7, "outcome": "correct", "reason": 1}\n',
        b'{"id": 7, "outcome": "correct", "reason": ""}',
        b'{"id": 7, "outcome": "corr\n',
        b'{"id": 6, "outcome": "wrong", "reason": ""}\n{"id": 7, "outcome": "correct", "reason": ""}\n',
        b"0.5\n",
        b'[7, "correct", ""]\n',
        b"\xff\n",
        b"",
    ],
)
def test_what_is_no_judgement_of_the_job(reply):
    """Another job's, a damaged one, a part of one, more than one, or none at all."""
    link, other = socket.socketpair()
    with link, other:
        other.sendall(reply)
        other.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError, match="expected"):
            verifier._ask(link, {"id": 7}, time.monotonic() + HANG)


def test_a_judgement_may_come_in_parts():
    link, other = socket.socketpair()
    with link, other:

        def answer():
            for byte in b'{"id": 7, "outcome": "wrong", "reason": ""}\n':
                other.sendall(bytes([byte]))

        thread = threading.Thread(target=answer)
        thread.start()
        assert verifier._ask(link, {"id": 7}) == ("wrong", "")
        thread.join()


def worker_that(lines, tmp_path, monkeypatch):
    """Let the workers of this test run lines of Python before Math-Verify is used."""
    (tmp_path / "sitecustomize.py").write_text(lines)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))


PRINTS = r"""
import os, sys, math_verify
print('{"id": 1, "outcome": "correct", "reason": ""}', flush=True)
real = math_verify.parse
def parse(*args, **kwargs):
    os.write(1, b'{"id": 1, "outcome": "correct", "reason": ""}\n')
    sys.stderr.write("x" * 100)
    os.close(os.dup(0))
    return real(*args, **kwargs)
math_verify.parse = parse
"""


def test_what_libraries_print_is_no_judgement(tmp_path, monkeypatch):
    worker_that(PRINTS, tmp_path, monkeypatch)
    pool = verifier.Verifier(1)
    try:
        assert [pool.compare([verifier.Pair("1/2", x)], 5.0).outcome for x in ("0.5", "0.6", "0.7")] == [
            "correct",
            "wrong",
            "wrong",
        ]
    finally:
        pool.close()


LAGS = r"""
import sys
sys.path.insert(0, {root!r})
from scale.rewards import verifier
real, last = verifier._answer, []
def answer(link, job, judgement):
    last.append((job, judgement))
    if len(last) > {after}:
        real(link, *last[-2])
    else:
        real(link, job, judgement)
verifier._answer = answer
"""


@pytest.mark.parametrize("after", [1, 3])
def test_a_worker_that_lags_by_one_job(after, tmp_path, monkeypatch):
    """It says each time what was right for the job before."""
    worker_that(LAGS.format(root=str(ROOT), after=after), tmp_path, monkeypatch)
    pool = verifier.Verifier(1)
    try:
        for number in range(6):
            found = pool.compare([verifier.Pair("1/2", "0.5" if number % 2 == 0 else "0.6")], 5.0).outcome
            assert found in ("correct" if number % 2 == 0 else "wrong", "unverified")
            if number < after:
                assert found != "unverified"
    finally:
        pool.close()


@pytest.mark.parametrize("ending", ["raise ValueError('no')", "import os; os._exit(3)"])
def test_a_worker_that_cannot_start(ending, tmp_path, monkeypatch):
    """That is an error: no response would ever be verified."""
    (tmp_path / "math_verify.py").write_text(ending)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"reward: expected Math-Verify .*, got (ValueError|a worker .* status 3)"):
        verifier.Verifier(1).compare(PAIR, 5.0)


# Timers

CHILD = """
import socket, sys, time
from scale.rewards import verifier
verifier.WALL = {wall}
verifier.judge = lambda pairs: {computation}
child = verifier._Child(socket.socketpair()[0])
try:
    verifier._ask(child.link, {{"id": 1, "pairs": [], "timeout": {timeout}}})
except OSError as error:
    print(child.end())
"""


@pytest.mark.parametrize(
    ("computation", "timeout", "wall", "ended_by"),
    [
        ("any(iter(int, 1))", 0.2, 1000, signal.SIGPROF),  # iter(int, 1) has no end
        ("9**9**9**9", 0.2, 1000, signal.SIGPROF),
        ("time.sleep(1000)", 0.2, 2, signal.SIGALRM),
    ],
)
def test_timers(computation, timeout, wall, ended_by):
    """One counts CPU time, and one goes on while a child waits: no worker is needed to end it."""
    code = CHILD.format(computation=computation, timeout=timeout, wall=wall)
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], env=environ, timeout=HANG, capture_output=True, check=True)
    assert int(run.stdout) == ended_by, run.stderr


IGNORING = """
import json, signal, sys
from scale.rewards import scoring, verifier
for number in (signal.SIGALRM, signal.SIGPROF):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM, signal.SIGPROF])
print(json.dumps(scoring.compute_score("any", sys.argv[1], "7/3", timeout=0.2)))
"""


def test_an_owner_that_ignores_the_signals_of_timers():
    """Programs hand on which signals they ignore or block."""
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", IGNORING, SLOW], env=environ, timeout=HANG, capture_output=True)
    assert json.loads(run.stdout)["reason"] == "timeout", run.stderr
