"""Relations on a Doc: how they are stored, read, assigned and carried along.

Owns the extension attributes `Doc._.relations`, `Doc._.triples`, `Span._.relations` and `Doc._.relation_answers`.
What a Doc holds are the plain tuples of `storage`; `Relation` is the typed view, built when the attribute is read.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from spacy.tokens import Doc, Span

from spacy_relx import storage
from spacy_relx.errors import DataError, ExtensionError

DEFAULT_ATTR = "relations"


@dataclass(frozen=True, slots=True)
class Relation:
    """A directed, labelled and scored relation between two mentions of one Doc.

    Attributes:
        head: The first argument.
        tail: The second argument.
        label: Name of the relation.
        score: Probability of the label among the labels that were asked for, 0..1; 1.0 for gold data.
        inverse_label: Name of the same fact seen from the tail, if the schema has one.
    """

    head: Span
    tail: Span
    label: str
    score: float = 1.0
    inverse_label: str | None = None

    @property
    def triple(self) -> tuple[str, str, str]:
        """(head text, label, tail text)."""
        return (self.head.text, self.label, self.tail.text)

    @property
    def inverse(self) -> Relation | None:
        """The same fact seen from the tail, or None if the schema names no inverse label."""
        if self.inverse_label is None:
            return None
        return Relation(self.tail, self.head, self.inverse_label, self.score, self.label)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; token and character offsets are absolute in the Doc, ends exclusive."""
        return {
            "head": _mention_dict(self.head),
            "tail": _mention_dict(self.tail),
            "label": self.label,
            "score": self.score,
            **({"inverse_label": self.inverse_label} if self.inverse_label else {}),
        }


@dataclass(frozen=True, slots=True)
class RelationAnswer:
    """What the model wrote about one pair under free decoding, whether or not it is a label of the schema.

    Attributes:
        head: The first argument.
        tail: The second argument.
        text: The answer, stripped.
        score: Product of the probabilities of its tokens, 0..1.
    """

    head: Span
    tail: Span
    text: str
    score: float


def as_doc(span: Span, *, attr: str = DEFAULT_ATTR) -> Doc:
    """Copy a span to a Doc of its own, with the relations whose two mentions lie inside it.

    `Span.as_doc` leaves relations behind: their offsets count from the start of the whole Doc.
    """
    doc = span.as_doc()
    register(attr)
    for name in (attr, answers_attr(attr)):
        placed = [storage.resolve(span.doc, stored) for stored in storage.read(span.doc, name)]
        inside = [s for s in placed if all(span.start <= start and end <= span.end for start, end, *_ in s[:2])]
        if inside:
            storage.write(doc, name, [storage.shift(stored, -span.start, -span.start_char) for stored in inside])
    return doc


def merge_docs(docs: Iterable[Doc], *, attr: str = DEFAULT_ATTR, **kwargs: Any) -> Doc:
    """Concatenate Docs as `Doc.from_docs` does, and keep their relations, which `Doc.from_docs` drops.

    Args:
        docs: The Docs, all with one vocabulary.
        attr: The extension attribute that holds the relations.
        **kwargs: Passed on to `Doc.from_docs`.

    Raises:
        DataError: If there are no Docs.
    """
    docs = list(docs)
    names = (attr, answers_attr(attr))
    with warnings.catch_warnings():
        # spaCy warns (W101) of every value it leaves out; these two are put back below.
        for name in names:
            warnings.filterwarnings("ignore", message=rf"\[W101\].*'{re.escape(name)}'")
        merged = Doc.from_docs(docs, **kwargs)
    if merged is None:
        raise DataError("merge_docs was given no Docs. Expected at least one.")
    register(attr)
    for name in names:
        moved: list[storage.Stored] = []
        token = 0
        for doc in docs:
            # Doc.from_docs may insert a space between two Docs, so characters are counted in the merged Doc.
            char = merged[token].idx - doc[0].idx if len(doc) else 0
            moved.extend(storage.shift(storage.resolve(doc, stored), token, char) for stored in storage.read(doc, name))
            token += len(doc)
        if moved:
            storage.write(merged, name, moved)
    return merged


