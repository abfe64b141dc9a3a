"""The paper's experiments: their cells are the paper's, and every one of them can be launched."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from scale.launch.experiments import EXPERIMENTS, Cell, Experiment, distinct, get_cell
from theory.claims.published import TABLE_1 as PUBLISHED
from theory.methods import METHODS
from theory.methods.grids import METHODS_OF_TABLE_1, METHODS_OF_TABLE_2

pytestmark = pytest.mark.versionless

OWNERS = {cell.folder: name for name, x in reversed(EXPERIMENTS.items()) for cell in x.cells}
"""The first experiment that has a run."""


def test_tables_have_the_methods_of_the_table():
    """Table 1 and 2 together are all methods, each once but for DynaMO and GRPO."""
    assert {*METHODS_OF_TABLE_1, *METHODS_OF_TABLE_2} == set(METHODS)
    assert set(METHODS_OF_TABLE_1) & set(METHODS_OF_TABLE_2) == {"dynamo", "grpo"}
    assert (len(METHODS_OF_TABLE_1), len(METHODS_OF_TABLE_2)) == (9, 8)
    for methods in PUBLISHED.values():
        assert [METHODS[name].title.lower() for name in METHODS_OF_TABLE_1] == [
            x.removesuffix(" (Ours)").lower() for x in methods
        ]


def test_sizes():
    assert {name: len(x.cells) for name, x in EXPERIMENTS.items()} == {
        "table1": 2 * 9 * 3,
        "table2": 8 * 3,
        "fig2": 4 * 2 * 3,
        "fig3": 13 * 3,
        "fig4": 3 * 2 * 3,
        "smoke": 2,
    }


def test_a_run_that_experiments_share_is_trained_once():
    shared = {
        get_cell(*x).folder
        for x in (
            ("table1", "7b-dynamo-2"),
            ("table2", "dynamo-2"),
            ("fig2", "n16-dynamo-2"),
            ("fig3", "default-2"),
            ("fig4", "7b-dynamo-2"),
        )
    }
    assert shared == {Path("results/scale/qwen2.5-math-7b-dynamo-2")}
    cells = [cell for x in EXPERIMENTS.values() for cell in x.cells]
    runs = {(cell.model, cell.settings) for cell in cells}
    assert len(runs) == len(distinct()) == len({cell.folder for cell in cells}) == len(OWNERS)


def test_budgets_keep_the_shape_of_the_papers_bounds():
    cells = {cell.name: cell for cell in EXPERIMENTS["fig2"].cells if cell.method == "dynamo"}
    for mean in (8, 24, 32):
        _, low, high = (int(x.split("=")[1]) for x in cells[f"n{mean}-dynamo-1"].overrides)
        assert (low / mean, high / mean) == (8 / 16, 24 / 16)


def test_bad_names():
    with pytest.raises(ValueError, match=r"experiment: expected one of table1, .*, got 'table9'"):
        get_cell("table9", "dynamo-1")
    with pytest.raises(ValueError, match=r"cell: expected one of 1\.5b-grpo-1, .*, got 'dynamo-1'"):
        get_cell("table1", "dynamo-1")
    cell = Cell("a", "tiny", "grpo", 1)
    with pytest.raises(ValueError, match="cells: expected different names, got a, a"):
        Experiment("x", "", (cell, cell))


# Every cell


@pytest.fixture(scope="module")
def launch():
    return pytest.importorskip("scale.launch")


@pytest.mark.needs_verl
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_cell_passes_what_a_dry_run_checks(launch, name):
    """In this process, since verl takes ten seconds to import; runs that experiments share are checked once."""
    for cell in (x for x in EXPERIMENTS[name].cells if OWNERS[x.folder] == name):
        tiny = ["tiny_folder=/nowhere"] if cell.model == "tiny" else []
        config = launch.compose(cell.model, out=cell.folder, overrides=[*cell.settings, *tiny])
        launch.check(config, cell.folder, files=False)
        node, low, high = config.dynamo, config.dynamo.rollouts_low, config.dynamo.rollouts_high
        assert (node.method, node.seed, config.data.seed) == (cell.method, cell.seed, cell.seed)
        assert low <= config.actor_rollout_ref.rollout.n <= high
        assert config.trainer.experiment_name == cell.folder.name
        if cell.model != "tiny":
            assert config.trainer.n_gpus_per_node * config.trainer.nnodes == (16 if cell.model == "qwen3-14b" else 8)


@pytest.mark.needs_verl
@pytest.mark.parametrize(
    ("cell", "settings"),
    [
        ("alpha0-1", {"alpha": 0.0}),
        ("bounds12-20-1", {"rollouts_low": 12, "rollouts_high": 20}),
        ("sharpness200-1", {"sharpness": 200}),
        ("threshold0.99-3", {"threshold": 0.99}),
        ("default-1", {"rollouts_low": 8, "rollouts_high": 24, "alpha": None}),
    ],
)
def test_a_factor_reaches_the_method(launch, cell, settings):
    from scale.plugin.config import DynamoConfig

    found = get_cell("fig3", cell)
    config = launch.compose(found.model, out=found.folder, overrides=found.settings)
    method = DynamoConfig.from_mapping(config.dynamo).resolved()
    for name, value in settings.items():
        assert config.dynamo[name] == value
        if value is not None and hasattr(method.shaping, name):
            assert getattr(method.shaping, name) == value


# The command line


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Return what a command says, and its status."""
    from scale.__main__ import main

    monkeypatch.chdir(tmp_path)

    def call(*words):
        status = main(words)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_the_list_is_of_commands(run):
    """A line for every cell, which names model, method, seed and folder in full."""
    status, out, _ = run("experiments", "fig2", "smoke")
    lines = [shlex.split(line) for line in out.splitlines() if not line.startswith("#")]
    assert status == 0
    assert lines == [shlex.split(x.command()) for name in ("fig2", "smoke") for x in EXPERIMENTS[name].cells]
    assert all(line[:4] == ["python", "-m", "scale", "train"] for line in lines)
    assert "# fig2: average rollouts, with dynamic allocation and without; 24 runs" in out
    assert run("experiments")[1].splitlines()[-1].startswith(f"# {len(distinct())} runs in all")


