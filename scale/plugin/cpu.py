"""A platform that lets verl 0.9.1 run where there is no accelerator: FSDP2 on gloo, vLLM's CPU build.

verl schedules workers on Ray's logical GPUs, asks the device for memory figures and moves tensors to "the current
device". Here the device is the CPU, the figures are zero, and Ray counts as many logical GPUs as there are workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


def _device_module() -> ModuleType:
    """Return what verl expects of `torch.cuda`, for the CPU: `torch.cpu`, and memory that is never measured."""
    module = ModuleType("cpu_device")
    module.__dict__.update({name: getattr(torch.cpu, name) for name in torch.cpu.__all__})
    zero = {name: lambda *_, **__: 0 for name in ("memory_allocated", "memory_reserved")}
    zero |= {f"max_{name}": function for name, function in zero.items()}
    nothing = {
        name: lambda *_, **__: None
        for name in ("empty_cache", "ipc_collect", "set_per_process_memory_fraction", "reset_peak_memory_stats")
    }
    module.__dict__.update(zero | nothing)
    module.__dict__.update(
        get_device_name=lambda *_: "cpu",
        get_rng_state=lambda *_: torch.get_rng_state(),
        mem_get_info=lambda *_: (0, 0),
        set_rng_state=lambda state, *_: torch.set_rng_state(state),
    )
    return module


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):  # type: ignore[misc]  # verl is untyped
    """The CPU as verl's device."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _device_module()

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        """Return False: verl takes this platform by name only (VERL_PLATFORM=cpu), so that other uses never meet it."""
        return False

    def current_device(self) -> str:
        """Return "cpu"; verl hands it to `Tensor.to`, for which an index would mean an accelerator."""
        return "cpu"

    def device_count(self) -> int:
        return 1

    def _do_nothing(self, *args: Any, **kwargs: Any) -> None:
        pass

    set_device = synchronize = set_allocator_settings = empty_cache = _do_nothing
    profiler_start = profiler_stop = cudart = _do_nothing

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """Return the variable that Ray sets for logical GPUs."""
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def ray_resource_name(self) -> str:
        """Return "GPU": verl counts no other resource but NPU."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        """Return the variable that keeps Ray from hiding devices."""
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        """Return False: weights go through shared memory."""
        return False

    def rollout_env_vars(self) -> dict[str, str]:
        """Return the environment of a vLLM server: one thread, in one process, a small cache."""
        from scale.plugin.config import VLLM_ON_CPU  # `import verl` imports this module, and must stay light

        return {"OMP_NUM_THREADS": "1", **VLLM_ON_CPU}
