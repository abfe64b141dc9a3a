"""What a run may set of verl's configuration: a decision for every setting, with its reason.

Many settings of verl are read by another trainer, another engine or nobody, and some break a run after its first
rollouts. A run refuses them before Ray starts: a setting has an effect, or it cannot be changed. Each decision here was
made by reading verl 0.9.1 and this plug-in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

EXTENSIBLE = (
    "actor_rollout_ref.actor.optim.override_optimizer_config.",
    "actor_rollout_ref.model.override_config.",
    "actor_rollout_ref.rollout.engine_kwargs.",
    "algorithm.rollout_correction.",
    "data.apply_chat_template_kwargs.",
    "dynamo.",
    "ray_kwargs.",
    "reward.custom_reward_function.reward_kwargs.",
    *(f"actor_rollout_ref.{name}.fsdp_config.mixed_precision." for name in ("actor", "ref")),
)
"""Nodes that may get keys which are not in the files."""

OWN = (
    *("dynamo", "network", "estimate", "checkpoints", "shape", "hardware"),
    *("default_cluster", "tiny_folder", "untested_versions"),
)
"""Nodes of ours, whose values others check."""


# Kinds of decisions


@dataclass(frozen=True)
class Rule:
    """Values that a setting may have.

    Attributes
    ----------
    expected : The values in words; "" for verl's default, or the setting that verl takes it from.
    holds : Whether a value is one of them.
    why : Reason, and what to do instead.
    """

    expected: str
    holds: Callable[[Any], bool]
    why: str = ""


def one_of(*values: Any, why: str = "") -> Rule:
    """Allow some values; 1 is not true."""
    return Rule(
        " or ".join("null" if x is None else str(x).lower() if isinstance(x, bool) else str(x) for x in values),
        lambda value: any(type(value) is type(x) and value == x for x in values),
        why,
    )


def number(low: float, high: float = math.inf, *, above: bool = False, null: bool = False, why: str = "") -> Rule:
    """Allow a finite number in [low, high], or (low, high]."""
    sign = ">" if above else ">="
    words = f"a number {sign} {low:g}" + (f" and <= {high:g}" if high < math.inf else "") + " or null" * null

    def holds(value: Any) -> bool:
        if value is None:
            return null
        sound = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return sound and (low < value if above else low <= value) and value <= high

    return Rule(words, holds, why)


def whole(low: int, *, null: bool = False, why: str = "") -> Rule:
    """Allow an integer of at least `low`."""
    words = f"an integer >= {low}" + " or null" * null
    return Rule(words, lambda x: (x is None and null) or (type(x) is int and x >= low), why)


def text(*, null: bool = True) -> Rule:
    """Allow a text that is not empty."""
    words = "a text" + " or null" * null
    return Rule(words, lambda x: (x is None and null) or (isinstance(x, str) and bool(x)))


def default(why: str) -> Rule:
    """Allow verl's default alone."""
    return Rule("", lambda value: False, why)


FREE = Rule("any value", lambda value: True)
FLAG = one_of(True, False)


def contents(*needed: str, why: str) -> Rule:
    """Allow lists that have some names."""
    return Rule(f"a list with {', '.join(needed)}", lambda x: isinstance(x, list) and {*needed} <= {*map(str, x)}, why)


# The decisions

FSDP1 = "it is for FSDP1, and this plug-in trains by FSDP2"
OTHER = "it is for another engine, and this plug-in trains by FSDP2 and samples by vLLM"
DEAD = "nothing in verl 0.9.1's V1 trainer reads it"
METHOD = "the method decides (--method, dynamo.*)"
DYNAMIC = "micro-batches are made by tokens (ppo_max_token_len_per_gpu)"
COUNTED = "its memory is not counted by the estimate, and nobody tried it"
UNTRIED = "nobody tried it with this trainer"
SYNC = "it is for verl's separate_async, which this plug-in does not extend (docs/scale.md)"
TEXT_ONLY = "models here read text alone"
PARENT = "verl reads it only with the part that is switched off here"
OLD = "nothing reads verl's old names: set the same below `reward`"
FIXED_ORDER = "the order of rows is the plug-in's, so that it depends neither on chance nor on ranks"
PROFILE = "verl's profilers were never tried with this trainer"

