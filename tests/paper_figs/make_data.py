"""Recipe of `tests/paper_figs/data`: real results, thinned to a few hundred kB.

Run `python -m tests.paper_figs.make_data [FOLDER] [--scale RUNS]` from the root of the repository. RUNS are real runs
of verl; those that are committed were made with

    python -m scale smoke --out RUNS/S --methods grpo dynamo --steps 6 --seed S        (S = 1, 2)
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from theory.__main__ import main as judge
from theory.base.files import hashes, read_json, write_json
from theory.base.runs import DATA_FILE, VERSIONS_FILE
from toy.experiments.design import Sweep
from toy.experiments.runner import run_sweeps
from toy.experiments.sweeps import SWEEPS
from toy.training.config import TrainConfig
from toy.training.loop import train

DATA = Path(__file__).parent / "data"
ROWS = ("S3", "S4", "G3", "G4", "A5", "A7", "A10", "M4")
METHODS = ("grpo", "dynamo")

SHORT = ("fig4", "fig6", "allocation-map", "allocation-map-more", "paper-vs-code")
LONGER = ("table1", "table2", "fig2", "fig3", "fig5", "horizons")

# What is kept of runs at scale: of their configs (which hold paths of the machine), and of their metrics.
SETTINGS = (
    "dynamo", "data.train_batch_size", "data.max_prompt_length", "data.max_response_length",
    "trainer.total_training_steps", "algorithm.adv_estimator", "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.optim.optimizer", "actor_rollout_ref.actor.optim.lr",
    "actor_rollout_ref.actor.optim.weight_decay", "actor_rollout_ref.actor.optim.lr_warmup_steps",
    "actor_rollout_ref.actor.grad_clip", "actor_rollout_ref.actor.clip_ratio_low",
    "actor_rollout_ref.actor.clip_ratio_high", "actor_rollout_ref.actor.clip_ratio_c",
    "actor_rollout_ref.actor.loss_agg_mode", "actor_rollout_ref.actor.entropy_coeff",
    "actor_rollout_ref.actor.use_kl_loss", "actor_rollout_ref.rollout.n", "actor_rollout_ref.rollout.temperature",
    "actor_rollout_ref.rollout.top_p", "actor_rollout_ref.rollout.top_k", "actor_rollout_ref.rollout.name",
    "actor_rollout_ref.rollout.tensor_model_parallel_size", "actor_rollout_ref.rollout.gpu_memory_utilization",
    "actor_rollout_ref.rollout.max_num_seqs", "actor_rollout_ref.rollout.max_num_batched_tokens",
)  # fmt: skip
METRICS = ("seed", "step", "actor/entropy", "actor/grad_norm", "timing_s/step", "val-core/tiny-arithmetic/acc/mean@8")


def write_ledger(source: Path) -> None:
    """Write the data of the ledger's rows as `python -m theory` does."""
    with contextlib.redirect_stdout(io.StringIO()):
        judge(["--only", *ROWS, "--data", str(source / "ledger")])


def write_runs(source: Path, num_seeds: int, num_steps: int) -> None:
    """Write a short run of each method."""
    for method in METHODS:
        config = TrainConfig.named(method, "mixed", num_seeds=num_seeds, num_steps=num_steps)
        with tempfile.TemporaryDirectory() as folder:
            train(config, out=Path(folder))
            copy_run(Path(folder), source / "toy" / method)


