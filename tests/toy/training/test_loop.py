"""toy.training.loop: bits, limits, the gradient against its exact mean, learning, accounts, resuming."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from theory import allocation
from theory.allocation.rules import ALLOCATORS
from theory.base import runs
from theory.estimators import moments
from theory.losses.modulation import Modulation, modulate
from theory.methods import METHODS
from theory.policy.entropy_change import update_coefficient
from theory.policy.softmax import log_softmax, token_statistics
from toy.training import checkpoint, metrics, per_seed, rollouts
from toy.training.config import OptimizerConfig, TrainConfig
from toy.training.generators import Stream, generator
from toy.training.loop import Trainer, train
from toy.training.rollouts import Outcomes


def assert_same(one, other):
    """Require two runs of the same bits."""
    np.testing.assert_array_equal(one.logits, other.logits)
    assert one.metrics.keys() == other.metrics.keys()
    for name in one.metrics:
        np.testing.assert_array_equal(one.metrics[name], other.metrics[name], err_msg=name)


def with_rule(config, name):
    return replace(config, method=replace(config.method, allocator=name))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_repeats_to_the_bit(method, small):
    run = train(small(method))
    assert set(run.metrics) == set(metrics.METRICS)
    for name, values in run.metrics.items():
        assert values.shape == (3, 7)
        # A bandit has no fillers, and diagnostics are off.
        absent = name == "entropy_fillers" or name in metrics.DIAGNOSTICS
        assert np.isfinite(values[:, 1:]).all() != absent, name
    for name in metrics.STEP:
        assert np.isnan(run.metrics[name][:, 0]).all()
    assert (run.logits != Trainer(small(method)).logits.numpy()).any()
    assert_same(run, train(small(method)))


@pytest.mark.parametrize("rule", ALLOCATORS)
def test_every_rule_is_charged_what_it_spends(rule, small):
    config = with_rule(small("grpo"), rule)
    trainer = Trainer(config)
    for _ in range(config.num_steps):
        trainer.step()
    rollouts = trainer.result()["rollouts"][:, 1:]
    budget = config.batch_prompts * config.rollouts
    assert (rollouts <= budget).all()
    assert ALLOCATORS[rule].in_rounds or (rollouts == budget).all()
    for s, history in enumerate(trainer.histories):
        successes, attempts = history.counts(trainer.keys)
        assert attempts.sum() == rollouts[s].sum()
        np.testing.assert_allclose(successes.sum(), (trainer.result()["reward"][s, 1:] * rollouts[s]).sum())


@pytest.mark.parametrize(
    "method", ["dynamo", "clip-cov", "kl-cov", "fork-tokens", "entropy-loss", "entropy-advantages"]
)
def test_a_seed_does_not_depend_on_its_neighbours(method, small):
    """Neither in short sums nor in long ones, nor with mini-batches in which some seeds have no rollout."""
    world = replace(small().world, num_prompts=40)
    config = small(method, world=world, num_seeds=5, num_steps=4, batch_prompts=16, num_minibatches=12)
    together = train(config)
    for first, num in ((0, 1), (3, 1), (2, 3)):
        alone = train(replace(config, first_seed=first, num_seeds=num))
        np.testing.assert_array_equal(alone.logits, together.logits[first : first + num])
        for name, values in alone.metrics.items():
            np.testing.assert_array_equal(values, together.metrics[name][first : first + num], err_msg=name)


def test_threads_change_no_bit(small):
    config = small(world="mixed", num_seeds=1, num_steps=2)
    config = replace(config, batch_prompts=256, world=replace(config.world, num_prompts=1200))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(train(config))
    finally:
        torch.set_num_threads(before)
    assert_same(*found)


@pytest.mark.parametrize("rule", ["reinforce-ada", "pilot-commit"])
def test_a_seed_does_not_depend_on_its_neighbours_where_spending_differs(rule, small):
    config = with_rule(small("grpo"), rule)
    together, alone = train(config), train(replace(config, first_seed=1, num_seeds=1))
    np.testing.assert_array_equal(alone.logits, together.logits[1:2])


def test_dynamo_without_allocation_and_modulation_is_grpo(small):
    off = replace(METHODS["dynamo"], allocator="uniform", shaping=Modulation(alpha=0.0))
    assert_same(train(replace(small(), method=off)), train(small("grpo")))


@pytest.mark.parametrize("part", ["allocation", "modulation"])
def test_each_part_of_dynamo_does_something(part, small):
    off = {"allocator": "uniform"} if part == "modulation" else {"shaping": Modulation(alpha=0.0)}
    run = train(replace(small(), method=replace(METHODS["dynamo"], **off)))
    assert (run.logits != train(small("grpo")).logits).any()
    if part == "modulation":
        assert (run.metrics["compensation"][:, 1:] > 1.0).any()
        assert (run.metrics["stabilization"][:, 1:] < 1.0).any()
    else:
        assert (run.metrics["allocation_concentration"][:, 1:] > 1.0).any()


def test_methods_share_their_draws(small):
    """The g-th rollout of a prompt uses the same uniform number, however many rollouts the prompt gets."""
    one, other = (Trainer(small(method)) for method in ("grpo", "dynamo"))
    np.testing.assert_array_equal(one._roll_out()[0].actions, other._roll_out()[0].actions)


@pytest.mark.parametrize("estimator", ["grpo", "rloo"])
def test_one_step_is_the_exact_expected_gradient(estimator, small):
    """Mean update of 4,000 seeds against theory.estimators.moments, component by component, within 4 standard errors.

    One mini-batch, no clip, uniform allocation: the update is the learning rate times the mean of the prompts' group
    gradients. The errors are small enough to tell the estimators apart: GRPO's mean is far from RLOO's, the gradient.
    """
    num_seeds, n, rate = 4000, 6, 0.1
    config = small(
        "grpo",
        num_seeds=num_seeds,
        num_minibatches=1,
        batch_prompts=3,
        rollouts=n,
        rollouts_low=n,
        rollouts_high=n,
        optimizer=OptimizerConfig(learning_rate=rate, max_grad_norm=None),
    )
    config = replace(
        config,
        method=replace(config.method, advantage=estimator),
        world=replace(config.world, num_prompts=3, num_answers=4, num_correct=2),
    )
    trainer = Trainer(config)
    trainer.logits[:] = trainer.logits[:1].clone()  # All seeds in the first one's world.
    trainer.correct[:] = trainer.correct[:1].clone()
    before = trainer.logits[0].clone()
    trainer.step()
    updates = (trainer.logits - before).numpy() * 3 / rate
    probs, correct = log_softmax(before).exp().numpy(), trainer.correct[0].numpy()
    exact = moments.gradient_moments(probs, correct, n, "grpo_sample" if estimator == "grpo" else estimator)
    error = np.sqrt(updates.var(axis=0, ddof=1) / num_seeds)
    assert (np.abs(updates.mean(0) - exact.mean) < 4 * error + 1e-6).all()
    np.testing.assert_allclose(updates.var(0).sum(-1), exact.variance, rtol=0.15)
    other = moments.gradient_moments(probs, correct, n, "rloo" if estimator == "grpo" else "grpo_sample").mean
    assert (np.abs(updates.mean(0) - other) > 4 * error + 1e-6).any()


@pytest.mark.parametrize("method", ["grpo", "dynamo"])
@pytest.mark.parametrize("world", ["binary", "mixed"])
def test_learning_happens(method, world, small):
    """pass@1 rises by more than 0.1 for every seed, without a loss of pass@32."""
    run = train(small(method, world, num_steps=40))
    first, last = run.metrics["pass_at_1"][:, 0], run.metrics["pass_at_1"][:, -1]
    assert (last > first + 0.1).all()
    assert (run.metrics["pass_at_32"][:, -1] > run.metrics["pass_at_32"][:, 0] - 0.02).all()


def test_adamw_learns_too(small):
    run = train(small("grpo", num_steps=40, optimizer=OptimizerConfig(name="adamw", learning_rate=0.1)))
    assert (run.metrics["pass_at_1"][:, -1] > run.metrics["pass_at_1"][:, 0] + 0.1).all()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_optimizer_steps_are_those_of_torch(name, small):
    """One seed, gradients below the norm at which clipping starts; torch.optim as the independent formula."""
    from toy.training.optimizers import Optimizer

    rng = np.random.default_rng(3)
    settings = OptimizerConfig(name=name, learning_rate=0.05, weight_decay=0.1 if name == "adamw" else 0.0)
    logits = torch.from_numpy(rng.normal(size=(1, 4, 3)))
    parameter = torch.nn.Parameter(logits.clone())
    ours = Optimizer(settings, logits)
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name]
    theirs = kind([parameter], lr=0.05, weight_decay=settings.weight_decay)
    for _ in range(5):
        gradient = torch.from_numpy(rng.normal(size=(1, 4, 3)) / 10)
        norms = ours.step(logits, gradient)
        np.testing.assert_allclose(norms, [gradient.norm()], rtol=1e-12)
        parameter.grad = gradient
        theirs.step()
    torch.testing.assert_close(logits, parameter.detach(), rtol=1e-12, atol=1e-14)


def test_gradients_are_clipped_seed_by_seed():
    from toy.training.optimizers import Optimizer

    logits = torch.zeros(2, 1, 2, dtype=torch.float64)
    gradient = torch.tensor([[[3.0, 4.0]], [[0.3, 0.4]]], dtype=torch.float64)
    norms = Optimizer(OptimizerConfig(learning_rate=1.0), logits).step(logits, gradient)
    np.testing.assert_allclose(norms, [5.0, 0.5])
    np.testing.assert_allclose(logits[:, 0], [[-0.6, -0.8], [-0.3, -0.4]], rtol=1e-6)


def test_ratios_are_real(small):
    """With one mini-batch every token is on-policy and nothing is clipped; with more, large steps are."""
    large = OptimizerConfig(learning_rate=100.0, max_grad_norm=None)
    clipped = {
        num: train(small("grpo", num_minibatches=num, optimizer=large)).metrics["clip_fraction"][:, 1:].max()
        for num in (1, 4)
    }
    assert clipped[1] == 0.0
    assert clipped[4] > 0.05


def test_minibatches_share_out_the_batch(small):
    """With tiny steps and equal parts, four updates of a quarter each add up to four times the whole's update."""
    tiny = OptimizerConfig(learning_rate=1e-7)
    moved = {}
    for num in (1, 4):
        config = small("grpo", num_minibatches=num, num_steps=1, optimizer=tiny)
        moved[num] = train(config).logits - Trainer(config).logits.numpy()
    assert np.abs(moved[1]).max() > 0
    np.testing.assert_allclose(moved[4], 4 * moved[1], rtol=1e-4, atol=1e-14)


