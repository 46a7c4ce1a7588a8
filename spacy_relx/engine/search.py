"""The search for the most probable labels of many prompts at once. No torch.

Best first: the likeliest open prefix of each prompt is followed next, and since no label is likelier than its prefix,
the labels come out in the order of their probability and the search can stop at the k-th. What each round follows is
handed to the model for all prompts together.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from spacy_relx.engine.types import LabelScore, Ranking, Scoring, TokenIds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spacy_relx.engine.label_trie import Choice, LabelTrie, Node

FloatArray = npt.NDArray[np.float32]

#: Open prefixes that `sequence` scoring follows for each prompt in one round.
_SEQUENCE_WIDTH = 4

#: Largest share of the normaliser that `sequence` scoring leaves unexplored, unless told otherwise.
DEFAULT_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Extension:
    """A chain of tokens to append to a prompt.

    Attributes:
        prompt: Position of the prompt.
        after: The appended token it follows (as numbered by the model), -1 for the prompt itself.
        ids: The tokens.
    """

    prompt: int
    after: int
    ids: TokenIds


class LabelModel(Protocol):
    """What the search asks of a model.

    Both methods return logits of the label tokens, in the order of `tokens`, and, if `normalise` is set, the logarithm
    of the sum of the exponentials of all logits of the vocabulary.
    """

    tokens: TokenIds

    def first(self, normalise: bool) -> tuple[FloatArray, FloatArray | None]:
        """Look at the end of each prompt. Shapes: (n_prompts, n_tokens), (n_prompts,)."""

    def extend(
        self, chains: Sequence[Extension], every: bool, normalise: bool
    ) -> tuple[list[int], FloatArray, FloatArray | None]:
        """Append chains; return the number of each chain's last token, and what is seen at its tokens.

        Shapes: (n_rows, n_tokens), (n_rows,); a row for every token of every chain, or for their last tokens only.
        """


@dataclass(frozen=True, slots=True)
class _Open:
    """A choice that has been weighed but not yet followed."""

    log_prob: float
    choice: Choice
    after: int

    @property
    def ids(self) -> TokenIds:
        return self.choice.forced if self.choice.token < 0 else (self.choice.token, *self.choice.forced)


@dataclass(slots=True)
class _Search:
    """The state of the search of one prompt."""

    top_k: int
    open: list[tuple[float, int, int, _Open]] = field(default_factory=list)
    found: list[LabelScore] = field(default_factory=list)
    log_open: float = -math.inf

    def push(self, item: _Open) -> None:
        # Sorted by probability; on an exact tie a prefix goes before a label, for a label that ties may lie below it,
        # and labels go in schema order.
        choice = item.choice
        label = choice.label if choice.label is not None else choice.node.first_label if choice.node else 0
        heapq.heappush(self.open, (-item.log_prob, int(choice.label is not None), label, item))


def rank(
    model: LabelModel, tries: Sequence[LabelTrie], *, top_k: int, scoring: Scoring, tolerance: float = DEFAULT_TOLERANCE
) -> list[Ranking]:
    """Find the `top_k` most probable labels of every prompt.

    Args:
        model: Where logits come from.
        tries: The labels that each prompt may be answered with.
        top_k: Number of labels wanted; fewer come back where fewer are allowed.
        scoring: "trie" multiplies the renormalised choices along a label's tokens; "sequence" divides the likelihood
            of a label (terminal included) by the sum over all labels.
        tolerance: Under "sequence", the largest share of the sum that may stay unexplored.
    """
    columns = {token: column for column, token in enumerate(model.tokens)}
    searcher = _TrieSearcher(columns)
    if scoring == "sequence":
        searcher = _SequenceSearcher(columns, tries[0].terminal, tolerance)
    searches = [_Search(min(top_k, trie.n_labels)) for trie in tries]
    logits, norms = model.first(searcher.normalise)
    for i, (search, trie) in enumerate(zip(searches, tries)):
        if trie.n_labels == 1:
            search.found.append(LabelScore(trie.root.label or 0, 0.0))
        elif trie.root.forced or trie.root.node is None:
            search.push(_Open(0.0, trie.root, -1))
        else:
            searcher.weigh(search, trie.root.node, 0.0, -1, logits[i], float(norms[i]) if norms is not None else 0.0)
    while True:
        wanted = [(i, item) for i, search in enumerate(searches) for item in searcher.next(search)]
        if not wanted:
            return [searcher.result(search) for search in searches]
        chains = [Extension(i, item.after, item.ids) for i, item in wanted]
        last, logits, norms = model.extend(chains, searcher.every, searcher.normalise)
        row = 0
        for (i, item), token in zip(wanted, last):
            n_rows = len(item.ids) if searcher.every else 1
            rows = slice(row, row + n_rows)
            searcher.follow(searches[i], item, token, logits[rows], norms[rows] if norms is not None else None)
            row += n_rows


class _TrieSearcher:
    """A label's probability is the product of its choices, each among the tokens that a label allows there."""

    every = False
    normalise = False

    def __init__(self, columns: dict[int, int]) -> None:
        self.columns = columns

    def next(self, search: _Search) -> list[_Open]:
        """Take labels off the queue until a prefix leads it; that prefix has to be followed."""
        while search.open and len(search.found) < search.top_k:
            item = heapq.heappop(search.open)[3]
            if item.choice.label is None:
                return [item]
            search.found.append(LabelScore(item.choice.label, item.log_prob))
        return []

    def follow(self, search: _Search, item: _Open, token: int, logits: FloatArray, norms: FloatArray | None) -> None:
        """Weigh the choices at the node that `item` leads to."""
        if item.choice.node is not None:
            self.weigh(search, item.choice.node, item.log_prob, token, logits[-1], 0.0)

    def weigh(self, search: _Search, node: Node, log_prob: float, after: int, logits: FloatArray, norm: float) -> None:
        """Open the choices of a node; their probabilities sum to that of the node."""
        chosen = logits[[self.columns[choice.token] for choice in node.choices]].astype(np.float64)
        chosen -= np.logaddexp.reduce(chosen)
        for choice, value in zip(node.choices, chosen.tolist()):
            search.push(_Open(log_prob + min(value, 0.0), choice, after))

    def result(self, search: _Search) -> Ranking:
        """The labels found."""
        return Ranking(tuple(search.found))


