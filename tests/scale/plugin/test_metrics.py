"""The metrics of a step's allocation and of the factors, by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("verl")

from scale.plugin.metrics import METRICS, allocation_metrics, factor_quantiles

pytestmark = pytest.mark.needs_verl


def test_metrics_of_an_allocation():
    rollouts, successes = np.array([2, 4, 9, 5]), np.array([0, 1, 9, 2])
    rates = np.array([0.5, 0.75, 0.9, 0.1])
    found = allocation_metrics(rollouts, successes, rates, (2, 12))
    v = np.array([0.25, 0.1875, 0.09, 0.09])
    expected = {
        "rollouts": 20.0,
        "rollouts_min": 2.0,
        "rollouts_max": 9.0,
        "rollouts_q25": 2.0,
        "rollouts_q50": 4.0,
        "rollouts_q75": 5.0,
        "at_lower_bound": 0.25,
        "at_upper_bound": 0.0,
        "allocation_concentration": 4 * (4 + 16 + 81 + 25) / 400,
        "degenerate_groups": 0.5,
        "rollouts_wasted": 11 / 20,
        "variance_ratio_predicted": (v / rollouts).sum() / (v / 5).sum(),
        "estimate_error": (0.5 + 0.5 + 0.1 + 0.3) / 4,
    }
    assert found == pytest.approx({f"dynamo/{name}": value for name, value in expected.items()})
    assert set(found) <= set(METRICS)
    assert allocation_metrics(rollouts, successes, rates, (1, 9))["dynamo/at_upper_bound"] == 0.25


def test_quantiles_of_a_factor():
    found = factor_quantiles("stabilization", np.linspace(0.6, 1.0, 101))
    expected = {"q05": 0.62, "q50": 0.8, "q95": 0.98}
    assert found == pytest.approx({f"dynamo/stabilization_{name}": value for name, value in expected.items()})
    assert set(found) <= set(METRICS)
    assert factor_quantiles("stabilization", np.array([])) == {}
