"""A finding: sentences that are computed from evidence, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paper_figs.findings.evidence import Evidence

Tell = Callable[[Evidence], str]

COMMANDS = {
    f"{folder}/table1": f"python -m toy sweep {sweep} && "
    f"python -m toy sweep table1 --tuned results/toy/{sweep}/chosen.json --out results/toy/{folder}"
    for folder, sweep in (("tuned", "tuning"), ("norm-matched", "norms"))
}
"""Commands that make sweeps with options, by their folder below `results/toy`."""


@dataclass(frozen=True)
class Finding:
    """A finding.

    Attributes
    ----------
    name, title : Its name in a page's mark, and a title that says what is compared but not how it ends.
    sweeps : The sweeps whose summaries it reads; one that reads none reads the ledger.
    tell : Returns its sentences, in Markdown; line breaks are spaces.
    """

    name: str
    title: str
    sweeps: tuple[str, ...]
    tell: Tell

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that make its evidence."""
        return tuple(COMMANDS.get(sweep, f"python -m toy sweep {sweep}") for sweep in self.sweeps) or (
            "python -m theory --json results/ledger/ledger.json",
        )

    def markdown(self, evidence: Evidence) -> str:
        """Return the finding as a line of Markdown."""
        return " ".join(f"**{self.title}.** {self.tell(evidence)}".split())


FINDINGS: dict[str, Finding] = {}
"""Every finding by name."""


def finding(name: str, title: str, *sweeps: str) -> Callable[[Tell], Tell]:
    """Register a function of evidence as a finding."""

    def register(tell: Tell) -> Tell:
        FINDINGS[name] = Finding(name, title, sweeps, tell)
        return tell

    return register
