"""Who can reach a run: what its processes are told, what is refused, and what ends it. Real runs are in `run/`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile

import pytest

from scale.launch import network
from scale.run import RUN_FOLDER, read_failures
from tests.scale.conftest import ROOT, eventually
from tests.scale.launch.conftest import compose
from theory.base.files import write_json

pytestmark = pytest.mark.needs_verl


def test_on_one_machine_all_is_told_to_use_loopback(launch, tmp_path, monkeypatch):
    """Whatever the user's shell says of networks; and a proxy is passed by."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    outside = {"NCCL_SOCKET_IFNAME": "eth0", "GLOO_SOCKET_IFNAME": "eth0", "VLLM_HOST_IP": "10.0.0.1"}
    for name, value in {**outside, "no_proxy": ".site", "HTTP_PROXY": "http://proxy:8080"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_PROXY", raising=False)
    tokens = set()
    for model, cluster in (("tiny", "cpu"), ("qwen2.5-math-7b", "1x8-a100")):
        config = launch.compose(model, cluster, out=tmp_path, overrides=["tiny_folder=x"] * (model == "tiny"))
        found = launch.environment(config, tmp_path, tmp_path / cluster)
        assert {name: found[name] for name in outside} == {
            "NCCL_SOCKET_IFNAME": "lo",
            "GLOO_SOCKET_IFNAME": "lo",
            "VLLM_HOST_IP": "127.0.0.1",
        }
        assert found["RAY_AUTH_MODE"] == "token"
        tokens.add(found["RAY_AUTH_TOKEN"])
        assert found["no_proxy"] == ".site,127.0.0.1,localhost,::1"
        assert found["NO_PROXY"] == "127.0.0.1,localhost,::1"
        assert found["HTTP_PROXY"] == "http://proxy:8080"
    assert len(tokens) == 2, "of the run alone"


def test_ray_takes_the_loopback_address_by_its_variable():
    """The reason why all else does: verl and TransferQueue ask Ray for the node's address."""
    code = "import ray; print(ray.util.get_node_ip_address())"
    environ = os.environ | network.loopback(os.environ)
    said = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "127.0.0.1"


# Several nodes


@pytest.fixture
def cluster(launch, tmp_path, monkeypatch):
    """Compose a run that joins a Ray cluster."""

    def compose_two(*overrides):
        return launch.compose("qwen2.5-math-7b", "2x8-a100", out=tmp_path, overrides=overrides)

    monkeypatch.setattr(network, "without_token", lambda address: "AuthenticationError")
    return compose_two


def test_on_several_nodes_the_interface_is_named(launch, cluster, tmp_path, monkeypatch):
    for value in ("null", "nowhere0"):
        with pytest.raises(ValueError, match=r"network.interface: expected the interface of .*'lo'.* run code"):
            network.check(cluster(f"network.interface={value}"))
    named = cluster("network.interface=lo")
    network.check(named)
    monkeypatch.setattr(os, "environ", {**os.environ, **launch.environment(named, tmp_path, tmp_path)})
    launch.hand_on(named)
    found = named.ray_kwargs.ray_init.runtime_env.env_vars
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        assert found[name] == "lo"
    assert os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") is None
    assert not [name for name in found if "KEY" in name or "TOKEN" in name], "verl prints them"


@pytest.fixture(params=["token", "disabled"])
def ray(request):
    """Start Ray for others to join, with or without a token; returns which, and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environ = os.environ | network.loopback(os.environ)
    environ |= {"RAY_AUTH_MODE": request.param, "RAY_AUTH_TOKEN": "0" * 32}
    words = ["start", "--head", "--block", "--num-cpus=1", "--include-dashboard=false", "--disable-usage-stats"]
    host, port = address.split(":")
    folder = tempfile.mkdtemp(prefix="ray")  # sockets: the path must be short
    place = [f"--node-ip-address={host}", f"--port={port}", f"--temp-dir={folder}"]
    program = [sys.executable, "-m", "ray.scripts.scripts"]
    here = [*program, "status", "--address", address]
    process = subprocess.Popen([*program, *words, *place], env=environ, stdout=subprocess.DEVNULL)
    try:
        assert eventually(lambda: not subprocess.run(here, env=environ, capture_output=True).returncode, 300)
        yield request.param, address
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder)


@pytest.mark.long
def test_on_several_nodes_ray_lets_in_nobody_without_a_token(ray, launch, tmp_path, monkeypatch):
    """A real Ray is asked, whatever this shell's variables say of tokens."""
    mode, address = ray
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)
    # Ray would look for a cluster on the loopback address at this machine's other one.
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    changes = ["network.interface=lo", f"ray_kwargs.ray_init.address='{address}'"]
    config = launch.compose("qwen2.5-math-7b", "2x8-a100", out=tmp_path, overrides=changes)
    if mode == "token":
        network.check(config)
    else:
        with pytest.raises(ValueError, match="Ray: expected a cluster that refuses a call without a token"):
            network.check(config)


