"""A shaping and a loss of one's own, each one class, as somebody else would write them."""

from __future__ import annotations

from dataclasses import dataclass

from theory.losses import Loss, Shaping, TokenLoss


@dataclass(frozen=True)
class Calm(Shaping):
    """Shrinks the advantages of tokens whose policy is concentrated."""

    strength: float = 0.5

    def shape(self, advantages, stats):
        return advantages * (1 - self.strength * stats.collision)


@dataclass(frozen=True)
class Likelihood(Loss):
    """-A log pi; the clip range is for xi alone."""

    scale: float = 1.0

    @property
    def clip_range(self):
        return 0.5, 0.5

    def values(self, log_prob, old_log_prob, advantages, selection):
        counted, clipped = selection
        return TokenLoss(-self.scale * advantages * log_prob * counted, counted, clipped)
