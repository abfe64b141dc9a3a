"""toy.training.config: every config survives JSON, and every mistake is named by its path."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from theory.base.runs import differences
from theory.methods import METHODS
from toy.training.config import OptimizerConfig, TrainConfig
from toy.worlds import WORLDS, LogisticNormal

CONFIG = TrainConfig.named("dynamo", "mixed")


def test_defaults_are_the_papers_scaled_down():
    """Table 3: bounds, average and gradient norm are the paper's; AdamW's constants are those of torch."""
    sizes = (CONFIG.num_seeds, CONFIG.first_seed, CONFIG.num_steps, CONFIG.batch_prompts, CONFIG.num_minibatches)
    assert sizes == (32, 0, 200, 64, 4)
    assert (CONFIG.rollouts, CONFIG.rollouts_low, CONFIG.rollouts_high, CONFIG.history_discount) == (16, 8, 24, 1.0)
    kinds = (CONFIG.success_rates, CONFIG.minibatch, CONFIG.num_epochs, CONFIG.normalizer_prompts)
    assert kinds == ("history", "rollouts", 1, None)
    assert (CONFIG.diagnose_every, CONFIG.method, CONFIG.world) == (0, METHODS["dynamo"], WORLDS["mixed"])
    optimizer = CONFIG.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == ("sgd", 10.0, 0.0)
    assert optimizer.max_grad_norm == 1.0
    assert (optimizer.beta1, optimizer.beta2, optimizer.epsilon) == (0.9, 0.999, 1e-8)


def test_the_last_seed_is_one():
    assert replace(CONFIG, first_seed=2**32 - 3, num_seeds=3).seeds[-1] == 2**32 - 1
    with pytest.raises(ValueError, match="first_seed: expected seeds up to 4294967295, got 4294967294"):
        replace(CONFIG, first_seed=2**32 - 2, num_seeds=3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("world", WORLDS)
def test_every_config_survives_json(method, world):
    config = TrainConfig.named(method, world, optimizer=OptimizerConfig(max_grad_norm=None))
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_fields_left_out_have_their_defaults():
    data = CONFIG.to_dict()
    del data["num_steps"], data["optimizer"]["learning_rate"], data["world"]["margin"]
    assert TrainConfig.from_dict(data) == CONFIG


def test_either_law_of_difficulty_is_recognised():
    data = CONFIG.to_dict()
    data["world"]["difficulty"] = {"std": 1.0, "mean": 0.5}
    assert TrainConfig.from_dict(data).world.difficulty == LogisticNormal(mean=0.5, std=1.0)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("num_stepz", 3, "config.field: expected one of .*num_steps.*, got 'num_stepz'"),
        ("world.answers", 3, "config.world.field: expected one of .*num_answers.*, got 'answers'"),
        ("world.num_answers", 1, r"config\.world\.num_answers: expected an integer >= 2, got 1"),
        ("world.difficulty", {"a": 1.0}, r"config\.world\.difficulty\.b: expected a value, got none"),
        ("world.difficulty", {"x": 1.0}, r"config\.world\.difficulty: expected the fields a, b or mean, std"),
        ("world.difficulty", 0.5, r"config\.world\.difficulty: expected fields, got 0.5"),
        ("minibatch", "tokens", r"config\.minibatch: expected one of rollouts, prompts, got 'tokens'"),
        ("world.difficulty.std", -1.0, r"config\.world\.difficulty\.std: expected"),
        ("world", 3, r"config\.world: expected fields, got 3"),
        ("optimizer.name", "adam", r"config\.optimizer\.name: expected one of sgd, adamw, got 'adam'"),
        ("optimizer.learning_rate", 0.0, r"config\.optimizer\.learning_rate: expected"),
        ("optimizer.weight_decay", 1.0, r"config\.optimizer\.weight_decay: expected a finite number in \[0.0, 0.1\]"),
        ("optimizer.max_grad_norm", 0, r"config\.optimizer\.max_grad_norm: expected"),
        ("optimizer.beta1", 1.0, r"config\.optimizer\.beta1: expected"),
        ("method.allocator", "best", r"config\.method\.allocator: expected one of uniform"),
        ("method.loss", {"type": "Other"}, r"config\.method\.loss\.type: expected one of"),
        ("method_name", 3, r"config\.method_name: expected a string, got 3"),
        ("num_seeds", True, r"config\.num_seeds: expected an integer, got True"),
        ("num_seeds", 0, r"config\.num_seeds: expected an integer >= 1, got 0"),
        ("num_steps", 1.5, r"config\.num_steps: expected an integer, got 1.5"),
        ("first_seed", 2**32, r"config\.first_seed: expected seeds up to 4294967295"),
        ("batch_prompts", 257, r"config\.batch_prompts: expected at most the world's 256, got 257"),
        ("rollouts_low", 17, r"config\.rollouts_low: expected at most rollouts 16, got 17"),
        ("rollouts_high", 15, r"config\.rollouts_high: expected an integer >= 16, got 15"),
        ("num_minibatches", 25, r"config\.num_minibatches: expected at most rollouts_high 24, got 25"),
        ("history_discount", 1.1, r"config\.history_discount: expected"),
    ],
)
def test_mistakes_are_named_by_their_path(path, value, message):
    data = CONFIG.to_dict()
    *parents, last = path.split(".")
    part = data
    for name in parents:
        part = part[name]
    part[last] = value
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(data)


@pytest.mark.parametrize("rule", ["dars", "reinforce-ada", "pilot-commit", "oracle-variance", "oracle-progress"])
def test_true_success_rates_are_not_for_rules_that_look_at_none(rule):
    config = replace(CONFIG, method=replace(CONFIG.method, allocator=rule))
    with pytest.raises(ValueError, match=f"success_rates: expected 'history' with the rule {rule}, .*, got 'true'"):
        replace(config, success_rates="true")


def test_blocks_of_normalizers_divide_what_a_mini_batch_has_of_prompts():
    """Of 12 prompts, mini-batches of rollouts have 12, and two of whole prompts 6 each."""
    for minibatch, fitting in (("rollouts", (1, 2, 3, 4, 6, 12)), ("prompts", (1, 2, 3, 6))):
        config = replace(CONFIG, batch_prompts=12, num_minibatches=2, minibatch=minibatch)
        for size in range(1, 14):
            if size in fitting:
                assert replace(config, normalizer_prompts=size).normalizer_prompts == size
                continue
            prompts = 12 if minibatch == "rollouts" else 6
            with pytest.raises(
                ValueError, match=f"expected a divisor of the mini-batch's {prompts} prompts, got {size}"
            ):
                replace(config, normalizer_prompts=size)


def test_missing_fields_are_named():
    data = CONFIG.to_dict()
    del data["world"]["num_answers"]
    with pytest.raises(ValueError, match=r"config\.world\.num_answers: expected a value, got none"):
        TrainConfig.from_dict(data)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"method: expected one of grpo, .*dynamo.*, got 'ppo'"):
        TrainConfig.named("ppo", "mixed")
    with pytest.raises(ValueError, match=r"world: expected one of binary, peaked, diffuse, mixed, .*, got 'easy'"):
        TrainConfig.named("grpo", "easy")
    with pytest.raises(ValueError, match=r"field: expected one of .*num_steps.*, got 'steps'"):
        TrainConfig.named("grpo", "mixed", steps=3)
    with pytest.raises(ValueError, match="world: expected a Population or SkillChainPopulation, got 'mixed'"):
        replace(CONFIG, world="mixed")


def test_either_kind_of_world_is_recognised_with_its_defaults():
    data = TrainConfig.named("dynamo", "skills").to_dict()
    del data["world"]["num_prompts"], data["world"]["margin"]
    assert TrainConfig.from_dict(data).world == WORLDS["skills"]
    del data["world"]["num_skills"]
    with pytest.raises(ValueError, match=r"config\.world\.num_skills: expected a value, got none"):
        TrainConfig.from_dict(data)


def test_oracle_progress_needs_advantages_of_groups():
    method = replace(METHODS["w-reinforce"], allocator="oracle-progress")
    with pytest.raises(ValueError, match=r"method\.allocator: expected a rule other than oracle-progress"):
        replace(CONFIG, method=method)


def test_minibatches_of_prompts_are_at_most_the_prompts():
    with pytest.raises(ValueError, match="num_minibatches: expected at most batch_prompts 3, got 4"):
        replace(CONFIG, minibatch="prompts", batch_prompts=3)


def test_differences_are_paths():
    world = replace(CONFIG.world, num_prompts=9, difficulty=LogisticNormal(mean=-1.0, std=1.0))
    other = replace(CONFIG, num_steps=3, world=world, batch_prompts=3, method=replace(CONFIG.method, shaping=None))
    assert differences(CONFIG.to_dict(), other.to_dict()) == [
        "batch_prompts", "method.shaping", "num_steps", "world.difficulty.std", "world.num_prompts",
    ]  # fmt: skip
    assert differences(CONFIG.to_dict(), CONFIG.to_dict()) == []
