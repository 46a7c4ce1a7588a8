"""What is counted: facts that were predicted, facts that are annotated, and those that are both.

Owns the counting that the pipeline's scorer and the evaluation of stored records share. No spaCy, no model.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Set

#: Classes that are left out of the average; confusions with them still count as false positives or negatives.
#: Source: the evaluation of arXiv:2606.22606.
NEGATIVE_LABELS = frozenset({"none", "other", "no_relation", "na", "nan", "null", ""})

#: Where a mention lies: character offsets, the end exclusive.
Place: TypeAlias = tuple[int, int]
#: (label, head, tail)
Fact: TypeAlias = tuple[str, Place, Place]
#: Entity types of head and tail.
Types: TypeAlias = tuple[str, str]


def normalise_answer(text: str) -> str:
    """Bring a free answer to the form in which the published evaluation compares answers.

    Source: protocol of arXiv:2606.22606: first line, lower case, single spaces, no quotes, no leading "Answer:".
    """
    stripped = text.strip()
    line = stripped.splitlines()[0].strip().lower() if stripped else ""
    line = line.removeprefix("answer:").strip()
    return " ".join(line.strip("\"'`").split()) or "none"


def negative_labels(negative: str | None = None) -> frozenset[str]:
    """The classes that are no relation, in lower case, with a run's own negative label among them."""
    return NEGATIVE_LABELS if negative is None else NEGATIVE_LABELS | {negative.lower()}


@dataclass(frozen=True, slots=True)
class Counts:
    """Hits, predictions and gold facts, and what follows from them; a ratio without a denominator is 0."""

    hits: int = 0
    predicted: int = 0
    gold: int = 0

    @property
    def p(self) -> float:
        """Precision."""
        return self.hits / self.predicted if self.predicted else 0.0

    @property
    def r(self) -> float:
        """Recall."""
        return self.hits / self.gold if self.gold else 0.0

    @property
    def f(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.p + self.r
        return 2 * self.p * self.r / total if total else 0.0

    def prf(self) -> dict[str, float]:
        """Precision, recall and F-score, as spaCy's scorers name them."""
        return {"p": self.p, "r": self.r, "f": self.f}

    def to_dict(self) -> dict[str, float | int]:
        """Return counts and ratios."""
        return {**self.prf(), "hits": self.hits, "predicted": self.predicted, "gold": self.gold}


@dataclass(frozen=True, slots=True)
class Directions:
    """Which labels mean the same in the other order, so that one fact is counted once.

    Attributes:
        symmetric: Labels that hold in both orders at once.
        mirrors: For the derived side of an inverse pair, the label under which the pair is counted.
    """

    symmetric: frozenset[str] = frozenset()
    mirrors: Mapping[str, str] = field(default_factory=dict)

    def fact(self, label: str, head: Place, tail: Place) -> Fact:
        """Return the one form of a fact."""
        if label in self.mirrors:
            label, head, tail = self.mirrors[label], tail, head
        if label in self.symmetric:
            head, tail = sorted((head, tail))
        return label, head, tail

    def turned(self, label: str, head: Place, tail: Place) -> bool:
        """Whether `fact` gives the mentions in the other order."""
        fact = self.fact(label, head, tail)
        return fact[1:] != (head, tail)

    def reachable(self, label: str, head: Place, tail: Place, asked: Set[tuple[Place, Place]]) -> bool:
        """Whether an answer about one of the pairs that were asked could have stated the fact."""
        both_ways = label in self.symmetric or label in self.mirrors or label in self.mirrors.values()
        return (head, tail) in asked or (both_ways and (tail, head) in asked)


@dataclass(slots=True)
class Tally:
    """Everything that is counted about one document, or about many.

    Attributes:
        hits: By label, predicted facts that are gold.
        strict_hits: By label, those of which the entity types of both mentions are right too.
        predicted: By label, predicted facts.
        gold: By label, gold facts.
        n_outside: Answers that are no label of the schema: inventions.
        n_gold_pairs: Pairs with a gold label.
        n_reached: Those among them that were asked about.
        n_negative: Pairs that were asked about and have no gold label.
        n_false_alarms: Those among them that were answered with a relation.
    """

    hits: Counter[str] = field(default_factory=Counter)
    strict_hits: Counter[str] = field(default_factory=Counter)
    predicted: Counter[str] = field(default_factory=Counter)
    gold: Counter[str] = field(default_factory=Counter)
    n_outside: int = 0
    n_gold_pairs: int = 0
    n_reached: int = 0
    n_negative: int = 0
    n_false_alarms: int = 0

    @property
    def micro(self) -> Counts:
        """All positive labels together."""
        return Counts(self.hits.total(), self.predicted.total() + self.n_outside, self.gold.total())

    @property
    def strict(self) -> Counts:
        """As `micro`, but a hit needs the right entity types too."""
        return Counts(self.strict_hits.total(), self.predicted.total() + self.n_outside, self.gold.total())

    @property
    def per_label(self) -> dict[str, Counts]:
        """Each label that was predicted or is annotated."""
        labels = sorted({*self.gold, *self.predicted})
        return {label: Counts(self.hits[label], self.predicted[label], self.gold[label]) for label in labels}

    @property
    def macro_f(self) -> float | None:
        """Mean F-score of the labels that occur in the annotations; None if there are none."""
        scores = [Counts(self.hits[label], self.predicted[label], self.gold[label]).f for label in self.gold]
        return sum(scores) / len(scores) if scores else None

    @property
    def candidate_recall(self) -> float | None:
        """Share of the gold pairs that were asked about; None if there are no gold pairs."""
        return self.n_reached / self.n_gold_pairs if self.n_gold_pairs else None

    @property
    def false_positive_rate(self) -> float | None:
        """Share of the pairs without a relation that were answered with one; None if there are no such pairs."""
        return self.n_false_alarms / self.n_negative if self.n_negative else None

    def add(self, other: Tally) -> None:
        """Add the counts of another tally to this one."""
        self.hits.update(other.hits)
        self.strict_hits.update(other.strict_hits)
        self.predicted.update(other.predicted)
        self.gold.update(other.gold)
        self.n_outside += other.n_outside
        self.n_gold_pairs += other.n_gold_pairs
        self.n_reached += other.n_reached
        self.n_negative += other.n_negative
        self.n_false_alarms += other.n_false_alarms


def count_facts(predicted: Mapping[Fact, Types], gold: Mapping[Fact, Types], n_outside: int = 0) -> Tally:
    """Count one document.

    Args:
        predicted: Predicted facts with the entity types of their mentions.
        gold: Gold facts with theirs.
        n_outside: Answers that are no label of the schema.
    """
    hits = predicted.keys() & gold.keys()
    return Tally(
        hits=Counter(fact[0] for fact in hits),
        strict_hits=Counter(fact[0] for fact in hits if predicted[fact] == gold[fact]),
        predicted=Counter(fact[0] for fact in predicted),
        gold=Counter(fact[0] for fact in gold),
        n_outside=n_outside,
    )


def total(tallies: Iterable[Tally]) -> Tally:
    """Add up tallies."""
    result = Tally()
    for tally in tallies:
        result.add(tally)
    return result


def directions_of(settings: Mapping[str, Any]) -> Directions:
    """Read from a run's settings which labels are symmetric or mirrored."""
    return Directions(frozenset(settings.get("symmetric") or ()), dict(settings.get("mirrors") or {}))
