"""From annotated Docs to the pairs that a baseline is trained on and asked about."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from spacy_relx.candidates import EntityPairs
from spacy_relx.data.docs import doc_id
from spacy_relx.errors import DataError
from spacy_relx.evaluation.counts import NEGATIVE_LABELS
from spacy_relx.evaluation.records import MentionRecord, PairRecord
from spacy_relx.relation import DEFAULT_ATTR, register

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from spacy.tokens import Doc, Span

    from spacy_relx.evaluation.counts import Place
    from spacy_relx.evaluation.records import Protocol


def read_pairs(
    docs: Iterable[Doc], protocol: Protocol, *, candidates: EntityPairs | None = None, attr: str = DEFAULT_ATTR
) -> Iterator[PairRecord]:
    """Yield the pairs of annotated Docs, without answers.

    Args:
        docs: Docs with gold entities and relations.
        protocol: `given` for the annotated pairs, those labelled as no relation too; `gold_entities` for all candidates
            between the annotated entities, with gold pairs that are no candidates marked as such.
        candidates: Enumerates pairs under `gold_entities`; by default both orders inside a sentence.
        attr: The extension attribute of the gold relations.

    Raises:
        DataError: If the protocol needs predicted entities, which a baseline on annotated Docs does not have.
    """
    if protocol not in ("given", "gold_entities"):
        raise DataError(f"The protocol is {protocol!r}. Expected given or gold_entities for a baseline.")
    register(attr)
    candidates = candidates or EntityPairs()
    names: Counter[str] = Counter()
    for number, doc in enumerate(docs):
        name = doc_id(doc) or str(number)
        names[name] += 1
        yield from _of_doc(doc, name if names[name] == 1 else f"{name}#{names[name]}", protocol, candidates, attr)


def _of_doc(doc: Doc, name: str, protocol: Protocol, candidates: EntityPairs, attr: str) -> Iterator[PairRecord]:
    annotated: dict[tuple[Place, Place], tuple[Span, Span]] = {}
    labels: dict[tuple[Place, Place], list[str]] = {}
    for relation in getattr(doc._, attr):
        key = (_place(relation.head), _place(relation.tail))
        annotated.setdefault(key, (relation.head, relation.tail))
        if relation.label.lower() not in NEGATIVE_LABELS and relation.label not in labels.setdefault(key, []):
            labels[key].append(relation.label)
    asked = list(annotated.values()) if protocol == "given" else candidates(doc)
    done = {(_place(head), _place(tail)) for head, tail in asked}
    never = [pair for key, pair in annotated.items() if key not in done and labels.get(key)]
    text = doc.text
    for is_asked, pairs in ((True, asked), (False, never)):
        for head, tail in pairs:
            gold = tuple(labels.get((_place(head), _place(tail)), ()))
            sentence = _sentence(doc, head)
            yield PairRecord(name, text, _mention(head), _mention(tail), gold, enumerated=is_asked, sentence=sentence)


def _place(span: Span) -> Place:
    return (span.start_char, span.end_char)


def _mention(span: Span) -> MentionRecord:
    return MentionRecord(span.start_char, span.end_char, span.text, span.label_)


def _sentence(doc: Doc, span: Span) -> tuple[int, int]:
    if not doc.has_annotation("SENT_START"):
        return (0, len(doc.text))
    sentence = doc[span.start].sent
    return (sentence.start_char, sentence.end_char)
