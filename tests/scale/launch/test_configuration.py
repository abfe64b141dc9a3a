"""What is composed: every method on every model and cluster, and the paper's table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scale.plugin.config import DynamoConfig
from tests.scale.launch.conftest import QWEN, compose
from theory.methods import METHODS

pytestmark = [pytest.mark.needs_verl, pytest.mark.versionless]


IDEAS = """
from dataclasses import dataclass, replace
from theory import allocation, methods
from theory.losses import Shaping

class Halves:
    name = "halves"
    def counts(self, problem, rng):
        weights = (problem.successes * 2 == problem.attempts) + 0.5
        return allocation.water_level(weights, problem.budget, problem.low, problem.high)

@methods.register_shaping
@dataclass(frozen=True)
class Louder(Shaping):
    factor: float = 1.5
    def shape(self, advantages, stats):
        return self.factor * advantages

allocation.register(Halves())
grpo = methods.METHODS["grpo"]
wide = replace(grpo.loss, clip_high=0.28)
methods.register_method("mine", replace(grpo, allocator="halves", shaping=Louder(), loss=wide))
"""


def test_a_method_of_ones_own_composes(launch, tmp_path, monkeypatch):
    """A rule, a modulation and a clip range that the table has not, from a module named in the configuration."""
    (tmp_path / "my_ideas_here.py").write_text(IDEAS)
    with pytest.raises(ValueError, match=r"dynamo\.modules: expected modules to import, got 'my_ideas_here'"):
        compose(launch, tmp_path, "dynamo.method=mine", "dynamo.modules=[my_ideas_here]")
    monkeypatch.syspath_prepend(tmp_path)
    config = compose(launch, tmp_path, "dynamo.method=mine", "dynamo.modules=[my_ideas_here]")
    launch.check(config, tmp_path, files=False)
    assert config.actor_rollout_ref.actor.clip_ratio_high == 0.28
    method = DynamoConfig.from_mapping(config.dynamo).resolved()
    assert method.shaping.shape(2.0, None) == 3.0
    assert method.allocator == "halves"


def test_the_options_of_a_reward_function(launch, tmp_path):
    """Ours has those of the file; another function, which may not know them, has those of the command line."""

    def options(*overrides):
        overrides = [f"reward.custom_reward_function.{x}" for x in overrides]
        config = launch.compose("qwen2.5-math-7b", out=tmp_path / "run", overrides=overrides)
        return config.reward.custom_reward_function.reward_kwargs

    ours = {"guess": True, "require_box": False, "tolerance": "exact", "timeout": 2}
    assert options("reward_kwargs.guess=true", "reward_kwargs.timeout=2") == ours
    other = f"path={tmp_path / 'reward.py'}"
    assert options(other) == {}
    named = options(other, "reward_kwargs.guess=false", "reward_kwargs.mine=3")
    assert named == {"guess": False, "mine": 3}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_composes_and_verl_validates_it(launch, tmp_path, name):
    config = compose(launch, tmp_path, f"dynamo.method={name}")
    launch.check(config, tmp_path / "run")
    method = METHODS[name]
    actor = config.actor_rollout_ref.actor
    assert actor.clip_ratio_high == getattr(method.loss, "clip_high", 0.2) or name in ("clip-cov", "kl-cov")
    assert actor.entropy_coeff == (method.entropy_bonus.coefficient if method.entropy_bonus else 0)
    assert actor.loss_agg_mode == "token-mean"
    assert config.trainer.v1.trainer_mode == "dynamo"


@pytest.mark.parametrize("stock", [False, True])
def test_a_lag_chooses_the_trainer_and_how_many_batches_it_begins_with(launch, tmp_path, stock):
    """Nothing is dropped for its age. verl's own trainers are refused with where it is explained."""
    given, name = [f"dynamo.stock={str(stock).lower()}"], "stock-seeded" if stock else "dynamo"
    for lag, of_lag in ((0, ""), (2, "-ahead")):
        config = compose(launch, tmp_path, *given, f"dynamo.lag={lag}")
        launch.check(config, tmp_path / "run")
        v1 = config.trainer.v1
        assert (v1.trainer_mode, v1.colocate_async.num_warmup_batches) == (name + of_lag, lag)
        assert v1.sampler.max_off_policy_threshold is None
        for setting in ("trainer_mode=separate_async", "trainer_mode=sync", "colocate_async.num_warmup_batches=3"):
            with pytest.raises(ValueError, match=r"^trainer\.v1\..*dynamo\.lag") as refused:
                compose(launch, tmp_path, *given, f"dynamo.lag={lag}", f"trainer.v1.{setting}")
            assert ("docs/scale.md" in str(refused.value)) == ("mode" in setting)


@pytest.mark.parametrize("model", QWEN)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_model_is_verls(launch, tmp_path, model, method):
    config = launch.compose(model, out=tmp_path, overrides=[f"dynamo.method={method}", "dynamo.seed=3"])
    launch.check(config, tmp_path, files=False)
    nodes = int(QWEN[model][0])
    assert (config.trainer.device, config.trainer.nnodes, config.trainer.n_gpus_per_node) == ("cuda", nodes, 8)
    assert (config.data.seed, config.dynamo.method) == (3, method)
    assert "scale.plugin.process_group" not in str(config.actor_rollout_ref.model.external_lib)
    loss, actor = METHODS[method].loss, config.actor_rollout_ref.actor
    clips = getattr(loss, "clip_low", 0.2), getattr(loss, "clip_high", 0.2)
    assert (actor.clip_ratio_low, actor.clip_ratio_high) == clips
    assert actor.clip_ratio_c == (getattr(loss, "dual_clip", None) or launch.NO_DUAL_CLIP)


