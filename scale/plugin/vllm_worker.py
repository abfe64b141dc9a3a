"""What vLLM's workers run of ours: failures reported, weights loaded again on a CPU, a socket of the run, seeded draws.

An exception in here during a weight sync would leave verl waiting for ever; a report ends the run with its cause.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from verl.workers.rollout.vllm_rollout import ServerAdapter
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension

from scale.plugin import loopback_store  # noqa: F401 - vLLM 0.24 makes a group in each engine
from scale.plugin.rollout import of_this_run
from scale.plugin.vllm_sampling import seed_rows
from scale.run import reported


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
        seed_rows(kwargs["vllm_config"])
        return super().__new__(cls, **kwargs)

    @reported("vLLM worker")
    def update_weights_from_ipc(self, *args: Any, **kwargs: Any) -> Any:
        """Receive weights, as verl does."""
        return super().update_weights_from_ipc(*args, **kwargs)

    @reported("vLLM worker")
    def _update_weights(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights; unreported, a failure here would look like one of the transfer around it."""
        return super()._update_weights(*args, **kwargs)

    def _get_zmq_handle(self) -> str:
        """Return the other end of `RunServerAdapter`'s socket."""
        return of_this_run(super()._get_zmq_handle())
