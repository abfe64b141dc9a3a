"""Training of tabular policies: GRPO and its variants, all seeds of a run as one computation in float64.

One step, for every seed: draw a batch of prompts; divide the rollout budget by the method's rule from the seed's own
history; roll out; turn rewards into advantages; take several optimiser steps on parts of the batch, each with the
current policy's ratios, statistics and modulation. The modulation's normalisers are those of the seed's rollout batch
under the policy that sampled it.

Draws have no state (`toy.streams`) and seeds no common sums (`toy.seeds`): a seed's result is the same to the bit,
alone or beside others, in one go or resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from theory._checks import BoolArray, FloatArray, IntArray
from theory.entropy_change import update_coefficient
from theory.history import SuccessHistory
from theory.losses import (
    LARGEST_CLIP,
    ClipCov,
    EntropyAdvantages,
    KlCov,
    entropy_advantages,
    entropy_bonus,
    policy_loss,
)
from theory.modulation import Modulation, instability, modulate, scope_of
from theory.moments import expected_progress, single_rollout_variance
from theory.rules import Knowledge, get_allocator
from theory.softmax import log_softmax
from toy import checkpoint, metrics, runs, seeds
from toy.config import TrainConfig, differences
from toy.optimizers import Optimizer
from toy.rollouts import Outcomes, Rollouts, log_prob_of, statistics_of
from toy.streams import Stream, generator

Progress = Callable[[int, float], None]
"""Called after every step with the number of steps done and the mean pass@1."""


@dataclass(frozen=True)
class Run:
    """What `train` returns.

    Attributes
    ----------
    config
        The resolved config.
    metrics
        Every column of `toy.metrics.METRICS`, [S, steps + 1]; NaN in column 0 of the metrics of a step.
    logits
        The tables after training, [S, N, K].
    seconds
        Time spent training, resumed parts included.
    """

    config: TrainConfig
    metrics: dict[str, FloatArray]
    logits: FloatArray
    seconds: float

    def columns(self) -> dict[str, Any]:
        """Return the table of `metrics.parquet`: one row per seed and step."""
        num_seeds, num_rows = self.metrics["pass_at_1"].shape
        return {
            "seed": np.repeat(np.array(self.config.seeds, dtype=np.int64), num_rows),
            "step": np.tile(np.arange(num_rows), num_seeds),
            **{name: values.reshape(-1) for name, values in self.metrics.items()},
        }


class Trainer:
    """The state of a run between two steps: tables, optimiser, histories, metrics, and the number of steps done."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        worlds = [config.world.sample(generator(seed, Stream.WORLD)) for seed in config.seeds]
        self.keys = worlds[0].keys
        self.correct = torch.from_numpy(np.stack([world.correct for world in worlds]))
        self.logits = torch.from_numpy(np.stack([world.logits for world in worlds]))
        self.optimizer = Optimizer(config.optimizer, self.logits)
        self.histories = [SuccessHistory(config.history_discount) for _ in worlds]
        self.num_steps = 0
        self.metrics: dict[str, list[FloatArray]] = {name: [] for name in metrics.METRICS}
        self._record({name: np.full(len(worlds), np.nan) for name in metrics.STEP})

    def step(self) -> None:
        """Do one step: allocate, roll out, learn, evaluate."""
        batch, measured = self._roll_out()
        measured |= self._learn(batch)
        self.num_steps += 1
        self._record(measured)

    def result(self) -> dict[str, FloatArray]:
        """Return the metrics so far, each [S, steps + 1]."""
        return {name: np.stack(rows, axis=1) for name, rows in self.metrics.items()}

    def _record(self, measured: dict[str, FloatArray]) -> None:
        for name, values in (metrics.evaluate(self.logits, self.correct) | measured).items():
            self.metrics[name].append(values)

    # Rolling out

    def _prompts(self) -> IntArray:
        """Return the prompts of the step's batch, [S, Q]."""
        size = self.config.batch_prompts
        epoch, batch = divmod(self.num_steps, self.config.world.num_prompts // size)
        orders = [
            generator(seed, Stream.PROMPTS, epoch).permutation(self.config.world.num_prompts)
            for seed in self.config.seeds
        ]
        return np.stack(orders)[:, batch * size : (batch + 1) * size]

    def _roll_out(self) -> tuple[Rollouts, dict[str, FloatArray]]:
        config, method = self.config, self.config.method
        prompts = self._prompts()
        rows = torch.from_numpy(prompts).unsqueeze(-1)
        logits = self._table(rows)
        log_pi = log_softmax(logits)
        actions = self._sample(log_pi)
        correct = self._table(rows, self.correct).transpose(2, 3).gather(2, actions).all(-1)
        counts = self._allocate(prompts, correct.numpy(), log_pi)
        paid = torch.arange(config.rollouts_high) < torch.from_numpy(counts).unsqueeze(-1)
        mask = paid.unsqueeze(-1).expand_as(actions)
        old_log_prob = log_prob_of(log_pi, actions)
        advantages = self._advantages(correct, paid).unsqueeze(-1).expand_as(actions)
        scope = None
        if isinstance(method.shaping, Modulation):
            stats = statistics_of(logits, old_log_prob)
            scope = scope_of(stats, instability(stats, advantages, mask, method.shaping.mean), mask, axis=(1, 2, 3))
        successes = (correct & paid).sum(-1).numpy()
        measured = {
            "reward": successes.sum(-1) / counts.sum(-1),
            "rollouts": counts.sum(-1).astype(np.float64),
            "allocation_concentration": metrics.concentration(counts),
            "degenerate_groups": ((successes == 0) | (successes == counts)).mean(-1),
        }
        return Rollouts(rows, actions, mask, old_log_prob, advantages, scope), measured

    def _table(self, rows: torch.Tensor, table: torch.Tensor | None = None) -> torch.Tensor:
        """Return the rows [S, Q, T] of a table, the policy's by default, [S, Q, T, K]."""
        table = self.logits if table is None else table
        return table[torch.arange(len(table)).reshape(-1, 1, 1), rows]

    def _sample(self, log_pi: torch.Tensor) -> torch.Tensor:
        """Sample `rollouts_high` answers of every prompt, [S, Q, G, T], from log pi [S, Q, T, K]."""
        _, num_prompts, length, _ = log_pi.shape
        shape = (num_prompts, length, self.config.rollouts_high)
        uniforms = np.stack(
            [generator(seed, Stream.ROLLOUTS, self.num_steps).random(shape) for seed in self.config.seeds]
        )
        cumulative = log_pi.exp().cumsum(-1)
        # The last value is 1 exactly, above every uniform; an answer of probability 0 is never drawn.
        cumulative = cumulative / cumulative[..., -1:]
        return torch.searchsorted(cumulative, torch.from_numpy(uniforms), right=True).transpose(2, 3).contiguous()

    def _allocate(self, prompts: IntArray, correct: BoolArray, log_pi: torch.Tensor) -> IntArray:
        """Divide the budget by the method's rule and remember the outcome; returns the rollouts of a prompt, [S, Q]."""
        config = self.config
        rule = get_allocator(config.method.allocator)
        budget = config.batch_prompts * config.rollouts
        counts = np.zeros(prompts.shape, dtype=np.int64)
        for s, seed in enumerate(config.seeds):
            keys = [self.keys[i] for i in prompts[s]]
            outcomes = Outcomes(correct[s])
            counts[s] = rule.allocate(
                *self.histories[s].counts(keys),
                budget,
                config.rollouts_low,
                config.rollouts_high,
                generator(seed, Stream.ALLOCATION, self.num_steps),
                observe=outcomes.reveal,
                knowledge=self._knowledge(s, prompts[s], log_pi[s, :, 0].exp().numpy()),
            )
            self.histories[s].update(keys, outcomes.successes(counts[s]), counts[s])
        return counts

    def _knowledge(self, s: int, prompts: IntArray, probs: FloatArray) -> Knowledge:
        """Return what only an oracle knows, for the oracle rules; nothing for the others."""
        method, correct = self.config.method, self.correct[s].numpy()[prompts]
        if method.allocator == "oracle-variance":
            return Knowledge(variances=single_rollout_variance(probs, correct))
        if method.allocator == "oracle-progress":
            estimator = {"grpo": "grpo_sample"}.get(str(method.advantage), str(method.advantage))
            return Knowledge(gains=expected_progress(probs, correct, self.config.rollouts_high, estimator))
        return Knowledge()

    def _advantages(self, correct: torch.Tensor, paid: torch.Tensor) -> torch.Tensor:
        """Return the advantage of every rollout, [S, Q, G]; groups are (seed, prompt)."""
        groups = torch.arange(paid[..., 0].numel()).reshape(*paid.shape[:2], 1).expand_as(paid)
        advantages = torch.zeros(paid.shape, dtype=torch.float64)
        rewards = correct[paid].to(torch.float64)
        advantages[paid] = self.config.method.advantages(rewards, groups[paid], correct[paid])
        return advantages

    # Learning

    def _learn(self, batch: Rollouts) -> dict[str, FloatArray]:
        config = self.config
        uniforms = None
        if isinstance(config.method.loss, ClipCov):
            shape = (config.num_epochs, *batch.mask.shape[1:])
            draws = [generator(seed, Stream.LOSS, self.num_steps).random(shape) for seed in config.seeds]
            uniforms = torch.from_numpy(np.stack(draws))
        measured: dict[str, list[FloatArray]] = {}
        for epoch in range(config.num_epochs):
            for minibatch in range(config.num_minibatches):
                part = slice(minibatch, None, config.num_minibatches)
                draw = None if uniforms is None else uniforms[:, epoch, :, part]
                for name, values in self._update(batch, part, draw).items():
                    measured.setdefault(name, []).append(values)
        return {name: np.stack(rows, axis=1).mean(-1) for name, rows in measured.items()}

    def _update(self, batch: Rollouts, part: slice, uniforms: torch.Tensor | None) -> dict[str, FloatArray]:
        """Take one optimiser step on the rollouts `part` of every prompt; returns what it measured, each [S]."""
        method = self.config.method
        actions, mask, old_log_prob, advantages = (
            x[:, :, part] for x in (batch.actions, batch.mask, batch.old_log_prob, batch.advantages)
        )
        logits = self._table(batch.rows).requires_grad_()
        log_prob = log_prob_of(log_softmax(logits), actions)
        stats = None
        if method.shaping or method.entropy_bonus or method.token_selection:
            stats = statistics_of(logits, log_prob)

        comp = stab = torch.ones_like(old_log_prob)
        moved = advantages != 0
        risen = advantages > 0
        if isinstance(method.shaping, Modulation):
            assert stats is not None
            coefficient = self._coefficient(advantages, log_prob, old_log_prob)
            advantages, comp, stab = modulate(
                advantages, stats, mask, method.shaping, coefficient=coefficient, scope=batch.scope
            )
        elif isinstance(method.shaping, EntropyAdvantages):
            assert stats is not None
            shaping = method.shaping
            advantages = entropy_advantages(advantages, stats.entropy, alpha=shaping.alpha, kappa=shaping.kappa)

        selection = None
        if method.token_selection or isinstance(method.loss, (ClipCov, KlCov)):
            tokens = (log_prob, old_log_prob, advantages, mask)
            entropy = None if stats is None else stats.entropy
            selection = seeds.select(method.loss, method.token_selection, *tokens, entropy, uniforms)
        loss = policy_loss(method.loss, log_prob, old_log_prob, advantages, mask, selection=selection)
        total = (seeds.weights(loss.mask, method.aggregation) * loss.values).sum()
        if method.entropy_bonus:
            assert stats is not None
            bonus = entropy_bonus(stats.entropy, mask, method.entropy_bonus.coefficient)
            total = total + (seeds.weights(mask, method.aggregation) * bonus).sum()
        (gradient,) = torch.autograd.grad(total, logits)
        norm = self.optimizer.step(self.logits, self._scatter(batch.rows, gradient))
        return {
            "gradient_norm": norm,
            "clip_fraction": seeds.mean(loss.clipped, loss.mask, empty=0.0),
            "compensation": seeds.mean(comp, mask & risen, empty=1.0),
            "stabilization": seeds.mean(stab, mask & moved, empty=1.0),
        }

    def _coefficient(
        self, advantages: torch.Tensor, log_prob: torch.Tensor, old_log_prob: torch.Tensor
    ) -> torch.Tensor:
        """Return xi (24) under the method's clip range; KL-Cov has none."""
        loss = self.config.method.loss
        clips = (1.0, LARGEST_CLIP) if isinstance(loss, KlCov) else (loss.clip_low, loss.clip_high)
        coefficient: torch.Tensor = update_coefficient(advantages, (log_prob.detach() - old_log_prob).exp(), *clips)
        return coefficient

    def _scatter(self, rows: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Add the gradients of rows up to the gradient of the table."""
        index = (torch.arange(len(self.logits)).reshape(-1, 1, 1), rows)
        return torch.zeros_like(self.logits).index_put_(index, gradient, accumulate=True)

    # State

    def save(self, path: Path, seconds: float) -> None:
        """Write a checkpoint."""
        arrays = {"logits": self.logits.numpy()}
        arrays |= {f"optimizer.{name}": x.numpy() for name, x in self.optimizer.state.items()}
        arrays |= {f"metrics.{name}": x for name, x in self.result().items()}
        data = {
            "config": self.config.to_dict(),
            "num_steps": self.num_steps,
            "optimizer_steps": self.optimizer.num_steps,
            "histories": [history.state_dict() for history in self.histories],
            "seconds": seconds,
        }
        checkpoint.save(path, arrays, data)

    def load(self, path: Path) -> float:
        """Take over a checkpoint of the same config (`num_steps` apart); returns the seconds it took.

        Raises
        ------
        ValueError
            If the file is damaged, or the config another one; the message names the file and the fields.
        """
        arrays, data = checkpoint.load(path)
        require_same(path, data["config"], self.config)
        if data["num_steps"] > self.config.num_steps:
            raise ValueError(f"num_steps: expected at least the {data['num_steps']} done in {path.parent}, got fewer")
        self.num_steps, self.optimizer.num_steps = data["num_steps"], data["optimizer_steps"]
        self.logits.copy_(torch.from_numpy(arrays["logits"]))
        for name, x in self.optimizer.state.items():
            x.copy_(torch.from_numpy(arrays[f"optimizer.{name}"]))
        for history, state in zip(self.histories, data["histories"], strict=True):
            history.load_state_dict(state)
        self.metrics = {name: list(arrays[f"metrics.{name}"].T) for name in metrics.METRICS}
        return float(data["seconds"])


def require_same(path: Path, found: dict[str, Any], config: TrainConfig) -> None:
    """Require that `path` belongs to a run of this config; only `num_steps` may differ, so that a run can be extended.

    Raises
    ------
    ValueError
        If other fields differ; the message names them.
    """
    different = [name for name in differences(found, config.to_dict()) if name != "num_steps"]
    if different:
        raise ValueError(
            f"{path}: expected a run of the same config, got one that differs in {', '.join(different)}; "
            "choose another folder, or the config that is in this one"
        )


def train(
    config: TrainConfig, *, out: Path | None = None, checkpoint_every: int = 20, progress: Progress | None = None
) -> Run:
    """Train, or resume the training in `out`; the result is the same to the bit.

    Parameters
    ----------
    config
        What to train.
    out
        Folder of the run (`toy.runs`), made if missing; None keeps everything in memory. An unfinished run of the same
        config in it is resumed from its last checkpoint; so is a finished one of fewer steps.
    checkpoint_every
        Steps between two checkpoints, >= 1; without effect on the result.
    progress
        Called after every step.

    Raises
    ------
    ValueError
        If `out` holds the run of another config or a damaged checkpoint; the message names it.
    """
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every: expected an integer >= 1, got {checkpoint_every}")
    start = time.perf_counter()
    if out is not None and (out / runs.CONFIG).exists():
        require_same(out / runs.CONFIG, runs.read_json(out / runs.CONFIG), config)
    trainer = Trainer(config)
    saved = None if out is None else out / checkpoint.NAME
    if saved is not None and saved.exists():
        start -= trainer.load(saved)
    if out is not None and (trainer.num_steps < config.num_steps or not (out / runs.VERSIONS).exists()):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"out: expected a folder, got {out} ({error.strerror})") from error
        (out / runs.VERSIONS).unlink(missing_ok=True)
        runs.write_json(out / runs.CONFIG, config.to_dict())
    while trainer.num_steps < config.num_steps:
        trainer.step()
        if saved is not None and (trainer.num_steps % checkpoint_every == 0 or trainer.num_steps == config.num_steps):
            trainer.save(saved, time.perf_counter() - start)
        if progress is not None:
            progress(trainer.num_steps, float(trainer.metrics["pass_at_1"][-1].mean()))
    run = Run(config, trainer.result(), trainer.logits.numpy(), time.perf_counter() - start)
    if out is not None and not (out / runs.VERSIONS).exists():
        runs.write_metrics(out / runs.METRICS, run.columns())
        runs.write_json(out / runs.VERSIONS, runs.versions(config.seeds, run.seconds))
    return run
