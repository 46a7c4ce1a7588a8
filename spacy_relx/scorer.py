"""Evaluation of relations: positive-class precision, recall and F-score. It takes no part in prediction."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from spacy_relx.relation import DEFAULT_ATTR, answers_attr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from spacy.tokens import Doc
    from spacy.training import Example

    from spacy_relx.schema import Schema

#: Classes that are left out of the average; confusions with them still count as false positives or negatives.
#: Source: the evaluation of arXiv:2606.22606.
NEGATIVE_LABELS = frozenset({"none", "other", "no_relation", "na", "nan", "null", ""})

_Place: TypeAlias = tuple[int, int]
_Key: TypeAlias = tuple[str, _Place, _Place]


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

    Returns:
        `rel_micro_p`, `rel_micro_r`, `rel_micro_f` (None where no gold relation was seen), `rel_macro_f` (the mean over
        the labels that occur in the gold relations), and `rel_per_type` with p, r and f for each label.
    """
    hits: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    gold: Counter[str] = Counter()
    n_outside = 0
    negatives = NEGATIVE_LABELS if no_relation is None else NEGATIVE_LABELS | {no_relation.lower()}
    for example in examples:
        gold_keys = _keys(example.reference, attr, schema, negatives)
        predicted_keys = _keys(example.predicted, attr, schema, negatives)
        gold.update(key[0] for key in gold_keys)
        predicted.update(key[0] for key in predicted_keys)
        hits.update(key[0] for key in gold_keys & predicted_keys)
        answers = getattr(example.predicted._, answers_attr(attr))
        n_outside += sum(normalise_answer(answer.text) not in negatives for answer in answers)
    per_type = {label: _prf(hits[label], predicted[label], gold[label]) for label in sorted({*gold, *predicted})}
    micro = _prf(hits.total(), predicted.total() + n_outside, gold.total())
    known = [per_type[label]["f"] for label in gold]
    return {
        "rel_micro_p": micro["p"] if gold else None,
        "rel_micro_r": micro["r"] if gold else None,
        "rel_micro_f": micro["f"] if gold else None,
        "rel_macro_f": sum(known) / len(known) if known else None,
        "rel_per_type": per_type if gold else None,
    }


def normalise_answer(text: str) -> str:
    """Bring a free answer to the form in which the published evaluation compares answers.

    Source: protocol of arXiv:2606.22606: first line, lower case, single spaces, no quotes, no leading "Answer:".
    """
    stripped = text.strip()
    line = stripped.splitlines()[0].strip().lower() if stripped else ""
    line = line.removeprefix("answer:").strip()
    return " ".join(line.strip("\"'`").split()) or "none"


def _score(
    examples: Iterable[Example],
    *,
    named: str | None,
    attr: str = DEFAULT_ATTR,
    schema: Schema | None = None,
    no_relation: str | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    # What is not named here is other components' business: spaCy hands everything to every scorer.
    return score_relations(examples, attr=named or attr, schema=schema, no_relation=no_relation)


def _keys(doc: Doc, attr: str, schema: Schema | None, negatives: frozenset[str]) -> set[_Key]:
    keys: set[_Key] = set()
    for relation in getattr(doc._, attr):
        if relation.label.lower() in negatives:
            continue
        label = relation.label
        head, tail = ((mention.start_char, mention.end_char) for mention in (relation.head, relation.tail))
        if schema is not None:
            label, head, tail = schema.canonical(label, head, tail)
            if label in schema and schema[label].symmetric:
                head, tail = sorted((head, tail))
        keys.add((label, head, tail))
    return keys


def _prf(hits: int, predicted: int, gold: int) -> dict[str, float]:
    precision = hits / predicted if predicted else 0.0
    recall = hits / gold if gold else 0.0
    total = precision + recall
    return {"p": precision, "r": recall, "f": 2 * precision * recall / total if total else 0.0}
