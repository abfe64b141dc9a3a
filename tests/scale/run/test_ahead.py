"""A run whose rollouts are ahead of learning: a real kill, and a resumed run."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.scale.conftest import lines
from theory.allocation import Problem, SuccessHistory, allocate, get_allocator
from theory.base.files import read_json

# One process has all the runs: they share the machine's two cores badly.
pytestmark = [pytest.mark.needs_verl, pytest.mark.long, pytest.mark.xdist_group("verl")]

STEPS = 9
"""Three epochs of three batches."""

# vLLM has 16 sequences at a time, so that batches come one after the other.
SETTINGS = ("dynamo.lag=1", "actor_rollout_ref.rollout.max_num_seqs=16")


@pytest.fixture(scope="module")
def ahead(runs):
    """Nine steps with kill -9 after the third; returns the run, and its records when it was killed."""
    out = runs.kill("ahead", *SETTINGS, after=3, steps=STEPS)
    killed = runs.folder / "ahead-killed"
    step = (out / "checkpoints" / "latest_checkpointed_iteration.txt").read_text()
    shutil.copytree(out / "checkpoints" / f"global_step_{step}", killed / f"global_step_{step}")
    shutil.copy(out / "allocation.jsonl", killed)
    process, out = runs.start("ahead", *SETTINGS, steps=STEPS)
    assert process.wait(480) == 0, runs.said("ahead")
    return out, killed


def test_what_was_in_flight_is_learnt_from_after_the_kill(ahead):
    out, killed = ahead
    (folder,) = killed.glob("global_step_*")
    step, rows = int(folder.name.rpartition("_")[2]), lines(out, "allocation.jsonl")
    assert step < STEPS, "otherwise nothing was resumed"
    before = [row for row in lines(killed, "allocation.jsonl") if row["step"] <= step]
    assert rows[: len(before)] == before
    ((number, batch),) = read_json(folder / "in_flight.json")["batches"].items()
    assert int(number) == step + 1
    assert [list(x) for x in zip(rows[step]["keys"], rows[step]["counts"], strict=True)] == list(batch.values())


def test_no_prompt_is_skipped_or_repeated(ahead):
    """Each epoch visits each of the 24 prompts once, through the kill."""
    keys = [key for row in lines(ahead[0], "allocation.jsonl") for key in row["keys"]]
    epochs = [sorted(keys[start : start + 24]) for start in range(0, len(keys), 24)]
    assert len(set(epochs[0])) == 24
    assert epochs == [epochs[0]] * 3
    assert len(lines(ahead[0], "allocation.jsonl")) == STEPS


def test_budget_bounds_and_what_the_history_knew(ahead):
    """A batch is allocated a step early: by the records of all steps but the one under way, and those before it."""
    rows, rule = lines(ahead[0], "allocation.jsonl"), get_allocator("dynamo")
    history, unknown = SuccessHistory(), []
    for row in rows:
        if len(unknown) == 2:
            history.update(*unknown.pop(0))
        counts = np.array(row["counts"])
        assert (counts.sum(), counts.min() >= 4, counts.max() <= 12) == (64, True, True)
        problem = Problem(*history.counts(row["keys"]), 64, 4, 12)
        assert counts.tolist() == allocate(rule, problem, np.random.default_rng(0)).tolist()
        unknown.append((row["keys"], row["successes"], row["counts"]))
    for one in unknown:
        history.update(*one)
    assert any(len(set(row["counts"])) > 1 for row in rows)
    saved = SuccessHistory()
    saved.load_state_dict(read_json(ahead[0] / "checkpoints" / f"global_step_{STEPS}" / "dynamo.json")["history"])
    keys = sorted({key for row in rows for key in row["keys"]})
    assert [x.tolist() for x in saved.counts(keys)] == [x.tolist() for x in history.counts(keys)]


def test_every_group_is_whole_and_its_rewards_are_its_own(ahead):
    from scale import tiny

    keys = {x.question: x for x in tiny.prompts()}
    for row in lines(ahead[0], "allocation.jsonl"):
        dumped = (ahead[0] / "rollouts" / f"{row['step']}.jsonl").read_text().splitlines()
        found = {}
        for one in map(json.loads, dumped):
            x = keys[one["input"].splitlines()[1].strip()]
            assert one["score"] == float(one["output"].strip() == x.answer)
            n, k = found.get(x.key, (0, 0))
            found[x.key] = (n + 1, k + int(one["score"]))
        assert found == {key: (n, k) for key, n, k in zip(row["keys"], row["counts"], row["successes"], strict=True)}


def test_updates_are_finite_and_responses_at_most_a_step_old(ahead):
    measured = [line for line in lines(ahead[0]) if "actor/pg_loss" in line]
    assert [line["step"] for line in measured][-1] == STEPS
    assert len(measured) >= STEPS - 1, "a kill between a checkpoint and its metrics leaves one line empty"
    for line in measured:
        assert all(math.isfinite(line[name]) for name in ("actor/pg_loss", "actor/grad_norm", "actor/entropy"))
        assert line["training/off_policy/trajectory_staleness_worst/max"] <= 1
    assert max(line["training/off_policy/trajectory_staleness_worst/max"] for line in measured) == 1


def test_nothing_is_in_flight_when_the_last_step_is_done(ahead):
    checkpoint = ahead[0] / "checkpoints" / f"global_step_{STEPS}"
    assert read_json(checkpoint / "in_flight.json")["batches"] == {}
    assert Path(checkpoint / "transfer_queue").is_dir()
