"""The methods of the paper as data: allocation x advantage x shaping x loss x entropy bonus x token selection.

`METHODS` holds the nine rows of table 1 and the ablations of table 2. Every baseline has the settings of its original
source, clip range included; the paper says only that hyperparameters are "consistent", so a common clip range is one
`dataclasses.replace` away. Here is data and validation; the formulas are in `theory.estimators` and `theory.losses`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeVar

from theory.allocation import ALLOCATORS
from theory.base import require
from theory.base.arrays import Array
from theory.estimators import ADVANTAGES, WReinforce, w_reinforce
from theory.losses import (
    AGGREGATIONS,
    ClipCov,
    ClippedSurrogate,
    EntropyAdvantages,
    EntropyBonus,
    ForkTokens,
    KlCov,
    Loss,
    Modulation,
    Scope,
    Shaped,
    Shaping,
)
from theory.losses.checks import check_part, unchanged
from theory.policy import TokenStatistics


@dataclass(frozen=True, kw_only=True)
class Method:
    """One training method; `dataclasses.replace` gives its variants.

    Attributes
    ----------
    title : Name of the row in the paper's tables.
    source : arXiv id of the method's source.
    notes : What is taken from that source, and what is left out.
    allocator : Rule that divides the rollouts among prompts, a name of `theory.allocation.ALLOCATORS`.
    advantage : A name of `theory.estimators.ADVANTAGES`, or `WReinforce`.
    shaping : What is done to the advantages of tokens, or None: `Modulation`, `EntropyAdvantages`, or one of
        `register_shaping`.
    loss : Policy loss of a token: `ClippedSurrogate`, `ClipCov`, `KlCov`, or one of `register_loss`.
    entropy_bonus : Entropy regulariser, a term of its own, or None.
    token_selection : Restriction of the policy loss to some tokens, or None.
    aggregation : From tokens to one number, a name of `theory.losses.AGGREGATIONS`.
    """

    title: str
    source: str
    notes: str = ""
    allocator: str = "uniform"
    advantage: str | WReinforce = "grpo"
    shaping: Shaping | None = None
    loss: Loss
    entropy_bonus: EntropyBonus | None = None
    token_selection: ForkTokens | None = None
    aggregation: str = "token-mean"

    def __post_init__(self) -> None:
        for name in ("title", "source", "notes"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name}: expected a string, got {getattr(self, name)!r}")
        require.one_of("allocator", self.allocator, ALLOCATORS)
        if type(self.advantage) is not WReinforce and self.advantage not in tuple(ADVANTAGES):
            names = ", ".join(ADVANTAGES)
            raise ValueError(f"advantage: expected one of {names} or a WReinforce, got {self.advantage!r}")
        require.one_of("aggregation", self.aggregation, AGGREGATIONS)
        for name, kinds in _PARTS.items():
            part = getattr(self, name)
            if type(part) not in kinds:
                expected = ", ".join("None" if cls is type(None) else cls.__name__ for cls in kinds)
                raise ValueError(f"{name}: expected one of {expected}, got {part!r}")
            for field in dataclasses.fields(part) if part is not None else ():
                if not isinstance(value := getattr(part, field.name), (int, float, str, type(None))):
                    raise ValueError(f"{name}.{field.name}: expected a number, a string or None, got {value!r}")

    @property
    def needs_statistics(self) -> bool:
        """Whether its loss looks at more of a token than its log-probability."""
        return self.shaping is not None or self.token_selection is not None

    @property
    def singles_out(self) -> bool:
        """Whether tokens compete to be counted or singled out, so that `select_tokens` must see all that compete."""
        return self.token_selection is not None or self.loss.singles_out

    @property
    def compares(self) -> bool:
        """Whether advantages are shaped by comparison with the extremes of a batch, a `Scope`."""
        return self.shaping is not None and self.shaping.compares

    def looks_ahead(self, scope: str) -> bool:
        """Return whether a mini-batch must be seen in full before it is learnt from, its tokens compared in `scope`."""
        return self.singles_out or (self.compares and scope == "mini-batch")

    def with_modulation(self, **fields: Any) -> Method:
        """Return the method with other fields of its `Modulation`; an error where it has none.

        Examples
        --------
        >>> METHODS["dynamo"].with_modulation(alpha=0.0).shaping.alpha
        0.0
        """
        if not isinstance(self.shaping, Modulation):
            raise ValueError(
                f"{next(iter(fields), 'shaping')}: expected a method with DynaMO's modulation, got {self.title}"
            )
        return replace(self, shaping=replace(self.shaping, **fields))

    def shape(
        self,
        advantages: Array,
        stats: TokenStatistics | None,
        mask: Array,
        log_prob: Array,
        old_log_prob: Array,
        scope: Scope | None = None,
    ) -> Shaped:
        """Return shaped advantages and their factors; as they are, where the method shapes nothing.

        Parameters
        ----------
        advantages, mask, log_prob, old_log_prob : As in `theory.losses.clipped_surrogate`.
        stats : Of the current policy, each [..., T]; None will do where there is no shaping.
        scope : Extremes that tokens are compared with; None takes those of what is given.

        Examples
        --------
        >>> import numpy as np
        >>> one, mask = np.array([1.0]), np.array([True])
        >>> METHODS["grpo"].shape(one, None, mask, -one, -one).advantages.tolist()
        [1.0]
        """
        if self.shaping is None:
            return Shaped(advantages)
        if stats is None:
            raise ValueError(f"stats: expected token statistics for {type(self.shaping).__name__}, got None")
        xi = self.loss.update_coefficient(log_prob, old_log_prob, advantages) if self.compares else None
        with unchanged(self.shaping, advantages=advantages, mask=mask, **stats._asdict()):
            shaped = self.shaping.apply(advantages, stats, mask, coefficient=xi, scope=scope)
        if not isinstance(shaped, Shaped):
            raise ValueError(f"{type(self.shaping).__name__}.apply: expected Shaped, got {type(shaped).__name__}")
        check_part(self.shaping, "shape", advantages, advantages=shaped.advantages)
        factors = {f"{type(self.shaping).__name__}.factors: {name}": x for name, x in shaped.factors.items()}
        require.namespace(advantages=advantages, **factors)
        require.same_shape(advantages=advantages, **factors)
        return shaped

    def advantages(self, rewards: Array, groups: Array, correct: Array) -> Array:
        """Return the method's advantage of every rollout, before any shaping of tokens.

        A of `theory.estimators.advantages`; only `WReinforce` looks at `correct`, and only the others at rewards and
        groups.

        Parameters
        ----------
        rewards : R, floating, [N].
        groups : Key of each rollout's prompt, [N].
        correct : True where the response is correct, boolean, [N]; never derived from a reward's value.

        Returns
        -------
        Array : A, [N], of the dtype of `rewards`.

        Examples
        --------
        >>> import numpy as np
        >>> rewards, groups = np.array([1.0, -1.0]), np.array([7, 7])
        >>> METHODS["w-reinforce"].advantages(rewards, groups, rewards > 0).tolist()
        [0.1, -1.0]
        """
        xp = require.namespace(rewards=rewards, correct=correct)
        require.boolean(xp, correct=correct)
        require.same_shape(rewards=rewards, correct=correct)
        if isinstance(self.advantage, str):
            return ADVANTAGES[self.advantage](rewards, groups)
        return w_reinforce(correct, self.advantage.weight, dtype=rewards.dtype)

    def to_dict(self) -> dict[str, Any]:
        """Return the method as plain values, fit for JSON; each part carries the name of its type.

        Examples
        --------
        >>> METHODS["fork-tokens"].to_dict()["token_selection"]
        {'type': 'ForkTokens', 'ratio': 0.2}
        """
        return {field.name: _encode(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Method:
        """Return the method that `to_dict` wrote.

        Parameters
        ----------
        values : Every field, and no other.

        Examples
        --------
        >>> Method.from_dict(METHODS["dynamo"].to_dict()) == METHODS["dynamo"]
        True
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"values: expected a mapping, got {type(values).__name__}")
        method: Method = _build("values", cls, {name: _decode(name, value) for name, value in values.items()})
        return method


