"""How often intervals hold the truth and signs are wrong, in simulations; docs/statistics.md says what was found.

A share of N simulations has a standard error of sqrt(c (1 - c) / N): .0034 for .95 and N = 4,000. Four of them are
allowed.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from theory.base.tables import Estimate
from theory.statistics import (
    SIGN_SEEDS,
    crossed_interval,
    exact_pass_at_k,
    in_family,
    interval_method,
    paired_gain,
    paired_p_value,
    pass_at_k,
)

PAGE = (Path(__file__).parents[3] / "docs" / "statistics.md").read_text()
NUM = 4000

CELLS = [(seeds, shape) for seeds in (2, 3, 4, 5, 7, 8, 10, 16, 32) for shape in ("normal", "lognormal")]
QUICK = {(2, "normal"), (3, "normal"), (3, "lognormal"), (5, "normal"), (7, "normal"), (8, "normal"), (8, "lognormal")}


def error(share: float, num: int) -> float:
    return math.sqrt(share * (1 - share) / num)


def middle_of_lognormal() -> float:
    """Mean of the middle half: E[X; a < log X < b] = e^(1/2) (Phi(b - 1) - Phi(a - 1)), over the half."""
    a, b = stats.norm.ppf([0.25, 0.75])
    return float(2 * math.exp(0.5) * (stats.norm.cdf(b - 1) - stats.norm.cdf(a - 1)))


def coverage_of_gains(num_seeds: int, shape: str, num: int, rng: np.random.Generator) -> float:
    """Return how often a gain's interval holds that of the population: its mean, or the mean of its middle half."""
    truth = 0.0 if shape == "normal" else middle_of_lognormal() if num_seeds >= 8 else math.exp(0.5)
    held = 0
    for start in range(0, num, 500):
        normal = rng.normal(size=(num_seeds, min(500, num - start)))
        luck = rng.normal(size=normal.shape)  # what a seed is for both methods
        gains = normal if shape == "normal" else np.exp(normal)
        _, low, high = paired_gain(luck + gains, luck)
        held += int(((low <= truth) & (truth <= high)).sum())
    return held / num


@pytest.mark.parametrize(
    ("num_seeds", "shape"),
    [pytest.param(*cell, marks=[] if cell in QUICK else pytest.mark.long) for cell in CELLS],
)
def test_gains_cover_what_the_page_says(num_seeds: int, shape: str) -> None:
    (line,) = re.findall(rf"^\| {num_seeds} \| (.+) \| (\.\d+) \| (\.\d+) \|$", PAGE, re.M)
    assert line[0] == interval_method(num_seeds)
    said = float(line[1 if shape == "normal" else 2])
    found = coverage_of_gains(num_seeds, shape, NUM, np.random.default_rng(num_seeds))
    # The numbers of the page are of 6,000 simulations at least.
    assert abs(found - said) < 4 * math.hypot(error(said, NUM), error(said, 6_000)) + 0.0005
    if shape == "normal":
        assert 0.92 <= said <= 0.98
        if num_seeds < 8:  # exactly .95
            assert abs(found - 0.95) < 4 * error(0.95, NUM)


@pytest.mark.parametrize(("num_seeds", "num"), [(3, 1000), (8, 250)])
def test_bands_hold_each_step_of_a_curve(num_seeds: int, num: int) -> None:
    """Curves of ten steps whose errors are correlated (.9 from step to step): each step has 95 %, not all together."""
    rng = np.random.default_rng(1)
    steps = np.arange(10)
    root = np.linalg.cholesky(0.9 ** np.abs(steps[:, None] - steps))
    truth = 0.1 * steps[:, None]
    curves = truth + np.einsum("ts,nsr->ntr", root, rng.normal(size=(num_seeds, 10, num)))
    _, low, high = paired_gain(curves)
    held = (low <= truth) & (truth <= high)
    # Steps of one curve are nearly one simulation.
    assert np.all(np.abs(held.mean(axis=1) - 0.945) < 0.025 + 4 * error(0.945, num))
    assert 0.6 < held.all(axis=0).mean() < held.mean()


def signs(num_seeds: int, num_comparisons: int, num: int, rng: np.random.Generator) -> np.ndarray:
    """Return the signs of comparisons with one reference without any effect, [num, num_comparisons]."""
    reference = rng.normal(size=(num_seeds, num, 1))
    methods = rng.normal(size=(num_seeds, num, num_comparisons))
    given = np.stack([*paired_gain(methods, reference + 0 * methods), paired_p_value(methods, reference + 0 * methods)])
    families = np.moveaxis(given, 0, -1).tolist()
    return np.array([[gain.sign for gain in in_family(Estimate(*x) for x in family)] for family in families])


def test_no_effect_has_a_sign_in_five_per_cent_of_cases_at_three_seeds() -> None:
    found = (signs(3, 1, NUM, np.random.default_rng(3)) != 0).mean()
    assert abs(found - 0.05) < 4 * error(0.05, NUM)


def test_fewer_seeds_have_no_sign() -> None:
    for num_seeds in range(1, SIGN_SEEDS):
        assert not signs(num_seeds, 1, 500, np.random.default_rng(0)).any()


