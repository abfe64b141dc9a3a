"""The process that writes samples, `python -m scale.evaluation.generate SPEC`; and the file of samples.

Every response is drawn with a seed of its own by one of the engines (`scale.evaluation.dealing`), scored by the run's
reward function in other processes, and appended to its evaluation's `samples.jsonl` as one line. A killed process may
leave a line without an end; that line is dropped and its sample drawn again, with the same seed.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from scale.evaluation.dealing import Engines
from scale.evaluation.engine import FINISHED, Load, Request, Response, engine_arguments
from scale.evaluation.problems import BenchmarkProblem, Score, load_reward, score
from scale.run import beat, reported
from theory.base.files import json_line, no_link, opened, read_json, read_line
from theory.base.processes import end_with_parent

SAMPLES_FILE = "samples.jsonl"

FIELDS: Mapping[str, type] = {
    "evaluation": str,
    "key": str,
    "sample": int,
    "seed": int,
    "correct": bool,
    "unverified": bool,
    "tokens": int,
    "finish": str,
    "text": str,
}
"""What a line of samples holds, and its types; `evaluation` is a hash of all that the response was drawn with."""

LONGEST = 2**26
"""Bytes that a line of samples has at most."""

WAITING = 4096
"""Responses that may wait for their score."""

SHOW = 1.0
"""Seconds between two reports of progress."""


def sample_seed(seed: int, key: str, sample: int) -> int:
    """Return the seed of a response, in [0, 2^31): a hash of the evaluation's seed, the problem and the number.

    Examples
    --------
    >>> sample_seed(1, "a", 0) == sample_seed(1, "a", 0) != sample_seed(1, "a", 1)
    True
    """
    return int.from_bytes(hashlib.sha256(f"evaluation/{seed}/{sample}/{key}".encode()).digest()[:4], "big") >> 1


# The file of samples


def read_samples(
    path: Path, problems: Sequence[BenchmarkProblem], seed: int, evaluation: str
) -> Iterator[dict[str, Any]]:
    """Return the samples of an evaluation, without a line that a killed process left unfinished; none without the file.

    A finished line that is damaged, of another evaluation, problem or seed, or there twice is a `ValueError`.
    """
    if not os.path.lexists(path):
        return
    keys, seen, name = {x.key for x in problems}, set(), str(path)
    try:
        with opened(path) as file:
            for number, line in enumerate(iter(partial(file.readline, LONGEST), b""), 1):
                if not line.endswith(b"\n"):
                    if len(line) < LONGEST:
                        return
                    raise ValueError(f"{name}: line {number}: expected less than {LONGEST} bytes, got more")
                sample = _read_sample(line, f"{name}: line {number}", keys, seed)
                if (got := sample["evaluation"]) != evaluation:
                    expected = f"a sample of evaluation {evaluation}"
                    raise ValueError(f"{name}: line {number}: expected {expected}, got one of {got!r:.80}")
                which = sample["key"], sample["sample"]
                if which in seen:
                    raise ValueError(f"{path}: expected each sample once, got {which[1]} of {which[0]!r} twice")
                seen.add(which)
                yield sample
    except OSError as error:
        raise ValueError(f"{path}: expected a readable file of samples, got {error}") from error


def _read_sample(line: bytes, where: str, keys: Set[str], seed: int) -> dict[str, Any]:
    try:
        text = line.decode()
    except ValueError as error:
        raise ValueError(f"{where}: expected a sample, got {error}") from error
    sample = read_line(text.removesuffix("\n"), where)
    wrong = [name for name, kind in FIELDS.items() if type(sample.get(name)) is not kind]
    wrong += [name for name in ("sample", "tokens") if not wrong and sample[name] < 0]
    if wrong:
        raise ValueError(f"{where}: expected a sample, got {wrong[0]} {sample.get(wrong[0])!r:.80}")
    if sample["finish"] not in FINISHED or (sample["correct"] and sample["unverified"]):
        raise ValueError(f"{where}: expected a sample that ended by {' or '.join(FINISHED)}, got {line[:80]!r}")
    if sample["key"] not in keys or sample["seed"] != sample_seed(seed, sample["key"], sample["sample"]):
        raise ValueError(f"{where}: expected a sample of the evaluation's problems and seed, got {line[:60]!r}")
    return sample


def drop_unfinished(path: Path) -> None:
    """Cut off a last line without an end."""
    if not path.exists():
        return
    with open(path, "rb+", opener=no_link) as file:
        length = end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 2**16)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < length:
            file.truncate(end)


@contextmanager
def appending(path: Path) -> Iterator[Any]:
    """Open a file of samples to append to; the caller is its only writer."""
    drop_unfinished(path)
    with open(path, "ab", buffering=0, opener=no_link) as file:
        yield file


class Evaluation:
    """An evaluation at work: `spec` has its folder, problems and sampling settings, `file` takes its samples."""

    def __init__(self, spec: Mapping[str, Any], file: Any) -> None:
        self.spec, self.file = spec, file
        self.problems = [BenchmarkProblem(**x) for x in spec["problems"]]
        path = Path(spec["folder"], SAMPLES_FILE)
        samples = read_samples(path, self.problems, spec["seed"], spec["evaluation"])
        done = {(x["key"], x["sample"]) for x in samples}
        self.missing = [
            (place, number)
            for place, problem in enumerate(self.problems)
            for number in range(spec["samples"])
            if (problem.key, number) not in done
        ]

    def seed(self, place: int, number: int) -> int:
        """Return the seed of a sample of the problem at a place."""
        return sample_seed(self.spec["seed"], self.problems[place].key, number)

    def append(self, drawn: Response, scored: Score) -> None:
        """Add a sample."""
        line = {
            "evaluation": self.spec["evaluation"],
            "key": self.problems[drawn.request.problem].key,
            "sample": drawn.request.sample,
            "seed": drawn.request.seed,
            **scored._asdict(),
            **{name: getattr(drawn, name) for name in ("tokens", "finish", "text")},
        }
        data = json_line(line).encode()
        if self.file.write(data) < len(data):  # One write: a line is there whole, or it has no end.
            raise OSError(f"{self.file.name}: the disk is full")


# Scoring, in processes of their own

_reward: Callable[..., Any]


def scorers(reward: str, arguments: Mapping[str, Any], processes: int) -> ProcessPoolExecutor:
    """Return processes that run `score_response` with a reward function."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, spawn, _start_scoring, (reward, arguments))


