"""Intervals over seeds, and sentences that follow from numbers."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, strategies as st

from paper_figs.experiments import CellResult, about, estimate, seeds_and_intervals, seeds_of
from paper_figs.wording import counted, span, verdict
from theory.base.arrays import FloatArray
from theory.base.tables import Estimate, number
from theory.statistics import interval_method


def test_intervals_of_seeds() -> None:
    alone = estimate(_array(0.25))
    assert alone.value == 0.25
    assert math.isnan(alone.low)
    assert alone.sign == 0
    assert estimate(_array(1.0, 2.0, 3.0, 4.0)).value == 2.5
    assert estimate(_array(1.0, 1.5, 2.0)).sign == 1  # t = 1.5 / .289 = 5.2, beyond 4.3
    assert estimate(_array(-1.0, -1.5, -2.0)).sign == -1
    assert estimate(_array(1.0, 2.0, 3.0)).sign == 0  # t = 3.46
    assert estimate(_array(1.0, 1.0)).sign == 0  # two seeds, whatever they say
    assert estimate(_array(1.0, 1.0)).low == 1.0
    assert estimate(_array(-1.0, 0.1, 1.0)).sign == 0
    assert estimate(_array(1.0, 2.0)).scaled(100).value == 150


def _array(*values: float) -> FloatArray:
    return np.array(values)


@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_verdict_counts(holds: list[bool]) -> None:
    told = verdict("it helps", holds, "worlds")
    assert told.startswith("The paper says that it helps; here this ")
    if len(holds) > 1:
        count = sum(holds)
        wanted = f"all {len(holds)} worlds" if count == len(holds) else f"{count or 'none'} of {len(holds)} worlds"
        assert told.endswith(f" appears in {wanted}.")
    else:
        assert told.endswith("appears." if holds[0] else "does not appear.")


def test_words_for_numbers() -> None:
    assert verdict("it is so", [False], "w", who="A review says") == (
        "A review says that it is so; here this does not appear."
    )
    up, down = Estimate(1.0, 0.5, 1.5, 0.01), Estimate(-1.0, -1.5, -0.5, 0.05)
    assert counted([up, up, down, Estimate(1.0)]) == "ahead in 2, behind in 1, undecided in 1"
    assert counted([up._replace(p=0.051), Estimate(1.0, 0.5, 1.5)]) == "ahead in 0, behind in 0, undecided in 2"
    assert span([-0.2, 3.0], "+.0f") == "0 to +3"
    assert span([0.0, 0.001]) == "0.00"
    assert span([10.0], ".1f") == "10.0"
    assert seeds_of({1, 3}) == "1 to 3 seeds"
    assert seeds_and_intervals({4, 8}) == f"4 to 8 seeds ({interval_method(4)} or {interval_method(8)})"
    assert sorted(["8", "none", "32", "16"], key=number) == ["none", "8", "16", "32"]


def test_differences_say_how_many_seeds_they_share() -> None:
    def of(seeds: int, pairs: int | None) -> str:
        config = {"trainer": {"total_training_steps": 9}}
        gains = {"pass_at_1": Estimate(0.1)}
        reference = CellResult("m", False, {}, seeds, {}, {}, config, seeds)
        return about([reference, CellResult("m", False, {}, seeds, {}, gains, config, pairs)])

    alone = f"m in verl (9 steps), 8 seeds ({interval_method(8)})"
    assert of(8, 8) == of(8, None) == alone
    assert of(8, 4) == f"{alone}, differences of 4 shared seeds ({interval_method(4)})"
    assert of(3, 1).endswith("differences of 1 shared seed, without interval")
