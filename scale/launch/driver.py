"""The process that verl runs in: `python -m scale.launch.driver CONFIG`, started by `scale.launch`."""

from __future__ import annotations

import sys
from pathlib import Path

from scale.run import beat, reported
from theory.base.files import read_json


@reported("trainer")
def main(path: str) -> None:
    """Train by a resolved configuration file."""
    beat(0, "Ray")
    from omegaconf import OmegaConf
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo

    from scale.launch import network
    from scale.launch.start import hand_on

    config = OmegaConf.create(read_json(Path(path)))
    hand_on(config)
    network.check_nodes(config)
    network.watch(config)
    run_ppo(config, task_runner_class=TaskRunnerV1)


if __name__ == "__main__":
    main(sys.argv[1])
