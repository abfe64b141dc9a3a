"""Real runs of verl and vLLM on the CPU, shared by the tests: one process at a time, some seconds a step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scale.run import records
from scale.run.reports import RUN_FOLDER, read_failures
from tests.scale.sockets import Sockets
from theory.base.files import read_line

ROOT = Path(__file__).parents[2]


class Runs:
    """Runs of `python -m scale train` on the tiny model, small: 8 prompts x 8 rollouts, 3 batches an epoch."""

    def __init__(self, folder):
        self.folder = folder
        self.sockets = {}
        self.loops = folder / "loops.yaml"
        self.loops.write_text("- name: failing\n  _target_: tests.scale.faults.FailingLoop\n")

    def start(self, name, *arguments, steps=4, changes=(), program=("-m", "scale")):
        """Start a run, with changes of the settings below; returns the process and the run's folder."""
        out = self.folder / name
        settings = {
            "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
            "actor_rollout_ref.rollout.agent.agent_loop_config_path": self.loops,
            "actor_rollout_ref.rollout.agent.default_agent_loop": "failing",
            "actor_rollout_ref.rollout.engine_kwargs.vllm.worker_extension_cls": "tests.scale.faults.FailingExtension",
            "data.train_batch_size": 8,
            "data.train_max_samples": 24,
            "reward.custom_reward_function.path": ROOT / "tests" / "scale" / "faults.py",
            "trainer.checkpoint_callback_class": "tests.scale.faults.FailingCallback",
            "trainer.rollout_data_dir": out / "rollouts",
            "trainer.save_freq": 1,
            "trainer.test_freq": -1,
            "trainer.val_before_train": "false",
        } | dict(changes)
        command = [
            sys.executable,
            *program,
            "train",
            "--steps",
            str(steps),
            "--out",
            str(out),
            "--deadline",
            "900",
        ]
        overrides = [f"{key}={value}" for key, value in settings.items()]
        environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with (self.folder / f"{name}.txt").open("a") as output:
            process = subprocess.Popen(
                [*command, *arguments, *overrides], cwd=self.folder, env=environ, stdout=output, stderr=output
            )
        return process, out

    def fail(self, name, part, *arguments, after, changes=()):
        """Let a part fail after a step, while the run goes on; returns the folder and the seconds until the end."""
        process, out = self.start(name, *arguments, steps=1000, changes=changes)
        self.wait_for(process, name, after)
        (out / f"fail-{part}").touch()
        asked = time.monotonic()
        assert process.wait(timeout=120) == 1, self.said(name)
        (out / f"fail-{part}").unlink()
        return out, time.monotonic() - asked

    def kill(self, name, *arguments, after, steps=4):
        """Kill a run and all of its processes after a step; its sockets have been looked at."""
        process, out = self.start(name, *arguments, steps=steps)
        with Sockets(out) as self.sockets[name]:
            self.wait_for(process, name, after)
        process.send_signal(signal.SIGKILL)
        process.wait()
        return out

    def wait_for(self, process, name, step):
        """Wait until a step is done."""
        deadline = time.monotonic() + 480
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                if json.loads((self.folder / name / "progress.json").read_text())["step"] >= step:
                    return
            except (OSError, ValueError, KeyError):
                pass
            time.sleep(0.05)
        process.kill()
        pytest.fail(f"{name}: no step {step}: {self.said(name)}")

    def said(self, name):
        """Return what the command printed."""
        return (self.folder / f"{name}.txt").read_text()


def lines(out, file="metrics.jsonl"):
    """Return the records of a run, or the samples of an evaluation."""
    readers = {"metrics.jsonl": records.read_metrics, "allocation.jsonl": records.read_allocation}
    if file in readers:
        return readers[file](out / file)
    return [read_line(line, file) for line in (out / file).read_text().splitlines()]


def learning(out):
    """Return what was learnt, by step: everything but times, memory and vLLM's own probabilities.

    vLLM computes them in batches that depend on when requests arrive, so that they differ by rounding.
    """
    left_out = ("timing", "perf", "actor/perf", "training/rollout", "step")
    return {line["step"]: {name: x for name, x in line.items() if not name.startswith(left_out)} for line in lines(out)}


def left(folder):
    """Return the processes of the supervised run in a folder."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN_FOLDER) == str(folder.resolve()):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def eventually(condition, seconds=60):
    """Return whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def ended_with_its_cause(failed, where, part):
    """Require what a run that failed on demand must show: within a minute, with its cause, and no process is left."""
    out, seconds = failed
    assert seconds < 60
    said = (out.parent / f"{out.name}.txt").read_text()
    assert f"a deliberate failure of the {part}" in said
    assert where in said
    assert left(out) == []
    ended = [int(failure.pid) for failure in read_failures(out)]
    assert ended
    # A killed process with much memory is there for a moment more, without an environment for `left` to see.
    assert eventually(lambda: not [pid for pid in ended if Path(f"/proc/{pid}").exists()])


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


SMOKE_METHODS = ("stock", "dynamo")
SMOKE_STEPS = 3
SMOKE_SECRETS = {"HF_TOKEN": "hf_smoke0123456789", "WANDB_API_KEY": "wandbsmoke0123456789"}


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """Run `python -m scale smoke`, stock for GRPO; returns its folder, what it printed, and its sockets."""
    folder = tmp_path_factory.mktemp("smoke")
    words = ["--steps", str(SMOKE_STEPS), "--methods", *SMOKE_METHODS, "--jobs", "1", "--out", "smoke"]
    command = [sys.executable, "-m", "scale", "smoke", *words, f"trainer.test_freq={SMOKE_STEPS}"]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | SMOKE_SECRETS
    with Sockets(folder) as sockets:
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "smoke", done.stdout, sockets
