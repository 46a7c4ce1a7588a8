"""The decoder of a stock Llama over a pack: its own layers, in fewer passes over memory than its own forward.

What is multiplied is what transformers multiplies, layer by layer: plain matrices, 4-bit ones, LoRA beside them. What
lies between is done with less: norms are one operation, sums are made in place, and the rotary factors of the queries
carry the scale of the scores. Between the matrix products, a processor spends most of its time reading and writing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.llama import modeling_llama as llama

if TYPE_CHECKING:
    from spacy_relx.engine.attention import PackAttention

#: What `forward` does the work of. A subclass may compute something else.
_STOCK = (
    llama.LlamaModel,
    llama.LlamaDecoderLayer,
    llama.LlamaAttention,
    llama.LlamaMLP,
    llama.LlamaRMSNorm,
)


def is_stock(model: Any) -> bool:
    """Whether `forward` computes what a model's own decoder does.

    It does not where another architecture, another activation, or a hook (of a model on several devices, of a user who
    looks inside) is at work. To be asked before every pass: it takes microseconds, and models change.
    """
    decoder: Any = model.get_decoder()
    if type(decoder) is not llama.LlamaModel or decoder.config.hidden_act != "silu":
        return False
    parts = [decoder, decoder.norm]
    for layer in decoder.layers:
        parts += [layer, layer.self_attn, layer.mlp, layer.input_layernorm, layer.post_attention_layernorm]
    return all(type(part) in _STOCK and not _is_hooked(part) for part in parts)


def _is_hooked(module: Any) -> bool:
    return "forward" in vars(module) or bool(module._forward_hooks or module._forward_pre_hooks)


def forward(model: Any, ids: Tensor, positions: Tensor, attention: PackAttention) -> Tensor:
    """Run nodes through a stock decoder, without gradients.

    Args:
        model: A model that `is_stock`.
        ids: Token ids. Shape: (n_nodes,)
        positions: Positions in their prompts. Shape: (n_nodes,)
        attention: Who attends to whom.

    Returns:
        Hidden states after the last norm. Shape: (n_nodes, hidden_size)
    """
    decoder = model.get_decoder()
    hidden: Tensor = decoder.embed_tokens(ids)
    cos, sin = (factor.transpose(0, 1) for factor in decoder.rotary_emb(hidden[None], positions[None]))
    half = cos.shape[-1] // 2
    # Rotating is x * cos + (x with its halves exchanged) * sin, the first half of sin with its sign changed.
    sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
    scale = decoder.layers[0].self_attn.scaling
    query_factors, key_factors = (cos * scale, sin * scale), (cos, sin)
    for index, layer in enumerate(decoder.layers):
        part = layer.self_attn
        normed = _norm(layer.input_layernorm, hidden)
        query, key, value = (
            project(normed).view(len(ids), -1, part.head_dim) for project in (part.q_proj, part.k_proj, part.v_proj)
        )
        answer = attention.attend(
            index, _heads(_rotate(query, *query_factors)), _heads(_rotate(key, *key_factors)), _heads(value), 1.0
        )
        hidden += part.o_proj(answer.view(len(ids), -1))
        normed = _norm(layer.post_attention_layernorm, hidden)
        gate = functional.silu(layer.mlp.gate_proj(normed), inplace=True)
        hidden += layer.mlp.down_proj(gate.mul_(layer.mlp.up_proj(normed)))
    return _norm(decoder.norm, hidden)


def _norm(module: Any, hidden: Tensor) -> Tensor:
    return functional.rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys, (n_nodes, n_heads, head_size), by their positions' factors, (n_nodes, 1, head_size)."""
    return torch.addcmul(states * cos, states.roll(cos.shape[-1] // 2, -1), sin)


def _heads(states: Tensor) -> Tensor:
    """From (n_nodes, n_heads, head_size) to what an attention is given: (1, n_heads, n_nodes, head_size)."""
    return states.transpose(0, 1)[None]
