"""runner: a sweep survives being killed, computes nothing twice, and does not know how many processes there are."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.toy.conftest import small_config
from theory.base import runs
from theory.base.files import read_json
from theory.statistics import interquartile_mean
from toy.experiments import runner
from toy.experiments.design import Cell, Sweep
from toy.experiments.runner import run_sweeps
from toy.experiments.summary import SummaryRow
from toy.training import checkpoint
from toy.training.loop import train

ROOT = Path(__file__).parents[3]


def tiny(num_steps: int = 6, **fields) -> Sweep:
    """Three methods in a small world."""
    cells = tuple(
        Cell({"method": name}, small_config(name, num_steps=num_steps, **fields))
        for name in ("grpo", "kl-cov", "dynamo")
    )
    return Sweep(name="tiny", title="t", reproduces="r", cells=cells, blocks=(), reference={"method": "grpo"})


def files(folder: Path) -> dict[str, bytes]:
    """Everything that must be the same to the bit."""
    names = (runs.CONFIG_FILE, runs.METRICS_FILE, "summary.parquet", "summary.json")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.name in names}
    for path in folder.rglob(checkpoint.NAME):
        arrays, _ = checkpoint.load(path)
        found |= {f"{path.relative_to(folder)}:{name}": array.tobytes() for name, array in arrays.items()}
    return found


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.parent != folder}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the tiny sweep in one go."""
    out = tmp_path_factory.mktemp("expected")
    ((sweep, rows),) = run_sweeps([tiny()], out)
    assert sweep == tiny()
    assert {row.cell for row in rows} == {"grpo", "kl-cov", "dynamo"}
    return out


def test_cells_are_run_folders_of_the_trainer(expected):
    for cell in tiny().cells:
        run = train(cell.config)
        table = runs.read_run(expected / "tiny" / cell.name).metrics
        for name, column in run.columns().items():
            np.testing.assert_array_equal(table[name].to_numpy(), column, err_msg=name)


def test_what_is_finished_is_not_computed_again(expected, monkeypatch):
    before, bits = times(expected / "tiny"), files(expected)
    monkeypatch.setattr("toy.experiments.runner.train", lambda *args, **options: pytest.fail("work was done"))
    seen = []
    assert (
        len(list(run_sweeps([tiny()], expected, progress=lambda folder, step: seen.append((folder.name, step))))) == 1
    )
    assert (times(expected / "tiny"), files(expected)) == (before, bits)
    assert sorted(seen) == [("dynamo", 6), ("grpo", 6), ("kl-cov", 6)]


def test_an_interrupted_sweep_goes_on(expected, tmp_path):
    def interrupt(folder: Path, step: int) -> None:
        if (folder.name, step) == ("kl-cov", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_sweeps([tiny()], tmp_path, checkpoint_every=2, progress=interrupt))
    assert not (tmp_path / "tiny" / "summary.json").exists()
    finished = times(tmp_path / "tiny" / "grpo")
    seen = []
    list(run_sweeps([tiny()], tmp_path, progress=lambda folder, step: seen.append((folder.name, step))))
    # Four steps of the second cell were done and saved.
    assert seen == [("grpo", 6), *(("kl-cov", step) for step in (5, 6)), *(("dynamo", step) for step in range(1, 7))]
    assert times(tmp_path / "tiny" / "grpo") == finished
    assert files(tmp_path) == files(expected)


def test_two_processes_give_the_same_bits(expected, tmp_path):
    seen = []
    list(run_sweeps([tiny()], tmp_path, jobs=2, progress=lambda folder, step: seen.append((folder.name, step))))
    assert files(tmp_path) == files(expected)
    assert set(seen) >= {(name, step) for name in ("grpo", "kl-cov") for step in range(1, 7)}


def test_sweeps_are_summarised_as_they_finish(tmp_path):
    first, second = replace(tiny(1), name="first"), replace(tiny(1, first_seed=5), name="second")
    seen = []
    for sweep, _ in run_sweeps(
        [first, second], tmp_path, progress=lambda folder, step: seen.append(folder.parent.name)
    ):
        seen.append(f"summary of {sweep.name}")
    assert seen == ["first"] * 3 + ["summary of first"] + ["second"] * 3 + ["summary of second"]


