"""What can be found wrong with a run before Ray starts is found here, in the caller's process."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scale.launch import estimate, estimate_report, limits, network, refused, room, versions
from scale.launch.configuration import joins_ray
from scale.manifest import open_prompts
from scale.plugin.config import DynamoConfig, require_method
from scale.run import records
from scale.run.secrets import hide, is_secret, secrets_of
from theory.base import require
from theory.base.files import read_json
from theory.base.runs import CONFIG_FILE, differences, lookup

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"

LEARNING = (
    "algorithm",
    *(f"data.{name}" for name in ("max_prompt_length", "max_response_length", "train_batch_size")),
    "dynamo",
    *(f"{ACTOR}.{name}" for name in ("clip_ratio_low", "clip_ratio_high", "clip_ratio_c", "entropy_coeff")),
    *(f"{ACTOR}.{name}" for name in ("grad_clip", "kl_loss_coef", "loss_agg_mode", "optim")),
    *(f"{ACTOR}.{name}" for name in ("ppo_epochs", "ppo_mini_batch_size", "use_kl_loss")),
    *(f"{ROLLOUT}.{name}" for name in ("n", "temperature", "top_k", "top_p")),
    "reward.custom_reward_function.name",
)
"""Beginnings of the settings of learning. Where, how long and how fast a run learnt is not among them."""

COUNTS = (
    *(f"data.{name}" for name in ("train_batch_size", "max_prompt_length", "max_response_length")),
    *(f"trainer.{name}" for name in ("nnodes", "n_gpus_per_node", "total_training_steps")),
    *(f"{ACTOR}.{name}" for name in ("ppo_mini_batch_size", "ppo_epochs", "ppo_max_token_len_per_gpu")),
    f"{ACTOR}.ulysses_sequence_parallel_size",
    *(f"{ROLLOUT}.{name}" for name in ("n", "tensor_model_parallel_size", "max_num_seqs", "max_num_batched_tokens")),
)
"""What must be a whole number of at least 1; verl looks at few of them."""

FLASH_ATTENTION = "flash_attention_2"
"""What verl takes if the configuration does not say."""


def check(config: Any, out: Path, *, files: bool = True) -> None:
    """Check what can be checked before Ray starts; `out` is the folder of the run.

    With `files` the machine is checked too: prompts, the reward's file, GPUs and the libraries that they need, the free
    disk and the memory of the host.
    These are the budget, lengths, memory, keys of prompts, the method of a checkpoint, versions, and verl's own checks.
    """
    from omegaconf import OmegaConf

    settings = DynamoConfig.from_mapping(config.dynamo)
    versions.check(config, here=files or config.trainer.device == "cpu")
    for name in COUNTS:
        require.count(name, OmegaConf.select(config, name), 1)
    refused.check(config)
    _check_secrets(config)
    _check_batch(config, settings)
    _check_lengths(config)
    _check_loggers(config)
    limits.check(config)
    if files:
        _check_machine(config)
    check_folder(config, out)
    _check_by_verl(config)
    _check_correction(config)
    estimate_report.check(config)
    if files and config.estimate.enforce:
        room.check(estimate.needs(config), out, here=not joins_ray(config))


def _check_batch(config: Any, settings: DynamoConfig) -> None:
    """Require a budget within the bounds, and sizes that divide each other."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    rollouts = int(rollout.n)
    if not settings.stock and not settings.rollouts_low <= rollouts <= settings.rollouts_high:
        raise ValueError(
            f"actor_rollout_ref.rollout.n: expected an average within the bounds [{settings.rollouts_low}, "
            f"{settings.rollouts_high}], got {rollouts}"
        )
    batch, mini = int(config.data.train_batch_size), int(actor.ppo_mini_batch_size)
    if batch % mini:
        raise ValueError(f"data.train_batch_size: expected a multiple of the mini-batch's {mini} prompts, got {batch}")
    gpus = int(config.trainer.nnodes * config.trainer.n_gpus_per_node)
    sequence, parallel = int(actor.ulysses_sequence_parallel_size), int(rollout.tensor_model_parallel_size)
    if gpus % sequence:
        raise ValueError(f"{ACTOR}.ulysses_sequence_parallel_size: expected a divisor of {gpus} GPUs, got {sequence}")
    ranks = gpus // sequence
    if mini * rollouts % ranks:
        raise ValueError(
            f"actor_rollout_ref.actor.ppo_mini_batch_size: expected a mini-batch whose rollouts, {mini} x {rollouts}, "
            f"the {ranks} ranks divide, got {mini * rollouts}"
        )
    if gpus % parallel or (config.get("shape") and config.shape.kv_heads % parallel):
        heads = f" and the model's {config.shape.kv_heads} key heads" if config.get("shape") else ""
        raise ValueError(
            f"actor_rollout_ref.rollout.tensor_model_parallel_size: expected a divisor of {gpus} GPUs{heads}, "
            f"got {parallel}"
        )
    if config.get("shape") and config.shape.heads % sequence:
        raise ValueError(
            f"{ACTOR}.ulysses_sequence_parallel_size: expected a divisor of the model's {config.shape.heads} heads, "
            f"got {sequence}"
        )
    samples = int(config.data.train_max_samples)
    if 0 <= samples < batch:
        raise ValueError(f"data.train_max_samples: expected at least a batch of {batch} prompts or -1, got {samples}")
    rows, room = batch * rollouts * (1 + settings.lag), config.transfer_queue.backend.SimpleStorage.total_storage_size
    if room < rows:
        raise ValueError(
            f"transfer_queue.backend.SimpleStorage.total_storage_size: expected room for the {rows} rollouts of a "
            f"step{' and of those ahead' * (settings.lag > 0)}, got {room}"
        )


