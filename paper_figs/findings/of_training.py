"""Findings in small worlds, from summaries of sweeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from paper_figs.findings.evidence import Evidence
from paper_figs.findings.registry import finding
from paper_figs.findings.words import listed, shown, sides, signed
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


def ends(e: Evidence, sweep: str, **axes: str) -> str:
    """Say after how many visits the runs of a sweep in `mixed` and `skills` end."""
    return " and ".join(f"{e.visits(sweep, world=world, **axes)} visits in `{world}`" for world in ("mixed", "skills"))


def numbers(gains: Mapping[Any, Estimate]) -> str:
    """Return gains in order, with their intervals."""
    return listed([shown(gain) for gain in gains.values()])


def early_and_late(e: Evidence, sweep: str, /, **axes: str) -> str:
    """Return a cell's gain after 4 visits, and at the end."""
    return f"{shown(e.gain(sweep, 'pass_at_1_after_4_visits', **axes))} and {shown(e.gain(sweep, **axes))}"


def visits_of(gains: Mapping[int, Estimate]) -> str:
    """Say how many visits."""
    return f"{listed(list(gains))} visits a prompt"


def turning(gains: Mapping[int, Estimate], reference: Mapping[int, float]) -> str:
    """Say between which visits the sign turns, and what the reference has there."""
    decided = {visits: gain for visits, gain in gains.items() if gain.sign}
    pairs = [(a, b) for a, b in pairwise(decided) if decided[a].sign != decided[b].sign]
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
    grpo = {v: e.measured("table1", f"pass_at_1_after_{v}_visits", world="mixed", method="grpo").value for v in gains}
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
    end = {r: e.measured("learning-rate", world=world, learning_rate=r, method="grpo").value for r in RATES}
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
        gains = [
            early_and_late(e, "learning-rate", world=world, learning_rate=rate, method="dynamo-no-dra")
            for rate in ("3", "10", "30")
        ]
        equal = _equal_rate(e, world, "dynamo-no-dra")
        by_rate = [f"{gain} at a rate of {rate}" for gain, rate in zip(gains, (3, 10, 30), strict=True)]
        texts.append(
            f"in `{world}` {', '.join(by_rate)}"
            + ("" if equal is None else f"; at the end GRPO gains as much as at 10 with a rate of {equal:.1f}")
        )
    return f"""
        Points that the modulation alone gains with SGD after 4 visits and at the end: {"; ".join(texts)}. (Token
        mean, 32 seeds; the end is after {ends(e, "learning-rate", learning_rate="10", method="grpo")}.)
    """


BANDITS = ("binary", "peaked", "diffuse", "mixed")
WORLDS = (*BANDITS, "skills")


@finding("worlds", "DynaMO against GRPO in every world", "horizons")
def worlds(e: Evidence) -> str:
    """Follow the difference over visits in every world."""
    gains = {world: over_visits(e, "horizons", world=world, method="dynamo") for world in (*WORLDS, "skills-long")}
    texts = [f"{numbers(of_world)} in `{world}`" for world, of_world in gains.items()]
    regime = e.regime("horizons", world="mixed", method="dynamo")
    first, last = VISITS[0], VISITS[-1]
    starts, finish = (
        {f"`{world}` ({signed(of[v].value)})": of[v] for world, of in gains.items() if v in of} for v in (first, last)
    )
    return f"""
        After {visits_of(gains["mixed"])}, DynaMO minus GRPO is, in points and as far as the runs go,
        {"; ".join(texts)} ({regime}). After {first} visits it is {sides(starts)}; after {last} {sides(finish)}.
    """


def _maps(e: Evidence, measure: str) -> dict[str, dict[str, Estimate]]:
    """Return the gain of every rule over uniform allocation, by world and rule."""
    sweeps = {"allocation-map": ("binary", "diffuse", "mixed"), "allocation-map-more": ("peaked", "skills")}
    rules = {sweep: [rule for rule in e.values(sweep, "rule") if rule != "uniform"] for sweep in sweeps}
    return {
        world: {rule: e.gain(sweep, measure, world=world, rule=rule) for rule in rules[sweep]}
        for sweep, of_sweep in sweeps.items()
        for world in of_sweep
    }


@finding("rules", "Allocation rules against uniform allocation", "allocation-map", "allocation-map-more")
def rules(e: Evidence) -> str:
    """Say where the paper's rule is ahead early and late, and which published rule ends furthest ahead."""
    early, late = _maps(e, "pass_at_1_after_4_visits"), _maps(e, "pass_at_1")
    first, last = (
        {f"`{world}` ({signed(of_world['dynamo'].value)})": of_world["dynamo"] for world, of_world in each.items()}
        for each in (early, late)
    )
    best: dict[str, str] = {}
    for world, of_world in late.items():
        real = {rule: gain for rule, gain in of_world.items() if not rule.startswith("oracle-")}
        rule = max(real, key=lambda name: real[name].value)
        best[world] = f"`{rule}` in `{world}` ({shown(real[rule])})"
    names = {text.split("`")[1] for text in best.values()}
    regime = e.regime("allocation-map", world="mixed", rule="dynamo")
    several = "They are of different rules" if len(names) > 1 else "They are of one rule"
    return f"""
        GRPO with the paper's rule is, in points against uniform allocation, {sides(first)} after 4 visits a prompt;
        after 25 it is {sides(last)} ({regime}). The largest gains after 25, oracles apart and with rules in rounds
        that may stop before the budget, are {listed(list(best.values()))}. {several}.
    """


