"""From annotated Docs to annotated contexts: the pairs and texts that the component itself would ask about.

Owns how gold relations meet candidate pairs, and which of them no candidate can answer. The spaCy side of training;
what follows it, from contexts to rows, knows no Doc.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spacy_relx.candidates import context_text
from spacy_relx.data.docs import doc_id
from spacy_relx.errors import DataError
from spacy_relx.evaluation.counts import negative_labels
from spacy_relx.schema_config import did_you_mean
from spacy_relx.training.contexts import AnnotatedContext, AnnotatedPair, forms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from spacy.tokens import Doc, Span

    from spacy_relx.answers import Pair
    from spacy_relx.candidates import Context
    from spacy_relx.pipeline import RelationExtractor
    from spacy_relx.relation import Relation
    from spacy_relx.schema import Schema

    _Place = tuple[int, int]
    _Key = tuple[_Place, _Place]

NO_CANDIDATE = "the pair is never asked about: another sentence, too far apart, or the other order"
TYPES = "no label is allowed between the entity types"
LABEL_TYPES = "the label is not allowed between the entity types"
NEGATIVE = "annotated as no relation, and the pair is never asked about"


@dataclass
class Skipped:
    """Gold relations that no candidate pair can answer, with reasons.

    Attributes:
        reasons: How often each occurs.
        first: The first case of each.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, case: str) -> None:
        """Count one case."""
        self.reasons[reason] += 1
        self.first.setdefault(reason, case)

    def __len__(self) -> int:
        return self.reasons.total()

    def __str__(self) -> str:
        return "\n".join(f"{n} skipped: {reason}. First: {self.first[reason]}" for reason, n in self.reasons.items())


@dataclass
class _Gold:
    """What a Doc's relations say about ordered pairs of places."""

    labels: dict[_Key, list[str]] = field(default_factory=dict)
    none: set[_Key] = field(default_factory=set)


def read_contexts(
    component: RelationExtractor, docs: Iterable[Doc], skipped: Skipped | None = None, *, attr: str | None = None
) -> Iterator[AnnotatedContext]:
    """Yield the contexts of some Docs; see `contexts_of`."""
    for number, doc in enumerate(docs):
        yield from contexts_of(component, doc, skipped, attr=attr, name=doc_id(doc) or f"number {number}")


def contexts_of(
    component: RelationExtractor,
    doc: Doc,
    skipped: Skipped | None = None,
    *,
    attr: str | None = None,
    name: str | None = None,
) -> Iterator[AnnotatedContext]:
    """Yield what the component shows the model of a Doc with gold entities and relations, with the right answers.

    The pairs are those that the component enumerates. A symmetric label is right in both orders; a label whose mirror
    is a label, too, has it in the other order. A pair with a relation that its entity types do not allow is left out:
    the component cannot answer it, and should not learn that nothing holds.

    Args:
        component: The component; no model is loaded.
        doc: The Doc.
        skipped: Counts the gold relations that no candidate pair can answer.
        attr: The extension attribute of the gold relations; None: the component's.
        name: What messages call the Doc; None: its id, or its first words.

    Raises:
        DataError: If a relation's argument is no mention that the component sees, or its label is not in the schema.
    """
    skipped = Skipped() if skipped is None else skipped
    relations: list[Relation] = list(getattr(doc._, attr or component.settings.attr))
    name = name or doc_id(doc) or repr(doc.text[:40])
    pairs = component._pairs(doc)
    _check_mentions(component, doc, pairs, relations, name)
    gold = _read_gold(component, relations, name)
    _count_skipped(component, pairs, relations, skipped, name)
    contexts: dict[Context, list[AnnotatedPair]] = {}
    for pair in pairs:
        annotated = _annotated(component.schema, pair, gold)
        if annotated is not None:
            contexts.setdefault(pair.context, []).append(annotated)
    for context, found in contexts.items():
        yield AnnotatedContext(context_text(doc, context), tuple(found))


