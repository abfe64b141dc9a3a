"""Every setting of verl's has an effect, or is refused before Ray starts with a reason."""

from __future__ import annotations

import contextlib
import re

import pytest

from scale.launch import refused, settings
from tests.scale.launch.conftest import compose

pytestmark = [pytest.mark.needs_verl, pytest.mark.versionless]

ACTOR, ROLLOUT, MODEL = (f"actor_rollout_ref.{name}" for name in ("actor", "rollout", "model"))


@pytest.fixture(scope="module")
def verl():
    """Return verl's own configuration by dotted name, as Hydra composes it."""
    from hydra import compose as hydra_compose, initialize_config_module
    from omegaconf import OmegaConf

    with initialize_config_module("verl.trainer.config", version_base=None):
        return dict(refused.leaves(OmegaConf.to_container(hydra_compose("ppo_trainer"), resolve=True)))


def test_every_setting_of_verl_has_a_decision(verl):
    assert len(verl) > 800
    assert [key for key in verl if settings.rule_of(key) is None] == []


def test_verl_has_every_setting_that_is_decided_about(verl):
    """But for settings that its files leave out, and that it reads."""
    extra = {*settings.READ_BUT_NOT_IN_FILES}
    ends = {key for key in settings.RULES if not key.endswith("*")} - extra
    assert ends - verl.keys() == {"algorithm.rollout_correction"}, "a node, which may be null"
    assert not extra & verl.keys()
    nodes = [key.removesuffix("*") for key in settings.RULES if key.endswith(".*")]
    open_nodes = tuple(settings.EXTENSIBLE)
    assert [x for x in nodes if not x.startswith(open_nodes) and not any(y.startswith(x) for y in verl)] == []


def test_names_are_known_without_verl(verl):
    """They are read from a file of verl's that is made from what Hydra composes.

    Two nodes of the rollout are taken from elsewhere as a whole, and cannot be set.
    """
    taken = tuple(f"{ROLLOUT}.{name}." for name in ("mtp", "qat"))
    assert {key for key in verl.keys() - refused._names() if not key.startswith(taken)} == set()