RATES_TRIED = (10.0, 3000.0)
"""Least and largest learning rate of the sweep `tuning`."""


@finding("tuning", "A learning rate for each method", "tuned/table1")
def tuning(e: Evidence) -> str:
    """Compare the methods of table 1 at a common rate and at their own best ones, on one measure."""
    texts = []
    best = [e.rate("tuned/table1", world="skills", method=method) for method in e.values("tuned/table1", "method")]
    at_edge = f"{sum(rate == RATES_TRIED[-1] for rate in best)} of {len(best)}"
    for world in ("mixed", "skills"):
        common, tuned = (
            {
                method: e.gain(sweep, "pass_at_1_mean", world=world, method=method)
                for method in e.values(sweep, "method")
                if method != "grpo"
            }
            for sweep in ("table1", "tuned/table1")
        )
        smaller = [m for m in common if abs(tuned[m].value) < abs(common[m].value)]
        turned = [f"`{m}`" for m in common if common[m].sign * tuned[m].sign < 0]
        texts.append(
            f"in `{world}` {len(smaller)} of {len(common)} differences from GRPO shrink, "
            + (f"the sign turns for {listed(turned)}, " if turned else "no sign turns, ")
            + f"and DynaMO goes from {shown(common['dynamo'])} to {shown(tuned['dynamo'])} points "
            f"(after 4 visits and at the end, tuned: {early_and_late(e, 'tuned/table1', world=world, method='dynamo')})"
        )
    return f"""
        With its own best rate for each method instead of a common one, on the mean of pass@1 over all steps,
        {"; ".join(texts)}. (SGD, 32 seeds; rates from {RATES_TRIED[0]:g} to {RATES_TRIED[-1]:g}, chosen on other
        seeds; in `skills` {at_edge} methods have the largest.)
    """


@finding("bounds", "Bounds on the rollouts of a prompt", "bounds")
def bounds(e: Evidence) -> str:
    """Compare rules under tight and loose bounds."""
    texts = []
    for rule in ("dynamo", "log-progress", "gvm", "knapsack"):
        gains = [early_and_late(e, "bounds", bounds=x, rule=rule) for x in ("12-20", "8-24", "2-64")]
        texts.append(f"`{rule}` {', '.join(gains)}")
    return f"""
        In `mixed`, points against uniform allocation after 4 and after 25 visits within [12, 20], [8, 24] and [2,
        64]: {"; ".join(texts)} ({e.regime("bounds", False, bounds="8-24", rule="dynamo")}).
    """


def _regimes(e: Evidence) -> dict[str, str]:
    """Return the names of the regimes, and words for them."""
    parts = {regime: re.split("-visits-rate-|-", regime, maxsplit=2) for regime in e.values("regimes", "regime")}
    return {name: f"`{world}`, {visits} visits, rate {rate}" for name, (world, visits, rate) in parts.items()}


@finding("lag", "Lag, weights and the rest of the allocation", "regimes")
def lag(e: Evidence) -> str:
    """Compare the paper's rule by old counts, the last visit's, and true success rates, at several visits and rates."""
    variants = ("allocation", "allocation-last-visit", "allocation-true-rates", "dynamo")
    texts = [
        f"{words}: {listed([shown(e.gain('regimes', regime=regime, variant=variant)) for variant in variants])}"
        for regime, words in _regimes(e).items()
    ]
    return f"""
        What the allocation does depends on the visits to a prompt and on the progress at each. Points at the end
        against GRPO, for the paper's rule alone by all counts, by those of the last visit, by the true success rates,
        and for the whole of DynaMO: {"; ".join(texts)}. The first differs from the third by lag and by the noise of
        counts; what the third has, old counts do not explain. (Token mean, 32 seeds.)
    """


@finding("log-progress", "Our rule `log-progress`", "regimes", "bounds")
def log_progress(e: Evidence) -> str:
    """Say where the rule is ahead of uniform allocation."""
    gains = {regime: e.gain("regimes", regime=regime, variant="log-progress-0.5") for regime in _regimes(e)}
    named = {f"{_regimes(e)[regime]} ({signed(gain.value)})": gain for regime, gain in gains.items()}
    loose = e.gain("bounds", bounds="2-64", rule="log-progress")
    return f"""
        It maximises the expected progress of the sum of log p, here with counts that halve at each visit. Against
        uniform allocation at the end it is, in points, {sides(named, "; ")}. With bounds of 2 to 64 rollouts and
        lifetime counts it is at {shown(loose)} after 25 visits in `mixed`. (GRPO, token mean, 32 seeds.)
    """


