"""The label trie: at each point of an answer, the tokens by which a label can go on. No torch.

Only the points where an answer can go more than one way are nodes here; the tokens between them are forced. The end of
an answer is a choice like any other, made by the terminal token, so `member` and `member of` live side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy_relx.engine.types import LabelIds, TokenIds


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """One way to go on at a node.

    Attributes:
        token: The token chosen.
        forced: Tokens that must follow it, up to the next node or the end of the label; no terminal.
        label: The label that is complete after `forced` (the terminal is then forced too, or is `token` itself).
        node: The next node, if the choice does not settle the label.
    """

    token: int
    forced: TokenIds
    label: int | None
    node: Node | None


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A point where at least two labels of the set part.

    Attributes:
        choices: The ways to go on, in the order in which the schema first takes them.
        first_label: The earliest label below, by which exact ties are broken.
    """

    choices: tuple[Choice, ...]
    first_label: int


@dataclass(frozen=True, slots=True, eq=False)
class LabelTrie:
    """The choices that lead to each label of a set.

    Attributes:
        root: The first choice of the answer: `Choice` without a token of its own (`token` is -1); its `forced` tokens
            begin every label.
        tokens: Every token that can be chosen or forced, the terminal included, sorted.
        terminal: The token that ends an answer.
        n_labels: Number of labels.
    """

    root: Choice
    tokens: TokenIds
    terminal: int
    n_labels: int


@lru_cache(maxsize=1024)
def build(labels: LabelIds, allowed: tuple[int, ...]) -> LabelTrie:
    """Build the trie of the labels at the positions `allowed`; choices name labels by those positions.

    Raises:
        ValueError: If `allowed` is empty.
    """
    if not allowed:
        raise ValueError("Expected at least one allowed label.")
    endings = [(i, (*labels.sequences[i], labels.terminal)) for i in sorted(set(allowed))]
    tokens = sorted({token for _, ids in endings for token in ids})
    return LabelTrie(_choice(-1, endings, 0, labels.terminal), tuple(tokens), labels.terminal, len(endings))


def _choice(token: int, endings: list[tuple[int, TokenIds]], depth: int, terminal: int) -> Choice:
    """Follow the labels `endings`, which agree on their first `depth` tokens, to where they part."""
    forced: list[int] = []
    while True:
        if len(endings) == 1:
            label, ids = endings[0]
            rest = () if token == terminal else ids[depth + len(forced) : -1]
            return Choice(token, (*forced, *rest), label, None)
        at = depth + len(forced)
        # No label of several can have ended here: its terminal would have parted it from the others.
        following = {ids[at] for _, ids in endings}
        if len(following) > 1:
            break
        forced.append(following.pop())
    groups: dict[int, list[tuple[int, TokenIds]]] = {}
    for label, ids in endings:
        groups.setdefault(ids[at], []).append((label, ids))
    choices = tuple(_choice(next_token, group, at + 1, terminal) for next_token, group in groups.items())
    return Choice(token, tuple(forced), None, Node(choices, endings[0][0]))