def test_an_unknown_experiment(run):
    assert run("experiments", "table9")[2].startswith("python -m scale experiments: error: NAME: expected one of")


@pytest.mark.needs_verl
def test_a_cell_and_its_command_are_the_same_run(run):
    """But for the line that repeats the call."""
    _, listed, _ = run("experiments", "fig2")
    command = next(line for line in listed.splitlines() if "dynamo-no-dra-n8-2" in line)
    one = run("train", "--experiment", "fig2", "--cell", "n8-dynamo-no-dra-2", "--dry-run")
    other = run(*shlex.split(command)[3:], "--dry-run")
    assert one[0] == other[0] == 0
    assert one[1].splitlines()[1:] == other[1].splitlines()[1:]
    assert one[1].startswith("launch       python -m scale train --experiment fig2 --cell n8-dynamo-no-dra-2\n")
    assert "4,096 a step (512 prompts x 8)" in one[1]


@pytest.mark.needs_verl
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--experiment", "table1"], "experiment: expected --experiment and --cell together"),
        (["--cell", "7b-grpo-1"], "experiment: expected --experiment and --cell together"),
        (["--experiment", "table1", "--cell", "7b-grpo-9"], "cell: expected one of 1.5b-grpo-1"),
        (
            ["--experiment", "table1", "--cell", "7b-grpo-1", "--seed", "4", "--model", "tiny"],
            "cell: expected a run named by --experiment and --cell alone, got --model, --seed too",
        ),
    ],
)
def test_a_cell_is_named_in_one_way(run, words, message):
    status, _, err = run("train", *words, "--dry-run")
    assert status == 2
    assert message in err


@pytest.mark.needs_verl
def test_the_estimate_of_an_experiment(run):
    status, out, _ = run("experiments", "fig4", "--estimate")
    assert status == 0
    for name in ("qwen2.5-math-1.5b", "qwen2.5-math-7b", "qwen3-14b"):
        assert f"#   {name}: 6 runs, " in out
