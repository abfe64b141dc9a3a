"""Checkpoints to evaluate: from a run's folder, a checkpoint of it, or any model in Hugging Face's format."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scale.launch import latest_checkpoint
from scale.plugin.config import DynamoConfig, require_method
from theory.base import files, runs as run_format
from theory.methods import METHODS, STOCK_TITLE

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class Checkpoint:
    """A model to evaluate.

    Attributes
    ----------
    name : Name of its folder among the evaluations.
    export : Folder with `config.json`, tokenizer and weights.
    config, step : The run's resolved configuration, and the step of training; None for a model that no run of ours
        made.
    """

    name: str
    export: Path
    config: dict[str, Any] | None
    step: int | None

    def setting(self, path: str, default: Any = None) -> Any:
        """Return a value of the run's configuration, such as "data.max_response_length"."""
        return run_format.lookup(self.config or {}, path, default)

    @property
    def settings(self) -> DynamoConfig | None:
        """Return the run's method and seed."""
        return None if self.config is None else DynamoConfig.from_mapping(self.config["dynamo"])

    @property
    def seed(self) -> int | None:
        """Return the run's seed."""
        return None if self.settings is None else self.settings.seed

    @property
    def model(self) -> str:
        """Return the name of the model that the training began with: the last telling part of its path."""
        path = Path(self.setting("actor_rollout_ref.model.path", str(self.export)))
        return path.parent.name if path.name in ("model", "huggingface") else path.name

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


def resolve_checkpoint(path: Path) -> Checkpoint:
    """Find the exported model that a path means.

    The path is a run's folder (its latest checkpoint), a `global_step_N` of one, or a folder in Hugging Face's format.
    A run must have been trained by the method that its configuration says.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: expected the folder of a run, a checkpoint or a model, got none")
    place = path.resolve()
    if (place / "checkpoints").is_dir():
        latest = latest_checkpoint(place)
        if latest is None or not latest.is_dir():
            raise ValueError(f"{place}: expected a run with a checkpoint, got none yet")
        place = latest
    folder = next((x for x in (place, *place.parents[:2]) if re.fullmatch(r"global_step_\d+", x.name)), None)
    if folder is None:
        if not (place / "config.json").exists():
            raise ValueError(f"{path}: expected the folder of a run, a checkpoint or a model, got other files")
        _check_weights(place, None)
        return Checkpoint(place.name, place, None, None)
    export = folder / "actor" / "huggingface"
    _check_weights(export, folder)
    run = folder.parent.parent
    config = _run_config(run)
    if not isinstance(config.get("dynamo"), Mapping):
        raise ValueError(f"{run}: expected a configuration with the node dynamo, got none")
    step = int(folder.name.removeprefix("global_step_"))
    checkpoint = Checkpoint(f"{run.name}-step{step}", export, config, step)
    settings, state = checkpoint.settings, folder / "dynamo.json"
    if settings is not None and not settings.stock and state.exists():
        require_method(folder, files.read_json(state), settings)
    return checkpoint


def _check_weights(export: Path, folder: Path | None) -> None:
    if not (export / "config.json").exists() or not any(next(export.glob(x), None) for x in WEIGHTS):
        how = ""
        if folder is not None:
            how = (
                "; train with actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model], or "
                f"make it now: python -m verl.model_merger merge --backend fsdp --local_dir {folder / 'actor'} "
                f"--target_dir {export}"
            )
        raise ValueError(f"{export}: expected a model's config.json and weights, got no such export{how}")
    index = export / "model.safetensors.index.json"
    if index.exists():
        listed = set(files.read_foreign_json(index)["weight_map"].values())
        missing = sorted(listed - {x.name for x in export.iterdir()})
        if missing:
            raise ValueError(f"{export}: expected all weights of its index, got no {', '.join(missing)}")
    for file in export.glob("*.safetensors"):
        _check_whole(file)


def _check_whole(file: Path) -> None:
    """Require a file of weights as long as its header says."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                raise ValueError("too few bytes")
            header = json.loads(stream.read(length))
        end = max((x["data_offsets"][1] for name, x in header.items() if name != "__metadata__"), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: expected a whole file of weights, got {error}") from error
    if 8 + length + end != file.stat().st_size:
        raise ValueError(f"{file}: expected {8 + length + end} bytes, got {file.stat().st_size}")


def _run_config(run: Path) -> dict[str, Any]:
    if (run / "verl.yaml").exists():
        from omegaconf import OmegaConf

        return dict(OmegaConf.to_container(OmegaConf.load(run / "verl.yaml"), resolve=True))
    if (run / run_format.CONFIG_FILE).exists():
        return files.read_json(run / run_format.CONFIG_FILE)
    raise ValueError(f"{run}: expected verl.yaml or config.json beside its checkpoints, got neither")


def fingerprint(export: Path) -> str:
    """Return a hash that identifies a model: of its configuration, and of lengths and samples of its weights."""
    digest = hashlib.sha256((export / "config.json").read_bytes())
    for file in sorted(x for pattern in WEIGHTS for x in export.glob(pattern)):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as stream:
            for start in (0, size // 2, max(0, size - 2**20)):
                stream.seek(start)
                digest.update(stream.read(2**20))
    return digest.hexdigest()[:16]
