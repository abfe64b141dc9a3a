"""Appendix B: the mean squared norm of the score against entropy, under its bound."""

from __future__ import annotations

import numpy as np

from paper_figs.figure import Drawing, Figure
from paper_figs.result_files import Columns, LedgerData
from paper_figs.style import COLUMN_WIDTH, GUIDE, PALETTE, POINTS, panels
from paper_figs.wording import verdict
from theory.policy import TokenStatistics, score_norm_bound

# Family of the ledger: colour, marker.
FAMILIES = {
    "random": (PALETTE[0], "o"),
    "one large token": (PALETTE[1], "x"),
    "uniform on a subset": (PALETTE[2], "s"),
}


def _draw(policies: Columns) -> Drawing:
    unknown = sorted(set(policies["family"]) - set(FAMILIES))
    if unknown:
        raise ValueError(f"G3: expected families among {', '.join(FAMILIES)}, got {', '.join(unknown)}")
    figure, (ax,) = panels(COLUMN_WIDTH, 2.4)
    entropy = np.linspace(0.0, 1.04 * policies["entropy"].max(), 400)
    zero = np.zeros_like(entropy)
    bound = score_norm_bound(TokenStatistics(zero, entropy, np.exp(-entropy), zero))
    ax.plot(entropy, bound, color=GUIDE, linewidth=1.0, zorder=1, label="bound $1 - e^{-H}$ (33)")
    for family, (color, marker) in FAMILIES.items():
        rows = policies["family"] == family
        entropies, norms = policies["entropy"][rows], policies["expected"][rows]
        ax.plot(entropies, norms, marker=marker, color=color, label=family, **POINTS)
    for num_tokens in np.unique(policies["num_tokens"]):
        ax.plot(2 * [np.log(num_tokens)], [1 - 1 / num_tokens, 1.02], color=GUIDE, linewidth=0.5, linestyle=":")
        ax.text(
            np.log(num_tokens), 1.01, f"$\\ln\\,${num_tokens:,}", transform=ax.get_xaxis_transform(), ha="center",
            va="bottom", fontsize=7, color=GUIDE,
        )  # fmt: skip
    ax.set(
        xlabel="entropy $H$ (nats)",
        ylabel="$\\mathbb{E}_\\pi\\,\\|\\nabla_z \\log \\pi\\|^2$",
        xlim=(-0.02 * entropy[-1], entropy[-1]),
        ylim=(-0.02, 1.02),
    )
    ax.legend(loc="lower right")
    return figure


def _caption(policies: Columns) -> str:
    sizes = ", ".join(f"{num_tokens:,}" for num_tokens in np.unique(policies["num_tokens"]))
    return (
        f"Mean squared norm of the score of {len(policies['entropy'])} softmax policies over V = {sizes} tokens "
        f"(ledger row G3, exact) and the entropy bound, which is tight where a policy is uniform on a subset of tokens."
    )


def _reading(policies: Columns) -> str:
    slack = policies["bound"] - policies["expected"]
    below = slack >= -1e-12
    return (
        f"The mean squared norm of the score is up to {slack.max():.2f} below the bound, and meets it (to 1e-9) for "
        f"{int((np.abs(slack) < 1e-9).sum())} of {len(slack)} policies. "
        + verdict("entropy bounds the norm", below.tolist(), "policies")
    )


FIGURE = Figure(
    name="score_norm",
    title="Score norm and its entropy bound",
    inputs=(LedgerData("G3", ("num_tokens", "entropy", "expected", "bound"), ("family",)),),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
