"""theory.methods: the rows in the order of the paper, ablations that differ in one thing, configs that round-trip."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from tests.theory import fuzzing
from tests.theory.methods.own import Calm, Likelihood
from theory.estimators import ADVANTAGES, WReinforce
from theory.losses import (
    ClipCov,
    ClippedSurrogate,
    EntropyAdvantages,
    EntropyBonus,
    ForkTokens,
    KlCov,
    Loss,
    Modulation,
    Shaped,
    Shaping,
    TokenLoss,
    modulate,
    policy_loss,
)
from theory.methods import METHODS, Method, get_method, register_loss, register_method, register_shaping
from theory.policy import token_statistics

TABLE_1 = [
    ("grpo", "GRPO"),
    ("clip-higher", "Clip-Higher"),
    ("entropy-loss", "Entropy Loss"),
    ("fork-tokens", "Fork Tokens"),
    ("entropy-advantages", "Entropy Advantages"),
    ("clip-cov", "Clip-COV"),
    ("kl-cov", "KL-COV"),
    ("w-reinforce", "W-REINFORCE"),
    ("dynamo", "DynaMO"),
]
TABLE_2 = [
    ("dynamo-no-gc", "- GC", {"shaping": Modulation(alpha_comp=0.0)}),
    ("dynamo-no-ums", "- UMS", {"shaping": Modulation(alpha_stab=0.0)}),
    ("dynamo-no-dra", "- DRA", {"allocator": "uniform"}),
    ("dynamo-only-ums", "- GC & DRA", {"allocator": "uniform", "shaping": Modulation(alpha_comp=0.0)}),
    ("dynamo-only-dra", "- GC & UMS", {"shaping": Modulation(alpha_comp=0.0, alpha_stab=0.0)}),
    ("dynamo-only-gc", "- UMS & DRA", {"allocator": "uniform", "shaping": Modulation(alpha_stab=0.0)}),
]
every_method = pytest.mark.parametrize("name", METHODS)


def test_tables_1_and_2_in_the_papers_order():
    rows = [(name, method.title) for name, method in METHODS.items()]
    assert rows == TABLE_1 + [(name, title) for name, title, _ in TABLE_2]


def test_settings_of_the_original_sources():
    """The one-table summary of the sources; a changed default shows here."""
    narrow, wide = ClippedSurrogate(0.2, 0.2, 10.0), ClippedSurrogate(0.2, 0.28, 10.0)
    expected = {
        "grpo": {"loss": narrow},
        "clip-higher": {"loss": wide},
        "entropy-loss": {"loss": narrow, "entropy_bonus": EntropyBonus(0.001)},
        "fork-tokens": {"loss": wide, "token_selection": ForkTokens(0.2)},
        "entropy-advantages": {"loss": wide, "shaping": EntropyAdvantages(0.4, 2.0)},
        "clip-cov": {"loss": ClipCov(0.0002, 1.0, 5.0, 1.0, 1.0)},
        "kl-cov": {"loss": KlCov(0.002, 1.0)},
        "w-reinforce": {"loss": ClippedSurrogate(0.2, 0.2, None), "advantage": WReinforce(0.1)},
        "dynamo": {"loss": narrow, "allocator": "dynamo", "shaping": Modulation(0.4, 50.0, 0.9)},
    }
    for name, settings in expected.items():
        method = METHODS[name]
        assert method == Method(title=method.title, source=method.source, notes=method.notes, **settings)


def test_sources_are_the_original_ones():
    sources = {name: METHODS[name].source for name, _ in TABLE_1}
    assert sources == {
        "grpo": "2402.03300",
        "clip-higher": "2503.14476",
        "entropy-loss": "2506.14758",
        "fork-tokens": "2506.01939",
        "entropy-advantages": "2506.14758",
        "clip-cov": "2505.22617",
        "kl-cov": "2505.22617",
        "w-reinforce": "2506.01347",
        "dynamo": "2602.19208",
    }


@pytest.mark.parametrize(("name", "title", "changes"), TABLE_2)
def test_ablations_differ_from_dynamo_in_the_stated_part_only(name, title, changes):
    assert METHODS[name] == replace(METHODS["dynamo"], title=title, **changes)
    dynamo = METHODS["dynamo"].shaping
    assert isinstance(dynamo, Modulation)
    for field in ("sharpness", "threshold", "alpha", "mean"):
        assert getattr(METHODS[name].shaping, field) == getattr(dynamo, field)


@pytest.mark.parametrize("loss", [METHODS["dynamo"].loss, KlCov(ratio=1.0), ClipCov()], ids=lambda x: type(x).__name__)
def test_modulation_goes_by_the_update_coefficient_of_any_loss(loss):
    """Xi is that of r A, 0 where the loss clips, and not that of A."""
    stats = token_statistics(np.log(np.array([[[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]])), np.array([[0, 0, 1]]))
    old = stats.log_prob - np.log([[0.5, 1.1, 4.0]])
    advantages, mask = np.array([[-1.0, 1.0, 1.0]]), np.ones((1, 3), dtype=bool)
    method = replace(METHODS["dynamo"], loss=loss)
    xi = loss.update_coefficient(stats.log_prob, old, advantages)
    assert not np.array_equal(xi, advantages)
    found = method.shape(advantages, stats, mask, stats.log_prob, old)
    expected = modulate(advantages, stats, mask, method.shaping, coefficient=xi)
    np.testing.assert_array_equal(found.advantages, expected.advantages)
    np.testing.assert_array_equal(found.factors["stabilization"], expected.stabilization)
    assert not np.array_equal(found.advantages, modulate(advantages, stats, mask, method.shaping).advantages)


@pytest.mark.parametrize(
    ("name", "scopes"),
    [("grpo", ()), ("dynamo", ("mini-batch",)), ("kl-cov", ("rollout-batch", "mini-batch", "micro-batch"))],
)
def test_only_what_a_mini_batch_has_in_common_needs_a_look_ahead(name, scopes):
    for scope in ("rollout-batch", "mini-batch", "micro-batch"):
        assert METHODS[name].looks_ahead(scope) == (scope in scopes)


def test_methods_are_read_only():
    with pytest.raises(TypeError):
        METHODS["grpo"] = METHODS["dynamo"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        METHODS["grpo"].allocator = "dynamo"


@every_method
def test_methods_say_what_their_loss_looks_at(name):
    method = METHODS[name]
    assert method.needs_statistics == (name in ("fork-tokens", "entropy-advantages") or name.startswith("dynamo"))
    assert method.singles_out == (name in ("fork-tokens", "clip-cov", "kl-cov"))


@every_method
def test_round_trip_through_json(name):
    method = METHODS[name]
    assert Method.from_dict(json.loads(json.dumps(method.to_dict()))) == method


def test_variant_round_trips():
    variant = replace(
        METHODS["dynamo"],
        advantage="rloo",
        shaping=Modulation(alpha_comp=0.2, alpha_stab=0.4, threshold=0.99),
        token_selection=ForkTokens(0.5),
        entropy_bonus=EntropyBonus(1e-4),
        aggregation="prompt-mean",
    )
    assert Method.from_dict(json.loads(json.dumps(variant.to_dict()))) == variant != METHODS["dynamo"]


@every_method
def test_every_loss_runs(name, backend):
    """What a method names exists and runs, on both libraries."""
    method = METHODS[name]
    rewards = np.array([1.0, -1.0, -1.0, 1.0, 1.0])
    groups = np.array([3, 3, 3, 8, 8])
    advantages = method.advantages(backend(rewards), backend(groups), backend(rewards > 0))
    assert advantages.dtype == backend(rewards).dtype
    log_prob = backend(np.full((5, 2), -1.0))
    mask = backend(np.ones((5, 2), dtype=bool))
    loss = policy_loss(
        method.loss,
        log_prob,
        log_prob,
        backend(np.ones((5, 2))) * advantages[:, None],
        mask,
        token_selection=method.token_selection,
        entropy=-log_prob,
        uniforms=-log_prob,
    )
    assert backend.numpy(loss.values).any()


def test_w_reinforce_takes_correctness_not_rewards(backend):
    """Rewards of 0 and 1 or of -1 and 1 make no difference, and no group is without effect."""
    correct, groups = np.array([True, False, True, True]), np.array([0, 0, 1, 1])
    for rewards in (correct * 1.0, correct * 2.0 - 1.0):
        got = METHODS["w-reinforce"].advantages(backend(rewards), backend(groups), backend(correct))
        np.testing.assert_allclose(backend.numpy(got), [0.1, -1.0, 0.1, 0.1], rtol=backend.rtol)
    grpo = METHODS["grpo"].advantages(backend(rewards), backend(groups), backend(correct))
    assert backend.numpy(grpo)[2:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_advantages_are_those_of_the_table(advantage):
    rewards, groups = np.array([1.0, 0.0, 0.0, 1.0]), np.array([1, 1, 1, 2])
    got = replace(METHODS["grpo"], advantage=advantage).advantages(rewards, groups, rewards > 0)
    assert np.array_equal(got, ADVANTAGES[advantage](rewards, groups))


def test_methods_load_without_torch():
    code = "import sys, theory.methods; assert 'torch' not in sys.modules, 'torch was loaded'"
    subprocess.run([sys.executable, "-c", code], check=True)


PLAIN = METHODS["grpo"].to_dict()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_method("gpro"), "name: expected one of grpo, clip-higher, .*, got 'gpro'"),
        (
            lambda: replace(METHODS["grpo"], allocator="unifrom"),
            "allocator: expected one of .*uniform.*, got 'unifrom'",
        ),
        (
            lambda: replace(METHODS["grpo"], advantage="gae"),
            "advantage: expected one of grpo, .*or a WReinforce, got 'gae'",
        ),
        (lambda: replace(METHODS["grpo"], aggregation="mean"), "aggregation: expected one of token-mean"),
        (lambda: replace(METHODS["grpo"], loss="clip"), "loss: expected one of ClippedSurrogate.*, got"),
        (
            lambda: replace(METHODS["grpo"], loss=None),
            "loss: expected one of ClippedSurrogate, ClipCov, KlCov.*, got None",
        ),
        (
            lambda: replace(METHODS["grpo"], shaping=ForkTokens()),
            "shaping: expected one of Modulation, Entropy.*, None",
        ),
        (lambda: replace(METHODS["grpo"], entropy_bonus=0.1), "entropy_bonus: expected one of EntropyBonus, None"),
        (lambda: replace(METHODS["grpo"], token_selection=0.2), "token_selection: expected one of ForkTokens, None"),
        (lambda: replace(METHODS["grpo"], title=None), "title: expected a string, got None"),
        (lambda: WReinforce(-0.1), "weight: expected a finite number"),
        (lambda: Method.from_dict([]), "values: expected a mapping, got list"),
        (lambda: Method.from_dict({**PLAIN, "clip": 0.2}), "values: expected the fields title, .*, got .*clip"),
        (lambda: Method.from_dict({"title": "GRPO"}), "values: expected the fields title, .*, got title"),
        (lambda: Method.from_dict({**PLAIN, "loss": {"type": "Clip"}}), "loss.type: expected one of .*, got 'Clip'"),
        (lambda: Method.from_dict({**PLAIN, "loss": {"ratio": 1}}), "loss.type: expected one of .*, got None"),
        (
            lambda: Method.from_dict({**PLAIN, "loss": {"type": "KlCov", "ratio": 0.1}}),
            "loss: expected the fields ratio, coefficient, got ratio",
        ),
        (
            lambda: Method.from_dict({**PLAIN, "loss": {"type": "KlCov", "ratio": 0.1, "coefficient": -1.0}}),
            "coefficient: expected a finite number",
        ),
        (
            lambda: METHODS["grpo"].advantages(np.ones(2), np.zeros(2, dtype=int), np.ones(2)),
            "correct: expected a boolean dtype",
        ),
        (
            lambda: METHODS["grpo"].advantages(np.ones(2), np.zeros(2, dtype=int), np.ones(3, dtype=bool)),
            r"correct: expected the shape of rewards \(2,\), got \(3,\)",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


names = st.sampled_from(list(METHODS))
values = st.none() | st.floats() | st.text(max_size=5) | st.dictionaries(st.text(max_size=3), st.floats(), max_size=2)


@fuzzing.fuzz
@given(names, st.integers(0), st.sampled_from([0.0, 1.0, -1.0, 1e-300, 1e308, np.inf]))
def test_fuzz_Method_advantages(name, seed, extreme):
    rng = np.random.default_rng(seed)
    size = rng.integers(6)
    rewards = rng.choice([0.0, 1.0, extreme], size=size)
    fuzzing.call(METHODS[name].advantages, rewards, rng.integers(3, size=size), rng.random(size) < 0.5)


@fuzzing.fuzz
@given(names, st.floats(0, 1), st.sampled_from(["token-mean", "prompt-mean"]))
def test_fuzz_Method_to_dict(name, ratio, aggregation):
    method = replace(METHODS[name], token_selection=ForkTokens(ratio), aggregation=aggregation)
    assert Method.from_dict(fuzzing.call(method.to_dict)) == method


@fuzzing.fuzz
@given(names, st.dictionaries(st.sampled_from(list(PLAIN)) | st.text(max_size=5), values, max_size=3))
def test_fuzz_Method_from_dict(name, changes):
    method = fuzzing.call(Method.from_dict, {**METHODS[name].to_dict(), **changes})
    assert method is None or set(changes) <= set(PLAIN)


@fuzzing.fuzz
@given(names | st.text(max_size=12) | st.none() | st.lists(st.integers(), max_size=2))
def test_fuzz_get_method(name):
    method = fuzzing.call(get_method, name)
    assert method is None or method is METHODS[name]


def named(name, base, **members):
    """Return a part like another one, as if it stood in another module."""
    return dataclass(frozen=True)(type(name, (base,), members))


def test_a_shaping_of_ones_own_is_part_of_a_method_and_its_config():
    unknown = named("Unknown", Calm)
    with pytest.raises(ValueError, match=r"shaping: expected one of Modulation, .*None.*, got Unknown"):
        replace(METHODS["grpo"], shaping=unknown())
    assert register_shaping(Calm) is Calm
    method = replace(METHODS["grpo"], shaping=Calm(0.25))
    assert Method.from_dict(method.to_dict()) == method
    again = register_shaping(named("Calm", Calm))
    assert replace(METHODS["grpo"], shaping=again()).shaping == again()
    with pytest.raises(ValueError, match="shaping: expected one of"):
        replace(METHODS["grpo"], shaping=Calm())


def own_method(**parts):
    """Return GRPO with parts that no check at registration has seen."""
    method = replace(METHODS["grpo"])
    for name, part in parts.items():
        object.__setattr__(method, name, part)
    return method


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (lambda self, a, stats: a[:1], r"Wrong.shape: advantages: expected the shape of tokens \(2,\), got \(1,\)"),
        (lambda self, a, stats: a.to(torch.float32), "Wrong.shape: advantages: expected dtype torch.float64"),
        (lambda self, a, stats: a * torch.nan, "Wrong.shape: advantages: expected finite values"),
        (lambda self, a, stats: 1.0, "Wrong.shape: advantages: expected an array, got float"),
        (lambda self, a, stats: a.mul_(2.0), "Wrong: expected advantages as it was, got it changed in place"),
        (lambda self, a, stats: stats.entropy.zero_(), "Wrong: expected entropy as it was, got it changed in place"),
    ],
)
def test_what_a_shaping_of_ones_own_returns_is_checked(shape, message):
    stats = token_statistics(torch.zeros((2, 3), dtype=torch.float64), torch.tensor([0, 1]))
    one = torch.ones(2, dtype=torch.float64)
    method = own_method(shaping=type("Wrong", (Shaping,), {"shape": shape})())
    with pytest.raises(ValueError, match=message):
        method.shape(one, stats, one > 0, -one, -one)


def test_what_apply_of_ones_own_returns_is_checked():
    stats, one = token_statistics(np.zeros((2, 3)), np.array([0, 1])), np.ones(2)
    for result, message in ((one, "expected Shaped"), (Shaped(one, {"f": one[:1]}), "Wrong.factors: f: expected")):
        apply = {"shape": Calm.shape, "apply": lambda self, *_, result=result, **__: result}
        method = own_method(shaping=type("Wrong", (Shaping,), apply)())
        with pytest.raises(ValueError, match=message):
            method.shape(one, stats, one > 0, -one, -one)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda loss: loss._replace(mask=loss.mask[:1]), r"Wrong.values: mask: expected the shape of tokens"),
        (lambda loss: loss._replace(mask=loss.values), "Wrong.values: mask: expected dtype"),
        (lambda loss: loss._replace(mask=~loss.mask), "Wrong.values: mask: expected the counted tokens"),
        (lambda loss: loss._replace(clipped=None), "Wrong.values: clipped: expected an array, got NoneType"),
        (lambda loss: loss._replace(values=loss.values * np.nan), "Wrong.values: values: expected finite values"),
        (lambda loss: loss._replace(values=loss.values.astype(np.float32)), "Wrong.values: values: expected dtype"),
        (tuple, "Wrong.values: expected a TokenLoss, got tuple"),
    ],
)
def test_what_a_loss_of_ones_own_returns_is_checked(change, message):
    def values(self, log_prob, old_log_prob, advantages, selection):
        return change(Likelihood().values(log_prob, old_log_prob, advantages, selection))

    wrong = type("Wrong", (Loss,), {"values": values})()
    log_prob = np.array([-1.0, -2.0])
    with pytest.raises(ValueError, match=message):
        policy_loss(wrong, log_prob, log_prob, np.ones(2), np.array([True, False]))


def test_what_a_loss_says_of_other_tokens_does_not_count():
    noisy = type("Noisy", (Loss,), {"values": lambda self, log_prob, *_: TokenLoss(log_prob, _[2][0], log_prob < 0)})()
    log_prob = np.array([-1.0, -2.0])
    loss = policy_loss(noisy, log_prob, log_prob, np.ones(2), np.array([True, False]))
    assert (loss.values.tolist(), loss.clipped.tolist()) == ([-1.0, 0.0], [True, False])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (lambda: dataclass(frozen=True)(type("A", (ClippedSurrogate,), {})), "inherits from none of the parts here"),
        (lambda: dataclass(type("A", (Likelihood.__base__,), {"values": Likelihood.values})), "a frozen dataclass"),
        (lambda: type("A", (Likelihood,), {}), "a frozen dataclass"),
        (lambda: named("A", Likelihood, select=Likelihood.values), "singles_out to be True where there is a method"),
        (lambda: named("A", Likelihood, singles_out=True), "singles_out to be True where there is a method"),
        (lambda: named("A", Likelihood, draws=True), "singles_out to be True, since it draws"),
        (lambda: named("A", Likelihood, type=1.0, __annotations__={"type": float}), "none of them named type"),
    ],
)
def test_losses_that_cannot_work_are_refused(kind, message):
    with pytest.raises(ValueError, match=f"kind: expected .*{message}"):
        register_loss(kind())


def test_shapings_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="kind: expected compares to be True where there is a method scope"):
        register_shaping(named("A", Calm, compares=True))
    with pytest.raises(ValueError, match=r"kind: expected .*inherits from none of the parts here"):
        register_shaping(named("A", Modulation))


def test_fields_of_ones_own_are_plain():
    pair = register_shaping(named("Pair", Calm))
    with pytest.raises(ValueError, match=r"shaping.strength: expected a number, a string or None, got \(1, 2\)"):
        replace(METHODS["grpo"], shaping=pair((1, 2)))


def test_a_loss_of_ones_own_is_part_of_a_method_and_its_config():
    unknown = named("Unknown", Likelihood)
    with pytest.raises(ValueError, match=r"loss: expected one of ClippedSurrogate, ClipCov, KlCov.*, got Unknown"):
        replace(METHODS["grpo"], loss=unknown())
    assert register_loss(Likelihood) is Likelihood
    method = replace(METHODS["dynamo"], loss=Likelihood(0.5))
    assert Method.from_dict(method.to_dict()) == method
    assert not method.singles_out
    assert not method.looks_ahead("rollout-batch")
    assert method.looks_ahead("mini-batch")
    log_prob, mask = np.array([-1.0, -2.0]), np.array([True, False])
    loss = policy_loss(method.loss, log_prob, log_prob, np.ones(2), mask)
    assert (loss.values.tolist(), loss.mask.tolist(), loss.clipped.tolist()) == ([0.5, 0.0], [True, False], [False] * 2)
    ratio = np.array([1.4, 1.6])
    xi = method.loss.update_coefficient(np.log(ratio) - 2.0, np.full(2, -2.0), np.ones(2))
    np.testing.assert_allclose(xi, [1.4, 0.0])
    register_shaping(Calm)
    with pytest.raises(ValueError, match="kind: expected another name than those of the parts here, got Calm"):
        register_loss(named("Calm", Likelihood))


@fuzzing.fuzz
@given(st.sampled_from([None, 7, Likelihood(), Likelihood, int, Modulation, dict, Loss]) | st.text(max_size=3))
def test_fuzz_register_loss(kind):
    assert fuzzing.call(register_loss, kind) in (None, Likelihood)


@fuzzing.fuzz
@given(st.sampled_from([None, 7, Calm(), Calm, int, Modulation, dict]) | st.text(max_size=3))
def test_fuzz_register_shaping(kind):
    assert fuzzing.call(register_shaping, kind) in (None, Calm)


def test_a_method_of_ones_own_has_a_name():
    mine = replace(METHODS["dynamo"], loss=METHODS["clip-higher"].loss)
    with pytest.raises(ValueError, match="name: expected one of"):
        get_method("mine")
    assert register_method("mine", mine) is mine
    assert get_method("mine") is METHODS["mine"] is mine
    assert register_method("mine", METHODS["grpo"]) is METHODS["mine"]
    with pytest.raises(ValueError, match="name: expected another name than those of the methods here, got 'grpo'"):
        register_method("grpo", mine)
    with pytest.raises(ValueError, match=r"method: expected a Method, got 'mine'"):
        register_method("mine", "mine")
    with pytest.raises(ValueError, match="name: expected lower-case letters, digits and dashes, got 'seed=1 x'"):
        register_method("seed=1 x", mine)


@fuzzing.fuzz
@given(
    st.sampled_from(["grpo", "mine", "a-b", "", 7, None]) | st.text(max_size=4),
    st.sampled_from([METHODS["grpo"], Method, None, "grpo"]),
)
def test_fuzz_register_method(name, method):
    assert fuzzing.call(register_method, name, method) in (None, METHODS["grpo"])