def _check_lengths(config: Any) -> None:
    """Require that the longest prompt with the longest response fits wherever it goes."""
    shared = config.actor_rollout_ref
    longest = int(config.data.max_prompt_length + config.data.max_response_length)
    tokens = int(shared.actor.ppo_max_token_len_per_gpu * shared.actor.ulysses_sequence_parallel_size)
    parts, sequence = ("rollout", "ref"), int(shared.actor.ulysses_sequence_parallel_size)
    passes = {f"actor_rollout_ref.{x}.log_prob_max_token_len_per_gpu": shared[x] for x in parts}
    rooms = {
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": tokens,
        **{name: node.log_prob_max_token_len_per_gpu * sequence for name, node in passes.items()},
        "actor_rollout_ref.rollout.max_model_len": shared.rollout.max_model_len or longest,
    }
    if config.get("shape"):
        own, key = config.shape.positions, "max_position_embeddings"
        rooms[f"actor_rollout_ref.model.override_config.{key}"] = shared.model.override_config.get(key, own)
        overrides = shared.rollout.engine_kwargs.vllm.get("hf_overrides") or {}
        rooms[f"actor_rollout_ref.rollout.engine_kwargs.vllm.hf_overrides.{key}"] = overrides.get(key, own)
    for name, length in rooms.items():
        if length < longest:
            raise ValueError(f"{name}: expected room for prompt and response, {longest} tokens, got {length}")


def _check_correction(config: Any) -> None:
    """Require importance weights that every loss knows, and the log-probabilities that they are made of."""
    correction: Any = config.algorithm.rollout_correction or {}
    name, level = "algorithm.rollout_correction", correction.get("rollout_is")
    if level is None:
        return
    require.one_of(f"{name}.rollout_is", level, ("token", "sequence"))
    import torch
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights

    threshold = correction.get("rollout_is_threshold", 2.0)
    try:  # verl reads the text; where the policies agree, a token must have a weight
        weight, _ = compute_rollout_correction_weights(torch.zeros(1, 1), torch.ones(1, 1), level, threshold)
    except (ArithmeticError, TypeError, ValueError):
        weight = torch.zeros(1, 1)
    # torch 2.11 takes a cap that is no number for none.
    if not float(weight) > 0 or "nan" in str(threshold).lower():
        raise ValueError(
            f"{name}.rollout_is_threshold: expected a cap such as 2.0, or the ends of a range around 1 such as "
            f"0.5_2.0, got {threshold}"
        )


def _check_secrets(config: Any) -> None:
    """Require a configuration without secrets: it is printed, and written into the run's folder."""
    from omegaconf import OmegaConf

    variables, secrets = "ray_kwargs.ray_init.runtime_env.env_vars.", secrets_of()
    for name, value in refused.leaves(OmegaConf.to_container(config)):
        named = name.startswith(variables) and is_secret(name.removeprefix(variables))
        if named or hide(str(value), secrets) != str(value):
            raise ValueError(
                f"{name}: expected no secret, since the configuration is printed and written; set it as a variable of "
                "the environment, which the run's processes inherit (on a cluster, before Ray starts)"
            )


LOGGERS = {
    "console": "",
    "file": "",
    "tensorboard": "tensorboard",
    **{name: name for name in ("clearml", "mlflow", "swanlab", "trackio", "wandb")},
}
"""Where verl may write metrics, and the package that it needs."""


def _check_loggers(config: Any) -> None:
    """Require loggers that verl has and that are installed: it looks when the models are loaded."""
    given = config.trainer.logger
    for name in [given] if isinstance(given, str) else given:
        refused.require_name("trainer.logger", name, LOGGERS)
        if LOGGERS[name] and find_spec(LOGGERS[name]) is None:
            raise ValueError(f"trainer.logger: expected loggers that are installed, got {name} without its package")


