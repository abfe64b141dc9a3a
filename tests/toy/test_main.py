"""python -m toy: what it prints, refuses, and survives."""

from __future__ import annotations

import errno
import json
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from theory.allocation.rules import ALLOCATORS
from theory.base import files, runs
from theory.methods import METHODS
from theory.statistics import paired_gain
from toy.__main__ import SIZES, main, over_seeds, parser, resolve
from toy.experiments.design import AFTER_VISITS, AT_REFERENCE, HORIZONS, Cell
from toy.experiments.sweeps import SWEEPS
from toy.training import checkpoint
from toy.training.config import TrainConfig
from toy.training.loop import train
from toy.worlds import WORLDS

SMALL = ["--seeds", "3", "--steps", "4", "--prompts", "12", "--batch", "6", "--rollouts", "8", "--low", "4"]


def test_defaults_are_those_of_the_config():
    assert resolve(parser().parse_args(["run"])) == TrainConfig.named("dynamo", "mixed")


def test_a_run_ends_with_its_result_and_its_folder(tmp_path, capsys):
    command = ["run", "--method", "grpo", "--world", "binary", *SMALL, "--out", str(tmp_path)]
    assert main(command) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    values = runs.read_run(tmp_path).metrics.to_pandas().pivot_table(values="pass_at_1", index="seed", columns="step")
    assert last.startswith(f"grpo on binary: pass@1 {values[0].mean():.4f} -> {values[4].mean():.4f} [")
    assert "] (3 seeds: mean with Student's t, 95 %), 4 steps, " in last
    assert last.endswith(str(tmp_path))
    assert main(command) == 0
    again = capsys.readouterr().out.splitlines()[-1]
    assert re.sub(r", [0-9.]+ s,", "", again) == re.sub(r", [0-9.]+ s,", "", last)  # loading takes time, too


def test_one_seed_has_no_interval_in_the_last_line(capsys):
    assert main(["run", *SMALL, "--seeds", "1"]) == 0
    assert " (one seed, no interval), 4 steps, " in capsys.readouterr().out.splitlines()[-1]


def test_the_interval_is_that_of_paired_gain():
    """Seeds 0.1, 0.2, 0.6: mean 0.3, standard error 0.1528, t(0.975, 2) = 4.3027 (tables)."""
    assert over_seeds(np.array([0.1, 0.2, 0.6])) == "0.3000 [-0.3572, 0.9572]"
    assert over_seeds(np.array([0.1])) == "0.1000"
    values = np.arange(8.0) ** 2
    assert over_seeds(values) == "{:.4f} [{:.4f}, {:.4f}]".format(*(float(x) for x in paired_gain(values)))


def test_overrides_reach_the_config():
    args = ["run", "--allocator", "neyman", "--aggregation", "prompt-mean", "--alpha", "0.2"]
    args += ["--history-discount", "0.5", "--diagnose-every", "3"]
    config = resolve(parser().parse_args([*args, "--optimizer", "adamw", "--learning-rate", "0.03"]))
    assert (config.history_discount, config.diagnose_every) == (0.5, 3)
    assert (config.method.allocator, config.method.aggregation) == ("neyman", "prompt-mean")
    assert config.method.shaping.alpha == 0.2
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("adamw", 0.03)


def test_every_number_of_a_run_has_its_option():
    values = dict(zip(SIZES, (5, 7, 9, 32, 17, 3, 30, 6, 2, 4), strict=True))
    words = [word for name, value in values.items() for word in (SIZES[name][0], str(value))]
    config = resolve(parser().parse_args(["run", *words, "--prompts", "99", "--alpha", "0"]))
    assert {name: getattr(config, name) for name in values} == values
    assert (config.world.num_prompts, config.method.shaping.alpha) == (99, 0.0)
    assert [option for option, _ in SIZES.values()] == (
        [
            "--seeds",
            "--first-seed",
            "--steps",
            "--batch",
            "--rollouts",
            "--low",
            "--high",
            "--minibatches",
            "--epochs",
            "--diagnose-every",
        ]
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"out": None, "checkpoint_every": 20, "device": "cpu"}),
        (
            ["--out", "here", "--checkpoint-every", "3", "--device", "cuda"],
            {"out": Path("here"), "checkpoint_every": 3, "device": "cuda"},
        ),
    ],
)
def test_options_of_a_run_reach_the_trainer(words, expected, monkeypatch):
    told = []

    def train(config, *, progress, **options):
        told.append(options)
        raise ValueError("enough")

    monkeypatch.setattr("toy.__main__.train", train)
    assert main(["run", *words]) == 2
    assert told == [expected]


