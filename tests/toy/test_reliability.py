"""Runs that are killed, interrupted or starved of disk, and the defects that peers shipped (R1 to R16).

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
from theory.base import runs
from toy.training import checkpoint, metrics
from toy.training.config import OptimizerConfig, TrainConfig
from toy.training.loop import Trainer, train
from toy.worlds.tabular import LogisticNormal

SOURCES = (str(Path(toy.__file__).parent), runs.__file__)
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


def assert_same(one, other):
    """Require two runs of the same bits."""
    np.testing.assert_array_equal(one.logits, other.logits)
    assert one.metrics.keys() == other.metrics.keys()
    for name in one.metrics:
        np.testing.assert_array_equal(one.metrics[name], other.metrics[name], err_msg=name)


def assert_same_folder(folder, run):
    """Require the folder of a finished run to hold the metrics of `run`, and its checkpoint the logits."""
    table = runs.read_run(folder).metrics
    for name, column in run.columns().items():
        np.testing.assert_array_equal(table[name].to_numpy(), column, err_msg=name)
    np.testing.assert_array_equal(checkpoint.load(folder / checkpoint.NAME)[0]["logits"], run.logits)
    assert {path.name for path in folder.iterdir()} == FINAL


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
    writing = [i for i, line in enumerate(lines) if line.startswith(("_runs.py", "checkpoint.py"))]
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
        assert not (out / runs.VERSIONS_FILE).exists() or lines[line].startswith("trainer.py")
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
        deadline = time.monotonic() + 60
        while not (tmp_path / str(i) / runs.CONFIG_FILE).exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(random.uniform(0.0, 0.8) * seconds)
        process.kill()
        process.join()
        assert_same(train(config, out=tmp_path / str(i)), expected)
        assert_same_folder(tmp_path / str(i), expected)


def test_a_run_killed_again_and_again_gets_there(small, tmp_path):
    """Each life lasts a third to three fifths of a run, and begins with what the one before has left."""
    config, out = tiny(small), tmp_path / "run"
    num_lines = len(lines_of(config, tmp_path / "whole"))
    expected = train(config)
    rng, lives = random.Random(1), 0
    while (
        exit_code_of(train_and_die, config, out, rng.randrange(num_lines // 3, num_lines * 3 // 5)) == -signal.SIGKILL
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
        with pytest.raises(type(error)) as caught, before_every_line(at_line(line, act)):
            train(config, out=out, checkpoint_every=1, progress=lambda step, value, seen=steps: seen.append(step))
        assert caught.value is error
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
        deadline = time.monotonic() + 60
        while not (tmp_path / checkpoint.NAME).exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines() == ["interrupted; with --out, the same command resumes at the last checkpoint"]
    config = TrainConfig.from_dict(runs.read_json(tmp_path / runs.CONFIG_FILE))
    assert 0 < checkpoint.load(tmp_path / checkpoint.NAME)[1]["num_steps"] < 150
    assert_same(train(config, out=tmp_path), train(config))


def test_files_appear_whole(small, tmp_path):
    """Before every line that writes, each file is absent or can be read; nothing else is ever in the folder."""
    config, seen = tiny(small), Counter()

    def look(frame: FrameType) -> None:
        if not frame.f_code.co_filename.endswith("runs.py") or not tmp_path.exists():
            return
        for path in tmp_path.iterdir():
            seen[path.name] += 1
            if path.name == checkpoint.NAME:
                checkpoint.load(path)
            elif path.name in (runs.CONFIG_FILE, runs.VERSIONS_FILE):
                runs.read_json(path)
            elif path.name == runs.METRICS_FILE:
                runs.pq.read_table(path)

    with before_every_line(look):
        train(config, out=tmp_path, checkpoint_every=1)
    # The last file is not looked at again: it ends the run.
    assert set(seen) == FINAL - {runs.VERSIONS_FILE} | {f".{name}.partial" for name in FINAL}
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


# The defects of peers (R1 to R16). R14, a group of one with its raw reward, is a matter of `advantages` alone.


def hard(small, mean):
    """Return a population of which many groups have one reward only."""
    return replace(small().world, difficulty=LogisticNormal(mean=mean, std=3.0))


def uneven(small, method="grpo", rule="neyman", **fields):
    """Return a trainer, its rollout batch and its metrics after an epoch, when groups are of unequal size."""
    config = small(method, num_seeds=2, **fields)
    trainer = Trainer(replace(config, method=replace(config.method, allocator=rule)))
    for _ in range(config.world.num_prompts // config.batch_prompts):
        trainer.step()
    before = [history.counts(trainer.keys) for history in trainer.histories]
    prompts = trainer._prompts()
    batch, measured = trainer._roll_out()
    counts = batch.mask[..., 0].sum(-1).numpy()
    assert len(np.unique(counts)) > 2
    return trainer, prompts, batch, measured, before


def rewards_of(trainer, prompts, batch):
    """Judge every rollout by the answers of its own prompt, [S, Q, G]."""
    seeds = np.arange(len(prompts)).reshape(-1, 1, 1)
    return trainer.correct.numpy()[seeds, prompts[:, :, None], batch.actions[..., 0].numpy()]


def test_R1_every_rollout_is_judged_by_its_own_prompt(small):
    """DynaMO's code expands prompts by their counts and answers by a constant: rows meet the wrong ground truth."""
    trainer, prompts, batch, measured, _ = uneven(small)
    rewards, mask = rewards_of(trainer, prompts, batch), batch.mask[..., 0].numpy()
    advantages = batch.advantages[..., 0].numpy()
    mixed = (rewards & mask).any(-1) & (~rewards & mask).any(-1)
    assert mixed.any()
    np.testing.assert_array_equal(advantages > 0, rewards & mask & mixed[..., None])
    np.testing.assert_array_equal(advantages < 0, ~rewards & mask & mixed[..., None])
    np.testing.assert_allclose(measured["reward"], (rewards & mask).sum((1, 2)) / mask.sum((1, 2)))


