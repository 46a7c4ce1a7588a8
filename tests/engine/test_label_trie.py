from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_relx.engine import label_trie
from spacy_relx.engine.types import LabelIds
from spacy_relx.errors import PromptError

from .strategies import label_sets


def paths(choice: label_trie.Choice) -> dict[int, tuple[int, ...]]:
    """The tokens along which each label is reached, without the terminal."""
    own = (*(() if choice.token in (-1, 39) else (choice.token,)), *choice.forced)
    if choice.label is not None:
        return {choice.label: own}
    assert choice.node is not None
    below = [paths(next_choice) for next_choice in choice.node.choices]
    return {label: own + rest for part in below for label, rest in part.items()}


def test_a_label_that_begins_another_keeps_its_terminal() -> None:
    member, member_of = (10,), (10, 11)
    trie = label_trie.build(LabelIds((member, member_of), 39), (0, 1))
    assert trie.root.forced == (10,)
    assert trie.root.node is not None
    assert [(choice.token, choice.label) for choice in trie.root.node.choices] == [(39, 0), (11, 1)]


def test_tokens_without_a_choice_are_forced() -> None:
    trie = label_trie.build(LabelIds(((1, 2, 3, 4), (1, 2, 5)), 39), (0, 1))
    assert trie.root.forced == (1, 2)
    assert trie.root.node is not None
    assert [choice.forced for choice in trie.root.node.choices] == [(4,), ()]


@given(label_sets(), st.data())
def test_every_allowed_label_is_reached_by_its_own_tokens(labels: LabelIds, data: st.DataObject) -> None:
    positions = st.lists(st.integers(0, len(labels) - 1), min_size=1, unique=True)
    allowed = tuple(sorted(data.draw(positions)))
    trie = label_trie.build(labels, allowed)
    assert paths(trie.root) == {i: labels.sequences[i] for i in allowed}
    assert trie.n_labels == len(allowed)


def test_no_labels_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least one allowed label"):
        label_trie.build(LabelIds(((1,),), 39), ())


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ((), "A label set is empty"),
        (((1,), ()), "Label number 1 has no tokens"),
        (((1, 39),), "contains the end-of-answer token 39"),
        (((1,), (1,)), "Two labels have the same token ids"),
    ],
)
def test_label_sets_that_cannot_be_told_apart_are_refused(sequences: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        LabelIds(sequences, 39)
