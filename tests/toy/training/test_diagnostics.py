"""toy.training.diagnostics: the exact moments against the real trainer's gradients, by hand, and seed by seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from theory import allocation
from theory.allocation.rules import ALLOCATORS
from theory.estimators import ESTIMATORS, moments
from theory.losses.aggregation import AGGREGATIONS
from theory.losses.modulation import Modulation
from theory.losses.surrogate import KlCov
from theory.methods import METHODS, WReinforce
from theory.policy.softmax import log_softmax
from toy.training import diagnostics, metrics
from toy.training.config import OptimizerConfig
from toy.training.diagnostics import batch_moments, diagnose, implied_weights, resampled_moments
from toy.training.loop import Trainer, train
from toy.worlds.tabular import WORLDS

BINARY = np.array([[0.5, 0.5], [0.9, 0.1]])
FIRST = np.array([[True, False]] * 2)


def one_world(small, num_seeds, name, **fields):
    """Return a trainer whose seeds share the first one's world and one history, in batches of all 5 prompts."""
    config = small(name, num_seeds=num_seeds, num_minibatches=1, batch_prompts=5, rollouts_low=2)
    config = replace(config, optimizer=OptimizerConfig(learning_rate=0.1, max_grad_norm=None))
    config = replace(config, world=replace(config.world, num_prompts=5, num_answers=5, num_correct=2))
    trainer = Trainer(replace(config, **fields))
    for tensor in (trainer.logits, trainer.correct, trainer.rows, trainer.tokens):
        tensor[:] = tensor[:1].clone()
    trainer.worlds[:] = trainer.worlds[:1] * num_seeds
    for history in trainer.histories:
        history.update(trainer.keys, [1, 40, 10, 3, 20], [80] * 5)
    return trainer


def table_of(trainer):
    """Return the policy and the correct answers of the first seed, [N, K]."""
    return log_softmax(trainer.logits[0]).exp().numpy(), trainer.correct[0].numpy()


def step_gradients(trainer):
    """Do a step; return every seed's gradient of J in the table, [S, N, K]."""
    before = trainer.logits.clone()
    trainer.step()
    return ((trainer.logits - before) / trainer.config.optimizer.learning_rate).numpy()


def agree(samples, expected, *, within):
    """Require a mean of `expected` within 4 standard errors, which must be less than `within` of it."""
    error = 4 * samples.std(ddof=1) / np.sqrt(len(samples))
    assert abs(samples.mean() - expected) < error
    assert error < within * abs(expected), "the test could not see an error of this size"
    return error


@pytest.mark.parametrize(
    ("advantage", "aggregation"),
    [
        ("grpo", "token-mean"),
        ("grpo", "prompt-mean"),
        ("rloo", "sequence-mean"),
        ("dr_grpo", "prompt-mean"),
        ("reinforce", "token-mean"),
        ("maxrl", "prompt-mean"),
    ],
)
def test_exact_moments_are_those_of_the_trainers_gradient(advantage, aggregation, small):
    """2,500 seeds of the real trainer, unequal groups from a history, within 4 standard errors each.

    The errors are below 15 % of the variance, MSE and progress; the wrong aggregation, or equal groups, would show.
    """
    method = replace(METHODS["grpo"], advantage=advantage, aggregation=aggregation, allocator="neyman")
    trainer, diagnosed = (
        one_world(small, num, "grpo", method=method, diagnose_every=every) for num, every in ((2500, 0), (2, 1))
    )
    probs, correct = table_of(trainer)
    gradients = step_gradients(trainer)
    spent = np.stack([history.counts(trainer.keys)[1] for history in trainer.histories]) - 80
    counts = spent[0].astype(np.int64)
    assert (spent == counts).all()
    assert len(set(counts.tolist())) >= 4

    estimator = diagnostics.exact_estimator(method)
    found = batch_moments(probs, correct, counts, aggregation, estimator)
    truth = moments.gradient_moments(probs, correct, 8, "rloo").true_gradient / 5
    weights = implied_weights(probs[correct].reshape(5, 2).sum(-1), counts, aggregation, estimator)
    mean = weights[:, None] * truth
    error = gradients.std(axis=0, ddof=1) / np.sqrt(len(gradients))
    assert (np.abs(gradients.mean(0) - mean) < 4 * error + 1e-5).all()

    diagnosed.step()
    for name, value in found._asdict().items():
        np.testing.assert_allclose(diagnosed.metrics[f"gradient_{name}"][-1], value, rtol=1e-9, atol=1e-15)
    variance_error = agree(np.square(gradients - mean).sum((1, 2)), found.variance, within=0.15)
    agree(np.square(gradients - truth).sum((1, 2)), found.mse, within=0.15)
    second_moment = np.square(mean).sum() + found.variance
    progress = found.cosine * np.sqrt(np.square(truth).sum() * second_moment)
    agree((gradients * truth).sum((1, 2)), progress, within=0.15)

    other = "token-mean" if aggregation == "prompt-mean" else "prompt-mean"
    for wrong in (
        batch_moments(probs, correct, counts, other, estimator),
        batch_moments(probs, correct, np.full(5, 8), aggregation, estimator),
    ):
        assert max(abs(wrong.variance - found.variance), abs(wrong.mse - found.mse)) > 2 * variance_error


