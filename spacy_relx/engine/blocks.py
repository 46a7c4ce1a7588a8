"""Attention of the blocks of a pack, by plain matrix products.

For a gradient, the blocks and their weights, which grow with the length of prompts, are computed again on the way back
unless they are few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


class Blocks(NamedTuple):
    """Blocks of queries and the keys that each sees, padded to one shape.

    Attributes:
        queries: The queries of each block. Shape: (n_blocks, width)
        keys: The keys of each block. Shape: (n_blocks, n_keys)
        bias: What is added to the scores of the last keys of each block, for every query sees those before them: zero
            where a query may look, else minus infinity. Shape: (n_blocks, width, at most n_keys)
    """

    queries: Tensor
    keys: Tensor
    bias: Tensor


def attended(
    query: Tensor, keys: Tensor, values: Tensor, blocks: Sequence[Blocks], slot: Tensor, *, keeps: bool = False
) -> Tensor:
    """Answer the queries of all blocks.

    Args:
        query: Shape: (n_heads, n_nodes, head_size)
        keys: Shape: (n_key_value_heads, n_nodes, head_size)
        values: Shape: (n_key_value_heads, n_nodes, head_size)
        blocks: Who sees whom, in groups of one shape.
        slot: Where among the queries of all blocks, one after the other, each node is; what follows the nodes is
            padding. Shape: (n_rows,), at least n_nodes
        keeps: Whether what is gathered, and the weights, are kept for the way back.

    Returns:
        Shape: (n_rows, n_heads, head_size)
    """
    flat = [tensor for group in blocks for tensor in group]
    return cast("Tensor", _Attended.apply(query, keys, values, slot, keeps, *flat))  # type: ignore[no-untyped-call]


def answered(query: Tensor, keys: Tensor, values: Tensor, blocks: Blocks) -> Tensor:
    """Answer the queries of one group of blocks, for no gradient.

    Args:
        query: As in `attended`.
        keys: As there.
        values: As there.
        blocks: Who sees whom.

    Returns:
        Shape: (n_blocks * width, n_heads, head_size)
    """
    weights, _, _, block_values = _weighted(query, keys, values, blocks)
    return _scattered(torch.bmm(weights, block_values), keys, blocks)


def answered_below(
    shared: tuple[Tensor, Tensor], query: Tensor, keys: Tensor, values: Tensor, blocks: Blocks
) -> Tensor:
    """The same where all see a shared run before the keys of their blocks, which is gathered for none of them.

    Args:
        shared: Keys and values of the run. Shapes: (n_key_value_heads, n_shared, head_size)
        query: As in `attended`.
        keys: As there.
        values: As there.
        blocks: Who sees whom, but for the run.

    Returns:
        Shape: (n_blocks * width, n_heads, head_size)
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
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, values: Tensor, slot: Tensor, keeps: bool, *flat: Tensor
    ) -> Tensor:
        answers: list[Tensor] = []
        kept: list[Tensor] = []
        for blocks in _groups(flat):
            weighted = _weighted(query, keys, values, blocks)
            if keeps:
                kept += weighted
            weights, _, _, block_values = weighted
            answers.append(_scattered(torch.bmm(weights, block_values), keys, blocks))
        ctx.save_for_backward(query, keys, values, slot, *flat, *kept)
        ctx.n_flat = len(flat)
        return _one_by_one(answers).index_select(0, slot)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, values, slot, *rest = ctx.saved_tensors  # asked for once: a checkpoint computes it anew
        groups, kept = _groups(rest[: ctx.n_flat]), rest[ctx.n_flat :]
        n_slots = sum(blocks.queries.numel() for blocks in groups)
        of_slots = gradient.new_zeros((n_slots, *gradient.shape[1:])).index_add_(0, slot, gradient)
        # Rows of nodes: what belongs to a node is added to it in one piece.
        of_keys, of_values = (keys.new_zeros(keys.shape[1], len(keys), keys.shape[2]) for _ in range(2))
        of_queries = []
        parts = torch.split(of_slots, [blocks.queries.numel() for blocks in groups])
        for i, (blocks, of_group) in enumerate(zip(groups, parts)):
            weights, rows, block_keys, block_values = kept[4 * i : 4 * i + 4] or _weighted(query, keys, values, blocks)
            n_blocks, width = blocks.queries.shape
            of_answer = of_group.view(n_blocks, width, len(keys), -1, keys.shape[2]).permute(2, 0, 3, 1, 4)
            of_answer = of_answer.reshape(rows.shape)
            _add_to(of_values, blocks, torch.bmm(weights.transpose(1, 2), of_answer))
            of_weights = torch.bmm(of_answer, block_values.transpose(1, 2))
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_queries.append(_scattered(torch.bmm(of_scores, block_keys), keys, blocks))
            _add_to(of_keys, blocks, torch.bmm(of_scores.transpose(1, 2), rows))
        # Each node asks in one block, so there is nothing to add up, and padding asks for nothing.
        of_query = _one_by_one(of_queries).index_select(0, slot[: query.shape[1]])
        return of_query.transpose(0, 1), of_keys.transpose(0, 1), of_values.transpose(0, 1), *[None] * (2 + ctx.n_flat)


def _groups(flat: Sequence[Tensor]) -> list[Blocks]:
    return [Blocks(*flat[i : i + 3]) for i in range(0, len(flat), 3)]


def _one_by_one(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _add_to(total: Tensor, blocks: Blocks, parts: Tensor) -> None:
    """Add to rows of nodes, (n_nodes, n_key_value_heads, head_size), what their gathered keys or values got."""
    n_kv, head_size = total.shape[1:]
    total.index_add_(0, blocks.keys.reshape(-1), parts.view(n_kv, -1, head_size).transpose(0, 1).contiguous())


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
    n_blocks, width, n_last = bias.shape
    products = torch.bmm(rows, keys.transpose(1, 2))
    each = products.view(-1, n_blocks, rows.shape[1] // width, width, keys.shape[1])
    each[..., keys.shape[1] - n_last :].add_(bias[None, :, None])
    return products


def _scattered(answer: Tensor, keys: Tensor, blocks: Blocks) -> Tensor:
    """From the shape of gathered queries to (n_blocks * width, n_heads, head_size)."""
    n_kv, head_size = keys.shape[0], keys.shape[2]
    n_blocks, width = blocks.queries.shape
    answer = answer.view(n_kv, n_blocks, -1, width, head_size).permute(1, 3, 0, 2, 4)
    return answer.reshape(n_blocks * width, -1, head_size)
