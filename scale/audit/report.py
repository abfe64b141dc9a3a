"""How an audit is shown and written: tables for the terminal, `audit.json`, `audit.parquet` and a plot."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from scale.audit.log import Log
from theory.allocation import degenerate_groups
from theory.base import files, runs as run_format
from theory.base.terminal import Console
from theory.statistics import jeffreys_interval

RESULT_FILE, PROMPTS_FILE, PLOT = "audit.json", "audit.parquet", "audit"
PLOT_SUFFIXES = ("pdf", "svg", "png")

PLAIN = "exact-baseline"
"""The estimator whose noise is p (1 - p) / n."""

THIS_LOG = "(this log)"

MARK = "*"


def require_free(out: Path) -> None:
    """Require that a folder holds no results of an audit."""
    for name in (RESULT_FILE, PROMPTS_FILE, *(f"{PLOT}.{suffix}" for suffix in PLOT_SUFFIXES)):
        if (out / name).exists():
            raise ValueError(f"{out / name}: expected no results of an earlier audit, got them; --force replaces them")


def show(result: dict[str, Any], console: Console) -> None:
    """Print the audit."""
    log, groups, prompts = result["log"], result["groups"], result["prompts"]
    quantiles = prompts["success_rate_quantiles"]
    lines = [
        f"{log['rollouts']:,} rollouts of {log['prompts']:,} prompts in {log['steps']:,} steps "
        f"({len(log['files'])} {log['format']} file{'s' * (len(log['files']) > 1)}; {log['rewards']})",
        f"groups             {log['groups']:,} of {groups['rollouts_min']} to {groups['rollouts_max']} rollouts, "
        f"{groups['rollouts_mean']:.1f} on average; a prompt has {prompts['visits_mean']:.1f}",
        f"degenerate         {groups['degenerate_share']:.1%} of the groups "
        f"({groups['all_wrong_share']:.1%} all wrong, {groups['all_right_share']:.1%} all right), "
        f"and {groups['wasted_share']:.1%} of the rollouts",
        f"success rates      mean over groups {groups['success_rate']:.3f}; by prompt, over all its steps: "
        + ", ".join(f"{x:.2f} ({percent} %)" for percent, x in quantiles.items()),
        f"how well known     from one group to +-{groups['interval_width_median'] / 2:.2f} (95 % Jeffreys, median)"
        + (
            ""
            if prompts["change_between_visits"] is None
            else f"; between two visits it changes by {prompts['change_between_visits']:.2f} (root mean square)"
        ),
    ]
    for line in (*lines, *result["notes"]):
        console.print(line)
    if result["replay"] is not None:
        _show_rules(result, console)
    if result["left_out"]:
        by_reason: dict[str, list[str]] = {}
        for name, reason in result["left_out"].items():
            by_reason.setdefault(reason, []).append(name)
        said = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())
        console.print(f"Left out: {said}.")
    console.print()
    console.print("What these data cannot say", style="bold")
    for sentence in result["cannot_say"]:
        console.print(f"- {sentence}")


def _show_rules(result: dict[str, Any], console: Console) -> None:
    replay = result["replay"]
    console.print()
    console.print(
        f"Rules replayed on {replay['groups']:,} groups in {replay['steps']:,} of the "
        f"{replay['steps_with_history']:,} steps with a history, {replay['low']} to {replay['high']} rollouts a "
        "prompt, at the cost of each step",
    )
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in (
        "rule",
        "noise p(1-p)/n\nagainst uniform (95 %)",
        "" if replay["uniform_log"] else "against\nthe log",
        "GRPO's noise,\nagainst uniform",
        "degenerate\ngroups, %",
        "rollouts\nwasted, %",
        "weight\nmoved, %",
        "success of\na rollout",
        "",
    ):
        table.add_column(Text(heading), justify="left" if heading in ("rule", "") else "right", no_wrap=True)
    for name, x in result["rules"].items():
        plain, grpo = (x["noise_against_uniform"][estimator] for estimator in (PLAIN, "grpo"))
        table.add_row(
            THIS_LOG if name == "log" else name,
            f"{_number(plain['point'][0])} ({'-'.join(map(_number, plain['interval']))})"
            + (MARK if plain["method"] == "predicted" else " "),
            "" if replay["uniform_log"] else _number(x["noise_against_log"][PLAIN]["point"][0]),
            _span(grpo["point"], ".3f"),
            _span([100 * end for end in x["degenerate_share"]], ".1f"),
            _span([100 * end for end in x["wasted_share"]], ".1f"),
            f"{100 * x['weight_moved_token_mean']:.1f}",
            f"{x['success_rate_of_a_rollout']:.3f}",
            x["verdict"],
        )
    console.print(table)
    rules = result["rules"]
    starred = any(x["noise_against_uniform"][PLAIN]["method"] == "predicted" for x in rules.values())
    console.print(
        "In brackets: 95 %, given the past of each step, by an unbiased estimate of each group's variance and by "
        + "Student's t. "
        + (
            f"{MARK} = too few rollouts for that: squared errors of predictions from the past, wider. "
            if starred
            else ""
        )
        + _family(rules)
        + "Other ranges: what the log leaves open, without sampling error. Weight moved: share of a batch's weight on "
        "other prompts than under uniform, with a mean over tokens and responses of one length.",
    )


def _family(rules: dict[str, Any]) -> str:
    """Return a sentence on the number of comparisons, and on what is left of them after Holm's correction."""
    family = {name: x for name, x in rules.items() if x["p_value_of_all"] is not None}
    signs = {name: x["p_value_of_all"] for name, x in family.items() if x["verdict"].startswith(("less", "more"))}
    said = "Each interval, and the word beside it, is for one rule alone. "
    if not signs:
        return said
    kept = ", ".join(THIS_LOG if name == "log" else name for name, p_value in signs.items() if p_value < 0.05)
    return f"{said}With Holm's correction for {len(family)} rules these words stay: {kept or 'none'}. "


