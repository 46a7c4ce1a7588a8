"""Re-DocRED, as whole documents or sentence by sentence.

An entity is a cluster of mentions, and a relation holds between entities. What stands for an entity:

- `level="sentence"`: a Doc is a sentence; an entity's first mention in it is its only one, and every relation whose two
  entities are in the sentence is annotated. So pairs of entities in the Doc are pairs of entities of the data set, and
  a relation whose entities meet in several sentences is in each of them.
- `level="document"`: all mentions are entities. A relation is on the two mentions of its entities that are nearest:
  fewest sentences apart, then fewest tokens, then first in the text.

A mention's `ent.kb_id_` is the document's title and the number of its cluster: the data set does not say which entities
of two documents are the same.
"""

from __future__ import annotations

from itertools import accumulate, product
from typing import TYPE_CHECKING, Any, NamedTuple

from spacy_relx.data.base import (
    BadRow,
    DataSet,
    Item,
    Mention,
    Problem,
    Row,
    Split,
    join_words,
    names_by_id,
    parse_each,
    word_mention,
)
from spacy_relx.data.files import json_array

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Place(NamedTuple):
    """A mention: its sentence, and tokens in that sentence, the end exclusive."""

    sent: int
    start: int
    end: int
    type: str


class _Document(NamedTuple):
    title: str
    sents: list[list[str]]
    entities: list[list[_Place]]
    relations: list[tuple[int, int, str]]

    def name(self, entity: int) -> str:
        """Return the text of an entity's first mention."""
        sent, start, end, _ = self.entities[entity][0]
        return " ".join(self.sents[sent][start:end])

    def kb_id(self, entity: int) -> str:
        """Return what tells an entity from all others of the corpus."""
        return f"{self.title}#{entity}"


def _read(path: Path, *, level: str = "sentence") -> Iterator[Item]:
    def parse(place: str, id: str, record: dict[str, Any]) -> Iterator[Item]:
        document = _document(record)
        yield from _as_sentences(place, document) if level == "sentence" else _as_document(place, document)

    yield from parse_each(path, json_array(path), parse)


def _document(record: dict[str, Any]) -> _Document:
    sents: list[list[str]] = record["sents"]
    entities = []
    for cluster in record["vertexSet"]:
        places = [_Place(m["sent_id"], m["pos"][0], m["pos"][1], m["type"]) for m in cluster]
        for place in places:
            if not 0 <= place.sent < len(sents) or not 0 <= place.start < place.end <= len(sents[place.sent]):
                raise BadRow("a mention is outside the text", f"{place} in {record['title']!r}")
        entities.append(sorted(set(places)))
    names = names_by_id("redocred")
    relations = []
    for relation in record.get("labels", ()):
        head, tail, id = relation["h"], relation["t"], relation["r"]
        if not (0 <= head < len(entities) and 0 <= tail < len(entities)):
            raise BadRow("a relation with an entity that is not there", f"{head}, {tail} of {len(entities)}")
        if id not in names:
            raise BadRow("unknown label", id)
        relations.append((head, tail, names[id]))
    return _Document(record["title"], sents, entities, relations)


def _as_sentences(place: str, document: _Document) -> Iterator[Item]:
    sent_of = [{mention.sent for mention in mentions} for mentions in document.entities]
    for head, tail, label in document.relations:
        if not sent_of[head] & sent_of[tail]:
            detail = f"({document.name(head)}, {label}, {document.name(tail)}) in {document.title!r}"
            yield Problem(place, "no sentence has both arguments", detail, "relation", by_design=True)
    for sent, tokens in enumerate(document.sents):
        text, places = join_words(tokens)
        index: dict[int, int] = {}
        mentions: list[Mention] = []
        for entity, cluster in enumerate(document.entities):
            here = [mention for mention in cluster if mention.sent == sent]
            if here:
                index[entity] = len(mentions)
                kb_id = document.kb_id(entity)
                mentions.append(word_mention(places, here[0].start, here[0].end, here[0].type, kb_id))
            for further in here[1:]:
                detail = repr(" ".join(tokens[further.start : further.end]))
                yield Problem(
                    f"{place} sentence {sent}", "a further mention of an entity", detail, "mention", by_design=True
                )
        relations = tuple(
            (index[head], index[tail], label)
            for head, tail, label in document.relations
            if head in index and tail in index
        )
        yield Row(
            f"{document.title}#{sent}", f"{place} sentence {sent}", text, tuple(mentions), relations, tuple(tokens)
        )


def _as_document(place: str, document: _Document) -> Iterator[Item]:
    words = [token for sent in document.sents for token in sent]
    text, places = join_words(words)
    first = [0, *accumulate(len(sent) for sent in document.sents)]
    index: dict[tuple[int, _Place], int] = {}
    mentions: list[Mention] = []
    for entity, cluster in enumerate(document.entities):
        for mention in cluster:
            offset = first[mention.sent]
            index[entity, mention] = len(mentions)
            kb_id = document.kb_id(entity)
            mentions.append(word_mention(places, offset + mention.start, offset + mention.end, mention.type, kb_id))

    def distance(pair: tuple[_Place, _Place]) -> tuple[int, int, _Place, _Place]:
        a, b = sorted(pair)
        tokens = first[b.sent] + b.start - (first[a.sent] + a.end)
        return b.sent - a.sent, max(0, tokens), a, b

    relations = []
    for head, tail, label in document.relations:
        a, b = min(product(document.entities[head], document.entities[tail]), key=distance)
        relations.append((index[head, a], index[tail, b], label))
    sents = tuple(places[start][0] for start in first[:-1] if start < len(places))
    yield Row(document.title, place, text, tuple(mentions), tuple(relations), tuple(words), sents)


REDOCRED = DataSet(
    "redocred",
    "Re-DocRED",
    "MIT",
    "https://github.com/tonytan48/Re-DocRED",
    _read,
    schema="redocred",
    options={"level": ("sentence", "document")},
    splits=(
        Split("dev", "redocred/dev_revised.json", 500, 17284, 17276),
        Split("test", "redocred/test_revised.json", 500, 17448, 17448),
    ),
    note=(
        "Labels are the names of Wikidata properties. 7,982 relations of dev and 8,156 of test have both arguments in "
        "one sentence. Several labels on 24 % of the test pairs."
    ),
)
