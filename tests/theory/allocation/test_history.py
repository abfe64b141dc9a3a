"""history: identity by key, discount, state that survives a resume, and the defects of public trainers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from theory.allocation.history import SuccessHistory


def counts(history, keys):
    return [x.tolist() for x in history.counts(keys)]


def filled(discount=1.0):
    history = SuccessHistory(discount)
    history.update(["a", 3, "b"], [1, 2, 0], [4, 2, 5])
    return history


def test_counts_add_up_by_key():
    history = filled()
    history.update(["b", "a"], [3, 0], [4, 1])
    assert counts(history, ["a", "b", 3, "unknown"]) == [[1, 3, 2, 0], [5, 9, 2, 0]]
    assert len(history) == 3
    assert "a" in history
    assert "unknown" not in history
    assert all(x.dtype == np.float64 for x in history.counts(["a"]))


def test_old_counts_are_discounted_once_per_update_and_only_where_updated():
    history = filled(discount=0.5)
    history.update(["a", "a"], [1, 1], [1, 2])  # Twice in one update: 0.5 * (1, 4) + (1, 1) + (1, 2).
    assert counts(history, ["a", "b"]) == [[2.5, 0], [5, 5]]


def test_discounted_attempts_are_bounded():
    """A geometric sum: g (1 + d + d^2 + ...) -> g / (1 - d)."""
    history = SuccessHistory(discount=0.75)
    for _ in range(200):
        history.update(["a"], [8], [8])
    np.testing.assert_allclose(history.counts(["a"]), [[32.0], [32.0]], rtol=1e-12)


def test_discount_zero_keeps_the_last_update_only():
    history = filled(discount=0.0)
    history.update(["a"], [1], [2])
    assert counts(history, ["a", "b"]) == [[1, 0], [2, 5]]


def test_strings_and_integers_are_different_keys():
    history = SuccessHistory()
    history.update([1, "1"], [1, 0], [1, 2])
    assert counts(history, [1, "1"]) == [[1, 0], [1, 2]]
    history.update(np.array([1]), [1], [1])  # A NumPy integer is the same key as the integer.
    history.update(np.array(["1"]), [1], [1])
    assert counts(history, [np.int64(1), np.str_("1")]) == [[2, 1], [2, 3]]
    assert np.int64(1) in history
    assert len(history) == 2


def test_many_prompts_are_kept_apart_while_the_table_grows(rng):
    history, expected = SuccessHistory(), {}
    for _ in range(50):
        keys = rng.integers(300, size=40)
        attempts = rng.integers(9, size=40)
        successes = rng.integers(attempts + 1)
        history.update(keys, successes, attempts)
        for key, k, n in zip(keys.tolist(), successes, attempts, strict=True):
            old = expected.get(key, (0, 0))
            expected[key] = (old[0] + k, old[1] + n)
    got = np.transpose(history.counts(list(expected)))
    np.testing.assert_array_equal(got, list(expected.values()))


def test_R2_reordering_a_batch_changes_nothing(rng):
    """A trainer that balances the batch must not move one prompt's rewards to another: rows travel with their keys."""
    keys = [f"prompt {i}" for i in rng.integers(20, size=60)]
    attempts = rng.integers(1, 9, size=60)
    successes = rng.integers(attempts + 1)
    ordered, shuffled = SuccessHistory(0.9), SuccessHistory(0.9)
    for _ in range(3):
        ordered.update(keys, successes, attempts)
        order = rng.permutation(60)
        shuffled.update([keys[i] for i in order], successes[order], attempts[order])
    assert ordered.state_dict() == shuffled.state_dict()
    # The defect itself, keys in one order and rewards in another, is visible in the counts.
    scrambled = SuccessHistory(0.9)
    scrambled.update(keys, successes[order], np.maximum(attempts, successes[order]))
    assert counts(scrambled, keys) != counts(ordered, keys)


def test_R3_a_key_drawn_afresh_every_step_is_never_known():
    """The symptom of a random uid as key: nothing is ever found again, and the table grows with every batch."""
    stable, fresh = SuccessHistory(), SuccessHistory()
    generator = np.random.default_rng(0)
    for _ in range(5):
        uids = [uuid.UUID(bytes=generator.bytes(16)).hex for _ in range(4)]
        assert counts(fresh, uids) == [[0] * 4, [0] * 4]
        fresh.update(uids, [1] * 4, [2] * 4)
        stable.update(["a", "b", "c", "d"], [1] * 4, [2] * 4)
    assert (len(fresh), len(stable)) == (20, 4)
    assert counts(stable, ["a"]) == [[5], [10]]


