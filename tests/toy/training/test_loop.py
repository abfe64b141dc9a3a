"""toy.training.loop: a run resumed is the run uninterrupted, and what is in its folder, or should not be, is named."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tests.toy.helpers import assert_same
from theory.base import files, runs
from toy.training import checkpoint, metrics
from toy.training.config import OptimizerConfig
from toy.training.loop import Trainer, train


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


@pytest.mark.parametrize(("every", "stopped", "kept"), [(1, 5, 5), (2, 5, 4), (3, 5, 3), (4, 3, None)])
def test_a_run_that_stops_has_the_last_checkpoint_that_was_due(every, stopped, kept, small, tmp_path):
    def stop(step, value):
        if step == stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small(), out=tmp_path, progress=stop, checkpoint_every=every)
    assert (tmp_path / checkpoint.NAME).exists() == (kept is not None)
    steps = []
    train(small(), out=tmp_path, progress=lambda step, value: steps.append(step), checkpoint_every=every)
    assert steps == list(range((kept or 0) + 1, 7))


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
    (tmp_path / runs.VERSIONS_FILE).unlink()
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
    (tmp_path / runs.VERSIONS_FILE).unlink()
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
        found = files.read_json(tmp_path / runs.VERSIONS_FILE)
        assert found["torch"] == now["torch"]
        assert found["earlier"] == [{**now, "torch": "1.0", "device": "cpu"}]
    assert checkpoint.load(tmp_path / checkpoint.NAME)[1]["software"][-1] == {**now, "device": "cpu"}


def test_a_checkpoint_of_newer_code_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    train(small(), out=tmp_path)
    (tmp_path / runs.VERSIONS_FILE).unlink()
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
        with pytest.raises(ValueError, match=r"config.json: expected JSON that ends with its checksum"):
            train(small(), out=tmp_path)
    (tmp_path / runs.VERSIONS_FILE).write_text("{}")
    with pytest.raises(ValueError, match=r"versions.json: expected JSON that ends with its checksum, got none"):
        runs.read_run(tmp_path)


def test_metrics_of_a_step_are_means_over_its_optimiser_steps(small):
    """Over both epochs and all mini-batches, as the optimiser itself has seen them."""
    trainer = Trainer(small(num_minibatches=3, num_epochs=2))
    seen, step = [], trainer.state.optimizer.step
    trainer.state.optimizer.step = lambda logits, gradient: [seen.append(step(logits, gradient)), seen[-1]][1]
    trainer.step()
    assert len(seen) == 6
    assert np.ptp(seen, axis=0).min() > 1e-3
    np.testing.assert_allclose(trainer.result()["gradient_norm"][:, -1], np.mean(seen, axis=0), rtol=1e-12)


def test_the_seconds_of_a_run_are_those_of_all_its_parts(small, tmp_path, monkeypatch):
    """A clock on which every look takes a second: parts add up, in the file and in what is returned."""
    clock = itertools.count()
    monkeypatch.setattr("toy.training.loop.time.perf_counter", lambda: float(next(clock)))
    first = train(small(num_steps=2), out=tmp_path)
    saved = checkpoint.load(tmp_path / checkpoint.NAME)[1]["seconds"]
    assert 0 < saved <= first.seconds
    assert files.read_json(tmp_path / runs.VERSIONS_FILE)["seconds"] == first.seconds
    longer = train(small(num_steps=4), out=tmp_path)
    assert longer.seconds > saved + 1
    assert files.read_json(tmp_path / runs.VERSIONS_FILE)["seconds"] == longer.seconds
    saved = checkpoint.load(tmp_path / checkpoint.NAME)[1]["seconds"]
    assert train(small(num_steps=4), out=tmp_path).seconds > saved


@pytest.mark.parametrize(
    "change",
    [
        {"first_seed": 1},
        {"batch_prompts": 4},
        {"rollouts": 9},
        {"rollouts_low": 3},
        {"history_discount": 0.5},
        {"success_rates": "true"},
        {"num_minibatches": 2},
        {"minibatch": "prompts"},
        {"num_epochs": 2},
        {"normalizer_prompts": 3},
        {"diagnose_every": 1},
        {"optimizer": OptimizerConfig(learning_rate=3.0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_but_the_number_of_steps_makes_another_run(change, small, tmp_path):
    files.write_json(tmp_path / runs.CONFIG_FILE, small().to_dict())
    with pytest.raises(
        ValueError, match=f"config.json: expected a run of the same config.*differs in {next(iter(change))}"
    ):
        train(small(**change), out=tmp_path)
