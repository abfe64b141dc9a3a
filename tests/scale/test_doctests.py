"""The examples in scale's docstrings."""

from __future__ import annotations

import doctest
import importlib

import pytest

pytestmark = pytest.mark.needs_verl


MODULES = ["agent_loop", "config", "metrics", "supervisor", "tiny", "token_statistics", "trainer"]


@pytest.mark.parametrize("name", MODULES)
def test_doctests_run(name):
    found = doctest.testmod(importlib.import_module(f"scale.{name}"), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted
    assert found.failed == 0
