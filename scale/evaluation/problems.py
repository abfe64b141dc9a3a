"""Problems to evaluate on, from verl's Parquet files, and the function that scores their responses."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from scale.manifest import open_prompts

COLUMNS = ("data_source", "prompt", "reward_model", "extra_info")


@dataclass(frozen=True)
class BenchmarkProblem:
    """A problem of a benchmark, as a row of verl's Parquet schema holds it.

    Attributes
    ----------
    key, benchmark, answer : `extra_info.key`, `data_source` and `reward_model.ground_truth`.
    prompt : Chat messages.
    extra_info : Handed to the reward function.
    """

    key: str
    benchmark: str
    prompt: list[dict[str, str]]
    answer: str
    extra_info: dict[str, Any]


def read_problems(path: Path) -> list[BenchmarkProblem]:
    """Read the problems of a Parquet file in verl's schema, in its order; a key that is there twice is an error."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise ValueError(f"{path}: expected a file of problems, got none; `python -m scale prepare` makes benchmarks")
    try:
        table = pq.read_table(open_prompts(path))
        table.validate(full=True)  # texts that are no UTF-8, among others
        rows = table.to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a whole Parquet file, got {error}") from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise ValueError(
            f"{path}: expected verl's columns {', '.join(COLUMNS)}, got none named {', '.join(missing)} among "
            f"{', '.join(table.column_names)}"
        )
    if not table.num_rows:
        raise ValueError(f"{path}: expected at least one problem, got none")
    problems: dict[str, BenchmarkProblem] = {}
    for number, row in enumerate(rows):
        problem = _problem(f"{path}: row {number}", row)
        first = problems.setdefault(problem.key, problem)
        if first is not problem:
            same = (first.prompt, first.answer) == (problem.prompt, problem.answer)
            with_what = "alike" if same else f"with the answers {first.answer!r} and {problem.answer!r}"
            raise ValueError(
                f"{path}: row {number}: expected every key once, got {problem.key!r} again, {with_what}; "
                "samples are drawn by --samples, not by copies of rows"
            )
    return list(problems.values())


def _problem(where: str, row: Mapping[str, Any]) -> BenchmarkProblem:
    reward, extra, prompt = row["reward_model"], row["extra_info"], row["prompt"]
    fields = {
        "extra_info.key": extra.get("key") if isinstance(extra, Mapping) else None,
        "data_source": row["data_source"],
        "reward_model.ground_truth": reward.get("ground_truth") if isinstance(reward, Mapping) else None,
    }
    for name, value in fields.items():
        if not isinstance(value, str) or not value:
            raise ValueError(f"{where}: expected a text as {name}, got {value!r:.80}")
    try:
        json.dumps(extra, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: expected an extra_info that JSON can hold, got {error}") from error
    if not isinstance(prompt, list) or not prompt or not all(_is_message(x) for x in prompt):
        raise ValueError(f"{where}: expected chat messages (role, content) as prompt, got {prompt!r:.80}")
    messages = [{"role": x["role"], "content": x["content"]} for x in prompt]
    key, benchmark, answer = fields.values()
    return BenchmarkProblem(str(key), str(benchmark), messages, str(answer), dict(extra))


def _is_message(x: Any) -> bool:
    return isinstance(x, Mapping) and all(isinstance(x.get(name), str) for name in ("role", "content"))


def fingerprint(problems: Sequence[BenchmarkProblem]) -> str:
    """Return a hash of the problems and their right answers; the rest of the file does not matter."""
    content = [(x.key, x.benchmark, x.prompt, x.answer) for x in problems]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


# Rewards


class Score(NamedTuple):
    """A response's score: whether it is correct, and whether the reward function could not decide."""

    correct: bool
    unverified: bool


def load_reward(name: str, arguments: Mapping[str, Any] | None = None) -> Callable[..., Any]:
    """Return a reward function by its name.

    Parameters
    ----------
    name : `pkg://module:function` or `path/to/file.py:function`.
    arguments : Keyword arguments of every call, verl's `reward_kwargs`.
    """
    place, _, function = name.rpartition(":")
    try:
        if place.startswith("pkg://"):
            module = importlib.import_module(place.removeprefix("pkg://"))
        else:
            spec = importlib.util.spec_from_file_location("reward_function", place)
            if spec is None or spec.loader is None:
                raise ValueError(f"reward: expected pkg://module:function or file.py:function, got {name!r}")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        reward = getattr(module, function)
    except (ImportError, OSError, AttributeError) as error:
        raise ValueError(f"reward: expected a function that can be imported, got {name!r}: {error}") from error
    if not inspect.isfunction(reward):
        raise ValueError(f"reward: expected a function, got {name!r}, a {type(reward).__name__}")
    return partial(reward, **arguments) if arguments else reward


def reward_files(reward: Callable[..., Any]) -> list[Path]:
    """Return the file of a reward function, and the files of its package or folder that it uses.

    Files that are only imported within a function count too: what compares answers is loaded in another process.
    """
    function = inspect.unwrap(reward.func if isinstance(reward, partial) else reward)
    waiting = [function.__globals__]
    home = Path(function.__globals__["__file__"]).parent
    while (home / "__init__.py").exists() and (home.parent / "__init__.py").exists():
        home = home.parent
    files: set[Path] = set()
    while waiting:
        names = waiting.pop()
        path = Path(names["__file__"])
        if path in files:
            continue
        files.add(path)
        for value in names.values():
            module = (
                value if isinstance(value, ModuleType) else sys.modules.get(getattr(value, "__module__", None) or "")
            )
            if module is not None and Path(getattr(module, "__file__", None) or "").is_relative_to(home):
                waiting.append(vars(module))
    unread = list(files)
    while unread:
        found = set(_imports(unread.pop(), home)) - files
        files |= found
        unread += found
    return sorted(files)


def _imports(path: Path, home: Path) -> Iterator[Path]:
    """Yield the files within a folder that a file imports, by name or relative to itself, loaded or not."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError, RecursionError):  # it fails, if at all, when it is imported
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            names, roots = [x.name for x in node.names], [home.parent, home]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module or ''}.{x.name}".strip(".") for x in node.names)]
            roots = list(path.parents)[node.level - 1 : node.level] if node.level else [home.parent, home]
        else:
            continue
        for root, name in itertools.product(roots, filter(None, names)):
            parts = name.split(".")
            packages = (root.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1))
            for file in (root.joinpath(*parts).with_suffix(".py"), *packages):
                if file.is_relative_to(home) and file.is_file():
                    yield file


def score(reward: Callable[..., Any], problem: BenchmarkProblem, response: str) -> Score:
    """Score a response as training does.

    The reward function returns 0 or 1, or a dict with such an `acc` or, without it, `score`. Another number does not
    say what is correct, and is a `ValueError`. A dict's `unverified` marks a response that could not be checked; it
    does not count as correct and is reported apart.
    """
    result = reward(
        data_source=problem.benchmark,
        solution_str=response,
        ground_truth=problem.answer,
        extra_info=dict(problem.extra_info),
    )
    unverified = bool(result.get("unverified", False)) if isinstance(result, Mapping) else False
    value = result.get("acc", result.get("score")) if isinstance(result, Mapping) else result
    if not isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating)) or value not in (0, 1):
        raise ValueError(
            f"reward: expected 0 or 1, or a dict with such an acc or score, got {result!r:.80} for problem "
            f"{problem.key!r}; pass@k counts correct responses"
        )
    return Score(bool(value) and not unverified, unverified)
