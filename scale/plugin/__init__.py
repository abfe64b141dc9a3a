"""What verl loads in every process (entry point group `verl.plugins`): the place where our parts are registered.

verl imports this while it is itself being imported, in some ten processes per run. So nothing heavy happens here: parts
are imported right after the module of verl that they extend, in the processes that load that module. In a process that
uses verl for something else nothing is imported and no behaviour changes.

For users: `from scale.plugin import chunked_token_statistics`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

PARTS = {
    "verl.plugin.platform.platform_manager": "scale.plugin.cpu",
    "verl.trainer.ppo.v1.trainer_colocate_async": "scale.plugin.ahead",
    "verl.trainer.ppo.v1.trainer_sync": "scale.plugin.synchronous",
    "verl.utils.distributed": "scale.plugin.process_group",
    "verl.workers.engine.fsdp.transformer_impl": "scale.plugin.engine",
    "verl.workers.rollout.base": "scale.plugin.rollout",
    "verl.workers.rollout.vllm_rollout.vllm_async_server": "scale.plugin.vllm_server",
}
"""Modules of verl, and the part of ours that is imported right after each."""


class _ThenImport(Loader):
    """Executes a module with its own loader, then imports another."""

    def __init__(self, loader: Loader, follower: str) -> None:
        self._loader, self._follower = loader, follower

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        importlib.import_module(self._follower)


class _Finder(MetaPathFinder):
    """Finds the modules of `PARTS` where the path finder does."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in PARTS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _ThenImport(spec.loader, PARTS[fullname])
        return spec


def register() -> None:
    """Let `PARTS` be imported after the modules of verl; a second call does nothing."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    for module, follower in PARTS.items():
        if module in sys.modules:
            importlib.import_module(follower)


def __getattr__(name: str) -> Any:
    """Import `chunked_token_statistics` when it is used: it needs torch."""
    if name != "chunked_token_statistics":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("scale.plugin.token_statistics").chunked_token_statistics


register()
