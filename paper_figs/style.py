"""One look for all figures: print sizes, fonts, and a fixed colour, line and marker per method.

Colours are safe for colour-blind readers. Lines and markers alone distinguish the methods: a copy in grey is legible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.result_files import Curves
from theory.base.tables import Estimate
from theory.statistics import Interval, paired_gain

# Inches, of the ACL style: one column, and the two columns together.
COLUMN_WIDTH = 3.03
TEXT_WIDTH = 6.30

PALETTE: tuple[str, ...] = tuple(sns.color_palette("colorblind").as_hex())
GUIDE = "0.25"
"""Grey of reference lines and their labels."""

RC: dict[Any, Any] = {
    **sns.axes_style("ticks"),
    # Times, as the text around the figure; both fonts come with matplotlib, so that every machine draws the same.
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 8.0,
    "axes.labelsize": 8.0,
    "axes.titlesize": 8.0,
    "legend.fontsize": 7.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.handletextpad": 0.4,
    "legend.borderaxespad": 0.2,
    "figure.dpi": 100.0,
    "savefig.dpi": 300.0,
    "figure.constrained_layout.use": True,
    # Fonts inside the file, as TrueType (a journal's check) or as outlines; ids in the SVG without a random salt.
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "paper_figs",
}
"""matplotlib's parameters while a figure is drawn and saved."""


POINTS: dict[str, Any] = {
    "linestyle": "none", "markersize": 2.5, "markerfacecolor": "none", "markeredgewidth": 0.6,
}  # fmt: skip
"""Look of a cloud of points, hollow so that points behind others show."""


class MethodStyle(NamedTuple):
    """How a method looks in every figure."""

    color: str
    linestyle: str | tuple[int, tuple[float, ...]]
    marker: str


METHODS: dict[str, MethodStyle] = {
    "grpo": MethodStyle(PALETTE[1], "--", "s"),
    "clip-higher": MethodStyle(PALETTE[2], "-.", "^"),
    "entropy-loss": MethodStyle(PALETTE[4], ":", "v"),
    "fork-tokens": MethodStyle(PALETTE[5], (0, (5, 1, 1, 1, 1, 1)), "D"),
    "entropy-advantages": MethodStyle(PALETTE[3], (0, (7, 2)), "P"),
    "clip-cov": MethodStyle(PALETTE[9], (0, (2, 1)), "<"),
    "kl-cov": MethodStyle(PALETTE[6], (0, (1, 2)), ">"),
    "w-reinforce": MethodStyle(PALETTE[7], (0, (4, 1, 1, 1)), "X"),
    "dynamo": MethodStyle(PALETTE[0], "-", "o"),
}
"""Look of the methods by their names in `theory.methods.METHODS`, which has their titles."""


SERIES: dict[str, dict[str, Any]] = {
    "pass_at_1": {"label": "pass@1, end", "color": PALETTE[0], "marker": "o", "linestyle": "-"},
    "pass_at_1_mean": {"label": "pass@1, mean", "color": PALETTE[2], "marker": "^", "linestyle": "--"},
    "pass_at_32": {"label": "pass@32, end", "color": PALETTE[3], "marker": "D", "linestyle": ":"},
}
"""Look of the measures, where a figure draws several."""


def panels(
    width: float, height: float, num_rows: int = 1, num_columns: int = 1, used: int | None = None, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure of the given size in inches and its axes row by row; more than one are lettered (a), (b), ...

    The axes after the first `used` are not shown.
    """
    figure = Figure(figsize=(width, height))
    axes = list(figure.subplots(num_rows, num_columns, squeeze=False, **options).flat)
    if len(axes) > 1:
        for letter, ax in zip("abcdefghijkl", axes, strict=False):
            ax.set_title(f"({letter})", loc="left", fontweight="bold", pad=4)
    for ax in axes[used or len(axes) :]:
        ax.set_visible(False)
    return figure, axes[:used]


def legend_above(ax: Axes, num_columns: int, **options: Any) -> None:
    """Put the legend above the axes, where it cannot hide data."""
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=num_columns, columnspacing=0.8, **options)


def plot_estimates(ax: Axes, x: Sequence[float], estimates: Sequence[Estimate | Interval], **look: Any) -> None:
    """Draw estimates over x as a line with markers, and their intervals as bars where they have one."""
    values, low, high = np.array([x[:3] for x in estimates], dtype=np.float64).reshape(-1, 3).T
    ends = np.nan_to_num(np.stack([values - low, high - values]))
    label, color = look.pop("label", None), look["color"]
    ax.errorbar(x, values, yerr=ends, fmt="none", ecolor=color, elinewidth=0.8, capsize=1.5, capthick=0.8)
    ax.plot(x, values, label=label, **look)


def plot_band(ax: Axes, curves: Curves, method: str, label: str) -> None:
    """Draw the aggregate over seeds at every step; with two seeds or more, the interval of each step as a band."""
    look = METHODS[method]
    middle, low, high = paired_gain(curves.values)
    if len(curves.values) > 1:
        ax.fill_between(curves.steps, low, high, color=look.color, alpha=0.25, linewidth=0)
    # Every so many steps, not by length of the line: a noisy curve would have its markers in heaps.
    ax.plot(curves.steps, middle, **look._asdict(), markevery=max(1, len(middle) // 8), label=label)


def zero_line(ax: Axes) -> None:
    """Draw the line of no difference."""
    ax.axhline(0.0, color=GUIDE, linewidth=0.8, linestyle=":", zorder=0)
