"""What is wrong with the names and values of a run's settings, found before verl is imported or before Ray starts."""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scale.launch.job import Hardware, Shape
from scale.launch.settings import EXTENSIBLE, OWN, REWARD_OPTIONS, UNTRIED, VLLM_ARGUMENTS, Rule, rule_of
from scale.plugin.config import RULES, SCOPES, DynamoConfig
from theory.base.runs import lookup
from theory.losses import AGGREGATIONS
from theory.methods import METHODS

CONF = Path(__file__).parents[1] / "conf"

ACTOR, ROLLOUT, MODEL = (f"actor_rollout_ref.{name}" for name in ("actor", "rollout", "model"))

VALUES: Mapping[str, Collection[str]] = {
    "dynamo.aggregation": AGGREGATIONS,
    "dynamo.allocator": RULES,
    "dynamo.method": METHODS,
    "dynamo.scope": SCOPES,
}
"""Settings that are names, unless modules of one's own add others (`dynamo.modules`)."""

CHOSEN = {"model": "--model", "cluster": "--cluster", "experiment": "--experiment", "cell": "--cell"}
"""Options that look like settings."""


# Names, without verl


def require_name(option: str, value: Any, choices: Collection[str]) -> None:
    """Require one of some names; the error says which of them are close.

    Examples
    --------
    >>> require_name("--method", "dynamite", ["dynamo", "grpo"])
    Traceback (most recent call last):
    ValueError: --method: expected one of dynamo, grpo, got 'dynamite' (close: dynamo)
    """
    if value is None or value in choices:
        return
    names = [*map(str, choices)]
    listed = ", ".join(names if len(names) <= 20 else [*names[:3], f"... ({len(names)} names)"])
    raise ValueError(f"{option}: expected one of {listed}, got {str(value)!r}{_close(str(value), names)}")


def _close(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    return f" (close: {', '.join(close)})" if close else ""


def require_settings(overrides: Sequence[str]) -> None:
    """Require `KEY=VALUE` with keys that exist, and names of methods, rules and scopes that do; imports no verl."""
    own_modules = names_modules(overrides)
    for word in overrides:
        key, equals, value = word.partition("=")
        key = key.lstrip("+")
        if not equals or not key or key.startswith("~"):
            raise ValueError(f"{word!r}: expected KEY=VALUE, a setting of verl's or of ours")
        if key in CHOSEN:
            raise ValueError(f"{key}: expected a setting, got the name of an option: {CHOSEN[key]} {value}")
        if not _exists(key):
            names = _names()
            # The same last word elsewhere: the actor's stands before a critic's or a reference policy's.
            other = next((x for x in sorted(names) if x.endswith(f".{key.rpartition('.')[2]}")), None)
            close = f" (close: {other})" if other else _close(key, names)
            raise ValueError(f"{key}: expected a setting of verl's or of ours, got a name that neither has{close}")
        if key in VALUES and not own_modules and value not in ("null", ""):
            require_name(key, value.strip("'\""), VALUES[key])


def names_modules(overrides: Sequence[str]) -> bool:
    """Return whether modules of one's own are named, which may register any method and rule."""
    return any(x.lstrip("+").startswith("dynamo.modules=") for x in overrides)


def _exists(key: str) -> bool:
    if key.startswith("dynamo."):
        return key.split(".")[1] in {field.name for field in fields(DynamoConfig)}
    return key in _names() or key.startswith(EXTENSIBLE)


@functools.cache
def _names() -> frozenset[str]:
    """Return the settings that files have: verl's, read as text, and ours; nodes are among them."""
    import yaml  # type: ignore[import-untyped]

    found = {f"dynamo.{field.name}" for field in fields(DynamoConfig)}
    found |= {f"{node}.{field.name}" for node, of in (("shape", Shape), ("hardware", Hardware)) for field in fields(of)}
    for path in (_verl_file(), *CONF.rglob("*.yaml")):
        found |= set(_keys(yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))))
    return frozenset((found | {"model_engine"}) - {"defaults", "hydra"})


