"""Made runs and data, and the command as a call, for the tests of every part of an evaluation."""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scale.evaluation import evaluate, generate, planning
from scale.plugin.config import DynamoConfig
from theory.base.files import json_line, read_json, write_json
from theory.base.terminal import Console

ROOT = Path(__file__).parents[3]


REWARD = "pkg://scale.tiny:compute_score"


def rows(keys, source="tiny-arithmetic", **changes):
    return [
        {
            "data_source": source,
            "prompt": [{"role": "user", "content": f"{key}+1"}],
            "reward_model": {"ground_truth": key, "style": "rule"},
            "extra_info": {"key": key, "index": i},
            **changes,
        }
        for i, key in enumerate(keys)
    ]


def parquet(path, content):
    pq.write_table(pa.Table.from_pylist(content), path)
    return path


def model(folder, marker=""):
    """Write what looks like an exported model: evaluation itself never loads it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "max_position_embeddings": 128}))
    header = json.dumps({"w": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}, "__metadata__": {"m": marker}})
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"12345678")
    return folder


@functools.cache
def composed(base, cluster, *overrides):
    from scale import launch

    return launch.compose(base, cluster, out=Path("run"), overrides=[*["tiny_folder=x"] * (base == "tiny"), *overrides])


def run_folder(tmp_path, name, *overrides, step=4, base="tiny", cluster="cpu"):
    """Write the folder of a run with one checkpoint, with the real configuration."""
    from omegaconf import OmegaConf

    out, config = tmp_path / name, composed(base, cluster, *overrides)
    export = out / "checkpoints" / f"global_step_{step}" / "actor" / "huggingface"
    model(export, name)
    write_json(out / "config.json", OmegaConf.to_container(config, resolve=True))
    (out / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(str(step))
    settings = DynamoConfig.from_mapping(config.dynamo)
    state = {"method": settings.resolved().to_dict(), "history": {"discount": settings.history_discount}}
    write_json(export.parents[1] / "dynamo.json", state)
    return out


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    for name, settings in evaluate.ARGUMENTS.items():
        parser.add_argument(name, **settings)
    return parser.parse_args(list(map(str, arguments)))


def command(*arguments):
    console = Console(record=True, width=160, file=io.StringIO())
    status = evaluate.command(parsed(*arguments), console)
    return status, console.export_text()


def fill(arguments, outcomes):
    """Write the samples of every evaluation that a call asks for: `outcomes(item, problem, sample)`."""
    for item in planning.plan(parsed(*arguments))[0]:
        evaluate._prepare(item)
        with (item.folder / generate.SAMPLES_FILE).open("a") as file:
            for problem, sample in itertools.product(item.problems, range(parsed(*arguments).samples)):
                line = {
                    "evaluation": item.drawn_with,
                    "key": problem.key,
                    "sample": sample,
                    "seed": generate.sample_seed(item.settings["seed"], problem.key, sample),
                    "correct": False,
                    "unverified": False,
                    "tokens": 3,
                    "finish": "stop",
                    "text": "x",
                    **outcomes(item, problem, sample),
                }
                file.write(json_line(line))


def result(folder):
    return read_json(folder / "table.json")


def good(tmp_path):
    data = parquet(tmp_path / "d.parquet", rows("abc"))
    arguments = ["--data", data, "--samples", 4, "--k", 1, 2, "--out", tmp_path / "out"]
    return [run_folder(tmp_path, "run"), *arguments]


def refused(message, *arguments):
    with pytest.raises(ValueError, match=re.escape(message)):
        command(*arguments)
