"""Every figure: built from committed results, the same bytes twice, fonts inside; and the command around them."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from paper_figs import entropy_change, variance_ratio
from paper_figs.__main__ import main
from paper_figs.figure import build, figures
from paper_figs.sources import Curves, LedgerData, Run, ToyRun
from paper_figs.style import COLUMN_WIDTH, RC, TEXT_WIDTH
from tests.paper_figs import make_data
from tests.paper_figs.make_data import DATA

NAMES = list(figures())
SUFFIXES = ("pdf", "svg", "png")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    for figure in figures().values():
        build(figure, DATA, folder)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA, tmp_path / "results"))


def test_every_figure_is_found() -> None:
    assert NAMES == ["advantage_bound", "bandit_training", "entropy_change", "score_norm", "variance_ratio"]
    assert all(figure.name == name for name, figure in figures().items())


def test_second_build_has_the_same_bytes(built: Path, source: Path) -> None:
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
    again = sorted((source / "figures").iterdir())
    assert [path.name for path in again] == sorted(f"{name}.{suffix}" for name in NAMES for suffix in SUFFIXES)
    for path in again:
        assert path.read_bytes() == (built / path.name).read_bytes(), path.name
        assert f"  {path}\n" in run.stdout


@pytest.mark.parametrize("name", NAMES)
def test_caption_is_one_line_that_says_what_the_data_are(name: str) -> None:
    figure = figures()[name]
    caption = figure.caption(*(result.read(DATA) for result in figure.inputs))
    assert "\n" not in caption
    assert caption.endswith(".")
    for kind, facts in ((ToyRun, ("6 seeds", "95 % percentile bootstrap")), (LedgerData, ("ledger row",))):
        if any(isinstance(result, kind) for result in figure.inputs):
            assert all(fact in caption for fact in facts)


@pytest.mark.parametrize("name", NAMES)
def test_print_size_and_fonts(built: Path, name: str) -> None:
    width, height = struct.unpack(">II", (built / f"{name}.png").read_bytes()[16:24])
    assert width / 300 in (pytest.approx(COLUMN_WIDTH, abs=0.01), pytest.approx(TEXT_WIDTH, abs=0.01))
    assert height / 300 < 9
    pdf = (built / f"{name}.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"/CreationDate" not in pdf
    svg = (built / f"{name}.svg").read_text()
    assert "<text" not in svg  # outlines: it looks the same where the font is missing
    assert "dc:date" not in svg


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_drawn_outside_the_page_or_over_a_legend(name: str) -> None:
    figure = figures()[name]
    with matplotlib.rc_context(RC):
        drawing = figure.draw(*(result.read(DATA) for result in figure.inputs))
        FigureCanvasAgg(drawing).draw()
        page = drawing.bbox
        legends = [legend for ax in drawing.axes if (legend := ax.get_legend())] + list(drawing.legends)
        boxes = [legend.get_window_extent() for legend in legends]
        texts = [t for ax in drawing.axes for t in (ax.title, ax._left_title, *ax.texts) if t.get_text()]
        boxes += [text.get_window_extent() for text in texts]
        boxes += [ax.get_tightbbox() for ax in drawing.axes]
        for box in boxes:
            assert page.x0 - 1 <= box.x0 <= box.x1 <= page.x1 + 1
            assert page.y0 - 1 <= box.y0 <= box.y1 <= page.y1 + 1
        for legend in legends:
            for text in texts:
                assert not legend.get_window_extent().overlaps(text.get_window_extent()), text.get_text()


# What the figures say


def draw(name: str, *data: object) -> list[Axes]:
    """Draw a figure, of the committed results unless given, and return its axes."""
    figure = figures()[name]
    return figure.draw(*(data or [result.read(DATA) for result in figure.inputs])).axes


def line(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the line with that label."""
    (found,) = (line for line in ax.lines if line.get_label() == label)
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


