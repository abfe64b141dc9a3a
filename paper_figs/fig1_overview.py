"""Figure 1: how DynaMO works, drawn from its formulas."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from paper_figs.figure import Drawing, Figure
from paper_figs.style import GUIDE, PALETTE, TEXT_WIDTH
from theory import allocation
from theory.losses import Modulation, Scope, modulation

SUCCESSES = (0, 1, 2, 4, 6, 8, 10, 12, 13, 15, 16)
"""Correct ones of 16 rollouts each: the history of the prompts whose allocation is drawn."""

ATTEMPTS, MEAN, LOW, HIGH = 16, 16, 8, 24
"""Table 3 of the paper: 16 rollouts on average, 8 to 24 for a prompt."""

SEQUENCE, TOKEN = PALETTE[0], PALETTE[1]


class Box(NamedTuple):
    """A step: centre, width and what it says, in the diagram's own units (100 by 34)."""

    x: float
    y: float
    width: float
    text: str
    color: str


HEIGHT = 9.0
ARROW = {"arrowstyle": "-|>", "linewidth": 0.9, "color": GUIDE, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7}
BOXES = {
    "history": Box(12.5, 23, 21, "history of each prompt\n$k$ correct of $G$", SEQUENCE),
    "proxy": Box(37.5, 23, 21, "variance of its reward\n$P = k\\,(G-k)\\,/\\,(G\\,(G-1))$", SEQUENCE),
    "level": Box(
        62.5, 23, 21, "water level: $n_i \\propto P_i$\nin $[n_{low}, n_{high}]$, $\\Sigma\\, n_i = B$", SEQUENCE
    ),
    "rollouts": Box(87.5, 23, 21, "$n_i$ rollouts of prompt $i$\nrewards 0 or 1", GUIDE),
    "advantage": Box(87.5, 6, 21, "group advantage\n$A = (R - \\bar R)\\,/\\,\\mathrm{std}$", GUIDE),
    "compensation": Box(62.5, 6, 21, "compensation $\\beta_{comp}$\nby entropy, where $A > 0$", TOKEN),
    "stabilization": Box(37.5, 6, 21, "stabilization $\\beta_{stab}$\nby entropy change $\\Xi$", TOKEN),
    "update": Box(12.5, 6, 21, "clipped policy gradient\nwith $A\\,\\beta_{comp}\\,\\beta_{stab}$", GUIDE),
}  # fmt: skip


def _draw() -> Drawing:
    figure = Drawing(figsize=(TEXT_WIDTH, 4.1))
    above, below = np.atleast_1d(np.asarray(figure.subfigures(2, 1, height_ratios=(1.25, 1))))
    _diagram(above.subplots())
    left, middle, right = below.subplots(1, 3)
    _allocation(left)
    _compensation(middle)
    _stabilization(right)
    for letter, ax in zip("abc", (left, middle, right), strict=True):
        ax.set_title(f"({letter})", loc="left", fontweight="bold", pad=4)
    return figure


def _diagram(ax: Axes) -> None:
    ax.set(xlim=(-4.5, 100), ylim=(0, 35))
    ax.axis("off")
    for middle, color, level in (
        (23, SEQUENCE, "sequence level:\nhow to allocate"),
        (6, TOKEN, "token level:\nhow to learn"),
    ):
        band = FancyBboxPatch((0.5, middle - 6), 99, 12, boxstyle="round,pad=0,rounding_size=1.2", linewidth=0)
        band.set(facecolor=color, alpha=0.10)
        ax.add_patch(band)
        ax.text(-2.2, middle, level, color=GUIDE, fontsize=7.5, rotation=90, ha="center", va="center", linespacing=1.3)
    for box in BOXES.values():
        corner = (box.x - box.width / 2, box.y - HEIGHT / 2)
        patch = FancyBboxPatch(corner, box.width, HEIGHT, boxstyle="round,pad=0,rounding_size=1.0")
        patch.set(facecolor="white", edgecolor=box.color, linewidth=1.0)
        ax.add_patch(patch)
        ax.text(box.x, box.y, box.text, ha="center", va="center", fontsize=7.5, linespacing=1.4)
    names = list(BOXES)
    for name, following in zip(names, (*names[1:], names[0]), strict=True):
        _arrow(ax, BOXES[name], BOXES[following])
    first, last = BOXES["rollouts"], BOXES["history"]
    top = first.y + HEIGHT / 2
    ax.plot([first.x, first.x, last.x], [top, top + 4.5, top + 4.5], color=GUIDE, linewidth=0.9)
    ax.annotate("", (last.x, top), (last.x, top + 4.5), arrowprops=ARROW)
    notes = ((50.0, top + 5.2, "adds $k_i$ correct of $n_i$", "center"), (89.0, 14.5, "rewards", "left"))
    for x, y, text, side in (*notes, (14.0, 14.5, "next step", "left")):
        ax.text(x, y, text, fontsize=7, ha=side, va="bottom" if side == "center" else "center", color=GUIDE)


