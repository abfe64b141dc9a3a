"""Runs here are plain Python children; that of Ray and vLLM is the smoke test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scale.run import activity, supervisor
from scale.run.activity import sample
from scale.run.reports import CURRENT, Failure, read_failures
from scale.run.supervisor import Outcome, supervise
from tests.scale.conftest import eventually, left

psutil = pytest.importorskip("psutil")

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]

DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if {hidden}:
            os.execve(sys.executable, [sys.executable, "-S", "-c", "import time; time.sleep(100)", {ready!r}], {{}})
        open({ready!r}, "w").close()
        time.sleep(100)
    os._exit(0)
"""

HANG = "\nimport time\ntime.sleep(100)\n"

SOON = 15
"""Seconds, before the deadline and the silence of 20 that `run` allows, and long on a busy machine too."""


def command(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def run(code: str, folder: Path, **options: Any) -> Outcome:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return supervise(command(code), **{"folder": folder, "deadline": 20, "silence": 20, "environ": environ, **options})


# Ends of a run


def test_run_finishes(tmp_path):
    echoed = []
    outcome = run("print('one'); print('two', end='')", tmp_path / "new" / "run", echo=echoed.append)
    assert (outcome.reason, outcome.returncode, outcome.failures) == ("finished", 0, ())
    assert outcome.lines == ("one", "two")
    assert echoed == ["one", "two"]
    assert outcome.seconds < SOON
    assert outcome.cause().startswith("finished in ")


def test_run_that_fails_shows_its_last_line(tmp_path):
    outcome = run("raise ValueError('no such prompt')", tmp_path)
    assert (outcome.reason, outcome.returncode) == ("failed", 1)
    assert "exit status 1" in outcome.cause()
    assert "ValueError: no such prompt" in outcome.cause()


def test_the_last_twenty_lines_are_kept_without_empty_ones(tmp_path):
    echoed = []
    outcome = run("for i in range(30): print(i, end='\\n\\n')", tmp_path, echo=echoed.append)
    assert outcome.lines == tuple(str(i) for i in range(10, 30))
    assert echoed == [x for i in range(30) for x in (str(i), "")]


def test_run_ended_by_a_signal(tmp_path):
    outcome = run("import os; os.kill(os.getpid(), 9)", tmp_path)
    assert (outcome.reason, outcome.returncode) == ("failed", 137)
    assert "signal 9" in outcome.cause()


REPORT = """
from scale.run.reports import reported
with reported("reward worker"):
    raise ZeroDivisionError("no tokens")
"""


def test_reported_failure_ends_a_run_that_hangs(tmp_path):
    outcome = run(f"try:\n{textwrap.indent(REPORT, ' ')}\nexcept Exception: pass\n{HANG}", tmp_path)
    assert outcome.reason == "failed"
    assert outcome.seconds < SOON
    assert "reward worker" in outcome.cause()
    assert "ZeroDivisionError: no tokens" in outcome.cause()
    assert 'File "<string>", line 5' in outcome.cause()
    assert left(tmp_path) == []


def test_reported_failure_counts_though_the_command_succeeds(tmp_path):
    outcome = run(f"try:\n{textwrap.indent(REPORT, ' ')}\nexcept Exception: pass", tmp_path)
    assert (outcome.reason, outcome.returncode) == ("failed", 0)
    assert "no tokens" in outcome.cause()


def test_deadline(tmp_path):
    outcome = run(f"from scale.run.reports import beat\nbeat(3)\n{HANG}", tmp_path, deadline=1.5)
    assert outcome.reason == "deadline"
    assert 1.5 <= outcome.seconds < SOON
    assert "deadline" in outcome.cause()
    assert "last step was 3" in outcome.cause()


def env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def ending(code: str, folder: Path, **options: Any) -> Outcome:
    """Run code after a beat that begins the phase `update` of step 4."""
    begun = "import time\nfrom scale.run import beat, pulse\nbeat(3, 'update')\n"
    return run(begun + textwrap.dedent(code), folder, **options)


def test_silence_of_a_run_in_which_nothing_moves(tmp_path):
    outcome = ending("time.sleep(100)", tmp_path, silence=4)
    assert outcome.reason == "silence"
    assert 4 <= outcome.seconds < 4 + SOON
    assert 4 <= outcome.silent < supervisor.MOVING * 4
    cause = outcome.cause()
    assert cause.startswith("no progress for ")
    assert "in the phase update, where the limit is 4 s: it is stuck, and nothing moves: in the last" in cause
    assert "the last step was 3" in cause
    assert run(HANG, tmp_path, silence=1).cause().startswith("no progress for 1 s, where the limit is 1 s")


MOVES = {
    "spin": "while True: pass",
    "log": "while True: time.sleep(0.1); print('still here', flush=True)",
    "load": "while True: time.sleep(0.1); open('/dev/zero', 'rb').read(10**6)",
}


def test_a_silent_run_that_moves_has_a_multiple_of_its_limit(tmp_path):
    """A hung collective spins on the CPU and the GPU, so movement buys time, but not for ever; the message says so."""
    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(lambda x: ending(MOVES[x], tmp_path / x, silence=3, deadline=60), MOVES))
    for outcome in outcomes:
        assert outcome.reason == "silence"
        assert outcome.silent >= supervisor.MOVING * 3
        assert "it moves, but 3 times the limit are over" in outcome.cause()
        assert "a hung collective" in outcome.cause()


