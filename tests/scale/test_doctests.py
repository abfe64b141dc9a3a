"""The examples in scale's docstrings."""

from __future__ import annotations

import doctest
import importlib

import pytest

pytestmark = pytest.mark.needs_verl


MODULES = [
    "launch.checks",
    "launch.estimate_report",
    "launch.job",
    "plugin.agent_loop",
    "plugin.config",
    "plugin.metrics",
    "plugin.row_order",
    "plugin.token_statistics",
    "run.reports",
    "run.supervisor",
    "tiny",
]


@pytest.mark.parametrize("name", MODULES)
def test_doctests_run(name):
    result = doctest.testmod(importlib.import_module(f"scale.{name}"), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert result.failed == 0
