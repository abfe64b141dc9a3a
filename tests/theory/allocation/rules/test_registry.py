"""theory.allocation.rules: names, rules of one's own, and what importing them loads."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from theory.allocation.rules import ALLOCATORS, Uniform, get_allocator, register
from theory.methods import METHODS


def test_names():
    expected = "uniform dynamo dynamo-code neyman gvm vip knapsack cures dars reinforce-ada pilot-commit log-progress"
    assert list(ALLOCATORS) == [*expected.split(), "oracle-variance", "oracle-progress"]
    assert all(get_allocator(name).name == name for name in ALLOCATORS)
    with pytest.raises(ValueError, match=r"name: expected one of uniform, dynamo, .*, oracle-progress, got 'dynano'"):
        get_allocator("dynano")
    with pytest.raises(TypeError):
        ALLOCATORS["new"] = Uniform()


class Mine:
    name = "mine"

    def counts(self, problem, rng):
        return np.full(problem.num_prompts, problem.budget // problem.num_prompts)


def test_a_rule_of_ones_own_can_be_named_by_a_method():
    with pytest.raises(ValueError, match=r"allocator: expected one of uniform, .*, got 'mine'"):
        replace(METHODS["grpo"], allocator="mine")
    first, second = Mine(), Mine()
    assert register(first) is get_allocator("mine") is first
    assert replace(METHODS["grpo"], allocator="mine").allocator == "mine"
    assert register(second) is get_allocator("mine") is second


@pytest.mark.parametrize("name", ["dynamo", "uniform"])
def test_the_rules_here_cannot_be_replaced(name):
    rule = Mine()
    rule.name = name
    with pytest.raises(ValueError, match=f"rule: expected another name than those of the rules here, got {name}"):
        register(rule)
    assert ALLOCATORS[name] is not rule


@pytest.mark.parametrize(
    "attributes",
    [
        {"counts": Mine.counts},
        {"name": 7, "counts": Mine.counts},
        {"name": "mine"},
        {"name": "mine", "counts": [8, 8]},
        {"name": "mine", "counts": Mine.counts, "spend": Mine.counts},
    ],
)
def test_what_is_no_rule_is_not_registered(attributes):
    for rule in (type("Rule", (), attributes)(), type("Rule", (Mine,), {})):  # not one, and its class
        with pytest.raises(ValueError, match="rule: expected an object with a name and one of counts and spend, got"):
            register(rule)
    assert "mine" not in ALLOCATORS


@pytest.mark.parametrize("module", ["dynamo", "in_rounds", "oracles", "problem", "protocol", "published"])
def test_doctests_run(module):
    result = doctest.testmod(importlib.import_module(f"theory.allocation.rules.{module}"))
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("module", ["theory.allocation", "theory.allocation.history", "theory.allocation.rules"])
def test_no_torch_is_loaded(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@fuzzing.fuzz
@given(st.text("adnyo-", max_size=6) | st.sampled_from([None, 7, [], *ALLOCATORS]))
def test_fuzz_get_allocator(name):
    rule = fuzzing.call(get_allocator, name)
    assert rule is None or rule is ALLOCATORS[name]


@fuzzing.fuzz
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "counts", "spend"), st.none() | st.text() | st.just(len)))
)
def test_fuzz_register(attributes):
    rule = SimpleNamespace(**attributes)
    registered = fuzzing.call(register, rule)
    assert registered is None or ALLOCATORS[attributes["name"]] is rule
