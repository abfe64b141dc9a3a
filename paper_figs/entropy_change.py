"""Theorem 1 at work: the entropy change of one sampled update, and the order of what the theorem leaves out."""

from __future__ import annotations

import numpy as np

from paper_figs.figure import Drawing, Figure
from paper_figs.result_files import Columns, LedgerData
from paper_figs.style import GUIDE, PALETTE, POINTS, TEXT_WIDTH, legend_above, panels
from paper_figs.wording import verdict
from theory.base.arrays import FloatArray

# Above it, orders beyond the second bend some curves; the ledger fits the same range.
FIT_UP_TO = 1e-2


def remainder(sweep: Columns) -> list[tuple[FloatArray, FloatArray]]:
    """Return learning rates and errors |exact - first order| of every policy, where the error is not 0."""
    error = np.abs(sweep["exact"] - sweep["first_order"])
    chosen = [(sweep["policy"] == policy) & (error > 0) for policy in np.unique(sweep["policy"])]
    return [(sweep["learning_rate"][rows], error[rows]) for rows in chosen]


def fitted_slope(sweep: Columns) -> float:
    """Return the median over policies of the least-squares slope of log error in log learning rate."""
    slopes = []
    for rate, error in remainder(sweep):
        small = rate <= FIT_UP_TO
        x, y = np.log(rate[small]), np.log(error[small])
        if len(x) > 1:
            slopes.append(np.polyfit(x, y, 1)[0])
    if not slopes:
        raise ValueError(f"S4: expected a policy with two errors at learning rates up to {FIT_UP_TO}, got none")
    return float(np.median(slopes))


def _draw(updates: Columns, sweep: Columns) -> Drawing:
    figure, (left, right) = panels(TEXT_WIDTH, 2.6, 1, 2)

    series = (
        ("two factors", "two_factor", PALETTE[1], "x"),
        ("first order (27)", "first_order", PALETTE[0], "o"),
    )
    for label, column, color, marker in series:
        left.plot(updates["exact"], updates[column], marker=marker, color=color, label=label, **POINTS)
    left.axline((0.0, 0.0), slope=1.0, color=GUIDE, linewidth=0.8, zorder=0, label="identity")
    left.set(xlabel="exact $\\Delta H$ (nats)", ylabel="predicted $\\Delta H$ (nats)")
    legend_above(left, 3)

    curves = remainder(sweep)
    for rate, error in curves:
        right.loglog(rate, error, color=PALETTE[0], linewidth=0.6, alpha=0.5)
    label = f"{len(curves)} policies, slope {fitted_slope(sweep):.2f}"
    right.plot([], [], color=PALETTE[0], linewidth=0.6, label=label)
    rates = np.unique(sweep["learning_rate"])
    top = max(float((error / rate**2).max()) for rate, error in curves)
    right.plot(rates, 3 * top * rates**2, color=GUIDE, linestyle="--", linewidth=1.0, label="slope 2")
    right.set(xlabel="learning rate $\\eta$ of the logits", ylabel="$|$exact $-$ first order$|$ (nats)")
    legend_above(right, 2)
    return figure


def _caption(updates: Columns, sweep: Columns) -> str:
    return (
        "Entropy change of single sampled updates of softmax policies, exact values (ledger rows S3 and S4): (a) "
        f"{len(updates['exact']):,} updates, predicted to first order (27) and by the two factors xi and pi(a) "
        f"Lambda(a) alone, without the expectation that (28) drops for whole groups; (b) what the first order leaves "
        f"out, for {len(remainder(sweep))} policies, median slope {fitted_slope(sweep):.2f} for learning rates up to "
        f"{FIT_UP_TO}."
    )


def explained(updates: Columns, column: str) -> float:
    """Return the share of the variance of the exact changes that a linear fit of a prediction explains."""
    return float(np.corrcoef(updates["exact"], updates[column])[0, 1] ** 2)


def _reading(updates: Columns, sweep: Columns) -> str:
    first, two = (explained(updates, column) for column in ("first_order", "two_factor"))
    slope = fitted_slope(sweep)
    return (
        f"The first order explains {100 * first:.1f} % of the variance of exact entropy changes, the factors xi and "
        f"pi Lambda alone {100 * two:.0f} %; what it leaves out falls with slope {slope:.2f}. "
        + verdict(
            "the change factorizes to first order, up to a remainder of second order",
            [abs(slope - 2) < 0.05],
            "fits",
        )
    )


FIGURE = Figure(
    name="entropy_change",
    title="Factorized entropy change and its error",
    inputs=(
        LedgerData("S3", ("exact", "first_order", "two_factor")),
        LedgerData("S4", ("policy", "learning_rate", "exact", "first_order")),
    ),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
