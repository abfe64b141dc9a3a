"""toy.training.row_defects: what a trainer that matches rows by position does, against lists of rows."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tests.toy.helpers import assert_same, watched_step, with_rule
from theory.allocation import Problem, allocate, get_allocator
from theory.base import files, runs
from toy.training import checkpoint, row_defects
from toy.training.generators import Stream, generator
from toy.training.loop import Trainer, require_same, train
from toy.training.step import draw_prompts, roll_out


def rows_of(batch, s: int) -> list[tuple[int, int]]:
    """Return the batch's rows, prompt by prompt: the prompt, and which of its rollouts."""
    return [(q, g) for q, count in enumerate(batch.counts[s]) for g in range(count)]


def is_correct(world, actions, own: int, judge: int) -> bool:
    """Return whether a response to one prompt is right by the ground truth of another, token by token."""
    if world.mask[own].sum() < world.mask[judge].sum():
        return False
    rows = world.rows[judge][world.mask[judge]]
    return all(bool(world.correct[row, token]) for row, token in zip(rows, actions, strict=False))


def after_unequal_counts(config) -> Trainer:
    """Return a trainer whose next step has unequal counts: every prompt was seen twice."""
    trainer = Trainer(config)
    for _ in range(4):
        trainer.step()
    return trainer


@pytest.mark.parametrize("world", ["mixed", "skills"])
@pytest.mark.parametrize("defects", ["none", "expansion"])
def test_a_step_is_that_of_two_lists_of_rows(world, defects, small):
    """One list has the responses, expanded by their counts; the other the prompts, expanded by the mean of 8."""
    trainer = after_unequal_counts(small("dynamo", world, row_defects=defects))
    before = [np.stack(history.counts(trainer.setup.keys)) for history in trainer.state.histories]
    batch, measured = watched_step(trainer)
    assert not (batch.counts == 8).all()
    foreign = 0
    for s, world_of_seed in enumerate(trainer.setup.worlds):
        rows = rows_of(batch, s)
        owners = [q for q, _ in rows]
        if defects == "expansion":
            owners = [q for q in range(6) for _ in range(8)]
        assert len(owners) == len(rows) == 48
        rewards = [
            is_correct(world_of_seed, batch.actions[s, q, g].numpy(), batch.prompts[s, q], batch.prompts[s, owner])
            for (q, g), owner in zip(rows, owners, strict=True)
        ]
        foreign += sum(q != owner for (q, _), owner in zip(rows, owners, strict=True))
        told = np.stack(trainer.state.histories[s].counts(trainer.setup.keys)) - before[s]
        for owner, prompt in enumerate(batch.prompts[s]):
            group = [reward for reward, each in zip(rewards, owners, strict=True) if each == owner]
            assert (batch.successes[s, owner], batch.sizes[s, owner]) == (sum(group), len(group))
            assert told[:, prompt].tolist() == [sum(group), len(group)]
        for (q, g), owner, reward in zip(rows, owners, rewards, strict=True):
            group = np.array([r for r, each in zip(rewards, owners, strict=True) if each == owner], dtype=float)
            expected = (reward - group.mean()) / (group.std(ddof=1) + 1e-6)
            np.testing.assert_allclose(batch.advantages[s, q, g, 0], expected, atol=1e-9)
        assert measured["reward"][s] == pytest.approx(np.mean(rewards))
    assert (foreign > 30) == (defects == "expansion")
    np.testing.assert_allclose(measured["rollouts"], 48)
    assert (measured["allocation_concentration"] > 1).all()


@pytest.mark.parametrize("defects", ["history", "both"])
def test_the_history_pairs_prompts_in_the_new_order_with_outcomes_in_the_old(defects, small):
    trainer = after_unequal_counts(small("dynamo", row_defects=defects))
    before = [np.stack(history.counts(trainer.setup.keys)) for history in trainer.state.histories]
    number = trainer.state.num_steps
    batch, _ = watched_step(trainer)
    for s, seed in enumerate(trainer.setup.config.seeds):
        order = row_defects.sorted_over_workers(48, generator(seed, Stream.ROW_ORDER, number))
        rows = rows_of(batch, s)
        labels, outcomes = ([int(x[s, q, g]) for q, g in rows] for x in (batch.labels, batch.rewarded))
        told = {int(prompt): [0, 0] for prompt in batch.prompts[s]}
        for place, outcome in enumerate(outcomes):
            entry = told[int(batch.prompts[s, labels[order[place]]])]
            entry[0] += outcome
            entry[1] += 1
        found = np.stack(trainer.state.histories[s].counts(trainer.setup.keys)) - before[s]
        assert {prompt: found[:, prompt].tolist() for prompt in told} == told
        assert found.sum(1).tolist() == [sum(outcomes), 48]


@pytest.mark.parametrize(
    ("rule", "defects"), [("uniform", "expansion"), ("uniform", "history"), ("uniform", "both"), ("dynamo", "none")]
)
def test_nothing_changes_with_equal_counts_and_a_rule_that_looks_at_no_history(rule, defects, small):
    """Nor without defects: the default is the trainer as it was."""
    config = with_rule(small("dynamo"), rule)
    assert_same(train(replace(config, row_defects=defects)), train(config))