CHAINS = replace(WORLDS["skills"], num_prompts=5, num_skills=8, num_decisions=5, num_tokens=4, num_accepted=2)


@pytest.mark.parametrize(
    ("name", "rule", "world"),
    [
        ("dynamo", "neyman", None),
        ("w-reinforce", "uniform", None),
        ("grpo", "reinforce-ada", None),
        ("kl-cov", "uniform", None),
        ("dynamo", "uniform", replace(CHAINS, length_low=2, length_high=4)),
        ("grpo", "neyman", replace(CHAINS, length_low=2, length_high=4)),
    ],
)
def test_resampled_moments_are_those_of_the_trainers_gradient(name, rule, world, small, monkeypatch):
    """1,500 seeds whose real gradients are compared with what each found in 4 resamples of its own batch."""
    monkeypatch.setattr(diagnostics, "NUM_RESAMPLES", 4)
    fields = {} if world is None else {"world": world}
    if ALLOCATORS[rule].in_rounds:
        fields = {"rollouts": 12, "rollouts_high": 24}  # Enough for a second round: counts follow outcomes.
    trainer = one_world(small, 1500, name, method=replace(METHODS[name], allocator=rule), diagnose_every=1, **fields)
    objective = objective_of(trainer)
    logits = trainer.logits[:1].clone()
    gradients = step_gradients(trainer)
    found = {key: rows[-1] for key, rows in trainer.metrics.items()}
    mean = gradients.mean(0)
    agree(np.square(gradients - mean).sum((1, 2)) / (1 - 1 / 1500), found["gradient_variance"].mean(), within=0.2)
    truth = numerical_gradient(logits, objective)
    np.testing.assert_allclose(found["true_gradient_squared"], np.square(truth).sum(), rtol=1e-5)
    agree(np.square(gradients - truth).sum((1, 2)), found["gradient_mse"].mean(), within=0.2)


def test_resamples_are_fresh(small, monkeypatch):
    """No resample repeats another one, or the step's own rollouts; rules that fix counts keep them, others decide."""
    seen = []
    draw = Trainer._batch

    def record(*args):
        seen.append(draw(*args))
        return seen[-1]

    monkeypatch.setattr(Trainer, "_batch", record)
    monkeypatch.setattr(diagnostics, "NUM_RESAMPLES", 5)
    for rule, fixed in (("neyman", True), ("reinforce-ada", False)):
        method = replace(METHODS["dynamo"], allocator=rule)
        one_world(small, 2, "dynamo", method=method, diagnose_every=1, rollouts=12, rollouts_high=24).step()
        assert len({batch.actions.numpy().tobytes() for batch, _, _ in seen}) == len(seen) == 6
        assert (len({counts.tobytes() for _, _, counts in seen}) == 1) == fixed
        seen.clear()


def objective_of(trainer):
    """Return the mean success probability of the first seed's prompts under logits [1, R, K]."""
    rest = (trainer.correct[:1], trainer.rows[:1], trainer.tokens[:1])
    return lambda logits: metrics.evaluate(logits, *rest)["pass_at_1"][0]


