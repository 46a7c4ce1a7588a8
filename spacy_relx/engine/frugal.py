"""Steps of a decoder layer that keep little for the way back: what is cheap to compute again is computed again.

Between a forward and a backward pass all that the operations of all layers have kept is alive at once; on a processor
that, not the weights, is most of the memory that training takes. Matrices and norms are frozen, a LoRA adapter beside
some of them: no gradient of a frozen one is computed. Without gradients, all this is plain arithmetic.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional


def adapted(rows: Tensor, weight: Tensor, down: Tensor, up: Tensor, scaling: float) -> Tensor:
    """A frozen matrix W with an adapter beside it: rows W' + s (rows A') B'.

    Args:
        rows: Shape: (n_rows, n_inputs)
        weight: W. Shape: (n_outputs, n_inputs)
        down: A. Shape: (rank, n_inputs)
        up: B. Shape: (n_outputs, rank)
        scaling: s.

    Returns:
        Shape: (n_rows, n_outputs)
    """
    return cast("Tensor", _Adapted.apply(rows, weight, down, up, scaling))  # type: ignore[no-untyped-call]


def gated_adapted(gate: Tensor, rows: Tensor, weight: Tensor, down: Tensor, up: Tensor, scaling: float) -> Tensor:
    """The same of silu(gate) * rows, of which nothing but the two factors is kept. Shape of gate: that of rows."""
    return cast("Tensor", _GatedAdapted.apply(gate, rows, weight, down, up, scaling))  # type: ignore[no-untyped-call]


def rms_norm(hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """`torch.nn.functional.rms_norm` over the last dimension, by a frozen weight.

    Torch's own keeps a float32 copy of its input on a processor; this keeps the input.
    """
    return cast("Tensor", _RMSNorm.apply(hidden, weight, epsilon))  # type: ignore[no-untyped-call]


def attended(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    query_index: Tensor,
    key_index: Tensor,
    bias: Tensor,
    keeps: bool = False,
) -> Tensor:
    """Attention of blocks of queries to keys of their own.

    Args:
        query: Shape: (n_heads, n_nodes, head_size)
        keys: Shape: (n_key_value_heads, n_nodes, head_size)
        values: Shape: (n_key_value_heads, n_nodes, head_size)
        query_index: The queries of each block. Shape: (n_blocks, width)
        key_index: The keys of each block. Shape: (n_blocks, n_keys)
        bias: What is added to the scores. Shape: (n_blocks, width, n_keys)
        keeps: Whether the blocks and their weights are kept for the way back.

    Returns:
        Shape: (n_blocks * width, n_heads, head_size)
    """
    given = (query, keys, values, query_index, key_index, bias)
    return cast("Tensor", _Attended.apply(*given, keeps))  # type: ignore[no-untyped-call]


def gathered(
    query: Tensor, keys: Tensor, values: Tensor, query_index: Tensor, key_index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The queries, keys and values of each block of `attended`.

    Returns:
        Shapes: (n_key_value_heads * n_blocks, group * width, head_size), where the heads of a group, which share a
        key-value head, stand below one another as rows, so that no key is copied for them; and twice
        (n_key_value_heads * n_blocks, n_keys, head_size)
    """
    n_kv, head_size = keys.shape[0], keys.shape[2]
    rows = query.index_select(1, query_index.reshape(-1)).view(n_kv, -1, *query_index.shape, head_size)
    n_rows = rows.shape[1] * query_index.shape[1]
    return (
        rows.transpose(1, 2).reshape(-1, n_rows, head_size),
        keys.index_select(1, key_index.reshape(-1)).view(-1, key_index.shape[1], head_size),
        values.index_select(1, key_index.reshape(-1)).view(-1, key_index.shape[1], head_size),
    )


