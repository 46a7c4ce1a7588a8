"""Rows as packs: one forward pass over the prefix tree of many rows, and which node has to predict what. No torch.

Rows that share a prefix compute it once, and its gradient is the sum of theirs. What a node predicts is not a property
of the node: two rows may go on differently from one place, the same row may be there twice, and one label may begin
another. So targets are counted (node, token) pairs, and no row's weight is lost.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spacy_relx.engine import packing, prefix_tree
from spacy_relx.engine.types import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spacy_relx.engine.packing import AttentionPlan
    from spacy_relx.engine.prefix_tree import IntArray, PrefixTree
    from spacy_relx.training.encode import TrainRow


@dataclass(frozen=True, slots=True)
class TrainPack:
    """One forward and backward pass.

    Attributes:
        tree: The tokens of all rows.
        predictors: Nodes whose next token is asked for, each once. Shape: (n_predictors,)
        of: For each distinct target, the position of its node among the predictors. Shape: (n_targets,)
        tokens: For each distinct target, the right next token. Shape: (n_targets,)
        counts: For each distinct target, how many rows want it. Shape: (n_targets,)
        n_rows: Rows in the pack.
        plan: Who attends to whom.
    """

    tree: PrefixTree
    predictors: IntArray
    of: IntArray
    tokens: IntArray
    counts: npt.NDArray[np.float32]
    n_rows: int
    plan: AttentionPlan

    @property
    def n_label_tokens(self) -> int:
        """Tokens that the loss is taken of, repetitions counted."""
        return int(self.counts.sum())


def make_packs(rows: Sequence[TrainRow], max_tokens: int) -> Iterator[TrainPack]:
    """Pack rows in the order of their text, at most `max_tokens` nodes a pack; see `split_rows` for the error."""
    return map(make_pack, split_rows(rows, max_tokens))


def split_rows(rows: Sequence[TrainRow], max_tokens: int) -> Iterator[Sequence[TrainRow]]:
    """Put rows in the order of their text and cut them into packs of at most `max_tokens` nodes.

    Raises:
        PackBudgetError: If a single row exceeds the budget.
    """
    ordered = sorted(rows, key=lambda row: row.read)
    for part in packing.split_by_budget([Prompt(row.read) for row in ordered], max_tokens):
        yield ordered[part.start : part.stop]


def make_pack(rows: Sequence[TrainRow]) -> TrainPack:
    """Pack rows into one tree."""
    tree = prefix_tree.build([row.read for row in rows])
    targets: Counter[tuple[int, int]] = Counter()
    for row, leaf in zip(rows, tree.leaf.tolist()):
        node = leaf
        for token in reversed(row.answer):
            targets[node, token] += 1
            node = int(tree.parent[node])
    ordered = sorted(targets)
    nodes = np.asarray([node for node, _ in ordered], dtype=np.int64)
    predictors, of = np.unique(nodes, return_inverse=True)
    return TrainPack(
        tree=tree,
        predictors=predictors,
        of=of.astype(np.int64),
        tokens=np.asarray([token for _, token in ordered], dtype=np.int64),
        counts=np.asarray([targets[target] for target in ordered], dtype=np.float32),
        n_rows=len(rows),
        plan=packing.plan_tree(tree),
    )
