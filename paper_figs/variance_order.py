"""Section 4.2.2: where p(1-p) puts prompts in the order of their gradient variance, and where it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from paper_figs.figure import Drawing, Figure
from paper_figs.result_files import Columns, LedgerData
from paper_figs.style import GUIDE, PALETTE, TEXT_WIDTH, panels
from paper_figs.wording import span
from theory.base.text import as_drawn

LOOKS = (("-", "o"), ("--", "s"), (":", "D"), ("-.", "^"), ((0, (1, 2)), "v"))
SHOWN = "rloo"
"""Estimator whose curves are drawn next to the map: unbiased, without a baseline's or a normaliser's own effect."""

ORDERED = 0.9
"""Rank correlation from which an order counts as kept."""

TITLES = {"reinforce": "REINFORCE", "rloo": "RLOO", "dr_grpo": "Dr.GRPO", "grpo": "GRPO", "maxrl": "MaxRL"}


def correlations(variances: Columns) -> tuple[list[str], list[str], np.ndarray]:
    """Return populations, estimators and the rank correlation of p(1-p) with the variance, [populations, estimators].

    Numbers are rounded, so that p and 1 - p tie where they should.
    """
    populations = list(dict.fromkeys(variances["population"]))
    estimators = list(dict.fromkeys(variances["estimator"]))
    table = np.full((len(populations), len(estimators)), np.nan)
    for i, population in enumerate(populations):
        for j, estimator in enumerate(estimators):
            rows = (variances["population"] == population) & (variances["estimator"] == estimator)
            if rows.sum() < 3:
                raise ValueError(f"A7: expected three prompts or more of {population}, {estimator}, got {rows.sum()}")
            proxy, variance = np.round(variances["proxy"][rows], 12), np.round(variances["variance"][rows], 14)
            table[i, j] = stats.spearmanr(proxy, variance).statistic
    return populations, estimators, table


def _draw(variances: Columns) -> Drawing:
    populations, estimators, table = correlations(variances)
    if len(populations) > len(LOOKS):
        raise ValueError(f"A7: expected at most {len(LOOKS)} populations, got {len(populations)}")
    figure, (left, right) = panels(TEXT_WIDTH, 2.5, 1, 2)
    shown = SHOWN if SHOWN in estimators else estimators[0]
    rows = (variances["population"] == populations[0]) & (variances["estimator"] == shown)
    proxy = variances["proxy"][rows]
    left.plot(variances["p"][rows], proxy / proxy.max(), color=GUIDE, linewidth=0.9, zorder=0, label="$p(1-p)$")
    for population, color, (line, marker) in zip(populations, PALETTE, LOOKS, strict=False):
        rows = (variances["population"] == population) & (variances["estimator"] == shown)
        p, variance = variances["p"][rows], variances["variance"][rows]
        look: dict[str, Any] = {"color": color, "linestyle": line, "marker": marker, "markevery": 0.125}
        left.plot(p, variance / variance.max(), label=as_drawn(population), **look)
    left.set(xlabel="success probability $p$", ylabel=f"variance / its largest ({_title(shown)})", ylim=(0, 1.03))
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, columnspacing=0.8, handlelength=1.8)
    # From light to dark, so that the map in grey has the same order.
    right.pcolormesh(table, cmap="Blues", vmin=-1, vmax=1, edgecolors="white", linewidth=1.0)
    for (i, j), value in np.ndenumerate(table):
        text = f"{value:+.2f}".replace("-", "−")
        right.text(j + 0.5, i + 0.5, text, ha="center", va="center", color="white" if value > 0.3 else "black")
    right.set_xticks(np.arange(len(estimators)) + 0.5, [_title(name) for name in estimators])
    right.set_yticks(np.arange(len(populations)) + 0.5, [as_drawn(name) for name in populations])
    right.tick_params(length=0)
    right.spines[["left", "bottom"]].set_visible(False)
    return figure


def _title(estimator: str) -> str:
    return TITLES.get(estimator, as_drawn(estimator))


def _caption(variances: Columns) -> str:
    populations, estimators, _ = correlations(variances)
    num_prompts = len(np.unique(variances["p"]))
    return (
        "(a) Exact trace variance of a prompt's group gradient over its success probability, beside p(1-p), each over "
        f"its largest value; (b) rank correlation of p(1-p) with the variance for {len(estimators)} estimators and "
        f"{len(populations)} populations of answers, {num_prompts} prompts each (ledger row A7, exact moments, n = 16)."
    )


def _reading(variances: Columns) -> str:
    populations, estimators, table = correlations(variances)
    parts = [f"{population} {span(row.tolist())}" for population, row in zip(populations, table, strict=True)]
    kept = [f"{_title(estimators[j])} with {populations[i]} answers" for i, j in np.argwhere(table >= ORDERED).tolist()]
    return (
        f"Rank correlation of p(1-p) with the exact variance, over estimators: {'; '.join(parts)}. The paper says that "
        f"p(1-p) stands for the variance of a prompt; its order is kept (a correlation of {ORDERED:g} or more) for "
        f"{', '.join(kept) or 'none of them'}. Answers are of one token: longer ones bring their length into the order."
    )


FIGURE = Figure(
    name="variance_order",
    title="Where p(1-p) orders gradient variance",
    inputs=(LedgerData("A7", ("p", "proxy", "variance"), ("population", "estimator")),),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
