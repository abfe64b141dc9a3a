"""Methods are told apart, in colour and in grey."""

from __future__ import annotations

from paper_figs.style import METHODS
from theory import methods


def test_every_method_of_table_1_has_a_look() -> None:
    assert set(METHODS) == {name for name in methods.METHODS if not name.startswith("dynamo-")}


def test_looks_differ_in_colour_and_without_it() -> None:
    for field in ("color", "linestyle", "marker"):
        assert len({getattr(look, field) for look in METHODS.values()}) == len(METHODS), field
