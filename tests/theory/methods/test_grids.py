"""theory.methods.grids: its methods are those of the tables, and its values are others than the defaults, and valid."""

from __future__ import annotations

from dataclasses import replace

from theory.claims import published
from theory.losses import Modulation
from theory.methods import METHODS, grids


def test_tables_have_the_methods_of_the_paper_in_its_order():
    for methods in published.TABLE_1.values():
        assert [METHODS[name].title.lower() for name in grids.METHODS_OF_TABLE_1] == [
            title.removesuffix(" (Ours)").lower() for title in methods
        ]
    removed = [METHODS[name].title.removeprefix("- ") for name in grids.METHODS_OF_TABLE_2]
    assert removed[:-1] == list(published.TABLE_2)[:-1]
    assert (grids.METHODS_OF_TABLE_2[-1], list(published.TABLE_2)[-1]) == ("grpo", "ALL")
    assert set(grids.METHODS_OF_TABLE_1) & set(grids.METHODS_OF_TABLE_2) == {"grpo", "dynamo"}


def test_budgets_keep_the_shape_of_the_papers_bounds():
    for mean, low, high in grids.BUDGETS:
        assert (low / mean, high / mean) == (8 / 16, 24 / 16)
    first, second = (METHODS[name] for name in grids.WITH_AND_WITHOUT_ALLOCATION)
    assert replace(first, title=second.title, allocator="uniform") == second


def test_factors_are_valid_and_no_defaults():
    for name, values in (("alpha", grids.ALPHAS), ("sharpness", grids.SHARPNESSES), ("threshold", grids.THRESHOLDS)):
        assert getattr(Modulation(), name) not in values
        assert [getattr(Modulation(**{name: value}), name) for value in values] == list(values)
    for mean, low, high in grids.BOUNDS:
        assert mean == 16
        assert 0 < low <= mean <= high
        assert low + high == 2 * mean
        assert (mean, low, high) not in grids.BUDGETS
