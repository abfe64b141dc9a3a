"""The trainer's own parts, without Ray: history, advantages, state."""

from __future__ import annotations

import json
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("verl")
import torch

from scale.plugin.config import DynamoConfig
from scale.plugin.trainer import (
    DynamoTrainer,
    StockTrainer,
    require_finite_gradient,
    require_finite_validation,
)
from scale.run import records
from theory.allocation import SuccessHistory, register

pytestmark = pytest.mark.needs_verl


def trainer(tmp_path, **fields):
    """Return a trainer as it is at a step's rewards, without verl's processes."""
    made = DynamoTrainer.__new__(DynamoTrainer)
    made.settings = DynamoConfig(**fields)
    made.method = made.settings.resolved()
    made.history = SuccessHistory(made.settings.history_discount)
    made.records = records.Records(tmp_path)
    made.keys = {"1-0": "a", "1-1": "b"}
    made.counts = Counter({"1-0": 2, "1-1": 3})
    made.global_steps = 1
    return made


UIDS = ["1-1", "1-0", "1-1", "1-1", "1-0"]


def test_random_numbers_belong_to_their_rows(tmp_path):
    """Whatever rank or mini-batch a row is dealt to."""
    made = trainer(tmp_path, method="clip-cov")
    lengths = {"1-0_0_0": 1, "1-0_1_0": 3, "1-1_0_0": 2, "1-1_10_0": 3}

    def drawn(keys):
        rows = [torch.ones(lengths[key], dtype=torch.int64) for key in keys]
        mask = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
        found = made._uniforms(keys, {"response_mask": mask})["uniforms"]
        return dict(zip(keys, (row.tolist() for row in found.unbind()), strict=True))

    keys = list(lengths)
    assert drawn(keys) == drawn(keys[::-1])
    assert len({x for row in drawn(keys).values() for x in row}) == 9
    assert trainer(tmp_path)._uniforms(keys, {}) == {}


def test_R2_rewards_reach_the_history_by_key_in_any_order(tmp_path):
    made, metrics = trainer(tmp_path), {}
    made._learn_rates(UIDS, torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]), metrics)
    successes, attempts = made.history.counts(["a", "b"])
    assert (successes.tolist(), attempts.tolist()) == ([1, 2], [2, 3])
    assert metrics["dynamo/rollouts"] == 5
    (line,) = records.read_allocation(tmp_path / "allocation.jsonl")
    assert line == {"step": 1, "keys": ["a", "b"], "counts": [2, 3], "successes": [1, 2]}


def test_rewards_that_are_no_successes(tmp_path):
    rewards = torch.tensor([1.0, 0.5, 1.0, 0.0, -1.0])
    with pytest.raises(ValueError, match=r"rewards: expected 0 or 1, since the rule dynamo counts .* \[-1.0, 0.5\]"):
        trainer(tmp_path)._learn_rates(UIDS, rewards, {})
    uniform = trainer(tmp_path, method="grpo")
    uniform._learn_rates(UIDS, rewards, {})
    assert len(uniform.history) == 0


@pytest.mark.parametrize("stock", [False, True])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_not_finite_end_the_run(tmp_path, monkeypatch, stock, odd):
    """Of a reward model too; with the prompt's key, before verl makes advantages of them."""
    made = trainer(tmp_path, stock=stock)
    custom = SimpleNamespace(path="r.py", name="f")
    made.config = SimpleNamespace(reward=SimpleNamespace(custom_reward_function=custom))
    rows = [torch.tensor([0.0, x]) for x in (1.0, 0.0, 1.0, odd, 0.0)]
    data = {"rm_scores": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}
    monkeypatch.setattr("scale.plugin.trainer.tq.kv_batch_get", lambda **_: data)
    batch = SimpleNamespace(keys=[f"{uid}_{i}_0" for i, uid in enumerate(UIDS)], partition_id="train")
    kind = StockTrainer if stock else DynamoTrainer
    with pytest.raises(ValueError, match=rf"reward: expected a finite number, got {odd} of .* prompt 'b' by r\.py:f"):
        kind._compute_advantage(made, batch, {})


@pytest.mark.parametrize("norm", [math.nan, math.inf, None])
def test_an_update_that_verl_leaves_out_ends_the_run(norm):
    require_finite_gradient(7, {"actor/grad_norm": 0.0})
    with pytest.raises(ValueError, match=rf"step 7: expected a finite gradient norm, got {norm}"):
        require_finite_gradient(7, {} if norm is None else {"actor/grad_norm": norm})


