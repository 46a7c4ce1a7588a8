"""Which tokens go through the model together, and which of them attend to which. Policy only: no torch.

A pack is one forward pass over a prefix tree. Its attention is cut into blocks: small subtrees, and stretches of the
long runs above them. The tokens of a block attend to the same run of ancestors, densely, and among themselves under the
ancestor mask, so that attention over a pack costs about what its tree costs, never the square of the pack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spacy_relx.errors import PackBudgetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spacy_relx.engine.prefix_tree import IntArray, PrefixTree
    from spacy_relx.engine.types import Prompt

#: Subtrees of at most this many tokens attend as one block. Larger blocks mean fewer, larger products and more masked
#: entries; 64 and 128 are equally fast on the processors tried.
BLOCK_TOKENS = 96

#: Packs that documents are collected for on a GPU: while it is at work on one, the next is planned.
PACKS_A_POOL = 4

#: Blocks are computed together when the keys of the smallest are at least this share of the keys of the largest.
_BUCKET_FILL = 0.7


@dataclass(frozen=True, slots=True)
class Block:
    """Queries that attend to one run of ancestors and among themselves.

    Attributes:
        queries: Rows of the forward pass that this block answers. Shape: (n_queries,)
        path: Nodes that every query of the block sees. Shape: (n_path,)
        own: Nodes of which a query sees its own ancestors only. Shape: (n_own,)
        mask: Which query sees which of `own`. Shape: (n_queries, n_own), True = may attend.
    """

    queries: IntArray
    path: IntArray
    own: IntArray
    mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

    @property
    def n_keys(self) -> int:
        """Number of keys any query of the block may see."""
        return len(self.path) + len(self.own)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Blocks of similar size, padded to one shape.

    Attributes:
        queries: Query rows, padded with 0. Shape: (n_blocks, max_queries)
        keys: Key nodes, padded with 0. Shape: (n_blocks, max_keys)
        mask: Shape: (n_blocks, max_queries, max_keys), True = may attend; a padded query sees everything, so that its
            softmax is defined.
    """

    queries: IntArray
    keys: IntArray
    mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """How the queries of one forward pass attend.

    Attributes:
        buckets: All blocks, grouped.
        slot: Where the answer of each query row lies in the flattened output of all buckets. Shape: (n_queries,)
    """

    buckets: tuple[Bucket, ...]
    slot: IntArray


