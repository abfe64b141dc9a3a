"""theory.allocation.rules.in_rounds: schedules by hand, what rounds are charged, bad observations."""

from __future__ import annotations

import numpy as np
import pytest

from tests.theory.allocation.rules.calls import IN_ROUNDS, Recorder, allocate, call, good_call, scripted
from theory.allocation.rules import ALLOCATORS, Dars, PilotCommit, ReinforceAda


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        (Dars(), [24, 11, 3, 1, 0, 0]),  # 27 for k = 0, capped at 32 in all
        (Dars(schedule="hardness", max_rollouts=64), [56, 24, 8, 3, 0, 0]),
        (Dars(normalize_std=True), [9, 5, 2, 1, 0, 0]),
        (Dars(schedule="hardness", normalize_std=True), [23, 14, 6, 3, 0, 0]),
    ],
    ids=repr,
)
def test_dars_schedules(rule, more):
    """N = 8 and k = 0, 1, 2, 3, 4, 8. Without std, with k = 1/2 for 0: N (N - 2k)^2 / (4 k (N - k)), N (N - 2k) / (2k).

    That is 26.1, 10.3, 2.7, .5 and 56, 24, 8, 2.7. With std N / S - N = 8.5, 4.1, 1.2, .3; 2 q N / S - N = 22.98, 13.2,
    5.9, 2.3.
    """
    counts = allocate(rule, 1000, 0, 100, num=6, observe=scripted(np.array([0, 1, 2, 3, 4, 8]), np.zeros(6)))
    assert counts.tolist() == [8 + m for m in more]


def test_dars_does_not_round_a_whole_number_up():
    """N (N - 2k) / (2k) = 9 exactly for N = 18, k = 6, and 5 for N = 20, k = 8; in floating point slightly more."""
    for num, k, more in ((18, 6, 9), (20, 8, 5)):
        rule = Dars(schedule="hardness", pilot=num, max_rollouts=99)
        observe = scripted(np.array([k, num]), np.zeros(2))
        assert allocate(rule, 1000, 0, 100, num=2, observe=observe).tolist() == [num + more, num]


def test_reinforce_ada_stops_each_prompt_by_its_outcomes():
    rounds = [np.array([2, 1, 7, 0]), np.array([0, 1, 1, 0]), np.array([0, 0, 1, 8]), np.array([0, 0, 5, 0])]
    asked = []

    def observe(counts):
        asked.append(counts.tolist())
        return np.minimum(rounds[len(asked) - 1], counts)

    # Two of each: the first has them at once (2 : 6), the second (2 : 14) and third (8 : 8) after round 2, the fourth
    # (8 : 16) after round 3.
    assert allocate(ReinforceAda(), 200, 0, 99, num=4, observe=observe).tolist() == [8, 16, 16, 24]
    assert asked == [[8, 8, 8, 8], [0, 8, 8, 8], [0, 0, 0, 8]]
    asked.clear()
    # Three of each: the first two never have three successes, and stop after four rounds.
    assert allocate(ReinforceAda(keep=6), 200, 0, 99, num=4, observe=observe).tolist() == [32, 32, 16, 24]
    asked.clear()
    positive = ReinforceAda(stop="positive_focused")
    assert allocate(positive, 200, 0, 99, num=4, observe=observe).tolist() == [8, 8, 8, 24]


@pytest.mark.parametrize(
    ("keep", "more"),
    [(3, [8, 0, 0, 8]), (4, [8, 0, 8, 8]), (5, [8, 8, 8, 8])],
)
def test_reinforce_ada_keeps_the_odd_one_for_a_failure(keep, more):
    """After 7, 6, 1 and 0 of 8: three kept are one success and two failures, four two and two, five two and three."""
    observe = scripted(np.array([7, 6, 1, 0]), np.zeros(4))
    counts = allocate(ReinforceAda(keep=keep, max_rounds=2), 200, 0, 99, num=4, observe=observe)
    assert counts.tolist() == [8 + m for m in more]


@pytest.mark.parametrize(("p", "published"), [(0.05, 19.2), (0.1, 13.6), (0.5, 8.0)])
def test_reinforce_ada_expected_cost(p, published):
    """E[N] of rounds of 8 until a success, at most 4 (section 5.4) against the rule itself; 4 standard errors."""
    cost = 8 * sum((1 - p) ** (8 * r) for r in range(4))
    assert cost == pytest.approx(published, abs=0.06)
    generator = np.random.default_rng(3)
    counts = allocate(
        ReinforceAda(stop="positive_focused"), 10**6, 0, 32, num=4000, observe=lambda n: generator.binomial(n, p)
    )
    assert abs(counts.mean() - cost) < 4 * counts.std() / np.sqrt(4000) + 0.01


def test_pilot_commit_keeps_the_middle_inclusive():
    pilot = np.arange(9)
    counts = allocate(PilotCommit(), 10**4, 0, 99, num=9, observe=scripted(pilot, pilot))
    assert counts.tolist() == [8, *[32] * 6, 8, 8]


