"""Figure 5: entropy and gradient norm over training, GRPO against DynaMO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from paper_figs import horizons
from paper_figs.experiments import estimate, seeds_and_intervals, seeds_of
from paper_figs.figure import Drawing, Figure
from paper_figs.result_files import Curves, Input, RunCurves, read_run, unfit
from paper_figs.scale_runs import ScaleRun, blocks, find_runs
from paper_figs.style import METHODS, TEXT_WIDTH, legend_above, panels, plot_band
from paper_figs.wording import TABULAR
from theory import methods
from theory.base.arrays import FloatArray
from theory.base.runs import lookup
from theory.base.tables import Column
from theory.base.text import as_drawn
from theory.methods import STOCK
from theory.statistics import SIGNS, in_family

BASELINE, METHOD = "grpo", "dynamo"
LABELS = {"entropy": "entropy (nats)", "gradient_norm": "gradient norm"}
"""What is drawn: metrics, and how their axes are labelled."""

WINDOW = 11
"""Steps of the running median that spikes are measured against."""

PREMISES = {"spikes": ("spikes", 2.0), "roughness": ("erratic entropy", 2.0)}
"""What GRPO must have for DynaMO to remove, and from where on it has it (ours): norms so many times their running
median, and an entropy that goes so many times the way from its start to its end."""

SPIKES, ROUGHNESS = Column("", signed=True), Column("", decimals=5, signed=True)


@dataclass(frozen=True)
class Pair:
    """Runs of both methods in one setting, of the same seeds and steps."""

    setting: str
    is_toy: bool
    baseline: RunCurves
    method: RunCurves

    def values(self, of: str) -> tuple[FloatArray, FloatArray]:
        """Return one of `STATISTICS` of both methods, one value per seed."""
        metric, statistic = STATISTICS[of]
        first, second = (statistic(run.metrics[metric].values) for run in (self.baseline, self.method))
        return first, second


def spikes(norms: FloatArray) -> FloatArray:
    """Return the 99 % quantile of norms over their running median, per seed: how far spikes stand out of the trend."""
    side = min(WINDOW // 2, norms.shape[-1] - 1)
    padded = np.pad(norms, ((0, 0), (side, side)), mode="reflect")
    trend = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * side + 1, axis=-1), axis=-1)
    return np.asarray(np.quantile(norms / trend, 0.99, axis=-1))


def roughness(values: FloatArray) -> FloatArray:
    """Return the root mean square second difference over steps, per seed: how erratic a curve is."""
    return np.asarray(np.sqrt((np.diff(values, n=2, axis=-1) ** 2).mean(-1)))


def detour(values: FloatArray) -> FloatArray:
    """Return the way of a curve over the distance from its start to its end, per seed: 1 if it never turns."""
    way, distance = np.abs(np.diff(values, axis=-1)).sum(-1), np.abs(values[:, -1] - values[:, 0])
    return np.asarray(np.divide(way, distance, out=np.full(len(values), np.inf), where=distance > 0))


STATISTICS = {"spikes": ("gradient_norm", spikes), "roughness": ("entropy", roughness)}
"""What the reading compares: the metric, and the number of its curve."""


@dataclass(frozen=True)
class Dynamics(Input):
    """Runs of GRPO and DynaMO: those of the sweep `toy/fig5`, and the runs below `scale/` that fit."""

    def read(self, source: Path) -> list[Pair]:
        """Read every pair, those of the testbed first."""
        pairs = _scale_pairs(source)
        if pairs and not (source / "toy" / "fig5").exists():
            return pairs
        return [*_toy_pairs(source), *pairs]


def _toy_pairs(source: Path) -> list[Pair]:
    folder, command = source / "toy" / "fig5", f"python -m toy sweep fig5 --out {source / 'toy'}"
    runs: dict[str, dict[str, RunCurves]] = {}
    for inner in sorted(folder.glob("*/")):
        run = read_run(inner, tuple(LABELS), command)
        world, method = run.config["world_name"], run.config["method_name"]
        if method in runs.setdefault(world, {}):
            raise unfit(inner, f"one run of {method} in {world}", "a second one", command)
        runs[world][method] = run
    pairs = []
    for world, by_method in runs.items():
        if not {BASELINE, METHOD} <= set(by_method):
            raise unfit(folder, f"runs of {BASELINE} and {METHOD} in {world}", ", ".join(by_method), command)
        pairs.append(_paired(folder, command, world, True, by_method[BASELINE], by_method[METHOD]))
    if not pairs:
        raise unfit(folder, f"runs of {BASELINE} and {METHOD}", "none", command)
    return pairs


def _scale_pairs(source: Path) -> list[Pair]:
    pairs = []
    for setting, block in blocks(find_runs(source), ("method",)):
        baseline = next((name for name in (BASELINE, STOCK) if (name,) in block), None)
        if baseline and (METHOD,) in block:
            both = [_merged(block[name,]) for name in (baseline, METHOD)]
            pairs.append(_paired(source / "scale", "python -m scale train", setting, False, *both))
    return pairs


def _merged(runs: Sequence[ScaleRun]) -> RunCurves:
    """Return runs of one seed each as one, at the steps that all of them have."""
    metrics = {}
    for name in LABELS:
        curves = [run.curves.get(name, Curves(np.array([], dtype=np.int64), np.zeros((1, 0)))) for run in runs]
        steps = sorted(set.intersection(*(set(curve.steps.tolist()) for curve in curves)))
        values = [curve.values[0, np.isin(curve.steps, steps)] for curve in curves]
        metrics[name] = Curves(np.array(steps, dtype=np.int64), np.stack(values))
    return RunCurves(runs[0].config, np.array([run.seed for run in runs]), metrics)


def _paired(folder: Path, command: str, setting: str, is_toy: bool, baseline: RunCurves, method: RunCurves) -> Pair:
    same = np.array_equal(baseline.seeds, method.seeds) and all(
        len(baseline.metrics[name].steps) > 2
        and np.array_equal(baseline.metrics[name].steps, method.metrics[name].steps)
        for name in LABELS
    )
    if not same:
        expected = f"runs of {BASELINE} and {METHOD} in {setting} of the same seeds and at least three steps"
        raise unfit(folder, expected, "others", command)
    return Pair(setting, is_toy, baseline, method)


def _draw(pairs: Sequence[Pair]) -> Drawing:
    figure, axes = panels(TEXT_WIDTH, 2.05 * len(pairs), len(pairs), 2)
    for pair, row in zip(pairs, zip(axes[::2], axes[1::2], strict=True), strict=True):
        for ax, (metric, label) in zip(row, LABELS.items(), strict=True):
            for name, run in ((BASELINE, pair.baseline), (METHOD, pair.method)):
                _plot(ax, run.metrics[metric], name)
            ax.set(
                xlabel="training step",
                ylabel=f"{label}, {as_drawn(pair.setting)}",
                xlim=(0, pair.baseline.metrics[metric].steps[-1]),
            )
    legend_above(axes[0], 2)
    return figure


def _plot(ax: Axes, curves: Curves, method: str) -> None:
    if len(curves.values) > 1:
        ax.plot(curves.steps, curves.values[0], color=METHODS[method].color, linewidth=0.4, alpha=0.8)
    plot_band(ax, curves, method, methods.METHODS[method].title)


def _caption(pairs: Sequence[Pair]) -> str:
    parts = [
        f"{'tabular world ' if pair.is_toy else ''}{pair.setting}{'' if pair.is_toy else ' in verl'} "
        f"of {seeds_and_intervals([len(pair.baseline.seeds)])}"
        for pair in pairs
    ]
    return (
        f"Mean entropy of the policy's tokens and norm of the gradient before clipping, GRPO and DynaMO; "
        f"{'; '.join(parts)}; thick: all seeds, intervals of each step alone; thin: the first seed, so that no "
        f"spike is averaged away; signs: {SIGNS} over all comparisons of the figure."
    )


def _conditions(pair: Pair) -> str:
    seeds = seeds_of([len(pair.baseline.seeds)])
    if not pair.is_toy:
        return f"{pair.setting} (in verl, {seeds})"
    config = pair.baseline.config
    return (
        f"{pair.setting} (tabular, {horizons.num_visits(config):g} visits a prompt, learning rate "
        f"{lookup(config, 'optimizer.learning_rate'):g}, {seeds})"
    )


def _reading(pairs: Sequence[Pair]) -> str:
    parts, judged = [], []
    absent: dict[str, list[str]] = {}
    every = in_family(estimate(*reversed(pair.values(of))) for pair in pairs for of in STATISTICS)
    for i, pair in enumerate(pairs):
        premises = {
            "spikes": float(np.mean(pair.values("spikes")[0])),
            "roughness": float(np.mean(detour(pair.baseline.metrics["entropy"].values))),
        }
        changes = dict(zip(STATISTICS, every[len(STATISTICS) * i :], strict=False))
        parts.append(
            f"{_conditions(pair)}: the 99 % quantile of GRPO's gradient norm over its running median is "
            f"{premises['spikes']:.2f}, DynaMO's minus that {SPIKES.text(changes['spikes'])}; GRPO's entropy goes "
            f"{premises['roughness']:.2f} times the way from its start to its end, and the roughness of DynaMO's minus "
            f"GRPO's is {ROUGHNESS.text(changes['roughness'])} nats."
        )
        for of, (name, least) in PREMISES.items():
            words = {1: "rougher", -1: "smoother", 0: "undecided"}[changes[of].sign]
            if premises[of] >= least:
                judged.append(f"{words} in {pair.setting} ({name})")
            else:
                absent.setdefault(name, []).append(pair.setting)
    found = f" DynaMO against GRPO: {', '.join(judged)}." if judged else ""
    lacking = "; ".join(f"{name} in {' and '.join(where)}" for name, where in absent.items())
    missing = (
        f" Premise absent, and no verdict: {lacking} (a spike is {PREMISES['spikes'][1]:g} times the running median, "
        f"an erratic entropy goes {PREMISES['roughness'][1]:g} times its way; both limits are ours)."
    )
    return (
        f"{' '.join(parts)} The paper says that GRPO has gradient spikes and an erratic entropy, and that DynaMO is "
        f"smoother.{found}{missing * bool(absent)} {TABULAR}"
    )


FIGURE = Figure(
    name="fig5_dynamics",
    title="Figure 5: training dynamics",
    inputs=(Dynamics(),),
    draw=_draw,
    caption=_caption,
    reading=_reading,
)
