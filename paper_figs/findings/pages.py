"""Pages that quote findings: README, and those of docs/."""

from __future__ import annotations

import re
from pathlib import Path

from paper_figs.findings.evidence import Evidence
from paper_figs.findings.headlines import HEADLINES
from paper_figs.findings.registry import FINDINGS

ARCHIVE = Path(__file__).parent / "archive"
"""The results that README and docs/ quote."""

BLOCK = re.compile(r"(<!-- findings: (.+?) -->\n).*?(<!-- end of findings -->)", re.S)
"""A part of a page that is generated: its first line names the findings."""

WIDTH = 120

ALL_HEADLINES = "headlines"


def items(names: str, evidence: Evidence) -> str:
    """Return a list of findings, by names with spaces between, in lines of up to `WIDTH` characters.

    `headlines` stands for the five sentences of the report's first screen.
    """
    if names == ALL_HEADLINES:
        return "\n".join(_wrapped(" ".join(tell(evidence).split())) for tell in HEADLINES)
    return "\n".join(_wrapped(FINDINGS[name].markdown(evidence)) for name in names.split())


def _wrapped(text: str) -> str:
    """Return an item of a list, broken between words, and not within `code`."""
    lines, line = [], "-"
    for word in re.findall(r"(?:`[^`]*`|[^\s`])+", text):
        if len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = " "
        line += f" {word}"
    return "\n".join([*lines, line])


def render(page: str, evidence: Evidence) -> str:
    """Return a page of Markdown with its parts between marks generated again."""
    named = {name for block in BLOCK.finditer(page) for name in block[2].split()}
    if unknown := sorted(named - {ALL_HEADLINES, *FINDINGS}):
        raise ValueError(f"findings: expected names among {', '.join(FINDINGS)}, got {', '.join(unknown)}")
    return BLOCK.sub(lambda match: f"{match[1]}{items(match[2], evidence)}\n{match[3]}", page)
