"""The configuration of a run: typed, validated, the only place for defaults; to plain data and back.

Defaults follow the paper's Table 3, scaled down: 64 prompts x 16 rollouts instead of 512 x 16, 4 optimiser steps per
rollout batch instead of 16; the range of rollouts [8, 24], the clip range (of the method) and the gradient norm 1.0 are
the paper's. Its learning rate means nothing to a table of logits. Ours is the largest of 0.3, 1, 3, ..., 300 at which
the clip stops less than 0.1 % of the tokens of GRPO alone (mixed world, seeds 1000 to 1015): 10, with 0.04 %. GRPO's
final pass@1 is no criterion: it only rises with the step, until the world is solved and no difference is left (3: 0.64,
10: 0.90, 30: 0.973, 100: 0.994).
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from theory.allocation import ORACLES, get_allocator, spends_in_rounds
from theory.base import require
from theory.estimators import ADVANTAGES
from theory.methods import METHODS, Method
from toy.worlds import WORLDS, AnyPopulation

OPTIMIZERS = ("sgd", "adamw")

MINIBATCHES = ("rollouts", "prompts")

SUCCESS_RATES = ("history", "true")

ROW_DEFECTS = ("none", "expansion", "history", "both")

MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How gradients move the logits.

    Attributes
    ----------
    name : One of `OPTIMIZERS`.
    learning_rate : Step on the logits, > 0. AdamW needs far smaller ones than SGD (0.03 is a start).
    weight_decay : Decoupled: every optimiser step multiplies all logits by 1 - learning_rate * weight_decay. >= 0.
    max_grad_norm : A seed's gradient is scaled down to this norm where it is larger; None: never.
    beta1, beta2, epsilon : AdamW only.
    """

    name: str = "sgd"
    learning_rate: float = 10.0
    weight_decay: float = 0.0
    max_grad_norm: float | None = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        require.one_of("name", self.name, OPTIMIZERS)
        require.in_range("learning_rate", self.learning_rate, 0.0, open_low=True)
        require.in_range("weight_decay", self.weight_decay, 0.0, 1.0 / self.learning_rate)
        if self.max_grad_norm is not None:
            require.in_range("max_grad_norm", self.max_grad_norm, 0.0, open_low=True)
        require.in_range("beta1", self.beta1, 0.0, 0.999999)
        require.in_range("beta2", self.beta2, 0.0, 0.999999)
        require.in_range("epsilon", self.epsilon, 0.0, open_low=True)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run: a method in a world, over many seeds.

    Attributes
    ----------
    method_name, method : A label, and the method in full.
    world_name, world : A label, and the population; every seed draws its own world from it.
    num_seeds, first_seed : The seeds are first_seed, first_seed + 1, ...; a seed's result does not depend on the
        others.
    num_steps : Rollout batches.
    batch_prompts : Prompts per rollout batch, drawn without replacement; an epoch is a fresh shuffle, its incomplete
        last batch is dropped.
    rollouts : Average rollouts per prompt; the budget of a batch is batch_prompts * rollouts.
    rollouts_low, rollouts_high : Bounds on the rollouts of one prompt.
    history_discount : Factor on a prompt's old counts at each visit; 1 is the paper's, which adds up for ever.
    success_rates : What a rule goes by: "history", counts of the past; or "true", the policy's exact success rates, to
        measure the cost of estimating them. Not for oracles, which know more, nor for rules that spend in rounds, which
        go by what they observe.
    num_minibatches : Optimiser steps per pass over a rollout batch.
    minibatch : What is dealt over the mini-batches in turn: "rollouts" of every prompt, or whole "prompts". In a bandit
        prompts share no parameters, so that mini-batches of whole prompts are all on-policy; with rollouts, importance
        ratios differ from 1 from the second mini-batch on in every world.
    num_epochs : Passes over a rollout batch.
    normalizer_prompts : Extremes that the modulation refers to: None, those of the rollout batch under the policy that
        sampled it; a number, those of so many consecutive prompts' part of the mini-batch under the current policy, as
        in public code that takes them over each micro-batch.
    row_defects : Defects of a public trainer that handles rows by position, simulated (`toy.training.row_defects`):
        "none"; "expansion", rollouts are expanded by their counts and their ground truth by the mean; "history",
        outcomes are recorded in another order than their prompts; or "both". For rules that spend the budget at once.
    diagnose_every : Steps between two that are diagnosed (`toy.training.diagnostics`), which takes time; 0 for none.
        Without effect on the training.
    optimizer : How gradients move the logits.
    """

    method_name: str
    method: Method
    world_name: str
    world: AnyPopulation
    num_seeds: int = 32
    first_seed: int = 0
    num_steps: int = 200
    batch_prompts: int = 64
    rollouts: int = 16
    rollouts_low: int = 8
    rollouts_high: int = 24
    history_discount: float = 1.0
    success_rates: str = "history"
    num_minibatches: int = 4
    minibatch: str = "rollouts"
    num_epochs: int = 1
    normalizer_prompts: int | None = None
    row_defects: str = "none"
    diagnose_every: int = 0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        for name, kinds in (
            ("method", (Method,)), ("world", typing.get_args(AnyPopulation)), ("optimizer", (OptimizerConfig,))
        ):  # fmt: skip
            if not isinstance(getattr(self, name), kinds):
                expected = " or ".join(kind.__name__ for kind in kinds)
                raise ValueError(f"{name}: expected a {expected}, got {getattr(self, name)!r}")
        for name in ("method_name", "world_name"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name}: expected a string, got {getattr(self, name)!r}")
        for name in ("num_seeds", "batch_prompts", "rollouts", "num_minibatches", "num_epochs"):
            require.count(name, getattr(self, name), 1)
        for name in ("first_seed", "num_steps", "rollouts_low", "diagnose_every"):
            require.count(name, getattr(self, name))
        if self.first_seed + self.num_seeds - 1 > MAX_SEED:
            raise ValueError(f"first_seed: expected seeds up to {MAX_SEED}, got {self.first_seed}")
        if self.batch_prompts > self.world.num_prompts:
            raise ValueError(
                f"batch_prompts: expected at most the world's {self.world.num_prompts}, got {self.batch_prompts}"
            )
        if self.rollouts_low > self.rollouts:
            raise ValueError(f"rollouts_low: expected at most rollouts {self.rollouts}, got {self.rollouts_low}")
        require.count("rollouts_high", self.rollouts_high, self.rollouts)
        require.one_of("minibatch", self.minibatch, MINIBATCHES)
        dealt = "rollouts_high" if self.minibatch == "rollouts" else "batch_prompts"
        if self.num_minibatches > getattr(self, dealt):
            raise ValueError(
                f"num_minibatches: expected at most {dealt} {getattr(self, dealt)}, got {self.num_minibatches}"
            )
        if self.method.allocator == "oracle-progress" and self.method.advantage not in tuple(ADVANTAGES):
            raise ValueError(
                f"method.allocator: expected a rule other than oracle-progress with the advantages "
                f"{self.method.advantage!r}, whose progress does not depend on the number of rollouts"
            )
        require.in_range("history_discount", self.history_discount, 0.0, 1.0)
        require.one_of("success_rates", self.success_rates, SUCCESS_RATES)
        rule = self.method.allocator
        if self.success_rates == "true" and (spends_in_rounds(get_allocator(rule)) or rule in ORACLES):
            raise ValueError(f"success_rates: expected 'history' with the rule {rule}, which looks at none, got 'true'")
        if self.normalizer_prompts is not None:
            size = require.count("normalizer_prompts", self.normalizer_prompts, 1)
            parts = self.num_minibatches if self.minibatch == "prompts" else 1
            if self.batch_prompts % (parts * size):
                prompts = f"{self.batch_prompts / parts:g} prompts"
                raise ValueError(f"normalizer_prompts: expected a divisor of the mini-batch's {prompts}, got {size}")

        require.one_of("row_defects", self.row_defects, ROW_DEFECTS)
        if self.row_defects != "none" and (self.diagnose_every or spends_in_rounds(get_allocator(rule))):
            what = f"diagnostics every {self.diagnose_every} steps" if self.diagnose_every else f"the rule {rule}"
            raise ValueError(f"row_defects: expected 'none' with {what}, got {self.row_defects!r}")

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the run."""
        return tuple(range(self.first_seed, self.first_seed + self.num_seeds))

    @classmethod
    def named(cls, method: str, world: str, **fields: Any) -> TrainConfig:
        """Return the config of a method and a world by name, with defaults for all fields that are not given."""
        require.one_of("method", method, METHODS)
        require.one_of("world", world, WORLDS)
        names = [f.name for f in dataclasses.fields(cls)]
        for name in fields:
            require.one_of("field", name, names)
        chosen = {"method_name": method, "method": METHODS[method], "world_name": world, "world": WORLDS[world]}
        return cls(**{**chosen, **fields})

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, fit for JSON, with every field."""
        return dict(_encode(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainConfig:
        """Return the config that `to_dict` wrote, defaults filled in; an error names a path as `world.num_answers`."""
        config: TrainConfig = _decode(cls, data, "config")
        return config


def _encode(value: Any) -> Any:
    if isinstance(value, Method):
        return value.to_dict()
    if dataclasses.is_dataclass(value):
        return {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def _decode(kind: Any, value: Any, path: str) -> Any:
    """Return `value` as a `kind`: a dataclass from its fields, the one of several that fits them best, or itself."""
    choices = [c for c in typing.get_args(kind) if dataclasses.is_dataclass(c)]
    if not choices and not dataclasses.is_dataclass(kind):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{path}: expected fields, got {value!r}")
    if choices:
        return _decode(_by_fields(choices, value, path), value, path)
    try:
        if kind is Method:
            return Method.from_dict(value)
        hints = typing.get_type_hints(kind)
        fields = {f.name: f for f in dataclasses.fields(kind)}
        for name in value:
            require.one_of("field", name, fields)
        for name, f in fields.items():
            required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
            if required and name not in value:
                raise ValueError(f"{name}: expected a value, got none")
        parts = {name: _decode(hints[name], part, name) for name, part in value.items()}
        return typing.cast(Any, kind)(**parts)
    except ValueError as error:
        raise ValueError(f"{path}.{error}") from error


def _by_fields(choices: list[Any], value: Mapping[str, Any], path: str) -> Any:
    """Return the choice with most of the fields of `value`."""
    names = {choice: {f.name for f in dataclasses.fields(choice)} for choice in choices}
    shared = {choice: len(names[choice] & set(value)) for choice in choices}
    best = max(shared.values())
    if list(shared.values()).count(best) > 1:
        expected = " or ".join(", ".join(sorted(names[choice])) for choice in choices)
        raise ValueError(f"{path}: expected the fields {expected}, got {value!r}")
    return max(choices, key=lambda choice: shared[choice])