def _start_scoring(name: str, arguments: Mapping[str, Any]) -> None:
    global _reward
    end_with_parent()
    _reward = load_reward(name, arguments)


def score_response(problem: BenchmarkProblem, response: str) -> Score:
    """Return the score of a response, in a process of `scorers`."""
    return score(_reward, problem, response)


# Generation


@reported("generation")
def main(path: str) -> None:
    """Draw, score and store the samples that a specification asks for."""
    spec = read_json(Path(path))
    beat(0, "loading", tokens=0)
    with ExitStack() as stack:
        evaluations = [
            Evaluation(each, stack.enter_context(appending(Path(each["folder"], SAMPLES_FILE))))
            for each in spec["evaluations"]
        ]
        jobs = deque(
            Request(number, place, sample, each.seed(place, sample))
            for number, each in enumerate(evaluations)
            for place, sample in each.missing
        )
        pool = stack.enter_context(scorers(spec["reward"], spec["reward_arguments"], spec["scorers"]))
        engines = stack.enter_context(Engines(spec["devices"]))
        engines.load(_load(spec, evaluations))
        draw(evaluations, jobs, engines, pool)


def _load(spec: Mapping[str, Any], evaluations: Sequence[Evaluation]) -> Load:
    """Return what every engine needs: the model, settings and all prompts."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(spec["model"], trust_remote_code=False)
        prompts = [[_tokens(tokenizer, x, spec["template"]) for x in each.problems] for each in evaluations]
    except Exception as error:  # of any kind: the files and the chat template are others'
        raise ValueError(f"{spec['model']}: expected a tokenizer with a chat template, got {error!r:.300}") from error
    longest = max(len(x) for each in prompts for x in each) + max(each.spec["max_tokens"] for each in evaluations)
    sampling = [{x: each.spec[x] for x in ("temperature", "top_p", "max_tokens")} for each in evaluations]
    return Load(engine_arguments(spec, longest), list(zip(sampling, prompts, strict=True)))


def draw(evaluations: Sequence[Evaluation], jobs: deque[Request], engines: Engines, pool: ProcessPoolExecutor) -> None:
    """Let the engines draw what the jobs ask for, and store each response with its score."""
    total = len(jobs)
    stored, shown = 0, (-1, 0, 0)
    waiting: dict[Future[Score], Response] = {}
    start = last = time.monotonic()
    while stored < total:
        if len(waiting) < WAITING:
            engines.deal(jobs)
        event = engines.wait()
        if isinstance(event, Future):
            drawn = waiting.pop(event)
            evaluations[drawn.request.evaluation].append(drawn, event.result())
            stored += 1
        else:
            for drawn in event:
                problem = evaluations[drawn.request.evaluation].problems[drawn.request.problem]
                future = pool.submit(score_response, problem, drawn.text)
                waiting[future] = drawn
                future.add_done_callback(engines.events.put)
        now, state = time.monotonic(), (stored, engines.tokens, engines.ready)
        if not engines.tokens:
            start = now  # The rate is that of drawing.
        if state != shown and (now - last > SHOW or stored == total):
            shown, last = state, now
            _show(evaluations, *state, len(engines.engines), now - start)


def _show(
    evaluations: Sequence[Evaluation], stored: int, tokens: int, ready: int, engines: int, seconds: float
) -> None:
    """Report progress, with all samples on the disk; while nothing is drawn or stored, no report comes."""
    for each in evaluations:
        os.fsync(each.file.fileno())
    beat(stored, "drawing" if tokens else "loading", tokens=tokens, seconds=seconds, ready=ready)
    print(f"{stored} samples, {tokens} tokens, {seconds:.1f} s, {ready} of {engines} engines", flush=True)


def _tokens(tokenizer: Any, problem: BenchmarkProblem, arguments: Mapping[str, Any]) -> list[int]:
    text = tokenizer.apply_chat_template(problem.prompt, tokenize=False, add_generation_prompt=True, **arguments)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


if __name__ == "__main__":
    main(sys.argv[1])
