"""What the estimate is made of: a model's shape, a GPU, a job and assumptions, as a composed configuration has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scale.plugin.config import DynamoConfig
from theory.base import require

BF16, FP32 = 2, 4
"""Bytes of a number."""

ASSUMED = (
    "compute_share",
    "bandwidth_share",
    "decoding_ms",
    "row_us",
    "overhead",
    "prompt_length",
    "response_length",
)
"""Assumptions, which the configuration does not determine: pairs in its node `estimate`."""


@dataclass(frozen=True)
class Shape:
    """The architecture of a dense Qwen2 or Qwen3: grouped-query attention, gated feed-forward, RMS norms.

    Attributes
    ----------
    tied : Whether input and output embeddings are one.
    attention_bias : Whether queries, keys and values have a bias (Qwen2).
    qk_norm : Whether queries and keys are normalised (Qwen3).
    positions : Longest sequence that the model's own configuration allows.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    attention_bias: bool
    qk_norm: bool
    positions: int

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "intermediate", "heads", "kv_heads", "head_dim", "vocabulary", "positions"):
            require.count(f"shape.{name}", getattr(self, name), 1)

    @property
    def parameters(self) -> int:
        """Parameters: embeddings + layers x (attention, feed-forward, two norms) + the last norm.

        Examples
        --------
        >>> Shape(1, 4, 8, 2, 1, 2, 10, True, True, False, 16).parameters
        204
        """
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * self.layer_parameters + self.hidden

    @property
    def layer_parameters(self) -> int:
        """Parameters of a layer."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden * (2 * queries + 2 * keys)
        attention += self.attention_bias * (queries + 2 * keys) + self.qk_norm * 2 * self.head_dim
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def multiplied(self) -> int:
        """Parameters that a token is multiplied with: all but an input embedding of its own."""
        return self.parameters - (0 if self.tied else self.vocabulary * self.hidden)

    @property
    def cache_bytes(self) -> int:
        """Bytes of a token in the KV cache, in bfloat16: 2 x 2 x layers x kv_heads x head_dim."""
        return 2 * BF16 * self.layers * self.kv_heads * self.head_dim

    def forward_flops(self, context: float) -> float:
        """Operations of a token's forward pass: 2 x parameters + 4 x layers x heads x head_dim x context.

        `context` is the mean number of tokens that a token attends to.
        """
        return 2.0 * self.multiplied + 4.0 * self.layers * self.heads * self.head_dim * context


@dataclass(frozen=True)
class Hardware:
    """A GPU, by its data sheet.

    Attributes
    ----------
    memory_gib : Memory that CUDA reports, GiB.
    bf16_tflops : Peak of dense bfloat16 operations, 1e12 / s.
    bandwidth_gb_s : Bandwidth of the memory, 1e9 bytes / s.
    """

    name: str
    memory_gib: float
    bf16_tflops: float
    bandwidth_gb_s: float

    def __post_init__(self) -> None:
        for name in ("memory_gib", "bf16_tflops", "bandwidth_gb_s"):
            require.in_range(f"hardware.{name}", getattr(self, name), 0.0, open_low=True)


@dataclass(frozen=True)
class Assumptions:
    """One side of the range: what the configuration does not determine.

    Attributes
    ----------
    compute_share, bandwidth_share : Shares of the peaks, in (0, 1].
    decoding_ms : Milliseconds of a step of decoding beside reading and multiplying, >= 0.
    row_us : Microseconds of a token's log-softmax in a pass, where tokens are taken one by one, >= 0.
    overhead : Time of a step over that of decoding and training, >= 1.
    prompt_length, response_length : Mean tokens, > 0.
    """

    compute_share: float
    bandwidth_share: float
    decoding_ms: float
    row_us: float
    overhead: float
    prompt_length: float
    response_length: float

    def __post_init__(self) -> None:
        for name in ("compute_share", "bandwidth_share"):
            require.in_range(f"estimate.{name}", getattr(self, name), 0.0, 1.0, open_low=True)
        for name in ("decoding_ms", "row_us"):
            require.in_range(f"estimate.{name}", getattr(self, name), 0.0)
        require.in_range("estimate.overhead", self.overhead, 1.0)
        for name in ("prompt_length", "response_length"):
            require.in_range(f"estimate.{name}", getattr(self, name), 0.0, open_low=True)


@dataclass(frozen=True)
class Job:
    """What the estimate reads from a composed configuration.

    Attributes
    ----------
    nodes, gpus, tensor_parallel : Nodes, GPUs of all nodes together, and GPUs of one vLLM.
    prompts, rollouts, mini_batch, steps : Prompts of a step, their mean rollouts, prompts of an optimiser step, and
        steps.
    validation, validate_every : Rollouts of a validation, and the steps from one to the next; 0 where there is none.
    max_prompt, max_response : Longest lengths, tokens.
    micro_batch, micro_batch_forward : Tokens of a micro-batch on a GPU, in the update and where nothing is learnt.
    utilization, max_sequences : vLLM's share of the memory, and sequences at once.
    params_rest, optimizer_rests : Whether weights, and AdamW's state, stay on the GPU while responses are generated.
    params_on_host : Whether FSDP keeps weights, gradients and AdamW's state on the host throughout.
    reference : Whether there is a reference policy.
    checkpointing, chunked : Whether activations are computed again, and whether the entropy is computed in parts.
    entropy_bonus : Whether the loss has the entropy, so that the backward pass goes through it.
    tempered : Whether logits are divided by a temperature, in a copy.
    gradients_whole : Whether gradients are summed unsharded until the last micro-batch.
    flash : Whether flash-attn is there; else attention and log-softmax are those of PyTorch.
    passes : Forward passes that a token costs in training, the backward pass counted as two.
    reserve_gib : Memory set aside, GiB.
    """

    nodes: int
    gpus: int
    tensor_parallel: int
    prompts: int
    rollouts: int
    mini_batch: int
    steps: int
    validation: int
    validate_every: int
    max_prompt: int
    max_response: int
    micro_batch: int
    micro_batch_forward: int
    utilization: float
    max_sequences: int
    params_rest: bool
    optimizer_rests: bool
    params_on_host: bool
    reference: bool
    checkpointing: bool
    chunked: bool
    entropy_bonus: bool
    tempered: bool
    gradients_whole: bool
    flash: bool
    passes: int
    reserve_gib: float

    @classmethod
    def from_config(cls, config: Any) -> Job:
        """Return the job of a composed configuration."""
        from scale.plugin.loss import looks_ahead  # needs verl, as the configuration does

        shared, trainer, data = config.actor_rollout_ref, config.trainer, config.data
        actor, rollout = shared.actor, shared.rollout
        reference = bool(actor.use_kl_loss or config.algorithm.use_kl_in_reward)
        settings = DynamoConfig.from_mapping(config.dynamo)
        checkpointing = bool(shared.model.enable_gradient_checkpointing)
        ahead = not settings.stock and looks_ahead(settings.resolved(), settings.scope)
        attention = str((shared.model.override_config or {}).get("attn_implementation", "flash_attention_2"))
        every = max(int(trainer.test_freq), 0)
        return cls(
            nodes=int(trainer.nnodes),
            gpus=int(trainer.nnodes * trainer.n_gpus_per_node),
            tensor_parallel=int(rollout.tensor_model_parallel_size),
            prompts=int(data.train_batch_size),
            rollouts=int(rollout.n),
            mini_batch=int(actor.ppo_mini_batch_size),
            steps=int(trainer.total_training_steps),
            validation=validation_prompts(config) * int(rollout.val_kwargs.n) if every else 0,
            validate_every=every,
            max_prompt=int(data.max_prompt_length),
            max_response=int(data.max_response_length),
            micro_batch=int(actor.ppo_max_token_len_per_gpu),
            micro_batch_forward=int(rollout.log_prob_max_token_len_per_gpu),
            utilization=float(rollout.gpu_memory_utilization),
            max_sequences=int(rollout.max_num_seqs),
            params_rest=not actor.fsdp_config.param_offload,
            optimizer_rests=not actor.fsdp_config.optimizer_offload,
            params_on_host=bool(actor.fsdp_config.offload_policy),
            reference=reference,
            checkpointing=checkpointing,
            chunked=bool(actor.entropy_from_logits_with_chunking),
            entropy_bonus=bool(actor.calculate_entropy or actor.entropy_coeff),
            tempered=float(rollout.temperature) != 1.0,
            gradients_whole=bool(actor.fsdp_config.use_no_sync_for_gradient_accumulation),
            flash=attention.startswith("flash_attention"),
            passes=4 + checkpointing + reference + ahead,
            reserve_gib=float(config.estimate.reserve_gib),
        )


def validation_prompts(config: Any) -> int:
    """Return the prompts of a validation: the rows of its files, or what is assumed where one is not there yet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = config.data.val_files
    try:
        return sum(int(pq.read_metadata(path).num_rows) for path in ([files] if isinstance(files, str) else files))
    except (OSError, pa.ArrowInvalid):  # what is wrong with a file, `scale.launch.checks` says
        return int(config.estimate.validation_prompts)


def model_and_gpu(config: Any) -> tuple[Shape | None, Hardware | None]:
    """Return the model's shape and the GPU of a configuration; None for what has none."""
    shape = None if config.get("shape") is None else Shape(**config.shape)
    hardware = None if config.get("hardware") is None else Hardware(**config.hardware)
    return shape, hardware


def assumptions(config: Any) -> tuple[Assumptions, Assumptions]:
    """Return both sides of the range, the cheap one first."""
    for name in ASSUMED:
        pair = config.estimate[name]
        if isinstance(pair, (int, float, str)) or len(pair) != 2:
            raise ValueError(f"estimate.{name}: expected two numbers, [cheap, expensive], got {pair}")
    cheap, expensive = (Assumptions(**{name: float(config.estimate[name][i]) for name in ASSUMED}) for i in (0, 1))
    return cheap, expensive