def numerical_gradient(logits, objective, step=1e-5):
    """Return central differences of the objective at logits [1, R, K], [R, K]."""
    found = np.zeros(logits.shape[1:])
    for at in np.ndindex(found.shape):
        shift = torch.zeros_like(logits)
        shift[0][at] = step
        found[at] = (objective(logits + shift) - objective(logits - shift)) / (2 * step)
    return found


@pytest.mark.parametrize("method", ["grpo", "dynamo", "clip-cov"])
def test_diagnosing_changes_nothing_else(method, small, monkeypatch):
    """Every second step has the diagnostics, the others have none, and all other numbers keep their bits."""
    monkeypatch.setattr(diagnostics, "NUM_RESAMPLES", 4)
    plain, told = (train(small(method, diagnose_every=every)) for every in (0, 2))
    np.testing.assert_array_equal(plain.logits, told.logits)
    for name in metrics.METRICS:
        if name not in metrics.DIAGNOSTICS:
            np.testing.assert_array_equal(plain.metrics[name], told.metrics[name])
            continue
        assert np.isnan(plain.metrics[name]).all()
        assert np.isnan(told.metrics[name][:, [0, 1, 3, 5]]).all()
    for name in ("gradient_variance", "gradient_cosine", "true_gradient_squared", "allocation_regret"):
        assert np.isfinite(told.metrics[name][:, 2::2]).all()


@pytest.mark.parametrize("world", ["mixed", "skills"])
def test_a_diagnosed_seed_does_not_depend_on_its_neighbours(world, small, monkeypatch):
    monkeypatch.setattr(diagnostics, "NUM_RESAMPLES", 4)
    config = small("dynamo", world, num_steps=3, diagnose_every=1)
    together = train(config)
    for first, num in ((0, 1), (1, 2)):
        alone = train(replace(config, first_seed=first, num_seeds=num))
        for name, values in alone.metrics.items():
            np.testing.assert_array_equal(values, together.metrics[name][first : first + num], err_msg=name)


def test_the_history_is_the_one_before_the_step(small):
    """At the first visit of a prompt nothing is known; at the second, what the first has shown."""
    run = train(small("grpo", diagnose_every=1))
    assert np.isnan(run.metrics["estimate_error"][:, 1:3]).all()
    assert (run.metrics["estimate_error"][:, 3:] > 0).all()


def test_an_oracle_has_no_regret(small):
    for rule, regretful in (("oracle-variance", False), ("uniform", True)):
        config = small("grpo", diagnose_every=1)
        run = train(replace(config, method=replace(config.method, allocator=rule)))
        assert (run.metrics["allocation_regret"][:, 1:] > 1e-6).all() == regretful
        if not regretful:
            assert (run.metrics["allocation_regret"][:, 1:] == 0.0).all()


def test_wasted_rollouts_by_hand():
    assert metrics.wasted(np.array([[0, 2, 6]]), np.array([[4, 6, 6]])).tolist() == [10 / 16]


def test_moments_by_hand():
    """Two answers, RLOO, n = 2: g is d / 2 with d = (1, -1) if the two rewards differ, else 0.

    So E g = 2 p q d / 2 = grad p, and the variance is |d|^2 (2 p q / 4 - (p q)^2) = p q - 2 (p q)^2.
    """
    pq = np.array([0.25, 0.09])
    found = batch_moments(BINARY, FIRST, np.array([2, 2]), "token-mean", "rloo")
    np.testing.assert_allclose(found.variance, (pq - 2 * pq**2).sum() / 4)
    np.testing.assert_allclose(found.bias_squared, 0.0, atol=1e-30)
    np.testing.assert_allclose(found.mse, found.variance)
    np.testing.assert_allclose(found.alignment, 1.0)
    truth = 2 * np.square(pq).sum() / 4
    np.testing.assert_allclose(found.cosine, truth / np.sqrt(truth * (truth + found.variance)))


