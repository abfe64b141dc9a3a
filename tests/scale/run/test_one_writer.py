"""A run's folder has one writer, until every process of the run has ended; with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scale.conftest import eventually
from theory.base.files import only_writer

psutil = pytest.importorskip("psutil")

ROOT = Path(__file__).parents[3]

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
