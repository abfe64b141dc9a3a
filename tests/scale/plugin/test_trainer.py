"""The trainer's own parts, without Ray: history, advantages, state."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("verl")
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_from_nested

from scale.plugin.config import DynamoConfig
from scale.plugin.engine import LOOK_AHEAD, STATISTICS
from scale.plugin.loss import IMPORTANCE, SCOPE, token_statistics_of
from scale.plugin.metrics import factor_quantiles
from scale.plugin.packed import Packed
from scale.plugin.reproducible import require_finite_gradient, require_finite_validation
from scale.plugin.synchronous import DynamoTrainer, PPOTrainerSync, StockTrainer
from scale.run import records
from scale.run.reports import read_progress
from tests.scale.plugin import test_loss
from theory.allocation import SuccessHistory, register
from theory.losses import RELEASED_SCRIPT, importance_weights

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
    rows = [torch.tensor([0.0, x, 0.0]) for x in (1.0, 0.0, 1.0, odd, 0.0)]
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
    found = {"val-core/x/acc/mean@8": 0.5, "val-aux/x/score/std@1": math.nan, "val-aux/x/y/reward/mean@16": 0.5}
    require_finite_validation(7, found)
    for name in ("val-core/x/acc/mean@8", "val-aux/x/y/reward/mean@16"):
        with pytest.raises(ValueError, match=rf"validation at step 7: expected finite rewards, got {name} na"):
            require_finite_validation(7, found | {name: math.nan})


def test_rewards_of_a_validation_are_looked_at_beside_an_acc(tmp_path):
    """A reward model's, in the metrics as verl makes them."""
    infos = {"reward": [1.0, math.nan], "acc": [1.0, 0.0]}
    metrics = trainer(tmp_path)._val_metrics_update(["math/x"] * 2, ["a", "b"], infos, [])
    assert math.isfinite(metrics["val-core/math/x/acc/mean@1"])
    with pytest.raises(ValueError, match=r"expected finite rewards, got val-aux/math/x/reward/mean@1 nan"):
        require_finite_validation(7, metrics)


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


# What a step hands on


def test_a_trainer_has_the_settings_of_its_config(tmp_path, monkeypatch):
    monkeypatch.setattr(PPOTrainerSync, "__init__", lambda self, config: setattr(self, "config", config))
    settings = {"method": "grpo", "allocator": "neyman", "history_discount": 0.5}
    sizes = SimpleNamespace(
        dynamo=settings,
        trainer=SimpleNamespace(default_local_dir=str(tmp_path / "run" / "checkpoints")),
        data=SimpleNamespace(train_batch_size=32),
        actor_rollout_ref=SimpleNamespace(actor=SimpleNamespace(ppo_mini_batch_size=8), rollout=SimpleNamespace(n=16)),
    )
    made = DynamoTrainer(sizes)
    assert (made.history.discount, made.method.allocator, made.records.folder) == (0.5, "neyman", tmp_path / "run")
    assert (made.num_minibatches, made.budget) == (4, 32 * 16)


def test_metrics_of_an_allocation_go_by_what_was_known_before_it(tmp_path):
    """Rates (k + 1) / (n + 2) of the past: 4/6 and 1/8; the step's own are 1/2 and 2/3."""
    made, metrics = trainer(tmp_path, method="grpo", rollouts_low=2, rollouts_high=5), {}
    made.history.update(["a", "b"], [3, 0], [4, 6])
    made._learn_rates(UIDS, torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]), metrics)
    a, b = 4 / 6, 1 / 8
    v = np.array([a * (1 - a), b * (1 - b)])
    assert metrics["dynamo/estimate_error"] == pytest.approx((abs(1 / 2 - a) + abs(2 / 3 - b)) / 2)
    assert metrics["dynamo/variance_ratio_predicted"] == pytest.approx((v / [2, 3]).sum() / (v / 2.5).sum())
    assert (metrics["dynamo/at_lower_bound"], metrics["dynamo/at_upper_bound"]) == (0.5, 0.0)