def _keys(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{name}.")


def _verl_file() -> Path:
    """Return verl's own configuration in one file."""
    spec = find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("verl: expected it to be installed, got none")
    return Path(spec.submodule_search_locations[0]) / "trainer" / "config" / "_generated_ppo_trainer.yaml"


# Values


def check(config: Any) -> None:
    """Require of every setting of verl's that it may have its value (`scale.launch.settings`)."""
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(config)
    for key, value in leaves(values):
        rule = rule_of(key)
        if key.split(".")[0] in OWN or (rule is not None and rule.holds(value)):
            continue
        has_default, there = _default(values, key)
        if (rule is None or not rule.expected) and has_default and _same(value, there):
            continue
        expected = rule.expected if rule is not None and rule.expected else _shown(there) if has_default else NO_SETTING
        why = rule.why if rule is not None else UNTRIED if has_default else ""
        raise ValueError(f"{key}: expected {expected}, got {_shown(value)}{f'; {why}' if why else ''}")
    _check_together(config)
    _check_vllm(config.actor_rollout_ref.rollout.engine_kwargs.get("vllm") or {})
    _check_ray(config.ray_kwargs.ray_init)
    _check_model(config.actor_rollout_ref)
    _check_reward(config.reward.custom_reward_function)


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a configuration with their dotted names."""
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


NO_SETTING = "a setting that verl's files have"


def _same(first: Any, second: Any) -> bool:
    """Return whether two values are equal; true is not 1."""
    return bool(first == second) and isinstance(first, bool) == isinstance(second, bool)


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value!s:.80}"


@functools.cache
def _verl_config() -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.load(_verl_file()))


_TAKEN = re.compile(r"\$\{(?:oc\.select:)?(\.?)([\w.-]+)(?:,(.*))?\}")
"""What verl's files take from another setting, with what they take where there is none."""


def _default(values: Any, key: str) -> tuple[bool, Any]:
    """Return whether verl has a default for a setting, and the default, taken from the settings that it names."""
    node, parts = _verl_config(), key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, Mapping) or part not in node:
            return False, None
        node = node[part]
        if isinstance(node, str) and "${" in node:
            node = _taken(values, node, ".".join(parts[:depth]))
    return True, node


def _taken(values: Any, word: str, node: str) -> Any:
    import yaml

    if not isinstance(word, str) or (found := _TAKEN.fullmatch(word.strip())) is None:
        return yaml.safe_load(word)
    relative, name, otherwise = found.groups()
    value = lookup(values, f"{node}.{name}" if relative else name, None)
    return _taken(values, otherwise, node) if value is None and otherwise else value


