"""The first screen of the report: five sentences, each with its regime."""

from __future__ import annotations

from paper_figs.findings.evidence import Evidence
from paper_figs.findings.of_ledger import counts_of
from paper_figs.findings.of_training import ends
from paper_figs.findings.registry import Tell
from paper_figs.findings.words import shown, sides
from theory.claims import Author, Verdict


def horizon(e: Evidence) -> str:
    """Compare DynaMO with GRPO early and late."""
    of = {"world": "mixed", "method": "dynamo"}
    early, late = e.gain("table1", "pass_at_1_after_4_visits", **of), e.gain("table1", **of)
    visits, regime = e.visits("table1", **of), e.regime("table1", **of)
    places = sides({f"after 4 visits a prompt ({shown(early)} points)": early, f"after {visits} ({shown(late)})": late})
    return f"In the small world `mixed` DynaMO is, against GRPO, {places.replace(' in ', ' ')} ({regime})."


def variance(e: Evidence) -> str:
    """Give the range of the variance under the paper's allocation."""
    row = e.numbers("A11", Verdict.CONDITIONAL)
    ranges = [
        f"{row[f'least_{name}_grpo_trace']:.2f} to {row[f'most_{name}_grpo_trace']:.2f} with {words}"
        for name, words in (("diffuse", "many diffuse answers"), ("peaked", "peaked ones"), ("binary", "two"))
    ]
    return f"""
        The paper's allocation leaves, of the variance of GRPO's gradient under uniform allocation, {", ".join(ranges)},
        over ten populations of success rates (A11: one-token answers, p known, 8 to 24 rollouts, a mean over prompts).
    """


def objective(e: Evidence) -> str:
    """Say that allocation re-weights."""
    row = e.numbers("A10", Verdict.EXACT)
    return f"""
        Allocation also re-weights prompts: from 8 to 24 rollouts the weight of one with success rate .05 grows
        {row["prompt_mean_grpo"]:.2f} times under a mean over prompts and {row["token_mean_grpo"]:.1f} times under
        a mean over tokens (A10: GRPO, on-policy, equal lengths).
    """


def modulation(e: Evidence) -> str:
    """Give what modulation alone gains."""
    gains = [
        f"{shown(e.gain('learning-rate', world=world, learning_rate='10', method='dynamo-no-dra'))} in `{world}`"
        for world in ("mixed", "skills")
    ]
    return f"""
        The modulation alone gains {" and ".join(gains)} points at the end, which is after
        {ends(e, "learning-rate", learning_rate="10", method="grpo")} (SGD, learning rate 10, 32 seeds).
    """


def ledger(e: Evidence) -> str:
    """Count verdicts."""
    paper = [row for row in e.rows() if row["said_by"] == Author.PAPER.value and not row["by_construction"]]
    return f"""
        Of {len(paper)} claims of the paper that computation can judge, each in a stated regime, the ledger finds
        {counts_of(paper)}.
    """


HEADLINES: tuple[Tell, ...] = (horizon, variance, objective, modulation, ledger)
"""The five sentences."""