def _number(x: float | None) -> str:
    return "?" if x is None else f"{x:.3f}"


def _span(ends: list[float | None], form: str) -> str:
    low, high = ("?" if x is None else format(x, form) for x in ends)
    return low if low == high else f"{low}-{high}"


def write(result: dict[str, Any], log: Log, out: Path, console: Console) -> list[Path]:
    """Write the results and return their files; without matplotlib there is no plot, and a line says so."""
    plots: dict[Path, bytes] = {}
    try:
        import matplotlib as mpl
    except ImportError:
        console.print("no plot: it needs matplotlib (pip install matplotlib)")
    else:
        with mpl.rc_context({"font.size": 8, "pdf.fonttype": 42, "svg.hashsalt": "audit", "savefig.dpi": 200}):
            figure = _drawn(result)
            for suffix, key in zip(PLOT_SUFFIXES, ("CreationDate", "Date", None), strict=True):
                buffer = io.BytesIO()
                figure.savefig(buffer, format=suffix, metadata={key: None} if key else None)
                plots[out / f"{PLOT}.{suffix}"] = buffer.getvalue()
    for path, content in plots.items():
        files.write_atomically(path, content)
    run_format.write_metrics(out / PROMPTS_FILE, _prompts(log))
    files.write_json(out / RESULT_FILE, {**result, "files": files.hashes(out, [PROMPTS_FILE])})
    return [out / RESULT_FILE, out / PROMPTS_FILE, *plots]


def _prompts(log: Log) -> dict[str, Any]:
    """Return a row per prompt: its rate over all steps, and that of its last step, each with a Jeffreys interval."""
    num = len(log.prompts)
    k, n = (np.bincount(log.prompt, weights=x, minlength=num).astype(np.int64) for x in (log.successes, log.attempts))
    low, high = jeffreys_interval(k, n)
    degenerate = degenerate_groups(log.successes, log.attempts)
    last = np.zeros(num, dtype=np.int64)
    last[log.prompt] = np.arange(log.prompt.size)  # Groups are in order of steps.
    first = np.zeros(num, dtype=np.int64)
    first[log.prompt[::-1]] = np.arange(log.prompt.size)[::-1]
    last_low, last_high = jeffreys_interval(log.successes[last], log.attempts[last])
    return {
        "prompt": np.array(log.prompts, dtype=object),
        "visits": np.bincount(log.prompt, minlength=num),
        "degenerate_visits": np.bincount(log.prompt, weights=degenerate, minlength=num).astype(np.int64),
        "rollouts": n,
        "successes": k,
        "success_rate": k / n,
        "low": low,
        "high": high,
        "first_step": log.step[first],
        "last_step": log.step[last],
        "last_rollouts": log.attempts[last],
        "last_successes": log.successes[last],
        "last_low": last_low,
        "last_high": last_high,
    }


def _drawn(result: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure

    blue, orange, grey = "#0173b2", "#de8f05", "0.4"  # Safe for colour-blind readers.
    rules = {name: x for name, x in result["rules"].items() if name != "uniform"}
    figure = Figure(figsize=(8.0, 3.0), layout="constrained")
    first, second, third = figure.subplots(1, 3, width_ratios=(1, 1, 1.5))
    counts = np.array(result["groups"]["success_rate_histogram"])
    places = counts.size - 1
    first.bar(np.arange(counts.size) / places, counts / counts.sum(), width=0.8 / places, color=blue)
    first.set(xlabel="success rate of a group", ylabel="share of groups")
    curve = result["degenerate_by_step"]
    mark = "o" if len(curve["step"]) < 40 else ""
    second.plot(curve["step"], curve["share"], color=orange, marker=mark, markersize=3, linewidth=1)
    second.set(xlabel="step", ylabel="share of degenerate groups", ylim=(0, 1))
    third.axvline(1, color=grey, linewidth=0.8, linestyle=":")
    verdicts = {x["verdict"] for x in rules.values()}
    withheld, doubtful = "withheld" in verdicts, any(verdict.endswith("?") for verdict in verdicts)
    labels, starred = [], False
    for row, (name, x) in enumerate(rules.items()):
        noise = x["noise_against_uniform"][PLAIN]
        mark = MARK if noise["method"] == "predicted" else ""
        labels.append((THIS_LOG if name == "log" else name) + mark)
        starred |= bool(mark)
        if None in noise["interval"]:
            continue
        color = "0.7" if withheld else blue
        third.plot(noise["interval"], [row, row], color=color, linewidth=1.2)
        third.plot(noise["point"][:1], [row], color=color, marker="o", markersize=3.5)
    third.set_yticks(range(len(rules)), labels)
    third.invert_yaxis()
    method = "noise p(1-p)/n against uniform\n95 % given the past, Student's t"
    third.set_xlabel(method + f"\n{MARK} by predictions from the past" * starred, fontsize="small")
    third.set_title("verdicts withheld" if withheld else "verdicts in doubt" * doubtful, fontsize="medium")
    if not rules:
        third.text(0.5, 0.5, "nothing to replay", transform=third.transAxes, ha="center", color=grey)
    for axes in (first, second, third):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