def test_the_first_visits_are_free_of_the_expansion(small):
    """No prompt has a history yet, so that all counts are equal."""
    one, other = (train(small("dynamo", num_steps=6, row_defects=x)) for x in ("none", "expansion"))
    same = [np.array_equal(one.metrics["entropy"][:, t], other.metrics["entropy"][:, t]) for t in range(7)]
    assert same == [True] * 3 + [False] * 4  # 12 prompts in batches of 6


def test_in_the_batch_of_the_paper_few_rows_keep_their_ground_truth_and_a_sorted_history_knows_nothing():
    """512 prompts, p ~ Beta(.7, .7), 64 past rollouts each, 16 on average in [8, 24]: 9 % and a correlation of 0."""
    kept, correlations = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p = rng.beta(0.7, 0.7, 512)
        problem = Problem(rng.binomial(64, p).astype(float), np.full(512, 64.0), 512 * 16, 8, 24)
        counts = allocate(get_allocator("dynamo-code"), problem, rng)
        paid = np.arange(24) < counts[None, :, None]
        labels = row_defects.labels(paid, 16)
        kept.append((labels == np.arange(512)[:, None])[paid].mean())
        owners = np.repeat(np.arange(512), counts)
        outcomes = rng.random(len(owners)) < p[owners]
        new = owners[row_defects.sorted_over_workers(len(owners), rng)]
        rates = (np.bincount(each, weights=outcomes, minlength=512) / counts for each in (owners, new))
        correlations.append([np.corrcoef(rate, p)[0, 1] for rate in rates])
    assert 0.04 < np.mean(kept) < 0.16
    unsorted, resorted = np.mean(correlations, axis=0)
    assert unsorted > 0.95
    assert abs(resorted) < 0.05


def test_workers_get_equal_shares_in_the_old_order():
    order = row_defects.sorted_over_workers(48, np.random.default_rng(0))
    assert sorted(order) == list(range(48))
    falls = [i for i, (a, b) in enumerate(itertools.pairwise(order), 1) if a > b]
    assert set(falls) <= set(range(6, 48, 6))
    assert len(falls) > 4


def test_rollouts_that_miss_the_budget_have_no_second_list_of_rows():
    with pytest.raises(ValueError, match=r"row_defects: expected 4 rollouts a step, got \[3\]"):
        row_defects.labels(np.array([[[True, False], [True, True]]]), 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"row_defects": "some"}, "row_defects: expected one of none, expansion, history, both, got 'some'"),
        ({"row_defects": "both", "diagnose_every": 2}, "row_defects: expected 'none' with diagnostics every 2 steps"),
    ],
)
def test_what_cannot_be_simulated_is_refused(fields, message, small):
    with pytest.raises(ValueError, match=message):
        small("dynamo", **fields)
    with pytest.raises(ValueError, match="row_defects: expected 'none' with the rule dars, got 'history'"):
        replace(with_rule(small("grpo"), "dars"), row_defects="history")


def test_runs_of_software_without_this_setting_go_on(small, tmp_path):
    """A setting that a run's software did not know has its default."""
    config = small("dynamo", num_steps=3)
    train(config, out=tmp_path)
    without = {name: value for name, value in config.to_dict().items() if name != "row_defects"}
    arrays, data = checkpoint.load(tmp_path / checkpoint.NAME)
    checkpoint.save(tmp_path / checkpoint.NAME, arrays, {**data, "config": without})
    files.write_json(tmp_path / runs.CONFIG_FILE, without)
    versions = files.read_json(tmp_path / runs.VERSIONS_FILE)
    hashes = files.hashes(tmp_path, list(versions["files"]))
    files.write_json(tmp_path / runs.VERSIONS_FILE, {**versions, "files": hashes})
    longer = replace(config, num_steps=5)
    assert_same(train(config, out=tmp_path), train(config))
    assert_same(train(longer, out=tmp_path), train(longer))
    with pytest.raises(ValueError, match="x: expected a run of the same config, got one that differs in row_defects"):
        require_same(tmp_path / "x", without, replace(config, row_defects="both"))


def test_a_chain_that_ends_before_the_ground_truth_is_wrong(small):
    """Where every token is accepted, length alone decides."""
    trainer = Trainer(small("grpo", "skills"))
    trainer.setup.correct[:] = True
    prompts = draw_prompts(trainer.setup, 0)
    rollouts = roll_out(trainer.setup, trainer.state.logits, prompts, trainer.setup.generators(Stream.ROLLOUTS, 0))
    lengths = rollouts.tokens.numpy().sum(-1)
    labels = np.random.default_rng(0).integers(6, size=rollouts.correct.shape)
    expected = lengths[:, :, None] >= np.take_along_axis(lengths[:, None], labels, axis=-1)
    assert 0.2 < expected.mean() < 0.9
    np.testing.assert_array_equal(row_defects.judge_by_label(trainer.setup, rollouts, labels), expected)


def test_groups_of_one_have_the_labels_of_their_rows():
    """Every rollout that was paid for has the prompt whose turn it is, the first too."""
    paid = np.array([[[True, False], [True, False], [True, False]], [[False, True], [True, True], [False, False]]])
    found = row_defects.labels(paid, 1)
    assert found[paid].tolist() == [0, 1, 2, 0, 1, 2]