@pytest.mark.parametrize(
    ("num_seeds", "num_comparisons", "num"),
    [(3, 8, 2000), (8, 8, 400), pytest.param(32, 20, 400, marks=pytest.mark.long)],
)
def test_a_family_without_effect_has_a_sign_in_at_most_five_per_cent(num_seeds, num_comparisons, num) -> None:
    found = signs(num_seeds, num_comparisons, num, np.random.default_rng(4)).any(axis=1).mean()
    assert found <= 0.05 + 4 * error(0.05, num)


DRAWS = {
    "lognormal, less its mean": lambda rng, shape: np.exp(rng.normal(size=shape)) - math.exp(0.5),
    "1 or -1": lambda rng, shape: rng.choice([-1.0, 1.0], size=shape),
}


@pytest.mark.parametrize("law", DRAWS)
@pytest.mark.parametrize(("seeds", "comparisons", "num"), [(3, 1, 4000), (8, 1, 1000), (3, 20, 400)])
def test_skewed_and_discrete_differences_have_the_false_signs_of_the_page(law, seeds, comparisons, num) -> None:
    """Where the differences have mean 0 and are not normal: signs are more frequent, or less."""
    (line,) = re.findall(rf"^\| {law} \| {seeds} \| (\.\d+) \| (\.\d+) \|$", PAGE, re.M)
    said = float(line[comparisons > 1])
    values = DRAWS[law](np.random.default_rng(6), (seeds, num, comparisons))
    families = np.moveaxis(np.stack([*paired_gain(values), paired_p_value(values)]), 0, -1).tolist()
    found = np.mean([any(gain.sign for gain in in_family(Estimate(*x) for x in family)) for family in families])
    assert abs(found - said) <= 4 * error(said, num) + 0.01


@pytest.mark.parametrize("sign", [-1, 1])
def test_an_effect_is_found_and_has_its_sign(sign: int) -> None:
    """Five standard deviations at 8 seeds: t is about 14, far beyond what any family asks."""
    rng = np.random.default_rng(5)
    values = 5 * sign + rng.normal(size=(8, 20))
    given = np.stack([*paired_gain(values), paired_p_value(values)], axis=-1).tolist()
    assert [gain.sign for gain in in_family(Estimate(*x) for x in given)] == [sign] * 20


def coverage_of_means(runs: int, problems: int, spread: float, num: int, rng: np.random.Generator) -> float:
    """Return how often the mean over runs and problems is held; of one run, its own mean over problems."""
    of_runs = spread * rng.normal(size=(runs, 1, num))
    x = 0.35 * rng.normal(size=(problems, num)) + of_runs + 0.2 * rng.normal(size=(runs, problems, num))
    truth = of_runs[0, 0] if runs == 1 else 0.0
    interval = crossed_interval([x])
    return float(((interval.low[0] <= truth) & (truth <= interval.high[0])).mean())


@pytest.mark.parametrize("spread", [0.0, 0.03, 0.3])
@pytest.mark.parametrize("num_runs", [1, 2, 3, 5])
@pytest.mark.parametrize("problems", [30, pytest.param(500, marks=pytest.mark.long)])
def test_means_over_runs_and_problems(num_runs: int, problems: int, spread: float) -> None:
    """Problems differ by .35, runs by `spread`, and the remainder by .2. With two runs intervals are wide."""
    num = 1000
    found = coverage_of_means(num_runs, problems, spread, num, np.random.default_rng(7))
    assert 0.92 - 4 * error(0.92, num) <= found <= (1.0 if num_runs == 2 else 0.98 + 4 * error(0.98, num))


@pytest.mark.parametrize("num_runs", [1, 3])
@pytest.mark.parametrize(
    ("k", "shape"),
    [(1, (1.0, 2.0)), (1, (0.2, 4.0)), (1, (0.1, 10.0)), (32, (1.0, 2.0)), (32, (1.0, 0.4)), (32, (2.0, 1.0))],
)
@pytest.mark.parametrize("problems", [30, pytest.param(500, marks=pytest.mark.long)])
def test_pass_at_k_over_problems_and_runs(k: int, shape: tuple[float, float], num_runs: int, problems: int) -> None:
    """Success rates of Beta(shape), 64 samples of each run; the truth from 20,000 quantiles of the law.

    Means are .33, .05, .01 of pass@1, and .94, .988, .998 of pass@32: near an end, most samples show one score only.
    """
    rng, num = np.random.default_rng(8), 600
    p = rng.beta(*shape, size=(problems, num))
    scores = pass_at_k(64, np.arange(65), k)[rng.binomial(64, p, size=(num_runs, problems, num))]
    _, low, high = crossed_interval([scores], shares=True)
    law = stats.beta.ppf((np.arange(20_000) + 0.5) / 20_000, *shape)
    truth = exact_pass_at_k(law, k).mean()
    found = ((low[0] <= truth) & (truth <= high[0])).mean()
    assert found >= 0.94 - 4 * error(0.94, num)