def _check_together(config: Any) -> None:
    """Require settings that belong together to agree."""
    from omegaconf import OmegaConf

    shared, device = config.actor_rollout_ref, config.trainer.device
    actor, rollout, model, algorithm = shared.actor, shared.rollout, shared.model, config.algorithm
    optim, engine = actor.optim, actor.fsdp_config
    settings = DynamoConfig.from_mapping(config.dynamo)
    grpo = settings.stock or settings.resolved().advantage == "grpo"
    reference = actor.use_kl_loss or algorithm.use_kl_in_reward
    gpus = device == "cuda"
    correction, own = algorithm.rollout_correction or {}, optim.override_optimizer_config or {}
    kl_loss = actor.use_kl_loss, f"{ACTOR}.use_kl_loss=true"
    kl_reward = algorithm.use_kl_in_reward, "algorithm.use_kl_in_reward=true"
    cosine = optim.lr_scheduler_type == "cosine", f"{ACTOR}.optim.lr_scheduler_type=cosine"
    warmup = optim.lr_warmup_steps <= 0, f"{ACTOR}.optim.lr_warmup_steps=-1"
    wrong = [
        *(
            (key, not on and value not in idle, f"{switch} with it, since verl reads it with that alone")
            for key, value, idle, on, switch in (
                (f"{ACTOR}.kl_loss_coef", actor.kl_loss_coef, (0, 0.001), *kl_loss),
                (f"{ACTOR}.kl_loss_type", actor.kl_loss_type, ("low_var_kl",), *kl_loss),
                ("algorithm.kl_penalty", algorithm.kl_penalty, ("kl",), *kl_reward),
                ("algorithm.kl_ctrl.kl_coef", algorithm.kl_ctrl.kl_coef, (0, 0.001), *kl_reward),
                (f"{ACTOR}.optim.min_lr_ratio", optim.min_lr_ratio, (0.0,), *cosine),
                (f"{ACTOR}.optim.num_cycles", optim.num_cycles, (0.5,), *cosine),
                (f"{ACTOR}.optim.zero_indexed_step", optim.zero_indexed_step, (True,), *cosine),
                (f"{ACTOR}.optim.lr_warmup_steps_ratio", optim.lr_warmup_steps_ratio, (None, 0), *warmup),
            )
        ),
        *(
            (
                f"algorithm.rollout_correction.{name}",
                correction.get("rollout_is") is None and correction.get(name, there) != there,
                "algorithm.rollout_correction.rollout_is=token or sequence with it; without, verl does not read it",
            )
            for name, there in (("rollout_is_threshold", 2.0), ("rollout_is_batch_normalize", False))
        ),
        (
            f"{ACTOR}.optim.override_optimizer_config.fused",
            own.get("foreach") and own.get("fused"),
            "false, or override_optimizer_config.foreach=false: torch takes one of them",
        ),
        *(
            (
                f"dynamo.{name}",
                settings.stock and getattr(settings, name) is not None,
                "null with dynamo.stock=true, which is GRPO by verl's own trainer",
            )
            for name in ("allocator", "alpha", "sharpness", "threshold", "aggregation")
        ),
        (
            "dynamo.method",
            settings.stock and not _trains_as_grpo(settings),
            "grpo with dynamo.stock=true, which is GRPO by verl's own trainer",
        ),
        (
            "algorithm.use_kl_in_reward",
            algorithm.use_kl_in_reward and not grpo,
            f"false, since {settings.method} has advantages of its own, from rewards alone; "
            f"{ACTOR}.use_kl_loss=true is a penalty for every method",
        ),
        (
            "algorithm.norm_adv_by_std_in_grpo",
            not algorithm.norm_adv_by_std_in_grpo and not grpo,
            f"true, since {settings.method} has advantages of its own, which do not read it",
        ),
        (
            f"{ACTOR}.optim.clip_grad",
            optim.clip_grad != actor.grad_clip,
            f"{actor.grad_clip}, as {ACTOR}.grad_clip, by which runs are told apart; set that one",
        ),
        (
            f"{ACTOR}.use_torch_compile",
            actor.use_torch_compile != engine.use_torch_compile,
            f"{_shown(engine.use_torch_compile)}, as {ACTOR}.fsdp_config.use_torch_compile, which verl reads",
        ),
        (
            f"{ROLLOUT}.val_kwargs.do_sample",
            not rollout.val_kwargs.do_sample and rollout.val_kwargs.temperature > 0,
            "true, or val_kwargs.temperature=0: verl's V1 trainer samples at the temperature, whatever do_sample is",
        ),
        (
            f"{ROLLOUT}.enable_chunked_prefill",
            not rollout.enable_chunked_prefill
            and rollout.max_num_batched_tokens
            < (rollout.max_model_len or config.data.max_prompt_length + config.data.max_response_length),
            "true, or max_num_batched_tokens of at least max_model_len, without which vLLM does not start",
        ),
        (
            f"{ROLLOUT}.max_num_batched_tokens",
            rollout.max_num_batched_tokens < rollout.max_num_seqs,
            f"at least max_num_seqs, {rollout.max_num_seqs}, without which vLLM does not start",
        ),
        (
            f"{ROLLOUT}.log_prob_max_token_len_per_gpu",
            rollout.log_prob_max_token_len_per_gpu > actor.ppo_max_token_len_per_gpu,
            f"at most {ACTOR}.ppo_max_token_len_per_gpu, {actor.ppo_max_token_len_per_gpu}, by which memory is counted",
        ),
        (
            "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu",
            reference and shared.ref.log_prob_max_token_len_per_gpu > actor.ppo_max_token_len_per_gpu,
            f"at most {ACTOR}.ppo_max_token_len_per_gpu, {actor.ppo_max_token_len_per_gpu}, by which memory is counted",
        ),
        (
            f"{ROLLOUT}.agent.default_agent_loop",
            rollout.agent.default_agent_loop != "single_turn_agent" and not rollout.agent.agent_loop_config_path,
            "single_turn_agent, or a loop of your own with agent_loop_config_path",
        ),
        (
            f"{ACTOR}.pad_to_length",
            actor.pad_to_length and not model.use_remove_padding,
            f"false, or {MODEL}.use_remove_padding=true",
        ),
        (
            f"{ACTOR}.ulysses_sequence_parallel_size",
            actor.ulysses_sequence_parallel_size > 1 and not _flash(model),
            "1, or attn_implementation=flash_attention_2: verl gathers sequences in flash attention alone",
        ),
        (
            f"{MODEL}.use_remove_padding",
            gpus and not model.use_remove_padding,
            "true: the estimate counts packed sequences",
        ),
        (f"{ROLLOUT}.dtype", gpus and rollout.dtype != "bfloat16", "bfloat16 on GPUs, by which the estimate counts"),
        (
            f"{ACTOR}.fsdp_config.mixed_precision.param_dtype",
            gpus and str((engine.get("mixed_precision") or {}).get("param_dtype", "bf16")) not in ("bf16", "bfloat16"),
            "bf16 on GPUs: flash attention takes no float32, and the estimate counts bfloat16",
        ),
        (
            f"{ROLLOUT}.free_cache_engine",
            gpus and not (rollout.free_cache_engine and rollout.get("enable_sleep_mode", True)),
            "true with enable_sleep_mode on GPUs: vLLM gives its memory back while the weights are trained",
        ),
        (
            f"{ROLLOUT}.free_cache_engine",
            not gpus and (rollout.free_cache_engine or rollout.get("enable_sleep_mode", True)),
            "false with enable_sleep_mode=false: vLLM's CPU build cannot sleep",
        ),
        (
            f"{ACTOR}.fsdp_config.offload_policy",
            not gpus and engine.offload_policy,
            "false on CPUs, which have no other memory",
        ),
    ]
    for key, is_wrong, expected in wrong:
        if is_wrong:
            value = lookup(OmegaConf.to_container(config), key, None)
            raise ValueError(f"{key}: expected {expected}; got {_shown(value)}")