REFUSED = [
    # named by who read verl line by line
    (f"{MODEL}.use_fused_kernels=true", "expected false, got true; fused kernels make no logits"),
    (f"{ACTOR}.use_fused_kernels=true", "use_fused_kernels: expected false, got true"),
    ("algorithm.rollout_correction.bypass_mode=true", "expected false, got true; the trainer's own log-prob"),
    (f"{ACTOR}.strategy=megatron", "expected fsdp2, got megatron; this plug-in's engine"),
    (f"{ACTOR}.strategy=fsdp", "expected fsdp2, got fsdp"),
    (f"{ACTOR}.strategy=torchtitan", "expected fsdp2"),
    (f"{ACTOR}.strategy=veomni", "expected fsdp2"),
    ("model_engine=megatron", "model_engine: expected dp"),
    (f"{ROLLOUT}.name=sglang", "expected vllm, got sglang"),
    (f"{ROLLOUT}.name=trtllm", "expected vllm, got trtllm"),
    ("algorithm.adv_estimator=rloo", "expected grpo, got rloo; the method decides (--method"),
    ("algorithm.adv_estimator=gae", "expected grpo"),
    (f"{ACTOR}.policy_loss.loss_mode=gspo", "expected vanilla, got gspo; the method decides"),
    (f"{ROLLOUT}.full_determinism=true", "expected false, got true; verl would give all requests one name"),
    (f"{ACTOR}.fsdp_config.full_determinism=true", "expected false, got true; runs are reproducible"),
    (f"{ROLLOUT}.multi_turn.enable=true", "expected false, got true; a trajectory is a prompt and a response"),
    (f"{MODEL}.lora_rank=8", "expected 0, got 8; the export that `python -m scale evaluate` reads would have"),
    (f"{MODEL}.lora.rank=8", "expected 0, got 8; it is for LoRA"),
    (f"{MODEL}.lora_adapter_path=there", "expected null, got there"),
    # would end the run after its first rollouts
    ("trainer.critic_warmup=5", "expected 0, got 5; the actor would not learn"),
    ("trainer.save_freq=often", "expected an integer >= -1, got often"),
    ("trainer.test_freq=0.5", "expected an integer >= -1, got 0.5"),
    ("trainer.logger=[console,tensorbord]", "trainer.logger: expected one of console, file, tensorboard"),
    ("trainer.val_before_train=maybe", "expected true or false, got maybe"),
    ("algorithm.kl_penalty=full", "expected kl or k1"),
    (f"{ACTOR}.kl_loss_type=k9", "expected kl or k1"),
    (f"{ROLLOUT}.log_prob_max_token_len_per_gpu=16", "expected room for prompt and response, 40 tokens, got 16"),
    (f"{ROLLOUT}.log_prob_max_token_len_per_gpu=99999", "expected at most actor_rollout_ref.actor.ppo_max_token_len"),
    (f"{ROLLOUT}.val_kwargs.top_p=0", "expected a number > 0 and <= 1, got 0"),
    (f"{ROLLOUT}.top_k=0", "expected -1 or an integer >= 1, got 0"),
    (f"{ROLLOUT}.max_num_batched_tokens=8", "expected at least max_num_seqs, 256"),
    ("data.train_max_samples=20", "expected at least a batch of 32 prompts or -1, got 20"),
    ("transfer_queue.backend.SimpleStorage.total_storage_size=100", "expected room for the 256 rollouts of a step"),
    (f"{ROLLOUT}.checkpoint_engine.backend=nccl", "expected naive, got nccl"),
    (f"{ROLLOUT}.engine_kwargs.vllm.max_model_length=9", "expected an argument of vLLM, got another name (close: max_"),
    (f"{ROLLOUT}.engine_kwargs.vllm.seed=9", "expected no argument that verl gives vLLM itself; set nothing instead"),
    (f"{MODEL}.override_config.attn_implementaton=sdpa", "expected an attribute of the model's configuration (close: "),
    (f"{ROLLOUT}.engine_kwargs.vllm.hf_overrides.max_positions=9", "expected an attribute of the model's"),
    (f"{ROLLOUT}.engine_kwargs.vllm.distributed_executor_backend=ray", "expected mp or uni, got ray"),
    (f"{ROLLOUT}.engine_kwargs.vllm.kv_cache_dtype=fp8", "expected auto or bfloat16 or float32, got fp8; sampler"),
    (f"{ROLLOUT}.engine_kwargs.vllm.kv_cache_memory_bytes=1000000", "expected null, got 1000000; set actor"),
    (f"{ROLLOUT}.engine_kwargs.vllm.runner=pooling", "expected auto or generate, got pooling"),
    (f"{MODEL}.override_config.num_hidden_layers=1", "expected the same in actor_rollout_ref.rollout.engine_kwargs"),
    (f"{ROLLOUT}.engine_kwargs.vllm.hf_overrides.rms_norm_eps=0.1", "vLLM would have another model than the trainer"),
    ("ray_kwargs.ray_init.num_cpu=9", "expected an argument of ray.init, got another name (close: num_cpus"),
    (f"{ACTOR}.fsdp_config.mixed_precision.param_dtype=fp16", "expected bf16 or bfloat16"),
    (f"{ACTOR}.optim.optimizer=Muon", "expected AdamW or Adam, got Muon"),
    (f"{ACTOR}.ulysses_sequence_parallel_size=2", "expected 1, or attn_implementation=flash_attention_2"),
    # would be ignored without a word
    ("data.truncation=error", "expected left, got error; verl's V1 trainer cuts off the beginning"),
    (f"{ROLLOUT}.val_kwargs.do_sample=false", "expected true, or val_kwargs.temperature=0"),
    (f"{ACTOR}.checkpoint.async_save=true", "expected false, got true; verl's FSDP engine saves at once"),
    (f"{ACTOR}.checkpoint.save_contents=[model,optimizer,extra]", "expected a list with model, optimizer, extra, hf_"),
    (f"{ACTOR}.checkpoint.load_contents=[model]", "expected a list with model, optimizer, extra, got"),
    (f"{ACTOR}.kl_loss_coef=0.01", "use_kl_loss=true with it, since verl reads it with that alone; got 0.01"),
    (f"{ACTOR}.kl_loss_type=mse", "use_kl_loss=true with it, since verl reads it with that alone; got mse"),
    ("algorithm.kl_penalty=mse", "use_kl_in_reward=true with it, since verl reads it with that alone; got mse"),
    (f"{ACTOR}.optim.min_lr_ratio=0.1", "lr_scheduler_type=cosine with it, since verl reads it with that alone"),
    (f"{ACTOR}.optim.num_cycles=2", "lr_scheduler_type=cosine with it"),
    ("algorithm.rollout_correction.rollout_is_threshold=3", "rollout_is=token or sequence with it"),
    ("algorithm.rollout_correction.rollout_is_batch_normalize=true", "rollout_is=token or sequence with it"),
    ("algorithm.kl_ctrl.kl_coef=0.01", "use_kl_in_reward=true with it"),
    ("algorithm.kl_ctrl.type=adaptive", "expected fixed, got adaptive"),
    ("algorithm.gamma=0.99", "expected 1.0 or 1, got 0.99"),
    ("algorithm.use_pf_ppo=true", "expected false, got true; nothing in verl 0.9.1's V1 trainer reads it"),
    ("critic.enable=true", "expected false or null, got true"),
    ("critic.optim.lr=1e-4", "expected 1e-05, got 0.0001; there is no critic"),
    ("trainer.balance_batch=false", "expected true, got false; the order of rows is the plug-in's"),
    ("trainer.total_epochs=3", "steps are counted"),
    ("trainer.use_v1=false", "expected true, got false"),
    ("trainer.esi_redundant_time=60", "nothing in verl 0.9.1's V1 trainer reads it"),
    ("trainer.default_hdfs_dir=hdfs://x", "expected null, got hdfs://x"),
    ("trainer.v1.sampler.sync_refill_failed_groups=true", "expected false, got true; a step has the rollouts"),
    ("trainer.v1.separate_async.parameter_sync_step=2", "expected 4, got 2; it is for verl's separate_async"),
    ("custom_reward_function.path=r.py", "expected null, got r.py; nothing reads verl's old names"),
    ("reward_model.enable=true", "expected null, got true; nothing reads verl's old names"),
    ("reward.reward_model.enable=true", "expected false, got true; rules in rounds need"),
    ("reward.reward_manager.name=dapo", "expected naive, got dapo"),
    ("distillation.enabled=true", "expected false, got true"),
    ("skip.rollout_tq.enable=true", "expected false, got true; stored rollouts"),
    ("data.gen_batch_size=8", "expected null, got 8"),
    ("data.custom_cls.path=d.py", "expected null, got d.py"),
    ("data.dataloader_num_workers=4", "expected 0, got 4"),
    (f"{ACTOR}.shuffle=true", "expected false, got true; the order of rows"),
    (f"{ACTOR}.ppo_epochs=2", "expected 1, got 2; every rollout is learnt from once"),
    (f"{ACTOR}.ppo_micro_batch_size_per_gpu=4", "expected null, got 4; micro-batches are made by tokens"),
    (f"{ACTOR}.calculate_sum_pi_squared=true", "expected false, got true"),
    (f"{ACTOR}.loss_scale_factor=3", "expected null, got 3"),
    (f"{ACTOR}.use_prefix_grouper=true", "expected false"),
    (f"{ACTOR}.use_torch_compile=true", "expected false, as actor_rollout_ref.actor.fsdp_config.use_torch_compile"),
    (f"{ACTOR}.optim.clip_grad=0.5", "expected 1.0, as actor_rollout_ref.actor.grad_clip"),
    (f"{ACTOR}.optim.total_training_steps=9", "expected -1, got 9; set trainer.total_training_steps"),
    (f"{ACTOR}.rollout_n=4", "expected 8, got 4; set actor_rollout_ref.rollout.n"),
    (f"{ACTOR}.fsdp_config.entropy_checkpointing=true", "expected false, got true; set the same of"),
    (f"{ACTOR}.fsdp_config.reshard_after_forward=false", "expected true, got false"),
    (f"{ACTOR}.fsdp_config.model_dtype=bf16", "expected fp32, got bf16"),
    (f"{ACTOR}.fsdp_config.fsdp_size=2", "expected -1, got 2"),
    (f"{ACTOR}.qat.enable=true", "expected false, got true"),
    (f"{ROLLOUT}.prompt_length=9", "expected 32, got 9; set data.max_prompt_length"),
    (f"{ROLLOUT}.agent.agent_loop_manager_class=null", "expected scale.plugin.agent_loop.SeededAgentLoop"),
    (f"{ROLLOUT}.agent.default_agent_loop=tool_agent", "expected single_turn_agent, or a loop of your own"),
    (f"{ROLLOUT}.calculate_log_probs=false", "expected true, got false"),
    (f"{MODEL}.mtp.enable=true", "expected false, got true"),
    (f"{ROLLOUT}.trace.backend=weave", "expected null, got weave"),
    (f"{ROLLOUT}.quantization=fp8", "expected null, got fp8"),
    (f"{ROLLOUT}.free_cache_engine=true", "vLLM's CPU build cannot sleep"),
    (f"{MODEL}.use_liger=true", "expected false, got true"),
    (f"{MODEL}.tiled_mlp.enabled=true", "expected false, got true"),
    (f"{MODEL}.hf_config_path=there", "expected null, got there"),
    ("actor_rollout_ref.nccl_timeout=60", "expected 600, got 60; nothing in verl 0.9.1's V1 trainer reads it"),
    ("global_profiler.tool=torch", "expected null, got torch; verl's profilers"),
]


