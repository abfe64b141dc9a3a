"""Checkpoints to evaluate: from a run's folder, a checkpoint of it, or any model in Hugging Face's format."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scale.plugin.config import DynamoConfig, require_method
from scale.run import records
from theory.base import files, runs as run_format
from theory.methods import METHODS, STOCK_TITLE

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")

INDEX = "model.safetensors.index.json"

MODEL = "actor_rollout_ref.model.path"

READ: Mapping[str, type] = {
    "actor_rollout_ref.model.override_config.max_position_embeddings": int,
    MODEL: str,
    "actor_rollout_ref.rollout.tensor_model_parallel_size": int,
    "data.apply_chat_template_kwargs": dict,
    "data.max_response_length": int,
    "dynamo": dict,
    "reward.custom_reward_function.name": str,
    "reward.custom_reward_function.path": str,
    "reward.custom_reward_function.reward_kwargs": dict,
    "trainer.device": str,
}
"""Settings of a run that an evaluation reads, and their types; integers are from 1 and below 2^31."""


@dataclass(frozen=True)
class Checkpoint:
    """A model to evaluate.

    Attributes
    ----------
    name : Name of its folder among the evaluations.
    export : Folder with `config.json`, tokenizer and weights.
    config, step : The run's resolved configuration, and the step of training; None for a model that no run of ours
        made.
    settings : The run's method and seed.
    """

    name: str
    export: Path
    config: dict[str, Any] | None = None
    step: int | None = None
    settings: DynamoConfig | None = None

    def setting(self, path: str, default: Any = None) -> Any:
        """Return a value of the run's configuration, such as "data.max_response_length"."""
        return run_format.lookup(self.config or {}, path, default)

    @property
    def seed(self) -> int | None:
        """Return the run's seed."""
        return None if self.settings is None else self.settings.seed

    @property
    def model(self) -> str:
        """Return the name of the model that the training began with: the last telling part of its path."""
        path = Path(self.setting(MODEL, str(self.export)))
        return (path.name in ("model", "huggingface") and path.parent.name) or path.name

    @property
    def method(self) -> str:
        """Return the method's name, with the settings in which the run differs from it."""
        settings = self.settings
        if settings is None:
            return "no training here"
        if settings.stock:
            return STOCK_TITLE
        names = ("allocator", "alpha", "sharpness", "threshold", "aggregation", "history_discount", "scope")
        usual = DynamoConfig()
        other = [f"{x} {value}" for x in names if (value := getattr(settings, x)) != getattr(usual, x)]
        return METHODS[settings.method].title + (f" ({', '.join(other)})" if other else "")


