"""Made sources, with the schemas of the hub's data sets."""

from __future__ import annotations

import pytest

from tests.scale import made_data


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_data.make_sources(tmp_path_factory.mktemp("made"))
