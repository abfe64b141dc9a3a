"""Every figure and table: built from committed results, the same bytes twice, fonts inside; and the command."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from paper_figs import entropy_change, fig5_dynamics, variance_order, variance_ratio
from paper_figs.experiments import CellResult, ExperimentResults, settings
from paper_figs.figure import Figure, Item, Table, items
from paper_figs.result_files import Curves, LedgerData, RunCurves
from paper_figs.style import COLUMN_WIDTH, RC, TEXT_WIDTH
from paper_figs.wording import TABULAR
from tests.paper_figs.make_data import DATA
from theory.base.tables import Estimate
from theory.statistics import interval_method

pytestmark = pytest.mark.xdist_group("paper_figs")  # what is drawn is shared

ITEMS = items()
FIGURES = {name: item for name, item in ITEMS.items() if isinstance(item, Figure)}
TABLES = {name: item for name, item in ITEMS.items() if isinstance(item, Table)}
SUFFIXES = {Figure: ("pdf", "svg", "png"), Table: ("md", "tex", "csv")}
DRAWN, EXACT = ("fig1_overview",), "ledger row"


def read(item: Item) -> list[Any]:
    return [result.read(DATA) for result in item.inputs]


def reads_the_ledger(item: Item) -> bool:
    return any(isinstance(result, LedgerData) for result in item.inputs)


@dataclass(frozen=True)
class Built:
    """An entry of the index; files with their folder."""

    entry: dict[str, Any]
    files: dict[str, Path]
    caption: str
    reading: str


@pytest.fixture(scope="module")
def built(drawn: Path) -> dict[str, Built]:
    folder = drawn / "figures"
    entries = json.loads((folder / "index.json").read_text())["items"]
    return {
        entry["name"]: Built(
            entry, {s: folder / file for s, file in entry["files"].items()}, entry["caption"], entry["reading"]
        )
        for entry in entries
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA, tmp_path / "results"))


def test_every_figure_and_table_is_found() -> None:
    assert list(FIGURES) == [
        "fig1_overview", "fig2_budgets", "fig3_hyperparameters", "fig4_scaling", "fig5_dynamics", "fig6_efficiency",
        "advantage_bound", "allocation_rules", "bandit_training", "entropy_change", "implied_weights",
        "modulation_bias", "score_norm", "variance_order", "variance_ratio", "when_ahead",
    ]  # fmt: skip
    assert list(TABLES) == [
        "table1_matched", "table1_methods", "table1_models", "table2_ablations", "table3_configuration",
        "paper_vs_code",
    ]  # fmt: skip
    assert all(item.name == name for name, item in ITEMS.items())


def test_committed_results_are_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 1_000_000


@pytest.mark.long
def test_second_build_has_the_same_bytes(built: dict[str, Built], source: Path) -> None:
    # In a fresh process, with another hash seed, time zone and directory, and a user's own taste.
    rc = source.parent / "matplotlibrc"
    rc.write_text("lines.linewidth: 9\naxes.grid: True\nsavefig.transparent: True\nbackend: svg\n")
    environment = {**os.environ, "PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "MATPLOTLIBRC": str(rc)}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "paper_figs", "--source", str(source)],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    folder = source / "figures"
    wanted = {path.name: path for item in built.values() for path in item.files.values()}
    assert {path.name for path in folder.iterdir()} == {*wanted, "index.json"}
    for name, path in wanted.items():
        assert (folder / name).read_bytes() == path.read_bytes(), name
        assert f"  {folder / name}\n" in run.stdout
    index = json.loads((folder / "index.json").read_text())["items"]
    assert [entry["name"] for entry in index] == list(ITEMS)
    assert index == [item.entry for item in built.values()]


@pytest.mark.parametrize("name", ITEMS)
def test_files(built: dict[str, Built], name: str) -> None:
    suffixes = SUFFIXES[Figure if name in FIGURES else Table]
    assert [path.name for path in built[name].files.values()] == [f"{name}.{suffix}" for suffix in suffixes]


@pytest.mark.parametrize("name", ITEMS)
def test_caption_is_one_line_that_says_what_the_data_are(built: dict[str, Built], name: str) -> None:
    caption = built[name].caption
    assert "\n" not in caption
    assert caption.endswith(".")
    if name in DRAWN:
        assert "no data, no seeds, no interval" in caption
    elif reads_the_ledger(ITEMS[name]):
        assert EXACT in caption
        assert "exact" in caption
    else:  # where they come from, how many seeds, which interval
        assert "world" in caption or name == "table1_models"
        assert re.search(r"\d seeds|no interval", caption)
        made = [interval_method(n) for n in (2, 4, 6)]
        assert any(x in caption for x in (*made, "no interval"))
    if any(row[1] and "published" in row[0] for row in built[name].entry.get("rows", ())):
        assert "published" in caption


@pytest.mark.parametrize("name", ITEMS)
def test_reading_is_a_line_of_sentences_that_names_the_papers_statement(built: dict[str, Built], name: str) -> None:
    reading = built[name].reading
    assert "\n" not in reading
    assert reading.endswith(".")
    assert len(re.findall(r"\.(?= [A-Z]|$)", reading)) >= 2
    assert re.search(r"[Tt]he paper|A summary of the paper|review of the paper", reading)


NO_RESULT = ("fig6_efficiency", "table1_models", "table3_configuration")
"""Items of the toy or of models that show times, published numbers or settings."""


@pytest.mark.parametrize("name", [name for name, item in ITEMS.items() if not reads_the_ledger(item)])
def test_what_is_read_of_the_toy_says_once_that_it_is_no_evidence_about_language_models(
    built: dict[str, Built], name: str
) -> None:
    said = built[name].reading.count(TABULAR)
    assert said == (name not in (*DRAWN, *NO_RESULT))
    assert not re.search(r"here this (appears|does not appear)", built[name].reading)


@pytest.mark.parametrize("name", FIGURES)
def test_print_size_and_fonts(built: dict[str, Built], name: str) -> None:
    files = built[name].files
    width, height = struct.unpack(">II", files["png"].read_bytes()[16:24])
    assert width / 300 in (pytest.approx(COLUMN_WIDTH, abs=0.01), pytest.approx(TEXT_WIDTH, abs=0.01))
    assert height / 300 < 9
    pdf = files["pdf"].read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"/CreationDate" not in pdf
    svg = files["svg"].read_text()
    assert "<text" not in svg  # outlines: it looks the same where the font is missing
    assert "dc:date" not in svg


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_drawn_outside_the_page_or_over_a_legend(name: str) -> None:
    with matplotlib.rc_context(RC):
        drawing = FIGURES[name].draw(*read(FIGURES[name]))
        FigureCanvasAgg(drawing).draw()
        page = drawing.bbox
        axes = [ax for ax in drawing.axes if ax.get_visible()]
        legends = [legend for ax in axes if (legend := ax.get_legend())] + list(drawing.legends)
        boxes = [legend.get_window_extent() for legend in legends]
        texts = [t for ax in axes for t in (ax.title, ax._left_title, *ax.texts) if t.get_text()]
        boxes += [text.get_window_extent() for text in texts]
        boxes += [ax.get_tightbbox() for ax in axes]
        for box in boxes:
            assert page.x0 - 1 <= box.x0 <= box.x1 <= page.x1 + 1
            assert page.y0 - 1 <= box.y0 <= box.y1 <= page.y1 + 1
        for legend in legends:
            for text in texts:
                assert not legend.get_window_extent().overlaps(text.get_window_extent()), text.get_text()
        assert_labels_keep_apart(axes)


def assert_labels_keep_apart(axes: Sequence[Axes]) -> None:
    """Require that neither the tick labels of an axis touch each other nor its label another's."""
    for ax in axes:
        for axis in (ax.xaxis, ax.yaxis):
            ticks = [t for t in axis.get_ticklabels() if t.get_text() and t.get_visible()]
            boxes = [box for t in ticks if (box := t.get_window_extent()).overlaps(ax.get_tightbbox())]
            for one, other in pairwise(boxes):
                assert not one.overlaps(other), f"tick labels of {ax.get_xlabel()}, {ax.get_ylabel()}"
    labels = [label for ax in axes for label in (ax.xaxis.label, ax.yaxis.label) if label.get_text()]
    extents = [label.get_window_extent() for label in labels]
    for i, one in enumerate(extents):
        for other, label in zip(extents[:i], labels, strict=False):
            assert not one.overlaps(other), label.get_text()


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_a_table_are_the_same_in_every_format(built: dict[str, Built], name: str) -> None:
    rows, files = built[name].entry["rows"], built[name].files
    texts = {suffix: path.read_text() for suffix, path in files.items()}
    assert len(texts["md"].splitlines()) == len(rows) + 6
    assert len(texts["csv"].splitlines()) == len(rows) + 1
    assert texts["tex"].count(" \\\\\n") == len(rows) + 1 + texts["tex"].count("\\multicolumn")
    assert all(len(row) == len(built[name].entry["columns"]) for row in rows)