_PARTS: dict[str, tuple[type, ...]] = {
    "shaping": (Modulation, EntropyAdvantages, type(None)),
    "loss": (ClippedSurrogate, ClipCov, KlCov),
    "entropy_bonus": (EntropyBonus, type(None)),
    "token_selection": (ForkTokens, type(None)),
}
_TYPES: dict[str, type] = {cls.__name__: cls for kinds in _PARTS.values() for cls in kinds if cls is not type(None)}
_TYPES["WReinforce"] = WReinforce
_OURS = frozenset(_TYPES)

Part = TypeVar("Part", bound=type[Loss] | type[Shaping])


def register_shaping(kind: Part) -> Part:
    """Make a shaping of one's own known, so that a method can have it; a later one of the same name replaces it.

    Parameters
    ----------
    kind : A frozen dataclass that inherits from `Shaping`. Its fields are part of the method's config.

    Returns
    -------
    type : The same, so that this serves as a decorator.

    Examples
    --------
    >>> @register_shaping
    ... @dataclass(frozen=True)
    ... class Calm(Shaping):
    ...     strength: float = 0.5
    ...
    ...     def shape(self, advantages, stats):
    ...         return advantages * (1 - self.strength * stats.collision)
    >>> replace(METHODS["grpo"], shaping=Calm()).to_dict()["shaping"]
    {'type': 'Calm', 'strength': 0.5}
    """
    return _register("shaping", Shaping, kind)


