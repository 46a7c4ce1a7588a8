"""The search for the most probable labels of many prompts at once. No torch.

Best first: the likeliest open prefix of each prompt is followed next, and since no label is likelier than its prefix,
the labels come out in the order of their probability and the search can stop at the k-th. What each round follows is
handed to the model for all prompts together.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

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


# A choice that has been weighed but not yet followed: its negative log-probability, its order among equals, the choice,
# and the appended token it follows. A plain tuple, because every prompt opens one for each choice it is given.
_Open: TypeAlias = tuple[float, tuple[bool, int], "Choice", int]


@dataclass(slots=True)
class _Search:
    """The state of the search of one prompt; `open` is a heap."""

    top_k: int
    open: list[_Open] = field(default_factory=list)
    found: list[LabelScore] = field(default_factory=list)
    log_open: float = -math.inf


class _Visit(NamedTuple):
    """A prompt at a node.

    Attributes:
        search: The search of the prompt.
        node: The node.
        log_prob: Of the way there.
        after: The appended token that led there, -1 for the prompt itself.
        row: Row of the logits that were seen there.
    """

    search: _Search
    node: Node
    log_prob: float
    after: int
    row: int


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
    visits = []
    for row, (search, trie) in enumerate(zip(searches, tries)):
        if trie.n_labels == 1:
            search.found.append(LabelScore(trie.root.label or 0, 0.0))
        elif trie.root.forced or trie.root.node is None:
            search.open.append((-0.0, _order(trie.root), trie.root, -1))
        else:
            visits.append(_Visit(search, trie.root.node, 0.0, -1, row))
    searcher.weigh(visits, logits, norms)
    while True:
        wanted = [(i, item) for i, search in enumerate(searches) for item in searcher.next(search)]
        if not wanted:
            return [searcher.result(search) for search in searches]
        chains = [Extension(i, after, _ids(choice)) for i, (_, _, choice, after) in wanted]
        last, logits, norms = model.extend(chains, searcher.every, searcher.normalise)
        searcher.follow([(searches[i], item) for i, item in wanted], last, logits, norms)


class _TrieSearcher:
    """A label's probability is the product of its choices, each among the tokens that a label allows there."""

    every = False
    normalise = False

    def __init__(self, columns: dict[int, int]) -> None:
        self.columns = columns

    def next(self, search: _Search) -> list[_Open]:
        """Take labels off the queue until a prefix leads it; that prefix has to be followed."""
        while search.open and len(search.found) < search.top_k:
            item = heapq.heappop(search.open)
            label = item[2].label
            if label is None:
                return [item]
            search.found.append(LabelScore(label, -item[0]))
        return []

    def follow(
        self, items: Sequence[tuple[_Search, _Open]], last: Sequence[int], logits: FloatArray, norms: FloatArray | None
    ) -> None:
        """Weigh the choices at the nodes that `items` lead to.

        Args:
            items: What was followed, with its search.
            last: Number of the last token of each item's chain.
            logits: What the model saw at the tokens of the chains; at their last tokens only, unless `every` is set.
            norms: The logarithms of the sums of the exponentials of all logits, if `normalise` is set.
        """
        visits = [
            _Visit(search, item[2].node, -item[0], after, row)
            for row, ((search, item), after) in enumerate(zip(items, last))
            if item[2].node is not None
        ]
        self.weigh(visits, logits, norms)

    def weigh(self, visits: Sequence[_Visit], logits: FloatArray, norms: FloatArray | None) -> None:
        """Open the choices of the visited nodes; their probabilities sum to that of the node."""
        of_node: dict[Node, list[_Visit]] = {}
        for visit in visits:
            of_node.setdefault(visit.node, []).append(visit)
        for node, same in of_node.items():  # most prompts are at one node, and are weighed in one go
            columns = [self.columns[choice.token] for choice in node.choices]
            chosen = logits[[visit.row for visit in same]][:, columns].astype(np.float64)
            chosen -= _log_sums(chosen)
            orders = [_order(choice) for choice in node.choices]
            for (search, _, log_prob, after, _), values in zip(same, np.minimum(chosen, 0.0).tolist()):
                search.open += [
                    (-(log_prob + value), order, choice, after)
                    for value, order, choice in zip(values, orders, node.choices)
                ]
                heapq.heapify(search.open)

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
        return [heapq.heappop(search.open) for _ in range(min(_SEQUENCE_WIDTH, len(search.open)))]

    def follow(
        self, items: Sequence[tuple[_Search, _Open]], last: Sequence[int], logits: FloatArray, norms: FloatArray | None
    ) -> None:
        """Add the likelihood of the forced tokens, then end the label or weigh the node."""
        assert norms is not None
        row = -1
        for (search, item), after in zip(items, last):
            choice, log_prob = item[2], -item[0]
            # A row is what the model sees at a token of the chain and predicts the token after it. Forced tokens at the
            # root have nobody before them in the chain: every label begins with them, so they cancel in the quotient.
            row += 1
            for following in _ids(choice)[1:]:
                log_prob += self._log_prob(following, logits[row], norms[row])
                row += 1
            if choice.label is not None:
                log_prob += self._log_prob(self.terminal, logits[row], norms[row])
                search.found.append(LabelScore(choice.label, log_prob))
            elif choice.node is not None:
                self.weigh([_Visit(search, choice.node, log_prob, after, row)], logits, norms)

    def weigh(self, visits: Sequence[_Visit], logits: FloatArray, norms: FloatArray | None) -> None:
        """Open the choices of the visited nodes with their likelihood under the whole vocabulary."""
        assert norms is not None
        for search, node, log_prob, after, row in visits:
            for choice in node.choices:
                value = log_prob + float(logits[row, self.columns[choice.token]]) - float(norms[row])
                if choice.label is not None and choice.token == self.terminal:
                    search.found.append(LabelScore(choice.label, value))
                else:
                    heapq.heappush(search.open, (-value, _order(choice), choice, after))

    def _log_prob(self, token: int, logits: FloatArray, norm: np.float32) -> float:
        return float(logits[self.columns[token]]) - float(norm)

    def result(self, search: _Search) -> Ranking:
        """The likeliest labels, with their share of what was found."""
        log_found = _log_sum(label.log_prob for label in search.found)
        ranked = sorted(search.found, key=lambda label: (-label.log_prob, label.label))[: search.top_k]
        scores = tuple(LabelScore(label.label, min(label.log_prob - log_found, 0.0)) for label in ranked)
        return Ranking(scores, math.exp(search.log_open - _log_sum((search.log_open, log_found))))


def _ids(choice: Choice) -> TokenIds:
    """The tokens that make a choice."""
    return choice.forced if choice.token < 0 else (choice.token, *choice.forced)


def _order(choice: Choice) -> tuple[bool, int]:
    """The order of equally probable choices.

    A prefix goes before a label, for a label that ties may lie below it, and labels go in schema order.
    """
    label = choice.label if choice.label is not None else choice.node.first_label if choice.node else 0
    return choice.label is not None, label


def _log_sums(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The logarithm of the sum of the exponentials of each row. Shapes: (n, m), (n, 1)."""
    return np.logaddexp.reduce(rows, axis=1, keepdims=True)


def _log_sum(values: Iterable[float]) -> float:
    return float(np.logaddexp.reduce(list(values)))
