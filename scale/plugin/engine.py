"""verl's FSDP engine, which also returns the token statistics of `theory.policy`, and looks at a mini-batch ahead.

Two things, each only where the data ask for it; otherwise the engine is verl's own:

- `TOKEN_STATISTICS`: entropy, collision probability and E_pi[pi Lambda] of every token under the current policy, exact
  over the vocabulary, without a gradient, in addition to the model's other outputs, and in place of verl's entropy
  where that needs no gradient either;
- `LOOK_AHEAD`: before a mini-batch is learnt from, a forward pass over all of it, so that the loss may know what its
  tokens have in common (`MethodLoss.prepare`) however they are then packed and spread over ranks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from verl.utils import tensordict_utils as tu
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from scale.plugin.token_statistics import chunked_token_statistics
from scale.run import pulse

TOKEN_STATISTICS = "token_statistics"
LOOK_AHEAD = "look_ahead"
VERLS_ENTROPY = "calculate_entropy"

STATISTICS = ("token_entropy", "token_collision", "token_mean_pi_lambda")
"""Names of the statistics among the model's outputs."""


@EngineRegistry.register("language_model", ["fsdp", "fsdp2"], device="cuda", vendor="nvidia")
@EngineRegistry.register("language_model", "fsdp2", device="cpu")
class StatisticsEngine(FSDPEngineWithLMHead):  # type: ignore[misc]
    """FSDP engine with a language model's head, token statistics and a look ahead."""

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: Any, logits_processor_func: Any
    ) -> dict[str, Any]:
        """Return verl's outputs and, if asked for, `STATISTICS`: nested tensors like `log_probs`.

        Where nothing is learnt, the entropy among the statistics is verl's `entropy` too, and verl computes none.
        """
        if os.environ.get("RANK") == "0":
            pulse()
        statistics = {}
        if tu.get_non_tensor_data(data=micro_batch, key=TOKEN_STATISTICS, default=False):
            # First, since verl may scale the logits in place.
            statistics = self._statistics(output, output_args, micro_batch)
            asked = tu.get_non_tensor_data(data=micro_batch, key=VERLS_ENTROPY, default=False)
            if asked and not torch.is_grad_enabled():
                statistics["entropy"] = statistics[STATISTICS[0]]
                micro_batch = micro_batch.clone(recurse=False)
                tu.assign_non_tensor_data(micro_batch, VERLS_ENTROPY, False)
        outputs: dict[str, Any] = super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        return outputs | statistics

    def _statistics(self, output: Any, output_args: dict[str, Any], micro_batch: Any) -> dict[str, Any]:
        offsets = micro_batch["input_ids"].offsets()
        actions = output_args["input_ids_rmpad_rolled"]
        if output.get("logits") is None:
            raise ValueError("use_fused_kernels: expected False, since token statistics need the logits, got True")
        logits = output.logits.detach()
        if "temperature_rmpad" in output_args:  # packed, [1, tokens, V]
            logits, temperature = logits.squeeze(0), output_args["temperature_rmpad"]
        else:  # padded on the right, [sequences, tokens, V]
            lengths = offsets.diff()
            real = torch.arange(logits.shape[1], device=logits.device) < lengths.unsqueeze(1)
            logits, temperature = logits[real], output_args["temperature"].repeat_interleave(lengths)
        unit = output_args.get("temperature_is_one", False)
        stats = chunked_token_statistics(logits, actions, None if unit else temperature)
        pad_size = output_args.get("pad_size", 0)
        return {
            name: torch.nested.nested_tensor_from_jagged(self._gather_and_unpad_packed(x, pad_size), offsets)
            for name, x in zip(STATISTICS, stats[1:], strict=True)
        }

    def forward_backward_batch(self, data: Any, loss_function: Callable[..., Any], forward_only: bool = False) -> Any:
        """Return verl's result for a mini-batch, after a look ahead if the data ask for one."""
        if not forward_only and tu.get_non_tensor_data(data=data, key=LOOK_AHEAD, default=False):
            ahead = super().forward_backward_batch(data, None, forward_only=True)
            loss_function.prepare(ahead["model_output"], data, self.get_data_parallel_group())  # type: ignore[attr-defined]
        return super().forward_backward_batch(data, loss_function, forward_only)

    def _build_fsdp_module(self, module: Any) -> Any:
        """Build as verl does; without an accelerator a reference model stays on the CPU without pinned memory."""
        if not self.engine_config.forward_only or torch.cuda.is_available():
            return super()._build_fsdp_module(module)
        object.__setattr__(self.engine_config, "forward_only", False)
        try:
            return super()._build_fsdp_module(module)
        finally:
            object.__setattr__(self.engine_config, "forward_only", True)
