"""A world: prompts as data, each a chain of tokens drawn from a shared table of softmax policies.

A `World` is a table of R rows of logits over K tokens, the set of correct tokens of every row, and for every prompt the
rows that its tokens come from, one after the other. A rollout is correct if every token is. A bandit is the case of one
token per prompt and one row per prompt: K answers. In a skill chain a row is a skill, shared by all prompts that need
it; a row whose tokens are all correct is a filler, every other one a decision. All else is exact, for the tokens of a
rollout are independent: with m_r the policy's mass on the correct tokens of row r and c_ir the number of tokens that
prompt i draws from it,

    p_i = prod_r m_r^c_ir,   dp_i/dz_r = p_i c_ir (pi_r given correct - pi_r).

The laws that draw worlds are in `toy.worlds.populations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import logsumexp

from theory.base import require
from theory.base.arrays import BoolArray, FloatArray, IntArray
from theory.policy import log_softmax


@dataclass(frozen=True, eq=False)
class World:
    """Prompts with their policy before training; N prompts of up to T tokens, R rows of K tokens.

    Attributes
    ----------
    logits : [R, K], finite.
    correct : [R, K], at least one correct token per row; rows that are True throughout are fillers.
    keys : Stable names of the prompts, N of them, all different.
    rows : Row of every token of a prompt, [N, T]; by default row i for the one token of prompt i, a bandit.
    lengths : Tokens of a prompt, in [1, T], [N]; what `rows` holds beyond them has no effect. By default T.
    """

    logits: FloatArray
    correct: BoolArray
    keys: tuple[str, ...]
    rows: IntArray = None  # type: ignore[assignment]  # Never None after __post_init__.
    lengths: IntArray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        require.finite(np, logits=self.logits)
        if self.logits.ndim != 2 or 0 in self.logits.shape:
            raise ValueError(f"logits: expected shape [R, K] with R, K >= 1, got {self.logits.shape}")
        require.boolean(np, correct=self.correct)
        require.same_shape(logits=self.logits, correct=self.correct)
        if not self.correct.any(-1).all():
            row = int(np.argmin(self.correct.any(-1)))
            raise ValueError(f"correct: expected a correct token in every row, got none in row {row}")
        if getattr(self, "rows") is None:  # noqa: B009 (None is what the type rules out)
            object.__setattr__(self, "rows", np.arange(len(self.logits))[:, None])
        rows = require.integers("rows", self.rows)
        if rows.ndim != 2 or 0 in rows.shape:
            raise ValueError(f"rows: expected shape [N, T] with N, T >= 1, got {rows.shape}")
        if rows.max() >= len(self.logits):
            raise ValueError(f"rows: expected rows of the table, below {len(self.logits)}, got {rows.max()}")
        if getattr(self, "lengths") is None:  # noqa: B009
            object.__setattr__(self, "lengths", np.full(len(rows), rows.shape[1]))
        lengths = require.integers("lengths", self.lengths, minimum=1)
        if lengths.shape != (len(rows),) or lengths.max() > rows.shape[1]:
            raise ValueError(f"lengths: expected {len(rows)} lengths of at most {rows.shape[1]}, got {self.lengths}")
        if len(set(self.keys)) != len(self.keys) or len(self.keys) != len(rows):
            raise ValueError(f"keys: expected {len(rows)} different keys, got {len(set(self.keys))}")

    @property
    def num_prompts(self) -> int:
        """N."""
        return len(self.keys)

    @property
    def num_answers(self) -> int:
        """K: the answers of a bandit, the tokens of a skill chain."""
        return int(self.logits.shape[1])

    @property
    def max_length(self) -> int:
        """T."""
        return int(self.rows.shape[1])

    @cached_property
    def mask(self) -> BoolArray:
        """Which tokens a prompt has, [N, T]."""
        return np.asarray(np.arange(self.max_length) < self.lengths[:, None])

    @cached_property
    def counts(self) -> FloatArray:
        """c_ir, tokens that prompt i draws from row r, [N, R]."""
        counts = np.zeros((self.num_prompts, len(self.logits)))
        np.add.at(counts, (np.arange(self.num_prompts)[:, None], self.rows), self.mask)
        return counts

    @property
    def decisions(self) -> BoolArray:
        """Rows in which a token can be wrong, [R]."""
        return np.asarray(~self.correct.all(-1))

    def success_probability(self, logits: FloatArray | None = None) -> FloatArray:
        """Exact p of every prompt, [..., N], under `logits` [..., R, K]; of the policy before training if None."""
        log_mass = self._policy(logits)[1]
        return np.asarray(np.exp(np.where(self.mask, log_mass[..., self.rows], 0.0).sum(-1)))

    def gradient(self, logits: FloatArray | None = None) -> FloatArray:
        """Exact gradient of the mean success probability in the table, [..., R, K].

        dJ/dz_r = (1/N) sum_i p_i c_ir (pi_r given correct - pi_r); 0 in the rows of fillers.
        """
        weights = self.success_probability(logits) @ self.counts / self.num_prompts
        return np.asarray(weights[..., None] * self._directions(logits))

    def gradient_products(self, logits: FloatArray | None = None) -> FloatArray:
        """N <dp_i/dz, dJ/dz> of every prompt, [..., N]: what a step along its own gradient brings all prompts together.

        Equals sum_j <dp_i/dz, dp_j/dz>, and in a bandit, where prompts share nothing, |dp_i/dz|^2. Never below 0, for a
        row has the same correct tokens in every prompt.
        """
        p = self.success_probability(logits)
        norms = np.square(self._directions(logits)).sum(-1)
        return np.asarray(p * (((p @ self.counts) * norms) @ self.counts.T))

    def single_rollout_variance(self, logits: FloatArray | None = None) -> FloatArray:
        """Trace variance of one rollout's (R - p) S, S the sum of its tokens' scores, [..., N].

        As R^2 = R, it is (1 - 2 p) E[R |S|^2] + p^2 E|S|^2 - |dp/dz|^2. With u_r = pi_r given correct - pi_r and the
        scores s of a row, E|S|^2 = sum_r c_ir (1 - |pi_r|^2), for scores have mean 0. Given a correct rollout, whose
        tokens are still independent, E|S|^2 = sum_r c_ir E[|s|^2 | correct] + c_ir (c_ir - 1) |u_r|^2. In a bandit it
        is `theory.estimators.single_rollout_variance`.
        """
        log_pi, log_mass = self._policy(logits)
        pi, p = np.exp(log_pi), self.success_probability(logits)
        given_correct = np.exp(np.where(self.correct, log_pi - log_mass[..., None], -np.inf))
        collision = np.square(pi).sum(-1)
        direction = np.square(given_correct - pi).sum(-1)
        score = 1.0 - 2.0 * (given_correct * pi).sum(-1) + collision
        c = self.counts
        if_correct = score @ c.T + direction @ (c * (c - 1)).T
        every = (1.0 - collision) @ c.T
        gradient = p**2 * (direction @ (c * c).T)
        return np.asarray(np.maximum((1 - 2 * p) * p * if_correct + p**2 * every - gradient, 0.0))

    def _policy(self, logits: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """Return log pi [..., R, K] and log m [..., R], 0 for fillers."""
        log_pi = log_softmax(self.logits if logits is None else logits)
        log_mass = np.minimum(logsumexp(np.where(self.correct, log_pi, -np.inf), axis=-1), 0.0)
        return log_pi, np.where(self.decisions, log_mass, 0.0)

    def _directions(self, logits: FloatArray | None) -> FloatArray:
        """Return pi given correct - pi, the gradient of log m_r in its row, [..., R, K]; 0 for fillers."""
        log_pi, log_mass = self._policy(logits)
        given_correct = np.exp(np.where(self.correct, log_pi - log_mass[..., None], -np.inf))
        return np.asarray((given_correct - np.exp(log_pi)) * self.decisions[:, None])
