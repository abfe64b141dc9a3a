"""Runs that are killed, interrupted or starved of disk.

A kill is a real SIGKILL, which a process sends to itself before a given executed line of `toy`; where a file is being
written, half of it is there. Any line can be hit, and a failure names the one that was.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

import toy
from tests.toy.helpers import assert_same
from theory.base import files, runs
from toy.training import checkpoint
from toy.training.config import OptimizerConfig, TrainConfig
from toy.training.loop import train

pytestmark = pytest.mark.long

SOURCES = (str(Path(toy.__file__).parent), runs.__file__, files.__file__)
ROOT = Path(__file__).parents[2]
FINAL = {runs.CONFIG_FILE, runs.METRICS_FILE, runs.VERSIONS_FILE, checkpoint.NAME}
PROCESSES = multiprocessing.get_context("forkserver")


def tiny(small, method="clip-cov", rule="neyman", **fields):
    """Return a config that trains in a moment and has state of every kind: moments, histories, draws of the loss."""
    config = small(
        method,
        num_seeds=2,
        num_steps=5,
        batch_prompts=4,
        num_minibatches=2,
        history_discount=0.9,
        optimizer=OptimizerConfig(name="adamw", learning_rate=0.1),
    )
    return replace(config, **{"method": replace(config.method, allocator=rule), **fields})


def assert_same_folder(folder, run):
    """Require the folder of a finished run to hold the metrics of `run`, and its checkpoint the logits."""
    table = runs.read_run(folder).metrics
    for name, column in run.columns().items():
        np.testing.assert_array_equal(table[name].to_numpy(), column, err_msg=name)
    np.testing.assert_array_equal(checkpoint.load(folder / checkpoint.NAME)[0]["logits"], run.logits)
    # One that was killed after its last file leaves the file of its lock, which locks nothing.
    assert {path.name for path in folder.iterdir()} - {files.LOCK_FILE} == FINAL


@contextmanager
def before_every_line(act: Callable[[FrameType], None]) -> Iterator[None]:
    """Call `act` before every executed line of `toy`; what it raises, the line raises."""

    def local(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            act(frame)
        return local

    def enter(frame: FrameType, event: str, arg: Any) -> Any:
        return local if frame.f_code.co_filename.startswith(SOURCES) else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


def at_line(number: int, act: Callable[[], None]) -> Callable[[FrameType], None]:
    """Return what calls `act` before the line of that number, with a file that is being written half there."""
    left = iter(range(number, -1, -1))

    def count(frame: FrameType) -> None:
        if next(left, -1) == 0:
            partial = frame.f_locals.get("partial")
            if partial is not None and partial.exists():
                os.truncate(partial, partial.stat().st_size // 2)
            act()

    return count


def lines_of(config: TrainConfig, out: Path) -> list[str]:
    """Return file and number of every executed line of a whole run, in order."""
    found: list[str] = []
    with before_every_line(lambda frame: found.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")):
        train(config, out=out, checkpoint_every=1)
    return found


def points(lines: list[str], num: int, seed: int) -> list[int]:
    """Draw lines: half of them anywhere, half where files are written."""
    writing = [i for i, line in enumerate(lines) if line.startswith(("files.py", "runs.py", "checkpoint.py"))]
    rng = random.Random(seed)
    return rng.sample(range(len(lines)), num - num // 2) + rng.sample(writing, num // 2)


def train_and_die(config: TrainConfig, out: Path, line: int) -> None:
    torch.set_num_threads(1)
    with before_every_line(at_line(line, lambda: os.kill(os.getpid(), signal.SIGKILL))):
        train(config, out=out, checkpoint_every=1)


def train_alone(config: TrainConfig, out: Path) -> None:
    torch.set_num_threads(1)
    train(config, out=out, checkpoint_every=1)


def exit_code_of(target: Callable[..., None], *args: Any) -> int | None:
    process = PROCESSES.Process(target=target, args=args)
    process.start()
    process.join(60)
    process.kill()
    process.join()
    return process.exitcode


@pytest.fixture(scope="module", autouse=True)
def _preloaded():
    PROCESSES.set_forkserver_preload([__name__])


# Killed, interrupted, out of disk


@pytest.mark.parametrize(("method", "rule"), [("clip-cov", "neyman"), ("dynamo", "reinforce-ada")])
def test_a_run_killed_at_50_random_points_resumes_to_the_same_bits(method, rule, small, tmp_path):
    """25 points for each of two methods; the resumed run equals the uninterrupted one, files included."""
    config = tiny(small, method, rule)
    lines = lines_of(config, tmp_path / "whole")
    expected = train(config)
    found = set()
    for line in points(lines, 25, seed=len(method)):
        out = tmp_path / str(line)
        assert exit_code_of(train_and_die, config, out, line) == -signal.SIGKILL, lines[line]
        assert not (out / runs.VERSIONS_FILE).exists() or lines[line].startswith(("loop.py", "files.py"))
        found.add(checkpoint.load(out / checkpoint.NAME)[1]["num_steps"] if (out / checkpoint.NAME).exists() else 0)
        assert_same(train(config, out=out, checkpoint_every=1), expected)
        assert_same_folder(out, expected)
    assert len(found) >= 4, "the points should be spread over the steps"


def test_a_run_killed_from_outside_at_any_time_resumes_to_the_same_bits(small, tmp_path):
    config = tiny(small, num_steps=40)
    start = time.perf_counter()
    expected = train(config, out=tmp_path / "whole", checkpoint_every=1)
    seconds = time.perf_counter() - start
    for i in range(3):
        process = PROCESSES.Process(target=train_alone, args=(config, tmp_path / str(i)))
        process.start()
        deadline = time.monotonic() + 600
        while not (tmp_path / str(i) / runs.CONFIG_FILE).exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(random.uniform(0.0, 0.8) * seconds)
        process.kill()
        process.join()
        assert_same(train(config, out=tmp_path / str(i)), expected)
        assert_same_folder(tmp_path / str(i), expected)


def test_a_run_killed_again_and_again_gets_there(small, tmp_path):
    """Each life lasts half to four fifths of a run, and begins with what the one before has left."""
    config, out = tiny(small), tmp_path / "run"
    num_lines = len(lines_of(config, tmp_path / "whole"))
    expected = train(config)
    rng, lives = random.Random(1), 0
    while (
        exit_code_of(train_and_die, config, out, rng.randrange(num_lines // 2, num_lines * 4 // 5)) == -signal.SIGKILL
    ):
        lives += 1
        assert lives < 40
    assert lives >= 2
    assert_same(train(config, out=out), expected)
    assert_same_folder(out, expected)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_interrupts_and_a_full_disk_leave_the_last_checkpoint_good(error, small, tmp_path):
    """Ctrl-C at 12 lines of a run, or no space at 12 lines that write: nothing is lost but the step under way."""
    config = tiny(small)
    lines = lines_of(config, tmp_path / "whole")
    expected = train(config)
    drawn = points(lines, 24, seed=3)
    for line in drawn[6:18] if isinstance(error, KeyboardInterrupt) else drawn[12:]:

        def act() -> None:
            raise error

        out, steps = tmp_path / str(line), []
        # What cannot be read is a ValueError with the same cause.
        with pytest.raises((type(error), ValueError)) as caught, before_every_line(at_line(line, act)):
            train(config, out=out, checkpoint_every=1, progress=lambda step, value, seen=steps: seen.append(step))
        assert error in (caught.value, caught.value.__cause__)  # a file that cannot be written is named
        if steps:
            assert checkpoint.load(out / checkpoint.NAME)[1]["num_steps"] in (steps[-1], steps[-1] + 1)
        assert_same(train(config, out=out), expected)
        assert_same_folder(out, expected)


def test_ctrl_c_at_the_command_line_exits_with_130_and_says_how_to_go_on(tmp_path):
    """A real SIGINT; the same command then finishes the run, in another process, to the same bits."""
    command = ["run", "--world", "binary", "--seeds", "2", "--prompts", "12", "--batch", "6", "--steps", "150"]
    command += ["--out", str(tmp_path), "--checkpoint-every", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "toy", *command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        deadline = time.monotonic() + 600
        while not (tmp_path / checkpoint.NAME).exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert errors.splitlines() == ["python -m toy run: interrupted; with --out, the same command resumes"]
    config = TrainConfig.from_dict(files.read_json(tmp_path / runs.CONFIG_FILE))
    assert 0 < checkpoint.load(tmp_path / checkpoint.NAME)[1]["num_steps"] < 150
    assert_same(train(config, out=tmp_path), train(config))


def test_files_appear_whole(small, tmp_path):
    """Before every line that writes, each file is absent or can be read; nothing else is ever in the folder."""
    config, seen = tiny(small), Counter()

    def look(frame: FrameType) -> None:
        if not frame.f_code.co_filename.endswith(("files.py", "runs.py")) or not tmp_path.exists():
            return
        for path in tmp_path.iterdir():
            seen[path.name] += 1
            if path.name == checkpoint.NAME:
                checkpoint.load(path)
            elif path.name in (runs.CONFIG_FILE, runs.VERSIONS_FILE):
                files.read_json(path)
            elif path.name == runs.METRICS_FILE:
                runs.pq.read_table(path)

    with before_every_line(look):
        train(config, out=tmp_path, checkpoint_every=1)
    assert set(seen) == FINAL | {files.LOCK_FILE} | {f".{name}.partial" for name in FINAL}
    assert seen[f".{checkpoint.NAME}.partial"] >= 5


def test_a_reader_keeps_the_file_that_it_opened(small, tmp_path):
    """Files are replaced, never overwritten: handles opened after every step still read what was there then."""
    config, opened = tiny(small), []

    def keep(step: int, value: float) -> None:
        path = tmp_path / checkpoint.NAME
        opened.append((path.open("rb"), path.read_bytes()))

    train(config, out=tmp_path, checkpoint_every=1, progress=keep)
    assert len({content for _, content in opened}) == config.num_steps
    for file, content in opened:
        with file:
            assert file.read() == content


def test_a_checkpoint_cut_anywhere_is_refused_by_name(small, tmp_path):
    config = tiny(small)
    train(config, out=tmp_path)
    (tmp_path / runs.VERSIONS_FILE).unlink()
    path = tmp_path / checkpoint.NAME
    whole = path.read_bytes()
    for i in range(40):
        path.write_bytes(whole[: i * len(whole) // 40])
        with pytest.raises(ValueError, match=r"checkpoint.npz: expected a whole checkpoint, got a truncated"):
            train(config, out=tmp_path)


def test_a_foreign_checkpoint_is_refused_by_name(small, tmp_path):
    """Another run's, another program's, and another kind of file."""
    config = tiny(small)
    path = tmp_path / checkpoint.NAME
    train(config, out=tmp_path / "other")
    (tmp_path / "other" / checkpoint.NAME).rename(path)
    with pytest.raises(ValueError, match=r"checkpoint.npz: expected a run of the same config, got .* first_seed"):
        train(replace(config, first_seed=7), out=tmp_path)
    np.savez(path, logits=np.zeros(3))
    with pytest.raises(ValueError, match=r"checkpoint.npz: expected a whole checkpoint"):
        train(config, out=tmp_path)
    for content in (b"", b"hello", b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint.npz: expected a whole checkpoint"):
            train(config, out=tmp_path)
