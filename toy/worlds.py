"""Worlds: populations of prompts as data, each prompt a softmax policy over its answers.

A `Population` is a law: how hard the prompts are, and how each prompt's probability is spread over its answers.
`Population.sample` draws a `World` from it: logits and the set of correct answers, from which all else is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from theory import _checks
from theory._checks import BoolArray, FloatArray, IntArray
from theory.softmax import log_softmax


@dataclass(frozen=True, kw_only=True)
class Beta:
    """Success probability of a fresh prompt: p ~ Beta(a, b), mean a / (a + b)."""

    a: float
    b: float

    def __post_init__(self) -> None:
        _checks.in_range("a", self.a, 0.0, open_low=True)
        _checks.in_range("b", self.b, 0.0, open_low=True)

    def sample(self, num_prompts: int, rng: np.random.Generator) -> FloatArray:
        """Draw p of every prompt, [num_prompts]."""
        return rng.beta(self.a, self.b, num_prompts)


@dataclass(frozen=True, kw_only=True)
class LogisticNormal:
    """Success probability of a fresh prompt: logit p ~ Normal(mean, std^2)."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        _checks.in_range("mean", self.mean)
        _checks.in_range("std", self.std, 0.0)

    def sample(self, num_prompts: int, rng: np.random.Generator) -> FloatArray:
        """Draw p of every prompt, [num_prompts]."""
        return np.asarray(expit(rng.normal(self.mean, self.std, num_prompts)))


@dataclass(frozen=True)
class World:
    """Prompts with their policy before training; N prompts, K answers.

    Attributes
    ----------
    logits
        [N, K], finite.
    correct
        [N, K], at least one correct answer per prompt.
    keys
        Stable names of the prompts, N of them, all different.
    """

    logits: FloatArray
    correct: BoolArray
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        _checks.finite(np, logits=self.logits)
        if self.logits.ndim != 2 or 0 in self.logits.shape:
            raise ValueError(f"logits: expected shape [N, K] with N, K >= 1, got {self.logits.shape}")
        _checks.boolean(np, correct=self.correct)
        _checks.same_shape(logits=self.logits, correct=self.correct)
        if not self.correct.any(-1).all():
            at = int(np.argmin(self.correct.any(-1)))
            raise ValueError(f"correct: expected a correct answer for every prompt, got none for prompt {at}")
        if len(set(self.keys)) != len(self.keys) or len(self.keys) != len(self.logits):
            raise ValueError(f"keys: expected {len(self.logits)} different keys, got {len(set(self.keys))}")

    @property
    def num_prompts(self) -> int:
        """N."""
        return len(self.keys)

    @property
    def num_answers(self) -> int:
        """K."""
        return int(self.logits.shape[1])

    @property
    def optimum(self) -> float:
        """Supremum of the mean success probability over all policies: 1, for every prompt has a correct answer."""
        return float(self.correct.any(-1).mean())

    def success_probability(self, logits: FloatArray | None = None) -> FloatArray:
        """Exact p of every prompt, [..., N], under `logits` [..., N, K]; of the policy before training if None."""
        probs = np.exp(log_softmax(self.logits if logits is None else logits))
        return np.asarray(np.minimum(np.sum(probs * self.correct, axis=-1), 1.0))


@dataclass(frozen=True, kw_only=True)
class Population:
    """A law of prompts.

    Each prompt draws p from `difficulty`, spreads it over its correct answers and 1 - p over its wrong ones, both
    times by a symmetric Dirichlet law. The Dirichlet concentration is drawn per prompt, log-uniformly between its two
    ends: far below 1 a few answers hold most of the mass, far above 1 all answers are about equally likely.

    Attributes
    ----------
    num_prompts
        N >= 1.
    num_answers
        K >= 2.
    num_correct
        Correct answers per prompt, in [1, K - 1].
    concentration_low, concentration_high
        Ends of the concentration, 0.01 <= low <= high.
    difficulty
        Law of p.
    margin
        p is clipped to [margin, 1 - margin], so that every prompt can be learnt and forgotten, however slowly.
    """

    num_prompts: int = 256
    num_answers: int
    num_correct: int
    concentration_low: float
    concentration_high: float
    difficulty: Beta | LogisticNormal
    margin: float = 1e-3

    def __post_init__(self) -> None:
        _checks.count("num_prompts", self.num_prompts, 1)
        _checks.count("num_answers", self.num_answers, 2)
        _checks.count("num_correct", self.num_correct, 1)
        if self.num_correct >= self.num_answers:
            raise ValueError(f"num_correct: expected fewer than num_answers {self.num_answers}, got {self.num_correct}")
        # Below 0.01 a share can be so small that its logit is useless; far above 1e4 all shares are equal.
        _checks.in_range("concentration_low", self.concentration_low, 0.01, 1e4)
        _checks.in_range("concentration_high", self.concentration_high, self.concentration_low, 1e4)
        if not isinstance(self.difficulty, (Beta, LogisticNormal)):
            raise ValueError(f"difficulty: expected Beta or LogisticNormal, got {self.difficulty!r}")
        _checks.in_range("margin", self.margin, 0.0, 0.5, open_low=True)

    def sample(self, rng: np.random.Generator) -> World:
        """Draw a world."""
        n, k, c = self.num_prompts, self.num_answers, self.num_correct
        p = np.clip(self.difficulty.sample(n, rng), self.margin, 1.0 - self.margin)[:, None]
        low, high = np.log(self.concentration_low), np.log(self.concentration_high)
        concentration = np.exp(rng.uniform(low, high, (n, 1)))
        sets = [(np.log(p), c), (np.log1p(-p), k - c)]
        log_probs = np.hstack([mass + _log_dirichlet(concentration, size, rng) for mass, size in sets])
        # Correct answers sit at random ids: no rule may profit from an id.
        answers: IntArray = np.argsort(rng.random((n, k)), axis=-1)
        correct = np.broadcast_to(np.arange(k) < c, (n, k))
        return World(
            logits=np.take_along_axis(log_probs, answers, axis=-1),
            correct=np.take_along_axis(correct, answers, axis=-1),
            keys=tuple(f"prompt-{i}" for i in range(n)),
        )


def _log_dirichlet(concentration: FloatArray, size: int, rng: np.random.Generator) -> Any:
    """Logarithms of symmetric Dirichlet shares, [N, size], finite where the shares themselves underflow."""
    # Gamma(a) = Gamma(a + 1) U^(1/a) in law.
    gamma = rng.gamma(concentration + 1.0, size=(len(concentration), size))
    uniform = 1.0 - rng.random((len(concentration), size))
    return log_softmax(np.log(gamma) + np.log(uniform) / concentration)


WORLDS: dict[str, Population] = {
    # One right and one wrong answer: the reward's variance says least about the gradient's.
    "binary": Population(
        num_answers=2, num_correct=1, concentration_low=1.0, concentration_high=1.0, difficulty=Beta(a=0.7, b=0.7)
    ),
    "peaked": Population(
        num_answers=32, num_correct=4, concentration_low=0.1, concentration_high=0.1, difficulty=Beta(a=0.7, b=0.7)
    ),
    "diffuse": Population(
        num_answers=32, num_correct=4, concentration_low=30.0, concentration_high=30.0, difficulty=Beta(a=0.7, b=0.7)
    ),
    # Concentration and difficulty both vary, hard prompts more common than easy ones.
    "mixed": Population(
        num_answers=32,
        num_correct=4,
        concentration_low=0.1,
        concentration_high=10.0,
        difficulty=LogisticNormal(mean=-1.0, std=2.0),
    ),
}
"""The worlds by name."""
