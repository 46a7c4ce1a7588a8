"""What an export is made of: relations as flat rows of plain values, one for each place or one for each fact.

Owns the columns. Which mentions are one entity is decided in `merging`; how a row is written, in the module of its
format.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from spacy.tokens import Doc

from spacy_relx.data.docs import doc_id
from spacy_relx.errors import DataError
from spacy_relx.merging import context, entity_key, linked_id
from spacy_relx.relation import DEFAULT_ATTR, register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from spacy.tokens import Span

    from spacy_relx.merging import Evidence, Graph, MergedRelation


@dataclass(frozen=True, slots=True)
class Triple:
    """A relation in one place.

    Attributes:
        head: Text of the first mention.
        label: Name of the relation.
        tail: Text of the second mention.
        score: 0..1.
        head_label: Entity type of the head; "" if it has none.
        tail_label: Entity type of the tail; "" if it has none.
        head_id: What the mentions of one entity have in common.
        tail_id: The same for the tail.
        head_kb_id: Id in a knowledge base, or "".
        tail_kb_id: The same for the tail.
        inverse_label: Name of the same fact seen from the tail, or "".
        doc: Id of the Doc, or else its number in the corpus, from 1.
        sentence: The sentence, or all from the head's to the tail's.
        sentence_start_char: Where it begins in the Doc's text, in characters.
        head_start_char: Where the head begins in the Doc's text, in characters.
        head_end_char: Where it ends, exclusive.
        tail_start_char: The same for the tail.
        tail_end_char: The same for the tail.
    """

    head: str
    label: str
    tail: str
    score: float
    head_label: str
    tail_label: str
    head_id: str
    tail_id: str
    head_kb_id: str
    tail_kb_id: str
    inverse_label: str
    doc: str
    sentence: str
    sentence_start_char: int
    head_start_char: int
    head_end_char: int
    tail_start_char: int
    tail_end_char: int


@dataclass(frozen=True, slots=True)
class Fact(Triple):
    """A relation between two entities of a corpus; text, sentence and offsets are those of its best-scored place.

    Attributes:
        head: The head's most frequent text.
        tail: The tail's most frequent text.
        score: The best score of any place, 0..1.
        mean_score: The mean over its places, 0..1.
        count: In how many places it was found.
        n_docs: In how many Docs.
    """

    mean_score: float
    count: int
    n_docs: int


def triples(
    docs: Doc | Iterable[Doc], *, attr: str = DEFAULT_ATTR, key: Callable[[Span], str] = entity_key
) -> Iterator[Triple]:
    """Yield the relations of Docs, which may come as a stream, one row for each place.

    Args:
        docs: A Doc or Docs with relations.
        attr: The extension that holds them.
        key: Says which mentions are one entity, for `head_id` and `tail_id`.

    Raises:
        DataError: If something else than a Doc is given.
    """
    register(attr)
    for number, doc in enumerate([docs] if isinstance(docs, Doc) else docs, 1):
        if not isinstance(doc, Doc):
            raise DataError(f"{doc!r} cannot be exported. Expected a spaCy Doc or an iterable of Docs.")
        name = doc_id(doc) or str(number)
        for relation in getattr(doc._, attr):
            head, tail, sentence = relation.head, relation.tail, context(relation)
            yield Triple(
                head=head.text,
                label=relation.label,
                tail=tail.text,
                score=relation.score,
                head_label=head.label_,
                tail_label=tail.label_,
                head_id=key(head),
                tail_id=key(tail),
                head_kb_id=linked_id(head),
                tail_kb_id=linked_id(tail),
                inverse_label=relation.inverse_label or "",
                doc=name,
                sentence=sentence.text,
                sentence_start_char=sentence.start_char,
                head_start_char=head.start_char,
                head_end_char=head.end_char,
                tail_start_char=tail.start_char,
                tail_end_char=tail.end_char,
            )


def facts(graph: Graph) -> Iterator[Fact]:
    """Yield the relations of a graph, one row for each fact, the best supported first."""
    for relation in graph.relations:
        yield Fact(
            **_values(graph, relation, relation.evidence[0]),
            head=graph.entities[relation.head].name,
            tail=graph.entities[relation.tail].name,
            mean_score=relation.mean_score,
            count=relation.n,
            n_docs=relation.n_docs,
        )


def places(graph: Graph) -> Iterator[Triple]:
    """Yield the relations of a graph, one row for each place that it has kept."""
    for relation in graph.relations:
        for place in relation.evidence:
            head, tail = place.text[slice(*place.head)], place.text[slice(*place.tail)]
            yield Triple(**_values(graph, relation, place), head=head, tail=tail)


def columns(row_type: type[Triple]) -> dict[str, type]:
    """Return the columns of a table of such rows, in order, and their types."""
    types: dict[Any, type] = {"str": str, "int": int, "float": float}
    found = {field.name: types[field.type] for field in fields(row_type)}
    first = [name for name in ("head", "label", "tail", "score", "mean_score", "count", "n_docs") if name in found]
    return {name: found[name] for name in dict.fromkeys([*first, *found])}


def _values(graph: Graph, relation: MergedRelation, place: Evidence) -> dict[str, Any]:
    head, tail = graph.entities[relation.head], graph.entities[relation.tail]
    return {
        "label": relation.label,
        "score": place.score,
        "head_label": head.label,
        "tail_label": tail.label,
        "head_id": head.key,
        "tail_id": tail.key,
        "head_kb_id": head.kb_id,
        "tail_kb_id": tail.kb_id,
        "inverse_label": relation.inverse_label or "",
        "doc": place.doc,
        "sentence": place.text,
        "sentence_start_char": place.start_char,
        **place.offsets(),
    }
