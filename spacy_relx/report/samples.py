"""Errors to read: which pairs are shown, and where their mentions stand in the text."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

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
GAP = " … "


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the text.

    Attributes:
        text: The characters.
        role: The mention that it belongs to: "head", "tail", "both" where the two overlap, or "".
    """

    text: str
    role: str = ""


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


def mark(record: PairRecord, *, margin: int = 160) -> tuple[Segment, ...]:
    """Cut the text around a pair into segments.

    The sentence is shown whole where it holds both mentions; otherwise `margin` characters around each mention, cut at
    spaces, with an ellipsis for what is left out.
    """
    text, head, tail = record.text, record.head, record.tail
    start, end = record.sentence
    first, last = min(head.start, tail.start), max(head.end, tail.end)
    if start <= first and last <= end and end - start <= 6 * margin:
        windows = [(start, end)]
    else:
        around = sorted(
            (_to_space(text, m.start - margin, -1), _to_space(text, m.end + margin, 1)) for m in (head, tail)
        )
        (a, b), (c, d) = around
        windows = [(a, max(b, d))] if c <= b else around
    segments: list[Segment] = []
    for number, (start, end) in enumerate(windows):
        if number or (start > 0 and len(windows) > 1):
            segments.append(Segment(GAP))
        cuts = sorted({start, end, *(p for m in (head, tail) for p in (m.start, m.end) if start < p < end)})
        segments += [Segment(text[a:b], _role(a, head, tail)) for a, b in pairwise(cuts)]
    if windows[-1][1] < len(text) and len(windows) > 1:
        segments.append(Segment(GAP))
    return tuple(segments)


def _role(place: int, head: MentionRecord, tail: MentionRecord) -> str:
    in_head, in_tail = (m.start <= place < m.end for m in (head, tail))
    return "both" if in_head and in_tail else "head" if in_head else "tail" if in_tail else ""


def _to_space(text: str, place: int, step: int) -> int:
    """Move a cut outwards to the next space, so that no word is cut."""
    place = min(max(place, 0), len(text))
    for moved in range(20):
        at = place + step * moved
        if not 0 < at < len(text):
            return min(max(at, 0), len(text))
        if text[at].isspace():
            return at
    return place


def _sample(record: PairRecord, kind: Kind) -> Sample:
    return Sample(
        kind, record.doc, mark(record), record.head, record.tail, record.gold, record.answer, record.scores[:3]
    )