# What the figures say


def draw(name: str, *data: object) -> list[Axes]:
    """Draw a figure, of the committed results unless given, and return its axes."""
    figure = FIGURES[name]
    return figure.draw(*(data or read(figure))).axes


def line(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the line with that label."""
    (found,) = (line for line in ax.lines if line.get_label() == label)
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def test_training_curves_and_their_paired_difference() -> None:
    seeds, steps = np.arange(8), np.arange(3)
    offsets = np.repeat([-0.3, 0.0, 0.1, 0.2], 2)[:, None]
    gain = np.array([0.0, 0.1, 0.4])
    config = {
        "method_name": "", "method": {}, "world_name": "w", "rollouts": 16, "num_steps": 2, "batch_prompts": 4,
        "world": {"num_prompts": 4}, "optimizer": {"name": "sgd", "learning_rate": 1.0},
    }  # fmt: skip

    def run(name: str, added: np.ndarray) -> RunCurves:
        values = {"pass_at_1": 0.4 + offsets + added, "entropy": 1 + offsets, "gradient_norm": 2 + offsets}
        return RunCurves(
            {**config, "method_name": name}, seeds, {key: Curves(steps, y + 0 * gain) for key, y in values.items()}
        )

    axes = draw("bandit_training", run("grpo", 0 * gain), run("dynamo", gain))
    middle = 0.05  # of the offsets: without the lowest and the highest
    for ax, level in zip(axes, (0.4, 1.0, 2.0), strict=False):
        np.testing.assert_allclose(line(ax, "GRPO")[1], np.full(3, level + middle))
    np.testing.assert_allclose(line(axes[0], "DynaMO")[1], 0.4 + middle + gain)
    np.testing.assert_allclose(line(axes[3], "DynaMO minus GRPO")[1], gain)
    # The gain is the same for every seed: the paired band has no width, the others have.
    np.testing.assert_allclose(ax_band(axes[3]), np.stack([gain, gain]), atol=1e-12)
    low, high = ax_band(axes[0])
    assert np.all(high - low > 0.1)


def ax_band(ax: Axes) -> np.ndarray:
    """Return low and high of the last band, [2, num_steps]."""
    x, y = ax.collections[-1].get_paths()[0].vertices.T
    return np.array([[y[x == step].min() for step in np.unique(x)], [y[x == step].max() for step in np.unique(x)]])


def test_predicted_changes_stand_over_the_exact_ones() -> None:
    updates, sweep = (result.read(DATA) for result in FIGURES["entropy_change"].inputs)
    left, right = draw("entropy_change", updates, sweep)
    for label, column in (("first order (27)", "first_order"), ("two factors", "two_factor")):
        np.testing.assert_array_equal(line(left, label), [updates["exact"], updates[column]])
    rate, guide = line(right, "slope 2")
    np.testing.assert_allclose(np.diff(np.log(guide)) / np.diff(np.log(rate)), 2.0)
    assert any("6 policies, slope 2.0" in item.get_label() for item in right.lines)


def test_score_norms_lie_below_the_drawn_bound() -> None:
    (ax,) = draw("score_norm")
    entropy, bound = line(ax, "bound $1 - e^{-H}$ (33)")
    np.testing.assert_allclose(bound, 1 - np.exp(-entropy), rtol=1e-12, atol=1e-15)
    for family in ("random", "one large token", "uniform on a subset"):
        x, y = line(ax, family)
        assert len(x) >= 4
        assert np.all(y <= 1 - np.exp(-x) + 1e-9)


def test_unknown_family_is_not_left_out_in_silence() -> None:
    (result,) = FIGURES["score_norm"].inputs
    policies = result.read(DATA)
    with pytest.raises(ValueError, match=r"G3: expected families among random, .* got sparse"):
        FIGURES["score_norm"].draw({**policies, "family": np.full(len(policies["family"]), "sparse", dtype=object)})


def test_curves_and_lines_of_the_variance_figure() -> None:
    """Two answers at p = .5 have variance 1 / (4 n (n - 1)) under RLOO: from 16 to 24 it falls to 240/552; by hand."""
    axes = draw("variance_ratio")
    assert [ax.get_title() for ax in axes] == ["two answers", "peaked answers", "diffuse answers"]
    for ax in axes:
        levels = [float(item.get_ydata()[0]) for item in ax.lines if len(item.get_xdata()) == 2]
        assert levels == pytest.approx([1.0, 2 / 3, 0.5])
    for label, left in (("REINFORCE", 2 / 3), ("RLOO", 240 / 552)):
        p, ratio = line(axes[0], label)
        assert p[0] == pytest.approx(1e-6)
        assert ratio[0] == pytest.approx(left, abs=1e-3)
    assert [item.get_label() for item in axes[0].lines[-3:]] == [
        "uniform allocation", "least if the variance were $\\sigma^2/n$, 0.67", 'claim "by up to 50 %"',
    ]  # fmt: skip


def test_slope_of_a_known_remainder() -> None:
    rate = np.geomspace(1e-4, 1e-1, 10)
    first = np.concatenate([rate, rate])
    exact = first + np.concatenate([3 * rate**2 + 50 * rate**4, 0.1 * rate**2])
    sweep = {"policy": np.repeat([0, 1], 10), "learning_rate": first, "exact": exact, "first_order": first}
    assert entropy_change.fitted_slope(sweep) == pytest.approx(2.0, abs=1e-3)


def test_slope_without_errors_to_fit_is_an_error() -> None:
    sweep = {name: np.ones(3) for name in ("policy", "learning_rate", "exact", "first_order")}
    with pytest.raises(ValueError, match="S4: expected a policy with two errors"):
        entropy_change.fitted_slope(sweep)


def test_floor_of_the_model_is_mean_over_high_of_one_pair_of_bounds() -> None:
    (result,) = FIGURES["variance_ratio"].inputs
    allocations = result.read(DATA)
    assert variance_ratio.model_floor(allocations) == 16 / 24
    other = {**allocations, "high": np.where(np.arange(len(allocations["high"])) == 0, 32, allocations["high"])}
    with pytest.raises(ValueError, match="A5: expected one pair of bounds and one mean, got several"):
        variance_ratio.model_floor(other)


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("variance_ratio", "population", "A5: expected at most 3 in population, got 7"),
        ("advantage_bound", "num_tokens", "G4: expected at most 10 success probabilities and 3 voc.*, got 1 and 7"),
    ],
)  # fmt: skip
def test_more_series_than_looks_is_an_error(name: str, column: str, message: str) -> None:
    (result,) = FIGURES[name].inputs
    columns = {key: values[:7] for key, values in result.read(DATA).items()}
    columns[column] = np.arange(7)
    with pytest.raises(ValueError, match=message):
        FIGURES[name].draw(columns)


def cell(method: str, seconds: float, setting: str = "w", is_toy: bool = True) -> CellResult:
    return CellResult(
        setting, is_toy, {"method": method}, 4, {"seconds_per_step": Estimate(seconds)}, {}, {"num_steps": 9}
    )


def test_bars_of_the_cost_say_what_a_method_adds() -> None:
    (ax,) = draw("fig6_efficiency", [cell("grpo", 2.0), cell("dynamo", 2.1), cell("clip-cov", 1.0)])
    widths = {label.get_text(): bar.get_width() for label, bar in zip(ax.get_yticklabels(), ax.patches, strict=True)}
    assert widths == {"GRPO": 2.0, "Clip-COV": 1.0, "DynaMO": 2.1}
    assert [text.get_text().strip() for text in ax.texts] == ["", "−50 %", "+5 %"]


def test_spikes_are_told_from_a_trend() -> None:
    falling = np.linspace(2.0, 1.0, 200)[None]
    np.testing.assert_allclose(fig5_dynamics.spikes(falling), 1.0, atol=0.02)
    spiky = falling.copy()
    spiky[0, ::40] *= 3
    np.testing.assert_allclose(fig5_dynamics.spikes(spiky), 3.0, rtol=0.05)
    np.testing.assert_allclose(fig5_dynamics.spikes(np.ones((2, 3))), 1.0)  # shorter than the window


def test_a_curve_that_turns_makes_a_detour() -> None:
    np.testing.assert_allclose(fig5_dynamics.detour(np.array([[3.0, 2.0, 1.0], [3.0, 4.0, 1.0]])), [1.0, 2.0])
    assert fig5_dynamics.detour(np.array([[1.0, 2.0, 1.0]])) == np.inf


def test_roughness_of_a_line_is_none_and_of_a_zigzag_is_known() -> None:
    np.testing.assert_allclose(fig5_dynamics.roughness(np.linspace(0, 1, 9)[None]), 0.0, atol=1e-15)
    np.testing.assert_allclose(fig5_dynamics.roughness(np.array([[0.0, 1.0] * 5])), 2.0)


def test_rank_correlations_of_a_known_order() -> None:
    p = np.array([0.1, 0.3, 0.5, 0.9])
    variances = {
        "p": np.tile(p, 2), "proxy": np.tile(p * (1 - p), 2), "population": np.array(["one"] * 8, dtype=object),
        "estimator": np.repeat(np.array(["same", "opposite"], dtype=object), 4),
        "variance": np.concatenate([3 * p * (1 - p), -2 * p * (1 - p)]),
    }  # fmt: skip
    _, estimators, table = variance_order.correlations(variances)
    assert estimators == ["same", "opposite"]
    np.testing.assert_allclose(table, [[1.0, -1.0]])


def test_runs_at_scale_are_paired_by_seed_and_stay_out_of_experiments_that_lack_their_pair(
    built: dict[str, Built],
) -> None:
    (experiment,) = FIGURES["fig4_scaling"].inputs
    tiny = {cell.axes["method"]: cell for cell in experiment.read(DATA) if not cell.is_toy}
    last = {}
    for run in product(("grpo", "dynamo"), (1, 2)):
        table = pq.read_table(DATA / "scale" / "{}-seed{}".format(*run) / "metrics.parquet")
        last[run] = table["val-core/tiny-arithmetic/acc/mean@8"][-1].as_py()
    assert set(tiny) == {"grpo", "dynamo"}
    assert tiny["grpo"].num_seeds == tiny["dynamo"].num_seeds == 2
    gains = [last["dynamo", seed] - last["grpo", seed] for seed in (1, 2)]
    assert tiny["dynamo"].differences["pass_at_1"].value == pytest.approx(np.mean(gains))
    assert not tiny["grpo"].differences
    assert "tiny" in built["fig4_scaling"].caption
    assert "tiny" not in built["fig2_budgets"].caption  # there is no run of DynaMO without its allocation


def test_a_measure_that_a_run_does_not_reach_is_left_out_and_others_are_required() -> None:
    (experiment,) = FIGURES["fig2_budgets"].inputs
    assert isinstance(experiment, ExperimentResults)
    cells = replace(experiment, measures=("pass_at_1",), where_reached=("pass_at_32", "never")).read(DATA)
    assert all(list(cell.values) == ["pass_at_1", "pass_at_32"] for cell in cells)
    with pytest.raises(ValueError, match=r"summary\.parquet: expected one row of never for every cell, got 0"):
        replace(experiment, measures=("never",)).read(DATA)


def test_norm_matched_methods_are_rows_of_their_own(source: Path) -> None:
    (methods,) = TABLES["table1_methods"].inputs
    worlds = ["mixed", "skills"]
    assert settings([cell for cell in methods.read(source) if cell.is_toy]) == worlds
    shutil.copytree(source / "toy" / "table1", source / "toy" / "norm-matched" / "table1")
    cells = methods.read(source)
    assert settings(cells) == [*worlds, "tiny", *(f"{world}, norm-matched" for world in worlds)]
    assert "norm-matched: at learning rates" in TABLES["table1_methods"].caption(cells)
    assert len(TABLES["table1_methods"].fill(cells).groups) == 5


def test_times_are_read_without_a_verdict() -> None:
    reading = FIGURES["fig6_efficiency"].reading
    near, far = ([cell("grpo", 2.0), cell("dynamo", seconds), cell("clip-cov", 1.0)] for seconds in (2.1, 3.0))
    for cells, extra in ((near, 5), (far, 50)):
        assert reading(cells) == (
            f"Time per step against GRPO's: w: DynaMO +{extra} %, the other methods −50 %. The paper says that "
            "DynaMO's time is comparable, beside that of a language model; a tabular step has no model to run, so that "
            "these are times only and no verdict."
        )