def scores(rows: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """The scores of gathered queries and keys. Shape: (n_key_value_heads * n_blocks, group * width, n_keys)."""
    n_blocks, width, n_keys = bias.shape
    products = torch.bmm(rows, keys.transpose(1, 2))
    sums = products.view(-1, n_blocks, rows.shape[1] // width, width, n_keys) + bias[None, :, None]
    return sums.view_as(products)


def scattered(answer: Tensor, n_kv: int, n_blocks: int, width: int) -> Tensor:
    """From the shape of gathered queries to (n_blocks * width, n_heads, head_size)."""
    head_size = answer.shape[-1]
    answer = answer.view(n_kv, n_blocks, -1, width, head_size).permute(1, 3, 0, 2, 4)
    return answer.reshape(n_blocks * width, -1, head_size)


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, down: Tensor, up: Tensor, scaling: float) -> Tensor:
        result, low = _product(rows, weight, down, up, scaling)
        ctx.save_for_backward(rows, weight, down, up, low)
        ctx.scaling = scaling
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, *matrices = ctx.saved_tensors
        of_rows, of_down, of_up = _product_backward(gradient, rows, matrices, ctx.scaling, ctx.needs_input_grad[0])
        return of_rows, None, of_down, of_up, None


class _GatedAdapted(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, rows: Tensor, weight: Tensor, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        result, low = _product(functional.silu(gate).mul_(rows), weight, down, up, scaling)
        ctx.save_for_backward(gate, rows, weight, down, up, low)
        ctx.scaling = scaling
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gate, rows, *matrices = ctx.saved_tensors
        activated = functional.silu(gate)
        of_gated, of_down, of_up = _product_backward(gradient, activated * rows, matrices, ctx.scaling)
        assert of_gated is not None
        of_gate = torch.ops.aten.silu_backward(of_gated * rows, gate)
        return of_gate, of_gated.mul_(activated), None, of_down, of_up, None


def _product(rows: Tensor, weight: Tensor, down: Tensor, up: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    low = functional.linear(rows, down)
    return functional.linear(rows, weight).addmm_(low, up.T, alpha=scaling), low


def _product_backward(
    gradient: Tensor, rows: Tensor, matrices: list[Tensor], scaling: float, with_rows: bool = True
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The gradients of rows, A and B; `matrices` are W, A, B and rows A'."""
    weight, down, up, low = matrices
    of_low = (gradient @ up).mul_(scaling)
    of_rows = (gradient @ weight).addmm_(of_low, down) if with_rows else None
    return of_rows, of_low.T @ rows, (gradient.T @ low).mul_(scaling)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.epsilon = epsilon
        return functional.rms_norm(hidden, hidden.shape[-1:], weight, epsilon)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        hidden, weight = ctx.saved_tensors
        exact = torch.promote_types(hidden.dtype, torch.float32)
        normed = hidden.to(exact)
        scale = normed.square().mean(-1, keepdim=True).add_(ctx.epsilon).rsqrt_()
        normed = normed * scale
        of_normed = gradient.to(exact) * weight
        along = (of_normed * normed).mean(-1, keepdim=True)
        return of_normed.addcmul_(normed, along, value=-1).mul_(scale).to(hidden.dtype), None, None


class _Attended(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        *tensors, keeps = given
        blocks = _blocks(*tensors)
        ctx.save_for_backward(*tensors, *(blocks if keeps else ()))
        weights, _, _, values = blocks
        return scattered(torch.bmm(weights, values), len(tensors[1]), *tensors[3].shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # asked for once: a checkpoint computes it anew
        tensors, blocks = saved[:6], saved[6:]
        query, keys, values, query_index, key_index, _ = tensors
        weights, rows, block_keys, block_values = blocks or _blocks(*tensors)
        n_kv, (n_blocks, width) = len(keys), query_index.shape
        of_answer = gradient.view(n_blocks, width, n_kv, -1, gradient.shape[-1]).permute(2, 0, 3, 1, 4)
        of_answer = of_answer.reshape(rows.shape)
        of_values = torch.bmm(weights.transpose(1, 2), of_answer)
        of_weights = torch.bmm(of_answer, block_values.transpose(1, 2))
        of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_rows = torch.bmm(of_scores, block_keys).view(n_kv, n_blocks, -1, width, rows.shape[-1]).transpose(1, 2)
        of_keys = torch.bmm(of_scores.transpose(1, 2), rows)
        return (
            _summed(query, query_index, of_rows.reshape(len(query), -1, rows.shape[-1])),
            _summed(keys, key_index, of_keys),
            _summed(values, key_index, of_values),
            *[None] * 4,
        )


def _blocks(
    query: Tensor, keys: Tensor, values: Tensor, query_index: Tensor, key_index: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The weights of the blocks, and their queries, keys and values."""
    rows, block_keys, block_values = gathered(query, keys, values, query_index, key_index)
    weights = torch.softmax(scores(rows, block_keys, bias), dim=-1)  # in float32 inside, whatever the type
    return weights, rows, block_keys, block_values


def _summed(like: Tensor, index: Tensor, parts: Tensor) -> Tensor:
    """The gradient of what was gathered: the parts at each index, added up."""
    return torch.zeros_like(like).index_add_(1, index.reshape(-1), parts.view(len(like), -1, like.shape[-1]))
