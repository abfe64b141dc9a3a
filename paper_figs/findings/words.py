"""Words that follow from numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.base.tables import Estimate


def signed(value: float, spec: str = "+.2f") -> str:
    """Return a number with its sign, and zero without.

    Examples
    --------
    >>> signed(-0.001), signed(1.5)
    ('0.00', '+1.50')
    """
    text = f"{value:{spec}}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def shown(gain: Estimate) -> str:
    """Return a gain with its interval; a question mark says that its sign is undecided (`Estimate.sign`).

    Examples
    --------
    >>> shown(Estimate(-6.337, -6.95, -5.77, p=0.01)), shown(Estimate(1.0, -1.0, 3.0, p=0.3)), shown(Estimate(1.0))
    ('−6.34 [−6.95, −5.77]', '+1.00 [−1.00, +3.00]?', '+1.00?')
    """
    ends = "" if gain.low != gain.low else f" [{signed(gain.low)}, {signed(gain.high)}]"
    return signed(gain.value) + ends + "?" * (gain.sign == 0)


def listed(parts: Sequence[object]) -> str:
    """Join parts of a sentence.

    Examples
    --------
    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    texts = [str(part) for part in parts]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def sides(gains: Mapping[Any, Estimate], between: str = ", ") -> str:
    """Say where gains are above their reference, below, or undecided (`Estimate.sign`).

    Examples
    --------
    >>> sides({"a": Estimate(2, 1, 3, p=0.01), "b": Estimate(-2, -3, -1, p=0.04), "c": Estimate(3, 2, 4, p=0.01)})
    'ahead in a and c, behind in b'
    """
    parts = []
    for sign, word in ((1, "ahead"), (-1, "behind"), (0, "undecided")):
        there = [name for name, gain in gains.items() if gain.sign == sign]
        parts += [f"{word} in {listed(there)}"] * bool(there)
    return between.join(parts)
