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

#: Classes that are left out of the average; confusions with them still count as false positives or negatives.
#: Source: the evaluation of arXiv:2606.22606.
NEGATIVE_LABELS = frozenset({"none", "other", "no_relation", "na", "nan", "null", ""})

_Key: TypeAlias = tuple[int, int, int, int, str]


def make_relation_scorer(attr: str | None = None) -> Callable[..., dict[str, Any]]:
    """Create the scorer `spacy-relx.relation_scorer.v1`.

    Args:
        attr: The extension attribute that holds the relations; None: the one that the component writes.
    """
    return partial(_score, named=attr)  # not a closure: a pipeline is pickled for worker processes


def score_relations(examples: Iterable[Example], *, attr: str = DEFAULT_ATTR) -> dict[str, Any]:
    """Score predicted against gold relations.

    A relation is a hit if label and the character offsets of both mentions are those of a gold relation. Gold relations
    that were never enumerated as candidates are misses like any other; an answer of free decoding outside the schema is
    a false positive.

    Returns:
        `rel_micro_p`, `rel_micro_r`, `rel_micro_f` (None where nothing can be counted), `rel_macro_f`, and
        `rel_per_type` with p, r and f for each label.
    """
    hits: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    gold: Counter[str] = Counter()
    n_outside = 0
    seen_gold = False
    for example in examples:
        gold_keys, predicted_keys = _keys(example.reference, attr), _keys(example.predicted, attr)
        seen_gold = seen_gold or bool(gold_keys)
        gold.update(key[-1] for key in gold_keys)
        predicted.update(key[-1] for key in predicted_keys)
        hits.update(key[-1] for key in gold_keys & predicted_keys)
        n_outside += len(getattr(example.predicted._, answers_attr(attr)))
    per_type = {label: _prf(hits[label], predicted[label], gold[label]) for label in sorted({*gold, *predicted})}
    micro = _prf(hits.total(), predicted.total() + n_outside, gold.total())
    known = [per_type[label]["f"] for label in gold]
    return {
        "rel_micro_p": micro["p"] if seen_gold else None,
        "rel_micro_r": micro["r"] if seen_gold else None,
        "rel_micro_f": micro["f"] if seen_gold else None,
        "rel_macro_f": sum(known) / len(known) if known else None,
        "rel_per_type": per_type if seen_gold else None,
    }


def _score(
    examples: Iterable[Example], *, named: str | None, attr: str = DEFAULT_ATTR, **kwargs: Any
) -> dict[str, Any]:
    return score_relations(examples, attr=named or attr)


def _keys(doc: Doc, attr: str) -> set[_Key]:
    return {
        (r.head.start_char, r.head.end_char, r.tail.start_char, r.tail.end_char, r.label)
        for r in getattr(doc._, attr)
        if r.label.lower() not in NEGATIVE_LABELS
    }


def _prf(hits: int, predicted: int, gold: int) -> dict[str, float]:
    precision = hits / predicted if predicted else 0.0
    recall = hits / gold if gold else 0.0
    total = precision + recall
    return {"p": precision, "r": recall, "f": 2 * precision * recall / total if total else 0.0}
