"""An update of a full-size model on fake tensors, which have sizes and no values: where its memory peaks.

`python -m tests.scale.launch.fake_update MODEL FOLDER [SETTING ...]` prints a JSON of the peaks, in bytes. These run as
in a worker: the composed configuration, verl's FSDP2 and optimiser, our engine, verl's entropy, our token statistics,
and our loss with verl's, for one rank of as many as the cluster has. These do not:

- flash-attn's kernels are stood for by functions that keep what they keep;
- the loss is computed on real numbers, since it asks for values; its gradients are then sizes again;
- collectives do nothing, weights are not loaded, and there is no allocator: what it wastes, and CUDA's own memory, are
  the estimate's reserve.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

os.environ["VERL_PLATFORM"] = "cpu"

import torch
import torch.distributed._tools.fake_collectives
import transformers
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary, weakref
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from verl.utils import tensordict_utils as tu, torch_functional
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.dataset.dataset_utils import DatasetPadMode
from verl.workers.config import HFModelConfig
from verl.workers.engine.fsdp import transformer_impl

from scale import launch
from scale.launch.job import Job, Shape, model_and_gpu
from scale.plugin.config import DynamoConfig
from scale.plugin.engine import TOKEN_STATISTICS, StatisticsEngine
from scale.plugin.loss import MethodLoss
from tests.scale.launch.conftest import model_config


class Memory(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, what they were made for, and the most there ever was."""

    def __init__(self):
        super().__init__()
        self.alive = WeakIdKeyDictionary()
        self.start()

    def start(self):
        self.now = self.peak = sum(entry[0] for entry in self.alive.values())
        self.at_peak = Counter()

    def _add(self, size):
        self.now += size
        if self.now > 1.002 * self.peak:
            self.at_peak = Counter()
            for number, dtype, shape in self.alive.values():
                self.at_peak[dtype, shape] += number
        self.peak = max(self.peak, self.now)

    def _gone(self, entry):
        self.now -= entry[0]
        entry[0] = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return 1  # a norm, or whether it is finite
        result = function(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            x = getattr(x, "_local_tensor", x)
            if isinstance(x, FakeTensor) and (storage := x.untyped_storage()) not in self.alive:
                entry = self.alive[storage] = [0, str(x.dtype).removeprefix("torch."), tuple(x.shape)]
                weakref.finalize(storage, self._gone, entry)
                entry[0] = storage.nbytes()
                self._add(entry[0])
        return result

    def __enter__(self):
        # FSDP2 frees and takes what it gathers by the size of its storage, past the dispatcher.
        self.resize = resize = torch.UntypedStorage.resize_

        def counted(storage, size):
            resize(storage, size)
            if (entry := self.alive.get(storage)) is not None:
                change, entry[0] = size - entry[0], size
                self._add(change)

        torch.UntypedStorage.resize_ = counted
        return super().__enter__()

    def __exit__(self, *error):
        torch.UntypedStorage.resize_ = self.resize
        return super().__exit__(*error)


class CrossEntropy(torch.autograd.Function):
    """flash-attn's kernel: it keeps the logits and a number a token, and may write the gradient over the logits."""

    @staticmethod
    def forward(ctx, logits, labels, inplace):
        ctx.save_for_backward(logits, torch.empty(len(logits)))
        ctx.inplace = inplace
        return torch.empty(len(logits))

    @staticmethod
    def backward(ctx, grad):
        logits, _ = ctx.saved_tensors
        return logits if ctx.inplace else torch.empty_like(logits), None, None


def attention(module, query, key, value, mask, **kwargs):
    """Flash attention of the whole micro-batch: it keeps queries, keys, values, the result and a number a token."""
    found = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return found.transpose(1, 2).contiguous(), None


def real(make):
    with unset_fake_temporarily():
        return make()


jagged = torch.nested.nested_tensor_from_jagged


class Engine(StatisticsEngine):
    def prepare_model_inputs(self, micro_batch):
        return real(lambda: super(Engine, self).prepare_model_inputs(micro_batch))


class Update:
    """A worker's engine, and a micro-batch as large as they get."""

    def __init__(self, config, folder):
        shape, _ = model_and_gpu(config)
        self.config, self.job = config, Job.from_config(config)
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=self.job.gpus)
        torch_functional.FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE = True
        torch_functional.logprobs_from_logits_flash_attn = lambda x, y, inplace_backward=True: CrossEntropy.apply(
            x, y, inplace_backward
        )
        ALL_ATTENTION_FUNCTIONS.register("varlen", attention)
        transformer_impl.fsdp2_load_full_state_dict = lambda *args, **kwargs: None
        transformers.AutoModelForCausalLM.from_pretrained = make_model
        # What the engine makes of its outputs; the loss gets them with values.
        torch.nested.nested_tensor_from_jagged = lambda values, offsets: SimpleNamespace(values=lambda: values)
        write_config(shape, folder)
        model = HFModelConfig(
            path=str(folder),
            load_tokenizer=False,
            enable_gradient_checkpointing=config.actor_rollout_ref.model.enable_gradient_checkpointing,
            override_config={"attn_implementation": "varlen"},
        )
        actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
        self.engine = Engine(model, actor.engine, actor.optim, None)
        self.loss = MethodLoss(DynamoConfig.from_mapping(config.dynamo).resolved(), actor, scope="micro-batch")
        first = (self.job.max_prompt, self.job.max_response)
        rest = self.job.micro_batch - sum(first)
        self.lengths = [first, (rest - rest // 2, rest // 2)] if rest else [first]
        self.memory = Memory()

    def data(self, entropy, statistics=True):
        nested = lambda make, part: torch.nested.as_nested_tensor(  # noqa: E731
            [make(part(*x)) for x in self.lengths], layout=torch.jagged
        )
        ints = lambda n: torch.zeros(n, dtype=torch.int64)  # noqa: E731
        whole, response = (lambda p, r: p + r), (lambda p, r: r)
        tensors = {
            "input_ids": nested(ints, whole),
            "position_ids": nested(torch.arange, whole),
            "prompts": nested(ints, lambda p, r: p),
            "responses": nested(ints, response),
            "response_mask": nested(lambda n: torch.ones(n, dtype=torch.int64), response),
            "old_log_probs": nested(lambda n: -torch.ones(n), response),
            "advantages": nested(torch.ones, response),
        }
        settings = {
            "temperature": float(self.config.actor_rollout_ref.rollout.temperature),
            "use_remove_padding": True,
            "pad_mode": DatasetPadMode.NO_PADDING,
            "calculate_entropy": entropy,
            TOKEN_STATISTICS: statistics,
            "dp_size": self.job.gpus,
            "batch_num_tokens": sum(r for _, r in self.lengths) * self.job.gpus,
            "global_batch_size": len(self.lengths) * self.job.gpus,
        }
        return tu.get_tensordict(tensors, settings)

    def loss_on_numbers(self, model_output, data, dp_group=None):
        """Return a sum that has the gradients which the loss has on made-up values."""

        def gradients():
            leaves = {name: torch.full((self.job.micro_batch,), -1.0, requires_grad=True) for name in model_output}
            outputs = {name: jagged(x, data["input_ids"].offsets()) for name, x in leaves.items()}
            value, metrics = self.loss(outputs, data, dp_group)
            value.backward()
            return {name: x.grad for name, x in leaves.items() if x.grad is not None}, metrics

        found, metrics = real(gradients)
        assert found["log_probs"].abs().sum() > 0
        return sum((model_output[name].values() * x).sum() for name, x in found.items()), metrics

    def learn(self, entropy=False, micro_batches=2):
        """Learn from some micro-batches; return the peak, and what it was made of."""
        data = real(lambda: self.data(entropy))
        self.engine.optimizer_zero_grad()
        self.memory.start()
        for number in range(micro_batches):
            with self.engine._gradient_sync_context(is_last_micro_batch=number == micro_batches - 1):
                loss, _ = self.engine.forward_step(data, self.loss_on_numbers, False)
                loss.backward()
            del loss
        return self.found()

    def look(self):
        """Compute log-probabilities and verl's entropy, as without token statistics; return as `learn` does."""
        data = real(lambda: self.data(entropy=True, statistics=False))
        self.engine.optimizer_zero_grad()
        self.memory.start()
        with torch.no_grad():
            self.engine.forward_step(data, None, True)
        return self.found()

    def found(self):
        largest = [(size, dtype, shape) for (dtype, shape), size in self.memory.at_peak.most_common(12)]
        return {"peak": self.memory.peak, "largest": largest}

    def measure(self, settings):
        engine, found = self.engine, {}
        with FakeTensorMode(allow_non_fake_inputs=True), self.memory:
            engine._build_model_optimizer()
            engine.module.train()
            size = lambda xs: sum(getattr(x, "_local_tensor", x).nbytes for x in xs)  # noqa: E731
            found["weights"] = size(engine.module.parameters())
            self.learn(micro_batches=1)
            found["gradients"] = size(p.grad for p in engine.module.parameters())
            engine.optimizer_step()
            found["AdamW"] = size(x for s in engine.optimizer.state.values() for x in s.values() if x.ndim)
            found["update"], found["old policy"] = self.learn(), self.look()
            if "entropy_bonus" in settings:
                found["entropy_bonus"] = self.learn(entropy=True)
            if "gradients_whole" in settings:
                object.__setattr__(engine.engine_config, "use_no_sync_for_gradient_accumulation", True)
                found["gradients_whole"] = self.learn()
        return found


def make_model(pretrained_model_name_or_path, torch_dtype, config, trust_remote_code):
    """Make a model without weights in place of loading one; it already has the type that verl then asks for."""
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch_dtype)
    model.to = lambda *args, **kwargs: model
    return model


def write_config(shape: Shape, folder: Path) -> None:
    """Write the `config.json` of a shape."""
    kind = "Qwen3" if shape.qk_norm else "Qwen2"
    changes = {"max_position_embeddings": 32768, "architectures": [f"{kind}ForCausalLM"]}
    model_config(shape, **changes).save_pretrained(folder)


if __name__ == "__main__":
    name, out, *asked = sys.argv[1:]
    composed = launch.compose(name, out=Path(out), overrides=["dynamo.method=dynamo"])
    print(json.dumps(Update(composed, Path(out)).measure(asked)))
