"""Errors to read: which pairs are shown."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from spacy_relx.excerpts import Segment, excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spacy_relx.evaluation.records import MentionRecord, PairRecord

Kind = Literal["wrong", "missed", "spurious", "outside", "not_asked"]
#: The kinds of error in the order in which they are shown, with what they mean.
KINDS: dict[Kind, str] = {
    "wrong": "Another label than the gold ones",
    "missed": "A relation that was answered with none",
    "spurious": "A relation where there is none",
    "outside": "An answer that is no label",
    "not_asked": "A relation whose pair was never a candidate",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One error.

    Attributes:
        kind: What sort of error.
        doc: Identifier of the document.
        segments: The text around the pair.
        head: The first mention.
        tail: The second mention.
        gold: The gold labels.
        answer: What was answered, or None.
        scores: The best (label, probability), at most three.
    """

    kind: Kind
    doc: str
    segments: tuple[Segment, ...]
    head: MentionRecord
    tail: MentionRecord
    gold: tuple[str, ...]
    answer: str | None
    scores: tuple[tuple[str, float], ...]


def error_kind(record: PairRecord) -> Kind | None:
    """Tell what is wrong with the answer of a pair; None if nothing is."""
    if not record.enumerated:
        return "not_asked" if record.gold else None
    if record.answer is None:
        return "missed" if record.gold else None
    if not record.in_schema:
        return "outside"
    if not record.gold:
        return "spurious"
    return None if record.answer in record.gold else "wrong"


def draw_samples(records: Iterable[PairRecord], *, n_each: int, seed: int = 0) -> dict[Kind, tuple[int, list[Sample]]]:
    """Draw errors at random.

    Args:
        records: The pairs.
        n_each: Most samples of one kind.
        seed: The same seed draws the same pairs.

    Returns:
        For each kind that occurs, how many errors there are and the samples, in the order of the records.
    """
    generator = random.Random(seed)
    found: dict[Kind, list[tuple[int, PairRecord]]] = {}
    n_seen: dict[Kind, int] = {}
    for number, record in enumerate(records):
        kind = error_kind(record)
        if kind is None:
            continue
        n_seen[kind] = n_seen.get(kind, 0) + 1
        kept = found.setdefault(kind, [])
        # Algorithm R: every error of a kind has the same chance, in one pass over the records.
        if len(kept) < n_each:
            kept.append((number, record))
        elif (place := generator.randrange(n_seen[kind])) < n_each:
            kept[place] = (number, record)
    return {
        kind: (n_seen[kind], [_sample(record, kind) for _, record in sorted(found[kind], key=lambda item: item[0])])
        for kind in KINDS
        if kind in found
    }


def mark(record: PairRecord) -> tuple[Segment, ...]:
    """Cut the text around a pair into segments."""
    head, tail = ((m.start, m.end) for m in (record.head, record.tail))
    return excerpt(record.text, record.sentence, head, tail)


def _sample(record: PairRecord, kind: Kind) -> Sample:
    return Sample(
        kind, record.doc, mark(record), record.head, record.tail, record.gold, record.answer, record.scores[:3]
    )