def _trains_as_grpo(settings: DynamoConfig) -> bool:
    """Return whether a method has the clips, means and terms of GRPO, which a run of stock GRPO takes from it."""
    method, grpo = settings.resolved(), METHODS["grpo"]
    return all(getattr(method, x) == getattr(grpo, x) for x in ("loss", "aggregation", "entropy_bonus", "advantage"))


def _flash(model: Any) -> bool:
    return str(model.override_config.get("attn_implementation", "flash_attention_2")) == "flash_attention_2"


# Arguments of vLLM and Ray

SET_BY_VERL = {
    "data_parallel_size": "",
    "disable_log_stats": "disable_log_stats",
    "dtype": "dtype",
    "enable_chunked_prefill": "enable_chunked_prefill",
    "enable_expert_parallel": "",
    "enable_lora": "",
    "enable_prefix_caching": "enable_prefix_caching",
    "enable_sleep_mode": "enable_sleep_mode",
    "enforce_eager": "enforce_eager",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "load_format": "load_format",
    "logprobs_mode": "logprobs_mode",
    "max_model_len": "max_model_len",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "max_num_seqs": "max_num_seqs",
    "model": "",
    "override_generation_config": "",
    "pipeline_parallel_size": "",
    "quantization": "",
    "scheduling_policy": "scheduling_policy",
    "seed": "",
    "skip_tokenizer_init": "",
    "speculative_config": "",
    "tensor_parallel_size": "tensor_model_parallel_size",
    "tokenizer": "",
    "trust_remote_code": "",
}
"""Arguments of vLLM that verl gives it, and the setting of the rollout that each is from, if it may be changed."""


def _check_vllm(arguments: Mapping[str, Any]) -> None:
    known = _vllm_arguments()
    for name, value in arguments.items():
        key = f"{ROLLOUT}.engine_kwargs.vllm.{name}"
        if name in SET_BY_VERL:
            instead = f"{ROLLOUT}.{SET_BY_VERL[name]}" if SET_BY_VERL[name] else "nothing"
            raise ValueError(f"{key}: expected no argument that verl gives vLLM itself; set {instead} instead")
        if known and name not in known:
            raise ValueError(f"{key}: expected an argument of vLLM, got another name{_close(name, known)}")
        _check_value(key, VLLM_ARGUMENTS.get(name), value)


def _check_value(key: str, rule: Rule | None, value: Any) -> None:
    if rule is not None and not rule.holds(value):
        raise ValueError(f"{key}: expected {rule.expected}, got {_shown(value)}{f'; {rule.why}' if rule.why else ''}")