class _SequenceSearcher(_TrieSearcher):
    """A label's probability is its likelihood over the sum of the likelihoods of all labels."""

    every = True
    normalise = True

    def __init__(self, columns: dict[int, int], terminal: int, tolerance: float) -> None:
        super().__init__(columns)
        self.terminal = terminal
        self.log_tolerance = math.log(tolerance)

    def next(self, search: _Search) -> list[_Open]:
        """The likeliest prefixes, until no open one can matter."""
        if not search.open:
            return []
        if len(search.found) >= search.top_k:
            log_open = _log_sum(-item[0] for item in search.open)
            kth = heapq.nlargest(search.top_k, (label.log_prob for label in search.found))[-1]
            settled = log_open <= self.log_tolerance + _log_sum(label.log_prob for label in search.found)
            if settled and -search.open[0][0] < kth:
                search.log_open = log_open
                search.open.clear()
                return []
        return [heapq.heappop(search.open)[3] for _ in range(min(_SEQUENCE_WIDTH, len(search.open)))]

    def follow(self, search: _Search, item: _Open, token: int, logits: FloatArray, norms: FloatArray | None) -> None:
        """Add the likelihood of the forced tokens, then end the label or weigh the node."""
        assert norms is not None
        log_prob = item.log_prob
        # Row i is what the model sees at the i-th token of the chain and predicts the token after it. Forced tokens at
        # the root have nobody before them in the chain: every label begins with them, so they cancel in the quotient.
        for row, following in enumerate(item.ids[1:]):
            log_prob += float(logits[row, self.columns[following]]) - float(norms[row])
        if item.choice.label is not None:
            log_prob += float(logits[-1, self.columns[self.terminal]]) - float(norms[-1])
            search.found.append(LabelScore(item.choice.label, log_prob))
        elif item.choice.node is not None:
            self.weigh(search, item.choice.node, log_prob, token, logits[-1], float(norms[-1]))

    def weigh(self, search: _Search, node: Node, log_prob: float, after: int, logits: FloatArray, norm: float) -> None:
        """Open the choices of a node with their likelihood under the whole vocabulary."""
        for choice in node.choices:
            value = log_prob + float(logits[self.columns[choice.token]]) - norm
            if choice.label is not None and choice.token == self.terminal:
                search.found.append(LabelScore(choice.label, value))
            else:
                search.push(_Open(value, choice, after))

    def result(self, search: _Search) -> Ranking:
        """The likeliest labels, with their share of what was found."""
        log_found = _log_sum(label.log_prob for label in search.found)
        ranked = sorted(search.found, key=lambda label: (-label.log_prob, label.label))[: search.top_k]
        scores = tuple(LabelScore(label.label, min(label.log_prob - log_found, 0.0)) for label in ranked)
        return Ranking(scores, math.exp(search.log_open - _log_sum((search.log_open, log_found))))


def _log_sum(values: Iterable[float]) -> float:
    return float(np.logaddexp.reduce(list(values)))
