"""Every metric that a run logs in addition to verl's, one sentence each, and how those of a step are computed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from theory.allocation import concentration, degenerate_groups, variance_ratio, wasted_share
from theory.base import require
from theory.base.arrays import FloatArray, IntArray

QUANTILES = (0.05, 0.5, 0.95)
"""Quantiles of the modulation's factors."""

QUARTILES = (0.25, 0.5, 0.75)
"""Quartiles of the rollouts of a prompt."""

METRICS: Mapping[str, str] = MappingProxyType(
    {
        "dynamo/rollouts": "rollouts of the step; a rule in rounds may leave a part of the budget",
        "dynamo/rollouts_min": "fewest rollouts of a prompt",
        "dynamo/rollouts_max": "most rollouts of a prompt",
        **{
            f"dynamo/rollouts_q{q * 100:02.0f}": f"{q:.0%} of the prompts have at most so many rollouts"
            for q in QUARTILES
        },
        "dynamo/at_lower_bound": "share of prompts with as few rollouts as the bounds allow",
        "dynamo/at_upper_bound": "share of prompts with as many rollouts as the bounds allow",
        "dynamo/allocation_concentration": "N sum n^2 / (sum n)^2 over the N prompts: 1 is uniform",
        "dynamo/degenerate_groups": "share of prompts whose rewards are all equal, which teach nothing",
        "dynamo/rollouts_wasted": "share of the rollouts spent on those",
        "dynamo/unverified": "share of the responses that the reward function could not check, which count as wrong",
        "dynamo/guessed": "share of the responses that state no answer, so that the reward function guessed one",
        "dynamo/variance_ratio_predicted": "sum v/n over uniform's, v = p (1 - p) with p from the history",
        "dynamo/estimate_error": "mean distance of that p from the step's own success rate",
        **{
            f"dynamo/{factor}_q{q * 100:02.0f}": f"{q:.0%} quantile of the {factor} factor over the batch's tokens, "
            "under the policy that sampled them"
            for factor in ("compensation", "stabilization")
            for q in QUANTILES
        },
        **{
            f"actor/dynamo/{factor}_{kind}": f"{kind} of the {factor} factor over the tokens learnt from, under the "
            "current policy"
            for factor in ("compensation", "stabilization")
            for kind in ("mean", "min", "max")
        },
        **{
            f"actor/dynamo/importance_{kind}": f"{kind} of the importance weights of the tokens learnt from, if "
            "algorithm.rollout_correction asks for them"
            for kind in ("mean", "min", "max")
        },
        "actor/dynamo/clipped": "share of tokens whose ratio is clipped, for losses of `theory.losses`",
        "actor/dynamo/counted": "share of tokens that enter the loss",
        "actor/dynamo/targeted": "share of tokens that Clip-Cov takes out or KL-Cov penalises",
    }
)
"""What is logged under these names; `actor/entropy` and `actor/grad_norm` are verl's."""


def allocation_metrics(
    rollouts: IntArray, successes: IntArray, rates: FloatArray, bounds: tuple[int, int]
) -> dict[str, float]:
    """Return the metrics of a step's allocation.

    Parameters
    ----------
    rollouts, successes : Rollouts and successes of every prompt in the step, [N].
    rates : Success rates that the history predicted for them, [N].
    bounds : Fewest and most rollouts that a prompt may have.

    Examples
    --------
    >>> metrics = allocation_metrics(np.array([2, 6]), np.array([0, 3]), np.array([0.5, 0.5]), (2, 8))
    >>> metrics["dynamo/degenerate_groups"], metrics["dynamo/rollouts_wasted"], metrics["dynamo/at_lower_bound"]
    (0.5, 0.25, 0.5)
    """
    require.same_shape(rollouts=rollouts, successes=successes, rates=rates)
    quartiles = {
        f"dynamo/rollouts_q{q * 100:02.0f}": float(np.quantile(rollouts, q, method="inverted_cdf")) for q in QUARTILES
    }
    return {
        "dynamo/rollouts": float(rollouts.sum()),
        "dynamo/rollouts_min": float(rollouts.min()),
        "dynamo/rollouts_max": float(rollouts.max()),
        **quartiles,
        "dynamo/at_lower_bound": float((rollouts == bounds[0]).mean()),
        "dynamo/at_upper_bound": float((rollouts == bounds[1]).mean()),
        "dynamo/allocation_concentration": float(concentration(rollouts)),
        "dynamo/degenerate_groups": float(degenerate_groups(successes, rollouts).mean()),
        "dynamo/rollouts_wasted": float(wasted_share(successes, rollouts)),
        "dynamo/variance_ratio_predicted": float(variance_ratio(rates * (1 - rates), rollouts)),
        "dynamo/estimate_error": float(np.abs(successes / rollouts - rates).mean()),
    }


def factor_quantiles(name: str, values: FloatArray) -> dict[str, float]:
    """Return the quantiles of a factor of the modulation over tokens, [n]; nothing for no token.

    Examples
    --------
    >>> factor_quantiles("compensation", np.array([1.0, 1.2, 1.4]))["dynamo/compensation_q50"]
    1.2
    """
    if not len(values):
        return {}
    return {f"dynamo/{name}_q{q * 100:02.0f}": float(np.quantile(values, q)) for q in QUANTILES}