@functools.cache
def _vllm_arguments() -> frozenset[str]:
    """Return the names of vLLM's arguments, from its source: importing it takes long. None if it is not installed."""
    spec = find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    path = Path(spec.submodule_search_locations[0]) / "engine" / "arg_utils.py"
    classes = [x for x in ast.parse(path.read_text()).body if isinstance(x, ast.ClassDef) and "EngineArgs" in x.name]
    lines = [line for part in classes for line in part.body if isinstance(line, ast.AnnAssign)]
    return frozenset(line.target.id for line in lines if isinstance(line.target, ast.Name))


def _check_ray(arguments: Mapping[str, Any]) -> None:
    import ray

    known = set(inspect.signature(ray.init).parameters) - {"kwargs", "local_mode"}
    for name in map(str, arguments):
        if name not in known:
            raise ValueError(
                f"ray_kwargs.ray_init.{name}: expected an argument of ray.init, got another name{_close(name, known)}"
            )


MAY_DIFFER = {
    *("attn_implementation", "attention_dropout", "bos_token_id", "eos_token_id", "initializer_range"),
    *("max_position_embeddings", "pad_token_id", "use_cache"),
}
"""Overrides of the model's configuration that change no probability, or that others check."""


def _check_model(shared: Any) -> None:
    """Require overrides that a model's configuration has, the same in vLLM: Transformers takes any name."""
    from transformers import Qwen2Config, Qwen3Config

    known = {name for kind in (Qwen2Config, Qwen3Config) for name in (*vars(kind()), *kind().to_dict())}
    for node in ("model.override_config", "rollout.engine_kwargs.vllm.hf_overrides"):
        for name in map(str, lookup(shared, node, None) or ()):
            if name not in known | {"attn_implementation"}:
                key = f"actor_rollout_ref.{node}.{name}"
                raise ValueError(f"{key}: expected an attribute of the model's configuration{_close(name, known)}")
    trainers, vllms = shared.model.override_config, shared.rollout.engine_kwargs.vllm.get("hf_overrides") or {}
    for name in sorted({*map(str, trainers), *map(str, vllms)} - MAY_DIFFER):
        if trainers.get(name) != vllms.get(name):
            raise ValueError(
                f"{MODEL}.override_config.{name}: expected the same in {ROLLOUT}.engine_kwargs.vllm.hf_overrides, as "
                f"vLLM would have another model than the trainer, got {trainers.get(name)} and {vllms.get(name)}"
            )


GIVEN = ("data_source", "solution_str", "ground_truth", "extra_info")
"""What verl gives a reward function; its other parameters are options."""


def _check_reward(reward: Any) -> None:
    """Require a reward function that its file defines, and options that it names: the source is read, and not run.

    Another function may take options that it does not name; ours would ignore them.
    """
    path = Path(str(reward.path))
    if not path.is_file():  # `scale.launch.checks` looks where the run will be
        return
    try:
        body = ast.parse(path.read_text()).body
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: expected a file of Python, got {error}") from error
    functions = {x.name: x.args for x in body if isinstance(x, (ast.FunctionDef, ast.AsyncFunctionDef))}
    others = {alias.asname or alias.name for x in body if isinstance(x, ast.ImportFrom) for alias in x.names}
    others |= {y.id for x in body if isinstance(x, ast.Assign) for y in x.targets if isinstance(y, ast.Name)}
    if reward.name in others:
        return
    require_name("reward.custom_reward_function.name", reward.name, functions)
    taken = functions[reward.name]
    options = {x.arg for x in (*taken.args, *taken.kwonlyargs)} - {*GIVEN}
    for name in map(str, reward.get("reward_kwargs") or ()):
        if name not in options and (taken.kwarg is None or path.is_relative_to(CONF.parent)):
            key = f"reward.custom_reward_function.reward_kwargs.{name}"
            raise ValueError(f"{key}: expected an option of {reward.name} in {path.name}{_close(name, options)}")
    if path == CONF.parent / "rewards" / "scoring.py" and reward.name == "compute_score":
        for name, value in (reward.get("reward_kwargs") or {}).items():
            _check_value(f"reward.custom_reward_function.reward_kwargs.{name}", REWARD_OPTIONS.get(str(name)), value)
