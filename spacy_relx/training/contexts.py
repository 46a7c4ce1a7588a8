"""Annotated texts as training meets them: what the component would show the model, with the right answers.

Owns the values and what a relation says about both orders of a pair. No spaCy: any program can make them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from spacy_relx.errors import DataError
from spacy_relx.prompts import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spacy_relx.label_set import Schema

Arg = TypeVar("Arg")


@dataclass(frozen=True, slots=True)
class AnnotatedPair:
    """One candidate pair with its right answers.

    Attributes:
        head: Text of the first mention.
        tail: Text of the second.
        head_type: Entity type of the first.
        tail_type: Entity type of the second.
        labels: Names of the relations that hold; none: no relation.
        allowed: Names of the labels that the entity types allow; none: types do not matter.
        stated: Whether somebody annotated that no relation holds, rather than nothing.
    """

    head: str
    tail: str
    head_type: str = ""
    tail_type: str = ""
    labels: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    stated: bool = False

    def __post_init__(self) -> None:
        if len(set(self.labels)) < len(self.labels):
            raise DataError(f"{self._place()} holds {list(self.labels)}. Expected each label once.")
        wrong = [label for label in self.labels if self.allowed and label not in self.allowed]
        if wrong:
            raise DataError(
                f"{self._place()} holds {wrong[0]!r}, which its entity types do not allow. Expected one of "
                f"{', '.join(self.allowed)}: the component would never answer anything else."
            )
        if self.stated and self.labels:
            raise DataError(f"{self._place()} holds {self.labels[0]!r} and is stated to hold nothing. Expected one.")

    def _place(self) -> str:
        return f"The pair ({self.head!r}, {self.tail!r})"


@dataclass(frozen=True, slots=True)
class AnnotatedContext:
    """One text that the model reads, and the candidate pairs in it.

    Attributes:
        text: The text as the component shows it.
        pairs: The pairs in the order in which the component asks about them.
    """

    text: str
    pairs: tuple[AnnotatedPair, ...]


def forms(schema: Schema, label: str, head: Arg, tail: Arg) -> tuple[tuple[str, Arg, Arg], ...]:
    """Every way in which the component may be told one relation: (label, head, tail), the stored form first.

    A symmetric label holds in both orders. A label with an inverse that is itself a label is right in one order, and
    its mirror in the other; a mirror that is no label of the schema leaves the other order without an answer.
    """
    name, first, second = schema.canonical(label, head, tail)
    if name not in schema:
        return ()
    found = [(name, first, second)]
    if schema[name].symmetric:
        found.append((name, second, first))
    mirror = schema[name].inverse
    if mirror is not None and mirror in schema:
        found.append((mirror, second, first))
    return tuple(found)


class Settler:
    """Leaves out pairs that seem to hold nothing only because another annotation of the same text says what they hold.

    Many data sets have a row for each relation, so that a sentence with three is there three times. A pair without a
    label is then no negative where a pair that reads the same has one. Pairs that are stated to hold nothing stay.

    Args:
        contexts: All contexts of the training data.
    """

    def __init__(self, contexts: Iterable[AnnotatedContext]) -> None:
        self._related = {
            (clean(context.text), clean(pair.head), clean(pair.tail))
            for context in contexts
            for pair in context.pairs
            if pair.labels
        }

    def __call__(self, context: AnnotatedContext) -> AnnotatedContext:
        """The context without such pairs; there may be none left."""
        text = clean(context.text)
        pairs = tuple(pair for pair in context.pairs if self._stays(text, pair))
        return context if len(pairs) == len(context.pairs) else replace(context, pairs=pairs)

    def _stays(self, text: str, pair: AnnotatedPair) -> bool:
        if pair.labels or pair.stated:
            return True
        return (text, clean(pair.head), clean(pair.tail)) not in self._related


def settled(contexts: Iterable[AnnotatedContext]) -> list[AnnotatedContext]:
    """The contexts as a `Settler` of them leaves them, those that are then empty left out."""
    contexts = list(contexts)
    settle = Settler(contexts)
    return [kept for kept in map(settle, contexts) if kept.pairs]