def test_R9_a_resumed_run_equals_an_uninterrupted_one(rng):
    """2N updates equal N, save, load, N: bit for bit, through JSON, with new prompts after the resume."""
    batches = []
    for step in range(8):
        attempts = rng.integers(1, 9, size=16)
        batches.append((rng.integers(10 + 5 * step, size=16), rng.integers(attempts + 1), attempts))
    whole, first, second = SuccessHistory(0.9), SuccessHistory(0.9), SuccessHistory(0.9)
    for batch in batches:
        whole.update(*batch)
    for batch in batches[:4]:
        first.update(*batch)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for batch in batches[4:]:
        second.update(*batch)
    assert second.state_dict() == whole.state_dict()
    assert len(second) > len(first)


def test_R13_counts_are_read_afresh():
    """No table computed once and read for ever: counts follow every update, and returned arrays are no views."""
    history = filled()
    before = history.counts(["a"])
    history.update(["a"], [1], [1])
    assert counts(history, ["a"]) == [[2], [5]]
    before[1][0] = 99.0
    assert counts(history, ["a"]) == [[2], [5]]


def test_loading_replaces_and_shares_nothing():
    state = filled().state_dict()
    arrays = {**state, "successes": np.array(state["successes"]), "attempts": np.array(state["attempts"])}
    history = SuccessHistory()
    history.update(["old"], [1], [1])
    history.load_state_dict(arrays)
    assert "old" not in history
    history.update(["a"], [1], [1])
    assert arrays["attempts"].tolist() == state["attempts"]
    empty = SuccessHistory()
    history.load_state_dict(empty.state_dict())
    assert len(history) == 0


def test_an_unknown_prompt_stays_unknown_in_a_full_table():
    history = SuccessHistory()
    history.load_state_dict(filled().state_dict())
    assert counts(history, ["unknown", "b"]) == [[0, 0], [0, 5]]
    history.update(["unknown"], [1], [1])
    assert counts(history, ["unknown", "b", 3, "a"]) == [[1, 0, 2, 1], [1, 5, 2, 4]]


def test_no_rows_no_change():
    history = filled(0.5)
    before = history.state_dict()
    history.update([], [], np.zeros(0))
    assert history.state_dict() == before
    assert counts(history, []) == [[], []]


@pytest.mark.parametrize(
    ("keys", "successes", "attempts", "message"),
    [
        (["a"], [2], [1], r"successes: expected at most attempts, got 2.0 > 1.0 at index 0"),
        (["a"], [-1], [1], "successes: expected finite values"),
        (["a"], [0], [-1], "attempts: expected finite values"),
        (["a"], [np.nan], [1], "successes: expected finite values"),
        (["a"], [0], [np.inf], "attempts: expected finite values"),
        (["a"], [0], [2.0**60], "attempts: expected finite values"),
        (["a"], [0.5], [1], "whole numbers"),
        (["a"], [True], [True], "successes: expected numbers, got dtype bool"),
        (["a"], [[0]], [1], "successes: expected a non-empty 1-D array"),
        (["a", "new"], [0, 1], [1], "attempts: expected one count per key, 2, got 1"),
        (["a"], [0, 1], [1, 1], "successes: expected one count per key, 1, got 2"),
        (["a"], [], [], "successes: expected a non-empty"),
        ([], [0], [1], "successes: expected one count per key, 0, got 1"),
        (["a", 1.5], [0, 0], [1, 1], "keys: expected strings or integers, got 1.5"),
        ([True], [0], [1], "keys: expected strings or integers, got True"),
        ([None], [0], [1], "keys: expected strings or integers, got None"),
        ("a", [0], [1], "keys: expected a sequence"),
        ({"a"}, [0], [1], "keys: expected a sequence"),
        ({"a": 1}, [0], [1], "keys: expected a sequence"),
        (7, [0], [1], "keys: expected a sequence"),
        (np.array([["a"]]), [0], [1], r"keys: expected shape \[N\], got \(1, 1\)"),
        (np.array([0.5]), [0], [1], "keys: expected strings or integers, got 0.5"),
    ],
)
def test_a_bad_update_is_named_and_changes_nothing(keys, successes, attempts, message):
    history = filled(0.5)
    before = history.state_dict()
    with pytest.raises(ValueError, match=message):
        history.update(keys, successes, attempts)
    assert history.state_dict() == before