def test_modulation_sees_the_current_ratios_and_the_clip_of_the_method(small, monkeypatch):
    seen = []

    def record(advantages, ratio, *clips):
        seen.append((float((ratio - 1).abs().max()), clips))
        return update_coefficient(advantages, ratio, *clips)

    monkeypatch.setattr("toy.training.loop.update_coefficient", record)
    train(small("dynamo", num_steps=1))
    assert [clips for _, clips in seen] == [(0.2, 0.2)] * 4
    assert seen[0][0] == 0.0
    assert min(distance for distance, _ in seen[1:]) > 0.0


def test_oracles_know_the_prompts_of_their_batch(small):
    trainer = Trainer(with_rule(small("grpo"), "oracle-variance"))
    batch, correct = np.array([7, 2, 4]), trainer.correct[1].numpy()
    probs = np.exp(log_softmax(trainer.logits[1].numpy()))
    found = trainer._knowledge(1, batch)
    np.testing.assert_array_equal(found.variances, moments.single_rollout_variance(probs, correct)[batch])
    assert found.success_rates is None
    expected = moments.expected_progress(probs, correct, 12, "grpo_sample")[batch]
    for mode, weight in (("prompt-mean", 1), ("sequence-mean", np.arange(13)), ("token-mean", np.arange(13))):
        config = with_rule(small("grpo"), "oracle-progress")
        trainer = Trainer(replace(config, method=replace(config.method, aggregation=mode)))
        np.testing.assert_array_equal(trainer._knowledge(1, batch).gains, expected * weight)


