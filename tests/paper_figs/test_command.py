"""`python -m paper_figs`: what it makes, skips and refuses, and what it leaves in the index."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paper_figs.__main__ import main
from paper_figs.figure import Figure, items
from paper_figs.result_files import LedgerData
from tests.paper_figs import make_data
from tests.paper_figs.make_data import DATA, seal
from theory.base.files import only_writer, read_json, write_json

ITEMS = items()
FIGURES = {name: item for name, item in ITEMS.items() if isinstance(item, Figure)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA, tmp_path / "results"))


def test_unfit_input_is_named_and_the_others_are_drawn(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoiled = {"fig3_hyperparameters": "toy/fig3/summary.parquet", "table1_methods": "toy/table1/summary.parquet"}
    spoiled["table1_matched"] = spoiled["table1_methods"]
    for file in spoiled.values():
        (source / file).write_bytes(b"PAR1")
    (source / "toy" / "dynamo" / "config.json").unlink()
    spoiled["bandit_training"] = "toy/dynamo/config.json"
    shutil.rmtree(source / "ledger")
    for name, item in ITEMS.items():
        first = next(iter(item.inputs), None)
        spoiled |= {name: "ledger/data.json"} if isinstance(first, LedgerData) else {}
    shutil.rmtree(source / "toy" / "fig6")
    shutil.rmtree(source / "scale")
    assert main(["--source", str(source)]) == 2
    out, err = capsys.readouterr()
    told = [line.split(": expected ")[0] for line in err.splitlines()]
    assert told == [f"{name}: {source / spoiled[name]}" for name in ITEMS if name in spoiled]
    assert "fig6_efficiency: skipped: no results; `python -m toy sweep fig6 --jobs 1` makes them\n" in out
    index = {entry["name"]: entry for entry in json.loads((source / "figures" / "index.json").read_text())["items"]}
    assert {name for name, entry in index.items() if "error" in entry} == set(spoiled)
    assert {name for name, entry in index.items() if "skipped" in entry} == {"fig6_efficiency"}
    made = set(FIGURES) - set(spoiled) - {"fig6_efficiency"}
    assert {path.stem for path in (source / "figures").glob("*.pdf")} == made != set()


def test_unfit_run_at_scale_is_named(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = min((source / "scale").glob("*/config.json"))
    write_json(path, {"dynamo": {}})
    seal(path.parent / "versions.json")
    shutil.rmtree(source / "toy" / "fig6")
    assert main(["--source", str(source), "--only", "fig6_efficiency", "table3_configuration"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert [line.split(": expected ")[0].split(": ")[1] for line in err] == [str(path)] * 2


def test_only_renews_one_entry_of_the_index(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("score_norm", "fig1_overview", "score_norm"):
        assert main(["--source", str(source), "--only", name]) == 0
    index = json.loads((source / "figures" / "index.json").read_text())["items"]
    assert [entry["name"] for entry in index] == ["fig1_overview", "score_norm"]
    assert "score_norm: Mean squared norm of the score" in capsys.readouterr().out


def test_an_index_that_was_changed_is_refused_and_stays(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source", str(source), "--only", "score_norm"]) == 0
    path = source / "figures" / "index.json"
    path.write_text(path.read_text().replace("score", "sc0re"))
    changed = path.read_bytes()
    capsys.readouterr()
    assert main(["--source", str(source), "--only", "fig1_overview"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"python -m paper_figs: error: {path}: expected ")
    assert err.endswith(f"; make it with `python -m paper_figs --source {source}`\n")
    assert path.read_bytes() == changed
    assert not list((source / "figures").glob("fig1*"))


def test_figures_have_one_writer(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with only_writer(source / "figures"):
        assert main(["--source", str(source), "--only", "score_norm"]) == 2
        assert [path.name for path in (source / "figures").iterdir()] == [".lock"]
    assert capsys.readouterr().err.startswith(f"python -m paper_figs: error: {source / 'figures'}: expected no other")
    assert main(["--source", str(source), "--only", "score_norm"]) == 0
    assert not (source / "figures" / ".lock").exists()


def test_unknown_figure_lists_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--only", "fig9"])
    assert f"--only: expected names among {', '.join(ITEMS)}, got fig9" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_named(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "figures").write_text("a file")
    assert main(["--source", str(source), "--only", "fig1_overview"]) == 2
    assert str(source / "figures") in capsys.readouterr().err


@pytest.mark.parametrize("what", ["config", "seeds", "steps"])
def test_runs_that_do_not_pair_are_refused(source: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = source / "toy" / "dynamo"
    metrics = pq.read_table(folder / "metrics.parquet")
    if what == "config":
        write_json(folder / "config.json", {**read_json(folder / "config.json"), "rollouts": 8})
        expected = "got other rollouts"
    elif what == "seeds":
        metrics = metrics.set_column(0, "seed", pa.array(metrics["seed"].to_numpy() + 1))
        versions = read_json(folder / "versions.json")
        write_json(folder / "versions.json", {**versions, "seeds": [seed + 1 for seed in versions["seeds"]]})
        expected = "got other seeds"
    else:
        metrics = metrics.filter(metrics["step"].to_numpy() < 8)
        expected = "got other steps of pass_at_1, steps of entropy, steps of gradient_norm"
    pq.write_table(metrics, folder / "metrics.parquet")
    seal(folder / "versions.json")
    assert main(["--source", str(source), "--only", "bandit_training"]) == 2
    assert f"expected runs that differ in the method only, {expected}" in capsys.readouterr().err


def test_figures_read_what_the_commands_write(tmp_path: Path) -> None:
    # The committed files may age; this makes fresh ones.
    make_data.write_runs(tmp_path, num_seeds=2, num_steps=2)
    make_data.write_sweeps(tmp_path, ["fig5"], num_seeds=2, num_steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["--source", str(tmp_path), "--only", "bandit_training", "fig5_dynamics"]) == 0
