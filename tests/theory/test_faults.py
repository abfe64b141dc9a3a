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
    """A wrong line and the test that notices it, among those of the source or else of the file `beside`."""

    what: str
    source: str
    right: str
    wrong: str
    caught_by: str
    beside: str = ""


FAULTS = [
    Fault(
        "one wrong answer too few",
        "estimators/progress",
        "log_b[:, n:1:-1]",
        "log_b[:, n - 1 : 0 : -1]",
        "test_is_the_mean_of_exact_progress_over_the_law_of_p",
    ),
    Fault(
        "right and wrong exchanged in the best scale",
        "estimators/optimal",
        "(1 - r) * v_c + r * v_w",
        "r * v_c + (1 - r) * v_w",
        "test_golden_values",
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
        "advantages computed in float32",
        "estimators/advantages",
        "rewards = xp.astype(rewards, xp.float64)",
        "rewards = xp.astype(rewards, dtype)",
        "test_float32_is_rounded_once_and_float64_as_if_there_were_no_offset",
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
        "a product of ratios over padding too",
        "losses/importance",
        "xp.where(mask, stop_gradient(old_log_prob) - stop_gradient(rollout_log_prob), 0.0)",
        "stop_gradient(old_log_prob) - stop_gradient(rollout_log_prob)",
        "test_golden_values",
    ),
    Fault(
        "an importance weight with a gradient",
        "losses/configured",
        "stop_gradient(importance) * values",
        "importance * values",
        "test_gradient_with_importance_weights_three_ways",
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
    Fault(
        "an odd group's odd one kept for a success",
        "allocation/rules/in_rounds",
        'positive = self.keep // 2 if self.stop == "balanced"',
        'positive = (self.keep + 1) // 2 if self.stop == "balanced"',
        "test_reinforce_ada_keeps_the_odd_one_for_a_failure",
    ),
    Fault(
        "as many failures as successes, also of an odd group",
        "allocation/rules/in_rounds",
        'negative = self.keep - positive if self.stop == "balanced"',
        'negative = positive if self.stop == "balanced"',
        "test_reinforce_ada_keeps_the_odd_one_for_a_failure",
    ),
    Fault(
        "differences taken for rounding",
        "losses/modulation",
        "ROUNDING = 16",
        "ROUNDING = 32",
        "test_what_counts_as_rounding",
    ),
    Fault(
        "rounding of large entropies taken for differences",
        "losses/modulation",
        "max(1.0, high)",
        "1.0",
        "test_what_counts_as_rounding",
    ),
    Fault(
        "a neutral advantage compensated",
        "losses/modulation",
        "xp.where(apart & (advantages > 0), factor",
        "xp.where(apart & (advantages >= 0), factor",
        "test_compensation_is_for_positive_advantages_alone",
    ),
    Fault(
        "problems of strata taken for the same",
        "statistics/crossed",
        "np.sum(problems, axis=0) / num**2",
        "np.mean(problems, axis=0)",
        "test_strata_draw_their_problems_independently",
    ),
    Fault(
        "what runs and problems share counted twice",
        "statistics/crossed",
        "np.maximum(variance - remainder, 0.0)",
        "variance",
        "test_is_the_closed_form",
    ),
    Fault(
        "a bootstrap of seven seeds",
        "statistics/paired",
        "BOOTSTRAP_SEEDS = 8",
        "BOOTSTRAP_SEEDS = 7",
        "test_is_students_below_eight_seeds",
        "statistics/paired_gain",
    ),
    Fault(
        "two seeds decide",
        "statistics/paired",
        "SIGN_SEEDS = 3",
        "SIGN_SEEDS = 2",
        "test_too_few_seeds_have_no_p_value",
        "statistics/paired_gain",
    ),
    Fault(
        "Bonferroni without steps",
        "statistics/families",
        "np.arange(known.size, 0, -1)",
        "known.size",
        "test_worked_by_hand",
    ),
    Fault(
        "a later p-value below an earlier one",
        "statistics/families",
        "np.maximum.accumulate(np.arange(known.size, 0, -1) * known[order])",
        "np.arange(known.size, 0, -1) * known[order]",
        "test_is_bonferroni_closed",
    ),
    Fault(
        "a sign without its p-value",
        "base/tables",
        "* int(self.p <= SIGN_LEVEL)",
        "",
        "test_an_interval_that_ends_at_zero_holds_it",
    ),
    Fault(
        "weights of a step over the mean of all steps",
        "allocation/log_estimates",
        "shares.append(x / total[step])",
        "shares.append(x / total.mean())",
        "test_each_step_has_a_sum_of_its_own",
    ),
    Fault(
        "one of two is one short once, not twice",
        "allocation/log_estimates",
        "((k == n - 1).astype(np.float64) + (k == 1))",
        "((k == n - 1) | (k == 1)).astype(np.float64)",
        "test_golden",
    ),
    Fault(
        "a fourth moment over n, not n - 1",
        "allocation/log_intervals",
        "square * (3 + (n - 3) / (n - 1))",
        "square * (3 + (n - 3) / n)",
        "test_expectation_is_the_variance_by_enumeration",
    ),
    Fault(
        "degrees of freedom without the factor 2",
        "allocation/log_intervals",
        "2 * total**2 / squares",
        "total**2 / squares",
        "test_golden",
    ),
    Fault(
        "the error of a total for that of a ratio",
        "allocation/log_intervals",
        "scale = (x - ratio * y) ** 2",
        "scale = x**2",
        "test_golden",
    ),
    Fault(
        "GRPO's bounds not opposite above and below",
        "allocation/log_intervals",
        'noise_bounds(k, n, u, "grpo")[1 - end]',
        'noise_bounds(k, n, u, "grpo")[end]',
        "test_without_a_lower_bound_there_is_no_upper_end",
    ),
    Fault(
        "a log called filtered by the ratio of large groups",
        "allocation/log_intervals",
        "np.log((size - 1) / (2 * size))",
        "np.log(1 / 2)",
        "test_chances_by_enumeration",
    ),
    Fault(
        "a prior with the same weight on both sides",
        "allocation/rules/oracles",
        "problem.attempts - problem.successes + self.prior[1]",
        "problem.attempts - problem.successes + self.prior[0]",
        "test_log_progress_is_the_best_of_all_allocations",
    ),
    Fault(
        "progress of log p for that of p",
        "allocation/rules/oracles",
        'slope = p if self.objective == "log" else p**2',
        "slope = p",
        "test_log_progress_is_the_best_of_all_allocations",
    ),
    Fault(
        "a clip for losses that have none",
        "losses/protocol",
        "*(self.clip_range or (1.0, LARGEST_CLIP))",
        "*(self.clip_range or (0.2, 0.2))",
        "test_the_update_coefficient_is_the_weight_of_the_score_in_the_gradient",
        "losses/configured",
    ),
    Fault(
        "a default of a part that is not its function's",
        "losses/entropy",
        "    alpha: float = 0.4\n    kappa: float = 2.0",
        "    alpha: float = 0.4\n    kappa: float = 4.0",
        "test_a_part_has_the_defaults_of_its_function",
        "losses/configured",
    ),
    Fault(
        "the cosine squared",
        "estimators/group_gradient",
        "np.sqrt(self.signal / np.where(second_moment > 0, second_moment, 1.0))",
        "self.signal / np.where(second_moment > 0, second_moment, 1.0)",
        "test_cosine_golden_values",
    ),
    Fault(
        "modulation of other losses by A for r A",
        "methods/table",
        "if self.compares else None\n        with",
        "if self.loss.standard else None\n        with",
        "test_modulation_goes_by_the_update_coefficient_of_any_loss",
    ),
    Fault(
        "a norm that rounding makes negative",
        "policy/softmax",
        "clip(1 - 2 * xp.exp(stats.log_prob) + stats.collision, 0, None)",
        "1 - 2 * xp.exp(stats.log_prob) + stats.collision",
        "test_norms_that_rounding_took_below_zero_are_zero",
    ),
    Fault(
        "an interval that ends at zero taken for a gain",
        "base/tables",
        "int(self.low > 0)",
        "int(self.low >= 0)",
        "test_an_interval_that_ends_at_zero_holds_it",
    ),
    Fault(
        "integers that wrap around",
        "base/require",
        "bad = (x < minimum) | (x > np.iinfo(np.int64).max)",
        "bad = x < minimum",
        "test_integers_beyond_64_bits_do_not_wrap_around",
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
    folder, _, name = (fault.beside or place.get(fault.source, fault.source)).rpartition("/")
    test = f"tests/theory/{folder}/test_{name}.py"
    report = tmp_path / "report.xml"
    options = ["-x", f"--config-file={os.devnull}", f"--rootdir={tmp_path}", f"--junitxml={report}"]
    with PREPARED.Pool(1) as pool:
        status = pool.apply(pytest.main, ([*options, "-k", fault.caught_by, str(tmp_path / test)],))
    assert status == pytest.ExitCode.TESTS_FAILED, f"{fault.caught_by} did not notice\n{report.read_text()}"
