"""What vLLM's workers run of ours: reports of failures, weights that can be loaded again on a CPU, a socket of the run.

An exception in here during a weight sync would leave verl waiting for ever; a report ends the run with its cause.

verl sends weights through a socket in /tmp that it names after Ray's job, which is 01000000 in every Ray that a run
starts by itself. Two runs side by side would share it: each could get the other's weights, or wait for ever. So both
ends look for it in the run's own temporary folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from verl.workers.rollout.vllm_rollout import ServerAdapter
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

from scale.run import RUN_ID, reported


def of_this_run(socket: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the address of verl's socket in the temporary folder of this run; of a Ray that was there, verl's own.

    Examples
    --------
    >>> of_this_run("ipc:///tmp/rl-colocate-zmq-01000000.sock", {RUN_ID: "1", "RAY_TMPDIR": "/tmp/dynamo1"})
    'ipc:///tmp/dynamo1/rl-colocate-zmq-01000000.sock'
    """
    folder = environ.get("RAY_TMPDIR") if RUN_ID in environ else None
    return socket.replace("ipc:///tmp/", f"ipc://{folder}/") if folder else socket


class RunServerAdapter(ServerAdapter):  # type: ignore[misc]  # verl is untyped
    """The trainer's end of verl's transfer of weights to vLLM."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.zmq_handle: str = of_this_run(self.zmq_handle)


def _keep_weights() -> None:
    """Let vLLM's CPU build multiply by the weights as they are.

    It would pack every matrix into a layout of its own and delete the original, after which none can be updated.
    """
    from vllm.model_executor.layers import utils

    def dispatch(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = dispatch


class WorkerExtension(vLLMColocateWorkerExtension):  # type: ignore[misc]  # verl is untyped
    """verl's extension of a vLLM worker (`worker_extension_cls`)."""

    def __new__(cls, **kwargs: Any) -> Any:
        """Prepare the process for the first model."""
        if os.environ.get("VERL_PLATFORM") == "cpu":
            _keep_weights()
        return super().__new__(cls, **kwargs)

    @reported("vLLM worker")
    def update_weights_from_ipc(self, *args: Any, **kwargs: Any) -> Any:
        """Receive weights, as verl does."""
        return super().update_weights_from_ipc(*args, **kwargs)

    @reported("vLLM worker")
    def _update_weights(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights; what fails here comes out of the transfer around it as the failure of that."""
        return super()._update_weights(*args, **kwargs)

    def _get_zmq_handle(self) -> str:
        """Return the other end of `RunServerAdapter`'s socket."""
        return of_this_run(super()._get_zmq_handle())
