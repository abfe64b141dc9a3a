"""The process that holds vLLM, `python -m scale.evaluation.generate SPEC`; and the file of samples.

Every response is sampled with a seed of its own, scored by the run's reward function in other processes, and appended
to its evaluation's `samples.jsonl` as one line. A killed process may leave a line without an end; that line is dropped
and its sample drawn again, with the same seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from scale.evaluation.problems import BenchmarkProblem, Score, load_reward, score
from scale.launch.network import loopback
from scale.run import beat, reported
from theory.base.files import json_line, no_link, opened, read_foreign_json, read_json, read_line
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

FINISHED = ("stop", "length")
"""How vLLM ends a response."""

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
            (problem, number)
            for problem in self.problems
            for number in range(spec["samples"])
            if (problem.key, number) not in done
        ]

    def append(self, problem: BenchmarkProblem, number: int, output: Mapping[str, Any], scored: Score) -> None:
        """Add a sample."""
        line = {
            "evaluation": self.spec["evaluation"],
            "key": problem.key,
            "sample": number,
            "seed": sample_seed(self.spec["seed"], problem.key, number),
            **scored._asdict(),
            **output,
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
    beat(0, tokens=0)
    with ExitStack() as stack:
        evaluations = [
            Evaluation(each, stack.enter_context(appending(Path(each["folder"], SAMPLES_FILE))))
            for each in spec["evaluations"]
        ]
        pool = stack.enter_context(scorers(spec["reward"], spec["reward_arguments"], spec["scorers"]))
        _generate(spec, evaluations, pool)


def _generate(spec: Mapping[str, Any], evaluations: list[Evaluation], pool: ProcessPoolExecutor) -> None:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(spec["model"], trust_remote_code=False)
        prompts = {
            (number, problem.key): _tokens(tokenizer, problem, spec["template"])
            for number, each in enumerate(evaluations)
            for problem in each.problems
        }
    except Exception as error:  # of any kind: the files and the chat template are others'
        raise ValueError(f"{spec['model']}: expected a tokenizer with a chat template, got {error!r:.300}") from error
    longest = max(map(len, prompts.values())) + max(each.spec["max_tokens"] for each in evaluations)
    arguments = engine_arguments(spec, longest)
    os.environ.update(loopback(os.environ))
    import vllm  # Heavy: what is wrong with the prompts has been said by now.

    llm = vllm.LLM(spec["model"], **arguments)
    engine = llm.llm_engine
    room = 2 * engine.vllm_config.scheduler_config.max_num_seqs
    jobs = iter([(number, *job) for number, each in enumerate(evaluations) for job in each.missing])
    running: dict[str, tuple[int, BenchmarkProblem, int]] = {}
    waiting: dict[Future[Score], tuple[int, BenchmarkProblem, int, dict[str, Any]]] = {}
    scored: SimpleQueue[Future[Score]] = SimpleQueue()
    stored = shown = tokens = 0
    start = last = time.monotonic()
    more = True
    while more or running or waiting:
        while more and len(running) < room:
            job = next(jobs, None)
            if job is None:
                more = False
                break
            number, problem, sample = job
            name = f"{number}-{sample}-{problem.key}"
            running[name] = job
            spec = evaluations[number].spec
            sampling = vllm.SamplingParams(
                seed=sample_seed(spec["seed"], problem.key, sample),
                **{x: spec[x] for x in ("temperature", "top_p", "max_tokens")},
            )
            engine.add_request(name, {"prompt_token_ids": prompts[number, problem.key]}, sampling)
        for request in engine.step() if running else ():
            if request.finished:
                number, problem, sample = running.pop(request.request_id)
                first = request.outputs[0]
                if first.finish_reason not in FINISHED:
                    raise RuntimeError(f"vLLM ended a response of {problem.key} by {first.finish_reason}")
                output = {"tokens": len(first.token_ids), "finish": first.finish_reason, "text": first.text}
                future = pool.submit(score_response, problem, first.text)
                waiting[future] = (number, problem, sample, output)
                future.add_done_callback(scored.put)
                tokens += len(first.token_ids)
        for future in _finished(scored, block=bool(waiting) and (not running or len(waiting) >= WAITING)):
            number, problem, sample, output = waiting.pop(future)
            evaluations[number].append(problem, sample, output, future.result())
            stored += 1
        if stored > shown and time.monotonic() - last > SHOW:
            shown, last = stored, time.monotonic()
            _show(evaluations, stored, tokens, last - start)
    _show(evaluations, stored, tokens, time.monotonic() - start)


def _finished(scored: SimpleQueue[Future[Score]], *, block: bool) -> Iterator[Future[Score]]:
    """Return what has been scored by now; wait a second for the first with `block`."""
    with contextlib.suppress(Empty):
        while True:
            yield scored.get(block, 1.0)
            block = False


def _show(evaluations: Sequence[Evaluation], stored: int, tokens: int, seconds: float) -> None:
    """Report progress, with all samples on the disk; while engine or reward function hang, no report comes."""
    for each in evaluations:
        os.fsync(each.file.fileno())
    beat(stored, tokens=tokens, seconds=seconds)
    print(f"{stored} samples, {tokens} tokens, {seconds:.1f} s", flush=True)


def _tokens(tokenizer: Any, problem: BenchmarkProblem, arguments: Mapping[str, Any]) -> list[int]:
    text = tokenizer.apply_chat_template(problem.prompt, tokenize=False, add_generation_prompt=True, **arguments)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


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
        "dtype": spec["dtype"],
        "max_model_len": longest,
        "tensor_parallel_size": max(spec["gpus"], 1),
        "enforce_eager": not spec["gpus"],
        "disable_log_stats": True,
    }
    if not spec["gpus"]:
        # vLLM's CPU build fails where a prompt with a seed of its own is prefilled in parts.
        arguments |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(8192, longest)}
    if changed:
        arguments["hf_overrides"] = {"max_position_embeddings": changed}
    return arguments


if __name__ == "__main__":
    main(sys.argv[1])
