"""verl's parts of a step on packed rows: what they write and what they log is verl's own, to the bit."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("verl")
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from scale.plugin.packed import Packed
from scale.plugin.synchronous import DynamoTrainer, PPOTrainerSync

pytestmark = pytest.mark.needs_verl

OUTPUTS = ("old_log_probs", "entropy", "advantages", "returns")


class Rows(SimpleNamespace):
    def __len__(self):
        return len(self.keys)


class Step:
    """Rows of a step in a queue: groups of unequal sizes, unequal lengths, two turns in one trajectory, padding."""

    def __init__(self, monkeypatch, lengths, groups=7, **settings):
        rng = np.random.default_rng(len(lengths))
        keys = [f"1-{i % groups}_{i // groups}_0" for i in range(len(lengths) - 2)]
        if len(keys) > groups:
            keys[-1] = "1-0_0_1"
        prompts = [int(x) for x in rng.integers(1, 30, len(lengths))]

        def nested(make, sizes=lengths):
            rows = [torch.tensor(make(n), dtype=torch.float32) for n in sizes]
            return torch.nested.as_nested_tensor(rows, layout=torch.jagged)

        def whole(make):
            return nested(make, [p + n for p, n in zip(prompts, lengths, strict=True)])

        made = {
            "log_probs": whole(lambda n: -rng.exponential(size=n)),
            "entropy": whole(lambda n: rng.exponential(size=n)),
            "rollout_log_probs": nested(lambda n: -rng.exponential(size=n)),
            "prompts": nested(np.ones, prompts).long(),
            "responses": nested(np.ones).long(),
            "response_mask": nested(lambda n: rng.random(n) < 0.9).long(),
            "rm_scores": nested(lambda n: np.eye(n)[-1] * rng.choice([0.0, 1.0, 0.3])),
        }
        for i in (-2, -1):  # Rows of padding, as verl makes them.
            made["response_mask"].unbind()[i].zero_()
            made["rm_scores"].unbind()[i].zero_()
        self.stored = TensorDict(made, batch_size=len(lengths))
        keys += ["padx_0_0", "padx_1_0"]
        tu.assign_non_tensor_stack(self.stored, "uid", [key.rsplit("_", 2)[0] for key in keys])
        tu.assign_non_tensor_stack(self.stored, "num_turns", [int(x) for x in rng.integers(2, 5, len(lengths))])
        tags = [
            {"prompt_len": p, "response_len": n, "min_global_steps": int(i % 2), "max_global_steps": 1 + int(i % 3)}
            for i, (p, n) in enumerate(zip(prompts, lengths, strict=True))
        ]
        for tag in tags[-2:]:
            tag["is_padding"] = True
        self.batch = Rows(keys=keys, tags=tags, partition_id="train", extra_info={})
        self.asked = []
        monkeypatch.setattr("transfer_queue.kv_batch_get", self.get)
        monkeypatch.setattr("transfer_queue.kv_batch_put", self.put)
        self.trainer = DynamoTrainer.__new__(DynamoTrainer)
        self.trainer.use_critic, self.trainer._rollout_moe_lb_metrics_accumulator = False, None
        self.trainer.actor_rollout_wg = SimpleNamespace(compute_log_prob=lambda batch: batch)
        self.trainer.resource_pool_manager = SimpleNamespace(get_n_gpus=lambda: 3)
        algorithm = {"use_kl_in_reward": False, "rollout_correction": None, "adv_estimator": "grpo", "gamma": 1.0}
        rollout = {"n": 3, "temperature": 0.7, "calculate_log_probs": settings.get("told", True)}
        actor = {"loss_agg_mode": settings.get("mode", "token-mean"), "loss_scale_factor": None}
        self.trainer.config = OmegaConf.create(
            {
                "algorithm": algorithm | {"lam": 1.0, "norm_adv_by_std_in_grpo": settings.get("norm", True)},
                "actor_rollout_ref": {"rollout": rollout, "actor": actor, "model": {}},
            }
        )

    def get(self, keys, partition_id, select_fields):
        assert (keys, partition_id) == (self.batch.keys, "train")
        self.asked += select_fields
        return self.stored.select(*[x for x in select_fields if x in self.stored])

    def put(self, keys, partition_id, fields):
        assert (keys, partition_id) == (self.batch.keys, "train")
        self.stored.update(fields)
        return self.batch

    def run(self, owner):
        """Return what the parts of a step write, and their metrics."""
        metrics = {"actor/grad_norm": 0.5}
        owner._compute_old_log_prob(self.trainer, self.batch, metrics)
        owner._compute_advantage(self.trainer, self.batch, metrics)
        timing = {"step": 2.0, "gen": 1.0, "adv": 0.5}
        owner._compute_metrics(self.trainer, self.batch, metrics, timing, global_steps=4, epoch=1)
        return {name: self.stored[name] for name in OUTPUTS}, metrics


CASES = {
    "as in a run": {},
    "means of sequences": {"mode": "seq-mean-token-mean"},
    "advantages without a standard deviation": {"norm": False},
    "no probabilities of vLLM's": {"told": False},
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
@pytest.mark.parametrize("size", [3, 60])
def test_packed_rows_give_what_verl_gives(settings, size, monkeypatch):
    rng = np.random.default_rng(0)
    lengths = [*np.minimum(rng.lognormal(5, 1.2, size).astype(int) + 1, 2000).tolist(), 1, 1]
    (theirs, expected), (ours, found) = (
        Step(monkeypatch, lengths, **settings).run(owner) for owner in (PPOTrainerSync, Packed)
    )
    for name in OUTPUTS:
        assert torch.equal(ours[name].offsets(), theirs[name].offsets()), name
        assert ours[name].dtype == theirs[name].dtype, name
        assert torch.equal(ours[name].values(), theirs[name].values()), name
    assert found == expected
    assert {k: type(v) for k, v in found.items()} == {k: type(v) for k, v in expected.items()}
    assert found["critic/advantages/max"] > 0 or size == 3


def test_a_step_asks_for_every_field_once_and_the_next_step_anew(monkeypatch):
    step = Step(monkeypatch, [5, 3, 9, 4, 1, 1])
    step.run(Packed)
    step.trainer.fetch(step.batch, ["advantages", "old_log_probs", "rm_scores"])
    assert len(step.asked) == len(set(step.asked))
    assert not {"prompts", "responses", "uid", "old_log_probs", "advantages", "returns"} & set(step.asked)
    first = step.trainer.fetch(step.batch, ["rm_scores"])["rm_scores"]
    step.asked.clear()
    step.stored["rm_scores"] = step.stored["rm_scores"] * 2
    step.batch.keys = [key.replace("1-", "2-") for key in step.batch.keys]
    assert torch.equal(step.trainer.fetch(step.batch, ["rm_scores"])["rm_scores"].values(), 2 * first.values())
    step.batch.keys[:2] = step.batch.keys[1::-1]
    step.trainer.fetch(step.batch, ["rm_scores"])
    assert step.asked == ["rm_scores"] * 2
    step.trainer.forget()
    step.trainer.fetch(step.batch, ["rm_scores"])
    assert len(step.asked) == 3
