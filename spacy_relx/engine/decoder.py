"""The decoder of a stock Llama over a pack: its own layers, in fewer passes over memory than its own forward.

What is multiplied is what transformers multiplies, layer by layer: plain matrices, 4-bit ones, LoRA beside them. What
lies between is done with less: norms are one operation, sums are made in place, and the rotary factors of the queries
carry the scale of the scores. Between the matrix products, a processor spends most of its time reading and writing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.models.llama import modeling_llama as llama

from spacy_relx.engine import frugal, packing
from spacy_relx.engine.attention import PackAttention
from spacy_relx.engine.frugal import AdaptedMatrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacy_relx.engine.attention import Attention

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


def forward(
    model: Any,
    ids: Tensor,
    positions: Tensor,
    attention: Attention,
    wanted: Tensor | None = None,
    *,
    recompute: bool = False,
) -> Tensor:
    """Run nodes through a stock decoder; where gradients are wanted, nothing is overwritten.

    Args:
        model: A model that `is_stock`.
        ids: Token ids. Shape: (n_nodes,)
        positions: Positions in their prompts. Shape: (n_nodes,)
        attention: Who attends to whom.
        wanted: Nodes whose hidden states are asked for: of the others, the last layer makes keys and values alone.
            Shape: (n_wanted,); None: all nodes
        recompute: Whether of each layer its input alone is kept, and the layer computed again for its gradient.

    Returns:
        Hidden states after the last norm. Shape: (n_wanted, hidden_size), or (n_nodes, hidden_size)
    """
    decoder = model.get_decoder()
    n_nodes = len(ids)
    weight = decoder.embed_tokens.weight
    n_rows = _n_rows(n_nodes, weight)
    n_wanted = n_nodes
    if wanted is not None:
        n_wanted = len(wanted)
        wanted = functional.pad(wanted, (0, _n_rows(n_wanted, weight) - n_wanted))
    if n_rows > n_nodes:
        ids, positions = (functional.pad(each, (0, n_rows - n_nodes)) for each in (ids, positions))
        assert isinstance(attention, PackAttention)  # on a processor
        attention.widen(n_rows)
    hidden: Tensor = decoder.embed_tokens(ids)
    cos, sin = (factor.transpose(0, 1) for factor in decoder.rotary_emb(hidden[None], positions[None]))
    half = cos.shape[-1] // 2
    # Rotating is x * cos + (x with its halves exchanged) * sin, the first half of sin with its sign changed.
    sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
    scale = decoder.layers[0].self_attn.scaling
    query_factors, key_factors = (cos * scale, sin * scale), (cos, sin)
    for index, layer in enumerate(decoder.layers):
        chosen = wanted if index == len(decoder.layers) - 1 else None
        arguments = (layer, index, hidden, n_nodes, query_factors, key_factors, attention, chosen)
        hidden = checkpoint(_layer, *arguments, use_reentrant=False) if recompute else _layer(*arguments)
    return _norm(decoder.norm, hidden)[:n_wanted]


def _n_rows(n_nodes: int, weight: Tensor) -> int:
    """How many rows the layers see, padding among them."""
    compiles = weight.device.type == "cpu" and weight.dtype in (torch.bfloat16, torch.float16)
    return packing.padded(n_nodes) if compiles else n_nodes


def _layer(
    layer: Any,
    index: int,
    hidden: Tensor,
    n_nodes: int,
    query_factors: tuple[Tensor, Tensor],
    key_factors: tuple[Tensor, Tensor],
    attention: Attention,
    wanted: Tensor | None,
) -> Tensor:
    part = layer.self_attn
    normed = _norm(layer.input_layernorm, hidden)
    query, key, value = (
        states.view(len(hidden), -1, part.head_dim)
        for states in _linears((part.q_proj, part.k_proj, part.v_proj), normed)
    )
    query, key = _rotate(query, *query_factors), _rotate(key, *key_factors)
    del normed  # what is alive at a layer's widest place bounds the memory
    query, key, value = (_heads(states[:n_nodes]) for states in (query, key, value))
    answer = attention.attend(index, query, key, value, 1.0)
    del query, key, value
    answer = answer.view(len(hidden), -1)
    if wanted is not None:
        hidden, answer = hidden.index_select(0, wanted), answer.index_select(0, wanted)
        if not len(hidden):  # a 4-bit product on a processor divides by the number of rows
            return hidden
    hidden = _add(hidden, _linear(part.o_proj, answer))
    del answer
    normed = _norm(layer.post_attention_layernorm, hidden)
    gate, rows = _linears((layer.mlp.gate_proj, layer.mlp.up_proj), normed)
    del normed
    return _add(hidden, _gated_linear(layer.mlp.down_proj, gate, rows))


def _add(hidden: Tensor, part: Tensor) -> Tensor:
    return hidden + part if torch.is_grad_enabled() else hidden.add_(part)


def _linears(layers: Sequence[Any], rows: Tensor) -> Sequence[Tensor]:
    """Multiply by the matrices of several layers; see `_linear`."""
    if torch.is_grad_enabled():
        matrices = [_adapted_matrix(layer, rows.dtype) for layer in layers]
        if None not in matrices:
            return frugal.adapted(rows, *cast("list[AdaptedMatrix]", matrices))
    return [_linear(layer, rows) for layer in layers]


def _linear(layer: Any, rows: Tensor) -> Tensor:
    """Multiply by a layer's matrix, and add in place what a LoRA adapter beside it makes of the same rows.

    PEFT's own layer adds, scales, and for 4-bit layers copies in passes of their own over the result.
    """
    result: Tensor
    if torch.is_grad_enabled():
        matrix = _adapted_matrix(layer, rows.dtype)
        result = layer(rows) if matrix is None else frugal.adapted(rows, matrix)[0]
        return result
    adapter = _plain_adapter(layer, rows.dtype)
    if adapter is None:
        result = layer(rows)
    else:
        down, up, scaling = adapter
        result = layer.base_layer(rows).addmm_(functional.linear(rows, down), up.T, alpha=scaling)
    return result


def _gated_linear(layer: Any, gate: Tensor, rows: Tensor) -> Tensor:
    """The same of silu(gate) * rows."""
    if not torch.is_grad_enabled():
        return _linear(layer, functional.silu(gate, inplace=True).mul_(rows))
    matrix = _adapted_matrix(layer, rows.dtype)
    if matrix is not None:
        return frugal.gated_adapted(gate, rows, matrix)
    return _linear(layer, functional.silu(gate) * rows)


def _adapted_matrix(layer: Any, dtype: torch.dtype) -> AdaptedMatrix | None:
    """The matrix of a layer with its one active LoRA adapter; None if its own forward has to be asked."""
    adapter = _plain_adapter(layer, dtype)
    if adapter is None or not is_plain(layer.base_layer):
        return None
    return AdaptedMatrix(layer.base_layer.weight, *adapter)


def is_plain(layer: Any) -> bool:
    """Whether a layer is a matrix of numbers without a bias, and nothing else."""
    return type(layer) is nn.Linear and layer._parameters["bias"] is None


def _plain_adapter(layer: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor, float] | None:
    """The two matrices of a layer's one active LoRA adapter, and its scaling; None if its own forward has to be asked.

    Shapes: (rank, in_features), (out_features, rank)
    """
    # PEFT is a large import, and a layer without these attributes is none of its own.
    active: Any = getattr(layer, "active_adapters", ())
    if len(active) != 1 or layer.disable_adapters or layer.merged or active[0] not in getattr(layer, "lora_A", ()):
        return None
    name = active[0]
    down, up = layer.lora_A[name], layer.lora_B[name]
    if name in getattr(layer, "lora_variant", ()) or any(map(_is_hooked, (layer, down, up))):
        return None
    drops = layer.training and not isinstance(layer.lora_dropout[name], nn.Identity)
    if drops or down.bias is not None or up.bias is not None:
        return None
    if not down.weight.dtype == up.weight.dtype == dtype:
        return None
    return down.weight, up.weight, float(layer.scaling[name])


def _norm(module: Any, hidden: Tensor) -> Tensor:
    if hidden.device.type == "cpu" and not module.weight.requires_grad:
        return frugal.rms_norm(hidden, module.weight, module.variance_epsilon)
    return functional.rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys, (n_nodes, n_heads, head_size), by their positions' factors, (n_nodes, 1, head_size)."""
    if states.is_cuda and not torch.is_grad_enabled():
        return _rotate_halves(states, cos, sin)
    return frugal.rotate(states, cos, sin)


def _rotate_halves(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The same, half by half: less is read and written, by more calls, which a GPU is given faster than it works."""
    half = cos.shape[-1] // 2
    rotated = torch.empty_like(states)
    for here, there in ((slice(None, half), slice(half, None)), (slice(half, None), slice(None, half))):
        part = rotated[..., here]
        torch.mul(states[..., here], cos[..., here], out=part)
        part.addcmul_(states[..., there], sin[..., here])
    return rotated


def _heads(states: Tensor) -> Tensor:
    """From (n_nodes, n_heads, head_size) to what an attention is given: (1, n_heads, n_nodes, head_size)."""
    return states.transpose(0, 1)[None]