def _annotated(schema: Schema, pair: Pair, gold: _Gold) -> AnnotatedPair | None:
    """The pair with its labels, or None if it holds something that it may not be answered with."""
    key = _key(pair.head, pair.tail)
    allowed = _allowed(schema, pair)
    held = gold.labels.get(key, [])
    labels = tuple(label for label in held if label in allowed)
    if held and not labels:
        return None
    stated = not held and key in gold.none
    head, tail = pair.head, pair.tail
    return AnnotatedPair(head.text, tail.text, head.label_, tail.label_, labels, allowed, stated)


def _read_gold(component: RelationExtractor, relations: Iterable[Relation], name: str) -> _Gold:
    gold, schema = _Gold(), component.schema
    negatives = _negatives(component)
    for relation in relations:
        if relation.label.lower() in negatives:
            gold.none.add(_key(relation.head, relation.tail))
            continue
        found = forms(schema, relation.label, relation.head, relation.tail)
        if not found:
            raise DataError(
                f"The Doc {name} has the relation {_shown(relation)}, whose label is not in the schema {schema.name!r}."
                f"{did_you_mean(relation.label, schema.names)} Expected one of: {', '.join(schema.names)}; or a label "
                "that means no relation."
            )
        for label, head, tail in found:
            labels = gold.labels.setdefault(_key(head, tail), [])
            if label not in labels:
                labels.append(label)
    return gold


def _count_skipped(
    component: RelationExtractor, pairs: Iterable[Pair], relations: Iterable[Relation], skipped: Skipped, name: str
) -> None:
    """Count the relations of which no form is an answer to any pair."""
    schema, negatives = component.schema, _negatives(component)
    answers: dict[_Key, set[str]] = {}
    for pair in pairs:
        answers.setdefault(_key(pair.head, pair.tail), set()).update(_allowed(schema, pair))
    for relation in relations:
        case = f"{name}: {_shown(relation)}"
        if relation.label.lower() in negatives:
            if _key(relation.head, relation.tail) not in answers:
                skipped.add(NEGATIVE, case)
            continue
        found = forms(schema, relation.label, relation.head, relation.tail)
        asked = [(label, answers[_key(head, tail)]) for label, head, tail in found if _key(head, tail) in answers]
        if any(label in allowed for label, allowed in asked):
            continue
        if asked:
            skipped.add(LABEL_TYPES, case)
        elif not any(schema.allowed(head.label_, tail.label_) for _, head, tail in found):
            skipped.add(TYPES, case)
        else:
            skipped.add(NO_CANDIDATE, case)


def _check_mentions(
    component: RelationExtractor, doc: Doc, pairs: Iterable[Pair], relations: Iterable[Relation], name: str
) -> None:
    """Refuse relations of what the component does not see as a mention."""
    group = getattr(component.candidates, "spans_key", None)
    spans = doc.ents if group is None else doc.spans.get(group, ())
    seen = {_place(span) for span in spans} | {_place(span) for pair in pairs for span in (pair.head, pair.tail)}
    where = "an entity of the Doc" if group is None else f"in the span group {group!r}"
    way_out = (
        'Give the Doc the entity, or set candidates.spans_key to a span group with all mentions, such as "gold".'
        if group is None
        else "Add the mention to the span group."
    )
    for relation in relations:
        for side, span in (("head", relation.head), ("tail", relation.tail)):
            if _place(span) not in seen:
                raise DataError(
                    f"The Doc {name} has the relation {_shown(relation)}, whose {side} {span.text!r} (tokens "
                    f"{span.start}..{span.end}) is not {where}. Expected relations between mentions. {way_out}"
                )


def _negatives(component: RelationExtractor) -> frozenset[str]:
    """Labels that say that there is no relation, in lower case."""
    own = component.schema.negative
    texts = {own.name.lower(), own.prompt.lower()} if own is not None else set()
    return negative_labels(component.settings.no_relation) | texts


def _allowed(schema: Schema, pair: Pair) -> tuple[str, ...]:
    # The position after the last label is the negative's.
    return tuple(schema.names[i] for i in pair.allowed if i < len(schema))


def _key(head: Span, tail: Span) -> _Key:
    return _place(head), _place(tail)


def _place(span: Span) -> _Place:
    return span.start, span.end


def _shown(relation: Relation) -> str:
    head, tail = relation.head, relation.tail
    return f"({head.text!r} {head.start}..{head.end}, {relation.label}, {tail.text!r} {tail.start}..{tail.end})"
