"""The laws that draw worlds, `Population` bandits and `SkillChainPopulation` skill chains; and the worlds by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from theory.base import require
from theory.base.arrays import BoolArray, FloatArray, IntArray
from theory.policy import log_softmax
from toy.worlds.tabular import World


@dataclass(frozen=True, kw_only=True)
class Beta:
    """Success probability of a fresh prompt: p ~ Beta(a, b), mean a / (a + b)."""

    a: float
    b: float

    def __post_init__(self) -> None:
        require.in_range("a", self.a, 0.0, open_low=True)
        require.in_range("b", self.b, 0.0, open_low=True)

    def sample(self, num_prompts: int, rng: np.random.Generator) -> FloatArray:
        """Draw p of every prompt, [num_prompts]."""
        return rng.beta(self.a, self.b, num_prompts)


@dataclass(frozen=True, kw_only=True)
class LogisticNormal:
    """Success probability of a fresh prompt: logit p ~ Normal(mean, std^2)."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        require.in_range("mean", self.mean)
        require.in_range("std", self.std, 0.0)

    def sample(self, num_prompts: int, rng: np.random.Generator) -> FloatArray:
        """Draw p of every prompt, [num_prompts]."""
        return np.asarray(expit(rng.normal(self.mean, self.std, num_prompts)))


@dataclass(frozen=True, kw_only=True)
class Population:
    """A law of bandit prompts: one token per prompt, called answer, from a row of its own.

    Each prompt draws p from `difficulty`, spreads it over its correct answers and 1 - p over its wrong ones, both
    times by a symmetric Dirichlet law. The Dirichlet concentration is drawn per prompt, log-uniformly between its two
    ends: far below 1 a few answers hold most of the mass, far above 1 all answers are about equally likely.

    Attributes
    ----------
    num_prompts, num_answers : N >= 1 and K >= 2.
    num_correct : Correct answers per prompt, in [1, K - 1].
    concentration_low, concentration_high : Ends of the concentration, 0.01 <= low <= high.
    margin : p is clipped to [margin, 1 - margin], so that every prompt can be learnt and forgotten, however slowly.
    """

    num_prompts: int = 256
    num_answers: int
    num_correct: int
    concentration_low: float
    concentration_high: float
    difficulty: Beta | LogisticNormal
    margin: float = 1e-3

    def __post_init__(self) -> None:
        require.count("num_prompts", self.num_prompts, 1)
        require.count("num_answers", self.num_answers, 2)
        require.count("num_correct", self.num_correct, 1)
        if self.num_correct >= self.num_answers:
            raise ValueError(f"num_correct: expected fewer than num_answers {self.num_answers}, got {self.num_correct}")
        _check_law(self)

    def sample(self, rng: np.random.Generator) -> World:
        """Draw a world."""
        p = np.clip(self.difficulty.sample(self.num_prompts, rng), self.margin, 1.0 - self.margin)
        logits, correct = _rows(
            p, self.num_answers, self.num_correct, (self.concentration_low, self.concentration_high), rng
        )
        return World(logits=logits, correct=correct, keys=tuple(f"prompt-{i}" for i in range(self.num_prompts)))


@dataclass(frozen=True, kw_only=True)
class SkillChainPopulation:
    """A law of skill chains: prompts that are chains of skills, from a table that all prompts share.

    A skill is a row of the table. The first `num_decisions` skills are decisions: each draws its success probability
    from `difficulty` and spreads it over its tokens as `Population` does over answers. The others are fillers, of which
    any token is fine, drawn from one Dirichlet law over all tokens. A prompt draws its length uniformly from
    [length_low, length_high]; each of its tokens is a decision with probability `decision_share`, one at least; its
    skill is then any one of that kind. How hard a prompt is follows from its length and its skills.

    Attributes
    ----------
    num_prompts, num_skills, num_decisions : N >= 1; R >= 1, fillers included; and the decisions among them, in [1, R].
    num_tokens, num_accepted : K >= 2, tokens to choose from; and the correct tokens of a decision, in [1, K - 1].
    length_low, length_high : Ends of the length of a prompt, 1 <= low <= high.
    decision_share : Probability that a token is a decision, in [0, 1]; 1 if no skill is a filler.
    concentration_low, concentration_high : Ends of a skill's concentration, 0.01 <= low <= high.
    margin : A decision's success probability is clipped to [margin, 1 - margin].
    """

    num_prompts: int = 256
    num_skills: int
    num_decisions: int
    num_tokens: int
    num_accepted: int
    length_low: int
    length_high: int
    decision_share: float
    concentration_low: float
    concentration_high: float
    difficulty: Beta | LogisticNormal
    margin: float = 1e-3

    def __post_init__(self) -> None:
        for name, minimum in (
            ("num_prompts", 1), ("num_skills", 1), ("num_decisions", 1), ("num_tokens", 2), ("num_accepted", 1),
            ("length_low", 1),
        ):  # fmt: skip
            require.count(name, getattr(self, name), minimum)
        require.count("length_high", self.length_high, self.length_low)
        if self.num_decisions > self.num_skills:
            raise ValueError(f"num_decisions: expected at most num_skills {self.num_skills}, got {self.num_decisions}")
        if self.num_accepted >= self.num_tokens:
            raise ValueError(f"num_accepted: expected fewer than num_tokens {self.num_tokens}, got {self.num_accepted}")
        require.in_range("decision_share", self.decision_share, 0.0, 1.0)
        if self.num_decisions == self.num_skills and self.decision_share < 1.0:
            raise ValueError(f"decision_share: expected 1.0 without fillers, got {self.decision_share}")
        _check_law(self)

    def sample(self, rng: np.random.Generator) -> World:
        """Draw a world."""
        p = np.clip(self.difficulty.sample(self.num_skills, rng), self.margin, 1.0 - self.margin)
        logits, correct = _rows(
            p, self.num_tokens, self.num_accepted, (self.concentration_low, self.concentration_high), rng
        )
        filler = np.arange(self.num_skills) >= self.num_decisions
        concentration = _concentrations(self.num_skills, (self.concentration_low, self.concentration_high), rng)
        free = _log_dirichlet(concentration, self.num_tokens, rng)
        lengths = rng.integers(self.length_low, self.length_high + 1, self.num_prompts)
        shape = (self.num_prompts, self.length_high)
        decides = rng.random(shape) < self.decision_share
        # One token of every chain is a decision whatever the share: no prompt is solved from the start.
        decides[np.arange(self.num_prompts), rng.integers(lengths)] = True
        fillers = rng.integers(self.num_decisions, max(self.num_skills, self.num_decisions + 1), shape)
        return World(
            logits=np.where(filler[:, None], free, logits),
            correct=correct | filler[:, None],
            keys=tuple(f"prompt-{i}" for i in range(self.num_prompts)),
            rows=np.where(decides, rng.integers(self.num_decisions, size=shape), fillers),
            lengths=lengths,
        )


