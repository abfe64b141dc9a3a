"""The history of every prompt: its successes and attempts so far, by prompt key (DynaMO, 4.2.2 and Appendix D).

A prompt is identified by a stable key, for instance a hash of its text, and never by its row in a batch: batches are
shuffled, balanced and resumed. With a new key at every step each prompt stays unknown for ever. The history is state of
the run and goes into checkpoints: `SuccessHistory.state_dict`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np

from theory.base import require
from theory.base.arrays import FloatArray

Key = str | int
"""A stable name of a prompt. The string "1" and the integer 1 are two prompts."""

VERSION = 1
"""Version of the state that `SuccessHistory.state_dict` writes."""

_MAX_COUNT = 2.0**53  # Whole numbers up to here add up without rounding, hence in any order to the same bits.


class SuccessHistory:
    """Successes and attempts of every prompt seen so far, discounted, by key.

    An update at time t multiplies the counts of the prompts it holds by the discount and adds the new counts:
    k <- discount k + (new successes), G <- discount G + (new attempts), the pair (k, G) of eq. 6. The discount is in
    [0, 1]; prompts outside the update keep their counts. The paper adds up for ever, discount = 1. With discount < 1, a
    prompt sampled g times per update has at most g / (1 - discount) attempts.

    Examples
    --------
    >>> history = SuccessHistory(discount=0.5)
    >>> history.update(["a", "b"], successes=[4, 0], attempts=[8, 8])
    >>> history.update(["a"], successes=[6], attempts=[8])
    >>> history.counts(["b", "a", "new"])
    (array([0., 8., 0.]), array([ 8., 12.,  0.]))
    >>> len(history), "new" in history
    (2, False)
    """

    def __init__(self, discount: float = 1.0) -> None:
        self.discount = require.in_range("discount", discount, 0.0, 1.0)
        self._counts: dict[Key, tuple[float, float]] = {}  # Successes and attempts.

    def __len__(self) -> int:
        return len(self._counts)

    def __contains__(self, key: object) -> bool:
        return _key(key) in self._counts

    def update(self, keys: Iterable[Key], successes: Any, attempts: Any) -> None:
        """Discount the counts of `keys` once and add the new ones (4.2.2).

        The order of the rows has no effect, not even on the last bit. A key given twice is discounted once, and its
        rows add up. After an error nothing has changed; an update without rows changes nothing either. Keys are strings
        or integers, [N], also as a NumPy array. Counts are whole numbers, [N], 0 <= successes <= attempts.

        Examples
        --------
        >>> history = SuccessHistory()
        >>> history.update([7, 7], successes=[1, 0], attempts=[1, 1])
        >>> history.counts([7])
        (array([1.]), array([2.]))
        """
        names = _keys(keys)
        new = _pairs(successes, attempts, len(names))
        if np.any(new % 1):
            raise ValueError("successes, attempts: expected whole numbers, got fractions")
        sums: dict[Key, tuple[float, float]] = {}
        for key, correct, rollouts in zip(names, *new.tolist(), strict=True):
            k, n = sums.get(key, (0.0, 0.0))
            sums[key] = (k + correct, n + rollouts)
        # Sorted, so that the state too is independent of the order of the batch.
        for key in sorted(sums, key=lambda key: (isinstance(key, str), key)):
            old = self._counts.get(key, (0.0, 0.0))
            self._counts[key] = (self.discount * old[0] + sums[key][0], self.discount * old[1] + sums[key][1])

    def counts(self, keys: Iterable[Key]) -> tuple[FloatArray, FloatArray]:
        """Return the successes and attempts of `keys`, the (k, G) of eq. 6; (0, 0) for a prompt never seen.

        Keys [N] come in any order, also repeatedly. Both counts are float64 [N], 0 <= successes <= attempts,
        and fractional if discount < 1.

        Examples
        --------
        >>> SuccessHistory().counts(["never seen"])
        (array([0.]), array([0.]))
        """
        pairs = np.array([self._counts.get(key, (0.0, 0.0)) for key in _keys(keys)]).reshape(-1, 2)
        return pairs[:, 0].copy(), pairs[:, 1].copy()

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data, which JSON keeps to the last bit.

        Its fields are `version`, `kind`, `discount`, and the lists `keys`, `successes`, `attempts` of one length.

        Examples
        --------
        >>> history = SuccessHistory()
        >>> history.update(["a"], successes=[1], attempts=[2])
        >>> history.state_dict()["keys"], history.state_dict()["attempts"]
        (['a'], [2.0])
        """
        return {
            "version": VERSION,
            "kind": type(self).__name__,
            "discount": self.discount,
            "keys": list(self._counts),
            "successes": [successes for successes, _ in self._counts.values()],
            "attempts": [attempts for _, attempts in self._counts.values()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace all counts by a saved state; after an error nothing has changed.

        The state is a result of `state_dict`, also after a round trip through JSON; lists may be arrays. Prompts added
        to the data since are unknown prompts; prompts removed from it stay without effect.

        Raises
        ------
        ValueError
            If the state is damaged, or of another kind, version or discount: a resumed run that forgot at another rate
            would be another run.

        Examples
        --------
        >>> history, resumed = SuccessHistory(), SuccessHistory()
        >>> history.update(["a"], successes=[1], attempts=[2])
        >>> resumed.load_state_dict(history.state_dict())
        >>> resumed.counts(["a"])
        (array([1.]), array([2.]))
        """
        if not isinstance(state, Mapping):
            raise ValueError(f"state: expected a mapping, got {type(state).__name__}")
        require.one_of("state kind", state.get("kind"), [type(self).__name__])
        if require.count("state version", state.get("version", 0), 1) > VERSION:
            raise ValueError(f"state version: expected at most {VERSION}, got {state['version']} from newer code")
        expected = {"version", "kind", "discount", "keys", "successes", "attempts"}
        if set(state) != expected:
            raise ValueError(f"state: expected the fields {sorted(expected)}, got {sorted(map(str, state))}")
        if require.in_range("state discount", state["discount"], 0.0, 1.0) != self.discount:
            raise ValueError(f"state discount: expected {self.discount}, this history's, got {state['discount']}")
        keys = _keys(state["keys"])
        if (repetitions := len(keys) - len(set(keys))) > 0:
            raise ValueError(f"state keys: expected unique keys, got {repetitions} repetitions")
        for name in ("successes", "attempts"):
            if isinstance(state[name], (list, tuple)) and any(isinstance(x, bool) for x in state[name]):
                raise ValueError(f"state {name}: expected numbers, got true or false")  # NumPy takes them for 1 and 0
        pairs = _pairs(state["successes"], state["attempts"], len(keys))
        if self.discount in (0.0, 1.0) and np.any(pairs % 1):
            raise ValueError(f"state: expected whole numbers with discount {self.discount}, got fractions")
        self._counts = dict(zip(keys, zip(*pairs.tolist(), strict=True), strict=True))


def _key(key: object) -> Key:
    if isinstance(key, (bool, np.bool_)) or not isinstance(key, (str, int, np.integer)):
        raise ValueError(f"keys: expected strings or integers, got {key!r}")
    return str(key) if isinstance(key, str) else int(key)


def _keys(keys: Any) -> list[Key]:
    # A set has no order to align the counts with.
    if isinstance(keys, (str, bytes, Mapping, Set)) or not isinstance(keys, Iterable):
        raise ValueError(f"keys: expected a sequence of strings or integers, got {type(keys).__name__}")
    if isinstance(keys, np.ndarray):
        if keys.ndim != 1:
            raise ValueError(f"keys: expected shape [N], got {keys.shape}")
        keys = keys.tolist()
    return [key if type(key) in (str, int) else _key(key) for key in keys]


def _pairs(successes: Any, attempts: Any, length: int) -> FloatArray:
    pairs = np.zeros((2, length))
    for row, (name, value) in enumerate((("successes", successes), ("attempts", attempts))):
        if length == 0 and np.array_equal(value, []):
            continue
        column = require.vector(name, value, low=0.0, high=_MAX_COUNT)
        if column.size != length:
            raise ValueError(f"{name}: expected one count per key, {length}, got {column.size}")
        pairs[row] = column
    require.at_most(successes=pairs[0], attempts=pairs[1])
    return pairs