_FSDP: dict[str, Rule] = {
    "_target_ strategy dtype forward_only": default("verl sets it by the actor's strategy and by what it trains"),
    "forward_prefetch": FLAG,
    "fsdp_size": one_of(-1, why="weights are spread over all GPUs, by which the estimate counts"),
    "full_determinism": one_of(False, why="runs are reproducible without (seeds, order of rows)"),
    "mixed_precision.param_dtype": one_of("bf16", "bfloat16", "fp32", "float32", why="verl's scaler of float16 skips "
                                          "steps, which this trainer counts as failures"),
    "mixed_precision.reduce_dtype mixed_precision.buffer_dtype": one_of("fp32", "float32", "bf16", "bfloat16"),
    "model_dtype": one_of("fp32", why="updates of 1e-6 are lost in weights of bfloat16; the passes are in bfloat16"),
    "offload_policy optimizer_offload param_offload": FLAG,
    "pad_to_length_bucket": whole(1),
    "qat.*": default("quantisation-aware training: " + UNTRIED),
    "reshard_after_forward": one_of(True, why="the weights of all layers would stay on every GPU; " + COUNTED),
    "seed": default("it is for full_determinism"),
    "turbo_config.*": default(OTHER),
    "ulysses_sequence_parallel_size": one_of(1, why="set actor_rollout_ref.actor.ulysses_sequence_parallel_size"),
    "use_no_sync_for_gradient_accumulation": FLAG,  # the estimate counts it
    "use_orig_params wrap_policy.*": default(FSDP1),
    "use_torch_compile": FLAG,
}  # fmt: skip
_CHUNKS = "entropy_checkpointing entropy_from_logits_with_chunking pad_to_length"

