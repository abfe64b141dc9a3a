"""Findings in small worlds, from summaries of sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from paper_figs.findings.evidence import Evidence
from paper_figs.findings.registry import finding
from paper_figs.findings.words import listed, shown, signed
from theory.base.tables import Estimate

VISITS = (4, 8, 16, 25, 50)
ACCURACIES = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Where a comparison is shown: after so many visits a prompt, and where its reference first has so much of pass@1."""


def over_visits(e: Evidence, sweep: str, **axes: str) -> dict[int, Estimate]:
    """Return a cell's gain after each number of visits that its run reaches."""
    names = {visits: f"pass_at_1_after_{visits}_visits" for visits in VISITS}
    return {visits: e.gain(sweep, name, **axes) for visits, name in names.items() if e.has(sweep, name, **axes)}


def at_accuracies(e: Evidence, sweep: str, **axes: str) -> dict[float, Estimate]:
    """Return a cell's gain where its reference first has each accuracy, as far as it does."""
    names = {accuracy: f"pass_at_1_at_reference_{accuracy:g}" for accuracy in ACCURACIES}
    return {accuracy: e.gain(sweep, name, **axes) for accuracy, name in names.items() if e.has(sweep, name, **axes)}


def numbers(gains: Mapping[Any, Estimate]) -> str:
    """Return gains without their intervals."""
    return listed([signed(gain.value) for gain in gains.values()])


def visits_of(gains: Mapping[int, Estimate]) -> str:
    """Say how many visits."""
    return f"{listed(list(gains))} visits a prompt"


def turning(gains: Mapping[int, Estimate], reference: Mapping[int, float]) -> str:
    """Say between which visits the sign turns, and what the reference has there."""
    pairs = [(a, b) for a, b in pairwise(gains) if gains[a].sign * gains[b].sign < 0]
    if not pairs:
        return "The sign does not turn"
    return listed(
        [
            f"The sign turns between {a} and {b} visits, while GRPO goes from {reference[a]:.2f} to {reference[b]:.2f}"
            for a, b in pairs
        ]
    )


@finding("horizon", "DynaMO against GRPO", "table1")
def horizon(e: Evidence) -> str:
    """Follow the difference over visits, and at equal accuracy of GRPO, in `mixed`."""
    of = {"world": "mixed", "method": "dynamo"}
    gains, matched = over_visits(e, "table1", **of), at_accuracies(e, "table1", **of)
    grpo = {v: e.value("table1", f"pass_at_1_after_{v}_visits", world="mixed", method="grpo").value for v in gains}
    text = (
        f"In `mixed` the pass@1 of DynaMO minus that of GRPO is {listed([shown(gain) for gain in gains.values()])} "
        f"points after {visits_of(gains)} ({e.regime('table1', **of)}). {turning(gains, grpo)}."
    )
    if matched:
        accuracies = listed([f"{accuracy:g}" for accuracy in matched])
        text += f" At the steps where GRPO first has {accuracies}, it is {numbers(matched)} points."
    return text


@finding("parts", "Which part of DynaMO it is", "learning-rate")
def parts(e: Evidence) -> str:
    """Compare allocation alone and modulation alone with GRPO over visits, at the default rate."""
    texts = []
    for world in ("mixed", "skills"):
        of = {"world": world, "learning_rate": "10"}
        allocation = over_visits(e, "learning-rate", method="dynamo-only-dra", **of)
        modulation = over_visits(e, "learning-rate", method="dynamo-no-dra", **of)
        texts.append(
            f"in `{world}` the paper's allocation alone is worth {numbers(allocation)} points against GRPO after "
            f"{visits_of(allocation)}, and its modulation alone {numbers(modulation)}"
        )
    text = "; ".join(texts)
    return f"{text[0].upper()}{text[1:]} ({e.regime('learning-rate', **of, method='dynamo')})."


RATES = ("3", "7", "10", "11", "12", "14", "20", "30")


def _equal_rate(e: Evidence, world: str, method: str) -> float | None:
    """Return the rate at which GRPO ends where the method does at rate 10; linear between rates, None beyond them."""
    end = {r: e.value("learning-rate", world=world, learning_rate=r, method="grpo").value for r in RATES}
    goal = end["10"] + e.gain("learning-rate", world=world, learning_rate="10", method=method).value / 100
    for a, b in pairwise(RATES):
        if end[a] <= goal <= end[b]:
            return float(a) + (goal - end[a]) / (end[b] - end[a]) * (float(b) - float(a))
    return None


@finding("modulation", "What the modulation is worth", "learning-rate")
def modulation(e: Evidence) -> str:
    """Compare modulation alone with GRPO at the same rate, and find the rate at which GRPO gains as much."""
    texts = []
    for world in ("mixed", "skills"):
        gains = {
            rate: e.gain("learning-rate", world=world, learning_rate=rate, method="dynamo-no-dra")
            for rate in ("3", "10", "30")
        }
        equal = _equal_rate(e, world, "dynamo-no-dra")
        texts.append(
            f"in `{world}` the modulation alone gains {listed([shown(gain) for gain in gains.values()])} points at "
            f"the end at learning rates of 3, 10 and 30"
            + ("" if equal is None else f", and GRPO gains as much as at 10 with a rate of {equal:.1f}")
        )
    text = "; ".join(texts)
    return f"With SGD, {text}."