def test_every_step_and_every_seed_draws_anew(tmp_path, monkeypatch):
    """For rules and for losses, of which none has the other's numbers."""

    class Drawing:
        name = "drawing"

        def counts(self, problem, rng):
            asked.append((problem.low, problem.high, problem.successes.tolist(), problem.attempts.tolist()))
            drawn.append(float(rng.random()))
            return [16, 16]

    asked, drawn = [], []
    register(Drawing())
    mask = torch.nested.as_nested_tensor([torch.ones(1, dtype=torch.int64)] * 2, layout=torch.jagged)
    for seed in (1, 2):
        made, _ = allocating(tmp_path, monkeypatch, allocator="drawing", seed=seed)
        made.history.update(["b"], [3], [4])
        own = trainer(tmp_path, method="clip-cov", seed=seed)
        for step in (1, 2):
            made.global_steps = own.global_steps = step
            made._submit_batch_to_rollout(UIDS[:2])
            drawn += own._uniforms(["1-0_0_0", "1-1_0_0"], {"response_mask": mask})["uniforms"].values().tolist()
    assert asked == [(8, 24, [0, 3], [0, 4])] * 4
    assert len(set(drawn)) == len(drawn) == 12


def test_a_checkpoint_has_the_history_and_a_resumed_run_the_records_so_far(tmp_path, monkeypatch):
    """Our state is there before verl's; a run from scratch validates again, so that no line of it is left."""
    folder = tmp_path / "checkpoints"

    def made_at(step):
        made = trainer(tmp_path, method="grpo", history_discount=0.5)
        made.config = OmegaConf.create({"trainer": {"default_local_dir": str(folder), "save_freq": 1}})
        made.global_steps = step
        return made

    saved = []
    monkeypatch.setattr(
        PPOTrainerSync, "_save_checkpoint", lambda self: saved.extend(folder.glob(f"global_step_{self.global_steps}/*"))
    )
    run = made_at(0)
    run.records.append(0, {"x": 0})
    known = {}
    for step in (1, 2, 3):
        run.global_steps = step
        run._learn_rates(UIDS, torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]), {})
        run.records.append(step, {"x": step})
        run._save_checkpoint()
        known[step] = [x.tolist() for x in run.history.counts(["a", "b"])]
    assert [path.parent.name for path in saved] == ["global_step_1", "global_step_2", "global_step_3"]
    for step, kept in ((2, [0, 1, 2]), (0, [])):
        monkeypatch.setattr(
            PPOTrainerSync, "_load_checkpoint", lambda self, step=step: setattr(self, "global_steps", step)
        )
        again = made_at(9)
        again._load_checkpoint()
        assert [line["step"] for line in records.read_metrics(tmp_path / "metrics.jsonl")] == kept
        assert [x.tolist() for x in again.history.counts(["a", "b"])] == known.get(step, [[0, 0], [0, 0]])


def test_a_step_ends_with_its_record_and_a_beat(tmp_path, monkeypatch):
    """The shares of unverified responses and of guesses are of real ones, and absent where nothing tells them."""
    monkeypatch.setenv("DYNAMO_RUN_FOLDER", str(tmp_path))
    monkeypatch.setattr(Packed, "_compute_metrics", lambda self, batch, metrics: metrics.update(x=1.5))
    told = {"a": {"unverified": 1}, "b": {"unverified": 0}, "c": {"unverified": 0}, "padding": {"unverified": 1}}
    for key, info in told.items():
        info["guessed"] = float(key in ("b", "c", "padding"))

    def fields(keys, **_):
        return {"extra_fields": [{"reward_extra_info": told[key]} for key in keys]}

    monkeypatch.setattr("scale.plugin.trainer.tq.kv_batch_get", fields)
    made = trainer(tmp_path)
    made.total_training_steps = 9
    tags = [{}, {}, {"is_padding": True}, {"is_padding": False}]
    batch = SimpleNamespace(keys=["a", "b", "padding", "c"], tags=tags, partition_id="train")
    made._compute_metrics(batch, {"critic/score/mean": 0.25, "critic/score/max": 1.0})
    shares = {"dynamo/unverified": pytest.approx(1 / 3), "dynamo/guessed": pytest.approx(2 / 3)}
    expected = {"critic/score/mean": 0.25, "critic/score/max": 1.0, "x": 1.5, **shares}
    assert records.read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, **expected}]
    said = read_progress(tmp_path)
    assert (said["step"], said["reward"], said["of"]) == (1, 0.25, 9)
    made.forget()
    del told["c"]["guessed"]
    assert made._told_by_reward(batch).keys() == {"dynamo/unverified"}
    made.forget()
    told["b"] = {}
    assert made._told_by_reward(batch) == {}


