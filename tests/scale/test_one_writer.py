"""Every folder that a command writes has one writer, a run's until every process of it has ended; real processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scale import tiny
from scale.data import prepare
from tests.scale.audit.logs import write
from tests.scale.conftest import eventually
from theory.base.files import only_writer
from theory.base.terminal import Console

psutil = pytest.importorskip("psutil")

ROOT = Path(__file__).parents[2]

STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork():
    time.sleep(100)
open("started", "w").write(str(os.getpid()))
time.sleep(100)
"""

MAIN = f"""
import sys
from pathlib import Path
from scale.run.supervisor import supervise
from theory.base.files import only_writer
with only_writer(Path.cwd()) as lock:
    supervise([sys.executable, "-c", {STUBBORN!r}], folder=Path.cwd(), deadline=60, silence=60, keep=[lock])
"""


@pytest.mark.parametrize("guard", [False, True], ids=["caller", "caller and guard"])
def test_the_lock_outlives_a_killed_caller_until_its_processes_have_ended(guard, tmp_path):
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    main = subprocess.Popen([sys.executable, "-c", MAIN], cwd=tmp_path, env=environ)
    assert eventually(lambda: (tmp_path / "started").exists() and (tmp_path / "started").read_text())
    stubborn = psutil.Process(int((tmp_path / "started").read_text()))
    killed = [*psutil.Process(main.pid).children(), psutil.Process(main.pid)] if guard else [main]
    for process in killed:
        process.kill()
    main.wait()
    # The run's process takes no notice of SIGTERM, so that it is there for some seconds more.
    with pytest.raises(ValueError, match=r"expected no other writer, got process \d+"), only_writer(tmp_path):
        pass
    with only_writer(tmp_path, patience=60):
        assert not stubborn.is_running() or stubborn.status() == psutil.STATUS_ZOMBIE


@contextlib.contextmanager
def written_by_another(folder):
    """Let another process be the writer of a folder."""
    code = (
        "import sys, pathlib; from theory.base.files import only_writer\n"
        "with only_writer(pathlib.Path(sys.argv[1])):\n    print('ready', flush=True); sys.stdin.read()"
    )
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"
        try:
            yield rf"{folder}: expected no other writer, got process {other.pid}"
        finally:
            other.kill()


def test_prepare_is_the_only_writer_of_its_folder(tmp_path):
    source, out = tiny.write_source(tmp_path / "source"), tmp_path / "data"
    parsed = prepared(source, out)
    with written_by_another(out) as message, pytest.raises(ValueError, match=message):
        prepare.command(parsed, Console(), None)
    assert [path.name for path in out.iterdir()] == [".lock"]  # of the process that was killed
    assert prepare.command(parsed, Console(), None) == 0


def prepared(source, out):
    import argparse

    parser = argparse.ArgumentParser()
    for name, settings in prepare.ARGUMENTS.items():
        parser.add_argument(name, **settings)
    return parser.parse_args([tiny.SOURCE, "--source", str(source), "--out", str(out), "--template", "plain"])


def test_audit_is_the_only_writer_of_its_folder(tmp_path):
    import pandas as pd

    from scale.__main__ import main

    table = pd.DataFrame({"step": [1, 1, 2, 2], "prompt": ["a"] * 4, "reward": [0.0, 1.0, 1.0, 1.0]})
    log, out = write(table, "jsonl", tmp_path), tmp_path / "audit"
    with written_by_another(out):
        assert main(["audit", str(log), "--out", str(out)]) == 2
    assert [path.name for path in out.iterdir()] == [".lock"]
    assert main(["audit", str(log), "--out", str(out)]) == 0
    assert (out / "audit.json").exists()


def test_processes_that_make_the_same_tiny_model_make_one(tmp_path):
    """The second waits for the first, and finds its files."""
    code = (
        "import sys, pathlib; from scale import tiny; tiny.RIGHT_STEPS = tiny.UNSURE_STEPS = 2\n"
        "print(tiny.make(pathlib.Path(sys.argv[1]))['files'])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "tiny")]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1]
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.needs_verl
@pytest.mark.xdist_group("evaluate")
def test_train_is_the_only_writer_of_a_run(tmp_path, monkeypatch):
    from scale.launch import Limits, progress
    from tests.scale.evaluation.made_runs import composed

    monkeypatch.setattr(progress, "PATIENCE", 0.1)
    monkeypatch.setattr(progress, "train", lambda *_: pytest.fail("a second call wrote the run"))
    with written_by_another(tmp_path) as message, pytest.raises(ValueError, match=message):
        progress.train_all({tmp_path: composed("tiny", "cpu")}, {tmp_path: Limits(1.0, 1.0)}, Console())


@pytest.mark.needs_verl
@pytest.mark.xdist_group("evaluate")
def test_calls_may_share_a_table_but_not_a_checkpoint(tmp_path, monkeypatch):
    from scale.evaluation import evaluate
    from tests.scale.evaluation.made_runs import command, fill, good, refused

    monkeypatch.setattr(evaluate, "PATIENCE", 0.1)
    monkeypatch.setattr(evaluate, "_run", lambda *_: pytest.fail("a second call drew samples"))
    arguments, out = good(tmp_path), tmp_path / "out"
    with written_by_another(out / "run-step4") as message:
        refused(message, *arguments)
        fill(arguments, lambda *_: {"correct": True})
        assert command(*arguments)[0] == 0  # nothing is missing: it only reads
    with written_by_another(out) as message:
        refused(message, *arguments)
    assert command(*arguments)[0] == 0
