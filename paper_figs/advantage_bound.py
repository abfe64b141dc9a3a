"""Appendix B with advantages: how far the update norm is above its bound, as the response gets longer."""

from __future__ import annotations

import numpy as np
from matplotlib.lines import Line2D

from paper_figs.figure import Drawing, Figure
from paper_figs.result_files import Columns, LedgerData
from paper_figs.style import COLUMN_WIDTH, GUIDE, PALETTE, POINTS, legend_above, panels
from paper_figs.wording import span, verdict

# Lines and markers of the vocabularies, which must differ at one success probability.
LOOKS = (("-", "o"), ("--", "s"), (":", "D"))


def _draw(chains: Columns) -> Drawing:
    figure, (ax,) = panels(COLUMN_WIDTH, 2.6)
    successes, vocabularies = np.unique(chains["success"]), np.unique(chains["num_tokens"])
    if len(successes) > len(PALETTE) or len(vocabularies) > len(LOOKS):
        limits = f"{len(PALETTE)} success probabilities and {len(LOOKS)} vocabularies"
        raise ValueError(f"G4: expected at most {limits}, got {len(successes)} and {len(vocabularies)}")
    looks = {
        num_tokens: {**POINTS, "linestyle": line, "marker": marker, "linewidth": 0.9}
        for num_tokens, (line, marker) in zip(vocabularies, LOOKS, strict=False)
    }
    for success, color in zip(successes, PALETTE, strict=False):
        ends = []
        for num_tokens, look in looks.items():
            rows = np.flatnonzero((chains["success"] == success) & (chains["num_tokens"] == num_tokens))
            rows = rows[np.argsort(chains["length"][rows])]
            ax.loglog(chains["length"][rows], chains["ratio"][rows], color=color, **look)
            ends += chains["ratio"][rows][-1:].tolist()
        height = float(np.exp(np.mean(np.log(ends))))
        ax.text(1.4 * chains["length"].max(), height, f"$p = {success:g}$", va="center", fontsize=7, color=color)
    handles = [Line2D([], [], color=GUIDE, label=f"$V = {num}$", **look) for num, look in looks.items()]
    handles.append(ax.axhline(1.0, color=GUIDE, linewidth=0.8, zorder=0, label="bound"))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set(
        xlabel="tokens of the response",
        ylabel="$\\mathbb{E}[A^2 \\|s\\|^2]$ / bound (35)",
        xlim=(None, 6 * chains["length"].max()),
    )
    legend_above(ax, len(handles), handles=handles, handlelength=2.0)
    return figure


def _caption(chains: Columns) -> str:
    return (
        f"Mean squared norm of the advantage-weighted score over its entropy bound E[A^2] (1 - e^-H), for chains of "
        f"{chains['length'].min():,} to {chains['length'].max():,} equal decisions that succeed together with "
        f"probability p (ledger row G4, exact); the bound is broken above 1."
    )


def _reading(chains: Columns) -> str:
    short, long = (chains["ratio"][chains["length"] == end(chains["length"])] for end in (np.min, np.max))
    return (
        f"The norm over its bound is {span(short.tolist(), '.2f')} for responses of {chains['length'].min()} token and "
        f"{span(long.tolist(), '.2f')} for {chains['length'].max():,} tokens. "
        + verdict("advantage-weighted updates stay below the bound", (chains["ratio"] <= 1).tolist(), "chains")
    )


FIGURE = Figure(
    name="advantage_bound",
    title="The bound with advantages, against the length of a response",
    inputs=(LedgerData("G4", ("success", "num_tokens", "length", "ratio")),),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
