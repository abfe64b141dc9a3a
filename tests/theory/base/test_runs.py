"""theory.base.runs: a value by its dotted name."""

from __future__ import annotations

import doctest

import pytest

from theory.base import runs
from theory.base.runs import lookup

CONFIG = {"data": {"seed": 3, "path": None}, "alpha": None}


def test_lookup_without_a_default_tells_null_from_nothing() -> None:
    assert lookup(CONFIG, "data.seed") == 3
    assert lookup(CONFIG, "data") == CONFIG["data"]
    assert lookup(CONFIG, "alpha") is None
    for path in ("data.size", "alpha.size", "data.seed.size", "gamma"):
        with pytest.raises(KeyError, match=f"^'{path}'$"):
            lookup(CONFIG, path)


def test_a_default_stands_for_null_and_for_nothing() -> None:
    for path in ("data.size", "data.path", "alpha", "alpha.size", "data.seed.size", "gamma"):
        assert lookup(CONFIG, path, 7) == 7
        assert lookup(CONFIG, path, None) is None
    assert lookup({"data": {"seed": 0}}, "data.seed", 7) == 0


def test_doctests() -> None:
    assert doctest.testmod(runs).failed == 0
