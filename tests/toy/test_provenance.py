"""docs/provenance.md: values that it gives as ours are those of the code, and none of the method's lacks a source."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from theory.allocation import get_allocator
from theory.losses import Modulation
from theory.methods import METHODS
from toy.experiments.sweeps import SWEEPS
from toy.training import TrainConfig

TEXT = (Path(__file__).parents[2] / "docs" / "provenance.md").read_text()
CONFIG = TrainConfig.named("dynamo", "mixed")
PARTS = {
    "TrainConfig": CONFIG,
    "OptimizerConfig": CONFIG.optimizer,
    "Method": CONFIG.method,
    "Modulation": CONFIG.method.shaping,
    "Dynamo": get_allocator("dynamo"),
    "DynamoCode": get_allocator("dynamo-code"),
    "KlCov": METHODS["kl-cov"].loss,
    "ClipCov": METHODS["clip-cov"].loss,
    "EntropyBonus": METHODS["entropy-loss"].entropy_bonus,
    "ForkTokens": METHODS["fork-tokens"].token_selection,
    "EntropyAdvantages": METHODS["entropy-advantages"].shaping,
    "WReinforce": METHODS["w-reinforce"].advantage,
}
QUOTED = re.findall(r"`(\w+)\.(\w+) = ([^`]+)`", TEXT)


@pytest.mark.parametrize(("part", "name", "value"), QUOTED)
def test_a_quoted_default_is_the_codes(part, name, value):
    assert type(PARTS[part]).__name__ == part
    assert str(getattr(PARTS[part], name)) == value


def test_every_setting_of_the_modulation_has_a_source():
    quoted = {name for part, name, _ in QUOTED if part == "Modulation"}
    named = quoted | {name for name in ("alpha_comp", "alpha_stab") if f"`{name}`" in TEXT}
    assert named == {field.name for field in fields(Modulation)}
    assert {part for part, _, _ in QUOTED} == set(PARTS)


def test_the_clip_of_grpo_and_dynamo_is_the_one_that_is_said():
    for name in ("grpo", "dynamo"):
        loss = METHODS[name].loss
        assert (loss.clip_low, loss.clip_high, loss.dual_clip) == (0.2, 0.2, 10.0)
    assert "| clip range | 0.2 below and above |" in TEXT
    assert "| dual clip | 10 |" in TEXT


def test_variants_and_sweeps_that_the_page_names_are_there():
    variants = {cell.axes["variant"] for cell in SWEEPS["paper-vs-code"].cells}
    assert {"script-settings", "row-expansion", "row-history", "row-both", "as-released"} <= variants
    assert {"aggregation", "adamw", "paper-vs-code"} <= set(SWEEPS)
