"""What the processes of a run report to its supervisor, through files in the run's folder: progress and failures.

Called in every process of verl and vLLM, so it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import logging
import math
import os
import re
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from scale.run.guard import RUN_ID
from scale.run.secrets import hide, secrets_of

F = TypeVar("F", bound=Callable[..., Any])

RUN_FOLDER = "DYNAMO_RUN_FOLDER"
"""Variable of the environment with the folder of the run that a process belongs to."""

PROGRESS, FAILURES = "progress.json", "failures"

PULSE = "pulse.json"
"""File that a worker writes anew while a phase goes on."""

PULSE_EVERY = 5.0
"""Seconds between two pulses of a process, at least."""

STOP = "stop"
"""File that asks the trainer to save a checkpoint and to end. `touch RUN/stop` does so too."""

STARTING = (
    "Ray",
    "data",
    "workers",
    "model",
    "vLLM",
    "checkpoint loading",
    "first weights",
    "agent loops",
    "first look",
)
"""Phases before the first step, in their order; `first look` is the validation before training."""

STEPPING = (
    "rollouts",
    "rewards",
    "old log-probs",
    "reference",
    "advantages",
    "update",
    "checkpoint",
    "weight sync",
    "validation",
    "records",
)
"""Phases of a step, in their order."""

STOPPING, STOPPED = "stopping", "stopped"
"""Phases of a run that was asked to end: it saves; all is saved."""

CURRENT = "run_id"
"""File with the id of the last run in the folder: what is left of an earlier one reports nothing."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """An exception in a process of a run.

    Attributes
    ----------
    where : Part of the run, such as "agent loop".
    time : Seconds since the epoch.
    """

    where: str
    type: str
    message: str
    traceback: str
    pid: int
    time: float


def report_failure(where: str, error: BaseException) -> None:
    """Report an exception in a part of the run (`where`) to the supervisor, which then ends the run; never raises."""
    try:
        folder = os.environ.get(RUN_FOLDER)
        if folder is None:
            logger.warning("%s failed outside a supervised run, %s is not set: %r", where, RUN_FOLDER, error)
            return
        require_current()
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        message, text = (hide(x, secrets_of()) for x in (str(error), text))
        failure = Failure(where, type(error).__name__, message, text, os.getpid(), time.time())
        _write_json(Path(folder, FAILURES, f"{time.time_ns()}-{failure.pid}.json"), asdict(failure))
    except Exception:
        # The caller is about to raise `error`, which must not be hidden by a full disk or an exception without a text.
        logger.warning("the failure of %s could not be reported", where, exc_info=True)


class reported:
    """Report exceptions of a block, a function or an async function in a part of the run, and let them pass.

    Examples
    --------
    >>> @reported("reward")
    ... def score(answer):
    ...     return len(answer)
    >>> score("17")
    2
    """

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        """Start the block."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Exception):  # Neither an interrupt nor a cancelled task is a failure.
            report_failure(self.where, error)

    def __call__(self, function: F) -> F:
        """Return the function, reported."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return run_async  # type: ignore[return-value]

        @functools.wraps(function)
        def run_sync(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return run_sync  # type: ignore[return-value]


def beat(step: int, phase: str | None = None, **values: float) -> None:
    """Tell the supervisor of progress: the last step that is done, the phase that begins or goes on, numbers to show.

    Nothing happens outside a supervised run.
    """
    folder = os.environ.get(RUN_FOLDER)
    if folder is not None:
        require_current()
        begun = {} if phase is None else {"phase": phase}
        _write_json(Path(folder, PROGRESS), {**values, **begun, "step": step, "time": time.time()})


_pulsed = -math.inf


def pulse() -> None:
    """Tell the supervisor that the phase goes on; cheap enough for every micro-batch, and called in rank 0 alone."""
    global _pulsed
    folder, now = os.environ.get(RUN_FOLDER), time.monotonic()
    if folder is not None and now - _pulsed >= PULSE_EVERY:
        _pulsed = now
        require_current()
        _write_json(Path(folder, PULSE), {"pid": os.getpid(), "time": time.time()})


def asked_to_stop() -> bool:
    """Return whether the run was asked to save a checkpoint and to end."""
    folder = os.environ.get(RUN_FOLDER)
    return folder is not None and os.path.lexists(Path(folder, STOP))


def ask_to_stop(folder: Path) -> None:
    """Ask the run in a folder to save a checkpoint and to end."""
    _write_json(folder / STOP, {"time": time.time()})


def require_current() -> None:
    """Require that no later run has begun in this process's folder; otherwise this process must write no more."""
    folder, own = os.environ.get(RUN_FOLDER), os.environ.get(RUN_ID)
    if folder is None or own is None:
        return
    with contextlib.suppress(FileNotFoundError):
        if (current := Path(folder, CURRENT).read_text()) != own:
            raise RuntimeError(f"{folder}: expected run {own}, got a later one, {current:.40}, in its place")


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    # A text may hold what UTF-8 cannot; JSON's escapes can.
    partial.unlink(missing_ok=True)
    with partial.open("x", encoding="ascii") as file:  # follows no link
        file.write(json.dumps(data))
    partial.replace(path)


# Reading a run's folder


def read_progress(folder: Path) -> dict[str, Any] | None:
    """Return what the last `beat` of the run in a folder said: step, phase, time and values; None before the first."""
    path = folder / PROGRESS
    try:
        said = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected progress of a run, got damaged JSON: {error}") from error
    if not isinstance(said, dict) or "step" not in said:
        raise ValueError(f"{path}: expected progress of a run, got {said!r:.80}")
    return said


def read_failures(folder: Path) -> tuple[Failure, ...]:
    """Return the failures that were reported by the run in a folder, the first one first.

    A damaged report counts as a failure of an unknown part, and its message names the file.
    """
    paths = sorted((folder / FAILURES).glob("[0-9]*.json"), key=lambda path: int(re.split(r"\D", path.name)[0]))
    return tuple(_read_failure(path) for path in paths)


def _read_failure(path: Path) -> Failure:
    try:
        data = json.loads(path.read_bytes())
        return Failure(**{field.name: data[field.name] for field in fields(Failure)})
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return Failure("unknown part", "damaged report", f"{path}: {error!r}", "", 0, 0.0)