AnyPopulation = Population | SkillChainPopulation


def _check_law(population: AnyPopulation) -> None:
    # Below 0.01 a share can be so small that its logit is useless; far above 1e4 all shares are equal.
    require.in_range("concentration_low", population.concentration_low, 0.01, 1e4)
    require.in_range("concentration_high", population.concentration_high, population.concentration_low, 1e4)
    if not isinstance(population.difficulty, (Beta, LogisticNormal)):
        raise ValueError(f"difficulty: expected Beta or LogisticNormal, got {population.difficulty!r}")
    require.in_range("margin", population.margin, 0.0, 0.5, open_low=True)


def _rows(
    p: FloatArray, num_answers: int, num_correct: int, ends: tuple[float, float], rng: np.random.Generator
) -> tuple[FloatArray, BoolArray]:
    """Draw rows of logits with success probabilities `p` [R] and their correct answers, each [R, num_answers]."""
    shape = (len(p), num_answers)
    concentration = _concentrations(len(p), ends, rng)
    sets = [(np.log(p)[:, None], num_correct), (np.log1p(-p)[:, None], num_answers - num_correct)]
    log_probs = np.hstack([mass + _log_dirichlet(concentration, size, rng) for mass, size in sets])
    # Correct answers sit at random ids: no rule may profit from an id.
    answers: IntArray = np.argsort(rng.random(shape), axis=-1)
    correct = np.broadcast_to(np.arange(num_answers) < num_correct, shape)
    return np.take_along_axis(log_probs, answers, axis=-1), np.take_along_axis(correct, answers, axis=-1)


def _concentrations(num_rows: int, ends: tuple[float, float], rng: np.random.Generator) -> FloatArray:
    """Draw Dirichlet concentrations, log-uniform between their ends, [num_rows, 1]."""
    low, high = np.log(ends)
    return np.asarray(np.exp(rng.uniform(low, high, (num_rows, 1))))


def _log_dirichlet(concentration: FloatArray, size: int, rng: np.random.Generator) -> Any:
    """Logarithms of symmetric Dirichlet shares, [N, size], finite where the shares themselves underflow."""
    # Gamma(a) = Gamma(a + 1) U^(1/a) in law.
    gamma = rng.gamma(concentration + 1.0, size=(len(concentration), size))
    uniform = 1.0 - rng.random((len(concentration), size))
    return log_softmax(np.log(gamma) + np.log(uniform) / concentration)


WORLDS: dict[str, AnyPopulation] = {
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
    # Token by token: about half of a chain's tokens decide, and every skill serves a score of prompts.
    "skills": SkillChainPopulation(
        num_skills=48,
        num_decisions=24,
        num_tokens=16,
        num_accepted=4,
        length_low=4,
        length_high=12,
        decision_share=0.5,
        concentration_low=0.1,
        concentration_high=10.0,
        difficulty=LogisticNormal(mean=1.5, std=1.5),
    ),
    # As above with four times the tokens, a quarter of which decide.
    "skills-long": SkillChainPopulation(
        num_skills=96,
        num_decisions=32,
        num_tokens=32,
        num_accepted=8,
        length_low=16,
        length_high=48,
        decision_share=0.25,
        concentration_low=0.1,
        concentration_high=10.0,
        difficulty=LogisticNormal(mean=2.5, std=1.5),
    ),
}