def check(launch, config, out):
    """Check the settings, then all that can be checked without files: the first is faster, and finds nearly all."""
    refused.check(config)
    launch.check(config, out, files=False)


@pytest.mark.parametrize(("override", "message"), REFUSED, ids=[x for x, _ in REFUSED])
def test_what_is_refused(launch, tmp_path, override, message):
    config = compose(launch, tmp_path, override)
    key = override.split("=")[0]
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        check(launch, config, tmp_path / "run")
    assert key.split(".")[-1] in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm.use_kl_in_reward=true", "dynamo.method=w-reinforce"], "false, since w-reinforce has advantages"),
        (["algorithm.norm_adv_by_std_in_grpo=false", "dynamo.method=w-reinforce"], "true, since w-reinforce has"),
        ([f"{ACTOR}.optim.lr_warmup_steps=5", f"{ACTOR}.optim.lr_warmup_steps_ratio=0.1"], "lr_warmup_steps=-1 with"),
        ([f"{ROLLOUT}.enable_chunked_prefill=false", f"{ROLLOUT}.max_num_batched_tokens=8",
          f"{ROLLOUT}.max_num_seqs=8"], "true, or max_num_batched_tokens of at least"),
        (["dynamo.lag=1", "transfer_queue.backend.SimpleStorage.total_storage_size=500"], "room for the 512 rollouts"),
        (["dynamo.stock=true", "dynamo.method=entropy-loss"], "dynamo.method: expected grpo with dynamo.stock=true"),
        (["dynamo.stock=true", "dynamo.allocator=neyman"], "dynamo.allocator: expected null with dynamo.stock=true"),
        ([f"{ACTOR}.optim.override_optimizer_config.{x}=true" for x in ("foreach", "fused")], "torch takes one of"),
        ([f"{ACTOR}.pad_to_length=true", f"{MODEL}.use_remove_padding=false"], "use_remove_padding=true"),
        ([f"{ACTOR}.use_kl_loss=true", "actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=9999"], "at most"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(launch, tmp_path, overrides, message):
    config = compose(launch, tmp_path, *overrides)
    with pytest.raises(ValueError, match=re.escape(message)):
        check(launch, config, tmp_path / "run")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"{MODEL}.use_remove_padding=false", "expected true: the estimate counts packed sequences"),
        (f"{ROLLOUT}.dtype=float32", "expected bfloat16 on GPUs"),
        (f"{ROLLOUT}.free_cache_engine=false", "expected true with enable_sleep_mode on GPUs"),
        (f"{ACTOR}.fsdp_config.mixed_precision.param_dtype=fp32", "expected bf16 on GPUs"),
        (f"{ACTOR}.ulysses_sequence_parallel_size=8", "expected a divisor of the model's 28 heads, got 8"),
    ],
)
def test_what_is_refused_on_gpus(launch, tmp_path, override, message):
    config = launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=[override])
    with pytest.raises(ValueError, match=re.escape(message)):
        launch.check(config, tmp_path, files=False)


