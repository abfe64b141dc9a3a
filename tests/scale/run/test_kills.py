"""Whatever is killed or stopped of a run's caller, guard and command: nothing is left. The command is a script here."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

import pytest

from scale.run.supervisor import GUARD
from tests.scale.conftest import eventually, left

psutil = pytest.importorskip("psutil")

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no watcher without Linux' process descriptors")

ROOT = Path(__file__).parents[3]

COMMAND = """
import os, sys, time
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path
resource_tracker.register = lambda *args: None
folder = Path(os.environ["DYNAMO_RUN_FOLDER"])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        memory = shared_memory.SharedMemory(sys.argv[1], create=True, size=4096)
        (folder / "ready").touch()
        time.sleep(100)
    os._exit(0)
(folder / "command.new").write_text(str(os.getpid()))
(folder / "command.new").rename(folder / "command")  # never there without its text
time.sleep(100)
"""
"""A command with a daemon that owns shared memory."""

CALLER = """
import signal, sys, threading
from pathlib import Path
from scale.run.supervisor import supervise
signal.signal(signal.SIGHUP, signal.SIG_DFL)
folder = Path(sys.argv[1])
def run():
    command = [sys.executable, "-c", *sys.argv[2:]]
    outcome = supervise(command, folder=folder, deadline=80, silence=80, temporary=folder / "temporary")
    print(outcome.reason, outcome.returncode)
"""
MAIN = CALLER + "run()"
THREAD = CALLER + "threading.Thread(target=run, daemon=True).start()\nsys.stdin.read()"

PARTS = ("main", "guard", "command")
SOME = [part for n in (1, 2, 3) for part in itertools.combinations(PARTS, n)]


class Run:
    """A run of `COMMAND`, and its processes by their part."""

    def __init__(self, folder: Path, code: str = MAIN) -> None:
        self.folder, self.segment = folder, f"psm_{uuid.uuid4().hex}"
        (folder / "temporary" / "ray").mkdir(parents=True)
        self.main = subprocess.Popen(
            [sys.executable, "-c", code, folder, COMMAND, self.segment],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def processes(self) -> dict[str, int]:
        """Return those that are there by now."""
        found = {"main": self.main.pid}
        for process in psutil.Process(self.main.pid).children(recursive=True):
            try:
                words, parent = process.cmdline(), process.ppid()
            except psutil.Error:
                continue
            if str(GUARD) in words and "--watch" in words:
                found["watcher"] = process.pid
            elif str(GUARD) in words and parent == self.main.pid:
                found["guard"] = process.pid
        with_command = self.folder / "command"
        return found | ({"command": int(with_command.read_text())} if with_command.exists() else {})

    def started(self) -> dict[str, int]:
        """Wait for all processes."""
        assert eventually((self.folder / "ready").exists)
        assert eventually(lambda: self.processes().keys() == {*PARTS, "watcher"})
        assert len(left(self.folder)) == 3  # guard, command, daemon
        assert Path("/dev/shm", self.segment).exists()
        return self.processes()

    def leaves_nothing(self) -> bool:
        return eventually(
            lambda: (
                not left(self.folder)
                and not (self.folder / "temporary").exists()
                and not Path("/dev/shm", self.segment).exists()
                and not self.watchers()
            )
        )

    def watchers(self) -> list[int]:
        """Return the processes that would delete the temporary folder."""
        temporary = str(self.folder / "temporary")
        found = psutil.process_iter(["cmdline"])
        return [x.pid for x in found if temporary in (x.info["cmdline"] or ()) and x.pid != self.main.pid]


@pytest.fixture
def start(tmp_path):
    runs = []

    def start(name: str = "run", code: str = MAIN) -> Run:
        runs.append(Run(tmp_path / name, code))
        return runs[-1]

    yield start
    for run in runs:
        for pid in {*left(run.folder), *run.watchers()}:
            send([pid])
        run.main.kill()
        run.main.communicate()
        Path("/dev/shm", run.segment).unlink(missing_ok=True)


def send(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


@pytest.mark.parametrize("parts", SOME, ids="+".join)
@pytest.mark.parametrize("stopped", [False, pytest.param(True, marks=pytest.mark.long)], ids=["killed", "stopped"])
def test_kill_9_leaves_nothing(parts, stopped, start):
    run = start()
    pids = [run.started()[part] for part in parts]
    if stopped:
        send(pids, signal.SIGSTOP)
        time.sleep(0.5)
    send(pids)
    assert run.leaves_nothing()
    if "main" not in parts:
        assert run.main.communicate(timeout=60)[0] == "failed 137\n"


@pytest.mark.long
@pytest.mark.parametrize(
    ("stopped", "killed"),
    [(one, some) for one in PARTS for some in SOME if one not in some],
    ids=lambda x: x if isinstance(x, str) else "+".join(x),
)
def test_one_that_stays_stopped_holds_up_nothing(stopped, killed, start):
    """Neither does a guard that never goes on: all that is left is a stopped caller, if there is one."""
    run = start()
    pids = run.started()
    send([pids[stopped]], signal.SIGSTOP)
    send([pids[part] for part in killed])
    assert run.leaves_nothing()
    if "main" not in killed:
        send([pids["main"]], signal.SIGCONT)
        assert run.main.communicate(timeout=60)[0] == "failed 137\n"


@pytest.mark.long
def test_a_stopped_guard_does_not_hold_up_the_caller(start):
    run = start()
    send([run.started()["guard"]], signal.SIGSTOP)
    run.main.send_signal(signal.SIGTERM)
    assert run.main.communicate(timeout=60)[0] == "interrupted 137\n"
    assert run.leaves_nothing()


def test_without_guard_and_watcher_the_kernel_ends_the_command(start):
    """So that Ray's daemons, which end with it, do not go on; its other processes may be left."""
    run = start()
    pids = run.started()
    command = psutil.Process(pids["command"])
    send(pids[part] for part in ("main", "guard", "watcher"))
    assert eventually(lambda: not command.is_running())


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 10))])
def test_kill_9_at_any_moment(seed, start):
    """While the run starts, too. Its temporary folder can be left only before a watcher was there."""
    chance = random.Random(seed)
    for number in range(3):
        run = start(str(number))
        time.sleep(chance.uniform(0, 0.6))
        pids = run.processes()
        killed = [part for part in chance.choice(SOME) if part in pids] or ["main"]
        send([pids[part] for part in killed])
        if "main" not in killed and "guard" in killed:
            run.main.communicate(timeout=60)
        else:
            run.main.kill()
        assert eventually(lambda run=run: not left(run.folder) and not run.watchers()), (killed, pids)
        if "watcher" in pids:
            assert run.leaves_nothing(), (killed, pids)