@finding("adamw", "Under AdamW", "adamw")
def adamw(e: Evidence) -> str:
    """Compare the parts of DynaMO and a larger step under AdamW, at two rates."""
    texts = []
    for world in ("mixed", "skills"):
        for base in e.values("adamw", "base"):
            parts = [
                f"{words} {early_and_late(e, 'adamw', world=world, base=base, variant=variant)}"
                for variant, words in (
                    ("dynamo", "DynaMO"),
                    ("dynamo-no-dra", "its modulation alone"),
                    ("dynamo-only-dra", "its allocation alone"),
                    ("grpo-1.05", "GRPO at a rate 5 % higher"),
                )
            ]
            texts.append(f"in `{world}` at a rate of {base} {', '.join(parts)}")
    return f"""
        Points against GRPO after 4 visits and at the end: {"; ".join(texts)}. (Token mean, 32 seeds; the end is after
        {ends(e, "adamw", base="0.01", variant="grpo")}.)
    """


@finding("aggregation", "A mean over tokens or over prompts", "aggregation")
def aggregation(e: Evidence) -> str:
    """Compare DynaMO with GRPO under both aggregations."""
    texts = []
    for world in ("mixed", "skills"):
        gains = [
            over_visits(e, "aggregation", world=world, aggregation=mean, method="dynamo")
            for mean in ("token-mean", "prompt-mean")
        ]
        texts.append(f"in `{world}` after {visits_of(gains[0])} {numbers(gains[0])} and {numbers(gains[1])}")
    return f"""
        The public script takes a mean over tokens; the words of the paper's equation 15 suggest a mean over prompts
        first. DynaMO minus GRPO, both with the one and both with the other, is {"; ".join(texts)} points. (Learning
        rate 10, 32 seeds.)
    """


@finding("micro-batch", "Extremes over micro-batches", "micro-batch")
def micro_batch(e: Evidence) -> str:
    """Compare extremes over micro-batches with those over the batch, for both means of the modulation."""
    texts = []
    for world in ("mixed", "skills"):
        for mean, words in (("vocabulary", "a mean over the vocabulary"), ("sequence", "one over the response")):
            cells = [{"world": world, "mean": mean, "prompts": prompts} for prompts in ("4", "16", "64")]
            gains = [early_and_late(e, "micro-batch", **cell) for cell in cells]
            texts.append(f"in `{world}` with {words} {', '.join(gains)}")
    return f"""
        The modulation compares a token with the extremes of a batch; the public code takes those of a micro-batch.
        What that does to DynaMO at the end, in points, with micro-batches of 4, 16 and 64 prompts and the
        modulation's mean as named: {"; ".join(texts)}
        ({e.regime("micro-batch", world="mixed", mean="vocabulary", prompts="4")}; the end is after
        {ends(e, "micro-batch", mean="vocabulary", prompts="4")}).
    """


@finding("released", "The public code's choices and two of its defects", "paper-vs-code")
def released(e: Evidence) -> str:
    """Give what differences between paper and code do to DynaMO."""
    variants = {
        "clip-0.28": "the wider clip",
        "code-allocation": "its allocation",
        "sequence-mean": "its mean over the response",
        "script-settings": "its settings of the modulation",
        "row-expansion": "rows expanded by two different counts",
        "row-history": "a history of re-ordered rows",
        "row-both": "both of these",
        "as-released": "all together",
    }
    texts = []
    for world in ("mixed", "skills"):
        changes = [
            f"{words} {early_and_late(e, 'paper-vs-code', world=world, variant=name)}"
            for name, words in variants.items()
        ]
        texts.append(f"in `{world}` {', '.join(changes)}")
    return f"""
        Points that DynaMO gains, after 4 visits to a prompt and at the end, by one choice of the released trainer
        (commit `63e5ec9`), or by a defect of it that is simulated here: {"; ".join(texts)}
        ({e.regime("paper-vs-code", world="mixed", variant="paper")}; the end is after
        {ends(e, "paper-vs-code", variant="paper")}). These are facts about that commit; which code the paper's runs
        used is not known.
    """


@finding("norms", "Table 1 at equal early steps", "table1", "norm-matched/table1")
def norms(e: Evidence) -> str:
    """Compare methods of table 1 at the common rate and at rates of equal early steps."""
    texts = []
    for world in ("mixed", "skills"):
        parts = []
        for method in ("fork-tokens", "entropy-advantages", "w-reinforce", "dynamo"):
            common, equal = (
                early_and_late(e, sweep, world=world, method=method) for sweep in ("table1", "norm-matched/table1")
            )
            ratio = e.rate("table1", world=world, method=method) / e.rate(
                "norm-matched/table1", world=world, method=method
            )
            parts.append(f"`{method}` ({ratio:.2f} times GRPO's norm) from {common} to {equal}")
        texts.append(f"in `{world}` {', '.join(parts)}")
    return f"""
        A method with longer gradients takes larger steps. From a common learning rate to one divided by the ratio of
        gradient norms over the first 5 steps, so that rate times norm is GRPO's, the difference from GRPO goes, in
        points after 4 visits and at the end, {"; ".join(texts)}. (SGD, token mean, 32 seeds; the end is after
        {ends(e, "table1", method="grpo")}.)
    """