def test_R2_outcomes_reach_the_history_of_their_own_prompt(small):
    """DynaMO's code balances the batch, then zips the reordered ids with rewards in the old order."""
    trainer, prompts, batch, _, before = uneven(small)
    rewards, mask = rewards_of(trainer, prompts, batch), batch.mask[..., 0].numpy()
    for s, history in enumerate(trainer.histories):
        new = np.array(history.counts(trainer.keys)) - before[s]
        expected = np.zeros_like(new)
        expected[:, prompts[s]] = [(rewards & mask)[s].sum(-1), mask[s].sum(-1)]
        np.testing.assert_array_equal(new, expected)


def test_R3_keys_are_the_same_at_every_step_and_in_every_run(small):
    """With a fresh uid per step every prompt is for ever unknown, and the allocation silently uniform."""
    trainer = uneven(small)[0]
    assert trainer.keys == Trainer(trainer.config).keys
    assert all(len(history) == trainer.config.world.num_prompts for history in trainer.histories)
    assert (trainer.result()["allocation_concentration"][:, 1] == 1.0).all()
    trainer.step()
    assert (trainer.result()["allocation_concentration"][:, -1] > 1.0).all()


def test_R4_groups_are_prompts_not_strides(small):
    """Public slime and AReaL normalise runs of a fixed length; here each prompt's advantages have mean 0 and std 1."""
    trainer, prompts, batch, _, _ = uneven(small)
    rewards, mask = rewards_of(trainer, prompts, batch), batch.mask[..., 0].numpy()
    for s, q in np.ndindex(prompts.shape):
        own = batch.advantages[s, q, :, 0].numpy()[mask[s, q]]
        np.testing.assert_allclose(own.sum(), 0.0, atol=1e-12)
        if 0 < rewards[s, q][mask[s, q]].sum() < mask[s, q].sum():
            np.testing.assert_allclose(own.std(ddof=1), 1.0, rtol=1e-5)


