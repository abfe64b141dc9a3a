"""The trainer's own parts, without Ray: order of rows, history, advantages, state."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("verl")
import torch
from hypothesis import given, strategies as st

from scale.plugin.config import DynamoConfig
from scale.plugin.row_order import deal, row_of, spread
from scale.plugin.trainer import DynamoTrainer
from scale.run import records
from theory.allocation import SuccessHistory

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


@given(
    lengths=st.lists(st.integers(1, 4000), min_size=1, max_size=12),
    num_minibatches=st.integers(1, 4),
    num_ranks=st.integers(1, 4),
)
def test_every_rank_gets_its_share_of_every_mini_batch(lengths, num_minibatches, num_ranks):
    """Verl cuts the rows into ranks, and each rank's into mini-batches: those must be the canonical ones."""
    lengths = lengths * num_minibatches * num_ranks
    order = deal(lengths, num_minibatches, num_ranks)
    assert sorted(order) == list(range(len(lengths)))
    size = len(lengths) // num_minibatches
    ranks = np.array(order).reshape(num_ranks, num_minibatches, -1)
    for number in range(num_minibatches):
        assert sorted(ranks[:, number].ravel()) == list(range(number * size, (number + 1) * size))


@given(
    data=st.data(),
    num_minibatches=st.integers(1, 6),
    size=st.integers(1, 9),
)
def test_padding_is_spread_over_mini_batches(data, num_minibatches, size):
    """Every mini-batch has as many real rows as any other, up to one, in the canonical order."""
    num_rows = num_minibatches * size
    num_real = data.draw(st.integers(0, num_rows))
    order = spread(num_real, num_rows, num_minibatches)
    assert sorted(order) == list(range(num_rows))
    assert [row for row in order if row < num_real] == list(range(num_real))
    real = (np.array(order) < num_real).reshape(num_minibatches, size).sum(1)
    assert real.max() - real.min() <= 1


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


def test_deal_balances_tokens():
    lengths = [4000, 1, 1, 1, 4000, 1, 1, 1]
    ranks = np.array(deal(lengths, 1, 2)).reshape(2, -1)
    assert [np.array(lengths)[rank].sum() for rank in ranks] == [4003, 4003]


def test_deal_refuses_rows_that_do_not_divide():
    with pytest.raises(ValueError, match="lengths: expected a multiple of 2 mini-batches x 2 ranks, got 6"):
        deal([1] * 6, 2, 2)


def test_rows_are_named_by_prompt_trajectory_and_turn():
    assert row_of("00000012-00003_10_0") == ("00000012-00003", 10, 0)


def test_R2_rewards_reach_the_history_by_key_in_any_order(tmp_path):
    made, metrics = trainer(tmp_path), {}
    made._learn_rates(UIDS, torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]), metrics)
    successes, attempts = made.history.counts(["a", "b"])
    assert (successes.tolist(), attempts.tolist()) == ([1, 2], [2, 3])
    assert metrics["dynamo/rollouts"] == 5
    line = json.loads((tmp_path / "allocation.jsonl").read_text())
    assert line == {"step": 1, "keys": ["a", "b"], "counts": [2, 3], "successes": [1, 2]}


def test_rewards_that_are_no_successes(tmp_path):
    rewards = torch.tensor([1.0, 0.5, 1.0, 0.0, -1.0])
    with pytest.raises(ValueError, match=r"rewards: expected 0 or 1, since the rule dynamo counts .* \[-1.0, 0.5\]"):
        trainer(tmp_path)._learn_rates(UIDS, rewards, {})
    uniform = trainer(tmp_path, method="grpo")
    uniform._learn_rates(UIDS, rewards, {})
    assert len(uniform.history) == 0


def test_missing_rollouts_are_an_error(tmp_path):
    rows = SimpleNamespace(keys=[f"{uid}_{i}_0" for i, uid in enumerate(UIDS)])
    trainer(tmp_path)._require_rows(rows)
    rows.keys = rows.keys[1:]
    with pytest.raises(RuntimeError, match=r"rollouts: expected 5, got 4 \(expected, got\): {'1-1': \(3, 2\)}"):
        trainer(tmp_path)._require_rows(rows)


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
    with pytest.raises(ValueError, match="checkpoint: expected one of the method grpo, got one that differs in"):
        trainer(tmp_path, method="grpo").load_state_dict(state)


# Records


def test_a_resumed_run_drops_what_it_will_do_again(tmp_path):
    kept = records.Records(tmp_path)
    for step in (0, 1, 2, 3):
        kept.append(step, {"x": step, "nan": float("nan"), "text": "no"})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "x"')
    records.Records(tmp_path).truncate(2)
    assert records.read_lines(tmp_path / "metrics.jsonl") == [{"step": step, "x": float(step)} for step in (0, 1, 2)]


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl: expected JSON in line 2"):
        records.read_lines(tmp_path / "metrics.jsonl")
    for content in ("[]", "{"):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(ValueError, match=r"x\.json: expected a"):
            records.read_json(tmp_path / "x.json")