def _check_machine(config: Any) -> None:
    """Require a network of our own, the prompts, the reward's file and, unless Ray runs elsewhere, the GPUs."""
    network.check(config)
    for names, at_least in ((config.data.train_files, int(config.data.train_batch_size)), (config.data.val_files, 1)):
        for path in [names] if isinstance(names, str) else names:
            check_prompts(Path(path), at_least)
    reward = config.reward.custom_reward_function.path
    if reward and not Path(reward).is_file():
        raise ValueError(f"reward.custom_reward_function.path: expected a file, got {reward}")
    if config.trainer.device != "cuda" or joins_ray(config):
        return
    import torch

    needed, there = int(config.trainer.n_gpus_per_node), torch.cuda.device_count()
    if there < needed:
        raise ValueError(
            f"trainer.n_gpus_per_node: expected {needed} GPUs that torch can use, got {there}; the tiny model runs "
            "without (--model tiny --cluster cpu)"
        )
    attention = config.actor_rollout_ref.model.override_config.get("attn_implementation", FLASH_ATTENTION)
    if attention == FLASH_ATTENTION and find_spec("flash_attn") is None:
        raise ValueError(
            "actor_rollout_ref.model.override_config.attn_implementation: expected one that is installed, got "
            f"{FLASH_ATTENTION} without flash-attn; install it (docs/laptop-to-a100s.md), or choose sdpa"
        )


def _check_by_verl(config: Any) -> None:
    """Let verl validate, make its dataclasses of the nodes as its workers do, and check the types of the nodes."""
    from hydra.errors import HydraException
    from hydra.utils import get_class
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    shared = config.actor_rollout_ref
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config))
        for node in (shared.rollout, config.algorithm):
            omega_conf_to_dataclass(node)
        # Making an object of the model's node would read the model's files.
        for node in (shared.model, shared.actor.optim, shared.actor.checkpoint, shared.rollout, config.algorithm):
            OmegaConf.merge(OmegaConf.structured(get_class(node._target_)), node)
    except (AssertionError, ValueError, TypeError, HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"configuration: verl's validation failed: {error}") from error


def check_prompts(path: Path, at_least: int) -> None:
    """Require a Parquet file of at least so many prompts with a key each (`extra_info.key`), all different."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise ValueError(f"{path}: expected a file of prompts, got none; `python -m scale prepare` makes them")
    try:
        table = pq.read_table(open_prompts(path), columns=["extra_info"])
        table.validate(full=True)
        rows = table.column("extra_info").to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a Parquet file of prompts with a column extra_info, got {error}") from error
    keys = [info.get("key") if isinstance(info, dict) else None for info in rows]
    missing = [row for row, key in enumerate(keys) if not isinstance(key, str) or not key]
    if missing:
        raise ValueError(
            f"{path}: expected a text extra_info.key for every prompt, such as a hash of it, got none in "
            f"{len(missing)} rows, the first {missing[0]}"
        )
    if len(set(keys)) != len(keys):
        twice, times = Counter(keys).most_common(1)[0]
        raise ValueError(f"{path}: expected different keys, got {twice!r} {times} times")
    if len(keys) < at_least:
        raise ValueError(f"{path}: expected at least a batch of {at_least} prompts, got {len(keys)}")


def other_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the settings of learning in which two runs' configurations differ, the seed's included.

    Examples
    --------
    >>> other_settings({"dynamo": {"seed": 1}, "trainer": {"nnodes": 1}}, {"dynamo": {"seed": 2}})
    ['dynamo.seed']
    >>> other_settings({}, {"actor_rollout_ref": {"rollout": {"n": 16, "seed": 1}}})
    ['actor_rollout_ref.rollout.n']
    """
    # Leaf by leaf: a run without a node differs in every setting of learning in it, not in a node above them.
    names = differences(dict(refused.leaves(first)), dict(refused.leaves(second)))
    return [x for x in names if f"{x}.".startswith(tuple(f"{y}." for y in LEARNING)) and x != "dynamo.dump"]


def check_folder(config: Any, out: Path) -> None:
    """Require an earlier run in the folder to have the same settings, the same method, and the steps of its checkpoint.

    One that learnt nothing is replaced.
    """
    from omegaconf import OmegaConf

    checkpoint, settings = records.latest_checkpoint(out), DynamoConfig.from_mapping(config.dynamo)
    if checkpoint is not None:
        records.require_steps(out, int(checkpoint.name.removeprefix("global_step_")))
        if not settings.stock:
            require_method(checkpoint / records.STATE, read_json(checkpoint / records.STATE), settings)
    metrics = out / records.METRICS_LOG
    if not (out / CONFIG_FILE).exists() or not metrics.exists() or not metrics.stat().st_size:
        return
    there, ours = read_json(out / CONFIG_FILE), dict(OmegaConf.to_container(config))
    different = other_settings(there, ours)
    model = "actor_rollout_ref.model.path"
    if Path(str(lookup(there, model, ""))).name != Path(str(lookup(ours, model))).name:
        different.insert(0, model)
    if different:
        pairs = [(x, lookup(there, x, None), lookup(ours, x, None)) for x in different[:5]]
        what = "; ".join(f"{x} {theirs}, not {own}" for x, theirs, own in pairs)
        raise ValueError(f"{out}: expected a run with the same settings, got one with {what}; choose another folder")