WORKS = [
    f"{ACTOR}.calculate_entropy=false",
    f"{ACTOR}.entropy_from_logits_with_chunking=true",
    f"{ACTOR}.fsdp_config.forward_prefetch=true",
    f"{ACTOR}.fsdp_config.use_no_sync_for_gradient_accumulation=true",
    f"{ACTOR}.grad_clip=0.5",
    f"{ACTOR}.optim.lr_scheduler_type=cosine",
    f"{ACTOR}.optim.override_optimizer_config.eps=1e-6",
    f"{ACTOR}.pad_to_length=true",
    f"{ACTOR}.use_kl_loss=true",
    f"{ROLLOUT}.enable_prefix_caching=false",
    "dynamo.stock=true",
    f"{ROLLOUT}.engine_kwargs.vllm.block_size=32",
    f"{ROLLOUT}.temperature=0.9",
    f"{ROLLOUT}.val_kwargs.temperature=0.6",
    f"{ROLLOUT}.val_kwargs.temperature=0",
    f"{MODEL}.override_config.attn_implementation=eager",
    "algorithm.norm_adv_by_std_in_grpo=false",
    "algorithm.use_kl_in_reward=true",
    "critic.enable=false",
    "data.val_batch_size=8",
    "ray_kwargs.ray_init.log_to_driver=true",
    "trainer.log_val_generations=2",
    "trainer.logger=console",
    "trainer.max_actor_ckpt_to_keep=null",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units=2",
]


