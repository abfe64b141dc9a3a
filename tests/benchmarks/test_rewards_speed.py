"""What the reward of a response costs, beside Math-Verify called directly (`--benchmark-enable -s` tells).

There are as many as in a step of training, 512 problems with 16 responses each, made up, one after the other from one
thread. Math-Verify reads the first of them in this process: without a limit on time, without a process that may be
ended, and without a search for the answer whose time is linear.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from scale.rewards import scoring
from tests.scale.rewards import made_responses

math_verify = pytest.importorskip("math_verify")

RESPONSES = 512 * 16
SAMPLE = 1_000
"""Responses that Math-Verify reads, too."""


def reward(gold, response):
    return scoring.compute_score("any", response, gold)["score"] == 1.0


def directly(gold, response):
    found = math_verify.parse(response, parsing_timeout=None)
    return math_verify.verify(
        math_verify.parse(f"\\boxed{{{gold}}}", parsing_timeout=None), found, timeout_seconds=None
    )


def timed(judge, made):
    """Return the milliseconds of each response, and the share that is judged right."""
    spent, right = np.empty(len(made)), 0
    for number, each in enumerate(made):
        start = time.perf_counter()
        right += judge(each.gold, each.response)
        spent[number] = 1e3 * (time.perf_counter() - start)
    return spent, right / len(made)


@pytest.mark.benchmark(group="rewards")
def test_a_step_of_rewards(benchmark):
    size, sample = (50, 10) if benchmark.disabled else (RESPONSES, SAMPLE)
    made = made_responses.responses(size, seed=20260222)
    scoring.check()  # starts a worker
    (ours, right) = benchmark.pedantic(timed, (reward, made), rounds=1)
    theirs, right_directly = timed(directly, made[:sample])
    middle, late, worst = np.quantile(ours, (0.5, 0.95, 1))
    ratio = np.mean(ours[:sample]) / np.mean(theirs)
    benchmark.extra_info.update({"median ms": middle, "95 % ms": late, "worst ms": worst, "times Math-Verify": ratio})
    print(f"{size} responses: median {middle:.2f} ms, 95 % {late:.1f} ms, worst {worst:.0f} ms; right {right:.1%}")
    print(f"{sample} by Math-Verify: mean {np.mean(theirs):.1f} ms, ours {ratio:.2f} times; right {right_directly:.1%}")
    assert right == 1
