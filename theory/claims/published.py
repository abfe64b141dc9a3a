"""The paper's statements about its own tables, checked by arithmetic on the published numbers (rows T1 to T5).

Nothing here is a measurement of ours; the numbers are those of Tables 1 and 2 and the README, copied as facts.
"""

from __future__ import annotations

import numpy as np

from theory.claims.ledger import Finding, Verdict, claim

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


@claim("T1", "DynaMO consistently outperforms all baseline methods", "5.2, Table 1", Verdict.CONDITIONAL)
def consistently_best() -> Finding:
    """Count the cells of Table 1 in which another method is above DynaMO."""
    leads, averages = {}, []
    for model, methods in TABLE_1.items():
        ours, others = methods[_OURS], {name: row for name, row in methods.items() if name != _OURS}
        for i, metric in enumerate(("pass@1", "pass@32")):
            averages.append(ours[2][i] - max(row[2][i] for row in others.values()))
            for column, benchmark in enumerate(BENCHMARKS):
                best, name = max(((row[i][column], name) for name, row in others.items()), key=lambda cell: cell[0])
                cell = f"{model}, {benchmark} {metric}: {ours[i][column]} against {best} of {name}"
                leads[cell] = ours[i][column] - best
    beaten = [cell for cell, lead in leads.items() if lead < 0]
    on_average = Verdict.CONDITIONAL if min(averages) > 0 else Verdict.FAILS
    return Finding(
        on_average if beaten else Verdict.EXACT,
        f"true of all {len(averages)} averages, by {min(averages):.1f} to {max(averages):.1f} points; false in "
        f"{len(beaten)} of {len(leads)} cells",
        {"cells": len(leads), "beaten": len(beaten), "least_average_lead": min(averages)},
        min(beaten, key=leads.__getitem__, default=None),
    )


@claim("T2", "The averages of Tables 1 and 2 are the means of their columns", "Tables 1, 2", Verdict.EXACT)
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
    wrong = [name for name, error in errors.items() if error > 0.05 + 1e-9]
    return Finding(
        Verdict.FAILS if wrong else Verdict.EXACT,
        f"{len(errors) - len(wrong)} of {len(errors)} averages agree to rounding; largest error "
        f"{errors[worst]:.3f} ({worst})",
        {"averages": len(errors), "wrong": len(wrong), "error": float(errors[worst])},
        f"{wrong[0]}: off by {errors[wrong[0]]:.3f}" if wrong else None,
    )


@claim(
    "T3",
    "Removing GC and UMS costs more than the sum of removing each (synergy)",
    "5.3.1, Table 2",
    Verdict.CONDITIONAL,
)
def synergy() -> Finding:
    """Compare each pair of removals with the sum of the two, on the averages and per benchmark."""
    full_row, full = TABLE_2[_OURS]
    excess, cells = {}, {}
    for pair in ("GC & UMS", "GC & DRA", "UMS & DRA"):
        row, average = TABLE_2[pair]
        first, second = (TABLE_2[name] for name in pair.split(" & "))
        excess[pair] = (full - average) - (full - first[1]) - (full - second[1])
        joint = np.subtract(full_row, row)
        separate = np.subtract(full_row, first[0]) + np.subtract(full_row, second[0])
        cells[pair] = int(np.sum(joint > separate + 1e-9))
    claimed = excess["GC & UMS"] > 0
    everywhere = cells["GC & UMS"] == len(BENCHMARKS)
    return Finding(
        (Verdict.EXACT if everywhere else Verdict.CONDITIONAL) if claimed else Verdict.FAILS,
        f"on the average the pair costs {excess['GC & UMS']:+.1f} points more than the sum (in {cells['GC & UMS']} of "
        f"6 benchmarks); GC & DRA {excess['GC & DRA']:+.1f}, UMS & DRA {excess['UMS & DRA']:+.1f}. Rows are means of "
        f"three runs, without intervals",
        excess,
        None if everywhere else f"{6 - cells['GC & UMS']} benchmarks on which the pair costs no more than the sum",
    )


@claim("T4", "DRA has its largest impact on Minerva, GC on Olympiad", "5.3.1, Table 2", Verdict.CONDITIONAL)
def largest_impacts() -> Finding:
    """Find the benchmark that loses most when one component is removed, in points and relative to the full method."""
    full = np.array(TABLE_2[_OURS][0])
    claimed = {"DRA": "Minerva", "GC": "Olympiad"}
    drops = {name: full - np.array(TABLE_2[name][0]) for name in claimed}
    largest = {name: BENCHMARKS[int(np.argmax(drop))] for name, drop in drops.items()}
    relative = {name: BENCHMARKS[int(np.argmax(drop / full))] for name, drop in drops.items()}
    gc = dict(zip(BENCHMARKS, drops["GC"], strict=True))
    otherwise = Verdict.CONDITIONAL if relative == claimed else Verdict.FAILS
    return Finding(
        Verdict.EXACT if largest == claimed else otherwise,
        f"largest drop in points: DRA {largest['DRA']}, GC {largest['GC']}; relative to the full method: DRA "
        f"{relative['DRA']}, GC {relative['GC']}",
        {"gc_amc23": float(gc["AMC23"]), "gc_olympiad": float(gc["Olympiad"])},
        None
        if largest == claimed
        else f"without GC AMC23 loses {gc['AMC23']:.1f} points, Olympiad {gc['Olympiad']:.1f}",
    )


@claim("T5", "Pass@32 is the unbiased estimate, averaged over three runs", "5.1", Verdict.CONDITIONAL)
def pass_at_32_grid() -> Finding:
    """With n = 32 the unbiased estimate is 0 or 1 a problem, so AIME's three-run mean is a multiple of 1/90.

    Count the printed values of AIME24 and AIME25 (30 problems each) that are one to the printed decimal, and compare
    with what chance gives.
    """
    values = {
        f"{model}, {name}, {BENCHMARKS[column]}": row[1][column]
        for model, methods in TABLE_1.items()
        for name, row in methods.items()
        for column in (0, 1)
    }
    grid = np.round(100 * np.arange(91) / 90, 1)
    off_grid = {cell: value for cell, value in values.items() if np.min(np.abs(grid - value)) > 1e-9}
    by_chance = len(values) * len(np.unique(grid)) / 1001
    first = next(iter(off_grid.items()), None)
    return Finding(
        Verdict.CONDITIONAL if off_grid else Verdict.EXACT,
        f"possible only if more than 32 samples a problem were drawn: with n = 32 each of the {len(values)} AIME "
        f"values would be a multiple of 1/90, and {len(values) - len(off_grid)} are ({by_chance:.1f} expected by "
        f"chance). The paper does not state n",
        {"values": len(values), "off_grid": len(off_grid), "by_chance": by_chance},
        f"{first[0]}: {first[1]} is {first[1] * 0.9:.2f}/90" if first else None,
    )
