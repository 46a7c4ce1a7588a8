"""From stored records to scores: precision, recall and F of the positive classes, and what stands beside them.

Owns which answer counts as a prediction and how a document is counted. Confidence intervals and tests are in
`bootstrap`, calibration and curves in `calibration`, SemEval's own score in `semeval`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spacy_relx.errors import DataError
from spacy_relx.evaluation.counts import (
    Counts,
    Directions,
    Fact,
    Place,
    Tally,
    Types,
    count_facts,
    directions_of,
    negative_labels,
    normalise_answer,
    total,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from spacy_relx.evaluation.records import PairRecord, RunInfo

__all__ = ["Decision", "Scores", "one_answer_ceiling", "score", "tally_documents", "without_negative"]


@dataclass(frozen=True, slots=True)
class Decision:
    """Which answers count as predictions: those that reach their label's threshold.

    As in the pipeline, thresholds judge labels only: an answer outside the schema always counts, as an error.

    Attributes:
        threshold: Least score of labels that have no threshold of their own, 0..1.
        labels: Least score by label.
        negative: The run's own name for no relation, beside the published ones.
    """

    threshold: float = 0.0
    labels: Mapping[str, float] = field(default_factory=dict)
    negative: str | None = None

    def answer(self, record: PairRecord) -> str | None:
        """Return the predicted label, or the text of an answer outside the schema, or None for no relation."""
        if record.answer is None or not record.enumerated or says_nothing(record, self.negative):
            return None
        if not record.in_schema or record.score >= self.labels.get(record.answer, self.threshold):
            return record.answer
        return None


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one run.

    Attributes:
        tally: All counts.
        n_docs: Documents.
        n_asked: Pairs that were asked about.
        ceiling: The best F-score that one answer a pair can reach; see `one_answer_ceiling`.
        typed: Whether entity types could be compared, so that `tally.strict` says something.
    """

    tally: Tally
    n_docs: int
    n_asked: int
    ceiling: Counts
    typed: bool

    @property
    def micro(self) -> Counts:
        """All positive labels together."""
        return self.tally.micro

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON and tables."""
        tally = self.tally
        return {
            "micro": tally.micro.to_dict(),
            "macro_f": tally.macro_f,
            "strict": tally.strict.to_dict() if self.typed else None,
            "per_label": {label: counts.to_dict() for label, counts in tally.per_label.items()},
            "ceiling": self.ceiling.to_dict(),
            "candidate_recall": tally.candidate_recall,
            "false_positive_rate": tally.false_positive_rate,
            "n_docs": self.n_docs,
            "n_asked": self.n_asked,
            "n_gold_pairs": tally.n_gold_pairs,
            "n_reached": tally.n_reached,
            "n_negative": tally.n_negative,
            "n_false_alarms": tally.n_false_alarms,
            "n_outside": tally.n_outside,
        }


def score(info: RunInfo, records: Iterable[PairRecord], decision: Decision | None = None) -> Scores:
    """Score a run.

    Under the protocol `given` every ordered pair is a row of its own: the answer is a hit if it is among the pair's
    gold labels, and every gold label that is not answered is a miss. Under the others a fact counts once, in whichever
    order a symmetric or mirrored relation was stated. Gold pairs that were never enumerated are misses everywhere.

    Args:
        info: The run.
        records: Its records.
        decision: Thresholds; None: every answer counts.
    """
    records = list(records)
    tallies = tally_documents(info, records, decision)
    return Scores(
        tally=total(tallies.values()),
        n_docs=len(tallies),
        n_asked=sum(record.enumerated for record in records),
        ceiling=one_answer_ceiling(info, records),
        typed=any(record.gold_types is not None for record in records),
    )


def tally_documents(info: RunInfo, records: Iterable[PairRecord], decision: Decision | None = None) -> dict[str, Tally]:
    """Count each document of a run.

    Args:
        info: The run.
        records: Its records.
        decision: Thresholds; None: every answer counts.

    Returns:
        A tally by document, in the order of the records.
    """
    decision = decision or Decision(negative=info.negative)
    directions = directions_for(info)
    return {
        name: _tally(doc, decision, directions, negative_labels(info.negative))
        for name, doc in by_document(records).items()
    }


def one_answer_ceiling(info: RunInfo, records: Iterable[PairRecord]) -> Counts:
    """Count what answering every gold pair with one of its gold labels would give.

    A pair with several gold labels takes one answer, so the others are misses whatever the model says.
    """
    negatives, directions = negative_labels(info.negative), directions_for(info)
    n_answers = n_gold = 0
    for doc in by_document(records).values():
        rows: dict[frozenset[Place], set[tuple[Place, Place]]] = defaultdict(set)
        facts: dict[frozenset[Place], set[Fact]] = defaultdict(set)
        for record in doc:
            head, tail = places(record)
            gold = [label for label in record.gold if label.lower() not in negatives]
            if gold:
                rows[frozenset((head, tail))].add((head, tail))
                facts[frozenset((head, tail))].update(directions.fact(label, head, tail) for label in gold)
        n_answers += sum(min(len(rows[pair]), len(facts[pair])) for pair in rows)
        n_gold += sum(map(len, facts.values()))
    return Counts(n_answers, n_answers, n_gold)


def directions_for(info: RunInfo) -> Directions:
    """Which labels a run may state in either order: none under `given`, where every ordered pair is a row."""
    return Directions() if info.protocol == "given" else directions_of(info.settings)


def by_document(records: Iterable[PairRecord]) -> dict[str, list[PairRecord]]:
    """Group records by document, in order."""
    docs: dict[str, list[PairRecord]] = {}
    for record in records:
        docs.setdefault(record.doc, []).append(record)
    return docs


def without_negative(info: RunInfo, records: Iterable[PairRecord]) -> Iterator[PairRecord]:
    """What a run would have answered, had no relation been no answer: the best of the labels, whatever beats it.

    Data sets whose given pairs all hold a relation, such as CoNLL04's and NYT's, are asked about so. What was trained
    with negatives has no relation among its answers, and there it can only be wrong.

    Raises:
        DataError: If pairs are not given, or one of them holds no relation.
    """
    if info.protocol != "given":
        raise DataError(f"The protocol is {info.protocol}. Expected given: other pairs may well hold no relation.")
    negatives = negative_labels(info.negative)
    for record in records:
        if not record.gold:
            raise DataError(
                f"{info.dataset}: {record.head.text!r} and {record.tail.text!r} in document {record.doc} hold no "
                "relation. Expected pairs that all hold one; score the others with no relation among the answers."
            )
        if record.answer is None:
            best = next((label for label, _ in record.scores if label.lower() not in negatives), None)
            record = replace(record, answer=best)
        yield record


def places(record: PairRecord) -> tuple[Place, Place]:
    """Where the two mentions lie."""
    return (record.head.start, record.head.end), (record.tail.start, record.tail.end)


def says_nothing(record: PairRecord, negative: str | None) -> bool:
    """Whether the answer is one of the names for no relation."""
    if record.answer is None:
        return True
    said = record.answer.lower() if record.in_schema else normalise_answer(record.answer)
    return said in negative_labels(negative)


def gold_facts(records: Sequence[PairRecord], directions: Directions, negatives: frozenset[str]) -> dict[Fact, Types]:
    """The gold facts of one document with the annotated types of their mentions."""
    facts: dict[Fact, Types] = {}
    for record in records:
        head, tail = places(record)
        for label in record.gold:
            if label.lower() not in negatives:
                types = record.gold_types or (record.head.type, record.tail.type)
                facts[directions.fact(label, head, tail)] = _in_order(types, directions, label, head, tail)
    return facts


def _tally(
    records: Sequence[PairRecord], decision: Decision, directions: Directions, negatives: frozenset[str]
) -> Tally:
    gold = gold_facts(records, directions, negatives)
    asked = {places(record) for record in records if record.enumerated}
    predicted: dict[Fact, Types] = {}
    n_outside = n_gold_pairs = n_reached = n_negative = n_false_alarms = 0
    for record in records:
        head, tail = places(record)
        answer = decision.answer(record)
        is_wrong = answer is not None
        if answer is not None and record.in_schema:
            fact = directions.fact(answer, head, tail)
            types = _in_order((record.head.type, record.tail.type), directions, answer, head, tail)
            # Both orders may state one fact; the types are those of the mentions, so either will do.
            predicted[fact] = types
            is_wrong = fact not in gold
        elif answer is not None:
            n_outside += 1
        labels = [label for label in record.gold if label.lower() not in negatives]
        if labels:
            n_gold_pairs += 1
            n_reached += any(directions.reachable(label, head, tail, asked) for label in labels)
        elif record.enumerated:
            n_negative += 1
            n_false_alarms += is_wrong
    tally = count_facts(predicted, gold, n_outside)
    tally.n_gold_pairs, tally.n_reached = n_gold_pairs, n_reached
    tally.n_negative, tally.n_false_alarms = n_negative, n_false_alarms
    return tally


def _in_order(types: Types, directions: Directions, label: str, head: Place, tail: Place) -> Types:
    return (types[1], types[0]) if directions.turned(label, head, tail) else types