def test_R5_a_prompt_with_equal_rewards_learns_nothing_in_an_uneven_batch(small):
    """Public slime falls back to one mean over the batch: such a prompt then gets an advantage of -1.09."""
    trainer, prompts, batch, measured, _ = uneven(small, world=hard(small, mean=0.0))
    rewards, mask = rewards_of(trainer, prompts, batch), batch.mask[..., 0].numpy()
    right = (rewards & mask).sum(-1)
    equal = (right == 0) | (right == mask.sum(-1))
    assert equal.any()
    assert not equal.all()
    assert (batch.advantages[..., 0].numpy()[equal] == 0.0).all()
    np.testing.assert_allclose(measured["degenerate_groups"], equal.mean(-1))


def test_R6_modulation_does_not_depend_on_mini_batches(small, monkeypatch):
    """The public code takes extremes per micro-batch. Here the first part of 4 is modulated as within the whole."""
    from theory.losses.modulation import modulate

    seen: list[Any] = []

    def record(*args: Any, **kwargs: Any) -> Any:
        seen.append(modulate(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr("toy.training.loop.modulate", record)
    for num in (1, 4):
        train(small("dynamo", num_minibatches=num, num_steps=1))
    whole, first = seen[0], seen[1]
    assert (first.advantages != 0).any()
    for one, part in zip(whole, first, strict=True):
        assert torch.equal(one[:, :, ::4], part)


@pytest.mark.parametrize("size", [3, 7, 10])
def test_R7_equal_rewards_move_nothing_to_the_bit(size, small):
    """NeMo-RL: a float standard deviation of equal rewards need not be 0."""
    config = small("grpo", num_steps=1, rollouts=size, rollouts_low=size, rollouts_high=size, num_minibatches=1)
    trainer = Trainer(config)
    trainer.correct[:, ::2] = True
    before = trainer.logits.clone()
    trainer.step()
    assert torch.equal(trainer.logits[:, ::2], before[:, ::2])
    assert not torch.equal(trainer.logits, before)


def test_R8_a_lone_loser_is_unlearnt(small):
    """NeMo-RL: per-row leave-one-out masks drop the only loser of a group."""
    trainer, prompts, batch, _, _ = uneven(small, world=hard(small, mean=2.0), num_minibatches=1)
    rewards, mask = rewards_of(trainer, prompts, batch), batch.mask[..., 0].numpy()
    lone = (~rewards & mask).sum(-1) == 1
    assert lone.any()
    before = trainer.logits.clone()
    trainer._learn(batch)
    for s, q in np.argwhere(lone):
        loser = int(np.flatnonzero(~rewards[s, q] & mask[s, q])[0])
        answer = batch.actions[s, q, loser, 0]
        assert batch.advantages[s, q, loser, 0] < 0
        assert trainer.logits[s, prompts[s, q], answer] < before[s, prompts[s, q], answer]


def test_R9_a_resumed_run_knows_what_it_knew(small, tmp_path):
    """DynaMO's statistics are in no checkpoint: after a resume its allocation is uniform again."""
    config = small(num_steps=3)
    train(config, out=tmp_path)
    resumed, whole = Trainer(config), Trainer(config)
    resumed.load(tmp_path / checkpoint.NAME)
    for _ in range(3):
        whole.step()
    for one, other in zip(resumed.histories, whole.histories, strict=True):
        np.testing.assert_array_equal(one.counts(whole.keys), other.counts(whole.keys))
    assert (resumed.histories[0].counts(whole.keys)[1] > 0).all()
    for trainer in (resumed, whole):
        trainer.step()
    last = [trainer.result()["allocation_concentration"][:, -1] for trainer in (resumed, whole)]
    np.testing.assert_array_equal(*last)
    assert (last[0] > 1.0).all()


def test_R10_solved_prompts_stay_in_the_pool(small):
    """prime-rl's pools drained one way; here a solved prompt keeps its visits and its least rollouts."""
    config = small("dynamo", num_steps=0)
    trainer = Trainer(config)
    trainer.logits[:, :6] += 50.0 * trainer.correct[:, :6]
    for _ in range(6):
        trainer.step()
    for history in trainer.histories:
        _, attempts = history.counts(trainer.keys[:6])
        assert (attempts >= 3 * config.rollouts_low).all()


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_R11_a_resumed_run_neither_skips_nor_repeats_a_prompt(cut, small, tmp_path):
    """NeMo-RL: a counter and the position in the stream part ways. Here three batches are an epoch; cut within."""
    config = small(batch_prompts=4, num_steps=cut)
    train(config, out=tmp_path)
    trainer = Trainer(config)
    visited = []
    for _ in range(cut):
        visited.append(trainer._prompts())
        trainer.step()
    trainer = Trainer(config)
    trainer.load(tmp_path / checkpoint.NAME)
    for _ in range(6 - cut):
        visited.append(trainer._prompts())
        trainer.step()
    for epoch in (visited[:3], visited[3:]):
        for s in range(3):
            assert sorted(np.concatenate([batch[s] for batch in epoch])) == list(range(12))


@pytest.mark.parametrize("rule", ["dars", "reinforce-ada", "pilot-commit"])
def test_R12_pilots_are_paid_for_and_learnt_from(rule, small, monkeypatch):
    """GVM pilots for free. Here every rollout that a rule has seen counts in the metric, the history and the loss."""
    from toy.training.rollouts import Outcomes

    seen = []
    reveal = Outcomes.reveal
    monkeypatch.setattr(Outcomes, "reveal", lambda self, counts: (seen.append(counts.sum()), reveal(self, counts))[1])
    config = small("grpo", num_seeds=2, rollouts=12, rollouts_high=24)
    trainer = Trainer(replace(config, method=replace(config.method, allocator=rule)))
    batch, measured = trainer._roll_out()
    assert len(seen) > 2, "a rule in rounds looks more than once"
    assert measured["rollouts"].sum() == sum(seen) == batch.mask.sum()
    assert sum(history.counts(trainer.keys)[1].sum() for history in trainer.histories) == sum(seen)


def test_R13_counts_follow_the_history(small):
    """CurES reads counts from a file of stage 0. Here the same prompts get other counts when the history differs."""
    counts = []
    for successes in (1, 20):
        trainer = Trainer(small("dynamo", batch_prompts=12, num_seeds=1))
        trainer.histories[0].update(trainer.keys, [successes] * 6 + [4] * 6, [40] * 12)
        prompts = trainer._prompts()[0]
        batch, _ = trainer._roll_out()
        counts.append(batch.mask[0, np.argsort(prompts), :, 0].sum(-1)[:6])
    assert (counts[1] > counts[0]).all()


@pytest.mark.parametrize("method", ["dynamo", "clip-cov"])
def test_R15_global_generators_are_neither_read_nor_moved(method, small):
    """CurES samples prompts from NumPy's unseeded global generator."""
    found = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002 (the global generator is what must not matter)
        torch.manual_seed(seed)
        random.seed(seed)
        states = (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), random.getstate())  # noqa: NPY002
        found.append(train(small(method)))
        assert states == (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), random.getstate())  # noqa: NPY002
    assert_same(*found)


@pytest.mark.parametrize("rule", ["dynamo", "pilot-commit", "reinforce-ada", "oracle-variance"])
@pytest.mark.parametrize("solved", [True, False])
def test_R16_a_batch_without_an_informative_group_does_not_end_the_run(rule, solved, small):
    """The DAPO recipe of verl dies after so many such batches. Here the step teaches nothing, and the next follows."""
    config = small("grpo", num_steps=0)
    trainer = Trainer(replace(config, method=replace(config.method, allocator=rule)))
    trainer.logits += torch.where(trainer.correct, 1.0, -1.0) * (100.0 if solved else -100.0)
    before = trainer.logits.clone()
    for _ in range(3):
        trainer.step()
    assert torch.equal(trainer.logits, before)
    found = trainer.result()
    assert (found["degenerate_groups"][:, 1:] == 1.0).all()
    assert (found["reward"][:, 1:] == float(solved)).all()
    for name in metrics.STEP:
        assert np.isfinite(found[name][:, 1:]).all(), name
