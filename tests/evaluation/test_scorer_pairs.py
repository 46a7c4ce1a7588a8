"""What the pipeline's scorer says beside precision and recall: types, candidates, false alarms."""

from __future__ import annotations

from typing import Any

import pytest
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.vocab import Vocab

from spacy_relx import RelationAnswer, relation
from spacy_relx.schema import parse_labels
from spacy_relx.scorer import score_relations

relation.register()
VOCAB = Vocab()
A, B, C, D = (0, 1), (1, 2), (2, 3), (3, 4)


def make_doc(rows: list[Any] = (), types: str = "XXXX", answers: list[Any] = ()) -> Doc:  # type: ignore[assignment]
    doc = Doc(VOCAB, ["a", "b", "c", "d"])
    doc.ents = [Span(doc, i, i + 1, kind) for i, kind in enumerate(types)]
    doc._.relations = list(rows)
    doc._.relation_answers = [RelationAnswer(doc[h[0] : h[1]], doc[t[0] : t[1]], text, 0.9) for h, text, t in answers]
    return doc


def pairs(*wanted: tuple[Any, Any]) -> Any:
    return lambda doc: [(doc[h[0] : h[1]], doc[t[0] : t[1]]) for h, t in wanted]


def test_strict_needs_the_right_types() -> None:
    gold = make_doc([(A, "r", B), (C, "r", D)], "XYXY")
    predicted = make_doc([(A, "r", B), (C, "r", D)], "XYXZ")
    scores = score_relations([Example(predicted, gold)])
    assert scores["rel_micro_f"] == 1.0
    assert scores["rel_strict_p"] == scores["rel_strict_r"] == scores["rel_strict_f"] == 0.5


def test_pairs() -> None:
    gold = make_doc([(A, "r", B), (A, "s", B), (B, "r", C), (C, "NA", D)])
    predicted = make_doc([(A, "r", B), (D, "r", A), (C, "NA", D)], answers=[(C, "junk", A), (B, "none", A)])
    asked = pairs((A, B), (D, A), (C, D), (C, A), (B, A))
    scores = score_relations([Example(predicted, gold)], candidate_pairs=asked)
    assert scores["rel_candidate_recall"] == 0.5  # (B, C) was never asked about
    assert scores["rel_false_positive_rate"] == 2 / 4
    assert scores["rel_n_outside"] == 1
    assert "rel_candidate_recall" not in score_relations([Example(predicted, gold)])


def test_pairs_in_either_order() -> None:
    schema = parse_labels({"spouse": {"symmetric": True}, "r": None})
    gold, predicted = make_doc([(B, "spouse", A)]), make_doc([(A, "spouse", B)])
    scores = score_relations([Example(predicted, gold)], schema=schema, candidate_pairs=pairs((A, B)))
    assert scores["rel_micro_f"] == scores["rel_candidate_recall"] == scores["rel_strict_f"] == 1.0
    assert scores["rel_false_positive_rate"] == pytest.approx(0.0)
