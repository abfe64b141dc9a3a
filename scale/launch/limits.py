"""How long the parts of a run may take, before it starts: limits that follow from its estimate.

The estimate has a dear end (`scale.launch.estimate`). A part of a step may be silent for `MARGIN` times what it takes
there, and no less than `LEAST`. Where model or GPU is unknown, as for the tiny model, limits are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scale.launch.estimate import generation_seconds, step_seconds
from scale.launch.job import BF16, Job, assumptions, model_and_gpu, validation_prompts
from scale.launch.room import checkpoint_bytes
from scale.run.reports import STARTING, STEPPING, STOPPING
from scale.run.supervisor import MOVING
from theory.base import require

MARGIN = 3.0
"""Silence that is allowed to a part of a run, over what it takes at the dear end of the estimate."""

LEAST = 1800.0
"""Seconds of silence that every part is allowed; of all parts, if there is no estimate."""

WHOLE = 1.5
"""Time that a run is allowed, and grace, over what they take at the dear end of the estimate."""

DEADLINE, GRACE = 14 * 24 * 3600.0, 600.0
"""Seconds that a run is allowed, and has to save and to end when it is asked to, if there is no estimate."""

STORAGE = 100e6
"""Bytes a second at which checkpoints are written and models are read, at the dear end."""

START = 600.0
"""Seconds that a part of the start takes at the dear end, without reading a model."""


@dataclass(frozen=True)
class Limits:
    """Seconds that a run may take.

    Attributes
    ----------
    deadline : In all, restarts included.
    silence : Without a beat, where `phases` does not say otherwise. If the run moves, it has `MOVING` times as long.
    phases : Without a beat, by phase.
    grace : From the request to stop until all is saved.
    restarts : Times that a run which failed or hung is started again.
    """

    deadline: float = DEADLINE
    silence: float = LEAST
    phases: Mapping[str, float] = field(default_factory=dict)
    grace: float = GRACE
    restarts: int = 0

    def __post_init__(self) -> None:
        for name in ("deadline", "silence", "grace"):
            require.in_range(name, getattr(self, name), 0.0, open_low=name != "grace")
        require.count("restarts", self.restarts, 0)


def seconds(config: Any) -> dict[str, float]:
    """Return the seconds that phases, a step and the run (`run`) take at the dear end; empty without an estimate."""
    shape, hardware = model_and_gpu(config)
    if shape is None or hardware is None:
        return {}
    job, given = Job.from_config(config), assumptions(config)[1]
    step = step_seconds(job, shape, hardware, given)
    each = step["update"] / job.passes
    samples = validation_prompts(config) * int(config.actor_rollout_ref.rollout.val_kwargs.n)
    validation = generation_seconds(job, shape, hardware, given, samples)
    reading = BF16 * shape.parameters / STORAGE
    saving = checkpoint_bytes(shape.parameters, config.actor_rollout_ref.actor.checkpoint.save_contents) / STORAGE
    found = dict.fromkeys(STARTING, START) | dict.fromkeys(STEPPING, 0.0)
    found |= {
        "model": START + reading,
        "vLLM": START + reading,
        "checkpoint loading": START + saving,
        "first look": validation,
        "rollouts": step["generation"],
        "old log-probs": each,
        "reference": each * job.reference,
        "update": step["update"] - each * (1 + job.reference),
        "checkpoint": saving,
        "validation": validation,
        STOPPING: saving,
    }
    trainer = config.trainer
    saves = job.steps // trainer.save_freq + 2 if trainer.save_freq > 0 else 0
    start = sum(found[name] for name in STARTING)
    whole = start + job.steps * step["step"] + saves * saving
    return found | {"step": step["step"], "run": whole}


def limits_of(
    config: Any,
    deadline: float | None = None,
    silence: float | None = None,
    grace: float | None = None,
    restarts: int = 0,
) -> Limits:
    """Return the limits of a run: those that are given, and for the others what follows from the estimate."""
    found = seconds(config)
    fixed = {"silence": silence, "deadline": deadline, "grace": grace}
    derived: dict[str, Any] = {}
    if found:
        last = ("old log-probs", "reference", "update", "weight sync", "validation", "checkpoint")
        derived = {
            "deadline": WHOLE * found["run"],
            "grace": WHOLE * sum(found[name] for name in last) + GRACE,
        }
        if silence is None:
            derived["phases"] = {name: max(LEAST, MARGIN * found[name]) for name in (*STARTING, *STEPPING, STOPPING)}
    given = {name: value for name, value in fixed.items() if value is not None}
    return Limits(**(derived | given), restarts=restarts)


def describe(config: Any, allowed: Limits) -> str:
    """Return the limits of a run in words."""
    found = seconds(config)
    lines = []
    if not found:
        lines.append(f"silence      {in_time(allowed.silence)} in every phase; no estimate, so it is fixed")
    elif not allowed.phases:
        lines.append(f"silence      {in_time(allowed.silence)} in every phase, as given")
    else:
        longer = {name: value for name, value in allowed.phases.items() if value > LEAST}
        each = "; ".join(f"{name} {in_time(value)} ({in_time(found[name])})" for name, value in longer.items())
        lines += [
            f"silence      {MARGIN:g} x the dear end of the estimate (in brackets) without progress, at least "
            f"{in_time(LEAST)}: {each + '; ' if each else ''}every other phase {in_time(LEAST)}",
            f"             of the dear end: {validation_prompts(config):,} prompts of a validation, "
            f"{STORAGE / 1e6:g} MB/s of storage, {in_time(START)} for a part of the start",
        ]
    lines += [
        f"             a run that moves (processes, GPUs or log) has {MOVING:g} x as long, one that does not is stuck",
        f"deadline     {in_time(allowed.deadline)}"
        + (f"; the run takes {in_time(found['run'])} at the dear end" if found else ""),
        f"grace        {in_time(allowed.grace)} ({allowed.grace:.0f} s) from SIGTERM until a checkpoint is saved",
        f"restarts     {allowed.restarts}",
    ]
    return "\n".join(lines)


def in_time(value: float) -> str:
    """Return seconds in the largest unit of which there are two.

    Examples
    --------
    >>> [in_time(x) for x in (90, 1800, 9000, 1209600)]
    ['90 s', '30 min', '2.5 h', '14 days']
    """
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if value >= 2 * length:
            return f"{float(f'{value / length:.3g}'):g} {unit}"
    return f"{value:.0f} s"


def check(config: Any) -> None:
    """Require whole numbers in the node `checkpoints`."""
    for name, value in (config.get("checkpoints") or {}).items():
        require.one_of("checkpoints", name, ("first", "keep_exports"))
        require.count(f"checkpoints.{name}", value, 0)