def test_equal_cells_are_trained_once(expected, tmp_path, monkeypatch):
    """Of two sweeps with the same cells, whether one is there already or not."""
    first, second, third = (replace(tiny(), name=name) for name in ("first", "second", "third"))
    trained = []
    monkeypatch.setattr(
        "toy.experiments.runner.train", lambda *args, **options: trained.append(args) or train(*args, **options)
    )
    left_over = tmp_path / "second" / "grpo"  # by a sweep killed early
    left_over.mkdir(parents=True)
    (left_over / checkpoint.NAME).touch()
    with pytest.raises(ValueError, match=r"second.grpo.checkpoint.npz: expected it beside a config.json, got none"):
        list(run_sweeps([first, second], tmp_path))
    shutil.copy(tmp_path / "first" / "grpo" / runs.CONFIG_FILE, left_over)
    trained.clear()
    shutil.rmtree(tmp_path / "first")
    found = list(run_sweeps([first, second], tmp_path))
    assert [sweep.name for sweep, _ in found] == ["first", "second"]
    assert found[0][1] == found[1][1]
    assert len(trained) == 3
    seen = []
    list(run_sweeps([third, second], tmp_path, progress=lambda folder, step: seen.append(step)))
    assert (len(trained), seen) == (3, [6] * 6)
    for name in ("first", "second", "third"):
        got, wanted = files(tmp_path / name), files(expected / "tiny")
        for found in (got, wanted):
            del found["summary.json"]
        assert got == wanted
        about = read_json(tmp_path / name / "summary.json")
        assert about == {**read_json(expected / "tiny" / "summary.json"), "sweep": name}


def test_finished_copies_are_left_alone(tmp_path):
    sweeps = [replace(tiny(1), name=name) for name in ("first", "second")]
    list(run_sweeps(sweeps, tmp_path))
    before = {path: path.stat().st_ino for path in tmp_path.glob("*/*/*")}
    assert len(before) >= 6 * 3
    seen = []
    list(run_sweeps(sweeps, tmp_path, progress=lambda folder, step: seen.append(folder)))
    assert {path: path.stat().st_ino for path in tmp_path.glob("*/*/*")} == before
    assert sorted(seen) == sorted({path.parent for path in before})


def test_a_longer_sweep_extends_the_runs(tmp_path):
    list(run_sweeps([tiny(4)], tmp_path))
    seen = []
    list(run_sweeps([tiny()], tmp_path, progress=lambda folder, step: seen.append(step)))
    assert seen == [5, 6] * 3
    with pytest.raises(ValueError, match="num_steps: expected at least the 6 done"):
        list(run_sweeps([tiny(4)], tmp_path))


def test_another_config_in_the_folder_is_refused_before_any_work(expected, monkeypatch):
    monkeypatch.setattr("toy.experiments.runner.train", lambda *args, **options: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=r"tiny.grpo.config.json: .* differs in rollouts_low"):
        list(run_sweeps([tiny(rollouts_low=3)], expected))


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True])
def test_jobs_are_a_number(jobs, tmp_path):
    with pytest.raises(ValueError, match="jobs: expected an integer"):
        list(run_sweeps([tiny()], tmp_path, jobs=jobs))


def test_a_killed_process_ends_the_sweep_and_the_same_call_goes_on(expected, tmp_path):
    def kill(folder: Path, step: int) -> None:
        if step == 3:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    with pytest.raises(ChildProcessError, match="got one that was killed"):
        list(run_sweeps([tiny()], tmp_path, jobs=2, checkpoint_every=1, progress=kill))
    list(run_sweeps([tiny()], tmp_path, jobs=2))
    assert files(tmp_path) == files(expected)


