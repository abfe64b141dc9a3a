"""The process that holds one vLLM, and how vLLM is called.

It has a connection to the process that deals the work (`scale.evaluation.dealing`). It gets a `Load`, and answers with
`Ready`. Then it gets lists of requests, and sends a `Report` whenever some are finished, and every second. It ends when
the other end is closed, by whatever.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from scale.plugin.config import FIRST_RUNNER
from scale.run import reported
from theory.base.files import read_foreign_json

FINISHED = ("stop", "length")
"""How vLLM ends a response."""

UTILIZATION = 0.9
"""Share of a GPU's memory that vLLM takes."""

PERIOD = 1.0
"""Seconds between two reports while nothing is finished."""

STREAMED = 32
"""Tokens of a response between two looks at it: at each token it would cost as much as the token."""


class Load(NamedTuple):
    """What an engine is to load, and what it may be asked.

    Attributes
    ----------
    arguments : Of `vllm.LLM`.
    evaluations : For each evaluation the settings of sampling, without the seed, and the prompts as tokens.
    """

    arguments: dict[str, Any]
    evaluations: list[tuple[dict[str, Any], list[list[int]]]]


class Ready(NamedTuple):
    """The model is loaded, and `room` responses are drawn at once."""

    room: int


class Request(NamedTuple):
    """A response to draw: number of the evaluation, of the problem in it, of the sample, and the sample's own seed."""

    evaluation: int
    problem: int
    sample: int
    seed: int


class Response(NamedTuple):
    """What was drawn for a request."""

    request: Request
    tokens: int
    finish: str
    text: str


class Report(NamedTuple):
    """Tokens that the engine has drawn in all, unfinished responses included, and what is finished since the last."""

    tokens: int
    finished: list[Response]


# vLLM


def engine_arguments(spec: Mapping[str, Any], longest: int) -> dict[str, Any]:
    """Return vLLM's settings for sequences of at most `longest` tokens, which the model's positions must hold."""
    path = Path(spec["model"], "config.json")
    positions = read_foreign_json(path).get("max_position_embeddings")
    if positions is not None and (type(positions) is not int or positions < 1):
        raise ValueError(f"{path}: expected an integer >= 1 as max_position_embeddings, got {positions!r:.80}")
    changed = spec["max_position_embeddings"]
    if max(positions or longest, changed or 0) < longest:
        raise ValueError(
            f"max_tokens: expected the longest prompt and its response within the model's {positions} positions, got "
            f"{longest}; --max-position-embeddings gives it more, as in training"
        )
    arguments: dict[str, Any] = {
        "model": spec["model"],
        "dtype": spec["dtype"],
        "max_model_len": longest,
        "tensor_parallel_size": max(spec["gpus"], 1),
        "enforce_eager": not spec["gpus"],
        "disable_log_stats": True,
        "stream_interval": STREAMED,
        # A response is the same whatever is drawn beside it, and on whatever engine.
        "worker_extension_cls": "scale.plugin.evaluation_worker.EvaluationWorker",
    }
    if spec["gpus"]:
        arguments["gpu_memory_utilization"] = UTILIZATION
    if changed:
        arguments["hf_overrides"] = {"max_position_embeddings": changed}
    return arguments


class _Vllm:
    """vLLM with a model."""

    def __init__(self, load: Load) -> None:
        import vllm

        self.load, self.sampling = load, vllm.SamplingParams
        self.engine: Any = vllm.LLM(**load.arguments).llm_engine
        self.room = int(self.engine.vllm_config.scheduler_config.max_num_seqs)
        self.running: dict[str, tuple[Request, int]] = {}
        self.tokens = 0

    def add(self, request: Request) -> None:
        """Begin a response."""
        name = "-".join(map(str, request))
        settings, prompts = self.load.evaluations[request.evaluation]
        sampling = self.sampling(seed=request.seed, **settings)
        self.running[name] = request, 0
        self.engine.add_request(name, {"prompt_token_ids": prompts[request.problem]}, sampling)

    def step(self) -> list[Response]:
        """Draw the next tokens; returns what is finished."""
        finished = []
        for output in self.engine.step():
            first, (request, before) = output.outputs[0], self.running[output.request_id]
            count = len(first.token_ids)
            self.tokens += count - before
            self.running[output.request_id] = request, count
            if output.finished:
                del self.running[output.request_id]
                if first.finish_reason not in FINISHED:
                    raise RuntimeError(f"vLLM ended a response by {first.finish_reason}")
                finished.append(Response(request, count, first.finish_reason, first.text))
        return finished


# The process


def main(file: str, name: str) -> None:
    """Load and draw, until the other end is closed; `file` is the number of this end."""
    with reported(name), contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _serve(Connection(int(file)))


def _serve(connection: Connection) -> None:
    inbox: SimpleQueue[Any] = SimpleQueue()
    # Read at all times, so that the other end never waits for a step.
    threading.Thread(target=_read, args=(connection, inbox), daemon=True).start()
    os.environ.setdefault(*FIRST_RUNNER)
    import vllm  # noqa: F401 - heavy; meanwhile the other end reads the prompts

    load = inbox.get()
    if load is None:
        return
    engine = _Vllm(load)
    connection.send(Ready(engine.room))
    finished: list[Response] = []
    said = time.monotonic()
    while True:
        for requests in _received(inbox, wait=not engine.running):
            if requests is None:
                return
            for request in requests:
                engine.add(request)
        finished += engine.step()
        if finished or time.monotonic() - said >= PERIOD:
            connection.send(Report(engine.tokens, finished))
            finished, said = [], time.monotonic()


def _read(connection: Connection, inbox: SimpleQueue[Any]) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            inbox.put(connection.recv())
    inbox.put(None)


def _received(inbox: SimpleQueue[Any], *, wait: bool) -> Sequence[Any]:
    """Return what has come; wait for the first."""
    found = [inbox.get()] if wait else []
    with contextlib.suppress(Empty):
        while True:
            found.append(inbox.get_nowait())
    return found