@pytest.mark.parametrize(("num_tokens", "most"), [(2, 64), (16, 64), (64, 64), (65, 64), (9, 1)])
def test_tokens_are_those_that_bisection_finds(num_tokens, most, monkeypatch):
    """NumPy's search token by token, on both sides of the limit and of a block; ties and zero probabilities too."""
    monkeypatch.setattr(rollouts, "MOST_COUNTED", most)
    monkeypatch.setattr(rollouts, "BLOCK", 100)
    rng = np.random.default_rng(num_tokens)
    log_pi = torch.from_numpy(np.log(rng.dirichlet(np.full(num_tokens, 0.5), (2, 3))))
    log_pi[0, 0, 0] = -torch.inf
    cumulative = log_pi.exp().cumsum(-1)
    cumulative = (cumulative / cumulative[..., -1:]).numpy()
    states, uniforms = torch.from_numpy(rng.integers(3, size=(2, 5, 4))), rng.random((2, 5, 4, 7))
    uniforms[0, 0, 0, 0] = cumulative[0, states[0, 0, 0], 0]
    uniforms[1, 4, 3, 6] = 0.0
    found = rollouts.sample(log_pi, states, uniforms)
    assert found.dtype == torch.int64
    assert found.is_contiguous()
    for s, q, t, g in np.ndindex(uniforms.shape):
        bounds = cumulative[s, states[s, q, t]]
        assert found[s, q, g, t] == np.searchsorted(bounds, uniforms[s, q, t, g], side="right")