NODES = """
import sys
from pathlib import Path
from scale import launch
from scale.launch import network
for interface in ("lo", "nowhere0"):
    changes = [f"network.interface={interface}", f"ray_kwargs.ray_init.address='{sys.argv[1]}'"]
    network.check_nodes(launch.compose("qwen2.5-math-7b", "2x8-a100", out=Path(sys.argv[2]), overrides=changes))
    print("right:", interface, flush=True)
"""


@pytest.mark.long
@pytest.mark.parametrize("ray", ["token"], indirect=True)
def test_nodes_that_ray_knows_by_another_network_are_refused(ray, tmp_path):
    """Before TransferQueue listens there."""
    environ = os.environ | network.loopback(os.environ)
    environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", NODES, ray[1], tmp_path]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["right: lo"], done.stderr
    expected = "network.interface: expected on nowhere0 the address by which Ray knows this node, 127.0.0.1, got []"
    assert expected in done.stderr.splitlines()[-1]


def test_the_nodes_are_looked_at_before_verl_starts(monkeypatch, tmp_path):
    from scale.launch import driver

    main_ppo = pytest.importorskip("verl.trainer.main_ppo")

    def refuse(config):
        raise ValueError("network.interface: no")

    monkeypatch.setattr(network, "check_nodes", refuse)
    monkeypatch.setattr(main_ppo, "run_ppo", lambda *args, **more: pytest.fail("verl has started"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_json(tmp_path / "config.json", {"ray_kwargs": {"ray_init": {}}, "network": {"trust": True}})
    with pytest.raises(ValueError, match=r"network\.interface: no"):
        driver.main(str(tmp_path / "config.json"))


def test_a_vllm_on_several_nodes_is_refused(cluster):
    wide = "actor_rollout_ref.rollout.tensor_model_parallel_size=16"
    with pytest.raises(ValueError, match=r"expected a vLLM on one node, .* got 16 GPUs of 8 a node"):
        network.check(cluster("network.interface=lo", wide))


def test_who_trusts_the_network_may_start(cluster, monkeypatch):
    monkeypatch.setattr(network, "without_token", None)
    network.check(cluster("network.trust=true"))
    network.check(cluster("network.trust=true", "network.interface=lo"))
    with pytest.raises(ValueError, match=r"network.trust: expected true or false, got 'perhaps'"):
        network.check(cluster("network.trust=perhaps"))
    with pytest.raises(ValueError, match=r"network.interface: expected the interface"):
        network.check(cluster("network.trust=true", "network.interface=nowhere0"))


def test_the_check_is_part_of_a_start(launch, tmp_path, monkeypatch):
    """And not of a dry run, which may be on another machine."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = compose(launch, tmp_path, "network.interface=lo")
    launch.check(config, tmp_path / "run", files=False)
    with pytest.raises(ValueError, match=r"network.interface: expected none, since a run on one machine keeps to 127"):
        launch.check(config, tmp_path / "run")


def test_the_option_is_the_setting(monkeypatch):
    from scale import __main__ as program

    seen = []
    monkeypatch.setattr(program, "train_command", lambda args, console: seen.append(args.overrides) or 0)
    for words in (["train"], ["train", "--trust-network", "trainer.save_freq=5"]):
        assert program.main(words) == 0
    assert seen == [[], ["trainer.save_freq=5", "network.trust=true"]]


# While it runs

LISTENER = """
import socket, sys
made = socket.create_server((sys.argv[1], 0))
print(made.getsockname()[1], flush=True)
input()
"""


@pytest.fixture
def listener(tmp_path):
    """Start a process of a run in `tmp_path` that listens; returns its port."""
    started = []

    def start(address):
        environ = os.environ | {RUN_FOLDER: str(tmp_path)}
        words = [sys.executable, "-c", LISTENER, address]
        process = subprocess.Popen(words, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def watched(launch, tmp_path, monkeypatch, *overrides):
    """Watch the run in `tmp_path`, looking all the time; returns the failures that it reported."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv(RUN_FOLDER, str(tmp_path))
    monkeypatch.setattr(network, "PERIOD", 0.05)
    thread = network.watch(compose(launch, tmp_path, *overrides))
    if thread is not None:
        thread.join(1.0)
    return read_failures(tmp_path)


def test_a_port_that_others_reach_ends_the_run(launch, tmp_path, monkeypatch, listener):
    inside = listener("127.0.0.1")
    assert network.outward(tmp_path) == []
    port = listener("0.0.0.0")
    (failure,) = watched(launch, tmp_path, monkeypatch)
    assert f"expected ports on 127.0.0.1 alone, got 0.0.0.0 port {port}, process" in failure.message
    assert inside not in failure.message
    assert "--trust-network" in failure.message


def test_a_trusted_network_is_not_watched(launch, tmp_path, monkeypatch, listener):
    listener("0.0.0.0")
    assert watched(launch, tmp_path, monkeypatch, "network.trust=true") == ()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    config = compose(launch, tmp_path)
    assert network.watch(config) is None