@pytest.mark.parametrize("code", [MAIN, THREAD], ids=["main", "thread"])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT], ids=lambda x: x.name)
def test_a_closed_terminal_leaves_nothing(number, code, start):
    run = start(code=code)
    run.started()
    run.main.send_signal(number)
    assert run.leaves_nothing()


def test_the_end_of_a_caller_ends_the_run_of_its_thread(start):
    """As in a notebook whose kernel is shut down."""
    run = start(code=THREAD)
    run.started()
    run.main.communicate(timeout=60)
    assert run.leaves_nothing()


@pytest.mark.long
def test_a_run_stopped_with_its_caller_goes_on(tmp_path):
    """Ctrl-Z and fg, or a machine that slept: nobody was silent."""
    code = "import time\nfrom scale.run import beat\nfor i in range(24): beat(i); time.sleep(0.5)"
    caller = MAIN.replace("silence=80", "silence=4").replace(', temporary=folder / "temporary"', "")
    main = subprocess.Popen(
        [sys.executable, "-c", caller, tmp_path, code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert eventually((tmp_path / "progress.json").exists)
    command = next(pid for pid in left(tmp_path) if code in psutil.Process(pid).cmdline()[:3])
    for stopped in ([main.pid], [main.pid, command]):
        send(stopped, signal.SIGSTOP)
        time.sleep(8)
        for pid in stopped:
            send([pid], signal.SIGCONT)
            time.sleep(1)
    assert main.communicate(timeout=60)[0] == "finished 0\n"


# The guard alone


def guarded(folder: Path, caller: int, command: str, *, changes: str = "") -> int:
    """Run a command under a guard, changed by some code; returns the exit status."""
    temporary = folder / "temporary"
    temporary.mkdir()
    start = f"import os, runpy, sys\n{changes}\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], None, '__main__')"
    words = [str(GUARD), "run", str(temporary), str(caller), sys.executable, "-c", command]
    with subprocess.Popen([sys.executable, "-c", start, *words], stdin=subprocess.PIPE, stdout=2) as process:
        code = process.wait(timeout=60)
    assert not temporary.exists()
    return code


def test_a_guard_whose_caller_is_dead_before_it_looks(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as caller:
        pass
    assert guarded(tmp_path, caller.pid, "import time; time.sleep(100)") in (128 + signal.SIGTERM, 128 + signal.SIGKILL)


def test_a_command_whose_guard_is_dead_before_it_asks(tmp_path):
    code = "from scale.run.guard import _end_with\n_end_with(-1)\nprint('alive')"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


WITHOUT = [
    "del os.pidfd_open",
    "def fail(pid): raise OSError(38, 'Function not implemented')\nos.pidfd_open = fail",
]


@pytest.mark.parametrize(("changes", "watchers"), [("", 1), (WITHOUT[0], 0), (WITHOUT[1], 0)], ids=["", "macOS", "old"])
def test_a_system_without_process_descriptors_has_the_guard_alone(changes, watchers, tmp_path):
    command = "import os, psutil, sys; sys.exit(10 + len(psutil.Process(os.getppid()).children()) - 1)"
    assert guarded(tmp_path, os.getpid(), command, changes=changes) == 10 + watchers