@pytest.mark.parametrize("override", WORKS)
def test_what_may_be_set(launch, tmp_path, override):
    launch.check(compose(launch, tmp_path, override), tmp_path / "run", files=False)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("reward_kwargs.gues=true", "reward_kwargs.gues: expected an option of compute_score in scoring.py (close: "),
        ("name=compute_scores", "name: expected one of "),
        ("name=compute_scores", "got 'compute_scores' (close: compute_score)"),
        ("reward_kwargs.tolerance=loose", "reward_kwargs.tolerance: expected exact or minerva or qwen, got loose"),
        ("reward_kwargs.guess=5", "reward_kwargs.guess: expected true or false, got 5"),
    ],
)
def test_options_of_our_reward_are_its_own(launch, tmp_path, override, message):
    """It takes what verl may hand over one day, and so would take a misspelt option, too."""
    overrides = [f"reward.custom_reward_function.{override}"]
    config = launch.compose("qwen2.5-math-7b", out=tmp_path, overrides=overrides)
    with pytest.raises(ValueError, match=re.escape(message)):
        launch.check(config, tmp_path, files=False)


def test_options_of_our_reward_are_all_decided():
    import inspect

    from scale.rewards.scoring import LONGEST_TIMEOUT, TOLERANCES, compute_score

    found = inspect.signature(compute_score).parameters.values()
    assert settings.REWARD_OPTIONS.keys() == {x.name for x in found if x.kind is x.KEYWORD_ONLY}
    assert all(settings.REWARD_OPTIONS["tolerance"].holds(x) for x in TOLERANCES)
    assert settings.REWARD_OPTIONS["timeout"].holds(LONGEST_TIMEOUT)