def register(attr: str = DEFAULT_ATTR) -> None:
    """Register the extension attributes that hold relations under the name `attr`; a second call changes nothing.

    Raises:
        ExtensionError: If somebody else registered one of the names.
    """
    ours: list[tuple[Any, str, Callable[..., Any], Callable[..., None] | None]] = [
        (Doc, attr, partial(_get_relations, attr=attr), partial(_set_relations, attr=attr)),
        (Doc, triples_attr(attr), partial(_get_triples, attr=attr), None),
        (Doc, answers_attr(attr), partial(_get_answers, attr=attr), partial(_set_answers, attr=attr)),
        (Span, attr, partial(_get_span_relations, attr=attr), None),
    ]
    for owner, name, getter, _ in ours:
        if owner.has_extension(name) and not _same(owner.get_extension(name)[2], getter):
            raise ExtensionError(
                f"{owner.__name__}._.{name} is already registered by another package or by your code. Give this "
                f'component a name of its own: config={{"attr": "relx_{attr}"}}, and read '
                f"{owner.__name__}._.relx_{attr}."
            )
    for owner, name, getter, setter in ours:
        if not owner.has_extension(name):
            owner.set_extension(name, getter=getter, setter=setter)


def triples_attr(attr: str) -> str:
    """Name of the extension that gives (head text, label, tail text) for the relations under `attr`."""
    return "triples" if attr == DEFAULT_ATTR else f"{attr}_triples"


def answers_attr(attr: str) -> str:
    """Name of the extension that keeps the raw answers of free decoding for the relations under `attr`."""
    return "relation_answers" if attr == DEFAULT_ATTR else f"{attr}_answers"


def _same(registered: Any, getter: Any) -> bool:
    return isinstance(registered, partial) and registered.func is getter.func and registered.keywords == getter.keywords


# Getters and setters are module-level functions: spaCy pickles them for its worker processes.


def _get_relations(doc: Doc, *, attr: str) -> list[Relation]:
    stored = storage.read(doc, attr)
    if not stored:
        return []
    known = storage.known_mentions(doc)
    try:
        return [_view(doc, cast("storage.StoredRelation", relation), known) for relation in stored]
    except DataError:
        raise
    except (TypeError, ValueError, OverflowError) as error:  # a DocBin may hold anything in this place
        raise DataError(
            f"What is stored of Doc._.{attr} is damaged ({type(error).__name__}: {error}). Expected what assigning to "
            "it stores; assign the relations anew."
        ) from error


def _set_relations(doc: Doc, value: Iterable[Any], *, attr: str) -> None:
    best: dict[tuple[tuple[int, int], tuple[int, int], str], storage.StoredRelation] = {}
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise DataError(f"Doc._.{attr} was set to {value!r}. Expected a list of relations; set it to [] to clear it.")
    # The Spans of a Doc stand in many of its relations. They are kept, or another may come to have the id of one.
    seen: dict[int, tuple[Span, storage.Mention]] = {}

    def mention_of(given: Any) -> storage.Mention:
        if not isinstance(given, Span):  # a list or dict may be another the next time
            return storage.to_mention(doc, given)
        if id(given) not in seen:
            seen[id(given)] = (given, storage.to_mention(doc, given))
        return seen[id(given)][1]

    for item in value:
        stored = _to_stored(item, mention_of)
        if stored[0][:2] == stored[1][:2]:
            raise DataError(
                f"A relation {stored[2]!r} has tokens {stored[0][:2]} as head and as tail. Expected two different "
                "mentions; leave self-relations out."
            )
        # One pair of places and one label are one relation, whatever types the mentions carry.
        key = (stored[0][:2], stored[1][:2], stored[2])
        if key not in best or stored[3] > best[key][3]:
            best[key] = stored
    storage.write(doc, attr, best.values())


