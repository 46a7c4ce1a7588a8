"""The prefix tree of a set of prompts, flattened in depth-first order. No torch.

Sorting the prompts puts every pair of prompts that share a prefix next to each other, so the tree falls out of the
lengths of the prefixes that neighbours share; the lexicographic order of the prompts is the depth-first order of the
nodes. It follows that the tree does not depend on the order in which the prompts came.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacy_relx.engine.types import TokenIds

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """Prompts as a tree of tokens; node `j` sees node `i` iff `i <= j < end[i]`, that is, iff `i` is its ancestor.

    Attributes:
        ids: Token of each node. Shape: (n_nodes,)
        depth: Distance of each node from the root, 0 for a first token. Shape: (n_nodes,)
        parent: Node before it in its prompts, -1 for a first token. Shape: (n_nodes,)
        end: One past the last descendant of each node. Shape: (n_nodes,)
        leaf: Node of each prompt's last token, in the caller's order. Shape: (n_prompts,)
    """

    ids: IntArray
    depth: IntArray
    parent: IntArray
    end: IntArray
    leaf: IntArray

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, node: int) -> IntArray:
        """Nodes from the root to `node`, both included. Shape: (depth + 1,)."""
        nodes = np.empty(int(self.depth[node]) + 1, dtype=np.int64)
        for i in range(len(nodes) - 1, -1, -1):
            nodes[i] = node
            node = int(self.parent[node])
        return nodes

    def mask(self) -> npt.NDArray[np.bool_]:
        """Which node (row) may attend to which (column). Shape: (n_nodes, n_nodes), True = may attend."""
        nodes = np.arange(len(self))
        return (nodes[None, :] <= nodes[:, None]) & (nodes[:, None] < self.end[None, :])


def build(prompts: Sequence[TokenIds]) -> PrefixTree:
    """Build the tree of `prompts`; duplicates share a leaf, and a prompt may be the prefix of another.

    Raises:
        ValueError: If there are no prompts or one of them is empty.
    """
    if not prompts or not all(prompts):
        raise ValueError("Expected at least one prompt, none of them empty.")
    # What all prompts begin with is set aside, so that sorting and the table below are about the rest only.
    common = prompts[0][: _common_prefix(min(prompts), max(prompts))]
    rests = [ids[len(common) :] for ids in prompts]
    order = sorted(range(len(rests)), key=rests.__getitem__)
    rows = [rests[i] for i in order]
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    width = int(lengths.max())
    table = np.full((len(rows), width + 1), -1, dtype=np.int64)
    columns = np.arange(width + 1)
    table[columns < lengths[:, None]] = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
    shared = _shared_prefixes(table, lengths)

    # Each row of the table brings the nodes that it does not share with the row above; `first` is the first of them.
    new = (columns >= shared[:, None]) & (columns < lengths[:, None])
    first = np.concatenate(([0], np.cumsum(lengths - shared))) + len(common)
    n_nodes = int(first[-1])
    row_of, column_of = np.nonzero(new)
    depth = np.concatenate((np.arange(len(common)), column_of + len(common)))
    ids = np.concatenate((np.asarray(common, dtype=np.int64), table[new]))

    # The row that brought the node which a row has in a column, and the row after it that has no such node any more.
    numbers = np.arange(len(rows))[:, None]
    replaced = shared[:, None] <= columns
    brought_by = np.maximum.accumulate(np.where(replaced, numbers, 0), axis=0)
    gone_with = np.minimum.accumulate(np.where(replaced, numbers, len(rows))[::-1], axis=0)[::-1]
    gone_with = np.concatenate((gone_with[1:], np.full((1, width + 1), len(rows))))
    nodes = first[brought_by] + columns - shared[brought_by]
    end = np.concatenate((np.full(len(common), n_nodes), first[gone_with[row_of, column_of]]))
    parent = np.arange(-1, n_nodes - 1)
    begins = column_of == shared[row_of]
    parent[len(common) :][begins] = _above(nodes, row_of[begins], column_of[begins], len(common))
    leaf = np.empty(len(rows), dtype=np.int64)
    leaf[order] = _above(nodes, numbers[:, 0], lengths, len(common))
    return PrefixTree(ids, depth, parent, end, leaf)


def _above(nodes: IntArray, rows: IntArray, columns: IntArray, n_common: int) -> IntArray:
    """The node before a column of a row; before the first column, the last node of what all rows begin with."""
    return np.where(columns > 0, nodes[rows, columns - 1], n_common - 1)


def _common_prefix(a: TokenIds, b: TokenIds) -> int:
    """Length of the prefix that two sequences share."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def _shared_prefixes(table: IntArray, lengths: IntArray) -> IntArray:
    """Length of the prefix that each row shares with the row above it; 0 for the first.

    Args:
        table: Rows padded with -1, by one at least. Shape: (n_rows, width + 1)
        lengths: Shape: (n_rows,)
    """
    shared = np.zeros(len(table), dtype=np.int64)
    differs = table[1:] != table[:-1]
    # Padding differs from every token but not from padding: equal rows differ nowhere.
    differs[:, -1] |= ~differs.any(axis=1)
    shared[1:] = np.minimum(differs.argmax(axis=1), lengths[1:])
    return shared
