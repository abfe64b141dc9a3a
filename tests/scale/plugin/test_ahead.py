"""What changes where rollouts run ahead of learning: the order of batches, their names and seeds, what is in flight."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("verl")

from omegaconf import OmegaConf
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from scale.plugin import ahead
from scale.plugin.ahead import DynamoAhead, InOrder, PPOTrainerColocateAsync, StockAhead, read_in_flight
from scale.plugin.config import DynamoConfig
from scale.plugin.row_order import prompt_name
from scale.plugin.seeds import ContinuingClient, trajectory_seed
from scale.run import records
from theory.allocation import SuccessHistory, register
from theory.base.files import write_json

pytestmark = pytest.mark.needs_verl

SIZES = {"data": {"train_batch_size": 2}, "actor_rollout_ref": {"rollout": {"n": 4}}}


def trainer(tmp_path, monkeypatch, kind=DynamoAhead, **fields):
    """Return a trainer as it is before its first step, without verl's processes, and a list of what it submits."""
    made, submitted = kind.__new__(kind), []
    made.settings = DynamoConfig(**{"rollouts_low": 2, "rollouts_high": 6, "method": "grpo", **fields})
    made.method = made.settings.resolved()
    made.history = SuccessHistory(1.0)
    made.records = records.Records(tmp_path)
    made.config = OmegaConf.create(SIZES | {"trainer": {"default_local_dir": str(tmp_path / "checkpoints")}})
    made.config.trainer.save_freq = 1
    made.keys, made.counts, made.ahead = {}, Counter(), {}
    made.global_steps, made.total_training_steps = 1, 5
    prompts = iter(range(1000))

    def fetch(self, num_prompts=None):
        return Batch({"key": f"k{next(prompts)}"} for _ in range(2))

    def submit(self, batch):
        submitted.append({uid: self.counts[uid] for uid in self.keys})
        return len(batch)

    def roll_out(self, batch, counts):
        self.counts.update(dict(zip(self.keys, counts.tolist(), strict=True)))
        return submit(self, batch)

    monkeypatch.setattr(PPOTrainerColocateAsync, "_next_train_batch", fetch)
    monkeypatch.setattr(PPOTrainerColocateAsync, "_submit_batch_to_rollout", submit)
    monkeypatch.setattr(ahead.Dynamo, "_roll_out", roll_out)
    monkeypatch.setattr("scale.plugin.reproducible.tu.assign_non_tensor_stack", lambda *_: None)
    return made, submitted


class Batch(list):
    def __getitem__(self, name):
        return list(self) if name == "extra_info" else super().__getitem__(name)


def buffer(**status):
    """Return a buffer that knows of prompts by their status, such as `finished=["1-0"]`."""
    made = InOrder("colocate_async", {}, None, "wait", {})
    for name, uids in status.items():
        getattr(made, f"{name}_keys")["train"].update(uids)
        made.prompt_global_steps["train"].update(dict.fromkeys(uids, 1))
    return made


def sampled(made, size=2):
    reasons = made._terminal_eviction_reasons(9, "train")
    keys = made._sampleable_terminal_keys("train", reasons)
    return keys if made._has_enough_samples(9, "train", size, keys) else None


def test_a_step_learns_from_the_batch_that_was_submitted_first_as_a_whole():
    """Though others are finished before it; nothing is dropped, however old it is."""
    first, second = ([prompt_name(step, row) for row in range(2)] for step in (9, 10))
    assert sampled(buffer(running=first[:1], finished=[*first[1:], *second])) is None
    assert sampled(buffer(pending=first, finished=second)) is None
    assert sampled(buffer(finished=[*second, *first])) == set(first)
    assert sampled(buffer(finished=first, running=second)) == set(first)
    assert sampled(buffer(finished=second)) == set(second)


def test_a_validation_is_sampled_beside_what_is_in_flight():
    made = buffer(running=[prompt_name(1, 0)])
    made.finished_keys["val"].add("a5c3b0c2-6f2e")
    assert made._sampleable_terminal_keys("val", (set(), set(), set(), Counter())) == {"a5c3b0c2-6f2e"}


@pytest.mark.parametrize("kind", [DynamoAhead, StockAhead])
def test_batches_are_named_after_the_steps_that_learn_from_them(tmp_path, monkeypatch, kind):
    """Two ahead: three are there when the first step learns; none is submitted that no step would learn from."""
    made, submitted = trainer(tmp_path, monkeypatch, kind, lag=2)
    assert made._add_prompts_to_generate(4) == 4
    assert list(made.ahead) == [1, 2]
    seen = []
    monkeypatch.setattr(ahead.Reproducible, "_balance_batch", lambda self, batch, metrics: seen.append(self.keys))
    for step in range(1, 6):
        made.global_steps = step
        made.prepare_step()
        assert list(made.ahead) == list(range(step, min(step + 2, 5) + 1))
        made._balance_batch(None, {})
    assert made.ahead == {}
    names = [[prompt_name(step, row) for row in range(2)] for step in range(1, 6)]
    assert [list(batch) for batch in submitted] == names == [list(keys) for keys in seen]
    assert [sum(batch.values()) for batch in submitted] == [8] * 5
    assert [key for keys in seen for key in keys.values()] == [f"k{i}" for i in range(10)]


