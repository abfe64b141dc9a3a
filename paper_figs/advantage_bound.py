"""Appendix B with advantages: how far the update norm is above its bound, by length and by share of fillers."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from paper_figs.figure import Drawing, Figure
from paper_figs.result_files import Columns, LedgerData
from paper_figs.style import GUIDE, PALETTE, POINTS, TEXT_WIDTH, legend_above, panels
from paper_figs.wording import span

ROUNDING = 1e-9
# Looks of the vocabularies, which must differ at one success probability.
LOOKS = tuple(
    {**POINTS, "linestyle": line, "marker": marker, "linewidth": 0.9}
    for line, marker in (("-", "o"), ("--", "s"), (":", "D"))
)


def _chosen(chains: Columns) -> Columns:
    """Return the chains with one right token a decision."""
    rows = chains["num_right"] == 1
    return {name: column[rows] for name, column in chains.items()}


def _lines(ax: Axes, chains: Columns, rows: np.ndarray, x: np.ndarray) -> None:
    """Draw the ratio of some chains against `x`, a line for every success probability and vocabulary."""
    for success, color in zip(np.unique(chains["success"]), PALETTE, strict=False):
        ends = []
        for num_tokens, look in zip(np.unique(chains["num_tokens"]), LOOKS, strict=False):
            here = np.flatnonzero(rows & (chains["success"] == success) & (chains["num_tokens"] == num_tokens))
            here = here[np.argsort(x[here])]
            ax.loglog(x[here], chains["ratio"][here], color=color, **look)
            ends.append(chains["ratio"][here[-1]])
        height = float(np.exp(np.mean(np.log(ends))))
        ax.text(1.4 * x[rows].max(), height, f"$p = {success:g}$", va="center", fontsize=7, color=color)
    ax.axhline(1.0, color=GUIDE, linewidth=0.8, zorder=0)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xlim(None, 12 * x[rows].max())


def _draw(chains: Columns) -> Drawing:
    chains = _chosen(chains)
    successes, vocabularies = np.unique(chains["success"]), np.unique(chains["num_tokens"])
    if len(successes) > len(PALETTE) or len(vocabularies) > len(LOOKS):
        limits = f"{len(PALETTE)} success probabilities and {len(LOOKS)} vocabularies"
        raise ValueError(f"G4: expected at most {limits}, got {len(successes)} and {len(vocabularies)}")
    figure, (left, right) = panels(TEXT_WIDTH, 2.6, 1, 2, sharey=True)
    _lines(left, chains, chains["filler_share"] == 0, chains["length"])
    left.set(xlabel="tokens of the response, all deciding", ylabel="$\\mathbb{E}[A^2 \\|s\\|^2]$ / bound (35)")
    longest = chains["length"] == chains["length"].max()
    _lines(right, chains, longest, 1 - chains["filler_share"])
    right.set(xlabel=f"share that decides, of {chains['length'].max():,} tokens")
    handles = [
        Line2D([], [], color=GUIDE, label=f"$V = {num}$", **look)
        for num, look in zip(vocabularies, LOOKS, strict=False)
    ]
    handles.append(Line2D([], [], color=GUIDE, linewidth=0.8, label="bound"))
    legend_above(right, len(handles), handles=handles, handlelength=2.0)
    return figure


def _caption(chains: Columns) -> str:
    chains = _chosen(chains)
    short, long = chains["length"].min(), chains["length"].max()
    return (
        f"Mean squared norm of the advantage-weighted score over its entropy bound E[A^2] (1 - e^-H), for responses "
        f"that succeed with probability p (ledger row G4, exact); the bound is broken above 1. (a) {short:,} to "
        f"{long:,} equal tokens, all of which decide; (b) {long:,} tokens, of which only a share decides and the "
        f"others are fillers with the same policy."
    )


def _reading(chains: Columns) -> str:
    chains = _chosen(chains)
    ratio, length, fillers = (chains[name] for name in ("ratio", "length", "filler_share"))
    long, deciding = length == length.max(), fillers == 0
    short = ratio[(length == length.min()) & deciding]
    over = ratio > 1 + ROUNDING
    broken = np.unique(chains["success"][long & deciding & over])
    where = f"above 1 at p = {', '.join(f'{p:g}' for p in broken)}" if len(broken) else "never above 1"
    # The least share of fillers from which on no long response breaks the bound.
    enough = [share for share in np.unique(fillers) if not (over & long & (fillers >= share)).any()]
    filled = (
        f"the long responses do at every p up to {chains['success'].max():g} if {100 * enough[0]:.0f} % or more of "
        f"their tokens are fillers"
        if enough
        else "not all long responses do, however many of their tokens are fillers"
    )
    return (
        f"The norm over its bound is {span(short.tolist(), '.2f')} for responses of {length.min()} token and "
        f"{span(ratio[long & deciding].tolist(), '.2f')} for {length.max():,} tokens that all decide ({where}). The "
        f"paper says that the dependence between advantage and token is negligible, so that updates stay below the "
        f"bound; here {filled}."
    )


FIGURE = Figure(
    name="advantage_bound",
    title="The bound with advantages, by length of a response and share of fillers",
    inputs=(LedgerData("G4", ("success", "num_tokens", "num_right", "length", "filler_share", "ratio")),),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
