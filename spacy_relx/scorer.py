"""Evaluation of relations: positive-class precision, recall and F-score. It takes no part in prediction.

Owns the way from Examples to facts; how facts are counted is in `evaluation.counts`, which stored records share.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from spacy_relx.evaluation.counts import (
    NEGATIVE_LABELS,
    Directions,
    Fact,
    Tally,
    Types,
    count_facts,
    negative_labels,
    normalise_answer,
)
from spacy_relx.relation import DEFAULT_ATTR, answers_attr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from spacy.tokens import Doc, Span
    from spacy.training import Example

    from spacy_relx.evaluation.counts import Place
    from spacy_relx.schema import Schema

    CandidatePairs = Callable[[Doc], Iterable[tuple[Span, Span]]]

__all__ = ["NEGATIVE_LABELS", "make_relation_scorer", "normalise_answer", "score_relations"]


def make_relation_scorer(attr: str | None = None) -> Callable[..., dict[str, Any]]:
    """Create the scorer `spacy-relx.relation_scorer.v1`.

    Args:
        attr: The extension attribute that holds the relations; None: the one that the component writes.
    """
    return partial(_score, named=attr)  # not a closure: a pipeline is pickled for worker processes


def score_relations(
    examples: Iterable[Example],
    *,
    attr: str = DEFAULT_ATTR,
    schema: Schema | None = None,
    no_relation: str | None = None,
    candidate_pairs: CandidatePairs | None = None,
) -> dict[str, Any]:
    """Score predicted against gold relations.

    A relation is a hit if label and the character offsets of both mentions are those of a gold relation. Gold relations
    that were never enumerated as candidates are misses like any other; an answer of free decoding outside the schema is
    a false positive, unless it says that there is no relation.

    Args:
        examples: Predicted and gold Docs.
        attr: The extension attribute that holds the relations.
        schema: Tells which labels are symmetric or each other's mirror, so that the order in which gold relations were
            written down does not matter.
        no_relation: A negative label beside the published ones; it is never counted.
        candidate_pairs: Enumerates the pairs of a predicted Doc that were asked about.

    Returns:
        `rel_micro_p`, `rel_micro_r`, `rel_micro_f` (None where no gold relation was seen), `rel_macro_f` (the mean over
        the labels that occur in the gold relations), and `rel_per_type` with p, r and f for each label. Where there are
        gold relations, also `rel_strict_p`, `rel_strict_r`, `rel_strict_f` (a hit needs the right entity types of both
        mentions too), and `rel_n_outside`, the answers outside the schema; with `candidate_pairs`, also
        `rel_candidate_recall` (the share of gold pairs that were asked about) and `rel_false_positive_rate` (the share
        of pairs without a gold relation that were given one).
    """
    directions = Directions() if schema is None else _directions(schema)
    negatives = negative_labels(no_relation)
    tally = Tally()
    for example in examples:
        gold = _facts(example.reference, attr, directions, negatives)
        predicted = _facts(example.predicted, attr, directions, negatives)
        outside = [
            a for a in getattr(example.predicted._, answers_attr(attr)) if normalise_answer(a.text) not in negatives
        ]
        counted = count_facts(predicted, gold, len(outside))
        if candidate_pairs is not None:
            asked = {_places(head, tail) for head, tail in candidate_pairs(example.predicted)}
            _count_pairs(counted, example, attr, directions, negatives, asked, {*predicted} - {*gold}, outside)
        tally.add(counted)
    if not tally.gold:
        keys = ("rel_micro_p", "rel_micro_r", "rel_micro_f", "rel_macro_f", "rel_per_type")
        return dict.fromkeys(keys)
    scores: dict[str, Any] = {f"rel_micro_{name}": value for name, value in tally.micro.prf().items()}
    scores["rel_macro_f"] = tally.macro_f
    scores["rel_per_type"] = {label: counts.prf() for label, counts in tally.per_label.items()}
    scores |= {f"rel_strict_{name}": value for name, value in tally.strict.prf().items()}
    scores["rel_n_outside"] = tally.n_outside
    if candidate_pairs is not None:
        scores["rel_candidate_recall"] = tally.candidate_recall
        scores["rel_false_positive_rate"] = tally.false_positive_rate
    return scores


def _score(
    examples: Iterable[Example],
    *,
    named: str | None,
    attr: str = DEFAULT_ATTR,
    schema: Schema | None = None,
    no_relation: str | None = None,
    candidate_pairs: CandidatePairs | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    # What is not named here is other components' business: spaCy hands everything to every scorer.
    return score_relations(
        examples, attr=named or attr, schema=schema, no_relation=no_relation, candidate_pairs=candidate_pairs
    )


def _directions(schema: Schema) -> Directions:
    return Directions(frozenset(label.name for label in schema if label.symmetric), schema.mirrors)


def _facts(doc: Doc, attr: str, directions: Directions, negatives: frozenset[str]) -> dict[Fact, Types]:
    facts: dict[Fact, Types] = {}
    for relation in getattr(doc._, attr):
        if relation.label.lower() not in negatives:
            places = _places(relation.head, relation.tail)
            head_type, tail_type = relation.head.label_, relation.tail.label_
            turned = directions.turned(relation.label, *places)
            facts[directions.fact(relation.label, *places)] = (
                (tail_type, head_type) if turned else (head_type, tail_type)
            )
    return facts


def _places(head: Span, tail: Span) -> tuple[Place, Place]:
    return (head.start_char, head.end_char), (tail.start_char, tail.end_char)


def _count_pairs(
    tally: Tally,
    example: Example,
    attr: str,
    directions: Directions,
    negatives: frozenset[str],
    asked: set[tuple[Place, Place]],
    wrong: set[Fact],
    outside: Iterable[Any],
) -> None:
    """Add to a document's tally what became of its pairs."""
    gold: dict[tuple[Place, Place], list[str]] = {}
    for relation in getattr(example.reference._, attr):
        if relation.label.lower() not in negatives:
            gold.setdefault(_places(relation.head, relation.tail), []).append(relation.label)
    tally.n_gold_pairs = len(gold)
    tally.n_reached = sum(
        any(directions.reachable(label, *pair, asked) for label in labels) for pair, labels in gold.items()
    )
    negative = asked - gold.keys()
    alarms = {_places(answer.head, answer.tail) for answer in outside} & negative
    # A symmetric relation is kept for one order of the pair, whichever that is.
    alarms |= {(head, tail) for _, head, tail in wrong} & negative
    tally.n_negative, tally.n_false_alarms = len(negative), len(alarms)
