"""toy.training.batch_moments: exact and resampled moments against the real trainer's gradients, and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from theory.allocation.rules import ALLOCATORS, spends_in_rounds
from theory.estimators import ESTIMATORS, WReinforce, moments
from theory.losses import KlCov
from theory.losses.modulation import Modulation
from theory.methods import METHODS
from theory.policy.softmax import log_softmax
from toy.training import diagnostics, metrics
from toy.training.batch_moments import (
    batch_moments,
    exact_estimator,
    implied_weights,
    resampled_moments,
    true_gradient,
)
from toy.training.config import OptimizerConfig
from toy.training.loop import Trainer
from toy.training.step import with_advantages
from toy.worlds import WORLDS

BINARY = np.array([[0.5, 0.5], [0.9, 0.1]])
FIRST = np.array([[True, False]] * 2)


def one_world(small, num_seeds, name, **fields):
    """Return a trainer whose seeds share the first one's world and one history, in batches of all 5 prompts."""
    config = small(name, num_seeds=num_seeds, num_minibatches=1, batch_prompts=5, rollouts_low=2)
    config = replace(config, optimizer=OptimizerConfig(learning_rate=0.1, max_grad_norm=None))
    config = replace(config, world=replace(config.world, num_prompts=5, num_answers=5, num_correct=2))
    trainer = Trainer(replace(config, **fields))
    for tensor in (trainer.state.logits, trainer.setup.correct, trainer.setup.rows, trainer.setup.tokens):
        tensor[:] = tensor[:1].clone()
    trainer.setup.worlds[:] = trainer.setup.worlds[:1] * num_seeds
    for history in trainer.state.histories:
        history.update(trainer.setup.keys, [1, 40, 10, 3, 20], [80] * 5)
    return trainer


def table_of(trainer):
    """Return the policy and the correct answers of the first seed, [N, K]."""
    return log_softmax(trainer.state.logits[0]).exp().numpy(), trainer.setup.correct[0].numpy()


def step_gradients(trainer):
    """Do a step; return every seed's gradient of J in the table, [S, N, K]."""
    before = trainer.state.logits.clone()
    trainer.step()
    return ((trainer.state.logits - before) / trainer.setup.config.optimizer.learning_rate).numpy()


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
    spent = np.stack([history.counts(trainer.setup.keys)[1] for history in trainer.state.histories]) - 80
    counts = spent[0].astype(np.int64)
    assert (spent == counts).all()
    assert len(set(counts.tolist())) >= 4

    estimator = exact_estimator(method)
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
    if spends_in_rounds(ALLOCATORS[rule]):
        fields = {"rollouts": 12, "rollouts_high": 24}  # Enough for a second round: counts follow outcomes.
    trainer = one_world(small, 1500, name, method=replace(METHODS[name], allocator=rule), diagnose_every=1, **fields)
    objective = objective_of(trainer)
    logits = trainer.state.logits[:1].clone()
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

    def record(*args):
        seen.append(with_advantages(*args))
        return seen[-1]

    for module in ("step", "diagnostics"):
        monkeypatch.setattr(f"toy.training.{module}.with_advantages", record)
    monkeypatch.setattr(diagnostics, "NUM_RESAMPLES", 5)
    for rule, fixed in (("neyman", True), ("reinforce-ada", False)):
        method = replace(METHODS["dynamo"], allocator=rule)
        one_world(small, 2, "dynamo", method=method, diagnose_every=1, rollouts=12, rollouts_high=24).step()
        assert len({batch.actions.numpy().tobytes() for batch in seen}) == len(seen) == 6
        assert (len({batch.counts.tobytes() for batch in seen}) == 1) == fixed
        seen.clear()


def objective_of(trainer):
    """Return the mean success probability of the first seed's prompts under logits [1, R, K]."""
    rest = (trainer.setup.correct[:1], trainer.setup.rows[:1], trainer.setup.tokens[:1])
    return lambda logits: metrics.evaluate(logits, *rest)["pass_at_1"][0]


def numerical_gradient(logits, objective, step=1e-5):
    """Return central differences of the objective at logits [1, R, K], [R, K]."""
    found = np.zeros(logits.shape[1:])
    for at in np.ndindex(found.shape):
        shift = torch.zeros_like(logits)
        shift[0][at] = step
        found[at] = (objective(logits + shift) - objective(logits - shift)) / (2 * step)
    return found


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
    assert exact_estimator(grpo) == "grpo_sample"
    for name in ("rloo", "dr_grpo", "reinforce", "maxrl"):
        assert exact_estimator(replace(grpo, advantage=name)) == name
    assert exact_estimator(replace(METHODS["dynamo"], shaping=None)) == "grpo_sample"
    exact = [name for name, method in METHODS.items() if exact_estimator(method)]
    assert exact == ["grpo", "clip-higher"]
    for change in ({"shaping": Modulation()}, {"loss": KlCov()}, {"advantage": WReinforce(0.1)}):
        assert exact_estimator(replace(grpo, **change)) is None
    in_rounds = {n for n in ALLOCATORS if exact_estimator(replace(grpo, allocator=n)) is None}
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
    found = true_gradient(pi.detach().numpy(), correct.numpy())
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-15)
    assert np.abs(found[:, :, 1]).max() < 1e-15


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
