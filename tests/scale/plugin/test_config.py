"""Settings of a run: defaults, what is refused, and what a checkpoint has otherwise."""

from __future__ import annotations

import json
import re

import pytest

from scale.plugin import config as settings_module
from scale.plugin.config import RULES, DynamoConfig, require_method
from theory.allocation import ALLOCATORS, SuccessHistory
from theory.methods import METHODS


def test_defaults_are_the_papers():
    """Bounds [8, 24] and lifetime counts; every method of the table, as it stands there."""
    assert (DynamoConfig().rollouts_low, DynamoConfig().rollouts_high, DynamoConfig().history_discount) == (8, 24, 1.0)
    assert (DynamoConfig().method, DynamoConfig().scope, DynamoConfig().seed) == ("dynamo", "rollout-batch", 1)
    assert DynamoConfig().lag == 0
    assert (DynamoConfig().stock, DynamoConfig().dump, tuple(DynamoConfig().modules)) == (False, False, ())
    for name, method in METHODS.items():
        assert DynamoConfig(method=name).resolved() == method


def test_every_setting_of_the_method_is_the_methods():
    fields = {"alpha": 0.0, "sharpness": 7.0, "threshold": 0.25}
    method = DynamoConfig(**fields, allocator="gvm", aggregation="prompt-mean").resolved()
    assert {name: getattr(method.shaping, name) for name in fields} == fields
    assert (method.allocator, method.aggregation) == ("gvm", "prompt-mean")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "dynamite"}, "expected one of grpo"),
        ({"allocator": "neymann"}, "dynamo.allocator: expected one of uniform"),
        ({"allocator": "oracle-progress"}, "got oracle-progress, which needs what only a tabular world knows"),
        ({"method": "grpo", "alpha": 0.2}, "expected a method with DynaMO's modulation, got GRPO"),
        ({"alpha": 2.0}, "alpha"),
        ({"rollouts_low": 1}, "dynamo.rollouts_low"),
        ({"rollouts_low": 9, "rollouts_high": 8}, "dynamo.rollouts_high"),
        ({"scope": "batch"}, "dynamo.scope: expected one of rollout-batch"),
        ({"history_discount": 1.5}, "dynamo.history_discount"),
        ({"seed": -1}, "dynamo.seed"),
        ({"lag": -1}, "dynamo.lag"),
        ({"lag": 1, "allocator": "reinforce-ada"}, "dynamo.lag: expected 0 with the rule reinforce-ada, which waits"),
        ({"aggregation": "mean"}, "aggregation"),
        ({"stock": "false"}, "dynamo.stock: expected true or false, got 'false'"),
        ({"dump": 1}, "dynamo.dump: expected true or false, got 1"),
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


def test_a_checkpoint_of_another_rule_is_told_apart():
    state = {"method": METHODS["dynamo"].to_dict(), "history": SuccessHistory(0.5).state_dict()}
    state = json.loads(json.dumps(state))
    require_method("here", state, DynamoConfig(history_discount=0.5))
    for part, other in (
        ("history_discount", DynamoConfig(history_discount=1.0)),
        ("allocator", DynamoConfig(allocator="neyman", history_discount=0.5)),
        ("shaping", DynamoConfig(alpha=0.1, history_discount=0.5)),
    ):
        with pytest.raises(ValueError, match=f"here: .* the method dynamo, got one that differs in {part}; choose"):
            require_method("here", state, other)
