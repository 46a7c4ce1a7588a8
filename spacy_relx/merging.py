"""Merges the relations of a corpus: mentions of one thing become one entity, places of one fact one relation.

Owns when two mentions are the same thing, and what is kept of where a relation was found. What is drawn or exported
from that is for other modules.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from spacy.tokens import Doc

from spacy_relx.data.docs import doc_id
from spacy_relx.errors import DataError
from spacy_relx.prompts import clean
from spacy_relx.relation import DEFAULT_ATTR, register

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from spacy.tokens import Span

    from spacy_relx.relation import Relation

NIL = "NIL"
"""The knowledge-base id that spaCy's entity linker gives to a mention for which it found none."""
MARGIN = 40
"""Tokens on each side of a pair that are its context in a Doc without sentences."""
_ARTICLE = re.compile(r"^the\s+", re.IGNORECASE)
_POSSESSIVE = re.compile(r"['\N{RIGHT SINGLE QUOTATION MARK}]s$", re.IGNORECASE)
_PUNCTUATION = ".,;:!?\"'"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A place where a relation was found.

    Attributes:
        doc: Id of the Doc, or else its number in the corpus, from 1.
        text: The sentence, or the sentences from the head's to the tail's, see `context`.
        head: Where the head is: (start, end) in characters of `text`, the end exclusive.
        tail: Where the tail is.
        score: The relation's score in this place, 0..1.
        start_char: Where `text` begins in the Doc's text, in characters.
    """

    doc: str
    text: str
    head: tuple[int, int]
    tail: tuple[int, int]
    score: float
    start_char: int

    def offsets(self) -> dict[str, int]:
        """Where the mentions are in the Doc's text, in characters, ends exclusive."""
        places = (("head", self.head), ("tail", self.tail))
        return {
            f"{name}_{end}_char": self.start_char + at
            for name, place in places
            for end, at in zip(("start", "end"), place)
        }


@dataclass(frozen=True, slots=True)
class Entity:
    """What all mentions with one key stand for.

    Attributes:
        key: What the mentions have in common, see `entity_key`; unique within a graph.
        names: The mentions' texts, the most frequent first.
        label: Their most frequent entity type; "" if they have none.
        kb_id: Their knowledge-base id, or "".
        n_mentions: How many mentions have relations.
    """

    key: str
    names: tuple[str, ...]
    label: str
    kb_id: str
    n_mentions: int

    @property
    def name(self) -> str:
        """The most frequent text."""
        return self.names[0]


@dataclass(frozen=True, slots=True)
class MergedRelation:
    """A fact, found in one or more places.

    Attributes:
        head: Key of the first entity.
        label: Name of the relation.
        tail: Key of the second entity.
        score: The best score, 0..1.
        mean_score: The mean of the scores in all places, 0..1.
        n: In how many places it was found.
        n_docs: In how many Docs.
        evidence: The places with the best scores, the best first; at most `max_evidence` of them.
        inverse_label: Name of the same fact seen from the tail, if the schema has one.
    """

    head: str
    label: str
    tail: str
    score: float
    mean_score: float
    n: int
    n_docs: int
    evidence: tuple[Evidence, ...]
    inverse_label: str | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """The entities and relations of a corpus.

    Attributes:
        entities: By key, in the order of the text.
        relations: The best supported first: found in most places, then with the highest score.
        n_docs: How many Docs were read.
        n_loops: How many relations were left out because head and tail turned out to be one entity.
    """

    entities: dict[str, Entity]
    relations: tuple[MergedRelation, ...]
    n_docs: int
    n_loops: int


def normalise(name: str) -> str:
    """Return a name as it is compared: without case, width, an English article or possessive, and outer punctuation.

    What nobody sees, such as a soft hyphen, is left out, too.

    >>> normalise("The  New York Times's") == normalise('"New York Times"')
    True
    """
    name = unicodedata.normalize("NFKC", name)
    name = clean(name) or " ".join(name.split())  # one that nobody sees at all is still a name of its own
    core = _strip(_POSSESSIVE.sub("", _strip(_ARTICLE.sub("", name))))
    return (core or name).casefold()


def entity_key(mention: Span) -> str:
    """Return the knowledge-base id of a mention, or else its normalised name with its entity type.

    The type belongs to the key because a person and a place of one name are two things.
    """
    if kb_id := linked_id(mention):
        return f"kb:{kb_id}"
    return name_key(mention)


def name_key(mention: Span) -> str:
    """Return the normalised name of a mention with its entity type, whatever a linker says."""
    return f"{mention.label_}:{normalise(mention.text)}"


def merge_relations(
    docs: Doc | Iterable[Doc],
    *,
    attr: str = DEFAULT_ATTR,
    key: Callable[[Span], str] = entity_key,
    symmetric: Collection[str] = (),
    min_score: float = 0.0,
    labels: Collection[str] | None = None,
    max_evidence: int = 5,
) -> Graph:
    """Merge the relations of Docs that may come as a stream; one Doc at a time is held.

    Args:
        docs: A Doc or Docs with relations.
        attr: The extension that holds them.
        key: Says which mentions are the same thing: those for which it returns the same string.
        symmetric: Labels for which both directions are one fact, which keeps the direction seen first.
        min_score: Relations with a lower score are left out.
        labels: The relation labels to take; None for all.
        max_evidence: Places kept for each relation, at least 1.

    Raises:
        DataError: If something else than a Doc is given, or `max_evidence` is below 1.
    """
    if max_evidence < 1:
        raise DataError(f"max_evidence is {max_evidence!r}. Expected at least 1: a relation was found somewhere.")
    register(attr)
    merger = _Merger(key, frozenset(symmetric), max_evidence)
    for doc in [docs] if isinstance(docs, Doc) else docs:
        if not isinstance(doc, Doc):
            raise DataError(f"{doc!r} has no relations to merge. Expected a spaCy Doc or an iterable of Docs.")
        relations = getattr(doc._, attr)
        merger.add(doc, [r for r in relations if r.score >= min_score and (labels is None or r.label in labels)])
    return merger.graph()