def test_groups_are_what_the_issue_asks_for(launch):
    assert set(launch.names("model")) == {*QWEN, "tiny"}
    assert set(launch.names("cluster")) == {"1x8-a100", "2x8-a100", "1xa100", "1xh200", "cpu"}
    assert {model: launch.default_cluster(model) for model in QWEN} == QWEN
    assert launch.default_cluster("tiny") == "cpu"


TABLE_3 = {
    "data.train_batch_size": 512,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 32,
    "actor_rollout_ref.rollout.n": 16,
    "dynamo.rollouts_low": 8,
    "dynamo.rollouts_high": 24,
    "actor_rollout_ref.actor.optim.weight_decay": 0.1,
    "actor_rollout_ref.actor.grad_clip": 1.0,
    "actor_rollout_ref.actor.optim.clip_grad": 1.0,
    "actor_rollout_ref.actor.optim.lr_warmup_steps": 10,
    "actor_rollout_ref.actor.optim.lr_scheduler_type": "constant",
    "actor_rollout_ref.actor.clip_ratio_low": 0.2,
    "actor_rollout_ref.actor.clip_ratio_high": 0.2,
    "actor_rollout_ref.actor.entropy_coeff": 0.0,
    "actor_rollout_ref.actor.use_kl_loss": False,
    "actor_rollout_ref.actor.kl_loss_coef": 0.0,
    "algorithm.use_kl_in_reward": False,
    "algorithm.kl_ctrl.kl_coef": 0.0,
    "algorithm.adv_estimator": "grpo",
    "algorithm.norm_adv_by_std_in_grpo": True,
    "algorithm.gamma": 1.0,
    "algorithm.lam": 1.0,
    "actor_rollout_ref.rollout.temperature": 1.0,
    "actor_rollout_ref.rollout.top_p": 1.0,
    "actor_rollout_ref.rollout.top_k": -1,
    "data.max_prompt_length": 2048,
    "data.max_response_length": 8192,
    "data.truncation": "left",
    "actor_rollout_ref.rollout.name": "vllm",
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 2,
    "actor_rollout_ref.rollout.gpu_memory_utilization": 0.8,
    "actor_rollout_ref.rollout.max_num_seqs": 1024,
    "actor_rollout_ref.rollout.max_num_batched_tokens": 10240,
}
"""The rows of the paper's table that have a number, and the left truncation of its Appendix E."""


@pytest.mark.parametrize("model", QWEN)
def test_table_3_of_the_paper(launch, tmp_path, model):
    from omegaconf import OmegaConf

    config = launch.compose(model, out=tmp_path)
    assert {name: OmegaConf.select(config, name) for name in TABLE_3} == TABLE_3
    assert config.trainer.logger == ["console", "tensorboard"]
    assert config.reward.custom_reward_function.path.endswith("/scale/rewards/scoring.py")
    assert Path(config.data.train_files).is_absolute()


def test_keys_of_open_nodes_need_no_plus(launch, tmp_path):
    key = "actor_rollout_ref.model.override_config.attn_implementation"
    config = launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=[f"{key}=sdpa"])
    assert config.actor_rollout_ref.model.override_config.attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("actor_rollout_ref.actor.clip_ratio_high=0.28", "expected 0.2, which follows from the method .* got 0.28"),
        ("actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean", "expected token-mean, which follows from"),
        ("actor_rollout_ref.actor.entropy_coeff=0.01", "expected 0.0, which follows from"),
        ("data.seed=7", "data.seed: expected 1, which follows from --seed, got 7"),
        ("trainer.default_local_dir=elsewhere", "which follows from --out, got elsewhere"),
    ],
)
def test_what_follows_from_other_settings_is_not_silently_replaced(launch, tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=[override])
    key = override.split("=")[0]
    same = launch.compose("qwen2.5-math-7b", out=tmp_path)
    from omegaconf import OmegaConf

    launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=[f"{key}={OmegaConf.select(same, key)}"])


def test_one_composition_does_not_change_the_next(launch, tmp_path):
    launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=["data.train_batch_size=64", "dynamo.method=grpo"])
    config = launch.compose("qwen2.5-math-7b", out=tmp_path)
    assert (config.data.train_batch_size, config.dynamo.method) == (512, "dynamo")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dynamo.method=dynamite"], "expected one of grpo"),
        (["trainer.project_name='"], "configuration:"),
    ],
)
def test_what_does_not_compose(launch, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        compose(launch, tmp_path, *overrides)
    with pytest.raises(ValueError, match=r"model: expected one of"):
        launch.compose("gpt-2", "cpu", out=tmp_path)
    with pytest.raises(ValueError, match=r"cluster: expected one of"):
        launch.compose("tiny", "1x8-h100", out=tmp_path)
