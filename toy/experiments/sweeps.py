"""The experiments: sweeps that reproduce a table or a figure of the paper in tabular worlds, or ask a question of ours.

What the paper's tables compare and its figures vary is `theory.methods.grids`, the same as in
`scale.launch.experiments`. Sizes are those of `make reproduce`: 32 seeds. `Sweep.longer` doubles seeds and steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from theory.allocation import ALLOCATORS
from theory.base import require
from theory.losses import Modulation
from theory.methods import METHODS, Budget, Method, grids
from toy.experiments.design import HORIZONS, TIMING, Cell, Sweep
from toy.training import OptimizerConfig, TrainConfig
from toy.worlds import WORLDS

STEPS = {"mixed": 200, "skills": 60}
"""The worlds of the paper's tables and dynamics, with as many steps as GRPO needs for a pass@1 of about .9: the answers
of a bandit are learnt prompt by prompt, skills are shared."""

FEW_STEPS = 100
"""Steps of the sweeps with many cells."""

PERFORMANCE = ("pass_at_1", "pass_at_1_mean", "pass_at_32", *HORIZONS)
BY_RULE = ("pass_at_1", "pass_at_1_mean", "rollouts", *HORIZONS)

DYNAMO = METHODS["dynamo"]


def _cell(
    axes: Mapping[str, object], method: str, world: str, /, *, variant: Method | None = None, **fields: Any
) -> Cell:
    """Return a cell; `variant` stands in for the method of that name."""
    config = TrainConfig.named(method, world)
    config = replace(config, method=variant or config.method, **fields)
    return Cell({axis: str(value) for axis, value in axes.items()}, config)


def _by_method(methods: Iterable[str], **fields: Any) -> tuple[Cell, ...]:
    return tuple(
        _cell({"world": world, "method": name}, name, world, **{"num_steps": STEPS[world], **fields})
        for world in STEPS
        for name in methods
    )


def _rollouts(budget: Budget) -> dict[str, Any]:
    return {"rollouts": budget.mean, "rollouts_low": budget.low, "rollouts_high": budget.high}


def _modulated(**fields: Any) -> Method:
    return replace(DYNAMO, shaping=Modulation(**fields))


def _factors() -> Iterable[tuple[str, object, Method, dict[str, Any]]]:
    """Yield figure 3: one factor at a time, the others at their defaults (.4, [8, 24], 50, .9)."""
    yield "default", "default", DYNAMO, {}
    for alpha in grids.ALPHAS:
        yield "alpha", alpha, _modulated(alpha=alpha), {}
    for budget in grids.BOUNDS:
        yield "bounds", f"{budget.low}-{budget.high}", DYNAMO, _rollouts(budget)
    for sharpness in grids.SHARPNESSES:
        yield "sharpness", f"{sharpness:g}", _modulated(sharpness=sharpness), {}
    for threshold in grids.THRESHOLDS:
        yield "threshold", threshold, _modulated(threshold=threshold), {}


def _sizes() -> Iterable[tuple[str, int, str, dict[str, Any]]]:
    """Yield figure 4: one size of a world at a time."""
    for num_answers in (8, 32, 128, 512):
        yield "answers", num_answers, "mixed", {"num_answers": num_answers}
    for num_prompts in (64, 1024):  # 256 are in the cells above
        yield "prompts", num_prompts, "mixed", {"num_prompts": num_prompts}
    for length in (2, 8, 16):
        yield "length", length, "skills", {"length_low": length, "length_high": length}
    for num_skills in (12, 48, 192):
        yield "skills", num_skills, "skills", {"num_skills": num_skills, "num_decisions": num_skills // 2}


MICRO_BATCH = 4
"""Prompts whose part of a mini-batch stands for a micro-batch: 16 rollouts on average."""


SCRIPT = {"alpha_comp": 0.2, "alpha_stab": 0.4, "threshold": 0.99}
"""The modulation of the public code's script; ours is that of another mode of that code (docs/provenance.md)."""


