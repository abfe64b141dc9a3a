"""Mutation spot-check: each hand-made fault in a formula is caught by the test named beside it.

Every fault is one edit of one line. It is made in a copy of the sources, and the named test must then fail there.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]

# Each fault has a process of its own, forked from one that has imported what takes long and nothing of ours.
PREPARED = multiprocessing.get_context("forkserver")
PREPARED.set_forkserver_preload(["hypothesis.extra.numpy", "pytest", "scipy.optimize", "scipy.stats", "torch"])


class Fault(NamedTuple):
    """A wrong line and the test that notices it."""

    what: str
    source: str
    right: str
    wrong: str
    caught_by: str


FAULTS = [
    Fault(
        "one wrong answer too few",
        "estimators/progress",
        "log_b[:, n:1:-1]",
        "log_b[:, n - 1 : 0 : -1]",
        "test_is_the_mean_of_exact_progress_over_the_law_of_p",
    ),
    Fault(
        "sign of the score norm", "policy/softmax", "1 - 2 * xp.exp", "1 + 2 * xp.exp", "test_statistics_by_enumeration"
    ),
    Fault(
        "a lost factor C in E[pi Lambda]", "policy/softmax", "+ collision * entropy", "+ entropy", "test_golden_values"
    ),
    Fault(
        "sign in the entropy bound",
        "policy/softmax",
        "xp.expm1(-stats",
        "xp.expm1(stats",
        "test_bound_is_tight_for_uniform_on_a_subset_and_only_there",
    ),
    Fault(
        "sign of the entropy change",
        "policy/entropy_change",
        "change = -step * (pi_lambda(stats) - mean)",
        "change = step * (pi_lambda(stats) - mean)",
        "test_first_order_golden_values",
    ),
    Fault(
        "clip ranges exchanged",
        "policy/entropy_change",
        "(advantage > 0) & (ratio <= 1 + clip_high)",
        "(advantage > 0) & (ratio <= 1 + clip_low)",
        "test_clip_ranges_are_not_exchanged",
    ),
    Fault(
        "ddof of the two normalisations exchanged",
        "estimators/advantages",
        'num_free = group.size - 1 if normalize == "sample" else group.size',
        'num_free = group.size if normalize == "sample" else group.size - 1',
        "test_golden_values",
    ),
    Fault(
        "compensation that grows with entropy",
        "losses/modulation",
        "factor = 1 + alpha * (1 - position)",
        "factor = 1 + alpha * position",
        "test_golden_values",
    ),
    Fault(
        "values beyond the batch's extremes",
        "losses/modulation",
        "return (clip(x, start, end) - start) / (end - start), apart",
        "return (x - start) / (end - start), apart",
        "test_values_outside_the_scope_count_as_the_nearest_extreme",
    ),
    Fault(
        "gradient through the factors",
        "losses/modulation",
        "stats = TokenStatistics(*(stop_gradient(x) for x in stats))",
        "stats = TokenStatistics(*stats)",
        "test_factors_are_constants_for_the_gradient",
    ),
    Fault(
        "GRPO's variance for its deviation",
        "estimators/group_gradient",
        '"grpo": lambda k, n: n / np.sqrt(k * (n - k)),',
        '"grpo": lambda k, n: n**2 / (k * (n - k)),',
        "test_moments_by_enumeration",
    ),
    Fault(
        "ddof of the sample deviation",
        "estimators/group_gradient",
        "np.sqrt(n * (n - 1) / (k * (n - k)))",
        "np.sqrt(n * (n + 1) / (k * (n - k)))",
        "test_moments_by_enumeration",
    ),
    Fault(
        "RLOO's factor upside down",
        "estimators/group_gradient",
        '"rloo": lambda k, n: n / (n - 1),',
        '"rloo": lambda k, n: (n - 1) / n,',
        "test_moments_by_enumeration",
    ),
    Fault(
        "a rule that stops at either kind for both",
        "estimators/stopping",
        "done = (k >= rule.min_correct) & (n - k >= rule.min_wrong)",
        "done = (k >= rule.min_correct) | (n - k >= rule.min_wrong)",
        "test_moments_under_a_stopping_rule_by_enumeration",
    ),
    Fault(
        "pass@k: certain one failure too early",
        "statistics/passk",
        "certain = n - c < k",
        "certain = n - c <= k",
        "test_every_subset_is_counted",
    ),
    Fault(
        "P with G for G - 1",
        "allocation/variance",
        "((g - k) / (g - 1))",
        "((g - k) / g)",
        "test_bernoulli_variance_is_unbiased_exactly",
    ),
    Fault(
        "shares by variance for deviation",
        "allocation/shares",
        "shares: FloatArray = budget * s / s.sum()",
        "shares: FloatArray = budget * s**2 / (s**2).sum()",
        "test_proportional_equals_slsqp",
    ),
    Fault(
        "marginal v/n^2 for v/(n(n+1))",
        "allocation/optimum",
        "v[prompt] / (n * (n + 1))",
        "v[prompt] / (n * n)",
        "test_optimal_equals_brute_force",
    ),
    Fault(
        "ties to the higher index",
        "allocation/bounds",
        "np.flatnonzero(keys == threshold)",
        "np.flatnonzero(keys == threshold)[::-1]",
        "test_optimal_equals_brute_force",
    ),
    Fault(
        "the square root of neyman lost",
        "allocation/rules/dynamo",
        "return np.sqrt(variances)",
        "return variances",
        "test_dynamo_is_proportional_to_P",
    ),
    Fault(
        "knapsack's value without its second q",
        "allocation/rules/published",
        "-(p**n + q**n) * (p * q**2)",
        "-(p**n + q**n) * (p * q)",
        "test_knapsack_by_hand",
    ),
    Fault(
        "a round that is not charged",
        "allocation/rules/protocol",
        "self.left -= int(counts.sum())",
        "self.left -= 0",
        "test_budget_bounds_dtype_and_charge",
    ),
    Fault(
        "a budget that nobody holds a rule to",
        "allocation/rules/protocol",
        "if counts.sum() != problem.budget:",
        "if counts.sum() > problem.num_prompts * problem.high:",
        "test_a_one_shot_rule_spends_the_budget_exactly",
    ),
    Fault(
        "a round that may overdraw the budget",
        "allocation/rules/protocol",
        "if spent.sum() > self._problem.budget:",
        "if counts.sum() > self._problem.budget:",
        "test_a_wrong_round_is_refused_before_it_is_rolled_out",
    ),
    Fault(
        "no discount of old counts",
        "allocation/history",
        "(self.discount * old[0] + ",
        "(old[0] + ",
        "test_old_counts_are_discounted_once_per_update_and_only_where_updated",
    ),
    Fault(
        "upper clip at the lower bound",
        "losses/surrogate",
        "(advantages > 0) & (ratio > 1 + clip_high)",
        "(advantages > 0) & (ratio > 1 + clip_low)",
        "test_clipped_surrogate_by_hand",
    ),
    Fault(
        "entropy bonus with the wrong sign",
        "losses/entropy",
        "xp.where(mask, -coefficient * entropy, 0.0)",
        "xp.where(mask, coefficient * entropy, 0.0)",
        "test_entropy_bonus_gradient_three_ways",
    ),
    Fault(
        "KL-Cov by absolute covariance",
        "losses/selection",
        "_largest(xp, covariances, mask,",
        "_largest(xp, xp.abs(covariances), mask,",
        "test_kl_cov_takes_the_largest_signed_covariance",
    ),
    Fault(
        "Clip-Cov's band closed below",
        "losses/selection",
        "(covariances > low) &",
        "(covariances >= low) &",
        "test_clip_cov_takes_the_band_strictly_and_the_smallest_uniforms",
    ),
    Fault(
        "empty sequences in the sequence mean",
        "losses/aggregation",
        "xp.astype(tokens > 0, xp.int64)",
        "xp.astype(tokens >= 0, xp.int64)",
        "test_ragged_batch_by_hand",
    ),
    Fault(
        "the wrong half of an ablation",
        "methods/table",
        'title="- GC", shaping=Modulation(alpha_comp=0.0)',
        'title="- GC", shaping=Modulation(alpha_stab=0.0)',
        "test_ablations_differ_from_dynamo_in_the_stated_part_only",
    ),
    Fault(
        "a third left out at either end",
        "statistics/intervals",
        "cut = num_scores // 4",
        "cut = num_scores // 3",
        "test_interquartile_mean_is_scipys_trimmed_mean",
    ),
    Fault(
        "the same runs drawn for all tasks",
        "statistics/intervals",
        "size=(num_resamples, num_runs, num_tasks))",
        "size=(num_resamples, num_runs, 1))",
        "test_tasks_are_resampled_on_their_own",
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.source}: {fault.what}")
def test_fault_is_caught(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # plugins take longer than the test
    shutil.copytree(ROOT / "theory", tmp_path / "theory")
    shutil.copytree(ROOT / "tests" / "theory", tmp_path / "tests" / "theory")
    (tmp_path / "tests" / "__init__.py").touch()
    source = tmp_path / "theory" / f"{fault.source}.py"
    text = source.read_text()
    assert text.count(fault.right) == 1, f"{fault.right!r} should stand once in {source.name}"
    source.write_text(text.replace(fault.right, fault.wrong))
    # Where the tests of a file that others are built on stand.
    place = {
        "allocation/bounds": "allocation/optimum",
        "estimators/group_gradient": "estimators/moments",
    }
    folder, _, name = place.get(fault.source, fault.source).rpartition("/")
    test = f"tests/theory/{folder}/test_{name}.py"
    report = tmp_path / "report.xml"
    options = ["-x", f"--config-file={os.devnull}", f"--rootdir={tmp_path}", f"--junitxml={report}"]
    with PREPARED.Pool(1) as pool:
        status = pool.apply(pytest.main, ([*options, "-k", fault.caught_by, str(tmp_path / test)],))
    assert status == pytest.ExitCode.TESTS_FAILED, f"{fault.caught_by} did not notice\n{report.read_text()}"