def test_a_rollout_is_correct_if_all_its_tokens_are():
    """Of two tokens, of which the second prompt has one only."""
    correct = torch.tensor([[[True, False], [False, True]]])
    states, tokens = torch.tensor([[[0, 1], [0, 1]]]), torch.tensor([[[True, True], [True, False]]])
    actions = torch.tensor([[[[0, 1], [0, 0], [1, 1]]] * 2])
    assert rollouts.judge(correct, states, tokens, actions).tolist() == [[[True, False, False], [True, True, False]]]


def test_outcomes_are_revealed_in_order():
    outcomes = Outcomes(np.array([[True, False, True], [False, False, True]]))
    assert outcomes.reveal(np.array([1, 2])).tolist() == [1, 0]
    assert outcomes.reveal(np.array([2, 1])).tolist() == [1, 1]
    assert outcomes.successes(np.array([2, 3])).tolist() == [1, 1]


def test_epochs_reuse_the_batch(small):
    one, two = (train(small("grpo", num_epochs=num)) for num in (1, 2))
    np.testing.assert_array_equal(one.metrics["rollouts"], two.metrics["rollouts"])
    assert (two.metrics["pass_at_1"][:, -1].mean()) > one.metrics["pass_at_1"][:, -1].mean()


def test_an_epoch_visits_every_prompt_once(small):
    trainer = Trainer(small("grpo"))
    seen = []
    for _ in range(4):
        seen.append(trainer._prompts())
        trainer.step()
    for s in range(3):
        first, second = (np.concatenate([batch[s] for batch in seen[i : i + 2]]) for i in (0, 2))
        assert sorted(first) == sorted(second) == list(range(12))
        assert (first != second).any()


def test_streams_are_independent():
    draws = {generator(seed, stream, step).random() for seed in range(4) for stream in Stream for step in range(4)}
    assert len(draws) == 4 * len(Stream) * 4


def test_metrics_by_hand():
    logits = torch.log(torch.tensor([[[0.5, 0.5], [0.9, 0.1]]], dtype=torch.float64))
    correct = torch.tensor([[[True, False], [False, True]]])
    found = metrics.evaluate(logits, correct)
    np.testing.assert_allclose(found["pass_at_1"], [0.3])
    np.testing.assert_allclose(found["pass_at_32"], [(1 - 0.5**32 + 1 - 0.9**32) / 2])
    np.testing.assert_allclose(found["entropy"], [(np.log(2) - 0.9 * np.log(0.9) - 0.1 * np.log(0.1)) / 2])
    np.testing.assert_allclose(metrics.concentration(np.array([[4, 4], [8, 0]])), [1.0, 2.0])


# Folders