def test_a_failing_process_is_heard_of(tmp_path):
    """A file stands where a cell's folder should be."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "kl-cov").touch()
    with pytest.raises(ValueError, match=r"out: expected a folder, got .*kl-cov"):
        list(run_sweeps([tiny()], tmp_path, jobs=2))


def test_choices_are_the_best_of_their_block_and_know_the_edge(tmp_path):
    cells = tuple(
        Cell(
            {"method": name, "learning_rate": rate},
            replace(config, optimizer=replace(config.optimizer, learning_rate=float(rate))),
        )
        for name in ("grpo", "dynamo")
        for rate in ("3", "10", "30")
        for config in [small_config(name)]
    )
    sweep = Sweep(
        name="t", title="", reproduces="", cells=cells, blocks=("method",), reference={"learning_rate": "10"},
        measures=("pass_at_1_mean", "pass_at_1"), chooses="learning_rate",
    )  # fmt: skip
    ((_, rows),) = run_sweeps([sweep], tmp_path)
    data = json.loads((tmp_path / "t" / "chosen.json").read_text())
    assert data["tried"] == ["3", "10", "30"]
    for choice in data["chosen"]:
        values = {row.axes["learning_rate"]: row.value for row in rows
                  if row.axes["method"] == choice["method"] and row.measure == "pass_at_1_mean"}  # fmt: skip
        assert choice["pass_at_1_mean"] == max(values.values()) == values[choice["learning_rate"]]
        assert choice["at_edge"] == (choice["learning_rate"] != "10")
    assert [choice["method"] for choice in data["chosen"]] == ["grpo", "dynamo"]
    with pytest.raises(ValueError, match="expected choices as the sweep tuning writes them"):
        runner.read_choices(tmp_path / "t" / "chosen.json")


@pytest.mark.parametrize(("best", "at_edge"), [("3", True), ("10", False), ("30", True)])
def test_a_choice_at_either_edge_is_marked(best, at_edge):
    config = small_config("grpo")
    cells = tuple(Cell({"learning_rate": rate}, config) for rate in ("3", "10", "30"))
    sweep = Sweep(
        name="t", title="", reproduces="", cells=cells, blocks=(), reference={"learning_rate": "10"},
        chooses="learning_rate",
    )  # fmt: skip
    rows = [SummaryRow(x.name, x.axes, "pass_at_1", 3, 1.0 if x.name == best else 0.5) for x in cells]
    (choice,) = runner.choices(sweep, rows)["chosen"]
    assert choice == {"learning_rate": best, "pass_at_1": 1.0, "at_edge": at_edge}


def test_rates_of_equal_norms_are_those_that_the_ratio_says_and_another_sweep_takes_them(tmp_path):
    cells = tuple(Cell({"world": "mixed", "method": name}, small_config(name)) for name in ("grpo", "fork-tokens"))
    sweep = Sweep(
        name="n", title="", reproduces="", cells=cells, blocks=("world",), reference={"method": "grpo"},
        measures=("gradient_norm",), equalizes="gradient_norm",
    )  # fmt: skip
    list(run_sweeps([sweep], tmp_path))
    choices = runner.read_choices(tmp_path / "n" / "chosen.json")
    norms = [interquartile_mean(train(cell.config).metrics["gradient_norm"][:, 1:].mean(-1)) for cell in cells]
    assert abs(norms[1] / norms[0] - 1) > 0.1
    expected = [10.0, 10.0 * norms[0] / norms[1]]
    np.testing.assert_allclose([float(choice["learning_rate"]) for choice in choices], expected, rtol=1e-5)
    assert [choice["ratio"] for choice in choices] == pytest.approx([1.0, norms[1] / norms[0]])
    rates = [cell.config.optimizer.learning_rate for cell in replace(sweep, equalizes=None).tuned(choices).cells]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


SCRIPT = """
import sys
from pathlib import Path
from tests.toy.experiments.test_runner import tiny
from toy import __main__ as command
from toy.experiments import sweeps
sweeps.SWEEPS = command.SWEEPS = {"tiny": tiny(120)}
sys.exit(command.main(["sweep", "tiny", "--jobs", "2", "--out", sys.argv[1]]))
"""


def group_lives(group: int) -> bool:
    """Return whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.long
def test_ctrl_c_stops_all_processes_and_the_same_call_goes_on(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        deadline = time.monotonic() + 600
        while not list(tmp_path.rglob(checkpoint.NAME)) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert errors.splitlines() == ["python -m toy sweep: interrupted; the same command resumes"]
    while group_lives(process.pid):
        assert time.monotonic() < deadline, "a process is left over"
        time.sleep(0.01)
    done = {path: checkpoint.load(path)[1]["num_steps"] for path in tmp_path.rglob(checkpoint.NAME)}
    assert 0 < min(done.values()) < 120
    list(run_sweeps([tiny(120)], tmp_path, jobs=1))
    ((_, rows),) = run_sweeps([tiny(120)], tmp_path / "again", jobs=1)
    assert len(rows) == 9
    assert files(tmp_path / "tiny") == files(tmp_path / "again" / "tiny")


@pytest.mark.long
def test_processes_end_with_the_one_that_started_them(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    with subprocess.Popen(command, start_new_session=True, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 600
        while not list(tmp_path.rglob(checkpoint.NAME)) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    while group_lives(process.pid):
        assert time.monotonic() < deadline, "a process is left over"
        time.sleep(0.01)
