"""Findings of the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from paper_figs.findings.evidence import Evidence
from paper_figs.findings.registry import finding
from paper_figs.findings.words import listed
from theory.claims import Author, Verdict

SAID = {
    Verdict.EXACT: "exact",
    Verdict.BOUND: "a bound that holds",
    Verdict.APPROXIMATE: "approximate",
    Verdict.CONDITIONAL: "true under a condition only",
    Verdict.FAILS: "false as said",
    Verdict.UNDECIDED: "undecided",
}
OTHERS = {
    Author.CODE: "of the public code",
    Author.SUMMARY: "of machine-made summaries",
    Author.OURS: "of this project",
}


def counts_of(rows: Sequence[Mapping[str, object]]) -> str:
    """Say how many rows have which verdict."""
    tally = Counter(row["verdict"] for row in rows)
    return listed([f"{tally[verdict.value]} {SAID[verdict]}" for verdict in Verdict if tally[verdict.value]])


@finding("ledger", "The paper's claims, counted")
def ledger(e: Evidence) -> str:
    """Count the verdicts on the claims of the paper, and the rows of others."""
    paper = [row for row in e.rows() if row["said_by"] == Author.PAPER.value]
    judged = [row for row in paper if not row["by_construction"]]
    others = Counter(row["said_by"] for row in e.rows() if row["said_by"] != Author.PAPER.value)
    also = [f"{count} {OTHERS[Author(name)]}" for name, count in others.items()]
    return (
        f"Of {len(judged)} claims of the paper, each judged in a stated regime, the ledger finds {counts_of(judged)}. "
        f"Apart from these there are {listed([f'{len(paper) - len(judged)} that hold by construction', *also])}."
    )
