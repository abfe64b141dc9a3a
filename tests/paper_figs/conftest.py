"""Results with all their figures, drawn once for all tests of this folder; nothing may change them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from paper_figs.__main__ import main
from tests.paper_figs.make_data import DATA


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(shutil.copytree(DATA, tmp_path_factory.mktemp("drawn") / "results"))
    assert main(["--source", str(source)]) == 0
    return source