def copy_run(folder: Path, target: Path) -> None:
    """Copy a run without its checkpoint."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "metrics.parquet", "versions.json"):
        shutil.copy(folder / name, target / name)


def short(sweep: Sweep, num_seeds: int, num_steps: int) -> Sweep:
    """Return a sweep with few seeds and few steps, and all its cells but those of slow worlds."""
    cells = (
        replace(cell, config=replace(cell.config, num_seeds=num_seeds, num_steps=num_steps))
        for cell in sweep.cells
        if sweep.name != "horizons" or cell.config.world_name in ("mixed", "skills")
    )
    return replace(sweep, cells=tuple(cells))


def write_sweeps(source: Path, names: Iterable[str], num_seeds: int, num_steps: int) -> None:
    """Write short sweeps: the summary, and of the cells what the figures read."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for sweep, _ in run_sweeps([short(SWEEPS[name], num_seeds, num_steps) for name in names], out):
            target = source / "toy" / sweep.name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(out / sweep.name / "summary.parquet", target)
            about = read_json(out / sweep.name / "summary.json")
            write_json(target / "summary.json", {name: about[name] for name in about if name != "rows"})
            firsts = {cell.config.world_name: cell for cell in reversed(sweep.cells)}.values()
            for cell in sweep.cells:
                is_read = cell in firsts or (sweep.name, cell.axes.get("method")) == ("table1", "dynamo")
                if sweep.name == "fig5":
                    copy_run(out / sweep.name / cell.name, target / cell.name)
                elif is_read or "world" not in sweep.axes:
                    (target / cell.name).mkdir(exist_ok=True)
                    shutil.copy(out / sweep.name / cell.name / "config.json", target / cell.name)


def write_scale(source: Path, runs: Path) -> None:
    """Write what the figures read of runs at scale, without paths of the machine."""
    for folder in sorted(path.parent for path in runs.rglob("versions.json")):
        target = source / "scale" / folder.name
        target.mkdir(parents=True, exist_ok=True)
        whole = read_json(folder / "config.json")
        kept: dict[str, object] = {"actor_rollout_ref": {"model": {"path": "tiny/model"}}}
        for setting in SETTINGS:
            *parents, last = setting.split(".")
            value, place = whole, kept
            for name in parents:
                value, place = value[name], place.setdefault(name, {})
            place[last] = value[last]
        write_json(target / "config.json", kept)
        shutil.copy(folder / "versions.json", target)
        pq.write_table(pq.read_table(folder / "metrics.parquet").select(METRICS), target / "metrics.parquet")
        seal(target / "versions.json")
    evaluation = source / "scale" / "evaluation"
    evaluation.mkdir(exist_ok=True)
    shutil.copy(min(runs.rglob("evaluation/table.json")), evaluation)


def seal(record: Path) -> None:
    """Write the SHA-256 of the files of a JSON file anew, of those that are there."""
    about = read_json(record)
    names = [name for name in about.pop("files") if (record.parent / name).exists()]
    write_json(record, {**about, "files": hashes(record.parent, names)})


def thin(source: Path) -> None:
    """Keep whole policies of S4, every few rows or columns of the others."""
    keep = {
        "S3": lambda i, table: i % 8 == 0,
        "S4": lambda i, table: table["policy"].to_numpy() < 6,
        "G3": lambda i, table: i % 6 == 0,
        "A7": lambda i, table: i % 49 % 2 == 0,
    }
    for row, chosen in keep.items():
        path = source / "ledger" / f"{row}.parquet"
        table = pq.read_table(path)
        pq.write_table(table.filter(chosen(np.arange(len(table)), table)), path)
    for path in source.glob("toy/fig5/*/metrics.parquet"):
        pq.write_table(pq.read_table(path).select(["seed", "step", "entropy", "gradient_norm"]), path)
        seal(path.parent / VERSIONS_FILE)
    seal(source / "ledger" / DATA_FILE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the results that the tests draw.")
    parser.add_argument("folder", nargs="?", type=Path, default=DATA)
    parser.add_argument("--scale", type=Path, metavar="RUNS", help="finished runs at scale; without, they stay")
    args = parser.parse_args()
    write_ledger(args.folder)
    write_runs(args.folder, num_seeds=6, num_steps=36)
    write_sweeps(args.folder, SHORT, num_seeds=4, num_steps=8)  # 2 visits to a prompt
    write_sweeps(args.folder, LONGER, num_seeds=4, num_steps=36)  # 9 visits
    thin(args.folder)
    if args.scale is not None:
        write_scale(args.folder, args.scale)