def test_a_validation_without_a_number_ends_the_run():
    found = {"val-core/x/acc/mean@8": 0.5, "val-aux/x/score/std@1": math.nan}
    require_finite_validation(7, found)
    with pytest.raises(
        ValueError, match=r"validation at step 7: expected finite rewards, got val-core/x/acc/mean@8 na"
    ):
        require_finite_validation(7, found | {"val-core/x/acc/mean@8": math.nan})


def test_missing_rollouts_are_an_error(tmp_path):
    rows = SimpleNamespace(keys=[f"{uid}_{i}_0" for i, uid in enumerate(UIDS)])
    trainer(tmp_path)._require_rows(rows)
    rows.keys = rows.keys[1:]
    with pytest.raises(RuntimeError, match=r"rollouts: expected 5, got 4 \(expected, got\): {'1-1': \(3, 2\)}"):
        trainer(tmp_path)._require_rows(rows)


class Fixed:
    name = "fixed"

    def __init__(self, counts):
        self.counts = lambda problem, rng: counts


class InRounds:
    name = "fixed"

    def __init__(self, counts):
        self.rounds = counts

    def spend(self, problem, observe, rng):
        assert observe(self.rounds).tolist() == [1, 1]
        return self.rounds


def allocating(tmp_path, monkeypatch, **fields):
    """Return a trainer with 32 rollouts for two prompts, and a list of what it rolls out."""
    made, submitted = trainer(tmp_path, method="grpo", rollouts_low=8, rollouts_high=24, **fields), []
    monkeypatch.setattr(DynamoTrainer, "budget", 32)
    monkeypatch.setattr(made, "_roll_out", lambda batch, counts: submitted.append(counts.tolist()))
    monkeypatch.setattr(made, "_observe", lambda batch, counts: [submitted.append(counts.tolist()), np.ones(2)][1])
    return made, submitted


@pytest.mark.parametrize("make", [Fixed, InRounds])
def test_what_a_rule_of_ones_own_returns_is_rolled_out(tmp_path, monkeypatch, make):
    register(make([10, 22]))
    made, submitted = allocating(tmp_path, monkeypatch, allocator="fixed")
    assert made._submit_batch_to_rollout(UIDS[:2]) == 2
    assert submitted == [[10, 22]]


@pytest.mark.parametrize("make", [Fixed, InRounds])
@pytest.mark.parametrize("counts", [[32, 32], [17, 17], [15.1, 16.9], [np.nan, 16], [32], [32, 0]], ids=str)
def test_a_rule_that_breaks_its_contract_rolls_nothing_out(tmp_path, monkeypatch, make, counts):
    register(make(counts))
    made, submitted = allocating(tmp_path, monkeypatch, allocator="fixed")
    with pytest.raises(ValueError, match=r"^rule fixed: (counts|round): expected"):
        made._submit_batch_to_rollout(UIDS[:2])
    assert submitted == []


def test_advantages_of_w_reinforce_are_theorys(tmp_path):
    made = trainer(tmp_path, method="w-reinforce")
    mask = torch.nested.as_nested_tensor(
        [torch.ones(n, dtype=torch.int64) for n in (1, 2, 1, 3, 2)], layout=torch.jagged
    )
    found = made._own_advantages(UIDS, torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]), {"response_mask": mask})["advantages"]
    expected = [[0.1], [-1.0, -1.0], [0.1], [-1.0, -1.0, -1.0], [0.1, 0.1]]
    for row, values in zip(found.unbind(), expected, strict=True):
        assert row.tolist() == pytest.approx(values)
    assert trainer(tmp_path)._own_advantages(UIDS, torch.zeros(5), {"response_mask": mask}) == {}


def test_state_survives_json_and_is_the_methods_own(tmp_path):
    made = trainer(tmp_path)
    made._learn_rates(UIDS, torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]), {})
    state = json.loads(json.dumps(made.state_dict()))
    again = trainer(tmp_path)
    again.load_state_dict(state)
    assert [x.tolist() for x in again.history.counts(["a", "b"])] == [[1, 2], [2, 3]]
    with pytest.raises(
        ValueError, match="checkpoint: expected a checkpoint of the method grpo, got one that differs in"
    ):
        trainer(tmp_path, method="grpo").load_state_dict(state)
