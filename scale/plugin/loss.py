"""The loss of a method of `theory.methods` inside verl: shaped advantages, then verl's own loss, KL and aggregation.

Formulas are those of `theory`. The clipped surrogate is verl's own (equal to `theory.losses`, which a test holds it
to), so that modulation composes with whatever verl adds; losses that single tokens out are `theory.losses`.

What a token is compared with is stated by `scope`:

- "rollout-batch": the step's batch under the policy that sampled it, computed once by the trainer;
- "mini-batch": the mini-batch under the current policy, from a forward pass of its own over all ranks (`engine`);
- "micro-batch": what happens to be packed together, as in the public code.

Clip-Cov, KL-Cov and Fork Tokens let tokens compete in the mini-batch (or, for "micro-batch", in what is packed).

verl computes importance weights once for a step's batch (`algorithm.rollout_correction.rollout_is`), and its own losses
multiply each token's loss by them. So does `theory.losses.policy_loss`. What tokens are compared with, which are
singled out, and how many a mean counts is the same with weights and without.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from verl.trainer.ppo.core_algos import agg_loss, kl_penalty
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding, response_to_nested

from scale.plugin import exchange
from scale.plugin.engine import STATISTICS
from theory.allocation import get_allocator, spends_in_rounds
from theory.base import require
from theory.losses import Scope, Selection, Shaped, policy_loss, select_tokens, sequence_weights
from theory.methods import Method
from theory.policy import TokenStatistics

SCOPE, COUNTED, TARGETED, WEIGHTS = "modulation_scope", "counted_tokens", "targeted_tokens", "token_weights"
"""Names of what `prepare` and the trainer hand to the loss with the data."""

IMPORTANCE = "rollout_is_weights"
"""verl's name for the importance weights of tokens, which come with the data where they are asked for."""

VERL_AGGREGATIONS = {"token-mean": "token-mean", "sequence-mean": "seq-mean-token-mean"}
"""Aggregations that verl has too, by our name; `prompt-mean` has weights of its own."""


def weighs_itself(method: Method) -> bool:
    """Return whether loss and weights of tokens are ours; else verl's own, to which modulation adds.

    Ours are losses that verl lacks, prompt means, and sequence means over batches with padding.
    """
    return (
        not method.loss.standard
        or method.aggregation not in VERL_AGGREGATIONS
        or (method.aggregation == "sequence-mean" and spends_in_rounds(get_allocator(method.allocator)))
    )


def looks_ahead(method: Method, scope: str) -> bool:
    """Return whether each mini-batch needs a forward pass before its update: its tokens are compared, or weighed."""
    return method.looks_ahead(scope) or weighs_itself(method)


def token_statistics_of(log_prob: torch.Tensor, statistics: list[torch.Tensor], mask: torch.Tensor) -> TokenStatistics:
    """Return the statistics of padded tokens, neutral where there is none."""
    neutral = (0.0, 0.0, 1.0, 0.0)
    fields = (log_prob.detach(), *statistics)
    return TokenStatistics(
        *(
            torch.where(mask, x.float(), torch.full_like(x.float(), fill))
            for x, fill in zip(fields, neutral, strict=True)
        )
    )


