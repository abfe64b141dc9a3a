"""What a policy loss and a shaping of advantages know of themselves, so that trainers ask and never look at types.

A loss or a shaping of one's own is one class: a frozen dataclass that inherits from `Loss` or `Shaping`, made known by
`theory.methods.register_loss` or `register_shaping`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from theory.base import require
from theory.base.arrays import Array, stop_gradient
from theory.losses.checks import LARGEST_CLIP
from theory.losses.scope import Scope
from theory.policy import TokenStatistics, update_coefficient


class Selection(NamedTuple):
    """Choice of tokens made over all that compete; both fields are boolean, [..., T].

    Attributes
    ----------
    counted : The tokens that count in the loss: the mask, or its forking tokens.
    targeted : The counted tokens that Clip-Cov takes out and KL-Cov penalises; empty for the clipped surrogate.
    """

    counted: Array
    targeted: Array


class TokenLoss(NamedTuple):
    """Losses of tokens; all fields share one shape [..., T].

    Attributes
    ----------
    values : Loss of every token, 0 outside the mask.
    mask : Boolean: the tokens that count in the denominator of the aggregation.
    clipped : Boolean: the counted tokens that a clip keeps from contributing a gradient.
    """

    values: Array
    mask: Array
    clipped: Array


class Shaped(NamedTuple):
    """Shaped advantages, [..., T], and the factors that made them, by name, each [..., T]; trainers log these."""

    advantages: Array
    factors: Mapping[str, Array] = MappingProxyType({})


class Loss(ABC):
    """Policy loss of a method.

    Attributes
    ----------
    standard : Whether it is the clipped surrogate, which other trainers have too.
    singles_out : Whether tokens compete: `select` must then see all of them at once.
    draws : Whether `select` needs a uniform random number for every token.
    clip_range : (clip_low, clip_high): a token has no gradient beyond 1 - clip_low or 1 + clip_high; None without a
        clip.
    """

    standard: ClassVar[bool] = False
    singles_out: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    @property
    def clip_range(self) -> tuple[float, float] | None:
        """The clip range, or None."""
        return None

    def update_coefficient(self, log_prob: Array, old_log_prob: Array, advantages: Array) -> Array:
        """Return the update coefficient xi (24) of every token, [..., T]: r A, and 0 where the token is clipped."""
        xp = require.namespace(log_prob=log_prob, old_log_prob=old_log_prob)
        ratio = xp.exp(stop_gradient(log_prob) - old_log_prob)
        return update_coefficient(advantages, ratio, *(self.clip_range or (1.0, LARGEST_CLIP)))

    def select(
        self, log_prob: Array, old_log_prob: Array, advantages: Array, mask: Array, uniforms: Array | None = None
    ) -> Array:
        """Return the tokens singled out, boolean, [..., T]; called once over all that compete, without gradient.

        Tokens compete whatever their rows: trainers may give all of them on one axis.
        """
        return mask & False

    @abstractmethod
    def values(self, log_prob: Array, old_log_prob: Array, advantages: Array, selection: Selection) -> TokenLoss:
        """Return the loss of any part of the tokens, given that part of the selection.

        Only `selection.counted` tokens count, whatever it says of the others.
        """


class Shaping(ABC):
    """What a method does to the advantages of tokens.

    Attributes
    ----------
    compares : Whether it compares tokens with the extremes of a batch, their `scope`.
    """

    compares: ClassVar[bool] = False

    def scope(
        self, stats: TokenStatistics, coefficient: Array, mask: Array, *, axis: int | tuple[int, ...] | None = None
    ) -> Scope:
        """Return the extremes that tokens are compared with, from those of a batch or of a part of one (`scope_of`)."""
        return Scope()

    @abstractmethod
    def shape(self, advantages: Array, stats: TokenStatistics) -> Array:
        """Return shaped advantages, [..., T], from A and the current policy's statistics; neither may be changed."""

    def apply(
        self,
        advantages: Array,
        stats: TokenStatistics,
        mask: Array,
        *,
        coefficient: Array | None = None,
        scope: Scope | None = None,
    ) -> Shaped:
        """Return shaped advantages with their factors; coefficient and scope are for shapings that compare tokens."""
        return Shaped(self.shape(advantages, stats))
