"""The prefix tree of a set of prompts, flattened in depth-first order. No torch.

Sorting the prompts puts every pair of prompts that share a prefix next to each other, so the tree falls out of the
lengths of the prefixes that neighbours share; the lexicographic order of the prompts is the depth-first order of the
nodes. It follows that the tree does not depend on the order in which the prompts came.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    lengths = np.fromiter((len(prompts[i]) for i in order), dtype=np.int64, count=len(order))
    shared = _shared_prefixes([prompts[i] for i in order], lengths)
    n_new = lengths - shared
    starts = np.concatenate(([0], np.cumsum(n_new)))
    n_nodes = int(starts[-1])

    ids = np.empty(n_nodes, dtype=np.int64)
    depth = np.empty(n_nodes, dtype=np.int64)
    parent = np.arange(-1, n_nodes - 1, dtype=np.int64)
    end = np.empty(n_nodes, dtype=np.int64)
    leaf = np.empty(len(order), dtype=np.int64)
    path: list[int] = []
    for i, k, first, last in zip(order, shared.tolist(), starts[:-1].tolist(), starts[1:].tolist()):
        if len(path) > k:
            end[path[k:]] = first
        if last > first:
            ids[first:last] = prompts[i][k:]
            depth[first:last] = np.arange(k, k + last - first)
            parent[first] = path[k - 1] if k else -1
        path[k:] = range(first, last)
        leaf[i] = path[-1]
    end[path] = n_nodes
    return PrefixTree(ids, depth, parent, end, leaf)


def _shared_prefixes(prompts: list[TokenIds], lengths: IntArray) -> IntArray:
    """Length of the prefix that each prompt shares with the one before it; 0 for the first."""
    shared = np.zeros(len(prompts), dtype=np.int64)
    if len(prompts) == 1:
        return shared
    width = int(lengths.max())
    table = np.full((len(prompts), width + 1), -1, dtype=np.int64)
    columns = np.arange(width + 1)
    table[columns < lengths[:, None]] = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in prompts])
    differs = table[1:] != table[:-1]
    # Padding differs from every token but not from padding: equal prompts differ nowhere.
    differs[:, width] |= ~differs.any(axis=1)
    shared[1:] = np.minimum(differs.argmax(axis=1), lengths[1:])
    return shared
