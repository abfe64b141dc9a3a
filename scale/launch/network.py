"""Who can reach the ports of a run: on one machine, only that machine.

Ray, TransferQueue, torch and vLLM listen on TCP ports, and most of them unpickle what arrives, from anybody. So whoever
reaches such a port runs code as the user. On one machine everything listens on the loopback address. A run that joins a
Ray cluster listens on the interface that `network.interface` names, and Ray itself lets in nobody without a token.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scale.launch.configuration import joins_ray
from scale.run import RUN_FOLDER, report_failure

LOOPBACK = "127.0.0.1"

PERIOD = 2.0
"""Seconds between two looks at the sockets of a run."""

TRUST = "or accept the risk with --trust-network (docs/laptop-to-a100s.md, Network)"


def loopback(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep a run's processes on the loopback address; `environ` is their environment so far.

    Ray takes the address that a node shows to others for its own, and listens on all. By the first variable, which is
    made for systems whose firewalls ask about every port, it takes the loopback address, and listens on it alone. verl
    and TransferQueue ask Ray for the address of the node. The others ask the name of the host unless they are told.
    """
    variables = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "GLOO_SOCKET_IFNAME": loopback_interface(),
        "NCCL_SOCKET_IFNAME": loopback_interface(),
        "VLLM_HOST_IP": LOOPBACK,
        "VLLM_LOOPBACK_IP": LOOPBACK,
    }
    for name in ("no_proxy", "NO_PROXY"):  # Calls on this machine pass by a proxy.
        there = [environ[name]] if environ.get(name) else []
        variables[name] = ",".join([*there, LOOPBACK, "localhost", "::1"])
    return variables


def loopback_interface() -> str:
    """Return the name of the loopback interface, which must be up."""
    import psutil

    try:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
    except OSError as error:
        raise ValueError(f"network: expected a loopback interface with {LOOPBACK}, got none: {error}") from error
    return str(next(name for name, each in psutil.net_if_addrs().items() if LOOPBACK in [x.address for x in each]))


def variables(config: Any, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep a run's processes on their network: this machine, or the cluster's interface."""
    if not joins_ray(config):
        # Ray refuses other users of this machine.
        return loopback(environ) | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    interface = config.network.interface
    return dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), interface) if interface else {}


def check(config: Any) -> None:
    """Require that a run on several nodes keeps to the cluster's interface, unless the network is trusted."""
    import psutil

    interface, trust = config.network.interface, config.network.trust
    if not isinstance(trust, bool):
        raise ValueError(f"network.trust: expected true or false, got {trust!r}")
    if not joins_ray(config):
        if interface is not None:
            raise ValueError(
                f"network.interface: expected none, since a run on one machine keeps to {LOOPBACK}, got {interface}"
            )
        return
    there = sorted(psutil.net_if_addrs())
    if interface not in there and not (trust and interface is None):
        raise ValueError(
            f"network.interface: expected the interface of a network that strangers cannot reach (of {there}), since "
            f"who reaches the run's ports can run code as you, got {interface}; name one, {TRUST}"
        )
    if trust:
        return
    rollout = config.actor_rollout_ref.rollout
    gpus = int(rollout.tensor_model_parallel_size * rollout.pipeline_model_parallel_size * rollout.data_parallel_size)
    if gpus > config.trainer.n_gpus_per_node:
        raise ValueError(
            f"actor_rollout_ref.rollout: expected a vLLM on one node, since one on several listens on all addresses, "
            f"got {gpus} GPUs of {config.trainer.n_gpus_per_node} a node; change it, {TRUST}"
        )
    answer = without_token(str(config.ray_kwargs.ray_init.get("address") or "auto"))
    if "AuthenticationError" not in answer:
        raise ValueError(
            "Ray: expected a cluster that refuses a call without a token, since Ray listens on all addresses of its "
            f"nodes, got {answer.strip().splitlines()[-1:]}; start it with RAY_AUTH_MODE=token, as in scale/examples, "
            f"{TRUST}"
        )


def check_nodes(config: Any) -> None:
    """Require that Ray knows every node by an address of the cluster's interface; called in the driver.

    TransferQueue listens on these addresses before there are workers that could look.
    """
    interface = config.network.interface
    if not joins_ray(config) or interface is None:
        return
    import ray
    from omegaconf import OmegaConf
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(**OmegaConf.to_container(config.ray_kwargs.ray_init, resolve=True))
    try:
        ask = ray.remote(num_cpus=0)(wrong_address)
        places = [NodeAffinitySchedulingStrategy(x["NodeID"], soft=False) for x in ray.nodes() if x["Alive"]]
        wrong = list(filter(None, ray.get([ask.options(scheduling_strategy=x).remote(interface) for x in places])))
    finally:
        ray.shutdown()
    if wrong:
        raise ValueError(wrong[0])


def wrong_address(interface: str) -> str:
    """Return what is wrong with the address by which Ray knows this node, where a run listens; nothing if it is right.

    It must be one of the interface.
    """
    import psutil
    import ray

    address = ray.util.get_node_ip_address().strip("[]")
    there = [each.address for each in psutil.net_if_addrs().get(interface, [])]
    if address in there:
        return ""
    return (
        f"network.interface: expected on {interface} the address by which Ray knows this node, {address}, got "
        f"{there}; start Ray with --node-ip-address"
    )


def without_token(address: str) -> str:
    """Return what a Ray cluster answers to a call without a token."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    environ = os.environ | {"RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


# While it runs


def outward(folder: Path) -> list[str]:
    """Return the TCP sockets of the run in a folder that listen where other machines may reach them, in words."""
    import psutil

    found = []
    for each in psutil.net_connections("tcp"):
        if each.status != psutil.CONN_LISTEN or each.pid is None or is_loopback(each.laddr.ip):
            continue
        with contextlib.suppress(psutil.Error, OSError):  # a process that has just ended, or is another user's
            process = psutil.Process(each.pid)
            if process.environ().get(RUN_FOLDER) == str(folder):
                name = " ".join(process.cmdline())[:60].strip()
                found.append(f"{each.laddr.ip} port {each.laddr.port}, process {process.pid} ({name})")
    return found


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches an IP address.

    Examples
    --------
    >>> [is_loopback(x) for x in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "::", "10.0.0.1", "fe80::1%eth0")]
    [True, True, True, False, False, False]
    """
    parsed = ipaddress.ip_address(address.split("%")[0])
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def watch(config: Any) -> threading.Thread | None:
    """Let the run fail as soon as it listens where other machines may reach it; called in the driver.

    Nothing does in what was tried. This is for what was not: another version, a setting, a reward function. Returns the
    thread that looks, if one is needed.
    """
    folder = os.environ.get(RUN_FOLDER)
    if folder is None or joins_ray(config) or config.network.trust:
        return None

    def look() -> None:
        while not (found := outward(Path(folder))):
            time.sleep(PERIOD)
        expected = f"network: expected ports on {LOOPBACK} alone, got {'; '.join(found[:3])}"
        report_failure("watch of the network", ValueError(f"{expected}; change it, {TRUST}"))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    return thread