def _paper_and_code() -> Iterable[tuple[str, str, Method, dict[str, Any]]]:
    """Yield the paper's method with one choice or defect of the public code at a time, then with all, and GRPO."""
    per_micro_batch = {"normalizer_prompts": MICRO_BATCH}
    wide, by_sequence = METHODS["clip-higher"].loss, Modulation(mean="sequence")
    yield "paper", "dynamo", DYNAMO, {}
    yield "root-of-p", "dynamo", replace(DYNAMO, allocator="neyman"), {}
    yield "code-allocation", "dynamo", replace(DYNAMO, allocator="dynamo-code"), {}
    yield "clip-0.28", "dynamo", replace(DYNAMO, loss=wide), {}
    yield "sequence-mean", "dynamo", replace(DYNAMO, shaping=by_sequence), {}
    yield "micro-batch", "dynamo", DYNAMO, per_micro_batch
    yield "prompt-mean", "dynamo", replace(DYNAMO, aggregation="prompt-mean"), {}
    yield "script-settings", "dynamo", _modulated(**SCRIPT), {}
    for defects in ("expansion", "history", "both"):
        yield f"row-{defects}", "dynamo", DYNAMO, {"row_defects": defects}
    all_of_it = replace(DYNAMO, allocator="dynamo-code", loss=wide, shaping=by_sequence)
    yield "all-of-the-code", "dynamo", all_of_it, per_micro_batch
    released = replace(all_of_it, shaping=Modulation(mean="sequence", **SCRIPT))
    yield "as-released", "dynamo", released, {**per_micro_batch, "row_defects": "both"}
    yield "grpo", "grpo", METHODS["grpo"], {}


HORIZON = {"binary": 200, "peaked": 200, "diffuse": 200, "mixed": 200, "skills": 200, "skills-long": 100}
"""Every world, with 50 visits a prompt, or as many as take seconds: 25."""

PARTS = ("grpo", "dynamo", "dynamo-only-dra", "dynamo-no-dra")
"""GRPO, DynaMO, its allocation alone, and its modulation alone."""

REGIMES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "mixed-50-visits-rate-10": {"world": "mixed", "steps": 200, "rate": 10.0},
        "mixed-50-visits-rate-1000": {"world": "mixed", "steps": 200, "rate": 1000.0},
        "mixed-12.5-visits-rate-100": {"world": "mixed", "steps": 50, "rate": 100.0},
        "mixed-4-visits-rate-300": {"world": "mixed", "steps": 16, "rate": 300.0},
        "mixed-4-visits-rate-100": {"world": "mixed", "steps": 16, "rate": 100.0},
        "mixed-4-visits-rate-30": {"world": "mixed", "steps": 16, "rate": 30.0},
        "skills-4-visits-rate-3": {"world": "skills", "steps": 128, "rate": 3.0, "prompts": 2048},
    }
)
"""Visits to a prompt, and progress at each. 1000 is the rate that the sweep `tuning` chooses for GRPO in mixed."""


def _in_regime(name: str) -> Iterable[Cell]:
    """Yield GRPO in a regime with the paper's rule by histories of several ages, with another rule, and DynaMO."""
    world, rate = REGIMES[name]["world"], REGIMES[name]["rate"]
    population = WORLDS[world]
    for variant, method, rule, fields in (
        ("grpo", "grpo", "uniform", {}),
        ("allocation", "grpo", "dynamo", {}),
        ("allocation-last-visit", "grpo", "dynamo", {"history_discount": 0.0}),
        ("allocation-true-rates", "grpo", "dynamo", {"success_rates": "true"}),
        ("dynamo", "dynamo", "dynamo", {}),
        ("log-progress-0.5", "grpo", "log-progress", {"history_discount": 0.5}),
    ):
        yield _cell(
            {"regime": name, "variant": variant},
            method,
            world,
            variant=replace(METHODS[method], allocator=rule),
            world=replace(population, num_prompts=REGIMES[name].get("prompts", population.num_prompts)),
            num_steps=REGIMES[name]["steps"],
            optimizer=OptimizerConfig(learning_rate=rate),
            **fields,
        )