@dataclass
class MethodLoss:
    """Loss function of verl's workers (`set_loss_fn`) for a method.

    Attributes
    ----------
    method : What is trained: its shaping, loss, selection and aggregation.
    actor : verl's config of the actor: KL, entropy bonus, aggregation and clip range are taken from there.
    scope : One of `scale.plugin.config.SCOPES`.
    dump : Folder for the tensors of every micro-batch, or None.
    """

    method: Method
    actor: Any
    scope: str = "rollout-batch"
    dump: str | None = None
    _calls: Any = field(default_factory=itertools.count, repr=False)
    _weighs_itself: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Here, in the trainer's process: workers do not know the rules that others registered.
        self._weighs_itself = weighs_itself(self.method)

    # Before a mini-batch

    @require.trusted()
    def prepare(self, outputs: dict[str, Any], data: Any, group: Any) -> None:
        """Add to the data of a mini-batch what its tokens have in common over all ranks.

        That is little: extremes, numbers of counted tokens, and, only where tokens compete, the tokens themselves. All
        of it is exact, so that results do not depend on the number of ranks; it is computed where the outputs are.

        Parameters
        ----------
        outputs : The model's outputs for this rank's part, nested.
        data : This rank's part; it gains the scope, the selection and the weights that the method needs.
        group : Process group of the ranks that share the mini-batch.
        """
        method, device = self.method, outputs["log_probs"].device
        tokens = {name: x.detach().to(device) for name, x in self._tokens(outputs, data).items()}
        mask, log_prob, old_log_prob = (tokens[name] for name in ("mask", "log_prob", "old_log_prob"))
        stats, scope = None, self._scope(data)
        if method.needs_statistics:
            stats = token_statistics_of(log_prob, [tokens[name] for name in STATISTICS], mask)
        if method.shaping is not None and method.compares and stats is not None and self.scope != "rollout-batch":
            xi = method.loss.update_coefficient(log_prob, old_log_prob, tokens["advantages"])
            scope = exchange.merged(method.shaping.scope(stats, xi, mask), device, group)
        if self.scope == "mini-batch" and method.compares:
            tu.assign_non_tensor_data(data, SCOPE, scope)

        def put(name: str, x: torch.Tensor) -> None:
            data[name] = response_to_nested(x.to(data["response_mask"].device), data["response_mask"])

        counted = mask
        if method.singles_out:
            advantages = method.shape(tokens["advantages"], stats, mask, log_prob, old_log_prob, scope).advantages
            mine = {"log_prob": log_prob, "old_log_prob": old_log_prob, "advantages": advantages}
            if method.token_selection is not None:
                mine["entropy"] = tokens[STATISTICS[0]].float()
            if method.loss.draws:
                mine["uniforms"] = tokens["uniforms"]
            every, here = exchange.of_all_ranks({name: x[mask] for name, x in mine.items()}, group)
            chosen = self._select(every, torch.ones_like(every["log_prob"], dtype=torch.bool))
            counted, targeted = (_unpacked(x[here], mask) for x in chosen)
            put(COUNTED, counted)
            put(TARGETED, targeted)
        if method.singles_out or self._weighs_itself:
            lengths, prompts, rows = exchange.lengths_of_all_ranks(counted.sum(dim=-1), tu.get(data, "uid"), group)
            each = sequence_weights(lengths, method.aggregation, prompts=prompts, dtype=torch.float32)[rows]
            put(WEIGHTS, torch.where(counted, each.unsqueeze(-1), 0.0))

    def _select(self, tokens: dict[str, torch.Tensor], mask: torch.Tensor) -> Selection:
        """Return the choice over the tokens given, of any shape: they compete with each other, whatever their rows."""
        return select_tokens(
            self.method.loss,
            tokens["log_prob"],
            tokens["old_log_prob"],
            tokens["advantages"],
            mask,
            token_selection=self.method.token_selection,
            entropy=tokens.get("entropy"),
            uniforms=tokens.get("uniforms"),
        )

    # On a micro-batch

    @require.trusted()
    def __call__(
        self, model_output: dict[str, Any], data: Any, dp_group: Any = None
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return the loss of a micro-batch, scaled so that verl's sum over micro-batches and mean over ranks is it."""
        data = data.clone(recurse=False)
        tokens = self._tokens(model_output, data)
        log_prob, mask = tokens["log_prob"], tokens["mask"]
        stats = None
        if self.method.needs_statistics:
            stats = token_statistics_of(log_prob, [tokens[name] for name in STATISTICS], mask)
        advantages, metrics = self._shape(tokens, stats, data)
        if not self.method.singles_out and not self._weighs_itself:
            data["advantages"] = response_to_nested(advantages, data["response_mask"])
            loss, terms = ppo_loss(self.actor, model_output, data, dp_group)
        else:
            loss, terms = self._theory_loss(tokens | {"advantages": advantages}, stats, model_output, data)
        return loss, terms | metrics

    def _shape(
        self, tokens: dict[str, torch.Tensor], stats: TokenStatistics | None, data: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return the shaped advantages, and metrics: sums over micro-batches and means over ranks."""
        given = (tokens["mask"], tokens["log_prob"], tokens["old_log_prob"])
        scope = self._scope(data)
        shaped = self.method.shape(tokens["advantages"], stats, *given, scope)
        if self.dump is not None and stats is not None and self.method.compares:
            texts = {name: data[name].to_padded_tensor(-1) for name in ("prompts", "responses")}
            self._dump(tokens | texts, stats, scope, shaped)
        share = data["dp_size"] / data["batch_num_tokens"]
        metrics: dict[str, Any] = {}
        weights = {"importance": tokens[IMPORTANCE]} if IMPORTANCE in tokens else {}
        for name, factor in {**shaped.factors, **weights}.items():
            total, least, most = _range(factor, tokens["mask"])
            metrics[f"dynamo/{name}_mean"] = Metric(AggregationType.SUM, total * share)
            metrics[f"dynamo/{name}_min"] = Metric(AggregationType.MIN, least)
            metrics[f"dynamo/{name}_max"] = Metric(AggregationType.MAX, most)
        return shaped.advantages, metrics

    def _scope(self, data: Any) -> Scope | None:
        """Return what tokens are compared with: extremes that came with the data; None for those packed together."""
        return tu.get(data, SCOPE) if self.method.compares and self.scope != "micro-batch" else None

    def _theory_loss(
        self, tokens: dict[str, torch.Tensor], stats: TokenStatistics | None, model_output: dict[str, Any], data: Any
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return a loss of `theory.losses` with the batch's weights, and verl's terms beside it."""
        mask, actor = tokens["mask"], self.actor
        if self.scope == "micro-batch" and self.method.singles_out:
            competing = tokens if stats is None else tokens | {"entropy": stats.entropy}
            selection = self._select({name: x.detach() for name, x in competing.items()}, mask)
        elif self.method.singles_out:
            selection = Selection(_padded(data[COUNTED], mask).bool(), _padded(data[TARGETED], mask).bool())
        else:
            selection = Selection(mask, torch.zeros_like(mask))
        tokenwise = policy_loss(
            self.method.loss,
            tokens["log_prob"],
            tokens["old_log_prob"],
            tokens["advantages"],
            mask,
            selection=selection,
            importance=tokens.get(IMPORTANCE),
        )
        loss = (tokenwise.values * _padded(data[WEIGHTS], mask) * tokenwise.mask).sum() * data["dp_size"]
        metrics: dict[str, Any] = {"actor/pg_loss": Metric(AggregationType.SUM, loss)}
        share = data["dp_size"] / data["batch_num_tokens"]
        for name, x in (
            ("clipped", tokenwise.clipped),
            ("counted", selection.counted),
            ("targeted", selection.targeted),
        ):
            metrics[f"dynamo/{name}"] = Metric(AggregationType.SUM, float((x & mask).sum()) * share)
        common = {
            "loss_mask": mask,
            "loss_agg_mode": actor.loss_agg_mode,
            "dp_size": data["dp_size"],
            "batch_num_tokens": data["batch_num_tokens"],
            "global_batch_size": data["global_batch_size"],
            "loss_scale_factor": actor.loss_scale_factor,
        }
        if actor.entropy_coeff:
            entropy = agg_loss(loss_mat=no_padding_2_padding(model_output["entropy"], data), **common)
            metrics["actor/entropy_loss"] = Metric(AggregationType.SUM, entropy)
            loss = loss - actor.entropy_coeff * entropy
        if actor.use_kl_loss:
            reference = _padded(data["ref_log_prob"], mask)
            kl = agg_loss(loss_mat=kl_penalty(tokens["log_prob"], reference, actor.kl_loss_type), **common)
            metrics["kl_loss"] = Metric(AggregationType.SUM, kl)
            loss = loss + actor.kl_loss_coef * kl
        return loss, metrics

    def _tokens(self, model_output: dict[str, Any], data: Any) -> dict[str, torch.Tensor]:
        """Return the response tokens of sequences as rows padded on the right."""
        log_prob = no_padding_2_padding(model_output["log_probs"], data)
        mask = torch.zeros_like(log_prob, dtype=torch.bool)
        tokens = {
            "mask": _padded(data["response_mask"], mask).bool(),
            "log_prob": log_prob,
            "old_log_prob": _padded(data["old_log_probs"], mask),
            "advantages": _padded(data["advantages"], mask),
        }
        if self.method.needs_statistics:
            tokens |= {name: no_padding_2_padding(model_output[name], data) for name in STATISTICS}
        for name in ("uniforms", IMPORTANCE):
            if name in data:
                tokens[name] = _padded(data[name], mask)
        return tokens

    def _dump(
        self, tokens: dict[str, torch.Tensor], stats: TokenStatistics, scope: Scope | None, shaped: Shaped
    ) -> None:
        assert self.dump is not None
        folder = Path(self.dump)
        folder.mkdir(parents=True, exist_ok=True)
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        xi = self.method.loss.update_coefficient(tokens["log_prob"], tokens["old_log_prob"], tokens["advantages"])
        tensors = {**tokens, **stats._asdict(), "coefficient": xi, **shaped.factors, "shaped": shaped.advantages}
        content = {name: x.detach().cpu() for name, x in tensors.items()}
        path = folder / f"{os.getpid()}-{rank}-{next(self._calls):06d}.pt"
        extremes = None if scope is None else {name: float(x) for name, x in vars(scope).items()}
        torch.save(content | {"scope": extremes}, path)


def _padded(nested: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return nested rows padded with zeros to the width of another tensor."""
    return nested.to_padded_tensor(0, output_size=tuple(like.shape))


def _unpacked(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the values of the tokens of a mask at their places, and 0 elsewhere."""
    places = torch.zeros_like(mask, dtype=values.dtype)
    places[mask] = values
    return places


def _range(values: torch.Tensor, mask: torch.Tensor) -> tuple[float, float, float]:
    """Return sum, least and largest of some values over a mask; 0, 1 and 1 where it is empty. One wait for a GPU."""
    infinity = torch.full_like(values, torch.inf)
    least, most = torch.where(mask, values, infinity).min(), torch.where(mask, values, -infinity).max()
    empty = ~mask.any()
    found = torch.stack([(values * mask).sum(), least.masked_fill(empty, 1.0), most.masked_fill(empty, 1.0)])
    total, least, most = found.tolist()
    return total, least, most