@pytest.mark.parametrize("name", IN_ROUNDS)
def test_R12_pilots_are_charged(name):
    """The counts are all that `observe` was asked for, the pilots of prompts that get nothing more included."""
    observe = Recorder(np.array([0.01, 0.3, 0.5, 0.99]))
    counts = allocate(ALLOCATORS[name], 80, 2, 32, num=4, observe=observe)
    assert len(observe.asked) >= 2
    assert counts.sum() == sum(asked.sum() for asked in observe.asked) <= 80
    assert np.all(counts >= 8)
    # A budget for the pilot alone is spent on it, and nothing after.
    observe = Recorder(np.array([0.01, 0.3, 0.5, 0.99]))
    assert allocate(ALLOCATORS[name], 32, 2, 32, num=4, observe=observe).tolist() == [8] * 4
    assert len(observe.asked) == 1


@pytest.mark.parametrize("name", IN_ROUNDS)
def test_the_round_that_overdraws_is_scaled_down_and_is_the_last(name):
    observe = Recorder(np.full(3, 0.05))
    assert allocate(ALLOCATORS[name], 20, 2, 32, num=3, observe=observe).tolist() == [7, 7, 6]
    assert len(observe.asked) == 1
    # DARS asks for 11 + 3 after k = 1, 2 of 8 each, and 7 are left: 5.5 and 1.5, the tie to the first.
    assert allocate(Dars(), 23, 0, 99, num=2, observe=scripted(np.array([1, 2]), np.zeros(2))).tolist() == [14, 9]


@pytest.mark.parametrize("name", IN_ROUNDS)
def test_the_first_round_covers_low_and_no_round_exceeds_high(name):
    observe = Recorder(np.array([0.02, 0.3]))
    counts = allocate(ALLOCATORS[name], 100, 12, 20, num=2, observe=observe)
    assert observe.asked[0].tolist() == [12, 12]
    assert counts.max() <= 20
    assert allocate(ALLOCATORS[name], 100, 0, 5, num=2, observe=Recorder(np.array([0.02, 0.3]))).tolist() == [5, 5]
    assert allocate(ALLOCATORS[name], 0, 0, 5, num=2, observe=Recorder(np.array([0.02, 0.3]))).tolist() == [0, 0]


@pytest.mark.parametrize("name", IN_ROUNDS)
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_R16_a_batch_without_informative_prompts_does_not_abort(name, rate):
    counts = allocate(ALLOCATORS[name], 10**4, 2, 32, num=5, observe=lambda n: (n * rate).astype(np.int64))
    assert np.all((counts >= 8) & (counts <= 32))
    if name == "pilot-commit":
        assert counts.tolist() == [8] * 5


@pytest.mark.parametrize("name", IN_ROUNDS)
def test_an_observer_cannot_change_the_account(name):
    def observe(counts):
        successes = counts // 2
        counts[:] = 0
        return successes

    assert np.all(allocate(ALLOCATORS[name], 100, 2, 32, num=3, observe=observe) >= 8)


@pytest.mark.parametrize("name", IN_ROUNDS)
def test_rounds_may_leave_a_budget_above_the_caps(name):
    arguments = {**good_call(ALLOCATORS[name]), "high": 4, "budget": 100}
    assert call(ALLOCATORS[name], **arguments).tolist() == [4, 4]


@pytest.mark.parametrize("name", IN_ROUNDS)
@pytest.mark.parametrize(
    ("observe", "message"),
    [
        (None, "observe: expected a function, since .* spends in rounds, got None"),
        (lambda counts: counts + 1, "observe: expected whole numbers of successes"),
        (lambda counts: counts - 0.5, "observe: expected whole numbers of successes"),
        (lambda counts: counts[:1], "observe: expected whole numbers of successes"),
        (lambda counts: -counts, "observe: expected finite values"),
        (lambda counts: None, "observe: expected numbers"),
    ],
)
def test_bad_observations_are_named(name, observe, message):
    rule = ALLOCATORS[name]
    with pytest.raises(ValueError, match=message):
        call(rule, **{**good_call(rule), "observe": observe})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dars(schedule="ET"), "schedule: expected one of equal, hardness"),
        (lambda: Dars(normalize_std=2), "normalize_std: expected one of True, False"),
        (lambda: Dars(pilot=0), "pilot: expected an integer >= 1"),
        (lambda: Dars(max_rollouts=2**64), "max_rollouts: expected at most 2147483647"),
        (lambda: Dars(pilot=16, max_rollouts=8), "max_rollouts: expected an integer >= 16"),
        (lambda: ReinforceAda(stop="first"), "stop: expected one of balanced, positive_focused"),
        (lambda: ReinforceAda(round_size=0), "round_size: expected an integer >= 1"),
        (lambda: ReinforceAda(max_rounds=0), "max_rounds: expected an integer >= 1"),
        (lambda: ReinforceAda(keep=1), "keep: expected an integer >= 2"),
        (lambda: PilotCommit(pilot=0), "pilot: expected an integer >= 1"),
        (lambda: PilotCommit(commit=-1), "commit: expected an integer >= 0"),
        (lambda: PilotCommit(min_rate=1.5), "min_rate: expected a finite number"),
        (lambda: PilotCommit(min_rate=0.5, margin=0.6), "margin: expected a finite number"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