def test_bias_by_hand():
    """Dr.GRPO has w = (n - 1) / n; token-mean makes the weight of a prompt n_i / sum n, its due being 1/2."""
    counts = np.array([2, 6])
    weights = implied_weights(np.array([0.5, 0.9]), counts, "token-mean", "dr_grpo")
    np.testing.assert_allclose(weights, [2 * 2 / 8 * 1 / 2, 2 * 6 / 8 * 5 / 6])
    np.testing.assert_allclose(implied_weights(np.array([0.5, 0.9]), counts, "prompt-mean", "dr_grpo"), [1 / 2, 5 / 6])
    found = batch_moments(BINARY, FIRST, counts, "token-mean", "dr_grpo")
    squares = 2 * np.array([0.25, 0.09]) ** 2 / 4  # of the parts of grad J
    np.testing.assert_allclose(found.bias_squared, ((weights - 1) ** 2 * squares).sum())
    cosine = (weights * squares).sum() / np.sqrt((weights**2 * squares).sum() * squares.sum())
    np.testing.assert_allclose(found.alignment, cosine)


def test_a_prompt_without_rollouts_is_missed():
    """It counts in J and not in g; prompt-mean then averages over the other prompts."""
    np.testing.assert_allclose(implied_weights(np.array([0.5, 0.9]), np.array([0, 4]), "prompt-mean", "rloo"), [0, 2])
    found = batch_moments(BINARY, FIRST, np.array([0, 4]), "token-mean", "rloo")
    np.testing.assert_allclose(found.bias_squared, 2 * (0.25**2 + 0.09**2) / 4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_where_nothing_can_be_learnt_all_is_zero_but_defined(estimator):
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = batch_moments(certain, FIRST, np.array([4, 4]), "prompt-mean", estimator)
    assert all(np.isfinite(x) for x in found)
    assert found.bias_squared == found.cosine == found.alignment == 0.0


def test_the_estimator_is_named_after_the_method():
    grpo = METHODS["grpo"]
    assert diagnostics.exact_estimator(grpo) == "grpo_sample"
    for name in ("rloo", "dr_grpo", "reinforce", "maxrl"):
        assert diagnostics.exact_estimator(replace(grpo, advantage=name)) == name
    assert diagnostics.exact_estimator(replace(METHODS["dynamo"], shaping=None)) == "grpo_sample"
    exact = [name for name, method in METHODS.items() if diagnostics.exact_estimator(method)]
    assert exact == ["grpo", "clip-higher"]
    for change in ({"shaping": Modulation()}, {"loss": KlCov()}, {"advantage": WReinforce(0.1)}):
        assert diagnostics.exact_estimator(replace(grpo, **change)) is None
    in_rounds = {n for n in ALLOCATORS if diagnostics.exact_estimator(replace(grpo, allocator=n)) is None}
    assert in_rounds == {"dars", "reinforce-ada", "pilot-commit"}


def test_resamples_find_the_moments_without_bias():
    """400 batches of 8 resamples each from a known law; the bias of the naive plug-ins would be 1/8 of the variance."""
    rng = np.random.default_rng(5)
    truth, mean, std = np.array([1.0, 2.0, 0.0]), np.array([1.2, 1.0, 0.3]), np.array([0.5, 1.0, 2.0])
    truths = np.tile(truth, (400, 1))
    found = resampled_moments(lambda: rng.normal(mean, std, (400, 3)), truths, 8)
    variance, bias = np.square(std).sum(), np.square(mean - truth).sum()
    agree(found.variance, variance, within=0.1)
    agree(found.mse, variance + bias, within=0.1)
    np.testing.assert_allclose(found.mse, found.variance + found.bias_squared)
    error = 4 * found.bias_squared.std(ddof=1) / 20
    assert abs(found.bias_squared.mean() - bias) < error < variance / 8
    many = resampled_moments(lambda: rng.normal(mean, std, (4, 3)), truths[:4], 4000)
    second = np.sqrt(np.square(mean).sum() + variance)
    np.testing.assert_allclose(many.cosine, (mean @ truth) / (np.linalg.norm(truth) * second), atol=0.03)
    cosine = (mean @ truth) / (np.linalg.norm(truth) * np.linalg.norm(mean))
    np.testing.assert_allclose(many.alignment, cosine, atol=0.03)


def test_resamples_of_a_constant_have_no_variance():
    truth = np.array([[3.0, 4.0]])
    found = resampled_moments(lambda: 2 * truth, truth, 2)
    assert [float(x[0]) for x in found] == [0.0, 25.0, 25.0, 1.0, 1.0]


def test_true_gradient_is_that_of_autograd():
    """Chains of three tokens, one of them a filler (every token is fine)."""
    rng = np.random.default_rng(2)
    logits = torch.from_numpy(rng.normal(size=(2, 4, 3, 5))).requires_grad_()
    correct = torch.from_numpy(rng.random((2, 4, 3, 5)) < 0.5)
    correct[..., 0] = True
    correct[:, :, 1] = True
    pi = log_softmax(logits).exp()
    objective = (pi * correct).sum(-1).prod(-1).mean(-1).sum()
    (expected,) = torch.autograd.grad(objective, logits)
    found = diagnostics.true_gradient(pi.detach().numpy(), correct.numpy())
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-15)
    assert np.abs(found[:, :, 1]).max() < 1e-15