def test_a_whole_cap_of_importance_weights(launch, tmp_path):
    """Verl's type is a text or a float, and a whole number on the command line is neither."""
    correction = "algorithm.rollout_correction"
    config = compose(launch, tmp_path, f"{correction}.rollout_is=token", f"{correction}.rollout_is_threshold=5")
    launch.check(config, tmp_path / "run", files=False)
    assert config.algorithm.rollout_correction.rollout_is_threshold == 5.0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def compute_score(data_source, solution_str, ground_truth, extra_info, *, scale=1): pass", ""),
        ("def compute_score(*args, **options): pass", ""),
        ("from somewhere import compute_score", ""),
        ("compute_score = print", ""),
        ("async def compute_score(solution_str, scale): pass", ""),
        ("def compute_score(data_source, solution_str, *, scales=1): pass", "reward_kwargs.scale: expected an option"),
        ("def score(): pass", "name: expected one of score, got 'compute_score'"),
        ("def compute_score(", "reward.py: expected a file of Python"),
    ],
)
def test_a_reward_of_ones_own(launch, tmp_path, source, message):
    """Its file is read, and not run."""
    (tmp_path / "reward.py").write_text(f"{source}\n")
    reward = "reward.custom_reward_function"
    overrides = (f"{reward}.path={tmp_path / 'reward.py'}", f"{reward}.reward_kwargs.scale=2")
    config = compose(launch, tmp_path, *overrides)
    expected = pytest.raises(ValueError, match=re.escape(message)) if message else contextlib.nullcontext()
    with expected:
        refused.check(config)


def test_a_setting_that_verl_has_not(launch, tmp_path):
    """It may come from a file of `conf`, which no command line has shown to `require_settings`."""
    from omegaconf import open_dict

    config = compose(launch, tmp_path)
    with open_dict(config):
        config.trainer.rollout_data_folder = "there"
    with pytest.raises(ValueError, match="rollout_data_folder: expected a setting that verl's files have, got there"):
        launch.check(config, tmp_path / "run", files=False)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trainer.save_frequency=3", "trainer.save_frequency: expected a setting of verl's or of ours"),
        ("trainer.lr=3", "(close: actor_rollout_ref.actor.optim.lr)"),
        ("+trainer.save_frequency=3", "(close: trainer.save_freq"),
        ("dynamo.alhpa=3", "dynamo.alhpa: expected a setting of verl's or of ours, got a name that neither"),
        ("estimate.overheads=3", "(close: estimate.overhead"),
        ("trainer.save_freq", "'trainer.save_freq': expected KEY=VALUE"),
        ("~trainer.save_freq=3", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("model=tiny", "expected a setting, got the name of an option: --model tiny"),
        ("dynamo.method=dynamit", "dynamo.method: expected one of grpo, clip-higher"),
        ("dynamo.aggregation=mean", "dynamo.aggregation: expected one of token-mean, sequence-mean, prompt-mean, got"),
        ("dynamo.scope=all", "dynamo.scope: expected one of rollout-batch"),
        ("dynamo.allocator=vipp", "got 'vipp' (close: vip)"),
    ],
)
def test_names_that_are_wrong(word, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        refused.require_settings([word])


def test_names_that_are_right():
    """Among them a method of a module of one's own, which is looked for when that is imported."""
    refused.require_settings([
        "+actor_rollout_ref.rollout.engine_kwargs.vllm.x=1", "dynamo.method=dynamo", "dynamo.allocator=null",
        "tiny_folder=there", "shape.layers=3", "hardware.name=x", "trainer.save_freq=3", "network.trust=true",
    ])  # fmt: skip
    refused.require_settings(["dynamo.method=mine", "dynamo.modules=[my_ideas]"])