LAGGING = ("dynamo", "neyman", "gvm", "vip", "log-progress")
"""Rules that go by success rates, for the sweep of their age."""


def _with_rule(rule: str) -> Method:
    return replace(METHODS["grpo"], allocator=rule)


def _by_rule(*worlds: str) -> tuple[Cell, ...]:
    return tuple(
        _cell({"world": world, "rule": rule}, "grpo", world, variant=_with_rule(rule), num_steps=FEW_STEPS)
        for world in worlds
        for rule in ALLOCATORS
    )


_SWEEPS = (
    Sweep(
        name="table1",
        title="nine methods",
        reproduces="Table 1",
        cells=_by_method(grids.METHODS_OF_TABLE_1),
        blocks=("world",),
        reference={"method": "grpo"},
        measures=("pass_at_1", "pass_at_1_mean", "pass_at_32", "gradient_norm", *HORIZONS),
    ),
    Sweep(
        name="table2",
        title="DynaMO without each part; all of them left out is GRPO",
        reproduces="Table 2",
        cells=_by_method(grids.METHODS_OF_TABLE_2),
        blocks=("world",),
        reference={"method": "dynamo"},
        measures=PERFORMANCE,
    ),
    Sweep(
        name="fig2",
        title="average rollouts per prompt, with dynamic allocation and without",
        reproduces="Figure 2",
        cells=tuple(
            _cell(
                {"rollouts": budget.mean, "method": name},
                name,
                "mixed",
                num_steps=FEW_STEPS,
                **_rollouts(budget),
            )
            for budget in grids.BUDGETS
            for name in grids.WITH_AND_WITHOUT_ALLOCATION
        ),
        blocks=("rollouts",),
        reference={"method": "dynamo-no-dra"},
        measures=PERFORMANCE,
    ),
    Sweep(
        name="fig3",
        title="alpha, bounds, sharpness and threshold of DynaMO, one at a time",
        reproduces="Figure 3",
        cells=tuple(
            _cell(
                {"factor": factor, "setting": setting},
                "dynamo",
                "mixed",
                variant=method,
                num_steps=FEW_STEPS,
                **fields,
            )
            for factor, setting, method, fields in _factors()
        ),
        blocks=(),
        reference={"factor": "default"},
        measures=PERFORMANCE,
    ),
    Sweep(
        name="fig4",
        title="growing worlds: answers, prompts, chain length, skills",
        reproduces="Figure 4",
        cells=tuple(
            _cell(
                {"size": size, "setting": setting, "method": method},
                method,
                world,
                num_steps=FEW_STEPS,
                world=replace(WORLDS[world], **changes),
            )
            for size, setting, world, changes in _sizes()
            for method in ("grpo", "dynamo")
        ),
        blocks=("size", "setting"),
        reference={"method": "grpo"},
        measures=PERFORMANCE,
    ),
    Sweep(
        name="fig5",
        title="dynamics: entropy and gradient norm",
        reproduces="Figure 5",
        cells=_by_method(("grpo", "dynamo")),
        blocks=("world",),
        reference={"method": "grpo"},
        measures=("entropy", "entropy_roughness", "gradient_norm", "gradient_norm_tail"),
    ),
    Sweep(
        name="fig6",
        title="wall time per step; run it alone, with --jobs 1, on an idle machine",
        reproduces="Figure 6",
        cells=_by_method(grids.METHODS_OF_TABLE_1, num_steps=20),
        blocks=("world",),
        reference={"method": "grpo"},
        measures=(TIMING,),
    ),
    Sweep(
        name="allocation-map",
        title="GRPO with every allocation rule under one budget, pilots included",
        reproduces="which rule is best where?",
        cells=_by_rule("binary", "diffuse", "mixed"),
        blocks=("world",),
        reference={"rule": "uniform"},
        measures=BY_RULE,
    ),
    Sweep(
        name="allocation-map-more",
        title="the same in two further worlds",
        reproduces="which rule is best where?",
        cells=_by_rule("peaked", "skills"),
        blocks=("world",),
        reference={"rule": "uniform"},
        measures=BY_RULE,
    ),
    Sweep(
        name="bounds",
        title="GRPO with every allocation rule under bounds from tight to none to speak of, 16 rollouts on average",
        reproduces="do bounds decide which rule is best?",
        cells=tuple(
            _cell(
                {"bounds": f"{low}-{high}", "rule": rule},
                "grpo",
                "mixed",
                variant=_with_rule(rule),
                num_steps=FEW_STEPS,
                rollouts_low=low,
                rollouts_high=high,
            )
            for low, high in ((12, 20), (8, 24), (4, 48), (2, 64))
            for rule in ALLOCATORS
        ),
        blocks=("bounds",),
        reference={"rule": "uniform"},
        measures=BY_RULE,
    ),
    Sweep(
        name="paper-vs-code",
        title="DynaMO as in the paper, with each choice of its public code, and with all",
        reproduces="what do the differences between paper and public code do?",
        cells=tuple(
            _cell({"world": world, "variant": variant}, name, world, variant=method, num_steps=STEPS[world], **fields)
            for world in STEPS
            for variant, name, method, fields in _paper_and_code()
        ),
        blocks=("world",),
        reference={"variant": "paper"},
        measures=PERFORMANCE,
    ),
    Sweep(
        name="horizons",
        title="DynaMO, its allocation alone and its modulation alone, in every world, at several horizons",
        reproduces="when is DynaMO ahead of GRPO?",
        cells=tuple(
            _cell({"world": world, "method": name}, name, world, num_steps=steps)
            for world, steps in HORIZON.items()
            for name in PARTS
        ),
        blocks=("world",),
        reference={"method": "grpo"},
        measures=PERFORMANCE,
    ),
    Sweep(
        name="regimes",
        title="visits and learning rate: allocation by old, last and true success rates, DynaMO, another rule",
        reproduces="how much of the allocation's deficit is lag, and where?",
        cells=tuple(cell for name in REGIMES for cell in _in_regime(name)),
        blocks=("regime",),
        reference={"variant": "grpo"},
        measures=PERFORMANCE,
    ),
    Sweep(
        name="adamw",
        title="DynaMO and its parts under AdamW at two learning rates, and GRPO with a 5 % larger step",
        reproduces="is it the method or the step, under AdamW?",
        cells=tuple(
            _cell(
                {"world": world, "base": f"{base:g}", "variant": variant},
                method,
                world,
                num_steps=STEPS[world],
                optimizer=OptimizerConfig(name="adamw", learning_rate=base * factor),
            )
            for world in STEPS
            for base in (0.01, 0.03)
            for variant, method, factor in (*((name, name, 1.0) for name in PARTS), ("grpo-1.05", "grpo", 1.05))
        ),
        blocks=("world", "base"),
        reference={"variant": "grpo"},
        measures=PERFORMANCE,
    ),
    Sweep(
        name="aggregation",
        title="DynaMO and its parts with a mean over all tokens as loss, and with a mean over prompts",
        reproduces="does the comparison depend on the aggregation, which the paper's words leave open?",
        cells=tuple(
            _cell(
                {"world": world, "aggregation": aggregation, "method": name},
                name,
                world,
                variant=replace(METHODS[name], aggregation=aggregation),
                num_steps=STEPS[world],
            )
            for world in STEPS
            for aggregation in ("token-mean", "prompt-mean")
            for name in PARTS
        ),
        blocks=("world", "aggregation"),
        reference={"method": "grpo"},
        measures=PERFORMANCE,
    ),
    Sweep(
        name="micro-batch",
        title="extremes of DynaMO's modulation over the batch, and over micro-batches of 4, 16 and 64 prompts",
        reproduces="when do normalisers over micro-batches hurt?",
        cells=tuple(
            _cell(
                {"world": world, "mean": mean, "prompts": "batch" if prompts is None else prompts},
                "dynamo",
                world,
                variant=_modulated(mean=mean),
                num_steps=STEPS[world],
                normalizer_prompts=prompts,
            )
            for world in STEPS
            for mean in ("vocabulary", "sequence")
            for prompts in (None, 4, 16, 64)
        ),
        blocks=("world", "mean"),
        reference={"prompts": "batch"},
        measures=PERFORMANCE,
    ),
    Sweep(
        name="lag",
        title="allocation by lifetime counts, discounted ones, the last visit, true success rates, and oracles",
        reproduces="how much does the age of the history cost?",
        cells=(
            *(
                _cell(
                    {"rule": rule, "discount": f"{discount:g}"},
                    "grpo",
                    "mixed",
                    variant=_with_rule(rule),
                    num_steps=STEPS["mixed"],
                    history_discount=discount,
                )
                for rule in LAGGING
                for discount in (1.0, 0.5, 0.0)
            ),
            *(
                _cell(
                    {"rule": rule, "discount": "true"},
                    "grpo",
                    "mixed",
                    variant=_with_rule(rule),
                    num_steps=STEPS["mixed"],
                    success_rates="true",
                )
                for rule in LAGGING
            ),
            *(
                _cell(
                    {"rule": rule, "discount": "1"}, "grpo", "mixed", variant=_with_rule(rule), num_steps=STEPS["mixed"]
                )
                for rule in ("uniform", "oracle-variance", "oracle-progress")
            ),
        ),
        blocks=(),
        reference={"rule": "uniform"},
        measures=PERFORMANCE,
    ),
    Sweep(
        name="learning-rate",
        title="learning rates next to methods: whatever raises the gradient has to beat a larger step",
        reproduces="is it the method or the step?",
        cells=tuple(
            _cell(
                {"world": world, "learning_rate": f"{rate:g}", "method": method},
                method,
                world,
                num_steps=STEPS[world],
                optimizer=OptimizerConfig(learning_rate=rate),
            )
            for world in STEPS
            for rate in (3.0, 7.0, 10.0, 11.0, 12.0, 14.0, 20.0, 30.0)
            for method in ("grpo", "dynamo-no-dra", "dynamo-only-dra", "dynamo")
        ),
        blocks=("world", "learning_rate"),
        reference={"method": "grpo"},
        measures=PERFORMANCE,
    ),
    Sweep(
        name="norms",
        title="gradient norms of the first steps, on seeds of their own",
        reproduces="a learning rate of equal early gradient norms for every method (--tuned)",
        cells=_by_method(grids.METHODS_OF_TABLE_1, num_steps=5, num_seeds=16, first_seed=1000),
        blocks=("world",),
        reference={"method": "grpo"},
        measures=("gradient_norm",),
        equalizes="gradient_norm",
    ),
    Sweep(
        name="tuning",
        title="half-decade grid of the learning rate for every method, on seeds of its own",
        reproduces="a fair learning rate for every method (--tuned)",
        cells=tuple(
            _cell(
                {"world": world, "method": method, "learning_rate": f"{rate:g}"},
                method,
                world,
                num_steps=STEPS[world],
                num_seeds=16,
                first_seed=1000,
                optimizer=OptimizerConfig(learning_rate=rate),
            )
            for world in STEPS
            for method in METHODS
            for rate in (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
        ),
        blocks=("world", "method"),
        reference={"learning_rate": "10"},
        measures=("pass_at_1_mean", "pass_at_1"),
        chooses="learning_rate",
    ),
)
SWEEPS: Mapping[str, Sweep] = MappingProxyType({sweep.name: sweep for sweep in _SWEEPS})

DEFAULT = ("table1", "table2", "fig2", "fig3", "fig5", "allocation-map", "paper-vs-code")
"""Names of the sweeps of `make reproduce`."""


def get_sweeps(names: Iterable[str]) -> tuple[Sweep, ...]:
    """Return sweeps by name, each once; `default` stands for `DEFAULT` and `all` for all."""
    groups = {"default": DEFAULT, "all": tuple(SWEEPS)}
    chosen: dict[str, Sweep] = {}
    for name in names:
        require.one_of("sweep", name, (*SWEEPS, *groups))
        chosen |= {each: SWEEPS[each] for each in groups.get(name, (name,))}
    return tuple(chosen.values())