def test_proxies_are_the_rules_own():
    successes, attempts, exact = np.array([2.0, 4.0, 1.0]), np.array([8.0, 8.0, 3.0]), np.array([1.0, 2.0, 3.0])
    known = allocation.bernoulli_variance([2, 4], [8, 8])
    for rule in ("dynamo", "dynamo-code", "neyman"):
        found = diagnostics.proxy_variances(rule, successes, attempts, exact)
        np.testing.assert_allclose(found, [*known, known.mean()])
        np.testing.assert_allclose(diagnostics.proxy_variances(rule, successes * 0, attempts * 0, exact), 1.0)
    for rule in ("gvm", "vip", "knapsack", "cures"):
        found = diagnostics.proxy_variances(rule, successes, attempts, exact)
        np.testing.assert_allclose(found, [0.3 * 0.7, 0.25, 0.4 * 0.6])
    assert diagnostics.proxy_variances("oracle-variance", successes, attempts, exact) is exact
    for rule in ("uniform", "oracle-progress", "dars", "reinforce-ada", "pilot-commit"):
        assert diagnostics.proxy_variances(rule, successes, attempts, exact) is None


def test_regret_is_zero_for_the_oracle_and_never_below():
    rng = np.random.default_rng(1)
    for _ in range(50):
        variances = rng.exponential(size=6)
        counts = rng.multinomial(60 - 6 * 3, np.ones(6) / 6) + 3
        high = int(counts.max())
        assert diagnostics.regret(variances, counts, 3, high) >= 0.0
        best = allocation.optimal(variances, 60, 3, high)
        assert diagnostics.regret(variances, best, 3, high) == 0.0
    assert diagnostics.regret(np.zeros(2), np.array([1, 7]), 1, 8) == 0.0
    assert np.isnan(diagnostics.regret(np.ones(2), np.array([0, 8]), 0, 8))


def batch(num_seeds=5, num_prompts=6, num_answers=8):
    rng = np.random.default_rng(3)
    probs = rng.dirichlet(np.full(num_answers, 0.4), (num_seeds, num_prompts, 1))
    correct = rng.random(probs.shape) < 0.4
    correct[..., 0], correct[..., 1] = True, False
    counts = rng.integers(2, 12, (num_seeds, num_prompts))
    attempts = np.where(rng.random(counts.shape) < 0.2, 0.0, rng.integers(4, 40, counts.shape))
    variances = moments.single_rollout_variance(probs[:, :, 0], correct[:, :, 0])
    return probs, correct, counts, (np.floor(attempts * rng.random(counts.shape)), attempts), variances


