"""What all tests share: their lanes, and that those that need verl are skipped where it is not installed.

In CI that is a failure.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
from hypothesis import settings

import theory.allocation.rules
from theory.methods import table

# A busy machine is no finding; the benchmarks measure time.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

INSTALLED = all(find_spec(name) is not None for name in ("verl", "vllm", "ray", "hydra", "transformers"))

COLLECTED = pytest.StashKey[list[pytest.Item]]()
"""Every test that was found, before `-m` leaves some out; `tests/test_lanes.py` looks at them."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    config.stash[COLLECTED] = list(items)
    for item in items:
        if item.name.startswith("test_fuzz_"):
            item.add_marker("fuzz")
        # Coverage is what the tests of theory check; to trace arbitrary input, and the rest, would take minutes.
        if "theory" not in item.path.parts or item.name.startswith("test_fuzz_"):
            item.add_marker(pytest.mark.no_cover)


def pytest_runtest_setup(item):
    if "needs_verl" in item.keywords and not INSTALLED:
        reason = "verl and vLLM's CPU build are not installed: make scale-cpu"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _registries_as_they_were():
    """Forget the rules, methods and shapings that a test, or an example in a docstring, has registered."""
    registries = (
        theory.allocation.rules._REGISTERED,
        table._METHODS,
        table._PARTS,
        table._TYPES,
    )
    contents = [dict(registry) for registry in registries]
    yield
    for registry, before in zip(registries, contents, strict=True):
        registry.clear()
        registry.update(before)
