"""Engines beside each other, each a process with a vLLM and GPUs of its own: started, dealt work and watched.

Work is dealt as it is done, since responses differ in length. What is drawn does not depend on who draws it: each
sample has a seed of its own. An engine that ends, or draws no token for long, is an error that names it.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from scale.evaluation.engine import Load, Ready, Report, Request, Response
from scale.launch.network import LOOPBACK, loopback

COMMAND = (sys.executable, "-c", "import sys; from scale.evaluation.engine import main; main(*sys.argv[1:])")

LOADING, STUCK = 3600.0, 1800.0
"""Seconds that an engine may take to load, and to draw its next token."""

PERIOD = 0.5
"""Seconds between two looks at the engines."""

STOPPED = 5.0
"""Seconds between two looks that count at most: in more, this process was stopped, and maybe the engines too."""

LEAVING = 30.0
"""Seconds that the engines have to end by themselves when all is done."""


class Engine:
    """An engine as the process that deals sees it.

    Attributes
    ----------
    room : Responses that it draws at once; 0 until it is ready.
    running : Requests that it has.
    tokens : Tokens that it has drawn.
    silent : Seconds since it last drew a token, while it had something to do.
    """

    def __init__(self, name: str, environ: Mapping[str, str], events: SimpleQueue[Any]) -> None:
        self.name, self.room, self.tokens, self.silent = name, 0, 0, 0.0
        self.running: set[Request] = set()
        self.connection, theirs = multiprocessing.Pipe()
        with theirs:
            self.process = subprocess.Popen(
                [*COMMAND, str(theirs.fileno()), name], env=dict(environ), pass_fds=[theirs.fileno()]
            )
        threading.Thread(target=self._receive, args=(events,), daemon=True).start()

    def _receive(self, events: SimpleQueue[Any]) -> None:
        with contextlib.suppress(EOFError, OSError):  # killed, maybe within a message
            while True:
                events.put((self, self.connection.recv()))
        events.put((self, None))

    def send(self, message: Any) -> None:
        """Send a message."""
        with contextlib.suppress(OSError):  # It has ended, which its connection says.
            self.connection.send(message)

    def how_it_ended(self) -> str:
        """Return how the process ended, in words."""
        try:
            code = self.process.wait(LEAVING)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if code >= 0:
            return f"ended with exit status {code}"
        why = ", as the kernel sends it when memory is short" if code == -signal.SIGKILL else ""
        return f"was ended by signal {-code}{why}"


class Engines:
    """Engines at work, for the length of a block: one for each name of devices in `devices`, "" on a CPU.

    Attributes
    ----------
    events : What comes from the engines, and what others put there: finished futures.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self.devices = devices
        self.events: SimpleQueue[Any] = SimpleQueue()
        self.engines: list[Engine] = []
        self.looked = time.monotonic()

    def __enter__(self) -> Engines:
        for number, (environ, devices) in enumerate(zip(environments(self.devices), self.devices, strict=True), 1):
            name = f"engine {number}" + (f" on GPU {devices}" if devices else "")
            self.engines.append(Engine(name, environ, self.events))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for engine in self.engines:
            # The thread that reads has the connection too, so it is not closed but ended.
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(engine.connection.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + LEAVING
        for engine in self.engines:
            try:
                # One that is still loading when all is done has nothing to end.
                wait = deadline - time.monotonic() if kind is None and engine.room else 0.0
                engine.process.wait(max(0.0, wait))
            except subprocess.TimeoutExpired:
                engine.process.kill()
                engine.process.wait()

    @property
    def tokens(self) -> int:
        """Return the tokens that all have drawn."""
        return sum(x.tokens for x in self.engines)

    @property
    def ready(self) -> int:
        """Return how many have loaded the model."""
        return sum(x.room > 0 for x in self.engines)

    def load(self, load: Load) -> None:
        """Let all engines load the model."""
        for engine in self.engines:
            engine.send(load)

    def deal(self, jobs: deque[Request]) -> None:
        """Give the engines as many of the jobs as they have room for, and none more than its share of what is left."""
        left = len(jobs) + sum(len(x.running) for x in self.engines)
        share = math.ceil(left / len(self.engines))
        for engine in self.engines:
            # A few more than are drawn at once, so that the next is there when one is finished.
            free = min(engine.room + engine.room // 8, share) - len(engine.running)
            given = [jobs.popleft() for _ in range(min(free, len(jobs)))]
            if given:
                engine.silent = engine.silent if engine.running else 0.0
                engine.running.update(given)
                engine.send(given)

    def wait(self) -> list[Response] | Future[Any]:
        """Wait for a moment; returns responses, or a future that is done."""
        event = None
        with contextlib.suppress(Empty):
            event = self.events.get(timeout=PERIOD)
        self._watch()
        if event is None or isinstance(event, Future):
            return [] if event is None else event
        engine, message = event
        if isinstance(message, Ready):
            engine.room, engine.silent = message.room, 0.0
            return []
        if not isinstance(message, Report):
            raise RuntimeError(f"{engine.name} (process {engine.process.pid}) {engine.how_it_ended()}")
        if message.tokens > engine.tokens:
            engine.tokens, engine.silent = message.tokens, 0.0
        engine.running.difference_update(x.request for x in message.finished)
        return message.finished

    def _watch(self) -> None:
        """Require of each engine with something to do that it does it."""
        now = time.monotonic()
        passed, self.looked = min(now - self.looked, STOPPED), now
        for engine in self.engines:
            if engine.room and not engine.running:
                continue
            engine.silent += passed
            limit, what = (STUCK, "drew no token for") if engine.room else (LOADING, "has not loaded the model in")
            if engine.silent > limit:
                raise RuntimeError(f"{engine.name} (process {engine.process.pid}) {what} {engine.silent:.0f} s")


def environments(devices: Sequence[str]) -> list[dict[str, str]]:
    """Return the environments of engines beside each other: this process's, with devices and ports of their own.

    All keep to the loopback address.
    """
    common = os.environ | loopback(os.environ)
    if not any(devices):
        return [dict(common)] * len(devices)
    found = []
    for each, port in zip(devices, _ports(len(devices)), strict=True):
        # vLLM takes the first port from this one on that is free when it looks, and opens it later.
        own = {"CUDA_VISIBLE_DEVICES": each, "VLLM_PORT": str(port)}
        if len(devices) > 1:  # Not all files in it are written at once.
            cache = Path(os.environ.get("VLLM_CACHE_ROOT", "~/.cache/vllm")).expanduser()
            own["VLLM_CACHE_ROOT"] = str(cache / f"gpu-{each.replace('/', '-')}")
        found.append(common | own)
    return found


def _ports(count: int) -> list[int]:
    """Return different ports that are free."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
