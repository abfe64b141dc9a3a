"""Randomness without state: every draw is a function of a seed, what the draw is for, and the step.

A resumed run needs no generator's state, one purpose never shifts the draws of another, and methods share their draws:
the g-th rollout of a prompt at a step uses the same uniform number under every method and every allocation.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import numpy as np

from theory.base.arrays import FloatArray


class Stream(enum.IntEnum):
    """What a random number is for. The values are part of what a seed means: never reuse one."""

    WORLD = 0
    PROMPTS = 1
    ROLLOUTS = 2
    ALLOCATION = 3
    LOSS = 4
    DIAGNOSTICS = 5
    ROW_ORDER = 6


def generator(seed: int, stream: Stream, step: int = 0) -> np.random.Generator:
    """Return the generator of a seed for one purpose at one step (for PROMPTS: one epoch)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream, step))))


def uniforms(generators: Sequence[np.random.Generator], shape: tuple[int, ...]) -> FloatArray:
    """Draw uniform numbers from the generator of every seed, [S, *shape]."""
    drawn = np.empty((len(generators), *shape))
    for rng, own in zip(generators, drawn, strict=True):
        rng.random(out=own)
    return drawn