@pytest.mark.parametrize("method", ["dynamo", "clip-cov"])
@pytest.mark.parametrize("optimizer", [OptimizerConfig(), OptimizerConfig(name="adamw", learning_rate=0.1)])
def test_2n_steps_are_n_steps_saved_loaded_and_n_more(method, optimizer, small, tmp_path):
    config = small(method, optimizer=optimizer, history_discount=0.9, num_steps=8)
    train(replace(config, num_steps=4), out=tmp_path)
    assert_same(train(config, out=tmp_path), train(config))


def test_a_folder_holds_config_metrics_and_versions(small, tmp_path):
    config = small()
    steps = []
    run = train(config, out=tmp_path / "a" / "run", progress=lambda step, value: steps.append((step, value)))
    found = runs.read_run(tmp_path / "a" / "run")
    assert type(config).from_dict(found.config) == config
    assert found.metrics.column_names == ["seed", "step", *metrics.METRICS]
    table = found.metrics.to_pandas()
    assert table["seed"].tolist() == [seed for seed in config.seeds for _ in range(7)]
    assert table["step"].tolist() == list(range(7)) * 3
    np.testing.assert_array_equal(table["pass_at_1"].to_numpy().reshape(3, 7), run.metrics["pass_at_1"])
    assert found.metrics["reward"].null_count == 3
    assert {"python", "numpy", "torch", "dynamo-testbed", "seeds", "seconds"} <= set(found.versions)
    assert found.versions["seeds"] == [0, 1, 2]
    assert [step for step, _ in steps] == list(range(1, 7))
    assert steps[-1][1] == run.metrics["pass_at_1"][:, -1].mean()
    assert sorted(path.name for path in (tmp_path / "a" / "run").iterdir()) == sorted(
        [runs.CONFIG_FILE, runs.METRICS_FILE, runs.VERSIONS_FILE, checkpoint.NAME]
    )