def context(relation: Relation) -> Span:
    """Return the sentences from a relation's first mention to its last.

    A Doc without sentences may be long, so only `MARGIN` tokens on both sides of the pair are taken of it.
    """
    doc = relation.head.doc
    mentions = (relation.head, relation.tail)
    if not doc.has_annotation("SENT_START"):
        return doc[max(min(m.start for m in mentions) - MARGIN, 0) : max(m.end for m in mentions) + MARGIN]
    # A mention that crosses a sentence's border has the sentence of its first token.
    start = min(mention.sent.start for mention in mentions)
    return doc[start : max(max(doc[m.end - 1].sent.end, m.end) for m in mentions)]


class _Place(NamedTuple):
    """Evidence in a heap whose smallest element is the first to go: the worst score, and the latest of equal ones."""

    score: float
    order: int
    evidence: Evidence


@dataclass(slots=True)
class _Mentions:
    names: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    kb_id: str = ""

    def add(self, mention: Span) -> None:
        self.names[" ".join(mention.text.split())] += 1
        self.labels[mention.label_] += 1
        self.kb_id = self.kb_id or linked_id(mention)


@dataclass(slots=True)
class _Places:
    best: list[_Place] = field(default_factory=list)
    n: int = 0
    total_score: float = 0.0
    docs: set[int] = field(default_factory=set)
    inverse_label: str | None = None


class _Merger:
    """What was found so far."""

    def __init__(self, key: Callable[[Span], str], symmetric: frozenset[str], max_evidence: int) -> None:
        self.key, self.symmetric, self.max_evidence = key, symmetric, max_evidence
        self.mentions: dict[str, _Mentions] = {}
        self.places: dict[tuple[str, str, str], _Places] = {}
        self.n_docs = self.n_loops = 0

    def add(self, doc: Doc, relations: Iterable[Relation]) -> None:
        """Add a Doc's relations."""
        self.n_docs += 1
        name = doc_id(doc) or str(self.n_docs)
        mentions: set[tuple[str, int, int]] = set()
        for relation in relations:
            keyed = [(self.key(mention), mention) for mention in (relation.head, relation.tail)]
            if keyed[0][0] == keyed[1][0]:
                self.n_loops += 1
                continue
            for key, mention in keyed:
                if (place := (key, mention.start, mention.end)) not in mentions:
                    mentions.add(place)
                    self.mentions.setdefault(key, _Mentions()).add(mention)
            self._add_place(relation, keyed[0][0], keyed[1][0], name)

    def _add_place(self, relation: Relation, head: str, tail: str, doc: str) -> None:
        text = context(relation)
        spans = [(m.start_char - text.start_char, m.end_char - text.start_char) for m in (relation.head, relation.tail)]
        if relation.label in self.symmetric and (tail, relation.label, head) in self.places:
            head, tail, spans = tail, head, spans[::-1]
        places = self.places.setdefault((head, relation.label, tail), _Places())
        places.n += 1
        places.total_score += relation.score
        places.docs.add(self.n_docs)
        places.inverse_label = places.inverse_label or relation.inverse_label
        evidence = Evidence(doc, text.text, spans[0], spans[1], relation.score, text.start_char)
        place = _Place(relation.score, -places.n, evidence)
        (heapq.heappush if len(places.best) < self.max_evidence else heapq.heappushpop)(places.best, place)

    def graph(self) -> Graph:
        """Return what was found."""
        entities = {
            key: Entity(key, _by_count(m.names), _by_count(m.labels)[0], m.kb_id, m.names.total())
            for key, m in self.mentions.items()
        }
        relations = []
        for (head, label, tail), places in self.places.items():
            best = [place.evidence for place in sorted(places.best, reverse=True)]
            relations.append(
                MergedRelation(
                    head,
                    label,
                    tail,
                    score=best[0].score,
                    mean_score=places.total_score / places.n,
                    n=places.n,
                    n_docs=len(places.docs),
                    evidence=tuple(best),
                    inverse_label=places.inverse_label,
                )
            )
        relations.sort(key=lambda r: (-r.n, -r.score))  # stable: equal ones stay in the order of the text
        return Graph(entities, tuple(relations), self.n_docs, self.n_loops)


def linked_id(mention: Span) -> str:
    """Return the knowledge-base id of a mention, or "" if it has none."""
    return "" if mention.kb_id_ == NIL else str(mention.kb_id_)


def _strip(name: str) -> str:
    """Cut quotation marks, brackets, points and commas off both ends; other signs may tell names apart (C, C++)."""
    start, end = 0, len(name)
    while start < end and _is_outer(name[start]):
        start += 1
    while end > start and _is_outer(name[end - 1]):
        end -= 1
    return name[start:end]


def _is_outer(char: str) -> bool:
    return char.isspace() or char in _PUNCTUATION or unicodedata.category(char) in ("Pi", "Pf", "Ps", "Pe")


def _by_count(counter: Counter[str]) -> tuple[str, ...]:
    return tuple(value for value, _ in counter.most_common())
