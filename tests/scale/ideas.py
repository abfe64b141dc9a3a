"""A method that the table has not: DynaMO at its neutral setting, which must be GRPO."""

from __future__ import annotations

from dataclasses import replace

from theory.losses import Modulation
from theory.methods import METHODS, register_method

NEUTRAL = replace(
    METHODS["dynamo"],
    title="DynaMO, alpha 0, uniform",
    allocator="uniform",
    shaping=Modulation(alpha_comp=0.0, alpha_stab=0.0),
)

register_method("neutral", NEUTRAL)
