"""What the guides of docs/ say: files that they name are there, numbers that they quote are computed again."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.test_docs import DOCS, ROOT, blocks, commands, each_page


@each_page
def test_files_are_there(path: Path):
    """What pages link to, and what they call by its path."""
    text = path.read_text()
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", text):
        assert (path.parent / target).exists(), target
    named = re.findall(
        r"(?<![\w/.-])((?:scale|requirements|notebooks|tests|docs|toy|theory|paper_figs)/[\w./-]*\w)", text
    )
    for name in named:
        assert (ROOT / name).exists(), name


def test_audit_understands_every_log_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from scale.__main__ import main

    run = ROOT / "notebooks" / "data" / "verl_run"
    shutil.copytree(run / "rollouts", tmp_path / "rollouts")
    shutil.copytree(run, tmp_path / "results" / "scale" / "my-run")
    shutil.copytree(run, tmp_path / "notebooks" / "data" / "verl_run")
    lines = [line for file in (run / "rollouts").iterdir() for line in file.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    table = {
        "prompt": [x["input"] for x in rows],
        "step": [x["step"] for x in rows],
        "reward": [x["score"] for x in rows],
    }
    pq.write_table(pa.table(table), tmp_path / "log.parquet")
    (tmp_path / "output" / "completions").mkdir(parents=True)
    for step in set(table["step"]):
        at = [i for i, x in enumerate(table["step"]) if x == step]
        part = {name: [column[i] for i in at] for name, column in table.items() if name != "reward"}
        part |= {"completion": [rows[i]["output"] for i in at], "accuracy": [table["reward"][i] for i in at]}
        part["advantage"] = [0.0] * len(at)
        pq.write_table(pa.table(part), tmp_path / "output" / "completions" / f"completions_{step:05d}.parquet")
    monkeypatch.chdir(tmp_path)
    lines = [line for line in commands(DOCS / "audit.md") if line.startswith("python -m scale audit ")]
    assert len(lines) >= 5
    for line in lines:
        assert main(shlex.split(line)[3:]) == 0
    assert {path.suffix for path in (tmp_path / "audit").iterdir()} >= {".json", ".parquet", ".png"}


def test_the_audit_shown_is_what_the_command_says(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    from scale.__main__ import main

    monkeypatch.chdir(ROOT)
    (command,) = [line for line in commands(DOCS / "audit.md") if "notebooks/data" in line]
    assert main(shlex.split(command)[3:]) == 0
    said = " ".join(capsys.readouterr().out.split())
    (block,) = blocks(DOCS / "audit.md", "text")
    assert len(block.splitlines()) > 8
    for line in block.splitlines():
        assert " ".join(line.split()) in said


GUIDE = DOCS / "laptop-to-a100s.md"


def rows_of(heading: str) -> list[list[str]]:
    """Return the cells of the guide's table under a line of heads that starts with a word."""
    found = re.search(rf"^\| {heading}[^\n]*\n\|[-|]+\n((?:\|[^\n]*\n)+)", GUIDE.read_text(), re.M)
    assert found, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def test_metrics_to_watch_are_logged():
    columns = pq.read_schema(ROOT / "notebooks" / "data" / "verl_run" / "metrics.parquet").names
    named = [name for cell, _ in rows_of("metric") for name in re.findall(r"`([^`]+)`", cell)]
    assert len(named) >= 5
    assert set(named) <= set(columns)


def test_clusters_of_the_models_are_the_default():
    models = ROOT / "scale" / "conf" / "model"
    named = {name: cluster for names, cluster, _ in rows_of("model") for name in re.findall(r"`([^`]+)`", names)}
    assert named.keys() == {path.stem for path in models.glob("*.yaml")}
    for name, cluster in named.items():
        assert f"default_cluster: {cluster.strip('`')}\n" in (models / f"{name}.yaml").read_text()


def test_numbers_of_runs():
    from scale.launch.experiments import EXPERIMENTS

    named = {cell.strip("`"): int(number) for cell, number, _ in rows_of("experiment")}
    assert named == {name: len(found.cells) for name, found in EXPERIMENTS.items() if name != "smoke"}


@pytest.mark.needs_verl
def test_costs_of_runs_are_those_of_a_dry_run(tmp_path: Path):
    from scale import launch
    from scale.launch import estimate
    from scale.launch.budgets import BUDGETS
    from scale.launch.estimate_report import in_words

    named = set()
    for budget, run, *costs in rows_of("budget"):
        model, cluster = re.findall(r"`([^`]+)`", run)
        settings = BUDGETS[budget.strip("`")].settings
        config = launch.compose(model, cluster, out=tmp_path, overrides=["dynamo.method=dynamo", *settings])
        found = estimate.needs(config)
        seconds, steps = found["step_seconds"]["step"], found["steps"]
        days = [x * steps / 86400 for x in seconds]
        assert costs == [in_words([x / 60 for x in seconds]), in_words(days), in_words(found["gpu_hours"])]
        named.add(budget.strip("`"))
    assert named == BUDGETS.keys()


@pytest.mark.needs_verl
def test_costs_of_experiments_are_those_of_the_estimate(tmp_path: Path):
    from scale import launch
    from scale.launch import estimate
    from scale.launch.estimate_report import in_words
    from scale.launch.experiments import get_experiment

    hours: dict[tuple[str, ...], list[float]] = {}  # a seed costs nothing
    for name, _, cost in rows_of("experiment"):
        total: dict[str, list[float]] = {}
        for cell in get_experiment(name.strip("`")).cells:
            run = (cell.model, cell.method, cell.variant)
            if run not in hours:
                config = launch.compose(cell.model, out=tmp_path, overrides=cell.settings)
                hours[run] = estimate.needs(config)["gpu_hours"]
            so_far = total.get(cell.model, [0.0, 0.0])
            total[cell.model] = [x + y for x, y in zip(so_far, hours[run], strict=True)]
        assert cost.split("; ") == [f"{in_words(found)} (`{model}`)" for model, found in total.items()], name


def test_the_page_on_what_can_go_wrong_counts_the_trials_that_there_are():
    from tests import test_commands
    from tests.paper_figs import test_fuzz_readers
    from tests.scale import test_damaged_files
    from tests.scale.run import test_kills
    from tests.theory import fuzzing, test_faults

    kills = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", test_kills.__file__],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.count("::")
    text = (DOCS / "what-can-go-wrong.md").read_text()
    rows = re.findall(r"^\|(.+\|.+)\| `(tests/.+)` \|$", text.replace("100,000", "").replace(",", ""), re.M)
    said = {path: re.findall(r"\d+", row) for row, path in rows}
    assert said == {
        "tests/scale/rewards/test_kills.py": ["200"],
        "tests/scale/run/test_kills.py": [str(kills)],
        "tests/scale/test_damaged_files.py": [str(len(test_damaged_files.READERS)), str(fuzzing.MOST_DAMAGED)],
        "tests/paper_figs/test_fuzz_readers.py": [str(len(test_fuzz_readers.READERS)), str(2 * fuzzing.MOST_DAMAGED)],
        "tests/test_commands.py": [str(test_commands.NUM_CASES)],
        "tests/scale/sockets.py": [],
        "tests/theory/test_faults.py": [str(len(test_faults.FAULTS))],
    }
