"""Attention of the blocks of a pack, by plain matrix products.

For a gradient, the blocks and their weights, which grow with the length of prompts, are computed again on the way back
unless they are few.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor


class Blocks(NamedTuple):
    """Blocks of queries and the keys that each sees, padded to one shape.

    Attributes:
        queries: The queries of each block. Shape: (n_blocks, width)
        keys: The keys of each block. Shape: (n_blocks, n_keys)
        bias: What is added to the scores: zero where a query may look, else minus infinity.
            Shape: (n_blocks, width, n_keys)
    """

    queries: Tensor
    keys: Tensor
    bias: Tensor


def attended(query: Tensor, keys: Tensor, values: Tensor, blocks: Blocks, *, keeps: bool = False) -> Tensor:
    """Answer the queries of each block.

    Args:
        query: Shape: (n_heads, n_nodes, head_size)
        keys: Shape: (n_key_value_heads, n_nodes, head_size)
        values: Shape: (n_key_value_heads, n_nodes, head_size)
        blocks: Who sees whom.
        keeps: Whether what is gathered, and the weights, are kept for the way back.

    Returns:
        Shape: (n_blocks * width, n_heads, head_size)
    """
    return cast("Tensor", _Attended.apply(query, keys, values, *blocks, keeps))  # type: ignore[no-untyped-call]


def attended_below(
    shared: tuple[Tensor, Tensor], query: Tensor, keys: Tensor, values: Tensor, blocks: Blocks
) -> Tensor:
    """The same of queries that see a shared run before the keys of their blocks.

    Args:
        shared: Keys and values of the run. Shapes: (n_key_value_heads, n_shared, head_size)
        query: As in `attended`.
        keys: As there.
        values: As there.
        blocks: As there.
    """
    rows, block_keys, block_values = _gathered(query, keys, values, blocks)
    n_shared = shared[0].shape[1]
    flat = (keys.shape[0], -1)
    # With one key-value head and blocks of one query, `rows` is a view that is not contiguous.
    above = torch.bmm(rows.reshape(*flat, rows.shape[-1]), shared[0].transpose(1, 2))
    scores = torch.cat((above.view(*rows.shape[:2], n_shared), _scores(rows, block_keys, blocks.bias)), dim=-1)
    weights = torch.softmax(scores, dim=-1)  # in float32 inside, whatever the type
    answer = torch.bmm(weights[..., n_shared:], block_values)
    answer = answer + torch.bmm(weights[..., :n_shared].reshape(*flat, n_shared), shared[1]).view_as(answer)
    return _scattered(answer, keys, blocks)


class _Attended(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, values: Tensor, *rest: Any) -> Tensor:
        blocks, keeps = Blocks(*rest[:3]), rest[3]
        weighted = _weighted(query, keys, values, blocks)
        ctx.save_for_backward(query, keys, values, *blocks, *(weighted if keeps else ()))
        weights, _, _, block_values = weighted
        return _scattered(torch.bmm(weights, block_values), keys, blocks)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, values, *rest = ctx.saved_tensors  # asked for once: a checkpoint computes it anew
        blocks, weighted = Blocks(*rest[:3]), rest[3:]
        weights, rows, block_keys, block_values = weighted or _weighted(query, keys, values, blocks)
        n_kv, head_size, (n_blocks, width) = len(keys), keys.shape[2], blocks.queries.shape
        of_answer = gradient.view(n_blocks, width, n_kv, -1, head_size).permute(2, 0, 3, 1, 4).reshape(rows.shape)
        of_values = torch.bmm(weights.transpose(1, 2), of_answer)
        of_weights = torch.bmm(of_answer, block_values.transpose(1, 2))
        of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_rows = torch.bmm(of_scores, block_keys).view(n_kv, n_blocks, -1, width, head_size).transpose(1, 2)
        of_keys = torch.bmm(of_scores.transpose(1, 2), rows)
        return (
            _summed(query, blocks.queries, of_rows.reshape(len(query), -1, head_size)),
            _summed(keys, blocks.keys, of_keys),
            _summed(values, blocks.keys, of_values),
            *[None] * 4,
        )


def _weighted(query: Tensor, keys: Tensor, values: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The weights of the blocks, (n_key_value_heads * n_blocks, group * width, n_keys), and what `_gathered` gives."""
    rows, block_keys, block_values = _gathered(query, keys, values, blocks)
    weights = torch.softmax(_scores(rows, block_keys, blocks.bias), dim=-1)  # in float32 inside, whatever the type
    return weights, rows, block_keys, block_values


def _gathered(query: Tensor, keys: Tensor, values: Tensor, blocks: Blocks) -> tuple[Tensor, Tensor, Tensor]:
    """The queries, keys and values of each block.

    The heads of a group, which share a key-value head, stand below one another as rows, so that no key is copied for
    them.

    Returns:
        Shapes: (n_key_value_heads * n_blocks, group * width, head_size), and twice
        (n_key_value_heads * n_blocks, n_keys, head_size)
    """
    n_kv, head_size = keys.shape[0], keys.shape[2]
    n_blocks, width = blocks.queries.shape
    n_keys = blocks.keys.shape[1]
    rows = query.index_select(1, blocks.queries.reshape(-1)).view(n_kv, -1, n_blocks, width, head_size)
    return (
        rows.transpose(1, 2).reshape(n_kv * n_blocks, -1, head_size),
        keys.index_select(1, blocks.keys.reshape(-1)).view(n_kv * n_blocks, n_keys, head_size),
        values.index_select(1, blocks.keys.reshape(-1)).view(n_kv * n_blocks, n_keys, head_size),
    )


def _scores(rows: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
    """The scores of gathered queries and keys."""
    n_blocks, width, n_keys = bias.shape
    products = torch.bmm(rows, keys.transpose(1, 2))
    products.view(-1, n_blocks, rows.shape[1] // width, width, n_keys).add_(bias[None, :, None])
    return products


def _scattered(answer: Tensor, keys: Tensor, blocks: Blocks) -> Tensor:
    """From the shape of gathered queries to (n_blocks * width, n_heads, head_size)."""
    n_kv, head_size = keys.shape[0], keys.shape[2]
    n_blocks, width = blocks.queries.shape
    answer = answer.view(n_kv, n_blocks, -1, width, head_size).permute(1, 3, 0, 2, 4)
    return answer.reshape(n_blocks * width, -1, head_size)


def _summed(like: Tensor, index: Tensor, parts: Tensor) -> Tensor:
    """The gradient of what was gathered: the parts at each index, added up."""
    return torch.zeros_like(like).index_add_(1, index.reshape(-1), parts.view(len(like), -1, like.shape[-1]))