@pytest.mark.parametrize("method", ["grpo", "dynamo"])
def test_seeds_do_not_touch_each_other(method):
    """To the bit, on both ways."""
    probs, correct, counts, history, variances = batch()
    noise = np.random.default_rng(4).normal(size=(diagnostics.NUM_RESAMPLES, *probs.shape))

    def of(part):
        draws = iter(noise[:, part])
        known = tuple(x[part] for x in history)
        arrays = (probs[part], correct[part], counts[part], known, variances[part])
        chosen = replace(METHODS[method], allocator="neyman")
        return diagnose(chosen, (2, 12), *arrays, lambda: next(draws), np.copy)

    together = of(slice(None))
    assert set(together) == set(metrics.DIAGNOSTICS)
    for s in range(5):
        for name, value in of(slice(s, s + 1)).items():
            np.testing.assert_array_equal(value, together[name][s : s + 1], err_msg=name)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_what_diagnose_reports(aggregation):
    """Every number against the functions above; nothing is resampled where it is exact."""
    probs, correct, counts, history, variances = batch()
    method = replace(METHODS["grpo"], allocator="vip", aggregation=aggregation)
    arrays = (probs, correct, counts, history, variances)
    found = diagnose(method, (2, 12), *arrays, lambda: pytest.fail("resampled"), np.copy)
    for s in range(5):
        pi, right, n = probs[s, :, 0], correct[s, :, 0], counts[s]
        p = (pi * right).sum(-1)
        exact = batch_moments(pi, right, n, aggregation, "grpo_sample")
        for name, value in exact._asdict().items():
            assert found[f"gradient_{name}"][s] == value
        weights = implied_weights(p, n, aggregation, "grpo_sample")
        np.testing.assert_allclose(found["implied_weight_min"][s], weights.min())
        np.testing.assert_allclose(found["implied_weight_max"][s], weights.max())
        np.testing.assert_allclose(found["implied_weight_share"][s], weights.mean() ** 2 / np.square(weights).mean())
        truth = moments.gradient_moments(pi, right, n).true_gradient / 6
        np.testing.assert_allclose(found["true_gradient_squared"][s], np.square(truth).sum())
        guess = (history[0][s] + 1) / (history[1][s] + 2)
        predicted = allocation.variance_ratio(guess * (1 - guess), n)
        np.testing.assert_allclose(found["variance_ratio_predicted"][s], predicted)
        assert found["allocation_regret"][s] == diagnostics.regret(variances[s], n, 2, 12) > 0
        seen = history[1][s] > 0
        errors = (history[0][s] / np.maximum(history[1][s], 1) - p)[seen]
        np.testing.assert_allclose(found["estimate_error"][s], np.abs(errors).mean())
        np.testing.assert_allclose(found["estimate_bias"][s], errors.mean())


def test_equal_groups_have_the_variance_of_equal_groups():
    probs, correct, counts, history, variances = batch()
    equal = np.full_like(counts, 8)
    for rule, predicted in (("neyman", 1.0), ("uniform", np.nan)):
        method = replace(METHODS["grpo"], allocator=rule)
        found = diagnose(method, (2, 12), probs, correct, equal, history, variances, np.zeros, np.copy)
        np.testing.assert_allclose(found["variance_ratio_realized"], 1.0)
        np.testing.assert_allclose(found["variance_ratio_predicted"], predicted)


def test_what_does_not_exist_is_nan():
    probs, correct, counts, (successes, attempts), variances = batch()
    probs, correct = np.repeat(probs, 2, axis=2), np.repeat(correct, 2, axis=2)
    rng = np.random.default_rng(0)
    found = diagnose(
        METHODS["grpo"],
        (2, 12),
        probs,
        correct,
        counts,
        (successes * 0, attempts * 0),
        variances,
        lambda: rng.normal(size=probs.shape),
        np.copy,
    )
    nan = {name for name, values in found.items() if np.isnan(values).all()}
    measured = {"gradient_variance", "gradient_bias_squared", "gradient_mse", "gradient_cosine", "gradient_alignment"}
    assert nan == set(metrics.DIAGNOSTICS) - measured - {"true_gradient_squared", "allocation_regret"}
    assert all(np.isfinite(found[name]).all() for name in measured)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"aggregation": "mean"}, "aggregation: expected one of token-mean"),
        ({"estimator": "ppo"}, "estimator: expected one of reinforce"),
        ({"counts": np.array([0, 0])}, "counts: expected at least one rollout, got none"),
        ({"counts": np.array([4, -1])}, "counts: expected integers >= 0"),
        ({"counts": np.array([4])}, "counts: expected the shape of correct (2,), got (1,)"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    good = {"counts": np.array([4, 4]), "aggregation": "prompt-mean", "estimator": "rloo"}
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        batch_moments(BINARY, FIRST, **{**good, **arguments})


def test_wrong_resamples_are_named():
    with pytest.raises(ValueError, match="num_resamples: expected an integer >= 2, got 1"):
        resampled_moments(lambda: np.zeros((1, 2)), np.zeros((1, 2)), 1)
    with pytest.raises(ValueError, match=r"gradients: expected the shape of truth \(1, 2\), got \(2,\)"):
        resampled_moments(lambda: np.zeros(2), np.zeros((1, 2)), 2)