GOOD = filled().state_dict()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1], "state: expected a mapping, got list"),
        ({}, "state kind: expected one of SuccessHistory, got None"),
        ({**GOOD, "kind": "ReplayBuffer"}, "state kind: expected one of SuccessHistory, got 'ReplayBuffer'"),
        ({**GOOD, "version": 2}, "state version: expected at most 1, got 2 from newer code"),
        ({**GOOD, "version": 0}, "state version: expected an integer >= 1"),
        ({**GOOD, "version": "1"}, "state version: expected an integer"),
        ({k: v for k, v in GOOD.items() if k != "attempts"}, "state: expected the fields"),
        ({**GOOD, "decay": 1.0}, "state: expected the fields"),
        ({**GOOD, "discount": 0.9}, "state discount: expected 1.0, this history's, got 0.9"),
        ({**GOOD, "discount": 7}, "state discount: expected a finite number"),
        ({**GOOD, "keys": ["a", 3, "a"]}, "state keys: expected unique keys, got 1 repetitions"),
        ({**GOOD, "keys": ["a", 3]}, "successes: expected one count per key, 2, got 3"),
        ({**GOOD, "keys": ["a", 3, ["b"]]}, "keys: expected strings or integers"),
        ({**GOOD, "successes": [1.0, 2.0]}, "successes: expected one count per key"),
        ({**GOOD, "successes": [5.0, 2.0, 0.0]}, "successes: expected at most attempts"),
        ({**GOOD, "attempts": [4.0, 2.0, float("nan")]}, "attempts: expected finite"),
        ({**GOOD, "attempts": [4.0, 2.0, -1.0]}, "attempts: expected finite"),
        ({**GOOD, "attempts": "abc"}, "attempts: expected numbers"),
        ({**GOOD, "attempts": None}, "attempts: expected numbers"),
    ],
)
def test_a_bad_state_is_named_and_changes_nothing(state, message):
    history = filled()
    history.update(["a"], [1], [1])
    before = history.state_dict()
    with pytest.raises(ValueError, match=message):
        history.load_state_dict(state)
    assert history.state_dict() == before
    assert history.discount == 1.0


@pytest.mark.parametrize("discount", [-0.1, 1.1, float("nan"), True, "1", None])
def test_a_bad_discount_is_named(discount):
    with pytest.raises(ValueError, match="discount: expected"):
        SuccessHistory(discount)


def test_a_key_that_cannot_be_one_is_an_error_not_a_stranger():
    history = filled()
    for call in (lambda: history.counts([1.5]), lambda: 1.5 in history, lambda: history.counts("a")):
        with pytest.raises(ValueError, match="keys: expected"):
            call()


def test_a_million_prompts_are_fast():
    """Generous limits, to catch a cost that grows with the table: 200 batches of 512 out of 1e6 prompts."""
    history = SuccessHistory()
    ones = np.ones(10**6)
    history.update(range(10**6), ones, ones)
    generator = np.random.default_rng(0)
    start = time.process_time()
    for _ in range(200):
        keys = generator.integers(10**6, size=512)
        history.update(keys, ones[:512], ones[:512])
        history.counts(keys)
    assert time.process_time() - start < 10.0


def test_theory_history_loads_no_torch():
    code = "import sys, theory.allocation.history; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


some_keys = st.lists(st.integers(0, 3) | st.sampled_from("ab"), max_size=5)
odd_keys = st.lists(st.integers() | st.text(max_size=2) | st.floats() | st.none(), max_size=3)
any_keys = some_keys | st.just("ab") | odd_keys
some_counts = st.lists(st.integers(0, 9), max_size=5)
any_counts = (
    some_counts
    | st.lists(fuzzing.any_float, max_size=5)
    | fuzzing.float_arrays(st.tuples(st.integers(0, 2), st.integers(0, 2)))
)


def check(history):
    successes, attempts = history.counts(history.state_dict()["keys"])
    assert np.all((successes >= 0) & (successes <= attempts) & np.isfinite(attempts))


@fuzzing.fuzz
@given(st.floats(0, 1), st.lists(st.tuples(any_keys, any_counts, any_counts), max_size=3))
def test_fuzz_SuccessHistory_update(discount, updates):
    history = SuccessHistory(discount)
    for keys, successes, attempts in updates:
        fuzzing.call(history.update, keys, successes, attempts)
        size = min(map(len, (keys, successes, attempts)))
        fuzzing.call(history.update, keys[:size], successes[:size], attempts[:size])
    check(history)


@fuzzing.fuzz
@given(some_keys, any_keys)
def test_fuzz_SuccessHistory_counts(seen, keys):
    history = SuccessHistory()
    history.update(seen, [1] * len(seen), [2] * len(seen))
    counts = fuzzing.call(history.counts, keys)
    if counts is not None:
        expected = [seen.count(key) for key in keys]
        assert [x.tolist() for x in counts] == [expected, [2 * x for x in expected]]


@fuzzing.fuzz
@given(st.floats(0, 1), st.lists(st.tuples(some_keys, some_counts), max_size=3))
def test_fuzz_SuccessHistory_state_dict(discount, updates):
    history, loaded = SuccessHistory(discount), SuccessHistory(discount)
    for keys, attempts in updates:
        size = min(len(keys), len(attempts))
        history.update(keys[:size], [n // 2 for n in attempts[:size]], attempts[:size])
    loaded.load_state_dict(json.loads(json.dumps(history.state_dict())))
    assert loaded.state_dict() == history.state_dict()


@fuzzing.fuzz
@given(st.sampled_from(list(GOOD)), any_keys | any_counts | st.none() | fuzzing.any_float | st.text(max_size=2))
def test_fuzz_SuccessHistory_load_state_dict(field, value):
    history = filled()
    fuzzing.call(history.load_state_dict, {**GOOD, field: value})
    check(history)
