"""What an evaluation is asked to do, checked: everything that can be found wrong before vLLM starts."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from scale import launch
from scale.evaluation import exports, problems
from scale.evaluation.engine import UTILIZATION
from scale.evaluation.exports import Checkpoint
from scale.evaluation.generate import SAMPLES_FILE, read_samples
from scale.evaluation.problems import BenchmarkProblem
from theory.base import files, require, runs

SETTINGS_FILE = "evaluation.json"

ROLLOUT = "actor_rollout_ref.rollout"

OF_SCORES = {"reward", "reward_arguments"}
"""Settings that the scores depend on, and the responses do not."""


@dataclass(frozen=True)
class Item:
    """One evaluation: a checkpoint, the problems of a data file and a sampling seed, in a folder.

    `settings` holds everything that the samples depend on; samples of different settings are never mixed.
    """

    checkpoint: Checkpoint
    problems: list[BenchmarkProblem]
    settings: dict[str, Any]
    folder: Path

    @property
    def identity(self) -> str:
        """Return a hash of the settings."""
        return _hashed(_placeless(self.settings))

    @property
    def drawn_with(self) -> str:
        """Return a hash of the settings that the responses depend on, which every sample carries."""
        return _hashed({name: x for name, x in self.settings.items() if name not in OF_SCORES})

    def stored_settings(self) -> dict[str, Any] | None:
        """Return the settings of the folder's evaluation; None if it has none."""
        path = self.folder / SETTINGS_FILE
        if not path.exists():
            return None
        settings = files.read_json(path).get("settings")
        if not isinstance(settings, dict):
            raise ValueError(f"{path}: expected the settings of an evaluation, got {settings!r:.80}")
        return settings

    def changed_settings(self) -> list[str] | None:
        """Return the names of the settings that the folder's evaluation has otherwise; None if it has no evaluation."""
        there = self.stored_settings()
        if there is None:
            return None
        there = _placeless(there)
        return [name for name, value in _placeless(self.settings).items() if there.get(name) != value]

    def only_scores_differ(self) -> bool:
        """Return whether the stored samples can stay, and only their scores are of another reward function."""
        return bool(self.changed_settings()) and set(self.changed_settings() or ()) <= OF_SCORES

    def missing(self, samples: int) -> int:
        """Return how many samples are missing, of so many for each problem."""
        asked = len(self.problems) * samples
        if self.changed_settings() != []:
            return asked
        return asked - sum(1 for x in self.samples() if x["sample"] < samples)

    def samples(self) -> Iterator[dict[str, Any]]:
        """Return the samples in the folder."""
        return read_samples(self.folder / SAMPLES_FILE, self.problems, self.settings["seed"], self.drawn_with)


