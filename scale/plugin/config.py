"""The settings of a run that are ours; verl has the rest (`conf/`)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from theory.allocation import ALLOCATORS, ORACLES, get_allocator, spends_in_rounds
from theory.base import require
from theory.methods import METHODS, Method, get_method

SCOPES = ("rollout-batch", "mini-batch", "micro-batch")

RULES = tuple(name for name in ALLOCATORS if name not in ORACLES)
"""Allocation rules of a run: those that decide from the history, and those that spend in rounds."""

VLLM_ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else the executor `uni` is turned back into `mp`
}
"""Environment of vLLM's CPU build: one process, and a small cache, GiB."""

FIRST_RUNNER = ("VLLM_USE_V2_MODEL_RUNNER", "0")
"""What makes vLLM take the first of its two model runners, whose draws are ours (`scale.plugin.vllm_sampling`).

Left to itself it goes by model and version: Qwen3 and Llama have the second one in 0.24 and the first in 0.28.
"""

FIRST_SESSION = "first_session"
"""What trainer and agent loop call the number of a prompt's first trajectory in a round of rollouts."""


@dataclass(frozen=True, kw_only=True)
class DynamoConfig:
    """What is trained: the node `dynamo` of a run's config, and the only place for its defaults.

    Attributes
    ----------
    method : A name of `theory.methods.METHODS`.
    allocator : Another allocation rule than the method's, one of `RULES` or of those that `modules` register.
    alpha : Another strength of the modulation than the method's, for methods that have one.
    sharpness, threshold : Another steepness and another onset of the stabilization than the method's, for methods that
        have one.
    aggregation : Another aggregation than the method's, a name of `theory.losses.AGGREGATIONS`.
    stock : Train by stock GRPO instead: verl's own trainer, loss and advantages, with seeds and order of this plug-in
        only. The baseline for alpha = 0 under a uniform allocation.
    rollouts_low, rollouts_high : Bounds on the rollouts of every prompt; 2 and more, since a group of one teaches
        nothing. The mean is verl's `rollout.n`.
    history_discount : Factor on a prompt's old counts at each visit, in [0, 1]; 1 is the paper's.
    scope : Tokens that a token's entropy and instability are compared with, one of `SCOPES` (`scale.plugin.loss`).
    lag : Batches that are rolled out ahead of learning. 0 is synchronous; with 1 a step learns from responses that the
        policy of the step before began, on the same GPUs (verl's `colocate_async`).
    seed : Seed of the run: order of prompts, trajectories, random choices of rules and losses.
    modules : Modules of one's own to import first, with rules that they register (`theory.allocation.register`).
    dump : Write the tensors of every modulated micro-batch into the run's folder (`modulated/`).

    Examples
    --------
    >>> DynamoConfig(method="grpo", allocator="neyman").resolved().allocator
    'neyman'
    """

    method: str = "dynamo"
    allocator: str | None = None
    alpha: float | None = None
    sharpness: float | None = None
    threshold: float | None = None
    aggregation: str | None = None
    stock: bool = False
    rollouts_low: int = 8
    rollouts_high: int = 24
    history_discount: float = 1.0
    scope: str = "rollout-batch"
    lag: int = 0
    seed: int = 1
    modules: Sequence[str] = ()
    dump: bool = False

    def __post_init__(self) -> None:
        for module in self.modules:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise ValueError(f"dynamo.modules: expected modules to import, got {module!r}: {error}") from error
        for name in ("stock", "dump"):
            if not isinstance(value := getattr(self, name), bool):
                raise ValueError(f"dynamo.{name}: expected true or false, got {value!r:.80}")
        require.one_of("dynamo.scope", self.scope, SCOPES)
        low = require.count("dynamo.rollouts_low", self.rollouts_low, 2)
        require.count("dynamo.rollouts_high", self.rollouts_high, low)
        require.in_range("dynamo.history_discount", self.history_discount, 0.0, 1.0)
        require.count("dynamo.lag", self.lag)
        require.count("dynamo.seed", self.seed)
        rule = self.resolved().allocator
        if rule in ORACLES:
            raise ValueError(
                f"dynamo.allocator: expected one of {', '.join(RULES)}, got {rule}, which needs what only a tabular "
                "world knows"
            )
        if self.lag and spends_in_rounds(get_allocator(rule)):
            raise ValueError(
                f"dynamo.lag: expected 0 with the rule {rule}, which waits for a round's rewards before it rolls out "
                f"the next, got {self.lag}"
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> DynamoConfig:
        """Return the settings in the node `dynamo` of a config."""
        names = [f.name for f in fields(cls)]
        unknown = [str(name) for name in values if name not in names]
        if unknown:
            raise ValueError(f"dynamo: expected settings among {', '.join(names)}, got {', '.join(unknown)}")
        return cls(**values)

    def resolved(self) -> Method:
        """Return the method in full."""
        require.one_of("dynamo.method", self.method, METHODS)
        method = get_method(self.method)
        if self.allocator is not None:
            require.one_of("dynamo.allocator", self.allocator, ALLOCATORS)
            method = replace(method, allocator=self.allocator)
        if self.aggregation is not None:
            method = replace(method, aggregation=self.aggregation)
        shape = {name: getattr(self, name) for name in ("alpha", "sharpness", "threshold")}
        shape = {name: value for name, value in shape.items() if value is not None}
        if shape:
            try:
                method = method.with_modulation(**shape)
            except ValueError as error:
                raise ValueError(f"dynamo.{error}") from error
        return method


def of_checkpoints(config: Mapping[str, Any], name: str) -> int:
    """Return a number of the node `checkpoints`; 0, for none, where a configuration does not have it."""
    return int((config.get("checkpoints") or {}).get(name) or 0)


def require_method(checkpoint: object, state: Mapping[str, Any], settings: DynamoConfig) -> None:
    """Require that a checkpoint's state (`trainer`) has the method and the history's discount of the settings."""
    method, history = state.get("method"), state.get("history")
    if not isinstance(method, Mapping) or not isinstance(history, Mapping):
        raise ValueError(f"{checkpoint}: expected the method and the history of a checkpoint, got other content")
    discount = history.get("discount")
    different = [name for name, value in settings.resolved().to_dict().items() if method.get(name) != value]
    different += ["history_discount"] * (discount != settings.history_discount)
    if different:
        raise ValueError(
            f"{checkpoint}: expected a checkpoint of the method {settings.method}, got one that differs in "
            f"{', '.join(different)}; choose another folder"
        )