def padded(n_nodes: int) -> int:
    """Rows that a forward pass in half precision has on a processor, where some of them may be padding.

    Its products are compiled for each shape, which takes a millisecond or two and most of a megabyte, and a pass has
    dozens of shapes: with hardly two documents of one length that is a good part of the time. So passes of about one
    size get one shape. Sixteen rows are the height of what the processor multiplies at a time.
    """
    step = 16 if n_nodes <= 512 else 32 if n_nodes <= 1024 else 64
    return -(-n_nodes // step) * step


def split_by_budget(prompts: Sequence[Prompt], max_tokens: int) -> Iterator[range]:
    """Cut a list of prompts into consecutive ranges whose trees hold at most `max_tokens` nodes each.

    A prompt is counted by the tokens it does not share with the one before it, which is exact for prompts in the
    order of their text and never too little for any other order. The run shared by all prompts is not counted: it is
    computed once and kept.

    Raises:
        PackBudgetError: If a single prompt exceeds the budget.
    """
    start = size = common = 0
    previous: tuple[int, ...] = ()
    for i, prompt in enumerate(prompts):
        own = prompt.ids[prompt.n_shared :]
        if len(own) > max_tokens:
            raise PackBudgetError(
                f"A prompt has {len(own)} tokens after the shared part, but a pack may hold {max_tokens}. Shorten its "
                "text (the `window` of the candidates) or raise max_pack_tokens of the model block."
            )
        common = _common_prefix(own, previous, common)
        new = len(own) - common
        if size + new > max_tokens:
            yield range(start, i)
            start, size, new = i, 0, len(own)
        size += new
        previous = own
    if start < len(prompts):
        yield range(start, len(prompts))


def count_tokens(prompts: Sequence[Prompt]) -> int:
    """Tokens that a pack of these prompts holds, counted as `split_by_budget` counts them."""
    total = common = 0
    previous: tuple[int, ...] = ()
    for prompt in prompts:
        own = prompt.ids[prompt.n_shared :]
        common = _common_prefix(own, previous, common)
        total += len(own) - common
        previous = own
    return total


def plan_tree(tree: PrefixTree, max_block: int = BLOCK_TOKENS) -> AttentionPlan:
    """Plan the attention of a whole tree, node `i` being row `i` of the forward pass."""
    return plan_blocks(list(_tree_blocks(tree, max_block)), len(tree))


def plan_blocks(blocks: list[Block], n_queries: int) -> AttentionPlan:
    """Group blocks of similar size into padded buckets."""
    blocks = sorted(blocks, key=lambda block: (block.n_keys, len(block.queries)))
    buckets: list[Bucket] = []
    slot = np.full(n_queries, -1, dtype=np.int64)
    offset = first = 0
    while first < len(blocks):
        last = first + 1
        while last < len(blocks) and blocks[first].n_keys + 16 >= _BUCKET_FILL * blocks[last].n_keys:
            last += 1
        bucket = _pad(blocks[first:last])
        width = bucket.queries.shape[1]
        for i, block in enumerate(blocks[first:last]):
            slot[block.queries] = offset + i * width + np.arange(len(block.queries))
        offset += bucket.queries.size
        buckets.append(bucket)
        first = last
    return AttentionPlan(tuple(buckets), slot)


def _rounded(size: int) -> int:
    """The size of a bucket's blocks, which is one of few, as in `padded`; short answers are not made much longer."""
    return -(-size // 16) * 16 if size > 16 else 1 << (size - 1).bit_length()


def _pad(blocks: list[Block]) -> Bucket:
    width, n_keys = map(_rounded, (max(len(b.queries) for b in blocks), max(b.n_keys for b in blocks)))
    queries = np.zeros((len(blocks), width), dtype=np.int64)
    keys = np.zeros((len(blocks), n_keys), dtype=np.int64)
    mask = np.zeros((len(blocks), width, n_keys), dtype=np.bool_)
    for i, block in enumerate(blocks):
        n, n_path = len(block.queries), len(block.path)
        queries[i, :n] = block.queries
        keys[i, :n_path] = block.path
        keys[i, n_path : block.n_keys] = block.own
        mask[i, :n, :n_path] = True
        mask[i, :n, n_path : block.n_keys] = block.mask
        mask[i, n:] = True
    return Bucket(queries, keys, mask)


def _tree_blocks(tree: PrefixTree, max_block: int) -> Iterator[Block]:
    n_nodes = len(tree)
    n_children = np.bincount(tree.parent[tree.parent >= 0], minlength=n_nodes)
    # A run ends where the tree branches or a prompt's path ends with no child.
    run_ends = np.flatnonzero(n_children != 1) + 1
    end = tree.end.tolist()
    pending: list[tuple[int, int, IntArray]] = [(0, n_nodes, np.empty(0, dtype=np.int64))]
    while pending:
        first, stop, path = pending.pop()
        # [first, stop) is a row of sibling subtrees below `path`.
        while first < stop:
            group = first
            while group < stop and end[group] - first <= max_block:
                group = end[group]
            if group > first:
                yield _subtree_block(tree, first, group, path)
                first = group
                continue
            # A subtree too large for one block: its run goes first, in stretches, then its children.
            run, subtree = int(run_ends[np.searchsorted(run_ends, first, side="right")]), end[first]
            below = path
            for start in range(first, run, max_block):
                stretch = np.arange(start, min(start + max_block, run))
                yield Block(stretch, below, stretch, stretch[None, :] <= stretch[:, None])
                below = np.concatenate((below, stretch))
            if run < subtree:
                pending.append((run, subtree, below))
            first = subtree


def _subtree_block(tree: PrefixTree, first: int, stop: int, path: IntArray) -> Block:
    own = np.arange(first, stop)
    mask = (own[None, :] <= own[:, None]) & (own[:, None] < tree.end[first:stop][None, :])
    return Block(own, path, own, mask)


def _common_prefix(a: tuple[int, ...], b: tuple[int, ...], guess: int) -> int:
    """Length of the prefix that two sequences share; `guess` is right for most pairs of one head."""
    n = min(len(a), len(b))
    if guess < n and a[guess] != b[guess] and a[:guess] == b[:guess]:
        return guess
    low, high = 0, n
    if a[:n] == b[:n]:
        low = n
    while low < high:  # bisection over slices: comparisons run in C
        middle = (low + high + 1) // 2
        if a[:middle] == b[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
