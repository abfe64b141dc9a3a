"""A run's processes on two nodes, and the examples that start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scale.launch import joins_ray
from tests.scale.conftest import eventually
from theory.base.files import write_json

pytestmark = pytest.mark.needs_verl

ROOT = Path(__file__).parents[3]


def test_a_run_on_two_nodes_joins_ray(launch, tmp_path, monkeypatch):
    """Processes there get the supervisor's names with the job; a Ray of the run's own would inherit them."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    two, one = (launch.compose("qwen2.5-math-7b", x, out=tmp_path) for x in ("2x8-a100", "1x8-a100"))
    assert (joins_ray(two), joins_ray(one)) == (True, False)
    assert two.ray_kwargs.ray_init.num_cpus is None  # Ray refuses it with an address
    assert "RAY_TMPDIR" not in launch.environment(two, tmp_path, tmp_path).keys() - os.environ.keys()
    environ = launch.environment(one, tmp_path, tmp_path)
    assert (environ["RAY_TMPDIR"], environ["TENSORBOARD_DIR"]) == (str(tmp_path), str(tmp_path / "tensorboard"))
    monkeypatch.setenv("DYNAMO_RUN_ID", "x")
    monkeypatch.setenv("DYNAMO_RUN_FOLDER", str(tmp_path))
    for config in (one, two):
        launch.hand_on(config)
    found = two.ray_kwargs.ray_init.runtime_env.env_vars
    assert found.DYNAMO_RUN_ID == "x"
    assert Path(found.DYNAMO_RUN_FOLDER) == tmp_path
    assert "env_vars" not in one.ray_kwargs.ray_init.runtime_env
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert joins_ray(one)


def test_a_run_whose_rollouts_hang_does_not_move(launch, tmp_path, monkeypatch):
    """Verl's trainer would print a line a minute while it waits for them: the log would grow."""
    from verl.trainer.ppo.v1 import replay_buffer

    name = "VERL_REPLAY_BUFFER_DEBUG_INTERVAL_SECONDS"
    assert int(os.environ.get(name, 60)) == replay_buffer.VERL_REPLAY_BUFFER_DEBUG_INTERVAL_SECONDS
    two = launch.compose("qwen2.5-math-7b", "2x8-a100", out=tmp_path)
    environ = launch.environment(two, tmp_path, tmp_path)
    assert int(environ[name]) > launch.limits_of(two).deadline
    monkeypatch.setenv(name, environ[name])
    launch.hand_on(two)
    assert two.ray_kwargs.ray_init.runtime_env.env_vars[name] == environ[name]


def test_the_driver_hands_its_environment_on(launch, tmp_path, monkeypatch):
    """To processes on a Ray that does not inherit it; what verl is called with."""
    from omegaconf import OmegaConf
    from verl.trainer import main_ppo

    from scale.launch import driver

    given = []
    monkeypatch.setattr(main_ppo, "run_ppo", lambda config, **more: given.append(config))
    monkeypatch.setenv("DYNAMO_RUN_ID", "x")
    config = launch.compose("qwen2.5-math-7b", "2x8-a100", out=tmp_path)
    write_json(tmp_path / "config.json", OmegaConf.to_container(config))
    driver.main(str(tmp_path / "config.json"))
    assert given[0].ray_kwargs.ray_init.runtime_env.env_vars.DYNAMO_RUN_ID == "x"


FAKES = {
    "ip": 'echo "2: $6    inet 10.0.0.1/24 brd 10.0.0.255 scope global $6"',
    "python": f'if [ "$1" = -c ]; then exec {sys.executable} "$@"; fi; echo "python $RAY_ADDRESS $*" >> "$CALLS"',
    "ray": """
        if [ "$1" = status ]; then echo ' 0.0/16.0 GPU'; exit; fi
        echo "ray ${#RAY_AUTH_TOKEN} $*" >> "$CALLS"
        """,
    "scontrol": """if [ "$1" = requeue ]; then echo "$*" >> "$CALLS"; else printf 'one\\ntwo\\n'; fi""",
    "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
    "ssh": 'exec bash -c "$2"',
}
"""What a cluster has and this machine may not; the calls are written down."""


def faked(tmp_path, fakes):
    """Return an environment with stand-ins for a cluster's commands, and the file that they write their calls into."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    for command_name, body in fakes.items():
        path = tmp_path / "bin" / command_name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    calls = tmp_path / "calls.txt"
    environ = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "INTERFACE": "eth7",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NODELIST": "one,two",
        "SLURM_CPUS_PER_TASK": "64",
    }
    return environ, calls


@pytest.mark.parametrize(
    ("name", "before"), [("slurm-2x8-a100.sh", ()), ("ray-cluster.sh", ("two",))], ids=["slurm", "ray"]
)
def test_examples_start_ray_on_two_nodes_and_the_run_on_it(launch, tmp_path, name, before):
    """Bash runs them, with stand-ins for the cluster's commands; our parser reads the call that they make."""
    from scale.__main__ import _cell, parser

    script = ROOT / "scale" / "examples" / name
    assert subprocess.run(["bash", "-n", str(script)], check=False, capture_output=True).returncode == 0
    assert os.access(script, os.X_OK)
    environ, calls = faked(tmp_path, FAKES)
    wanted = ["--experiment", "fig4", "--cell", "14b-dynamo-1"]
    assert " ".join([f"scale/examples/{name}", *(["OTHER_NODE"] if before else []), *wanted]) in script.read_text()
    done = subprocess.run(
        ["bash", str(script), *before, *wanted],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = [line.split() for line in calls.read_text().splitlines()]
    starts = [line for line in found if line[0] == "ray" and line[2] == "start"]
    assert {"--head" in line for line in starts} == {True, False}
    assert all(line[1] == "64" and "--num-gpus=8" in line for line in starts), "with a token and all GPUs"
    assert all("--node-ip-address=10.0.0.1" in line for line in starts)
    assert next("--address=10.0.0.1:6379" in line for line in starts if "--head" not in line)
    (address, *words) = next(line[1:] for line in found if line[0] == "python")
    assert (address, words[:2]) == ("10.0.0.1:6379", ["-m", "scale"])
    args = parser("train").parse_args(words[2:])
    cell = _cell(args)
    config = launch.compose(cell.model, args.cluster, out=tmp_path / "run", overrides=[*cell.settings, *args.overrides])
    launch.check(config, tmp_path / "run", files=False)
    assert (cell.name, config.trainer.nnodes, joins_ray(config)) == ("14b-dynamo-1", 2, True)
    assert config.network.interface == "eth7"


@pytest.mark.parametrize(("trap", "status", "requeued"), [("sleep 0.5; exit 75", 75, True), ("exit 1", 1, False)])
def test_slurms_signal_reaches_the_run_whose_status_decides(tmp_path, trap, status, requeued):
    """A run that has saved is put into the queue again, one that has failed is not."""
    waits = f'if [ "$1" = -m ]; then trap \'{trap}\' TERM; echo started >> "$CALLS"; while :; do sleep 0.1; done; fi'
    environ, calls = faked(tmp_path, FAKES | {"python": f'{waits}; exec {sys.executable} "$@"'})
    script = ROOT / "scale" / "examples" / "slurm-2x8-a100.sh"
    process = subprocess.Popen(["bash", str(script)], env=environ, cwd=tmp_path)
    assert eventually(lambda: calls.exists() and "started" in calls.read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == status
    assert ("requeue 17" in calls.read_text()) == requeued