def test_training_curves_and_their_paired_difference() -> None:
    seeds, steps = np.arange(4), np.arange(3)
    offsets = np.array([-0.3, 0.0, 0.1, 0.2])[:, None]
    gain = np.array([0.0, 0.1, 0.4])
    config = {"method_name": "", "method": {}, "world_name": "w", "rollouts": 16}

    def run(name: str, added: np.ndarray) -> Run:
        values = {"pass_at_1": 0.4 + offsets + added, "entropy": 1 + offsets, "gradient_norm": 2 + offsets}
        return Run(
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
    updates, sweep = (result.read(DATA) for result in figures()["entropy_change"].inputs)
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
    (result,) = figures()["score_norm"].inputs
    policies = result.read(DATA)
    with pytest.raises(ValueError, match=r"G3: expected families among random, .* got sparse"):
        figures()["score_norm"].draw({**policies, "family": np.full(len(policies["family"]), "sparse", dtype=object)})


def test_ratios_and_lines_of_the_variance_figure() -> None:
    (ax,) = draw("variance_ratio")
    cv, ratio = line(ax, "$1/(1 + \\mathrm{CV}^2)$ (44)")
    np.testing.assert_allclose(ratio, 1 / (1 + cv**2), rtol=1e-9)
    levels = [
        float(item.get_ydata()[0])
        for item in ax.lines
        if len(set(item.get_ydata())) == 1 and len(item.get_xdata()) == 2
    ]
    assert levels == pytest.approx([2 / 3, 0.5])
    assert [text.get_text().strip() for text in ax.texts] == ["floor of the bounds, 0.67", 'claim "by up to 50 %"']


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


@pytest.mark.parametrize("cv", [0.0, 0.3, 1.0, 2.7, 11.0])
def test_reference_curve_is_eq_44(cv: float) -> None:
    assert variance_ratio.ratio_without_bounds(cv) == pytest.approx(1 / (1 + cv**2), rel=1e-12)


def test_floor_of_the_papers_bounds_is_two_thirds() -> None:
    (result,) = figures()["variance_ratio"].inputs
    assert variance_ratio.floors(result.read(DATA)) == [16 / 24]


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("variance_ratio", "population", "A5: expected at most 6 populations, got 7"),
        ("advantage_bound", "num_tokens", "G4: expected at most 10 success probabilities and 3 voc.*, got 1 and 7"),
    ],
)  # fmt: skip
def test_more_series_than_looks_is_an_error(name: str, column: str, message: str) -> None:
    (result,) = figures()[name].inputs
    columns = {key: values[:7] for key, values in result.read(DATA).items()}
    columns[column] = np.arange(7)
    with pytest.raises(ValueError, match=message):
        figures()[name].draw(columns)


# The command


def test_unfit_input_is_named_and_the_others_are_drawn(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "ledger" / "G3.parquet").write_bytes(b"PAR1")
    (source / "toy" / "dynamo" / "config.json").unlink()
    assert main(["--source", str(source)]) == 2
    out, err = capsys.readouterr()
    assert err.splitlines()[0].startswith(f"bandit_training: {source / 'toy' / 'dynamo' / 'config.json'}: expected")
    assert err.splitlines()[1].startswith(f"score_norm: {source / 'ledger' / 'G3.parquet'}: expected")
    assert len(err.splitlines()) == 2
    assert sorted(path.stem for path in (source / "figures").glob("*.pdf")) == [
        "advantage_bound", "entropy_change", "variance_ratio",
    ]  # fmt: skip
    assert out.count("\n") == 12


def test_only(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source", str(source), "--only", "score_norm"]) == 0
    assert sorted(path.name for path in (source / "figures").iterdir()) == [f"score_norm.{s}" for s in sorted(SUFFIXES)]
    assert capsys.readouterr().out.startswith("score_norm: Mean squared norm of the score")


def test_unknown_figure_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "fig9"])
    assert f"--only: expected names among {', '.join(NAMES)}, got fig9" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_named(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "figures").write_text("a file")
    assert main(["--source", str(source), "--only", "score_norm"]) == 2
    assert str(source / "figures") in capsys.readouterr().err


@pytest.mark.parametrize("what", ["config", "seeds", "steps"])
def test_runs_that_do_not_pair_are_refused(source: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = source / "toy" / "dynamo"
    metrics = pq.read_table(folder / "metrics.parquet")
    if what == "config":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "rollouts": 8}))
        expected = "got other rollouts"
    elif what == "seeds":
        metrics = metrics.set_column(0, "seed", pa.array(metrics["seed"].to_numpy() + 1))
        expected = "got other seeds"
    else:
        metrics = metrics.filter(metrics["step"].to_numpy() < 8)
        expected = "got other steps of pass_at_1, steps of entropy, steps of gradient_norm"
    pq.write_table(metrics, folder / "metrics.parquet")
    assert main(["--source", str(source), "--only", "bandit_training"]) == 2
    assert f"expected runs that differ in the method only, {expected}" in capsys.readouterr().err


def test_figures_read_what_the_commands_write(tmp_path: Path) -> None:
    # The committed files may age; this makes fresh ones.
    make_data.write_ledger(tmp_path)
    make_data.write_runs(tmp_path, num_seeds=2, num_steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["--source", str(tmp_path)]) == 0