def _hashed(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _placeless(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without the place of the reward's file, which may differ between machines."""
    reward = settings.get("reward")
    if not isinstance(reward, Mapping):
        return dict(settings)
    return {**settings, "reward": {name: x for name, x in reward.items() if name != "name"}}


def plan(args: argparse.Namespace) -> tuple[list[Item], list[TableRow]]:
    """Check what is asked and return the evaluations, and the rows of the table."""
    _check_numbers(args)
    checkpoints = [exports.resolve_checkpoint(path, args.trust_run) for path in args.checkpoints]
    _check_different("checkpoints", [x.name for x in checkpoints])
    _check_different("data", [path.stem for path in args.data])
    _check_different("seeds", args.seeds)
    data = {path: problems.read_problems(path) for path in args.data}
    _check_different("data", [name for each in data.values() for name in {x.benchmark for x in each}])
    rows = rows_of(checkpoints)
    common = _common(args, checkpoints)
    items = [
        Item(
            checkpoint,
            asked,
            {"model": model, "data": problems.fingerprint(asked), "seed": seed, **common},
            args.out / checkpoint.name / f"{path.stem}-seed{seed}",
        )
        for checkpoint in checkpoints
        for model in [exports.fingerprint(checkpoint.export)]
        for path, asked in data.items()
        for seed in args.seeds
    ]
    for item in items if not args.force else ():
        check_folder(item)
    return items, rows


def _check_numbers(args: argparse.Namespace) -> None:
    for k in args.k:
        require.count("--k", k, 1)
    require.count("--samples", args.samples, 1)
    if args.samples < max(args.k):
        raise ValueError(f"--samples: expected at least k = {max(args.k)} of each problem, got {args.samples}")
    for seed in args.seeds:
        require.count("--seeds", seed)
    require.in_range("--temperature", args.temperature, 0.0)
    if args.temperature == 0 and args.samples > 1:
        raise ValueError(f"--temperature: expected more than 0, since {args.samples} samples would all be alike, got 0")
    require.in_range("--top-p", args.top_p, 0.0, 1.0, open_low=True)
    for name in ("max_tokens", "tensor_parallel", "engines", "max_position_embeddings", "scorers"):
        if getattr(args, name) is not None:
            require.count(f"--{name.replace('_', '-')}", getattr(args, name), 1)


def _check_different(name: str, values: Sequence[Any]) -> None:
    twice = sorted({str(x) for x in values if values.count(x) > 1})
    if twice:
        raise ValueError(f"{name}: expected different ones, got {', '.join(twice)} more than once")


def check_folder(item: Item) -> None:
    """Require that the folder of an evaluation is empty or holds one with the same settings."""
    different = item.changed_settings()
    if different is None and item.folder.exists() and any(item.folder.iterdir()):
        raise ValueError(f"{item.folder}: expected an empty folder or an evaluation, got other files")
    if different:
        there = item.stored_settings() or {}
        what = "; ".join(f"{name} {there.get(name)!r} instead of {item.settings[name]!r}" for name in different)
        raise ValueError(
            f"{item.folder}: expected an evaluation with the same settings, got one with {what}; choose another --out, "
            f"or --force to {'score' if item.only_scores_differ() else 'draw'} its samples again"
        )


class TableRow(NamedTuple):
    """Runs that differ in their training seed alone, and what they are called."""

    method: str
    checkpoints: list[Checkpoint]


def rows_of(checkpoints: Sequence[Checkpoint]) -> list[TableRow]:
    """Put runs that differ in their training seed alone into one row of the table.

    Rows of the same model, method and step are named by the settings in which they differ. Two runs that do not even
    differ in their seed are a `ValueError`.
    """
    alike: dict[Any, list[list[Checkpoint]]] = {}
    for x in checkpoints:
        name = x.name if x.config is None else None
        rows = alike.setdefault((x.model, x.method, x.step, name), [])
        same = next((row for row in rows if not _differ_beside_seed(row[0], x)), None)
        rows.append([x]) if same is None else same.append(x)
    named = []
    for first, *others in alike.values():
        different = sorted({name for other in others for name in _differ_beside_seed(first[0], other[0])})
        for row in (first, *others):
            _check_different(f"checkpoints: seeds of {row[0].method}", [x.seed for x in row])
            words = ", ".join(f"{name.split('.')[-1]} {row[0].setting(name)}" for name in different)
            named.append(TableRow(row[0].method + (f" ({words})" if words else ""), row))
    return named


def _differ_beside_seed(first: Checkpoint, second: Checkpoint) -> list[str]:
    return [x for x in launch.other_settings(first.config or {}, second.config or {}) if x != "dynamo.seed"]


# Settings of the runs


def _common(args: argparse.Namespace, checkpoints: Sequence[Checkpoint]) -> dict[str, Any]:
    """Return the settings that all evaluations of a table share: those given, else the runs' own."""
    reward = from_runs("reward", args.reward, checkpoints, lambda x: reward_of(x, args.trust_run))
    arguments: Any = {}
    if args.reward is None:
        arguments = from_runs("reward", None, checkpoints, "reward.custom_reward_function.reward_kwargs", {})
    function = problems.load_reward(reward, arguments)
    override = "actor_rollout_ref.model.override_config.max_position_embeddings"
    return {
        "temperature": args.temperature,
        "top_p": args.top_p,
        "max_tokens": from_runs("max_tokens", args.max_tokens, checkpoints, "data.max_response_length"),
        "template": from_runs("template", None, checkpoints, "data.apply_chat_template_kwargs", {}),
        "max_position_embeddings": from_runs(
            "max_position_embeddings", args.max_position_embeddings, checkpoints, override, 0
        ),
        "dtype": "float32" if device_of(args, checkpoints) == "cpu" else "bfloat16",
        "draws": "by seed and position",  # responses that vLLM drew in another way are not mixed with these
        "reward": _reward_identity(reward, function),
        "reward_arguments": arguments,
    }


def from_runs(
    name: str,
    given: Any,
    checkpoints: Sequence[Checkpoint],
    where: str | Callable[[Checkpoint], Any],
    default: Any = None,
) -> Any:
    """Return what was given, or what the runs' configurations have in common; they must agree."""
    if given is not None:
        return given
    values = [
        where(x) if callable(where) else x.setting(where, default) for x in checkpoints if x.config is not None
    ] or [default]
    option = f"--{name.replace('_', '-')}"
    if any(x != values[0] for x in values):
        raise ValueError(
            f"{name}: expected one for a table, got {', '.join(sorted({str(x) for x in values}))} in the runs' "
            f"configurations; choose by {option}"
        )
    if values[0] is None:
        raise ValueError(f"{name}: expected {option}, since no run's configuration tells it, got none")
    return values[0]


OURS = {
    ("scale", "rewards", "scoring.py"): "pkg://scale.rewards.scoring:compute_score",
    ("scale", "tiny.py"): "pkg://scale.tiny:compute_score",
}
"""Ends of paths that name a reward function of this package, in whatever folder a run had it, and our own."""


def reward_of(checkpoint: Checkpoint, trust: bool = False) -> str | None:
    """Return the reward function that a run names, if it is this package's; a file of its own with `trust` only."""
    node = "reward.custom_reward_function"
    path, function = (checkpoint.setting(f"{node}.{name}") for name in ("path", "name"))
    if path is None or trust:
        return None if path is None else f"{path}:{function}"
    ours = next((name for end, name in OURS.items() if Path(path).parts[-len(end) :] == end), "")
    if not ours.endswith(f":{function}"):
        raise ValueError(
            f"reward: expected a run with a reward function of this package, got {path}:{function} in the "
            f"configuration of {checkpoint.name}, whose code would be run; --reward names one that you trust, "
            "--trust-run takes the run's"
        )
    return ours


def _reward_identity(name: str, reward: Callable[..., Any]) -> dict[str, str]:
    """Return the function's name and a hash of its files: scores by different versions are not mixed."""
    place, _, function = name.rpartition(":")
    digest = hashlib.sha256()
    for file in problems.reward_files(reward):
        digest.update(file.read_bytes())
    return {
        "function": function,
        "file": re.split(r"[/.]", place.removesuffix(".py"))[-1],
        "hash": digest.hexdigest()[:16],
        "name": name,
    }


def device_of(args: argparse.Namespace, checkpoints: Sequence[Checkpoint]) -> str:
    """Return "cpu" or "cuda"."""
    if args.cluster is None:
        return str(from_runs("cluster", None, checkpoints, "trainer.device", "cuda"))
    from omegaconf import OmegaConf

    require.one_of("cluster", args.cluster, launch.names("cluster"))
    config: Any = OmegaConf.to_container(OmegaConf.load(launch.CONF / "cluster" / f"{args.cluster}.yaml"))
    return str(runs.lookup(config, "trainer.device", "cuda"))


class Hardware(NamedTuple):
    """What a model is drawn from on: GPUs of one engine, 0 on a CPU; and for each engine the names of its GPUs.

    The names are what `CUDA_VISIBLE_DEVICES` takes, "" on a CPU.
    """

    gpus: int
    devices: list[str]


def hardware_of(args: argparse.Namespace, checkpoints: Sequence[Checkpoint]) -> Hardware:
    """Return the engines, whose GPUs must be here and free."""
    if device_of(args, checkpoints) == "cpu":
        if args.tensor_parallel not in (None, 1):
            raise ValueError(f"--tensor-parallel: expected 1 on a CPU, got {args.tensor_parallel}")
        return Hardware(0, [""] * (args.engines or 1))
    where = f"{ROLLOUT}.tensor_model_parallel_size"
    wanted = int(from_runs("tensor_parallel", args.tensor_parallel, checkpoints, where, 1))
    memory = memory_of_gpus()
    names = names_of_gpus(len(memory), os.environ.get("CUDA_VISIBLE_DEVICES"))
    if len(memory) < wanted:
        raise ValueError(
            f"cluster: expected {wanted} GPU{'s' * (wanted > 1)} that torch can use, got {len(memory)}; small models "
            "run with --cluster cpu"
        )
    most = len(names) // wanted
    engines = args.engines or most
    if engines > most:
        of = f"{wanted} GPU{'s' * (wanted > 1)}"
        raise ValueError(
            f"--engines: expected at most {most}, each with {of} of the {len(names)} that are visible, got {engines}"
        )
    for name, (free, total) in zip(names[: engines * wanted], memory, strict=False):
        if free < UTILIZATION * total:
            raise ValueError(
                f"GPU {name}: expected {UTILIZATION:.0%} of {total / 2**30:.1f} GiB to be free, got "
                f"{free / 2**30:.1f} GiB; name the GPUs that are free in CUDA_VISIBLE_DEVICES"
            )
    return Hardware(wanted, [",".join(names[i * wanted : (i + 1) * wanted]) for i in range(engines)])


MEMORY = """
import json, torch
print(json.dumps([torch.cuda.mem_get_info(i) for i in range(torch.cuda.device_count())]))
"""


def memory_of_gpus() -> list[tuple[int, int]]:
    """Return the free and the whole memory of each GPU that torch can use, bytes.

    A process of its own looks, since whoever looks takes some of it until its end.
    """
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:]
        raise ValueError(f"cluster: expected GPUs that torch can use, got {' '.join(said)}")
    return [(free, total) for free, total in json.loads(done.stdout.splitlines()[-1])]


def names_of_gpus(count: int, visible: str | None) -> list[str]:
    """Return the names of the GPUs that torch counts, as `CUDA_VISIBLE_DEVICES` has them: numbers or UUIDs.

    A part of a GPU (MIG) is used by one process alone, which sees no other: torch counts one, whatever is named.

    Examples
    --------
    >>> names_of_gpus(3, None), names_of_gpus(2, "4, 7"), names_of_gpus(1, "MIG-a,MIG-b")
    (['0', '1', '2'], ['4', '7'], ['MIG-a', 'MIG-b'])
    """
    if visible is None:
        return [str(number) for number in range(count)]
    names = [x.strip() for x in visible.split(",")]
    parts = [x for x in dict.fromkeys(names) if x.startswith("MIG-")]
    return parts if count and len(parts) == len(names) else names[:count]