def _get_triples(doc: Doc, *, attr: str) -> list[tuple[str, str, str]]:
    return [relation.triple for relation in _get_relations(doc, attr=attr)]


def _get_span_relations(span: Span, *, attr: str) -> list[Relation]:
    """Relations with a mention inside the span, seen from that mention's side where an inverse label says how."""
    found = []
    for relation in _get_relations(span.doc, attr=attr):
        has_head, has_tail = (
            span.start <= mention.start and mention.end <= span.end for mention in (relation.head, relation.tail)
        )
        if has_head or has_tail:
            mirror = relation.inverse if not has_head else None
            found.append(mirror or relation)
    return found


def _get_answers(doc: Doc, *, attr: str) -> list[RelationAnswer]:
    known = storage.known_mentions(doc)
    return [
        RelationAnswer(storage.span_at(doc, head, known), storage.span_at(doc, tail, known), text, score)
        for head, tail, text, score in storage.read(doc, answers_attr(attr))
    ]


def _set_answers(doc: Doc, value: Iterable[RelationAnswer], *, attr: str) -> None:
    answers = [
        (storage.to_mention(doc, a.head), storage.to_mention(doc, a.tail), a.text, float(a.score)) for a in value
    ]
    storage.write(doc, answers_attr(attr), answers)


def is_annotated(doc: Doc, attr: str) -> bool:
    """Whether somebody set the relations of a Doc, be it to none; a Doc that nobody looked at has no such entry."""
    return storage.key(attr) in doc.user_data


def _view(doc: Doc, stored: storage.StoredRelation, known: Mapping[tuple[int, int], Span]) -> Relation:
    head, tail, label, score, inverse = stored
    if not (isinstance(label, str) and isinstance(inverse, str) and 0 <= score <= 1):
        raise ValueError(f"a relation has the label {label!r}, the score {score!r} and the inverse {inverse!r}")
    return Relation(storage.span_at(doc, head, known), storage.span_at(doc, tail, known), label, score, inverse or None)


def _to_stored(item: Any, mention_of: Callable[[Any], storage.Mention]) -> storage.StoredRelation:
    """Turn what a user may assign into the stored form: a Relation, its dict, or (head, label, tail[, score])."""
    inverse: Any = None
    if isinstance(item, Relation):
        head, tail, label, score, inverse = item.head, item.tail, item.label, item.score, item.inverse_label
    elif isinstance(item, Mapping) and {"head", "tail", "label"} <= set(item):
        head, tail, label = item["head"], item["tail"], item["label"]
        score, inverse = item.get("score", 1.0), item.get("inverse_label")
    elif isinstance(item, (tuple, list)) and len(item) in (3, 4):
        head, label, tail, score = item if len(item) == 4 else (*item, 1.0)
    else:
        raise DataError(
            f"{item!r} cannot be assigned as a relation. Expected a spacy_relx.Relation, the dict its to_dict() gives, "
            "or (head, label, tail) with an optional score, where head and tail are Spans or (start, end) tokens."
        )
    if not isinstance(label, str) or not label:
        raise DataError(f"A relation has the label {label!r}. Expected a string that is not empty.")
    if (
        isinstance(score, bool)
        or not isinstance(score, (int, float))
        or not math.isfinite(score)
        or not 0 <= score <= 1
    ):
        raise DataError(f"Relation {label!r} has the score {score!r}. Expected a number in 0..1.")
    return (mention_of(head), mention_of(tail), label, float(score), str(inverse or ""))


def _mention_dict(span: Span) -> dict[str, Any]:
    return {
        "text": span.text,
        "label": span.label_,
        "start": span.start,
        "end": span.end,
        "start_char": span.start_char,
        "end_char": span.end_char,
    }