def _arrow(ax: Axes, first: Box, second: Box) -> None:
    """Draw an arrow between neighbours in a row, or between the two rows."""
    if first.y == second.y:
        side = 1 if second.x > first.x else -1
        start, end = (first.x + side * first.width / 2, first.y), (second.x - side * second.width / 2, second.y)
    else:
        side = 1 if second.y > first.y else -1
        start, end = (first.x, first.y + side * HEIGHT / 2), (second.x, second.y - side * HEIGHT / 2)
    ax.annotate("", end, start, arrowprops=ARROW)


def _allocation(ax: Axes) -> None:
    successes, attempts = np.array(SUCCESSES), np.full(len(SUCCESSES), ATTEMPTS)
    weights = allocation.bernoulli_variance(successes, attempts)
    counts = allocation.water_level(weights, MEAN * len(successes), LOW, HIGH)
    ax.bar(range(len(counts)), counts, color=SEQUENCE, width=0.7)
    for bound in (LOW, HIGH):
        ax.axhline(bound, color=GUIDE, linewidth=0.8, linestyle=":")
    ax.set_xticks(range(len(counts)), [str(k) for k in SUCCESSES], fontsize=6.5)
    ax.set_yticks([0, LOW, MEAN, HIGH])
    ax.set(xlabel=f"$k$ of $G = {ATTEMPTS}$", ylabel="rollouts $n_i$")


def _compensation(ax: Axes) -> None:
    setting, scope = Modulation(), Scope(0.0, 1.0, 1.0)
    entropy = np.linspace(0, 1, 101)
    for sign, line, label in ((1, "-", "$A > 0$"), (-1, "--", "$A < 0$")):
        factor = modulation.compensation(entropy, np.full(101, float(sign)), setting.alpha, scope)
        ax.plot(entropy, factor, color=TOKEN, linestyle=line, label=label)
    ax.set_xticks([0, 1], ["$H_{min}$", "$H_{max}$"])
    ax.set_yticks([1, 1 + setting.alpha], ["1", "$1 + \\alpha$"])
    ax.set(xlabel="entropy of the token", ylabel="$\\beta_{comp}$")
    ax.legend(loc="upper right")


def _stabilization(ax: Axes) -> None:
    setting, scope = Modulation(), Scope(0.0, 1.0, 1.0)
    change = np.linspace(0, 1, 401)
    factor = modulation.stabilization(change, setting.alpha, setting.sharpness, setting.threshold, scope)
    ax.plot(change, factor, color=TOKEN)
    ax.axvline(setting.threshold, color=GUIDE, linewidth=0.8, linestyle=":")
    ax.set_xticks([0, setting.threshold], ["0", "$\\tau$"])
    ax.set_yticks([1 - setting.alpha, 1], ["$1 - \\alpha$", "1"])
    ax.set(xlabel="$\\Xi\\,/\\,\\max\\,\\Xi$ of the token", ylabel="$\\beta_{stab}$")


def _caption() -> str:
    setting = Modulation()
    return (
        f"A training step of DynaMO; no data, no seeds, no interval: curves are the formulas of this package at its "
        "defaults (alpha and the threshold are not the paper's, whose text has lost them). (a) Rollouts by the water "
        "level for a history of "
        f"{ATTEMPTS} rollouts, {MEAN} on average within [{LOW}, {HIGH}] (dotted); (b) compensation (8, 9); "
        f"(c) stabilization (12, 13); alpha {setting.alpha:g}, "
        f"sharpness {setting.sharpness:g}, threshold {setting.threshold:g}."
    )


def _reading() -> str:
    return (
        "Rollouts go to prompts that are sometimes solved and sometimes not, and each token's advantage is raised "
        "where the policy is certain and right, and lowered where its entropy changes most. It explains the method "
        "and tests no statement of the paper."
    )


FIGURE = Figure(
    name="fig1_overview",
    title="Figure 1: overview of DynaMO",
    inputs=(),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