def test_a_run_ends_with_what_has_changed(capsys):
    """pass@1, pass@32 and entropy: before, after, and after minus before."""
    assert main(["run", *SMALL]) == 0
    printed = capsys.readouterr().out
    metrics = train(resolve(parser().parse_args(["run", *SMALL]))).metrics
    for name in ("pass_at_1", "pass_at_32", "entropy"):
        first, last = metrics[name][:, 0], metrics[name][:, -1]
        (row,) = [line for line in printed.splitlines() if f"│ {name} " in line]
        cells = [cell.strip() for cell in row.strip("│").split("│")]
        assert cells == [name, *(over_seeds(x) for x in (first, last, last - first))]


def test_list_names_everything(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in (*METHODS, *WORLDS, *ALLOCATORS, *SWEEPS):
        assert name in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "ppo"], "--method: expected one of grpo, clip-higher"),
        (["--world", "easy"], "--world: expected one of binary, peaked, diffuse, mixed"),
        (["--allocator", "best"], "--allocator: expected one of uniform, dynamo"),
        (["--aggregation", "sum"], "--aggregation: expected one of token-mean"),
        (["--optimizer", "adam"], "--optimizer: expected one of sgd, adamw"),
        (["--steps", "many"], "--steps: invalid int value"),
    ],
)
def test_wrong_names_exit_with_2_and_the_known_ones(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(["run", *arguments])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--low", "17"], "rollouts_low: expected at most rollouts 16, got 17"),
        (["--seeds", "0"], "num_seeds: expected an integer >= 1, got 0"),
        (["--method", "grpo", "--alpha", "0.1"], "--alpha: expected a method with DynaMO's modulation, got GRPO"),
        (["--alpha", "2"], "alpha: expected a finite number in [0.0, 1.0], got 2.0"),
        (["--optimizer", "adamw"], "--learning-rate: expected a value for adamw"),
        (["--checkpoint-every", "0"], "checkpoint_every: expected an integer >= 1, got 0"),
        (["--history-discount", "1.5"], "history_discount: expected a finite number in [0.0, 1.0], got 1.5"),
        (["--diagnose-every", "-1"], "diagnose_every: expected an integer >= 0, got -1"),
    ],
)
def test_wrong_values_exit_with_2_before_any_work(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr("toy.training.loop.Trainer.step", lambda self: pytest.fail("work was done"))
    assert main(["run", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: NAME"),
        (["table3"], "expected one of table1, table2, fig2"),
        (["table1", "--jobs", "two"], "--jobs: invalid int value"),
    ],
)
def test_a_wrong_sweep_exits_with_2_and_the_known_names(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(["sweep", *arguments])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_a_sweep_of_no_jobs_or_of_unknown_choices_exits_with_2(tmp_path, capsys):
    assert main(["sweep", "fig5", "--jobs", "0", "--out", str(tmp_path)]) == 2
    assert "sweep: error: jobs: expected an integer >= 1, got 0" in capsys.readouterr().err
    assert main(["sweep", "fig5", "--tuned", str(tmp_path / "chosen.json"), "--out", str(tmp_path)]) == 2
    assert "chosen.json: expected a readable JSON file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    choice = {"world": "mixed", "method": "grpo", "learning_rate": "30"}
    files.write_json(tmp_path / "chosen.json", {"chosen": [choice]})
    assert main(["sweep", "fig5", "--tuned", str(tmp_path / "chosen.json"), "--out", str(tmp_path)]) == 2
    expected = f"sweep: error: {tmp_path}/chosen.json: tuned: expected a learning rate for dynamo in mixed, got none"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "folder", "sizes"),
    [
        ([], "results/toy", (32, 200, 10.0)),
        (["--long"], "results/toy-long", (64, 400, 10.0)),
        (["--tuned", "chosen.json"], "results/toy-tuned", (32, 200, 30.0)),
        (["--long", "--tuned", "chosen.json"], "results/toy-long-tuned", (64, 400, 30.0)),
        (["--out", "here", "--jobs", "1", "--device", "cuda"], "here", (32, 200, 10.0)),
    ],
)
def test_options_of_a_sweep_reach_its_configs(options, folder, sizes, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    choices = [
        {"world": world, "method": method, "learning_rate": "30"} for world in WORLDS for method in ("grpo", "dynamo")
    ]
    files.write_json(tmp_path / "chosen.json", {"chosen": choices})
    called = []
    monkeypatch.setattr(
        "toy.experiments.runner.run_sweeps", lambda *args, **options: called.append((*args, options)) or iter(())
    )
    assert main(["sweep", "fig5", *options]) == 0
    (((sweep,), out, given),) = called
    assert out == Path(folder)
    assert given["jobs"] == (1 if "--jobs" in options else 2)
    assert given["device"] == ("cuda" if "--device" in options else "cpu")
    config = sweep.cells[0].config
    assert (config.num_seeds, config.num_steps, config.optimizer.learning_rate) == sizes


def test_a_sweep_prints_what_it_has_found(tmp_path, capsys, monkeypatch, small):
    cells = tuple(Cell({"world": "mixed", "method": name}, small(name, num_steps=20)) for name in ("grpo", "dynamo"))
    sweep = replace(SWEEPS["table1"], name="tiny", cells=cells)
    monkeypatch.setattr("toy.experiments.sweeps.SWEEPS", {"tiny": sweep})
    monkeypatch.setattr("toy.__main__.SWEEPS", {"tiny": sweep})
    command = ["sweep", "tiny", "--out", str(tmp_path), "--jobs", "1"]
    assert main(command) == 0
    out = capsys.readouterr().out
    rows = json.loads((tmp_path / "tiny" / "summary.json").read_text())["rows"]
    for row in rows:
        difference = [row[f"difference{end}"] for end in ("", "_low", "_high")]
        if row["measure"] in HORIZONS:
            points = [f"{100 * x:+.1f}" for x in difference if x is not None]
            assert (f"{points[0]} [{points[1]}, {points[2]}]" if points else f" {100 * row['value']:.1f} ") in out
            continue
        assert f"{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]" in out
        if row["reference"]:
            assert f"{row['difference']:+.4f} [{row['difference_low']:+.4f}, {row['difference_high']:+.4f}]" in out
    for measure, title in (("pass_at_1", "pass@1 at the end"), ("pass_at_32", "pass@32 at the end")):
        first = max((row for row in rows if row["measure"] == measure), key=lambda row: row["value"])
        assert f"Highest {title}: mixed {first['method']} {first['value']:.4f}" in out
    assert "Highest gradient norm" not in out
    assert out.count("minus grpo") == len(set(sweep.measures) - set(HORIZONS)) + 2
    assert out.count("of others minus grpo") == 2
    assert [  # 2 steps a visit; none of 16 visits
        name for name in AFTER_VISITS if any(row["measure"] == name for row in rows)
    ] == ["pass_at_1_after_4_visits", "pass_at_1_after_8_visits"]
    assert any(row["measure"] in AT_REFERENCE for row in rows)
    assert "3 seeds: mean with Student's t, 95 %; differences are within seeds" in out
    assert main(command) == 0
    assert capsys.readouterr().out == out


def test_a_full_disk_is_said_in_one_line(monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("toy.__main__.train", full)
    assert main(["run"]) == 2
    assert capsys.readouterr().err.endswith("No space left on device; with --out, the same command resumes\n")


def test_an_interrupted_run_says_how_to_go_on(monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("toy.__main__.train", interrupt)
    assert main(["run"]) == 130
    assert "with --out, the same command resumes" in capsys.readouterr().err


@pytest.mark.long
def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    """SIGKILL at a random moment after the first checkpoint, then the same command again."""
    arguments = ["run", *SMALL, "--steps", "120", "--out", str(tmp_path), "--checkpoint-every", "2"]
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-m", "toy", *arguments], cwd=root, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 600
        while not (tmp_path / checkpoint.NAME).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / runs.VERSIONS_FILE).exists()
    _, saved = checkpoint.load(tmp_path / checkpoint.NAME)
    assert 0 < saved["num_steps"] < 120
    assert main(arguments) == 0
    expected = train(resolve(parser().parse_args(arguments)))
    arrays, _ = checkpoint.load(tmp_path / checkpoint.NAME)
    np.testing.assert_array_equal(arrays["logits"], expected.logits)
    table = runs.read_run(tmp_path).metrics
    for name, column in expected.columns().items():
        np.testing.assert_array_equal(table[name].to_numpy(), column, err_msg=name)
