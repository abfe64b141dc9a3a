"""What `train` does about runs that end: the processes of verl are left out here, and run in `tests/scale/run`."""

from __future__ import annotations

import os
import signal
import time

import pytest

from scale.launch import Limits, progress
from scale.launch.progress import STOPPED_STATUS, train_all
from scale.run import Outcome, records
from tests.scale.launch.conftest import compose
from theory.base.terminal import Console

pytestmark = [pytest.mark.needs_verl, pytest.mark.versionless]


@pytest.fixture
def run(launch, tmp_path, monkeypatch):
    """Run `train_all` on runs whose ends are given; returns the status, the limits of each start, and what was said."""
    monkeypatch.setattr(progress, "PAUSE", 0.05)
    monkeypatch.setattr(records, "finish", lambda *_: None)

    def start(ends, restarts=0, runs=1, deadline=100.0):
        starts = []

        def train(config, out, limits, echo, stop, ask, keep):
            starts.append(limits)
            return ends[len(starts) - 1](stop, ask)

        monkeypatch.setattr(progress, "train", train)
        config = compose(launch, tmp_path)
        folders = [tmp_path / f"run{i}" for i in range(runs)]
        console = Console(record=True)
        limits = {out: Limits(deadline, restarts=restarts) for out in folders}
        status = train_all(dict.fromkeys(folders, config), limits, console)
        return status, starts, " ".join(console.export_text().split())

    return start


def end(reason, step=0, seconds=0.0):
    def ends(stop, ask):
        time.sleep(seconds)
        return Outcome(reason, 1, 1.0, progress={"step": step})

    return ends


def asked(stop, ask):
    """Send SIGTERM to this process, and stop when the run is asked to."""
    os.kill(os.getpid(), signal.SIGTERM)
    assert ask.wait(30)
    return Outcome("stopped", 0, 1.0, progress={"step": 3})


def test_a_run_that_fails_goes_on_until_it_is_through(run):
    status, starts, said = run([end("failed", 1), end("silence", 2), end("finished", 3)], restarts=2)
    assert (status, len(starts)) == (0, 3)
    assert "restart 1 of 2 from its beginning" in said
    assert "restart 2 of 2 from its beginning" in said


def test_progress_that_cannot_be_read_ends_no_run(launch, tmp_path, monkeypatch):
    """It is shown, no more; over NFS a file may be replaced while it is read."""

    def train(config, out, limits, echo, stop, ask, keep):
        (out / "progress.json").write_text('{"step"')
        echo("a line")
        return Outcome("stopped", 0, 1.0)

    monkeypatch.setattr(progress, "train", train)
    out = tmp_path / "run"
    assert train_all({out: compose(launch, tmp_path)}, {out: Limits()}, Console(record=True)) == STOPPED_STATUS


def test_all_starts_share_the_deadline(run):
    _, starts, _ = run([end("failed", 1, 0.3), end("failed", 2), end("finished", 3)], restarts=2)
    assert starts[0].deadline == 100.0
    assert 99.0 < starts[2].deadline < starts[1].deadline < 99.7
    status, starts, _ = run([end("failed", 1, 0.3)], restarts=2, deadline=0.2)
    assert (status, len(starts)) == (1, 1)


@pytest.mark.parametrize("ends", [["failed"], ["failed", "failed", "failed"]])
def test_a_run_that_fails_too_often_has_failed(run, ends):
    status, starts, said = run([end(x, i) for i, x in enumerate(ends)], restarts=len(ends) - 1)
    assert (status, len(starts)) == (1, len(ends))
    assert "the same command resumes" in said


def test_sigterm_asks_all_runs_to_stop(run):
    """Those that have not begun do not begin; the handler of before is back."""
    before = signal.getsignal(signal.SIGTERM)
    status, starts, said = run([asked], restarts=2, runs=2)
    assert (status, len(starts)) == (STOPPED_STATUS, 1)
    assert said.count("the same command resumes") == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_between_two_starts_is_heard(run, monkeypatch):
    wait = progress._wait

    def hears(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        wait(*args)

    monkeypatch.setattr(progress, "PAUSE", 30.0)
    monkeypatch.setattr(progress, "_wait", hears)
    status, starts, _ = run([end("failed", 1)], restarts=5)
    assert (status, len(starts)) == (STOPPED_STATUS, 1)


def test_a_run_that_fails_instead_of_saving_has_failed(run):
    """It has lost what it learnt since its last checkpoint: 75 would say that it has not, and Slurm would go on."""

    def fails(stop, ask):
        os.kill(os.getpid(), signal.SIGTERM)
        assert ask.wait(30)
        return Outcome("failed", 1, 1.0, progress={"step": 3, "phase": "stopping"})

    status, starts, said = run([fails], restarts=3)
    assert (status, len(starts)) == (1, 1)
    assert "failed after 1 s; the last step was 3" in said
    assert "nothing of it is lost" not in said


def test_a_second_sigterm_ends_at_once(run):
    stopped = []

    def stubborn(stop, ask):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        stopped.append(stop.wait(30))
        return Outcome("interrupted", 143, 1.0)

    with pytest.raises(KeyboardInterrupt):
        run([stubborn])
    assert stopped == [True]
