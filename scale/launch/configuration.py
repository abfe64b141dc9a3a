"""From names to verl's configuration: what the files say, the command line, and what follows from the method."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Collection, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from scale.launch import refused
from scale.launch.settings import EXTENSIBLE
from scale.plugin.config import DynamoConfig
from theory.base import require

CONF = Path(__file__).parents[1] / "conf"

NO_DUAL_CLIP = 1e9
"""verl's `clip_ratio_c` for a loss without dual clip."""


def names(group: str) -> tuple[str, ...]:
    """Return the options of a group of `conf/`."""
    return tuple(sorted(path.stem for path in (CONF / group).glob("*.yaml")))


def default_cluster(model: str) -> str:
    """Return the cluster that a model's file of `conf/model` names."""
    require.one_of("model", model, names("model"))
    from omegaconf import OmegaConf

    return str(OmegaConf.load(CONF / "model" / f"{model}.yaml").default_cluster)


def compose(model: str, cluster: str | None = None, *, out: Path, overrides: Sequence[str] = ()) -> Any:
    """Compose and resolve the configuration of a run: verl's, complete.

    Parameters
    ----------
    model, cluster : Names of files in `conf/model` and `conf/cluster`; without a cluster, the model's own.
    out : Folder that the run writes to.
    overrides : Hydra overrides, of verl's keys or ours (`dynamo.method=grpo`).
    """
    require.one_of("model", model, names("model"))
    cluster = cluster or default_cluster(model)
    require.one_of("cluster", cluster, names("cluster"))
    refused.require_settings(overrides)
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = copy.deepcopy(_files(model, cluster))
        words = [f"++{x}" if x.startswith(EXTENSIBLE) else x for x in overrides]
        changes = OverridesParser.create().parse_overrides(words)
        ConfigLoaderImpl._apply_overrides_to_config(changes, config)
        settings = DynamoConfig.from_mapping(OmegaConf.to_container(config.dynamo, resolve=True))
        given = {x.key_or_group: OmegaConf.select(config, x.key_or_group) for x in changes}
        with open_dict(config):
            _keep_own_options(config, given)
            _set(config, settings, out)
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"configuration: {error}") from error
    for name, value in given.items():
        if name in FOLLOWS and value != (set_to := OmegaConf.select(config, name)):
            raise ValueError(f"{name}: expected {set_to}, which follows from {FOLLOWS[name]}, got {value}")
    return config


@functools.cache
def _files(model: str, cluster: str) -> Any:
    """Return the files' content, unresolved; kept, since hydra takes longer to read them than for all the rest."""
    from hydra import compose as hydra_compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base=None):
        return hydra_compose("train", [f"model={model}", f"cluster={cluster}"])


_METHOD = "the method (--method, dynamo.*)"
_SYNCHRONY = "dynamo.lag (docs/scale.md, Synchronous and asynchronous)"

FOLLOWS = {
    "data.seed": "--seed",
    "actor_rollout_ref.rollout.seed": "--seed",
    "actor_rollout_ref.actor.data_loader_seed": "--seed",
    "trainer.default_local_dir": "--out",
    "trainer.experiment_name": "--out",
    "trainer.v1.colocate_async.num_warmup_batches": "dynamo.lag",
    "trainer.v1.sampler.max_off_policy_threshold": _SYNCHRONY,
    "trainer.v1.trainer_mode": f"--stock and {_SYNCHRONY}",
    **{
        f"actor_rollout_ref.actor.{name}": _METHOD
        for name in (
            "clip_ratio",
            "clip_ratio_low",
            "clip_ratio_high",
            "clip_ratio_c",
            "loss_agg_mode",
            "entropy_coeff",
        )
    },
}
"""Keys that `compose` sets, and from what: another value is refused rather than replaced."""


OPTIONS = "reward.custom_reward_function.reward_kwargs"


def _keep_own_options(config: Any, given: Collection[str]) -> None:
    """Take the options of our reward function from another one, except those that the command line names."""
    reward = config.reward.custom_reward_function
    if reward.path != "pkg://scale.rewards.scoring":
        for name in [x for x in reward.get("reward_kwargs") or () if f"{OPTIONS}.{x}" not in given]:
            del reward.reward_kwargs[name]


def _set(config: Any, settings: DynamoConfig, out: Path) -> None:
    method = settings.resolved()
    actor, out = config.actor_rollout_ref.actor, out.resolve()
    config.dynamo = vars(settings)
    for name in ("train_files", "val_files"):
        config.data[name] = _absolute(config.data[name])
    config.trainer.default_local_dir = str(out / "checkpoints")
    config.trainer.experiment_name = out.name
    v1 = config.trainer.v1
    v1.trainer_mode = ("stock-seeded" if settings.stock else "dynamo") + ("-ahead" if settings.lag else "")
    v1.colocate_async.num_warmup_batches = settings.lag
    v1.sampler.max_off_policy_threshold = None  # Nothing is dropped: how old a batch is follows from the lag.
    correction = config.algorithm.rollout_correction
    if isinstance(correction, MutableMapping) and type(correction.get("rollout_is_threshold")) is int:
        correction["rollout_is_threshold"] = float(correction["rollout_is_threshold"])  # verl takes 2.0, and not 2
    config.data.seed = config.actor_rollout_ref.rollout.seed = settings.seed
    actor.data_loader_seed = settings.seed
    loss = method.loss
    if loss.clip_range is not None:
        actor.clip_ratio_low, actor.clip_ratio_high = loss.clip_range
        actor.clip_ratio = actor.clip_ratio_low
    actor.clip_ratio_c = (getattr(loss, "dual_clip", None) if loss.standard else None) or NO_DUAL_CLIP
    # Terms that verl adds (KL, entropy) know no prompt mean and are taken per token.
    actor.loss_agg_mode = "seq-mean-token-mean" if method.aggregation == "sequence-mean" else "token-mean"
    actor.entropy_coeff = method.entropy_bonus.coefficient if method.entropy_bonus else 0.0
    path = config.reward.custom_reward_function.path
    if path and path.startswith("pkg://"):
        module = path.removeprefix("pkg://").split(".")
        config.reward.custom_reward_function.path = str(CONF.parent.joinpath(*module[1:]).with_suffix(".py"))


def _absolute(files: Any) -> Any:
    """Return paths that hold on every node and in every working directory."""
    return str(Path(files).resolve()) if isinstance(files, str) else [str(Path(x).resolve()) for x in files]


def joins_ray(config: Any) -> bool:
    """Return whether the run joins a running Ray cluster, such as one of two nodes."""
    return bool(config.ray_kwargs.ray_init.get("address") or os.environ.get("RAY_ADDRESS"))
