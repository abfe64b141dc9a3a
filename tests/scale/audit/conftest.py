"""One log, which the tests write in all formats."""

from __future__ import annotations

import pytest

from tests.scale.audit.logs import simulated


@pytest.fixture(scope="module")
def table():
    return simulated()
