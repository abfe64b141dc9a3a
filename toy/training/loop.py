"""Training of tabular policies: GRPO and its variants, all seeds of a run as one computation in float64.

One step, for every seed: draw a batch of prompts; divide the rollout budget by the method's rule from the seed's own
history; roll out; turn rewards into advantages; take several optimiser steps on parts of the batch, each with the
current policy's ratios, statistics and modulation. The modulation's normalisers are those of the seed's rollout batch
under the policy that sampled it.

Draws have no state (`toy.training.generators`) and seeds no common sums (`toy.training.per_seed`): a seed's result is
the same to the bit, alone or beside others, in one go or resumed, on the CPU with the same software. A CUDA device has
the same worlds and the same draws, which are made on the CPU; its sums are taken in an order of its own, not always the
same, so that results agree up to rounding only, until a rounding decides on a token or a clip.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from theory.allocation.history import SuccessHistory
from theory.allocation.rules import Knowledge, get_allocator
from theory.base import require, runs
from theory.base.arrays import BoolArray, FloatArray, IntArray
from theory.estimators import moments
from theory.losses.modulation import Modulation, instability, modulate, scope_of
from theory.losses.surrogate import LARGEST_CLIP, ClipCov, KlCov, entropy_bonus, policy_loss
from theory.policy.entropy_change import update_coefficient
from theory.policy.softmax import log_softmax
from toy.training import checkpoint, diagnostics, metrics, per_seed
from toy.training.config import TrainConfig, differences
from toy.training.generators import Stream, generator
from toy.training.optimizers import Optimizer
from toy.training.rollouts import Outcomes, Rollouts, judge, of_actions, of_states, sample, statistics_of

DEVICES = ("cpu", "cuda")
"""Where a run can be computed."""

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
        Every column of `toy.training.METRICS`, [S, steps + 1]; NaN in column 0 of the metrics of a step.
    logits
        The tables after training, [S, R, K].
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
    """The state of a run between two steps: tables, optimiser, histories, metrics, and the number of steps done.

    `software` lists the versions and the device of all parts of the run, this one's last.
    """

    def __init__(self, config: TrainConfig, device: str = "cpu") -> None:
        self.config = config
        self.device = get_device(device)
        worlds = [config.world.sample(generator(seed, Stream.WORLD)) for seed in config.seeds]
        self.worlds = worlds
        self.keys = worlds[0].keys
        self.correct = self._tensor(np.stack([world.correct for world in worlds]))
        self.logits = self._tensor(np.stack([world.logits for world in worlds]))
        self.rows = self._tensor(np.stack([world.rows for world in worlds]))
        self.tokens = self._tensor(np.stack([world.mask for world in worlds]))
        self.optimizer = Optimizer(config.optimizer, self.logits)
        self.histories = [SuccessHistory(config.history_discount) for _ in worlds]
        self.software = [{**runs.software(), "device": device}]
        self.num_steps = 0
        self._epoch, self._orders = -1, np.zeros((0, 0), dtype=np.int64)
        self.metrics: dict[str, list[FloatArray]] = {name: [] for name in metrics.METRICS}
        self._record({})

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
        absent = {name: np.full(len(self.worlds), np.nan) for name in metrics.METRICS}
        for name, values in (absent | self._evaluate() | measured).items():
            self.metrics[name].append(values)

    def _evaluate(self) -> dict[str, FloatArray]:
        return metrics.evaluate(self.logits, self.correct, self.rows, self.tokens)

    # Rolling out

    def _prompts(self) -> IntArray:
        """Return the prompts of the step's batch, [S, Q]."""
        size = self.config.batch_prompts
        epoch, batch = divmod(self.num_steps, self.config.world.num_prompts // size)
        if epoch != self._epoch:
            generators = [generator(seed, Stream.PROMPTS, epoch) for seed in self.config.seeds]
            self._epoch = epoch
            self._orders = np.stack([rng.permutation(self.config.world.num_prompts) for rng in generators])
        return self._orders[:, batch * size : (batch + 1) * size]

    def _roll_out(self) -> tuple[Rollouts, dict[str, FloatArray]]:
        config = self.config
        prompts = self._prompts()
        batch, correct, counts = self._batch(prompts, self._generators(Stream.ROLLOUTS))
        successes = (correct & batch.mask.any(-1).cpu().numpy()).sum(-1)
        measured = {
            "reward": successes.sum(-1) / counts.sum(-1),
            "rollouts": counts.sum(-1).astype(np.float64),
            "rollouts_wasted": metrics.wasted(successes, counts),
            "allocation_concentration": metrics.concentration(counts),
            "degenerate_groups": ((successes == 0) | (successes == counts)).mean(-1),
        }
        if config.diagnose_every and (self.num_steps + 1) % config.diagnose_every == 0:
            measured |= self._diagnose(prompts, counts)
        for s, history in enumerate(self.histories):
            history.update([self.keys[i] for i in prompts[s]], successes[s], counts[s])
        return batch, measured

    def _batch(
        self, prompts: IntArray, generators: list[np.random.Generator], counts: IntArray | None = None
    ) -> tuple[Rollouts, BoolArray, IntArray]:
        """Sample rollouts of prompts [S, Q]; returns them, which are correct [S, Q, G], and the counts paid for [S, Q].

        The method's rule decides on the counts if they are not given.
        """
        config, method = self.config, self.config.method
        rows, states, tokens = self._states(prompts)
        logits = of_states(self.logits, rows)
        log_pi = log_softmax(logits)
        actions = sample(log_pi, states, self._uniforms(generators, (*states.shape[1:], config.rollouts_high)))
        correct = judge(of_states(self.correct, rows), states, tokens, actions)
        counts = self._allocate(prompts, correct) if counts is None else counts
        paid = torch.arange(config.rollouts_high, device=self.device) < self._tensor(counts).unsqueeze(-1)
        mask = paid.unsqueeze(-1) & tokens.unsqueeze(2)
        old_log_prob = of_actions(log_pi, states, actions)
        advantages = self._advantages(self._tensor(correct), paid).unsqueeze(-1) * mask
        scope = None
        if isinstance(method.shaping, Modulation):
            stats = statistics_of(logits, states, old_log_prob)
            scope = scope_of(stats, instability(stats, advantages, mask, method.shaping.mean), mask, axis=(1, 2, 3))
        return Rollouts(rows, states, actions, mask, old_log_prob, advantages, scope), correct, counts

    def _diagnose(self, prompts: IntArray, counts: IntArray) -> dict[str, FloatArray]:
        """Return the diagnostics of the step under way, whose outcomes the histories do not know yet."""
        method = self.config.method
        generators = self._generators(Stream.DIAGNOSTICS)
        given = None if get_allocator(method.allocator).in_rounds else counts

        def resample() -> FloatArray:
            batch, _, _ = self._batch(prompts, generators, given)
            draws = None
            if isinstance(method.loss, ClipCov):
                draws = self._tensor(self._uniforms(generators, batch.mask.shape[1:]))
            gradient, _ = self._gradient(batch, (slice(None), slice(None)), draws)
            return -gradient.cpu().numpy()

        def scatter(gradient: FloatArray) -> FloatArray:
            return self._scatter(of_states(self.rows, at), self._tensor(gradient)).cpu().numpy()

        at = self._tensor(prompts)
        rows, states, tokens = self._states(prompts)
        probs = of_states(log_softmax(of_states(self.logits, rows)).exp(), states)
        correct = of_states(of_states(self.correct, rows), states) | ~tokens.unsqueeze(-1)
        known = [h.counts([self.keys[i] for i in own]) for h, own in zip(self.histories, prompts, strict=True)]
        successes, attempts = np.stack(known, axis=1)
        return diagnostics.diagnose(
            method,
            (self.config.rollouts_low, self.config.rollouts_high),
            probs.cpu().numpy(),
            correct.cpu().numpy(),
            counts,
            (successes, attempts),
            np.stack([self._variances(s, own) for s, own in enumerate(prompts)]),
            resample,
            scatter,
        )

    def _generators(self, stream: Stream) -> list[np.random.Generator]:
        """Return the step's generators of all seeds for one purpose."""
        return [generator(seed, stream, self.num_steps) for seed in self.config.seeds]

    def _uniforms(self, generators: list[np.random.Generator], shape: tuple[int, ...]) -> FloatArray:
        """Draw uniform numbers for every seed, [S, *shape]."""
        found = np.empty((len(generators), *shape))
        for rng, own in zip(generators, found, strict=True):
            rng.random(out=own)
        return found

    def _tensor(self, array: np.ndarray[Any, Any]) -> torch.Tensor:
        """Return an array on the run's device."""
        return torch.from_numpy(array).to(self.device)

    def _states(self, prompts: IntArray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the rows [S, U] of the table that prompts [S, Q] need, and their tokens' states and mask, [S, Q, T].

        The states are the tokens' rows one by one where these are fewer than the rows of the table, else all rows.
        """
        at = self._tensor(prompts)
        rows, tokens = of_states(self.rows, at), of_states(self.tokens, at)
        num_seeds, num_rows, _ = self.logits.shape
        if rows[0].numel() < num_rows:
            states = torch.arange(rows[0].numel(), device=self.device).reshape(rows[0].shape).expand_as(rows)
            return rows.flatten(1), states, tokens
        return torch.arange(num_rows, device=self.device).expand(num_seeds, -1), rows, tokens

    def _allocate(self, prompts: IntArray, correct: BoolArray) -> IntArray:
        """Divide the budget by the method's rule; returns the rollouts of a prompt, [S, Q]."""
        config = self.config
        rule = get_allocator(config.method.allocator)
        budget = config.batch_prompts * config.rollouts
        counts = np.zeros(prompts.shape, dtype=np.int64)
        for s, rng in enumerate(self._generators(Stream.ALLOCATION)):
            counts[s] = rule.allocate(
                *self.histories[s].counts([self.keys[i] for i in prompts[s]]),
                budget,
                config.rollouts_low,
                config.rollouts_high,
                rng,
                observe=Outcomes(correct[s]).reveal,
                knowledge=self._knowledge(s, prompts[s]),
            )
        return counts

    def _knowledge(self, s: int, prompts: IntArray) -> Knowledge:
        """Return what only an oracle knows, for the oracle rules; for the others, true success rates if configured.

        Progress is weighted as the loss weighs prompts: with their rollouts under a mean over sequences, and with their
        tokens under a mean over tokens. The progress of a chain is that of the mean success probability of all prompts,
        w(p, n) <grad p, grad J>: a group's mean gradient is w(p, n) grad p whatever a rollout is made of, as long as
        rollouts are independent and the advantages depend on the rewards only.
        """
        method, world = self.config.method, self.worlds[s]
        if method.allocator == "oracle-variance":
            return Knowledge(variances=self._variances(s, prompts))
        if method.allocator != "oracle-progress":
            if self.config.success_rates == "history":
                return Knowledge()
            p = world.success_probability(self.logits[s].cpu().numpy())[prompts]
            return Knowledge(success_rates=np.minimum(p, 1.0))
        logits = self.logits[s].cpu().numpy()
        estimator = {"grpo": "grpo_sample"}.get(str(method.advantage), str(method.advantage))
        high = self.config.rollouts_high
        if world.max_length == 1:
            rows = world.rows[prompts, 0]
            probs, correct = np.exp(log_softmax(logits[rows])), world.correct[rows]
            gains = moments.expected_progress(probs, correct, high, estimator)
            return Knowledge(gains=gains * self._loss_weights(s, prompts))
        p = np.minimum(world.success_probability(logits)[prompts, None], 1.0)
        weights = moments.implied_weight(p, np.arange(1, high + 1), estimator)
        gains = weights * world.gradient_products(logits)[prompts, None]
        gains = np.concatenate([np.zeros((len(prompts), 1)), gains], axis=-1)
        return Knowledge(gains=gains * self._loss_weights(s, prompts))

    def _loss_weights(self, s: int, prompts: IntArray) -> FloatArray:
        """Return what a prompt with n = 0, ... rollouts counts in the loss, up to a factor; [Q, high + 1]."""
        n = np.arange(self.config.rollouts_high + 1.0)
        tokens = n * self.worlds[s].lengths[prompts, None]
        weights = {"prompt-mean": np.ones_like(tokens), "sequence-mean": n + 0 * tokens, "token-mean": tokens}
        return weights[self.config.method.aggregation]

    def _variances(self, s: int, prompts: IntArray) -> FloatArray:
        """Return the exact variance of one rollout's gradient, [Q]."""
        world, logits = self.worlds[s], self.logits[s].cpu().numpy()
        if world.max_length > 1:
            return world.single_rollout_variance(logits)[prompts]
        rows = world.rows[prompts, 0]
        return moments.single_rollout_variance(np.exp(log_softmax(logits[rows])), world.correct[rows])

    def _advantages(self, correct: torch.Tensor, paid: torch.Tensor) -> torch.Tensor:
        """Return the advantage of every rollout, [S, Q, G]; groups are (seed, prompt)."""
        groups = torch.arange(paid[..., 0].numel(), device=self.device).reshape(*paid.shape[:2], 1).expand_as(paid)
        advantages = torch.zeros(paid.shape, dtype=torch.float64, device=self.device)
        rewards = correct[paid].to(torch.float64)
        advantages[paid] = self.config.method.advantages(rewards, groups[paid], correct[paid])
        return advantages

    # Learning

    def _learn(self, batch: Rollouts) -> dict[str, FloatArray]:
        config = self.config
        uniforms = None
        if isinstance(config.method.loss, ClipCov):
            shape = (config.num_epochs, *batch.mask.shape[1:])
            uniforms = self._tensor(self._uniforms(self._generators(Stream.LOSS), shape))
        measured: dict[str, list[FloatArray]] = {}
        for epoch in range(config.num_epochs):
            for minibatch in range(config.num_minibatches):
                dealt = slice(minibatch, None, config.num_minibatches)
                part = (slice(None), dealt) if config.minibatch == "rollouts" else (dealt, slice(None))
                draw = None if uniforms is None else uniforms[(slice(None), epoch, *part)]
                gradient, values = self._gradient(batch, part, draw)
                values["gradient_norm"] = self.optimizer.step(self.logits, gradient)
                for name, value in values.items():
                    measured.setdefault(name, []).append(value)
        return {name: np.stack(rows, axis=1).mean(-1) for name, rows in measured.items()}

    def _gradient(
        self, batch: Rollouts, part: tuple[slice, slice], uniforms: torch.Tensor | None
    ) -> tuple[torch.Tensor, dict[str, FloatArray]]:
        """Return the loss's gradient in the table for a `part` of the prompts and their rollouts, and measures, [S]."""
        method = self.config.method
        states = batch.states[:, part[0]]
        actions, mask, old_log_prob, advantages = (
            x[(slice(None), *part)] for x in (batch.actions, batch.mask, batch.old_log_prob, batch.advantages)
        )
        logits = of_states(self.logits, batch.rows).requires_grad_()
        log_prob = of_actions(log_softmax(logits), states, actions)
        stats = None
        if method.shaping or method.entropy_bonus or method.token_selection:
            stats = statistics_of(logits, states, log_prob)

        comp = stab = torch.ones_like(old_log_prob)
        moved = advantages != 0
        risen = advantages > 0
        if isinstance(method.shaping, Modulation):
            assert stats is not None
            coefficient = self._coefficient(advantages, log_prob, old_log_prob)
            scope = batch.scope
            if self.config.normalizer_prompts is not None:
                scope = per_seed.scope_by_prompts(
                    stats, coefficient, mask, method.shaping.mean, self.config.normalizer_prompts
                )
            advantages, comp, stab = modulate(
                advantages, stats, mask, method.shaping, coefficient=coefficient, scope=scope
            )
        elif method.shaping is not None:
            assert stats is not None
            advantages = method.shaping.shape(advantages, stats)

        selection = None
        if method.token_selection or isinstance(method.loss, (ClipCov, KlCov)):
            tokens = (log_prob, old_log_prob, advantages, mask)
            entropy = None if stats is None else stats.entropy
            selection = per_seed.select(method.loss, method.token_selection, *tokens, entropy, uniforms)
        loss = policy_loss(method.loss, log_prob, old_log_prob, advantages, mask, selection=selection)
        total = (per_seed.weights(loss.mask, method.aggregation) * loss.values).sum()
        if method.entropy_bonus:
            assert stats is not None
            bonus = entropy_bonus(stats.entropy, mask, method.entropy_bonus.coefficient)
            total = total + (per_seed.weights(mask, method.aggregation) * bonus).sum()
        (gradient,) = torch.autograd.grad(total, logits)
        return self._scatter(batch.rows, gradient), {
            "clip_fraction": per_seed.mean(loss.clipped, loss.mask, empty=0.0),
            "compensation": per_seed.mean(comp, mask & risen, empty=1.0),
            "stabilization": per_seed.mean(stab, mask & moved, empty=1.0),
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
        """Add the gradients of rows [S, ...] of the table up to the gradient of the table."""
        index = (torch.arange(len(rows), device=self.device).reshape(-1, *[1] * (rows.ndim - 1)), rows)
        return torch.zeros_like(self.logits).index_put_(index, gradient, accumulate=True)

    # State

    def save(self, path: Path, seconds: float) -> None:
        """Write a checkpoint."""
        arrays = {"logits": self.logits.cpu().numpy()}
        arrays |= {f"optimizer.{name}": x.cpu().numpy() for name, x in self.optimizer.state.items()}
        arrays |= {f"metrics.{name}": x for name, x in self.result().items()}
        data = {
            "config": self.config.to_dict(),
            "num_steps": self.num_steps,
            "optimizer_steps": self.optimizer.num_steps,
            "histories": [history.state_dict() for history in self.histories],
            "software": self.software,
            "seconds": seconds,
        }
        checkpoint.save(path, arrays, data)

    def load(self, path: Path) -> float:
        """Take over a checkpoint of the same config (`num_steps` apart); returns the seconds it took.

        One of other software, or from another device, is taken over too, and `software` tells.

        Raises
        ------
        ValueError
            If the file is damaged or lacks something, or the config another one; the message names the file and what.
        """
        arrays, data = checkpoint.load(path)
        needed = ["config", "num_steps", "optimizer_steps", "histories", "seconds", "logits"]
        needed += [f"optimizer.{name}" for name in self.optimizer.state] + [
            f"metrics.{name}" for name in metrics.METRICS
        ]
        missing = [name for name in needed if name not in arrays and name not in data]
        if missing:
            raise ValueError(f"{path}: expected a checkpoint of this trainer, got one without {', '.join(missing)}")
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
        # Checkpoints of before do not tell.
        self.software = [*(used for used in data.get("software", []) if used != self.software[-1]), self.software[-1]]
        return float(data["seconds"])


def get_device(name: str) -> torch.device:
    """Return a device by name.

    Raises
    ------
    ValueError
        If the name is not one of `DEVICES`, or the device is not there.
    """
    require.one_of("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected cpu, for torch finds no CUDA device, got cuda")
    return torch.device(name)


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
    config: TrainConfig,
    *,
    out: Path | None = None,
    checkpoint_every: int = 20,
    progress: Progress | None = None,
    device: str = "cpu",
) -> Run:
    """Train, or resume the training in `out`; the result is the same to the bit.

    That is promised for the CPU and the same versions of the software; `versions.json` tells what a run was made with,
    and what earlier parts of it were if that was something else.

    Parameters
    ----------
    config
        What to train.
    out
        Folder of the run (`theory.base.runs`), made if missing; None keeps everything in memory. An unfinished run of
        the same config in it is resumed from its last checkpoint; so is a finished one of fewer steps.
    checkpoint_every
        Steps between two checkpoints, >= 1; without effect on the result.
    progress
        Called after every step.
    device
        Where to compute, one of `DEVICES`. Draws, allocation and histories are the CPU's on all of them; results of
        "cuda" agree with those of "cpu" up to rounding, and are not promised to repeat to the bit.

    Raises
    ------
    ValueError
        If `out` holds the run of another config or a damaged checkpoint, or there is no such device; the message names
        it.
    """
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every: expected an integer >= 1, got {checkpoint_every}")
    start = time.perf_counter()
    if out is not None and (out / runs.CONFIG_FILE).exists():
        require_same(out / runs.CONFIG_FILE, runs.read_json(out / runs.CONFIG_FILE), config)
    trainer = Trainer(config, device)
    saved = None if out is None else out / checkpoint.NAME
    if saved is not None and saved.exists():
        start -= trainer.load(saved)
    if out is not None and (trainer.num_steps < config.num_steps or not (out / runs.VERSIONS_FILE).exists()):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"out: expected a folder, got {out} ({error.strerror})") from error
        (out / runs.VERSIONS_FILE).unlink(missing_ok=True)
        runs.write_json(out / runs.CONFIG_FILE, config.to_dict())
    while trainer.num_steps < config.num_steps:
        trainer.step()
        if saved is not None and (trainer.num_steps % checkpoint_every == 0 or trainer.num_steps == config.num_steps):
            trainer.save(saved, time.perf_counter() - start)
        if progress is not None:
            progress(trainer.num_steps, float(trainer.metrics["pass_at_1"][-1].mean()))
    run = Run(config, trainer.result(), trainer.logits.cpu().numpy(), time.perf_counter() - start)
    if out is not None and not (out / runs.VERSIONS_FILE).exists():
        runs.write_metrics(out / runs.METRICS_FILE, run.columns())
        runs.write_json(out / runs.VERSIONS_FILE, runs.versions(config.seeds, run.seconds, trainer.software))
    return run