RULES_BY_NODE: dict[str, dict[str, Rule]] = {
    "actor_rollout_ref": {
        "hybrid_engine": one_of(True, why=SYNC),
        "nccl_timeout": default(DEAD),
    },
    "actor_rollout_ref.actor": {
        "_target_": default(OTHER),
        "calculate_entropy": one_of(False, why="the entropy is recorded as it is, and weighed by the method"),
        "calculate_sum_pi_squared": one_of(False, why="the method asks for what it needs"),
        "checkpoint._target_ checkpoint.strict": default(OTHER),
        "checkpoint.async_save": one_of(False, why="verl's FSDP engine saves at once, and its trainer would leave out "
                                        "the file by which a run resumes"),
        "checkpoint.load_contents": contents("model", "optimizer", "extra", why="a run resumes from all of them"),
        "checkpoint.save_contents": contents("model", "optimizer", "extra", "hf_model", why="a run resumes from the "
                                             "first three, and `python -m scale evaluate` reads hf_model"),
        "clip_ratio clip_ratio_low clip_ratio_high clip_ratio_c loss_agg_mode entropy_coeff": FREE,  # `FOLLOWS`
        "data_loader_seed ppo_mini_batch_size": FREE,  # checked elsewhere
        "entropy_from_logits_chunk_size": default("verl leaves it out where it computes entropies again, and the "
                                                  "estimate counts 2,048"),
        _CHUNKS: FLAG,
        "freeze_vision_tower": default(TEXT_ONLY),
        "grad_clip": number(0, above=True),
        "kl_loss_coef": number(0),
        "kl_loss_type": one_of(*("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3"),
                               *("kl+", "k1+", "abs+", "low_var_kl+", "k3+")),
        "loss_scale_factor": default("it is for verl's seq-mean-token-sum-norm; " + METHOD),
        "policy_loss._target_": default(METHOD),
        "policy_loss.*": default(METHOD),
        "policy_loss.loss_mode": one_of("vanilla", why=METHOD),
        "ppo_epochs": one_of(1, why="every rollout is learnt from once, and the estimate counts one"),
        "ppo_max_token_len_per_gpu ulysses_sequence_parallel_size": whole(1),
        "ppo_micro_batch_size ppo_micro_batch_size_per_gpu": one_of(None, why=DYNAMIC),
        "profiler.*": default(PROFILE),
        "qat.*": default("quantisation-aware training: " + UNTRIED),
        "rollout_n": default("set actor_rollout_ref.rollout.n"),
        "shuffle": one_of(False, why=FIXED_ORDER),
        "strategy": one_of("fsdp2", why="this plug-in's engine is FSDP2's, and it was tried and its memory counted "
                           "with it alone"),
        "tau_neg tau_pos": default("it is for verl's sapo; " + METHOD),
        "use_dynamic_bsz": one_of(True, why=DYNAMIC),
        "use_fused_kernels": default("verl takes it from actor_rollout_ref.model.use_fused_kernels"),
        "use_kl_loss": FLAG,
        "use_prefix_grouper": one_of(False, why=DEAD),
        "use_remove_padding": default("set actor_rollout_ref.model.use_remove_padding"),
        "use_torch_compile": FLAG,
    },
    "actor_rollout_ref.actor.optim": {
        "_target_": default(OTHER),
        "betas": Rule("two numbers in [0, 1)", lambda x: isinstance(x, list) and len(x) == 2
                      and all(type(y) in (int, float) and 0 <= y < 1 for y in x)),
        "clip_grad": number(0, above=True),
        "lr": number(0),
        "lr_scheduler_type": one_of("constant", "cosine"),
        "lr_warmup_steps": whole(-1),
        "lr_warmup_steps_ratio min_lr_ratio": number(0, 1),
        "num_cycles": number(0),
        "optimizer": one_of("AdamW", "Adam", why="memory and checkpoints are counted with its two moments"),
        "optimizer_impl": one_of("torch.optim", why="others are not installed by requirements/, and nobody tried them"),
        "override_optimizer_config": one_of(None),
        "override_optimizer_config.eps": number(0, above=True),
        "override_optimizer_config.foreach override_optimizer_config.fused": FLAG,
        "override_optimizer_config.*": default("of AdamW's other arguments nobody tried one"),
        "total_training_steps": default("set trainer.total_training_steps (--steps)"),
        "warmup_style": one_of(None, why="set lr_scheduler_type, its new name"),
        "weight_decay": number(0),
        "zero_indexed_step": FLAG,
    },
    "actor_rollout_ref.actor.fsdp_config": {
        **_FSDP,
        f"{_CHUNKS} entropy_from_logits_chunk_size": default("set the same of actor_rollout_ref.actor"),
    },
    "actor_rollout_ref.ref": {
        "_target_ rollout_n strategy ulysses_sequence_parallel_size": default("a reference policy follows the actor"),
        f"{_CHUNKS} entropy_from_logits_chunk_size": default("no entropy of a reference policy is computed"),
        "log_prob_max_token_len_per_gpu": whole(1),
        "log_prob_micro_batch_size log_prob_micro_batch_size_per_gpu": one_of(None, why=DYNAMIC),
        "log_prob_use_dynamic_bsz": one_of(True, why=DYNAMIC),
        "profiler.*": default(PROFILE),
        "use_torch_compile": FLAG,
    },
    "actor_rollout_ref.ref.fsdp_config": {
        **_FSDP,
        f"{_CHUNKS} entropy_from_logits_chunk_size": default("no entropy of a reference policy is computed"),
        "offload_policy optimizer_offload param_offload": one_of(False, why="verl keeps a reference policy's weights "
                                                                 "on the host, whatever is set"),
    },
    "actor_rollout_ref.rollout": {
        "_target_ mtp._target_ qat._target_ val_kwargs._target_ trace._target_ agent._target_": default(OTHER),
        "agent.agent_loop_config_path": text(),
        "agent.agent_loop_manager_class": one_of("scale.plugin.agent_loop.SeededAgentLoopManager", why="trajectories "
                                                 "have seeds, and failures end the run, by this one alone"),
        "agent.custom_async_server.*": default(DEAD),
        "agent.default_agent_loop": text(null=False),
        "agent.num_workers": whole(1),
        "calculate_log_probs": one_of(True, why="by vLLM's probabilities each step shows that it has the weights"),
        "checkpoint_engine._target_ checkpoint_engine.custom_backend_module": default(SYNC),
        "checkpoint_engine.backend": one_of("naive", why=SYNC),
        "checkpoint_engine.update_weights_bucket_megabytes": whole(1),
        "cudagraph_capture_sizes": Rule("a list of integers or null", lambda x: x is None or (
            isinstance(x, list) and all(type(y) is int and y > 0 for y in x))),
        "data_parallel_size expert_parallel_size pipeline_model_parallel_size": one_of(1, why="every group of "
                                                                                       "tensor_model_parallel_size "
                                                                                       "GPUs has a vLLM of its own"),
        "disable_log_stats enable_chunked_prefill enable_prefix_caching enforce_eager ignore_eos": FLAG,
        "disaggregation.*": default("prefill and decoding share GPUs here; " + UNTRIED),
        "do_sample": default(DEAD + ": temperature 0 is greedy"),
        "dtype": one_of("bfloat16", "float32"),
        "enable_rollout_routing_replay moe_load_balance_metrics_interval": default("models here are dense"),
        "enable_sleep_mode free_cache_engine": FLAG,
        "engine_kwargs.sglang.* engine_kwargs.trtllm.*": default("rollouts are vLLM's"),
        "engine_kwargs.vllm.*": FREE,  # arguments of vLLM
        "full_determinism": one_of(False, why="verl would give all requests one name, which vLLM refuses; runs are "
                                   "reproducible by a seed for every trajectory"),
        "gpu_memory_utilization": number(0, 1, above=True),
        "layered_summon": one_of(False, why=FSDP1),
        "load_format": one_of("dummy", "auto", "safetensors", why="the weights come from the trainer"),
        "log_prob_max_token_len_per_gpu": whole(1),
        "log_prob_micro_batch_size log_prob_micro_batch_size_per_gpu": one_of(None, why=DYNAMIC),
        "log_prob_use_dynamic_bsz": one_of(True, why=DYNAMIC),
        "logprobs_mode": one_of("processed_logprobs", why="others are not those of what is sampled from"),
        "max_model_len": whole(1, null=True),
        "max_num_batched_tokens max_num_seqs n tensor_model_parallel_size": whole(1),
        "mode": one_of("async", why="verl 0.9.1 has no other"),
        "mtp.*": default("models here have no layers for speculative decoding"),
        "multi_stage_wake_up": default(DEAD),
        "multi_turn.*": default("a trajectory is a prompt and a response: rules count responses, and a turn has no "
                                "seed of its own"),
        "n_gpus_per_node nnodes": default(SYNC),
        "name": one_of("vllm", why="sockets, seeds and failures of a run are vLLM's here"),
        "over_sample_rate": one_of(0, 0.0, why=OTHER),
        "profiler.*": default(PROFILE),
        "prometheus.*": default("it opens a port, and " + UNTRIED),
        "prompt_length response_length": default("set data.max_prompt_length and data.max_response_length"),
        "qat.* quantization quantization_config_file": default("sampler and trainer would differ; " + UNTRIED),
        "router_config_path": default(UNTRIED),
        "scheduling_policy": one_of("fcfs", why="all requests have one priority"),
        "seed": FREE,  # `FOLLOWS`
        "skip_tokenizer_init": default(DEAD),
        "temperature": number(0, above=True, why="probabilities are taken at this temperature"),
        "top_k": Rule("-1 or an integer >= 1", lambda x: type(x) is int and (x == -1 or x >= 1)),
        "top_p val_kwargs.top_p": number(0, 1, above=True),
        "trace.*": default(DEAD),
        "val_kwargs.do_sample": FLAG,
        "val_kwargs.n": whole(1),
        "val_kwargs.temperature": number(0),
        "val_kwargs.top_k": Rule("-1 or an integer >= 1", lambda x: type(x) is int and (x == -1 or x >= 1)),
    },
    "actor_rollout_ref.model": {
        "_target_": default(OTHER),
        "custom_chat_template external_lib": text(),
        "enable_activation_offload": one_of(False, why=COUNTED),
        "enable_gradient_checkpointing trust_remote_code use_remove_padding": FLAG,
        "exclude_modules lora_alpha target_modules lora.*": default("it is for LoRA, which is refused"),
        "fused_kernel_options.*": default("it is for use_fused_kernels"),
        "hf_config_path tokenizer_path": one_of(None, why="vLLM reads both from the model's folder"),
        "lora_adapter_path": one_of(None, why="the export would have the names of PEFT, which neither Transformers nor "
                                    "vLLM reads as a model; merge the adapter first"),
        "lora_rank": one_of(0, why="the export that `python -m scale evaluate` reads would have the names of PEFT, "
                            "which neither Transformers nor vLLM reads as a model; all weights are trained"),
        "mtp.*": default("models here have no layers for speculative decoding"),
        "override_config.*": FREE,  # attributes of the model's configuration
        "override_config.attn_implementation": one_of("flash_attention_2", "sdpa", "eager"),
        "path": text(null=False),
        "tiled_mlp.*": default("verl's FSDP engine does not read it"),
        "use_fused_kernels": one_of(False, why="fused kernels make no logits, which token statistics and exact "
                                    "entropies need"),
        "use_liger": one_of(False, why="liger-kernel is not installed by requirements/, and nobody tried it"),
        "use_shm": one_of(False, why="a copy of the model in /dev/shm is not counted"),
    },
    "algorithm": {
        "_target_ filter_groups._target_ kl_ctrl._target_": default(OTHER),
        "adv_estimator": one_of("grpo", why=METHOD),
        "filter_groups.*": default(PARENT),
        "filter_groups.enable": one_of(False, why="the budget is fixed"),
        "gamma lam": one_of(1.0, 1, why="a response has one reward, and nothing is discounted"),
        "kl_ctrl.horizon kl_ctrl.target_kl": default("it is for an adaptive controller"),
        "kl_ctrl.kl_coef": number(0),
        "kl_ctrl.type": one_of("fixed", why="checkpoints of verl do not have the state of an adaptive controller"),
        "kl_penalty": one_of("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3"),
        "norm_adv_by_std_in_grpo use_kl_in_reward": FLAG,
        "pf_ppo.* use_pf_ppo": default(DEAD),
        "rollout_correction": one_of(None),
        "rollout_correction.bypass_mode": one_of(False, why="the trainer's own log-probabilities and token statistics "
                                                 "would never be computed"),
        "rollout_correction.loss_type rollout_correction.rollout_rs_threshold": default(PARENT),
        "rollout_correction.rollout_is rollout_correction.rollout_is_threshold": FREE,  # checked elsewhere
        "rollout_correction.rollout_is_batch_normalize": FLAG,
        "rollout_correction.rollout_rs": one_of(None, why="verl goes on to count rejected tokens in its means, and our "
                                                "losses would not"),
    },
    "critic": {
        "enable": one_of(False, None, why="advantages are relative to the group"),
        "*": default("there is no critic: advantages are relative to the group"),
    },
    "custom_reward_function": {"*": default(OLD)},
    "data": {
        "apply_chat_template_kwargs.*": FREE,
        "custom_cls.*": default("`python -m scale prepare` writes what the trainer needs: a key for every prompt"),
        "dataloader_num_workers": one_of(0, why="that a resumed run takes the next prompt was tried with 0 alone"),
        "filter_overlong_prompts shuffle validation_shuffle": FLAG,
        "filter_overlong_prompts_workers val_batch_size": whole(1, null=True),
        "function_tool_path tool_config_path": default("a trajectory is a prompt and a response"),
        "gen_batch_size": one_of(None, why=SYNC),
        "image_key image_patch_size audio_key video_key return_multi_modal_inputs": default(TEXT_ONLY),
        "max_prompt_length max_response_length train_batch_size": whole(1),
        "prompt_key": one_of("prompt", why="`python -m scale evaluate` reads it"),
        "return_full_prompt return_raw_chat return_raw_input_ids reward_fn_key tokenizer": default(DEAD),
        "seed": FREE,  # `FOLLOWS`
        "train_files val_files": FREE,
        "train_max_samples val_max_samples": whole(-1),
        "truncation": one_of("left", why="verl's V1 trainer cuts off the beginning of longer prompts, whatever is set; "
                             "data.filter_overlong_prompts=true leaves them out"),
        "trust_remote_code": default("set actor_rollout_ref.model.trust_remote_code"),
        "use_shm": default("a copy of the data in /dev/shm is not counted"),
    },
    "distillation": {"*": default("there is no teacher: " + UNTRIED)},
    "global_profiler": {"*": default(PROFILE)},
    "model_engine": {"": one_of("dp", why=OTHER)},
    "ray_kwargs": {
        "ray_init.*": FREE,  # arguments of Ray
        "ray_init.runtime_env.py_executable": default(UNTRIED),
        "timeline_json_file": text(),
    },
    "reward": {
        "_target_ reward_manager._target_ reward_manager.module._target_": default(OTHER),
        "custom_reward_function.reward_kwargs.*": FREE,
        "custom_reward_function.path custom_reward_function.name": text(null=False),
        "num_workers": whole(1),
        "reward_manager.*": default("a reward function decides alone; other managers change its rewards"),
        "reward_model.*": default("rules in rounds need a reward with the response, and a reward model's memory is not "
                                  "counted; a reward function may ask a server"),
        "sandbox_fusion.*": default("verl hands it to its own reward function alone"),
    },
    "reward_model": {"*": default(OLD)},
    "sandbox_fusion": {"*": default(OLD)},
    "skip": {"*": default("stored rollouts of another policy would be learnt from")},
    "trainer": {
        "balance_batch": default(FIXED_ORDER),
        "checkpoint_callback_class": text(),
        "critic_warmup": one_of(0, why="the actor would not learn in the first steps, and there is no critic"),
        "default_hdfs_dir": one_of(None, why="verl's FSDP checkpoints do not read it"),
        "default_local_dir experiment_name v1.trainer_mode": FREE,  # `FOLLOWS`
        "v1.colocate_async.num_warmup_batches v1.sampler.max_off_policy_threshold": FREE,  # `FOLLOWS`
        "del_local_ckpt_after_load": default("it is for checkpoints that are not on a disk"),
        "device": one_of("cuda", "cpu"),
        "esi_redundant_time": default(DEAD),
        "log_val_generations": whole(0),
        "logger": FREE,
        "max_actor_ckpt_to_keep": whole(1, null=True),
        "max_critic_ckpt_to_keep": default("there is no critic"),
        "n_gpus_per_node nnodes ray_wait_register_center_timeout total_training_steps": whole(1),
        "project_name": text(null=False),
        "resume_from_path": one_of(None, why="a run goes on from its own last checkpoint"),
        "resume_mode": one_of("auto", why="a run goes on from its own last checkpoint, or starts in another folder"),
        "rollout_data_dir validation_data_dir": text(),
        "save_freq test_freq": whole(-1),
        "total_epochs": one_of(1000000, why="steps are counted (trainer.total_training_steps, --steps), not epochs"),
        "use_v1": one_of(True, why="the older trainer knows nothing of this plug-in"),
        "v1.separate_async.*": default(SYNC),
        "v1.sampler.max_off_policy_strategy": default("no rollout is dropped (dynamo.lag)"),
        "v1.sampler.custom_sampler.* v1.sampler.sync_refill_failed_groups": default(
            "a step has the rollouts of its own prompts; one that fails ends the run"
        ),
        "val_before_train": FLAG,
        "val_only": one_of(False, why="`python -m scale evaluate` evaluates"),
    },
    "transfer_queue": {
        "*": default(UNTRIED),
        "backend.SimpleStorage.num_data_storage_units": whole(1),
        "backend.SimpleStorage.total_storage_size": whole(1),
        "enable": default("verl sets it"),
    },
}  # fmt: skip
"""Decisions by node and names; a name that ends in `*` is for all below it that have no other."""


