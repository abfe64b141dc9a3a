"""Lanes of tests: `make check` is a part of `make test`, and what that leaves out is in `make test-long`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import COLLECTED

ROOT = Path(__file__).parents[1]
MARKERS = ("long", "fuzz", "needs_verl", "twin", "versionless")

STARTS_A_RUN = {"runs", "smoke", "real"}
"""Fixtures through which verl or vLLM is started."""

THE_RUN = {"runs", "dynamo", "request", "tmp_path_factory", "_registries_as_they_were"}
"""What a test of `make test` may ask for: one run of verl, which all of them share."""


def lanes() -> dict[str, str]:
    """Return the marker expressions of the Makefile by target."""
    return dict(re.findall(r"^(check|test|test-long):.*\n.* -m \"([^\"]+)\"", makefile(), re.M))


def makefile() -> str:
    return (ROOT / "Makefile").read_text()


def chosen(expression: str, item: pytest.Item) -> bool:
    """Return whether `-m` chooses a test; an expression of names, `and`, `or` and `not` is one of Python, too."""
    return eval(expression, {}, {name: item.get_closest_marker(name) is not None for name in MARKERS})


def test_every_test_is_in_a_lane(pytestconfig: pytest.Config) -> None:
    found = lanes()
    assert found.keys() == {"check", "test", "test-long"}
    for item in pytestconfig.stash[COLLECTED]:
        check, test, long = (chosen(found[lane], item) for lane in ("check", "test", "test-long"))
        fuzz = item.get_closest_marker("fuzz") is not None
        assert test or long, item.nodeid
        assert test or not check, item.nodeid
        assert fuzz == (test and long), f"{item.nodeid}: only fuzz tests are in both, with other numbers of examples"


def test_the_twins_lane_has_runs_resumed_and_evaluated(pytestconfig: pytest.Config) -> None:
    """What runs with the versions of the GPUs: the quick tests that need verl, and a real run of each kind."""
    (expression,) = re.findall(r"^test-twin:(?:.*\n)+?.*\$\(TWIN\)(?:.*\\\n)+\t +-m \"([^\"]+)\"$", makefile(), re.M)
    items = pytestconfig.stash[COLLECTED]
    twins = [item for item in items if item.get_closest_marker("twin") is not None]
    assert all("scale" in item.path.parts and item.get_closest_marker("needs_verl") for item in twins)
    parts = (items, [item for item in items if chosen(expression, item)])
    there, asked = ({x for item in part for x in getattr(item, "fixturenames", ())} for part in parts)
    assert {"dynamo", "resumed", "ranks", "real"} & there <= asked
    quick = [x for x in items if x.get_closest_marker("needs_verl") and x.get_closest_marker("long") is None]
    assert all(chosen(expression, item) != bool(item.get_closest_marker("versionless")) for item in quick)
    assert not any(item.get_closest_marker("versionless") for item in twins)


def test_ci_runs_both() -> None:
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-2:] == ["make test", "make test-long"]
    assert re.search(r"^test-long:.*\n(?:\t.*\n)*\t.*\$\(MAKE\).* test-twin$", makefile(), re.M)


def test_real_runs_are_long_but_for_one(pytestconfig: pytest.Config) -> None:
    for item in pytestconfig.stash[COLLECTED]:
        names = set(getattr(item, "fixturenames", ()))
        if names & STARTS_A_RUN and item.get_closest_marker("long") is None:
            assert names <= THE_RUN, item.nodeid