def register_loss(kind: Part) -> Part:
    """Make a policy loss of one's own known, as `register_shaping` does a shaping.

    Parameters
    ----------
    kind : A frozen dataclass that inherits from `Loss`. Its fields are part of the method's config.

    Returns
    -------
    type : The same, so that this serves as a decorator.

    Examples
    --------
    >>> from theory.losses import TokenLoss
    >>> @register_loss
    ... @dataclass(frozen=True)
    ... class Plain(Loss):
    ...     def values(self, log_prob, old_log_prob, advantages, selection):
    ...         counted, clipped = selection
    ...         return TokenLoss(-advantages * log_prob * counted, counted, clipped)
    >>> replace(METHODS["grpo"], loss=Plain()).to_dict()["loss"]
    {'type': 'Plain'}
    """
    return _register("loss", Loss, kind)


def _register(name: str, base: type, kind: Part) -> Part:
    if not (isinstance(kind, type) and issubclass(kind, base)) or getattr(kind, "__abstractmethods__", None):
        raise ValueError(f"kind: expected a frozen dataclass that inherits from {base.__name__}, got {kind!r}")
    for expected in _lacks(kind):
        raise ValueError(f"kind: expected {expected}, got {kind!r}")
    old = _TYPES.get(kind.__name__)
    if kind.__name__ in _OURS or (old is not None and not issubclass(old, base)):
        raise ValueError(f"kind: expected another name than those of the parts here, got {kind.__name__}")
    _PARTS[name] = (*(other for other in _PARTS[name] if other is not old), kind)
    _TYPES[kind.__name__] = kind
    return kind


def _lacks(kind: Any) -> Iterator[str]:
    """Yield what a part of somebody's own must be and is not."""
    params = vars(kind).get("__dataclass_params__")
    if params is None or not (params.frozen and params.eq):
        yield "a frozen dataclass that can be compared"
    elif any(not field.init or field.name == "type" for field in dataclasses.fields(kind)):
        yield "fields that are arguments, none of them named type"
    if any(kind is not ours and issubclass(kind, ours) for ours in map(_TYPES.get, _OURS) if ours is not None):
        yield "a class that inherits from none of the parts here, for which trainers may have their own code"
    if issubclass(kind, Loss) and (kind.select is not Loss.select) != kind.singles_out:
        yield "singles_out to be True where there is a method select, and only there"
    if issubclass(kind, Loss) and kind.draws and not kind.singles_out:
        yield "singles_out to be True, since it draws"
    if issubclass(kind, Shaping) and (kind.scope is not Shaping.scope) != kind.compares:
        yield "compares to be True where there is a method scope, and only there"


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {"type": type(value).__name__, **{f.name: getattr(value, f.name) for f in dataclasses.fields(value)}}
    return value


