"""The examples in scale's docstrings."""

from __future__ import annotations

import doctest
import importlib

import pytest

pytestmark = pytest.mark.needs_verl


@pytest.mark.parametrize("name", ["agent_loop", "config", "metrics", "supervisor", "tiny", "token_statistics", "trainer"])
def test_doctests_run(name):
    found = doctest.testmod(importlib.import_module(f"scale.{name}"), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted
    assert found.failed == 0