def update(monkeypatch, made, batch=None, **changes):
    """Let a trainer hand a batch to verl's update; returns what the workers are told, and the metrics."""
    batch = batch or test_loss.Batch()
    rows = range(len(test_loss.LENGTHS))
    outputs = {name: x.detach() for name, x in batch.outputs(rows).items()}
    data = {name: x for name, x in batch.data(rows).items() if name in ("advantages", "response_mask")}
    data |= {name: outputs[name] for name in STATISTICS} | {"old_log_probs": batch.nested(batch.old, test_loss.LENGTHS)}
    monkeypatch.setattr("scale.plugin.trainer.tq.kv_batch_get", lambda **_: data | changes)
    monkeypatch.setattr(PPOTrainerSync, "_update_actor", lambda self, batch, metrics: batch)
    meta, metrics = SimpleNamespace(extra_info={}, keys=[], partition_id="train"), {"actor/grad_norm": 1.0}
    made._update_actor(meta, metrics)
    return meta.extra_info, metrics


def test_normalisers_and_quantiles_are_those_of_the_whole_batch(tmp_path, monkeypatch):
    """Tokens alone count, not what fills the rows; under the policy that sampled, the coefficient is the advantage."""
    batch, made = test_loss.Batch(), trainer(tmp_path)
    stats = type(batch.stats)(batch.old, *(x.detach() for x in batch.stats[1:]))
    told, metrics = update(monkeypatch, made, batch)
    expected = made.method.shaping.scope(stats, batch.advantages, batch.mask)
    for name, value in vars(expected).items():
        assert float(getattr(told[SCOPE], name)) == pytest.approx(float(value), rel=1e-6), name
    shaped = made.method.shaping.apply(
        batch.advantages, stats, batch.mask, coefficient=batch.advantages, scope=expected
    )
    assert set(shaped.factors) == {"compensation", "stabilization"}
    for name, factor in shaped.factors.items():
        for q in (5, 50, 95):
            found = metrics[f"dynamo/{name}_q{q:02d}"]
            assert found == pytest.approx(np.quantile(factor[batch.mask].numpy(), q / 100), rel=1e-6), name


@pytest.mark.parametrize("method", ["dynamo", "released"])
def test_normalisers_and_quantiles_do_not_depend_on_how_rows_are_packed(method, tmp_path, monkeypatch):
    """To the bit those of rows of one width, of lengths and numbers that come in many parts."""
    rng = np.random.default_rng(3)
    lengths = [*rng.integers(1, 40, size=60), 300]
    made = trainer(tmp_path)
    if method == "released":
        made.method = replace(made.method, shaping=RELEASED_SCRIPT)

    def rows(make, before=0):
        parts = [torch.tensor(make(before + n), dtype=torch.float32) for n in lengths]
        return torch.nested.as_nested_tensor(parts, layout=torch.jagged)

    data = {
        "response_mask": rows(lambda n: rng.random(n) < 0.9).to(torch.int64),
        "advantages": rows(lambda n: np.full(n, rng.normal())),
        "old_log_probs": rows(lambda n: -rng.exponential(size=n)),
    }
    data |= {name: rows(lambda n: rng.random(n), before=2) for name in STATISTICS}
    data["token_mean_pi_lambda"] = data["token_mean_pi_lambda"] * -0.3
    monkeypatch.setattr("scale.plugin.packing.like_lengths.__defaults__", (500,))
    metrics = {}
    found = made._scope(data, metrics)
    mask = data["response_mask"].to_padded_tensor(0).bool()
    advantages, log_prob = (data[name].to_padded_tensor(0) for name in ("advantages", "old_log_probs"))
    padded = [response_from_nested(data[name], data["response_mask"]).to_padded_tensor(0) for name in STATISTICS]
    stats = token_statistics_of(log_prob, padded, mask)
    scope = made.method.shaping.scope(stats, advantages, mask)
    assert {name: float(x) for name, x in vars(found).items()} == {name: float(x) for name, x in vars(scope).items()}
    factors = made.method.shaping.apply(advantages, stats, mask, coefficient=advantages, scope=scope).factors
    expected = {}
    for name, factor in factors.items():
        expected |= factor_quantiles(name, factor[mask].numpy())
    assert metrics == expected
    assert len(expected) == 6


