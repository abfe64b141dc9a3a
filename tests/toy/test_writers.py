"""One writer a folder: a second command on it says so in one line and exits with 2, and the first does not notice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.toy.experiments.test_runner import tiny
from theory.base import runs
from theory.base.files import LOCK_FILE, only_writer, read_json
from toy.__main__ import main
from toy.experiments import runner, summary
from toy.experiments.runner import run_sweeps
from toy.training import checkpoint
from toy.training.config import TrainConfig
from toy.training.loop import train

ROOT = Path(__file__).parents[2]

RUN = ["run", "--seeds", "2", "--prompts", "12", "--batch", "6", "--rollouts", "8", "--low", "4"]

HELD = """
import sys
from toy import __main__ as command
from toy.training import loop
step = loop.Trainer.step
def told(self):
    if self.state.num_steps == 2:  # a checkpoint is there, and the end is not
        print("under way", flush=True)
        sys.stdin.readline()
    step(self)
loop.Trainer.step = told
sys.exit(command.main(sys.argv[1:]))
"""

SWEEP = """
from tests.toy.experiments.test_runner import tiny
from toy.experiments import sweeps
sweeps.SWEEPS = command.SWEEPS = {"tiny": tiny()}
"""


def held(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a command that waits in its third step for a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert any(line == "under way\n" for line in process.stdout)
    return process


def refused(folder: Path, holder: int, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main(command) == 2
    error = f"python -m toy {command[0]}: error: {folder}: expected no other writer, got process {holder} on "
    err = capsys.readouterr().err
    assert err.startswith(error)
    assert err.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_second_run_is_refused_and_the_first_ends_as_if_alone(tmp_path, capsys):
    command = [*RUN, "--steps", "5", "--checkpoint-every", "1", "--out", str(tmp_path / "run")]
    with held(HELD, *command) as first:
        refused(tmp_path / "run", first.pid, capsys, command)
        first.communicate("\n", timeout=600)
    assert first.returncode == 0
    found = runs.read_run(tmp_path / "run")
    for name, column in train(TrainConfig.from_dict(found.config)).columns().items():
        np.testing.assert_array_equal(found.metrics[name].to_numpy(), column, err_msg=name)
    assert not (tmp_path / "run" / LOCK_FILE).exists()


def test_a_killed_run_holds_no_lock(tmp_path):
    command = [*RUN, "--steps", "3", "--checkpoint-every", "1", "--out", str(tmp_path)]
    with held(HELD, *command) as first:
        first.kill()
    assert (tmp_path / LOCK_FILE).exists()
    assert main(command) == 0
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_second_sweep_is_refused_and_the_first_ends_as_if_alone(tmp_path, capsys, monkeypatch):
    command = ["sweep", "tiny", "--jobs", "1", "--out", str(tmp_path)]
    monkeypatch.setattr("toy.experiments.sweeps.SWEEPS", {"tiny": tiny()})
    monkeypatch.setattr("toy.__main__.SWEEPS", {"tiny": tiny()})
    with held(HELD.replace("sys.exit", SWEEP + "sys.exit"), *command) as first:
        refused(tmp_path / "tiny", first.pid, capsys, command)
        refused(tmp_path / "tiny", first.pid, capsys, [*RUN, "--out", str(tmp_path / "tiny" / "kl-cov")])
        assert first.stdin is not None
        first.communicate("\n" * 9, timeout=600)
    assert first.returncode == 0
    list(run_sweeps([tiny()], tmp_path / "alone"))
    for name in ("grpo", "kl-cov", "dynamo"):
        one, other = (runs.read_run(folder / "tiny" / name) for folder in (tmp_path, tmp_path / "alone"))
        assert one.metrics == other.metrics
    assert read_json(tmp_path / "tiny" / summary.JSON) == read_json(tmp_path / "alone" / "tiny" / summary.JSON)


def test_a_cell_that_another_command_writes_is_refused_in_the_worker(tmp_path):
    """The sweep is this process's, the cell is not."""
    with only_writer(tmp_path / "tiny" / "kl-cov"):
        for jobs in (1, 2):
            with pytest.raises(ValueError, match=f"kl-cov: expected no other writer, got process {os.getpid()}"):
                list(run_sweeps([tiny()], tmp_path, jobs=jobs))
    assert len(list(run_sweeps([tiny()], tmp_path))) == 1


def test_a_cell_is_its_sweeps_while_that_runs(tmp_path, capsys, monkeypatch):
    """A run in it is refused, but for one that is finished, which is shown; after the sweep anybody may train there."""
    sweep = tmp_path / "fig5"
    command = [*RUN, "--steps", "3", "--out", str(sweep / "cell")]
    with only_writer(sweep):
        refused(sweep, os.getpid(), capsys, command)
    (sweep / LOCK_FILE).touch()  # of a sweep that was killed
    assert main(command) == 0
    with only_writer(sweep):
        assert main(command) == 0
        refused(sweep, os.getpid(), capsys, [*command[:-1], str(sweep / "cell" / ".." / "other")])
        monkeypatch.chdir(sweep / "cell")
        refused(sweep, os.getpid(), capsys, [*RUN, "--steps", "4", "--out", "."])


def test_what_is_finished_is_shown_without_writing(tmp_path, monkeypatch, capsys):
    """As in a folder that cannot be written, or beside a command that writes another sweep of it."""
    command = [*RUN, "--steps", "3", "--out", str(tmp_path / "run")]
    assert main(command) == 0
    list(run_sweeps([tiny()], tmp_path))
    for module in ("theory.base.files", "theory.base.runs"):
        for name in ("write_atomically", "only_writer", "write_json"):
            monkeypatch.setattr(f"{module}.{name}", lambda *args: pytest.fail("written"), raising=False)
    capsys.readouterr()
    assert main(command) == 0
    assert "3 steps" in capsys.readouterr().out
    assert len(list(run_sweeps([tiny()], tmp_path))) == 1


def test_a_copy_of_a_cell_has_no_lock(tmp_path):
    list(run_sweeps([tiny()], tmp_path))
    folder = tmp_path / "tiny" / "grpo"
    (folder / LOCK_FILE).touch()  # of a command that was killed
    runner._copy(folder, tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == sorted(
        [runs.CONFIG_FILE, runs.METRICS_FILE, runs.VERSIONS_FILE, checkpoint.NAME]
    )


def test_a_stopped_command_still_holds_its_folder(tmp_path, capsys):
    command = [*RUN, "--steps", "4", "--checkpoint-every", "1", "--out", str(tmp_path)]
    with held(HELD, *command) as first:
        first.send_signal(signal.SIGSTOP)
        refused(tmp_path, first.pid, capsys, command)
        first.send_signal(signal.SIGCONT)
        first.communicate("\n", timeout=600)
    assert first.returncode == 0