def test_a_batch_knows_what_was_known_when_it_was_submitted_and_draws_its_own_numbers(tmp_path, monkeypatch):
    class Asking:
        name = "asking"

        def counts(self, problem, rng):
            asked.append((problem.attempts.tolist(), float(rng.random())))
            return [4, 4]

    asked = []
    register(Asking())
    made, _ = trainer(tmp_path, monkeypatch, lag=1, allocator="asking")
    made.history.update(["k0", "k3"], [1, 2], [3, 5])
    made._add_prompts_to_generate(2)
    made.prepare_step()
    assert [attempts for attempts, _ in asked] == [[3, 0], [0, 5]]
    assert asked[0][1] != asked[1][1]


def saved(tmp_path, monkeypatch):
    """Return a trainer that has saved its first step, with a batch in flight, and the checkpoint's file of it."""
    made, _ = trainer(tmp_path, monkeypatch, lag=1)
    made._add_prompts_to_generate(2)
    made.prepare_step()
    made.ahead.pop(1)
    made.records.append(1, {"x": 1.0})
    monkeypatch.setattr(PPOTrainerColocateAsync, "_save_checkpoint", lambda self: None)
    made._save_checkpoint()
    return made, tmp_path / "checkpoints" / "global_step_1" / "in_flight.json"


def test_what_is_in_flight_survives_a_checkpoint(tmp_path, monkeypatch):
    made, path = saved(tmp_path, monkeypatch)
    assert read_in_flight(path) == made.ahead
    assert made.ahead[2][1].total() == 8
    again, _ = trainer(tmp_path, monkeypatch, lag=1)
    monkeypatch.setattr(PPOTrainerColocateAsync, "_load_checkpoint", lambda self: None)
    names = {uid: {"is_prompt": True} for uid in made.ahead[2][0]}
    rows = {f"{step:08d}-00000_{i}_0": {"status": "success"} for step in (1, 2) for i in range(2)}
    queue, cleared = {**names, **rows}, []
    monkeypatch.setattr(ahead.tq, "kv_clear", lambda keys, partition_id: cleared.extend(keys))
    monkeypatch.setattr(ahead.tq, "kv_list", lambda partition: {partition: queue})
    again._load_checkpoint()
    assert again.ahead == made.ahead
    assert again.next_step() == 3
    assert cleared == ["00000001-00000_0_0", "00000001-00000_1_0"], "learnt from, and saved before it was cleared"
    for others in (dict(list(names.items())[1:]), names | {prompt_name(7, 0): {"is_prompt": True}}, {}):
        monkeypatch.setattr(ahead.tq, "kv_list", lambda partition, others=others: {partition: others} if others else {})
        with pytest.raises(ValueError, match=r"step 1: expected 2 prompts in transfer_queue, as in_flight\.json says"):
            again._load_checkpoint()


def test_waiting_for_the_first_batch_is_told_as_in_every_run(tmp_path, monkeypatch):
    """The supervisor hears of prompts that are finished, by a buffer that drops nothing and looks often."""
    made, _ = trainer(tmp_path, monkeypatch)
    made.config.trainer.v1 = {"colocate_async": {}}
    told = []
    monkeypatch.setattr(DynamoAhead, "look", lambda self, partition: told.append(partition))
    found = made._build_replay_buffer()
    assert (type(found), found.max_off_policy_threshold, found.poll_interval) == (InOrder, None, 0.05)
    found._wait_for_next_poll("train", 0.0)
    assert told == ["train"]


@pytest.mark.parametrize(
    "batches",
    [
        None,
        [],
        {"2": []},
        {"2": {"00000002-00000": ["k"]}},
        {"2": {"00000002-00000": ["k", 1.5]}},
        {"2": {"00000002-00000": ["k", True]}},
        {"2": {"00000002-00000": ["k", 0]}},
        {"2": {"00000002-00000": [7, 4]}},
        {"2": {"00000003-00000": ["k", 4]}},
        {"x": {"00000002-00000": ["k", 4]}},
        {"2": {"prompt": ["k", 4]}},
    ],
    ids=repr,
)
def test_a_file_of_what_is_in_flight_that_is_none(tmp_path, monkeypatch, batches):
    _, path = saved(tmp_path, monkeypatch)
    write_json(path, {"batches": batches})
    with pytest.raises(ValueError, match=r"in_flight\.json: expected keys and counts of prompts by step, got other"):
        read_in_flight(path)


def test_an_interrupted_response_goes_on_with_other_random_numbers(monkeypatch):
    """By verl's own loop over the parts of a response: vLLM would begin the numbers of one seed anew."""
    asked = []

    async def generate(self, request_id, *, prompt_ids, sampling_params, **kwargs):
        asked.append((prompt_ids, sampling_params["seed"], sampling_params["max_tokens"]))
        done = len(asked) == 3
        step = {"global_steps": len(asked)}
        return TokenOutput(
            token_ids=[7] * len(asked),
            log_probs=[-0.5] * len(asked),
            stop_reason="completed" if done else "aborted",
            extra_fields=step,
        )

    monkeypatch.setattr(LLMServerClient, "generate", generate)
    client = ContinuingClient(SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=SimpleNamespace())))
    params = {"seed": 5, "max_tokens": 10}
    output = asyncio.run(client.generate("r", prompt_ids=[1, 2, 3], sampling_params=params))
    assert output.token_ids == [7] * 6
    assert [(len(prompt), most) for prompt, _, most in asked] == [(3, 10), (4, 9), (6, 7)]
    assert [seed for _, seed, _ in asked] == [trajectory_seed(5, n, "", 0) for n in (3, 4, 6)]
    assert len({seed for _, seed, _ in asked}) == 3
    assert params == {"seed": 5, "max_tokens": 10}
    assert np.isfinite(output.log_probs).all()