def _decode(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    values = dict(value)
    kind = values.pop("type", None)
    require.one_of(f"{name}.type", kind, _TYPES)
    return _build(name, _TYPES[kind], values)


def _build(name: str, cls: type, values: Mapping[str, Any]) -> Any:
    names = [field.name for field in dataclasses.fields(cls)]
    if set(values) != set(names):
        raise ValueError(f"{name}: expected the fields {', '.join(names)}, got {', '.join(map(str, values))}")
    return cls(**values)


_CLIP = ClippedSurrogate(clip_low=0.2, clip_high=0.2, dual_clip=10.0)
_CLIP_HIGHER = ClippedSurrogate(clip_low=0.2, clip_high=0.28, dual_clip=10.0)
_DYNAMO = Method(
    title="DynaMO",
    source="2602.19208",
    notes="Clip 0.2 as stated; the public code widens the upper side to 0.28. Dual clip 10 from its script.",
    allocator="dynamo",
    shaping=Modulation(),
    loss=_CLIP,
)


_METHODS: dict[str, Method] = {
    "grpo": Method(
        title="GRPO",
        source="2402.03300",
        notes="Clip 0.2 on both sides, no KL term; dual clip 10 as in the DAPO and DynaMO scripts (verl: 3).",
        loss=_CLIP,
    ),
    "clip-higher": Method(
        title="Clip-Higher",
        source="2503.14476",
        notes="The clip range 0.2/0.28 and dual clip 10 of DAPO; no dynamic sampling, no overlong penalty.",
        loss=_CLIP_HIGHER,
    ),
    "entropy-loss": Method(
        title="Entropy Loss",
        source="2506.14758",
        notes="The plain entropy regulariser that the source compares with. It states no coefficient: 1e-3 is "
        "verl's former default.",
        loss=_CLIP,
        entropy_bonus=EntropyBonus(1e-3),
    ),
    "fork-tokens": Method(
        title="Fork Tokens",
        source="2506.01939",
        notes="Top 20 % of entropy, also in the denominator; its clip range 0.2/0.28 and dual clip 10. No dynamic "
        "sampling, no overlong penalty.",
        loss=_CLIP_HIGHER,
        token_selection=ForkTokens(0.2),
    ),
    "entropy-advantages": Method(
        title="Entropy Advantages",
        source="2506.14758",
        notes="alpha 0.4 (its value for GRPO), kappa 2; its clip range 0.2/0.28. Dual clip 10 as for GRPO.",
        shaping=EntropyAdvantages(alpha=0.4, kappa=2.0),
        loss=_CLIP_HIGHER,
    ),
    "clip-cov": Method(
        title="Clip-COV",
        source="2505.22617",
        notes="2e-4 of the tokens, band (1, 5); its clip range 1/1, no dual clip. The paper cites another work.",
        loss=ClipCov(ratio=2e-4, covariance_low=1.0, covariance_high=5.0, clip_low=1.0, clip_high=1.0),
    ),
    "kl-cov": Method(
        title="KL-COV",
        source="2505.22617",
        notes="2e-3 of the tokens (its value for 7B), coefficient 1, no clip. The paper cites another work.",
        loss=KlCov(ratio=2e-3, coefficient=1.0),
    ),
    "w-reinforce": Method(
        title="W-REINFORCE",
        source="2506.01347",
        notes="Weight 0.1 for correct responses; clip 0.2, no dual clip. The source's entropy bonus (1e-4; code: "
        "1e-3) is left out, since the paper compares at consistent settings. The paper cites another work.",
        advantage=WReinforce(0.1),
        loss=ClippedSurrogate(clip_low=0.2, clip_high=0.2),
    ),
    "dynamo": _DYNAMO,
    "dynamo-no-gc": replace(_DYNAMO, title="- GC", shaping=Modulation(alpha_comp=0.0)),
    "dynamo-no-ums": replace(_DYNAMO, title="- UMS", shaping=Modulation(alpha_stab=0.0)),
    "dynamo-no-dra": replace(_DYNAMO, title="- DRA", allocator="uniform"),
    "dynamo-only-ums": replace(_DYNAMO, title="- GC & DRA", allocator="uniform", shaping=Modulation(alpha_comp=0.0)),
    "dynamo-only-dra": replace(_DYNAMO, title="- GC & UMS", shaping=Modulation(alpha_comp=0.0, alpha_stab=0.0)),
    "dynamo-only-gc": replace(_DYNAMO, title="- UMS & DRA", allocator="uniform", shaping=Modulation(alpha_stab=0.0)),
}
_PAPERS = frozenset(_METHODS)

METHODS: Mapping[str, Method] = MappingProxyType(_METHODS)
"""Every method, by name: the rows of table 1 in the paper's order, then those of table 2 (whose "ALL" is `grpo`); and
what `register_method` adds."""


def register_method(name: str, method: Method) -> Method:
    """Give a method of one's own a name, so that commands and configs can ask for it; it may be given again.

    Parameters
    ----------
    name : A new one, of lower-case letters, digits and dashes.
    method : Replaces an earlier one of that name.

    Returns
    -------
    Method : `method` itself, which `METHODS` now holds.

    Examples
    --------
    >>> register_method("dynamo-rloo", replace(METHODS["dynamo"], advantage="rloo")) is get_method("dynamo-rloo")
    True
    """
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"name: expected lower-case letters, digits and dashes, got {name!r}")
    if name in _PAPERS:
        raise ValueError(f"name: expected another name than those of the methods here, got {name!r}")
    if not isinstance(method, Method):
        raise ValueError(f"method: expected a Method, got {method!r}")
    _METHODS[name] = method
    return method


def get_method(name: str) -> Method:
    """Return a method of `METHODS`; an unknown name lists the known ones.

    Parameters
    ----------
    name : A key of `METHODS`: a row of the paper's tables, or what `register_method` added.

    Returns
    -------
    Method : The frozen dataclass; `dataclasses.replace` gives variants.

    Examples
    --------
    >>> get_method("kl-cov").loss
    KlCov(ratio=0.002, coefficient=1.0)
    """
    require.one_of("name", name, METHODS)
    return METHODS[name]
