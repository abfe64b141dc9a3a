"""The paper's statements about its own tables, checked by arithmetic on the published numbers (rows T1 to T7).

Nothing here is a measurement of ours; the numbers are those of Tables 1 and 2 and the README, copied as facts.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from theory.base.arrays import FloatArray
from theory.claims.ledger import ROUNDING, Finding, Verdict, claim
from theory.statistics import passk

BENCHMARKS = ("AIME24", "AIME25", "AMC23", "MATH500", "Minerva", "Olympiad")

# Table 1: (pass@1, pass@32) per benchmark, then the printed averages.
TABLE_1: dict[str, dict[str, tuple[tuple[float, ...], tuple[float, ...], tuple[float, float]]]] = {
    "Qwen2.5-Math-1.5B": {
        "GRPO": ((13.2, 7.6, 56.0, 54.4, 17.2, 25.6), (32.3, 31.5, 90.0, 79.2, 42.8, 47.0), (29.0, 53.8)),
        "Clip-Higher": ((12.4, 6.4, 50.6, 56.8, 16.8, 26.4), (34.7, 30.6, 89.9, 80.2, 41.3, 46.8), (28.2, 53.9)),
        "Entropy Loss": ((12.6, 5.8, 55.6, 56.3, 17.6, 25.4), (33.7, 28.4, 86.9, 78.5, 43.6, 46.4), (28.9, 52.9)),
        "Fork Tokens": ((9.4, 5.9, 52.5, 54.3, 16.6, 25.5), (32.0, 31.4, 85.6, 74.2, 36.8, 45.2), (27.4, 50.9)),
        "Entropy Advantages": ((15.7, 8.9, 62.0, 59.7, 18.2, 25.9), (35.8, 33.4, 86.4, 76.2, 43.0, 44.9), (31.7, 53.3)),
        "Clip-COV": ((13.5, 6.6, 59.5, 57.6, 15.8, 25.8), (36.4, 34.4, 89.7, 75.6, 44.3, 47.6), (29.8, 54.7)),
        "KL-COV": ((12.6, 9.0, 55.8, 54.2, 14.8, 25.4), (33.9, 33.4, 91.3, 78.1, 40.3, 48.1), (28.6, 54.2)),
        "W-REINFORCE": ((15.3, 8.5, 63.0, 56.7, 18.2, 24.4), (35.3, 31.7, 85.7, 77.7, 40.3, 46.2), (31.0, 52.8)),
        "DynaMO": ((17.2, 9.8, 63.6, 58.8, 19.4, 27.2), (37.2, 32.5, 91.9, 81.0, 44.0, 47.1), (32.7, 55.6)),
    },
    "Qwen2.5-Math-7B": {
        "GRPO": ((28.8, 11.7, 68.3, 63.3, 22.6, 28.6), (52.5, 34.8, 90.8, 75.0, 45.4, 44.7), (37.2, 57.2)),
        "Clip-Higher": ((27.0, 12.1, 67.8, 64.2, 24.0, 28.1), (51.9, 39.5, 89.9, 83.6, 46.1, 46.3), (37.2, 59.6)),
        "Entropy Loss": ((30.6, 13.2, 66.0, 60.6, 23.3, 30.2), (54.6, 40.6, 87.0, 79.6, 45.9, 41.1), (37.3, 58.1)),
        "Fork Tokens": ((27.1, 13.4, 71.0, 65.8, 26.1, 30.9), (52.5, 43.5, 87.3, 79.3, 42.4, 47.3), (39.1, 58.7)),
        "Entropy Advantages": ((27.5, 9.4, 67.9, 65.3, 23.7, 30.4), (49.7, 39.2, 85.2, 83.3, 43.7, 47.3), (37.4, 58.1)),
        "Clip-COV": ((32.2, 13.2, 72.7, 64.3, 25.4, 29.5), (52.7, 40.4, 89.3, 76.8, 45.9, 44.6), (39.5, 58.3)),
        "KL-COV": ((32.8, 11.7, 70.6, 64.6, 24.5, 30.2), (53.3, 36.1, 88.5, 75.3, 39.9, 44.2), (39.1, 56.2)),
        "W-REINFORCE": ((31.8, 14.3, 72.5, 64.9, 26.4, 30.9), (55.4, 41.0, 89.8, 84.0, 49.5, 46.7), (40.1, 61.1)),
        "DynaMO": ((34.4, 15.4, 74.4, 66.4, 27.3, 31.6), (59.0, 46.8, 92.9, 84.0, 47.2, 50.1), (41.6, 63.3)),
    },
}

# Table 2: pass@1 of Qwen2.5-Math-7B per benchmark, then the printed average; a name lists what is removed.
TABLE_2: dict[str, tuple[tuple[float, ...], float]] = {
    "DynaMO": ((34.4, 15.4, 74.4, 66.4, 27.3, 31.6), 41.6),
    "GC": ((33.8, 15.0, 71.9, 65.0, 26.7, 29.3), 40.3),
    "UMS": ((33.2, 14.7, 71.9, 64.9, 25.9, 30.2), 40.1),
    "DRA": ((31.9, 15.2, 73.4, 65.7, 23.0, 30.4), 39.9),
    "GC & DRA": ((31.9, 14.5, 69.0, 64.4, 23.7, 29.7), 38.9),
    "GC & UMS": ((30.5, 14.3, 70.2, 63.5, 22.2, 29.4), 38.4),
    "UMS & DRA": ((30.0, 13.8, 70.1, 61.6, 19.9, 30.2), 37.6),
    "ALL": ((28.8, 11.7, 68.3, 63.3, 22.6, 28.6), 37.2),
}

_OURS = "DynaMO"
_METRICS = ("pass@1", "pass@32")
_PUBLISHED = "means of three runs, no intervals"
_TABLE_1 = f"Table 1, 1.5B and 7B: {_PUBLISHED}"
_TABLE_2 = f"Table 2, pass@1 at 7B: {_PUBLISHED}"

LEVEL = 1e-9
"""Differences of printed numbers below this are 0."""


def _drops() -> dict[str, FloatArray]:
    """Points that each removal of Table 2 costs per benchmark."""
    full = np.array(TABLE_2[_OURS][0])
    return {name: full - np.array(row) for name, (row, _) in TABLE_2.items() if name != _OURS}


@claim(
    "T1",
    "DynaMO consistently outperforms all baseline methods",
    "5.2, Table 1",
    Verdict.CONDITIONAL,
    regime=_TABLE_1,
)
def consistently_best() -> Finding:
    """Compare every average and every cell of Table 1 with the best other method."""
    leads: dict[str, dict[str, float]] = {metric: {} for metric in _METRICS}
    averages = []
    for model, methods in TABLE_1.items():
        ours, others = methods[_OURS], {name: row for name, row in methods.items() if name != _OURS}
        for i, metric in enumerate(_METRICS):
            averages.append(float(np.mean(ours[i]) - max(np.mean(row[i]) for row in others.values())))
            for column, benchmark in enumerate(BENCHMARKS):
                best, name = max(((row[i][column], name) for name, row in others.items()), key=lambda cell: cell[0])
                cell = f"{model}, {benchmark} {metric}: {ours[i][column]} against {best} of {name}"
                leads[metric][cell] = ours[i][column] - best
    ahead = {metric: sum(lead > LEVEL for lead in cells.values()) for metric, cells in leads.items()}
    behind = {metric: sum(lead < -LEVEL for lead in cells.values()) for metric, cells in leads.items()}
    every_cell = {cell: lead for cells in leads.values() for cell, lead in cells.items()}
    per_metric = len(every_cell) // len(_METRICS)
    on_average = Verdict.CONDITIONAL if min(averages) > 0 else Verdict.FAILS
    return Finding(
        on_average if sum(behind.values()) else Verdict.EXACT,
        f"true of all {len(averages)} averages, by {min(averages):.1f} to {max(averages):.1f} points. By cell: "
        + "; ".join(
            f"{metric} ahead of every baseline in {ahead[metric]} of {per_metric}, behind the best in {behind[metric]}, "
            f"level in {per_metric - ahead[metric] - behind[metric]}"
            for metric in _METRICS
        ),
        {
            "cells": len(every_cell),
            "beaten": sum(behind.values()),
            "least_average_lead": min(averages),
            "most_average_lead": max(averages),
            **{f"ahead_{metric}": ahead[metric] for metric in _METRICS},
            **{f"behind_{metric}": behind[metric] for metric in _METRICS},
        },
        min(every_cell, key=every_cell.__getitem__) if sum(behind.values()) else None,
    )


@claim(
    "T2",
    "The averages of Tables 1 and 2 are the means of their columns",
    "Tables 1, 2",
    Verdict.EXACT,
    regime="arithmetic on the copied numbers",
    by_construction=True,
)
def averages_add_up() -> Finding:
    """Recompute every printed average; one decimal allows an error of .05."""
    errors = {}
    for model, methods in TABLE_1.items():
        for name, (first, second, printed) in methods.items():
            errors[f"{model} {name} pass@1"] = abs(np.mean(first) - printed[0])
            errors[f"{model} {name} pass@32"] = abs(np.mean(second) - printed[1])
    for name, (row, average) in TABLE_2.items():
        errors[f"Table 2 {name}"] = abs(np.mean(row) - average)
    worst = max(errors, key=errors.__getitem__)
    wrong = [name for name, error in errors.items() if error > 0.05 + LEVEL]
    return Finding(
        Verdict.FAILS if wrong else Verdict.EXACT,
        f"{len(errors) - len(wrong)} of {len(errors)} averages agree to rounding; largest error "
        f"{errors[worst]:.3f} ({worst})",
        {"averages": len(errors), "wrong": len(wrong), "error": float(errors[worst])},
        f"{wrong[0]}: off by {errors[wrong[0]]:.3f}" if wrong else None,
    )


@claim(
    "T3",
    "Removing GC and UMS degrades more than the sum of individual removals (synergy)",
    "5.3.1, Table 2",
    Verdict.EXACT,
    regime=f"averages of six benchmarks, {_TABLE_2}",
)
def synergy() -> Finding:
    """Compare each pair of removals with the sum of the two, on the averages and per benchmark.

    The averages are recomputed from the cells: a printed average is rounded once more.
    """
    drops = _drops()
    excess, cells = {}, {}
    for pair in ("GC & UMS", "GC & DRA", "UMS & DRA"):
        first, second = pair.split(" & ")
        surplus = drops[pair] - drops[first] - drops[second]
        excess[pair] = float(surplus.mean())
        cells[pair] = int(np.sum(surplus > LEVEL))
    joint, separate = drops["GC & UMS"].mean(), drops["GC"].mean() + drops["UMS"].mean()
    # The excess is a sum of four means of numbers that are each rounded to one decimal.
    rounding = 4 * 0.05
    claimed = excess["GC & UMS"] > 0
    return Finding(
        Verdict.EXACT if claimed else Verdict.FAILS,
        f"on the average the pair costs {joint:.2f} points and the two removals {separate:.2f} together; rounding of "
        f"the table moves the difference of {excess['GC & UMS']:.2f} by at most {rounding:.1f}. The other pairs: UMS & DRA "
        f"{excess['UMS & DRA']:+.2f}, GC & DRA {excess['GC & DRA']:+.2f}. By benchmark, GC & UMS cost more than the sum "
        f"on {cells['GC & UMS']} of {len(BENCHMARKS)}. The table has no intervals to compare this with",
        {**excess, "joint": float(joint), "separate": float(separate), "benchmarks": cells["GC & UMS"]},
        None if claimed else f"GC & UMS: {joint:.2f} points against {separate:.2f}",
    )


@claim(
    "T4",
    "DRA shows the largest impact on Minerva, GC on Olympiad, and UMS provides stability across benchmarks",
    "5.3.1, Table 2",
    Verdict.EXACT,
    regime=f"components compared by benchmark, {_TABLE_2}",
)
def largest_impacts() -> Finding:
    """Find the component whose removal costs most on each of the two benchmarks.

    Another reading looks for the benchmark on which one component costs most, in points or relative to the full method.
    """
    claimed = {"Minerva": "DRA", "Olympiad": "GC"}
    drops = {name: _drops()[name] for name in ("DRA", "UMS", "GC")}
    on = {
        benchmark: {name: float(drop[BENCHMARKS.index(benchmark)]) for name, drop in drops.items()}
        for benchmark in claimed
    }
    largest = {benchmark: max(costs, key=costs.__getitem__) for benchmark, costs in on.items()}
    spread = {name: float(np.ptp(drop)) for name, drop in drops.items()}
    full = np.array(TABLE_2[_OURS][0])
    in_points = {name: BENCHMARKS[int(np.argmax(drop))] for name, drop in drops.items()}
    relative = {name: BENCHMARKS[int(np.argmax(drop / full))] for name, drop in drops.items()}
    holds = largest == claimed and min(drops["UMS"]) > 0
    costs = "; ".join(f"{name}: " + ", ".join(f"{k} {v:.1f}" for k, v in on[name].items()) for name in on)
    return Finding(
        Verdict.EXACT if holds else Verdict.FAILS,
        f"points lost without a component. {costs}. UMS costs {min(drops['UMS']):.1f} to {max(drops['UMS']):.1f} "
        f"on every benchmark. By another reading, the benchmark that suffers most without GC is {in_points['GC']} in "
        f"points and {relative['GC']} relative to the full method; without DRA {in_points['DRA']} and "
        f"{relative['DRA']}",
        {f"{name.lower()}_{k.lower()}": v for k, costs in on.items() for name, v in costs.items()}
        | {f"range_{name.lower()}": value for name, value in spread.items()},
        None if holds else f"largest: {largest}; UMS costs at least {min(drops['UMS']):.1f}",
    )


@claim(
    "T5",
    "Pass@32 is the unbiased estimate of Chen et al., averaged over three runs",
    "5.1",
    Verdict.EXACT,
    regime="the estimator by enumeration; Table 1 only shows what follows for n",
)
def pass_at_32_grid() -> Finding:
    """Check that the estimator is unbiased and that Table 1 can be its values; find what these say of n.

    With n = 32 the estimate is 0 or 1 a problem, so AIME's three-run mean (30 problems) is a multiple of 1/90. With more
    samples it is not.
    """
    p, n = np.linspace(0.0, 1.0, 101)[:, None], 64
    correct = np.arange(n + 1)
    chance = binom.pmf(correct, n, p)
    error = float(
        np.abs(chance @ passk.pass_at_k(np.full(n + 1, n), correct, 32) - passk.exact_pass_at_k(p[:, 0], 32)).max()
    )
    values = {
        f"{model}, {name}, {BENCHMARKS[column]}": row[1][column]
        for model, methods in TABLE_1.items()
        for name, row in methods.items()
        for column in (0, 1)
    }
    grid = np.round(100 * np.arange(91) / 90, 1)
    off_grid = {cell: value for cell, value in values.items() if np.min(np.abs(grid - value)) > LEVEL}
    by_chance = len(values) * len(np.unique(grid)) / 1001
    # The estimate of pass@32 is never below that of pass@1.
    below = [
        f"{model}, {name}: pass@32 {many} below pass@1 {one} on {benchmark}"
        for model, methods in TABLE_1.items()
        for name, row in methods.items()
        for one, many, benchmark in zip(row[0], row[1], BENCHMARKS, strict=True)
        if many < one
    ]
    impossible = Verdict.FAILS if below else Verdict.EXACT
    return Finding(
        impossible if error < ROUNDING else Verdict.UNDECIDED,
        f"the estimator is unbiased (to {error:.0e}, n = {n}), and the tables agree with it. It follows that more than "
        f"32 samples a problem were drawn: with n = 32 each of the {len(values)} AIME values would be a multiple of "
        f"1/90, and {len(values) - len(off_grid)} are ({by_chance:.1f} expected by chance). The paper does not state n",
        {"error": error, "values": len(values), "off_grid": len(off_grid), "by_chance": by_chance},
        below[0] if below else None,
    )


@claim(
    "T6",
    "Removing individual components degrades average performance",
    "5.3.1, Table 2",
    Verdict.EXACT,
    regime=_TABLE_2,
)
def single_removals() -> Finding:
    """Count the averages and the benchmarks that fall with one component removed, with two, and with all."""
    drops = _drops()
    groups = {
        "single": ("GC", "UMS", "DRA"), "double": ("GC & DRA", "GC & UMS", "UMS & DRA"), "all": ("ALL",)
    }  # fmt: skip
    averages = {name: float(drop.mean()) for name, drop in drops.items()}
    lost = {group: sum(int(np.sum(drops[name] > LEVEL)) for name in names) for group, names in groups.items()}
    single, double = ([averages[name] for name in groups[group]] for group in ("single", "double"))
    least, where = min((float(drops[name].min()), name) for name in groups["single"])
    holds = min(single) > 0
    further = sum(
        int(np.sum(drops[pair] < drops[one] - LEVEL)) for pair in groups["double"] for one in pair.split(" & ")
    )
    return Finding(
        Verdict.EXACT if holds else Verdict.FAILS,
        f"the average falls by {min(single):.2f} to {max(single):.2f} points without one component, {min(double):.2f} to "
        f"{max(double):.2f} without two, {averages['ALL']:.2f} without all three. Single benchmarks "
        f"fall in {lost['single']} of 18, {lost['double']} of 18 and {lost['all']} of 6 cells; the least drop for one "
        f"component is {least:.1f} ({where}). In {further} of 36 cells a second removal gives points back. The table "
        f"has no intervals to compare these drops with",
        {
            **{f"average_{name}": value for name, value in averages.items()},
            **{f"benchmarks_{group}": count for group, count in lost.items()},
            "least": least,
            "given_back": further,
        },
        None if holds else f"an average that does not fall: {min(averages, key=averages.__getitem__)}",
    )


def _not_amplified(numbers: dict[str, float], amplified: list[bool]) -> str:
    metric = _METRICS[amplified.index(False)]
    sizes = [[numbers[f"{kind}_{metric}_{size}"] for size in ("1.5B", "7B")] for kind in ("gap", "relative")]
    return (
        f"{metric}: from 1.5B to 7B the gap goes from {sizes[0][0]:.2f} to {sizes[0][1]:.2f} points, and from "
        f"{sizes[1][0]:.1%} to {sizes[1][1]:.1%} of GRPO's average"
    )


@claim(
    "T7",
    "DynaMO consistently outperforms GRPO with widening gaps as scale increases, amplified substantially at 7B",
    "5.5, Table 1",
    Verdict.CONDITIONAL,
    regime=f"average gaps over GRPO at 1.5B and 7B, {_TABLE_1}; 14B has no table, and is not judged",
)
def widening_gaps() -> Finding:
    """Compare the gaps over GRPO, and over the best other method, at both sizes.

    "Substantially" has no number. A gap that widens in points but shrinks relative to GRPO's average does not count.
    """
    numbers: dict[str, float] = {}
    said, above, widens, amplified = [], 0, [], []
    for i, metric in enumerate(_METRICS):
        gaps = []
        for size, methods in zip(("1.5B", "7B"), TABLE_1.values(), strict=True):
            ours, grpo = np.array(methods[_OURS][i]), np.array(methods["GRPO"][i])
            best = max(float(np.mean(row[i])) for name, row in methods.items() if name != _OURS)
            gaps.append(ours - grpo)
            numbers[f"gap_{metric}_{size}"] = float(gaps[-1].mean())
            numbers[f"relative_{metric}_{size}"] = float(gaps[-1].mean() / grpo.mean())
            numbers[f"over_best_{metric}_{size}"] = float(ours.mean() - best)
        small, large = gaps
        wider = numbers[f"wider_{metric}"] = int(np.sum(large > small + LEVEL))
        above += int(np.sum(np.array(gaps) > LEVEL))
        absolute, relative, best_gap = (
            [numbers[f"{kind}_{metric}_{size}"] for size in ("1.5B", "7B")] for kind in ("gap", "relative", "over_best")
        )
        widens.append(absolute[1] > absolute[0])
        amplified.append(absolute[1] > absolute[0] and relative[1] > relative[0])
        said.append(
            f"{metric} {absolute[0]:.2f} and {absolute[1]:.2f} points, {absolute[1] / absolute[0]:.1f} times as much "
            f"({relative[0]:.1%} and {relative[1]:.1%} of GRPO's average), wider on {wider} of {len(BENCHMARKS)} "
            f"benchmarks; over the best baseline {best_gap[0]:.1f} and {best_gap[1]:.1f}"
        )
    cells = len(TABLE_1) * len(_METRICS) * len(BENCHMARKS)
    holds = above == cells and all(widens) and any(amplified)
    larger = [metric for metric, yes in zip(_METRICS, amplified, strict=True) if yes]
    return Finding(
        (Verdict.EXACT if all(amplified) else Verdict.CONDITIONAL) if holds else Verdict.FAILS,
        f"above GRPO in {above} of {cells} cells. Average gap at 1.5B and at 7B: {'. '.join(said)}. Amplified in points and "
        f"relative to GRPO: {' and '.join(larger) or 'neither'}. The table has no intervals to compare these gaps with",
        {**numbers, "above": above},
        (None if all(amplified) else _not_amplified(numbers, amplified))
        if holds
        else "a benchmark not above GRPO, or an average gap that does not widen",
    )