def test_what_is_compared_in_a_mini_batch_is_looked_at_ahead(tmp_path, monkeypatch):
    for scope, ahead, given in (
        ("rollout-batch", False, True),
        ("mini-batch", True, False),
        ("micro-batch", False, False),
    ):
        told, _ = update(monkeypatch, trainer(tmp_path, scope=scope))
        assert (told[LOOK_AHEAD], SCOPE in told) == (ahead, given), scope


def test_log_probabilities_and_advantages_are_looked_at_once(tmp_path, monkeypatch):
    batch = test_loss.Batch()
    for name, values, message in (
        ("old_log_probs", batch.old + 5.0, "old_log_probs: expected values <= 0"),
        ("old_log_probs", batch.old * math.nan, "old_log_probs: expected finite"),
        ("advantages", batch.advantages * math.inf, "advantages: expected finite"),
    ):
        with pytest.raises(ValueError, match=message):
            update(monkeypatch, trainer(tmp_path), **{name: batch.nested(values, test_loss.LENGTHS)})


def test_a_reward_is_the_sum_over_its_tokens(tmp_path, monkeypatch):
    """For the history, and for advantages of our own, which replace verl's."""
    made, sent, metrics = trainer(tmp_path, method="w-reinforce"), [], {}
    made.config = SimpleNamespace(reward=SimpleNamespace(custom_reward_function=SimpleNamespace(path="r.py", name="f")))
    scores = [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    ones = [torch.ones(3, dtype=torch.int64)] * 5
    data = {
        "rm_scores": torch.nested.as_nested_tensor([torch.tensor(row) for row in scores], layout=torch.jagged),
        "response_mask": torch.nested.as_nested_tensor(ones, layout=torch.jagged),
    }
    monkeypatch.setattr("scale.plugin.trainer.tq.kv_batch_get", lambda **_: data)
    monkeypatch.setattr("scale.plugin.trainer.tq.kv_batch_put", lambda fields, **_: sent.append(fields))
    monkeypatch.setattr(Packed, "_compute_advantage", lambda self, batch, metrics: batch)

    class Rows(SimpleNamespace):
        def __len__(self):
            return len(self.keys)

    made._compute_advantage(Rows(keys=[f"{uid}_{i}_0" for i, uid in enumerate(UIDS)], partition_id="train"), metrics)
    assert [x.tolist() for x in made.history.counts(["a", "b"])] == [[1, 2], [2, 3]]
    found = torch.stack(sent[0]["advantages"].unbind())
    torch.testing.assert_close(found, torch.tensor([[0.1], [-1.0], [0.1], [-1.0], [0.1]]).expand(5, 3))


@pytest.mark.parametrize("level", ["token", "sequence", None])
def test_importance_weights_of_a_step_are_theorys(level, tmp_path, monkeypatch):
    """Through verl's own trainer, for rows of unequal lengths, one of which is padding."""
    rng, lengths = np.random.default_rng(4), [3, 1, 4, 2, 2, 1]
    keys = [*(f"{uid}_{i}_0" for i, uid in enumerate(UIDS)), "pad0_0_0"]

    def rows(make):
        parts = [torch.tensor(make(n), dtype=torch.float32) for n in lengths]
        return torch.nested.as_nested_tensor(parts, layout=torch.jagged)

    stored = {name: rows(lambda n: -rng.exponential(size=n)) for name in ("old_log_probs", "rollout_log_probs")}
    stored["response_mask"] = rows(np.ones).long()
    stored["response_mask"].values()[-1] = 0
    stored["rm_scores"] = rows(lambda n: np.eye(n)[-1] * (n > 2))
    stored = TensorDict(stored, batch_size=6)
    tu.assign_non_tensor_stack(stored, "uid", [key.rsplit("_", 2)[0] for key in keys])

    class Rows(SimpleNamespace):
        def __len__(self):
            return len(self.keys)

    batch = Rows(keys=keys, partition_id="train", extra_info={})
    get = lambda select_fields, **_: stored.select(*[x for x in select_fields if x in stored])  # noqa: E731
    monkeypatch.setattr("scale.plugin.trainer.tq.kv_batch_get", get)
    monkeypatch.setattr("scale.plugin.trainer.tq.kv_batch_put", lambda fields, **_: [stored.update(fields), batch][1])
    made, metrics = trainer(tmp_path), {}
    correction = {"rollout_is": level} if level else None
    algorithm = {"rollout_correction": correction, "use_kl_in_reward": False, "adv_estimator": "grpo", "gamma": 1.0}
    config = {
        "algorithm": algorithm | {"lam": 1.0},
        "reward": {"custom_reward_function": {"path": "r.py", "name": "f"}},
        "actor_rollout_ref": {"rollout": {"n": 3}},
    }
    made.config = OmegaConf.create(config)
    made._compute_advantage(batch, metrics)
    assert (IMPORTANCE in stored) == (level is not None)
    assert stored["advantages"].values().abs().sum() > 0
    if level is not None:
        old, rollout = (stored[name].to_padded_tensor(0) for name in ("old_log_probs", "rollout_log_probs"))
        mask = stored["response_mask"].to_padded_tensor(0).bool()
        expected = importance_weights(old, rollout, mask, level=level, cap=2.0)
        torch.testing.assert_close(stored[IMPORTANCE].to_padded_tensor(0), expected, rtol=1e-6, atol=0)
        assert 0 < metrics["rollout_corr/rollout_is_mean"] < 2


@pytest.mark.parametrize("told", [True, False])
def test_a_dump_is_verls_without_padding(tmp_path, monkeypatch, told):
    """Text, order and scores, of rows that came in another order and have other lengths."""
    from scale import tiny

    rng = np.random.default_rng(0)
    made = trainer(tmp_path)
    made.tokenizer = tiny.tokenizer()
    special = made.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>", "<|im_start|>"])
    keys = ["1-1_0_0", "1-0_10_0", "1-1_2_0", "1-0_9_0", "padx_0_0"]

    def rows(choices):
        drawn = (torch.tensor(rng.choice(choices, n), dtype=torch.int64) for n in (5, 1, 9, 3, 4))
        return dict(zip(keys, drawn, strict=True))

    content = {"prompts": rows(range(256)), "responses": rows([*range(256), *special])}
    content["rm_scores"] = {key: torch.full((len(x),), 1 / 3) for key, x in content["responses"].items()}

    def get(keys, partition_id, select_fields):
        found = {
            name: torch.nested.as_nested_tensor([values[key] for key in keys], layout=torch.jagged)
            for name, values in content.items()
        }
        data = TensorDict(found, batch_size=len(keys))
        tu.assign_non_tensor_stack(data, "uid", [key.split("_")[0] for key in keys])
        if told:
            tu.assign_non_tensor_stack(data, "reward_model", [{"ground_truth": key.split("_")[0]} for key in keys])
        return data

    monkeypatch.setattr("transfer_queue.kv_batch_get", get)
    dumps = []
    monkeypatch.setattr(DynamoTrainer, "_dump_generations", lambda self, *args, **named: dumps.append((args, named)))
    tags = [{}] * 4 + [{"is_padding": True}]
    made._log_rollout_data(SimpleNamespace(keys=keys, tags=tags, partition_id="train"), {}, "folder")
    real = SimpleNamespace(keys=keys[:4], tags=tags[:4], partition_id="train")
    PPOTrainerSync._log_rollout_data(made, real, {}, "folder")
    assert dumps[0][0] == tuple(dumps[1][1].values())
    assert dumps[0][0][4] == {"uid": ["1-0_9_0", "1-0_10_0", "1-1_0_0", "1-1_2_0"]}
