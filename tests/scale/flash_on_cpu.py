"""flash-attn's two functions that verl calls on a GPU, on the CPU: for runs that take verl's way through them.

A run's workers import this file (`actor_rollout_ref.model.external_lib`). Transformers, and with it verl's Ulysses,
then calls `flash_attn_varlen_func` below with packed sequences; verl's log-probabilities take `cross_entropy_loss`.
All else is that of a GPU: what is packed, how heads and tokens are exchanged between ranks, and what is gathered.
"""

from __future__ import annotations

import torch
import transformers.modeling_flash_attention_utils as flash
from transformers.modeling_utils import PreTrainedModel


def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False):
    """Attend, for [batch, tokens, heads, head_dim] and fewer heads of keys; scores are in float32, as the kernel's."""
    parts = [x.transpose(1, 2).float() for x in (q, k, v)]
    out = torch.nn.functional.scaled_dot_product_attention(
        *parts, is_causal=causal, scale=softmax_scale, enable_gqa=True
    )
    return out.transpose(1, 2).to(q.dtype)


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False
):
    """Compute the same for packed sequences, [tokens, heads, head_dim]."""
    ends = cu_seqlens_q.tolist()
    assert ends == cu_seqlens_k.tolist()
    assert ends[-1] == len(q)
    spans = [slice(*ends[i : i + 2]) for i in range(len(ends) - 1)]
    parts = ((q[None, x], k[None, x], v[None, x]) for x in spans)
    return torch.cat([flash_attn_func(*part, dropout_p, softmax_scale, causal)[0] for part in parts])


class _CrossEntropy(torch.autograd.Function):
    """flash-attn's kernel: float32 inside, the gradient in the logits' own type and, if asked, in their place."""

    @staticmethod
    def forward(ctx, logits, labels, inplace):
        normaliser = torch.logsumexp(logits.float(), -1)
        ctx.save_for_backward(logits, labels, normaliser)
        ctx.inplace = inplace
        return normaliser - logits.gather(-1, labels[:, None]).squeeze(-1).float()

    @staticmethod
    def backward(ctx, grad):
        logits, labels, normaliser = ctx.saved_tensors
        found = (logits.float() - normaliser[:, None]).exp()
        found.scatter_add_(1, labels[:, None], torch.full_like(found[:, :1], -1.0))
        found = (found * grad[:, None]).to(logits.dtype)
        return logits.copy_(found) if ctx.inplace else found, None, None


def cross_entropy_loss(logits, labels, inplace_backward=False, **kwargs):
    return _CrossEntropy.apply(logits, labels, inplace_backward), torch.zeros(len(logits))


def install():
    from verl.utils import torch_functional

    functions = (flash_attn_func, flash_attn_varlen_func, None, flash._pad_input, flash._unpad_input)
    flash._lazy_imports = lambda *args, **kwargs: functions
    PreTrainedModel._flash_attn_can_dispatch = lambda *args, **kwargs: True
    torch_functional.FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE = True
    torch_functional.cross_entropy_loss = cross_entropy_loss


install()