def test_a_gpu_that_works_is_movement(tmp_path, monkeypatch):
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text("#!/bin/bash\n[[ \"$*\" == *--query-gpu=utilization.gpu* ]] && printf '0\\n97\\n'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    outcome = ending("time.sleep(100)", tmp_path, silence=1, deadline=60)
    assert (outcome.reason, outcome.silent >= supervisor.MOVING) == ("silence", True)
    assert "GPUs at 0, 97 %" in outcome.cause()


def test_a_look_that_takes_long_is_no_pause(tmp_path, monkeypatch):
    """A driver that is in trouble keeps `nvidia-smi` waiting: that is when a run must be ended."""
    monkeypatch.setattr(supervisor, "STOPPED_FOR", 0.5)
    monkeypatch.setattr(supervisor, "sample", lambda *args: time.sleep(1) or sample(*args))
    outcome = ending("time.sleep(100)", tmp_path, silence=4, deadline=20)
    assert (outcome.reason, outcome.moved.moving) == ("silence", False)


def test_a_look_at_gpus_ends_though_nvidia_smi_does_not(tmp_path, monkeypatch):
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/bash\nexec sleep 100\n")
    fake.chmod(0o755)
    held = []

    class Held(subprocess.Popen):
        """A process in the kernel's hands, which cannot be killed."""

        def kill(self):
            held.append(self)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(activity, "LONGEST", 0.2)
    monkeypatch.setattr(activity.subprocess, "Popen", Held)
    assert activity.gpu_use() == ()
    assert held[0].poll() is None
    held[0].send_signal(signal.SIGKILL)
    held[0].wait()


def test_progress_that_cannot_be_read_keeps_the_phase(tmp_path):
    """As over NFS, where a file may be replaced while it is read; the phase of the next beat counts again."""
    code = """
        from pathlib import Path
        import os
        told = Path(os.environ["DYNAMO_RUN_FOLDER"], "progress.json")
        time.sleep(1)
        told.write_text('{"step"')
        time.sleep(5)
        beat(4, 'weight sync')
        time.sleep(100)
        """
    outcome = ending(code, tmp_path, silence=1, phases={"update": 60.0, "weight sync": 3.0}, deadline=40)
    assert (outcome.reason, outcome.phase, outcome.limit) == ("silence", "weight sync", 3.0)


def test_a_slow_run_is_not_ended(tmp_path, monkeypatch):
    """It is silent for far longer than its limit in one phase, and computes, if only on a part of a busy core."""
    monkeypatch.setattr(activity, "CORES", 0.02)
    code = """
        end = time.monotonic() + 7
        while time.monotonic() < end: pass
        beat(4, 'weight sync')
        time.sleep(2)
        """
    outcome = ending(code, tmp_path, silence=3, deadline=60)
    assert (outcome.reason, outcome.step) == ("finished", 4)


def test_every_phase_has_its_own_limit(tmp_path):
    """Sleeping for six times the usual limit in a phase that may, and then hanging in one that may not."""
    code = "time.sleep(6); beat(3, 'checkpoint'); time.sleep(100)"
    outcome = ending(code, tmp_path, silence=1, phases={"update": 20.0, "checkpoint": 2.0}, deadline=60)
    assert (outcome.reason, outcome.phase, outcome.limit) == ("silence", "checkpoint", 2.0)
    assert outcome.seconds > 8


def test_pulses_of_a_worker_keep_a_phase_alive(tmp_path):
    code = "import scale.run.reports as r; r.PULSE_EVERY = 0.5\nfor _ in range(80): time.sleep(0.1); pulse()"
    assert ending(code, tmp_path, silence=4, deadline=60).reason == "finished"


STOPS = """
from scale.run import asked_to_stop
while not asked_to_stop(): time.sleep(0.05)
beat(3, 'stopping')
"""


def asked(code: str, folder: Path, grace: float) -> Outcome:
    ask = threading.Event()
    timer = threading.Timer(3.0, ask.set)
    timer.start()
    try:
        return ending(code, folder, ask=ask, grace=grace, deadline=60, silence=60)
    finally:
        timer.cancel()


def test_a_run_that_is_asked_to_stop_saves_and_ends(tmp_path):
    """Whatever of it fails meanwhile: its rollouts were given up."""
    fails = f"try:\n{textwrap.indent(REPORT, ' ')}\nexcept Exception: pass\n"
    outcome = asked(f"{STOPS}{fails}time.sleep(2); beat(3, 'stopped')", tmp_path, 30)
    assert (outcome.reason, outcome.failures, outcome.phase) == ("stopped", (), "stopped")
    assert "nothing of it is lost" in outcome.cause()


def test_a_failure_to_save_is_a_failure(tmp_path):
    outcome = asked(STOPS + REPORT, tmp_path, 30)
    assert (outcome.reason, outcome.phase) == ("failed", "stopping")
    assert "no tokens" in outcome.cause()


def test_a_run_that_does_not_save_in_time_is_interrupted(tmp_path):
    outcome = asked("time.sleep(100)", tmp_path, 1.0)
    assert (outcome.reason, outcome.phase) == ("interrupted", "update")
    assert 4 <= outcome.seconds < 4 + SOON
    assert left(tmp_path) == []


def test_a_run_that_has_not_begun_its_first_step_has_nothing_to_save(tmp_path):
    for code in ("time.sleep(100)", "from scale.run import beat; beat(5, 'vLLM'); time.sleep(100)"):
        ask = threading.Event()
        threading.Timer(1.5, ask.set).start()
        outcome = run("import time; " + code, tmp_path, ask=ask, grace=100, deadline=60, silence=60)
        assert (outcome.reason, outcome.seconds < SOON) == ("stopped", True)


def test_a_new_start_forgets_that_the_last_was_asked_to_stop(tmp_path):
    (tmp_path / "stop").touch()
    assert run("from scale.run import asked_to_stop; assert not asked_to_stop()", tmp_path).reason == "finished"


def test_beats_keep_a_run_alive(tmp_path):
    code = "import time\nfrom scale.run.reports import beat\nfor i in range(6): beat(i, reward=0.5); time.sleep(1)"
    outcome = run(code, tmp_path, silence=5)
    assert outcome.reason == "finished"
    assert outcome.progress["step"] == 5
    assert outcome.progress["reward"] == 0.5


def test_run_starts_anew_in_a_folder(tmp_path):
    run("from scale.run.reports import beat\nbeat(1)\nprint('first')\n" + REPORT, tmp_path)
    assert len(read_failures(tmp_path)) == 1
    earlier = (tmp_path / CURRENT).read_text()
    outcome = run("from scale.run.reports import require_current; require_current(); print('second')", tmp_path)
    assert (tmp_path / CURRENT).read_text() != earlier
    assert (outcome.reason, outcome.failures, outcome.progress, outcome.lines) == ("finished", (), None, ("second",))
    assert (tmp_path / "log.txt").read_text().startswith("first\n")


def test_output_that_is_not_utf8(tmp_path):
    outcome = run(r"import sys; sys.stdout.buffer.write(b'a\xff\n\xe2\x82')", tmp_path)
    assert outcome.lines == ("a�", "�")
    assert (tmp_path / "log.txt").read_bytes() == b"a\xff\n\xe2\x82"


def test_arguments_see_no_shell(tmp_path):
    argument = "$HOME; exit 3 'x' *"
    outcome = supervise(
        [*command("import sys; print(sys.argv[1])"), argument], folder=tmp_path, deadline=20, silence=20
    )
    assert outcome.lines == (argument,)


@pytest.mark.parametrize("bad", [[], ["no-such-program"]])
def test_bad_command(bad, tmp_path):
    with pytest.raises(ValueError, match="command: expected a program"):
        supervise(bad, folder=tmp_path, deadline=1, silence=1)


# Nothing is left


@pytest.mark.parametrize("hidden", [False, True], ids=["with environment", "without"])
@pytest.mark.parametrize("hangs", [False, True], ids=["ends", "hangs"])
def test_daemon_that_ignores_sigterm_is_gone(hidden, hangs, tmp_path):
    ready = str(tmp_path / "ready")
    code = DAEMON.format(hidden=hidden, ready=ready) + "\ntime.sleep(0.5)" + (HANG if hangs else "")
    outcome = run(code, tmp_path, silence=4 if hangs else 20)
    assert outcome.reason == ("silence" if hangs else "finished")
    assert hidden or Path(ready).exists()
    assert outcome.seconds < (4 + SOON if hangs else SOON)
    assert left(tmp_path) == []
    assert not [process for process in psutil.process_iter() if ready in cmdline(process)]


def cmdline(process: Any) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


PARENT = """
import sys
from pathlib import Path
from scale.run.supervisor import supervise
folder = Path(sys.argv[1])
outcome = supervise(
    [sys.executable, "-c", sys.argv[2]], folder=folder, deadline=50, silence=50, temporary=folder / "temporary"
)
print(outcome.reason)
"""


def parent_of(folder: Path) -> subprocess.Popen[str]:
    (folder / "temporary" / "ray").mkdir(parents=True)
    code = DAEMON.format(hidden=False, ready=str(folder / "ready")) + HANG
    # Its own session, and Ctrl-C heard even where the tests run with it ignored.
    parent = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.signal(2, signal.default_int_handler)\n" + PARENT, folder, code],
        env=env(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert eventually((folder / "ready").exists)
    assert len(left(folder)) == 3  # guard, command, daemon
    return parent


def test_parent_killed(tmp_path):
    with parent_of(tmp_path) as parent:
        parent.kill()
        assert eventually(lambda: not left(tmp_path))
        assert eventually(lambda: not (tmp_path / "temporary").exists())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_parent_interrupted(number, tmp_path):
    with parent_of(tmp_path) as parent:
        parent.send_signal(number)
        assert parent.communicate(timeout=60)[0] == "interrupted\n"
    assert left(tmp_path) == []
    assert not (tmp_path / "temporary").exists()


def test_vllms_sockets_are_gone_with_the_run(tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = "import os, socket; socket.socket(socket.AF_UNIX).bind(os.path.join(os.environ['VLLM_RPC_BASE_PATH'], 's'))"
    assert run(code, tmp_path, temporary=temporary).reason == "finished"
    assert not temporary.exists()


def test_guard_killed(tmp_path):
    code = DAEMON.format(hidden=False, ready=str(tmp_path / "ready"))
    code += "\ntime.sleep(0.5); os.kill(os.getppid(), 9)" + HANG
    outcome = run(code, tmp_path)
    assert (outcome.reason, outcome.returncode) == ("failed", 137)
    assert left(tmp_path) == []


def test_echo_that_fails_ends_the_run(tmp_path):
    def echo(line: str) -> None:
        raise KeyError(line)

    with pytest.raises(KeyError, match="hello"):
        run("print('hello', flush=True)" + HANG, tmp_path, echo=echo)
    assert left(tmp_path) == []


def test_runs_side_by_side(tmp_path):
    outcomes: dict[str, Outcome] = {}

    def start(name: str, code: str, silence: float) -> None:
        outcomes[name] = run(code, tmp_path / name, silence=silence)

    threads = [
        threading.Thread(target=start, args=("a", "import time; time.sleep(4); print('alive')", 20)),
        threading.Thread(target=start, args=("b", HANG, 1)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes["b"].reason == "silence"
    assert (outcomes["a"].reason, outcomes["a"].lines) == ("finished", ("alive",))


def test_a_run_in_a_thread_is_stopped(tmp_path):
    """As `scale.launch.progress.train_all` does on Ctrl-C: signals reach the main thread alone."""
    stop, outcomes = threading.Event(), []
    thread = threading.Thread(target=lambda: outcomes.append(run(HANG, tmp_path, stop=stop)))
    thread.start()
    assert eventually(lambda: left(tmp_path))
    stop.set()
    thread.join()
    assert [outcome.reason for outcome in outcomes] == ["interrupted"]
    assert left(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="no shared memory in files")
@pytest.mark.parametrize("prefix", ["psm_", "verl_weights_"])
def test_shared_memory_of_a_killed_process_is_gone(prefix, tmp_path):
    name = f"{prefix}{uuid.uuid4().hex}"
    code = """
    import signal, time
    from multiprocessing import resource_tracker, shared_memory
    resource_tracker.register = lambda *args: None
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    memory = shared_memory.SharedMemory({name}, create=True, size=4096)
    memory.buf[0] = 1
    print(memory.name, flush=True)
    time.sleep(100)
    """
    outcome = run(code.replace("{name}", repr(name)), tmp_path, silence=6)
    assert outcome.lines == (name,)
    assert not Path("/dev/shm", name).exists()


def test_first_cause_comes_first():
    first, second = (Failure(f"part {i}", "E", "m", "", i, float(i)) for i in range(2))
    cause = Outcome("failed", 1, 2.0, (first, second), ("noise",)).cause()
    assert "part 0" in cause
    assert "part 1" not in cause
    assert "1 more failure followed" in cause
    assert "noise" not in cause
    json.dumps(cause)