def _flat() -> dict[str, Rule]:
    return {
        ".".join(filter(None, (node, name))): rule
        for node, rules in RULES_BY_NODE.items()
        for names, rule in rules.items()
        for name in names.split(" ")
    }


RULES: Mapping[str, Rule] = _flat()
"""The same by full name."""


def rule_of(key: str) -> Rule | None:
    """Return the decision about a setting, its own or that of the nearest node that has one; None without any."""
    if key in RULES:
        return RULES[key]
    parts = key.split(".")
    nodes = (".".join(parts[:depth]) for depth in range(len(parts) - 1, 0, -1))
    return next((RULES[f"{node}.*"] for node in nodes if f"{node}.*" in RULES), None)


REWARD_OPTIONS: Mapping[str, Rule] = {
    "guess": FLAG,
    "require_box": FLAG,
    "timeout": number(0, 86_400, above=True),
    "tolerance": one_of("exact", "minerva", "qwen"),
    "workers": whole(1),
}
"""Values of the options of our reward function; in a run the first response would show that one is wrong."""

VLLM_ARGUMENTS: Mapping[str, Rule] = {
    "cpu_offload_gb": one_of(0, 0.0, why=COUNTED),
    "decode_context_parallel_size": one_of(1, why="every group of tensor_model_parallel_size GPUs has a vLLM of its "
                                           "own"),
    "distributed_executor_backend": one_of("mp", "uni", why="verl reaches vLLM's processes by these alone"),
    "kv_cache_dtype": one_of("auto", "bfloat16", "float32", why="sampler and trainer would differ; " + UNTRIED),
    "kv_cache_memory_bytes": one_of(None, why="set actor_rollout_ref.rollout.gpu_memory_utilization, by which memory "
                                    "is counted"),
    "runner": one_of("auto", "generate", why="vLLM would draw no tokens"),
    "worker_cls": one_of("auto", why=UNTRIED),
}  # fmt: skip
"""Values of those arguments of vLLM that not every value suits."""

READ_BUT_NOT_IN_FILES = (
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class",
    "actor_rollout_ref.rollout.enable_sleep_mode",
    "actor_rollout_ref.actor.optim.override_optimizer_config.eps",
    "actor_rollout_ref.actor.optim.override_optimizer_config.foreach",
    "actor_rollout_ref.actor.optim.override_optimizer_config.fused",
    "actor_rollout_ref.model.override_config.attn_implementation",
    *(
        f"actor_rollout_ref.{name}.fsdp_config.mixed_precision.{part}_dtype"
        for name in ("actor", "ref")
        for part in ("param", "reduce", "buffer")
    ),
)
"""Settings that verl reads and its files leave out."""