def resolve_checkpoint(path: Path, trust: bool = False) -> Checkpoint:
    """Find the exported model that a path means.

    The path is a run's folder (its latest checkpoint), a `global_step_N` of one, or a folder in Hugging Face's format.
    A run must have been trained by the method that its configuration says. Modules of one's own that it names are
    imported with `trust` only: a folder is data, not code.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: expected the folder of a run, a checkpoint or a model, got none")
    place = path.resolve()
    if (place / records.CHECKPOINTS).is_dir():
        latest, tracker = records.latest_checkpoint(place), place / records.CHECKPOINTS / records.LATEST
        if latest is None:
            raise ValueError(f"{place}: expected a run with a checkpoint, got none yet")
        records.require_recorded(place, [tracker])
        if not latest.is_dir():
            raise ValueError(f"{tracker}: expected the number of a checkpoint that is there, got {latest.name}")
        place = latest
    folder = next((x for x in (place, *place.parents[:2]) if re.fullmatch(r"global_step_\d+", x.name)), None)
    if folder is None:
        if not (place / "config.json").exists():
            raise ValueError(f"{path}: expected the folder of a run, a checkpoint or a model, got other files")
        _check_weights(place, None)
        return Checkpoint(place.name, place)
    export = folder / records.EXPORT
    _check_weights(export, folder)
    run = folder.parent.parent
    records.require_recorded(run, [run / run_format.CONFIG_FILE, folder / records.STATE])
    config = _run_config(run)
    settings = _settings(run, config, trust)
    step = int(folder.name.removeprefix("global_step_"))
    state = folder / records.STATE
    if state.exists():
        if settings.stock:
            raise ValueError(f"{state}: expected none in a run of stock GRPO (dynamo.stock), got the state of a method")
        require_method(state, files.read_json(state), settings)
    return Checkpoint(f"{run.name}-step{step}", export, config, step, settings)


def _run_config(run: Path) -> dict[str, Any]:
    path = run / run_format.CONFIG_FILE
    if not path.exists():
        raise ValueError(f"{run}: expected {run_format.CONFIG_FILE} beside its checkpoints, got none")
    config = files.read_json(path)
    for name, kind in READ.items():
        value = run_format.lookup(config, name, None)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ValueError(f"{path}: expected a value of type {kind.__name__} as {name}, got {value!r:.80}")
        if isinstance(value, int) and not 1 <= value < 2**31:
            raise ValueError(f"{path}: expected an integer from 1 and below 2^31 as {name}, got {value!r:.80}")
    model = run_format.lookup(config, MODEL, None)
    if model is None or not Path(model).name.strip():
        raise ValueError(f"{path}: expected the path of a model as {MODEL}, got {model!r:.80}")
    return config


def _settings(run: Path, config: Mapping[str, Any], trust: bool) -> DynamoConfig:
    path, node = run / run_format.CONFIG_FILE, config.get("dynamo")
    if node is None:
        raise ValueError(f"{path}: expected a configuration with the node dynamo, got none")
    if node.get("modules") and not trust:
        raise ValueError(
            f"{path}: expected a run without modules of its own, got {node['modules']!r:.80}; --trust-run imports them"
        )
    try:
        return DynamoConfig.from_mapping(node)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected the settings of a run, got others: {error}") from error


def require_unchanged(export: Path) -> None:
    """Require an export that can be loaded, and that is as it was when its run was finished; reads all of it."""
    for path in sorted(export.glob("*.json")):
        files.read_foreign_json(path)
    run = next((x.parent.parent for x in export.parents if re.fullmatch(r"global_step_\d+", x.name)), None)
    if run is None:
        return
    there = {str(path.relative_to(run)) for path in export.rglob("*") if path.is_file()}
    listed = {name for name in records.recorded(run) if (run / name).is_relative_to(export)}
    records.require_recorded(run, (run / name for name in listed))
    if listed and there - listed:
        more = sorted(there - listed)[0]
        raise ValueError(f"{run / more}: expected only files that {run / run_format.VERSIONS_FILE} lists, got this one")


def _check_weights(export: Path, folder: Path | None) -> None:
    if not (export / "config.json").is_file() or not any(next(export.glob(x), None) for x in WEIGHTS):
        how = ""
        if folder is not None:
            how = (
                "; train with actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model], or "
                f"make it now: python -m verl.model_merger merge --backend fsdp --local_dir {folder / 'actor'} "
                f"--target_dir {export}"
            )
        raise ValueError(f"{export}: expected a model's config.json and weights, got no such export{how}")
    index = export / INDEX
    if index.exists():
        listed = files.read_foreign_json(index).get("weight_map")
        names = listed.values() if isinstance(listed, Mapping) else [None]
        odd = [x for x in names if not isinstance(x, str) or not re.fullmatch(r"[^/\\\0]+\.safetensors", x)]
        if odd:
            raise ValueError(f"{index}: expected a weight_map to files of this folder, got {odd[0]!r:.80}")
        missing = sorted(set(names) - {x.name for x in export.iterdir()})
        if missing:
            raise ValueError(f"{index}: expected all weights that it names, got no {', '.join(missing)}")
    for file in export.glob("*.safetensors"):
        _check_whole(file)


def _check_whole(file: Path) -> None:
    """Require a file of weights as long as its header says."""
    try:
        with files.opened(file) as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError("too few bytes")
            header = files.parse_json(stream.read(length), "its header")
        offsets = [x["data_offsets"][1] for name, x in header.items() if name != "__metadata__"]
        end = max(offsets, default=0)
        if any(type(x) is not int for x in offsets):
            raise ValueError("offsets that are no integers")
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: expected a whole file of weights, got {error}") from error
    if 8 + length + end != file.stat().st_size:
        raise ValueError(f"{file}: expected {8 + length + end} bytes, got {file.stat().st_size}")


def fingerprint(export: Path) -> str:
    """Return a hash that identifies a model: of its configuration, and of lengths and samples of its weights."""
    try:
        digest = hashlib.sha256(files.read_bytes(export / "config.json"))
        for file in sorted(x for pattern in WEIGHTS for x in export.glob(pattern)):
            size = file.stat().st_size
            digest.update(f"{file.name} {size}".encode())
            with files.opened(file) as stream:
                for start in (0, size // 2, max(0, size - 2**20)):
                    stream.seek(start)
                    digest.update(stream.read(2**20))
    except OSError as error:
        raise ValueError(f"{export}: expected readable files of a model, got {error}") from error
    return digest.hexdigest()[:16]