def test_a_finished_run_is_read_not_repeated(small, tmp_path):
    first = train(small(), out=tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    steps = []
    assert_same(train(small(), out=tmp_path, progress=lambda step, value: steps.append(step)), first)
    assert steps == []
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_run_cut_before_its_last_file_is_completed(small, tmp_path):
    first = train(small(), out=tmp_path)
    (tmp_path / runs.VERSIONS_FILE).unlink()
    (tmp_path / runs.METRICS_FILE).unlink()
    assert_same(train(small(), out=tmp_path), first)
    assert runs.read_run(tmp_path).metrics.num_rows == 21


def test_a_foreign_config_is_refused_by_name(small, tmp_path):
    train(small(), out=tmp_path)
    for change, name in (({"rollouts_high": 10}, "rollouts_high"), ({"num_seeds": 2}, "num_seeds")):
        with pytest.raises(ValueError, match=f"config.json: expected a run of the same config.*differs in {name};"):
            train(replace(small(), **change), out=tmp_path)
    (tmp_path / runs.CONFIG_FILE).unlink()
    with pytest.raises(ValueError, match=r"checkpoint.npz: expected a run of the same config.*differs in method"):
        train(small("grpo"), out=tmp_path)
    with pytest.raises(ValueError, match="num_steps: expected at least the 6 done"):
        train(small(num_steps=5), out=tmp_path)


def test_a_damaged_checkpoint_is_refused_by_name(small, tmp_path):
    train(small(), out=tmp_path)
    path = tmp_path / checkpoint.NAME
    whole = path.read_bytes()
    damaged = [whole[: int(len(whole) * share)] for share in (0.0, 0.0001, 0.3, 0.7, 0.999)]
    middle = len(whole) // 2
    damaged.append(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"checkpoint.npz: expected a whole checkpoint, got a truncated or damaged"
        ):
            train(small(), out=tmp_path)
    path.write_bytes(whole)
    train(small(), out=tmp_path)


def test_a_checkpoint_that_lacks_something_is_refused_by_name(small, tmp_path):
    train(small(), out=tmp_path)
    path = tmp_path / checkpoint.NAME
    arrays, data = checkpoint.load(path)
    for name in ("config", "histories", "num_steps", "logits", "metrics.reward"):
        checkpoint.save(
            path, {k: x for k, x in arrays.items() if k != name}, {k: x for k, x in data.items() if k != name}
        )
        with pytest.raises(ValueError, match=rf"checkpoint.npz: expected a checkpoint .*, got one without {name}"):
            train(small(), out=tmp_path)


def test_a_run_tells_all_the_software_that_it_was_made_with(small, tmp_path, monkeypatch):
    now = runs.software()
    monkeypatch.setattr(runs, "software", lambda: {**now, "torch": "1.0"})
    train(small(num_steps=2), out=tmp_path)
    monkeypatch.undo()
    for num_steps in (4, 6):
        train(small(num_steps=num_steps), out=tmp_path)
        found = runs.read_json(tmp_path / runs.VERSIONS_FILE)
        assert found["torch"] == now["torch"]
        assert found["earlier"] == [{**now, "torch": "1.0", "device": "cpu"}]
    assert checkpoint.load(tmp_path / checkpoint.NAME)[1]["software"][-1] == {**now, "device": "cpu"}


def test_a_checkpoint_of_newer_code_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    train(small(), out=tmp_path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="expected checkpoint version 1, got 2"):
        train(small(), out=tmp_path)


def test_unusable_folders_are_named(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"out: expected a folder, got .*file"):
        train(small(), out=tmp_path / "file")
    with pytest.raises(ValueError, match="checkpoint_every: expected an integer >= 1, got 0"):
        train(small(), checkpoint_every=0)
    for name, content in ((runs.CONFIG_FILE, "[]"), (runs.CONFIG_FILE, "{")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=r"config.json: expected a"):
            train(small(), out=tmp_path)
    (tmp_path / runs.VERSIONS_FILE).write_text("{}")
    with pytest.raises(ValueError, match=r"metrics.parquet: expected a readable Parquet file"):
        runs.read_run(tmp_path)


def test_true_success_rates_are_what_the_rule_goes_by():
    """The rule's counts from exact p, on a first step, where a history knows nothing."""
    config = TrainConfig.named("dynamo-only-dra", "mixed", num_seeds=2, num_steps=1, success_rates="true")
    trainer = Trainer(config)
    prompts = trainer._prompts()
    counts = trainer._allocate(prompts, np.zeros((2, 64, 24), dtype=bool))
    for s, world in enumerate(trainer.worlds):
        p = world.success_probability(world.logits)[prompts[s]]
        expected = allocation.water_level(p * (1 - p), 64 * 16, 8, 24)
        assert counts[s].tolist() == expected.tolist()
    blind = Trainer(replace(config, success_rates="history"))
    assert (blind._allocate(prompts, np.zeros((2, 64, 24), dtype=bool)) == 16).all()


@pytest.mark.parametrize("minibatch", ["rollouts", "prompts"])
def test_normalizers_of_a_few_prompts(minibatch):
    """Blocks of prompts are batches of their own; one block of all prompts is the mini-batch."""
    fields = {"num_seeds": 2, "num_steps": 2, "batch_prompts": 16, "minibatch": minibatch}
    config = TrainConfig.named("dynamo", "skills", **fields)
    found = {n: train(replace(config, normalizer_prompts=n)).logits for n in (1, 4)}
    assert not np.array_equal(found[1], found[4])
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(2, 8, 3, 2, 5)))
    stats = token_statistics(logits, torch.from_numpy(rng.integers(5, size=(2, 8, 3, 2))))
    xi, mask = torch.from_numpy(rng.normal(size=(2, 8, 3, 2))), torch.from_numpy(rng.random((2, 8, 3, 2)) < 0.7)
    scope = per_seed.scope_by_prompts(stats, xi, mask, "vocabulary", 4)
    result = modulate(xi, stats, mask, Modulation(), scope=scope)
    for s in range(2):
        for block in (slice(0, 4), slice(4, 8)):
            part = type(stats)(*(x[s, block] for x in stats))
            alone = modulate(xi[s, block], part, mask[s, block], Modulation())
            assert torch.equal(result.advantages[s, block], alone.advantages)
    with pytest.raises(ValueError, match="normalizer_prompts: expected a divisor of the mini-batch's"):
        replace(config, normalizer_prompts=3)
