"""What was found, as sentences that are computed from the ledger and from summaries of sweeps.

A finding is a function from evidence to sentences. It names its regime; every number, sign and word of comparison in it
is computed. README, docs/ and the report show these sentences and no others. `ARCHIVE` has the results behind those of
README and docs/: the ledger, and the summary of each sweep with the numbers of its seeds.
"""

from paper_figs.findings import of_ledger, of_training
from paper_figs.findings.evidence import Evidence, Missing
from paper_figs.findings.headlines import HEADLINES
from paper_figs.findings.pages import ARCHIVE, render
from paper_figs.findings.registry import FINDINGS, Finding

__all__ = [
    "ARCHIVE", "FINDINGS", "HEADLINES", "Evidence", "Finding", "Missing", "of_ledger", "of_training", "render",
]  # fmt: skip
