"""The command as a call, and what it writes, for the tests of every part."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pyarrow.parquet as pq

from scale.data import prepare
from scale.rewards import answer_reader
from theory.base.terminal import Console

ROOT = Path(__file__).parents[3]


def run(*arguments, capture=None):
    """Run the command; returns its status, or raises its error."""
    parser = argparse.ArgumentParser()
    for name, settings in prepare.ARGUMENTS.items():
        parser.add_argument(name, **settings)
    with open(os.devnull, "w") as nothing:
        return prepare.command(
            parser.parse_args([str(x) for x in arguments]), Console(file=capture or nothing, width=200), answer_reader()
        )


def rows(path):
    return pq.read_table(path).to_pylist()


def manifest(out, name="dapo-math-17k"):
    return json.loads((out / f"{name}.manifest.json").read_text())
